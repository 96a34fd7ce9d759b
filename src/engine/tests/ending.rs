//! The end of a connection, also of one that held thousands.

use super::{Talk, queue};
use crate::words::command::Manner;

#[test]
fn reservations_end_with_the_connection_at_once() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "reserve");
    assert_eq!(t.close('a'), "a finished");
    assert_eq!(t.say('b', "take 1"), "b reserved 1");
}

#[test]
fn what_is_said_of_a_connection_that_is_not_there_changes_nothing() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    assert_eq!(t.say('z', "reserve"), "");
    assert_eq!(t.hang_up('z') + &t.stall('z', true) + &t.close('z'), "");
    assert_eq!(t.close('a'), "a finished");
    assert_eq!(t.close('a') + &t.say('a', "take 1"), "");
    assert_eq!(t.state(1), "Ready");
}

#[test]
fn what_was_asked_for_before_the_end_is_done() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "reserve");
    t.say('a', "put other");
    assert_eq!(t.close('a'), "a TimedOut, a put 1, a finished");
    assert_eq!(t.say('b', "queues"), "b queues q other");
}

#[test]
fn the_queue_that_connections_start_with_stays() {
    let mut t = Talk::new();
    t.open_on('a', Manner::Serial, 0, Some(queue("q")));
    t.say('a', "watch r");
    t.say('a', "use r");
    t.say('a', "ignore q");
    assert_eq!(t.say('a', "queues"), "a queues q r");
    t.close('a');
    assert_eq!(t.engine.ledger.queues().len(), 1, "q");
}

#[test]
fn an_ended_connection_leaves_nothing_behind() {
    let mut t = Talk::new().workers("a").consumers_timed("c", 5_000);
    t.say('a', "watch r");
    t.say('a', "use s");
    t.say('a', "put t");
    t.say('a', "take 1");
    t.say('c', "consume t 3");
    t.say('c', "consume u 3");
    t.close('a');
    assert_eq!(t.state(1), "Reserved", "it went to c");
    t.say('c', "ack 1 t");
    assert_eq!(t.close('c'), "c finished");
    assert_eq!(t.engine.ledger.queues().len(), 0);
    assert_eq!(t.engine.ledger.sessions().len(), 0);
    assert_eq!(t.engine.next_deadline().0, u64::MAX);
}

/// `a` holds 5,000 messages, half of them through a window, and ends.
fn holder_of_5000_ends() -> Talk {
    let mut t = Talk::new().workers("apb");
    t.checking = false;
    for _ in 0..5_000 {
        t.say('p', "put");
    }
    t.say('a', "reserve count 2500");
    t.say('a', "consume q 2500");
    assert_eq!(t.engine.ledger.counts().messages.reserved, 5_000);
    t.turn();
    assert_eq!(t.close('a'), "");
    t.checking = true;
    t.engine.check_invariants();
    t
}

#[test]
fn the_end_of_one_that_held_5000_is_done_in_slices() {
    let mut t = holder_of_5000_ends();
    for left in [4_000, 3_000, 2_000, 1_000] {
        assert_eq!(t.engine.ledger.counts().messages.reserved, left);
        assert_eq!(t.engine.next_deadline().0, 0, "at once again");
        t.turn();
    }
    assert_eq!(t.engine.ledger.counts().messages.reserved, 0);
    assert_eq!(t.engine.ledger.counts().messages.ready, 5_000);
    assert_eq!(t.settle(), "a finished");
    assert_eq!(t.engine.ledger.sessions().len(), 2);
}

#[test]
fn what_an_ended_connection_still_holds_is_anybodys_who_names_it() {
    let mut t = holder_of_5000_ends();
    assert_eq!(t.say('b', "take 4999"), "b reserved 4999");
    assert_eq!(t.say('b', "remove 4998"), "b Removed");
    assert_eq!(t.say('b', "take 2400"), "b reserved 2400");
    assert_eq!(t.say('b', "remove 2399"), "b Removed");
    t.settle();
    assert_eq!(t.state(4999), "Reserved");
    assert_eq!(t.state(2400), "Reserved");
    assert_eq!(t.engine.stored().1, 4_998);
    assert_eq!(t.say('b', "reserve"), "b reserved 1");
}

#[test]
fn a_late_acknowledgement_counts_when_the_holder_has_ended() {
    let mut t = Talk::new().workers("pa").consumers_timed("c", 10_000);
    t.checking = false;
    t.say('p', "put");
    t.say('c', "consume q 1");
    for _ in 0..2_000 {
        t.say('p', "put");
    }
    t.pass(10_000);
    t.say('a', "take 1");
    t.say('a', "reserve count 2000");
    t.turn();
    // Its slices come to message 1 first; something else has used up the turn before.
    t.engine.budget = 0;
    t.checking = true;
    assert_eq!(t.close('a'), "");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.state(1), "gone");
    assert_eq!(t.settle(), "c dispatched 2, a finished");
}

#[test]
fn an_expired_message_of_an_ended_connection_takes_its_queue_along() {
    let mut t = Talk::new().workers("apb");
    t.say('p', "put r ttl 1000");
    t.say('a', "take 1");
    t.pass(1_000);
    t.engine.budget = 0;
    assert_eq!(t.close('a'), "");
    assert_eq!(t.say('b', "take 1"), "b NotFound");
    assert_eq!(t.settle(), "a finished");
    assert_eq!(t.say('b', "queues"), "b queues q");
}

#[test]
fn many_windows_of_one_connection_are_ended_with_what_they_hold() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.checking = false;
    for number in 0..3_000 {
        t.say('c', &format!("consume q{number} 1"));
        t.say('p', &format!("put q{number}"));
    }
    t.turn();
    t.close('c');
    t.engine.check_invariants();
    assert_eq!(t.settle(), "c finished");
    t.engine.check_invariants();
    assert_eq!(t.engine.ledger.counts().messages.ready, 3_000);
}

#[test]
fn windows_and_watched_queues_by_the_thousand_are_let_go_in_slices() {
    let mut t = Talk::new().workers("a");
    t.checking = false;
    for number in 0..1_500 {
        t.say('a', &format!("watch w{number}"));
        t.say('a', &format!("consume c{number} 1"));
    }
    t.turn();
    assert_eq!(t.close('a'), "");
    assert_eq!(t.engine.ledger.queues().len(), 2_001);
    t.turn();
    // The first one let go of in this slice is q, which is still in use.
    assert_eq!(t.engine.ledger.queues().len(), 1_002);
    t.engine.check_invariants();
    assert_eq!(t.settle(), "a finished");
    assert_eq!(t.engine.ledger.queues().len(), 0);
}

#[test]
fn a_closed_connection_gets_no_more_through_its_windows() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.checking = false;
    for _ in 0..3_000 {
        t.say('p', "put");
    }
    t.say('c', "consume q 2500");
    t.say('c', "consume r 5");
    t.turn();
    t.say('c', "consume q 0");
    t.checking = true;
    t.close('c');
    assert_eq!(t.say('p', "put r"), "p put 3001");
    assert_eq!(t.settle(), "c finished");
}

#[test]
fn a_window_of_thousands_is_ended_in_slices_and_what_comes_behind_waits() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.checking = false;
    for _ in 0..2_500 {
        t.say('p', "put");
    }
    t.say('c', "consume q 2500");
    t.turn();
    t.checking = true;
    assert_eq!(t.say('c', "consume q 0"), "");
    assert_eq!(t.engine.ledger.counts().messages.reserved, 1_500);
    assert_eq!(t.say('c', "consume q 1"), "");
    assert_eq!(t.settle(), "c dispatched 1");
    assert_eq!(t.engine.ledger.counts().messages.reserved, 1);
}
