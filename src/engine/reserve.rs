//! Taking messages one by one: reservations, those that wait, and looks at a message.

use crate::words::clock::Time;
use crate::words::command::{Demand, Handing, Reply, Settlement, Sources, SubscriptionKey};
use crate::words::ids::MessageId;
use crate::words::refusal::Refusal;

use super::slices::{Slice, Work};
use super::state::message::{Slot, State};
use super::state::reservation::{Holder, Of};
use super::state::session::{Keyed, SessionSlot};
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
        (from, refuse_if_holding): (&Sources, bool),
        (until, count): (Time, u32),
    ) {
        let who = asker.session;
        self.ledger.count_worker(who);
        let waits = until > turn.time();
        let from = match from {
            // A subscription without queues can be waited for all the same.
            Sources::Subscription(key) => {
                let key = match key {
                    SubscriptionKey::Number(number) => Keyed::Number(*number),
                    SubscriptionKey::Bytes(bytes) => Keyed::Bytes(bytes.clone()),
                    // It names no queue here, and so can have no message.
                    SubscriptionKey::Queue => return turn.reply(asker, Reply::TimedOut),
                };
                Some(self.ledger.open_subscription(turn.time(), who, key))
            }
            Sources::Queues(names, settlement) => {
                self.subscribe_once(turn, who, (names, *settlement), waits)
            }
        };
        let Some(from) = from else {
            return turn.reply(asker, Reply::Refused(self.refuse_queue()));
        };
        if refuse_if_holding && self.holds_one_of(who, from) {
            turn.reply(asker, Reply::Refused(Refusal::Holding));
            return self.end_if_once(turn, from);
        }
        if self.ledger.subscription(from).woken {
            self.ledger.set_woken(from, false);
        }
        if let Slice::Left(work) = self.reserve_slice(turn, asker, from, (until, count)) {
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
        (until, count): (Time, u32),
    ) -> Slice {
        let who = asker.session;
        match self.best_of(turn, from) {
            Best::Message(slot) => {
                self.hand_batch(turn, asker, (from, slot), count);
                if self.ledger.subscription(from).demand != Demand::OnRequest {
                    self.serve_subscription(turn, from);
                }
            }
            Best::Unknown => return Slice::Left(Work::Reserve { asker, from, until, count }),
            Best::Nothing if self.has_deadline_soon(turn.time(), who) => {
                turn.reply(asker, Reply::DeadlineSoon);
            }
            Best::Nothing if until <= turn.time() || self.ledger.session(who).dialogue.hung_up => {
                turn.reply(asker, Reply::TimedOut);
            }
            Best::Nothing => {
                self.ledger.begin_wait(from, asker.tag, until, count);
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
            self.ledger.subscription(from).position(queue).is_some()
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

    /// Reserves this message and up to `count - 1` more of the subscription.
    pub(super) fn hand_batch(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        (from, first): (SubscriptionSlot, Slot),
        count: u32,
    ) {
        if count == 1 {
            return self.reserve(turn, asker, first, Some(from));
        }
        let who = asker.session;
        let at = turn.effects.len();
        self.reserve(turn, asker.clone(), first, Some(from));
        let mut handed = 1;
        while handed < count
            && !self.ledger.session(who).dialogue.exhausted
            && let Best::Message(slot) = self.best_of(turn, from)
        {
            self.reserve(turn, asker.clone(), slot, Some(from));
            handed += 1;
        }
        let batch = Reply::Batch(handed as usize);
        turn.effects.insert(at, Effect::Reply(asker.connection, asker.tag, batch));
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
        loop {
            let members = &self.ledger.subscription(from).queues;
            let queues = members.iter().map(|member| self.ledger.queue(member.queue));
            let open = queues.filter(|queue| !queue.is_paused(turn.time()));
            let Some(place) = open.filter_map(|queue| queue.ready.first()).min().copied() else {
                return Best::Nothing;
            };
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
    /// and for how many.
    pub(super) fn end_wait(&mut self, who: SessionSlot) -> Option<(Asker, SubscriptionSlot, u32)> {
        let wait = self.ledger.end_wait(who)?;
        self.set_free(who);
        let connection = self.ledger.session(who).connection;
        let asker = Asker { session: who, connection, tag: wait.tag };
        Some((asker, wait.subscription, wait.count))
    }

    /// Shows a message to a peer.
    pub(super) fn show(&mut self, turn: &mut Turn<'_>, asker: Asker, slot: Slot) {
        let handed = self.handed(turn, slot, Handing::Found);
        self.spend(asker.session, slot);
        turn.effects.push(Effect::Deliver(asker.connection, asker.tag, handed));
    }
}
