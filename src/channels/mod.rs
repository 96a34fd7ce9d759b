//! Every channel of the daemon, who sends what through it, and why it is as long as it is.
//!
//! ```text
//!   clients, listeners, writers ── Event ──► dispatcher      (senders block when it is full)
//!   persistence ── Event::Persisted ───────► dispatcher      (try_send: a wake, never waited for)
//!   dispatcher ── Order ───────────────────► persistence     (try_send: at most one at a time)
//!   persistence ── Finished ───────────────► dispatcher      (the order's other half, same bound)
//!   dispatcher ── chunk ───────────────────► writer          (try_send: one chunk at a time)
//!   everybody ── Notice ───────────────────► main            (ends of threads, signals; the
//!                                                             dispatcher's is a try_send)
//! ```
//!
//! The path of a message goes through channels of the standard library, whose receivers sleep at
//! once; those of crossbeam spin and yield first. That is time which the client's thread lacks
//! that would send something, and beside a program that computes it is worse: a yield gives that
//! program milliseconds (measured: 300 commands a second in the place of 8,500). Notices are rare,
//! and theirs may be waited for either way.
//!
//! Neither side of a pair ever blocks on the other in both directions, so nothing can lock up.

pub mod gate;
pub mod transport;
pub mod waiting;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::journal::Batch;
use crate::protocol::{Encoder, Protocol};
use crate::store::{Slice, StoreError};
use crate::words::command::Request;
use crate::words::durability::Durability;
use crate::words::ids::ConnectionId;
use crate::words::limits::{Charge, EVENTS_WAITING_MAX, NOTICES_WAITING_MAX};
use crate::words::policy::Policies;

/// Everything that can wake the dispatcher.
pub enum Event {
    /// A connection was accepted; always the first event of it.
    Opened(Box<NewConnection>),
    /// What was decoded from one read of a connection.
    Requests {
        /// Whose.
        connection: ConnectionId,
        /// At most [`REQUESTS_PER_BATCH_MAX`](crate::words::limits::REQUESTS_PER_BATCH_MAX).
        requests: Vec<Request>,
        /// Their share of the memory budget.
        charge: Charge,
    },
    /// A peer behind a closed gate has closed its sending side: what it has sent may still follow,
    /// but it waits for nothing any more.
    HungUp(ConnectionId),
    /// No request follows on this connection; its thread has ended or is about to.
    Ended {
        /// Whose.
        connection: ConnectionId,
        /// How.
        end: End,
    },
    /// A writer thread has written its chunk, or could not.
    Written {
        /// Whose.
        connection: ConnectionId,
        /// The error that ends the connection, if any.
        result: io::Result<()>,
    },
    /// Persistence has put something into the [`Finished`] channel.
    Persisted,
    /// Drain mode on, or off again.
    ToggleDrain,
    /// What becomes of messages that return from now on.
    Policies(Arc<Policies>),
    /// Wake up to tell that the loop still turns (the watchdog asks).
    Ping,
    /// Stop: every client thread has been told to end; serve until this many have.
    Stop,
}

impl Event {
    /// The connection that it is of, if it is of one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Event::Opened(opened) => Some(opened.connection),
            Event::Requests { connection, .. }
            | Event::HungUp(connection)
            | Event::Ended { connection, .. }
            | Event::Written { connection, .. } => Some(*connection),
            Event::Persisted
            | Event::ToggleDrain
            | Event::Policies(_)
            | Event::Ping
            | Event::Stop => None,
        }
    }
}

/// How a connection's requests ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed its sending side: it still gets its answers.
    EndOfFile,
    /// The peer broke the protocol; what it had sent before stands. The text says how.
    Fault(String),
    /// The peer took or sent nothing for too long.
    TimedOut(&'static str),
    /// The connection is broken.
    Reset(io::Error),
    /// The client's thread panicked.
    Panicked,
    /// The daemon stops.
    Stopped,
}

/// A new connection, as the dispatcher needs it.
pub struct NewConnection {
    /// Its number.
    pub connection: ConnectionId,
    /// Its bytes; the client's thread reads from the same one.
    pub transport: Arc<Transport>,
    /// What writes its answers.
    pub encoder: Box<dyn Encoder>,
    /// Holds its client's thread back.
    pub gate: Arc<Gate>,
    /// What its listener is configured to be.
    pub profile: Profile,
    /// Who it is, for logs.
    pub peer: PeerAddress,
}

/// What a listener's connections have in common.
#[derive(Clone, Copy)]
pub struct Profile {
    /// The protocol spoken.
    pub protocol: &'static Protocol,
    /// What an answer promises.
    pub durability: Durability,
    /// How long a window's oldest message may stay unacknowledged, in milliseconds; 0 = for ever.
    pub ack_timeout_ms: u64,
}

/// Who is on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address.
    Ip(IpAddr, u16),
    /// A user of this machine, through a Unix socket.
    Unix,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerAddress::Ip(address, port) => {
                std::fmt::Display::fmt(&std::net::SocketAddr::new(*address, *port), f)
            }
            PeerAddress::Unix => f.write_str("unix"),
        }
    }
}

/// What the dispatcher asks of persistence.
pub enum Order {
    /// Commit these changes, and fsync when `sync` says so. With no changes and `sync`, what was
    /// committed before without fsync is fsynced.
    Commit {
        /// The changes.
        batch: Arc<Batch>,
        /// Whether the commit ends in an fsync.
        sync: bool,
    },
    /// The next part of all rows, for a new file in the place of a suspect one. The first slice
    /// begins anew whatever became of an earlier attempt; any other order ends an attempt. Only
    /// the answer to the last slice says that anything is on the disk: it stands for a commit with
    /// fsync of everything up to its batch.
    Rewrite {
        /// The rows, in a box: other orders are moved with each commit.
        slice: Box<Slice>,
        /// The changes since the last order.
        batch: Arc<Batch>,
    },
    /// Checkpoint, close and end, after these last changes. The answer says whether the file holds
    /// all of it.
    Close {
        /// The changes.
        batch: Arc<Batch>,
        /// How many messages there are then, if that is certain.
        messages: Option<u64>,
    },
}

const _: () = assert!(size_of::<Order>() <= 32, "an order is moved several times on its way");

impl Order {
    /// The changes that come with it.
    pub fn into_batch(self) -> Arc<Batch> {
        match self {
            Order::Commit { batch, .. }
            | Order::Rewrite { batch, .. }
            | Order::Close { batch, .. } => batch,
        }
    }
}

/// What became of an [`Order`]: whether its batch was committed. Persistence has let go of the
/// batch when it says so.
pub type Finished = Result<(), StoreError>;

/// What wakes the main thread.
pub enum Notice {
    /// A signal came, by its number.
    Signal(i32),
    /// A thread was started that has to be joined when it says [`Notice::ThreadEnded`].
    ThreadStarted(u64, JoinHandle<()>),
    /// The thread of this number is at its end.
    ThreadEnded(u64),
    /// The dispatcher is at its end.
    DispatcherEnded,
    /// The dispatcher's [`Health`](crate::dispatcher::Health) has changed.
    HealthChanged,
}

/// Events for the dispatcher. Long enough that clients seldom block while a turn runs; each event
/// carries bounded requests whose bodies are charged to the memory budget.
pub fn events() -> (SyncSender<Event>, mpsc::Receiver<Event>) {
    sync_channel(EVENTS_WAITING_MAX)
}

/// Orders for persistence: one, since the next grows in the journal while one is worked on.
pub fn orders() -> (SyncSender<Order>, mpsc::Receiver<Order>) {
    sync_channel(1)
}

/// What became of orders: one, as there is one order at a time.
pub fn finished() -> (SyncSender<Finished>, mpsc::Receiver<Finished>) {
    sync_channel(1)
}

/// Chunks for a writer: one, the rest stays in the outbox where it is counted.
pub fn chunks() -> (SyncSender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
    sync_channel(1)
}

/// A thread's own handle on its way to it, so that the thread itself reports its start and whoever
/// started it waits for nobody: one, as there is one handle.
pub fn handle() -> (Sender<JoinHandle<()>>, Receiver<JoinHandle<()>>) {
    bounded(1)
}

/// What a client's thread that rests is to do next: one connection.
pub struct Assignment {
    /// What the thread is called from then on.
    pub name: String,
    /// What it does.
    pub body: Box<dyn FnOnce() + Send>,
}

/// A resting thread's way in: one, as it takes one connection and then rests anew.
pub fn assignment() -> (SyncSender<Assignment>, mpsc::Receiver<Assignment>) {
    sync_channel(1)
}

/// Notices for the main thread. Ends of threads may block behind it: they have nothing left to do.
pub fn notices() -> (Sender<Notice>, Receiver<Notice>) {
    bounded(NOTICES_WAITING_MAX)
}
