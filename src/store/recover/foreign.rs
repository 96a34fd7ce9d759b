//! A file beside a write-ahead log that is another one's, such as a backup that was copied over a
//! database whose daemon had been killed.
//!
//! Nobody can say which of the two is wanted. With the log in force the file's pages are hidden
//! behind the log's, so the file is read once more without it, and what it has beside that is
//! added: messages whose ids are not there yet, each with its state. A queue's number may be
//! another queue's in the log, so that messages are put into the queue of the name that the file
//! has for it. Keys, bindings and what operators have set are those of the log alone.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Result};
use rustc_hash::FxHashSet;

use super::fill::Filling;
use crate::store::rows::unsigned;
use crate::store::salvage::{Collect, Damaged, DamagedLog, Found, SoundRow, Table};
use crate::store::schema::stored;
use crate::words::change::{MessageRow, StateRow};
use crate::words::ids::QueueId;

const NUMBER_OF: &str = "SELECT id FROM queue WHERE name = ?";
const NAME_OF: &str = "SELECT name FROM queue WHERE id = ?";
/// No queue and no message has a larger number.
const NUMBER_MAX: &str = "SELECT max(number) FROM (SELECT 0 AS number \
     UNION ALL SELECT max(id) FROM queue UNION ALL SELECT max(queue) FROM message \
     UNION ALL SELECT max(queue) FROM key UNION ALL SELECT max(queue) FROM queue_setting \
     UNION ALL SELECT max(queue) FROM binding)";

/// What is taken from the file in one walk over its trees: a message has to be known before its
/// state, and the name of its queue before either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    QueuesAndSettings,
    /// What the daemon has had, and may have delivered since.
    Known,
    Messages,
    States,
}

/// Adds what the file alone holds to what was found with the log.
pub(super) fn add(filling: &mut Filling<'_>, file_alone: &Damaged) -> Result<()> {
    let mut alone = Alone::new(filling, false);
    for step in [Step::QueuesAndSettings, Step::Messages, Step::States] {
        alone.step = step;
        file_alone.trees(&mut alone)?;
    }
    Ok(())
}

/// Adds what stands behind the damage in a copy of a log that the database has had: messages whose
/// ids are not there, each with its state.
pub(super) fn add_log(filling: &mut Filling<'_>, log: &DamagedLog) -> Result<()> {
    let mut alone = Alone::new(filling, true);
    // The newest names first.
    log.behind(&mut alone)?;
    log.used(&mut alone)?;
    alone.step = Step::Known;
    log.used(&mut alone)?;
    for step in [Step::Messages, Step::States] {
        alone.step = step;
        log.behind(&mut alone)?;
    }
    Ok(())
}

struct Alone<'f, 'c> {
    filling: &'f mut Filling<'c>,
    step: Step,
    /// The queues of the file.
    names: BTreeMap<u64, String>,
    /// The numbers that they have in the new database.
    numbers: BTreeMap<u64, QueueId>,
    /// Messages that only the file has.
    added: FxHashSet<u64>,
    /// Messages that are not added.
    known: FxHashSet<u64>,
    /// Whether a number without a name is that of the same queue in the new database.
    shares_numbers: bool,
}

impl<'f, 'c> Alone<'f, 'c> {
    fn new(filling: &'f mut Filling<'c>, shares_numbers: bool) -> Alone<'f, 'c> {
        Alone {
            filling,
            step: Step::QueuesAndSettings,
            names: BTreeMap::new(),
            numbers: BTreeMap::new(),
            added: FxHashSet::default(),
            known: FxHashSet::default(),
            shares_numbers,
        }
    }

    /// The number that a queue of the file has in the new database.
    fn number(&mut self, queue: QueueId) -> Result<QueueId> {
        if let Some(number) = self.numbers.get(&queue.0) {
            return Ok(*number);
        }
        let name = self.names.get(&queue.0);
        let (number, is_new) = self.find_number(queue, name)?;
        if let Some(name) = name.filter(|_| is_new) {
            self.filling.name_queue(number, name)?;
        }
        self.numbers.insert(queue.0, number);
        Ok(number)
    }

    /// The same, and whether no queue has it yet.
    fn find_number(&self, queue: QueueId, name: Option<&String>) -> Result<(QueueId, bool)> {
        let connection = self.filling.connection();
        let id = [stored(queue.0)];
        let there: Option<String> =
            connection.query_row(NAME_OF, id, |row| row.get(0)).optional()?;
        if let Some(name) = name {
            if there.as_ref() == Some(name) {
                return Ok((queue, false));
            }
            let same = connection.query_row(NUMBER_OF, [name], |row| row.get(0)).optional()?;
            if let Some(number) = same {
                return Ok((QueueId(unsigned(number)), false));
            }
        }
        if there.is_none() || (self.shares_numbers && name.is_none()) {
            return Ok((queue, there.is_none()));
        }
        let max = connection.query_row(NUMBER_MAX, [], |row| row.get(0))?;
        Ok((QueueId(unsigned(max) + 1), true))
    }

    fn message(&mut self, row: MessageRow) -> Result<()> {
        if self.known.contains(&row.id.0) {
            return Ok(());
        }
        let row = MessageRow { queue: self.number(row.queue)?, ..row };
        if self.filling.message(&row, Found::Outside)? {
            self.added.insert(row.id.0);
        }
        Ok(())
    }
}

impl Alone<'_, '_> {
    fn state(&mut self, mut row: StateRow) -> Result<()> {
        if let Some(queue) = row.queue {
            row.queue = Some(self.number(queue)?);
        }
        if let Some(origin) = row.failure.as_mut().and_then(|failure| failure.origin.as_mut()) {
            origin.queue = self.number(origin.queue)?;
        }
        self.filling.state(&row, Found::Outside)
    }
}

impl Collect for Alone<'_, '_> {
    fn sound(&mut self, row: SoundRow, _: Found) -> Result<()> {
        match (self.step, row) {
            (Step::QueuesAndSettings, SoundRow::Queue { id, name }) => {
                self.names.entry(unsigned(id)).or_insert(name);
            }
            (Step::QueuesAndSettings, SoundRow::Setting { name, value }) => {
                self.filling.setting(name, value, Found::Outside);
            }
            (Step::Known, SoundRow::Message(row)) => {
                self.known.insert(row.id.0);
            }
            (Step::Messages, SoundRow::Message(row)) => self.message(row)?,
            (Step::States, SoundRow::State(row)) if self.added.contains(&row.id.0) => {
                self.state(row)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn damaged(&mut self, _: Table, _: i64, _: &[ValueRef<'_>]) -> Result<()> {
        Ok(())
    }

    fn quarantined(&mut self, _: i64, _: &[ValueRef<'_>]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Recovered, recover};
    use crate::store::testing::{
        commit, folder, found, put, queue, removed, reopen, state, story, try_open,
    };
    use crate::store::{LogState, StoreError};
    use crate::words::change::Change;
    use crate::words::ids::QueueId;
    use rusqlite::Connection;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    /// Messages with the names of their queues, and whether each was moved.
    fn left(path: &Path) -> BTreeMap<u64, (String, bool)> {
        let (queues, messages) = found(&reopen(path).memory);
        let names: BTreeMap<u64, String> = queues.into_iter().collect();
        let messages = messages.into_iter();
        messages
            .map(|(row, ..)| (row.id.0, (names[&row.queue.0].clone(), row.moved.is_some())))
            .collect()
    }

    fn back_up(from: &Path, to: &Path, way: &str) {
        let source = Connection::open(from).unwrap();
        if way == "into" {
            source.execute("VACUUM INTO ?", [to.to_str().unwrap()]).unwrap();
        } else {
            let mut copy = Connection::open(to).unwrap();
            let backup = rusqlite::backup::Backup::new(&source, &mut copy).unwrap();
            backup.step(-1).unwrap();
        }
    }

    /// A backup over the file of a daemon that was killed: the log stays beside it.
    fn restored_beside_the_log(way: &str) -> (BTreeMap<u64, (String, bool)>, Recovered) {
        let (directory, path) = folder();
        commit(&path, story());
        let copy = directory.path().join("copy.db");
        back_up(&path, &copy, way);
        let mut changes: Vec<Change> = (1..=22).filter(|id| *id != 7).map(removed).collect();
        changes.push(Change::QueueGone(QueueId(1)));
        commit(&path, changes);
        // The number is given again.
        let last = vec![queue(1, "other"), put(2_000_000, 1, b"later"), Change::Moved(state(7))];
        commit(&path, last);
        fs::copy(&copy, &path).unwrap();
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error, StoreError::LogForeign { .. }), "{way}: {error}");
        let recovered = recover(&path).unwrap();
        (left(&path), recovered)
    }

    /// The messages of the backup were dropped without a word where the log had their pages.
    #[test]
    fn the_messages_of_both_are_kept_where_a_log_is_another_files() {
        for way in ["backup", "into"] {
            let (left, recovered) = restored_beside_the_log(way);
            assert_eq!(recovered.log, LogState::Foreign, "{way}");
            let all: Vec<u64> = (1..=22).chain([2_000_000]).collect();
            assert_eq!(left.keys().copied().collect::<Vec<u64>>(), all, "{way}: {recovered}");
            for (id, (name, moved)) in left {
                let expected = match id {
                    2_000_000 => "other",
                    _ if id == 21 || id == 22 || id % 2 == 0 => "mail",
                    _ => "größe ☂",
                };
                assert_eq!(name, expected, "{way}: {id}");
                assert_eq!(moved, id == 4 || id == 7, "{way}: {id}");
            }
            assert!(recovered.to_string().contains("belongs to another file"), "{recovered}");
        }
    }
}
