//! The ready messages of a queue, in the order in which they are handed out.
//!
//! Nearly all are put behind all others and taken from the front, so they stand in a ring, one
//! after the other, in half the room and time of a tree. Whoever belongs further ahead (a higher
//! priority, a message that comes back) stands in a tree beside it. Whoever is taken out of the
//! middle of the ring leaves a gap there, until the gaps are most of it.

use std::collections::{BTreeSet, VecDeque};
use std::iter::Peekable;

use crate::words::ids::Sequence;

use super::message::{Place, Slot};

/// The slot of a gap. No message has it: so many would take 300 GB.
const GAP: Slot = Slot::MAX;
/// A ring of this size is neither closed up nor given back, so that a queue that holds a few
/// messages now and then needs no allocation for each.
const SMALL: usize = 16;

/// How many gaps a search passes at most.
const GAPS_PASSED_MAX: usize = 1_000;

/// Ready messages in order.
#[derive(Debug, Default)]
pub struct ReadyList {
    /// Sorted. Invariant: no gap at either end, and not more gaps than messages but for a few.
    ring: VecDeque<Place>,
    gaps: usize,
    beside: BTreeSet<Place>,
}

impl ReadyList {
    pub fn len(&self) -> usize {
        self.ring.len() - self.gaps + self.beside.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.beside.is_empty()
    }

    pub fn first(&self) -> Option<&Place> {
        match (self.ring.front(), self.beside.first()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Adds a message, which must not be in it.
    pub fn insert(&mut self, place: Place) {
        if self.ring.back().is_none_or(|last| *last < place) {
            self.ring.push_back(place);
        } else {
            self.beside.insert(place);
        }
    }

    /// Takes a message out, if it is there.
    pub fn remove(&mut self, place: &Place) {
        if self.ring.front() == Some(place) {
            self.ring.pop_front();
            self.tidy();
        } else if let Some(at) = self.find(place) {
            self.ring[at].slot = GAP;
            self.gaps += 1;
            self.tidy();
        } else {
            self.beside.remove(place);
        }
    }

    pub fn pop_first(&mut self) -> Option<Place> {
        let first = *self.first()?;
        self.remove(&first);
        Some(first)
    }

    /// The first message of this priority or a later one. Among many gaps it is not found.
    pub fn first_from(&self, priority: u32) -> Option<&Place> {
        let at = self.ring.partition_point(|place| place.priority < priority);
        let ring = self.ring.range(at..).take(GAPS_PASSED_MAX).find(|place| place.slot != GAP);
        let from = Place { priority, slot: 0, sequence: Sequence(0) };
        let beside = self.beside.range(from..).next();
        match (ring, beside) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Place> {
        let ring = self.ring.iter().filter(|place| place.slot != GAP);
        Merged { one: ring.peekable(), other: self.beside.iter().peekable() }
    }

    #[cfg(test)]
    pub fn get(&self, place: &Place) -> Option<&Place> {
        self.find(place).map(|at| &self.ring[at]).or_else(|| self.beside.get(place))
    }

    /// Where in the ring a message stands.
    fn find(&self, place: &Place) -> Option<usize> {
        self.ring.binary_search(place).ok().filter(|at| self.ring[*at].slot != GAP)
    }

    /// Has no gap at the ends, few in the middle, and no more room than is needed. The longest that
    /// this takes is 5 ms, with ten million messages.
    fn tidy(&mut self) {
        while self.gaps > 0 && self.ring.front().is_some_and(|first| first.slot == GAP) {
            self.ring.pop_front();
            self.gaps -= 1;
        }
        while self.gaps > 0 && self.ring.back().is_some_and(|last| last.slot == GAP) {
            self.ring.pop_back();
            self.gaps -= 1;
        }
        if self.gaps > SMALL && self.gaps > self.ring.len() / 2 {
            self.ring.retain(|place| place.slot != GAP);
            self.gaps = 0;
        }
        // A quarter, so that what was given back is not soon asked for again.
        if self.ring.capacity() > SMALL && self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(self.ring.capacity() / 2);
        }
    }
}

/// Two sorted rows as one.
struct Merged<'a, A: Iterator<Item = &'a Place>, B: Iterator<Item = &'a Place>> {
    one: Peekable<A>,
    other: Peekable<B>,
}

impl<'a, A, B> Iterator for Merged<'a, A, B>
where
    A: Iterator<Item = &'a Place>,
    B: Iterator<Item = &'a Place>,
{
    type Item = &'a Place;

    fn next(&mut self) -> Option<&'a Place> {
        match (self.one.peek(), self.other.peek()) {
            (Some(one), Some(other)) if other < one => self.other.next(),
            (Some(_), _) => self.one.next(),
            (None, _) => self.other.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(priority: u32, sequence: u64) -> Place {
        Place { priority, slot: sequence as Slot, sequence: Sequence(sequence) }
    }

    #[test]
    fn the_first_of_each_priority_is_found() {
        let mut line = ReadyList::default();
        for (priority, sequence) in [(5, 1), (5, 2), (9, 3), (5, 4), (2, 5), (9, 6)] {
            line.insert(place(priority, sequence));
        }
        let found = |line: &ReadyList, from| line.first_from(from).map(|place| place.sequence.0);
        assert_eq!([0, 3, 6, 10].map(|from| found(&line, from)), [Some(5), Some(1), Some(3), None]);
        line.remove(&place(5, 1));
        line.remove(&place(9, 3));
        assert_eq!([3, 6].map(|from| found(&line, from)), [Some(2), Some(6)]);
    }

    fn sequences(line: &ReadyList) -> Vec<u64> {
        line.iter().map(|place| place.sequence.0).collect()
    }

    fn line(sequences: impl IntoIterator<Item = u64>) -> ReadyList {
        let mut line = ReadyList::default();
        sequences.into_iter().for_each(|sequence| line.insert(place(1, sequence)));
        line
    }

    #[test]
    fn who_comes_first_is_first_but_for_a_higher_priority() {
        let mut line = line([1, 2]);
        line.insert(place(0, 3));
        line.insert(place(1, 4));
        assert_eq!(sequences(&line), [3, 1, 2, 4]);
        assert_eq!(line.first(), Some(&place(0, 3)));
        let popped: Vec<u64> =
            std::iter::from_fn(|| line.pop_first()).map(|place| place.sequence.0).collect();
        assert_eq!(popped, [3, 1, 2, 4]);
        assert!(line.is_empty());
    }

    #[test]
    fn who_comes_back_has_the_old_place() {
        let mut line = line(1..=5);
        for sequence in [1, 3, 5] {
            line.remove(&place(1, sequence));
        }
        assert_eq!((sequences(&line), line.len()), (vec![2, 4], 2));
        for sequence in [5, 1, 3] {
            line.insert(place(1, sequence));
        }
        assert_eq!((sequences(&line), line.len()), (vec![1, 2, 3, 4, 5], 5));
        line.remove(&place(1, 3));
        assert_eq!(sequences(&line), [1, 2, 4, 5]);
    }

    #[test]
    fn taking_out_who_is_not_there_changes_nothing() {
        let mut line = line([1, 2, 3]);
        line.remove(&place(1, 2));
        line.remove(&place(1, 2));
        line.remove(&place(2, 2));
        assert_eq!((sequences(&line), line.len()), (vec![1, 3], 2));
        assert_eq!(line.get(&place(1, 2)), None);
        assert_eq!(line.get(&place(1, 3)).map(|place| place.slot), Some(3));
    }

    #[test]
    fn the_room_of_those_who_left_is_given_back() {
        let mut line = line(1..=10_000);
        for sequence in (1..=10_000).filter(|sequence| sequence % 100 != 0) {
            line.remove(&place(1, sequence));
        }
        assert_eq!(line.len(), 100);
        assert!(line.ring.len() <= 2 * line.len() + SMALL);
        assert!(line.ring.capacity() <= 8 * line.len());
        while line.pop_first().is_some() {}
        assert!(line.ring.capacity() <= SMALL);
    }
}
