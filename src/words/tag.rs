//! What a protocol wants back beside an answer or a message: bytes that the core carries unread.
//!
//! A decoder attaches a tag to a request, the engine and the dispatcher move it along, and the
//! encoder of the same connection reads it: a receipt id, a correlation, a note on how to answer.

use std::fmt;

/// What the protocol wants back beside the answer; the core never looks into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// Nothing.
    #[default]
    None,
    /// A number of the protocol's own.
    Code(u64),
    /// Bytes of the protocol's own.
    Bytes(TagBytes),
}

impl Tag {
    /// A tag of these bytes.
    pub fn bytes(bytes: &[u8]) -> Tag {
        Tag::Bytes(TagBytes::from(bytes))
    }
}

/// As many bytes as lie in a tag itself; longer ones take an allocation.
///
/// The number follows from the size of a request, which is moved several times on its way: two
/// bytes more would make every request eight bytes larger.
pub const TAG_INLINE_BYTES: usize = 22;

const _: () = assert!(size_of::<Tag>() == 24, "a tag is moved along with every request");

/// The bytes of a [`Tag`].
#[derive(Clone)]
pub struct TagBytes(Place);

#[derive(Clone)]
enum Place {
    Inline { length: u8, bytes: [u8; TAG_INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl TagBytes {
    /// The bytes, in a slice.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            // Invariant: the length was that of bytes that fit in here.
            Place::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Place::Boxed(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for TagBytes {
    fn from(given: &[u8]) -> TagBytes {
        let mut bytes = [0; TAG_INLINE_BYTES];
        match (u8::try_from(given.len()), bytes.get_mut(..given.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(given);
                TagBytes(Place::Inline { length, bytes })
            }
            _ => TagBytes(Place::Boxed(given.into())),
        }
    }
}

impl PartialEq for TagBytes {
    fn eq(&self, other: &TagBytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for TagBytes {}

impl fmt::Debug for TagBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_come_back_unchanged() {
        for length in [0, 1, TAG_INLINE_BYTES - 1, TAG_INLINE_BYTES, TAG_INLINE_BYTES + 1, 300] {
            let bytes: Vec<u8> = (0..length).map(|number| (number % 256) as u8).collect();
            let tag = TagBytes::from(&bytes[..]);
            assert_eq!(tag.as_slice(), bytes);
            assert_eq!(tag.clone(), tag);
            assert_eq!(matches!(tag.0, Place::Boxed(_)), length > TAG_INLINE_BYTES);
        }
    }

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
