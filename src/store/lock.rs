//! Keeps a second daemon away from a database: a locked file beside it with our process id in it,
//! and the [`Guard`] on the database itself.
//!
//! The lock file is there before the database is, and tells people who has it; the guard holds
//! when the lock file is removed, or when the database is reached by another name. Both end with
//! the process, however it ends; the lock file stays, for removing it would race with the next
//! daemon.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::StoreError;
use super::guard::{Guard, Identity, LockedFile, holder};
use super::paths::{FILE_MODE, Paths};

/// The right to write a database, held while it lives.
#[derive(Debug)]
pub(super) struct Lock {
    /// `None` where the disk had no room for it.
    file: Option<LockedFile>,
    /// The database itself; `None` while there is none.
    guard: Option<Guard>,
    /// What somebody has put in the database's place.
    intruder: Option<Guard>,
}

impl Lock {
    /// Takes the lock. On a disk without room for a lock file that on the database is enough.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, else why the lock file can not be made.
    pub fn take(paths: &Paths) -> Result<Lock, StoreError> {
        let file = take_file(paths);
        let guard = match &file {
            Ok(_) | Err(StoreError::Full { .. }) => Guard::take(paths.database())?,
            Err(_) => None,
        };
        let file = if guard.is_some() { file.ok() } else { Some(file?) };
        file.iter().for_each(|file| say_who(file.file()));
        Ok(Lock { file, guard, intruder: None })
    }

    /// Whether another daemon that wants this database would meet the lock file: not when somebody
    /// has removed it, or has put another directory in the place of ours.
    pub fn guards(&self, paths: &Paths) -> bool {
        let ours = self.file.as_ref().and_then(|file| file.file().metadata().ok());
        let ours = ours.map(|metadata| Identity::of(&metadata));
        ours.is_some() && ours == Identity::at(&paths.lock()).ok().flatten()
    }

    /// Makes the lock file again if it is not there any more. Says whether it had to.
    ///
    /// # Errors
    /// As for [`Lock::take`]. The database itself is still locked.
    pub fn restore(&mut self, paths: &Paths) -> Result<bool, StoreError> {
        if self.guards(paths) {
            return Ok(false);
        }
        let file = take_file(paths)?;
        say_who(file.file());
        self.file = Some(file);
        Ok(true)
    }

    /// Makes sure that the name of the database is ours: that there is the file that is guarded,
    /// or none, or one that nobody else has, which is guarded too from here on.
    ///
    /// # Errors
    /// As for [`Lock::take`].
    pub fn hold(&mut self, paths: &Paths) -> Result<(), StoreError> {
        self.restore(paths)?;
        let found = Identity::at(paths.database())?;
        let known = [&self.guard, &self.intruder];
        if !known.iter().any(|guard| guard.as_ref().map(Guard::identity) == found) {
            self.intruder = Guard::take(paths.database())?;
        }
        Ok(())
    }

    /// Guards this file in the place of the one before, which nobody is connected to any more.
    pub fn guard(&mut self, new: Guard) {
        self.guard = Some(new);
        self.intruder = None;
    }

    /// The guard of the database, once there is one.
    pub fn guarded(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// The lock file.
    #[cfg(test)]
    pub fn file_for_tests(&self) -> Option<&File> {
        self.file.as_ref().map(LockedFile::file)
    }

    /// Whether the database's name leads to a file that somebody else has put there.
    pub fn is_intruded(&self) -> bool {
        self.intruder.is_some()
    }
}

fn take_file(paths: &Paths) -> Result<LockedFile, StoreError> {
    let path = paths.lock();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    let file = match options.clone().create_new(true).open(&path) {
        Ok(file) => {
            paths.give_to_owner(&file);
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            options.create(true).truncate(false).open(&path)
        }
        Err(error) => Err(error),
    }
    .map_err(|error| create_error(&path, error))?;
    match LockedFile::of(file) {
        Ok(file) => Ok(file),
        Err((mut file, TryLockError::WouldBlock)) => {
            // Between the lock and its process id in the file there is a moment without, or with
            // the one of an earlier daemon: the system knows better, where it tells.
            let identity = file.metadata().map(|metadata| Identity::of(&metadata)).ok();
            let pid = identity.and_then(holder).or_else(|| {
                let mut text = String::new();
                file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok())
            });
            Err(StoreError::InUse { file: paths.database().to_path_buf(), pid })
        }
        Err((_, TryLockError::Error(error))) => Err(StoreError::system(&path, error)),
    }
}

/// Writes our process id. It only helps who reads the file: a full disk must not keep us from
/// starting.
fn say_who(mut file: &File) {
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
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
    use super::super::swap::NewFile;
    use super::super::testing::paths;
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, chown};

    #[test]
    fn a_second_lock_is_refused_with_the_holders_process() {
        let (_directory, paths) = paths();
        let held = Lock::take(&paths).unwrap();
        match Lock::take(&paths).unwrap_err() {
            StoreError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other}"),
        }
        drop(held);
        assert!(Lock::take(&paths).is_ok());
    }

    /// After a repair by root the daemon's user could not open the lock.
    #[test]
    fn what_root_makes_belongs_to_the_databases_owner_or_to_the_directorys() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::of(&directory.path().join("q.db")).unwrap();
        chown(directory.path(), Some(4_711), Some(4_712)).unwrap();
        let owner = |path: &Path| {
            let found = std::fs::metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        drop(Lock::take(&paths).unwrap());
        assert_eq!(owner(&paths.lock()), (4_711, 4_712));
        drop(NewFile::create(&paths).unwrap());
        assert_eq!(owner(&paths.new_file()), (4_711, 4_712));
        std::fs::write(paths.database(), b"x").unwrap();
        chown(paths.database(), Some(4_713), Some(4_714)).unwrap();
        std::fs::remove_file(paths.lock()).unwrap();
        drop(Lock::take(&paths).unwrap());
        assert_eq!(owner(&paths.lock()), (4_713, 4_714));
    }

    #[test]
    fn the_holder_is_named_before_it_has_said_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::of(&directory.path().join("q.db")).unwrap();
        for said in ["", "1\n"] {
            std::fs::write(paths.lock(), said).unwrap();
            let held = File::options().write(true).open(paths.lock()).unwrap();
            held.try_lock().unwrap();
            match Lock::take(&paths).unwrap_err() {
                StoreError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_lock_whose_file_is_gone_guards_nothing() {
        let (_directory, paths) = paths();
        let held = Lock::take(&paths).unwrap();
        assert!(held.guards(&paths));
        std::fs::remove_file(paths.lock()).unwrap();
        assert!(!held.guards(&paths));
        let other = Lock::take(&paths).unwrap();
        assert!(other.guards(&paths) && !held.guards(&paths));
    }

    #[test]
    fn the_database_stays_locked_when_the_lock_file_is_gone_and_that_is_made_again() {
        let (_directory, paths) = paths();
        std::fs::write(paths.database(), b"x").unwrap();
        let mut held = Lock::take(&paths).unwrap();
        std::fs::remove_file(paths.lock()).unwrap();
        match Lock::take(&paths).unwrap_err() {
            StoreError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other}"),
        }
        assert!(held.restore(&paths).unwrap());
        assert!(!held.restore(&paths).unwrap());
        let text = std::fs::read_to_string(paths.lock()).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_name_that_leads_to_another_file_is_only_ours_if_nobody_has_that() {
        let (directory, paths) = paths();
        std::fs::write(paths.database(), b"x").unwrap();
        let mut held = Lock::take(&paths).unwrap();
        let other = directory.path().join("other");
        std::fs::write(&other, b"y").unwrap();
        let theirs = Guard::take(&other).unwrap();
        std::fs::rename(&other, paths.database()).unwrap();
        let error = held.hold(&paths).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        drop(theirs);
        held.hold(&paths).unwrap();
        assert!(held.is_intruded());
        held.hold(&paths).unwrap();
    }
}
