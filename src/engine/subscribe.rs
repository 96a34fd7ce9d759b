//! Subscriptions: what a connection wants, from now on or when it asks.

use crate::words::clock::Time;
use crate::words::command::{Demand, Handing, Options, Reply, Settlement, SubscriptionKey, Terms};
use crate::words::ids::QueueName;
use crate::words::limits::{SUBSCRIBED_ALWAYS, subscription_bytes_max};
use crate::words::refusal::Refusal;

use super::slices::Work;
use super::state::message::Slot;
use super::state::queue::QueueSlot;
use super::state::reservation::Holder;
use super::state::session::{Keyed, SessionSlot};
use super::state::subscription::SubscriptionSlot;
use super::{Asker, Effect, Engine, Turn};

impl Engine {
    pub(super) fn subscribe(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (key, name): (SubscriptionKey, &QueueName),
        mut options: Options,
    ) {
        if let Demand::Window(max) = &mut options.demand {
            self.ledger.count_worker(asker.session);
            *max = (*max).min(self.limits.max_window());
        }
        if !self.can_subscribe(asker.session) && !self.is_subscribed(asker.session, &key, name) {
            return turn.reply(asker, Reply::Refused(Refusal::OutOfMemory));
        }
        let Some(queue) = self.queue(name) else {
            return turn.reply(asker, Reply::Refused(self.refuse_queue()));
        };
        let is_answered = key != SubscriptionKey::Queue;
        let keyed = Keyed::new(key, queue);
        let slot = self.ledger.open_subscription(turn.time(), asker.session, keyed);
        let demand = options.demand;
        self.ledger.subscribe(slot, queue, options);
        let count = self.ledger.subscription(slot).queues.len();
        self.say_subscribed(turn, asker, is_answered, count);
        if demand != Demand::OnRequest {
            self.serve_subscription(turn, slot);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (key, name): (SubscriptionKey, &QueueName),
        keep_last: bool,
    ) {
        let is_answered = key != SubscriptionKey::Queue;
        if !is_answered {
            self.ledger.count_worker(asker.session);
        }
        let queue = self.ledger.queues().find(name);
        let Some(slot) = self.subscription(asker.session, key, queue) else {
            return self.say_subscribed(turn, asker, is_answered, 0);
        };
        let subscription = self.ledger.subscription(slot);
        let count = subscription.queues.len();
        let Some(queue) = queue.filter(|queue| subscription.queues.position(*queue).is_some())
        else {
            return self.say_subscribed(turn, asker, is_answered, count);
        };
        if keep_last && count == 1 {
            return turn.reply(asker, Reply::Refused(Refusal::LastQueue));
        }
        if subscription.is_window() || !subscription.held.is_empty() {
            return self.begin_work(turn, Work::Unsubscribe { asker, slot, queue });
        }
        self.say_subscribed(turn, asker, is_answered, count - 1);
        self.leave(turn, slot, queue);
    }

    /// Whether there is memory for one more subscription of a session, or queue in one.
    pub(super) fn can_subscribe(&self, who: SessionSlot) -> bool {
        self.ledger.session(who).subscribed < SUBSCRIBED_ALWAYS
            || self.ledger.subscriptions().bytes()
                < subscription_bytes_max(self.limits.max_memory())
    }

    /// Whether a queue is in this subscription.
    fn is_subscribed(&self, who: SessionSlot, key: &SubscriptionKey, name: &QueueName) -> bool {
        let Some(queue) = self.ledger.queues().find(name) else { return false };
        let slot = self.subscription(who, key.clone(), Some(queue));
        slot.is_some_and(|slot| self.ledger.subscription(slot).queues.position(queue).is_some())
    }

    /// Nobody waits for an answer about a subscription whose key is the queue itself.
    pub(super) fn say_subscribed(
        &self,
        turn: &mut Turn<'_>,
        asker: Asker,
        is_answered: bool,
        count: usize,
    ) {
        if is_answered {
            turn.reply(asker, Reply::Subscribed(count));
        }
    }

    /// The subscription of this key, if there is one.
    pub(super) fn subscription(
        &self,
        who: SessionSlot,
        key: SubscriptionKey,
        queue: Option<QueueSlot>,
    ) -> Option<SubscriptionSlot> {
        let keyed = match (key, queue) {
            (SubscriptionKey::Number(number), _) => Keyed::Number(number),
            (SubscriptionKey::Bytes(bytes), _) => Keyed::Bytes(bytes),
            (SubscriptionKey::Queue, queue) => Keyed::Queue(queue?),
        };
        self.ledger.session(who).subscription(&keyed)
    }

    /// Takes a queue, of which nothing is out, out of a subscription.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, slot: SubscriptionSlot, queue: QueueSlot) {
        if let Some(at) = self.ledger.subscription(slot).queues.position(queue) {
            self.ledger.unsubscribe(slot, at);
            if matches!(self.ledger.subscription(slot).key, Keyed::Queue(_)) {
                self.ledger.end_subscription(slot);
            }
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Hands out what the queues of a subscription have to those who have room.
    pub(super) fn serve_subscription(&mut self, turn: &mut Turn<'_>, slot: SubscriptionSlot) {
        let members = &self.ledger.subscription(slot).queues;
        if let [only] = members[..] {
            return self.serve(turn, only.queue);
        }
        let queues: Vec<QueueSlot> = members.iter().map(|member| member.queue).collect();
        for queue in queues {
            self.serve(turn, queue);
        }
    }

    /// Serves all queues of the subscriptions of several queues that have room again.
    pub(super) fn serve_entered(&mut self, turn: &mut Turn<'_>) {
        while let Some(slot) = self.ledger.pop_entered() {
            self.serve_subscription(turn, slot);
        }
    }

    pub(super) fn hand_through_window(
        &mut self,
        turn: &mut Turn<'_>,
        through: SubscriptionSlot,
        queue: QueueSlot,
        slot: Slot,
    ) {
        let subscription = self.ledger.subscription(through);
        let (who, tag) = (subscription.session, subscription.tag.clone());
        let when_sent = subscription.settlement == Settlement::WhenSent;
        let holder = if subscription.has_one_clock() {
            Holder::Window(through, turn.time())
        } else {
            Holder::TimedWindow(through, self.ends(turn.time(), through, slot))
        };
        self.ledger.send_to_the_end(through, queue);
        let detached = self.ledger.detach(slot);
        self.ledger.place_reserved(detached, holder);
        self.ledger.free_key_when_taken(turn, slot);
        self.spend(who, slot);
        self.ledger.update(through);
        let mut handed = self.handed(turn, slot, Handing::Dispatched);
        if when_sent {
            handed.when_sent = true;
            self.ledger.begin_sending(who, handed.id);
        }
        let connection = self.ledger.session(who).connection;
        turn.effects.push(Effect::Deliver(connection, tag, handed));
    }

    /// When a message that a subscription is handed now ends by itself.
    pub(super) fn ends(&self, now: Time, through: SubscriptionSlot, slot: Slot) -> Time {
        let subscription = self.ledger.subscription(through);
        let ack_timeout_ms = self.ledger.session(subscription.session).ack_timeout_ms;
        subscription.ends(now, self.ledger.message(slot).time_to_run_ms, ack_timeout_ms)
    }

    /// Tells a subscription that something is ready for it.
    pub(super) fn wake_up(&mut self, turn: &mut Turn<'_>, slot: SubscriptionSlot) {
        self.ledger.set_woken(slot, true);
        let subscription = self.ledger.subscription(slot);
        let connection = self.ledger.session(subscription.session).connection;
        turn.effects.push(Effect::WakeUp(connection, subscription.tag.clone()));
    }

    /// A subscription of these queues for one reserve. Without a wait, queues that do not exist are
    /// not made.
    pub(super) fn subscribe_once(
        &mut self,
        turn: &mut Turn<'_>,
        who: SessionSlot,
        (names, settlement, terms): (&[QueueName], Settlement, Terms),
        waits: bool,
    ) -> Result<SubscriptionSlot, Refusal> {
        let slot = self.ledger.open_subscription(turn.time(), who, Keyed::Once);
        for name in names {
            let queue = match self.ledger.queues().find(name) {
                None if !waits => continue,
                // Without a wait the subscription ends within this command: memory is not short.
                Some(queue) if !waits => Ok(queue),
                _ if !self.can_subscribe(who) => Err(Refusal::OutOfMemory),
                _ => self.queue(name).ok_or_else(|| self.refuse_queue()),
            };
            match queue {
                Ok(queue) => {
                    let options = Options { settlement, terms, ..Options::default() };
                    self.ledger.subscribe(slot, queue, options);
                }
                Err(refusal) => {
                    self.end_if_once(turn, slot);
                    return Err(refusal);
                }
            }
        }
        Ok(slot)
    }

    /// Ends a subscription that was there for one reserve, which has been answered.
    pub(super) fn end_if_once(&mut self, turn: &mut Turn<'_>, slot: SubscriptionSlot) {
        if self.ledger.subscription(slot).key != Keyed::Once {
            return;
        }
        while let Some(last) = self.ledger.subscription(slot).queues.len().checked_sub(1) {
            let queue = self.ledger.unsubscribe(slot, last);
            self.drop_if_unneeded(turn, queue);
        }
        self.ledger.end_subscription(slot);
    }
}
