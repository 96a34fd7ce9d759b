//! What each command does.

use crate::words::change::{Change, MessageState};
use crate::words::clock::Time;
use crate::words::command::{Command, Demand, Options, Reply, Request, SubscriptionKey, Target};
use crate::words::ids::{MessageId, QueueName};
use crate::words::refusal::Refusal;
use crate::words::settings::{QueueLimits, QueueSetting};
use crate::words::statistics::Counted;

use super::give_back::Kick;
use super::slices::{Kicked, Work};
use super::state::message::{Slot, State};
use super::state::queue::QueueSlot;
use super::state::session::SessionSlot;
use super::{Asker, Engine, Turn};

impl Engine {
    pub(super) fn execute(&mut self, turn: &mut Turn<'_>, who: SessionSlot, request: Request) {
        let Request { tag, command } = request;
        let connection = self.ledger.session(who).connection;
        let asker = Asker::new(who, connection, tag);
        if let Some(counted) = counted(&command) {
            self.totals.commands.add(counted);
        }
        match command {
            Command::Put(put) => self.put(turn, asker, put, None),
            Command::PutWith(with) => self.put_with(turn, asker, *with),
            Command::Together(steps) => self.together(turn, asker, steps),
            Command::Refer(queue) => self.refer(turn, asker, &queue),
            Command::Subscribe { key, queue, options } => {
                self.subscribe(turn, asker, (key, &queue), options);
            }
            Command::Unsubscribe { key, queue, keep_last } => {
                self.unsubscribe(turn, asker, (key, &queue), keep_last);
            }
            Command::Reserve { from, refuse_if_holding, timeout_ms, amount } => {
                let until = timeout_ms.map_or(Time::NEVER, |timeout| turn.time().plus(timeout));
                self.reserve_next(turn, asker, (from, refuse_if_holding), (until, amount));
            }
            Command::ReserveMessage(id) => self.reserve_message(turn, asker, id),
            Command::Acknowledge(message) => self.acknowledge(turn, asker, &message),
            Command::Remove(id) => self.remove(turn, asker, id),
            Command::Release { message, priority, delay_ms } => {
                self.release(turn, asker, &message, (priority, delay_ms));
            }
            Command::Requeue { message, time_to_live_ms } => {
                self.requeue(turn, asker, &message, time_to_live_ms);
            }
            Command::Bury { message, priority } => self.bury(turn, asker, &message, priority),
            Command::Fail { message, reason } => self.fail(turn, asker, &message, reason),
            Command::Mark(message) => self.mark(turn, asker, &message),
            Command::Unmark(id) => self.unmark(turn, asker, id),
            Command::Promote(id) => self.promote(turn, asker, id),
            Command::Touch(message) => self.touch(turn, asker, &message),
            Command::Kick { queue, count } => self.kick_some(turn, asker, &queue, count),
            Command::KickMessage(id) => self.kick_one(turn, asker, id),
            Command::Pause { queue, for_ms } => self.pause(turn, asker, &queue, for_ms),
            Command::Configure { queue, setting } => {
                self.configure(turn, asker, &queue, setting);
            }
            Command::Flush(queue) => self.flush(turn, asker, &queue),
            Command::FlushAll => {
                let queues = Vec::new();
                self.begin_work(turn, Work::Flush { asker, queues, next: Some(0), count: 0 });
            }
            Command::RemoveQueue { queue, only_if_empty } => {
                self.remove_queue(turn, asker, &queue, only_if_empty);
            }
            Command::SetAside(id) => self.bury_free(turn, asker, id),
            Command::Malformed { costs_id: true, .. } => self.malformed_put(turn, asker),
            Command::Echo | Command::Malformed { .. } => turn.reply(asker, Reply::Echo),
            Command::PutRefused { refusal, .. } => {
                if refusal == Refusal::TooLarge {
                    self.totals.messages_too_large += 1;
                }
                turn.reply(asker, Reply::Refused(refusal));
            }
            // What follows is not read: the end of the connection comes as an input.
            Command::Quit => {}
            look => self.look(turn, asker, look),
        }
    }

    fn refer(&mut self, turn: &mut Turn<'_>, asker: Asker, name: &QueueName) {
        let Some(queue) = self.queue(name) else {
            return turn.reply(asker, Reply::Refused(self.refuse_queue()));
        };
        if let Some(old) = self.ledger.refer(asker.session, queue) {
            self.drop_if_unneeded(turn, old);
        }
        turn.reply(asker, Reply::Referred(name.clone()));
    }

    fn kick_some(&mut self, turn: &mut Turn<'_>, asker: Asker, target: &Target, bound: u64) {
        let Some(queue) = self.meant_by(asker.session, target) else {
            return match target {
                Target::Referred => turn.reply(asker, Reply::Kicked(0)),
                Target::Named(_) => turn.reply(asker, Reply::NotFound),
            };
        };
        self.ledger.begin_work_on(queue);
        let has_dead_letters = self.ledger.next_dead_letter(queue, 0).is_some();
        let here = self.ledger.queue(queue);
        let (from, most) = match here.buried.len() {
            _ if has_dead_letters => (Kicked::DeadLetters { from: 0 }, here.dead_letters.len()),
            0 => (Kicked::Delayed, here.delayed.len()),
            buried => (Kicked::Buried, buried),
        };
        let left = bound.min(most as u64);
        self.begin_work(turn, Work::Kick { asker, queue, from, left, count: 0 });
    }

    /// The queue that a command means, if there is one.
    pub(super) fn meant_by(&self, who: SessionSlot, target: &Target) -> Option<QueueSlot> {
        match target {
            Target::Referred => self.ledger.session(who).referred,
            Target::Named(name) => self.ledger.queues().find(name),
        }
    }

    fn kick_one(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let kickable = |slot: &Slot| match self.ledger.message(*slot).state {
            State::Buried(_) | State::Delayed(_) => true,
            State::Ready => self.ledger.is_dead_letter(*slot),
            State::Reserved(_) => false,
        };
        let Some(slot) = self.ledger.find(id).filter(kickable) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let queue = self.ledger.queue_of(slot);
        let asker = asker.about(self.ledger.is_volatile(slot));
        let Kick::Done(home) = self.kick(turn, slot) else {
            return turn.reply(asker, Reply::NotFound);
        };
        turn.reply(asker, Reply::KickedOne);
        self.serve(turn, home.unwrap_or(queue));
        self.drop_if_unneeded(turn, queue);
    }

    fn configure(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        name: &QueueName,
        setting: QueueSetting,
    ) {
        let queue = self.ledger.queues().find(name);
        let queue = match queue {
            None if setting.is_default() => return turn.reply(asker, Reply::NotFound),
            None => self.queue(name),
            found => found,
        };
        let Some(queue) = queue else {
            return turn.reply(asker, Reply::Refused(self.refuse_queue()));
        };
        self.ledger.configure_queue(queue, setting);
        let id = self.ledger.queue(queue).id;
        if id.is_some() || !setting.is_default() {
            let id = self.queue_id(turn, queue);
            turn.change(Change::QueueSet(self.ledger.settings_of(queue, id)));
        }
        turn.reply(asker, Reply::Configured);
        self.serve(turn, queue);
        self.drop_if_unneeded(turn, queue);
    }

    fn pause(&mut self, turn: &mut Turn<'_>, asker: Asker, name: &QueueName, for_ms: u64) {
        let Some(slot) = self.ledger.queues().find(name) else {
            return turn.reply(asker, Reply::NotFound);
        };
        self.ledger.pause_queue(slot, turn.time().plus(for_ms), for_ms);
        self.ledger.count_pause(slot);
        turn.reply(asker, Reply::Paused);
        self.serve(turn, slot);
    }

    fn flush(&mut self, turn: &mut Turn<'_>, asker: Asker, name: &QueueName) {
        let Some(queue) = self.ledger.queues().find(name) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let queues = vec![self.detach_all(queue)];
        self.begin_work(turn, Work::Flush { asker, queues, next: None, count: 0 });
    }

    fn remove_queue(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        name: &QueueName,
        only_if_empty: bool,
    ) {
        let Some(queue) = self.ledger.queues().find(name) else {
            return turn.reply(asker, Reply::NotFound);
        };
        if only_if_empty && self.ledger.queue(queue).counts().total() > 0 {
            return turn.reply(asker, Reply::Refused(Refusal::NotEmpty));
        }
        let queues = vec![self.detach_all(queue)];
        self.ledger.pause_queue(queue, turn.time(), 0);
        for setting in [QueueSetting::Paused(false), QueueSetting::Limits(QueueLimits::NONE)] {
            self.ledger.configure_queue(queue, setting);
        }
        if let Some(id) = self.ledger.queue(queue).id {
            turn.change(Change::QueueSet(self.ledger.settings_of(queue, id)));
        }
        self.begin_work(turn, Work::Flush { asker, queues, next: None, count: 0 });
    }

    fn bury_free(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let is_free = |slot: &Slot| match self.ledger.message(*slot).state {
            State::Ready | State::Delayed(_) => true,
            State::Reserved(_) | State::Buried(_) => false,
        };
        let Some(slot) = self.ledger.find(id).filter(is_free) else {
            return turn.reply(asker, Reply::NotFound);
        };
        let asker = asker.about(self.ledger.is_volatile(slot));
        let detached = self.ledger.detach(slot);
        self.ledger.history_mut(slot).buries += 1;
        self.ledger.place_buried(turn.time(), detached);
        self.ledger.save(turn, slot);
        turn.reply(asker, Reply::Buried);
    }
}

fn counted(command: &Command) -> Option<Counted> {
    Some(match command {
        Command::Put(_) | Command::PutWith(_) => Counted::Put,
        Command::Together(_) => Counted::Together,
        Command::FindKey { .. } => Counted::FindKey,
        Command::Refer(_) => Counted::Refer,
        Command::Subscribe { options: Options { demand: Demand::Window(_), .. }, .. }
        | Command::Unsubscribe { key: SubscriptionKey::Queue, .. } => Counted::SetWindow,
        Command::Subscribe { .. } => Counted::Subscribe,
        Command::Unsubscribe { .. } => Counted::Unsubscribe,
        Command::Reserve { timeout_ms: None, .. } => Counted::Reserve,
        Command::Reserve { .. } => Counted::ReserveWithTimeout,
        Command::ReserveMessage(_) => Counted::ReserveMessage,
        Command::Acknowledge(_) => Counted::Acknowledge,
        Command::Remove(_) => Counted::Remove,
        Command::Release { .. } => Counted::Release,
        Command::Requeue { .. } => Counted::Requeue,
        Command::Bury { .. } => Counted::Bury,
        Command::Fail { .. } => Counted::Fail,
        Command::Mark(_) | Command::Unmark(_) => Counted::Mark,
        Command::Promote(_) => Counted::Promote,
        Command::Touch(_) => Counted::Touch,
        Command::Peek(_) => Counted::Peek,
        Command::PeekNext { state: MessageState::Delayed, .. } => Counted::PeekDelayed,
        Command::PeekNext { state: MessageState::Buried, .. } => Counted::PeekBuried,
        Command::PeekNext { .. } => Counted::PeekReady,
        Command::Kick { .. } => Counted::Kick,
        Command::KickMessage(_) => Counted::KickMessage,
        Command::Pause { .. } => Counted::Pause,
        Command::Flush(_) | Command::FlushAll => Counted::Flush,
        Command::Statistics => Counted::Statistics,
        Command::MessageStatistics(_) => Counted::MessageStatistics,
        Command::QueueStatistics(_) => Counted::QueueStatistics,
        Command::ListQueues => Counted::ListQueues,
        Command::ShowReferred => Counted::ShowReferred,
        Command::ListSubscribed(_) => Counted::ListSubscribed,
        Command::Survey { .. } => Counted::Survey,
        Command::List { .. } => Counted::List,
        Command::Configure { .. } => Counted::Configure,
        Command::RemoveQueue { .. } => Counted::RemoveQueue,
        Command::SetAside(_) => Counted::SetAside,
        Command::SelectQueues(_) => Counted::SelectQueues,
        Command::Malformed { counted, .. } => *counted,
        Command::PutRefused { .. } => Counted::Put,
        Command::Echo | Command::Quit => return None,
    })
}
