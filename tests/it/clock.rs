//! Time that passes while the daemon does nothing.

use std::time::Duration;

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
