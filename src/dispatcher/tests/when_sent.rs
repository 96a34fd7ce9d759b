//! Messages that are done when the answer that carries them has left.

use super::*;
use crate::words::command::{Amount, Options, Settlement, Sources, SubscriptionKey};
use crate::words::ids::QueueName;
use Durability::Periodic;

impl Stage {
    fn messages(&self) -> u64 {
        self.dispatcher.engine.stored().1
    }
}

fn subscribe() -> Command {
    let options = Options { settlement: Settlement::WhenSent, ..Options::default() };
    let queue = QueueName::new(b"default").unwrap();
    Command::Subscribe { key: SubscriptionKey::Number(0), queue, options }
}

fn reserve(amount: Amount) -> Command {
    let from = Sources::Subscription(SubscriptionKey::Number(0));
    Command::Reserve { from, refuse_if_holding: false, timeout_ms: Some(0), amount }
}

#[test]
fn a_message_is_done_when_it_has_left() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.ask('a', subscribe());
    s.say('a', put("x") + &put("y"));
    s.ask('a', reserve(Amount::Total(1)));
    assert!(s.hear('a').ends_with("RESERVED 1 1\r\nx\r\n"));
    assert_eq!(s.messages(), 1, "x is done");
    s.say('a', "delete 1\r\n");
    assert_eq!(s.hear('a'), "NOT_FOUND\r\n");
}

#[test]
fn an_answer_of_several_messages_is_done_as_a_whole() {
    for amount in [Amount::Total(40), Amount::Each(40)] {
        answer_is_done_as_a_whole(amount);
    }
}

fn answer_is_done_as_a_whole(amount: Amount) {
    let limits = LimitValues { max_output: 64 * 1024 * 1024, ..LimitValues::default() };
    let settings = Settings { limits, ..Settings::default() };
    let mut s = Stage::with(settings).connect("a", "beanstalk", Periodic);
    s.ask('a', subscribe());
    for _ in 0..40 {
        s.say('a', put(&"x".repeat(65_000)));
        s.hear('a');
    }
    s.ask('a', reserve(amount));
    assert_eq!(s.messages(), 40, "some of it lies in the socket, none of it is done");
    let id = s.clients[&'a'].id;
    assert!(s.dispatcher.peers[&id].outbox.unsent_bytes() > 0);
    s.vanish('a');
    s.end('a', End::Reset(io::Error::from(io::ErrorKind::ConnectionReset)));
    while s.knows('a') {
        s.turn();
    }
    s.turn();
    assert_eq!(s.messages(), 40);
    s.open('b', "beanstalk", Periodic);
    s.say('b', "stats-tube default\r\n");
    assert!(s.hear('b').contains("current-jobs-ready: 40\n"), "all came back");
}

#[test]
fn a_whole_answer_that_is_read_is_done() {
    let mut s = Stage::new().connect("a", "beanstalk", Periodic);
    s.ask('a', subscribe());
    for _ in 0..30 {
        s.say('a', put(&"x".repeat(65_000)));
        s.hear('a');
    }
    s.ask('a', reserve(Amount::Total(30)));
    assert_eq!(s.messages(), 30);
    let bytes = "RESERVED_BATCH 30\r\n".len()
        + (1..=30).map(|id: u64| format!("RESERVED {id} 65000\r\n").len() + 65_002).sum::<usize>();
    let mut stream = s.clients[&'a'].stream.as_ref().unwrap().try_clone().unwrap();
    let reading = std::thread::Builder::new()
        .spawn(move || io::Read::read_exact(&mut stream, &mut vec![0; bytes]).unwrap())
        .unwrap();
    while s.messages() > 0 {
        // The writer reports each chunk that the peer has taken.
        let event = s.dispatcher.events.recv_timeout(std::time::Duration::from_millis(100)).ok();
        s.dispatcher.turn_at(s.now, event);
    }
    reading.join().unwrap();
}
