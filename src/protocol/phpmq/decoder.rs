//! php-mq bytes in, requests out.
//!
//! ```text
//!   Header ──► PacketHeader ──► Content ──last packet──► Header, with a request
//!                   ▲              │
//!                   └──────────────┘
//! ```
//!
//! Every fault ends the connection; messages that were whole before it stand. Of an incomplete
//! message the decoder keeps the values read so far and the bytes of one unfinished piece.

use std::sync::Arc;

use crate::change::Attributes;
use crate::clock::Time;
use crate::command::{Command, Put, Requests, Tag, Target};
use crate::ids::{MessageId, QueueName, QueueNameError};
use crate::limits::{Limits, QUEUE_NAME_BYTES_MAX};
use crate::protocol::WireError;
use crate::protocol::wire::{Content, Piece, Rest, decimal};

use super::{
    CORRELATION_BYTES_MAX, MESSAGE_HEADER_BYTES, MessageKey, PACKET_HEADER_BYTES, Packet,
    REVISION_1, REVISION_2, REVISION_ATTRIBUTE, WIRE_ID_BYTES, text_of_bytes,
};

/// Digits of a number: more than any value needs, leading zeros included.
const NUMBER_BYTES_MAX: usize = 20;
/// The longest time to live, in seconds: 30,000 years. A longer one is taken as this, so that a
/// moment in milliseconds never overflows.
const TIME_TO_LIVE_S_MAX: u64 = 1_000_000_000_000;
/// An id that no message has: what does not check becomes an acknowledgement of nothing, which
/// the core counts and ignores.
const NO_MESSAGE: MessageId = MessageId(0);

/// Decodes one connection.
pub(super) struct Decoder {
    limits: Arc<Limits>,
    key: MessageKey,
    /// The connection's revision, once it is pinned or shown.
    revision: Option<u8>,
    stage: Stage,
    header: Piece<MESSAGE_HEADER_BYTES>,
    packet_header: Piece<PACKET_HEADER_BYTES>,
    content: Content,
    message: Message,
    /// Bytes taken of the message that is being read, but for those of unfinished content.
    message_bytes: usize,
    /// The last queue named, so that a run of messages for one queue makes its name once.
    last_queue: Option<QueueName>,
    sent_in_revision_2: Attributes,
}

#[derive(Clone, Copy)]
enum Stage {
    Header,
    PacketHeader,
    Content { packet: Packet, length: usize },
}

/// What a client can send.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Send,
    Consume,
    Acknowledge,
    Requeue,
    DeadLetter,
}

/// The values of a message as far as it has been read.
#[derive(Default)]
struct Message {
    kind: Kind,
    packets_left: u8,
    /// Packets of a 001 beside queue and body that may still come.
    optional_left: u8,
    /// A bit for each packet type that has come.
    seen: u8,
    queue: Option<QueueName>,
    body: Vec<u8>,
    id: MessageId,
    window: u32,
    time_to_live_ms: Option<u64>,
    correlation: Option<Box<str>>,
}

impl Decoder {
    pub(super) fn new(limits: Arc<Limits>, key: MessageKey, revision: Option<u8>) -> Decoder {
        let mut sent_in_revision_2 = Attributes::default();
        sent_in_revision_2.push(REVISION_ATTRIBUTE, b"2");
        Decoder {
            limits,
            key,
            revision,
            stage: Stage::Header,
            header: Piece::default(),
            packet_header: Piece::default(),
            content: Content::default(),
            message: Message::default(),
            message_bytes: 0,
            last_queue: None,
            sent_in_revision_2,
        }
    }

    /// Takes one piece; adds at most one request, so that a batch is never over its maximum.
    fn step(&mut self, input: &mut &[u8], requests: &mut Requests) -> Result<(), WireError> {
        match self.stage {
            Stage::Header => match self.header.take(input) {
                Some(header) => self.begin(&header, requests),
                // What can not become a message is refused before it is whole.
                None => check_magic(self.header.pending()),
            },
            Stage::PacketHeader => match self.packet_header.take(input) {
                Some(header) => self.begin_packet(&header, requests),
                None => check_packet_magic(self.packet_header.pending()),
            },
            Stage::Content { packet, length } => match self.content.take(length, input) {
                Some(content) => self.end_packet(packet, content, requests),
                None => Ok(()),
            },
        }
    }

    /// Whether the rest of some content has been brought to its place.
    fn has_rest(&self) -> bool {
        matches!(self.stage, Stage::Content { length, .. } if self.content.pending_bytes() >= length)
    }

    fn begin(
        &mut self,
        header: &[u8; MESSAGE_HEADER_BYTES],
        requests: &mut Requests,
    ) -> Result<(), WireError> {
        check_magic(header)?;
        let [_, _, _, kind @ .., count_1, count_2] = header;
        let kind = small_number(kind, "message type")?;
        let count =
            u8::try_from(small_number(&[*count_1, *count_2], "packet count")?).unwrap_or(u8::MAX);
        let (kind, counts) = match kind {
            1 => (Kind::Send, 2..=4),
            2 => (Kind::Consume, 2..=2),
            4 => (Kind::Acknowledge, 2..=2),
            5 => (Kind::Requeue, 3..=3),
            6 => (Kind::DeadLetter, 2..=2),
            other => return Err(WireError::UnknownType(other)),
        };
        if !counts.contains(&count) {
            return Err(WireError::WrongPartCount(count));
        }
        self.message = Message {
            kind,
            packets_left: count,
            optional_left: count.saturating_sub(2),
            ..Message::default()
        };
        self.stage = Stage::PacketHeader;
        match (kind, count) {
            (Kind::Send, 2) => self.show(REVISION_1, requests),
            (Kind::Send, 4) | (Kind::Requeue | Kind::DeadLetter, _) => {
                self.show(REVISION_2, requests);
            }
            // With three packets the third one shows it; consumers show nothing.
            _ => {}
        }
        Ok(())
    }

    fn begin_packet(
        &mut self,
        header: &[u8; PACKET_HEADER_BYTES],
        requests: &mut Requests,
    ) -> Result<(), WireError> {
        check_packet_magic(header)?;
        let [_, type_1, type_2, length @ ..] = header;
        let number = small_number(&[*type_1, *type_2], "packet type")?;
        let packet = self.message.expect(number)?;
        if self.message.kind == Kind::Send {
            match packet {
                Packet::TimeToLive => self.show(REVISION_2, requests),
                Packet::Correlation => self.show(REVISION_1, requests),
                _ => {}
            }
        }
        let length = packet_length(length)?;
        self.check_length(packet, length)?;
        self.stage = Stage::Content { packet, length };
        if length == 0 {
            return self.end_packet(packet, (&[]).into(), requests);
        }
        Ok(())
    }

    /// Invariant: what passes here may be gathered in memory.
    fn check_length(&self, packet: Packet, length: usize) -> Result<(), WireError> {
        let (what, max) = match packet {
            Packet::Queue if length > QUEUE_NAME_BYTES_MAX => {
                return Err(WireError::QueueName(QueueNameError::TooLong(length)));
            }
            Packet::Queue => return Ok(()),
            Packet::Body => ("message content", self.limits.max_message_size()),
            Packet::Id => ("message id", WIRE_ID_BYTES),
            Packet::Window | Packet::TimeToLive => ("number", NUMBER_BYTES_MAX),
            Packet::Correlation if length == 0 => {
                return Err(WireError::OutOfRange("correlation length"));
            }
            Packet::Correlation => ("correlation", CORRELATION_BYTES_MAX),
        };
        if length > max { Err(WireError::TooLong(what, max)) } else { Ok(()) }
    }

    fn end_packet(
        &mut self,
        packet: Packet,
        content: std::borrow::Cow<'_, [u8]>,
        requests: &mut Requests,
    ) -> Result<(), WireError> {
        let message = &mut self.message;
        match packet {
            Packet::Queue => message.queue = Some(queue_name(&mut self.last_queue, &content)?),
            Packet::Body => message.body = content.into_owned(),
            Packet::Id => message.id = self.key.read(&content).unwrap_or(NO_MESSAGE),
            Packet::Window => {
                let window = decimal(&content).ok_or(WireError::NotANumber("window"))?;
                message.window = u32::try_from(window).unwrap_or(u32::MAX);
            }
            Packet::TimeToLive => {
                let seconds = decimal(&content).ok_or(WireError::NotANumber("time to live"))?;
                message.time_to_live_ms =
                    (seconds > 0).then(|| seconds.min(TIME_TO_LIVE_S_MAX) * 1_000);
            }
            Packet::Correlation => message.correlation = Some(text_of_bytes(&content)),
        }
        message.packets_left = message.packets_left.saturating_sub(1);
        if message.packets_left > 0 {
            self.stage = Stage::PacketHeader;
            return Ok(());
        }
        self.stage = Stage::Header;
        self.end(requests)
    }

    fn end(&mut self, requests: &mut Requests) -> Result<(), WireError> {
        let message = std::mem::take(&mut self.message);
        // Invariant: so many different packets of this kind of message are all that it needs.
        let queue = message.queue.ok_or(WireError::UnexpectedPart(0))?;
        let (id, time_to_live_ms) = (message.id, message.time_to_live_ms);
        let mut tag = Tag::None;
        let command = match message.kind {
            Kind::Send => {
                if let Some(correlation) = message.correlation {
                    tag = Tag::Text(correlation);
                }
                let mut put = Put::new(Target::Named(queue), message.body);
                put.time_to_live_ms = time_to_live_ms;
                if message.seen & bit(Packet::TimeToLive) != 0 {
                    put.attributes = self.sent_in_revision_2.clone();
                }
                Command::Put(put)
            }
            Kind::Consume => Command::Consume { queue, window: message.window },
            Kind::Acknowledge => Command::Acknowledge { id, queue: Some(queue) },
            Kind::Requeue => Command::Requeue { id, queue: Some(queue), time_to_live_ms },
            Kind::DeadLetter => Command::Bury { id, queue: Some(queue), priority: None },
        };
        requests.push(tag, command);
        Ok(())
    }

    /// The peer has shown its revision: the first time, the encoder is told.
    fn show(&mut self, revision: u8, requests: &mut Requests) {
        if self.revision.is_none() {
            self.revision = Some(revision);
            requests.push(Tag::Code(revision.into()), Command::Echo);
        }
    }
}

impl Message {
    /// The packet of this type, if it may come now.
    fn expect(&mut self, number: u16) -> Result<Packet, WireError> {
        let unexpected = WireError::UnexpectedPart(u8::try_from(number).unwrap_or(u8::MAX));
        let packet = match (number, self.kind) {
            (1, _) => Packet::Queue,
            (2, Kind::Send) => Packet::Body,
            (3, Kind::Acknowledge | Kind::Requeue | Kind::DeadLetter) => Packet::Id,
            (4, Kind::Consume) => Packet::Window,
            (5, Kind::Send | Kind::Requeue) => Packet::TimeToLive,
            (6, Kind::Send) => Packet::Correlation,
            _ => return Err(unexpected),
        };
        if self.seen & bit(packet) != 0 {
            return Err(unexpected);
        }
        if self.kind == Kind::Send && matches!(packet, Packet::TimeToLive | Packet::Correlation) {
            self.optional_left = self.optional_left.checked_sub(1).ok_or(unexpected)?;
        }
        self.seen |= bit(packet);
        Ok(packet)
    }
}

impl crate::protocol::Decoder for Decoder {
    fn decode(
        &mut self,
        _now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        let mut input = bytes;
        while (!input.is_empty() || self.has_rest()) && !requests.is_full() {
            let before = input.len() + self.content.pending_bytes();
            self.step(&mut input, requests)?;
            if matches!(self.stage, Stage::Header) && self.header.pending().is_empty() {
                self.message_bytes = 0;
            } else {
                self.message_bytes += before - input.len() - self.content.pending_bytes();
            }
        }
        Ok(bytes.len() - input.len())
    }

    fn rest(&mut self) -> Option<Rest<'_>> {
        match self.stage {
            Stage::Content { length, .. } => Some(self.content.rest(length)),
            _ => None,
        }
    }

    fn pending_bytes(&self) -> usize {
        self.message_bytes + self.content.pending_bytes()
    }
}

fn bit(packet: Packet) -> u8 {
    1 << (packet as u8)
}

/// Looks at as much of a message header as there is.
fn check_magic(header: &[u8]) -> Result<(), WireError> {
    match header {
        [] | [b'H'] | [b'H', b'0'] | [b'H', b'0', b'1', ..] => Ok(()),
        [b'H', ..] => Err(WireError::UnsupportedVersion),
        _ => Err(WireError::BadMagic),
    }
}

fn check_packet_magic(header: &[u8]) -> Result<(), WireError> {
    match header {
        [] | [b'P', ..] => Ok(()),
        _ => Err(WireError::BadMagic),
    }
}

/// A number of two or three digits.
fn small_number(digits: &[u8], what: &'static str) -> Result<u16, WireError> {
    let number = decimal(digits).ok_or(WireError::NotANumber(what))?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

/// The announced length, `usize::MAX` when it is larger than that: more than any limit.
fn packet_length(digits: &[u8]) -> Result<usize, WireError> {
    // All but the last eight digits are zero up to 100 MB, and they are compared at once.
    let digits = digits.strip_prefix(b"000000000000000000000").unwrap_or(digits);
    let length = decimal(digits).ok_or(WireError::NotANumber("content length"))?;
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

/// The queue of this name, without making the name anew when it is that of the message before.
fn queue_name(last: &mut Option<QueueName>, name: &[u8]) -> Result<QueueName, WireError> {
    if let Some(last) = last
        && last.as_str().as_bytes() == name
    {
        return Ok(last.clone());
    }
    let queue = QueueName::new(name).map_err(WireError::QueueName)?;
    *last = Some(queue.clone());
    Ok(queue)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::Request;
    use crate::limits::LimitValues;
    use crate::protocol::Decoder as _;
    use crate::protocol::wire::testing::decode_all;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    pub(in super::super) fn decoder(revision: Option<u8>) -> Decoder {
        let limits = Limits::new(&LimitValues { max_message_size: 100, ..LimitValues::default() });
        Decoder::new(Arc::new(limits), MessageKey::new(&KEY), revision)
    }

    pub(in super::super) fn message(kind: u16, packets: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = format!("H01{kind:03}{:02}", packets.len()).into_bytes();
        for (packet, content) in packets {
            bytes.extend(format!("P{packet:02}{:029}", content.len()).bytes());
            bytes.extend_from_slice(content);
        }
        bytes
    }

    pub(in super::super) fn wire_id(id: u64) -> [u8; 32] {
        MessageKey::new(&KEY).write(MessageId(id))
    }

    fn request(command: Command) -> Request {
        Request { tag: Tag::None, command }
    }

    fn shown(revision: u64) -> Request {
        Request { tag: Tag::Code(revision), command: Command::Echo }
    }

    fn name(text: &str) -> QueueName {
        QueueName::new(text.as_bytes()).unwrap()
    }

    fn put(body: &[u8]) -> Put {
        Put::new(Target::Named(name("q")), body.to_vec())
    }

    fn put_2(body: &[u8], seconds: Option<u64>) -> Put {
        let mut put = put(body);
        put.attributes.push("phpmq.revision", b"2");
        put.time_to_live_ms = seconds.map(|seconds| seconds * 1_000);
        put
    }

    /// The requests of `bytes`, and the error that ended them.
    fn decode(bytes: &[u8]) -> (Vec<Request>, Option<WireError>) {
        decode_all(&mut decoder(None), bytes)
    }

    fn error_of(bytes: &[u8]) -> WireError {
        let (requests, error) = decode(bytes);
        assert!(requests.iter().all(|request| request.command == Command::Echo), "{requests:?}");
        error.expect("the bytes are wrong")
    }

    #[test]
    fn a_message_of_revision_1_is_put_and_shows_it_once() {
        let bytes = message(1, &[(1, b"q"), (2, b"\0body\xff")]).repeat(2);
        let body = request(Command::Put(put(b"\0body\xff")));
        assert_eq!(decode(&bytes), (vec![shown(1), body.clone(), body], None));
    }

    #[test]
    fn a_message_of_revision_2_carries_its_time_to_live() {
        let bytes = [
            message(1, &[(1, b"q"), (2, b"x"), (5, b"90")]),
            message(1, &[(1, b"q"), (2, b"y"), (5, b"0")]),
        ];
        let expected = vec![
            shown(2),
            request(Command::Put(put_2(b"x", Some(90)))),
            request(Command::Put(put_2(b"y", None))),
        ];
        assert_eq!(decode(&bytes.concat()), (expected, None));
    }

    #[test]
    fn a_consume_request_asks_for_a_window_and_shows_no_revision() {
        let bytes = message(2, &[(1, b"q"), (4, b"5")]);
        let expected = request(Command::Consume { queue: name("q"), window: 5 });
        assert_eq!(decode(&bytes), (vec![expected], None));
    }

    #[test]
    fn a_larger_window_than_there_can_be_is_the_largest() {
        let bytes = message(2, &[(1, b"q"), (4, b"99999999999999999999")]);
        let expected = request(Command::Consume { queue: name("q"), window: u32::MAX });
        assert_eq!(decode(&bytes), (vec![expected], None));
    }

    #[test]
    fn acknowledge_requeue_and_dead_letter_name_message_and_queue() {
        let (id, queue) = (MessageId(7), Some(name("q")));
        let bytes = [
            message(4, &[(1, b"q"), (3, &wire_id(7))]),
            message(5, &[(1, b"q"), (3, &wire_id(7)), (5, b"3")]),
            message(6, &[(1, b"q"), (3, &wire_id(7))]),
        ];
        let time_to_live_ms = Some(3_000);
        let expected = vec![
            request(Command::Acknowledge { id, queue: queue.clone() }),
            shown(2),
            request(Command::Requeue { id, queue: queue.clone(), time_to_live_ms }),
            request(Command::Bury { id, queue, priority: None }),
        ];
        assert_eq!(decode(&bytes.concat()), (expected, None));
    }

    #[test]
    fn an_id_that_does_not_check_is_the_id_of_no_message() {
        let mut guessed = wire_id(7);
        guessed[31] ^= 1;
        for id in [&guessed[..], &[b'0'; 32], b"7", b"", b"zzzz"] {
            let bytes = message(4, &[(1, b"q"), (3, id)]);
            let expected = Command::Acknowledge { id: MessageId(0), queue: Some(name("q")) };
            assert_eq!(decode(&bytes), (vec![request(expected)], None));
        }
    }

    #[test]
    fn a_correlation_asks_for_a_confirmation_in_either_revision() {
        let asked = |put| Request { tag: Tag::Text("n\u{ff}".into()), command: Command::Put(put) };
        let bytes = message(1, &[(1, b"q"), (2, b"x"), (6, b"n\xff")]);
        assert_eq!(decode(&bytes), (vec![shown(1), asked(put(b"x"))], None));
        let bytes = message(1, &[(1, b"q"), (2, b"x"), (5, b"9"), (6, b"n\xff")]);
        assert_eq!(decode(&bytes), (vec![shown(2), asked(put_2(b"x", Some(9)))], None));
    }

    #[test]
    fn packets_may_come_in_any_order() {
        let bytes = message(1, &[(6, b"n"), (5, b"9"), (2, b""), (1, b"q")]);
        let asked =
            Request { tag: Tag::Text("n".into()), command: Command::Put(put_2(b"", Some(9))) };
        assert_eq!(decode(&bytes), (vec![shown(2), asked], None));
    }

    #[test]
    fn the_first_revision_shown_stays() {
        let bytes =
            [message(1, &[(1, b"q"), (2, b"x")]), message(1, &[(1, b"q"), (2, b"x"), (5, b"9")])];
        let (requests, _) = decode(&bytes.concat());
        let echoes = requests.iter().filter(|request| request.command == Command::Echo).count();
        assert_eq!(echoes, 1);
        assert_eq!(requests.first(), Some(&shown(1)));
    }

    #[test]
    fn a_pinned_connection_shows_nothing() {
        let bytes = message(1, &[(1, b"q"), (2, b"x"), (5, b"9")]);
        let (requests, error) = decode_all(&mut decoder(Some(1)), &bytes);
        assert_eq!((requests.len(), error), (1, None));
    }

    #[test]
    fn a_body_may_be_empty_and_as_large_as_the_limit() {
        for size in [0, 1, 99, 100] {
            let bytes = message(1, &[(1, b"q"), (2, &vec![b'x'; size])]);
            let expected = request(Command::Put(put(&vec![b'x'; size])));
            assert_eq!(decode(&bytes), (vec![shown(1), expected], None), "{size}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_comes() {
        let start = message(1, &[(1, b"q")]);
        for length in ["101", "99999999999999999999999999999", "18446744073709551616"] {
            let bytes = format!("H0100102{}P02{length:0>29}", String::from_utf8_lossy(&start[8..]));
            let mut decoder = decoder(None);
            let (_, error) = decode_all(&mut decoder, bytes.as_bytes());
            assert_eq!(error, Some(WireError::TooLong("message content", 100)), "{length}");
            assert_eq!(decoder.content.pending_bytes(), 0);
        }
    }

    #[test]
    fn headers_that_are_none_are_refused_with_the_reason() {
        for (bytes, error) in [
            ("G", WireError::BadMagic),
            ("\0", WireError::BadMagic),
            ("h0100102", WireError::BadMagic),
            ("HTTP/1.1", WireError::UnsupportedVersion),
            ("H1", WireError::UnsupportedVersion),
            ("H02", WireError::UnsupportedVersion),
            ("H01x0102", WireError::NotANumber("message type")),
            ("H01001 2", WireError::NotANumber("packet count")),
            ("H0100002", WireError::UnknownType(0)),
            ("H0100303", WireError::UnknownType(3)),
            ("H0100702", WireError::UnknownType(7)),
            ("H0199902", WireError::UnknownType(999)),
            ("H0100101", WireError::WrongPartCount(1)),
            ("H0100105", WireError::WrongPartCount(5)),
            ("H0100200", WireError::WrongPartCount(0)),
            ("H0100203", WireError::WrongPartCount(3)),
            ("H0100403", WireError::WrongPartCount(3)),
            ("H0100502", WireError::WrongPartCount(2)),
            ("H0100603", WireError::WrongPartCount(3)),
        ] {
            assert_eq!(error_of(bytes.as_bytes()), error, "{bytes}");
        }
    }

    #[test]
    fn packets_that_do_not_belong_are_refused_with_the_reason() {
        for (kind, packets, error) in [
            (1, &[(1, &b"q"[..]), (3, b"x")][..], WireError::UnexpectedPart(3)),
            (1, &[(1, b"q"), (5, b"9")], WireError::UnexpectedPart(5)),
            (1, &[(1, b"q"), (1, b"q")], WireError::UnexpectedPart(1)),
            (1, &[(1, b"q"), (99, b"q")], WireError::UnexpectedPart(99)),
            (1, &[(1, b"q"), (5, b"9"), (6, b"n")], WireError::UnexpectedPart(6)),
            (1, &[(1, b"q"), (2, b"x"), (5, b"9"), (5, b"9")], WireError::UnexpectedPart(5)),
            (1, &[(1, b"q"), (2, b"x"), (5, b"-1")], WireError::NotANumber("time to live")),
            (1, &[(1, b"q"), (2, b"x"), (5, b"")], WireError::NotANumber("time to live")),
            (1, &[(1, b"q"), (2, b"x"), (6, b"")], WireError::OutOfRange("correlation length")),
            (1, &[(1, b"q"), (2, b"x"), (6, &[0; 65])], WireError::TooLong("correlation", 64)),
            (1, &[(1, b""), (2, b"x")], WireError::QueueName(QueueNameError::Empty)),
            (
                1,
                &[(1, &[b'q'; 201]), (2, b"x")],
                WireError::QueueName(QueueNameError::TooLong(201)),
            ),
            (1, &[(1, b"a\nb"), (2, b"x")], WireError::QueueName(QueueNameError::ControlCharacter)),
            (1, &[(1, b"\xff"), (2, b"x")], WireError::QueueName(QueueNameError::NotUtf8)),
            (2, &[(1, b"q"), (2, b"x")], WireError::UnexpectedPart(2)),
            (2, &[(1, b"q"), (4, b"+5")], WireError::NotANumber("window")),
            (2, &[(1, b"q"), (4, &[b'0'; 21])], WireError::TooLong("number", 20)),
            (4, &[(1, b"q"), (3, &[b'0'; 33])], WireError::TooLong("message id", 32)),
            (4, &[(1, b"q"), (5, b"9")], WireError::UnexpectedPart(5)),
            (6, &[(3, b"0"), (3, b"0")], WireError::UnexpectedPart(3)),
        ] {
            assert_eq!(error_of(&message(kind, packets)), error, "{kind} {packets:?}");
        }
    }

    #[test]
    fn packet_headers_that_are_none_are_refused_with_the_reason() {
        for (bytes, error) in [
            ("H0100102X", WireError::BadMagic),
            ("H0100102H0100102", WireError::BadMagic),
            ("H0100102Px100000000000000000000000000001", WireError::NotANumber("packet type")),
            ("H0100102P01000000000000000000000000000 1", WireError::NotANumber("content length")),
            ("H0100102P010000000000000000000000000000x", WireError::NotANumber("content length")),
        ] {
            assert_eq!(error_of(bytes.as_bytes()), error, "{bytes}");
        }
    }

    #[test]
    fn what_was_whole_before_a_fault_stands() {
        let mut bytes = message(1, &[(1, b"q"), (2, b"x")]);
        bytes.extend_from_slice(b"garbage");
        let (requests, error) = decode(&bytes);
        assert_eq!(requests.len(), 2);
        assert_eq!(error, Some(WireError::BadMagic));
    }

    #[test]
    fn a_full_batch_stops_the_decoder_and_nothing_is_lost() {
        let bytes = message(1, &[(1, b"q"), (2, b"x")]).repeat(700);
        let mut decoder = decoder(None);
        let (mut rest, mut sizes) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let mut requests = Requests::default();
            let taken = decoder.decode(Time(0), rest, &mut requests).unwrap();
            rest = &rest[taken..];
            sizes.push(requests.take().len());
        }
        assert_eq!(sizes, [256, 256, 189]);
    }

    #[test]
    fn an_unfinished_message_is_pending_and_a_finished_one_is_not() {
        let bytes = message(1, &[(1, b"q"), (2, b"x")]);
        let mut decoder = decoder(None);
        let mut requests = Requests::default();
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.pending_bytes(), index);
            decoder.decode(Time(0), &[*byte], &mut requests).unwrap();
        }
        assert_eq!(decoder.pending_bytes(), 0);
        assert_eq!(requests.len(), 2);
    }
}
