//! The model: what holders say of messages in their hands.

use crate::words::cause::Cause;
use crate::words::command::{Command, MessageRef};
use crate::words::ids::QueueName;

use super::{At, Held, Model, NEVER};

impl Model {
    /// A message that can be settled by itself.
    pub fn is_free_to_settle(&self, who: char, id: u64) -> bool {
        let held = self.find(id).and_then(|m| m.at.held());
        held.is_some_and(|held| held.by == who && !held.marked)
    }
    pub fn mark(&mut self, who: char, message: &MessageRef) {
        let Some(id) = self.meant(who, message) else {
            let MessageRef::IdOf(id, queue) = message else { return self.say(who, "NotFound") };
            self.say(who, "NotHeld");
            return self.late(who, id.0, Some(queue), false);
        };
        let (now, stamp) = (self.now, self.stamp());
        let held = self.message(id).at.held().unwrap();
        let mut marked = Held { until: NEVER, marked: true, through: None, ..held };
        if let Some(number) = held.through {
            if self.out(number)[0] == id {
                self.subscription(number).clock = now;
            }
            marked.order = stamp;
        }
        self.message(id).at = At::Reserved(marked);
        self.say(who, "Marked");
        if let Some(number) = held.through {
            self.update(number);
            self.serve_all_of(number);
        }
    }
    pub fn unmark(&mut self, who: char, id: u64) {
        if !self.is_held(who, id) || self.is_free_to_settle(who, id) {
            return self.say(who, "NotFound");
        }
        let now = self.now;
        let message = self.message(id);
        let held = message.at.held().unwrap();
        message.at = At::Reserved(Held { marked: false, until: now + message.ttr, ..held });
        self.say(who, "Marked");
    }
    pub fn is_held(&self, who: char, id: u64) -> bool {
        self.find(id).and_then(|m| m.at.held()).is_some_and(|held| held.by == who)
    }
    /// The message in somebody's hands that is meant.
    fn meant(&self, who: char, message: &MessageRef) -> Option<u64> {
        let mut meant = self.all_meant(who, message);
        meant.retain(|id| self.is_free_to_settle(who, *id));
        meant.first().copied()
    }
    /// The same where several may be meant, the first one first.
    pub fn all_meant(&self, who: char, message: &MessageRef) -> Vec<u64> {
        let is_of = |id: u64, queue: &QueueName| self.find(id).is_some_and(|m| m.queue == *queue);
        let mut meant = match message {
            MessageRef::Id(id) | MessageRef::IdOf(id, _) => vec![id.0],
            MessageRef::HeldOf(_) => self.held_as(|held| held.through.is_none() && !held.marked),
        };
        meant.retain(|id| self.is_held(who, *id));
        if let MessageRef::IdOf(_, queue) | MessageRef::HeldOf(queue) = message {
            meant.retain(|id| is_of(*id, queue));
        }
        meant
    }
    /// What its holder says of a message: it comes out of its hands, and then goes where it is
    /// said to.
    pub fn finish(&mut self, who: char, command: Command) {
        let (message, is_silent) = match &command {
            Command::Acknowledge(message) | Command::Requeue { message, .. } => (message, true),
            Command::Release { message, .. }
            | Command::Bury { message, .. }
            | Command::Fail { message, .. } => (message, false),
            other => panic!("{other:?} is not about a held message"),
        };
        let Some(id) = self.meant(who, message) else {
            if !is_silent && !matches!(message, MessageRef::IdOf(..)) {
                return self.say(who, "NotFound");
            }
            self.say(who, "NotHeld");
            let done = matches!(command, Command::Acknowledge(_));
            return match message {
                MessageRef::Id(id) => self.late(who, id.0, None, done),
                MessageRef::IdOf(id, queue) => self.late(who, id.0, Some(queue), done),
                MessageRef::HeldOf(_) => self.foreign += 1,
            };
        };
        let of = self.message(id).queue.clone();
        let in_work = self.is_in_work(id);
        self.take_back(id, false);
        self.settle_as(who, id, in_work, command);
        self.serve(&of);
    }
    pub fn settle_as(&mut self, who: char, id: u64, in_work: bool, command: Command) {
        let (now, seq) = (self.now, self.next_id);
        let message = self.message(id);
        match command {
            Command::Acknowledge(_) => {
                self.forget(id);
                self.say(who, "Acknowledged");
            }
            Command::Release { priority, delay_ms, .. } => {
                message.delay = delay_ms;
                message.counters.releases += 1;
                self.put_back(id, Cause::Released { priority, delay_ms }, in_work);
                self.say(who, "Released");
            }
            Command::Requeue { time_to_live_ms, .. } => {
                message.counters.releases += 1;
                message.seq = seq;
                message.expires = time_to_live_ms.map_or(NEVER, |ttl| now + ttl);
                self.next_id += 1;
                let cause = Cause::Released { priority: None, delay_ms: 0 };
                self.put_back(id, cause, in_work);
                self.say(who, "Released");
            }
            Command::Bury { priority, .. } => {
                message.pri = priority.unwrap_or(message.pri);
                self.put_back(id, Cause::Rejected, in_work);
                self.say(who, "Buried");
            }
            Command::Fail { reason, .. } => {
                message.failures.reason = reason;
                self.put_back(id, Cause::Failed, in_work);
                self.say(who, "Released");
            }
            _ => {}
        }
    }
    /// Frees a lost place, if there is one.
    pub fn late(&mut self, who: char, id: u64, named: Option<&QueueName>, done: bool) {
        let is_known = named.is_none_or(|name| self.queues.contains_key(name));
        let places = self.sessions[&who].lost.get(&id).filter(|_| is_known).cloned();
        let fits = |number: &u64| match &self.subscriptions[number].key {
            super::Keyed::Queue(queue) => named.is_none_or(|named| named == queue),
            _ => true,
        };
        let slot = |number: &u64| {
            let first = self.subscriptions[number].queues.first();
            first.map(|member| self.slots.get(&member.name).copied())
        };
        let fitting = places.iter().flatten().enumerate().filter(|(_, number)| fits(number));
        let Some((at, number)) = fitting.min_by_key(|(_, number)| slot(number)) else {
            return self.foreign += 1;
        };
        let number = *number;
        self.late += 1;
        let lost = &mut self.session(who).lost;
        lost.get_mut(&id).unwrap().swap_remove(at);
        lost.retain(|_, places| !places.is_empty());
        let now = self.now;
        if self.out(number).is_empty() {
            self.subscription(number).clock = now;
        }
        if done && self.find(id).is_some_and(|m| !matches!(m.at, At::Reserved(_))) {
            let queue = self.message(id).queue.clone();
            self.forget(id);
            self.drop_if_unneeded(&queue);
        }
        self.update(number);
        self.serve_all_of(number);
    }

    pub fn remove(&mut self, who: char, id: u64) {
        let held = self.is_free_to_settle(who, id);
        if !held && !self.find(id).is_some_and(|m| !matches!(m.at, At::Reserved(_))) {
            return self.say(who, "NotFound");
        }
        let of = self.message(id).queue.clone();
        if held {
            self.take_back(id, false);
        }
        self.forget(id);
        self.queues.get_mut(&of).unwrap().removes += 1;
        self.say(who, "Removed");
        self.serve(&of);
    }

    pub fn touch(&mut self, who: char, message: &MessageRef) {
        let Some(id) = self.meant(who, message) else { return self.say(who, "NotFound") };
        let now = self.now;
        let message = self.message(id);
        if let At::Reserved(held) = &mut message.at
            && held.until != NEVER
        {
            held.until = held.until.max(now + message.ttr);
        }
        self.say(who, "Touched");
    }
}
