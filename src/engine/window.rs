//! Windows: standing demands of a connection for a queue's messages.

use crate::words::command::{Handing, Reply, Tag};
use crate::words::ids::QueueName;
use crate::words::refusal::Refusal;

use super::slices::Work;
use super::state::message::Slot;
use super::state::queue::QueueSlot;
use super::state::reservation::Terms;
use super::state::session::SessionSlot;
use super::{Asker, Effect, Engine, Turn};

impl Engine {
    pub(super) fn consume(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        name: &QueueName,
        max: u32,
    ) {
        let who = asker.session;
        self.ledger.count_worker(who);
        let max = max.min(self.limits.max_window());
        let known = self.ledger.queues().find(name);
        let has_window =
            known.is_some_and(|queue| self.ledger.session(who).windows.contains_key(&queue));
        if max == 0 && !has_window {
            return;
        }
        let Some(queue) = self.queue(name) else {
            return turn.reply(asker, Reply::Refused(Refusal::TooManyQueues));
        };
        self.ledger.set_window(turn.time(), who, queue, max);
        if max == 0 {
            return self.begin_work(turn, Work::EndWindow { asker, queue });
        }
        self.serve(turn, queue);
    }

    pub(super) fn hand_through_window(
        &mut self,
        turn: &mut Turn<'_>,
        who: SessionSlot,
        queue: QueueSlot,
        slot: Slot,
    ) {
        self.ledger.restamp_window(who, queue);
        let detached = self.ledger.detach(slot);
        self.ledger.place_reserved(detached, who, Terms::Window { since: turn.time() });
        self.spend(who, slot);
        self.ledger.update_window(who, queue);
        let handed = self.handed(turn, slot, Handing::Dispatched);
        let connection = self.ledger.session(who).connection;
        turn.effects.push(Effect::Deliver(connection, Tag::None, handed));
    }
}
