//! Reservations: at once, waiting, several at a time, by id; what holds up the requests behind.

use super::Talk;

#[test]
fn a_waiting_reservation_gets_the_next_message() {
    let mut t = Talk::new().workers("ab");
    assert_eq!(t.say('a', "reserve"), "");
    assert_eq!(t.say('b', "put"), "b put 1, a reserved 1");
}

#[test]
fn a_reservation_with_no_time_to_wait_is_answered_at_once() {
    let mut t = Talk::new().workers("a");
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    assert_eq!(t.engine.next_deadline().0, u64::MAX, "nothing was armed");
}

#[test]
fn a_wait_times_out_and_not_before() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "reserve for 1500");
    assert_eq!(t.pass(1_499), "");
    assert_eq!(t.pass(1), "a TimedOut");
    assert_eq!(t.say('b', "put"), "b put 1", "it waits no more");
}

#[test]
fn a_wait_over_several_queues_ends_in_all_of_them() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "watch r");
    t.say('a', "reserve");
    assert_eq!(t.say('b', "put r"), "b put 1, a reserved 1");
    assert_eq!(t.say('b', "put q"), "b put 2");
}

#[test]
fn requests_behind_a_waiting_reservation_are_answered_in_order() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "put other"), "");
    assert_eq!(t.say('a', "remove 1"), "");
    assert_eq!(t.say('a', "echo"), "");
    assert_eq!(t.say('b', "put"), "b put 1, a reserved 1, a put 2, a Removed, a Echo");
}

#[test]
fn a_backlog_can_wait_again_for_what_it_needs() {
    let mut t = Talk::new().workers("ab");
    for _ in 0..3 {
        t.say('a', "reserve");
    }
    assert_eq!(t.say('b', "put"), "b put 1, a reserved 1");
    assert_eq!(t.say('b', "put"), "b put 2, a reserved 2");
    assert_eq!(t.say('b', "put"), "b put 3, a reserved 3");
}

#[test]
fn a_long_backlog_closes_the_gate_until_half_of_it_is_done() {
    let mut t = Talk::new().workers("ab");
    t.checking = false;
    t.say('a', "reserve");
    for _ in 1..512 {
        assert_eq!(t.say('a', "reserve"), "");
    }
    assert_eq!(t.say('a', "echo"), "a gate closed");
    assert_eq!(t.say('a', "echo"), "");
    for _ in 0..256 {
        let told = t.say('b', "put");
        assert!(!told.contains("gate"), "{told}");
    }
    t.checking = true;
    assert!(t.say('b', "put").ends_with("a gate open"));
}

#[test]
fn a_hang_up_answers_a_wait_and_what_was_sent_behind_it() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "reserve");
    t.say('a', "put other");
    assert_eq!(t.hang_up('a'), "a TimedOut, a put 1");
    assert_eq!(t.say('a', "reserve"), "a TimedOut", "it never waits again");
    t.say('b', "put");
    assert_eq!(t.say('a', "reserve"), "a reserved 2", "what is there it still gets");
}

#[test]
fn several_at_once_are_announced_by_their_number() {
    let mut t = Talk::new().workers("ab");
    for _ in 0..3 {
        t.say('b', "put");
    }
    let told = t.say('a', "reserve for 0 count 2");
    assert_eq!(told, "a batch 2, a reserved 1, a reserved 2");
    assert_eq!(t.say('a', "reserve for 0 count 9"), "a batch 1, a reserved 3");
    assert_eq!(t.say('a', "reserve for 0 count 9"), "a TimedOut");
}

#[test]
fn a_wait_for_several_ends_with_the_first() {
    let mut t = Talk::new().workers("ab");
    assert_eq!(t.say('a', "reserve count 3"), "");
    assert_eq!(t.say('b', "put"), "b put 1, a batch 1, a reserved 1");
    assert_eq!(t.say('b', "put"), "b put 2");
}

#[test]
fn a_message_is_reserved_by_id_when_it_is_ready_delayed_or_buried() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q delay 5000");
    t.say('a', "put");
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "bury 2");
    for id in [1, 2, 3] {
        assert_eq!(t.say('b', &format!("take {id}")), format!("b reserved {id}"));
        assert_eq!(t.say('a', &format!("take {id}")), "a NotFound");
    }
    assert_eq!(t.say('b', "take 3"), "b NotFound", "its own is reserved too");
    assert_eq!(t.say('b', "take 4"), "b NotFound");
    t.say('b', "release 2");
    assert_eq!(t.state(2), "Ready");
}

#[test]
fn a_message_that_was_buried_is_stored_as_ready_once_it_is_reserved() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "bury 1");
    t.changes.clear();
    t.say('a', "take 1");
    let [crate::words::change::Change::Moved(row)] = &t.changes[..] else {
        panic!("{:?}", t.changes)
    };
    assert_eq!(row.state, crate::words::change::MessageState::Ready);
}

#[test]
fn peeks_show_the_next_of_the_used_queue() {
    let mut t = Talk::new().workers("a");
    assert_eq!(t.say('a', "peek ready"), "a NotFound");
    t.say('a', "put q delay 9000");
    t.say('a', "put q delay 8000");
    t.say('a', "put q pri 2");
    t.say('a', "put q pri 1");
    t.say('a', "put other pri 0");
    assert_eq!(t.say('a', "peek ready"), "a found 4");
    assert_eq!(t.say('a', "peek delayed"), "a found 2");
    assert_eq!(t.say('a', "peek buried"), "a NotFound");
    for id in [3, 4] {
        t.say('a', &format!("take {id}"));
        t.say('a', &format!("bury {id}"));
    }
    assert_eq!(t.say('a', "peek buried"), "a found 3", "in the order they were buried");
    assert_eq!(t.say('a', "peek 5"), "a found 5");
    assert_eq!(t.say('a', "peek 6"), "a NotFound");
}

#[test]
fn used_and_watched_queues_are_told() {
    let mut t = Talk::new().workers("a");
    assert_eq!(t.say('a', "used"), "a using q");
    assert_eq!(t.say('a', "use r"), "a using r");
    assert_eq!(t.say('a', "watch s"), "a watching 2");
    assert_eq!(t.say('a', "watch s"), "a watching 2");
    assert_eq!(t.say('a', "watched"), "a queues q s");
    assert_eq!(t.say('a', "ignore unknown"), "a watching 2");
    assert_eq!(t.say('a', "ignore q"), "a watching 1");
    assert_eq!(t.say('a', "ignore s"), "a refused LastQueue");
    assert_eq!(t.say('a', "queues"), "a queues s r", "q is gone: nobody refers to it");
}
