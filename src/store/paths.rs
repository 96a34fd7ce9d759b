//! The files that belong to a database, and what is done with them as files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Files are readable by the group, so that reports can be made while the daemon runs.
pub(super) const FILE_MODE: u32 = 0o640;

/// The names of the files that belong to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    database: PathBuf,
}

impl Paths {
    /// The files of the database of this name. Symbolic links are resolved, so that two names of
    /// one database are the same.
    ///
    /// # Errors
    /// [`StoreError::MissingDirectory`], and [`StoreError::CannotCreate`] for what is no file.
    pub fn of(path: &Path) -> Result<Paths, StoreError> {
        match fs::canonicalize(path) {
            Ok(database) if database.is_file() => Ok(Paths { database }),
            // A device would be taken for an empty database, and a rewrite would replace it.
            Ok(database) => {
                let source = match database.is_dir() {
                    true => io::ErrorKind::IsADirectory.into(),
                    false => io::Error::other("it exists and is not a regular file"),
                };
                Err(StoreError::CannotCreate { file: database, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Paths::of_new(path),
            Err(error) => Err(super::lock::create_error(path, error)),
        }
    }

    fn of_new(path: &Path) -> Result<Paths, StoreError> {
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("."),
        };
        let Some(name) = path.file_name() else {
            return Err(StoreError::CannotCreate {
                file: path.to_path_buf(),
                source: io::ErrorKind::InvalidFilename.into(),
            });
        };
        // A link to a file that does not exist: the file is made where the link points to.
        if let Ok(target) = fs::read_link(path) {
            return Paths::of_new(&directory.join(target));
        }
        let directory = fs::canonicalize(directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StoreError::MissingDirectory { directory: directory.to_path_buf() }
            }
            _ => super::lock::create_error(path, error),
        })?;
        Ok(Paths { database: directory.join(name) })
    }

    /// The files of the database that has this name, which has no links in it.
    pub fn resolved(database: PathBuf) -> Paths {
        Paths { database }
    }

    /// The database itself.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The directory of all of them.
    pub fn directory(&self) -> &Path {
        self.database.parent().unwrap_or(Path::new("/"))
    }

    /// The write-ahead log.
    pub fn wal(&self) -> PathBuf {
        self.with("-wal")
    }

    /// The shared-memory index of the write-ahead log.
    pub fn shm(&self) -> PathBuf {
        self.with("-shm")
    }

    /// The lock file.
    pub fn lock(&self) -> PathBuf {
        self.with(".lock")
    }

    /// A new database that is not complete yet: worth nothing.
    pub fn new_file(&self) -> PathBuf {
        self.with(".new")
    }

    /// A new database that is complete: the truth, once it has this name.
    pub fn ready(&self) -> PathBuf {
        self.with(".ready")
    }

    /// The mark of a suspect file.
    pub fn suspect(&self) -> PathBuf {
        self.with(".suspect")
    }

    /// The file of no use but its size.
    pub fn ballast(&self) -> PathBuf {
        self.with(".ballast")
    }

    /// What is written for a moment, to see whether anything can be.
    pub fn probe(&self) -> PathBuf {
        self.with(".probe")
    }

    /// Another name beside the database.
    pub fn with(&self, suffix: &str) -> PathBuf {
        let mut name = self.database.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Gives what has the database's name another one, unless it is empty; its log stays.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        if file_bytes(&self.database)? == 0 {
            return Ok(None);
        }
        let names = (1_u32..).map(|number| self.with(&format!(".replaced-{number}")));
        for name in names {
            if !name.exists() {
                rename(&self.database, &name)?;
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Gives a file that was just made to the owner of the database, or of the directory while there
    /// is none: what root prepares or repairs must be open to the daemon's user. Failing at that is
    /// no reason to fail: most often it is our own file anyway.
    pub fn give_to_owner(&self, file: &File) {
        let owner = fs::metadata(&self.database).or_else(|_| fs::metadata(self.directory()));
        if let Ok(owner) = owner {
            // By its descriptor: whoever may write to the directory could put a link in its place.
            let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
        }
    }

    /// Makes renames and removals in the directory durable.
    pub fn sync_directory(&self) -> Result<(), StoreError> {
        File::open(self.directory())
            .and_then(|directory| directory.sync_all())
            .map_err(|error| StoreError::system(self.directory(), error))
    }
}

/// Removes a file that may not exist; says whether it did.
pub(super) fn remove_if_there(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::system(path, error)),
    }
}

/// Gives a file another name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::system(to, error))
}

/// The bytes of a file, 0 when it does not exist.
pub(super) fn file_bytes(path: &Path) -> Result<u64, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::system(path, error)),
    }
}

/// The bytes of the blocks that a file has, 0 when it does not exist.
pub(super) fn allocated_bytes(path: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_the_same_files_before_and_after_the_database_exists() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("q.db");
        let link = directory.path().join("other.db");
        symlink("q.db", &link).unwrap();
        let before = Paths::of(&real).unwrap();
        assert_eq!(Paths::of(&link).unwrap(), before);
        File::create(&real).unwrap();
        assert_eq!(Paths::of(&link).unwrap(), before);
        assert_eq!(before.wal().file_name().unwrap(), "q.db-wal");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no");
        match Paths::of(&missing.join("q.db")) {
            Err(StoreError::MissingDirectory { directory }) => assert_eq!(directory, missing),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_is_no_database() {
        let directory = tempfile::tempdir().unwrap();
        let error = Paths::of(directory.path()).unwrap_err();
        assert_eq!(error.exit_code(), 73, "{error}");
    }

    /// `--database /dev/null`, given by root, replaced the device by a file at the stop.
    #[test]
    fn what_is_not_a_regular_file_is_no_database() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = directory.path().join("link");
        symlink("/dev/null", &link).unwrap();
        for path in [socket.as_path(), Path::new("/dev/null"), &link] {
            let error = Paths::of(path).unwrap_err();
            assert_eq!(error.exit_code(), 73, "{error}");
            assert!(error.to_string().ends_with("not a regular file"), "{error}");
        }
    }
}
