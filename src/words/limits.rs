//! Every bound of the daemon: constants with their unit in the name, and the operator's limits.
//!
//! The operator's limits can change while the daemon runs (SIGHUP), so they are read where they
//! are applied and not copied.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The longest queue name in the core, in bytes.
pub const QUEUE_NAME_BYTES_MAX: usize = 200;
/// Requests that one channel message carries at most.
pub const REQUESTS_PER_BATCH_MAX: usize = 256;
/// Events that the dispatcher takes in one turn at most, so that one commit covers many messages
/// and one busy client cannot hold the loop.
pub const EVENTS_PER_TURN_MAX: usize = 64;
/// Units of large work (a flush, a mass kick, many expiries) done in one turn at most.
pub const WORK_PER_TURN_MAX: usize = 1_000;
/// The same while large work is held back: what small ones need that are asked for meanwhile.
pub const WORK_HELD_BACK_MAX: usize = 100;
/// A deadline that is seen so much after its moment, in milliseconds, has been slept over: the
/// process was stopped. Threads wait for deadlines at most 1 second too long.
pub const PAUSE_MS: u64 = 3_000;
/// So many times as much that is due is done before commands are answered that could see it: what
/// takes a tenth of a second. Beyond that, commands go on between the turns.
pub const CATCH_UP_SLICES_MAX: usize = 100;
/// Bytes of messages brought into the database in memory in one turn at most, but for one message:
/// what takes a millisecond or two.
pub const STAGED_BYTES_PER_TURN_MAX: u64 = 1024 * 1024;
/// Bytes of messages that wait for the tick on their way into a database; more goes at once. It
/// would have left every cache by then, and new bodies would need new memory meanwhile.
pub const TICK_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Events that wait for the dispatcher at most; the senders block behind them.
pub const EVENTS_WAITING_MAX: usize = 1_024;
/// What the main thread has waiting at most: ends of threads and signals.
pub const NOTICES_WAITING_MAX: usize = 1_024;
/// Requests that wait behind a waiting reservation before the peer's gate closes.
pub const BACKLOG_REQUESTS_MAX: usize = 512;
/// Bytes of the first read of a connection, which lie on its thread's stack.
pub const READ_SMALL_BYTES: usize = 4 * 1024;
/// Bytes of the buffer of a connection that fills the small one.
pub const READ_LARGE_BYTES: usize = 128 * 1024;
/// The rest of a body that is read straight to where it is kept, at least, in bytes: a smaller one
/// is copied there in less time than another read takes that brings nothing else.
pub const BODY_REST_BYTES_MIN: usize = 16 * 1024;
/// The stack of a client's thread, in bytes. Only what is touched is resident.
pub const CLIENT_STACK_BYTES: usize = 192 * 1024;
/// Client threads that wait for the next connection after their last one, at most: as many as the
/// peers that connect and close all the time on a machine with a few dozen processors.
pub const THREADS_RESTING_MAX: usize = 64;
/// How long they wait, in milliseconds.
pub const THREAD_REST_MS: u64 = 1_000;
/// The stack of a writer's thread, in bytes.
pub const WRITER_STACK_BYTES: usize = 128 * 1024;
/// The stack of dispatcher, persistence and listeners, in bytes.
pub const SERVICE_STACK_BYTES: usize = 2 * 1024 * 1024;
/// How long the dispatcher flushes outboxes when the daemon stops, in milliseconds.
pub const STOP_FLUSH_MS: u64 = 1_000;
/// How long a client's thread still reads what had arrived when the daemon stops, in milliseconds.
pub const STOP_READ_MS: u64 = 250;
/// The largest chunk that a writer has in hand, in bytes; its report is the measure of progress.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// What an empty outbox keeps of its buffer, in bytes: thousands of idle consumers have one each.
pub const OUTBOX_KEPT_BYTES: usize = 16 * 1024;
/// Bodies of this size and more are shared and not copied, in bytes. Below it a copy costs less than
/// what a shared body takes besides: a count, a place in the outbox, a gathered send.
pub const BODY_SHARED_BYTES_MIN: usize = 4 * 1024;
/// Bodies of this size and more are written straight to their pages in a database and read straight
/// from there, in bytes. A bound one is copied twice on its way, into the parameter and into the
/// record, and both copies are in memory together with the pages.
pub const BODY_STREAMED_BYTES_MIN: u32 = 256 * 1024;
/// Pieces that one gathered send takes at most; what is beyond goes with the next.
pub const PIECES_PER_SEND_MAX: usize = 32;
/// How long a listener rests when descriptors, memory or threads have run out, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 50;
/// How often a frame that finds no room in memory looks again, in milliseconds. It is woken before
/// that when it is its turn.
pub const ROOM_PAUSE_MS: u64 = 250;
/// So much of a frame is read before it has to be admitted, in bytes: less than a first read
/// brings, so that one that is announced and does not come holds no place.
pub const FRAME_UNADMITTED_BYTES: usize = 2 * 1024;
/// How long an admitted frame may stall while others wait, in milliseconds.
pub const FRAME_PACE_MS: u64 = 2_000;
/// How long a sender waits when messages that are kept leave no room for its frame, in
/// milliseconds, until it is told so.
pub const NO_ROOM_WAIT_MS: u64 = 5_000;
/// `limits.max_memory` divided by this may be in flight to the dispatcher before a peer has to wait
/// with its next bodies until its last ones have arrived.
pub const IN_FLIGHT_MEMORY_DIVISOR: u64 = 4;
/// How often such a peer's thread looks whether they have, in milliseconds: a turn takes no longer.
pub const ARRIVE_PAUSE_MS: u64 = 1;
/// This part of `limits.max_memory` is kept for small messages: large ones never take it.
pub const SMALL_PART: u64 = 16;
/// What a queued message costs beside its body, in bytes, for `limits.max_memory`.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 200;
/// What a queue costs beside its messages and twice its name, in bytes, for `limits.max_memory`:
/// measured with 200,000 queues of a message each.
pub const QUEUE_OVERHEAD_BYTES: u64 = 512;
/// This part of `limits.max_memory` is the most that queues take beside their messages.
const QUEUES_PART: u64 = 2;
/// What a subscription costs beside its queues, its key and its tag, in bytes, for
/// `limits.max_memory`: 100,000 windows on queues that others waited for took 372 bytes each, 31 of
/// them for the queue.
pub const SUBSCRIPTION_OVERHEAD_BYTES: u64 = 340;
/// What a queue in the set of a subscription costs, in bytes, for `limits.max_memory`: in a set of
/// 100,000 it took 23 to 31 bytes, and 207 more when its connection was the first that waited for
/// messages of it.
pub const SUBSCRIBED_QUEUE_BYTES: u64 = 240;
/// This part of `limits.max_memory` is the most that subscriptions take.
const SUBSCRIPTIONS_PART: u64 = 4;
/// As many subscriptions, and queues in them, a connection may have however full memory is: without
/// them nobody could take the messages that fill it.
pub const SUBSCRIBED_ALWAYS: u32 = 16;
/// Message ids reserved in the database at once.
pub const ID_BLOCK: u64 = 1 << 20;
/// Changes waiting for a database at which gates close, in bytes.
pub const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Rows that a list of steps which happens as a whole may write.
pub const TOGETHER_ROWS_MAX: usize = 10_000;
/// Bytes of bodies in such a list.
pub const TOGETHER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a deduplication key.
pub const KEY_BYTES_MAX: usize = 255;
/// Bytes of what a holder says of a message that it could not process; the rest is cut off.
pub const REASON_BYTES_MAX: usize = 1_024;
/// `[[policy]]` sections of the configuration at most: each queue's name is compared with them.
pub const POLICIES_MAX: usize = 1_000;
/// Holders that a queue's figures name at most.
pub const HOLDERS_SHOWN_MAX: usize = 10;
/// Priorities that are looked at for a queue's oldest ready message: each takes a search.
pub const PRIORITIES_SEARCHED_MAX: usize = 64;
/// Lines of a survey or listing that a peer may ask for at most.
pub const LISTING_LINES_MAX: usize = 1_000;

const _: () = assert!(READ_LARGE_BYTES > READ_SMALL_BYTES);
const _: () = assert!(CLIENT_STACK_BYTES > 4 * READ_SMALL_BYTES);
const _: () = assert!(BACKLOG_REQUESTS_MAX >= REQUESTS_PER_BATCH_MAX);

/// The values of the `[limits]` and `[queue]` sections of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitValues {
    /// Connections of the whole daemon.
    pub max_connections: usize,
    /// Connections of one peer address, 0 = no limit.
    pub max_connections_per_peer: usize,
    /// The largest body, in bytes.
    pub max_message_size: usize,
    /// Bodies and overhead, in bytes; never 0 here (the default has been worked out).
    pub max_memory: u64,
    /// Queues of the whole daemon.
    pub max_queues: usize,
    /// The largest window; a larger one is taken as this.
    pub max_window: u32,
    /// Unsent bytes per peer; one message more is kept.
    pub max_output: usize,
    /// From a frame's first byte to its last, in milliseconds.
    pub frame_timeout_ms: u64,
    /// How long a peer may take nothing of what is sent to it, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long a peer may send nothing, in milliseconds; 0 = for ever.
    pub idle_timeout_ms: u64,
    /// Idle time before TCP asks whether the peer still lives, in milliseconds; 0 = never.
    pub keepalive_ms: u64,
    /// How long sent bytes may stay unacknowledged by TCP, in milliseconds; 0 = the system's.
    pub tcp_user_timeout_ms: u64,
    /// The priority of messages that bring none.
    pub priority: u32,
    /// The time to run of messages that bring none, in milliseconds.
    pub time_to_run_ms: u64,
}

impl Default for LimitValues {
    fn default() -> LimitValues {
        LimitValues {
            max_connections: 4_000,
            max_connections_per_peer: 0,
            max_message_size: 16 * 1024 * 1024,
            max_memory: 1024 * 1024 * 1024,
            max_queues: 1_000_000,
            max_window: 10_000,
            max_output: 8 * 1024 * 1024,
            frame_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            idle_timeout_ms: 0,
            keepalive_ms: 30_000,
            tcp_user_timeout_ms: 60_000,
            priority: 1_024,
            time_to_run_ms: 60_000,
        }
    }
}

macro_rules! shared_limits {
    ($($(#[$doc:meta])* $name:ident: $atomic:ident => $kind:ty,)*) => {
        /// The operator's limits as all threads share them.
        #[derive(Debug)]
        pub struct Limits { $($name: $atomic,)* }

        impl Limits {
            /// Starts with these values.
            pub fn new(values: &LimitValues) -> Limits {
                Limits { $($name: $atomic::new(values.$name as _),)* }
            }

            /// Takes new values; whoever reads next sees them.
            pub fn apply(&self, values: &LimitValues) {
                $(self.$name.store(values.$name as _, Ordering::Relaxed);)*
            }

            $($(#[$doc])* pub fn $name(&self) -> $kind {
                self.$name.load(Ordering::Relaxed) as $kind
            })*
        }
    };
}

shared_limits! {
    /// Connections of the whole daemon.
    max_connections: AtomicUsize => usize,
    /// Connections of one peer address, 0 = no limit.
    max_connections_per_peer: AtomicUsize => usize,
    /// The largest body, in bytes.
    max_message_size: AtomicUsize => usize,
    /// Bodies and overhead, in bytes.
    max_memory: AtomicU64 => u64,
    /// Queues of the whole daemon.
    max_queues: AtomicUsize => usize,
    /// The largest window; a larger one is taken as this.
    max_window: AtomicU64 => u32,
    /// Unsent bytes per peer; one message more is kept.
    max_output: AtomicUsize => usize,
    /// From a frame's first byte to its last, in milliseconds.
    frame_timeout_ms: AtomicU64 => u64,
    /// How long a peer may take nothing of what is sent to it, in milliseconds.
    write_timeout_ms: AtomicU64 => u64,
    /// How long a peer may send nothing, in milliseconds; 0 = for ever.
    idle_timeout_ms: AtomicU64 => u64,
    /// Idle time before TCP asks whether the peer still lives, in milliseconds; 0 = never.
    keepalive_ms: AtomicU64 => u64,
    /// How long sent bytes may stay unacknowledged by TCP, in milliseconds; 0 = the system's.
    tcp_user_timeout_ms: AtomicU64 => u64,
    /// The priority of messages that bring none.
    priority: AtomicU64 => u32,
    /// The time to run of messages that bring none, in milliseconds.
    time_to_run_ms: AtomicU64 => u64,
}

/// What messages of any size may take of this `limits.max_memory`, in bytes; the rest is for small
/// ones.
pub fn large_bytes_max(max_memory: u64) -> u64 {
    max_memory - max_memory / SMALL_PART
}

/// What queues may take of this `limits.max_memory` beside their messages, in bytes. Names cost a
/// client nothing: without a bound of their own they would leave messages no room.
pub fn queue_bytes_max(max_memory: u64) -> u64 {
    max_memory / QUEUES_PART
}

/// What subscriptions may take of this `limits.max_memory`, in bytes. Like names of queues they cost
/// a client nothing; they have a part of their own, so that neither takes the other's.
pub fn subscription_bytes_max(max_memory: u64) -> u64 {
    max_memory / SUBSCRIPTIONS_PART
}

/// The largest body that can ever be kept in this `limits.max_memory`, in bytes.
pub fn body_bytes_ever(max_memory: u64) -> u64 {
    large_bytes_max(max_memory).saturating_sub(MESSAGE_OVERHEAD_BYTES)
}

impl Limits {
    /// The largest body that is accepted, in bytes: `limits.max_message_size`, or what
    /// `limits.max_memory` can ever keep where that is less.
    pub fn body_bytes_max(&self) -> usize {
        let ever = body_bytes_ever(self.max_memory());
        self.max_message_size().min(usize::try_from(ever).unwrap_or(usize::MAX))
    }
}

/// Bytes of bodies under way between sockets and the core, shared by all threads.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: AtomicU64,
}

impl Budget {
    /// The bytes charged now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A share of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: std::sync::Arc<Budget>,
    /// The part of the budget that is one peer's, where that is counted too.
    peers: Option<std::sync::Arc<Budget>>,
    bytes: u64,
}

impl Charge {
    /// A share of nothing, to be grown.
    pub fn new(budget: std::sync::Arc<Budget>) -> Charge {
        Charge { budget, peers: None, bytes: 0 }
    }

    /// A share of nothing that counts as this peer's too.
    pub fn of_peer(budget: std::sync::Arc<Budget>, peer: std::sync::Arc<Budget>) -> Charge {
        Charge { budget, peers: Some(peer), bytes: 0 }
    }

    /// How large it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the share this large.
    pub fn set(&mut self, bytes: u64) {
        for budget in std::iter::once(&self.budget).chain(&self.peers) {
            if bytes >= self.bytes {
                budget.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            } else {
                budget.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_charge_gives_its_bytes_back() {
        let budget = std::sync::Arc::new(Budget::default());
        let mut charge = Charge::new(budget.clone());
        charge.set(700);
        charge.set(300);
        assert_eq!(budget.bytes(), 300);
        drop(charge);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_peers_charge_counts_for_all_and_for_the_peer() {
        let (all, peer) =
            (std::sync::Arc::<Budget>::default(), std::sync::Arc::<Budget>::default());
        let mut others = Charge::new(all.clone());
        others.set(10);
        let mut charge = Charge::of_peer(all.clone(), peer.clone());
        charge.set(7);
        assert_eq!((all.bytes(), peer.bytes()), (17, 7));
        drop(charge);
        assert_eq!((all.bytes(), peer.bytes()), (10, 0));
    }

    #[test]
    fn applied_limits_are_seen_by_who_reads_next() {
        let limits = Limits::new(&LimitValues::default());
        limits.apply(&LimitValues { max_window: 7, ..LimitValues::default() });
        assert_eq!(limits.max_window(), 7);
    }
}
