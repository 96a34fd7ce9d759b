//! The database file: connecting to it, committing batches, checkpoints, closing.
//!
//! Owned by the persistence thread. Other programs may read the file meanwhile, so locking is the
//! normal kind; the [`Lock`] keeps a second daemon out.
//!
//! # Failure
//!
//! A commit that fails is rolled back whole. Checkpoints are never automatic: SQLite would swallow
//! their errors, and a second try after a failed fsync would lie about what is on the disk. A file
//! that is suspect is neither checkpointed nor, when it is closed, emptied of its log.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result, Statement};

use super::StoreError;
use super::lock::Lock;
use super::paths::{Paths, file_bytes, remove_if_there};
use super::schema::{PAGE_BYTES, setting};
use super::tables::Tables;
use crate::journal::Batch;

/// The database file, open and locked.
pub struct StoreFile {
    connection: Connection,
    paths: Paths,
    lock: Lock,
    /// Device and inode of file and log: somebody may put other files in their places.
    identities: [(u64, u64); 2],
}

/// The statements for the file, which they borrow.
pub struct File<'c> {
    file: &'c StoreFile,
    tables: Tables<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    log_frames: Statement<'c>,
    checkpoint: Statement<'c>,
    /// Whether commits fsync now (`synchronous = FULL`).
    syncing: bool,
    /// Whether something was committed since the last fsync.
    unsynced: bool,
    tick: u64,
    /// Frames in the log when it was last checkpointed; 0 once it has begun anew.
    checkpointed_frames: u32,
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
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The log is short: there was nothing to do.
    NotDue,
    /// The whole log is in the file.
    Complete,
    /// Somebody who reads the file holds a part of the log.
    HeldUp,
}

impl StoreFile {
    /// Takes over a connection that was [trusted](trust) and has committed since.
    pub(super) fn new(
        connection: Connection,
        paths: Paths,
        lock: Lock,
    ) -> Result<StoreFile, StoreError> {
        let identities = identities(&paths)?;
        Ok(StoreFile { connection, paths, lock, identities })
    }

    /// The name of the database.
    pub fn path(&self) -> &Path {
        self.paths.database()
    }

    /// How large everything is now.
    ///
    /// # Errors
    /// What the system said; [`StoreError::Replaced`] when commits reach no file any more that the
    /// next start would find. The last program that closes an old file of this name removes a log
    /// of this name, for one.
    pub fn sizes(&self) -> Result<Sizes, StoreError> {
        if identities(&self.paths)? != self.identities {
            return Err(StoreError::Replaced { file: self.path().to_path_buf() });
        }
        let directory = self.paths.directory();
        let disk = rustix::fs::statvfs(directory)
            .map_err(|error| StoreError::system(directory, error.into()))?;
        Ok(Sizes {
            file_bytes: file_bytes(self.path())?,
            wal_bytes: file_bytes(&self.paths.wal())?,
            disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        })
    }

    /// Puts the log into the file, removes it and closes.
    ///
    /// # Errors
    /// What failed. Whatever was committed is in the file or in its log all the same.
    pub fn close(self) -> Result<(), StoreError> {
        let StoreFile { connection, paths, lock, .. } = self;
        let failed = |error| StoreError::database(paths.database(), error);
        let (busy, _, _) = run_checkpoint(&mut connection.prepare(TRUNCATE).map_err(failed)?)
            .map_err(|error| {
                // After a failed fsync a second try would lie: closing must not try again.
                let _ = keep_log_on_close(&connection, true);
                failed(error)
            })?;
        connection.close().map_err(|(_, error)| failed(error))?;
        drop(lock);
        if busy { Err(StoreError::Busy { file: paths.database().to_path_buf() }) } else { Ok(()) }
    }

    /// Closes a suspect file as it is.
    pub fn abandon(self) {
        let StoreFile { connection, .. } = self;
        let _ = keep_log_on_close(&connection, true);
    }
}

impl<'c> File<'c> {
    /// Prepares the statements.
    ///
    /// # Errors
    /// What the database library said.
    pub fn new(file: &'c StoreFile) -> Result<File<'c>, StoreError> {
        let failed = |error| StoreError::database(file.path(), error);
        let connection = &file.connection;
        // An unknown state, which the first commit of either kind sets.
        connection.execute_batch("PRAGMA synchronous = FULL").map_err(failed)?;
        let prepare = |sql| connection.prepare(sql).map_err(failed);
        Ok(File {
            file,
            tables: Tables::new(connection).map_err(failed)?,
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            log_frames: prepare("PRAGMA wal_checkpoint(NOOP)")?,
            checkpoint: prepare("PRAGMA wal_checkpoint(PASSIVE)")?,
            syncing: true,
            unsynced: false,
            tick: 0,
            checkpointed_frames: 0,
        })
    }

    /// Commits a batch whole. With `sync` it is on the disk afterwards, and with it all that was
    /// committed before.
    ///
    /// # Errors
    /// What failed; then nothing of the batch is in the file, unless the error makes the file
    /// suspect.
    pub fn commit(&mut self, batch: &mut Batch, sync: bool) -> Result<(), StoreError> {
        if batch.is_empty() && !(sync && self.unsynced) {
            return Ok(());
        }
        match self.write(batch, sync) {
            Ok(()) => {
                self.unsynced = !sync;
                Ok(())
            }
            Err(error) => {
                if !self.file.connection.is_autocommit() {
                    // When this fails, the transaction is rolled back already or the next BEGIN
                    // says what is wrong.
                    let _ = self.rollback.raw_execute();
                }
                Err(self.error(error))
            }
        }
    }

    fn write(&mut self, batch: &mut Batch, sync: bool) -> Result<()> {
        self.set_syncing(sync)?;
        self.begin.raw_execute()?;
        for (id, name) in batch.queues_named() {
            self.tables.queue_named(id, name.as_str())?;
        }
        for id in batch.removals() {
            self.tables.removed(*id)?;
        }
        for row in batch.puts() {
            self.tables.put(row)?;
        }
        for row in batch.states() {
            self.tables.moved(row)?;
        }
        for id in batch.queues_gone() {
            self.tables.queue_gone(*id)?;
        }
        if let Some(up_to) = batch.ids_reserved() {
            self.tables.set_number(setting::IDS_RESERVED, up_to)?;
        }
        if let Some(next_id) = batch.clean_stop() {
            self.tables.set_number(setting::CLEAN_STOP, next_id)?;
        }
        if batch.is_empty() {
            // An empty transaction would not fsync.
            self.tick += 1;
            self.tables.set_number(setting::TICK, self.tick)?;
        }
        self.commit.raw_execute()?;
        Ok(())
    }

    fn set_syncing(&mut self, sync: bool) -> Result<()> {
        if self.syncing != sync {
            let level = if sync { "FULL" } else { "NORMAL" };
            self.file.connection.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
            self.syncing = sync;
        }
        Ok(())
    }

    /// Moves the log into the file when it has grown by [`LOG_FRAMES_MAX`] since the last time.
    ///
    /// # Errors
    /// What failed. Unless the disk is full the file is suspect from then on, for a later fsync
    /// may succeed without having written anything.
    pub fn checkpoint_if_due(&mut self) -> Result<Checkpoint, StoreError> {
        self.checkpoint().map_err(|error| self.error(error))
    }

    fn checkpoint(&mut self) -> Result<Checkpoint> {
        let (_, frames, _) = run_checkpoint(&mut self.log_frames)?;
        if frames < self.checkpointed_frames {
            self.checkpointed_frames = 0;
        }
        // A log that a reader holds up only grows: it is not looked at after each commit.
        if frames - self.checkpointed_frames < LOG_FRAMES_MAX {
            return Ok(Checkpoint::NotDue);
        }
        let (_, frames, moved) = run_checkpoint(&mut self.checkpoint)?;
        self.checkpointed_frames = frames;
        Ok(if moved == frames { Checkpoint::Complete } else { Checkpoint::HeldUp })
    }

    /// From now on nothing moves the log into the file, closing included. Returns the answer to
    /// further commits.
    pub fn distrust(&mut self) -> StoreError {
        let _ = keep_log_on_close(&self.file.connection, true);
        StoreError::Suspect { file: self.file.path().to_path_buf() }
    }

    /// How large everything is now.
    ///
    /// # Errors
    /// What the system said.
    pub fn sizes(&self) -> Result<Sizes, StoreError> {
        self.file.sizes()
    }

    fn error(&self, error: rusqlite::Error) -> StoreError {
        let is_io = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
        let is_write = error
            .sqlite_extended_error_code()
            .is_some_and(|code| matches!(code, IOERR_WRITE | IOERR_TRUNCATE | IOERR_SHMSIZE));
        if is_io
            && is_write
            && let Err(full) = probe_growth(&self.file.paths)
        {
            return full;
        }
        StoreError::database(self.file.path(), error)
    }
}

/// The log is moved into the file when it has grown by 4 MB: a larger one makes commits slower
/// (133 µs each at 4 MB, 218 µs at 64 MB) and its checkpoints stalls of 100 ms.
pub const LOG_FRAMES_MAX: u32 = 4 * 1024 * 1024 / PAGE_BYTES;
/// A log that a huge batch has made longer than this is cut when it begins anew, in bytes.
const LOG_KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// How long we wait for another program that has locked the file, in milliseconds.
const BUSY_MS: u64 = 1_000;
const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
// Extended result codes that also stand for a full disk.
const IOERR_WRITE: i32 = rusqlite::ffi::SQLITE_IOERR_WRITE;
const IOERR_TRUNCATE: i32 = rusqlite::ffi::SQLITE_IOERR_TRUNCATE;
const IOERR_SHMSIZE: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Device and inode of the file and its log. One that is gone is no file at all.
fn identities(paths: &Paths) -> Result<[(u64, u64); 2], StoreError> {
    let identity = |path: &Path| match std::fs::metadata(path) {
        Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((0, 0)),
        Err(error) => Err(StoreError::system(path, error)),
    };
    Ok([identity(paths.database())?, identity(&paths.wal())?])
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
            "PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_KEPT_BYTES}; \
             PRAGMA synchronous = FULL; PRAGMA cache_size = -4096;"
        ))?;
        Ok(connection)
    };
    connect().map_err(|error| StoreError::database(path, error))
}

/// Makes a connection ready for writing, once the file has been found sound.
pub(super) fn trust(connection: &Connection, paths: &Paths) -> Result<(), StoreError> {
    let path = paths.database();
    let failed = |error| StoreError::database(path, error);
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::NoWriteAheadLog { file: path.to_path_buf() });
    }
    keep_log_on_close(connection, false).map_err(failed)
}

/// What a file says about itself must not make the database library do things.
pub(super) fn harden(connection: &Connection) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    connection.execute_batch("PRAGMA cell_size_check = ON;")
}

fn keep_log_on_close(connection: &Connection, keep: bool) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

/// Whether it was held up by a lock, frames in the log, frames of it that are in the file.
fn run_checkpoint(statement: &mut Statement<'_>) -> Result<(bool, u32, u32)> {
    let frames = |number: i64| u32::try_from(number).unwrap_or(0);
    statement.query_row([], |row| {
        Ok((row.get::<_, i64>(0)? != 0, frames(row.get(1)?), frames(row.get(2)?)))
    })
}

/// The database library tells a full disk from other errors, but not a quota or a file size limit:
/// so the file of which these would be true is tried. The error is the system's.
fn probe_growth(paths: &Paths) -> Result<(), StoreError> {
    const PROBE_BYTES: usize = 64 * 1024;
    let path = paths.with(".probe");
    let end = file_bytes(paths.database())?.max(file_bytes(&paths.wal())?);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&[0xff; PROBE_BYTES])?;
        file.sync_all()
    });
    let _ = remove_if_there(&path);
    match written {
        Err(error) => match StoreError::system(paths.database(), error) {
            full @ StoreError::Full { .. } => Err(full),
            _ => Ok(()),
        },
        Ok(()) => Ok(()),
    }
}
