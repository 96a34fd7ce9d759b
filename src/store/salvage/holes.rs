//! What the trees lack: the ids of rows that stood where a page is damaged.

use super::found::Table;

/// Ids from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ids {
    pub first: i64,
    pub last: i64,
}

impl Ids {
    pub const ALL: Ids = Ids { first: i64::MIN, last: i64::MAX };

    pub fn contain(&self, id: i64) -> bool {
        self.first <= id && id <= self.last
    }
}

/// The gaps of each table.
#[derive(Debug, Default)]
pub(super) struct Holes([Vec<Ids>; Table::OURS.len()]);

impl Holes {
    fn place(table: Table) -> Option<usize> {
        Table::OURS.iter().position(|ours| *ours == table)
    }

    fn known(&self, table: Table) -> Option<&Vec<Ids>> {
        Some(&self.0[Holes::place(table)?])
    }

    /// Notes that rows of these ids may be missing.
    pub fn add(&mut self, table: Table, ids: Ids) {
        if let Some(place) = Holes::place(table)
            && ids.first <= ids.last
        {
            self.0[place].push(ids);
        }
    }

    /// Makes them ready to be asked.
    pub fn sort(&mut self) {
        for holes in &mut self.0 {
            holes.sort_unstable();
            holes.dedup_by(|next, before| {
                let is_one = next.first <= before.last.saturating_add(1);
                if is_one {
                    before.last = before.last.max(next.last);
                }
                is_one
            });
        }
    }

    /// Whether this row may be one that a tree lacks. They have to be [sorted](Self::sort).
    pub fn contain(&self, table: Table, id: Option<i64>) -> bool {
        let Some(holes) = self.known(table) else { return false };
        // The rows of an index have no numbers.
        let Some(id) = id else { return !holes.is_empty() };
        let before = holes.partition_point(|hole| hole.first <= id);
        before.checked_sub(1).is_some_and(|index| holes[index].contain(id))
    }

    /// Whether a table lacks nothing, as far as its tree shows.
    pub fn are_none(&self, table: Table) -> bool {
        self.known(table).is_none_or(Vec::is_empty)
    }

    /// Whether nothing is lacking anywhere.
    pub fn is_empty(&self) -> bool {
        Table::OURS.into_iter().all(|table| self.are_none(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_touch_are_one_and_ids_between_are_in_none() {
        let mut holes = Holes::default();
        assert!(holes.is_empty());
        for (first, last) in [(10, 20), (1, 3), (4, 5), (15, 25), (40, 40), (9, 2)] {
            holes.add(Table::Message, Ids { first, last });
        }
        holes.sort();
        assert_eq!(holes.known(Table::Message).unwrap().len(), 3);
        let inside = |id| holes.contain(Table::Message, Some(id));
        assert!([1, 5, 10, 25, 40].into_iter().all(inside));
        assert!(![0, 6, 9, 26, 39, 41].into_iter().any(inside));
        assert!(!holes.contain(Table::State, Some(1)) && holes.are_none(Table::State));
    }
}
