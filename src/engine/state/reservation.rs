//! Messages in somebody's hands, on two lists each: the holder's and the queue's.
//!
//! The lists run through the reservations themselves, so that taking one out of the middle costs
//! the same as taking the first, however many a peer holds.

use slab::Slab;

use crate::words::clock::Time;

use super::message::Slot;
use super::session::SessionSlot;
use super::subscription::SubscriptionSlot;

/// Where a reservation lies in [`Reservations`].
pub type ReservationSlot = u32;

/// No reservation, in the place of one.
pub const NONE: ReservationSlot = ReservationSlot::MAX;

/// One message in one session's hands; dies with the connection or the process.
#[derive(Debug)]
pub struct Reservation {
    pub message: Slot,
    pub session: SessionSlot,
    /// Through whose window it came; none for what was taken on request.
    subscription: SubscriptionSlot,
    /// Whether its moment is that of its end, and not that of its beginning.
    has_end: bool,
    /// Whether it is to be settled together with others, and by nothing else.
    is_marked: bool,
    /// When it ends by itself; of what came through a window with one clock, when it was handed
    /// out.
    pub moment: Time,
    links: [Neighbours; 2],
}

/// To whom a message is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// To a session that asked for it, until this moment.
    Session(SessionSlot, Time),
    /// Through the window of a subscription, at this moment; the window has a clock of its own.
    Window(SubscriptionSlot, Time),
    /// Through the window of a subscription, until this moment.
    TimedWindow(SubscriptionSlot, Time),
}

impl Reservation {
    pub fn window(&self) -> Option<SubscriptionSlot> {
        (self.subscription != NONE).then_some(self.subscription)
    }

    pub fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// Takes it out of its window, if it has one, and has no clock run for it.
    pub fn mark(&mut self) {
        (self.subscription, self.is_marked) = (NONE, true);
        (self.has_end, self.moment) = (true, Time::NEVER);
    }

    /// Has it end at this moment again.
    pub fn unmark(&mut self, until: Time) {
        (self.is_marked, self.moment) = (false, until);
    }

    /// When the message was handed out, where that is known.
    pub fn began(&self) -> Option<Time> {
        (!self.has_end).then_some(self.moment)
    }

    /// When it ends by itself.
    pub fn ends(&self) -> Time {
        if self.has_end { self.moment } else { Time::NEVER }
    }
}

/// Which of the two lists.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// The list of the session, or of the subscription through whose window it came.
    Holder = 0,
    /// The list of the queue.
    Queue = 1,
}

#[derive(Clone, Copy, Debug)]
struct Neighbours {
    previous: ReservationSlot,
    next: ReservationSlot,
}

const UNLINKED: Neighbours = Neighbours { previous: NONE, next: NONE };

/// A list of reservations, the oldest first.
#[derive(Debug)]
pub struct List {
    first: ReservationSlot,
    last: ReservationSlot,
    len: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NONE, last: NONE, len: 0 }
    }
}

impl List {
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn first(&self) -> Option<ReservationSlot> {
        (self.first != NONE).then_some(self.first)
    }
}

/// All reservations.
#[derive(Debug, Default)]
pub struct Reservations {
    slots: Slab<Reservation>,
}

impl Reservations {
    /// Adds a reservation of a message by a session, through that of its windows if one is named.
    pub fn insert(
        &mut self,
        message: Slot,
        session: SessionSlot,
        window: Option<SubscriptionSlot>,
        (has_end, moment): (bool, Time),
    ) -> ReservationSlot {
        let (links, subscription) = ([UNLINKED; 2], window.unwrap_or(NONE));
        let reservation = Reservation {
            message,
            session,
            subscription,
            has_end,
            is_marked: false,
            moment,
            links,
        };
        let slot = self.slots.insert(reservation);
        ReservationSlot::try_from(slot).expect("fewer than 2^32 reservations")
    }

    /// Forgets a reservation that is on no list any more.
    pub fn remove(&mut self, slot: ReservationSlot) -> Reservation {
        self.slots.remove(slot as usize)
    }

    pub fn push_back(&mut self, list: &mut List, of: Of, slot: ReservationSlot) {
        self[slot].links[of as usize] = Neighbours { previous: list.last, next: NONE };
        if list.last == NONE {
            list.first = slot;
        } else {
            self[list.last].links[of as usize].next = slot;
        }
        list.last = slot;
        list.len += 1;
    }

    pub fn unlink(&mut self, list: &mut List, of: Of, slot: ReservationSlot) {
        let link = std::mem::replace(&mut self[slot].links[of as usize], UNLINKED);
        if link.previous == NONE {
            debug_assert_eq!(list.first, slot, "unlinked from a list it is not on");
            list.first = link.next;
        } else {
            self[link.previous].links[of as usize].next = link.next;
        }
        if link.next == NONE {
            list.last = link.previous;
        } else {
            self[link.next].links[of as usize].previous = link.previous;
        }
        list.len -= 1;
    }

    /// The list's reservations, with every link and the length checked.
    #[cfg(test)]
    pub fn check_list(&self, list: &List, of: Of) -> Vec<ReservationSlot> {
        let slots: Vec<ReservationSlot> = self.iter(list, of).map(|(slot, _)| slot).collect();
        assert_eq!(slots.len(), list.len as usize, "length of a list");
        let mut previous = NONE;
        for slot in &slots {
            assert_eq!(self[*slot].links[of as usize].previous, previous, "link back");
            previous = *slot;
        }
        assert_eq!(list.last, previous, "end of a list");
        slots
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self, list: &List, of: Of) -> impl Iterator<Item = (u32, &Reservation)> {
        let mut next = list.first;
        std::iter::from_fn(move || {
            let slot = (next != NONE).then_some(next)?;
            next = self[slot].links[of as usize].next;
            Some((slot, &self[slot]))
        })
    }
}

impl std::ops::Index<ReservationSlot> for Reservations {
    type Output = Reservation;
    fn index(&self, slot: ReservationSlot) -> &Reservation {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<ReservationSlot> for Reservations {
    fn index_mut(&mut self, slot: ReservationSlot) -> &mut Reservation {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_when_one_in_the_middle_leaves() {
        let mut all = Reservations::default();
        let mut list = List::default();
        let slots: Vec<u32> = (0..4).map(|n| all.insert(n, 1, None, (true, Time(0)))).collect();
        for slot in &slots {
            all.push_back(&mut list, Of::Queue, *slot);
        }
        all.unlink(&mut list, Of::Queue, slots[1]);
        all.unlink(&mut list, Of::Queue, slots[3]);
        all.push_back(&mut list, Of::Queue, slots[1]);
        let order: Vec<u32> = all.iter(&list, Of::Queue).map(|(_, r)| r.message).collect();
        assert_eq!(order, [0, 2, 1]);
        assert_eq!(list.len(), 3);
    }

    #[test]
    fn a_reservation_costs_40_bytes() {
        assert_eq!(size_of::<Reservation>(), 40);
    }

    #[test]
    fn the_two_lists_do_not_disturb_each_other() {
        let mut all = Reservations::default();
        let (mut mine, mut queue) = (List::default(), List::default());
        let a = all.insert(7, 1, None, (true, Time(0)));
        let b = all.insert(8, 1, None, (true, Time(0)));
        for slot in [a, b] {
            all.push_back(&mut mine, Of::Holder, slot);
            all.push_back(&mut queue, Of::Queue, slot);
        }
        all.unlink(&mut mine, Of::Holder, a);
        assert_eq!(mine.first(), Some(b));
        assert_eq!(queue.first(), Some(a));
    }
}
