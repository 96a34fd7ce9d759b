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
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Statement};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::StoreError;
use super::ballast::Ballast;
use super::begin;
use super::guard::{Guard, Identity};
use super::lock::Lock;
use super::origin::{self, Alone, Origin};
use super::paths::Paths;
use super::probe::store_error;
use super::revival::LastCommit;
use super::room::{Allocated, allocate};
use super::schema::setting;
use super::standing::Seen;
use super::swap;
use super::tables::Tables;
use crate::journal::Batch;
use crate::words::clock::Now;

/// The database file, open and locked.
pub struct StoreFile {
    pub(super) connection: Connection,
    /// The index of its log. Dropped after the connection: whoever closes a file takes all locks of
    /// this process on it away, those of the database library included.
    _index: Option<File>,
    pub(super) place: FileLocation,
    /// File and log: somebody may put other files in their places.
    pub(super) identities: [Option<Identity>; 2],
    pub(super) seen: Cell<Seen>,
    index: Index,
}

/// Where a database is, locked for us whether it is open or not.
pub struct FileLocation {
    pub(super) paths: Paths,
    pub(super) settings: Cell<Settings>,
    /// Messages in the file, about.
    messages: Cell<u64>,
    /// Whether the mark of an orderly stop is in the file still, because a full disk kept the start
    /// from taking it away.
    pub(super) clean_mark: Cell<bool>,
    /// Where file and log stand.
    pub(super) origin: Cell<Origin>,
    /// Whether the log says which one it is: a full disk can keep it from that.
    pub(super) log_is_known: Cell<bool>,
    /// What a file that is suspect has to hold to be trusted again.
    pub(super) last_commit: Cell<Option<LastCommit>>,
    lock: RefCell<Lock>,
}

/// What a new file in this one's place has to know, beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The random secret of this database, for what peers must not be able to make up.
    pub secret: [u8; 16],
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
    /// Somebody removed it; it has been made again.
    Restored,
    /// Somebody removed it, and another process has locked the one that is there now: a second
    /// daemon does so on its way to being refused.
    Contested,
    /// Somebody removed it, and it cannot be made again now.
    Missing,
}

impl FileLocation {
    pub(super) fn new(paths: Paths, lock: Lock, settings: Settings) -> FileLocation {
        FileLocation {
            paths,
            settings: Cell::new(settings),
            messages: Cell::new(0),
            clean_mark: Cell::new(false),
            origin: Cell::default(),
            log_is_known: Cell::new(false),
            last_commit: Cell::default(),
            lock: RefCell::new(lock),
        }
    }

    /// How many messages are in the file, about: the same one may have been put twice.
    pub(super) fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Notes that so many were put and so many removed.
    pub(super) fn count(&self, put: u64, removed: u64) {
        self.messages.set((self.messages.get() + put).saturating_sub(removed));
    }

    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.paths.database()
    }

    /// Does something with the database file that needs no connection, if it is ours.
    pub(super) fn with_file<T>(&self, act: impl FnOnce(&File) -> T) -> Option<T> {
        self.with_guard(|guard| Some(act(guard.file())))
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

    /// Makes the lock file again where it is gone.
    pub(super) fn lock_file(&self) -> LockFile {
        match self.lock.borrow_mut().restore(&self.paths) {
            Ok(false) => LockFile::Held,
            Ok(true) => LockFile::Restored,
            Err(StoreError::InUse { .. }) => LockFile::Contested,
            Err(_) => LockFile::Missing,
        }
    }

    /// Gives the new file that is ready the name, which nobody is connected to. What somebody has
    /// put there meanwhile may be his only copy: it is kept under another name, which is returned.
    pub(super) fn take_over(&self, guard: Guard) -> Result<Option<PathBuf>, StoreError> {
        let mut lock = self.lock.borrow_mut();
        let kept = if lock.is_intruded() { self.paths.set_aside()? } else { None };
        swap::finish(&self.paths, &mut lock, Some(guard)).map(|_| kept)
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
    pub(super) fn at(place: FileLocation, connected: Connected) -> StoreFile {
        let Connected { connection, origin, index_file: _index, identities, index } = connected;
        place.origin.set(origin);
        // One that is moved and not marked may begin anew without a mark.
        place.log_is_known.set(!origin.needs_log());
        let seen = Cell::default();
        let file = StoreFile { connection, _index, place, identities, seen, index };
        file.log_was_moved();
        file
    }

    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Puts the log into the file and closes. The log is gone then, or it is ballast, since a disk
    /// that is full would give the next start none.
    ///
    /// # Errors
    /// What failed. Whatever was committed is in the file or in its log all the same.
    pub fn close(self) -> Result<(), StoreError> {
        self.close_in_place().1
    }

    /// The same; its place stays ours.
    pub(super) fn close_in_place(self) -> (FileLocation, Result<(), StoreError>) {
        let StoreFile { place, _index, connection, .. } = self;
        let closed = close(connection, &place);
        (place, closed)
    }

    /// Closing leaves the log as it is from now on.
    pub(super) fn keep_log(&self) {
        let _ = keep_log_on_close(&self.connection, true);
    }

    /// Whether other programs are locked out, because the disk had no room for what they need.
    pub fn locks_others_out(&self) -> bool {
        self.index == Index::Own
    }

    /// Closes a suspect file as it is; its place stays ours.
    pub fn abandon(self) -> FileLocation {
        let _ = keep_log_on_close(&self.connection, true);
        self.place
    }
}

/// A log that a huge batch has made longer than this is cut when it begins anew, in bytes.
pub(super) const LOG_KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// Enough for the index of a log of 128 MiB, in bytes.
const INDEX_BYTES: u64 = 128 * 1024;
/// How long we wait for another program that has locked the file, in milliseconds.
const BUSY_MS: u64 = 1_000;
const MOVE_ALL: &str = "PRAGMA wal_checkpoint(FULL)";

/// Bytes that the disk has left for this user.
pub(super) fn disk_free_bytes(paths: &Paths) -> Result<u64, StoreError> {
    let directory = paths.directory();
    let disk = rustix::fs::statvfs(directory)
        .map_err(|error| StoreError::system(directory, error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn close(connection: Connection, place: &FileLocation) -> Result<(), StoreError> {
    // A quota or a size limit is a full disk, and leaves the file sound.
    let failed = |error| store_error(&place.paths, error);
    let settled = origin::settle(&connection, &place.paths, place.origin.get())
        .inspect_err(|_| drop(keep_log_on_close(&connection, true)))?;
    if settled.needs_log() {
        // The file says so, and can not say otherwise now.
        keep_log_on_close(&connection, true).map_err(failed)?;
        connection.close().map_err(|(_, error)| failed(error))?;
        return Err(StoreError::Busy { file: place.path().to_path_buf() });
    }
    let (busy, _, _) =
        run_checkpoint(&mut connection.prepare(MOVE_ALL).map_err(failed)?).map_err(|error| {
            // After a failed fsync a second try would lie: closing must not try again.
            let _ = keep_log_on_close(&connection, true);
            failed(error)
        })?;
    if busy {
        // Another program reads an old state, and needs the log for it.
        connection.close().map_err(|(_, error)| failed(error))?;
        return Err(StoreError::Busy { file: place.path().to_path_buf() });
    }
    keep_log_on_close(&connection, true).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    // Who has the file open holds a lock on it, and reads the log under this name.
    let make = |file: &File| while_alone(file, || Ballast::make_of_log(&place.paths));
    place.with_file(make).flatten().unwrap_or(Ok(()))
}

/// Does something while no other program has the database open; `None` when one has. Nobody of this
/// process may be connected to it.
pub(super) fn while_alone<T>(file: &File, act: impl FnOnce() -> T) -> Option<T> {
    fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let done = act();
    let _ = fcntl_lock(file, FlockOperation::Unlock);
    Some(done)
}

/// Device and inode of the file and its log.
fn identities(paths: &Paths) -> Result<[Option<Identity>; 2], StoreError> {
    Ok([Identity::at(paths.database())?, Identity::at(&paths.wal())?])
}

/// Where the index of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// In a file beside it, so that other programs can read the database meanwhile.
    Shared,
    /// In our own memory, for a disk that has no room for that file. Others are locked out.
    Own,
}

/// Connects to an existing file. Until [`trust`] is called nothing in it is changed.
pub(super) fn connect(paths: &Paths, index: Index) -> Result<Connection, StoreError> {
    let path = paths.database();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        harden(&connection)?;
        if index == Index::Own {
            // Before anything is read.
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        }
        keep_log_on_close(&connection, true)?;
        // A page that a power cut tears while the log is moved into the file can show a row that
        // was deleted long ago, checksum and all: `origin` would take it for what the file says,
        // and refuse the log. So what is deleted is overwritten, where that costs no write.
        connection.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_KEPT_BYTES}; \
             PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; PRAGMA secure_delete = FAST;"
        ))?;
        Ok(connection)
    };
    connect().map_err(|error| StoreError::database(path, error))
}

/// A connection that may write, and what it writes to.
pub(super) struct Connected {
    connection: Connection,
    origin: Origin,
    index_file: Option<File>,
    identities: [Option<Identity>; 2],
    index: Index,
}

impl Connected {
    /// Takes over a connection that was [trusted](trust) and has committed since, so that there is
    /// a log.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the disk does not give the shared index its blocks.
    pub fn new(
        connection: Connection,
        paths: &Paths,
        index: Index,
        origin: Origin,
    ) -> Result<Connected, StoreError> {
        let index_file = match index {
            Index::Shared => Some(own_index(paths)?),
            Index::Own => None,
        };
        // The database library syncs the directory when it has made a log, and takes no notice
        // when that fails: then the log's name, and with it all commits, could go with the power.
        paths.sync_directory()?;
        let origin = origin::settle(&connection, paths, origin)?;
        // The log still stays when the connection is dropped, here or later: after a failed sync
        // another one would lie, and on a full disk the file may say that it needs the log.
        let identities = identities(paths)?;
        Ok(Connected { connection, origin, index_file, identities, index })
    }
}

/// Gives the index of the log all its blocks. The database library writes to it as memory, and a
/// write that finds no block there on a full disk ends the process.
fn own_index(paths: &Paths) -> Result<File, StoreError> {
    let path = paths.shm();
    let file = OpenOptions::new().write(true).open(&path);
    let failed = |error| StoreError::system(&path, error);
    let file = file.map_err(failed)?;
    // Beside a program that reads for long there may be no more than that, which is enough for a log
    // of 32 MiB.
    let there = file.metadata().map_err(failed)?.len();
    let owns = |bytes| bytes > 0 && allocate(&file, 0, bytes) != Allocated::No;
    if owns(INDEX_BYTES) || owns(there) {
        Ok(file)
    } else {
        Err(failed(std::io::ErrorKind::StorageFull.into()))
    }
}

/// Connects to a sound file in its place, after we have written it or found it so, and commits to
/// it for the first time.
pub(super) fn adopt(place: &FileLocation) -> Result<Connected, StoreError> {
    let paths = &place.paths;
    begin::with_index(paths, |index| {
        let alone = Alone::look(paths)?;
        let connection = connect(paths, index)?;
        let stand = alone.with_log(&connection, paths)?;
        let origin = stand.wanted()?;
        let first_commit = |connection: &Connection| {
            let commit = || {
                let more = |tables: &mut Tables<'_>| tables.set_number(setting::TICK, 0);
                begin::commit_origin(connection, paths, origin, |_| Ok(()), more)
            };
            let committed = begin::commit_or_do_without(connection, paths, commit)?;
            Ok(((), if committed.is_some() { origin } else { stand.found()? }))
        };
        place
            .with_guard(|guard| {
                let file = Some(guard.file());
                Some(begin::start_writing(paths, file, (connection, index), first_commit))
            })
            .unwrap_or_else(|| Err(StoreError::Replaced { file: place.path().to_path_buf() }))
            .map(|(connected, ())| connected)
    })
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
