//! Subscriptions: what a connection wants, from now on or when it asks.

use crate::words::command::{Demand, Handing, Reply, SubscriptionKey, Tag};
use crate::words::ids::QueueName;
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
        demand: Demand,
    ) {
        let demand = match demand {
            Demand::OnRequest => Demand::OnRequest,
            Demand::Window(max) => {
                self.ledger.count_worker(asker.session);
                Demand::Window(max.min(self.limits.max_window()))
            }
        };
        let Some(queue) = self.queue(name) else {
            return turn.reply(asker, Reply::Refused(Refusal::TooManyQueues));
        };
        let key = Keyed::new(key, queue);
        let slot = self.ledger.open_subscription(turn.time(), asker.session, key);
        self.ledger.subscribe(slot, queue, demand);
        match demand {
            Demand::OnRequest => {
                let count = self.ledger.subscription(slot).queues.len();
                turn.reply(asker, Reply::Subscribed(count));
            }
            Demand::Window(_) => self.serve_subscription(turn, slot),
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (key, name): (SubscriptionKey, &QueueName),
        keep_last: bool,
    ) {
        if key == SubscriptionKey::Queue {
            self.ledger.count_worker(asker.session);
        }
        let queue = self.ledger.queues().find(name);
        let Some(slot) = self.subscription(asker.session, key, queue) else {
            return self.say_subscribed(turn, asker, key, 0);
        };
        let subscription = self.ledger.subscription(slot);
        let count = subscription.queues.len();
        let Some(queue) = queue.filter(|queue| subscription.position(*queue).is_some()) else {
            return self.say_subscribed(turn, asker, key, count);
        };
        if keep_last && count == 1 {
            return turn.reply(asker, Reply::Refused(Refusal::LastQueue));
        }
        if subscription.is_window() {
            return self.begin_work(turn, Work::Unsubscribe { asker, slot, queue });
        }
        self.say_subscribed(turn, asker, key, count - 1);
        self.leave(turn, slot, queue);
    }

    fn say_subscribed(
        &self,
        turn: &mut Turn<'_>,
        asker: Asker,
        key: SubscriptionKey,
        count: usize,
    ) {
        if key != SubscriptionKey::Queue {
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
            (SubscriptionKey::Queue, queue) => Keyed::Queue(queue?),
        };
        self.ledger.session(who).subscription(keyed)
    }

    /// Takes a queue, of which nothing is out, out of a subscription.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, slot: SubscriptionSlot, queue: QueueSlot) {
        if let Some(at) = self.ledger.subscription(slot).position(queue) {
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

    pub(super) fn hand_through_window(
        &mut self,
        turn: &mut Turn<'_>,
        through: SubscriptionSlot,
        queue: QueueSlot,
        slot: Slot,
    ) {
        let who = self.ledger.subscription(through).session;
        self.ledger.send_to_the_end(through, queue);
        let detached = self.ledger.detach(slot);
        self.ledger.place_reserved(detached, Holder::Window(through, turn.time()));
        self.spend(who, slot);
        self.ledger.update(through);
        let handed = self.handed(turn, slot, Handing::Dispatched);
        let connection = self.ledger.session(who).connection;
        turn.effects.push(Effect::Deliver(connection, Tag::None, handed));
    }
}
