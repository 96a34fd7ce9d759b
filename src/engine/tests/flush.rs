//! Flushing: every state, in slices, while others act on what is doomed.

use super::Talk;
use crate::words::change::Change;

/// `p` has put so many messages.
fn filled(count: usize) -> Talk {
    let mut t = Talk::new().workers("pw").consumers("cd");
    t.checking = false;
    for _ in 0..count {
        t.say('p', "put");
    }
    t.checking = true;
    t
}

fn removed(t: &Talk) -> usize {
    t.changes.iter().filter(|change| matches!(change, Change::Removed(_))).count()
}

#[test]
fn a_flush_takes_every_state() {
    let mut t = filled(3);
    t.say('p', "put q delay 9000");
    t.say('w', "reserve");
    t.say('w', "bury 1");
    t.say('w', "reserve");
    assert_eq!(t.say('p', "flush q"), "p flushed 4");
    assert_eq!(t.engine.stored(), (0, 0));
    assert_eq!(removed(&t), 4);
    assert_eq!(t.say('w', "remove 2"), "w NotFound");
    assert_eq!(t.say('w', "reserve for 0"), "w TimedOut");
    assert_eq!(t.say('p', "flush q"), "p flushed 0", "it is watched");
    assert_eq!(t.say('p', "flush unknown"), "p NotFound");
}

#[test]
fn a_flushed_queue_takes_messages_at_once() {
    let mut t = filled(2_500);
    assert_eq!(t.say('p', "flush q"), "");
    assert_eq!(t.say('w', "reserve for 0"), "w TimedOut", "what is doomed is not handed out");
    assert_eq!(t.say('w', "put"), "w put 2501");
    assert_eq!(t.say('w', "reserve"), "w reserved 2501");
    assert_eq!(t.settle(), "p flushed 2500");
    assert_eq!(t.state(2501), "Reserved");
}

#[test]
fn a_flush_does_a_thousand_a_turn_and_answers_after_the_last() {
    let mut t = filled(2_500);
    t.turn();
    t.changes.clear();
    assert_eq!(t.say('p', "flush q"), "");
    assert_eq!(removed(&t), 1_000);
    assert_eq!(t.say('p', "echo"), "", "it is answered before what comes behind it");
    assert_eq!(t.turn(), "");
    assert_eq!(removed(&t), 2_000);
    assert_eq!(t.turn(), "p flushed 2500, p Echo");
    assert_eq!(removed(&t), 2_500);
    assert_eq!(t.engine.next_deadline().0, u64::MAX);
}

#[test]
fn what_is_doomed_can_not_be_found_by_anybody() {
    let mut t = filled(3_000);
    t.say('p', "flush q");
    for text in ["peek 2999", "take 2999", "remove 2999", "stats 2999", "kick-one 2999"] {
        assert_eq!(t.say('w', text), "w NotFound", "{text}");
    }
    assert_eq!(t.say('w', "list q"), "w listing  more 0");
    assert_eq!(t.say('w', "peek ready"), "w NotFound");
    t.say('w', "stats q");
    let [crate::words::command::Reply::QueueStatistics(figures)] = &t.replies[..] else { panic!() };
    assert_eq!(figures.messages.total(), 0);
    assert_eq!(t.settle(), "p flushed 3000");
}

#[test]
fn the_place_of_a_flushed_message_is_freed_by_the_late_acknowledgement() {
    let mut t = filled(1);
    t.say('c', "consume q 1");
    t.say('p', "flush q");
    assert_eq!(t.say('p', "put"), "p put 2", "c has no room");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld, c dispatched 2");
    assert_eq!(t.engine.totals.late_acknowledgements, 1);
}

/// `c` holds message 1 and 2,499 are ready, when `p` flushes: its slices have not come to 1 yet.
fn held_and_doomed() -> Talk {
    let mut t = filled(2_500);
    t.say('c', "consume q 1");
    t.turn();
    assert_eq!(t.say('p', "flush q"), "");
    t
}

#[test]
fn an_acknowledgement_of_a_doomed_message_frees_the_place_once() {
    for text in ["ack 1 q", "ack 1", "requeue 1 q", "bury 1 q"] {
        let mut t = held_and_doomed();
        assert_eq!(t.say('c', text), "c NotHeld", "{text}");
        assert_eq!(t.say('p', "put"), "");
        assert_eq!(t.say('w', "put"), "w put 2501, c dispatched 2501");
        assert_eq!(t.settle(), "p flushed 2500, p put 2502");
        assert_eq!(t.say('c', "ack 2501 q"), "c Acknowledged, c dispatched 2502");
        assert_eq!(t.engine.totals.late_acknowledgements, 1);
        assert_eq!(t.engine.totals.foreign_acknowledgements, 0);
    }
}

#[test]
fn the_holder_of_a_doomed_message_may_leave() {
    let mut t = held_and_doomed();
    assert_eq!(t.close('c'), "");
    t.say('d', "consume q 1");
    assert_eq!(t.settle(), "c finished, p flushed 2500");
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn a_doomed_reservation_may_time_out() {
    let mut t = filled(2_500);
    t.say('w', "put q pri 0 ttr 1000");
    t.say('w', "reserve");
    t.turn();
    t.say('p', "flush q");
    t.now.time = t.now.time.plus(1_000);
    t.turn();
    assert_eq!(t.settle(), "p flushed 2501");
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn what_expires_while_it_is_doomed_does_no_harm() {
    let mut t = filled(2_000);
    for _ in 0..10 {
        t.say('w', "put q ttl 500");
    }
    t.say('p', "flush q");
    t.now.time = t.now.time.plus(500);
    assert_eq!(t.settle(), "p flushed 2010");
    assert_eq!(t.engine.totals.messages_expired, 0);
}

#[test]
fn two_flushes_of_one_queue_count_each_message_once() {
    let mut t = filled(2_500);
    t.say('w', "reserve count 100");
    assert_eq!(t.say('p', "flush q"), "");
    t.say('w', "put");
    assert_eq!(t.say('d', "flush q"), "");
    assert_eq!(t.say('w', "flush q"), "");
    let told = t.settle();
    for line in ["p flushed 2500", "d flushed 1", "w flushed 0"] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(t.engine.stored(), (0, 0));
}

#[test]
fn the_asker_may_leave_while_its_flush_is_under_way() {
    let mut t = filled(2_500);
    t.say('p', "flush q");
    assert_eq!(t.close('p'), "");
    assert_eq!(t.settle(), "p flushed 2500, p finished");
}

#[test]
fn a_queue_lives_until_its_flush_is_over() {
    let mut t = Talk::new().workers("p");
    t.checking = false;
    for _ in 0..2_500 {
        t.say('p', "put r");
    }
    t.checking = true;
    t.changes.clear();
    t.say('p', "flush r");
    t.settle();
    assert!(matches!(t.changes.last(), Some(Change::QueueGone(_))));
    assert_eq!(t.say('p', "queues"), "p queues q");
}

#[test]
fn a_flush_of_all_queues_empties_each_of_them() {
    let mut t = Talk::new().workers("pw");
    t.checking = false;
    for number in 0..1_500 {
        t.say('p', &format!("put q{number}"));
        t.say('p', &format!("put q{number} delay 1000"));
    }
    t.checking = true;
    t.turn();
    t.say('w', "take 1");
    assert_eq!(t.say('p', "flushall"), "");
    assert_eq!(t.say('w', "put q0"), "w put 3001");
    assert_eq!(t.settle(), "p flushed 3000");
    assert_eq!(t.engine.stored().1, 1, "what came after its queue was emptied stays");
    assert_eq!(t.say('w', "queues"), "w queues q q0");
}

#[test]
fn a_flush_of_all_queues_is_done_at_once_when_they_are_few() {
    let mut t = filled(5);
    t.say('p', "put r");
    assert_eq!(t.say('p', "flushall"), "p flushed 6");
    assert_eq!(t.say('p', "queues"), "p queues q");
}

#[test]
fn a_consumer_whose_places_were_all_flushed_and_that_stays_silent_is_closed() {
    let mut t = Talk::new().workers("p").consumers_timed("c", 10_000);
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.pass(3_000);
    t.say('p', "flush q");
    assert_eq!(t.pass(9_999), "");
    assert_eq!(t.pass(1), "c to be closed");
}
