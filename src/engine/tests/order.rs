//! Which message comes next: by priority, then by place; what comes back has its old place.

use super::Talk;

#[test]
fn messages_of_one_priority_leave_in_the_order_they_came() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "put");
    assert_eq!(t.say('a', "reserve"), "a reserved 1");
    assert_eq!(t.say('a', "reserve"), "a reserved 2");
}

#[test]
fn a_smaller_priority_is_handed_out_first() {
    let mut t = Talk::new().workers("a");
    for priority in ["pri 7", "pri 0", "pri 4294967295", "pri 7"] {
        t.say('a', &format!("put q {priority}"));
    }
    let order: Vec<String> = (0..4).map(|_| t.say('a', "reserve")).collect();
    assert_eq!(order, ["a reserved 2", "a reserved 1", "a reserved 4", "a reserved 3"]);
}

#[test]
fn a_message_without_a_priority_has_the_configured_one() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q pri 1025");
    t.say('a', "put q");
    t.say('a', "put q pri 1023");
    let order: Vec<String> = (0..3).map(|_| t.say('a', "reserve")).collect();
    assert_eq!(order, ["a reserved 3", "a reserved 2", "a reserved 1"]);
}

#[test]
fn several_watched_queues_give_the_smallest_priority_then_place() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "watch r");
    t.say('a', "watch s");
    t.say('b', "put r pri 5");
    t.say('b', "put q pri 5");
    t.say('b', "put s pri 4");
    t.say('b', "put other pri 0");
    let order: Vec<String> = (0..3).map(|_| t.say('a', "reserve for 0")).collect();
    assert_eq!(order, ["a reserved 3", "a reserved 1", "a reserved 2"]);
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
}

#[test]
fn a_released_message_returns_to_its_old_place() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.say('b', "reserve"), "b reserved 1");
}

#[test]
fn what_a_leaving_consumer_held_returns_to_its_old_place() {
    let mut t = Talk::new().workers("p").consumers("ab");
    for _ in 0..4 {
        t.say('p', "put");
    }
    assert_eq!(t.say('a', "consume q 2"), "a dispatched 1, a dispatched 2");
    assert_eq!(t.say('b', "consume q 1"), "b dispatched 3");
    assert_eq!(t.close('a'), "a finished");
    assert_eq!(t.say('b', "ack 3 q"), "b Acknowledged, b dispatched 1");
    assert_eq!(t.say('b', "ack 1 q"), "b Acknowledged, b dispatched 2");
    assert_eq!(t.say('b', "ack 2 q"), "b Acknowledged, b dispatched 4");
}

#[test]
fn a_release_may_change_the_priority() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q pri 1");
    t.say('a', "put q pri 2");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "release 1 pri 3"), "a Released");
    assert_eq!(t.say('a', "reserve"), "a reserved 2");
    assert_eq!(t.say('a', "reserve"), "a reserved 1");
}

#[test]
fn a_requeued_message_goes_behind_all_others() {
    let mut t = Talk::new().workers("p").consumers("c");
    for _ in 0..3 {
        t.say('p', "put");
    }
    t.say('c', "consume q 1");
    assert_eq!(t.say('c', "requeue 1 q"), "c Released, c dispatched 2");
    assert_eq!(t.say('c', "ack 2 q"), "c Acknowledged, c dispatched 3");
    assert_eq!(t.say('c', "ack 3 q"), "c Acknowledged, c dispatched 1");
    assert_eq!(t.say('p', "put"), "p put 5", "its new place is drawn from the ids");
}

#[test]
fn delayed_messages_are_ready_when_their_time_has_come_at_their_own_place() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q delay 2000");
    t.say('a', "put q delay 1000");
    t.say('a', "put q delay 3000");
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    t.pass(999);
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    t.pass(1_001);
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 2");
    assert_eq!(t.say('a', "reserve"), "");
    assert_eq!(t.pass(1_000), "a reserved 3");
}

#[test]
fn a_release_with_a_delay_comes_back_later() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "release 1 delay 500"), "a Released");
    assert_eq!(t.state(1), "Delayed");
    assert_eq!(t.say('a', "reserve"), "");
    assert_eq!(t.pass(499), "");
    assert_eq!(t.pass(1), "a reserved 1");
}
