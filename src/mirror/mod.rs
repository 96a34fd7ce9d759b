//! What the daemon has in memory of all messages: the database there, and how it gets what it lacks.
//!
//! Owned by the dispatcher. A living message is at each moment in one of these places, in which
//! [`Mirror::lend`] looks for it one after the other:
//!
//! ```text
//!   journal: recorded ─► under way ─► here: lag ─► staged ─► the database in memory
//! ```
//!
//! A volatile message is in a place of its own, where it stays until it is gone, or is recorded because
//! it has become durable. No database gets it.
//!
//! Committed batches are taken in with the tick after their commit, or once there is much of them;
//! until then their messages lie in the lag alone. Most are handed out and acknowledged before
//! that, and the database in memory never sees them. Where a file is written anew from it, it has to
//! have everything first.
//!
//! A large batch is taken in over several turns, so that nobody waits long for an answer meanwhile;
//! but by more in each turn than has been recorded since the last one, for else the next batch would
//! be larger still.
//!
//! # Failure
//! Where the system has no memory for a part, that stays where it is and is tried again after a
//! moment. Any other error of the database in memory is a defect, of ours or of the library: see
//! [`broken`].

pub(crate) mod lag;
mod staged;
mod volatile;

use std::sync::Arc;

use crate::journal::{Batch, Journal};
use crate::store::{Memory, Slice, Slices, StoreError};
use crate::words::body::{Body, BodyRef};
use crate::words::change::{Attributes, Change};
use crate::words::clock::Time;
use crate::words::ids::MessageId;
use crate::words::limits::{BODY_STREAMED_BYTES_MIN, STAGED_BYTES_PER_TURN_MAX, TICK_BYTES_MAX};

use lag::Lag;
use staged::{Inflow, Source, Staged};
use volatile::Volatile;

/// How long after memory was short it is given what it lacks again, in milliseconds.
pub const TRY_AGAIN_MS: u64 = 250;
/// What has more than this part of `limits.max_memory` does not wait for the tick.
const LAG_PART: u64 = 16;

/// The database in memory, and what is on its way there. See the module.
pub struct Mirror<'c> {
    memory: Memory<'c>,
    /// What it never gets.
    volatile: Volatile,
    /// What it lacks.
    lag: Lag,
    /// The batch that it is being given.
    staged: Option<Staged>,
    /// When that goes on: at once, unless the system had no memory for it.
    staged_due: Time,
    /// When it is given what it lacks; never while it lacks nothing.
    lag_due: Time,
    /// What was recorded since it was last given a part.
    inflow: Inflow,
    /// Whether the system had no memory for what it was last given.
    is_short: bool,
}

impl<'c> Mirror<'c> {
    /// One that lacks nothing.
    pub fn new(memory: Memory<'c>) -> Mirror<'c> {
        Mirror {
            memory,
            volatile: Volatile::default(),
            lag: Lag::default(),
            staged: None,
            staged_due: Time(0),
            lag_due: Time::NEVER,
            inflow: Inflow::default(),
            is_short: false,
        }
    }

    /// Lends a message, wherever it is. The body is that of the database's own page unless it is
    /// too long for one. False when there is no such message.
    ///
    /// # Errors
    /// The system has no memory for a copy of it.
    pub fn lend(
        &mut self,
        journal: &Journal,
        id: MessageId,
        body_bytes: u32,
        use_it: impl FnOnce(&Attributes, BodyRef<'_>),
    ) -> Result<bool, StoreError> {
        let lag = || self.lag.message(id);
        let staged = || self.staged.as_ref()?.message(id);
        if let Some((attributes, body)) = self.volatile.get(id) {
            use_it(attributes, BodyRef::Kept(body));
            return Ok(true);
        }
        if let Some(row) = journal.message(id).or_else(lag).or_else(staged) {
            use_it(&row.attributes, BodyRef::Kept(&row.body));
            return Ok(true);
        }
        let found = if body_bytes >= BODY_STREAMED_BYTES_MIN {
            let found = self.memory.large_body(id);
            found.map(|found| {
                found.map(|(attributes, body)| use_it(&attributes, BodyRef::Kept(&body)))
            })
        } else {
            self.memory.body(id, |attributes, body| use_it(attributes, BodyRef::Lent(body)))
        };
        match found {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_want_of_memory() => Err(error),
            Err(error) => broken(error),
        }
    }

    /// Adds the content of a volatile message.
    pub fn put_volatile(&mut self, id: MessageId, attributes: Attributes, body: Body) {
        self.volatile.insert(id, (attributes, body));
    }

    /// Takes out the content of a message that is gone, or is volatile no more.
    pub fn take_volatile(&mut self, id: MessageId) -> Option<(Attributes, Body)> {
        self.volatile.remove(id)
    }

    /// How large the database in memory is, in bytes, with the pages that messages have left.
    pub fn bytes(&self) -> u64 {
        self.memory.size().whole
    }

    /// Whether it is being given a batch.
    pub fn is_busy(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether the system had no memory for what it was last given.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// When it is to be given something.
    pub fn deadline(&self) -> Time {
        match (self.staged_due, &self.staged) {
            (Time(0), Some(_)) => Time(0),
            (Time(0), None) => self.lag_due,
            // What it lacks waits behind what the system has no memory for.
            (again, Some(_)) => again,
            (_, None) => Time::NEVER,
        }
    }

    /// Counts a change that is recorded in the journal.
    pub fn count(&mut self, change: &Change) {
        self.inflow.count(change);
    }

    /// Bytes of bodies and overhead that it lacks.
    pub fn lacking_bytes(&self) -> u64 {
        self.lag.bytes() + self.staged_bytes().0
    }

    /// Those of them that are not the only place of a message.
    pub fn lacking_bytes_besides_messages(&self) -> u64 {
        self.lag.bytes_besides_messages() + self.staged_bytes().1
    }

    fn staged_bytes(&self) -> (u64, u64) {
        self.staged.as_ref().map_or((0, 0), Staged::bytes)
    }

    /// Whether batches wait behind the one that it is being given.
    pub fn lags(&self) -> bool {
        !self.lag.is_empty()
    }

    /// Adds a batch that was committed.
    pub fn add(&mut self, journal: &mut Journal, batch: Batch) {
        if let Some(empty) = self.lag.add(batch) {
            journal.recycle(empty);
        }
        self.release_burst_memory(journal);
    }

    /// What it lacks, if anything, is to be there at this moment at the latest.
    pub fn note_due(&mut self, at: Time) {
        if self.lags() {
            self.lag_due = self.lag_due.min(at);
        }
    }

    /// Begins with what it lacks, when it is time for that: for much of it, of a memory of so many
    /// bytes, at once.
    pub fn stage_lag(&mut self, now: Time, memory_max: u64) {
        if self.lag.bytes() > TICK_BYTES_MAX.min(memory_max / LAG_PART) {
            self.lag_due = now;
        }
        if self.lag_due <= now && self.staged.is_none() {
            self.staged = self.lag.take().map(Staged::lag);
        }
        if !self.lags() {
            self.lag_due = Time::NEVER;
        }
    }

    /// Frees what a burst has allocated once it lacks nothing.
    fn release_burst_memory(&self, journal: &mut Journal) {
        if self.staged.is_none() && self.lag.is_empty() {
            journal.release_burst_memory();
        }
    }

    /// Begins with a batch that goes into a new file with the next slice.
    pub fn stage_for_slice(&mut self, batch: Arc<Batch>) {
        debug_assert!(self.staged.is_none(), "one after the other");
        self.staged = Some(Staged::slice(batch));
    }

    /// Takes a part of the staged batch in, if there is one. Returns the batch that the next slice
    /// of a new file goes with, once all of it is in.
    ///
    /// # Errors
    /// The system has no memory for it: it is tried again after a moment.
    pub fn take_in(
        &mut self,
        journal: &mut Journal,
        now: Time,
    ) -> Result<Option<Arc<Batch>>, StoreError> {
        let inflow = std::mem::take(&mut self.inflow);
        if self.staged_due > now {
            return Ok(None);
        }
        let Some(mut staged) = self.staged.take() else { return Ok(None) };
        let mut part = staged.next_part(inflow);
        loop {
            // From here until it is noted as done a message is in memory twice.
            let piece = staged.batch().first_bytes(part.clone(), STAGED_BYTES_PER_TURN_MAX);
            part.start = piece.end;
            if let Err(error) = self.memory.apply(staged.batch(), piece.clone()) {
                return self.put_off(staged, now, error);
            }
            staged.note_done(piece);
            if part.is_empty() {
                break;
            }
        }
        if !staged.is_whole() {
            self.staged = Some(staged);
            return Ok(None);
        }
        (self.staged_due, self.is_short) = (Time(0), false);
        match staged.batch {
            Source::Lag(batch) => {
                journal.recycle(batch);
                self.release_burst_memory(journal);
                Ok(None)
            }
            Source::Slice(batch) => Ok(Some(batch)),
        }
    }

    /// The system has no memory for this. The journal keeps what is lacking, removals too, so that
    /// it is served and removed from there.
    fn put_off(
        &mut self,
        staged: Staged,
        now: Time,
        error: StoreError,
    ) -> Result<Option<Arc<Batch>>, StoreError> {
        if !error.is_want_of_memory() {
            return broken(error);
        }
        self.staged = Some(staged);
        (self.staged_due, self.is_short) = (now.plus(TRY_AGAIN_MS), true);
        Err(error)
    }

    /// Tries at once what the system had no memory for.
    pub fn try_again(&mut self) {
        self.staged_due = Time(0);
    }

    /// Whether a new file waits for the staged batch.
    pub fn is_for_slice(&self) -> bool {
        self.staged.as_ref().is_some_and(|staged| matches!(staged.batch, Source::Slice(_)))
    }

    /// Forgets the staged batch, at the end: the file has it.
    pub fn give_up(&mut self) {
        self.staged = None;
    }

    /// Takes all that it lacks in at once, and then this batch: at the end, when nobody waits.
    ///
    /// # Errors
    /// What failed.
    pub fn take_in_all(&mut self, batch: &Batch) -> Result<(), StoreError> {
        while let Some(batch) = self.lag.take() {
            self.memory.apply(&batch, 0..batch.places())?;
        }
        self.memory.apply(batch, 0..batch.places())
    }

    /// Begins to go through all rows that it has now.
    ///
    /// # Errors
    /// It could not be read.
    pub fn begin_slices(&mut self) -> Result<Slices, StoreError> {
        Slices::begin(&mut self.memory)
    }

    /// The next rows of these.
    ///
    /// # Errors
    /// It could not be read.
    pub fn next_slice(&mut self, slices: &mut Slices) -> Result<Slice, StoreError> {
        slices.next_slice(&mut self.memory)
    }

    /// The database in memory itself.
    #[cfg(test)]
    pub(crate) fn memory(&mut self) -> &mut Memory<'c> {
        &mut self.memory
    }
}

/// The database in memory has failed, by a defect of ours or of the library, so state and answers
/// are about to come apart: the process ends at once. The file has all that was confirmed.
///
/// # Panics
/// Always.
pub fn broken<T>(error: StoreError) -> T {
    panic!("the database in memory has failed, the process ends: {error}")
}
