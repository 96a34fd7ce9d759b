//! What is done with the database file while the daemon runs: commits, checkpoints, giving room
//! back.
//!
//! Owned by the persistence thread.
//!
//! # Failure
//!
//! A commit that fails is rolled back whole. Checkpoints are never automatic: SQLite would swallow
//! their errors, and a second try after a failed fsync would lie about what is on the disk.

use std::io::{Seek as _, SeekFrom, Write as _};

use rusqlite::{OptionalExtension as _, Result, Statement};

use super::StoreError;
use super::ballast::Ballast;
use super::file::{Sizes, StoreFile, keep_log_on_close, run_checkpoint};
use super::paths::{Paths, file_bytes, remove_if_there};
use super::rows::unsigned;
use super::schema::{PAGE_BYTES, setting};
use super::suspect;
use super::tables::Tables;
use crate::journal::Batch;

/// The statements for the file, which they borrow.
pub struct File<'c> {
    file: &'c StoreFile,
    tables: Tables<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    hold: Statement<'c>,
    /// Whether a read transaction is kept open between commits.
    holding: bool,
    log_frames: Statement<'c>,
    checkpoint: Statement<'c>,
    /// Whether commits fsync now (`synchronous = FULL`).
    syncing: bool,
    /// Whether something was committed since the last fsync.
    unsynced: bool,
    /// What the file has under this name, for writing it once more would change no page either.
    tick: u64,
    /// Frames in the log when it was last checkpointed; 0 once it has begun anew.
    checkpointed_frames: u32,
    /// At least so many frames as were added to the log since then: asking for the number costs as
    /// much as a small commit.
    frames_guessed: u64,
    /// Bytes of the changes that were committed since the log was last checkpointed.
    changed_bytes: u64,
    /// Commits with fsync since then.
    syncs: u64,
    /// Bytes of the file when it was last measured.
    file_bytes: u64,
    free_pages: Statement<'c>,
    pages: Statement<'c>,
    vacuum: Statement<'c>,
    ballast: Ballast,
    /// Whether a mark says that the file is suspect.
    marked: bool,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The log is short: there was nothing to do.
    NotDue,
    /// The whole log is in the file.
    Complete,
    /// Somebody who reads the file holds a part of the log.
    HeldUp,
}

impl<'c> File<'c> {
    /// Prepares the statements.
    ///
    /// # Errors
    /// What the database library said.
    pub fn new(file: &'c StoreFile) -> Result<File<'c>, StoreError> {
        let failed = |error| StoreError::database(file.path(), error);
        let connection = &file.connection;
        // An unknown state, which the first commit of either kind sets.
        connection.execute_batch("PRAGMA synchronous = FULL").map_err(failed)?;
        let prepare = |sql| connection.prepare(sql).map_err(failed);
        Ok(File {
            file,
            tables: Tables::new(connection).map_err(failed)?,
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            hold: prepare("SELECT 1 FROM meta")?,
            holding: false,
            log_frames: prepare("PRAGMA wal_checkpoint(NOOP)")?,
            checkpoint: prepare("PRAGMA wal_checkpoint(PASSIVE)")?,
            syncing: true,
            unsynced: false,
            tick: connection
                // One that is damaged is as good as none: the next one writes another value.
                .query_row(TICK, [setting::TICK], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or(0)))
                .optional()
                .map_err(failed)?
                .map_or(0, unsigned),
            checkpointed_frames: 0,
            frames_guessed: u64::from(LOG_FRAMES_MIN),
            changed_bytes: 0,
            syncs: 0,
            file_bytes: 0,
            free_pages: prepare("PRAGMA freelist_count")?,
            pages: prepare("PRAGMA page_count")?,
            vacuum: prepare("VACUUM")?,
            ballast: Ballast::find(&file.place.paths),
            marked: false,
        })
    }

    /// Commits a batch whole. With `sync` it is on the disk afterwards, and with it all that was
    /// committed before.
    ///
    /// # Errors
    /// What failed; then nothing of the batch is in the file, unless the error makes the file
    /// suspect.
    pub fn commit(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        if batch.is_empty() && !(sync && self.unsynced) {
            return Ok(());
        }
        let held = self.holding;
        let mut result = self.write_or_roll_back(batch, sync);
        if held && matches!(result, Err(StoreError::Busy { .. })) {
            // Somebody has written all the same, and what was held was an old state.
            result = self.write_or_roll_back(batch, sync);
        }
        if is_full(&result) && self.ballast.throw_off(&self.file.place.paths) {
            result = self.write_or_roll_back(batch, sync);
        }
        if is_full(&result) && self.empty_log()? {
            result = self.write_or_roll_back(batch, sync);
        }
        result?;
        self.unsynced = !sync;
        self.changed_bytes += batch.bytes();
        self.syncs += u64::from(sync);
        let body_pages = batch.bytes() / u64::from(PAGE_BYTES);
        self.frames_guessed += FRAMES_PER_COMMIT + FRAMES_PER_ROW * batch.rows() + 2 * body_pages;
        self.file.place.note(batch);
        Ok(())
    }

    fn write_or_roll_back(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.write(batch, sync).map_err(|error| {
            if !self.file.connection.is_autocommit() {
                // When this fails, the transaction is rolled back already or the next BEGIN says
                // what is wrong.
                let _ = self.rollback.raw_execute();
            }
            self.let_go();
            self.error(error)
        })
    }

    fn write(&mut self, batch: &Batch, sync: bool) -> Result<()> {
        self.set_syncing(sync)?;
        self.begin.raw_execute()?;
        self.hold_on()?;
        self.tables.apply_batch(batch)?;
        if sync && self.unsynced {
            // A transaction that changes no page does not fsync. The batch may be such a one even
            // when it has rows, which are in the file already.
            self.tick = (self.tick + 1) % TICK_END;
            self.tables.set_number(setting::TICK, self.tick)?;
        }
        self.commit.raw_execute()?;
        if sync {
            // An idle daemon holds nothing.
            self.let_go();
        }
        Ok(())
    }

    /// Keeps a read transaction open beyond the commit: a statement with a row to come. Taking the
    /// locks for a new one and giving them back costs four of the eight system calls of a small
    /// commit.
    ///
    /// Nobody else writes, so what it sees is the newest state. It has to be let go for what wants
    /// the log or the file for itself: checkpoints and VACUUM.
    fn hold_on(&mut self) -> Result<()> {
        if !self.holding {
            let mut rows = self.hold.raw_query();
            rows.next()?;
            // Dropping them would end it.
            std::mem::forget(rows);
            self.holding = true;
        }
        Ok(())
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.holding) {
            drop(self.hold.raw_query());
        }
    }

    /// Moves the log into the file, where that needs no room, so that it begins anew in the room
    /// that it has. Says whether all of it was moved.
    fn empty_log(&mut self) -> Result<bool, StoreError> {
        self.let_go();
        self.file.look()?;
        let moved = run_checkpoint(&mut self.checkpoint);
        self.file.log_was_moved();
        match moved.map_err(|error| self.error(error)) {
            Ok((_, frames, moved)) => Ok(frames > 0 && moved == frames),
            Err(StoreError::Full { .. } | StoreError::Busy { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn set_syncing(&mut self, sync: bool) -> Result<()> {
        if self.syncing != sync {
            let level = if sync { "FULL" } else { "NORMAL" };
            self.file.connection.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
            self.syncing = sync;
        }
        Ok(())
    }

    /// Moves the log into the file when it has grown enough since the last time: by
    /// `LOG_FRAMES_MIN` if that is mostly new, by `LOG_FRAMES_MAX` if it is the same pages over
    /// and over, of which only the last ones go into the file.
    ///
    /// # Errors
    /// What failed. Unless the disk is full the file is suspect from then on, for a later fsync
    /// may succeed without having written anything.
    pub fn checkpoint_if_due(&mut self) -> Result<Checkpoint, StoreError> {
        if self.frames_guessed >= self.frames_due() {
            // Moving the log into what is not our file any more would leave neither whole.
            self.file.look()?;
        }
        self.checkpoint().map_err(|error| self.error(error))
    }

    fn checkpoint(&mut self) -> Result<Checkpoint> {
        if self.frames_guessed < self.frames_due() {
            return Ok(Checkpoint::NotDue);
        }
        self.let_go();
        let (_, frames, _) = run_checkpoint(&mut self.log_frames)?;
        if frames < self.checkpointed_frames {
            self.checkpointed_frames = 0;
        }
        // A log that a reader holds up only grows: what counts is how much since the last time.
        let grown = frames - self.checkpointed_frames;
        self.frames_guessed = u64::from(grown);
        if self.frames_guessed < self.frames_due() {
            return Ok(Checkpoint::NotDue);
        }
        let moved = run_checkpoint(&mut self.checkpoint);
        self.file.log_was_moved();
        let (_, frames, moved) = moved?;
        self.checkpointed_frames = frames;
        self.frames_guessed = 0;
        self.changed_bytes = 0;
        self.syncs = 0;
        Ok(if moved == frames { Checkpoint::Complete } else { Checkpoint::HeldUp })
    }

    /// By how many frames the log has to grow for a checkpoint.
    fn frames_due(&self) -> u64 {
        let is_short = self.changed_bytes >= CHANGED_BYTES_MANY || self.syncs >= SYNCS_MANY;
        u64::from(if is_short { LOG_FRAMES_MIN } else { LOG_FRAMES_MAX })
    }

    /// From now on nothing moves the log into the file, closing included, and a start would not
    /// trust it either. Returns the answer to further commits.
    pub fn distrust(&mut self) -> StoreError {
        let _ = keep_log_on_close(&self.file.connection, true);
        if !std::mem::replace(&mut self.marked, true) {
            suspect::mark(&self.file.place.paths);
        }
        StoreError::Suspect { file: self.file.path().to_path_buf() }
    }

    /// Gives the disk its room back after a backlog has drained: when more than half of a large
    /// file is free and what is left is little enough to be copied at once. Says whether it did.
    ///
    /// In place and through the log, not as a new file under the old name: programs that have the
    /// file open go on seeing what is in it.
    ///
    /// # Errors
    /// What failed; then the file is as it was, unless the error makes it suspect.
    pub fn shrink_if_worth_it(&mut self) -> Result<bool, StoreError> {
        self.shrink().map_err(|error| self.error(error))
    }

    fn shrink(&mut self) -> Result<bool> {
        if self.file_bytes < u64::from(SHRINK_PAGES_MIN) * u64::from(PAGE_BYTES) {
            return Ok(false);
        }
        let free: u32 = self.free_pages.query_row([], |row| row.get(0))?;
        if free < SHRINK_PAGES_MIN {
            return Ok(false);
        }
        let pages: u32 = self.pages.query_row([], |row| row.get(0))?;
        let kept = pages.saturating_sub(free);
        if kept > free || kept > SHRINK_KEPT_PAGES_MAX {
            return Ok(false);
        }
        self.let_go();
        self.set_syncing(true)?;
        self.vacuum.raw_execute()?;
        self.unsynced = false;
        // The file is cut when the log is moved into it.
        let moved = run_checkpoint(&mut self.checkpoint);
        self.file.log_was_moved();
        self.checkpointed_frames = moved?.1;
        Ok(true)
    }

    /// How large everything is now. Takes new ballast in when the disk has room again.
    ///
    /// # Errors
    /// What the system said.
    pub fn sizes(&mut self) -> Result<Sizes, StoreError> {
        let sizes = self.file.sizes()?;
        self.file_bytes = sizes.file_bytes;
        self.ballast.take_in(&self.file.place.paths, sizes.disk_free_bytes);
        Ok(sizes)
    }

    fn error(&self, error: rusqlite::Error) -> StoreError {
        let is_io = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
        let is_write = error
            .sqlite_extended_error_code()
            .is_some_and(|code| matches!(code, IOERR_WRITE | IOERR_TRUNCATE | IOERR_SHMSIZE));
        if is_io
            && is_write
            && let Err(full) = probe_growth(&self.file.place.paths)
        {
            return full;
        }
        StoreError::database(self.file.path(), error)
    }
}

fn is_full(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Full { .. }))
}

/// The log is moved into the file when it has grown by 4 MB: a larger one makes commits slower
/// (133 µs each at 4 MB, 218 µs at 64 MB) and its checkpoints stalls of 100 ms.
const LOG_FRAMES_MIN: u32 = 4 * 1024 * 1024 / PAGE_BYTES;
/// Commits of a few rows change the same pages again and again, of which only the last ones are
/// moved: then it may grow by 12 MB, and the three syncs of a checkpoint, which hold answers up,
/// come a third as often. Less than what is kept of a log, so that it need not grow anew.
const LOG_FRAMES_MAX: u32 = 12 * 1024 * 1024 / PAGE_BYTES;
/// A log that has grown by [`LOG_FRAMES_MIN`] with this many bytes of changes is mostly new pages.
const CHANGED_BYTES_MANY: u64 = 2 * 1024 * 1024;
/// Where so many commits were synced, a checkpoint's three syncs are no matter. But one in a log
/// that grows takes several times as long as one in a log that is used again.
const SYNCS_MANY: u64 = 64;
/// What a commit of one row adds to the log at most, but for its body: the pages from the root to
/// the row in two tables, and what is merged or split.
const FRAMES_PER_COMMIT: u64 = 4;
const FRAMES_PER_ROW: u64 = 4;
/// Less than 16 MB is not worth giving back.
const SHRINK_PAGES_MIN: u32 = 16 * 1024 * 1024 / PAGE_BYTES;
/// More than 32 MB takes so long to copy that confirmations would be late.
const SHRINK_KEPT_PAGES_MAX: u32 = 32 * 1024 * 1024 / PAGE_BYTES;
/// Beyond what the database can tell apart.
const TICK_END: u64 = i64::MAX as u64;
const TICK: &str = "SELECT value FROM meta WHERE name = ?";
// Extended result codes that also stand for a full disk.
const IOERR_WRITE: i32 = rusqlite::ffi::SQLITE_IOERR_WRITE;
const IOERR_TRUNCATE: i32 = rusqlite::ffi::SQLITE_IOERR_TRUNCATE;
const IOERR_SHMSIZE: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// The database library tells a full disk from other errors, but not a quota or a file size limit:
/// so the file of which these would be true is tried. The error is the system's.
fn probe_growth(paths: &Paths) -> Result<(), StoreError> {
    const PROBE_BYTES: usize = 64 * 1024;
    let path = paths.with(".probe");
    let end = file_bytes(paths.database())?.max(file_bytes(&paths.wal())?);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&[0xff; PROBE_BYTES])?;
        file.sync_all()
    });
    let _ = remove_if_there(&path);
    match written {
        Err(error) => match StoreError::system(paths.database(), error) {
            full @ StoreError::Full { .. } => Err(full),
            _ => Ok(()),
        },
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{commit_to, folder, put, queue, removed, reopen};
    use super::*;
    use crate::change::Change;
    use crate::journal::Journal;
    use std::path::Path;
    use std::sync::Arc;

    fn batch(changes: Vec<Change>) -> Arc<Batch> {
        let mut journal = Journal::new();
        changes.into_iter().for_each(|change| journal.record(change));
        journal.take()
    }

    fn ids(path: &Path) -> Vec<u64> {
        let (_, messages) = super::super::testing::found(&reopen(path).memory);
        messages.iter().map(|(message, ..)| message.id.0).collect()
    }

    /// The frames in the log.
    fn frames(file: &mut File<'_>) -> u32 {
        file.let_go();
        run_checkpoint(&mut file.log_frames).unwrap().1
    }

    #[test]
    fn a_sync_without_changes_writes_only_when_something_is_not_synced() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let empty = batch(vec![]);
        let idle = frames(&mut file);
        file.commit(&empty, true).unwrap();
        file.commit(&empty, false).unwrap();
        assert_eq!(frames(&mut file), idle, "an idle daemon writes nothing");
        file.commit(&batch(vec![queue(1, "q")]), false).unwrap();
        let unsynced = frames(&mut file);
        file.commit(&empty, true).unwrap();
        let synced = frames(&mut file);
        assert!(synced > unsynced, "without a write there is no fsync");
        file.commit(&empty, true).unwrap();
        assert_eq!(frames(&mut file), synced);
    }

    /// A restart once counted its ticks from the beginning. The first one then wrote what was in
    /// the file already, which changes no page, so that nothing was fsynced and a power cut took
    /// what had been confirmed. Found by the power cuts of `tests/it/cuts`.
    #[test]
    fn regression_4_the_first_sync_after_a_restart_writes_too() {
        let (_directory, path) = folder();
        for life in 1..=3 {
            let store_file = reopen(&path).file.unwrap();
            let mut file = File::new(&store_file).unwrap();
            file.commit(&batch(vec![queue(life, "q"), put(life, life, b"a")]), false).unwrap();
            let unsynced = frames(&mut file);
            file.commit(&batch(vec![]), true).unwrap();
            assert!(frames(&mut file) > unsynced, "life {life}: without a write there is no fsync");
        }
    }

    #[test]
    fn a_sync_with_changes_that_change_nothing_writes_too() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        file.commit(&batch(vec![queue(1, "q"), put(1, 1, b"a")]), false).unwrap();
        let unsynced = frames(&mut file);
        file.commit(&batch(vec![removed(99)]), true).unwrap();
        assert!(frames(&mut file) > unsynced, "without a write there is no fsync");
    }

    #[test]
    fn a_log_of_the_same_pages_is_moved_later_than_one_of_new_pages_or_of_many_syncs() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let mut frames_when_moved = |body_bytes: usize, first: u64, syncs: u64| {
            for id in first.. {
                let put = put(id, 1, &vec![b'x'; body_bytes]);
                file.commit(&batch(vec![put]), id - first < syncs).unwrap();
                if file.checkpoint_if_due().unwrap() == Checkpoint::Complete {
                    return file.checkpointed_frames;
                }
            }
            unreachable!("the log was never moved")
        };
        let short = LOG_FRAMES_MIN..LOG_FRAMES_MIN + 100;
        let long = LOG_FRAMES_MAX..LOG_FRAMES_MAX + 100;
        let new_pages = frames_when_moved(100_000, 1, 0);
        assert!(short.contains(&new_pages), "{new_pages}");
        let same_pages = frames_when_moved(100, 1_000_000, 0);
        assert!(long.contains(&same_pages), "{same_pages}");
        let synced = frames_when_moved(100, 2_000_000, SYNCS_MANY);
        assert!(short.contains(&synced), "{synced}");
    }

    #[test]
    fn what_is_held_between_commits_stands_in_nobodys_way() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        file.commit(&batch(vec![queue(1, "q"), put(1, 1, b"a")]), false).unwrap();
        assert!(file.holding);
        let foreign = rusqlite::Connection::open(&path).unwrap();
        let nothing_else = "INSERT INTO queue VALUES (9, 'x', 0); DELETE FROM queue WHERE id = 9";
        foreign.execute_batch(nothing_else).unwrap();
        file.commit(&batch(vec![put(2, 1, b"b")]), false).unwrap();
        file.commit(&batch(vec![]), true).unwrap();
        let (busy, frames, moved) =
            run_checkpoint(&mut foreign.prepare("PRAGMA wal_checkpoint(FULL)").unwrap()).unwrap();
        assert!(!busy, "an idle daemon holds nothing");
        assert_eq!(frames, moved);
        drop(foreign);
        drop(file);
        store_file.abandon();
        assert_eq!(ids(&path), [1, 2]);
    }

    #[test]
    fn a_failed_commit_leaves_nothing_and_the_next_one_succeeds() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        commit_to(&mut file, vec![queue(1, "q"), put(1, 1, b"kept")]);
        // A limit of the database stands for a full disk.
        let pages: u32 =
            store_file.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = |pages: u32| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            store_file.connection.query_row(&sql, [], |_| Ok(())).unwrap();
        };
        limit(pages + 2);
        let large = batch((2..=200).map(|id| put(id, 1, &[b'x'; 1_000])).collect());
        let error = file.commit(&large, true).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(large.rows(), 199, "the batch is whole");
        limit(1_000_000);
        commit_to(&mut file, vec![put(300, 1, b"after")]);
        drop(file);
        store_file.abandon();
        assert_eq!(ids(&path), [1, 300]);
    }

    #[test]
    fn a_full_disk_throws_the_ballast_off() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let ballast = store_file.place.paths.ballast();
        let mut file = File::new(&store_file).unwrap();
        commit_to(&mut file, vec![queue(1, "q")]);
        file.ballast.take_in(&store_file.place.paths, u64::MAX);
        assert!(ballast.exists());
        store_file.connection.query_row("PRAGMA max_page_count = 20", [], |_| Ok(())).unwrap();
        let large = batch((1..=500).map(|id| put(id, 1, &[b'x'; 1_000])).collect());
        assert!(file.commit(&large, true).is_err());
        assert!(!ballast.exists());
    }

    #[test]
    fn another_program_that_locks_the_file_is_no_reason_to_distrust_it() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        store_file.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let mut file = File::new(&store_file).unwrap();
        let foreign = rusqlite::Connection::open(&path).unwrap();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let one = batch(vec![queue(1, "q"), put(1, 1, b"a")]);
        let error = file.commit(&one, true).unwrap_err();
        assert_eq!(error.remedy(), super::super::Remedy::Retry, "{error}");
        foreign.execute_batch("ROLLBACK").unwrap();
        file.commit(&one, true).unwrap();
        drop(file);
        store_file.abandon();
        assert_eq!(ids(&path), [1]);
    }

    #[test]
    fn the_file_shrinks_when_a_backlog_has_drained() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=40).map(|id| put(id, 1, &vec![b'x'; 1024 * 1024])));
        commit_to(&mut file, changes);
        file.checkpoint_if_due().unwrap();
        assert!(file.sizes().unwrap().file_bytes > 40 * 1024 * 1024);
        assert!(!file.shrink_if_worth_it().unwrap(), "nothing is free");
        commit_to(&mut file, (1..=39).map(removed).collect());
        assert!(file.shrink_if_worth_it().unwrap());
        assert!(!file.shrink_if_worth_it().unwrap(), "it is done");
        let sizes = file.sizes().unwrap();
        assert!(sizes.file_bytes < 3 * 1024 * 1024, "{sizes:?}");
        commit_to(&mut file, vec![put(41, 1, b"after")]);
        drop(file);
        store_file.abandon();
        assert_eq!(ids(&path), [40, 41]);
    }

    #[test]
    fn an_input_or_output_error_on_a_disk_with_room_is_not_taken_for_a_full_one() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let file = File::new(&store_file).unwrap();
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_WRITE);
        let error = file.error(rusqlite::Error::SqliteFailure(failure, None));
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(!path.with_file_name("queue.db.probe").exists());
    }
}
