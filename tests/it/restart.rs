//! What is there after a stop and after a kill, at every durability level.

use crate::harness::{Beanstalk, Server, Setup, check, eventually, now, over_both};

/// Waits until everything up to now is on the disk.
fn await_tick(server: &Server, rows: u64) {
    let mut peer = server.beanstalk();
    eventually("the tick comes", || peer.server("binlog-records-written") >= rows);
}

/// The bodies of all ready messages, in their order.
fn drain(peer: &mut Beanstalk) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let head = peer.ask("reserve-with-timeout 0");
        if head == "TIMED_OUT" {
            return bodies;
        }
        let id = head.split(' ').nth(1).unwrap().to_owned();
        bodies.push(peer.stream.line());
        assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
    }
}

over_both! {
    fn a_stop_keeps_messages_order_states_and_counters(transport) {
        let mut server = Server::on(transport);
        check(&server, "
            > put 9 0 60 3
            > low
            < INSERTED 1
            > put 5 0 70 4
            > high
            < INSERTED 2
            > put 5 3600 60 7
            > delayed
            < INSERTED 3
            > put 0 0 60 6
            > buried
            < INSERTED 4
            > reserve
            < RESERVED 4 6
            < buried
            > bury 4 77
            < BURIED
            > reserve
            < RESERVED 2 4
            < high
            > release 2 6 0
            < RELEASED
            > reserve
            < RESERVED 2 4
            < high
        ");
        assert_eq!(server.stop().code(), Some(0));
        assert!(!server.path("q.db-wal").exists());
        server.start_again();
        let mut peer = server.beanstalk();
        // Who reserved it was stopped with it: it is ready at its old place.
        assert_eq!(peer.figure("stats-job 2", "state"), "ready");
        assert_eq!(peer.figure("stats-job 2", "reserves"), "2");
        assert_eq!(peer.figure("stats-job 2", "releases"), "1");
        assert_eq!(peer.figure("stats-job 2", "ttr"), "70");
        assert_eq!(peer.figure("stats-job 4", "pri"), "77");
        assert_eq!(peer.figure("stats-job 4", "buries"), "1");
        let left: u64 = peer.figure("stats-job 3", "time-left").parse().unwrap();
        assert!((3_500..3_600).contains(&left), "{left}");
        // Ids go on exactly.
        check(&server, "
            > put 7 0 60 1
            > n
            < INSERTED 5
            > reserve
            < RESERVED 2 4
            < high
            > reserve
            < RESERVED 5 1
            < n
            > reserve
            < RESERVED 1 3
            < low
            > kick 1
            < KICKED 1
            > reserve
            < RESERVED 4 6
            < buried
        ");
    }

    fn php_mq_messages_keep_their_order_ids_and_time_to_live(transport) {
        let mut server = Server::on(transport);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "500 seconds", 500);
        sender.send("q", "for ever");
        for number in 3..=300 {
            sender.send("q", &number.to_string());
        }
        let last_id = sender.send_confirmed("q", "last");
        let mut consumer = server.phpmq(2).consuming(&server, "q", 2);
        let before = [consumer.receive(), consumer.receive()];
        server.stop();
        server.start_again();
        let mut consumer = server.phpmq(2);
        consumer.consume("q", 1_000);
        let after: Vec<_> = (0..301).map(|_| consumer.receive()).collect();
        assert_eq!([&after[0].id, &after[1].id], [&before[0].id, &before[1].id]);
        assert!((400..=500).contains(&after[0].time_to_live.unwrap()), "{:?}", after[0]);
        assert_eq!(after[1].time_to_live, Some(0));
        for (place, message) in after.iter().enumerate().take(300).skip(2) {
            assert_eq!(message.body, (place + 1).to_string());
        }
        assert_eq!(after[300].id, last_id);
        for message in &after {
            consumer.acknowledge(message);
        }
        consumer.settle(&server);
        server.stop();
        server.start_again();
        assert_eq!(server.console().number("messages"), 0);
    }

    fn time_runs_on_while_the_daemon_is_down(transport) {
        let mut server = Server::on(transport);
        let mut sender = server.phpmq(2);
        sender.send_for("q", "short", 1);
        sender.send_confirmed("q", "long");
        check(&server, "
            > use later
            < USING later
            > put 0 1 60 3
            > due
            < INSERTED 3
        ");
        let began = now();
        server.stop();
        eventually("a second passes", || began.elapsed().as_millis() > 1_100);
        server.start_again();
        let mut consumer = server.phpmq(2);
        consumer.consume("q", 10);
        consumer.consume("later", 10);
        let mut bodies = [consumer.receive().body, consumer.receive().body];
        bodies.sort();
        assert_eq!(bodies, ["due", "long"]);
        consumer.settle(&server);
        assert!(!consumer.stream.has_something());
    }

    fn what_is_confirmed_survives_a_kill_at_once(transport) {
        for level in ["write", "sync"] {
            // No tick can come to help.
            let mut server = Setup::on(transport)
                .durability(level)
                .storage("snapshot_interval = \"1h\"")
                .start();
            let mut peer = server.beanstalk();
            for number in 1..=20 {
                peer.put(&number.to_string());
            }
            let mut sender = server.phpmq(2);
            sender.send("php", "before");
            sender.send_confirmed("php", "confirmed");
            for id in [3, 4, 5] {
                assert_eq!(peer.ask_for_body(&format!("reserve-job {id}")).0, id);
            }
            assert_eq!(peer.ask("delete 3"), "DELETED");
            assert_eq!(peer.ask("bury 4 9"), "BURIED");
            assert_eq!(peer.ask("release 5 0 0"), "RELEASED");
            assert_eq!(peer.ask("delete 6"), "DELETED");
            server.kill();
            server.start_again();
            let mut peer = server.beanstalk();
            assert_eq!(peer.figure("stats-job 4", "state"), "buried", "{level}");
            assert_eq!(peer.figure("stats-job 5", "pri"), "0", "{level}");
            // Ids are never used again.
            let id = peer.put("21");
            assert!(id > 22, "{id}");
            let expected: Vec<String> = [5, 1, 2]
                .into_iter()
                .chain(7..=21)
                .map(|number: u64| number.to_string())
                .collect();
            assert_eq!(drain(&mut peer), expected, "{level}");
            peer.ask("watch php");
            assert_eq!(drain(&mut peer), ["before", "confirmed"], "{level}");
        }
    }

    fn one_tick_later_nothing_is_lost_at_any_level(transport) {
        for level in ["periodic", "write", "sync"] {
            let mut server = Setup::on(transport).durability(level).start();
            let mut sender = server.phpmq(1);
            for number in 1..500 {
                sender.send("default", &number.to_string());
            }
            sender.send_confirmed("default", "500");
            await_tick(&server, 500);
            server.kill();
            server.start_again();
            let expected: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
            assert_eq!(drain(&mut server.beanstalk()), expected, "{level}");
        }
    }
}

#[test]
fn periodic_promises_nothing_before_the_tick() {
    let mut server =
        Setup::new().durability("periodic").storage("snapshot_interval = \"1h\"").start();
    let mut peer = server.beanstalk();
    for _ in 0..10 {
        peer.put("x");
    }
    server.kill();
    server.start_again();
    assert_eq!(server.console().number("messages"), 0, "then this level does more than it says");
    // But a stop is a stop.
    let mut peer = server.beanstalk();
    let id = peer.put("kept");
    assert!(id > 10, "id {id} was used before");
    assert_eq!(server.stop().code(), Some(0));
    server.start_again();
    assert_eq!(server.beanstalk().reserve(), (id, "kept".to_owned()));
}

#[test]
fn what_is_done_before_the_tick_is_never_written() {
    let mut server =
        Setup::new().durability("periodic").storage("snapshot_interval = \"1h\"").start();
    let mut peer = server.beanstalk();
    for _ in 0..1_000 {
        let id = peer.put("x");
        assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
    }
    let written = peer.server("binlog-records-written");
    server.stop();
    assert!(written < 10, "{written} rows");
}

#[test]
fn an_idle_second_is_no_risk_at_the_default_level() {
    // The counters of reservations are no promise, all else is: nothing is left for the tick.
    let mut server = Server::start();
    let mut peer = server.beanstalk();
    for _ in 0..5 {
        peer.put("x");
    }
    let mut console = server.console();
    let mut commits = console.number("commits");
    eventually("the last commit is synced", || {
        let before = std::mem::replace(&mut commits, console.number("commits"));
        commits > 1 && before == commits
    });
    server.kill();
    server.start_again();
    assert_eq!(server.console().number("messages"), 5);
}

#[test]
fn without_a_database_nothing_is_kept() {
    let mut server = Setup::new().without_database().start();
    assert_eq!(server.beanstalk().put("x"), 1);
    assert_eq!(server.console().figure("store"), "none, memory only");
    assert_eq!(server.stop().code(), Some(0));
    assert!(!server.database().exists());
    server.start_again();
    assert_eq!(server.console().number("messages"), 0);
    assert_eq!(server.beanstalk().put("x"), 1);
}

#[test]
fn a_listener_can_have_a_level_of_its_own() {
    let mut server = Setup::new()
        .durability("periodic")
        .storage("snapshot_interval = \"1h\"")
        .listener("beanstalk", "durability = \"sync\"")
        .start();
    let mut sender = server.phpmq(2);
    sender.send_confirmed("q", "before");
    let mut peer = server.beanstalk();
    peer.put("strict");
    sender.send_confirmed("q", "after");
    server.kill();
    server.start_again();
    // One strict answer carries all that was before it in the same journal.
    let mut peer = server.beanstalk();
    assert_eq!(drain(&mut peer), ["strict"]);
    assert_eq!(peer.tube("q", "current-jobs-ready"), 1);
}

#[test]
fn counters_of_a_killed_daemon_are_right_up_to_the_last_promise() {
    let mut server = Setup::new().storage("snapshot_interval = \"1h\"").start();
    check(
        &server,
        "
        > put 5 0 60 1
        > a
        < INSERTED 1
        > reserve
        < RESERVED 1 1
        < a
        > release 1 5 0
        < RELEASED
        > reserve
        < RESERVED 1 1
        < a
        > bury 1 5
        < BURIED
        > kick-job 1
        < KICKED
        ",
    );
    server.kill();
    server.start_again();
    let lines = server.beanstalk().document("stats-job 1");
    for line in ["reserves: 2", "timeouts: 0", "releases: 1", "buries: 1", "kicks: 1"] {
        assert!(lines.contains(&line.to_owned()), "{line} is not in {lines:?}");
    }
}
