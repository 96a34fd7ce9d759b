//! What the tests of this directory have in common: databases in temporary folders and a small
//! story to tell them.

pub(crate) mod maps;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::paths::Paths;
use super::{Connection, File, Opened, StoreError, Stored, open, scan};
use crate::journal::{Batch, Journal};
use crate::words::change::Counters;
use crate::words::change::{Attributes, Change, MessageRow, MessageState, StateRow, StoredMessage};
use crate::words::ids::{MessageId, QueueId, QueueName, Sequence};

/// A folder with the name of a database in it.
pub(super) fn folder() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    (directory, path)
}

/// The same, with the names of all its files.
pub(super) fn paths() -> (tempfile::TempDir, Paths) {
    let (directory, path) = folder();
    let paths = Paths::of(&path).unwrap();
    (directory, paths)
}

/// The batch of these changes.
pub(super) fn batch(changes: impl IntoIterator<Item = Change>) -> Arc<Batch> {
    let mut journal = Journal::new();
    changes.into_iter().for_each(|change| journal.record(change));
    journal.take()
}

/// Opens a database that must be sound. A process that another test has just started may hold the
/// lock for a moment still: it has all that was open when it was forked.
pub(super) fn reopen(path: &Path) -> Opened {
    for _ in 0..2_000 {
        match try_open(path) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened.unwrap_or_else(|error| panic!("{error}")),
        }
    }
    panic!("{} is in use", path.display())
}

/// Opens a database.
pub(super) fn try_open(path: &Path) -> Result<Opened, StoreError> {
    open(Some(path), &mut |_| ())
}

/// Commits changes, fsync included, and closes as a crash would: the log stays.
pub(super) fn commit(path: &Path, changes: Vec<Change>) {
    let file = reopen(path).file.unwrap();
    commit_to(&mut File::new(&file).unwrap(), changes);
    file.abandon();
}

/// Commits changes, fsync included.
pub(super) fn commit_to(file: &mut File<'_>, changes: Vec<Change>) {
    file.commit(&batch(changes), true).unwrap();
}

/// Everything that a restart finds: queues, messages, and the body and attributes of each.
pub(crate) type Found = (Vec<(u64, String)>, Vec<(StoredMessage, Attributes, Vec<u8>)>);

/// Reads all that an opened database holds.
pub(crate) fn found(memory: &Connection) -> Found {
    let mut queues = Vec::new();
    let mut messages = Vec::new();
    scan(memory, |row| match row {
        Stored::Queue(id, name) => queues.push((id.0, name.to_owned())),
        Stored::Message(message) => messages.push(message.clone()),
        Stored::Setting(_) | Stored::Key(_) => {}
    })
    .unwrap();
    let mut memory = super::Memory::new(memory).unwrap();
    let with_body = messages.into_iter().map(|message| {
        let kept = memory.body(message.id, |attributes, body| (attributes.clone(), body.to_vec()));
        let (attributes, body) = kept.unwrap().unwrap();
        (message, attributes, body)
    });
    (queues, with_body.collect())
}

pub(super) fn queue(id: u64, name: &str) -> Change {
    Change::QueueNamed { id: QueueId(id), name: QueueName::new(name.as_bytes()).unwrap() }
}

pub(super) fn row(id: u64, queue: u64, body: &[u8]) -> MessageRow {
    let mut attributes = Attributes::default();
    if id.is_multiple_of(2) {
        attributes.push("flags", b"\x01\x02");
    }
    MessageRow {
        id: MessageId(id),
        queue: QueueId(queue),
        priority: 1024,
        sequence: Sequence(id),
        created_ms: 1_700_000_000_000,
        expires_ms: id.is_multiple_of(3).then_some(1_800_000_000_000),
        due_ms: id.is_multiple_of(5).then_some(1_750_000_000_000),
        time_to_run_ms: 60_000,
        attributes,
        body: body.into(),
    }
}

pub(super) fn put(id: u64, queue: u64, body: &[u8]) -> Change {
    Change::Put(row(id, queue, body))
}

pub(super) fn state(id: u64) -> StateRow {
    StateRow {
        id: MessageId(id),
        state: MessageState::Buried,
        priority: 7,
        sequence: Sequence(id + 100),
        due: Some(3),
        expires_ms: None,
        delay_ms: 250,
        counters: Counters { reserves: 1, timeouts: 2, releases: 3, buries: 4, kicks: 5 },
        queue: None,
        failure: None,
    }
}

pub(super) fn removed(id: u64) -> Change {
    Change::Removed(MessageId(id))
}

/// Some messages in two queues, one of them moved, one with a long body.
pub(super) fn story() -> Vec<Change> {
    let mut changes = vec![queue(1, "mail"), queue(2, "größe ☂")];
    changes.extend((1..=20).map(|id| put(id, 1 + id % 2, format!("body {id}").as_bytes())));
    changes.push(put(21, 1, &vec![b'x'; 50_000]));
    changes.push(put(22, 1, b""));
    changes.push(Change::Moved(state(4)));
    changes
}

/// How many messages a connection to the file sees.
pub(crate) fn message_count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap()
}

/// Has a database in memory carry out these changes, each in a batch of its own.
pub fn apply(memory: &mut super::Memory<'_>, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        let batch = batch([change]);
        memory.apply(&batch, 0..batch.places()).unwrap();
    }
}
