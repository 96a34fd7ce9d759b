//! What is to be sent to one peer: one first-in-first-out line of bytes, parts of which wait for a
//! commit to the disk.
//!
//! Owned by the dispatcher, which never waits here: it sends what the socket takes at once and
//! leaves the rest to a writer's thread ([`crate::writer`]) until that has caught up.
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
use std::io;
use std::mem;
use std::net::Shutdown;
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use crate::gate::Gate;
use crate::ids::{CommitNumber, ConnectionId};
use crate::limits::{CHUNK_BYTES_MAX, OUTBOX_KEPT_BYTES};
use crate::writer::Writers;

/// The unsent bytes of one peer.
#[derive(Debug)]
pub struct Outbox {
    connection: ConnectionId,
    socket: Arc<Socket>,
    gate: Arc<Gate>,
    writers: Arc<Writers>,
    /// Appended and not given back yet; the first `sent` of them have left.
    bytes: Vec<u8>,
    sent: usize,
    /// The position of `bytes[0]` in all that was ever appended, so that holds need no moving.
    base: u64,
    /// The position up to which bytes may leave whatever is committed.
    released: u64,
    holds: VecDeque<Hold>,
    writer: Option<Active>,
    closed: bool,
}

/// Bytes up to `end` wait for this commit, from where the hold before ends.
#[derive(Clone, Copy, Debug)]
struct Hold {
    end: u64,
    commit: CommitNumber,
}

/// The writer that has taken over.
#[derive(Debug)]
struct Active {
    chunks: Sender<Vec<u8>>,
    /// Bytes of the chunk that it has not reported yet.
    in_hand: usize,
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
        socket: Arc<Socket>,
        gate: Arc<Gate>,
        writers: Arc<Writers>,
    ) -> Outbox {
        Outbox {
            connection,
            socket,
            gate,
            writers,
            bytes: Vec::new(),
            sent: 0,
            base: 0,
            released: 0,
            holds: VecDeque::new(),
            writer: None,
            closed: false,
        }
    }

    /// Where encoders append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Everything appended so far must not leave before that commit, as far as it is not free or
    /// held already. Commits are named in rising order.
    pub fn hold_until(&mut self, commit: CommitNumber) {
        let (end, released) = (self.end(), self.released_now());
        match self.holds.back_mut() {
            // Nothing was appended since: there is nothing to hold.
            Some(last) if last.end == end => {}
            None if released == end => {}
            Some(last) if commit <= last.commit => last.end = end,
            _ => self.holds.push_back(Hold { end, commit }),
        }
    }

    /// What was appended since the last hold needs no commit of its own, also when an answer that
    /// does is appended next. It still does not pass what is held before it.
    pub fn free(&mut self) {
        let end = self.end();
        match self.holds.back_mut() {
            Some(last) => last.end = end,
            None => self.released = end,
        }
    }

    /// Sends what may leave with one system call that does not wait; the writer, if there is one,
    /// gets its next chunk instead.
    pub fn flush(&mut self, committed: CommitNumber) -> Flush {
        let free = self.free_bytes(committed);
        if self.writer.is_some() {
            return self.feed(free);
        }
        if free == 0 {
            return self.rest();
        }
        let result = loop {
            let part = &self.bytes[self.sent..self.sent + free];
            match send(&*self.socket, part, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match result {
            Ok(sent) if sent == free => {
                self.take(sent);
                self.rest()
            }
            Ok(sent) => {
                self.take(sent);
                self.hand_over(free - sent)
            }
            Err(Errno::AGAIN) => self.hand_over(free),
            Err(error) => Flush::Broken(error.into()),
        }
    }

    /// Takes the writer's report and gives it its next chunk, or ends it when there is none.
    pub fn written(&mut self, result: io::Result<()>, committed: CommitNumber) -> Flush {
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
        self.bytes.len() - self.sent + in_hand
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.unsent_bytes() == 0
    }

    /// Whether a writer has taken over, which is to say that the peer does not keep up.
    pub fn has_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether bytes wait for a commit that has not been seen yet.
    pub fn held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Ends the connection: drops what is unsent, shuts the socket down so that whoever reads or
    /// writes there returns, and lets the client's thread out from behind its gate. What the
    /// system has already taken still reaches the peer.
    pub fn close(&mut self) {
        if mem::replace(&mut self.closed, true) {
            return;
        }
        self.writer = None;
        self.bytes = Vec::new();
        self.holds.clear();
        self.sent = 0;
        part_with(&self.socket);
        self.gate.open();
    }

    /// The position behind the last byte appended.
    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// The position up to which bytes have left or are free, when nothing is held.
    fn released_now(&self) -> u64 {
        self.released.max(self.base + self.sent as u64)
    }

    /// Drops the holds that this commit fulfils; how many bytes may leave now.
    fn free_bytes(&mut self, committed: CommitNumber) -> usize {
        while let Some(hold) = self.holds.front()
            && hold.commit <= committed
        {
            self.released = hold.end;
            self.holds.pop_front();
        }
        if self.holds.is_empty() {
            return self.bytes.len() - self.sent;
        }
        let first_held = self.released_now() - self.base;
        // Invariant: nothing was released that was not appended, so this fits what is there.
        usize::try_from(first_held).unwrap_or(usize::MAX).min(self.bytes.len()) - self.sent
    }

    /// These bytes from the front have left; gives memory back.
    fn take(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.base += self.sent as u64;
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > OUTBOX_KEPT_BYTES {
                self.bytes = Vec::new();
            }
        } else if self.sent >= OUTBOX_KEPT_BYTES && self.sent > self.bytes.len() / 2 {
            // Moves less than has left since the last time, so each byte is moved once at most.
            self.bytes.drain(..self.sent);
            self.base += self.sent as u64;
            self.sent = 0;
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// What is left when nothing may leave.
    fn rest(&self) -> Flush {
        if self.is_empty() { Flush::Empty } else { Flush::Held }
    }

    /// The socket takes no more: a writer takes over.
    fn hand_over(&mut self, free: usize) -> Flush {
        match self.writers.start(self.connection, &self.socket) {
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
        let chunk = self.bytes[self.sent..self.sent + count].to_vec();
        if writer.chunks.try_send(chunk).is_err() {
            // It has reported all chunks it was given, so the channel has room: it is gone.
            return Flush::Broken(io::Error::other("the writer's thread has ended"));
        }
        writer.in_hand = count;
        self.take(count);
        Flush::Slow
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// Shuts a socket down after the last word. Input that nobody has read would make the system
/// reset the connection, and the peer might lose that last word: so it is read away first.
pub fn part_with(socket: &Socket) {
    // Both fail only on a socket whose peer is gone already.
    let _ = socket.shutdown(Shutdown::Both);
    let mut waste = [0_u8; 4096];
    for _ in 0..16 {
        match recv(socket, &mut waste, RecvFlags::DONTWAIT) {
            Ok((1.., _)) => {}
            _ => return,
        }
    }
}

/// Whether the peer has hung up or the connection is broken, as far as can be seen without
/// waiting. A peer that has something unread before its end is not seen to have ended.
pub fn peek_closed(socket: &Socket) -> bool {
    loop {
        match recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((count, _)) => return count == 0,
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use crossbeam_channel::Receiver;

    use crate::channels::{self, Event, Notice};
    use crate::limits::{LimitValues, Limits};
    use crate::threads::Threads;

    /// An outbox, its peer, and the dispatcher's and main thread's ends.
    struct Scene {
        outbox: Outbox,
        peer: UnixStream,
        events: Receiver<Event>,
        _notices: Receiver<Notice>,
        threads: Arc<Threads>,
        gate: Arc<Gate>,
    }

    fn scene() -> Scene {
        scene_with(LimitValues::default())
    }

    fn scene_with(limits: LimitValues) -> Scene {
        let (ours, peer) = UnixStream::pair().unwrap();
        let (events_in, events) = channels::events();
        let (notices_in, notices) = channels::notices();
        let threads = Threads::new(notices_in);
        let gate = Arc::new(Gate::default());
        let writers = Arc::new(Writers {
            events: events_in,
            threads: threads.clone(),
            limits: Arc::new(Limits::new(&limits)),
        });
        let socket = Arc::new(Socket::from(OwnedFd::from(ours)));
        // The smallest buffer there is, so that a peer that does not read shows soon.
        socket.set_send_buffer_size(1).unwrap();
        let outbox = Outbox::new(ConnectionId(5), socket, gate.clone(), writers);
        Scene { outbox, peer, events, _notices: notices, threads, gate }
    }

    impl Scene {
        fn say(&mut self, text: &str) {
            self.outbox.buffer().extend_from_slice(text.as_bytes());
        }

        fn flush(&mut self, committed: u64) -> Flush {
            self.outbox.flush(CommitNumber(committed))
        }

        fn hold(&mut self, commit: u64) {
            self.outbox.hold_until(CommitNumber(commit));
        }

        /// What has reached the peer.
        fn heard(&mut self) -> String {
            let mut bytes = vec![0; 1024 * 1024];
            let heard = recv(&self.peer, &mut bytes[..], RecvFlags::DONTWAIT);
            let count = heard.map_or(0, |(_, count)| count);
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        }

        /// Fills the socket until a writer takes over; how many bytes that took.
        fn fill(&mut self) -> usize {
            let mut said = 0;
            loop {
                said += 4096;
                self.outbox.buffer().extend_from_slice(&[b'x'; 4096]);
                match self.flush(0) {
                    Flush::Empty => {}
                    Flush::Slow => return said,
                    other => panic!("unexpected: {other:?}"),
                }
            }
        }

        /// Plays the dispatcher until the writer has ended.
        fn serve_writer(&mut self, committed: u64) -> Flush {
            loop {
                match self.events.recv().unwrap() {
                    Event::Written { connection, result } => {
                        assert_eq!(connection, ConnectionId(5));
                        match self.outbox.written(result, CommitNumber(committed)) {
                            Flush::Slow => {}
                            other => return other,
                        }
                    }
                    _ => unreachable!("only the writer reports here"),
                }
            }
        }
    }

    #[test]
    fn what_was_appended_leaves_at_the_flush() {
        let mut scene = scene();
        assert!(matches!(scene.flush(0), Flush::Empty));
        scene.say("one ");
        scene.say("two");
        assert_eq!(scene.outbox.unsent_bytes(), 7);
        assert_eq!(scene.heard(), "");
        assert!(matches!(scene.flush(0), Flush::Empty));
        assert_eq!(scene.heard(), "one two");
        assert!(scene.outbox.is_empty());
        assert_eq!(scene.threads.alive(), 0);
    }

    #[test]
    fn held_bytes_leave_with_their_commit_and_not_before() {
        let mut scene = scene();
        scene.say("put");
        scene.hold(3);
        assert!(matches!(scene.flush(2), Flush::Held));
        assert!(scene.outbox.held());
        assert_eq!(scene.heard(), "");
        assert!(matches!(scene.flush(3), Flush::Empty));
        assert!(!scene.outbox.held());
        assert_eq!(scene.heard(), "put");
    }

    #[test]
    fn nothing_passes_a_held_answer() {
        let mut scene = scene();
        scene.say("put1 ");
        scene.hold(3);
        scene.say("message ");
        assert!(matches!(scene.flush(2), Flush::Held));
        scene.say("put2 ");
        scene.hold(4);
        scene.say("end");
        assert!(matches!(scene.flush(3), Flush::Held));
        assert_eq!(scene.heard(), "put1 ");
        assert!(matches!(scene.flush(4), Flush::Empty));
        assert_eq!(scene.heard(), "message put2 end");
    }

    #[test]
    fn bytes_made_free_leave_before_a_later_answer_that_is_held() {
        let mut scene = scene();
        scene.say("message ");
        scene.outbox.free();
        scene.say("put");
        scene.hold(9);
        assert!(matches!(scene.flush(0), Flush::Held));
        assert_eq!(scene.heard(), "message ");
        assert_eq!(scene.outbox.unsent_bytes(), 3);
        assert!(matches!(scene.flush(9), Flush::Empty));
        assert_eq!(scene.heard(), "put");
    }

    #[test]
    fn bytes_made_free_behind_a_held_answer_leave_with_it() {
        let mut scene = scene();
        scene.say("put1 ");
        scene.hold(1);
        scene.say("message ");
        scene.outbox.free();
        scene.say("put2");
        scene.hold(2);
        assert!(matches!(scene.flush(1), Flush::Held));
        assert_eq!(scene.heard(), "put1 message ");
    }

    #[test]
    fn holds_of_one_commit_are_one_and_holds_of_nothing_are_none() {
        let mut scene = scene();
        scene.hold(1);
        assert!(!scene.outbox.held());
        for _ in 0..100 {
            scene.say("put ");
            scene.hold(2);
        }
        scene.hold(7);
        assert_eq!(scene.outbox.holds.len(), 1);
        assert!(matches!(scene.flush(2), Flush::Empty));
        assert_eq!(scene.heard().len(), 400);
    }

    #[test]
    fn an_answer_already_committed_is_not_held() {
        let mut scene = scene();
        scene.say("put");
        scene.hold(2);
        assert!(matches!(scene.flush(5), Flush::Empty));
        assert_eq!(scene.heard(), "put");
    }

    #[test]
    fn a_writer_takes_over_from_a_full_socket_until_it_has_caught_up() {
        let mut scene = scene();
        let mut said = scene.fill();
        assert!(scene.outbox.has_writer());
        // What comes meanwhile waits in the outbox, in order.
        scene.say("the end");
        said += 7;
        assert!(matches!(scene.flush(0), Flush::Slow));
        assert_eq!(scene.threads.alive(), 1);

        let mut reading = scene.peer.try_clone().unwrap();
        let reader = std::thread::Builder::new()
            .spawn(move || {
                let mut heard = vec![0; said];
                reading.read_exact(&mut heard).unwrap();
                heard
            })
            .unwrap();
        assert!(matches!(scene.serve_writer(0), Flush::Empty));
        let heard = reader.join().unwrap();
        assert!(heard.ends_with(b"xxthe end"));
        assert!(!scene.outbox.has_writer());

        // Now the dispatcher sends again itself.
        scene.say("again");
        assert!(matches!(scene.flush(0), Flush::Empty));
        assert_eq!(scene.heard(), "again");
    }

    #[test]
    fn a_writer_gets_nothing_that_is_held() {
        let mut scene = scene();
        let said = scene.fill();
        scene.say("put");
        scene.hold(4);
        let mut heard = vec![0; said];
        scene.peer.read_exact(&mut heard[..said - 4096]).unwrap();
        assert!(matches!(scene.serve_writer(3), Flush::Held));
        assert!(!scene.outbox.has_writer());
        scene.peer.read_exact(&mut heard[said - 4096..]).unwrap();
        assert_eq!(scene.heard(), "");
        assert!(matches!(scene.flush(4), Flush::Empty));
        assert_eq!(scene.heard(), "put");
    }

    #[test]
    fn a_long_backlog_is_written_in_chunks_and_whole() {
        let mut scene = scene();
        scene.fill();
        let long: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
        scene.outbox.buffer().extend_from_slice(&long);
        assert!(matches!(scene.flush(0), Flush::Slow));
        assert!(scene.outbox.unsent_bytes() > long.len());
        let mut reading = scene.peer.try_clone().unwrap();
        let length = long.len();
        let reader = std::thread::Builder::new()
            .spawn(move || {
                let mut heard: Vec<u8> = Vec::new();
                let mut part = [0; 65536];
                while heard.len() < length {
                    let count = reading.read(&mut part).unwrap();
                    heard.extend(part[..count].iter().filter(|byte| **byte != b'x'));
                }
                heard
            })
            .unwrap();
        assert!(matches!(scene.serve_writer(0), Flush::Empty));
        assert!(reader.join().unwrap() == long);
        assert!(scene.outbox.bytes.capacity() <= OUTBOX_KEPT_BYTES);
    }

    #[test]
    fn a_peer_that_takes_nothing_for_the_write_timeout_is_given_up() {
        let limits = LimitValues { write_timeout_ms: 20, ..LimitValues::default() };
        let mut scene = scene_with(limits);
        scene.fill();
        match scene.serve_writer(0) {
            Flush::Broken(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            other => panic!("unexpected: {other:?}"),
        }
    }

    #[test]
    fn closing_frees_a_writer_that_is_stuck() {
        let mut scene = scene();
        scene.fill();
        scene.outbox.close();
        // Its write returns at once instead of after 30 seconds.
        match scene.events.recv_timeout(Duration::from_secs(10)) {
            Ok(Event::Written { result, .. }) => assert!(result.is_err()),
            _ => panic!("the writer is still stuck"),
        }
    }

    #[test]
    fn closing_opens_the_gate_and_ends_the_conversation_after_the_last_word() {
        let mut scene = scene();
        scene.gate.close();
        scene.say("bye");
        scene.flush(0);
        drop(scene.outbox);
        assert!(!scene.gate.is_closed());
        let mut heard = String::new();
        scene.peer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "bye");
    }

    #[test]
    fn a_peer_that_has_gone_breaks_the_flush_and_raises_no_signal() {
        let mut scene = scene();
        let (other, _) = UnixStream::pair().unwrap();
        drop(mem::replace(&mut scene.peer, other));
        scene.say("hello?");
        assert!(matches!(scene.flush(0), Flush::Broken(error)
            if error.kind() == io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_large_buffer_is_given_back_when_everything_has_left() {
        let mut scene = scene();
        scene.outbox.buffer().reserve(1_000_000);
        scene.say("small");
        assert!(matches!(scene.flush(0), Flush::Empty));
        assert_eq!(scene.outbox.bytes.capacity(), 0);
        scene.say("small");
        assert!(matches!(scene.flush(0), Flush::Empty));
        // A buffer of ordinary size stays, so that the next turn allocates nothing.
        assert!(scene.outbox.bytes.capacity() > 0);
    }

    #[test]
    fn peeking_tells_a_peer_that_has_gone_from_one_that_is_silent_or_has_more_to_say() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = Socket::from(OwnedFd::from(ours));
        assert!(!peek_closed(&socket));
        rustix::net::send(&theirs, b"x", SendFlags::empty()).unwrap();
        drop(theirs);
        assert!(!peek_closed(&socket));
        recv(&socket, &mut [0_u8; 1], RecvFlags::empty()).unwrap();
        assert!(peek_closed(&socket));
    }
}
