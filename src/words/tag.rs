//! What a protocol wants back beside an answer or a message: bytes that the core carries unread.
//!
//! A decoder attaches a tag to a request, the engine and the dispatcher move it along, and the
//! encoder of the same connection reads it: a receipt id, a correlation, a note on how to answer.

use crate::words::short_bytes::ShortBytes;

/// What the protocol wants back beside the answer; the core never looks into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// Nothing.
    #[default]
    None,
    /// A number of the protocol's own.
    Code(u64),
    /// Bytes of the protocol's own.
    Bytes(ShortBytes),
}

impl Tag {
    /// A tag of these bytes.
    pub fn bytes(bytes: &[u8]) -> Tag {
        Tag::Bytes(ShortBytes::from(bytes))
    }
}

const _: () = assert!(size_of::<Tag>() == 24, "a tag is moved along with every request");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_equal_when_their_bytes_are() {
        assert_eq!(Tag::bytes(b"a"), Tag::bytes(b"a"));
        assert_ne!(Tag::bytes(b"a"), Tag::bytes(b"a\0"));
        assert_ne!(Tag::bytes(b""), Tag::None);
    }

    #[test]
    fn a_tag_is_shown_as_text_that_cannot_break_a_line() {
        assert_eq!(format!("{:?}", Tag::bytes(b"n\n\xff")), "Bytes(\"n\\n\\xff\")");
    }
}
