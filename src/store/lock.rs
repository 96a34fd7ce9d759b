//! Keeps a second daemon away from a database: a locked file beside it with our process id in it.
//!
//! A file of its own, since a lock on the database would keep readers such as `sqlite3` out, and
//! since a rewrite puts another file in the database's place. The lock ends with the process,
//! however it ends; the file stays, for removing it would race with the next daemon.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::StoreError;
use super::paths::{FILE_MODE, Paths};

/// The right to write a database, held while it lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, else why the lock file can not be made.
    pub fn take(paths: &Paths) -> Result<Lock, StoreError> {
        let path = paths.lock();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| create_error(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::InUse { file: paths.database().to_path_buf(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::system(&path, error)),
        }
        // The process id only helps who reads the file: a full disk must not keep us from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { file })
    }
}

impl Lock {
    /// Whether another daemon that wants this database would meet this lock: not when somebody has
    /// removed its file, or has put another directory in the place of ours.
    pub fn guards(&self, paths: &Paths) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let ours = self.file.metadata().map(identity).ok();
        ours.is_some() && ours == std::fs::metadata(paths.lock()).map(identity).ok()
    }
}

/// What the system said when a file was to be made.
pub(super) fn create_error(path: &Path, error: std::io::Error) -> StoreError {
    match (error.kind(), path.parent()) {
        (std::io::ErrorKind::NotFound, Some(directory)) => {
            StoreError::MissingDirectory { directory: directory.to_path_buf() }
        }
        (std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory, _) => {
            StoreError::CannotCreate { file: path.to_path_buf(), source: error }
        }
        _ => StoreError::system(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_holders_process() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::of(&directory.path().join("q.db")).unwrap();
        let held = Lock::take(&paths).unwrap();
        match Lock::take(&paths).unwrap_err() {
            StoreError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other}"),
        }
        drop(held);
        assert!(Lock::take(&paths).is_ok());
    }

    #[test]
    fn a_lock_whose_file_is_gone_guards_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::of(&directory.path().join("q.db")).unwrap();
        let held = Lock::take(&paths).unwrap();
        assert!(held.guards(&paths));
        std::fs::remove_file(paths.lock()).unwrap();
        assert!(!held.guards(&paths));
        let other = Lock::take(&paths).unwrap();
        assert!(other.guards(&paths) && !held.guards(&paths));
    }
}
