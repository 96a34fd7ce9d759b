//! Windows: standing demands of a connection for a queue's messages.

use crate::words::clock::Time;
use crate::words::command::{Handing, Reply, Tag};
use crate::words::ids::{ConnectionId, QueueName};
use crate::words::refusal::Refusal;

use super::slices::{Asker, Work};
use super::state::message::Slot;
use super::state::queue::QueueSlot;
use super::state::reservation::{List, Terms};
use super::state::session::Window;
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
        self.queues[queue].rotation.remove(&(old, connection));
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
            self.queues[queue].rotation.insert(entry);
        } else {
            self.queues[queue].rotation.remove(&entry);
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

    /// Forgets a window through which nothing is out.
    pub(super) fn forget_window(&mut self, who: ConnectionId, queue: QueueSlot) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        let Some(window) = session.windows.remove(&queue) else { return };
        self.deadlines.cancel(window.armed, Due::Window(who, queue));
        self.queues[queue].rotation.remove(&(window.stamp, who));
        self.queues[queue].windows -= 1;
    }
}
