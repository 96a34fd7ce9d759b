//! The thread that owns the database file, or what else stands behind its door ([`Store`]): it
//! commits what the dispatcher hands over, one batch at a time, and does afterwards what can wait,
//! such as moving the write-ahead log into the file.
//!
//! Owner: the `persistence` thread. It waits on its one channel of orders. It never blocks on the
//! dispatcher: [`Finished`] has as much room as there can be orders under way, and the wake is a
//! `try_send`.
//!
//! # Failure
//!
//! - A commit that fails is rolled back whole; the dispatcher, which has kept its batch, tries
//!   again. Nothing is ever given up quietly.
//! - A full disk, a quota, a file size limit, a lock held by another program: the file is sound,
//!   and the next commit may succeed. Where there is room for a part of it only, that is committed,
//!   and the answer says so ([`StoreError::NoRoom`]).
//! - Any other error makes the file suspect, for after a failed fsync a later one may succeed
//!   without having written anything. From then on every commit is refused with
//!   [`StoreError::Suspect`] and the log is not moved into the file any more, until the dispatcher
//!   has sent all rows for a new file ([`Order::Rewrite`]), or, where the disk has no room for one,
//!   the old one has been written once more in place.
//! - A checkpoint comes after the answer to its commit, so its error is the answer to the next
//!   order.

#[cfg(test)]
mod another;
mod closing;
mod progress;
mod refill;
mod signs;
#[cfg(test)]
mod testing;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use slog::{Logger, crit, info, warn};

use crate::channels::waiting::Waiting;
use crate::channels::{Event, Finished, Order};
use crate::journal::Batch;
use crate::store::{Committer, Remedy, Slice, Store, StoreError, Tidied};

pub use progress::Progress;
use refill::Revivals;
use signs::Signs;

/// Looks at the file before the thread runs: the first message that anybody puts may be one too many
/// for the disk.
///
/// # Errors
/// The statements could not be prepared.
pub fn look(store: &impl Store, progress: &Progress) -> Result<(), StoreError> {
    let Some(mut committer) = store.committer()? else { return Ok(()) };
    // What is wrong with it is found again by the thread, which can do something about it.
    if let Ok(sizes) = committer.facts() {
        progress.measured(&sizes);
    }
    progress.has_room(committer.room());
    Ok(())
}

/// The thread's body. It ends after [`Order::Close`] has been carried out, or when nobody can
/// send orders any more.
///
/// # Errors
/// The statements could not be prepared, or the log could not be moved into the file at the end
/// (nothing is lost then: the next start reads the log).
pub fn run<S: Store>(
    mut store: S,
    orders: Receiver<Order>,
    finished: SyncSender<Finished>,
    events: SyncSender<Event>,
    progress: Arc<Progress>,
    log: Logger,
) -> Result<(), StoreError> {
    let (failed_before, waiting) = (Cell::new(false), Cell::default());
    let signs = Signs::default();
    let revivals = Revivals::default();
    let link =
        Link { orders, finished, events, progress, log, failed_before, revivals, waiting, signs };
    link.progress.suspect.store(store.is_suspect(), Ordering::Relaxed);
    let mut next = None;
    loop {
        let end = match store.committer()? {
            Some(mut committer) => Persistence::new(&mut committer, &link).serve(next.take()),
            None => link.refuse_all(&store, next.take()),
        };
        match end {
            ServingEnd::Over => break,
            ServingEnd::Share => (store, next) = (share(store, &link), None),
            ServingEnd::Connect(order) => (store, next) = connect(store, order, &link),
            ServingEnd::Replace(slice, batch) => {
                (store, next) = refill::replace(store, slice, batch, &link);
            }
            ServingEnd::Moved(to) => closing::follow(&mut store, to, &link),
            ServingEnd::Close(batch, messages) => {
                match closing::close(store, batch, messages, &link) {
                    Some(left) => store = left,
                    None => return Ok(()),
                }
            }
        }
    }
    store.leave(link.progress.is_suspect())
}

/// Why serving ended.
enum ServingEnd {
    /// The file was closed in order, or nobody can send orders any more.
    Over,
    /// A new file is to be made, beginning with these.
    Replace(Box<Slice>, Arc<Batch>),
    /// The file is somewhere else now.
    Moved(PathBuf),
    /// The last batch, whose answer is still to be given, is in the file, which is to be closed
    /// with so many messages in it.
    Close(Arc<Batch>, Option<u64>),
    /// The disk has room for what other programs need to read the file.
    Share,
    /// The file is sound and not connected to, which this order needs.
    Connect(Order),
}

/// Lets other programs read a file that they were locked out of.
fn share<S: Store>(store: S, link: &Link) -> S {
    let (store, result) = store.connect();
    match result {
        Ok(()) => info!(link.log, "other programs can read the database file again"),
        // It is tried again with the next order.
        Err(error) if error.remedy() != Remedy::Rewrite => {}
        Err(error) => link.tell_suspect(&error),
    }
    store
}

/// Connects to a file that nobody could be connected to for want of room. Returns the order if it
/// can be carried out now.
fn connect<S: Store>(store: S, order: Order, link: &Link) -> (S, Option<Order>) {
    let (store, result) = store.connect();
    match result {
        Ok(()) => (store, Some(order)),
        Err(error) => {
            if error.remedy() == Remedy::Rewrite {
                link.tell_suspect(&error);
            }
            link.answer(order.into_batch(), Err(error));
            (store, None)
        }
    }
}

/// The thread's ends of its channels.
struct Link {
    orders: Receiver<Order>,
    finished: SyncSender<Finished>,
    events: SyncSender<Event>,
    progress: Arc<Progress>,
    log: Logger,
    /// Whether the last attempt to write the file anew has failed.
    failed_before: Cell<bool>,
    revivals: Revivals,
    waiting: Cell<Waiting>,
    signs: Signs,
}

impl Link {
    /// Waits for an order.
    fn next(&self) -> Option<Order> {
        self.progress.rest();
        let mut waiting = self.waiting.get();
        let order = waiting.wait(|| self.orders.try_recv().ok(), || self.orders.recv().ok());
        self.waiting.set(waiting);
        self.progress.work();
        order
    }

    /// Says what became of a batch, and has let go of it by then.
    fn answer(&self, batch: Arc<Batch>, result: Finished) {
        drop(batch);
        // The dispatcher may be gone already when the process stops in haste.
        let _ = self.finished.send(result);
        let _ = self.events.try_send(Event::Persisted);
    }

    /// Notes that a start would not find what was written, if that is what an error says.
    fn note_loss(&self, error: &StoreError) {
        if matches!(error, StoreError::Replaced { .. } | StoreError::Altered { .. }) {
            self.progress.file_lost.store(true, Ordering::Relaxed);
        }
    }

    /// The answer to an order that can not be carried out while there is no trusted file.
    fn refuse(&self, store: &impl Store, batch: Arc<Batch>) {
        self.answer(batch, Err(store.suspect()));
    }

    /// Serves without any file: it is connected to if that is sound, and else only a new one helps.
    fn refuse_all(&self, store: &impl Store, mut next: Option<Order>) -> ServingEnd {
        while let Some(order) = next.take().or_else(|| self.next()) {
            match order {
                Order::Rewrite { slice, batch } if slice.first => {
                    return ServingEnd::Replace(slice, batch);
                }
                order if !self.progress.is_suspect() => return ServingEnd::Connect(order),
                order => self.refuse(store, order.into_batch()),
            }
        }
        ServingEnd::Over
    }

    /// Says that only a new file helps, also to the dispatcher.
    fn tell_suspect(&self, error: &StoreError) {
        crit!(self.log, "database file is suspect"; "error" => %error);
        self.note_loss(error);
        self.progress.suspect.store(true, Ordering::Relaxed);
        let _ = self.events.try_send(Event::Persisted);
    }
}

struct Persistence<'a, C: Committer> {
    committer: &'a mut C,
    link: &'a Link,
    /// What went wrong after the last order was answered.
    late_error: Option<StoreError>,
    /// Whether it has been said that the file is not tidied up, which is tried with every tick.
    untidy: bool,
    /// Where the file is now, when it was found to be somewhere else.
    moved: Option<PathBuf>,
}

impl<'a, C: Committer> Persistence<'a, C> {
    fn new(committer: &'a mut C, link: &'a Link) -> Persistence<'a, C> {
        Persistence { committer, link, late_error: None, untidy: false, moved: None }
    }

    fn serve(&mut self, mut next: Option<Order>) -> ServingEnd {
        if !self.is_suspect() {
            self.measure();
        }
        loop {
            if let Some(to) = self.moved.take() {
                return ServingEnd::Moved(to);
            }
            let Some(order) = next.take().or_else(|| self.link.next()) else { break };
            match order {
                Order::Commit { batch, sync } => {
                    let synced = self.commit(batch, sync) && sync;
                    if synced && !self.is_suspect() && self.committer.could_be_shared() {
                        return ServingEnd::Share;
                    }
                }
                Order::Close { batch, messages } => match self.try_commit(&batch, true) {
                    Ok(()) => return ServingEnd::Close(batch, messages),
                    Err(error) => self.link.answer(batch, Err(error)),
                },
                Order::Rewrite { slice, batch } if slice.first => {
                    return ServingEnd::Replace(slice, batch);
                }
                Order::Rewrite { batch, .. } => {
                    let error = self.committer.distrust();
                    self.link.answer(batch, Err(error));
                }
            }
        }
        ServingEnd::Over
    }

    fn is_suspect(&self) -> bool {
        self.link.progress.is_suspect()
    }

    /// Commits, answers, and then does what can wait. Says whether it was committed.
    fn commit(&mut self, batch: Arc<Batch>, sync: bool) -> bool {
        let result = self.try_commit(&batch, sync);
        let committed = result.is_ok();
        self.link.answer(batch, result);
        if !self.is_suspect() {
            self.tidy();
            self.link.progress.has_room(self.committer.room());
        }
        // With every tick is often enough.
        if sync && !self.is_suspect() {
            self.measure();
            self.shrink();
        }
        committed
    }

    fn try_commit(&mut self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        if let Some(error) = self.late_error.take() {
            return Err(error);
        }
        if self.is_suspect() {
            return Err(self.committer.distrust());
        }
        let rows = batch.rows();
        let result = self.committer.commit(batch, sync);
        self.link.progress.has_room(self.committer.room());
        result.inspect_err(|error| {
            if error.remedy() == Remedy::Rewrite {
                self.link.note_loss(error);
                self.distrust();
            }
        })?;
        self.link.progress.commits.fetch_add(1, Ordering::Relaxed);
        self.link.progress.rows_written.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }

    fn distrust(&mut self) {
        self.link.progress.suspect.store(true, Ordering::Relaxed);
        let _ = self.committer.distrust();
    }

    fn tidy(&mut self) {
        let held_up = &self.link.progress.log_held_up;
        match self.committer.tidy() {
            Ok(Tidied::NotDue) => {}
            Ok(Tidied::Whole) => {
                self.untidy = false;
                if held_up.swap(false, Ordering::Relaxed) {
                    info!(self.link.log, "the write-ahead log can be reused again");
                }
            }
            Ok(Tidied::HeldUp) => {
                if !held_up.swap(true, Ordering::Relaxed) {
                    warn!(
                        self.link.log,
                        "the write-ahead log grows: another program has a read \
                        transaction open"
                    );
                }
            }
            Err(error) => self.late(error),
        }
    }

    fn shrink(&mut self) {
        match self.committer.shrink() {
            Ok(false) => {}
            Ok(true) => info!(self.link.log, "database file shrunk"),
            Err(error) => self.late(error),
        }
    }

    fn measure(&mut self) {
        match self.committer.facts() {
            Ok(sizes) => {
                self.link.progress.measured(&sizes);
                self.link.signs.seen(&sizes, &self.link.log);
            }
            Err(error) => self.late(error),
        }
        self.link.progress.has_room(self.committer.room());
    }

    /// An error that no order waits for. The log still has everything, so a full disk is only
    /// worth a word: the next commit will meet it.
    fn late(&mut self, error: StoreError) {
        if let StoreError::Moved { to, .. } = error {
            self.moved = Some(to);
            return;
        }
        if error.remedy() == Remedy::Rewrite {
            crit!(self.link.log, "database file is suspect"; "error" => %error);
            self.link.note_loss(&error);
            self.distrust();
            self.late_error = Some(error);
            // So that the dispatcher looks at the progress.
            let _ = self.link.events.try_send(Event::Persisted);
        } else if !std::mem::replace(&mut self.untidy, true) {
            warn!(self.link.log, "the write-ahead log cannot be checkpointed now"; "error" => %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Dispatcher, batch, messages, named, open, put, quiet};
    use super::*;
    use crate::channels;
    use crate::journal::Journal;
    use crate::journal::Row;
    use crate::store::{self, Checkpoint, File, Held, OwnRoom, Sizes};
    use crate::words::change::{Change, MessageRow};
    use crate::words::ids::{MessageId, QueueId};
    use std::io::ErrorKind;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn the_disk_is_known_before_the_thread_runs() {
        let directory = tempfile::tempdir().unwrap();
        let held = Held::Open(open(&directory.path().join("q.db")).file.unwrap());
        let progress = Progress::default();
        assert_eq!(progress.disk_free_bytes(), None);
        look(&held, &progress).unwrap();
        assert!(progress.disk_free_bytes().is_some());
        assert_ne!(progress.own_room_bytes(), OwnRoom::ENDLESS.bytes);
    }

    #[test]
    fn what_was_committed_is_there_after_a_stop_and_the_log_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        let finished = dispatcher.commit(batch(vec![named(), put(1), put(2)]), false);
        assert!(finished.is_ok());
        assert!(matches!(dispatcher.events.recv().unwrap(), Event::Persisted));
        assert!(dispatcher.commit(batch(vec![]), true).is_ok());
        assert!(dispatcher.commit(batch(vec![put(3)]), true).is_ok());
        assert_eq!(dispatcher.progress.rows_written(), 4);
        let mut journal = Journal::new();
        journal.record(Change::Removed(MessageId(2)));
        journal.stop_cleanly(4);
        dispatcher.close(journal.take()).unwrap();
        assert!(!path.with_file_name("q.db-wal").exists());

        let opened = open(&path);
        assert_eq!(messages(&opened), [1, 3]);
        assert!(opened.facts.clean_stop);
        assert_eq!(opened.facts.next_id, 4);
    }

    #[test]
    fn the_thread_ends_when_the_dispatcher_is_gone_and_keeps_what_was_committed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        assert!(dispatcher.commit(batch(vec![named(), put(1)]), false).is_ok());
        drop(dispatcher.orders);
        dispatcher.thread.join().unwrap().unwrap();
        let opened = open(&path);
        assert_eq!(messages(&opened), [1]);
        assert!(!opened.facts.clean_stop);
    }

    #[test]
    fn the_log_is_moved_into_the_file_when_it_has_grown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        let big = |id: u64| {
            let (id, queue) = (MessageId(id), QueueId(1));
            let body = vec![0; 1024 * 1024].into();
            Change::Put(MessageRow { id, queue, body, ..MessageRow::default() })
        };
        assert!(dispatcher.commit(batch(vec![named()]), false).is_ok());
        for id in 1..=40 {
            assert!(dispatcher.commit(batch(vec![big(id)]), false).is_ok());
        }
        // Each order is answered before its checkpoint: the next one's answer comes after it.
        assert!(dispatcher.commit(batch(vec![put(41)]), true).is_ok());
        assert!(dispatcher.commit(batch(vec![put(42)]), true).is_ok());
        assert!(dispatcher.progress.wal_bytes() < 8 * 1024 * 1024);
        assert!(dispatcher.progress.file_bytes() > 32 * 1024 * 1024);
        dispatcher.close(batch(vec![])).unwrap();
    }

    #[test]
    fn a_reader_that_holds_the_log_up_is_seen_and_its_end_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let file = open(&path).file.unwrap();
        let reader = store::Connection::open(&path).unwrap();
        let mut disk = File::new(&file).unwrap();
        disk.commit(&batch(vec![named(), put(1)]), false).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM message;").unwrap();
        let mut one_more = |id: u64| {
            let (id, queue) = (MessageId(id), QueueId(1));
            let body = vec![0; 5 * 1024 * 1024].into();
            let row = MessageRow { id, queue, body, ..MessageRow::default() };
            disk.commit(&batch(vec![Change::Put(row)]), false).unwrap();
            disk.checkpoint_if_due().unwrap()
        };
        assert_eq!(one_more(2), Checkpoint::HeldUp);
        assert_eq!(one_more(3), Checkpoint::HeldUp);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(one_more(4), Checkpoint::Complete);
    }

    #[test]
    fn a_log_that_somebody_removed_makes_the_file_suspect() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        std::fs::remove_file(path.with_file_name("q.db-wal")).unwrap();
        // It is seen after a commit, or already when the thread starts.
        let refused = (1..=2)
            .map(|id| dispatcher.commit(batch(vec![put(id)]), true))
            .find(Result::is_err)
            .unwrap();
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
        let error = dispatcher.commit(batch(vec![put(3)]), true).unwrap_err();
        assert!(matches!(error, StoreError::Suspect { .. }), "{error}");
    }

    /// A disk that fails as it is told, in front of nothing.
    #[derive(Default)]
    struct FailingDisk {
        commit_errors: Vec<Option<ErrorKind>>,
        checkpoint_errors: Vec<Option<ErrorKind>>,
        committed: Vec<u64>,
        checkpoints: u64,
    }

    fn next_error(errors: &mut Vec<Option<ErrorKind>>) -> Result<(), StoreError> {
        match if errors.is_empty() { None } else { errors.remove(0) } {
            None => Ok(()),
            Some(kind) => Err(StoreError::system(Path::new("q.db"), kind.into())),
        }
    }

    impl Committer for FailingDisk {
        fn commit(&mut self, batch: &Batch, _: bool) -> Result<(), StoreError> {
            next_error(&mut self.commit_errors)?;
            self.committed.extend(batch.part(0..batch.places()).filter_map(|row| match row {
                Row::Put(row) => Some(row.id.0),
                _ => None,
            }));
            Ok(())
        }

        fn tidy(&mut self) -> Result<Tidied, StoreError> {
            self.checkpoints += 1;
            next_error(&mut self.checkpoint_errors)?;
            Ok(Tidied::Whole)
        }

        fn facts(&mut self) -> Result<Sizes, StoreError> {
            Ok(Sizes::default())
        }

        fn distrust(&mut self) -> StoreError {
            StoreError::Suspect { file: "q.db".into() }
        }
    }

    /// Commits one message after the other as the dispatcher would, with what failed merged into
    /// the next; says which commits succeeded.
    fn commit_one_by_one(disk: &mut FailingDisk, count: u64) -> Vec<bool> {
        commit_and_log(disk, count, quiet())
    }

    fn commit_and_log(disk: &mut FailingDisk, count: u64, log: Logger) -> Vec<bool> {
        let (_orders_sent, orders) = channels::orders();
        let (finished_sent, answers) = channels::finished();
        let (events, _events_received) = channels::events();
        let progress = Arc::new(Progress::default());
        let (failed_before, waiting) = (Cell::new(false), Cell::default());
        let finished = finished_sent;
        let signs = Signs::default();
        let revivals = Revivals::default();
        let link = Link {
            orders,
            finished,
            events,
            progress,
            log,
            failed_before,
            revivals,
            waiting,
            signs,
        };
        let mut persistence = Persistence::new(disk, &link);
        let mut journal = Journal::new();
        let one = |id| {
            journal.record(put(id));
            persistence.commit(journal.take(), true);
            let committed = answers.recv().unwrap().is_ok();
            if committed {
                journal.succeeded();
            } else {
                journal.failed();
            }
            committed
        };
        (1..=count).map(one).collect()
    }

    #[test]
    fn a_full_disk_loses_nothing_and_is_tried_again() {
        let full = Some(ErrorKind::StorageFull);
        let mut disk =
            FailingDisk { commit_errors: vec![None, full, full, None], ..Default::default() };
        assert_eq!(commit_one_by_one(&mut disk, 5), [true, false, false, true, true]);
        assert_eq!(disk.committed, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn after_an_input_or_output_error_nothing_is_written_any_more() {
        let mut disk =
            FailingDisk { commit_errors: vec![None, Some(ErrorKind::Other)], ..Default::default() };
        assert_eq!(commit_one_by_one(&mut disk, 4), [true, false, false, false]);
        assert_eq!(disk.committed, [1]);
        assert_eq!(disk.checkpoints, 1, "a suspect file is not checkpointed");
    }

    #[test]
    fn a_failed_checkpoint_is_the_answer_to_the_next_commit() {
        let mut disk =
            FailingDisk { checkpoint_errors: vec![Some(ErrorKind::Other)], ..Default::default() };
        assert_eq!(commit_one_by_one(&mut disk, 3), [true, false, false]);
        assert_eq!((disk.committed, disk.checkpoints), (vec![1], 1));
    }

    #[test]
    fn a_checkpoint_on_a_full_disk_is_put_off() {
        let mut disk = FailingDisk {
            checkpoint_errors: vec![Some(ErrorKind::StorageFull)],
            ..Default::default()
        };
        assert_eq!(commit_one_by_one(&mut disk, 3), [true, true, true]);
        assert_eq!(disk.checkpoints, 3);
    }

    /// Counts the lines of a log.
    struct Lines(Arc<AtomicU64>);

    impl slog::Drain for Lines {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, _: &slog::Record, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_stays_full_is_logged_once_an_episode() {
        let full = Some(ErrorKind::StorageFull);
        let lines = Arc::<AtomicU64>::default();
        let mut disk = FailingDisk {
            checkpoint_errors: vec![full, full, full, None, full, full],
            ..Default::default()
        };
        let log = Logger::root(Lines(lines.clone()), slog::o!());
        commit_and_log(&mut disk, 6, log);
        assert_eq!(lines.load(Ordering::Relaxed), 2);
    }
}
