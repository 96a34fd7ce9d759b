//! Whether the open database is still what its name leads to, and holds what it should.
//!
//! Others may remove, replace, move, cut or overwrite the files while we have them open; commits
//! would go on reaching something that no start finds. It is looked at with every tick, before the
//! log is moved into the file, and at the end, when the closed file is read once more as the next
//! start would read it.
//!
//! # Failure
//!
//! What is gone or altered is an error, and memory has everything for a new file. A database that
//! was moved with its log is not lost: the daemon goes on where it is now.

use std::fs::Metadata;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::check;
use super::file::{LOG_KEPT_BYTES, Sizes, StoreFile, disk_free_bytes, harden};
use super::guard::{self, Guard, Identity};
use super::paths::Paths;
use super::schema::FORMAT_VERSION;
use super::{Held, StoreError};

/// What was seen of the files when they were last looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    file_bytes: u64,
    log_bytes: u64,
    marks: Option<Marks>,
}

/// What the header of the file says that that of another database would not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    /// Drawn at random when the file is made; copies made by the database library have others.
    cookie: u32,
    /// Grows.
    changes: u32,
}

/// How a database was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is in the file, which was read once more.
    Whole,
    /// Another program or a full disk has kept the log from being moved into the file: all is in
    /// both together.
    WithLog,
}

impl Marks {
    fn of(guard: &Guard) -> Option<Marks> {
        const MAGIC: &[u8] = b"SQLite format 3\0";
        let mut header = [0; 100];
        guard.file().read_exact_at(&mut header, 0).ok()?;
        let number = |at: usize| {
            let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_be_bytes(*bytes))
        };
        let marks = Marks { cookie: number(40)?, changes: number(24)? };
        header.starts_with(MAGIC).then_some(marks)
    }

    /// Whether a file with these marks may have become one with those, by its own log alone.
    fn may_become(self, now: Marks) -> bool {
        self.cookie == now.cookie && self.changes <= now.changes
    }
}

impl StoreFile {
    /// How large everything is now. Makes the lock file again if it is gone.
    ///
    /// # Errors
    /// What the system said; [`StoreError::Replaced`], [`StoreError::Altered`] and
    /// [`StoreError::Moved`] when commits reach nothing that the next start would find.
    pub fn sizes(&self) -> Result<Sizes, StoreError> {
        let (file, log) = self.look()?;
        Ok(Sizes {
            file_bytes: file.len(),
            wal_bytes: log.len(),
            disk_free_bytes: disk_free_bytes(&self.place.paths)?,
            links: file.nlink(),
            lock_file: self.place.lock_file(),
        })
    }

    /// Looks at the file and its log under their names.
    pub(super) fn look(&self) -> Result<(Metadata, Metadata), StoreError> {
        let paths = &self.place.paths;
        let file = look(paths.database())?.filter(|found| self.is_ours(0, found));
        let log = look(&paths.wal())?.filter(|found| self.is_ours(1, found));
        let (Some(file), Some(log)) = (file, log) else {
            return Err(self.whereabouts());
        };
        let seen = self.seen.get();
        // A log that has grown beyond what is kept is cut when it begins anew.
        let is_cut = file.len() < seen.file_bytes || log.len() < seen.log_bytes.min(LOG_KEPT_BYTES);
        let marks = self.marks();
        let may_become = |before: Marks| marks.is_some_and(|now| before.may_become(now));
        if is_cut || !seen.marks.is_none_or(may_become) {
            return Err(StoreError::Altered { file: self.path().to_path_buf() });
        }
        self.seen.set(Seen { file_bytes: file.len(), log_bytes: log.len(), marks });
        Ok((file, log))
    }

    /// Notes that the log was moved into the file, which may be shorter now, as may the log be.
    pub(super) fn log_was_moved(&self) {
        self.seen.set(Seen { marks: self.marks(), ..Seen::default() });
    }

    fn marks(&self) -> Option<Marks> {
        self.place.with_guard(Marks::of)
    }

    fn is_ours(&self, index: usize, found: &Metadata) -> bool {
        self.identities.get(index) == Some(&Some(Identity::of(found)))
    }

    /// What has become of a file that its name does not lead to any more.
    fn whereabouts(&self) -> StoreError {
        let file = self.path().to_path_buf();
        let now = self.place.with_guard(Guard::path_now).map(Paths::resolved);
        let has_log = |paths: &Paths| {
            let log = Identity::at(&paths.wal()).ok().flatten();
            log.is_some() && Some(&log) == self.identities.get(1)
        };
        match now.filter(|paths| paths.database() != file && has_log(paths)) {
            Some(paths) => StoreError::Moved { file, to: paths.database().to_path_buf() },
            None => StoreError::Replaced { file },
        }
    }

    /// Goes on in the directory that the files were moved to.
    pub fn follow(&mut self, to: PathBuf) {
        self.place.paths = Paths::resolved(to);
    }

    /// Moves the log into the file, closes and reads the file as the next start would. `messages`
    /// is how many there are, if that is certain.
    ///
    /// # Errors
    /// What is wrong, with the place for a new file.
    pub fn finish(mut self, messages: Option<u64>) -> Result<Ending, Box<(Held, StoreError)>> {
        if let Err(error) = self.look() {
            let StoreError::Moved { to, .. } = error else {
                self.keep_log();
                return Err(Box::new((Held::Open(self), error)));
            };
            self.follow(to);
        }
        let (place, closed) = self.close_in_place();
        let ending = match closed {
            Ok(()) => Ending::Whole,
            Err(StoreError::Busy { .. } | StoreError::Full { .. }) => Ending::WithLog,
            Err(error) => return Err(Box::new((Held::Closed(place), error))),
        };
        if ending == Ending::Whole
            && let Err(error) = read_again(&place.paths, messages)
        {
            return Err(Box::new((Held::Closed(place), error)));
        }
        Ok(ending)
    }
}

/// What the system knows of a file, if there is one.
fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if guard::is_missing(&error) => Ok(None),
        Err(error) => Err(StoreError::system(path, error)),
    }
}

/// Reads a closed file with nothing but what is in it.
fn read_again(paths: &Paths, messages: Option<u64>) -> Result<(), StoreError> {
    let connection = connect_without_log(paths)?;
    let (summary, findings) = check::check(&connection, FORMAT_VERSION, &mut |_| ());
    let is_complete = messages.is_none_or(|messages| messages == summary.messages);
    if findings.found > 0 || !is_complete {
        return Err(StoreError::Altered { file: paths.database().to_path_buf() });
    }
    Ok(())
}

/// Connects to the file alone, for reading; nothing is made beside it, and its log is not looked
/// at. Nobody may write to it meanwhile.
pub(super) fn connect_without_log(paths: &Paths) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = paths.database();
    let connect = || {
        let connection = Connection::open_with_flags(uri(file), flags)?;
        harden(&connection)?;
        Ok(connection)
    };
    connect().map_err(|error| StoreError::database(file, error))
}

fn uri(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                uri.push(char::from(*byte));
            }
            _ => {
                // Writing to a text never fails.
                let _ = write!(uri, "%{byte:02x}");
            }
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::testing::{commit_to, folder, put, queue, reopen};
    use super::*;
    use crate::journal::Journal;
    use std::fs;

    /// A database with some messages in the file and some in the log.
    fn open(path: &Path) -> StoreFile {
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=200).map(|id| put(id, 1, &[b'x'; 1_000])));
        let file = reopen(path).file.unwrap();
        commit_to(&mut File::new(&file).unwrap(), changes);
        file.close().unwrap();
        let file = reopen(path).file.unwrap();
        commit_to(&mut File::new(&file).unwrap(), vec![put(201, 1, b"last")]);
        file
    }

    fn stop(file: &StoreFile) {
        let mut journal = Journal::new();
        journal.stop_cleanly(202);
        File::new(file).unwrap().commit(&journal.take(), true).unwrap();
    }

    #[test]
    fn a_file_is_closed_when_it_holds_what_it_should() {
        let (_directory, path) = folder();
        let path = path.with_file_name("with blanks & größe?#%.db");
        let file = open(&path);
        stop(&file);
        let ending = file.finish(Some(201)).map_err(|failed| failed.1).unwrap();
        assert_eq!(ending, Ending::Whole);
        assert_eq!(reopen(&path).facts.messages, 201);
    }

    #[test]
    fn a_message_too_few_is_noticed_at_the_end() {
        let (_directory, path) = folder();
        let file = open(&path);
        stop(&file);
        let Err(failed) = file.finish(Some(202)) else { panic!("not noticed") };
        let error = &failed.1;
        assert!(matches!(error, StoreError::Altered { .. }), "{error}");
    }

    /// What others do to the file, each with a word for it.
    #[test]
    fn a_file_that_others_have_altered_is_noticed_at_once_and_at_the_end() {
        type Deed = fn(&Path);
        let deeds: [(&str, Deed); 5] = [
            ("emptied", |path| drop(fs::File::create(path).unwrap())),
            ("cut", |path| {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 8 * 1024).unwrap();
            }),
            ("overwritten", |path| {
                let other = path.with_file_name("other.db");
                open(&other).close().unwrap();
                // As cp does: the file stays, its content goes.
                fs::write(path, fs::read(&other).unwrap()).unwrap();
            }),
            ("log emptied", |path| {
                drop(fs::File::create(path.with_file_name("queue.db-wal")).unwrap());
            }),
            ("written into", |path| {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[0xa5; 64], 10 * 8 * 1024).unwrap();
            }),
        ];
        for (what, deed) in deeds {
            let (_directory, path) = folder();
            let file = open(&path);
            file.sizes().unwrap();
            deed(&path);
            // Only reading everything would show the last one.
            assert_eq!(file.sizes().is_err(), what != "written into", "{what}");
            stop(&file);
            let Err(failed) = file.finish(Some(201)) else { panic!("{what}: not noticed") };
            let error = &failed.1;
            assert_eq!(error.exit_code(), 74, "{what}: {error}");
        }
    }

    #[test]
    fn a_moved_directory_is_followed_and_a_file_moved_without_its_log_is_lost() {
        let (directory, path) = folder();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mut file = open(&inner.join("queue.db"));
        let moved = directory.path().join("moved");
        fs::rename(&inner, &moved).unwrap();
        let Err(StoreError::Moved { to, .. }) = file.sizes() else { panic!("not noticed") };
        assert_eq!(to, fs::canonicalize(&moved).unwrap().join("queue.db"));
        file.follow(to.clone());
        file.sizes().unwrap();
        fs::rename(&to, &path).unwrap();
        let error = file.sizes().unwrap_err();
        assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
    }
}
