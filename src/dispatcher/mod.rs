//! The one thread that owns all queueing state: it waits in one place, takes what has come, lets
//! the engine decide and carries the decisions out.
//!
//! One turn: do what is due ─► take events ─► engine ─► effects: changes into the journal, answers
//! and messages into outboxes ─► when it is time, changes on to persistence, and what is committed
//! into the in-memory database ─► one send per peer.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the turn |
//! | `building` | the engine, at a start |
//! | `departures` | the order between a peer that hangs up and those who ask after it |
//! | `events` | what has come |
//! | `effects` | what the engine has decided |
//! | `peers` | one peer's outbox and gate |
//! | `commits` | when changes go to persistence, and what waits for that |
//! | `staging` | when changes get into the database in memory |
//! | `rewrite` | a suspect file written anew |
//! | `pace` | how fast large work goes |
//! | `pressure` | who is held back when memory or journal are full, or the daemon drains |
//! | `health` | what the service manager is told of all that |
//! | `last_turn` | the stop |
//! | `facts` | what process and machine say of themselves, for statistics |
//!
//! # Failure
//! The in-memory database can only fail for want of memory, and then the journal keeps what it was
//! to be given and puts are refused (`staging`), or by a defect of ours. That would leave state and
//! answers apart, so the thread panics, which ends the process: the file has all that was
//! confirmed.

pub mod facts;

mod building;
mod commits;
mod departures;
mod effects;
mod events;
mod health;
mod last_turn;
mod pace;
mod peers;
mod pressure;
mod rewrite;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use slog::{Logger, info};

use crate::channels::waiting::Waiting;
use crate::channels::{Event, Finished, Notice, Order};
use crate::dispatcher::facts::FactReader;
use crate::engine::{Effect, Engine, Input};
use crate::journal::Journal;
use crate::mirror::Mirror;
use crate::persistence::Progress;
use crate::store::Memory;
use crate::store::StoreError;
use crate::wire::admission::Admission;
use crate::wire::clients::Clients;
use crate::wire::hang_ups::HangUps;
use crate::wire::writer::Writers;
use crate::words::change::Change;
use crate::words::clock::{Clock, Now, Time};
use crate::words::ids::{Committed, ConnectionId};
use crate::words::limits::{Budget, CATCH_UP_SLICES_MAX, Limits};

pub use building::build_engine;
use commits::Commits;
use departures::Departures;
use peers::Peer;
use pressure::Pressure;

pub use health::Health;
pub use last_turn::Stopped;

/// What the dispatcher is made of, apart from the in-memory database that its thread owns.
pub struct Parts {
    /// The queueing state, loaded.
    pub engine: Engine,
    /// The journal, with nothing in it.
    pub journal: Journal,
    /// What wakes it.
    pub events: Receiver<Event>,
    /// To persistence; `None` when nothing is kept on disk.
    pub orders: Option<SyncSender<Order>>,
    /// From persistence.
    pub finished: Receiver<Finished>,
    /// Starts the threads that write to slow peers.
    pub writers: Arc<Writers>,
    /// The open connections.
    pub clients: Arc<Clients>,
    /// Notices which peers hang up.
    pub hang_ups: HangUps,
    /// The clock.
    pub clock: Clock,
    /// The operator's limits.
    pub limits: Arc<Limits>,
    /// Bytes under way between sockets and here.
    pub budget: Arc<Budget>,
    /// Large frames on their way here.
    pub admission: Arc<Admission>,
    /// What persistence tells of itself.
    pub progress: Arc<Progress>,
    /// Turns so far, for the watchdog.
    pub turns: Arc<AtomicU64>,
    /// How it is, for the main thread to tell.
    pub health: Arc<Health>,
    /// Where it says that its health has changed.
    pub notices: Sender<Notice>,
    /// Facts of the process.
    pub facts: FactReader,
    /// `storage.snapshot_interval`, in milliseconds.
    pub snapshot_interval_ms: u64,
    /// `storage.commit_timeout`, in milliseconds.
    pub commit_timeout_ms: u64,
    /// How long a last commit is tried when the daemon stops, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Whether `storage.on_io_error` is `"exit"`.
    pub exit_on_io_error: bool,
    /// `storage.min_free_disk`, in bytes.
    pub min_free_disk: u64,
    /// Where it logs.
    pub log: Logger,
}

/// The dispatcher at work.
pub struct Dispatcher<'c> {
    engine: Engine,
    mirror: Mirror<'c>,
    /// Boxed, since the table has room for twice as many.
    peers: FxHashMap<ConnectionId, Box<Peer>>,
    /// Peers that something was written for in this turn.
    dirty: Vec<ConnectionId>,
    effects: Vec<Effect>,
    commits: Commits,
    pressure: Pressure,
    waiting: Waiting,
    /// Events of the last turn.
    taken: usize,
    now: Now,
    protocol_errors: u64,
    stopping: bool,
    /// What ends the process at the end of the turn.
    failed: Option<StoreError>,
    departures: Departures,
    /// What has come and is done next.
    round: VecDeque<Event>,
    /// What has come while the round waited; it comes before the channel's.
    later: VecDeque<Event>,
    events: Receiver<Event>,
    writers: Arc<Writers>,
    clients: Arc<Clients>,
    clock: Clock,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    admission: Arc<Admission>,
    progress: Arc<Progress>,
    turns: Arc<AtomicU64>,
    health: Arc<Health>,
    notices: Sender<Notice>,
    facts: FactReader,
    stop_timeout_ms: u64,
    exit_on_io_error: bool,
    min_free_disk: u64,
    log: Logger,
}

impl<'c> Dispatcher<'c> {
    /// Puts the parts together.
    pub fn new(parts: Parts, memory: Memory<'c>) -> Dispatcher<'c> {
        let now = parts.clock.now(parts.clock.beginning().wall_offset_ms);
        Dispatcher {
            engine: parts.engine,
            mirror: Mirror::new(memory),
            peers: FxHashMap::default(),
            dirty: Vec::new(),
            effects: Vec::new(),
            commits: Commits::new(
                parts.journal,
                parts.orders,
                parts.finished,
                parts.snapshot_interval_ms,
                parts.commit_timeout_ms,
            ),
            pressure: Pressure::default(),
            waiting: Waiting::default(),
            taken: 0,
            now,
            protocol_errors: 0,
            stopping: false,
            failed: None,
            departures: Departures::new(parts.hang_ups),
            round: VecDeque::new(),
            later: VecDeque::new(),
            events: parts.events,
            writers: parts.writers,
            clients: parts.clients,
            clock: parts.clock,
            limits: parts.limits,
            budget: parts.budget,
            admission: parts.admission,
            progress: parts.progress,
            turns: parts.turns,
            health: parts.health,
            notices: parts.notices,
            facts: parts.facts,
            stop_timeout_ms: parts.stop_timeout_ms,
            exit_on_io_error: parts.exit_on_io_error,
            min_free_disk: parts.min_free_disk,
            log: parts.log,
        }
    }

    /// Serves until it is told to stop, then brings everything to its end.
    ///
    /// # Errors
    /// The file is suspect and `storage.on_io_error` is `"exit"`, or a new file that was needed at
    /// the end could not be made for want of memory.
    ///
    /// # Panics
    /// The in-memory database failed.
    pub fn run(mut self, dropped_at_start: Vec<Change>) -> Result<Stopped, StoreError> {
        for change in dropped_at_start {
            self.keep(change);
        }
        if self.clock.behind_ms() > 0 {
            self.commits.note_clock(self.now);
        }
        // A disk that was full at the start refuses the first put already.
        self.relieve();
        while !self.stopping && self.failed.is_none() {
            self.turn();
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.stop(),
        }
    }

    fn turn(&mut self) {
        let first = self.wait();
        let clock = self.clock;
        self.turn_by(clock.now(self.now.wall_offset_ms), || clock.time(), first)
    }

    /// A turn for which time stands still.
    #[cfg(test)]
    fn turn_at(&mut self, now: Now, first: Option<Event>) {
        self.turn_by(now, || now.time, first)
    }

    fn turn_by(&mut self, now: Now, time: impl Fn() -> Time, first: Option<Event>) {
        self.note_time(now);
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.taken = 0;
        self.set_pace();
        self.catch_up();
        self.take_rounds(&time, first);
        self.engine.turn(self.now, &mut self.effects);
        self.count_large_work();
        self.carry_out();
        self.finish_turn();
        self.set_pace();
    }

    /// Takes what the clocks say. That somebody has set the wall clock is committed like a change:
    /// else a restart would take it for time that has passed.
    fn note_time(&mut self, now: Now) {
        let by_ms = now.wall_offset_ms.saturating_sub(self.now.wall_offset_ms);
        self.now = now;
        if by_ms != 0 {
            info!(self.log, "the wall clock was set"; "by_ms" => by_ms);
            self.commits.note_clock(now);
        }
    }

    /// Does what is due before anybody is answered. After a pause of the whole process (a stopped
    /// process, a suspended machine) commands and much that was due long ago are there at once.
    fn catch_up(&mut self) {
        for _ in 0..CATCH_UP_SLICES_MAX {
            let is_behind = self.engine.catch_up(self.now, &mut self.effects);
            self.count_large_work();
            self.carry_out();
            if !is_behind {
                break;
            }
            self.set_pace();
        }
    }

    /// Takes what has come, and what comes meanwhile, as far as it need not wait for a peer that
    /// has hung up.
    fn take_rounds(&mut self, time: &impl Fn() -> Time, first: Option<Event>) {
        let mut next = first;
        let mut is_first = true;
        loop {
            if self.departures.is_awaited() {
                self.go_on_waiting(next.take());
            } else {
                self.begin_round(next.take());
            }
            if self.departures.is_awaited() || self.round.is_empty() {
                return;
            }
            if !std::mem::take(&mut is_first) || self.round.len() > 1 {
                // The process may have been stopped since the turn began. One look is enough: what
                // lies in the round was sent before it.
                self.now.time = self.now.time.max(time());
                self.catch_up();
            }
            while let Some(event) = self.round.pop_front() {
                self.take(event);
            }
        }
    }

    /// Waits for an event, or until something is due.
    fn wait(&mut self) -> Option<Event> {
        let due = self.engine_deadline().min(self.commit_deadline());
        let due = due.min(self.departures.deadline()).min(self.pressure.deadline());
        let is_ready = !self.later.is_empty() && !self.departures.is_awaited();
        if due <= self.now.time || is_ready {
            return self.next_event();
        }
        let (events, clock) = (&self.events, &self.clock);
        let sleep = || match clock.until(due) {
            None => events.recv().ok(),
            // The senders outlive the dispatcher, so only the time can run out.
            Some(left) => events.recv_timeout(left).ok(),
        };
        // Where many peers say one thing at a time, more of it has come by the time that this
        // thread has been woken. But the end of a commit that answers wait for comes alone.
        if self.taken > 1 && !self.commits.is_awaited() {
            return sleep();
        }
        self.waiting.wait(|| events.try_recv().ok(), sleep)
    }

    /// The next event that has come already; while a round waits, the next that was not put aside.
    fn next_event(&mut self) -> Option<Event> {
        let put_aside = if self.departures.is_awaited() { None } else { self.later.pop_front() };
        put_aside.or_else(|| self.events.try_recv().ok())
    }

    /// What comes after all events of a turn: keep, then tell.
    fn finish_turn(&mut self) {
        self.take_finished();
        if self.failed.is_some() {
            // What waits for a commit stays unsaid.
            return;
        }
        self.hand_over();
        self.relieve();
        self.flush_all()
    }

    fn input(&mut self, input: Input) {
        // The scale's moments are the beginnings of milliseconds. What is asked for within one
        // counts from its end, so that no delay and no time-out is over too early.
        let now = Now { time: self.now.time.plus(1), ..self.now };
        self.engine.handle(now, input, &mut self.effects);
        self.carry_out()
    }

    /// The commit up to which answers may leave.
    fn committed(&self) -> Committed {
        self.commits.committed()
    }

    /// When a commit, or what memory lacks, is due.
    fn commit_deadline(&self) -> Time {
        self.commits.deadline(self.mirror.is_busy()).min(self.mirror.deadline())
    }

    fn time(&self) -> Time {
        self.now.time
    }
}
