//! Descriptors and threads that have really run out, each in a process of its own: the test starts
//! its own program again, told by an environment variable to play the daemon.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::tests::{bare_listener, scene};
use crate::wire::connection::stage::name;
use crate::words::limits::LimitValues;

const ROLE: &str = "PHPMQ_TEST_EXHAUSTION";

/// Whether this process is the one to run short.
fn is_daemon() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// A daemon process, killed when the test is done with it.
struct Daemon {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Daemon {
    /// Runs this test again in a process of its own.
    fn start(test: &str) -> Daemon {
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program)
            .args([&format!("wire::listener::exhaustion::{test}"), "--exact", "--nocapture"])
            .env(ROLE, "daemon")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Daemon { process, lines }
    }

    /// What it says under this word.
    fn said(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended before '{word}'");
            if let Some((_, said)) = line.split_once(&format!("{word}=")) {
                return said.trim().to_owned();
            }
        }
    }

    /// The processor time it has used, in hundredths of a second.
    fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let field = |index: usize| fields.split_whitespace().nth(index).unwrap().parse::<u64>();
        field(11).unwrap() + field(12).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers every request with a line until its input ends.
fn serve_short_of_descriptors() {
    let scene = scene(LimitValues::default());
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 8), ..old }).unwrap();
    println!("address={}", scene.address());
    let mut connections = std::collections::HashMap::new();
    loop {
        match scene.stage.events.recv().unwrap() {
            Event::Opened(opened) => {
                connections.insert(opened.connection, opened);
            }
            Event::Requests { connection, .. } => {
                connections[&connection].transport.socket().send(b"ok\n").unwrap();
            }
            Event::Ended { connection, .. } => {
                connections.remove(&connection);
            }
            other => panic!("unexpected: {}", name(&other)),
        }
    }
}

/// The first line that a new connection gets for a request.
fn ask(address: SocketAddr) -> (TcpStream, String) {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"hello\n").unwrap();
    let mut heard = String::new();
    // An end without a line is a peer that came too late even to be told.
    let _ = BufReader::new(&peer).read_line(&mut heard);
    (peer, heard)
}

#[test]
fn at_the_limit_of_descriptors_peers_are_told_and_served_again_after_it() {
    if is_daemon() {
        serve_short_of_descriptors();
    }
    let mut daemon =
        Daemon::start("at_the_limit_of_descriptors_peers_are_told_and_served_again_after_it");
    let address: SocketAddr = daemon.said("address").parse().unwrap();

    let mut served = Vec::new();
    let refused = loop {
        let (peer, heard) = ask(address);
        match &heard[..] {
            "ok\n" => served.push(peer),
            other => break other.to_owned(),
        }
    };
    assert_eq!(refused, "too many\n");
    assert!(!served.is_empty() && served.len() < 20, "{} were served", served.len());

    // While the shortage lasts it tells one peer after the other and rests between them.
    let before = daemon.processor_ticks();
    for _ in 0..20 {
        assert_eq!(ask(address).1, "too many\n");
    }
    let ticks = daemon.processor_ticks() - before;
    assert!(ticks < 30, "{ticks} hundredths of a second of processor time");

    // Those that were there before have noticed nothing.
    let mut first = &served[0];
    first.write_all(b"still here\n").unwrap();
    let mut heard = [0; 3];
    first.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ok\n");

    drop(served);
    while ask(address).1 != "ok\n" {}
}

#[test]
fn without_a_thread_the_peer_is_told_and_the_dispatcher_hears_of_the_end() {
    if !is_daemon() {
        let test = "without_a_thread_the_peer_is_told_and_the_dispatcher_hears_of_the_end";
        assert_eq!(Daemon::start(test).said("survived"), "yes");
        return;
    }
    let (mut listener, _, address, stage) = bare_listener(LimitValues::default());
    let mut peer = TcpStream::connect(address).unwrap();
    let accepted = listener.socket.socket().accept();
    // Room for ordinary allocations, none for a stack.
    drop(vec![1_u8; 100_000]);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let old = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(pages * 4096 + 64 * 1024), ..old }).unwrap();
    let next = listener.take(accepted);
    setrlimit(Resource::As, old).unwrap();

    assert_eq!(next, Next::Rest);
    let opened = match stage.event() {
        Event::Opened(opened) => opened,
        other => panic!("unexpected: {}", name(&other)),
    };
    assert!(matches!(stage.event(), Event::Ended { connection, end: End::Reset(_) }
        if connection == opened.connection));
    assert_eq!((stage.shared.threads.alive(), stage.shared.clients.reading()), (0, 0));
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "too many\n");
    drop(opened);
    assert_eq!(stage.shared.clients.count(), 0);
    println!("survived=yes");
}
