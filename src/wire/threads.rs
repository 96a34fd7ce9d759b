//! Starting and joining threads that come and go with connections.
//!
//! A thread reports its own start and end to the main thread, which joins it. Whoever starts one
//! (a listener, the dispatcher) therefore never waits for the main thread, and the main thread may
//! wait for them without a circle. Invariant: a thread counts as alive from before it is started
//! until it has been joined, so nothing is left when the count is 0.
//!
//! A client's thread that is through with its connection rests for a moment and takes the next one:
//! where peers connect, say one thing and close, starting and ending threads would be a third of
//! all work. Resting threads are few, and none is left after a moment without connections.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::channels::{self, Assignment, Notice};
use crate::words::limits::{CLIENT_STACK_BYTES, THREAD_REST_MS, THREADS_RESTING_MAX};

/// Starts threads and counts them.
#[derive(Debug)]
pub struct Threads {
    notices: Sender<Notice>,
    started: AtomicU64,
    alive: AtomicUsize,
    /// Client threads that wait for their next connection, each with its way in; `None` once they
    /// shall rest no more.
    resting: Mutex<Option<Vec<Resting>>>,
    /// Rests so far; they are told apart by this.
    rests: AtomicU64,
}

/// A client's thread between two connections.
#[derive(Debug)]
struct Resting {
    number: u64,
    way_in: SyncSender<Assignment>,
}

impl Threads {
    /// Threads that report to this channel.
    pub fn new(notices: Sender<Notice>) -> Arc<Threads> {
        Arc::new(Threads {
            notices,
            started: AtomicU64::new(0),
            alive: AtomicUsize::new(0),
            resting: Mutex::new(Some(Vec::new())),
            rests: AtomicU64::new(0),
        })
    }

    /// Starts a thread; `name` has at most 15 bytes, the system cuts longer ones.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        self: &Arc<Self>,
        name: String,
        stack_bytes: usize,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let (to_thread, handle) = channels::handle();
        let threads = Arc::clone(self);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let spawned = Builder::new().name(name).stack_size(stack_bytes).spawn(move || {
            let ending = ThreadEnd { threads, number };
            if let Ok(handle) = handle.recv() {
                // Without a main thread nobody joins: the handle goes and the thread is detached.
                let _ = ending.threads.notices.send(Notice::ThreadStarted(number, handle));
            }
            body();
        });
        match spawned {
            Ok(handle) => {
                // The thread waits for exactly this; it cannot have gone.
                let _ = to_thread.send(handle);
                Ok(())
            }
            Err(error) => {
                self.alive.fetch_sub(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Has a client's thread do this: one that rests, or a new one. `name` as for
    /// [`Threads::start`].
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn serve(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut assignment = Assignment { name, body: Box::new(body) };
        while let Some(Resting { way_in, .. }) = self.resting().as_mut().and_then(Vec::pop) {
            match way_in.try_send(assignment) {
                Ok(()) => return Ok(()),
                // It has ended in a panic; the next one may be well.
                Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                    assignment = refused;
                }
            }
        }
        let Assignment { name, body } = assignment;
        let threads = Arc::clone(self);
        self.start(name, CLIENT_STACK_BYTES, move || {
            body();
            while let Some(assignment) = threads.rest() {
                // Only ps and debuggers are interested in the name.
                let _ = CString::new(assignment.name).map(|name| rustix::thread::set_name(&name));
                (assignment.body)();
            }
        })
    }

    /// Waits for the next connection; `None` when none has come for a while.
    fn rest(&self) -> Option<Assignment> {
        let (way_in, assignments) = channels::assignment();
        let number = self.rests.fetch_add(1, Ordering::Relaxed);
        match self.resting().as_mut() {
            Some(resting) if resting.len() < THREADS_RESTING_MAX => {
                resting.push(Resting { number, way_in })
            }
            _ => return None,
        }
        let assignment = assignments.recv_timeout(Duration::from_millis(THREAD_REST_MS)).ok();
        if assignment.is_some() {
            return assignment;
        }
        if let Some(resting) = self.resting().as_mut()
            && let Some(at) = resting.iter().position(|other| other.number == number)
        {
            resting.swap_remove(at);
        }
        // Somebody may have taken the way in before: then the assignment is there or about to be.
        // Otherwise nobody has it any more, and this does not wait.
        assignments.recv().ok()
    }

    /// Ends the threads that rest, now and from now on.
    pub fn rest_no_more(&self) {
        *self.resting() = None;
    }

    fn resting(&self) -> MutexGuard<'_, Option<Vec<Resting>>> {
        // Each change is one operation on the list, so a panic leaves it whole.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads that were started and not yet joined.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

/// Reports a thread's end, also when it panics.
struct ThreadEnd {
    threads: Arc<Threads>,
    number: u64,
}

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let _ = self.threads.notices.send(Notice::ThreadEnded(self.number));
    }
}

/// The main thread's side: the handles of the threads that are alive.
#[derive(Debug)]
pub struct Joiner {
    threads: Arc<Threads>,
    handles: HashMap<u64, JoinHandle<()>>,
}

impl Joiner {
    /// Joins these threads.
    pub fn new(threads: Arc<Threads>) -> Joiner {
        Joiner { threads, handles: HashMap::new() }
    }

    /// From now on a client's thread ends with its connection: the end of the last connection can
    /// be waited for.
    pub fn rest_no_more(&self) {
        self.threads.rest_no_more();
    }

    /// For [`Notice::ThreadStarted`].
    pub fn started(&mut self, number: u64, handle: JoinHandle<()>) {
        self.handles.insert(number, handle);
    }

    /// For [`Notice::ThreadEnded`]: joins the thread. False when it had panicked.
    pub fn ended(&mut self, number: u64) -> bool {
        let Some(handle) = self.handles.remove(&number) else {
            return true;
        };
        let joined = handle.join();
        self.threads.alive.fetch_sub(1, Ordering::SeqCst);
        joined.is_ok()
    }

    /// Whether every thread that was started has been joined.
    pub fn is_done(&self) -> bool {
        self.threads.alive() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn join_all(joiner: &mut Joiner, notices: &crossbeam_channel::Receiver<Notice>) -> Vec<bool> {
        let mut ends = Vec::new();
        while !joiner.is_done() {
            match notices.recv().unwrap() {
                Notice::ThreadStarted(number, handle) => joiner.started(number, handle),
                Notice::ThreadEnded(number) => ends.push(joiner.ended(number)),
                _ => unreachable!(),
            }
        }
        ends
    }

    #[test]
    fn a_thread_runs_under_its_name_and_is_joined() {
        let (sender, notices) = channels::notices();
        let threads = Threads::new(sender);
        let ran = Arc::new(AtomicBool::new(false));
        let seen = ran.clone();
        threads
            .start("client-7".to_owned(), 64 * 1024, move || {
                seen.store(std::thread::current().name() == Some("client-7"), Ordering::SeqCst);
            })
            .unwrap();
        assert_eq!(threads.alive(), 1);
        let mut joiner = Joiner::new(threads);
        assert_eq!(join_all(&mut joiner, &notices), [true]);
        assert!(ran.load(Ordering::SeqCst));
    }

    #[test]
    fn a_thread_that_panics_is_joined_too() {
        let (sender, notices) = channels::notices();
        let threads = Threads::new(sender);
        threads.start("client-8".to_owned(), 64 * 1024, || panic!("meant to")).unwrap();
        assert_eq!(join_all(&mut Joiner::new(threads), &notices), [false]);
    }

    #[test]
    fn starting_threads_waits_for_nobody_even_when_the_main_thread_reads_nothing() {
        let (sender, notices) = channels::notices();
        let threads = Threads::new(sender);
        // More notices than the channel holds: only the threads themselves wait behind it.
        let count = crate::words::limits::NOTICES_WAITING_MAX / 2 + 50;
        for _ in 0..count {
            threads.start("busy".to_owned(), 32 * 1024, || {}).unwrap();
        }
        assert_eq!(threads.alive(), count);
        let mut joiner = Joiner::new(threads);
        assert_eq!(join_all(&mut joiner, &notices).len(), count);
    }

    #[test]
    fn a_client_thread_takes_the_next_connection_and_ends_when_told_to_rest_no_more() {
        let (sender, notices) = channels::notices();
        let threads = Threads::new(sender);
        let (seen, ran_on) = crossbeam_channel::bounded(1);
        for name in ["client-1", "client-2", "client-3"] {
            let seen = seen.clone();
            let body = move || seen.send(std::thread::current().id()).unwrap();
            threads.serve(name.to_owned(), body).unwrap();
            ran_on.recv().unwrap();
            while threads.resting().as_ref().unwrap().is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(threads.alive(), 1);
        threads.rest_no_more();
        let mut joiner = Joiner::new(threads);
        assert_eq!(join_all(&mut joiner, &notices), [true]);
    }

    #[test]
    fn a_client_thread_that_panics_is_not_used_again() {
        let (sender, notices) = channels::notices();
        let threads = Threads::new(sender);
        threads.serve("client-1".to_owned(), || panic!("meant to")).unwrap();
        let mut joiner = Joiner::new(threads.clone());
        assert_eq!(join_all(&mut joiner, &notices), [false]);
        threads.rest_no_more();
        threads.serve("client-2".to_owned(), || {}).unwrap();
        assert_eq!(join_all(&mut joiner, &notices), [true]);
    }

    #[test]
    fn a_thread_that_cannot_be_had_is_an_error_and_not_counted() {
        let (sender, _notices) = channels::notices();
        let threads = Threads::new(sender);
        // No address space has room for this stack.
        assert!(threads.start("huge".to_owned(), usize::MAX / 4, || {}).is_err());
        assert_eq!(threads.alive(), 0);
    }
}
