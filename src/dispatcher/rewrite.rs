//! How a suspect database file is written anew from the database in memory.
//!
//! The rows go to persistence in slices, one order after the other, while the turns go on; each
//! order carries the changes of the turns since the last one too. Only the answer to the last
//! slice stands for a commit.
//!
//! # Failure
//! An attempt that fails is made again, from the first slice on, after twice as long each time. With
//! `storage.on_io_error = "exit"` no attempt is made: the process ends, and a restart finds the
//! file as the last good commit left it.

use crossbeam_channel::{Receiver, Sender};
use slog::crit;

use crate::channels::{Finished, Order};
use crate::clock::Time;
use crate::journal::Journal;
use crate::store::{Memory, Remedy, Slices, StoreError};

use super::Dispatcher;
use super::commits::UnderWay;

/// Where a rewrite stands.
#[derive(Debug, Default)]
pub(super) enum Rewrite {
    /// The file is trusted.
    #[default]
    Trusted,
    /// The file is suspect; an attempt begins with the next tick. So many have failed.
    Wanted(u32),
    /// Slices are being sent, after so many attempts that have failed.
    Sending(Slices, u32),
}

/// How often the time between two attempts is doubled at most: from 50 ms up to 13 s.
const DOUBLINGS_MAX: u32 = 8;

impl Rewrite {
    /// Notes that an order failed.
    pub fn order_failed(&mut self, error: &StoreError) {
        match self {
            Rewrite::Trusted if error.remedy() != Remedy::Rewrite => {}
            Rewrite::Trusted => *self = Rewrite::Wanted(0),
            Rewrite::Wanted(failed) | Rewrite::Sending(_, failed) => {
                *self = Rewrite::Wanted(failed.saturating_add(1));
            }
        }
    }

    /// How many tick intervals to wait after a failed order.
    pub fn intervals(&self) -> u64 {
        match self {
            Rewrite::Trusted => 1,
            Rewrite::Wanted(failed) | Rewrite::Sending(_, failed) => {
                1 << (*failed).min(DOUBLINGS_MAX)
            }
        }
    }

    /// Whether commits would be refused.
    pub fn is_needed(&self) -> bool {
        !matches!(self, Rewrite::Trusted)
    }
}

impl Dispatcher<'_> {
    /// Ends the process for an error that leaves the file suspect, if it is configured to.
    pub(super) fn exit_if_suspect(&self, error: StoreError) -> Result<(), StoreError> {
        if self.exit_on_io_error && error.remedy() == Remedy::Rewrite {
            crit!(self.log, "ending, as storage.on_io_error says"; "error" => %error);
            return Err(error);
        }
        Ok(())
    }

    /// Gives persistence the next slice, beginning with the tick.
    pub(super) fn hand_over_slice(&mut self, now: Time) -> Result<(), StoreError> {
        let commits = &mut self.commits;
        let Some(orders) = &commits.orders else { return Ok(()) };
        if let Rewrite::Wanted(failed) = commits.rewrite
            && commits.tick <= now
        {
            commits.rewrite = Rewrite::Sending(Slices::begin(&mut self.memory)?, failed);
        }
        let Rewrite::Sending(slices, _) = &mut commits.rewrite else { return Ok(()) };
        let slice = slices.next_slice(&mut self.memory)?;
        let last = slice.last;
        let batch = commits.journal.take();
        if orders.try_send(Order::Rewrite { slice, batch }).is_err() {
            // Invariant: none is under way, so the channel of one has room.
            panic!("persistence has ended before the dispatcher");
        }
        commits.under_way = Some(if last { UnderWay::Synced } else { UnderWay::Slice });
        if last {
            commits.demanded = None;
        }
        commits.tick = Time::NEVER;
        commits.ids_under_way = commits.ids_asked.take().or(commits.ids_under_way);
        Ok(())
    }
}

/// Writes the file anew in one go, when nobody is left to be served meanwhile.
pub(super) fn rewrite_now(
    memory: &mut Memory<'_>,
    journal: &mut Journal,
    orders: &Sender<Order>,
    finished: &Receiver<Finished>,
) -> Result<(), StoreError> {
    let mut slices = Slices::begin(memory)?;
    loop {
        let slice = slices.next_slice(memory)?;
        let last = slice.last;
        let order = Order::Rewrite { slice, batch: journal.take() };
        let Finished { batch, result } = super::stop::ask(orders, finished, order);
        if let Err(error) = result {
            journal.restore(batch);
            return Err(error);
        }
        journal.done(batch);
        if last {
            return Ok(());
        }
    }
}
