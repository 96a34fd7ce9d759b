//! Refusals and gates when memory, journal or disk are short, and while the daemon drains.

use super::*;
use Durability::{Periodic, Write};

/// Room for about ten messages of 1,000 bytes.
fn little_memory() -> Settings {
    little_memory_beside(0)
}

/// The same beside what so many connections watch from their beginning.
fn little_memory_beside(connections: u64) -> Settings {
    // Beside the queue that is always there.
    let max_memory = 526 + connections * 580 + 12_500;
    let limits = LimitValues { max_memory, ..LimitValues::default() };
    Settings { limits, on_disk: false, ..Settings::default() }
}

fn big() -> String {
    put(&"x".repeat(1_000))
}

fn sent(body_bytes: usize) -> String {
    phpmq(1, &[(1, "q"), (2, &"x".repeat(body_bytes))])
}

fn consume(window: &str) -> String {
    phpmq(2, &[(1, "q"), (4, window)])
}

/// The acknowledgement of the message in a dispatch of `q`.
fn acknowledge(dispatch: &str) -> String {
    let id = &dispatch[dispatch.len() - 32..];
    phpmq(4, &[(1, "q"), (3, id)])
}

#[test]
fn puts_over_max_memory_are_refused_until_there_is_room() {
    let mut s = Stage::with(little_memory_beside(2)).connect("ab", "beanstalk", Periodic);
    for _ in 0..11 {
        s.say('a', big());
    }
    s.hear('a');
    s.say('a', big());
    assert_eq!(s.hear('a'), "OUT_OF_MEMORY\r\n");
    assert!(!s.is_gated('a'), "who is told need not be held back");
    s.say('b', "reserve\r\n");
    assert!(s.hear('b').starts_with("RESERVED 1 1000\r\n"), "consumers are served");
    s.say('b', "delete 1\r\ndelete 2\r\ndelete 3\r\n");
    s.say('a', big());
    assert_eq!(s.hear('a'), "INSERTED 12\r\n");
}

#[test]
fn a_silent_sender_waits_behind_its_gate_for_memory_and_loses_nothing() {
    let mut s = Stage::with(little_memory()).connect("ps", "phpmq", Periodic);
    for _ in 0..11 {
        s.say('p', sent(1_000));
    }
    s.say('p', sent(1_000));
    assert!(s.is_gated('p'));
    assert!(!s.is_gated('s'), "only who puts is held back");
    s.say('s', consume("20"));
    let heard = s.hear('s');
    assert_eq!(heard.matches("H0100303").count(), 12, "what it had sent is kept");
    for dispatch in heard.split("H0100303").skip(1).take(4) {
        s.say('s', acknowledge(dispatch));
    }
    assert!(!s.is_gated('p'));
}

#[test]
fn who_holds_messages_is_not_held_back_from_acknowledging_them() {
    let mut s = Stage::with(little_memory()).connect("ps", "phpmq", Periodic);
    s.say('s', consume("1"));
    for _ in 0..11 {
        s.say('p', sent(1_000));
    }
    let dispatch = s.hear('s');
    s.say('s', sent(10));
    assert!(!s.is_gated('s'), "it holds a message, and to finish it is what makes room");
    s.say('s', acknowledge(&dispatch));
}

#[test]
fn a_relay_with_nothing_in_hand_is_held_back_until_it_is_handed_something() {
    let mut s = Stage::new().connect("ps", "phpmq", Periodic);
    s.say('s', consume("1"));
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    s.say('s', phpmq(1, &[(1, "elsewhere"), (2, "x")]));
    assert!(s.is_gated('s'), "a window alone is no reason to let it put");
    s.say('p', sent(10));
    assert!(!s.is_gated('s'), "it was handed a message and must be able to acknowledge it");
    let dispatch = s.hear('s');
    s.say('s', acknowledge(&dispatch));
    s.say('s', phpmq(1, &[(1, "elsewhere"), (2, "x")]));
    assert!(s.is_gated('s'));
}

#[test]
fn a_holder_that_only_puts_is_held_back_when_memory_is_far_exceeded() {
    let mut s = Stage::with(little_memory()).connect("s", "phpmq", Periodic);
    s.say('s', consume("1"));
    for _ in 0..13 {
        s.say('s', sent(1_000));
    }
    assert!(!s.is_gated('s'));
    s.say('s', sent(1_000));
    assert!(s.is_gated('s'));
}

/// Its acknowledgement lay unread behind its puts, and it alone could have made room.
#[test]
fn regression_10_a_holder_is_not_held_back_for_ever() {
    let mut s = Stage::with(little_memory()).connect("sc", "phpmq", Periodic);
    s.say('s', consume("1"));
    for _ in 0..14 {
        s.say('s', sent(1_000));
    }
    let heard = s.hear('s');
    assert!(s.is_gated('s'));
    let wait_ms = LimitValues::default().frame_timeout_ms;
    s.pass(wait_ms - 1);
    assert!(s.is_gated('s') && !s.is_closed('s'));
    assert_eq!(s.wakes_in(), Some(1));
    s.pass(1);
    assert!(s.is_closed('s'));
    // What had arrived is read all the same.
    s.send('s', acknowledge(&heard));
    s.end('s', End::EndOfFile);
    s.say('c', consume("100"));
    assert_eq!(s.hear('c').matches("H0100303").count(), 13, "one of 14 was acknowledged");
}

#[test]
fn bodies_under_way_count_as_memory() {
    let mut s = Stage::with(little_memory()).connect("a", "beanstalk", Periodic);
    let mut charge = Charge::new(s.shared.budget.clone());
    charge.set(12_501);
    s.turn();
    s.say('a', put("x"));
    assert_eq!(s.hear('a'), "OUT_OF_MEMORY\r\n");
    drop(charge);
    s.turn();
    s.say('a', put("x"));
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
}

#[test]
fn who_cannot_be_told_that_a_message_is_too_large_stays_and_it_is_counted() {
    let mut s = Stage::with(little_memory()).connect("ps", "phpmq", Periodic);
    let too_large = 13_026 - 13_026 / 16;
    s.say('p', sent(too_large) + &sent(1));
    assert!(!s.is_gated('p'));
    assert_eq!(s.dispatcher.pressure.dropped.count, 1);
    s.say('s', consume("2"));
    assert!(s.hear('s').starts_with("H0100303P0100000000000000000000000000001qP02"));
    // Who asks for a confirmation is told, and nothing is dropped.
    let asked = phpmq(1, &[(1, "q"), (2, &"x".repeat(too_large)), (6, "n")]);
    s.say('p', asked);
    assert!(s.hear('p').starts_with("H0100802"));
    assert_eq!(s.dispatcher.pressure.dropped.count, 1);
}

#[test]
fn draining_refuses_puts_and_can_be_taken_back() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic).connect("pq", "phpmq", Periodic);
    s.say('a', put("x"));
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    s.hear('a');
    s.say('a', put("y") + "reserve\r\n");
    assert_eq!(s.hear('a'), "DRAINING\r\nRESERVED 1 1\r\nx\r\n");
    s.say('p', sent(10));
    assert!(s.is_gated('p') && !s.is_gated('q'));
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    assert!(!s.is_gated('p'));
    s.say('a', put("y"));
    assert_eq!(s.hear('a'), "INSERTED 3\r\n");
}

#[test]
fn a_disk_with_little_room_refuses_puts_before_it_is_full() {
    let settings = Settings { min_free_disk: 1_000, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Write);
    s.say('a', put("x"));
    s.commit();
    s.disk_has(999);
    s.turn();
    s.hear('a');
    s.say('a', put("y") + "delete 1\r\n");
    assert_eq!(s.hear('a'), "OUT_OF_MEMORY\r\n");
    s.commit();
    assert_eq!(s.hear('a'), "DELETED\r\n", "what makes room is taken");
    s.disk_has(1_050);
    s.turn();
    s.say('a', put("y"));
    assert_eq!(s.hear('a'), "OUT_OF_MEMORY\r\n", "a little more is not enough");
    s.disk_has(1_100);
    s.turn();
    s.say('a', put("y"));
    s.commit();
    assert_eq!(s.hear('a'), "INSERTED 2\r\n");
}

#[test]
fn a_full_journal_closes_the_gates_of_all_who_put_and_hold_nothing() {
    let mut s = Stage::new().connect("a", "beanstalk", Write).connect("p", "phpmq", Write);
    let body = vec![b'x'; 16 * 1024 * 1024];
    let message = [b"put 0 0 60 16777216\r\n", &body[..], b"\r\n"].concat();
    s.say('a', put("first"));
    let (batch, _) = s.order().unwrap();
    for _ in 0..16 {
        s.say('a', &message);
    }
    assert!(!s.is_gated('a'));
    s.say('a', put("over"));
    s.say('p', sent(10));
    assert!(s.is_gated('a') && s.is_gated('p'));
    s.finish(batch, Ok(()));
    s.commit();
    assert!(!s.is_gated('a') && !s.is_gated('p'));
}

#[test]
fn a_gate_with_two_reasons_opens_when_both_are_gone() {
    let mut s = Stage::new().connect("p", "phpmq", Periodic);
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    s.say('p', sent(10));
    let id = s.clients[&'p'].id;
    s.dispatcher.peers.get_mut(&id).unwrap().set_gate(Closed::BACKLOG, true);
    s.events.send(Event::ToggleDrain).unwrap();
    s.turn();
    assert!(s.is_gated('p'));
    s.dispatcher.peers.get_mut(&id).unwrap().set_gate(Closed::BACKLOG, false);
    assert!(!s.is_gated('p'));
}

#[test]
fn requests_that_pile_up_behind_a_waiting_reservation_close_the_gate() {
    let mut s = Stage::new().connect("ab", "beanstalk", Periodic);
    s.say('a', "reserve\r\n");
    for _ in 0..4 {
        s.say('a', "list-tube-used\r\n".repeat(128));
    }
    assert!(s.is_gated('a'));
    s.say('b', put("x"));
    assert!(!s.is_gated('a'));
    assert_eq!(s.hear('a').matches("USING default").count(), 512);
}

#[test]
fn the_main_thread_is_told_once_when_the_health_changes() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    let told = |s: &Stage| s.shared.notices.try_iter().count();
    s.say('a', put("x"));
    assert_eq!(told(&s), 0);
    for _ in 0..3 {
        s.fail(disk_full());
        s.pass(TICK_MS);
    }
    assert_eq!(told(&s), 1);
    assert!(s.dispatcher.health.line().contains("degraded"));
    s.commit();
    assert_eq!(told(&s), 1);
    assert_eq!(s.dispatcher.health.line(), "Serving");
}

#[test]
fn a_sender_that_cannot_be_told_of_a_refusal_is_disconnected() {
    let limits = LimitValues { max_queues: 1, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("pq", "phpmq", Periodic);
    s.say('p', sent(10));
    s.say('q', phpmq(1, &[(1, "one too many"), (2, "x"), (6, "mine")]));
    assert_eq!(s.hear('q'), phpmq(8, &[(6, "mine"), (2, "limits.max_queues is reached")]));
    assert!(!s.is_closed('q'));
    s.say('p', phpmq(1, &[(1, "one too many"), (2, "x")]));
    assert!(s.is_closed('p'));
}
