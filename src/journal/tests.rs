//! What becomes of changes on their way to both databases.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::*;
use crate::mirror::lag::Lag;
use crate::protocol::wire::testing::Random;
use crate::words::change::MessageState;
use crate::words::change::{Counters, KeyRow, KeyUntil, StateRow};
use crate::words::ids::{QueueId, QueueName};
use crate::words::limits::TICK_BYTES_MAX;

/// The journal, and what the database in memory lacks of what it has let go, as the dispatcher keeps
/// them.
#[derive(Default)]
struct Both {
    journal: Journal,
    lag: Lag,
    /// What was taken out of the lag.
    given: (u64, u64),
}

impl Deref for Both {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl DerefMut for Both {
    fn deref_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Both {
    fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.journal.message(id).or_else(|| self.lag.message(id))
    }

    fn bytes(&self) -> u64 {
        self.journal.bytes() + self.lag.bytes() + self.given.0
    }

    fn bytes_besides_messages(&self) -> u64 {
        let lag = self.lag.bytes_besides_messages() + self.given.1;
        self.journal.bytes_besides_messages() + lag
    }

    fn lag(&self) -> Option<u64> {
        (!self.lag.is_empty()).then(|| self.lag.bytes())
    }

    fn add(&mut self, batch: Batch) {
        if let Some(empty) = self.lag.add(batch) {
            self.journal.recycle(empty);
        }
        self.release();
    }

    fn release(&mut self) {
        if self.lag.is_empty() && self.given == (0, 0) {
            self.journal.release_burst_memory();
        }
    }

    fn succeeded(&mut self) {
        if let (_, Some(batch)) = self.journal.succeeded() {
            self.add(batch);
        }
    }

    fn failed_beyond(&mut self, part: Part) -> CommitNumber {
        let (number, kept) = self.journal.failed_beyond(part);
        self.add(kept);
        number
    }

    fn take_lag(&mut self) -> Option<Batch> {
        let batch = self.lag.take()?;
        self.given = (batch.bytes(), batch.bytes_besides_messages());
        Some(batch)
    }

    fn mirrored(&mut self, batch: Batch) {
        self.given = (0, 0);
        self.journal.recycle(batch);
        self.release();
    }
}

fn put(id: u64) -> Change {
    Change::Put(MessageRow {
        id: MessageId(id),
        body: vec![b'x'; 10].into(),
        ..MessageRow::default()
    })
}

fn moved(id: u64, priority: u32) -> Change {
    Change::Moved(StateRow {
        id: MessageId(id),
        state: MessageState::Buried,
        priority,
        sequence: crate::words::ids::Sequence(id),
        due: None,
        expires_ms: None,
        delay_ms: 0,
        counters: Counters::default(),
        queue: None,
        failure: None,
    })
}

fn removed(id: u64) -> Change {
    Change::Removed(MessageId(id))
}

fn named(id: u64) -> Change {
    Change::QueueNamed { id: QueueId(id), name: QueueName::new(b"q").unwrap() }
}

fn after(changes: Vec<Change>) -> Both {
    let mut journal = Both::default();
    for change in changes {
        journal.record(change);
    }
    journal
}

/// What is put, moved (with its new priority) and removed.
type Ids = (Vec<u64>, Vec<(u64, u32)>, Vec<u64>);

fn ids(batch: &Batch) -> Ids {
    let (mut puts, mut states, mut removals) = (vec![], vec![], vec![]);
    for row in batch.part(0..batch.places()) {
        match row {
            Row::Put(row) => puts.push(row.id.0),
            Row::Moved(row) => states.push((row.id.0, row.priority)),
            Row::Removed(id) => removals.push(id.0),
        }
    }
    (puts, states, removals)
}

#[test]
fn a_message_is_there_until_it_is_removed() {
    let mut journal = Both::default();
    let row = |id| MessageRow { id: MessageId(id), ..MessageRow::default() };
    journal.record(Change::Put(row(1)));
    journal.record(Change::Put(row(2)));
    assert_eq!(journal.message(MessageId(1)), Some(&row(1)));
    journal.record(Change::Removed(MessageId(1)));
    assert_eq!(journal.message(MessageId(1)), None);
}

#[test]
fn put_and_removed_is_nothing() {
    let mut journal = after(vec![put(1), moved(1, 2), removed(1)]);
    assert!(journal.is_empty());
    assert_eq!(journal.bytes(), 0);
    assert!(journal.take().is_empty());
}

#[test]
fn put_and_moved_is_both_and_the_last_move_counts() {
    let batch = after(vec![put(1), moved(1, 2), moved(1, 3)]).take();
    assert_eq!(ids(&batch), (vec![1], vec![(1, 3)], vec![]));
}

#[test]
fn moved_and_removed_is_removed() {
    let batch = after(vec![moved(1, 2), removed(1)]).take();
    assert_eq!(ids(&batch), (vec![], vec![], vec![1]));
}

#[test]
fn everything_is_handed_over_by_id() {
    let mut changes: Vec<Change> = (1..=50).map(put).collect();
    changes.extend((101..=150).rev().map(|id| moved(id, 1)));
    changes.extend((201..=250).rev().map(removed));
    let batch = after(changes).take();
    let (puts, states, removals) = ids(&batch);
    assert!(puts.is_sorted() && states.is_sorted() && removals.is_sorted());
    assert_eq!((puts.len(), states.len(), removals.len()), (50, 50, 50));
    assert_eq!(batch.rows(), 150);
}

#[test]
fn queues_named_and_gone_between_commits_are_nothing() {
    let mut journal = after(vec![named(1), Change::QueueGone(QueueId(1)), named(2)]);
    let batch = journal.take();
    assert_eq!(batch.queues_named()[0].0, QueueId(2));
    assert!(batch.queues_gone().is_empty());
    drop(batch);
    journal.succeeded();
    journal.record(Change::QueueGone(QueueId(2)));
    assert_eq!(journal.take().queues_gone(), [QueueId(2)]);
}

#[test]
fn bytes_count_until_both_databases_have_them() {
    let mut journal = after(vec![put(1)]);
    let one = journal.bytes();
    drop(journal.take());
    journal.record(put(2));
    assert_eq!(journal.bytes(), 2 * one);
    journal.succeeded();
    assert_eq!(journal.bytes(), 2 * one);
    let batch = journal.take_lag().unwrap();
    assert_eq!(journal.bytes(), 2 * one);
    journal.mirrored(batch);
    assert_eq!(journal.bytes(), one);
}

#[test]
fn numbers_count_hand_overs() {
    let mut journal = after(vec![put(1)]);
    assert_eq!(journal.number(), CommitNumber(1));
    assert_eq!(journal.take().number, CommitNumber(1));
    assert_eq!(journal.number(), CommitNumber(2));
}

#[test]
fn a_failed_batch_is_merged_under_what_came_since() {
    let mut journal = after(vec![named(7), put(1), put(2), moved(3, 1), moved(4, 1), removed(5)]);
    drop(journal.take());
    for change in [removed(1), moved(2, 8), moved(3, 9), removed(4), put(6)] {
        journal.record(change);
    }
    journal.reserve_ids(99);
    journal.failed();
    assert_eq!(journal.number(), CommitNumber(2));
    let bytes = journal.bytes();
    let batch = journal.take();
    assert_eq!(bytes, batch.bytes());
    assert_eq!(ids(&batch), (vec![2, 6], vec![(2, 8), (3, 9)], vec![1, 4, 5]));
    assert_eq!(batch.queues_named().len(), 1);
    assert_eq!(batch.ids_reserved(), Some(99));
    assert_eq!(batch.number, CommitNumber(2));
}

#[test]
fn what_is_put_and_removed_is_removed_while_the_file_is_suspect() {
    let mut journal = after(vec![put(1)]);
    drop(journal.take());
    journal.failed();
    for change in [removed(1), put(2), removed(2), named(3), Change::QueueGone(QueueId(3))] {
        journal.record(change);
    }
    let batch = journal.take();
    assert_eq!(ids(&batch), (vec![], vec![], vec![1, 2]));
    assert_eq!(batch.queues_gone(), [QueueId(3)]);
    drop(batch);
    journal.succeeded();

    journal.known_good();
    journal.record(put(4));
    journal.record(removed(4));
    assert!(journal.is_empty());
}

/// When the old file was used again after an attempt to rewrite it, memory kept what that attempt had
/// brought there and was removed soon after: the next rewrite brought it back from the dead.
#[test]
fn regression_10_what_an_attempt_to_rewrite_brought_to_memory_is_removed_there() {
    let mut journal = after(vec![put(1), put(2)]);
    drop(journal.take_for_rewrite());
    journal.failed();
    drop(journal.take());
    journal.succeeded();
    journal.record(removed(1));
    drop(journal.take());
    journal.succeeded();
    let batch = journal.take_lag().unwrap();
    assert_eq!(ids(&batch), (vec![2], vec![], vec![1]));
    journal.mirrored(batch);
    for change in [put(3), removed(3)] {
        journal.record(change);
        drop(journal.take());
        journal.succeeded();
    }
    assert!(journal.lag().is_none(), "of others nothing is left");
}

#[test]
fn the_parts_of_a_batch_are_the_whole() {
    let mut changes: Vec<Change> = (1..=7).map(put).collect();
    changes.extend([removed(3), moved(2, 5), moved(90, 1), removed(80), removed(81)]);
    let batch = after(changes).take();
    let whole: Vec<Row<'_>> = batch.part(0..batch.places()).collect();
    assert_eq!(whole.len(), 10);
    for step in 1..=batch.places() {
        let starts = (0..batch.places()).step_by(step);
        let parts: Vec<Row<'_>> =
            starts.flat_map(|start| batch.part(start..start + step)).collect();
        assert_eq!(parts, whole, "in steps of {step}");
    }
}

#[test]
fn messages_that_memory_has_too_count_twice() {
    let mut journal = after(vec![put(1)]);
    let besides = |journal: &Both| journal.bytes_besides_messages();
    assert_eq!(besides(&journal), 0);
    let one = journal.bytes();
    drop(journal.take_for_rewrite());
    assert_eq!(besides(&journal), one);
    journal.failed();
    assert_eq!(besides(&journal), one);
    drop(journal.take_for_rewrite());
    journal.succeeded();
    assert_eq!(besides(&journal), 0);

    journal.record(put(2));
    drop(journal.take());
    assert_eq!(besides(&journal), 0, "a file is no part of memory");
    journal.failed();
    assert_eq!(besides(&journal), 0);
    drop(journal.take());
    journal.succeeded();
    assert_eq!(besides(&journal), 0);
    let batch = journal.take_lag().unwrap();
    assert_eq!(besides(&journal), 0, "each leaves the batch when memory has it");
    journal.mirrored(batch);
    assert_eq!(besides(&journal), 0);
}

fn commit(journal: &mut Both, changes: Vec<Change>) {
    changes.into_iter().for_each(|change| journal.record(change));
    drop(journal.take());
    journal.succeeded();
}

/// What memory is given next, as [`ids`] of it.
fn give(journal: &mut Both) -> Option<Ids> {
    let batch = journal.take_lag()?;
    let given = ids(&batch);
    journal.mirrored(batch);
    Some(given)
}

#[test]
fn a_message_is_found_until_memory_is_given_it() {
    let mut journal = after(vec![put(1)]);
    let batch = journal.take();
    assert!(journal.message(MessageId(1)).is_some(), "under way");
    drop(batch);
    journal.succeeded();
    assert!(journal.message(MessageId(1)).is_some(), "committed");
    commit(&mut journal, vec![put(2), removed(1)]);
    assert!(journal.message(MessageId(1)).is_none(), "removed");
    let batch = journal.take_lag().unwrap();
    assert!(journal.message(MessageId(2)).is_none(), "whoever gives it to memory has it");
    journal.mirrored(batch);
}

#[test]
fn what_is_removed_after_its_commit_never_reaches_memory() {
    let mut journal = Both::default();
    commit(&mut journal, vec![named(1), put(1), moved(1, 3)]);
    assert!(journal.lag().is_some());
    commit(&mut journal, vec![removed(1), Change::QueueGone(QueueId(1))]);
    assert_eq!(journal.lag(), None);
    assert_eq!(give(&mut journal), None);
}

#[test]
fn memory_is_given_the_sum_of_the_commits_since() {
    let mut journal = Both::default();
    commit(&mut journal, vec![put(1), put(2), moved(2, 1), put(3)]);
    assert_eq!(give(&mut journal), Some((vec![1, 2, 3], vec![(2, 1)], vec![])));
    commit(&mut journal, vec![put(4), put(5), moved(2, 7), moved(5, 7)]);
    commit(&mut journal, vec![put(6), moved(2, 8), removed(3)]);
    commit(&mut journal, vec![removed(1), removed(5)]);
    assert_eq!(give(&mut journal), Some((vec![4, 6], vec![(2, 8)], vec![1, 3])));
    assert_eq!(give(&mut journal), None);
}

#[test]
fn large_batches_stay_apart_and_come_in_their_order() {
    let mut journal = Both::default();
    let large = |id: u64| {
        let body = vec![b'x'; usize::try_from(TICK_BYTES_MAX).unwrap()].into();
        Change::Put(MessageRow { id: MessageId(id), body, ..MessageRow::default() })
    };
    commit(&mut journal, vec![put(1)]);
    commit(&mut journal, vec![large(2)]);
    commit(&mut journal, vec![put(3), removed(2)]);
    commit(&mut journal, vec![put(4), removed(3)]);
    assert_eq!(give(&mut journal), Some((vec![1], vec![], vec![])));
    assert_eq!(give(&mut journal), Some((vec![2], vec![], vec![])));
    assert_eq!(give(&mut journal), Some((vec![4], vec![], vec![2])));
    assert_eq!(give(&mut journal), None);
}

#[test]
fn what_a_burst_has_allocated_is_given_back_at_rest() {
    let slots = |journal: &Both| -> usize {
        journal.spares.iter().chain([&journal.current]).map(Batch::capacity).sum()
    };
    let mut given = Both::default();
    commit(&mut given, (1..=100_000).map(put).collect());
    let mut come_and_gone = Both::default();
    commit(&mut come_and_gone, (1..=10_000).map(put).collect());
    commit(&mut come_and_gone, (1..=10_000).map(removed).collect());
    give(&mut given);
    for mut journal in [given, come_and_gone] {
        assert_eq!((journal.bytes(), journal.lag()), (0, None));
        assert!(slots(&journal) < 20_000, "{} slots", slots(&journal));
        assert_eq!(give(&mut journal), None);
    }
}

#[test]
fn what_a_burst_has_allocated_is_given_back_while_traffic_goes_on() {
    let mut journal = Both::default();
    commit(&mut journal, (1..=100_000).map(put).collect());
    commit(&mut journal, vec![put(100_001)]);
    // There is always something left to do.
    journal.record(put(100_002));
    give(&mut journal);
    give(&mut journal);
    assert_eq!(journal.spares.len(), SPARES_MAX);
    for id in 100_003..100_010 {
        commit(&mut journal, vec![]);
        journal.record(put(id));
        give(&mut journal);
    }
    let kept = journal.spares.iter().chain([&journal.current]).map(Batch::capacity).max();
    assert!(kept < Some(20_000), "{kept:?} slots");
}

/// A database as a plain map: the priorities of messages.
#[derive(Debug, Default, PartialEq)]
struct Rows(BTreeMap<u64, u32>);

impl Rows {
    fn apply(&mut self, batch: &Batch) {
        for row in batch.part(0..batch.places()) {
            match row {
                Row::Put(row) => drop(self.0.insert(row.id.0, 0)),
                Row::Moved(row) => *self.0.get_mut(&row.id.0).unwrap() = row.priority,
                Row::Removed(id) => drop(self.0.remove(&id.0)),
            }
        }
    }
}

/// Any order of changes, commits, failures, rewrites and gifts to memory leaves each database with
/// what it should have, and each message somewhere.
#[test]
fn both_databases_end_up_with_what_was_recorded() {
    let mut random = Random::announced();
    for _ in 0..300 {
        let (mut journal, mut told) = (Both::default(), Rows::default());
        let (mut file, mut memory) = (Rows::default(), Rows::default());
        let (mut next_id, mut rewriting, mut volatile) = (1, false, Vec::new());
        for _ in 0..random.below(60) {
            for _ in 0..random.below(20) {
                let change = some_change(&mut random, &mut told, &mut next_id, &mut volatile);
                journal.record(change);
            }
            match random.below(6) {
                0 | 1 if !rewriting => {
                    file.apply(&journal.take());
                    journal.succeeded();
                    journal.known_good();
                }
                2 if !rewriting => {
                    // Some of it may be in the file after all.
                    let batch = journal.take();
                    if random.below(2) == 0 {
                        file.apply(&batch);
                    }
                    drop(batch);
                    journal.failed();
                }
                3 => {
                    rewriting = random.below(2) == 0;
                    rewrite(&mut journal, &mut file, &mut memory, !rewriting);
                }
                _ => give_all(&mut journal, &mut memory),
            }
            for id in told.0.keys() {
                let kept = journal.message(MessageId(*id)).is_some();
                assert!(kept || memory.0.contains_key(id), "message {id} is nowhere");
            }
        }
        rewrite(&mut journal, &mut file, &mut memory, true);
        give_all(&mut journal, &mut memory);
        assert_eq!((&file, &memory), (&told, &told));
        assert_eq!((journal.bytes(), journal.lag()), (0, None));
    }
}

/// Ids that are passed over are those of volatile messages, which may become durable later.
fn some_change(
    random: &mut Random,
    told: &mut Rows,
    next_id: &mut u64,
    volatile: &mut Vec<u64>,
) -> Change {
    let living: Vec<u64> = told.0.keys().copied().collect();
    let kind = if living.is_empty() { 0 } else { random.below(4) };
    if random.below(3) == 0 {
        volatile.push(*next_id);
        *next_id += 1;
    }
    let mut pick = || living[random.below(living.len())];
    match kind {
        3 if !volatile.is_empty() => {
            let id = volatile.swap_remove(random.below(volatile.len()));
            told.0.insert(id, 0);
            put(id)
        }
        0 => {
            told.0.insert(*next_id, 0);
            *next_id += 1;
            put(*next_id - 1)
        }
        1 => {
            let (id, priority) = (pick(), u32::try_from(*next_id).unwrap());
            told.0.insert(id, priority);
            moved(id, priority)
        }
        _ => {
            let id = pick();
            told.0.remove(&id);
            removed(id)
        }
    }
}

fn give_all(journal: &mut Both, memory: &mut Rows) {
    while let Some(batch) = journal.take_lag() {
        memory.apply(&batch);
        journal.mirrored(batch);
    }
}

/// Memory has everything and the new file gets that, if it gets that far.
fn rewrite(journal: &mut Both, file: &mut Rows, memory: &mut Rows, succeeds: bool) {
    give_all(journal, memory);
    memory.apply(&journal.take_for_rewrite());
    if succeeds {
        file.0 = memory.0.clone();
        journal.succeeded();
        journal.known_good();
    } else {
        journal.failed();
    }
}

#[test]
fn what_a_full_disk_has_taken_of_a_batch_comes_to_memory_and_only_the_rest_comes_again() {
    let mut journal = after(vec![removed(1), moved(2, 5), put(9), moved(9, 6)]);
    drop(journal.take());
    journal.record(removed(3));
    assert!(journal.is_put_pending(MessageId(9)) && !journal.is_put_pending(MessageId(2)));
    assert_eq!(journal.failed_beyond(Part::Moves), CommitNumber(1));
    assert_eq!(journal.take_lag().map(|batch| ids(&batch)), Some((vec![], vec![(2, 5)], vec![1])));
    assert_eq!(ids(&journal.take()), (vec![9], vec![(9, 6)], vec![3]));
    assert_eq!(journal.failed_beyond(Part::Removals), CommitNumber(2));
    // What is removed may be in the file by half.
    journal.record(removed(9));
    assert_eq!(ids(&journal.take()), (vec![], vec![], vec![9]));
}

#[test]
fn the_first_places_of_so_many_bytes_are_at_least_one() {
    let mut journal = Both::default();
    journal.record(removed(1));
    for (id, bytes) in [(2, 100), (3, 5_000), (4, 100), (5, 100), (6, 9_000)] {
        let row =
            MessageRow { id: MessageId(id), body: vec![7; bytes].into(), ..MessageRow::default() };
        journal.record(Change::Put(row));
    }
    let batch = journal.take();
    let (mut places, mut pieces) = (0..batch.places(), Vec::new());
    while !places.is_empty() {
        let piece = batch.first_bytes(places.clone(), 1_000);
        pieces.push(piece.len());
        places.start = piece.end;
    }
    // The removal comes with the first message.
    assert_eq!(pieces, [2, 1, 2, 1]);
}

fn key_set(message: u64) -> Change {
    Change::KeySet(KeyRow {
        queue: QueueId(1),
        key: b"k"[..].into(),
        message: Some(MessageId(message)),
        until: KeyUntil::Done,
    })
}

fn key_gone() -> Change {
    Change::KeyGone { queue: QueueId(1), key: b"k"[..].into() }
}

/// By which message the key is taken afterwards, if it has changed at all.
fn key(batch: &Batch) -> Option<Option<u64>> {
    let keys = batch.keys();
    let (.., taken) = keys.first()?;
    Some(taken.and_then(|(message, _)| message).map(|id| id.0))
}

#[test]
fn a_key_of_a_message_that_came_and_went_is_nothing() {
    let mut journal = after(vec![put(1), key_set(1), removed(1), key_gone()]);
    assert!(journal.is_empty());
    assert_eq!(journal.bytes(), 0);
    let mut again = after(vec![put(1), key_set(1), key_gone(), key_set(1)]);
    assert_eq!(key(&again.take()), Some(Some(1)));
    assert!(journal.take().is_empty());
}

#[test]
fn a_key_that_a_database_may_have_is_freed_there() {
    for changes in [
        vec![key_gone()],
        vec![key_set(1), key_gone()],
        vec![key_gone(), put(2), key_set(2), removed(2), key_gone()],
    ] {
        assert_eq!(key(&after(changes).take()), Some(None));
    }
    // The commit of the put may have succeeded although it failed.
    let mut journal = after(vec![put(1), key_set(1)]);
    drop(journal.take());
    journal.failed();
    assert_eq!(key(&journal.current), Some(Some(1)));
    journal.record(key_gone());
    assert_eq!(key(&journal.take()), Some(None));
}

#[test]
fn what_memory_lacks_is_coalesced_with_the_keys_that_are_freed_later() {
    let mut journal = after(vec![put(1), key_set(1)]);
    drop(journal.take());
    journal.succeeded();
    journal.record(removed(1));
    journal.record(key_gone());
    assert_eq!(key(&journal.take()), Some(None), "the file has the row");
    journal.succeeded();
    assert!(journal.lag().is_none(), "the database in memory never needs it");
}

/// The keys that are free go with the removals, which make room; those that are taken wait.
#[test]
fn on_a_full_disk_freed_keys_go_with_the_removals() {
    let other = Change::KeyGone { queue: QueueId(1), key: b"other"[..].into() };
    let mut journal = after(vec![put(1), key_set(1), other]);
    drop(journal.take());
    journal.failed_beyond(Part::Removals);
    let freed = journal.take_lag().unwrap();
    assert_eq!(freed.keys(), [(QueueId(1), &b"other"[..], None)]);
    assert_eq!(key(&journal.current), Some(Some(1)));
}

#[test]
fn a_batch_is_tied_until_it_is_taken_and_ties_what_it_becomes_part_of() {
    let mut journal = Journal::new();
    journal.tie();
    journal.record(Change::Removed(MessageId(1)));
    assert!(journal.take().is_tied());
    journal.record(Change::Removed(MessageId(2)));
    assert!(!journal.current.is_tied());
    journal.failed();
    assert!(journal.take().is_tied(), "it has the steps of the first one");
    journal.succeeded();
    journal.record(Change::Removed(MessageId(3)));
    assert!(!journal.take().is_tied());
}
