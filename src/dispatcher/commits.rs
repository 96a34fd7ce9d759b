//! When changes go to persistence, and what waits for that.
//!
//! At most one order is under way. The next one is given when the tick is due, as soon as an answer
//! waits for it (levels `write` and `sync`), or when there is much to commit. The tick exists only
//! while something is not on the disk: an idle daemon has none.
//!
//! # Failure
//! A disk that has no room for what is put takes the rest: who has removed or moved messages is
//! answered, and puts wait. The batch of a commit that fails whole is kept and tried again with every tick; when the file is
//! suspect, a new one is written instead (`rewrite`). Until one succeeds,
//! puts are refused. An answer that has waited for `storage.commit_timeout`, for a commit that
//! failed or for one that does not end, is given up: its peer is told that the outcome is unknown,
//! and its change stays queued for the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use slog::{crit, info};

use crate::channels::{Event, Finished, Order};
use crate::engine::Input;
use crate::journal::{Batch, Journal};
use crate::mirror::Mirror;
use crate::store::StoreError;
use crate::words::change::Change;
use crate::words::clock::{Now, Time};
use crate::words::command::Reply;
use crate::words::durability::Durability;
use crate::words::ids::{CommitNumber, Committed, ConnectionId, Part};
use crate::words::limits::{PAUSE_MS, TICK_BYTES_MAX};
use crate::words::statistics::StoreFacts;

use super::Dispatcher;
use super::pace::WorkPace;
use super::rewrite::Rewrite;

/// The way to the database file.
pub(super) struct Commits {
    pub journal: Journal,
    pub orders: Option<SyncSender<Order>>,
    finished: Receiver<Finished>,
    interval_ms: u64,
    timeout_ms: u64,
    committed: Committed,
    /// The order under way.
    pub under_way: Option<UnderWay>,
    /// How much of large work is recorded.
    pub pace: WorkPace,
    /// The strictest level that an answer waits for.
    pub demanded: Option<Durability>,
    /// When the tick is due; never while all is on the disk.
    pub tick: Time,
    /// Whether something was committed without fsync.
    unsynced: bool,
    /// When a commit last said how the clock stands.
    clock_saved: Time,
    /// Ids that the order under way reserves, and those that the journal does.
    pub ids_under_way: Option<u64>,
    pub ids_asked: Option<u64>,
    /// Peers with answers that wait.
    pub holding: Vec<ConnectionId>,
    /// Since when answers wait.
    waiting_since: Option<Time>,
    /// Whether the last commit failed.
    pub failing: bool,
    /// Whether some commit failed, or a part of one, since the file was known good.
    unsure: bool,
    /// Whether the disk has no room for messages that are put.
    pub no_room: bool,
    /// Whether a message was moved that the file does not have yet, since the last answer to a move.
    moved_put: bool,
    /// Whether the file has to be written anew.
    pub rewrite: Rewrite,
    /// Whether the disk has less room than `storage.min_free_disk`; only commits measure it.
    pub disk_low: bool,
}

/// What an order under way stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnderWay {
    /// A commit.
    Commit {
        /// It ends in an fsync.
        sync: bool,
    },
    /// A part of a new file, which promises nothing unless it is the last one.
    Slice {
        /// It is.
        last: bool,
    },
}

impl Commits {
    pub fn new(
        journal: Journal,
        orders: Option<SyncSender<Order>>,
        finished: Receiver<Finished>,
        interval_ms: u64,
        timeout_ms: u64,
    ) -> Commits {
        Commits {
            journal,
            orders,
            finished,
            interval_ms,
            timeout_ms,
            committed: Committed::default(),
            under_way: None,
            pace: WorkPace::new(),
            demanded: None,
            tick: Time::NEVER,
            unsynced: false,
            clock_saved: Time(0),
            ids_under_way: None,
            ids_asked: None,
            holding: Vec::new(),
            waiting_since: None,
            failing: false,
            unsure: false,
            no_room: false,
            moved_put: false,
            rewrite: Rewrite::default(),
            disk_low: false,
        }
    }

    /// Notes a change for the file.
    pub fn record(&mut self, change: Change, now: Time) {
        if let Change::Moved(row) = &change {
            self.moved_put |= self.journal.is_put_pending(row.id);
        }
        self.journal.record(change);
        self.start_tick(now);
    }

    /// The wall clock was set.
    pub fn note_clock(&mut self, now: Now) {
        if self.orders.is_some() {
            self.journal.note_clock(now);
            self.clock_saved = now.time;
            self.start_tick(now.time);
        }
    }

    /// Ids below this are to be reserved; the engine learns when they are.
    pub fn reserve_ids(&mut self, up_to: u64, now: Time) {
        self.journal.reserve_ids(up_to);
        self.ids_asked = Some(up_to);
        self.start_tick(now);
        self.demand(Durability::Sync, now);
    }

    /// The part of a commit that has what an answer promises.
    pub fn part_of(&mut self, reply: &Reply) -> Part {
        match reply {
            // What was put before this one joined it may not be in the file yet.
            Reply::Put(_) | Reply::Joined(_) | Reply::Together(_) | Reply::Promoted => Part::Puts,
            Reply::Acknowledged | Reply::Removed | Reply::Flushed(_) => Part::Removals,
            // What is moved of a message comes with that message.
            _ if std::mem::take(&mut self.moved_put) => Part::Puts,
            _ => Part::Moves,
        }
    }

    /// An answer promises this level: the commit that it has to wait for.
    pub fn demand(&mut self, level: Durability, now: Time) -> CommitNumber {
        if self.orders.is_none() {
            // Nothing is waited for.
            return CommitNumber(0);
        }
        self.demanded = self.demanded.max(Some(level));
        self.waiting_since.get_or_insert(now);
        self.journal.number()
    }

    /// Notes a peer whose first answer has waited since then.
    pub fn hold(&mut self, connection: ConnectionId, since: Option<Time>) {
        self.holding.push(connection);
        // An answer can wait for the commit after the one that has just set the others free.
        self.waiting_since = self.waiting_since.into_iter().chain(since).min();
    }

    /// The commit up to which answers may leave.
    pub fn committed(&self) -> Committed {
        self.committed
    }

    /// Whether the disk has no room for what is put, or is about to have none.
    pub fn is_short_of_room(&self) -> bool {
        self.disk_low || self.no_room
    }

    /// When something here is due by itself, while the database in memory is being given a batch or
    /// not.
    pub fn deadline(&self, is_bringing_in: bool) -> Time {
        let tick = match self.under_way {
            Some(_) => Time::NEVER,
            // Behind what is being brought in.
            None if is_bringing_in && (self.orders.is_none() || self.rewrite.is_needed()) => {
                Time::NEVER
            }
            // A commit was demanded after this turn's hand-over: a peer that had stalled
            // resumed during the flush, and its requests went on. Turn again at once.
            None if self.is_demanded() => Time(0),
            None => self.tick,
        };
        tick.min(self.give_up_at())
    }

    /// Whether an answer waits for the next commit, which does not wait for the tick.
    fn is_demanded(&self) -> bool {
        // While commits fail, they are tried with the tick and not with every answer.
        self.demanded.is_some() && !self.failing
    }

    /// Whether answers wait for a commit.
    pub fn is_awaited(&self) -> bool {
        self.waiting_since.is_some()
    }

    fn give_up_at(&self) -> Time {
        self.waiting_since.map_or(Time::NEVER, |since| since.plus(self.timeout_ms))
    }

    fn start_tick(&mut self, now: Time) {
        // While commits fail they are tried later and later. On a disk that is short of room the
        // tick is for measuring that, and later too, but changes do not wait for it.
        if self.tick == Time::NEVER || !self.failing {
            self.tick = self.tick.min(now.plus(self.interval_ms));
        }
    }

    /// Gives persistence an order.
    pub fn send(&mut self, order: Order, under_way: UnderWay) {
        // Invariant: none is under way, so the channel of one has room.
        let sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok());
        assert!(sent, "persistence has ended before the dispatcher");
        self.under_way = Some(under_way);
    }

    /// Takes what was recorded, for an order.
    pub fn take(&mut self, now: Time) -> Arc<Batch> {
        self.pace.taken(now);
        self.journal.take()
    }

    /// Until when large work waits, once the next batch is full of it: not for a commit that is
    /// known to fail, or that has no end.
    pub fn large_work_waits_until(&self) -> Time {
        match self.under_way {
            _ if self.failing || self.no_room || self.orders.is_none() => Time(0),
            Some(_) => self.pace.waits_until(),
            // The batch is handed over at the end of the turn, or has to wait for a new file.
            None if self.rewrite.is_needed() => Time(0),
            None => Time::NEVER,
        }
    }
}

impl<'c> Dispatcher<'c> {
    /// Takes what persistence has finished.
    pub(super) fn take_finished(&mut self) {
        let Ok(result) = self.commits.finished.try_recv() else { return };
        let Some(under_way) = self.commits.under_way.take() else { return };
        match result {
            Ok(()) => self.order_succeeded(under_way),
            Err(error) => self.order_failed(under_way, error),
        }
    }

    fn order_succeeded(&mut self, under_way: UnderWay) {
        let now = self.time();
        let commits = &mut self.commits;
        commits.pace.committed(now);
        let number = self.mirror_committed(now.plus(self.commits.interval_ms));
        let commits = &mut self.commits;
        let synced = match under_way {
            UnderWay::Slice { last: false } => {
                commits.rewrite.slice_taken();
                return;
            }
            UnderWay::Slice { last: true } => true,
            UnderWay::Commit { sync } => sync,
        };
        commits.rewrite = Rewrite::Trusted;
        commits.committed = number.into();
        commits.unsynced = !synced;
        self.ids_are_reserved();
        if self.commits.is_short_of_room() {
            self.commits.tick = self.commits.tick.min(now.plus(MEASURE_AGAIN_MS));
        }
        self.release_held();
        self.recover_from_failure()
    }

    /// The batch under way is in the file, or there is no file: it is to be in memory at that moment.
    fn mirror_committed(&mut self, at: Time) -> CommitNumber {
        let journal = &mut self.commits.journal;
        let (number, batch) = journal.succeeded();
        if let Some(batch) = batch {
            self.mirror.add(journal, batch);
        }
        self.mirror.note_due(at);
        number
    }

    fn order_failed(&mut self, under_way: UnderWay, error: StoreError) {
        self.commits.unsure = true;
        if let StoreError::NoRoom { kept, .. } = error {
            return self.order_kept_up_to(kept);
        }
        let commits = &mut self.commits;
        commits.journal.failed();
        let asked = commits.ids_under_way.take();
        commits.ids_asked = commits.ids_asked.max(asked);
        commits.rewrite.order_failed(&error);
        let was_commit = matches!(under_way, UnderWay::Commit { .. });
        if was_commit && self.is_worth_a_new_file(&error) {
            self.commits.rewrite.want();
        }
        let wait_ms = self.commits.interval_ms * self.commits.rewrite.intervals();
        self.commits.tick = self.time().plus(wait_ms);
        self.commit_failed(&error);
        self.exit_if_suspect(error)
    }

    /// The disk had no room for all of it. Who has removed or moved messages is told of that, and
    /// the rest is tried again once there may be room.
    fn order_kept_up_to(&mut self, part: Part) {
        let (number, kept) = self.commits.journal.failed_beyond(part);
        self.mirror.add(&mut self.commits.journal, kept);
        self.commits.committed.note(number, part);
        self.commits.tick = self.time().plus(MEASURE_AGAIN_MS);
        self.ids_are_reserved();
        self.release_held();
        if self.end_of_failure() {
            self.update_refusal();
        }
        self.set_no_room(true)
    }

    fn ids_are_reserved(&mut self) {
        if let Some(up_to) = self.commits.ids_under_way.take() {
            self.input(Input::IdsReserved(up_to));
        }
    }

    /// Sends on the answers that waited for the commit that has just been made.
    fn release_held(&mut self) {
        self.commits.waiting_since = None;
        for connection in std::mem::take(&mut self.commits.holding) {
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.holding = false;
                peer.mark(connection, &mut self.dirty);
            }
        }
    }

    fn recover_from_failure(&mut self) {
        if std::mem::take(&mut self.commits.unsure) {
            self.commits.journal.known_good();
        }
        if self.end_of_failure() {
            self.update_refusal();
        }
    }

    /// Says that changes are written again, if they were not.
    fn end_of_failure(&mut self) -> bool {
        let was_failing = std::mem::take(&mut self.commits.failing);
        if was_failing {
            info!(self.log, "changes are written to the disk again");
        }
        was_failing
    }

    fn commit_failed(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.commits.failing, true) {
            crit!(self.log, "cannot write to the database file: puts are refused, and changes \
                are kept in memory and retried"; "error" => %error);
            self.update_refusal();
        }
    }

    /// Gives persistence its next order, if it is time for one, and memory what it lacks.
    pub(super) fn hand_over(&mut self) {
        let now = self.time();
        self.give_up_waiting(now);
        if self.commits.orders.is_none() {
            self.pass_by_file(now);
        } else if self.commits.under_way.is_none() {
            if self.commits.rewrite.is_needed() {
                self.stage_for_slice(now);
            } else {
                self.commit(now);
            }
        }
        self.mirror.stage_lag(now, self.limits.max_memory());
        self.bring_in();
    }

    /// Without a file the tick only keeps the journal short.
    fn pass_by_file(&mut self, now: Time) {
        let commits = &mut self.commits;
        if !self.mirror.is_busy()
            && (commits.tick <= now || commits.journal.recorded_bytes() > TICK_BYTES_MAX)
        {
            commits.tick = Time::NEVER;
            drop(commits.journal.take());
            self.mirror_committed(now);
        }
    }

    fn commit(&mut self, now: Time) {
        // An error after the answer to the last order is told in the answer to the next one.
        let bad_news = self.progress.is_suspect();
        let commits = &mut self.commits;
        let tick_due = commits.tick <= now || bad_news;
        let demanded = commits.demanded.filter(|_| commits.is_demanded());
        let is_waiting = commits.failing || commits.no_room;
        let is_full = commits.journal.recorded_bytes() > TICK_BYTES_MAX || commits.pace.is_full();
        let is_much = is_full && !is_waiting;
        if !tick_due && !is_much && demanded.is_none() {
            return;
        }
        let sync = tick_due || demanded == Some(Durability::Sync);
        let asks = bad_news || (commits.is_short_of_room() && tick_due);
        if commits.journal.is_empty() && !(sync && commits.unsynced) && !asks {
            // What was to be kept has come and gone: there is nothing that could get lost.
            drop(commits.take(now));
            let (number, empty) = commits.journal.succeeded();
            if let Some(empty) = empty {
                self.mirror.add(&mut commits.journal, empty);
            }
            commits.committed = number.into();
            commits.demanded = None;
            let again = commits.unsynced || commits.is_short_of_room();
            commits.tick = if again { commits.tick } else { Time::NEVER };
            return self.release_held();
        }
        if now.since(commits.clock_saved) >= SAVE_CLOCK_MS {
            commits.clock_saved = now;
            commits.journal.note_clock(self.now);
        }
        let batch = commits.take(now);
        commits.send(Order::Commit { batch, sync }, UnderWay::Commit { sync });
        commits.demanded = None;
        if sync {
            // What is recorded from now on starts the next tick.
            commits.tick = Time::NEVER;
        }
        commits.ids_under_way = commits.ids_asked.take();
    }

    /// Answers that have waited for too long are told that the outcome is unknown.
    fn give_up_waiting(&mut self, now: Time) {
        let over = self.commits.give_up_at();
        if over > now {
            return;
        }
        if now.since(over) >= PAUSE_MS {
            // The process was stopped, and so was the thread that commits.
            self.commits.waiting_since = Some(now);
            return;
        }
        let since = Time(now.0.saturating_sub(self.commits.timeout_ms));
        self.commits.waiting_since = None;
        for connection in std::mem::take(&mut self.commits.holding) {
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.give_up(since, self.commits.committed);
                // The next flush notes it again if it still has answers that wait.
                peer.holding = false;
                peer.mark(connection, &mut self.dirty);
            }
        }
    }

    pub(super) fn store_facts(&self) -> StoreFacts {
        StoreFacts {
            on_disk: self.commits.orders.is_some(),
            commits: self.progress.commits(),
            rows_written: self.progress.rows_written(),
            rows_rewritten: self.progress.rows_rewritten(),
            file_bytes: self.progress.file_bytes(),
            wal_bytes: self.progress.wal_bytes(),
            degraded: self.commits.failing || self.commits.no_room,
            log_held_up: self.progress.log_held_up(),
        }
    }

    /// For the end: the journal with its last changes, and the channels.
    pub(super) fn last_commit(&mut self) -> Option<LastCommit<'_, 'c>> {
        let commits = &mut self.commits;
        Some(LastCommit {
            mirror: &mut self.mirror,
            journal: &mut commits.journal,
            orders: commits.orders.as_ref()?,
            finished: &commits.finished,
            events: &self.events,
            is_under_way: commits.under_way.is_some(),
        })
    }
}

/// What the last commit needs.
pub(super) struct LastCommit<'a, 'c> {
    pub mirror: &'a mut Mirror<'c>,
    pub journal: &'a mut Journal,
    pub orders: &'a SyncSender<Order>,
    pub finished: &'a Receiver<Finished>,
    pub events: &'a Receiver<Event>,
    pub is_under_way: bool,
}

/// How often, in milliseconds, a commit says how the clock stands: a start with a wall clock that
/// is far behind goes on from there.
const SAVE_CLOCK_MS: u64 = 60_000;
/// How long after a commit a disk that was low is measured again, in milliseconds.
pub(super) const MEASURE_AGAIN_MS: u64 = 1_000;
