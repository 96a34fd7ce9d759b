//! Message ids: reserved in the database ahead of their use, never used twice.

use std::sync::Arc;

use super::Talk;
use crate::engine::{Engine, Input};
use crate::words::command::Reply;
use crate::words::limits::{ID_BLOCK, LimitValues, Limits};
use crate::words::refusal::Refusal;
use crate::words::statistics::Counted;

fn talk(next: u64, reserved: u64) -> Talk {
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    Talk::over(Engine::new(limits, next, reserved, 1))
}

#[test]
fn the_next_block_is_asked_for_once_when_a_fifth_is_left() {
    let mut t = talk(1, ID_BLOCK / 5 + 2).workers("a");
    assert_eq!(t.say('a', "put"), "a put 1");
    assert_eq!(t.say('a', "put"), "a put 2");
    let more = ID_BLOCK / 5 + 2 + ID_BLOCK;
    assert_eq!(t.say('a', "put"), format!("ids below {more}, a put 3"));
    assert_eq!(t.say('a', "put"), "a put 4");
    t.input(Input::IdsReserved(more));
    assert_eq!(t.say('a', "put"), "a put 5");
}

#[test]
fn a_put_that_finds_none_left_waits_and_counts_once() {
    let mut t = talk(1, 1).workers("ab");
    assert_eq!(t.say('a', "put"), format!("ids below {}", ID_BLOCK + 1));
    assert_eq!(t.say('a', "echo"), "");
    assert_eq!(t.say('b', "put"), "", "asked for once");
    assert_eq!(t.input(Input::IdsReserved(ID_BLOCK + 1)), "a put 1, b put 2, a Echo");
    assert_eq!(t.engine.totals.commands.of(Counted::Put), 2);
}

#[test]
fn puts_wait_on_when_too_few_have_come() {
    let mut t = talk(1, 1).workers("ab");
    t.say('a', "put");
    t.say('b', "put");
    let told = t.input(Input::IdsReserved(2));
    assert!(told.contains("a put 1") && !told.contains("b put"), "{told}");
    assert!(told.contains("ids below"), "asked for again: {told}");
    assert!(t.input(Input::IdsReserved(9)).ends_with("b put 2"));
}

#[test]
fn a_waiting_put_leaves_no_queue_behind() {
    let mut t = talk(1, 1).workers("ab");
    t.say('a', "put r");
    assert_eq!(t.say('b', "queues"), "b queues q");
}

/// On a full disk no ids are reserved, and a put that came before that was known hung for as long,
/// with all that its connection had asked for since.
#[test]
fn regression_10_a_waiting_put_is_refused_once_puts_are() {
    let mut t = talk(1, 1).workers("a");
    t.say('a', "put");
    assert_eq!(t.say('a', "queues"), "");
    let told = t.input(Input::RefusePuts(Some(Refusal::OutOfMemory)));
    assert_eq!(told, "a refused OutOfMemory, a queues q");
    assert_eq!(t.input(Input::IdsReserved(9)), "");
    t.input(Input::RefusePuts(None));
    assert!(t.say('a', "put").ends_with("a put 1"), "no id is lost");
}

#[test]
fn a_connection_may_end_while_its_put_waits() {
    let mut t = talk(1, 1).workers("a");
    t.say('a', "put");
    assert_eq!(t.close('a'), "");
    let told = t.input(Input::IdsReserved(9));
    assert!(told.ends_with("a put 1, a finished"), "{told}");
}

#[test]
fn the_last_id_is_used_and_then_puts_are_refused() {
    let last = i64::MAX as u64 - 1;
    let mut t = talk(last, i64::MAX as u64).workers("a");
    assert_eq!(t.say('a', "put"), format!("a put {last}"));
    assert_eq!(t.say('a', "put r"), "a refused OutOfIds");
    assert_eq!(t.say('a', "queues"), "a queues q");
    t.say('a', "reserve");
    assert_eq!(t.say('a', &format!("requeue {last} q")), "a Released", "at its old place");
}

#[test]
fn a_start_beyond_the_reserved_ids_asks_for_enough() {
    let mut t = talk(5_000_000, 10).workers("a");
    assert_eq!(t.say('a', "put"), format!("ids below {}", 5_000_000 + ID_BLOCK));
    assert_eq!(t.input(Input::IdsReserved(5_000_000 + ID_BLOCK)), "a put 5000000");
}

#[test]
fn id_0_is_never_given() {
    let mut t = talk(0, 100).workers("a");
    t.say('a', "put");
    assert!(matches!(t.replies[..], [Reply::Put(crate::words::ids::MessageId(1))]));
}
