//! The record format: what a row's bytes say of its columns.
//!
//! The bytes may be anything at all: nothing here trusts a length before it was compared with what
//! is there.

use rusqlite::types::ValueRef;

/// More columns than any of our tables has.
const COLUMNS_MAX: usize = 24;

/// A number of 1 to 9 bytes, and how many they are.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some(((value << 8) | u64::from(*byte), 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The types of a row's columns, which stand before their values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    types: [u64; COLUMNS_MAX],
    columns: usize,
    bytes: usize,
}

impl Header {
    /// Reads it from the beginning of a row that claims this length; `None` when that is not what
    /// its columns have.
    pub fn of(payload: &[u8], payload_bytes: u64) -> Option<Header> {
        let (header_bytes, mut at) = varint(payload)?;
        let bytes = usize::try_from(header_bytes).ok().filter(|bytes| *bytes <= payload.len())?;
        let mut header = Header { types: [0; COLUMNS_MAX], columns: 0, bytes };
        let mut total = header_bytes;
        while at < bytes {
            let (serial_type, length) = varint(&payload[at..bytes])?;
            *header.types.get_mut(header.columns)? = serial_type;
            header.columns += 1;
            at += length;
            total = total.checked_add(value_bytes(serial_type)?)?;
        }
        (at == bytes && total == payload_bytes).then_some(header)
    }

    /// How each column is stored.
    pub fn columns(&self) -> impl Iterator<Item = Stored> + '_ {
        self.types[..self.columns].iter().map(|serial_type| match serial_type {
            0 => Stored::Null,
            7 => Stored::Real,
            1..=9 => Stored::Integer,
            blob if blob.is_multiple_of(2) => Stored::Blob,
            _ => Stored::Text,
        })
    }

    /// The values. Of a row whose end is missing, those that are cut are as long as they are there.
    pub fn values<'a>(&self, payload: &'a [u8]) -> Vec<ValueRef<'a>> {
        let mut rest = payload.get(self.bytes..).unwrap_or_default();
        let values = self.types[..self.columns].iter().map(|serial_type| {
            let length = value_bytes(*serial_type).and_then(|bytes| usize::try_from(bytes).ok());
            let (bytes, after) = rest.split_at(length.unwrap_or(usize::MAX).min(rest.len()));
            rest = after;
            match serial_type {
                0 => ValueRef::Null,
                7 => ValueRef::Real(f64::from_bits(integer(bytes).cast_unsigned())),
                8 => ValueRef::Integer(0),
                9 => ValueRef::Integer(1),
                1..=6 => ValueRef::Integer(integer(bytes)),
                blob if blob.is_multiple_of(2) => ValueRef::Blob(bytes),
                _ => ValueRef::Text(bytes),
            }
        });
        values.collect()
    }
}

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Null,
    Integer,
    Real,
    Text,
    Blob,
}

fn value_bytes(serial_type: u64) -> Option<u64> {
    match serial_type {
        0 | 8 | 9 => Some(0),
        1..=4 => Some(serial_type),
        5 => Some(6),
        6 | 7 => Some(8),
        10 | 11 => None,
        _ => Some((serial_type - 12) / 2),
    }
}

/// Big-endian, with the sign of its first byte.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |value, byte| (value << 8) | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_lengths_are_read() {
        assert_eq!(varint(&[0x05]), Some((5, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
        assert_eq!(varint(&[]), None);
        assert_eq!(integer(&[0xff, 0xfe]), -2);
        assert_eq!(integer(&[0x01, 0x00]), 256);
        assert_eq!(integer(&[0x80, 0, 0, 0, 0, 0, 0, 0]), i64::MIN);
    }

    #[test]
    fn a_row_is_as_long_as_its_columns_say() {
        // NULL, 1 byte, text of 2, blob of 3.
        let row = [5, 0, 1, 17, 18, 7, b'h', b'i', 1, 2, 3];
        let header = Header::of(&row, 11).unwrap();
        assert_eq!(
            header.columns().collect::<Vec<_>>(),
            [Stored::Null, Stored::Integer, Stored::Text, Stored::Blob]
        );
        let values = [
            ValueRef::Null,
            ValueRef::Integer(7),
            ValueRef::Text(b"hi"),
            ValueRef::Blob(&[1, 2, 3]),
        ];
        assert_eq!(header.values(&row), values);
        assert!(Header::of(&row, 12).is_none());
        assert!(Header::of(&row[..4], 11).is_none(), "the header has to be there");
        assert_eq!(header.values(&row[..9])[3], ValueRef::Blob(&[1]), "cut");
    }

    #[test]
    fn too_many_columns_and_reserved_types_are_no_row() {
        assert!(Header::of(&[18; 20], 18).is_none());
        assert!(Header::of(&[2, 10], 2).is_none());
    }
}
