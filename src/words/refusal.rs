//! Why the core does not carry out a valid request, in words for people.

use std::fmt;

/// Why a valid request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The daemon drains: it takes no new messages.
    Draining,
    /// `limits.max_memory` is reached.
    OutOfMemory,
    /// The message is larger than any that is accepted: trying again is of no use.
    TooLarge,
    /// The disk does not take what it should keep.
    StoreUnavailable,
    /// The disk did not take it within `storage.commit_timeout`: whether it was done is unknown.
    OutcomeUnknown,
    /// `limits.max_queues` is reached.
    TooManyQueues,
    /// The message ids are used up.
    OutOfIds,
    /// The last queue of a subscription is to stay.
    LastQueue,
    /// The queue holds as many messages as its operator allows.
    QueueFull,
    /// A message is not in the connection's hands.
    NotHeld,
    /// A list of steps is too long to happen as a whole.
    TooMuchTogether,
    /// The queue holds messages, and was to be removed only without any.
    NotEmpty,
    /// The connection holds a message of the queue, and has said that then it wants no other.
    Holding,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Draining => "the daemon is draining",
            Refusal::OutOfMemory => "limits.max_memory is reached",
            Refusal::TooLarge => {
                "the message is larger than limits.max_message_size or limits.max_memory allow"
            }
            Refusal::StoreUnavailable => "new messages cannot be written to the disk",
            Refusal::OutcomeUnknown => "not written to the disk in time, the outcome is unknown",
            Refusal::TooManyQueues => "limits.max_queues is reached",
            Refusal::OutOfIds => "the message ids are used up",
            Refusal::LastQueue => "the last queue of a subscription cannot be taken out",
            Refusal::QueueFull => "the queue is full",
            Refusal::NotHeld => "a message is not held by the connection",
            Refusal::TooMuchTogether => "the list of steps is too long to happen as a whole",
            Refusal::NotEmpty => "the queue holds messages",
            Refusal::Holding => "the connection holds a message of the queue already",
        })
    }
}
