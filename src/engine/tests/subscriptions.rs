//! Subscriptions beyond what one protocol needs: several on one queue, sets that change, signs to
//! wake up, reserves that name their queues, messages that are done when sent, terms.

use super::{Talk, queue};
use crate::words::command::{
    Amount, Command, Demand, Options, Settlement, Sources, SubscriptionKey, Tag, Terms,
};
use crate::words::limits::LimitValues;

fn window(size: u32) -> Options {
    Options::window(size)
}

fn on(terms: Terms) -> Options {
    Options { terms, ..Options::default() }
}

fn wake_up() -> Options {
    Options { demand: Demand::WakeUp, ..Options::default() }
}

fn when_sent(demand: Demand) -> Options {
    Options { demand, settlement: Settlement::WhenSent, ..Options::default() }
}

#[test]
fn two_subscriptions_on_one_queue_have_windows_of_their_own() {
    let mut t = Talk::new().consumers("x").workers("p");
    t.subscribe('x', 1, "q", window(1));
    t.subscribe('x', 2, "q", window(1));
    assert_eq!(t.say('p', "put q"), "p put 1, x dispatched 1 for 1");
    assert_eq!(t.say('p', "put q"), "p put 2, x dispatched 2 for 2");
    assert_eq!(t.say('p', "put q"), "p put 3", "both are full");
    assert_eq!(t.say('x', "ack 2 q"), "x Acknowledged, x dispatched 3 for 2");
    t.say('p', "put q");
    assert_eq!(t.unsubscribe('x', 1, "q"), "x watching 0", "the other one is full");
    assert_eq!(t.say('x', "ack 3 q"), "x Acknowledged, x dispatched 1 for 2", "it came back");
}

#[test]
fn a_window_over_several_queues_holds_messages_of_all_of_them() {
    let mut t = Talk::new().consumers("x").workers("p");
    t.subscribe('x', 1, "q", window(2));
    t.subscribe('x', 1, "r", window(2));
    t.say('p', "put r");
    t.say('p', "put q");
    assert_eq!(t.say('p', "put r"), "p put 3", "full");
    assert_eq!(t.say('x', "ack 2"), "x Acknowledged, x dispatched 3 for 1");
    t.say('p', "put q");
    assert_eq!(t.unsubscribe('x', 1, "r"), "x watching 1, x dispatched 4 for 1", "r's are back");
    assert_eq!((t.state(1), t.state(3)), ("Ready".into(), "Ready".into()));
    assert_eq!(t.subscribe('x', 1, "r", window(2)), "x watching 2, x dispatched 1 for 1");
    assert_eq!(t.close('x'), "x finished");
    assert_eq!(t.engine.ledger.queues().len(), 2, "q and r with their messages");
}

#[test]
fn a_message_of_one_queue_counts_in_the_rotations_of_all() {
    let mut t = Talk::new().consumers("xy").workers("p");
    t.subscribe('x', 1, "q", window(9));
    t.subscribe('x', 1, "r", window(9));
    t.say('y', "consume r 9");
    assert_eq!(t.say('p', "put r"), "p put 1, x dispatched 1 for 1");
    assert_eq!(t.say('p', "put r"), "p put 2, y dispatched 2");
    assert_eq!(t.say('p', "put q"), "p put 3, x dispatched 3 for 1");
    assert_eq!(t.say('p', "put r"), "p put 4, y dispatched 4", "x had one since");
}

#[test]
fn a_sign_to_wake_up_comes_once_and_again_after_the_next_command() {
    let mut t = Talk::new().workers("ap");
    t.subscribe('a', 1, "r", wake_up());
    assert_eq!(t.say('p', "put r"), "p put 1, a woken for 1");
    assert_eq!(t.say('p', "put r"), "p put 2", "it knows");
    assert_eq!(t.state(1), "Ready", "it takes nothing");
    let from = Sources::Subscription(SubscriptionKey::Number(1));
    let take = || Command::Reserve {
        from: from.clone(),
        refuse_if_holding: false,
        timeout_ms: Some(0),
        amount: Amount::Total(1),
    };
    assert_eq!(t.command('a', take()), "a reserved 1, a woken for 1", "there is another one");
    assert_eq!(t.command('a', take()), "a reserved 2");
    assert_eq!(t.command('a', take()), "a TimedOut");
    assert_eq!(t.say('p', "put r"), "p put 3, a woken for 1");
    assert_eq!(t.subscribe('a', 1, "r", wake_up()), "a watching 1, a woken for 1");
}

#[test]
fn signs_to_wake_up_go_out_in_slices_and_wait_for_the_end_of_a_pause() {
    let mut t = Talk::new().workers("p");
    let sleepers: String = ('A'..='T').collect();
    for letter in sleepers.chars() {
        t.open(letter, crate::words::command::Manner::Serial, 0);
        t.subscribe(letter, 1, "q", wake_up());
    }
    t.say('p', "pause q 5");
    assert_eq!(t.say('p', "put q"), "p put 1");
    t.engine.work_per_turn = 7;
    let woken = |told: &str| told.matches("woken").count();
    t.now.time = t.now.time.plus(5);
    let mut in_turn = vec![];
    while t.engine.next_deadline() <= t.now.time {
        in_turn.push(woken(&t.turn()));
    }
    assert_eq!(in_turn.iter().sum::<usize>(), 20, "{in_turn:?}");
    assert!(in_turn.iter().all(|count| *count <= 7), "{in_turn:?}");
}

#[test]
fn a_waiting_reserve_of_a_sleeper_is_answered_and_not_woken() {
    let mut t = Talk::new().workers("ap");
    t.subscribe('a', 0, "q", wake_up());
    t.say('a', "reserve");
    assert_eq!(t.say('p', "put q"), "p put 1, a reserved 1");
    assert_eq!(t.say('p', "put q"), "p put 2, a woken for 0");
}

#[test]
fn a_reserve_can_name_its_queues_itself() {
    let mut t = Talk::new().workers("ap");
    t.say('p', "put r");
    t.say('p', "put s pri 1");
    t.say('p', "put q");
    assert_eq!(t.reserve_once('a', &["r", "s"], Some(0)), "a reserved 2", "the better one");
    assert_eq!(t.reserve_once('a', &["s"], None), "a refused Holding");
    assert_eq!(t.reserve_once('a', &["r"], Some(0)), "a reserved 1");
    assert_eq!(t.reserve_once('a', &["t"], Some(0)), "a TimedOut");
    assert_eq!(t.say('a', "queues"), "a queues q r s", "none was made");
    assert_eq!(t.reserve_once('a', &["t", "u"], Some(500)), "");
    assert_eq!(t.say('p', "queues"), "p queues q r s t u", "it waits for them");
    assert_eq!(t.say('p', "put u"), "p put 4, a reserved 4");
    assert_eq!(t.say('p', "queues"), "p queues q r s u", "t is not needed any more");
    t.reserve_once('a', &["t"], Some(500));
    assert_eq!(t.pass(500), "a TimedOut");
    t.reserve_once('a', &["t"], None);
    assert_eq!(t.close('a'), "a TimedOut, a finished");
    assert_eq!(t.say('p', "queues"), "p queues q r s u");
}

#[test]
fn a_reserve_that_cannot_make_its_queues_is_refused() {
    let limits = LimitValues { max_queues: 2, ..LimitValues::default() };
    let mut t = Talk::with(limits).workers("a");
    assert_eq!(t.reserve_once('a', &["r", "s"], Some(9)), "a refused TooManyQueues");
    assert_eq!(t.say('a', "queues"), "a queues q");
}

#[test]
fn the_terms_of_a_subscription_bound_what_is_taken_from_it() {
    let mut t = Talk::new().workers("p");
    let terms = [Terms::Given(300), Terms::AckTimeout, Terms::Unlimited, Terms::MessageTimeToRun];
    for (letter, terms) in "abcd".chars().zip(terms) {
        t.open(letter, crate::words::command::Manner::Serial, 700);
        t.subscribe(letter, 0, "q", on(terms));
        t.say('p', "put q ttr 500");
        t.say(letter, "reserve");
    }
    let states = |t: &mut Talk| (1..=4).map(|id| t.state(id)).collect::<Vec<_>>().join(" ");
    assert_eq!(states(&mut t), "Reserved Reserved Reserved Reserved");
    t.pass(300);
    assert_eq!(states(&mut t), "Ready Reserved Reserved Reserved");
    t.pass(200);
    assert_eq!(states(&mut t), "Ready Reserved Reserved Ready");
    t.pass(200);
    assert_eq!(states(&mut t), "Ready Ready Reserved Ready");
    t.say('c', "touch 3");
    t.pass(1_000_000);
    assert_eq!(t.state(3), "Reserved");
}

#[test]
fn messages_of_a_window_can_have_ends_of_their_own() {
    let mut t = Talk::new().consumers("xy").workers("p");
    t.subscribe('x', 1, "q", Options { terms: Terms::MessageTimeToRun, ..window(2) });
    t.say('p', "put q ttr 900");
    t.say('p', "put q ttr 400");
    assert_eq!(t.pass(400), "");
    assert_eq!((t.state(1), t.state(2)), ("Reserved".into(), "Ready".into()));
    assert_eq!(t.engine.totals.timeouts, 1);
    assert_eq!(t.say('y', "consume q 1"), "y dispatched 2", "x's place stays taken");
    t.say('p', "put q");
    assert_eq!(t.say('x', "ack 2 q"), "x NotHeld, x dispatched 3 for 1", "it has it back");
    assert_eq!(t.pass(500), "");
    assert_eq!(t.state(1), "Ready");
    assert_eq!(t.say('y', "ack 2 q"), "y Acknowledged, y dispatched 1");
}

#[test]
fn a_window_without_terms_keeps_what_it_has() {
    let mut t = Talk::new().consumers_timed("x", 100).workers("p");
    t.subscribe('x', 1, "q", Options { terms: Terms::Unlimited, ..window(1) });
    t.say('p', "put q ttr 1");
    assert_eq!(t.pass(1_000_000), "");
    assert_eq!(t.state(1), "Reserved");
}

#[test]
fn what_is_done_when_sent_is_done_with_the_word_that_it_was_sent() {
    let mut t = Talk::new().consumers_timed("x", 100).workers("p");
    t.subscribe('x', 1, "q", when_sent(Demand::Window(2)));
    for _ in 0..3 {
        t.say('p', "put q ttr 1");
    }
    assert_eq!(t.pass(10_000), "", "no clock runs meanwhile");
    assert_eq!(t.sent('x', 1), "x dispatched 3 for 1");
    assert_eq!((t.state(1), t.state(2)), ("gone".into(), "Reserved".into()));
    assert_eq!(t.sent('x', 2), "");
    assert_eq!(t.engine.stored().1, 0);
    assert_eq!(t.engine.totals.late_acknowledgements, 0);
}

#[test]
fn what_was_not_sent_comes_back_when_the_connection_breaks() {
    let mut t = Talk::new().workers("abp");
    t.subscribe('a', 0, "q", when_sent(Demand::OnRequest));
    t.say('p', "put q");
    t.say('p', "put q");
    assert_eq!(t.say('a', "reserve count 2"), "a batch 2, a reserved 1, a reserved 2");
    t.sent('a', 1);
    assert_eq!(t.close('a'), "", "the rest may still arrive");
    assert_eq!(t.state(2), "Reserved");
    assert_eq!(t.close('a'), "a finished", "it will not");
    assert_eq!((t.state(1), t.state(2)), ("gone".into(), "Ready".into()));
}

#[test]
fn a_connection_ends_when_what_it_was_sent_has_left() {
    let mut t = Talk::new().workers("ap");
    t.subscribe('a', 0, "q", when_sent(Demand::OnRequest));
    t.say('p', "put q");
    t.say('a', "reserve");
    assert_eq!(t.close('a'), "");
    assert_eq!(t.sent('a', 1), "a finished");
    assert_eq!(t.state(1), "gone");
}

#[test]
fn what_was_flushed_while_it_was_sent_frees_its_place_all_the_same() {
    let mut t = Talk::new().consumers("x").workers("p");
    t.subscribe('x', 1, "q", when_sent(Demand::Window(1)));
    t.say('p', "put q");
    assert_eq!(t.say('p', "flush q"), "p flushed 1");
    assert_eq!(t.say('p', "put q"), "p put 2", "its place is still taken");
    assert_eq!(t.sent('x', 1), "x dispatched 2 for 1");
    assert_eq!(t.sent('x', 1), "");
    assert_eq!(t.engine.stored().1, 0);
}

#[test]
fn a_large_window_is_given_back_in_slices_and_then_answered() {
    let mut t = Talk::new().consumers("x").workers("p");
    t.subscribe('x', 1, "q", window(9));
    (0..5).for_each(|_| drop(t.say('p', "put q")));
    t.engine.budget = 2;
    assert_eq!(t.unsubscribe('x', 1, "q"), "");
    assert_eq!((t.state(2), t.state(3)), ("Ready".into(), "Reserved".into()));
    assert_eq!(t.say('p', "put q"), "p put 6", "nothing more goes to who leaves");
    assert_eq!(t.settle(), "x watching 0");
    assert_eq!(t.state(5), "Ready");
}

#[test]
fn a_subscription_that_changes_its_demand_is_counted_as_what_it_is() {
    let mut t = Talk::new().workers("a");
    let count = |t: &mut Talk| {
        let slot = t.engine.ledger.queues().find(&queue("r")).unwrap();
        let here = t.engine.ledger.queue(slot);
        (here.watching, here.windows)
    };
    t.subscribe('a', 1, "r", Options::default());
    assert_eq!(count(&mut t), (1, 0));
    t.subscribe('a', 1, "r", window(3));
    assert_eq!(count(&mut t), (0, 1));
    t.say('a', "put r");
    assert_eq!(t.state(1), "Reserved");
    t.subscribe('a', 1, "r", wake_up());
    assert_eq!(count(&mut t), (1, 0));
    assert_eq!(t.say('a', "put r"), "a put 2, a woken for 1");
}

#[test]
fn subscriptions_are_told_apart_by_bytes_of_any_length() {
    let mut t = Talk::new().consumers("x").workers("p");
    let long = [b'k'; 300];
    let keys = [&b""[..], b"0", &long].map(|key| SubscriptionKey::Bytes(key.into()));
    for (code, key) in (1..).zip(&keys) {
        let (key, queue) = (key.clone(), queue("q"));
        let options = Options { tag: Tag::Code(code), ..window(1) };
        assert_eq!(
            t.command('x', Command::Subscribe { key, queue, options }),
            "x watching 1",
            "another one than that of number 0"
        );
    }
    assert_eq!(t.say('p', "put q"), "p put 1, x dispatched 1 for 1");
    assert_eq!(t.say('p', "put q"), "p put 2, x dispatched 2 for 2");
    let [_, _, third] = keys;
    let (key, queue) = (third.clone(), queue("r"));
    let options = Options { tag: Tag::Code(9), ..window(1) };
    assert_eq!(t.command('x', Command::Subscribe { key, queue, options }), "x watching 2");
    assert_eq!(t.command('x', Command::ListSubscribed(third.clone())), "x queues q r");
    assert_eq!(t.say('p', "put r"), "p put 3, x dispatched 3 for 9");
    assert_eq!(t.say('x', "watched"), "x queues ");
    let reserve = Command::Reserve {
        from: Sources::Subscription(third),
        refuse_if_holding: true,
        timeout_ms: None,
        amount: Amount::Total(1),
    };
    assert_eq!(t.command('x', reserve), "x refused Holding");
    assert_eq!(t.close('x'), "x finished");
}

/// The end was moved to before the moment for which the clock was set: it rang too late.
#[test]
fn a_touch_ends_nothing_sooner_than_its_terms() {
    let mut t = Talk::new().workers("ap");
    t.subscribe('a', 0, "q", on(Terms::Given(5_000)));
    t.say('p', "put q ttr 1000");
    t.say('a', "reserve");
    assert_eq!(t.say('a', "touch 1"), "a Touched");
    t.pass(4_999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
    t.say('a', "reserve");
    t.pass(4_900);
    assert_eq!(t.say('a', "touch 1"), "a Touched");
    t.pass(999);
    assert_eq!(t.state(1), "Reserved");
    t.pass(1);
    assert_eq!(t.state(1), "Ready");
}
