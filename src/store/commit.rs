//! What is done with the database file while the daemon runs: commits, checkpoints, giving room
//! back.
//!
//! Owned by the persistence thread.
//!
//! # Failure
//!
//! A commit that fails is rolled back whole. Checkpoints are never automatic: SQLite would swallow
//! their errors, and a second try after a failed fsync would lie about what is on the disk.

use rusqlite::{OptionalExtension as _, Result, Statement};

use super::StoreError;
use super::ballast::Ballast;
use super::file::{Sizes, StoreFile, keep_log_on_close, run_checkpoint};
use super::origin::{self, Origin};
use super::parts::is_full;
use super::probe::store_error;
use super::room::{LOG_BYTES, Room, pages_needed};
use super::rows::unsigned;
use super::schema::{PAGE_BYTES, setting};
use super::spare_rows::SpareRows;
use super::suspect;
use super::tables::Tables;
use crate::journal::Batch;

/// The statements for the file, which they borrow.
pub struct File<'c> {
    pub(super) file: &'c StoreFile,
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
    pub(super) unsynced: bool,
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
    /// Messages that the last commit removed.
    removals: u64,
    /// Bytes of the file when it was last measured.
    file_bytes: u64,
    pub(super) free_pages: Statement<'c>,
    pub(super) pages: Statement<'c>,
    vacuum: Statement<'c>,
    pub(super) ballast: Ballast,
    pub(super) reserve: SpareRows,
    pub(super) room: Room,
    /// Whether a mark says that the file is suspect.
    marked: bool,
}

/// For what there is room, whatever becomes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRoom {
    /// Bytes of messages.
    pub bytes: u64,
    /// Whether the disk had no more when it was last asked.
    pub is_all: bool,
}

impl OwnRoom {
    /// Where nobody counts.
    pub const ENDLESS: OwnRoom = OwnRoom { bytes: u64::MAX, is_all: false };
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
        let mut file = File {
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
            removals: 0,
            file_bytes: 0,
            free_pages: prepare("PRAGMA freelist_count")?,
            pages: prepare("PRAGMA page_count")?,
            vacuum: prepare("VACUUM")?,
            ballast: Ballast::find(&file.place.paths),
            reserve: SpareRows::find(connection).map_err(failed)?,
            room: Room::default(),
            marked: false,
        };
        file.own_all()?;
        Ok(file)
    }

    /// Commits a batch whole. With `sync` it is on the disk afterwards, and with it all that was
    /// committed before.
    ///
    /// # Errors
    /// What failed; then nothing of the batch is in the file, unless the error makes the file
    /// suspect.
    pub fn commit(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.removals = batch.removals();
        if batch.is_empty() && !(sync && self.unsynced) {
            return Ok(());
        }
        let pages = pages_needed(batch);
        self.room.note_commit(pages);
        let fits = self.has_room(pages)? || batch.is_tied() && self.has_room_with_reserve(pages)?;
        let mut result = if fits { self.commit_whole(batch, sync) } else { Err(self.no_room()) };
        if is_full(&result) {
            if !batch.is_tied() {
                result = self.commit_in_parts(batch, sync);
            }
            self.measure_room()?;
        } else if self.room.is_all_there_is() || pages >= COUNTED_PAGES_MIN {
            // To the page, where each counts and where a guess is far off.
            self.measure_room()?;
        } else {
            self.room.used += pages;
        }
        let place = &self.file.place;
        if let Err(StoreError::NoRoom { .. }) = result {
            place.note(batch);
            place.count(0, batch.removals());
        }
        result?;
        self.unsynced &= !sync;
        self.changed_bytes += batch.bytes();
        self.syncs += u64::from(sync);
        let body_pages = batch.bytes() / u64::from(PAGE_BYTES);
        self.frames_guessed += FRAMES_PER_COMMIT + FRAMES_PER_ROW * batch.rows() + 2 * body_pages;
        place.count(batch.puts(), batch.removals());
        place.note(batch);
        Ok(())
    }

    fn commit_whole(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        let held = self.holding;
        let mut result = self.write_or_roll_back(batch, sync);
        if held && matches!(result, Err(StoreError::Busy { .. })) {
            // Somebody has written all the same, and what was held was an old state.
            result = self.write_or_roll_back(batch, sync);
        }
        self.unsynced |= result.is_ok();
        result
    }

    fn write_or_roll_back(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.write(batch, sync).map_err(|error| self.roll_back(error))
    }

    fn roll_back(&mut self, error: rusqlite::Error) -> StoreError {
        if !self.file.connection.is_autocommit() {
            // When this fails, the transaction is rolled back already or the next BEGIN says
            // what is wrong.
            let _ = self.rollback.raw_execute();
        }
        self.let_go();
        self.error(error)
    }

    /// One transaction beside the commits.
    pub(super) fn transaction(
        &mut self,
        sync: bool,
        write: impl FnOnce(&mut Tables<'c>) -> Result<()>,
    ) -> Result<(), StoreError> {
        let run = || {
            self.set_syncing(sync)?;
            self.begin.raw_execute()?;
            self.complete_start()?;
            write(&mut self.tables)?;
            self.commit.raw_execute()
        };
        let result = run().map(drop);
        result.map_err(|error| self.roll_back(error))?;
        self.start_is_complete();
        Ok(())
    }

    /// Writes what a start could not write on a full disk: that there was no orderly stop since,
    /// and the cookie of a file that was a copy.
    fn complete_start(&mut self) -> Result<()> {
        let place = &self.file.place;
        if place.clean_mark.get() {
            self.tables.set_number(setting::CLEAN_STOP, 0)?;
        }
        if let Some(origin) = place.origin.get().completed() {
            origin::set_cookie(&self.file.connection, origin.cookie())?;
            origin.write(&mut self.tables)?;
        }
        Ok(())
    }

    /// Notes that it was committed.
    fn start_is_complete(&self) {
        let place = &self.file.place;
        place.clean_mark.set(false);
        if let Some(origin) = place.origin.get().completed() {
            place.origin.set(origin);
        }
    }

    fn write(&mut self, batch: &Batch, sync: bool) -> Result<()> {
        self.set_syncing(sync)?;
        self.begin.raw_execute()?;
        self.hold_on()?;
        self.complete_start()?;
        self.tables.apply_batch(batch)?;
        if sync && self.unsynced {
            // A transaction that changes no page does not fsync. The batch may be such a one even
            // when it has rows, which are in the file already.
            let tick = self.next_tick();
            self.tables.set_number(setting::TICK, tick)?;
        }
        self.commit.raw_execute()?;
        self.start_is_complete();
        if sync {
            // An idle daemon holds nothing.
            self.let_go();
        }
        Ok(())
    }

    /// A value that the file does not have yet.
    pub(super) fn next_tick(&mut self) -> u64 {
        self.tick = (self.tick + 1) % TICK_END;
        self.tick
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

    pub(super) fn let_go(&mut self) {
        if std::mem::take(&mut self.holding) {
            drop(self.hold.raw_query());
        }
    }

    /// Moves the log into the file, which owns the room for that, so that it begins anew in the room
    /// that it has. Says whether all of it was moved.
    pub(super) fn empty_log(&mut self) -> Result<bool, StoreError> {
        self.let_go();
        self.file.look()?;
        match self.move_log() {
            Ok((frames, moved)) => Ok(frames > 0 && moved == frames),
            Err(StoreError::Full { .. } | StoreError::Busy { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes that the log has grown beside the commits.
    pub(super) fn wrote_frames(&mut self, frames: u64) {
        self.frames_guessed += frames;
    }

    /// Notes what a checkpoint has done. When it has moved all, it has cut the file to its pages.
    fn log_was_moved(&mut self, frames: u32, moved: u32) -> Result<(), StoreError> {
        self.checkpointed_frames = frames;
        self.frames_guessed = 0;
        self.changed_bytes = 0;
        self.syncs = 0;
        if moved == frames { self.disown_rest() } else { Ok(()) }
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
        if !self.is_checkpoint_due().map_err(|error| self.error(error))? {
            return Ok(Checkpoint::NotDue);
        }
        let (frames, moved) = self.move_log()?;
        Ok(if moved == frames { Checkpoint::Complete } else { Checkpoint::HeldUp })
    }

    /// Moves the log into the file, which says meanwhile, and from then on, that it needs one.
    /// Returns how many frames there are and how many of them were moved.
    fn move_log(&mut self) -> Result<(u32, u32), StoreError> {
        self.note_origin(self.file.place.origin.get().before_move()?)?;
        let moved = run_checkpoint(&mut self.checkpoint);
        self.file.log_was_moved();
        let (_, frames, moved) = moved.map_err(|error| self.error(error))?;
        self.log_was_moved(frames, moved)?;
        if frames == moved {
            self.note_origin(self.file.place.origin.get().after_move())?;
            let is_marked = !self.file.place.origin.get().needs_log();
            self.file.place.log_is_known.set(is_marked);
        }
        Ok((frames, moved))
    }

    /// Writes where file and log stand, if there is room for it.
    fn note_origin(&mut self, origin: Origin) -> Result<(), StoreError> {
        if origin == self.file.place.origin.get() {
            return Ok(());
        }
        let origin = origin.completed().unwrap_or(origin);
        match self.transaction(false, |tables| origin.write(tables)) {
            Ok(()) => {
                self.wrote_frames(1);
                self.file.place.origin.set(origin);
                Ok(())
            }
            Err(StoreError::Full { .. } | StoreError::Busy { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn is_checkpoint_due(&mut self) -> Result<bool> {
        if self.frames_guessed < self.frames_due() {
            return Ok(false);
        }
        self.let_go();
        let (_, frames, _) = run_checkpoint(&mut self.log_frames)?;
        if frames < self.checkpointed_frames {
            self.checkpointed_frames = 0;
        }
        // A log that a reader holds up only grows: what counts is how much since the last time.
        let grown = frames - self.checkpointed_frames;
        self.frames_guessed = u64::from(grown);
        Ok(self.frames_guessed >= self.frames_due())
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
        let kept = self.pages_kept().map_err(|error| self.error(error))?;
        let Some(kept) = kept else { return Ok(false) };
        let kept_bytes = u64::from(kept) * u64::from(PAGE_BYTES);
        let is_tight = self.room.disk_free_bytes < 2 * kept_bytes + LOG_BYTES;
        // On a full disk only what fits into the log that there is.
        if is_tight && (kept_bytes > self.room.log_bytes / 2 || !self.empty_log()?) {
            return Ok(false);
        }
        self.vacuum().map_err(|error| self.error(error))?;
        // The file is cut when the log is moved into it.
        self.move_log().map(|_| true)
    }

    /// How many pages a smaller file would have, if that is worth it.
    fn pages_kept(&mut self) -> Result<Option<u32>> {
        if self.file_bytes < u64::from(SHRINK_PAGES_MIN) * u64::from(PAGE_BYTES) {
            return Ok(None);
        }
        let free: u32 = self.free_pages.query_row([], |row| row.get(0))?;
        // VACUUM is a commit of its own, and the first one has to complete the start.
        if free < SHRINK_PAGES_MIN || self.file.place.origin.get().completed().is_some() {
            return Ok(None);
        }
        let pages: u32 = self.pages.query_row([], |row| row.get(0))?;
        let kept = pages.saturating_sub(free);
        // While many are being removed, less is left to be copied the later that is done.
        let is_draining = self.removals >= REMOVALS_MANY;
        let kept_max = if is_draining { SHRINK_KEPT_PAGES_FEW } else { SHRINK_KEPT_PAGES_MAX };
        Ok((kept <= free && kept <= kept_max).then_some(kept))
    }

    fn vacuum(&mut self) -> Result<()> {
        self.let_go();
        self.set_syncing(true)?;
        self.vacuum.raw_execute()?;
        self.unsynced = false;
        // It has counted on.
        origin::set_cookie(&self.file.connection, self.file.place.origin.get().cookie())
    }

    /// How large everything is now. Sets room aside where the disk has it.
    ///
    /// # Errors
    /// What the system said.
    pub fn sizes(&mut self) -> Result<Sizes, StoreError> {
        let sizes = self.file.sizes()?;
        self.file_bytes = sizes.file_bytes;
        self.room.disk_free_bytes = sizes.disk_free_bytes;
        self.set_aside()?;
        Ok(sizes)
    }

    /// For how much there is room.
    pub fn room(&self) -> OwnRoom {
        OwnRoom { bytes: self.room.owned_bytes(), is_all: self.room.is_all_there_is() }
    }

    pub(super) fn error(&self, error: rusqlite::Error) -> StoreError {
        store_error(&self.file.place.paths, error)
    }
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
/// After a commit that may have needed so many pages they are counted. Small messages need a quarter
/// of what is guessed, and counting takes nothing beside such a commit.
const COUNTED_PAGES_MIN: u64 = 256;
/// What a commit of one row adds to the log at most, but for its body: the pages from the root to
/// the row in two tables, and what is merged or split.
const FRAMES_PER_COMMIT: u64 = 4;
const FRAMES_PER_ROW: u64 = 4;
/// Less than 16 MB is not worth giving back.
const SHRINK_PAGES_MIN: u32 = 16 * 1024 * 1024 / PAGE_BYTES;
/// More than 32 MB takes so long to copy that confirmations would be late.
const SHRINK_KEPT_PAGES_MAX: u32 = 32 * 1024 * 1024 / PAGE_BYTES;
/// The same after a commit that removed many messages, which others will follow.
const SHRINK_KEPT_PAGES_FEW: u32 = 2 * 1024 * 1024 / PAGE_BYTES;
/// So many are many.
const REMOVALS_MANY: u64 = 1_000;
/// Beyond what the database can tell apart.
const TICK_END: u64 = i64::MAX as u64;
const TICK: &str = "SELECT value FROM meta WHERE name = ?";

#[cfg(test)]
mod tests {
    use super::super::testing::{batch, commit_to, folder, put, queue, removed, reopen};
    use super::*;
    use std::path::Path;

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
    fn while_many_messages_are_removed_the_file_shrinks_only_when_little_is_left() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let mut changes = vec![queue(1, "q")];
        changes.extend((1..=40).map(|id| put(id, 1, &vec![b'x'; 1024 * 1024])));
        changes.extend((41..41 + REMOVALS_MANY).map(|id| put(id, 1, b"y")));
        commit_to(&mut file, changes);
        file.checkpoint_if_due().unwrap();
        file.sizes().unwrap();
        commit_to(&mut file, (11..41 + REMOVALS_MANY).map(removed).collect());
        assert!(!file.shrink_if_worth_it().unwrap(), "ten megabytes would be copied");
        file.commit(&batch(vec![]), true).unwrap();
        assert!(file.shrink_if_worth_it().unwrap());
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
