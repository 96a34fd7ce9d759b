//! The end of a session: what it held goes back, and what it referred to is let go.

use crate::words::cause::Cause;
use crate::words::ids::MessageId;

use super::slices::{Slice, Work};
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::{Hold, Keyed, SessionSlot};
use super::state::subscription::SubscriptionSlot;
use super::{Effect, Engine, Turn};

/// What the end of a session gives back or lets go.
enum LetGo {
    Reserved(Slot),
    Dispatched(Slot),
    Queue(SubscriptionSlot, QueueSlot),
    Subscription(SubscriptionSlot),
}

impl Engine {
    /// No request follows: its windows take nothing more, and the session ends once what was
    /// asked for before is done.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        self.hang_up(turn, who);
        if std::mem::replace(&mut self.ledger.dialogue(who).ending, true) {
            // Said twice: there is nobody any more whose unsent bytes could be waited for.
            self.ledger.dialogue(who).gone = true;
            self.resumable.push_back(who);
            return self.stall(turn, who, false);
        }
        self.ledger.update_standing(who);
        self.resumable.push_back(who);
    }

    /// Begins the end of a session: it stands in no rotation any more.
    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        self.ledger.set_hold(who, Hold::Ended);
        self.ledger.note_work_at_end(who);
        // The last one goes first: the one of number 0 is the last to go.
        let subscriptions = self.ledger.session(who).subscriptions().collect();
        self.begin_work(turn, Work::EndSession { session: who, subscriptions });
    }

    pub(super) fn end_session_slice(
        &mut self,
        turn: &mut Turn<'_>,
        who: SessionSlot,
        mut subscriptions: Vec<SubscriptionSlot>,
    ) -> Slice {
        let mut touched = Vec::new();
        let mut next = self.next_to_let_go(who, &subscriptions);
        while self.budget > 0
            && let Some(what) = next
        {
            self.budget -= 1;
            match what {
                LetGo::Reserved(slot) => {
                    // Served after each message and not once at the end: a consumer that waits
                    // gets the message that was reserved first.
                    let queue = self.ledger.queue_of(slot);
                    self.give_back(turn, slot, Cause::ConnectionLost);
                    self.serve(turn, queue);
                    self.drop_if_unneeded(turn, queue);
                }
                LetGo::Dispatched(slot) => {
                    touched.push(self.ledger.queue_of(slot));
                    self.give_back(turn, slot, Cause::ConnectionLost);
                }
                LetGo::Queue(slot, queue) => {
                    if matches!(self.ledger.subscription(slot).key, Keyed::Queue(_)) {
                        // It ends with its only queue.
                        subscriptions.pop();
                    }
                    self.leave(turn, slot, queue);
                }
                LetGo::Subscription(slot) => {
                    subscriptions.pop();
                    self.ledger.end_subscription(slot);
                }
            }
            next = self.next_to_let_go(who, &subscriptions);
        }
        self.serve_all(turn, &mut touched);
        if next.is_some() {
            return Slice::Left(Work::EndSession { session: who, subscriptions });
        }
        let session = self.ledger.close_session(who);
        if let Some(queue) = session.referred {
            self.drop_if_unneeded(turn, queue);
        }
        turn.effects.push(Effect::Finished(session.connection));
        Slice::Done
    }

    /// What goes back or is let go next: messages before what they came through.
    fn next_to_let_go(&self, who: SessionSlot, left: &[SubscriptionSlot]) -> Option<LetGo> {
        if let Some(first) = self.ledger.session(who).held.first() {
            return Some(LetGo::Reserved(self.ledger.reservations()[first].message));
        }
        let slot = *left.last()?;
        let subscription = self.ledger.subscription(slot);
        if let Some(first) = subscription.held.first() {
            return Some(LetGo::Dispatched(self.ledger.reservations()[first].message));
        }
        // From the front: the order in which queues vanish shows in lists of queues.
        let first = subscription.queues.first();
        Some(first.map_or(LetGo::Subscription(slot), |member| LetGo::Queue(slot, member.queue)))
    }

    /// Finds a message that somebody asks for by its id. One that a session which has ended still
    /// holds, since its slices have not come to it yet, is given back first.
    pub(super) fn reclaim(&mut self, turn: &mut Turn<'_>, id: MessageId) -> Option<Slot> {
        let slot = self.ledger.find(id)?;
        if let State::Reserved(reservation) = self.ledger.message(slot).state {
            let holder = self.ledger.reservations()[reservation].session;
            if matches!(self.ledger.session(holder).hold, Hold::Ended) {
                let queue = self.ledger.queue_of(slot);
                self.give_back(turn, slot, Cause::ConnectionLost);
                self.serve(turn, queue);
                self.drop_if_unneeded(turn, queue);
                return self.ledger.find(id);
            }
        }
        Some(slot)
    }
}
