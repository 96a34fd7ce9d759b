//! What beanstalkd has left in its directory, when the daemon is called by that name: its binlog is
//! imported once, and refused where it cannot be.

use crate::harness::Children as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockOffsetType, FlockType, Signal, fcntl_getlk};

use crate::harness::{PHPMQD, Process, Stream};

/// A whole record of format 7, as the documents tell it: 64 bits, little-endian.
fn record(id: u64, state: u8, body: &[u8]) -> Vec<u8> {
    let now_ns: u64 = 1_700_000_000_000_000_000;
    let mut bytes = 4_u32.to_le_bytes().to_vec();
    bytes.extend(b"mail");
    bytes.extend(id.to_le_bytes());
    bytes.extend(5_u64.to_le_bytes()); // priority and padding
    bytes.extend(0_u64.to_le_bytes()); // delay
    bytes.extend(60_000_000_000_u64.to_le_bytes()); // time to run
    bytes.extend((body.len() as u64 + 2).to_le_bytes());
    bytes.extend(now_ns.to_le_bytes()); // created
    bytes.extend(0_u64.to_le_bytes()); // deadline
    bytes.extend([0; 20]); // counters
    bytes.extend([state, 0, 0, 0]);
    [&bytes[..], body, b"\r\n"].concat()
}

fn log(records: &[Vec<u8>]) -> Vec<u8> {
    [&7_i32.to_le_bytes()[..], &records.concat()].concat()
}

/// Two ready jobs, a buried one, and one that was not finished.
fn leave_jobs(directory: &Path) {
    let records = [record(3, 1, b"three"), record(5, 3, b"five"), record(4, 2, &[b'x'; 300])];
    fs::write(directory.join("binlog.1"), log(&records)).unwrap();
    let torn = &record(9, 1, b"torn")[..60];
    fs::write(directory.join("binlog.2"), [&log(&[])[..], torn, &[0; 200]].concat()).unwrap();
}

fn start(directory: &Path, flags: &[&str]) -> Process {
    let link = directory.join("beanstalkd");
    if !link.exists() {
        symlink(PHPMQD, &link).unwrap();
    }
    let mut command = Command::new(link);
    command.args(["-l", "127.0.0.1", "-p", "0", "-b"]).arg(directory).args(flags);
    Process::start(&mut command)
}

/// Connects to it and plays a dialogue of requests and answers.
fn play(process: &Process, dialogue: &[(&str, &str)]) {
    let line = process.logged("listening");
    process.logged("ready version");
    let mut stream = Stream::connect(line.rsplit("address=").next().unwrap().trim());
    for (request, answer) in dialogue {
        stream.send(format!("{request}\r\n"));
        let expected = format!("{answer}\r\n");
        assert_eq!(String::from_utf8_lossy(&stream.exactly(expected.len())), expected, "{request}");
    }
}

#[test]
fn jobs_are_imported_once_and_the_binlog_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    leave_jobs(directory);
    let before = (
        fs::read(directory.join("binlog.1")).unwrap(),
        fs::read(directory.join("binlog.2")).unwrap(),
    );
    let mut first = start(directory, &["-z", "200"]);
    let line = first.logged("binlog of beanstalkd imported");
    for told in ["files=2", "jobs=3", "ready=2", "delayed=0", "buried=1", "next_id=6"] {
        assert!(line.contains(told), "{line}");
    }
    first.logged("binlog.2, byte 4: the last record is unfinished");
    first.logged("imported jobs are larger than new jobs may be");
    first.logged("ready version");
    assert_eq!(holder(directory), Some(first.id()), "beanstalkd cannot start there meanwhile");
    play(
        &first,
        &[
            ("watch mail", "WATCHING 2"),
            ("reserve", "RESERVED 3 5\r\nthree"),
            ("delete 3", "DELETED"),
            ("peek 5", "FOUND 5 4\r\nfive"),
            ("use mail", "USING mail"),
            ("kick 1", "KICKED 1"),
            ("put 0 0 9 1\r\nx", "INSERTED 6"),
        ],
    );
    first.signal(Signal::KILL);
    first.wait();

    let mut second = start(directory, &[]);
    play(&second, &[("peek 3", "NOT_FOUND"), ("peek 6", "FOUND 6 1\r\nx")]);
    assert_eq!(second.count_logged("binlog"), 0, "{}", second.log());
    second.signal(Signal::TERM);
    assert!(second.wait().success());

    // beanstalkd was at work again.
    fs::write(directory.join("binlog.3"), log(&[record(6, 1, b"new")])).unwrap();
    let mut third = start(directory, &[]);
    let line = third.logged("is not imported, since the database exists");
    assert!(line.contains("jobs=4"), "{line}");
    third.logged("ready version");
    third.signal(Signal::TERM);
    assert!(third.wait().success());
    assert_eq!(fs::read(directory.join("binlog.1")).unwrap(), before.0);
    assert_eq!(fs::read(directory.join("binlog.2")).unwrap(), before.1);
}

/// Who has the lock that a beanstalkd takes before it reads its directory.
fn holder(directory: &Path) -> Option<u32> {
    let file = fs::File::open(directory.join("lock")).unwrap();
    let wanted = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = fcntl_getlk(&file, &wanted).unwrap()?;
    Some(found.pid.unwrap().as_raw_nonzero().get().try_into().unwrap())
}

#[test]
fn nothing_is_imported_while_a_beanstalkd_is_at_work() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    leave_jobs(directory);
    // As beanstalkd does it.
    let lock = fs::File::create(directory.join("lock")).unwrap();
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut refused = start(directory, &[]);
    assert_eq!(refused.wait().code(), Some(69), "{}", refused.log());
    let told = format!("(process {}); stop it first", std::process::id());
    assert!(refused.log().contains(&told), "{}", refused.log());
    assert_eq!(import(directory, &[]).status.code(), Some(69));
    assert!(!directory.join("phpmq.db").exists());
}

#[test]
fn a_binlog_that_cannot_be_read_at_all_is_no_empty_start() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::write(directory.join("binlog.1"), b"\x06\0\0\0 and something else").unwrap();
    let mut refused = start(directory, &[]);
    assert_eq!(refused.wait().code(), Some(65), "{}", refused.log());
    assert!(refused.log().contains("has format version 6"), "{}", refused.log());
    assert!(!directory.join("phpmq.db").exists());
}

fn import(directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_phpmqctl"))
        .arg("import-binlog")
        .arg(directory)
        .args(words)
        .said()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn the_tool_imports_into_any_new_database_and_says_what_it_did() {
    let left = tempfile::tempdir().unwrap();
    leave_jobs(left.path());
    let dry = import(left.path(), &["--dry-run"]);
    let counts = "2 files, 3 jobs (2 ready, 0 delayed, 1 buried), 309 bytes, next id 6";
    assert!(said(&dry).contains(&format!("{counts}; nothing was written")), "{}", said(&dry));
    assert_eq!(dry.status.code(), Some(0));
    assert_eq!(fs::read_dir(left.path()).unwrap().count(), 2);

    let other = tempfile::tempdir().unwrap();
    let database = other.path().join("q.db");
    let words = ["--database", database.to_str().unwrap()];
    let done = import(left.path(), &words);
    assert!(said(&done).contains(&format!("{counts}; imported into")), "{}", said(&done));
    assert!(said(&done).contains("the last record is unfinished"), "{}", said(&done));
    assert_eq!(done.status.code(), Some(0), "what nobody was promised is no loss");
    let mode = fs::metadata(&database).unwrap().permissions().mode();
    assert_eq!(mode & 0o7, 0);

    let again = import(left.path(), &words);
    assert_eq!(again.status.code(), Some(73), "{}", said(&again));
    let nothing = import(other.path(), &[]);
    assert_eq!(nothing.status.code(), Some(65), "{}", said(&nothing));
    assert_eq!(import(&left.path().join("no"), &[]).status.code(), Some(73));

    fs::write(left.path().join("binlog.4"), log(&[record(8, 1, b"more")])).unwrap();
    let gap = import(left.path(), &["--dry-run"]);
    assert!(said(&gap).contains("binlog.3 is missing"), "{}", said(&gap));
    assert_eq!(gap.status.code(), Some(1));
}
