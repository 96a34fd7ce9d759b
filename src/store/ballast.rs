//! A file of no use but its size, for a full disk.
//!
//! The next start makes its log of it when the disk has no room for one: it only gets another name,
//! so that no other program can take its blocks meanwhile. An orderly stop that finds none makes one
//! of the log. While the daemon runs it is removed when nothing else makes room, which is on file
//! systems where the file and its log cannot own room before they need it.
//!
//! # Failure
//!
//! Without it a full disk only has to be cleared by the operator a little sooner, so errors while
//! it is made are no errors.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::StoreError;
use super::paths::{FILE_MODE, Paths, file_bytes, remove_if_there, rename};

/// Enough for the log of many thousands of removals, in bytes.
const BALLAST_BYTES: u64 = 8 * 1024 * 1024;
/// It is only made while the disk has room for that many of it.
const DISK_FREE_MIN: u64 = 8 * BALLAST_BYTES;

/// A shorter log is not worth being kept, in bytes.
const OF_LOG_BYTES_MIN: u64 = 1024 * 1024;
/// What the database library writes before the first frame of a log.
const LOG_HEADER_BYTES: usize = 32;

/// Whether there is ballast to throw off.
#[derive(Debug)]
pub(super) struct Ballast {
    there: bool,
}

impl Ballast {
    /// Looks whether there is some.
    pub fn find(paths: &Paths) -> Ballast {
        Ballast { there: paths.ballast().exists() }
    }

    /// Takes some in if there is none and the disk has plenty of room.
    pub fn take_in(&mut self, paths: &Paths, disk_free_bytes: u64) {
        if self.there || disk_free_bytes < DISK_FREE_MIN {
            return;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(paths.ballast());
        // A file system that can not allocate without writing gets no ballast: what is not
        // allocated would free nothing.
        let allocated = file
            .is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES).is_ok());
        if !allocated {
            let _ = remove_if_there(&paths.ballast());
        }
        // Not tried again after every commit.
        self.there = true;
    }

    /// Makes one of the log of a database that is closed and whose log is in the file, or removes
    /// the log. Nobody may have the database open.
    ///
    /// # Errors
    /// What the system said. The log is there then, and says what the file says.
    pub fn make_of_log(paths: &Paths) -> Result<(), StoreError> {
        let log_bytes = file_bytes(&paths.wal())?;
        if log_bytes > 0 {
            // Should its name come back with the power, it is an empty one all the same.
            clear_header(&paths.wal())?;
        }
        remove_if_there(&paths.shm())?;
        if paths.ballast().exists() || log_bytes < OF_LOG_BYTES_MIN {
            remove_if_there(&paths.wal())?;
        } else {
            rename(&paths.wal(), &paths.ballast())?;
        }
        paths.sync_directory()
    }

    /// Makes the log of it, if there is any. Nobody may have the database open, whose log must be
    /// empty. Says whether there was any.
    ///
    /// # Errors
    /// What the system said.
    pub fn make_log(paths: &Paths) -> Result<bool, StoreError> {
        if !paths.ballast().exists() {
            return Ok(false);
        }
        clear_header(&paths.ballast())?;
        rename(&paths.ballast(), &paths.wal())?;
        paths.sync_directory()?;
        Ok(true)
    }

    /// Throws it off; says whether that has freed anything.
    pub fn throw_off(&mut self, paths: &Paths) -> bool {
        self.there = false;
        remove_if_there(&paths.ballast()).unwrap_or(false)
    }
}

/// Clears the first bytes of a log in place, which needs no room: without them it is an empty one.
/// The disk has that when this returns, for frames of an old log would undo what came after it.
fn clear_header(path: &Path) -> Result<(), StoreError> {
    let clear = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&[0; LOG_HEADER_BYTES], 0)?;
        file.sync_data()
    };
    clear().map_err(|error| StoreError::system(path, error))
}

#[cfg(test)]
mod tests {
    use super::super::testing::paths;
    use super::*;

    #[test]
    fn ballast_is_taken_in_with_plenty_of_room_and_thrown_off_once() {
        let (_directory, paths) = paths();
        let mut ballast = Ballast::find(&paths);
        ballast.take_in(&paths, DISK_FREE_MIN - 1);
        assert!(!paths.ballast().exists());
        ballast.take_in(&paths, DISK_FREE_MIN);
        assert_eq!(std::fs::metadata(paths.ballast()).unwrap().len(), BALLAST_BYTES);
        assert!(Ballast::find(&paths).throw_off(&paths));
        assert!(!ballast.throw_off(&paths));
    }
}
