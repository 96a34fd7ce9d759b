//! The order of queues in lists, which is beanstalkd's: a new queue comes last, and the last one
//! takes the place of one that goes.

use super::Talk;

#[test]
fn the_last_queue_takes_the_place_of_one_that_goes() {
    let mut t = Talk::new().workers("a");
    for text in ["use x1", "watch x2", "use q", "ignore x2", "use y1", "watch y2"] {
        t.say('a', text);
    }
    assert_eq!(t.say('a', "queues"), "a queues q y1 y2");
    for text in ["watch z1", "watch z2", "watch z3", "use q"] {
        t.say('a', text);
    }
    assert_eq!(t.say('a', "queues"), "a queues q z3 y2 z1 z2");
    assert_eq!(t.say('a', "watched"), "a queues q y2 z1 z2 z3");
    t.say('a', "ignore y2");
    assert_eq!(t.say('a', "queues"), "a queues q z3 z2 z1");
    assert_eq!(t.say('a', "watched"), "a queues q z3 z1 z2");
}

#[test]
fn an_ended_connection_lets_go_of_the_first_queue_and_then_of_the_last_ones() {
    let mut t = Talk::new().workers("ab");
    for text in ["watch x1", "watch x2", "watch x3", "ignore q", "use x4"] {
        t.say('a', text);
    }
    for text in ["watch y1", "watch y2"] {
        t.say('b', text);
    }
    assert_eq!(t.say('a', "watched"), "a queues x3 x1 x2");
    assert_eq!(t.say('b', "queues"), "b queues q x1 x2 x3 x4 y1 y2");
    t.close('a');
    // y2 comes to where x3 was, y1 to where x2 was, x4 to where x1 was; then y2 to where x4 is.
    assert_eq!(t.say('b', "queues"), "b queues q y2 y1");
}

#[test]
fn the_queue_that_connections_start_with_comes_first() {
    let mut t = Talk::new().consumers("p");
    t.say('p', "put x");
    t.say('p', "put q");
    let mut t = t.workers("a");
    assert_eq!(t.say('a', "queues"), "a queues q x");
}

#[test]
fn a_long_list_names_each_queue_once_that_is_there_all_the_time() {
    let mut t = Talk::new().workers("ab");
    for number in 1..=9 {
        t.say('b', &format!("watch x{number}"));
    }
    t.engine.work_per_turn = 4;
    t.turn();
    assert_eq!(t.say('a', "queues"), "");
    // The list has named q, x1, x2 and x3. Now x9 comes to where x2 was, and x8 to where x6 was.
    t.say('b', "ignore x2");
    t.say('b', "ignore x6");
    t.say('b', "watch y1");
    let mut told = t.turn();
    for _ in 0..3 {
        told += &t.turn();
    }
    assert_eq!(told, "a queues q x1 x2 x3 x9 x4 x5 x8 x7 y1");
}
