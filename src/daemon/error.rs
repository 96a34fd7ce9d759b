//! Why the daemon cannot start or go on, and the exit code that says so (sysexits.h).

use std::fmt;
use std::io;

use crate::binlog::BinlogError;
use crate::config::ConfigError;
use crate::daemon::systemd::PassedError;
use crate::store::StoreError;
use crate::wire::bind::BindError;

/// Why the daemon cannot start or go on.
#[derive(Debug)]
pub enum DaemonError {
    /// A socket was passed that cannot be used.
    Passed(PassedError),
    /// A socket was passed under a name that is no protocol's.
    PassedName(String),
    /// An address is not what the configuration allows, or its host name does not resolve.
    Address(ConfigError),
    /// The daemon cannot listen on an address. The text says who has it, and what to do.
    Bind {
        /// What went wrong.
        error: BindError,
        /// Who has it, where that is known, and the flag to change it.
        hint: String,
    },
    /// The group of a Unix socket does not exist.
    Group(String),
    /// Whether the group of a Unix socket exists cannot be found out now.
    GroupLookUp(String, io::Error),
    /// The user to become does not exist.
    User(String),
    /// The database.
    Store(StoreError),
    /// The jobs that beanstalkd has left.
    Binlog(BinlogError),
    /// The directory of the database cannot be made.
    Directory(std::path::PathBuf, io::Error),
    /// The system refuses a thread, a descriptor, a signal handler.
    System(&'static str, io::Error),
    /// A defect.
    Internal(&'static str),
}

impl DaemonError {
    /// The exit code for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Passed(_) | DaemonError::PassedName(_) | DaemonError::Group(_) => 78,
            // Not in the list of phpmqd(8): only beanstalkd's command line names users.
            DaemonError::User(_) => 64,
            DaemonError::GroupLookUp(..) => 69,
            DaemonError::Address(error) => error.exit_code(),
            DaemonError::Bind { error, .. } => error.exit_code(),
            DaemonError::Store(error) => error.exit_code(),
            DaemonError::Binlog(error) => error.exit_code(),
            DaemonError::Directory(_, error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => 77,
                _ => 73,
            },
            DaemonError::System(..) | DaemonError::Internal(_) => 70,
        }
    }
}

impl DaemonError {
    /// Whether it can pass without anybody's help: what is missing may come, what is in use may be
    /// let go, a full disk may get room. A wrong configuration, a damaged database or a missing
    /// permission stays until a person mends it.
    pub fn can_pass(&self) -> bool {
        matches!(self.exit_code(), 69 | 73 | 74)
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Passed(error) => error.fmt(f),
            DaemonError::PassedName(name) => {
                write!(f, "a socket was passed with the name {name:?}, which is not a protocol")
            }
            DaemonError::Address(error) => error.fmt(f),
            DaemonError::Bind { error, hint } => write!(f, "{error}{hint}"),
            DaemonError::Group(name) => write!(f, "listener.group: there is no group {name:?}"),
            DaemonError::GroupLookUp(name, error) => {
                write!(f, "listener.group: cannot look up the group {name:?}: {error}")
            }
            DaemonError::User(name) => write!(f, "-u: there is no user {name:?}"),
            DaemonError::Store(error) => error.fmt(f),
            DaemonError::Binlog(error) => error.fmt(f),
            DaemonError::Directory(path, error) => {
                write!(f, "cannot create the directory {}: {error}", path.display())
            }
            DaemonError::System(what, error) => write!(f, "cannot {what}: {error}"),
            DaemonError::Internal(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for DaemonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DaemonError::Passed(error) => Some(error),
            DaemonError::Address(error) => Some(error),
            DaemonError::Bind { error, .. } => Some(error),
            DaemonError::Store(error) => Some(error),
            DaemonError::Binlog(error) => Some(error),
            DaemonError::Directory(_, error)
            | DaemonError::GroupLookUp(_, error)
            | DaemonError::System(_, error) => Some(error),
            DaemonError::PassedName(_)
            | DaemonError::Group(_)
            | DaemonError::User(_)
            | DaemonError::Internal(_) => None,
        }
    }
}

impl From<BinlogError> for DaemonError {
    fn from(error: BinlogError) -> DaemonError {
        DaemonError::Binlog(error)
    }
}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> DaemonError {
        DaemonError::Store(error)
    }
}
