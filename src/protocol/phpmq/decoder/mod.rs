//! php-mq bytes in, requests out.
//!
//! ```text
//!   Header ──► PacketHeader ──► Content ──last packet──► Header, with a request
//!                   ▲  ▲       refused │ │
//!                   │  └──── Skip ◄────┘ │
//!                   └────────────────────┘
//! ```
//!
//! A message that is larger than any that is accepted is skipped to its end and refused; its
//! connection stays. Every fault ends the connection; messages that were whole before it stand. Of an incomplete
//! message the decoder keeps the values read so far and the bytes of one unfinished piece.

use std::sync::Arc;

use crate::protocol::WireError;
use crate::protocol::wire::{Content, Piece, Rest, decimal};
use crate::words::change::Attributes;
use crate::words::clock::Time;
use crate::words::command::{
    Command, Extras, MessageRef, Options, Put, PutWith, Requests, SubscriptionKey, Tag, Target,
};
use crate::words::ids::{MessageId, QueueName, QueueNameError};
use crate::words::key::{Key, KeyTerm, KeyedBy};
use crate::words::limits::{KEY_BYTES_MAX, Limits, QUEUE_NAME_BYTES_MAX};
use crate::words::refusal::Refusal;
use crate::words::short_bytes::ShortBytes;

use super::{
    CORRELATION_BYTES_MAX, MESSAGE_HEADER_BYTES, MessageKey, PACKET_HEADER_BYTES, Packet,
    REVISION_1, REVISION_2, REVISION_ATTRIBUTE, WIRE_ID_BYTES,
};

/// Digits of a number: more than any value needs, leading zeros included.
const NUMBER_BYTES_MAX: usize = 20;
/// The longest time to live, in seconds: 30,000 years. A longer one is taken as this, so that a
/// moment in milliseconds never overflows.
const TIME_TO_LIVE_S_MAX: u64 = 1_000_000_000_000;
/// The largest body that is skipped where it is refused: a larger one is a fault, and no message.
const SKIPPED_BYTES_MAX: usize = u32::MAX as usize;
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
    Content {
        packet: Packet,
        length: usize,
    },
    /// So many bytes of a body that was refused.
    Skip(usize),
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
    seen: u16,
    queue: Option<QueueName>,
    body: Vec<u8>,
    /// Why the body was not kept, and how large it was announced to be.
    refused: Option<(Refusal, u64)>,
    id: MessageId,
    window: u32,
    time_to_live_ms: Option<u64>,
    correlation: Option<ShortBytes>,
    key: Option<Key>,
    key_time_ms: Option<u64>,
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
                // What cannot become a message is refused before it is whole.
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
            Stage::Skip(left) => {
                let (skipped, rest) = input.split_at(left.min(input.len()));
                *input = rest;
                self.skip(left - skipped.len(), requests)
            }
        }
    }

    /// So much of a refused body is still to be skipped.
    fn skip(&mut self, left: usize, requests: &mut Requests) -> Result<(), WireError> {
        self.stage = Stage::Skip(left);
        if left > 0 {
            return Ok(());
        }
        self.end_packet(Packet::Body, (&[]).into(), requests)
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
            1 => (Kind::Send, 2..=6),
            2 => (Kind::Consume, 2..=2),
            4 => (Kind::Acknowledge, 2..=2),
            5 => (Kind::Requeue, 3..=3),
            6 => (Kind::DeadLetter, 2..=2),
            other => return Err(unknown_type(other)),
        };
        if !counts.contains(&count) {
            return Err(wrong_packet_count(count));
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
            (Kind::Requeue | Kind::DeadLetter, _) => self.show(REVISION_2, requests),
            // With more packets those show it; consumers show nothing.
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
        if self.message.kind == Kind::Send && packet.is_optional() {
            if packet == Packet::TimeToLive {
                self.show(REVISION_2, requests);
            } else if self.message.optional_left == 0 && !self.message.has(Packet::TimeToLive) {
                self.show(REVISION_1, requests);
            }
        }
        let length = packet_length(length)?;
        self.check_length(packet, length)?;
        if packet == Packet::Body && length > self.limits.body_bytes_max() {
            self.message.refused = Some((Refusal::TooLarge, length as u64));
            return self.skip(length, requests);
        }
        self.stage = Stage::Content { packet, length };
        if length == 0 {
            return self.end_packet(packet, (&[]).into(), requests);
        }
        Ok(())
    }

    /// Invariant: what passes here may be gathered in memory, or skipped if it is a body.
    fn check_length(&self, packet: Packet, length: usize) -> Result<(), WireError> {
        let (what, max) = match packet {
            Packet::Queue if length > QUEUE_NAME_BYTES_MAX => {
                return Err(WireError::QueueName(QueueNameError::TooLong(length)));
            }
            Packet::Queue => return Ok(()),
            Packet::Body => ("message content", SKIPPED_BYTES_MAX),
            Packet::Id => ("message id", WIRE_ID_BYTES),
            Packet::Window | Packet::TimeToLive | Packet::KeyTime => ("number", NUMBER_BYTES_MAX),
            Packet::Correlation if length == 0 => {
                return Err(WireError::OutOfRange("correlation length"));
            }
            Packet::Correlation => ("correlation", CORRELATION_BYTES_MAX),
            Packet::Key if length == 0 => return Err(WireError::OutOfRange("key length")),
            Packet::Key => ("key", KEY_BYTES_MAX),
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
            Packet::Correlation => message.correlation = Some(ShortBytes::from(&*content)),
            Packet::Key => message.key = Key::new(&content),
            Packet::KeyTime => {
                let seconds = decimal(&content).ok_or(WireError::NotANumber("time of a key"))?;
                message.key_time_ms =
                    (seconds > 0).then(|| seconds.min(TIME_TO_LIVE_S_MAX) * 1_000);
            }
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
        let queue = message.queue.ok_or(unexpected_packet(0))?;
        if message.seen & bit(Packet::KeyTime) != 0 && message.key.is_none() {
            return Err(unexpected_packet(Packet::KeyTime as u16));
        }
        let (id, time_to_live_ms) = (message.id, message.time_to_live_ms);
        let mut tag = Tag::None;
        let command = match message.kind {
            Kind::Send => {
                if let Some(correlation) = message.correlation {
                    tag = Tag::Bytes(correlation);
                }
                if let Some((refusal, body_bytes)) = message.refused {
                    Command::PutRefused { refusal, body_bytes }
                } else {
                    let mut put = Put::new(Target::Named(queue), message.body);
                    put.time_to_live_ms = time_to_live_ms;
                    if message.seen & bit(Packet::TimeToLive) != 0 {
                        put.attributes = self.sent_in_revision_2.clone();
                    }
                    match message.key {
                        None => Command::Put(put),
                        Some(key) => {
                            let term = message.key_time_ms.map_or(KeyTerm::UntilDone, KeyTerm::For);
                            let keyed = Some(KeyedBy { key, term });
                            let extras = Extras { keyed, ..Extras::default() };
                            Command::PutWith(Box::new(PutWith { put, extras }))
                        }
                    }
                }
            }
            Kind::Consume => match message.window {
                0 => Command::Unsubscribe { key: SubscriptionKey::Queue, queue, keep_last: false },
                window => {
                    let options = Options::window(window);
                    Command::Subscribe { key: SubscriptionKey::Queue, queue, options }
                }
            },
            Kind::Acknowledge => Command::Acknowledge(MessageRef::IdOf(id, queue)),
            Kind::Requeue => {
                Command::Requeue { message: MessageRef::IdOf(id, queue), time_to_live_ms }
            }
            Kind::DeadLetter => {
                Command::Bury { message: MessageRef::IdOf(id, queue), priority: None }
            }
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
        let unexpected = unexpected_packet(number);
        let packet = match (number, self.kind) {
            (1, _) => Packet::Queue,
            (2, Kind::Send) => Packet::Body,
            (3, Kind::Acknowledge | Kind::Requeue | Kind::DeadLetter) => Packet::Id,
            (4, Kind::Consume) => Packet::Window,
            (5, Kind::Send | Kind::Requeue) => Packet::TimeToLive,
            (6, Kind::Send) => Packet::Correlation,
            // Before the body: else it would be unknown when that comes whether a correlation
            // follows, and so whether the message can be refused.
            (7, Kind::Send) if !self.has(Packet::Body) => Packet::Key,
            (8, Kind::Send) if !self.has(Packet::Body) => Packet::KeyTime,
            _ => return Err(unexpected),
        };
        if self.has(packet) {
            return Err(unexpected);
        }
        if self.kind == Kind::Send && packet.is_optional() {
            self.optional_left = self.optional_left.checked_sub(1).ok_or(unexpected)?;
        }
        self.seen |= bit(packet);
        Ok(packet)
    }

    /// Whether this packet has begun to come.
    fn has(&self, packet: Packet) -> bool {
        self.seen & bit(packet) != 0
    }

    /// Whether it has a correlation, which may be still to come behind the body: then nothing but
    /// that and a time to live can come.
    fn has_correlation(&self) -> bool {
        let may_be_time_to_live = u8::from(!self.has(Packet::TimeToLive));
        self.correlation.is_some()
            || self.has(Packet::Body) && self.optional_left > may_be_time_to_live
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
            let skips = matches!(self.stage, Stage::Skip(_));
            self.step(&mut input, requests)?;
            if matches!(self.stage, Stage::Header) && self.header.pending().is_empty() {
                self.message_bytes = 0;
            } else if !skips {
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

    fn can_be_refused(&self) -> bool {
        self.message.has_correlation()
    }

    fn refuse(&mut self, refusal: Refusal, _requests: &mut Requests) {
        if let Stage::Content { packet: Packet::Body, length } = self.stage {
            let missing = length.saturating_sub(self.content.pending_bytes());
            self.content = Content::default();
            self.message.refused = Some((refusal, length as u64));
            self.stage = Stage::Skip(missing);
        }
    }

    fn pending_bytes(&self) -> usize {
        self.message_bytes + self.content.pending_bytes()
    }
}

fn bit(packet: Packet) -> u16 {
    1 << (packet as u16)
}

/// A message type that does not exist or that a client may not send.
fn unknown_type(number: u16) -> WireError {
    WireError::Fault("the message type {} is unknown", number.into())
}

/// A number of packets that this kind of message cannot have.
fn wrong_packet_count(count: u8) -> WireError {
    WireError::Fault("{} parts do not fit the message type", count.into())
}

/// A packet that this kind of message does not have, or has already.
fn unexpected_packet(number: u16) -> WireError {
    WireError::Fault("a part of type {} does not belong here", number.into())
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
pub(super) mod tests;
