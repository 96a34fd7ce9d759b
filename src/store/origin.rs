//! Which write-ahead log belongs to which file, so that one without the other is noticed.
//!
//! A file that is copied while the daemon runs lacks what its log holds and looks like any other.
//! A log that is left beside a file that was put in another's place is replayed into it. Neither
//! is seen by the database library. So one row of `meta` says where file and log stand:
//!
//! ```text
//!   base    the number of the log whose changes are included in what is read
//!   next    the number of the log that this file needs, if it needs one
//!   cookie  what the header of the file itself says (`schema_version`)
//!
//!   in the file       (7, 8)   it needs log 8
//!   in log 8          (8, -)   so it belongs to that file; and what is read includes it
//!     before it is moved into the file
//!                     (8, 9)   the file will need log 9 then
//! ```
//!
//! So the row costs two small commits each time the log is moved, and nothing otherwise. Copies
//! that the database library makes (`.backup`, `VACUUM INTO`) include the log; should they show
//! a row with a need, their header has another cookie, and so they are known to be whole.
//!
//! # Failure
//!
//! A row that is missing or damaged says nothing: files of earlier versions have none, and a power
//! cut can tear its page while the log is moved. A need that
//! can not be written on a full disk is left out: then a copy is taken for what it is not, as it
//! would be without the row. A cookie that can not be written at the start goes into the first
//! commit that has room, since a log without it would be taken for another file's.
//!
//! One state is refused although nothing is missing: the daemon was killed between the move of the
//! log and the mark in the next one, and another program has removed the log, all of which is in
//! the file. The file says what one says whose log was lost, so that a person has to decide.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Result};

use super::StoreError;
use super::check::{self, Setting};
use super::file::run_checkpoint;
use super::header::header_cookie;
use super::load::random_key;
use super::paths::Paths;
use super::probe::store_error;
use super::schema::setting;
use super::standing::connect_without_log;
use super::tables::Tables;

/// The row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    base: u64,
    /// 0: none.
    next: u64,
    cookie: u32,
    /// The cookie of the copy that was taken over, until the file has its own.
    adopted: u32,
    /// The cookie that the next commit has to give the file, because a full disk kept the start
    /// from doing so. Not in the row.
    due: Option<u32>,
}

/// Where a file and its log stand at a start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    found: Origin,
    /// The cookie of the file, if that is to get another one: it is a copy, or was made by an
    /// earlier version.
    adopts: Option<u32>,
    /// What the header of the file alone says.
    cookie: u32,
}

impl Stand {
    /// As of a file that gets another cookie, because its tables are about to change: programs that
    /// have it open read them anew then.
    pub fn with_other_cookie(self) -> Stand {
        let found = Origin { cookie: self.cookie, ..self.found };
        Stand { found, adopts: Some(self.cookie), ..self }
    }

    /// As it is, for a start that can not write on a full disk.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn found(self) -> Result<Origin, StoreError> {
        let due = self.adopts.map(|_| random_cookie()).transpose()?;
        Ok(Origin { due, ..self.found })
    }

    /// As it is to be written at the start.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn wanted(self) -> Result<Origin, StoreError> {
        let origin = match self.adopts {
            None => self.found,
            Some(adopted) => Origin { cookie: random_cookie()?, adopted, ..self.found },
        };
        origin.before_move()
    }
}

/// What a file says without its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    cookie: u32,
    origin: Option<Origin>,
    has_log: bool,
}

impl Origin {
    /// Reads the row, if there is a sound one.
    pub fn read(connection: &Connection) -> Option<Origin> {
        let settings = check::settings(connection).ok()?;
        let Some(Setting::Bytes(bytes)) = settings.get(setting::LOG) else { return None };
        let (base, rest) = bytes.split_first_chunk::<8>()?;
        let (next, rest) = rest.split_first_chunk::<8>()?;
        let (cookie, rest) = rest.split_first_chunk::<4>()?;
        let adopted = rest.first_chunk::<4>()?;
        Some(Origin {
            base: u64::from_be_bytes(*base),
            next: u64::from_be_bytes(*next),
            cookie: u32::from_be_bytes(*cookie),
            adopted: u32::from_be_bytes(*adopted),
            due: None,
        })
    }

    fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let parts = [&self.base.to_be_bytes()[..], &self.next.to_be_bytes()];
        let more = [&self.cookie.to_be_bytes()[..], &self.adopted.to_be_bytes()];
        let all = parts.into_iter().chain(more).flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Writes the row.
    pub fn write(self, tables: &mut Tables<'_>) -> Result<()> {
        tables.set_bytes(setting::LOG, &self.bytes())
    }

    /// Before the log is moved into the file: that needs the next one then.
    pub fn before_move(self) -> Result<Origin, StoreError> {
        let next = if self.next == 0 { random_number()? } else { self.next };
        Ok(Origin { next, ..self })
    }

    /// After all of it was moved: what is written from now on is the next log. Without the mark,
    /// for which there was no room, it is the same one still.
    pub fn after_move(self) -> Origin {
        if !self.needs_log() {
            return self;
        }
        Origin { base: self.next, next: 0, adopted: 0, ..self }
    }

    /// With the cookie that the next commit has to give the file, if it is to get one.
    pub fn completed(self) -> Option<Origin> {
        let cookie = self.due?;
        Some(Origin { cookie, adopted: self.cookie, due: None, ..self })
    }

    /// Whether the file would not be whole without its log, as far as it knows.
    pub fn needs_log(self) -> bool {
        self.next != 0
    }

    /// What the header of the file has to say after the next commit.
    pub fn cookie(self) -> u32 {
        self.due.unwrap_or(self.cookie)
    }

    /// Whether a file that says this stands where that one was left by its last commit, or by the one
    /// that has failed since.
    pub fn is_state_of(self, left: Origin) -> bool {
        let due = |origin: Origin| Origin { due: None, ..origin };
        self == due(left) || left.completed() == Some(self)
    }

    /// Whether a log that leads to this state belongs to a file in that one.
    fn follows(self, file: Origin) -> bool {
        let is_same = (self.base, self.next) == (file.base, file.next);
        is_same || self.base == file.next || (self.base == file.base && file.next == 0)
    }
}

impl Alone {
    /// Looks at a file before anybody connects to it with its log.
    ///
    /// # Errors
    /// [`StoreError::LogMissing`].
    pub fn look(paths: &Paths) -> Result<Alone, StoreError> {
        let cookie = header_cookie(paths)?;
        // What can not be read without the log says nothing about that.
        let origin = connect_without_log(paths).ok().and_then(|file| Origin::read(&file));
        let has_log = has_log(paths)?;
        if origin.is_some_and(|origin| !has_log && origin.needs_log() && origin.cookie == cookie) {
            return Err(StoreError::LogMissing { file: paths.database().to_path_buf() });
        }
        Ok(Alone { cookie, origin, has_log })
    }

    /// Checks what file and log say together, and returns that.
    ///
    /// # Errors
    /// [`StoreError::LogForeign`].
    pub fn with_log(self, both: &Connection, paths: &Paths) -> Result<Stand, StoreError> {
        let together = Origin::read(both);
        if self.has_log
            && let Some(together) = together
        {
            let is_of_file = [together.cookie, together.adopted].contains(&self.cookie);
            let follows = self.origin.is_none_or(|file| together.follows(file));
            if !is_of_file || !follows {
                return Err(StoreError::LogForeign { file: paths.database().to_path_buf() });
            }
        }
        let is_its_own =
            self.has_log || together.is_some_and(|origin| origin.cookie == self.cookie);
        Ok(match together {
            Some(found) if is_its_own => Stand { found, adopts: None, cookie: self.cookie },
            together => {
                let found = Origin { cookie: self.cookie, ..together.unwrap_or_default() };
                Stand { found, adopts: Some(self.cookie), cookie: self.cookie }
            }
        })
    }
}

/// Whether there is a log that anything was ever written to: one of the ballast has no header.
fn has_log(paths: &Paths) -> Result<bool, StoreError> {
    const MAGIC: u32 = 0x377f_0682;
    let path = paths.wal();
    let mut first = [0; 4];
    match File::open(&path).and_then(|mut log| log.read_exact(&mut first)) {
        // The last bit is for the order of bytes.
        Ok(()) => Ok(u32::from_be_bytes(first) & !1 == MAGIC),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            Ok(false)
        }
        Err(error) => Err(StoreError::system(&path, error)),
    }
}

/// Gives the header this cookie. Belongs into a transaction.
pub(super) fn set_cookie(connection: &Connection, cookie: u32) -> Result<()> {
    let has: i64 = connection.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    if has == i64::from(cookie) {
        return Ok(());
    }
    let defend = |on| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, on);
    defend(false)?;
    let result = connection.execute_batch(&format!("PRAGMA schema_version = {cookie}"));
    defend(true)?;
    result
}

/// Moves the log into the file where that says that it needs the next one, so that nothing beside
/// it has to be there. Returns where file and log stand then: as before, when another program or a
/// full disk has kept the log from being moved.
pub(super) fn settle(
    connection: &Connection,
    paths: &Paths,
    origin: Origin,
) -> Result<Origin, StoreError> {
    if !origin.needs_log() {
        return Ok(origin);
    }
    let after = origin.after_move();
    let settle = || {
        let mut checkpoint = connection.prepare("PRAGMA wal_checkpoint(PASSIVE)")?;
        let (_, frames, moved) = run_checkpoint(&mut checkpoint)?;
        if frames != moved {
            return Ok(origin);
        }
        after.write(&mut Tables::new(connection)?)?;
        Ok(after)
    };
    match settle().map_err(|error| store_error(paths, error)) {
        Err(StoreError::Full { .. } | StoreError::Busy { .. }) => Ok(origin),
        settled => settled,
    }
}

fn random_number() -> Result<u64, StoreError> {
    let [a, b, c, d, e, f, g, h, ..] = random_key()?;
    Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h]) | 1)
}

/// A number for the header that tells a file from every other one, also from copies that the
/// database library makes of it: those count anew, or on by one.
pub(super) fn random_cookie() -> Result<u32, StoreError> {
    const SMALLEST: u32 = 1 << 20;
    let [a, b, c, d, ..] = random_key()?;
    // The database library takes the number as one with a sign.
    Ok((u32::from_be_bytes([a, b, c, d]) >> 1) | SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::file::{self, Connected, FileLocation, Index, Settings, StoreFile};
    use super::super::lock::Lock;
    use super::super::testing::{
        commit, commit_to, folder, found, message_count, put, queue, removed, reopen, story,
        try_open,
    };
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn beside(path: &Path, suffix: &str) -> PathBuf {
        Paths::of(path).unwrap().with(suffix)
    }

    /// Puts a file in the place of another, without its log.
    fn place(from: &Path, to: &Path) {
        fs::copy(from, to).unwrap();
        let _ = fs::remove_file(beside(to, "-wal"));
        let _ = fs::remove_file(beside(to, "-shm"));
    }

    /// A database whose daemon was killed: 22 messages, some of them in the log alone.
    fn killed() -> (tempfile::TempDir, PathBuf) {
        let (directory, path) = folder();
        commit(&path, story());
        (directory, path)
    }

    fn messages(path: &Path) -> u64 {
        let opened = reopen(path);
        opened.file.unwrap().abandon();
        opened.facts.messages
    }

    #[test]
    fn a_file_without_the_log_that_it_needs_is_refused_unchanged() {
        let (directory, path) = killed();
        let copy = directory.path().join("copy.db");
        place(&path, &copy);
        let before = fs::read(&copy).unwrap();
        let error = try_open(&copy).err().expect("half a database was taken");
        assert!(matches!(error, StoreError::LogMissing { .. }), "{error}");
        assert_eq!(error.exit_code(), 65);
        assert!(fs::read(&copy).unwrap() == before && !beside(&copy, "-wal").exists());
        fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        assert_eq!(messages(&copy), 22);
        assert_eq!(messages(&path), 22);
    }

    #[test]
    fn copies_that_the_database_library_makes_are_whole_at_every_moment() {
        let (directory, path) = killed();
        for round in 0..3 {
            let file = reopen(&path).file.unwrap();
            // At the start of a life, and with the mark for the moment of a checkpoint.
            if round > 0 {
                let origin = file.place.origin.get().before_move().unwrap();
                let mut tables = Tables::new(&file.connection).unwrap();
                origin.write(&mut tables).unwrap();
            }
            let (into, backup) = (directory.path().join("into"), directory.path().join("backup"));
            let _ = fs::remove_file(&into);
            let other = Connection::open(&path).unwrap();
            other.execute("VACUUM INTO ?", [into.to_str().unwrap()]).unwrap();
            let mut to = Connection::open(&backup).unwrap();
            let copying = rusqlite::backup::Backup::new(&other, &mut to).unwrap();
            copying.step(-1).unwrap();
            drop(copying);
            drop((other, to));
            file.abandon();
            assert_eq!(messages(&into), 22);
            // And once more, now that it has a log.
            assert_eq!(messages(&into), 22);
            let restored = directory.path().join("restored.db");
            place(&backup, &restored);
            assert_eq!(messages(&restored), 22);
        }
        assert_eq!(messages(&path), 22);
    }

    #[test]
    fn a_log_beside_a_file_that_was_put_in_anothers_place_is_refused() {
        for way in ["stopped", "alone", "backup", "into"] {
            let (directory, path) = killed();
            let copy = directory.path().join("copy");
            let mut file = reopen(&path).file.unwrap();
            match way {
                "alone" => {
                    fs::copy(&path, &copy).unwrap();
                }
                "stopped" => {
                    file.close().unwrap();
                    fs::copy(&path, &copy).unwrap();
                    file = reopen(&path).file.unwrap();
                }
                "into" => {
                    let other = Connection::open(&path).unwrap();
                    other.execute("VACUUM INTO ?", [copy.to_str().unwrap()]).unwrap();
                }
                _ => {
                    let other = Connection::open(&path).unwrap();
                    let mut to = Connection::open(&copy).unwrap();
                    rusqlite::backup::Backup::new(&other, &mut to).unwrap().step(-1).unwrap();
                }
            }
            file.abandon();
            // Life goes on, and ends with a kill.
            commit(&path, (1..=5).map(removed).collect());
            commit(&path, (6..=9).map(removed).collect());
            let log = fs::read(beside(&path, "-wal")).unwrap();
            fs::copy(&copy, &path).unwrap();
            let _ = fs::remove_file(beside(&path, "-shm"));
            let error = try_open(&path).err().unwrap_or_else(|| panic!("{way}: taken"));
            assert!(matches!(error, StoreError::LogForeign { .. }), "{way}: {error}");
            assert_eq!(error.exit_code(), 65);
            assert!(fs::read(&path).unwrap() == fs::read(&copy).unwrap(), "{way}");
            assert!(fs::read(beside(&path, "-wal")).unwrap() == log, "{way}");
            if way != "alone" {
                place(&copy, &path);
                assert_eq!(messages(&path), 22, "{way}");
            }
        }
    }

    /// Opens a database as a start does that finds no room for its first commit.
    fn open_on_a_full_disk(path: &Path) -> StoreFile {
        let paths = Paths::of(path).unwrap();
        let lock = Lock::take(&paths).unwrap();
        let alone = Alone::look(&paths).unwrap();
        let connection = file::connect(&paths, Index::Shared).unwrap();
        let stand = alone.with_log(&connection, &paths).unwrap();
        file::trust(&connection, &paths).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
        let origin = stand.found().unwrap();
        let connected = Connected::new(connection, &paths, Index::Shared, origin).unwrap();
        let settings = Settings { secret: [0; 16], ids_reserved: 1, clock: None };
        StoreFile::at(FileLocation::new(paths, lock, settings), connected)
    }

    /// The first commits to a restored backup were made without its own cookie when the start had
    /// found no room: a kill then left a log that was taken for another file's.
    #[test]
    fn a_backup_restored_on_a_full_disk_starts_again_after_a_kill() {
        for way in ["backup", "into"] {
            for moves in [false, true] {
                let (directory, path) = killed();
                let source = Connection::open(&path).unwrap();
                let copy = directory.path().join("copy.db");
                match way {
                    "into" => {
                        source.execute("VACUUM INTO ?", [copy.to_str().unwrap()]).unwrap();
                    }
                    _ => {
                        let mut to = Connection::open(&copy).unwrap();
                        let backup = rusqlite::backup::Backup::new(&source, &mut to).unwrap();
                        backup.step(-1).unwrap();
                    }
                }
                let file = open_on_a_full_disk(&copy);
                let mut writing = File::new(&file).unwrap();
                commit_to(&mut writing, vec![removed(1)]);
                if moves {
                    assert!(writing.empty_log().unwrap());
                    commit_to(&mut writing, vec![removed(2)]);
                }
                drop(writing);
                file.abandon();
                let left = if moves { 20 } else { 21 };
                assert_eq!(messages(&copy), left, "{way}, {moves}");
                let without_log = directory.path().join("without_log.db");
                place(&copy, &without_log);
                assert!(try_open(&without_log).is_err(), "{way}, {moves}: the log is missed");
                assert_eq!(messages(&copy), left, "{way}, {moves}");
            }
        }
    }

    #[test]
    fn a_file_of_before_there_was_such_a_row_starts_with_its_log_and_without() {
        for has_log in [true, false] {
            let (_directory, path) = killed();
            let other = Connection::open(&path).unwrap();
            other.execute("DELETE FROM meta WHERE name = 'log'", []).unwrap();
            other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            if has_log {
                other.execute("DELETE FROM message_state", []).unwrap();
            }
            std::mem::forget(other);
            if !has_log {
                place(&path.clone(), &beside(&path, ".old"));
                fs::rename(beside(&path, ".old"), &path).unwrap();
                let _ = fs::remove_file(beside(&path, "-wal"));
            }
            assert_eq!(messages(&path), 22);
            assert_eq!(messages(&path), 22);
        }
    }

    /// A table that was made and a file that was shrunk counted the cookie on.
    #[test]
    fn a_database_keeps_its_cookie_whatever_is_done_with_it() {
        let (_directory, path) = folder();
        let file = reopen(&path).file.unwrap();
        let cookie = file.place.origin.get().cookie();
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=40).map(|id| put(id, 1, &vec![b'x'; 1024 * 1024])));
        let mut writing = File::new(&file).unwrap();
        commit_to(&mut writing, changes);
        writing.checkpoint_if_due().unwrap();
        // Makes a table for what is set aside.
        writing.sizes().unwrap();
        assert!(writing.reserve.rows > 0);
        commit_to(&mut writing, (1..=39).map(removed).collect());
        assert!(writing.shrink_if_worth_it().unwrap());
        drop(writing);
        file.abandon();
        assert_eq!(header_cookie(&Paths::of(&path).unwrap()).unwrap(), cookie);
        assert_eq!(messages(&path), 1);
    }

    #[test]
    fn a_reader_that_tidies_up_after_a_kill_takes_nothing_away() {
        let (_directory, path) = killed();
        let reader = Connection::open(&path).unwrap();
        assert_eq!(message_count(&reader), 22);
        // The last one to close the file moves the log into it.
        drop(reader);
        assert!(!beside(&path, "-wal").exists());
        assert_eq!(messages(&path), 22);
    }

    /// The one state that is refused although nothing is missing.
    #[test]
    fn a_log_that_another_program_removed_right_after_its_move_costs_a_repair_and_nothing_else() {
        let (_directory, path) = killed();
        let opened = reopen(&path);
        let before = found(&opened.memory);
        let file = opened.file.unwrap();
        let origin = file.place.origin.get().before_move().unwrap();
        origin.write(&mut Tables::new(&file.connection).unwrap()).unwrap();
        let mut checkpoint = file.connection.prepare("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        let (_, frames, moved) = run_checkpoint(&mut checkpoint).unwrap();
        assert_eq!(frames, moved);
        drop(checkpoint);
        // The daemon is killed here, and somebody looks into the file.
        file.abandon();
        assert_eq!(message_count(&Connection::open(&path).unwrap()), 22);
        assert!(!beside(&path, "-wal").exists());
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error, StoreError::LogMissing { .. }), "{error}");
        let recovered = super::super::recover(&path).unwrap();
        assert_eq!((recovered.messages, recovered.messages_quarantined), (22, 0), "{recovered}");
        assert_eq!((recovered.unreadable, recovered.settings_renewed), (0, 0), "{recovered}");
        let again = reopen(&path);
        assert!(found(&again.memory) == before);
        assert!(again.facts.next_id >= opened.facts.ids_reserved);
        assert_eq!(again.facts.secret, opened.facts.secret);
    }

    #[test]
    fn what_is_missing_with_the_log_is_given_up_by_a_repair_alone() {
        let (directory, path) = killed();
        let copy = directory.path().join("copy.db");
        place(&path, &copy);
        super::super::recover(&copy).unwrap();
        messages(&copy);
    }
}
