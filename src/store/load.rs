//! Opening a database at start: lock, finish or discard a rewrite, check, copy into memory, write
//! anew what is marked as suspect, reserve ids.
//!
//! # Failure
//!
//! A file that is corrupt, foreign or newer is refused, and nothing in it is changed: it is not
//! written to, and its log is not moved into it, before every row has been looked at. A file that
//! can be read but not connected to, for want of room, is served from memory; the persistence thread
//! connects to it once it can.

use std::path::Path;

use rusqlite::Connection;

use super::begin::{self, Sound};
use super::error::Damage;
use super::file::{self, Connected, FileLocation, Settings, StoreFile};
use super::format_1;
use super::guard::Guard;
use super::header::{check_header, is_writable};
use super::lock::Lock;
use super::log_copy;
use super::memory;
use super::origin::Alone;
use super::paths::{Paths, file_bytes};
use super::schema::{FORMAT_VERSION, setting};
use super::successor;
use super::suspect;
use super::swap::{self, NewFile};
use super::tables::Tables;
use super::{Facts, LogCopy, Opened, Renewed, StoreError};

/// Opens the database of this name, making it when there is none; `None` keeps nothing on disk.
/// `progress` hears now and then how many messages have been looked at.
///
/// # Errors
/// Why it can not be used. What is corrupt, foreign or newer has not been changed.
pub fn open(path: Option<&Path>, progress: &mut dyn FnMut(u64)) -> Result<Opened, StoreError> {
    let Some(path) = path else {
        return open_without_file();
    };
    let paths = Paths::of(path)?;
    let mut lock = Lock::take(&paths)?;
    let mut log_copy = None;
    let (memory, connected, facts) = open_file(&paths, &mut lock, &mut log_copy, progress)
        .inspect_err(|error| {
            if matches!(error, StoreError::Io { .. }) {
                suspect::mark(&paths);
            }
        })?;
    let settings =
        Settings { secret: facts.secret, ids_reserved: facts.ids_reserved, clock: facts.clock };
    let place = FileLocation::new(paths, lock, settings);
    place.count(facts.messages, 0);
    place.clean_mark.set(facts.clean_stop && facts.next_id == facts.ids_reserved);
    let (file, unopened) = match connected {
        Some(connected) => (Some(StoreFile::at(place, connected)), None),
        None => (None, Some(place)),
    };
    Ok(Opened { memory, file, unopened, facts, log_copy })
}

fn open_file(
    paths: &Paths,
    lock: &mut Lock,
    log_copy: &mut Option<LogCopy>,
    progress: &mut dyn FnMut(u64),
) -> Result<(Connection, Option<Connected>, Facts), StoreError> {
    swap::finish(paths, lock, None)?;
    if file_bytes(paths.database())? == 0 {
        if file_bytes(&paths.wal())? > 0 {
            return Err(corrupt(paths, vec![Damage::LogWithoutFile], 1));
        }
        // Whoever wants to begin anew removes the file. A full disk or a copy that failed empties it.
        if paths.ballast().exists() && lock.guarded().is_some() {
            return Err(StoreError::Emptied { file: paths.database().to_path_buf() });
        }
        create_empty(paths, lock)?;
    }
    lock.guarded().map_or(Ok(()), |guard| guard.check_links(paths))?;
    check_header(paths)?;
    if !is_writable(paths)? {
        let what = "the file's header is not that of a database that can be written";
        return Err(corrupt(paths, vec![Damage::Structure(what.to_owned())], 1));
    }
    let (mut sound, ignored) = begin::read_all(paths, progress)?;
    let (mut renewed, migrated) = (Renewed::No, sound.migrates);
    if let Some(ignored) = &ignored {
        // Before anything is written, and not for a file that is refused.
        *log_copy = Some(log_copy::keep(paths, ignored, &sound.memory)?);
    }
    if suspect::is_marked(paths) {
        (sound, renewed) = renew(sound, paths, lock, progress)?;
    }
    let Sound { memory, mut summary, stand, connection, migrates } = sound;
    if let Some(ignored) = &ignored {
        begin::go_on_beyond(ignored, &mut summary);
    }
    let without_file = Facts { renewed, migrated, ..begin::facts_without_ids(&summary) };
    let guarded = lock.guarded().map(Guard::file);
    let begun = connection.and_then(|connection| {
        begin::start_writing(paths, guarded, connection, |connection| {
            if migrates {
                return format_1::first_commit(
                    connection, &memory, paths, guarded, &summary, stand,
                );
            }
            begin::reserve_ids_or_do_without(connection, paths, &summary, stand)
        })
    });
    let (connected, facts) = match begun {
        Err(full @ StoreError::Full { .. }) if migrates => {
            return Err(format_1::without_room(&memory, full));
        }
        // Where there is nothing to serve, the start waits.
        Err(StoreError::Full { .. }) if summary.messages > 0 => {
            return Ok((memory, None, without_file));
        }
        begun => begun?,
    };
    if renewed != Renewed::No {
        suspect::unmark(paths)?;
    }
    Ok((memory, Some(connected), Facts { renewed, migrated, ..facts }))
}

/// Brings to the disk what was read of a suspect file: in a new one, or where there is no room for
/// two, by writing all bytes of the old one again, unless the new one is the truth already and only
/// has to be put in its place, as the next start does. On a file system that needs room for that too,
/// it is left to the daemon, which has everything in memory.
fn renew(
    sound: Sound,
    paths: &Paths,
    lock: &mut Lock,
    progress: &mut dyn FnMut(u64),
) -> Result<(Sound, Renewed), StoreError> {
    let Sound { memory, summary, stand, connection, migrates } = sound;
    drop(connection);
    match successor::renew(&memory, paths, lock, &summary, progress) {
        Ok(()) => {
            let alone = Alone::look(paths)?;
            let connection =
                begin::with_index(paths, |index| Ok((file::connect(paths, index)?, index)))?;
            let stand = alone.with_log(&connection.0, paths)?;
            let connection = Ok(connection);
            // What was read is of the newest format, and so is the new file.
            let migrates = false;
            Ok((Sound { memory, summary, stand, connection, migrates }, Renewed::Anew))
        }
        Err(StoreError::Full { .. }) if !swap::is_begun(paths) => {
            match suspect::write_again(paths, lock.guarded().map(Guard::file), &mut || ()) {
                Ok(()) => {
                    drop(memory);
                    // What the system had shown may have been no longer in its memory.
                    Ok((begin::read_sound(paths, progress)?, Renewed::InPlace))
                }
                Err(full @ StoreError::Full { .. }) => {
                    let connection = Err(full);
                    Ok((Sound { memory, summary, stand, connection, migrates }, Renewed::NotYet))
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn open_without_file() -> Result<Opened, StoreError> {
    let memory = memory::connect_empty()?;
    let facts = Facts {
        secret: random_key()?,
        next_id: 1,
        ids_reserved: i64::MAX as u64,
        next_queue_id: 1,
        clock: None,
        clean_stop: true,
        renewed: Renewed::No,
        messages: 0,
        migrated: false,
    };
    Ok(Opened { memory, file: None, unopened: None, facts, log_copy: None })
}

/// Puts an empty database where there is none.
fn create_empty(paths: &Paths, lock: &mut Lock) -> Result<(), StoreError> {
    let new = NewFile::create(paths)?;
    let key = random_key()?;
    let fill = |connection: &Connection| {
        let mut tables = Tables::new(connection)?;
        tables.set_bytes(setting::SECRET, &key)?;
        tables.set_number(setting::IDS_RESERVED, 1)?;
        tables.set_number(setting::CLEAN_STOP, 1)
    };
    if let Err(error) = fill(new.connection()) {
        let error = new.error(error);
        new.discard();
        return Err(error);
    }
    let guard = new.make_ready(paths)?;
    swap::finish(paths, lock, Some(guard)).map(drop)
}

pub(super) fn random_key() -> Result<[u8; 16], StoreError> {
    let mut key = [0_u8; 16];
    // The system answers 16 bytes whole, once its generator has been seeded.
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| StoreError::system(Path::new("/dev/urandom"), error.into()))?;
    Ok(key)
}

/// Looks at the version once more, and returns it: a newer one may stand in the log alone.
pub(super) fn check_version(connection: &Connection, paths: &Paths) -> Result<u32, StoreError> {
    let file = paths.database().to_path_buf();
    let version: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| StoreError::database(&file, error))?;
    match version {
        format_1::VERSION | FORMAT_VERSION => Ok(version),
        _ => Err(StoreError::Newer { file, version }),
    }
}

pub(super) fn corrupt(paths: &Paths, damage: Vec<Damage>, found: u64) -> StoreError {
    StoreError::Corrupt { file: paths.database().to_path_buf(), damage, found }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::super::testing::{
        commit, folder, found, put, queue, removed, reopen, row, state, story, try_open,
    };
    use super::super::{Damage, File};
    use super::*;
    use crate::journal::Journal;
    use crate::words::change::{Change, StoredMessage};
    use crate::words::clock::{Now, Time};
    use crate::words::ids::QueueId;
    use crate::words::limits::ID_BLOCK;
    use std::fs;

    #[test]
    fn a_new_database_is_made_where_there_is_none() {
        let (_directory, path) = folder();
        let opened = reopen(&path);
        assert_eq!(opened.facts.next_id, 1);
        assert_eq!(opened.facts.ids_reserved, 1 + ID_BLOCK);
        assert_eq!((opened.facts.next_queue_id, opened.facts.messages), (1, 0));
        assert!(opened.facts.clean_stop);
        assert_ne!(opened.facts.secret, [0; 16]);
        assert_eq!(found(&opened.memory), (vec![], vec![]));
    }

    #[test]
    fn a_file_that_was_emptied_is_not_taken_as_a_new_database() {
        let (_directory, path) = folder();
        commit(&path, story());
        let file = reopen(&path).file.unwrap();
        File::new(&file).unwrap().sizes().unwrap();
        file.close().unwrap();
        drop(fs::File::create(&path).unwrap());
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Emptied { .. }), "{error}");
        assert_eq!(error.exit_code(), 65);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        fs::remove_file(&path).unwrap();
        assert_eq!(reopen(&path).facts.messages, 0);
    }

    #[test]
    fn an_empty_file_is_taken_as_a_new_database() {
        let (_directory, path) = folder();
        fs::write(&path, b"").unwrap();
        assert_eq!(reopen(&path).facts.messages, 0);
    }

    #[test]
    fn everything_committed_is_there_after_a_crash() {
        let (_directory, path) = folder();
        commit(&path, story());
        let opened = reopen(&path);
        assert_eq!(opened.facts.messages, 22);
        assert_eq!(opened.facts.next_queue_id, 3);
        let (queues, messages) = found(&opened.memory);
        assert_eq!(queues, [(1, "mail".to_owned()), (2, "größe ☂".to_owned())]);
        let ids: Vec<u64> = messages.iter().map(|(message, ..)| message.id.0).collect();
        assert_eq!(ids, (1..=22).collect::<Vec<u64>>());
        for (message, attributes, body) in messages {
            let id = message.id.0;
            let bytes = match id {
                21 => vec![b'x'; 50_000],
                22 => Vec::new(),
                _ => format!("body {id}").into_bytes(),
            };
            let put = row(id, message.queue.0, &bytes);
            assert_eq!(body, bytes);
            assert_eq!(attributes, put.attributes);
            let moved = (id == 4).then_some(state(4));
            let expected = StoredMessage { moved, ..StoredMessage::from(&put) };
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn removed_messages_and_queues_stay_away() {
        let (_directory, path) = folder();
        commit(&path, story());
        let mut changes: Vec<Change> = (1..=22).map(removed).collect();
        changes.push(Change::QueueGone(QueueId(2)));
        commit(&path, changes);
        let opened = reopen(&path);
        assert_eq!(found(&opened.memory), (vec![(1, "mail".to_owned())], vec![]));
        let states: i64 = opened
            .memory
            .query_row("SELECT count(*) FROM message_state", [], |row| row.get(0))
            .unwrap();
        assert_eq!(states, 0);
    }

    #[test]
    fn ids_are_never_handed_out_twice() {
        let (_directory, path) = folder();
        let first = reopen(&path).facts;
        let after_crash = reopen(&path).facts;
        assert_eq!(after_crash.next_id, first.ids_reserved);
        assert!(!after_crash.clean_stop);

        let file = reopen(&path).file.unwrap();
        let mut journal = Journal::new();
        journal.stop_cleanly(4_711);
        File::new(&file).unwrap().commit(&journal.take(), true).unwrap();
        file.close().unwrap();
        let after_stop = reopen(&path).facts;
        assert!(after_stop.clean_stop);
        assert_eq!(after_stop.next_id, 4_711);
        assert_eq!(reopen(&path).facts.next_id, after_stop.ids_reserved);
    }

    #[test]
    fn the_key_of_message_ids_is_kept() {
        let (_directory, path) = folder();
        let key = reopen(&path).facts.secret;
        assert_eq!(reopen(&path).facts.secret, key);
    }

    #[test]
    fn a_second_daemon_is_refused_by_any_name_and_the_first_goes_on() {
        let (directory, path) = folder();
        let opened = reopen(&path);
        let link = directory.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for name in [&path, &link] {
            let error = try_open(name).err().unwrap();
            assert_eq!(error.exit_code(), 69, "{error}");
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        }
        assert!(File::new(opened.file.as_ref().unwrap()).is_ok());
    }

    #[test]
    fn other_programs_read_while_the_daemon_runs() {
        let (_directory, path) = folder();
        let opened = reopen(&path);
        let file = opened.file.unwrap();
        super::super::testing::commit_to(&mut File::new(&file).unwrap(), story());
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let reader = Connection::open_with_flags(&path, flags).unwrap();
        let count: i64 =
            reader.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 22);
    }

    #[test]
    fn nothing_on_disk_is_a_database_too() {
        let opened = open(None, &mut |_| ()).unwrap();
        assert!(opened.file.is_none());
        assert_eq!(opened.facts.next_id, 1);
        assert_eq!(found(&opened.memory), (vec![], vec![]));
    }

    /// What is refused must not be changed in the least.
    fn assert_refused(path: &Path, exit_code: u8) -> StoreError {
        let before = fs::read(path).unwrap();
        let error = try_open(path).err().expect("a bad file was taken");
        assert_eq!(error.exit_code(), exit_code, "{error}");
        assert!(error.to_string().contains("queue.db"), "{error}");
        assert!(fs::read(path).unwrap() == before, "the file was changed");
        error
    }

    fn damage(error: StoreError) -> Vec<Damage> {
        match error {
            StoreError::Corrupt { damage, .. } => damage,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn foreign_files_are_refused_unchanged() {
        let (_directory, path) = folder();
        for content in [&b"not a database at all"[..], &[0; 200_000], b"SQLite format 3\0"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(assert_refused(&path, 65), StoreError::Foreign { .. }));
        }
        fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
        assert!(matches!(assert_refused(&path, 65), StoreError::Foreign { .. }));
    }

    #[test]
    fn files_of_a_newer_version_are_refused_unchanged() {
        let (_directory, path) = folder();
        let opened = reopen(&path);
        let newer = Connection::open(&path).unwrap();
        newer.execute_batch("PRAGMA user_version = 3").unwrap();
        opened.file.unwrap().abandon();
        let newer_in_the_log = assert_refused(&path, 65);
        newer.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        drop(newer);
        for error in [newer_in_the_log, assert_refused(&path, 65)] {
            assert!(matches!(error, StoreError::Newer { version: 3, .. }), "{error}");
            assert!(matches!(super::super::recover(&path), Err(StoreError::Newer { .. })));
        }
    }

    #[test]
    fn a_log_without_its_file_is_refused() {
        let (_directory, path) = folder();
        let file = reopen(&path).file.unwrap();
        file.abandon();
        fs::remove_file(&path).unwrap();
        let error = try_open(&path).err().unwrap();
        assert_eq!(damage(error), [Damage::LogWithoutFile]);
    }

    #[test]
    fn changed_rows_are_named_and_nothing_is_changed() {
        let (_directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        let foreign = Connection::open(&path).unwrap();
        foreign
            .execute_batch(
                "PRAGMA journal_mode = DELETE;
                 UPDATE message SET body = x'00' WHERE id = 3;
                 UPDATE message SET priority = 0 WHERE id = 5;
                 UPDATE message_state SET kicks = 9;
                 CREATE TEMP TABLE other AS SELECT * FROM message_state;
                 UPDATE other SET id = 99;
                 INSERT INTO message_state SELECT * FROM other;
                 UPDATE queue SET name = 'other' WHERE id = 1;
                 DELETE FROM queue WHERE id = 2;
                 DELETE FROM meta WHERE name = 'message_key';",
            )
            .unwrap();
        drop(foreign);
        let error = assert_refused(&path, 65);
        let StoreError::Corrupt { found, .. } = error else { panic!("{error}") };
        let damage = damage(error);
        assert_eq!(damage[0], Damage::Setting("message_key"));
        assert_eq!(damage[1], Damage::Queue(1));
        assert!(damage.contains(&Damage::Message(3)), "{damage:?}");
        assert!(damage.contains(&Damage::Message(5)), "{damage:?}");
        assert!(damage.contains(&Damage::State(4)), "{damage:?}");
        assert!(damage.contains(&Damage::MessageWithoutQueue(1)), "{damage:?}");
        assert!(found > damage.len() as u64, "{found}");
    }

    #[test]
    fn a_file_that_could_not_be_written_is_damaged_and_can_be_repaired() {
        let (_directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[18] ^= 4;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(assert_refused(&path, 65), StoreError::Corrupt { .. }));
        assert_eq!(super::super::recover(&path).unwrap().messages, 22);
        assert_eq!(reopen(&path).facts.messages, 22);
    }

    /// A damaged tick, which stands for nothing, once kept the daemon from starting. Found by
    /// fuzzing.
    #[test]
    fn regression_4_a_damaged_tick_is_as_good_as_none() {
        let (_directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        let foreign = Connection::open(&path).unwrap();
        foreign.execute("INSERT OR REPLACE INTO meta VALUES ('tick', x'00', 0)", []).unwrap();
        drop(foreign);
        commit(&path, vec![removed(1)]);
        assert_eq!(reopen(&path).facts.messages, 21);
    }

    /// Commits how the clock stands, and closes as a crash would.
    fn commit_clock(path: &Path, now: Now) {
        let file = reopen(path).file.unwrap();
        let mut journal = Journal::new();
        journal.note_clock(now);
        File::new(&file).unwrap().commit(&journal.take(), true).unwrap();
        file.abandon();
    }

    #[test]
    fn how_the_clock_stands_is_found_again_also_in_a_new_file() {
        let (_directory, path) = folder();
        assert_eq!(reopen(&path).facts.clock, None);
        for wall_offset_ms in [0, -3_600_000, 3_600_000] {
            let now = Now { time: Time(1_800_000_000_000), wall_offset_ms };
            commit_clock(&path, now);
            assert_eq!(reopen(&path).facts.clock, Some(now));
            suspect::mark(&Paths::of(&path).unwrap());
            let renewed = reopen(&path).facts;
            assert_eq!((renewed.renewed, renewed.clock), (Renewed::Anew, Some(now)));
            assert_eq!(reopen(&path).facts.clock, Some(now));
        }
    }

    /// It would let delays end early, or much too late.
    #[test]
    fn a_clock_that_is_not_what_was_written_is_damage() {
        for name in [setting::CLOCK_TIME, setting::CLOCK_OFFSET] {
            let (_directory, path) = folder();
            commit_clock(&path, Now { time: Time(5), wall_offset_ms: 9 });
            reopen(&path).file.unwrap().close().unwrap();
            let foreign = Connection::open(&path).unwrap();
            foreign.execute("UPDATE meta SET value = value + 1 WHERE name = ?", [name]).unwrap();
            drop(foreign);
            let found = damage(assert_refused(&path, 65));
            assert!(found.contains(&Damage::Setting(name)), "{found:?}");
            assert_eq!(super::super::recover(&path).unwrap().settings_renewed, 1);
            assert_eq!(reopen(&path).facts.clock, None);
        }
    }

    #[test]
    fn a_repair_keeps_how_the_clock_stands() {
        let (_directory, path) = folder();
        commit(&path, story());
        let now = Now { time: Time(5), wall_offset_ms: -9 };
        commit_clock(&path, now);
        reopen(&path).file.unwrap().close().unwrap();
        let foreign = Connection::open(&path).unwrap();
        foreign.execute("UPDATE message SET priority = 0 WHERE id = 1", []).unwrap();
        drop(foreign);
        assert_eq!(super::super::recover(&path).unwrap().settings_renewed, 0);
        assert_eq!(reopen(&path).facts.clock, Some(now));
    }

    #[test]
    fn a_queue_of_a_name_that_none_can_have_is_damage() {
        let (_directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        let foreign = Connection::open(&path).unwrap();
        Tables::new(&foreign).unwrap().queue_named(QueueId(1), "a\nb").unwrap();
        drop(foreign);
        assert_eq!(damage(assert_refused(&path, 65)), [Damage::Queue(1)]);
    }

    #[test]
    fn a_flipped_bit_is_never_served() {
        let (_directory, path) = folder();
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=200).map(|id| put(id, 1, format!("the body of {id}").as_bytes())));
        commit(&path, changes);
        reopen(&path).file.unwrap().close().unwrap();
        let sound = fs::read(&path).unwrap();
        let reference = found(&reopen(&path).memory);
        let mut refused = 0;
        for round in 0..300_usize {
            // Spread over the file, the same in every run.
            let bit = round.wrapping_mul(2_654_435_761) % (sound.len() * 8);
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for name in ["queue.db-wal", "queue.db-shm"] {
                let _ = fs::remove_file(path.with_file_name(name));
            }
            fs::write(&path, damaged).unwrap();
            match try_open(&path) {
                Err(_) => refused += 1,
                Ok(opened) => {
                    assert!(found(&opened.memory) == reference, "bit {bit} changed something")
                }
            }
        }
        assert!(refused > 0, "not one of the flips hit anything");
    }

    #[test]
    fn a_finished_rewrite_is_the_truth_at_start() {
        let (_directory, path) = folder();
        commit(&path, story());
        let paths = Paths::of(&path).unwrap();
        create_empty_ready(&paths);
        assert!(paths.ready().exists());
        assert_eq!(reopen(&path).facts.messages, 0);
        assert!(!paths.ready().exists());
    }

    fn create_empty_ready(paths: &Paths) {
        let new = NewFile::create(paths).unwrap();
        let mut tables = Tables::new(new.connection()).unwrap();
        tables.set_bytes(setting::SECRET, &[1; 16]).unwrap();
        tables.set_number(setting::IDS_RESERVED, 1).unwrap();
        tables.set_number(setting::CLEAN_STOP, 0).unwrap();
        drop(tables);
        new.make_ready(paths).unwrap();
    }

    #[test]
    fn missing_directories_and_forbidden_files_are_named() {
        let (directory, path) = folder();
        let error = try_open(&directory.path().join("no/queue.db")).err().unwrap();
        assert!(matches!(error, StoreError::MissingDirectory { .. }), "{error}");
        fs::create_dir(&path).unwrap();
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error, StoreError::CannotCreate { .. }), "{error}");
    }

    #[test]
    fn progress_is_told_while_many_messages_are_looked_at() {
        let (_directory, path) = folder();
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=check::PROGRESS_MESSAGES + 1).map(|id| put(id, 1, b"")));
        commit(&path, changes);
        let mut told = Vec::new();
        open(Some(&path), &mut |messages| told.push(messages)).unwrap();
        assert_eq!(told, [check::PROGRESS_MESSAGES]);
    }
}
