//! Windows: at most so many out at a time, one per connection and queue, until changed.

use crate::words::limits::LimitValues;

use super::Talk;

#[test]
fn no_more_than_the_window_is_out_and_each_acknowledgement_frees_a_place() {
    let mut t = Talk::new().workers("p").consumers("c");
    assert_eq!(t.say('c', "consume q 2"), "");
    assert_eq!(t.say('p', "put"), "p put 1, c dispatched 1");
    assert_eq!(t.say('p', "put"), "p put 2, c dispatched 2");
    assert_eq!(t.say('p', "put"), "p put 3");
    assert_eq!(t.say('c', "ack 1 q"), "c Acknowledged, c dispatched 3");
}

#[test]
fn a_new_request_for_the_same_queue_changes_its_window() {
    let mut t = Talk::new().workers("p").consumers("c");
    for _ in 0..6 {
        t.say('p', "put");
    }
    assert_eq!(Talk::handed(&t.say('c', "consume q 2")), "c1 c2");
    assert_eq!(Talk::handed(&t.say('c', "consume q 4")), "c3 c4", "raised: nothing is repeated");
    assert_eq!(t.say('c', "consume q 1"), "", "lowered: what is out stays out");
    for id in 1..4 {
        assert_eq!(t.say('c', &format!("ack {id} q")), "c Acknowledged");
    }
    assert_eq!(t.say('c', "ack 4 q"), "c Acknowledged, c dispatched 5");
}

#[test]
fn a_window_of_0_ends_it_and_gives_back_what_is_out() {
    let mut t = Talk::new().workers("p").consumers("cd");
    for _ in 0..3 {
        t.say('p', "put");
    }
    t.say('c', "consume q 2");
    t.say('d', "consume q 1");
    assert_eq!(t.say('c', "consume q 0"), "");
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('d', "ack 3 q"), "d Acknowledged, d dispatched 1");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.state(1), "Reserved");
    assert_eq!(t.say('p', "put"), "p put 4", "c consumes no more");
}

#[test]
fn a_window_of_0_on_a_queue_that_is_not_consumed_makes_no_queue() {
    let mut t = Talk::new().workers("p").consumers("c");
    assert_eq!(t.say('c', "consume nothing 0"), "");
    assert_eq!(t.say('p', "queues"), "p queues q");
}

#[test]
fn a_connection_has_a_window_for_each_queue() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.say('c', "consume q 1");
    t.say('c', "consume r 2");
    assert_eq!(Talk::handed(&t.say('p', "put q")), "c1");
    assert_eq!(Talk::handed(&t.say('p', "put r")), "c2");
    assert_eq!(Talk::handed(&t.say('p', "put q")), "");
    assert_eq!(Talk::handed(&t.say('p', "put r")), "c4");
    assert_eq!(t.say('c', "ack 1 r"), "c NotHeld", "of the wrong queue");
    assert_eq!(Talk::handed(&t.say('c', "ack 1 q")), "c3");
    t.say('c', "consume q 0");
    assert_eq!(t.state(3), "Ready");
    assert_eq!(t.state(2), "Reserved");
}

#[test]
fn an_acknowledgement_of_a_message_never_held_is_ignored_and_counted() {
    let mut t = Talk::new().workers("p").consumers("cd");
    t.say('p', "put");
    t.say('c', "consume q 1");
    t.say('d', "consume q 1");
    for text in ["ack 1 q", "ack 1 other", "ack 77 q", "ack 1"] {
        assert_eq!(t.say('d', text), "d NotHeld");
    }
    assert_eq!(t.state(1), "Reserved");
    assert_eq!(t.engine.totals.foreign_acknowledgements, 4);
    assert_eq!(t.engine.totals.late_acknowledgements, 0);
}

#[test]
fn a_window_larger_than_the_limit_is_taken_as_the_limit() {
    let limits = LimitValues { max_window: 3, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("p").consumers("c");
    for _ in 0..5 {
        t.say('p', "put");
    }
    assert_eq!(Talk::handed(&t.say('c', "consume q 4294967295")), "c1 c2 c3");
}

#[test]
fn a_consumed_queue_exists_until_its_last_consumer_leaves() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.say('c', "consume r 1");
    assert_eq!(t.say('p', "queues"), "p queues q r");
    t.close('c');
    assert_eq!(t.say('p', "queues"), "p queues q");
}

#[test]
fn a_peer_that_does_not_keep_up_gets_nothing_through_its_windows() {
    let mut t = Talk::new().workers("p").consumers("cd");
    t.say('c', "consume q 5");
    t.say('c', "consume r 5");
    t.stall('c', true);
    assert_eq!(t.say('p', "put"), "p put 1");
    assert_eq!(t.say('p', "put r"), "p put 2");
    t.say('d', "consume q 1");
    assert_eq!(t.state(1), "Reserved", "others take part");
    assert_eq!(t.say('p', "put"), "p put 3");
    let mut handed = Talk::handed(&t.stall('c', false));
    if handed == "c2 c3" {
        handed = "c3 c2".into();
    }
    assert_eq!(handed, "c3 c2", "of both queues, in either order");
}

#[test]
fn a_consumer_of_a_queue_too_many_is_told_so() {
    let limits = LimitValues { max_queues: 1, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("p").consumers("c");
    assert_eq!(t.say('c', "consume r 1"), "c refused TooManyQueues");
    assert_eq!(t.say('c', "consume q 1"), "");
}

/// Half a million names took 353 MiB, whatever `max_memory` said.
#[test]
fn regression_10_names_of_queues_do_not_take_all_the_memory() {
    // Half of it is for queues of 514 bytes, of which the first brings it beyond.
    let limits = LimitValues { max_memory: 2 * 1_000, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("p").consumers("c");
    assert_eq!(t.say('c', "consume r 1"), "");
    assert_eq!(t.say('c', "consume s 1"), "c refused OutOfMemory");
    assert_eq!(t.say('p', "put r"), "p put 1, c dispatched 1", "a queue that is there");
    assert_eq!(t.say('p', "put s"), "p refused OutOfMemory");
    assert_eq!(t.say('p', "queues"), "p queues q r");
}
