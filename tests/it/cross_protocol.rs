//! Sent through one protocol and worked through another.

use crate::harness::{Server, check, eventually, over_both};

over_both! {
    fn what_php_mq_sends_a_beanstalk_worker_reserves(transport) {
        let server = Server::on(transport);
        let mut worker = server.beanstalk();
        worker.ask("watch jobs");
        worker.stream.send("reserve\r\n");
        server.phpmq(2).send("jobs", "from php");
        assert_eq!(worker.stream.line(), "RESERVED 1 8");
        assert_eq!(worker.stream.line(), "from php");
        // Its priority and time to run are the daemon's defaults.
        assert_eq!(worker.figure("stats-job 1", "pri"), "1024");
        assert_eq!(worker.figure("stats-job 1", "ttr"), "60");
        assert_eq!(worker.ask("delete 1"), "DELETED");
        assert_eq!(server.console().number("messages"), 0);
    }

    fn what_beanstalk_puts_a_php_mq_consumer_gets_by_priority(transport) {
        let server = Server::on(transport);
        check(&server, "
            > use jobs
            < USING jobs
            > put 2000 0 60 3
            > low
            < INSERTED 1
            > put 0 0 60 4
            > high
            < INSERTED 2
            > put 0 3600 60 5
            > later
            < INSERTED 3
        ");
        server.phpmq(2).send_confirmed("jobs", "usual");
        // Nothing shows this consumer's revision: a message of another protocol comes in the first.
        let mut consumer = server.phpmq(1).consuming(&server, "jobs", 10);
        let got: Vec<_> = (0..3).map(|_| consumer.receive()).collect();
        let bodies: Vec<&str> = got.iter().map(|message| &*message.body).collect();
        assert_eq!(bodies, ["high", "usual", "low"]);
        assert_eq!([got[0].revision, got[1].revision, got[2].revision], [1, 2, 1]);
        assert!(!consumer.stream.has_something());
        for message in &got {
            consumer.acknowledge(message);
        }
        consumer.settle(&server);
        assert_eq!(server.beanstalk().tube("jobs", "current-jobs-delayed"), 1);
        assert_eq!(server.console().number("messages"), 1);
    }

    fn a_job_released_by_beanstalk_goes_to_php_mq(transport) {
        let server = Server::on(transport);
        let mut worker = server.beanstalk();
        worker.ask("use jobs");
        worker.ask("watch jobs");
        worker.put("work");
        let (id, body) = worker.reserve();
        let mut consumer = server.phpmq(2).consuming(&server, "jobs", 1);
        assert_eq!(worker.ask(&format!("release {id} 1024 0")), "RELEASED");
        let message = consumer.receive();
        assert_eq!(message.body, body);
        // Whom it was handed to holds it.
        assert_eq!(worker.ask(&format!("delete {id}")), "NOT_FOUND");
        drop(consumer);
        assert_eq!(worker.reserve().0, id);
    }

    fn a_dead_letter_is_a_buried_job_and_a_kicked_one_comes_back(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(2).consuming(&server, "jobs", 1);
        server.phpmq(2).send("jobs", "bad");
        let message = consumer.receive();
        consumer.dead_letter(&message);
        consumer.settle(&server);
        let mut worker = server.beanstalk();
        worker.ask("use jobs");
        assert_eq!(worker.tube("jobs", "current-jobs-buried"), 1);
        assert_eq!(worker.ask_for_body("peek-buried"), (1, "bad".to_owned()));
        assert_eq!(worker.figure("stats-job 1", "state"), "buried");
        assert_eq!(server.console().number("messages buried"), 1);
        assert_eq!(worker.ask("kick 1"), "KICKED 1");
        assert_eq!(consumer.receive().id, message.id);
    }

    fn a_buried_job_can_be_seen_in_the_console_and_flushed(transport) {
        let server = Server::on(transport);
        let mut worker = server.beanstalk();
        let id = worker.put("x");
        worker.reserve();
        assert_eq!(worker.ask(&format!("bury {id} 0")), "BURIED");
        let mut console = server.console();
        assert_eq!(console.number("messages buried"), 1);
        assert_eq!(console.ask("flush default"), ["OK"]);
        assert_eq!(worker.ask(&format!("kick-job {id}")), "NOT_FOUND");
    }

    fn a_time_to_live_counts_for_beanstalk_workers_too(transport) {
        let server = Server::on(transport);
        let mut sender = server.phpmq(2);
        sender.send_for("jobs", "short", 1);
        sender.send_confirmed("jobs", "long");
        let mut worker = server.beanstalk();
        worker.ask("watch jobs");
        let (id, body) = worker.reserve();
        assert_eq!(body, "short");
        sender.send_for("clock", "tick", 1);
        let mut console = server.console();
        eventually("its time is over", || console.number("messages expired") >= 1);
        // A release after its time is over drops it.
        assert_eq!(worker.ask(&format!("release {id} 0 0")), "RELEASED");
        assert_eq!(worker.reserve().1, "long");
        assert_eq!(worker.ask(&format!("peek {id}")), "NOT_FOUND");
    }

    fn both_kinds_of_consumers_share_a_queue(transport) {
        let server = Server::on(transport);
        let mut consumer = server.phpmq(1).consuming(&server, "jobs", 1);
        let mut worker = server.beanstalk();
        worker.ask("watch jobs");
        worker.stream.send("reserve\r\n");
        let mut observer = server.beanstalk();
        eventually("it waits", || observer.server("current-waiting") == 1);
        let mut sender = server.phpmq(1);
        sender.send("jobs", "1");
        sender.send("jobs", "2");
        let through_window = consumer.receive();
        worker.stream.line();
        let reserved = worker.stream.line();
        let mut both = [through_window.body, reserved];
        both.sort();
        assert_eq!(both, ["1", "2"]);
    }

    fn queues_with_names_that_no_tube_can_have_are_not_listed(transport) {
        let server = Server::on(transport);
        let mut sender = server.phpmq(1);
        sender.send("größe", "x");
        sender.send_confirmed("tube", "x");
        let mut peer = server.beanstalk();
        let mut tubes = peer.document("list-tubes");
        tubes.sort();
        assert_eq!(tubes, ["- default", "- tube"]);
        assert_eq!(peer.ask("stats-tube größe"), "BAD_FORMAT");
        assert_eq!(server.console().ask("search gr*").len(), 2);
    }
}
