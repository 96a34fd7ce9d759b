//! What each command does.

use crate::change::{Change, MessageRow, MessageState};
use crate::clock::Time;
use crate::command::{
    Command, Counted, Handing, Manner, Put, Refusal, Reply, Request, Tag, Target,
};
use crate::ids::{ConnectionId, MessageId, QueueId, QueueName, Sequence};

use super::hand::{Lost, Return};
use super::message::{History, Message, Slot, State};
use super::queue::QueueSlot;
use super::reservation::{List, Terms};
use super::session::{Hold, Window};
use super::work::{Asker, Kicked, Work};
use super::{Due, Effect, Engine, Turn};

impl Engine {
    pub(super) fn execute(&mut self, turn: &mut Turn<'_>, who: ConnectionId, request: Request) {
        let Request { tag, command } = request;
        if let Some(counted) = counted(&command) {
            self.totals.commands.add(counted);
        }
        match command {
            Command::Put(put) => self.put(turn, who, tag, put),
            Command::Start(queue) => self.start(who, &queue),
            Command::Use(queue) => self.use_queue(turn, who, tag, &queue),
            Command::Watch(queue) => self.watch(turn, who, tag, &queue),
            Command::Ignore(queue) => self.ignore(turn, who, tag, &queue),
            Command::Consume { queue, window } => self.consume(turn, who, tag, &queue, window),
            Command::Reserve { timeout_ms, count } => {
                self.reserve_next(turn, who, tag, timeout_ms, count.max(1));
            }
            Command::ReserveMessage(id) => self.reserve_message(turn, who, tag, id),
            Command::Acknowledge { id, queue } => {
                self.acknowledge(turn, who, tag, id, queue.as_ref());
            }
            Command::Remove(id) => self.remove(turn, who, tag, id),
            Command::Release { id, priority, delay_ms } => {
                self.release(turn, who, tag, id, (priority, delay_ms));
            }
            Command::Requeue { id, queue, time_to_live_ms } => {
                self.requeue(turn, who, tag, id, (queue.as_ref(), time_to_live_ms));
            }
            Command::Bury { id, queue, priority } => {
                self.bury(turn, who, tag, id, (queue.as_ref(), priority));
            }
            Command::Touch(id) => self.touch(turn, who, tag, id),
            Command::Kick(bound) => self.kick_some(turn, who, tag, bound),
            Command::KickMessage(id) => self.kick_one(turn, who, tag, id),
            Command::Pause { queue, for_ms } => self.pause(turn, who, tag, &queue, for_ms),
            Command::Flush(queue) => self.flush(turn, who, tag, &queue),
            Command::FlushAll => {
                let asker = Asker { connection: who, tag };
                let queues = Vec::new();
                self.begin_work(turn, Work::Flush { asker, queues, next: Some(0), count: 0 });
            }
            Command::Echo | Command::EchoCounted(_) => turn.reply(who, tag, Reply::Echo),
            // What follows is not read: the end of the connection comes as an input.
            Command::Quit => {}
            look => self.inspect(turn, who, tag, look),
        }
    }

    fn put(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, put: Put) {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if !session.producer {
            session.producer = true;
            self.totals.producers += 1;
        }
        if session.manner == Manner::Serial
            && let Some(refusal) = self.refuse_puts
        {
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
            return self.put_without_id(turn, who, tag, put);
        };
        self.insert(turn, MessageId(id), queue, put);
        turn.reply(who, tag, Reply::Put(MessageId(id)));
        self.serve(turn, queue);
    }

    /// The database has reserved no ids yet: the put waits, unless there are none left at all.
    fn put_without_id(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, put: Put) {
        if self.ids_are_exhausted() {
            return turn.reply(who, tag, Reply::Refused(Refusal::OutOfIds));
        }
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.hold = Hold::Ids;
        session.backlog.push_front(Request { tag, command: Command::Put(put) });
        self.ids.waiting.push(who);
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
            created_ms: turn.now.wall_ms(now),
            expires_ms: put.time_to_live_ms.map(|_| turn.now.wall_ms(expires)),
            due_ms: due.map(|due| turn.now.wall_ms(due)),
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

    fn start(&mut self, who: ConnectionId, name: &QueueName) {
        let Some(queue) = self.queue(name) else { return };
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.used = Some(queue);
        session.watched = vec![queue];
        self.queues[queue].using += 1;
        self.queues[queue].watching += 1;
    }

    fn use_queue(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, name: &QueueName) {
        let Some(queue) = self.queue(name) else {
            return turn.reply(who, tag, Reply::Refused(Refusal::TooManyQueues));
        };
        self.queues[queue].using += 1;
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if let Some(old) = session.used.replace(queue) {
            self.queues[old].using -= 1;
            self.drop_if_unneeded(turn, old);
        }
        turn.reply(who, tag, Reply::Using(name.clone()));
    }

    fn watch(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, name: &QueueName) {
        let Some(queue) = self.queue(name) else {
            return turn.reply(who, tag, Reply::Refused(Refusal::TooManyQueues));
        };
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if !session.watched.contains(&queue) {
            session.watched.push(queue);
            self.queues[queue].watching += 1;
        }
        turn.reply(who, tag, Reply::Watching(session.watched.len()));
    }

    fn ignore(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, name: &QueueName) {
        let queue = self.queues.find(name);
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        let at = queue.and_then(|queue| session.watched.iter().position(|slot| *slot == queue));
        if let Some(at) = at {
            if session.watched.len() == 1 {
                return turn.reply(who, tag, Reply::NotIgnored);
            }
            let queue = session.watched.remove(at);
            turn.reply(who, tag, Reply::Watching(session.watched.len()));
            self.queues[queue].watching -= 1;
            return self.drop_if_unneeded(turn, queue);
        }
        turn.reply(who, tag, Reply::Watching(session.watched.len()));
    }

    fn consume(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        name: &QueueName,
        max: u32,
    ) {
        self.count_worker(who);
        let max = max.min(self.limits.max_window());
        let known = self.queues.find(name);
        let has_window =
            known.is_some_and(|queue| self.sessions[&who].windows.contains_key(&queue));
        if max == 0 && !has_window {
            return;
        }
        let Some(queue) = self.queue(name) else { return };
        if !has_window {
            self.add_window(turn, who, queue);
        }
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.windows.get_mut(&queue).expect("it has one now").max = max;
        self.update_window(turn, who, queue);
        if max == 0 {
            let asker = Asker { connection: who, tag };
            return self.begin_work(turn, Work::EndWindow { asker, queue });
        }
        self.serve(turn, queue);
    }

    fn add_window(&mut self, turn: &Turn<'_>, who: ConnectionId, queue: QueueSlot) {
        let window = Window {
            max: 0,
            held: List::default(),
            lost: Default::default(),
            stamp: self.draw_stamp(),
            clock_since: turn.time(),
            armed: Time::NEVER,
        };
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.windows.insert(queue, window);
        self.queues[queue].windows += 1;
    }

    fn count_worker(&mut self, who: ConnectionId) {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        if !session.worker {
            session.worker = true;
            self.totals.workers += 1;
        }
    }

    fn reserve_next(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        timeout_ms: Option<u64>,
        count: u32,
    ) {
        self.count_worker(who);
        if let Some(slot) = self.best_watched(turn, who) {
            return self.hand_batch(turn, who, tag, slot, count);
        }
        if self.has_deadline_soon(turn.time(), who) {
            return turn.reply(who, tag, Reply::DeadlineSoon);
        }
        if timeout_ms == Some(0) || self.sessions[&who].hung_up {
            return turn.reply(who, tag, Reply::TimedOut);
        }
        let until = timeout_ms.map_or(Time::NEVER, |timeout| turn.time().plus(timeout));
        self.begin_wait(who, tag, until, count);
    }

    fn reserve_message(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, id: MessageId) {
        self.count_worker(who);
        let found = self.settle(turn, id);
        let Some(slot) = found.filter(|slot| !self.is_reserved(*slot)) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        if self.messages[slot].expires <= turn.time()
            && !matches!(self.messages[slot].state, State::Buried(_))
        {
            self.expire(turn, slot);
            return turn.reply(who, tag, Reply::NotFound);
        }
        // What was stored as buried or delayed would be so again after a restart.
        let stored_elsewhere = !matches!(self.messages[slot].state, State::Ready);
        if matches!(self.messages[slot].state, State::Buried(_)) {
            self.unbury_clock(turn, slot);
        }
        self.reserve(turn, who, tag, slot);
        if stored_elsewhere {
            self.save(turn, slot);
        }
    }

    fn is_reserved(&self, slot: Slot) -> bool {
        matches!(self.messages[slot].state, State::Reserved(_))
    }

    fn acknowledge(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        queue: Option<&QueueName>,
    ) {
        if let Some(slot) = self.held_by(who, id, queue) {
            let of = self.queue_of(slot);
            self.take_back(turn, slot, Lost::PlaceIsFree);
            self.forget(turn, slot);
            turn.reply(who, tag, Reply::Acknowledged);
            self.serve(turn, of);
            return self.drop_if_unneeded(turn, of);
        }
        let known = queue.and_then(|name| self.queues.find(name));
        if !known.is_some_and(|queue| self.acknowledge_late(turn, who, queue, id)) {
            self.totals.foreign_acknowledgements += 1;
        }
        turn.reply(who, tag, Reply::NotHeld);
    }

    /// An acknowledgement of a message that was taken back: it frees the place, and counts while
    /// nobody else holds the message. Says whether the message was once this connection's.
    fn acknowledge_late(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        queue: QueueSlot,
        id: MessageId,
    ) -> bool {
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        let lost = session.windows.get_mut(&queue).is_some_and(|window| {
            let lost = window.lost.remove(&id);
            if lost {
                // It has stirred: the time until it is given up starts again.
                window.clock_since = turn.now.time.max(window.clock_since);
            }
            lost
        });
        if !lost {
            return false;
        }
        self.totals.late_acknowledgements += 1;
        if let Some(slot) = self.settle(turn, id)
            && !self.is_reserved(slot)
        {
            self.detach(slot);
            self.forget(turn, slot);
        }
        self.update_window(turn, who, queue);
        self.serve(turn, queue);
        true
    }

    fn remove(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, id: MessageId) {
        let found = self.settle(turn, id);
        let mine = self.held_by(who, id, None).is_some();
        let Some(slot) = found.filter(|slot| mine || !self.is_reserved(*slot)) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queue = self.queue_of(slot);
        if mine {
            self.take_back(turn, slot, Lost::PlaceIsFree);
        } else {
            self.detach(slot);
        }
        self.forget(turn, slot);
        self.queues[queue].removes += 1;
        turn.reply(who, tag, Reply::Removed);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn release(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (priority, delay_ms): (Option<u32>, u64),
    ) {
        let Some(slot) = self.held_by(who, id, None) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queue = self.queue_of(slot);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(priority) = priority {
            self.messages[slot].priority = priority;
        }
        let history = self.messages.history_mut(slot);
        history.releases += 1;
        history.delay_ms = delay_ms;
        let expired = self.messages[slot].expires <= turn.time();
        let back = if delay_ms > 0 && !expired {
            self.place_delayed(slot, turn.time().plus(delay_ms));
            Return::Ready
        } else {
            self.put_back(turn, slot)
        };
        if back == Return::Ready {
            self.save(turn, slot);
        }
        turn.reply(who, tag, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn requeue(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (queue, time_to_live_ms): (Option<&QueueName>, Option<u64>),
    ) {
        let Some(slot) = self.held_by(who, id, queue) else {
            self.totals.foreign_acknowledgements += 1;
            return turn.reply(who, tag, Reply::NotHeld);
        };
        let queue = self.queue_of(slot);
        // A re-queue without ids to draw a place from keeps the old one: it is a rare moment, and
        // the message is not to be lost over it.
        let sequence = self.draw_id(turn).map(Sequence);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(sequence) = sequence {
            self.messages[slot].sequence = sequence;
        }
        let expires = time_to_live_ms.map_or(Time::NEVER, |ttl| turn.time().plus(ttl));
        self.set_expires(slot, expires);
        self.messages.history_mut(slot).releases += 1;
        if self.put_back(turn, slot) == Return::Ready {
            self.save(turn, slot);
        }
        turn.reply(who, tag, Reply::Released);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn bury(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        id: MessageId,
        (queue, priority): (Option<&QueueName>, Option<u32>),
    ) {
        let Some(slot) = self.held_by(who, id, queue) else {
            let reply = if queue.is_some() { Reply::NotHeld } else { Reply::NotFound };
            if reply == Reply::NotHeld {
                self.totals.foreign_acknowledgements += 1;
            }
            return turn.reply(who, tag, reply);
        };
        let queue = self.queue_of(slot);
        self.take_back(turn, slot, Lost::PlaceIsFree);
        if let Some(priority) = priority {
            self.messages[slot].priority = priority;
        }
        self.messages.history_mut(slot).buries += 1;
        self.bury_detached(turn, slot);
        self.save(turn, slot);
        turn.reply(who, tag, Reply::Buried);
        self.serve(turn, queue);
    }

    fn touch(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, id: MessageId) {
        let held = self.held_by(who, id, None);
        let Some((slot, State::Reserved(reservation))) =
            held.map(|slot| (slot, self.messages[slot].state))
        else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let until = turn.time().plus(self.messages[slot].time_to_run_ms);
        if let Terms::Until(ends) = &mut self.reservations[reservation].terms {
            *ends = until;
        }
        turn.reply(who, tag, Reply::Touched);
    }

    fn kick_some(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, bound: u64) {
        let Some(queue) = self.sessions[&who].used else {
            return turn.reply(who, tag, Reply::Kicked(0));
        };
        self.queues[queue].works += 1;
        let from =
            if self.queues[queue].buried.is_empty() { Kicked::Delayed } else { Kicked::Buried };
        let here = &self.queues[queue];
        let most = match from {
            Kicked::Buried => here.buried.len(),
            Kicked::Delayed => here.delayed.len(),
        };
        let left = bound.min(most as u64);
        let asker = Asker { connection: who, tag };
        self.begin_work(turn, Work::Kick { asker, queue, from, left, count: 0 });
    }

    fn kick_one(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, id: MessageId) {
        let kickable = |slot: &Slot| {
            matches!(self.messages[*slot].state, State::Buried(_) | State::Delayed(_))
        };
        let Some(slot) = self.find(id).filter(kickable) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        self.kick(turn, slot);
        turn.reply(who, tag, Reply::KickedOne);
        self.serve(turn, self.queue_of(slot));
    }

    fn pause(
        &mut self,
        turn: &mut Turn<'_>,
        who: ConnectionId,
        tag: Tag,
        name: &QueueName,
        for_ms: u64,
    ) {
        let Some(slot) = self.queues.find(name) else {
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queue = &mut self.queues[slot];
        self.deadlines.cancel(queue.paused_until, Due::Pause(slot));
        queue.paused_until = if for_ms == 0 { Time(0) } else { turn.time().plus(for_ms) };
        queue.pause_ms = for_ms;
        queue.pauses += 1;
        if for_ms > 0 {
            self.deadlines.add(queue.paused_until, Due::Pause(slot));
        }
        turn.reply(who, tag, Reply::Paused);
        self.serve(turn, slot);
    }

    fn flush(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, name: &QueueName) {
        let Some(queue) = self.queues.find(name) else {
            return turn.reply(who, tag, Reply::Flushed(0));
        };
        let queues = vec![self.detach_all(queue)];
        let asker = Asker { connection: who, tag };
        self.begin_work(turn, Work::Flush { asker, queues, next: None, count: 0 });
    }

    /// The peer does not keep up (any more), or does again: then its windows take part again, and
    /// what was kept back for want of room goes on.
    pub(super) fn stall(&mut self, turn: &mut Turn<'_>, who: ConnectionId, slow: bool) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        if matches!(session.hold, Hold::Ended) {
            return;
        }
        session.slow = slow;
        session.stalled &= slow;
        if matches!(session.hold, Hold::Output) && !slow {
            self.set_free(who);
        }
        let queues: Vec<QueueSlot> = self.sessions[&who].windows.keys().copied().collect();
        for queue in queues {
            self.update_window(turn, who, queue);
            self.serve(turn, queue);
        }
    }

    /// Forgets a window through which nothing is out.
    pub(super) fn forget_window(&mut self, who: ConnectionId, queue: QueueSlot) {
        let Some(session) = self.sessions.get_mut(&who) else { return };
        let Some(window) = session.windows.remove(&queue) else { return };
        self.deadlines.cancel(window.armed, Due::Window(who, queue));
        self.queues[queue].hungry.remove(&(window.stamp, who));
        self.queues[queue].windows -= 1;
    }

    /// Forgets a session that holds nothing.
    pub(super) fn forget_session(&mut self, turn: &mut Turn<'_>, who: ConnectionId) {
        let windows: Vec<QueueSlot> = self.sessions[&who].windows.keys().copied().collect();
        for queue in &windows {
            self.forget_window(who, *queue);
        }
        let session = self.sessions.remove(&who).expect("its end has begun");
        self.deadlines.cancel(session.armed, Due::Session(who));
        self.totals.producers -= u64::from(session.producer);
        self.totals.workers -= u64::from(session.worker);
        for queue in session.watched.iter().copied() {
            self.queues[queue].watching -= 1;
        }
        if let Some(queue) = session.used {
            self.queues[queue].using -= 1;
        }
        for queue in windows.into_iter().chain(session.watched).chain(session.used) {
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Shows a message to a peer.
    pub(super) fn show(&mut self, turn: &mut Turn<'_>, who: ConnectionId, tag: Tag, slot: Slot) {
        let handed = self.handed(turn, slot, Handing::Found);
        self.spend(who, slot);
        turn.effects.push(Effect::Deliver(who, tag, handed));
    }
}

fn counted(command: &Command) -> Option<Counted> {
    Some(match command {
        Command::Put(_) => Counted::Put,
        Command::Use(_) => Counted::Use,
        Command::Watch(_) => Counted::Watch,
        Command::Ignore(_) => Counted::Ignore,
        Command::Consume { .. } => Counted::Consume,
        Command::Reserve { timeout_ms: None, .. } => Counted::Reserve,
        Command::Reserve { .. } => Counted::ReserveWithTimeout,
        Command::ReserveMessage(_) => Counted::ReserveMessage,
        Command::Acknowledge { .. } => Counted::Acknowledge,
        Command::Remove(_) => Counted::Remove,
        Command::Release { .. } => Counted::Release,
        Command::Requeue { .. } => Counted::Requeue,
        Command::Bury { .. } => Counted::Bury,
        Command::Touch(_) => Counted::Touch,
        Command::Peek(_) => Counted::Peek,
        Command::PeekNext(MessageState::Delayed) => Counted::PeekDelayed,
        Command::PeekNext(MessageState::Buried) => Counted::PeekBuried,
        Command::PeekNext(_) => Counted::PeekReady,
        Command::Kick(_) => Counted::Kick,
        Command::KickMessage(_) => Counted::KickMessage,
        Command::Pause { .. } => Counted::Pause,
        Command::Flush(_) | Command::FlushAll => Counted::Flush,
        Command::Statistics => Counted::Statistics,
        Command::MessageStatistics(_) => Counted::MessageStatistics,
        Command::QueueStatistics(_) => Counted::QueueStatistics,
        Command::ListQueues => Counted::ListQueues,
        Command::ShowUsed => Counted::ShowUsed,
        Command::ListWatched => Counted::ListWatched,
        Command::Survey { .. } => Counted::Survey,
        Command::List { .. } => Counted::List,
        Command::EchoCounted(counted) => *counted,
        Command::Start(_) | Command::Echo | Command::Quit => return None,
    })
}
