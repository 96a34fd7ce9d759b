//! The way back of a message, out of its holder's hands or from where it waited or lay aside.
//!
//! Every return goes through [`Engine::give_back`], which is told why. Without a policy a message is
//! ready at its old place, or delayed or buried if its holder said so. The policy of its queue
//! decides what else a failed attempt leads to:
//!
//! ```text
//!   failed attempt ─┬─ attempts left ──────────► delayed by the back-off, ready where there is none
//!                   └─ none left, or rejected ─┬─► moved to the dead-letter queue, ready there
//!                                              └─► buried, where no such queue is named
//!   any other cause ───► ready at its old place; kicked: ready in the queue that it came from
//! ```

use std::sync::Arc;

use crate::words::cause::Cause;
use crate::words::clock::Time;
use crate::words::ids::{QueueName, Sequence};
use crate::words::policy::Policies;

use super::ledger::{Detached, Lost};
use super::state::message::{Slot, State};
use super::state::queue::{PolicyMatch, QueueSlot};
use super::{Engine, Turn};

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It is ready at its place.
    Ready,
    /// It is delayed.
    Delayed,
    /// It is set aside: buried, or in its dead-letter queue.
    Aside,
    /// It had expired, or its queue was flushed, and is gone.
    Gone,
}

/// What a policy makes of a return.
enum Verdict {
    /// The message waits for so many milliseconds.
    Wait(u64),
    /// It is set aside: in this queue, or buried in its own.
    SetAside(Option<QueueName>),
}

/// The policies, and the number of their generation: after a reload queues are matched anew.
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    policies: Arc<Policies>,
    generation: u32,
}

impl PolicyTable {
    pub fn replace(&mut self, policies: Arc<Policies>) {
        self.policies = policies;
        // 0 is the generation of queues that were never matched.
        self.generation = self.generation.wrapping_add(1).max(1);
    }
}

impl Engine {
    /// Gives a message back for this cause. The caller serves the queue that it was in.
    pub(super) fn give_back(&mut self, turn: &mut Turn<'_>, slot: Slot, cause: Cause) -> Return {
        let was_in_work = self.ledger.is_in_work(slot);
        let lost = match cause {
            // The peer still has the message; where it came without a window, there is no place.
            Cause::AckTimeout | Cause::TimedOut => Lost::PlaceStaysTaken,
            _ => Lost::PlaceIsFree,
        };
        let detached = self.ledger.take_back(turn.time(), slot, lost);
        self.place_returned(turn, detached, cause, was_in_work)
    }

    /// Places a message that was taken back.
    pub(super) fn place_returned(
        &mut self,
        turn: &mut Turn<'_>,
        detached: Detached,
        cause: Cause,
        was_in_work: bool,
    ) -> Return {
        let slot = detached.slot();
        self.totals.returns.add(cause);
        let is_flushed = self.ledger.is_flushed(slot);
        // What is set aside is kept whatever its time to live.
        let is_over = cause != Cause::Rejected && self.ledger.message(slot).expires <= turn.time();
        if is_flushed || is_over {
            self.totals.messages_expired += u64::from(!is_flushed);
            self.ledger.forget(turn, detached);
            return Return::Gone;
        }
        let mut asked_ms = 0;
        if let Cause::Released { priority, delay_ms } = cause {
            asked_ms = delay_ms;
            if let Some(priority) = priority {
                self.ledger.set_priority(&detached, priority);
            }
        }
        match self.judge(turn.time(), &detached, cause, was_in_work) {
            Verdict::SetAside(queue) => {
                self.set_aside(turn, detached, queue);
                Return::Aside
            }
            Verdict::Wait(backoff_ms) => {
                if backoff_ms > asked_ms {
                    self.ledger.history_mut(slot).delay_ms = backoff_ms;
                }
                self.place_after(turn, detached, cause, asked_ms.max(backoff_ms))
            }
        }
    }

    fn place_after(
        &mut self,
        turn: &mut Turn<'_>,
        detached: Detached,
        cause: Cause,
        delay_ms: u64,
    ) -> Return {
        let slot = detached.slot();
        if delay_ms > 0 {
            self.ledger.place_delayed(detached, turn.time().plus(delay_ms));
            self.ledger.save(turn, slot);
            return Return::Delayed;
        }
        self.ledger.place_ready(detached);
        // The others are ready after a restart without being written down.
        if matches!(cause, Cause::Released { .. } | Cause::Failed | Cause::Kicked) {
            self.ledger.save(turn, slot);
        }
        Return::Ready
    }

    /// Notes a failed attempt, where a policy applies or its holder says so, and tells what follows from it.
    fn judge(
        &mut self,
        now: Time,
        detached: &Detached,
        cause: Cause,
        was_in_work: bool,
    ) -> Verdict {
        if cause == Cause::Kicked {
            self.ledger.forget_attempts(detached);
        }
        let slot = detached.slot();
        let failed = cause.is_failed_attempt(was_in_work);
        let policy = if failed { self.policy_of(self.ledger.queue_of(slot)) } else { None };
        let Some(place) = policy else {
            if cause == Cause::Failed {
                self.ledger.note_failure(now, detached, cause);
            }
            return match cause {
                Cause::Rejected => Verdict::SetAside(None),
                _ => Verdict::Wait(0),
            };
        };
        let policies = Arc::clone(&self.policies.policies);
        let policy = policies.get(place).expect("matched against this generation of policies");
        let attempts = self.ledger.note_failure(now, detached, cause);
        if cause == Cause::Rejected || policy.is_exhausted(attempts) {
            self.totals.messages_set_aside += 1;
            return Verdict::SetAside(policy.dead_letter.clone());
        }
        Verdict::Wait(policy.delay_ms(self.ledger.message(slot).id, attempts))
    }

    /// The place of the policy that applies to a queue, if one does.
    fn policy_of(&mut self, queue: QueueSlot) -> Option<usize> {
        let PolicyTable { policies, generation } = &self.policies;
        if policies.is_empty() {
            return None;
        }
        let here = self.ledger.queue(queue);
        if here.policy.generation == *generation {
            return here.policy.place.map(usize::from);
        }
        let place = policies.find(&here.name);
        let matched = PolicyMatch {
            generation: *generation,
            place: place.and_then(|place| u16::try_from(place).ok()),
        };
        self.ledger.match_policy(queue, matched);
        place
    }

    /// Sets a message aside: moves it to this queue and serves that, or buries it where it is. It
    /// is buried too where it is in its dead-letter queue already, and where the move is impossible:
    /// there are too many queues, or the database has reserved no ids to draw a place from.
    fn set_aside(&mut self, turn: &mut Turn<'_>, detached: Detached, queue: Option<QueueName>) {
        let slot = detached.slot();
        let here = self.ledger.queue_of(slot);
        let target = queue.and_then(|name| self.queue(&name)).filter(|target| *target != here);
        let place = target.and_then(|target| Some((target, self.draw_id(turn).map(Sequence)?)));
        self.ledger.history_mut(slot).buries += 1;
        match place {
            Some((target, sequence)) => {
                self.totals.messages_dead_lettered += 1;
                if !self.ledger.is_volatile(slot) {
                    // The database has it under that queue's number.
                    self.queue_id(turn, target);
                }
                self.ledger.move_aside(turn.time(), &detached, target, sequence);
                self.ledger.place_ready(detached);
                self.ledger.save(turn, slot);
                self.serve(turn, target);
            }
            None => {
                self.ledger.place_buried(turn.time(), detached);
                self.ledger.save(turn, slot);
                if let Some(target) = target {
                    self.drop_if_unneeded(turn, target);
                }
            }
        }
    }

    /// Makes a message ready that was set aside or delayed: a dead letter in the queue that it came
    /// from, any other where it is. That queue is still to be served. One whose time was over before
    /// it was set aside is not brought back: nobody would get it.
    pub(super) fn kick(&mut self, turn: &mut Turn<'_>, slot: Slot) -> Kick {
        if self.ledger.is_over(turn.time(), slot) || self.ledger.was_over_at_home(slot) {
            self.expire(turn, slot);
            return Kick::Done(None);
        }
        let mut sequence = None;
        if self.ledger.has_lost_its_place(slot) {
            sequence = self.draw_id(turn).map(Sequence);
            if sequence.is_none() {
                return Kick::NoPlace;
            }
        }
        let was_buried = matches!(self.ledger.message(slot).state, State::Buried(_));
        let detached = self.ledger.detach(slot);
        let home = self.ledger.move_home(turn.time(), &detached, sequence);
        if was_buried && home.is_none() {
            self.ledger.restart_clock(turn.time(), &detached);
        }
        self.ledger.history_mut(slot).kicks += 1;
        self.place_returned(turn, detached, Cause::Kicked, false);
        Kick::Done(home)
    }

    /// Removes a message whose time to live is over and that nobody holds.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let queue = self.ledger.queue_of(slot);
        self.totals.messages_expired += 1;
        let detached = self.ledger.detach(slot);
        self.ledger.forget(turn, detached);
        self.drop_if_unneeded(turn, queue);
    }
}

/// What became of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// It is done: in this queue, if that is another one than the message was in.
    Done(Option<QueueSlot>),
    /// The message's old place was flushed, and the database has reserved no ids for a new one.
    NoPlace,
}
