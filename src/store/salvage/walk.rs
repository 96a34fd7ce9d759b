//! Walks the trees of a database as far as they can be followed.
//!
//! Rows are told by their checksums and not by the tree that they are found in, so pages that
//! have changed places are read all the same. What a tree names and does not hold is noted as a
//! hole with the ids that belong there.
//!
//! Invariant: no page is walked twice, so the walk ends whatever the pages say.

use rusqlite::Result;
use rusqlite::types::ValueRef;

use super::Collect;
use super::cells::{Cell, Kind, TreePage};
use super::found::{Found, SoundRow, Table};
use super::holes::{Holes, Ids};
use super::page_set::PageSet;
use super::pages::{Lookup, Pages};
use super::record::Header;
use crate::store::format_1;
use crate::store::schema::STATE_COLUMNS;

/// What has been walked so far.
pub(super) struct Walk<'p> {
    pages: &'p Pages,
    /// The pages that trees name, and those on which their rows go on.
    pub reached: PageSet,
    pub holes: Holes,
    /// Pages of our trees whose rows belong elsewhere, and what belongs there.
    misplaced: Vec<Misplaced>,
    /// Those of them whose rows no place lacks.
    pub strangers: Vec<u32>,
    /// Pages of our trees that are damaged or missing, in the order in which they were met.
    pub unreadable: Vec<u32>,
    /// The tables that the file says it has, with their roots.
    pub roots: Vec<(Table, u32)>,
    rows: Rows<'p>,
}

struct Misplaced {
    page: u32,
    table: Table,
    ids: Ids,
}

/// Reads rows, with room for one.
pub(super) struct Rows<'p> {
    pages: &'p Pages,
    payload: Vec<u8>,
    chain: Vec<u32>,
}

/// A page to be walked, and the ids that belong below it.
struct Node {
    page: u32,
    ids: Ids,
    is_root: bool,
}

impl<'p> Rows<'p> {
    pub fn new(pages: &'p Pages) -> Rows<'p> {
        Rows { pages, payload: Vec::new(), chain: Vec::new() }
    }

    /// The row of ours that a cell is, when its checksum is right.
    pub fn sound(&mut self, cell: &Cell<'_>, lookup: Lookup) -> Option<SoundRow> {
        let header = Header::of(cell.local, cell.payload_bytes)?;
        let table = Table::of_shape(cell.id, &header)?;
        let is_complete = self.pages.payload(cell, lookup, &mut self.payload, &mut self.chain);
        if is_complete { SoundRow::of(table, cell.id, &header.values(&self.payload)) } else { None }
    }
}

impl<'p> Walk<'p> {
    pub fn new(pages: &'p Pages) -> Walk<'p> {
        let mut reached = PageSet::default();
        if pages.first_page().is_some() {
            reached.insert(1);
        }
        Walk {
            pages,
            reached,
            holes: Holes::default(),
            misplaced: Vec::new(),
            strangers: Vec::new(),
            unreadable: Vec::new(),
            roots: Vec::new(),
            rows: Rows::new(pages),
        }
    }

    /// Walks a tree in the order of its rows.
    pub fn tree(&mut self, root: u32, table: Table, collect: &mut dyn Collect) -> Result<()> {
        let mut nodes = vec![Node { page: root, ids: Ids::ALL, is_root: true }];
        let mut data = Vec::new();
        while let Some(node) = nodes.pop() {
            let is_schema = table == Table::Schema && node.is_root;
            let is_new = is_schema || !self.reached.contains(node.page);
            let Some(image) = self.pages.current(node.page).filter(|_| is_new) else {
                self.is_unreadable(table, &node);
                continue;
            };
            self.reached.insert(node.page);
            self.pages.read(image, &mut data);
            let Some(page) = TreePage::of(&data) else {
                self.is_unreadable(table, &node);
                continue;
            };
            if !page.is_whole() || (page.cells == 0 && !node.is_root) {
                self.is_unreadable(table, &node);
            }
            push_children(&page, &node, &mut nodes);
            if page.kind != Kind::TableInterior {
                self.rows(&page, &node, table, collect)?;
            }
        }
        Ok(())
    }

    fn is_unreadable(&mut self, table: Table, node: &Node) {
        self.holes.add(table, node.ids);
        if table != Table::Other {
            self.unreadable.push(node.page);
        }
    }

    fn rows(
        &mut self,
        page: &TreePage<'_>,
        node: &Node,
        table: Table,
        collect: &mut dyn Collect,
    ) -> Result<()> {
        if table == Table::Other {
            self.reach_chains(page);
            return Ok(());
        }
        let is_ours = !matches!(table, Table::Schema | Table::Quarantine);
        if is_ours && self.is_misplaced(page, node) {
            self.misplaced.push(Misplaced { page: node.page, table, ids: node.ids });
            return Ok(());
        }
        let mut before = node.ids.first.saturating_sub(1);
        let mut is_anothers = false;
        for number in 0..page.cells {
            let Some(cell) = page.cell(number) else { continue };
            if is_ours && let Some(row) = self.rows.sound(&cell, Lookup::Current) {
                self.reach_chain();
                before = cell.id.unwrap_or(before);
                is_anothers |= row.table() != table;
                collect.sound(row, Found::InTree)?;
                continue;
            }
            let next = page.cell(number + 1).filter(|_| number + 1 < page.cells);
            let next = next.and_then(|cell| cell.id).filter(|next| *next > before);
            let last = next.map_or(node.ids.last, |next| next - 1);
            let gap = Ids { first: before.saturating_add(1), last };
            // An id that stands where it should is most likely the right one.
            let id = cell.id.filter(|id| gap.contain(*id));
            self.holes.add(table, id.map_or(gap, |id| Ids { first: id, last: id }));
            before = id.unwrap_or(before);
            self.other_row(&cell, table, node, collect)?;
        }
        if is_anothers {
            self.is_unreadable(table, node);
        }
        Ok(())
    }

    /// A row without a checksum, or with a wrong one.
    fn other_row(
        &mut self,
        cell: &Cell<'_>,
        table: Table,
        node: &Node,
        collect: &mut dyn Collect,
    ) -> Result<()> {
        let header = Header::of(cell.local, cell.payload_bytes);
        if let (Table::Meta | Table::Key, Some(header)) = (table, header) {
            let Rows { payload, chain, .. } = &mut self.rows;
            self.pages.payload(cell, Lookup::Current, payload, chain);
            return collect.damaged(table, 0, &header.values(payload));
        }
        let (Some(header), Some(id)) = (header, cell.id) else {
            // An index has no numbers: its rows are told by their checksums alone.
            if cell.id.is_some() && self.unreadable.last() != Some(&node.page) {
                self.unreadable.push(node.page);
            }
            return Ok(());
        };
        let Rows { payload, chain, .. } = &mut self.rows;
        let is_complete = self.pages.payload(cell, Lookup::Current, payload, chain);
        let values = header.values(payload);
        let columns: &[usize] = match table {
            Table::Message => &[11],
            Table::State => &[STATE_COLUMNS, format_1::STATE_COLUMNS],
            Table::QueueSetting | Table::Quarantine => &[6],
            Table::Binding | Table::Schema => &[5],
            _ => return Ok(()),
        };
        if !columns.contains(&values.len()) {
            if self.unreadable.last() != Some(&node.page) {
                self.unreadable.push(node.page);
            }
            return Ok(());
        }
        match table {
            Table::Schema => self.roots.extend(root_of(&values)),
            Table::Quarantine => collect.quarantined(id, &values)?,
            _ => return collect.damaged(table, id, &values),
        }
        if is_complete {
            self.reach_chain();
        }
        Ok(())
    }

    /// Pages that have changed places with each other are in their trees still: what one of them
    /// lacks is on another.
    pub fn settle_misplaced(&mut self, collect: &mut dyn Collect) -> Result<()> {
        let misplaced = std::mem::take(&mut self.misplaced);
        let mut places: Vec<Option<&Misplaced>> = misplaced.iter().map(Some).collect();
        let mut data = Vec::new();
        for stranger in &misplaced {
            let Some(image) = self.pages.current(stranger.page) else { continue };
            self.pages.read(image, &mut data);
            let Some(page) = TreePage::of(&data) else { continue };
            let ids = || (0..page.cells).filter_map(|number| page.cell(number)?.id);
            let fits = |place: &Option<&Misplaced>| {
                place.is_some_and(|place| ids().all(|id| place.ids.contain(id)))
            };
            match places.iter().position(fits).and_then(|index| places[index].take()) {
                Some(place) => {
                    let node = Node { page: stranger.page, ids: place.ids, is_root: false };
                    self.rows(&page, &node, place.table, collect)?;
                }
                None => self.strangers.push(stranger.page),
            }
        }
        for place in places.into_iter().flatten() {
            self.holes.add(place.table, place.ids);
            self.unreadable.push(place.page);
        }
        Ok(())
    }

    /// Whether a page has a sound row that belongs elsewhere: then all of it does.
    fn is_misplaced(&mut self, page: &TreePage<'_>, node: &Node) -> bool {
        (0..page.cells).filter_map(|number| page.cell(number)).any(|cell| {
            cell.id.is_some_and(|id| !node.ids.contain(id))
                && self.rows.sound(&cell, Lookup::Current).is_some()
        })
    }

    fn reach_chain(&mut self) {
        for page in &self.rows.chain {
            self.reached.insert(*page);
        }
    }

    fn reach_chains(&mut self, page: &TreePage<'_>) {
        let overflowing = |cell: &Cell<'_>| cell.overflow.is_some();
        for cell in (0..page.cells).filter_map(|number| page.cell(number)).filter(overflowing) {
            let Rows { payload, chain, .. } = &mut self.rows;
            if self.pages.payload(&cell, Lookup::Current, payload, chain) {
                self.reach_chain();
            }
        }
    }
}

/// A row of the schema: type, name, table, root, text. A view has no root.
fn root_of(values: &[ValueRef<'_>]) -> Option<(Table, u32)> {
    let [ValueRef::Text(kind), ValueRef::Text(name), _, ValueRef::Integer(root), _] = values else {
        return None;
    };
    let root = u32::try_from(*root).ok().filter(|root| *root > 1)?;
    Some((if *kind == b"table" { Table::named(name) } else { Table::Other }, root))
}

/// Puts the pages below a page on the stack, the first one on top.
fn push_children(page: &TreePage<'_>, node: &Node, nodes: &mut Vec<Node>) {
    let Some(right) = page.right_child() else { return };
    let begin = nodes.len();
    let mut first = node.ids.first;
    for number in 0..page.cells {
        let Some(cell) = page.cell(number) else { continue };
        let ids = match cell.id {
            // All that is right of a key is larger; a key that can not be one says nothing.
            Some(key) if key >= first && key <= node.ids.last => {
                let ids = Ids { first, last: key };
                first = key.saturating_add(1);
                ids
            }
            _ => node.ids,
        };
        nodes.push(Node { page: cell.child, ids, is_root: false });
    }
    nodes.push(Node { page: right, ids: Ids { first, last: node.ids.last }, is_root: false });
    nodes[begin..].reverse();
}
