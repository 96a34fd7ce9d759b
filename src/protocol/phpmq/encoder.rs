//! Deliveries and confirmations out as php-mq bytes.

use crate::protocol;
use crate::words::command::{Delivery, Handing, Reply, Tag};
use crate::words::output::Output;
use crate::words::short_bytes::ShortBytes;

use super::{
    MessageKey, PACKET_HEADER_BYTES, Packet, REVISION_1, REVISION_2, REVISION_ATTRIBUTE,
    WIRE_ID_BYTES,
};

/// Encodes for one connection.
pub(super) struct Encoder {
    key: MessageKey,
    /// The connection's revision, once it is pinned or the decoder has learnt it.
    revision: Option<u8>,
}

impl Encoder {
    pub(super) fn new(key: MessageKey, revision: Option<u8>) -> Encoder {
        Encoder { key, revision }
    }

    /// The connection's revision, else that of the message, else that of the published clients.
    fn revision_for(&self, delivery: &Delivery<'_>) -> u8 {
        self.revision.unwrap_or_else(|| match delivery.attributes.find(REVISION_ATTRIBUTE) {
            Some(b"2") => REVISION_2,
            _ => REVISION_1,
        })
    }
}

impl protocol::Encoder for Encoder {
    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output) {
        let out = out.buffer();
        match (tag, reply) {
            (Tag::Code(revision), Reply::Echo) => self.revision = u8::try_from(*revision).ok(),
            (Tag::Bytes(correlation), Reply::Put(id) | Reply::Joined(Some(id))) => {
                confirm(&self.key.write(*id), correlation, out);
            }
            // The message that it joined is gone.
            (Tag::Bytes(correlation), Reply::Joined(None)) => {
                confirm(&[b'0'; WIRE_ID_BYTES], correlation, out);
            }
            (Tag::Bytes(correlation), Reply::Refused(refusal)) => {
                out.extend_from_slice(b"H0100802");
                packet(Packet::Correlation, correlation.as_slice(), out);
                packet(Packet::Body, refusal.to_string().as_bytes(), out);
            }
            // Nothing else is answered, and nothing without having been asked for.
            _ => {}
        }
    }

    fn deliver(&mut self, _tag: &Tag, delivery: &Delivery<'_>, out: &mut Output) {
        debug_assert_eq!(delivery.handing, Handing::Dispatched, "php-mq has windows only");
        let revision = self.revision_for(delivery);
        let queue = delivery.queue.as_str().as_bytes();
        let head = out.buffer();
        head.reserve(5 * PACKET_HEADER_BYTES + queue.len() + 64);
        head.extend_from_slice(if revision == REVISION_2 { b"H0100304" } else { b"H0100303" });
        packet(Packet::Queue, queue, head);
        packet_header(Packet::Body, delivery.body.len(), head);
        out.body(delivery.body);
        let tail = out.buffer();
        packet(Packet::Id, &self.key.write(delivery.id), tail);
        if revision == REVISION_2 {
            let mut digits = [b'0'; 20];
            let seconds =
                delivery.time_to_live_ms.map_or(0, |left_ms| left_ms.div_ceil(1_000).max(1));
            let first = write_decimal(seconds, &mut digits);
            packet(Packet::TimeToLive, digits.get(first..).unwrap_or_default(), tail);
        }
    }
}

fn confirm(id: &[u8; WIRE_ID_BYTES], correlation: &ShortBytes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"H0100702");
    packet(Packet::Id, id, out);
    packet(Packet::Correlation, correlation.as_slice(), out);
}

fn packet(packet: Packet, content: &[u8], out: &mut Vec<u8>) {
    packet_header(packet, content.len(), out);
    out.extend_from_slice(content);
}

fn packet_header(packet: Packet, content_bytes: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"P0000000000000000000000000000000");
    // Written in its place: a header made elsewhere byte by byte costs more to copy than to make.
    if let Some(header) = out.get_mut(start..) {
        write_decimal(content_bytes as u64, header);
        if let Some(kind) = header.get_mut(2) {
            *kind = b'0' + packet as u8;
        }
    }
}

/// Writes the digits at the end of `place`, and returns where they begin. Zero is one digit.
fn write_decimal(mut number: u64, place: &mut [u8]) -> usize {
    let mut first = place.len();
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Encoder as _;
    use crate::words::body::BodyRef;
    use crate::words::change::Attributes;
    use crate::words::ids::{MessageId, QueueName};
    use crate::words::refusal::Refusal;

    fn encoder(revision: Option<u8>) -> Encoder {
        Encoder::new(MessageKey::new(&[7; 16]), revision)
    }

    fn sent_in(revision: u8) -> Attributes {
        let mut attributes = Attributes::default();
        if revision == REVISION_2 {
            attributes.push(REVISION_ATTRIBUTE, b"2");
        }
        attributes
    }

    fn delivered(encoder: &mut Encoder, attributes: &Attributes, left_ms: Option<u64>) -> String {
        let mut out = Output::default();
        let delivery = Delivery {
            handing: Handing::Dispatched,
            id: MessageId(1),
            queue: &QueueName::new(b"jobs").unwrap(),
            priority: 1_024,
            time_to_live_ms: left_ms,
            reserves: 1,
            is_volatile: false,
            attributes,
            body: BodyRef::Lent(b"hello world!"),
        };
        encoder.deliver(&Tag::None, &delivery, &mut out);
        String::from_utf8(out.buffer().clone()).unwrap()
    }

    fn replied(encoder: &mut Encoder, tag: Tag, reply: Reply) -> Vec<u8> {
        let mut out = Output::default();
        encoder.reply(&tag, &reply, &mut out);
        out.buffer().clone()
    }

    fn id_text() -> String {
        String::from_utf8(MessageKey::new(&[7; 16]).write(MessageId(1)).to_vec()).unwrap()
    }

    fn dispatch_1() -> String {
        format!(
            "H0100303P0100000000000000000000000000004jobs\
             P0200000000000000000000000000012hello world!\
             P0300000000000000000000000000032{}",
            id_text()
        )
    }

    fn dispatch_2(seconds: &str) -> String {
        format!(
            "{}P05{:029}{seconds}",
            dispatch_1().replacen("H0100303", "H0100304", 1),
            seconds.len()
        )
    }

    #[test]
    fn a_connection_that_shows_nothing_gets_each_message_in_its_own_revision() {
        let mut encoder = encoder(None);
        assert_eq!(delivered(&mut encoder, &sent_in(1), None), dispatch_1());
        assert_eq!(delivered(&mut encoder, &sent_in(2), None), dispatch_2("0"));
    }

    #[test]
    fn a_connection_that_showed_its_revision_is_served_in_it() {
        for (revision, expected) in [(1, dispatch_1()), (2, dispatch_2("0"))] {
            let mut encoder = encoder(None);
            assert_eq!(replied(&mut encoder, Tag::Code(revision), Reply::Echo), b"");
            assert_eq!(delivered(&mut encoder, &sent_in(1), None), expected);
            assert_eq!(delivered(&mut encoder, &sent_in(2), None), expected);
        }
    }

    #[test]
    fn a_pinned_connection_is_served_in_that_revision() {
        assert_eq!(delivered(&mut encoder(Some(1)), &sent_in(2), None), dispatch_1());
        assert_eq!(delivered(&mut encoder(Some(2)), &sent_in(1), None), dispatch_2("0"));
    }

    #[test]
    fn a_time_to_live_is_the_seconds_left_rounded_up_and_at_least_1() {
        for (left_ms, seconds) in [
            (Some(0), "1"),
            (Some(1), "1"),
            (Some(1_000), "1"),
            (Some(1_001), "2"),
            (Some(86_400_000), "86400"),
            (Some(u64::MAX), "18446744073709552"),
            (None, "0"),
        ] {
            let text = delivered(&mut encoder(Some(2)), &sent_in(2), left_ms);
            assert_eq!(text, dispatch_2(seconds), "{left_ms:?}");
        }
    }

    #[test]
    fn a_confirmation_brings_the_id_and_the_correlation() {
        let out = replied(&mut encoder(None), Tag::bytes(b"n\xff"), Reply::Put(MessageId(1)));
        let mut expected = format!(
            "H0100702P0300000000000000000000000000032{}P0600000000000000000000000000002n",
            id_text()
        )
        .into_bytes();
        expected.push(0xff);
        assert_eq!(out, expected);
    }

    #[test]
    fn who_joins_a_message_is_told_which_one_or_none_when_that_is_gone() {
        let joined = |id| replied(&mut encoder(None), Tag::bytes(b"n"), Reply::Joined(id));
        let put = replied(&mut encoder(None), Tag::bytes(b"n"), Reply::Put(MessageId(1)));
        assert_eq!(joined(Some(MessageId(1))), put);
        let none = String::from_utf8(put).unwrap().replace(&id_text(), &"0".repeat(32));
        assert_eq!(String::from_utf8(joined(None)).unwrap(), none);
    }

    #[test]
    fn a_refusal_brings_the_correlation_and_the_reason() {
        let refused = Reply::Refused(Refusal::OutOfMemory);
        let out = replied(&mut encoder(None), Tag::bytes(b"n"), refused);
        let expected = "H0100802P0600000000000000000000000000001n\
                        P0200000000000000000000000000028limits.max_memory is reached";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn who_did_not_ask_gets_no_answer() {
        let mut encoder = encoder(None);
        for reply in [
            Reply::Put(MessageId(1)),
            Reply::Acknowledged,
            Reply::NotHeld,
            Reply::Released,
            Reply::Buried,
            Reply::Refused(Refusal::Draining),
        ] {
            assert_eq!(replied(&mut encoder, Tag::None, reply), b"");
        }
    }
}
