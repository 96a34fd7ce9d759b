//! Which keys are taken, by which messages, and until when.

use crate::words::change::{Change, KeyRow, KeyUntil};
use crate::words::clock::Time;
use crate::words::ids::MessageId;
use crate::words::key::{KeyTerm, KeyedBy};

use super::super::Turn;
use super::super::state::deadlines::Due;
use super::super::state::keys::{KeySlot, TakenKey, TakenKeys, Until};
use super::super::state::message::{Slot, State};
use super::super::state::queue::QueueSlot;
use super::Ledger;

impl Ledger {
    pub fn keys(&self) -> &TakenKeys {
        &self.keys
    }

    /// A message that was just inserted takes a key, which is free in its queue.
    pub fn take_key(&mut self, turn: &mut Turn<'_>, slot: Slot, keyed: KeyedBy) {
        let until = match keyed.term {
            KeyTerm::UntilTaken => Until::Taken,
            KeyTerm::UntilDone => Until::Done,
            KeyTerm::For(millis) => Until::Moment(turn.time().plus(millis)),
        };
        let queue = self.messages[slot].queue;
        let is_volatile = self.messages[slot].is_volatile;
        let taken = TakenKey { key: keyed.key, queue, message: Some(slot), until, is_volatile };
        let key = self.add_key(taken);
        self.save_key(turn, key);
    }

    /// Adds a key that is taken already.
    pub fn add_key(&mut self, taken: TakenKey) -> KeySlot {
        let (queue, message, until) = (taken.queue, taken.message, taken.until);
        let key = self.keys.insert(taken);
        self.queues[queue].keys += 1;
        if let Some(slot) = message {
            self.messages[slot].has_key = true;
        }
        if let Until::Moment(at) = until {
            self.deadlines.add(at, Due::Key(key));
        }
        key
    }

    /// Frees a key. Its queue may be unneeded then.
    pub fn free_key(&mut self, turn: &mut Turn<'_>, key: KeySlot) -> QueueSlot {
        let TakenKey { key: name, queue, message, until, is_volatile } = self.keys.remove(key);
        if let Until::Moment(at) = until {
            self.deadlines.cancel(at, Due::Key(key));
        }
        if let Some(slot) = message {
            self.messages[slot].has_key = false;
        }
        self.queues[queue].keys -= 1;
        if !is_volatile && let Some(id) = self.queues[queue].id {
            turn.change(Change::KeyGone { queue: id, key: name.as_slice().into() });
        }
        queue
    }

    /// A message has been handed out: a key that was taken until then is free.
    pub fn free_key_when_taken(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        if self.messages[slot].has_key
            && let Some(key) = self.keys.of_message(slot)
            && self.keys[key].until == Until::Taken
        {
            self.free_key(turn, key);
        }
    }

    /// A message is about to be gone: its key is free, or outlives it.
    pub fn leave_key(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let Some(key) = self.keys.of_message(slot) else { return };
        match self.keys[key].until {
            Until::Moment(at) if at > turn.time() => {
                self.keys.forget_message(key);
                self.messages[slot].has_key = false;
                self.save_key(turn, key);
            }
            _ => drop(self.free_key(turn, key)),
        }
    }

    /// By what a key is taken: a message, or its time alone. One whose time is over is free, and so
    /// is that of a message which was flushed or has expired, whether it has been cleared away or
    /// not.
    pub fn holder_of(&self, now: Time, taken: &TakenKey) -> Option<Option<MessageId>> {
        let outlives = match taken.until {
            Until::Moment(at) if at <= now => return None,
            Until::Moment(_) => true,
            Until::Taken | Until::Done => false,
        };
        let is_there = |slot: &Slot| {
            let message = &self.messages[*slot];
            let may_expire = matches!(message.state, State::Ready | State::Delayed(_));
            let has_expired = may_expire && message.expires <= now;
            !self.is_flushed(*slot) && !has_expired
        };
        match taken.message.filter(is_there) {
            Some(slot) => Some(Some(self.messages[slot].id)),
            None => outlives.then_some(None),
        }
    }

    /// Writes down who has a key, if anything is written of it.
    pub(super) fn save_key(&self, turn: &mut Turn<'_>, key: KeySlot) {
        let taken = &self.keys[key];
        if taken.is_volatile {
            return;
        }
        // Invariant: the queue has a number, since the message was written first.
        let Some(queue) = self.queues[taken.queue].id else { return };
        let until = match taken.until {
            Until::Taken => KeyUntil::Taken,
            Until::Done => KeyUntil::Done,
            Until::Moment(at) => KeyUntil::Moment(at.stored()),
        };
        let message = taken.message.map(|slot| self.messages[slot].id);
        let key = taken.key.as_slice().into();
        turn.change(Change::KeySet(KeyRow { queue, key, message, until }));
    }
}
