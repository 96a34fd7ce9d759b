//! What the durable side costs: prints figures and asserts nothing.
//!
//! `cargo bench --bench store [messages] [bytes of a body]`

use std::path::Path;
use std::time::{Duration, Instant};

use phpmq::journal::Journal;
use phpmq::store::{self, File, Memory, Stored};
use phpmq::words::change::{Attributes, Change, MessageRow};
use phpmq::words::ids::{MessageId, QueueId, QueueName, Sequence};

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let messages = numbers.next().unwrap_or(1_000_000_u64);
    let body_bytes = numbers.next().and_then(|bytes| usize::try_from(bytes).ok());
    for body_bytes in body_bytes.map_or(vec![100, 1_000], |bytes| vec![bytes]) {
        println!("-- {messages} messages of {body_bytes} bytes");
        journal_alone(messages, body_bytes);
        journal_and_memory(messages, body_bytes);
        file(messages, body_bytes);
    }
}

fn row(id: u64, body_bytes: usize) -> MessageRow {
    MessageRow {
        id: MessageId(id),
        queue: QueueId(1),
        priority: 1_024,
        sequence: Sequence(id),
        created_ms: 1_700_000_000_000,
        expires_ms: None,
        due_ms: None,
        time_to_run_ms: 60_000,
        attributes: Attributes::default(),
        body: vec![b'x'; body_bytes].into(),
    }
}

/// Puts with the removal of the message 1,000 puts ago, handed over every 25,000 messages.
fn journal_alone(messages: u64, body_bytes: usize) {
    let rows: Vec<MessageRow> = (1..=messages).map(|id| row(id, body_bytes)).collect();
    let mut journal = Journal::new();
    let start = now();
    for row in rows {
        let id = row.id.0;
        journal.record(Change::Put(row));
        if id > 1_000 {
            journal.record(Change::Removed(MessageId(id - 1_000)));
        }
        if id.is_multiple_of(25_000) {
            // Nothing is kept for a database in memory, here and below.
            drop(journal.take_for_rewrite());
            journal.succeeded();
        }
    }
    say("journal: put + removed, bodies freed", start, messages);
}

/// The dispatcher's share of a message that stays for a while, brought in 10,000 at a time.
fn journal_and_memory(messages: u64, body_bytes: usize) {
    let opened = store::open(None, &mut |_| ()).expect("memory is enough");
    let mut memory = Memory::new(&opened.memory).expect("the statements are right");
    let mut journal = Journal::new();
    let mut bytes = 0;
    let start = now();
    for id in 1..=messages {
        journal.record(Change::Put(row(id, body_bytes)));
        if id > 20_000 {
            let old = MessageId(id - 20_000);
            let read = memory.body(old, |_, body| body.len()).expect("memory is enough");
            bytes += read.unwrap_or(0);
            journal.record(Change::Removed(old));
        }
        if id.is_multiple_of(10_000) || id == messages {
            let batch = journal.take_for_rewrite();
            memory.apply(&batch, 0..batch.places()).expect("memory is enough");
            drop(batch);
            journal.succeeded();
        }
    }
    say("journal and memory: put + body + removed", start, messages);
    std::hint::black_box(bytes);
}

fn file(messages: u64, body_bytes: usize) {
    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let path = directory.path().join("bench.db");
    let opened = store::open(Some(&path), &mut |_| ()).expect("a new database can be made");
    let store_file = opened.file.expect("there is a file");
    let mut disk = File::new(&store_file).expect("the statements are right");
    let mut journal = Journal::new();
    let name = QueueName::new(b"bench").expect("this is a name");
    journal.record(Change::QueueNamed { id: QueueId(1), name });
    let start = now();
    for id in 1..=messages {
        journal.record(Change::Put(row(id, body_bytes)));
        if id.is_multiple_of(10_000) || id == messages {
            let batch = journal.take_for_rewrite();
            disk.commit(&batch, true).expect("the disk takes it");
            disk.checkpoint_if_due().expect("the disk takes it");
            drop(batch);
            journal.succeeded();
        }
    }
    say("file: put, 10,000 a commit, fsync, checkpoints", start, messages);
    let mut next = messages + 1;
    for (sync, count, name) in
        [(true, 1_000, "file: commit of one, fsync"), (false, 50_000, "file: commit of one")]
    {
        let start = now();
        for _ in 0..count {
            journal.record(Change::Put(row(next, body_bytes)));
            next += 1;
            let batch = journal.take_for_rewrite();
            disk.commit(&batch, sync).expect("the disk takes it");
            disk.checkpoint_if_due().expect("the disk takes it");
            if sync {
                disk.sizes().expect("the file is there");
            }
            drop(batch);
            journal.succeeded();
        }
        say(name, start, count);
    }
    drop(disk);
    store_file.close().expect("the log can be moved");
    load(&path, next - 1);
}

fn load(path: &Path, messages: u64) {
    let start = now();
    let opened = store::open(Some(path), &mut |_| ()).expect("the database is sound");
    say("start: copy, check, reserve ids", start, messages);
    let start = now();
    let mut count = 0;
    let count_messages = |row: Stored<'_>| count += u64::from(matches!(row, Stored::Message(_)));
    store::scan(&opened.memory, count_messages).expect("the database is sound");
    say("start: scan for the engine", start, count);
}

/// A moment, and the processor time that this thread had taken by then: it is steadier on a machine
/// that does other things too.
struct Start {
    moment: Instant,
    cpu: Duration,
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Start {
    Start { moment: Instant::now(), cpu: cpu_time() }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn say(what: &str, start: Start, count: u64) {
    let (elapsed, cpu) = (start.moment.elapsed(), cpu_time() - start.cpu);
    let each = |time: Duration| time.as_nanos() / u128::from(count.max(1));
    println!(
        "{what:50} {:>8} ns each, {:>8} ns processor time, {:>9.3} s",
        each(elapsed),
        each(cpu),
        elapsed.as_secs_f64()
    );
}
