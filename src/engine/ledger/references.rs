//! Queues, and who refers to them: a queue stays while it has messages or somebody names it.

use crate::words::change::SettingRow;
use crate::words::clock::Time;
use crate::words::ids::{QueueId, QueueName};
use crate::words::settings::QueueSetting;

use super::super::state::deadlines::Due;
use super::super::state::queue::{PolicyMatch, Queue, QueueSlot};
use super::super::state::session::{Session, SessionSlot};
use super::Ledger;

impl Ledger {
    /// Makes a queue of this name, which must not exist.
    pub fn make_queue(&mut self, name: &QueueName) -> QueueSlot {
        self.queues.make(name)
    }

    /// Lets a queue go if nobody would miss it.
    pub fn remove_if_unneeded(&mut self, slot: QueueSlot) -> Option<Queue> {
        if !self.queues.get(slot)?.is_unneeded() {
            return None;
        }
        let queue = self.queues.remove(slot);
        self.deadlines.cancel(queue.delay_armed, Due::Delay(slot));
        self.deadlines.cancel(queue.paused_until, Due::Pause(slot));
        Some(queue)
    }

    /// Notes the number that a queue has in the database.
    pub fn number_queue(&mut self, slot: QueueSlot, id: QueueId) {
        self.queues[slot].id = Some(id);
    }

    /// Counts a message that was put.
    pub fn count_put(&mut self, slot: QueueSlot) {
        self.queues[slot].messages_put += 1;
    }

    /// Counts a message that was removed because somebody asked for that.
    pub fn count_remove(&mut self, slot: QueueSlot) {
        self.queues[slot].removes += 1;
    }

    /// Large work on a queue begins: the queue stays until [`Ledger::end_work_on`].
    pub fn begin_work_on(&mut self, slot: QueueSlot) {
        self.queues[slot].works += 1;
    }

    pub fn end_work_on(&mut self, slot: QueueSlot) {
        self.queues[slot].works -= 1;
    }

    /// Notes whether large work is under way that will serve the queue, and tells what was so.
    pub fn set_to_be_served(&mut self, slot: QueueSlot, is: bool) -> bool {
        std::mem::replace(&mut self.queues[slot].to_be_served, is)
    }

    /// Hands out nothing of the queue before `until`; a moment in the past ends its pause.
    pub fn pause_queue(&mut self, slot: QueueSlot, until: Time, for_ms: u64) {
        let queue = &mut self.queues[slot];
        self.deadlines.cancel(queue.paused_until, Due::Pause(slot));
        queue.paused_until = if for_ms == 0 { Time(0) } else { until };
        queue.pause_ms = for_ms;
        if for_ms > 0 {
            self.deadlines.add(queue.paused_until, Due::Pause(slot));
        }
    }

    /// Counts a pause that somebody asked for.
    pub fn count_pause(&mut self, slot: QueueSlot) {
        self.queues[slot].pauses += 1;
    }

    /// Changes what an operator has set of a queue.
    pub fn configure_queue(&mut self, slot: QueueSlot, setting: QueueSetting) {
        match setting {
            QueueSetting::Paused(paused) => self.queues[slot].is_held = paused,
            QueueSetting::Limits(limits) => self.queues[slot].limits = limits,
        }
    }

    /// What an operator has set of a queue, for the database.
    pub fn settings_of(&self, slot: QueueSlot, id: QueueId) -> SettingRow {
        let Queue { is_held, limits, .. } = &self.queues[slot];
        SettingRow { queue: id, paused: *is_held, limits: *limits }
    }

    /// Notes which policy applies to a queue.
    pub fn match_policy(&mut self, slot: QueueSlot, policy: PolicyMatch) {
        self.queues[slot].policy = policy;
    }

    /// Has a queue stay when nobody needs it; it comes first in lists. Connections begin with it.
    pub fn keep_first(&mut self, slot: QueueSlot) {
        if !self.queues[slot].is_first {
            // The queue that connections start with has been there from the start.
            self.queues.list_first(slot);
        }
        self.queues[slot].is_first = true;
    }

    /// Has a session refer to another queue; tells to which one it referred before.
    pub fn refer(&mut self, who: SessionSlot, slot: QueueSlot) -> Option<QueueSlot> {
        self.queues[slot].using += 1;
        let old = self.sessions[who].referred.replace(slot)?;
        self.queues[old].using -= 1;
        Some(old)
    }

    /// Counts a session that puts messages.
    pub fn count_producer(&mut self, who: SessionSlot) {
        let session = &mut self.sessions[who];
        if !session.producer {
            session.producer = true;
            self.counts.producers += 1;
        }
    }

    /// Counts a session that asks for messages.
    pub fn count_worker(&mut self, who: SessionSlot) {
        let session = &mut self.sessions[who];
        if !session.worker {
            session.worker = true;
            self.counts.workers += 1;
        }
    }

    /// Forgets a session that holds nothing and has no subscription.
    pub fn close_session(&mut self, who: SessionSlot) -> Session {
        let session = self.sessions.remove(who);
        debug_assert!(session.held.is_empty() && session.dispatched == 0);
        debug_assert!(session.first.is_none() && session.others.is_empty());
        self.deadlines.cancel(session.armed, Due::Session(session.connection, who));
        self.counts.producers -= u64::from(session.producer);
        self.counts.workers -= u64::from(session.worker);
        if let Some(queue) = session.referred {
            self.queues[queue].using -= 1;
        }
        session
    }

    /// Has a queue vanish like others although connections began with it.
    #[cfg(test)]
    pub fn forget_first(&mut self, slot: QueueSlot) {
        self.queues[slot].is_first = false;
    }
}
