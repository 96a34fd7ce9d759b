//! Reservations end by themselves after the message's time to run; the last second is a margin.

use super::Talk;

#[test]
fn a_reservation_ends_after_the_time_to_run_and_the_message_has_its_old_place() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 2000");
    t.say('a', "put");
    t.say('a', "reserve");
    t.pass(1_999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('b', "reserve"), "b reserved 1");
    assert_eq!(t.say('a', "release 1"), "a NotFound");
    assert_eq!(t.say('a', "remove 1"), "a NotFound");
    assert_eq!(t.engine.totals.timeouts, 1);
}

#[test]
fn a_timed_out_message_goes_to_who_waits() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 5000");
    t.say('a', "reserve");
    t.say('b', "reserve");
    assert_eq!(t.pass(5_000), "b reserved 1");
}

#[test]
fn a_touch_starts_the_time_to_run_anew() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 2000");
    t.say('a', "reserve");
    t.pass(1_500);
    assert_eq!(t.say('a', "touch 1"), "a Touched");
    t.pass(1_999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('a', "touch 1"), "a NotFound");
    t.say('b', "reserve");
    assert_eq!(t.say('a', "touch 1"), "a NotFound", "somebody else's");
}

#[test]
fn a_reservation_inside_the_last_second_is_answered_deadline_soon() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttr 3000");
    t.say('a', "reserve");
    t.pass(1_999);
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    t.pass(1);
    assert_eq!(t.say('a', "reserve for 0"), "a DeadlineSoon");
    assert_eq!(t.say('a', "reserve"), "a DeadlineSoon");
    t.say('a', "put");
    assert_eq!(t.say('a', "reserve"), "a reserved 2", "a ready message comes first");
    t.say('a', "remove 1");
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut", "the margin went with the message");
}

#[test]
fn a_wait_that_reaches_the_last_second_is_answered_deadline_soon() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttr 3000");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "reserve for 10000"), "");
    assert_eq!(t.pass(1_999), "");
    assert_eq!(t.pass(1), "a DeadlineSoon");
}

#[test]
fn the_margin_is_that_of_the_first_reservation_to_end() {
    let mut t = Talk::new().workers("ab");
    t.say('b', "put q ttr 9000");
    t.say('b', "put q ttr 3000");
    t.say('a', "reserve");
    t.say('a', "reserve");
    t.say('a', "reserve");
    assert_eq!(t.pass(2_000), "a DeadlineSoon");
    t.say('a', "remove 2");
    assert_eq!(t.say('a', "reserve"), "");
    assert_eq!(t.pass(5_999), "");
    assert_eq!(t.pass(1), "a DeadlineSoon");
}

#[test]
fn a_touch_moves_the_margin_of_a_wait() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttr 3000");
    t.say('a', "reserve");
    t.pass(1_500);
    t.say('a', "touch 1");
    t.say('a', "reserve for 60000");
    assert_eq!(t.pass(1_999), "");
    assert_eq!(t.pass(1), "a DeadlineSoon");
}

#[test]
fn a_time_to_run_of_a_second_or_less_is_all_margin() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 1000");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "reserve"), "a DeadlineSoon");
    t.pass(1_000);
    assert_eq!(t.say('b', "reserve"), "b reserved 1");
}

#[test]
fn many_reservations_end_each_at_its_own_moment() {
    let mut t = Talk::new().workers("a");
    for ttr in [4_000, 1_000, 3_000, 2_000] {
        t.say('a', &format!("put q ttr {ttr}"));
        t.say('a', "reserve");
    }
    for (count, id) in [(3, 2), (2, 4), (1, 3), (0, 1)] {
        t.pass(1_000);
        assert_eq!(t.state(id), "Ready");
        assert_eq!(t.engine.ledger.counts().messages.reserved, count);
    }
}

#[test]
fn a_late_turn_does_everything_that_was_due() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 2000");
    t.say('a', "put q delay 3000");
    t.say('a', "reserve");
    t.say('b', "reserve for 1000");
    assert_eq!(t.jump(60_000), "b TimedOut");
    assert_eq!((t.state(1), t.state(2)), ("Ready".into(), "Ready".into()));
}

#[test]
fn a_time_out_is_counted_but_stored_only_at_a_clean_stop() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttr 2000");
    t.say('a', "reserve");
    t.changes.clear();
    t.pass(2_000);
    assert_eq!(t.changes, []);
    let rows = t.engine.unsaved_counters();
    let [crate::words::change::Change::Moved(row)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.counters.reserves, row.counters.timeouts), (1, 1));
    assert_eq!(t.engine.unsaved_counters(), [], "once");
}

/// The process was stopped: the session's clock comes long after both moments.
#[test]
fn a_wait_is_never_told_of_a_deadline_that_is_over() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttr 3000");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "reserve for 10000"), "");
    assert_eq!(t.jump(60_000), "a reserved 1");
}

#[test]
fn what_was_due_during_a_pause_is_done_before_the_first_command() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q ttr 3000");
    t.say('a', "put q delay 5000");
    t.say('a', "put q ttl 5000 delay 9000");
    t.say('a', "reserve");
    t.now.time = t.now.time.plus(60_000);
    assert_eq!(t.catch_up(), "");
    assert_eq!([1, 2, 3].map(|id| t.state(id)), ["Ready", "Ready", "gone"]);
    assert_eq!(t.say('a', "touch 1"), "a NotFound");
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
    assert_eq!(t.say('b', "peek delayed"), "b NotFound");
}
