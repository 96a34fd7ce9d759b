//! Turns stored rows back into what they were made from.

use rusqlite::types::ValueRef;
use rusqlite::{Result, Row};

use super::schema::{StateColumns, state_of_number};
use crate::words::change::Counters;
use crate::words::change::{Attributes, MessageRow, MessageState, StateRow};
use crate::words::ids::{MessageId, QueueId, Sequence};

/// A row of `message` in the order `id, queue, priority, sequence, created, expires, due, ttr,
/// crc, attributes, body`.
pub(super) fn message_row(row: &Row<'_>) -> Result<MessageRow> {
    let attributes = row.get_ref(9)?.as_blob_or_null()?;
    Ok(MessageRow {
        id: MessageId(unsigned(row.get(0)?)),
        queue: QueueId(unsigned(row.get(1)?)),
        priority: small(row.get(2)?),
        sequence: Sequence(unsigned(row.get(3)?)),
        created_ms: row.get(4)?,
        expires_ms: row.get(5)?,
        due_ms: row.get(6)?,
        time_to_run_ms: unsigned(row.get(7)?),
        attributes: Attributes::from_stored(attributes.unwrap_or_default()),
        body: row.get_ref(10)?.as_blob()?.into(),
    })
}

/// The fixed columns of a row of `message_state`.
pub(super) fn state_row(columns: &StateColumns) -> StateRow {
    let value = |index: usize| columns[index].unwrap_or(0);
    StateRow {
        id: MessageId(unsigned(value(0))),
        state: state_of_number(value(1)).unwrap_or(MessageState::Ready),
        priority: small(value(2)),
        sequence: Sequence(unsigned(value(3))),
        due: columns[4],
        expires_ms: columns[5],
        delay_ms: unsigned(value(6)),
        counters: Counters {
            reserves: small(value(7)),
            timeouts: small(value(8)),
            releases: small(value(9)),
            buries: small(value(10)),
            kicks: small(value(11)),
        },
    }
}

/// The first `N` columns, when each is an integer or NULL.
pub(super) fn numbers<const N: usize>(row: &Row<'_>) -> Option<[Option<i64>; N]> {
    let mut columns = [None; N];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = match row.get_ref(index).ok()? {
            ValueRef::Integer(number) => Some(number),
            ValueRef::Null => None,
            _ => return None,
        };
    }
    Some(columns)
}

/// A stored number that is never negative.
pub(super) fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// A stored number that is never negative and was never large.
pub(super) fn small(stored: i64) -> u32 {
    u32::try_from(stored).unwrap_or(if stored < 0 { 0 } else { u32::MAX })
}
