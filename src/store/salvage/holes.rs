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
pub(super) struct Holes {
    message: Vec<Ids>,
    state: Vec<Ids>,
    queue: Vec<Ids>,
    meta: Vec<Ids>,
}

impl Holes {
    fn of(&mut self, table: Table) -> Option<&mut Vec<Ids>> {
        match table {
            Table::Message => Some(&mut self.message),
            Table::State => Some(&mut self.state),
            Table::Queue => Some(&mut self.queue),
            Table::Meta => Some(&mut self.meta),
            Table::Quarantine | Table::Schema | Table::Other => None,
        }
    }

    /// Notes that rows of these ids may be missing.
    pub fn add(&mut self, table: Table, ids: Ids) {
        if let Some(holes) = self.of(table)
            && ids.first <= ids.last
        {
            holes.push(ids);
        }
    }

    /// Makes them ready to be asked.
    pub fn sort(&mut self) {
        for holes in [&mut self.message, &mut self.state, &mut self.queue, &mut self.meta] {
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
        let (holes, id) = match (table, id) {
            (Table::Message, Some(id)) => (&self.message, id),
            (Table::State, Some(id)) => (&self.state, id),
            (Table::Queue, Some(id)) => (&self.queue, id),
            (Table::Meta, _) => return !self.meta.is_empty(),
            _ => return false,
        };
        let before = holes.partition_point(|hole| hole.first <= id);
        before.checked_sub(1).is_some_and(|index| holes[index].contain(id))
    }

    /// Whether a table lacks nothing, as far as its tree shows.
    pub fn are_none(&self, table: Table) -> bool {
        match table {
            Table::Message => self.message.is_empty(),
            Table::State => self.state.is_empty(),
            Table::Queue => self.queue.is_empty(),
            Table::Meta => self.meta.is_empty(),
            Table::Quarantine | Table::Schema | Table::Other => true,
        }
    }

    /// Whether nothing is lacking anywhere.
    pub fn is_empty(&self) -> bool {
        [Table::Message, Table::State, Table::Queue, Table::Meta]
            .into_iter()
            .all(|table| self.are_none(table))
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
        assert_eq!(holes.message.len(), 3);
        let inside = |id| holes.contain(Table::Message, Some(id));
        assert!([1, 5, 10, 25, 40].into_iter().all(inside));
        assert!(![0, 6, 9, 26, 39, 41].into_iter().any(inside));
        assert!(!holes.contain(Table::State, Some(1)) && holes.are_none(Table::State));
    }
}
