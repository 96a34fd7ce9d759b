//! Reserves of so many messages of each of several queues, in one answer.

use crate::words::command::{Amount, Command, Settlement, Sources, Terms};
use crate::words::limits::{LimitValues, WORK_PER_TURN_MAX};

use super::{Talk, queue, together};

/// Up to `count` messages of each of these queues, waiting so long.
fn each(names: &[&str], timeout_ms: Option<u64>, count: u32) -> Command {
    on(names, timeout_ms, count, (Settlement::ByConsumer, Terms::MessageTimeToRun))
}

fn on(names: &[&str], timeout_ms: Option<u64>, count: u32, how: (Settlement, Terms)) -> Command {
    let names = names.iter().map(|name| queue(name)).collect();
    let from = Sources::Queues { names, settlement: how.0, terms: how.1 };
    Command::Reserve { from, refuse_if_holding: false, timeout_ms, amount: Amount::Each(count) }
}

fn put(t: &mut Talk, names: &[&str]) {
    for name in names {
        t.say('p', &format!("put {name}"));
    }
}

#[test]
fn each_queue_gives_one_message_in_the_order_of_the_names() {
    let mut t = Talk::new().workers("ap");
    put(&mut t, &["r", "q", "s", "s"]);
    let told = t.command('a', each(&["s", "q", "r"], Some(0), 1));
    assert_eq!(told, "a batch 3, a reserved 3, a reserved 2, a reserved 1");
    let told = t.command('a', each(&["s", "q", "r"], Some(0), 1));
    assert_eq!(told, "a batch 1, a reserved 4", "one is announced as one of several");
    assert_eq!(t.command('a', each(&["s", "q", "r"], Some(0), 1)), "a TimedOut");
}

#[test]
fn a_name_counts_as_often_as_it_stands_there_and_an_empty_queue_not_at_all() {
    let mut t = Talk::new().workers("ap");
    put(&mut t, &["q", "q", "r"]);
    let told = t.command('a', each(&["q", "r", "none", "q", "q"], Some(0), 1));
    assert_eq!(told, "a batch 3, a reserved 1, a reserved 3, a reserved 2");
    assert!(t.engine.ledger.queues().find(&queue("none")).is_none(), "nothing was made");
}

#[test]
fn several_of_each_stand_queue_by_queue_and_each_in_its_order() {
    let mut t = Talk::new().workers("ap");
    put(&mut t, &["q", "q", "q", "r"]);
    t.say('p', "put q pri 0");
    let told = t.command('a', each(&["r", "q"], Some(0), 2));
    assert_eq!(told, "a batch 3, a reserved 4, a reserved 5, a reserved 1");
}

#[test]
fn a_subscription_gives_of_its_queues_in_the_order_in_which_they_were_added() {
    let mut t = Talk::new().workers("ap");
    t.say('a', "watch s");
    t.say('a', "watch r");
    put(&mut t, &["r", "s", "q", "q"]);
    let told = t.say('a', "reserve for 0 each 1");
    assert_eq!(told, "a batch 3, a reserved 3, a reserved 2, a reserved 1");
}

#[test]
fn a_wait_ends_with_what_the_first_message_finds_beside_it() {
    let mut t = Talk::new().workers("ap");
    assert_eq!(t.command('a', each(&["q", "r", "q"], None, 1)), "");
    assert_eq!(t.say('p', "put r"), "p put 1, a batch 1, a reserved 1");
    assert_eq!(t.say('p', "put q"), "p put 2", "it waits no more");
    assert_eq!(t.say('a', "release 1"), "a Released");
    t.say('a', "remove 2");
    t.say('a', "remove 1");
    t.command('a', each(&["q", "r", "q"], Some(1_000), 1));
    // Nothing is handed out before all of the steps are done.
    let told = t.command('p', together(&["put q", "put r", "put q", "put q"]));
    assert_eq!(told, "p together 3 4 5 6, a batch 3, a reserved 3, a reserved 4, a reserved 5");
    t.command('a', each(&["r"], Some(1_000), 1));
    assert_eq!(t.pass(1_000), "a TimedOut");
}

#[test]
fn a_paused_queue_has_nothing() {
    let mut t = Talk::new().workers("ap");
    put(&mut t, &["q", "r"]);
    t.say('p', "pause q 1000");
    assert_eq!(t.command('a', each(&["q", "r"], Some(0), 1)), "a batch 1, a reserved 2");
    assert_eq!(t.command('a', each(&["q", "r"], None, 1)), "");
    assert_eq!(t.pass(1_000), "a batch 1, a reserved 1");
}

/// An answer that leaves a queue out says that it is empty. So nothing is handed out before all of
/// them are known, however much has expired at their heads.
#[test]
fn a_queue_is_not_taken_for_empty_because_much_has_expired_in_it() {
    let mut t = Talk::new().workers("ap");
    t.engine.work_per_turn = 5;
    put(&mut t, &["q"]);
    for _ in 0..12 {
        t.say('p', "put r ttl 10");
    }
    put(&mut t, &["r"]);
    // The clocks of those lives have not been looked at yet.
    t.now.time = t.now.time.plus(10);
    t.engine.budget = 5;
    assert_eq!(t.command('a', each(&["q", "r"], Some(0), 1)), "");
    assert_eq!(t.say('a', "echo"), "");
    assert_eq!(t.settle(), "a batch 2, a reserved 1, a reserved 14, a Echo");
}

#[test]
fn the_terms_are_those_that_the_reserve_names() {
    let mut t = Talk::new().workers("ap");
    put(&mut t, &["q", "r"]);
    let how = (Settlement::ByConsumer, Terms::Given(300));
    t.command('a', on(&["q", "r"], Some(0), 1, how));
    t.pass(299);
    assert_eq!((t.state(1), t.state(2)), ("Reserved".into(), "Reserved".into()));
    t.pass(1);
    assert_eq!((t.state(1), t.state(2)), ("Ready".into(), "Ready".into()));
    let how = (Settlement::WhenSent, Terms::MessageTimeToRun);
    t.command('a', on(&["q", "r"], Some(0), 1, how));
    assert_eq!((t.state(1), t.state(2)), ("Reserved".into(), "Reserved".into()));
    t.sent('a', 2);
    assert_eq!((t.state(1), t.state(2)), ("gone".into(), "gone".into()));
}

#[test]
fn an_answer_ends_where_the_connection_may_be_sent_no_more_in_a_turn() {
    let mut t = Talk::with(LimitValues { max_output: 3, ..LimitValues::default() }).workers("ap");
    for name in ["q", "r", "s", "t"] {
        t.say('p', &format!("put {name} bytes 2"));
    }
    t.settle();
    let told = t.command('a', each(&["q", "r", "s", "t"], Some(0), 1));
    assert_eq!(told, "a batch 2, a reserved 1, a reserved 2");
    t.settle();
    let told = t.command('a', each(&["q", "r", "s", "t"], Some(0), 1));
    assert_eq!(told, "a batch 2, a reserved 3, a reserved 4");
}

#[test]
fn an_answer_holds_no_more_messages_than_are_moved_in_a_turn() {
    let mut t = Talk::new().workers("ap");
    t.checking = false;
    for number in 0..=WORK_PER_TURN_MAX {
        t.say('a', &format!("watch q{number}"));
        t.say('p', &format!("put q{number} bytes 0"));
    }
    let told = t.say('a', "reserve for 0 each 2");
    assert!(told.starts_with(&format!("a batch {WORK_PER_TURN_MAX}, ")), "{}", &told[..40]);
    assert_eq!(t.say('a', "reserve for 0 each 2"), "a batch 1, a reserved 1001");
}
