//! The changes that no database has yet, coalesced by message.
//!
//! Owned by the dispatcher. It knows no SQL: a [`Batch`] says what the databases in memory and on
//! the disk have to become. What is put and removed between two commits reaches neither; a body is
//! moved in here and never copied.
//!
//! # Failure
//!
//! A batch whose commit failed comes back whole with [`Journal::restore`] and is merged under what
//! was recorded since. Its rows may be in the file after all (a row whose commit failed with an
//! I/O error was seen again after reopening), so from then on, until [`Journal::known_good`], what
//! is put and removed is still removed from the file.

mod batch;
mod puts;

use crate::change::{Change, MessageRow};
use crate::ids::{CommitNumber, MessageId};

pub use batch::{Batch, Row};

/// What the file does not have yet. See the module.
#[derive(Debug)]
pub struct Journal {
    current: Batch,
    /// An emptied batch whose allocations are used again.
    spare: Option<Batch>,
    under_way_bytes: u64,
    /// Of messages that are in the database in memory although they are in `current`.
    restored_bytes: u64,
    file_is_suspect: bool,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal::new()
    }
}

impl Journal {
    /// Nothing recorded; the first commit has number 1.
    pub fn new() -> Journal {
        Journal {
            current: Batch::numbered(CommitNumber(1)),
            spare: None,
            under_way_bytes: 0,
            restored_bytes: 0,
            file_is_suspect: false,
        }
    }

    /// Adds a change to the next commit.
    pub fn record(&mut self, change: Change) {
        match change {
            Change::Put(row) => self.current.put(row),
            Change::Moved(row) => self.current.moved(row),
            Change::Removed(id) => self.current.removed(id, self.file_is_suspect),
            Change::QueueNamed { id, name } => self.current.queue_named(id, name),
            Change::QueueGone(id) => self.current.queue_gone(id, self.file_is_suspect),
        }
    }

    /// A message that was put since the last hand-over, as it was put.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.current.message(id)
    }

    /// Ids below this one may be handed out once the next commit is on the disk.
    pub fn reserve_ids(&mut self, up_to: u64) {
        self.current.ids_reserved = Some(up_to);
    }

    /// Marks the next commit as the last one of an orderly stop, after which `next_id` is the
    /// first id that was never handed out.
    pub fn stop_cleanly(&mut self, next_id: u64) {
        self.current.clean_stop = Some(next_id);
    }

    /// Whether nothing was recorded since the last hand-over.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Bytes of bodies and overhead that are not committed, those of the batch under way included.
    pub fn bytes(&self) -> u64 {
        self.current.bytes() + self.under_way_bytes
    }

    /// Those of them that are not the only place of a message.
    pub fn bytes_besides_messages(&self) -> u64 {
        self.bytes() - self.current.put_bytes() + self.restored_bytes
    }

    /// The commit that what is recorded now will be part of.
    pub fn number(&self) -> CommitNumber {
        self.current.number
    }

    /// Hands over what was recorded. At most one batch is under way at a time.
    pub fn take(&mut self) -> Batch {
        let mut next = self.spare.take().unwrap_or_default();
        next.number = CommitNumber(self.current.number.0 + 1);
        let mut batch = std::mem::replace(&mut self.current, next);
        batch.seal();
        self.under_way_bytes = batch.bytes();
        self.restored_bytes = 0;
        batch
    }

    /// A batch comes back committed; what it has allocated is used again.
    pub fn done(&mut self, mut batch: Batch) {
        batch.clear();
        self.under_way_bytes = 0;
        self.spare = Some(batch);
    }

    /// A batch comes back whole because its commit failed. It becomes part of the next commit.
    pub fn restore(&mut self, mut older: Batch) {
        older.unseal();
        self.under_way_bytes = 0;
        self.restored_bytes = older.put_bytes();
        self.file_is_suspect = true;
        let number = self.current.number;
        let mut newer = std::mem::replace(&mut self.current, older);
        self.current.number = number;
        self.current.add(&mut newer);
        newer.clear();
        self.spare = Some(newer);
    }

    /// The file is exactly what the committed batches say again.
    pub fn known_good(&mut self) {
        self.file_is_suspect = false;
    }

    /// Whether a failed commit has left the file's content uncertain.
    pub fn is_suspect(&self) -> bool {
        self.file_is_suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::MessageState;
    use crate::change::{Counters, StateRow};
    use crate::ids::{QueueId, QueueName};

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
            sequence: crate::ids::Sequence(id),
            due: None,
            expires_ms: None,
            delay_ms: 0,
            counters: Counters::default(),
        })
    }

    fn removed(id: u64) -> Change {
        Change::Removed(MessageId(id))
    }

    fn named(id: u64) -> Change {
        Change::QueueNamed { id: QueueId(id), name: QueueName::new(b"q").unwrap() }
    }

    fn after(changes: Vec<Change>) -> Journal {
        let mut journal = Journal::new();
        for change in changes {
            journal.record(change);
        }
        journal
    }

    /// What is put, moved (with its new priority) and removed.
    fn ids(batch: &Batch) -> (Vec<u64>, Vec<(u64, u32)>, Vec<u64>) {
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
    fn a_message_is_there_until_it_is_removed_or_handed_over() {
        let mut journal = Journal::new();
        let row = |id| MessageRow { id: MessageId(id), ..MessageRow::default() };
        journal.record(Change::Put(row(1)));
        journal.record(Change::Put(row(2)));
        assert_eq!(journal.message(MessageId(1)), Some(&row(1)));
        journal.record(Change::Removed(MessageId(1)));
        assert_eq!(journal.message(MessageId(1)), None);
        let batch = journal.take();
        assert_eq!(journal.message(MessageId(2)), None);
        journal.done(batch);
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
        journal.record(Change::QueueGone(QueueId(2)));
        assert_eq!(journal.take().queues_gone(), [QueueId(2)]);
    }

    #[test]
    fn bytes_count_the_batch_under_way_until_it_is_done() {
        let mut journal = after(vec![put(1)]);
        let one = journal.bytes();
        let batch = journal.take();
        journal.record(put(2));
        assert_eq!(journal.bytes(), 2 * one);
        journal.done(batch);
        assert_eq!(journal.bytes(), one);
    }

    #[test]
    fn numbers_count_hand_overs() {
        let mut journal = after(vec![put(1)]);
        assert_eq!(journal.number(), CommitNumber(1));
        assert_eq!(journal.take().number(), CommitNumber(1));
        assert_eq!(journal.number(), CommitNumber(2));
    }

    #[test]
    fn a_failed_batch_is_merged_under_what_came_since() {
        let mut journal =
            after(vec![named(7), put(1), put(2), moved(3, 1), moved(4, 1), removed(5)]);
        let failed = journal.take();
        for change in [removed(1), moved(2, 8), moved(3, 9), removed(4), put(6)] {
            journal.record(change);
        }
        journal.reserve_ids(99);
        journal.restore(failed);
        assert_eq!(journal.number(), CommitNumber(2));
        let bytes = journal.bytes();
        let batch = journal.take();
        assert_eq!(bytes, batch.bytes());
        assert_eq!(ids(&batch), (vec![2, 6], vec![(2, 8), (3, 9)], vec![1, 4, 5]));
        assert_eq!(batch.queues_named().len(), 1);
        assert_eq!(batch.ids_reserved(), Some(99));
        assert_eq!(batch.number(), CommitNumber(2));
    }

    #[test]
    fn what_is_put_and_removed_is_removed_while_the_file_is_suspect() {
        let mut journal = after(vec![put(1)]);
        let failed = journal.take();
        journal.restore(failed);
        for change in [removed(1), put(2), removed(2), named(3), Change::QueueGone(QueueId(3))] {
            journal.record(change);
        }
        let batch = journal.take();
        assert_eq!(ids(&batch), (vec![], vec![], vec![1, 2]));
        assert_eq!(batch.queues_gone(), [QueueId(3)]);
        journal.done(batch);

        journal.known_good();
        journal.record(put(4));
        journal.record(removed(4));
        assert!(journal.is_empty());
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
        assert_eq!(journal.bytes_besides_messages(), 0);
        let batch = journal.take();
        let one = journal.bytes();
        assert_eq!(journal.bytes_besides_messages(), one);
        journal.record(put(2));
        assert_eq!(journal.bytes_besides_messages(), one);
        journal.restore(batch);
        assert_eq!(journal.bytes_besides_messages(), one);
        let batch = journal.take();
        assert_eq!(journal.bytes_besides_messages(), 2 * one);
        journal.done(batch);
        assert_eq!(journal.bytes_besides_messages(), 0);
    }
}
