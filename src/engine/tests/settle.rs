//! What a holder says of its messages, and what others may say of them.

use super::Talk;
use crate::words::cause::{Cause, Reason};
use crate::words::change::{Change, MessageState, StateRow};
use crate::words::statistics::Failures;

fn last_row(t: &Talk) -> StateRow {
    let mut rows = t.changes.iter().filter_map(|change| match change {
        Change::Moved(row) => Some(row.clone()),
        _ => None,
    });
    rows.next_back().unwrap()
}

#[test]
fn a_removed_message_is_gone_from_the_store() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    t.changes.clear();
    assert_eq!(t.say('a', "remove 1"), "a Removed");
    assert_eq!(t.changes, [Change::Removed(crate::words::ids::MessageId(1))]);
    assert_eq!(t.say('a', "remove 1"), "a NotFound");
}

#[test]
fn ready_delayed_and_buried_messages_are_removed_by_anybody() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "bury 1");
    t.say('a', "put");
    t.say('a', "put q delay 1000");
    for id in 1..4 {
        assert_eq!(t.say('b', &format!("remove {id}")), "b Removed");
    }
    assert_eq!(t.pass(5_000), "");
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn what_somebody_else_holds_is_not_found() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "reserve");
    for text in ["remove 1", "release 1", "bury 1", "touch 1", "take 1", "kick-one 1"] {
        assert_eq!(t.say('b', text), "b NotFound", "{text}");
    }
    assert_eq!(t.say('b', "peek 1"), "b found 1", "looking is free");
}

#[test]
fn what_nobody_holds_cannot_be_released_buried_or_touched() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    for text in ["release 1", "bury 1", "touch 1", "release 9", "bury 9", "touch 9", "remove 9"] {
        assert_eq!(t.say('a', text), "a NotFound", "{text}");
    }
}

#[test]
fn a_buried_message_leaves_the_queue_until_it_is_kicked() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "bury 1 pri 7"), "a Buried");
    let row = last_row(&t);
    assert_eq!((row.state, row.priority, row.counters.buries), (MessageState::Buried, 7, 1));
    t.say('b', "reserve");
    assert_eq!(t.pass(1_000_000), "");
    assert_eq!(t.say('a', "kick 10"), "b reserved 1, a kicked 1");
}

#[test]
fn a_dead_letter_of_a_window_consumer_frees_its_place() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put");
    t.say('a', "put");
    t.say('c', "consume q 1");
    assert_eq!(t.say('c', "bury 1 q"), "c Buried, c dispatched 2");
    assert_eq!(t.state(1), "Buried");
    assert_eq!(t.say('c', "bury 2 other"), "c NotHeld");
    assert_eq!(t.state(2), "Reserved");
}

#[test]
fn a_release_writes_where_the_message_is_and_its_counters() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1 pri 3 delay 2000");
    let row = last_row(&t);
    assert_eq!((row.state, row.priority), (MessageState::Delayed, 3));
    assert_eq!((row.due, row.delay_ms), (Some(1_002_000), 2_000));
    assert_eq!((row.counters.reserves, row.counters.releases), (1, 1));
    assert_eq!(t.engine.unsaved_counters(), []);
}

#[test]
fn what_is_stored_does_not_move_with_the_wall_clock() {
    let mut t = Talk::new().workers("a");
    t.now.wall_offset_ms = -400_000;
    t.say('a', "put q delay 2000 ttl 9000");
    let [.., Change::Put(row)] = &t.changes[..] else { panic!("{:?}", t.changes) };
    assert_eq!(
        (row.created_ms, row.due_ms, row.expires_ms),
        (1_000_000, Some(1_002_000), Some(1_009_000))
    );
}

#[test]
fn reserving_and_touching_write_nothing() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.changes.clear();
    t.say('a', "reserve");
    t.say('a', "touch 1");
    assert_eq!(t.changes, []);
    let rows = t.engine.unsaved_counters();
    assert!(matches!(&rows[..], [Change::Moved(row)] if row.counters.reserves == 1
        && row.state == MessageState::Ready));
}

#[test]
fn a_queue_is_named_with_its_first_message_and_gone_with_its_last() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put r");
    t.say('a', "put r");
    let named = |c: &Change| matches!(c, Change::QueueNamed { name, .. } if name.as_str() == "r");
    assert!(named(&t.changes[0]));
    assert_eq!(t.changes.iter().filter(|change| named(change)).count(), 1);
    t.say('a', "remove 1");
    assert!(!t.changes.iter().any(|change| matches!(change, Change::QueueGone(_))));
    t.say('a', "remove 2");
    assert!(matches!(t.changes[..], [.., Change::Removed(_), Change::QueueGone(_)]));
}

#[test]
fn a_queue_that_comes_back_has_a_new_number() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put r");
    t.say('a', "remove 1");
    t.say('a', "put r");
    let numbers: Vec<u64> = t
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::QueueNamed { id, .. } => Some(id.0),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn a_put_is_answered_before_the_message_is_handed_out_and_stored_before_both() {
    let mut t = Talk::new().workers("ab");
    t.say('b', "reserve");
    assert_eq!(t.say('a', "put q pri 3 bytes 5"), "a put 1, b reserved 1");
    let [Change::QueueNamed { id, .. }, Change::Put(row)] = &t.changes[..] else { panic!() };
    assert_eq!((row.queue, row.priority, row.body.len()), (*id, 3, 5));
}

#[test]
fn puts_are_refused_with_the_reason_but_not_those_without_answers() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.input(crate::engine::Input::RefusePuts(Some(crate::words::refusal::Refusal::Draining)));
    assert_eq!(t.say('a', "put"), "a refused Draining");
    assert_eq!(t.say('c', "put q"), "c put 1");
    t.input(crate::engine::Input::RefusePuts(None));
    assert_eq!(t.say('a', "put"), "a put 2");
}

#[test]
fn a_queue_too_many_is_refused() {
    let limits = crate::words::limits::LimitValues { max_queues: 2, ..Default::default() };
    let mut t = Talk::with(limits).workers("a");
    t.say('a', "put r");
    for text in ["put s", "use s", "watch s"] {
        assert_eq!(t.say('a', text), "a refused TooManyQueues");
    }
    assert_eq!(t.say('a', "put r"), "a put 2", "and no id is lost");
    t.say('a', "remove 1");
    t.say('a', "remove 2");
    assert_eq!(t.say('a', "put s"), "a put 3");
}

#[test]
fn a_command_can_ask_for_the_message_of_a_queue_that_the_connection_took() {
    let mut t = Talk::new().workers("ab");
    for queue in ["r", "r", "s"] {
        t.say('b', &format!("put {queue}"));
    }
    t.say('a', "take 2");
    t.say('a', "take 1");
    t.say('b', "take 3");
    assert_eq!(t.say('a', "touch r"), "a Touched");
    assert_eq!(t.say('a', "release r"), "a Released");
    assert_eq!((t.state(1), t.state(2)), ("Reserved".into(), "Ready".into()), "the older one");
    assert_eq!(t.say('a', "ack r"), "a Acknowledged");
    assert_eq!(t.state(1), "gone");
    assert_eq!(t.say('a', "ack r"), "a NotHeld");
    assert_eq!(t.engine.totals.foreign_acknowledgements, 1);
    for text in ["release r", "bury s", "fail s", "touch s", "release unknown"] {
        assert_eq!(t.say('a', text), "a NotFound", "{text}");
    }
    assert_eq!(t.say('b', "requeue s"), "b Released");
    assert_eq!(t.say('b', "requeue s"), "b NotHeld");
}

#[test]
fn the_message_of_a_queue_is_not_one_that_was_flushed_or_came_through_a_window() {
    let mut t = Talk::new().workers("ab").consumers("x");
    t.say('a', "put r");
    t.say('a', "take 1");
    t.engine.budget = 0;
    t.say('b', "flush r");
    assert_eq!(t.say('a', "ack r"), "a NotHeld");
    t.settle();
    t.say('x', "consume r 5");
    t.say('a', "put r");
    assert_eq!(t.say('x', "ack r"), "x NotHeld");
    assert_eq!(t.say('x', "ack 2 r"), "x Acknowledged");
}

#[test]
fn a_message_that_could_not_be_processed_is_back_at_its_place_with_the_reason() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "put");
    t.say('a', "reserve");
    t.changes.clear();
    assert_eq!(t.say('a', "fail 1 because no such host"), "a Released");
    assert_eq!(last_row(&t).state, MessageState::Ready);
    let failures = |t: &mut Talk| {
        let slot = t.engine.ledger.find(crate::words::ids::MessageId(1)).unwrap();
        t.engine.message_statistics(t.now, slot).failures
    };
    let failed = failures(&mut t);
    assert_eq!((failed.attempts, failed.cause), (1, Some(Cause::Failed)));
    assert_eq!(failed.reason, Some(Reason::new(b"no such host")));
    assert_eq!(t.say('a', "reserve"), "a reserved 1", "before the other one");
    assert_eq!(t.say('a', "fail 1"), "a Released");
    assert_eq!((failures(&mut t).attempts, failures(&mut t).reason), (2, None));
    t.say('a', "reserve");
    t.say('a', "bury 1");
    t.say('a', "kick-one 1");
    assert_eq!(failures(&mut t), Failures::default());
    assert_eq!(t.engine.statistics().returns.iter().nth(1), Some(("failed", 2)));
}

#[test]
fn the_failure_of_a_message_that_was_taken_back_frees_its_place() {
    let mut t = Talk::new().workers("p").consumers_timed("x", 100);
    t.say('x', "consume q 1");
    t.say('p', "put q");
    t.say('p', "pause q 1000");
    t.pass(100);
    assert_eq!(t.state(1), "Ready");
    t.pass(40);
    assert_eq!(t.say('x', "fail 1 q"), "x NotHeld");
    assert_eq!(t.say('x', "fail 1 q"), "x NotHeld");
    let totals = &t.engine.totals;
    assert_eq!((totals.late_acknowledgements, totals.foreign_acknowledgements), (1, 1));
    assert_eq!(t.pass(860), "x dispatched 1");
}
