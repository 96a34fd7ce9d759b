//! Figures of the persistence thread, which others read while it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::store::{OwnRoom, Sizes};

/// Figures of the persistence thread, for statistics and the watchdog.
#[derive(Debug)]
pub struct Progress {
    pub(super) turns: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) rows_written: AtomicU64,
    pub(super) rows_rewritten: AtomicU64,
    file_bytes: AtomicU64,
    wal_bytes: AtomicU64,
    disk_free_bytes: AtomicU64,
    measured: AtomicBool,
    own_room_bytes: AtomicU64,
    disk_is_full: AtomicBool,
    pub(super) log_held_up: AtomicBool,
    pub(super) suspect: AtomicBool,
    pub(super) file_lost: AtomicBool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            turns: AtomicU64::default(),
            commits: AtomicU64::default(),
            rows_written: AtomicU64::default(),
            rows_rewritten: AtomicU64::default(),
            file_bytes: AtomicU64::default(),
            wal_bytes: AtomicU64::default(),
            disk_free_bytes: AtomicU64::default(),
            measured: AtomicBool::default(),
            own_room_bytes: AtomicU64::new(OwnRoom::ENDLESS.bytes),
            disk_is_full: AtomicBool::default(),
            log_held_up: AtomicBool::default(),
            suspect: AtomicBool::default(),
            file_lost: AtomicBool::default(),
        }
    }
}

impl Progress {
    /// Odd while an order is being carried out, even while none is; it only grows. A thread that
    /// is at the same odd number for long is stuck.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Rows written or deleted so far.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Rows written by rewrites so far.
    pub fn rows_rewritten(&self) -> u64 {
        self.rows_rewritten.load(Ordering::Relaxed)
    }

    /// Whether an error has left it uncertain what the file holds. Every commit is refused then,
    /// until a new file is in its place ([`Order::Rewrite`](crate::channels::Order::Rewrite)).
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Whether a start would not find the file that changes were written to, or would find another
    /// content in it.
    pub fn is_file_lost(&self) -> bool {
        self.file_lost.load(Ordering::Relaxed)
    }

    /// Bytes of the database file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of its write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the disk had left for us after the last commit with fsync; `None` before the
    /// first measurement, and when there is no file.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        self.measured.load(Ordering::Acquire).then(|| self.disk_free_bytes.load(Ordering::Relaxed))
    }

    /// Bytes of messages for which there is room, whatever becomes of the disk.
    pub fn own_room_bytes(&self) -> u64 {
        self.own_room_bytes.load(Ordering::Relaxed)
    }

    /// Whether the disk has no more than that.
    pub fn disk_is_full(&self) -> bool {
        self.disk_is_full.load(Ordering::Relaxed)
    }

    /// Notes for how much there is room.
    pub fn has_room(&self, room: OwnRoom) {
        self.own_room_bytes.store(room.bytes, Ordering::Relaxed);
        self.disk_is_full.store(room.is_all, Ordering::Relaxed);
    }

    /// Whether another program that reads the file keeps the log from being moved into it.
    pub fn log_held_up(&self) -> bool {
        self.log_held_up.load(Ordering::Relaxed)
    }

    /// Takes the sizes of a file, at start before the thread runs.
    pub fn measured(&self, sizes: &Sizes) {
        self.file_bytes.store(sizes.file_bytes, Ordering::Relaxed);
        self.wal_bytes.store(sizes.wal_bytes, Ordering::Relaxed);
        self.disk_free_bytes.store(sizes.disk_free_bytes, Ordering::Relaxed);
        self.measured.store(true, Ordering::Release);
    }

    /// Notes that the thread waits for an order.
    pub(super) fn rest(&self) {
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns + turns % 2, Ordering::Relaxed);
    }

    /// Notes that the thread carries out an order.
    pub(super) fn work(&self) {
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns + 1 + turns % 2, Ordering::Relaxed);
    }
}
