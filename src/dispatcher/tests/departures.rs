//! What a peer did before it hung up comes before what others ask after that.

use super::*;
use crate::dispatcher::departures::{AHEAD_EVENTS_MAX, PATIENCE_MS, REST_FACTOR, SLICES_MAX};
use Durability::Periodic;

/// `b` holds message 1, and nothing else lies in `default`.
fn holding() -> Stage {
    let mut s = Stage::new().connect("abc", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.hear('a');
    s.say('b', "reserve\r\n");
    s
}

#[test]
fn whatever_others_look_at_shows_that_a_peer_has_gone() {
    let shows = [
        ("peek-ready\r\n", "FOUND 1 1\r\n"),
        ("stats-job 1\r\n", "state: ready\n"),
        ("stats-tube default\r\n", "current-jobs-ready: 1\n"),
        ("stats\r\n", "current-connections: 2\n"),
        ("stats\r\n", "current-jobs-ready: 1\n"),
        ("list-tubes\r\n", "OK 14\r\n---\n- default\n\r\n"),
        ("reserve-with-timeout 0\r\n", "RESERVED 1 1\r\n"),
        ("reserve\r\n", "RESERVED 1 1\r\n"),
        ("reserve-job 1\r\n", "RESERVED 1 1\r\n"),
        ("delete 1\r\n", "DELETED\r\n"),
        ("pause-tube of-b 0\r\n", "NOT_FOUND\r\n"),
    ];
    for (line, shown) in shows {
        let mut s = holding();
        s.say('b', "use of-b\r\n");
        s.vanish('b');
        s.send('a', line);
        s.turn();
        assert_eq!(s.hear('a'), "", "{line} waits for the end");
        s.end('b', End::EndOfFile);
        s.turn();
        let heard = s.hear('a');
        assert!(heard.contains(shown), "{line}{heard}");
    }
}

#[test]
fn other_protocols_see_it_too() {
    let mut s = holding().connect("k", "console", Periodic).connect("p", "phpmq", Periodic);
    s.say('k', "plain\n");
    s.hear('k');
    s.say('p', phpmq(2, &[(1, "default"), (4, "10")]));
    s.vanish('b');
    s.send('k', "status\n");
    // Put before the end is handled, it would overtake message 1 on its way to the consumer.
    s.send('p', phpmq(1, &[(1, "default"), (2, "second")]));
    s.end('b', End::EndOfFile);
    s.turn();
    let delivered = s.hear('p');
    let (first, second) = (delivered.find("x").unwrap(), delivered.find("second").unwrap());
    assert!(first < second, "{delivered}");
    let status = s.hear('k');
    assert!(status.contains("connections: 4\n"), "{status}");
}

#[test]
fn what_it_sent_without_waiting_for_an_answer_is_done_first() {
    let mut s = holding();
    // Its thread has read none of this yet.
    s.write('b', &(put("y") + "delete 1\r\n"));
    s.vanish('b');
    s.send('a', "stats-tube default\r\npeek 1\r\npeek-ready\r\n");
    s.turn();
    assert_eq!(s.hear('a'), "");
    s.send('b', put("y"));
    s.turn();
    assert_eq!(s.hear('a'), "");
    s.send('b', "delete 1\r\n");
    s.end('b', End::EndOfFile);
    s.turn();
    let heard = s.hear('a');
    assert!(heard.contains("current-jobs-ready: 1\ncurrent-jobs-reserved: 0\n"), "{heard}");
    assert!(heard.ends_with("NOT_FOUND\r\nFOUND 2 1\r\ny\r\n"), "{heard}");
}

#[test]
fn who_asks_and_closes_its_sending_side_is_answered_at_once() {
    let mut s = holding();
    s.send('a', "peek 1\r\n");
    s.half_close('a');
    s.turn();
    assert_eq!(s.hear('a'), "FOUND 1 1\r\nx\r\n", "nobody else has asked");
    s.send('c', "stats\r\n");
    s.turn();
    assert_eq!(s.hear('c'), "");
    s.end('a', End::EndOfFile);
    s.turn();
    assert!(s.hear('c').contains("current-connections: 2\n"));
}

#[test]
fn what_is_due_and_what_is_committed_does_not_wait() {
    let mut s = holding().connect("w", "beanstalk", Durability::Write);
    s.say('w', put("y"));
    s.say('w', "watch other\r\nignore default\r\nreserve-with-timeout 1\r\n");
    s.hear('w');
    s.vanish('b');
    s.send('a', "peek-ready\r\n");
    s.turn();
    s.commit();
    assert!(s.hear('w').contains("INSERTED 2"), "a commit lets its answer go");
    s.pass(1);
    assert_eq!(s.hear('a'), "", "the round still waits");
    s.open('d', "beanstalk", Periodic);
    assert!(s.knows('d'), "a new connection is taken");
}

#[test]
fn a_thread_that_never_says_it_is_at_its_end_holds_nobody_up_for_long() {
    let mut s = holding();
    s.vanish('b');
    s.send('a', "peek-ready\r\n");
    s.turn();
    s.pass(PATIENCE_MS - 1);
    assert_eq!(s.hear('a'), "");
    s.pass(1);
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n");
    s.say('a', "peek-ready\r\n");
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n", "it is not waited for again");
    s.vanish('c');
    s.say('a', "peek-ready\r\n");
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n", "nor is anybody, for a while");
    s.pass(PATIENCE_MS * REST_FACTOR);
    s.say('a', "peek-ready\r\n");
    assert_eq!(s.hear('a'), "");
    s.end('c', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n");
    s.end('b', End::EndOfFile);
    s.say('a', "peek-ready\r\n");
    assert_eq!(s.hear('a'), "FOUND 1 1\r\nx\r\n", "its end is handled when it comes");
}

#[test]
fn not_all_of_what_is_sent_before_a_hang_up_goes_ahead_of_others() {
    let mut s = holding();
    s.vanish('b');
    s.send('a', "stats-tube default\r\n");
    s.turn();
    for _ in 1..AHEAD_EVENTS_MAX {
        s.say('b', put("y"));
    }
    assert_eq!(s.hear('a'), "");
    s.say('b', put("y"));
    let heard = s.hear('a');
    assert!(heard.contains(&format!("current-jobs-ready: {AHEAD_EVENTS_MAX}\n")), "{heard}");
    s.say('a', "peek 1\r\n");
    assert_eq!(s.hear('a'), "FOUND 1 1\r\nx\r\n");
}

#[test]
fn what_others_say_meanwhile_keeps_its_order_and_its_bound() {
    let mut s = holding();
    s.vanish('b');
    s.send('a', "peek-ready\r\n");
    s.turn();
    s.say('c', "use first\r\n");
    s.say('a', "use second\r\n");
    s.say('c', "use third\r\n");
    assert_eq!(s.hear('c'), "");
    // As many more as may be put aside.
    for _ in 3..EVENTS_WAITING_MAX {
        s.say('c', "list-tube-used\r\n");
    }
    let heard = s.hear('c');
    assert!(heard.starts_with("USING first\r\nUSING third\r\nUSING third\r\n"), "{heard}");
    assert_eq!(s.hear('a'), "NOT_FOUND\r\nUSING second\r\n");
}

#[test]
fn who_hangs_up_behind_its_gate_is_not_waited_for_before_it_may_go_on() {
    let mut s = holding().connect("p", "phpmq", Periodic);
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    s.say('p', phpmq(1, &[(1, "default"), (2, "kept")]));
    assert!(s.is_gated('p'));
    s.vanish('p');
    s.say('a', "stats\r\n");
    assert!(s.hear('a').contains("current-connections: 4\n"));
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    assert!(!s.is_gated('p'));
    s.say('a', "stats\r\n");
    assert_eq!(s.hear('a'), "");
    s.end('p', End::EndOfFile);
    s.turn();
    assert!(s.hear('a').contains("current-connections: 3\n"));
}

#[test]
fn who_hangs_up_while_its_large_frame_waits_for_room_holds_nobody_up() {
    for has_begun in [false, true] {
        let mut s = holding();
        s.vanish('b');
        if has_begun {
            s.send('a', "peek-ready\r\n");
            s.turn();
            assert_eq!(s.hear('a'), "");
        }
        s.waits_for_room('b', true);
        if has_begun {
            s.events.send(Event::Ping).unwrap();
            s.turn();
        } else {
            s.say('a', "peek-ready\r\n");
        }
        assert_eq!(s.hear('a'), "NOT_FOUND\r\n");
        s.waits_for_room('b', false);
        s.say('a', "peek-ready\r\n");
        assert_eq!(s.hear('a'), "", "its thread reads on");
        s.end('b', End::EndOfFile);
        s.turn();
        assert_eq!(s.hear('a'), "FOUND 1 1\r\nx\r\n");
    }
}

#[test]
fn who_hangs_up_behind_a_waiting_reservation_waits_no_more() {
    let mut s = holding();
    s.say('c', "watch other\r\nignore default\r\nuse other\r\nreserve\r\n");
    for _ in 0..4 {
        s.say('c', "list-tube-used\r\n".repeat(128));
    }
    assert!(s.is_gated('c'));
    s.half_close('c');
    s.send('a', "stats-tube other\r\n");
    s.turn();
    assert!(!s.is_gated('c'), "its thread reads on to the end");
    s.end('c', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n");
    assert!(s.hear('c').ends_with("TIMED_OUT\r\n".to_owned().as_str()) || s.is_closed('c'));
}

#[test]
fn much_that_is_given_back_is_waited_for_up_to_a_bound() {
    for (held, shown) in [(3_000, "3000"), (1_000 * (SLICES_MAX + 5), "")] {
        let mut s = Stage::new().connect("ab", "beanstalk", Periodic);
        for _ in 0..held / 100 {
            s.say('b', put("x").repeat(100));
            s.say('b', "reserve-with-timeout 0\r\n".repeat(100));
            s.hear('b');
        }
        s.vanish('b');
        s.send('a', "stats-tube default\r\n");
        s.end('b', End::EndOfFile);
        s.turn();
        let heard = s.hear('a');
        assert!(heard.contains(&format!("current-jobs-ready: {shown}")), "{heard}");
        assert_eq!(!shown.is_empty(), heard.contains("current-jobs-reserved: 0\n"), "{heard}");
    }
}

#[test]
fn a_stop_waits_for_nobody() {
    let mut s = holding();
    s.vanish('b');
    s.send('a', "peek-ready\r\n");
    s.turn();
    s.send('a', "list-tube-used\r\n");
    s.end('a', End::Stopped);
    s.end('c', End::Stopped);
    s.end('b', End::Stopped);
    s.events.send(Event::Stop).unwrap();
    s.turn();
    assert!(s.dispatcher.stopping);
    assert_eq!(s.hear('a'), "FOUND 1 1\r\nx\r\nUSING default\r\n");
}
