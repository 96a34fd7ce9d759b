//! The queues of a subscription, in the order of lists, where each is found at once.
//!
//! A few are found by a look at all of them. A connection can have a hundred thousand, and then
//! each of its commands would look at half of those: from some size on their places are kept.

use std::ops::Deref;

use rustc_hash::FxHashMap;

use super::queue::QueueSlot;

/// The size from which on places are kept, until the set has shrunk to half of it. A scan of so
/// many, a kilobyte, costs about as much as a look-up.
const INDEXED_FROM: usize = 64;

/// One queue of a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub queue: QueueSlot,
    /// Whether it is about to be taken out of the set: then nothing more is handed out of it.
    pub leaving: bool,
    /// The stamp of its entry in the queue's rotation; 0 where it has none. An entry whose stamp is
    /// older than that of the subscription is put right when it comes to the front.
    pub entered: u64,
}

/// The queues of a subscription.
#[derive(Debug, Default)]
pub struct Members {
    list: Vec<Member>,
    /// Where in the list each queue stands, once they are many. Invariant: all of them or none. The
    /// slots are the core's, so that peers cannot make them collide.
    places: Option<Box<FxHashMap<QueueSlot, u32>>>,
}

impl Members {
    /// Adds a queue, which must not be in it, behind all others.
    pub fn add(&mut self, queue: QueueSlot) {
        if self.list.is_empty() {
            // Hardly any gets another one.
            self.list.reserve_exact(1);
        }
        let place = self.list.len();
        self.list.push(Member { queue, leaving: false, entered: 0 });
        match &mut self.places {
            Some(places) => drop(places.insert(queue, small(place))),
            None if self.list.len() >= INDEXED_FROM => {
                let places = self.list.iter().enumerate();
                let places = places.map(|(place, member)| (member.queue, small(place)));
                self.places = Some(Box::new(places.collect()));
            }
            None => {}
        }
    }

    /// Takes out the queue at this place, which the last one takes.
    pub fn remove(&mut self, place: usize) -> Member {
        let member = self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&member.queue);
            if let Some(moved) = self.list.get(place) {
                places.insert(moved.queue, small(place));
            }
        }
        if self.list.len() < self.list.capacity() / 4 {
            // A quarter, so that what is given back is not soon asked for again.
            let kept = self.list.capacity() / 2;
            self.list.shrink_to(kept);
            self.places.iter_mut().for_each(|places| places.shrink_to(kept));
        }
        if self.list.len() <= INDEXED_FROM / 2 {
            self.places = None;
        }
        member
    }

    /// Where a queue stands.
    pub fn position(&self, queue: QueueSlot) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&queue).map(|place| *place as usize),
            None => self.list.iter().position(|member| member.queue == queue),
        }
    }

    pub fn get_mut(&mut self, queue: QueueSlot) -> Option<&mut Member> {
        let place = self.position(queue)?;
        self.list.get_mut(place)
    }

    /// All of them, whose queues must stay as they are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.list.iter_mut()
    }
}

impl Deref for Members {
    type Target = [Member];
    fn deref(&self) -> &[Member] {
        &self.list
    }
}

fn small(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 2^32 queues")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each queue is found where it stands, and no other one.
    fn check(members: &Members, others: impl Iterator<Item = QueueSlot>) {
        for (place, member) in members.iter().enumerate() {
            assert_eq!(members.position(member.queue), Some(place));
        }
        others.for_each(|queue| assert_eq!(members.position(queue), None));
    }

    fn slots(members: &Members) -> Vec<QueueSlot> {
        members.iter().map(|member| member.queue).collect()
    }

    #[test]
    fn each_is_found_where_it_stands_however_many_there_are() {
        let mut members = Members::default();
        let mut plain: Vec<QueueSlot> = Vec::new();
        for queue in 0..3 * INDEXED_FROM as u32 {
            members.add(queue * 7);
            plain.push(queue * 7);
            check(&members, std::iter::once(queue * 7 + 1));
        }
        assert!(members.places.is_some());
        while let Some(last) = plain.len().checked_sub(1) {
            // From the front, the middle and the end.
            let place = [0, last / 2, last][last % 3];
            let gone = plain.swap_remove(place);
            assert_eq!(members.remove(place).queue, gone);
            assert_eq!(slots(&members), plain);
            check(&members, std::iter::once(gone));
        }
        assert!(members.places.is_none() && members.list.capacity() <= 4);
    }

    #[test]
    fn the_room_of_those_who_left_is_given_back() {
        let mut members = Members::default();
        (0..10_000).for_each(|queue| members.add(queue));
        (0..9_900).for_each(|_| _ = members.remove(0));
        let places = members.places.as_ref().unwrap().capacity();
        assert!(members.list.capacity() <= 800 && places <= 1_600, "{places}");
    }

    #[test]
    fn the_first_of_a_set_takes_no_room_for_others() {
        let mut members = Members::default();
        members.add(1);
        assert_eq!(members.list.capacity(), 1);
    }
}
