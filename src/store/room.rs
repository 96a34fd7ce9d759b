//! Room on the disk that belongs to the database before it needs it.
//!
//! A commit only writes to the log. What it says has to go into the file later, and on a disk that
//! somebody has filled meanwhile the file could not grow for that: the log would stay full, and
//! with it everything would stand still. So the file owns the blocks of each of its pages before a
//! commit may use the page. They are allocated beyond its end, where they stay when the process
//! ends; and the database library is told how many pages there are, so that a commit that needs
//! more fails and is rolled back.
//!
//! ```text
//!   main file   ├──── pages in use ────┼── free pages ──┼── allocated beyond its end ──┤ pages_max
//!   log         ├──── frames ────┼────── allocated ───────┤ LOG_BYTES
//! ```
//!
//! Moving the whole log into the file cuts the file to its pages; the next commit that needs more
//! allocates again, or is refused.
//!
//! # Failure
//!
//! File systems that copy on write promise nothing by allocating, and some can not allocate at
//! all: there the ballast helps.

use std::fs::File;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::schema::PAGE_BYTES;
use crate::journal::Batch;

/// By how much the file owns more than it needs, in pages: 16 MiB, less on a small disk. When a
/// quarter of it is used the disk is asked for more, so that a full one is noticed while there still
/// is room for what has been accepted, and answers at level `periodic` seldom wait for a commit
/// because little is left.
const AHEAD_PAGES: u64 = 16 * 1024 * 1024 / PAGE_BYTES as u64;
/// Under load, enough for so many commits like the recent ones, ...
const AHEAD_COMMITS: u64 = 8;
/// ... but no more than 128 MiB: at level `periodic` answers wait for a commit when this is used up,
/// and a disk can stall for as long as it takes to accept so much.
const AHEAD_PAGES_MAX: u64 = 128 * 1024 * 1024 / PAGE_BYTES as u64;
const AHEAD_PAGES_MIN: u64 = 32;
/// The file owns no more ahead than this part of what the disk has left.
const DISK_PARTS: u64 = 8;
/// What the log owns from its beginning, in bytes: removals are committed in slices of less, with
/// the log moved into the file between them. On a small disk it owns a part of what that has left.
pub(super) const LOG_BYTES: u64 = 8 * 1024 * 1024;
/// The part of what the disk has left.
const LOG_DISK_PARTS: u64 = 4;
/// A log that owns less has no room for a single removal, in bytes.
const LOG_BYTES_MIN: u64 = 128 * 1024;
/// What is to be had beside what was refused before messages are accepted again, in pages.
pub(super) const AGAIN_PAGES: u64 = 512 * 1024 / PAGE_BYTES as u64;
/// With less than this left other programs are locked out, in bytes: the index of the log that they
/// share with us needs room before it can be owned.
pub(super) const SHARE_BYTES: u64 = 16 * 1024 * 1024;
/// What the database library takes for "no limit".
const PAGES_MAX: u32 = u32::MAX - 1;
/// Pages that a commit may need for more than its rows: new roots, and halves of split pages.
const PAGES_PER_COMMIT: u64 = 4;
/// What a moved message takes at most, in bytes, without the text of its last return.
pub(super) const STATE_BYTES: u64 = 144;
/// What a key takes at most, in bytes, if it is not a very long one.
const KEY_BYTES: u64 = 300;

/// What the file owns.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Pages whose blocks the file owns; it may have no more.
    pub pages_max: u32,
    /// Pages in use, at most so many.
    pub used: u64,
    /// Pages that a recent commit may have needed: the most, less an eighth for each commit since.
    pub recent: u64,
    /// Whether the disk had no more when it was last asked.
    pub short: bool,
    /// Bytes of the messages that found no room last, until there is enough for them.
    pub refused_bytes: u64,
    /// Bytes that the disk had left when that was last measured.
    pub disk_free_bytes: u64,
    /// Bytes that the log owns.
    pub log_bytes: u64,
}

impl Room {
    /// On a file system that promises nothing.
    pub fn unknown() -> Room {
        Room { pages_max: PAGES_MAX, ..Room::default() }
    }

    /// Whether it is one that promises nothing.
    pub fn is_unknown(&self) -> bool {
        self.pages_max == PAGES_MAX
    }

    /// Whether so many pages more can be used, as far as that is known without asking anybody.
    pub fn has(&self, pages: u64) -> bool {
        self.used + pages <= u64::from(self.pages_max)
    }

    /// Whether it is time to ask the disk for more before so many pages are used.
    pub fn runs_low(&self, pages: u64) -> bool {
        !self.short && !self.has(pages + self.ahead() / 4 * 3)
    }

    /// How many bytes the log should come to own now, if that is much more than it does.
    pub fn log_bytes_wanted(&self) -> Option<u64> {
        let wanted = LOG_BYTES.min(self.disk_free_bytes / LOG_DISK_PARTS);
        (wanted >= LOG_BYTES_MIN && wanted >= 2 * self.log_bytes).then_some(wanted)
    }

    /// By how many pages the file is to own more than it needs: less on a small disk, more under
    /// load.
    pub fn ahead(&self) -> u64 {
        let part = self.disk_free_bytes / DISK_PARTS / u64::from(PAGE_BYTES);
        let wanted = (AHEAD_COMMITS * self.recent).clamp(AHEAD_PAGES, AHEAD_PAGES_MAX);
        part.clamp(AHEAD_PAGES_MIN, wanted)
    }

    /// Notes how many pages a commit may need.
    pub fn note_commit(&mut self, pages: u64) {
        self.recent = pages.max(self.recent - self.recent / 8);
    }

    /// Bytes of messages for which there is room, whatever becomes of the disk.
    pub fn owned_bytes(&self) -> u64 {
        let pages = u64::from(self.pages_max).saturating_sub(self.used);
        if self.refused_bytes > 0 { 0 } else { pages * u64::from(PAGE_BYTES) }
    }

    /// Whether there is no more than what is owned.
    pub fn is_all_there_is(&self) -> bool {
        self.short || self.refused_bytes > 0
    }

    /// Has the file own its first so many pages, and as many more as it is to own ahead, as far as
    /// they are to be had. Says whether it owns the first ones.
    pub fn own(&mut self, file: &File, pages: u64) -> bool {
        let page_bytes = u64::from(PAGE_BYTES);
        let owned = u64::from(self.pages_max);
        let (has, mut ahead) = (pages <= owned, self.ahead());
        // A full disk is only asked again once it says that it has room: to be asked makes some
        // file systems write all that they have.
        let least = (pages + AHEAD_PAGES_MIN).saturating_sub(owned);
        if self.short && self.disk_free_bytes < least * page_bytes {
            return has;
        }
        let mut short = false;
        while pages + ahead > owned {
            let up_to = (pages + ahead).min(u64::from(PAGES_MAX));
            match allocate(file, owned * page_bytes, up_to * page_bytes) {
                Allocated::Yes => {
                    self.pages_max = u32::try_from(up_to).unwrap_or(PAGES_MAX);
                    break;
                }
                Allocated::Unknown => {
                    self.pages_max = PAGES_MAX;
                    break;
                }
                Allocated::No if ahead == 0 => {
                    self.short = true;
                    return has;
                }
                Allocated::No => (ahead, short) = (ahead / 2, true),
            }
        }
        self.short = short;
        true
    }
}

/// What came of an attempt to allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocated {
    /// The blocks are the file's.
    Yes,
    /// The disk, a quota or a limit does not give them.
    No,
    /// The file system can not tell.
    Unknown,
}

/// Allocates blocks of a file without making it longer. What is allocated already stays as it is.
pub(super) fn allocate(file: &File, from: u64, to: u64) -> Allocated {
    // Not every file system looks at the limit for what is beyond the end.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| to > limit) {
        return Allocated::No;
    }
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, from, to - from) {
            Ok(()) => return Allocated::Yes,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                return Allocated::Unknown;
            }
            Err(_) => return Allocated::No,
        }
    }
}

/// Pages that a commit of this batch may add to the file.
pub(super) fn pages_needed(batch: &Batch) -> u64 {
    pages_needed_with(batch, batch.moves())
}

/// The same with so many moves alone; the others are in the file already.
pub(super) fn pages_needed_with(batch: &Batch, moves: u64) -> u64 {
    PAGES_PER_COMMIT
        + pages_of_puts(batch)
        + pages_of_moves(batch, moves)
        + pages_of_settings(batch)
}

/// Pages that the keys and the settings of queues of this batch need.
fn pages_of_settings(batch: &Batch) -> u64 {
    2 * batch.settings_len() * KEY_BYTES / u64::from(PAGE_BYTES)
}

/// Pages that the messages of this batch need. A page that holds several is more than half full,
/// and one that holds the end of a long message holds nothing else. One that is put between others
/// may split their page.
pub(super) fn pages_of_puts(batch: &Batch) -> u64 {
    let pages = batch.put_bytes() / u64::from(PAGE_BYTES - 4);
    (2 * pages).min(pages + batch.puts()) + u64::from(batch.puts() > 0) + batch.late_puts()
}

/// Pages that so many moves of this batch need. Pages that were split are half full.
pub(super) fn pages_of_moves(batch: &Batch, moves: u64) -> u64 {
    let bytes = moves * STATE_BYTES + batch.text_bytes();
    2 * bytes / u64::from(PAGE_BYTES) + u64::from(moves > 0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::put;
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_owned_has_blocks_and_is_not_seen() {
        let file = tempfile::tempfile().unwrap();
        let mut room = Room { disk_free_bytes: u64::MAX, ..Room::default() };
        assert!(room.own(&file, 10));
        assert!(room.has(10) && room.has(10 + AHEAD_PAGES) && !room.has(11 + AHEAD_PAGES));
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 0);
        assert!(metadata.blocks() * 512 >= (10 + AHEAD_PAGES) * u64::from(PAGE_BYTES));
        assert!(!room.is_all_there_is());
    }

    #[test]
    fn more_is_owned_ahead_under_load_and_less_afterwards() {
        let mut room = Room { disk_free_bytes: u64::MAX, ..Room::default() };
        room.note_commit(10);
        assert_eq!(room.ahead(), AHEAD_PAGES);
        room.note_commit(AHEAD_PAGES);
        assert_eq!(room.ahead(), AHEAD_COMMITS * AHEAD_PAGES);
        room.note_commit(u64::from(u32::MAX));
        assert_eq!(room.ahead(), AHEAD_PAGES_MAX);
        room.disk_free_bytes = DISK_PARTS * 100 * u64::from(PAGE_BYTES);
        assert_eq!(room.ahead(), 100, "a small disk is not used up");
        room.disk_free_bytes = u64::MAX;
        (0..200).for_each(|_| room.note_commit(1));
        assert_eq!(room.ahead(), AHEAD_PAGES);
    }

    /// Full pages in the midst of a table are split.
    #[test]
    fn messages_that_come_late_need_no_more_pages_than_is_foretold() {
        let connection = crate::store::memory::connect_empty().unwrap();
        let pages = || {
            let count = connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0));
            u64::from(count.unwrap())
        };
        let mut memory = crate::store::Memory::new(&connection).unwrap();
        let mut journal = crate::journal::Journal::new();
        let others: Vec<u64> = (10..=200_000).step_by(10).collect();
        // One for some page, which is full.
        let late: Vec<u64> = (105..200_000).step_by(2_000).collect();
        for ids in [others, late] {
            ids.iter().for_each(|id| journal.record(put(*id, 1, b"short")));
            let (before, batch) = (pages(), journal.take());
            memory.apply(&batch, 0..batch.places()).unwrap();
            let (needed, foretold) = (pages() - before, pages_needed(&batch));
            assert!(needed <= foretold, "{needed} pages, {foretold} foretold, {} ids", ids.len());
            drop(batch);
            journal.succeeded();
        }
    }

    #[test]
    fn a_disk_that_has_no_more_is_not_asked_again_before_it_says_so() {
        let file = tempfile::tempfile().unwrap();
        let mut room = Room { short: true, pages_max: 5, used: 3, ..Room::default() };
        assert_eq!(room.owned_bytes(), 2 * u64::from(PAGE_BYTES));
        assert!(room.is_all_there_is());
        assert!(!room.own(&file, 6));
        room.disk_free_bytes = (1 + AHEAD_PAGES_MIN) * u64::from(PAGE_BYTES);
        assert!(room.own(&file, 6));
        assert!(!room.short && room.has(3 + AHEAD_PAGES_MIN));
        assert!(!room.is_all_there_is());
    }
}
