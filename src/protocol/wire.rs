//! What the protocols read their bytes with: bounded pieces and numbers.
//!
//! Each reader hands a piece out of the input itself when it lies there whole, and copies only
//! what is incomplete; each holds at most what it was made for, however much was announced.

use std::borrow::Cow;
use std::collections::TryReserveError;

use crate::words::limits::{BODY_REST_BYTES_MIN, READ_SMALL_BYTES};

/// A piece of exactly `N` bytes, such as a header.
#[derive(Debug)]
pub struct Piece<const N: usize> {
    kept: [u8; N],
    kept_len: usize,
}

impl<const N: usize> Default for Piece<N> {
    fn default() -> Piece<N> {
        Piece { kept: [0; N], kept_len: 0 }
    }
}

impl<const N: usize> Piece<N> {
    /// Takes from the front of `input` what is missing; the piece once it is whole.
    pub fn take<'a>(&mut self, input: &mut &'a [u8]) -> Option<Cow<'a, [u8; N]>> {
        if self.kept_len == 0
            && let Some((piece, rest)) = input.split_first_chunk::<N>()
        {
            *input = rest;
            return Some(Cow::Borrowed(piece));
        }
        let missing = self.kept.get_mut(self.kept_len..).unwrap_or_default();
        let (taken, rest) = input.split_at(missing.len().min(input.len()));
        if let Some(place) = missing.get_mut(..taken.len()) {
            place.copy_from_slice(taken);
        }
        *input = rest;
        self.kept_len += taken.len();
        if self.kept_len < N {
            return None;
        }
        self.kept_len = 0;
        Some(Cow::Owned(self.kept))
    }

    /// The bytes kept of an incomplete piece.
    pub fn pending(&self) -> &[u8] {
        self.kept.get(..self.kept_len).unwrap_or_default()
    }
}

/// Content of an announced length.
#[derive(Debug, Default)]
pub struct Content {
    kept: Vec<u8>,
}

impl Content {
    /// Takes from the front of `input` what is missing of `length` bytes; the content once it is
    /// whole. The caller has checked the length against its limit.
    pub fn take<'a>(&mut self, length: usize, input: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if self.kept.is_empty()
            && let Some((content, rest)) = input.split_at_checked(length)
        {
            *input = rest;
            return Some(Cow::Borrowed(content));
        }
        let missing = length.saturating_sub(self.kept.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        if self.kept.capacity() - self.kept.len() < taken.len() {
            // Doubling like a Vec would, but never beyond the length: by then half has arrived.
            self.kept.reserve_exact(taken.len().max(self.kept.len()).min(missing));
        }
        self.kept.extend_from_slice(taken);
        (self.kept.len() >= length).then(|| Cow::Owned(std::mem::take(&mut self.kept)))
    }

    /// Where the rest goes of content of this length, for who brings it without `take`; that gives
    /// it out when all is there.
    pub fn rest(&mut self, length: usize) -> Rest<'_> {
        let missing = length.saturating_sub(self.kept.len());
        Rest { bytes: &mut self.kept, missing }
    }

    /// Bytes kept of incomplete content.
    pub fn pending_bytes(&self) -> usize {
        self.kept.len()
    }

    /// Bytes that it takes in memory.
    pub fn capacity(&self) -> usize {
        self.kept.capacity()
    }
}

/// The place for the rest of incomplete content.
pub struct Rest<'a> {
    /// What there is of it, to be appended to.
    pub bytes: &'a mut Vec<u8>,
    /// How many bytes are missing.
    pub missing: usize,
}

impl Rest<'_> {
    /// Makes room for more, when so many bytes have arrived that are not in it yet. That they have
    /// been announced alone takes no memory.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub fn make_room(&mut self, arrived: usize) -> Result<(), TryReserveError> {
        let mut room = arrived.max(self.bytes.len()).max(READ_SMALL_BYTES).min(self.missing);
        if self.missing - room < BODY_REST_BYTES_MIN {
            // The little that is left is decoded, where growing must not fail.
            room = self.missing;
        }
        self.bytes.try_reserve_exact(room)
    }
}

/// The number that these decimal digits write, `u64::MAX` when it is larger than that; `None`
/// when there is no digit or something else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    // Up to 19 digits fit whatever they are; only a longer number needs care.
    let (fits, more) = digits.split_at(digits.len().min(19));
    let (mut number, mut wrong) = (0_u64, false);
    for byte in fits {
        let digit = byte.wrapping_sub(b'0');
        wrong |= digit > 9;
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    for byte in more {
        let digit = byte.wrapping_sub(b'0');
        wrong |= digit > 9;
        number = number.saturating_mul(10).saturating_add(u64::from(digit));
    }
    (!wrong).then_some(number)
}

/// Whether a line is the first of an HTTP request, or its `Host:` header.
///
/// A web page can make a browser send a request to a loopback port, and lines of the request's
/// body would then be commands: a protocol of lines ends the connection when it sees one of these.
pub fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
        b"PRI ",
    ];
    // "PUT 0 0 60 1" is a mistake of somebody's own; a browser asks for a path or an address.
    let target = METHODS.iter().find_map(|method| line.strip_prefix(*method)).unwrap_or_default();
    [&b"/"[..], b"*", b"http"].iter().any(|start| target.starts_with(start))
        || line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
        || line.windows(6).any(|part| part == b" HTTP/")
}

/// What the tests of all protocols share: a seeded generator, and decoding in one go and in parts.
#[cfg(test)]
pub(crate) mod testing {
    use crate::protocol::{Decoder, WireError};
    use crate::words::clock::{Clock, Time};
    use crate::words::command::{Request, Requests};

    /// A small generator (splitmix64): the same seed gives the same run.
    pub(crate) struct Random(u64);

    impl Random {
        /// Seeded from `PHPMQ_SEED` or the clock; the seed is printed when the test fails.
        pub(crate) fn announced() -> Random {
            let given = std::env::var("PHPMQ_SEED").ok().and_then(|seed| seed.parse().ok());
            let seed = given.unwrap_or_else(|| Clock::start().time().0);
            println!("PHPMQ_SEED={seed}");
            Random(seed)
        }

        /// Another one, for a part of a test that may draw more or less of it without a change to
        /// the other parts.
        pub(crate) fn fork(&mut self) -> Random {
            Random(self.next())
        }

        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        /// A number below `end`.
        pub(crate) fn below(&mut self, end: usize) -> usize {
            usize::try_from(self.next() % end as u64).unwrap()
        }

        /// Fewer than `end` random bytes.
        pub(crate) fn bytes(&mut self, end: usize) -> Vec<u8> {
            (0..self.below(end)).map(|_| self.next().to_be_bytes()[0]).collect()
        }
    }

    /// The requests of these bytes, and the error that ended them.
    pub(crate) fn decode_all(
        decoder: &mut dyn Decoder,
        bytes: &[u8],
    ) -> (Vec<Request>, Option<WireError>) {
        let (mut rest, mut found) = (bytes, Vec::new());
        loop {
            let mut requests = Requests::default();
            let result = decoder.decode(Time(0), rest, &mut requests);
            let stopped = !requests.is_full();
            found.extend(requests.take());
            match result {
                Err(error) => return (found, Some(error)),
                Ok(taken) => rest = &rest[taken..],
            }
            if stopped {
                return (found, None);
            }
        }
    }

    /// Brings what belongs to incomplete content straight to its place, or leaves it. Returns the
    /// bytes to be decoded.
    fn bring_rest<'a>(decoder: &mut dyn Decoder, bytes: &'a [u8], random: &mut Random) -> &'a [u8] {
        let Some(rest) = decoder.rest().filter(|_| random.below(2) == 0) else {
            return bytes;
        };
        let (direct, behind) = bytes.split_at(rest.missing.min(bytes.len()));
        rest.bytes.extend_from_slice(direct);
        behind
    }

    /// The same with the bytes cut at random places.
    pub(crate) fn decode_in_parts(
        decoder: &mut dyn Decoder,
        bytes: &[u8],
        random: &mut Random,
    ) -> (Vec<Request>, Option<WireError>) {
        let (mut rest, mut found) = (bytes, Vec::new());
        while !rest.is_empty() {
            let most = if random.below(2) == 0 { 3 } else { 60 };
            let (part, after) = rest.split_at((1 + random.below(most)).min(rest.len()));
            let part = bring_rest(decoder, part, random);
            let (requests, error) = decode_all(decoder, part);
            found.extend(requests);
            if error.is_some() {
                return (found, error);
            }
            rest = after;
        }
        (found, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` cut into parts of `size`, and collects what `take` gives.
    fn in_parts<T>(
        bytes: &[u8],
        size: usize,
        mut take: impl FnMut(&mut &[u8]) -> Option<T>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        for part in bytes.chunks(size) {
            let mut input = part;
            while !input.is_empty() {
                found.extend(take(&mut input));
            }
        }
        found
    }

    #[test]
    fn pieces_are_the_same_however_the_bytes_are_cut() {
        for size in 1..10 {
            let mut piece = Piece::<4>::default();
            let found = in_parts(b"abcdefgh", size, |input| piece.take(input).map(Cow::into_owned));
            assert_eq!(found, [*b"abcd", *b"efgh"]);
            assert_eq!(piece.pending(), b"");
        }
    }

    #[test]
    fn an_incomplete_piece_shows_what_it_has() {
        let mut piece = Piece::<4>::default();
        assert_eq!(piece.take(&mut &b"ab"[..]), None);
        assert_eq!(piece.pending(), b"ab");
    }

    #[test]
    fn content_is_the_same_however_the_bytes_are_cut() {
        for size in 1..10 {
            let mut content = Content::default();
            let found =
                in_parts(b"abcdefghij", size, |input| content.take(5, input).map(Cow::into_owned));
            assert_eq!(found, [b"abcde", b"fghij"]);
            assert_eq!(content.pending_bytes(), 0);
        }
    }

    #[test]
    fn content_that_lies_there_whole_is_not_copied() {
        let mut input = &b"abcdef"[..];
        assert!(matches!(Content::default().take(4, &mut input), Some(Cow::Borrowed(b"abcd"))));
        assert_eq!(input, b"ef");
    }

    #[test]
    fn a_buffer_grows_with_what_arrives_and_not_with_what_was_announced() {
        let mut content = Content::default();
        let announced = 1 << 30;
        for arrived in 1..=100_usize {
            assert!(content.take(announced, &mut &[0; 100][..]).is_none());
            assert!(content.kept.capacity() <= 2 * arrived * 100);
        }
    }

    #[test]
    fn room_is_made_for_what_has_arrived_and_not_for_what_was_announced() {
        let mut content = Content::default();
        assert!(content.take(1 << 30, &mut &[0; 5_000][..]).is_none());
        content.rest(1 << 30).make_room(0).unwrap();
        assert!(content.capacity() <= 10_000);
        content.rest(1 << 30).make_room(50_000).unwrap();
        assert!((55_000..=60_000).contains(&content.capacity()));
        content.rest(60_000).make_room(1 << 30).unwrap();
        assert!(content.capacity() <= 60_000);
    }

    #[test]
    fn a_rest_that_came_without_take_is_given_out_by_it() {
        let mut content = Content::default();
        assert!(content.take(5, &mut &b"ab"[..]).is_none());
        let rest = content.rest(5);
        assert_eq!(rest.missing, 3);
        rest.bytes.extend_from_slice(b"cde");
        assert_eq!(content.take(5, &mut &b"f"[..]).as_deref(), Some(&b"abcde"[..]));
    }

    #[test]
    fn a_buffer_never_grows_beyond_the_length() {
        let mut content = Content::default();
        let body = loop {
            if let Some(body) = content.take(1_000, &mut &[7; 300][..]) {
                break body.into_owned();
            }
        };
        assert_eq!((body.len(), body.capacity()), (1_000, 1_000));
    }

    #[test]
    fn decimals_are_digits_alone_and_do_not_overflow() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"00042"), Some(42));
        assert_eq!(decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        assert_eq!(decimal(b"18446744073709551614"), Some(u64::MAX - 1));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(decimal(b"00000000000000000000000000007"), Some(7));
        assert_eq!(decimal(&[b'9'; 400]), Some(u64::MAX));
        for text in ["", "-1", "+5", "0x10", "1 ", " 1", "1e3", "\u{663}"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn starts_of_http_requests_are_told_from_commands() {
        for line in [
            "GET / HTTP/1.1",
            "POST /x HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "GET /",
            "BREW /pot HTTP/1.1",
            "Host: localhost:9101",
            "hOsT:x",
        ] {
            assert!(is_http(line.as_bytes()), "{line}");
        }
        for line in
            ["", "put 0 0 60 5", "PUT 0 0 60 5", "GET", "delete 7", "show Host:", "search GET *"]
        {
            assert!(!is_http(line.as_bytes()), "{line}");
        }
    }
}
