//! The way back of a message out of its holder's hands.

use super::ledger::Detached;
use super::state::message::Slot;
use super::{Engine, Turn};

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It is ready at its place.
    Ready,
    /// It had expired, or its queue was flushed, and is gone.
    Gone,
}

impl Engine {
    /// Puts a message back to its old place, unless its time is over.
    pub(super) fn put_back(&mut self, turn: &mut Turn<'_>, detached: Detached) -> Return {
        let slot = detached.slot();
        let is_flushed = self.ledger.is_flushed(slot);
        if is_flushed || self.ledger.message(slot).expires <= turn.time() {
            if !is_flushed {
                self.totals.messages_expired += 1;
            }
            self.ledger.forget(turn, detached);
            return Return::Gone;
        }
        self.ledger.place_ready(detached);
        Return::Ready
    }

    /// Removes a message whose time to live is over and that nobody holds.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let queue = self.ledger.queue_of(slot);
        self.totals.messages_expired += 1;
        let detached = self.ledger.detach(slot);
        self.ledger.forget(turn, detached);
        self.drop_if_unneeded(turn, queue);
    }
}
