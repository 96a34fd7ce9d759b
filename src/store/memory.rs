//! The database in memory: every row that the file has, but for what was committed just now.
//!
//! Owned by the dispatcher, which brings a batch in here soon after its commit. Pages that
//! messages have left are used again but never freed. Of 305 MB that 300,000 messages of 1,000
//! bytes had left, VACUUM gave all back to the C library within 10 ms, and that gave the system 28
//! MB, whatever its tunables were: only its `malloc_trim` gave back the rest, for which there is no
//! safe call.
//!
//! # Failure
//!
//! There is no disk behind it, so an error means that memory has run out, and then nothing has
//! changed and the same can be tried again, or that the database library is broken: then the caller
//! ends the process.

use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, MAIN_DB, OpenFlags, Result, Row, Statement};

use super::StoreError;
use super::rows::unsigned;
use super::schema::{self, PAGE_BYTES, stored};
use super::slice::Reader;
use super::tables::Tables;
use crate::journal::Batch;
use crate::words::body::Body;
use crate::words::change::Attributes;
use crate::words::ids::MessageId;

/// What a page takes in memory, in bytes, with what the cache notes of it.
const PAGE_COST_BYTES: u64 = PAGE_BYTES as u64 + 256;

/// How large the database in memory is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// With the pages that messages have left.
    pub whole: u64,
    /// Without them.
    pub used: u64,
}

/// The statements for the database in memory, which they borrow.
pub struct Memory<'c> {
    tables: Tables<'c>,
    body: Statement<'c>,
    attributes: Statement<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    connection: &'c Connection,
    pages: Statement<'c>,
    free_pages: Statement<'c>,
    size: Size,
    pub(super) reader: Reader<'c>,
}

impl<'c> Memory<'c> {
    /// Prepares the statements for a database from [`open`](super::open).
    ///
    /// # Errors
    /// [`StoreError::Internal`].
    pub fn new(connection: &'c Connection) -> Result<Memory<'c>, StoreError> {
        Memory::prepare(connection).map_err(failed)
    }

    fn prepare(connection: &'c Connection) -> Result<Memory<'c>> {
        let mut memory = Memory {
            tables: Tables::tracking_states(connection)?,
            body: connection.prepare("SELECT attributes, body FROM message WHERE id = ?")?,
            attributes: connection.prepare("SELECT attributes FROM message WHERE id = ?")?,
            begin: connection.prepare("BEGIN")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            connection,
            pages: connection.prepare("PRAGMA page_count")?,
            free_pages: connection.prepare("PRAGMA freelist_count")?,
            size: Size::default(),
            reader: Reader::new(connection)?,
        };
        memory.measure()?;
        Ok(memory)
    }

    /// Lets it have no more pages than this, or than it has. What needs more fails as it does when
    /// the system has no memory.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: u32) {
        let limit = format!("PRAGMA max_page_count = {pages}");
        self.connection.execute_batch(&limit).expect("a limit can be set");
    }

    /// Makes it fail from now on, as a defect would.
    #[cfg(test)]
    pub(crate) fn spoil(&self) {
        self.connection.execute_batch("DROP TABLE message").expect("there is such a table");
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        self.size
    }

    fn measure(&mut self) -> Result<()> {
        let pages = unsigned(self.pages.query_row([], |row| row.get(0))?);
        let free = unsigned(self.free_pages.query_row([], |row| row.get(0))?);
        let used = pages.saturating_sub(free) * PAGE_COST_BYTES;
        self.size = Size { whole: pages * PAGE_COST_BYTES, used };
        Ok(())
    }

    /// Carries out, in one transaction, what these places of a batch say.
    ///
    /// # Errors
    /// [`StoreError::Internal`]; then nothing has changed.
    pub fn apply(&mut self, batch: &Batch, places: Range<usize>) -> Result<(), StoreError> {
        let apply = || {
            self.begin.raw_execute()?;
            self.tables.apply_part(batch, places)?;
            self.commit.raw_execute()
        };
        if let Err(error) = apply() {
            if !self.connection.is_autocommit() {
                // When this fails, the transaction is rolled back already.
                let _ = self.rollback.raw_execute();
            }
            self.tables.track_no_states();
            return Err(failed(error));
        }
        // A size that could not be read is known after the next time.
        let _ = self.measure();
        Ok(())
    }

    /// Lends what is kept of a message, `None` when there is no such message. The body is that of
    /// the database's own page unless it is too long for one.
    ///
    /// # Errors
    /// [`StoreError::Internal`].
    pub fn body<R>(
        &mut self,
        id: MessageId,
        use_it: impl FnOnce(&Attributes, &[u8]) -> R,
    ) -> Result<Option<R>, StoreError> {
        self.find_body(id, use_it).map_err(failed)
    }

    /// A copy of a large message, `None` when there is no such message: one that is lent is copied
    /// too, and again into what is sent.
    ///
    /// # Errors
    /// [`StoreError::Internal`].
    pub fn large_body(&mut self, id: MessageId) -> Result<Option<(Attributes, Body)>, StoreError> {
        self.find_large_body(id).map_err(failed)
    }

    fn find_large_body(&mut self, id: MessageId) -> Result<Option<(Attributes, Body)>> {
        let attributes = {
            self.attributes.raw_bind_parameter(1, stored(id.0))?;
            let mut rows = self.attributes.raw_query();
            let Some(row) = rows.next()? else { return Ok(None) };
            attributes(row)?
        };
        let place = self.connection.blob_open(MAIN_DB, "message", "body", stored(id.0), true)?;
        let mut body = Vec::new();
        if body.try_reserve_exact(place.len()).is_err() {
            let no_memory = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOMEM);
            return Err(rusqlite::Error::SqliteFailure(no_memory, None));
        }
        body.resize(place.len(), 0);
        place.read_at_exact(&mut body, 0)?;
        Ok(Some((attributes, Body::from(body))))
    }

    fn find_body<R>(
        &mut self,
        id: MessageId,
        use_it: impl FnOnce(&Attributes, &[u8]) -> R,
    ) -> Result<Option<R>> {
        self.body.raw_bind_parameter(1, stored(id.0))?;
        let mut rows = self.body.raw_query();
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let attributes = attributes(row)?;
        Ok(Some(use_it(&attributes, row.get_ref(1)?.as_blob()?)))
    }
}

/// The attributes in the first column.
fn attributes(row: &Row<'_>) -> Result<Attributes> {
    Ok(match row.get_ref(0)?.as_blob_or_null()? {
        Some(bytes) => Attributes::from_stored(bytes),
        None => Attributes::default(),
    })
}

pub(super) fn failed(source: rusqlite::Error) -> StoreError {
    StoreError::Internal { file: Path::new(":memory:").to_path_buf(), source }
}

/// An empty database in memory, for a copy of a file with pages of this size.
pub(super) fn connect(page_bytes: u32) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_in_memory_with_flags(flags)?;
        super::file::harden(&connection)?;
        connection.execute_batch(&format!("PRAGMA page_size = {page_bytes};"))?;
        Ok(connection)
    };
    connect().map_err(failed)
}

/// A database in memory with empty tables.
pub(super) fn connect_empty() -> Result<Connection, StoreError> {
    let connection = connect(PAGE_BYTES)?;
    schema::create(&connection).map_err(failed)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::super::testing::apply;
    use super::*;
    use crate::words::change::{Change, Counters};
    use crate::words::change::{MessageRow, MessageState, StateRow};
    use crate::words::ids::Sequence;

    fn message(id: u64, body: &[u8]) -> Change {
        let mut attributes = Attributes::default();
        if id.is_multiple_of(2) {
            attributes.push("flags", b"\x01");
        }
        Change::Put(MessageRow {
            id: MessageId(id),
            attributes,
            body: body.into(),
            ..MessageRow::default()
        })
    }

    fn moved(id: u64) -> Change {
        Change::Moved(StateRow {
            id: MessageId(id),
            state: MessageState::Buried,
            priority: 1,
            sequence: Sequence(id),
            due: Some(1),
            expires_ms: None,
            delay_ms: 0,
            counters: Counters::default(),
            queue: None,
            failure: None,
        })
    }

    fn count(connection: &Connection, table: &str) -> i64 {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn bodies_and_attributes_are_lent_as_they_were_put() {
        let connection = connect_empty().unwrap();
        let mut memory = Memory::new(&connection).unwrap();
        let long = vec![7_u8; 1_000_000];
        apply(&mut memory, [message(1, b""), message(2, &long)]);
        let empty =
            memory.body(MessageId(1), |attributes, body| (attributes.clone(), body.to_vec()));
        assert_eq!(empty.unwrap(), Some((Attributes::default(), Vec::new())));
        let found = memory.body(MessageId(2), |attributes, body| {
            assert_eq!(attributes.find("flags"), Some(&b"\x01"[..]));
            body == long
        });
        assert_eq!(found.unwrap(), Some(true));
        assert_eq!(memory.body(MessageId(3), |_, _| ()).unwrap(), None);
        let (attributes, body) = memory.large_body(MessageId(2)).unwrap().unwrap();
        assert_eq!(attributes.find("flags"), Some(&b"\x01"[..]));
        assert!(*body == *long);
        assert_eq!(memory.large_body(MessageId(3)).unwrap(), None);
    }

    #[test]
    fn bodies_that_are_streamed_are_stored_as_bound_ones_and_replace_others() {
        let connection = connect_empty().unwrap();
        let mut memory = Memory::new(&connection).unwrap();
        let body: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        apply(&mut memory, [message(1, b"small"), message(3, &body[..300_000])]);
        // A row whose commit failed comes again.
        apply(&mut memory, [message(1, &body), message(3, b"")]);
        let found = memory.body(MessageId(1), |_, found| found == body).unwrap();
        assert_eq!(found, Some(true));
        assert_eq!(memory.body(MessageId(3), |_, found| found.len()).unwrap(), Some(0));
        assert!(memory.size().used > body.len() as u64);
        apply(&mut memory, [Change::Removed(MessageId(1))]);
        assert!(memory.size().used < 200_000 && memory.size().whole > body.len() as u64);
    }

    #[test]
    fn what_there_is_no_memory_for_changes_nothing_and_can_be_tried_again() {
        let connection = connect_empty().unwrap();
        let mut memory = Memory::new(&connection).unwrap();
        apply(&mut memory, [message(1, b"a"), moved(1)]);
        memory.limit_pages(1);
        for bytes in [20_000, 500_000] {
            let mut journal = crate::journal::Journal::new();
            journal.record(Change::Removed(MessageId(1)));
            journal.record(message(2, &vec![7; bytes]));
            let batch = journal.take();
            let error = memory.apply(&batch, 0..batch.places()).unwrap_err();
            assert!(error.is_want_of_memory(), "{error}");
            assert_eq!(memory.body(MessageId(1), |_, body| body.len()).unwrap(), Some(1));
            assert_eq!(memory.body(MessageId(2), |_, _| ()).unwrap(), None);
            memory.limit_pages(1_000);
            memory.apply(&batch, 0..batch.places()).unwrap();
            assert_eq!(count(&connection, "message_state"), 0, "the state left with its message");
            apply(&mut memory, [message(1, b"a"), moved(1), Change::Removed(MessageId(2))]);
            connection.execute_batch("VACUUM").unwrap();
            memory.limit_pages(1);
        }
    }

    #[test]
    fn a_removal_takes_the_state_along() {
        let connection = connect_empty().unwrap();
        let mut memory = Memory::new(&connection).unwrap();
        apply(&mut memory, [message(1, b"a"), moved(1), message(2, b"b"), moved(2)]);
        apply(&mut memory, [Change::Removed(MessageId(1))]);
        assert_eq!((count(&connection, "message"), count(&connection, "message_state")), (1, 1));

        // Also a state that was there before the statements were prepared.
        drop(memory);
        let mut memory = Memory::new(&connection).unwrap();
        apply(&mut memory, [Change::Removed(MessageId(2))]);
        assert_eq!((count(&connection, "message"), count(&connection, "message_state")), (0, 0));
    }
}
