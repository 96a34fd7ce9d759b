//! The maintenance console as a person or a script has it.

use crate::harness::{Server, eventually, over_both};

over_both! {
    fn a_terminal_is_greeted_and_prompted(transport) {
        let server = Server::on(transport);
        let mut terminal = server.connect("console");
        let greeting = terminal.until("phpmq > ");
        assert!(greeting.contains("\x1b[2J"), "{greeting:?}");
        assert!(greeting.contains(env!("CARGO_PKG_VERSION")), "{greeting:?}");
        assert!(greeting.contains("Type \"help\" to list available commands.\r\n"));
        terminal.send("flushall\r\n");
        assert!(terminal.until("phpmq > ").contains("OK\r\n"));
        terminal.send("quit\r\n");
        terminal.rest();
    }

    fn a_script_sees_no_escape_sequence(transport) {
        let server = Server::on(transport);
        server.phpmq(1).send_confirmed("jobs", "x");
        let mut script = server.connect("console");
        script.send("plain\nhelp\nstatus\nsearch *\nmonitor\nq\nshow jobs\nq\nwhat\nquit\n");
        let text = script.rest();
        assert!(!text.contains('\x1b') && !text.contains('\r'), "{text:?}");
        assert!(text.contains("phpmq") && text.contains("jobs"), "{text}");
    }

    fn help_lists_the_commands_and_explains_one(transport) {
        let server = Server::on(transport);
        let mut console = server.console();
        let list = console.ask("help").join("\n");
        for command in
            ["help", "clear", "monitor", "search", "show", "flush", "flushall", "quit", "exit"]
        {
            assert!(list.contains(command), "{list}");
        }
        assert!(console.ask("help flush")[0].starts_with("flush QUEUE"));
        let unknown = console.ask("dance");
        assert_eq!(unknown[0], "error: unknown command: dance");
        assert_eq!(unknown[1..].join("\n"), list);
        let unknown = console.ask("help dance");
        assert!(unknown[0].contains("dance") && unknown.join("\n").contains(&list));
    }

    fn search_and_flush_take_quoted_names_and_patterns(transport) {
        let server = Server::on(transport);
        let mut sender = server.phpmq(1);
        for queue in ["mail in", "mail out", "Mailbox", "other"] {
            sender.send_confirmed(queue, "12345");
        }
        let mut console = server.console();
        let lines = console.ask("search 'mail *'");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(console.ask("search MAIL*").len(), 4);
        assert_eq!(console.ask("search nothing"), ["No queue matches nothing"]);
        assert_eq!(console.ask("flush \"mail in\""), ["OK"]);
        assert_eq!(console.number("messages"), 3);
        assert_eq!(console.ask("flush unknown"), ["error: there is no queue of this name"]);
        assert_eq!(console.ask("flushall"), ["OK"]);
        assert_eq!(console.number("messages"), 0);
        assert_eq!(console.number("queues"), 0);
    }

    fn show_lists_the_messages_in_their_order(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(1).consuming(&server, "q", 1);
        let mut sender = server.phpmq(1);
        for body in ["a", "bb", "ccc"] {
            sender.send_confirmed("q", body);
        }
        consumer.receive();
        let mut console = server.console();
        console.ask("show q");
        let lines = console.answer();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[1].contains('→') && lines[2].contains('•'), "{lines:?}");
        assert!(lines[3].trim_start().starts_with('3'), "{lines:?}");
        // It is drawn again and again until it is left.
        assert!(console.answer()[0].contains("show q"));
        console.stream.send("q\nsearch nothing\n");
        console.stream.until("No queue matches nothing\n");
    }

    fn the_monitor_shows_queues_and_totals(transport) {
        let server = Server::on(transport);
        let mut sender = server.phpmq(1);
        for number in 0..5 {
            sender.send_confirmed("full", &number.to_string());
        }
        sender.send_confirmed("small", "x");
        let mut terminal = server.connect("console");
        terminal.until("phpmq > ");
        terminal.send("monitor\r\n");
        let screen = terminal.until("q + Enter leaves");
        assert!(screen.contains("Queues: 2") && screen.contains("Messages: 6"), "{screen:?}");
        assert!(screen.find("full").unwrap() < screen.find("small").unwrap());
        sender.send_confirmed("third", "x");
        terminal.until("third");
        terminal.send("q\r\n");
        terminal.until("phpmq > ");
    }

    fn a_browser_is_shut_out_before_it_can_do_harm(transport) {
        let server = Server::on(transport);
        server.phpmq(1).send_confirmed("q", "x");
        for request in ["POST / HTTP/1.1\r\nHost: a\r\n\r\nflushall\r\n", "Host: a\r\nflushall\r\n"] {
            let mut browser = server.connect("console");
            browser.send(request);
            assert!(!browser.rest().contains("OK"));
        }
        assert_eq!(server.console().number("messages"), 1);
    }

    fn strange_bytes_are_survived(transport) {
        let server = Server::on(transport);
        let mut stranger = server.connect("console");
        stranger.send(b"plain\n\xff\xfb\x1f\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0\xff\xf4\x00\x01\n");
        stranger.send([b"show ".as_slice(), &[0xfe; 50], b"\nsearch nothing\n"].concat());
        stranger.until("No queue matches nothing");
        // A line without an end comes to an end of its own, with an error or the connection.
        let mut endless = server.connect("console");
        let _ = endless.try_send("plain\n");
        let _ = endless.try_send(vec![b'a'; 1024 * 1024]);
        let _ = endless.try_send("\n");
        endless.half_close();
        assert!(endless.rest().len() < 64 * 1024);
        assert_eq!(server.console().number("messages"), 0);
    }
}

#[test]
fn a_hundred_thousand_messages_do_not_slow_the_console_down() {
    let server = crate::harness::Setup::new().without_database().start();
    let mut sender = server.phpmq(1);
    let count = 100_000;
    for number in 1..count {
        sender.send(&format!("queue {}", number % 5_000), "some words");
    }
    sender.send_confirmed("queue 0", "the last one");
    let mut console = server.console();
    assert_eq!(console.number("messages"), count);
    // A producer goes on meanwhile, so a dispatcher that listed everything would be seen.
    let mut worker = server.beanstalk();
    for command in ["search *9", "show 'queue 1'", "monitor"] {
        let began = crate::harness::now();
        console.stream.send(format!("{command}\n"));
        let id = worker.put("between");
        assert_eq!(worker.ask(&format!("delete {id}")), "DELETED");
        console.answer();
        let took = began.elapsed();
        assert!(took.as_secs() < 3, "{command} took {took:?}");
        console.stream.send("q\nsearch nothing\n");
        console.stream.until("No queue matches nothing\n\n");
    }
    assert_eq!(console.ask("flushall"), ["OK"]);
    eventually("they are gone", || console.number("messages") == 0);
}
