//! B-tree pages and their cells, as bytes that may be anything at all.

use super::record::varint;

/// What a page of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    IndexInterior,
    TableInterior,
    IndexLeaf,
    TableLeaf,
}

/// A page whose header can be one.
pub(super) struct TreePage<'a> {
    /// The page without what is reserved at its end.
    data: &'a [u8],
    /// Where its header begins: behind the file's own on the first page.
    header: usize,
    pub kind: Kind,
    pub cells: usize,
}

/// One entry of a page.
#[derive(Debug)]
pub(super) struct Cell<'a> {
    /// The page below, of an interior cell.
    pub child: u32,
    /// The row's number, of a cell of a table.
    pub id: Option<i64>,
    /// The length of the whole row; 0 when there is none in such a cell.
    pub payload_bytes: u64,
    /// The part of the row on this page.
    pub local: &'a [u8],
    /// The page on which the row goes on.
    pub overflow: Option<u32>,
    /// What the cell takes of the page.
    bytes: usize,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..)?.first_chunk::<2>()?;
    Some(usize::from(u16::from_be_bytes(*two)))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*four))
}

/// What the first page begins with.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";
/// The file's own header, on the first page.
pub(super) const FILE_HEADER_BYTES: usize = 100;
/// A cell is never shorter: its place must hold the header of a free block.
const CELL_BYTES_MIN: usize = 4;

impl<'a> TreePage<'a> {
    /// Reads the header of a page. The first page is told by what it begins with, since pages may
    /// have changed places.
    pub fn of(data: &'a [u8]) -> Option<TreePage<'a>> {
        let header = if data.starts_with(MAGIC) { FILE_HEADER_BYTES } else { 0 };
        let kind = match data.get(header)? {
            2 => Kind::IndexInterior,
            5 => Kind::TableInterior,
            10 => Kind::IndexLeaf,
            13 => Kind::TableLeaf,
            _ => return None,
        };
        let cells = u16_at(data, header + 3)?;
        let page = TreePage { data, header, kind, cells };
        (page.pointers() + 2 * cells <= data.len()).then_some(page)
    }

    /// Whether its cells are rows.
    pub fn is_leaf(&self) -> bool {
        matches!(self.kind, Kind::TableLeaf | Kind::IndexLeaf)
    }

    fn pointers(&self) -> usize {
        self.header + if self.is_leaf() { 8 } else { 12 }
    }

    /// The page below that is right of all cells, of an interior page.
    pub fn right_child(&self) -> Option<u32> {
        if self.is_leaf() { None } else { u32_at(self.data, self.header + 8) }
    }

    /// The cell of this number, when it can be one.
    pub fn cell(&self, number: usize) -> Option<Cell<'a>> {
        let at = u16_at(self.data, self.pointers() + 2 * number)?;
        if at < self.pointers() + 2 * self.cells {
            return None;
        }
        Cell::at(self.data, at, self.kind)
    }

    /// Whether cells, free blocks and fragments are all of the page: a header that names too few
    /// cells does not look like damage otherwise.
    pub fn is_whole(&self) -> bool {
        let fixed = |at| u16_at(self.data, self.header + at).unwrap_or(0);
        let content = match fixed(5) {
            0 => 65_536,
            begin => begin,
        };
        let Some(mut left) = self.data.len().checked_sub(content) else { return false };
        let fragments = self.data.get(self.header + 7).map_or(0, |bytes| usize::from(*bytes));
        let mut taken = fragments;
        for number in 0..self.cells {
            let Some(cell) = self.cell(number) else { return false };
            taken += cell.bytes.max(CELL_BYTES_MIN);
        }
        let mut block = fixed(1);
        while block != 0 {
            let (Some(next), Some(size)) = (u16_at(self.data, block), u16_at(self.data, block + 2))
            else {
                return false;
            };
            // They stand in order, so this ends.
            if size < CELL_BYTES_MIN || size > left || (next != 0 && next < block + size) {
                return false;
            }
            left -= size;
            block = next;
        }
        left == taken
    }
}

impl<'a> Cell<'a> {
    /// Reads a cell at a place of a page.
    pub fn at(data: &'a [u8], at: usize, kind: Kind) -> Option<Cell<'a>> {
        let mut rest = data.get(at..)?;
        let child = match kind {
            Kind::TableInterior | Kind::IndexInterior => {
                let child = u32_at(rest, 0)?;
                rest = &rest[4..];
                child
            }
            Kind::TableLeaf | Kind::IndexLeaf => 0,
        };
        let mut payload_bytes = 0;
        if kind != Kind::TableInterior {
            let (bytes, length) = varint(rest)?;
            payload_bytes = bytes;
            rest = &rest[length..];
        }
        let mut id = None;
        if matches!(kind, Kind::TableInterior | Kind::TableLeaf) {
            let (number, length) = varint(rest)?;
            id = Some(number.cast_signed());
            rest = &rest[length..];
        }
        let begin = data.len() - at - rest.len();
        let local_bytes = local_bytes(data.len(), kind, payload_bytes);
        let local = rest.get(..local_bytes)?;
        let overflows = payload_bytes > local_bytes as u64;
        let overflow = if overflows { Some(u32_at(rest, local_bytes)?) } else { None };
        let bytes = begin + local_bytes + if overflows { 4 } else { 0 };
        Some(Cell { child, id, payload_bytes, local, overflow, bytes })
    }
}

/// How much of a row stands on the page itself.
fn local_bytes(usable: usize, kind: Kind, payload_bytes: u64) -> usize {
    if usable < 480 {
        return usize::MAX;
    }
    let max = match kind {
        Kind::TableLeaf => usable - 35,
        _ => (usable - 12) * 64 / 255 - 23,
    };
    let min = (usable - 12) * 32 / 255 - 23;
    match usize::try_from(payload_bytes) {
        Ok(all) if all <= max => all,
        Ok(all) => {
            let kept = min + (all - min) % (usable - 4);
            if kept <= max { kept } else { min }
        }
        Err(_) => usize::MAX,
    }
}
