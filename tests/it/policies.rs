//! Policies and queue settings from end to end: attempts, back-off, dead letters, kicks, pauses and
//! limits, over the protocols of unmodified clients and over restarts.

use crate::harness::{Beanstalk, Console, Server, Setup, eventually, over_both};

const FAILED: &str = "queues = \"jobs*\"\nmax_attempts = 2\ndead_letter = \"failed\"";

/// The first picture of a queue, without what is drawn around it.
fn shown(server: &Server, queue: &str) -> Vec<String> {
    let mut console = server.console();
    console.stream.send(format!("show {queue}\n"));
    let (title, heading) = (console.answer(), console.answer());
    assert!(title[0].contains(&format!("show {queue}")), "{title:?}");
    [title, heading[1..].to_vec()].concat()
}

fn put(peer: &mut Beanstalk, tube: &str, body: &str) -> u64 {
    assert_eq!(peer.ask(&format!("use {tube}")), format!("USING {tube}"));
    peer.put(body)
}

fn fail(peer: &mut Beanstalk, times: u32) -> u64 {
    let mut last = 0;
    for _ in 0..times {
        last = peer.reserve().0;
        assert_eq!(peer.ask(&format!("release {last} 0 0")), "RELEASED");
    }
    last
}

over_both! {
    fn a_dead_letter_is_there_without_another_reserve_and_kicked_with_all_attempts(transport) {
        let server = Setup::on(transport).policy(FAILED).start();
        let mut peer = server.beanstalk();
        let id = put(&mut peer, "jobs", "poison");
        peer.ask("watch jobs");
        peer.ask("watch failed");
        // It is moved when its last attempt fails, not when somebody asks for it once more.
        assert_eq!(fail(&mut peer, 2), id);
        assert_eq!(peer.figure(&format!("stats-job {id}"), "tube"), "failed");
        assert_eq!(peer.figure(&format!("stats-job {id}"), "state"), "ready");
        let lines = shown(&server, "failed");
        assert!(lines[1].ends_with("  2 attempts, released, from jobs"), "{lines:?}");
        // A kick in the tube of the dead letters is one back to where they came from, and the
        // attempts that were used up do not send it away again at once.
        assert_eq!(peer.ask("use failed"), "USING failed");
        assert_eq!(peer.ask("kick 10"), "KICKED 1");
        assert_eq!(peer.figure(&format!("stats-job {id}"), "tube"), "jobs");
        fail(&mut peer, 1);
        assert_eq!(peer.figure(&format!("stats-job {id}"), "tube"), "jobs");
        fail(&mut peer, 1);
        assert_eq!(peer.ask(&format!("kick-job {id}")), "KICKED");
        let (again, body) = peer.reserve();
        assert_eq!((again, body.as_str()), (id, "poison"));
        assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
    }

    fn a_consumer_of_the_dead_letters_takes_them_like_any_other_message(transport) {
        let server = Setup::on(transport).policy(FAILED).start();
        let mut peer = server.beanstalk();
        put(&mut peer, "jobs", "poison");
        peer.ask("watch jobs");
        fail(&mut peer, 2);
        let mut consumer = server.phpmq(1).consuming(&server, "failed", 5);
        assert_eq!(consumer.work(), "poison");
        consumer.settle(&server);
        eventually("it is done", || peer.server("current-jobs-ready") == 0);
        drop(consumer);
        eventually("nobody needs its queue", || {
            peer.document("list-tubes").iter().all(|line| line != "- failed")
        });
    }

    fn a_kill_leaves_what_was_set_aside_aside_and_redelivers_nothing_of_it(transport) {
        let policy = format!("{FAILED}\nbackoff = [\"10m\"]\njitter = 0");
        let mut server = Setup::on(transport).policy(&policy).durability("sync").start();
        let mut peer = server.beanstalk();
        let dead = put(&mut peer, "jobs", "poison");
        let waiting = put(&mut peer, "jobs", "unlucky");
        peer.ask("watch jobs");
        assert_eq!(fail(&mut peer, 2), waiting);
        for id in [dead, waiting] {
            assert_eq!(peer.figure(&format!("stats-job {id}"), "state"), "delayed");
        }
        assert_eq!(peer.ask(&format!("kick-job {dead}")), "KICKED");
        // A policy without back-off, so that it fails twice at once.
        server.setup = Setup::on(transport).policy(FAILED).durability("sync");
        server.reload();
        assert!(server.process.log().contains("configuration reloaded changed=policy"));
        assert_eq!(fail(&mut peer, 2), dead);
        assert_eq!(peer.figure(&format!("stats-job {dead}"), "tube"), "failed");
        server.kill();
        server.start_again();
        let mut peer = server.beanstalk();
        for (key, value) in [("tube", "failed"), ("state", "ready"), ("buries", "1")] {
            assert_eq!(peer.figure(&format!("stats-job {dead}"), key), value);
        }
        assert!(shown(&server, "failed")[1].ends_with("  2 attempts, released, from jobs"));
        // The one that waits has all its attempts but one used up.
        assert!(shown(&server, "jobs")[1].ends_with("  1 attempt, released"));
        assert_eq!(peer.figure(&format!("stats-job {waiting}"), "state"), "delayed");
        let left: u64 =
            peer.figure(&format!("stats-job {waiting}"), "time-left").parse().unwrap();
        assert!((400..600).contains(&left), "{left} of 10 minutes are left");
        peer.ask("watch jobs");
        assert_eq!(peer.ask("reserve-with-timeout 0"), "TIMED_OUT");
        peer.ask("use failed");
        assert_eq!(peer.ask("kick 1"), "KICKED 1");
        assert_eq!(peer.reserve().1, "poison");
    }

    fn what_an_operator_has_set_is_in_force_after_a_kill(transport) {
        let mut server = Setup::on(transport).durability("write").start();
        let mut console = server.console();
        for line in ["pause jobs", "limit jobs 1", "pause other", "resume other"] {
            assert_eq!(console.ask(line), ["OK"], "{line}");
        }
        server.kill();
        server.start_again();
        assert!(shown(&server, "jobs")[0].ends_with("show jobs (paused, limit 1)"));
        let (mut console, mut peer) = (server.console(), server.beanstalk());
        let first = put(&mut peer, "jobs", "a");
        assert_eq!(peer.ask("put 0 0 60 1\r\nb"), "OUT_OF_MEMORY");
        peer.ask("watch jobs");
        assert_eq!(peer.ask("reserve-with-timeout 0"), "TIMED_OUT");
        for line in ["resume jobs", "limit jobs 0"] {
            assert_eq!(console.ask(line), ["OK"], "{line}");
        }
        assert_eq!(peer.reserve().0, first);
        assert_eq!(peer.ask(&format!("delete {first}")), "DELETED");
        drop(peer);
        server.kill();
        server.start_again();
        assert!(shown(&server, "jobs")[0].ends_with("show jobs"));
        let tubes = server.beanstalk().document("list-tubes");
        assert_eq!(tubes, ["- default"], "nothing is left of it");
    }

    fn a_crash_at_prefetch_1000_sets_one_message_aside_and_none_of_its_neighbours(transport) {
        let server = Setup::on(transport)
            .policy("queues = \"*\"\nmax_attempts = 1\ndead_letter = \"failed\"")
            .start();
        let mut sender = server.phpmq(1);
        for number in 1..=1_000 {
            sender.send("jobs", &number.to_string());
        }
        sender.settle(&server);
        let mut crashing = server.phpmq(1).consuming(&server, "jobs", 1_000);
        assert_eq!(crashing.receive().body, "1");
        drop(crashing);
        let mut console = server.console();
        eventually("all are given back", || console.number("messages ready") == 1_000);
        assert_eq!(console.number("messages dead-lettered"), 1);
        assert_eq!(console.number("messages returned, connection lost"), 1_000);
        let mut healthy = server.phpmq(1).consuming(&server, "jobs", 1_000);
        for number in 2..=1_000 {
            assert_eq!(healthy.work(), number.to_string());
        }
        assert!(shown(&server, "failed")[1].ends_with("  1 attempt, connection lost, from jobs"));
        healthy.settle(&server);
        eventually("one is left", || console.number("messages") == 1);
    }

    fn an_operator_pauses_limits_and_kicks_in_the_console(transport) {
        let server = Server::on(transport);
        let (mut console, mut peer) = (server.console(), server.beanstalk());
        let ok = |console: &mut Console, line: &str| assert_eq!(console.ask(line), ["OK"], "{line}");
        ok(&mut console, "pause jobs");
        ok(&mut console, "limit jobs 2");
        assert!(shown(&server, "jobs")[0].ends_with("show jobs (paused, limit 2)"));
        let first = put(&mut peer, "jobs", "a");
        peer.put("b");
        assert_eq!(peer.ask("put 0 0 60 1\r\nc"), "OUT_OF_MEMORY");
        let mut sender = server.phpmq(1);
        sender.send_asking("jobs", "d", "mine");
        let refusal = vec![(6, "mine".to_owned()), (2, "the queue is full".to_owned())];
        assert_eq!(sender.try_message(), Some((8, refusal)));
        // Whoever is not told is not refused: it would lose its message.
        sender.send("jobs", "e");
        eventually("it is there", || peer.tube("jobs", "current-jobs-ready") == 3);
        peer.ask("watch jobs");
        assert_eq!(peer.ask("reserve-with-timeout 0"), "TIMED_OUT");
        ok(&mut console, "resume jobs");
        assert_eq!(peer.reserve().0, first);
        assert_eq!(peer.ask(&format!("bury {first} 0")), "BURIED");
        assert_eq!(console.ask("kick jobs"), ["OK, 1 kicked"]);
        assert_eq!(peer.reserve().0, first);
        assert_eq!(peer.ask(&format!("release {first} 0 3600")), "RELEASED");
        ok(&mut console, &format!("kick-message {first}"));
        assert_eq!(peer.reserve().0, first);
        assert_eq!(console.ask("resume nowhere"), ["error: there is no queue of this name"]);
        assert_eq!(console.ask("kick nowhere"), ["error: there is no queue of this name"]);
        let missing = ["error: no message with this id was set aside or is delayed"];
        assert_eq!(console.ask(&format!("kick-message {first}")), missing);
    }
}
