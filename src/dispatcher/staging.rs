//! How the database in memory gets what it lacks.
//!
//! Committed batches are brought in with the tick after their commit, or once there is much of
//! them; until then their messages are in the journal alone. Most are handed out and acknowledged
//! before that, and the database in memory never sees them. Where a file is written anew from it,
//! it has to have everything first.
//!
//! A large batch is brought in over several turns, so that nobody waits long for his answer
//! meanwhile; but by more in each turn than has come since the last one, for else the next batch
//! would be larger still.

use std::ops::Range;
use std::sync::Arc;

use slog::{crit, info};

use crate::journal::Batch;
use crate::store::StoreError;
use crate::words::change::{Change, MessageRow};
use crate::words::clock::Time;
use crate::words::ids::MessageId;
use crate::words::limits::{
    MESSAGE_OVERHEAD_BYTES, STAGED_BYTES_PER_TURN_MAX, TICK_BYTES_MAX, WORK_PER_TURN_MAX,
};

use super::Dispatcher;

/// How long after memory was short it is given what it lacks again, in milliseconds.
const TRY_AGAIN_MS: u64 = 250;
/// What has more than this part of `limits.max_memory` does not wait for the tick.
const LAG_PART: u64 = 16;

/// A batch that is on its way into the database in memory.
pub(super) struct Staged {
    batch: Source,
    /// Places of it that are done.
    done: usize,
}

/// Where it is from.
enum Source {
    /// The file has it; here it is used up.
    Lag(Batch),
    /// It goes into a new file, with the next slice.
    Slice(Arc<Batch>),
}

/// How much has been recorded since staging last went on: it has to stage more than that, or the
/// backlog would grow for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inflow {
    changes: usize,
    bytes: u64,
}

impl Inflow {
    /// Counts a change.
    pub fn count(&mut self, change: &Change) {
        self.changes += 1;
        if let Change::Put(row) = change {
            self.bytes += row.body.len() as u64 + MESSAGE_OVERHEAD_BYTES;
        }
    }
}

impl Staged {
    /// What memory lacks.
    pub fn lag(batch: Batch) -> Staged {
        Staged { batch: Source::Lag(batch), done: 0 }
    }

    /// What goes to persistence with the next slice.
    pub fn slice(batch: Arc<Batch>) -> Staged {
        Staged { batch: Source::Slice(batch), done: 0 }
    }

    fn batch(&self) -> &Batch {
        match &self.batch {
            Source::Lag(batch) => batch,
            Source::Slice(batch) => batch,
        }
    }

    /// A message of the batch, as it was put, unless it is done.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.batch().message(id)
    }

    /// The places that are to be done in this turn, after this inflow.
    fn next_part(&self, inflow: Inflow) -> Range<usize> {
        let batch = self.batch();
        let bytes_each = batch.bytes() / (batch.places() as u64).max(1);
        let bytes = STAGED_BYTES_PER_TURN_MAX.max(2 * inflow.bytes);
        let most = usize::try_from(bytes / bytes_each.max(1) + 1).unwrap_or(usize::MAX);
        let most = most.min(WORK_PER_TURN_MAX.max(2 * inflow.changes));
        self.done..(self.done + most).min(batch.places())
    }

    /// Notes that memory has these. Returns the bytes of messages that are there alone now.
    fn note_done(&mut self, part: Range<usize>) -> u64 {
        self.done = part.end;
        match &mut self.batch {
            // Freeing all bodies at the end would take long.
            Source::Lag(batch) => batch.forget_puts(part),
            Source::Slice(_) => 0,
        }
    }

    fn is_whole(&self) -> bool {
        self.done == self.batch().places()
    }
}

impl Dispatcher<'_> {
    /// Stages what memory lacks when it is time for that.
    pub(super) fn stage_lag(&mut self, now: Time) {
        let most = TICK_BYTES_MAX.min(self.limits.max_memory() / LAG_PART);
        let commits = &mut self.commits;
        if commits.journal.lag().is_some_and(|bytes| bytes > most) {
            commits.lag_due = now;
        }
        if commits.lag_due <= now && commits.staged.is_none() {
            commits.staged = commits.journal.take_lag().map(Staged::lag);
        }
        if commits.journal.lag().is_none() {
            commits.lag_due = Time::NEVER;
        }
    }

    /// Brings the staged batch a part further.
    pub(super) fn bring_in(&mut self) {
        let inflow = std::mem::take(&mut self.commits.inflow);
        if self.commits.staged_due > self.time() {
            return;
        }
        let Some(mut staged) = self.commits.staged.take() else { return };
        let mut part = staged.next_part(inflow);
        loop {
            // From here until it is noted as done a message is in memory twice.
            let piece = staged.batch().first_bytes(part.clone(), STAGED_BYTES_PER_TURN_MAX);
            part.start = piece.end;
            if let Err(error) = self.memory.apply(staged.batch(), piece.clone()) {
                return self.put_off(staged, error);
            }
            let bytes = staged.note_done(piece);
            self.commits.journal.note_mirrored(bytes);
            if part.is_empty() {
                break;
            }
        }
        if !staged.is_whole() {
            self.commits.staged = Some(staged);
            return;
        }
        self.memory_has_room();
        match staged.batch {
            Source::Lag(batch) => self.commits.journal.mirrored(batch),
            Source::Slice(batch) => self.send_slice(batch),
        }
    }

    /// Memory could not be given this. The journal keeps what it lacks, removals too, so that it is
    /// served and removed from there; puts are refused until there is memory again.
    fn put_off(&mut self, staged: Staged, error: StoreError) {
        // A file that is written anew has nowhere else to come from.
        let is_needed = self.stopping && matches!(staged.batch, Source::Slice(_));
        if !error.is_want_of_memory() {
            return broken(error);
        }
        if is_needed {
            self.failed = Some(error);
            return;
        }
        self.commits.staged = Some(staged);
        self.commits.staged_due = self.time().plus(TRY_AGAIN_MS);
        if !std::mem::replace(&mut self.pressure.no_memory, true) {
            crit!(self.log, "the system has no memory for messages: puts are refused; messages are \
                still handed out and removed"; "error" => %error);
        }
    }

    fn memory_has_room(&mut self) {
        self.commits.staged_due = Time(0);
        if std::mem::take(&mut self.pressure.no_memory) {
            info!(self.log, "the system has memory for messages again");
        }
    }

    /// At the end, brings in what a file that is written anew needs. The file has the rest.
    pub(super) fn bring_in_all(&mut self) {
        self.commits.staged_due = Time(0);
        while self.commits.staged.is_some() && self.failed.is_none() {
            self.bring_in();
            if self.pressure.no_memory {
                self.commits.staged = None;
            }
        }
    }
}

/// The database in memory has failed, by a defect of ours or of the library, so state and answers
/// are about to come apart: the process ends at once. The file has all that was confirmed.
pub(super) fn broken<T>(error: StoreError) -> T {
    panic!("the database in memory has failed, the process ends: {error}")
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::tests::*;
    use super::TRY_AGAIN_MS;
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
        s.dispatcher.commits.staged.is_some()
    }

    fn memory_has(s: &mut Stage, id: usize) -> bool {
        s.dispatcher.memory.body(MessageId(id as u64), |_, _| ()).unwrap().is_some()
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
        s.dispatcher.memory.limit_pages(1);
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
        s.dispatcher.memory.limit_pages(1_000);
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
        let journal = s.dispatcher.commits.journal.message_bytes();
        let memory = s.dispatcher.memory.size().used;
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
        s.dispatcher.memory.spoil();
        let turn = AssertUnwindSafe(|| s.say('a', "reserve\r\n"));
        let panicked = catch_unwind(turn).expect_err("it cannot be read");
        let said = panicked.downcast::<String>().unwrap();
        assert!(
            said.starts_with("the database in memory has failed, the process ends: "),
            "{said}"
        );
    }
}
