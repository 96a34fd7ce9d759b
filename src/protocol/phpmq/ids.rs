//! Message ids as php-mq writes them: 32 hexadecimal digits that can be checked without a table.
//!
//! The first 16 digits are the message's id, the other 16 a keyed hash of it. The key is kept in
//! the database, so that ids stay valid over a restart and nobody guesses one he was not given.

use siphasher::sip::SipHasher;

use crate::words::ids::MessageId;

/// Digits of an id on the wire.
pub(super) const WIRE_ID_BYTES: usize = 32;

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

/// The key that makes and checks ids.
#[derive(Clone, Debug)]
pub(super) struct MessageKey(SipHasher);

impl MessageKey {
    pub(super) fn new(key: &[u8; 16]) -> MessageKey {
        MessageKey(SipHasher::new_with_key(key))
    }

    /// The id as it is written.
    pub(super) fn write(&self, id: MessageId) -> [u8; WIRE_ID_BYTES] {
        let mut text = [0; WIRE_ID_BYTES];
        let both = (u128::from(id.0) << 64) | u128::from(self.hash(id));
        for (digits, byte) in text.chunks_exact_mut(2).zip(both.to_be_bytes()) {
            digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        text
    }

    /// The id that was written so; `None` when this key has not written it.
    pub(super) fn read(&self, text: &[u8]) -> Option<MessageId> {
        let text: &[u8; WIRE_ID_BYTES] = text.try_into().ok()?;
        let (id, hash) = text.split_first_chunk::<16>()?;
        let id = MessageId(hexadecimal(id)?);
        (hexadecimal(hash)? == self.hash(id)).then_some(id)
    }

    fn hash(&self, id: MessageId) -> u64 {
        self.0.hash(&id.0.to_be_bytes())
    }
}

fn digit(value: u8) -> u8 {
    HEXADECIMAL.get(usize::from(value)).copied().unwrap_or_default()
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, byte| {
        Some((number << 4) | u64::from(char::from(*byte).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let key = MessageKey::new(b"0123456789abcdef");
        for id in [1, 255, u64::MAX] {
            let text = key.write(MessageId(id));
            assert!(text.starts_with(format!("{id:016x}").as_bytes()));
            assert_eq!(key.read(&text), Some(MessageId(id)));
            assert_eq!(key.read(&text.to_ascii_uppercase()), Some(MessageId(id)));
        }
    }

    #[test]
    fn ids_of_another_key_or_with_a_changed_digit_do_not_check() {
        let key = MessageKey::new(b"0123456789abcdef");
        let text = key.write(MessageId(77));
        assert_eq!(MessageKey::new(b"fedcba9876543210").read(&text), None);
        for place in 0..WIRE_ID_BYTES {
            let mut other = text;
            other[place] = if other[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(key.read(&other), None);
        }
    }

    #[test]
    fn what_is_no_hexadecimal_id_does_not_check() {
        let key = MessageKey::new(&[0; 16]);
        assert_eq!(key.read(b""), None);
        assert_eq!(key.read(&[b'g'; 32]), None);
        assert_eq!(key.read(&[b'0'; 31]), None);
        assert_eq!(key.read(&[b'+'; 32]), None);
    }
}
