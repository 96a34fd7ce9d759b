//! Keeps a beanstalkd away from a binlog that is being read.
//!
//! beanstalkd holds a POSIX record lock on the file `lock` in its directory while it runs. Such a
//! lock is another one than that of [`std::fs::File::try_lock`], and goes when this process closes
//! any descriptor of the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::BinlogError;
use super::files::find;

/// The right to read a binlog, held while it lives.
pub struct DirectoryLock {
    /// `None` when there is no such file: beanstalkd makes it before all else, so none is at work.
    file: Option<File>,
}

impl DirectoryLock {
    /// Takes the lock, or finds that nobody has it where it may not be taken.
    ///
    /// # Errors
    /// [`BinlogError::InUse`], or what keeps us from knowing.
    pub(super) fn take(directory: &Path) -> Result<DirectoryLock, BinlogError> {
        let path = directory.join("lock");
        let failed = |error| BinlogError::read(&path, error);
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        let (file, may_lock) = match writable {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(DirectoryLock { file: None });
            }
            // A copy on a medium that cannot be written to, perhaps: looking is enough there.
            Err(_) => (File::open(&path).map_err(failed)?, false),
        };
        let wanted = Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        let holder = fcntl_getlk(&file, &wanted).map_err(|error| failed(error.into()))?;
        let in_use = |pid| BinlogError::InUse { directory: directory.to_path_buf(), pid };
        if let Some(holder) = holder {
            let pid = holder.pid.map(|pid| pid.as_raw_nonzero().get());
            return Err(in_use(pid.and_then(|pid| u32::try_from(pid).ok())));
        }
        if may_lock {
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| in_use(None))?;
        }
        Ok(DirectoryLock { file: Some(file) })
    }

    /// Keeps every beanstalkd from a directory whose binlog was imported, while this lives: one that
    /// started there would hand out the same jobs again. `None` when there is no binlog.
    ///
    /// Nothing of this process may open the file meanwhile: closing it again would end the lock.
    ///
    /// # Errors
    /// As for taking it.
    pub fn keep(directory: &Path) -> Result<Option<DirectoryLock>, BinlogError> {
        if find(directory)?.0.is_empty() {
            return Ok(None);
        }
        // Not to be made where nothing may be: then nobody can start there either.
        let path = directory.join("lock");
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        DirectoryLock::take(directory).map(Some)
    }

    /// Looks once more where there was no file to lock: a beanstalkd may have started meanwhile.
    ///
    /// # Errors
    /// As for taking it.
    pub(super) fn again(self, directory: &Path) -> Result<DirectoryLock, BinlogError> {
        if self.file.is_some() { Ok(self) } else { DirectoryLock::take(directory) }
    }
}
