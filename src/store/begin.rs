//! What a start reads and writes of a sound file, on a disk that may have no byte free.
//!
//! # Failure
//!
//! A full disk keeps nobody from being served what there is: other programs are locked out, the log
//! is made of the ballast, and ids are reserved later.

use std::fs::OpenOptions;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::check::Summary;
use super::file::{self, Index, disk_free_bytes};
use super::memory;
use super::origin::{self, Origin, Stand};
use super::paths::{Paths, file_bytes};
use super::probe::store_error;
use super::room::{Allocated, LOG_BYTES, SHARE_BYTES, allocate};
use super::schema::setting;
use super::tables::Tables;
use super::{Facts, StoreError};
use crate::words::limits::ID_BLOCK;

/// Copies all into memory. Where the disk has no room for what other programs would need to read
/// the file at the same time, they are locked out.
pub(super) fn read(paths: &Paths) -> Result<(Connection, Connection, Index), StoreError> {
    let read = |index| {
        let connection = file::connect(paths, index)?;
        let memory = copy_into_memory(&connection, paths)?;
        Ok((connection, memory, index))
    };
    if disk_free_bytes(paths)? < SHARE_BYTES {
        // Others that have it open already have all that they need, and so have we then.
        return match read(Index::Own) {
            Err(StoreError::Busy { .. }) => read(Index::Shared),
            read => read,
        };
    }
    match read(Index::Shared) {
        Err(error @ (StoreError::Io { .. } | StoreError::Full { .. })) => {
            read(Index::Own).map_err(|_: StoreError| error)
        }
        read => read,
    }
}

/// Has the log own the room that it needs at least. Says whether the disk does not give it to a log
/// that is empty, while there is ballast.
pub(super) fn log_lacks_room(paths: &Paths) -> Result<bool, StoreError> {
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
    let mut result = reserve_ids(connection, paths, summary, origin);
    if matches!(result, Err(StoreError::Full { .. })) {
        // A log that has no room left begins anew once it is in the file, which owns room for it.
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        let _ = moved.map_err(|error| store_error(paths, error));
        result = reserve_ids(connection, paths, summary, origin);
    }
    match result {
        Err(StoreError::Full { .. }) => {
            let facts = facts(summary);
            Ok((Facts { ids_reserved: facts.next_id, ..facts }, stand.found()?))
        }
        result => result.map(|facts| (facts, origin)),
    }
}

/// Reserves a block of ids in the file, so that none is handed out twice whatever happens, and
/// takes the mark of an orderly stop away. The disk has both when this returns.
fn reserve_ids(
    connection: &Connection,
    paths: &Paths,
    summary: &Summary,
    origin: Origin,
) -> Result<Facts, StoreError> {
    let facts = facts(summary);
    let write = || {
        connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        origin::set_cookie(connection, origin.cookie())?;
        let mut tables = Tables::new(connection)?;
        tables.set_number(setting::IDS_RESERVED, facts.ids_reserved)?;
        tables.set_number(setting::CLEAN_STOP, 0)?;
        origin.write(&mut tables)?;
        connection.execute_batch("COMMIT")
    };
    write().map_err(|error| {
        if !connection.is_autocommit() {
            // When this fails, the transaction is rolled back already.
            let _ = connection.execute_batch("ROLLBACK");
        }
        store_error(paths, error)
    })?;
    Ok(facts)
}

/// What follows from what was found, once ids are reserved.
fn facts(summary: &Summary) -> Facts {
    let clean_stop = summary.clean_stop > 0;
    let next = if clean_stop { summary.clean_stop } else { summary.ids_reserved };
    let next_id = next.max(summary.message_id_max.saturating_add(1)).max(1);
    let ids_reserved = next_id.saturating_add(ID_BLOCK).min(i64::MAX as u64);
    Facts {
        message_key: summary.message_key,
        next_id,
        ids_reserved,
        next_queue_id: summary.queue_id_max + 1,
        clock: summary.clock,
        clean_stop,
        renewed: false,
        messages: summary.messages,
    }
}
