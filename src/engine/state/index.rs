//! Where each message lies, by id.
//!
//! Ids are drawn in a row, and what is asked for next is often a neighbour. Hashed one by one,
//! neighbours would be scattered over the whole table, and with ten million messages each look
//! would miss the caches. So ids are hashed by the page.

use rustc_hash::FxHashMap;

use super::message::Slot;
use crate::words::ids::MessageId;

/// Ids in a page. Larger pages find neighbours a little faster; in smaller ones a message whose
/// neighbours have all gone costs less.
const PAGE_IDS: u64 = 8;
/// No message has this slot: it is the number of all messages that there can be.
const NO_SLOT: Slot = Slot::MAX;

/// Slots by message id.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    /// Invariant: no page is empty.
    pages: FxHashMap<u64, [Slot; PAGE_IDS as usize]>,
}

impl IdIndex {
    /// Notes where a message lies.
    pub fn insert(&mut self, id: MessageId, slot: Slot) {
        let (page, place) = place(id);
        self.pages.entry(page).or_insert([NO_SLOT; PAGE_IDS as usize])[place] = slot;
    }

    /// Forgets a message.
    pub fn remove(&mut self, id: MessageId) {
        let (page, place) = place(id);
        let Some(slots) = self.pages.get_mut(&page) else { return };
        slots[place] = NO_SLOT;
        if slots.iter().all(|slot| *slot == NO_SLOT) {
            self.pages.remove(&page);
        }
    }

    /// Where the message lies, if there is one of this id.
    pub fn get(&self, id: MessageId) -> Option<Slot> {
        let (page, place) = place(id);
        let slot = self.pages.get(&page)?[place];
        (slot != NO_SLOT).then_some(slot)
    }

    /// How many messages are noted; looks at all of them.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.pages.values().flatten().filter(|slot| **slot != NO_SLOT).count()
    }
}

/// The page of an id, and its place there.
fn place(id: MessageId) -> (u64, usize) {
    (id.0 / PAGE_IDS, (id.0 % PAGE_IDS) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_found_until_it_is_forgotten() {
        let mut index = IdIndex::default();
        let ids = [1, 2, 7, 8, 9, 63, 1 << 40, u64::MAX];
        for (slot, id) in (0..).zip(ids) {
            index.insert(MessageId(id), slot);
        }
        for (slot, id) in (0..).zip(ids) {
            assert_eq!(index.get(MessageId(id)), Some(slot), "id {id}");
        }
        assert_eq!(index.get(MessageId(3)), None, "a neighbour");
        assert_eq!(index.get(MessageId(800)), None, "far away");
        assert_eq!(index.count(), ids.len());
        for id in ids {
            index.remove(MessageId(id));
            assert_eq!(index.get(MessageId(id)), None, "id {id}");
        }
        index.remove(MessageId(1));
        assert!(index.pages.is_empty(), "empty pages cost nothing");
    }
}
