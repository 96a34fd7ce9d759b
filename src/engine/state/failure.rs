//! How the processing of messages failed so far, and where dead letters came from: kept of the few
//! messages that a policy had to do with, or that their holders could not process.
//!
//! Written with each state of the message; what no state was written for since (a failed attempt
//! after which it was ready at once) is written at an orderly stop, like other counters.

use crate::words::cause::{Cause, Reason};
use crate::words::clock::Time;
use crate::words::ids::Sequence;

use super::queue::QueueSlot;

/// How the processing of one message failed.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// Failed attempts since it was put or kicked.
    pub attempts: u32,
    /// Why it returned last.
    pub cause: Option<Cause>,
    /// When that was.
    pub returned: Option<Time>,
    /// What its holder said of that, if it failed.
    pub reason: Option<Reason>,
    /// Whether it is for good in another queue than it was put into, or came to its dead-letter
    /// queue from such a one.
    pub is_elsewhere: bool,
    /// Where it came from, if it is a dead letter.
    pub home: Option<Home>,
}

/// What a dead letter was in the queue that it came from.
#[derive(Clone, Debug)]
pub struct Home {
    /// That queue, which stays while it has dead letters elsewhere.
    pub queue: QueueSlot,
    /// Its place there.
    pub sequence: Sequence,
    /// Its place among the buried.
    pub burial: u64,
    /// How long it had to live, in milliseconds.
    pub life_left: Time,
}
