//! The lock on a database file itself, whatever name it is reached by.
//!
//! The lock file beside a database ([`Lock`](super::lock::Lock)) says who has it, but a cleaner of
//! temporary files may remove it, and a hard link or a bind mount leads past it. So the file is
//! locked too: with `flock`, which the byte range locks of the database library, and with them
//! readers such as `sqlite3`, take no notice of.
//!
//! Invariant: a guard outlives every connection to its file. When a process closes any descriptor
//! of a file, the system drops all byte range locks that the process has on it, so no other
//! descriptor of the file may be opened and closed while it is connected to.
//!
//! # Failure
//!
//! Where `flock` is made of byte range locks (NFS), guard and connection are in each other's way:
//! the start ends with an error, and nothing waits.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::lock::create_error;
use super::paths::Paths;

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(metadata: &Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }

    /// That of the file of this name, if there is one.
    pub fn at(path: &Path) -> Result<Option<Identity>, StoreError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Identity::of(&metadata))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(StoreError::system(path, error)),
        }
    }
}

/// A directory on the way may be gone, or be something else now.
pub(super) fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A file that is locked for us while this lives.
///
/// Closing it alone would leave it locked as long as a process that is just being started has a copy
/// of its descriptor.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Locks an open file that nobody else has locked.
    ///
    /// # Errors
    /// Somebody has, or what the system said, with the file.
    pub fn of(file: File) -> Result<LockedFile, (File, TryLockError)> {
        match file.try_lock() {
            Ok(()) => Ok(LockedFile(file)),
            Err(error) => Err((file, error)),
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// A database file that is locked for us while this lives.
#[derive(Debug)]
pub(super) struct Guard {
    file: LockedFile,
    identity: Identity,
}

impl Guard {
    /// Locks the file of this name; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another daemon has it, else why it can not be locked.
    pub fn take(path: &Path) -> Result<Option<Guard>, StoreError> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Guard::of(file, path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(create_error(path, error)),
        }
    }

    /// Locks an open file.
    ///
    /// # Errors
    /// As for [`Guard::take`].
    pub fn of(file: File, path: &Path) -> Result<Guard, StoreError> {
        let failed = |error| StoreError::system(path, error);
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        match LockedFile::of(file) {
            Ok(file) => Ok(Guard { file, identity }),
            Err((_, TryLockError::WouldBlock)) => {
                let pid = holder(identity);
                Err(StoreError::InUse { file: path.to_path_buf(), pid })
            }
            Err((_, TryLockError::Error(error))) => Err(failed(error)),
        }
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The file, for what needs no connection.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// The name that the file has now, if it has one that leads to it.
    pub fn path_now(&self) -> Option<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        let path = fs::read_link(link).ok()?;
        // One that was removed is shown by a name that no file has, or another.
        (Identity::at(&path).ok()? == Some(self.identity)).then_some(path)
    }

    /// Refuses a file with other names than this one: the log belongs to a name, so whoever comes
    /// by another one would not see what is in it.
    ///
    /// # Errors
    /// [`StoreError::Linked`].
    pub fn check_links(&self, paths: &Paths) -> Result<(), StoreError> {
        let file = paths.database();
        let links =
            self.file().metadata().map_err(|error| StoreError::system(file, error))?.nlink();
        if links > 1 && links > 1 + self.links_kept_by_repairs(paths) {
            return Err(StoreError::Linked { file: file.to_path_buf(), links });
        }
        Ok(())
    }

    /// A repair that was interrupted has given the file a second name already.
    fn links_kept_by_repairs(&self, paths: &Paths) -> u64 {
        let kept = (1_u32..).map(|number| paths.with(&format!(".damaged-{number}")));
        let identities = kept.map_while(|path| Identity::at(&path).ok().flatten());
        identities.filter(|identity| *identity == self.identity).count() as u64
    }
}

/// The process that has locked a file, if the system tells.
pub(super) fn holder(identity: Identity) -> Option<u32> {
    // 7: FLOCK  ADVISORY  WRITE 4711 fe:00:264 0 EOF
    let device = identity.device;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{}", identity.inode);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words.iter().position(|word| *word == wanted)?;
        let is_held = words.get(1) == Some(&"FLOCK");
        // 0: in another process namespace.
        is_held.then(|| words.get(place.checked_sub(1)?)?.parse().ok().filter(|pid| *pid != 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::super::lock::Lock;
    use super::super::testing::paths;
    use super::*;

    #[test]
    fn a_file_is_locked_whatever_name_it_is_reached_by() {
        let (directory, paths) = paths();
        assert!(Guard::take(paths.database()).unwrap().is_none(), "there is nothing to lock");
        fs::write(paths.database(), b"x").unwrap();
        let guard = Guard::take(paths.database()).unwrap().unwrap();
        let other = directory.path().join("other.db");
        fs::hard_link(paths.database(), &other).unwrap();
        for name in [paths.database(), &other] {
            match Guard::take(name).unwrap_err() {
                StoreError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
                error => panic!("{error}"),
            }
        }
        drop(guard);
        assert!(Guard::take(&other).unwrap().is_some());
    }

    /// A process that is just being started has such a copy.
    #[test]
    fn what_is_let_go_is_free_whoever_has_a_copy_of_its_descriptor() {
        let (_directory, paths) = paths();
        let lock = Lock::take(&paths).unwrap();
        fs::write(paths.database(), b"x").unwrap();
        let guard = Guard::take(paths.database()).unwrap().unwrap();
        let _copies =
            [guard.file(), lock.file_for_tests().unwrap()].map(|file| file.try_clone().unwrap());
        drop((lock, guard));
        Lock::take(&paths).unwrap();
    }

    #[test]
    fn more_names_than_one_are_refused_but_for_those_of_a_repair() {
        let (_directory, paths) = paths();
        fs::write(paths.database(), b"x").unwrap();
        let guard = Guard::take(paths.database()).unwrap().unwrap();
        guard.check_links(&paths).unwrap();
        fs::hard_link(paths.database(), paths.with(".damaged-1")).unwrap();
        guard.check_links(&paths).unwrap();
        fs::hard_link(paths.database(), paths.with("-copy")).unwrap();
        let error = guard.check_links(&paths).unwrap_err();
        assert!(matches!(error, StoreError::Linked { links: 3, .. }), "{error}");
        assert_eq!(error.exit_code(), 65);
    }

    #[test]
    fn a_file_is_found_under_its_new_name_and_not_when_it_is_gone() {
        let (directory, paths) = paths();
        fs::write(paths.database(), b"x").unwrap();
        let guard = Guard::take(paths.database()).unwrap().unwrap();
        let other = fs::canonicalize(directory.path()).unwrap().join("other.db");
        fs::rename(paths.database(), &other).unwrap();
        assert_eq!(guard.path_now(), Some(other.clone()));
        fs::remove_file(&other).unwrap();
        assert_eq!(guard.path_now(), None);
    }
}
