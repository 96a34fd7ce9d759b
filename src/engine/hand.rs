//! Who gets the next message, and what happens when one comes back.
//!
//! Demand has two faces: a *window* stands until it is changed, a *wait* ends with its answer.
//! Both stand in one rotation per queue (`Queue::hungry`), ordered by a stamp: whoever has waited
//! longest since its last message is first. A wait over several queues stands in each of them.

use crate::words::clock::Time;
use crate::words::command::Handing;
use crate::words::ids::{ConnectionId, MessageId};

use super::message::{Slot, State};
use super::queue::QueueSlot;
use super::reservation::Terms;
use super::session::Hold;
use super::work::Work;
use super::{Engine, Handed, Turn};

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It is ready at its place.
    Ready,
    /// It had expired, or its queue was flushed, and is gone.
    Gone,
}

impl Engine {
    /// Hands out what the queue has to those who have room.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        loop {
            let Some(here) = self.queues.get(queue) else { return };
            let (Some(place), Some((stamp, connection))) =
                (here.ready.first().copied(), here.hungry.first().copied())
            else {
                return;
            };
            if here.is_paused(turn.time()) {
                return;
            }
            if self.messages[place.slot].expires <= turn.time() {
                if self.budget == 0 {
                    return self.serve_later(queue);
                }
                self.budget -= 1;
                self.expire(turn, place.slot);
                continue;
            }
            self.hand_to(turn, queue, place.slot, stamp, connection);
        }
    }

    fn serve_later(&mut self, queue: QueueSlot) {
        if !std::mem::replace(&mut self.queues[queue].to_be_served, true) {
            self.works.push_back(Work::Serve(queue));
        }
    }

    fn hand_to(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueSlot,
        slot: Slot,
        stamp: u64,
        connection: ConnectionId,
    ) {
        let session = self.sessions.get(&connection).expect("only sessions stand in rotations");
        match &session.hold {
            Hold::Waiting(wait) if wait.stamp == stamp => {
                let wait = self.end_wait(connection).expect("it waits");
                self.hand_batch(turn, connection, wait.tag, slot, wait.count);
            }
            _ => self.hand_through_window(turn, connection, queue, slot),
        }
    }

    /// A message as it is sent to a peer.
    pub(super) fn handed(&self, turn: &Turn<'_>, slot: Slot, handing: Handing) -> Handed {
        let message = &self.messages[slot];
        let time_to_live_ms = match message.state {
            _ if message.expires == Time::NEVER => None,
            State::Buried(_) => Some(message.expires.0),
            _ => Some(message.expires.since(turn.time())),
        };
        Handed {
            handing,
            id: message.id,
            queue: self.queues[message.queue].name.clone(),
            priority: message.priority,
            time_to_live_ms,
            reserves: message.reserves,
        }
    }

    /// Takes a message out of its holder's hands. Where it came through a window, its place is
    /// free, or stays taken until a late acknowledgement when `lost` says so. Returns the window.
    pub(super) fn take_back(
        &mut self,
        turn: &Turn<'_>,
        slot: Slot,
        lost: Lost,
    ) -> Option<(ConnectionId, QueueSlot)> {
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let (connection, terms) =
            (self.reservations[reservation].connection, self.reservations[reservation].terms);
        let (id, queue) = (self.messages[slot].id, self.messages[slot].queue);
        let was_first = self.is_first_out(connection, queue, reservation);
        self.detach(slot);
        let Terms::Window { .. } = terms else { return None };
        let session = self.sessions.get_mut(&connection)?;
        let window = session.windows.get_mut(&queue)?;
        if lost == Lost::PlaceStaysTaken {
            window.lose(id);
        }
        if was_first {
            window.clock_since = turn.time();
        }
        self.update_window(connection, queue);
        Some((connection, queue))
    }

    fn is_first_out(&self, connection: ConnectionId, queue: QueueSlot, reservation: u32) -> bool {
        let window = self.sessions.get(&connection).and_then(|s| s.windows.get(&queue));
        window.is_some_and(|window| window.held.first() == Some(reservation))
    }

    /// Puts a detached message back to its old place, unless its time is over.
    pub(super) fn put_back(&mut self, turn: &mut Turn<'_>, slot: Slot) -> Return {
        if self.is_flushed(slot) || self.messages[slot].expires <= turn.time() {
            if !self.is_flushed(slot) {
                self.totals.messages_expired += 1;
            }
            self.forget(turn, slot);
            return Return::Gone;
        }
        self.place_ready(slot);
        Return::Ready
    }

    /// Removes a message whose time to live is over and that nobody holds.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let queue = self.queue_of(slot);
        self.totals.messages_expired += 1;
        self.detach(slot);
        self.forget(turn, slot);
        self.drop_if_unneeded(turn, queue);
    }

    /// The reservation of a message that this connection holds, of that queue if one is named.
    pub(super) fn held_by(
        &self,
        connection: ConnectionId,
        id: MessageId,
        queue: Option<&crate::words::ids::QueueName>,
    ) -> Option<Slot> {
        let slot = self.find(id)?;
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let right_queue =
            queue.is_none_or(|name| self.queues[self.messages[slot].queue].name == *name);
        (self.reservations[reservation].connection == connection && right_queue).then_some(slot)
    }
}

/// What a window loses when a message is taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: the peer knows.
    PlaceIsFree,
    /// The place, until the peer acknowledges too late: it still has the message.
    PlaceStaysTaken,
}
