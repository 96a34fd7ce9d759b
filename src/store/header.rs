//! The first bytes of a file, read before the database library may touch it.
//!
//! Nobody may be connected to the file: closing it takes the locks of the database library away.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::Path;

use super::StoreError;
use super::format_1;
use super::lock::create_error;
use super::paths::Paths;
use super::schema::{APPLICATION_ID, FORMAT_VERSION};

/// Reads the first bytes of the file, before the database library may touch it.
fn header(path: &Path) -> Result<Vec<u8>, StoreError> {
    const HEADER_BYTES: usize = 100;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| create_error(path, error))?
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(|error| StoreError::system(path, error))?;
    Ok(header)
}

/// The number in the header that tells the file from others.
pub(super) fn header_cookie(paths: &Paths) -> Result<u32, StoreError> {
    const COOKIE: usize = 40;
    let header = header(paths.database())?;
    let bytes = header.get(COOKIE..).and_then(|rest| rest.first_chunk::<4>());
    Ok(bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes)))
}

/// Whether the database library would write to the file: it takes a format version that it does not
/// know for a reason not to, which a flipped bit is enough for.
pub(super) fn is_writable(paths: &Paths) -> Result<bool, StoreError> {
    const WRITE_FORMAT: usize = 18;
    let format = header(paths.database())?.get(WRITE_FORMAT).copied();
    Ok(format.is_some_and(|format| format == 1 || format == 2))
}

/// Whether the file is one of ours. The bytes that say so are not changed by commits: a file of ours
/// has them from its first moment.
pub(super) fn check_header(paths: &Paths) -> Result<(), StoreError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    const USER_VERSION: usize = 60;
    const APPLICATION: usize = 68;
    let path = paths.database();
    let header = header(path)?;
    let number = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes))
    };
    let file = path.to_path_buf();
    if !header.starts_with(MAGIC) || number(APPLICATION) != Some(APPLICATION_ID) {
        return Err(StoreError::Foreign { file });
    }
    match number(USER_VERSION) {
        Some(version) if version > FORMAT_VERSION => Err(StoreError::Newer { file, version }),
        Some(format_1::VERSION | FORMAT_VERSION) => Ok(()),
        _ => Err(StoreError::Foreign { file }),
    }
}
