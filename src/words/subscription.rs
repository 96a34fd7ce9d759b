//! What a connection wants: the words for its subscriptions.

use crate::words::ids::QueueName;
use crate::words::short_bytes::ShortBytes;
use crate::words::tag::Tag;

/// What a connection calls one of its subscriptions; the core compares it and reads nothing into
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionKey {
    /// The queue itself: one subscription a queue.
    Queue,
    /// A number of the protocol's own.
    Number(u64),
    /// Bytes of the protocol's own.
    Bytes(ShortBytes),
}

/// How a subscription is handed messages. A reserve can take from it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// When the connection asks for one, now or after a wait.
    #[default]
    OnRequest,
    /// As they come, while at most so many are in the connection's hands; 1 or more.
    Window(u32),
    /// Not at all, but told once that something is ready, and again after its next command about
    /// this subscription.
    WakeUp,
}

/// Who says that a message is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settlement {
    /// The consumer.
    #[default]
    ByConsumer,
    /// Nobody: it is done when the last byte of the answer that carries it has been handed to the
    /// kernel, and comes back if the connection breaks before.
    WhenSent,
}

/// How long a consumer may keep a message that it does not settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terms {
    /// As long as the message says.
    #[default]
    MessageTimeToRun,
    /// So many milliseconds.
    Given(u64),
    /// As long as the connection's `ack_timeout` says. In a window that is one clock, for the
    /// oldest message.
    AckTimeout,
    /// Until the connection ends.
    Unlimited,
}

/// What a subscription asks for beside its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How it is handed messages.
    pub demand: Demand,
    /// Who says that they are done. While some are out this and the terms stay as they were.
    pub settlement: Settlement,
    /// How long they may take.
    pub terms: Terms,
    /// What comes along with each message of a window, and with a sign to wake up.
    pub tag: Tag,
}

impl Options {
    /// A window of this size, with one clock for its oldest message.
    pub fn window(size: u32) -> Options {
        let (demand, terms) = (Demand::Window(size), Terms::AckTimeout);
        Options { demand, terms, ..Options::default() }
    }
}

/// What a reserve takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The queues of a subscription.
    Subscription(SubscriptionKey),
    /// These queues, this once. Those that are not there are made if the reserve waits, and else
    /// have nothing.
    Queues {
        /// Which. [`Amount::Each`] goes by their order and counts a name as often as it stands here.
        names: Box<[QueueName]>,
        /// Who says that the messages are done.
        settlement: Settlement,
        /// How long they may take.
        terms: Terms,
    },
}

/// How many messages a reserve takes at most: those that are there when the first one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many of all its queues together, in the order of the queues' union; 1 or more.
    Total(u32),
    /// So many of each of its queues, 1 or more, one queue after the other in the order in which
    /// they were named or added. One that has none is left out.
    Each(u32),
}
