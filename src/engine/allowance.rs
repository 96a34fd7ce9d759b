//! How much a peer is sent in one turn, and what happens when it does not keep up.

use crate::words::command::Manner;
use crate::words::ids::ConnectionId;

use super::state::message::Slot;
use super::state::queue::QueueSlot;
use super::state::session::Hold;
use super::{Engine, Turn};

impl Engine {
    /// Counts what is sent to a connection in this turn. One that has used up its allowance, the
    /// bound on what may lie unsent for it, gets no more before the next turn.
    pub(super) fn spend(&mut self, connection: ConnectionId, slot: Slot) {
        let bytes = u64::from(self.messages[slot].body_bytes);
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if session.sent_turn != self.turns {
            (session.sent_turn, session.sent_bytes) = (self.turns, 0);
        }
        session.sent_bytes = session.sent_bytes.saturating_add(bytes);
        if session.sent_bytes < self.limits.max_output() as u64 {
            return;
        }
        if matches!(session.hold, Hold::Free) && session.manner == Manner::Serial {
            session.hold = Hold::Output;
        }
        if !session.exhausted {
            session.exhausted = true;
            self.exhausted.push(connection);
            self.update_windows(connection);
        }
    }

    /// A new turn: the session has its allowance again, unless its peer does not keep up.
    pub(super) fn renew(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        if self.sessions.get(&connection).is_some_and(|session| !session.slow) {
            self.stall(turn, connection, false);
        }
    }

    /// The peer does not keep up (any more), or does again: then its windows take part again, and
    /// what was kept back for want of room goes on.
    pub(super) fn stall(&mut self, turn: &mut Turn<'_>, who: ConnectionId, slow: bool) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        if matches!(session.hold, Hold::Ended) {
            return;
        }
        session.slow = slow;
        if !slow {
            // What was sent before has left, so that there is room for as much again.
            (session.exhausted, session.sent_bytes) = (false, 0);
            if matches!(session.hold, Hold::Output) {
                self.set_free(who);
            }
        }
        self.update_windows(who);
        let queues: Vec<QueueSlot> = self.sessions[&who].windows.keys().copied().collect();
        for queue in queues {
            self.serve(turn, queue);
        }
    }
}
