//! Figures, surveys and listings.

use super::Talk;
use crate::words::command::{Command, Reply};
use crate::words::statistics::{Counted, MessageStatistics, QueueStatistics, ServerStatistics};

fn server(t: &mut Talk) -> ServerStatistics {
    t.say('a', "stats");
    let [Reply::Statistics(figures)] = &t.replies[..] else { panic!("{:?}", t.replies) };
    *figures.clone()
}

fn of_queue(t: &mut Talk) -> QueueStatistics {
    t.say('a', "stats q");
    let [Reply::QueueStatistics(figures)] = &t.replies[..] else { panic!("{:?}", t.replies) };
    *figures.clone()
}

fn of_message(t: &mut Talk, id: u64) -> MessageStatistics {
    t.say('a', &format!("stats {id}"));
    let [Reply::MessageStatistics(figures)] = &t.replies[..] else { panic!("{:?}", t.replies) };
    *figures.clone()
}

/// One message in each state, and an urgent one.
fn one_of_each() -> Talk {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put q bytes 10");
    t.say('a', "put q bytes 10");
    t.say('a', "put q pri 1023 bytes 10");
    t.say('a', "put q bytes 10");
    t.say('a', "put q delay 5000 bytes 10");
    t.say('b', "take 1");
    t.say('b', "take 2");
    t.say('b', "bury 2");
    t
}

#[test]
fn messages_are_counted_by_state() {
    let mut t = one_of_each();
    for counts in [server(&mut t).messages, of_queue(&mut t).messages] {
        let by_state =
            (counts.urgent, counts.ready, counts.reserved, counts.delayed, counts.buried);
        assert_eq!(by_state, (1, 2, 1, 1, 1));
    }
    let figures = server(&mut t);
    assert_eq!((figures.body_bytes, figures.messages_put, figures.queues), (50, 5, 1));
}

#[test]
fn commands_are_counted_and_also_those_that_were_refused_elsewhere() {
    let mut t = one_of_each();
    t.say('a', "reserve for 0");
    t.say('a', "bury 99");
    let counted = Command::Malformed { counted: Counted::Put, costs_id: false };
    assert_eq!(t.command('a', counted), "a Echo");
    t.say('a', "echo");
    let counts = server(&mut t).commands;
    let what = [
        (Counted::Put, 6),
        (Counted::ReserveMessage, 2),
        (Counted::Bury, 2),
        (Counted::ReserveWithTimeout, 1),
        (Counted::Reserve, 0),
        (Counted::Statistics, 1),
        (Counted::Refer, 0),
    ];
    for (command, count) in what {
        assert_eq!(counts.of(command), count, "{command:?}");
    }
}

#[test]
fn connections_are_counted_by_what_they_do() {
    let mut t = Talk::new().workers("abc").consumers("d");
    t.say('b', "reserve");
    t.say('d', "consume r 1");
    t.say('c', "put other");
    let figures = server(&mut t);
    assert_eq!((figures.connections, figures.connections_accepted), (4, 4));
    assert_eq!((figures.producers, figures.workers, figures.waiting), (1, 2, 1));
    let queue = of_queue(&mut t);
    assert_eq!((queue.using, queue.watching, queue.waiting), (3, 3, 1));
    for letter in ['b', 'c', 'd'] {
        t.close(letter);
    }
    let figures = server(&mut t);
    assert_eq!((figures.connections, figures.connections_accepted), (1, 4));
    assert_eq!((figures.producers, figures.workers, figures.waiting), (0, 0, 0));
}

#[test]
fn a_queue_tells_its_pause_and_what_was_asked_of_it() {
    let mut t = one_of_each();
    t.say('a', "pause q 4000");
    t.pass(1_500);
    t.say('a', "remove 3");
    t.say('a', "remove 77");
    let figures = of_queue(&mut t);
    assert_eq!((figures.pause_ms, figures.pause_left_ms), (4_000, 2_500));
    assert_eq!((figures.pauses, figures.removes, figures.messages_put), (1, 1, 5));
    t.pass(2_500);
    let figures = of_queue(&mut t);
    assert_eq!((figures.pause_ms, figures.pause_left_ms), (0, 0));
    assert_eq!(t.say('a', "stats nothing"), "a NotFound");
}

#[test]
fn a_message_tells_its_state_and_what_is_left_of_its_time() {
    let mut t = one_of_each();
    t.pass(2_000);
    let reserved = of_message(&mut t, 1);
    assert_eq!((reserved.time_left_ms, reserved.time_to_run_ms), (58_000, 60_000));
    assert_eq!((reserved.age_ms, reserved.counters.reserves), (2_000, 1));
    let delayed = of_message(&mut t, 5);
    assert_eq!((delayed.time_left_ms, delayed.delay_ms), (3_000, 5_000));
    assert_eq!(of_message(&mut t, 2).time_left_ms, 0);
    assert_eq!(of_message(&mut t, 2).counters.buries, 1);
    assert_eq!(t.say('a', "stats 99"), "a NotFound");
}

#[test]
fn all_that_happens_to_a_message_is_counted() {
    let mut t = Talk::new().workers("ab");
    t.say('b', "put q ttr 1000");
    t.say('b', "reserve");
    t.say('b', "release 1 delay 3000");
    t.say('b', "kick-one 1");
    t.say('b', "reserve");
    t.pass(1_000);
    t.say('b', "reserve");
    t.say('b', "bury 1");
    t.say('b', "kick 1");
    let figures = of_message(&mut t, 1);
    let counters = figures.counters;
    assert_eq!((counters.reserves, counters.timeouts), (3, 1));
    assert_eq!((counters.releases, counters.buries, counters.kicks), (1, 1, 2));
    assert_eq!(figures.delay_ms, 3_000);
    assert_eq!(server(&mut t).timeouts, 1);
}

#[test]
fn draining_is_told() {
    let mut t = Talk::new().workers("a");
    assert!(!server(&mut t).draining);
    let refusal = Some(crate::words::refusal::Refusal::Draining);
    t.input(crate::engine::Input::RefusePuts(refusal));
    assert!(server(&mut t).draining);
}

#[test]
fn a_survey_shows_the_fullest_queues_first_and_counts_the_rest() {
    let mut t = Talk::new().workers("a");
    for (queue, count) in [("mail.in", 2), ("mail.out", 5), ("log", 2), ("x", 1)] {
        for _ in 0..count {
            t.say('a', &format!("put {queue}"));
        }
    }
    assert_eq!(t.say('a', "survey 3"), "a survey mail.out:5 log:2 mail.in:2 more 2");
    assert_eq!(t.say('a', "survey 9 MAIL*"), "a survey mail.out:5 mail.in:2 more 0");
    assert_eq!(t.say('a', "survey 1 *l*"), "a survey mail.out:5 more 2");
    assert_eq!(t.say('a', "survey 9 nothing"), "a survey  more 0");
    let [Reply::Survey(survey)] = &t.replies[..] else { panic!() };
    assert_eq!((survey.queues_total, survey.connections, survey.messages.ready), (5, 1, 10));
}

#[test]
fn a_survey_of_many_queues_goes_over_them_in_slices() {
    let mut t = Talk::new().workers("a");
    t.checking = false;
    for number in 0..2_500 {
        t.say('a', &format!("put q{number}"));
    }
    t.say('a', "put q1234");
    t.turn();
    assert_eq!(t.say('a', "survey 1"), "");
    assert_eq!(t.turn(), "");
    assert_eq!(t.turn(), "a survey q1234:2 more 2500");
    t.turn();
    assert_eq!(t.say('a', "queues"), "");
    let told = t.settle();
    assert_eq!(told.split(' ').count(), 2 + 2_501);
    assert!(told.contains(" q2499") && told.contains(" q0 "));
}

#[test]
fn a_listing_has_the_queues_order_and_delayed_and_buried_ones_behind() {
    let mut t = Talk::new().workers("ab");
    for options in ["", "", " pri 5", "", " delay 1000"] {
        t.say('a', &format!("put q{options}"));
    }
    t.say('b', "take 1");
    t.say('b', "take 2");
    t.say('b', "bury 2");
    let all = "a listing 3:Ready 1:Reserved 4:Ready 5:Delayed 2:Buried more 0";
    assert_eq!(t.say('a', "list q"), all);
    assert_eq!(t.say('a', "list q 2"), "a listing 3:Ready 1:Reserved more 3");
    assert_eq!(t.say('a', "list unknown"), "a listing  more 0");
    assert_eq!(t.say('a', "queues"), "a queues q", "looking makes no queue");
}

#[test]
fn expired_and_foreign_and_late_are_counted() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 1000");
    t.say('a', "put");
    t.pass(1_000);
    t.say('c', "consume q 1");
    t.say('a', "flush q");
    t.say('c', "ack 2 q");
    t.say('c', "ack 1 q");
    let figures = server(&mut t);
    assert_eq!(figures.messages_expired, 1);
    assert_eq!((figures.late_acknowledgements, figures.foreign_acknowledgements), (1, 1));
}

#[test]
fn a_queue_tells_what_is_at_its_head_how_old_it_is_and_who_holds_the_rest() {
    let mut t = one_of_each();
    t.say('a', "hold q");
    t.pass(7_000);
    let figures = of_queue(&mut t);
    assert_eq!(figures.head.map(|id| id.0), Some(3), "the urgent one");
    assert_eq!(figures.oldest_ready_ms, Some(7_000), "behind it, and longer there");
    assert_eq!((figures.body_bytes, figures.is_held), (50, true));
    let holders: Vec<_> = figures.holders.iter().map(|h| (h.message.0, h.left_ms)).collect();
    assert_eq!(holders, [(1, Some(53_000))]);
    // What was delayed has not been ready for longer than since then.
    t.say('a', "remove 3");
    t.say('a', "remove 4");
    assert_eq!(of_queue(&mut t).oldest_ready_ms, Some(2_000));
}
