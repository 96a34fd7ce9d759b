//! Fair shares: the next message goes to whoever has waited longest since its last one.

use std::collections::BTreeMap;

use super::Talk;

fn shares(handed: &str) -> BTreeMap<char, usize> {
    let mut shares = BTreeMap::new();
    for hand in handed.split_whitespace() {
        *shares.entry(hand.chars().next().unwrap()).or_default() += 1;
    }
    shares
}

#[test]
fn each_of_n_idle_consumers_gets_its_even_share() {
    for (consumers, messages) in [("ab", 7), ("abc", 10), ("abcdefg", 100), ("abcde", 3)] {
        let mut t = Talk::new().workers("p").consumers(consumers);
        for letter in consumers.chars() {
            t.say(letter, "consume q 1000");
        }
        let mut handed = String::new();
        for _ in 0..messages {
            handed += &Talk::handed(&t.say('p', "put"));
            handed.push(' ');
        }
        let shares = shares(&handed);
        let (floor, rest) = (messages / consumers.len(), messages % consumers.len());
        for letter in consumers.chars() {
            let share = shares.get(&letter).copied().unwrap_or(0);
            assert!(share == floor || rest > 0 && share == floor + 1, "{shares:?}");
        }
    }
}

#[test]
fn a_backlog_is_shared_evenly_too() {
    let mut t = Talk::new().workers("p").consumers("ab");
    t.say('p', "pause q 1000");
    t.say('a', "consume q 100");
    t.say('b', "consume q 100");
    for _ in 0..9 {
        t.say('p', "put");
    }
    let told = t.pass(1_000);
    assert_eq!(Talk::handed(&told), "a1 b2 a3 b4 a5 b6 a7 b8 a9");
}

#[test]
fn a_consumer_without_room_is_passed_over_and_then_first() {
    let mut t = Talk::new().workers("p").consumers("ab");
    t.say('a', "consume q 1");
    t.say('b', "consume q 10");
    assert_eq!(t.say('p', "put"), "p put 1, a dispatched 1");
    assert_eq!(t.say('p', "put"), "p put 2, b dispatched 2");
    assert_eq!(t.say('p', "put"), "p put 3, b dispatched 3");
    t.say('a', "ack 1 q");
    assert_eq!(t.say('p', "put"), "p put 4, a dispatched 4", "it has waited longest");
}

#[test]
fn a_consumer_that_joins_takes_part_from_the_next_message_on() {
    let mut t = Talk::new().workers("p").consumers("ab");
    t.say('a', "consume q 10");
    t.say('p', "put");
    t.say('p', "put");
    t.say('b', "consume q 10");
    let handed: Vec<String> = (0..4).map(|_| Talk::handed(&t.say('p', "put"))).collect();
    assert_eq!(handed, ["a3", "b4", "a5", "b6"]);
}

#[test]
fn what_a_leaving_consumer_held_goes_to_the_others_at_once() {
    let mut t = Talk::new().workers("p").consumers("abc");
    for letter in ['a', 'b', 'c'] {
        t.say(letter, "consume q 10");
    }
    for _ in 0..6 {
        t.say('p', "put");
    }
    let told = t.close('a');
    assert_eq!(told, "b dispatched 1, c dispatched 4, a finished");
}

#[test]
fn waits_and_windows_stand_in_one_rotation() {
    let mut t = Talk::new().workers("pw").consumers("c");
    t.say('c', "consume q 10");
    t.say('w', "reserve");
    assert_eq!(t.say('p', "put"), "p put 1, c dispatched 1");
    assert_eq!(t.say('p', "put"), "p put 2, w reserved 2");
    assert_eq!(t.say('p', "put"), "p put 3, c dispatched 3");
}

#[test]
fn waits_are_served_in_the_order_they_began() {
    let mut t = Talk::new().workers("pabc");
    for letter in ['b', 'c', 'a'] {
        t.say(letter, "reserve");
    }
    let handed: Vec<String> = (0..3).map(|_| Talk::handed(&t.say('p', "put"))).collect();
    assert_eq!(handed, ["b1", "c2", "a3"]);
}

#[test]
fn a_full_queue_is_drained_evenly_by_equal_windows() {
    let mut t = Talk::new().workers("p").consumers("ab");
    for _ in 0..10 {
        t.say('p', "put");
    }
    assert_eq!(Talk::handed(&t.say('a', "consume q 2")), "a1 a2");
    assert_eq!(Talk::handed(&t.say('b', "consume q 2")), "b3 b4");
    for step in ["a1 a5", "b3 b6", "a2 a7", "b4 b8"] {
        let (done, next) = step.split_once(' ').unwrap();
        let told = t.say(done.chars().next().unwrap(), &format!("ack {} q", &done[1..]));
        assert_eq!(Talk::handed(&told), next);
    }
}
