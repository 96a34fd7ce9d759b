//! How much a peer is sent in one turn, and what happens when it does not keep up.

use crate::words::command::Manner;

use super::state::message::Slot;
use super::state::session::{Hold, SessionSlot};
use super::{Engine, Turn};

impl Engine {
    /// Counts what is sent to a connection in this turn. One that has used up its allowance, the
    /// bound on what may lie unsent for it, gets no more before the next turn.
    pub(super) fn spend(&mut self, who: SessionSlot, slot: Slot) {
        let bytes = u64::from(self.ledger.message(slot).body_bytes);
        let dialogue = self.ledger.dialogue(who);
        if dialogue.sent_turn != self.turns {
            (dialogue.sent_turn, dialogue.sent_bytes) = (self.turns, 0);
        }
        dialogue.sent_bytes = dialogue.sent_bytes.saturating_add(bytes);
        if dialogue.sent_bytes < self.limits.max_output() as u64 {
            return;
        }
        let was_exhausted = std::mem::replace(&mut dialogue.exhausted, true);
        let session = self.ledger.session(who);
        let connection = session.connection;
        if matches!(session.hold, Hold::Free) && session.manner == Manner::Serial {
            self.ledger.set_hold(who, Hold::Output);
        }
        if !was_exhausted {
            self.exhausted.push(connection);
            self.ledger.update_standing(who);
        }
    }

    /// A new turn: the session has its allowance again, unless its peer does not keep up.
    pub(super) fn renew(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        if !self.ledger.session(who).dialogue.slow {
            self.stall(turn, who, false);
        }
    }

    /// The peer does not keep up with what is sent to it, or does again: then its windows take part
    /// again, and what was kept back for want of room goes on.
    pub(super) fn stall(&mut self, turn: &mut Turn<'_>, who: SessionSlot, slow: bool) {
        let session = self.ledger.session(who);
        if matches!(session.hold, Hold::Ended) {
            return;
        }
        let waits_for_room = matches!(session.hold, Hold::Output);
        let dialogue = self.ledger.dialogue(who);
        dialogue.slow = slow;
        if !slow {
            // What was sent before has left, so that there is room for as much again.
            (dialogue.exhausted, dialogue.sent_bytes) = (false, 0);
            if waits_for_room {
                self.set_free(who);
            }
        }
        self.ledger.update_standing(who);
        for slot in self.ledger.standing_of(who) {
            self.serve_subscription(turn, slot);
        }
    }
}
