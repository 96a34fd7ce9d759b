//! php-mq from end to end: queues, windows, shares, time to live, what goes back.

use crate::harness::{Phpmq, REVISIONS, Server, Setup, check, eventually, over_both, packets};

/// Sends numbered messages and waits until the daemon has them.
fn send_numbers(server: &Server, revision: u8, queue: &str, count: usize) {
    let mut sender = server.phpmq(revision);
    for number in 1..count {
        sender.send(queue, &number.to_string());
    }
    sender.send_confirmed(queue, &count.to_string());
}

/// What every consumer has got, after each of `count` messages was acknowledged by who got it.
fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|number| number.to_string()).collect()
}

over_both! {
    fn a_message_goes_from_sender_to_consumer_in_the_revision_of_both(transport) {
        let server = Server::on(transport);
        for revision in REVISIONS {
            let mut consumer = server.phpmq(revision);
            // A consumer shows nothing: it is served in the revision of the message.
            consumer.consume("jobs", 1);
            server.phpmq(revision).send("jobs", "hello\0world");
            let message = consumer.receive();
            assert_eq!(message.revision, revision);
            assert_eq!((&*message.queue, &*message.body), ("jobs", "hello\0world"));
            assert_eq!(message.id.len(), 32);
            assert_eq!(message.time_to_live, (revision == 2).then_some(0));
            consumer.acknowledge(&message);
            consumer.settle(&server);
            assert_eq!(server.console().number("messages"), 0);
        }
    }

    fn both_revisions_are_served_at_the_same_time(transport) {
        let server = Server::on(transport);
        // Each shows its revision by sending.
        let [mut old, mut new] = REVISIONS.map(|revision| {
            let mut peer = server.phpmq(revision);
            peer.send_confirmed("show", "x");
            peer
        });
        old.consume("a", 1);
        new.consume("b", 1);
        let mut sender = server.phpmq(2);
        sender.send_for("a", "from the new", 100);
        server.phpmq(1).send("b", "from the old");
        assert_eq!(old.receive().revision, 1);
        assert_eq!(new.receive().time_to_live, Some(0));
    }

    fn messages_come_first_in_first_out(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 1, "q", 500);
        let mut consumer = server.phpmq(1);
        consumer.consume("q", 7);
        let got: Vec<String> = (0..500).map(|_| consumer.work()).collect();
        assert_eq!(got, numbers(1, 500));
    }

    fn a_window_is_never_exceeded_and_stands_until_it_is_changed(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 1, "q", 10);
        let mut consumer = server.phpmq(1).consuming(&server, "q", 3);
        let first: Vec<_> = (0..3).map(|_| consumer.receive()).collect();
        assert!(!consumer.stream.has_something());
        // Each acknowledgement frees one place.
        consumer.acknowledge(&first[1]);
        assert_eq!(consumer.receive().body, "4");
        consumer.settle(&server);
        assert!(!consumer.stream.has_something());
        // A larger window brings more at once, a smaller one nothing until it has room.
        consumer.consume("q", 5);
        let more: Vec<_> = (0..2).map(|_| consumer.receive()).collect();
        assert_eq!([&*more[0].body, &*more[1].body], ["5", "6"]);
        consumer.consume("q", 2);
        for message in [&first[0], &first[2], &more[0]] {
            consumer.acknowledge(message);
        }
        consumer.settle(&server);
        assert!(!consumer.stream.has_something());
        consumer.acknowledge(&more[1]);
        assert_eq!(consumer.receive().body, "7");
    }

    fn a_window_of_0_gives_everything_back(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 1, "q", 4);
        let mut first = server.phpmq(1).consuming(&server, "q", 3);
        let held: Vec<_> = (0..3).map(|_| first.receive()).collect();
        first.acknowledge(&held[1]);
        assert_eq!(first.receive().body, "4");
        first.consume("q", 0);
        let mut second = server.phpmq(1);
        second.consume("q", 10);
        let got: Vec<String> = (0..3).map(|_| second.work()).collect();
        assert_eq!(got, ["1", "3", "4"]);
        assert!(!first.stream.has_something());
    }

    fn one_connection_has_a_window_for_each_queue(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2);
        for queue in ["a", "b", "größe"] {
            consumer.consume(queue, 1);
        }
        consumer.settle(&server);
        let mut sender = server.phpmq(2);
        for queue in ["b", "größe", "a", "b"] {
            sender.send_confirmed(queue, "x");
        }
        let held: Vec<_> = (0..3).map(|_| consumer.receive()).collect();
        let queues: Vec<&str> = held.iter().map(|message| &*message.queue).collect();
        assert_eq!(queues, ["b", "größe", "a"]);
        // Only the place in that queue's window makes room for the fourth.
        consumer.acknowledge(&held[1]);
        consumer.acknowledge(&held[2]);
        consumer.settle(&server);
        assert!(!consumer.stream.has_something());
        consumer.acknowledge(&held[0]);
        assert_eq!(consumer.receive().queue, "b");
    }

    fn idle_consumers_get_equal_shares(transport) {
        let server = Server::on(transport);
        for (consumers, messages) in [(3, 20), (4, 12), (5, 3)] {
            let mut peers: Vec<Phpmq> =
                (0..consumers).map(|_| server.phpmq(1).consuming(&server, "q", 100)).collect();
            send_numbers(&server, 1, "q", messages);
            let mut got: Vec<usize> = Vec::new();
            for (place, peer) in peers.iter_mut().enumerate() {
                let due = messages / consumers + usize::from(place < messages % consumers);
                let bodies: Vec<String> = (0..due).map(|_| peer.work()).collect();
                // Whoever has waited longest is next, so each gets every n-th.
                let expected: Vec<String> = (0..due)
                    .map(|round| (place + 1 + round * consumers).to_string())
                    .collect();
                assert_eq!(bodies, expected, "{consumers} consumers, {messages} messages");
                got.push(due);
            }
            for peer in &mut peers {
                assert!(!peer.stream.has_something());
                peer.settle(&server);
            }
        }
    }

    fn who_joins_takes_part_from_the_next_message(transport) {
        let server = Server::on(transport);
        let mut early = server.phpmq(1).consuming(&server, "q", 100);
        send_numbers(&server, 1, "q", 4);
        let mut late = server.phpmq(1).consuming(&server, "q", 100);
        let mut sender = server.phpmq(1);
        for number in 5..=8 {
            sender.send_confirmed("q", &number.to_string());
        }
        let got = (0..6).map(|_| early.work()).collect::<Vec<_>>();
        let got_late = (0..2).map(|_| late.work()).collect::<Vec<_>>();
        let mut all = [got.clone(), got_late.clone()].concat();
        all.sort();
        assert_eq!(all, numbers(1, 8));
        assert_eq!(got[..4], numbers(1, 4));
        assert!(!early.stream.has_something() && !late.stream.has_something());
    }

    fn what_a_leaving_consumer_held_goes_to_others_at_its_old_place(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 1, "q", 6);
        let mut leaving = server.phpmq(1).consuming(&server, "q", 3);
        for _ in 0..3 {
            leaving.receive();
        }
        let mut staying = server.phpmq(1).consuming(&server, "q", 2);
        assert_eq!([staying.work(), staying.work()], ["4", "5"]);
        let sixth = staying.receive();
        assert_eq!(sixth.body, "6");
        drop(leaving);
        // The old places: before the sixth, had it not been handed out already.
        let got: Vec<String> = (0..3).map(|_| staying.work()).collect();
        assert_eq!(got, ["1", "2", "3"]);
    }

    fn a_requeued_message_goes_to_the_end_with_a_new_time_to_live(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 2, "q", 3);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 1);
        let first = consumer.receive();
        assert_eq!((&*first.body, first.time_to_live), ("1", Some(0)));
        consumer.requeue(&first, 500);
        assert_eq!([consumer.work(), consumer.work()], ["2", "3"]);
        let again = consumer.receive();
        assert_eq!((&again.body, &again.id), (&first.body, &first.id));
        assert!((490..=500).contains(&again.time_to_live.unwrap()), "{again:?}");
        // A time to live of 0 is for ever.
        consumer.requeue(&again, 0);
        assert_eq!(consumer.receive().time_to_live, Some(0));
    }

    fn a_dead_letter_leaves_its_queue_and_is_kept(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 1);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "poison", 1);
        sender.send("q", "good");
        let poison = consumer.receive();
        consumer.dead_letter(&poison);
        assert_eq!(consumer.receive().body, "good");
        let mut console = server.console();
        assert_eq!(console.number("messages buried"), 1);
        console.ask("show q");
        let shown = console.answer();
        assert!(shown.iter().any(|line| line.contains("buried")), "{shown:?}");
        check(&server, "
            > use q
            < USING q
            > peek-buried
            < FOUND 1 6
            < poison
            > kick 5
            < KICKED 1
        ");
        // It is in the queue again, its clock goes on.
        assert_eq!(server.beanstalk().tube("q", "current-jobs-buried"), 0);
    }

    fn an_expired_message_is_never_dispatched(transport) {
        let server = Server::on(transport);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "short", 1);
        sender.send_for("q", "long", 1_000);
        sender.send_confirmed("q", "for ever");
        let mut console = server.console();
        eventually("the first one expires", || console.number("messages expired") == 1);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 10);
        let long = consumer.receive();
        assert_eq!(long.body, "long");
        let left = long.time_to_live.unwrap();
        assert!((900..1_000).contains(&left), "{left}");
        assert_eq!(consumer.receive().time_to_live, Some(0));
        assert_eq!(console.number("messages"), 2);
    }

    fn one_that_expires_while_it_is_out_is_acknowledged_all_the_same(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 1);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "short", 1);
        sender.send("q", "next");
        let short = consumer.receive();
        assert_eq!(short.time_to_live, Some(1));
        // Put later, with the same time to live: when it goes, the first one's time is over.
        sender.send_for("clock", "tick", 1);
        let mut console = server.console();
        eventually("its time is over", || console.number("messages expired") >= 1);
        // Its place stays taken until the late acknowledgement.
        assert!(!consumer.stream.has_something());
        consumer.acknowledge(&short);
        assert_eq!(consumer.receive().body, "next");
    }

    fn one_that_expires_while_it_is_out_is_not_dispatched_again(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 1);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "short", 1);
        sender.send("q", "next");
        consumer.receive();
        sender.send_for("clock", "tick", 1);
        let mut console = server.console();
        eventually("its time is over", || console.number("messages expired") >= 1);
        drop(consumer);
        let mut other = server.phpmq(2);
        other.consume("q", 1);
        assert_eq!(other.receive().body, "next");
    }

    fn a_hung_consumer_loses_its_message_but_not_its_place(transport) {
        let server =
            Setup::on(transport).listener("phpmq", "ack_timeout = \"300ms\"").start();
        let mut hung = server.phpmq(1).consuming(&server, "q", 1);
        server.phpmq(1).send_confirmed("q", "work");
        let message = hung.receive();
        let mut other = server.phpmq(1);
        other.consume("q", 1);
        let again = other.receive();
        assert_eq!(again.id, message.id);
        other.acknowledge(&again);
        other.settle(&server);
        // The late acknowledgement frees the place. All places taken so for as long again would
        // end the connection, so this one comes first or finds it closed.
        let log = server.process.logged("consumer disconnected");
        assert!(log.contains("connection=") && log.contains("peer="), "{log}");
        assert_eq!(hung.stream.rest(), "");
        assert_eq!(server.console().number("messages"), 0);
    }

    fn a_queue_comes_with_its_first_message_and_goes_with_its_last(transport) {
        let server = Server::on(transport);
        let mut console = server.console();
        assert_eq!(console.ask("search jobs"), ["No queue matches jobs"]);
        send_numbers(&server, 1, "jobs", 2);
        assert_eq!(console.ask("search jobs").len(), 2);
        let mut consumer = server.phpmq(1).consuming(&server, "jobs", 2);
        for _ in 0..2 {
            consumer.work();
        }
        // It still has a consumer.
        consumer.settle(&server);
        assert_eq!(console.ask("search jobs").len(), 2);
        drop(consumer);
        eventually("the queue goes", || console.ask("search jobs").len() == 1);
    }

    fn a_confirmation_comes_to_who_asks_and_to_nobody_else(transport) {
        let server = Server::on(transport);
        for revision in REVISIONS {
            let mut sender = server.phpmq(revision);
            sender.send("q", "quiet");
            sender.send_asking("q", "loud", "my \u{fc} number");
            let (id, correlation) = sender.confirmation();
            assert_eq!(correlation, "my \u{fc} number");
            let mut consumer = server.phpmq(revision).consuming(&server, "q", 2);
            let quiet = consumer.receive();
            let loud = consumer.receive();
            assert_eq!((&*quiet.body, &*loud.body), ("quiet", "loud"));
            assert_eq!(loud.id, id);
            consumer.acknowledge(&quiet);
            consumer.acknowledge(&loud);
            consumer.settle(&server);
            assert!(!sender.stream.has_something());
        }
    }

    fn a_message_with_a_key_is_queued_once_also_after_a_kill_and_a_stop(transport) {
        for revision in REVISIONS {
            let mut server = Server::on(transport);
            let mut sender = server.phpmq(revision);
            let done = sender.send_keyed("q", "one", ("order 17", 0));
            assert_eq!(sender.send_keyed("q", "again", ("order 17", 0)), done);
            let other = sender.send_keyed("r", "two", ("order 17", 3_600));
            assert_ne!(other, done, "queues have keys of their own");
            server.kill();
            server.start_again();
            let mut sender = server.phpmq(revision);
            assert_eq!(sender.send_keyed("q", "again", ("order 17", 0)), done);
            assert_eq!(sender.send_keyed("r", "again", ("order 17", 3_600)), other);
            for queue in ["q", "r"] {
                let mut consumer = server.phpmq(revision).consuming(&server, queue, 5);
                let bodies = ["one", "two"];
                assert!(bodies.contains(&&*consumer.work()));
                consumer.settle(&server);
                assert!(!consumer.stream.has_something(), "{queue} had one message");
            }
            assert_eq!(server.stop().code(), Some(0));
            server.start_again();
            let mut sender = server.phpmq(revision);
            assert_ne!(sender.send_keyed("q", "new", ("order 17", 0)), done, "that is done");
            let gone = "0".repeat(32);
            assert_eq!(sender.send_keyed("r", "again", ("order 17", 3_600)), gone, "its time is not");
            assert_eq!(server.console().number("messages joined by key"), 1);
            assert_eq!(server.console().number("messages"), 1);
        }
    }

    fn a_pinned_listener_serves_its_consumers_in_that_revision(transport) {
        for (revision, other) in [(1, 2), (2, 1)] {
            let server = Setup::on(transport)
                .listener("phpmq", &format!("revision = {revision}"))
                .start();
            let mut consumer = server.phpmq(1);
            consumer.consume("q", 1);
            server.phpmq(other).send("q", "x");
            assert_eq!(consumer.receive().revision, revision);
        }
    }

    fn an_acknowledgement_counts_only_from_who_holds_the_message(transport) {
        let server = Server::on(transport);
        send_numbers(&server, 1, "q", 1);
        let mut holder = server.phpmq(1).consuming(&server, "q", 1);
        let message = holder.receive();
        let mut stranger = server.phpmq(1);
        stranger.acknowledge(&message);
        stranger.settle(&server);
        assert_eq!(server.console().number("messages reserved"), 1);
        // Nor under another queue's name, nor with a guessed id.
        let mut wrong = message.clone();
        wrong.queue = "p".to_owned();
        holder.acknowledge(&wrong);
        let mut guessed = message.clone();
        guessed.id.replace_range(31..32, if message.id.ends_with('0') { "1" } else { "0" });
        holder.acknowledge(&guessed);
        holder.settle(&server);
        assert_eq!(server.console().number("messages reserved"), 1);
        holder.acknowledge(&message);
        holder.settle(&server);
        assert_eq!(server.console().number("messages"), 0);
    }

    fn a_message_that_arrives_byte_by_byte_is_one_message(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2).consuming(&server, "q", 1);
        let bytes = packets(1, &[(1, b"q"), (2, b"slowly"), (5, b"60")]);
        let mut sender = server.connect("phpmq");
        for byte in bytes {
            sender.send([byte]);
        }
        assert_eq!(consumer.receive().body, "slowly");
    }
}

#[test]
fn a_message_of_16_mib_passes_whole() {
    let mut server = Server::start();
    let body: String =
        (0..16 * 1024 * 1024).map(|place| char::from(b'a' + (place % 23) as u8)).collect();
    let mut sender = server.phpmq(2);
    sender.send_confirmed("big", &body);
    server.stop();
    server.start_again();
    let mut consumer = server.phpmq(2).consuming(&server, "big", 1);
    let message = consumer.receive();
    assert!(message.body == body, "{} bytes came", message.body.len());
    consumer.acknowledge(&message);
    consumer.settle(&server);
    assert_eq!(server.console().number("messages"), 0);
}

#[test]
fn a_consumer_that_dies_in_the_middle_loses_nothing() {
    let server = Server::start();
    let mut doomed = server.phpmq(1).consuming(&server, "q", 5);
    let mut other = server.phpmq(1).consuming(&server, "q", 5);
    let count = 2_000;
    let mut sender = server.phpmq(1);
    for number in 1..=count {
        sender.send("q", &number.to_string());
    }
    let mut done: Vec<usize> = Vec::new();
    for _ in 0..100 {
        done.push(doomed.work().parse().unwrap());
    }
    // What it has acknowledged last may be on its way; the rest goes to the other.
    doomed.settle(&server);
    doomed.stream.reset();
    while done.len() < count {
        done.push(other.work().parse().unwrap());
    }
    done.sort_unstable();
    assert_eq!(done, (1..=count).collect::<Vec<_>>());
    other.settle(&server);
    assert_eq!(server.console().number("messages"), 0);
}
