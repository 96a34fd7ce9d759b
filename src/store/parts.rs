//! A commit on a disk that has no room for all of it: in parts, and each part in slices.
//!
//! What removes messages goes first, since it makes room; then what moves them; what was put comes
//! last and waits if there is no room for it. A slice is small enough for the room that the log
//! owns, and the log is moved into the file between two slices.
//!
//! A crash between two slices leaves a part of the batch in the file. Nobody has been told of it
//! yet, and each message is in it as it was before or as it is to become; to carry a batch out once
//! more changes nothing that is done already.
//!
//! A batch with steps that belong together is not taken in parts: it waits as a whole
//! ([`Batch::is_tied`]).
//!
//! # Failure
//!
//! [`StoreError::NoRoom`] says which parts are in the file. A log that another program holds up
//! cannot begin anew: then even removals wait until it lets go.

use std::ops::Range;

use rusqlite::Result;

use super::StoreError;
use super::commit::File;
use super::room::{LOG_BYTES, pages_needed, pages_needed_with, pages_of_moves};
use super::schema::setting;
use super::spare_rows::{self, ROW_PAGES};
use super::tables::Tables;
use crate::journal::{Batch, Row};
use crate::words::ids::Part;

/// Rows of a slice at first: each changes a few pages at most.
const SLICE_ROWS: usize = 256;
/// Bytes of messages in a slice, one message more.
const SLICE_BYTES: u64 = LOG_BYTES / 8;

/// What a part may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// What there is.
    Room,
    /// What is set aside for this.
    Reserve,
}

impl File<'_> {
    /// Commits as much as there is room for.
    pub(super) fn commit_in_parts(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.let_go();
        self.commit_removals(batch)?;
        let moved = self.commit_moves(batch);
        if sync {
            self.sync_log()?;
        }
        moved.map_err(|error| error.beyond(Part::Removals))?;
        let put = self.commit_puts(batch).map_err(|error| error.beyond(Part::Moves));
        if let Err(StoreError::NoRoom { .. }) = put {
            self.room.refused_bytes = batch.put_bytes().max(1);
        }
        put?;
        if sync { self.sync_log() } else { Ok(()) }
    }

    fn commit_removals(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let places = batch.places_of(Part::Removals);
        self.in_slices(places, SLICE_ROWS, Means::Reserve, |tables, places| {
            tables.apply_rows(batch.part(places))
        })?;
        let is_noted = batch.ids_reserved().is_none() && batch.clock().is_none();
        if is_noted && batch.settings_len() == 0 {
            return Ok(());
        }
        self.in_room(Means::Reserve, &|tables| {
            tables.free_keys(batch)?;
            tables.note(batch)
        })
    }

    fn commit_moves(&mut self, batch: &Batch) -> Result<(), StoreError> {
        // What is set aside for moves comes first: new messages may have been accepted for the rest.
        let pages = pages_needed(batch);
        let mut rows = pages_of_moves(batch, batch.moves()).div_ceil(ROW_PAGES);
        while rows > 0 && !self.has_room(pages)? && self.release_reserve(pages)? {
            rows -= 1;
        }
        // No message may be in a queue without a name at any moment.
        let named = batch.queues_moved_to();
        if !named.is_empty() {
            self.in_room(Means::Reserve, &|tables| {
                named.iter().try_for_each(|(id, name)| tables.queue_named(*id, name.as_str()))
            })?;
        }
        let places = batch.places_of(Part::Moves);
        self.in_slices(places, SLICE_ROWS, Means::Reserve, |tables, places| {
            tables.apply_rows(batch.part(places).filter(|row| !is_of_a_put(batch, row)))
        })?;
        if batch.queues_gone().is_empty() && batch.settings_len() == 0 {
            return Ok(());
        }
        self.in_room(Means::Reserve, &|tables| {
            tables.set_queues(batch)?;
            tables.forget_queues(batch)
        })
    }

    fn commit_puts(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let is_last = batch.clean_stop().is_some();
        // Nothing but the next start comes after the last commit.
        let moves = batch.part(batch.places_of(Part::Moves));
        let pages =
            pages_needed_with(batch, moves.filter(|row| is_of_a_put(batch, row)).count() as u64);
        while is_last && !self.has_room(pages)? && self.release_reserve(pages)? {}
        if batch.puts() > 0 && !self.has_room(pages)? {
            return Err(self.no_room());
        }
        self.in_room(Means::Room, &|tables| tables.name_queues(batch))?;
        let places = batch.places_of(Part::Puts);
        let bytes_each = batch.put_bytes() / batch.puts().max(1);
        let rows = usize::try_from(SLICE_BYTES / bytes_each.max(1)).unwrap_or(SLICE_ROWS);
        let rows = rows.clamp(1, SLICE_ROWS);
        self.in_slices(places, rows, Means::Room, |tables, places| {
            tables.apply_rows(batch.part(places))
        })?;
        let places = batch.places_of(Part::Moves);
        self.in_slices(places, SLICE_ROWS, Means::Room, |tables, places| {
            tables.apply_rows(batch.part(places).filter(|row| is_of_a_put(batch, row)))
        })?;
        self.in_room(Means::Room, &|tables| tables.take_keys(batch))?;
        match batch.clean_stop() {
            Some(next_id) => {
                self.in_room(Means::Room, &|tables| tables.set_number(setting::CLEAN_STOP, next_id))
            }
            None => Ok(()),
        }
    }

    /// Carries out what some places say, so many rows at once, and fewer when that is too much.
    fn in_slices(
        &mut self,
        places: Range<usize>,
        mut rows: usize,
        means: Means,
        write: impl Fn(&mut Tables<'_>, Range<usize>) -> Result<()>,
    ) -> Result<(), StoreError> {
        let mut from = places.start;
        while from < places.end {
            let slice = from..places.end.min(from + rows);
            match self.in_room(means, &|tables| write(tables, slice.clone())) {
                Ok(()) => from = slice.end,
                Err(StoreError::Full { .. }) if slice.len() > 1 => rows = slice.len().div_ceil(8),
                // The disk has what the ballast took now, and each try comes to it.
                Err(StoreError::Full { .. })
                    if means == Means::Reserve && self.throw_ballast_off() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One transaction, without fsync. When there is no room for it, it is made.
    fn in_room(
        &mut self,
        means: Means,
        write: &impl Fn(&mut Tables<'_>) -> Result<()>,
    ) -> Result<(), StoreError> {
        let mut result = self.transaction(false, write);
        if is_full(&result) && self.empty_log()? {
            result = self.transaction(false, write);
        }
        while is_full(&result) && means == Means::Reserve && self.release_reserve(ROW_PAGES)? {
            result = self.transaction(false, write);
        }
        self.unsynced |= result.is_ok();
        result
    }

    /// Has the disk take all that was committed before.
    fn sync_log(&mut self) -> Result<(), StoreError> {
        if !self.unsynced {
            return Ok(());
        }
        // A transaction that changes no page does not fsync.
        let tick = self.next_tick();
        let write = |tables: &mut Tables<'_>| tables.set_number(setting::TICK, tick);
        let mut result = self.transaction(true, write);
        if is_full(&result) && self.empty_log()? {
            result = self.transaction(true, write);
        }
        self.unsynced &= result.is_err();
        result
    }

    /// Whether there is room with what is set aside: for a commit that is all or nothing, and whose
    /// removals make room.
    pub(super) fn has_room_with_reserve(&mut self, pages: u64) -> Result<bool, StoreError> {
        self.let_go();
        while self.release_reserve(pages)? {}
        self.has_room(pages)
    }

    /// Makes one row of the reserve free pages, unless so many others are free. Says whether it did.
    fn release_reserve(&mut self, pages: u64) -> Result<bool, StoreError> {
        self.measure_room()?;
        if self.reserve.rows == 0 || self.room.has(pages) {
            return Ok(false);
        }
        let connection = &self.file.connection;
        let mut result = self.transaction(false, |_| spare_rows::release(connection));
        if is_full(&result) && self.empty_log()? {
            result = self.transaction(false, |_| spare_rows::release(connection));
        }
        result?;
        self.reserve.rows -= 1;
        self.measure_room()?;
        Ok(true)
    }
}

/// Whether this is the move of a message that the same batch puts.
fn is_of_a_put(batch: &Batch, row: &Row<'_>) -> bool {
    matches!(row, Row::Moved(row) if batch.message(row.id).is_some())
}

/// Whether only room was missing.
pub(super) fn is_full(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Full { .. }))
}

#[cfg(test)]
mod tests {
    use super::super::room::Room;
    use super::super::testing::{
        batch, commit_to, folder, found, put, queue, removed, reopen, state,
    };
    use super::super::{StoreFile, Stored, scan};
    use super::*;
    use crate::words::change::{Change, KeyRow, KeyUntil, SettingRow, StateRow};
    use crate::words::ids::QueueId;
    use std::path::Path;

    /// The messages that a restart finds, and whether each was moved.
    fn ids(path: &Path) -> Vec<(u64, bool)> {
        let (_, messages) = found(&reopen(path).memory);
        messages.iter().map(|(message, ..)| (message.id.0, message.moved.is_some())).collect()
    }

    /// A file with some messages that can not grow any more.
    fn full(store_file: &StoreFile, messages: u64) -> File<'_> {
        let mut file = File::new(store_file).unwrap();
        let puts = (1..=messages).map(|id| put(id, 1, &[b'x'; 1_000]));
        commit_to(&mut file, std::iter::once(queue(1, "q")).chain(puts).collect());
        assert!(file.empty_log().unwrap());
        file.measure_room().unwrap();
        let pages_max = u32::try_from(file.room.used).unwrap();
        file.room = Room { pages_max, used: file.room.used, short: true, ..Room::default() };
        let sql = format!("PRAGMA max_page_count = {pages_max}");
        store_file.connection.query_row(&sql, [], |_| Ok(())).unwrap();
        file
    }

    #[test]
    fn what_is_put_waits_for_room_and_the_rest_is_taken() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = full(&store_file, 40);
        let mut changes: Vec<Change> = (1..=30).map(removed).collect();
        changes.push(Change::Moved(state(40)));
        changes.push(put(50, 1, &[b'y'; 500_000]));
        changes.push(Change::Moved(state(50)));
        let much = batch(changes);
        let error = file.commit(&much, true).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { kept: Part::Moves, .. }), "{error:?}");
        let room = file.room();
        assert!(room.is_all && room.bytes == 0, "nothing is accepted before that has room");
        file.room = Room { pages_max: 10_000, ..Room::default() };
        store_file.connection.query_row("PRAGMA max_page_count = 10000", [], |_| Ok(())).unwrap();
        file.commit(&much, true).unwrap();
        drop(file);
        store_file.abandon();
        let kept: Vec<(u64, bool)> = (31..=39).map(|id| (id, false)).collect();
        assert_eq!(ids(&path), [kept, vec![(40, true), (50, true)]].concat());
    }

    /// What an operator sets and what moves to another queue have room; both name that queue.
    #[test]
    fn settings_and_moves_to_a_new_queue_are_taken_with_its_name() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = full(&store_file, 40);
        let key = |taken: Option<KeyUntil>| {
            let (queue, key) = (QueueId(1), b"k"[..].into());
            match taken {
                Some(until) => Change::KeySet(KeyRow { queue, key, message: None, until }),
                None => Change::KeyGone { queue, key },
            }
        };
        let set = SettingRow { queue: QueueId(3), paused: true, ..SettingRow::default() };
        let dead = StateRow { queue: Some(QueueId(2)), ..state(40) };
        let mut changes: Vec<Change> = (1..=30).map(removed).collect();
        changes.extend([
            queue(2, "dead"),
            queue(3, "paused"),
            queue(4, "later"),
            Change::Moved(dead.clone()),
            Change::QueueSet(set),
            key(None),
            put(50, 4, &[b'y'; 500_000]),
        ]);
        let error = file.commit(&batch(changes), true).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { kept: Part::Moves, .. }), "{error:?}");
        drop(file);
        store_file.abandon();
        let opened = reopen(&path);
        let (queues, messages) = found(&opened.memory);
        let names: Vec<&str> = queues.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["q", "dead", "paused"]);
        assert_eq!(messages.last().unwrap().0.moved, Some(dead));
        let mut settings = Vec::new();
        scan(&opened.memory, |row| {
            if let Stored::Setting(row) = row {
                settings.push(row);
            }
        })
        .unwrap();
        assert_eq!(settings, [set]);
    }

    /// The queue that a message leaves is gone with the same commit: not before it has left it.
    #[test]
    fn a_queue_is_gone_after_the_moves_out_of_it() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let dead = StateRow { queue: Some(QueueId(2)), ..state(40) };
        commit_to(&mut file, vec![queue(1, "q"), queue(2, "dead"), put(40, 1, b"x")]);
        commit_to(&mut file, vec![Change::Moved(dead)]);
        drop(file);
        let mut file = full(&store_file, 0);
        let home = StateRow { queue: None, ..state(40) };
        let changes = vec![
            Change::Moved(home.clone()),
            Change::QueueGone(QueueId(2)),
            put(50, 1, &[b'y'; 500_000]),
        ];
        let much = batch(changes);
        file.commit_removals(&much).unwrap();
        drop(file);
        store_file.abandon();
        // As after a crash between the parts.
        let opened = reopen(&path);
        assert_eq!(found(&opened.memory).0.len(), 2);
        let store_file = opened.file.unwrap();
        let mut file = full(&store_file, 0);
        let error = file.commit(&much, true).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { kept: Part::Moves, .. }), "{error:?}");
        drop(file);
        store_file.abandon();
        let (queues, messages) = found(&reopen(&path).memory);
        assert_eq!((queues.len(), messages[0].0.moved.as_ref()), (1, Some(&home)));
    }

    #[test]
    fn what_is_kept_of_a_commit_is_there_after_a_crash_and_nothing_else() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = full(&store_file, 3);
        let changes = vec![removed(1), Change::Moved(state(2)), put(50, 1, &[b'y'; 500_000])];
        let error = file.commit(&batch(changes), false).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { kept: Part::Moves, .. }), "{error:?}");
        drop(file);
        store_file.abandon();
        assert_eq!(ids(&path), [(2, true), (3, false)]);
    }

    /// Puts so many messages that rows are set aside for moving them.
    fn fill_until_room_is_set_aside(store_file: &StoreFile) {
        let mut file = File::new(store_file).unwrap();
        let puts = (1..=2_000).map(|id| put(id, 1, &[b'x'; 100]));
        commit_to(&mut file, std::iter::once(queue(1, "q")).chain(puts).collect());
        file.sizes().unwrap();
        assert!(file.reserve.rows > 0);
    }

    #[test]
    fn a_tied_commit_waits_as_a_whole_and_may_use_what_is_set_aside() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        fill_until_room_is_set_aside(&store_file);
        let mut file = full(&store_file, 0);
        let tied = |bytes: usize| {
            let mut journal = crate::journal::Journal::new();
            journal.tie();
            [removed(1), Change::Moved(state(2)), put(9_000, 1, &vec![b'y'; bytes])]
                .into_iter()
                .for_each(|change| journal.record(change));
            journal.take()
        };
        let error = file.commit(&tied(10_000_000), true).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "nothing of it is kept: {error:?}");
        file.commit(&tied(20_000), true).unwrap();
        drop(file);
        store_file.abandon();
        let kept = ids(&path);
        assert_eq!(kept.first(), Some(&(2, true)));
        assert_eq!(kept.last(), Some(&(9_000, false)));
    }

    /// Messages were accepted for the room that there was; moves of the same commit took it, while
    /// what is set aside for them was left over.
    #[test]
    fn moves_leave_the_room_of_new_messages_to_them() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        fill_until_room_is_set_aside(&store_file);
        let mut file = full(&store_file, 1_000);
        file.commit(&batch((1..=1_000).map(removed)), true).unwrap();
        file.measure_room().unwrap();
        let room = file.room();
        assert!(room.bytes > 500_000, "{room:?}");
        // Some pages are needed beside.
        let body = vec![b'y'; usize::try_from(room.bytes).unwrap() - 50_000];
        let moves = (1_001..=6_000).map(|id| Change::Moved(state(id)));
        let changes = moves.chain([put(9_000, 1, &body)]);
        file.commit(&batch(changes), true).unwrap();
    }

    #[test]
    fn moves_use_what_is_set_aside_and_puts_do_not() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let puts = (1..=2_000).map(|id| put(id, 1, &[b'x'; 100]));
        commit_to(&mut file, std::iter::once(queue(1, "q")).chain(puts).collect());
        file.sizes().unwrap();
        let rows = file.reserve.rows;
        assert!(rows > 0);
        drop(file);
        let mut file = full(&store_file, 0);
        let error = file.commit(&batch(vec![put(9_000, 1, &[b'y'; 50_000])]), true).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { .. }), "{error:?}");
        assert_eq!(file.reserve.rows, rows);
        let moves = (1..=2_000).map(|id| Change::Moved(state(id)));
        file.commit(&batch(moves), true).unwrap();
        assert!(file.reserve.rows < rows);
        drop(file);
        store_file.abandon();
        assert!(ids(&path).iter().all(|(_, moved)| *moved));
    }

    #[test]
    fn a_stop_leaves_ballast_for_the_next_log_where_there_is_none() {
        let (_directory, path) = folder();
        for _ in 0..2 {
            let store_file = reopen(&path).file.unwrap();
            let mut file = File::new(&store_file).unwrap();
            commit_to(&mut file, vec![queue(1, "q"), put(1, 1, &[b'x'; 2_000_000])]);
            drop(file);
            let paths = store_file.place.paths.clone();
            let ballast = paths.ballast();
            let _ = std::fs::remove_file(&ballast);
            store_file.close().unwrap();
            assert!(ballast.exists() && !paths.wal().exists() && !paths.shm().exists());
            // As a start does that has no room for another log.
            assert!(super::super::ballast::Ballast::make_log(&paths).unwrap());
            assert_eq!(ids(&path), [(1, false)]);
        }
    }
}
