//! Queueing a message.

use crate::words::change::{Change, MessageRow};
use crate::words::clock::Time;
use crate::words::command::{Manner, Put, Reply, Tag, Target};
use crate::words::ids::{ConnectionId, MessageId, QueueId, Sequence};
use crate::words::limits::ID_BLOCK;
use crate::words::refusal::Refusal;

use super::state::message::{History, Message, State};
use super::state::queue::QueueSlot;
use super::state::session::Hold;
use super::{Due, Effect, Engine, Turn};

impl Engine {
    pub(super) fn put(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, put: Put) {
        self.count_producer(who);
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        // Who would not hear a refusal is not refused: the dispatcher holds such senders back.
        let hears = session.manner == Manner::Serial || tag != Tag::None;
        if hears && let Some(refusal) = self.refuse_puts {
            return turn.reply(who, tag, Reply::Refused(refusal));
        }
        let used = session.used;
        let queue = match &put.queue {
            Target::Used => used,
            Target::Named(name) => self.queue(name),
        };
        let Some(queue) = queue else {
            return turn.reply(who, tag, Reply::Refused(Refusal::TooManyQueues));
        };
        let Some(id) = self.draw_id(turn) else {
            self.put_without_id(turn, who, tag, put);
            return self.drop_if_unneeded(turn, queue);
        };
        self.insert(turn, MessageId(id), queue, put);
        turn.reply(who, tag, Reply::Put(MessageId(id)));
        self.serve(turn, queue);
    }

    /// A put whose body the decoder refused.
    pub(super) fn echo_put(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag) {
        self.count_producer(who);
        // Where no id is reserved, none is lost.
        let _ = self.draw_id(turn);
        turn.reply(who, tag, Reply::Echo);
    }

    fn count_producer(&mut self, who: ConnectionId) {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if !session.producer {
            session.producer = true;
            self.totals.producers += 1;
        }
    }

    /// The database has reserved no ids yet: the put waits, unless there are none left at all.
    fn put_without_id(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, put: Put) {
        if self.ids_are_exhausted() {
            return turn.reply(who, tag, Reply::Refused(Refusal::OutOfIds));
        }
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.hold = Hold::Ids(Box::new((tag, put)));
        self.ids.waiting.push(who);
    }

    /// The database has reserved ids: the puts that wait for them go on, in their order.
    pub(super) fn ids_reserved(&mut self, turn: &mut Turn<'_>, up_to: u64) {
        self.ids.reserved = self.ids.reserved.max(up_to);
        // What was asked for has come; if it was less, the next put asks again.
        self.ids.asked = self.ids.reserved;
        for connection in std::mem::take(&mut self.ids.waiting) {
            let Some(session) = self.sessions.get_mut(&connection) else { continue };
            if let Hold::Ids(waiting) = std::mem::replace(&mut session.hold, Hold::Free) {
                let (tag, put) = *waiting;
                self.resumable.push_back(connection);
                self.put(turn, connection, tag, put);
            }
        }
    }

    /// The next message id, or `None` while the database has none reserved.
    pub(super) fn draw_id(&mut self, turn: &mut Turn<'_>) -> Option<u64> {
        let left = self.ids.reserved.saturating_sub(self.ids.next);
        if left < ID_BLOCK / 5 && self.ids.asked == self.ids.reserved {
            let from = self.ids.reserved.max(self.ids.next);
            self.ids.asked = from.saturating_add(ID_BLOCK).min(i64::MAX as u64);
            if self.ids.asked > self.ids.reserved {
                turn.effects.push(Effect::ReserveIds(self.ids.asked));
            }
        }
        if left == 0 {
            return None;
        }
        self.ids.next += 1;
        Some(self.ids.next - 1)
    }

    fn ids_are_exhausted(&self) -> bool {
        self.ids.next >= i64::MAX as u64
    }

    fn insert(&mut self, turn: &mut Turn<'_>, id: MessageId, queue: QueueSlot, put: Put) {
        let now = turn.time();
        let body_bytes = u32::try_from(put.body.len()).unwrap_or(u32::MAX);
        let expires = put.time_to_live_ms.map_or(Time::NEVER, |ttl| now.plus(ttl));
        let message = Message {
            id,
            sequence: Sequence(id.0),
            created: now,
            expires,
            time_to_run_ms: put.time_to_run_ms.unwrap_or_else(|| self.limits.time_to_run_ms()),
            state: State::Ready,
            queue,
            priority: put.priority.unwrap_or_else(|| self.limits.priority()),
            body_bytes,
            reserves: 0,
            has_history: false,
            unsaved: false,
        };
        let due = (put.delay_ms > 0).then(|| now.plus(put.delay_ms));
        let row = MessageRow {
            id,
            queue: self.queue_id(turn, queue),
            priority: message.priority,
            sequence: message.sequence,
            created_ms: now.stored(),
            expires_ms: (expires != Time::NEVER).then(|| expires.stored()),
            due_ms: due.map(Time::stored),
            time_to_run_ms: message.time_to_run_ms,
            attributes: put.attributes,
            body: put.body,
        };
        let history = History { delay_ms: put.delay_ms, ..History::default() };
        let slot = self.messages.insert(message, history);
        self.deadlines.add(expires, Due::Expire(slot));
        self.totals.messages_put += 1;
        self.totals.body_bytes += u64::from(body_bytes);
        self.queues[queue].messages_put += 1;
        self.queues[queue].body_bytes += u64::from(body_bytes);
        match due {
            None => self.place_ready(slot),
            Some(due) => self.place_delayed(slot, due),
        }
        turn.change(Change::Put(row));
    }

    /// The queue's number in the database, where it is written with its first message.
    fn queue_id(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) -> QueueId {
        let queue = &mut self.queues[queue];
        if let Some(id) = queue.id {
            return id;
        }
        let id = QueueId(self.next_queue_id);
        self.next_queue_id += 1;
        queue.id = Some(id);
        turn.change(Change::QueueNamed { id, name: queue.name.clone() });
        id
    }
}
