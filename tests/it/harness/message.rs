//! A php-mq peer, in both revisions.

use super::{Server, Stream};

/// Both revisions of the protocol.
pub const REVISIONS: [u8; 2] = [1, 2];

/// The bytes of a message of that type with these packets.
pub fn packets(kind: u8, packets: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = format!("H01{kind:03}{:02}", packets.len()).into_bytes();
    for (kind, content) in packets {
        bytes.extend(format!("P{kind:02}{:029}", content.len()).bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub revision: u8,
    pub queue: String,
    pub body: String,
    pub id: String,
    /// Seconds left, 0 for ever; only in revision 2.
    pub time_to_live: Option<u64>,
}

pub struct Phpmq {
    pub stream: Stream,
    revision: u8,
    confirmations: u64,
}

impl Phpmq {
    pub fn new(stream: Stream, revision: u8) -> Phpmq {
        Phpmq { stream, revision, confirmations: 0 }
    }

    /// Sends a message without a time to live, in this peer's revision.
    pub fn send(&mut self, queue: &str, body: &str) {
        let mut all = vec![(1, queue.as_bytes()), (2, body.as_bytes())];
        if self.revision == 2 {
            all.push((5, b"0"));
        }
        self.stream.send(packets(1, &all));
    }

    /// Sends a message with a time to live, which makes it revision 2.
    pub fn send_for(&mut self, queue: &str, body: &str, seconds: u64) {
        let seconds = seconds.to_string();
        let all = [(1, queue.as_bytes()), (2, body.as_bytes()), (5, seconds.as_bytes())];
        self.stream.send(packets(1, &all));
    }

    /// Sends a message and asks for a confirmation, without waiting for it.
    pub fn send_asking(&mut self, queue: &str, body: &str, correlation: &str) {
        let mut all = vec![(1, queue.as_bytes()), (2, body.as_bytes())];
        if self.revision == 2 {
            all.push((5, b"0"));
        }
        all.push((6, correlation.as_bytes()));
        self.stream.send(packets(1, &all));
    }

    /// Sends a message and waits until the daemon has confirmed it; returns its id. Everything
    /// sent before has been done then as well.
    pub fn send_confirmed(&mut self, queue: &str, body: &str) -> String {
        self.confirmations += 1;
        let correlation = self.confirmations.to_string();
        self.send_asking(queue, body, &correlation);
        let (id, confirmed) = self.confirmation();
        assert_eq!(confirmed, correlation);
        id
    }

    /// Sends a message with a key that is taken for so many seconds, 0 until it is gone, and waits for
    /// the confirmation; returns the id in it.
    pub fn send_keyed(&mut self, queue: &str, body: &str, (key, seconds): (&str, u64)) -> String {
        let seconds = seconds.to_string();
        let mut all = vec![(7, key.as_bytes()), (8, seconds.as_bytes()), (1, queue.as_bytes())];
        all.push((2, body.as_bytes()));
        if self.revision == 2 {
            all.push((5, b"0"));
        }
        all.push((6, b"keyed"));
        self.stream.send(packets(1, &all));
        self.confirmation().0
    }

    /// A confirmation: id and correlation.
    pub fn confirmation(&mut self) -> (String, String) {
        let (kind, packets) = self.message();
        assert_eq!(kind, 7, "{packets:?}");
        let [(3, id), (6, correlation)] = &packets[..] else { panic!("{packets:?}") };
        (id.clone(), correlation.clone())
    }

    pub fn consume(&mut self, queue: &str, window: u64) {
        let window = window.to_string();
        self.stream.send(packets(2, &[(1, queue.as_bytes()), (4, window.as_bytes())]));
    }

    /// Consumes, and waits until the daemon has taken that up.
    pub fn consuming(mut self, server: &Server, queue: &str, window: u64) -> Phpmq {
        self.consume(queue, window);
        self.settle(server);
        self
    }

    /// Waits until the daemon has taken up everything that this peer has sent: behind it goes an
    /// acknowledgement of no message, which is not answered but counted.
    pub fn settle(&mut self, server: &Server) {
        let mut console = server.console();
        let before = console.number("foreign acknowledgements");
        self.stream.send(packets(4, &[(1, b"nothing"), (3, &[b'0'; 32])]));
        super::eventually("what was sent is taken up", || {
            console.number("foreign acknowledgements") > before
        });
    }

    pub fn acknowledge(&mut self, message: &Delivered) {
        self.answer(4, message, None);
    }

    pub fn requeue(&mut self, message: &Delivered, seconds: u64) {
        self.answer(5, message, Some(seconds));
    }

    pub fn dead_letter(&mut self, message: &Delivered) {
        self.answer(6, message, None);
    }

    fn answer(&mut self, kind: u8, message: &Delivered, seconds: Option<u64>) {
        let seconds = seconds.map(|seconds| seconds.to_string());
        let mut all = vec![(1, message.queue.as_bytes()), (3, message.id.as_bytes())];
        all.extend(seconds.as_ref().map(|seconds| (5, seconds.as_bytes())));
        self.stream.send(packets(kind, &all));
    }

    /// The next message that comes.
    pub fn receive(&mut self) -> Delivered {
        let (kind, packets) = self.message();
        assert_eq!(kind, 3, "{packets:?}");
        let mut parts = packets.into_iter();
        let mut part = |wanted| {
            let (number, content) = parts.next().expect("a message has enough parts");
            assert_eq!(number, wanted);
            content
        };
        let (queue, body, id) = (part(1), part(2), part(3));
        let time_to_live = parts.next().map(|(number, content)| {
            assert_eq!(number, 5);
            content.parse().unwrap()
        });
        let revision = if time_to_live.is_some() { 2 } else { 1 };
        Delivered { revision, queue, body, id, time_to_live }
    }

    /// Receives a message, acknowledges it, and returns its body.
    pub fn work(&mut self) -> String {
        let message = self.receive();
        self.acknowledge(&message);
        message.body
    }

    fn message(&mut self) -> (u16, Vec<(u8, String)>) {
        self.try_message().expect("the connection lives")
    }

    /// Any message: its type and its packets. Nothing when the connection ends first.
    pub fn try_message(&mut self) -> Option<(u16, Vec<(u8, String)>)> {
        let head = String::from_utf8(self.stream.try_exactly(8)?).unwrap();
        assert!(head.starts_with("H01"), "{head}");
        let count: usize = head[6..].parse().unwrap();
        let mut packets = Vec::with_capacity(count);
        for _ in 0..count {
            let head = String::from_utf8(self.stream.try_exactly(32)?).unwrap();
            assert!(head.starts_with('P'), "{head}");
            let content = self.stream.try_exactly(head[3..].parse().unwrap())?;
            packets.push((head[1..3].parse().unwrap(), String::from_utf8(content).unwrap()));
        }
        Some((head[3..6].parse().unwrap(), packets))
    }
}
