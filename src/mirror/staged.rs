//! A batch on its way into the database in memory, part by part.

use std::ops::Range;
use std::sync::Arc;

use crate::journal::Batch;
use crate::words::change::{Change, MessageRow};
use crate::words::ids::MessageId;
use crate::words::limits::{MESSAGE_OVERHEAD_BYTES, STAGED_BYTES_PER_TURN_MAX, WORK_PER_TURN_MAX};

/// A batch that is on its way into the database in memory.
pub(super) struct Staged {
    pub batch: Source,
    /// Places of it that are done.
    done: usize,
    /// Bytes of messages that are in memory and not in the batch any more.
    moved_bytes: u64,
}

/// Where it is from.
pub(super) enum Source {
    /// The file has it; here it is used up.
    Lag(Batch),
    /// It goes into a new file, with the next slice.
    Slice(Arc<Batch>),
}

/// How much has been recorded since staging last went on: it has to stage more than that, or the
/// backlog would grow for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inflow {
    changes: usize,
    bytes: u64,
}

impl Inflow {
    /// Counts a change.
    pub fn count(&mut self, change: &Change) {
        self.changes += 1;
        if let Change::Put(row) = change {
            self.bytes += row.body.len() as u64 + MESSAGE_OVERHEAD_BYTES;
        }
    }
}

impl Staged {
    /// What memory lacks.
    pub fn lag(batch: Batch) -> Staged {
        Staged { batch: Source::Lag(batch), done: 0, moved_bytes: 0 }
    }

    /// What goes to persistence with the next slice.
    pub fn slice(batch: Arc<Batch>) -> Staged {
        Staged { batch: Source::Slice(batch), done: 0, moved_bytes: 0 }
    }

    pub fn batch(&self) -> &Batch {
        match &self.batch {
            Source::Lag(batch) => batch,
            Source::Slice(batch) => batch,
        }
    }

    /// A message of the batch, as it was put, unless it is done.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.batch().message(id)
    }

    /// The places that are to be done in this turn, after this inflow.
    pub fn next_part(&self, inflow: Inflow) -> Range<usize> {
        let batch = self.batch();
        let bytes_each = batch.bytes() / (batch.places() as u64).max(1);
        let bytes = STAGED_BYTES_PER_TURN_MAX.max(2 * inflow.bytes);
        let most = usize::try_from(bytes / bytes_each.max(1) + 1).unwrap_or(usize::MAX);
        let most = most.min(WORK_PER_TURN_MAX.max(2 * inflow.changes));
        self.done..(self.done + most).min(batch.places())
    }

    /// Notes that memory has these.
    pub fn note_done(&mut self, part: Range<usize>) {
        self.done = part.end;
        if let Source::Lag(batch) = &mut self.batch {
            // Freeing all bodies at the end would take long.
            self.moved_bytes += batch.forget_puts(part);
        }
    }

    /// Bytes of bodies and overhead that are here alone, and those of them that are of no message
    /// that was put. What goes into a new file is counted in the journal.
    pub fn bytes(&self) -> (u64, u64) {
        match &self.batch {
            Source::Lag(batch) => {
                (batch.bytes().saturating_sub(self.moved_bytes), batch.bytes_besides_messages())
            }
            Source::Slice(_) => (0, 0),
        }
    }

    pub fn is_whole(&self) -> bool {
        self.done == self.batch().places()
    }
}
