//! Time to live: from receipt on, whatever the state, but not while buried.

use super::Talk;
use crate::words::change::Change;
use crate::words::ids::MessageId;

fn removed(t: &Talk, id: u64) -> bool {
    t.changes.contains(&Change::Removed(MessageId(id)))
}

#[test]
fn a_ready_message_expires_by_itself() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttl 5000");
    t.pass(4_999);
    assert_eq!(t.state(1), "Ready");
    t.pass(1);
    assert_eq!(t.state(1), "gone");
    assert!(removed(&t, 1));
    assert_eq!(t.engine.totals.messages_expired, 1);
}

#[test]
fn an_expired_message_is_never_dispatched_even_before_its_clock_has_run() {
    let mut t = Talk::new().workers("ab").consumers("c");
    t.say('a', "put q ttl 5000");
    t.say('a', "put q ttl 5000");
    t.say('a', "put");
    t.now.time = t.now.time.plus(5_000);
    assert_eq!(t.say('b', "take 1"), "b NotFound");
    assert_eq!(t.say('c', "consume q 1"), "c dispatched 3");
    t.settle();
    assert_eq!(t.engine.totals.messages_expired, 2);
}

#[test]
fn a_delayed_message_expires_before_it_is_ready() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q delay 5000 ttl 3000");
    t.pass(3_000);
    assert_eq!(t.state(1), "gone");
    t.say('a', "put q delay 3000 ttl 5000");
    t.pass(3_000);
    assert_eq!(t.say('a', "reserve"), "a reserved 2 ttl 2000", "it ran while delayed");
}

#[test]
fn a_delivery_says_how_much_is_left() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 5000");
    t.pass(1_200);
    assert_eq!(t.say('a', "peek 1"), "a found 1 ttl 3800");
    assert_eq!(t.say('c', "consume q 1"), "c dispatched 1 ttl 3800");
}

#[test]
fn an_acknowledgement_after_expiry_succeeds() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 1000");
    t.say('c', "consume q 1");
    t.pass(2_000);
    assert_eq!(t.state(1), "Reserved");
    t.say('a', "put");
    assert_eq!(t.say('c', "ack 1 q"), "c Acknowledged, c dispatched 2");
    assert!(removed(&t, 1));
    assert_eq!(t.engine.totals.messages_expired, 0);
}

#[test]
fn a_removal_by_the_holder_after_expiry_succeeds() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttl 1000");
    t.say('a', "reserve");
    t.pass(2_000);
    assert_eq!(t.say('a', "remove 1"), "a Removed");
}

#[test]
fn a_release_after_expiry_drops_the_message() {
    for release in ["release 1", "release 1 delay 1000"] {
        let mut t = Talk::new().workers("a");
        t.say('a', "put q ttl 1000");
        t.say('a', "reserve");
        t.pass(1_000);
        assert_eq!(t.say('a', release), "a Released");
        assert_eq!(t.state(1), "gone");
        assert!(removed(&t, 1));
        assert_eq!(t.engine.totals.messages_expired, 1);
    }
}

#[test]
fn a_message_that_expired_in_somebodys_hands_does_not_go_to_somebody_else() {
    let mut t = Talk::new().workers("ab").consumers("c");
    t.say('a', "put q ttl 1000 ttr 3000");
    t.say('a', "put q ttl 1000");
    t.say('a', "reserve");
    t.say('c', "consume q 1");
    t.say('b', "reserve");
    assert_eq!(t.pass(3_000), "");
    assert_eq!(t.close('c'), "c finished");
    assert_eq!((t.state(1), t.state(2)), ("gone".into(), "gone".into()));
}

#[test]
fn the_clock_stops_while_a_message_is_buried() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttl 5000");
    t.pass(1_000);
    t.say('a', "reserve");
    t.say('a', "bury 1");
    t.pass(100_000);
    assert_eq!(t.say('a', "peek 1"), "a found 1 ttl 4000");
    t.say('a', "kick 1");
    t.pass(3_999);
    assert_eq!(t.state(1), "Ready");
    t.pass(1);
    assert_eq!(t.state(1), "gone");
}

#[test]
fn a_message_buried_after_its_time_is_kept_but_goes_to_nobody_again() {
    for back in ["kick 1", "kick-one 1", "take 1"] {
        let mut t = Talk::new().workers("a").consumers("c");
        t.say('a', "put q ttl 1000");
        t.say('a', "put");
        t.say('c', "consume q 1");
        t.pass(2_000);
        assert_eq!(t.say('c', "bury 1 q"), "c Buried, c dispatched 2");
        t.pass(100_000);
        assert_eq!(t.say('a', "peek buried"), "a found 1 ttl 0", "it is there to be looked at");
        t.say('c', "consume q 5");
        let told = t.say('a', back);
        assert!(!told.contains("dispatched") && !told.contains("reserved"), "{told}");
        assert_eq!(t.state(1), "gone");
        assert_eq!(t.engine.totals.messages_expired, 1);
    }
}

#[test]
fn a_buried_message_stores_what_it_has_left_and_others_when_they_expire() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put q ttl 5000");
    t.pass(1_000);
    t.say('a', "reserve");
    t.changes.clear();
    t.say('a', "bury 1");
    t.say('a', "kick 1");
    let expires = t.changes.iter().map(|change| match change {
        Change::Moved(row) => row.expires_ms,
        _ => None,
    });
    assert_eq!(expires.collect::<Vec<_>>(), [Some(4_000), Some(1_005_000)]);
}

#[test]
fn a_requeue_sets_the_time_to_live_anew() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 1000");
    t.say('a', "put q ttl 1000");
    t.say('c', "consume q 2");
    t.pass(1_500);
    t.say('c', "requeue 1 q ttl 4000");
    t.say('c', "requeue 2 q");
    assert_eq!(t.close('c'), "c finished");
    t.pass(3_999);
    assert_eq!(t.state(1), "Ready");
    t.pass(1);
    assert_eq!((t.state(1), t.state(2)), ("gone".into(), "Ready".into()));
}

#[test]
fn a_requeue_starts_from_now_also_when_it_is_handed_out_at_once() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 1000");
    t.say('c', "consume q 2");
    t.pass(1_500);
    assert_eq!(t.say('c', "requeue 1 q ttl 4000"), "c Released, c dispatched 1 ttl 4000");
}

#[test]
fn an_expired_message_frees_no_place_until_it_is_acknowledged() {
    let mut t = Talk::new().workers("a").consumers("c");
    t.say('a', "put q ttl 1000");
    t.say('a', "put");
    t.say('c', "consume q 1");
    assert_eq!(t.pass(5_000), "");
    assert_eq!(t.say('c', "ack 1 q"), "c Acknowledged, c dispatched 2");
}

#[test]
fn a_time_to_live_without_end_is_stored_as_none() {
    let mut t = Talk::new().workers("a");
    t.say('a', &format!("put q ttl {}", u64::MAX));
    let [.., Change::Put(row)] = &t.changes[..] else { panic!("{:?}", t.changes) };
    assert_eq!(row.expires_ms, None);
    assert_eq!(t.say('a', "reserve"), "a reserved 1");
}

#[test]
fn an_empty_queue_goes_with_its_last_message_that_expires() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put r ttl 1000");
    assert_eq!(t.say('a', "queues"), "a queues q r");
    t.pass(1_000);
    assert_eq!(t.say('a', "queues"), "a queues q");
    assert!(matches!(t.changes.last(), Some(Change::QueueGone(_))));
}
