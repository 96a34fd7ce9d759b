//! Ends of connections, and of the daemon.

use super::*;
use Durability::{Periodic, Write};

#[test]
fn who_closes_its_sending_side_still_gets_its_answers() {
    let mut s = Stage::new().connect("a", "beanstalk", Write);
    s.send('a', put("x"));
    s.half_close('a');
    s.end('a', End::EndOfFile);
    s.turn();
    assert!(s.knows('a'), "an answer is held for it");
    s.commit();
    assert_eq!(s.hear('a'), "INSERTED 1\r\n");
    assert!(s.is_closed('a'));
    assert!(!s.knows('a'));
}

#[test]
fn a_reservation_that_waits_is_answered_when_the_peer_hangs_up_with_what_came_behind_it() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', "reserve\r\nlist-tube-used\r\n");
    s.half_close('a');
    s.end('a', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "TIMED_OUT\r\nUSING default\r\n");
    assert!(s.is_closed('a'));
}

#[test]
fn what_a_vanished_peer_held_goes_to_others_at_once() {
    let mut s = Stage::new().connect("abc", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.say('b', "reserve\r\n");
    s.say('c', "reserve\r\n");
    s.vanish('b');
    s.end('b', End::Reset(io::ErrorKind::ConnectionReset.into()));
    s.turn();
    assert_eq!(s.hear('c'), "RESERVED 1 1\r\nx\r\n");
    assert!(!s.knows('b'));
}

#[test]
fn the_end_of_a_holder_that_has_gone_is_handled_before_another_is_told_not_found() {
    let mut s = Stage::new().connect("abc", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.hear('a');
    s.say('b', "reserve\r\n");
    s.say('a', "reserve-job 1\r\ndelete 1\r\n");
    assert_eq!(s.hear('a'), "NOT_FOUND\r\nNOT_FOUND\r\n", "while it is there it holds it");
    s.vanish('b');
    s.send('a', "reserve-job 1\r\n");
    s.send('c', "list-tube-used\r\n");
    s.end('b', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "RESERVED 1 1\r\nx\r\n");
    assert_eq!(s.hear('c'), "USING default\r\n");
}

#[test]
fn requests_keep_their_order_while_the_end_of_a_holder_is_awaited() {
    let mut s = Stage::new().connect("ab", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.hear('a');
    s.say('b', "reserve\r\n");
    s.vanish('b');
    s.send('a', "reserve-job 1\r\nlist-tube-used\r\n");
    s.send('a', "use second\r\n");
    s.send('a', "use third\r\n");
    s.end('b', End::EndOfFile);
    s.send('a', "use fourth\r\n");
    s.turn();
    let order = "RESERVED 1 1\r\nx\r\nUSING default\r\nUSING second\r\nUSING third\r\n\
                 USING fourth\r\n";
    assert_eq!(s.hear('a'), order);
}

#[test]
fn a_holder_that_went_with_requests_unread_is_seen_to_have_gone() {
    let mut s = Stage::new().connect("ab", "beanstalk", Periodic);
    s.say('a', put("x") + &put("y"));
    s.hear('a');
    s.say('b', "reserve\r\nreserve\r\n");
    // Its thread has not read this yet.
    s.write('b', "delete 2\r\n");
    s.vanish('b');
    s.send('a', "reserve-job 1\r\npeek 2\r\n");
    s.send('b', "delete 2\r\n");
    s.end('b', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "RESERVED 1 1\r\nx\r\nNOT_FOUND\r\n");
}

#[test]
fn two_that_wait_for_the_same_end_are_answered_in_their_order() {
    let mut s = Stage::new().connect("abc", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.hear('a');
    s.say('b', "reserve\r\n");
    s.vanish('b');
    s.send('a', "delete 1\r\n");
    s.send('c', "delete 1\r\nlist-tube-used\r\n");
    s.send('c', "use second\r\n");
    s.end('b', End::EndOfFile);
    s.turn();
    assert_eq!(s.hear('a'), "DELETED\r\n");
    assert_eq!(s.hear('c'), "NOT_FOUND\r\nUSING default\r\nUSING second\r\n");
}

#[test]
fn two_that_hold_each_others_messages_and_have_gone_do_not_wait_for_each_other() {
    let mut s = Stage::new().connect("abc", "beanstalk", Periodic);
    s.say('c', put("x") + &put("y"));
    s.say('a', "reserve\r\n");
    s.say('b', "reserve\r\n");
    s.vanish('a');
    s.vanish('b');
    s.send('a', "delete 2\r\n".to_owned() + &put("of a"));
    s.send('b', "delete 1\r\n".to_owned() + &put("of b"));
    s.end('a', End::EndOfFile);
    s.end('b', End::EndOfFile);
    s.turn();
    s.hear('c');
    s.say('c', "peek 2\r\npeek 3\r\npeek 4\r\n");
    assert_eq!(s.hear('c').matches("FOUND").count(), 3, "{}", s.hear('c'));
}

#[test]
fn what_was_sent_before_a_mistake_stands_and_the_mistake_is_counted() {
    let mut s = Stage::new().connect("p", "phpmq", Periodic).connect("a", "beanstalk", Periodic);
    s.send('p', phpmq(1, &[(1, "default"), (2, "x")]));
    s.end('p', End::Fault("the frame does not begin as this protocol's do".to_owned()));
    s.turn();
    assert!(s.is_closed('p'));
    assert_eq!(s.dispatcher.protocol_errors, 1);
    s.say('a', "reserve\r\n");
    assert_eq!(s.hear('a'), "RESERVED 1 1\r\nx\r\n");
}

#[test]
fn a_stop_takes_what_has_come_before_it_and_has_everything_committed() {
    let mut s = Stage::new().connect("ab", "beanstalk", Write);
    s.say('b', put("x") + "reserve\r\n");
    s.commit();
    s.hear('b');
    // The last words of connections whose threads have ended, and one that has just been accepted.
    s.vanish('b');
    s.send('a', "delete 1\r\nuse second\r\n");
    s.send('a', put("late"));
    s.announce(Type::STREAM, 'c', "beanstalk", Write);
    s.end('b', End::Stopped);
    s.end('a', End::Stopped);
    s.end('c', End::Stopped);
    s.events.send(Event::Stop).unwrap();
    let Stage { dispatcher, orders, finished, clients, .. } = s;
    let persistence = std::thread::Builder::new()
        .spawn(move || {
            let mut rows = Vec::new();
            while let Ok(order) = orders.recv() {
                let (batch, closes) = match order {
                    Order::Commit { batch, .. } => (batch, false),
                    Order::Close { batch, .. } => (batch, true),
                    Order::Rewrite { .. } => panic!("nothing is suspect"),
                };
                rows.push((batch.rows(), batch.clean_stop()));
                drop(batch);
                finished.send(Ok(())).unwrap();
                if closes {
                    return rows;
                }
            }
            panic!("no last commit");
        })
        .unwrap();
    assert!(matches!(dispatcher.run(Vec::new()), Ok(Stopped::Clean)));
    let rows = persistence.join().unwrap();
    assert_eq!(rows.last().unwrap().1, Some(3), "the last commit says which id comes next");
    let heard = |letter| {
        let mut stream = clients[&letter].stream.as_ref().unwrap();
        let mut heard = String::new();
        // Up to the end of the connection, which is on both sides.
        io::Read::read_to_string(&mut stream, &mut heard).unwrap();
        heard
    };
    assert_eq!(heard('a'), "DELETED\r\nUSING second\r\nINSERTED 2\r\n");
    assert_eq!(heard('c'), "");
}

#[test]
fn a_stop_whose_last_commit_fails_says_what_is_lost() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.say('a', put("x"));
    s.events.send(Event::Stop).unwrap();
    let Stage { dispatcher, orders, finished, events, .. } = s;
    // Nobody sends events any more, so nothing waits for them.
    drop(events);
    let persistence = std::thread::Builder::new()
        .spawn(move || {
            while let Ok(order) = orders.recv() {
                let (Order::Commit { batch, .. } | Order::Close { batch, .. }) = order else {
                    panic!("a full disk leaves nothing suspect");
                };
                drop(batch);
                if finished.send(Err(disk_full())).is_err() {
                    return;
                }
            }
        })
        .unwrap();
    let stopped = dispatcher.run(Vec::new());
    assert!(matches!(stopped, Ok(Stopped::Lost(2, StoreError::Full { .. }))), "{stopped:?}");
    persistence.join().unwrap();
}
