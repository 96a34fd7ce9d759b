//! What peers can ask of the core and what it says to them, in words that no protocol owns.
//!
//! A decoder turns bytes into [`Request`]s, the engine answers with [`Reply`]s and hands out
//! messages as [`Delivery`]s, an encoder turns those into bytes. What an encoder needs to know
//! besides (a receipt id, which screen was asked for) rides along in a [`Tag`] that neither engine
//! nor dispatcher reads.

use crate::words::body::{Body, BodyRef};
use crate::words::cause::Reason;
use crate::words::change::{Attributes, MessageState};
use crate::words::ids::{MessageId, QueueName};
use crate::words::key::{Key, KeyFound, KeyedBy};
use crate::words::limits::REQUESTS_PER_BATCH_MAX;
use crate::words::refusal::Refusal;
use crate::words::settings::QueueSetting;
use crate::words::statistics::{
    Counted, Listing, MessageStatistics, QueuePage, QueueSelection, QueueStatistics,
    ServerStatistics, Survey,
};
pub use crate::words::subscription::{
    Amount, Demand, Options, Settlement, Sources, SubscriptionKey, Terms,
};
pub use crate::words::tag::Tag;

/// How a protocol's connections behave in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Each request is answered before the next one is looked at; a reservation that waits holds
    /// up what comes behind it.
    Serial,
    /// Requests have no answers and messages come when they come (windows).
    Streaming,
}

/// One thing that a peer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For the encoder of the answer.
    pub tag: Tag,
    /// What is asked.
    pub command: Command,
}

/// A queue as a command names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The queue that the connection has referred to ([`Command::Refer`]).
    Referred,
    /// This queue.
    Named(QueueName),
}

/// A message in the connection's hands, as a command names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageRef {
    /// This message.
    Id(MessageId),
    /// This message, if it is of this queue.
    IdOf(MessageId, QueueName),
    /// The message of this queue that the connection took on request, and the oldest of them if
    /// there are several.
    HeldOf(QueueName),
}

/// A message to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Where to.
    pub queue: Target,
    /// 0 is handed out first; `None` takes `queue.priority`.
    pub priority: Option<u32>,
    /// Milliseconds until it is ready.
    pub delay_ms: u64,
    /// Milliseconds that a reservation lasts; `None` takes `queue.time_to_run`.
    pub time_to_run_ms: Option<u64>,
    /// Milliseconds until it expires; `None` is never.
    pub time_to_live_ms: Option<u64>,
    /// What the protocol must give back with it.
    pub attributes: Attributes,
    /// The message itself.
    pub body: Body,
}

impl Put {
    /// A message with the queue's defaults.
    pub fn new(queue: Target, body: impl Into<Body>) -> Put {
        Put {
            queue,
            priority: None,
            delay_ms: 0,
            time_to_run_ms: None,
            time_to_live_ms: None,
            attributes: Attributes::default(),
            body: body.into(),
        }
    }
}

/// A message to be queued, and what few of them ask for beside that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutWith {
    /// The message.
    pub put: Put,
    /// What else.
    pub extras: Extras,
}

/// What few puts ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Its deduplication key, and how long that is taken.
    pub keyed: Option<KeyedBy>,
    /// Whether it is kept in memory alone, until the process ends. Then its answer waits for no
    /// commit.
    pub is_volatile: bool,
}

/// One of several steps that happen wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TogetherStep {
    /// Queue a message, or join the one that has its key.
    Put(PutWith),
    /// A held message is done.
    Acknowledge(MessageRef),
    /// Give a held message back to its old place.
    Release {
        /// The message.
        message: MessageRef,
        /// Its new priority; `None` keeps the old.
        priority: Option<u32>,
        /// Milliseconds until it is ready again.
        delay_ms: u64,
    },
    /// Set a held message aside until it is kicked.
    Bury {
        /// The message.
        message: MessageRef,
        /// Its new priority; `None` keeps the old.
        priority: Option<u32>,
    },
    /// A held message could not be processed.
    Fail {
        /// The message.
        message: MessageRef,
        /// Why, for people.
        reason: Option<Reason>,
    },
}

impl TogetherStep {
    /// The bytes of the body that it brings.
    pub fn body_bytes(&self) -> u64 {
        match self {
            TogetherStep::Put(with) => with.put.body.len() as u64,
            _ => 0,
        }
    }
}

/// The commands of the core.
///
/// "Held" messages are those that this connection has in hand, through a reservation or through
/// one of its windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Queue a message. Answer: [`Reply::Put`].
    Put(Put),
    /// The same with what few puts ask for. Where the key is taken in the queue, the put joins the
    /// message that has it, and what it brings is dropped; one that is not volatile makes that message
    /// durable. Answer: [`Reply::Put`], or [`Reply::Joined`], which no refusal of puts precedes unless
    /// the message would have to become durable.
    PutWith(Box<PutWith>),
    /// Do all of this in this order, or nothing of it: where one step is impossible, or all of them
    /// are too much for one commit ([`TOGETHER_ROWS_MAX`], [`TOGETHER_BYTES_MAX`]), the whole is
    /// refused. Messages are handed out when all of it is done. It is in one batch, and so in the
    /// file wholly or not at all. Answer: [`Reply::Together`] or
    /// [`Reply::Refused`].
    ///
    /// [`TOGETHER_ROWS_MAX`]: crate::words::limits::TOGETHER_ROWS_MAX
    /// [`TOGETHER_BYTES_MAX`]: crate::words::limits::TOGETHER_BYTES_MAX
    Together(Box<[TogetherStep]>),
    /// Look where a key is taken. Answer: [`Reply::Keys`] or [`Reply::NotFound`].
    FindKey {
        /// In this queue; `None` is in all of them.
        queue: Option<QueueName>,
        /// The key.
        key: Key,
    },
    /// Name the queue of later [`Target::Referred`]. Answer: [`Reply::Referred`].
    Refer(QueueName),
    /// Add a queue to the set of a subscription, which is made if there is none of this key, and
    /// say what it asks for. Answer: [`Reply::Subscribed`], but none where the key is the queue
    /// itself; [`Refusal::TooManyQueues`] in either case.
    Subscribe {
        /// Which subscription.
        key: SubscriptionKey,
        /// The queue.
        queue: QueueName,
        /// From now on; the tag is that of messages, the request's own that of its answer.
        options: Options,
    },
    /// Take a queue out of the set of a subscription. What a window has out of it is given back.
    /// Answer: [`Reply::Subscribed`], but none where the key is the queue itself.
    Unsubscribe {
        /// Which subscription.
        key: SubscriptionKey,
        /// The queue.
        queue: QueueName,
        /// Whether the last queue stays, with the answer [`Refusal::LastQueue`].
        keep_last: bool,
    },
    /// Take messages of some queues, waiting `timeout_ms` for the first one (`None` for ever).
    /// Answer: deliveries in one go (the reply [`Reply::Batch`] goes before them when the amount is
    /// not one in total), [`Reply::TimedOut`], [`Reply::DeadlineSoon`] or a refusal. They are fewer
    /// than there are where one turn may send the connection no more.
    Reserve {
        /// Which queues.
        from: Sources,
        /// Whether it is refused with [`Refusal::Holding`] while the connection holds a message of
        /// one of them.
        refuse_if_holding: bool,
        /// How long to wait.
        timeout_ms: Option<u64>,
        /// How many at most.
        amount: Amount,
    },
    /// Take this message, which may be ready, delayed or buried. Answer: a delivery or
    /// [`Reply::NotFound`].
    ReserveMessage(MessageId),
    /// A held message is done. Window protocols name its queue and get no answer
    /// ([`Reply::Acknowledged`] is for those that want one).
    Acknowledge(MessageRef),
    /// Remove a message that nobody else holds, held by this connection or not. Answer:
    /// [`Reply::Removed`] or [`Reply::NotFound`].
    Remove(MessageId),
    /// Give a held message back to its old place. Answer: [`Reply::Released`].
    Release {
        /// The message.
        message: MessageRef,
        /// Its new priority; `None` keeps the old.
        priority: Option<u32>,
        /// Milliseconds until it is ready again.
        delay_ms: u64,
    },
    /// Give a held message back to the end of its queue, with a new time to live (`None` is for
    /// ever). Answer: [`Reply::Released`].
    Requeue {
        /// The message.
        message: MessageRef,
        /// Milliseconds from now.
        time_to_live_ms: Option<u64>,
    },
    /// Set a held message aside until it is kicked. Answer: [`Reply::Buried`].
    Bury {
        /// The message.
        message: MessageRef,
        /// Its new priority; `None` keeps the old.
        priority: Option<u32>,
    },
    /// A held message could not be processed. It goes back to its old place, or where the policy of
    /// its queue sends it. Answer: [`Reply::Released`].
    Fail {
        /// The message.
        message: MessageRef,
        /// Why, for people.
        reason: Option<Reason>,
    },
    /// A held message is to be settled by a [`Command::Together`] that comes later, and by nothing
    /// else: until then no clock runs for it, and its place in a window is free. Answer:
    /// [`Reply::Marked`].
    Mark(MessageRef),
    /// It is not after all: it is in the connection's hands as if it had just been taken on request.
    /// Answer: [`Reply::Marked`], or [`Reply::NotFound`] for one that is not marked.
    Unmark(MessageId),
    /// Keep a volatile message beyond the end of the process, as it is now, and its key with it;
    /// one that is kept already stays as it is. Answer: [`Reply::Promoted`] or [`Reply::NotFound`].
    Promote(MessageId),
    /// Start the time to run of a held message anew. Answer: [`Reply::Touched`].
    Touch(MessageRef),
    /// Look at a message. Answer: a found message or [`Reply::NotFound`].
    Peek(MessageId),
    /// Look at the next message of the queue in that state (ready, delayed or buried). Answer: a
    /// found message or [`Reply::NotFound`].
    PeekNext {
        /// The queue.
        queue: Target,
        /// The state.
        state: MessageState,
    },
    /// Bring back up to `count` messages of a queue: dead letters to the queues that they came
    /// from; buried ones when there are none; delayed ones when none is buried. Answer:
    /// [`Reply::Kicked`], or [`Reply::NotFound`] for a queue that is named and not there.
    Kick {
        /// The queue.
        queue: Target,
        /// How many at most.
        count: u64,
    },
    /// Bring back this dead letter, buried or delayed message. Answer: [`Reply::KickedOne`].
    KickMessage(MessageId),
    /// Hand out nothing of the queue for so long. Answer: [`Reply::Paused`] or
    /// [`Reply::NotFound`].
    Pause {
        /// The queue.
        queue: QueueName,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Change what an operator sets of a queue, which is made if there is none. Answer:
    /// [`Reply::Configured`], [`Reply::Refused`], or [`Reply::NotFound`] where there is no queue
    /// whose setting could be taken back.
    Configure {
        /// The queue.
        queue: QueueName,
        /// What is changed.
        setting: QueueSetting,
    },
    /// Remove every message of the queue, whatever its state. Answer: [`Reply::Flushed`] or
    /// [`Reply::NotFound`].
    Flush(QueueName),
    /// The same for every queue. Answer: [`Reply::Flushed`].
    FlushAll,
    /// Remove every message of a queue and everything that was set of it, so that it goes unless a
    /// connection needs it. Answer: [`Reply::Flushed`], [`Reply::NotFound`] or
    /// [`Refusal::NotEmpty`].
    RemoveQueue {
        /// The queue.
        queue: QueueName,
        /// Whether one that holds messages is left as it is.
        only_if_empty: bool,
    },
    /// Set a message aside that nobody holds, until it is kicked. Answer: [`Reply::Buried`], or
    /// [`Reply::NotFound`] for one that is held, set aside already, or not there.
    SetAside(MessageId),
    /// The daemon's figures. Answer: [`Reply::Statistics`].
    Statistics,
    /// A message's figures. Answer: [`Reply::MessageStatistics`] or [`Reply::NotFound`].
    MessageStatistics(MessageId),
    /// A queue's figures. Answer: [`Reply::QueueStatistics`] or [`Reply::NotFound`].
    QueueStatistics(QueueName),
    /// The names of all queues. Answer: [`Reply::Queues`].
    ListQueues,
    /// The queue that was referred to last. Answer: [`Reply::Referred`] or [`Reply::NotFound`].
    ShowReferred,
    /// The queues of a subscription, in the order in which they were added. Answer:
    /// [`Reply::Queues`].
    ListSubscribed(SubscriptionKey),
    /// The fullest queues whose names match, and totals. Answer: [`Reply::Survey`].
    Survey {
        /// `*` stands for any characters, letters match in any case; `None` is every queue.
        pattern: Option<Box<str>>,
        /// How many queues the answer holds at most.
        lines_max: usize,
    },
    /// A page of queues, with their figures. Answer: [`Reply::QueuePage`].
    SelectQueues(Box<QueueSelection>),
    /// The first messages of a queue in their order. Answer: [`Reply::Listing`]; an unknown
    /// queue is an empty one.
    List {
        /// The queue.
        queue: QueueName,
        /// How many messages the answer holds at most.
        lines_max: usize,
    },
    /// Nothing but its answer, [`Reply::Echo`], in its turn: how a decoder says things (an error,
    /// a help text, a revision) to its own encoder in the order of the conversation.
    Echo,
    /// The same for a command that the decoder found malformed, and that counts as one.
    Malformed {
        /// As which one.
        counted: Counted,
        /// Whether it was a put up to its body: then it makes a producer, and costs an id.
        costs_id: bool,
    },
    /// A put that was refused when its first line said how large it is: its body was not kept.
    /// Answer: [`Reply::Refused`] with that reason.
    PutRefused {
        /// Why.
        refusal: Refusal,
        /// How large the body was announced to be.
        body_bytes: u64,
    },
    /// The end of the conversation, said by the peer: what follows is not read.
    Quit,
}

const _: () = assert!(size_of::<Command>() <= 104, "a request is moved several times on its way");

/// The requests decoded from what has arrived, up to a channel message's worth.
#[derive(Debug, Default)]
pub struct Requests {
    requests: Vec<Request>,
    body_bytes: u64,
}

impl Requests {
    /// Adds a request.
    pub fn push(&mut self, tag: Tag, command: Command) {
        self.body_bytes += match &command {
            Command::Put(put) => put.body.len() as u64,
            Command::PutWith(with) => with.put.body.len() as u64,
            Command::Together(steps) => steps.iter().map(TogetherStep::body_bytes).sum(),
            _ => 0,
        };
        self.requests.push(Request { tag, command });
    }

    /// Whether a decoder must stop until this batch has been sent.
    pub fn is_full(&self) -> bool {
        self.requests.len() >= REQUESTS_PER_BATCH_MAX
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The bytes of all bodies in it.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes all of them out.
    pub fn take(&mut self) -> Vec<Request> {
        self.body_bytes = 0;
        std::mem::take(&mut self.requests)
    }
}

/// An answer of the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The message is queued under this id.
    Put(MessageId),
    /// The key of the message was taken: by this message, which stands for it, or, where that is
    /// done, by nothing but its time.
    Joined(Option<MessageId>),
    /// All of it is done. For each put, in their order, what [`Reply::Put`] or [`Reply::Joined`]
    /// would name.
    Together(Vec<Option<MessageId>>),
    /// Where a key is taken.
    Keys(Vec<KeyFound>),
    /// This queue is meant by [`Target::Referred`].
    Referred(QueueName),
    /// The subscription has so many queues now.
    Subscribed(usize),
    /// Something is ready for a subscription that is told so.
    WakeUp,
    /// No message came in time.
    TimedOut,
    /// A message that this connection holds is about to time out, so it should not wait.
    DeadlineSoon,
    /// So many deliveries follow, none of them with a reply between.
    Batch(usize),
    /// The message is done.
    Acknowledged,
    /// An acknowledgement of a message that this connection does not hold; silent protocols
    /// write nothing.
    NotHeld,
    /// The message is removed.
    Removed,
    /// The message is back in its queue.
    Released,
    /// The message is set aside.
    Buried,
    /// The message is marked to be settled later, or not any more.
    Marked,
    /// The message is durable.
    Promoted,
    /// Its time to run starts anew.
    Touched,
    /// So many messages were brought back.
    Kicked(u64),
    /// The message was brought back.
    KickedOne,
    /// The queue is paused.
    Paused,
    /// The setting is changed.
    Configured,
    /// So many messages were removed.
    Flushed(u64),
    /// There is no such message or queue, or somebody else has it.
    NotFound,
    /// The daemon's figures.
    Statistics(Box<ServerStatistics>),
    /// A message's figures.
    MessageStatistics(Box<MessageStatistics>),
    /// A queue's figures.
    QueueStatistics(Box<QueueStatistics>),
    /// Names of queues.
    Queues(Vec<QueueName>),
    /// The fullest queues.
    Survey(Box<Survey>),
    /// Some queues in an order.
    QueuePage(Box<QueuePage>),
    /// The first messages of a queue.
    Listing(Box<Listing>),
    /// The answer to [`Command::Echo`] and its like.
    Echo,
    /// A valid request that can not be met now.
    Refused(Refusal),
}

impl Reply {
    /// Whether this answer promises that something will still be so after a crash, and so has to
    /// wait for the disk where the durability level says so.
    pub fn promises(&self) -> bool {
        matches!(
            self,
            Reply::Put(_)
                | Reply::Joined(_)
                | Reply::Together(_)
                | Reply::Promoted
                | Reply::Acknowledged
                | Reply::Removed
                | Reply::Released
                | Reply::Buried
                | Reply::Kicked(_)
                | Reply::KickedOne
                | Reply::Flushed(_)
                | Reply::Configured
        )
    }
}

/// Why a message is sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handing {
    /// It is reserved for the peer.
    Reserved,
    /// It goes through one of the peer's windows.
    Dispatched,
    /// The peer only looks at it.
    Found,
}

/// A message on its way to a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery<'a> {
    /// Why.
    pub handing: Handing,
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: &'a QueueName,
    /// Its priority.
    pub priority: u32,
    /// Milliseconds until it expires; `None` is never.
    pub time_to_live_ms: Option<u64>,
    /// How often it has been handed out, this time included.
    pub reserves: u32,
    /// Whether it ends with the process.
    pub is_volatile: bool,
    /// What the protocol it came by left with it.
    pub attributes: &'a Attributes,
    /// The message itself.
    pub body: BodyRef<'a>,
}
