//! Answers: which of them wait for the disk, and that nothing passes those that do.

use super::*;
use Durability::{Periodic, Sync, Write};

#[test]
fn periodic_answers_leave_at_once() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("x"));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    assert!(s.order().is_none(), "the tick takes it to the disk");
}

#[test]
fn without_a_database_every_answer_leaves_at_once() {
    let settings = Settings { on_disk: false, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Sync);
    s.say('a', put("x") + "reserve\r\ndelete 1\r\n");
    assert_eq!(s.hear('a'), "INSERTED 1\r\nRESERVED 1 1\r\nx\r\nDELETED\r\n");
    // All is in the database in memory soon, and then there is nothing to wake up for.
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    assert_eq!(s.wakes_in(), None);
}

#[test]
fn without_a_database_messages_are_found_before_and_after_they_are_in_memory() {
    let settings = Settings { on_disk: false, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Periodic);
    s.say('a', put("x") + &put("y"));
    s.say('a', "peek 1\r\n");
    s.pass(TICK_MS);
    s.say('a', "delete 1\r\npeek 2\r\n");
    s.pass(TICK_MS);
    s.say('a', "peek 2\r\n");
    let heard = "INSERTED 1\r\nINSERTED 2\r\nFOUND 1 1\r\nx\r\nDELETED\r\nFOUND 2 1\r\ny\r\nFOUND 2 1\r\ny\r\n";
    assert_eq!(s.hear('a'), heard);
    assert_eq!(s.wakes_in(), None);
}

#[test]
fn answers_that_promise_something_wait_for_their_commit() {
    let requests = [
        (put("new"), "INSERTED 3\r\n"),
        ("delete 1\r\n".to_owned(), "DELETED\r\n"),
        ("release 1 0 0\r\n".to_owned(), "RELEASED\r\n"),
        ("bury 1 0\r\n".to_owned(), "BURIED\r\n"),
        ("kick 1\r\n".to_owned(), "KICKED 1\r\n"),
        ("kick-job 2\r\n".to_owned(), "KICKED\r\n"),
        ("flush-tube default\r\n".to_owned(), "FLUSHED 2\r\n"),
    ];
    for (request, answer) in requests {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        s.say('a', put("x") + &put("y"));
        s.commit();
        s.say('a', "reserve-job 2\r\nbury 2 0\r\nreserve\r\n");
        s.commit();
        s.hear('a');
        s.say('a', &request);
        assert_eq!(s.hear('a'), "", "{request}");
        s.commit();
        assert_eq!(s.hear('a'), answer, "{request}");
    }
}

#[test]
fn who_joins_a_message_waits_for_the_commit_of_that() {
    let mut s = Stage::new().connect("ab", "phpmq", Write);
    let keyed = phpmq(1, &[(1, "q"), (7, "k"), (2, "x"), (6, "n")]);
    s.say('a', &keyed);
    s.say('b', &keyed);
    assert_eq!((s.hear('a'), s.hear('b')), (String::new(), String::new()));
    assert_eq!(s.commit(), (3, false), "the message, its queue and its key");
    let confirmed = s.hear('a');
    assert!(confirmed.starts_with("H0100702"), "{confirmed}");
    assert_eq!(s.hear('b'), confirmed);
    s.say('b', &keyed);
    assert_eq!(s.hear('b'), confirmed, "all is on the disk");
    assert!(s.order().is_none());
}

#[test]
fn a_write_answer_waits_for_no_fsync_and_a_sync_answer_does() {
    for (level, fsync) in [(Write, false), (Sync, true)] {
        let mut s = Stage::new().connect("a", "beanstalk", level);
        s.say('a', put("x"));
        assert_eq!(s.hear('a'), "");
        assert_eq!(s.commit(), (2, fsync), "the message and its queue");
        assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    }
}

#[test]
fn a_request_may_want_more_than_its_listener_promises_and_not_less() {
    let put = |level: &str| {
        format!(
            "POST /v1/queues/q/messages{level} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Length: 1\r\n\r\nx"
        )
    };
    for (listener, wanted, fsync) in [
        (Periodic, "?durability=write", false),
        (Periodic, "?durability=sync", true),
        (Write, "?durability=sync", true),
        (Sync, "?durability=write", true),
    ] {
        let mut s = Stage::new().connect("a", "http", listener);
        s.say('a', put(wanted));
        assert_eq!(s.hear('a'), "", "{listener:?} {wanted}");
        assert_eq!(s.commit().1, fsync, "{listener:?} {wanted}");
        assert!(s.hear('a').starts_with("HTTP/1.1 201 "));
    }
    let mut s = Stage::new().connect("a", "http", Periodic);
    s.say('a', put(""));
    assert!(s.hear('a').starts_with("HTTP/1.1 201 "));
}

#[test]
fn an_answer_that_shows_a_change_waits_for_its_commit() {
    let mut s = Stage::new().connect("a", "http", Write);
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for path in ["/v1/queues/q/pause", "/v1/queues/q/resume"] {
        s.say('a', post(path));
        assert_eq!(s.hear('a'), "", "{path}");
        s.commit();
        assert!(s.hear('a').starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[test]
fn the_strictest_level_in_a_batch_wins() {
    let mut s = Stage::new().connect("w", "beanstalk", Write).connect("s", "beanstalk", Sync);
    s.send('w', put("1"));
    s.send('s', put("2"));
    s.send('w', put("3"));
    s.turn();
    assert_eq!(s.commit(), (4, true));
    assert_eq!(s.hear('w'), "INSERTED 1\r\nINSERTED 3\r\n");
    assert_eq!(s.hear('s'), "INSERTED 2\r\n");
}

#[test]
fn one_commit_covers_all_that_came_while_the_one_before_was_made() {
    let mut s = Stage::new().connect("abc", "beanstalk", Write);
    s.say('a', put("1"));
    let (first, _) = s.order().unwrap();
    s.say('b', put("2"));
    s.say('c', put("3"));
    assert!(s.order().is_none(), "one order at a time");
    s.finish(first, Ok(()));
    assert_eq!((s.hear('a'), s.hear('b')), ("INSERTED 1\r\n".to_owned(), String::new()));
    assert_eq!(s.commit(), (2, false));
    assert_eq!((s.hear('b'), s.hear('c')), ("INSERTED 2\r\n".into(), "INSERTED 3\r\n".into()));
}

#[test]
fn nothing_passes_a_held_answer_on_its_connection() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('a', put("x") + "list-tube-used\r\nreserve\r\nstats-job 99\r\n");
    assert_eq!(s.hear('a'), "");
    s.say('b', "list-tube-used\r\n");
    assert_eq!(s.hear('b'), "USING default\r\n", "another connection waits for nothing");
    s.commit();
    let all = "INSERTED 1\r\nUSING default\r\nRESERVED 1 1\r\nx\r\nNOT_FOUND\r\n";
    assert_eq!(s.hear('a'), all);
}

#[test]
fn what_was_said_before_a_held_answer_leaves() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', "list-tube-used\r\n".to_owned() + &put("x"));
    assert_eq!(s.hear('a'), "USING default\r\n");
    s.commit();
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
}

#[test]
fn a_consumer_is_handed_what_its_sender_waits_to_be_told_of() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('b', "reserve\r\n");
    s.say('a', put("x"));
    assert_eq!((s.hear('a'), s.hear('b')), (String::new(), "RESERVED 1 1\r\nx\r\n".to_owned()));
}

#[test]
fn what_comes_and_goes_within_one_batch_costs_no_row() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("keep"));
    s.commit();
    s.hear('a');
    s.say('a', put("x") + "delete 2\r\n");
    // Nothing is left that could get lost, so the answers need no commit.
    assert!(s.order().is_none());
    s.turn();
    assert_eq!(s.hear('a'), "INSERTED 2\r\nDELETED\r\n");
}

#[test]
fn a_silent_sender_demands_no_commit() {
    let mut s = Stage::new().connect("p", "phpmq", Write);
    s.say('p', phpmq(1, &[(1, "q"), (2, "x")]));
    assert!(s.order().is_none());
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    assert_eq!(s.commit(), (2, true));
}

#[test]
fn a_confirmation_that_a_sender_asked_for_waits_for_its_commit() {
    let mut s = Stage::new().connect("p", "phpmq", Sync);
    s.say('p', phpmq(1, &[(1, "q"), (2, "x"), (6, "mine")]));
    assert_eq!(s.hear('p'), "");
    assert_eq!(s.commit(), (2, true));
    let heard = s.hear('p');
    assert!(heard.starts_with("H0100702") && heard.ends_with("mine"), "{heard}");
}

#[test]
fn replies_and_messages_of_one_turn_leave_in_one_send() {
    let mut s = Stage::new();
    // Each send is a packet.
    s.announce(Type::SEQPACKET, 'a', "beanstalk", Periodic);
    s.send('a', put("1"));
    s.send('a', "reserve\r\n");
    s.send('a', "list-tube-used\r\nreserve\r\n");
    s.turn();
    assert_eq!(s.hear('a'), "INSERTED 1\r\nRESERVED 1 1\r\n1\r\nUSING default\r\n");
    s.say('a', "");
    assert_eq!(s.hear('a'), "");
}

#[test]
fn no_wait_is_over_before_its_time() {
    // The request may have come at the very end of the millisecond that the clock shows.
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', "reserve-with-timeout 1\r\n");
    s.pass(1_000);
    assert_eq!(s.hear('a'), "");
    s.pass(1);
    assert_eq!(s.hear('a'), "TIMED_OUT\r\n");
}
