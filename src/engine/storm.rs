//! The engine in bad weather: a turn may do next to nothing, ids come late and few at a time,
//! peers take next to nothing, the clock leaps. What comes out is not foretold, but checked:
//!
//! - the invariants hold after each step;
//! - every request that is answered at all is answered once, in the order of the requests;
//! - no answer holds other than the messages that it announces, or more of a queue than was asked;
//! - no message is in two hands at once, told after it is gone, or lost;
//! - when everybody has left, nothing of them is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::words::change::{Change, MessageState};
use crate::words::clock::{Now, Time};
use crate::words::command::{
    Amount, Command, Handing, Manner, MessageRef, Put, Reply, Request, Sources, SubscriptionKey,
    Tag, Target,
};
use crate::words::ids::{ConnectionId, MessageId, QueueName};
use crate::words::limits::{LimitValues, Limits};

use super::draw::Random;
use super::random::{seed, steps};
use super::tests::{SET, consume, ignore, peek_next, watch};
use super::{Effect, Engine, Input};

const SERIAL: u64 = 5;
const CONNECTIONS: u64 = 9;

struct Storm {
    random: Random,
    engine: Engine,
    now: Now,
    /// The tags of the requests that are still to be answered.
    unanswered: BTreeMap<ConnectionId, VecDeque<u64>>,
    answering: BTreeMap<ConnectionId, u64>,
    closed: BTreeSet<ConnectionId>,
    next_tag: u64,
    /// What the reserves of so many of each queue may still be handed of each, by their tags: as much
    /// of all queues where those are not named.
    allowed: BTreeMap<u64, Allowed>,
    /// Of the answer of several messages that is being given, its tag and how many are to follow.
    announced: Option<(u64, usize)>,
    /// What there is, and what of that is volatile.
    stored: BTreeSet<MessageId>,
    volatile: BTreeSet<MessageId>,
    granted: u64,
    asked: bool,
}

/// How much a reserve may still be handed of each queue.
struct Allowed {
    unnamed: u32,
    left: BTreeMap<QueueName, u32>,
}

impl Allowed {
    fn of(command: &Command) -> Option<Allowed> {
        let Command::Reserve { from, amount: Amount::Each(count), .. } = command else {
            return None;
        };
        let mut allowed = Allowed { unnamed: *count, left: BTreeMap::new() };
        if let Sources::Queues { names, .. } = from {
            allowed.unnamed = 0;
            for name in names {
                *allowed.left.entry(name.clone()).or_default() += count;
            }
        }
        Some(allowed)
    }
}

fn run(seed: u64, steps: u64) {
    let mut random = Random(seed);
    let max_output = usize::try_from(random.pick(&[0, 10, 30, 1_000_000])).unwrap();
    // Little memory refuses some queues and subscriptions.
    let max_memory = random.pick(&[4_000, 10_000, 1 << 30]);
    let limits = LimitValues { max_output, max_queues: 5, max_memory, ..LimitValues::default() };
    let mut engine = Engine::new(Arc::new(Limits::new(&limits)), 1, 2, 1);
    engine.work_per_turn = usize::try_from(random.pick(&[3, 5, 20, 100])).unwrap();
    let mut storm = Storm {
        random,
        engine,
        now: Now { time: Time(1_000_000), wall_offset_ms: 0 },
        unanswered: BTreeMap::new(),
        answering: BTreeMap::new(),
        closed: BTreeSet::new(),
        next_tag: 0,
        allowed: BTreeMap::new(),
        announced: None,
        stored: BTreeSet::new(),
        volatile: BTreeSet::new(),
        granted: 2,
        asked: false,
    };
    for step in 0..=steps {
        let end = step == steps;
        let part = || if end { storm.all_leave() } else { storm.step() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
            eprintln!("step {step} failed; replay with PHPMQ_SEED={seed} PHPMQ_STEPS={steps}");
            resume_unwind(panic);
        }
    }
}

impl Storm {
    fn step(&mut self) {
        let who = ConnectionId(1 + self.random.below(CONNECTIONS));
        match self.random.below(100) {
            0..15 => self.turn(),
            15..19 => {
                let most = self.random.pick(&[1, 300, 5_000, 100_000]);
                self.now.time = self.now.time.plus(self.random.millis(most));
            }
            19..22 if self.asked => {
                self.asked = false;
                self.granted += self.random.pick(&[1, 3, 40]);
                self.input(Input::IdsReserved(self.granted));
            }
            22..24 => {
                let slow = self.random.one_in(2);
                self.input(Input::Stalled(who, slow));
            }
            24 if self.random.one_in(2) => {
                let count = self.random.pick(&[1, 2, 50]);
                self.input(Input::Sent(who, count));
            }
            24 => self.input(Input::HungUp(who)),
            25 => self.leave(who),
            26 => {
                let policies = self.random.policies();
                self.input(Input::Policies(Arc::new(policies)));
            }
            _ if self.closed.contains(&who) => {}
            _ if !self.unanswered.contains_key(&who) => {
                let manner = if who.0 <= SERIAL { Manner::Serial } else { Manner::Streaming };
                let ack_timeout_ms = self.random.pick(&[0, 500, 3_000]);
                self.unanswered.insert(who, VecDeque::new());
                let first_queue = Some((self.random.name(), 0));
                self.input(Input::Opened { connection: who, manner, ack_timeout_ms, first_queue });
            }
            _ => {
                let command = self.command(who);
                self.request(who, command);
            }
        }
    }

    fn leave(&mut self, who: ConnectionId) {
        if self.unanswered.contains_key(&who) {
            self.closed.insert(who);
            self.input(Input::Closed(who));
        }
    }

    fn request(&mut self, who: ConnectionId, command: Command) {
        self.next_tag += 1;
        let silent = matches!(
            command,
            Command::Subscribe { key: SubscriptionKey::Queue, .. }
                | Command::Unsubscribe { key: SubscriptionKey::Queue, .. }
        );
        if !silent && let Some(tags) = self.unanswered.get_mut(&who) {
            tags.push_back(self.next_tag);
        }
        self.allowed.extend(Allowed::of(&command).map(|allowed| (self.next_tag, allowed)));
        let request = Request { tag: Tag::Code(self.next_tag), command };
        self.input(Input::Request(who, request));
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.engine.handle(self.now, input, &mut effects);
        self.check(effects);
    }

    fn turn(&mut self) {
        let mut effects = Vec::new();
        self.engine.next_deadline();
        self.engine.turn(self.now, &mut effects);
        self.check(effects);
    }

    fn check(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Change(Change::Put(row)) => {
                    assert!(self.stored.insert(row.id), "put twice")
                }
                Effect::Change(Change::Removed(id)) => {
                    assert!(self.stored.remove(&id), "{id} was removed twice");
                    assert!(!self.volatile.contains(&id), "{id} is volatile");
                }
                Effect::Change(Change::Moved(row)) => {
                    assert!(self.stored.contains(&row.id), "{} was moved when gone", row.id);
                    assert!(!self.volatile.contains(&row.id), "{} is volatile", row.id);
                }
                Effect::PutVolatile(id, ..) => {
                    assert!(self.stored.insert(id) && self.volatile.insert(id), "put twice");
                }
                Effect::RemoveVolatile(id) => {
                    assert!(self.stored.remove(&id), "{id} was removed twice");
                    assert!(self.volatile.remove(&id), "{id} was removed as volatile");
                }
                Effect::Promote(row) => {
                    assert!(self.volatile.remove(&row.id), "{} is not volatile", row.id);
                }
                Effect::Change(_)
                | Effect::Tie
                | Effect::Gate(..)
                | Effect::Close(..)
                | Effect::WakeUp(..) => {}
                Effect::Reply(who, tag, reply) | Effect::ReplyAtOnce(who, tag, reply) => {
                    self.answered(who, &tag, &reply);
                    if let (Tag::Code(tag), Reply::Batch(count)) = (tag, reply) {
                        assert_eq!(
                            self.announced.replace((tag, count)),
                            None,
                            "too few of a batch"
                        );
                    }
                }
                Effect::Deliver(who, tag, handed) => {
                    if handed.handing != Handing::Dispatched {
                        self.answered(who, &tag, &Reply::Echo);
                        self.follows(&tag, &handed.queue);
                    } else {
                        assert!(!self.closed.contains(&who), "dispatched to a closed connection");
                    }
                }
                Effect::Finished(who) => {
                    assert!(self.closed.remove(&who), "finished, but not closed");
                    let left = self.unanswered.remove(&who).unwrap();
                    assert!(left.is_empty(), "never answered: {left:?}");
                    self.answering.remove(&who);
                }
                Effect::ReserveIds(_) => self.asked = true,
            }
        }
        assert_eq!(self.announced, None, "too few of a batch");
        self.engine.check_invariants();
        assert_eq!(self.engine.stored().1, self.stored.len() as u64, "messages");
        assert_eq!(self.engine.volatile().1, self.volatile.len() as u64, "volatile messages");
    }

    /// A message of this queue, which is one of those that were announced if any were, and within
    /// what was asked for of each queue if that was.
    fn follows(&mut self, tag: &Tag, queue: &QueueName) {
        let Tag::Code(tag) = tag else { return };
        if let Some((announced, left)) = self.announced.take() {
            assert_eq!(announced, *tag, "a message within the answer of another request");
            self.announced = (left > 1).then_some((announced, left - 1));
        }
        if let Some(allowed) = self.allowed.get_mut(tag) {
            let left = allowed.left.entry(queue.clone()).or_insert(allowed.unnamed);
            *left = left.checked_sub(1).expect("more of a queue than was asked for");
        }
    }

    /// An answer, or a part of one, must be for the first request that has none.
    fn answered(&mut self, who: ConnectionId, tag: &Tag, reply: &Reply) {
        let Tag::Code(tag) = tag else { panic!("an answer without its tag") };
        let tags = self.unanswered.get_mut(&who).expect("an answer to nobody");
        if tags.front() == Some(tag) {
            tags.pop_front();
            self.answering.insert(who, *tag);
        } else {
            let refused = matches!(reply, Reply::Refused(_));
            assert!(refused || self.answering.get(&who) == Some(tag), "{reply:?} out of order");
        }
    }

    fn command(&mut self, who: ConnectionId) -> Command {
        let random = &mut self.random;
        let all: Vec<MessageId> = self.stored.iter().copied().collect();
        let id = if all.is_empty() { MessageId(1) } else { random.pick(&all) };
        let name = random.name();
        let message = match random.below(8) {
            0 | 1 => MessageRef::Id(id),
            2 => MessageRef::HeldOf(random.name()),
            _ => MessageRef::IdOf(id, random.name()),
        };
        if who.0 > SERIAL {
            return match random.below(12) {
                10.. => random.subscription(),
                0..3 => put(random, Target::Named(name)),
                3..6 => {
                    let window = random.pick(&[0, 1, 2, 30]);
                    consume(name, window)
                }
                6 if random.one_in(4) => Command::Mark(message),
                6..8 => Command::Acknowledge(message),
                8 => Command::Requeue { message, time_to_live_ms: random.pick(&[None, Some(0)]) },
                _ if random.one_in(2) => Command::Fail { message, reason: random.reason() },
                _ => Command::Bury { message, priority: None },
            };
        }
        use MessageState::{Buried, Delayed, Ready};
        match random.below(60) {
            0..20 => put(random, Target::Referred),
            20 => Command::Refer(name),
            21..24 => watch(name),
            24 => ignore(name),
            25..33 => Command::Reserve {
                from: Sources::Subscription(SET),
                refuse_if_holding: false,
                timeout_ms: random.pick(&[None, Some(0), Some(200)]),
                amount: random.amount(30),
            },
            33 => Command::ReserveMessage(id),
            34..37 => Command::Remove(id),
            37 => Command::Release { message, priority: None, delay_ms: random.pick(&[0, 100]) },
            38 => Command::Fail { message: MessageRef::Id(id), reason: random.reason() },
            39..41 => Command::Bury { message: MessageRef::Id(id), priority: None },
            41 => Command::Touch(message),
            42 => Command::Peek(id),
            43 => peek_next(random.pick(&[Ready, Delayed, Buried])),
            46 => Command::Kick { queue: Target::Named(name), count: 1_000 },
            44..46 => Command::Kick { queue: Target::Referred, count: random.pick(&[1, 5, 1_000]) },
            47 => Command::KickMessage(id),
            48 => Command::Pause { queue: name, for_ms: random.pick(&[0, 300]) },
            49 if random.one_in(3) => {
                Command::RemoveQueue { queue: name, only_if_empty: random.one_in(2) }
            }
            49 if random.one_in(2) => Command::SetAside(id),
            49 => Command::Flush(name),
            50 if random.one_in(4) => Command::FlushAll,
            51 if random.one_in(2) => Command::SelectQueues(Box::new(random.selection())),
            51 => Command::Survey { pattern: None, lines_max: 3 },
            52 if random.one_in(2) => random.find_key(),
            53 if random.one_in(2) => random.together(|_| message.clone()),
            52 => Command::ListQueues,
            53 => Command::List { queue: name, lines_max: 5 },
            54 if random.one_in(3) => Command::Promote(id),
            54 if random.one_in(2) => Command::Mark(message),
            54 => Command::Unmark(id),
            55 => Command::QueueStatistics(name),
            57 => random.setting(),
            56 => consume(name, random.pick(&[0, 1, 30])),
            59 => random.subscription(),
            58 => random.reserve_once(),
            _ => Command::Echo,
        }
    }

    /// Everybody leaves, for good; what is left must be nobody's.
    fn all_leave(&mut self) {
        for who in (1..=CONNECTIONS).map(ConnectionId) {
            if !self.closed.contains(&who) {
                self.leave(who);
            }
            self.input(Input::Closed(who));
        }
        for _ in 0..20_000 {
            if self.unanswered.is_empty() {
                break;
            }
            self.granted += 10;
            self.input(Input::IdsReserved(self.granted));
            self.turn();
        }
        assert!(self.unanswered.is_empty(), "never finished: {:?}", self.unanswered);
        assert_eq!(self.engine.ledger.sessions().len(), 0);
        assert_eq!(self.engine.ledger.counts().messages.reserved, 0);
        while self.engine.next_deadline() < Time::NEVER {
            self.now.time = self.now.time.max(self.engine.next_deadline());
            self.turn();
        }
        assert!(self.engine.works.is_empty() && self.engine.ids.waiting.is_empty());
        for id in self.stored.clone() {
            assert!(self.engine.ledger.find(id).is_some(), "{id} is lost");
        }
    }
}

fn put(random: &mut Random, queue: Target) -> Command {
    let put = Put {
        priority: Some(u32::try_from(random.below(3)).unwrap()),
        delay_ms: random.pick(&[0, 0, 0, 200]),
        time_to_run_ms: Some(random.pick(&[0, 300, 5_000])),
        time_to_live_ms: random.pick(&[None, None, Some(0), Some(400), Some(9_000)]),
        ..Put::new(queue, vec![b'x'; usize::try_from(random.below(20)).unwrap()])
    };
    random.with_extras(put)
}

#[test]
fn nothing_is_lost_in_known_storms() {
    for seed in 1..=30 {
        run(seed, 400);
    }
}

#[test]
fn nothing_is_lost_in_another_storm_each_time() {
    let seed = seed();
    println!("PHPMQ_SEED={seed} PHPMQ_STEPS={}", steps());
    run(seed, steps());
}
