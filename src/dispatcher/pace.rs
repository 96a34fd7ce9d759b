//! How fast large work goes: no faster than its changes are committed.
//!
//! A flush of millions is recorded far sooner than it is committed. Left alone, it would all be in
//! the next batch, and an answer that waits for that batch would wait for seconds. So the engine does
//! no large work while enough of its changes wait for their commit, and each batch stays small
//! enough to be committed within [`COMMIT_MS`]. What peers ask for is not held back: it is recorded
//! and answered as always, at most two small batches later.
//!
//! The end of a commit lets the work go on. Where commits fail, nothing is held back, for all of it
//! would wait. Where one takes longer than [`PATIENCE_MS`], another batch's worth is done each time
//! that has passed, since time-outs are part of what waits.

use crate::engine::Effect;
use crate::words::clock::Time;

use super::Dispatcher;

/// How long a commit with changes of large work should take, in milliseconds: an answer may have to
/// wait for the one under way and for its own.
const COMMIT_MS: u64 = 20;
/// How long large work waits for one commit, in milliseconds, before more of it is recorded.
const PATIENCE_MS: u64 = 250;
/// Rows of large work that a batch has at least before it is taken, and at most; between them it is
/// what can be committed in time. Below that the fixed costs of a commit would slow the work down.
const ROWS_MIN: u64 = 2_000;
const ROWS_MAX: u64 = 32_000;

/// What large work has recorded, and how long commits take.
#[derive(Debug)]
pub(super) struct WorkPace {
    /// Rows recorded since a batch was last taken.
    rows: u64,
    /// At so many the batch is full.
    rows_max: u64,
    /// It never is at less.
    rows_min: u64,
    /// Whether the batch under way was full.
    is_full_under_way: bool,
    /// When it was handed over.
    sent: Time,
    /// The same, or when more was let through since.
    waits_since: Time,
    /// Until when large work is held back at the longest; never while it is not.
    held_back_until: Time,
}

impl WorkPace {
    pub fn new() -> WorkPace {
        WorkPace::from_rows(ROWS_MIN)
    }

    /// One whose smallest full batch has so many rows.
    pub(super) fn from_rows(rows_min: u64) -> WorkPace {
        WorkPace {
            rows: 0,
            rows_max: rows_min,
            rows_min,
            is_full_under_way: false,
            sent: Time(0),
            waits_since: Time(0),
            held_back_until: Time::NEVER,
        }
    }

    /// Whether the next batch has as many rows of large work as it may have.
    pub fn is_full(&self) -> bool {
        self.rows >= self.rows_max
    }

    /// A batch was handed over.
    pub fn taken(&mut self, now: Time) {
        self.is_full_under_way = self.is_full();
        (self.rows, self.sent, self.waits_since) = (0, now, now);
    }

    /// It is committed: the next ones may be larger, or have to be smaller.
    pub fn committed(&mut self, now: Time) {
        if !std::mem::take(&mut self.is_full_under_way) {
            return;
        }
        let took_ms = now.since(self.sent);
        if took_ms > COMMIT_MS {
            self.rows_max = (self.rows_max / 2).max(self.rows_min);
        } else if took_ms < COMMIT_MS / 2 {
            self.rows_max = (self.rows_max * 2).min(ROWS_MAX);
        }
    }

    /// Until when large work waits for the commit under way.
    pub fn waits_until(&self) -> Time {
        self.waits_since.plus(PATIENCE_MS)
    }

    /// The commit under way takes long: as much as fits in a batch is done meanwhile.
    fn go_on_meanwhile(&mut self, now: Time) {
        (self.rows, self.waits_since) = (0, now);
    }
}

impl Dispatcher<'_> {
    /// Counts what the engine has just done of large work, and of what was due.
    pub(super) fn count_large_work(&mut self) {
        let changes = self.effects.iter().filter(|effect| matches!(effect, Effect::Change(_)));
        self.commits.pace.rows += changes.count() as u64;
    }

    /// Holds large work back while its changes wait for their commit.
    pub(super) fn set_pace(&mut self) {
        let now = self.time();
        let commits = &mut self.commits;
        let until = if commits.pace.is_full() { commits.large_work_waits_until() } else { now };
        let waits = now < until;
        if commits.under_way.is_some() && !waits && commits.pace.is_full() {
            commits.pace.go_on_meanwhile(now);
        }
        commits.pace.held_back_until = if waits { until } else { Time::NEVER };
        self.engine.hold_back(waits);
    }

    /// When the engine is due, or is held back no longer.
    pub(super) fn engine_deadline(&mut self) -> Time {
        self.engine.next_deadline().min(self.commits.pace.held_back_until)
    }
}
