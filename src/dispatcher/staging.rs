//! When the database in memory is given what it lacks, and what follows when the system has no
//! memory for that: puts are refused until it has.

use slog::{crit, info};

use super::Dispatcher;

impl Dispatcher<'_> {
    /// Takes the next part of what the database in memory lacks in.
    pub(super) fn bring_in(&mut self) {
        let (now, was_short) = (self.time(), self.mirror.is_short());
        match self.mirror.take_in(&mut self.commits.journal, now) {
            Ok(slice) => {
                if was_short && !self.mirror.is_short() {
                    info!(self.log, "the system has memory for messages again");
                }
                if let Some(batch) = slice {
                    self.send_slice(batch);
                }
            }
            // A file that is written anew has nowhere else to come from.
            Err(error) if self.stopping && self.mirror.is_for_slice() => self.failed = Some(error),
            Err(error) if !was_short => {
                crit!(self.log, "the system has no memory for messages: puts are refused; messages \
                    are still handed out and removed"; "error" => %error);
            }
            Err(_) => {}
        }
    }

    /// At the end, brings in what a file that is written anew needs. The file has the rest.
    pub(super) fn bring_in_all(&mut self) {
        self.mirror.try_again();
        while self.mirror.is_busy() && self.failed.is_none() {
            self.bring_in();
            if self.mirror.is_short() {
                self.mirror.give_up();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::tests::*;
    use crate::mirror::TRY_AGAIN_MS;
    use crate::words::durability::Durability::{Periodic, Write};
    use crate::words::ids::MessageId;
    use crate::words::limits::{TICK_BYTES_MAX, WORK_PER_TURN_MAX};

    const MANY: usize = 2 * WORK_PER_TURN_MAX + WORK_PER_TURN_MAX / 2;

    /// Many messages have been committed, and it is time to bring them in.
    fn with_much_to_bring_in() -> Stage {
        let mut s =
            Stage::new().connect("a", "beanstalk", Periodic).connect("w", "beanstalk", Write);
        for id in 1..=MANY {
            s.send('a', put(&id.to_string()));
            if id % 500 == 0 {
                s.turn();
                s.hear('a');
            }
        }
        s.pass(TICK_MS);
        assert_eq!(s.commit(), (MANY as u64 + 1, true), "all messages and their queue");
        s.now.time = s.now.time.plus(TICK_MS);
        s
    }

    fn one_turn(s: &mut Stage) {
        s.dispatcher.turn_at(s.now, None);
    }

    /// Carries out every order there is.
    fn commit_all(s: &mut Stage) {
        while let Some((batch, _)) = s.order() {
            s.finish(batch, Ok(()));
        }
    }

    fn is_bringing_in(s: &Stage) -> bool {
        s.dispatcher.mirror.is_busy()
    }

    fn memory_has(s: &mut Stage, id: usize) -> bool {
        s.dispatcher.mirror.memory().body(MessageId(id as u64), |_, _| ()).unwrap().is_some()
    }

    #[test]
    fn what_was_committed_is_brought_in_with_the_next_tick() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        s.say('a', put("1"));
        s.commit();
        s.pass(TICK_MS - 1);
        assert!(!memory_has(&mut s, 1));
        s.say('a', "peek 1\r\n");
        assert_eq!(s.hear('a'), "INSERTED 1\r\nFOUND 1 1\r\n1\r\n");
        s.pass(1);
        assert!(memory_has(&mut s, 1));
    }

    #[test]
    fn what_was_removed_since_its_commit_is_not() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        s.say('a', put("1"));
        s.commit();
        s.say('a', "delete 1\r\n");
        assert_eq!(s.commit(), (1, false), "the file has it removed");
        s.pass(TICK_MS);
        assert!(!memory_has(&mut s, 1));
    }

    #[test]
    fn much_is_brought_in_at_once() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        let large = "x".repeat(usize::try_from(TICK_BYTES_MAX).unwrap());
        s.say('a', put("small"));
        s.commit();
        s.say('a', put(&large));
        s.commit();
        assert!(memory_has(&mut s, 1) && memory_has(&mut s, 2));
    }

    #[test]
    fn without_a_file_the_tick_brings_in_what_is_left() {
        let settings = Settings { on_disk: false, ..Settings::default() };
        let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
        s.say('a', put("1") + &put("2") + "delete 1\r\n");
        s.pass(TICK_MS - 1);
        assert!(!memory_has(&mut s, 2));
        s.pass(1);
        assert!(memory_has(&mut s, 2) && !memory_has(&mut s, 1));
        assert_eq!(s.wakes_in(), None);
    }

    #[test]
    fn a_large_batch_is_brought_in_over_several_turns() {
        let mut s = with_much_to_bring_in();
        for _ in 0..2 {
            one_turn(&mut s);
            assert!(is_bringing_in(&s));
            assert_eq!(s.wakes_in(), Some(0), "the rest does not wait for anything");
        }
        one_turn(&mut s);
        assert!(!is_bringing_in(&s));
        assert_eq!(s.wakes_in(), None);
        assert!(memory_has(&mut s, 1) && memory_has(&mut s, MANY));
    }

    #[test]
    fn a_batch_is_brought_in_faster_than_the_next_one_grows() {
        let mut s = with_much_to_bring_in();
        let puts = put("x").repeat(200);
        for _ in 0..2 {
            for _ in 0..WORK_PER_TURN_MAX / 100 {
                s.send('a', &puts);
            }
            one_turn(&mut s);
        }
        assert!(!is_bringing_in(&s), "as much has come as there was to bring in");
    }

    #[test]
    fn a_few_large_messages_are_brought_in_over_several_turns_too() {
        let mut s = Stage::new().connect("a", "beanstalk", Periodic);
        let large = "x".repeat(600_000);
        for _ in 0..5 {
            s.say('a', put(&large));
        }
        s.pass(TICK_MS);
        assert_eq!(s.commit().0, 6, "all messages and their queue");
        s.now.time = s.now.time.plus(TICK_MS);
        for _ in 0..2 {
            one_turn(&mut s);
            assert!(is_bringing_in(&s));
        }
        one_turn(&mut s);
        assert!(!is_bringing_in(&s));
    }

    #[test]
    fn messages_of_a_batch_that_is_being_brought_in_are_found_and_removed() {
        let mut s = with_much_to_bring_in();
        one_turn(&mut s);
        let (first, last) = (1, MANY);
        s.send('a', format!("peek {first}\r\npeek {last}\r\ndelete {first}\r\ndelete {last}\r\n"));
        one_turn(&mut s);
        let bodies = format!("FOUND {last} {}\r\n{last}\r\n", last.to_string().len());
        assert_eq!(s.hear('a'), format!("FOUND 1 1\r\n1\r\n{bodies}DELETED\r\nDELETED\r\n"));
        s.pass(TICK_MS);
        assert_eq!(s.commit(), (2, true), "both removals");
        assert!(memory_has(&mut s, first) && memory_has(&mut s, last));
        s.pass(TICK_MS);
        assert!(!memory_has(&mut s, first) && !memory_has(&mut s, last));
        assert!(memory_has(&mut s, 2));
    }

    #[test]
    fn what_the_system_has_no_memory_for_is_served_and_removed_and_brought_in_later() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        s.dispatcher.mirror.memory().limit_pages(1);
        let body = "x".repeat(20_000);
        s.say('a', put(&body) + &put(&body));
        s.commit();
        s.hear('a');
        s.pass(TICK_MS);
        assert!(is_bringing_in(&s) && !memory_has(&mut s, 1));
        assert!(s.wakes_in().is_some_and(|wait| wait > 0), "it is not tried without a pause");
        s.say('a', put("x") + "peek 2\r\ndelete 1\r\n");
        commit_all(&mut s);
        let heard = s.hear('a').replace(&body, "(body)");
        assert_eq!(heard, "OUT_OF_MEMORY\r\nFOUND 2 20000\r\n(body)\r\nDELETED\r\n");
        s.pass(TRY_AGAIN_MS);
        assert!(is_bringing_in(&s) && !memory_has(&mut s, 2));
        s.dispatcher.mirror.memory().limit_pages(1_000);
        for _ in 0..3 {
            s.pass(TRY_AGAIN_MS);
            commit_all(&mut s);
        }
        assert!(!is_bringing_in(&s) && !memory_has(&mut s, 1) && memory_has(&mut s, 2));
        s.say('a', put("x"));
        commit_all(&mut s);
        assert_eq!(s.hear('a'), "INSERTED 3\r\n");
    }

    #[test]
    fn large_messages_leave_the_journal_one_by_one() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        let large = "x".repeat(600_000);
        s.say('a', put(&large).repeat(4));
        s.commit();
        s.now.time = s.now.time.plus(TICK_MS);
        one_turn(&mut s);
        // Some are in one place, some in the other, none in both.
        let journal = s.dispatcher.mirror.lacking_bytes();
        let memory = s.dispatcher.mirror.memory().size().used;
        assert!(is_bringing_in(&s) && journal > 600_000 && memory > 600_000);
        assert!(journal + memory < 5 * 600_000, "{journal} and {memory}");
    }

    #[test]
    fn a_commit_does_not_wait_for_what_is_being_brought_in() {
        let mut s = with_much_to_bring_in();
        one_turn(&mut s);
        s.send('w', put("x"));
        one_turn(&mut s);
        assert!(is_bringing_in(&s));
        assert_eq!(s.commit(), (1, false));
        assert_eq!(s.hear('w'), format!("INSERTED {}\r\n", MANY + 1));
    }

    #[test]
    fn a_database_in_memory_that_is_broken_ends_the_process() {
        let mut s = Stage::new().connect("a", "beanstalk", Write);
        s.say('a', put("x"));
        s.commit();
        s.pass(TICK_MS);
        s.dispatcher.mirror.memory().spoil();
        let turn = AssertUnwindSafe(|| s.say('a', "reserve\r\n"));
        let panicked = catch_unwind(turn).expect_err("it cannot be read");
        let said = panicked.downcast::<String>().unwrap();
        assert!(
            said.starts_with("the database in memory has failed, the process ends: "),
            "{said}"
        );
    }
}
