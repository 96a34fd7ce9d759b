//! The end of a session: what it held goes back, and what it referred to is let go.

use crate::ids::{ConnectionId, MessageId};

use super::hand::Lost;
use super::message::{Slot, State};
use super::session::Hold;
use super::work::{Slice, Work};
use super::{Due, Effect, Engine, Turn};

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
        self.begin_work(turn, Work::EndSession(connection));
    }

    pub(super) fn end_session_slice(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
    ) -> Slice {
        let mut touched = Vec::new();
        let mut held = self.next_held(turn, connection);
        while self.budget > 0
            && let Some(slot) = held
        {
            self.budget -= 1;
            let queue = self.queue_of(slot);
            let is_reservation = !self.sessions[&connection].held.is_empty();
            self.take_back(turn, slot, Lost::PlaceIsFree);
            self.put_back(turn, slot);
            if is_reservation {
                // One by one, as with beanstalkd: who waits gets the first that was reserved.
                self.serve(turn, queue);
                self.drop_if_unneeded(turn, queue);
            } else {
                touched.push(queue);
            }
            held = self.next_held(turn, connection);
        }
        self.serve_all(turn, &mut touched);
        if held.is_some() {
            return Slice::Left(Work::EndSession(connection));
        }
        self.forget_session(turn, connection);
        turn.effects.push(Effect::Finished(connection));
        Slice::Done
    }

    /// What is to be given back next. Windows without any are let go on the way, so that each is
    /// looked at once, however many there are.
    fn next_held(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) -> Option<Slot> {
        loop {
            let session = self.sessions.get(&connection)?;
            if let Some(first) = session.held.first() {
                return Some(self.reservations[first].message);
            }
            let (queue, window) = session.windows.iter().next()?;
            if let Some(first) = window.held.first() {
                return Some(self.reservations[first].message);
            }
            let queue = *queue;
            self.forget_window(connection, queue);
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Forgets a session that holds nothing.
    pub(super) fn forget_session(&mut self, turn: &mut Turn<'_>, who: ConnectionId) {
        let session = self.sessions.remove(&who).expect("its end has begun");
        self.deadlines.cancel(session.armed, Due::Session(who));
        self.totals.producers -= u64::from(session.producer);
        self.totals.workers -= u64::from(session.worker);
        for queue in session.watched.iter().copied() {
            self.queues[queue].watching -= 1;
        }
        if let Some(queue) = session.used {
            self.queues[queue].using -= 1;
        }
        for queue in session.watched.into_iter().chain(session.used) {
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Finds a message that somebody asks for by its id. One that a session which has ended still
    /// holds, since its slices have not come to it yet, is given back first.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, id: MessageId) -> Option<Slot> {
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
