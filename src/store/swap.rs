//! Puts a whole new file in the database's place, so that a crash at any moment leaves either the
//! old one or the new one, complete.
//!
//! ```text
//!   NAME.new    being written: worth nothing, deleted by the next start
//!      │ closed (it never had a log of its own), fsync
//!      ▼ rename, fsync of the directory
//!   NAME.ready  the truth from here on, whatever else there is
//!      │ NAME-wal and NAME-shm are removed, fsync of the directory
//!      ▼ rename, fsync of the directory
//!   NAME
//! ```
//!
//! The two steps are needed: SQLite would replay a log that was left behind into a new file of the
//! same name, and removing the log first would lose what only it holds.
//!
//! # Failure
//!
//! Before `NAME.ready` exists any error leaves the old file as it was. After that an error leaves
//! `NAME.ready`, which [`finish`] takes up again, at the latest at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::guard::Guard;
use super::lock::{Lock, create_error};
use super::origin::random_cookie;
use super::paths::{FILE_MODE, Paths, file_bytes, remove_if_there, rename};
use super::probe::store_error;
use super::room::{Allocated, allocate};
use super::schema::{self, PAGE_BYTES};

/// Whether a new file is the truth already, and not in its place yet.
pub(super) fn is_begun(paths: &Paths) -> bool {
    // Where that can not be known, nothing is done to the old one.
    fs::exists(paths.ready()).unwrap_or(true)
}

/// A new database on its way; dropped before [`NewFile::make_ready`] it is worth nothing.
pub(super) struct NewFile {
    connection: Connection,
    path: PathBuf,
    paths: Paths,
    /// Dropped after the connection. Nobody else has the file at any moment of its life.
    guard: Guard,
}

impl NewFile {
    /// Makes `NAME.new` with empty tables, in a transaction that [`NewFile::make_ready`] ends.
    ///
    /// # Errors
    /// Why it can not be made.
    pub fn create(paths: &Paths) -> Result<NewFile, StoreError> {
        let path = paths.new_file();
        remove_if_there(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| create_error(&path, error))?;
        keep_owner(paths, &file);
        let guard = Guard::of(file, &path)?;
        let connection = NewFile::begin(paths).inspect_err(|_| {
            // Another attempt begins with another file.
            let _ = remove_if_there(&path);
        })?;
        Ok(NewFile { connection, path, paths: paths.clone(), guard })
    }

    /// Connects to the empty file and makes the tables.
    fn begin(paths: &Paths) -> Result<Connection, StoreError> {
        let path = paths.new_file();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |error| store_error(paths, error);
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        // Nothing of this needs to be safe before it is whole: no journal, one fsync at the end.
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE_BYTES}; PRAGMA locking_mode = EXCLUSIVE; \
                 PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; \
                 PRAGMA foreign_keys = OFF;"
            ))
            .map_err(failed)?;
        schema::create(&connection).map_err(failed)?;
        let cookie = random_cookie()?;
        connection.execute_batch(&format!("PRAGMA schema_version = {cookie}")).map_err(failed)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        Ok(connection)
    }

    /// Has it own the room for so many pages before anything depends on it.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the disk does not have so much. Where a file system cannot tell, it
    /// shows while the file is written.
    pub fn own(&self, pages: u64) -> Result<(), StoreError> {
        let bytes = pages.saturating_mul(u64::from(PAGE_BYTES));
        match allocate(self.guard.file(), 0, bytes.max(1)) {
            Allocated::Yes | Allocated::Unknown => Ok(()),
            Allocated::No => Err(StoreError::system(&self.path, ErrorKind::StorageFull.into())),
        }
    }

    /// For writing into it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// An error of the connection.
    pub fn error(&self, error: rusqlite::Error) -> StoreError {
        store_error(&self.paths, error)
    }

    /// Gives up and gives the disk its room back.
    pub fn discard(self) {
        let NewFile { connection, path, guard, .. } = self;
        drop(connection);
        drop(guard);
        // What is left is deleted by the next attempt or the next start.
        let _ = remove_if_there(&path);
    }

    /// Closes it and makes it `NAME.ready`, the truth. [`finish`] has to follow, as soon as nobody
    /// has the old file open any more, with the guard that is returned.
    ///
    /// # Errors
    /// What failed; the old file is still the truth unless `NAME.ready` exists.
    pub fn make_ready(self, paths: &Paths) -> Result<Guard, StoreError> {
        let NewFile { connection, path, guard, .. } = self;
        let failed = |error| store_error(paths, error);
        let finish = || {
            connection.execute_batch("COMMIT").map_err(failed)?;
            connection.close().map_err(|(_, error)| failed(error))?;
            guard.file().sync_all().map_err(|error| StoreError::system(&path, error))?;
            rename(&path, &paths.ready())
        };
        if let Err(error) = finish() {
            // It would take the room that it has lacked until the next attempt.
            let _ = remove_if_there(&path);
            return Err(error);
        }
        paths.sync_directory()?;
        Ok(guard)
    }
}

/// Keeps the old file's owner and mode: a repair by root must not lock the daemon's user out.
fn keep_owner(paths: &Paths, file: &File) {
    paths.give_to_owner(file);
    if let Ok(old) = fs::metadata(paths.database()) {
        let _ = file.set_permissions(old.permissions());
    }
}

/// Puts `NAME.ready` in the database's place if there is one, and deletes what an interrupted
/// rewrite has left. Says whether there was one. Nobody may have the database open. `ready` is the
/// guard of `NAME.ready` where that was made just now.
///
/// # Errors
/// What failed; it can be called again.
pub(super) fn finish(
    paths: &Paths,
    lock: &mut Lock,
    ready: Option<Guard>,
) -> Result<bool, StoreError> {
    let was_ready = file_bytes(&paths.ready())? > 0;
    if was_ready {
        let guard = match ready {
            Some(guard) => Some(guard),
            None => Guard::take(&paths.ready())?,
        };
        remove_if_there(&paths.wal())?;
        remove_if_there(&paths.shm())?;
        paths.sync_directory()?;
        rename(&paths.ready(), paths.database())?;
        // Locked before it had this name, and the old one until it had lost it.
        guard.into_iter().for_each(|guard| lock.guard(guard));
        paths.sync_directory()?;
    }
    remove_if_there(&paths.new_file())?;
    remove_if_there(&paths.probe())?;
    Ok(was_ready)
}

#[cfg(test)]
mod tests {
    use super::super::testing::paths;
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn finish(paths: &Paths) -> Result<bool, StoreError> {
        super::finish(paths, &mut Lock::take(paths)?, None)
    }

    fn user_rows(paths: &Paths) -> i64 {
        let connection = Connection::open(paths.database()).unwrap();
        connection.query_row("SELECT count(*) FROM queue", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_finished_rewrite_replaces_the_file_and_its_log() {
        let (_directory, paths) = paths();
        fs::write(paths.database(), b"old").unwrap();
        fs::write(paths.wal(), b"old log").unwrap();
        let new = NewFile::create(&paths).unwrap();
        new.connection().execute("INSERT INTO queue VALUES (1, 'a', 0)", []).unwrap();
        new.make_ready(&paths).unwrap();
        assert_eq!(fs::read(paths.database()).unwrap(), b"old");
        assert!(finish(&paths).unwrap());
        assert!(!paths.wal().exists() && !paths.ready().exists() && !paths.new_file().exists());
        assert_eq!(user_rows(&paths), 1);
    }

    #[test]
    fn an_unfinished_new_file_is_deleted_and_the_old_one_kept() {
        let (_directory, paths) = paths();
        fs::write(paths.database(), b"old").unwrap();
        drop(NewFile::create(&paths).unwrap());
        assert!(paths.new_file().exists());
        assert!(!finish(&paths).unwrap());
        assert!(!paths.new_file().exists());
        assert_eq!(fs::read(paths.database()).unwrap(), b"old");
    }

    #[test]
    fn a_ready_file_wins_at_every_step_of_taking_its_place() {
        for step in 0..3 {
            let (_directory, paths) = paths();
            fs::write(paths.database(), b"old").unwrap();
            fs::write(paths.wal(), b"old log").unwrap();
            fs::write(paths.shm(), b"old index").unwrap();
            NewFile::create(&paths).unwrap().make_ready(&paths).unwrap();
            if step > 0 {
                fs::remove_file(paths.wal()).unwrap();
            }
            if step > 1 {
                fs::remove_file(paths.shm()).unwrap();
            }
            assert!(finish(&paths).unwrap(), "step {step}");
            assert_eq!(user_rows(&paths), 0, "step {step}");
            assert!(!finish(&paths).unwrap(), "nothing is left to do");
        }
    }

    #[test]
    fn a_new_file_keeps_the_old_ones_mode_and_others_are_for_the_group() {
        let (_directory, paths) = paths();
        let mode = |paths: &Paths| fs::metadata(paths.database()).unwrap().mode() & 0o777;
        NewFile::create(&paths).unwrap().make_ready(&paths).unwrap();
        finish(&paths).unwrap();
        assert_eq!(mode(&paths) & 0o707, 0o600);
        fs::set_permissions(paths.database(), fs::Permissions::from_mode(0o600)).unwrap();
        NewFile::create(&paths).unwrap().make_ready(&paths).unwrap();
        finish(&paths).unwrap();
        assert_eq!(mode(&paths), 0o600);
    }
}
