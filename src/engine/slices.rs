//! Large things, done a slice of at most 1,000 units a turn, so that nobody else waits for them:
//! flushes, mass kicks, the end of a connection that held much, looks at all queues.
//!
//! What a work is about is detached at once; its answer leaves after the last slice. The first
//! slice is done where the work begins, so small ones are done at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::words::cause::Cause;
use crate::words::clock::Time;
use crate::words::command::Reply;
use crate::words::ids::{QueueName, Sequence};
use crate::words::pattern::matches;
use crate::words::statistics::{QueueSummary, Survey};

use super::give_back::Kick;
use super::ledger::{Flushed, Lost};
use super::pages::Search;
use super::state::message::Slot;
use super::state::queue::{Queue, QueueSlot};
use super::state::reservation::Of;
use super::state::session::{Hold, Keyed, Portion, SessionSlot};
use super::state::subscription::SubscriptionSlot;
use super::{Asker, Engine, Turn};

/// Queues that a flush of all of them empties at a time.
const QUEUES_AT_ONCE: usize = 100;

/// A large work under way.
#[derive(Debug)]
pub(super) enum Work {
    /// Clear away what was flushed, then flush the queues from the slot `next` on.
    Flush { asker: Asker, queues: Vec<Flushed>, next: Option<QueueSlot>, count: u64 },
    /// Bring back so many dead letters, else buried, else delayed messages.
    Kick { asker: Asker, queue: QueueSlot, from: Kicked, left: u64, count: u64 },
    /// Give back what a window has out of a queue, and take the queue out of the subscription.
    Unsubscribe { asker: Asker, slot: SubscriptionSlot, queue: QueueSlot },
    /// Give back what an ended session holds, and let go what it refers to.
    EndSession { session: SessionSlot, subscriptions: Vec<SubscriptionSlot> },
    /// Go on serving a queue at whose head many messages had expired.
    Serve(QueueSlot),
    /// Go on looking for a message where many had expired.
    Reserve { asker: Asker, from: SubscriptionSlot, until: Time, portion: Portion },
    /// Look for the fullest queues from this slot on.
    Survey { asker: Asker, next: QueueSlot, pattern: Option<Box<str>>, lines: usize, found: Found },
    /// Look for a page of queues, from this slot on.
    Page { asker: Asker, next: QueueSlot, search: Box<Search> },
    /// Collect the names of all queues, from this place in their order on.
    Names { asker: Asker, next: usize, names: Vec<QueueName> },
}

/// Which messages a kick brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kicked {
    /// Those whose places are this one or later.
    DeadLetters {
        from: u64,
    },
    Buried,
    Delayed,
}

/// The fullest queues found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    best: BTreeMap<(Reverse<u64>, QueueName), QueueSummary>,
    matching: u64,
}

/// Whether a work is done, or has a slice left.
pub(super) enum Slice {
    Done,
    Left(Work),
}

impl Engine {
    /// Begins a work: its first slice is done at once.
    pub(super) fn begin_work(&mut self, turn: &mut Turn<'_>, work: Work) {
        if let Slice::Left(work) = self.slice(turn, work) {
            self.go_on_later(work);
        }
    }

    pub(super) fn go_on_later(&mut self, work: Work) {
        if let Some(asker) = work.asker() {
            let who = asker.session;
            self.ledger.set_hold(who, Hold::Working);
        }
        self.works.push_back(work);
    }

    /// Does the next slices, one work after the other.
    pub(super) fn run_works(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..self.works.len() {
            if self.budget == 0 {
                return;
            }
            let Some(work) = self.works.pop_front() else { return };
            // Its asker is free meanwhile: the last slice may leave it with another hold, as when
            // it waits for a message from then on.
            if let Some(asker) = work.asker() {
                let who = asker.session;
                self.set_free(who);
            }
            if let Slice::Left(work) = self.slice(turn, work) {
                self.go_on_later(work);
            }
        }
    }

    fn slice(&mut self, turn: &mut Turn<'_>, work: Work) -> Slice {
        match work {
            Work::Flush { asker, queues, next, count } => {
                self.flush_slice(turn, asker, queues, (next, count))
            }
            Work::Kick { asker, queue, from, left, count } => {
                self.kick_slice(turn, asker, queue, from, (left, count))
            }
            Work::Unsubscribe { asker, slot, queue } => {
                self.unsubscribe_slice(turn, asker, slot, queue)
            }
            Work::EndSession { session, subscriptions } => {
                self.end_session_slice(turn, session, subscriptions)
            }
            Work::Serve(queue) => {
                if self.ledger.queues().get(queue).is_some() {
                    self.ledger.set_to_be_served(queue, false);
                    self.serve(turn, queue);
                }
                Slice::Done
            }
            Work::Reserve { asker, from, until, portion } => {
                self.reserve_slice(turn, asker, from, (until, portion))
            }
            Work::Survey { asker, next, pattern, lines, found } => {
                self.survey_slice(turn, asker, next, (pattern, lines), found)
            }
            Work::Page { asker, next, search } => self.page_slice(turn, asker, next, search),
            Work::Names { asker, next, names } => self.names_slice(turn, asker, next, names),
        }
    }

    /// Takes everything out of a queue at once; the slices clear it away.
    pub(super) fn detach_all(&mut self, queue: QueueSlot) -> Flushed {
        self.ledger.detach_all(queue, Sequence(self.ids.next - 1))
    }

    fn flush_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        mut queues: Vec<Flushed>,
        (mut next, mut count): (Option<QueueSlot>, u64),
    ) -> Slice {
        loop {
            if queues.is_empty() {
                queues = self.detach_some(&mut next);
            }
            let Some(flushed) = queues.last_mut() else { break };
            if !self.clear_flushed(turn, flushed) {
                return Slice::Left(Work::Flush { asker, queues, next, count });
            }
            let queue = flushed.queue;
            count += flushed.count;
            queues.pop();
            self.ledger.end_work_on(queue);
            self.drop_if_unneeded(turn, queue);
            self.budget = self.budget.saturating_sub(1);
        }
        turn.reply(asker, Reply::Flushed(count));
        Slice::Done
    }

    /// Takes everything out of the next queues of a flush of all of them.
    fn detach_some(&mut self, next: &mut Option<QueueSlot>) -> Vec<Flushed> {
        let Some(from) = next.take() else { return Vec::new() };
        let slots: Vec<QueueSlot> = self
            .ledger
            .queues()
            .iter_from(from)
            .take(QUEUES_AT_ONCE)
            .map(|(slot, _)| slot)
            .collect();
        *next = slots.last().map(|last| last + 1);
        slots.into_iter().map(|slot| self.detach_all(slot)).collect()
    }

    /// Clears away what the budget allows; says whether that was all.
    fn clear_flushed(&mut self, turn: &mut Turn<'_>, flushed: &mut Flushed) -> bool {
        while self.budget > 0 {
            let detached = match flushed.pop() {
                Some(detached) => detached,
                None => match self.ledger.first_flushed_in_hand(flushed.queue) {
                    Some(slot) => self.ledger.take_back(turn.time(), slot, Lost::PlaceStaysTaken),
                    None => return true,
                },
            };
            self.budget -= 1;
            self.ledger.forget(turn, detached);
        }
        false
    }

    fn kick_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        queue: QueueSlot,
        mut from: Kicked,
        (mut left, mut count): (u64, u64),
    ) -> Slice {
        while left > 0 && self.budget > 0 {
            let here = &self.ledger.queue(queue);
            let next = match &mut from {
                Kicked::DeadLetters { from } => {
                    self.ledger.next_dead_letter(queue, *from).map(|(place, slot)| {
                        *from = place + 1;
                        slot
                    })
                }
                Kicked::Buried => here.buried.first_key_value().map(|(_, slot)| *slot),
                Kicked::Delayed => here.delayed.first().map(|(_, _, slot)| *slot),
            };
            let Some(slot) = next else {
                left = 0;
                break;
            };
            self.budget -= 1;
            let Kick::Done(home) = self.kick(turn, slot) else {
                left = 0;
                break;
            };
            (left, count) = (left - 1, count + 1);
            // Served after each message and not once at the end: a consumer that waits gets the
            // message that was kicked first, not the one that is first in the queue's order.
            self.serve(turn, home.unwrap_or(queue));
        }
        if left > 0 {
            return Slice::Left(Work::Kick { asker, queue, from, left, count });
        }
        self.ledger.end_work_on(queue);
        self.drop_if_unneeded(turn, queue);
        turn.reply(asker, Reply::Kicked(count));
        Slice::Done
    }

    fn unsubscribe_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        through: SubscriptionSlot,
        queue: QueueSlot,
    ) -> Slice {
        self.ledger.begin_leaving(through, queue);
        while self.budget > 0
            && let Some(slot) = self.first_out(through, queue)
        {
            self.budget -= 1;
            self.give_back(turn, slot, Cause::SubscriptionEnded);
        }
        if self.first_out(through, queue).is_some() {
            self.serve(turn, queue);
            return Slice::Left(Work::Unsubscribe { asker, slot: through, queue });
        }
        self.serve(turn, queue);
        let subscription = self.ledger.subscription(through);
        let is_answered = !matches!(subscription.key, Keyed::Queue(_));
        let count = subscription.queues.len() - 1;
        self.say_subscribed(turn, asker, is_answered, count);
        self.leave(turn, through, queue);
        Slice::Done
    }

    /// The oldest message of a queue that is out through a window.
    fn first_out(&self, through: SubscriptionSlot, queue: QueueSlot) -> Option<Slot> {
        let held = &self.ledger.subscription(through).held;
        let out = self.ledger.reservations().iter(held, Of::Holder);
        out.map(|(_, held)| held.message).find(|slot| self.ledger.queue_of(*slot) == queue)
    }

    fn survey_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        next: QueueSlot,
        (pattern, lines): (Option<Box<str>>, usize),
        mut found: Found,
    ) -> Slice {
        let (most, mut seen, mut after) = (self.budget.max(1), 0, next);
        for (slot, queue) in self.ledger.queues().iter_from(next).take(most) {
            (seen, after) = (seen + 1, slot + 1);
            if pattern.as_deref().is_none_or(|p| matches(p, queue.name.as_str())) {
                found.add(queue, lines);
            }
        }
        self.budget = self.budget.saturating_sub(seen);
        if seen == most {
            return Slice::Left(Work::Survey { asker, next: after, pattern, lines, found });
        }
        let survey = Survey {
            more: found.matching - found.best.len() as u64,
            queues: found.best.into_values().collect(),
            queues_total: self.ledger.queues().len() as u64,
            connections: self.ledger.sessions().len() as u64,
            messages: self.ledger.counts().messages,
            draining: self.refuse_puts == Some(crate::words::refusal::Refusal::Draining),
            refused: self.refuse_puts,
            ..Survey::default()
        };
        turn.reply(asker, Reply::Survey(Box::new(survey)));
        Slice::Done
    }

    fn names_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        next: usize,
        mut names: Vec<QueueName>,
    ) -> Slice {
        let (most, before) = (self.budget.max(1), names.len());
        names.extend(
            self.ledger.queues().listed_from(next).take(most).map(|queue| queue.name.clone()),
        );
        let seen = names.len() - before;
        self.budget = self.budget.saturating_sub(seen);
        if seen == most {
            return Slice::Left(Work::Names { asker, next: next + seen, names });
        }
        turn.reply(asker, Reply::Queues(names));
        Slice::Done
    }

    /// A queue has gone. The one that takes its place, where a list that is being made has been
    /// already, would be missing in that.
    pub(super) fn keep_in_lists(&mut self, gone: &Queue) {
        let Some((moved, from)) = self.ledger.queues().moved_up(gone) else { return };
        for work in &mut self.works {
            if let Work::Names { next, names, .. } = work
                && (gone.place as usize) < *next
                && *next <= from
            {
                names.push(moved.name.clone());
            }
        }
    }
}

impl Found {
    fn add(&mut self, queue: &Queue, lines_max: usize) {
        self.matching += 1;
        let messages = queue.counts();
        let (name, body_bytes) = (queue.name.clone(), queue.body_bytes);
        let key = (Reverse(messages.total()), name.clone());
        self.best.insert(key, QueueSummary { name, messages, body_bytes });
        if self.best.len() > lines_max {
            self.best.pop_last();
        }
    }
}

impl Work {
    /// Who waits for its answer.
    pub(super) fn asker(&self) -> Option<&Asker> {
        match self {
            Work::Flush { asker, .. }
            | Work::Kick { asker, .. }
            | Work::Unsubscribe { asker, .. }
            | Work::Reserve { asker, .. }
            | Work::Survey { asker, .. }
            | Work::Page { asker, .. }
            | Work::Names { asker, .. } => Some(asker),
            Work::EndSession { .. } | Work::Serve(_) => None,
        }
    }

    /// The queues whose `works` it counts in.
    #[cfg(test)]
    pub(super) fn queues(&self) -> Vec<QueueSlot> {
        match self {
            Work::Flush { queues, .. } => queues.iter().map(|flushed| flushed.queue).collect(),
            Work::Kick { queue, .. } => vec![*queue],
            _ => Vec::new(),
        }
    }
}
