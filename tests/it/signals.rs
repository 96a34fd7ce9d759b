//! Stop, drain and reload.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;

use crate::harness::{Server, Setup, eventually, now, over_both, packets};

over_both! {
    fn a_draining_daemon_takes_no_messages_and_serves_consumers(transport) {
        let server = Server::on(transport);
        let mut peer = server.beanstalk();
        peer.put("before");
        let mut console = server.console();
        server.process.signal(Signal::USR1);
        eventually("it drains", || console.figure("draining") == "yes");
        assert_eq!(peer.ask("put 0 0 60 1\r\nA"), "DRAINING");
        assert_eq!(peer.figure("stats", "draining"), "true");
        let (id, body) = peer.reserve();
        assert_eq!(body, "before");
        assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
        server.process.signal(Signal::USR1);
        eventually("it drains no more", || console.figure("draining") == "no");
        assert_eq!(peer.put("after"), 2);
    }

    fn a_php_mq_sender_is_held_at_its_gate_by_a_drain_and_loses_nothing(transport) {
        let server = Server::on(transport);
        let mut console = server.console();
        server.process.signal(Signal::USR1);
        eventually("it drains", || console.figure("draining") == "yes");
        let mut sender = server.phpmq(1);
        // What is on its way when the gate closes is kept; much more than that is held.
        let body = "x".repeat(100_000);
        let sent = sender.stream.stuff(&packets(1, &[(1, b"q"), (2, body.as_bytes())]), 400_000_000);
        let taken = console.number("messages");
        assert!(taken < 100, "{taken} messages were taken, {sent} bytes were sent");
        server.process.signal(Signal::USR1);
        eventually("the gate opens", || console.number("messages") > taken);
        assert_eq!(console.figure("draining"), "no");
    }

    fn sigterm_and_sigint_stop(transport) {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = Server::on(transport);
            let mut peer = server.beanstalk();
            peer.put("x");
            let mut waiting = server.connect("beanstalk");
            waiting.send("watch empty\r\nignore default\r\nreserve\r\n");
            eventually("it waits", || peer.server("current-waiting") == 1);
            let began = now();
            server.process.signal(signal);
            assert_eq!(server.process.wait().code(), Some(0));
            assert!(began.elapsed().as_secs() < 5, "it took {:?}", began.elapsed());
            assert!(server.process.log().contains("stopped"));
            // Everybody is told: the connections end in an orderly way.
            assert!(waiting.rest().starts_with("WATCHING 2\r\nWATCHING 1\r\n"));
            assert_eq!(peer.stream.rest(), "");
        }
    }
}

#[test]
fn a_reload_takes_up_limits_and_the_log_level() {
    let mut server = Setup::new().limits("max_message_size = 10").log_level("info").start();
    let mut peer = server.beanstalk();
    assert_eq!(peer.ask("put 0 0 60 11\r\n0123456789a"), "JOB_TOO_BIG");
    server.setup = server.setup.clone().limits("max_window = 5").log_level("debug");
    server.reload();
    drop(peer);
    server.process.logged("debug connection closed");
    // Connections stay open over a reload.
    let mut peer = server.beanstalk();
    server.setup = Setup::new().limits("max_message_size = 11").storage("commit_timeout = \"9s\"");
    server.reload();
    assert!(peer.ask("put 0 0 60 11\r\n0123456789a").starts_with("INSERTED"));
    server.process.logged("a changed key needs a restart key=storage.commit_timeout");
    // Each reload says what it has changed.
    let reloads: Vec<String> = server
        .process
        .log()
        .lines()
        .filter_map(|line| line.split("reloaded changed=").nth(1))
        .map(str::to_owned)
        .collect();
    assert_eq!(reloads[0], "\"limits.max_window, log.level\"");
    assert_eq!(reloads[1], "\"limits.max_message_size, limits.max_window\"");
    server.reload();
    server.process.logged("configuration reloaded changed=nothing");
    // A wrong file changes nothing, and is said so with its line.
    server.setup = server.setup.clone().limits("max_message_sise = 1");
    server.write_config();
    server.process.signal(Signal::HUP);
    let line = server.process.logged("the old one stays in force");
    assert!(line.contains("error") && line.contains("max_message_sise"), "{line}");
    assert!(peer.ask("put 0 0 60 11\r\n0123456789a").starts_with("INSERTED"));
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_confirmed() {
    for level in ["periodic", "write", "sync"] {
        let mut server = Setup::new().durability(level).log_level("info").start();
        let confirmed = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let address = server.address("beanstalk").to_owned();
                let (confirmed, stop) = (&confirmed, &stop);
                scope.spawn(move || {
                    let mut stream = crate::harness::Stream::connect(&address);
                    while !stop.load(Ordering::Relaxed) {
                        let pipelined = "put 0 0 60 5\r\nhello\r\n".repeat(20);
                        if stream.try_send(pipelined).is_err() {
                            return;
                        }
                        for _ in 0..20 {
                            match stream.try_line() {
                                Some(line) if line.starts_with("INSERTED") => {
                                    confirmed.fetch_add(1, Ordering::Relaxed);
                                }
                                _ => return,
                            }
                        }
                    }
                });
            }
            eventually("there is load", || confirmed.load(Ordering::Relaxed) > 500);
            let began = now();
            assert_eq!(server.stop().code(), Some(0), "{level}");
            let took = began.elapsed();
            stop.store(true, Ordering::Relaxed);
            assert!(took.as_secs() < 4, "{level}: the stop took {took:?}");
        });
        assert!(!server.path("q.db-wal").exists());
        server.start_again();
        let kept = server.console().number("messages");
        let confirmed = confirmed.load(Ordering::Relaxed);
        assert!(kept >= confirmed, "{level}: {confirmed} confirmed, {kept} kept");
        // Sent and not confirmed: at most what was under way.
        assert!(kept <= confirmed + 3 * 20, "{level}: {confirmed} confirmed, {kept} kept");
    }
}

#[test]
fn no_peer_can_hold_a_stop_up() {
    let mut server =
        Setup::new().limits("max_memory = \"64MiB\"").limits("max_output = \"1MiB\"").start();
    let mut sender = server.phpmq(1);
    sender.send_confirmed("kept", "x");
    // One that reads nothing of megabytes, one behind a closed gate, one in a frame, one that
    // waits, one that refreshes a screen.
    let body = "x".repeat(1_000_000);
    for _ in 0..8 {
        sender.send("q", &body);
    }
    let deaf = server.phpmq(1).consuming(&server, "q", 100);
    let mut gated = server.connect("beanstalk");
    gated.send("watch nothing\r\nignore default\r\nreserve\r\n");
    gated.stuff("list-tube-used\r\n".repeat(64).as_bytes(), 64 * 1024 * 1024);
    let mut held = server.phpmq(1);
    held.stream.stuff(&packets(1, &[(1, b"p"), (2, body.as_bytes())]), 500_000_000);
    let mut frame = server.connect("beanstalk");
    frame.send("put 0 0 60 1000\r\nabc");
    let mut monitor = server.console();
    monitor.stream.send("monitor\n");
    monitor.answer();
    let began = now();
    assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
    let took = began.elapsed();
    println!("the stop took {took:?}");
    // One second for outboxes, and the last commit.
    assert!(took.as_secs() < 6, "{took:?}");
    drop((deaf, gated, held, frame));
    server.start_again();
    assert_eq!(server.beanstalk().tube("kept", "current-jobs-ready"), 1);
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    // A peer that takes nothing of 8 MiB keeps the stop waiting for a second.
    let mut server = Setup::new().without_database().start();
    let mut sender = server.phpmq(1);
    let body = "x".repeat(1024 * 1024);
    for _ in 0..12 {
        sender.send("q", &body);
    }
    sender.send_confirmed("q", "last");
    let consumer = server.phpmq(1).consuming(&server, "q", 100);
    server.process.signal(Signal::TERM);
    server.process.logged("stopping");
    server.process.signal(Signal::TERM);
    let status = server.process.wait();
    assert_eq!(status.code(), Some(128 + 15), "{}", server.process.log());
    drop(consumer);
}
