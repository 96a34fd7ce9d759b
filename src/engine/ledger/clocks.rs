//! The entries in the set of deadlines, most of which are armed lazily.

use crate::words::clock::Time;

use super::super::state::deadlines::Due;
use super::super::state::message::{Slot, State};
use super::super::state::queue::QueueSlot;
use super::super::state::reservation::{Of, Terms};
use super::super::state::session::SessionSlot;
use super::Ledger;

impl Ledger {
    /// The first entry; what is armed lazily may have nothing to do yet.
    pub fn first_deadline(&self) -> Option<(Time, Due)> {
        self.deadlines.first()
    }

    /// Moves an entry to where its owner needs it by now, and says when that is. Entries that are
    /// exact stay, and say the smallest moment.
    pub fn rearm(&mut self, due: Due) -> Time {
        match due {
            Due::Delay(queue) => self.rearm_delay(queue),
            Due::Session(_, session) => self.rearm_session(session),
            Due::Window(connection, queue) => match self.sessions.find(connection) {
                Some(session) => self.rearm_window(session, queue),
                None => Time::NEVER,
            },
            Due::Pause(_) | Due::Expire(_) => Time(0),
        }
    }

    pub fn rearm_delay(&mut self, slot: QueueSlot) -> Time {
        let queue = &mut self.queues[slot];
        let at = queue.delayed.first().map_or(Time::NEVER, |(due, ..)| *due);
        self.deadlines.rearm(&mut queue.delay_armed, at, Due::Delay(slot));
        at
    }

    /// Makes sure that the session's clock rings in time.
    pub fn arm_session(&mut self, slot: SessionSlot) {
        let session = &mut self.sessions[slot];
        let at = session.deadline();
        if at < session.armed {
            let due = Due::Session(session.connection, slot);
            self.deadlines.rearm(&mut session.armed, at, due);
        }
    }

    pub fn rearm_session(&mut self, slot: SessionSlot) -> Time {
        let session = &mut self.sessions[slot];
        let at = session.deadline();
        let due = Due::Session(session.connection, slot);
        self.deadlines.rearm(&mut session.armed, at, due);
        at
    }

    /// Works out when the first reservation of a session really ends.
    pub fn refresh_soonest(&mut self, slot: SessionSlot) -> Time {
        let session = &mut self.sessions[slot];
        let held = self.reservations.iter(&session.held, Of::Holder);
        session.soonest = held.map(|(_, held)| held.terms.ends()).min().unwrap_or(Time::NEVER);
        session.soonest
    }

    pub fn rearm_window(&mut self, slot: SessionSlot, queue: QueueSlot) -> Time {
        let session = &mut self.sessions[slot];
        let due = Due::Window(session.connection, queue);
        let Some(window) = session.windows.get_mut(&queue) else { return Time::NEVER };
        let at = window.deadline(session.ack_timeout_ms);
        self.deadlines.rearm(&mut window.armed, at, due);
        at
    }

    /// Has the clock of a window begin anew.
    pub fn restart_window_clock(&mut self, now: Time, slot: SessionSlot, queue: QueueSlot) {
        if let Some(window) = self.sessions[slot].windows.get_mut(&queue) {
            window.clock_since = now;
        }
        self.rearm_window(slot, queue);
    }

    /// The clock of a message's life has rung, and will not ring again.
    pub fn end_life_clock(&mut self, at: Time, slot: Slot) {
        self.deadlines.cancel(at, Due::Expire(slot));
    }

    /// Has a reservation last until `until`; one that came through a window has no end of its own.
    pub fn prolong(&mut self, slot: Slot, until: Time) {
        if let State::Reserved(reservation) = self.messages[slot].state
            && let Terms::Until(ends) = &mut self.reservations[reservation].terms
        {
            *ends = until;
        }
    }

    /// All entries.
    #[cfg(test)]
    pub fn deadlines(&self) -> std::collections::BTreeSet<(Time, Due)> {
        self.deadlines.entries()
    }
}
