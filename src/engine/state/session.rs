//! A connection as the core sees it. Everything in here dies with the connection.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::words::clock::Time;
use crate::words::command::{Manner, Put, Request, Tag};
use crate::words::ids::{ConnectionId, MessageId};

use super::queue::QueueSlot;
use super::reservation::List;

/// The last second of a reservation, during which its holder is not made to wait for another
/// message (beanstalk protocol text, "DEADLINE_SOON"), in milliseconds.
pub const SAFETY_MARGIN_MS: u64 = 1_000;

/// Where a session lies in [`Sessions`]; reused after it is gone.
pub type SessionSlot = u32;

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub connection: ConnectionId,
    pub manner: Manner,
    pub referred: Option<QueueSlot>,
    pub watched: Vec<QueueSlot>,
    pub windows: FxHashMap<QueueSlot, Window>,
    /// How many messages are out through all of them.
    pub dispatched: u32,
    /// What it has reserved (not what came through windows), the oldest first.
    pub held: List,
    /// No reservation in `held` ends before this; [`Time::NEVER`] when there is none.
    pub soonest: Time,
    /// The entry in [`super::deadlines::Deadlines`].
    pub armed: Time,
    pub hold: Hold,
    pub producer: bool,
    pub worker: bool,
    pub ack_timeout_ms: u64,
    pub dialogue: Dialogue,
}

/// How far the conversation with a connection has come: the part of a session that no count
/// follows.
#[derive(Debug, Default)]
pub struct Dialogue {
    /// What was asked for while [`Session::hold`] keeps it back.
    pub backlog: VecDeque<Request>,
    /// Whether the backlog has closed the peer's gate.
    pub gated: bool,
    /// Whether the peer has closed its sending side: it waits for nothing any more.
    pub hung_up: bool,
    /// Whether the connection ends once its backlog is worked off.
    pub ending: bool,
    /// Whether the peer does not keep up with what is sent to it.
    pub slow: bool,
    /// Whether it has been handed as many bytes as a turn may: its windows count as full.
    pub exhausted: bool,
    /// Bytes of bodies that were handed to it in the turn `sent_turn`.
    pub sent_bytes: u64,
    pub sent_turn: u64,
}

/// Why a session's next request is not looked at yet.
#[derive(Debug)]
pub enum Hold {
    /// It is.
    Free,
    /// It waits for a message.
    Waiting(Wait),
    /// A large work that it asked for is under way.
    Working,
    /// Its put waits for message ids.
    Ids(Box<(Tag, Put)>),
    /// It has been handed as many bytes as a turn may.
    Output,
    /// It is at its end; what it held is being given back.
    Ended,
}

/// A reservation that waits.
#[derive(Debug)]
pub struct Wait {
    /// Its place in the rotation of each watched queue.
    pub stamp: u64,
    pub tag: Tag,
    pub until: Time,
    pub count: u32,
}

/// A standing demand for a queue's messages.
#[derive(Debug)]
pub struct Window {
    pub max: u32,
    /// What is out, the oldest first.
    pub held: List,
    /// Messages that were taken back (flushed, timed out) and whose places are taken until they
    /// are acknowledged, with the number of places: the same message may have been lost twice.
    pub lost: FxHashMap<MessageId, u32>,
    /// The places of all of them.
    pub lost_places: u32,
    /// When it last got a message, as its place in the queue's rotation.
    pub stamp: u64,
    /// Since when its oldest message is the oldest, or all its places are lost.
    pub clock_since: Time,
    /// The entry in [`super::deadlines::Deadlines`].
    pub armed: Time,
}

impl Window {
    pub fn outstanding(&self) -> usize {
        self.held.len() as usize + self.lost_places as usize
    }

    pub fn has_room(&self) -> bool {
        self.outstanding() < self.max as usize
    }

    /// Takes a message's place until it is acknowledged after all.
    pub fn lose(&mut self, id: MessageId) {
        *self.lost.entry(id).or_default() += 1;
        self.lost_places += 1;
    }

    /// Frees one place that this message has taken; says whether there was one.
    pub fn find_again(&mut self, id: MessageId) -> bool {
        let Entry::Occupied(mut places) = self.lost.entry(id) else { return false };
        *places.get_mut() -= 1;
        if *places.get() == 0 {
            places.remove();
        }
        self.lost_places -= 1;
        true
    }

    /// When its clock runs out.
    pub fn deadline(&self, ack_timeout_ms: u64) -> Time {
        let runs = !self.held.is_empty() || (self.max > 0 && !self.has_room());
        if ack_timeout_ms == 0 || !runs {
            return Time::NEVER;
        }
        self.clock_since.plus(ack_timeout_ms)
    }
}

impl Session {
    fn new(connection: ConnectionId, manner: Manner, ack_timeout_ms: u64) -> Session {
        Session {
            connection,
            manner,
            referred: None,
            watched: Vec::new(),
            windows: FxHashMap::default(),
            dispatched: 0,
            held: List::default(),
            soonest: Time::NEVER,
            armed: Time::NEVER,
            hold: Hold::Free,
            producer: false,
            worker: false,
            ack_timeout_ms,
            dialogue: Dialogue::default(),
        }
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.hold, Hold::Waiting(_))
    }

    /// Whether messages may go out through its windows.
    pub fn takes_dispatches(&self) -> bool {
        !self.dialogue.exhausted && !self.dialogue.slow && !self.dialogue.ending
    }

    /// The next moment at which something happens to it by itself. May be too early, never late.
    pub fn deadline(&self) -> Time {
        match &self.hold {
            Hold::Waiting(wait) => wait.until.min(match self.soonest {
                Time::NEVER => Time::NEVER,
                Time(soonest) => Time(soonest.saturating_sub(SAFETY_MARGIN_MS)),
            }),
            _ => self.soonest,
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Slab<Session>,
    by_connection: FxHashMap<ConnectionId, SessionSlot>,
}

impl Sessions {
    /// Adds a session for a connection, which must not have one.
    pub fn insert(
        &mut self,
        connection: ConnectionId,
        manner: Manner,
        ack_timeout_ms: u64,
    ) -> SessionSlot {
        let slot = self.slots.insert(Session::new(connection, manner, ack_timeout_ms));
        let slot = SessionSlot::try_from(slot).expect("fewer than 2^32 sessions");
        let old = self.by_connection.insert(connection, slot);
        debug_assert!(old.is_none(), "{connection} begins twice");
        slot
    }

    pub fn remove(&mut self, slot: SessionSlot) -> Session {
        let session = self.slots.remove(slot as usize);
        self.by_connection.remove(&session.connection);
        session
    }

    pub fn find(&self, connection: ConnectionId) -> Option<SessionSlot> {
        self.by_connection.get(&connection).copied()
    }

    pub fn get(&self, slot: SessionSlot) -> Option<&Session> {
        self.slots.get(slot as usize)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (SessionSlot, &Session)> {
        self.slots.iter().filter_map(|(slot, s)| Some((SessionSlot::try_from(slot).ok()?, s)))
    }
}

impl std::ops::Index<SessionSlot> for Sessions {
    type Output = Session;
    fn index(&self, slot: SessionSlot) -> &Session {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<SessionSlot> for Sessions {
    fn index_mut(&mut self, slot: SessionSlot) -> &mut Session {
        &mut self.slots[slot as usize]
    }
}
