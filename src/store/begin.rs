//! What a start reads and writes of a sound file, on a disk that may have no byte free.
//!
//! # Failure
//!
//! A full disk keeps nobody from being served what there is: other programs are locked out, the log
//! is made of the ballast, ids are reserved later, and where no file can be made the database file
//! is read alone and connected to later.

use std::fs::OpenOptions;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::ballast::Ballast;
use super::check::{self, Summary};
use super::file::{self, Connected, Index, disk_free_bytes, while_alone};
use super::format_1;
use super::load::{check_version, corrupt};
use super::memory;
use super::origin::{self, Alone, Origin, Stand};
use super::paths::{Paths, file_bytes};
use super::probe::store_error;
use super::room::{Allocated, LOG_BYTES, SHARE_BYTES, allocate};
use super::salvage::Ignored;
use super::schema::setting;
use super::spare_rows;
use super::standing::connect_without_log;
use super::tables::Tables;
use super::{Facts, Remedy, Renewed, StoreError};
use crate::words::limits::ID_BLOCK;

/// A file that was read whole and found sound.
pub(super) struct Sound {
    /// All of it in memory.
    pub memory: Connection,
    /// What it says about itself.
    pub summary: Summary,
    /// Where file and log stand.
    pub stand: Stand,
    /// An error while the disk has no room for what a connection makes beside the file.
    pub connection: Writable,
    /// Whether the file is still of the first format; what is in memory is of the newest.
    pub migrates: bool,
}

/// A connection that can come to write, or why there is none yet.
type Writable = Result<(Connection, Index), StoreError>;

/// Reads a file and its log, and looks at what the database library ignores of that meanwhile.
pub(super) fn read_all(
    paths: &Paths,
    progress: &mut dyn FnMut(u64),
) -> Result<(Sound, Option<Ignored>), StoreError> {
    let (sound, is_any_ignored) = std::thread::scope(|scope| {
        let look = || Ignored::is_any(paths);
        let thread = std::thread::Builder::new().name("log check".into());
        let thread = thread.spawn_scoped(scope, look);
        let sound = read_sound(paths, progress);
        // The system may have no thread for it.
        let ended = thread.map_or_else(|_| Ok(look()), std::thread::ScopedJoinHandle::join);
        (sound, ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let sound = sound?;
    if !is_any_ignored? {
        return Ok((sound, None));
    }
    // The file is opened and closed for this, so nobody may be connected to it.
    drop(sound);
    let ignored = Ignored::look(paths)?;
    Ok((read_sound(paths, progress)?, ignored))
}

/// Reads a file and checks all that is in it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_sound(
    paths: &Paths,
    progress: &mut dyn FnMut(u64),
) -> Result<Sound, StoreError> {
    let alone = Alone::look(paths)?;
    let (connection, memory) = read(paths)?;
    let version = check_version(&memory, paths)?;
    let stand = alone.with_log(&memory, paths)?;
    let (summary, findings) = check::check(&memory, version, progress);
    if findings.found > 0 {
        return Err(corrupt(paths, findings.damage, findings.found));
    }
    spare_rows::forget(&memory).map_err(|error| StoreError::database(paths.database(), error))?;
    let migrates = version == format_1::VERSION;
    if migrates {
        format_1::migrate_memory(&memory).map_err(memory::failed)?;
    }
    Ok(Sound { memory, summary, stand, connection, migrates })
}

/// Copies all into memory. Returns the connection to the file as well, unless the disk has no room
/// for an empty log beside it: then the file alone is read.
fn read(paths: &Paths) -> Result<(Writable, Connection), StoreError> {
    let read = with_index(paths, |index| {
        let connection = file::connect(paths, index)?;
        let memory = copy_into_memory(&connection, paths)?;
        Ok((Ok((connection, index)), memory))
    });
    match read {
        Err(full @ StoreError::Full { .. }) if file_bytes(&paths.wal())? == 0 => {
            Ok((Err(full), copy_into_memory(&connect_without_log(paths)?, paths)?))
        }
        read => read,
    }
}

/// Does something with the index of the log that the disk has room for. Where it has none for what
/// other programs would need to read the file at the same time, they are locked out.
pub(super) fn with_index<T>(
    paths: &Paths,
    act: impl Fn(Index) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if disk_free_bytes(paths)? < SHARE_BYTES {
        // Others that have it open already have all that they need, and so have we then.
        return match act(Index::Own) {
            Err(StoreError::Busy { .. }) => act(Index::Shared),
            done => done,
        };
    }
    match act(Index::Shared) {
        Err(error @ (StoreError::Io { .. } | StoreError::Full { .. })) => {
            act(Index::Own).map_err(|_: StoreError| error)
        }
        done => done,
    }
}

/// Makes a connection to a sound file one that writes, and makes the first commit, which makes the
/// log. Where the disk has no room for a log, that is made of the ballast; `guarded` is the database
/// file, for making sure that no other program has the log open then.
///
/// # Errors
/// What failed. [`StoreError::Full`]: it can be tried again once there is room.
pub(super) fn start_writing<T>(
    paths: &Paths,
    guarded: Option<&std::fs::File>,
    (mut connection, index): (Connection, Index),
    first_commit: impl FnOnce(&Connection) -> Result<(T, Origin), StoreError>,
) -> Result<(Connected, T), StoreError> {
    file::trust(&connection, paths)?;
    if log_lacks_room(paths)? {
        drop(connection);
        if let Some(file) = guarded {
            while_alone(file, || Ballast::make_log(paths)).unwrap_or(Ok(false))?;
        }
        connection = file::connect(paths, index)?;
        file::trust(&connection, paths)?;
    }
    let (answer, origin) = first_commit(&connection)?;
    let connected = match Connected::new(connection, paths, index, origin) {
        Err(StoreError::Full { .. }) if index == Index::Shared => {
            let connection = file::connect(paths, Index::Own)?;
            file::trust(&connection, paths)?;
            Connected::new(connection, paths, Index::Own, origin)
        }
        connected => connected,
    }?;
    Ok((connected, answer))
}

/// Has the log own the room that it needs at least. Says whether the disk does not give it to a log
/// that is empty, while there is ballast.
fn log_lacks_room(paths: &Paths) -> Result<bool, StoreError> {
    if file_bytes(&paths.wal())? > 0 || !paths.ballast().exists() {
        return Ok(false);
    }
    let log = OpenOptions::new().write(true).open(paths.wal());
    Ok(log.map_or(true, |log| allocate(&log, 0, LOG_BYTES) == Allocated::No))
}

fn copy_into_memory(connection: &Connection, paths: &Paths) -> Result<Connection, StoreError> {
    let failed = |error| StoreError::database(paths.database(), error);
    let page_bytes: u32 =
        connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
    let mut memory = memory::connect(page_bytes)?;
    let backup = Backup::new(connection, &mut memory).map_err(failed)?;
    let step = backup.step(-1).map_err(failed)?;
    drop(backup);
    match step {
        StepResult::Done => Ok(memory),
        _ => Err(StoreError::Busy { file: paths.database().to_path_buf() }),
    }
}

/// Reserves ids. A disk that is too full for that is no reason to serve nothing: messages that are
/// put wait for ids until there is room.
pub(super) fn reserve_ids_or_do_without(
    connection: &Connection,
    paths: &Paths,
    summary: &Summary,
    stand: Stand,
) -> Result<(Facts, Origin), StoreError> {
    let origin = stand.wanted()?;
    let reserve = || reserve_ids(connection, paths, summary, origin);
    Ok(match commit_or_do_without(connection, paths, reserve)? {
        Some(facts) => (facts, origin),
        None => (facts_without_ids(summary), stand.found()?),
    })
}

/// Makes a commit; `None` when the disk has no room for it.
pub(super) fn commit_or_do_without<T>(
    connection: &Connection,
    paths: &Paths,
    commit: impl Fn() -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut result = commit();
    if matches!(result, Err(StoreError::Full { .. })) {
        // A log that has no room left begins anew once it is in the file, which owns room for it.
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        // That syncs the log first. A failed sync means that what was found may be on no disk, and a
        // second one would say that it is.
        let moved = moved.map_err(|error| store_error(paths, error));
        moved.or_else(|error| match error.remedy() {
            Remedy::Rewrite => Err(error),
            Remedy::RefusePuts | Remedy::Retry => Ok(()),
        })?;
        result = commit();
    }
    match result {
        Err(StoreError::Full { .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// What is known where no ids can be reserved.
pub(super) fn facts_without_ids(summary: &Summary) -> Facts {
    let facts = facts(summary);
    Facts { ids_reserved: facts.next_id, ..facts }
}

/// Reserves a block of ids in the file, so that none is handed out twice whatever happens, and
/// takes the mark of an orderly stop away. The disk has both when this returns.
fn reserve_ids(
    connection: &Connection,
    paths: &Paths,
    summary: &Summary,
    origin: Origin,
) -> Result<Facts, StoreError> {
    reserve_ids_after(connection, paths, summary, origin, |_| Ok(()))
}

/// The same, with something that has to be done to the tables before, in the same commit.
pub(super) fn reserve_ids_after(
    connection: &Connection,
    paths: &Paths,
    summary: &Summary,
    origin: Origin,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Facts, StoreError> {
    let facts = facts(summary);
    commit_origin(connection, paths, origin, prepare, |tables| {
        tables.set_number(setting::IDS_RESERVED, facts.ids_reserved)?;
        tables.set_number(setting::CLEAN_STOP, 0)
    })?;
    Ok(facts)
}

/// Commits where file and log stand, with something before and something more. The disk has it when
/// this returns.
pub(super) fn commit_origin(
    connection: &Connection,
    paths: &Paths,
    origin: Origin,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    more: impl FnOnce(&mut Tables<'_>) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    let write = || {
        connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        prepare(connection)?;
        origin::set_cookie(connection, origin.cookie())?;
        let mut tables = Tables::new(connection)?;
        more(&mut tables)?;
        origin.write(&mut tables)?;
        connection.execute_batch("COMMIT")
    };
    write().map_err(|error| {
        if !connection.is_autocommit() {
            // When this fails, the transaction is rolled back already.
            let _ = connection.execute_batch("ROLLBACK");
        }
        store_error(paths, error)
    })
}

/// Has ids and numbers go on beyond those on frames of the log that are ignored: they were given to
/// messages that a recovery may bring back.
pub(super) fn go_on_beyond(ignored: &Ignored, summary: &mut Summary) {
    const LAST: u64 = i64::MAX as u64 - ID_BLOCK;
    let seen = ignored.messages.iter().max().map_or(0, |id| id.saturating_add(1 + ID_BLOCK));
    let reserved = seen.max(ignored.ids_reserved);
    // There is no room for a margin where ids end.
    let reserved = if reserved < LAST { reserved } else { 0 };
    summary.ids_reserved = summary.ids_reserved.max(summary.clean_stop).max(reserved);
    // What follows an orderly stop would not be in the log.
    summary.clean_stop = 0;
    summary.queue_id_max = summary.queue_id_max.max(ignored.queue_id_max);
}

/// What follows from what was found, once ids are reserved.
fn facts(summary: &Summary) -> Facts {
    let clean_stop = summary.clean_stop > 0;
    let next = if clean_stop { summary.clean_stop } else { summary.ids_reserved };
    let next_id = next.max(summary.message_id_max.saturating_add(1)).max(1);
    let ids_reserved = next_id.saturating_add(ID_BLOCK).min(i64::MAX as u64);
    Facts {
        secret: summary.secret,
        next_id,
        ids_reserved,
        next_queue_id: summary.queue_id_max + 1,
        clock: summary.clock,
        clean_stop,
        renewed: Renewed::No,
        messages: summary.messages,
        migrated: false,
    }
}
