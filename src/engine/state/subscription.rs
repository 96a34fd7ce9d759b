//! The subscriptions: which queues' messages connections want, and how they are handed them.

use slab::Slab;

use crate::words::clock::Time;
use crate::words::command::{Demand, Settlement, Tag, Terms};
use crate::words::limits::{SUBSCRIBED_QUEUE_BYTES, SUBSCRIPTION_OVERHEAD_BYTES};

use super::members::{Member, Members};
use super::queue::QueueSlot;
use super::reservation::{List, NONE, ReservationSlot};
use super::session::{Keyed, SessionSlot};

/// Where a subscription lies in [`Subscriptions`]; reused after it is gone.
pub type SubscriptionSlot = u32;

/// What one connection wants of a set of queues. Dies with the connection.
#[derive(Debug)]
pub struct Subscription {
    pub session: SessionSlot,
    pub key: Keyed,
    /// Its queues, in the order in which they were added.
    pub queues: Members,
    pub demand: Demand,
    pub settlement: Settlement,
    pub terms: Terms,
    /// What comes along with each message of the window.
    pub tag: Tag,
    /// Whether it has been told to wake up since its connection last asked something of it.
    pub woken: bool,
    /// What is out through its window, the oldest first.
    pub held: List,
    /// Places in its window that are taken by messages which were taken back (flushed, timed out),
    /// until those are acknowledged: see [`super::session::Session::lost`].
    pub lost_places: u32,
    /// When it last got a message or began to wait, as its place in the rotations.
    pub stamp: u64,
    /// Since when its oldest message is the oldest, or all its places are lost.
    pub clock_since: Time,
    /// No message that is out and has an end of its own ends before this.
    pub soonest: Time,
    /// The entry in [`super::deadlines::Deadlines`].
    pub armed: Time,
    /// What was the oldest of `held` when the session ended.
    pub oldest_at_end: ReservationSlot,
}

impl Subscription {
    pub fn new(session: SessionSlot, key: Keyed) -> Subscription {
        Subscription {
            session,
            key,
            queues: Members::default(),
            demand: Demand::OnRequest,
            settlement: Settlement::ByConsumer,
            terms: Terms::MessageTimeToRun,
            tag: Tag::None,
            woken: false,
            held: List::default(),
            lost_places: 0,
            stamp: 0,
            clock_since: Time(0),
            soonest: Time::NEVER,
            armed: Time::NEVER,
            oldest_at_end: NONE,
        }
    }

    /// What it takes.
    fn bytes(&self) -> u64 {
        let key = if let Keyed::Bytes(key) = &self.key { key.as_slice().len() } else { 0 };
        let tag = if let Tag::Bytes(tag) = &self.tag { tag.as_slice().len() } else { 0 };
        let queues = self.queues.len() as u64 * SUBSCRIBED_QUEUE_BYTES;
        SUBSCRIPTION_OVERHEAD_BYTES + (2 * key + tag) as u64 + queues
    }

    pub fn is_window(&self) -> bool {
        matches!(self.demand, Demand::Window(_))
    }

    pub fn has_room(&self) -> bool {
        match self.demand {
            Demand::OnRequest | Demand::WakeUp => false,
            Demand::Window(max) => self.held.len() + self.lost_places < max,
        }
    }

    /// Whether its window has one clock, for its oldest message.
    pub fn has_one_clock(&self) -> bool {
        self.terms == Terms::AckTimeout && self.settlement == Settlement::ByConsumer
    }

    /// When a message that is handed out now ends by itself, its window's one clock apart.
    pub fn ends(&self, now: Time, time_to_run_ms: u64, ack_timeout_ms: u64) -> Time {
        if self.settlement == Settlement::WhenSent {
            return Time::NEVER;
        }
        match self.terms {
            Terms::MessageTimeToRun => now.plus(time_to_run_ms),
            Terms::Given(given_ms) => now.plus(given_ms),
            Terms::AckTimeout if ack_timeout_ms > 0 => now.plus(ack_timeout_ms),
            Terms::AckTimeout | Terms::Unlimited => Time::NEVER,
        }
    }

    /// When the clock of its window runs out.
    pub fn deadline(&self, ack_timeout_ms: u64) -> Time {
        if !self.has_one_clock() {
            return self.soonest;
        }
        let Demand::Window(max) = self.demand else { return Time::NEVER };
        let runs = !self.held.is_empty() || (max > 0 && !self.has_room());
        if ack_timeout_ms == 0 || !runs {
            return Time::NEVER;
        }
        self.clock_since.plus(ack_timeout_ms)
    }
}

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    slots: Slab<Subscription>,
    /// What they take. Invariant: the sum of [`Subscription::bytes`], so that the key, the tag and
    /// the number of queues change through the functions below.
    bytes: u64,
}

impl Subscriptions {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn insert(&mut self, subscription: Subscription) -> SubscriptionSlot {
        self.bytes += subscription.bytes();
        let slot = self.slots.insert(subscription);
        SubscriptionSlot::try_from(slot).expect("fewer than 2^32 subscriptions")
    }

    pub fn contains(&self, slot: SubscriptionSlot) -> bool {
        self.slots.contains(slot as usize)
    }

    pub fn remove(&mut self, slot: SubscriptionSlot) -> Subscription {
        let subscription = self.slots.remove(slot as usize);
        self.bytes -= subscription.bytes();
        subscription
    }

    pub fn add_queue(&mut self, slot: SubscriptionSlot, queue: QueueSlot) {
        self[slot].queues.add(queue);
        self.bytes += SUBSCRIBED_QUEUE_BYTES;
    }

    /// Takes out the queue at this place, which the last one takes.
    pub fn remove_queue(&mut self, slot: SubscriptionSlot, place: usize) -> Member {
        self.bytes -= SUBSCRIBED_QUEUE_BYTES;
        self[slot].queues.remove(place)
    }

    pub fn set_tag(&mut self, slot: SubscriptionSlot, tag: Tag) {
        self.bytes -= self[slot].bytes();
        self[slot].tag = tag;
        self.bytes += self[slot].bytes();
    }

    /// The sum of what each takes.
    #[cfg(test)]
    pub fn bytes_counted(&self) -> u64 {
        self.slots.iter().map(|(_, subscription)| subscription.bytes()).sum()
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (SubscriptionSlot, &Subscription)> {
        self.slots.iter().filter_map(|(slot, s)| Some((SubscriptionSlot::try_from(slot).ok()?, s)))
    }
}

impl std::ops::Index<SubscriptionSlot> for Subscriptions {
    type Output = Subscription;
    fn index(&self, slot: SubscriptionSlot) -> &Subscription {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<SubscriptionSlot> for Subscriptions {
    fn index_mut(&mut self, slot: SubscriptionSlot) -> &mut Subscription {
        &mut self.slots[slot as usize]
    }
}
