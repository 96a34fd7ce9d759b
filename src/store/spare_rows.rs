//! Rows of no use but their size, in the database file itself: room for moving messages on a full
//! disk.
//!
//! To remove a message gives room, to release, bury or kick one takes some: a row in
//! `message_state`. On a full disk that may come from these rows alone, for new messages do not
//! touch them and no other program can take their blocks. They grow with the number of messages.
//!
//! # Failure
//!
//! Without them fewer messages can be moved on a full disk, so a disk that has no room for them is
//! no error.

use rusqlite::{Connection, OptionalExtension as _, Result};

use super::room::STATE_BYTES;

/// What a row takes: 32 pages.
pub(super) const ROW_PAGES: u64 = 32;
const ROW_BYTES: u64 = ROW_PAGES * 8 * 1024;
/// What is taken at once, so that nobody waits for long.
const ROWS_AT_ONCE: u64 = 4;
/// 16 MiB: moves of more than 120,000 messages.
const ROWS_MAX: u64 = 64;
/// So few messages are moved in what room there always is.
const MESSAGES_FEW: u64 = 32;
/// The disk has to have that many times as much as all rows that are wanted.
const DISK_FREE_TIMES: u64 = 4;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS reserve(id INTEGER PRIMARY KEY, filler BLOB NOT NULL) \
                     STRICT";
const ADD: &str = "INSERT INTO reserve(filler) VALUES (zeroblob(250000))";
const RELEASE: &str = "DELETE FROM reserve WHERE id = (SELECT max(id) FROM reserve)";

/// The rows that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SpareRows {
    pub rows: u64,
}

impl SpareRows {
    /// Counts them.
    pub fn find(connection: &Connection) -> Result<SpareRows> {
        let rows = if exists(connection)? {
            connection.query_row("SELECT count(*) FROM reserve", [], |row| row.get::<_, i64>(0))?
        } else {
            0
        };
        Ok(SpareRows { rows: u64::try_from(rows).unwrap_or(0) })
    }

    /// How many rows there should be for so many messages.
    fn wanted(messages: u64) -> u64 {
        if messages < MESSAGES_FEW {
            return 0;
        }
        (messages * STATE_BYTES).div_ceil(ROW_BYTES).min(ROWS_MAX)
    }

    /// How many rows to add now, with so much left on the disk.
    pub fn to_add(self, messages: u64, disk_free_bytes: u64) -> u64 {
        let wanted = SpareRows::wanted(messages);
        if disk_free_bytes < wanted * ROW_BYTES * DISK_FREE_TIMES {
            return 0;
        }
        wanted.saturating_sub(self.rows).min(ROWS_AT_ONCE)
    }

    /// How many rows are far too many.
    pub fn too_many(self, messages: u64) -> u64 {
        let wanted = SpareRows::wanted(messages);
        if self.rows > 2 * wanted { self.rows - wanted } else { 0 }
    }
}

/// Adds a row, within a transaction.
pub(super) fn add(connection: &Connection) -> Result<()> {
    connection.execute_batch(TABLE)?;
    connection.execute(ADD, []).map(drop)
}

/// Makes a row free pages, within a transaction.
pub(super) fn release(connection: &Connection) -> Result<()> {
    connection.execute(RELEASE, []).map(drop)
}

/// Gives the room of all rows free; for a copy in memory.
pub(super) fn forget(memory: &Connection) -> Result<()> {
    if exists(memory)? { memory.execute_batch("DROP TABLE reserve") } else { Ok(()) }
}

fn exists(connection: &Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'reserve'";
    let found = connection.query_row(sql, [], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u64 = u64::MAX;

    #[test]
    fn there_are_as_many_rows_as_messages_need_that_are_all_moved_and_no_more_than_16_mib() {
        let none = SpareRows::default();
        assert_eq!(none.to_add(0, PLENTY), 0);
        assert_eq!(none.to_add(MESSAGES_FEW, PLENTY), 1);
        assert_eq!(none.to_add(1_000_000, PLENTY), ROWS_AT_ONCE);
        assert_eq!(none.to_add(1_000_000, ROWS_MAX * ROW_BYTES), 0, "the disk is small");
        let enough = SpareRows { rows: ROWS_MAX };
        assert_eq!(enough.to_add(100_000_000, PLENTY), 0);
        assert_eq!(enough.too_many(100_000_000), 0);
        assert_eq!(enough.too_many(0), ROWS_MAX);
    }
}
