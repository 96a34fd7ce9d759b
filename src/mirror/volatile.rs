//! The content of volatile messages, which no database gets.
//!
//! Bounded like all messages: the engine counts them, and puts are refused once they reach
//! `limits.max_memory`.

use rustc_hash::FxHashMap;

use crate::words::body::Body;
use crate::words::change::Attributes;
use crate::words::ids::MessageId;

/// Messages by id.
#[derive(Debug, Default)]
pub(super) struct Volatile(FxHashMap<MessageId, (Attributes, Body)>);

/// Entries whose room is kept whatever a burst has left.
const KEPT_CAPACITY_MIN: usize = 4_096;

impl Volatile {
    pub fn insert(&mut self, id: MessageId, content: (Attributes, Body)) {
        self.0.insert(id, content);
    }

    /// The content of a message, if that is volatile.
    pub fn get(&self, id: MessageId) -> Option<&(Attributes, Body)> {
        // Each delivery asks, and most daemons have none.
        if self.0.is_empty() { None } else { self.0.get(&id) }
    }

    /// Takes a message out, and gives back most of the room of a burst once that is over.
    pub fn remove(&mut self, id: MessageId) -> Option<(Attributes, Body)> {
        let content = self.0.remove(&id);
        if self.0.capacity() > KEPT_CAPACITY_MIN && self.0.capacity() / 8 > self.0.len() {
            self.0.shrink_to(KEPT_CAPACITY_MIN.max(self.0.len() * 2));
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_burst_is_given_back() {
        let mut volatile = Volatile::default();
        for id in 1..=100_000 {
            volatile.insert(MessageId(id), Default::default());
        }
        (2..=100_000).for_each(|id| drop(volatile.remove(MessageId(id))));
        assert!(volatile.0.capacity() < 20_000, "capacity {}", volatile.0.capacity());
        assert!(volatile.get(MessageId(1)).is_some() && volatile.get(MessageId(2)).is_none());
    }
}
