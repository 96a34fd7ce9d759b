//! What a holder says about a message in its hands: done, back, later, aside, more time.

use crate::words::cause::{Cause, Reason};
use crate::words::clock::Time;
use crate::words::command::{MessageRef, Reply};
use crate::words::ids::{MessageId, QueueName, Sequence};

use super::ledger::Lost;
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::reservation::Of;
use super::state::session::SessionSlot;
use super::{Asker, Engine, Turn};

impl Engine {
    pub(super) fn acknowledge(&mut self, turn: &mut Turn<'_>, asker: Asker, message: &MessageRef) {
        let who = asker.session;
        if let Some(slot) = self.held(who, message) {
            let of = self.ledger.queue_of(slot);
            let asker = asker.about(self.ledger.is_volatile(slot));
            self.end_as_done(turn, slot);
            turn.reply(asker, Reply::Acknowledged);
            self.serve(turn, of);
            return self.drop_if_unneeded(turn, of);
        }
        turn.reply(asker, Reply::NotHeld);
        self.answer_late(turn, who, message, Late::Done);
    }

    /// A message in somebody's hands is done.
    pub(super) fn end_as_done(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
        self.ledger.forget(turn, detached);
    }

    /// The message in a session's hands that a command names.
    pub(super) fn held(&self, who: SessionSlot, message: &MessageRef) -> Option<Slot> {
        match message {
            MessageRef::Id(id) => self.held_unmarked(who, *id, None),
            MessageRef::IdOf(id, queue) => self.held_unmarked(who, *id, Some(queue)),
            MessageRef::HeldOf(name) => {
                let queue = self.ledger.queues().find(name)?;
                self.held_of(who, queue).next()
            }
        }
    }

    fn held_unmarked(
        &self,
        who: SessionSlot,
        id: MessageId,
        queue: Option<&QueueName>,
    ) -> Option<Slot> {
        self.held_by(who, id, queue).filter(|slot| !self.ledger.is_marked(*slot))
    }

    /// The unmarked messages of a queue that a session took on request, the oldest first.
    pub(super) fn held_of(&self, who: SessionSlot, queue: QueueSlot) -> impl Iterator<Item = Slot> {
        let held = &self.ledger.session(who).held;
        let held = self.ledger.reservations().iter(held, Of::Holder);
        let slots = held.map(|(_, held)| held.message);
        slots.filter(move |slot| {
            self.ledger.queue_of(*slot) == queue
                && !self.ledger.is_flushed(*slot)
                && !self.ledger.is_marked(*slot)
        })
    }

    /// The same for a command that is told when there is none. Where it has named the queue too,
    /// as those do who take messages through windows, the place of one that was taken back is free
    /// then.
    fn held_or_answer(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        message: &MessageRef,
    ) -> Option<(Asker, Slot)> {
        if let Some(slot) = self.held(asker.session, message) {
            return Some((asker.about(self.ledger.is_volatile(slot)), slot));
        }
        if !matches!(message, MessageRef::IdOf(..)) {
            turn.reply(asker, Reply::NotFound);
            return None;
        }
        let who = asker.session;
        turn.reply(asker, Reply::NotHeld);
        self.answer_late(turn, who, message, Late::Undone);
        None
    }

    /// So many messages more have been sent that are done then.
    pub(super) fn sent(&mut self, turn: &mut Turn<'_>, who: SessionSlot, count: usize) {
        for _ in 0..count {
            let Some(id) = self.ledger.end_sending(who) else { break };
            let Some(slot) = self.held_unmarked(who, id, None) else {
                // It was flushed meanwhile, or another command has settled it.
                self.answer_late(turn, who, &MessageRef::Id(id), Late::Done);
                continue;
            };
            let queue = self.ledger.queue_of(slot);
            let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
            self.ledger.forget(turn, detached);
            self.serve(turn, queue);
            self.drop_if_unneeded(turn, queue);
        }
        if self.ledger.session(who).has_sent_all() {
            // Its end may have waited for this.
            self.resumable.push_back(who);
        }
    }

    /// An answer about a message that this connection does not hold. Where it was taken back from
    /// it, this frees the place that it still takes in the window; that it is done counts while
    /// nobody else holds it.
    fn answer_late(
        &mut self,
        turn: &mut Turn<'_>,
        who: SessionSlot,
        message: &MessageRef,
        late: Late,
    ) {
        let (id, queue) = match message {
            MessageRef::Id(id) => (*id, None),
            MessageRef::IdOf(id, queue) => (*id, Some(queue)),
            MessageRef::HeldOf(_) => {
                self.totals.foreign_acknowledgements += 1;
                return;
            }
        };
        if let Some((slot, queue)) = self.flushed_in_hand_of(who, id, queue) {
            self.totals.late_acknowledgements += 1;
            let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
            self.ledger.forget(turn, detached);
            return self.serve(turn, queue);
        }
        let named = queue.map(|name| self.ledger.queues().find(name));
        let freed = match named {
            Some(None) => None,
            of => self.ledger.free_lost_place(turn.time(), who, id, of.flatten()),
        };
        let Some(through) = freed else {
            self.totals.foreign_acknowledgements += 1;
            return;
        };
        self.totals.late_acknowledgements += 1;
        if late == Late::Done
            && let Some(slot) = self.reclaim(turn, id)
            && !self.ledger.is_reserved(slot)
        {
            // Maybe in another queue by now: a dead letter that was done after all.
            let of = self.ledger.queue_of(slot);
            let detached = self.ledger.detach(slot);
            self.ledger.forget(turn, detached);
            self.drop_if_unneeded(turn, of);
        }
        self.ledger.update(through);
        self.serve_subscription(turn, through);
    }

    /// A message in this session's window that was flushed, but not cleared away yet.
    fn flushed_in_hand_of(
        &self,
        who: SessionSlot,
        id: MessageId,
        name: Option<&QueueName>,
    ) -> Option<(Slot, QueueSlot)> {
        let slot = self.ledger.messages().slot_of(id)?;
        let message = self.ledger.message(slot);
        let State::Reserved(reservation) = message.state else { return None };
        let reservation = &self.ledger.reservations()[reservation];
        let windowed = reservation.window().is_some();
        let queue = message.queue;
        let right_queue = name.is_none_or(|name| self.ledger.queue(queue).name == *name);
        let is_it = reservation.session == who && windowed && right_queue;
        (is_it && self.ledger.is_flushed(slot)).then_some((slot, queue))
    }

    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let found = self.reclaim(turn, id);
        let mine = self.held_unmarked(asker.session, id, None).is_some();
        let Some(slot) = found.filter(|slot| mine || !self.ledger.is_reserved(*slot)) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let queue = self.ledger.queue_of(slot);
        let asker = asker.about(self.ledger.is_volatile(slot));
        let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
        self.ledger.forget(turn, detached);
        self.ledger.count_remove(queue);
        turn.reply(asker, Reply::Removed);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn release(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        message: &MessageRef,
        (priority, delay_ms): (Option<u32>, u64),
    ) {
        let Some((asker, slot)) = self.held_or_answer(turn, asker, message) else { return };
        let queue = self.ledger.queue_of(slot);
        self.give_back_released(turn, slot, (priority, delay_ms));
        turn.reply(asker, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn give_back_released(
        &mut self,
        turn: &mut Turn<'_>,
        slot: Slot,
        (priority, delay_ms): (Option<u32>, u64),
    ) {
        let history = self.ledger.history_mut(slot);
        history.releases += 1;
        history.delay_ms = delay_ms;
        self.give_back(turn, slot, Cause::Released { priority, delay_ms });
    }

    pub(super) fn requeue(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        message: &MessageRef,
        time_to_live_ms: Option<u64>,
    ) {
        let who = asker.session;
        let Some(slot) = self.held(who, message) else {
            turn.reply(asker, Reply::NotHeld);
            return self.answer_late(turn, who, message, Late::Undone);
        };
        let queue = self.ledger.queue_of(slot);
        let asker = asker.about(self.ledger.is_volatile(slot));
        // A re-queue without ids to draw a place from keeps the old one: it is a rare moment, and
        // the message is not to be lost over it.
        let sequence = self.draw_id(turn).map(Sequence);
        let was_in_work = self.ledger.is_in_work(slot);
        let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
        if let Some(sequence) = sequence {
            self.ledger.set_sequence(&detached, sequence);
        }
        let expires = time_to_live_ms.map_or(Time::NEVER, |ttl| turn.time().plus(ttl));
        self.ledger.set_expires(&detached, expires);
        self.ledger.history_mut(slot).releases += 1;
        let cause = Cause::Released { priority: None, delay_ms: 0 };
        self.place_returned(turn, detached, cause, was_in_work);
        turn.reply(asker, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn bury(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        message: &MessageRef,
        priority: Option<u32>,
    ) {
        let Some((asker, slot)) = self.held_or_answer(turn, asker, message) else { return };
        let queue = self.ledger.queue_of(slot);
        self.give_back_rejected(turn, slot, priority);
        turn.reply(asker, Reply::Buried);
        self.serve(turn, queue);
    }

    pub(super) fn give_back_rejected(
        &mut self,
        turn: &mut Turn<'_>,
        slot: Slot,
        priority: Option<u32>,
    ) {
        let was_in_work = self.ledger.is_in_work(slot);
        let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
        if let Some(priority) = priority {
            self.ledger.set_priority(&detached, priority);
        }
        self.place_returned(turn, detached, Cause::Rejected, was_in_work);
    }

    /// The holder could not process the message; what follows is up to the policy of its queue.
    pub(super) fn fail(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        message: &MessageRef,
        reason: Option<Reason>,
    ) {
        let Some((asker, slot)) = self.held_or_answer(turn, asker, message) else { return };
        let queue = self.ledger.queue_of(slot);
        self.give_back_failed(turn, slot, reason);
        turn.reply(asker, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn give_back_failed(
        &mut self,
        turn: &mut Turn<'_>,
        slot: Slot,
        reason: Option<Reason>,
    ) {
        self.ledger.note_reason(slot, reason);
        self.give_back(turn, slot, Cause::Failed);
    }

    pub(super) fn mark(&mut self, turn: &mut Turn<'_>, asker: Asker, message: &MessageRef) {
        let Some((asker, slot)) = self.held_or_answer(turn, asker, message) else { return };
        let through = self.ledger.mark(turn.time(), slot);
        turn.reply(asker, Reply::Marked);
        if let Some(through) = through {
            self.serve_subscription(turn, through);
        }
    }

    pub(super) fn unmark(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let held = self.held_by(asker.session, id, None);
        let Some(slot) = held.filter(|slot| self.ledger.is_marked(*slot)) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let until = turn.time().plus(self.ledger.message(slot).time_to_run_ms);
        self.ledger.unmark(slot, until);
        turn.reply(asker, Reply::Marked);
    }

    pub(super) fn touch(&mut self, turn: &mut Turn<'_>, asker: Asker, message: &MessageRef) {
        let Some(slot) = self.held(asker.session, message) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let until = turn.time().plus(self.ledger.message(slot).time_to_run_ms);
        self.ledger.prolong(slot, until);
        turn.reply(asker, Reply::Touched);
    }
}

/// What a late answer says of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// It is done.
    Done,
    /// It is not; by now it is somewhere else anyway.
    Undone,
}
