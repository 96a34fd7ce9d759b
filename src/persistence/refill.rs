//! Takes all rows from the dispatcher, slice by slice, for a new file in a suspect one's place.
//!
//! # Failure
//!
//! An error ends the attempt, and the answer to its slice says so; the dispatcher begins anew when
//! it thinks fit. Meanwhile the old file is as suspect as it was.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slog::{info, warn};

use super::Link;
use crate::channels::Order;
use crate::journal::Batch;
use crate::store::{Remedy, Slice, Store, StoreError, Successor};

/// Carries a rewrite out that begins with this slice. Returns what there is afterwards, and the
/// order that has ended the attempt before its time.
pub(super) fn replace<S: Store>(
    store: S,
    slice: Box<Slice>,
    batch: Arc<Batch>,
    link: &Link,
) -> (S, Option<Order>) {
    let renewal = match store.begin_renewal(&slice) {
        Ok(renewal) => renewal,
        Err(error) => {
            // A file that is sound stays so when there only is no room for another one.
            if error.remedy() == Remedy::Rewrite {
                link.progress.suspect.store(true, Ordering::Relaxed);
            }
            let (store, is_revived) = match error.remedy() {
                Remedy::RefusePuts => revive(store, link),
                Remedy::Retry | Remedy::Rewrite => (store, false),
            };
            if is_revived {
                link.answer(batch, Err(StoreError::Revived));
                return (store, None);
            }
            return (give_up(store, batch, error, link), None);
        }
    };
    // Also when it was sound before: from here on the dispatcher's changes go elsewhere.
    link.progress.suspect.store(true, Ordering::Relaxed);
    match receive(&store, renewal, slice, batch, link) {
        Received::All(renewal, batch) => (finish(store, renewal, batch, link), None),
        Received::Failed(batch, error) => (give_up(store, batch, error, link), None),
        Received::Interrupted(order) => (store, order),
    }
}

/// What is known of attempts to trust the file again since it became suspect.
#[derive(Debug, Default)]
pub(super) struct Revivals {
    /// How often there was an occasion for one.
    occasions: Cell<u32>,
    /// Whether a slice was taken for a new file that has not come to be.
    slice_was_taken: Cell<bool>,
}

impl Revivals {
    fn over(&self) {
        self.occasions.set(0);
        self.slice_was_taken.set(false);
    }
}

/// Has a suspect file trusted again, for want of room for another one. What is not even in its place
/// any more is not, nor is one that lacks what came with the slices of an attempt that has failed: the
/// dispatcher takes that for done. The attempts become rare, since each writes the whole file; but a
/// disk that fails may be mended. Says whether it can be trusted again.
fn revive<S: Store>(store: S, link: &Link) -> (S, bool) {
    let Link { progress, revivals, .. } = link;
    if !progress.is_suspect() || progress.is_file_lost() || revivals.slice_was_taken.get() {
        return (store, false);
    }
    let occasions = revivals.occasions.get() + 1;
    revivals.occasions.set(occasions);
    if !occasions.is_power_of_two() {
        return (store, false);
    }
    let (store, revived) = store.revive(&mut || progress.work());
    match &revived {
        Ok(()) => {
            progress.suspect.store(false, Ordering::Relaxed);
            revivals.over();
            link.failed_before.set(false);
            warn!(link.log, "database was rewritten in place: the disk has no room for a new file");
        }
        Err(error) if occasions == 1 => {
            warn!(link.log, "database could not be rewritten in place either"; "error" => %error);
        }
        Err(_) => {}
    }
    (store, revived.is_ok())
}

/// How the slices came to their end.
enum Received<R> {
    /// All are in the new file; the last order waits for its answer.
    All(R, Arc<Batch>),
    /// This order waits for its answer.
    Failed(Arc<Batch>, StoreError),
    /// Another order came, or nobody can send any more.
    Interrupted(Option<Order>),
}

fn receive<S: Store>(
    store: &S,
    mut renewal: S::Renewal,
    mut slice: Box<Slice>,
    mut batch: Arc<Batch>,
    link: &Link,
) -> Received<S::Renewal> {
    loop {
        if let Err(error) = store.renew(&mut renewal, &batch, &slice) {
            S::discard(renewal);
            return Received::Failed(batch, error);
        }
        if slice.last {
            return Received::All(renewal, batch);
        }
        link.revivals.slice_was_taken.set(true);
        link.answer(batch, Ok(()));
        match link.next() {
            Some(Order::Rewrite { slice: next, batch: changes }) if !next.first => {
                slice = next;
                batch = changes;
            }
            other => {
                S::discard(renewal);
                return Received::Interrupted(other);
            }
        }
    }
}

fn finish<S: Store>(store: S, renewal: S::Renewal, batch: Arc<Batch>, link: &Link) -> S {
    match store.finish_renewal(renewal) {
        (store, Ok(Successor { rows, kept })) => {
            link.progress.rows_rewritten.fetch_add(rows, Ordering::Relaxed);
            link.progress.commits.fetch_add(1, Ordering::Relaxed);
            link.progress.suspect.store(false, Ordering::Relaxed);
            link.progress.file_lost.store(false, Ordering::Relaxed);
            link.failed_before.set(false);
            link.revivals.over();
            info!(link.log, "database was rewritten"; "rows" => rows);
            if let Some(kept) = kept {
                warn!(link.log, "another file was found under the name of the database and has been kept";
                    "file" => %kept.display());
            }
            link.answer(batch, Ok(()));
            store
        }
        (store, Err(error)) => give_up(store, batch, error, link),
    }
}

fn give_up<S: Store>(store: S, batch: Arc<Batch>, error: StoreError, link: &Link) -> S {
    // Attempts go on until one succeeds: one word about it is enough.
    if !link.failed_before.replace(true) {
        warn!(link.log, "database could not be rewritten"; "error" => %error);
    }
    link.answer(batch, Err(error));
    store
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Dispatcher, messages, named, open, put};
    use super::*;
    use crate::journal::Journal;
    use crate::store::testing::{apply, found};
    use crate::store::{self, Held, Memory, Slices};
    use crate::words::change::Counters;
    use crate::words::change::{Change, MessageState, StateRow};
    use crate::words::ids::{MessageId, Sequence};
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    /// A dispatcher with a database in memory whose file has become suspect.
    struct Story {
        _directory: tempfile::TempDir,
        path: PathBuf,
        dispatcher: Dispatcher,
        journal: Journal,
    }

    impl Story {
        /// Starts with nothing.
        fn healthy() -> Story {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("q.db");
            let dispatcher = Dispatcher::start(open(&path).file.unwrap());
            Story { _directory: directory, path, dispatcher, journal: Journal::new() }
        }

        /// Starts with so many messages in memory and in the file, whose log is then removed.
        fn start(memory: &mut Memory<'_>, count: u64) -> Story {
            Story::start_with(memory, 1..=count)
        }

        fn start_with(memory: &mut Memory<'_>, ids: impl Iterator<Item = u64>) -> Story {
            let mut story = Story::healthy();
            story.change(memory, named());
            ids.for_each(|id| story.change(memory, put(id)));
            std::fs::remove_file(story.path.with_file_name("q.db-wal")).unwrap();
            while story.commit() {}
            story
        }

        /// Has a commit fail as an I/O error would, and another change wait behind it.
        fn become_suspect(&mut self, memory: &mut Memory<'_>) {
            self.dispatcher.progress.suspect.store(true, Ordering::Relaxed);
            self.change(memory, put(9_000));
            assert!(!self.commit());
        }

        /// Begins a rewrite for which the disk has no room.
        fn rewrite_without_room(&mut self, memory: &mut Memory<'_>) -> bool {
            let slice = Slices::begin(memory).unwrap().next_slice(memory).unwrap();
            let slice = Box::new(Slice { pages: 1 << 40, ..slice });
            let order = Order::Rewrite { slice, batch: self.journal.take_for_rewrite() };
            let finished = self.dispatcher.order(order);
            let is_full = matches!(finished, Err(StoreError::Full { .. }));
            assert!(is_full || matches!(finished, Err(StoreError::Revived)), "{finished:?}");
            self.took(finished)
        }

        fn change(&mut self, memory: &mut Memory<'_>, change: Change) {
            apply(memory, [change.clone()]);
            self.journal.record(change);
        }

        fn took(&mut self, finished: crate::channels::Finished) -> bool {
            match &finished {
                Ok(()) => {
                    self.journal.succeeded();
                }
                Err(_) => self.journal.failed(),
            }
            finished.is_ok()
        }

        fn commit(&mut self) -> bool {
            let finished = self.dispatcher.commit(self.journal.take(), true);
            self.took(finished)
        }

        /// Sends the next slice; says whether it was taken and whether it was the last.
        fn send(&mut self, memory: &mut Memory<'_>, slices: &mut Slices) -> (bool, bool) {
            let slice = slices.next_slice(memory).unwrap();
            let last = slice.last;
            let order =
                Order::Rewrite { slice: slice.into(), batch: self.journal.take_for_rewrite() };
            let finished = self.dispatcher.order(order);
            (self.took(finished), last)
        }

        fn rewrite(&mut self, memory: &mut Memory<'_>) -> bool {
            let mut slices = Slices::begin(memory).unwrap();
            loop {
                match self.send(memory, &mut slices) {
                    (true, false) => {}
                    (taken, _) => return taken,
                }
            }
        }

        /// Stops in order and compares what a restart finds with what is in memory.
        fn assert_restart_finds(self, expected: &store::Connection) {
            let Story { _directory, path, dispatcher, mut journal } = self;
            dispatcher.close(journal.take()).unwrap();
            assert!(found(&open(&path).memory) == found(expected), "memory and file differ");
        }
    }

    fn moved(id: u64, priority: u32) -> Change {
        Change::Moved(StateRow {
            id: MessageId(id),
            state: MessageState::Buried,
            priority,
            sequence: Sequence(id),
            due: Some(1),
            expires_ms: None,
            delay_ms: 0,
            counters: Counters::default(),
            queue: None,
            failure: None,
        })
    }

    fn in_memory() -> store::Connection {
        store::open(None, &mut |_| ()).unwrap().memory
    }

    #[test]
    fn what_changes_while_a_file_is_written_anew_is_in_it_too() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start(&mut memory, 3_500);
        story.change(&mut memory, moved(10, 1));
        story.change(&mut memory, moved(3_400, 1));
        let mut slices = Slices::begin(&mut memory).unwrap();
        let mut taken_slices = 0;
        loop {
            let next = 4_000 + taken_slices * 10;
            for change in [
                // Of each pair one message is in a slice already and one is still to come.
                Change::Removed(MessageId(100 + taken_slices)),
                Change::Removed(MessageId(3_300 + taken_slices)),
                moved(200 + taken_slices, 2),
                moved(3_200 + taken_slices, 2),
                moved(10, 3),
                moved(3_400, 4),
                put(next),
                put(next + 1),
                Change::Removed(MessageId(next)),
                Change::QueueNamed {
                    id: crate::words::ids::QueueId(next),
                    name: crate::words::ids::QueueName::new(format!("q{next}").as_bytes()).unwrap(),
                },
            ] {
                story.change(&mut memory, change);
            }
            let (taken, last) = story.send(&mut memory, &mut slices);
            assert!(taken);
            taken_slices += 1;
            if last {
                break;
            }
        }
        assert!(taken_slices > 2, "too few slices to tell anything");
        assert!(!story.dispatcher.progress.is_suspect());
        assert!(story.dispatcher.progress.rows_rewritten() >= 3_400);
        story.journal.known_good();
        story.change(&mut memory, put(9_000));
        story.change(&mut memory, Change::Removed(MessageId(1)));
        assert!(story.commit(), "the new file takes commits");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    /// Their ids are between those of the others, before and behind where the slices have come to.
    #[test]
    fn what_becomes_durable_while_a_file_is_written_anew_is_in_it_once() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start_with(&mut memory, (10..=35_000).step_by(10));
        let mut slices = Slices::begin(&mut memory).unwrap();
        let mut taken_slices = 0;
        loop {
            let (behind, ahead) = (105 + 10 * taken_slices, 34_005 + 10 * taken_slices);
            for id in [behind, ahead, behind + 1, ahead + 1, behind + 2, ahead + 2] {
                story.change(&mut memory, put(id));
            }
            story.change(&mut memory, put(40_000 + taken_slices));
            story.change(&mut memory, moved(behind, 1));
            story.change(&mut memory, moved(ahead, 2));
            let removed = [behind + 1, ahead + 1, behind + 2 - 10, ahead + 2 - 10];
            // Those of this batch, and then those of the last one.
            for id in removed.into_iter().take(if taken_slices > 0 { 4 } else { 2 }) {
                story.change(&mut memory, Change::Removed(MessageId(id)));
            }
            let (taken, last) = story.send(&mut memory, &mut slices);
            assert!(taken);
            taken_slices += 1;
            if last {
                break;
            }
        }
        assert!(taken_slices > 2, "too few slices to tell anything");
        story.journal.known_good();
        story.change(&mut memory, put(7));
        assert!(story.commit(), "the new file takes commits");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    /// A file that cannot grow was given up for a new one before there was room for that: on a disk
    /// that was filled meanwhile nothing could be removed any more, nor the daemon started again.
    #[test]
    fn regression_10_a_sound_file_is_not_given_up_for_one_that_has_no_room() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        story.change(&mut memory, named());
        story.change(&mut memory, put(1));
        assert!(story.commit());
        story.change(&mut memory, put(2));
        assert!(!story.rewrite_without_room(&mut memory));
        assert!(!story.dispatcher.progress.is_suspect());
        let beside = |suffix| story.path.with_file_name(format!("q.db{suffix}")).exists();
        assert!(!beside(".suspect") && !beside(".new"));
        story.change(&mut memory, Change::Removed(MessageId(1)));
        assert!(story.commit(), "the old file takes commits");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    /// Nothing could be written or removed any more before the disk had room for a second file.
    #[test]
    fn regression_10_a_suspect_file_is_trusted_again_in_place_where_the_disk_is_full() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        story.change(&mut memory, named());
        (1..=500).for_each(|id| story.change(&mut memory, put(id)));
        assert!(story.commit());
        story.become_suspect(&mut memory);
        assert!(!story.rewrite_without_room(&mut memory));
        assert!(!story.dispatcher.progress.is_suspect());
        assert!(!story.path.with_file_name("q.db.suspect").exists());
        story.change(&mut memory, Change::Removed(MessageId(1)));
        assert!(story.commit(), "the old file takes commits");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn a_suspect_file_that_lacks_a_commit_is_not_trusted_again() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        story.change(&mut memory, named());
        story.change(&mut memory, put(1));
        assert!(story.commit());
        story.change(&mut memory, put(2));
        assert!(story.commit());
        // As if the disk did not have the last page, which the system had forgotten.
        let log = story.path.with_file_name("q.db-wal");
        let log = std::fs::OpenOptions::new().write(true).open(log).unwrap();
        let bytes = log.metadata().unwrap().len();
        log.write_all_at(&[0xa5; 100], bytes - 100).unwrap();
        story.become_suspect(&mut memory);
        for _ in 0..3 {
            assert!(!story.rewrite_without_room(&mut memory));
            assert!(story.dispatcher.progress.is_suspect());
            assert!(story.path.with_file_name("q.db.suspect").exists());
        }
        assert!(story.rewrite(&mut memory), "there is room");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    /// The dispatcher has forgotten the changes that came with that slice.
    #[test]
    fn a_suspect_file_is_not_trusted_again_after_a_slice_was_taken() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        story.change(&mut memory, named());
        (1..=1_500).for_each(|id| story.change(&mut memory, put(id)));
        assert!(story.commit());
        story.become_suspect(&mut memory);
        let mut slices = Slices::begin(&mut memory).unwrap();
        assert_eq!(story.send(&mut memory, &mut slices), (true, false));
        assert!(!story.rewrite_without_room(&mut memory));
        assert!(!story.rewrite_without_room(&mut memory));
        assert!(story.dispatcher.progress.is_suspect());
        assert!(story.rewrite(&mut memory));
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    /// What is whole in its place is connected to once that is possible.
    #[test]
    fn a_place_without_a_connection_is_connected_to_by_the_next_order() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let place = open(&path).file.unwrap().abandon();
        let foreign = store::Connection::open(&path).unwrap();
        foreign
            .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; SELECT * FROM meta")
            .unwrap();
        let dispatcher = Dispatcher::hold(Held::Closed(place));
        let mut story = Story { _directory: directory, path, dispatcher, journal: Journal::new() };
        story.change(&mut memory, named());
        story.change(&mut memory, put(1));
        assert!(!story.commit());
        assert!(!story.dispatcher.progress.is_suspect());
        drop(foreign);
        assert!(story.commit());
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn an_interrupted_attempt_begins_anew() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start(&mut memory, 2_500);
        let mut slices = Slices::begin(&mut memory).unwrap();
        assert_eq!(story.send(&mut memory, &mut slices), (true, false));
        story.change(&mut memory, put(5_000));
        assert!(!story.commit(), "a suspect file takes no commit");
        assert!(!story.path.with_file_name("q.db.new").exists());
        assert!(!story.send(&mut memory, &mut slices).0, "it can not go on");
        assert!(story.rewrite(&mut memory));
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn an_attempt_that_fails_can_be_made_again() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start(&mut memory, 10);
        let in_the_way = story.path.with_file_name("q.db.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(!story.rewrite(&mut memory));
        assert!(story.dispatcher.progress.is_suspect());
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(story.rewrite(&mut memory));
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn ids_reserved_in_a_failed_attempt_stay_reserved() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start(&mut memory, 1_500);
        story.journal.reserve_ids(77_000_000);
        let mut slices = Slices::begin(&mut memory).unwrap();
        assert_eq!(story.send(&mut memory, &mut slices), (true, false));
        assert!(story.rewrite(&mut memory));
        let Story { _directory, path, dispatcher, .. } = story;
        drop(dispatcher.orders);
        dispatcher.thread.join().unwrap().unwrap();
        assert_eq!(open(&path).facts.next_id, 77_000_000);
    }

    #[test]
    fn a_crash_in_the_middle_leaves_the_old_file() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        let mut story = Story { _directory: directory, path, dispatcher, journal: Journal::new() };
        story.change(&mut memory, named());
        (1..=1_500).for_each(|id| story.change(&mut memory, put(id)));
        assert!(story.commit());
        let mut slices = Slices::begin(&mut memory).unwrap();
        assert_eq!(story.send(&mut memory, &mut slices), (true, false));
        let Story { _directory, path, dispatcher, .. } = story;
        drop(dispatcher.orders);
        dispatcher.thread.join().unwrap().unwrap();
        assert_eq!(messages(&open(&path)).len(), 1_500);
    }

    #[test]
    fn a_program_that_still_has_the_old_file_open_does_the_new_one_no_harm() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        let foreign = store::Connection::open(&story.path).unwrap();
        story.change(&mut memory, named());
        story.change(&mut memory, put(1));
        assert!(story.commit());
        assert_eq!(store::testing::message_count(&foreign), 1);
        assert!(story.rewrite(&mut memory));
        story.change(&mut memory, put(2));
        assert!(story.commit());
        // The last one to close a file moves its log into it and removes that.
        drop(foreign);
        story.change(&mut memory, put(3));
        assert!(story.commit());
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn a_directory_that_somebody_emptied_is_filled_again() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::start(&mut memory, 10);
        for entry in std::fs::read_dir(story.path.parent().unwrap()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert!(story.rewrite(&mut memory));
        assert!(store::open(Some(&story.path), &mut |_| ()).is_err(), "it is locked again");
        drop(memory);
        story.assert_restart_finds(&expected);
    }

    #[test]
    fn the_database_of_another_daemon_in_the_same_place_is_left_alone() {
        let expected = in_memory();
        let mut memory = Memory::new(&expected).unwrap();
        let mut story = Story::healthy();
        story.change(&mut memory, named());
        story.change(&mut memory, put(1));
        assert!(story.commit());
        // What comes after the answer makes files too: the ballast, a lock that is gone.
        while !story.dispatcher.progress.turns().is_multiple_of(2) {
            std::thread::yield_now();
        }
        let directory = story.path.parent().unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        std::fs::create_dir(directory).unwrap();
        let other = open(&story.path);
        story.change(&mut memory, put(2));
        while story.commit() {}
        assert!(!story.rewrite(&mut memory));
        assert!(messages(&other).is_empty());
        other.file.unwrap().close().unwrap();
        assert!(messages(&open(&story.path)).is_empty());
    }
}
