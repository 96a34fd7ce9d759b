//! Several steps as a whole: all of them or none, in one input.

use std::sync::Arc;

use super::{Talk, queue, together};
use crate::engine::{Engine, Input};
use crate::words::change::Change;
use crate::words::command::{Command, Put, PutWith, Target, TogetherStep};
use crate::words::limits::{LimitValues, Limits, TOGETHER_BYTES_MAX, TOGETHER_ROWS_MAX};
use crate::words::pattern::Pattern;
use crate::words::policy::{Policies, Policy};
use crate::words::refusal::Refusal;

/// A worker that holds the messages 1 to 4 of `q`, and another one.
fn holding() -> Talk {
    let mut t = Talk::new().workers("ab");
    (0..4).for_each(|_| drop(t.say('b', "put")));
    t.say('a', "reserve count 4");
    t.changes.clear();
    t
}

#[test]
fn puts_acknowledgements_and_returns_are_carried_out_in_their_order() {
    let mut t = holding();
    let steps = ["ack 1", "put r", "release 2", "bury 3", "fail 4 because of this", "put q pri 1"];
    assert_eq!(t.command('a', together(&steps)), "a together 5 6");
    let states: Vec<String> = (1..=6).map(|id| t.state(id)).collect();
    assert_eq!(states, ["gone", "Ready", "Buried", "Ready", "Ready", "Ready"]);
    let kinds: Vec<&str> = (t.changes.iter())
        .map(|change| match change {
            Change::Removed(_) => "removed",
            Change::QueueNamed { .. } => "named",
            Change::Put(_) => "put",
            Change::Moved(_) => "moved",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["removed", "named", "put", "moved", "moved", "moved", "put"]);
}

#[test]
fn where_one_step_is_impossible_nothing_is_changed() {
    let mut t = holding();
    t.say('a', "limit r 2 2 2");
    t.say('b', "put done k");
    t.say('b', "take 5");
    t.changes.clear();
    let fine = ["ack 1", "put s", "release 2", "bury q", "put r", "put r done new"];
    for (last, refusal) in [
        ("ack 9", "NotHeld"),
        ("ack 5", "NotHeld"),
        ("ack 4 r", "NotHeld"),
        ("ack 1", "NotHeld"),
        ("fail 3", "NotHeld"),
        ("release s", "NotHeld"),
        ("put r", "QueueFull"),
    ] {
        let steps = [&fine[..], &[last]].concat();
        assert_eq!(t.command('a', together(&steps)), format!("a refused {refusal}"), "{last}");
        assert_eq!(t.changes, [], "{last}");
    }
    t.input(Input::RefusePuts(Some(Refusal::Draining)));
    assert_eq!(t.command('a', together(&fine)), "a refused Draining");
    assert_eq!(t.command('a', together(&["ack 4"])), "a together ", "nothing is put");
    t.input(Input::RefusePuts(None));
    assert_eq!(t.say('b', "queues"), "b queues q r");
    assert_eq!(t.command('a', together(&fine)), "a together 6 7 8", "it was all but the last one");
}

#[test]
fn queues_that_there_is_no_room_for_refuse_the_whole() {
    let limits = LimitValues { max_queues: 3, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    t.changes.clear();
    let refused = t.command('a', together(&["put r", "put s", "put r", "put t", "ack 1"]));
    assert_eq!(refused, "a refused TooManyQueues");
    assert_eq!((t.changes.len(), t.engine.ledger.queues().len()), (0, 1));
    // The policy's queue is one too many, and has to do without.
    let policy = Policy {
        queues: Pattern::new("q"),
        max_attempts: 1,
        backoff_ms: vec![],
        jitter: 0.0,
        dead_letter: Some(queue("dead")),
    };
    t.input(Input::Policies(Arc::new(Policies::new(vec![policy]))));
    assert_eq!(t.command('a', together(&["fail 1", "put r", "put s"])), "a together 2 3");
    assert_eq!(t.state(1), "Buried");
}

/// What a queue takes is known before any is made.
#[test]
fn queues_whose_names_take_too_much_memory_refuse_the_whole() {
    // Half of it is for queues of 514 bytes: there is room for two beside the first one, the second
    // of which brings it beyond.
    let limits = LimitValues { max_memory: 2 * 1_100, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    t.changes.clear();
    let refused = t.command('a', together(&["put r", "put s", "put r", "put t", "ack 1"]));
    assert_eq!(refused, "a refused OutOfMemory");
    assert_eq!((t.changes.len(), t.engine.ledger.queues().len()), (0, 1));
    assert_eq!(t.command('a', together(&["put r", "put s", "put r"])), "a together 2 3 4");
    assert_eq!(t.command('a', together(&["put r", "put t"])), "a refused OutOfMemory");
}

#[test]
fn messages_are_handed_out_when_all_of_it_is_done() {
    let mut t = Talk::new().workers("ab").consumers("x");
    t.say('b', "put");
    t.say('a', "reserve");
    t.say('x', "consume q 1");
    let told = t.command('a', together(&["put pri 9", "put pri 5", "release 1"]));
    assert_eq!(told, "a together 2 3, x dispatched 3");
}

#[test]
fn a_key_that_a_step_frees_is_free_for_the_next_one() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put done k");
    t.say('a', "reserve");
    let steps = ["put done k", "ack 1", "put done k", "put done k"];
    assert_eq!(t.command('a', together(&steps)), "a together 1 2 2");
    assert_eq!(t.engine.statistics().messages_joined, 2);
}

#[test]
fn the_message_held_of_a_queue_is_another_one_for_each_step() {
    let mut t = holding();
    assert_eq!(t.command('a', together(&["ack q", "ack q", "bury 1"])), "a refused NotHeld");
    assert_eq!(t.command('a', together(&["ack q", "release q", "bury 4"])), "a together ");
    let states: Vec<String> = (1..=4).map(|id| t.state(id)).collect();
    assert_eq!(states, ["gone", "Ready", "Reserved", "Buried"]);
}

#[test]
fn the_whole_waits_where_there_are_not_enough_ids() {
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let mut t = Talk::over(Engine::new(limits, 1, 3, 1)).workers("ab");
    t.say('a', "put r");
    t.say('a', "take 1");
    t.changes.clear();
    assert_eq!(t.command('a', together(&["ack 1", "put r", "put r"])), "");
    assert_eq!(t.say('a', "echo"), "", "one after the other");
    assert_eq!((t.changes.len(), t.state(1)), (0, "Reserved".into()));
    let told = t.input(Input::IdsReserved(1 << 21));
    assert!(told.ends_with("a together 2 3, a Echo"), "{told}");
    assert_eq!(t.state(1), "gone");
}

#[test]
fn what_has_changed_while_it_waited_refuses_the_whole() {
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let mut t = Talk::over(Engine::new(limits, 1, 3, 1)).workers("ab");
    t.say('a', "put r ttr 100");
    t.say('a', "take 1");
    t.command('a', together(&["ack 1", "put r", "put r"]));
    t.pass(100);
    let told = t.input(Input::IdsReserved(1 << 21));
    assert!(told.ends_with("a refused NotHeld"), "{told}");
    assert_eq!((t.state(1), t.engine.stored().1), ("Ready".into(), 1));
}

#[test]
fn more_than_one_commit_may_have_is_refused() {
    let mut t = holding();
    let put = |bytes: usize| {
        let put = Put::new(Target::Named(queue("q")), vec![b'x'; bytes]);
        TogetherStep::Put(PutWith { put, extras: Default::default() })
    };
    t.checking = false;
    let most = TOGETHER_ROWS_MAX / 3;
    let many = |count: usize| Command::Together((0..count).map(|_| put(1)).collect());
    assert_eq!(t.command('a', many(most + 1)), "a refused TooMuchTogether");
    let large = usize::try_from(TOGETHER_BYTES_MAX).unwrap();
    let bytes = Command::Together([put(large), put(1)].into());
    assert_eq!(t.command('a', bytes), "a refused TooMuchTogether");
    assert_eq!(t.changes, []);
    assert!(t.command('a', many(most)).starts_with("a together 5 6 "));
    assert_eq!(t.changes.len(), most);
}

#[test]
fn a_marked_message_waits_without_a_clock_and_its_place_in_the_window_is_free() {
    let mut t = Talk::new().workers("p").consumers_timed("x", 100);
    t.say('x', "consume q 1");
    (0..3).for_each(|_| drop(t.say('p', "put q ttr 50")));
    assert_eq!(t.say('x', "mark 1 q"), "x Marked, x dispatched 2");
    assert_eq!(t.say('x', "ack 2 q"), "x Acknowledged, x dispatched 3");
    assert_eq!(t.say('p', "put q"), "p put 4", "the window is full");
    assert_eq!(t.pass(99), "");
    for text in ["release 1", "bury 1", "fail 1", "touch 1", "remove 1", "mark 1"] {
        assert_eq!(t.say('x', text), "x NotFound", "{text}");
    }
    assert_eq!(t.say('x', "ack 1 q"), "x NotHeld");
    assert_eq!(t.say('p', "take 1"), "p NotFound");
    t.say('x', "ack 3 q");
    t.pass(10_000);
    assert_eq!(t.state(1), "Reserved");
    assert_eq!(t.command('x', together(&["ack 1", "put r"])), "x together 5");
    assert_eq!(t.state(1), "gone");
}

#[test]
fn what_is_unmarked_is_in_its_holders_hands_for_its_time_to_run() {
    let mut t = Talk::new().workers("p").consumers("x");
    t.say('x', "consume q 1");
    t.say('p', "put q ttr 50");
    t.say('x', "mark 1");
    assert_eq!(t.say('p', "unmark 1"), "p NotFound");
    assert_eq!(t.say('x', "unmark 1"), "x Marked");
    assert_eq!(t.say('x', "unmark 1"), "x NotFound");
    assert_eq!(t.say('p', "put q"), "p put 2, x dispatched 2", "its place stays free");
    assert_eq!(t.pass(49), "");
    assert_eq!(t.say('x', "touch 1"), "x Touched");
    t.pass(50);
    assert_eq!(t.state(1), "Ready");
}

#[test]
fn the_end_of_its_connection_and_a_flush_take_a_marked_message_back() {
    let mut t = holding();
    t.say('a', "mark 1");
    t.say('a', "mark q");
    assert_eq!(t.say('a', "mark q"), "a Marked", "the third");
    assert_eq!(t.say('a', "ack q"), "a Acknowledged", "the fourth, which alone is not marked");
    assert_eq!(t.close('a'), "a finished");
    assert_eq!(
        (t.state(1), t.state(3), t.state(4)),
        ("Ready".into(), "Ready".into(), "gone".into())
    );
    t.say('b', "take 1");
    t.say('b', "mark 1");
    assert_eq!(t.say('b', "flush q"), "b flushed 3");
    assert_eq!(t.command('b', together(&["ack 1"])), "b refused NotHeld");
    assert_eq!(t.engine.stored().1, 0);
}
