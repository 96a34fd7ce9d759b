//! Pausing queues, and kicking back what is buried or delayed.

use super::Talk;

#[test]
fn a_pause_holds_hand_outs_back_but_not_puts() {
    let mut t = Talk::new().workers("pa").consumers("c");
    assert_eq!(t.say('p', "pause q 3000"), "p Paused");
    t.say('a', "reserve");
    t.say('c', "consume q 1");
    assert_eq!(t.say('p', "put"), "p put 1");
    assert_eq!(t.say('p', "put"), "p put 2");
    assert_eq!(t.pass(2_999), "");
    assert_eq!(t.pass(1), "a reserved 1, c dispatched 2");
}

#[test]
fn a_message_of_a_paused_queue_is_still_had_by_its_id() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "pause q 3000");
    assert_eq!(t.say('a', "reserve for 0"), "a TimedOut");
    assert_eq!(t.say('a', "take 1"), "a reserved 1");
}

#[test]
fn a_pause_of_0_ends_it_at_once() {
    let mut t = Talk::new().workers("pa");
    t.say('p', "pause q 3000");
    t.say('p', "put");
    t.say('a', "reserve");
    assert_eq!(t.say('p', "pause q 0"), "p Paused, a reserved 1");
    assert_eq!(t.engine.next_deadline(), t.now.time.plus(60_000), "only the reservation's");
}

#[test]
fn a_new_pause_replaces_the_old_one() {
    let mut t = Talk::new().workers("pa");
    t.say('p', "put");
    t.say('p', "pause q 3000");
    t.say('p', "pause q 1000");
    t.say('a', "reserve");
    assert_eq!(t.pass(1_000), "a reserved 1");
    t.say('p', "pause q 1000");
    t.say('p', "pause q 5000");
    t.say('p', "put");
    t.say('a', "reserve");
    assert_eq!(t.pass(4_999), "");
    assert_eq!(t.pass(1), "a reserved 2");
}

#[test]
fn an_unknown_queue_is_not_paused_and_a_dropped_one_is_paused_no_more() {
    let mut t = Talk::new().workers("a");
    assert_eq!(t.say('a', "pause r 1000"), "a NotFound");
    t.say('a', "put r");
    t.say('a', "pause r 1000");
    t.say('a', "remove 1");
    assert_eq!(t.engine.next_deadline().0, u64::MAX);
    t.say('a', "watch r");
    t.say('a', "put r");
    assert_eq!(t.say('a', "reserve"), "a reserved 2");
}

#[test]
fn other_queues_are_not_paused() {
    let mut t = Talk::new().workers("a");
    t.say('a', "watch r");
    t.say('a', "put q pri 0");
    t.say('a', "put r");
    t.say('a', "pause q 1000");
    assert_eq!(t.say('a', "reserve"), "a reserved 2");
}

/// `a` has buried so many messages of `q`, and put two delayed ones.
fn buried(count: usize) -> Talk {
    let mut t = Talk::new().workers("ab");
    t.checking = false;
    for _ in 0..count {
        t.say('a', "put");
    }
    for id in 1..=count {
        t.say('a', "reserve");
        t.say('a', &format!("bury {id}"));
    }
    t.say('a', "put q delay 9000");
    t.say('a', "put q delay 8000");
    t.checking = true;
    t
}

#[test]
fn buried_messages_are_kicked_before_delayed_ones() {
    let mut t = buried(3);
    assert_eq!(t.say('b', "kick 2"), "b kicked 2");
    assert_eq!(
        (t.state(1), t.state(2), t.state(3)),
        ("Ready".into(), "Ready".into(), "Buried".into())
    );
    assert_eq!(t.say('b', "kick 9"), "b kicked 1", "never both kinds at once");
    assert_eq!(t.say('b', "kick 1"), "b kicked 1");
    assert_eq!((t.state(4), t.state(5)), ("Delayed".into(), "Ready".into()), "the sooner one");
    assert_eq!(t.say('b', "kick 0"), "b kicked 0");
    assert_eq!(t.say('b', "kick 9"), "b kicked 1");
    assert_eq!(t.say('b', "kick 9"), "b kicked 0");
    assert_eq!(t.say('a', "reserve"), "a reserved 1", "at their old places");
}

#[test]
fn a_kick_serves_who_waits() {
    let mut t = buried(1);
    t.say('a', "reserve");
    assert_eq!(t.say('b', "kick 1"), "a reserved 1, b kicked 1");
}

#[test]
fn a_kick_is_of_the_used_queue() {
    let mut t = buried(1);
    t.say('b', "use r");
    assert_eq!(t.say('b', "kick 9"), "b kicked 0");
}

#[test]
fn one_message_is_kicked_by_its_id() {
    let mut t = buried(1);
    assert_eq!(t.say('b', "kick-one 1"), "b KickedOne");
    assert_eq!(t.say('b', "kick-one 1"), "b NotFound", "it is ready");
    assert_eq!(t.say('b', "kick-one 3"), "b KickedOne");
    assert_eq!(t.state(3), "Ready");
    assert_eq!(t.say('b', "kick-one 9"), "b NotFound");
    assert_eq!(t.pass(9_000), "");
}

#[test]
fn a_mass_kick_is_done_in_slices_and_answered_after_the_last() {
    let mut t = buried(2_500);
    t.turn();
    assert_eq!(t.say('a', "kick 2400"), "");
    assert_eq!(t.engine.ledger.counts().messages.ready, 1_000);
    assert_eq!(t.say('a', "echo"), "");
    assert_eq!(t.turn(), "");
    assert_eq!(t.turn(), "a kicked 2400, a Echo");
    assert_eq!(t.engine.ledger.counts().messages.buried, 100);
}

#[test]
fn a_mass_kick_ends_early_when_others_have_taken_the_rest() {
    let mut t = buried(1_500);
    t.turn();
    t.say('a', "kick 1500");
    assert_eq!(t.say('b', "flush q"), "");
    let told = t.settle();
    assert!(told.contains("a kicked 1000") && told.contains("b flushed 1502"), "{told}");
}

#[test]
fn two_mass_kicks_share_what_there_is() {
    let mut t = buried(2_500);
    t.turn();
    t.say('a', "kick 2000");
    t.say('b', "kick 2000");
    let told = t.settle();
    let kicked = told.split(", ").map(|line| line.rsplit(' ').next().unwrap());
    let sum: u64 = kicked.map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 2_500, "{told}");
}

#[test]
fn a_message_that_nobody_holds_is_set_aside_until_it_is_kicked() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put");
    t.say('a', "put delay 5000");
    t.say('a', "put");
    t.say('b', "reserve");
    assert_eq!(t.say('a', "set-aside 1"), "a NotFound", "it is held");
    assert_eq!(t.say('a', "set-aside 2"), "a Buried");
    assert_eq!(t.say('a', "set-aside 3"), "a Buried");
    assert_eq!(t.say('a', "set-aside 3"), "a NotFound");
    assert_eq!(t.say('a', "set-aside 9"), "a NotFound");
    assert_eq!(t.pass(10_000), "");
    assert_eq!((t.state(2), t.state(3)), ("Buried".to_owned(), "Buried".to_owned()));
    assert_eq!(t.say('a', "kick-one 2"), "a KickedOne");
    assert_eq!(t.say('a', "reserve"), "a reserved 2");
}
