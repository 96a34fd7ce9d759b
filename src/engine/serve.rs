//! Who gets the next message.
//!
//! Demand has two faces: a *window* stands until it is changed, a *wait* ends with its answer.
//! Both stand in one rotation per queue (`Queue::rotation`), ordered by a stamp: whoever has waited
//! longest since its last message is first. A wait over several queues stands in each of them.

use crate::words::clock::Time;
use crate::words::command::Handing;
use crate::words::ids::{ConnectionId, MessageId, QueueName};

use super::slices::Work;
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::Hold;
use super::{Engine, Handed, Turn};

impl Engine {
    /// Hands out what the queue has to those who have room.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        loop {
            let Some(here) = self.queues.get(queue) else { return };
            let (Some(place), Some((stamp, connection))) =
                (here.ready.first().copied(), here.rotation.first().copied())
            else {
                return;
            };
            if here.is_paused(turn.time()) {
                return;
            }
            if self.messages[place.slot].expires <= turn.time() {
                if self.budget == 0 {
                    return self.serve_later(queue);
                }
                self.budget -= 1;
                self.expire(turn, place.slot);
                continue;
            }
            self.hand_to(turn, queue, place.slot, stamp, connection);
        }
    }

    fn serve_later(&mut self, queue: QueueSlot) {
        if !std::mem::replace(&mut self.queues[queue].to_be_served, true) {
            self.works.push_back(Work::Serve(queue));
        }
    }

    fn hand_to(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueSlot,
        slot: Slot,
        stamp: u64,
        connection: ConnectionId,
    ) {
        let session = self.sessions.get(&connection).expect("only sessions stand in rotations");
        match &session.hold {
            Hold::Waiting(wait) if wait.stamp == stamp => {
                let wait = self.end_wait(connection).expect("it waits");
                self.hand_batch(turn, connection, wait.tag, slot, wait.count);
            }
            _ => self.hand_through_window(turn, connection, queue, slot),
        }
    }

    /// A message as it is sent to a peer.
    pub(super) fn handed(&self, turn: &Turn<'_>, slot: Slot, handing: Handing) -> Handed {
        let message = &self.messages[slot];
        let time_to_live_ms = match message.state {
            _ if message.expires == Time::NEVER => None,
            State::Buried(_) => Some(message.expires.0),
            _ => Some(message.expires.since(turn.time())),
        };
        Handed {
            handing,
            id: message.id,
            queue: self.queues[message.queue].name.clone(),
            priority: message.priority,
            time_to_live_ms,
            reserves: message.reserves,
        }
    }

    /// The reservation of a message that this connection holds, of that queue if one is named.
    pub(super) fn held_by(
        &self,
        connection: ConnectionId,
        id: MessageId,
        queue: Option<&QueueName>,
    ) -> Option<Slot> {
        let slot = self.find(id)?;
        let State::Reserved(reservation) = self.messages[slot].state else { return None };
        let right_queue =
            queue.is_none_or(|name| self.queues[self.messages[slot].queue].name == *name);
        (self.reservations[reservation].connection == connection && right_queue).then_some(slot)
    }
}
