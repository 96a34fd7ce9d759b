//! What can go wrong with a database, each cause with the file that it is about.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::words::ids::{MessageId, Part, QueueId};

/// What can go wrong with a database.
#[derive(Debug)]
pub enum StoreError {
    /// The file is one of ours but damaged. Nothing was changed in it.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What was found, up to [`DAMAGE_LISTED_MAX`] items of it.
        damage: Vec<Damage>,
        /// How many items there are in all.
        found: u64,
    },
    /// The file is no database of this program. Nothing was changed in it.
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file was written by a newer version of this program. Nothing was changed in it.
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The file is empty, and what is beside it shows that it held a database.
    Emptied {
        /// The file.
        file: PathBuf,
    },
    /// There is no database of this name, or nothing in it, so there is nothing to recover.
    NoDatabase {
        /// The file.
        file: PathBuf,
    },
    /// A repair found no message that is sound in a file that held some. Nothing was changed.
    NothingSound {
        /// The file.
        file: PathBuf,
        /// Rows that fail their checksums.
        damaged_rows: u64,
        /// Places of the file that can not be read at all.
        unreadable: u64,
    },
    /// Another daemon has the database.
    InUse {
        /// The file.
        file: PathBuf,
        /// The other daemon's process, when it says so.
        pid: Option<u32>,
    },
    /// The file has several names (hard links). Nothing was changed in it.
    Linked {
        /// The file.
        file: PathBuf,
        /// How many.
        links: u64,
    },
    /// The file needs a write-ahead log that is not beside it. Nothing was changed in it.
    LogMissing {
        /// The file.
        file: PathBuf,
    },
    /// The write-ahead log beside the file is that of another one. Nothing was changed in either.
    LogForeign {
        /// The file.
        file: PathBuf,
    },
    /// Another program has locked the file for longer than we wait.
    Busy {
        /// The file.
        file: PathBuf,
    },
    /// The directory that the file should be in does not exist.
    MissingDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// The file system can not hold a write-ahead log.
    NoWriteAheadLog {
        /// The file.
        file: PathBuf,
    },
    /// The file can not be made.
    CannotCreate {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file may not be read or written by this user.
    Permission {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: ErrorSource,
    },
    /// No room is left on the device, or the user's share of it is used up.
    Full {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: ErrorSource,
    },
    /// No room is left for all of a commit: only what comes up to a part of it is in the file, and on
    /// the disk if that was asked for.
    NoRoom {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: ErrorSource,
        /// The last part that is in the file.
        kept: Part,
    },
    /// Reading, writing or syncing failed: the file is suspect.
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: ErrorSource,
    },
    /// An earlier error has left it uncertain what the file holds: nothing is written to it before
    /// a new one is in its place.
    Suspect {
        /// The file.
        file: PathBuf,
    },
    /// The disk has no room for a new file, and the suspect one can be trusted again: the commit that
    /// has failed can be tried again.
    Revived,
    /// The file or its write-ahead log was removed or replaced by somebody while it was open.
    Replaced {
        /// The file.
        file: PathBuf,
    },
    /// The file or its log was cut or overwritten in place by another program while it was open.
    Altered {
        /// The file.
        file: PathBuf,
    },
    /// The files were moved while they were open, together.
    Moved {
        /// The file's name before.
        file: PathBuf,
        /// Its name now.
        to: PathBuf,
    },
    /// The database library failed in a way that none of the others describes.
    Internal {
        /// The file.
        file: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}

/// What the system or the database library said.
#[derive(Debug)]
pub enum ErrorSource {
    /// The system.
    System(io::Error),
    /// The database library.
    Database(rusqlite::Error),
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The structure of the file, in the database library's words.
    Structure(String),
    /// The message of this id is not what was written.
    Message(i64),
    /// The state of the message of this id is not what was written.
    State(i64),
    /// There is a state for this id but no message.
    StateWithoutMessage(i64),
    /// The queue of this number is not what was written.
    Queue(i64),
    /// The message of this id is in a queue that does not exist.
    MessageWithoutQueue(i64),
    /// A row of one of the other tables is not what was written.
    Row {
        /// The table.
        table: &'static str,
        /// The number in its first column.
        number: i64,
    },
    /// A key of this queue is taken by a message that has another key already.
    SecondKey {
        /// The queue of the key.
        queue: QueueId,
        /// The message.
        message: MessageId,
    },
    /// This setting is missing or not what was written.
    Setting(&'static str),
    /// There is a write-ahead log but the file itself is missing or empty.
    LogWithoutFile,
}

/// How many damaged places an error lists.
pub const DAMAGE_LISTED_MAX: usize = 10;

/// What the daemon does about an error of a commit (the module doc of `persistence`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The file is sound: try again with the next tick.
    Retry,
    /// The file is sound but can not grow: refuse what makes it grow, free the ballast, try again.
    RefusePuts,
    /// The file is suspect: write a new one from memory.
    Rewrite,
}

impl StoreError {
    /// A full disk that took a commit up to this part.
    pub(super) fn beyond(self, kept: Part) -> StoreError {
        match self {
            StoreError::Full { file, source } => StoreError::NoRoom { file, source, kept },
            other => other,
        }
    }

    /// The exit code of a daemon that ends for this (phpmqd(8)).
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::Corrupt { .. }
            | StoreError::Foreign { .. }
            | StoreError::Newer { .. }
            | StoreError::Linked { .. }
            | StoreError::Emptied { .. }
            | StoreError::LogMissing { .. }
            | StoreError::LogForeign { .. }
            | StoreError::NoDatabase { .. }
            | StoreError::NothingSound { .. } => 65,
            StoreError::InUse { .. } | StoreError::Busy { .. } => 69,
            StoreError::Internal { .. } => 70,
            StoreError::MissingDirectory { .. }
            | StoreError::NoWriteAheadLog { .. }
            | StoreError::CannotCreate { .. } => 73,
            StoreError::Full { .. }
            | StoreError::NoRoom { .. }
            | StoreError::Io { .. }
            | StoreError::Suspect { .. }
            | StoreError::Revived
            | StoreError::Replaced { .. }
            | StoreError::Altered { .. }
            | StoreError::Moved { .. } => 74,
            StoreError::Permission { .. } => 77,
        }
    }

    /// What to do when a commit failed with this.
    pub fn remedy(&self) -> Remedy {
        match self {
            StoreError::Full { .. } | StoreError::NoRoom { .. } => Remedy::RefusePuts,
            StoreError::Busy { .. } | StoreError::Moved { .. } | StoreError::Revived => {
                Remedy::Retry
            }
            // The library has undone all of it: memory is short, and nothing is wrong with the file.
            StoreError::Internal { source, .. }
                if source.sqlite_error_code() == Some(ErrorCode::OutOfMemory) =>
            {
                Remedy::Retry
            }
            _ => Remedy::Rewrite,
        }
    }

    /// Whether the system has no memory for the database in memory, which is as it was.
    pub fn is_want_of_memory(&self) -> bool {
        let StoreError::Internal { source, .. } = self else { return false };
        // It is full when it has as many pages as it may have.
        matches!(source.sqlite_error_code(), Some(ErrorCode::OutOfMemory | ErrorCode::DiskFull))
    }

    /// What the system said about this file.
    pub fn system(file: &Path, source: io::Error) -> StoreError {
        let file = file.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Permission { file, source: ErrorSource::System(source) }
            }
            // A size limit of the process or the user is a full disk for whoever meets it.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => {
                let source = without_inodes(&file).unwrap_or(source);
                StoreError::Full { file, source: ErrorSource::System(source) }
            }
            _ => StoreError::Io { file, source: ErrorSource::System(source) },
        }
    }

    /// What the database library said about this file.
    pub fn database(file: &Path, source: rusqlite::Error) -> StoreError {
        let file = file.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { file },
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                StoreError::Permission { file, source: ErrorSource::Database(source) }
            }
            Some(ErrorCode::DiskFull) => {
                StoreError::Full { file, source: ErrorSource::Database(source) }
            }
            // The library does not say why it cannot open, and leaves a full disk to be guessed.
            Some(ErrorCode::CannotOpen) => match without_inodes(&file).or(without_blocks(&file)) {
                Some(lack) => StoreError::Full { file, source: ErrorSource::System(lack) },
                None => StoreError::Io { file, source: ErrorSource::Database(source) },
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
                file,
                damage: vec![Damage::Structure(source.to_string())],
                found: 1,
            },
            Some(ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed) => {
                StoreError::Io { file, source: ErrorSource::Database(source) }
            }
            _ => StoreError::Internal { file, source },
        }
    }
}

/// That no file can be made beside this one for want of an inode, which the system calls the same
/// as a full disk.
fn without_inodes(file: &Path) -> Option<io::Error> {
    let disk = rustix::fs::statvfs(file.parent()?).ok()?;
    // Some file systems have no fixed number of inodes and say 0 of 0.
    let lack = "the file system has no free inode for another file";
    (disk.f_files > 0 && disk.f_favail == 0)
        .then(|| io::Error::new(io::ErrorKind::StorageFull, lack))
}

/// That the file system has no room for a file beside this one.
fn without_blocks(file: &Path) -> Option<io::Error> {
    let disk = rustix::fs::statvfs(file.parent()?).ok()?;
    let lack = "the file system has no free block";
    (disk.f_bavail == 0).then(|| io::Error::new(io::ErrorKind::StorageFull, lack))
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Corrupt { file, damage, found } => corrupt(f, file, damage, *found),
            StoreError::Foreign { file } => {
                write!(f, "{} is not a database of phpmqd", file.display())
            }
            StoreError::Newer { file, version } => write!(
                f,
                "the database {} has format {version}, this version of phpmqd reads up to {}",
                file.display(),
                super::schema::FORMAT_VERSION
            ),
            StoreError::NoDatabase { file } => {
                write!(f, "there is no database {}, so there is nothing to recover", file.display())
            }
            StoreError::NothingSound { file, damaged_rows, unreadable } => {
                nothing_sound(f, file, *damaged_rows, *unreadable)
            }
            StoreError::InUse { file, pid } => in_use(f, file, *pid),
            StoreError::Emptied { file } => emptied(f, file),
            StoreError::LogMissing { file } => log_missing(f, file),
            StoreError::LogForeign { file } => log_foreign(f, file),
            StoreError::Linked { file, links } => linked(f, file, *links),
            StoreError::Busy { file } => {
                write!(f, "the database {} is locked by another program", file.display())
            }
            StoreError::MissingDirectory { directory } => {
                write!(f, "the directory {} does not exist", directory.display())
            }
            StoreError::NoWriteAheadLog { file } => write!(
                f,
                "the file system of {} cannot hold a write-ahead log (is it a network file system?)",
                file.display()
            ),
            StoreError::CannotCreate { file, source } => {
                write!(f, "cannot create {}: {source}", file.display())
            }
            StoreError::Permission { file, source } => {
                write!(f, "no permission for {}: {source}", file.display())
            }
            StoreError::Full { file, source } | StoreError::NoRoom { file, source, .. } => {
                write!(f, "no space left for {}: {source}", file.display())
            }
            StoreError::Io { file, source } => {
                write!(f, "I/O error on {}: {source}", file.display())
            }
            StoreError::Suspect { file } => {
                write!(f, "the database {} is suspect after an earlier error", file.display())
            }
            StoreError::Revived => f.write_str("the database was rewritten in place"),
            StoreError::Replaced { file } => write!(
                f,
                "the database {} or its write-ahead log was removed or replaced",
                file.display()
            ),
            StoreError::Altered { file } => altered(f, file),
            StoreError::Moved { file, to } => moved(f, file, to),
            StoreError::Internal { file, source } => {
                write!(f, "SQLite failed on {}: {source}", file.display())
            }
        }
    }
}

fn corrupt(f: &mut fmt::Formatter<'_>, file: &Path, damage: &[Damage], found: u64) -> fmt::Result {
    write!(f, "the database {} is corrupt:", file.display())?;
    for (index, item) in damage.iter().enumerate() {
        write!(f, "{} {item}", if index == 0 { "" } else { ";" })?;
    }
    let listed = damage.len() as u64;
    if found > listed {
        write!(f, "; and {} more", found - listed)?;
    }
    f.write_str(" (phpmqd --recover keeps what is intact)")
}

fn in_use(f: &mut fmt::Formatter<'_>, file: &Path, pid: Option<u32>) -> fmt::Result {
    write!(f, "the database {} is in use by ", file.display())?;
    match pid {
        Some(pid) => write!(f, "process {pid}"),
        None => f.write_str("another daemon"),
    }
}

fn altered(f: &mut fmt::Formatter<'_>, file: &Path) -> fmt::Result {
    write!(f, "another program has changed the database {}", file.display())
}

fn moved(f: &mut fmt::Formatter<'_>, file: &Path, to: &Path) -> fmt::Result {
    write!(f, "the database {} was moved to {}", file.display(), to.display())
}

fn emptied(f: &mut fmt::Formatter<'_>, file: &Path) -> fmt::Result {
    let file = file.display();
    write!(
        f,
        "{file} is empty, but held a database: restore a backup as phpmqd(8) says, or remove the file \
         to begin with no messages"
    )
}

fn log_missing(f: &mut fmt::Formatter<'_>, file: &Path) -> fmt::Result {
    let file = file.display();
    write!(
        f,
        "the database {file} was not closed in order, and its write-ahead log {file}-wal, which \
         has the latest changes, is missing; put the log back beside it, or restore a backup as \
         phpmqd(8) says (phpmqd --recover keeps what is in the file alone, which is everything if \
         another program has moved the log into the file)"
    )
}

fn log_foreign(f: &mut fmt::Formatter<'_>, file: &Path) -> fmt::Result {
    let file = file.display();
    write!(
        f,
        "the write-ahead log {file}-wal does not belong to the database {file}; if {file} is a \
         restored backup, remove {file}-wal and {file}-shm, else restore both from the same moment"
    )
}

fn linked(f: &mut fmt::Formatter<'_>, file: &Path, links: u64) -> fmt::Result {
    let file = file.display();
    write!(
        f,
        "the database {file} has {links} names (hard links), and each would have a write-ahead log \
         of its own; remove the others (find / -samefile {file} lists them)"
    )
}

fn nothing_sound(f: &mut fmt::Formatter<'_>, file: &Path, rows: u64, places: u64) -> fmt::Result {
    let file = file.display();
    write!(
        f,
        "nothing can be recovered from the database {file}: {rows} rows fail their checksums, \
         {places} places cannot be read, no message is intact; the file is unchanged"
    )
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::CannotCreate { source, .. } => Some(source),
            StoreError::Permission { source, .. }
            | StoreError::Full { source, .. }
            | StoreError::NoRoom { source, .. }
            | StoreError::Io { source, .. } => Some(match source {
                ErrorSource::System(error) => error,
                ErrorSource::Database(error) => error,
            }),
            StoreError::Internal { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorSource::System(error) => error.fmt(f),
            ErrorSource::Database(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Structure(text) => f.write_str(text),
            Damage::Message(id) => write!(f, "message {id} fails its checksum"),
            Damage::State(id) => {
                write!(f, "the state of message {id} fails its checksum or has no queue")
            }
            Damage::StateWithoutMessage(id) => {
                write!(f, "message {id} is missing but has a state")
            }
            Damage::Queue(id) => write!(f, "queue {id} fails its checksum"),
            Damage::MessageWithoutQueue(id) => write!(f, "the queue of message {id} is missing"),
            Damage::Row { table, number } => {
                write!(f, "row {number} of {table} fails its checksum")
            }
            Damage::SecondKey { queue, message } => {
                write!(
                    f,
                    "a row of key for queue {} names message {}, which has another key",
                    queue.0, message.0
                )
            }
            Damage::Setting(name) => write!(f, "the setting {name} is missing or damaged"),
            Damage::LogWithoutFile => {
                f.write_str("there is a write-ahead log but the file itself is missing or empty")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    fn corrupt(found: u64) -> StoreError {
        let damage = vec![Damage::Message(7), Damage::Queue(2)];
        StoreError::Corrupt { file: "/x/q.db".into(), damage, found }
    }

    #[test]
    fn corruption_names_file_and_rows() {
        let text = corrupt(5).to_string();
        assert!(text.contains("/x/q.db"), "{text}");
        assert!(text.contains("message 7 fails its checksum; queue 2"), "{text}");
        assert!(text.contains("and 3 more"), "{text}");
        assert!(!corrupt(2).to_string().contains("more"));
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let file = Path::new("/x");
        let code = |kind: io::ErrorKind| StoreError::system(file, kind.into()).exit_code();
        assert_eq!(corrupt(2).exit_code(), 65);
        assert_eq!(StoreError::InUse { file: file.into(), pid: None }.exit_code(), 69);
        assert_eq!(StoreError::MissingDirectory { directory: file.into() }.exit_code(), 73);
        assert_eq!(code(io::ErrorKind::StorageFull), 74);
        assert_eq!(code(io::ErrorKind::Other), 74);
        assert_eq!(code(io::ErrorKind::PermissionDenied), 77);
        assert_eq!(code(io::ErrorKind::ReadOnlyFilesystem), 77);
    }

    #[test]
    fn full_disks_are_waited_for_and_other_errors_make_a_file_suspect() {
        let file = Path::new("/x");
        let remedy = |kind: io::ErrorKind| StoreError::system(file, kind.into()).remedy();
        assert_eq!(remedy(io::ErrorKind::StorageFull), Remedy::RefusePuts);
        assert_eq!(remedy(io::ErrorKind::QuotaExceeded), Remedy::RefusePuts);
        assert_eq!(remedy(io::ErrorKind::FileTooLarge), Remedy::RefusePuts);
        assert_eq!(remedy(io::ErrorKind::Other), Remedy::Rewrite);
        assert_eq!(StoreError::Busy { file: file.into() }.remedy(), Remedy::Retry);
    }

    #[test]
    fn a_want_of_memory_says_nothing_against_the_file() {
        let said = |code| {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            StoreError::database(Path::new("/x"), source).remedy()
        };
        assert_eq!(said(rusqlite::ffi::SQLITE_NOMEM), Remedy::Retry);
        assert_eq!(said(rusqlite::ffi::SQLITE_INTERNAL), Remedy::Rewrite);
    }

    #[test]
    fn the_cause_is_kept() {
        let error = StoreError::system(Path::new("/x"), io::ErrorKind::StorageFull.into());
        assert!(error.source().is_some());
    }
}
