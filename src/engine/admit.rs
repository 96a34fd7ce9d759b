//! Queueing a message.

use crate::words::change::{Change, MessageRow};
use crate::words::clock::Time;
use crate::words::command::{Extras, Manner, Put, PutWith, Reply, Tag, Target};
use crate::words::ids::{MessageId, QueueId, Sequence};
use crate::words::limits::ID_BLOCK;
use crate::words::refusal::Refusal;
use crate::words::settings::QueueLimits;

use super::state::keys::KeySlot;
use super::state::message::{History, Message, Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::{Hold, WaitingPuts};
use super::{Asker, Effect, Engine, Promise, Turn};

impl Engine {
    /// Queues a message that has a key, unless that is taken: whoever joins a message adds nothing
    /// to memory or disk, and so is not refused.
    pub(super) fn put_with(&mut self, turn: &mut Turn<'_>, asker: Asker, with: PutWith) {
        let PutWith { put, extras } = with;
        if let Some(keyed) = &extras.keyed
            && let Some(queue) = self.meant_by(asker.session, &put.queue)
            && let Some(found) = self.ledger.keys().find(queue, &keyed.key)
        {
            if let Some(message) = self.holder_of_key(turn, found) {
                self.ledger.count_producer(asker.session);
                return self.join(turn, asker.about(extras.is_volatile), found, message);
            }
            self.drop_if_unneeded(turn, queue);
        }
        self.put(turn, asker, put, Some(extras));
    }

    /// A put joins what has its key. A durable one makes that durable: its answer promises as much
    /// as if the message had come with it.
    fn join(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        key: KeySlot,
        message: Option<MessageId>,
    ) {
        if asker.promise == Promise::Durable && self.ledger.keys()[key].is_volatile {
            if self.can_be_refused(&asker)
                && let Some(refusal) = self.refuse_durability()
            {
                return turn.reply(asker, Reply::Refused(refusal));
            }
            self.make_key_durable(turn, key, message);
        }
        self.totals.messages_joined += 1;
        turn.reply(asker, Reply::Joined(message));
    }

    /// Whether a put of this asker can be refused: senders without replies cannot, the dispatcher
    /// closes their gate.
    fn can_be_refused(&self, asker: &Asker) -> bool {
        self.ledger.session(asker.session).manner == Manner::Serial || asker.tag != Tag::None
    }

    /// By what a key is taken; what is left of one that is free is cleared away.
    pub(super) fn holder_of_key(
        &mut self,
        turn: &mut Turn<'_>,
        key: KeySlot,
    ) -> Option<Option<MessageId>> {
        let taken = &self.ledger.keys()[key];
        let holder = self.ledger.holder_of(turn.time(), taken);
        if holder.is_none() {
            self.ledger.free_key(turn, key);
        }
        holder
    }

    pub(super) fn put(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        put: Put,
        extras: Option<Extras>,
    ) {
        self.ledger.count_producer(asker.session);
        let session = self.ledger.session(asker.session);
        let can_be_refused = self.can_be_refused(&asker);
        if can_be_refused && let Some(refusal) = self.refuse_puts {
            // What is volatile needs no disk.
            let needs_disk = extras.as_ref().is_none_or(|extras| !extras.is_volatile);
            if needs_disk || refusal != Refusal::StoreUnavailable {
                return turn.reply(asker, Reply::Refused(refusal));
            }
        }
        let queue = match &put.queue {
            Target::Referred => session.referred,
            Target::Named(name) => self.queue(name),
        };
        let Some(queue) = queue else {
            return turn.reply(asker, Reply::Refused(self.refuse_queue()));
        };
        if can_be_refused && self.is_full(queue, put.priority) {
            return turn.reply(asker, Reply::Refused(Refusal::QueueFull));
        }
        let Some(id) = self.draw_id(turn) else {
            match self.refuse_puts.filter(|_| can_be_refused) {
                Some(refusal) => turn.reply(asker, Reply::Refused(refusal)),
                None => self.put_without_id(turn, asker, put, extras),
            }
            return self.drop_if_unneeded(turn, queue);
        };
        let slot = self.add(turn, MessageId(id), queue, (put, extras));
        let asker = asker.about(self.ledger.is_volatile(slot));
        turn.reply(asker, Reply::Put(MessageId(id)));
        self.serve(turn, queue);
    }

    /// Adds a message, which takes the key that it brings.
    pub(super) fn add(
        &mut self,
        turn: &mut Turn<'_>,
        id: MessageId,
        queue: QueueSlot,
        (put, extras): (Put, Option<Extras>),
    ) -> Slot {
        let is_volatile = extras.as_ref().is_some_and(|extras| extras.is_volatile);
        let slot = self.insert(turn, (id, queue), put, is_volatile);
        if let Some(extras) = extras
            && let Some(keyed) = extras.keyed
        {
            self.ledger.take_key(turn, slot, keyed);
        }
        slot
    }

    /// Whether a queue has as many messages as its limit for this priority allows.
    fn is_full(&self, queue: QueueSlot, priority: Option<u32>) -> bool {
        let here = self.ledger.queue(queue);
        // Hardly any queue has a limit, and every put comes by here.
        here.limits != QueueLimits::NONE && {
            let priority = priority.unwrap_or_else(|| self.limits.priority());
            here.limits.refuse(here.counts().total(), priority)
        }
    }

    /// A put whose body the decoder refused.
    pub(super) fn malformed_put(&mut self, turn: &mut Turn<'_>, asker: Asker) {
        self.ledger.count_producer(asker.session);
        // Where no id is reserved, none is lost.
        let _ = self.draw_id(turn);
        turn.reply(asker, Reply::Echo);
    }

    /// The database has reserved no ids yet: the put waits, unless there are none left at all.
    fn put_without_id(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        put: Put,
        extras: Option<Extras>,
    ) {
        let with = PutWith { put, extras: extras.unwrap_or_default() };
        self.wait_for_ids(turn, asker, WaitingPuts::One(with));
    }

    /// What is put waits for ids, unless there are none left at all.
    pub(super) fn wait_for_ids(&mut self, turn: &mut Turn<'_>, asker: Asker, puts: WaitingPuts) {
        if self.ids_are_exhausted() {
            return turn.reply(asker, Reply::Refused(Refusal::OutOfIds));
        }
        self.ledger.set_hold(asker.session, Hold::Ids(Box::new((asker.tag, puts))));
        self.ids.waiting.push(asker.session);
    }

    /// The database has reserved ids: the puts that wait for them go on.
    pub(super) fn ids_reserved(&mut self, turn: &mut Turn<'_>, up_to: u64) {
        self.ids.reserved = self.ids.reserved.max(up_to);
        // What was asked for has come; if it was less, the next put asks again.
        self.ids.asked = self.ids.reserved;
        self.try_waiting_puts(turn);
    }

    /// Puts are refused from now on, or accepted again. One that waits for ids on a full disk would
    /// wait for as long as that lasts, and its connection with it.
    pub(super) fn refuse_puts(&mut self, turn: &mut Turn<'_>, refusal: Option<Refusal>) {
        self.refuse_puts = refusal;
        if refusal.is_some() {
            self.try_waiting_puts(turn);
        }
    }

    /// The puts that wait for ids are handled once more, in their order.
    fn try_waiting_puts(&mut self, turn: &mut Turn<'_>) {
        for session in std::mem::take(&mut self.ids.waiting) {
            if let Hold::Ids(waiting) = self.ledger.set_hold(session, Hold::Free) {
                let connection = self.ledger.session(session).connection;
                let (tag, puts) = *waiting;
                let asker = Asker::new(session, connection, tag);
                self.resumable.push_back(session);
                match puts {
                    WaitingPuts::One(with) => self.put_with(turn, asker, with),
                    WaitingPuts::Together(steps) => self.together(turn, asker, steps),
                }
            }
        }
    }

    /// The next message id, or `None` while the database has none reserved.
    pub(super) fn draw_id(&mut self, turn: &mut Turn<'_>) -> Option<u64> {
        if self.ids_left(turn) == 0 {
            return None;
        }
        self.ids.next += 1;
        Some(self.ids.next - 1)
    }

    /// How many ids can be drawn; asks for more where they are few.
    pub(super) fn ids_left(&mut self, turn: &mut Turn<'_>) -> u64 {
        let left = self.ids.reserved.saturating_sub(self.ids.next);
        if left < ID_BLOCK / 5 && self.ids.asked == self.ids.reserved {
            let from = self.ids.reserved.max(self.ids.next);
            self.ids.asked = from.saturating_add(ID_BLOCK).min(i64::MAX as u64);
            if self.ids.asked > self.ids.reserved {
                turn.effects.push(Effect::ReserveIds(self.ids.asked));
            }
        }
        left
    }

    fn ids_are_exhausted(&self) -> bool {
        self.ids.next >= i64::MAX as u64
    }

    fn insert(
        &mut self,
        turn: &mut Turn<'_>,
        (id, queue): (MessageId, QueueSlot),
        put: Put,
        is_volatile: bool,
    ) -> Slot {
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
            has_failed: false,
            has_key: false,
            is_volatile,
            unsaved: false,
        };
        let due = (put.delay_ms > 0).then(|| now.plus(put.delay_ms));
        let kept = if is_volatile {
            Effect::PutVolatile(id, put.attributes, put.body)
        } else {
            Effect::Change(Change::Put(MessageRow {
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
            }))
        };
        let history = History { delay_ms: put.delay_ms, ..History::default() };
        let detached = self.ledger.insert(message, history);
        let slot = detached.slot();
        self.ledger.start_clock(&detached);
        self.totals.messages_put += 1;
        self.ledger.count_put(queue);
        match due {
            None => self.ledger.place_ready(detached),
            Some(due) => self.ledger.place_delayed(detached, due),
        }
        turn.effects.push(kept);
        slot
    }

    /// The queue's number in the database, where it is written with the first of what it has there.
    pub(super) fn queue_id(&mut self, turn: &mut Turn<'_>, queue: QueueSlot) -> QueueId {
        let here = self.ledger.queue(queue);
        if let Some(id) = here.id {
            return id;
        }
        let id = QueueId(self.next_queue_id);
        self.next_queue_id += 1;
        turn.change(Change::QueueNamed { id, name: here.name.clone() });
        self.ledger.number_queue(queue, id);
        id
    }
}
