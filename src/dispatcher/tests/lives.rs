//! Dispatcher and persistence thread over an engine that is no file, life after life: each is built
//! from what the last one has left behind the door.

use std::thread::JoinHandle;

use super::*;
use crate::persistence;
use crate::store::AtStart;
use crate::store::testing::maps::{Fails, MapStore, Maps};

/// How long a stop may take, in milliseconds.
const STOP_TIMEOUT_MS: u64 = 60_000;

struct Life {
    stage: Stage,
    persistence: JoinHandle<Result<(), StoreError>>,
}

impl Life {
    fn begin(maps: &Maps) -> Life {
        let database = AtStart::<MapStore>::open(Some(maps), &mut |_| ()).unwrap();
        let AtStart { memory, store, facts, .. } = database;
        let settings = Settings::default();
        let limits = Arc::new(Limits::new(&settings.limits));
        let beginning = Clock::go_on(facts.clock).beginning();
        let (engine, dropped) = build_engine(&memory, &facts, limits.clone(), beginning).unwrap();
        assert_eq!(dropped, []);
        let mut stage = Stage::over(settings, limits, engine, memory);
        let orders = std::mem::replace(&mut stage.orders, channels::orders().1);
        let (finished, events) = (stage.finished.clone(), stage.events.clone());
        let (progress, log) = (stage.shared.progress.clone(), stage.dispatcher.log.clone());
        let store = store.unwrap();
        persistence::look(&store, &progress).unwrap();
        let body = move || persistence::run(store, orders, finished, events, progress, log);
        let persistence = std::thread::Builder::new().spawn(body).unwrap();
        Life { stage: stage.connect("a", "beanstalk", Durability::Write), persistence }
    }

    /// What is said, and what is answered once persistence has done its part.
    fn say(&mut self, text: &str) -> String {
        self.stage.say('a', text);
        self.settle();
        self.stage.hear('a')
    }

    fn settle(&mut self) {
        while self.stage.dispatcher.commits.under_way.is_some() {
            let event = self.stage.dispatcher.events.recv().unwrap();
            self.stage.dispatcher.turn_at(self.stage.now, Some(event));
            self.stage.turn();
        }
    }

    /// The process ends at once.
    fn kill(self) {
        drop(self.stage);
        self.persistence.join().unwrap().unwrap();
    }

    fn stop(self) {
        let mut dispatcher = self.stage.dispatcher;
        dispatcher.stop_timeout_ms = STOP_TIMEOUT_MS;
        self.stage.events.send(Event::Stop).unwrap();
        let stopped = dispatcher.run(Vec::new());
        assert!(matches!(stopped, Ok(Stopped::Clean)), "{stopped:?}");
        self.persistence.join().unwrap().unwrap();
    }
}

/// Sends with a key, and returns the id that the message has or joins.
fn send_keyed(life: &mut Life, body: &str) -> String {
    life.stage.open('p', "phpmq", Durability::Write);
    let packets = [(7, "key"), (8, "600"), (1, "q"), (2, body), (5, "0"), (6, "asked")];
    life.stage.say('p', phpmq(1, &packets));
    life.settle();
    let answer = life.stage.hear('p');
    answer.split_once("P03").expect("it is confirmed").1[29..29 + 32].to_owned()
}

#[test]
fn what_is_put_set_aside_and_done_is_so_in_the_next_life() {
    let maps = Maps::default();
    let mut life = Life::begin(&maps);
    life.say("use q\r\nwatch q\r\n");
    for (id, body) in ["done", "aside", "left", "held"].into_iter().enumerate() {
        assert_eq!(life.say(&put(body)), format!("INSERTED {}\r\n", id + 1));
    }
    let keyed = send_keyed(&mut life, "once");
    for id in 1..=4 {
        assert!(life.say("reserve\r\n").starts_with(&format!("RESERVED {id} ")));
    }
    assert_eq!(life.say("delete 1\r\n"), "DELETED\r\n");
    assert_eq!(life.say("bury 2 7\r\n"), "BURIED\r\n");
    assert_eq!(life.say("release 3 5 0\r\n"), "RELEASED\r\n");
    life.kill();

    let mut life = Life::begin(&maps);
    life.say("use q\r\nwatch q\r\n");
    assert_eq!(send_keyed(&mut life, "twice"), keyed);
    assert_eq!(life.say("peek-buried\r\n"), "FOUND 2 5\r\naside\r\n");
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(life.say("reserve-with-timeout 0\r\n"));
    }
    let expected = ["RESERVED 4 4\r\nheld", "RESERVED 3 4\r\nleft", "RESERVED 5 4\r\nonce"];
    assert_eq!(taken, expected.map(|answer| format!("{answer}\r\n")));
    assert_eq!(life.say("reserve-with-timeout 0\r\n"), "TIMED_OUT\r\n");
    assert_eq!(life.say("delete 5\r\n"), "DELETED\r\n");
    assert_eq!(life.say("kick 1\r\n"), "KICKED 1\r\n");
    let inserted = life.say(&put("last"));
    let last: u64 = inserted.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(last > 5, "ids of a life that was killed are not used again");
    life.stop();

    let mut life = Life::begin(&maps);
    life.say("use q\r\nwatch q\r\n");
    assert_eq!(send_keyed(&mut life, "thrice"), "0".repeat(32), "its key outlives it");
    let ready: Vec<u64> = maps.rows().messages.keys().map(|id| id.0).collect();
    assert_eq!(ready, [2, 3, 4, last]);
    assert_eq!(life.say(&put("next")), format!("INSERTED {}\r\n", last + 1));
    assert_eq!(life.say("peek-buried\r\n"), "NOT_FOUND\r\n");
    life.stop();
    assert!(maps.rows().keys.len() == 1 && maps.rows().queues.len() == 1);
}

#[test]
fn after_a_failed_commit_all_rows_come_anew() {
    for how in [Fails::Kept, Fails::Lost] {
        let maps = Maps::default();
        let mut life = Life::begin(&maps);
        life.say("use q\r\nwatch q\r\n");
        life.say(&put("before"));
        maps.fail(how);
        life.stage.say('a', put("meanwhile"));
        life.settle();
        life.stage.say('a', "reserve\r\ndelete 1\r\n");
        // The file is written anew, and everything that was answered is in it.
        for _ in 0..100 {
            life.stage.pass(1_000);
            life.settle();
        }
        assert!(!life.stage.dispatcher.commits.rewrite.is_needed(), "{how:?}");
        assert_eq!(life.stage.shared.progress.rows_rewritten(), 2, "{how:?}");
        let after = life.say(&put("after"));
        assert!(after.ends_with("INSERTED 3\r\n"), "{how:?}: {after}");
        life.kill();
        let bodies: Vec<Vec<u8>> =
            maps.rows().messages.values().map(|(row, _)| row.body.to_vec()).collect();
        assert_eq!(bodies, [&b"meanwhile"[..], b"after"], "{how:?}");
    }
}
