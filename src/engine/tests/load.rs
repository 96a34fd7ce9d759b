//! The start from stored messages.

use std::sync::Arc;

use super::{START, Talk, queue};
use crate::engine::Engine;
use crate::engine::load::Loader;
use crate::words::change::Counters;
use crate::words::change::{Change, KeyRow, KeyUntil, MessageState, StateRow, StoredMessage};
use crate::words::clock::{Now, Time};
use crate::words::ids::{MessageId, QueueId, Sequence};
use crate::words::limits::{LimitValues, Limits};

const WALL: i64 = START as i64;

fn loader() -> Loader {
    let engine = Engine::new(Arc::new(Limits::new(&LimitValues::default())), 1, 1 << 40, 1);
    let mut loader = Loader::new(engine, Now { time: Time(START), wall_offset_ms: 0 });
    loader.queue(QueueId(7), &queue("q"));
    loader
}

fn stored(id: u64) -> StoredMessage {
    StoredMessage {
        id: MessageId(id),
        queue: QueueId(7),
        priority: 1_024,
        sequence: Sequence(id),
        created_ms: WALL - 5_000,
        time_to_run_ms: 60_000,
        body_bytes: 10,
        ..StoredMessage::default()
    }
}

fn moved(id: u64, state: MessageState) -> StoredMessage {
    let row = StateRow {
        id: MessageId(id),
        state,
        priority: 1_024,
        sequence: Sequence(id),
        due: None,
        expires_ms: None,
        delay_ms: 0,
        counters: Counters::default(),
        queue: None,
        failure: None,
    };
    StoredMessage { moved: Some(row), ..stored(id) }
}

fn with_row(mut message: StoredMessage, change: impl Fn(&mut StateRow)) -> StoredMessage {
    change(message.moved.as_mut().unwrap());
    message
}

/// A conversation over what was loaded, with `a` a worker, and what the start has dropped.
fn talk(loader: Loader) -> (Talk, Vec<Change>) {
    let (engine, dropped) = loader.finish();
    engine.check_invariants();
    (Talk::over(engine).workers("a"), dropped)
}

#[test]
fn messages_are_ready_in_their_order_and_ids_go_on() {
    let mut loader = loader();
    loader.message(&stored(12));
    loader.message(&stored(10));
    loader.message(&StoredMessage { priority: 3, ..stored(11) });
    let (mut t, dropped) = talk(loader);
    assert_eq!(dropped, []);
    let order: Vec<String> = (0..3).map(|_| t.say('a', "reserve")).collect();
    assert_eq!(order, ["a reserved 11", "a reserved 10", "a reserved 12"]);
    assert_eq!(t.say('a', "put"), "a put 13");
    assert_eq!(t.engine.stored(), (31, 4));
}

#[test]
fn ids_go_on_behind_the_places_that_were_drawn_from_them() {
    let mut loader = loader();
    loader.message(&with_row(moved(3, MessageState::Ready), |row| row.sequence = Sequence(40)));
    let (mut t, _) = talk(loader);
    assert_eq!(t.say('a', "put"), "a put 41");
}

#[test]
fn the_row_of_a_moved_message_stands_for_what_it_was_put_with() {
    let mut loader = loader();
    let counters = Counters { reserves: 5, timeouts: 4, releases: 3, buries: 2, kicks: 1 };
    loader.message(&with_row(moved(1, MessageState::Ready), |row| {
        (row.priority, row.counters, row.delay_ms) = (5, counters, 2_000);
    }));
    loader.message(&StoredMessage { priority: 6, ..stored(2) });
    let (mut t, _) = talk(loader);
    t.say('a', "stats 1");
    let [crate::words::command::Reply::MessageStatistics(figures)] = &t.replies[..] else {
        panic!()
    };
    assert_eq!((figures.priority, figures.counters, figures.delay_ms), (5, counters, 2_000));
    assert_eq!((figures.age_ms, figures.time_to_run_ms), (5_000, 60_000));
    assert_eq!(t.say('a', "reserve"), "a reserved 1");
}

#[test]
fn delayed_messages_keep_their_moment() {
    let mut loader = loader();
    loader.message(&StoredMessage { due_ms: Some(WALL + 2_000), ..stored(1) });
    loader.message(&StoredMessage { due_ms: Some(WALL - 1), ..stored(2) });
    loader.message(&with_row(moved(3, MessageState::Delayed), |row| {
        (row.due, row.delay_ms) = (Some(WALL + 1_000), 9_000);
    }));
    let (mut t, _) = talk(loader);
    assert_eq!(t.say('a', "reserve"), "a reserved 2", "it came due while the daemon was down");
    t.say('a', "reserve");
    assert_eq!(t.pass(1_000), "a reserved 3");
    t.say('a', "reserve");
    assert_eq!(t.pass(1_000), "a reserved 1");
}

#[test]
fn a_delay_is_no_longer_than_was_asked_for_whatever_became_of_the_clock() {
    let mut loader = loader();
    let (created_ms, due_ms) = (WALL + 50_000, Some(WALL + 53_000));
    loader.message(&StoredMessage { created_ms, due_ms, ..stored(1) });
    let (mut t, _) = talk(loader);
    t.say('a', "reserve");
    assert_eq!(t.pass(2_999), "");
    assert_eq!(t.pass(1), "a reserved 1");
    t.say('a', "stats 1");
    let [crate::words::command::Reply::MessageStatistics(figures)] = &t.replies[..] else {
        panic!()
    };
    assert_eq!(figures.age_ms, 3_000, "its age starts at the start, not in the future");
}

#[test]
fn buried_messages_stay_buried_in_their_order_with_what_they_have_left() {
    let mut loader = loader();
    for (id, place) in [(1, 9), (2, 4)] {
        loader.message(&with_row(moved(id, MessageState::Buried), |row| {
            (row.due, row.expires_ms) = (Some(place), Some(3_000));
        }));
    }
    let (mut t, _) = talk(loader);
    assert_eq!(t.pass(100_000), "");
    assert_eq!(t.say('a', "peek buried"), "a found 2 ttl 3000");
    t.say('a', "put");
    t.say('a', "take 3");
    t.say('a', "bury 3");
    for id in [2, 1, 3] {
        assert!(t.say('a', "peek buried").starts_with(&format!("a found {id}")));
        assert_eq!(t.say('a', "kick 1"), "a kicked 1");
    }
    t.pass(3_000);
    assert_eq!(
        (t.state(1), t.state(2), t.state(3)),
        ("gone".into(), "gone".into(), "Ready".into())
    );
}

#[test]
fn buried_messages_without_a_place_or_with_the_same_are_all_kept() {
    let mut loader = loader();
    for (id, place) in [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(-5)), (5, Some(2))] {
        loader.message(&with_row(moved(id, MessageState::Buried), |row| row.due = place));
    }
    let (mut t, _) = talk(loader);
    assert_eq!(t.say('a', "kick 99"), "a kicked 5");
}

#[test]
fn what_expired_while_the_daemon_was_down_is_dropped_with_its_empty_queue() {
    let mut loader = loader();
    loader.message(&StoredMessage { expires_ms: Some(WALL), ..stored(1) });
    loader.message(&with_row(moved(2, MessageState::Delayed), |row| {
        (row.due, row.expires_ms) = (Some(WALL + 1), Some(WALL - 1));
    }));
    let (mut t, dropped) = talk(loader);
    let gone = [
        Change::Removed(MessageId(1)),
        Change::Removed(MessageId(2)),
        Change::QueueGone(QueueId(7)),
    ];
    assert_eq!(dropped, gone);
    assert_eq!(t.engine.totals.messages_expired, 2);
    t.say('a', "put");
    assert!(t.changes.iter().any(|c| matches!(c, Change::QueueNamed { id: QueueId(8), .. })));
}

#[test]
fn the_ids_of_dropped_messages_are_not_used_again() {
    let mut loader = loader();
    loader.message(&StoredMessage { expires_ms: Some(WALL), ..stored(9) });
    let (mut t, _) = talk(loader);
    assert_eq!(t.say('a', "put"), "a put 10");
}

#[test]
fn a_time_to_live_goes_on_as_if_the_daemon_had_run() {
    let mut loader = loader();
    loader.message(&StoredMessage { expires_ms: Some(WALL + 1_500), ..stored(1) });
    let (mut t, _) = talk(loader);
    assert_eq!(t.say('a', "peek 1"), "a found 1 ttl 1500");
    t.pass(1_500);
    assert_eq!(t.state(1), "gone");
}

#[test]
fn a_queue_with_messages_keeps_its_number() {
    let mut loader = loader();
    loader.queue(QueueId(3), &queue("r"));
    loader.message(&stored(1));
    let (mut t, dropped) = talk(loader);
    assert_eq!(dropped, [Change::QueueGone(QueueId(3))]);
    t.say('a', "put");
    let [Change::Put(row)] = &t.changes[..] else { panic!("{:?}", t.changes) };
    assert_eq!(row.queue, QueueId(7));
}

#[test]
fn a_message_without_its_queue_is_left_alone() {
    let mut loader = loader();
    loader.message(&StoredMessage { queue: QueueId(99), ..stored(1) });
    let (t, _) = talk(loader);
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn nothing_is_unsaved_after_a_start() {
    let mut loader = loader();
    loader.message(&with_row(moved(1, MessageState::Ready), |row| row.counters.reserves = 3));
    let (mut t, _) = talk(loader);
    assert_eq!(t.engine.unsaved_counters(), []);
}

fn key_row(queue: u64, key: &[u8], message: u64, until: KeyUntil) -> KeyRow {
    KeyRow { queue: QueueId(queue), key: key.into(), message: Some(MessageId(message)), until }
}

#[test]
fn a_key_whose_message_is_gone_is_free_or_says_so_before_another_message_has_that_id() {
    let mut loader = loader();
    loader.message(&stored(1));
    let later = KeyUntil::Moment(WALL + 9_000);
    loader.key(&key_row(7, b"done", 2, KeyUntil::Done));
    loader.key(&key_row(7, b"long", 2, later));
    let (mut t, dropped) = talk(loader);
    let free = Change::KeyGone { queue: QueueId(7), key: b"done"[..].into() };
    let outlives = KeyRow { message: None, ..key_row(7, b"long", 2, later) };
    assert_eq!(dropped, [free, Change::KeySet(outlives)]);
    assert_eq!(t.say('a', "find done"), "a NotFound");
    assert_eq!(t.say('a', "find long"), "a keys q:-");
}

#[test]
fn a_key_that_names_a_message_of_another_queue_is_not_of_that_message() {
    let mut loader = loader();
    loader.queue(QueueId(8), &queue("r"));
    loader.message(&stored(1));
    loader.key(&key_row(8, b"k", 1, KeyUntil::Done));
    let (mut t, dropped) = talk(loader);
    let free = Change::KeyGone { queue: QueueId(8), key: b"k"[..].into() };
    assert_eq!(dropped, [free, Change::QueueGone(QueueId(8))]);
    assert_eq!(t.say('a', "find k"), "a NotFound");
    assert_eq!(t.say('a', "remove 1"), "a Removed");
}

#[test]
fn a_key_of_a_queue_without_a_row_is_free() {
    let mut loader = loader();
    loader.message(&stored(1));
    loader.key(&key_row(9, b"k", 1, KeyUntil::Done));
    let (_, dropped) = talk(loader);
    assert_eq!(dropped, [Change::KeyGone { queue: QueueId(9), key: b"k"[..].into() }]);
}

#[test]
fn two_rows_of_queues_of_one_name_are_one_queue() {
    let mut loader = loader();
    loader.queue(QueueId(8), &queue("q"));
    loader.message(&stored(1));
    loader.message(&StoredMessage { queue: QueueId(8), ..stored(2) });
    loader.key(&key_row(7, b"k", 1, KeyUntil::Done));
    loader.key(&key_row(8, b"k", 2, KeyUntil::Done));
    let (mut t, dropped) = talk(loader);
    assert_eq!(dropped, [Change::KeyGone { queue: QueueId(8), key: b"k"[..].into() }]);
    assert_eq!(t.say('a', "queues"), "a queues q");
    for id in [1, 2] {
        assert_eq!(t.say('a', "reserve"), format!("a reserved {id}"));
        t.say('a', &format!("ack {id}"));
    }
    assert!(t.changes.contains(&Change::KeyGone { queue: QueueId(8), key: b"k"[..].into() }));
    t.engine.check_invariants();
}
