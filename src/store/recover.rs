//! Repair (`phpmqd --recover`): a new file with all that is sound, made from a damaged one.
//!
//! What fails its checksum goes into the table `quarantine` of the new file, for people to look
//! at; the daemon never reads it. The damaged file is kept beside the new one under another name,
//! with its log.
//!
//! # Failure
//!
//! Until the new file is whole nothing about the old one is changed; then it takes the old one's
//! place as every rewrite does.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Result, Row, Statement};
use rustc_hash::FxHashSet;

use super::StoreError;
use super::check::{self, MessageChecked, Setting};
use super::file;
use super::load::{check_header, check_version, is_writable, random_key};
use super::lock::Lock;
use super::paths::Paths;
use super::quarantine::{self, Quarantined};
use super::rewrite::{self, NewFile};
use super::rows::{message_row, numbers, state_row, unsigned};
use super::schema::{self, setting};
use super::suspect;
use super::tables::Tables;
use crate::clock::wall_clock_ms;
use crate::ids::QueueId;
use crate::limits::ID_BLOCK;

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The database.
    pub database: PathBuf,
    /// Where the damaged file is kept; `None` when the database was sound and is unchanged.
    pub kept: Option<PathBuf>,
    /// Sound messages.
    pub messages: u64,
    /// Damaged messages, now in quarantine.
    pub messages_quarantined: u64,
    /// Damaged states, now in quarantine; their messages are as they were put.
    pub states_quarantined: u64,
    /// Queues whose names are lost: their messages are in queues called `recovered-N`.
    pub queues_renamed: u64,
    /// Places in the file where rows could not be read at all.
    pub unreadable: u64,
    /// Settings that had to be made anew.
    pub settings_renewed: u64,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database.display();
        let Some(kept) = &self.kept else {
            return write!(
                f,
                "the database {database} is sound, {} messages, nothing was changed",
                self.messages
            );
        };
        write!(
            f,
            "the database {database} was recovered: {} messages kept, {} messages and {} states \
             in quarantine, {} queues renamed, {} places unreadable, {} settings renewed; \
             the damaged file is {}",
            self.messages,
            self.messages_quarantined,
            self.states_quarantined,
            self.queues_renamed,
            self.unreadable,
            self.settings_renewed,
            kept.display()
        )
    }
}

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
    repair(&paths, &mut lock).map_err(|error| match error {
        // Its text advises what has just been tried.
        StoreError::Corrupt { file, found, .. } => {
            StoreError::NothingSound { file, damaged_rows: 0, unreadable: found }
        }
        other => other,
    })
}

/// Whether there is no such file or nothing in it.
fn is_empty(file: &Path) -> bool {
    fs::metadata(file).map_or_else(|error| error.kind() == NotFound, |found| found.len() == 0)
}

fn repair(paths: &Paths, lock: &mut Lock) -> Result<Recovered, StoreError> {
    rewrite::finish(paths, lock, None)?;
    lock.guarded().map_or(Ok(()), |guard| guard.check_links(paths))?;
    check_header(paths)?;
    let is_writable = is_writable(paths)?;
    let connection = file::connect(paths)?;
    let (summary, findings) = check::check(&connection, &mut |_| ());
    if findings.found == 0 {
        check_version(&connection, paths)?;
    }
    if findings.found == 0 && is_writable {
        let database = paths.database().to_path_buf();
        return Ok(Recovered { database, messages: summary.messages, ..Recovered::default() });
    }
    let new = NewFile::create(paths)?;
    let filled = Recovery::fill(&connection, new.connection(), random_key()?);
    let mut recovered = filled.map_err(|error| new.error(error))?;
    drop(connection);
    if recovered.messages == 0 && recovered.messages_quarantined + recovered.unreadable > 0 {
        new.discard();
        return Err(StoreError::NothingSound {
            file: paths.database().to_path_buf(),
            damaged_rows: recovered.messages_quarantined + recovered.states_quarantined,
            unreadable: recovered.unreadable,
        });
    }
    recovered.kept = Some(keep_old(paths)?);
    recovered.database = paths.database().to_path_buf();
    let guard = new.make_ready(paths)?;
    rewrite::finish(paths, lock, Some(guard))?;
    suspect::unmark(paths)?;
    Ok(recovered)
}

/// Gives the old file a second name, which it keeps when the new one takes its first.
fn keep_old(paths: &Paths) -> Result<PathBuf, StoreError> {
    let old = fs::metadata(paths.database())
        .map_err(|error| StoreError::system(paths.database(), error))?;
    for number in 1_u32.. {
        let kept = paths.with(&format!(".damaged-{number}"));
        let log = paths.with(&format!(".damaged-{number}-wal"));
        match fs::metadata(&kept) {
            // From a repair that was interrupted after this step.
            Ok(there) if (there.dev(), there.ino()) == (old.dev(), old.ino()) => return Ok(kept),
            Ok(_) => continue,
            Err(_) => {}
        }
        if paths.wal().exists() {
            link_or_copy(&paths.wal(), &log)?;
        }
        link_or_copy(paths.database(), &kept)?;
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

struct Recovery<'c> {
    old: &'c Connection,
    new: Tables<'c>,
    quarantine: Statement<'c>,
    queues: FxHashSet<i64>,
    /// The largest id seen, also of damaged rows.
    id_max: i64,
    recovered: Recovered,
}

impl<'c> Recovery<'c> {
    fn fill(old: &'c Connection, new: &'c Connection, new_key: [u8; 16]) -> Result<Recovered> {
        quarantine::make(new)?;
        let mut recovery = Recovery {
            old,
            new: Tables::new(new)?,
            quarantine: quarantine::adder(new)?,
            queues: FxHashSet::default(),
            id_max: 0,
            recovered: Recovered::default(),
        };
        recovery.earlier_quarantine(new)?;
        recovery.queues()?;
        recovery.messages()?;
        recovery.states(new)?;
        recovery.settings(new_key)?;
        Ok(recovery.recovered)
    }

    /// What an earlier repair has set aside, as far as it can be read.
    fn earlier_quarantine(&mut self, new: &Connection) -> Result<()> {
        let Some(mut reader) = quarantine::reader(self.old) else { return Ok(()) };
        let mut rows = reader.query([i64::MIN])?;
        let mut reached = None;
        while let Ok(Some(row)) = rows.next() {
            let row = Quarantined::of(row)?;
            if reached >= Some(row.number()) {
                break;
            }
            reached = Some(row.number());
            quarantine::keep(new, &[row])?;
        }
        Ok(())
    }

    fn queues(&mut self) -> Result<()> {
        let sql = "SELECT id, name, crc FROM queue WHERE id >= ?1 AND id <= ?2 ORDER BY id";
        let new = &mut self.new;
        let queues = &mut self.queues;
        let unreadable = read_all(self.old, "queue", sql, &mut |row| {
            if check::queue_is_sound(row) {
                let id: i64 = row.get(0)?;
                new.queue_named(QueueId(unsigned(id)), &row.get::<_, String>(1)?)?;
                queues.insert(id);
            }
            Ok(())
        })?;
        self.recovered.unreadable += unreadable;
        Ok(())
    }

    fn messages(&mut self) -> Result<()> {
        let sql = "SELECT id, queue, priority, sequence, created, expires, due, ttr, crc, \
                   attributes, body FROM message WHERE id >= ?1 AND id <= ?2 ORDER BY id";
        let Recovery { old, new, quarantine, queues, id_max, recovered } = self;
        let unreadable = read_all(old, "message", sql, &mut |row| {
            let message = MessageChecked::of(row)?;
            *id_max = message.id.max(*id_max);
            if !message.sound {
                recovered.messages_quarantined += 1;
                return quarantine::add(quarantine, "message", row);
            }
            if queues.insert(message.queue) {
                let name = format!("recovered-{}", message.queue);
                new.queue_named(QueueId(unsigned(message.queue)), &name)?;
                recovered.queues_renamed += 1;
            }
            recovered.messages += 1;
            new.put(&message_row(row)?)
        })?;
        self.recovered.unreadable += unreadable;
        Ok(())
    }

    fn states(&mut self, new: &Connection) -> Result<()> {
        let sql = "SELECT id, state, priority, sequence, due, expires, delay, reserves, timeouts, \
                   releases, buries, kicks, crc FROM message_state \
                   WHERE id >= ?1 AND id <= ?2 ORDER BY id";
        let mut is_kept = new.prepare("SELECT 1 FROM message WHERE id = ?")?;
        let Recovery { old, new, quarantine, recovered, .. } = self;
        let unreadable = read_all(old, "message_state", sql, &mut |row| {
            let columns = numbers::<12>(row);
            match columns {
                Some(columns) if check::state_is_sound(row) && is_kept.exists([columns[0]])? => {
                    new.moved(&state_row(&columns))
                }
                _ => {
                    recovered.states_quarantined += 1;
                    quarantine::add(quarantine, "message_state", row)
                }
            }
        })?;
        self.recovered.unreadable += unreadable;
        Ok(())
    }

    fn settings(&mut self, new_key: [u8; 16]) -> Result<()> {
        // What can not be read is made anew.
        let is_there = schema::is_table(self.old, "meta");
        let settings = is_there.then(|| check::settings(self.old)).and_then(Result::ok);
        let settings = settings.unwrap_or_default();
        let number = |name| match settings.get(name) {
            Some(Setting::Number(value)) => Some(unsigned(*value)),
            _ => None,
        };
        let key = match settings.get(setting::MESSAGE_KEY) {
            Some(Setting::Bytes(key)) if key.len() == 16 => key.clone(),
            _ => {
                self.recovered.settings_renewed += 1;
                new_key.to_vec()
            }
        };
        let after_known = unsigned(self.id_max).saturating_add(1);
        let ids_reserved = number(setting::IDS_RESERVED).unwrap_or_else(|| {
            self.recovered.settings_renewed += 1;
            // Ids count messages since the first day: today in milliseconds is beyond them all.
            after_known.saturating_add(ID_BLOCK).max(unsigned(wall_clock_ms()))
        });
        let names = [setting::CLOCK_TIME, setting::CLOCK_OFFSET];
        match check::clock(&settings) {
            Some(clock) => self.new.set_clock(clock)?,
            None if names.iter().any(|name| settings.contains_key(*name)) => {
                self.recovered.settings_renewed += 1;
            }
            None => {}
        }
        self.new.set_bytes(setting::MESSAGE_KEY, &key)?;
        self.new.set_number(setting::IDS_RESERVED, ids_reserved.max(after_known))?;
        self.new.set_number(setting::CLEAN_STOP, 0)
    }
}

/// Reads all rows of a table that can be read: up from the first, down from the last, and around
/// what is between by halves. Returns how many places could not be read.
///
/// The query takes the first and the last id and ends in the order by id.
fn read_all(
    connection: &Connection,
    table: &str,
    sql: &str,
    each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<u64> {
    if !schema::is_table(connection, table) {
        return Ok(1);
    }
    let down = format!("{sql} DESC");
    let (Ok(mut up), Ok(mut down)) = (connection.prepare(sql), connection.prepare(&down)) else {
        return Ok(1);
    };
    let mut ranges = VecDeque::from([(i64::MIN, i64::MAX)]);
    let mut given_up = Vec::new();
    let mut tries = 0;
    while let Some((first, last)) = ranges.pop_front() {
        tries += 1;
        let (reached, complete) = read_range(&mut up, Ordering::Greater, (first, last), each)?;
        if complete {
            continue;
        }
        let first = reached.map_or(first, |id| id.saturating_add(1));
        let (reached, complete) = read_range(&mut down, Ordering::Less, (first, last), each)?;
        let last = reached.map_or(last, |id| id.saturating_sub(1));
        if complete || first >= last || tries >= READ_TRIES_MAX {
            given_up.push((first, last));
            continue;
        }
        let middle = first.midpoint(last);
        ranges.push_back((first, middle));
        ranges.push_back((middle.saturating_add(1), last));
    }
    given_up.sort_unstable();
    let apart = |pair: &[(i64, i64)]| pair[0].1.saturating_add(1) < pair[1].0;
    let places = given_up.windows(2).filter(|pair| apart(pair)).count() as u64;
    Ok(if given_up.is_empty() { 0 } else { places + 1 })
}

/// A page that can not be read may stand for any range of ids, so the halving has to end.
const READ_TRIES_MAX: u32 = 4_000;

/// Reads on until an error, each id beyond the one before: the last id seen, and whether the range was read to its end.
fn read_range(
    statement: &mut Statement<'_>,
    direction: Ordering,
    (first, last): (i64, i64),
    each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<(Option<i64>, bool)> {
    let mut reached: Option<i64> = None;
    let mut rows = statement.query([first, last])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let id: i64 = row.get(0)?;
                // A page that is pointed to from many places would come up again and again.
                if reached.is_some_and(|before| id.cmp(&before) != direction) {
                    return Ok((reached, false));
                }
                reached = Some(id);
                each(row)?;
            }
            Ok(None) => return Ok((reached, true)),
            Err(_) => return Ok((reached, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{commit, folder, found, put, queue, reopen, story, try_open};
    use super::super::{Held, Memory, Replacement, Slices};
    use super::*;
    use crate::journal::Journal;

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
        assert_eq!(opened.facts.message_key, facts.message_key);
        assert_eq!(opened.facts.next_id, facts.ids_reserved);
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
        assert_eq!((recovered.messages, recovered.messages_quarantined), (21, 1));
        let kept = recovered.kept.unwrap();
        assert!(kept.with_file_name("queue.db.damaged-1-wal").exists());
        assert_eq!(recover(&kept).unwrap().messages, 21);
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
        let failed = recover(&path).unwrap_err();
        assert!(matches!(failed, StoreError::NothingSound { unreadable: 1, .. }), "{failed}");
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
        assert!(recovered.messages > 1_000 && recovered.messages < 2_000, "{recovered}");
        assert_eq!(reopen(&path).facts.messages, recovered.messages, "each is counted once");
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
        assert!(opened.facts.renewed);
        assert_eq!(quarantined(&path), first);

        let held = Held::Open(opened.file.unwrap());
        let mut memory = Memory::new(&opened.memory).unwrap();
        let mut slices = Slices::begin(&mut memory).unwrap();
        let mut replacement = Replacement::begin(&held).unwrap();
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
}
