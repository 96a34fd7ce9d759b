//! Commits that fail, and what is said about it.

use super::*;
use crate::journal::Row;
use Durability::{Periodic, Sync, Write};

#[test]
fn while_commits_fail_puts_are_refused_in_each_protocols_words() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write).connect("p", "phpmq", Write);
    s.say('a', put("x"));
    s.fail(disk_full());
    s.say('b', put("y"));
    assert_eq!(s.hear('b'), "OUT_OF_MEMORY\r\n");
    s.say('p', phpmq(1, &[(1, "q"), (2, "z"), (6, "mine")]));
    let refused = phpmq(8, &[(6, "mine"), (2, "new messages cannot be written to the disk")]);
    assert_eq!(s.hear('p'), refused);
    assert!(!s.is_gated('p'), "who is told is not held back");
    s.say('p', phpmq(1, &[(1, "q"), (2, "z")]));
    assert!(s.is_gated('p'), "who would not be told is");
}

#[test]
fn consumers_are_served_while_commits_fail() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('a', put("x"));
    s.fail(disk_full());
    s.say('b', "reserve\r\n");
    assert_eq!(s.hear('b'), "RESERVED 1 1\r\nx\r\n");
}

#[test]
fn it_is_tried_again_with_every_tick_and_goes_on_by_itself() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('a', put("x"));
    for _ in 0..3 {
        s.fail(disk_full());
        assert!(s.order().is_none(), "not before the next tick");
        assert_eq!(s.wakes_in(), Some(TICK_MS));
        s.pass(TICK_MS);
    }
    assert_eq!(s.commit(), (2, true), "all that was kept, in one commit");
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    s.say('b', put("y"));
    assert_eq!(s.commit(), (1, false));
    assert_eq!(s.hear('b'), "INSERTED 2\r\n");
}

#[test]
fn an_answer_that_waited_for_commit_timeout_says_that_the_outcome_is_unknown() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    s.fail(disk_full());
    s.pass(TIMEOUT_MS - 1);
    assert_eq!(s.hear('a'), "");
    s.fail(disk_full());
    s.pass(1);
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\n");
    assert!(!s.is_closed('a'));
    // What it promised stays queued, and its connection goes on.
    s.pass(TICK_MS);
    assert_eq!(s.commit().0, 2);
    assert_eq!(s.hear('a'), "");
    s.say('a', "stats-job 1\r\n");
    assert!(s.hear('a').starts_with("OK "));
}

#[test]
fn only_the_promises_are_given_up_and_each_in_its_place() {
    let mut s = Stage::new().connect("a", "beanstalk", Write).connect("p", "phpmq", Sync);
    let confirmed = phpmq(1, &[(1, "q"), (2, "z"), (6, "mine")]);
    s.send('a', put("x") + "list-tube-used\r\n" + &put("y") + "reserve\r\n");
    s.send('p', &confirmed);
    s.turn();
    s.fail(disk_full());
    s.pass(TIMEOUT_MS);
    let heard = "INTERNAL_ERROR\r\nUSING default\r\nINTERNAL_ERROR\r\nRESERVED 1 1\r\nx\r\n";
    assert_eq!(s.hear('a'), heard);
    let unknown = "not written to the disk in time, the outcome is unknown";
    assert_eq!(s.hear('p'), phpmq(8, &[(6, "mine"), (2, unknown)]));
}

#[test]
fn each_answer_has_the_whole_time() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x") + "reserve\r\n");
    s.fail(disk_full());
    s.pass(2_000);
    s.fail(disk_full());
    s.say('a', "delete 1\r\n");
    s.pass(3_000);
    s.fail(disk_full());
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\nRESERVED 1 1\r\nx\r\n");
    s.pass(1_999);
    s.fail(disk_full());
    assert_eq!(s.hear('a'), "");
    s.pass(1);
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\n");
}

#[test]
fn an_answer_that_waits_for_the_commit_after_a_good_one_is_given_up_too() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('a', put("x"));
    let (batch, _) = s.order().unwrap();
    s.say('b', put("y"));
    s.finish(batch, Ok(()));
    s.fail(disk_full());
    s.pass(TIMEOUT_MS);
    assert_eq!((s.hear('a'), s.hear('b')), ("INSERTED 1\r\n".into(), "INTERNAL_ERROR\r\n".into()));
}

#[test]
fn a_commit_that_does_not_end_holds_nobody_for_ever() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    let (batch, _) = s.order().unwrap();
    assert_eq!(s.wakes_in(), Some(TIMEOUT_MS));
    s.pass(TIMEOUT_MS);
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\n");
    s.finish(batch, Ok(()));
    assert_eq!(s.hear('a'), "");
}

#[test]
fn an_answer_that_left_is_not_taken_back() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    s.commit();
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    s.say('a', put("y"));
    s.fail(disk_full());
    s.pass(TIMEOUT_MS);
    assert_eq!(s.hear('a'), "INTERNAL_ERROR\r\n");
}

#[test]
fn silent_senders_lose_nothing_while_commits_fail() {
    let mut s = Stage::new().connect("p", "phpmq", Write);
    s.say('p', phpmq(1, &[(1, "q"), (2, "x")]));
    s.pass(TICK_MS);
    s.fail(disk_full());
    s.say('p', phpmq(1, &[(1, "q"), (2, "y")]));
    assert!(s.is_gated('p'));
    s.pass(TICK_MS);
    assert_eq!(s.commit(), (3, true), "the queue and both messages");
    assert!(!s.is_gated('p'));
}

#[test]
fn a_message_acknowledged_after_a_failed_commit_is_removed_from_the_file_all_the_same() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("x") + &put("y"));
    s.pass(TICK_MS);
    s.fail(disk_full());
    s.say('a', "delete 1\r\n");
    s.pass(TICK_MS);
    let (batch, _) = s.order().unwrap();
    let rows: Vec<Row<'_>> = batch.part(0..batch.places()).collect();
    // Its put may be in the file although the commit failed.
    assert!(
        matches!(rows[..], [Row::Removed(MessageId(1)), Row::Put(row)] if row.id == MessageId(2))
    );
}

#[test]
fn an_io_error_ends_the_process_when_it_is_configured_to() {
    let settings = Settings { exit_on_io_error: true, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    let (batch, _) = s.order().unwrap();
    drop(batch);
    s.finished.send(Err(io_error())).unwrap();
    assert!(matches!(s.try_turn(), Err(StoreError::Io { .. })));
}

#[test]
fn an_io_error_has_the_file_written_anew_from_memory() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('a', put("x"));
    s.fail(io_error());
    s.say('b', put("y"));
    assert_eq!(s.hear('b'), "OUT_OF_MEMORY\r\n");
    s.pass(TICK_MS);
    let Ok(Order::Rewrite { slice, batch }) = s.orders.try_recv() else { panic!("no rewrite") };
    assert!(slice.first && slice.last);
    assert_eq!(slice.messages.len(), 1);
    assert_eq!(s.hear('a'), "");
    s.finish(batch, Ok(()));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    s.say('b', put("y"));
    s.commit();
    assert_eq!(s.hear('b'), "INSERTED 2\r\n");
}

#[test]
fn a_new_file_gets_what_memory_lacked_when_the_old_one_failed() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    s.commit();
    s.say('a', put("y"));
    s.commit();
    s.say('a', put("z") + "delete 1\r\n");
    s.fail(io_error());
    s.pass(TICK_MS);
    let Ok(Order::Rewrite { slice, batch }) = s.orders.try_recv() else { panic!("no rewrite") };
    let ids: Vec<u64> = slice.messages.iter().map(|(row, _)| row.id.0).collect();
    assert_eq!((ids, slice.last), (vec![2, 3], true));
    s.finish(batch, Ok(()));
    assert_eq!(s.hear('a'), "INSERTED 1\r\nINSERTED 2\r\nINSERTED 3\r\nDELETED\r\n");
    s.pass(TICK_MS);
    assert_eq!(s.wakes_in(), None, "memory lacks nothing");
}

#[test]
fn statistics_say_that_the_disk_refuses() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    assert!(!s.dispatcher.store_facts().degraded);
    s.say('a', put("x"));
    s.fail(disk_full());
    assert!(s.dispatcher.store_facts().degraded);
    s.pass(TICK_MS);
    s.commit();
    assert!(!s.dispatcher.store_facts().degraded);
}
