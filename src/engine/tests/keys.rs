//! Deduplication keys: how long they are taken, who joins what, and what a restart makes of them.

use std::sync::Arc;

use super::{Talk, queue};
use crate::engine::Engine;
use crate::engine::load::Loader;
use crate::engine::rows::Rows;
use crate::words::change::Change;
use crate::words::limits::{LimitValues, Limits};
use crate::words::refusal::Refusal;

use super::super::Input;

/// What was to be stored so far, in a new life.
pub(super) fn restarted(t: &mut Talk, down_ms: u64) -> Talk {
    let mut rows = Rows::default();
    t.changes.drain(..).for_each(|change| rows.apply(change));
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let mut now = t.now;
    now.time = now.time.plus(down_ms);
    let mut loader = Loader::new(Engine::new(limits, 1, 1 << 40, 1), now);
    rows.load(&mut loader);
    let (engine, dropped) = loader.finish();
    let mut again = Talk::over(engine).workers("ab");
    (again.now, again.changes) = (now, dropped);
    again
}

#[test]
fn a_put_with_a_key_that_is_taken_joins_the_message_that_has_it() {
    let mut t = Talk::new().workers("ab");
    assert_eq!(t.say('a', "put done k"), "a put 1");
    let changes = t.changes.len();
    assert_eq!(t.say('b', "put done k pri 0 delay 9"), "b joined 1");
    assert_eq!(t.changes.len(), changes, "nothing is written of it");
    assert_eq!(t.say('b', "put taken k"), "b joined 1", "whatever it would ask for");
    assert_eq!(t.say('b', "put done other"), "b put 2");
    assert_eq!(t.say('b', "put r done k"), "b put 3", "each queue has keys of its own");
    assert_eq!(t.say('b', "put"), "b put 4");
    let figures = t.engine.statistics();
    assert_eq!((figures.messages_put, figures.messages_joined), (4, 2));
}

#[test]
fn a_key_until_the_message_is_done_is_free_with_its_end_whatever_that_is() {
    for end in ["ack 1", "remove 1", "flush q"] {
        let mut t = Talk::new().workers("ab");
        t.say('a', "put done k ttl 500");
        t.say('a', "reserve");
        assert_eq!(t.say('b', "put done k"), "b joined 1");
        t.say('a', end);
        assert_eq!(t.say('b', "put done k"), "b put 2", "{end}");
    }
    let mut t = Talk::new().workers("ab");
    t.say('a', "put done k ttl 500");
    t.pass(499);
    assert_eq!(t.say('b', "put done k"), "b joined 1");
    t.pass(1);
    assert_eq!(t.say('b', "put done k"), "b put 2", "it has expired");
    t.say('b', "reserve");
    t.say('b', "bury 2");
    assert_eq!(t.say('b', "put done k"), "b joined 2", "set aside is not done");
}

#[test]
fn a_key_until_the_message_is_taken_is_free_when_it_is_handed_out() {
    let mut t = Talk::new().workers("ab").consumers("x");
    t.say('a', "put taken k");
    assert_eq!(t.say('b', "put taken k"), "b joined 1");
    t.say('a', "reserve");
    assert_eq!(t.say('b', "put taken k"), "b put 2");
    t.say('x', "consume q 1");
    assert_eq!(t.state(2), "Reserved");
    assert_eq!(t.say('b', "put taken k"), "b put 3");
    t.say('a', "release 1");
    assert_eq!(t.say('b', "put taken k"), "b joined 3", "1 has it no more");
    t.say('a', "remove 3");
    assert_eq!(t.say('b', "put taken k"), "b put 4", "gone before it was taken");
    assert_eq!(t.say('a', "put r taken k"), "a put 5");
    t.say('a', "take 5");
    assert_eq!(t.say('b', "find k"), "b keys q:4");
}

#[test]
fn a_key_for_a_time_outlives_its_message_and_ends_with_its_time() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put r outlived k");
    assert_eq!(t.say('b', "put r outlived k"), "b joined 1");
    t.say('a', "remove 1");
    assert_eq!(t.say('b', "put r outlived k"), "b joined nothing");
    assert_eq!(t.say('b', "queues"), "b queues q r", "the queue stays for it");
    t.pass(9_999);
    assert_eq!(t.say('b', "put r outlived k"), "b joined nothing");
    t.pass(1);
    assert_eq!(t.say('b', "queues"), "b queues q");
    assert_eq!(t.say('b', "put r outlived k"), "b put 2");
    t.pass(10_000);
    assert_eq!(t.state(2), "Ready", "the message stays without it");
    assert_eq!(t.say('b', "put r outlived k"), "b put 3");
    t.pass(20_000);
    assert_eq!(t.engine.next_deadline(), crate::words::clock::Time::NEVER);
}

#[test]
fn a_flushed_message_has_no_key_though_it_is_not_cleared_away_yet() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put done k");
    t.say('a', "put outlived l");
    t.say('a', "put taken m");
    t.engine.budget = 0;
    assert_eq!(t.say('b', "flush q"), "");
    assert_eq!(t.say('a', "find k"), "a NotFound");
    assert_eq!(t.say('a', "find l"), "a keys q:-");
    assert_eq!(t.say('a', "put done k"), "a put 4");
    assert_eq!(t.say('a', "put done l"), "a joined nothing");
    assert_eq!(t.settle(), "b flushed 3");
    assert_eq!(t.say('a', "put done k"), "a joined 4");
    assert_eq!(t.say('a', "put done m"), "a put 5");
    drop(restarted(&mut t, 0));
}

#[test]
fn what_is_over_counts_no_more_though_its_clock_has_not_rung() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put r done k ttl 100");
    t.say('a', "put s outlived k");
    t.now.time = t.now.time.plus(10_000);
    assert_eq!(t.say('b', "find k"), "b NotFound");
    assert_eq!(t.say('b', "put r done k"), "b put 3");
    assert_eq!(t.say('b', "put s done k"), "b put 4");
    t.settle();
    assert_eq!(t.say('b', "find k"), "b keys r:3 s:4");
    drop(restarted(&mut t, 0));
}

#[test]
fn keys_are_found_in_one_queue_and_in_all() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put s done k");
    t.say('a', "put r outlived k");
    t.say('a', "put r done kk");
    assert_eq!(t.say('b', "find k"), "b keys s:1 r:2");
    assert_eq!(t.say('b', "find k r"), "b keys r:2");
    assert_eq!(t.say('b', "find k q"), "b NotFound");
    assert_eq!(t.say('b', "find k unknown"), "b NotFound");
    t.say('a', "remove 2");
    assert_eq!(t.say('b', "find k r"), "b keys r:-");
}

#[test]
fn a_joiner_is_not_refused_where_a_put_is() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put done k");
    t.say('a', "limit q 1 1 1");
    t.input(Input::RefusePuts(Some(Refusal::Draining)));
    assert_eq!(t.say('b', "put done k"), "b joined 1");
    assert_eq!(t.say('b', "put done l"), "b refused Draining");
    t.input(Input::RefusePuts(None));
    assert_eq!(t.say('b', "put done l"), "b refused QueueFull");
    assert_eq!(t.say('b', "find l"), "b NotFound");
}

#[test]
fn of_two_puts_with_one_key_that_wait_for_ids_the_second_joins_the_first() {
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let mut t = Talk::over(Engine::new(limits, 1, 1, 1)).workers("ab");
    assert_eq!(t.say('a', "put r done k"), "ids below 1048577");
    assert_eq!(t.say('b', "put r done k"), "");
    assert_eq!(t.input(Input::IdsReserved(1 << 21)), "a put 1, b joined 1");
}

#[test]
fn keys_survive_a_restart_as_long_as_they_are_taken() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put r done done");
    t.say('a', "put r taken taken");
    t.say('a', "put r taken untaken");
    t.say('a', "put r outlived long");
    t.say('a', "put r outlived longer");
    t.say('a', "put r done expired ttl 200");
    t.say('a', "take 2");
    t.say('a', "take 4");
    t.say('a', "ack 4");
    let mut t = restarted(&mut t, 200);
    for (key, found) in [("done", "r:1"), ("untaken", "r:3"), ("long", "r:-"), ("longer", "r:5")] {
        assert_eq!(t.say('b', &format!("find {key}")), format!("b keys {found}"), "{key}");
    }
    for key in ["taken", "expired"] {
        assert_eq!(t.say('b', &format!("find {key}")), "b NotFound", "{key}");
    }
    let freed = |t: &Talk| {
        t.changes.iter().filter(|change| matches!(change, Change::KeyGone { .. })).count()
    };
    assert_eq!(freed(&t), 1, "that of what has expired meanwhile");
    assert_eq!(t.say('b', "put r done untaken"), "b joined 3");
    t.pass(9_800);
    assert_eq!(t.say('b', "put r done long"), "b put 7");
    assert_eq!(freed(&t), 3, "both that were for a time");
    let r = t.engine.ledger.queues().find(&queue("r")).unwrap();
    assert_eq!(t.engine.ledger.queue(r).keys, 3);
}

#[test]
fn a_key_whose_time_was_over_before_the_start_is_freed_there() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put r outlived k");
    t.say('a', "remove 1");
    let mut t = restarted(&mut t, 10_000);
    assert_eq!(t.changes.len(), 2, "the key and its queue: {:?}", t.changes);
    assert_eq!(t.say('a', "queues"), "a queues q");
}
