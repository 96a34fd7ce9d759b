//! What happens by itself: delays that end, reservations that time out, waits, pauses, expiries.

use crate::words::cause::Cause;
use crate::words::clock::Time;
use crate::words::command::Reply;
use crate::words::limits::PAUSE_MS;

use super::state::deadlines::Due;
use super::state::message::Slot;
use super::state::queue::QueueSlot;
use super::state::reservation::Of;
use super::state::session::{Hold, SAFETY_MARGIN_MS, SessionSlot};
use super::state::subscription::SubscriptionSlot;
use super::{Effect, Engine, Turn};

impl Engine {
    /// Does what is due, as far as this turn's budget goes.
    pub(super) fn run_clocks(&mut self, turn: &mut Turn<'_>) {
        while self.budget > 0
            && let Some((at, due)) = self.ledger.first_deadline()
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
                Due::Session(_, who) => self.session_clock(turn, who),
                Due::Window(subscription) => self.window_clock(turn, at, subscription),
                Due::Expire(slot) => self.expiry_clock(turn, at, slot),
                Due::Key(key) => {
                    let queue = self.ledger.free_key(turn, key);
                    self.drop_if_unneeded(turn, queue);
                }
            }
        }
    }

    /// When it really happens; the entry is moved there.
    fn true_time(&mut self, due: Due) -> Time {
        match due {
            Due::Session(_, who) => drop(self.ledger.refresh_soonest(who)),
            Due::Window(subscription) => self.ledger.refresh_window(subscription),
            _ => {}
        }
        self.ledger.rearm(due)
    }

    /// The first moment at which something really happens: entries that were left standing for
    /// what is done already are cleared away, so that an idle daemon sleeps.
    pub(super) fn first_clock(&mut self) -> Time {
        while let Some((at, due)) = self.ledger.first_deadline() {
            let exact = matches!(due, Due::Pause(_) | Due::Expire(_) | Due::Key(_));
            if exact || self.ledger.rearm(due) == at {
                return at;
            }
        }
        Time::NEVER
    }

    fn end_delays(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        while let Some((due, _, slot)) = self.ledger.queue(queue).delayed.first().copied()
            && due <= turn.time()
            && self.budget > 0
        {
            self.budget -= 1;
            self.give_back(turn, slot, Cause::Due);
        }
        self.ledger.rearm_delay(queue);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn end_pause(&mut self, turn: &mut Turn<'_>, slot: QueueSlot) {
        self.ledger.pause_queue(slot, Time(0), 0);
        self.serve(turn, slot);
    }

    fn session_clock(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        // First what is over, so that after a pause of the process nobody hears that it is soon.
        if self.ledger.session(who).soonest <= turn.time() {
            self.time_out_reservations(turn, who);
            self.ledger.refresh_soonest(who);
        }
        let session = self.ledger.session(who);
        if let Hold::Waiting(wait) = &session.hold
            && session.soonest > turn.time()
        {
            let reply = if deadline_is_soon(session.soonest, turn.time()) {
                Some(Reply::DeadlineSoon)
            } else {
                (wait.until <= turn.time()).then_some(Reply::TimedOut)
            };
            if let Some(reply) = reply
                && let Some((asker, from, _)) = self.end_wait(who)
            {
                turn.reply(asker, reply);
                self.end_if_once(turn, from);
            }
        }
        self.ledger.rearm_session(who);
    }

    fn time_out_reservations(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        let held = self.ledger.reservations().iter(&self.ledger.session(who).held, Of::Holder);
        let over: Vec<Slot> = held
            .filter(|(_, held)| held.ends() <= turn.time())
            .map(|(_, held)| held.message)
            .take(self.budget + 1)
            .collect();
        self.budget = self.budget.saturating_sub(over.len());
        let mut queues: Vec<QueueSlot> =
            over.iter().map(|slot| self.ledger.queue_of(*slot)).collect();
        for slot in over {
            self.count_timeout(slot);
            self.give_back(turn, slot, Cause::TimedOut);
        }
        self.serve_all(turn, &mut queues);
    }

    fn count_timeout(&mut self, slot: Slot) {
        self.totals.timeouts += 1;
        self.ledger.history_mut(slot).timeouts += 1;
        self.ledger.mark_unsaved(slot);
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

    fn window_clock(&mut self, turn: &mut Turn<'_>, at: Time, through: SubscriptionSlot) {
        let subscription = self.ledger.subscription(through);
        if !subscription.has_one_clock() {
            return self.time_out_of_window(turn, through);
        }
        let Some(first) = subscription.held.first() else {
            // Every place was lost to a time-out and the peer has not stirred since; or it has, and
            // after a pause of the process nobody has read that yet.
            if turn.time().since(at) < PAUSE_MS {
                let connection = self.ledger.session(subscription.session).connection;
                let reason = "no acknowledgement within ack_timeout";
                turn.effects.push(Effect::Close(connection, reason));
            }
            return self.ledger.restart_window_clock(turn.time(), through);
        };
        let slot = self.ledger.reservations()[first].message;
        let queue = self.ledger.queue_of(slot);
        self.count_timeout(slot);
        self.give_back(turn, slot, Cause::AckTimeout);
        self.ledger.rearm_window(through);
        self.serve(turn, queue);
    }

    /// Takes back what is out through a window for longer than it may be, each at its own time.
    fn time_out_of_window(&mut self, turn: &mut Turn<'_>, through: SubscriptionSlot) {
        let held = &self.ledger.subscription(through).held;
        let held = self.ledger.reservations().iter(held, Of::Holder);
        let over = held.filter(|(_, held)| held.ends() <= turn.time());
        let over: Vec<Slot> = over.map(|(_, held)| held.message).take(self.budget + 1).collect();
        self.budget = self.budget.saturating_sub(over.len());
        let mut queues: Vec<QueueSlot> =
            over.iter().map(|slot| self.ledger.queue_of(*slot)).collect();
        for slot in over {
            self.count_timeout(slot);
            self.give_back(turn, slot, Cause::TimedOut);
        }
        self.ledger.refresh_window(through);
        self.ledger.rearm_window(through);
        self.serve_all(turn, &mut queues);
    }

    fn expiry_clock(&mut self, turn: &mut Turn<'_>, at: Time, slot: Slot) {
        self.ledger.end_life_clock(at, slot);
        // What is in somebody's hands may still be acknowledged, and goes when it comes back; what
        // was flushed is cleared away by the flush.
        if self.ledger.is_reserved(slot) || self.ledger.is_flushed(slot) {
            return;
        }
        self.expire(turn, slot);
    }

    /// The peer waits for nothing any more: answers a wait, so that what it sent behind it is
    /// done.
    pub(super) fn hang_up(&mut self, turn: &mut Turn<'_>, who: SessionSlot) {
        self.ledger.dialogue(who).hung_up = true;
        if let Some((asker, from, _)) = self.end_wait(who) {
            turn.reply(asker, Reply::TimedOut);
            self.end_if_once(turn, from);
        }
    }

    /// Whether a message that the session holds is in its last second.
    pub(super) fn has_deadline_soon(&mut self, now: Time, who: SessionSlot) -> bool {
        // The bound is cheap and never late; only when it says yes it must be made exact.
        deadline_is_soon(self.ledger.session(who).soonest, now)
            && deadline_is_soon(self.ledger.refresh_soonest(who), now)
    }
}

fn deadline_is_soon(soonest: Time, now: Time) -> bool {
    soonest != Time::NEVER && soonest <= now.plus(SAFETY_MARGIN_MS)
}
