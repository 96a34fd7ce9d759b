//! The wall clock is set: the database learns of it, and nothing else happens.

use super::*;
use Durability::Periodic;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_wall_clock_that_was_set_is_committed_with_the_tick() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.now.wall_offset_ms += HOUR_MS;
    s.turn();
    assert_eq!(s.wakes_in(), Some(TICK_MS));
    s.pass(TICK_MS);
    let (batch, sync) = s.order().unwrap();
    assert_eq!((batch.rows(), sync), (0, true));
    assert_eq!(batch.clock().unwrap().wall_offset_ms, s.now.wall_offset_ms);
    s.finish(batch, Ok(()));
    assert_eq!(s.wakes_in(), None, "once");
}

#[test]
fn it_is_committed_also_when_the_first_try_fails() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.now.wall_offset_ms -= HOUR_MS;
    s.turn();
    s.pass(TICK_MS);
    s.fail(disk_full());
    s.pass(TICK_MS * 100);
    let (batch, _) = s.order().unwrap();
    assert_eq!(batch.clock().unwrap().wall_offset_ms, s.now.wall_offset_ms);
}

#[test]
fn a_commit_says_how_the_clock_stands_once_a_minute() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    for (passed, says) in [(0, true), (30_000, false), (29_000, false), (1_000, true)] {
        s.pass(passed);
        s.say('a', put("x"));
        s.pass(TICK_MS);
        let (batch, _) = s.order().unwrap();
        assert_eq!(batch.clock(), says.then_some(s.now), "after {passed} ms");
        s.finish(batch, Ok(()));
    }
}

#[test]
fn a_delayed_job_and_its_row_stay_where_they_are() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', "put 0 60 9 1\r\nx\r\n");
    let due = s.now.time.plus(60_001).stored();
    s.now.wall_offset_ms += 56 * 365 * 24 * HOUR_MS;
    s.pass(TICK_MS);
    let (batch, _) = s.order().unwrap();
    assert_eq!(batch.message(MessageId(1)).unwrap().due_ms, Some(due));
    s.finish(batch, Ok(()));
    s.hear('a');
    s.say('a', "reserve-with-timeout 0\r\n");
    assert_eq!(s.hear('a'), "TIMED_OUT\r\n");
}
