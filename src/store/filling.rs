//! A new database that is filled from elsewhere before it takes its place.
//!
//! # Failure
//!
//! Until [`Filling::finish`] there is no database of that name; what was written is deleted by the
//! next start.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use super::StoreError;
use super::load::random_key;
use super::lock::Lock;
use super::paths::{Paths, file_bytes};
use super::schema::setting;
use super::swap::{self, NewFile};
use super::tables::Tables;
use crate::words::change::{MessageRow, StateRow};
use crate::words::ids::{QueueId, QueueName};

/// A new database on its way, locked.
pub struct Filling {
    paths: Paths,
    new: NewFile,
    lock: Lock,
}

impl Filling {
    /// Begins where there is no database; `None` where there is one.
    ///
    /// # Errors
    /// Why none can be made, or that another daemon has it.
    pub fn begin(path: &Path) -> Result<Option<Filling>, StoreError> {
        let paths = Paths::of(path)?;
        let mut lock = Lock::take(&paths)?;
        swap::finish(&paths, &mut lock, None)?;
        if file_bytes(paths.database())? > 0 || file_bytes(&paths.wal())? > 0 {
            return Ok(None);
        }
        let new = NewFile::create(&paths)?;
        Ok(Some(Filling { paths, new, lock }))
    }

    /// Adds queues.
    ///
    /// # Errors
    /// What failed.
    pub fn add_queues(
        &mut self,
        queues: impl Iterator<Item = (QueueId, QueueName)>,
    ) -> Result<(), StoreError> {
        let write = |connection| {
            let mut tables = Tables::new(connection)?;
            queues.into_iter().try_for_each(|(id, name)| tables.queue_named(id, name.as_str()))
        };
        write(self.new.connection()).map_err(|error| self.new.error(error))
    }

    /// Adds messages, each with its state if it is not the one it was put with.
    ///
    /// # Errors
    /// What failed.
    pub fn add_messages(
        &mut self,
        rows: &[(MessageRow, Option<StateRow>)],
    ) -> Result<(), StoreError> {
        let write = |connection| {
            let mut tables = Tables::new(connection)?;
            for (message, state) in rows {
                tables.put(message)?;
                if let Some(state) = state {
                    tables.moved(state)?;
                }
            }
            Ok(())
        };
        write(self.new.connection()).map_err(|error| self.new.error(error))
    }

    /// Puts it in its place. The disk has it when this returns. `next_id` is the first id that a
    /// message may be given.
    ///
    /// # Errors
    /// What failed.
    pub fn finish(mut self, next_id: u64) -> Result<(), StoreError> {
        let key = random_key()?;
        let write = |connection| {
            let mut tables = Tables::new(connection)?;
            tables.set_bytes(setting::SECRET, &key)?;
            tables.set_number(setting::IDS_RESERVED, next_id)?;
            tables.set_number(setting::CLEAN_STOP, next_id)
        };
        write(self.new.connection()).map_err(|error| self.new.error(error))?;
        let guard = self.new.make_ready(&self.paths)?;
        swap::finish(&self.paths, &mut self.lock, Some(guard)).map(drop)
    }
}

/// Whether there is a database of this name, or one that only waits for its place.
pub fn exists(path: &Path) -> bool {
    let there = |paths: &Paths| {
        [paths.database().to_path_buf(), paths.wal(), paths.ready()]
            .iter()
            .any(|path| file_bytes(path).is_ok_and(|bytes| bytes > 0))
    };
    Paths::of(path).is_ok_and(|paths| there(&paths))
}

/// Gives a file to the owner of its directory, as far as this user may: what root prepares must be
/// open to the daemon's user.
pub fn share_owner(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(owner) = fs::metadata(directory.unwrap_or(Path::new("."))) {
        // Not what a link leads to that somebody has put in its place.
        let _ = lchown(path, Some(owner.uid()), Some(owner.gid()));
    }
}
