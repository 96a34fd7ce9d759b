//! Much at once: a turn does a bounded part of it, and nobody is forgotten over it.

use super::Talk;
use crate::words::change::Change;

fn removed(t: &Talk) -> usize {
    t.changes.iter().filter(|change| matches!(change, Change::Removed(_))).count()
}

/// `p` has put so many messages that expire after a second.
fn expiring(count: usize) -> Talk {
    let mut t = Talk::new().workers("pwx").consumers("c");
    t.checking = false;
    for _ in 0..count {
        t.say('p', "put q ttl 1000");
    }
    t.now.time = t.now.time.plus(1_000);
    t.changes.clear();
    t
}

#[test]
fn many_expiries_are_done_a_turns_worth_at_a_time() {
    let mut t = expiring(3_500);
    for done in [1_000, 2_000, 3_000, 3_500] {
        t.turn();
        assert_eq!(removed(&t), done);
    }
    t.engine.check_invariants();
    assert_eq!(t.engine.next_deadline().0, u64::MAX);
}

#[test]
fn a_hundred_thousand_expiries_take_a_hundred_turns() {
    let mut t = Talk::new().workers("p");
    t.checking = false;
    let message = super::command("put q ttl 1000");
    for _ in 0..100_000 {
        t.command('p', message.clone());
        t.changes.clear();
    }
    t.now.time = t.now.time.plus(1_000);
    t.turn();
    assert_eq!(removed(&t), 1_000);
    let mut turns = 1;
    while t.engine.next_deadline() <= t.now.time {
        t.changes.clear();
        t.turn();
        assert!(removed(&t) <= 1_000);
        turns += 1;
    }
    assert!((100..=102).contains(&turns), "{turns}");
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn a_reservation_behind_many_expired_messages_gets_the_first_good_one() {
    for text in ["reserve", "reserve for 0", "reserve for 5 count 2"] {
        let mut t = expiring(2_500);
        t.say('p', "put");
        t.checking = true;
        assert_eq!(t.say('w', text), "", "{text}");
        assert_eq!(t.say('w', "echo"), "", "what comes behind it waits");
        assert_eq!(removed(&t), 1_000);
        let told = t.settle();
        assert!(told.contains("w reserved 2501, w Echo"), "{told}");
    }
}

#[test]
fn a_reservation_behind_nothing_but_expired_messages_waits_or_times_out() {
    let mut t = expiring(2_500);
    assert_eq!(t.say('w', "reserve for 0"), "");
    assert_eq!(t.say('x', "reserve for 5000"), "");
    assert_eq!(t.settle(), "w TimedOut");
    assert_eq!(t.engine.ledger.counts().waiting, 1);
    assert_eq!(t.say('p', "put"), "p put 2501, x reserved 2501");
}

#[test]
fn a_hang_up_behind_many_expired_messages_is_answered() {
    let mut t = expiring(2_500);
    assert_eq!(t.say('w', "reserve"), "");
    t.hang_up('w');
    assert_eq!(t.settle(), "w TimedOut");
}

#[test]
fn a_connection_may_end_while_it_looks_behind_expired_messages() {
    let mut t = expiring(2_500);
    t.say('p', "put");
    t.say('w', "reserve");
    assert_eq!(t.close('w'), "");
    assert_eq!(t.settle(), "w reserved 2501, w finished");
    assert_eq!(t.state(2501), "Ready");
}

#[test]
fn a_window_behind_many_expired_messages_is_served_when_they_are_cleared_away() {
    let mut t = expiring(2_500);
    t.say('p', "put");
    t.checking = true;
    assert_eq!(t.say('c', "consume q 3"), "");
    assert_eq!(t.say('p', "put"), "p put 2502");
    assert_eq!(t.settle(), "c dispatched 2501, c dispatched 2502");
}

#[test]
fn a_served_queue_may_vanish_before_its_turn() {
    let mut t = expiring(1_500);
    t.say('c', "consume q 3");
    for letter in ['p', 'w', 'x', 'c'] {
        assert_eq!(t.close(letter), "", "the turn's budget is used up");
    }
    let told = t.settle();
    assert_eq!(told.matches("finished").count(), 4, "{told}");
    t.engine.check_invariants();
    assert_eq!(t.engine.ledger.queues().len(), 0);
}

#[test]
fn many_delays_that_end_together_are_done_in_slices() {
    let mut t = Talk::new().workers("p");
    t.checking = false;
    for _ in 0..2_500 {
        t.say('p', "put q delay 1000");
    }
    t.now.time = t.now.time.plus(1_000);
    t.turn();
    assert!(t.engine.ledger.counts().messages.ready <= 1_000);
    t.settle();
    t.engine.check_invariants();
    assert_eq!(t.engine.ledger.counts().messages.ready, 2_500);
}

#[test]
fn many_reservations_that_end_together_are_done_in_slices() {
    let mut t = Talk::new().workers("pw");
    t.checking = false;
    for _ in 0..2_500 {
        t.say('p', "put q ttr 1000");
    }
    t.say('w', "reserve count 2500");
    t.now.time = t.now.time.plus(1_000);
    t.turn();
    assert_eq!(t.engine.ledger.counts().messages.ready, 1_000);
    t.settle();
    t.engine.check_invariants();
    assert_eq!(t.engine.ledger.counts().messages.ready, 2_500);
}

#[test]
fn clocks_do_not_starve_large_work_for_ever() {
    let mut t = expiring(1_500);
    t.say('p', "put r");
    assert_eq!(t.say('w', "flush r"), "w flushed 1");
    assert_eq!(t.say('w', "reserve for 0"), "");
    assert_eq!(t.say('x', "flush q"), "");
    let told = t.settle();
    assert!(told.contains("w TimedOut") && told.contains("x flushed"), "{told}");
}
