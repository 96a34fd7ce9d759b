//! The model: what connections want, from now on or when they ask.

use crate::words::cause::Cause;
use crate::words::command::{
    Amount, Demand, Options, Settlement, Sources, SubscriptionKey, Tag, Terms,
};
use crate::words::ids::QueueName;
use crate::words::short_bytes::ShortBytes;

use super::{Model, NEVER};

/// A subscription's key, within its session; the order is that in which they end, from the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    Number(u64),
    Bytes(ShortBytes),
    Queue(QueueName),
    Once,
}

pub struct Subscription {
    pub who: char,
    pub key: Keyed,
    pub queues: Vec<Member>,
    /// Of one for one reserve: the queues as they were named.
    pub named: Vec<QueueName>,
    pub demand: Demand,
    pub settlement: Settlement,
    pub terms: Terms,
    pub tag: Tag,
    pub woken: bool,
    pub stamp: u64,
    pub clock: u64,
    /// The queue that is being taken out.
    pub leaving: Option<QueueName>,
}

pub struct Member {
    pub name: QueueName,
    /// Whether the subscription wanted its messages when that was looked at last.
    pub entered: bool,
}

/// A reserve that waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub of: u64,
    pub until: u64,
    pub amount: Amount,
}

impl Subscription {
    pub fn has(&self, queue: &QueueName) -> bool {
        self.queues.iter().any(|member| member.name == *queue)
    }
    pub fn names(&self) -> Vec<QueueName> {
        self.queues.iter().map(|member| member.name.clone()).collect()
    }
    pub fn is_window(&self) -> bool {
        matches!(self.demand, Demand::Window(_))
    }
    pub fn has_one_clock(&self) -> bool {
        self.terms == Terms::AckTimeout && self.settlement == Settlement::ByConsumer
    }
}

impl Keyed {
    /// `None` for the key that is a queue, where there is no such queue.
    pub fn new(key: &SubscriptionKey, queue: Option<&QueueName>) -> Option<Keyed> {
        Some(match key {
            SubscriptionKey::Number(number) => Keyed::Number(*number),
            SubscriptionKey::Bytes(bytes) => Keyed::Bytes(bytes.clone()),
            SubscriptionKey::Queue => Keyed::Queue(queue?.clone()),
        })
    }
}

impl Model {
    pub fn subscription(&mut self, number: u64) -> &mut Subscription {
        self.subscriptions.get_mut(&number).unwrap()
    }
    pub fn subscription_of(&self, who: char, key: &Keyed) -> Option<u64> {
        let mut all = self.subscriptions.iter();
        all.find(|(_, s)| s.who == who && s.key == *key).map(|(number, _)| *number)
    }
    /// The subscriptions of a session in the order of their keys.
    pub fn subscriptions_of(&self, who: char) -> Vec<u64> {
        let place = |key: &Keyed| match key {
            Keyed::Number(number) => (0, *number, None),
            Keyed::Bytes(bytes) => (1, 0, Some(bytes.clone())),
            Keyed::Queue(queue) => {
                (2, self.slots.get(queue).copied().map_or(NEVER, u64::from), None)
            }
            Keyed::Once => (3, 0, None),
        };
        let mine = self.subscriptions.iter().filter(|(_, s)| s.who == who);
        let mut mine: Vec<_> = mine.map(|(number, s)| (place(&s.key), *number)).collect();
        mine.sort();
        mine.into_iter().map(|(_, number)| number).collect()
    }
    pub fn open_subscription(&mut self, who: char, key: Keyed) -> u64 {
        if let Some(number) = self.subscription_of(who, &key) {
            return number;
        }
        let (stamp, clock) = (self.stamp(), self.now);
        let fresh = Subscription {
            who,
            key,
            queues: vec![],
            named: vec![],
            demand: Demand::OnRequest,
            settlement: Settlement::ByConsumer,
            terms: Terms::MessageTimeToRun,
            tag: Tag::None,
            woken: false,
            stamp,
            clock,
            leaving: None,
        };
        self.subscriptions.insert(stamp, fresh);
        stamp
    }
    pub fn lost_places(&self, number: u64) -> usize {
        let lost = &self.sessions[&self.subscriptions[&number].who].lost;
        lost.values().flatten().filter(|place| **place == number).count()
    }
    pub fn has_room(&self, number: u64) -> bool {
        match self.subscriptions[&number].demand {
            Demand::Window(max) => self.out(number).len() + self.lost_places(number) < max as usize,
            _ => false,
        }
    }
    /// Whether a message of its queues would go to it, or a sign that there is one.
    pub fn wants(&self, number: u64) -> bool {
        let subscription = &self.subscriptions[&number];
        let session = &self.sessions[&subscription.who];
        let takes = !session.slow && !session.closing;
        session.wait.is_some_and(|wait| wait.of == number)
            || takes && self.has_room(number)
            || takes && subscription.demand == Demand::WakeUp && !subscription.woken
    }
    /// Looks whether a subscription wants messages now. A standing one of several queues for whose
    /// messages there is room again is to be served.
    pub fn update(&mut self, number: u64) {
        let wants = self.wants(number);
        let subscription = self.subscription(number);
        let mut fresh = false;
        for member in &mut subscription.queues {
            let enters = wants && subscription.leaving.as_ref() != Some(&member.name);
            fresh |= enters && !member.entered;
            member.entered = enters;
        }
        if fresh && subscription.queues.len() > 1 && subscription.demand != Demand::OnRequest {
            self.entered.push(number);
        }
    }
    pub fn serve_entered(&mut self) {
        while let Some(number) = self.entered.pop() {
            if self.subscriptions.contains_key(&number) {
                self.serve_all_of(number);
            }
        }
    }
    pub fn serve_all_of(&mut self, number: u64) {
        for queue in self.subscriptions[&number].names() {
            self.serve(&queue);
        }
    }
    /// When a message that is handed out now ends by itself.
    pub fn ends(&self, number: u64, id: u64) -> u64 {
        let subscription = &self.subscriptions[&number];
        let ack_timeout = self.sessions[&subscription.who].ack_timeout;
        match subscription.terms {
            _ if subscription.settlement == Settlement::WhenSent => NEVER,
            Terms::MessageTimeToRun => self.now + self.find(id).unwrap().ttr,
            Terms::Given(given) => self.now + given,
            Terms::AckTimeout if ack_timeout > 0 => self.now + ack_timeout,
            Terms::AckTimeout | Terms::Unlimited => NEVER,
        }
    }
    /// Ends a subscription that was there for one reserve.
    pub fn end_if_once(&mut self, number: u64) {
        if self.subscriptions[&number].key == Keyed::Once {
            let subscription = self.subscriptions.remove(&number).unwrap();
            for queue in subscription.names() {
                self.drop_if_unneeded(&queue);
            }
        }
    }

    pub fn subscribe(&mut self, who: char, key: &SubscriptionKey, name: &QueueName, asks: Options) {
        if matches!(asks.demand, Demand::Window(_)) {
            self.session(who).worker = true;
        }
        let Some(queue) = self.queue(name) else { return self.say(who, "refused TooManyQueues") };
        let number = self.open_subscription(who, Keyed::new(key, Some(&queue)).unwrap());
        self.join(number, &queue, asks);
        if *key != SubscriptionKey::Queue {
            let count = self.subscriptions[&number].queues.len();
            self.say(who, &format!("watching {count}"));
        }
        if self.subscriptions[&number].demand != Demand::OnRequest {
            self.serve_all_of(number);
        }
    }
    /// Adds a queue, and changes what is asked for; who settles and when stays while some are out.
    pub fn join(&mut self, number: u64, queue: &QueueName, asks: Options) {
        let nothing_out = self.out(number).is_empty();
        let subscription = self.subscription(number);
        subscription.demand = asks.demand;
        if nothing_out {
            (subscription.settlement, subscription.terms) = (asks.settlement, asks.terms);
        }
        (subscription.tag, subscription.woken) = (asks.tag, false);
        if !subscription.has(queue) {
            subscription.queues.push(Member { name: queue.clone(), entered: false });
        }
        self.update(number);
    }
    pub fn unsubscribe(&mut self, who: char, key: &SubscriptionKey, queue: &QueueName, keep: bool) {
        let is_answered = *key != SubscriptionKey::Queue;
        if !is_answered {
            self.session(who).worker = true;
        }
        let known = self.queues.contains_key(queue).then_some(queue);
        let number = Keyed::new(key, known).and_then(|key| self.subscription_of(who, &key));
        let count = number.map_or(0, |number| self.subscriptions[&number].queues.len());
        let Some(number) = number.filter(|number| self.subscriptions[number].has(queue)) else {
            return if is_answered {
                self.say(who, &format!("watching {count}"))
            };
        };
        if keep && count == 1 {
            return self.say(who, "refused LastQueue");
        }
        self.subscription(number).leaving = Some(queue.clone());
        self.update(number);
        for id in self.out(number) {
            if self.message(id).queue == *queue {
                self.take_back(id, false);
                self.put_back(id, Cause::SubscriptionEnded, false);
            }
        }
        self.serve(queue);
        if is_answered {
            self.say(who, &format!("watching {}", count - 1));
        }
        self.leave(number, queue);
    }
    /// Takes a queue out of a set; the last one takes its place.
    pub fn leave(&mut self, number: u64, queue: &QueueName) {
        let subscription = self.subscription(number);
        subscription.leaving = None;
        let at = subscription.queues.iter().position(|member| member.name == *queue);
        subscription.queues.swap_remove(at.unwrap());
        if matches!(subscription.key, Keyed::Queue(_)) {
            self.end_subscription(number);
        }
        self.drop_if_unneeded(queue);
    }
    pub fn end_subscription(&mut self, number: u64) {
        let subscription = self.subscriptions.remove(&number).unwrap();
        let lost = &mut self.session(subscription.who).lost;
        lost.values_mut().for_each(|places| places.retain(|place| *place != number));
        lost.retain(|_, places| !places.is_empty());
    }

    pub fn reserve(
        &mut self,
        who: char,
        from: &Sources,
        refuse: bool,
        wait: (Option<u64>, Amount),
    ) {
        let (timeout, amount) = wait;
        self.session(who).worker = true;
        let waits = timeout != Some(0);
        let number = match from {
            Sources::Subscription(key) => match Keyed::new(key, None) {
                Some(key) => self.open_subscription(who, key),
                None => return self.say(who, "TimedOut"),
            },
            Sources::Queues { names, settlement, terms } => {
                let number = self.open_subscription(who, Keyed::Once);
                for name in names {
                    if !waits && !self.queues.contains_key(name) {
                        continue;
                    }
                    let Some(queue) = self.queue(name) else {
                        self.end_if_once(number);
                        return self.say(who, "refused TooManyQueues");
                    };
                    let (settlement, terms) = (*settlement, *terms);
                    let asks = Options { settlement, terms, ..Options::default() };
                    self.join(number, &queue, asks);
                    self.subscription(number).named.push(queue);
                }
                number
            }
        };
        let names = self.subscriptions[&number].names();
        let mine = self.held_as(|held| held.by == who);
        if refuse && mine.iter().any(|id| names.contains(&self.find(*id).unwrap().queue)) {
            self.say(who, "refused Holding");
            return self.end_if_once(number);
        }
        if self.subscriptions[&number].woken {
            self.subscription(number).woken = false;
            self.update(number);
        }
        if let Some(id) = self.first_ready(&names) {
            self.hand(who, Some(number), id, amount);
            if self.subscriptions[&number].demand != Demand::OnRequest {
                self.serve_all_of(number);
            }
        } else if self.is_soon(who) {
            self.say(who, "DeadlineSoon");
        } else if !waits || self.session(who).hung_up {
            self.say(who, "TimedOut");
        } else {
            let until = timeout.map_or(NEVER, |timeout| self.now + timeout);
            let stamp = self.stamp();
            self.subscription(number).stamp = stamp;
            self.session(who).wait = Some(Wait { of: number, until, amount });
            return self.update(number);
        }
        self.end_if_once(number);
    }
}
