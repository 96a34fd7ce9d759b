//! What the loader of a database has to stand: any file at all, a sound one with some bytes
//! changed, a log with some bytes changed, and rows with any content whose checksums are right.
//!
//! Whatever comes is loaded or refused; a refused database is what it was; a repair that says it
//! has succeeded leaves one that is loaded.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::Unstructured;
use phpmq::words::clock::{Clock, Now, Time};
use phpmq::engine::Engine;
use phpmq::engine::load::Loader;
use phpmq::words::ids::QueueName;
use phpmq::journal::Journal;
use phpmq::words::limits::{LimitValues, Limits};
use phpmq::store::{self, File, Opened, StoreError, Stored};
use tempfile::TempDir;

use crate::edit::{self, edited};
use crate::template::{Template, change_rows};

/// Loads what the bytes stand for. The first one says in which way.
///
/// # Panics
/// When the loader does what it must not.
pub fn load(data: &[u8]) {
    let Some((way, bytes)) = data.split_first() else { return };
    let template = Template::get();
    let directory = folder();
    let path = directory.path().join("queue.db");
    let log = directory.path().join("queue.db-wal");
    let mut choices = Unstructured::new(bytes);
    match way % 5 {
        0 => write(&path, bytes),
        1 => write(&path, &edited(&template.closed, &mut choices)),
        2 => {
            write(&path, &template.file);
            let mut frames = edited(&template.log, &mut choices);
            edit::repair_log_checksums(&mut frames);
            write(&log, &frames);
        }
        3 => {
            write(&path, &edited(&template.file, &mut choices));
            write(&log, &edited(&template.log, &mut choices));
        }
        _ => {
            write(&path, &template.closed);
            change_rows(&path, &mut choices);
        }
    }
    load_or_refuse(&path, &log, log.exists());
}

fn load_or_refuse(path: &Path, log: &Path, has_log: bool) {
    let before = (read(path), read(log));
    match store::open(Some(path), &mut |_| ()) {
        Ok(opened) => serve(path, opened, has_log),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!((read(path), read(log)) == before, "refused and changed: {error}");
            repair(path, &error);
        }
    }
}

/// Does what a start does with a database, and what the first moments after it do.
fn serve(path: &Path, opened: Opened, has_log: bool) {
    let facts = opened.facts;
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let engine = Engine::new(limits, facts.next_id, facts.ids_reserved, facts.next_queue_id);
    let now = Clock::start().now(0);
    let mut loader = Loader::new(engine, now);
    store::scan(&opened.memory, |row| match row {
        Stored::Queue(id, name) => {
            if let Ok(name) = QueueName::new(name.as_bytes()) {
                loader.queue(id, &name);
            }
        }
        Stored::Message(message) => loader.message(message),
        Stored::Setting(row) => loader.setting(row),
        Stored::Key(row) => loader.key(&row),
    })
    .expect("what was checked can be read");
    let (mut engine, dropped) = loader.finish();
    let mut journal = Journal::new();
    dropped.into_iter().for_each(|change| journal.record(change));
    let mut effects = Vec::new();
    let century = Time(now.time.0 + 100 * 365 * 86_400_000);
    for time in [now.time, century, century] {
        engine.turn(Now { time, ..now }, &mut effects);
        engine.next_deadline();
    }

    let file = opened.file.expect("it has a name");
    File::new(&file)
        .and_then(|mut disk| disk.commit(&mut journal.take(), true))
        .expect("a sound file takes a commit");
    let closed = file.close();
    // A made-up size in a log can keep it from being moved into the file. The daemon would write the
    // file anew; and what it has committed is there.
    assert!(closed.is_ok() || has_log, "{closed:?}");
    let again = store::open(Some(path), &mut |_| ()).expect("what was served is served again");
    assert!(again.facts.messages <= facts.messages);
    // Where ids end, none is handed out.
    assert!(again.facts.next_id >= facts.next_id.min(i64::MAX as u64));
}

fn repair(path: &Path, refused: &StoreError) {
    let Ok(recovered) = store::recover(path) else { return };
    let opened = match store::open(Some(path), &mut |_| ()) {
        Ok(opened) => opened,
        Err(error) => panic!("{refused}; {recovered}; and then: {error}"),
    };
    assert_eq!(opened.facts.messages, recovered.messages, "{recovered}");
}

/// In memory where there is such a place: the syncs would take most of the time.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.expect("a folder can be made")
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file can be written");
}

/// What is in a file; an empty log, which looking at a database makes, is as good as none.
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}
