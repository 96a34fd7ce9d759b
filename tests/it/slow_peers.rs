//! Peers that do not read what they are sent, or send more than can be answered: only they suffer.

use crate::harness::{Beanstalk, Setup, Stream, eventually, now, over_both};

const MIB: u64 = 1024 * 1024;

over_both! {
    fn who_never_reads_is_bounded_and_disconnected(transport) {
        let server = Setup::on(transport)
            .limits("max_output = \"1MiB\"")
            .limits("write_timeout = \"5s\"")
            .start();
        let mut other = server.beanstalk();
        let body = "x".repeat(100_000);
        let id = other.put(&body);
        let before = server.process.resident_bytes();
        let address = server.address("beanstalk");
        let mut deaf = Stream::with_receive_buffer(address, Some(4096)).unwrap();
        // A gigabyte of answers, if nothing held it back.
        let asked = format!("peek {id}\r\n").repeat(10_000);
        deaf.stuff(asked.as_bytes(), 3 * asked.len());
        // Others are served meanwhile, without waiting for the deaf one.
        let began = now();
        for _ in 0..100 {
            other.ask("list-tube-used");
        }
        assert!(began.elapsed().as_millis() < 4_900, "{:?}", began.elapsed());
        let grown = server.process.resident_bytes().saturating_sub(before);
        assert!(grown < 64 * MIB, "{grown} bytes for one peer");
        eventually("it is disconnected", || other.server("current-connections") == 1);
        eventually("its threads are gone", || {
            !server.process.threads().iter().any(|name| name.starts_with("writer-"))
        });
        drop(deaf);
    }

    /// It has said that it sends no more, and so its thread has ended before its writer gives up.
    fn regression_who_never_reads_is_forgotten_after_the_end_of_its_commands(transport) {
        let server = Setup::on(transport)
            .without_database()
            .limits("max_output = \"1MiB\"")
            .limits("write_timeout = \"300ms\"")
            .start();
        let mut other = server.beanstalk();
        let id = other.put(&"x".repeat(500_000));
        let address = server.address("beanstalk");
        let mut deaf = Stream::with_receive_buffer(address, Some(4096)).unwrap();
        deaf.send(format!("peek {id}\r\n").repeat(400));
        deaf.half_close();
        eventually("it is forgotten", || other.server("current-connections") == 1);
    }

    fn a_consumer_that_never_reads_loses_its_messages_to_others(transport) {
        let server = Setup::on(transport)
            .without_database()
            .limits("max_output = \"1MiB\"")
            .limits("write_timeout = \"1s\"")
            .start();
        let mut deaf = server.phpmq(1).consuming(&server, "q", 10_000);
        let body = "x".repeat(50_000);
        let mut sender = server.phpmq(1);
        for _ in 1..400 {
            sender.send("q", &body);
        }
        sender.send_confirmed("q", &body);
        // 20 MB are queued; its window counts as full long before they are all its own.
        let mut console = server.console();
        let out = console.number("messages reserved");
        assert!(out < 300, "{out} messages are with a peer that reads nothing");
        let mut other = server.phpmq(1).consuming(&server, "q", 5);
        for _ in 0..400 {
            assert_eq!(other.work().len(), body.len());
        }
        other.settle(&server);
        assert_eq!(console.number("messages"), 0);
        assert!(deaf.stream.rest().len() < 400 * body.len());
    }

    fn a_slow_reader_gets_everything_in_order(transport) {
        let server =
            Setup::on(transport).without_database().limits("max_output = \"256KiB\"").start();
        let mut sender = server.phpmq(2);
        let body = |number: usize| format!("{number} {}", "y".repeat(20_000));
        for number in 0..500 {
            sender.send("q", &body(number));
        }
        sender.send_confirmed("other", "x");
        let mut slow = server.phpmq(2).consuming(&server, "q", 10_000);
        // It has not read a byte yet: a writer thread is at work for it.
        eventually("the writer has taken over", || {
            server.process.threads().iter().any(|name| name.starts_with("writer-"))
        });
        for number in 0..500 {
            let message = slow.receive();
            assert!(message.body == body(number), "message {number} is not in its place");
            slow.acknowledge(&message);
        }
        slow.settle(&server);
        assert_eq!(server.console().number("messages"), 1);
        eventually("the writer has gone", || {
            !server.process.threads().iter().any(|name| name.starts_with("writer-"))
        });
    }

    fn commands_behind_a_waiting_reserve_are_bounded_and_all_answered(transport) {
        let server = Setup::on(transport).without_database().start();
        let mut worker = server.connect("beanstalk");
        worker.send("watch wanted\r\nignore default\r\nreserve\r\n");
        let line = "list-tube-used\r\n";
        // Sent in full lines only, until the daemon takes no more.
        let sent = worker.stuff(line.repeat(64).as_bytes(), 64 * 1024 * 1024);
        assert!(sent < 32 * 1024 * 1024, "{sent} bytes of commands were taken");
        let lines = sent / line.len();
        assert!(lines > 512, "{lines}");
        let mut sender = server.beanstalk();
        sender.ask("use wanted");
        let id = sender.put("x");
        for answer in ["WATCHING 2", "WATCHING 1", &format!("RESERVED {id} 1"), "x"] {
            assert_eq!(worker.line(), answer);
        }
        for _ in 0..lines {
            assert_eq!(worker.line(), "USING default");
        }
        // In step, and the gate is open.
        let mut worker = Beanstalk::new(worker);
        // A line that was cut by the full socket is finished by the next one's end.
        let rest = sent % line.len();
        worker.stream.send(&line[rest..]);
        assert_eq!(worker.stream.line(), "USING default");
        assert_eq!(worker.ask(&format!("delete {id}")), "DELETED");
    }

    fn a_hang_up_behind_a_closed_gate_is_seen(transport) {
        let server = Setup::on(transport).without_database().start();
        let mut worker = server.connect("beanstalk");
        worker.send("watch wanted\r\nignore default\r\nreserve\r\n");
        worker.stuff("list-tube-used\r\n".repeat(64).as_bytes(), 64 * 1024 * 1024);
        let mut other = server.beanstalk();
        assert_eq!(other.server("current-connections"), 2);
        drop(worker);
        eventually("it is gone", || other.server("current-connections") == 1);
    }

    fn who_sends_without_reading_answers_is_stopped_and_then_served(transport) {
        let server =
            Setup::on(transport).without_database().limits("max_output = \"256KiB\"").start();
        let address = server.address("beanstalk");
        let mut peer = Stream::with_receive_buffer(address, Some(64 * 1024)).unwrap();
        let line = "list-tubes-watched\r\n";
        let sent = peer.stuff(line.repeat(64).as_bytes(), 64 * 1024 * 1024);
        assert!(sent < 32 * 1024 * 1024, "{sent} bytes of commands were taken");
        let answer = "OK 14\r\n---\n- default\n\r\n";
        for _ in 0..sent / line.len() / 1_000 {
            assert!(peer.exactly(1_000 * answer.len()) == answer.repeat(1_000).as_bytes());
        }
    }
}
