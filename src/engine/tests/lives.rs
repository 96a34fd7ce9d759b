//! Lives of the daemon between which it is stopped or killed, on a machine that is suspended and
//! whose wall clock is set: delays and times to live last as long as was asked for.
//!
//! The simulation knows the true time. Where something is lost of it on purpose, it knows how much
//! at most: less than a second for what a wall clock may be wrong by unnoticed, and the time of a
//! stop after which the machine starts with a wall clock that is behind.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::Talk;
use crate::engine::Engine;
use crate::engine::draw::Random;
use crate::engine::load::Loader;
use crate::engine::random::{seed, steps};
use crate::engine::rows::Rows;
use crate::engine::state::message::State;
use crate::words::clock::{Now, Time, observe, start_of};
use crate::words::ids::MessageId;
use crate::words::limits::{LimitValues, Limits};

const DAY_MS: u64 = 24 * 3_600_000;
/// Less than this is not taken for a step of the wall clock.
const UNNOTICED_MS: u64 = 1_000;
/// How far the scale may be behind where a kill leaves no later word of it.
const UNSAVED_MS: u64 = 60_000;

const STEPS_OF_A_WORLD: u64 = 2_000;

/// Between which true moments something has to happen.
#[derive(Clone, Copy)]
struct Promise {
    from: u64,
    to: u64,
}

impl Promise {
    fn after(now: u64, millis: u64) -> Promise {
        Promise { from: now + millis, to: now + millis }
    }

    fn is_kept(self, at: u64) -> bool {
        // A scale has whole milliseconds.
        (self.from.saturating_sub(5)..=self.to + 5).contains(&at)
    }
}

struct World {
    random: Random,
    true_ms: u64,
    /// Wall clock minus true time.
    wall_error_ms: i64,
    talk: Talk,
    /// The true time at which this life's scale began, and where it began.
    life: (u64, Now),
    /// The database.
    rows: Rows,
    clock: Option<Now>,
    delays: BTreeMap<MessageId, Promise>,
    expiries: BTreeMap<MessageId, Promise>,
}

fn engine() -> Engine {
    Engine::new(Arc::new(Limits::new(&LimitValues::default())), 1, 1 << 40, 1)
}

fn run(seed: u64, steps: u64) {
    let mut world = World {
        random: Random(seed),
        true_ms: 1_800_000_000_000,
        wall_error_ms: 0,
        talk: Talk::over(engine()),
        life: (0, Now::default()),
        rows: Rows::default(),
        clock: None,
        delays: BTreeMap::new(),
        expiries: BTreeMap::new(),
    };
    // A board without a clock, or not.
    let at_first = if world.random.one_in(2) { 0 } else { world.true_ms };
    world.set_wall(at_first);
    world.start();
    for step in 0..steps {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.step())) {
            eprintln!("step {step} failed; replay with PHPMQ_SEED={seed} PHPMQ_STEPS={steps}");
            resume_unwind(panic);
        }
    }
}

impl World {
    fn step(&mut self) {
        match self.random.below(10) {
            0..4 => self.put(),
            4..6 => {
                let most = self.random.pick(&[2_000, 600_000, DAY_MS]);
                self.true_ms += self.random.millis(most);
            }
            6..8 => {
                let most = self.random.pick(&[400, 900, 5_000, 3_600_000, 20_000 * DAY_MS]);
                let by = i64::try_from(self.random.millis(most)).unwrap();
                self.wall_error_ms += if self.random.one_in(2) { by } else { -by };
                self.set_wall(u64::try_from(self.wall_ms()).unwrap_or(0));
            }
            8 => self.restart(),
            _ => self.reboot_with_a_wall_clock_that_is_behind(),
        }
        self.look();
        self.check();
    }

    fn wall_ms(&self) -> i64 {
        i64::try_from(self.true_ms).unwrap() + self.wall_error_ms
    }

    fn set_wall(&mut self, wall_ms: u64) {
        self.wall_error_ms = i64::try_from(wall_ms).unwrap() - i64::try_from(self.true_ms).unwrap();
    }

    fn time(&self) -> Time {
        let (began, beginning) = self.life;
        beginning.time.plus(self.true_ms - began)
    }

    /// What the dispatcher does in each turn.
    fn look(&mut self) {
        let known = self.talk.now.wall_offset_ms;
        let now = observe(known, || self.time(), || self.wall_ms());
        self.talk.now = now;
        if now.wall_offset_ms != known {
            self.clock = Some(now);
        }
        self.talk.settle();
        self.commit();
    }

    fn commit(&mut self) {
        for change in std::mem::take(&mut self.talk.changes) {
            if self.clock.is_none_or(|said| self.talk.now.time.since(said.time) >= UNSAVED_MS) {
                self.clock = Some(self.talk.now);
            }
            self.rows.apply(change);
        }
    }

    fn put(&mut self) {
        self.look();
        let id = MessageId(self.talk.engine.next_id());
        let most = self.random.pick(&[5_000, 3_600_000, 30 * DAY_MS]);
        let (delay, ttl) = (self.random.millis(most), self.random.millis(most));
        if self.random.one_in(2) {
            self.talk.say('p', &format!("put q delay {delay}"));
            if delay > 0 {
                self.delays.insert(id, Promise::after(self.true_ms, delay));
            }
        } else {
            self.talk.say('p', &format!("put q ttl {ttl}"));
            self.expiries.insert(id, Promise::after(self.true_ms, ttl));
        }
        self.commit();
    }

    fn restart(&mut self) {
        if self.random.one_in(2) {
            // A stop in order looks at the clock and writes it down.
            self.look();
            self.clock = Some(self.talk.now);
        }
        let down = self.random.millis(DAY_MS);
        self.true_ms += down;
        self.start();
        self.widen(UNNOTICED_MS, UNNOTICED_MS);
    }

    /// As a board without a clock does, until it has asked for the time.
    fn reboot_with_a_wall_clock_that_is_behind(&mut self) {
        let down = self.random.millis(DAY_MS);
        self.true_ms += down;
        let Some(stored) = self.clock else { return self.restart() };
        let last = stored.wall_ms(stored.time);
        let behind = i64::try_from(self.random.millis(50_000 * DAY_MS)).unwrap();
        self.set_wall(u64::try_from(last - behind).unwrap_or(0));
        let before = self.time();
        self.start();
        // Never early, and later by what nobody knows.
        self.widen(0, before.since(self.life.1.time));
    }

    fn widen(&mut self, early: u64, late: u64) {
        for promise in self.delays.values_mut().chain(self.expiries.values_mut()) {
            promise.from = promise.from.saturating_sub(early);
            promise.to += late;
        }
    }

    fn start(&mut self) {
        let (beginning, behind_ms) = start_of(self.clock, self.wall_ms());
        if behind_ms > 0 {
            self.clock = Some(beginning);
        }
        let mut loader = Loader::new(engine(), beginning);
        self.rows.load(&mut loader);
        let (engine, dropped) = loader.finish();
        let next_id = self.talk.engine.next_id();
        self.talk = Talk::over(engine).workers("p");
        self.talk.checking = false;
        self.talk.engine.ids.next = next_id;
        (self.talk.now, self.life) = (beginning, (self.true_ms, beginning));
        self.talk.changes.splice(0..0, dropped);
    }

    /// When this moment of the scale really is.
    fn true_at(&self, time: Time) -> u64 {
        let (time, now) = (i128::from(time.0), i128::from(self.talk.now.time.0));
        u64::try_from(i128::from(self.true_ms) + time - now).unwrap_or(0)
    }

    fn check(&mut self) {
        let true_ms = self.true_ms;
        for (id, promise) in self.delays.clone() {
            let slot = self.talk.engine.ledger.find(id).expect("it has no end");
            if let State::Delayed(due) = self.talk.engine.ledger.message(slot).state {
                let at = self.true_at(due);
                assert!(promise.is_kept(at), "{id}: {at}, not {}..{}", promise.from, promise.to);
            } else {
                assert!(promise.from <= true_ms + 5, "{id} is ready too early");
                self.delays.remove(&id);
            }
        }
        for (id, promise) in self.expiries.clone() {
            if let Some(slot) = self.talk.engine.ledger.find(id) {
                let at = self.true_at(self.talk.engine.ledger.message(slot).expires);
                assert!(promise.is_kept(at), "{id}: {at}, not {}..{}", promise.from, promise.to);
            } else {
                assert!(promise.from <= true_ms + 5, "{id} has expired too early");
                self.expiries.remove(&id);
            }
        }
    }
}

#[test]
fn delays_and_times_to_live_last_as_long_as_was_asked_for_with_known_seeds() {
    for seed in 1..=20 {
        run(seed, 300);
    }
}

#[test]
fn delays_and_times_to_live_last_as_long_as_was_asked_for_with_another_seed_each_time() {
    let seed = seed();
    println!("PHPMQ_SEED={seed} PHPMQ_STEPS={}", steps());
    // World after world, since all messages of one are looked at after each step and few of them
    // ever go.
    for world in 0..steps().div_ceil(STEPS_OF_A_WORLD) {
        run(seed.wrapping_add(world), steps().min(STEPS_OF_A_WORLD));
    }
}
