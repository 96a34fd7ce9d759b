//! The door to what keeps the database: all that the start and the persistence thread know of it.
//!
//! [`Held`], a database file and its place, stands behind it. Another engine can stand beside that
//! one: it is opened and brings its rows into memory ([`filled`](super::filled)), commits batches,
//! says how it is, and takes all rows anew where what it has is suspect.
//! How a file is kept in order (its log, its size, its mark) is the business of the one that has a
//! file; what it does there after a commit goes through [`Committer::tidy`] and
//! [`Committer::shrink`], which do nothing for one that needs no tidying.
//!
//! The thread is compiled for one engine: nothing here is looked up while it runs.

use std::path::{Path, PathBuf};

use super::commit::{Checkpoint, File, OwnRoom};
use super::file::Sizes;
use super::room::SHARE_BYTES;
use super::slice::Slice;
use super::standing::Ending;
use super::successor::{Held, Replacement};
use super::{Connection, Facts, LogCopy, Opened, Remedy, StoreError};
use crate::journal::Batch;

/// A database, open or not, that nobody else writes to.
pub trait Store: Sized {
    /// Where one is found, in its engine's words: the name of a file, say.
    type Whereabouts: ?Sized;
    /// Commits to it while it is open, which it borrows.
    type Committer<'s>: Committer
    where
        Self: 's;
    /// A new database that is being filled.
    type Renewal;

    /// Opens it, making it where there is none, and brings all of it into memory. `progress` hears
    /// now and then how many messages have been looked at.
    ///
    /// # Errors
    /// Why it can not be used. What is corrupt, foreign or newer has not been changed.
    fn open(
        at: &Self::Whereabouts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<AtStart<Self>, StoreError>;

    /// What commits to it; `None` while it is not open.
    ///
    /// # Errors
    /// It could not be prepared.
    fn committer(&self) -> Result<Option<Self::Committer<'_>>, StoreError>;

    /// Whether it was known to be suspect when it was found.
    fn is_suspect(&self) -> bool;

    /// The error of a commit that is refused because it is suspect.
    fn suspect(&self) -> StoreError;

    /// Opens it, again or for the first time.
    ///
    /// # Errors
    /// What failed. It is as sound as it was unless the error makes it suspect.
    fn connect(self) -> (Self, Result<(), StoreError>);

    /// What it is called, in words for the log.
    fn name(&self) -> String;

    /// Goes on where it was moved to while it was open.
    fn follow(&mut self, to: PathBuf);

    /// Sees whether one that is suspect can be trusted again without a new one, for which there is no
    /// room. `progress` hears now and then that this goes on.
    ///
    /// # Errors
    /// Why it can not: it is not certain that it holds all that was committed.
    fn revive(self, progress: &mut dyn FnMut()) -> (Self, Result<(), StoreError>) {
        let _ = progress;
        let suspect = self.suspect();
        (self, Err(suspect))
    }

    /// Begins a new one, to be filled with the slices that begin with this one.
    ///
    /// # Errors
    /// Why it cannot be made. The old one is as sound as it was.
    fn begin_renewal(&self, first: &Slice) -> Result<Self::Renewal, StoreError>;

    /// Adds the changes since the last slice to it, and then a slice.
    ///
    /// # Errors
    /// What failed; then this attempt is over.
    fn renew(
        &self,
        renewal: &mut Self::Renewal,
        batch: &Batch,
        slice: &Slice,
    ) -> Result<(), StoreError>;

    /// Gives an attempt up.
    fn discard(renewal: Self::Renewal);

    /// Puts the new one in the place of this one and opens it.
    ///
    /// # Errors
    /// What failed; another attempt may follow.
    fn finish_renewal(self, renewal: Self::Renewal) -> (Self, Result<Successor, StoreError>);

    /// Closes it in order, with so many messages in it if that is certain.
    ///
    /// # Errors
    /// What is wrong, with what is left of it.
    fn close(self, messages: Option<u64>) -> Result<Ending, Box<(Self, StoreError)>>;

    /// Lets go of it without an order to close; one that is suspect stays as it is.
    ///
    /// # Errors
    /// What failed, when that leaves it suspect.
    fn leave(self, suspect: bool) -> Result<(), StoreError>;
}

/// What a start has of a database: checked, and all of it in memory.
pub struct AtStart<S> {
    /// The database in memory, for the dispatcher.
    pub memory: Connection,
    /// What is committed to, for the persistence thread; `None` when nothing is kept.
    pub store: Option<S>,
    /// Whether it can be committed to already. One that was read and cannot be written to before the
    /// disk has room is connected to later.
    pub is_connected: bool,
    /// What was found in it.
    pub facts: Facts,
    /// The copy of a log that was damaged before its end.
    pub log_copy: Option<LogCopy>,
}

impl<S: Store> AtStart<S> {
    /// Opens what is kept there; nothing is kept nowhere.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open(
        at: Option<&S::Whereabouts>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<AtStart<S>, StoreError> {
        let Some(at) = at else {
            let Opened { memory, facts, .. } = super::open(None, progress)?;
            return Ok(AtStart { memory, store: None, is_connected: false, facts, log_copy: None });
        };
        S::open(at, progress)
    }
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Rows that were written.
    pub rows: u64,
    /// Where something is kept now that somebody had put in its place.
    pub kept: Option<PathBuf>,
}

/// Commits batches.
pub trait Committer {
    /// Commits a batch whole. With `sync` it is on the disk afterwards, and with it all that was
    /// committed before.
    ///
    /// # Errors
    /// What failed; then nothing of the batch is kept, or only the part that
    /// [`StoreError::NoRoom`] names, unless the error makes the database suspect.
    fn commit(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError>;

    /// Does what is due after a commit and can wait until that is answered.
    ///
    /// # Errors
    /// What failed.
    fn tidy(&mut self) -> Result<Tidied, StoreError> {
        Ok(Tidied::NotDue)
    }

    /// Gives room back that is not needed any more. Says whether it did.
    ///
    /// # Errors
    /// What failed.
    fn shrink(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// How it is, and the disk that it is on.
    ///
    /// # Errors
    /// What failed, or that what is committed does not reach what a start would find.
    fn facts(&mut self) -> Result<Sizes, StoreError>;

    /// For what there is room, whatever becomes of the disk.
    fn room(&self) -> OwnRoom {
        OwnRoom::ENDLESS
    }

    /// Whether opening it anew would let other programs read it that are locked out now.
    fn could_be_shared(&self) -> bool {
        false
    }

    /// From now on it is suspect. Returns the error that further commits get.
    fn distrust(&mut self) -> StoreError;
}

/// What became of the tidying after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidied {
    /// There was nothing to do.
    NotDue,
    /// It is done.
    Whole,
    /// Another program that reads prevents it.
    HeldUp,
}

impl Store for Held {
    type Whereabouts = Path;
    type Committer<'s> = File<'s>;
    type Renewal = Replacement;

    fn open(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<AtStart<Held>, StoreError> {
        let opened = super::open(Some(path), progress)?;
        let Opened { memory, file, unopened, facts, log_copy } = opened;
        let is_connected = file.is_some();
        let store = file.map(Held::Open).or(unopened.map(Held::Closed));
        Ok(AtStart { memory, store, is_connected, facts, log_copy })
    }

    fn committer(&self) -> Result<Option<File<'_>>, StoreError> {
        match self {
            Held::Open(file) => File::new(file).map(Some),
            Held::Closed(_) => Ok(None),
        }
    }

    fn is_suspect(&self) -> bool {
        self.is_marked()
    }

    fn suspect(&self) -> StoreError {
        StoreError::Suspect { file: self.path().to_path_buf() }
    }

    fn connect(self) -> (Held, Result<(), StoreError>) {
        Held::connect(self)
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn follow(&mut self, to: PathBuf) {
        if let Held::Open(file) = self {
            file.follow(to);
        }
    }

    fn revive(self, progress: &mut dyn FnMut()) -> (Held, Result<(), StoreError>) {
        Held::revive(self, progress)
    }

    fn begin_renewal(&self, first: &Slice) -> Result<Replacement, StoreError> {
        Replacement::begin(self, first.pages)
    }

    fn renew(
        &self,
        renewal: &mut Replacement,
        batch: &Batch,
        slice: &Slice,
    ) -> Result<(), StoreError> {
        renewal.add(self, batch, slice)
    }

    fn discard(renewal: Replacement) {
        renewal.discard();
    }

    fn finish_renewal(self, renewal: Replacement) -> (Held, Result<Successor, StoreError>) {
        let rows = renewal.rows();
        let (held, result) = renewal.finish(self);
        (held, result.map(|kept| Successor { rows, kept }))
    }

    fn close(self, messages: Option<u64>) -> Result<Ending, Box<(Held, StoreError)>> {
        match self {
            Held::Open(file) => file.finish(messages),
            closed => {
                let error = closed.suspect();
                Err(Box::new((closed, error)))
            }
        }
    }

    fn leave(self, suspect: bool) -> Result<(), StoreError> {
        match self {
            Held::Open(file) if !suspect => match file.close() {
                // All that was committed is in the file and its log together.
                Err(error) if error.remedy() != Remedy::Rewrite => Ok(()),
                closed => closed,
            },
            held => {
                held.abandon();
                Ok(())
            }
        }
    }
}

impl Committer for File<'_> {
    fn commit(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        File::commit(self, batch, sync)
    }

    fn tidy(&mut self) -> Result<Tidied, StoreError> {
        Ok(match self.checkpoint_if_due()? {
            Checkpoint::NotDue => Tidied::NotDue,
            Checkpoint::Complete => Tidied::Whole,
            Checkpoint::HeldUp => Tidied::HeldUp,
        })
    }

    fn shrink(&mut self) -> Result<bool, StoreError> {
        self.shrink_if_worth_it()
    }

    fn facts(&mut self) -> Result<Sizes, StoreError> {
        self.sizes()
    }

    fn room(&self) -> OwnRoom {
        File::room(self)
    }

    fn could_be_shared(&self) -> bool {
        self.file.locks_others_out() && self.room.disk_free_bytes >= SHARE_BYTES
    }

    fn distrust(&mut self) -> StoreError {
        File::distrust(self)
    }
}
