//! Which of our rows some bytes are, if any: by their shape, and by the checksum over them.

use std::str;

use rusqlite::types::ValueRef;

use super::record::{Header, Stored};
use crate::store::check::Setting;
use crate::store::format_1;
use crate::store::rows::{key_of, setting_of, small, state_of, unsigned};
use crate::store::schema::{
    STATE_COLUMNS, StateColumns, binding_checksum, bytes_checksum, checksum, key_checksum,
    number_checksum, queue_checksum,
};
use crate::words::change::{Attributes, BindingRow, KeyRow, MessageRow, SettingRow, StateRow};
use crate::words::ids::{MessageId, QueueId, QueueName, Sequence};

/// What a tree holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum Table {
    Message,
    State,
    Queue,
    Meta,
    Key,
    QueueSetting,
    Binding,
    Quarantine,
    /// The names and roots of all others.
    Schema,
    /// Somebody else's: only its pages are of interest.
    Other,
}

/// A row of ours whose checksum is right.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum SoundRow {
    Message(MessageRow),
    State(StateRow),
    Queue { id: i64, name: String },
    Setting { name: String, value: Setting },
    Key(KeyRow),
    QueueSetting(SettingRow),
    Binding(BindingRow),
}

/// Where a row was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Found {
    /// In its tree: it is one of those that the database has.
    InTree,
    /// In the log behind a damaged frame: newer than what the trees have.
    Newer,
    /// On a page that no tree reaches: it may have been deleted since.
    Outside,
}

impl Table {
    /// The tables whose rows have checksums.
    pub const OURS: [Table; 7] = [
        Table::Message,
        Table::State,
        Table::Queue,
        Table::Meta,
        Table::Key,
        Table::QueueSetting,
        Table::Binding,
    ];

    /// The table of this name.
    pub fn named(name: &[u8]) -> Table {
        match name {
            b"message" => Table::Message,
            b"message_state" => Table::State,
            b"queue" => Table::Queue,
            b"meta" => Table::Meta,
            b"key" => Table::Key,
            b"queue_setting" => Table::QueueSetting,
            b"binding" => Table::Binding,
            b"quarantine" => Table::Quarantine,
            _ => Table::Other,
        }
    }

    /// The table that a row can be of, by the way in which its columns are stored.
    pub(super) fn of_shape(id: Option<i64>, header: &Header) -> Option<Table> {
        use Stored::{Blob, Integer, Null, Text};
        let mut columns = [Null; STATE_COLUMNS];
        let mut count = 0;
        for (index, column) in header.columns().enumerate() {
            *columns.get_mut(index)? = column;
            count = index + 1;
        }
        let columns = &columns[..count];
        let number_or_null = |column: &Stored| matches!(column, Null | Integer);
        // The first column is the row's number, which stands outside of it.
        match (id, columns) {
            (Some(_), [Null, numbers @ .., Null | Blob, Blob]) if count == 11 => {
                numbers.iter().all(number_or_null).then_some(Table::Message)
            }
            (Some(_), [Null, numbers @ ..]) if count == format_1::STATE_COLUMNS => {
                numbers.iter().all(number_or_null).then_some(Table::State)
            }
            (Some(_), [Null, numbers @ .., Null | Text]) if count == STATE_COLUMNS => {
                numbers.iter().all(number_or_null).then_some(Table::State)
            }
            (Some(_), [Null, Integer, Integer, Integer, Integer, Integer]) => {
                Some(Table::QueueSetting)
            }
            (Some(_), [Null, Text, Integer, Integer, Null | Blob]) => Some(Table::Binding),
            (None, [Integer, Blob, Null | Integer, Integer, Null | Integer, Integer]) => {
                Some(Table::Key)
            }
            (Some(_), [Null, Text, Integer]) => Some(Table::Queue),
            (None, [Text, Integer | Blob, Integer]) => Some(Table::Meta),
            _ => None,
        }
    }
}

impl SoundRow {
    /// The table that it is of.
    pub fn table(&self) -> Table {
        match self {
            SoundRow::Message(_) => Table::Message,
            SoundRow::State(_) => Table::State,
            SoundRow::Queue { .. } => Table::Queue,
            SoundRow::Setting { .. } => Table::Meta,
            SoundRow::Key(_) => Table::Key,
            SoundRow::QueueSetting(_) => Table::QueueSetting,
            SoundRow::Binding(_) => Table::Binding,
        }
    }

    /// The row that these values of a shape are, when their checksum is right.
    pub fn of(table: Table, id: Option<i64>, values: &[ValueRef<'_>]) -> Option<SoundRow> {
        match table {
            Table::Message => message(id?, values),
            Table::State => state(id?, values),
            Table::Queue => queue(id?, values),
            Table::Meta => setting(values),
            Table::Key => key(values),
            Table::QueueSetting => queue_setting(id?, values),
            Table::Binding => binding(id?, values),
            Table::Quarantine | Table::Schema | Table::Other => None,
        }
    }
}

fn number(value: &ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(*number),
        _ => None,
    }
}

fn columns<const N: usize>(id: i64, values: &[ValueRef<'_>]) -> [Option<i64>; N] {
    let mut columns = [None; N];
    for (column, value) in columns.iter_mut().zip(values) {
        *column = number(value);
    }
    columns[0] = Some(id);
    columns
}

fn message(id: i64, values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let columns: [Option<i64>; 8] = columns(id, values);
    let [.., crc, attributes, ValueRef::Blob(body)] = values else { return None };
    let attributes = match attributes {
        ValueRef::Blob(bytes) => Some(*bytes),
        _ => None,
    };
    let is_sound = number(crc) == Some(checksum(&columns, &[attributes, Some(body)]));
    let queue = columns[1].filter(|queue| *queue > 0 && is_sound && id > 0)?;
    let value = |index: usize| columns[index].unwrap_or_default();
    Some(SoundRow::Message(MessageRow {
        id: MessageId(unsigned(id)),
        queue: QueueId(unsigned(queue)),
        priority: small(value(2)),
        sequence: Sequence(unsigned(value(3))),
        created_ms: value(4),
        expires_ms: columns[5],
        due_ms: columns[6],
        time_to_run_ms: unsigned(value(7)),
        attributes: Attributes::from_stored(attributes.unwrap_or_default()),
        body: (*body).into(),
    }))
}

fn state(id: i64, values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let row = if values.len() == format_1::STATE_COLUMNS {
        let columns = columns(id, values);
        let is_sound = number(values.last()?) == Some(checksum(&columns, &[]));
        format_1::state(&columns).filter(|_| is_sound)?
    } else {
        let columns: StateColumns = columns(id, values);
        let text = match values.last()? {
            ValueRef::Text(bytes) => Some(str::from_utf8(bytes).ok()?),
            _ => None,
        };
        let crc = checksum(&columns, &[text.map(str::as_bytes)]);
        let is_sound = number(values.get(columns.len())?) == Some(crc);
        state_of(&columns, text).filter(|_| is_sound)?
    };
    (id > 0).then_some(SoundRow::State(row))
}

fn key(values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let [queue, ValueRef::Blob(key), message, ends, until, crc] = values else { return None };
    let columns = [number(queue), number(message), number(ends), number(until)];
    let is_sound = number(crc) == Some(key_checksum(&columns, key));
    key_of(columns, key).filter(|_| is_sound).map(SoundRow::Key)
}

fn queue_setting(id: i64, values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let columns: [Option<i64>; 5] = columns(id, values);
    let is_sound = number(values.last()?) == Some(checksum(&columns, &[]));
    setting_of(columns).filter(|_| is_sound).map(SoundRow::QueueSetting)
}

fn binding(id: i64, values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let [_, ValueRef::Text(pattern), queue, crc, filter] = values else { return None };
    let row = BindingRow {
        id: unsigned(id),
        pattern: str::from_utf8(pattern).ok()?.to_owned(),
        queue: QueueId(unsigned(number(queue).filter(|queue| *queue > 0)?)),
        filter: match filter {
            ValueRef::Blob(bytes) => Some((*bytes).into()),
            _ => None,
        },
    };
    (number(crc) == Some(binding_checksum(&row))).then_some(SoundRow::Binding(row))
}

fn queue(id: i64, values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let [_, ValueRef::Text(name), crc] = values else { return None };
    let name = str::from_utf8(name).ok()?;
    let is_sound = number(crc) == Some(queue_checksum(id, name));
    (is_sound && id > 0 && QueueName::new(name.as_bytes()).is_ok())
        .then(|| SoundRow::Queue { id, name: name.to_owned() })
}

fn setting(values: &[ValueRef<'_>]) -> Option<SoundRow> {
    let [ValueRef::Text(name), value, crc] = values else { return None };
    let name = str::from_utf8(name).ok()?;
    let (sum, value) = match value {
        ValueRef::Integer(value) => (number_checksum(name, *value), Setting::Number(*value)),
        ValueRef::Blob(value) => (bytes_checksum(name, value), Setting::Bytes(value.to_vec())),
        _ => return None,
    };
    (number(crc) == Some(sum)).then(|| SoundRow::Setting { name: name.to_owned(), value })
}
