//! Everything that happens by itself at some moment, in one ordered set.
//!
//! Most clocks are armed lazily: a session's entry may be earlier than what it still has to do,
//! and then nothing happens but arming it anew. So handing out and finishing a message, the most
//! frequent pair of all, seldom touches the set.

use std::collections::BTreeSet;

use crate::words::clock::Time;
use crate::words::ids::ConnectionId;

use super::keys::KeySlot;
use super::message::Slot;
use super::queue::QueueSlot;
use super::session::SessionSlot;
use super::subscription::SubscriptionSlot;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The first delayed message of the queue becomes ready.
    Delay(QueueSlot),
    /// The queue's pause ends.
    Pause(QueueSlot),
    /// The session's wait ends, or one of its reservations.
    Session(ConnectionId, SessionSlot),
    /// The oldest message of the window has been out for too long.
    Window(SubscriptionSlot),
    /// The message expires. Exact: the entry goes when the message goes.
    Expire(Slot),
    /// The key is free. Exact: the entry goes when the key is free sooner.
    Key(KeySlot),
}

/// The set.
#[derive(Debug, Default)]
pub struct Deadlines {
    set: BTreeSet<(Time, Due)>,
}

impl Deadlines {
    pub fn first(&self) -> Option<(Time, Due)> {
        self.set.first().copied()
    }

    /// Moves an entry from where it is `armed` to `at`; [`Time::NEVER`] is no entry.
    pub fn rearm(&mut self, armed: &mut Time, at: Time, due: Due) {
        if *armed == at {
            return;
        }
        self.cancel(*armed, due);
        self.add(at, due);
        *armed = at;
    }

    pub fn add(&mut self, at: Time, due: Due) {
        if at != Time::NEVER {
            self.set.insert((at, due));
        }
    }

    /// All of them.
    #[cfg(test)]
    pub fn entries(&self) -> BTreeSet<(Time, Due)> {
        self.set.clone()
    }

    pub fn cancel(&mut self, at: Time, due: Due) {
        if at != Time::NEVER {
            self.set.remove(&(at, due));
        }
    }
}
