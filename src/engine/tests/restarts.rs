//! What survives a restart beside the messages: attempts, dead letters, what an operator has set.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policies::{apply, failures, policy, row, under};
use super::{START, Talk, queue};
use crate::engine::Engine;
use crate::engine::load::Loader;
use crate::words::cause::{Cause, Reason};
use crate::words::change::{Change, Counters, MessageState, StateRow, StoredMessage};
use crate::words::clock::{Now, Time};
use crate::words::ids::{MessageId, QueueId, Sequence};
use crate::words::limits::{LimitValues, Limits};
use crate::words::statistics::Failures;

/// What the database has of the messages, for another life.
fn next_life(t: &mut Talk) -> Loader {
    let saved = t.engine.unsaved_counters();
    let engine =
        Engine::new(Arc::new(Limits::new(&LimitValues::default())), t.engine.next_id(), 1 << 40, 1);
    let mut loader = Loader::new(engine, t.now);
    let mut messages = BTreeMap::new();
    for change in t.changes.drain(..).chain(saved) {
        match change {
            Change::QueueNamed { id, name } => loader.queue(id, &name),
            Change::Put(row) => drop(messages.insert(row.id, StoredMessage::from(&row))),
            Change::Moved(row) => messages.get_mut(&row.id).unwrap().moved = Some(row.clone()),
            Change::QueueSet(row) => loader.setting(row),
            other => panic!("not expected: {other:?}"),
        }
    }
    messages.values().for_each(|row| loader.message(row));
    loader
}

#[test]
fn a_dead_letter_is_where_it_was_after_a_restart_and_goes_home_with_its_place_and_its_life() {
    let policies = || vec![policy("q", 1, &[], "failed"), policy("failed", 1, &[], "")];
    let mut t = under("a", policies());
    for id in 1..=4 {
        t.say('a', &format!("put pri {} ttl 50000", 10 - id));
    }
    for id in [3, 1] {
        t.say('a', &format!("take {id}"));
        t.say('a', &format!("fail {id} because no such host"));
    }
    let before = [failures(&mut t, 3), failures(&mut t, 1)];
    assert_eq!(before[0].reason.as_ref().map(Reason::as_str), Some("no such host"));
    t.pass(20_000);
    let (engine, dropped) = next_life(&mut t).finish();
    assert_eq!(dropped, []);
    let now = t.now;
    let mut t = Talk::over(engine).workers("a");
    t.now = now;
    apply(&mut t, policies());
    assert_eq!([failures(&mut t, 3), failures(&mut t, 1)], before);
    // Its time has not gone on in the queue of dead letters; that of the others has.
    assert_eq!(t.pass(30_000), "");
    t.say('a', "use failed");
    assert_eq!(t.say('a', "kick 1"), "a kicked 1");
    assert_eq!((t.state(3).as_str(), t.state(1).as_str()), ("Ready", "Ready"));
    assert_eq!(failures(&mut t, 3), Failures::default());
    assert_eq!(t.say('a', "kick 1"), "a kicked 1");
    let order: Vec<String> = (0..2).map(|_| t.say('a', "reserve")).collect();
    assert_eq!(order, ["a reserved 3 ttl 50000", "a reserved 1 ttl 50000"]);
}

#[test]
fn attempts_after_which_a_message_was_ready_at_once_are_written_at_a_stop() {
    let mut t = under("ab", vec![policy("q", 3, &[], "failed")]);
    t.say('a', "put ttr 1000");
    t.say('a', "reserve");
    // Written when it is handed out, since it was delayed: its attempt comes after that.
    t.say('a', "put q delay 9000");
    t.say('b', "take 2");
    let written = t.changes.len();
    t.pass(1_000);
    t.close('b');
    assert_eq!(t.changes.len(), written, "neither a time-out nor a lost connection writes");
    let (engine, _) = next_life(&mut t).finish();
    let now = t.now;
    let mut t = Talk::over(engine).workers("a");
    t.now = now;
    let timed_out = Failures { attempts: 1, cause: Some(Cause::TimedOut), ..Failures::default() };
    assert_eq!(failures(&mut t, 1), timed_out);
    let lost = Failures { cause: Some(Cause::ConnectionLost), ..timed_out };
    assert_eq!(failures(&mut t, 2), lost);
}

#[test]
fn what_an_operator_has_set_is_in_force_after_a_restart() {
    let mut t = Talk::new().workers("a");
    t.say('a', "hold r");
    t.say('a', "limit q 1 1 1");
    t.say('a', "hold q");
    t.say('a', "resume q");
    let (engine, dropped) = next_life(&mut t).finish();
    assert_eq!(dropped, []);
    let mut t = Talk::over(engine).workers("a");
    assert_eq!(t.say('a', "queues"), "a queues q r");
    assert_eq!(t.say('a', "put"), "a put 1");
    assert_eq!(t.say('a', "put"), "a refused QueueFull");
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
    t.say('a', "use r");
    t.say('a', "put");
    t.say('a', "watch r");
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    assert_eq!(t.say('a', "resume r"), "a Configured");
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 2");
}

/// Not written by this daemon, but what the format can hold: a message that was moved for good.
#[test]
fn a_message_that_is_in_another_queue_for_good_stays_there() {
    let engine = Engine::new(Arc::new(Limits::new(&LimitValues::default())), 1, 1 << 40, 1);
    let now = Now { time: Time(START), wall_offset_ms: 0 };
    let mut loader = Loader::new(engine, now);
    loader.queue(QueueId(2), &queue("q"));
    let row = StateRow {
        id: MessageId(1),
        queue: Some(QueueId(2)),
        state: MessageState::Ready,
        priority: 1,
        sequence: Sequence(5),
        due: None,
        expires_ms: None,
        delay_ms: 0,
        counters: Counters::default(),
        failure: None,
    };
    let stored = StoredMessage {
        id: MessageId(1),
        queue: QueueId(1),
        moved: Some(row),
        ..StoredMessage::default()
    };
    loader.message(&stored);
    let (engine, dropped) = loader.finish();
    assert_eq!(dropped, []);
    let mut t = Talk::over(engine).workers("a");
    apply(&mut t, vec![policy("q", 1, &[], "failed")]);
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
    t.say('a', "bury 1");
    assert!(row_queue(&t, 1).is_some_and(|queue| queue != QueueId(2)), "the dead letters");
    t.say('a', "kick-one 1");
    assert_eq!(row_queue(&t, 1), Some(QueueId(2)));
}

fn row_queue(t: &Talk, id: u64) -> Option<QueueId> {
    row(t, id).queue
}
