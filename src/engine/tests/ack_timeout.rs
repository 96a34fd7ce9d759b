//! `ack_timeout`, sentence by sentence of design.md section 3.

use super::Talk;

/// A producer `p` and consumers with a time-out of 10 seconds.
fn talk(letters: &str) -> Talk {
    Talk::new().workers("p").consumers_timed(letters, 10_000)
}

#[test]
fn the_oldest_message_goes_back_to_its_old_place_when_the_clock_runs_out() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.say('p', "put");
    t.say('p', "put q delay 5000");
    assert_eq!(t.pass(9_999), "c dispatched 2");
    t.say('p', "put");
    t.say('p', "pause q 60000");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('p', "reserve for 0"), "p TimedOut", "it is paused");
    t.say('p', "pause q 0");
    assert_eq!(t.say('p', "reserve for 0"), "p reserved 1", "before 3");
}

#[test]
fn without_a_time_out_nothing_goes_back() {
    let mut t = Talk::new().workers("p").consumers("c");
    t.say('c', "consume q 1");
    t.say('p', "put q ttr 1000");
    assert_eq!(t.pass(1_000_000), "", "nor does the time to run apply");
    assert_eq!(t.state(1), "Reserved");
}

#[test]
fn the_time_out_is_counted() {
    let mut t = talk("c");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.pass(10_000);
    assert_eq!(t.engine.totals.timeouts, 1);
    t.say('p', "stats 1");
    let [crate::words::command::Reply::MessageStatistics(figures)] = &t.replies[..] else {
        panic!()
    };
    assert_eq!((figures.counters.timeouts, figures.counters.reserves), (1, 1));
}

#[test]
fn the_next_oldest_has_the_whole_time_from_when_it_became_the_oldest() {
    let mut t = talk("c");
    t.say('c', "consume q 3");
    for _ in 0..3 {
        t.say('p', "put");
    }
    t.say('p', "pause q 100000");
    t.pass(10_000);
    assert_eq!((t.state(1), t.state(2)), ("Ready".into(), "Reserved".into()));
    t.pass(4_000);
    t.say('c', "ack 2 q");
    t.pass(9_999);
    assert_eq!(t.state(3), "Reserved", "the oldest since the acknowledgement");
    t.pass(1);
    assert_eq!(t.state(3), "Ready");
}

#[test]
fn an_acknowledgement_of_a_younger_message_moves_no_clock() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.say('p', "put");
    t.say('p', "put");
    t.pass(6_000);
    t.say('c', "ack 2 q");
    t.say('p', "pause q 100000");
    t.pass(3_999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
}

#[test]
fn a_message_into_an_empty_window_has_the_whole_time_from_its_delivery() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.pass(50_000);
    t.say('p', "put");
    t.say('p', "pause q 100000");
    t.pass(9_999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
}

#[test]
fn its_place_stays_taken_and_the_connection_stays() {
    let mut t = talk("cd");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.say('d', "consume q 1");
    assert_eq!(t.pass(10_000), "d dispatched 1");
    assert_eq!(t.say('p', "put"), "p put 2", "c has no room");
    assert_eq!(t.say('c', "consume q 2"), "c dispatched 2", "but is still there");
}

#[test]
fn a_late_acknowledgement_frees_the_place() {
    let mut t = talk("cd");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.say('d', "consume q 1");
    t.pass(10_000);
    t.say('p', "put");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld, c dispatched 2");
    assert_eq!(t.state(1), "Reserved", "it does not count while d holds it");
    assert_eq!(t.engine.totals.late_acknowledgements, 1);
    assert_eq!(t.engine.totals.foreign_acknowledgements, 0);
    assert_eq!(t.say('d', "ack 1 q"), "d Acknowledged");
}

#[test]
fn a_late_acknowledgement_counts_while_nobody_holds_the_message() {
    let mut t = talk("c");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.pass(10_000);
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.state(1), "gone");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.engine.totals.late_acknowledgements, 1);
    assert_eq!(t.engine.totals.foreign_acknowledgements, 1, "the second one is nobody's");
}

#[test]
fn a_late_acknowledgement_of_what_somebody_else_has_finished_frees_the_place() {
    let mut t = talk("cd");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.say('d', "consume q 1");
    t.pass(10_000);
    t.say('d', "ack 1 q");
    t.say('d', "consume q 0");
    t.say('p', "put");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld, c dispatched 2");
}

#[test]
fn a_late_requeue_or_burial_frees_the_place_and_changes_nothing_else() {
    for text in ["requeue 1 q", "bury 1 q"] {
        let mut t = talk("c");
        t.say('c', "consume q 1");
        t.say('p', "put");
        t.say('p', "pause q 20000");
        t.pass(10_000);
        assert_eq!(t.say('c', text), "c NotHeld", "{text}");
        assert_eq!(t.state(1), "Ready");
        assert_eq!(t.engine.totals.late_acknowledgements, 1);
        assert_eq!(t.say('p', "pause q 0"), "p Paused, c dispatched 1");
    }
}

#[test]
fn a_late_acknowledgement_does_not_prolong_the_time_of_the_oldest() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.say('p', "put");
    t.say('p', "put");
    t.say('p', "pause q 100000");
    t.pass(10_000);
    t.pass(5_000);
    t.say('c', "ack 1 q");
    t.pass(4_999);
    assert_eq!(t.state(2), "Reserved");
    t.pass(1);
    assert_eq!(t.state(2), "Ready");
}

#[test]
fn a_consumer_that_has_lost_all_places_is_closed_after_one_more_time_out() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.say('p', "put");
    t.say('p', "put");
    t.say('p', "pause q 100000");
    assert_eq!(t.pass(10_000), "");
    assert_eq!(t.pass(10_000), "");
    assert_eq!((t.state(1), t.state(2)), ("Ready".into(), "Ready".into()));
    assert_eq!(t.pass(9_999), "");
    assert_eq!(t.pass(1), "c to be closed");
    assert_eq!(t.close('c'), "c finished");
}

#[test]
fn a_consumer_that_hangs_alone_is_closed_even_when_it_gets_the_same_message_again() {
    let mut t = talk("c");
    t.say('c', "consume q 3");
    t.say('p', "put");
    for _ in 0..2 {
        assert_eq!(t.pass(10_000), "c dispatched 1", "there is room and nobody else");
    }
    assert_eq!(t.pass(10_000), "", "each time-out has taken a place");
    assert_eq!(t.pass(10_000), "c to be closed");
}

#[test]
fn each_of_several_lost_places_of_one_message_is_freed_by_an_acknowledgement() {
    let mut t = talk("c");
    t.say('c', "consume q 3");
    t.say('p', "put");
    assert_eq!(t.pass(20_000), "c dispatched 1, c dispatched 1");
    assert_eq!(t.say('c', "ack 1 q"), "c Acknowledged");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.say('c', "ack 1 q"), "c NotHeld");
    assert_eq!(t.engine.totals.late_acknowledgements, 2);
    t.say('c', "ack 1 q");
    assert_eq!(t.engine.totals.foreign_acknowledgements, 1);
}

#[test]
fn a_late_acknowledgement_saves_a_consumer_from_being_closed() {
    let mut t = talk("c");
    t.say('c', "consume q 2");
    t.say('p', "put");
    t.say('p', "put");
    t.say('p', "pause q 100000");
    t.pass(29_000);
    t.say('c', "ack 1 q");
    assert_eq!(t.pass(50_000), "", "it has room again");
}

#[test]
fn a_window_has_one_clock_and_another_queue_another() {
    let mut t = talk("c");
    t.say('c', "consume q 1");
    t.say('c', "consume r 1");
    t.say('p', "put q");
    t.pass(5_000);
    t.say('p', "put r");
    t.say('p', "pause q 100000");
    t.say('p', "pause r 100000");
    t.pass(5_000);
    assert_eq!((t.state(1), t.state(2)), ("Ready".into(), "Reserved".into()));
    t.pass(5_000);
    assert_eq!(t.state(2), "Ready");
}

#[test]
fn a_window_that_is_ended_forgets_its_lost_places() {
    let mut t = talk("c");
    t.say('c', "consume q 1");
    t.say('p', "put");
    t.pass(10_000);
    t.say('c', "consume q 0");
    assert_eq!(t.say('c', "consume q 1"), "c dispatched 1");
}

#[test]
fn nobody_is_closed_for_what_was_not_read_during_a_pause() {
    let mut t = Talk::new().workers("p").consumers_timed("c", 10_000);
    t.say('c', "consume q 1");
    t.say('p', "put");
    // Given back and, while the consumer has no place left, ready for others.
    t.pass(10_000);
    assert_eq!(t.jump(60_000), "");
    assert_eq!(t.pass(9_999), "");
    assert_eq!(t.pass(1), "c to be closed");
}
