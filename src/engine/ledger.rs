//! The states of a message, and the lists and counts that follow them: the only code that changes
//! a message's state.

use crate::words::change::Change;
use crate::words::clock::Time;
use crate::words::ids::{ConnectionId, MessageId};

use super::state::message::{Slot, State};
use super::state::queue::{QueueSlot, URGENT_BELOW};
use super::state::reservation::{Of, Terms};
use super::{Due, Engine, Turn};

impl Engine {
    /// The message of this id, unless it was flushed and only waits to be cleared away.
    pub(super) fn find(&self, id: MessageId) -> Option<Slot> {
        self.messages.slot_of(id).filter(|slot| !self.is_flushed(*slot))
    }

    pub(super) fn is_flushed(&self, slot: Slot) -> bool {
        let message = &self.messages[slot];
        message.sequence <= self.queues[message.queue].flushed_through
    }

    /// Whether the time to live of a message is over.
    pub(super) fn is_over(&self, now: Time, slot: Slot) -> bool {
        let message = &self.messages[slot];
        match message.state {
            State::Buried(_) => message.expires == Time(0),
            _ => message.expires <= now,
        }
    }

    /// Takes a message off the list that its state puts it on. What it had in a window is up to
    /// the caller: its place is free now.
    pub(super) fn detach(&mut self, slot: Slot) {
        let place = self.messages.place(slot);
        let flushed_in_hand = self.is_flushed(slot);
        let message = &self.messages[slot];
        let queue = &mut self.queues[message.queue];
        let totals = &mut self.totals.messages;
        match message.state {
            State::Ready => {
                queue.ready.remove(&place);
                totals.ready -= 1;
                if message.priority < URGENT_BELOW {
                    queue.urgent -= 1;
                    totals.urgent -= 1;
                }
            }
            State::Delayed(due) => {
                queue.delayed.remove(&(due, message.sequence, slot));
                totals.delayed -= 1;
            }
            State::Buried(burial) => {
                queue.buried.remove(&burial);
                totals.buried -= 1;
            }
            State::Reserved(reservation) => {
                if flushed_in_hand {
                    queue.flushed_in_hand -= 1;
                } else {
                    totals.reserved -= 1;
                }
                self.reservations.unlink(&mut queue.reserved, Of::Queue, reservation);
                self.take_from_holder(slot, reservation);
            }
        }
    }

    fn take_from_holder(&mut self, slot: Slot, reservation: u32) {
        let queue = self.messages[slot].queue;
        let (connection, terms) =
            (self.reservations[reservation].connection, self.reservations[reservation].terms);
        let session = self.sessions.get_mut(&connection).expect("a holder outlives what it holds");
        let list = match terms {
            Terms::Until(_) => &mut session.held,
            Terms::Window { .. } => {
                session.dispatched -= 1;
                let window = session.windows.get_mut(&queue);
                &mut window.expect("a window outlives what is out through it").held
            }
        };
        self.reservations.unlink(list, Of::Holder, reservation);
        if session.held.is_empty() {
            session.soonest = Time::NEVER;
        }
        self.reservations.remove(reservation);
    }

    pub(super) fn place_ready(&mut self, slot: Slot) {
        let place = self.messages.place(slot);
        let message = &mut self.messages[slot];
        message.state = State::Ready;
        let queue = &mut self.queues[message.queue];
        queue.ready.insert(place);
        self.totals.messages.ready += 1;
        if message.priority < URGENT_BELOW {
            queue.urgent += 1;
            self.totals.messages.urgent += 1;
        }
    }

    pub(super) fn place_delayed(&mut self, slot: Slot, due: Time) {
        let message = &mut self.messages[slot];
        message.state = State::Delayed(due);
        let queue_slot = message.queue;
        let queue = &mut self.queues[queue_slot];
        queue.delayed.insert((due, message.sequence, slot));
        self.totals.messages.delayed += 1;
        if due < queue.delay_armed {
            self.deadlines.rearm(&mut queue.delay_armed, due, Due::Delay(queue_slot));
        }
    }

    pub(super) fn place_buried(&mut self, slot: Slot, burial: u64) {
        let message = &mut self.messages[slot];
        message.state = State::Buried(burial);
        self.queues[message.queue].buried.insert(burial, slot);
        self.totals.messages.buried += 1;
    }

    pub(super) fn place_reserved(&mut self, slot: Slot, connection: ConnectionId, terms: Terms) {
        let reservation = self.reservations.insert(slot, connection, terms);
        let message = &mut self.messages[slot];
        message.state = State::Reserved(reservation);
        message.reserves = message.reserves.saturating_add(1);
        message.unsaved = true;
        let queue_slot = message.queue;
        self.totals.messages.reserved += 1;
        let queue = &mut self.queues[queue_slot];
        self.reservations.push_back(&mut queue.reserved, Of::Queue, reservation);
        let session =
            self.sessions.get_mut(&connection).expect("only sessions are handed messages");
        match terms {
            Terms::Until(until) => {
                session.soonest = session.soonest.min(until);
                self.reservations.push_back(&mut session.held, Of::Holder, reservation);
            }
            Terms::Window { since } => {
                session.dispatched += 1;
                let window = session.windows.get_mut(&queue_slot).expect("handed through a window");
                if window.held.is_empty() {
                    window.clock_since = since;
                }
                self.reservations.push_back(&mut window.held, Of::Holder, reservation);
            }
        }
    }

    /// Forgets a detached message for good.
    pub(super) fn forget(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let message = self.messages.remove(slot);
        if !matches!(message.state, State::Buried(_)) {
            self.deadlines.cancel(message.expires, Due::Expire(slot));
        }
        self.totals.body_bytes -= u64::from(message.body_bytes);
        self.queues[message.queue].body_bytes -= u64::from(message.body_bytes);
        turn.change(Change::Removed(message.id));
    }

    /// Gives a detached message a new time to live, or none.
    pub(super) fn set_expires(&mut self, slot: Slot, expires: Time) {
        let old = std::mem::replace(&mut self.messages[slot].expires, expires);
        self.deadlines.cancel(old, Due::Expire(slot));
        self.deadlines.add(expires, Due::Expire(slot));
    }

    /// Stops the clock of a message's life while it is buried.
    pub(super) fn bury_detached(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let expires = self.messages[slot].expires;
        if expires != Time::NEVER {
            self.deadlines.cancel(expires, Due::Expire(slot));
            self.messages[slot].expires = Time(expires.since(turn.time()));
        }
        let burial = self.next_burial;
        self.next_burial += 1;
        self.place_buried(slot, burial);
    }

    /// Starts the clock of a message's life again where burying it stopped it.
    pub(super) fn unbury_clock(&mut self, turn: &Turn<'_>, slot: Slot) {
        let left = self.messages[slot].expires;
        if left != Time::NEVER {
            let expires = turn.time().plus(left.0);
            self.messages[slot].expires = expires;
            self.deadlines.add(expires, Due::Expire(slot));
        }
    }

    /// Writes down where the message is now.
    pub(super) fn save(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let row = self.messages.state_row(slot);
        turn.change(Change::Moved(row));
    }

    /// Lists the rows of all messages whose counters have changed since they were last written:
    /// for a clean stop.
    pub fn unsaved_counters(&mut self) -> Vec<Change> {
        let unsaved = self.messages.iter().filter(|(_, message)| message.unsaved);
        let slots: Vec<Slot> =
            unsaved.map(|(slot, _)| slot).filter(|slot| !self.is_flushed(*slot)).collect();
        slots.into_iter().map(|s| Change::Moved(self.messages.state_row(s))).collect()
    }

    pub(super) fn queue_of(&self, slot: Slot) -> QueueSlot {
        self.messages[slot].queue
    }
}
