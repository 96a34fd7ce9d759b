//! A connection as the core sees it. Everything in here dies with the connection.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::words::clock::Time;
use crate::words::command::{Manner, PutWith, Request, SubscriptionKey, Tag, TogetherStep};
use crate::words::ids::{ConnectionId, MessageId};
use crate::words::short_bytes::ShortBytes;

use super::queue::QueueSlot;
use super::reservation::List;
use super::subscription::SubscriptionSlot;

/// The last part of a reservation, in milliseconds: a holder that would have to wait for another
/// message is told so instead, since it could not finish this one while it waits.
pub const SAFETY_MARGIN_MS: u64 = 1_000;

/// Where a session lies in [`Sessions`]; reused after it is gone.
pub type SessionSlot = u32;

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub connection: ConnectionId,
    pub manner: Manner,
    pub referred: Option<QueueSlot>,
    /// Its subscription number 0, which is the only one of most sessions.
    pub first: Option<SubscriptionSlot>,
    /// Its other subscriptions. In an order, so that peers, who choose the keys, cannot make them
    /// collide.
    pub others: BTreeMap<Keyed, SubscriptionSlot>,
    /// How many subscriptions it has, and queues in them.
    pub subscribed: u32,
    /// Messages that were taken back although their places in windows are still taken, and whose
    /// places these are: the same message may have been lost more than once.
    pub lost: FxHashMap<MessageId, Vec<SubscriptionSlot>>,
    /// What was sent to it and is done when that has left, in its order.
    pub sending: VecDeque<MessageId>,
    /// How many messages are out through all its windows.
    pub dispatched: u32,
    /// What it has taken on request (not what came through windows), the oldest first.
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
    /// Whether the connection ends once its backlog is worked off and what is done when it has been
    /// sent has been.
    pub ending: bool,
    /// Whether nothing can be sent to it any more.
    pub gone: bool,
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
    /// What it puts waits for message ids.
    Ids(Box<(Tag, WaitingPuts)>),
    /// It has been handed as many bytes as a turn may.
    Output,
    /// It is at its end; what it held is being given back.
    Ended,
}

/// What waits for message ids.
#[derive(Debug)]
pub enum WaitingPuts {
    One(PutWith),
    Together(Box<[TogetherStep]>),
}

/// A reservation that waits.
#[derive(Debug)]
pub struct Wait {
    /// For which of its subscriptions.
    pub subscription: SubscriptionSlot,
    pub tag: Tag,
    pub until: Time,
    pub portion: Portion,
}

/// What a reserve takes at most of the queues of its subscription.
#[derive(Debug)]
pub enum Portion {
    /// So many messages of all of them together.
    Total(u32),
    /// So many of each of them. Where the reserve itself named its queues, so many for each entry
    /// of this list, in which a queue can repeat.
    Each(u32, Option<Box<[QueueSlot]>>),
}

/// A subscription's key, within its session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keyed {
    Number(u64),
    Bytes(ShortBytes),
    Queue(QueueSlot),
    /// None: it is there for one reserve.
    Once,
}

impl Keyed {
    /// What the key of a subscription means for one of its queues.
    pub fn new(key: SubscriptionKey, queue: QueueSlot) -> Keyed {
        match key {
            SubscriptionKey::Queue => Keyed::Queue(queue),
            SubscriptionKey::Number(number) => Keyed::Number(number),
            SubscriptionKey::Bytes(bytes) => Keyed::Bytes(bytes),
        }
    }
}

impl Session {
    fn new(connection: ConnectionId, manner: Manner, ack_timeout_ms: u64) -> Session {
        Session {
            connection,
            manner,
            referred: None,
            first: None,
            others: BTreeMap::new(),
            subscribed: 0,
            lost: FxHashMap::default(),
            sending: VecDeque::new(),
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

    /// The subscription of this key.
    // Inlined for the first one, which nearly every reserve asks for; the search for others stays
    // out of line.
    #[inline]
    pub fn subscription(&self, keyed: &Keyed) -> Option<SubscriptionSlot> {
        match keyed {
            Keyed::Number(0) => self.first,
            other => self.other(other),
        }
    }

    fn other(&self, keyed: &Keyed) -> Option<SubscriptionSlot> {
        self.others.get(keyed).copied()
    }

    /// All its subscriptions, in the order of their keys.
    pub fn subscriptions(&self) -> impl Iterator<Item = SubscriptionSlot> {
        self.first.into_iter().chain(self.others.values().copied())
    }

    /// Whether it may end, as far as what was sent to it goes.
    pub fn has_sent_all(&self) -> bool {
        self.dialogue.gone || self.sending.is_empty()
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
