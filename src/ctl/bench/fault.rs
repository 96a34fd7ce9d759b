//! What ends a run before its figures are worth anything.

use std::fmt;
use std::io;

/// A run that failed.
#[derive(Debug)]
pub enum Fault {
    /// The server cannot be reached, or was lost.
    Connection(io::Error),
    /// The server closed the connection.
    Closed,
    /// An answer that does not fit what was asked: its first bytes.
    Answer(Vec<u8>),
    /// A frame of a form that the server never sends.
    Frame(&'static str),
    /// The system has no thread for it.
    Thread(io::Error),
    /// The system refuses something else.
    System(io::Error),
    /// A thread of ours panicked.
    Panicked,
}

impl Fault {
    /// Whether it is about reaching the server rather than about what it said.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Fault::Connection(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Connection(error) => write!(f, "cannot connect to the server: {error}"),
            Fault::Closed => f.write_str("the server has closed a connection"),
            Fault::Answer(bytes) => {
                write!(f, "an unexpected reply: {:?}", String::from_utf8_lossy(bytes))
            }
            Fault::Frame(what) => write!(f, "invalid frame: {what}"),
            Fault::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Fault::System(error) => write!(f, "system error: {error}"),
            Fault::Panicked => f.write_str("a thread of the benchmark panicked"),
        }
    }
}

/// The start of what was received, for [`Fault::Answer`].
pub fn excerpt(bytes: &[u8]) -> Fault {
    Fault::Answer(bytes[..bytes.len().min(60)].to_vec())
}
