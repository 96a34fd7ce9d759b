//! Repair (`phpmqd --recover`): a new file with all that is sound, made from a damaged one.
//!
//! What fails its checksum goes into the table `quarantine` of the new file, for people to look
//! at; the daemon never reads it. The damaged file is kept beside the new one under another name,
//! with its log.
//!
//! # Failure
//!
//! Until the new file is whole nothing about the old one is changed; then it takes the old one's
//! place as every rewrite does. When no message is sound of a database that held some, nothing is
//! changed at all.

#[cfg(test)]
mod damages;
mod fill;
mod foreign;
mod report;

use std::fs;
use std::io::ErrorKind::NotFound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use self::fill::Filling;
pub use self::report::Recovered;
use super::StoreError;
use super::check;
use super::file;
use super::format_1;
use super::header::{check_header, is_writable};
use super::load::{check_version, random_key};
use super::lock::Lock;
use super::log_copy;
use super::origin::Alone;
use super::paths::Paths;
use super::salvage::{Damaged, DamagedLog, LogState};
use super::schema::{APPLICATION_ID, FORMAT_VERSION};
use super::suspect;
use super::swap::{self, NewFile};

/// Repairs the database of this name; a sound one is left as it is.
///
/// # Errors
/// What keeps it from being repaired. Foreign and newer files are not touched.
pub fn recover(path: &Path) -> Result<Recovered, StoreError> {
    let paths = Paths::of(path)?;
    let file = paths.database().to_path_buf();
    // Before the lock, whose file would be left behind where there is nothing to guard.
    if [&file, &paths.wal(), &paths.ready()].into_iter().all(|file| is_empty(file)) {
        return Err(StoreError::NoDatabase { file });
    }
    let mut lock = Lock::take(&paths)?;
    swap::finish(&paths, &mut lock, None)?;
    lock.guarded().map_or(Ok(()), |guard| guard.check_links(&paths))?;
    let damaged = Damaged::open(&paths)?;
    let is_ours = match damaged.identity() {
        Some((APPLICATION_ID, version)) if version > FORMAT_VERSION => {
            return Err(StoreError::Newer { file, version });
        }
        identity => matches!(identity, Some((APPLICATION_ID, format_1::VERSION | FORMAT_VERSION))),
    };
    // The database library does not mind a damaged log: it goes on without what is in it.
    let copies = log_copy::copies(&paths)?;
    let is_log_whole = damaged.log_state() != LogState::Damaged && damaged.is_of_its_size();
    let condition = if is_ours { condition(&paths)? } else { Condition::Damaged };
    let file_alone = match condition {
        Condition::Sound { messages } if is_log_whole && copies.is_empty() => {
            return Ok(Recovered { database: file, messages, ..Recovered::default() });
        }
        Condition::LogForeign => Some(Damaged::open_without_log(&paths)?),
        _ => None,
    };
    let log_copies = copies.iter().map(|copy| DamagedLog::open(&paths, copy));
    let log_copies = log_copies.collect::<Result<_, _>>()?;
    let files = Files { damaged, file_alone, log_copies, is_ours };
    let recovered = repair(&paths, &mut lock, &files)?;
    log_copy::set_recovered(&paths, &copies)?;
    Ok(recovered)
}

/// What there is to be repaired.
struct Files {
    damaged: Damaged,
    /// The file without a log that is another one's.
    file_alone: Option<Damaged>,
    log_copies: Vec<DamagedLog>,
    /// Whether the first page says that the file is one of ours.
    is_ours: bool,
}

/// How file and log look to the database library.
enum Condition {
    Sound { messages: u64 },
    Damaged,
    LogForeign,
}

/// Whether there is no such file or nothing in it.
fn is_empty(file: &Path) -> bool {
    fs::metadata(file).map_or_else(|error| error.kind() == NotFound, |found| found.len() == 0)
}

fn condition(paths: &Paths) -> Result<Condition, StoreError> {
    // The database library deletes the log of an empty file: it must not see one.
    if is_empty(paths.database()) || check_header(paths).is_err() || !is_writable(paths)? {
        return Ok(Condition::Damaged);
    }
    let Ok(alone) = Alone::look(paths) else { return Ok(Condition::Damaged) };
    let connection = match file::connect(paths, file::Index::Shared) {
        Err(StoreError::Corrupt { .. } | StoreError::Io { .. } | StoreError::Internal { .. }) => {
            return Ok(Condition::Damaged);
        }
        connection => connection?,
    };
    if let Err(StoreError::LogForeign { .. }) = alone.with_log(&connection, paths) {
        return Ok(Condition::LogForeign);
    }
    let version = check_version(&connection, paths)?;
    let (summary, findings) = check::check(&connection, version, &mut |_| ());
    Ok(match findings.found {
        0 => Condition::Sound { messages: summary.messages },
        _ => Condition::Damaged,
    })
}

fn repair(paths: &Paths, lock: &mut Lock, files: &Files) -> Result<Recovered, StoreError> {
    let file = paths.database().to_path_buf();
    let new = NewFile::create(paths)?;
    let Files { damaged, file_alone, log_copies, is_ours } = files;
    let (connection, key) = (new.connection(), random_key()?);
    let filled = Filling::fill(damaged, file_alone.as_ref(), log_copies, connection, key)
        .map_err(|error| without_advice(new.error(error)))?;
    let mut recovered = filled.recovered;
    if !filled.is_ours && !*is_ours && !is_empty(&file) {
        new.discard();
        return Err(StoreError::Foreign { file });
    }
    if recovered.messages == 0 && filled.lacks_messages {
        new.discard();
        return Err(StoreError::NothingSound {
            file,
            damaged_rows: recovered.messages_quarantined + recovered.states_quarantined,
            unreadable: recovered.unreadable,
        });
    }
    recovered.kept = Some(keep_old(paths)?);
    recovered.database = file;
    let guard = new.make_ready(paths).map_err(without_advice)?;
    swap::finish(paths, lock, Some(guard))?;
    suspect::unmark(paths)?;
    Ok(recovered)
}

/// The text of an error may advise what has just been tried.
fn without_advice(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { file, found, .. } => {
            StoreError::NothingSound { file, damaged_rows: 0, unreadable: found }
        }
        other => other,
    }
}

/// Gives the old file a second name, which it keeps when the new one takes its first.
fn keep_old(paths: &Paths) -> Result<PathBuf, StoreError> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let (old, log) = (paths.database(), paths.wal());
    for number in 1_u32.. {
        let kept = paths.with(&format!(".damaged-{number}"));
        let kept_log = paths.with(&format!(".damaged-{number}-wal"));
        let pairs = [(log.as_path(), &kept_log), (old, &kept)];
        // A repair that was interrupted here has left some of it.
        let is_ours =
            |(from, to): &(&Path, &PathBuf)| !to.exists() || identity(to) == identity(from);
        if !pairs.iter().all(is_ours) {
            continue;
        }
        for (from, to) in pairs.iter().filter(|(from, to)| from.exists() && !to.exists()) {
            link_or_copy(from, to)?;
        }
        if !old.exists() {
            // The log keeps its own name beside it.
            fs::write(&kept, b"").map_err(|error| StoreError::system(&kept, error))?;
        }
        return Ok(kept);
    }
    Ok(paths.database().to_path_buf())
}

fn link_or_copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    // Not every file system has links.
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .map_err(|error| StoreError::system(to, error))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{commit, folder, found, put, queue, reopen, story, try_open};
    use super::super::{Held, Memory, Replacement, Slices};
    use super::*;
    use crate::journal::Journal;
    use crate::store::tables::Tables;
    use crate::words::cause::Cause;
    use crate::words::change::{
        BindingRow, Change, FailureRow, KeyRow, KeyUntil, OriginRow, SettingRow, StateRow,
    };
    use crate::words::ids::{MessageId, QueueId, Sequence};
    use crate::words::limits::ID_BLOCK;
    use crate::words::settings::QueueLimits;
    use rusqlite::{Connection, Row};

    /// A database with the usual story, closed, and what a restart finds in it.
    fn closed_story() -> (tempfile::TempDir, PathBuf, super::super::testing::Found) {
        let (directory, path) = folder();
        commit(&path, story());
        let opened = reopen(&path);
        let found = found(&opened.memory);
        opened.file.unwrap().close().unwrap();
        (directory, path, found)
    }

    fn change(path: &Path, sql: &str) {
        let foreign = Connection::open(path).unwrap();
        foreign.execute_batch(sql).unwrap();
    }

    #[test]
    fn a_sound_database_is_left_alone() {
        let (_directory, path, _) = closed_story();
        let before = fs::read(&path).unwrap();
        let recovered = recover(&path).unwrap();
        assert_eq!((recovered.messages, recovered.kept), (22, None));
        assert!(fs::read(&path).unwrap() == before);
    }

    #[test]
    fn damaged_rows_go_to_quarantine_and_the_rest_is_served() {
        let (_directory, path, before) = closed_story();
        let facts = reopen(&path).facts;
        change(
            &path,
            "UPDATE message SET body = x'00' WHERE id = 3;
             UPDATE message_state SET kicks = 9;
             DELETE FROM queue WHERE id = 2;",
        );
        assert_eq!(try_open(&path).err().unwrap().exit_code(), 65);
        let recovered = recover(&path).unwrap();
        assert_eq!((recovered.messages, recovered.messages_quarantined), (21, 1));
        assert_eq!((recovered.states_quarantined, recovered.queues_renamed), (1, 1));
        assert_eq!((recovered.unreadable, recovered.settings_renewed), (0, 0));
        let kept = recovered.kept.clone().unwrap();
        assert!(recovered.to_string().contains(kept.to_str().unwrap()), "{recovered}");

        let opened = reopen(&path);
        assert_eq!(opened.facts.secret, facts.secret);
        assert!(opened.facts.next_id >= facts.ids_reserved);
        let (queues, messages) = found(&opened.memory);
        assert_eq!(queues, [(1, "mail".to_owned()), (2, "recovered-2".to_owned())]);
        let mut expected = before.1;
        expected.retain(|(message, ..)| message.id.0 != 3);
        for (message, ..) in &mut expected {
            message.moved = None;
        }
        assert_eq!(messages, expected);
        let body: Vec<u8> = opened
            .memory
            .query_row("SELECT body FROM quarantine WHERE source = 'message'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(body, [0]);
        // The damaged file is what it was.
        assert_eq!(try_open(&kept).err().unwrap().exit_code(), 65);
    }

    #[test]
    fn what_only_the_log_holds_is_recovered_and_kept_too() {
        let (_directory, path) = folder();
        commit(&path, story());
        let opened = reopen(&path);
        change(&path, "UPDATE message SET priority = 0 WHERE id = 1");
        opened.file.unwrap().abandon();
        let recovered = recover(&path).unwrap();
        // An older frame has the damaged message as it was put.
        assert_eq!((recovered.messages, recovered.messages_quarantined), (22, 0), "{recovered}");
        assert_eq!((recovered.messages_outside, recovered.log), (0, LogState::Sound));
        let kept = recovered.kept.unwrap();
        assert!(kept.with_file_name("queue.db.damaged-1-wal").exists());
        assert_eq!(recover(&kept).unwrap().messages, 22);
        assert_eq!(reopen(&path).facts.next_id, opened.facts.ids_reserved);
    }

    /// Makes a closed database of many pages, and says what it is made of.
    fn two_thousand_messages(path: &Path) -> Vec<u8> {
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=2_000).map(|id| put(id, 1, &[b'b'; 100])));
        commit(path, changes);
        reopen(path).file.unwrap().close().unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn pages_that_can_not_be_read_cost_only_their_own_messages() {
        let (_directory, path) = folder();
        let mut bytes = two_thousand_messages(&path);
        let pages = bytes.len() / 8192;
        assert!(pages > 20, "{pages}");
        // Two leaves far from each other.
        for page in [pages / 3, 2 * pages / 3] {
            bytes[page * 8192..page * 8192 + 8192].fill(0xa5);
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(try_open(&path).err().unwrap().exit_code(), 65);
        let recovered = recover(&path).unwrap();
        assert_eq!(recovered.unreadable, 2);
        assert!(recovered.messages > 1_700, "{recovered}");
        assert_eq!(reopen(&path).facts.messages, recovered.messages);
    }

    #[test]
    fn lost_settings_never_lead_to_ids_handed_out_before() {
        let (_directory, path, _) = closed_story();
        let before = reopen(&path).facts;
        change(&path, "DELETE FROM meta");
        assert_eq!(recover(&path).unwrap().settings_renewed, 2);
        assert!(reopen(&path).facts.next_id > before.ids_reserved + 1_000 * ID_BLOCK);
    }

    #[test]
    fn a_second_repair_keeps_both_damaged_files() {
        let (_directory, path, _) = closed_story();
        for round in 1..=2 {
            change(&path, &format!("UPDATE message SET priority = 0 WHERE id = {round}"));
            let kept = recover(&path).unwrap().kept.unwrap();
            assert!(kept.to_str().unwrap().ends_with(&format!(".damaged-{round}")));
        }
    }

    #[test]
    fn a_view_in_the_place_of_a_table_is_never_looked_into() {
        let (_directory, path, _) = closed_story();
        for table in ["message", "meta", "quarantine"] {
            change(
                &path,
                &format!(
                    "CREATE TABLE IF NOT EXISTS {table}(id);
                     ALTER TABLE {table} RENAME TO {table}_before;
                     CREATE VIEW {table} AS WITH RECURSIVE number(id) AS
                         (SELECT 1 UNION ALL SELECT id + 1 FROM number) SELECT id FROM number;"
                ),
            );
        }
        let refused = try_open(&path).err().unwrap();
        assert_eq!(refused.exit_code(), 65);
        assert!(refused.to_string().contains("message is not as it was made"), "{refused}");
        let recovered = recover(&path).unwrap();
        assert_eq!(recovered.messages, 22, "they are in the table that has another name now");
        assert_eq!(reopen(&path).facts.messages, 22);
    }

    #[test]
    fn a_page_that_is_pointed_to_from_several_places_is_read_once() {
        let (_directory, path) = folder();
        let mut bytes = two_thousand_messages(&path);
        const INTERIOR: u8 = 5;
        let cells = |page: &[u8]| usize::from(u16::from_be_bytes([page[3], page[4]]));
        let root = bytes
            .chunks_exact_mut(8192)
            .find(|page| page[0] == INTERIOR && cells(page) > 10)
            .expect("messages fill many pages");
        let cell = |page: &[u8], number: usize| {
            usize::from(u16::from_be_bytes([page[12 + 2 * number], page[13 + 2 * number]]))
        };
        let first: [u8; 4] = root[cell(root, 3)..][..4].try_into().unwrap();
        for number in 4..8 {
            let at = cell(root, number);
            root[at..at + 4].copy_from_slice(&first);
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(try_open(&path).err().unwrap().exit_code(), 65);
        let recovered = recover(&path).unwrap();
        assert!(recovered.unreadable > 0, "{recovered}");
        assert_eq!(recovered.messages, 2_000, "those that none points to are found: {recovered}");
        assert!(recovered.messages_outside > 100, "{recovered}");
        assert_eq!(reopen(&path).facts.messages, 2_000, "each is counted once");
    }

    /// All that is in quarantine: where it comes from, its id and its body.
    fn quarantined(path: &Path) -> Vec<(String, i64, Option<Vec<u8>>)> {
        let connection = Connection::open(path).unwrap();
        let sql = "SELECT source, id, body FROM quarantine ORDER BY number";
        let mut statement = connection.prepare(sql).unwrap();
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// A rewrite once left the quarantine out, so that a disk that failed after a repair took with
    /// it what people had yet to look at.
    #[test]
    fn regression_4_the_quarantine_outlives_rewrites_and_repairs() {
        let (_directory, path, _) = closed_story();
        change(&path, "UPDATE message SET body = x'00' WHERE id = 3");
        recover(&path).unwrap();
        let first = vec![("message".to_owned(), 3, Some(vec![0]))];
        assert_eq!(quarantined(&path), first);

        suspect::mark(&Paths::of(&path).unwrap());
        let opened = reopen(&path);
        assert_eq!(opened.facts.renewed, super::super::Renewed::Anew);
        assert_eq!(quarantined(&path), first);

        let held = Held::Open(opened.file.unwrap());
        let mut memory = Memory::new(&opened.memory).unwrap();
        let mut slices = Slices::begin(&mut memory).unwrap();
        let mut replacement = Replacement::begin(&held, 1).unwrap();
        loop {
            let slice = slices.next_slice(&mut memory).unwrap();
            replacement.add(&held, &Journal::new().take(), &slice).unwrap();
            if slice.last {
                break;
            }
        }
        let (held, result) = replacement.finish(held);
        result.unwrap();
        drop(held);
        assert_eq!(quarantined(&path), first);

        change(&path, "UPDATE message SET body = x'01' WHERE id = 4");
        assert_eq!(recover(&path).unwrap().messages_quarantined, 1);
        assert_eq!(quarantined(&path)[..1], first);
        assert_eq!(quarantined(&path)[1].1, 4);
        assert_eq!(reopen(&path).facts.messages, 20);
    }

    #[test]
    fn foreign_files_are_not_touched() {
        let (directory, path) = folder();
        fs::write(&path, b"something else").unwrap();
        assert!(matches!(recover(&path), Err(StoreError::Foreign { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"something else");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the file and its lock");
    }
    /// It once blamed the directory, which is there, and left a lock beside nothing.
    #[test]
    fn regression_10_a_missing_database_is_named_and_nothing_is_left_behind() {
        let (directory, path) = folder();
        for is_made in [false, true] {
            if is_made {
                fs::write(&path, b"").unwrap();
            }
            let failed = recover(&path).unwrap_err();
            assert_eq!(failed.exit_code(), 65);
            assert!(failed.to_string().contains("there is no database"), "{failed}");
            assert!(failed.to_string().contains(path.file_name().unwrap().to_str().unwrap()));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the empty file alone");
    }

    /// It once said "recovered" of a database of which nothing was left.
    #[test]
    fn regression_10_nothing_kept_is_no_success_and_changes_nothing() {
        let (_directory, path, _) = closed_story();
        change(&path, "UPDATE message SET priority = 77");
        let before = fs::read(&path).unwrap();
        let failed = recover(&path).unwrap_err();
        assert_eq!(failed.exit_code(), 65);
        assert!(failed.to_string().contains("23 rows fail their checksums"), "{failed}");
        assert!(!failed.to_string().contains("--recover"), "it was just tried: {failed}");
        assert!(fs::read(&path).unwrap() == before);
        let kept = path.with_file_name("queue.db.damaged-1");
        let new = path.with_file_name("queue.db.new");
        assert!(!kept.exists() && !new.exists());
    }

    /// Keys, bindings and what operators have set, as a database holds them.
    fn small_tables(path: &Path) -> (Vec<KeyRow>, Vec<SettingRow>, Vec<BindingRow>) {
        let file = Connection::open(path).unwrap();
        let keys = rows(&file, check::KEYS, check::sound_key);
        let settings = rows(&file, check::SETTINGS, check::sound_setting);
        (keys, settings, rows(&file, check::BINDINGS, check::sound_binding))
    }

    fn rows<T>(file: &Connection, sql: &str, read: fn(&Row<'_>) -> Option<T>) -> Vec<T> {
        let mut statement = file.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok(read(row).expect("a sound row"))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// A database with a key of each kind, settings and bindings.
    fn with_small_tables() -> (tempfile::TempDir, PathBuf) {
        let (directory, path) = folder();
        commit(&path, story());
        let key = |number: u64, message, until| {
            let row =
                KeyRow { queue: QueueId(1), key: number.to_be_bytes()[..].into(), message, until };
            Change::KeySet(row)
        };
        let set = |queue, high| {
            let limits = QueueLimits { high, normal: 2, low: 0 };
            Change::QueueSet(SettingRow { queue: QueueId(queue), paused: queue == 1, limits })
        };
        let gone = Change::KeyGone { queue: QueueId(1), key: 9_u64.to_be_bytes()[..].into() };
        let mut changes = vec![
            key(1, Some(MessageId(1)), KeyUntil::Taken),
            key(2, Some(MessageId(2)), KeyUntil::Done),
            key(3, None, KeyUntil::Moment(1_800_000_000_000)),
            key(9, None, KeyUntil::Done),
            set(1, 7),
            set(2, u32::MAX),
        ];
        changes.extend((10..2_000).map(|number| key(number, None, KeyUntil::Moment(1))));
        commit(&path, changes);
        commit(&path, vec![gone]);
        let opened = reopen(&path);
        let file = opened.file.unwrap();
        let binding = |id, filter: Option<&[u8]>| BindingRow {
            id,
            pattern: format!("topic.{id}.*"),
            queue: QueueId(2),
            filter: filter.map(Into::into),
        };
        let mut tables = Tables::new(&file.connection).unwrap();
        tables.bound(&binding(1, None)).unwrap();
        tables.bound(&binding(2, Some(b"price > 3"))).unwrap();
        drop(tables);
        file.close().unwrap();
        (directory, path)
    }

    #[test]
    fn keys_settings_and_bindings_come_through_restarts_rewrites_and_repairs() {
        let (_directory, path) = with_small_tables();
        let before = small_tables(&path);
        assert_eq!((before.0.len(), before.1.len(), before.2.len()), (1_993, 2, 2));
        assert_eq!(before.1[0].limits, QueueLimits { high: 7, normal: 2, low: 0 });
        assert!(before.1[0].paused && !before.1[1].paused);
        assert_eq!(before.0[2].until, KeyUntil::Moment(1_800_000_000_000));
        assert_eq!(before.2[1].filter.as_deref(), Some(&b"price > 3"[..]));
        reopen(&path).file.unwrap().close().unwrap();
        assert_eq!(small_tables(&path), before);

        suspect::mark(&Paths::of(&path).unwrap());
        let opened = reopen(&path);
        assert_eq!(opened.facts.renewed, super::super::Renewed::Anew);
        opened.file.unwrap().close().unwrap();
        assert_eq!(small_tables(&path), before);

        change(&path, "UPDATE message SET body = x'00' WHERE id = 3");
        recover(&path).unwrap();
        assert_eq!(small_tables(&path), before);
    }

    #[test]
    fn damaged_keys_settings_and_bindings_are_refused_and_set_aside() {
        let (_directory, path) = with_small_tables();
        let before = small_tables(&path);
        change(
            &path,
            "UPDATE key SET message = 5 WHERE message = 2;
             UPDATE queue_setting SET paused = 0 WHERE queue = 1;
             UPDATE binding SET filter = NULL WHERE id = 2;",
        );
        let text = try_open(&path).err().unwrap().to_string();
        for table in ["row 1 of key", "row 1 of queue_setting", "row 2 of binding"] {
            assert!(text.contains(table), "{text}");
        }
        let recovered = recover(&path).unwrap();
        assert_eq!(recovered.others_quarantined, 3, "{recovered}");
        assert_eq!(recovered.messages, 22);
        let after = small_tables(&path);
        assert_eq!((after.0.len(), after.1.len(), after.2.len()), (1_992, 1, 1));
        assert_eq!((&after.1[0], &after.2[0]), (&before.1[1], &before.2[0]));
        assert!(recovered.to_string().contains("3 rows of other tables"), "{recovered}");
    }

    /// The queue of a message is the one that its state names; its own may be gone.
    #[test]
    fn messages_in_other_queues_are_recovered_there() {
        let (_directory, path) = folder();
        commit(&path, story());
        let origin = OriginRow {
            queue: QueueId(2),
            sequence: Sequence(1),
            burial: 7,
            life_left_ms: Some(5_000),
        };
        let failure = FailureRow {
            attempts: 3,
            cause: Some(Cause::TimedOut),
            returned_ms: Some(1_700_000_000_000),
            text: Some("no route".into()),
            origin: Some(origin),
        };
        let moved = StateRow {
            queue: Some(QueueId(3)),
            failure: Some(Box::new(failure)),
            ..super::super::testing::state(1)
        };
        commit(&path, vec![queue(3, "dead"), Change::Moved(moved.clone())]);
        let opened = reopen(&path);
        assert_eq!(found(&opened.memory).1[0].0.moved, Some(moved.clone()));
        opened.file.unwrap().close().unwrap();
        change(
            &path,
            "UPDATE message SET body = x'00' WHERE id = 3; DELETE FROM queue WHERE id = 3;",
        );
        let text = try_open(&path).err().unwrap().to_string();
        assert!(text.contains("the state of message 1"), "{text}");
        assert_eq!(recover(&path).unwrap().queues_renamed, 1);
        let (queues, messages) = found(&reopen(&path).memory);
        assert_eq!(queues[2], (3, "recovered-3".to_owned()));
        assert_eq!(messages[0].0.moved, Some(moved));
    }
}
