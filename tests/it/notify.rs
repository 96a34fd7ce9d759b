//! What the service manager is told.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::harness::{PATIENCE, Server, Setup, eventually};

/// A service manager's socket.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
    heard: Vec<String>,
}

impl Manager {
    fn start(setup: Setup) -> (Manager, Server) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let server = setup.environment("NOTIFY_SOCKET", path.to_str().unwrap()).start();
        (Manager { socket, _directory: directory, heard: Vec::new() }, server)
    }

    /// Reads until this has been said.
    fn hears(&mut self, start: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let count = match self.socket.recv(&mut bytes) {
                Ok(count) => count,
                // A process that is stopped for a moment does not go on reading by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{start} was not said ({error}), but {:?}", self.heard),
            };
            let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
            self.heard.push(text.clone());
            if text.starts_with(start) {
                return text;
            }
        }
    }
}

#[test]
fn ready_reloading_and_stopping_are_said() {
    let (mut manager, mut server) = Manager::start(Setup::new());
    manager.hears("READY=1");
    assert!(manager.heard.iter().any(|text| text.starts_with("STATUS=")), "{:?}", manager.heard);
    // Ready means that it can be talked to.
    assert_eq!(server.beanstalk().put("x"), 1);
    server.process.signal(Signal::HUP);
    assert!(manager.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hears("READY=1");
    assert_eq!(server.stop().code(), Some(0));
    manager.hears("STOPPING=1");
    assert!(!manager.heard.contains(&"WATCHDOG=1".to_owned()), "nobody asked for it");
}

#[test]
fn the_watchdog_is_fed_while_both_threads_move() {
    let setup = Setup::new().environment("WATCHDOG_USEC", "200000");
    let (mut manager, server) = Manager::start(setup);
    manager.hears("READY=1");
    let mut sender = server.beanstalk();
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
        sender.put("x");
    }
    // A stopped process does not move, and says nothing.
    server.process.signal(Signal::STOP);
    manager.socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 1024];
    eventually("all is read", || manager.socket.recv(&mut bytes).is_err());
    manager.socket.set_nonblocking(false).unwrap();
    server.process.signal(Signal::CONT);
    manager.hears("WATCHDOG=1");
}
