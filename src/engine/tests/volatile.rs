//! Volatile messages: what no database hears of, what of it a restart forgets, and how it becomes
//! durable.

use std::sync::Arc;

use super::keys::restarted;
use super::policies::{failures, policy, under};
use super::{Talk, queue, together};
use crate::engine::Engine;
use crate::words::change::{Change, MessageRow};
use crate::words::command::Reply;
use crate::words::ids::MessageId;
use crate::words::limits::{LimitValues, Limits};
use crate::words::policy::Policies;
use crate::words::refusal::Refusal;

use super::super::Input;

/// The row of the one message that was put so far.
fn row(t: &Talk) -> &MessageRow {
    let rows = t.changes.iter().filter_map(|change| match change {
        Change::Put(row) => Some(row),
        _ => None,
    });
    let rows: Vec<&MessageRow> = rows.collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]
}

#[test]
fn a_volatile_message_is_queued_like_any_other_and_nothing_is_written_of_it() {
    let mut t = Talk::new().workers("ab").consumers("x");
    t.input(Input::Policies(Arc::new(Policies::new(vec![policy("q", 2, &[], "dead")]))));
    assert_eq!(t.say('a', "put volatile pri 5"), "a put 1");
    assert_eq!(t.say('a', "put volatile pri 1 delay 500"), "a put 2");
    assert_eq!(t.say('a', "put volatile pri 2 ttl 900"), "a put 3");
    assert_eq!(t.pass(500), "");
    assert_eq!(t.say('b', "reserve"), "b reserved 2 volatile");
    assert_eq!(t.say('b', "reserve"), "b reserved 3 ttl 400 volatile");
    assert_eq!(t.say('b', "release 3 pri 9"), "b Released");
    t.pass(400);
    assert_eq!(t.state(3), "gone", "it has expired");
    assert_eq!(t.say('b', "bury 2"), "b Buried");
    assert_eq!(t.say('b', "kick-one 2"), "b KickedOne");
    assert_eq!(t.say('x', "consume q 1"), "x dispatched 2 volatile");
    assert_eq!(t.close('x'), "x finished");
    for _ in 0..2 {
        assert_eq!(t.say('b', "take 1"), "b reserved 1 volatile");
        assert_eq!(t.say('b', "fail 1"), "b Released");
    }
    assert_eq!(failures(&mut t, 1).origin, Some(queue("q")), "a dead letter");
    assert_eq!(t.say('b', "kick-one 1"), "b KickedOne");
    assert_eq!(t.say('a', "flush q"), "a flushed 2");
    assert_eq!((&t.changes[..], t.engine.stored(), t.engine.volatile()), (&[][..], (0, 0), (0, 0)));
}

#[test]
fn an_answer_about_a_volatile_message_waits_for_no_commit() {
    let commands = [
        "put volatile",
        "put volatile done k",
        "put volatile done k",
        "take 1",
        "release 1",
        "take 1",
        "bury 1",
        "kick-one 1",
        "take 1",
        "fail 1",
        "take 1",
        "requeue 1",
        "remove 1",
        "take 2",
        "ack 2",
    ];
    let mut t = Talk::new().workers("a");
    for command in commands {
        let told = t.say('a', command);
        let is_delivery = command.starts_with("take");
        assert_eq!(t.at_once.join(", "), if is_delivery { "" } else { &told }, "{command}");
    }
    let mut t = Talk::new().workers("a");
    for command in commands.map(|command| command.replace(" volatile", "")) {
        t.say('a', &command);
        assert_eq!(t.at_once, Vec::<String>::new(), "{command}");
    }
    t.say('a', "put done k");
    assert_eq!(t.say('a', "put volatile done k"), "a joined 4");
    assert_eq!(t.at_once, ["a joined 4"], "it was promised nothing, whatever it has joined");
}

#[test]
fn a_restart_forgets_volatile_messages_with_their_keys_and_nothing_else() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put done k");
    t.say('a', "put volatile done v");
    t.say('a', "put volatile outlived w");
    t.say('a', "put r volatile outlived x");
    t.say('a', "take 3");
    t.say('a', "ack 3");
    assert_eq!(t.say('a', "put volatile outlived w"), "a joined nothing");
    t.say('a', "take 1");
    t.say('a', "take 2");
    let mut t = restarted(&mut t, 0);
    assert_eq!(
        (t.state(1), t.state(2), t.state(4)),
        ("Ready".into(), "gone".into(), "gone".into())
    );
    assert_eq!(t.say('a', "put done k"), "a joined 1");
    for key in ["done v", "outlived w"] {
        assert_eq!(t.say('a', &format!("find {}", &key[key.len() - 1..])), "a NotFound");
    }
    assert_eq!(t.say('a', "put r outlived x"), "a put 2");
    assert_eq!(t.say('a', "queues"), "a queues q r");
}

#[test]
fn a_promoted_message_keeps_its_id_and_what_happened_to_it() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put volatile pri 7 ttl 60000 ttr 9 bytes 5");
    t.say('a', "put");
    t.say('b', "take 1");
    t.say('b', "release 1 pri 3 delay 2000");
    t.pass(500);
    t.changes.clear();
    assert_eq!(t.say('a', "promote 1"), "a Promoted");
    assert!(t.at_once.is_empty(), "it waits for the commit");
    let found = row(&t);
    assert_eq!((found.id, found.body.len(), found.priority), (MessageId(1), 5, 3));
    assert_eq!(found.expires_ms.map(|at| at - found.created_ms), Some(60_000));
    assert_eq!(found.due_ms.map(|at| at - found.created_ms), Some(2_000));
    assert!(matches!(&t.changes[1], Change::Moved(row) if row.counters.releases == 1));
    let changes = t.changes.len();
    assert_eq!(t.say('b', "promote 1"), "b Promoted", "it is durable already");
    assert_eq!((t.changes.len(), t.engine.volatile()), (changes, (0, 0)));
    assert_eq!(t.say('b', "promote 3"), "b NotFound");
    t.say('b', "remove 1");
    assert_eq!(t.changes.last(), Some(&Change::Removed(MessageId(1))));
    assert!(t.at_once.is_empty());
}

#[test]
fn a_promoted_message_is_found_after_a_restart_wherever_it_was() {
    let mut t = under("ab", vec![policy("q", 1, &[], "dead")]);
    for command in [
        "put volatile pri 4 ttl 50000",
        "put volatile pri 3 ttl 50000",
        "put volatile pri 2",
        "put pri 1",
        "take 1",
        "fail 1 because no such host",
        "take 2",
    ] {
        t.say('a', command);
    }
    t.input(Input::Policies(Arc::default()));
    t.say('a', "bury 2");
    t.say('a', "take 3");
    t.pass(10_000);
    for id in 1..=3 {
        assert_eq!(t.say('a', &format!("promote {id}")), "a Promoted");
    }
    let before = [1, 2, 3].map(|id| failures(&mut t, id));
    let mut t = restarted(&mut t, 0);
    assert_eq!([1, 2, 3].map(|id| failures(&mut t, id)), before);
    assert_eq!([1, 2, 3, 4].map(|id| t.state(id)), ["Ready", "Buried", "Ready", "Ready"]);
    assert_eq!(t.say('a', "kick-one 1"), "a KickedOne", "it goes home");
    assert_eq!(t.say('a', "kick-one 2"), "a KickedOne");
    assert_eq!(t.say('a', "peek 1"), "a found 1 ttl 50000");
    assert_eq!(t.say('a', "peek 2"), "a found 2 ttl 50000");
    for id in [4, 3, 2, 1] {
        assert!(t.say('a', "reserve").starts_with(&format!("a reserved {id}")), "{id} comes next");
    }
}

#[test]
fn a_durable_put_makes_the_message_durable_that_it_joins() {
    let mut t = Talk::new().workers("ab");
    t.say('a', "put volatile done k bytes 3");
    assert_eq!(t.say('b', "put volatile done k"), "b joined 1");
    assert!(t.changes.is_empty(), "nobody has asked for more");
    assert_eq!(t.say('b', "put done k"), "b joined 1");
    assert!(t.at_once.is_empty(), "it waits for the commit of the message");
    assert_eq!(row(&t).body.len(), 3);
    assert!(t.changes.iter().any(|change| matches!(change, Change::KeySet(_))));
    let changes = t.changes.len();
    assert_eq!(t.say('b', "put done k"), "b joined 1");
    assert_eq!(t.changes.len(), changes);
    let mut t = restarted(&mut t, 0);
    assert_eq!(t.say('a', "put done k"), "a joined 1");
}

#[test]
fn a_durable_put_makes_a_key_durable_that_has_outlived_its_message() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put volatile outlived k");
    t.say('a', "take 1");
    t.say('a', "ack 1");
    assert_eq!(t.say('a', "put outlived k"), "a joined nothing");
    assert_eq!(t.changes.len(), 2, "the queue and the key: {:?}", t.changes);
    let mut t = restarted(&mut t, 9_000);
    assert_eq!(t.say('a', "put outlived k"), "a joined nothing");
    t.pass(1_000);
    assert_eq!(t.say('a', "put outlived k"), "a put 1");
}

#[test]
fn nothing_becomes_durable_while_the_disk_takes_nothing() {
    let mut t = Talk::new().workers("a").consumers("x");
    t.say('a', "put volatile done k");
    t.input(Input::RefusePuts(Some(Refusal::StoreUnavailable)));
    assert_eq!(t.say('a', "promote 1"), "a refused StoreUnavailable");
    assert_eq!(t.say('a', "put done k"), "a refused StoreUnavailable");
    assert_eq!(t.say('a', "put volatile done k"), "a joined 1");
    assert!(t.changes.is_empty());
    t.input(Input::RefusePuts(Some(Refusal::OutOfMemory)));
    assert_eq!(t.say('a', "promote 1"), "a refused OutOfMemory");
    t.input(Input::RefusePuts(Some(Refusal::Draining)));
    assert_eq!(t.say('a', "promote 1"), "a Promoted", "it is there already");
    t.say('x', "consume q 1");
    t.input(Input::RefusePuts(None));
    t.say('a', "put volatile done l");
    t.input(Input::RefusePuts(Some(Refusal::StoreUnavailable)));
    assert_eq!(t.say('x', "put q done l"), "x joined 2", "it could not be told");
    assert_eq!(t.engine.volatile().1, 0);
}

#[test]
fn what_is_volatile_is_put_while_the_disk_takes_nothing() {
    let limits = Arc::new(Limits::new(&LimitValues::default()));
    let mut t = Talk::over(Engine::new(limits, 1, 3, 1)).workers("ab");
    t.input(Input::RefusePuts(Some(Refusal::StoreUnavailable)));
    assert_eq!(t.say('a', "put"), "a refused StoreUnavailable");
    assert!(t.say('a', "put volatile").ends_with("a put 1"));
    assert_eq!(t.say('a', "put volatile done k"), "a put 2");
    assert_eq!(t.say('a', "put r volatile"), "a refused StoreUnavailable", "there is no id left");
    assert_eq!(t.say('a', "queues"), "a queues q");
    t.input(Input::RefusePuts(None));
    assert_eq!(t.say('a', "put volatile"), "", "it waits for ids");
    let told = t.input(Input::RefusePuts(Some(Refusal::StoreUnavailable)));
    assert_eq!(told, "a refused StoreUnavailable");
    for refusal in [Refusal::OutOfMemory, Refusal::Draining] {
        t.input(Input::RefusePuts(Some(refusal)));
        assert_eq!(t.say('b', "put volatile"), format!("b refused {refusal:?}"));
    }
}

#[test]
fn steps_together_wait_for_a_commit_where_one_of_them_is_durable() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put volatile done k");
    t.say('a', "put volatile");
    t.say('a', "take 2");
    let whole = t.command('a', together(&["put volatile", "ack 2", "put volatile done k"]));
    assert_eq!(whole, "a together 3 1");
    assert_eq!((&t.at_once[..], t.changes.len()), (&[whole][..], 0));
    t.say('a', "take 3");
    assert_eq!(t.command('a', together(&["put", "ack 3"])), "a together 4");
    assert!(t.at_once.is_empty());
    assert_eq!(t.command('a', together(&["put volatile", "put done k"])), "a together 5 1");
    assert!(t.at_once.is_empty());
    assert_eq!(t.engine.volatile().1, 1, "the key's message is durable");
}

#[test]
fn what_becomes_durable_together_counts_like_what_comes() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put volatile done k bytes 8000000");
    t.say('a', "put volatile done l bytes 8000000");
    let many = |key: &str| (0..5).map(|_| format!("put done {key}")).collect::<Vec<_>>();
    let steps = [many("k"), many("l")].concat();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    assert_eq!(t.command('a', together(&steps)), "a refused TooMuchTogether");
    assert!(t.changes.is_empty());
    assert_eq!(t.command('a', together(&["put done k", "put done l"])), "a together 1 2");
}

#[test]
fn who_looks_is_told_what_is_volatile() {
    let mut t = Talk::new().workers("a");
    t.say('a', "put");
    t.say('a', "put volatile");
    let mut is_volatile = |command: &str| {
        t.say('a', command);
        match t.replies.pop() {
            Some(Reply::MessageStatistics(figures)) => vec![figures.is_volatile],
            Some(Reply::Listing(listing)) => {
                listing.messages.iter().map(|message| message.is_volatile).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((is_volatile("stats 1"), is_volatile("stats 2")), (vec![false], vec![true]));
    assert_eq!(is_volatile("list q"), [false, true]);
    assert_eq!(t.say('a', "peek 2"), "a found 2 volatile");
    t.say('a', "promote 2");
    assert_eq!(t.say('a', "peek 2"), "a found 2");
}

#[test]
fn a_volatile_message_counts_like_others_for_the_limit_of_its_queue() {
    let mut t = Talk::new().workers("a");
    t.say('a', "limit q 1 1 1");
    assert_eq!(t.say('a', "put volatile"), "a put 1");
    assert_eq!(t.say('a', "put volatile"), "a refused QueueFull");
    assert_eq!(t.say('a', "put"), "a refused QueueFull");
}
