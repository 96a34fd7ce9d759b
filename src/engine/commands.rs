//! What each command does.

use crate::words::change::MessageState;
use crate::words::clock::Time;
use crate::words::command::{Command, Reply, Request, Tag};
use crate::words::ids::{ConnectionId, MessageId, QueueName};
use crate::words::refusal::Refusal;
use crate::words::statistics::Counted;

use super::slices::{Asker, Kicked, Work};
use super::state::message::{Slot, State};
use super::{Due, Engine, Turn};

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
            Command::EchoPut => self.echo_put(turn, who, tag),
            Command::Echo | Command::EchoCounted(_) => turn.reply(who, tag, Reply::Echo),
            Command::PutRefused { refusal, .. } => {
                if refusal == Refusal::TooLarge {
                    self.totals.messages_too_large += 1;
                }
                turn.reply(who, tag, Reply::Refused(refusal));
            }
            // What follows is not read: the end of the connection comes as an input.
            Command::Quit => {}
            look => self.inspect(turn, who, tag, look),
        }
    }

    fn start(&mut self, who: ConnectionId, name: &QueueName) {
        let Some(queue) = self.queue(name) else { return };
        let session = self.sessions.get_mut(&who).expect("only sessions ask");
        session.used = Some(queue);
        session.watched = vec![queue];
        if !self.queues[queue].is_first {
            // The queue that connections start with has been there from the start.
            self.queues.list_first(queue);
        }
        let queue = &mut self.queues[queue];
        queue.is_first = true;
        queue.using += 1;
        queue.watching += 1;
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
            // As in lists of queues, the last one takes its place.
            let queue = session.watched.swap_remove(at);
            turn.reply(who, tag, Reply::Watching(session.watched.len()));
            self.queues[queue].watching -= 1;
            return self.drop_if_unneeded(turn, queue);
        }
        turn.reply(who, tag, Reply::Watching(session.watched.len()));
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
        let queue = self.queue_of(slot);
        self.kick(turn, slot);
        turn.reply(who, tag, Reply::KickedOne);
        self.serve(turn, queue);
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
            return turn.reply(who, tag, Reply::NotFound);
        };
        let queues = vec![self.detach_all(queue)];
        let asker = Asker { connection: who, tag };
        self.begin_work(turn, Work::Flush { asker, queues, next: None, count: 0 });
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
        Command::EchoPut | Command::PutRefused { .. } => Counted::Put,
        Command::Start(_) | Command::Echo | Command::Quit => return None,
    })
}
