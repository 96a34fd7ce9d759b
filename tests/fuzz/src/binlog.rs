//! What the import of a binlog has to stand: any files at all. It is refused, or a database comes
//! of it that is opened, with the jobs that were told, and no body in it that is not in the files.

use phpmq::binlog::{self, Binlog};
use phpmq::words::ids::MessageId;
use phpmq::store::{self, Memory, Stored};

use crate::database::{folder, write};

/// Imports what the bytes stand for: the first one says where the second file begins.
///
/// # Panics
/// When the import does what it must not.
pub fn import(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let directory = folder();
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    write(&directory.path().join("binlog.1"), first);
    write(&directory.path().join("binlog.3"), second);
    let binlog = match Binlog::read(directory.path(), &mut |_| ()) {
        Ok(binlog) => binlog,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(binlog.faults().iter().all(|fault| fault.at <= bytes.len() as u64));
    let database = directory.path().join("queue.db");
    let imported = binlog::import(&binlog, &database, &mut |_| ()).expect("it was read");
    assert!(imported.body_bytes <= bytes.len() as u64);
    let opened = store::open(Some(&database), &mut |_| ()).expect("what was made is sound");
    assert_eq!(opened.facts.messages, imported.jobs);
    let mut ids: Vec<MessageId> = Vec::new();
    store::scan(&opened.memory, |row| {
        if let Stored::Message(message) = row {
            ids.push(message.id);
        }
    })
    .expect("it is sound");
    let mut memory = Memory::new(&opened.memory).expect("it is sound");
    for id in ids {
        assert!((1..imported.next_id).contains(&id.0));
        let body = memory.body(id, |_, body| [body, b"\r\n"].concat()).expect("it is sound");
        let body = body.expect("it is there");
        assert!(bytes.windows(body.len()).any(|part| part == body), "a body was made up");
    }
}
