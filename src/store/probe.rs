//! Tells a full disk from a failing one.

use std::io::{Seek as _, SeekFrom, Write as _};

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE};

use super::StoreError;
use super::paths::{Paths, file_bytes, remove_if_there};

/// What the database library said of the database of this name.
pub(super) fn store_error(paths: &Paths, error: rusqlite::Error) -> StoreError {
    let is_io = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    let is_write = error.sqlite_extended_error_code().is_some_and(|code| {
        matches!(code, SQLITE_IOERR_WRITE | SQLITE_IOERR_TRUNCATE | SQLITE_IOERR_SHMSIZE)
    });
    if is_io
        && is_write
        && let Err(full) = probe_growth(paths)
    {
        return full;
    }
    StoreError::database(paths.database(), error)
}

/// The database library tells a full disk from other errors, but not a quota or a file size limit:
/// so the file of which these would be true is tried. The error is the system's.
fn probe_growth(paths: &Paths) -> Result<(), StoreError> {
    const PROBE_BYTES: usize = 64 * 1024;
    let path = paths.probe();
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
