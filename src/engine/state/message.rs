//! The messages, by slot and by id: everything the core knows of them but their bodies.
//!
//! One [`Message`] is 80 bytes; with its place in the queue and its entry in the index the core
//! stays below 150 bytes a message. What few messages have (a delay, a time-out, a kick) is kept
//! aside in [`History`].

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::words::change::Counters;
use crate::words::change::StateRow;
use crate::words::clock::Time;
use crate::words::ids::{MessageId, Sequence};

use super::failure::Failure;
use super::index::IdIndex;
use super::queue::QueueSlot;
use super::reservation::ReservationSlot;

/// Where a message lies in [`Messages`]; reused after it is gone.
pub type Slot = u32;

/// A message as the core sees it.
///
/// Kept in the database, unless it is volatile: all fields but the reservation, and `reserves` as of
/// the last move.
#[derive(Debug)]
pub struct Message {
    pub id: MessageId,
    pub sequence: Sequence,
    pub created: Time,
    /// When it expires; of a buried message, the milliseconds it had left.
    pub expires: Time,
    pub time_to_run_ms: u64,
    pub state: State,
    pub queue: QueueSlot,
    pub priority: u32,
    pub body_bytes: u32,
    pub reserves: u32,
    /// Whether [`Messages::history`] has more of it.
    pub has_history: bool,
    /// Whether its counters have changed since they were last written.
    pub unsaved: bool,
    /// Whether [`Messages::failure`] has something of it.
    pub has_failed: bool,
    /// Whether it has taken a key.
    pub has_key: bool,
    /// Whether it ends with the process: no database has it.
    pub is_volatile: bool,
}

/// The state of a message; the picture of it is at [`crate::words::change::MessageState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its queue's `ready`.
    Ready,
    /// In its queue's `delayed`.
    Delayed(Time),
    /// In somebody's hands.
    Reserved(ReservationSlot),
    /// In its queue's `buried`, at this place.
    Buried(u64),
}

/// What happened to the few messages that something happened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub delay_ms: u64,
    pub timeouts: u32,
    pub releases: u32,
    pub buries: u32,
    pub kicks: u32,
}

/// A message's place among the ready ones of its queue, ordered by priority and sequence.
///
/// The slot comes along for free: it lies where the fields would leave a gap.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub priority: u32,
    pub slot: Slot,
    pub sequence: Sequence,
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Place {}
impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Place {
    fn cmp(&self, other: &Place) -> std::cmp::Ordering {
        (self.priority, self.sequence).cmp(&(other.priority, other.sequence))
    }
}

/// All messages.
#[derive(Debug, Default)]
pub struct Messages {
    slots: Slab<Message>,
    by_id: IdIndex,
    history: FxHashMap<Slot, History>,
    failures: FxHashMap<Slot, Failure>,
}

impl Messages {
    pub fn insert(&mut self, message: Message, history: History) -> Slot {
        let id = message.id;
        let slot = Slot::try_from(self.slots.insert(message)).expect("fewer than 2^32 messages");
        self.by_id.insert(id, slot);
        if history != History::default() {
            *self.history_mut(slot) = history;
        }
        slot
    }

    pub fn remove(&mut self, slot: Slot) -> Message {
        let message = self.slots.remove(slot as usize);
        self.by_id.remove(message.id);
        if message.has_history {
            self.history.remove(&slot);
        }
        if message.has_failed {
            self.failures.remove(&slot);
        }
        message
    }

    pub fn slot_of(&self, id: MessageId) -> Option<Slot> {
        self.by_id.get(id)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Message)> {
        self.slots.iter().filter_map(|(slot, m)| Some((Slot::try_from(slot).ok()?, m)))
    }

    /// Panics when an entry of the history is missing or nobody's.
    #[cfg(test)]
    pub fn check_history(&self) {
        let marked = self.slots.iter().filter(|(_, message)| message.has_history);
        let slots: Vec<usize> = marked.map(|(slot, _)| slot).collect();
        assert_eq!(slots.len(), self.history.len(), "entries of the history");
        assert!(slots.iter().all(|slot| self.history.contains_key(&(*slot as Slot))));
        let failed = self.slots.iter().filter(|(_, message)| message.has_failed);
        let slots: Vec<usize> = failed.map(|(slot, _)| slot).collect();
        assert_eq!(slots.len(), self.failures.len(), "entries of failures");
        assert!(slots.iter().all(|slot| self.failures.contains_key(&(*slot as Slot))));
        assert_eq!(self.by_id.count(), self.slots.len(), "entries of the index");
    }

    /// What happened to the message, all zero for most.
    pub fn history(&self, slot: Slot) -> History {
        if self[slot].has_history { self.history[&slot] } else { History::default() }
    }

    pub fn history_mut(&mut self, slot: Slot) -> &mut History {
        self[slot].has_history = true;
        self.history.entry(slot).or_default()
    }

    /// How the processing of the message failed, if a policy had to do with it.
    pub fn failure(&self, slot: Slot) -> Option<&Failure> {
        if self[slot].has_failed { self.failures.get(&slot) } else { None }
    }

    pub fn failure_mut(&mut self, slot: Slot) -> &mut Failure {
        self[slot].has_failed = true;
        self.failures.entry(slot).or_default()
    }

    /// Forgets how the processing of the message failed.
    pub fn take_failure(&mut self, slot: Slot) -> Option<Failure> {
        if std::mem::take(&mut self[slot].has_failed) { self.failures.remove(&slot) } else { None }
    }

    pub fn counters(&self, slot: Slot) -> Counters {
        let history = self.history(slot);
        Counters {
            reserves: self[slot].reserves,
            timeouts: history.timeouts,
            releases: history.releases,
            buries: history.buries,
            kicks: history.kicks,
        }
    }

    /// The row that says where the message is now, and that it has been written; without what the
    /// ledger knows of other queues and of failures.
    pub fn state_row(&mut self, slot: Slot) -> StateRow {
        use crate::words::change::MessageState;
        let counters = self.counters(slot);
        let delay_ms = self.history(slot).delay_ms;
        let message = &mut self[slot];
        message.unsaved = false;
        let (state, due) = match message.state {
            // What is in somebody's hands is ready after a restart.
            State::Ready | State::Reserved(_) => (MessageState::Ready, None),
            State::Delayed(due) => (MessageState::Delayed, Some(due.stored())),
            State::Buried(place) => (MessageState::Buried, i64::try_from(place).ok()),
        };
        let expires_ms = match message.state {
            _ if message.expires == Time::NEVER => None,
            State::Buried(_) => i64::try_from(message.expires.0).ok(),
            _ => Some(message.expires.stored()),
        };
        StateRow {
            id: message.id,
            queue: None,
            state,
            priority: message.priority,
            sequence: message.sequence,
            due,
            expires_ms,
            delay_ms,
            counters,
            failure: None,
        }
    }

    pub fn place(&self, slot: Slot) -> Place {
        let message = &self[slot];
        Place { priority: message.priority, slot, sequence: message.sequence }
    }
}

impl std::ops::Index<Slot> for Messages {
    type Output = Message;
    fn index(&self, slot: Slot) -> &Message {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<Slot> for Messages {
    fn index_mut(&mut self, slot: Slot) -> &mut Message {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_80_bytes_and_a_place_16() {
        assert!(size_of::<Message>() <= 80);
        assert_eq!(size_of::<Option<Message>>(), size_of::<Message>());
        assert_eq!(size_of::<Place>(), 16);
    }
}
