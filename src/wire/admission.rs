//! Who of those that send large messages may go on: whole frames are admitted, one after another.
//!
//! A frame's size is known from its first line. An admitted one is sure of room for all of it, so
//! that it never waits in the middle while it holds memory; the others wait with next to nothing in
//! hand, in the order in which they came. That room was set aside allocates nothing and keeps no
//! small message out: those are accepted as long as there is room for what has arrived.
//!
//! Shared by all client threads, which enter and leave, and the dispatcher, which says what it
//! keeps. The lock is taken for frames that do not come with one read, never for small messages.
//!
//! Invariant: what is expected is added under the lock, so that two frames never get the same room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channels::gate::Gate;
use crate::words::clock::Time;
use crate::words::ids::ConnectionId;
use crate::words::limits::{Budget, Limits, large_bytes_max};

/// A frame over this part of `limits.max_memory` waits for its turn among those like it; smaller
/// ones may overtake it.
const LARGE_PART: u64 = 64;
/// Who has waited for so long does not hold up those behind him any more, in milliseconds.
const ASIDE_MS: u64 = 5_000;

/// Who has waited for so long while there is room is starved by small messages, in milliseconds.
const STARVED_MS: u64 = 2_000;
/// So much of `limits.max_memory` may be resident beside it when a large frame is admitted. One
/// frame is admitted in any case when no more than this is on its way.
const RESIDENT_BESIDE_PART: u64 = 4;

/// The room for large frames, and who waits for it.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    /// What admitted frames have announced and not brought yet, in bytes.
    expected: AtomicU64,
    /// What the core keeps, as of its last turn, in bytes.
    kept: AtomicU64,
    /// What is on its way into the databases, in bytes: messages that are done already are still
    /// there.
    under_way: AtomicU64,
    /// What the database in memory takes, in bytes. It gives nothing back, so that for a moment a
    /// message has its place there and is not in it yet.
    pages: AtomicU64,
    /// How many wait, to be looked at without the lock.
    waiting: AtomicUsize,
    /// A smaller frame has found the memory full, for the dispatcher to notice.
    found_full: AtomicBool,
    /// A large frame was refused for want of room, for the dispatcher to tell.
    refused_large: AtomicBool,
    line: Mutex<WaitingFrames>,
}

#[derive(Debug, Default)]
struct WaitingFrames {
    waiters: VecDeque<Waiter>,
    last_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    frame: Frame,
    since: Time,
    /// It holds messages: its acknowledgements, which come behind the frame, are what makes room.
    holds: bool,
    gate: Arc<Gate>,
}

/// A frame that is not whole yet.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Of this connection.
    pub connection: ConnectionId,
    /// Its size, in bytes.
    pub whole: u64,
    /// What is still to come of it, in bytes.
    pub missing: u64,
    /// Whether its sender can be told that there is no room.
    pub can_be_refused: bool,
}

/// A frame's place: in the line, or among the admitted. Given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    /// In the line.
    number: Option<u64>,
    /// Room that is set aside, in bytes.
    expected: u64,
}

/// How a frame stands that wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It may.
    Admitted,
    /// Other frames have the room, or others are before it.
    Waits,
    /// The messages that are kept fill the memory.
    Full,
    /// They leave no room for a frame as large as this one.
    NoRoom,
    /// So they do, and it holds messages itself, so that waiting may be in vain.
    HoldsUpItself,
}

impl Admission {
    /// With nothing kept.
    pub fn new(limits: Arc<Limits>, budget: Arc<Budget>) -> Admission {
        Admission {
            limits,
            budget,
            expected: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            found_full: AtomicBool::new(false),
            refused_large: AtomicBool::new(false),
            line: Mutex::default(),
        }
    }

    /// Notes what the core keeps, and what is on its way into the databases.
    pub fn set_kept(&self, kept: u64, under_way: u64) {
        let less = self.kept.swap(kept, Ordering::Relaxed) > kept;
        let fewer = self.under_way.swap(under_way, Ordering::Relaxed) > under_way;
        if (less || fewer) && self.is_waited_for() {
            self.ring_next(&self.lock());
        }
    }

    /// Notes what the database in memory takes.
    pub fn set_pages(&self, bytes: u64) {
        self.pages.store(bytes, Ordering::Relaxed);
    }

    /// Whether a large frame has waited for long although what is kept leaves room for it.
    pub fn is_starved(&self, now: Time) -> bool {
        let is_starved = |waiter: &Waiter| {
            self.is_large(waiter.frame)
                && now.since(waiter.since) >= STARVED_MS
                && self.is_room_for(waiter)
        };
        self.is_waited_for() && self.lock().waiters.iter().any(is_starved)
    }

    /// Whether somebody waits.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Notes who of those that wait holds messages.
    pub fn note_holders(&self, is_holding: impl Fn(ConnectionId) -> bool) {
        for waiter in &mut self.lock().waiters {
            let holds = is_holding(waiter.frame.connection);
            if holds && !waiter.holds {
                waiter.gate.ring();
            }
            waiter.holds = holds;
        }
    }

    /// Notes that a frame is refused for want of room.
    pub fn note_refused(&self, frame: Frame) {
        if self.is_large(frame) {
            self.refused_large.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the memory was too full for a frame that is not large since this was last asked.
    pub fn was_full(&self) -> bool {
        self.found_full.load(Ordering::Relaxed) && self.found_full.swap(false, Ordering::Relaxed)
    }

    /// Whether a large frame was refused for want of room since this was last asked.
    pub fn has_refused_large(&self) -> bool {
        self.refused_large.load(Ordering::Relaxed)
            && self.refused_large.swap(false, Ordering::Relaxed)
    }

    /// Whether what has arrived is more than `limits.max_memory`, or by more than a quarter for
    /// who cannot be told so.
    pub fn is_full(&self, can_be_refused: bool) -> bool {
        let max = self.limits.max_memory();
        let max = if can_be_refused { max } else { max.saturating_add(max / 4) };
        self.kept.load(Ordering::Relaxed).saturating_add(self.budget.bytes()) > max
    }

    /// Asks for room. The gate is rung when it is worth asking again.
    pub fn enter(self: &Arc<Self>, frame: Frame, gate: &Arc<Gate>, now: Time) -> Ticket {
        let mut ticket = Ticket { admission: Arc::clone(self), number: None, expected: 0 };
        let mut line = self.lock();
        line.last_number += 1;
        let number = line.last_number;
        let waiter = Waiter { number, frame, since: now, holds: false, gate: Arc::clone(gate) };
        line.waiters.push_back(waiter);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        ticket.number = Some(number);
        self.look(&mut line, &mut ticket, now);
        ticket
    }

    /// Admits who may go on now.
    fn look(&self, line: &mut WaitingFrames, ticket: &mut Ticket, now: Time) -> Outlook {
        let Some(number) = ticket.number else { return Outlook::Admitted };
        let place = line.waiters.iter().position(|waiter| waiter.number == number);
        let Some((place, waiter)) = place.and_then(|place| Some((place, line.waiters.get(place)?)))
        else {
            return Outlook::Admitted;
        };
        let missing = waiter.frame.missing;
        let is_large = self.is_large(waiter.frame);
        let is_next = line.waiters.iter().take(place).all(|earlier| {
            now.since(earlier.since) >= ASIDE_MS || (!is_large && self.is_large(earlier.frame))
        });
        if is_next && self.is_admissible(waiter) {
            self.expected.fetch_add(missing, Ordering::Relaxed);
            ticket.expected = missing;
            ticket.number = None;
            line.waiters.remove(place);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            // There may be room for another one.
            self.ring_next(line);
            return Outlook::Admitted;
        }
        if self.is_room_for(waiter) {
            return Outlook::Waits;
        }
        if !is_large {
            self.found_full.store(true, Ordering::Relaxed);
            return Outlook::Full;
        }
        if waiter.holds { Outlook::HoldsUpItself } else { Outlook::NoRoom }
    }

    /// Whether the messages that are kept leave room for this one.
    fn is_room_for(&self, waiter: &Waiter) -> bool {
        let kept = self.kept.load(Ordering::Relaxed);
        kept.saturating_add(waiter.frame.missing) <= self.bytes_max(waiter)
    }

    /// Whether there is room for this one beside all others that have come or are expected.
    fn is_admissible(&self, waiter: &Waiter) -> bool {
        let missing = waiter.frame.missing;
        let coming = self.expected.load(Ordering::Relaxed).saturating_add(self.budget.bytes());
        let under_way = self.under_way.load(Ordering::Relaxed);
        let kept = self.kept.load(Ordering::Relaxed).max(under_way);
        if kept.saturating_add(coming).saturating_add(missing) > self.bytes_max(waiter) {
            return false;
        }
        // What is on its way has not reached the place that the database in memory may have for it.
        let beside = self.limits.max_memory() / RESIDENT_BESIDE_PART;
        let pages = self.pages.load(Ordering::Relaxed);
        let most = self.limits.max_memory().saturating_add(beside).saturating_sub(pages);
        under_way.saturating_add(coming) <= beside.max(most.saturating_sub(missing))
    }

    /// How much may be in memory for this one to go on.
    fn bytes_max(&self, waiter: &Waiter) -> u64 {
        let max = self.limits.max_memory();
        if waiter.holds && !waiter.frame.can_be_refused {
            max.saturating_add(max / 4)
        } else if self.is_large(waiter.frame) {
            large_bytes_max(max)
        } else {
            max
        }
    }

    fn is_large(&self, frame: Frame) -> bool {
        frame.whole > self.limits.max_memory() / LARGE_PART
    }

    /// Wakes the first of the large and the first of the smaller ones.
    fn ring_next(&self, line: &WaitingFrames) {
        for large in [true, false] {
            let next = line.waiters.iter().find(|waiter| self.is_large(waiter.frame) == large);
            if let Some(waiter) = next {
                waiter.gate.ring();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingFrames> {
        // A line is whole between its changes, whatever became of who changed it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether the frame may go on.
    pub fn is_admitted(&self) -> bool {
        self.number.is_none()
    }

    /// Asks again.
    pub fn look(&mut self, now: Time) -> Outlook {
        if self.is_admitted() {
            return Outlook::Admitted;
        }
        let admission = Arc::clone(&self.admission);
        let mut line = admission.lock();
        admission.look(&mut line, self, now)
    }

    /// Notes what is still to come of an admitted frame, after what has come was charged.
    pub fn note_missing(&mut self, missing: u64) {
        let arrived = self.expected.saturating_sub(missing);
        self.admission.expected.fetch_sub(arrived, Ordering::Relaxed);
        self.expected -= arrived;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.expected.fetch_sub(self.expected, Ordering::Relaxed);
        if self.number.is_none() && !admission.is_waited_for() {
            return;
        }
        let mut line = admission.lock();
        if let Some(number) = self.number {
            line.waiters.retain(|waiter| waiter.number != number);
            admission.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        admission.ring_next(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::limits::{Charge, LimitValues};

    const MAX: u64 = 64_000;
    /// What large frames may take of it.
    const LARGE: u64 = 60_000;

    fn admission() -> Arc<Admission> {
        let limits = LimitValues { max_memory: MAX, ..LimitValues::default() };
        Arc::new(Admission::new(Arc::new(Limits::new(&limits)), Arc::default()))
    }

    fn frame(number: u64, bytes: u64) -> Frame {
        let connection = ConnectionId(number);
        Frame { connection, whole: bytes, missing: bytes, can_be_refused: true }
    }

    fn enter(admission: &Arc<Admission>, bytes: u64) -> Ticket {
        admission.enter(frame(1, bytes), &Arc::default(), Time(0))
    }

    #[test]
    fn frames_are_admitted_in_their_order_while_there_is_room() {
        let admission = admission();
        let first = enter(&admission, 40_000);
        let mut second = enter(&admission, 30_000);
        // There would be room for this one.
        let mut third = enter(&admission, 10_000);
        assert!(first.is_admitted() && !second.is_admitted() && !third.is_admitted());
        assert_eq!(third.look(Time(1)), Outlook::Waits);
        drop(first);
        assert_eq!(third.look(Time(1)), Outlook::Waits, "it is not its turn");
        assert_eq!(second.look(Time(1)), Outlook::Admitted);
        assert_eq!(third.look(Time(1)), Outlook::Admitted);
        drop((second, third));
        assert!(!admission.is_waited_for());
        assert!(enter(&admission, LARGE).is_admitted(), "all room was given back");
    }

    #[test]
    fn who_gives_up_in_the_line_lets_the_next_one_go_on() {
        let admission = admission();
        let _first = enter(&admission, 40_000);
        let second = enter(&admission, 30_000);
        let mut third = enter(&admission, 10_000);
        drop(second);
        assert_eq!(third.look(Time(1)), Outlook::Admitted);
    }

    #[test]
    fn what_has_come_counts_as_such_and_no_more_as_expected() {
        let admission = admission();
        let mut first = enter(&admission, 40_000);
        let mut arrived = Charge::new(admission.budget.clone());
        arrived.set(40_000);
        first.note_missing(0);
        assert!(enter(&admission, LARGE - 40_000).is_admitted());
        assert!(!enter(&admission, LARGE - 39_999).is_admitted());
        drop(first);
        assert!(!enter(&admission, LARGE - 39_999).is_admitted(), "it is on its way to the core");
        drop(arrived);
        admission.set_kept(0, 40_000);
        assert!(!enter(&admission, LARGE - 39_999).is_admitted(), "it is on its way to the disk");
        admission.set_kept(0, 0);
        assert!(enter(&admission, LARGE).is_admitted());
    }

    #[test]
    fn small_ones_overtake_large_ones_that_wait_and_have_room_of_their_own() {
        let admission = admission();
        admission.set_kept(LARGE, 0);
        let mut large = enter(&admission, 10_000);
        assert_eq!(large.look(Time(1)), Outlook::NoRoom);
        let small = MAX / LARGE_PART;
        assert!(enter(&admission, small).is_admitted());
        admission.set_kept(MAX - small + 1, 0);
        let mut late = enter(&admission, small);
        assert_eq!(late.look(Time(1)), Outlook::Full);
        assert!(admission.was_full() && !admission.was_full());
    }

    #[test]
    fn who_has_waited_long_does_not_hold_up_others() {
        let admission = admission();
        admission.set_kept(30_000, 0);
        let _large = enter(&admission, 40_000);
        let mut other = enter(&admission, 20_000);
        assert_eq!(other.look(Time(ASIDE_MS - 1)), Outlook::Waits);
        assert_eq!(other.look(Time(ASIDE_MS)), Outlook::Admitted);
    }

    #[test]
    fn frames_wait_for_what_has_not_reached_its_place_in_the_database() {
        let admission = admission();
        admission.set_pages(MAX);
        let first = enter(&admission, 30_000);
        assert!(first.is_admitted(), "one is admitted whatever the database takes");
        let mut second = enter(&admission, 20_000);
        assert_eq!(second.look(Time(1)), Outlook::Waits, "the database is as large as it was");
        assert!(!admission.is_starved(Time(STARVED_MS - 1)));
        assert!(admission.is_starved(Time(STARVED_MS)));
        admission.set_pages(MAX / 2);
        assert_eq!(second.look(Time(1)), Outlook::Waits);
        admission.set_pages(0);
        assert_eq!(second.look(Time(1)), Outlook::Admitted);
        drop((first, second));
        admission.set_pages(MAX);
        admission.set_kept(0, MAX / RESIDENT_BESIDE_PART + 1);
        let mut third = enter(&admission, 10_000);
        assert_eq!(third.look(Time(1)), Outlook::Waits);
        admission.set_kept(0, MAX / RESIDENT_BESIDE_PART);
        assert_eq!(third.look(Time(1)), Outlook::Admitted);
    }

    #[test]
    fn who_holds_messages_and_cannot_be_told_may_go_a_quarter_beyond() {
        let admission = admission();
        admission.set_kept(MAX, 0);
        let silent = |number| Frame { can_be_refused: false, ..frame(number, 10_000) };
        let gate = Arc::<Gate>::default();
        let mut holder = admission.enter(silent(1), &gate, Time(0));
        let mut other = admission.enter(silent(2), &gate, Time(0));
        assert_eq!(holder.look(Time(1)), Outlook::NoRoom);
        admission.note_holders(|connection| connection == ConnectionId(1));
        assert_eq!(holder.look(Time(1)), Outlook::Admitted);
        assert_eq!(other.look(Time(1)), Outlook::NoRoom);
        admission.set_kept(MAX + MAX / 4 - 9_999, 0);
        admission.note_holders(|connection| connection == ConnectionId(2));
        assert_eq!(other.look(Time(1)), Outlook::HoldsUpItself);
    }

    #[test]
    fn the_memory_is_full_of_what_has_arrived_and_not_of_what_is_expected() {
        let admission = admission();
        let _expected = enter(&admission, LARGE);
        admission.set_kept(MAX, 0);
        assert!(!admission.is_full(true));
        let mut arrived = Charge::new(admission.budget.clone());
        arrived.set(1);
        assert!(admission.is_full(true) && !admission.is_full(false));
        admission.set_kept(MAX + MAX / 4, 0);
        assert!(admission.is_full(false));
    }
}
