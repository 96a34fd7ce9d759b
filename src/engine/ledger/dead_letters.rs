//! Messages in queues that they were not put into: moved there when a policy set them aside.
//!
//! The database has them where they are. The queue that they came from, their home, stays while it
//! has dead letters elsewhere, and each of them keeps its place in the order of that queue, and one
//! among all messages that were set aside, by which they are kicked.

use crate::words::cause::{Cause, Reason};
use crate::words::change::{FailureRow, OriginRow, StateRow};
use crate::words::clock::Time;
use crate::words::ids::Sequence;

use super::super::state::deadlines::Due;
use super::super::state::failure::{Failure, Home};
use super::super::state::message::Slot;
use super::super::state::queue::QueueSlot;
use super::{Detached, Ledger};

impl Ledger {
    /// Notes a failed attempt, and tells how many there were.
    pub fn note_failure(&mut self, now: Time, detached: &Detached, cause: Cause) -> u32 {
        // What was delayed or buried was written when it was handed out by its id.
        self.messages[detached.slot()].unsaved = true;
        let failure = self.messages.failure_mut(detached.slot());
        failure.cause = Some(cause);
        failure.returned = Some(now);
        if cause != Cause::Failed {
            failure.reason = None;
        }
        failure.attempts = failure.attempts.saturating_add(1);
        failure.attempts
    }

    /// Notes what its holder says of a message that is about to fail.
    pub fn note_reason(&mut self, slot: Slot, reason: Option<Reason>) {
        self.messages.failure_mut(slot).reason = reason;
    }

    /// Forgets how the processing of a message failed, but not where it came from.
    pub fn forget_attempts(&mut self, detached: &Detached) {
        let slot = detached.slot();
        let Some(Failure { home, is_elsewhere, .. }) = self.messages.take_failure(slot) else {
            return;
        };
        if home.is_some() || is_elsewhere {
            let kept = Failure { home, is_elsewhere, ..Failure::default() };
            *self.messages.failure_mut(slot) = kept;
        }
    }

    /// Moves a message to a dead-letter queue, where the clock of its life stands still. One that
    /// is moved on from there keeps its home.
    pub fn move_aside(
        &mut self,
        now: Time,
        detached: &Detached,
        queue: QueueSlot,
        sequence: Sequence,
    ) {
        let slot = detached.slot();
        let (from, expires) = (self.messages[slot].queue, self.messages[slot].expires);
        if let Some(burial) = self.burial_at_home(slot) {
            self.queues[from].dead_letters.remove(&burial);
        } else {
            let life_left = if expires == Time::NEVER { expires } else { Time(expires.since(now)) };
            let (sequence, burial) = (self.messages[slot].sequence, self.draw_burial());
            let home = Home { queue: from, sequence, burial, life_left };
            self.messages.failure_mut(slot).home = Some(home);
            self.queues[from].away += 1;
        }
        self.deadlines.cancel(expires, Due::Expire(slot));
        self.messages[slot].expires = Time::NEVER;
        self.change_queue(slot, queue, sequence);
        let burial = self.burial_at_home(slot).expect("it has a home by now");
        self.queues[queue].dead_letters.insert(burial, slot);
    }

    /// Moves a dead letter back to its home, at this place if its old one is not good any more, and
    /// lets the clock of its life go on. Tells which queue that is.
    pub fn move_home(
        &mut self,
        now: Time,
        detached: &Detached,
        sequence: Option<Sequence>,
    ) -> Option<QueueSlot> {
        let slot = detached.slot();
        let home = self.leave_home(slot)?;
        let left = home.life_left;
        let expires = if left == Time::NEVER { left } else { now.plus(left.0) };
        self.set_expires(detached, expires);
        self.change_queue(slot, home.queue, sequence.unwrap_or(home.sequence));
        self.forget_attempts(detached);
        Some(home.queue)
    }

    /// Takes over what is stored of how the processing of a message failed that was just inserted,
    /// and of the queue that it came from.
    pub fn restore_failure(&mut self, detached: &Detached, mut failure: Failure) {
        let slot = detached.slot();
        if let Some(home) = &mut failure.home {
            let here = self.messages[slot].queue;
            if self.queues[here].dead_letters.contains_key(&home.burial) {
                home.burial = self.next_burial;
            }
            self.next_burial = self.next_burial.max(home.burial.saturating_add(1));
            self.queues[here].dead_letters.insert(home.burial, slot);
            self.queues[home.queue].away += 1;
        }
        *self.messages.failure_mut(slot) = failure;
    }

    /// The row that says where a message is now, and that it has been written.
    pub(super) fn state_row(&mut self, slot: Slot) -> StateRow {
        let mut row = self.messages.state_row(slot);
        let Some(failure) = self.messages.failure(slot) else { return row };
        let origin = failure.home.as_ref().and_then(|home| {
            Some(OriginRow {
                queue: self.queues[home.queue].id?,
                sequence: home.sequence,
                burial: home.burial,
                life_left_ms: match home.life_left {
                    Time::NEVER => None,
                    Time(millis) => Some(i64::try_from(millis).unwrap_or(i64::MAX)),
                },
            })
        });
        if failure.home.is_some() || failure.is_elsewhere {
            row.queue = self.queues[self.messages[slot].queue].id;
        }
        let failure = FailureRow {
            attempts: failure.attempts,
            cause: failure.cause,
            returned_ms: failure.returned.map(Time::stored),
            text: failure.reason.as_ref().map(|reason| reason.as_str().into()),
            origin,
        };
        row.failure = (failure != FailureRow::default()).then(|| Box::new(failure));
        row
    }

    fn change_queue(&mut self, slot: Slot, queue: QueueSlot, sequence: Sequence) {
        let message = &mut self.messages[slot];
        let from = std::mem::replace(&mut message.queue, queue);
        message.sequence = sequence;
        let body_bytes = u64::from(message.body_bytes);
        self.queues[from].body_bytes -= body_bytes;
        self.queues[queue].body_bytes += body_bytes;
    }

    /// Takes a message's home from it, if it has one; the queue may be unneeded then.
    pub(super) fn leave_home(&mut self, slot: Slot) -> Option<Home> {
        self.messages.failure(slot)?;
        let home = self.messages.failure_mut(slot).home.take()?;
        self.queues[home.queue].away -= 1;
        let here = self.messages[slot].queue;
        self.queues[here].dead_letters.remove(&home.burial);
        self.left_homes.push(home.queue);
        Some(home)
    }

    /// The queues that dead letters have left for good since this was asked last: nobody may need
    /// them any more.
    pub fn take_left_home(&mut self) -> Option<QueueSlot> {
        self.left_homes.pop()
    }

    /// Whether a message is in another queue than it was put into.
    pub fn is_dead_letter(&self, slot: Slot) -> bool {
        self.burial_at_home(slot).is_some()
    }

    fn burial_at_home(&self, slot: Slot) -> Option<u64> {
        Some(self.messages.failure(slot)?.home.as_ref()?.burial)
    }

    /// Whether the old place of a dead letter was flushed meanwhile.
    pub fn has_lost_its_place(&self, slot: Slot) -> bool {
        let home = self.messages.failure(slot).and_then(|failure| failure.home.as_ref());
        home.is_some_and(|home| home.sequence <= self.queues[home.queue].flushed_through)
    }

    /// Whether the time to live of a dead letter was over when it became one.
    pub fn was_over_at_home(&self, slot: Slot) -> bool {
        let home = self.messages.failure(slot).and_then(|failure| failure.home.as_ref());
        home.is_some_and(|home| home.life_left == Time(0))
    }

    /// The first dead letter of a queue from a place on that is in nobody's hands, and its place.
    pub fn next_dead_letter(&self, queue: QueueSlot, from: u64) -> Option<(u64, Slot)> {
        let here = self.queues[queue].dead_letters.range(from..);
        here.map(|(place, slot)| (*place, *slot))
            .find(|(_, slot)| !self.is_reserved(*slot) && !self.is_flushed(*slot))
    }
}
