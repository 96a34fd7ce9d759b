//! Taking messages one by one: reservations, those that wait, and looks at a message.

use crate::words::clock::Time;
use crate::words::command::{Handing, Reply, Tag};
use crate::words::ids::{ConnectionId, MessageId};

use super::slices::{Asker, Slice, Work};
use super::state::message::{Slot, State};
use super::state::reservation::Terms;
use super::state::session::{Hold, Wait};
use super::{Effect, Engine, Turn};

/// What a look at all watched queues has found.
enum Best {
    Message(Slot),
    Nothing,
    /// More expired messages stand before the first good one than this turn may clear away.
    Unknown,
}

impl Engine {
    pub(super) fn reserve_next(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        timeout_ms: Option<u64>,
        count: u32,
    ) {
        self.count_worker(who);
        let until = timeout_ms.map_or(Time::NEVER, |timeout| turn.time().plus(timeout));
        let asker = Asker { connection: who, tag };
        if let Slice::Left(work) = self.reserve_slice(turn, asker, until, count) {
            self.go_on_later(work);
        }
    }

    /// Answers a reservation, or makes it wait. A work only because there may be more expired
    /// messages to clear out of its way than a turn may.
    pub(super) fn reserve_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        until: Time,
        count: u32,
    ) -> Slice {
        let who = asker.connection;
        match self.best_watched(turn, who) {
            Best::Message(slot) => self.hand_batch(turn, who, asker.tag, slot, count),
            Best::Unknown => return Slice::Left(Work::Reserve { asker, until, count }),
            Best::Nothing if self.has_deadline_soon(turn.time(), who) => {
                turn.reply(who, asker.tag, Reply::DeadlineSoon);
            }
            Best::Nothing if until <= turn.time() || self.sessions[&who].hung_up => {
                turn.reply(who, asker.tag, Reply::TimedOut);
            }
            Best::Nothing => self.begin_wait(who, asker.tag, until, count),
        }
        Slice::Done
    }

    pub(super) fn reserve_message(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
    ) {
        let found = self.reclaim(turn, id);
        let Some(slot) = found.filter(|slot| !self.is_reserved(*slot)) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        if self.is_over(turn.time(), slot) {
            self.expire(turn, slot);
            return turn.reply(who, tag, Reply::NotFound);
        }
        // Who asks for what is not there is no worker, as with beanstalkd.
        self.count_worker(who);
        // What was stored as buried or delayed would be so again after a restart.
        let stored_elsewhere = !matches!(self.messages[slot].state, State::Ready);
        if matches!(self.messages[slot].state, State::Buried(_)) {
            self.unbury_clock(turn, slot);
        }
        self.reserve(turn, who, tag, slot);
        if stored_elsewhere {
            self.save(turn, slot);
        }
    }

    pub(super) fn is_reserved(&self, slot: Slot) -> bool {
        matches!(self.messages[slot].state, State::Reserved(_))
    }

    pub(super) fn count_worker(&mut self, who: ConnectionId) {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if !session.worker {
            session.worker = true;
            self.totals.workers += 1;
        }
    }

    /// Reserves this message and up to `count - 1` more of the watched queues.
    pub(super) fn hand_batch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        tag: Tag,
        first: Slot,
        count: u32,
    ) {
        if count == 1 {
            return self.reserve(turn, connection, tag, first);
        }
        let at = turn.effects.len();
        self.reserve(turn, connection, tag.clone(), first);
        let mut handed = 1;
        while handed < count
            && !self.sessions[&connection].exhausted
            && let Best::Message(slot) = self.best_watched(turn, connection)
        {
            self.reserve(turn, connection, tag.clone(), slot);
            handed += 1;
        }
        let batch = Effect::Reply(connection, tag, Reply::Batch(handed as usize));
        turn.effects.insert(at, batch);
    }

    /// Reserves a message for its time to run.
    pub(super) fn reserve(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        tag: Tag,
        slot: Slot,
    ) {
        let until = turn.time().plus(self.messages[slot].time_to_run_ms);
        self.detach(slot);
        self.place_reserved(slot, connection, Terms::Until(until));
        self.arm_session(connection);
        let handed = self.handed(turn, slot, Handing::Reserved);
        self.spend(connection, slot);
        turn.effects.push(Effect::Deliver(connection, tag, handed));
    }

    /// The first message of all watched queues: the smallest priority, then place.
    fn best_watched(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) -> Best {
        loop {
            let watched = &self.sessions[&connection].watched;
            let queues = watched.iter().map(|slot| &self.queues[*slot]);
            let open = queues.filter(|queue| !queue.is_paused(turn.time()));
            let Some(place) = open.filter_map(|queue| queue.ready.first()).min().copied() else {
                return Best::Nothing;
            };
            if self.messages[place.slot].expires > turn.time() {
                return Best::Message(place.slot);
            }
            if self.budget == 0 {
                return Best::Unknown;
            }
            self.budget -= 1;
            self.expire(turn, place.slot);
        }
    }

    /// Makes a connection wait for a message of its watched queues.
    pub(super) fn begin_wait(
        &mut self,
        connection: ConnectionId,
        tag: Tag,
        until: Time,
        count: u32,
    ) {
        let stamp = self.draw_stamp();
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.hold = Hold::Waiting(Wait { stamp, tag, until, count });
        self.totals.waiting += 1;
        for queue in &session.watched {
            let queue = &mut self.queues[*queue];
            queue.rotation.insert((stamp, connection));
            queue.waiting += 1;
        }
        self.arm_session(connection);
    }

    /// Takes a waiting connection out of all rotations and lets its backlog go on.
    pub(super) fn end_wait(&mut self, connection: ConnectionId) -> Option<Wait> {
        let session = self.sessions.get_mut(&connection)?;
        if !session.is_waiting() {
            return None;
        }
        let Hold::Waiting(wait) = std::mem::replace(&mut session.hold, Hold::Free) else {
            return None;
        };
        self.totals.waiting -= 1;
        for queue in &session.watched {
            let queue = &mut self.queues[*queue];
            queue.rotation.remove(&(wait.stamp, connection));
            queue.waiting -= 1;
        }
        self.set_free(connection);
        self.arm_session(connection);
        Some(wait)
    }

    /// Shows a message to a peer.
    pub(super) fn show(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, slot: Slot) {
        let handed = self.handed(turn, slot, Handing::Found);
        self.spend(who, slot);
        turn.effects.push(Effect::Deliver(who, tag, handed));
    }
}
