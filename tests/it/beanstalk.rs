//! Beanstalk as dialogues: every command and every error.

use crate::harness::{PATIENCE, Server, Setup, check, eventually, now, over_both};

over_both! {
    fn put_reserve_delete(transport) {
        check(&Server::on(transport), "
            > put 0 0 60 1
            > A
            < INSERTED 1
            > reserve
            < RESERVED 1 1
            < A
            > delete 1
            < DELETED
            > delete 1
            < NOT_FOUND
        ");
    }

    fn bodies_may_be_empty_and_hold_line_ends(transport) {
        check(&Server::on(transport), "
            > put 0 0 60 0
            >
            < INSERTED 1
            > put 0 0 60 4
            > a
            > b
            < INSERTED 2
            > reserve
            < RESERVED 1 0
            <
            > reserve
            < RESERVED 2 4
            < a
            < b
        ");
    }

    fn the_order_is_priority_then_age(transport) {
        check(&Server::on(transport), "
            > put 5 0 60 1
            > a
            < INSERTED 1
            > put 0 0 60 1
            > b
            < INSERTED 2
            > put 4294967295 0 60 1
            > c
            < INSERTED 3
            > put 0 0 60 1
            > d
            < INSERTED 4
            > reserve
            < RESERVED 2 1
            < b
            > reserve
            < RESERVED 4 1
            < d
            > reserve
            < RESERVED 1 1
            < a
            > reserve
            < RESERVED 3 1
            < c
        ");
    }

    fn a_released_job_returns_to_its_old_place(transport) {
        check(&Server::on(transport), "
            > put 9 0 60 1
            > a
            < INSERTED 1
            > put 9 0 60 1
            > b
            < INSERTED 2
            > reserve
            < RESERVED 1 1
            < a
            > release 1 9 0
            < RELEASED
            > reserve
            < RESERVED 1 1
            < a
            > release 1 10 0
            < RELEASED
            > reserve
            < RESERVED 2 1
            < b
            > release 2 9 3600
            < RELEASED
            > release 2 9 0
            < NOT_FOUND
            > peek-delayed
            < FOUND 2 1
            < b
        ");
    }

    fn tubes_are_used_watched_and_ignored(transport) {
        check(&Server::on(transport), "
            > list-tube-used
            < USING default
            > use a
            < USING a
            > list-tube-used
            < USING a
            > watch b
            < WATCHING 2
            > watch b
            < WATCHING 2
            > list-tubes-watched
            < OK 18
            < ---
            < - default
            < - b
            <
            > ignore default
            < WATCHING 1
            > ignore b
            < NOT_IGNORED
            > list-tubes-watched
            < OK 8
            < ---
            < - b
            <
            > put 0 0 60 1
            > x
            < INSERTED 1
            > reserve-with-timeout 0
            < TIMED_OUT
            > watch a
            < WATCHING 2
            > reserve-with-timeout 0
            < RESERVED 1 1
            < x
        ");
    }

    fn a_waiting_reserve_gets_what_comes(transport) {
        check(&Server::on(transport), "
            worker> watch a
            worker< WATCHING 2
            worker> reserve
            sender> use a
            sender< USING a
            sender> put 0 0 60 3
            sender> now
            sender< INSERTED 1
            worker< RESERVED 1 3
            worker< now
        ");
    }

    fn commands_behind_a_waiting_reserve_are_answered_in_order(transport) {
        let server = Server::on(transport);
        let mut worker = server.beanstalk();
        worker.stream.send("reserve\r\nlist-tube-used\r\nput 0 0 60 1\r\nb\r\nuse x\r\n");
        let mut sender = server.beanstalk();
        eventually("it waits", || sender.server("current-waiting") == 1);
        assert!(!worker.stream.has_something());
        assert_eq!(sender.put("a"), 1);
        for line in ["RESERVED 1 1", "a", "USING default", "INSERTED 2", "USING x"] {
            assert_eq!(worker.stream.line(), line);
        }
    }

    fn bury_kick_and_peek(transport) {
        check(&Server::on(transport), "
            > bury 1 0
            < NOT_FOUND
            > put 7 0 60 1
            > a
            < INSERTED 1
            > put 7 3600 60 1
            > b
            < INSERTED 2
            > bury 1 0
            < NOT_FOUND
            > reserve
            < RESERVED 1 1
            < a
            > bury 1 3
            < BURIED
            > peek-ready
            < NOT_FOUND
            > peek-buried
            < FOUND 1 1
            < a
            > peek-delayed
            < FOUND 2 1
            < b
            > peek 2
            < FOUND 2 1
            < b
            > peek 3
            < NOT_FOUND
            > kick 10
            < KICKED 1
            > peek-delayed
            < FOUND 2 1
            < b
            > kick 10
            < KICKED 1
            > kick 10
            < KICKED 0
            > peek-ready
            < FOUND 1 1
            < a
            > kick-job 1
            < NOT_FOUND
            > reserve-job 2
            < RESERVED 2 1
            < b
            > bury 2 0
            < BURIED
            > kick-job 2
            < KICKED
            > kick-job 99
            < NOT_FOUND
        ");
    }

    fn reserve_job_takes_ready_delayed_and_buried_ones(transport) {
        check(&Server::on(transport), "
            > put 0 3600 60 1
            > a
            < INSERTED 1
            > reserve-job 1
            < RESERVED 1 1
            < a
            other> reserve-job 1
            other< NOT_FOUND
            > bury 1 0
            < BURIED
            other> reserve-job 1
            other< RESERVED 1 1
            other< a
            other> release 1 0 0
            other< RELEASED
            > reserve-job 1
            < RESERVED 1 1
            < a
            other> delete 1
            other< NOT_FOUND
            other> touch 1
            other< NOT_FOUND
            > touch 1
            < TOUCHED
            > delete 1
            < DELETED
        ");
    }

    fn a_job_can_be_deleted_by_anybody_while_nobody_holds_it(transport) {
        check(&Server::on(transport), "
            > put 0 3600 60 1
            > a
            < INSERTED 1
            other> delete 1
            other< DELETED
            > put 0 0 60 1
            > b
            < INSERTED 2
            other> delete 2
            other< DELETED
            > peek 2
            < NOT_FOUND
        ");
    }

    fn a_pause_holds_reserves_back_and_not_puts(transport) {
        let server = Server::on(transport);
        check(&server, "
            > pause-tube nowhere 1
            < NOT_FOUND
            > pause-tube default 3600
            < PAUSED
            > put 0 0 60 1
            > a
            < INSERTED 1
            > reserve-with-timeout 0
            < TIMED_OUT
            > pause-tube default 0
            < PAUSED
            > reserve-with-timeout 0
            < RESERVED 1 1
            < a
        ");
        let mut peer = server.beanstalk();
        assert_eq!(peer.tube("default", "cmd-pause-tube"), 2);
    }

    fn a_flushed_tube_is_empty_in_every_state(transport) {
        check(&Server::on(transport), "
            > put 0 0 60 1
            > a
            < INSERTED 1
            > put 0 3600 60 1
            > b
            < INSERTED 2
            > put 9 0 60 1
            > c
            < INSERTED 3
            > reserve
            < RESERVED 1 1
            < a
            > bury 1 0
            < BURIED
            > reserve
            < RESERVED 3 1
            < c
            > flush-tube default
            < FLUSHED 3
            > delete 3
            < NOT_FOUND
            > flush-tube default
            < FLUSHED 0
            > flush-tube unknown
            < NOT_FOUND
            > pause-tube unknown 1
            < NOT_FOUND
            > stats-tube unknown
            < NOT_FOUND
        ");
    }

    fn a_batch_is_reserved_in_one_answer(transport) {
        check(&Server::on(transport), "
            > put 0 0 60 1
            > a
            < INSERTED 1
            > put 0 0 60 1
            > b
            < INSERTED 2
            > reserve-batch 5 0
            < RESERVED_BATCH 2
            < RESERVED 1 1
            < a
            < RESERVED 2 1
            < b
            > reserve-batch 5 0
            < TIMED_OUT
            > release 2 0 0
            < RELEASED
            > reserve-batch 1 0
            < RESERVED_BATCH 1
            < RESERVED 2 1
            < b
        ");
    }

    fn mistakes_are_answered_and_the_connection_lives(transport) {
        check(&Server::on(transport), "
            > what
            < UNKNOWN_COMMAND
            >
            < UNKNOWN_COMMAND
            > put
            < UNKNOWN_COMMAND
            > put a b c d
            < BAD_FORMAT
            > put 0 0 60
            < BAD_FORMAT
            > put 0 0 60 -1
            < BAD_FORMAT
            > put 4294967296 0 60 1
            < BAD_FORMAT
            > delete x
            < BAD_FORMAT
            > use -a
            < BAD_FORMAT
            > watch a*
            < BAD_FORMAT
            > pause-tube default
            < BAD_FORMAT
            > put 0 0 60 1
            > ab
            < EXPECTED_CRLF
            > swallowed
            < UNKNOWN_COMMAND
            > stats-job 1
            < NOT_FOUND
            > stats-tube nowhere
            < NOT_FOUND
            > ignore nowhere
            < WATCHING 1
            > list-tube-used
            < USING default
            > quit
            < (end)
        ");
    }

    fn a_line_over_224_bytes_is_a_bad_format(transport) {
        let server = Server::on(transport);
        let name = "a".repeat(200);
        check(&server, &format!("
            > use {name}
            < USING {name}
            > use {name}a
            < BAD_FORMAT
            > use {name}{name}
            < BAD_FORMAT
            > list-tube-used
            < USING {name}
        "));
    }

    fn a_job_is_too_big_exactly_over_the_limit(transport) {
        let server = Setup::on(transport).limits("max_message_size = 10").start();
        check(&server, "
            > put 0 0 60 10
            > 0123456789
            < INSERTED 1
            > put 0 0 60 11
            > 0123456789a
            < JOB_TOO_BIG
            > list-tube-used
            < USING default
        ");
        assert_eq!(server.beanstalk().server("max-job-size"), 10);
    }

    fn time_to_run_ends_a_reservation(transport) {
        let server = Server::on(transport);
        // The margin of a second counts from the start where the time to run is one second.
        check(&server, "
            holder> put 0 0 1 1
            holder> a
            holder< INSERTED 1
            holder> reserve
            holder< RESERVED 1 1
            holder< a
            holder> reserve-with-timeout 0
            holder< DEADLINE_SOON
            holder> reserve
            holder< DEADLINE_SOON
            other> reserve-with-timeout 20
            other< RESERVED 1 1
            other< a
            holder> delete 1
            holder< NOT_FOUND
            other> delete 1
            other< DELETED
        ");
        assert_eq!(server.beanstalk().server("job-timeouts"), 1);
    }

    fn the_margin_begins_while_a_reserve_waits(transport) {
        let began = now();
        check(&Server::on(transport), "
            > put 0 0 2 1
            > a
            < INSERTED 1
            > reserve
            < RESERVED 1 1
            < a
            > reserve
            < DEADLINE_SOON
            > touch 1
            < TOUCHED
            > reserve-with-timeout 0
            < TIMED_OUT
        ");
        assert!(began.elapsed().as_millis() >= 990 && began.elapsed() < PATIENCE);
    }

    fn delays_and_waits_end_in_time(transport) {
        let began = now();
        check(&Server::on(transport), "
            > put 0 1 60 1
            > a
            < INSERTED 1
            > reserve-with-timeout 0
            < TIMED_OUT
            > reserve
            < RESERVED 1 1
            < a
            > reserve-with-timeout 1
            < TIMED_OUT
        ");
        assert!(began.elapsed().as_millis() >= 1_900 && began.elapsed() < PATIENCE);
    }

    fn a_reservation_ends_with_its_connection(transport) {
        let server = Server::on(transport);
        let mut observer = server.beanstalk();
        for round in 1..=200 {
            let id = observer.put("x");
            let mut holder = server.beanstalk();
            assert_eq!(holder.ask(&format!("reserve-job {id}")), format!("RESERVED {id} 1"));
            assert_eq!(holder.stream.line(), "x");
            drop(holder);
            // At once: the daemon may not have noticed the end by itself yet.
            let mut next = server.beanstalk();
            let answer = next.ask(&format!("reserve-job {id}"));
            assert_eq!(answer, format!("RESERVED {id} 1"), "round {round}");
            next.stream.line();
            assert_eq!(next.ask(&format!("delete {id}")), "DELETED");
        }
    }

    fn who_polls_gets_what_a_peer_that_has_just_gone_held(transport) {
        let server = Server::on(transport);
        let mut producer = server.beanstalk();
        for _ in 0..100 {
            let id = producer.put("x");
            let mut holder = server.beanstalk();
            assert_eq!(holder.reserve().0, id);
            let mut next = server.beanstalk();
            assert_eq!(next.ask("reserve-with-timeout 0"), "TIMED_OUT");
            drop(holder);
            let answer = next.ask("reserve-with-timeout 0");
            assert_eq!(answer, format!("RESERVED {id} 1"));
            assert_eq!(next.stream.line(), "x");
            assert_eq!(next.ask(&format!("delete {id}")), "DELETED");
        }
    }

    fn the_end_of_what_is_sent_is_the_last_request(transport) {
        let server = Server::on(transport);
        let mut peer = server.connect("beanstalk");
        peer.send("put 0 0 60 1\r\nA\r\n");
        peer.half_close();
        assert_eq!(peer.rest(), "INSERTED 1\r\n");
    }

    fn a_waiting_peer_that_sends_no_more_is_timed_out_and_answered(transport) {
        let server = Server::on(transport);
        let mut peer = server.connect("beanstalk");
        peer.send("reserve\r\nput 0 0 60 1\r\nA\r\nlist-tube-used\r\n");
        peer.half_close();
        assert_eq!(peer.rest(), "TIMED_OUT\r\nINSERTED 1\r\nUSING default\r\n");
        // Also when it waited for long.
        let mut peer = server.connect("beanstalk");
        peer.send("watch empty\r\nignore default\r\nreserve\r\n");
        let mut observer = server.beanstalk();
        eventually("it waits", || observer.server("current-waiting") == 1);
        peer.half_close();
        assert_eq!(peer.rest(), "WATCHING 2\r\nWATCHING 1\r\nTIMED_OUT\r\n");
    }

    fn pipelined_commands_are_answered_in_their_order(transport) {
        let server = Server::on(transport);
        let mut peer = server.beanstalk();
        let mut sent = String::new();
        for number in 0..3_000 {
            let body = number.to_string();
            sent += &format!("put 0 0 60 {}\r\n{body}\r\nreserve\r\n", body.len());
        }
        // Answers are read meanwhile, else both sides could end up waiting.
        let mut reader = server.beanstalk();
        std::mem::swap(&mut reader, &mut peer);
        reader.stream.send(&sent);
        for number in 0..3_000 {
            assert_eq!(reader.stream.line(), format!("INSERTED {}", number + 1));
            let body = number.to_string();
            assert_eq!(
                reader.stream.line(),
                format!("RESERVED {} {}", number + 1, body.len())
            );
            assert_eq!(reader.stream.line(), body);
        }
    }
}

#[test]
fn stats_of_a_job_have_the_originals_keys_and_count_right() {
    let server = Server::start();
    check(
        &server,
        "
        > put 5 0 60 1
        > a
        < INSERTED 1
        > reserve
        < RESERVED 1 1
        < a
        > release 1 6 0
        < RELEASED
        > reserve
        < RESERVED 1 1
        < a
        > bury 1 7
        < BURIED
        > kick 1
        < KICKED 1
        ",
    );
    let mut peer = server.beanstalk();
    let lines = peer.document("stats-job 1");
    let expected = [
        "id: 1",
        "tube: default",
        "state: ready",
        "pri: 7",
        "age: ",
        "delay: 0",
        "ttr: 60",
        "time-left: 0",
        "file: 0",
        "reserves: 2",
        "timeouts: 0",
        "releases: 1",
        "buries: 1",
        "kicks: 1",
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "{line} is not {start}");
    }
}

#[test]
fn stats_of_a_tube_and_of_the_server_have_the_originals_keys() {
    let server = Server::start();
    let mut peer = server.beanstalk();
    peer.ask("use jobs");
    peer.put("a");
    let keys = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split(':').next().unwrap().to_owned()).collect()
    };
    let of_tube = keys(peer.document("stats-tube jobs"));
    let expected = "name current-jobs-urgent current-jobs-ready current-jobs-reserved \
        current-jobs-delayed current-jobs-buried total-jobs current-using current-watching \
        current-waiting cmd-delete cmd-pause-tube pause pause-time-left";
    assert_eq!(of_tube.join(" "), expected);
    let of_server = keys(peer.document("stats"));
    let expected = "current-jobs-urgent current-jobs-ready current-jobs-reserved \
        current-jobs-delayed current-jobs-buried cmd-put cmd-peek cmd-peek-ready \
        cmd-peek-delayed cmd-peek-buried cmd-reserve cmd-reserve-with-timeout cmd-delete \
        cmd-release cmd-use cmd-watch cmd-ignore cmd-bury cmd-kick cmd-touch cmd-stats \
        cmd-stats-job cmd-stats-tube cmd-list-tubes cmd-list-tube-used cmd-list-tubes-watched \
        cmd-pause-tube job-timeouts total-jobs max-job-size current-tubes current-connections \
        current-producers current-workers current-waiting total-connections pid version \
        rusage-utime rusage-stime uptime binlog-oldest-index binlog-current-index \
        binlog-records-migrated binlog-records-written binlog-max-size draining id hostname os \
        platform";
    assert_eq!(of_server.join(" "), expected);
    assert_eq!(peer.figure("stats", "pid"), server.process.id().to_string());
    assert_eq!(peer.figure("stats-tube jobs", "current-using"), "1");
    assert_eq!(peer.document("list-tubes"), ["- default", "- jobs"]);
}

#[test]
fn a_body_over_the_limit_is_swallowed_however_long_it_is() {
    let server = Setup::new().limits("max_message_size = 100").start();
    let mut peer = server.beanstalk();
    let before = server.process.resident_bytes();
    let body = vec![b'x'; 64 * 1024];
    peer.stream.send(format!("put 0 0 60 {}\r\n", 256 * body.len()));
    for _ in 0..256 {
        peer.stream.send(&body);
    }
    assert_eq!(peer.ask("\r\nlist-tube-used"), "JOB_TOO_BIG");
    assert_eq!(peer.stream.line(), "USING default");
    let grown = server.process.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "16 MiB passed through and {grown} bytes stayed");
}
