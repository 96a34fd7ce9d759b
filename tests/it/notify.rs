//! What the service manager is told.

use rustix::process::Signal;

use crate::harness::{Manager, Server, Setup};

fn managed(setup: Setup) -> (Manager, Server) {
    let manager = Manager::new();
    let server = setup.environment("NOTIFY_SOCKET", manager.address().to_str().unwrap()).start();
    (manager, server)
}

#[test]
fn ready_reloading_and_stopping_are_said() {
    let (mut manager, mut server) = managed(Setup::new());
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
    let (mut manager, server) = managed(setup);
    manager.hears("READY=1");
    let mut sender = server.beanstalk();
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
        sender.put("x");
    }
    // A stopped process does not move, and says nothing.
    server.process.signal(Signal::STOP);
    manager.skips_what_was_said();
    server.process.signal(Signal::CONT);
    manager.hears("WATCHDOG=1");
}
