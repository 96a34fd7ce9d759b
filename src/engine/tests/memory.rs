//! What subscriptions take is bounded by a part of `limits.max_memory`, like the names of queues.

use crate::words::command::{Amount, Command, Options, Reply, Settlement, Sources};
use crate::words::command::{SubscriptionKey, Tag, Terms};
use crate::words::limits::{
    LimitValues, SUBSCRIBED_ALWAYS, SUBSCRIBED_QUEUE_BYTES, SUBSCRIPTION_OVERHEAD_BYTES,
};
use crate::words::short_bytes::ShortBytes;

use super::{Talk, queue};

/// So much memory for subscriptions, and `p`, which has the queues `q0` to `q39` be there.
fn with_room(bytes: u64) -> Talk {
    let mut t = Talk::new().workers("p");
    for number in 0..40 {
        t.say('p', &format!("put q{number}"));
    }
    // A quarter is for subscriptions.
    t.engine.limits.apply(&LimitValues { max_memory: 4 * bytes, ..LimitValues::default() });
    t
}

/// The queues that a connection can add to its subscription of this number.
fn added(t: &mut Talk, letter: char, number: u64) -> usize {
    let mut add =
        |name: usize| t.subscribe(letter, number, &format!("q{name}"), Options::default());
    (0..40).take_while(|name| !add(*name).contains("refused OutOfMemory")).count()
}

#[test]
fn watched_queues_do_not_take_all_the_memory() {
    let mut t = with_room(SUBSCRIPTION_OVERHEAD_BYTES * 4 + SUBSCRIBED_QUEUE_BYTES * 30);
    t.checking = false;
    let mut t = t.workers("ab");
    // Subscription 0 of each of the three connections has a queue from its beginning.
    assert_eq!(added(&mut t, 'a', 1), 27);
    assert_eq!(t.replies, [Reply::Refused(crate::words::refusal::Refusal::OutOfMemory)]);
    // What is there can be said again, and changed.
    assert_eq!(
        t.subscribe('a', 1, "q5", Options::window(1)),
        "a watching 27, a dispatched 1 for 1"
    );
    // A queue that is refused is not made.
    assert_eq!(t.subscribe('a', 1, "new", Options::default()), "a refused OutOfMemory");
    assert!(t.engine.ledger.queues().find(&queue("new")).is_none());
    // What goes makes room.
    t.unsubscribe('a', 1, "q0");
    t.unsubscribe('a', 1, "q1");
    assert_eq!(t.subscribe('a', 1, "q39", Options::default()), "a watching 26");
    // The last one may go beyond.
    t.close('a');
    assert_eq!(added(&mut t, 'b', 1), 30);
    t.close('b');
    t.close('p');
    assert_eq!(t.engine.ledger.subscriptions().bytes(), 0);
}

#[test]
fn a_connection_has_a_few_queues_however_full_memory_is() {
    let mut t = with_room(0).workers("ab");
    // The two of the beginning count, and the subscription.
    for letter in ['a', 'b'] {
        assert_eq!(added(&mut t, letter, 1), SUBSCRIBED_ALWAYS as usize - 3);
    }
}

#[test]
fn subscriptions_without_a_queue_and_their_keys_count_too() {
    let bytes = [7; 5_000];
    let mut t = with_room(100_000).workers("a");
    let reserve = |number: u64| {
        let key = [&bytes[..], &number.to_be_bytes()].concat();
        let from = Sources::Subscription(SubscriptionKey::Bytes(ShortBytes::from(&key[..])));
        let (timeout_ms, amount) = (Some(0), Amount::Total(1));
        Command::Reserve { from, refuse_if_holding: false, timeout_ms, amount }
    };
    let mut ask = |number| t.command('a', reserve(number));
    let asked = (0..100).take_while(|number| ask(*number) == "a TimedOut").count();
    assert_eq!(asked, SUBSCRIBED_ALWAYS as usize - 2, "with its key each takes 10,000 and more");
    assert_eq!(t.command('a', reserve(0)), "a TimedOut");
    let key = SubscriptionKey::Number(0);
    let options = |tag: Tag| Options { tag, ..Options::default() };
    let before = t.engine.bytes_besides_messages();
    let queue = queue("q");
    let tag = Tag::bytes(&bytes);
    let subscribe =
        |options| Command::Subscribe { key: key.clone(), queue: queue.clone(), options };
    t.command('a', subscribe(options(tag)));
    assert_eq!(t.engine.bytes_besides_messages() - before, 5_000);
    t.command('a', subscribe(options(Tag::None)));
    assert_eq!(t.engine.bytes_besides_messages(), before);
}

#[test]
fn a_wait_for_more_queues_than_fit_is_refused_and_a_look_at_them_is_not() {
    let mut t = with_room(0).workers("a");
    let reserve = |timeout_ms| {
        let names = (0..40).map(|number| queue(&format!("q{}", number % 20))).collect();
        let (settlement, terms) = (Settlement::ByConsumer, Terms::MessageTimeToRun);
        let from = Sources::Queues { names, settlement, terms };
        let amount = Amount::Each(1);
        Command::Reserve { from, refuse_if_holding: false, timeout_ms, amount }
    };
    let before = t.engine.bytes_besides_messages();
    assert_eq!(t.command('a', reserve(None)), "a refused OutOfMemory");
    assert_eq!(t.engine.bytes_besides_messages(), before, "nothing of it is kept");
    assert!(t.command('a', reserve(Some(0))).starts_with("a batch 20, a reserved 1, "));
    assert_eq!(t.engine.bytes_besides_messages(), before);
}
