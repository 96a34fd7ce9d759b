//! The end of a session: what it held goes back, and what it referred to is let go.

use crate::ids::{ConnectionId, MessageId};

use super::hand::Lost;
use super::message::{Slot, State};
use super::queue::QueueSlot;
use super::session::Hold;
use super::work::{Slice, Work};
use super::{Due, Effect, Engine, Turn};

impl Engine {
    /// Begins the end of a session: it stands in no rotation any more.
    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.hold = Hold::Ended;
        session.stalled = true;
        let windows: Vec<QueueSlot> = session.windows.keys().copied().collect();
        for window in session.windows.values_mut() {
            window.max = 0;
        }
        for queue in windows {
            self.update_window(turn, connection, queue);
        }
        self.begin_work(turn, Work::EndSession(connection));
    }

    pub(super) fn end_session_slice(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
    ) -> Slice {
        let mut touched = Vec::new();
        let mut held = self.next_held(connection);
        while self.budget > 0
            && let Some(slot) = held
        {
            self.budget -= 1;
            touched.push(self.queue_of(slot));
            self.take_back(turn, slot, Lost::PlaceIsFree);
            self.put_back(turn, slot);
            held = self.next_held(connection);
        }
        self.serve_all(turn, &mut touched);
        if held.is_some() {
            return Slice::Left(Work::EndSession(connection));
        }
        self.forget_session(turn, connection);
        turn.effects.push(Effect::Finished(connection));
        Slice::Done
    }

    fn next_held(&self, connection: ConnectionId) -> Option<Slot> {
        let session = self.sessions.get(&connection)?;
        let windows = session.windows.values().map(|window| &window.held);
        let first = std::iter::once(&session.held).chain(windows).find_map(|list| list.first())?;
        Some(self.reservations[first].message)
    }

    /// Forgets a session that holds nothing.
    pub(super) fn forget_session(&mut self, turn: &mut Turn<'_>, who: ConnectionId) {
        let windows: Vec<QueueSlot> = self.sessions[&who].windows.keys().copied().collect();
        for queue in &windows {
            self.forget_window(who, *queue);
        }
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
        for queue in windows.into_iter().chain(session.watched).chain(session.used) {
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Gives back all that is in this queue's hands of a session that has ended, where the given
    /// message is one of it: its slices may not have come to it yet.
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
                return self.find(id);
            }
        }
        Some(slot)
    }
}
