//! The way back of a message out of its holder's hands.

use crate::words::ids::ConnectionId;

use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::reservation::Terms;
use super::{Engine, Turn};

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It is ready at its place.
    Ready,
    /// It had expired, or its queue was flushed, and is gone.
    Gone,
}

/// What a window loses when a message is taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: the peer knows.
    PlaceIsFree,
    /// The place, until the peer acknowledges too late: it still has the message.
    PlaceStaysTaken,
}

impl Engine {
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
}
