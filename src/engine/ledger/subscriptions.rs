//! Subscriptions: their queues, and in which rotations they stand.

use crate::words::clock::Time;
use crate::words::command::{Demand, Options, Tag};
use crate::words::ids::MessageId;

use super::super::state::deadlines::Due;
use super::super::state::members::Member;
use super::super::state::message::{Slot, State};
use super::super::state::queue::{Queue, QueueSlot};
use super::super::state::reservation::NONE;
use super::super::state::session::{Hold, Keyed, Portion, SessionSlot, Wait};
use super::super::state::subscription::{Subscription, SubscriptionSlot};
use super::Ledger;

impl Ledger {
    /// The subscription of this key, which is made if there is none.
    pub fn open_subscription(
        &mut self,
        now: Time,
        who: SessionSlot,
        key: Keyed,
    ) -> SubscriptionSlot {
        if let Some(slot) = self.sessions[who].subscription(&key) {
            return slot;
        }
        let mut fresh = Subscription::new(who, key.clone());
        (fresh.stamp, fresh.clock_since) = (self.draw_stamp(), now);
        let slot = self.subscriptions.insert(fresh);
        let session = &mut self.sessions[who];
        session.subscribed += 1;
        match key {
            Keyed::Number(0) => session.first = Some(slot),
            Keyed::Once => {}
            other => drop(session.others.insert(other, slot)),
        }
        slot
    }

    /// Adds a queue to the set of a subscription, and says what it asks for from now on.
    pub fn subscribe(&mut self, slot: SubscriptionSlot, queue: QueueSlot, options: Options) {
        self.subscriptions.set_tag(slot, options.tag);
        let subscription = &mut self.subscriptions[slot];
        let was_window = subscription.is_window();
        let before = (subscription.demand, subscription.settlement, subscription.terms);
        subscription.demand = options.demand;
        if subscription.held.is_empty() {
            // What is out has the clocks that it was handed out with.
            subscription.settlement = options.settlement;
            subscription.terms = options.terms;
        }
        subscription.woken = false;
        if was_window != subscription.is_window() {
            for member in subscription.queues.iter() {
                let queue = &mut self.queues[member.queue];
                *references(queue, was_window) -= 1;
                *references(queue, !was_window) += 1;
            }
        }
        let now = (subscription.demand, subscription.settlement, subscription.terms);
        if subscription.queues.position(queue).is_none() {
            *references(&mut self.queues[queue], subscription.is_window()) += 1;
            self.sessions[subscription.session].subscribed += 1;
            self.subscriptions.add_queue(slot, queue);
        }
        if now != before || now.0 != Demand::OnRequest || self.is_in_rotation(slot) {
            self.update(slot);
        }
    }

    /// Has nothing more handed out of a queue that is about to be taken out of a subscription.
    pub fn begin_leaving(&mut self, slot: SubscriptionSlot, queue: QueueSlot) {
        if let Some(member) = self.subscriptions[slot].queues.get_mut(queue) {
            member.leaving = true;
        }
        self.update(slot);
    }

    /// Takes the queue at this place out of a subscription, out of which it has nothing. As in
    /// lists of queues, the last one takes its place.
    pub fn unsubscribe(&mut self, slot: SubscriptionSlot, at: usize) -> QueueSlot {
        let Member { queue, entered, .. } = self.subscriptions.remove_queue(slot, at);
        let subscription = &self.subscriptions[slot];
        self.sessions[subscription.session].subscribed -= 1;
        let here = &mut self.queues[queue];
        *references(here, subscription.is_window()) -= 1;
        here.rotation.remove(&(entered, slot));
        queue
    }

    /// Ends a subscription without queues.
    pub fn end_subscription(&mut self, slot: SubscriptionSlot) {
        let subscription = self.subscriptions.remove(slot);
        debug_assert!(subscription.queues.is_empty(), "a subscription that still has queues");
        debug_assert!(subscription.held.is_empty(), "a subscription that has something out");
        self.deadlines.cancel(subscription.armed, Due::Window(slot));
        let session = &mut self.sessions[subscription.session];
        session.subscribed -= 1;
        match &subscription.key {
            Keyed::Number(0) => session.first = None,
            Keyed::Once => {}
            other => drop(session.others.remove(other)),
        }
        if subscription.lost_places > 0 {
            session.lost.retain(|_, places| {
                places.retain(|place| *place != slot);
                !places.is_empty()
            });
        }
    }

    /// Makes a session wait for a message of a subscription.
    pub fn begin_wait(
        &mut self,
        slot: SubscriptionSlot,
        tag: Tag,
        (until, portion): (Time, Portion),
    ) {
        let stamp = self.draw_stamp();
        let subscription = &mut self.subscriptions[slot];
        subscription.stamp = stamp;
        let who = subscription.session;
        self.sessions[who].hold = Hold::Waiting(Wait { subscription: slot, tag, until, portion });
        self.counts.waiting += 1;
        for member in subscription.queues.iter() {
            self.queues[member.queue].waiting += 1;
        }
        self.update(slot);
        self.arm_session(who);
    }

    /// Takes a waiting session out of all rotations.
    pub fn end_wait(&mut self, who: SessionSlot) -> Option<Wait> {
        let session = &mut self.sessions[who];
        if !session.is_waiting() {
            return None;
        }
        let Hold::Waiting(wait) = std::mem::replace(&mut session.hold, Hold::Free) else {
            return None;
        };
        self.counts.waiting -= 1;
        for member in self.subscriptions[wait.subscription].queues.iter() {
            self.queues[member.queue].waiting -= 1;
        }
        self.update(wait.subscription);
        self.arm_session(who);
        Some(wait)
    }

    /// Sends a subscription to the end of the rotations, out of this queue's in which it is taken.
    pub fn send_to_the_end(&mut self, slot: SubscriptionSlot, queue: QueueSlot) {
        let stamp = self.draw_stamp();
        let subscription = &mut self.subscriptions[slot];
        subscription.stamp = stamp;
        if let Some(member) = subscription.queues.get_mut(queue) {
            let entered = std::mem::take(&mut member.entered);
            self.queues[queue].rotation.remove(&(entered, slot));
        }
    }

    /// Puts the entry of a subscription at the front of a rotation right if it is older than the
    /// subscription's last message; says whether it was.
    pub fn refresh_entry(&mut self, slot: SubscriptionSlot, queue: QueueSlot) -> bool {
        let subscription = &mut self.subscriptions[slot];
        let stamp = subscription.stamp;
        let member = subscription.queues.get_mut(queue);
        let Some(member) = member.filter(|member| member.entered != stamp) else { return false };
        let rotation = &mut self.queues[queue].rotation;
        rotation.remove(&(member.entered, slot));
        rotation.insert((stamp, slot));
        member.entered = stamp;
        true
    }

    /// Notes whether a subscription has been told to wake up, and that it asks for it no more or
    /// again.
    pub fn set_woken(&mut self, slot: SubscriptionSlot, woken: bool) {
        self.subscriptions[slot].woken = woken;
        self.update(slot);
    }

    /// Notes a message that is done when it has been sent.
    pub fn begin_sending(&mut self, who: SessionSlot, id: MessageId) {
        self.sessions[who].sending.push_back(id);
    }

    /// The oldest message of a session that was still being sent.
    pub fn end_sending(&mut self, who: SessionSlot) -> Option<MessageId> {
        self.sessions[who].sending.pop_front()
    }

    /// Whether a subscription stands in the rotations of its queues.
    pub fn is_in_rotation(&self, slot: SubscriptionSlot) -> bool {
        let subscription = &self.subscriptions[slot];
        let session = &self.sessions[subscription.session];
        let waits = matches!(&session.hold, Hold::Waiting(wait) if wait.subscription == slot);
        let wants = match subscription.demand {
            Demand::OnRequest => false,
            Demand::Window(_) => subscription.has_room() && session.takes_dispatches(),
            Demand::WakeUp => !subscription.woken && session.takes_dispatches(),
        };
        waits || wants
    }

    /// Puts a subscription into the rotations or takes it out, as it has room, and sets the clock
    /// of its window.
    pub fn update(&mut self, slot: SubscriptionSlot) {
        let stands = self.is_in_rotation(slot);
        let subscription = &mut self.subscriptions[slot];
        let stamp = subscription.stamp;
        let mut has_entered = false;
        for member in subscription.queues.iter_mut() {
            let rotation = &mut self.queues[member.queue].rotation;
            let stands = stands && !member.leaving;
            if stands && member.entered == 0 {
                has_entered = true;
                member.entered = stamp;
                rotation.insert((stamp, slot));
            } else if !stands && member.entered != 0 {
                rotation.remove(&(member.entered, slot));
                member.entered = 0;
            }
        }
        if has_entered && subscription.queues.len() > 1 && subscription.demand != Demand::OnRequest
        {
            self.entered.push(slot);
        }
        // The clock of the oldest message runs from its delivery or from the moment it became
        // the oldest, which is now when the one before it has just gone.
        if let Some(first) = subscription.held.first()
            && subscription.has_one_clock()
        {
            let since = self.reservations[first].moment;
            subscription.clock_since = subscription.clock_since.max(since);
        }
        let at = subscription.deadline(self.sessions[subscription.session].ack_timeout_ms);
        if at < subscription.armed {
            self.deadlines.rearm(&mut subscription.armed, at, Due::Window(slot));
        }
    }

    /// A standing subscription of several queues that has entered the rotations: what made room for
    /// a message of one queue may have made it for those of the others.
    pub fn pop_entered(&mut self) -> Option<SubscriptionSlot> {
        while let Some(slot) = self.entered.pop() {
            if self.subscriptions.contains(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Brings all standing subscriptions of a session into their rotations or out of them.
    pub fn update_standing(&mut self, who: SessionSlot) {
        for slot in self.standing_of(who) {
            self.update(slot);
        }
    }

    /// The subscriptions of a session that want something without being asked for.
    pub fn standing_of(&self, who: SessionSlot) -> Vec<SubscriptionSlot> {
        let all = self.sessions[who].subscriptions();
        all.filter(|slot| self.subscriptions[*slot].demand != Demand::OnRequest).collect()
    }

    /// Whether the holder of a message can be at work on it: it was taken on request, or is the
    /// oldest of its window. When a session has ended, that is the one that was the oldest then.
    pub fn is_in_work(&self, slot: Slot) -> bool {
        let State::Reserved(reservation) = self.messages[slot].state else { return false };
        let Some(through) = self.reservations[reservation].window() else { return true };
        let subscription = &self.subscriptions[through];
        match self.sessions[subscription.session].hold {
            Hold::Ended => subscription.oldest_at_end == reservation,
            _ => subscription.held.first() == Some(reservation),
        }
    }

    /// The session is at its end: notes which messages it can have been at work on.
    pub fn note_work_at_end(&mut self, who: SessionSlot) {
        for slot in self.sessions[who].subscriptions() {
            let subscription = &mut self.subscriptions[slot];
            subscription.oldest_at_end = subscription.held.first().unwrap_or(NONE);
        }
    }

    /// Frees a place that this message has taken in a window of the session, on that queue if one
    /// is named, and says of which subscription.
    pub fn free_lost_place(
        &mut self,
        now: Time,
        who: SessionSlot,
        id: MessageId,
        named: Option<QueueSlot>,
    ) -> Option<SubscriptionSlot> {
        let lost = &mut self.sessions[who].lost;
        let places = lost.get_mut(&id)?;
        let fits = |slot: &SubscriptionSlot| match self.subscriptions[*slot].key {
            Keyed::Queue(queue) => named.is_none_or(|named| named == queue),
            _ => true,
        };
        // It may have been lost in two queues, when it became a dead letter in between.
        let fitting = places.iter().enumerate().filter(|(_, slot)| fits(slot));
        let first = |slot: &SubscriptionSlot| self.subscriptions[*slot].queues.first();
        let (at, _) = fitting.min_by_key(|(_, slot)| first(slot).map(|member| member.queue))?;
        let slot = places.swap_remove(at);
        if places.is_empty() {
            lost.remove(&id);
        }
        let subscription = &mut self.subscriptions[slot];
        subscription.lost_places -= 1;
        if subscription.held.is_empty() {
            // It has stirred: the time until it is given up starts again.
            subscription.clock_since = now;
        }
        Some(slot)
    }
}

/// The count of a queue's subscriptions of this kind.
fn references(queue: &mut Queue, window: bool) -> &mut u32 {
    if window { &mut queue.windows } else { &mut queue.watching }
}
