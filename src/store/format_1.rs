//! Format 1 of the database, and how one of that format becomes one of format 2.
//!
//! Only the states of messages differ, of which there are few, and three tables are missing. What a
//! message was put with stays as it is: its attributes are stored alike. So a database is migrated
//! where it is, in one transaction: a million messages are not written again, no room for a second
//! file is needed, and a crash leaves the one format or the other, since a transaction does.
//!
//! The copy in memory, on which every row was checked, is migrated first; the file then gets the
//! states from there, with the first commit of the start.
//!
//! # Failure
//!
//! A disk without room for the transaction leaves the file as it was, and the start is refused with
//! what it needs: what comes later could not be written to a file of format 1.

use std::fs::File;
use std::io::{self, ErrorKind};

use rusqlite::{Connection, Result, Row};

use super::begin;
use super::check::{self, Summary};
use super::error::ErrorSource;
use super::origin::{Origin, Stand};
use super::paths::{Paths, file_bytes};
use super::probe::store_error;
use super::room::{Allocated, STATE_BYTES, allocate};
use super::rows::{numbers, small, state_row, unsigned};
use super::schema::{self, PAGE_BYTES, checksum, state_of_number};
use super::tables::Tables;
use super::{Facts, StoreError};
use crate::words::change::{Counters, StateRow};
use crate::words::ids::{MessageId, Sequence};

/// What `user_version` says.
pub(super) const VERSION: u32 = 1;

/// The table that format 2 has another one of.
pub(super) const TABLES: &str = "
    CREATE TABLE message_state(
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL, due INTEGER, expires INTEGER, delay INTEGER NOT NULL,
        reserves INTEGER NOT NULL, timeouts INTEGER NOT NULL, releases INTEGER NOT NULL,
        buries INTEGER NOT NULL, kicks INTEGER NOT NULL, crc INTEGER NOT NULL
    ) STRICT;
";

/// The states by id.
pub(super) const STATES: &str = "SELECT id, state, priority, sequence, due, expires, delay, \
                                 reserves, timeouts, releases, buries, kicks, crc \
                                 FROM message_state ORDER BY id";

/// The number of columns of a `message_state` row.
pub(super) const STATE_COLUMNS: usize = 13;

/// The state of a row of [`STATES`], whose checksum is right.
pub(super) fn sound_state(row: &Row<'_>) -> Option<StateRow> {
    let columns = numbers::<12>(row)?;
    let crc = row.get::<_, i64>(12).ok()?;
    if crc == checksum(&columns, &[]) { state(&columns) } else { None }
}

/// The state of these columns, if they can be one.
pub(super) fn state(columns: &[Option<i64>; 12]) -> Option<StateRow> {
    let value = |index: usize| columns[index].unwrap_or(0);
    Some(StateRow {
        id: MessageId(unsigned(value(0))),
        queue: None,
        state: state_of_number(columns[1]?)?,
        priority: small(value(2)),
        sequence: Sequence(unsigned(value(3))),
        due: columns[4],
        expires_ms: columns[5],
        delay_ms: unsigned(value(6)),
        counters: Counters {
            reserves: small(value(7)),
            timeouts: small(value(8)),
            releases: small(value(9)),
            buries: small(value(10)),
            kicks: small(value(11)),
        },
        failure: None,
    })
}

/// Migrates the copy in memory of a file whose rows were checked.
pub(super) fn migrate_memory(memory: &Connection) -> Result<()> {
    memory.execute_batch("BEGIN; ALTER TABLE message_state RENAME TO message_state_1;")?;
    schema::create_format_2(memory)?;
    let mut tables = Tables::new(memory)?;
    let sql = STATES.replace("message_state", "message_state_1");
    let mut statement = memory.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(state) = sound_state(row) {
            tables.moved(&state)?;
        }
    }
    drop(rows);
    drop(statement);
    drop(tables);
    memory.execute_batch("DROP TABLE message_state_1; COMMIT")
}

/// The first commit of a start: it migrates the file that this copy in memory was read from, and
/// reserves ids. `guarded` is the file, for owning the room that it grows by.
///
/// # Errors
/// What failed; then the file is as it was.
pub(super) fn first_commit(
    file: &Connection,
    memory: &Connection,
    paths: &Paths,
    guarded: Option<&File>,
    summary: &Summary,
    stand: Stand,
) -> std::result::Result<(Facts, Origin), StoreError> {
    own_room(file, memory, paths, guarded)?;
    let origin = stand.with_other_cookie().wanted()?;
    let commit = || {
        begin::reserve_ids_after(file, paths, summary, origin, |file| migrate_file(file, memory))
    };
    match begin::commit_or_do_without(file, paths, commit)? {
        Some(facts) => Ok((facts, origin)),
        None => Err(full(paths)),
    }
}

/// What keeps a start from migrating, in words that say what it needs.
pub(super) fn without_room(memory: &Connection, error: StoreError) -> StoreError {
    let StoreError::Full { file, source } = error else { return error };
    let bytes = pages_needed(memory).map_or(0, |pages| 2 * pages * u64::from(PAGE_BYTES));
    let why = format!(
        "{source}; the database has format {VERSION}, and the daemon starts once {bytes} bytes are \
         free to bring it to format {}; nothing was changed",
        schema::FORMAT_VERSION
    );
    let source = ErrorSource::System(io::Error::new(ErrorKind::StorageFull, why));
    StoreError::Full { file, source }
}

/// Pages that the states and the new tables may take, once in the file and once in its log.
fn pages_needed(memory: &Connection) -> Result<u64> {
    const ROOTS: u64 = 8;
    let states = "SELECT count(*) FROM message_state";
    let states = unsigned(memory.query_row(states, [], |row| row.get(0))?);
    Ok(ROOTS + states * STATE_BYTES / u64::from(PAGE_BYTES))
}

/// Has the file own the pages that it needs beside its free ones: the log could not be moved into it
/// later on a disk that somebody has filled meanwhile.
fn own_room(
    file: &Connection,
    memory: &Connection,
    paths: &Paths,
    guarded: Option<&File>,
) -> std::result::Result<(), StoreError> {
    let free = file.query_row("PRAGMA freelist_count", [], |row| row.get(0)).map(unsigned);
    let needed = pages_needed(memory).and_then(|pages| Ok(pages.saturating_sub(free?)));
    let bytes = needed.map_err(|error| store_error(paths, error))? * u64::from(PAGE_BYTES);
    let Some(guarded) = guarded.filter(|_| bytes > 0) else { return Ok(()) };
    let end = file_bytes(paths.database())?;
    match allocate(guarded, end, end + bytes) {
        Allocated::Yes | Allocated::Unknown => Ok(()),
        Allocated::No => Err(full(paths)),
    }
}

fn full(paths: &Paths) -> StoreError {
    StoreError::system(paths.database(), ErrorKind::StorageFull.into())
}

/// Migrates the file that this copy in memory was read from, within a transaction.
pub(super) fn migrate_file(file: &Connection, memory: &Connection) -> Result<()> {
    file.execute_batch("DROP TABLE message_state")?;
    schema::create_format_2(file)?;
    let mut tables = Tables::new(file)?;
    let mut statement = memory.prepare(check::STATES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(state) = state_row(row) {
            tables.moved(&state)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Found, commit, found, put, reopen, try_open};
    use super::super::{StoreError, recover};
    use super::*;
    use crate::words::change::{Change, StoredMessage};
    use crate::words::ids::QueueId;
    use std::path::{Path, PathBuf};

    /// A copy of a file that a daemon of format 1 has written: messages of two protocols, some of
    /// them moved, and one that was in a dead-letter queue.
    fn kept_file() -> (tempfile::TempDir, PathBuf) {
        let (directory, path) = super::super::testing::folder();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.db");
        std::fs::write(&path, std::fs::read(kept).unwrap()).unwrap();
        (directory, path)
    }

    fn version(path: &Path) -> u32 {
        let file = Connection::open(path).unwrap();
        file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    fn message(found: &Found, id: u64) -> &StoredMessage {
        &found.1.iter().find(|(message, ..)| message.id.0 == id).unwrap().0
    }

    fn assert_is_kept_file(found: &Found) {
        let queues: Vec<(u64, &str)> =
            found.0.iter().map(|(id, name)| (*id, name.as_str())).collect();
        assert_eq!(queues, [(1, "mail"), (2, "work"), (4, "php"), (5, "tried")]);
        let ids: Vec<u64> = found.1.iter().map(|(message, ..)| message.id.0).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 10, 11, 12]);
        for (message, attributes, body) in &found.1 {
            let revision = attributes.find("phpmq.revision");
            assert_eq!(revision, (message.queue == QueueId(4)).then_some(&b"2"[..]));
            assert_eq!(message.body_bytes, body.len() as u64);
            let moved = [3, 5, 6, 7, 12].contains(&message.id.0);
            assert_eq!(message.moved.is_some(), moved, "{message:?}");
        }
        assert_eq!(message(found, 2).due_ms, Some(2_111_226_166_985));
        assert_eq!(message(found, 4).body_bytes, 20_000);
        assert_eq!(message(found, 10).expires_ms, Some(2_111_226_167_061));
        let expected = StateRow {
            id: MessageId(7),
            queue: None,
            state: crate::words::change::MessageState::Delayed,
            priority: 300,
            sequence: Sequence(7),
            due: Some(2_111_226_167_054),
            expires_ms: None,
            delay_ms: 315_360_000_000,
            counters: Counters { reserves: 1, releases: 1, ..Counters::default() },
            failure: None,
        };
        assert_eq!(message(found, 7).moved, Some(expected));
    }

    #[test]
    fn a_file_of_format_1_is_migrated_with_the_first_commit() {
        let (_directory, path) = kept_file();
        assert_eq!(version(&path), 1);
        let opened = reopen(&path);
        assert!(opened.facts.migrated);
        assert_eq!((opened.facts.messages, opened.facts.next_id), (10, 14));
        assert_eq!(opened.facts.next_queue_id, 6);
        let all = found(&opened.memory);
        assert_is_kept_file(&all);
        // As after a kill: the log has it alone.
        opened.file.unwrap().abandon();
        assert_eq!(version(&path), 2);
        let again = reopen(&path);
        assert!(!again.facts.migrated);
        assert_eq!(found(&again.memory), all);
        again.file.unwrap().close().unwrap();
        // The copy in memory of a file that was read anew is the same as the one that was migrated.
        assert_eq!(found(&reopen(&path).memory), all);
    }

    #[test]
    fn what_a_killed_daemon_of_format_1_has_left_in_the_log_is_migrated_too() {
        let (_directory, path) = kept_file();
        let old = Connection::open(&path).unwrap();
        super::super::file::keep_log_on_close(&old, true).unwrap();
        old.execute_batch("DELETE FROM message WHERE id = 1").unwrap();
        drop(old);
        let opened = reopen(&path);
        assert!(opened.facts.migrated);
        assert_eq!(opened.facts.messages, 9);
        opened.file.unwrap().abandon();
        commit(&path, vec![put(2_000_000, 1, b"new")]);
        assert_eq!(reopen(&path).facts.messages, 10);
    }

    /// A program that has the file open reads it by its old tables until the cookie changes.
    #[test]
    fn another_program_that_has_the_file_open_sees_the_new_tables() {
        let (_directory, path) = kept_file();
        let other = Connection::open(&path).unwrap();
        let count = "SELECT count(*) FROM message_state";
        let rows = |sql: &str| other.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(rows(count).unwrap(), 5);
        let opened = reopen(&path);
        assert!(opened.facts.migrated);
        assert_eq!(rows("SELECT sum(attempts) + count(*) FROM message_state").unwrap(), 5);
        assert_eq!(rows("SELECT count(*) FROM queue_setting").unwrap(), 0);
        opened.file.unwrap().abandon();
    }

    /// Beside the log of the migration the file alone is a half: it is refused without it.
    #[test]
    fn a_migrated_file_needs_its_log() {
        let (_directory, path) = kept_file();
        reopen(&path).file.unwrap().abandon();
        commit(&path, vec![put(2_000_000, 1, b"new")]);
        std::fs::remove_file(path.with_file_name("queue.db-wal")).unwrap();
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error, StoreError::LogMissing { .. }), "{error}");
    }

    #[test]
    fn a_damaged_file_of_format_1_is_refused_and_recovered_in_format_2() {
        let (_directory, path) = kept_file();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("UPDATE message SET body = x'00' WHERE id = 1").unwrap();
        other.execute_batch("UPDATE message_state SET kicks = 9 WHERE id = 5").unwrap();
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();
        let error = try_open(&path).err().unwrap();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(std::fs::read(&path).unwrap() == before);
        let recovered = recover(&path).unwrap();
        assert_eq!((recovered.messages, recovered.messages_quarantined), (9, 1), "{recovered}");
        assert_eq!((recovered.states_quarantined, recovered.unreadable), (1, 0), "{recovered}");
        assert_eq!(version(&path), 2);
        let opened = reopen(&path);
        assert!(!opened.facts.migrated);
        let mut all = found(&opened.memory);
        assert_eq!(message(&all, 5).moved, None);
        assert_eq!(message(&all, 7).moved.as_ref().map(|row| row.priority), Some(300));
        all.1.retain(|(message, ..)| message.id.0 == 7);
        assert_eq!(all.1.len(), 1);
    }

    /// Whatever page is lost, what stands on the others is found, and nothing is made up.
    #[test]
    fn each_page_of_a_file_of_format_1_may_be_lost() {
        let (_directory, kept) = kept_file();
        let bytes = std::fs::read(&kept).unwrap();
        let before = found(&reopen(&kept).memory);
        let page_bytes = PAGE_BYTES as usize;
        let (mut recovered_all, mut refused) = (0, 0);
        for page in 0..bytes.len() / page_bytes {
            let (_directory, path) = super::super::testing::folder();
            let mut damaged = bytes.clone();
            damaged[page * page_bytes..][..page_bytes].fill(0xa5);
            std::fs::write(&path, damaged).unwrap();
            if let Err(error) = recover(&path) {
                assert_eq!(error.exit_code(), 65, "page {page}: {error}");
                refused += 1;
                continue;
            }
            let after = found(&reopen(&path).memory);
            for (message, attributes, body) in &after.1 {
                let was = before.1.iter().find(|(was, ..)| was.id == message.id).unwrap();
                assert_eq!((attributes, body), (&was.1, &was.2), "page {page}");
                assert!(message.moved.is_none() || message.moved == was.0.moved, "page {page}");
            }
            let moved = |found: &Found| found.1.iter().filter(|row| row.0.moved.is_some()).count();
            recovered_all += u32::from(after.1.len() == 10 && moved(&after) == 5);
        }
        assert!(recovered_all >= 3 && refused <= 1, "{recovered_all} whole, {refused} refused");
    }

    #[test]
    fn a_sound_file_of_format_1_needs_no_recovery() {
        let (_directory, path) = kept_file();
        let recovered = recover(&path).unwrap();
        assert_eq!((recovered.messages, recovered.kept), (10, None));
        assert_eq!(version(&path), 1);
    }

    #[test]
    fn a_suspect_file_of_format_1_is_written_anew_in_format_2() {
        let (_directory, path) = kept_file();
        let paths = Paths::of(&path).unwrap();
        super::super::suspect::mark(&paths);
        let opened = reopen(&path);
        assert!(opened.facts.migrated);
        assert_is_kept_file(&found(&opened.memory));
        opened.file.unwrap().close().unwrap();
        assert_eq!(version(&path), 2);
        assert_is_kept_file(&found(&reopen(&path).memory));
    }

    /// What a start that lacks room says.
    #[test]
    fn a_migration_without_room_says_what_it_needs() {
        let (_directory, path) = kept_file();
        let memory = reopen(&path).memory;
        let paths = Paths::of(&path).unwrap();
        let error = without_room(&memory, full(&paths));
        let text = error.to_string();
        assert!(text.contains("has format 1") && text.contains("131072 bytes"), "{text}");
        assert_eq!(error.exit_code(), 74);
    }

    #[test]
    fn a_life_after_the_migration_ends_in_order() {
        let (_directory, path) = kept_file();
        reopen(&path).file.unwrap().close().unwrap();
        commit(&path, vec![Change::Removed(MessageId(3)), put(2_000_000, 1, b"new")]);
        let opened = reopen(&path);
        assert_eq!(opened.facts.messages, 10);
        assert_eq!(found(&opened.memory).1.last().unwrap().2, b"new");
    }
}
