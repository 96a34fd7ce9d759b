//! Reads all rows of a damaged database, page by page, without the database library: it gives up
//! where a page is not what it expects, and believes a first page that is older than the rest.
//!
//! ```text
//!   log.rs      which frames of the log are in force
//!   pages.rs    pages of file and log            cells.rs, record.rs   what is on them
//!   walk.rs     the trees, and their holes       found.rs              which row of ours that is
//!   free.rs     which pages are free             sweep.rs              pages outside of the trees
//!   ignored.rs  what the database library leaves out of a damaged log
//! ```
//!
//! A row is one of ours when it has the shape of one and the checksum over its columns is right:
//! so none is ever made up. Bodies are not searched for what looks like rows: people send files.
//!
//! # Failure
//!
//! Reading never fails, it finds less. Memory holds one page, one row, an index of the log and
//! some bits for each page, whatever the files say.

mod cells;
mod found;
mod free;
mod holes;
mod ignored;
mod log;
mod page_set;
mod pages;
mod record;
mod sweep;
mod walk;

use rusqlite::Result;
use rusqlite::types::ValueRef;

use super::StoreError;
use super::paths::Paths;
use cells::u32_at;
pub(super) use found::{Found, SoundRow, Table};
use free::Free;
pub(super) use ignored::{DamagedLog, Ignored};
pub use log::LogState;
use pages::Pages;
use sweep::{Sweep, Wanted};
use walk::Walk;

/// Takes what is found.
pub(super) trait Collect {
    /// A row whose checksum is right.
    fn sound(&mut self, row: SoundRow, found: Found) -> Result<()>;
    /// A row of a tree whose checksum is wrong.
    fn damaged(&mut self, table: Table, id: i64, values: &[ValueRef<'_>]) -> Result<()>;
    /// A row that an earlier repair has set aside.
    fn quarantined(&mut self, number: i64, values: &[ValueRef<'_>]) -> Result<()>;
}

/// The files of a damaged database.
pub(super) struct Damaged {
    pages: Pages,
}

/// What was found in its trees, to go on with.
pub(super) struct Trees<'p> {
    pages: &'p Pages,
    walk: Walk<'p>,
    free: Free,
    last_page: u32,
}

/// The roots of the first tables in every file of ours. Those of format 2 alone stand anywhere in a
/// file that was migrated: without a schema their rows are found like others that no tree reaches.
const ROOTS: [(Table, u32); 4] =
    [(Table::Meta, 2), (Table::Queue, 3), (Table::Message, 4), (Table::State, 5)];

/// What the database library lets a file lack of its size, in pages.
const PAGES_LACKING_MAX: u64 = 8;

impl Damaged {
    /// Opens the files; either may be missing.
    ///
    /// # Errors
    /// A file is there and may not be read.
    pub fn open(paths: &Paths) -> std::result::Result<Damaged, StoreError> {
        Ok(Damaged { pages: Pages::open(paths)? })
    }

    /// Opens the file alone.
    ///
    /// # Errors
    /// It is there and may not be read.
    pub fn open_without_log(paths: &Paths) -> std::result::Result<Damaged, StoreError> {
        Ok(Damaged { pages: Pages::open_without_log(paths)? })
    }

    /// How the log was found.
    pub fn log_state(&self) -> LogState {
        match (self.pages.has_log(), self.pages.log.is_damaged) {
            (false, _) => LogState::None,
            (true, false) => LogState::Sound,
            (true, true) => LogState::Damaged,
        }
    }

    /// Whether file and log are large enough for the pages that the log says there are. Nothing need
    /// be lost with the others, but the database library does not move such a log into the file.
    pub fn is_of_its_size(&self) -> bool {
        let there_can_be = u64::from(self.pages.file_pages()) + u64::from(self.pages.log.chain_end);
        u64::from(self.pages.log.pages) <= there_can_be + PAGES_LACKING_MAX
    }

    /// The application id and the version of the format that the first page names.
    pub fn identity(&self) -> Option<(u32, u32)> {
        let first = self.pages.first_page()?;
        Some((u32_at(&first, 68)?, u32_at(&first, 60)?))
    }

    /// Reads the trees.
    pub fn trees(&self, collect: &mut dyn Collect) -> Result<Trees<'_>> {
        let mut walk = Walk::new(&self.pages);
        if self.pages.first_page().is_some() {
            walk.tree(1, Table::Schema, collect)?;
        } else {
            walk.unreadable.push(1);
        }
        let mut roots = std::mem::take(&mut walk.roots);
        // Before new rows get numbers that its rows have.
        let rank = |table: Table| match table {
            Table::Quarantine => 0,
            Table::Other => 2,
            _ => 1,
        };
        for (table, root) in ROOTS {
            if !roots.iter().any(|(named, _)| *named == table) {
                roots.push((table, root));
            }
        }
        roots.sort_by_key(|(table, _)| rank(*table));
        for (table, root) in roots {
            walk.tree(root, table, collect)?;
        }
        walk.settle_misplaced(collect)?;
        walk.holes.sort();
        let last_page = self.last_page(&walk);
        let free = Free::find(&self.pages, &walk, last_page);
        Ok(Trees { pages: &self.pages, walk, free, last_page })
    }

    /// The last page of the database. Pages of the file behind the last one that the log's last
    /// commit names were given up, unless the trees say otherwise.
    fn last_page(&self, walk: &Walk<'_>) -> u32 {
        let committed = self.pages.log.pages;
        let mut behind = self.pages.numbers().filter(|page| *page > committed);
        if committed == 0 || behind.any(|page| walk.reached.contains(page)) {
            return u32::MAX;
        }
        committed
    }
}

impl Trees<'_> {
    /// Reads what the trees do not reach, of the tables that are wanted.
    pub fn strays(&self, wanted: Wanted<'_>, collect: &mut dyn Collect) -> Result<()> {
        let Trees { pages, walk, free, last_page } = self;
        Sweep { pages, walk, free, last_page: *last_page, wanted }.run(collect)
    }

    /// Pages of the trees that are damaged, missing or in the wrong place.
    pub fn unreadable(&self) -> &[u32] {
        &self.walk.unreadable
    }

    /// Whether the tree of a table is all there.
    pub fn are_whole(&self, table: Table) -> bool {
        self.walk.holes.are_none(table)
    }
}
