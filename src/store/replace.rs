//! A new file in the place of a suspect one, filled with what the dispatcher sends.
//!
//! Owned by the persistence thread.
//!
//! # Failure
//!
//! Until [`Replacement::finish`] has made it the truth, the old file stays what a restart finds;
//! an attempt that fails is thrown away. After that the new file is what a restart finds, also
//! when it can not be opened now.

use std::path::Path;

use super::StoreError;
use super::file::{self, Place, StoreFile};
use super::rewrite::{self, NewFile};
use super::schema::setting;
use super::slice::Slice;
use super::tables::Tables;
use crate::journal::Batch;

/// The database's place, with an open file in it or not.
pub enum Held {
    /// With a file, which may be suspect.
    Open(StoreFile),
    /// Without one that could be used.
    Closed(Place),
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

    fn place(&self) -> &Place {
        match self {
            Held::Open(file) => &file.place,
            Held::Closed(place) => place,
        }
    }

    /// Closes a suspect file as it is; its place stays ours.
    pub fn abandon(self) -> Place {
        match self {
            Held::Open(file) => file.abandon(),
            Held::Closed(place) => place,
        }
    }
}

impl Replacement {
    /// Begins with an empty file beside the old one.
    ///
    /// # Errors
    /// Why it can not be made.
    pub fn begin(held: &Held) -> Result<Replacement, StoreError> {
        held.place().hold()?;
        Ok(Replacement { new: NewFile::create(&held.place().paths)?, rows: 0 })
    }

    /// Adds the changes since the last slice, and then the slice.
    ///
    /// # Errors
    /// What failed; then this attempt is over.
    pub fn add(&mut self, held: &Held, batch: &mut Batch, slice: &Slice) -> Result<(), StoreError> {
        if let Some(up_to) = batch.ids_reserved() {
            // Also for the next attempt, should this one fail: the batch comes only once.
            held.place().ids_are_reserved(up_to);
        }
        self.write(batch, slice).map_err(|error| self.new.error(error))?;
        self.rows += (slice.queues.len() + slice.messages.len()) as u64;
        Ok(())
    }

    fn write(&self, batch: &mut Batch, slice: &Slice) -> rusqlite::Result<()> {
        let mut tables = Tables::new(self.new.connection())?;
        tables.apply_batch(batch)?;
        for (id, name) in &slice.queues {
            tables.queue_named(*id, name.as_str())?;
        }
        for (message, state) in &slice.messages {
            tables.put(message)?;
            if let Some(state) = state {
                tables.moved(state)?;
            }
        }
        Ok(())
    }

    /// Rows of slices that are in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Puts the new file in the old one's place and opens it. Returns the place with whatever is
    /// in it then.
    ///
    /// # Errors
    /// What failed; another attempt may follow.
    pub fn finish(self, held: Held) -> (Held, Result<(), StoreError>) {
        let place = held.place();
        let settings = self.write_settings(place).map_err(|error| self.new.error(error));
        if let Err(error) = settings.and_then(|()| place.hold()) {
            self.discard();
            return (held, Err(error));
        }
        if let Err(error) = self.new.make_ready(&held.place().paths) {
            return (held, Err(error));
        }
        // From here on the new file is the truth, and the old one must not be written to.
        let place = held.abandon();
        if let Err(error) = rewrite::finish(&place.paths) {
            return (Held::Closed(place), Err(error));
        }
        match file::adopt(&place.paths) {
            Ok(connected) => (Held::Open(StoreFile::at(place, connected)), Ok(())),
            Err(error) => (Held::Closed(place), Err(error)),
        }
    }

    fn write_settings(&self, place: &Place) -> rusqlite::Result<()> {
        let settings = place.settings.get();
        let mut tables = Tables::new(self.new.connection())?;
        tables.set_bytes(setting::MESSAGE_KEY, &settings.message_key)?;
        tables.set_number(setting::IDS_RESERVED, settings.ids_reserved)?;
        tables.set_number(setting::CLEAN_STOP, 0)
    }

    /// Gives up and gives the disk its room back.
    pub fn discard(self) {
        self.new.discard();
    }
}
