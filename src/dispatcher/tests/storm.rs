//! A storm of commands, failing commits, rewrites and stops, beside a plain map of the messages
//! that live.
//!
//! Dispatcher, engine, journal and the database in memory are real; persistence is a [`Disk`], which
//! takes its time. Compared with the map are:
//!
//! - after each turn, what is found of each message in the journal or in memory, byte for byte;
//! - with each answer that promises something, what is in the file at that moment;
//! - when the disk fails no more and all has come to rest, the rows in memory and those in the
//!   file, with nothing left in the journal;
//! - after a stop in the midst of it, the rows in the file.
//!
//! A run that fails has printed its `PHPMQ_SEED`: with that in the environment it comes again. (A
//! stop goes by the real clock, so now and then its last orders are others.)

mod disk;
mod peers;
mod rows;

use std::thread;

use super::*;
use crate::dispatcher::pace::WorkPace;
use crate::protocol::wire::testing::Random;
use crate::words::body::BodyRef;
use crate::words::change::Attributes;
use crate::words::limits::MESSAGE_OVERHEAD_BYTES;
use disk::Disk;
use peers::Peer;
use rows::{Living, Rows};

/// Each keeps its database in memory to the end, several megabytes.
const PLAYS: usize = 40;
const STEPS_MAX: usize = 250;
/// More than there are slices of a file.
const TURNS_TO_REST_MAX: usize = 100;
/// How long a stop may take, in milliseconds; the disk lets it end long before.
const STOP_TIMEOUT_MS: u64 = 60_000;
/// A stop goes by the real clock. All that a play has put off must be due by that.
const LONG_AGO_MS: u64 = 24 * 3_600_000;

/// What the plays have come across.
#[derive(Debug, Default)]
struct Tally {
    commits: usize,
    full: usize,
    io_errors: usize,
    rewrites: usize,
    /// Those of several slices.
    long_rewrites: usize,
    /// Suspect files that could be trusted again.
    revivals: usize,
    failures_at_stop: usize,
    refused: usize,
    /// Volatile messages that became durable.
    promoted: usize,
    promised: usize,
    given_up: usize,
    /// After so many turns, a batch was half in memory.
    half_in: usize,
    /// After so many turns, memory lagged behind by batches that are not merged.
    far_behind: usize,
}

struct Storm<'t> {
    stage: Stage,
    on_disk: bool,
    random: Random,
    disk: Disk<'t>,
    /// The order that persistence has taken.
    in_hand: Option<Order>,
    living: Living,
    /// One at level `periodic` and one at level `write`.
    peers: [Peer; 2],
    next_id: u64,
    /// Bytes of all messages that there have been.
    put_bytes: u64,
    /// How many of ten messages are large.
    large_of_ten: usize,
    /// How many of a hundred steps are persistence's.
    orders_percent: usize,
}

impl<'t> Storm<'t> {
    fn new(mut random: Random, tally: &'t mut Tally) -> Storm<'t> {
        let on_disk = random.below(8) > 0;
        let mut stage = Stage::with(Settings { on_disk, ..Settings::default() });
        stage.now.time = Time(stage.now.time.0 - LONG_AGO_MS);
        stage.dispatcher.commits.pace = WorkPace::from_rows([1, 4, 2_000][random.below(3)]);
        let stage = stage.connect("p", "beanstalk", Durability::Periodic);
        Storm {
            stage: stage.connect("w", "beanstalk", Durability::Write),
            on_disk,
            disk: Disk::new([0, 5, 20, 50][random.below(4)], tally),
            in_hand: None,
            living: Living::new(),
            peers: ['p', 'w'].map(Peer::new),
            next_id: 1,
            put_bytes: 0,
            large_of_ten: [0, 1, 2, 7][random.below(4)],
            orders_percent: [5, 15, 40][random.below(3)],
            random,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0 => self.remove_all(),
            1 => self.pass(2 * TIMEOUT_MS),
            2..20 => self.pass(2 * TICK_MS),
            number if number < 20 + self.orders_percent => self.persist(),
            _ => (0..=self.random.below(6)).for_each(|_| self.command()),
        }
        self.turn();
    }

    fn pass(&mut self, millis_max: u64) {
        let millis = self.random.below(usize::try_from(millis_max).unwrap());
        self.stage.now.time = self.stage.now.time.plus(millis as u64);
    }

    /// Persistence takes its next order, and carries it out now or another time.
    fn persist(&mut self) {
        self.take_order();
        if self.random.below(3) > 0 {
            self.carry_out_order();
        }
    }

    fn take_order(&mut self) {
        self.in_hand = self.in_hand.take().or_else(|| self.stage.orders.try_recv().ok());
    }

    fn carry_out_order(&mut self) {
        let Some(order) = self.in_hand.take() else { return };
        let result = self.disk.carry_out(order, &mut self.random);
        self.stage.finished.send(result).unwrap();
        self.stage.events.send(Event::Persisted).unwrap();
    }

    fn turn(&mut self) {
        self.stage.dispatcher.turn_at(self.stage.now, None);
        self.hear(0);
        self.hear(1);
        self.check_bodies();
        self.check_journal();
    }

    fn check_bodies(&mut self) {
        let Dispatcher { commits, mirror, .. } = &mut self.stage.dispatcher;
        for (id, message) in &self.living {
            let mut is_right = false;
            let compare =
                |_: &Attributes, body: BodyRef<'_>| is_right = message.has_body(*id, &body);
            let found = mirror.lend(&commits.journal, *id, 0, compare).unwrap();
            assert!(found && is_right, "the body of message {id}");
        }
    }

    fn check_journal(&mut self) {
        let Dispatcher { commits: Commits { journal, .. }, mirror, .. } = &self.stage.dispatcher;
        let rows = self.living.keys().filter_map(|id| journal.message(*id));
        let waiting: u64 = rows.map(|row| row.body.len() as u64 + MESSAGE_OVERHEAD_BYTES).sum();
        let bytes = journal.bytes() + mirror.lacking_bytes();
        assert!(bytes >= waiting, "{bytes} bytes, {waiting} of messages");
        // A message counts besides when memory has it too.
        let besides = journal.bytes_besides_messages() + mirror.lacking_bytes_besides_messages();
        assert!(besides <= bytes + self.put_bytes);
        self.disk.tally.half_in += usize::from(mirror.is_busy());
        self.disk.tally.far_behind += usize::from(mirror.is_busy() && mirror.lags());
    }

    /// The disk fails no more, and time passes until nothing is left to be done.
    fn come_to_rest(&mut self) {
        self.disk.failures_percent = 0;
        for _ in 0..TURNS_TO_REST_MAX {
            self.take_order();
            self.carry_out_order();
            self.turn();
            match self.stage.wakes_in() {
                Some(millis) => self.stage.now.time = self.stage.now.time.plus(millis),
                None if self.stage.dispatcher.commits.under_way.is_none() => return,
                None => {}
            }
        }
        panic!("it does not come to rest");
    }

    fn check_rest(&mut self) {
        let Dispatcher { commits: Commits { journal, .. }, mirror, .. } =
            &mut self.stage.dispatcher;
        assert_eq!((journal.bytes(), journal.bytes_besides_messages()), (0, 0));
        assert_eq!((mirror.lacking_bytes(), mirror.lacking_bytes_besides_messages()), (0, 0));
        assert!(!mirror.lags());
        assert!(self.peers.iter().all(Peer::has_heard_all), "an answer is missing");
        let in_memory = Rows::of(mirror.memory());
        in_memory.check(&self.living, &self.peers.each_ref().map(|peer| peer.uses));
        assert!(!self.on_disk || in_memory == self.disk.file, "memory and file differ");
    }

    /// The dispatcher stops as it is, and the disk fails some more times.
    fn stop(self) {
        let Storm { stage, mut disk, mut random, in_hand, living, peers, .. } = self;
        let Stage { mut dispatcher, orders, finished, .. } = stage;
        dispatcher.stop_timeout_ms = STOP_TIMEOUT_MS;
        disk.failures_percent = 50;
        // Between two attempts it waits for events, unless nobody is left who could send any.
        let (events, received) = channels::events();
        events.send(Event::Stop).unwrap();
        drop(events);
        dispatcher.events = received;
        let disk = thread::scope(|scope| {
            let persistence = move || disk.serve(in_hand, &orders, &finished, &mut random);
            let persistence = thread::Builder::new().spawn_scoped(scope, persistence).unwrap();
            let stopped = dispatcher.run(Vec::new());
            assert!(matches!(stopped, Ok(Stopped::Clean)), "{stopped:?}");
            persistence.join().unwrap()
        });
        if self.on_disk {
            disk.file.check(&living, &peers.map(|peer| peer.uses));
        }
    }
}

#[test]
fn memory_and_file_become_what_the_peers_were_told_whatever_fails() {
    let mut random = Random::announced();
    let mut tally = Tally::default();
    for play in 0..PLAYS {
        let mut storm = Storm::new(random.fork(), &mut tally);
        println!("play {play}");
        for _ in 0..storm.random.below(STEPS_MAX) {
            storm.step();
        }
        if play % 2 == 0 {
            storm.stop();
        } else {
            storm.come_to_rest();
            storm.check_rest();
        }
    }
    println!("{tally:?}");
    let Tally { commits, full, io_errors, rewrites, long_rewrites, failures_at_stop, .. } = tally;
    let at_disk =
        [commits, full, io_errors, rewrites, long_rewrites, tally.revivals, failures_at_stop];
    // Far behind it is in nearly all runs, and that is left to chance.
    let Tally { refused, promoted, promised, given_up, half_in, .. } = tally;
    let elsewhere = [refused, promoted, promised, given_up, half_in];
    assert!(at_disk.into_iter().chain(elsewhere).all(|count| count > 0), "{tally:?}");
}
