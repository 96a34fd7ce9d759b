//! The deduplication keys that are taken, by queue and over all queues.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::words::clock::Time;
use crate::words::key::Key;

use super::message::Slot;
use super::queue::QueueSlot;

/// Where a key lies in [`TakenKeys`]; reused after it is free.
pub type KeySlot = u32;

/// A key that is taken. Kept in the database, unless it is volatile.
#[derive(Debug)]
pub struct TakenKey {
    pub key: Key,
    /// The queue that the message was put into, wherever that is by now.
    pub queue: QueueSlot,
    /// The message; `None` once the key has outlived that.
    pub message: Option<Slot>,
    pub until: Until,
    /// Whether it ends with the process, like the message that has taken it.
    pub is_volatile: bool,
}

/// How long a key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until its message is handed out for the first time.
    Taken,
    /// Until its message is gone.
    Done,
    /// Until this moment.
    Moment(Time),
}

/// All keys.
#[derive(Debug, Default)]
pub struct TakenKeys {
    slots: Slab<TakenKey>,
    /// In an order, so that strangers, who choose the keys, cannot make them collide, and so that
    /// the queues of one key stand side by side.
    by_key: BTreeMap<(Key, QueueSlot), KeySlot>,
    by_message: FxHashMap<Slot, KeySlot>,
}

impl TakenKeys {
    /// Adds a key that is free in its queue.
    pub fn insert(&mut self, taken: TakenKey) -> KeySlot {
        let (key, queue, message) = (taken.key.clone(), taken.queue, taken.message);
        let slot = KeySlot::try_from(self.slots.insert(taken)).expect("fewer than 2^32 keys");
        let old = self.by_key.insert((key, queue), slot);
        debug_assert!(old.is_none(), "a key that is taken twice");
        if let Some(message) = message {
            self.by_message.insert(message, slot);
        }
        slot
    }

    /// Frees a key.
    pub fn remove(&mut self, slot: KeySlot) -> TakenKey {
        let taken = self.slots.remove(slot as usize);
        self.by_key.remove(&(taken.key.clone(), taken.queue));
        if let Some(message) = taken.message {
            self.by_message.remove(&message);
        }
        taken
    }

    /// Has a key outlive its message.
    pub fn forget_message(&mut self, slot: KeySlot) {
        if let Some(message) = self.slots[slot as usize].message.take() {
            self.by_message.remove(&message);
        }
    }

    /// Has a key stay taken beyond the end of the process.
    pub fn make_durable(&mut self, slot: KeySlot) {
        self.slots[slot as usize].is_volatile = false;
    }

    /// The key of a queue, if it is taken there.
    pub fn find(&self, queue: QueueSlot, key: &Key) -> Option<KeySlot> {
        self.by_key.get(&(key.clone(), queue)).copied()
    }

    /// The key that a message has taken.
    pub fn of_message(&self, message: Slot) -> Option<KeySlot> {
        self.by_message.get(&message).copied()
    }

    /// A key in all queues where it is taken.
    pub fn find_all(&self, key: &Key) -> impl Iterator<Item = &TakenKey> {
        let from = (key.clone(), QueueSlot::MIN);
        let to = (key.clone(), QueueSlot::MAX);
        self.by_key.range(from..=to).map(|(_, slot)| &self[*slot])
    }

    /// All keys, and how many are known by their messages.
    #[cfg(test)]
    pub fn entries(&self) -> (Vec<(KeySlot, &TakenKey)>, usize) {
        assert_eq!(self.by_key.len(), self.slots.len(), "keys by their names");
        let all = self.slots.iter();
        let all = all.filter_map(|(slot, taken)| Some((KeySlot::try_from(slot).ok()?, taken)));
        (all.collect(), self.by_message.len())
    }
}

impl std::ops::Index<KeySlot> for TakenKeys {
    type Output = TakenKey;
    fn index(&self, slot: KeySlot) -> &TakenKey {
        &self.slots[slot as usize]
    }
}
