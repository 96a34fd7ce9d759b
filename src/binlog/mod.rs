//! beanstalkd's binlog, read for sites that replace that program by this one.
//!
//! beanstalkd keeps its jobs in files `binlog.1`, `binlog.2` and so on, in the directory that `-b`
//! names. A file begins with the version of its format, a 32-bit integer, and goes on with records
//! (`record.rs`) until zeros or its end; all numbers are in the byte order of the machine. A record
//! with a tube's name and a body is a whole job; one without either says what became of a job that
//! was told before. The oldest file is deleted once no job is in it, and jobs that keep it alive are
//! written again at the end.
//!
//! Read in two passes, so that memory holds what is known of each job and no body: [`Binlog::read`]
//! goes through all records, [`import`] fetches the bodies of what is left.
//!
//! # Failure
//!
//! Nothing in the directory is changed. The format has no checksums: what is left out is what
//! contradicts itself, and what stands behind it in its file, since the place of the next record is
//! then uncertain. All of it is told ([`Fault`]).

mod error;
mod fault;
mod files;
mod import;
mod lock;
mod record;
mod replay;
mod scan;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;

pub use error::BinlogError;
pub use fault::{Fault, What};
pub use import::{Imported, check_mark, import};
pub use lock::DirectoryLock;

use files::{FoundFile, find};
use replay::Replay;
use scan::scan;

/// All that a directory's binlog says, read and locked.
pub struct Binlog {
    files: Vec<FoundFile>,
    replay: Replay,
    faults: Vec<Fault>,
    /// Held until the bodies are read as well.
    _lock: DirectoryLock,
}

impl Binlog {
    /// Reads the binlog in this directory. `progress` hears now and then how many jobs are known.
    ///
    /// # Errors
    /// Why nothing can be said of it; also that it holds something and nothing of it is sound.
    pub fn read(directory: &Path, progress: &mut dyn FnMut(u64)) -> Result<Binlog, BinlogError> {
        let lock = DirectoryLock::take(directory)?;
        let (files, mut faults) = find(directory)?;
        if files.is_empty() {
            return Err(BinlogError::NoBinlog { directory: directory.to_path_buf() });
        }
        let mut replay = Replay::default();
        for (number, file) in files.iter().enumerate() {
            let read = File::open(&file.path)
                .and_then(|input| scan(input, file, number, &mut replay, &mut faults));
            read.map_err(|error| BinlogError::read(&file.path, error))?;
            progress(replay.jobs());
        }
        let lock = lock.again(directory)?;
        if let Some(fault) = faults.first()
            && replay.records() == 0
        {
            return Err(BinlogError::NothingSound { fault: fault.clone() });
        }
        Ok(Binlog { files, replay, faults, _lock: lock })
    }

    /// Jobs that are left.
    pub fn jobs(&self) -> u64 {
        self.replay.jobs()
    }

    /// What could not be read.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}
