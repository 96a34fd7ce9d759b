//! The model: peers that do not keep up, hang up and leave.

use crate::words::cause::{Cause, ReturnCounts};
use crate::words::command::Demand;
use crate::words::ids::QueueName;

use super::{At, Model, Queue};

impl Model {
    pub fn hang_up(&mut self, who: char) {
        self.end_wait(who);
        self.resume();
    }
    fn end_wait(&mut self, who: char) {
        self.session(who).hung_up = true;
        if let Some(wait) = self.session(who).wait.take() {
            self.update(wait.of);
            self.resumable.push_back(who);
            self.say(who, "TimedOut");
            self.end_if_once(wait.of);
        }
    }
    /// Said again, nothing can be sent any more.
    pub fn close(&mut self, who: char) {
        self.end_wait(who);
        self.resumable.push_back(who);
        if std::mem::replace(&mut self.session(who).closing, true) {
            self.session(who).gone = true;
            return self.stall(who, false);
        }
        for number in self.subscriptions_of(who) {
            self.update(number);
        }
        self.resume();
    }
    pub fn stall(&mut self, who: char, slow: bool) {
        self.session(who).slow = slow;
        let mut standing = self.subscriptions_of(who);
        standing.retain(|number| self.subscriptions[number].demand != Demand::OnRequest);
        for number in &standing {
            self.update(*number);
        }
        for number in standing {
            self.serve_all_of(number);
        }
        self.resume();
    }
    /// The daemon is stopped in order and started again. What was in somebody's hands is ready
    /// again; dead letters, attempts and what an operator has set are as they were. What is volatile
    /// is gone.
    pub fn restart(&mut self) {
        let now = self.now;
        self.messages.retain(|message| !message.is_volatile);
        self.keys.retain(|_, taken| !taken.is_volatile);
        self.sessions.clear();
        self.subscriptions.clear();
        self.resumable.clear();
        self.entered.clear();
        for message in &mut self.messages {
            if matches!(message.at, At::Reserved(_)) {
                message.at = At::Ready;
            }
        }
        (self.timeouts, self.expired, self.late, self.foreign) = (0, 0, 0, 0);
        (self.set_aside, self.dead_lettered, self.joined) = (0, 0, 0);
        self.returns = ReturnCounts::default();
        let messages = self.messages.iter();
        let over = messages.filter(|m| !matches!(m.at, At::Buried(_)) && m.expires <= now);
        for id in over.map(|message| message.id).collect::<Vec<_>>() {
            self.expired += 1;
            self.forget(id);
        }
        for queue in self.queues.values_mut() {
            *queue = Queue { paused: queue.paused, limits: queue.limits, ..Queue::default() };
        }
        self.tidy();
    }
    pub(super) fn end(&mut self, who: char) {
        let mut subscriptions = self.subscriptions_of(who);
        // Behind the oldest message of a window nothing was begun.
        let oldest: Vec<u64> =
            subscriptions.iter().filter_map(|number| self.out(*number).first().copied()).collect();
        // What was reserved goes back first, one by one, the first that was reserved first.
        for id in self.held_as(|held| held.by == who && held.through.is_none()) {
            let queue = self.message(id).queue.clone();
            self.put_back(id, Cause::ConnectionLost, true);
            self.serve(&queue);
            self.drop_if_unneeded(&queue);
        }
        let mut queues: Vec<QueueName> = Vec::new();
        while let Some(number) = subscriptions.pop() {
            for id in self.out(number) {
                queues.push(self.message(id).queue.clone());
                self.take_back(id, false);
                self.put_back(id, Cause::ConnectionLost, oldest.contains(&id));
            }
            while let Some(member) = self.subscriptions[&number].queues.first() {
                let queue = member.name.clone();
                self.leave(number, &queue);
                if !self.subscriptions.contains_key(&number) {
                    break;
                }
            }
            if self.subscriptions.contains_key(&number) {
                self.end_subscription(number);
            }
        }
        self.serve_in_order(queues);
        self.sessions.remove(&who);
        self.say(who, "finished");
    }
}
