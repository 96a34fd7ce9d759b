//! The changes that the database file does not have yet, coalesced by message.
//!
//! Owned by the dispatcher. It knows no SQL: a [`Batch`] says what the file has to become, and
//! persistence carries that out. What is put and removed between two commits never reaches the
//! disk; a body is moved in here and never copied.
//!
//! # Failure
//!
//! A batch whose commit failed comes back whole with [`Journal::restore`] and is merged under what
//! was recorded since. Its rows may be in the file after all (a row whose commit failed with an
//! I/O error was seen again after reopening), so from then on, until [`Journal::known_good`], what
//! is put and removed is still removed from the file.

use rustc_hash::FxHashMap;

use crate::change::{Change, MessageRow, StateRow};
use crate::ids::{CommitNumber, MessageId, QueueId, QueueName};
use crate::limits::MESSAGE_OVERHEAD_BYTES;

/// Changes handed over to persistence as one commit.
///
/// Invariant: no message is in both `puts` and `removals`, unless its earlier put may be in the
/// file although its commit failed, and then it is in `removals` alone.
#[derive(Debug, Default)]
pub struct Batch {
    number: CommitNumber,
    puts: FxHashMap<MessageId, MessageRow>,
    states: FxHashMap<MessageId, StateRow>,
    removals: Vec<MessageId>,
    named: FxHashMap<QueueId, QueueName>,
    gone: Vec<QueueId>,
    ids_reserved: Option<u64>,
    clean_stop: Option<u64>,
    bytes: u64,
}

/// What the file does not have yet. See the module.
#[derive(Debug)]
pub struct Journal {
    current: Batch,
    /// An emptied batch whose allocations are used again.
    spare: Option<Batch>,
    under_way_bytes: u64,
    file_is_suspect: bool,
    enabled: bool,
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
            current: Batch { number: CommitNumber(1), ..Batch::default() },
            spare: None,
            under_way_bytes: 0,
            file_is_suspect: false,
            enabled: true,
        }
    }

    /// For a daemon that keeps nothing on disk: records nothing, and its commit number stays 0,
    /// which every commit has reached.
    pub fn disabled() -> Journal {
        let mut journal = Journal::new();
        journal.current.number = CommitNumber(0);
        journal.enabled = false;
        journal
    }

    /// Adds a change to the next commit.
    pub fn record(&mut self, change: Change) {
        if !self.enabled {
            return;
        }
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
        self.current.puts.get(&id)
    }

    /// Ids below this one may be handed out once the next commit is on the disk.
    pub fn reserve_ids(&mut self, up_to: u64) {
        if self.enabled {
            self.current.ids_reserved = Some(up_to);
        }
    }

    /// Marks the next commit as the last one of an orderly stop, after which `next_id` is the
    /// first id that was never handed out.
    pub fn stop_cleanly(&mut self, next_id: u64) {
        if self.enabled {
            self.current.clean_stop = Some(next_id);
        }
    }

    /// Whether nothing was recorded since the last hand-over.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Bytes of bodies and overhead that are not committed, those of the batch under way included.
    pub fn bytes(&self) -> u64 {
        self.current.bytes + self.under_way_bytes
    }

    /// The commit that what is recorded now will be part of.
    pub fn number(&self) -> CommitNumber {
        self.current.number
    }

    /// Hands over what was recorded. At most one batch is under way at a time.
    pub fn take(&mut self) -> Batch {
        let mut next = self.spare.take().unwrap_or_default();
        next.number = if self.enabled {
            CommitNumber(self.current.number.0 + 1)
        } else {
            self.current.number
        };
        let batch = std::mem::replace(&mut self.current, next);
        self.under_way_bytes = batch.bytes;
        batch
    }

    /// A batch comes back committed; what it has allocated is used again.
    pub fn done(&mut self, mut batch: Batch) {
        batch.clear();
        self.under_way_bytes = 0;
        self.spare = Some(batch);
    }

    /// A batch comes back whole because its commit failed. It becomes part of the next commit.
    pub fn restore(&mut self, older: Batch) {
        self.under_way_bytes = 0;
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

impl Batch {
    /// The commit's number.
    pub fn number(&self) -> CommitNumber {
        self.number
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.ids_reserved.is_none() && self.clean_stop.is_none()
    }

    /// Bytes of bodies and overhead in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rows that it writes or deletes.
    pub fn rows(&self) -> u64 {
        let rows = self.puts.len()
            + self.states.len()
            + self.removals.len()
            + self.named.len()
            + self.gone.len();
        rows as u64
    }

    /// Queues to write, by number.
    pub fn queues_named(&self) -> Vec<(QueueId, &QueueName)> {
        let mut named: Vec<_> = self.named.iter().map(|(id, name)| (*id, name)).collect();
        named.sort_unstable_by_key(|(id, _)| *id);
        named
    }

    /// Messages to remove, by id. They may not exist.
    pub fn removals(&mut self) -> &[MessageId] {
        self.removals.sort_unstable();
        &self.removals
    }

    /// Messages to write, by id.
    pub fn puts(&self) -> Vec<&MessageRow> {
        let mut puts: Vec<_> = self.puts.values().collect();
        puts.sort_unstable_by_key(|row| row.id);
        puts
    }

    /// States to write, by id of their message.
    pub fn states(&self) -> Vec<&StateRow> {
        let mut states: Vec<_> = self.states.values().collect();
        states.sort_unstable_by_key(|row| row.id);
        states
    }

    /// Queues to remove. They may not exist.
    pub fn queues_gone(&self) -> &[QueueId] {
        &self.gone
    }

    /// The end of the ids that may be handed out, when it moves.
    pub fn ids_reserved(&self) -> Option<u64> {
        self.ids_reserved
    }

    /// The first id that was never handed out, when this is the last commit of an orderly stop.
    pub fn clean_stop(&self) -> Option<u64> {
        self.clean_stop
    }

    /// Empties it, for the thread that has committed it: freeing many bodies takes time that the
    /// dispatcher should not spend. The allocations stay unless a burst has made them far larger
    /// than what they were used for.
    pub fn clear(&mut self) {
        let used = self.puts.len();
        self.puts.clear();
        if self.puts.capacity() > KEPT_CAPACITY_MIN && self.puts.capacity() / 8 > used {
            self.puts.shrink_to(KEPT_CAPACITY_MIN.max(used * 2));
        }
        let used = self.states.len();
        self.states.clear();
        if self.states.capacity() > KEPT_CAPACITY_MIN && self.states.capacity() / 8 > used {
            self.states.shrink_to(KEPT_CAPACITY_MIN.max(used * 2));
        }
        let used = self.removals.len();
        self.removals.clear();
        if self.removals.capacity() > KEPT_CAPACITY_MIN && self.removals.capacity() / 8 > used {
            self.removals.shrink_to(KEPT_CAPACITY_MIN.max(used * 2));
        }
        self.named.clear();
        self.gone.clear();
        self.ids_reserved = None;
        self.clean_stop = None;
        self.bytes = 0;
    }

    fn put(&mut self, row: MessageRow) {
        self.bytes += put_bytes(&row);
        self.puts.insert(row.id, row);
    }

    fn moved(&mut self, row: StateRow) {
        if self.states.insert(row.id, row).is_none() {
            self.bytes += STATE_BYTES;
        }
    }

    fn removed(&mut self, id: MessageId, file_is_suspect: bool) {
        if !self.states.is_empty() && self.states.remove(&id).is_some() {
            self.bytes -= STATE_BYTES;
        }
        let put = self.puts.remove(&id);
        if let Some(row) = &put {
            self.bytes -= put_bytes(row);
        }
        if put.is_none() || file_is_suspect {
            self.removals.push(id);
            self.bytes += REMOVAL_BYTES;
        }
    }

    fn queue_named(&mut self, id: QueueId, name: QueueName) {
        if self.named.insert(id, name).is_none() {
            self.bytes += QUEUE_BYTES;
        }
    }

    fn queue_gone(&mut self, id: QueueId, file_is_suspect: bool) {
        let named = self.named.remove(&id).is_some();
        if named {
            self.bytes -= QUEUE_BYTES;
        }
        if !named || file_is_suspect {
            self.gone.push(id);
            self.bytes += REMOVAL_BYTES;
        }
    }

    /// Adds what happened later; takes everything out of `newer`. Only for a suspect file: what
    /// is in neither batch any more is still removed.
    fn add(&mut self, newer: &mut Batch) {
        for (id, name) in newer.named.drain() {
            self.queue_named(id, name);
        }
        for (_, row) in newer.puts.drain() {
            self.put(row);
        }
        for (_, row) in newer.states.drain() {
            self.moved(row);
        }
        for id in newer.removals.drain(..) {
            self.removed(id, true);
        }
        for id in newer.gone.drain(..) {
            self.queue_gone(id, true);
        }
        self.ids_reserved = newer.ids_reserved.or(self.ids_reserved);
        self.clean_stop = newer.clean_stop.or(self.clean_stop);
    }
}

fn put_bytes(row: &MessageRow) -> u64 {
    let attributes = row.attributes.stored().map_or(0, <[u8]>::len);
    (row.body.len() + attributes) as u64 + MESSAGE_OVERHEAD_BYTES
}

/// What entries of the other kinds take, in bytes: their size in the tables above, roughly.
const STATE_BYTES: u64 = 150;
const QUEUE_BYTES: u64 = 300;
const REMOVAL_BYTES: u64 = 16;
/// Entries whose room is kept in an emptied batch whatever it was used for.
const KEPT_CAPACITY_MIN: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Counters;
    use crate::change::MessageState;

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

    fn ids(batch: &mut Batch) -> (Vec<u64>, Vec<(u64, u32)>, Vec<u64>) {
        (
            batch.puts().iter().map(|row| row.id.0).collect(),
            batch.states().iter().map(|row| (row.id.0, row.priority)).collect(),
            batch.removals().iter().map(|id| id.0).collect(),
        )
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
        let mut batch = after(vec![put(1), moved(1, 2), moved(1, 3)]).take();
        assert_eq!(ids(&mut batch), (vec![1], vec![(1, 3)], vec![]));
    }

    #[test]
    fn moved_and_removed_is_removed() {
        let mut batch = after(vec![moved(1, 2), removed(1)]).take();
        assert_eq!(ids(&mut batch), (vec![], vec![], vec![1]));
    }

    #[test]
    fn everything_is_handed_over_by_id() {
        let mut changes: Vec<Change> = (1..=50).rev().map(put).collect();
        changes.extend((101..=150).rev().map(|id| moved(id, 1)));
        changes.extend((201..=250).rev().map(removed));
        let mut batch = after(changes).take();
        let (puts, states, removals) = ids(&mut batch);
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
        let mut batch = journal.take();
        assert_eq!(bytes, batch.bytes());
        assert_eq!(ids(&mut batch), (vec![2, 6], vec![(2, 8), (3, 9)], vec![1, 4, 5]));
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
        let mut batch = journal.take();
        assert_eq!(ids(&mut batch), (vec![], vec![], vec![1, 2]));
        assert_eq!(batch.queues_gone(), [QueueId(3)]);
        journal.done(batch);

        journal.known_good();
        journal.record(put(4));
        journal.record(removed(4));
        assert!(journal.is_empty());
    }

    #[test]
    fn an_emptied_batch_gives_back_the_room_of_a_burst() {
        let mut journal = after((1..=200_000).map(put).collect());
        let mut batch = journal.take();
        batch.clear();
        assert!(batch.puts.capacity() >= 200_000, "a batch that was full keeps its room");
        batch.put(MessageRow::default());
        batch.clear();
        assert!(batch.puts.capacity() < 20_000, "capacity {}", batch.puts.capacity());
        assert_eq!(batch.bytes(), 0);
    }

    #[test]
    fn a_disabled_journal_keeps_nothing() {
        let mut journal = Journal::disabled();
        journal.record(put(1));
        journal.reserve_ids(5);
        journal.stop_cleanly(5);
        assert!(journal.is_empty());
        assert_eq!(journal.bytes(), 0);
        assert_eq!(journal.take().number(), CommitNumber(0));
        assert_eq!(journal.number(), CommitNumber(0));
    }
}
