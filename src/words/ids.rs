//! The names of things: messages, places, queues, connections and commits.
//!
//! Each is a type of its own so that a message's id cannot stand where its place is meant.

use std::fmt;
use std::sync::Arc;

use crate::words::limits::QUEUE_NAME_BYTES_MAX;

/// A message's id: from 1, never used twice, also not after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A message's place among those of its priority; the message's id until it is re-queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A queue's number in the database; a queue that comes back gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A client connection, counted from 1 in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The number of a commit to the database file, counted from 1 in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);

/// The parts of a commit, in the order in which they go to a disk that is full: removals free room,
/// moves take a little of what is set aside, and puts have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Messages that are done, and the reservation of ids.
    Removals,
    /// Messages that were released, buried or kicked.
    Moves,
    /// Messages that were put, and what was moved of those.
    Puts,
}

/// Up to which commit each part is in the database file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed([CommitNumber; 3]);

impl Committed {
    /// Whether the file has this part of that commit.
    pub fn has(self, commit: CommitNumber, part: Part) -> bool {
        commit <= self.0[part as usize]
    }

    /// Notes that the file has a commit up to this part, and all commits before it up to there.
    pub fn note(&mut self, commit: CommitNumber, up_to: Part) {
        self.0[..=up_to as usize].fill(commit);
    }
}

impl From<CommitNumber> for Committed {
    fn from(commit: CommitNumber) -> Committed {
        Committed([commit; 3])
    }
}

macro_rules! display_as_number {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(MessageId Sequence QueueId ConnectionId CommitNumber);

/// A queue's name: 1 to 200 bytes of UTF-8 without control characters, compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

/// Why some bytes are no queue name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueNameError {
    /// It has no bytes.
    Empty,
    /// It has more than [`QUEUE_NAME_BYTES_MAX`] bytes.
    TooLong(usize),
    /// It is not UTF-8.
    NotUtf8,
    /// It holds a control character.
    ControlCharacter,
}

impl QueueName {
    /// Checks the bytes and keeps them.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn new(bytes: &[u8]) -> Result<QueueName, QueueNameError> {
        if bytes.is_empty() {
            return Err(QueueNameError::Empty);
        }
        if bytes.len() > QUEUE_NAME_BYTES_MAX {
            return Err(QueueNameError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| QueueNameError::NotUtf8)?;
        if text.chars().any(char::is_control) {
            return Err(QueueNameError::ControlCharacter);
        }
        Ok(QueueName(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for QueueNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueNameError::Empty => f.write_str("the queue name is empty"),
            QueueNameError::TooLong(bytes) => {
                write!(f, "the queue name has {bytes} bytes, more than {QUEUE_NAME_BYTES_MAX}")
            }
            QueueNameError::NotUtf8 => f.write_str("the queue name is not UTF-8"),
            QueueNameError::ControlCharacter => {
                f.write_str("the queue name holds a control character")
            }
        }
    }
}

impl std::error::Error for QueueNameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_of_1_to_200_bytes_are_taken() {
        assert_eq!(QueueName::new(b"a").unwrap().as_str(), "a");
        assert!(QueueName::new(&[b'q'; 200]).is_ok());
        assert_eq!(QueueName::new("größe ☂".as_bytes()).unwrap().as_str(), "größe ☂");
    }

    #[test]
    fn other_queue_names_are_refused_with_the_reason() {
        assert_eq!(QueueName::new(b""), Err(QueueNameError::Empty));
        assert_eq!(QueueName::new(&[b'q'; 201]), Err(QueueNameError::TooLong(201)));
        assert_eq!(QueueName::new(b"\xff"), Err(QueueNameError::NotUtf8));
        assert_eq!(QueueName::new(b"a\tb"), Err(QueueNameError::ControlCharacter));
        assert_eq!(QueueName::new("a\u{85}".as_bytes()), Err(QueueNameError::ControlCharacter));
    }
}
