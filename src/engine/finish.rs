//! What a holder says about a message in its hands: done, back, later, aside, more time.

use crate::clock::Time;
use crate::command::{Reply, Tag};
use crate::ids::{ConnectionId, MessageId, QueueName, Sequence};

use super::hand::{Lost, Return};
use super::message::State;
use super::queue::QueueSlot;
use super::reservation::Terms;
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
        let known = queue.and_then(|name| self.queues.find(name));
        if !known.is_some_and(|queue| self.acknowledge_late(turn, who, queue, id)) {
            self.totals.foreign_acknowledgements += 1;
        }
        turn.reply(who, tag, Reply::NotHeld);
    }

    /// An acknowledgement of a message that was taken back: it frees the place, and counts while
    /// nobody else holds the message. Says whether the message was once this connection's.
    pub(super) fn acknowledge_late(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        queue: QueueSlot,
        id: MessageId,
    ) -> bool {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        let lost = session.windows.get_mut(&queue).is_some_and(|window| {
            let lost = window.lost.remove(&id);
            if lost {
                // It has stirred: the time until it is given up starts again.
                window.clock_since = turn.now.time.max(window.clock_since);
            }
            lost
        });
        if !lost {
            return false;
        }
        self.totals.late_acknowledgements += 1;
        if let Some(slot) = self.settle(turn, id)
            && !self.is_reserved(slot)
        {
            self.detach(slot);
            self.forget(turn, slot);
        }
        self.update_window(turn, who, queue);
        self.serve(turn, queue);
        true
    }

    pub(super) fn remove(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
    ) {
        let found = self.settle(turn, id);
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
            self.totals.foreign_acknowledgements += 1;
            return turn.reply(who, tag, Reply::NotHeld);
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
            let reply = if queue.is_some() { Reply::NotHeld } else { Reply::NotFound };
            if reply == Reply::NotHeld {
                self.totals.foreign_acknowledgements += 1;
            }
            return turn.reply(who, tag, reply);
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
