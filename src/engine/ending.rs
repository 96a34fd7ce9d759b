//! The end of a session: what it held goes back, and what it referred to is let go.

use crate::words::ids::MessageId;

use super::ledger::Lost;
use super::slices::{Slice, Work};
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::{Hold, SessionSlot};
use super::{Effect, Engine, Turn};

/// What the end of a session gives back or lets go.
enum LetGo {
    Reserved(Slot),
    Dispatched(Slot),
    Window(QueueSlot),
    Watched,
}

impl Engine {
    /// No request follows: its windows take nothing more, and the session ends once what was
    /// asked for before is done.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        self.hang_up(turn, who);
        if std::mem::replace(&mut self.ledger.dialogue(who).ending, true) {
            // Said twice: there is nobody any more whose unsent bytes could be waited for.
            return self.stall(turn, who, false);
        }
        self.ledger.update_windows(who);
        self.resumable.push_back(who);
    }

    /// Begins the end of a session: it stands in no rotation any more.
    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        self.ledger.set_hold(who, Hold::Ended);
        let windows = self.ledger.windows_of(who);
        self.begin_work(turn, Work::EndSession { session: who, windows });
    }

    pub(super) fn end_session_slice(
        &mut self,
        turn: &mut Turn<'_>,
        who: SessionSlot,
        mut windows: Vec<QueueSlot>,
    ) -> Slice {
        let mut touched = Vec::new();
        let mut next = self.next_to_let_go(who, &windows);
        while self.budget > 0
            && let Some(what) = next
        {
            self.budget -= 1;
            match what {
                LetGo::Reserved(slot) => {
                    // One by one, as with beanstalkd: who waits gets the first that was reserved.
                    let queue = self.give_back(turn, slot);
                    self.serve(turn, queue);
                    self.drop_if_unneeded(turn, queue);
                }
                LetGo::Dispatched(slot) => touched.push(self.give_back(turn, slot)),
                LetGo::Window(queue) => {
                    windows.pop();
                    self.ledger.forget_window(who, queue);
                    touched.push(queue);
                }
                LetGo::Watched => {
                    // In beanstalkd's order, which shows in lists of queues.
                    let queue = self.ledger.unwatch(who, 0);
                    self.drop_if_unneeded(turn, queue);
                }
            }
            next = self.next_to_let_go(who, &windows);
        }
        self.serve_all(turn, &mut touched);
        if next.is_some() {
            return Slice::Left(Work::EndSession { session: who, windows });
        }
        let session = self.ledger.close_session(who);
        if let Some(queue) = session.referred {
            self.drop_if_unneeded(turn, queue);
        }
        turn.effects.push(Effect::Finished(session.connection));
        Slice::Done
    }

    fn give_back(&mut self, turn: &mut Turn<'_>, slot: Slot) -> QueueSlot {
        let queue = self.ledger.queue_of(slot);
        let detached = self.ledger.take_back(turn.time(), slot, Lost::PlaceIsFree);
        self.put_back(turn, detached);
        queue
    }

    /// What goes back or is let go next: messages before what they came through.
    fn next_to_let_go(&self, who: SessionSlot, windows: &[QueueSlot]) -> Option<LetGo> {
        let session = self.ledger.session(who);
        let window = windows.last().copied();
        let through = window.and_then(|queue| session.windows[&queue].held.first());
        if let Some(first) = session.held.first() {
            return Some(LetGo::Reserved(self.ledger.reservations()[first].message));
        }
        if let Some(first) = through {
            return Some(LetGo::Dispatched(self.ledger.reservations()[first].message));
        }
        window.map(LetGo::Window).or((!session.watched.is_empty()).then_some(LetGo::Watched))
    }

    /// Finds a message that somebody asks for by its id. One that a session which has ended still
    /// holds, since its slices have not come to it yet, is given back first.
    pub(super) fn reclaim(&mut self, turn: &mut Turn<'_>, id: MessageId) -> Option<Slot> {
        let slot = self.ledger.find(id)?;
        if let State::Reserved(reservation) = self.ledger.message(slot).state {
            let holder = self.ledger.reservations()[reservation].session;
            if matches!(self.ledger.session(holder).hold, Hold::Ended) {
                let queue = self.give_back(turn, slot);
                self.serve(turn, queue);
                self.drop_if_unneeded(turn, queue);
                return self.ledger.find(id);
            }
        }
        Some(slot)
    }
}
