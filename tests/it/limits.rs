//! The operator's limits, each reached on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Beanstalk, Server, Setup, check, eventually, now, over_both, packets};

over_both! {
    fn connections_over_the_limit_are_told_so_in_their_protocol(transport) {
        let server = Setup::on(transport).limits("max_connections = 3").start();
        let mut held: Vec<_> = (0..3).map(|_| server.beanstalk()).collect();
        assert_eq!(held[2].put("x"), 1);
        assert_eq!(server.connect("beanstalk").rest(), "OUT_OF_MEMORY\r\n");
        assert!(server.connect("console").rest().to_lowercase().contains("connections"));
        // php-mq has no word for it.
        assert_eq!(server.connect("phpmq").rest(), "");
        assert_eq!(held[0].server("current-connections"), 3);
        // A place that is given back can be taken again.
        drop(held.pop());
        eventually("there is room", || {
            let mut peer = server.connect("beanstalk");
            // Refused ones may be closed before this arrives.
            let sent = peer.try_send("list-tube-used\r\n");
            sent.is_ok() && peer.try_line().is_some_and(|line| line == "USING default")
        });
        drop(held);
        eventually("all are gone", || {
            let mut peer = server.connect("beanstalk");
            peer.try_send("stats\r\n").is_ok()
                && peer.rest_of_stats().is_some_and(|text| text.contains("current-connections: 1\n"))
        });
        assert!(server.console().number("connections refused") >= 3);
    }

    fn one_peer_has_a_limit_of_its_own(transport) {
        let server = Setup::on(transport).limits("max_connections_per_peer = 2").start();
        let _held = [server.beanstalk(), server.beanstalk()];
        assert_eq!(server.connect("beanstalk").rest(), "OUT_OF_MEMORY\r\n");
    }

    fn a_frame_that_never_ends_is_given_up(transport) {
        let server = Setup::on(transport).limits("frame_timeout = \"400ms\"").start();
        let whole = packets(1, &[(1, b"q"), (2, b"whole")]);
        let half = &whole[..whole.len() - 3];
        let starts: Vec<(&str, Vec<u8>)> = vec![
            ("phpmq", [&whole[..], half].concat()),
            ("phpmq", b"H".to_vec()),
            ("beanstalk", b"put 0 0 60 100\r\nabc".to_vec()),
            ("beanstalk", b"list-tub".to_vec()),
            ("console", b"plain\nstat".to_vec()),
        ];
        let mut idle = server.beanstalk();
        let began = now();
        let mut peers: Vec<_> = starts
            .iter()
            .map(|(protocol, bytes)| {
                let mut peer = server.connect(protocol);
                peer.send(bytes);
                peer
            })
            .collect();
        for peer in &mut peers {
            peer.rest();
        }
        assert!(began.elapsed().as_millis() >= 400);
        // What was whole stands, and who is merely idle stays.
        assert_eq!(idle.tube("q", "current-jobs-ready"), 1);
        assert_eq!(server.console().number("protocol errors"), 5);
    }

    fn a_byte_now_and_then_does_not_prolong_a_frame(transport) {
        let server = Setup::on(transport).limits("frame_timeout = \"500ms\"").start();
        let mut drip = server.connect("beanstalk");
        let began = now();
        drip.send("put 0 0 60 1000000\r\n");
        eventually("it is closed", || drip.try_send("x").is_err());
        assert!(began.elapsed().as_millis() >= 500);
    }

    fn an_idle_peer_is_closed_where_that_is_wanted(transport) {
        let server = Setup::on(transport).limits("idle_timeout = \"300ms\"").start();
        let mut idle = server.beanstalk();
        let began = now();
        assert_eq!(idle.put("x"), 1);
        assert_eq!(idle.stream.rest(), "");
        assert!(began.elapsed().as_millis() >= 300);
    }

    fn a_full_memory_refuses_puts_and_serves_consumers(transport) {
        let server = Setup::on(transport).limits("max_memory = \"3MiB\"").start();
        let mut peer = server.beanstalk();
        let body = "x".repeat(10_000);
        let mut put = 0;
        let refused = loop {
            let answer = peer.ask(&format!("put 0 0 60 10000\r\n{body}"));
            if !answer.starts_with("INSERTED") {
                break answer;
            }
            put += 1;
            assert!(put < 1_000, "3 MiB hold more than 10 MB");
        };
        assert_eq!(refused, "OUT_OF_MEMORY");
        assert!(put > 200, "only {put} messages of 10 kB found room in 3 MiB");
        // A consumer makes room.
        for _ in 0..put / 2 {
            let (id, _) = peer.reserve();
            assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
        }
        peer.put("there is room again");
    }

    fn watched_tubes_take_a_part_of_the_memory_and_everybody_gets_a_few(transport) {
        let server = Setup::on(transport).limits("max_memory = \"1MiB\"").start();
        let watch = |peer: &mut Beanstalk| {
            let mut answers = (0..600).map(|tube| peer.ask(&format!("watch t{tube}")));
            answers.position(|answer| answer == "OUT_OF_MEMORY")
        };
        let mut greedy = server.beanstalk();
        assert_eq!(watch(&mut greedy), None, "600 of 240 bytes fit in a quarter of 1 MiB");
        let (mut other, mut late) = (server.beanstalk(), server.beanstalk());
        let most = watch(&mut other).expect("1200 do not");
        assert!((400..500).contains(&most), "{most} tubes more");
        assert_eq!(watch(&mut late), Some(14), "with the first one and the list itself 16");
        assert_eq!(other.ask("watch t0"), format!("WATCHING {}", most + 1));
        drop(greedy);
        eventually("there is room again", || late.ask("watch t99") != "OUT_OF_MEMORY");
    }

    fn a_full_memory_holds_php_mq_senders_until_there_is_room(transport) {
        let server = Setup::on(transport).limits("max_memory = \"3MiB\"").start();
        let mut sender = server.phpmq(1);
        let body = "x".repeat(50_000);
        let message = packets(1, &[(1, b"q"), (2, body.as_bytes())]);
        let sent = sender.stream.stuff(&message, 200_000_000);
        assert!(sent < 100_000_000, "{sent} bytes were taken");
        let mut console = server.console();
        let kept = console.number("messages");
        // What is under way when the gate closes is kept: a quarter, and a read more.
        assert!(kept * 50_000 < 5 * 1024 * 1024, "{kept} messages are in memory");
        // What the sender has sent whole arrives when there is room.
        let mut consumer = server.phpmq(1);
        consumer.consume("q", 10);
        for _ in 0..sent / message.len() {
            assert_eq!(consumer.work().len(), body.len());
        }
    }

    fn a_window_is_cut_to_the_limit(transport) {
        let server = Setup::on(transport).limits("max_window = 3").start();
        let mut sender = server.phpmq(1);
        for number in 0..9 {
            sender.send("q", &number.to_string());
        }
        sender.send_confirmed("q", "9");
        let mut consumer = server.phpmq(1).consuming(&server, "q", 100_000);
        for _ in 0..3 {
            consumer.receive();
        }
        assert!(!consumer.stream.has_something());
    }

    fn queues_over_the_limit_are_refused(transport) {
        let server = Setup::on(transport).limits("max_queues = 4").start();
        check(&server, "
            > use a
            < USING a
            > put 0 0 60 1
            > x
            < INSERTED 1
            > watch b
            < WATCHING 2
            > watch c
            < WATCHING 3
            > watch d
            < OUT_OF_MEMORY
            > watch a
            < WATCHING 4
            > ignore b
            < WATCHING 3
            > watch d
            < WATCHING 4
        ");
    }
}

#[test]
fn priority_and_time_to_run_have_defaults_for_php_mq() {
    let server = Setup::new().queue("priority = 7").queue("time_to_run = \"9s\"").start();
    server.phpmq(1).send_confirmed("q", "x");
    let mut peer = server.beanstalk();
    assert_eq!(peer.figure("stats-job 1", "pri"), "7");
    assert_eq!(peer.figure("stats-job 1", "ttr"), "9");
}

#[test]
fn a_php_mq_message_over_the_limit_is_dropped_with_one_warning_and_its_connection_stays() {
    let server = Setup::new().limits("max_message_size = 1000").log_level("info").start();
    let mut sender = server.phpmq(1);
    sender.send_confirmed("q", &"x".repeat(1_000));
    for _ in 0..3 {
        sender.send("q", &"x".repeat(1_001));
    }
    sender.send_confirmed("q", "after");
    let mut console = server.console();
    assert_eq!(console.number("messages"), 2);
    assert_eq!(console.number("messages too large"), 3);
    assert_eq!(console.number("messages dropped"), 3);
    assert_eq!(console.number("protocol errors"), 0);
    let line = server.process.logged("message dropped");
    for part in ["bytes=1001", "key=limits.max_message_size", "max=1000"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    assert_eq!(server.process.count_logged("message dropped"), 1);
}

#[test]
fn a_confirmation_of_a_php_mq_message_over_the_limit_says_no() {
    let server = Setup::new().limits("max_message_size = 1000").start();
    let mut sender = server.phpmq(1);
    let large = "x".repeat(1_001);
    // Whichever way round the packets come.
    for parts in [[(1, "q"), (2, &large), (6, "me")], [(6, "me"), (2, &large), (1, "q")]] {
        sender.stream.send(packets(1, &parts.map(|(kind, text)| (kind, text.as_bytes()))));
        let (kind, parts) = sender.try_message().expect("the connection lives");
        assert_eq!((kind, &parts[0]), (8, &(6, "me".to_owned())));
        assert!(parts[1].1.contains("limits.max_message_size"), "{parts:?}");
    }
    sender.send_confirmed("q", "after");
    let mut console = server.console();
    assert_eq!((console.number("messages too large"), console.number("messages dropped")), (2, 0));
}

/// Small puts on a connection of their own, until it is told to stop; how many were not accepted.
fn small_puts_meanwhile(server: &Server) -> impl FnOnce() -> (usize, usize) + use<> {
    let mut peer = server.beanstalk();
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = std::thread::Builder::new().spawn(move || {
        assert_eq!(peer.ask("use small"), "USING small");
        let (mut accepted, mut refused) = (0, 0);
        while !seen.load(Ordering::SeqCst) || accepted == 0 {
            match peer.ask("put 0 0 60 5\r\nsmall").strip_prefix("INSERTED ") {
                Some(id) => {
                    accepted += 1;
                    assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
                }
                None => refused += 1,
            }
        }
        (accepted, refused)
    });
    let thread = thread.unwrap();
    move || {
        over.store(true, Ordering::SeqCst);
        thread.join().unwrap()
    }
}

/// Waiting for what could never fit held everybody's memory, until its time was over.
#[test]
fn regression_10_what_never_fits_is_refused_at_once_and_others_are_served() {
    let server = Setup::new().limits("max_memory = \"2MiB\"").start();
    let small = small_puts_meanwhile(&server);
    let mut peer = server.beanstalk();
    peer.stream.send("put 0 0 60 2500000\r\n");
    assert_eq!(peer.stream.line(), "JOB_TOO_BIG", "before its body comes");
    peer.stream.send("x".repeat(2_500_000) + "\r\n");
    peer.put("in step");
    assert_eq!(peer.server("max-job-size"), 2 * 1024 * 1024 / 16 * 15 - 200);
    peer.put(&"x".repeat(1_900_000));
    let (_, refused) = small();
    assert_eq!(refused, 0);
}

/// Each held a part, and none got through.
#[test]
fn regression_10_large_messages_at_a_time_get_through_one_after_another() {
    let server = Setup::new().limits("max_memory = \"2MiB\"").start();
    let small = small_puts_meanwhile(&server);
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let mut peer = server.beanstalk();
            let work = move || peer.put(&"x".repeat(400_000));
            std::thread::Builder::new().spawn(work).unwrap()
        })
        .collect();
    let mut consumer = server.beanstalk();
    for _ in 0..8 {
        let (id, body) = consumer.reserve();
        assert_eq!(body.len(), 400_000);
        assert_eq!(consumer.ask(&format!("delete {id}")), "DELETED");
    }
    for sender in senders {
        sender.join().unwrap();
    }
    let (_, refused) = small();
    assert_eq!(refused, 0);
}

#[test]
fn announced_messages_keep_nobody_out() {
    let server = Setup::new().limits("max_memory = \"2MiB\"").start();
    let announced: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = server.connect("beanstalk");
            peer.send("put 0 0 60 1900000\r\nabc");
            peer
        })
        .collect();
    let mut peer = server.beanstalk();
    eventually("all are here", || peer.server("current-connections") == 101);
    peer.put("small");
    peer.put(&"x".repeat(1_900_000));
    drop(announced);
}

#[test]
fn messages_larger_than_what_is_left_of_the_memory_after_a_reload_are_removed() {
    let mut server = Setup::new().limits("max_memory = \"4MiB\"").start();
    let mut peer = server.beanstalk();
    let mut silent = server.phpmq(1);
    for _ in 0..3 {
        peer.put(&"x".repeat(1_000_000));
    }
    let (first, _) = peer.reserve();
    let (second, _) = peer.reserve();
    server.setup = Setup::new().limits("max_memory = \"1MiB\"");
    server.reload();
    eventually("puts are refused", || peer.ask("put 2000 0 60 5\r\nsmall") == "OUT_OF_MEMORY");
    assert_eq!(
        peer.ask(&format!("put 2000 0 60 500000\r\n{}", "x".repeat(500_000))),
        "OUT_OF_MEMORY"
    );
    silent.stream.send(packets(1, &[(1, b"q"), (2, "y".repeat(500_000).as_bytes())]));
    for id in [first, second] {
        assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
    }
    let (third, _) = peer.reserve();
    assert_eq!(peer.ask(&format!("delete {third}")), "DELETED");
    // Now there is room for who waited, and for others.
    let mut consumer = server.phpmq(1);
    consumer.consume("q", 1);
    assert_eq!(consumer.work().len(), 500_000);
    eventually("puts are accepted", || peer.ask("put 2000 0 60 5\r\nsmall") != "OUT_OF_MEMORY");
}

#[test]
fn a_daemon_full_of_connections_is_warned_of_once() {
    let server = Setup::new().limits("max_connections = 2").log_level("info").start();
    let held = [server.beanstalk(), server.beanstalk()];
    for _ in 0..3 {
        assert_eq!(server.connect("beanstalk").rest(), "OUT_OF_MEMORY\r\n");
    }
    server.process.logged("limits.max_connections is reached");
    drop(held);
    eventually("there is room again", || {
        let mut peer = server.connect("beanstalk");
        let _ = peer.try_send("list-tube-used\r\n");
        peer.try_line().is_some_and(|line| line == "USING default")
    });
    // Whoever is admitted while one of the others has not gone yet takes the last place.
    eventually("the log says so", || {
        drop(server.connect("beanstalk"));
        server.process.count_logged("limits.max_connections has room again") == 1
    });
    assert_eq!(server.process.count_logged("limits.max_connections is reached"), 1);
}

/// With a `max_memory` that the process could not have, senders ended it: an allocation failed.
#[test]
fn max_memory_respects_the_limits_of_the_process() {
    let prefix = ["bash", "-c", "ulimit -v 400000; exec \"$0\" \"$@\""];
    for limit in ["max_memory = 0", "max_memory = \"1GiB\""] {
        let server = Setup::new().prefix(&prefix).without_database().limits(limit).start();
        if limit.contains("1GiB") {
            server.process.logged("102400000 bytes are used instead");
        }
        // A quarter of the address space: 102 MB, from several threads.
        let body = "x".repeat(1_000_000);
        let mut peers: Vec<_> = (0..8).map(|_| server.beanstalk()).collect();
        let mut accepted = 0;
        let refused = loop {
            let place = accepted % peers.len();
            let answer = peers[place].ask(&format!("put 0 0 60 1000000\r\n{body}"));
            if !answer.starts_with("INSERTED") {
                break answer;
            }
            accepted += 1;
        };
        assert_eq!(refused, "OUT_OF_MEMORY");
        assert!((80..103).contains(&accepted), "{accepted}");
        let (id, _) = peers[0].reserve();
        assert_eq!(peers[0].ask(&format!("delete {id}")), "DELETED");
    }
}

/// A reload asks for the limits of the process again, for the default and for what is too much.
#[test]
fn a_reload_respects_the_limits_of_the_process() {
    let prefix = ["bash", "-c", "ulimit -v 400000; exec \"$0\" \"$@\""];
    let mut server = Setup::new().prefix(&prefix).without_database().start();
    let mut peer = server.beanstalk();
    let mut kept = 0;
    for (limit, changed) in [
        ("max_memory = \"1MiB\"", "limits.max_memory"),
        ("max_memory = 0", "limits.max_memory"),
        ("max_memory = \"1GiB\"", "nothing"),
    ] {
        server.setup = Setup::new().prefix(&prefix).without_database().limits(limit);
        server.reload();
        server.process.logged(&format!("reloaded changed={changed}"));
        let is_small = limit.contains("1MiB");
        let taken = (0..3).filter(|_| {
            let body = "x".repeat(600_000);
            peer.ask(&format!("put 0 0 60 600000\r\n{body}")).starts_with("INSERTED")
        });
        let taken = taken.count();
        assert_eq!(taken, if is_small { 1 } else { 3 }, "{limit}");
        kept += taken;
    }
    server.process.logged("102400000 bytes are used instead");
    assert_eq!(peer.server("current-jobs-ready"), kept as u64);
}

/// `build/malloc.c` is linked, to which nothing in the program refers: without it each of the first
/// threads has the C library set 64 MiB of address space aside.
#[test]
fn the_threads_of_a_limited_process_share_their_memory() {
    let prefix = ["bash", "-c", "ulimit -v 8000000; exec \"$0\" \"$@\""];
    let server = Setup::new().prefix(&prefix).without_database().start();
    let mut peers: Vec<_> = (0..16).map(|_| server.beanstalk()).collect();
    for peer in &mut peers {
        peer.put("x");
    }
    let bytes = server.process.address_bytes();
    assert!(bytes < 400 << 20, "{bytes} bytes of address space");
}

#[test]
fn without_a_limit_on_peers_hundreds_of_connections_are_served() {
    let server = Setup::new().without_database().log_level("info").start();
    let mut peers: Vec<_> = (0..300).map(|_| server.beanstalk()).collect();
    for (place, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.put("x"), place as u64 + 1);
    }
    assert_eq!(peers[0].server("current-connections"), 300);
    let resident = server.process.resident_bytes();
    assert!(resident < 200 * 1024 * 1024, "{resident} bytes");
    drop(peers);
    let mut last = Server::beanstalk(&server);
    eventually("they are gone", || last.server("current-connections") == 1);
    eventually("so are their threads", || {
        server.process.threads().iter().filter(|name| name.starts_with("client-")).count() == 1
    });
}
