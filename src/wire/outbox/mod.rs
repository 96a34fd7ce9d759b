//! What is to be sent to one peer: one first-in-first-out line of bytes, parts of which wait for a
//! commit to the disk.
//!
//! Owned by the dispatcher, which never waits here: it sends what the socket takes at once and
//! leaves the rest to a writer's thread ([`crate::wire::writer`]) until that has caught up.
//!
//! ```text
//!            released      holds[0].end      holds[1].end
//!   sent         │  commit 7     │   commit 8     │   free, but behind the held ones
//!    ▼           ▼               ▼                ▼
//!    ├───────────┼───────────────┼────────────────┼──────────────┤ bytes
//!      may leave
//! ```
//!
//! Invariant: nothing passes a held answer; the order of the bytes is the order of appending.
//! Failure: every broken socket shows as [`Flush::Broken`], after which the outbox is to be dropped.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::io::Errno;

use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::wire::writer::Writers;
use crate::words::ids::{CommitNumber, Committed, ConnectionId, Part};
use crate::words::limits::{CHUNK_BYTES_MAX, PIECES_PER_SEND_MAX};
use crate::words::output::Output;

/// The unsent bytes of one peer.
#[derive(Debug)]
pub struct Outbox {
    connection: ConnectionId,
    transport: Arc<Transport>,
    gate: Arc<Gate>,
    writers: Arc<Writers>,
    /// Appended and not sent.
    output: Output,
    /// The position up to which bytes may leave whatever is committed.
    released: u64,
    holds: VecDeque<HeldBytes>,
    writer: Option<Active>,
    closed: bool,
}

/// Bytes that wait for this commit: those up to `end`, from the end of the hold before it.
#[derive(Clone, Copy, Debug)]
struct HeldBytes {
    end: u64,
    commit: CommitNumber,
    part: Part,
}

/// The writer that has taken over.
#[derive(Debug)]
struct Active {
    chunks: SyncSender<Vec<u8>>,
    /// Bytes of the chunk that it has not reported yet.
    in_hand: usize,
}

/// What one system call has sent.
struct Sent {
    bytes: usize,
    /// Whether that is all that it was given.
    all_taken: bool,
}

/// What became of an attempt to send.
#[derive(Debug)]
pub enum Flush {
    /// Everything has left.
    Empty,
    /// What is left waits for a commit.
    Held,
    /// The peer does not keep up: a writer has it.
    Slow,
    /// The connection is broken; nothing more can be sent.
    Broken(io::Error),
}

impl Outbox {
    /// The empty outbox of a new connection. It opens the gate when it closes, so that no thread
    /// is left waiting behind a gate that nobody would open any more.
    pub fn new(
        connection: ConnectionId,
        transport: Arc<Transport>,
        gate: Arc<Gate>,
        writers: Arc<Writers>,
    ) -> Outbox {
        Outbox {
            connection,
            transport,
            gate,
            writers,
            output: Output::default(),
            released: 0,
            holds: VecDeque::new(),
            writer: None,
            closed: false,
        }
    }

    /// Where encoders append answers and messages.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Everything appended so far must not leave before that part of that commit, as far as it is
    /// not free or held already. Commits are named in rising order.
    pub fn hold_until(&mut self, commit: CommitNumber, part: Part) {
        let (end, released) = (self.output.end(), self.released_now());
        match self.holds.back_mut() {
            // Nothing was appended since: there is nothing to hold.
            Some(last) if last.end == end => {}
            None if released == end => {}
            Some(last) if commit <= last.commit && part == last.part => last.end = end,
            _ => self.holds.push_back(HeldBytes { end, commit, part }),
        }
    }

    /// What was appended since the last hold needs no commit of its own, also when an answer that
    /// does is appended next. It still does not pass what is held before it.
    pub fn free(&mut self) {
        let end = self.output.end();
        match self.holds.back_mut() {
            Some(last) => last.end = end,
            None => self.released = end,
        }
    }

    /// Sends what may leave without waiting, with one system call unless there are very many large
    /// bodies in it; the writer, if there is one, gets its next chunk instead.
    pub fn flush(&mut self, committed: Committed) -> Flush {
        let mut free = self.free_bytes(committed);
        if self.writer.is_some() {
            return self.feed(free);
        }
        while free > 0 {
            match self.send(free) {
                Ok(Sent { bytes, all_taken }) => {
                    self.output.take(bytes);
                    free -= bytes;
                    if !all_taken {
                        return self.hand_over(free);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.hand_over(free),
                Err(error) => return Flush::Broken(error.into()),
            }
        }
        self.rest()
    }

    /// One send of the first bytes, at most `free` of them.
    fn send(&self, free: usize) -> Result<Sent, Errno> {
        let mut pieces = [IoSlice::new(&[]); PIECES_PER_SEND_MAX];
        let count = self.output.gather(free, &mut pieces);
        let pieces = &pieces[..count];
        let bytes = self.transport.send_at_once(pieces)?;
        let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
        Ok(Sent { bytes, all_taken: bytes == offered })
    }

    /// Takes the writer's report and gives it its next chunk, or ends it when there is none.
    pub fn written(&mut self, result: io::Result<()>, committed: Committed) -> Flush {
        if let Err(error) = result {
            self.writer = None;
            return Flush::Broken(error);
        }
        if let Some(writer) = &mut self.writer {
            writer.in_hand = 0;
        }
        let free = self.free_bytes(committed);
        if free == 0 {
            self.writer = None;
            return self.rest();
        }
        self.feed(free)
    }

    /// Bytes that have been appended and not sent, those in the writer's hands and those that wait
    /// for a commit included.
    pub fn unsent_bytes(&self) -> usize {
        let in_hand = self.writer.as_ref().map_or(0, |writer| writer.in_hand);
        self.output.len() + in_hand
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.unsent_bytes() == 0
    }

    /// Where the next byte is appended, counted from the first one ever.
    pub fn position(&self) -> u64 {
        self.output.end()
    }

    /// Puts other words in the place of held answers, which are in rising order and all before
    /// `until`, and lets everything up to there leave whatever is committed. `words` writes those
    /// for the answer of that index. Returns where `until` is now; what lies behind it has moved
    /// along.
    pub fn replace_held(
        &mut self,
        answers: &[Range<u64>],
        until: u64,
        words: impl FnMut(usize, &mut Output),
    ) -> u64 {
        let until_now = self.output.replace(answers, until, words);
        self.holds.retain_mut(|hold| {
            let is_behind = hold.end > until;
            hold.end = if is_behind { hold.end - until + until_now } else { hold.end };
            is_behind
        });
        self.released = until_now;
        until_now
    }

    /// Ends the connection: drops what is unsent, shuts the socket down so that whoever reads or
    /// writes there returns, and lets the client's thread out from behind its gate. What the
    /// system has already taken still reaches the peer.
    pub fn close(&mut self) {
        if mem::replace(&mut self.closed, true) {
            return;
        }
        self.writer = None;
        self.output.clear();
        self.holds.clear();
        if self.gate.is_left() {
            self.transport.shut_down_and_drain();
        } else {
            // The client's thread reads on to the end. Taking bytes from under it would let it
            // go on in the middle of a frame, where a body may look like a command.
            self.transport.shut_down();
        }
        self.gate.open_for_good();
    }

    /// The position up to which bytes have left or are free, when nothing is held.
    fn released_now(&self) -> u64 {
        self.released.max(self.output.start())
    }

    /// Drops the holds that this commit fulfils; how many bytes may leave now.
    fn free_bytes(&mut self, committed: Committed) -> usize {
        while let Some(hold) = self.holds.front()
            && committed.has(hold.commit, hold.part)
        {
            self.released = hold.end;
            self.holds.pop_front();
        }
        if self.holds.is_empty() {
            return self.output.len();
        }
        let free = self.released_now() - self.output.start();
        // Invariant: nothing was released that was not appended, so this fits what is there.
        usize::try_from(free).unwrap_or(usize::MAX).min(self.output.len())
    }

    /// What is left when nothing may leave.
    fn rest(&self) -> Flush {
        if self.is_empty() { Flush::Empty } else { Flush::Held }
    }

    /// The socket takes no more: a writer takes over.
    fn hand_over(&mut self, free: usize) -> Flush {
        match self.writers.start(self.connection, &self.transport) {
            Ok(chunks) => {
                self.writer = Some(Active { chunks, in_hand: 0 });
                self.feed(free)
            }
            Err(error) => Flush::Broken(error),
        }
    }

    /// Gives the writer a chunk if it has none.
    fn feed(&mut self, free: usize) -> Flush {
        let count = free.min(CHUNK_BYTES_MAX);
        let Some(writer) = &mut self.writer else {
            return self.rest();
        };
        if writer.in_hand > 0 || count == 0 {
            return Flush::Slow;
        }
        // Copies large bodies too: the writer's thread cannot borrow them from here, and a peer that
        // reads slowly gains nothing from sharing.
        let chunk = self.output.take_copy(count);
        if writer.chunks.try_send(chunk).is_err() {
            // The channel has room, since the writer has reported every chunk: so the writer has
            // ended.
            return Flush::Broken(io::Error::other("the writer's thread has ended"));
        }
        writer.in_hand = count;
        Flush::Slow
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
