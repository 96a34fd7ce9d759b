//! Waits and windows: who stands in which queue's rotation, and what a window has out.

use crate::words::clock::Time;
use crate::words::command::Tag;
use crate::words::ids::MessageId;

use super::super::state::deadlines::Due;
use super::super::state::message::{Slot, State};
use super::super::state::queue::QueueSlot;
use super::super::state::reservation::{List, Terms};
use super::super::state::session::{Hold, SessionSlot, Wait, Window};
use super::{Detached, Ledger};

/// What a window loses when a message is taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Lost {
    /// Nothing: the peer knows.
    PlaceIsFree,
    /// The place, until the peer acknowledges too late: it still has the message.
    PlaceStaysTaken,
}

impl Ledger {
    /// Makes a session wait for a message of its watched queues.
    pub fn begin_wait(&mut self, who: SessionSlot, tag: Tag, until: Time, count: u32) {
        let stamp = self.draw_stamp();
        let session = &mut self.sessions[who];
        session.hold = Hold::Waiting(Wait { stamp, tag, until, count });
        self.counts.waiting += 1;
        for queue in &session.watched {
            let queue = &mut self.queues[*queue];
            queue.rotation.insert((stamp, who));
            queue.waiting += 1;
        }
        self.arm_session(who);
    }

    /// Takes a waiting session out of all rotations.
    pub fn end_wait(&mut self, who: SessionSlot) -> Option<Wait> {
        let session = &mut self.sessions[who];
        if !session.is_waiting() {
            return None;
        }
        let Hold::Waiting(wait) = std::mem::replace(&mut session.hold, Hold::Free) else {
            return None;
        };
        self.counts.waiting -= 1;
        for queue in &session.watched {
            let queue = &mut self.queues[*queue];
            queue.rotation.remove(&(wait.stamp, who));
            queue.waiting -= 1;
        }
        self.arm_session(who);
        Some(wait)
    }

    /// Has at most `max` messages of a queue out to a session; tells whether there is a window
    /// now. One that ends is there until it is forgotten.
    pub fn set_window(&mut self, now: Time, who: SessionSlot, queue: QueueSlot, max: u32) {
        let stamp = self.next_stamp;
        let session = &mut self.sessions[who];
        let window = session.windows.entry(queue).or_insert_with(|| {
            self.next_stamp += 1;
            self.queues[queue].windows += 1;
            Window {
                max: 0,
                held: List::default(),
                lost: Default::default(),
                lost_places: 0,
                stamp,
                clock_since: now,
                armed: Time::NEVER,
            }
        });
        window.max = max;
        self.update_window(who, queue);
    }

    /// Sends a window to the end of its queue's rotation, out of which it is taken.
    pub fn restamp_window(&mut self, who: SessionSlot, queue: QueueSlot) {
        let stamp = self.draw_stamp();
        let window = self.sessions[who].windows.get_mut(&queue);
        let window = window.expect("only windows stand in rotations");
        let old = std::mem::replace(&mut window.stamp, stamp);
        self.queues[queue].rotation.remove(&(old, who));
    }

    /// Puts a window into the rotation or takes it out, as it has room, and sets its clock.
    pub fn update_window(&mut self, who: SessionSlot, queue: QueueSlot) {
        let session = &mut self.sessions[who];
        let (connection, takes_dispatches) = (session.connection, session.takes_dispatches());
        let ack_timeout_ms = session.ack_timeout_ms;
        let Some(window) = session.windows.get_mut(&queue) else { return };
        let entry = (window.stamp, who);
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

    /// Brings all windows of a session into their rotations or out of them.
    pub fn update_windows(&mut self, who: SessionSlot) {
        for queue in self.windows_of(who) {
            self.update_window(who, queue);
        }
    }

    /// The queues on which a session has windows.
    pub fn windows_of(&self, who: SessionSlot) -> Vec<QueueSlot> {
        self.sessions[who].windows.keys().copied().collect()
    }

    /// Forgets a window through which nothing is out.
    pub fn forget_window(&mut self, who: SessionSlot, queue: QueueSlot) {
        let session = &mut self.sessions[who];
        let Some(window) = session.windows.remove(&queue) else { return };
        debug_assert!(window.held.is_empty(), "a window that has something out");
        self.deadlines.cancel(window.armed, Due::Window(session.connection, queue));
        self.queues[queue].rotation.remove(&(window.stamp, who));
        self.queues[queue].windows -= 1;
    }

    /// Takes a message out of its holder's hands. Where it came through a window, its place is
    /// free, or stays taken until a late acknowledgement when `lost` says so.
    pub fn take_back(&mut self, now: Time, slot: Slot, lost: Lost) -> Detached {
        let State::Reserved(reservation) = self.messages[slot].state else {
            return self.detach(slot);
        };
        let (who, terms) =
            (self.reservations[reservation].session, self.reservations[reservation].terms);
        let (id, queue) = (self.messages[slot].id, self.messages[slot].queue);
        let Terms::Window { .. } = terms else { return self.detach(slot) };
        let first_out = self.sessions[who].windows.get(&queue).and_then(|w| w.held.first());
        let detached = self.detach(slot);
        if let Some(window) = self.sessions[who].windows.get_mut(&queue) {
            if lost == Lost::PlaceStaysTaken {
                window.lose(id);
            }
            if first_out == Some(reservation) {
                window.clock_since = now;
            }
            self.update_window(who, queue);
        }
        detached
    }

    /// Frees a place that this message has taken in a window of the session, of that queue if one
    /// is named, and says of which queue the window is.
    pub fn free_lost_place(
        &mut self,
        now: Time,
        who: SessionSlot,
        id: MessageId,
        named: Option<QueueSlot>,
    ) -> Option<QueueSlot> {
        let windows = &mut self.sessions[who].windows;
        let (queue, window) = match named {
            Some(queue) => (queue, windows.get_mut(&queue)?),
            None => windows
                .iter_mut()
                .find(|(_, window)| window.lost.contains_key(&id))
                .map(|(queue, window)| (*queue, window))?,
        };
        if !window.find_again(id) {
            return None;
        }
        if window.held.is_empty() {
            // It has stirred: the time until it is given up starts again.
            window.clock_since = now;
        }
        Some(queue)
    }
}
