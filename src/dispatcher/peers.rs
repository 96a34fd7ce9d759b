//! One peer as the dispatcher sees it: what is to be sent to it, and what holds it back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use slog::debug;

use crate::channels::gate::Gate;
use crate::channels::{self, NewConnection};
use crate::engine::Input;
use crate::protocol::Encoder;
use crate::wire::outbox::{Flush, Outbox};
use crate::wire::writer::Writers;
use crate::words::clock::Time;
use crate::words::command::{Manner, Reply, Tag};
use crate::words::durability::Durability;
use crate::words::ids::{CommitNumber, Committed, ConnectionId, Part};
use crate::words::refusal::Refusal;

use super::Dispatcher;
use super::departures::AHEAD_EVENTS_MAX;

/// A connection's other side.
pub(super) struct Peer {
    pub outbox: Outbox,
    pub encoder: Box<dyn Encoder>,
    pub protocol: &'static str,
    /// Whom the log names.
    pub address: channels::PeerAddress,
    pub manner: Manner,
    pub durability: Durability,
    gate: Arc<Gate>,
    closed: u8,
    /// Whether it is on the list of peers to be flushed.
    dirty: bool,
    /// Whether it is on the list of peers with answers that wait for a commit.
    pub holding: bool,
    /// Whether the engine has been told that it does not keep up.
    pub slow: bool,
    /// Whether its requests have ended.
    pub ended: bool,
    /// Whether it has hung up and the round waits for its end.
    pub awaited: bool,
    /// Events that go ahead of a round then; with none left, no round waits for it.
    pub ahead_left: usize,
    /// Whether its session is over: it goes when its outbox is empty.
    pub finished: bool,
    /// Whether nothing can be sent to it any more.
    pub broken: bool,
    /// The answers in its outbox that wait for a commit, in their order.
    promises: VecDeque<Promise>,
    /// Bytes that it has asked for, since the last of them had left, and where the last one lies.
    asked_for: usize,
    asked_for_end: u64,
    /// Deliveries that still belong to the answer under way.
    batch_left: usize,
    /// Where answers end that carry messages which are done when sent, and how many messages. The
    /// last one has no end while its answer is under way.
    when_sent: VecDeque<(u64, usize)>,
}

/// An answer that waits for a commit.
struct Promise {
    tag: Tag,
    /// Where it lies in the outbox.
    place: Range<u64>,
    commit: CommitNumber,
    part: Part,
    since: Time,
}

impl Promise {
    fn is_kept(&self, committed: Committed) -> bool {
        committed.has(self.commit, self.part)
    }
}

/// Why a gate is closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed(u8);

impl Closed {
    /// Requests pile up behind a waiting reservation.
    pub const BACKLOG: Closed = Closed(1);
    /// The peer does not take what is sent to it.
    pub const OUTPUT: Closed = Closed(2);
    /// Memory or journal are full, or the daemon drains, and it puts messages.
    pub const PRESSURE: Closed = Closed(4);
}

impl Peer {
    pub fn new(opened: NewConnection, writers: &Arc<Writers>) -> Peer {
        let NewConnection { connection, transport, encoder, gate, profile, peer: address } = opened;
        let outbox = Outbox::new(connection, transport, gate.clone(), writers.clone());
        Peer {
            outbox,
            encoder,
            protocol: profile.protocol.name,
            address,
            manner: profile.protocol.manner,
            durability: profile.durability,
            gate,
            closed: 0,
            dirty: false,
            holding: false,
            slow: false,
            ended: false,
            awaited: false,
            ahead_left: AHEAD_EVENTS_MAX,
            finished: false,
            broken: false,
            promises: VecDeque::new(),
            asked_for: 0,
            asked_for_end: 0,
            batch_left: 0,
            when_sent: VecDeque::new(),
        }
    }

    /// How safe what an answer with this tag promises has to be.
    pub fn level_of(&self, tag: &Tag) -> Durability {
        let wanted = if *tag == Tag::None { None } else { self.encoder.durability(tag) };
        wanted.map_or(self.durability, |wanted| wanted.max(self.durability))
    }

    /// Whether an answer with this tag promises more than its reply says.
    pub fn is_promised_by(&self, tag: &Tag) -> bool {
        *tag != Tag::None && self.encoder.promises(tag)
    }

    /// Holds the answer that begins at `start`, the last one in the outbox, until that part of that
    /// commit.
    pub fn hold(&mut self, tag: &Tag, start: u64, commit: (CommitNumber, Part), now: Time) {
        let (commit, part) = commit;
        self.outbox.hold_until(commit, part);
        let place = start..self.outbox.position();
        self.promises.push_back(Promise { tag: tag.clone(), place, commit, part, since: now });
    }

    /// Forgets the answers that this commit has let go.
    fn keep_promises(&mut self, committed: Committed) {
        while self.promises.front().is_some_and(|promise| promise.is_kept(committed)) {
            self.promises.pop_front();
        }
    }

    /// What its output costs: a promise takes more memory than the few bytes of its answer.
    fn output_bytes(&self) -> usize {
        self.outbox.unsent_bytes() + self.promises.len() * size_of::<Promise>()
    }

    /// Notes that what lies in the outbox from `start` on is what the peer has asked for: the more
    /// is read from it, the more there will be. What a window hands out is bounded otherwise.
    pub fn note_asked_for(&mut self, start: u64) {
        self.asked_for_end = self.outbox.position();
        self.asked_for += usize::try_from(self.asked_for_end - start).unwrap_or(usize::MAX);
    }

    /// An answer of so many deliveries begins.
    pub fn begin_batch(&mut self, count: usize) {
        self.batch_left = count;
    }

    /// Notes a delivery that now lies in the outbox. One that is done when sent is so with the last
    /// byte of the answer that carries it.
    pub fn note_delivery(&mut self, when_sent: bool) {
        self.batch_left = self.batch_left.saturating_sub(1);
        if when_sent {
            match self.when_sent.back_mut() {
                Some((end, count)) if *end == u64::MAX => *count += 1,
                _ => self.when_sent.push_back((u64::MAX, 1)),
            }
        }
        if self.batch_left == 0
            && let Some((end, _)) = self.when_sent.back_mut()
            && *end == u64::MAX
        {
            *end = self.outbox.position();
        }
    }

    /// How many messages have left since the last call that are done when sent.
    fn take_sent(&mut self) -> usize {
        if self.when_sent.is_empty() {
            return 0;
        }
        let left = self.outbox.position() - self.outbox.unsent_bytes() as u64;
        let mut sent = 0;
        while let Some((end, count)) = self.when_sent.front().copied()
            && end <= left
        {
            self.when_sent.pop_front();
            sent += count;
        }
        sent
    }

    /// What its output costs that it has asked for.
    ///
    /// Messages of a window do not count. A consumer may acknowledge each before it reads the next
    /// one, and wait until that is read: were nothing read from it before it has taken what lies
    /// here, both sides would wait for each other once the socket is full of acknowledgements.
    fn asked_for_bytes(&mut self) -> usize {
        let unsent = self.outbox.unsent_bytes();
        if self.outbox.position() - unsent as u64 >= self.asked_for_end {
            self.asked_for = 0;
        }
        self.asked_for.min(unsent) + self.promises.len() * size_of::<Promise>()
    }

    /// Since when the first of its answers waits.
    pub fn waiting_since(&self) -> Option<Time> {
        self.promises.front().map(|promise| promise.since)
    }

    /// Says of the answers that have waited since then or longer that their outcome is unknown, but
    /// for those that only wait behind such an answer.
    pub fn give_up(&mut self, since: Time, committed: Committed) {
        self.keep_promises(committed);
        let count = self.promises.partition_point(|promise| promise.since <= since);
        let over = self.promises.drain(..count).filter(|promise| !promise.is_kept(committed));
        let given_up: Vec<Promise> = over.collect();
        if given_up.is_empty() || self.broken {
            return;
        }
        let places: Vec<Range<u64>> = given_up.iter().map(|p| p.place.clone()).collect();
        let until = self.promises.front().map_or(self.outbox.position(), |next| next.place.start);
        let encoder = &mut self.encoder;
        let until_now = self.outbox.replace_held(&places, until, |number, out| {
            let unknown = Reply::Refused(Refusal::OutcomeUnknown);
            encoder.reply(&given_up[number].tag, &unknown, out);
        });
        for promise in &mut self.promises {
            let moved = |position: u64| position - until + until_now;
            promise.place = moved(promise.place.start)..moved(promise.place.end);
        }
    }

    /// Closes the gate for this reason, or opens it when it was the last one.
    pub fn set_gate(&mut self, why: Closed, closed: bool) {
        let before = self.closed;
        self.closed = if closed { before | why.0 } else { before & !why.0 };
        match (before, self.closed) {
            (0, 1..) => self.gate.close(),
            (1.., 0) => self.gate.open(),
            _ => {}
        }
    }

    /// Whether the gate is closed for this reason.
    pub fn is_closed_for(&self, why: Closed) -> bool {
        self.closed & why.0 != 0
    }

    /// Notes that there is something to be sent.
    pub fn mark(&mut self, connection: ConnectionId, dirty: &mut Vec<ConnectionId>) {
        if !std::mem::replace(&mut self.dirty, true) {
            dirty.push(connection);
        }
    }

    /// Whether nothing on our side keeps its thread from reading on to the end.
    pub fn will_read_on(&self) -> bool {
        !self.ended && self.closed == 0 && !self.gate.waits_for_room()
    }

    /// Ends the connection from this side: its thread sees the end and reports it.
    pub fn shut(&mut self) {
        self.broken = true;
        self.outbox.close();
    }
}

impl Dispatcher<'_> {
    /// One send per peer that something was written for.
    pub(super) fn flush_all(&mut self) {
        // A flush can make the engine hand out more (a peer keeps up again): that is sent too.
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for connection in dirty.drain(..) {
                let committed = self.committed();
                let Some(peer) = self.peers.get_mut(&connection) else { continue };
                peer.dirty = false;
                if peer.broken {
                    self.drop_if_done(connection);
                    continue;
                }
                let flush = peer.outbox.flush(committed);
                self.after_flush(connection, flush);
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
                break;
            }
        }
    }

    pub(super) fn after_flush(&mut self, connection: ConnectionId, flush: Flush) {
        let committed = self.committed();
        let mut sent = 0;
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.keep_promises(committed);
            sent = peer.take_sent();
        }
        if sent > 0 {
            self.input(Input::Sent(connection, sent));
        }
        match flush {
            Flush::Empty => self.keeps_up(connection, true),
            Flush::Held => {
                if let Some(peer) = self.peers.get_mut(&connection)
                    && !std::mem::replace(&mut peer.holding, true)
                {
                    self.commits.hold(connection, peer.waiting_since());
                }
                self.check_output(connection);
            }
            Flush::Slow => self.keeps_up(connection, false),
            Flush::Broken(error) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    debug!(self.log, "connection lost while writing"; "connection" => connection.0,
                        "peer" => %peer.address, "error" => %error);
                    peer.shut();
                    if peer.ended {
                        self.give_up_unsent(connection);
                    }
                }
            }
        }
        self.drop_if_done(connection);
    }

    /// Holds a peer back that has too much unsent although it takes what it is sent.
    fn check_output(&mut self, connection: ConnectionId) {
        let half = self.limits.max_output() / 2;
        let Some(peer) = self.peers.get(&connection) else { return };
        self.keeps_up(connection, peer.output_bytes() <= half)
    }

    fn keeps_up(&mut self, connection: ConnectionId, up: bool) {
        let half = self.limits.max_output() / 2;
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        // A writer that empties a small rest is no reason to stop reading what the peer says.
        let over = !up && peer.asked_for_bytes() > half;
        peer.set_gate(Closed::OUTPUT, over);
        if peer.slow == up {
            peer.slow = !up;
            self.input(Input::Stalled(connection, !up));
        }
    }

    /// Forgets a peer whose session is over and to whom all has been said.
    fn drop_if_done(&mut self, connection: ConnectionId) {
        let done = self
            .peers
            .get(&connection)
            .is_some_and(|peer| peer.finished && (peer.broken || peer.outbox.is_empty()));
        if done {
            // Dropping its outbox shuts the socket down.
            self.peers.remove(&connection);
        }
    }
}
