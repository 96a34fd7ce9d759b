//! Peers that do not take what is sent to them.

use super::*;
use Durability::{Periodic, Write};

fn consume(window: u32) -> String {
    phpmq(2, &[(1, "q"), (4, &window.to_string())])
}

/// A message of 64 KB.
fn large() -> String {
    phpmq(1, &[(1, "q"), (2, &"x".repeat(65_536))])
}

#[test]
fn a_consumer_that_does_not_read_gets_no_more_and_others_do() {
    let mut s = Stage::new().connect("psf", "phpmq", Periodic);
    s.say('s', consume(1_000));
    let slow = s.clients[&'s'].id;
    let mut sent = 0;
    while !s.dispatcher.peers[&slow].slow {
        s.say('p', large());
        sent += 1;
        assert!(sent < 100, "the socket takes no end of messages");
    }
    s.say('f', consume(1_000));
    s.say('p', large());
    assert!(s.hear('f').starts_with("H0100303"), "its windows count as full");
    assert_eq!(s.dispatcher.peers[&slow].outbox.unsent_bytes() / 65_536, 0);
}

#[test]
fn unsent_bytes_over_half_of_max_output_close_the_gate_until_the_peer_reads() {
    let limits = LimitValues { max_output: 1024 * 1024, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Periodic);
    s.say('a', put(&"x".repeat(65_000)));
    s.say('a', "peek 1\r\n".repeat(16));
    assert!(s.is_gated('a'));
    let mut stream = s.clients[&'a'].stream.as_ref().unwrap().try_clone().unwrap();
    let mut all = vec![0; 16 * ("FOUND 1 65000\r\n".len() + 65_000 + "\r\n".len())];
    let reading = std::thread::Builder::new()
        .spawn(move || {
            io::Read::read_exact(&mut stream, &mut all).unwrap();
            String::from_utf8(all).unwrap()
        })
        .unwrap();
    let id = s.clients[&'a'].id;
    while s.is_gated('a') || !s.dispatcher.peers[&id].outbox.is_empty() {
        // The writer reports each chunk that the peer has taken.
        let event = s.dispatcher.events.recv().unwrap();
        s.dispatcher.turn_at(s.now, Some(event));
    }
    assert_eq!(reading.join().unwrap().matches("FOUND 1 65000").count(), 16);
}

#[test]
fn a_consumer_that_acknowledges_before_it_reads_on_is_heard() {
    let limits = LimitValues { max_output: 300_000, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("ps", "phpmq", Periodic);
    for _ in 0..20 {
        s.say('p', large());
    }
    s.say('s', consume(1_000));
    let id = s.clients[&'s'].id;
    assert!(s.dispatcher.peers[&id].slow);
    assert!(s.dispatcher.peers[&id].outbox.unsent_bytes() > 150_000);
    assert!(!s.is_gated('s'), "nothing of this is there because it was read");
}

#[test]
fn held_bytes_count_as_unsent() {
    let limits = LimitValues { max_output: 100_000, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
    s.say('a', put(&"x".repeat(30_000)));
    assert!(!s.is_gated('a'));
    s.say('a', "peek 1\r\npeek 1\r\n");
    assert!(s.is_gated('a'));
    s.commit();
    assert_eq!(s.hear('a').matches("FOUND").count(), 2);
    assert!(!s.is_gated('a'));
}

#[test]
fn many_small_answers_that_wait_count_as_what_they_cost() {
    let limits = LimitValues { max_output: 20_000, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    s.say('a', "kick 1\r\n".repeat(200));
    assert!(s.is_gated('a'), "2,000 bytes, but 200 promises");
    s.commit();
    assert!(!s.is_gated('a'));
    assert_eq!(s.hear('a').matches("KICKED 0").count(), 200);
}
