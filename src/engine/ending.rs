//! The end of a session: what it held goes back, and what it referred to is let go.

use crate::words::ids::{ConnectionId, MessageId};

use super::give_back::Lost;
use super::slices::{Slice, Work};
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::Hold;
use super::{Due, Effect, Engine, Turn};

/// What the end of a session gives back or lets go.
enum LetGo {
    Reserved(Slot),
    Dispatched(Slot),
    Window(QueueSlot),
    Watched(QueueSlot),
}

impl Engine {
    /// No request follows: its windows take nothing more, and the session ends once what was
    /// asked for before is done.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        self.hang_up(turn, connection);
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if session.ending {
            // Said twice: there is nobody any more whose unsent bytes could be waited for.
            return self.stall(turn, connection, false);
        }
        session.ending = true;
        self.update_windows(connection);
        self.resumable.push_back(connection);
    }

    /// Begins the end of a session: it stands in no rotation any more.
    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.hold = Hold::Ended;
        let windows = session.windows.keys().copied().collect();
        self.begin_work(turn, Work::EndSession { connection, windows });
    }

    pub(super) fn end_session_slice(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        mut windows: Vec<QueueSlot>,
    ) -> Slice {
        let mut touched = Vec::new();
        let mut next = self.next_to_let_go(connection, &windows);
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
                    self.forget_window(connection, queue);
                    touched.push(queue);
                }
                LetGo::Watched(queue) => {
                    let session = self.sessions.get_mut(&connection).expect("it watches");
                    // In beanstalkd's order, which shows in lists of queues.
                    session.watched.swap_remove(0);
                    self.queues[queue].watching -= 1;
                    self.drop_if_unneeded(turn, queue);
                }
            }
            next = self.next_to_let_go(connection, &windows);
        }
        self.serve_all(turn, &mut touched);
        if next.is_some() {
            return Slice::Left(Work::EndSession { connection, windows });
        }
        self.forget_session(turn, connection);
        turn.effects.push(Effect::Finished(connection));
        Slice::Done
    }

    fn give_back(&mut self, turn: &mut Turn<'_>, slot: Slot) -> QueueSlot {
        let queue = self.queue_of(slot);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        self.put_back(turn, slot);
        queue
    }

    /// What goes back or is let go next: messages before what they came through.
    fn next_to_let_go(&self, connection: ConnectionId, windows: &[QueueSlot]) -> Option<LetGo> {
        let session = self.sessions.get(&connection)?;
        let window = windows.last().copied();
        let through = window.and_then(|queue| session.windows[&queue].held.first());
        if let Some(first) = session.held.first() {
            return Some(LetGo::Reserved(self.reservations[first].message));
        }
        if let Some(first) = through {
            return Some(LetGo::Dispatched(self.reservations[first].message));
        }
        window.map(LetGo::Window).or_else(|| session.watched.first().copied().map(LetGo::Watched))
    }

    /// Forgets a session that holds, consumes and watches nothing.
    fn forget_session(&mut self, turn: &mut Turn<'_>, who: ConnectionId) {
        let session = self.sessions.remove(&who).expect("its end has begun");
        self.deadlines.cancel(session.armed, Due::Session(who));
        self.totals.producers -= u64::from(session.producer);
        self.totals.workers -= u64::from(session.worker);
        if let Some(queue) = session.used {
            self.queues[queue].using -= 1;
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Finds a message that somebody asks for by its id. One that a session which has ended still
    /// holds, since its slices have not come to it yet, is given back first.
    pub(super) fn reclaim(&mut self, turn: &mut Turn<'_>, id: MessageId) -> Option<Slot> {
        let slot = self.find(id)?;
        if let State::Reserved(reservation) = self.messages[slot].state {
            let holder = self.reservations[reservation].connection;
            let ended = self.sessions.get(&holder).is_some_and(|s| matches!(s.hold, Hold::Ended));
            if ended {
                let queue = self.queue_of(slot);
                self.take_back(turn, slot, Lost::PlaceIsFree);
                self.put_back(turn, slot);
                self.serve(turn, queue);
                self.drop_if_unneeded(turn, queue);
                return self.find(id);
            }
        }
        Some(slot)
    }
}
