//! A plain model of what a correct queue server answers: lists, linear scans, nothing kept twice.
//!
//! [`super::random`] drives the engine and this side by side. It knows nothing of slices, budgets,
//! lazily armed clocks or linked lists; where two things happen in the same millisecond it takes
//! the engine's order.

mod asked;
mod due;
mod ending;
mod keys;
mod returns;
mod settled;
mod together;
mod wanted;

use std::collections::{BTreeMap, VecDeque};

use crate::words::cause::ReturnCounts;
use crate::words::change::Counters;
use crate::words::command::{Amount, Command, Demand, Settlement, Tag};
use crate::words::ids::QueueName;
use crate::words::key::Key;
use crate::words::policy::Policies;
use crate::words::refusal::Refusal;
use crate::words::settings::QueueLimits;
use crate::words::statistics::Failures;

pub use keys::{TakenKey, Until};
pub use wanted::{Keyed, Subscription, Wait};

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
    pub is_volatile: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Ready,
    Delayed(u64),
    Reserved(Held),
    Buried(u64),
}

/// In whose hands a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub by: char,
    /// Through the window of which subscription; `None` is on request.
    pub through: Option<u64>,
    /// When that ends by itself.
    pub until: u64,
    /// Its place among all hand-outs.
    pub order: u64,
    /// Whether it is to be settled together with others.
    pub marked: bool,
}

impl At {
    pub fn can_be_kicked(self) -> bool {
        matches!(self, At::Buried(_) | At::Delayed(_))
    }
    pub fn held(self) -> Option<Held> {
        if let At::Reserved(held) = self { Some(held) } else { None }
    }
}

#[derive(Default)]
pub struct Session {
    pub serial: bool,
    pub ack_timeout: u64,
    pub used: Option<QueueName>,
    pub wait: Option<Wait>,
    /// Messages that were taken back, and the subscriptions whose places they still take.
    pub lost: BTreeMap<u64, Vec<u64>>,
    /// What is done when it has been sent.
    pub sending: VecDeque<u64>,
    pub backlog: VecDeque<Command>,
    pub hung_up: bool,
    pub slow: bool,
    pub closing: bool,
    /// Nothing can be sent any more.
    pub gone: bool,
    pub producer: bool,
    pub worker: bool,
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
    pub subscriptions: BTreeMap<u64, Subscription>,
    pub queues: BTreeMap<QueueName, Queue>,
    pub queues_max: usize,
    /// The engine's order of queues, for what happens in the same millisecond.
    pub slots: BTreeMap<QueueName, u32>,
    /// The engine's order of subscriptions.
    pub windows: BTreeMap<u64, u32>,
    pub resumable: VecDeque<char>,
    /// Standing subscriptions of several queues that have room again.
    pub entered: Vec<u64>,
    pub refusing: Option<Refusal>,
    pub keys: BTreeMap<(Key, QueueName), TakenKey>,
    pub joined: u64,
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
        self.leave_key(id);
        self.messages.retain(|message| message.id != id);
    }
    /// What is in somebody's hands, in the order in which it was handed out.
    pub fn held_as(&self, is: impl Fn(Held) -> bool) -> Vec<u64> {
        let held = self.messages.iter().filter_map(|m| Some((m.at.held()?, m.id)));
        let mut held: Vec<(u64, u64)> =
            held.filter(|(held, _)| is(*held)).map(|(held, id)| (held.order, id)).collect();
        held.sort_unstable();
        held.into_iter().map(|(_, id)| id).collect()
    }
    /// What is out through a window, the oldest first.
    pub fn out(&self, through: u64) -> Vec<u64> {
        self.held_as(|held| held.through == Some(through))
    }
    fn first_ready(&self, queues: &[QueueName]) -> Option<u64> {
        let open = |q: &QueueName| {
            let paused = self.queues.get(q).is_some_and(|q| q.paused || q.paused_until > self.now);
            queues.contains(q) && !paused
        };
        let ready = self.messages.iter().filter(|m| m.at == At::Ready && m.expires > self.now);
        ready.filter(|m| open(&m.queue)).min_by_key(|m| (m.pri, m.seq)).map(|m| m.id)
    }
    /// The subscription that has waited longest since its last message, of those that want one.
    fn rotation(&self, queue: &QueueName) -> Option<u64> {
        let all = self.subscriptions.iter();
        let here = all.filter(|(_, s)| s.has(queue) && s.leaving.as_ref() != Some(queue));
        let wanting = here.filter(|(number, _)| self.wants(**number));
        wanting.min_by_key(|(_, s)| s.stamp).map(|(number, _)| *number)
    }
    fn serve(&mut self, queue: &QueueName) {
        while self.queues.contains_key(queue)
            && let Some(id) = self.first_ready(std::slice::from_ref(queue))
            && let Some(number) = self.rotation(queue)
        {
            let who = self.subscriptions[&number].who;
            if let Some(wait) = self.session(who).wait.take_if(|wait| wait.of == number) {
                self.resumable.push_back(who);
                self.update(number);
                self.hand(who, Some(number), id, wait.amount);
                self.end_if_once(number);
            } else if self.subscriptions[&number].demand == Demand::WakeUp {
                self.subscription(number).woken = true;
                self.update(number);
                let told = format!("woken{}", self.tag(number));
                self.say(who, &told);
            } else {
                self.hand_through(number, id);
            }
        }
    }
    fn hand_through(&mut self, number: u64, id: u64) {
        let (now, order, queue) = (self.now, self.stamp(), self.message(id).queue.clone());
        let is_first = self.out(number).is_empty();
        let until = self.ends(number, id);
        let subscription = self.subscription(number);
        subscription.stamp = order;
        subscription.queues.iter_mut().filter(|m| m.name == queue).for_each(|m| m.entered = false);
        let has_one_clock = subscription.has_one_clock();
        if has_one_clock && is_first {
            subscription.clock = now;
        }
        let (by, when_sent) = (subscription.who, subscription.settlement == Settlement::WhenSent);
        let until = if has_one_clock { NEVER } else { until };
        self.deliver(
            id,
            "dispatched",
            Held { by, through: Some(number), until, order, marked: false },
        );
        self.update(number);
        if when_sent {
            self.session(by).sending.push_back(id);
        }
    }
    fn hand(&mut self, by: char, from: Option<u64>, id: u64, amount: Amount) {
        let (at, mut handed) = (self.told.len(), 0);
        match (amount, from) {
            (Amount::Total(1), _) | (_, None) => return self.hand_one(by, from, id),
            (Amount::Total(count), Some(from)) => {
                self.hand_one(by, Some(from), id);
                handed = 1;
                let names = self.subscriptions[&from].names();
                while handed < count && self.hand_first(by, from, &names) {
                    handed += 1;
                }
            }
            (Amount::Each(count), Some(from)) => {
                let here = &self.subscriptions[&from];
                let names = if here.key == Keyed::Once { here.named.clone() } else { here.names() };
                for name in names {
                    for _ in 0..count {
                        handed += u32::from(self.hand_first(by, from, std::slice::from_ref(&name)));
                    }
                }
            }
        }
        self.told.insert(at, format!("{by} batch {handed}"));
    }
    fn hand_first(&mut self, by: char, from: u64, queues: &[QueueName]) -> bool {
        let first = self.first_ready(queues);
        first.into_iter().for_each(|id| self.hand_one(by, Some(from), id));
        first.is_some()
    }
    fn hand_one(&mut self, by: char, from: Option<u64>, id: u64) {
        let run = self.now + self.message(id).ttr;
        let until = from.map_or(run, |from| self.ends(from, id));
        let order = self.stamp();
        self.deliver(id, "reserved", Held { by, through: None, until, order, marked: false });
        if from.is_some_and(|from| self.subscriptions[&from].settlement == Settlement::WhenSent) {
            self.session(by).sending.push_back(id);
        }
    }
    fn deliver(&mut self, id: u64, how: &str, held: Held) {
        let message = self.message(id);
        message.at = At::Reserved(held);
        message.counters.reserves += 1;
        self.keys.retain(|_, taken| taken.message != Some(id) || taken.until != Until::Taken);
        self.show(held.by, id, how);
        if let (Some(number), Some(line)) = (held.through, self.told.last().cloned()) {
            let tag = self.tag(number);
            self.told.pop();
            self.told.push(line + &tag);
        }
    }
    fn tag(&self, number: u64) -> String {
        match &self.subscriptions[&number].tag {
            Tag::Code(code) => format!(" for {code}"),
            _ => String::new(),
        }
    }
    fn show(&mut self, who: char, id: u64, how: &str) {
        let (now, message) = (self.now, self.message(id));
        let left = match message.at {
            _ if message.expires == NEVER => String::new(),
            At::Buried(_) => format!(" ttl {}", message.expires),
            _ => format!(" ttl {}", message.expires.saturating_sub(now)),
        };
        let volatile = if message.is_volatile { " volatile" } else { "" };
        self.say(who, &format!("{how} {id}{left}{volatile}"));
    }
    /// Whether its holder took it on request, or it is the oldest of its window.
    fn is_in_work(&self, id: u64) -> bool {
        match self.find(id).unwrap().at.held() {
            Some(Held { through: Some(number), .. }) => self.out(number)[0] == id,
            Some(_) => true,
            None => false,
        }
    }
    /// Out of its holder's hands; `lost` takes its place in the window.
    fn take_back(&mut self, id: u64, lost: bool) {
        let now = self.now;
        let held = self.message(id).at.held().unwrap();
        if let Some(number) = held.through {
            let is_first = self.out(number)[0] == id;
            self.message(id).at = At::Ready;
            if is_first {
                self.subscription(number).clock = now;
            }
            if lost {
                self.session(held.by).lost.entry(id).or_default().push(number);
            }
            self.update(number);
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
    fn is_needed(&self, name: &QueueName) -> bool {
        let here = &self.queues[name];
        here.is_first
            || here.paused
            || here.limits != QueueLimits::NONE
            || self.messages.iter().any(|m| m.queue == *name)
            || self.messages.iter().any(|m| m.home.as_ref().is_some_and(|h| h.queue == *name))
            || self.sessions.values().any(|s| s.used.as_ref() == Some(name))
            || self.subscriptions.values().any(|s| s.has(name))
            || self.keys.keys().any(|(_, queue)| queue == name)
    }
    /// Lets a queue go if nobody needs it.
    fn drop_if_unneeded(&mut self, name: &QueueName) {
        if self.queues.contains_key(name) && !self.is_needed(name) {
            self.queues.remove(name);
        }
    }
    /// Lets all unneeded queues go.
    fn tidy(&mut self) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.drop_if_unneeded(&name);
        }
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
        self.serve_entered();
        self.tidy();
        while let Some(who) = self.resumable.pop_front() {
            while self.sessions.get(&who).is_some_and(|session| session.wait.is_none()) {
                if let Some(command) = self.session(who).backlog.pop_front() {
                    self.execute(who, command);
                    self.serve_entered();
                } else if self.session(who).may_end() {
                    self.end(who);
                } else {
                    break;
                }
                self.tidy();
            }
            self.serve_entered();
        }
        self.tidy();
    }
    /// So many messages have been sent that are done then.
    pub fn sent(&mut self, who: char, count: usize) {
        for _ in 0..count {
            let Some(id) = self.session(who).sending.pop_front() else { break };
            if self.is_free_to_settle(who, id) {
                let queue = self.message(id).queue.clone();
                self.take_back(id, false);
                self.forget(id);
                self.serve(&queue);
                self.drop_if_unneeded(&queue);
            } else {
                self.late(who, id, None, true);
            }
        }
        if self.session(who).has_sent_all() {
            self.resumable.push_back(who);
        }
        self.resume();
    }
}

impl Session {
    fn has_sent_all(&self) -> bool {
        self.gone || self.sending.is_empty()
    }
    fn may_end(&self) -> bool {
        self.closing && self.has_sent_all()
    }
}
