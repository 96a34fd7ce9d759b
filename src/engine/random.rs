//! The engine against the plain model: thousands of random commands, hang-ups and time jumps,
//! everything that is told and kept compared after each step.
//!
//! `PHPMQ_SEED` replays a run, `PHPMQ_STEPS` sets its length; a failure prints both.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::words::change::MessageState;
use crate::words::command::{Command, Manner, MessageRef, Put, Reply, Sources, Target};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::{LimitValues, Limits};
use crate::words::refusal::Refusal;
use crate::words::statistics::{MessageStatistics, QueueStatistics};

use super::draw::Random;
use super::load::Loader;
use super::model::{self, At, Model, NEVER, Queue, Session, Subscription};
use super::rows::Rows;
use super::state::keys::Until;
use super::state::reservation::Of;
use super::state::session::Keyed;
use super::tests::{SET, Talk, consume, ignore, peek_next, watch};
use super::{Engine, Input};

/// Fewer than there are names in use, so that some are refused.
const QUEUES_MAX: usize = 4;
const SERIAL: [char; 4] = ['a', 'b', 'c', 'd'];
const STREAMING: [char; 3] = ['x', 'y', 'z'];
const STEPS: u64 = 2_000;

/// Both sides of a run, and what the engine would find after a restart.
struct Pair {
    random: Random,
    talk: Talk,
    model: Model,
    rows: Rows,
}

fn limits() -> LimitValues {
    LimitValues { max_queues: QUEUES_MAX, ..LimitValues::default() }
}

fn run(seed: u64, steps: u64) {
    let mut talk = Talk::with(limits());
    talk.checking = false;
    let model =
        Model { next_id: 1, queues_max: QUEUES_MAX, now: talk.now.time.0, ..Model::default() };
    let mut pair = Pair { random: Random(seed), talk, model, rows: Rows::default() };
    for step in 0..steps {
        let outcome = catch_unwind(AssertUnwindSafe(|| pair.step()));
        if let Err(panic) = outcome {
            eprintln!("step {step} failed; replay with PHPMQ_SEED={seed} PHPMQ_STEPS={}", step + 1);
            resume_unwind(panic);
        }
    }
}

impl Pair {
    fn step(&mut self) {
        self.learn_the_order();
        let kind = self.random.below(100);
        let who = self.random.pick(&[&SERIAL[..], &STREAMING[..]].concat());
        match kind {
            0..11 => return self.pass(),
            11 if self.random.one_in(6) => return self.restart(),
            11 => return self.leap(),
            _ if !self.model.sessions.contains_key(&who) => self.open(who),
            13 if self.model.sessions[&who].closing || self.random.one_in(3) => {
                let count = 1 + self.random.below(3);
                let told = self.talk.sent(who, usize::try_from(count).unwrap());
                self.model.sent(who, usize::try_from(count).unwrap());
                self.compare(&told, "sent");
            }
            12 => {
                let slow = self.random.one_in(2);
                let told = self.talk.stall(who, slow);
                self.model.stall(who, slow);
                self.compare(&told, "stalled");
            }
            13 => {
                let told = self.talk.hang_up(who);
                self.model.hang_up(who);
                self.compare(&told, "hung up");
            }
            14 => {
                let told = self.talk.close(who);
                self.model.close(who);
                self.compare(&told, "closed");
            }
            15 | 16 if !self.random.one_in(4) => {
                let policies = self.random.policies();
                self.model.policies = policies.clone();
                self.talk.input(Input::Policies(Arc::new(policies)));
            }
            15 => {
                use Refusal::{Draining, OutOfMemory, StoreUnavailable};
                let refusal = self.random.pick(&[Draining, OutOfMemory, StoreUnavailable]);
                self.model.refusing = match self.model.refusing {
                    Some(_) => None,
                    None => Some(refusal),
                };
                self.talk.input(Input::RefusePuts(self.model.refusing));
            }
            // What it waits for is that it has been sent something; nothing more is asked.
            _ if self.model.sessions[&who].closing => {}
            _ => {
                let serial = SERIAL.contains(&who);
                let command = if serial { self.serial(who) } else { self.streaming(who) };
                let what = format!("{who} asks {command:?}");
                let told = self.talk.command(who, command.clone());
                self.model.request(who, command);
                self.compare(&told, &what);
            }
        }
        self.settle();
    }

    /// Tells the model in which order the engine does what is due in the same millisecond.
    fn learn_the_order(&mut self) {
        let ledger = &self.talk.engine.ledger;
        let queues = ledger.queues().iter_from(0);
        self.model.slots = queues.map(|(slot, queue)| (queue.name.clone(), slot)).collect();
        let all = ledger.subscriptions().iter();
        self.model.windows = all.map(|(slot, _)| (self.number(slot), slot)).collect();
    }

    /// What the model calls a subscription of the engine's.
    fn number(&self, slot: u32) -> u64 {
        let ledger = &self.talk.engine.ledger;
        let here = ledger.subscription(slot);
        let key = match &here.key {
            Keyed::Number(number) => model::Keyed::Number(*number),
            Keyed::Bytes(bytes) => model::Keyed::Bytes(bytes.clone()),
            Keyed::Queue(queue) => model::Keyed::Queue(ledger.queue(*queue).name.clone()),
            Keyed::Once => model::Keyed::Once,
        };
        let who = super::tests::letter(ledger.session(here.session).connection);
        let number = self.model.subscription_of(who, &key);
        number.unwrap_or_else(|| panic!("{who} has no subscription {key:?}"))
    }

    fn open(&mut self, who: char) {
        let serial = SERIAL.contains(&who);
        let ack_timeout = if self.random.one_in(3) { 0 } else { self.random.millis(6_000) };
        let manner = if serial { Manner::Serial } else { Manner::Streaming };
        let first = serial.then(|| self.random.name());
        self.talk.open_on(who, manner, ack_timeout, first.clone());
        self.model.sessions.insert(who, Session { serial, ack_timeout, ..Session::default() });
        if let Some(name) = first {
            self.model.begin_with(who, &name);
        }
    }

    /// Moves the clock, from one thing that happens to the next.
    fn pass(&mut self) {
        let most = self.random.pick(&[10, 1_000, 10_000]);
        let end = self.model.now + self.random.millis(most);
        loop {
            let next = self.talk.engine.next_deadline().0;
            let due = self.model.next_due().map_or(NEVER, |(at, ..)| at);
            assert!(next <= due, "the engine sleeps until {next}, but {due} is due");
            if next > end {
                break;
            }
            self.model.now = self.model.now.max(next);
            self.settle();
        }
        self.model.now = end;
        self.talk.now.time.0 = end;
    }

    /// The process is stopped for a while, and then what was due is done before anything else.
    fn leap(&mut self) {
        let most = self.random.pick(&[1_000, 10_000, 100_000]);
        self.model.now += self.random.millis(most);
        self.talk.now.time.0 = self.model.now;
        self.learn_the_order();
        let told = self.talk.catch_up();
        self.model.settle();
        self.compare(&told, "a pause");
        self.compare_figures("a pause");
    }

    /// The daemon is stopped in order, and started again at the same moment.
    fn restart(&mut self) {
        let saved = self.talk.engine.unsaved_counters();
        saved.into_iter().for_each(|change| self.rows.apply(change));
        let next_id = self.talk.engine.next_id();
        let engine = Engine::new(Arc::new(Limits::new(&limits())), next_id, 1 << 40, 1);
        let mut loader = Loader::new(engine, self.talk.now);
        self.rows.load(&mut loader);
        let (engine, dropped) = loader.finish();
        dropped.into_iter().for_each(|change| self.rows.apply(change));
        self.talk.engine = engine;
        self.talk.volatile.clear();
        self.talk.input(Input::Policies(Arc::new(self.model.policies.clone())));
        self.talk.input(Input::RefusePuts(self.model.refusing));
        self.model.restart();
        self.compare("", "a restart");
        self.compare_figures("a restart");
    }

    /// One turn, and as many more as are due at this moment.
    fn settle(&mut self) {
        self.talk.now.time.0 = self.model.now;
        self.learn_the_order();
        let mut told = self.talk.turn();
        while self.talk.engine.next_deadline() <= self.talk.now.time {
            told = [told, self.talk.turn()].join(", ");
        }
        self.model.settle();
        self.compare(&told, "time");
        self.compare_figures("time");
    }

    /// Compares what both have told and what both keep.
    fn compare(&mut self, told: &str, what: &str) {
        let engine = by_peer(told.split(", "));
        let model = by_peer(self.model.told.iter().map(String::as_str));
        assert_eq!(engine, model, "the engine (left) and the model told something else: {what}");
        self.model.told.clear();
        self.talk.changes.drain(..).for_each(|change| self.rows.apply(change));
        self.talk.engine.check_invariants();
    }

    fn compare_figures(&self, what: &str) {
        let (engine, model) = (&self.talk.engine, &self.model);
        assert_eq!(engine.stored().1, model.messages.len() as u64, "messages: {what}");
        for message in &model.messages {
            let slot = engine.ledger.find(MessageId(message.id));
            let slot = slot.unwrap_or_else(|| panic!("{} is gone: {what}", message.id));
            let left = match message.at {
                At::Delayed(at) => at.saturating_sub(model.now),
                At::Reserved(held) if held.until != NEVER => held.until.saturating_sub(model.now),
                _ => 0,
            };
            let figures = MessageStatistics {
                id: MessageId(message.id),
                queue: message.queue.clone(),
                state: state(message.at),
                priority: message.pri,
                age_ms: engine.ledger.message(slot).created.0.abs_diff(model.now),
                delay_ms: message.delay,
                time_to_run_ms: message.ttr,
                time_left_ms: left,
                counters: message.counters,
                failures: message.failures.clone(),
                wall_ms: self.talk.now.wall_ms(self.talk.now.time),
                is_volatile: message.is_volatile,
            };
            assert_eq!(engine.message_statistics(self.talk.now, slot), figures, "{what}");
            let kept = &engine.ledger.message(slot);
            assert_eq!((kept.sequence.0, kept.expires.0), (message.seq, message.expires), "{what}");
        }
        self.compare_subscriptions(what);
        self.compare_keys(what);
        assert_eq!(engine.ledger.queues().len(), model.queues.len(), "queues: {what}");
        for (name, here) in &model.queues {
            let reply = engine.queue_statistics(self.talk.now, name);
            let Reply::QueueStatistics(figures) = reply else { panic!("no {name:?}: {what}") };
            assert_eq!(*figures, self.queue(name, here, &figures), "{what}");
        }
        let figures = engine.statistics();
        assert_eq!(figures.returns, model.returns, "returns by cause: {what}");
        let is = [
            figures.messages_set_aside,
            figures.messages_dead_lettered,
            figures.messages_joined,
            figures.timeouts,
            figures.messages_expired,
            figures.late_acknowledgements,
            figures.foreign_acknowledgements,
            figures.connections,
            figures.producers,
            figures.workers,
            figures.waiting,
        ];
        let count =
            |is: fn(&Session) -> bool| model.sessions.values().filter(|s| is(s)).count() as u64;
        let should = [
            model.set_aside,
            model.dead_lettered,
            model.joined,
            model.timeouts,
            model.expired,
            model.late,
            model.foreign,
            model.sessions.len() as u64,
            count(|session| session.producer),
            count(|session| session.worker),
            count(|session| session.wait.is_some()),
        ];
        assert_eq!(
            is, should,
            "set aside, dead-lettered, joined, timeouts, expired, late, foreign, all, producers, workers, waiting"
        );
    }

    fn compare_subscriptions(&self, what: &str) {
        let (ledger, model) = (&self.talk.engine.ledger, &self.model);
        let mut count = 0;
        for (slot, here) in ledger.subscriptions().iter() {
            let number = self.number(slot);
            let there = &model.subscriptions[&number];
            let names = here.queues.iter().map(|m| ledger.queue(m.queue).name.clone());
            assert_eq!(names.collect::<Vec<_>>(), there.names(), "a set: {what}");
            let is = (here.demand, here.settlement, here.terms, here.woken);
            let should = (there.demand, there.settlement, there.terms, there.woken);
            assert_eq!(is, should, "a subscription: {what}");
            assert_eq!(here.lost_places as usize, model.lost_places(number), "lost: {what}");
            let out = ledger.reservations().iter(&here.held, Of::Holder);
            let out: Vec<u64> = out.map(|(_, held)| ledger.message(held.message).id.0).collect();
            assert_eq!(out, model.out(number), "out through a window: {what}");
            count += 1;
        }
        assert_eq!(count, model.subscriptions.len(), "subscriptions: {what}");
        for (who, session) in &model.sessions {
            let here = ledger.session_of(super::tests::connection(*who)).unwrap();
            let sending = ledger.session(here).sending.iter().map(|id| id.0);
            assert!(sending.eq(session.sending.iter().copied()), "what {who} is sent: {what}");
        }
    }

    fn compare_keys(&self, what: &str) {
        let ledger = &self.talk.engine.ledger;
        let (keys, _) = ledger.keys().entries();
        let is = keys.into_iter().map(|(_, taken)| {
            let until = match taken.until {
                Until::Taken => model::Until::Taken,
                Until::Done => model::Until::Done,
                Until::Moment(at) => model::Until::Moment(at.0),
            };
            let message = taken.message.map(|slot| ledger.message(slot).id.0);
            let place = (taken.key.clone(), ledger.queue(taken.queue).name.clone());
            (place, (message, until, taken.is_volatile))
        });
        let keys = self.model.keys.iter();
        let should = keys
            .map(|(place, taken)| (place.clone(), (taken.message, taken.until, taken.is_volatile)));
        assert_eq!(is.collect::<BTreeMap<_, _>>(), should.collect(), "keys: {what}");
    }

    /// What the model says of a queue; what it does not know is taken over.
    fn queue(&self, name: &QueueName, here: &Queue, is: &QueueStatistics) -> QueueStatistics {
        let mut head = None;
        let sessions = || self.model.sessions.values();
        let in_sets = |is: &dyn Fn(u64, &Subscription) -> bool| {
            let all = self.model.subscriptions.iter().filter(|(_, s)| s.has(name));
            all.filter(|(number, s)| is(**number, s)).count() as u64
        };
        let waits = |number: u64, s: &Subscription| {
            self.model.sessions[&s.who].wait.is_some_and(|wait| wait.of == number)
        };
        let mut messages = crate::words::statistics::StateCounts::default();
        for message in self.model.messages.iter().filter(|message| message.queue == *name) {
            match message.at {
                At::Ready => {
                    messages.ready += 1;
                    messages.urgent += u64::from(message.pri < 1_024);
                    let place = (message.pri, message.seq, message.id);
                    head = Some(head.map_or(place, |first: (u32, u64, u64)| first.min(place)));
                }
                At::Delayed(_) => messages.delayed += 1,
                At::Reserved(_) => messages.reserved += 1,
                At::Buried(_) => messages.buried += 1,
            }
        }
        QueueStatistics {
            name: name.clone(),
            messages,
            messages_put: here.puts,
            using: sessions().filter(|session| session.used.as_ref() == Some(name)).count() as u64,
            watching: in_sets(&|_, subscription| !subscription.is_window()),
            waiting: in_sets(&waits),
            pause_ms: here.pause,
            pause_left_ms: here.paused_until.saturating_sub(self.model.now),
            removes: here.removes,
            pauses: here.pauses,
            head: head.map(|(_, _, id)| MessageId(id)),
            ..is.clone()
        }
    }

    // ---- What is asked.

    /// A message that this connection holds, or any other, or none.
    fn id(&mut self, who: char) -> MessageId {
        let held = self.model.held_as(|held| held.by == who);
        let lost: Vec<u64> = self.model.sessions[&who].lost.keys().copied().collect();
        let all: Vec<u64> = self.model.messages.iter().map(|message| message.id).collect();
        let kind = self.random.below(10);
        MessageId(match kind {
            0..6 if !held.is_empty() => self.random.pick(&held),
            6..8 if !lost.is_empty() => self.random.pick(&lost),
            8 => 1 + self.random.below(self.model.next_id),
            _ if !all.is_empty() => self.random.pick(&all),
            _ => 1,
        })
    }

    fn put(&mut self, target: Target) -> Command {
        let random = &mut self.random;
        // When much lies about, half of what comes expires soon.
        let full = self.model.messages.len() > 40;
        let mortal = if full { random.one_in(2) } else { random.one_in(6) };
        let put = Put {
            priority: random.priority(),
            delay_ms: if random.one_in(5) { random.millis(4_000) } else { 0 },
            time_to_run_ms: Some(random.millis(5_000)),
            time_to_live_ms: mortal.then(|| random.millis(8_000)),
            ..Put::new(target, vec![b'x'; usize::try_from(random.below(9)).unwrap()])
        };
        random.with_extras(put)
    }

    /// A message in one's hands, or what is taken for one: `named` says whether rather with its
    /// queue.
    fn message(&mut self, who: char, named: bool) -> MessageRef {
        let id = self.id(who);
        let known = self.model.find(id.0).map(|message| message.queue.clone());
        match self.random.below(16) {
            0 | 1 => MessageRef::HeldOf(known.unwrap_or_else(|| self.random.name())),
            2 => MessageRef::HeldOf(self.random.name()),
            3 => MessageRef::IdOf(id, self.random.name()),
            4 if named => MessageRef::Id(id),
            5.. if !named => MessageRef::Id(id),
            _ => MessageRef::IdOf(id, known.unwrap_or_else(|| self.random.name())),
        }
    }

    /// Steps about messages in one's hands, most of them different ones.
    fn together(&mut self, who: char) -> Command {
        let mut held = self.model.held_as(|held| held.by == who);
        self.random.together(|random| {
            let one = (!held.is_empty() && !random.one_in(8)).then(|| random.pick(&held));
            held.retain(|id| Some(*id) != one || random.one_in(8));
            match one {
                Some(id) => MessageRef::Id(MessageId(id)),
                None => MessageRef::HeldOf(random.name()),
            }
        })
    }

    fn serial(&mut self, who: char) -> Command {
        let (id, message) = (self.id(who), self.message(who, false));
        let random = &mut self.random;
        match random.below(58) {
            56.. => Command::Promote(id),
            53 => Command::Unmark(id),
            54..56 => Command::Mark(message),
            49..53 => self.together(who),
            40..44 => random.subscription(),
            44 | 45 => random.reserve_once(),
            46 => random.reserve_from(),
            48 => random.find_key(),
            47 => Command::Fail { message, reason: random.reason() },
            0..5 => self.put(Target::Referred),
            5 => {
                let name = random.name();
                self.put(Target::Named(name))
            }
            6 => Command::Refer(random.name()),
            7..9 => watch(random.name()),
            9 => ignore(random.name()),
            10..16 => Command::Reserve {
                from: Sources::Subscription(SET),
                refuse_if_holding: false,
                timeout_ms: random.pick(&[None, Some(0), Some(700), Some(3_000)]),
                amount: random.amount(5),
            },
            16..18 => Command::ReserveMessage(id),
            18..21 => Command::Remove(id),
            21..23 | 38 => {
                let delay_ms = if random.one_in(2) { random.millis(3_000) } else { 0 };
                Command::Release { message, priority: random.priority(), delay_ms }
            }
            23..25 => Command::Bury { message, priority: random.priority() },
            25 => Command::Touch(message),
            26 => Command::Peek(id),
            27 => {
                use MessageState::{Buried, Delayed, Ready};
                peek_next(random.pick(&[Ready, Delayed, Buried]))
            }
            28 => Command::Kick { queue: Target::Referred, count: random.below(4) },
            29 => Command::Kick { queue: Target::Named(random.name()), count: random.below(4) },
            30 => Command::KickMessage(id),
            31 => {
                let for_ms = random.pick(&[0, 500, 2_000, 6_000]);
                Command::Pause { queue: random.name(), for_ms }
            }
            32 if random.one_in(3) => Command::Flush(random.name()),
            32 if random.one_in(2) => {
                let only_if_empty = random.one_in(2);
                Command::RemoveQueue { queue: random.name(), only_if_empty }
            }
            32 => Command::SetAside(id),
            33 if random.one_in(9) => Command::FlushAll,
            34 => match random.below(3) {
                0 => Command::ListQueues,
                1 => Command::ListSubscribed(random.key()),
                _ => Command::ShowReferred,
            },
            35 => consume(random.name(), 2),
            36 if random.one_in(2) => random.setting(),
            36 => Command::Acknowledge(message),
            37 => Command::Quit,
            _ => Command::Echo,
        }
    }

    fn streaming(&mut self, who: char) -> Command {
        let (id, message) = (self.id(who), self.message(who, true));
        let random = &mut self.random;
        match random.below(34) {
            30 | 31 => Command::Mark(message),
            32.. => Command::Unmark(id),
            26..30 => self.together(who),
            20..23 => random.subscription(),
            23 => random.reserve_once(),
            24 => random.reserve_from(),
            25 => Command::Fail { message, reason: random.reason() },
            0..4 => {
                let name = random.name();
                self.put(Target::Named(name))
            }
            4..8 => {
                let window = random.pick(&[0, 1, 2, 3, 5]);
                consume(random.name(), window)
            }
            8..15 => Command::Acknowledge(message),
            15..17 => {
                let time_to_live_ms = random.one_in(2).then(|| random.millis(6_000));
                Command::Requeue { message, time_to_live_ms }
            }
            17 => Command::Bury { message, priority: None },
            _ => Command::Echo,
        }
    }
}

fn state(at: At) -> MessageState {
    match at {
        At::Ready => MessageState::Ready,
        At::Delayed(_) => MessageState::Delayed,
        At::Reserved(_) => MessageState::Reserved,
        At::Buried(_) => MessageState::Buried,
    }
}

/// The lines of each peer in their order. Lists of queues have none.
fn by_peer<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<char, Vec<String>> {
    let mut peers: BTreeMap<char, Vec<String>> = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (who, what) = line.split_once(' ').unwrap();
        let mut words: Vec<&str> = what.split(' ').collect();
        if matches!(words[0], "queues" | "keys") {
            words.sort_unstable();
        }
        peers.entry(who.chars().next().unwrap()).or_default().push(words.join(" "));
    }
    peers
}

pub fn steps() -> u64 {
    std::env::var("PHPMQ_STEPS").map_or(STEPS, |steps| steps.parse().unwrap())
}

pub fn seed() -> u64 {
    let seed = std::env::var("PHPMQ_SEED").map(|seed| seed.parse().unwrap());
    seed.unwrap_or_else(|_| RandomState::new().hash_one(()))
}

#[test]
fn the_engine_does_what_the_model_does_with_known_seeds() {
    for seed in 1..=6 {
        run(seed, STEPS);
    }
}

#[test]
fn the_engine_does_what_the_model_does_with_another_seed_each_time() {
    let seed = seed();
    println!("PHPMQ_SEED={seed} PHPMQ_STEPS={}", steps());
    run(seed, steps());
}
