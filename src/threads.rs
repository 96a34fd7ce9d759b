//! Starting and joining threads that come and go with connections.
//!
//! A thread reports its own start and end to the main thread, which joins it. Whoever starts one
//! (a listener, the dispatcher) therefore never waits for the main thread, and the main thread may
//! wait for them without a circle. Invariant: a thread counts as alive from before it is started
//! until it has been joined, so nothing is left when the count is 0.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::Sender;

use crate::channels::{self, Notice};

/// Starts threads and counts them.
#[derive(Debug)]
pub struct Threads {
    notices: Sender<Notice>,
    started: AtomicU64,
    alive: AtomicUsize,
}

impl Threads {
    /// Threads that report to this channel.
    pub fn new(notices: Sender<Notice>) -> Arc<Threads> {
        Arc::new(Threads { notices, started: AtomicU64::new(0), alive: AtomicUsize::new(0) })
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
            let ending = Ending { threads, number };
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

    /// Threads that were started and not yet joined.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

/// Reports a thread's end, also when it panics.
struct Ending {
    threads: Arc<Threads>,
    number: u64,
}

impl Drop for Ending {
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
        let count = crate::limits::NOTICES_WAITING_MAX / 2 + 50;
        for _ in 0..count {
            threads.start("busy".to_owned(), 32 * 1024, || {}).unwrap();
        }
        assert_eq!(threads.alive(), count);
        let mut joiner = Joiner::new(threads);
        assert_eq!(join_all(&mut joiner, &notices).len(), count);
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
