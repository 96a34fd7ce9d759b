//! Reads what the engine is built from out of the database in memory, whose rows were checked.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;
use super::check;
use super::rows::{key_row, setting_row, small, state_row, unsigned};
use crate::words::change::{KeyRow, SettingRow, StoredMessage};
use crate::words::ids::{MessageId, QueueId, Sequence};

/// A row that the engine is built from.
pub enum Stored<'a> {
    /// A queue, with its name.
    Queue(QueueId, &'a str),
    /// What an operator has set of a queue.
    Setting(SettingRow),
    /// A message.
    Message(&'a StoredMessage),
    /// A key that is taken.
    Key(KeyRow),
}

/// Reads what the engine is built from: the queues, what is set of them, all messages by id, and the
/// keys.
///
/// # Errors
/// [`StoreError::Internal`]: the rows have been checked by [`open`](super::open) already.
pub fn scan(memory: &Connection, mut take: impl FnMut(Stored<'_>)) -> Result<(), StoreError> {
    let mut scan = || {
        let mut statement = memory.prepare("SELECT id, name FROM queue ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(Stored::Queue(QueueId(unsigned(row.get(0)?)), row.get_ref(1)?.as_str()?));
        }
        let mut statement = memory.prepare(check::SETTINGS)?;
        let rows = statement.query_map([], |row| Ok(setting_row(row)))?;
        for row in rows {
            row?.into_iter().for_each(|row| take(Stored::Setting(row)));
        }
        scan_messages(memory, &mut take)?;
        let mut statement = memory.prepare(check::KEYS)?;
        let rows = statement.query_map([], |row| Ok(key_row(row)))?;
        for row in rows {
            row?.into_iter().for_each(|row| take(Stored::Key(row)));
        }
        Ok(())
    };
    scan().map_err(|source| StoreError::Internal { file: Path::new(":memory:").into(), source })
}

fn scan_messages(memory: &Connection, take: &mut impl FnMut(Stored<'_>)) -> rusqlite::Result<()> {
    // The length of a body is known without reading it.
    let mut statement = memory.prepare(
        "SELECT id, queue, priority, sequence, created, expires, due, ttr, length(body) \
         FROM message ORDER BY id",
    )?;
    let mut states = memory.prepare(check::STATES)?;
    let mut states = states.query_map([], |row| Ok(state_row(row)))?;
    let mut next_state = states.next().transpose()?.flatten();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = MessageId(unsigned(row.get(0)?));
        let mut moved = None;
        if next_state.as_ref().is_some_and(|state| state.id == id) {
            moved = std::mem::replace(&mut next_state, states.next().transpose()?.flatten());
        }
        take(Stored::Message(&StoredMessage {
            id,
            queue: QueueId(unsigned(row.get(1)?)),
            priority: small(row.get(2)?),
            sequence: Sequence(unsigned(row.get(3)?)),
            created_ms: row.get(4)?,
            expires_ms: row.get(5)?,
            due_ms: row.get(6)?,
            time_to_run_ms: unsigned(row.get(7)?),
            body_bytes: unsigned(row.get(8)?),
            moved,
        }));
    }
    Ok(())
}
