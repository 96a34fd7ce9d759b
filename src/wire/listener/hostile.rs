//! Listener, clients' threads, outboxes and writers together, with peers that mean no good. The
//! test plays a dispatcher that answers each line with a line, or with a flood where it is asked.

use super::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use super::tests::{Scene, scene};
use crate::channels::{self, Notice};
use crate::wire::outbox::{Flush, Outbox};
use crate::wire::threads::Joiner;
use crate::wire::writer::Writers;
use crate::words::command::Command;
use crate::words::ids::{Committed, ConnectionId};
use crate::words::limits::LimitValues;

/// What a line of `flood` is answered with.
const FLOOD_BYTES: usize = 20 * 1024 * 1024;

/// How the dispatcher saw a connection end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    timed_out: usize,
    writing_failed: usize,
    stopped: usize,
    others: usize,
}

/// Serves until told to stop and everybody has ended.
struct Echo {
    outboxes: HashMap<ConnectionId, (Outbox, bool)>,
    ends: Ends,
}

impl Echo {
    fn run(scene: &mut Scene) -> JoinHandle<Ends> {
        let events = std::mem::replace(&mut scene.stage.events, channels::events().1);
        let shared = scene.stage.shared.clone();
        let writers = Arc::new(Writers {
            events: shared.events.clone(),
            threads: shared.threads.clone(),
            limits: shared.limits.clone(),
        });
        let mut echo = Echo { outboxes: HashMap::new(), ends: Ends::default() };
        std::thread::Builder::new()
            .spawn(move || {
                while let Ok(event) = events.recv() {
                    if matches!(event, Event::Stop) {
                        break;
                    }
                    echo.take(event, &writers);
                }
                // Ends of threads that stand behind the stop in the channel.
                drop(echo.outboxes);
                echo.ends
            })
            .unwrap()
    }

    fn take(&mut self, event: Event, writers: &Arc<Writers>) {
        match event {
            Event::Opened(opened) => {
                let NewConnection { connection, transport, gate, .. } = *opened;
                let outbox = Outbox::new(connection, transport, gate, writers.clone());
                self.outboxes.insert(connection, (outbox, false));
            }
            Event::Requests { connection, requests, .. } => {
                let Some((outbox, _)) = self.outboxes.get_mut(&connection) else { return };
                for request in requests {
                    let Command::Put(put) = request.command else { continue };
                    if *put.body == *b"flood" {
                        let all = outbox.output().buffer().len() + FLOOD_BYTES;
                        outbox.output().buffer().resize(all, b'x');
                    } else {
                        outbox.output().buffer().extend_from_slice(&put.body);
                    }
                    outbox.output().buffer().push(b'\n');
                }
                let flush = outbox.flush(Committed::default());
                self.after(connection, flush);
            }
            Event::Written { connection, result } => {
                let Some((outbox, _)) = self.outboxes.get_mut(&connection) else { return };
                let flush = outbox.written(result, Committed::default());
                self.after(connection, flush);
            }
            Event::Ended { connection, end } => {
                let counter = match end {
                    End::TimedOut(_) => &mut self.ends.timed_out,
                    End::Stopped => &mut self.ends.stopped,
                    _ => &mut self.ends.others,
                };
                *counter += 1;
                if let Some((outbox, ended)) = self.outboxes.get_mut(&connection) {
                    *ended = true;
                    if outbox.is_empty() {
                        self.outboxes.remove(&connection);
                    }
                }
            }
            _ => {}
        }
    }

    fn after(&mut self, connection: ConnectionId, flush: Flush) {
        match flush {
            Flush::Empty if self.outboxes[&connection].1 => {
                self.outboxes.remove(&connection);
            }
            Flush::Broken(_) => {
                self.ends.writing_failed += 1;
                self.outboxes.remove(&connection);
            }
            _ => {}
        }
    }
}

/// A well-behaved peer.
struct Friend(BufReader<TcpStream>);

impl Friend {
    fn new(address: SocketAddr) -> Friend {
        Friend(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    /// Whether a line comes back as it was sent.
    fn is_served(&mut self, line: &str) -> bool {
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
        let mut heard = String::new();
        self.0.read_line(&mut heard).unwrap();
        heard == line
    }
}

/// Ends the daemon in its order; says how its connections ended.
fn stop(scene: Scene, echo: JoinHandle<Ends>) -> Ends {
    scene.listening.stop();
    assert!(scene.listening.join());
    scene.stage.shared.clients.end_all();
    let mut joiner = Joiner::new(scene.stage.shared.threads.clone());
    let take = |joiner: &mut Joiner| match scene
        .stage
        .notices
        .recv_timeout(Duration::from_secs(20))
        .unwrap()
    {
        Notice::ThreadStarted(number, handle) => joiner.started(number, handle),
        Notice::ThreadEnded(number) => assert!(joiner.ended(number)),
        _ => unreachable!(),
    };
    while scene.stage.shared.clients.reading() > 0 {
        take(&mut joiner);
    }
    scene.stage.shared.events.send(Event::Stop).unwrap();
    let ends = echo.join().unwrap();
    // Writers that were stuck have been let go with their outboxes.
    while !joiner.is_done() {
        take(&mut joiner);
    }
    assert_eq!(scene.stage.shared.clients.count(), 0);
    ends
}

#[test]
fn a_peer_that_never_reads_is_given_up_and_nobody_else_notices() {
    let mut scene = scene(LimitValues { write_timeout_ms: 200, ..LimitValues::default() });
    let echo = Echo::run(&mut scene);
    let mut friend = Friend::new(scene.address());
    let mut stalled = TcpStream::connect(scene.address()).unwrap();
    stalled.write_all(b"flood\n").unwrap();
    // Once its thread has ended, its connection is gone for good.
    while scene.stage.shared.clients.reading() < 2 {
        std::thread::yield_now();
    }
    let mut rounds = 0;
    while scene.stage.shared.clients.reading() == 2 {
        assert!(friend.is_served("meanwhile\n"));
        rounds += 1;
    }
    assert!(rounds > 20, "{rounds} rounds while the other peer was stuck");
    assert!(friend.is_served("afterwards\n"));
    let ends = stop(scene, echo);
    assert_eq!((ends.writing_failed, ends.stopped), (1, 1));
}

#[test]
fn a_slow_reader_gets_every_byte_also_behind_its_half_close() {
    let mut scene = scene(LimitValues::default());
    let echo = Echo::run(&mut scene);
    let mut slow = TcpStream::connect(scene.address()).unwrap();
    slow.write_all(b"flood\nthe end\n").unwrap();
    slow.shutdown(std::net::Shutdown::Write).unwrap();
    let mut friend = Friend::new(scene.address());
    let mut heard = 0;
    let mut tail = Vec::new();
    let mut part = vec![0; 100_000];
    loop {
        assert!(friend.is_served("between two reads\n"));
        let count = slow.read(&mut part).unwrap();
        if count == 0 {
            break;
        }
        heard += count;
        tail.extend_from_slice(&part[..count]);
        tail.drain(..tail.len().saturating_sub(10));
    }
    assert_eq!(heard, FLOOD_BYTES + 1 + "the end\n".len());
    assert!(tail.ends_with(b"x\nthe end\n"));
    let ends = stop(scene, echo);
    assert_eq!((ends.writing_failed, ends.others), (0, 1));
}

#[test]
fn a_stop_does_not_wait_for_a_peer_that_does_not_read() {
    let mut scene = scene(LimitValues::default());
    let echo = Echo::run(&mut scene);
    let mut stalled: Vec<_> =
        (0..10).map(|_| TcpStream::connect(scene.address()).unwrap()).collect();
    for peer in &mut stalled {
        peer.write_all(b"flood\n").unwrap();
    }
    // Ten clients' threads and ten writers.
    while scene.stage.shared.threads.alive() < 20 {
        std::thread::yield_now();
    }
    let ends = stop(scene, echo);
    assert_eq!(ends.stopped, 10);
}

#[test]
fn a_hundred_slow_lorises_are_shaken_off_at_the_frame_deadline() {
    let mut scene = scene(LimitValues { frame_timeout_ms: 300, ..LimitValues::default() });
    let echo = Echo::run(&mut scene);
    let mut friend = Friend::new(scene.address());
    let mut lorises: Vec<_> =
        (0..100).map(|_| TcpStream::connect(scene.address()).unwrap()).collect();
    while scene.stage.shared.clients.accepted() < 101 {
        std::thread::yield_now();
    }
    while scene.stage.shared.clients.reading() > 1 {
        for loris in &mut lorises {
            // Those that have been closed refuse it.
            let _ = loris.write_all(b"z");
        }
        assert!(friend.is_served("hello\n"));
    }
    let ends = stop(scene, echo);
    assert_eq!((ends.timed_out, ends.stopped), (100, 1));
}

#[test]
fn a_flood_of_connections_over_the_limit_leaves_those_inside_alone() {
    let mut scene = scene(LimitValues { max_connections: 20, ..LimitValues::default() });
    let echo = Echo::run(&mut scene);
    let mut friend = Friend::new(scene.address());
    assert!(friend.is_served("first\n"));
    let _inside: Vec<_> = (0..19).map(|_| TcpStream::connect(scene.address()).unwrap()).collect();
    while scene.stage.shared.clients.count() < 20 {
        std::thread::yield_now();
    }
    for round in 0..300 {
        let mut refused = TcpStream::connect(scene.address()).unwrap();
        let mut heard = String::new();
        refused.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "too many\n");
        assert!(round % 10 != 0 || friend.is_served("still here\n"));
    }
    assert_eq!(scene.stage.shared.clients.refused(), 300);
    assert_eq!(stop(scene, echo).stopped, 20);
}
