//! Deduplication keys: what a sender calls a message so that the same one is not queued twice.

use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::KEY_BYTES_MAX;
use crate::words::short_bytes::ShortBytes;

/// A key: 1 to [`KEY_BYTES_MAX`] bytes of any kind, compared byte for byte within one queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(ShortBytes);

impl Key {
    /// A key of these bytes, unless they are none or too many.
    pub fn new(bytes: &[u8]) -> Option<Key> {
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then(|| Key(ShortBytes::from(bytes)))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// How long a key is taken by the message that was put with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTerm {
    /// Until the message is handed out for the first time.
    UntilTaken,
    /// Until the message is gone.
    UntilDone,
    /// For so many milliseconds, whatever becomes of the message.
    For(u64),
}

/// The key of a message that is to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedBy {
    /// The key.
    pub key: Key,
    /// How long it is taken.
    pub term: KeyTerm,
}

/// A queue in which a key is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFound {
    /// The queue.
    pub queue: QueueName,
    /// The message that has taken it; `None` once the key has outlived that.
    pub message: Option<MessageId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_1_to_255_bytes() {
        let key = |length: usize| Key::new(&vec![b'k'; length]);
        assert!(key(0).is_none() && key(KEY_BYTES_MAX + 1).is_none());
        assert_eq!(key(1).unwrap().as_slice(), b"k");
        assert_eq!(key(KEY_BYTES_MAX).unwrap().as_slice().len(), KEY_BYTES_MAX);
    }
}
