//! What is stored: tables, row formats and checksums. A public format, described in phpmqd(8).
//!
//! ```text
//!   queue          id ─── name
//!                   ▲
//!   message        queue, priority, sequence, created, expires, due, ttr, attributes, body
//!                   ▲     one row per message: written once, deleted once
//!   message_state  id ─── state, priority, sequence, due, expires, delay, counters
//!                         only for messages that were moved after they were put; stands for the
//!                         columns of the same name in message
//!   meta           name ─ value      ids_reserved, clean_stop, message_key, clock_time,
//!                                    clock_offset, tick
//! ```
//!
//! A move never rewrites a body. There is no second index: each would cost more on every write
//! than all orders together, which are kept in memory by the engine. Every row carries the CRC-32C
//! of its other columns, since the file's structure alone does not show a flipped bit in a body.
//!
//! The checksum covers the columns in the order of the table (the body and the attributes last):
//! an integer as its 8 bytes, big-endian; NULL as the smallest integer; a text or blob as its
//! length, like an integer, and its bytes.

use rusqlite::Connection;

use crate::words::change::{MessageRow, MessageState, StateRow};

/// Marks a file as ours: "pHMQ".
pub(super) const APPLICATION_ID: u32 = 0x7048_4d51;
/// The version of the format below, which is `user_version` in the file.
pub const FORMAT_VERSION: u32 = 1;
/// Larger pages hold several messages and waste less on overflow; measured the best compromise.
pub(super) const PAGE_BYTES: u32 = 8 * 1024;

/// The tables. The body is the last column, so that the others are read without it.
const TABLES: &str = "
    CREATE TABLE meta(
        name TEXT PRIMARY KEY NOT NULL, value ANY NOT NULL, crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE queue(
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, crc INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE message(
        id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER, due INTEGER,
        ttr INTEGER NOT NULL, crc INTEGER NOT NULL, attributes BLOB, body BLOB NOT NULL
    ) STRICT;
    CREATE TABLE message_state(
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL, due INTEGER, expires INTEGER, delay INTEGER NOT NULL,
        reserves INTEGER NOT NULL, timeouts INTEGER NOT NULL, releases INTEGER NOT NULL,
        buries INTEGER NOT NULL, kicks INTEGER NOT NULL, crc INTEGER NOT NULL
    ) STRICT;
";

/// Makes the tables in an empty database that is not in WAL mode yet, so that the application id
/// and the version stand in the file's first page from the start.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; \
         {TABLES} COMMIT;"
    ))
}

/// The names of the tables that are not as [`create`] makes them. What a table says about itself is
/// run by the database library, so it is looked at before anything else.
pub(super) fn strange_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")?;
    let found = statement.query_map([], |row| Ok(one_line(row.get_ref(0)?.as_str()?)))?;
    let found = found.collect::<rusqlite::Result<Vec<String>>>()?;
    let ours = TABLES.split(';').map(one_line).filter(|sql| !sql.is_empty());
    let strange = ours.filter(|sql| !found.contains(sql));
    let name = |sql: String| sql.split([' ', '(']).nth(2).unwrap_or_default().to_owned();
    Ok(strange.map(name).collect())
}

/// Numbers that came from a peer may be larger than the database's; they are cut there.
pub(super) fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The stored number of a state; a reserved message is ready after a restart.
pub(super) fn state_number(state: MessageState) -> i64 {
    match state {
        MessageState::Ready | MessageState::Reserved => 0,
        MessageState::Delayed => 1,
        MessageState::Buried => 2,
    }
}

/// The state of a stored number.
pub(super) fn state_of_number(number: i64) -> Option<MessageState> {
    match number {
        0 => Some(MessageState::Ready),
        1 => Some(MessageState::Delayed),
        2 => Some(MessageState::Buried),
        _ => None,
    }
}

/// The fixed columns of a `message` row, without its crc, as they are stored.
pub(super) type MessageColumns = [Option<i64>; 8];
/// The columns of a `message_state` row, without its crc, as they are stored.
pub(super) type StateColumns = [Option<i64>; 12];

/// What is stored of a message beside attributes, body and checksum.
pub(super) fn message_columns(row: &MessageRow) -> MessageColumns {
    [
        Some(stored(row.id.0)),
        Some(stored(row.queue.0)),
        Some(i64::from(row.priority)),
        Some(stored(row.sequence.0)),
        Some(row.created_ms),
        row.expires_ms,
        row.due_ms,
        Some(stored(row.time_to_run_ms)),
    ]
}

/// What is stored of a state beside the checksum.
pub(super) fn state_columns(row: &StateRow) -> StateColumns {
    [
        Some(stored(row.id.0)),
        Some(state_number(row.state)),
        Some(i64::from(row.priority)),
        Some(stored(row.sequence.0)),
        row.due,
        row.expires_ms,
        Some(stored(row.delay_ms)),
        Some(i64::from(row.counters.reserves)),
        Some(i64::from(row.counters.timeouts)),
        Some(i64::from(row.counters.releases)),
        Some(i64::from(row.counters.buries)),
        Some(i64::from(row.counters.kicks)),
    ]
}

/// The checksum of integer columns followed by blob columns (`None` is NULL).
pub(super) fn checksum<const N: usize>(columns: &[Option<i64>; N], blobs: &[Option<&[u8]>]) -> i64 {
    const NUMBER_BYTES: usize = size_of::<i64>();
    // One buffer for all numbers: a call per number costs more than the checksum itself.
    let mut bytes = [0_u8; 12 * NUMBER_BYTES];
    const { assert!(N <= 12) };
    for (place, column) in bytes.chunks_exact_mut(NUMBER_BYTES).zip(columns) {
        place.copy_from_slice(&column.unwrap_or(i64::MIN).to_be_bytes());
    }
    let mut crc = crc32c::crc32c(&bytes[..N * NUMBER_BYTES]);
    for blob in blobs {
        let length = blob.map_or(i64::MIN, |blob| stored(blob.len() as u64));
        crc = crc32c::crc32c_append(crc, &length.to_be_bytes());
        crc = crc32c::crc32c_append(crc, blob.unwrap_or_default());
    }
    i64::from(crc)
}

/// The checksum of a `queue` row.
pub(super) fn queue_checksum(id: i64, name: &str) -> i64 {
    checksum(&[Some(id)], &[Some(name.as_bytes())])
}

/// The checksum of a `meta` row that holds a number.
pub(super) fn number_checksum(name: &str, value: i64) -> i64 {
    checksum(&[Some(value)], &[Some(name.as_bytes())])
}

/// The checksum of a `meta` row that holds bytes.
pub(super) fn bytes_checksum(name: &str, value: &[u8]) -> i64 {
    checksum(&[], &[Some(name.as_bytes()), Some(value)])
}

/// The rows of `meta`.
pub(super) mod setting {
    /// Ids below this one may have been handed out.
    pub const IDS_RESERVED: &str = "ids_reserved";
    /// The first id never handed out when the last stop was an orderly one, else 0.
    pub const CLEAN_STOP: &str = "clean_stop";
    /// The random secret of this database. Its name in the file is older than its other uses.
    pub const SECRET: &str = "message_key";
    /// A moment of the daemon's scale that was, and what the wall clock was from it then: all other
    /// moments in the database are of that scale. Files without them have wall time in both.
    pub const CLOCK_TIME: &str = "clock_time";
    /// See above. May be negative.
    pub const CLOCK_OFFSET: &str = "clock_offset";
    /// Which write-ahead log the file needs, and which one is included.
    pub const LOG: &str = "log";
    /// Written to have something to fsync when earlier commits went without.
    pub const TICK: &str = "tick";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::ids::MessageId;

    #[test]
    fn the_checksum_depends_on_every_column() {
        let row =
            MessageRow { id: MessageId(1), body: b"ab".to_vec().into(), ..MessageRow::default() };
        let columns = message_columns(&row);
        let sum = checksum(&columns, &[None, Some(b"ab")]);
        for index in 0..columns.len() {
            let mut other = columns;
            other[index] = Some(other[index].unwrap_or(0) + 1);
            assert_ne!(checksum(&other, &[None, Some(b"ab")]), sum, "column {index}");
        }
        assert_ne!(checksum(&columns, &[None, Some(b"ac")]), sum);
        assert_ne!(checksum(&columns, &[Some(b""), Some(b"ab")]), sum);
        assert_ne!(checksum(&columns, &[Some(b"a"), Some(b"b")]), sum);
    }

    /// The values that phpmqd(8) gives for others to check their programs with.
    #[test]
    fn checksums_are_those_of_the_documented_format() {
        assert_eq!(
            queue_checksum(1, "mail"),
            i64::from(crc32c::crc32c(b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x04mail"))
        );
        assert_eq!(
            number_checksum("tick", 5),
            i64::from(crc32c::crc32c(b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04tick"))
        );
    }

    #[test]
    fn numbers_too_large_for_the_database_are_cut() {
        assert_eq!(stored(u64::MAX), i64::MAX);
        assert_eq!(stored(7), 7);
    }

    #[test]
    fn states_come_back_as_stored_and_reserved_ones_as_ready() {
        for state in [MessageState::Ready, MessageState::Delayed, MessageState::Buried] {
            assert_eq!(state_of_number(state_number(state)), Some(state));
        }
        assert_eq!(
            state_of_number(state_number(MessageState::Reserved)),
            Some(MessageState::Ready)
        );
        assert_eq!(state_of_number(3), None);
    }
}
