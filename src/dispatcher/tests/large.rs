//! Large work of one peer beside what others ask for.

use super::*;
use Durability::{Periodic, Write};

const MESSAGES: u64 = 10_000;
/// More than a batch has before large work is held back, with the turn that filled it.
const ROWS_AT_ONCE: u64 = 4_000;

/// `a` has put many messages into `big`, and `w` waits for commits.
fn stage() -> Stage {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic).connect("w", "beanstalk", Write);
    s.say('a', "use big\r\n");
    for _ in 0..MESSAGES / 100 {
        s.say('a', "put 0 0 60 1\r\nx\r\n".repeat(100));
        s.hear('a');
    }
    s.pass(TICK_MS);
    s.commit();
    s.pass(TICK_MS);
    s
}

#[test]
fn a_large_flush_is_committed_in_small_batches_and_others_wait_for_two_of_them() {
    let mut s = stage();
    s.send('w', "flush-tube big\r\n");
    s.turn();
    let (first, _) = s.order().expect("the batch is full");
    assert!((1..=ROWS_AT_ONCE).contains(&first.rows()), "{}", first.rows());
    s.open('b', "beanstalk", Write);
    s.say('b', put("y"));
    s.finish(first, Ok(()));
    assert_eq!(s.hear('b'), "");
    assert!(s.commit().0 <= ROWS_AT_ONCE);
    assert_eq!(s.hear('b'), "INSERTED 10001\r\n");
    let mut orders = 2;
    while s.hear('w') != "FLUSHED 10000\r\n" {
        let (rows, _) = s.commit();
        assert!(rows <= ROWS_AT_ONCE, "{rows}");
        orders += 1;
    }
    assert!(orders >= 3, "{orders}");
}

#[test]
fn small_work_is_done_while_large_work_is_held_back() {
    let mut s = stage();
    s.say('a', "use small\r\n");
    s.say('a', "put 0 0 60 1\r\nx\r\n".repeat(50));
    s.say('w', "flush-tube big\r\n");
    let (batch, _) = s.order().expect("the batch is full");
    s.hear('a');
    s.say('a', "use small\r\nkick 1\r\n");
    assert_eq!(s.hear('a'), "USING small\r\nKICKED 0\r\n");
    s.say('a', "flush-tube small\r\n");
    assert_eq!(s.hear('a'), "FLUSHED 50\r\n");
    s.finish(batch, Ok(()));
}

#[test]
fn a_commit_without_an_end_does_not_hold_large_work_back_for_ever() {
    let mut s = stage();
    s.say('a', "flush-tube big\r\n");
    let (batch, _) = s.order().expect("the batch is full");
    let recorded = s.dispatcher.commits.journal.rows();
    assert!(recorded <= ROWS_AT_ONCE);
    s.pass(100);
    assert_eq!(s.dispatcher.commits.journal.rows(), recorded);
    for _ in 0..10 {
        let before = s.dispatcher.commits.journal.rows();
        s.pass(1_000);
        let more = s.dispatcher.commits.journal.rows() - before;
        assert!(more <= ROWS_AT_ONCE, "{more}");
    }
    let all = s.dispatcher.commits.journal.rows() + batch.rows();
    assert!(all >= MESSAGES, "{all}");
    assert_eq!(s.hear('a'), "FLUSHED 10000\r\n");
}

#[test]
fn nothing_is_held_back_for_a_disk_that_fails() {
    let mut s = stage();
    s.say('a', "flush-tube big\r\n");
    s.fail(disk_full());
    assert_eq!(s.hear('a'), "FLUSHED 10000\r\n");
}

#[test]
fn nothing_is_held_back_without_a_file() {
    let mut s = Stage::with(Settings { on_disk: false, ..Settings::default() });
    s.open('a', "beanstalk", Periodic);
    for _ in 0..40 {
        s.say('a', "put 0 0 60 1\r\nx\r\n".repeat(100));
        s.hear('a');
    }
    s.say('a', "flush-tube default\r\n");
    assert_eq!(s.hear('a'), "FLUSHED 4000\r\n");
}
