//! Windows: standing demands of a connection for a queue's messages.

use crate::words::clock::Time;
use crate::words::command::{Handing, Manner, Reply, Tag};
use crate::words::ids::{ConnectionId, QueueName};
use crate::words::refusal::Refusal;

use super::message::Slot;
use super::queue::QueueSlot;
use super::reservation::{List, Terms};
use super::session::{Hold, Window};
use super::work::{Asker, Work};
use super::{Due, Effect, Engine, Turn};

impl Engine {
    pub(super) fn consume(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        name: &QueueName,
        max: u32,
    ) {
        self.count_worker(who);
        let max = max.min(self.limits.max_window());
        let known = self.queues.find(name);
        let has_window =
            known.is_some_and(|queue| self.sessions[&who].windows.contains_key(&queue));
        if max == 0 && !has_window {
            return;
        }
        let Some(queue) = self.queue(name) else {
            return turn.reply(who, tag, Reply::Refused(Refusal::TooManyQueues));
        };
        if !has_window {
            self.add_window(turn, who, queue);
        }
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.windows.get_mut(&queue).expect("it has one now").max = max;
        self.update_window(who, queue);
        if max == 0 {
            let asker = Asker { connection: who, tag };
            return self.begin_work(turn, Work::EndWindow { asker, queue });
        }
        self.serve(turn, queue);
    }

    fn add_window(&mut self, turn: &Turn<'_>, who: ConnectionId, queue: QueueSlot) {
        let window = Window {
            max: 0,
            held: List::default(),
            lost: Default::default(),
            lost_places: 0,
            stamp: self.draw_stamp(),
            clock_since: turn.time(),
            armed: Time::NEVER,
        };
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.windows.insert(queue, window);
        self.queues[queue].windows += 1;
    }

    pub(super) fn hand_through_window(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        queue: QueueSlot,
        slot: Slot,
    ) {
        let stamp = self.draw_stamp();
        let session = self.sessions.get_mut(&connection).expect("only sessions have windows");
        let window = session.windows.get_mut(&queue).expect("only windows stand in rotations");
        let old = std::mem::replace(&mut window.stamp, stamp);
        self.queues[queue].hungry.remove(&(old, connection));
        self.detach(slot);
        self.place_reserved(slot, connection, Terms::Window { since: turn.time() });
        self.spend(connection, slot);
        self.update_window(connection, queue);
        let handed = self.handed(turn, slot, Handing::Dispatched);
        turn.effects.push(Effect::Deliver(connection, Tag::None, handed));
    }

    /// Puts a window into the rotation or takes it out, as it has room, and sets its clock.
    pub(super) fn update_window(&mut self, connection: ConnectionId, queue: QueueSlot) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let takes_dispatches = session.takes_dispatches();
        let ack_timeout_ms = session.ack_timeout_ms;
        let Some(window) = session.windows.get_mut(&queue) else { return };
        let entry = (window.stamp, connection);
        if window.has_room() && takes_dispatches {
            self.queues[queue].hungry.insert(entry);
        } else {
            self.queues[queue].hungry.remove(&entry);
        }
        // The clock of the oldest message runs from its delivery or from the moment it became
        // the oldest, which is now when the one before it has just gone.
        if let Some(first) = window.held.first()
            && let Terms::Window { since } = self.reservations[first].terms
        {
            window.clock_since = window.clock_since.max(since);
        }
        let at = window.deadline(ack_timeout_ms);
        if at < window.armed {
            let due = Due::Window(connection, queue);
            self.deadlines.rearm(&mut window.armed, at, due);
        }
    }

    /// Brings all windows of a connection into their rotations or out of them.
    pub(super) fn update_windows(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get(&connection) else { return };
        let queues: Vec<QueueSlot> = session.windows.keys().copied().collect();
        for queue in queues {
            self.update_window(connection, queue);
        }
    }

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

    /// Forgets a window through which nothing is out.
    pub(super) fn forget_window(&mut self, who: ConnectionId, queue: QueueSlot) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        let Some(window) = session.windows.remove(&queue) else { return };
        self.deadlines.cancel(window.armed, Due::Window(who, queue));
        self.queues[queue].hungry.remove(&(window.stamp, who));
        self.queues[queue].windows -= 1;
    }
}
