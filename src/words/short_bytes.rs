//! Bytes that are a few as a rule, and then take no allocation: tags, keys of subscriptions.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// As many bytes as lie in the value itself; longer ones take an allocation.
///
/// The number follows from the size of a request, which is moved several times on its way and has
/// one of these: two bytes more would make every request eight bytes larger.
pub const INLINE_BYTES: usize = 22;

/// Bytes of a protocol's own, which the core only compares.
#[derive(Clone)]
pub struct ShortBytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl ShortBytes {
    /// The bytes, in a slice.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            // Invariant: the length was that of bytes that fit in here.
            Repr::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Repr::Boxed(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for ShortBytes {
    fn from(given: &[u8]) -> ShortBytes {
        let mut bytes = [0; INLINE_BYTES];
        match (u8::try_from(given.len()), bytes.get_mut(..given.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(given);
                ShortBytes(Repr::Inline { length, bytes })
            }
            _ => ShortBytes(Repr::Boxed(given.into())),
        }
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &ShortBytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ShortBytes {}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &ShortBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &ShortBytes) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for ShortBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_come_back_unchanged() {
        for length in [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300] {
            let given: Vec<u8> = (0..length).map(|number| (number % 256) as u8).collect();
            let bytes = ShortBytes::from(&given[..]);
            assert_eq!(bytes.as_slice(), given);
            assert_eq!(bytes.clone(), bytes);
            assert_eq!(matches!(bytes.0, Repr::Boxed(_)), length > INLINE_BYTES);
        }
    }

    #[test]
    fn bytes_are_ordered_as_slices_are_wherever_they_lie() {
        let bytes = |text: &str| ShortBytes::from(text.as_bytes());
        let long = "a".repeat(INLINE_BYTES + 1);
        assert!(bytes("a") < bytes(&long) && bytes(&long) < bytes("b"));
    }
}
