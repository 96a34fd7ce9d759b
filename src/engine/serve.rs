//! Who gets the next message.
//!
//! Demand has two faces: a *window* stands until it is changed, a *wait* ends with its answer.
//! Both stand in one rotation per queue (`Queue::rotation`), ordered by a stamp: whoever has waited
//! longest since its last message is first. A wait over several queues stands in each of them.

use crate::words::clock::Time;
use crate::words::command::{Demand, Handing};
use crate::words::ids::{MessageId, QueueName};

use super::slices::Work;
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::{Hold, SessionSlot};
use super::{Engine, Handed, Turn};

impl Engine {
    /// Hands out what the queue has to those who have room.
    pub(super) fn serve(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) {
        loop {
            let Some(here) = self.ledger.queues().get(queue) else { return };
            let (Some(place), Some((stamp, subscription))) =
                (here.ready.first().copied(), here.rotation.first().copied())
            else {
                return;
            };
            if here.is_paused(turn.time()) {
                return;
            }
            if self.ledger.message(place.slot).expires <= turn.time() {
                if self.budget == 0 {
                    return self.serve_later(queue);
                }
                self.budget -= 1;
                self.expire(turn, place.slot);
                continue;
            }
            if self.ledger.subscription(subscription).stamp != stamp
                && self.ledger.refresh_entry(subscription, queue)
            {
                continue;
            }
            let who = self.ledger.subscription(subscription).session;
            match &self.ledger.session(who).hold {
                Hold::Waiting(wait) if wait.subscription == subscription => {
                    let (asker, from, portion) = self.end_wait(who).expect("it waits");
                    self.hand_portion(turn, asker, (from, place.slot), portion);
                    self.end_if_once(turn, from);
                }
                _ if self.ledger.subscription(subscription).demand == Demand::WakeUp => {
                    if self.budget == 0 {
                        return self.serve_later(queue);
                    }
                    self.budget -= 1;
                    self.wake_up(turn, subscription);
                }
                _ => self.hand_through_window(turn, subscription, queue, place.slot),
            }
        }
    }

    fn serve_later(&mut self, queue: QueueSlot) {
        if !self.ledger.set_to_be_served(queue, true) {
            self.works.push_back(Work::Serve(queue));
        }
    }

    /// A message as it is sent to a peer.
    pub(super) fn handed(&self, turn: &Turn<'_>, slot: Slot, handing: Handing) -> Handed {
        let message = &self.ledger.message(slot);
        let time_to_live_ms = match message.state {
            _ if message.expires == Time::NEVER => None,
            State::Buried(_) => Some(message.expires.0),
            _ => Some(message.expires.since(turn.time())),
        };
        Handed {
            body_bytes: message.body_bytes,
            handing,
            id: message.id,
            queue: self.ledger.queue(message.queue).name.clone(),
            priority: message.priority,
            time_to_live_ms,
            reserves: message.reserves,
            is_volatile: message.is_volatile,
            when_sent: false,
        }
    }

    /// The reservation of a message that this connection holds, of that queue if one is named.
    pub(super) fn held_by(
        &self,
        who: SessionSlot,
        id: MessageId,
        queue: Option<&QueueName>,
    ) -> Option<Slot> {
        let slot = self.ledger.find(id)?;
        let State::Reserved(reservation) = self.ledger.message(slot).state else { return None };
        let right_queue = queue
            .is_none_or(|name| self.ledger.queue(self.ledger.message(slot).queue).name == *name);
        (self.ledger.reservations()[reservation].session == who && right_queue).then_some(slot)
    }
}
