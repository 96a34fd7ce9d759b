//! The ledger: messages, queues, reservations, sessions and deadlines, and every count that
//! follows from them.
//!
//! Its fields are private, and reading it gives shared references only. So no rule can move a
//! message from one state to another, or write what is counted, but through the functions of this
//! folder: `moves` and `dead_letters` for messages, `keys` for what they are called,
//! `volatile` for what no database has of them, `references` for who refers to a queue,
//! `subscriptions` for who stands in its rotation, `clocks` for deadlines. What to do, and when, is
//! up to the rules above.

mod clocks;
mod dead_letters;
mod keys;
mod marks;
mod moves;
mod references;
mod subscriptions;
mod volatile;

pub(super) use moves::{Detached, Flushed, Lost};

use crate::words::clock::Time;
use crate::words::command::Manner;
use crate::words::ids::ConnectionId;
use crate::words::statistics::StateCounts;

use super::state::deadlines::Deadlines;
use super::state::keys::TakenKeys;
use super::state::message::{Message, Messages, Slot, State};
use super::state::queue::{Queue, QueueSlot, Queues};
use super::state::reservation::Reservations;
use super::state::session::{Dialogue, Hold, Session, SessionSlot, Sessions};
use super::state::subscription::{Subscription, SubscriptionSlot, Subscriptions};

/// All queueing state.
#[derive(Debug)]
pub(super) struct Ledger {
    messages: Messages,
    reservations: Reservations,
    queues: Queues,
    sessions: Sessions,
    subscriptions: Subscriptions,
    deadlines: Deadlines,
    keys: TakenKeys,
    counts: Counts,
    /// Standing subscriptions of several queues that have entered the rotations.
    entered: Vec<SubscriptionSlot>,
    /// The next stamp in the rotations.
    next_stamp: u64,
    /// The next place among the buried.
    next_burial: u64,
    /// Queues that dead letters have left for good.
    left_homes: Vec<QueueSlot>,
}

/// How much there is of what, over all queues and sessions.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub messages: StateCounts,
    pub body_bytes: u64,
    pub volatile: VolatileCounts,
    pub producers: u64,
    pub workers: u64,
    pub waiting: u64,
}

/// How much of what there is is volatile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VolatileCounts {
    pub messages: u64,
    pub body_bytes: u64,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            messages: Messages::default(),
            reservations: Reservations::default(),
            queues: Queues::default(),
            sessions: Sessions::default(),
            subscriptions: Subscriptions::default(),
            deadlines: Deadlines::default(),
            keys: TakenKeys::default(),
            counts: Counts::default(),
            entered: Vec::new(),
            next_stamp: 1,
            next_burial: 1,
            left_homes: Vec::new(),
        }
    }
}

impl Ledger {
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    pub fn message(&self, slot: Slot) -> &Message {
        &self.messages[slot]
    }

    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    pub fn queue(&self, slot: QueueSlot) -> &Queue {
        &self.queues[slot]
    }

    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub fn session(&self, slot: SessionSlot) -> &Session {
        &self.sessions[slot]
    }

    pub fn subscription(&self, slot: SubscriptionSlot) -> &Subscription {
        &self.subscriptions[slot]
    }

    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    pub fn session_of(&self, connection: ConnectionId) -> Option<SessionSlot> {
        self.sessions.find(connection)
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn queue_of(&self, slot: Slot) -> QueueSlot {
        self.messages[slot].queue
    }

    pub fn is_flushed(&self, slot: Slot) -> bool {
        let message = &self.messages[slot];
        message.sequence <= self.queues[message.queue].flushed_through
    }

    /// Whether the time to live of a message is over.
    pub fn is_over(&self, now: Time, slot: Slot) -> bool {
        let message = &self.messages[slot];
        match message.state {
            State::Buried(_) => message.expires == Time(0),
            _ => message.expires <= now,
        }
    }

    pub fn is_reserved(&self, slot: Slot) -> bool {
        matches!(self.messages[slot].state, State::Reserved(_))
    }

    /// Begins the session of a connection.
    pub fn open_session(
        &mut self,
        connection: ConnectionId,
        manner: Manner,
        ack_timeout_ms: u64,
    ) -> SessionSlot {
        self.sessions.insert(connection, manner, ack_timeout_ms)
    }

    /// The part of a session that no count follows.
    pub fn dialogue(&mut self, slot: SessionSlot) -> &mut Dialogue {
        &mut self.sessions[slot].dialogue
    }

    /// Changes why the next request of a session is not looked at yet, and tells the old reason.
    /// Waits begin and end by [`Ledger::begin_wait`] and [`Ledger::end_wait`], which count them.
    pub fn set_hold(&mut self, slot: SessionSlot, hold: Hold) -> Hold {
        let old = std::mem::replace(&mut self.sessions[slot].hold, hold);
        debug_assert!(!matches!(old, Hold::Waiting(_)), "a wait that is not ended");
        debug_assert!(!self.sessions[slot].is_waiting(), "a wait that is not counted");
        old
    }

    fn draw_burial(&mut self) -> u64 {
        self.next_burial += 1;
        self.next_burial - 1
    }

    fn draw_stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp - 1
    }
}
