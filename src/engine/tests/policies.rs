//! Policies: attempts, back-off, dead letters, and what a kick makes of them.

use std::sync::Arc;

use crate::words::cause::Cause;
use crate::words::change::{Change, MessageState, StateRow};
use crate::words::command::Reply;
use crate::words::ids::QueueId;
use crate::words::pattern::Pattern;
use crate::words::policy::{Policies, Policy};
use crate::words::statistics::{Failures, ServerStatistics};

use super::super::Input;
use super::{Talk, queue};

pub(super) fn policy(
    queues: &str,
    max_attempts: u32,
    backoff_ms: &[u64],
    dead_letter: &str,
) -> Policy {
    Policy {
        queues: Pattern::new(queues),
        max_attempts,
        backoff_ms: backoff_ms.to_vec(),
        jitter: 0.0,
        dead_letter: (!dead_letter.is_empty()).then(|| queue(dead_letter)),
    }
}

pub(super) fn apply(t: &mut Talk, policies: Vec<Policy>) {
    t.input(Input::Policies(Arc::new(Policies::new(policies))));
}

/// Workers of queue `q` under these policies.
pub(super) fn under(letters: &str, policies: Vec<Policy>) -> Talk {
    let mut t = Talk::new().workers(letters);
    apply(&mut t, policies);
    t
}

pub(super) fn failures(t: &mut Talk, id: u64) -> Failures {
    t.say('a', &format!("stats {id}"));
    match t.replies.pop() {
        Some(Reply::MessageStatistics(statistics)) => statistics.failures,
        other => panic!("no statistics: {other:?}"),
    }
}

fn statistics(t: &mut Talk) -> ServerStatistics {
    t.say('a', "stats");
    match t.replies.pop() {
        Some(Reply::Statistics(statistics)) => *statistics,
        other => panic!("no statistics: {other:?}"),
    }
}

/// Puts so many messages, without a look at all of them after each.
fn fill(t: &mut Talk, count: u64) {
    t.checking = false;
    for _ in 0..count {
        t.say('a', "put");
    }
    t.checking = true;
}

/// The row that was last written of a message.
pub(super) fn row(t: &Talk, id: u64) -> StateRow {
    let rows = t.changes.iter().rev().filter_map(|change| match change {
        Change::Moved(row) if row.id.0 == id => Some(row.clone()),
        _ => None,
    });
    rows.into_iter().next().expect("its state was written")
}

#[test]
fn without_a_policy_a_message_returns_at_once_however_often() {
    let mut t = under("ab", vec![policy("other", 1, &[1_000], "failed")]);
    t.say('b', "put");
    for _ in 0..5 {
        assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
        assert_eq!(t.say('a', "release 1"), "a Released");
    }
    assert_eq!(failures(&mut t, 1), Failures::default());
    let figures = statistics(&mut t);
    assert_eq!((figures.messages_set_aside, figures.messages_dead_lettered), (0, 0));
    assert_eq!(figures.returns.iter().next(), Some(("released", 5)));
}

#[test]
fn each_failed_attempt_waits_longer_and_the_last_wait_repeats() {
    let mut t = under("a", vec![policy("q", 0, &[1_000, 5_000], "")]);
    t.say('a', "put ttr 2000");
    for wait in [1_000, 5_000, 5_000] {
        assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
        assert_eq!(t.pass(1_999), "");
        t.pass(1);
        assert_eq!(t.state(1), "Delayed");
        assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
        // It is written: a restart would not end the wait.
        let written = row(&t, 1);
        assert_eq!((written.state, written.delay_ms), (MessageState::Delayed, wait));
        assert_eq!(written.due, Some(t.now.time.plus(wait).stored()));
        t.pass(wait - 1);
        assert_eq!(t.state(1), "Delayed");
        t.pass(1);
        assert_eq!(t.state(1), "Ready");
    }
    let timed_out = Failures { attempts: 3, cause: Some(Cause::TimedOut), ..Failures::default() };
    assert_eq!(failures(&mut t, 1), timed_out);
}

#[test]
fn back_off_lengthens_a_delay_that_was_asked_for_and_never_shortens_it() {
    let mut t = under("a", vec![policy("q", 0, &[3_000], "")]);
    t.say('a', "put");
    for (asked, wait) in [(0, 3_000), (1_000, 3_000), (8_000, 8_000)] {
        assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
        assert_eq!(t.say('a', &format!("release 1 pri 7 delay {asked}")), "a Released");
        assert_eq!((row(&t, 1).delay_ms, row(&t, 1).priority), (wait, 7));
        t.pass(wait - 1);
        assert_eq!(t.state(1), "Delayed");
        t.pass(1);
        assert_eq!(t.state(1), "Ready");
    }
}

#[test]
fn jitter_parts_messages_that_failed_together() {
    let jittered = Policy { jitter: 0.5, ..policy("q", 0, &[10_000], "") };
    let mut t = under("a", vec![jittered.clone()]);
    for _ in 0..20 {
        t.say('a', "put");
        t.say('a', "reserve for 0");
    }
    for id in 1..=20 {
        t.say('a', &format!("release {id}"));
    }
    let waits: Vec<u64> = (1..=20).map(|id| row(&t, id).delay_ms).collect();
    assert!(waits.iter().all(|wait| (5_000..=15_000).contains(wait)), "{waits:?}");
    let mut apart = waits.clone();
    apart.sort_unstable();
    apart.dedup();
    assert!(apart.len() > 15, "{waits:?}");
    assert_eq!(waits[6], jittered.delay_ms(crate::words::ids::MessageId(7), 1));
}

#[test]
fn after_the_last_attempt_a_message_is_buried_where_no_queue_is_named() {
    let mut t = under("a", vec![policy("q", 2, &[], "")]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.say('a', "reserve for 0"), "a reserved 1");
    assert_eq!(t.say('a', "release 1"), "a Released");
    assert_eq!(t.state(1), "Buried");
    let written = row(&t, 1);
    assert_eq!((written.state, written.counters.buries), (MessageState::Buried, 1));
    assert_eq!(t.say('a', "kick 5"), "a kicked 1");
    assert_eq!(failures(&mut t, 1), Failures::default());
    // A kick gives it all attempts anew.
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.state(1), "Ready");
}

#[test]
fn a_dead_letter_is_in_its_queue_in_the_file_too_and_says_where_it_came_from() {
    let mut t = under("ad", vec![policy("q", 1, &[9_000], "failed")]);
    t.say('d', "watch failed");
    t.say('d', "ignore q");
    t.say('d', "reserve");
    t.say('a', "put ttl 50000");
    t.say('a', "put");
    t.say('a', "reserve");
    t.pass(10_000);
    // Whoever waits there has it at once, and it does not expire there.
    assert_eq!(t.say('a', "release 1"), "d reserved 1, a Released");
    let written = row(&t, 1);
    assert_eq!((written.state, written.sequence.0), (MessageState::Ready, 3));
    assert_eq!((written.queue, written.expires_ms), (Some(QueueId(2)), None));
    let failure = written.failure.unwrap();
    assert_eq!((failure.attempts, failure.returned_ms), (1, Some(t.now.time.stored())));
    let origin = failure.origin.unwrap();
    assert_eq!((origin.queue, origin.sequence.0), (QueueId(1), 1));
    assert_eq!(origin.life_left_ms, Some(40_000), "its clock stands still");
    let dead = Failures {
        attempts: 1,
        cause: Some(Cause::Released { priority: None, delay_ms: 0 }),
        reason: None,
        origin: Some(queue("q")),
    };
    assert_eq!(failures(&mut t, 1), dead);
    assert_eq!(t.pass(45_000), "");
    // Whatever becomes of it there is in the file, and where it came from stays.
    t.say('d', "release 1 delay 1000");
    let written = row(&t, 1);
    assert_eq!((written.state, written.queue), (MessageState::Delayed, Some(QueueId(2))));
    t.pass(1_000);
    t.say('d', "reserve");
    t.say('d', "bury 1");
    let written = row(&t, 1);
    assert_eq!((written.state, written.sequence.0), (MessageState::Buried, 3));
    assert_eq!(written.failure.and_then(|failure| failure.origin), Some(origin));
    assert_eq!(t.state(2), "Ready");
    let figures = statistics(&mut t);
    assert_eq!((figures.messages_set_aside, figures.messages_dead_lettered), (1, 1));
}

#[test]
fn a_kick_of_dead_letters_brings_them_home_to_their_old_places() {
    let mut t = under("a", vec![policy("q", 1, &[], "failed"), policy("r", 1, &[], "failed")]);
    for name in ["q", "r", "q", "q"] {
        t.say('a', &format!("put {name} ttl 90000"));
    }
    t.say('a', "watch r");
    t.say('a', "reserve count 3");
    for id in [3, 1, 2] {
        t.say('a', &format!("release {id}"));
    }
    t.pass(10_000);
    t.say('a', "put failed");
    assert_eq!(t.say('a', "list failed"), "a listing 3:Ready 1:Ready 2:Ready 8:Ready more 0");
    t.changes.clear();
    assert_eq!(t.say('a', "kick 2 failed"), "a kicked 2");
    assert_eq!(t.say('a', "list failed"), "a listing 2:Ready 8:Ready more 0");
    assert_eq!(t.say('a', "list q"), "a listing 1:Ready 3:Ready 4:Ready more 0");
    assert_eq!(row(&t, 3).state, MessageState::Ready);
    assert_eq!(row(&t, 3).sequence.0, 3);
    assert_eq!(failures(&mut t, 3), Failures::default());
    assert_eq!(t.say('a', "kick-one 2"), "a KickedOne");
    assert_eq!(t.say('a', "list r"), "a listing 2:Ready more 0");
    // What was put there is no dead letter: there is nothing to bring back.
    assert_eq!(t.say('a', "kick 9 failed"), "a kicked 0");
    assert_eq!(t.say('a', "kick-one 8"), "a NotFound");
    assert_eq!(t.say('a', "kick 1 nowhere"), "a NotFound");
    // The clocks of their lives went on with the kick.
    assert_eq!(t.say('a', "peek 3"), "a found 3 ttl 90000");
    assert_eq!(t.say('a', "peek 4"), "a found 4 ttl 80000");
}

#[test]
fn a_dead_letter_in_somebodys_hands_is_not_kicked() {
    let mut t = under("ad", vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "put");
    t.say('a', "reserve count 2");
    t.say('a', "release 1");
    t.say('a', "release 2");
    t.say('d', "watch failed");
    assert_eq!(t.say('d', "reserve"), "d reserved 1");
    assert_eq!(t.say('a', "kick-one 1"), "a NotFound");
    assert_eq!(t.say('a', "kick 9 failed"), "a kicked 1");
    assert_eq!((t.state(1), t.state(2)), ("Reserved".to_owned(), "Ready".to_owned()));
    assert_eq!(t.say('d', "remove 1"), "d Removed");
}

#[test]
fn one_who_waits_at_home_gets_what_is_kicked() {
    let mut t = under("ab", vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    t.say('b', "reserve");
    assert_eq!(t.say('a', "kick-one 1"), "a KickedOne, b reserved 1");
}

#[test]
fn the_home_of_a_dead_letter_stays_as_long_as_that_and_no_longer() {
    let mut t = under("a", vec![policy("*", 1, &[], "failed")]);
    t.say('a', "put r");
    t.say('a', "watch r");
    t.say('a', "reserve");
    t.say('a', "ignore r");
    t.say('a', "release 1");
    assert_eq!(t.say('a', "queues"), "a queues q r failed");
    assert_eq!(t.say('a', "flush failed"), "a flushed 1");
    assert_eq!(t.say('a', "queues"), "a queues q");
    assert!(t.changes.iter().any(|change| matches!(change, Change::QueueGone(_))));
}

#[test]
fn a_place_that_was_flushed_meanwhile_is_replaced_by_a_new_one() {
    let mut t = under("a", vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    t.say('a', "put");
    assert_eq!(t.say('a', "flush q"), "a flushed 1");
    assert_eq!(t.state(1), "Ready", "it is not in that queue");
    t.say('a', "put");
    assert_eq!(t.say('a', "kick 1 failed"), "a kicked 1");
    assert_eq!(t.say('a', "list q"), "a listing 4:Ready 1:Ready more 0");
    assert_eq!(t.say('a', "reserve"), "a reserved 4");
}

#[test]
fn one_whose_time_was_over_when_it_was_rejected_is_not_brought_back() {
    let mut t = under("a", vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put ttl 1000");
    t.say('a', "reserve");
    t.pass(2_000);
    assert_eq!(t.say('a', "bury 1"), "a Buried");
    assert_eq!(t.state(1), "Ready", "kept, in the other queue");
    assert_eq!(t.say('a', "kick-one 1"), "a KickedOne");
    assert_eq!(t.state(1), "gone");
}

#[test]
fn a_rejected_message_is_set_aside_at_its_first_attempt() {
    let mut t = under("a", vec![policy("q", 5, &[9_000], "failed")]);
    t.say('a', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "bury 1"), "a Buried");
    assert_eq!(t.say('a', "list failed"), "a listing 1:Ready more 0");
    assert_eq!(failures(&mut t, 1).cause, Some(Cause::Rejected));
    // Where no policy applies it is buried in its place, and no policy has set it aside.
    apply(&mut t, vec![]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "bury 3");
    assert_eq!(t.state(3), "Buried");
    assert_eq!(statistics(&mut t).messages_set_aside, 1);
}

#[test]
fn a_dead_letter_that_fails_in_its_queue_is_buried_there_or_moved_on() {
    let mut t = under("a", vec![policy("*", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "watch failed");
    t.say('a', "reserve");
    t.say('a', "release 1");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.say('a', "list failed"), "a listing 1:Buried more 0");
    assert_eq!(failures(&mut t, 1).attempts, 2);
    assert_eq!(t.say('a', "kick 1 failed"), "a kicked 1");
    assert_eq!(t.say('a', "list q"), "a listing 1:Ready more 0");

    apply(&mut t, vec![policy("q", 1, &[], "failed"), policy("failed", 1, &[], "worse")]);
    t.say('a', "reserve");
    t.say('a', "release 1");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.say('a', "list worse"), "a listing 1:Ready more 0");
    assert_eq!(failures(&mut t, 1).origin, Some(queue("q")), "it keeps its home");
    assert_eq!(t.say('a', "kick 1 worse"), "a kicked 1");
    assert_eq!(t.say('a', "list q"), "a listing 1:Ready more 0");
}

#[test]
fn where_there_are_too_many_queues_or_no_ids_it_is_buried_in_its_place() {
    let limits = crate::words::limits::LimitValues { max_queues: 1, ..Default::default() };
    let mut t = Talk::with(limits).workers("a");
    apply(&mut t, vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.state(1), "Buried");
    assert_eq!(t.say('a', "queues"), "a queues q");
}

#[test]
fn of_a_lost_connections_window_only_the_oldest_message_has_failed() {
    let mut t = Talk::new().workers("a").consumers("cd");
    apply(&mut t, vec![policy("q", 1, &[], "failed")]);
    fill(&mut t, 1_000);
    assert_eq!(Talk::handed(&t.say('c', "consume q 1000")).split(' ').count(), 1_000);
    // Behind the oldest, so that what it is is not just the first.
    t.say('c', "ack 1 q");
    t.close('c');
    t.settle();
    assert_eq!(t.say('a', "list failed"), "a listing 2:Ready more 0");
    assert_eq!(failures(&mut t, 2).cause, Some(Cause::ConnectionLost));
    // The healthy ones are untouched, at once there and in their order.
    for id in [3, 4, 1_000] {
        assert_eq!((t.state(id), failures(&mut t, id)), ("Ready".into(), Failures::default()));
    }
    let told = t.say('d', "consume q 1000");
    assert!(told.starts_with("d dispatched 3, d dispatched 4, "), "{told:.60}");
    assert_eq!(Talk::handed(&told).split(' ').count(), 998);
}

#[test]
fn a_message_that_is_asked_for_while_the_window_is_given_back_has_not_failed_either() {
    let mut t = Talk::new().workers("a").consumers("c");
    apply(&mut t, vec![policy("q", 1, &[], "failed")]);
    fill(&mut t, 3_000);
    t.say('c', "consume q 3000");
    t.close('c');
    // Its slice has not come yet.
    assert_eq!(t.say('a', "take 2900"), "a reserved 2900");
    assert_eq!(failures(&mut t, 2_900), Failures::default());
    t.settle();
    assert_eq!(statistics(&mut t).messages_dead_lettered, 1);
    assert_eq!(failures(&mut t, 1).attempts, 1);
}

#[test]
fn what_was_taken_on_request_has_failed_with_its_connection() {
    let mut t = under("ab", vec![policy("q", 1, &[], "failed")]);
    t.say('a', "put");
    t.say('a', "put");
    t.say('b', "reserve count 2");
    t.close('b');
    assert_eq!(t.say('a', "list failed"), "a listing 1:Ready 2:Ready more 0");
}

#[test]
fn a_window_that_is_closed_in_order_has_failed_nothing() {
    let mut t = Talk::new().workers("a").consumers("c");
    apply(&mut t, vec![policy("q", 1, &[1_000], "failed")]);
    t.say('a', "put");
    t.say('c', "consume q 5");
    t.say('c', "consume q 0");
    assert_eq!((t.state(1), failures(&mut t, 1)), ("Ready".into(), Failures::default()));
}

#[test]
fn an_acknowledgement_that_comes_too_late_is_good_in_the_dead_letter_queue_too() {
    let mut t = Talk::new().workers("a").consumers_timed("c", 1_000);
    apply(&mut t, vec![policy("r", 1, &[], "failed")]);
    t.say('a', "put r");
    t.say('c', "consume r 5");
    t.pass(1_000);
    assert_eq!(t.say('a', "list failed"), "a listing 1:Ready more 0");
    assert_eq!(failures(&mut t, 1).cause, Some(Cause::AckTimeout));
    t.say('c', "ack 1 r");
    assert_eq!(t.state(1), "gone");
    assert_eq!(t.say('a', "queues"), "a queues q r", "nobody needs the other any more");
}

#[test]
fn a_requeued_message_has_failed_and_keeps_its_new_place_after_the_wait() {
    let mut t = Talk::new().workers("a").consumers("c");
    apply(&mut t, vec![policy("q", 0, &[2_000], "")]);
    t.say('a', "put");
    t.say('a', "put");
    t.say('c', "consume q 1");
    t.say('c', "requeue 1 q");
    assert_eq!((row(&t, 1).state, row(&t, 1).sequence.0), (MessageState::Delayed, 3));
    t.say('c', "ack 2 q");
    assert_eq!(t.pass(2_000), "c dispatched 1");
}

#[test]
fn a_reload_applies_to_queues_that_are_there_and_the_first_match_wins() {
    let mut t = under("a", vec![policy("q", 0, &[1_000], "")]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.state(1), "Delayed");
    apply(&mut t, vec![policy("q*", 2, &[], "new"), policy("q", 0, &[9_000], "old")]);
    t.pass(1_000);
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(t.say('a', "list new"), "a listing 1:Ready more 0", "its first attempt counts");
    apply(&mut t, vec![]);
    t.say('a', "put");
    t.say('a', "reserve");
    t.say('a', "release 3");
    assert_eq!(t.state(3), "Ready");
    assert_eq!(t.say('a', "kick-one 1"), "a KickedOne", "dead letters are kicked without one too");
}

#[test]
fn attempts_that_are_no_failure_leave_no_trace() {
    let mut t = under("a", vec![policy("q", 2, &[1_000], "failed")]);
    t.say('a', "put delay 1000");
    t.pass(1_000);
    assert_eq!(failures(&mut t, 1), Failures::default());
    t.say('a', "reserve");
    t.say('a', "remove 1");
    assert_eq!(statistics(&mut t).returns.iter().map(|(_, count)| count).sum::<u64>(), 1);
}

#[test]
fn a_failure_with_a_reason_is_an_attempt_and_the_reason_goes_along_to_the_dead_letters() {
    let mut t = under("a", vec![policy("q", 2, &[1_000], "dead")]);
    t.say('a', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "fail 1 because of this"), "a Released");
    assert_eq!(t.state(1), "Delayed");
    t.pass(1_000);
    t.say('a', "reserve");
    assert_eq!(t.say('a', "fail q because of that"), "a Released");
    let failed = failures(&mut t, 1);
    assert_eq!((failed.attempts, failed.cause), (2, Some(Cause::Failed)));
    assert_eq!(failed.reason.as_ref().map(|reason| reason.as_str()), Some("of that"));
    assert_eq!(failed.origin, Some(queue("q")));
    t.say('a', "kick-one 1");
    t.say('a', "reserve");
    t.say('a', "fail 1 because of this");
    t.pass(1_000);
    t.say('a', "reserve");
    t.say('a', "release 1");
    assert_eq!(failures(&mut t, 1).reason, None, "the last attempt failed without one");
}
