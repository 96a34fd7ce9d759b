//! The php-mq protocol, both of its revisions at the same time: phpmq-protocol(7).
//!
//! ```text
//!   message = header packet*      header = "H" version(2) type(3) packet count(2)
//!                                 packet = "P" type(2) length(29) content
//! ```
//!
//! Both revisions carry the version `01`. A connection shows its revision by what it sends; one
//! that only consumes is served each message in the revision in which that message was sent. The
//! decoder tells the encoder what it learnt with an [`Echo`](crate::words::command::Command::Echo) ahead
//! of the request that showed it. Nothing that a client sends has an answer, but for a message
//! whose sender asked for a confirmation (our extension, packet type 06). Packets 07 and 08 are
//! ours too: a key under which a message is queued once, and for how long that holds.

mod decoder;
mod encoder;
mod ids;

use std::borrow::Cow;

use crate::protocol::options::{OptionValue, ProtocolOption};
use crate::protocol::{Halves, Manner, Protocol, Setup};

use self::ids::{MessageKey, WIRE_ID_BYTES};

/// The row of the table.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "phpmq",
    default_address: "127.0.0.1:9100",
    default_socket: None,
    manner: Manner::Streaming,
    port_shared_with: Some("Prometheus's node_exporter"),
    first_queue: None,
    options: &[REVISION],
    connect,
    // The protocol has no word for it: the close alone says so.
    too_many_connections: b"",
};

/// Pins all consumers of a listener to one revision.
const REVISION: ProtocolOption = ProtocolOption {
    name: "revision",
    takes: "\"auto\", 1 or 2",
    default: OptionValue::Text(Cow::Borrowed("auto")),
    accepts: |value| match value {
        OptionValue::Text(text) => text == "auto",
        OptionValue::Number(number) => pinned(*number).is_some(),
        OptionValue::Flag(_) | OptionValue::List(_) => false,
    },
};

/// Revision 1, of 2017: the published clients. No times to live.
const REVISION_1: u8 = 1;
/// Revision 2, of 2018: times to live, re-queue and dead letter.
const REVISION_2: u8 = 2;

/// The attribute of a message that was sent in another revision than 1.
const REVISION_ATTRIBUTE: &str = "phpmq.revision";

const MESSAGE_HEADER_BYTES: usize = 8;
const PACKET_HEADER_BYTES: usize = 32;
/// The longest correlation of a confirmation: room for a UUID in any spelling, or a hash.
const CORRELATION_BYTES_MAX: usize = 64;

/// The types of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Packet {
    Queue = 1,
    Body = 2,
    Id = 3,
    Window = 4,
    TimeToLive = 5,
    /// Ours: asks for a confirmation, and comes back in it.
    Correlation = 6,
    /// Ours: the key under which a message is queued once.
    Key = 7,
    /// Ours: for how many seconds the key is taken.
    KeyTime = 8,
}

impl Packet {
    /// Whether a message to be queued may go without it.
    fn is_optional(self) -> bool {
        matches!(self, Packet::TimeToLive | Packet::Correlation | Packet::Key | Packet::KeyTime)
    }
}

fn connect(setup: &Setup) -> Halves {
    let key = MessageKey::new(&setup.secret);
    let revision = match setup.options.get(REVISION.name) {
        Some(OptionValue::Number(number)) => pinned(*number),
        _ => None,
    };
    let decoder = decoder::Decoder::new(setup.limits.clone(), key.clone(), revision);
    (Box::new(decoder), Box::new(encoder::Encoder::new(key, revision)))
}

/// The revision of this number, if there is one.
fn pinned(number: u64) -> Option<u8> {
    [REVISION_1, REVISION_2].into_iter().find(|revision| u64::from(*revision) == number)
}

#[cfg(test)]
mod tests {
    use super::decoder::tests::{decoder, message, wire_id};
    use crate::protocol::wire::testing::{Random, decode_all, decode_in_parts};

    /// A conversation of whole messages, with sometimes a fault at its end.
    fn conversation(random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.below(20) {
            let queue = vec![b'a' + u8::try_from(random.below(3)).unwrap(); 1 + random.below(200)];
            let body = random.bytes(101);
            let id = wire_id(random.below(50) as u64);
            let number = random.below(100_000).to_string().into_bytes();
            let correlation = [b'c'; 64];
            let queue = (1, &queue[..]);
            let (key, time) = ((7, &[b'k'; 40][..]), (8, &number[..]));
            let mut packets = match random.below(10) {
                7 => (1, vec![queue, key, (2, &body)]),
                8 => (1, vec![queue, key, time, (2, &body), (5, &number), (6, &correlation)]),
                9 => (1, vec![time, key, (5, &number), queue, (2, &body)]),
                0 => (1, vec![queue, (2, &body)]),
                1 => (1, vec![queue, (2, &body), (5, &number)]),
                2 => (1, vec![queue, (2, &body), (5, &number), (6, &correlation)]),
                3 => (2, vec![queue, (4, &number)]),
                4 => (4, vec![queue, (3, &id)]),
                5 => (5, vec![queue, (3, &id), (5, &number)]),
                _ => (6, vec![queue, (3, &id)]),
            };
            if random.below(3) == 0 {
                packets.1.reverse();
            }
            bytes.extend(message(packets.0, &packets.1));
        }
        if random.below(4) == 0 && !bytes.is_empty() {
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
        }
        bytes
    }

    #[test]
    fn conversations_are_the_same_however_the_bytes_are_cut() {
        let mut random = Random::announced();
        for _ in 0..500 {
            let bytes = conversation(&mut random);
            let whole = decode_all(&mut decoder(None), &bytes);
            let cut = decode_in_parts(&mut decoder(None), &bytes, &mut random);
            assert_eq!(whole, cut);
        }
    }

    #[test]
    fn random_bytes_end_in_an_error_and_never_in_a_panic() {
        let mut random = Random::announced();
        for _ in 0..2_000 {
            let mut bytes = random.bytes(300);
            if random.below(2) == 0 {
                bytes.splice(0..0, *b"H0100102P01");
            }
            let (whole, cut) = (decode_all(&mut decoder(None), &bytes), {
                decode_in_parts(&mut decoder(None), &bytes, &mut random)
            });
            assert_eq!(whole, cut);
        }
    }
}
