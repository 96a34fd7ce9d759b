//! One daemon on one database, by whatever name it is reached, and what becomes of it when others
//! meddle with its files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::harness::{Beanstalk, PHPMQD, Process, Server, eventually};

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
        server.process.count_logged("another file had") > 0
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
