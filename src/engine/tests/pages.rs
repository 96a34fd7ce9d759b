//! Pages of queues.

use super::{Talk, queue};
use crate::words::change::MessageState;
use crate::words::command::{Command, Reply};
use crate::words::statistics::{QueueOrder, QueuePlace, QueueSelection};

const ALL: QueueSelection = QueueSelection {
    pattern: None,
    has: Vec::new(),
    order: QueueOrder::Name,
    after: None,
    count: 100,
};

fn page(t: &mut Talk, wanted: QueueSelection) -> String {
    t.command('a', Command::SelectQueues(Box::new(wanted)))
}

/// Where the page that came last ended.
fn end(t: &Talk) -> Option<QueuePlace> {
    let Some(Reply::QueuePage(page)) = t.replies.last() else { panic!("{:?}", t.replies) };
    page.next.clone()
}

/// `one` has one message, `two` two of which one is delayed, `three` has three buried ones.
fn three_queues() -> Talk {
    let mut t = Talk::new().workers("a");
    for text in ["put one bytes 900", "put two", "put two delay 60000"] {
        t.say('a', text);
        t.pass(1_000);
    }
    for id in 4..7 {
        t.say('a', "put three");
        t.say('a', &format!("set-aside {id}"));
    }
    t
}

#[test]
fn queues_come_in_the_order_that_is_wanted() {
    let mut t = three_queues();
    use QueueOrder::{Buried, Bytes, Delayed, Messages, Name, Oldest, Ready};
    for (order, names) in [
        (Name, "a page one q three two"),
        (Ready, "a page one two q three"),
        (Buried, "a page three one q two"),
        (Delayed, "a page two one q three"),
        (Messages, "a page three two one q"),
        (Bytes, "a page one three two q"),
        (Oldest, "a page one two q three"),
    ] {
        assert_eq!(page(&mut t, QueueSelection { order, ..ALL }), names, "{order:?}");
    }
}

#[test]
fn only_those_come_that_match_and_have_what_is_wanted() {
    let mut t = three_queues();
    let pattern = Some("T*".into());
    assert_eq!(page(&mut t, QueueSelection { pattern, ..ALL }), "a page three two");
    let has = vec![MessageState::Buried, MessageState::Delayed];
    assert_eq!(page(&mut t, QueueSelection { has, ..ALL }), "a page three two");
}

#[test]
fn the_next_page_begins_where_the_last_one_ended_whatever_has_gone() {
    let mut t = three_queues();
    let first = QueueSelection { count: 2, order: QueueOrder::Messages, ..ALL };
    assert_eq!(page(&mut t, first.clone()), "a page three two ...");
    let after = end(&t);
    assert_eq!(after.as_ref().map(|place| place.name.clone()), Some(queue("two")));
    t.say('a', "remove-queue two");
    assert_eq!(page(&mut t, QueueSelection { after, ..first }), "a page one q");
    assert_eq!(end(&t), None);
}

#[test]
fn many_queues_are_looked_at_a_slice_at_a_time() {
    let mut t = Talk::new().workers("ab");
    for number in 1..=9 {
        t.say('b', &format!("watch x{number}"));
    }
    t.engine.work_per_turn = 4;
    t.turn();
    assert_eq!(page(&mut t, QueueSelection { count: 3, ..ALL }), "");
    assert_eq!(t.say('b', "put"), "b put 1", "others go on");
    // One that has gone since it was seen is left out.
    t.say('b', "ignore x1");
    let mut told = t.turn();
    while told.is_empty() {
        told = t.turn();
    }
    assert_eq!(told, "a page q x2 ...");
}
