//! What happens by itself: delays that end, reservations that time out, waits, pauses, expiries.

use crate::words::clock::Time;
use crate::words::command::Reply;
use crate::words::ids::ConnectionId;
use crate::words::limits::PAUSE_MS;

use super::give_back::Lost;
use super::state::deadlines::Due;
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::reservation::{Of, Terms};
use super::state::session::{Hold, SAFETY_MARGIN_MS};
use super::{Effect, Engine, Turn};

impl Engine {
    /// Does what is due, as far as this turn's budget goes.
    pub(super) fn run_clocks(&mut self, turn: &mut Turn<'_>) {
        while self.budget > 0
            && let Some((at, due)) = self.deadlines.first()
            && at <= turn.time()
        {
            self.budget -= 1;
            // What was armed too early comes in its turn: after a pause all of it may be due.
            if self.true_time(due) > at {
                continue;
            }
            match due {
                Due::Delay(queue) => self.end_delays(turn, queue),
                Due::Pause(queue) => self.end_pause(turn, queue),
                Due::Session(connection) => self.session_clock(turn, connection),
                Due::Window(connection, queue) => self.window_clock(turn, at, connection, queue),
                Due::Expire(slot) => self.expiry_clock(turn, at, slot),
            }
        }
    }

    /// When it really happens; the entry is moved there.
    fn true_time(&mut self, due: Due) -> Time {
        match due {
            Due::Delay(queue) => self.rearm_delay(queue),
            Due::Session(connection) => {
                self.refresh_soonest(connection);
                self.rearm_session(connection)
            }
            Due::Window(connection, queue) => self.rearm_window(connection, queue),
            Due::Pause(_) | Due::Expire(_) => Time(0),
        }
    }

    /// The first moment at which something really happens: entries that were left standing for
    /// what is done already are cleared away, so that an idle daemon sleeps.
    pub(super) fn first_clock(&mut self) -> Time {
        while let Some((at, due)) = self.deadlines.first() {
            let stale = match due {
                Due::Delay(queue) => self.rearm_delay(queue) != at,
                Due::Session(connection) => self.rearm_session(connection) != at,
                Due::Window(connection, queue) => self.rearm_window(connection, queue) != at,
                Due::Pause(_) | Due::Expire(_) => false,
            };
            if !stale {
                return at;
            }
        }
        Time::NEVER
    }

    fn end_delays(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        while let Some((due, _, slot)) = self.queues[queue].delayed.first().copied()
            && due <= turn.time()
            && self.budget > 0
        {
            self.budget -= 1;
            self.detach(slot);
            self.put_back(turn, slot);
        }
        self.rearm_delay(queue);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn rearm_delay(&mut self, slot: QueueSlot) -> Time {
        let queue = &mut self.queues[slot];
        let at = queue.delayed.first().map_or(Time::NEVER, |(due, ..)| *due);
        self.deadlines.rearm(&mut queue.delay_armed, at, Due::Delay(slot));
        at
    }

    fn end_pause(&mut self, turn: &mut Turn<'_>, slot: QueueSlot) {
        let queue = &mut self.queues[slot];
        self.deadlines.rearm(&mut queue.paused_until, Time::NEVER, Due::Pause(slot));
        queue.paused_until = Time(0);
        queue.pause_ms = 0;
        self.serve(turn, slot);
    }

    /// Makes sure that the session's clock rings in time.
    pub(super) fn arm_session(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let at = session.deadline();
        if at < session.armed {
            self.deadlines.rearm(&mut session.armed, at, Due::Session(connection));
        }
    }

    fn rearm_session(&mut self, connection: ConnectionId) -> Time {
        let session = self.sessions.get_mut(&connection).expect("ended sessions have no clock");
        let at = session.deadline();
        self.deadlines.rearm(&mut session.armed, at, Due::Session(connection));
        at
    }

    fn session_clock(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        // First what is over, so that after a pause of the process nobody hears that it is soon.
        if self.sessions[&connection].soonest <= turn.time() {
            self.time_out_reservations(turn, connection);
            self.refresh_soonest(connection);
        }
        let session = &self.sessions[&connection];
        if let Hold::Waiting(wait) = &session.hold
            && session.soonest > turn.time()
        {
            let reply = if deadline_is_soon(session.soonest, turn.time()) {
                Some(Reply::DeadlineSoon)
            } else {
                (wait.until <= turn.time()).then_some(Reply::TimedOut)
            };
            if let Some(reply) = reply {
                let wait = self.end_wait(connection).expect("it waits");
                turn.reply(connection, wait.tag, reply);
            }
        }
        self.rearm_session(connection);
    }

    /// Works out when the first reservation of a session really ends.
    pub(super) fn refresh_soonest(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let held = self.reservations.iter(&session.held, Of::Holder);
        session.soonest = held.map(|(_, held)| ends(held.terms)).min().unwrap_or(Time::NEVER);
    }

    fn time_out_reservations(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        let held = self.reservations.iter(&self.sessions[&connection].held, Of::Holder);
        let over: Vec<Slot> = held
            .filter(|(_, held)| ends(held.terms) <= turn.time())
            .map(|(_, held)| held.message)
            .take(self.budget + 1)
            .collect();
        self.budget = self.budget.saturating_sub(over.len());
        let mut queues: Vec<QueueSlot> = over.iter().map(|slot| self.queue_of(*slot)).collect();
        for slot in over {
            self.count_timeout(slot);
            self.detach(slot);
            self.put_back(turn, slot);
        }
        self.serve_all(turn, &mut queues);
    }

    fn count_timeout(&mut self, slot: Slot) {
        self.totals.timeouts += 1;
        self.messages.history_mut(slot).timeouts += 1;
        self.messages[slot].unsaved = true;
    }

    /// Serves each of these queues once.
    pub(super) fn serve_all(&mut self, turn: &mut Turn<'_>, queues: &mut Vec<QueueSlot>) {
        queues.sort_unstable();
        queues.dedup();
        for queue in queues.drain(..) {
            self.serve(turn, queue);
            self.drop_if_unneeded(turn, queue);
        }
    }

    fn rearm_window(&mut self, connection: ConnectionId, queue: QueueSlot) -> Time {
        let session = self.sessions.get_mut(&connection).expect("ended sessions have no windows");
        let ack_timeout_ms = session.ack_timeout_ms;
        let window = session.windows.get_mut(&queue).expect("ended windows have no clock");
        let at = window.deadline(ack_timeout_ms);
        self.deadlines.rearm(&mut window.armed, at, Due::Window(connection, queue));
        at
    }

    fn window_clock(
        &mut self,
        turn: &mut Turn<'_>,
        at: Time,
        connection: ConnectionId,
        queue: QueueSlot,
    ) {
        let window = &self.sessions[&connection].windows[&queue];
        let Some(first) = window.held.first() else {
            // Every place was lost to a time-out and the peer has not stirred since; or it has, and
            // after a pause of the process nobody has read that yet.
            if turn.time().since(at) < PAUSE_MS {
                let reason = "no acknowledgement within ack_timeout";
                turn.effects.push(Effect::Close(connection, reason));
            }
            let session = self.sessions.get_mut(&connection).expect("it has the window");
            session.windows.get_mut(&queue).expect("as above").clock_since = turn.time();
            self.rearm_window(connection, queue);
            return;
        };
        let slot = self.reservations[first].message;
        self.count_timeout(slot);
        self.take_back(turn, slot, Lost::PlaceStaysTaken);
        self.put_back(turn, slot);
        self.rearm_window(connection, queue);
        self.serve(turn, queue);
    }

    fn expiry_clock(&mut self, turn: &mut Turn<'_>, at: Time, slot: Slot) {
        self.deadlines.cancel(at, Due::Expire(slot));
        // What is in somebody's hands may still be acknowledged, and goes when it comes back; what
        // was flushed is cleared away by the flush.
        if matches!(self.messages[slot].state, State::Reserved(_)) || self.is_flushed(slot) {
            return;
        }
        self.expire(turn, slot);
    }

    /// The peer waits for nothing any more: answers a wait, so that what it sent behind it is
    /// done.
    pub(super) fn hang_up(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.hung_up = true;
        if let Some(wait) = self.end_wait(connection) {
            turn.reply(connection, wait.tag, Reply::TimedOut);
        }
    }

    /// Whether a message that the connection holds is in its last second.
    pub(super) fn has_deadline_soon(&mut self, now: Time, connection: ConnectionId) -> bool {
        let soon = |engine: &Engine| deadline_is_soon(engine.sessions[&connection].soonest, now);
        // The bound is cheap and never late; only when it says yes it must be made exact.
        soon(self) && {
            self.refresh_soonest(connection);
            soon(self)
        }
    }
}

fn ends(terms: Terms) -> Time {
    match terms {
        Terms::Until(until) => until,
        Terms::Window { .. } => Time::NEVER,
    }
}

fn deadline_is_soon(soonest: Time, now: Time) -> bool {
    soonest != Time::NEVER && soonest <= now.plus(SAFETY_MARGIN_MS)
}
