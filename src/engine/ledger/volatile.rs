//! How much is volatile, and how that becomes durable.

use crate::words::change::MessageRow;
use crate::words::clock::Time;
use crate::words::ids::QueueId;

use super::super::state::failure::Home;
use super::super::state::keys::KeySlot;
use super::super::state::message::{History, Slot, State};
use super::super::state::queue::QueueSlot;
use super::super::{Effect, Turn};
use super::{Ledger, VolatileCounts};

impl Ledger {
    pub fn is_volatile(&self, slot: Slot) -> bool {
        self.messages[slot].is_volatile
    }

    pub(super) fn count_volatile(&mut self, body_bytes: u64) {
        let VolatileCounts { messages, body_bytes: bytes } = &mut self.counts.volatile;
        *messages += 1;
        *bytes += body_bytes;
    }

    pub(super) fn uncount_volatile(&mut self, body_bytes: u64) {
        let VolatileCounts { messages, body_bytes: bytes } = &mut self.counts.volatile;
        *messages -= 1;
        *bytes -= body_bytes;
    }

    /// The queue that a message was put into: of a dead letter, its home.
    pub fn first_queue_of(&self, slot: Slot) -> QueueSlot {
        self.home_of(slot).map_or(self.messages[slot].queue, |home| home.queue)
    }

    fn home_of(&self, slot: Slot) -> Option<&Home> {
        self.messages.failure(slot)?.home.as_ref()
    }

    /// Makes a volatile message durable as it is now, and its key with it. `queue` is the number of
    /// the queue that it was put into; the one that it is in has a number too.
    pub fn make_durable(&mut self, turn: &mut Turn<'_>, slot: Slot, queue: QueueId) {
        let row = self.late_row(turn.time(), slot, queue);
        let message = &mut self.messages[slot];
        message.is_volatile = false;
        let body_bytes = u64::from(message.body_bytes);
        let is_as_put = message.state == State::Ready && message.reserves == 0;
        let has_key = message.has_key;
        self.uncount_volatile(body_bytes);
        turn.effects.push(Effect::Promote(row));
        let nothing_happened = self.messages.history(slot) == History::default();
        if !is_as_put || !nothing_happened || self.messages[slot].has_failed {
            self.save(turn, slot);
        }
        if has_key && let Some(key) = self.keys.of_message(slot) {
            self.keys.make_durable(key);
            self.save_key(turn, key);
        }
    }

    /// Has a key that has outlived its message outlive the process too. Its queue has a number. The
    /// message may still wait to be cleared away.
    pub fn make_outlived_key_durable(&mut self, turn: &mut Turn<'_>, key: KeySlot) {
        if let Some(slot) = self.keys[key].message {
            self.keys.forget_message(key);
            self.messages[slot].has_key = false;
        }
        self.keys.make_durable(key);
        self.save_key(turn, key);
    }

    /// The row of a message that is put into the database only now.
    fn late_row(&self, now: Time, slot: Slot, queue: QueueId) -> MessageRow {
        let message = &self.messages[slot];
        // The clock of what is set aside stands still.
        let expires = match message.state {
            State::Buried(_) if message.expires != Time::NEVER => now.plus(message.expires.0),
            _ => message.expires,
        };
        let due = if let State::Delayed(due) = message.state { Some(due) } else { None };
        MessageRow {
            id: message.id,
            queue,
            priority: message.priority,
            sequence: self.home_of(slot).map_or(message.sequence, |home| home.sequence),
            created_ms: message.created.stored(),
            expires_ms: (expires != Time::NEVER).then(|| expires.stored()),
            due_ms: due.map(Time::stored),
            time_to_run_ms: message.time_to_run_ms,
            ..MessageRow::default()
        }
    }
}
