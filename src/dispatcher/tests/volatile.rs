//! Volatile messages: what waits for no disk, what is charged, and what waits for the disk once they
//! become durable.

use std::sync::Mutex;
use std::thread;

use super::*;
use crate::words::key::{Key, KeyTerm};
use crate::words::limits::MESSAGE_OVERHEAD_BYTES;
use Durability::{Periodic, Sync, Write};

fn promote(id: u64) -> Command {
    Command::Promote(MessageId(id))
}

fn keyed() -> Option<KeyedBy> {
    Some(KeyedBy { key: Key::new(b"k").unwrap(), term: KeyTerm::UntilDone })
}

/// A peer at this level with two volatile messages.
fn with_two(level: Durability) -> Stage {
    let mut s = Stage::new().connect("a", "beanstalk", level);
    s.ask('a', put_volatile("one", None));
    s.ask('a', put_volatile("two", None));
    assert_eq!(s.hear('a'), "INSERTED 1\r\nINSERTED 2\r\n");
    s
}

fn ids(batch: &Batch) -> Vec<u64> {
    batch
        .part(0..batch.places())
        .map(|row| match row {
            crate::journal::Row::Put(row) => row.id.0,
            other => panic!("{other:?} is no put"),
        })
        .collect()
}

#[test]
fn nothing_of_a_volatile_message_waits_for_the_disk_or_gets_there() {
    for level in [Write, Sync] {
        let mut s = with_two(level);
        s.say('a', "peek 2\r\nreserve\r\n");
        assert_eq!(s.hear('a'), "FOUND 2 3\r\ntwo\r\nRESERVED 1 3\r\none\r\n");
        s.say('a', "release 1 0 0\r\nreserve\r\nbury 1 0\r\nkick-job 1\r\n");
        let heard = s.hear('a');
        assert_eq!(heard, "RELEASED\r\nRESERVED 1 3\r\none\r\nBURIED\r\nKICKED\r\n");
        s.say('a', "delete 1\r\npeek 1\r\ndelete 2\r\n");
        assert_eq!(s.hear('a'), "DELETED\r\nNOT_FOUND\r\nDELETED\r\n");
        assert!(s.order().is_none());
        assert_eq!(s.wakes_in(), None);
    }
}

#[test]
fn at_the_start_of_a_turn_others_do_not_hold_them_up() {
    let mut s = with_two(Write).connect("b", "beanstalk", Write);
    s.say('b', put("x"));
    s.say('a', "delete 1\r\n");
    assert_eq!((s.hear('a'), s.hear('b')), ("DELETED\r\n".into(), String::new()));
    assert_eq!(s.commit().0, 2, "the message and its queue");
}

#[test]
fn a_message_becomes_durable_with_the_commit_that_its_answer_waits_for() {
    let mut s = with_two(Write);
    s.say('a', put("three"));
    s.commit();
    s.hear('a');
    s.ask('a', promote(1));
    assert_eq!(s.hear('a'), "");
    let (batch, _) = s.order().unwrap();
    assert_eq!((ids(&batch), batch.late_puts()), (vec![1], 1));
    s.say('a', "peek 1\r\n");
    assert_eq!(s.hear('a'), "", "behind the answer that waits");
    s.finish(batch, Ok(()));
    assert_eq!(s.hear('a'), "PROMOTED\r\nFOUND 1 3\r\none\r\n");
    for _ in 0..2 {
        s.pass(TICK_MS);
        if s.order().is_some() {
            s.finished.send(Ok(())).unwrap();
            s.turn();
        }
    }
    let body = s.dispatcher.mirror.memory().body(MessageId(1), |_, body| body.to_vec());
    assert_eq!(body.unwrap(), Some(b"one".to_vec()), "the database in memory has it too");
    assert_eq!(s.dispatcher.mirror.memory().body(MessageId(2), |_, _| ()).unwrap(), None);
    s.say('a', "delete 1\r\n");
    assert_eq!(s.hear('a'), "", "its removal waits for a commit");
    assert_eq!(s.commit(), (1, false));
    assert_eq!(s.hear('a'), "DELETED\r\n");
}

#[test]
fn what_is_durable_already_waits_for_the_commit_of_its_put() {
    let mut s = with_two(Write).connect("b", "beanstalk", Write);
    s.ask('a', promote(1));
    let (batch, _) = s.order().unwrap();
    s.ask('b', promote(1));
    assert_eq!(s.hear('b'), "");
    s.finish(batch, Ok(()));
    assert_eq!((s.hear('a'), s.hear('b')), ("PROMOTED\r\n".into(), "PROMOTED\r\n".into()));
}

#[test]
fn at_level_periodic_the_tick_takes_it_to_the_disk() {
    let mut s = with_two(Periodic);
    s.ask('a', promote(2));
    assert_eq!(s.hear('a'), "PROMOTED\r\n");
    assert!(s.order().is_none());
    s.pass(TICK_MS);
    assert_eq!(s.commit(), (2, true), "the message and its queue");
}

#[test]
fn what_becomes_durable_and_is_removed_in_one_batch_is_nothing() {
    let mut s = with_two(Periodic);
    s.ask('a', promote(1));
    s.say('a', "delete 1\r\n");
    s.pass(TICK_MS);
    assert_eq!(s.commit().0, 1, "the queue was named, which is harmless");
    s.say('a', "peek 1\r\npeek 2\r\n");
    assert!(s.hear('a').ends_with("NOT_FOUND\r\nFOUND 2 3\r\ntwo\r\n"));
}

#[test]
fn a_commit_that_fails_leaves_it_durable_and_comes_again() {
    let mut s = with_two(Write);
    s.say('a', put("three"));
    s.commit();
    s.hear('a');
    s.ask('a', promote(2));
    s.fail(disk_full());
    s.say('a', "peek 2\r\n");
    assert_eq!(s.hear('a'), "");
    s.ask('a', promote(1));
    s.ask('a', put_volatile("four", None));
    s.pass(TICK_MS);
    let (batch, _) = s.order().unwrap();
    assert_eq!(ids(&batch), [2], "nothing else becomes durable while the disk takes nothing");
    s.finish(batch, Ok(()));
    let found = "FOUND 2 3\r\ntwo\r\nOUT_OF_MEMORY\r\nINSERTED 4\r\n";
    assert_eq!(s.hear('a'), format!("PROMOTED\r\n{found}"));
    s.ask('a', promote(1));
    assert_eq!(s.commit(), (1, false));
    assert_eq!(s.hear('a'), "PROMOTED\r\n");
}

#[test]
fn who_joins_a_volatile_message_with_a_durable_put_waits_for_its_commit() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.ask('a', put_volatile("one", keyed()));
    s.ask('b', put_volatile("other", keyed()));
    assert_eq!((s.hear('a'), s.hear('b')), ("INSERTED 1\r\n".into(), "JOINED 1\r\n".into()));
    let put = Put::new(Target::Referred, "other".as_bytes());
    let extras = Extras { keyed: keyed(), ..Extras::default() };
    s.ask('b', Command::PutWith(Box::new(PutWith { put, extras })));
    assert_eq!(s.hear('b'), "");
    assert_eq!(s.commit(), (3, false), "the message, its queue and its key");
    assert_eq!(s.hear('b'), "JOINED 1\r\n");
    s.say('a', "peek 1\r\n");
    assert_eq!(s.hear('a'), "FOUND 1 3\r\none\r\n");
}

#[test]
fn volatile_messages_are_charged_to_max_memory() {
    let limits = LimitValues { max_memory: 12_500, ..LimitValues::default() };
    for on_disk in [true, false] {
        let settings = Settings { limits, on_disk, ..Settings::default() };
        let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
        let mut accepted = 0;
        loop {
            s.ask('a', put_volatile(vec![b'x'; 1_000], None));
            if s.hear('a') == "OUT_OF_MEMORY\r\n" {
                break;
            }
            accepted += 1;
        }
        assert_eq!(accepted, 10);
        s.say('a', "delete 1\r\ndelete 2\r\n");
        s.ask('a', put_volatile("x", None));
        assert_eq!(s.hear('a'), "DELETED\r\nDELETED\r\nINSERTED 11\r\n");
    }
}

/// Pages that messages have left are used again, but never by a volatile one.
#[test]
fn free_pages_of_the_database_in_memory_are_no_room_for_volatile_messages() {
    const MAX: u64 = 8 * 1024 * 1024;
    const BODY: u64 = 100_000;
    let limits = LimitValues { max_memory: MAX, ..LimitValues::default() };
    let settings = Settings { limits, on_disk: false, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Periodic);
    let each = BODY + MESSAGE_OVERHEAD_BYTES;
    for _ in 0..MAX / each - 3 {
        s.say('a', put(&"x".repeat(BODY as usize)));
        s.pass(TICK_MS);
    }
    for id in 1..=MAX / each - 3 {
        s.say('a', format!("delete {id}\r\n"));
    }
    s.pass(TICK_MS);
    s.hear('a');
    assert_eq!(s.dispatcher.engine.stored(), (0, 0));
    let mut bytes = 0;
    loop {
        s.ask('a', put_volatile(vec![b'x'; BODY as usize], None));
        if s.hear('a') == "OUT_OF_MEMORY\r\n" {
            break;
        }
        bytes += each;
    }
    assert!((MAX / 2..MAX / 4 * 3).contains(&bytes), "{bytes} bytes beside the pages");
}

/// It would be as small as if they were not there.
#[test]
fn volatile_messages_make_a_new_file_no_larger() {
    let mut s = with_two(Periodic);
    let sizes = store::Sizes {
        file_bytes: 1024 * 1024,
        disk_free_bytes: 1024 * 1024,
        ..store::Sizes::default()
    };
    s.shared.progress.measured(&sizes);
    s.ask('a', put_volatile(vec![b'x'; 1024 * 1024], None));
    assert!(s.dispatcher.is_worth_a_new_file(&disk_full()));
    s.ask('a', promote(3));
    assert!(!s.dispatcher.is_worth_a_new_file(&disk_full()));
}

/// What a daemon logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl slog::Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().unwrap().push(record.msg().to_string());
        Ok(())
    }
}

#[test]
fn a_stop_says_once_that_volatile_messages_are_dropped_and_misses_none() {
    for is_failing in [false, true] {
        let mut s = with_two(Periodic);
        s.say('a', put("three"));
        s.ask('a', promote(1));
        let lines = Lines::default();
        let Stage { mut dispatcher, orders, finished, .. } = s;
        dispatcher.log = Logger::root(lines.clone(), slog::o!());
        let (events, received) = channels::events();
        events.send(Event::Stop).unwrap();
        drop(events);
        dispatcher.events = received;
        dispatcher.stop_timeout_ms = 60_000;
        let persistence = thread::Builder::new().spawn(move || {
            let mut fails = is_failing;
            for order in orders {
                let (Order::Commit { batch, .. } | Order::Close { batch, .. }) = &order else {
                    panic!("another order");
                };
                assert_eq!((ids(batch), batch.clean_stop()), (vec![1, 3], Some(4)));
                if let Order::Close { messages: Some(messages), .. } = order {
                    assert_eq!(messages, 2, "what the file is compared with");
                }
                drop(order);
                let result = if std::mem::take(&mut fails) { Err(disk_full()) } else { Ok(()) };
                finished.send(result).unwrap();
            }
        });
        let stopped = dispatcher.run(Vec::new());
        assert!(matches!(stopped, Ok(Stopped::Clean)), "{stopped:?}");
        persistence.unwrap().join().unwrap();
        let lines = lines.0.lock().unwrap();
        let dropped = lines.iter().filter(|line| *line == "volatile messages are dropped");
        assert_eq!(dropped.count(), 1, "{lines:?}");
    }
}
