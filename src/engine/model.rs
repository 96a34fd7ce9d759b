//! A plain model of what a correct queue server answers: lists, linear scans, nothing kept twice.
//!
//! [`super::random`] drives the engine and this side by side. It knows nothing of slices, budgets,
//! lazily armed clocks or linked lists; where two things happen in the same millisecond it takes
//! the engine's order.

use std::collections::{BTreeMap, VecDeque};

use crate::change::Counters;
use crate::change::MessageState;
use crate::command::{Command, Put, Target};
use crate::ids::QueueName;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Ready,
    Delayed(u64),
    /// By whom, until when (`None` is through a window), and its place among all hand-outs.
    Reserved(char, Option<u64>, u64),
    Buried(u64),
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
    pub resumable: VecDeque<char>,
    pub refusing: bool,
    pub timeouts: u64,
    pub expired: u64,
    pub late: u64,
    pub foreign: u64,
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
        let open = |q: &QueueName| queues.contains(q) && self.queues[q].paused_until <= self.now;
        let ready = self.messages.iter().filter(|m| m.at == At::Ready && m.expires > self.now);
        ready.filter(|m| open(&m.queue)).min_by_key(|m| (m.pri, m.seq)).map(|m| m.id)
    }
    fn hungry(&self, queue: &QueueName) -> Option<(u64, char)> {
        let mut hungry = Vec::new();
        for (who, s) in &self.sessions {
            if let Some(window) = s.windows.get(queue)
                && !(s.slow || s.closing)
                && self.out(*who, queue).len() + window.lost.len() < window.max
            {
                hungry.push((window.stamp, *who));
            }
            hungry.extend(s.wait.filter(|_| s.watched.contains(queue)).map(|w| (w.0, *who)));
        }
        hungry.into_iter().min()
    }
    fn serve(&mut self, queue: &QueueName) {
        while self.queues.contains_key(queue)
            && let Some(id) = self.first_ready(std::slice::from_ref(queue))
            && let Some((stamp, who)) = self.hungry(queue)
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
    fn put_back(&mut self, id: u64) {
        if self.message(id).expires <= self.now {
            self.expired += 1;
            return self.forget(id);
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
        self.queues.retain(|q, _| {
            self.messages.iter().any(|m| m.queue == *q)
                || self.sessions.values().any(|s| named(s, q))
        });
    }

    // ---- What happens by itself.

    /// The next thing that happens: when, of which kind, and to what.
    pub fn next_due(&self) -> Option<(u64, u8, u64)> {
        let slot = |q: &QueueName| u64::from(self.slots.get(q).copied().unwrap_or(u32::MAX));
        let mut due = Vec::new();
        for m in &self.messages {
            match m.at {
                At::Delayed(at) => due.push((at, 0, slot(&m.queue))),
                At::Reserved(who, Some(until), _) => {
                    let margin = if self.sessions[&who].wait.is_some() { 1_000 } else { 0 };
                    due.push((until - margin.min(until), 2, u64::from(who)));
                }
                _ => {}
            }
            if matches!(m.at, At::Ready | At::Delayed(_)) {
                due.push((m.expires, 4, m.id));
            }
        }
        let paused = self.queues.iter().filter(|(_, q)| q.paused_until > 0);
        due.extend(paused.map(|(name, q)| (q.paused_until, 1, slot(name))));
        for (who, s) in &self.sessions {
            due.extend(s.wait.map(|wait| (wait.1, 2, u64::from(*who))));
            for (name, window) in s.windows.iter().filter(|_| s.ack_timeout > 0) {
                let out = self.out(*who, name).len();
                if out > 0 || window.max > 0 && out + window.lost.len() >= window.max {
                    let at = window.clock + s.ack_timeout;
                    due.push((at, 3, u64::from(*who) << 32 | slot(name)));
                }
            }
        }
        due.into_iter().filter(|(at, ..)| *at != NEVER).min()
    }
    /// Does all that is due, then goes on with backlogs, until nothing is left.
    pub fn settle(&mut self) {
        while self.next_due().is_some_and(|(at, ..)| at <= self.now) || !self.resumable.is_empty() {
            while let Some((at, kind, key)) = self.next_due().filter(|(at, ..)| *at <= self.now) {
                self.happen(kind, key, at);
                self.tidy();
            }
            self.resume();
        }
    }
    fn happen(&mut self, kind: u8, key: u64, at: u64) {
        let slot = key & u64::from(u32::MAX);
        let named = self.slots.iter().find(|(_, s)| u64::from(**s) == slot).map(|(q, _)| q.clone());
        let who = |key: u64| u32::try_from(key).ok().and_then(char::from_u32).unwrap();
        match kind {
            0 => {
                let (now, queue) = (self.now, named.unwrap());
                let due = self.messages.iter().filter(|m| m.queue == queue);
                let due = due.filter(|m| matches!(m.at, At::Delayed(at) if at <= now));
                for id in due.map(|m| m.id).collect::<Vec<_>>() {
                    self.put_back(id);
                }
                self.tidy();
                self.serve(&queue);
            }
            1 => {
                let queue = named.unwrap();
                let here = self.queues.get_mut(&queue).unwrap();
                (here.paused_until, here.pause) = (0, 0);
                self.serve(&queue);
            }
            2 => self.session_clock(who(key)),
            3 => self.window_clock(who(key >> 32), &named.unwrap()),
            _ => {
                debug_assert_eq!(self.message(key).expires, at);
                self.expired += 1;
                self.forget(key);
            }
        }
    }
    fn ends(&self, who: char) -> Vec<(u64, u64)> {
        let held = self.messages.iter().filter_map(|m| match m.at {
            At::Reserved(by, Some(until), _) if by == who => Some((until, m.id)),
            _ => None,
        });
        held.collect()
    }
    fn session_clock(&mut self, who: char) {
        let soon = self.is_soon(who);
        let now = self.now;
        if self.session(who).wait.take_if(|wait| soon || wait.1 <= now).is_some() {
            self.say(who, if soon { "DeadlineSoon" } else { "TimedOut" });
            self.resumable.push_back(who);
        }
        let over: Vec<u64> =
            self.ends(who).iter().filter(|(until, _)| *until <= now).map(|(_, id)| *id).collect();
        let mut queues = Vec::new();
        for id in over {
            self.timeouts += 1;
            self.message(id).counters.timeouts += 1;
            queues.push(self.message(id).queue.clone());
            self.put_back(id);
        }
        self.serve_in_order(queues);
    }
    fn is_soon(&self, who: char) -> bool {
        self.ends(who).iter().any(|(until, _)| *until <= self.now + 1_000)
    }
    fn serve_in_order(&mut self, mut queues: Vec<QueueName>) {
        queues.sort_by_key(|queue| self.slots.get(queue).copied());
        for queue in queues {
            self.serve(&queue);
        }
    }
    fn window_clock(&mut self, who: char, queue: &QueueName) {
        let Some(id) = self.out(who, queue).first().copied() else {
            let now = self.now;
            self.session(who).windows.get_mut(queue).unwrap().clock = now;
            return self.say(who, "to be closed");
        };
        self.timeouts += 1;
        self.message(id).counters.timeouts += 1;
        self.take_back(id, true);
        self.put_back(id);
        self.serve(queue);
    }

    // ---- What connections do.

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
        let held = |m: &&Message| matches!(m.at, At::Reserved(by, ..) if by == who);
        let held = self.messages.iter().filter(held).map(|m| (m.id, m.queue.clone()));
        let (ids, queues): (Vec<u64>, Vec<QueueName>) = held.unzip();
        for id in ids {
            self.put_back(id);
        }
        self.tidy();
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
        let found = self.sessions[&who].windows.iter().find(lost).map(|(name, _)| name.clone());
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
    fn put(&mut self, who: char, put: Put) {
        self.session(who).producer = true;
        if self.refusing && self.session(who).serial {
            return self.say(who, "refused Draining");
        }
        let queue = match &put.queue {
            Target::Used => self.session(who).used.clone(),
            Target::Named(name) => self.queue(name),
        };
        let Some(queue) = queue else { return self.say(who, "refused TooManyQueues") };
        let (id, now) = (self.next_id, self.now);
        self.next_id += 1;
        self.messages.push(Message {
            id,
            seq: id,
            pri: put.priority.unwrap_or(1_024),
            queue: queue.clone(),
            at: if put.delay_ms > 0 { At::Delayed(now + put.delay_ms) } else { At::Ready },
            expires: put.time_to_live_ms.map_or(NEVER, |ttl| now + ttl),
            ttr: put.time_to_run_ms.unwrap_or(60_000),
            delay: put.delay_ms,
            counters: Counters::default(),
        });
        self.queues.get_mut(&queue).unwrap().puts += 1;
        self.say(who, &format!("put {id}"));
        self.serve(&queue);
    }
    fn consume(&mut self, who: char, name: &QueueName, max: u32) {
        self.session(who).worker = true;
        if max == 0 {
            if !self.session(who).windows.contains_key(name) {
                return;
            }
            self.session(who).windows.get_mut(name).unwrap().max = 0;
            for id in self.out(who, name) {
                self.take_back(id, false);
                self.put_back(id);
            }
            self.serve(name);
            self.session(who).windows.remove(name);
            return;
        }
        let Some(queue) = self.queue(name) else { return self.say(who, "refused TooManyQueues") };
        let (stamp, clock) = (self.stamp(), self.now);
        let windows = &mut self.session(who).windows;
        let fresh = Window { stamp, clock, ..Window::default() };
        windows.entry(queue.clone()).or_insert(fresh).max = max as usize;
        self.serve(&queue);
    }
    fn reserve(&mut self, who: char, timeout: Option<u64>, count: u32) {
        self.session(who).worker = true;
        let watched = self.session(who).watched.clone();
        if let Some(id) = self.first_ready(&watched) {
            self.hand(who, id, count);
        } else if self.is_soon(who) {
            self.say(who, "DeadlineSoon");
        } else if timeout == Some(0) || self.session(who).hung_up {
            self.say(who, "TimedOut");
        } else {
            let until = timeout.map_or(NEVER, |timeout| self.now + timeout);
            self.session(who).wait = Some((self.stamp(), until, count));
        }
    }
    fn kick(&mut self, id: u64) {
        let (now, message) = (self.now, self.message(id));
        if matches!(message.at, At::Buried(_)) {
            message.expires = message.expires.saturating_add(now);
        }
        message.counters.kicks += 1;
        message.at = At::Ready;
    }
    /// Buried messages of a queue in their order, and delayed ones.
    fn aside(&self, queue: &QueueName) -> (Vec<u64>, Vec<u64>) {
        let (mut buried, mut delayed) = (Vec::new(), Vec::new());
        for m in self.messages.iter().filter(|m| m.queue == *queue) {
            match m.at {
                At::Buried(order) => buried.push((order, 0, m.id)),
                At::Delayed(at) => delayed.push((at, m.seq, m.id)),
                _ => {}
            }
        }
        let ids = |mut list: Vec<(u64, u64, u64)>| {
            list.sort_unstable();
            list.into_iter().map(|(.., id)| id).collect()
        };
        (ids(buried), ids(delayed))
    }
    fn flush(&mut self, who: char, in_it: impl Fn(&QueueName) -> bool) {
        let doomed: Vec<u64> =
            self.messages.iter().filter(|m| in_it(&m.queue)).map(|m| m.id).collect();
        for id in &doomed {
            if matches!(self.message(*id).at, At::Reserved(..)) {
                self.take_back(*id, true);
            }
            self.forget(*id);
        }
        self.say(who, &format!("flushed {}", doomed.len()));
    }
    fn execute(&mut self, who: char, command: Command) {
        let now = self.now;
        match command {
            Command::Put(put) => self.put(who, put),
            Command::Start(name) => {
                if let Some(queue) = self.queue(&name) {
                    (self.session(who).used, self.session(who).watched) =
                        (Some(queue.clone()), vec![queue]);
                }
            }
            Command::Use(name) => match self.queue(&name) {
                None => self.say(who, "refused TooManyQueues"),
                Some(queue) => {
                    self.say(who, &format!("using {queue}"));
                    self.session(who).used = Some(queue);
                }
            },
            Command::Watch(name) => match self.queue(&name) {
                None => self.say(who, "refused TooManyQueues"),
                Some(queue) => {
                    let watched = &mut self.session(who).watched;
                    watched.retain(|name| *name != queue);
                    watched.push(queue);
                    let count = watched.len();
                    self.say(who, &format!("watching {count}"));
                }
            },
            Command::Ignore(name) => {
                let watched = &mut self.session(who).watched;
                if watched.len() == 1 && watched[0] == name {
                    return self.say(who, "NotIgnored");
                }
                watched.retain(|watched| *watched != name);
                let count = watched.len();
                self.say(who, &format!("watching {count}"));
            }
            Command::Consume { queue, window } => self.consume(who, &queue, window),
            Command::Reserve { timeout_ms, count } => self.reserve(who, timeout_ms, count),
            Command::ReserveMessage(id) => {
                self.session(who).worker = true;
                match self.find(id.0).map(|message| message.at) {
                    None | Some(At::Reserved(..)) => return self.say(who, "NotFound"),
                    Some(At::Buried(_)) => {
                        let message = self.message(id.0);
                        message.expires = message.expires.saturating_add(now);
                    }
                    Some(_) => {}
                }
                self.hand(who, id.0, 1);
            }
            Command::Acknowledge { id, queue } => {
                if !self.held(who, id.0, queue.as_ref()) {
                    self.say(who, "NotHeld");
                    return self.late(who, id.0, queue.as_ref(), true);
                }
                let of = self.message(id.0).queue.clone();
                self.take_back(id.0, false);
                self.forget(id.0);
                self.say(who, "Acknowledged");
                self.serve(&of);
            }
            Command::Remove(id) => {
                let free = |message: &Message| !matches!(message.at, At::Reserved(..));
                if !self.held(who, id.0, None) && !self.find(id.0).is_some_and(free) {
                    return self.say(who, "NotFound");
                }
                let of = self.message(id.0).queue.clone();
                if self.held(who, id.0, None) {
                    self.take_back(id.0, false);
                }
                self.forget(id.0);
                self.queues.get_mut(&of).unwrap().removes += 1;
                self.say(who, "Removed");
                self.serve(&of);
            }
            Command::Release { id, priority, delay_ms } => {
                if !self.held(who, id.0, None) {
                    return self.say(who, "NotFound");
                }
                self.take_back(id.0, false);
                let message = self.message(id.0);
                let of = message.queue.clone();
                message.pri = priority.unwrap_or(message.pri);
                (message.delay, message.counters.releases) =
                    (delay_ms, message.counters.releases + 1);
                self.put_back(id.0);
                if delay_ms > 0 && self.find(id.0).is_some() {
                    self.message(id.0).at = At::Delayed(now + delay_ms);
                }
                self.say(who, "Released");
                self.serve(&of);
            }
            Command::Requeue { id, queue, time_to_live_ms } => {
                if !self.held(who, id.0, queue.as_ref()) {
                    self.say(who, "NotHeld");
                    return self.late(who, id.0, queue.as_ref(), false);
                }
                self.take_back(id.0, false);
                let seq = self.next_id;
                self.next_id += 1;
                let message = self.message(id.0);
                let of = message.queue.clone();
                message.counters.releases += 1;
                (message.seq, message.expires) =
                    (seq, time_to_live_ms.map_or(NEVER, |ttl| now + ttl));
                self.say(who, "Released");
                self.serve(&of);
            }
            Command::Bury { id, queue, priority } => {
                if !self.held(who, id.0, queue.as_ref()) {
                    if queue.is_none() {
                        return self.say(who, "NotFound");
                    }
                    self.say(who, "NotHeld");
                    return self.late(who, id.0, queue.as_ref(), false);
                }
                self.take_back(id.0, false);
                let order = self.stamp();
                let message = self.message(id.0);
                let of = message.queue.clone();
                message.pri = priority.unwrap_or(message.pri);
                message.counters.buries += 1;
                message.at = At::Buried(order);
                if message.expires != NEVER {
                    message.expires = message.expires.saturating_sub(now);
                }
                self.say(who, "Buried");
                self.serve(&of);
            }
            Command::Touch(id) => {
                let held = self.held(who, id.0, None);
                if held
                    && let message = self.message(id.0)
                    && let At::Reserved(_, Some(until), _) = &mut message.at
                {
                    *until = now + message.ttr;
                }
                self.say(who, if held { "Touched" } else { "NotFound" });
            }
            Command::Kick(bound) => {
                let queue = self.session(who).used.clone();
                let mut ids = Vec::new();
                if let Some(queue) = &queue {
                    let (buried, delayed) = self.aside(queue);
                    ids = if buried.is_empty() { delayed } else { buried };
                    ids.truncate(usize::try_from(bound).unwrap());
                    ids.iter().for_each(|id| self.kick(*id));
                    self.serve(queue);
                }
                self.say(who, &format!("kicked {}", ids.len()));
            }
            Command::KickMessage(id) => match self.find(id.0).map(|m| (m.at, m.queue.clone())) {
                Some((At::Buried(_) | At::Delayed(_), queue)) => {
                    self.kick(id.0);
                    self.say(who, "KickedOne");
                    self.serve(&queue);
                }
                _ => self.say(who, "NotFound"),
            },
            Command::Pause { queue, for_ms } => match self.queues.get_mut(&queue) {
                None => self.say(who, "NotFound"),
                Some(here) => {
                    here.paused_until = if for_ms == 0 { 0 } else { now + for_ms };
                    (here.pause, here.pauses) = (for_ms, here.pauses + 1);
                    self.say(who, "Paused");
                    self.serve(&queue);
                }
            },
            Command::Flush(queue) => self.flush(who, |name| *name == queue),
            Command::FlushAll => self.flush(who, |_| true),
            look => self.look(who, look),
        }
    }
    fn look(&mut self, who: char, command: Command) {
        let used = self.session(who).used.clone();
        let found = match command {
            Command::Peek(id) => self.find(id.0).map(|message| message.id),
            Command::PeekNext(state) => used.clone().and_then(|queue| match state {
                MessageState::Buried => self.aside(&queue).0.first().copied(),
                MessageState::Delayed => self.aside(&queue).1.first().copied(),
                _ => {
                    let here = self.messages.iter().filter(|m| m.queue == queue);
                    here.filter(|m| m.at == At::Ready).min_by_key(|m| (m.pri, m.seq)).map(|m| m.id)
                }
            }),
            Command::ShowUsed => {
                let what = used.map_or("NotFound".into(), |queue| format!("using {queue}"));
                return self.say(who, &what);
            }
            Command::ListQueues | Command::ListWatched => {
                let all = self.queues.keys().cloned().collect();
                let watched = self.session(who).watched.clone();
                let names = if command == Command::ListQueues { all } else { watched };
                let names: Vec<&str> = names.iter().map(QueueName::as_str).collect();
                return self.say(who, &format!("queues {}", names.join(" ")));
            }
            Command::Echo => return self.say(who, "Echo"),
            Command::Quit => return,
            unknown => panic!("the model does not know {unknown:?}"),
        };
        match found {
            Some(id) => self.show(who, id, "found"),
            None => self.say(who, "NotFound"),
        }
    }
}
