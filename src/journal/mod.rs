//! The changes that a database does not have yet, coalesced by message.
//!
//! Owned by the dispatcher. It knows no SQL: a [`Batch`] says what the databases in memory and on
//! the disk have to become. What is put and removed between two commits reaches neither, and what
//! is removed soon after its commit reaches the file alone; a body is moved in here and never
//! copied.
//!
//! ```text
//!   record ──► current ──take──► under way ──succeeded──► what the database in memory lacks
//!                 ▲                  │ (to the file)
//!                 └─────failed───────┘
//! ```
//!
//! Where the file is written anew from the database in memory, that database gets the batch under way
//! first ([`Journal::take_for_rewrite`]).
//!
//! # Failure
//!
//! A batch whose commit failed is merged under what was recorded since ([`Journal::failed`]). Its
//! rows may be in the file after all (a row whose commit failed with an I/O error was seen again
//! after reopening), so from then on, until [`Journal::known_good`], what is put and removed is
//! still removed from the file.

mod batch;
mod keys;
mod puts;
mod rare;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::words::change::{Change, MessageRow};
use crate::words::clock::Now;
use crate::words::ids::{CommitNumber, MessageId, Part};

pub use batch::{Batch, Row};
pub use keys::Taken;

/// What the databases do not have yet. See the module.
#[derive(Debug)]
pub struct Journal {
    /// Changes that neither database has.
    current: Batch,
    /// The batch that is being committed to the file.
    under_way: Option<Arc<Batch>>,
    /// Whether the database in memory has the batch under way already.
    is_rewriting: bool,
    /// Emptied batches whose allocations are used again, at most [`SPARES_MAX`]. The oldest is
    /// used next, so that each takes its turn to shrink after a burst.
    spares: VecDeque<Batch>,
    /// Bytes of messages that stand in `current` and in the database in memory as well.
    doubled_bytes: u64,
    file_is_suspect: bool,
    /// The largest id that was put.
    last_put: MessageId,
}

/// Beside the batch that is recorded in, one is under way and one is being copied to memory: these
/// two are used next.
const SPARES_MAX: usize = 2;

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
            under_way: None,
            is_rewriting: false,
            spares: VecDeque::new(),
            doubled_bytes: 0,
            file_is_suspect: false,
            last_put: MessageId(0),
        }
    }

    /// Adds a change to the next commit.
    pub fn record(&mut self, change: Change) {
        match change {
            Change::Put(row) => {
                if row.id < self.last_put {
                    self.current.rare().late_puts += 1;
                } else {
                    self.last_put = row.id;
                }
                self.current.put(row);
            }
            Change::Moved(row) => self.current.moved(row),
            Change::Removed(id) => self.current.removed(id, self.file_is_suspect),
            Change::QueueNamed { id, name } => self.current.queue_named(id, name),
            Change::QueueGone(id) => self.current.queue_gone(id, self.file_is_suspect),
            Change::KeySet(row) => self.current.key_set(row),
            Change::KeyGone { queue, key } => {
                self.current.key_gone(queue, key, self.file_is_suspect);
            }
            Change::QueueSet(row) => self.current.queue_set(row),
        }
    }

    /// What is recorded now goes into one commit that a full disk takes wholly or not at all.
    pub fn tie(&mut self) {
        self.current.rare().is_tied = true;
    }

    /// A message, as it was put, unless it was committed.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.current.message(id).or_else(|| self.under_way.as_ref()?.message(id))
    }

    /// Ids below this one may be handed out once the next commit is on the disk.
    pub fn reserve_ids(&mut self, up_to: u64) {
        self.current.rare().ids_reserved = Some(up_to);
    }

    /// Marks the next commit as the last one of an orderly stop, after which `next_id` is the
    /// first id that was never handed out.
    pub fn stop_cleanly(&mut self, next_id: u64) {
        self.current.rare().clean_stop = Some(next_id);
    }

    /// Has the next commit record how the clock stands. That alone is reason enough for a commit.
    pub fn note_clock(&mut self, now: Now) {
        self.current.rare().clock = Some(now);
    }

    /// Whether nothing was recorded since the last hand-over.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Rows recorded since the last hand-over.
    pub fn rows(&self) -> u64 {
        self.current.rows()
    }

    /// Bytes of bodies and overhead recorded since the last hand-over.
    pub fn recorded_bytes(&self) -> u64 {
        self.current.bytes()
    }

    /// Bytes of bodies and overhead that are not committed.
    pub fn bytes(&self) -> u64 {
        self.current.bytes() + self.under_way.as_ref().map_or(0, |batch| batch.bytes())
    }

    /// Those of them that are not the only place of a message.
    pub fn bytes_besides_messages(&self) -> u64 {
        let under_way = self.under_way.as_ref().map_or(0, |batch| {
            if self.is_rewriting { batch.bytes() } else { batch.bytes_besides_messages() }
        });
        self.current.bytes_besides_messages() + under_way + self.doubled_bytes
    }

    /// The commit that what is recorded now will be part of.
    pub fn number(&self) -> CommitNumber {
        self.current.number
    }

    /// Hands over what was recorded. At most one batch is under way at a time; persistence
    /// drops it before reporting the outcome.
    pub fn take(&mut self) -> Arc<Batch> {
        debug_assert!(self.under_way.is_none(), "one at a time");
        let mut next = self.spares.pop_front().unwrap_or_default();
        next.number = CommitNumber(self.current.number.0 + 1);
        let mut batch = std::mem::replace(&mut self.current, next);
        batch.seal();
        self.doubled_bytes = 0;
        let batch = Arc::new(batch);
        self.under_way = Some(batch.clone());
        self.is_rewriting = false;
        batch
    }

    /// Hands over what was recorded, for a file that is written anew from the database in memory,
    /// which gets the batch first. After a failure another hand-over may follow; memory then gets all
    /// of that one again.
    pub fn take_for_rewrite(&mut self) -> Arc<Batch> {
        let batch = self.take();
        self.is_rewriting = true;
        batch
    }

    /// The batch under way is in the file, or there is no file. Returns it, with its number, unless
    /// the database in memory has it already.
    pub fn succeeded(&mut self) -> (CommitNumber, Option<Batch>) {
        let batch = self.reclaim();
        let number = batch.number;
        if self.is_rewriting {
            self.recycle(batch);
            return (number, None);
        }
        (number, Some(batch))
    }

    /// The commit of the batch under way failed, so the file may or may not have it: the batch
    /// becomes part of the next one.
    pub fn failed(&mut self) {
        let mut older = self.reclaim();
        self.doubled_bytes = if self.is_rewriting { older.put_bytes() } else { 0 };
        older.may_be_mirrored |= self.is_rewriting;
        self.file_is_suspect = true;
        let number = self.current.number;
        let mut newer = std::mem::take(&mut self.current);
        older.add(&mut newer, true);
        self.current = older;
        self.current.number = number;
        self.recycle(newer);
    }

    /// Only what comes up to this part of the batch under way is in the file; the rest becomes part
    /// of the next one. Returns what is in the file, and the number of the batch.
    pub fn failed_beyond(&mut self, part: Part) -> (CommitNumber, Batch) {
        let Some(batch) = self.under_way.as_mut().and_then(Arc::get_mut) else {
            panic!("a finished batch is still referenced")
        };
        let kept = batch.split_up_to(part);
        self.failed();
        (kept.number, kept)
    }

    /// Whether this message was put by what the file does not have yet.
    pub fn is_put_pending(&self, id: MessageId) -> bool {
        let under_way = || self.under_way.as_ref()?.message(id);
        self.current.message(id).or_else(under_way).is_some()
    }

    /// Bytes of bodies and overhead of messages that the file does not have yet.
    pub fn pending_put_bytes(&self) -> u64 {
        let under_way = self.under_way.as_ref().map_or(0, |batch| batch.put_bytes());
        self.current.put_bytes() + under_way
    }

    /// How many of those messages have ids from long ago, at most so many.
    pub fn pending_late_puts(&self) -> u64 {
        let under_way = self.under_way.as_ref().map_or(0, |batch| batch.late_puts());
        self.current.late_puts() + under_way
    }

    /// Takes the batch under way back from persistence.
    fn reclaim(&mut self) -> Batch {
        // Invariant: persistence drops its reference before it reports, so this is the last one.
        let batch = self.under_way.take().and_then(Arc::into_inner);
        let Some(batch) = batch else { panic!("a finished batch is still referenced") };
        batch
    }

    /// Keeps a batch that both databases have for its allocations.
    pub fn recycle(&mut self, mut batch: Batch) {
        if self.spares.len() < SPARES_MAX {
            batch.clear();
            self.spares.push_back(batch);
        }
    }

    /// Frees what a burst has allocated once both databases have everything, which the caller knows
    /// of the one in memory, since no traffic may follow that would shrink it.
    pub fn release_burst_memory(&mut self) {
        if self.under_way.is_none() && self.current.is_empty() {
            self.current.clear();
            self.spares.iter_mut().for_each(Batch::clear);
        }
    }

    /// The file is exactly what the committed batches say again.
    pub fn known_good(&mut self) {
        self.file_is_suspect = false;
    }
}
