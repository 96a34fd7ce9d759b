//! What a peer did before it hung up is done before what another peer asks after that.
//!
//! Each round is one program that ends a connection and then looks through another one, beside
//! other peers that keep the daemon busy. The daemon reads both connections in threads of their
//! own, so whether the end is seen first is a matter of microseconds: hence many rounds.

use crate::harness::Children as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::{Beanstalk, Phpmq, Server, Transport, over_both, without_copies};

const ROUNDS: usize = 1_200;
/// Peers that work all the time beside.
const BUSY_PEERS: usize = 3;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Close,
    Reset,
    HalfClose,
    /// With commands behind it whose answers are not read.
    Unread,
    /// And another connection comes and goes before the look.
    Drained,
}

const ENDINGS: [Ending; 5] =
    [Ending::Close, Ending::Reset, Ending::HalfClose, Ending::Unread, Ending::Drained];

/// Runs this while other peers put, reserve and delete.
fn beside_busy_peers(server: &Server, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let busy = || {
        let mut peer = server.beanstalk();
        peer.ask("use busy");
        peer.ask("watch busy");
        peer.ask("ignore default");
        while !is_over.load(Ordering::Relaxed) {
            peer.put("x");
            let (id, _) = peer.reserve();
            assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
        }
    };
    thread::scope(|scope| {
        for _ in 0..BUSY_PEERS {
            thread::Builder::new().spawn_scoped(scope, busy).unwrap();
        }
        /// Also when the work fails, or the others would go on for ever.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&is_over);
        work();
    });
}

/// A peer that has put a job into its tube and holds it, with its last second running.
fn holder(server: &Server, tube: &str) -> (Beanstalk, u64) {
    let mut holder = server.beanstalk();
    holder.ask(&format!("use {tube}"));
    let answer = holder.ask("put 0 0 1 1\r\nx");
    let id = answer.strip_prefix("INSERTED ").unwrap().parse().unwrap();
    assert_eq!(holder.ask(&format!("reserve-job {id}")), format!("RESERVED {id} 1"));
    assert_eq!(holder.stream.line(), "x");
    assert_eq!(holder.ask("reserve-with-timeout 5"), "DEADLINE_SOON");
    (holder, id)
}

/// Ends the connection; what is returned is to be kept as long as its other half may be open.
fn end(server: &Server, mut peer: Beanstalk, id: u64, ending: Ending) -> Option<Beanstalk> {
    match ending {
        Ending::Close => drop(peer),
        Ending::Reset => peer.stream.abort(),
        Ending::HalfClose => {
            peer.stream.half_close();
            return Some(peer);
        }
        Ending::Unread => {
            let commands = "put 9 0 60 1\r\ny\r\nlist-tubes\r\ndelete 999999\r\n";
            peer.stream.send(format!("touch {id}\r\n{commands}"));
        }
        Ending::Drained => {
            drop(peer);
            let mut between = server.beanstalk();
            between.ask("list-tube-used");
        }
    }
    None
}

/// One look, and whether it shows that the job is nobody's any more.
type Look = (&'static str, fn(&Server, u64, &str) -> bool);

fn ask(server: &Server, tube: &str, command: &str) -> String {
    let mut peer = server.beanstalk();
    peer.ask(&format!("use {tube}"));
    peer.ask(command)
}

fn look_at(server: &Server, command: &str, line: &str) -> bool {
    let mut peer = server.beanstalk();
    peer.stream.send(format!("{command}\r\n"));
    peer.stream.rest_of_stats().is_some_and(|text| text.lines().any(|found| found == line))
}

const LOOKS: [Look; 10] = [
    ("peek-ready", |s, id, tube| ask(s, tube, "peek-ready") == format!("FOUND {id} 1")),
    ("reserve-with-timeout 0", |s, id, tube| {
        let mut peer = s.beanstalk();
        peer.ask(&format!("watch {tube}"));
        peer.ask("ignore default");
        peer.ask("reserve-with-timeout 0") == format!("RESERVED {id} 1")
    }),
    ("reserve-job", |s, id, tube| {
        ask(s, tube, &format!("reserve-job {id}")) == format!("RESERVED {id} 1")
    }),
    ("delete", |s, id, tube| ask(s, tube, &format!("delete {id}")) == "DELETED"),
    ("stats-job", |s, id, _| look_at(s, &format!("stats-job {id}"), "state: ready")),
    ("stats-tube", |s, _, tube| {
        look_at(s, &format!("stats-tube {tube}"), "current-jobs-reserved: 0")
    }),
    // The holder used the tube; only who looks and the job keep it now.
    ("stats-tube, using", |s, _, tube| {
        look_at(s, &format!("stats-tube {tube}"), "current-using: 0")
    }),
    ("status of the console", |s, _, _| {
        // The console, the busy peers, and what this test keeps.
        s.console().number("connections") <= BUSY_PEERS as u64 + 2
    }),
    ("php-mq", |s, id, tube| {
        // What is sent now must not overtake the job.
        let mut consumer = s.phpmq(1);
        consumer.send(tube, "later");
        consumer.consume(tube, 10);
        let _ = id;
        ["x", "y"].contains(&&*consumer.receive().body)
    }),
    ("kick-job and release", |s, id, tube| {
        // What is ready can be neither kicked nor released, what is reserved by nobody deleted.
        ask(s, tube, &format!("kick-job {id}")) == "NOT_FOUND"
            && ask(s, tube, &format!("delete {id}")) == "DELETED"
    }),
];

over_both! {
    fn what_the_peer_held_is_back_before_the_next_look(transport) {
        let server = Server::on(transport);
        let mut early = Vec::new();
        beside_busy_peers(&server, || {
            for round in 0..ROUNDS {
                let (name, look) = LOOKS[round % LOOKS.len()];
                let ending = ENDINGS[round / LOOKS.len() % ENDINGS.len()];
                let tube = format!("tube-{round}");
                let (peer, id) = holder(&server, &tube);
                let kept = end(&server, peer, id, ending);
                if !look(&server, id, &tube) {
                    early.push((round, ending, name));
                }
                drop(kept);
            }
        });
        assert!(early.is_empty(), "{} of {ROUNDS} looks came too early: {early:?}", early.len());
    }

    fn what_was_sent_without_reading_the_answers_is_done_before_the_next_look(transport) {
        let server = Server::on(transport);
        let mut early = 0;
        beside_busy_peers(&server, || {
            let mut observer = server.beanstalk();
            for round in 0..ROUNDS / 4 {
                let mut peer = server.beanstalk();
                peer.ask(&format!("use tube-{round}"));
                let id = peer.put("x");
                peer.stream.send(format!("put 0 0 60 1\r\ny\r\ndelete {id}\r\n"));
                drop(peer);
                // Through a connection that is there already, and through a new one.
                let is_gone = observer.ask(&format!("peek {id}")) == "NOT_FOUND";
                let is_there = ask(&server, &format!("tube-{round}"), "peek-ready");
                early += usize::from(!is_gone || !is_there.starts_with("FOUND"));
            }
        });
        assert_eq!(early, 0, "of {} looks", ROUNDS / 4);
    }

    fn what_php_mq_says_without_an_answer_is_done_before_the_next_look(transport) {
        let server = Server::on(transport);
        let mut early = 0;
        beside_busy_peers(&server, || {
            for round in 0..ROUNDS / 4 {
                let queue = format!("queue-{round}");
                let mut peer: Phpmq = server.phpmq(2);
                peer.send_confirmed(&queue, "first");
                peer.consume(&queue, 1);
                let message = peer.receive();
                peer.acknowledge(&message);
                peer.send(&queue, "second");
                peer.send(&queue, "third");
                drop(peer);
                // The first is done, and what the window held of the others is back.
                let line = "current-jobs-ready: 2";
                early += usize::from(!look_at(&server, &format!("stats-tube {queue}"), line));
            }
        });
        assert_eq!(early, 0, "of {} looks", ROUNDS / 4);
    }

    fn what_a_killed_program_held_is_back_before_the_next_look(transport) {
        let server = Server::on(transport);
        let mut early = 0;
        for round in 0..40 {
            let tube = format!("tube-{round}");
            let (peer, id) = holder(&server, &tube);
            let mut program: Child =
                Command::new("sleep").arg("1000").stdin(peer.stream.into_stdin()).start().unwrap();
            // Who else is being started meanwhile has a copy of its socket from us.
            without_copies(|| program.kill().and_then(|()| program.wait())).unwrap();
            early += usize::from(ask(&server, &tube, "peek-ready") != format!("FOUND {id} 1"));
        }
        assert_eq!(early, 0, "of 40 looks");
    }
}

/// A peer that sent much and closed does not keep the others waiting for all of it.
#[test]
fn a_half_closed_peer_is_answered_and_holds_nobody_up() {
    let server = Server::on(Transport::Tcp);
    let mut observer = server.beanstalk();
    observer.put("x");
    let mut peer = server.beanstalk();
    peer.stream.send("peek 1\r\n".repeat(5_000) + "reserve-with-timeout 60\r\nreserve\r\n");
    peer.stream.half_close();
    assert_eq!(observer.ask("peek 1"), "FOUND 1 1");
    let answers = peer.stream.rest();
    assert_eq!(answers.matches("FOUND 1 1\r\n").count(), 5_000);
    assert!(answers.ends_with("RESERVED 1 1\r\nx\r\nTIMED_OUT\r\n"), "{answers:.100}");
}
