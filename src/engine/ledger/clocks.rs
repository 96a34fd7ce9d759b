//! The entries in the set of deadlines, most of which are armed lazily.

use crate::words::clock::Time;

use super::super::state::deadlines::Due;
use super::super::state::message::{Slot, State};
use super::super::state::queue::QueueSlot;
use super::super::state::reservation::Of;
use super::super::state::session::SessionSlot;
use super::super::state::subscription::SubscriptionSlot;
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
            Due::Window(subscription) => self.rearm_window(subscription),
            Due::Pause(_) | Due::Expire(_) | Due::Key(_) => Time(0),
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
        session.soonest = held.map(|(_, held)| held.ends()).min().unwrap_or(Time::NEVER);
        session.soonest
    }

    pub fn rearm_window(&mut self, slot: SubscriptionSlot) -> Time {
        let subscription = &mut self.subscriptions[slot];
        let at = subscription.deadline(self.sessions[subscription.session].ack_timeout_ms);
        self.deadlines.rearm(&mut subscription.armed, at, Due::Window(slot));
        at
    }

    /// Works out when the first message of a window that has an end of its own really ends.
    pub fn refresh_window(&mut self, slot: SubscriptionSlot) {
        let subscription = &mut self.subscriptions[slot];
        let held = self.reservations.iter(&subscription.held, Of::Holder);
        subscription.soonest = held.map(|(_, held)| held.ends()).min().unwrap_or(Time::NEVER);
    }

    /// Has the clock of a window begin anew.
    pub fn restart_window_clock(&mut self, now: Time, slot: SubscriptionSlot) {
        self.subscriptions[slot].clock_since = now;
        self.rearm_window(slot);
    }

    /// The clock of a message's life has rung, and will not ring again.
    pub fn end_life_clock(&mut self, at: Time, slot: Slot) {
        self.deadlines.cancel(at, Due::Expire(slot));
    }

    /// Has a reservation last until `until`, unless it has no end of its own or a later one: terms
    /// can give more than the time to run. Nothing ends sooner than the clocks of its holder know.
    pub fn prolong(&mut self, slot: Slot, until: Time) {
        if let State::Reserved(reservation) = self.messages[slot].state
            && let reservation = &mut self.reservations[reservation]
            && reservation.ends() != Time::NEVER
        {
            reservation.moment = reservation.moment.max(until);
        }
    }

    /// All entries.
    #[cfg(test)]
    pub fn deadlines(&self) -> std::collections::BTreeSet<(Time, Due)> {
        self.deadlines.entries()
    }
}
