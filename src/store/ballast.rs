//! A file of no use but its size: removing it gives a full disk the room that removals of messages
//! need, since those are written to the log before they free anything.
//!
//! # Failure
//!
//! Without it a full disk only has to be cleared by the operator a little sooner, so errors while
//! it is made are no errors.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FallocateFlags, fallocate};

use super::paths::{FILE_MODE, Paths, remove_if_there};

/// Enough for the log of many thousands of removals, in bytes.
const BALLAST_BYTES: u64 = 8 * 1024 * 1024;
/// It is only made while the disk has room for that many of it.
const DISK_FREE_MIN: u64 = 8 * BALLAST_BYTES;

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

    /// Throws it off; says whether that has freed anything.
    pub fn throw_off(&mut self, paths: &Paths) -> bool {
        self.there = false;
        remove_if_there(&paths.ballast()).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_taken_in_with_plenty_of_room_and_thrown_off_once() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::of(&directory.path().join("q.db")).unwrap();
        let mut ballast = Ballast::find(&paths);
        ballast.take_in(&paths, DISK_FREE_MIN - 1);
        assert!(!paths.ballast().exists());
        ballast.take_in(&paths, DISK_FREE_MIN);
        assert_eq!(std::fs::metadata(paths.ballast()).unwrap().len(), BALLAST_BYTES);
        assert!(Ballast::find(&paths).throw_off(&paths));
        assert!(!ballast.throw_off(&paths));
    }
}
