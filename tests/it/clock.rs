//! Time that passes while the daemon does nothing, and a wall clock that is not what it was.
//!
//! Nobody's wall clock is set for that: what the database says of it is changed instead.

use std::time::Duration;

use rusqlite::Connection;

use crate::harness::{Server, eventually, now, over_both};

over_both! {
    /// What a job's owner, and anybody else, asks first after the process has gone on. Which thread
    /// the system lets run first is chance, hence the rounds.
    fn regression_10_what_ended_while_the_process_was_stopped_is_over_before_the_first_answer(transport) {
        let server = Server::on(transport);
        let mut workers: Vec<_> = (0..12).map(|_| server.beanstalk()).collect();
        let first = [
            ("reserve-with-timeout 0", "RESERVED "),
            ("touch ", "NOT_FOUND"),
            ("release 0 0 ", "NOT_FOUND"),
            ("stats-job ", "OK "),
        ];
        let mut ids = Vec::new();
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.ask(&format!("use q{number}"));
            worker.ask(&format!("watch q{number}"));
            worker.stream.send("put 0 0 1 1\r\nx\r\n");
            let id = worker.stream.line().rsplit(' ').next().unwrap().to_owned();
            worker.reserve();
            ids.push(id);
        }
        server.process.freeze();
        let begun = now();
        eventually("their time to run is over", || begun.elapsed() > Duration::from_millis(1_100));
        for (number, worker) in workers.iter_mut().enumerate() {
            let id = &ids[number];
            worker.stream.send(match first[number % first.len()].0 {
                "release 0 0 " => format!("release {id} 0 0\r\n"),
                command if command.ends_with(' ') => format!("{command}{id}\r\n"),
                command => format!("{command}\r\n"),
            });
        }
        server.process.thaw();
        for (number, worker) in workers.iter_mut().enumerate() {
            let (command, answer) = first[number % first.len()];
            let line = worker.stream.line();
            assert!(line.starts_with(answer), "{command} for {}: {line}", ids[number]);
            if command.starts_with("stats") {
                assert!(worker.stream.until("state: ready").contains("state: ready"));
            }
        }
    }
}

const HOUR_MS: i64 = 3_600_000;

/// A daemon at its end that has two jobs, one of them delayed for an hour.
fn stopped_with_delays() -> Server {
    let mut server = Server::start();
    let mut peer = server.beanstalk();
    peer.stream.send("put 0 3600 60 1\r\nx\r\n");
    assert_eq!(peer.stream.line(), "INSERTED 1");
    assert_eq!(peer.put("y"), 2);
    assert_eq!(server.stop().code(), Some(0));
    server
}

fn crc(name: &str, value: i64) -> u32 {
    let length = u64::try_from(name.len()).unwrap();
    let bytes = [&value.to_be_bytes()[..], &length.to_be_bytes(), name.as_bytes()].concat();
    crc32c::crc32c(&bytes)
}

/// Has the database say that the wall clock was so much further ahead when it was last looked at.
fn change_offset(server: &Server, by_ms: i64) {
    let database = Connection::open(server.database()).unwrap();
    let name = "clock_offset";
    let read = "SELECT value FROM meta WHERE name = ?";
    let offset: i64 = database.query_row(read, [name], |row| row.get(0)).unwrap();
    let offset = offset + by_ms;
    let write = "UPDATE meta SET value = ?, crc = ? WHERE name = ?";
    database.execute(write, (offset, crc(name, offset), name)).unwrap();
}

fn time_left(server: &Server) -> u64 {
    server.beanstalk().figure("stats-job 1", "time-left").parse().unwrap()
}

#[test]
fn time_goes_on_while_no_daemon_runs() {
    let mut server = stopped_with_delays();
    // As if the wall clock had moved on by two hours since then.
    change_offset(&server, -2 * HOUR_MS);
    server.start_again();
    assert_eq!(server.beanstalk().figure("stats-job 1", "state"), "ready");
}

#[test]
fn a_wall_clock_that_is_behind_makes_no_delay_end_early_and_none_stand_still() {
    let mut server = stopped_with_delays();
    change_offset(&server, 20_000 * 24 * HOUR_MS);
    server.start_again();
    server.process.logged("the wall clock is behind");
    assert!((3_000..=3_600).contains(&time_left(&server)), "{}", time_left(&server));
    // Whatever is confirmed from now on is committed together with that or after it.
    server.beanstalk().put("z");
    server.kill();
    // Its time goes on from there: the wall clock is believed again.
    change_offset(&server, -HOUR_MS / 2);
    server.start_again();
    assert_eq!(server.process.count_logged("the wall clock is behind"), 0);
    assert!((1_200..=1_800).contains(&time_left(&server)), "{}", time_left(&server));
}

#[test]
fn a_database_of_a_daemon_without_a_scale_has_wall_time() {
    let mut server = stopped_with_delays();
    let database = Connection::open(server.database()).unwrap();
    database.execute("DELETE FROM meta WHERE name LIKE 'clock%'", []).unwrap();
    drop(database);
    server.start_again();
    assert!((3_000..=3_600).contains(&time_left(&server)), "{}", time_left(&server));
}
