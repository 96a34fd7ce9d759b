//! What strangers send to any port ends in an error or a closed connection, and in nothing else.

use crate::harness::{Server, Setup, check, eventually, over_both, packets};

/// Whole, cut or changed messages that end a php-mq connection.
fn php_mq_faults() -> Vec<(&'static str, Vec<u8>)> {
    let long_name = [b'q'; 201];
    let packet = |head: &str| format!("H0100102{head}").into_bytes();
    vec![
        ("bad magic", b"X0100102".to_vec()),
        ("http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("another version", b"H0200102".to_vec()),
        ("an unknown type", b"H0100902".to_vec()),
        ("a server's type", b"H0100303".to_vec()),
        ("too many packets", b"H0100199".to_vec()),
        ("no packets", b"H0100100".to_vec()),
        ("letters for digits", b"H01abc02".to_vec()),
        ("bad packet magic", packet("Q01")),
        ("an unknown packet", packet(&format!("P99{:029}", 1))),
        ("a packet that does not belong", packet(&format!("P04{:029}", 1))),
        ("a length of letters", packet(&format!("P01{}", "x".repeat(29)))),
        ("a length of 29 nines", packet(&format!("P02{}", "9".repeat(29)))),
        ("a length of 2^64", packet(&format!("P02{:029}", u128::from(u64::MAX) + 1))),
        ("a length of 2^32", packet(&format!("P02{:029}", 1_u64 << 32))),
        ("a negative length", packet(&format!("P02-{:028}", 1))),
        ("a repeated packet", packets(1, &[(1, b"q"), (1, b"q")])),
        ("an empty name", packets(1, &[(1, b""), (2, b"x")])),
        ("a long name", packets(1, &[(1, &long_name), (2, b"x")])),
        ("a name with a control character", packets(1, &[(1, b"a\nb"), (2, b"x")])),
        ("a name that is not UTF-8", packets(1, &[(1, b"\xff"), (2, b"x")])),
        ("a window of letters", packets(2, &[(1, b"q"), (4, b"many")])),
        ("an empty window", packets(2, &[(1, b"q"), (4, b"")])),
        ("a negative window", packets(2, &[(1, b"q"), (4, b"-1")])),
        ("a time to live of letters", packets(1, &[(1, b"q"), (2, b"x"), (5, b"soon")])),
    ]
}

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

over_both! {
    fn every_php_mq_fault_ends_its_connection_and_what_came_before_stands(transport) {
        let server = Server::on(transport);
        let mut console = server.console();
        let mut consumer = server.phpmq(1).consuming(&server, "held", 100);
        let mut done = 0;
        for (name, fault) in php_mq_faults() {
            let mut stranger = server.phpmq(1);
            stranger.send("q", "before");
            stranger.stream.try_send(&fault).unwrap();
            assert_eq!(stranger.stream.rest(), "", "{name}");
            done += 1;
            assert_eq!(console.number("protocol errors"), done, "{name}");
            assert_eq!(console.number("messages"), done, "{name}");
            eventually("one line is logged", || {
                server.process.count_logged("closed: protocol error") as u64 == done
            });
        }
        // Who had nothing to do with it is served.
        server.phpmq(1).send("held", "x");
        assert_eq!(consumer.work(), "x");
    }

    fn what_a_faulty_peer_held_is_given_back(transport) {
        let server = Server::on(transport);
        server.phpmq(1).send_confirmed("q", "x");
        let mut faulty = server.phpmq(1).consuming(&server, "q", 1);
        faulty.receive();
        faulty.stream.send("garbage");
        let mut next = server.phpmq(1);
        next.consume("q", 1);
        assert_eq!(next.receive().body, "x");
    }

    fn half_a_message_and_the_end_is_no_message(transport) {
        let server = Server::on(transport);
        let whole = packets(1, &[(1, b"q"), (2, b"x")]);
        for length in 1..whole.len() {
            let mut peer = server.connect("phpmq");
            peer.send(&whole);
            peer.send(&whole[..length]);
            peer.half_close();
            assert_eq!(peer.rest(), "");
        }
        assert_eq!(server.console().number("messages"), whole.len() as u64 - 1);
    }

    fn a_browser_is_shut_out_of_beanstalk(transport) {
        let server = Server::on(transport);
        server.beanstalk().put("x");
        for request in [
            "POST / HTTP/1.1\r\nHost: a\r\n\r\ndelete 1\r\n",
            "GET /stats HTTP/1.1\r\n\r\n",
            "Host: a\r\ndelete 1\r\n",
        ] {
            let mut browser = server.connect("beanstalk");
            browser.send(request);
            assert!(!browser.rest().contains("DELETED"), "{request}");
        }
        assert_eq!(server.console().number("messages"), 1);
    }

    fn hostile_numbers_are_bad_formats_and_the_connection_stays_in_step(transport) {
        check(&Server::on(transport), "
            > put 0 0 60 -1
            < BAD_FORMAT
            > put 0 0 60 +5x
            < BAD_FORMAT
            > put 0 0 60 18446744073709551616
            < BAD_FORMAT
            > put 0 0 60 0x10
            < BAD_FORMAT
            > put 99999999999999999999999999999999999999 0 60 1
            < BAD_FORMAT
            > put 0 99999999999999999999 60 1
            < BAD_FORMAT
            > delete 18446744073709551616
            < BAD_FORMAT
            > delete 18446744073709551615
            < NOT_FOUND
            > delete 9223372036854775808
            < NOT_FOUND
            > reserve-job 0
            < NOT_FOUND
            > list-tube-used
            < USING default
        ");
    }

    fn random_bytes_harm_nobody(transport) {
        let server = Server::on(transport);
        let seed = u64::from(std::process::id()) << 20 | 1;
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut observer = server.beanstalk();
        for round in 0..60_u64 {
            for (protocol, start) in [
                ("phpmq", &b"H0100102P01"[..]),
                ("beanstalk", b"put 0 0 60 "),
                ("console", b"plain\n"),
            ] {
                let length = usize::try_from(random.next() % 3_000).unwrap();
                let mut bytes = random.bytes(length);
                if round % 2 == 0 {
                    bytes.splice(0..0, start.iter().copied());
                }
                let mut stranger = server.connect(protocol);
                // It may be closed at any byte.
                let _ = stranger.try_send(&bytes);
                stranger.half_close_if_open();
                stranger.rest();
            }
        }
        observer.put("still here");
        eventually("they are gone", || observer.server("current-connections") == 1);
        assert_eq!(server.process.count_logged("panicked"), 0);
    }
}

#[test]
fn a_stranger_cannot_write_in_the_log() {
    let server = Setup::new().log_level("info").start();
    let lines = server.process.lines();
    for (_, fault) in php_mq_faults() {
        let mut stranger = server.connect("phpmq");
        let _ = stranger.try_send(fault);
        stranger.rest();
    }
    for text in ["\u{1b}[2Jcrit fake\nline\r\n", "GET / HTTP/1.1\r\n\r\n", "use \u{1b}[31m\r\n"] {
        for protocol in ["beanstalk", "console"] {
            let mut stranger = server.connect(protocol);
            let _ = stranger.try_send(text);
            stranger.half_close_if_open();
            stranger.rest();
        }
    }
    assert_eq!(server.process.lines(), lines, "{}", server.process.log());
}

#[test]
fn announced_lengths_cost_nothing_before_the_bytes_come() {
    let server = Server::start();
    let before = server.process.resident_bytes();
    let mut peers = Vec::new();
    for _ in 0..200 {
        let mut sender = server.connect("phpmq");
        sender.send(format!("H0100102P01{:029}qP02{:029}ten bytes.", 1, 16 * 1024 * 1024));
        peers.push(sender);
        let mut putter = server.connect("beanstalk");
        putter.send("put 0 0 60 16777216\r\nten bytes.");
        peers.push(putter);
    }
    let mut observer = server.beanstalk();
    eventually("all are here", || observer.server("current-connections") == 401);
    let grown = server.process.resident_bytes().saturating_sub(before);
    // 3.2 GB and as much again were announced; a thread's stack is what each has cost.
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
}
