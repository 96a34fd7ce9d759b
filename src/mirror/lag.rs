//! What the file has and the database in memory does not have yet.
//!
//! Most messages that wait for their commit are acknowledged soon after it. So committed batches
//! are kept here for a moment, coalesced, and what has come and gone by then never reaches the
//! database in memory. Large batches stay as they are: to merge them would hold everybody up.

use std::collections::VecDeque;

use crate::journal::Batch;
use crate::words::change::MessageRow;
use crate::words::ids::MessageId;
use crate::words::limits::TICK_BYTES_MAX;

/// Committed batches with rows, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lag(VecDeque<Batch>);

impl Lag {
    /// Adds a batch. Returns it, or the one that it was added to, when it is of no use any more but
    /// for its allocations.
    pub fn add(&mut self, mut batch: Batch) -> Option<Batch> {
        let newest = self.0.back_mut();
        match newest.filter(|newest| newest.bytes() + batch.bytes() <= TICK_BYTES_MAX) {
            Some(newest) => {
                let may_be_mirrored = newest.may_be_mirrored || batch.may_be_mirrored;
                newest.add(&mut batch, may_be_mirrored);
            }
            None if batch.rows() == 0 => return Some(batch),
            None => {
                self.0.push_back(batch);
                return None;
            }
        }
        let has_rows = self.0.back().is_some_and(|newest| newest.rows() > 0);
        if has_rows { Some(batch) } else { self.0.pop_back() }
    }

    /// Takes out the oldest batch.
    pub fn take(&mut self) -> Option<Batch> {
        let mut batch = self.0.pop_front()?;
        batch.seal();
        Some(batch)
    }

    /// A message that was put, unless it was removed within the same batch.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.0.iter().find_map(|batch| batch.message(id))
    }

    /// Whether memory has all that the file has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of bodies and overhead.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(Batch::bytes).sum()
    }

    /// Those of them that are of no message that was put.
    pub fn bytes_besides_messages(&self) -> u64 {
        self.0.iter().map(Batch::bytes_besides_messages).sum()
    }
}
