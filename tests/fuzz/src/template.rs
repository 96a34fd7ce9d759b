//! A sound small database to begin with, as the daemon itself writes it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use phpmq::words::change::{Attributes, Change, Counters, MessageRow, MessageState, StateRow};
use phpmq::words::ids::{MessageId, QueueId, QueueName, Sequence};
use phpmq::journal::Journal;
use phpmq::store::{self, File, StoreFile};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// The bytes of a database, closed in order and left as by a crash.
pub struct Template {
    /// After an orderly stop: all is in it.
    pub closed: Vec<u8>,
    /// After a crash.
    pub file: Vec<u8>,
    /// The log that belongs to it.
    pub log: Vec<u8>,
}

impl Template {
    /// The same in all runs of a process. The log's salts are drawn anew by each.
    pub fn get() -> &'static Template {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        TEMPLATE.get_or_init(Template::make)
    }

    fn make() -> Template {
        let directory = tempfile::tempdir().expect("a folder can be made");
        let path = directory.path().join("queue.db");
        let read = |name: &str| fs::read(directory.path().join(name)).expect("it is there");
        commit(&path, story()).close().expect("it closes");
        set_key(&path);
        let closed = read("queue.db");
        let more = (30..40).map(|id| put(id, b"in the log")).chain([Change::Removed(MessageId(3))]);
        commit(&path, more.collect()).abandon();
        Template { closed, file: read("queue.db"), log: read("queue.db-wal") }
    }
}

fn commit(path: &Path, changes: Vec<Change>) -> StoreFile {
    let opened = store::open(Some(path), &mut |_| ()).expect("a sound database");
    let file = opened.file.expect("it has a name");
    let mut journal = Journal::new();
    changes.into_iter().for_each(|change| journal.record(change));
    let mut disk = File::new(&file).expect("the tables are there");
    disk.commit(&mut journal.take(), true).expect("the disk has room");
    drop(disk);
    file
}

fn story() -> Vec<Change> {
    let name = |id, name: &str| Change::QueueNamed {
        id: QueueId(id),
        name: QueueName::new(name.as_bytes()).expect("a good name"),
    };
    let mut changes = vec![name(1, "mail"), name(2, "größe")];
    changes.extend((1..=20).map(|id| put(id, format!("body {id}").as_bytes())));
    // One that has pages of its own.
    changes.push(put(21, &[b'x'; 12_000]));
    changes.extend((1..=6).map(|id| {
        Change::Moved(StateRow {
            id: MessageId(id),
            state: [MessageState::Ready, MessageState::Delayed, MessageState::Buried]
                [usize::try_from(id).unwrap_or(0) % 3],
            priority: 7,
            sequence: Sequence(id + 100),
            due: Some(3),
            expires_ms: None,
            delay_ms: 250,
            counters: Counters::default(),
            queue: None,
            failure: None,
        })
    }));
    changes
}

fn put(id: u64, body: &[u8]) -> Change {
    let mut attributes = Attributes::default();
    if id.is_multiple_of(2) {
        attributes.push("flags", b"\x01\x02");
    }
    Change::Put(MessageRow {
        id: MessageId(id),
        queue: QueueId(1 + id % 2),
        priority: 1024,
        sequence: Sequence(id),
        created_ms: 1_700_000_000_000,
        attributes,
        body: body.into(),
        ..MessageRow::default()
    })
}

/// The key is drawn at random, which would make no two runs the same.
fn set_key(path: &Path) {
    let connection = Connection::open(path).expect("it opens");
    let key = Value::Blob(vec![7; 16]);
    let crc = checksum(&[Value::Text("message_key".into()), key.clone()]);
    let row = ["message_key".to_owned().into(), key, crc.into()];
    connection
        .execute("INSERT OR REPLACE INTO meta VALUES (?,?,?)", params_from_iter(row))
        .expect("it can be written");
}

/// Puts rows with any content into a database, most of them with the right checksum.
pub fn change_rows(path: &Path, choices: &mut Unstructured<'_>) {
    let connection = Connection::open(path).expect("it opens");
    connection
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; BEGIN")
        .expect("it can be written");
    while !choices.is_empty() && change_row(&connection, choices).is_ok() {}
    connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL").expect("it can be written");
}

fn change_row(connection: &Connection, choices: &mut Unstructured<'_>) -> Result<()> {
    let table = choices.int_in_range(0..=6)?;
    if table == 6 {
        let id: i64 = choices.int_in_range(0..=22)?;
        let table = choices.choose(&["message", "message_state", "queue"])?;
        // One that is not there is no error.
        let _ = connection.execute(&format!("DELETE FROM {table} WHERE id = ?"), [id]);
        return Ok(());
    }
    let (sql, mut row) = match table {
        0 => ("message VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?11,?9,?10)", {
            let mut row = numbers::<8>(choices)?;
            row.push(match choices.arbitrary::<bool>()? {
                true => Value::Blob(bytes(choices)?),
                false => Value::Null,
            });
            row.push(Value::Blob(bytes(choices)?));
            row
        }),
        1 => (
            "message_state VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,\
             ?19,?20,?22,?21)",
            {
                let mut row = numbers::<20>(choices)?;
                row.push(match choices.arbitrary::<bool>()? {
                    true => Value::Text(String::from_utf8_lossy(&bytes(choices)?).into_owned()),
                    false => Value::Null,
                });
                row
            },
        ),
        4 => ("key VALUES (?1,?5,?2,?3,?4,?6)", {
            let mut row = numbers::<4>(choices)?;
            row.push(Value::Blob(bytes(choices)?));
            row
        }),
        5 => ("queue_setting VALUES (?1,?2,?3,?4,?5,?6)", numbers::<5>(choices)?),
        2 => ("queue VALUES (?1,?2,?3)", {
            let name = String::from_utf8_lossy(&bytes(choices)?).into_owned();
            vec![number(choices)?, Value::Text(name)]
        }),
        _ => ("meta VALUES (?2,?1,?3)", {
            let name = *choices.choose(&["ids_reserved", "clean_stop", "message_key", "tick"])?;
            let value = match choices.arbitrary::<bool>()? {
                true => Value::Blob(bytes(choices)?),
                false => number(choices)?,
            };
            vec![value, Value::Text(name.to_owned())]
        }),
    };
    let checked: Vec<Value> = match (table, &row[0]) {
        // Bytes come after the name there.
        (3, Value::Blob(_)) => vec![row[1].clone(), row[0].clone()],
        _ => row.clone(),
    };
    let crc = checksum(&checked);
    row.push(if choices.ratio(15, 16)? { Value::Integer(crc) } else { number(choices)? });
    // A column that must not be NULL may be: then there is no such row.
    let _ = connection.execute(&format!("INSERT OR REPLACE INTO {sql}"), params_from_iter(row));
    Ok(())
}

fn numbers<const N: usize>(choices: &mut Unstructured<'_>) -> Result<Vec<Value>> {
    (0..N).map(|_| number(choices)).collect()
}

/// Those that are small, those at the ends, and any.
fn number(choices: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match choices.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => Value::Integer(i64::MAX - choices.int_in_range(0..=2)?),
        2 => Value::Integer(i64::MIN + choices.int_in_range(0..=2)?),
        3 => Value::Integer(choices.arbitrary()?),
        4 => Value::Integer(1_700_000_000_000 + i64::from(choices.arbitrary::<i32>()?)),
        5 => Value::Integer(i64::from(u32::MAX) + choices.int_in_range(-1..=1)?),
        _ => Value::Integer(choices.int_in_range(-1..=25)?),
    })
}

fn bytes(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = choices.int_in_range(0..=40)?;
    Ok(choices.bytes(choices.len().min(length))?.to_vec())
}

/// The checksum of a row as phpmqd(8) describes it.
fn checksum(columns: &[Value]) -> i64 {
    let mut crc = 0;
    let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
    for column in columns {
        match column {
            Value::Integer(number) => add(&number.to_be_bytes()),
            Value::Blob(bytes) => {
                add(&(bytes.len() as i64).to_be_bytes());
                add(bytes);
            }
            Value::Text(text) => {
                add(&(text.len() as i64).to_be_bytes());
                add(text.as_bytes());
            }
            _ => add(&i64::MIN.to_be_bytes()),
        }
    }
    i64::from(crc)
}
