//! The one place that carries out changes, for the database in memory and for the file alike.
//!
//! Used by the thread that owns the connection. The statements are prepared once and held: looking
//! one up costs half as much as running it.

use std::ops::Range;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, MAIN_DB, Result, Statement};
use rustc_hash::FxHashSet;

use super::schema::{
    PAGE_BYTES, binding_checksum, bytes_checksum, checksum, key_checksum, key_columns,
    message_columns, number_checksum, queue_checksum, setting, setting_columns, state_columns,
    state_text, stored,
};
use crate::journal::{Batch, Row};
use crate::words::change::{BindingRow, KeyUntil, MessageRow, SettingRow, StateRow};
use crate::words::clock::Now;
use crate::words::ids::{MessageId, QueueId};
use crate::words::limits::BODY_STREAMED_BYTES_MIN;

/// The statements that write.
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    put: Statement<'c>,
    remove: Statement<'c>,
    move_to: Statement<'c>,
    move_failed: Statement<'c>,
    forget_state: Statement<'c>,
    name_queue: Statement<'c>,
    forget_queue: Statement<'c>,
    take_key: Statement<'c>,
    free_key: Statement<'c>,
    set_queue: Statement<'c>,
    unset_queue: Statement<'c>,
    set: Statement<'c>,
    /// The messages that have a state, where they are known: most have none, and looking for it in
    /// the database would cost a removal a third of its time.
    moved: Option<FxHashSet<MessageId>>,
    /// Pages from which on the cache writes some out before the commit.
    spill_pages: u64,
}

// A row whose commit failed may be in the file after all, and then comes again: hence REPLACE,
// which costs no more on a table without another index.
const PUT: &str = "INSERT OR REPLACE INTO message(id, queue, priority, sequence, created, expires, \
                   due, ttr, crc, attributes, body) VALUES (?,?,?,?,?,?,?,?,?,?,?)";
const REMOVE: &str = "DELETE FROM message WHERE id = ?";
/// A move of a message that is where it was put and did not fail; the other columns are NULL.
const MOVE: &str = "INSERT OR REPLACE INTO message_state(id, queue, state, priority, sequence, due, \
                    expires, delay, reserves, timeouts, releases, buries, kicks, attempts, crc) \
                    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
const MOVE_FAILED: &str = "INSERT OR REPLACE INTO message_state \
                           VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
const FORGET_STATE: &str = "DELETE FROM message_state WHERE id = ?";
const NAME_QUEUE: &str = "INSERT OR REPLACE INTO queue(id, name, crc) VALUES (?,?,?)";
const FORGET_QUEUE: &str = "DELETE FROM queue WHERE id = ?";
const TAKE_KEY: &str = "INSERT OR REPLACE INTO key(queue, message, ends, until, key, crc) \
                        VALUES (?,?,?,?,?,?)";
const FREE_KEY: &str = "DELETE FROM key WHERE queue = ? AND key = ?";
const SET_QUEUE: &str = "INSERT OR REPLACE INTO queue_setting(queue, paused, high, normal, low, crc) \
                         VALUES (?,?,?,?,?,?)";
const UNSET_QUEUE: &str = "DELETE FROM queue_setting WHERE queue = ?";
const BIND: &str = "INSERT OR REPLACE INTO binding(id, pattern, queue, crc, filter) \
                    VALUES (?,?,?,?,?)";
const SET: &str = "INSERT OR REPLACE INTO meta(name, value, crc) VALUES (?,?,?)";

/// The columns of a state that stand before those of messages that failed.
const COLUMNS_OF_ALL: usize = 14;
/// Bodies from this size on are not left bound to the statement, in bytes.
const BOUND_BYTES_KEPT: usize = 64 * 1024;
/// What the cache holds beside the pages of the largest body: those of the trees, in pages.
const SPILL_PAGES_BESIDE: u64 = 256;

impl<'c> Tables<'c> {
    /// Prepares the statements.
    pub fn new(connection: &'c Connection) -> Result<Tables<'c>> {
        Ok(Tables {
            connection,
            put: connection.prepare(PUT)?,
            remove: connection.prepare(REMOVE)?,
            move_to: connection.prepare(MOVE)?,
            move_failed: connection.prepare(MOVE_FAILED)?,
            forget_state: connection.prepare(FORGET_STATE)?,
            name_queue: connection.prepare(NAME_QUEUE)?,
            forget_queue: connection.prepare(FORGET_QUEUE)?,
            take_key: connection.prepare(TAKE_KEY)?,
            free_key: connection.prepare(FREE_KEY)?,
            set_queue: connection.prepare(SET_QUEUE)?,
            unset_queue: connection.prepare(UNSET_QUEUE)?,
            set: connection.prepare(SET)?,
            moved: None,
            spill_pages: 0,
        })
    }

    /// Prepares the statements for a connection that nobody else writes through. When changes are
    /// rolled back, [`Tables::track_no_states`] has to be called.
    pub fn tracking_states(connection: &'c Connection) -> Result<Tables<'c>> {
        let mut tables = Tables::new(connection)?;
        let mut statement = connection.prepare("SELECT id FROM message_state")?;
        let ids = statement.query_map([], |row| row.get::<_, i64>(0))?;
        let moved = ids.map(|id| id.map(|id| MessageId(u64::try_from(id).unwrap_or(0))));
        tables.moved = Some(moved.collect::<Result<_>>()?);
        Ok(tables)
    }

    /// Which messages have a state is not known any more: from now on each removal looks.
    pub fn track_no_states(&mut self) {
        self.moved = None;
    }

    /// Carries out what these places of a batch say. Queues are named with the first place and
    /// gone with the last.
    pub fn apply_part(&mut self, batch: &Batch, places: Range<usize>) -> Result<()> {
        if places.start == 0 {
            self.name_queues(batch)?;
        }
        self.apply_rows(batch.part(places.clone()))?;
        if places.end >= batch.places() {
            self.free_keys(batch)?;
            self.take_keys(batch)?;
            self.set_queues(batch)?;
            self.forget_queues(batch)?;
        }
        Ok(())
    }

    /// Carries out what operators have set of queues.
    pub fn set_queues(&mut self, batch: &Batch) -> Result<()> {
        batch.settings().iter().try_for_each(|row| self.queue_set(row))
    }

    /// Frees the keys that are free with a batch.
    pub fn free_keys(&mut self, batch: &Batch) -> Result<()> {
        let mut free = batch.keys().into_iter().filter(|(.., taken)| taken.is_none());
        free.try_for_each(|(queue, key, _)| self.key_free(queue, key))
    }

    /// Takes the keys that are taken with a batch.
    pub fn take_keys(&mut self, batch: &Batch) -> Result<()> {
        for (queue, key, taken) in batch.keys() {
            if let Some((message, until)) = taken {
                self.key_taken(queue, key, message, until)?;
            }
        }
        Ok(())
    }

    /// Carries out what some places of a batch say.
    pub fn apply_rows<'b>(&mut self, rows: impl Iterator<Item = Row<'b>>) -> Result<()> {
        for row in rows {
            match row {
                Row::Removed(id) => self.removed(id)?,
                Row::Put(row) => self.put(row)?,
                Row::Moved(row) => self.moved(row)?,
            }
        }
        Ok(())
    }

    /// Names the queues that a batch names.
    pub fn name_queues(&mut self, batch: &Batch) -> Result<()> {
        let mut named = batch.queues_named().into_iter();
        named.try_for_each(|(id, name)| self.queue_named(id, name.as_str()))
    }

    /// Removes the queues that are gone with a batch.
    pub fn forget_queues(&mut self, batch: &Batch) -> Result<()> {
        for id in batch.queues_gone() {
            self.queue_gone(*id)?;
        }
        Ok(())
    }

    /// Carries out a whole batch, and notes what it says of ids.
    pub fn apply_batch(&mut self, batch: &Batch) -> Result<()> {
        self.apply_part(batch, 0..batch.places())?;
        self.note(batch)?;
        if let Some(next_id) = batch.clean_stop() {
            self.set_number(setting::CLEAN_STOP, next_id)?;
        }
        Ok(())
    }

    /// Notes what a batch says of ids and the clock.
    pub fn note(&mut self, batch: &Batch) -> Result<()> {
        if let Some(up_to) = batch.ids_reserved() {
            self.set_number(setting::IDS_RESERVED, up_to)?;
        }
        batch.clock().map_or(Ok(()), |clock| self.set_clock(clock))
    }

    /// A message was put.
    pub fn put(&mut self, row: &MessageRow) -> Result<()> {
        let columns = message_columns(row);
        let attributes = row.attributes.stored();
        let crc = checksum(&columns, &[attributes, Some(&row.body)]);
        bind_numbers(&mut self.put, &columns)?;
        self.put.raw_bind_parameter(9, crc)?;
        self.put.raw_bind_parameter(10, attributes)?;
        if row.body.len() >= BODY_STREAMED_BYTES_MIN as usize {
            return self.put_streamed(stored(row.id.0), &row.body);
        }
        self.put.raw_bind_parameter(11, &*row.body)?;
        self.put.raw_execute()?;
        if row.body.len() >= BOUND_BYTES_KEPT {
            // The statement would keep its copy until the next put.
            self.put.clear_bindings();
        }
        Ok(())
    }

    /// Ends a put whose other columns are bound: makes room for the body, then fills it in.
    fn put_streamed(&mut self, id: i64, body: &[u8]) -> Result<()> {
        let bytes = body.len() as u64;
        self.keep_in_cache(bytes / u64::from(PAGE_BYTES) + SPILL_PAGES_BESIDE)?;
        self.put.raw_bind_parameter(11, ToSqlOutput::ZeroBlob(bytes))?;
        self.put.raw_execute()?;
        let mut place = self.connection.blob_open(MAIN_DB, "message", "body", id, false)?;
        place.write_at(body, 0)?;
        place.close()
    }

    /// Has the cache write out no page of a body before it is filled in: each would be written
    /// twice.
    fn keep_in_cache(&mut self, pages: u64) -> Result<()> {
        if self.spill_pages < pages {
            self.connection.execute_batch(&format!("PRAGMA cache_spill = {pages}"))?;
            self.spill_pages = pages;
        }
        Ok(())
    }

    /// A message was moved.
    pub fn moved(&mut self, row: &StateRow) -> Result<()> {
        let columns = state_columns(row);
        let text = state_text(row);
        let crc = checksum(&columns, &[text.map(str::as_bytes)]);
        if row.failure.is_none() {
            bind_numbers(&mut self.move_to, &columns[..COLUMNS_OF_ALL])?;
            self.move_to.raw_bind_parameter(COLUMNS_OF_ALL + 1, crc)?;
            self.move_to.raw_execute()?;
        } else {
            bind_numbers(&mut self.move_failed, &columns)?;
            self.move_failed.raw_bind_parameter(columns.len() + 1, crc)?;
            self.move_failed.raw_bind_parameter(columns.len() + 2, text)?;
            self.move_failed.raw_execute()?;
        }
        if let Some(moved) = &mut self.moved {
            moved.insert(row.id);
        }
        Ok(())
    }

    /// A message is gone.
    pub fn removed(&mut self, id: MessageId) -> Result<()> {
        self.remove.raw_bind_parameter(1, stored(id.0))?;
        self.remove.raw_execute()?;
        if self.moved.as_mut().is_none_or(|moved| moved.remove(&id)) {
            self.forget_state.raw_bind_parameter(1, stored(id.0))?;
            self.forget_state.raw_execute()?;
        }
        Ok(())
    }

    /// A queue has a number.
    pub fn queue_named(&mut self, id: QueueId, name: &str) -> Result<()> {
        let id = stored(id.0);
        self.name_queue.raw_bind_parameter(1, id)?;
        self.name_queue.raw_bind_parameter(2, name)?;
        self.name_queue.raw_bind_parameter(3, queue_checksum(id, name))?;
        self.name_queue.raw_execute()?;
        Ok(())
    }

    /// A queue is gone.
    pub fn queue_gone(&mut self, id: QueueId) -> Result<()> {
        self.forget_queue.raw_bind_parameter(1, stored(id.0))?;
        self.forget_queue.raw_execute()?;
        Ok(())
    }

    /// A key is taken.
    pub fn key_taken(
        &mut self,
        queue: QueueId,
        key: &[u8],
        message: Option<MessageId>,
        until: KeyUntil,
    ) -> Result<()> {
        let columns = key_columns(queue, message, until);
        bind_numbers(&mut self.take_key, &columns)?;
        self.take_key.raw_bind_parameter(5, key)?;
        self.take_key.raw_bind_parameter(6, key_checksum(&columns, key))?;
        self.take_key.raw_execute().map(drop)
    }

    /// A key is free.
    fn key_free(&mut self, queue: QueueId, key: &[u8]) -> Result<()> {
        self.free_key.raw_bind_parameter(1, stored(queue.0))?;
        self.free_key.raw_bind_parameter(2, key)?;
        self.free_key.raw_execute().map(drop)
    }

    /// An operator has set something of a queue.
    pub fn queue_set(&mut self, row: &SettingRow) -> Result<()> {
        if row.is_default() {
            self.unset_queue.raw_bind_parameter(1, stored(row.queue.0))?;
            return self.unset_queue.raw_execute().map(drop);
        }
        let columns = setting_columns(row);
        bind_numbers(&mut self.set_queue, &columns)?;
        self.set_queue.raw_bind_parameter(6, checksum(&columns, &[]))?;
        self.set_queue.raw_execute().map(drop)
    }

    /// A topic is bound to a queue.
    pub fn bound(&mut self, row: &BindingRow) -> Result<()> {
        let values = (
            stored(row.id),
            &row.pattern,
            stored(row.queue.0),
            binding_checksum(row),
            row.filter.as_deref(),
        );
        self.connection.prepare(BIND)?.execute(values).map(drop)
    }

    /// Sets how the clock stands.
    pub fn set_clock(&mut self, now: Now) -> Result<()> {
        self.set_signed(setting::CLOCK_TIME, now.time.stored())?;
        self.set_signed(setting::CLOCK_OFFSET, now.wall_offset_ms)
    }

    /// Sets a number in `meta`.
    pub fn set_number(&mut self, name: &str, value: u64) -> Result<()> {
        self.set_signed(name, stored(value))
    }

    fn set_signed(&mut self, name: &str, value: i64) -> Result<()> {
        self.set.raw_bind_parameter(1, name)?;
        self.set.raw_bind_parameter(2, value)?;
        self.set.raw_bind_parameter(3, number_checksum(name, value))?;
        self.set.raw_execute()?;
        Ok(())
    }

    /// Sets bytes in `meta`.
    pub fn set_bytes(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.set.raw_bind_parameter(1, name)?;
        self.set.raw_bind_parameter(2, value)?;
        self.set.raw_bind_parameter(3, bytes_checksum(name, value))?;
        self.set.raw_execute()?;
        Ok(())
    }
}

fn bind_numbers(statement: &mut Statement<'_>, columns: &[Option<i64>]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, *column)?;
    }
    Ok(())
}
