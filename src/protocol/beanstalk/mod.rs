//! The beanstalk protocol of beanstalkd 1.12, so that its clients work unmodified.
//!
//! A *tube* is a queue, a *job* is a message. `decoder` turns command lines and bodies into
//! requests, `encoder` turns answers into reply lines, `yaml` writes the three kinds of
//! statistics. Where beanstalkd's protocol text is silent, what beanstalkd 1.12 does was tried out
//! and is done here too: the comments say where that is surprising.
//!
//! Beyond the original: `flush-tube <tube>` is answered by `FLUSHED <count>`, and
//! `reserve-batch <count> <seconds>` by `RESERVED_BATCH <count>` and that many `RESERVED` replies.
//!
//! Failure: a bad line is answered in its turn and the connection lives. Only the start of an HTTP
//! request ends it, since a web page can make a browser send one.

mod decoder;
mod encoder;
mod line;
mod yaml;

use std::sync::Arc;

use crate::protocol::{Halves, Manner, Protocol, Setup};
use crate::words::command::{SubscriptionKey, Tag};

/// The row of the protocol table.
pub const PROTOCOL: Protocol = Protocol {
    name: "beanstalk",
    default_address: "127.0.0.1:11300",
    default_socket: None,
    manner: Manner::Serial,
    port_shared_with: None,
    first_queue: Some((FIRST_TUBE, WATCH_LIST_NUMBER)),
    options: &[],
    connect,
    // The original has no word for it; clients know this one as "try again later".
    too_many_connections: b"OUT_OF_MEMORY\r\n",
};

/// The queue that a connection uses and watches before it names one.
const FIRST_TUBE: &str = "default";
/// The subscription whose queues are the watched tubes.
const WATCH_LIST: SubscriptionKey = SubscriptionKey::Number(WATCH_LIST_NUMBER);
const WATCH_LIST_NUMBER: u64 = 0;
/// The longest tube name, in bytes.
const TUBE_BYTES_MAX: usize = 200;

fn connect(setup: &Setup) -> Halves {
    (
        Box::new(decoder::BeanstalkDecoder::new(Arc::clone(&setup.limits))),
        Box::new(encoder::BeanstalkEncoder::new(Arc::clone(&setup.limits))),
    )
}

/// What the decoder tells the encoder through the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    BadFormat,
    UnknownCommand,
    ExpectedCrlf,
    /// A batch of at most one job is wanted: its answer looks like that of a larger one.
    BatchOfOne,
}

impl Note {
    const ALL: [Note; 4] =
        [Note::BadFormat, Note::UnknownCommand, Note::ExpectedCrlf, Note::BatchOfOne];

    fn tag(self) -> Tag {
        Tag::Code(self as u64)
    }

    fn of(tag: &Tag) -> Option<Note> {
        match tag {
            Tag::Code(code) => Note::ALL.into_iter().find(|note| *note as u64 == *code),
            Tag::None | Tag::Bytes(_) => None,
        }
    }
}

/// Whether a byte may stand in a tube's name.
fn is_tube_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-+/;.$_()".contains(&byte)
}

/// Whether these bytes are a tube's name. Queues of other names, made through other protocols,
/// are not listed and cannot be asked for.
fn is_tube_name(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first != b'-')
        && bytes.len() <= TUBE_BYTES_MAX
        && bytes.iter().all(|byte| is_tube_byte(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tube_names_are_those_of_the_protocol_text() {
        for name in ["a", "default", "A-Z", "0.5", "110234", "a+/;.$_()-", "+"] {
            assert!(is_tube_name(name.as_bytes()), "{name}");
        }
        assert!(is_tube_name(&[b'a'; 200]));
        assert!(!is_tube_name(&[b'a'; 201]));
        for name in ["", "-a", "a b", "a*", "a\0", "größe"] {
            assert!(!is_tube_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn notes_come_back_from_their_tags() {
        for note in Note::ALL {
            assert_eq!(Note::of(&note.tag()), Some(note));
        }
        assert_eq!(Note::of(&Tag::None), None);
        assert_eq!(Note::of(&Tag::Code(99)), None);
    }
}
