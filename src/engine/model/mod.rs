//! A plain model of what a correct queue server answers: lists, linear scans, nothing kept twice.
//!
//! [`super::random`] drives the engine and this side by side. It knows nothing of slices, budgets,
//! lazily armed clocks or linked lists; where two things happen in the same millisecond it takes
//! the engine's order.

mod asked;
mod due;
mod returns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use crate::words::cause::{Cause, ReturnCounts};
use crate::words::change::Counters;
use crate::words::command::Command;
use crate::words::ids::QueueName;
use crate::words::policy::Policies;
use crate::words::settings::QueueLimits;
use crate::words::statistics::Failures;

pub const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub struct Message {
    pub id: u64,
    pub seq: u64,
    pub pri: u32,
    pub queue: QueueName,
    pub at: At,
    /// Of a buried message, what is left.
    pub expires: u64,
    pub ttr: u64,
    pub delay: u64,
    pub counters: Counters,
    pub failures: Failures,
    pub home: Option<returns::Home>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Ready,
    Delayed(u64),
    /// By whom, until when (`None` is through a window), and its place among all hand-outs.
    Reserved(char, Option<u64>, u64),
    Buried(u64),
}

impl At {
    pub fn can_be_kicked(self) -> bool {
        matches!(self, At::Buried(_) | At::Delayed(_))
    }
}

#[derive(Default)]
pub struct Session {
    pub serial: bool,
    pub ack_timeout: u64,
    pub used: Option<QueueName>,
    pub watched: Vec<QueueName>,
    pub windows: BTreeMap<QueueName, Window>,
    /// Stamp, end, count.
    pub wait: Option<(u64, u64, u32)>,
    pub backlog: VecDeque<Command>,
    pub hung_up: bool,
    pub slow: bool,
    pub closing: bool,
    pub producer: bool,
    pub worker: bool,
}

#[derive(Default)]
pub struct Window {
    pub max: usize,
    pub lost: Vec<u64>,
    pub stamp: u64,
    pub clock: u64,
}

#[derive(Default)]
pub struct Queue {
    pub paused_until: u64,
    pub pause: u64,
    pub puts: u64,
    pub removes: u64,
    pub pauses: u64,
    pub is_first: bool,
    pub flushed_through: u64,
    pub paused: bool,
    pub limits: QueueLimits,
}

#[derive(Default)]
pub struct Model {
    pub now: u64,
    pub next_id: u64,
    pub stamps: u64,
    pub messages: Vec<Message>,
    pub sessions: BTreeMap<char, Session>,
    pub queues: BTreeMap<QueueName, Queue>,
    pub queues_max: usize,
    /// The engine's order of queues, for what happens in the same millisecond.
    pub slots: BTreeMap<QueueName, u32>,
    /// The engine's order of windows.
    pub windows: BTreeMap<(char, QueueName), u32>,
    pub resumable: VecDeque<char>,
    pub refusing: bool,
    pub timeouts: u64,
    pub expired: u64,
    pub late: u64,
    pub foreign: u64,
    pub policies: Policies,
    pub returns: ReturnCounts,
    pub set_aside: u64,
    pub dead_lettered: u64,
    pub told: Vec<String>,
}

impl Model {
    fn say(&mut self, who: char, what: &str) {
        self.told.push(format!("{who} {what}"));
    }
    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }
    pub fn find(&self, id: u64) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }
    fn message(&mut self, id: u64) -> &mut Message {
        self.messages.iter_mut().find(|message| message.id == id).unwrap()
    }
    fn session(&mut self, who: char) -> &mut Session {
        self.sessions.get_mut(&who).unwrap()
    }
    fn forget(&mut self, id: u64) {
        self.messages.retain(|message| message.id != id);
    }
    /// What is out through a window, the oldest first.
    pub fn out(&self, who: char, queue: &QueueName) -> Vec<u64> {
        let mut out: Vec<(u64, u64)> = (self.messages.iter().filter(|m| m.queue == *queue))
            .filter_map(|m| match m.at {
                At::Reserved(by, None, order) if by == who => Some((order, m.id)),
                _ => None,
            })
            .collect();
        out.sort_unstable();
        out.into_iter().map(|(_, id)| id).collect()
    }
    fn first_ready(&self, queues: &[QueueName]) -> Option<u64> {
        let open = |q: &QueueName| {
            let paused = self.queues.get(q).is_some_and(|q| q.paused || q.paused_until > self.now);
            queues.contains(q) && !paused
        };
        let ready = self.messages.iter().filter(|m| m.at == At::Ready && m.expires > self.now);
        ready.filter(|m| open(&m.queue)).min_by_key(|m| (m.pri, m.seq)).map(|m| m.id)
    }
    fn rotation(&self, queue: &QueueName) -> Option<(u64, char)> {
        let mut rotation = Vec::new();
        for (who, s) in &self.sessions {
            if let Some(window) = s.windows.get(queue)
                && !(s.slow || s.closing)
                && self.out(*who, queue).len() + window.lost.len() < window.max
            {
                rotation.push((window.stamp, *who));
            }
            rotation.extend(s.wait.filter(|_| s.watched.contains(queue)).map(|w| (w.0, *who)));
        }
        rotation.into_iter().min()
    }
    fn serve(&mut self, queue: &QueueName) {
        while self.queues.contains_key(queue)
            && let Some(id) = self.first_ready(std::slice::from_ref(queue))
            && let Some((stamp, who)) = self.rotation(queue)
        {
            if let Some((_, _, count)) = self.session(who).wait.take_if(|wait| wait.0 == stamp) {
                self.resumable.push_back(who);
                self.hand(who, id, count);
            } else {
                let (now, order, first) = (self.now, self.stamp(), self.out(who, queue).is_empty());
                let window = self.session(who).windows.get_mut(queue).unwrap();
                window.stamp = order;
                window.clock = if first { now } else { window.clock };
                self.deliver(who, id, "dispatched", At::Reserved(who, None, order));
            }
        }
    }
    fn hand(&mut self, who: char, id: u64, count: u32) {
        let at = self.told.len();
        let mut next = Some(id);
        let mut handed = 0;
        while let Some(id) = next {
            let (until, order) = (self.now + self.message(id).ttr, self.stamp());
            self.deliver(who, id, "reserved", At::Reserved(who, Some(until), order));
            handed += 1;
            let watched = self.session(who).watched.clone();
            next = if handed < count { self.first_ready(&watched) } else { None };
        }
        if count != 1 {
            self.told.insert(at, format!("{who} batch {handed}"));
        }
    }
    fn deliver(&mut self, who: char, id: u64, how: &str, at: At) {
        let message = self.message(id);
        (message.at, message.counters.reserves) = (at, message.counters.reserves + 1);
        self.show(who, id, how);
    }
    fn show(&mut self, who: char, id: u64, how: &str) {
        let (now, message) = (self.now, self.message(id));
        let left = match message.at {
            _ if message.expires == NEVER => String::new(),
            At::Buried(_) => format!(" ttl {}", message.expires),
            _ => format!(" ttl {}", message.expires.saturating_sub(now)),
        };
        self.say(who, &format!("{how} {id}{left}"));
    }
    /// Whether its holder took it on request, or it is the oldest of its window.
    fn is_in_work(&self, id: u64) -> bool {
        let message = self.find(id).unwrap();
        match message.at {
            At::Reserved(who, None, _) => self.out(who, &message.queue)[0] == id,
            At::Reserved(..) => true,
            _ => false,
        }
    }
    /// Out of its holder's hands; `lost` takes its place in the window.
    fn take_back(&mut self, id: u64, lost: bool) {
        let (now, queue) = (self.now, self.message(id).queue.clone());
        let At::Reserved(who, until, _) = self.message(id).at else { panic!("not out") };
        if until.is_none() {
            let first = self.out(who, &queue)[0] == id;
            let window = self.session(who).windows.get_mut(&queue).unwrap();
            window.clock = if first { now } else { window.clock };
            window.lost.extend(lost.then_some(id));
        }
        self.message(id).at = At::Ready;
    }
    fn queue(&mut self, name: &QueueName) -> Option<QueueName> {
        if !self.queues.contains_key(name) && self.queues.len() >= self.queues_max {
            return None;
        }
        self.queues.entry(name.clone()).or_default();
        Some(name.clone())
    }
    /// Lets unneeded queues go.
    fn tidy(&mut self) {
        let named = |s: &Session, q: &QueueName| {
            s.used.as_ref() == Some(q) || s.watched.contains(q) || s.windows.contains_key(q)
        };
        self.queues.retain(|q, here| {
            here.is_first
                || here.paused
                || here.limits != QueueLimits::NONE
                || self.messages.iter().any(|m| m.queue == *q)
                || self.messages.iter().any(|m| m.home.as_ref().is_some_and(|h| h.queue == *q))
                || self.sessions.values().any(|s| named(s, q))
        });
    }

    pub fn request(&mut self, who: char, command: Command) {
        let session = self.session(who);
        if session.wait.is_some() {
            session.backlog.push_back(command);
        } else {
            self.execute(who, command);
        }
        self.resume();
    }
    fn resume(&mut self) {
        self.tidy();
        while let Some(who) = self.resumable.pop_front() {
            while self.sessions.get(&who).is_some_and(|session| session.wait.is_none()) {
                if let Some(command) = self.session(who).backlog.pop_front() {
                    self.execute(who, command);
                } else if self.session(who).closing {
                    self.end(who);
                } else {
                    break;
                }
                self.tidy();
            }
        }
    }
    pub fn hang_up(&mut self, who: char) {
        self.session(who).hung_up = true;
        if self.session(who).wait.take().is_some() {
            self.say(who, "TimedOut");
            self.resumable.push_back(who);
        }
        self.resume();
    }
    pub fn close(&mut self, who: char) {
        self.session(who).closing = true;
        self.resumable.push_back(who);
        self.hang_up(who);
    }
    fn end(&mut self, who: char) {
        // What was reserved first, then window by window, the last slot first.
        let mut held: Vec<(Option<Reverse<u32>>, u64, u64, QueueName)> = (self.messages.iter())
            .filter_map(|m| match m.at {
                At::Reserved(by, until, order) if by == who => {
                    let window = until.is_none().then(|| Reverse(self.slots[&m.queue]));
                    Some((window, order, m.id, m.queue.clone()))
                }
                _ => None,
            })
            .collect();
        held.sort_unstable();
        let mut queues: Vec<QueueName> = Vec::new();
        for (window, _, id, queue) in held {
            // Behind the oldest message of a window nothing was begun.
            let in_work = window.is_none() || queues.last() != Some(&queue);
            self.put_back(id, Cause::ConnectionLost, in_work);
            self.tidy();
            if window.is_some() {
                queues.push(queue);
            } else {
                // One by one, the first that was reserved first.
                self.serve(&queue);
            }
        }
        self.serve_in_order(queues);
        self.sessions.remove(&who);
        self.say(who, "finished");
    }
    pub fn stall(&mut self, who: char, slow: bool) {
        self.session(who).slow = slow;
        for queue in self.session(who).windows.keys().cloned().collect::<Vec<_>>() {
            self.serve(&queue);
        }
        self.resume();
    }
    fn held(&self, who: char, id: u64, queue: Option<&QueueName>) -> bool {
        self.find(id).is_some_and(|message| {
            matches!(message.at, At::Reserved(by, ..) if by == who)
                && queue.is_none_or(|queue| message.queue == *queue)
        })
    }
    /// Frees a lost place, if there is one.
    fn late(&mut self, who: char, id: u64, queue: Option<&QueueName>, done: bool) {
        let lost = |(name, window): &(&QueueName, &Window)| {
            queue.is_none_or(|queue| *queue == **name) && window.lost.contains(&id)
        };
        let found = self.sessions[&who].windows.iter().filter(lost).map(|(name, _)| name.clone());
        let found = found.min_by_key(|name| self.slots[name]);
        let Some(queue) = found else { return self.foreign += 1 };
        self.late += 1;
        let (now, empty) = (self.now, self.out(who, &queue).is_empty());
        let window = self.session(who).windows.get_mut(&queue).unwrap();
        window.lost.remove(window.lost.iter().position(|lost| *lost == id).unwrap());
        window.clock = if empty { now } else { window.clock };
        if done && self.find(id).is_some_and(|m| !matches!(m.at, At::Reserved(..))) {
            self.forget(id);
        }
        self.serve(&queue);
    }
}
