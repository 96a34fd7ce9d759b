//! Which database files are refused, untouched, and what other programs see of a good one.

use crate::harness::Children as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

use crate::harness::{PHPMQD, Process, Server, Setup, check};

/// A database with some messages, of a daemon that has stopped.
fn stopped_with_messages() -> Server {
    let mut server = Server::start();
    let mut sender = server.phpmq(2);
    for number in 0..200 {
        sender.send("q", &format!("the body of message {number}"));
    }
    sender.send_confirmed("q", "the last one");
    assert_eq!(server.stop().code(), Some(0));
    server
}

/// The daemon refuses the file with exit code 65, names it, and changes nothing.
fn is_refused(database: &Path) -> String {
    let before = fs::read(database).unwrap();
    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(database).args(["--listen", "console=127.0.0.1:0"]);
    let mut process = Process::start(&mut command);
    let status = process.wait();
    let text = process.log();
    assert_eq!(status.code(), Some(65), "{text}");
    assert!(text.contains(database.to_str().unwrap()), "{text}");
    assert!(fs::read(database).unwrap() == before, "the file was changed");
    text
}

/// A stopped daemon with a message whose body was changed.
fn stopped_and_damaged() -> Server {
    let server = stopped_with_messages();
    let mut bytes = fs::read(server.database()).unwrap();
    let body = b"the body of message 77";
    // Old copies may lie about in free space: all of them, so that the one in force is hit.
    let mut hits = 0;
    for place in 0..bytes.len() - body.len() {
        if bytes[place..].starts_with(body) {
            bytes[place] ^= 1;
            hits += 1;
        }
    }
    assert!(hits > 0);
    fs::write(server.database(), bytes).unwrap();
    server
}

#[test]
fn a_changed_body_is_refused_and_recovered_without_it() {
    let mut server = stopped_and_damaged();
    let text = is_refused(&server.database());
    assert!(text.contains("message 78 fails its checksum"), "{text}");
    assert!(text.contains("--recover"), "{text}");

    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(server.database()).arg("--recover");
    let output = command.said().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("200"), "{text}");
    server.start_again();
    assert_eq!(server.console().number("messages"), 200);
    let mut consumer = server.phpmq(2);
    consumer.consume("q", 1_000);
    let bodies: Vec<String> = (0..200).map(|_| consumer.receive().body).collect();
    assert!(!bodies.contains(&"the body of message 77".to_owned()));
    assert_eq!(bodies[199], "the last one");
}

/// A repair once died of the signal that comes with a limit on the size of files.
#[test]
fn regression_4_a_repair_without_room_says_so_and_changes_nothing() {
    let mut server = stopped_and_damaged();
    let before = fs::read(server.database()).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 32 && exec \"$0\" --database \"$1\" --recover", PHPMQD]);
    let output = command.arg(server.database()).said().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{text}");
    assert!(text.contains("q.db"), "{text}");
    assert!(fs::read(server.database()).unwrap() == before);

    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(server.database()).arg("--recover");
    assert!(command.ended().unwrap().success());
    server.start_again();
    assert_eq!(server.console().number("messages"), 200);
}

#[test]
fn a_file_with_a_damaged_structure_is_refused() {
    let server = stopped_with_messages();
    let mut bytes = fs::read(server.database()).unwrap();
    // The header of the second page.
    let page = 8 * 1024;
    bytes[page..page + 64].fill(0xa5);
    fs::write(server.database(), bytes).unwrap();
    is_refused(&server.database());
}

#[test]
fn a_cut_file_is_refused() {
    let server = stopped_with_messages();
    let bytes = fs::read(server.database()).unwrap();
    fs::write(server.database(), &bytes[..bytes.len() - 8 * 1024]).unwrap();
    is_refused(&server.database());
}

#[test]
fn what_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letter.txt");
    fs::write(&path, "Dear Sir or Madam,\n".repeat(100)).unwrap();
    is_refused(&path);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE precious(data); INSERT INTO precious VALUES (1);").unwrap();
    drop(other);
    let text = is_refused(&path);
    assert!(text.contains("is not a database of phpmqd"), "{text}");
}

#[test]
fn a_database_from_the_future_is_refused() {
    let server = stopped_with_messages();
    let other = Connection::open(server.database()).unwrap();
    other.execute_batch("PRAGMA user_version = 1000; PRAGMA journal_mode = DELETE;").unwrap();
    drop(other);
    let text = is_refused(&server.database());
    assert!(text.contains("1000"), "{text}");
}

#[test]
fn other_programs_can_read_while_the_daemon_runs() {
    let server = Server::start();
    check(
        &server,
        "
        > use jobs
        < USING jobs
        > put 5 0 60 5
        > hello
        < INSERTED 1
        > put 5 0 60 5
        > world
        < INSERTED 2
        ",
    );
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(server.database(), flags).unwrap();
    let sql = "SELECT m.id, q.name, m.priority, CAST(m.body AS TEXT) FROM message m \
               JOIN queue q ON q.id = m.queue ORDER BY m.id";
    let mut statement = reader.prepare(sql).unwrap();
    let rows: Vec<(i64, String, i64, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let row = |id, body: &str| (id, "jobs".to_owned(), 5, body.to_owned());
    assert_eq!(rows, [row(1, "hello"), row(2, "world")]);
    // And the daemon goes on while somebody reads.
    let mut open = statement.query([]).unwrap();
    open.next().unwrap();
    assert_eq!(server.beanstalk().put("more"), 3);
}

/// A daemon that runs on a database with so many messages, some of them in its log alone.
fn running_with_messages() -> Server {
    let mut server = stopped_with_messages();
    server.start_again();
    let mut peer = server.beanstalk();
    for _ in 0..99 {
        peer.put("more");
    }
    server
}

/// Puts a backup in the database's place as the manual says, and starts.
fn restore(server: &mut Server, backup: &Path) {
    for name in ["q.db", "q.db-wal", "q.db-shm"] {
        let _ = fs::remove_file(server.path(name));
    }
    fs::copy(backup, server.database()).unwrap();
    server.start_again();
}

#[test]
fn each_documented_backup_of_a_running_daemon_can_be_restored() {
    let mut server = running_with_messages();
    let into = server.path("into.db");
    let copied = server.path("copied.db");
    let reader = Connection::open(server.database()).unwrap();
    reader.execute("VACUUM INTO ?", [into.to_str().unwrap()]).unwrap();
    // What the shell's .backup does.
    let mut to = Connection::open(&copied).unwrap();
    rusqlite::backup::Backup::new(&reader, &mut to).unwrap().step(-1).unwrap();
    drop((reader, to));
    // After a stop the file is whole by itself.
    let stopped = server.path("stopped.db");
    server.beanstalk().put("after the backups");
    assert_eq!(server.stop().code(), Some(0));
    fs::copy(server.database(), &stopped).unwrap();
    for (backup, messages) in [(&into, 300), (&copied, 300), (&stopped, 301), (&into, 300)] {
        restore(&mut server, backup);
        assert_eq!(server.console().number("messages"), messages, "{}", backup.display());
        server.beanstalk().put("life goes on");
        server.kill();
        server.start_again();
        assert_eq!(server.console().number("messages"), messages + 1, "{}", backup.display());
        server.kill();
    }
}

/// Such a copy started with none of 20,000 messages once, and said that it was stopped cleanly.
#[test]
fn a_copy_without_its_log_is_refused_and_can_be_recovered() {
    let server = running_with_messages();
    let copy = server.path("copy.db");
    fs::copy(server.database(), &copy).unwrap();
    let text = is_refused(&copy);
    assert!(text.contains("copy.db-wal") && text.contains("missing"), "{text}");
    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(&copy).arg("--recover");
    assert!(command.ended().unwrap().success());
    let mut second = Server::start();
    second.kill();
    restore(&mut second, &copy);
    assert_eq!(second.console().number("messages"), 201);
}

/// The old log was replayed into the backup once.
#[test]
fn a_backup_beside_the_log_of_a_killed_daemon_is_refused() {
    let mut server = running_with_messages();
    let backup = server.path("backup.db");
    let reader = Connection::open(server.database()).unwrap();
    reader.execute("VACUUM INTO ?", [backup.to_str().unwrap()]).unwrap();
    drop(reader);
    server.beanstalk().put("after the backup");
    server.kill();
    fs::copy(&backup, server.database()).unwrap();
    let text = is_refused(&server.database());
    assert!(text.contains("q.db-wal") && text.contains("does not belong"), "{text}");
    fs::remove_file(server.path("q.db-wal")).unwrap();
    fs::remove_file(server.path("q.db-shm")).unwrap();
    server.start_again();
    assert_eq!(server.console().number("messages"), 300);
}

/// The log of a killed daemon lost a bit, and with it all messages behind that without a word.
#[test]
fn regression_10_a_start_tells_and_keeps_what_a_damaged_log_hides() {
    let mut server = Setup::new().durability("sync").start();
    let mut sender = server.phpmq(2);
    for number in 0..100 {
        sender.send_confirmed("q", &format!("message {number}"));
    }
    server.kill();
    let log = server.database().with_file_name("q.db-wal");
    let mut bytes = fs::read(&log).unwrap();
    bytes[32 + 40 * (24 + 8192) + 5_000] ^= 1;
    fs::write(&log, &bytes).unwrap();

    // Without room for the copy nothing is changed.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 400 && exec \"$0\" --database \"$1\"", PHPMQD]);
    let mut process = Process::start(command.arg(server.database()));
    assert_eq!(process.wait().code(), Some(74), "{}", process.log());
    let said = process.log();
    assert!(said.contains("q.db-wal.damaged-1") && said.contains("keep a copy"), "{said}");
    assert!(fs::read(&log).unwrap() == bytes, "{said}");
    assert!(!log.with_file_name("q.db-wal.damaged").exists());

    server.start_again();
    let there = server.console().number("messages");
    assert!(there < 100, "{there}");
    let text = server.process.log();
    let line = text.lines().find(|line| line.contains("write-ahead log is damaged")).unwrap();
    assert!(line.contains("q.db-wal.damaged-1"), "{line}");
    assert!(line.contains(&format!("missing={}", 100 - there)), "{line}");
    assert!(line.contains("--recover"), "{line}");
    assert_eq!(server.stop().code(), Some(0));

    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(server.database()).arg("--recover");
    assert!(command.ended().unwrap().success());
    server.start_again();
    assert_eq!(server.console().number("messages"), 100);
}
