//! Taking messages one by one: reservations, those that wait, and looks at a message.

use crate::words::clock::Time;
use crate::words::command::{Amount, Demand, Handing, Reply, Settlement, Sources, SubscriptionKey};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::WORK_PER_TURN_MAX;
use crate::words::refusal::Refusal;

use super::ledger::Ledger;
use super::slices::{Slice, Work};
use super::state::message::{Place, Slot, State};
use super::state::queue::QueueSlot;
use super::state::reservation::{Holder, Of};
use super::state::session::{Keyed, Portion, SessionSlot};
use super::state::subscription::SubscriptionSlot;
use super::{Asker, Effect, Engine, Turn};

/// What a look at all queues of a subscription has found.
enum Best {
    Message(Slot),
    Nothing,
    /// More expired messages stand before the first good one than this turn may clear away.
    Unknown,
}

impl Engine {
    pub(super) fn reserve_next(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (from, refuse_if_holding): (Sources, bool),
        (until, amount): (Time, Amount),
    ) {
        let who = asker.session;
        self.ledger.count_worker(who);
        let waits = until > turn.time();
        let (from, named) = match from {
            // A subscription without queues can be waited for all the same.
            Sources::Subscription(key) => {
                let key = match key {
                    SubscriptionKey::Number(number) => Keyed::Number(number),
                    SubscriptionKey::Bytes(bytes) => Keyed::Bytes(bytes),
                    // It names no queue here, and so can have no message.
                    SubscriptionKey::Queue => return turn.reply(asker, Reply::TimedOut),
                };
                let from = match self.ledger.session(who).subscription(&key) {
                    Some(from) => from,
                    None if self.can_subscribe(who) => {
                        self.ledger.open_subscription(turn.time(), who, key)
                    }
                    None => return turn.reply(asker, Reply::Refused(Refusal::OutOfMemory)),
                };
                (from, None)
            }
            Sources::Queues { names, settlement, terms } => {
                let terms = (&names[..], settlement, terms);
                match self.subscribe_once(turn, who, terms, waits) {
                    Ok(from) => (from, Some(names)),
                    Err(refusal) => return turn.reply(asker, Reply::Refused(refusal)),
                }
            }
        };
        let portion = match amount {
            Amount::Total(count) => Portion::Total(count.max(1)),
            Amount::Each(count) => Portion::Each(count.max(1), named.map(|n| self.present(&n))),
        };
        if refuse_if_holding && self.holds_one_of(who, from) {
            turn.reply(asker, Reply::Refused(Refusal::Holding));
            return self.end_if_once(turn, from);
        }
        if self.ledger.subscription(from).woken {
            self.ledger.set_woken(from, false);
        }
        if let Slice::Left(work) = self.reserve_slice(turn, asker, from, (until, portion)) {
            self.go_on_later(work);
        }
    }

    /// Answers a reservation, or makes it wait. A work only because there may be more expired
    /// messages to clear out of its way than a turn may.
    pub(super) fn reserve_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        from: SubscriptionSlot,
        (until, portion): (Time, Portion),
    ) -> Slice {
        let who = asker.session;
        let found = match portion {
            Portion::Total(_) => self.best_of(turn, from),
            Portion::Each(..) => self.any_of_each(turn, from),
        };
        match found {
            Best::Message(slot) => {
                self.hand_portion(turn, asker, (from, slot), portion);
                if self.ledger.subscription(from).demand != Demand::OnRequest {
                    self.serve_subscription(turn, from);
                }
            }
            Best::Unknown => return Slice::Left(Work::Reserve { asker, from, until, portion }),
            Best::Nothing if self.has_deadline_soon(turn.time(), who) => {
                turn.reply(asker, Reply::DeadlineSoon);
            }
            Best::Nothing if until <= turn.time() || self.ledger.session(who).dialogue.hung_up => {
                turn.reply(asker, Reply::TimedOut);
            }
            Best::Nothing => {
                self.ledger.begin_wait(from, asker.tag, (until, portion));
                return Slice::Done;
            }
        }
        self.end_if_once(turn, from);
        Slice::Done
    }

    /// Whether a session holds a message of one of the queues of a subscription.
    fn holds_one_of(&self, who: SessionSlot, from: SubscriptionSlot) -> bool {
        let session = self.ledger.session(who);
        let through = session.subscriptions().map(|slot| &self.ledger.subscription(slot).held);
        let lists = std::iter::once(&session.held).chain(through);
        let mut held = lists.flat_map(|list| self.ledger.reservations().iter(list, Of::Holder));
        held.any(|(_, held)| {
            let queue = self.ledger.queue_of(held.message);
            self.ledger.subscription(from).queues.position(queue).is_some()
                && !self.ledger.is_flushed(held.message)
        })
    }

    pub(super) fn reserve_message(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let found = self.reclaim(turn, id);
        let Some(slot) = found.filter(|slot| !self.ledger.is_reserved(*slot)) else {
            return turn.reply(asker, Reply::NotFound);
        };
        if self.ledger.is_over(turn.time(), slot) {
            self.expire(turn, slot);
            return turn.reply(asker, Reply::NotFound);
        }
        // A connection that asks for a message which is not there is not counted as a worker.
        self.ledger.count_worker(asker.session);
        // What was stored as buried or delayed would be so again after a restart.
        let stored_elsewhere = !matches!(self.ledger.message(slot).state, State::Ready);
        self.reserve(turn, asker, slot, None);
        if stored_elsewhere {
            self.ledger.save(turn, slot);
        }
    }

    /// The slots of those of these queues that are there.
    fn present(&self, names: &[QueueName]) -> Box<[QueueSlot]> {
        names.iter().filter_map(|name| self.ledger.queues().find(name)).collect()
    }

    /// Reserves a portion of a subscription. `first` is one of its messages that can be handed out,
    /// and for a total the one that is handed out first.
    pub(super) fn hand_portion(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (from, first): (SubscriptionSlot, Slot),
        portion: Portion,
    ) {
        if matches!(portion, Portion::Total(1)) {
            return self.reserve(turn, asker, first, Some(from));
        }
        let at = turn.effects.len();
        let handed = match portion {
            Portion::Total(count) => self.hand_total(turn, &asker, (from, first), count),
            Portion::Each(count, Some(queues)) => {
                self.hand_each(turn, &asker, from, (&queues, count))
            }
            Portion::Each(count, None) => {
                let members = self.ledger.subscription(from).queues.iter();
                let queues: Vec<QueueSlot> = members.map(|member| member.queue).collect();
                self.hand_each(turn, &asker, from, (&queues, count))
            }
        };
        let batch = Reply::Batch(handed);
        turn.effects.insert(at, Effect::Reply(asker.connection, asker.tag, batch));
    }

    /// Reserves this message and up to `count - 1` more of a subscription; says how many.
    fn hand_total(
        &mut self,
        turn: &mut Turn<'_>,
        asker: &Asker,
        (from, first): (SubscriptionSlot, Slot),
        count: u32,
    ) -> usize {
        self.reserve(turn, asker.clone(), first, Some(from));
        let mut handed = 1;
        while handed < count
            && !self.ledger.session(asker.session).dialogue.exhausted
            && let Best::Message(slot) = self.best_of(turn, from)
        {
            self.reserve(turn, asker.clone(), slot, Some(from));
            handed += 1;
        }
        handed as usize
    }

    /// Reserves up to `count` messages of each of these queues of a subscription, one queue after
    /// the other; says how many. What a turn may send ends it early, and so does the most that is
    /// done at once: how many queues there are is up to the peer.
    fn hand_each(
        &mut self,
        turn: &mut Turn<'_>,
        asker: &Asker,
        from: SubscriptionSlot,
        (queues, count): (&[QueueSlot], u32),
    ) -> usize {
        let mut handed = 0;
        for queue in queues {
            for _ in 0..count {
                let is_exhausted = self.ledger.session(asker.session).dialogue.exhausted;
                if handed > 0 && (is_exhausted || handed >= WORK_PER_TURN_MAX) {
                    return handed;
                }
                let Best::Message(slot) = self.first_of(turn, *queue) else { break };
                self.reserve(turn, asker.clone(), slot, Some(from));
                handed += 1;
            }
        }
        handed
    }

    /// Reserves a message, on the terms of the subscription that it is taken from, else for its time
    /// to run.
    fn reserve(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        slot: Slot,
        from: Option<SubscriptionSlot>,
    ) {
        let who = asker.session;
        let until = match from {
            Some(from) => self.ends(turn.time(), from, slot),
            None => turn.time().plus(self.ledger.message(slot).time_to_run_ms),
        };
        let settlement = from.map(|from| self.ledger.subscription(from).settlement);
        let was_buried = matches!(self.ledger.message(slot).state, State::Buried(_));
        let detached = self.ledger.detach(slot);
        if was_buried {
            self.ledger.restart_clock(turn.time(), &detached);
        }
        self.ledger.place_reserved(detached, Holder::Session(who, until));
        self.ledger.free_key_when_taken(turn, slot);
        self.ledger.arm_session(who);
        let mut handed = self.handed(turn, slot, Handing::Reserved);
        if settlement == Some(Settlement::WhenSent) {
            handed.when_sent = true;
            self.ledger.begin_sending(who, handed.id);
        }
        self.spend(who, slot);
        turn.effects.push(Effect::Deliver(asker.connection, asker.tag, handed));
    }

    /// The first message of all queues of a subscription: the smallest priority, then place.
    fn best_of(&mut self, turn: &mut Turn<'_>, from: SubscriptionSlot) -> Best {
        self.first_good(turn, |ledger, now| {
            let members = ledger.subscription(from).queues.iter();
            let queues = members.map(|member| ledger.queue(member.queue));
            queues.filter_map(|queue| queue.next_ready(now)).min()
        })
    }

    /// The first message of a queue.
    fn first_of(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) -> Best {
        self.first_good(turn, |ledger, now| ledger.queue(queue).next_ready(now))
    }

    /// The first message of any queue of a subscription, after a look at all of them: a queue that
    /// an answer leaves out is taken for empty, so none of them may be unknown.
    fn any_of_each(&mut self, turn: &mut Turn<'_>, from: SubscriptionSlot) -> Best {
        let mut any = Best::Nothing;
        for at in 0..self.ledger.subscription(from).queues.len() {
            let queue = self.ledger.subscription(from).queues[at].queue;
            match self.first_of(turn, queue) {
                Best::Unknown => return Best::Unknown,
                Best::Nothing => {}
                found @ Best::Message(_) => any = found,
            }
        }
        any
    }

    /// The message at the place that `look` finds, when those that have expired are cleared away.
    fn first_good(
        &mut self,
        turn: &mut Turn<'_>,
        look: impl Fn(&Ledger, Time) -> Option<Place>,
    ) -> Best {
        loop {
            let Some(place) = look(&self.ledger, turn.time()) else { return Best::Nothing };
            if self.ledger.message(place.slot).expires > turn.time() {
                return Best::Message(place.slot);
            }
            if self.budget == 0 {
                return Best::Unknown;
            }
            self.budget -= 1;
            self.expire(turn, place.slot);
        }
    }

    /// Ends a wait, if there is one, and lets the backlog behind it go on. Says who waited, for what,
    /// and for how much of it.
    pub(super) fn end_wait(
        &mut self,
        who: SessionSlot,
    ) -> Option<(Asker, SubscriptionSlot, Portion)> {
        let wait = self.ledger.end_wait(who)?;
        self.set_free(who);
        let connection = self.ledger.session(who).connection;
        let asker = Asker::new(who, connection, wait.tag);
        Some((asker, wait.subscription, wait.portion))
    }

    /// Shows a message to a peer.
    pub(super) fn show(&mut self, turn: &mut Turn<'_>, asker: Asker, slot: Slot) {
        let handed = self.handed(turn, slot, Handing::Found);
        self.spend(asker.session, slot);
        turn.effects.push(Effect::Deliver(asker.connection, asker.tag, handed));
    }
}
