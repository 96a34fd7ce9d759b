//! A batch between the journal and persistence: it is brought into the database in memory.
//!
//! Until its batch is staged, a message lives in the journal alone. Most are put, handed out and
//! acknowledged before that, and no database ever sees them. A large batch is brought in over
//! several turns, so that nobody waits long for his answer meanwhile; but by more in each turn than
//! has come since the last one, for else the next batch would be larger still.

use std::ops::Range;

use crate::change::{Change, MessageRow};
use crate::channels::Order;
use crate::ids::MessageId;
use crate::journal::Batch;
use crate::limits::{MESSAGE_OVERHEAD_BYTES, STAGED_BYTES_PER_TURN_MAX, WORK_PER_TURN_MAX};
use crate::store::StoreError;

use super::Dispatcher;
use super::commits::UnderWay;

/// A batch that is on its way into the database in memory.
pub(super) struct Staged {
    batch: Batch,
    /// Places of it that are done.
    done: usize,
    then: Then,
}

/// What becomes of a batch that is in the database in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// There is no file: nothing.
    Nothing,
    /// It is committed to the file.
    Commit {
        /// With an fsync.
        sync: bool,
    },
    /// It goes into a new file, with the next slice.
    Slice,
}

/// How much has been recorded since the last turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Come {
    changes: usize,
    bytes: u64,
}

impl Come {
    /// Counts a change.
    pub fn count(&mut self, change: &Change) {
        self.changes += 1;
        if let Change::Put(row) = change {
            self.bytes += row.body.len() as u64 + MESSAGE_OVERHEAD_BYTES;
        }
    }
}

impl Staged {
    pub fn new(batch: Batch, then: Then) -> Staged {
        Staged { batch, done: 0, then }
    }

    /// A message of the batch, as it was put.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.batch.message(id)
    }

    /// The places that are to be done in this turn, in which so much has come.
    fn next_part(&mut self, come: Come) -> Range<usize> {
        let start = self.done;
        let places = self.batch.places();
        let bytes_each = self.batch.bytes() / (places as u64).max(1);
        let bytes = STAGED_BYTES_PER_TURN_MAX.max(2 * come.bytes);
        let most = usize::try_from(bytes / bytes_each.max(1) + 1).unwrap_or(usize::MAX);
        let most = most.min(WORK_PER_TURN_MAX.max(2 * come.changes));
        self.done = (start + most).min(places);
        start..self.done
    }

    fn is_whole(&self) -> bool {
        self.done == self.batch.places()
    }
}

impl Dispatcher<'_> {
    /// Brings the staged batch a part further, and sends it on when it is whole.
    pub(super) fn bring_in(&mut self) -> Result<(), StoreError> {
        let come = std::mem::take(&mut self.commits.come);
        let Some(mut staged) = self.commits.staged.take() else { return Ok(()) };
        let part = staged.next_part(come);
        self.memory.apply(&staged.batch, part)?;
        if staged.is_whole() {
            return self.send_on(staged);
        }
        self.commits.staged = Some(staged);
        Ok(())
    }

    fn send_on(&mut self, staged: Staged) -> Result<(), StoreError> {
        let Staged { batch, then, .. } = staged;
        let (order, under_way) = match then {
            Then::Nothing => {
                self.commits.journal.done(batch);
                return Ok(());
            }
            Then::Commit { sync: true } => (Order::Commit { batch, sync: true }, UnderWay::Synced),
            Then::Commit { sync: false } => {
                (Order::Commit { batch, sync: false }, UnderWay::Unsynced)
            }
            Then::Slice => self.with_slice(batch)?,
        };
        let orders = self.commits.orders.as_ref();
        // Invariant: none is under way, so the channel of one has room.
        let sent = orders.is_some_and(|orders| orders.try_send(order).is_ok());
        assert!(sent, "persistence has ended before the dispatcher");
        self.commits.under_way = Some(under_way);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use crate::channels::Durability::{Periodic, Write};
    use crate::limits::WORK_PER_TURN_MAX;

    const MANY: usize = 2 * WORK_PER_TURN_MAX + WORK_PER_TURN_MAX / 2;

    /// Has put many messages, and the tick is due.
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
        s.now.time = s.now.time.plus(TICK_MS);
        s
    }

    fn one_turn(s: &mut Stage) {
        s.dispatcher.turn_at(s.now, None).unwrap();
    }

    #[test]
    fn a_large_batch_is_brought_in_over_several_turns_and_then_sent_on() {
        let mut s = with_much_to_bring_in();
        for _ in 0..2 {
            one_turn(&mut s);
            assert_eq!(s.wakes_in(), Some(0), "the rest does not wait for anything");
            assert!(s.order().is_none());
        }
        one_turn(&mut s);
        let (batch, sync) = s.order().unwrap();
        assert_eq!((batch.rows(), sync), (MANY as u64 + 1, true), "all messages and their queue");
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
        assert!(s.order().is_some(), "as much has come as there was to bring in");
    }

    #[test]
    fn a_few_large_messages_are_brought_in_over_several_turns_too() {
        let mut s = Stage::new().connect("a", "beanstalk", Periodic);
        let large = "x".repeat(600_000);
        for _ in 0..5 {
            s.say('a', put(&large));
        }
        s.now.time = s.now.time.plus(TICK_MS);
        for _ in 0..2 {
            one_turn(&mut s);
            assert!(s.order().is_none());
        }
        one_turn(&mut s);
        assert_eq!(s.order().unwrap().0.rows(), 6, "all messages and their queue");
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
        s.turn();
        s.commit();
        s.pass(TICK_MS);
        assert_eq!(s.commit(), (2, true), "both removals");
        s.say('a', format!("peek {first}\r\npeek {last}\r\npeek 2\r\n"));
        assert_eq!(s.hear('a'), "NOT_FOUND\r\nNOT_FOUND\r\nFOUND 2 1\r\n2\r\n");
    }

    #[test]
    fn an_answer_that_comes_meanwhile_waits_for_the_next_commit() {
        let mut s = with_much_to_bring_in();
        one_turn(&mut s);
        s.send('w', put("x"));
        s.turn();
        s.commit();
        assert_eq!(s.hear('w'), "");
        assert_eq!(s.commit(), (1, false));
        assert_eq!(s.hear('w'), format!("INSERTED {}\r\n", MANY + 1));
    }
}
