//! The model: several steps as a whole.

use crate::words::command::{Command, Target, TogetherStep};
use crate::words::ids::QueueName;
use crate::words::refusal::Refusal;

use super::Model;

impl Model {
    pub fn together(&mut self, who: char, steps: Box<[TogetherStep]>) {
        let settled = match self.check(who, &steps) {
            Ok(settled) => settled,
            Err(refusal) => return self.say(who, &format!("refused {refusal:?}")),
        };
        let mut touched: Vec<QueueName> = Vec::new();
        for step in &steps {
            if let TogetherStep::Put(with) = step {
                let queue = self.meant_by(who, &with.put.queue).unwrap();
                self.queue(&queue).expect("there is room for it");
                self.session(who).producer = true;
                touched.push(queue);
            }
        }
        let (mut settled, mut answers) = (settled.into_iter(), Vec::new());
        for step in steps {
            if let TogetherStep::Put(with) = step {
                let queue = self.meant_by(who, &with.put.queue).unwrap();
                let id = self.put_or_join(with, &queue);
                answers.push(id.map_or("-".into(), |id| id.to_string()));
                continue;
            }
            let id = settled.next().unwrap();
            let command = match step {
                TogetherStep::Acknowledge(message) => Command::Acknowledge(message),
                TogetherStep::Release { message, priority, delay_ms } => {
                    Command::Release { message, priority, delay_ms }
                }
                TogetherStep::Bury { message, priority } => Command::Bury { message, priority },
                TogetherStep::Fail { message, reason } => Command::Fail { message, reason },
                TogetherStep::Put(_) => continue,
            };
            touched.push(self.message(id).queue.clone());
            let in_work = self.is_in_work(id);
            self.take_back(id, false);
            self.settle_as(who, id, in_work, command);
            // The answer, which came last, is for all of them.
            self.told.pop();
        }
        self.say(who, &format!("together {}", answers.join(" ")));
        let mut served: Vec<QueueName> = Vec::new();
        for queue in touched {
            if !served.contains(&queue) {
                self.serve(&queue);
                self.drop_if_unneeded(&queue);
                served.push(queue);
            }
        }
    }
    /// The messages that are settled, or why nothing happens.
    fn check(&self, who: char, steps: &[TogetherStep]) -> Result<Vec<u64>, Refusal> {
        let mut settled = Vec::new();
        let mut put: Vec<QueueName> = Vec::new();
        for step in steps {
            let message = match step {
                TogetherStep::Acknowledge(message)
                | TogetherStep::Release { message, .. }
                | TogetherStep::Bury { message, .. }
                | TogetherStep::Fail { message, .. } => message,
                TogetherStep::Put(with) => {
                    if let Some(refusal) = self.refusing {
                        return Err(refusal);
                    }
                    let queue = match &with.put.queue {
                        Target::Referred => self.sessions[&who].used.clone(),
                        Target::Named(name) => Some(name.clone()),
                    };
                    let Some(queue) = queue else { return Err(Refusal::TooManyQueues) };
                    put.push(queue.clone());
                    let mut made = put.clone();
                    made.retain(|name| !self.queues.contains_key(name));
                    made.sort();
                    made.dedup();
                    if made.contains(&queue) && self.queues.len() + made.len() > self.queues_max {
                        return Err(Refusal::TooManyQueues);
                    }
                    let messages = self.messages.iter().filter(|m| m.queue == queue).count();
                    let before = put.iter().filter(|name| **name == queue).count() - 1;
                    let limits = self.queues.get(&queue).map(|queue| queue.limits);
                    let full = (messages + before) as u64;
                    let priority = with.put.priority.unwrap_or(1_024);
                    if limits.is_some_and(|limits| limits.refuse(full, priority)) {
                        return Err(Refusal::QueueFull);
                    }
                    continue;
                }
            };
            let all = self.all_meant(who, message);
            let free = all.into_iter().find(|id| !settled.contains(id));
            settled.push(free.ok_or(Refusal::NotHeld)?);
        }
        Ok(settled)
    }
}
