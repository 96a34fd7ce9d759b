//! The states of a message, and the lists and counts that follow them: the only code that changes
//! a message's state.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::change::Change;
use crate::words::clock::Time;
use crate::words::ids::{MessageId, Sequence};

use super::super::state::deadlines::Due;
use super::super::state::message::{History, Message, Slot, State};
use super::super::state::queue::{QueueSlot, URGENT_BELOW};
use super::super::state::ready::ReadyList;
use super::super::state::reservation::{Holder, Of, ReservationSlot};
use super::super::{Effect, Turn};
use super::Ledger;

/// A message that is on no list.
#[derive(Debug)]
#[must_use = "the message is on no list until it is placed or forgotten"]
pub(in crate::engine) struct Detached(Slot);

impl Detached {
    pub fn slot(&self) -> Slot {
        self.0
    }
}

/// What a window loses when a message is taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Lost {
    /// Nothing: the peer knows.
    PlaceIsFree,
    /// The place, until the peer acknowledges too late: it still has the message.
    PlaceStaysTaken,
}

/// What was taken out of a flushed queue.
#[derive(Debug)]
pub(in crate::engine) struct Flushed {
    pub queue: QueueSlot,
    /// How many there were, those in somebody's hands included.
    pub count: u64,
    ready: ReadyList,
    delayed: BTreeSet<(Time, Sequence, Slot)>,
    buried: BTreeMap<u64, Slot>,
}

impl Flushed {
    /// The next one to be forgotten.
    pub fn pop(&mut self) -> Option<Detached> {
        let ready = self.ready.pop_first().map(|place| place.slot);
        let delayed = || self.delayed.pop_first().map(|(_, _, slot)| slot);
        let slot = ready.or_else(delayed);
        slot.or_else(|| self.buried.pop_first().map(|(_, slot)| slot)).map(Detached)
    }

    /// What is still to be forgotten.
    #[cfg(test)]
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let ready = self.ready.iter().map(|place| place.slot);
        let delayed = self.delayed.iter().map(|(.., slot)| *slot);
        ready.chain(delayed).chain(self.buried.values().copied())
    }
}

impl Ledger {
    /// The message of this id, unless it was flushed and only waits to be cleared away.
    pub fn find(&self, id: MessageId) -> Option<Slot> {
        self.messages.slot_of(id).filter(|slot| !self.is_flushed(*slot))
    }

    /// Adds a message, whose queue exists.
    pub fn insert(&mut self, message: Message, history: History) -> Detached {
        let body_bytes = u64::from(message.body_bytes);
        self.counts.body_bytes += body_bytes;
        self.queues[message.queue].body_bytes += body_bytes;
        if message.is_volatile {
            self.count_volatile(body_bytes);
        }
        Detached(self.messages.insert(message, history))
    }

    /// Takes a message off the list that its state puts it on. Where it came through a window, its
    /// place there is free; [`Ledger::take_back`] can keep it taken.
    pub fn detach(&mut self, slot: Slot) -> Detached {
        let place = self.messages.place(slot);
        let flushed = self.is_flushed(slot);
        let message = &self.messages[slot];
        let queue = &mut self.queues[message.queue];
        let totals = &mut self.counts.messages;
        match message.state {
            State::Ready => {
                queue.ready.remove(&place);
                totals.ready -= 1;
                if message.priority < URGENT_BELOW {
                    queue.urgent -= 1;
                    totals.urgent -= 1;
                }
            }
            State::Delayed(due) => {
                queue.delayed.remove(&(due, message.sequence, slot));
                totals.delayed -= 1;
            }
            State::Buried(burial) => {
                queue.buried.remove(&burial);
                totals.buried -= 1;
            }
            State::Reserved(reservation) => {
                if flushed {
                    queue.flushed_in_hand -= 1;
                } else {
                    totals.reserved -= 1;
                }
                self.reservations.unlink(&mut queue.reserved, Of::Queue, reservation);
                self.take_from_holder(reservation);
            }
        }
        Detached(slot)
    }

    fn take_from_holder(&mut self, reservation: ReservationSlot) {
        let session = &mut self.sessions[self.reservations[reservation].session];
        match self.reservations[reservation].window() {
            None => {
                self.reservations.unlink(&mut session.held, Of::Holder, reservation);
                if session.held.is_empty() {
                    session.soonest = Time::NEVER;
                }
            }
            Some(through) => {
                session.dispatched -= 1;
                let subscription = &mut self.subscriptions[through];
                self.reservations.unlink(&mut subscription.held, Of::Holder, reservation);
                if subscription.held.is_empty() {
                    subscription.soonest = Time::NEVER;
                }
            }
        }
        self.reservations.remove(reservation);
    }

    /// Takes a message out of its holder's hands. Where it came through a window, its place is
    /// free, or stays taken until a late acknowledgement when `lost` says so.
    pub fn take_back(&mut self, now: Time, slot: Slot, lost: Lost) -> Detached {
        let State::Reserved(reservation) = self.messages[slot].state else {
            return self.detach(slot);
        };
        let Some(through) = self.reservations[reservation].window() else {
            return self.detach(slot);
        };
        let is_first = self.subscriptions[through].held.first() == Some(reservation);
        let detached = self.detach(slot);
        let subscription = &mut self.subscriptions[through];
        if lost == Lost::PlaceStaysTaken {
            subscription.lost_places += 1;
            let session = &mut self.sessions[subscription.session];
            session.lost.entry(self.messages[slot].id).or_default().push(through);
        }
        if is_first {
            subscription.clock_since = now;
        }
        self.update(through);
        detached
    }

    pub fn place_ready(&mut self, Detached(slot): Detached) {
        let place = self.messages.place(slot);
        let message = &mut self.messages[slot];
        message.state = State::Ready;
        let queue = &mut self.queues[message.queue];
        queue.ready.insert(place);
        self.counts.messages.ready += 1;
        if message.priority < URGENT_BELOW {
            queue.urgent += 1;
            self.counts.messages.urgent += 1;
        }
    }

    pub fn place_delayed(&mut self, Detached(slot): Detached, due: Time) {
        let message = &mut self.messages[slot];
        message.state = State::Delayed(due);
        let queue_slot = message.queue;
        let queue = &mut self.queues[queue_slot];
        queue.delayed.insert((due, message.sequence, slot));
        self.counts.messages.delayed += 1;
        if due < queue.delay_armed {
            self.deadlines.rearm(&mut queue.delay_armed, due, Due::Delay(queue_slot));
        }
    }

    /// Sets a message aside, behind those that were set aside before, and stops the clock of its
    /// life.
    pub fn place_buried(&mut self, now: Time, detached: Detached) {
        let slot = detached.slot();
        let expires = self.messages[slot].expires;
        if expires != Time::NEVER {
            self.deadlines.cancel(expires, Due::Expire(slot));
            self.messages[slot].expires = Time(expires.since(now));
        }
        self.place_buried_at(detached, None);
    }

    /// Sets a message aside whose clock does not run, at its stored place if it has one that is
    /// free.
    pub fn place_buried_at(&mut self, Detached(slot): Detached, stored: Option<u64>) {
        let message = &mut self.messages[slot];
        let buried = &mut self.queues[message.queue].buried;
        let burial = stored.filter(|at| !buried.contains_key(at)).unwrap_or(self.next_burial);
        self.next_burial = self.next_burial.max(burial + 1);
        message.state = State::Buried(burial);
        buried.insert(burial, slot);
        self.counts.messages.buried += 1;
    }

    pub fn place_reserved(&mut self, Detached(slot): Detached, holder: Holder) {
        let (who, window, has_end, moment) = match holder {
            Holder::Session(who, until) => (who, None, true, until),
            Holder::Window(through, now) => {
                (self.subscriptions[through].session, Some(through), false, now)
            }
            Holder::TimedWindow(through, until) => {
                (self.subscriptions[through].session, Some(through), true, until)
            }
        };
        let reservation = self.reservations.insert(slot, who, window, (has_end, moment));
        let message = &mut self.messages[slot];
        message.state = State::Reserved(reservation);
        message.reserves = message.reserves.saturating_add(1);
        message.unsaved = true;
        self.counts.messages.reserved += 1;
        let queue = &mut self.queues[message.queue];
        self.reservations.push_back(&mut queue.reserved, Of::Queue, reservation);
        let session = &mut self.sessions[who];
        let held = match window {
            None => {
                session.soonest = session.soonest.min(moment);
                &mut session.held
            }
            Some(through) => {
                session.dispatched += 1;
                let subscription = &mut self.subscriptions[through];
                if has_end {
                    subscription.soonest = subscription.soonest.min(moment);
                } else if subscription.held.is_empty() {
                    subscription.clock_since = moment;
                }
                &mut subscription.held
            }
        };
        self.reservations.push_back(held, Of::Holder, reservation);
    }

    /// Forgets a message for good.
    pub fn forget(&mut self, turn: &mut Turn<'_>, Detached(slot): Detached) {
        self.leave_home(slot);
        if self.messages[slot].has_key {
            self.leave_key(turn, slot);
        }
        let message = self.messages.remove(slot);
        if !matches!(message.state, State::Buried(_)) {
            self.deadlines.cancel(message.expires, Due::Expire(slot));
        }
        self.counts.body_bytes -= u64::from(message.body_bytes);
        self.queues[message.queue].body_bytes -= u64::from(message.body_bytes);
        if message.is_volatile {
            self.uncount_volatile(u64::from(message.body_bytes));
            return turn.effects.push(Effect::RemoveVolatile(message.id));
        }
        turn.change(Change::Removed(message.id));
    }

    /// Gives a message another priority.
    pub fn set_priority(&mut self, detached: &Detached, priority: u32) {
        self.messages[detached.0].priority = priority;
    }

    /// Gives a message another place among those of its priority.
    pub fn set_sequence(&mut self, detached: &Detached, sequence: Sequence) {
        self.messages[detached.0].sequence = sequence;
    }

    /// Gives a message a new time to live, or none.
    pub fn set_expires(&mut self, detached: &Detached, expires: Time) {
        let slot = detached.0;
        let old = std::mem::replace(&mut self.messages[slot].expires, expires);
        self.deadlines.cancel(old, Due::Expire(slot));
        self.deadlines.add(expires, Due::Expire(slot));
    }

    /// Starts the clock of the life of a message that was just inserted.
    pub fn start_clock(&mut self, detached: &Detached) {
        self.deadlines.add(self.messages[detached.0].expires, Due::Expire(detached.0));
    }

    /// Starts the clock of a message's life again where setting it aside stopped it.
    pub fn restart_clock(&mut self, now: Time, detached: &Detached) {
        let slot = detached.0;
        let left = self.messages[slot].expires;
        if left != Time::NEVER {
            let expires = now.plus(left.0);
            self.messages[slot].expires = expires;
            self.deadlines.add(expires, Due::Expire(slot));
        }
    }

    /// What happened to a message, for one more entry.
    pub fn history_mut(&mut self, slot: Slot) -> &mut History {
        self.messages.history_mut(slot)
    }

    /// Notes that the counters of a message have changed since they were last written.
    pub fn mark_unsaved(&mut self, slot: Slot) {
        self.messages[slot].unsaved = true;
    }

    /// Writes down where the message is now, if anything is written of it.
    pub fn save(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        if self.messages[slot].is_volatile {
            return;
        }
        let row = self.state_row(slot);
        turn.change(Change::Moved(row));
    }

    /// Lists the rows of all messages whose counters have changed since they were last written.
    pub fn unsaved_counters(&mut self) -> Vec<Change> {
        let unsaved = |message: &Message| message.unsaved && !message.is_volatile;
        let unsaved = self.messages.iter().filter(|(_, message)| unsaved(message));
        let slots: Vec<Slot> =
            unsaved.map(|(slot, _)| slot).filter(|slot| !self.is_flushed(*slot)).collect();
        slots.into_iter().map(|slot| Change::Moved(self.state_row(slot))).collect()
    }

    /// Takes everything out of a queue at once; the pieces are forgotten one by one. What is in
    /// somebody's hands stays there, but counts no more.
    pub fn detach_all(&mut self, slot: QueueSlot, through: Sequence) -> Flushed {
        let queue = &mut self.queues[slot];
        queue.flushed_through = through;
        queue.works += 1;
        let counts = queue.counts();
        queue.flushed_in_hand = queue.reserved.len();
        let totals = &mut self.counts.messages;
        totals.reserved -= counts.reserved;
        totals.ready -= counts.ready;
        totals.delayed -= counts.delayed;
        totals.buried -= counts.buried;
        totals.urgent -= u64::from(std::mem::take(&mut queue.urgent));
        Flushed {
            queue: slot,
            count: counts.total(),
            ready: std::mem::take(&mut queue.ready),
            delayed: std::mem::take(&mut queue.delayed),
            buried: std::mem::take(&mut queue.buried),
        }
    }

    /// The oldest message in somebody's hands that was flushed out of this queue.
    pub fn first_flushed_in_hand(&self, queue: QueueSlot) -> Option<Slot> {
        // Invariant: what was reserved before the flush stands before what was reserved after it.
        let first = self.queues[queue].reserved.first();
        let slot = first.map(|first| self.reservations[first].message);
        slot.filter(|slot| self.is_flushed(*slot))
    }
}
