//! The databases: the same tables in memory and in the file.
//!
//! The only place that knows SQL. One function applies a change to either database
//! (`tables.rs`); the dispatcher owns the one in memory ([`Memory`]), the persistence thread
//! the file ([`File`]); [`open`] makes both at start. A connection and the statements that borrow
//! it can not be in one struct, so a thread's run function owns the connection and lends it.
//!
//! The start and the persistence thread come in by one door (`door.rs`), behind which another engine
//! can stand.
//!
//! # Failure
//!
//! Every error is a [`StoreError`] with the name of the file. A file that is corrupt, foreign or
//! newer is refused at start and not changed.

mod ballast;
mod begin;
mod check;
mod commit;
mod door;
mod error;
mod file;
mod filling;
mod format_1;
mod guard;
mod header;
mod load;
mod lock;
mod log_copy;
mod memory;
mod origin;
mod own;
mod parts;
mod paths;
mod probe;
mod quarantine;
mod recover;
mod revival;
mod room;
mod rows;
mod salvage;
mod scan;
mod schema;
mod slice;
mod spare_rows;
mod standing;
mod successor;
mod suspect;
mod swap;
mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use commit::{Checkpoint, File, OwnRoom};
pub use door::{AtStart, Committer, Store, Successor, Tidied};
pub use error::{DAMAGE_LISTED_MAX, Damage, ErrorSource, Remedy, StoreError};
pub use file::{FileLocation, LockFile, Sizes, StoreFile};
pub use filling::{Filling, exists, share_owner};
pub use load::open;
pub use memory::Memory;
pub use quarantine::Quarantined;
pub use recover::{Recovered, recover};
pub use rusqlite::Connection;
pub use salvage::LogState;
pub use scan::{Stored, scan};
pub use schema::FORMAT_VERSION;
pub use slice::{Slice, Slices};
pub use standing::Ending;
pub use successor::{Held, Replacement, filled};

use std::path::PathBuf;

use crate::words::clock::Now;

/// A database that was opened.
pub struct Opened {
    /// All of it in memory, for the dispatcher.
    pub memory: Connection,
    /// The file, for the persistence thread; `None` when nothing is kept on disk, or not yet.
    pub file: Option<StoreFile>,
    /// The place of a file that was read and cannot be written to before the disk has room.
    pub unopened: Option<FileLocation>,
    /// What was found in it.
    pub facts: Facts,
    /// The copy of a log that was damaged before its end.
    pub log_copy: Option<LogCopy>,
}

/// The copy of a log of which the database library has ignored a part because of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCopy {
    /// The copy.
    pub file: PathBuf,
    /// How many intact frames were ignored.
    pub frames: u32,
    /// How many messages are on them.
    pub messages: u64,
    /// How many of these the database lacks.
    pub missing: u64,
    /// Older copies that were removed for it.
    pub dropped: Vec<PathBuf>,
}

/// What was done at the start about a file that was marked as suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It was not marked.
    No,
    /// All that was read is in a new file.
    Anew,
    /// All bytes of it were written once more, where the disk had no room for a new file.
    InPlace,
    /// The disk had no room for either: a new file has to be written from memory.
    NotYet,
}

/// What a database says about itself at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The random secret of this database, for what peers must not be able to make up.
    pub secret: [u8; 16],
    /// The first id that may be handed out.
    pub next_id: u64,
    /// Ids from this one on may not be handed out before the file has reserved more.
    pub ids_reserved: u64,
    /// The first number for a new queue.
    pub next_queue_id: u64,
    /// How the clock stood last; `None` for a new file or one that does not say so.
    pub clock: Option<Now>,
    /// Whether the last stop was an orderly one.
    pub clean_stop: bool,
    /// What was done because the last daemon had left it suspect.
    pub renewed: Renewed,
    /// How many messages there are.
    pub messages: u64,
    /// Whether the file was of format 1 before.
    pub migrated: bool,
}
