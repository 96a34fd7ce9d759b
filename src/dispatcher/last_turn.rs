//! The last turn: everybody is told what there is to tell, everything is written, all is closed.
//!
//! The clients' threads have ended when this begins, so no request comes any more; writers may
//! still report.

use std::sync::mpsc::{Receiver, SyncSender};

use slog::{crit, info, warn};

use crate::channels::{Event, Finished, Order};
use crate::store::{Remedy, StoreError};
use crate::words::change::Change;
use crate::words::clock::{Clock, Time};
use crate::words::limits::STOP_FLUSH_MS;

use super::Dispatcher;
use super::commits::LastCommit;
use super::rewrite::rewrite_now;

/// How long to wait before a failed last commit is tried again, in milliseconds.
const AGAIN_AFTER_MS: u64 = 250;

/// What the daemon's end looks like.
#[derive(Debug)]
pub enum Stopped {
    /// Everything is in the database file, or nothing was to be.
    Clean,
    /// So many changes were only in memory.
    Lost(u64, StoreError),
}

impl Dispatcher<'_> {
    pub(super) fn stop(mut self) -> Result<Stopped, StoreError> {
        self.engine.hold_back(false);
        self.flush_outboxes();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.tell_of_volatile();
        let unsaved: Vec<Change> = self.engine.unsaved_counters();
        for change in unsaved {
            self.keep(change);
        }
        // A slice goes to persistence then, and for a new file memory has to have the rest.
        self.bring_in_all();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let stopped = self.commit_for_good();
        self.peers.clear();
        Ok(stopped)
    }

    /// What is volatile ends here.
    fn tell_of_volatile(&self) {
        let (bytes, messages) = self.engine.volatile();
        if messages > 0 {
            info!(self.log, "volatile messages are dropped"; "messages" => messages,
                "bytes" => bytes);
        }
    }

    /// Serves on, as far as what has come already goes, until the outboxes are empty or one second
    /// has passed.
    fn flush_outboxes(&mut self) {
        let until = self.clock.time().plus(STOP_FLUSH_MS);
        loop {
            self.note_time(self.clock.now(self.now.wall_offset_ms));
            self.engine.turn(self.now, &mut self.effects);
            self.carry_out();
            self.finish_turn();
            let unsaid = self.peers.values().any(|peer| !peer.broken && !peer.outbox.is_empty());
            let busy = self.engine.next_deadline() == Time(0);
            let is_over = (!unsaid && !busy) || self.failed.is_some();
            if is_over || self.clock.time() >= until {
                return;
            }
            let due = until.min(self.commit_deadline()).min(self.engine.next_deadline());
            let event = self.next_event();
            let wait =
                || self.clock.until(due).and_then(|left| self.events.recv_timeout(left).ok());
            if let Some(event) = event.or_else(wait) {
                self.take(event);
            }
        }
    }

    /// The last commit and the checkpoint; tried again until `stop_timeout`.
    fn commit_for_good(&mut self) -> Stopped {
        let until = self.clock.time().plus(self.stop_timeout_ms);
        let (next_id, now) = (self.engine.next_id(), self.now);
        let exit_on_io_error = self.exit_on_io_error;
        let (clock, log, progress) = (self.clock, self.log.clone(), self.progress.clone());
        let (_, in_memory) = self.engine.durable();
        // What is still being worked off is not counted any more, but in the file.
        let mut expected = (self.engine.next_deadline() != Time(0)).then_some(in_memory);
        let Some(LastCommit { mirror, journal, orders, finished, events, is_under_way }) =
            self.last_commit()
        else {
            return Stopped::Clean;
        };
        if is_under_way && let Ok(result) = finished.recv() {
            match result {
                Ok(()) => {
                    if let (_, Some(batch)) = journal.succeeded() {
                        mirror.add(journal, batch);
                    }
                }
                Err(_) => journal.failed(),
            }
        }
        let mut told = false;
        loop {
            journal.stop_cleanly(next_id);
            journal.note_clock(now);
            let batch = journal.take();
            let close = Order::Close { batch, messages: expected.take() };
            let Err(error) = ask(orders, finished, close) else { return Stopped::Clean };
            let suspect = error.remedy() == Remedy::Rewrite;
            let no_room = error.remedy() == Remedy::RefusePuts;
            match error {
                StoreError::NoRoom { kept, .. } => {
                    let (_, batch) = journal.failed_beyond(kept);
                    mirror.add(journal, batch);
                }
                _ => journal.failed(),
            }
            let rows = journal.rows();
            // Where no start would find the file, what was committed to it is lost too.
            let lost = if progress.is_file_lost() { rows.max(in_memory) } else { rows };
            if lost == 0 && no_room {
                warn!(log, "everything is in the database, but the disk has no room to note that it \
                    was stopped in order"; "error" => %error);
                return Stopped::Clean;
            }
            if clock.time() >= until || (suspect && exit_on_io_error) {
                crit!(log, "stopped with changes that are only in memory";
                    "rows" => lost, "error" => %error);
                return Stopped::Lost(lost, error);
            }
            if !std::mem::replace(&mut told, true) {
                crit!(log, "the last commit failed, retrying"; "error" => %error);
            }
            if suspect && rewrite_now(mirror, journal, orders, finished).is_ok() {
                continue;
            }
            pause(clock, events);
        }
    }
}

/// Has an order carried out and waits for that.
pub(super) fn ask(
    orders: &SyncSender<Order>,
    finished: &Receiver<Finished>,
    order: Order,
) -> Finished {
    if orders.send(order).is_ok()
        && let Ok(finished) = finished.recv()
    {
        return finished;
    }
    panic!("persistence has ended before the dispatcher");
}

/// Lets a moment pass before the last commit is tried again: waits for events, which nobody sends
/// any more.
fn pause(clock: Clock, events: &Receiver<Event>) {
    let again = clock.time().plus(AGAIN_AFTER_MS);
    while clock.until(again).is_some_and(|left| events.recv_timeout(left).is_ok()) {}
}
