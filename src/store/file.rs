//! The database file: connecting to it and closing it.
//!
//! Owned by the persistence thread. Other programs may read the file meanwhile, so locking is the
//! normal kind; the [`Lock`] keeps a second daemon out.
//!
//! # Failure
//!
//! A file that is suspect is closed as it is: nothing moves its log into it. Its place stays ours,
//! so that a new one can be put there.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Statement};

use super::StoreError;
use super::guard::{Guard, Identity};
use super::lock::Lock;
use super::paths::Paths;
use super::rewrite;
use super::schema::setting;
use super::standing::Seen;
use super::tables::Tables;
use crate::clock::Now;
use crate::journal::Batch;

/// The database file, open and locked.
pub struct StoreFile {
    pub(super) connection: Connection,
    pub(super) place: Place,
    /// File and log: somebody may put other files in their places.
    pub(super) identities: [Option<Identity>; 2],
    pub(super) seen: Cell<Seen>,
}

/// Where a database is, locked for us whether it is open or not.
pub struct Place {
    pub(super) paths: Paths,
    pub(super) settings: Cell<Settings>,
    lock: RefCell<Lock>,
}

/// What a new file in this one's place has to know, beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The key of the hash in php-mq message ids.
    pub message_key: [u8; 16],
    /// Ids below this one may have been handed out.
    pub ids_reserved: u64,
    /// How the clock stood when that was last committed.
    pub clock: Option<Now>,
}

/// How large everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes that the disk has left for this user.
    pub disk_free_bytes: u64,
    /// How many names the database file has.
    pub links: u64,
    /// What there is of the lock file.
    pub lock_file: LockFile,
}

/// What was found of the lock file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockFile {
    /// It is ours.
    #[default]
    Held,
    /// Somebody has removed it; it was made again.
    Restored,
    /// Somebody has removed it, and it can not be made again now.
    Missing,
}

impl Place {
    pub(super) fn new(paths: Paths, lock: Lock, settings: Settings) -> Place {
        Place { paths, settings: Cell::new(settings), lock: RefCell::new(lock) }
    }

    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.paths.database()
    }

    /// Makes sure that it is ours still: somebody may have removed the lock, or another daemon
    /// may have the directory or the file that has this name now.
    pub(super) fn hold(&self) -> Result<(), StoreError> {
        self.lock.borrow_mut().hold(&self.paths)
    }

    /// Asks the guard of the database something.
    pub(super) fn with_guard<T>(&self, ask: impl FnOnce(&Guard) -> Option<T>) -> Option<T> {
        self.lock.borrow().guarded().and_then(ask)
    }

    /// Looks after the lock file.
    pub(super) fn lock_file(&self) -> LockFile {
        match self.lock.borrow_mut().restore(&self.paths) {
            Ok(false) => LockFile::Held,
            Ok(true) => LockFile::Restored,
            Err(_) => LockFile::Missing,
        }
    }

    /// Gives the new file that is ready the name, which nobody is connected to. What somebody has
    /// put there meanwhile may be his only copy: it is kept under another name, which is returned.
    pub(super) fn take_over(&self, guard: Guard) -> Result<Option<PathBuf>, StoreError> {
        let mut lock = self.lock.borrow_mut();
        let kept = if lock.is_intruded() { self.paths.set_aside()? } else { None };
        rewrite::finish(&self.paths, &mut lock, Some(guard)).map(|_| kept)
    }

    /// Notes what a batch says of ids and the clock.
    pub(super) fn note(&self, batch: &Batch) {
        let settings = self.settings.get();
        let ids_reserved = settings.ids_reserved.max(batch.ids_reserved().unwrap_or(0));
        let clock = batch.clock().or(settings.clock);
        self.settings.set(Settings { ids_reserved, clock, ..settings });
    }
}

impl StoreFile {
    /// Keeps a file that is connected to at this place.
    pub(super) fn at(place: Place, connected: Connected) -> StoreFile {
        let Connected { connection, identities } = connected;
        let file = StoreFile { connection, place, identities, seen: Cell::default() };
        file.log_was_moved();
        file
    }

    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Puts the log into the file, removes it and closes.
    ///
    /// # Errors
    /// What failed. Whatever was committed is in the file or in its log all the same.
    pub fn close(self) -> Result<(), StoreError> {
        self.close_in_place().1
    }

    /// The same; its place stays ours.
    pub(super) fn close_in_place(self) -> (Place, Result<(), StoreError>) {
        let StoreFile { connection, place, .. } = self;
        let closed = close(connection, place.path());
        (place, closed)
    }

    /// Closing leaves the log as it is from now on.
    pub(super) fn keep_log(&self) {
        let _ = keep_log_on_close(&self.connection, true);
    }

    /// Closes a suspect file as it is; its place stays ours.
    pub fn abandon(self) -> Place {
        let _ = keep_log_on_close(&self.connection, true);
        self.place
    }
}

/// A log that a huge batch has made longer than this is cut when it begins anew, in bytes.
pub(super) const LOG_KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// How long we wait for another program that has locked the file, in milliseconds.
const BUSY_MS: u64 = 1_000;
const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

fn close(connection: Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::database(path, error);
    let (busy, _, _) =
        run_checkpoint(&mut connection.prepare(TRUNCATE).map_err(failed)?).map_err(|error| {
            // After a failed fsync a second try would lie: closing must not try again.
            let _ = keep_log_on_close(&connection, true);
            failed(error)
        })?;
    connection.close().map_err(|(_, error)| failed(error))?;
    if busy { Err(StoreError::Busy { file: path.to_path_buf() }) } else { Ok(()) }
}

/// Device and inode of the file and its log.
fn identities(paths: &Paths) -> Result<[Option<Identity>; 2], StoreError> {
    Ok([Identity::at(paths.database())?, Identity::at(&paths.wal())?])
}

/// Connects to an existing file. Until [`trust`] is called nothing in it is changed.
pub(super) fn connect(paths: &Paths) -> Result<Connection, StoreError> {
    let path = paths.database();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        harden(&connection)?;
        keep_log_on_close(&connection, true)?;
        connection.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_KEPT_BYTES}; \
             PRAGMA synchronous = FULL; PRAGMA cache_size = -4096;"
        ))?;
        Ok(connection)
    };
    connect().map_err(|error| StoreError::database(path, error))
}

/// A connection that may write, and what it writes to.
pub(super) struct Connected {
    connection: Connection,
    identities: [Option<Identity>; 2],
}

impl Connected {
    /// Takes over a connection that was [trusted](trust) and has committed since, so that there is
    /// a log.
    pub fn new(connection: Connection, paths: &Paths) -> Result<Connected, StoreError> {
        // The database library syncs the directory when it has made a log, and takes no notice
        // when that fails: then the log's name, and with it all commits, could go with the power.
        paths.sync_directory()?;
        // Not before: a connection that is dropped because its first sync has failed would sync
        // once more, which lies, and move what the disk does not have into the file.
        keep_log_on_close(&connection, false)
            .map_err(|error| StoreError::database(paths.database(), error))?;
        Ok(Connected { connection, identities: identities(paths)? })
    }
}

/// Connects to a file that we have just written and put in its place.
pub(super) fn adopt(paths: &Paths) -> Result<Connected, StoreError> {
    let connection = connect(paths)?;
    trust(&connection, paths)?;
    // The first commit makes the log.
    Tables::new(&connection)
        .and_then(|mut tables| tables.set_number(setting::TICK, 0))
        .map_err(|error| StoreError::database(paths.database(), error))?;
    Connected::new(connection, paths)
}

/// Makes a connection ready for writing, once the file has been found sound. Closing it leaves the
/// log as it is until it is [`Connected`].
pub(super) fn trust(connection: &Connection, paths: &Paths) -> Result<(), StoreError> {
    let path = paths.database();
    let failed = |error| StoreError::database(path, error);
    let switch = || {
        // To its end: the change is committed after the answer, and may fail then.
        let mut switching = connection.prepare("PRAGMA journal_mode = WAL")?;
        let mut rows = switching.query([])?;
        while rows.next()?.is_some() {}
        connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))
    };
    let mode = switch().map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::NoWriteAheadLog { file: path.to_path_buf() });
    }
    Ok(())
}

/// What a file says about itself must not make the database library do things.
pub(super) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    connection.execute_batch("PRAGMA cell_size_check = ON;")
}

/// Whether closing leaves the log as it is.
pub(super) fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

/// Whether it was held up by a lock, frames in the log, frames of it that are in the file.
pub(super) fn run_checkpoint(statement: &mut Statement<'_>) -> rusqlite::Result<(bool, u32, u32)> {
    let frames = |number: i64| u32::try_from(number).unwrap_or(0);
    statement.query_row([], |row| {
        Ok((row.get::<_, i64>(0)? != 0, frames(row.get(1)?), frames(row.get(2)?)))
    })
}
