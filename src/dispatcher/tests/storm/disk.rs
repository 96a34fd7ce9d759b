//! Persistence, whose file is a few maps.
//!
//! # Failure
//! It fails as often as it is told to. A disk that is full leaves the file as it was. After an I/O
//! error the batch may be in the file or not, and commits are refused until a new file has come,
//! slice by slice, or the old one can be trusted again for want of room.

use super::super::*;
use super::Tally;
use super::rows::Rows;
use crate::protocol::wire::testing::Random;
use crate::store::Slice;

/// How often it fails at most once the dispatcher stops.
const FAILURES_AT_STOP_MAX: usize = 6;

/// Persistence.
pub struct Disk<'t> {
    pub file: Rows,
    new_file: Option<Rows>,
    is_suspect: bool,
    /// Whether a slice was taken since it became so: what came with it is in no file.
    slice_was_taken: bool,
    pub failures_percent: usize,
    pub tally: &'t mut Tally,
}

impl<'t> Disk<'t> {
    pub fn new(failures_percent: usize, tally: &'t mut Tally) -> Disk<'t> {
        let (file, new_file) = (Rows::default(), None);
        let (is_suspect, slice_was_taken) = (false, false);
        Disk { file, new_file, is_suspect, slice_was_taken, failures_percent, tally }
    }

    pub fn carry_out(&mut self, order: Order, random: &mut Random) -> Finished {
        match order {
            Order::Commit { batch, .. } => {
                assert!(!self.is_suspect, "a commit to a file that is suspect");
                self.commit(&batch, random)
            }
            // At the end, this is how the dispatcher learns that the file is suspect.
            Order::Close { batch, messages } => {
                let result = self.commit(&batch, random);
                if let (Ok(()), Some(messages)) = (&result, messages) {
                    let found = self.file.messages.len() as u64;
                    assert_eq!(found, messages, "what the file is compared with");
                }
                result
            }
            Order::Rewrite { slice, batch } => self.rewrite(&slice, &batch, random),
        }
    }

    fn commit(&mut self, batch: &Batch, random: &mut Random) -> Finished {
        self.new_file = None;
        if self.is_suspect {
            return Err(StoreError::Suspect { file: PathBuf::from("q.db") });
        }
        let result = self.succeed_or_fail(random);
        self.is_suspect = matches!(result, Err(StoreError::Io { .. }));
        if result.is_ok() || (self.is_suspect && random.below(2) == 0) {
            self.file.apply(batch);
        }
        self.tally.commits += usize::from(result.is_ok());
        result
    }

    fn rewrite(&mut self, slice: &Slice, batch: &Batch, random: &mut Random) -> Finished {
        if slice.first {
            self.new_file = Some(Rows::default());
        }
        let mut new_file = self.new_file.take().expect("the first slice comes first");
        let result = self.succeed_or_fail(random);
        // A file that was sound is still that when there only is no room for another one.
        let is_full = matches!(result, Err(StoreError::Full { .. }));
        if is_full && slice.first && self.is_suspect && !self.slice_was_taken {
            self.is_suspect = false;
            self.tally.revivals += 1;
            return Err(StoreError::Revived);
        }
        self.is_suspect |= !is_full;
        result?;
        new_file.apply(batch);
        new_file.add(slice);
        if slice.last {
            self.file = new_file;
            self.is_suspect = false;
            self.slice_was_taken = false;
            self.tally.rewrites += 1;
            self.tally.long_rewrites += usize::from(!slice.first);
        } else {
            self.new_file = Some(new_file);
            self.slice_was_taken = true;
        }
        Ok(())
    }

    fn succeed_or_fail(&mut self, random: &mut Random) -> Finished {
        if random.below(100) >= self.failures_percent {
            Ok(())
        } else if random.below(2) == 0 {
            self.tally.full += 1;
            Err(disk_full())
        } else {
            self.tally.io_errors += 1;
            Err(io_error())
        }
    }

    /// For the end: carries out one order after the other until the file is closed, or there is
    /// none and nobody gives orders.
    pub fn serve(
        mut self,
        mut in_hand: Option<Order>,
        orders: &Receiver<Order>,
        finished: &SyncSender<Finished>,
        random: &mut Random,
    ) -> Disk<'t> {
        let mut failures = 0;
        while let Some(order) = in_hand.take().or_else(|| orders.recv().ok()) {
            let closes = matches!(order, Order::Close { .. });
            let result = self.carry_out(order, random);
            let is_closed = closes && result.is_ok();
            failures += usize::from(result.is_err());
            if failures == FAILURES_AT_STOP_MAX {
                self.failures_percent = 0;
            }
            finished.send(result).unwrap();
            if is_closed {
                break;
            }
        }
        self.tally.failures_at_stop += failures;
        self
    }
}
