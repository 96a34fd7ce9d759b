//! What the protocols have in common: the words of a work queue, without a schedule.

use std::net::TcpStream;

use crate::fault::Fault;

/// One connection's side of a protocol.
pub trait Talk {
    /// Whether messages come without being asked for.
    fn is_pushed(&self) -> bool {
        false
    }

    /// Says hello on a blocking socket, makes the queue where `is_first`, and reads no byte that
    /// belongs to the run.
    ///
    /// # Errors
    /// The connection is lost or the server refuses.
    fn open(&mut self, stream: &mut TcpStream, is_first: bool) -> Result<(), Fault>;

    /// Appends the putting of one message.
    fn put(&mut self, body: &[u8], out: &mut Vec<u8>);

    /// Appends the question for so many messages.
    fn ask(&mut self, count: usize, out: &mut Vec<u8>);

    /// Appends the acknowledgement of all these, and says whether an answer will come.
    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool;

    /// Takes one event from the front of `bytes`; `None` when it is not whole yet. What must be
    /// said at once because of it is appended to `out`.
    ///
    /// # Errors
    /// It is not what was asked for.
    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault>;
}

/// What a server has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// So many messages have been put.
    Confirmed(usize),
    /// A message, and what its acknowledgement has to name.
    Message { handle: &'a [u8], body: &'a [u8] },
    /// So many of those that were asked for will not come: ask again.
    Short(usize),
    /// So many have been acknowledged.
    Acknowledged(usize),
    /// Nothing of interest.
    Other,
}

/// The handles of messages that were taken and not yet acknowledged.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    due_us: Vec<u64>,
}

impl Held {
    /// One more, which was due then.
    pub fn push(&mut self, handle: &[u8], due_us: u64) {
        self.bytes.extend_from_slice(handle);
        self.ends.push(self.bytes.len());
        self.due_us.push(due_us);
    }

    /// None any more.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.due_us.clear();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The handles, oldest first.
    pub fn handles(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// When they were due.
    pub fn due_us(&self) -> &[u64] {
        &self.due_us
    }
}
