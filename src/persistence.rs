//! The thread that owns the database file: it commits what the dispatcher hands over, one batch
//! at a time, and moves the write-ahead log into the file afterwards.
//!
//! Owner: the `persistence` thread. It waits on its one channel of orders. It never blocks on the
//! dispatcher: [`Finished`] has as much room as there can be orders under way, and the wake is a
//! `try_send`.
//!
//! # Failure
//!
//! - A commit that fails is rolled back whole; its batch goes back to the dispatcher, which keeps
//!   it and tries again. Nothing is ever given up quietly.
//! - A full disk, a quota, a file size limit, a lock held by another program: the file is sound,
//!   and the next commit may succeed.
//! - Any other error makes the file suspect, for after a failed fsync a later one may succeed
//!   without having written anything. From then on every commit is refused with
//!   [`StoreError::Suspect`] and the log is not moved into the file any more.
//! - A checkpoint comes after the answer to its commit, so its error is the answer to the next
//!   order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use slog::{Logger, crit, info, warn};

use crate::channels::{Event, Finished, Order};
use crate::journal::Batch;
use crate::store::{Checkpoint, File, Remedy, Sizes, StoreError, StoreFile};

/// Figures of the persistence thread, for statistics and the watchdog.
#[derive(Debug, Default)]
pub struct Progress {
    turns: AtomicU64,
    commits: AtomicU64,
    rows_written: AtomicU64,
    file_bytes: AtomicU64,
    wal_bytes: AtomicU64,
    disk_free_bytes: AtomicU64,
    log_held_up: AtomicBool,
}

impl Progress {
    /// Odd while an order is being carried out, even while none is; it only grows. A thread that
    /// is at the same odd number for long is stuck.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Rows written or deleted so far.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Bytes of the database file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of its write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the disk had left for us after the last commit.
    pub fn disk_free_bytes(&self) -> u64 {
        self.disk_free_bytes.load(Ordering::Relaxed)
    }

    /// Whether another program that reads the file keeps the log from being moved into it.
    pub fn log_held_up(&self) -> bool {
        self.log_held_up.load(Ordering::Relaxed)
    }

    /// Takes the sizes of a file, at start before the thread runs.
    pub fn measured(&self, sizes: &Sizes) {
        self.file_bytes.store(sizes.file_bytes, Ordering::Relaxed);
        self.wal_bytes.store(sizes.wal_bytes, Ordering::Relaxed);
        self.disk_free_bytes.store(sizes.disk_free_bytes, Ordering::Relaxed);
    }
}

/// What persistence needs of a database file, so that tests can put a failing one in its place.
trait Disk {
    fn commit(&mut self, batch: &mut Batch, sync: bool) -> Result<(), StoreError>;
    fn checkpoint_if_due(&mut self) -> Result<Checkpoint, StoreError>;
    fn sizes(&self) -> Result<Sizes, StoreError>;
    fn distrust(&mut self) -> StoreError;
}

impl Disk for File<'_> {
    fn commit(&mut self, batch: &mut Batch, sync: bool) -> Result<(), StoreError> {
        File::commit(self, batch, sync)
    }

    fn checkpoint_if_due(&mut self) -> Result<Checkpoint, StoreError> {
        File::checkpoint_if_due(self)
    }

    fn sizes(&self) -> Result<Sizes, StoreError> {
        File::sizes(self)
    }

    fn distrust(&mut self) -> StoreError {
        File::distrust(self)
    }
}

/// The thread's body. It ends after [`Order::Close`] has been carried out, or when nobody can
/// send orders any more.
///
/// # Errors
/// The statements could not be prepared, or the log could not be moved into the file at the end
/// (nothing is lost then: the next start reads the log).
pub fn run(
    file: StoreFile,
    orders: Receiver<Order>,
    finished: Sender<Finished>,
    events: Sender<Event>,
    progress: Arc<Progress>,
    log: Logger,
) -> Result<(), StoreError> {
    let mut disk = File::new(&file)?;
    let mut persistence = Persistence {
        disk: &mut disk,
        finished: &finished,
        events: &events,
        progress: &progress,
        log: &log,
        suspect: false,
        late_error: None,
    };
    persistence.measure();
    persistence.serve(&orders);
    let suspect = persistence.suspect;
    drop(disk);
    if suspect {
        file.abandon();
        return Ok(());
    }
    file.close()
}

struct Persistence<'a, D: Disk> {
    disk: &'a mut D,
    finished: &'a Sender<Finished>,
    events: &'a Sender<Event>,
    progress: &'a Progress,
    log: &'a Logger,
    /// Whether an error has left it uncertain what the file holds.
    suspect: bool,
    /// What went wrong after the last order was answered.
    late_error: Option<StoreError>,
}

impl<D: Disk> Persistence<'_, D> {
    fn serve(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            self.progress.turns.fetch_add(1, Ordering::Relaxed);
            let closed = match order {
                Order::Commit { batch, sync } => {
                    self.commit(batch, sync);
                    false
                }
                Order::Close { batch } => self.commit(batch, true),
            };
            self.progress.turns.fetch_add(1, Ordering::Relaxed);
            if closed {
                return;
            }
        }
    }

    /// Commits, answers, and then does what can wait. Says whether it was committed.
    fn commit(&mut self, mut batch: Batch, sync: bool) -> bool {
        let result = self.try_commit(&mut batch, sync);
        let committed = result.is_ok();
        if committed {
            batch.clear();
        }
        // The dispatcher may be gone already when the process stops in haste.
        let _ = self.finished.send(Finished { batch, result });
        let _ = self.events.try_send(Event::Persisted);
        if !self.suspect {
            self.checkpoint();
            self.measure();
        }
        committed
    }

    fn try_commit(&mut self, batch: &mut Batch, sync: bool) -> Result<(), StoreError> {
        if let Some(error) = self.late_error.take() {
            return Err(error);
        }
        if self.suspect {
            return Err(self.disk.distrust());
        }
        let rows = batch.rows();
        self.disk.commit(batch, sync).inspect_err(|error| {
            if error.remedy() == Remedy::Rewrite {
                self.suspect = true;
                let _ = self.disk.distrust();
            }
        })?;
        self.progress.commits.fetch_add(1, Ordering::Relaxed);
        self.progress.rows_written.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }

    fn checkpoint(&mut self) {
        match self.disk.checkpoint_if_due() {
            Ok(Checkpoint::NotDue) => {}
            Ok(Checkpoint::Complete) => {
                if self.progress.log_held_up.swap(false, Ordering::Relaxed) {
                    info!(self.log, "write-ahead log is released");
                }
            }
            Ok(Checkpoint::HeldUp) => {
                if !self.progress.log_held_up.swap(true, Ordering::Relaxed) {
                    warn!(
                        self.log,
                        "write-ahead log grows: another program reads an old state \
                                     of the database"
                    );
                }
            }
            Err(error) => self.late(error),
        }
    }

    fn measure(&mut self) {
        match self.disk.sizes() {
            Ok(sizes) => self.progress.measured(&sizes),
            Err(error) => self.late(error),
        }
    }

    /// An error that no order waits for. The log still has everything, so a full disk is only
    /// worth a word: the next commit will meet it.
    fn late(&mut self, error: StoreError) {
        if error.remedy() == Remedy::Rewrite {
            crit!(self.log, "database file is suspect"; "error" => %error);
            self.suspect = true;
            let _ = self.disk.distrust();
            self.late_error = Some(error);
        } else {
            warn!(self.log, "checkpoint is put off"; "error" => %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, MessageRow};
    use crate::channels;
    use crate::ids::{MessageId, QueueId, QueueName};
    use crate::journal::Journal;
    use crate::store;
    use std::io::ErrorKind;
    use std::path::Path;

    fn quiet() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    fn put(id: u64) -> Change {
        let body = format!("body {id}").into_bytes();
        let (id, queue) = (MessageId(id), QueueId(1));
        Change::Put(MessageRow { id, queue, body, ..MessageRow::default() })
    }

    fn named() -> Change {
        Change::QueueNamed { id: QueueId(1), name: QueueName::new(b"q").unwrap() }
    }

    fn batch(changes: Vec<Change>) -> Batch {
        let mut journal = Journal::new();
        for change in changes {
            journal.record(change);
        }
        journal.take()
    }

    /// The thread on one side, the test as dispatcher on the other.
    struct Dispatcher {
        orders: Sender<Order>,
        finished: Receiver<Finished>,
        events: Receiver<Event>,
        progress: Arc<Progress>,
        thread: std::thread::JoinHandle<Result<(), StoreError>>,
    }

    impl Dispatcher {
        fn start(file: StoreFile) -> Dispatcher {
            let (orders, orders_received) = channels::orders();
            let (finished_sent, finished) = channels::finished();
            let (events_sent, events) = channels::events();
            let progress = Arc::new(Progress::default());
            let shared = progress.clone();
            let body =
                move || run(file, orders_received, finished_sent, events_sent, shared, quiet());
            let thread = std::thread::Builder::new().spawn(body).unwrap();
            Dispatcher { orders, finished, events, progress, thread }
        }

        fn commit(&self, batch: Batch, sync: bool) -> Finished {
            self.orders.send(Order::Commit { batch, sync }).unwrap();
            self.finished.recv().unwrap()
        }

        fn close(self, batch: Batch) -> Result<(), StoreError> {
            self.orders.send(Order::Close { batch }).unwrap();
            assert!(self.finished.recv().unwrap().result.is_ok());
            self.thread.join().unwrap()
        }
    }

    fn open(path: &Path) -> store::Opened {
        store::open(Some(path), &mut |_| ()).unwrap()
    }

    fn messages(opened: &store::Opened) -> Vec<u64> {
        let mut ids = Vec::new();
        store::scan(&opened.memory, |_, _| (), |message| ids.push(message.id.0)).unwrap();
        ids
    }

    #[test]
    fn what_was_committed_is_there_after_a_stop_and_the_log_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.db");
        let dispatcher = Dispatcher::start(open(&path).file.unwrap());
        let finished = dispatcher.commit(batch(vec![named(), put(1), put(2)]), false);
        assert!(finished.result.is_ok());
        assert!(finished.batch.is_empty(), "a committed batch comes back empty");
        assert!(matches!(dispatcher.events.recv().unwrap(), Event::Persisted));
        assert!(dispatcher.commit(batch(vec![]), true).result.is_ok());
        assert!(dispatcher.commit(batch(vec![put(3)]), true).result.is_ok());
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
        assert!(dispatcher.commit(batch(vec![named(), put(1)]), false).result.is_ok());
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
            let body = vec![0; 1024 * 1024];
            Change::Put(MessageRow { id, queue, body, ..MessageRow::default() })
        };
        assert!(dispatcher.commit(batch(vec![named()]), false).result.is_ok());
        for id in 1..=40 {
            assert!(dispatcher.commit(batch(vec![big(id)]), false).result.is_ok());
        }
        // Each order is answered before its checkpoint: the next one's answer comes after it.
        assert!(dispatcher.commit(batch(vec![]), true).result.is_ok());
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
        disk.commit(&mut batch(vec![named(), put(1)]), false).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM message;").unwrap();
        let mut one_more = |id: u64| {
            let (id, queue) = (MessageId(id), QueueId(1));
            let body = vec![0; 5 * 1024 * 1024];
            let row = MessageRow { id, queue, body, ..MessageRow::default() };
            disk.commit(&mut batch(vec![Change::Put(row)]), false).unwrap();
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
            .find(|finished| finished.result.is_err())
            .unwrap();
        let error = refused.result.unwrap_err();
        assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
        assert_eq!(refused.batch.rows(), 1, "a refused batch comes back whole");
        let error = dispatcher.commit(batch(vec![put(3)]), true).result.unwrap_err();
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

    impl Disk for FailingDisk {
        fn commit(&mut self, batch: &mut Batch, _: bool) -> Result<(), StoreError> {
            next_error(&mut self.commit_errors)?;
            self.committed.extend(batch.puts().iter().map(|row| row.id.0));
            Ok(())
        }

        fn checkpoint_if_due(&mut self) -> Result<Checkpoint, StoreError> {
            self.checkpoints += 1;
            next_error(&mut self.checkpoint_errors)?;
            Ok(Checkpoint::Complete)
        }

        fn sizes(&self) -> Result<Sizes, StoreError> {
            Ok(Sizes::default())
        }

        fn distrust(&mut self) -> StoreError {
            StoreError::Suspect { file: "q.db".into() }
        }
    }

    /// Commits one message after the other as the dispatcher would, with what failed merged into
    /// the next; says which commits succeeded.
    fn commit_one_by_one(disk: &mut FailingDisk, count: u64) -> Vec<bool> {
        let (finished_sent, finished) = channels::finished();
        let (events, _events_received) = channels::events();
        let progress = Progress::default();
        let log = quiet();
        let mut persistence = Persistence {
            disk,
            finished: &finished_sent,
            events: &events,
            progress: &progress,
            log: &log,
            suspect: false,
            late_error: None,
        };
        let mut journal = Journal::new();
        let one = |id| {
            journal.record(put(id));
            persistence.commit(journal.take(), true);
            let Finished { batch, result } = finished.recv().unwrap();
            let committed = result.is_ok();
            if committed {
                journal.done(batch)
            } else {
                journal.restore(batch)
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
}
