//! What goes to one peer in a turn is bounded in bytes (`limits.max_output`, one message more).

use super::Talk;
use crate::words::limits::LimitValues;

fn talk() -> Talk {
    Talk::with(LimitValues { max_output: 1_000, ..LimitValues::default() })
}

fn fill(t: &mut Talk, queue: &str, count: usize) {
    for _ in 0..count {
        t.say('p', &format!("put {queue} bytes 300"));
    }
}

#[test]
fn a_window_gets_no_more_in_a_turn_than_may_lie_unsent() {
    let mut t = talk().workers("p").consumers("c");
    fill(&mut t, "q", 10);
    assert_eq!(Talk::handed(&t.say('c', "consume q 100")), "c1 c2 c3 c4");
    assert_eq!(t.engine.next_deadline().0, 0, "it goes on at once");
    assert_eq!(Talk::handed(&t.turn()), "c5 c6 c7 c8");
    assert_eq!(Talk::handed(&t.turn()), "c9 c10");
    assert_eq!(t.engine.next_deadline().0, u64::MAX);
}

#[test]
fn the_bound_is_of_the_connection_not_of_each_window() {
    let mut t = talk().workers("p").consumers("c");
    t.say('c', "consume q 100");
    t.say('c', "consume r 100");
    t.say('p', "put q bytes 2000");
    assert_eq!(t.say('p', "put r bytes 1"), "p put 2");
    assert_eq!(t.turn(), "c dispatched 2");
}

#[test]
fn an_exhausted_consumer_leaves_messages_to_others() {
    let mut t = talk().workers("p").consumers("cd");
    t.say('c', "consume q 100");
    t.say('d', "consume q 100");
    let mut handed = Vec::new();
    for _ in 0..4 {
        handed.push(Talk::handed(&t.say('p', "put q bytes 1000")));
    }
    assert_eq!(handed, ["c1", "d2", "", ""]);
    assert_eq!(Talk::handed(&t.turn()), "c3 d4");
}

#[test]
fn a_slow_peer_is_not_renewed_before_it_keeps_up_again() {
    let mut t = talk().workers("p").consumers("c");
    fill(&mut t, "q", 6);
    t.say('c', "consume q 100");
    t.stall('c', true);
    assert_eq!(t.turn(), "");
    assert_eq!(t.engine.next_deadline().0, u64::MAX, "no busy loop meanwhile");
    assert_eq!(Talk::handed(&t.stall('c', false)), "c5 c6");
}

#[test]
fn who_keeps_up_again_within_the_turn_is_bounded_again() {
    let mut t = talk().workers("p").consumers("c");
    fill(&mut t, "q", 20);
    t.say('c', "consume q 100");
    t.stall('c', true);
    assert_eq!(Talk::handed(&t.stall('c', false)), "c5 c6 c7 c8");
}

#[test]
fn a_serial_peer_waits_with_its_next_request_for_the_next_turn() {
    let mut t = talk().workers("pw");
    fill(&mut t, "q", 6);
    for id in 1..5 {
        assert_eq!(t.say('w', "reserve"), format!("w reserved {id}"));
    }
    assert_eq!(t.say('w', "reserve"), "");
    assert_eq!(t.say('w', "echo"), "");
    assert_eq!(t.turn(), "w reserved 5, w Echo");
}

#[test]
fn peeks_count_too() {
    let mut t = talk().workers("pw");
    t.say('p', "put q bytes 1000");
    assert_eq!(t.say('w', "peek 1"), "w found 1");
    assert_eq!(t.say('w', "peek 1"), "");
    assert_eq!(t.turn(), "w found 1");
}

#[test]
fn a_reservation_of_several_ends_where_the_allowance_does() {
    let mut t = talk().workers("pw");
    fill(&mut t, "q", 6);
    let told = t.say('w', "reserve for 0 count 6");
    assert_eq!(told, "w batch 4, w reserved 1, w reserved 2, w reserved 3, w reserved 4");
    assert_eq!(t.say('w', "reserve for 0 count 6"), "");
    assert_eq!(t.turn(), "w batch 2, w reserved 5, w reserved 6");
}

#[test]
fn a_slow_serial_peer_goes_on_when_it_keeps_up_again_or_is_gone() {
    for gone in [false, true] {
        let mut t = talk().workers("pw");
        fill(&mut t, "q", 5);
        for _ in 0..4 {
            t.say('w', "reserve");
        }
        t.say('w', "remove 1");
        t.stall('w', true);
        assert_eq!(t.turn(), "");
        if gone {
            assert_eq!(t.close('w'), "", "it may still take what lies unsent");
            assert_eq!(t.close('w'), "w Removed, w finished");
        } else {
            assert_eq!(t.stall('w', false), "w Removed");
        }
    }
}

#[test]
fn with_no_room_at_all_one_message_a_turn_goes_out() {
    let limits = LimitValues { max_output: 0, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("p").consumers("c");
    fill(&mut t, "q", 2);
    assert_eq!(t.say('c', "consume q 5"), "c dispatched 1");
    assert_eq!(t.turn(), "c dispatched 2");
}
