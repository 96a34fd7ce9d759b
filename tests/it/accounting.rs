//! Every message is accounted for, outside of the daemon, while it is killed at random moments.
//!
//! Producers and consumers of both protocols note in one ledger what they sent, what was confirmed
//! to them, what they were handed and what they did with it. A body says who made it, its number,
//! and a checksum. After the last restart everything is drained, and [`Ledger::verdict`] compares.
//! A run without the promise (answers long before the disk) must be seen to lose: the ledger can
//! find something.
//!
//! Some producers send with a key, and send again what they have sent before (`keyed`). What fails
//! twice becomes a dead letter.
//!
//! `PHPMQ_KILL_CYCLES` sets how often each level is killed, `PHPMQ_SEED` repeats a run's choices.

mod keyed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Beanstalk, Phpmq, Server, Setup, Stream, eventually, now, packets};

const BEANSTALK_PRODUCERS: u64 = 2;
const PHP_MQ_PRODUCERS: u64 = 2;
const KEYED_PRODUCERS: u64 = 2;
const CONSUMERS_OF_EACH_KIND: u64 = 2;
/// Sent and not confirmed at the same time, per producer.
const UNDER_WAY_MAX: usize = 8;
const TUBE: &str = "work";
const FAILED: &str = "work.failed";
const POLICY: &str = "queues = \"work\"\nmax_attempts = 2\ndead_letter = \"work.failed\"";

/// What level `periodic` may lose: a commit under way, and what waits for the next one.
const COMMITS_UNPROMISED: u64 = 2;

/// A producer and the number of its message.
type Name = (u64, u64);

/// When something was confirmed, and in which life of the daemon.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    life: u64,
    at: Instant,
}

impl Confirmed {
    fn now(life: u64) -> Confirmed {
        Confirmed { life, at: now() }
    }
}

/// What is known of one message.
#[derive(Clone, Debug, Default)]
struct Entry {
    confirmed: Option<Confirmed>,
    /// The id that it was confirmed with.
    id: u64,
    /// The ids of those that it has joined when it was sent again after that; 0 is one that is gone.
    joined: Vec<u64>,
    /// The lives of the daemon in which it was handed out, one for each time.
    handed: Vec<u64>,
    /// The lives in which somebody gave it back, so that it might be handed out once more.
    released: Vec<u64>,
    /// Somebody has said that it is done, and may have been heard.
    done: bool,
    done_confirmed: Option<Confirmed>,
    buried: Option<Confirmed>,
}

/// What all peers note.
#[derive(Default)]
struct Ledger {
    entries: Mutex<BTreeMap<Name, Entry>>,
    ids: Mutex<BTreeSet<u64>>,
    complaints: Mutex<Vec<String>>,
    /// The same about the order, with the life in which it was.
    disorder: Mutex<Vec<(u64, String)>>,
    confirmed: AtomicU64,
    /// For each life, up to when what was confirmed is promised; `None` where all of it is.
    promised_until: Mutex<Vec<Option<Instant>>>,
    /// The lives that ended in a stop: it ends one connection after the other, and what the first
    /// one held, also what it has not read yet, goes to the others.
    stopped: Mutex<BTreeSet<u64>>,
}

impl Ledger {
    fn note(&self, name: Name, change: impl FnOnce(&mut Entry)) {
        change(self.entries.lock().unwrap().get_mut(&name).expect("it was sent"));
    }

    fn complain(&self, text: String) {
        self.complaints.lock().unwrap().push(text);
    }

    fn sent(&self, name: Name) {
        self.entries.lock().unwrap().insert(name, Entry::default());
    }

    fn confirmed(&self, name: Name, id: u64, life: u64) {
        self.note(name, |entry| {
            (entry.confirmed, entry.id) = (Some(Confirmed::now(life)), id);
        });
        if !self.ids.lock().unwrap().insert(id) {
            self.complain(format!("id {id} was given twice"));
        }
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that this body was handed out, as the consumer's `last` ones before it show in order.
    fn handed(&self, body: &str, life: u64, last: &mut BTreeMap<u64, u64>) -> Option<Name> {
        let name = read_body(body);
        let mut entries = self.entries.lock().unwrap();
        let Some((name, entry)) = name.and_then(|name| Some((name, entries.get_mut(&name)?)))
        else {
            self.complain(format!("unexpected: {body:?} was never sent"));
            return None;
        };
        // Whom a consumer meets for the first time it meets in the order of sending.
        if entry.handed.is_empty()
            && let Some(before) = last.insert(name.0, name.1)
            && before > name.1
        {
            let text = format!("out of order: {name:?} after {before}");
            self.disorder.lock().unwrap().push((life, text));
        }
        entry.handed.push(life);
        Some(name)
    }

    /// What was wrong, by kind. The last life is the one in which everything was drained.
    fn verdict(&self, drained: u64) -> Vec<String> {
        let mut verdict = self.complaints.lock().unwrap().clone();
        let promised_until = self.promised_until.lock().unwrap();
        let stopped = self.stopped.lock().unwrap();
        let disorder = self.disorder.lock().unwrap();
        let disorder = disorder.iter().filter(|(life, _)| !stopped.contains(life));
        verdict.extend(disorder.map(|(_, text)| text.clone()));
        let promised = |confirmed: Option<Confirmed>| {
            confirmed.filter(|confirmed| {
                let life = usize::try_from(confirmed.life).unwrap();
                let until = promised_until.get(life).copied().flatten();
                until.is_none_or(|until| confirmed.at <= until)
            })
        };
        for (name, entry) in self.entries.lock().unwrap().iter() {
            let handed_in = |life: u64| entry.handed.iter().filter(|l| **l == life).count();
            // Who is not said to be done is there to the end.
            if promised(entry.confirmed).is_some() {
                if !entry.done && handed_in(drained) == 0 {
                    verdict.push(format!("lost: {name:?} {entry:?}"));
                }
                if entry.joined.iter().any(|id| *id != entry.id && *id != 0) {
                    verdict.push(format!("queued twice: {name:?} {entry:?}"));
                }
            }
            if entry.joined.contains(&0) && !entry.done {
                verdict.push(format!("refused for nothing: {name:?} {entry:?}"));
            }
            for life in entry.handed.iter().copied().collect::<BTreeSet<_>>() {
                let released = entry.released.iter().filter(|l| **l == life).count();
                if handed_in(life) > 1 + released && !stopped.contains(&life) {
                    verdict.push(format!("twice without a cause: {name:?} {entry:?}"));
                }
                if promised(entry.done_confirmed).is_some_and(|done| done.life < life) {
                    verdict.push(format!("resurrected: {name:?} {entry:?}"));
                }
                let buried = promised(entry.buried);
                if buried.is_some_and(|buried| buried.life < life && life < drained) {
                    verdict.push(format!("buried and handed out: {name:?} {entry:?}"));
                }
            }
        }
        verdict
    }
}

fn body_of((producer, number): Name) -> String {
    let text = format!("{producer},{number}");
    format!("{text},{}", crc32c::crc32c(text.as_bytes()))
}

fn read_body(body: &str) -> Option<Name> {
    let (text, checksum) = body.rsplit_once(',')?;
    let (producer, number) = text.split_once(',')?;
    let sound = checksum.parse() == Ok(crc32c::crc32c(text.as_bytes()));
    sound.then_some((producer.parse().ok()?, number.parse().ok()?))
}

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Sends through beanstalk until the daemon is gone.
fn produce_beanstalk(mut peer: Stream, producer: u64, life: u64, ledger: &Ledger) -> Option<()> {
    let mut number = life * 1_000_000;
    peer.try_send(format!("use {TUBE}\r\n")).ok()?;
    peer.try_line()?;
    loop {
        let names: Vec<Name> = (0..UNDER_WAY_MAX as u64).map(|i| (producer, number + i)).collect();
        number += names.len() as u64;
        let mut sent = String::new();
        for name in &names {
            ledger.sent(*name);
            let body = body_of(*name);
            sent += &format!("put 1024 0 600 {}\r\n{body}\r\n", body.len());
        }
        peer.try_send(sent).ok()?;
        for name in names {
            let answer = peer.try_line()?;
            let id = answer.strip_prefix("INSERTED ").expect("a put is confirmed");
            ledger.confirmed(name, id.parse().unwrap(), life);
        }
    }
}

/// The same through php-mq, in the second revision.
fn produce_php_mq(stream: Stream, producer: u64, life: u64, ledger: &Ledger) -> Option<()> {
    let mut peer = Phpmq::new(stream, 2);
    let mut number = life * 1_000_000;
    loop {
        let first = number;
        number += UNDER_WAY_MAX as u64;
        let mut sent = Vec::new();
        for place in first..number {
            ledger.sent((producer, place));
            let body = body_of((producer, place));
            let correlation = place.to_string();
            let parts = [
                (1, TUBE.as_bytes()),
                (2, body.as_bytes()),
                (5, &b"0"[..]),
                (6, correlation.as_bytes()),
            ];
            sent.extend(packets(1, &parts));
        }
        peer.stream.try_send(sent).ok()?;
        for place in first..number {
            let (kind, parts) = peer.try_message()?;
            assert_eq!((kind, &*parts[1].1), (7, &*place.to_string()));
            let id = u64::from_str_radix(&parts[0].1[..16], 16).unwrap();
            ledger.confirmed((producer, place), id, life);
        }
    }
}

/// Works through beanstalk: mostly done, sometimes given back or set aside, sometimes left behind
/// by a worker that hangs up.
fn consume_beanstalk(address: &str, life: u64, seed: u64, ledger: &Ledger) {
    let mut random = Random(seed);
    while let Ok(peer) = Stream::try_connect(address) {
        if work_until_it_ends(peer, life, &mut random, ledger).is_none() {
            return;
        }
    }
}

/// One connection's work; nothing when it was the daemon that ended it.
fn work_until_it_ends(
    mut peer: Stream,
    life: u64,
    random: &mut Random,
    ledger: &Ledger,
) -> Option<()> {
    let mut last = BTreeMap::new();
    peer.try_send(format!("watch {TUBE}\r\n")).ok()?;
    peer.try_line()?;
    loop {
        peer.try_send("reserve\r\n").ok()?;
        let head = peer.try_line()?;
        if head == "TIMED_OUT" {
            // What a stop tells those who wait.
            return None;
        }
        let id = head.strip_prefix("RESERVED ").unwrap_or_else(|| panic!("{head}"));
        let id = id.split(' ').next().unwrap();
        let body = peer.try_line()?;
        let name = ledger.handed(&body, life, &mut last)?;
        match random.below(20) {
            0 => {
                ledger.note(name, |entry| entry.released.push(life));
                peer.try_send(format!("release {id} 1024 0\r\n")).ok()?;
                assert_eq!(peer.try_line()?, "RELEASED");
            }
            1 => {
                peer.try_send(format!("bury {id} 1024\r\n")).ok()?;
                assert_eq!(peer.try_line()?, "BURIED");
                ledger.note(name, |entry| entry.buried = Some(Confirmed::now(life)));
            }
            2 => {
                ledger.note(name, |entry| entry.released.push(life));
                return Some(());
            }
            3 => {
                ledger.note(name, |entry| entry.released.push(life));
                peer.try_send(format!("bury {id} 1024\r\nkick-job {id}\r\n")).ok()?;
                assert_eq!(
                    (peer.try_line()?, peer.try_line()?),
                    ("BURIED".into(), "KICKED".into())
                );
            }
            _ => {
                ledger.note(name, |entry| entry.done = true);
                peer.try_send(format!("delete {id}\r\n")).ok()?;
                assert_eq!(peer.try_line()?, "DELETED");
                ledger.note(name, |entry| entry.done_confirmed = Some(Confirmed::now(life)));
            }
        }
    }
}

/// Works through a php-mq window; its acknowledgements are not confirmed.
fn consume_php_mq(stream: Stream, life: u64, ledger: &Ledger) -> Option<()> {
    let mut peer = Phpmq::new(stream, 2);
    let mut last = BTreeMap::new();
    peer.stream.try_send(packets(2, &[(1, TUBE.as_bytes()), (4, b"5")])).ok()?;
    loop {
        let (kind, parts) = peer.try_message()?;
        assert_eq!(kind, 3);
        let name = ledger.handed(&parts[1].1, life, &mut last)?;
        ledger.note(name, |entry| entry.done = true);
        let acknowledgement = packets(4, &[(1, TUBE.as_bytes()), (3, parts[2].1.as_bytes())]);
        peer.stream.try_send(acknowledgement).ok()?;
    }
}

/// How long a life lasts, and how it ends.
#[derive(Clone, Copy)]
enum Life {
    /// Until some random number of messages was confirmed, then a kill or sometimes a stop.
    Random,
    /// The same, but always a kill.
    Killed,
    /// The same, but always a stop.
    Stopped,
    /// So many commits, then a kill; what the last two of them may lack is not promised.
    Commits(u64),
}

/// How many commits the daemon had made, and when it was asked; nothing where nobody asks.
#[derive(Default)]
struct Commits(Vec<(Instant, u64)>);

impl Commits {
    fn look_at(&mut self, server: &Server) -> u64 {
        let at = now();
        let count = server.console().number("commits");
        self.0.push((at, count));
        count
    }

    /// Whatever was confirmed by then is in the last commits.
    fn promised_until(&self) -> Option<Instant> {
        let last = self.0.last()?.1;
        let asked = self.0.iter().rev().find(|(_, count)| count + COMMITS_UNPROMISED <= last);
        Some(asked.expect("it lived for some commits").0)
    }
}

/// One life of the daemon: everybody at work, then a kill.
fn live_and_die(server: &mut Server, life: u64, how: Life, random: &mut Random, ledger: &Ledger) {
    let until = ledger.confirmed.load(Ordering::Relaxed) + 20 + random.below(400);
    let mut commits = Commits::default();
    let connect = |protocol| server.connect(protocol);
    let mut producers = Vec::new();
    for producer in 0..BEANSTALK_PRODUCERS {
        producers.push((producer, connect("beanstalk")));
    }
    let php_mq: Vec<_> =
        (0..PHP_MQ_PRODUCERS).map(|place| (100 + place, connect("phpmq"))).collect();
    let keyed: Vec<_> = (0..KEYED_PRODUCERS).map(|place| (200 + place, connect("phpmq"))).collect();
    let address = server.address("beanstalk").to_owned();
    let workers: Vec<u64> =
        (0..CONSUMERS_OF_EACH_KIND).map(|_| random.below(u64::MAX) | 1).collect();
    let windows: Vec<_> = (0..CONSUMERS_OF_EACH_KIND).map(|_| connect("phpmq")).collect();
    std::thread::scope(|scope| {
        for (producer, stream) in producers {
            scope.spawn(move || produce_beanstalk(stream, producer, life, ledger));
        }
        for (producer, stream) in php_mq {
            scope.spawn(move || produce_php_mq(stream, producer, life, ledger));
        }
        for (producer, stream) in keyed {
            scope.spawn(move || keyed::produce(stream, producer, life, ledger));
        }
        for seed in workers {
            let address = &address;
            scope.spawn(move || consume_beanstalk(address, life, seed, ledger));
        }
        for stream in windows {
            scope.spawn(move || consume_php_mq(stream, life, ledger));
        }
        eventually("it has lived enough", || match how {
            Life::Random | Life::Killed | Life::Stopped => {
                ledger.confirmed.load(Ordering::Relaxed) >= until
            }
            Life::Commits(least) => commits.look_at(server) >= least,
        });
        ledger.promised_until.lock().unwrap().push(commits.promised_until());
        let is_stopped = match how {
            Life::Random => random.below(4) == 0,
            Life::Stopped => true,
            Life::Killed | Life::Commits(_) => false,
        };
        if is_stopped {
            ledger.stopped.lock().unwrap().insert(life);
            assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
        } else {
            server.kill();
        }
    });
}

/// Takes everything that is there, buried ones last.
fn drain(server: &Server, life: u64, ledger: &Ledger) {
    let mut peer = Beanstalk::new(server.connect("beanstalk"));
    peer.ask(&format!("watch {TUBE}"));
    let mut last = BTreeMap::new();
    for _ in 0..2 {
        loop {
            let head = peer.ask("reserve-with-timeout 0");
            if head == "TIMED_OUT" {
                break;
            }
            let body = peer.stream.line();
            ledger.handed(&body, life, &mut last);
            let id = head.split(' ').nth(1).unwrap();
            assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
        }
        for tube in [TUBE, FAILED] {
            peer.ask(&format!("use {tube}"));
            let kicked = peer.ask("kick 1000000");
            assert!(kicked.starts_with("KICKED"));
            println!("{tube}: {kicked}");
        }
        // Who comes back from there comes at its old place.
        last.clear();
    }
}

/// Kills the daemon so often and returns what was wrong in the end.
fn account(setup: Setup, cycles: u64, how: Life) -> Vec<String> {
    let seed = seed();
    println!("seed {seed} (PHPMQ_SEED), {cycles} cycles (PHPMQ_KILL_CYCLES)");
    let mut random = Random(seed);
    let ledger = Ledger::default();
    let mut server = setup.policy(POLICY).log_level("info").start();
    for life in 0..cycles {
        live_and_die(&mut server, life, how, &mut random, &ledger);
        server.start_again();
    }
    drain(&server, cycles, &ledger);
    println!("{} confirmed", ledger.confirmed.load(Ordering::Relaxed));
    ledger.verdict(cycles)
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    let random = || rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_nsec;
    number_from_environment("PHPMQ_SEED")
        .unwrap_or_else(|| u64::try_from(random()).unwrap() << 8 | 1)
}

fn cycles() -> u64 {
    number_from_environment("PHPMQ_KILL_CYCLES").unwrap_or(4)
}

/// Nothing confirmed is lost, however shortly before the kill.
fn keeps_its_word(setup: Setup, cycles: u64) {
    let verdict = account(setup, cycles, Life::Random);
    assert!(verdict.is_empty(), "{verdict:#?}");
}

#[test]
fn kills_at_random_moments_lose_nothing_confirmed_at_level_write() {
    keeps_its_word(Setup::new().durability("write"), cycles());
}

#[test]
fn kills_at_random_moments_lose_nothing_confirmed_at_level_sync() {
    keeps_its_word(Setup::new().durability("sync"), cycles());
}

#[test]
fn with_a_long_tick_the_promised_levels_still_keep_their_word() {
    // Nothing but the answers' own commits is there to help.
    let setup = Setup::new().durability("write").storage("snapshot_interval = \"1h\"");
    keeps_its_word(setup, cycles().div_ceil(2));
}

#[test]
fn stops_under_load_lose_nothing_confirmed_at_any_level() {
    for level in ["periodic", "write", "sync"] {
        let setup = Setup::new().durability(level).storage("snapshot_interval = \"1h\"");
        let verdict = account(setup, cycles().div_ceil(2), Life::Stopped);
        assert!(verdict.is_empty(), "{level}: {verdict:#?}");
    }
}

#[test]
fn a_kill_at_level_periodic_loses_only_the_last_moment() {
    let setup = Setup::new().durability("periodic");
    let verdict = account(setup, cycles().div_ceil(40), Life::Commits(8));
    assert!(verdict.is_empty(), "{verdict:#?}");
}

#[test]
fn the_ledger_sees_what_a_daemon_that_promises_nothing_loses() {
    let setup = Setup::new().durability("periodic").storage("snapshot_interval = \"10s\"");
    let verdict = account(setup, 1, Life::Killed);
    assert!(verdict.iter().any(|line| line.starts_with("lost")), "the control lost nothing");
    assert!(verdict.iter().all(|line| line.starts_with("lost")), "{verdict:#?}");
}

#[test]
fn the_ledger_forgives_what_was_not_promised_yet_and_nothing_else() {
    let ledger = Ledger::default();
    for number in 0..2 {
        ledger.sent((1, number));
        ledger.confirmed((1, number), number, 0);
        ledger.promised_until.lock().unwrap().resize(1, Some(now()));
        std::thread::sleep(Duration::from_millis(1));
    }
    let verdict = ledger.verdict(1);
    assert!(verdict.len() == 1 && verdict[0].starts_with("lost: (1, 0)"), "{verdict:#?}");
}

#[test]
fn the_ledger_names_each_kind_of_fault() {
    let ledger = Ledger::default();
    let mut last = BTreeMap::new();
    for number in 0..6 {
        ledger.sent((1, number));
        ledger.confirmed((1, number), number, 0);
    }
    ledger.confirmed((1, 5), 5, 0);
    ledger.handed(&body_of((1, 2)), 0, &mut last);
    ledger.handed(&body_of((1, 2)), 0, &mut last);
    ledger.handed(&body_of((1, 1)), 0, &mut last);
    ledger.handed(&body_of((1, 9)), 0, &mut last);
    ledger.handed("1,3,12345", 0, &mut last);
    ledger.note((1, 3), |entry| entry.done_confirmed = Some(Confirmed::now(0)));
    ledger.note((1, 4), |entry| entry.buried = Some(Confirmed::now(0)));
    ledger.note((1, 2), |entry| entry.joined = vec![2, 0]);
    ledger.note((1, 3), |entry| (entry.joined, entry.done) = (vec![0, 7], true));
    ledger.handed(&body_of((1, 3)), 1, &mut BTreeMap::new());
    ledger.handed(&body_of((1, 4)), 1, &mut BTreeMap::new());
    let verdict = ledger.verdict(2);
    for start in [
        "id 5 was given twice",
        "out of order: (1, 1) after 2",
        "unexpected: \"1,9,",
        "unexpected: \"1,3,12345",
        "lost: (1, 0)",
        "twice without a cause: (1, 2)",
        "resurrected: (1, 3)",
        "buried and handed out: (1, 4)",
        "refused for nothing: (1, 2)",
        "queued twice: (1, 3)",
    ] {
        assert!(verdict.iter().any(|line| line.starts_with(start)), "{start} not in {verdict:#?}");
    }
}
