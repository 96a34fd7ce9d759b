//! Conversations of a client's thread with a peer and a dispatcher, both played by the test.

use super::stage::{LineDecoder, Stage, body, name};
use super::*;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use socket2::Socket;

use crate::protocol::{Setup, WireError, beanstalk};
use crate::words::limits::{LimitValues, REQUESTS_PER_BATCH_MAX};

/// One connection on its stage.
pub(super) struct Scene<Peer> {
    pub(super) stage: Stage,
    pub(super) peer: Peer,
    transport: Arc<Transport>,
    pub(super) gate: Arc<Gate>,
}

fn scene_of<Peer>(stage: Stage, ours: Socket, peer: Peer) -> Scene<Peer> {
    Scene { stage, peer, transport: Arc::new(Transport::plain(ours)), gate: Arc::default() }
}

pub(super) fn scene_with(limits: LimitValues) -> Scene<UnixStream> {
    let (ours, peer) = UnixStream::pair().unwrap();
    scene_of(Stage::new(limits), Socket::from(OwnedFd::from(ours)), peer)
}

fn scene() -> Scene<UnixStream> {
    scene_with(LimitValues::default())
}

fn tcp_scene() -> Scene<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    scene_of(Stage::new(LimitValues::default()), Socket::from(OwnedFd::from(ours)), peer)
}

impl<Peer: Write> Scene<Peer> {
    fn connection(&self) -> Connection {
        self.connection_with(Box::new(LineDecoder::default()))
    }

    pub(super) fn connection_with(&self, decoder: Box<dyn Decoder>) -> Connection {
        Connection {
            id: ConnectionId(9),
            transport: self.transport.clone(),
            gate: self.gate.clone(),
            decoder,
            shared: self.stage.shared.clone(),
        }
    }

    fn start(&self) {
        self.start_as("client-9");
    }

    fn start_as(&self, name: &str) {
        let connection = self.connection();
        self.stage.shared.clients.register(connection.id, &connection.transport, &connection.gate);
        let threads = &self.stage.shared.threads;
        threads.start(name.to_owned(), 256 * 1024, move || connection.run()).unwrap();
    }

    pub(super) fn say(&mut self, text: &str) {
        self.peer.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn everything_of_one_read_travels_in_one_event() {
    let mut scene = scene();
    scene.say("a\nb\nc\nhal");
    scene.start();
    assert_eq!(scene.stage.puts(), ["a", "b", "c"]);
    scene.say("f\n");
    assert_eq!(scene.stage.puts(), ["half"]);
    drop(scene.peer);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
}

#[test]
fn bytes_that_come_one_at_a_time_make_the_same_requests() {
    let mut scene = scene();
    scene.start();
    for byte in "one\ntwo\nthree\n".chars() {
        scene.say(&byte.to_string());
    }
    let mut puts = Vec::new();
    while puts.len() < 3 {
        puts.extend(scene.stage.puts());
    }
    assert_eq!(puts, ["one", "two", "three"]);
}

#[test]
fn more_requests_than_an_event_carries_are_split() {
    let mut scene = scene();
    let lines: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    scene.say(&(lines.join("\n") + "\n"));
    scene.start();
    let mut puts = Vec::new();
    while puts.len() < 1000 {
        let batch = scene.stage.puts();
        assert!(batch.len() <= REQUESTS_PER_BATCH_MAX);
        puts.extend(batch);
    }
    assert_eq!(puts, lines);
}

#[test]
fn a_large_body_arrives_whole_and_is_charged_until_the_event_is_dropped() {
    let mut scene = scene();
    scene.start();
    let large = "0123456789".repeat(300_000);
    scene.say(&large);
    scene.say("\nsmall\n");
    match scene.stage.event() {
        Event::Requests { requests, charge, .. } => {
            assert!(body(&requests[0]) == large);
            assert!(scene.stage.shared.budget.bytes() >= large.len() as u64);
            drop(charge);
        }
        other => panic!("no requests but {}", name(&other)),
    }
    drop(scene.peer);
    while let Event::Requests { .. } = scene.stage.event() {}
    assert_eq!(scene.stage.shared.budget.bytes(), 0);
}

#[test]
fn bytes_of_an_incomplete_frame_are_charged_and_given_back_at_the_end() {
    let mut scene = scene();
    scene.start();
    scene.say("first\n0123456789");
    scene.stage.puts();
    while scene.stage.shared.budget.bytes() != 10 {
        std::thread::yield_now();
    }
    drop(scene.peer);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
    assert_eq!(scene.stage.shared.budget.bytes(), 0);
}

#[test]
fn what_came_before_a_mistake_stands_and_what_follows_is_not_read() {
    let mut scene = scene();
    scene.say("a\nb\nbad\nc\n");
    scene.start();
    assert_eq!(scene.stage.puts(), ["a", "b"]);
    match scene.stage.end() {
        End::Fault(text) => assert_eq!(text, WireError::BadMagic.to_string()),
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn quit_is_passed_on_and_ends_the_reading() {
    let mut scene = scene();
    scene.say("a\nquit\nb\n");
    scene.start();
    assert_eq!(scene.stage.puts(), ["a", "Quit"]);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
}

#[test]
fn a_panic_ends_the_connection_and_is_reported() {
    let mut scene = scene();
    scene.say("panic\n");
    scene.start();
    assert!(matches!(scene.stage.end(), End::Panicked));
    assert!(scene.gate.is_left());
    while scene.stage.shared.clients.reading() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_reset_is_told_from_an_end_of_file() {
    let scene = tcp_scene();
    scene.start();
    let peer = Socket::from(OwnedFd::from(scene.peer));
    peer.set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert!(matches!(scene.stage.end(), End::Reset(_)));
}

#[test]
fn requests_sent_before_a_half_close_are_followed_by_the_end_of_file() {
    let mut scene = tcp_scene();
    scene.start();
    scene.say("a\n");
    scene.peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(scene.stage.puts(), ["a"]);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
    // The socket still takes the answer.
    assert_eq!(scene.transport.socket().send(b"done").unwrap(), 4);
}

#[test]
fn a_decoder_gets_its_tick_while_the_peer_is_silent() {
    let mut scene = scene();
    scene.start();
    scene.say("tick 20\n");
    assert_eq!(scene.stage.puts(), ["Echo"]);
    scene.say("tick 20\ntick 1\n");
    assert_eq!(scene.stage.puts(), ["Echo"]);
}

#[test]
fn a_frame_that_trickles_in_is_given_up_at_its_deadline() {
    let mut scene = scene_with(LimitValues { frame_timeout_ms: 60, ..LimitValues::default() });
    scene.start();
    scene.say("whole\nx");
    scene.stage.puts();
    let mut told = false;
    loop {
        // A slow loris: a byte now and then, for ever.
        match scene.stage.events.recv_timeout(Duration::from_millis(3)) {
            Err(RecvTimeoutError::Timeout) => {
                if scene.peer.write_all(b"x").is_err() {
                    continue;
                }
            }
            Ok(Event::Requests { requests, .. }) => {
                assert_eq!(body(&requests[0]), "out of time", "the peer is told");
                told = true;
            }
            Ok(Event::Ended { end: End::TimedOut(what), .. }) => {
                assert!(told && what.contains("frame_timeout"));
                break;
            }
            other => panic!("unexpected: {:?}", other.map(|event| name(&event))),
        }
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_idle_timeout_where_there_is_one() {
    let mut scene = scene_with(LimitValues { idle_timeout_ms: 30, ..LimitValues::default() });
    scene.say("a\n");
    scene.start();
    scene.stage.puts();
    match scene.stage.end() {
        End::TimedOut(what) => assert!(what.contains("idle_timeout")),
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn a_protocol_may_have_an_idle_timeout_where_the_operator_has_none() {
    let scene = scene();
    let connection = scene.connection_with(Box::new(LineDecoder::with_idle_timeout(30)));
    scene.stage.shared.clients.register(connection.id, &connection.transport, &connection.gate);
    let threads = &scene.stage.shared.threads;
    threads.start("client-9".to_owned(), 256 * 1024, move || connection.run()).unwrap();
    match scene.stage.end() {
        End::TimedOut(what) => assert!(what.contains("idle_timeout")),
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn an_idle_connection_waits_without_a_timeout_and_a_begun_frame_with_one() {
    let mut scene = scene();
    scene.start();
    scene.say("a\n");
    scene.stage.puts();
    assert_eq!(scene.transport.socket().read_timeout().unwrap(), None);
    scene.say("half");
    while scene.transport.socket().read_timeout().unwrap().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn a_read_timeout_that_woke_for_nothing_is_taken_away() {
    let scene = scene();
    let mut reader = RequestReader::new(scene.connection());
    let applied = || scene.transport.socket().read_timeout().unwrap();
    reader.set_timeout(Some(1_000)).unwrap();
    let first = applied();
    assert!(first.is_some());
    // Slightly less, or nothing, is not worth a system call at first.
    reader.set_timeout(Some(950)).unwrap();
    reader.set_timeout(None).unwrap();
    assert_eq!(applied(), first);
    reader.woke_early = true;
    reader.set_timeout(None).unwrap();
    assert_eq!(applied(), None);
    // A deadline that would be missed by much is set anew.
    reader.set_timeout(Some(10_000)).unwrap();
    reader.set_timeout(Some(1_000)).unwrap();
    assert!(applied() < Some(Duration::from_millis(1_100)));
}

#[test]
fn nothing_is_read_behind_a_closed_gate_until_it_opens() {
    let mut scene = scene();
    scene.gate.close();
    scene.start();
    scene.say("a\n");
    scene.peer.shutdown(Shutdown::Write).unwrap();
    // The hang-up is seen all the same, before the request that came before it.
    assert_eq!(name(&scene.stage.event()), "HungUp");
    assert!(scene.stage.is_quiet());
    scene.gate.open();
    assert_eq!(scene.stage.puts(), ["a"]);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
}

#[test]
fn a_gate_that_closes_in_the_middle_of_a_read_holds_the_rest_back() {
    let mut scene = scene();
    let lines: String = (0..REQUESTS_PER_BATCH_MAX + 2).map(|_| "x\n").collect();
    scene.say(&lines);
    let mut reader = RequestReader::new(scene.connection());
    scene.gate.close();
    let thread =
        std::thread::Builder::new().spawn(move || reader.decode(lines.as_bytes()).is_ok()).unwrap();
    assert_eq!(scene.stage.puts().len(), REQUESTS_PER_BATCH_MAX);
    assert!(scene.stage.is_quiet());
    scene.gate.open();
    assert_eq!(scene.stage.puts().len(), 2);
    assert!(thread.join().unwrap());
}

#[test]
fn a_peer_that_closes_behind_a_closed_gate_keeps_what_it_had_sent() {
    let mut scene = scene();
    scene.gate.close();
    scene.start();
    scene.say("a\n");
    drop(scene.peer);
    assert_eq!(name(&scene.stage.event()), "HungUp");
    scene.gate.open();
    assert_eq!(scene.stage.puts(), ["a"]);
    assert!(matches!(scene.stage.end(), End::EndOfFile));
}

#[test]
fn a_peer_that_is_gone_for_good_ends_behind_a_closed_gate() {
    let scene = scene();
    scene.gate.close();
    scene.start();
    drop(scene.peer);
    assert_eq!(name(&scene.stage.event()), "HungUp");
    assert!(matches!(scene.stage.end(), End::EndOfFile));
    assert!(scene.gate.is_closed());
}

#[test]
fn a_reset_behind_a_closed_gate_ends_the_connection_at_once() {
    let mut scene = tcp_scene();
    scene.gate.close();
    scene.start();
    scene.say("a\n");
    let peer = Socket::from(OwnedFd::from(scene.peer));
    peer.set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    loop {
        match scene.stage.event() {
            Event::HungUp(_) => {}
            Event::Ended { end: End::Reset(_), .. } => break,
            other => panic!("unexpected: {}", name(&other)),
        }
    }
}

#[test]
fn a_hang_up_is_watched_for_once_and_then_waited_on_without_turning() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let transport = Transport::plain(Socket::from(OwnedFd::from(ours)));
    let gate = Gate::default();
    let wake = gate.wake().unwrap();
    let mut watch = Watch::new(false);
    assert!(watch.wait(&transport, &wake, Some(0)).unwrap() == Watched::Nothing);
    theirs.shutdown(Shutdown::Write).unwrap();
    assert!(watch.wait(&transport, &wake, None).unwrap() == Watched::HungUp);
    assert!(watch.wait(&transport, &wake, Some(0)).unwrap() == Watched::Nothing);
    // What the system reports unasked is seen once too.
    drop(theirs);
    assert!(watch.wait(&transport, &wake, None).unwrap() == Watched::HungUp);
    assert!(watch.wait(&transport, &wake, Some(0)).unwrap() == Watched::Nothing);
}

#[test]
fn time_behind_a_closed_gate_does_not_count_against_the_peer() {
    let scene = scene();
    let mut reader = RequestReader::new(scene.connection());
    let long_ago = Time(reader.now().0 - 1_000_000);
    reader.frame_began = Some(reader.now());
    reader.extend_deadlines(long_ago);
    assert!(reader.frame_began.unwrap() >= reader.now().plus(900_000));
    assert!(reader.check_deadlines(reader.now()).is_ok());
}

#[test]
fn a_stop_ends_a_thread_that_waits_for_its_peer() {
    let scene = scene();
    scene.start();
    scene.stage.shared.clients.end_all();
    assert!(matches!(scene.stage.end(), End::Stopped));
}

#[test]
fn a_stop_ends_a_thread_behind_a_closed_gate_also_after_a_hang_up() {
    let scene = tcp_scene();
    scene.gate.close();
    scene.start();
    scene.peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(name(&scene.stage.event()), "HungUp");
    scene.stage.shared.clients.end_all();
    assert!(matches!(scene.stage.end(), End::Stopped));
}

#[test]
fn what_has_arrived_before_a_stop_is_still_read() {
    let mut scene = tcp_scene();
    scene.say("a\nb\n");
    scene.transport.socket().peek(&mut [std::mem::MaybeUninit::uninit(); 1]).unwrap();
    let connection = scene.connection();
    scene.stage.shared.clients.register(connection.id, &connection.transport, &connection.gate);
    scene.stage.shared.clients.end_all();
    connection.run();
    assert_eq!(scene.stage.puts(), ["a", "b"]);
    assert!(matches!(scene.stage.end(), End::Stopped));
}

#[test]
fn a_peer_that_goes_on_sending_does_not_hold_up_a_stop() {
    let scene = tcp_scene();
    scene.start();
    let mut peer = scene.peer.try_clone().unwrap();
    let sender = std::thread::Builder::new()
        .spawn(move || while peer.write_all(b"more\nand more\n").is_ok() {})
        .unwrap();
    scene.stage.puts();
    scene.stage.shared.clients.end_all();
    loop {
        match scene.stage.event() {
            Event::Requests { .. } => {}
            Event::Ended { end: End::Stopped, .. } => break,
            other => panic!("unexpected: {}", name(&other)),
        }
    }
    drop(scene.transport);
    // It may have been reset already.
    let _ = scene.peer.shutdown(Shutdown::Both);
    sender.join().unwrap();
}

/// A sender without answers was held back only when the dispatcher came to its messages, so that a
/// fast one could have any number of them under way.
#[test]
fn regression_4_bodies_under_way_are_bounded_where_memory_is_small() {
    let mut scene = scene_with(LimitValues { max_memory: 4_000, ..LimitValues::default() });
    scene.start();
    let large = "y".repeat(2_000);
    scene.say(&format!("{large}\n"));
    let first = scene.stage.event();
    scene.say("more\n");
    let waited = Duration::from_millis(100);
    assert!(scene.stage.events.recv_timeout(waited).is_err(), "it has read on");
    drop(first);
    assert_eq!(scene.stage.puts(), ["more"]);
    // What others have under way is not waited for.
    let mut others = Charge::new(scene.stage.shared.budget.clone());
    others.set(3_000);
    scene.say("still more\n");
    assert_eq!(scene.stage.puts(), ["still more"]);
}

/// How often the thread of this name has gone to sleep.
fn sleeps(thread: &str) -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let folder = task.unwrap().path();
        // Other tests' threads come and go meanwhile.
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if name.trim() == thread {
            let status = std::fs::read_to_string(folder.join("status")).unwrap();
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return count.unwrap().trim().parse().unwrap();
        }
    }
    panic!("no thread is called {thread}");
}

/// How often the thread woke up in a while in which nothing happened.
fn wakes_while_nothing_happens(scene: &Scene<impl Write>, thread: &str) -> u64 {
    let settle = Duration::from_millis(50);
    assert!(scene.stage.events.recv_timeout(settle).is_err());
    let before = sleeps(thread);
    assert!(scene.stage.events.recv_timeout(4 * settle).is_err());
    sleeps(thread) - before
}

#[test]
fn an_idle_connection_does_not_wake_up() {
    let mut scene = scene();
    scene.start_as("idle-reading");
    scene.say("a\n");
    scene.stage.puts();
    assert_eq!(wakes_while_nothing_happens(&scene, "idle-reading"), 0);
}

#[test]
fn a_connection_behind_a_closed_gate_does_not_wake_up_even_after_a_hang_up() {
    let scene = tcp_scene();
    scene.gate.close();
    scene.start_as("idle-gated");
    scene.peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(name(&scene.stage.event()), "HungUp");
    assert_eq!(wakes_while_nothing_happens(&scene, "idle-gated"), 0);
}

/// A reader of a protocol that says how long a body is, and 100,000 bytes for one.
fn reader_of_bodies(scene: &Scene<impl Write>) -> (RequestReader, String) {
    let limits = scene.stage.shared.limits.clone();
    let setup = Setup { limits, secret: [0; 16], options: Arc::default(), is_local_socket: false };
    let (decoder, _) = (beanstalk::PROTOCOL.connect)(&setup);
    let reader = RequestReader::new(scene.connection_with(decoder));
    (reader, "0123456789".repeat(10_000))
}

#[test]
fn the_rest_of_a_large_body_is_read_to_its_place_and_what_follows_is_left() {
    let mut scene = scene();
    let (mut reader, large) = reader_of_bodies(&scene);
    scene.say(&format!("put 0 0 60 100000\r\n{large}\r\nput 0 0 60 1\r\nx\r\n"));
    let mut small = [0; READ_SMALL_BYTES];
    // The start, then all that had arrived of the body in one read, then what came behind it.
    assert!(reader.turn(&mut small).is_ok());
    assert!(scene.stage.is_quiet());
    assert!(reader.turn(&mut small).is_ok());
    assert!(scene.stage.puts() == [large]);
    assert_eq!(reader.large.capacity(), 0);
    assert_eq!(scene.stage.shared.budget.bytes(), 0);
    assert!(reader.turn(&mut small).is_ok());
    assert_eq!(scene.stage.puts(), ["x"]);
}

#[test]
fn room_for_a_body_is_made_and_charged_as_it_arrives() {
    let mut scene = scene();
    let (mut reader, large) = reader_of_bodies(&scene);
    let mut small = [0; READ_SMALL_BYTES];
    scene.say("put 0 0 60 10000000\r\n");
    scene.say(&large[..READ_SMALL_BYTES]);
    assert!(reader.turn(&mut small).is_ok());
    for arrived in 2..6_u64 {
        scene.say(&large[..READ_SMALL_BYTES]);
        assert!(reader.turn(&mut small).is_ok());
        let charged = scene.stage.shared.budget.bytes();
        assert!(charged <= 2 * arrived * READ_SMALL_BYTES as u64, "{charged}");
    }
    assert!(scene.stage.is_quiet());
}

#[test]
fn a_large_body_whose_rest_does_not_come_runs_out_of_time() {
    let limits = LimitValues { frame_timeout_ms: 30, ..LimitValues::default() };
    let mut scene = scene_with(limits);
    let (mut reader, large) = reader_of_bodies(&scene);
    scene.say(&format!("put 0 0 60 100000\r\n{}", &large[..50_000]));
    let mut small = [0; READ_SMALL_BYTES];
    let end = loop {
        if let Err(end) = reader.turn(&mut small) {
            break end;
        }
    };
    assert!(matches!(end, End::TimedOut(_)));
}

#[test]
fn a_connection_that_has_been_busy_waits_without_a_buffer() {
    let mut scene = scene();
    scene.say(&("x".repeat(3 * READ_SMALL_BYTES) + "\n"));
    let mut reader = RequestReader::new(scene.connection());
    let mut small = [0; READ_SMALL_BYTES];
    assert!(reader.turn(&mut small).is_ok());
    assert_eq!(reader.large.capacity(), READ_LARGE_BYTES);
    // All of the rest in one read.
    assert!(reader.turn(&mut small).is_ok());
    assert_eq!(scene.stage.puts()[0].len(), 3 * READ_SMALL_BYTES);
    // The next read finds nothing and does not wait; the one after it would.
    assert!(reader.turn(&mut small).is_ok());
    assert_eq!(reader.large.capacity(), 0);
}

/// The process was stopped in the middle of a frame, or while a peer was silent: what it has sent
/// meanwhile has not been read.
#[test]
fn a_deadline_that_was_slept_over_begins_anew() {
    let limits = LimitValues { idle_timeout_ms: 20_000, ..LimitValues::default() };
    let frame_ms = limits.frame_timeout_ms;
    for (late_ms, closed) in [(0, true), (PAUSE_MS - 1, true), (PAUSE_MS, false)] {
        let mut reader = RequestReader::new(scene_with(limits).connection());
        let began = reader.now();
        reader.frame_began = Some(began);
        let seen = began.plus(frame_ms + late_ms);
        assert_eq!(reader.check_deadlines(seen).is_err(), closed, "frame, {late_ms} ms late");
        if !closed {
            assert!(reader.check_deadlines(seen.plus(frame_ms - 1)).is_ok());
            assert!(reader.check_deadlines(seen.plus(frame_ms)).is_err());
        }
        reader.frame_began = None;
        reader.last_heard = began;
        let seen = began.plus(20_000 + late_ms);
        assert_eq!(reader.check_deadlines(seen).is_err(), closed, "idle, {late_ms} ms late");
    }
}
