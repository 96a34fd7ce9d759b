//! The queues: what lies in each, who wants it, and who refers to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slab::Slab;

use crate::words::clock::Time;
use crate::words::ids::{QueueId, QueueName, Sequence};
use crate::words::limits::QUEUE_OVERHEAD_BYTES;
use crate::words::settings::QueueLimits;
use crate::words::statistics::StateCounts;

use super::message::{Place, Slot};
use super::ready::ReadyList;
use super::reservation::List;
use super::subscription::SubscriptionSlot;

/// Where a queue lies in [`Queues`]; reused after it is gone.
pub type QueueSlot = u32;

/// The priorities that count as urgent are below this.
pub const URGENT_BELOW: u32 = 1_024;

/// One queue.
///
/// Kept in the database: its name, while it has messages or an operator has set something of it,
/// and what that is. Everything else is made again from the messages or dies with the connections.
#[derive(Debug)]
pub struct Queue {
    pub name: QueueName,
    /// Its place in lists of queues, see [`Queues`].
    pub place: u32,
    /// Its number in the database, once a message was put.
    pub id: Option<QueueId>,
    pub ready: ReadyList,
    /// By the moment they are ready, then by place.
    pub delayed: BTreeSet<(Time, Sequence, Slot)>,
    /// By the order in which they were buried.
    pub buried: BTreeMap<u64, Slot>,
    pub reserved: List,
    /// The subscriptions that have room for a message, the one first that has waited longest since
    /// its last one: a stamp that is drawn when a message is handed out, and the subscription.
    pub rotation: BTreeSet<(u64, SubscriptionSlot)>,
    pub urgent: u32,
    pub body_bytes: u64,
    /// Sessions that refer to it, subscriptions on request and with windows that it is in, and large
    /// work on it under way.
    pub using: u32,
    pub watching: u32,
    pub windows: u32,
    pub works: u32,
    /// Keys that are taken in it.
    pub keys: u32,
    /// Connections start with it: it stays when nobody uses it.
    pub is_first: bool,
    /// Of `watching`, those whose session waits for a message.
    pub waiting: u32,
    pub paused_until: Time,
    pub pause_ms: u64,
    /// The entry in [`super::deadlines::Deadlines`] for the first delayed message.
    pub delay_armed: Time,
    /// Messages up to this place were flushed; what is left of them is being cleared away.
    pub flushed_through: Sequence,
    /// Of `reserved`, those that were flushed: they count no more.
    pub flushed_in_hand: u32,
    /// Dead letters in it, by their places among the buried of the queues that they came from.
    pub dead_letters: BTreeMap<u64, Slot>,
    /// Dead letters of its own in other queues.
    pub away: u32,
    /// What an operator has set: whether nothing is handed out, and how much it may hold.
    pub is_held: bool,
    pub limits: QueueLimits,
    pub policy: PolicyMatch,
    /// Whether large work that goes on serving it is under way.
    pub to_be_served: bool,
    pub messages_put: u64,
    pub removes: u64,
    pub pauses: u64,
}

/// Which policy applies to a queue, as of a generation of policies: matched anew after a reload
/// when it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyMatch {
    /// 0 is none: it was never matched.
    pub generation: u32,
    /// The policy's place, if one applies.
    pub place: Option<u16>,
}

impl Queue {
    fn new(name: QueueName, place: u32) -> Queue {
        Queue {
            name,
            place,
            id: None,
            ready: ReadyList::default(),
            delayed: BTreeSet::new(),
            buried: BTreeMap::new(),
            reserved: List::default(),
            rotation: BTreeSet::new(),
            urgent: 0,
            body_bytes: 0,
            using: 0,
            watching: 0,
            windows: 0,
            works: 0,
            keys: 0,
            is_first: false,
            waiting: 0,
            paused_until: Time(0),
            pause_ms: 0,
            delay_armed: Time::NEVER,
            flushed_through: Sequence(0),
            flushed_in_hand: 0,
            dead_letters: BTreeMap::new(),
            away: 0,
            is_held: false,
            limits: QueueLimits::NONE,
            policy: PolicyMatch::default(),
            to_be_served: false,
            messages_put: 0,
            removes: 0,
            pauses: 0,
        }
    }

    /// Whether nobody would notice if it were gone.
    pub fn is_unneeded(&self) -> bool {
        self.using == 0
            && self.watching == 0
            && self.windows == 0
            && self.works == 0
            && self.keys == 0
            && !self.is_first
            && self.ready.is_empty()
            && self.delayed.is_empty()
            && self.buried.is_empty()
            && self.reserved.is_empty()
            && self.away == 0
            && !self.is_held
            && self.limits == QueueLimits::NONE
    }

    /// The place of its next message, unless nothing is handed out of it now.
    pub fn next_ready(&self, now: Time) -> Option<Place> {
        self.ready.first().filter(|_| !self.is_paused(now)).copied()
    }

    pub fn is_paused(&self, now: Time) -> bool {
        self.paused_until > now || self.is_held
    }

    pub fn counts(&self) -> StateCounts {
        StateCounts {
            urgent: u64::from(self.urgent),
            ready: self.ready.len() as u64,
            reserved: u64::from(self.reserved.len() - self.flushed_in_hand),
            delayed: self.delayed.len() as u64,
            buried: self.buried.len() as u64,
        }
    }
}

/// All queues.
///
/// Lists name them in an order that clients' tests rely on: a new queue comes last, and the last one
/// takes the place of one that goes.
#[derive(Debug, Default)]
pub struct Queues {
    slots: Slab<Queue>,
    /// In the order of lists. Invariant: each queue's `place` is its index in here.
    listed: Vec<QueueSlot>,
    // Names come from strangers: the standard hasher, which is keyed, keeps them from colliding
    // on purpose.
    by_name: HashMap<QueueName, QueueSlot>,
    /// What they take beside their messages.
    bytes: u64,
}

impl Queues {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn find(&self, name: &QueueName) -> Option<QueueSlot> {
        self.by_name.get(name).copied()
    }

    pub fn make(&mut self, name: &QueueName) -> QueueSlot {
        let place = u32::try_from(self.listed.len()).expect("fewer than 2^32 queues");
        let slot = self.slots.insert(Queue::new(name.clone(), place));
        let slot = QueueSlot::try_from(slot).expect("fewer than 2^32 queues");
        self.listed.push(slot);
        self.by_name.insert(name.clone(), slot);
        self.bytes += queue_bytes(name);
        slot
    }

    pub fn remove(&mut self, slot: QueueSlot) -> Queue {
        let queue = self.slots.remove(slot as usize);
        self.by_name.remove(&queue.name);
        self.bytes -= queue_bytes(&queue.name);
        self.listed.swap_remove(queue.place as usize);
        if let Some(moved) = self.listed.get(queue.place as usize) {
            self.slots[*moved as usize].place = queue.place;
        }
        queue
    }

    /// Has this queue come first in lists; the one that did takes its place.
    pub fn list_first(&mut self, slot: QueueSlot) {
        let place = self[slot].place;
        let first = self.listed[0];
        self.listed.swap(0, place as usize);
        self[first].place = place;
        self[slot].place = 0;
    }

    /// The queues in the order of lists, from that place on.
    pub fn listed_from(&self, place: usize) -> impl Iterator<Item = &Queue> {
        let rest = self.listed.get(place..).unwrap_or_default();
        rest.iter().map(|slot| &self[*slot])
    }

    /// The queue that has taken the place of this one, which has just gone, and the place from
    /// which it came.
    pub fn moved_up(&self, gone: &Queue) -> Option<(&Queue, usize)> {
        let moved = self.listed.get(gone.place as usize)?;
        Some((&self[*moved], self.listed.len()))
    }

    pub fn get(&self, slot: QueueSlot) -> Option<&Queue> {
        self.slots.get(slot as usize)
    }

    /// The queues in slots from `from` on, for going over all of them a slice at a time.
    pub fn iter_from(&self, from: QueueSlot) -> impl Iterator<Item = (QueueSlot, &Queue)> {
        let end = QueueSlot::try_from(self.slots.capacity()).unwrap_or(QueueSlot::MAX);
        (from..end).filter_map(|slot| Some((slot, self.get(slot)?)))
    }
}

/// What a queue takes beside its messages: it stands in a slab and two tables, and its name in the
/// database in memory as well.
pub fn queue_bytes(name: &QueueName) -> u64 {
    QUEUE_OVERHEAD_BYTES + 2 * name.as_str().len() as u64
}

impl std::ops::Index<QueueSlot> for Queues {
    type Output = Queue;
    fn index(&self, slot: QueueSlot) -> &Queue {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<QueueSlot> for Queues {
    fn index_mut(&mut self, slot: QueueSlot) -> &mut Queue {
        &mut self.slots[slot as usize]
    }
}
