//! What an operator sets of a queue: its pause, and how much it may hold.

use super::Talk;

#[test]
fn a_queue_that_an_operator_has_paused_hands_out_nothing_until_it_is_resumed() {
    let mut t = Talk::new().workers("pa").consumers("c");
    assert_eq!(t.say('p', "hold q"), "p Configured");
    t.say('a', "reserve");
    t.say('c', "consume q 1");
    assert_eq!(t.say('p', "put"), "p put 1");
    assert_eq!(t.say('p', "put"), "p put 2");
    assert_eq!(t.pass(1_000_000), "");
    // A pause that ends by itself is another one.
    t.say('p', "pause q 1000");
    assert_eq!(t.pass(1_000), "");
    assert_eq!(t.say('p', "pause q 0"), "p Paused");
    assert_eq!(t.say('p', "resume q"), "p Configured, a reserved 1, c dispatched 2");
}

#[test]
fn a_resumed_queue_stays_in_a_pause_of_its_clients() {
    let mut t = Talk::new().workers("pa");
    t.say('p', "hold q");
    t.say('p', "pause q 5000");
    t.say('p', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('p', "resume q"), "p Configured");
    assert_eq!(t.pass(5_000), "a reserved 1");
}

#[test]
fn a_full_queue_refuses_by_the_class_of_the_priority_whatever_its_messages_are() {
    let mut t = Talk::new().workers("p").consumers("c");
    assert_eq!(t.say('p', "limit q 4 3 2"), "p Configured");
    for told in ["p put 1", "p put 2", "p refused QueueFull"] {
        assert_eq!(t.say('p', "put pri 1280"), told);
    }
    assert_eq!(t.say('p', "put pri 1024 delay 9000"), "p put 3");
    assert_eq!(t.say('p', "put pri 1024"), "p refused QueueFull");
    assert_eq!(t.say('p', "put pri 767"), "p put 4");
    assert_eq!(t.say('p', "put pri 0"), "p refused QueueFull");
    t.say('p', "reserve");
    assert_eq!(t.say('p', "put pri 0"), "p refused QueueFull", "held ones count");
    // What returns is not refused, and neither is a sender that would not hear of it.
    assert_eq!(t.say('p', "release 4"), "p Released");
    assert_eq!(t.say('c', "put q"), "c put 5");
    assert_eq!(t.say('p', "limit q 0 0 0"), "p Configured");
    assert_eq!(t.say('p', "put"), "p put 6");
}

#[test]
fn a_queue_with_a_setting_is_there_when_it_is_empty_and_gone_without() {
    let mut t = Talk::new().workers("a");
    assert_eq!(t.say('a', "resume r"), "a NotFound");
    assert_eq!(t.say('a', "limit r 0 0 0"), "a NotFound");
    assert_eq!(t.say('a', "hold r"), "a Configured");
    t.say('a', "limit r 1 1 1");
    assert_eq!(t.say('a', "resume r"), "a Configured");
    assert_eq!(t.say('a', "queues"), "a queues q r");
    t.say('a', "limit r 0 0 0");
    assert_eq!(t.say('a', "queues"), "a queues q");
}

#[test]
fn settings_of_too_many_queues_are_refused() {
    let limits = crate::words::limits::LimitValues { max_queues: 1, ..Default::default() };
    let mut t = Talk::with(limits).workers("a");
    assert_eq!(t.say('a', "hold r"), "a refused TooManyQueues");
}

#[test]
fn a_removed_queue_has_no_messages_and_no_settings_left() {
    let mut t = Talk::new().workers("ab");
    assert_eq!(t.say('a', "remove-queue r"), "a NotFound");
    t.say('a', "hold r");
    t.say('a', "limit r 1 1 1");
    t.say('a', "put r");
    assert_eq!(t.say('a', "remove-empty r"), "a refused NotEmpty");
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('a', "remove-queue r"), "a flushed 1");
    assert_eq!((t.state(1), t.say('a', "queues")), ("gone".to_owned(), "a queues q".to_owned()));
    // One that a connection needs stays, as if it were new.
    t.say('b', "watch r");
    t.say('a', "hold r");
    t.say('a', "pause r 5000");
    assert_eq!(t.say('a', "remove-empty r"), "a flushed 0");
    t.say('b', "reserve");
    assert_eq!(t.say('a', "put r"), "a put 2, b reserved 2");
}
