//! Listeners with real peers, and with errors that accept is said to have brought.

use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use crate::channels::Notice;
use crate::wire::bind::{BindTo, bind};
use crate::wire::connection::stage::{LINES, Stage, name};
use crate::wire::threads::Joiner;
use crate::words::durability::Durability;
use crate::words::limits::{LimitValues, Limits};

fn service(limits: &Arc<Limits>) -> Service {
    Service {
        profile: Profile { protocol: &LINES, durability: Durability::Periodic, ack_timeout_ms: 0 },
        setup: Setup {
            limits: Arc::clone(limits),
            secret: [0; 16],
            options: Arc::default(),
            is_local_socket: false,
        },
    }
}

pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) listening: Listening,
}

pub(super) fn scene(limits: LimitValues) -> Scene {
    let stage = Stage::new(limits);
    let socket = bind(&BindTo::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let listening = start(1, socket, service(&stage.shared.limits), stage.shared.clone()).unwrap();
    Scene { stage, listening }
}

impl Scene {
    pub(super) fn address(&self) -> SocketAddr {
        match self.listening.local_address() {
            LocalAddress::Tcp(address) => *address,
            LocalAddress::Unix(_) => unreachable!(),
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).unwrap()
    }

    fn opened(&self) -> Box<NewConnection> {
        match self.stage.event() {
            Event::Opened(opened) => opened,
            other => panic!("unexpected: {}", name(&other)),
        }
    }

    /// Stops everything in the order of the daemon's shut-down; every thread must end.
    fn stop(self) {
        self.listening.stop();
        assert!(self.listening.join());
        self.stage.shared.clients.end_all();
        let mut joiner = Joiner::new(self.stage.shared.threads.clone());
        while !joiner.is_done() {
            match self.stage.notices.recv_timeout(Duration::from_secs(20)).unwrap() {
                Notice::ThreadStarted(number, handle) => joiner.started(number, handle),
                Notice::ThreadEnded(number) => assert!(joiner.ended(number)),
                _ => unreachable!(),
            }
        }
        assert_eq!(self.stage.shared.clients.reading(), 0);
    }
}

#[test]
fn a_connection_is_announced_before_its_first_request() {
    let scene = scene(LimitValues::default());
    let mut peer = scene.connect();
    peer.write_all(b"hello\n").unwrap();
    let opened = scene.opened();
    assert_eq!(opened.connection.0, 1);
    let local = peer.local_addr().unwrap();
    assert_eq!(opened.peer, PeerAddress::Ip(local.ip(), local.port()));
    assert_eq!(name(&scene.stage.event()), "1 requests");
    assert_eq!(scene.stage.shared.clients.accepted(), 1);
    scene.stop();
}

#[test]
fn small_answers_leave_at_once_and_dead_peers_are_noticed() {
    let limits =
        LimitValues { keepalive_ms: 30_000, tcp_user_timeout_ms: 60_000, ..LimitValues::default() };
    let scene = scene(limits);
    let mut peers = Vec::new();
    let mut check = |keepalive_s: u64| {
        peers.push(scene.connect());
        let opened = scene.opened();
        assert!(opened.transport.socket().tcp_nodelay().unwrap());
        assert!(opened.transport.socket().keepalive().unwrap());
        let time = opened.transport.socket().tcp_keepalive_time().unwrap();
        assert_eq!(time, Duration::from_secs(keepalive_s));
        let interval = opened.transport.socket().tcp_keepalive_interval().unwrap();
        assert_eq!(interval, Duration::from_secs(keepalive_s / 3));
        assert_eq!(opened.transport.socket().tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(
            opened.transport.socket().tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(60))
        );
    };
    // The first ones get their options one by one, later ones from the listening socket.
    for _ in 0..4 {
        check(30);
    }
    scene.stage.shared.limits.apply(&LimitValues { keepalive_ms: 90_000, ..limits });
    for _ in 0..4 {
        check(90);
    }
    scene.stop();
}

#[test]
fn a_unix_socket_serves_and_its_file_goes_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.sock");
    let stage = Stage::new(LimitValues::default());
    let to = BindTo::Unix { path: path.clone(), mode: 0o600, group: None };
    let service = service(&stage.shared.limits);
    let listening = start(2, bind(&to).unwrap(), service, stage.shared.clone()).unwrap();
    let scene = Scene { stage, listening };
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"hello\n").unwrap();
    assert_eq!(scene.opened().peer, PeerAddress::Unix);
    assert_eq!(name(&scene.stage.event()), "1 requests");
    scene.stop();
    assert!(!path.exists());
}

#[test]
fn a_connection_over_the_limit_is_told_so_and_closed_and_the_others_stay() {
    let scene = scene(LimitValues { max_connections: 2, ..LimitValues::default() });
    let mut first = scene.connect();
    let second = scene.connect();
    let kept = [scene.opened(), scene.opened()];
    let mut third = scene.connect();
    // What it has sent before it is told must not cost it the answer.
    third.write_all(b"hello\n").unwrap();
    let mut heard = String::new();
    third.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "too many\n");
    assert_eq!(scene.stage.shared.clients.refused(), 1);
    first.write_all(b"still here\n").unwrap();
    assert_eq!(name(&scene.stage.event()), "1 requests");
    // A place that has become free is given again.
    drop((second, kept));
    assert!(name(&scene.stage.event()).starts_with("Ended"));
    while scene.stage.shared.clients.count() > 1 {
        std::thread::yield_now();
    }
    let _fourth = scene.connect();
    scene.opened();
    scene.stop();
}

#[test]
fn one_address_cannot_take_all_places() {
    let limits = LimitValues { max_connections_per_peer: 1, ..LimitValues::default() };
    let scene = scene(limits);
    let _first = scene.connect();
    let _kept = scene.opened();
    let mut heard = String::new();
    scene.connect().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "too many\n");
    // Another address of the loopback network is another peer.
    let other = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    other.connect(&scene.address().into()).unwrap();
    assert!(matches!(scene.opened().peer, PeerAddress::Ip(ip, _) if ip.to_string() == "127.0.0.2"));
    scene.stop();
}

#[test]
fn a_stopped_listener_takes_no_more_but_its_passed_socket_lives_on() {
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = ListeningSocket::inherited(OwnedFd::from(passed.try_clone().unwrap())).unwrap();
    let stage = Stage::new(LimitValues::default());
    let service = service(&stage.shared.limits);
    let listening = start(3, socket, service, stage.shared.clone()).unwrap();
    let scene = Scene { stage, listening };
    scene.stop();
    let _peer = TcpStream::connect(passed.local_addr().unwrap()).unwrap();
    passed.set_nonblocking(false).unwrap();
    assert!(passed.accept().is_ok());
}

#[test]
fn a_flood_of_peers_that_have_gone_again_does_not_end_accepting() {
    let scene = scene(LimitValues::default());
    for _ in 0..100 {
        let peer = Socket::from(OwnedFd::from(scene.connect()));
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
    }
    let mut last = scene.connect();
    last.write_all(b"hello\n").unwrap();
    while name(&scene.stage.event()) != "1 requests" {}
    scene.stop();
}

/// Counts what an operator would have to read.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<slog::Level>>>);

impl slog::Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().unwrap().push(record.level());
        Ok(())
    }
}

/// A listener without a thread, its log, and its peers' address.
pub(super) fn bare_listener(limits: LimitValues) -> (Listener, Lines, SocketAddr, Stage) {
    let mut stage = Stage::new(limits);
    let lines = Lines::default();
    let log = slog::Logger::root(lines.clone(), slog::o!());
    Arc::get_mut(&mut stage.shared).unwrap().log = log;
    let socket = bind(&BindTo::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let LocalAddress::Tcp(address) = *socket.local_address() else { unreachable!() };
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let listener = Listener {
        socket,
        service: service(&stage.shared.limits),
        shared: stage.shared.clone(),
        stop: Arc::new(Stop { asked: AtomicBool::new(false), wake }),
        reserve: Some(SpareDescriptor::new().unwrap()),
        shortage_seen: None,
        prepared: None,
        has_unprepared: true,
    };
    (listener, lines, address, stage)
}

fn brought(error: Errno) -> io::Result<(Socket, SockAddr)> {
    Err(error.into())
}

#[test]
fn errors_of_one_peer_are_passed_over_without_a_word() {
    let (mut listener, lines, ..) = bare_listener(LimitValues::default());
    for error in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM, Errno::TIMEDOUT] {
        assert_eq!(listener.take(brought(error)), Next::Accept);
    }
    assert_eq!(listener.take(brought(Errno::AGAIN)), Next::Wait);
    assert!(lines.0.lock().unwrap().is_empty());
}

#[test]
fn shortages_are_said_once_an_episode_and_rested_from() {
    let (mut listener, lines, ..) = bare_listener(LimitValues::default());
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::INVAL] {
        for _ in 0..100 {
            assert_eq!(listener.take(brought(error)), Next::Rest);
        }
    }
    assert_eq!(*lines.0.lock().unwrap(), [slog::Level::Warning]);
    // After a quiet time it is another episode.
    listener.shortage_seen = listener.shortage_seen.map(|seen| Time(seen.0 - EPISODE_MS - 1));
    listener.take(brought(Errno::NOMEM));
    assert_eq!(lines.0.lock().unwrap().len(), 2);
}

#[test]
fn without_a_descriptor_a_waiting_peer_is_still_told() {
    let (mut listener, _, address, stage) = bare_listener(LimitValues::default());
    let mut peer = TcpStream::connect(address).unwrap();
    assert_eq!(listener.take(brought(Errno::MFILE)), Next::Rest);
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "too many\n");
    assert_eq!(stage.shared.clients.refused(), 1);
    assert!(listener.reserve.is_some());
}

#[test]
fn a_rest_is_not_cut_short_by_peers_but_by_the_stop() {
    let (listener, _, address, stage) = bare_listener(LimitValues::default());
    let _peer = TcpStream::connect(address).unwrap();
    let before = stage.shared.clock.uptime();
    listener.wait(Some(ACCEPT_PAUSE_MS));
    assert!(stage.shared.clock.uptime() - before >= Duration::from_millis(ACCEPT_PAUSE_MS - 5));
    rustix::io::write(&listener.stop.wake, &1_u64.to_ne_bytes()).unwrap();
    // Would be waited for to the end of days.
    listener.wait(Some(900));
    listener.wait(None);
}

#[test]
fn strangers_at_a_full_daemon_leave_one_line_that_an_operator_reads() {
    let limits = LimitValues { max_connections: 0, ..LimitValues::default() };
    let (mut listener, lines, address, _stage) = bare_listener(limits);
    for _ in 0..10 {
        let _peer = TcpStream::connect(address).unwrap();
        let accepted = listener.socket.socket().accept();
        assert_eq!(listener.take(accepted), Next::Accept);
    }
    let mut expected = vec![slog::Level::Warning];
    expected.extend([slog::Level::Debug; 10]);
    assert_eq!(*lines.0.lock().unwrap(), expected);
}
