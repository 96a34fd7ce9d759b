//! Messages that were put, in the order of their ids, which is the order in which they come.
//!
//! Most leave in that order too, soon after they came. So this is a queue of slots in which a
//! message is found by its distance from the first one; only where messages in the middle have
//! left for good is it searched for.

use std::collections::VecDeque;
use std::ops::Range;

use super::batch::put_bytes;
use crate::words::change::MessageRow;
use crate::words::ids::MessageId;

/// Messages by id. Empty slots are at most as many as messages, and a few.
#[derive(Debug, Default)]
pub(super) struct Puts {
    slots: VecDeque<PutSlot>,
    messages: usize,
}

#[derive(Debug)]
struct PutSlot {
    id: MessageId,
    /// `None` once the message has left.
    row: Option<MessageRow>,
}

/// Empty slots that are never worth closing the ranks.
const EMPTY_SLOTS_FREE: usize = 1_024;
/// Slots whose room is kept in an emptied batch whatever it was used for.
const KEPT_SLOTS_MIN: usize = 4_096;

impl Puts {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// How many slots they take.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// For how many messages there is room.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Adds a message, whose id is above all others.
    pub fn push(&mut self, row: MessageRow) {
        debug_assert!(self.slots.back().is_none_or(|last| last.id < row.id), "ids only grow");
        self.slots.push_back(PutSlot { id: row.id, row: Some(row) });
        self.messages += 1;
    }

    /// The message of this id.
    pub fn get(&self, id: MessageId) -> Option<&MessageRow> {
        self.slots[self.find(id)?].row.as_ref()
    }

    /// Takes out the message of this id.
    pub fn remove(&mut self, id: MessageId) -> Option<MessageRow> {
        let index = self.find(id)?;
        let row = self.slots[index].row.take()?;
        self.messages -= 1;
        if index == 0 {
            while self.slots.front().is_some_and(|slot| slot.row.is_none()) {
                self.slots.pop_front();
            }
        }
        if self.slots.len() > 2 * self.messages + EMPTY_SLOTS_FREE {
            self.slots.retain(|slot| slot.row.is_some());
        }
        Some(row)
    }

    /// The messages in these slots.
    pub fn range(&self, slots: Range<usize>) -> impl Iterator<Item = &MessageRow> {
        self.slots.range(slots).filter_map(|slot| slot.row.as_ref())
    }

    /// The end of the first of these slots whose messages come to so many bytes at most, or of the
    /// first one alone.
    pub fn end_of_bytes(&self, slots: Range<usize>, bytes_max: u64) -> usize {
        let mut bytes = 0;
        let is_beyond = |slot: &PutSlot| {
            bytes += slot.row.as_ref().map_or(0, put_bytes);
            bytes > bytes_max
        };
        let whole = self.slots.range(slots.clone()).position(is_beyond);
        whole.map_or(slots.end, |count| slots.start + count.max(1))
    }

    /// Lets go of the messages in these slots; the others keep theirs. Returns their bytes.
    pub fn forget(&mut self, slots: Range<usize>) -> u64 {
        let mut bytes = 0;
        for slot in self.slots.range_mut(slots) {
            if let Some(row) = slot.row.take() {
                self.messages -= 1;
                bytes += put_bytes(&row);
            }
        }
        bytes
    }

    /// Takes out all messages.
    pub fn drain(&mut self) -> impl Iterator<Item = MessageRow> {
        self.messages = 0;
        self.slots.drain(..).filter_map(|slot| slot.row)
    }

    /// Empties it. The room stays unless a burst has made it far larger than what it was used for.
    pub fn clear(&mut self) {
        let used = self.slots.len();
        self.slots.clear();
        self.messages = 0;
        if self.slots.capacity() > KEPT_SLOTS_MIN && self.slots.capacity() / 8 > used {
            self.slots.shrink_to(KEPT_SLOTS_MIN.max(used * 2));
        }
    }

    fn find(&self, id: MessageId) -> Option<usize> {
        let distance = id.0.checked_sub(self.slots.front()?.id.0)?;
        let guess = usize::try_from(distance).ok()?;
        if self.slots.get(guess).is_some_and(|slot| slot.id == id) {
            return Some(guess);
        }
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64) -> MessageRow {
        MessageRow { id: MessageId(id), ..MessageRow::default() }
    }

    fn filled(ids: impl IntoIterator<Item = u64>) -> Puts {
        let mut puts = Puts::default();
        ids.into_iter().for_each(|id| puts.push(row(id)));
        puts
    }

    fn ids(puts: &Puts) -> Vec<u64> {
        puts.range(0..puts.slots()).map(|row| row.id.0).collect()
    }

    #[test]
    fn messages_are_found_by_id_whatever_is_missing_before_them() {
        let mut puts = filled([5, 6, 9, 10, 30]);
        assert_eq!(puts.remove(MessageId(6)), Some(row(6)));
        for (id, there) in [(4, false), (5, true), (6, false), (7, false), (9, true), (10, true)] {
            assert_eq!(puts.get(MessageId(id)).is_some(), there, "id {id}");
        }
        assert_eq!(puts.get(MessageId(30)), Some(&row(30)));
        assert_eq!(puts.get(MessageId(u64::MAX)), None);
        assert_eq!(puts.remove(MessageId(6)), None);
        assert_eq!((ids(&puts), puts.len()), (vec![5, 9, 10, 30], 4));
    }

    #[test]
    fn one_message_that_stays_does_not_keep_the_slots_of_all_that_follow() {
        let mut puts = filled([1]);
        for id in 2..100_000 {
            puts.push(row(id));
            assert!(puts.remove(MessageId(id)).is_some());
            assert!(puts.slots() <= 2 + EMPTY_SLOTS_FREE, "{} slots", puts.slots());
        }
        assert_eq!(ids(&puts), [1]);
    }

    #[test]
    fn messages_that_leave_in_order_leave_no_slots() {
        let mut puts = filled(1..=100);
        puts.remove(MessageId(2));
        (1..=99).for_each(|id| drop(puts.remove(MessageId(id))));
        assert_eq!((puts.len(), puts.slots()), (1, 1));
    }

    #[test]
    fn an_emptied_one_gives_back_the_room_of_a_burst() {
        let mut puts = filled(1..=200_000);
        puts.clear();
        assert!(puts.slots.capacity() >= 200_000, "one that was full keeps its room");
        puts.push(row(1));
        puts.clear();
        assert!(puts.slots.capacity() < 20_000, "capacity {}", puts.slots.capacity());
        assert_eq!((puts.len(), puts.slots()), (0, 0));
    }
}
