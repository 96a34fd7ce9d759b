//! Pages of queues: the first of those that are wanted, in an order that is wanted, found a slice at
//! a time.
//!
//! Nothing is kept from page to page: whoever wants the next one says where the last one ended. So
//! it does not matter what comes and goes in between, or whether anybody asks again.

use std::collections::BTreeSet;

use crate::words::command::Reply;
use crate::words::ids::QueueName;
use crate::words::limits::LISTING_LINES_MAX;
use crate::words::pattern::matches;
use crate::words::statistics::{QueueOrder, QueuePage, QueuePlace, QueueSelection};

use super::slices::{Slice, Work};
use super::state::queue::{Queue, QueueSlot};
use super::{Asker, Engine, Turn};

/// A page under way.
#[derive(Debug)]
pub(super) struct Search {
    wanted: QueueSelection,
    count: usize,
    /// The first ones so far.
    best: BTreeSet<(u64, QueueName)>,
    /// Whether there are more.
    more: bool,
}

impl Search {
    pub fn new(wanted: QueueSelection) -> Search {
        let count = wanted.count.clamp(1, LISTING_LINES_MAX);
        Search { wanted, count, best: BTreeSet::new(), more: false }
    }

    /// Takes a queue whose place is this.
    fn add(&mut self, key: u64, name: &QueueName) {
        let is_behind = |(other, last): &(u64, QueueName)| (key, name) > (*other, last);
        let is_shown = |after: &QueuePlace| (key, name) <= (after.key, &after.name);
        if self.wanted.after.as_ref().is_some_and(is_shown) {
            return;
        }
        if self.best.len() < self.count {
            self.best.insert((key, name.clone()));
            return;
        }
        self.more = true;
        if !self.best.last().is_some_and(is_behind) {
            self.best.insert((key, name.clone()));
            self.best.pop_last();
        }
    }
}

impl Engine {
    pub(super) fn page_slice(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        next: QueueSlot,
        mut search: Box<Search>,
    ) -> Slice {
        let (most, mut seen, mut after) = (self.budget.max(1), 0, next);
        for (slot, queue) in self.ledger.queues().iter_from(next).take(most) {
            (seen, after) = (seen + 1, slot + 1);
            if is_wanted(&search.wanted, queue) {
                search.add(self.key(turn, search.wanted.order, queue), &queue.name);
            }
        }
        self.budget = self.budget.saturating_sub(seen);
        if seen == most {
            return Slice::Left(Work::Page { asker, next: after, search });
        }
        let Search { best, more, .. } = *search;
        let last = best.last().filter(|_| more);
        let last = last.map(|(key, name)| QueuePlace { key: *key, name: name.clone() });
        // What has gone since it was seen is left out.
        let slots = best.iter().filter_map(|(_, name)| self.ledger.queues().find(name));
        let queues = slots.map(|slot| self.figures_of_queue(turn.now, slot)).collect();
        turn.reply(asker, Reply::QueuePage(Box::new(QueuePage { queues, next: last })));
        Slice::Done
    }

    /// What a queue is put in order by: the smallest first, and then by name.
    fn key(&self, turn: &Turn<'_>, order: QueueOrder, queue: &Queue) -> u64 {
        let counts = queue.counts();
        let most_first = match order {
            QueueOrder::Name => return 0,
            QueueOrder::Ready => counts.ready,
            QueueOrder::Reserved => counts.reserved,
            QueueOrder::Delayed => counts.delayed,
            QueueOrder::Buried => counts.buried,
            QueueOrder::Messages => counts.total(),
            QueueOrder::Bytes => queue.body_bytes,
            // Whoever has none comes behind all who have.
            QueueOrder::Oldest => {
                self.oldest_ready_ms(turn.time(), &queue.ready).map_or(0, |age| age + 1)
            }
        };
        u64::MAX - most_first
    }
}

fn is_wanted(wanted: &QueueSelection, queue: &Queue) -> bool {
    let counts = queue.counts();
    (wanted.has.is_empty() || wanted.has.iter().any(|state| counts.of(*state) > 0))
        && wanted.pattern.as_deref().is_none_or(|pattern| matches(pattern, queue.name.as_str()))
}
