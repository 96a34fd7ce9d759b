//! Turns stored rows back into what they were made from.

use rusqlite::types::ValueRef;
use rusqlite::{Result, Row};

use super::schema::{StateColumns, cause_of_number, key_until, state_of_number};
use crate::words::change::{
    Attributes, BindingRow, Counters, FailureRow, KeyRow, MessageRow, OriginRow, SettingRow,
    StateRow,
};
use crate::words::ids::{MessageId, QueueId, Sequence};
use crate::words::settings::QueueLimits;

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

/// A row of `message_state` in the order of the table, whatever its checksum is; `None` when it can
/// not be one.
pub(super) fn state_row(row: &Row<'_>) -> Option<StateRow> {
    state_of(&numbers(row)?, row.get_ref(TEXT).ok()?.as_str_or_null().ok()?)
}

/// The place of the text in a row of `message_state`, behind the checksum.
pub(super) const TEXT: usize = 21;

/// The state of these columns, if they can be one.
pub(super) fn state_of(columns: &StateColumns, text: Option<&str>) -> Option<StateRow> {
    let value = |index: usize| columns[index].unwrap_or(0);
    let queue = |number: i64| (number > 0).then(|| QueueId(unsigned(number)));
    let origin = columns[14].map(|number| {
        Some(OriginRow {
            queue: queue(number)?,
            sequence: Sequence(unsigned(columns[15]?)),
            burial: unsigned(columns[16]?),
            life_left_ms: columns[17],
        })
    });
    let failure = FailureRow {
        attempts: small(value(13)),
        cause: columns[18].and_then(cause_of_number),
        returned_ms: columns[19],
        text: text.map(Into::into),
        // One that is there in part is none.
        origin: match origin {
            None => None,
            Some(origin) => Some(origin?),
        },
    };
    Some(StateRow {
        id: MessageId(unsigned(value(0))),
        queue: match columns[1] {
            None => None,
            Some(number) => Some(queue(number)?),
        },
        state: state_of_number(columns[2]?)?,
        priority: small(value(3)),
        sequence: Sequence(unsigned(value(4))),
        due: columns[5],
        expires_ms: columns[6],
        delay_ms: unsigned(value(7)),
        counters: Counters {
            reserves: small(value(8)),
            timeouts: small(value(9)),
            releases: small(value(10)),
            buries: small(value(11)),
            kicks: small(value(12)),
        },
        failure: (failure != FailureRow::default()).then(|| Box::new(failure)),
    })
}

/// A row of `key` in the order of the table, whatever its checksum is; `None` when it can not be
/// one.
pub(super) fn key_row(row: &Row<'_>) -> Option<KeyRow> {
    let number = |index| row.get::<_, Option<i64>>(index).ok();
    key_of([number(0)?, number(2)?, number(3)?, number(4)?], row.get_ref(1).ok()?.as_blob().ok()?)
}

/// The key of these columns, if they can be one.
pub(super) fn key_of(
    [queue, message, ends, until]: [Option<i64>; 4],
    key: &[u8],
) -> Option<KeyRow> {
    Some(KeyRow {
        queue: QueueId(unsigned(queue.filter(|queue| *queue > 0)?)),
        key: key.into(),
        message: message.map(|id| MessageId(unsigned(id))),
        until: key_until(ends?, until)?,
    })
}

/// A row of `queue_setting` in the order of the table, whatever its checksum is; `None` when it can
/// not be one.
pub(super) fn setting_row(row: &Row<'_>) -> Option<SettingRow> {
    setting_of(numbers(row)?)
}

/// The settings of these columns, if they can be some.
pub(super) fn setting_of(
    [queue, paused, high, normal, low]: [Option<i64>; 5],
) -> Option<SettingRow> {
    Some(SettingRow {
        queue: QueueId(unsigned(queue.filter(|queue| *queue > 0)?)),
        paused: paused? != 0,
        limits: QueueLimits { high: small(high?), normal: small(normal?), low: small(low?) },
    })
}

/// A row of `binding` in the order of the table, whatever its checksum is; `None` when it can not be
/// one.
pub(super) fn binding_row(row: &Row<'_>) -> Option<BindingRow> {
    let queue: i64 = row.get(2).ok()?;
    Some(BindingRow {
        id: unsigned(row.get(0).ok()?),
        pattern: row.get(1).ok()?,
        queue: QueueId(unsigned(Some(queue).filter(|queue| *queue > 0)?)),
        filter: row.get_ref(4).ok()?.as_blob_or_null().ok()?.map(Into::into),
    })
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
