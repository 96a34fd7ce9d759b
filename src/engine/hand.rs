//! Who gets the next message, and what happens when one comes back.
//!
//! Demand has two faces: a *window* stands until it is changed, a *wait* ends with its answer.
//! Both stand in one rotation per queue (`Queue::hungry`), ordered by a stamp: whoever has waited
//! longest since its last message is first. A wait over several queues stands in each of them.

use crate::clock::Time;
use crate::command::{Handing, Manner, Reply, Tag};
use crate::ids::{ConnectionId, MessageId};

use super::message::{Slot, State};
use super::queue::QueueSlot;
use super::reservation::Terms;
use super::session::{Hold, Wait};
use super::work::Work;
use super::{Due, Effect, Engine, Handed, Turn};

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It is ready at its place.
    Ready,
    /// It had expired, or its queue was flushed, and is gone.
    Gone,
}

impl Engine {
    /// Hands out what the queue has to those who have room.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        loop {
            let Some(here) = self.queues.get(queue) else { return };
            let (Some(place), Some((stamp, connection))) =
                (here.ready.first().copied(), here.hungry.first().copied())
            else {
                return;
            };
            if here.is_paused(turn.time()) {
                return;
            }
            if self.messages[place.slot].expires <= turn.time() {
                if self.budget == 0 {
                    self.works.push_back(Work::Serve(queue));
                    return;
                }
                self.budget -= 1;
                self.expire(turn, place.slot);
                continue;
            }
            self.hand_to(turn, queue, place.slot, stamp, connection);
        }
    }

    fn hand_to(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueSlot,
        slot: Slot,
        stamp: u64,
        connection: ConnectionId,
    ) {
        let session = self.sessions.get(&connection).expect("only sessions stand in rotations");
        match &session.hold {
            Hold::Waiting(wait) if wait.stamp == stamp => {
                let wait = self.end_wait(connection).expect("it waits");
                self.hand_batch(turn, connection, wait.tag, slot, wait.count);
            }
            _ => self.hand_through_window(turn, connection, queue, slot),
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
            && let Some(slot) = self.best_watched(turn, connection)
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

    /// Counts what is sent to a connection in this turn. One that has used up its allowance, the
    /// bound on what may lie unsent for it, gets no more before the next turn.
    pub(super) fn spend(&mut self, connection: ConnectionId, slot: Slot) {
        let bytes = u64::from(self.messages[slot].body_bytes);
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if session.allowance_turn != self.turns {
            session.allowance_turn = self.turns;
            session.allowance = self.limits.max_output() as u64;
        }
        if session.allowance == 0 {
            return;
        }
        session.allowance = session.allowance.saturating_sub(bytes);
        if session.allowance == 0 {
            session.stalled |= !session.windows.is_empty();
            if matches!(session.hold, Hold::Free) && session.manner == Manner::Serial {
                session.hold = Hold::Output;
            }
            self.exhausted.push(connection);
        }
    }

    /// A new turn: the session has its allowance again, unless its peer does not keep up.
    pub(super) fn renew(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        if self.sessions.get(&connection).is_some_and(|session| !session.slow) {
            self.stall(turn, connection, false);
        }
    }

    fn hand_through_window(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        queue: QueueSlot,
        slot: Slot,
    ) {
        let stamp = self.draw_stamp();
        let session = self.sessions.get_mut(&connection).expect("only sessions have windows");
        let window = session.windows.get_mut(&queue).expect("only windows stand in rotations");
        let old = std::mem::replace(&mut window.stamp, stamp);
        self.queues[queue].hungry.remove(&(old, connection));
        self.detach(slot);
        self.place_reserved(slot, connection, Terms::Window { since: turn.time() });
        self.spend(connection, slot);
        self.update_window(turn, connection, queue);
        let handed = self.handed(turn, slot, Handing::Dispatched);
        turn.effects.push(Effect::Deliver(connection, Tag::None, handed));
    }

    /// A message as it is sent to a peer.
    pub(super) fn handed(&self, turn: &Turn<'_>, slot: Slot, handing: Handing) -> Handed {
        let message = &self.messages[slot];
        let time_to_live_ms = match message.state {
            _ if message.expires == Time::NEVER => None,
            State::Buried(_) => Some(message.expires.0),
            _ => Some(message.expires.since(turn.time())),
        };
        Handed {
            handing,
            id: message.id,
            queue: self.queues[message.queue].name.clone(),
            priority: message.priority,
            time_to_live_ms,
            reserves: message.reserves,
        }
    }

    /// The first message of all watched queues: the smallest priority, then place.
    pub(super) fn best_watched(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
    ) -> Option<Slot> {
        loop {
            let watched = &self.sessions.get(&connection)?.watched;
            let queues = watched.iter().map(|slot| &self.queues[*slot]);
            let open = queues.filter(|queue| !queue.is_paused(turn.time()));
            let slot = open.filter_map(|queue| queue.ready.first()).min()?.slot;
            if self.messages[slot].expires > turn.time() || self.budget == 0 {
                return (self.messages[slot].expires > turn.time()).then_some(slot);
            }
            self.budget -= 1;
            self.expire(turn, slot);
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
            queue.hungry.insert((stamp, connection));
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
            queue.hungry.remove(&(wait.stamp, connection));
            queue.waiting -= 1;
        }
        self.set_free(connection);
        self.arm_session(connection);
        Some(wait)
    }

    /// Puts a window into the rotation or takes it out, as it has room, and sets its clock.
    pub(super) fn update_window(
        &mut self,
        turn: &Turn<'_>,
        connection: ConnectionId,
        queue: QueueSlot,
    ) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let stalled = session.stalled || session.slow;
        let ack_timeout_ms = session.ack_timeout_ms;
        let Some(window) = session.windows.get_mut(&queue) else { return };
        let entry = (window.stamp, connection);
        if window.has_room() && !stalled {
            self.queues[queue].hungry.insert(entry);
        } else {
            self.queues[queue].hungry.remove(&entry);
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
            self.deadlines.rearm(&mut window.armed, at.max(turn.time()), due);
        }
    }

    /// Takes a message out of its holder's hands. Where it came through a window, its place is
    /// free, or stays taken until a late acknowledgement when `lost` says so. Returns the window.
    pub(super) fn take_back(
        &mut self,
        turn: &Turn<'_>,
        slot: Slot,
        lost: Lost,
    ) -> Option<(ConnectionId, QueueSlot)> {
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let (connection, terms) =
            (self.reservations[reservation].connection, self.reservations[reservation].terms);
        let (id, queue) = (self.messages[slot].id, self.messages[slot].queue);
        let was_first = self.is_first_out(connection, queue, reservation);
        self.detach(slot);
        let Terms::Window { .. } = terms else { return None };
        let session = self.sessions.get_mut(&connection)?;
        let window = session.windows.get_mut(&queue)?;
        if lost == Lost::PlaceStaysTaken {
            window.lost.insert(id);
        }
        if was_first {
            window.clock_since = turn.time();
        }
        self.update_window(turn, connection, queue);
        Some((connection, queue))
    }

    fn is_first_out(&self, connection: ConnectionId, queue: QueueSlot, reservation: u32) -> bool {
        let window = self.sessions.get(&connection).and_then(|s| s.windows.get(&queue));
        window.is_some_and(|window| window.held.first() == Some(reservation))
    }

    /// Puts a detached message back to its old place, unless its time is over.
    pub(super) fn put_back(&mut self, turn: &mut Turn<'_>, slot: Slot) -> Return {
        if self.is_flushed(slot) || self.messages[slot].expires <= turn.time() {
            if !self.is_flushed(slot) {
                self.totals.messages_expired += 1;
            }
            self.forget(turn, slot);
            return Return::Gone;
        }
        self.place_ready(slot);
        Return::Ready
    }

    /// Removes a message whose time to live is over and that nobody holds.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let queue = self.queue_of(slot);
        self.totals.messages_expired += 1;
        self.detach(slot);
        self.forget(turn, slot);
        self.drop_if_unneeded(turn, queue);
    }

    /// The reservation of a message that this connection holds, of that queue if one is named.
    pub(super) fn held_by(
        &self,
        connection: ConnectionId,
        id: MessageId,
        queue: Option<&crate::ids::QueueName>,
    ) -> Option<Slot> {
        let slot = self.find(id)?;
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let right_queue =
            queue.is_none_or(|name| self.queues[self.messages[slot].queue].name == *name);
        (self.reservations[reservation].connection == connection && right_queue).then_some(slot)
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

/// What a window loses when a message is taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: the peer knows.
    PlaceIsFree,
    /// The place, until the peer acknowledges too late: it still has the message.
    PlaceStaysTaken,
}
