//! A new file in the place of a suspect one, filled with what the dispatcher sends, or at start
//! with what was read.
//!
//! Owned by the persistence thread, and by the start before there is one.
//!
//! # Failure
//!
//! Until [`Replacement::finish`] has made it the truth, the old file stays what a restart finds;
//! an attempt that fails is thrown away. After that the new file is what a restart finds, also
//! when it can not be opened now.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Result};

use super::check::Summary;
use super::file::{self, FileLocation, Settings, StoreFile};
use super::lock::Lock;
use super::memory::{self, Memory};
use super::paths::Paths;
use super::quarantine;
use super::schema::setting;
use super::slice::{Slice, Slices};
use super::suspect;
use super::swap::{self, NewFile};
use super::tables::Tables;
use super::{Remedy, StoreError};
use crate::journal::Batch;

/// The database's place, with an open file in it or not.
pub enum Held {
    /// With a file, which may be suspect.
    Open(StoreFile),
    /// Without one that could be used.
    Closed(FileLocation),
}

/// A new file on its way.
pub struct Replacement {
    new: NewFile,
    rows: u64,
}

impl Held {
    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.place().path()
    }

    fn place(&self) -> &FileLocation {
        match self {
            Held::Open(file) => &file.place,
            Held::Closed(place) => place,
        }
    }

    /// Closes a suspect file as it is; its place stays ours.
    pub fn abandon(self) -> FileLocation {
        match self {
            Held::Open(file) => file.abandon(),
            Held::Closed(place) => place,
        }
    }
}

impl Held {
    /// Whether a start has found the mark of a suspect file and could not bring it to the disk.
    pub fn is_marked(&self) -> bool {
        matches!(self, Held::Closed(place) if suspect::is_marked(&place.paths))
    }

    /// Connects, again or for the first time, now that the disk may have room for that. Returns the
    /// place with whatever is in it then.
    ///
    /// # Errors
    /// What failed. The file is as sound as it was unless the error makes it suspect.
    pub fn connect(self) -> (Held, Result<(), StoreError>) {
        let place = self.abandon();
        match file::adopt(&place) {
            Ok(connected) => (Held::Open(StoreFile::at(place, connected)), Ok(())),
            Err(error) => (Held::Closed(place), Err(error)),
        }
    }
}

impl Replacement {
    /// Begins with an empty file beside the old one, which owns the room for so many pages.
    ///
    /// # Errors
    /// Why it can not be made. The old file is as sound as it was.
    pub fn begin(held: &Held, pages: u64) -> Result<Replacement, StoreError> {
        held.place().hold()?;
        let new = NewFile::create(&held.place().paths)?;
        if let Err(error) = new.own(pages) {
            new.discard();
            return Err(error);
        }
        suspect::mark(&held.place().paths);
        Ok(Replacement { new, rows: 0 })
    }

    /// Adds the changes since the last slice, and then the slice.
    ///
    /// # Errors
    /// What failed; then this attempt is over.
    pub fn add(&mut self, held: &Held, batch: &Batch, slice: &Slice) -> Result<(), StoreError> {
        // Also for the next attempt, should this one fail: the batch comes only once.
        held.place().note(batch);
        let connection = self.new.connection();
        Tables::new(connection)
            .and_then(|mut tables| tables.apply_batch(batch))
            .and_then(|()| write_slice(connection, slice))
            .map_err(|error| self.new.error(error))?;
        self.rows += (slice.queues.len() + slice.messages.len()) as u64;
        Ok(())
    }

    /// Rows of slices that are in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Puts the new file in the old one's place and opens it. Returns the place with whatever is
    /// in it then, and where a file is kept now that somebody had put there.
    ///
    /// # Errors
    /// What failed; another attempt may follow.
    pub fn finish(self, held: Held) -> (Held, Result<Option<PathBuf>, StoreError>) {
        let place = held.place();
        let settings = self.write_settings(place).map_err(|error| self.new.error(error));
        if let Err(error) = settings.and_then(|()| place.hold()) {
            self.discard();
            return (held, Err(error));
        }
        let guard = match self.new.make_ready(&held.place().paths) {
            Ok(guard) => guard,
            Err(error) => return (held, Err(error)),
        };
        // From here on the new file is the truth, and the old one must not be written to.
        let place = held.abandon();
        let kept = match place.take_over(guard) {
            Ok(kept) => kept,
            Err(error) => return (Held::Closed(place), Err(error)),
        };
        if let Err(error) = suspect::unmark(&place.paths) {
            return (Held::Closed(place), Err(error));
        }
        match file::adopt(&place) {
            Ok(connected) => (Held::Open(StoreFile::at(place, connected)), Ok(kept)),
            Err(error) if error.remedy() == Remedy::Rewrite => (Held::Closed(place), Err(error)),
            // All is in it, and on the disk: it is connected to once there is room for that.
            Err(_) => (Held::Closed(place), Ok(kept)),
        }
    }

    fn write_settings(&self, place: &FileLocation) -> Result<()> {
        write_settings(self.new.connection(), place.settings.get(), 0)
    }

    /// Gives up and gives the disk its room back.
    pub fn discard(self) {
        self.new.discard();
    }
}

/// Puts all that was read from a file that is marked as suspect into a new one in its place, which
/// the disk has when this returns. Nobody may have the old one open.
///
/// # Errors
/// What failed; until the new file is whole the old one stays as it is.
pub(super) fn renew(
    memory: &Connection,
    paths: &Paths,
    lock: &mut Lock,
    summary: &Summary,
    progress: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let new = NewFile::create(paths)?;
    if let Err(error) = fill(&new, memory, summary, progress) {
        new.discard();
        return Err(error);
    }
    let guard = new.make_ready(paths)?;
    swap::finish(paths, lock, Some(guard)).map(drop)
}

fn fill(
    new: &NewFile,
    memory: &Connection,
    summary: &Summary,
    progress: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let mut reading = Memory::new(memory)?;
    let mut slices = Slices::begin(&mut reading)?;
    let mut messages = 0;
    loop {
        let slice = slices.next_slice(&mut reading)?;
        write_slice(new.connection(), &slice).map_err(|error| new.error(error))?;
        messages += slice.messages.len() as u64;
        progress(messages);
        if slice.last {
            break;
        }
    }
    let Summary { secret, ids_reserved, clock, clean_stop, .. } = *summary;
    write_settings(new.connection(), Settings { secret, ids_reserved, clock }, clean_stop)
        .map_err(|error| new.error(error))
}

/// A database in memory with the rows of these slices: what an engine that keeps them in another way
/// brings to a start.
///
/// # Errors
/// The error of a slice, or [`StoreError::Internal`].
pub fn filled(
    slices: impl IntoIterator<Item = std::result::Result<Slice, StoreError>>,
) -> std::result::Result<Connection, StoreError> {
    let memory = memory::connect_empty()?;
    memory.execute_batch("BEGIN").map_err(memory::failed)?;
    for slice in slices {
        write_slice(&memory, &slice?).map_err(memory::failed)?;
    }
    memory.execute_batch("COMMIT").map_err(memory::failed)?;
    Ok(memory)
}

fn write_slice(connection: &Connection, slice: &Slice) -> Result<()> {
    let mut tables = Tables::new(connection)?;
    for (id, name) in &slice.queues {
        tables.queue_named(*id, name.as_str())?;
    }
    for (message, state) in &slice.messages {
        tables.put(message)?;
        if let Some(state) = state {
            tables.moved(state)?;
        }
    }
    slice.settings.iter().try_for_each(|row| tables.queue_set(row))?;
    for row in &slice.keys {
        tables.key_taken(row.queue, &row.key, row.message, row.until)?;
    }
    slice.bindings.iter().try_for_each(|row| tables.bound(row))?;
    quarantine::keep(connection, &slice.quarantine)
}

fn write_settings(connection: &Connection, settings: Settings, clean_stop: u64) -> Result<()> {
    let mut tables = Tables::new(connection)?;
    tables.set_bytes(setting::SECRET, &settings.secret)?;
    tables.set_number(setting::IDS_RESERVED, settings.ids_reserved)?;
    settings.clock.map_or(Ok(()), |clock| tables.set_clock(clock))?;
    tables.set_number(setting::CLEAN_STOP, clean_stop)
}
