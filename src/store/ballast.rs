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
use super::paths::{FILE_MODE, Paths, allocated_bytes, file_bytes, remove_if_there, rename};

/// Enough for the log of many thousands of removals, in bytes.
const BALLAST_BYTES: u64 = 8 * 1024 * 1024;
/// On a small disk it is this part of what the disk has left.
const DISK_PARTS: u64 = 8;
/// A log of less has no room for a single removal, in bytes.
const BALLAST_BYTES_MIN: u64 = 128 * 1024;
/// What the database library writes before the first frame of a log.
const LOG_HEADER_BYTES: usize = 32;

/// What there is of the ballast.
#[derive(Debug)]
pub(super) struct Ballast {
    /// Bytes that it takes, or that were tried in vain.
    bytes: u64,
    /// Whether it was thrown off: what other programs are about to need is not taken again.
    was_thrown_off: bool,
}

impl Ballast {
    /// Looks whether there is some.
    pub fn find(paths: &Paths) -> Ballast {
        Ballast { bytes: allocated_bytes(&paths.ballast()), was_thrown_off: false }
    }

    /// Takes some in if there is none and the disk has room for it.
    pub fn take_in(&mut self, paths: &Paths, disk_free_bytes: u64) {
        let wanted = BALLAST_BYTES.min(disk_free_bytes / DISK_PARTS);
        let least = if self.was_thrown_off { BALLAST_BYTES } else { BALLAST_BYTES_MIN };
        if self.bytes > 0 || wanted < least {
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
        let allocated =
            file.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, wanted).is_ok());
        if !allocated {
            let _ = remove_if_there(&paths.ballast());
        }
        // Not tried again after every commit.
        self.bytes = wanted;
    }

    /// Makes one of the log of a database that is closed and whose log is in the file, or removes
    /// the log. Nobody may have the database open.
    ///
    /// # Errors
    /// What the system said. The log is there then, and says what the file says.
    pub fn make_of_log(paths: &Paths) -> Result<(), StoreError> {
        if file_bytes(&paths.wal())? > 0 {
            // Should its name come back with the power, it is an empty one all the same.
            clear_header(&paths.wal())?;
        }
        remove_if_there(&paths.shm())?;
        let (of_log, there) = (allocated_bytes(&paths.wal()), allocated_bytes(&paths.ballast()));
        if of_log < BALLAST_BYTES_MIN || there >= of_log.min(BALLAST_BYTES) {
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
        *self = Ballast { bytes: 0, was_thrown_off: true };
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
    fn ballast_is_a_part_of_what_the_disk_has_left_and_thrown_off_once() {
        let (_directory, paths) = paths();
        let mut ballast = Ballast::find(&paths);
        ballast.take_in(&paths, DISK_PARTS * BALLAST_BYTES_MIN - 1);
        assert!(!paths.ballast().exists());
        ballast.take_in(&paths, DISK_PARTS * BALLAST_BYTES_MIN);
        assert_eq!(allocated_bytes(&paths.ballast()), BALLAST_BYTES_MIN);
        std::fs::remove_file(paths.ballast()).unwrap();
        let mut ballast = Ballast::find(&paths);
        ballast.take_in(&paths, u64::MAX);
        assert_eq!(allocated_bytes(&paths.ballast()), BALLAST_BYTES);
        let mut ballast = Ballast::find(&paths);
        assert!(ballast.throw_off(&paths));
        assert!(!ballast.throw_off(&paths));
        ballast.take_in(&paths, DISK_PARTS * BALLAST_BYTES - 1);
        assert!(!paths.ballast().exists(), "there was a reason to throw it off");
    }
}
