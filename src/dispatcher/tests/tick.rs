//! The tick: there only while something is not on the disk, and always ending in an fsync.

use super::*;
use crate::dispatcher::commits::MEASURE_AGAIN_MS;
use Durability::{Periodic, Write};

#[test]
fn an_idle_dispatcher_does_not_wake_up() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write).connect("p", "phpmq", Write);
    assert_eq!(s.wakes_in(), None);
    s.say('a', "list-tubes\r\nstats\r\npeek 1\r\nreserve-with-timeout 0\r\n");
    s.say('p', phpmq(2, &[(1, "q"), (4, "5")]));
    assert_eq!(s.wakes_in(), None);
    assert!(s.order().is_none());
}

#[test]
fn the_tick_takes_changes_to_the_disk_in_one_order_and_is_gone() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("1") + &put("2"));
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS - 1);
    assert!(s.order().is_none());
    s.pass(1);
    assert_eq!(s.commit(), (3, true));
    // The next one gives the database in memory what the file has, and nobody an order.
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    assert!(s.order().is_none());
    assert_eq!(s.wakes_in(), None);
}

#[test]
fn what_was_written_without_fsync_is_synced_by_the_tick_when_traffic_has_stopped() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    assert_eq!(s.commit(), (2, false));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    assert_eq!(s.commit(), (0, true), "an fsync alone");
    assert_eq!(s.wakes_in(), None);
}

/// On a disk that has been short of room the tick is for measuring it, and later. A message that was
/// confirmed meanwhile waited for that.
#[test]
fn changes_do_not_wait_until_a_disk_is_measured_again() {
    let settings = Settings { min_free_disk: 1_000, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Periodic);
    s.disk_has(999);
    s.turn();
    assert_eq!(s.wakes_in(), Some(MEASURE_AGAIN_MS));
    s.disk_has(2_000);
    s.turn();
    s.say('a', put("x"));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    assert_eq!(s.wakes_in(), Some(TICK_MS));
}

#[test]
fn the_tick_does_not_move_with_traffic() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    let mut synced = 0;
    for _ in 0..40 {
        s.say('a', put("x"));
        synced += u64::from(s.commit().1);
        s.pass(10);
    }
    // 400 ms in ticks of 50 and the 10 ms until the next request after each.
    assert!((6..=8).contains(&synced), "{synced}");
}

#[test]
fn changes_made_while_an_order_is_under_way_start_the_next_tick() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("1"));
    s.pass(TICK_MS);
    let (batch, sync) = s.order().unwrap();
    assert!(sync);
    s.pass(20);
    s.say('a', put("2"));
    assert_eq!(s.wakes_in(), None, "the end of the order wakes the dispatcher");
    s.pass(TICK_MS * 2);
    assert!(s.order().is_none());
    s.finish(batch, Ok(()));
    assert_eq!(s.commit(), (1, true));
    s.pass(TICK_MS);
    assert_eq!(s.wakes_in(), None);
}

#[test]
fn what_was_put_and_removed_before_the_tick_needs_no_commit() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("1"));
    s.pass(TICK_MS);
    s.commit();
    s.say('a', put("2") + "delete 2\r\n");
    s.pass(TICK_MS);
    assert!(s.order().is_none());
    assert_eq!(s.wakes_in(), None);
}

#[test]
fn an_answer_called_for_at_the_end_of_a_turn_waits_for_no_tick() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.say('a', put("1"));
    s.commit();
    let now = s.now.time;
    s.dispatcher.commits.demand(Write, now);
    assert_eq!(s.wakes_in(), Some(0));
}

#[test]
fn much_is_committed_before_the_tick_and_synced_with_it() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    let much = "x".repeat(usize::try_from(TICK_BYTES_MAX).unwrap());
    s.say('a', put(&much));
    assert_eq!(s.commit(), (2, false));
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    assert_eq!(s.commit(), (0, true));

    s.say('a', put(&much));
    s.fail(disk_full());
    assert!(s.order().is_none(), "while commits fail, the tick is often enough");
    assert_eq!(s.wakes_in(), Some(TICK_MS));
}
