//! The model: how messages come back, and what policies make of that.

use crate::words::cause::Cause;
use crate::words::ids::QueueName;
use crate::words::statistics::Failures;

use super::{At, Model, NEVER};

/// Where a dead letter came from.
#[derive(Clone, Debug)]
pub struct Home {
    pub queue: QueueName,
    pub seq: u64,
    /// Its place among the dead letters.
    pub order: u64,
    pub life: u64,
}

impl super::Message {
    /// Notes a failed attempt.
    fn note(&mut self, cause: Cause) {
        self.failures.attempts += 1;
        self.failures.cause = Some(cause);
        if cause != Cause::Failed {
            self.failures.reason = None;
        }
    }
}

impl Model {
    /// A message that is in nobody's hands any more goes back.
    pub(super) fn put_back(&mut self, id: u64, cause: Cause, in_work: bool) {
        let now = self.now;
        self.returns.add(cause);
        let mut delay = 0;
        let message = self.message(id);
        if message.expires <= now && cause != Cause::Rejected {
            self.expired += 1;
            return self.forget(id);
        }
        if let Cause::Released { priority, delay_ms } = cause {
            message.pri = priority.unwrap_or(message.pri);
            delay = delay_ms;
        }
        let queue = message.queue.clone();
        let counts = cause.is_failed_attempt(in_work);
        let policy = self.policies.iter().find(|policy| policy.queues.matches(queue.as_str()));
        if let Some(policy) = policy.filter(|_| counts).cloned() {
            let message = self.message(id);
            message.note(cause);
            let attempts = message.failures.attempts;
            if cause == Cause::Rejected || policy.is_exhausted(attempts) {
                self.set_aside += 1;
                return self.set_aside(id, policy.dead_letter);
            }
            let backoff = policy.delay_ms(crate::words::ids::MessageId(id), attempts);
            if backoff > delay {
                self.message(id).delay = backoff;
            }
            delay = delay.max(backoff);
        } else if cause == Cause::Rejected {
            return self.set_aside(id, None);
        } else if cause == Cause::Failed {
            self.message(id).note(cause);
        }
        self.message(id).at = if delay > 0 { At::Delayed(now + delay) } else { At::Ready };
    }

    pub fn set_aside(&mut self, id: u64, queue: Option<QueueName>) {
        let (now, order) = (self.now, self.stamp());
        self.message(id).counters.buries += 1;
        let target = queue.and_then(|name| self.queue(&name));
        let target = target.filter(|target| *target != self.message(id).queue);
        let seq = self.next_id;
        let message = self.message(id);
        let life =
            if message.expires == NEVER { NEVER } else { message.expires.saturating_sub(now) };
        let Some(target) = target else {
            message.expires = life;
            message.at = At::Buried(order);
            return;
        };
        let home = Home { queue: message.queue.clone(), seq: message.seq, order, life };
        message.failures.origin = Some(message.home.as_ref().unwrap_or(&home).queue.clone());
        message.home.get_or_insert(home);
        (message.queue, message.seq) = (target.clone(), seq);
        (message.at, message.expires) = (At::Ready, NEVER);
        self.next_id += 1;
        self.dead_lettered += 1;
        self.serve(&target);
    }

    /// Lets a message go that was set aside when its time was over: nobody would get it where it
    /// came from.
    fn was_over(&mut self, id: u64) -> bool {
        let life = self.find(id).and_then(|message| Some(message.home.as_ref()?.life));
        life == Some(0) && self.let_go_if(id, true) || self.is_over(id)
    }
    /// The same for one that is where it came from.
    pub(super) fn is_over(&mut self, id: u64) -> bool {
        let over = self.find(id).is_some_and(|message| message.expires == 0);
        self.let_go_if(id, over)
    }
    fn let_go_if(&mut self, id: u64, over: bool) -> bool {
        if over {
            self.expired += 1;
            self.forget(id);
        }
        over
    }

    /// Makes a message ready; the queue that it is in is still to be served.
    pub(super) fn kick(&mut self, id: u64) -> Option<QueueName> {
        if self.was_over(id) {
            return None;
        }
        self.start_clock(id);
        let (now, next) = (self.now, self.next_id);
        if let Some(home) = self.message(id).home.take() {
            let flushed = home.seq <= self.queues[&home.queue].flushed_through;
            self.next_id += u64::from(flushed);
            let message = self.message(id);
            message.seq = if flushed { next } else { home.seq };
            message.queue = home.queue;
            message.expires = home.life.saturating_add(now);
        }
        let message = self.message(id);
        message.failures = Failures::default();
        message.counters.kicks += 1;
        let queue = message.queue.clone();
        self.put_back(id, Cause::Kicked, false);
        Some(queue)
    }

    /// The dead letters of a queue in their order that nobody holds.
    pub(super) fn dead_letters(&self, queue: &QueueName) -> Vec<u64> {
        let here = self.messages.iter().filter(|m| m.queue == *queue);
        let free = here.filter(|m| !matches!(m.at, At::Reserved(_)));
        let mut dead: Vec<(u64, u64)> =
            free.filter_map(|m| Some((m.home.as_ref()?.order, m.id))).collect();
        dead.sort_unstable();
        dead.into_iter().map(|(_, id)| id).collect()
    }
}
