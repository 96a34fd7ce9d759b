//! Messages that were put, in the order of their ids, which is the order in which nearly all come.
//!
//! Most leave in that order too, soon after they came. So this is a queue of slots in which a
//! message is found by its distance from the first one; only where messages in the middle have
//! left for good is it searched for.
//!
//! A volatile message that becomes durable has an id from long ago. It waits beside the queue, and
//! gets its slot when the batch is handed over: so neither the others nor their order are touched
//! before the one moment at which slots are counted ([`Puts::close_ranks`]).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::batch::put_bytes;
use crate::words::change::MessageRow;
use crate::words::ids::MessageId;

/// Messages by id. Empty slots are at most as many as messages, and a few.
#[derive(Debug, Default)]
pub(super) struct Puts {
    slots: VecDeque<PutSlot>,
    /// Messages in `slots`.
    messages: usize,
    /// Messages with ids below the last one of `slots`; hardly any batch has some.
    late: Option<Box<Late>>,
}

/// Messages that have no slot yet.
#[derive(Debug, Default)]
struct Late(BTreeMap<MessageId, MessageRow>);

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
        self.messages + self.late.as_ref().map_or(0, |late| late.0.len())
    }

    /// How many slots they take.
    pub fn slots(&self) -> usize {
        debug_assert!(self.late.is_none(), "a message without a slot");
        self.slots.len()
    }

    /// For how many messages there is room.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Adds a message.
    pub fn push(&mut self, row: MessageRow) {
        if self.slots.back().is_some_and(|last| last.id >= row.id) {
            debug_assert!(self.get(row.id).is_none(), "{} is put twice", row.id);
            self.late.get_or_insert_default().0.insert(row.id, row);
            return;
        }
        self.slots.push_back(PutSlot { id: row.id, row: Some(row) });
        self.messages += 1;
    }

    /// The message of this id.
    pub fn get(&self, id: MessageId) -> Option<&MessageRow> {
        match self.find(id) {
            Some(index) => self.slots[index].row.as_ref(),
            None => self.late.as_ref()?.0.get(&id),
        }
    }

    /// Takes out the message of this id.
    pub fn remove(&mut self, id: MessageId) -> Option<MessageRow> {
        let Some(index) = self.find(id) else { return self.late.as_mut()?.0.remove(&id) };
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

    /// Gives each message its slot, in the order of the ids. Moves no more of them than have ids
    /// above the first one that gets one.
    pub fn close_ranks(&mut self) {
        let Some(late) = self.late.take() else { return };
        let Late(late) = *late;
        let mut from = self.slots.len();
        self.messages += late.len();
        self.slots.extend(late.keys().map(|id| PutSlot { id: *id, row: None }));
        let mut to = self.slots.len();
        for (id, row) in late.into_iter().rev() {
            while from > 0 && self.slots[from - 1].id > id {
                from -= 1;
                to -= 1;
                self.slots.swap(from, to);
            }
            to -= 1;
            self.slots[to] = PutSlot { id, row: Some(row) };
        }
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
        let late = self.late.take().map(|late| late.0.into_values());
        self.slots.drain(..).filter_map(|slot| slot.row).chain(late.into_iter().flatten())
    }

    /// Empties it. The room stays unless a burst has made it far larger than what it was used for.
    pub fn clear(&mut self) {
        let used = self.slots.len();
        self.slots.clear();
        self.late = None;
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
    use super::super::{Batch, Journal, Row};
    use super::*;
    use crate::words::change::Change;
    use crate::words::ids::Part;

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
    fn late_messages_are_found_before_and_after_they_get_their_slots() {
        for others in [vec![], vec![50], vec![5, 6, 9, 10, 30]] {
            let mut puts = filled(others.clone());
            let late = [7, 3, 29, 8, 1];
            late.into_iter().for_each(|id| puts.push(row(id)));
            assert_eq!(puts.remove(MessageId(8)), Some(row(8)));
            assert_eq!(puts.remove(MessageId(8)), None);
            assert_eq!(puts.get(MessageId(29)), Some(&row(29)));
            puts.push(row(40 + u64::from(others == [50]) * 20));
            let mut expected: Vec<u64> = others.iter().copied().chain([1, 3, 7, 29]).collect();
            expected.push(if others == [50] { 60 } else { 40 });
            expected.sort_unstable();
            assert_eq!(puts.len(), expected.len());
            puts.close_ranks();
            puts.close_ranks();
            assert_eq!((ids(&puts), puts.len()), (expected.clone(), expected.len()));
            assert!(expected.iter().all(|id| puts.get(MessageId(*id)) == Some(&row(*id))));
            assert_eq!(puts.remove(MessageId(1)), Some(row(1)));
            assert_eq!(puts.drain().count(), expected.len() - 1);
        }
    }

    #[test]
    fn late_messages_are_taken_out_with_the_others() {
        let mut puts = filled([5, 6]);
        puts.push(row(2));
        let taken: Vec<u64> = puts.drain().map(|row| row.id.0).collect();
        assert_eq!(taken, [5, 6, 2]);
        assert_eq!(puts.len(), 0);
        puts.push(row(9));
        puts.push(row(1));
        puts.clear();
        assert_eq!((puts.len(), puts.slots()), (0, 0));
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

    fn put(id: u64) -> Change {
        Change::Put(row(id))
    }

    fn after(changes: impl IntoIterator<Item = Change>) -> Journal {
        let mut journal = Journal::new();
        changes.into_iter().for_each(|change| journal.record(change));
        journal
    }

    /// The ids of a batch: of what is removed, and of what is put.
    fn ids_of(batch: &Batch) -> (Vec<u64>, Vec<u64>) {
        let ids = |part| {
            batch.part(batch.places_of(part)).map(|row| match row {
                Row::Removed(id) => id.0,
                Row::Put(row) => row.id.0,
                Row::Moved(row) => row.id.0,
            })
        };
        (ids(Part::Removals).collect(), ids(Part::Puts).collect())
    }

    #[test]
    fn in_a_batch_a_late_message_has_its_place_among_the_others() {
        let mut journal = after([5, 9, 3, 10, 7].map(put));
        assert!(journal.message(MessageId(3)).is_some());
        assert_eq!((journal.pending_late_puts(), journal.rows()), (2, 5));
        let batch = journal.take();
        assert_eq!(ids_of(&batch), (vec![], vec![3, 5, 7, 9, 10]));
        assert_eq!((batch.late_puts(), batch.puts()), (2, 5));
        drop(batch);
        assert!(journal.message(MessageId(7)).is_some());
        journal.succeeded();
        journal.record(put(8));
        assert_eq!(journal.take().late_puts(), 1, "others have come before it");
    }

    #[test]
    fn a_late_message_that_is_removed_is_nothing() {
        let mut journal = after([put(5), put(3), Change::Removed(MessageId(3))]);
        assert_eq!(ids_of(&journal.take()), (vec![], vec![5]));
        journal.succeeded();
        journal.record(put(2));
        journal.record(Change::Removed(MessageId(2)));
        assert!(journal.is_empty());
    }

    #[test]
    fn a_late_message_comes_again_when_its_commit_has_failed() {
        let mut journal = after([5, 3].map(put));
        drop(journal.take());
        journal.record(put(6));
        journal.record(put(2));
        journal.failed();
        assert!([2, 3, 5, 6].iter().all(|id| journal.message(MessageId(*id)).is_some()));
        journal.record(put(4));
        // It may be in the file.
        journal.record(Change::Removed(MessageId(3)));
        assert_eq!(ids_of(&journal.take()), (vec![3], vec![2, 4, 5, 6]));
    }
}
