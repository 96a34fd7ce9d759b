//! What a holder says about a message in its hands: done, back, later, aside, more time.

use crate::words::clock::Time;
use crate::words::command::{Reply, Tag};
use crate::words::ids::{ConnectionId, MessageId, QueueName, Sequence};

use super::give_back::{Lost, Return};
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::reservation::Terms;
use super::{Engine, Turn};

impl Engine {
    pub(super) fn acknowledge(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        queue: Option<&QueueName>,
    ) {
        if let Some(slot) = self.held_by(who, id, queue) {
            let of = self.queue_of(slot);
            self.take_back(turn, slot, Lost::PlaceIsFree);
            self.forget(turn, slot);
            turn.reply(who, tag, Reply::Acknowledged);
            self.serve(turn, of);
            return self.drop_if_unneeded(turn, of);
        }
        turn.reply(who, tag, Reply::NotHeld);
        self.answer_late(turn, who, id, (queue, Late::Done));
    }

    /// An answer about a message that this connection does not hold. Where it was taken back from
    /// it, this frees the place that it still takes in the window; that it is done counts while
    /// nobody else holds it.
    fn answer_late(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        id: MessageId,
        (queue, late): (Option<&QueueName>, Late),
    ) {
        if let Some((slot, queue)) = self.flushed_in_hand_of(who, id, queue) {
            self.totals.late_acknowledgements += 1;
            self.take_back(turn, slot, Lost::PlaceIsFree);
            self.forget(turn, slot);
            return self.serve(turn, queue);
        }
        let Some(queue) = self.free_lost_place(turn, who, id, queue) else {
            self.totals.foreign_acknowledgements += 1;
            return;
        };
        self.totals.late_acknowledgements += 1;
        if late == Late::Done
            && let Some(slot) = self.reclaim(turn, id)
            && !self.is_reserved(slot)
        {
            self.detach(slot);
            self.forget(turn, slot);
        }
        self.update_window(who, queue);
        self.serve(turn, queue);
    }

    /// A message in this connection's window that was flushed, but not cleared away yet.
    fn flushed_in_hand_of(
        &self,
        who: ConnectionId,
        id: MessageId,
        name: Option<&QueueName>,
    ) -> Option<(Slot, QueueSlot)> {
        let slot = self.messages.slot_of(id).filter(|slot| self.is_flushed(*slot))?;
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let reservation = &self.reservations[reservation];
        let windowed = matches!(reservation.terms, Terms::Window { .. });
        let queue = self.queue_of(slot);
        let right_queue = name.is_none_or(|name| self.queues[queue].name == *name);
        (reservation.connection == who && windowed && right_queue).then_some((slot, queue))
    }

    /// Frees a place that this message has taken in a window of the connection, and says whose.
    fn free_lost_place(
        &mut self,
        turn: &Turn<'_>,
        who: ConnectionId,
        id: MessageId,
        name: Option<&QueueName>,
    ) -> Option<QueueSlot> {
        let named = name.map(|name| self.queues.find(name));
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        let mut windows = session.windows.iter_mut();
        let (queue, window) = match named {
            Some(queue) => (queue?, session.windows.get_mut(&queue?)?),
            None => windows
                .find(|(_, window)| window.lost.contains_key(&id))
                .map(|(queue, window)| (*queue, window))?,
        };
        if !window.find_again(id) {
            return None;
        }
        if window.held.is_empty() {
            // It has stirred: the time until it is given up starts again.
            window.clock_since = turn.time();
        }
        Some(queue)
    }

    pub(super) fn remove(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
    ) {
        let found = self.reclaim(turn, id);
        let mine = self.held_by(who, id, None).is_some();
        let Some(slot) = found.filter(|slot| mine || !self.is_reserved(*slot)) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queue = self.queue_of(slot);
        if mine {
            self.take_back(turn, slot, Lost::PlaceIsFree);
        } else {
            self.detach(slot);
        }
        self.forget(turn, slot);
        self.queues[queue].removes += 1;
        turn.reply(who, tag, Reply::Removed);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn release(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (priority, delay_ms): (Option<u32>, u64),
    ) {
        let Some(slot) = self.held_by(who, id, None) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queue = self.queue_of(slot);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(priority) = priority {
            self.messages[slot].priority = priority;
        }
        let history = self.messages.history_mut(slot);
        history.releases += 1;
        history.delay_ms = delay_ms;
        let expired = self.messages[slot].expires <= turn.time();
        let back = if delay_ms > 0 && !expired {
            self.place_delayed(slot, turn.time().plus(delay_ms));
            Return::Ready
        } else {
            self.put_back(turn, slot)
        };
        if back == Return::Ready {
            self.save(turn, slot);
        }
        turn.reply(who, tag, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn requeue(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (queue, time_to_live_ms): (Option<&QueueName>, Option<u64>),
    ) {
        let Some(slot) = self.held_by(who, id, queue) else {
            turn.reply(who, tag, Reply::NotHeld);
            return self.answer_late(turn, who, id, (queue, Late::Undone));
        };
        let queue = self.queue_of(slot);
        // A re-queue without ids to draw a place from keeps the old one: it is a rare moment, and
        // the message is not to be lost over it.
        let sequence = self.draw_id(turn).map(Sequence);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(sequence) = sequence {
            self.messages[slot].sequence = sequence;
        }
        let expires = time_to_live_ms.map_or(Time::NEVER, |ttl| turn.time().plus(ttl));
        self.set_expires(slot, expires);
        self.messages.history_mut(slot).releases += 1;
        if self.put_back(turn, slot) == Return::Ready {
            self.save(turn, slot);
        }
        turn.reply(who, tag, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    pub(super) fn bury(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (queue, priority): (Option<&QueueName>, Option<u32>),
    ) {
        let Some(slot) = self.held_by(who, id, queue) else {
            if queue.is_none() {
                return turn.reply(who, tag, Reply::NotFound);
            }
            turn.reply(who, tag, Reply::NotHeld);
            return self.answer_late(turn, who, id, (queue, Late::Undone));
        };
        let queue = self.queue_of(slot);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(priority) = priority {
            self.messages[slot].priority = priority;
        }
        self.messages.history_mut(slot).buries += 1;
        self.bury_detached(turn, slot);
        self.save(turn, slot);
        turn.reply(who, tag, Reply::Buried);
        self.serve(turn, queue);
    }

    pub(super) fn touch(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
    ) {
        let held = self.held_by(who, id, None);
        let Some((slot, State::Reserved(reservation))) =
            held.map(|slot| (slot, self.messages[slot].state))
        else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let until = turn.time().plus(self.messages[slot].time_to_run_ms);
        if let Terms::Until(ends) = &mut self.reservations[reservation].terms {
            *ends = until;
        }
        turn.reply(who, tag, Reply::Touched);
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
