//! Messages in somebody's hands that are to be settled together with others.

use crate::words::clock::Time;

use super::super::state::message::{Slot, State};
use super::super::state::reservation::Of;
use super::super::state::subscription::SubscriptionSlot;
use super::Ledger;

impl Ledger {
    /// Whether a message in somebody's hands is marked.
    pub fn is_marked(&self, slot: Slot) -> bool {
        let State::Reserved(reservation) = self.messages[slot].state else { return false };
        self.reservations[reservation].is_marked()
    }

    /// Marks a message in somebody's hands. Tells in which window a place is free then.
    pub fn mark(&mut self, now: Time, slot: Slot) -> Option<SubscriptionSlot> {
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let through = self.reservations[reservation].window();
        self.reservations[reservation].mark();
        let subscription = &mut self.subscriptions[through?];
        let session = &mut self.sessions[subscription.session];
        if subscription.held.first() == Some(reservation) {
            subscription.clock_since = now;
        }
        self.reservations.unlink(&mut subscription.held, Of::Holder, reservation);
        if subscription.held.is_empty() {
            subscription.soonest = Time::NEVER;
        }
        session.dispatched -= 1;
        self.reservations.push_back(&mut session.held, Of::Holder, reservation);
        self.update(through?);
        through
    }

    /// Marks a message no more: it is held until this moment, as if it had been taken on request.
    pub fn unmark(&mut self, slot: Slot, until: Time) {
        let State::Reserved(reservation) = self.messages[slot].state else { return };
        let reservation = &mut self.reservations[reservation];
        reservation.unmark(until);
        let who = reservation.session;
        let session = &mut self.sessions[who];
        session.soonest = session.soonest.min(until);
        self.arm_session(who);
    }
}
