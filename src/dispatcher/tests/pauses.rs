//! The process was stopped, or the machine suspended: much time has passed between two turns, and
//! commands are there together with what was due meanwhile.

use std::cell::Cell;

use super::*;
use Durability::Periodic;

/// `a` has jobs that are reserved, delayed and about to expire.
fn worker() -> Stage {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', "put 0 0 2 1\r\nr\r\nput 0 3 9 1\r\nd\r\nreserve\r\n");
    s.hear('a');
    s
}

#[test]
fn the_first_command_after_a_pause_sees_nothing_that_is_long_over() {
    for (command, answer) in [
        ("reserve-with-timeout 0", "RESERVED 1 1\r\nr\r\n"),
        ("touch 1", "NOT_FOUND\r\n"),
        ("release 1 0 0", "NOT_FOUND\r\n"),
        ("peek-ready", "FOUND 1 1\r\nr\r\n"),
        ("peek-delayed", "NOT_FOUND\r\n"),
        ("kick-job 2", "NOT_FOUND\r\n"),
        ("reserve-job 2", "RESERVED 2 1\r\nd\r\n"),
    ] {
        let mut s = worker();
        s.send('a', format!("{command}\r\n"));
        s.pass(60_000);
        assert_eq!(s.hear('a'), answer, "{command}");
    }
}

#[test]
fn figures_after_a_pause_show_nothing_that_is_long_over() {
    let mut s = worker();
    s.send('a', "stats-tube default\r\n");
    s.pass(60_000);
    let figures = s.hear('a');
    for line in ["jobs-ready: 2", "jobs-reserved: 0", "jobs-delayed: 0"] {
        assert!(figures.contains(&format!("current-{line}\n")), "{line} in {figures}");
    }
}

#[test]
fn a_pause_in_the_middle_of_a_turn_counts_too() {
    let mut s = worker();
    s.send('a', "list-tube-used\r\n");
    s.send('a', "reserve-with-timeout 0\r\n");
    let later = s.now.time.plus(60_000);
    let looks = Cell::new(0);
    let time = || {
        looks.set(looks.get() + 1);
        later
    };
    s.dispatcher.turn_by(s.now, time, None);
    assert_eq!(s.hear('a'), "USING default\r\nRESERVED 1 1\r\nr\r\n");
    assert!(looks.get() > 0);
}

#[test]
fn more_than_a_turns_worth_is_done_before_the_first_command() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    for _ in 0..50 {
        s.say('a', "put 0 3 9 1\r\nd\r\n".repeat(100));
        s.hear('a');
    }
    s.send('a', "stats-tube default\r\n");
    s.pass(60_000);
    assert!(s.hear('a').contains("current-jobs-ready: 5000\n"));
}

/// Persistence was stopped too, so it needs a moment to say that all is well.
#[test]
fn answers_that_wait_for_a_commit_are_not_given_up_for_a_pause() {
    let mut s = Stage::new().connect("a", "beanstalk", Durability::Write);
    s.say('a', put("x"));
    let (batch, _) = s.order().unwrap();
    s.pass(60_000);
    assert_eq!(s.hear('a'), "");
    s.finish(batch, Ok(()));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
}

#[test]
fn answers_are_given_up_when_the_commit_takes_long_after_a_pause() {
    let mut s = Stage::new().connect("a", "beanstalk", Durability::Write);
    s.say('a', put("x"));
    s.pass(60_000);
    s.pass(TIMEOUT_MS - 1);
    assert_eq!(s.hear('a'), "");
    s.pass(1);
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\n");
}
