//! How a database file that is suspect, or that cannot grow and needs not be so large, is written
//! anew from the database in memory.
//!
//! The rows go to persistence in slices, one order after the other, while the turns go on; each
//! order carries the changes of the turns since the last one too, which are brought into memory
//! before the slice is read. Only the answer to the last slice stands for a commit.
//!
//! # Failure
//! An attempt that fails is made again, from the first slice on, after twice as long each time. With
//! `storage.on_io_error = "exit"` no attempt is made: the process ends, and a restart finds the
//! file as the last good commit left it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use slog::crit;

use crate::channels::{Finished, Order};
use crate::journal::{Batch, Journal};
use crate::mirror::{Mirror, broken};
use crate::store::{Remedy, Slices, StoreError};
use crate::words::clock::Time;
use crate::words::limits::MESSAGE_OVERHEAD_BYTES;

use super::Dispatcher;
use super::commits::UnderWay;

/// Where a rewrite stands.
#[derive(Debug, Default)]
pub(super) enum Rewrite {
    /// The file is trusted.
    #[default]
    Trusted,
    /// The file is sound, but it cannot grow and a new one would be small; an attempt begins with
    /// the next tick.
    Worthwhile,
    /// The file is suspect; an attempt begins with the next tick. So many have failed.
    Wanted(u32),
    /// Slices are being sent.
    Sending(Sending),
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Sending {
    slices: Slices,
    /// So many have failed before.
    failed: u32,
    /// Whether the old file is sound and has all that was committed, since no slice was taken yet.
    may_go_back: bool,
}

/// What a new file takes at least, and its log, with some room to begin with.
const EMPTY_FILE_BYTES: u64 = 256 * 1024;
/// How often the time between two attempts is doubled at most: from 50 ms up to 13 s.
const DOUBLINGS_MAX: u32 = 8;

impl Rewrite {
    /// Notes that an order failed.
    pub fn order_failed(&mut self, error: &StoreError) {
        let is_suspect = error.remedy() == Remedy::Rewrite;
        *self = match self {
            // Persistence has seen to it that the old file has all that was committed.
            _ if matches!(error, StoreError::Revived) => Rewrite::Trusted,
            Rewrite::Trusted | Rewrite::Worthwhile if is_suspect => Rewrite::Wanted(0),
            Rewrite::Trusted | Rewrite::Worthwhile => Rewrite::Trusted,
            // There was no room for a new file: the old one may take commits by now.
            Rewrite::Sending(Sending { may_go_back: true, .. }) if !is_suspect => Rewrite::Trusted,
            Rewrite::Wanted(failed) | Rewrite::Sending(Sending { failed, .. }) => {
                Rewrite::Wanted(failed.saturating_add(1))
            }
        };
    }

    /// Notes that a slice was taken: what came with it is in no other file.
    pub fn slice_taken(&mut self) {
        if let Rewrite::Sending(sending) = self {
            sending.may_go_back = false;
        }
    }

    /// Begins a first attempt with the next tick, although the file is sound.
    pub fn want(&mut self) {
        if matches!(self, Rewrite::Trusted) {
            *self = Rewrite::Worthwhile;
        }
    }

    /// How many tick intervals to wait after a failed order.
    pub fn intervals(&self) -> u64 {
        match self {
            Rewrite::Trusted | Rewrite::Worthwhile => 1,
            Rewrite::Wanted(failed) | Rewrite::Sending(Sending { failed, .. }) => {
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
    pub(super) fn exit_if_suspect(&mut self, error: StoreError) {
        if self.exit_on_io_error && error.remedy() == Remedy::Rewrite {
            crit!(self.log, "exiting, as storage.on_io_error says"; "error" => %error);
            self.failed = Some(error);
        }
    }

    /// Whether an order failed for want of room that a new file would not need. Removals are written
    /// to the log before they free anything: where neither log nor file can grow, under a limit on
    /// the size of files say, what is done would stay in them for ever.
    pub(super) fn is_worth_a_new_file(&self, error: &StoreError) -> bool {
        if !matches!(error, StoreError::Full { .. }) {
            return false;
        }
        let (body_bytes, messages) = self.engine.durable();
        let rows_bytes = body_bytes + messages * MESSAGE_OVERHEAD_BYTES;
        // A row on pages of its own can take twice its bytes.
        let needed = rows_bytes.saturating_mul(2).saturating_add(EMPTY_FILE_BYTES);
        let taken = self.progress.file_bytes().max(self.progress.wal_bytes());
        // A full disk has to have room for both at the same time.
        needed <= taken && self.progress.disk_free_bytes().is_some_and(|free| needed <= free)
    }

    /// Stages what goes to persistence with the next slice; the first one waits for the tick.
    pub(super) fn stage_for_slice(&mut self, now: Time) {
        let commits = &mut self.commits;
        if !matches!(commits.rewrite, Rewrite::Sending(_)) && commits.tick > now {
            return;
        }
        if self.mirror.is_busy() || self.mirror.lags() {
            // What memory lacks comes first.
            self.mirror.note_due(now);
            return;
        }
        commits.pace.taken(now);
        self.mirror.stage_for_slice(commits.journal.take_for_rewrite());
        commits.tick = Time::NEVER;
        commits.ids_under_way = commits.ids_asked.take().or(commits.ids_under_way);
    }

    /// A staged batch, which memory has now, becomes an order with the slice that follows.
    pub(super) fn send_slice(&mut self, batch: Arc<Batch>) {
        let (commits, mirror) = (&mut self.commits, &mut self.mirror);
        let before = std::mem::take(&mut commits.rewrite);
        let may_go_back = matches!(before, Rewrite::Worthwhile);
        let mut sending = match before {
            Rewrite::Sending(sending) => sending,
            Rewrite::Wanted(failed) => Sending {
                slices: mirror.begin_slices().unwrap_or_else(broken),
                failed,
                may_go_back,
            },
            Rewrite::Trusted | Rewrite::Worthwhile => {
                let slices = mirror.begin_slices().unwrap_or_else(broken);
                Sending { slices, failed: 0, may_go_back }
            }
        };
        let slice = mirror.next_slice(&mut sending.slices).unwrap_or_else(broken);
        commits.rewrite = Rewrite::Sending(sending);
        let under_way = UnderWay::Slice { last: slice.last };
        commits.send(Order::Rewrite { slice: Box::new(slice), batch }, under_way);
    }
}

/// Writes the file anew in one go, when nobody is left to be served meanwhile.
pub(super) fn rewrite_now(
    mirror: &mut Mirror<'_>,
    journal: &mut Journal,
    orders: &SyncSender<Order>,
    finished: &Receiver<Finished>,
) -> Result<(), StoreError> {
    let mut slices = None;
    loop {
        let batch = journal.take_for_rewrite();
        mirror.take_in_all(&batch)?;
        let slices = match &mut slices {
            Some(slices) => slices,
            None => slices.insert(mirror.begin_slices()?),
        };
        let slice = mirror.next_slice(slices)?;
        let last = slice.last;
        let order = Order::Rewrite { slice: Box::new(slice), batch };
        if let Err(error) = super::last_turn::ask(orders, finished, order) {
            journal.failed();
            return Err(error);
        }
        journal.succeeded();
        if last {
            return Ok(());
        }
    }
}
