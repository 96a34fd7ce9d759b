//! Looks for rows on the pages that no tree reaches.
//!
//! Four kinds of pages are looked at, and of a row that comes several times the first one counts:
//!
//! 1. those in the log behind a damaged frame: they were committed;
//! 2. those that no tree reaches and that are not known to be free, and pages that have changed
//!    places with others: they were lost;
//! 3. older copies of pages, and 4. free pages: of these only rows whose ids lie where a tree has
//!    a hole, since the others were deleted or are in the trees.

use rusqlite::Result;

use super::Collect;
use super::cells::{Kind, TreePage};
use super::found::{Found, SoundRow, Table};
use super::free::Free;
use super::pages::{Image, Lookup, Pages};
use super::record::Header;
use super::walk::{Rows, Walk};

/// Which tables' rows are wanted.
pub(super) type Wanted<'a> = &'a dyn Fn(Table) -> bool;

/// The sweep over one database.
pub(super) struct Sweep<'a, 'p> {
    pub pages: &'p Pages,
    pub walk: &'a Walk<'p>,
    pub free: &'a Free,
    pub last_page: u32,
    pub wanted: Wanted<'a>,
}

/// How the rows of a page are taken.
#[derive(Clone, Copy)]
struct Way<'a> {
    lookups: &'a [Lookup],
    found: Found,
    only_holes: bool,
    /// Numbers of queues are given again after a restart, so that an old name may be another one's.
    with_queues: bool,
}

impl Sweep<'_, '_> {
    pub fn run(&self, collect: &mut dyn Collect) -> Result<()> {
        self.tail(collect)?;
        self.lost(collect)?;
        if self.walk.holes.is_empty() {
            return Ok(());
        }
        self.superseded(collect)?;
        self.free(collect)
    }

    /// What stands in the log behind a damaged frame.
    pub fn tail(&self, collect: &mut dyn Collect) -> Result<()> {
        let way = Way {
            lookups: &[Lookup::Tail, Lookup::AnyTail, Lookup::Current, Lookup::File],
            found: Found::Newer,
            only_holes: false,
            with_queues: true,
        };
        let mut seen = super::page_set::PageSet::default();
        for frame in &self.pages.log.tail {
            // The newest sound one of each page, and all that can not be compared.
            if !frame.is_sound || seen.insert(frame.page) {
                self.page(Image::Frame(frame.frame), way, collect)?;
            }
        }
        Ok(())
    }

    /// What the log has in force.
    pub fn in_force(&self, collect: &mut dyn Collect) -> Result<()> {
        let way = Way {
            lookups: &[Lookup::Current],
            found: Found::Newer,
            only_holes: false,
            with_queues: true,
        };
        for frame in self.pages.log.frames_in_force.values() {
            self.page(Image::Frame(*frame), way, collect)?;
        }
        Ok(())
    }

    fn lost(&self, collect: &mut dyn Collect) -> Result<()> {
        let way = Way {
            lookups: &[Lookup::Current, Lookup::File],
            found: Found::Outside,
            only_holes: false,
            with_queues: true,
        };
        let numbers = self.pages.numbers().take_while(|page| *page <= self.last_page);
        let lost =
            numbers.filter(|page| !self.walk.reached.contains(*page) && !self.free.contains(*page));
        for page in self.walk.strangers.iter().copied().chain(lost) {
            if let Some(image) = self.pages.current(page) {
                self.page(image, way, collect)?;
            }
        }
        Ok(())
    }

    fn superseded(&self, collect: &mut dyn Collect) -> Result<()> {
        for image in self.pages.superseded() {
            let lookups: &[Lookup] = match image {
                Image::File(_) => &[Lookup::File, Lookup::Current],
                Image::Frame(_) => &[Lookup::Current, Lookup::File],
            };
            let way = Way { lookups, found: Found::Outside, only_holes: true, with_queues: true };
            self.page(image, way, collect)?;
        }
        Ok(())
    }

    fn free(&self, collect: &mut dyn Collect) -> Result<()> {
        let way = Way {
            lookups: &[Lookup::Current],
            found: Found::Outside,
            only_holes: true,
            with_queues: false,
        };
        let free = self.pages.numbers().filter(|page| {
            let is_beyond = *page > self.last_page;
            !self.walk.reached.contains(*page) && (is_beyond || self.free.contains(*page))
        });
        for page in free {
            if let Some(image) = self.pages.current(page) {
                self.page(image, way, collect)?;
            }
        }
        Ok(())
    }

    fn page(&self, image: Image, way: Way<'_>, collect: &mut dyn Collect) -> Result<()> {
        let mut data = Vec::new();
        self.pages.read(image, &mut data);
        let Some(page) = TreePage::of(&data) else { return Ok(()) };
        if page.kind == Kind::TableInterior {
            return Ok(());
        }
        let mut rows = Rows::new(self.pages);
        for cell in (0..page.cells).filter_map(|number| page.cell(number)) {
            let Some(table) = Header::of(cell.local, cell.payload_bytes)
                .and_then(|header| Table::of_shape(cell.id, &header))
            else {
                continue;
            };
            let is_wanted = (self.wanted)(table)
                && (way.with_queues || table != Table::Queue)
                && (!way.only_holes || self.walk.holes.contain(table, cell.id));
            if !is_wanted {
                continue;
            }
            let found: Option<SoundRow> =
                way.lookups.iter().find_map(|lookup| rows.sound(&cell, *lookup));
            if let Some(row) = found {
                collect.sound(row, way.found)?;
            }
        }
        Ok(())
    }
}
