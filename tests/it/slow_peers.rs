//! Peers that ask for much, take little of it and go: nothing of them is left behind.

use crate::harness::{Beanstalk, Server, Setup, Transport, eventually, over_both};

/// A daemon that gives up on peers soon, with one large message and a watcher.
fn server(transport: Transport) -> (Server, Beanstalk) {
    let setup = Setup::on(transport).without_database();
    let server = setup.limits("max_output = \"64KiB\"\nwrite_timeout = \"1s\"").start();
    let mut watcher = server.beanstalk();
    watcher.put(&"x".repeat(400_000));
    (server, watcher)
}

/// A peer that has asked for far more than it takes.
fn glutton(server: &Server) -> Beanstalk {
    let mut peer = server.beanstalk();
    peer.stream.send("peek 1\r\n".repeat(100));
    peer.stream.send("reserve\r\n".repeat(2));
    // Something has come, so it is at work.
    assert_eq!(peer.stream.line(), "FOUND 1 400000");
    peer
}

over_both! {
    fn a_peer_that_is_gone_before_it_has_taken_its_answers_leaves_nothing_behind(transport) {
        let (server, mut watcher) = server(transport);
        for _ in 0..3 {
            glutton(&server).stream.reset();
        }
        eventually("all are gone", || watcher.server("current-connections") == 1);
        assert_eq!(watcher.tube("default", "current-jobs-reserved"), 0);
    }

    fn a_peer_that_half_closes_and_takes_nothing_is_given_up(transport) {
        let (server, mut watcher) = server(transport);
        let peer = glutton(&server);
        peer.stream.half_close();
        eventually("it is given up", || watcher.server("current-connections") == 1);
        drop(peer);
        assert_eq!(watcher.tube("default", "current-jobs-reserved"), 0);
    }
}
