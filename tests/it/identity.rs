//! One daemon on one database, by whatever name it is reached, and what becomes of it when others
//! meddle with its files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::harness::{Beanstalk, PHPMQD, Process, Server, Setup, eventually};

/// A daemon on this database with nothing but a console.
fn daemon(database: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(PHPMQD);
    command.arg("--database").arg(database).args(["--listen", "console=127.0.0.1:0"]).args(more);
    Process::start(command.env_remove("NOTIFY_SOCKET").env("HOME", "/nonexistent"))
}

/// Starts it, which must end by itself; what it says.
fn ends(code: i32, database: &Path, more: &[&str]) -> String {
    let mut process = daemon(database, more);
    let status: ExitStatus = process.wait();
    assert_eq!(status.code(), Some(code), "{}", process.log());
    process.log()
}

/// A daemon with so many messages, all confirmed.
fn with_messages(count: usize) -> Server {
    let server = Server::start();
    let mut peer = server.beanstalk();
    put_some(&mut peer, count);
    server
}

fn put_some(peer: &mut Beanstalk, count: usize) {
    for _ in 0..count {
        peer.put("kept");
    }
}

fn holds(server: &Server, count: u64) {
    assert_eq!(server.console().number("messages"), count);
}

/// A second daemon came up through a hard link, and stopping both left the file malformed.
#[test]
fn a_hard_link_does_not_lead_a_second_daemon_past_the_first() {
    let mut server = with_messages(20);
    let link = server.path("elsewhere");
    fs::create_dir(&link).unwrap();
    let link = link.join("other.db");
    fs::hard_link(server.database(), &link).unwrap();
    for more in [&[][..], &["--recover"]] {
        let text = ends(69, &link, more);
        assert!(text.contains("in use by"), "{text}");
    }
    // The first one says so once and goes on.
    let mut peer = server.beanstalk();
    let said = "hard link";
    eventually("it is noticed", || {
        peer.put("more");
        server.process.count_logged(said) > 0
    });
    put_some(&mut peer, 20);
    assert_eq!(server.process.count_logged(said), 1);
    let count = server.console().number("messages");
    assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
    for name in [&link, &server.database()] {
        let text = ends(65, name, &[]);
        assert!(text.contains("hard link") && text.contains("find"), "{text}");
    }
    fs::remove_file(link).unwrap();
    server.start_again();
    holds(&server, count);
}

/// Cleaners of temporary files remove what nobody has written to for long.
#[test]
fn a_removed_lock_file_lets_nobody_in_and_comes_back() {
    let server = with_messages(1);
    let lock = server.path("q.db.lock");
    fs::remove_file(&lock).unwrap();
    for more in [&[][..], &["--recover"]] {
        let text = ends(69, &server.database(), more);
        assert!(text.contains(&format!("process {}", server.process.id())), "{text}");
    }
    let mut peer = server.beanstalk();
    let said = "lock file was removed";
    eventually("it is noticed", || {
        peer.put("more");
        server.process.count_logged(said) > 0
    });
    let holder = fs::read_to_string(&lock).unwrap();
    assert_eq!(holder.trim(), server.process.id().to_string());
    put_some(&mut peer, 20);
    assert_eq!(server.process.count_logged(said), 1);
}

#[test]
fn a_database_that_was_written_anew_is_as_locked_as_the_one_before() {
    let server = with_messages(5);
    let before = fs::metadata(server.database()).unwrap().ino();
    // So that its number is not used again.
    let _old = fs::File::open(server.database()).unwrap();
    fs::remove_file(server.database()).unwrap();
    let mut peer = server.beanstalk();
    eventually("it is written anew", || {
        peer.ask("put 0 0 60 1\r\nx");
        fs::metadata(server.database()).is_ok_and(|found| found.ino() != before)
            && server.process.count_logged("was rewritten") > 0
    });
    fs::remove_file(server.path("q.db.lock")).unwrap();
    let text = ends(69, &server.database(), &[]);
    assert!(text.contains(&format!("process {}", server.process.id())), "{text}");
}

#[test]
fn what_somebody_puts_in_the_databases_place_is_kept_under_another_name() {
    let mut server = with_messages(5);
    let letter = server.path("letter");
    fs::write(&letter, "the only copy").unwrap();
    fs::rename(&letter, server.database()).unwrap();
    let mut peer = server.beanstalk();
    eventually("it is written anew", || {
        peer.ask("put 0 0 60 1\r\nx");
        server.process.count_logged("another file was found") > 0
    });
    assert_eq!(fs::read_to_string(server.path("q.db.replaced-1")).unwrap(), "the only copy");
    eventually("it takes puts again", || {
        server.beanstalk().ask("put 0 0 60 1\r\nx").starts_with("INSERTED")
    });
    let count = server.console().number("messages");
    server.kill();
    server.start_again();
    holds(&server, count);
}

#[test]
fn of_many_daemons_that_start_at_once_on_a_new_database_one_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("q.db");
    let mut daemons: Vec<Process> = (0..6).map(|_| daemon(&database, &[])).collect();
    eventually("all but one have ended", || {
        daemons.iter_mut().filter_map(|daemon| daemon.has_ended().then_some(())).count() == 5
    });
    daemons.retain_mut(|daemon| {
        let has_ended = daemon.has_ended();
        if has_ended {
            assert_eq!(daemon.wait().code(), Some(69), "{}", daemon.log());
        }
        !has_ended
    });
    daemons[0].logged(" ready ");
}

/// A daemon whose database is in a directory of its own, inside the one that is returned.
fn in_a_directory(level: &str) -> (Server, TempDir) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("store")).unwrap();
    let setup = Setup::new().durability(level).storage("commit_timeout = \"100ms\"");
    (setup.database_at(&home.path().join("store/q.db")).start(), home)
}

/// It said "rows=0" once while everything was lost.
#[test]
fn a_removed_directory_loses_all_and_the_last_line_says_how_much() {
    // Each waits for the whole time that a stop may take.
    for (level, is_noticed) in [("periodic", false), ("write", true), ("sync", false)] {
        let (mut server, home) = in_a_directory(level);
        let mut peer = server.beanstalk();
        put_some(&mut peer, 30);
        fs::remove_dir_all(home.path().join("store")).unwrap();
        if is_noticed {
            eventually("it is noticed", || {
                peer.ask("put 0 0 60 1\r\nx");
                server.process.count_logged("database file is suspect") > 0
            });
        }
        assert_eq!(server.stop().code(), Some(74), "{}", server.process.log());
        let line = server.process.logged("only in memory");
        let rows = line.split(' ').find_map(|word| word.strip_prefix("rows="));
        assert!(rows.unwrap().parse::<u64>().unwrap() >= 30, "{level}: {line}");
        assert_eq!(server.process.count_logged("everything is in"), 0);
    }
}

#[test]
fn a_moved_directory_is_followed() {
    let (mut server, home) = in_a_directory("write");
    let moved = home.path().join("moved");
    let mut peer = server.beanstalk();
    put_some(&mut peer, 30);
    fs::rename(home.path().join("store"), &moved).unwrap();
    eventually("it is noticed", || {
        peer.put("more");
        server.process.count_logged("the database was moved") > 0
    });
    put_some(&mut peer, 30);
    let count = server.console().number("messages");
    assert_eq!(server.process.count_logged("the database was moved"), 1);
    let text = ends(69, &moved.join("q.db"), &[]);
    assert!(text.contains("in use"), "{text}");
    assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
    server.setup = server.setup.clone().database_at(&moved.join("q.db"));
    server.start_again();
    holds(&server, count);
}

#[test]
fn a_file_moved_away_without_its_log_is_written_anew() {
    let mut server = with_messages(30);
    fs::rename(server.database(), server.path("away.db")).unwrap();
    assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
    server.start_again();
    holds(&server, 30);
}

/// What others do to the files of a daemon that has nothing to do, which then is stopped.
#[test]
fn everything_is_in_the_file_when_that_is_said() {
    type Deed = fn(&Server);
    let deeds: [(&str, Deed); 6] = [
        ("emptied", |server| drop(fs::File::create(server.database()).unwrap())),
        ("cut", |server| {
            let file = fs::OpenOptions::new().write(true).open(server.database()).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("overwritten", |server| {
            // As cp does: the file stays, its content goes.
            fs::write(server.database(), vec![0x20; 1024 * 1024]).unwrap();
        }),
        ("log emptied", |server| drop(fs::File::create(server.path("q.db-wal")).unwrap())),
        ("removed", |server| fs::remove_file(server.database()).unwrap()),
        ("all removed", |server| {
            for name in ["q.db", "q.db-wal", "q.db-shm", "q.db.lock"] {
                fs::remove_file(server.path(name)).unwrap();
            }
        }),
    ];
    for (what, deed) in deeds {
        let mut server = with_messages(200);
        // So that some of them are in the file and some in its log.
        assert_eq!(server.stop().code(), Some(0));
        server.start_again();
        put_some(&mut server.beanstalk(), 10);
        deed(&server);
        assert_eq!(server.stop().code(), Some(0), "{what}: {}", server.process.log());
        server.process.logged("everything is in the database file");
        server.start_again();
        holds(&server, 210);
    }
}

#[test]
fn a_file_that_is_cut_while_the_daemon_runs_is_written_anew() {
    let mut server = with_messages(200);
    assert_eq!(server.stop().code(), Some(0));
    server.start_again();
    drop(fs::File::create(server.database()).unwrap());
    let mut peer = server.beanstalk();
    eventually("it is written anew", || {
        peer.ask("put 0 0 60 1\r\nx");
        server.process.count_logged("was rewritten") > 0
    });
    let count = server.console().number("messages");
    server.kill();
    server.start_again();
    holds(&server, count);
}
