//! What is stored: tables, row formats and checksums. A public format, described in phpmqd(8).
//!
//! ```text
//!   queue          id ─── name
//!                   ▲
//!   message        queue, priority, sequence, created, expires, due, ttr, attributes, body
//!                   ▲     one row per message: written once, deleted once
//!   message_state  id ─── queue, state, priority, sequence, due, expires, delay, counters,
//!                         attempts, origin, last return
//!                         only for messages that were moved after they were put; stands for the
//!                         columns of the same name in message
//!   key            queue, key ─── message, how long it is taken
//!   binding        id ─── pattern, queue, filter
//!   queue_setting  queue ─── what an operator has set
//!   meta           name ─ value      ids_reserved, clean_stop, message_key, clock_time,
//!                                    clock_offset, log, tick
//! ```
//!
//! A move never rewrites a body, also not one to another queue. There is no second index: each would
//! cost more on every write than all orders together, which are kept in memory by the engine. Every
//! row carries the CRC-32C of its other columns, since the file's structure alone does not show a
//! flipped bit in a body.
//!
//! The checksum covers the integers in the order of the table, then texts and blobs: an integer as
//! its 8 bytes, big-endian; NULL as the smallest integer; a text or blob as its length, like an
//! integer, and its bytes.
//!
//! Format 1 had other states of messages and not the last three tables: `format_1.rs`.

use rusqlite::Connection;

use super::format_1;
use crate::words::cause::Cause;
use crate::words::change::{
    BindingRow, KeyUntil, MessageRow, MessageState, OriginRow, SettingRow, StateRow,
};
use crate::words::ids::{MessageId, QueueId};

/// Marks a file as ours: "pHMQ".
pub(super) const APPLICATION_ID: u32 = 0x7048_4d51;
/// The version of the format below, which is `user_version` in the file.
pub const FORMAT_VERSION: u32 = 2;
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
";

/// What [`TABLES`] lacks of format 2, with the tables that only that has.
const TABLES_2: &str = "
    CREATE TABLE message_state(
        id INTEGER PRIMARY KEY, queue INTEGER, state INTEGER NOT NULL, priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL, due INTEGER, expires INTEGER, delay INTEGER NOT NULL,
        reserves INTEGER NOT NULL, timeouts INTEGER NOT NULL, releases INTEGER NOT NULL,
        buries INTEGER NOT NULL, kicks INTEGER NOT NULL, attempts INTEGER NOT NULL,
        origin INTEGER, origin_sequence INTEGER, origin_place INTEGER, origin_expires INTEGER,
        cause INTEGER, returned INTEGER, crc INTEGER NOT NULL, text TEXT
    ) STRICT;
    CREATE TABLE key(
        queue INTEGER NOT NULL, key BLOB NOT NULL, message INTEGER, ends INTEGER NOT NULL,
        until INTEGER, crc INTEGER NOT NULL, PRIMARY KEY(queue, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE binding(
        id INTEGER PRIMARY KEY, pattern TEXT NOT NULL, queue INTEGER NOT NULL,
        crc INTEGER NOT NULL, filter BLOB
    ) STRICT;
    CREATE TABLE queue_setting(
        queue INTEGER PRIMARY KEY, paused INTEGER NOT NULL, high INTEGER NOT NULL,
        normal INTEGER NOT NULL, low INTEGER NOT NULL, crc INTEGER NOT NULL
    ) STRICT;
";

/// Makes the tables in an empty database that is not in WAL mode yet, so that the application id
/// and the version stand in the file's first page from the start.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute_batch(&format!("BEGIN; PRAGMA application_id = {APPLICATION_ID}; {TABLES}"))?;
    create_format_2(connection)?;
    connection.execute_batch("COMMIT")
}

/// Makes what format 2 has beside the tables of all formats, within a transaction.
pub(super) fn create_format_2(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("{TABLES_2} PRAGMA user_version = {FORMAT_VERSION};"))
}

/// The names of the tables that are not as that format has them. What a table says about itself is
/// run by the database library, so it is looked at before anything else.
pub(super) fn strange_tables(
    connection: &Connection,
    version: u32,
) -> rusqlite::Result<Vec<String>> {
    let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")?;
    let found = statement.query_map([], |row| Ok(one_line(row.get_ref(0)?.as_str()?)))?;
    let found = found.collect::<rusqlite::Result<Vec<String>>>()?;
    let rest = if version == format_1::VERSION { format_1::TABLES } else { TABLES_2 };
    let ours = TABLES.split(';').chain(rest.split(';')).map(one_line).filter(|sql| !sql.is_empty());
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

/// The stored number of a cause.
pub(super) fn cause_number(cause: Cause) -> i64 {
    match cause {
        Cause::Released { .. } => 0,
        Cause::Failed => 1,
        Cause::Rejected => 2,
        Cause::TimedOut => 3,
        Cause::AckTimeout => 4,
        Cause::ConnectionLost => 5,
        Cause::SubscriptionEnded => 6,
        Cause::Kicked => 7,
        Cause::Due => 8,
    }
}

/// The cause of a stored number, without what was asked for with a release.
pub(super) fn cause_of_number(number: i64) -> Option<Cause> {
    let causes = [
        Cause::Released { priority: None, delay_ms: 0 },
        Cause::Failed,
        Cause::Rejected,
        Cause::TimedOut,
        Cause::AckTimeout,
        Cause::ConnectionLost,
        Cause::SubscriptionEnded,
        Cause::Kicked,
        Cause::Due,
    ];
    causes.into_iter().find(|cause| cause_number(*cause) == number)
}

/// The fixed columns of a `message` row, without its crc, as they are stored.
pub(super) type MessageColumns = [Option<i64>; 8];
/// The integer columns of a `message_state` row, without its crc, as they are stored.
pub(super) type StateColumns = [Option<i64>; 20];

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

/// The number of columns of a `message_state` row.
pub(super) const STATE_COLUMNS: usize = 22;

/// What is stored of a state beside the checksum and the text.
pub(super) fn state_columns(row: &StateRow) -> StateColumns {
    let failure = row.failure.as_deref();
    let origin: Option<OriginRow> = failure.and_then(|failure| failure.origin);
    let cause = failure.and_then(|failure| failure.cause);
    [
        Some(stored(row.id.0)),
        row.queue.map(|queue| stored(queue.0)),
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
        Some(failure.map_or(0, |failure| i64::from(failure.attempts))),
        origin.map(|origin| stored(origin.queue.0)),
        origin.map(|origin| stored(origin.sequence.0)),
        origin.map(|origin| stored(origin.burial)),
        origin.and_then(|origin| origin.life_left_ms),
        cause.map(cause_number),
        failure.and_then(|failure| failure.returned_ms),
    ]
}

/// What was said about the last return of a message.
pub(super) fn state_text(row: &StateRow) -> Option<&str> {
    row.failure.as_deref()?.text.as_deref()
}

/// The integer columns of a `key` row but its crc: queue, message, ends, until.
pub(super) fn key_columns(
    queue: QueueId,
    message: Option<MessageId>,
    until: KeyUntil,
) -> [Option<i64>; 4] {
    let (ends, until) = match until {
        KeyUntil::Taken => (0, None),
        KeyUntil::Done => (1, None),
        KeyUntil::Moment(moment) => (2, Some(moment)),
    };
    [Some(stored(queue.0)), message.map(|id| stored(id.0)), Some(ends), until]
}

/// How long a key is taken, of these stored numbers.
pub(super) fn key_until(ends: i64, until: Option<i64>) -> Option<KeyUntil> {
    match (ends, until) {
        (0, None) => Some(KeyUntil::Taken),
        (1, None) => Some(KeyUntil::Done),
        (2, Some(moment)) => Some(KeyUntil::Moment(moment)),
        _ => None,
    }
}

/// The checksum of a `key` row.
pub(super) fn key_checksum(columns: &[Option<i64>; 4], key: &[u8]) -> i64 {
    checksum(columns, &[Some(key)])
}

/// The columns of a `queue_setting` row but its crc: queue, paused, high, normal, low.
pub(super) fn setting_columns(row: &SettingRow) -> [Option<i64>; 5] {
    let limits = [row.limits.high, row.limits.normal, row.limits.low].map(i64::from).map(Some);
    let [high, normal, low] = limits;
    [Some(stored(row.queue.0)), Some(i64::from(row.paused)), high, normal, low]
}

/// The checksum of a `binding` row.
pub(super) fn binding_checksum(row: &BindingRow) -> i64 {
    let columns = [Some(stored(row.id)), Some(stored(row.queue.0))];
    checksum(&columns, &[Some(row.pattern.as_bytes()), row.filter.as_deref()])
}

/// The checksum of integer columns followed by blob columns (`None` is NULL).
pub(super) fn checksum<const N: usize>(columns: &[Option<i64>; N], blobs: &[Option<&[u8]>]) -> i64 {
    const NUMBER_BYTES: usize = size_of::<i64>();
    const COLUMNS_MAX: usize = size_of::<StateColumns>() / size_of::<Option<i64>>();
    // One buffer for all numbers: a call per number costs more than the checksum itself.
    let mut bytes = [0_u8; COLUMNS_MAX * NUMBER_BYTES];
    const { assert!(N <= COLUMNS_MAX) };
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

    /// They are part of the format: no new cause may change one.
    #[test]
    fn causes_have_the_documented_numbers() {
        let words: Vec<&str> = (0..9).map(|n| cause_of_number(n).unwrap().word()).collect();
        let expected = [
            "released",
            "failed",
            "rejected",
            "timed out",
            "ack_timeout",
            "connection lost",
            "subscription ended",
            "kicked",
            "due",
        ];
        assert_eq!(words, expected);
        assert_eq!(cause_of_number(9), None);
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
