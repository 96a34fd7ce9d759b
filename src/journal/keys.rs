//! The deduplication keys of one commit, coalesced by queue and key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::words::change::{KeyRow, KeyUntil};
use crate::words::ids::{MessageId, QueueId};

/// What becomes of a key: it is taken by this message, if any, for so long, or it is free.
pub type Taken = Option<(Option<MessageId>, KeyUntil)>;

/// Changes of keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    // Keys come from strangers: the standard hasher, which is keyed, keeps them from colliding on
    // purpose.
    changes: HashMap<(QueueId, Box<[u8]>), KeyChange>,
}

#[derive(Debug)]
struct KeyChange {
    taken: Taken,
    /// Whether no database has a row of this key: it was set for a message of the same batch.
    is_new: bool,
}

impl Keys {
    /// How many keys have changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes by queue and key.
    pub fn sorted(&self) -> Vec<(QueueId, &[u8], Taken)> {
        let changes = self.changes.iter();
        let mut sorted: Vec<_> =
            changes.map(|((queue, key), change)| (*queue, &**key, change.taken)).collect();
        sorted.sort_unstable_by_key(|(queue, key, _)| (*queue, *key));
        sorted
    }

    /// Takes out those that are free.
    pub fn split_free(&mut self) -> Keys {
        let free = self.changes.extract_if(|_, change| change.taken.is_none());
        Keys { changes: free.collect() }
    }

    /// A key is taken; `is_new` when its message was put in the same batch.
    pub fn set(&mut self, row: KeyRow, is_new: bool) {
        let change = KeyChange { taken: Some((row.message, row.until)), is_new };
        self.add((row.queue, row.key), change, false);
    }

    /// A key is free.
    pub fn gone(&mut self, queue: QueueId, key: Box<[u8]>, file_is_suspect: bool) {
        self.add((queue, key), KeyChange { taken: None, is_new: false }, file_is_suspect);
    }

    /// Adds what happened later, and takes it out of `newer`.
    pub fn add_all(&mut self, newer: &mut Keys, file_is_suspect: bool) {
        for (place, change) in newer.changes.drain() {
            self.add(place, change, file_is_suspect);
        }
    }

    fn add(&mut self, place: (QueueId, Box<[u8]>), newer: KeyChange, file_is_suspect: bool) {
        match self.changes.entry(place) {
            Entry::Vacant(entry) => drop(entry.insert(newer)),
            // A row whose commit failed may be in the file after all.
            Entry::Occupied(entry)
                if newer.taken.is_none() && entry.get().is_new && !file_is_suspect =>
            {
                entry.remove();
            }
            Entry::Occupied(mut entry) => {
                let change = entry.get_mut();
                change.is_new &= newer.taken.is_some();
                change.taken = newer.taken;
            }
        }
    }
}
