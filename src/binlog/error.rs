//! Why a binlog cannot be imported.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Fault;
use crate::store::StoreError;

/// Why a binlog cannot be imported. Nothing was changed.
#[derive(Debug)]
pub enum BinlogError {
    /// There are no files of that name.
    NoBinlog {
        /// The directory.
        directory: PathBuf,
    },
    /// A beanstalkd is at work in the directory.
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Its process, where that is known.
        pid: Option<u32>,
    },
    /// The system refuses it.
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are files, and no record in them that makes sense.
    NothingSound {
        /// The first thing that is wrong.
        fault: Fault,
    },
    /// There is a database already.
    DatabaseExists {
        /// The database.
        database: PathBuf,
    },
    /// The new database.
    Store(StoreError),
}

impl BinlogError {
    pub(super) fn read(path: &Path, source: io::Error) -> BinlogError {
        BinlogError::Read { path: path.to_path_buf(), source }
    }

    /// The exit code for it (phpmqd(8)).
    pub fn exit_code(&self) -> u8 {
        match self {
            BinlogError::NoBinlog { .. } | BinlogError::NothingSound { .. } => 65,
            BinlogError::InUse { .. } => 69,
            BinlogError::Read { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => 77,
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 73,
                _ => 74,
            },
            BinlogError::DatabaseExists { .. } => 73,
            BinlogError::Store(error) => error.exit_code(),
        }
    }
}

impl fmt::Display for BinlogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BinlogError::NoBinlog { directory } => {
                write!(f, "there is no binlog of beanstalkd in {}", directory.display())
            }
            BinlogError::InUse { directory, pid } => {
                write!(f, "a running beanstalkd uses the binlog in {}", directory.display())?;
                if let Some(pid) = pid {
                    write!(f, " (process {pid})")?;
                }
                f.write_str("; stop it first")
            }
            BinlogError::Read { path, source } => {
                write!(f, "cannot read the binlog: {}: {source}", path.display())
            }
            BinlogError::NothingSound { fault } => {
                write!(f, "no record of the binlog can be read: {fault}")
            }
            BinlogError::DatabaseExists { database } => write!(
                f,
                "the database {} exists; a binlog is imported into a new one only, because its \
                 jobs keep their ids",
                database.display()
            ),
            BinlogError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BinlogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BinlogError::Read { source, .. } => Some(source),
            BinlogError::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for BinlogError {
    fn from(error: StoreError) -> BinlogError {
        BinlogError::Store(error)
    }
}
