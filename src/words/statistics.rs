//! The figures that the core and the process tell of themselves: counts, statistics, listings.

use crate::words::cause::{Cause, Reason, ReturnCounts};
use crate::words::change::{Counters, MessageState};
use crate::words::clock::Time;
use crate::words::ids::{ConnectionId, MessageId, QueueName};
use crate::words::refusal::Refusal;
use crate::words::settings::QueueLimits;

/// The commands that are counted, in the order of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is named like its command")]
pub enum Counted {
    Put,
    Together,
    FindKey,
    Refer,
    Subscribe,
    Unsubscribe,
    SetWindow,
    Reserve,
    ReserveWithTimeout,
    ReserveMessage,
    Acknowledge,
    Remove,
    Release,
    Requeue,
    Bury,
    Fail,
    Mark,
    Promote,
    Touch,
    Peek,
    PeekReady,
    PeekDelayed,
    PeekBuried,
    Kick,
    KickMessage,
    Pause,
    Flush,
    Statistics,
    MessageStatistics,
    QueueStatistics,
    ListQueues,
    ShowReferred,
    ListSubscribed,
    Survey,
    List,
    Configure,
    RemoveQueue,
    SetAside,
    SelectQueues,
}

impl Counted {
    /// How many there are.
    pub const COUNT: usize = Counted::SelectQueues as usize + 1;
}

/// How often each command was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandCounts([u64; Counted::COUNT]);

impl Default for CommandCounts {
    fn default() -> CommandCounts {
        CommandCounts([0; Counted::COUNT])
    }
}

impl CommandCounts {
    /// Counts one.
    pub fn add(&mut self, what: Counted) {
        self.0[what as usize] += 1;
    }

    /// How often it was asked for.
    pub fn of(&self, what: Counted) -> u64 {
        self.0[what as usize]
    }
}

/// Messages by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Ready ones with a priority below 1024, which are counted in `ready` too.
    pub urgent: u64,
    /// To be handed out.
    pub ready: u64,
    /// In somebody's hands.
    pub reserved: u64,
    /// Not ready yet.
    pub delayed: u64,
    /// Set aside.
    pub buried: u64,
}

impl StateCounts {
    /// Those in a state.
    pub fn of(&self, state: MessageState) -> u64 {
        match state {
            MessageState::Ready => self.ready,
            MessageState::Reserved => self.reserved,
            MessageState::Delayed => self.delayed,
            MessageState::Buried => self.buried,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.ready + self.reserved + self.delayed + self.buried
    }
}

/// The daemon's figures. The engine fills in what it owns, the dispatcher the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerStatistics {
    /// Messages in all queues.
    pub messages: StateCounts,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Commands so far.
    pub commands: CommandCounts,
    /// Reservations that timed out so far.
    pub timeouts: u64,
    /// Messages put so far.
    pub messages_put: u64,
    /// Puts so far that joined a message with the same key.
    pub messages_joined: u64,
    /// Messages that expired so far.
    pub messages_expired: u64,
    /// Messages that returned to their queues so far, by cause.
    pub returns: ReturnCounts,
    /// Those that policies set aside so far, and those among them that were moved to another queue.
    pub messages_set_aside: u64,
    /// See above.
    pub messages_dead_lettered: u64,
    /// Messages refused so far because they were larger than any that is accepted.
    pub messages_too_large: u64,
    /// Those among them whose senders could not be told.
    pub messages_dropped: u64,
    /// Acknowledgements of messages that the connection held once but no more.
    pub late_acknowledgements: u64,
    /// Acknowledgements of messages that the connection never held.
    pub foreign_acknowledgements: u64,
    /// Queues now.
    pub queues: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections that have put a message.
    pub producers: u64,
    /// Connections that have asked for messages.
    pub workers: u64,
    /// Connections that wait for a message now.
    pub waiting: u64,
    /// Connections so far.
    pub connections_accepted: u64,
    /// Whether the daemon drains.
    pub draining: bool,
    /// Why puts are refused now, if they are.
    pub refused: Option<Refusal>,
    /// What the process and its machine say.
    pub process: ProcessFacts,
    /// What the database file says.
    pub store: StoreFacts,
    /// Connections ended for what they sent.
    pub protocol_errors: u64,
    /// Connections refused for a limit.
    pub connections_refused: u64,
    /// Connections now, by protocol.
    pub connections_by_protocol: Vec<(&'static str, u64)>,
    /// What the wall clock said then, in milliseconds since 1970.
    pub wall_ms: i64,
}

/// Facts of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// A random id of this process's life, in hexadecimal.
    pub instance: String,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// User CPU time so far, in microseconds.
    pub user_cpu_us: u64,
    /// System CPU time so far, in microseconds.
    pub system_cpu_us: u64,
    /// Resident memory now, in bytes.
    pub resident_bytes: u64,
    /// Resident memory at its peak, in bytes.
    pub resident_peak_bytes: u64,
    /// The host's name.
    pub hostname: String,
    /// The system's release and version text.
    pub os: String,
    /// The machine's architecture.
    pub platform: String,
}

/// Facts of the database file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Whether there is one.
    pub on_disk: bool,
    /// Commits so far.
    pub commits: u64,
    /// Rows written so far.
    pub rows_written: u64,
    /// Messages moved by rewrites so far.
    pub rows_rewritten: u64,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of its write-ahead log.
    pub wal_bytes: u64,
    /// Whether the disk refuses what it should keep.
    pub degraded: bool,
    /// Whether another program that reads the file keeps the log from being moved into it.
    pub log_held_up: bool,
}

/// A queue's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Its name.
    pub name: QueueName,
    /// Its messages.
    pub messages: StateCounts,
    /// Messages put since it was made.
    pub messages_put: u64,
    /// Connections that refer to it, to put into it.
    pub using: u64,
    /// Connections that can ask for its messages.
    pub watching: u64,
    /// Those of them that wait for one.
    pub waiting: u64,
    /// The pause in force, in milliseconds.
    pub pause_ms: u64,
    /// What is left of it, in milliseconds.
    pub pause_left_ms: u64,
    /// Removals asked for.
    pub removes: u64,
    /// Pauses asked for.
    pub pauses: u64,
    /// Bytes of its messages' bodies.
    pub body_bytes: u64,
    /// The message that is handed out next.
    pub head: Option<MessageId>,
    /// How long its oldest ready message has been ready, in milliseconds: from when it was put and
    /// the delay that it was last given was over.
    pub oldest_ready_ms: Option<u64>,
    /// Whether an operator has paused it.
    pub is_held: bool,
    /// How many messages it may hold.
    pub limits: QueueLimits,
    /// Some of the messages in somebody's hands, the one first that was handed out first.
    pub holders: Vec<HolderFigures>,
    /// What the wall clock said then, in milliseconds since 1970.
    pub wall_ms: i64,
}

impl QueueStatistics {
    /// The figures of a queue that is not there.
    pub fn of_none(name: QueueName) -> QueueStatistics {
        QueueStatistics {
            name,
            messages: StateCounts::default(),
            messages_put: 0,
            using: 0,
            watching: 0,
            waiting: 0,
            pause_ms: 0,
            pause_left_ms: 0,
            removes: 0,
            pauses: 0,
            body_bytes: 0,
            head: None,
            oldest_ready_ms: None,
            is_held: false,
            limits: QueueLimits::NONE,
            holders: Vec::new(),
            wall_ms: 0,
        }
    }
}

/// Which queues are wanted, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSelection {
    /// `*` stands for any characters, letters match in any case; `None` is every queue.
    pub pattern: Option<Box<str>>,
    /// Only queues that have messages in one of these states; none is any queue.
    pub has: Vec<MessageState>,
    /// The order.
    pub order: QueueOrder,
    /// Behind which place the page begins; `None` is the first page.
    pub after: Option<QueuePlace>,
    /// How many queues the page holds at most.
    pub count: usize,
}

/// An order of queues; those of one rank stand by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named like what there is most of first")]
pub enum QueueOrder {
    Name,
    Ready,
    Reserved,
    Delayed,
    Buried,
    Messages,
    Bytes,
    Oldest,
}

/// Where a queue stood in an order: whatever becomes of it, what stands behind that place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// Its rank.
    pub key: u64,
    /// Its name.
    pub name: QueueName,
}

/// Some queues in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePage {
    /// The queues.
    pub queues: Vec<QueueStatistics>,
    /// Where the page ends, if there are more behind it.
    pub next: Option<QueuePlace>,
}

/// A message in somebody's hands. The engine fills in what it knows, the dispatcher the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderFigures {
    /// The message.
    pub message: MessageId,
    /// Who holds it.
    pub connection: ConnectionId,
    /// How long, in milliseconds, where that is known.
    pub held_ms: Option<u64>,
    /// How long at most from now, in milliseconds, where there is an end.
    pub left_ms: Option<u64>,
    /// What the holder speaks.
    pub protocol: &'static str,
    /// Where it comes from.
    pub peer: String,
}

/// A message's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageStatistics {
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// Its state.
    pub state: MessageState,
    /// Its priority.
    pub priority: u32,
    /// Milliseconds since it was put.
    pub age_ms: u64,
    /// The delay it was last given, in milliseconds.
    pub delay_ms: u64,
    /// How long a reservation lasts, in milliseconds.
    pub time_to_run_ms: u64,
    /// Milliseconds until its delay or its reservation ends, else 0.
    pub time_left_ms: u64,
    /// What happened to it so far.
    pub counters: Counters,
    /// How its processing failed so far.
    pub failures: Failures,
    /// What the wall clock said then, in milliseconds since 1970.
    pub wall_ms: i64,
    /// Whether it ends with the process.
    pub is_volatile: bool,
}

/// How the processing of a message failed so far, as far as a policy counts that or its holders said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Failed attempts since it was put or kicked.
    pub attempts: u32,
    /// Why it returned last.
    pub cause: Option<Cause>,
    /// What its holder said of that, if it failed.
    pub reason: Option<Reason>,
    /// The queue that it was in before it was moved to its dead-letter queue.
    pub origin: Option<QueueName>,
}

/// The fullest queues, and totals over all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The fullest first, then by name.
    pub queues: Vec<QueueSummary>,
    /// How many more match.
    pub more: u64,
    /// Queues in all.
    pub queues_total: u64,
    /// Connections in all.
    pub connections: u64,
    /// Messages in all queues.
    pub messages: StateCounts,
    /// Whether the daemon drains.
    pub draining: bool,
    /// Why puts are refused now, if they are.
    pub refused: Option<Refusal>,
    /// What the process says.
    pub process: ProcessFacts,
    /// What the database file says.
    pub store: StoreFacts,
}

/// One line of a [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSummary {
    /// The queue.
    pub name: QueueName,
    /// Its messages.
    pub messages: StateCounts,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

/// The first messages of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the queue's order: by priority and place; delayed and buried ones after all others.
    pub messages: Vec<ListedMessage>,
    /// How many more there are.
    pub more: u64,
    /// Wall clock minus daemon's scale when it was made, in milliseconds.
    pub wall_offset_ms: i64,
    /// Whether an operator has paused the queue.
    pub paused: bool,
    /// How many messages the queue may hold.
    pub limits: QueueLimits,
}

/// One line of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMessage {
    /// Its id.
    pub id: MessageId,
    /// Its state.
    pub state: MessageState,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// When it was put.
    pub created: Time,
    /// How its processing failed so far.
    pub failures: Failures,
    /// Whether it ends with the process.
    pub is_volatile: bool,
}
