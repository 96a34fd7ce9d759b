//! All rows of the database in memory, in slices: where a new file comes from when the old one is
//! suspect.
//!
//! Used by the dispatcher, which goes on serving between two slices. The rows of a slice are as
//! they are at its turn; what happens later is in the journal's batches, which travel in the same
//! stream. So a batch goes into the new file before the slice of the same order:
//!
//! - what was put after the first slice comes with a batch alone, but for a message that was volatile
//!   until then: where its id is one that the slices have still to come to, it comes again with its
//!   slice, and where they are past it, with the batch alone;
//! - what is moved comes with a batch, and again with its slice if that follows;
//! - what is removed before its slice is in no slice, and what is removed after it comes with a
//!   later batch, because a journal with a suspect file records every removal.

use rusqlite::{OptionalExtension as _, Result, Statement};

use super::StoreError;
use super::memory::{Memory, failed};
use super::quarantine::{self, Quarantined};
use super::rows::{binding_row, key_row, message_row, setting_row, state_row, unsigned};
use super::schema::stored;
use crate::words::change::{BindingRow, KeyRow, MessageRow, SettingRow, StateRow};
use crate::words::ids::{QueueId, QueueName};
use crate::words::limits::WORK_PER_TURN_MAX;

/// A part of all rows.
#[derive(Debug, Default)]
pub struct Slice {
    /// Queues, by number.
    pub queues: Vec<(QueueId, QueueName)>,
    /// Messages by id, each with its state if it was moved.
    pub messages: Vec<(MessageRow, Option<StateRow>)>,
    /// What operators have set of queues.
    pub settings: Vec<SettingRow>,
    /// Keys that are taken, by queue and key.
    pub keys: Vec<KeyRow>,
    /// Bindings, by number.
    pub bindings: Vec<BindingRow>,
    /// What a repair has set aside.
    pub quarantine: Vec<Quarantined>,
    /// Whether this is the first slice of a new file.
    pub first: bool,
    /// Pages that the new file may need for all rows; with the first slice.
    pub pages: u64,
    /// Whether no slice follows.
    pub last: bool,
}

/// Goes through all rows that there were at the beginning.
#[derive(Debug)]
pub struct Slices {
    queue_cursor: u64,
    queue_last: u64,
    message_cursor: u64,
    message_last: u64,
    setting_cursor: u64,
    key_cursor: (u64, Box<[u8]>),
    binding_cursor: u64,
    /// The last row of the quarantine that is in a slice.
    quarantine_cursor: i64,
    started: bool,
}

/// The statements that read slices, which are part of [`Memory`].
pub(super) struct Reader<'c> {
    pages: Statement<'c>,
    ends: Statement<'c>,
    queues: Statement<'c>,
    messages: Statement<'c>,
    state: Statement<'c>,
    settings: Statement<'c>,
    keys: Statement<'c>,
    bindings: Statement<'c>,
    quarantine: Option<Statement<'c>>,
}

/// Rows of a slice at most.
const SLICE_ROWS_MAX: usize = WORK_PER_TURN_MAX;
/// Bytes of bodies in a slice at most, one message more.
const SLICE_BYTES_MAX: usize = 1024 * 1024;

impl Slices {
    /// Begins with the rows that there are now.
    ///
    /// # Errors
    /// [`StoreError::Internal`].
    pub fn begin(memory: &mut Memory<'_>) -> Result<Slices, StoreError> {
        let ends = memory.reader.ends.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
        let (queue_last, message_last) = ends.map_err(failed)?;
        Ok(Slices {
            queue_cursor: 0,
            queue_last: unsigned(queue_last),
            message_cursor: 0,
            message_last: unsigned(message_last),
            setting_cursor: 0,
            key_cursor: (0, Box::default()),
            binding_cursor: 0,
            quarantine_cursor: i64::MIN,
            started: false,
        })
    }

    /// The next slice.
    ///
    /// # Errors
    /// [`StoreError::Internal`].
    pub fn next_slice(&mut self, memory: &mut Memory<'_>) -> Result<Slice, StoreError> {
        self.read(&mut memory.reader).map_err(failed)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<Slice> {
        let mut slice = Slice { first: !self.started, ..Slice::default() };
        if slice.first {
            slice.pages = unsigned(reader.pages.query_row([], |row| row.get(0))?);
        }
        self.started = true;
        self.read_queues(reader, &mut slice)?;
        if slice.queues.len() < SLICE_ROWS_MAX {
            self.queue_cursor = self.queue_last;
            slice.last = self.read_messages(reader, &mut slice)?
                && self.read_settings(reader, &mut slice)?
                && self.read_keys(reader, &mut slice)?
                && self.read_bindings(reader, &mut slice)?
                && self.read_quarantine(reader, &mut slice)?;
        }
        Ok(slice)
    }

    fn read_queues(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<()> {
        let mut rows = reader.queues.query([stored(self.queue_cursor), stored(self.queue_last)])?;
        while slice.queues.len() < SLICE_ROWS_MAX
            && let Some(row) = rows.next()?
        {
            self.queue_cursor = unsigned(row.get(0)?);
            if let Ok(name) = QueueName::new(row.get_ref(1)?.as_bytes()?) {
                slice.queues.push((QueueId(self.queue_cursor), name));
            }
        }
        Ok(())
    }

    /// Says whether these were the last messages.
    fn read_messages(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<bool> {
        let mut bytes = 0;
        let Reader { messages, state, .. } = reader;
        let range = [stored(self.message_cursor), stored(self.message_last)];
        let mut rows = messages.query(range)?;
        while let Some(row) = rows.next()? {
            if slice.messages.len() >= SLICE_ROWS_MAX || bytes >= SLICE_BYTES_MAX {
                return Ok(false);
            }
            let message = message_row(row)?;
            self.message_cursor = message.id.0;
            bytes += message.body.len();
            let state = state.query_row([stored(message.id.0)], |row| Ok(state_row(row)));
            slice.messages.push((message, state.optional()?.flatten()));
        }
        Ok(true)
    }

    /// Says whether these were the last settings of queues.
    fn read_settings(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<bool> {
        let mut rows = reader.settings.query([stored(self.setting_cursor)])?;
        while let Some(row) = rows.next()? {
            if slice.settings.len() >= SLICE_ROWS_MAX {
                return Ok(false);
            }
            self.setting_cursor = unsigned(row.get(0)?);
            slice.settings.extend(setting_row(row));
        }
        Ok(true)
    }

    /// Says whether these were the last keys.
    fn read_keys(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<bool> {
        let (queue, key) = &self.key_cursor;
        let mut rows = reader.keys.query((stored(*queue), key))?;
        while let Some(row) = rows.next()? {
            if slice.keys.len() >= SLICE_ROWS_MAX {
                return Ok(false);
            }
            self.key_cursor = (unsigned(row.get(0)?), row.get_ref(1)?.as_bytes()?.into());
            slice.keys.extend(key_row(row));
        }
        Ok(true)
    }

    /// Says whether these were the last bindings.
    fn read_bindings(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<bool> {
        let mut rows = reader.bindings.query([stored(self.binding_cursor)])?;
        while let Some(row) = rows.next()? {
            if slice.bindings.len() >= SLICE_ROWS_MAX {
                return Ok(false);
            }
            self.binding_cursor = unsigned(row.get(0)?);
            slice.bindings.extend(binding_row(row));
        }
        Ok(true)
    }

    /// Says whether there is nothing more set aside than what is in the slices.
    fn read_quarantine(&mut self, reader: &mut Reader<'_>, slice: &mut Slice) -> Result<bool> {
        let Some(quarantine) = &mut reader.quarantine else { return Ok(true) };
        let mut bytes: usize = slice.messages.iter().map(|(message, _)| message.body.len()).sum();
        let mut rows = quarantine.query([self.quarantine_cursor])?;
        while let Some(row) = rows.next()? {
            if slice.quarantine.len() >= SLICE_ROWS_MAX || bytes >= SLICE_BYTES_MAX {
                return Ok(false);
            }
            let row = Quarantined::of(row)?;
            self.quarantine_cursor = row.number();
            bytes += row.bytes();
            slice.quarantine.push(row);
        }
        Ok(true)
    }
}

impl<'c> Reader<'c> {
    /// Prepares the statements.
    pub fn new(connection: &'c rusqlite::Connection) -> Result<Reader<'c>> {
        Ok(Reader {
            pages: connection.prepare(
                "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count",
            )?,
            ends: connection.prepare(
                "SELECT ifnull((SELECT max(id) FROM queue), 0), \
                 ifnull((SELECT max(id) FROM message), 0)",
            )?,
            queues: connection
                .prepare("SELECT id, name FROM queue WHERE id > ? AND id <= ? ORDER BY id")?,
            messages: connection.prepare(
                "SELECT id, queue, priority, sequence, created, expires, due, ttr, crc, \
                 attributes, body FROM message WHERE id > ? AND id <= ? ORDER BY id",
            )?,
            state: connection.prepare("SELECT * FROM message_state WHERE id = ?")?,
            settings: connection
                .prepare("SELECT * FROM queue_setting WHERE queue > ? ORDER BY queue")?,
            keys: connection
                .prepare("SELECT * FROM key WHERE (queue, key) > (?, ?) ORDER BY queue, key")?,
            bindings: connection.prepare("SELECT * FROM binding WHERE id > ? ORDER BY id")?,
            quarantine: quarantine::reader(connection),
        })
    }
}
