//! Bytes on their way to a peer: small ones in one buffer, large bodies beside it and shared.
//!
//! ```text
//!   bytes   ┌──────────────┬─────────┬──────────────┐
//!           │ RESERVED 7 … │ ⏎       │ INSERTED 8 ⏎ │     in order: RESERVED 7 …, body 7, ⏎,
//!           └──────────────┴─────────┴──────────────┘               INSERTED 8 ⏎
//!   bodies         at ─────▲ body 7
//! ```
//!
//! Encoders append, the outbox takes from the front. A byte's position is its number in all that
//! was ever appended, so that what was noted of it stays true while the front moves on.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::ops::Range;

use crate::words::body::{Body, BodyRef};
use crate::words::limits::{BODY_SHARED_BYTES_MIN, OUTBOX_KEPT_BYTES};

/// What was appended and has not left.
#[derive(Debug, Default)]
pub struct Output {
    /// All but the large bodies; the first `sent` of them have left.
    bytes: Vec<u8>,
    sent: usize,
    bodies: VecDeque<Inlay>,
    /// Bytes of the first of `bodies` that have left.
    body_sent: usize,
    /// Bytes of `bodies` that have not left.
    body_bytes: usize,
    /// The position of the first byte that has not left.
    start: u64,
}

/// A large body between the small bytes.
#[derive(Debug)]
struct Inlay {
    /// How many of `bytes` come before it.
    at: usize,
    body: Body,
}

impl Output {
    /// Where small bytes are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a message's content, which is shared if it can be and is worth it.
    pub fn body(&mut self, body: BodyRef<'_>) {
        if body.len() < BODY_SHARED_BYTES_MIN {
            return self.bytes.extend_from_slice(&body);
        }
        let body = match body {
            BodyRef::Lent(bytes) => Body::from(bytes),
            BodyRef::Kept(body) => body.clone(),
        };
        self.body_bytes += body.len();
        self.bodies.push_back(Inlay { at: self.bytes.len(), body });
    }

    /// How many bytes have not left.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.body_bytes
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of the first byte that has not left.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position behind the last byte appended.
    pub fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    /// Puts the pieces that make up the first `count` bytes into `places`, as many as there are
    /// places for, and returns how many that are.
    pub fn gather<'a>(&'a self, count: usize, places: &mut [IoSlice<'a>]) -> usize {
        // Most peers have no large body on its way: then all lies in one piece.
        if self.bodies.is_empty()
            && let Some(bytes) = self.bytes.get(self.sent..self.sent + count)
            && let Some(place) = places.first_mut()
        {
            *place = IoSlice::new(bytes);
            return usize::from(count > 0);
        }
        let pieces = self.pieces(0..count).map(|piece| IoSlice::new(piece.bytes));
        places.iter_mut().zip(pieces).map(|(place, piece)| *place = piece).count()
    }

    /// Takes the first `count` bytes out, as a copy.
    pub fn take_copy(&mut self, count: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(count);
        self.pieces(0..count).for_each(|piece| copy.extend_from_slice(piece.bytes));
        self.take(count);
        copy
    }

    /// So many bytes from the front have left; gives memory back.
    pub fn take(&mut self, count: usize) {
        self.start += count as u64;
        let mut left = count;
        while let Some(inlay) = self.bodies.front() {
            let before = inlay.at - self.sent;
            if left < before {
                break;
            }
            let of_body = (left - before).min(inlay.body.len() - self.body_sent);
            self.sent = inlay.at;
            self.body_sent += of_body;
            self.body_bytes -= of_body;
            left -= before + of_body;
            if self.body_sent < inlay.body.len() {
                return self.give_back();
            }
            self.body_sent = 0;
            self.bodies.pop_front();
        }
        self.sent += left;
        self.give_back();
    }

    /// Puts other words in the place of these ranges of positions, which are in rising order and
    /// have not left in part. Returns where the position `until`, which is behind them, has moved
    /// to.
    pub fn replace(
        &mut self,
        ranges: &[Range<u64>],
        until: u64,
        mut words: impl FnMut(usize, &mut Output),
    ) -> u64 {
        // Invariant: what is replaced has not left, so all of it lies here.
        let start = self.start;
        let index = |position: u64| usize::try_from(position - start).unwrap_or(usize::MAX);
        let mut new = Output { start, ..Output::default() };
        new.bytes.reserve(self.bytes.len() - self.sent);
        let mut copied = 0;
        for (number, range) in ranges.iter().enumerate() {
            new.append(self, copied..index(range.start));
            words(number, &mut new);
            copied = index(range.end);
        }
        new.append(self, copied..index(until));
        let until_now = new.end();
        new.append(self, index(until)..self.len());
        *self = new;
        until_now
    }

    /// Drops everything that has not left.
    pub fn clear(&mut self) {
        *self = Output { start: self.end(), ..Output::default() };
    }

    /// Appends a part of another output.
    fn append(&mut self, other: &Output, range: Range<usize>) {
        for piece in other.pieces(range) {
            match piece.body {
                // What has left of a body in part goes on as a copy.
                Some(body) if body.len() == piece.bytes.len() => self.body(BodyRef::Kept(body)),
                _ => self.body(BodyRef::Lent(piece.bytes)),
            }
        }
    }

    /// The pieces of this range, counted from the first byte that has not left.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece<'_>> {
        let (mut small_from, mut body_from) = (self.sent, self.body_sent);
        let last_from = self.bodies.back().map_or(self.sent, |inlay| inlay.at);
        let last = Piece { bytes: &self.bytes[last_from..], body: None };
        let inlaid = self.bodies.iter().flat_map(move |inlay| {
            let small = &self.bytes[mem::replace(&mut small_from, inlay.at)..inlay.at];
            let large = &inlay.body[mem::take(&mut body_from)..];
            [Piece { bytes: small, body: None }, Piece { bytes: large, body: Some(&inlay.body) }]
        });
        let mut start = 0;
        let clipped = inlaid.chain([last]).map_while(move |piece| {
            let length = piece.bytes.len();
            let from = range.start.saturating_sub(start).min(length);
            let to = range.end.checked_sub(start)?.min(length);
            start += length;
            Some(Piece { bytes: piece.bytes.get(from..to).unwrap_or_default(), ..piece })
        });
        clipped.filter(|piece| !piece.bytes.is_empty())
    }

    /// Gives memory back after something has left.
    fn give_back(&mut self) {
        if self.sent == self.bytes.len() && self.bodies.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > OUTBOX_KEPT_BYTES {
                self.bytes = Vec::new();
            }
            if self.bodies.capacity() > BODIES_KEPT {
                self.bodies = VecDeque::new();
            }
        } else if self.sent >= OUTBOX_KEPT_BYTES && self.sent > self.bytes.len() / 2 {
            // Moves less than has left since the last time, so each byte is moved once at most.
            self.bytes.drain(..self.sent);
            self.bodies.iter_mut().for_each(|inlay| inlay.at -= self.sent);
            self.sent = 0;
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }
}

/// A run of bytes that lies in one piece.
struct Piece<'a> {
    bytes: &'a [u8],
    /// The large body that it is, or a part of.
    body: Option<&'a Body>,
}

/// How many places for bodies an empty output keeps: those of a peer that takes a few at a time.
const BODIES_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn large(letter: u8) -> Body {
        Body::from(vec![letter; BODY_SHARED_BYTES_MIN + 3])
    }

    /// `one`, a large body of `a`, `two`, another of `b`, `three`.
    fn sample() -> Output {
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"one");
        output.body(BodyRef::Kept(&large(b'a')));
        output.body(BodyRef::Lent(b"two"));
        output.body(BodyRef::Lent(&large(b'b')));
        output.buffer().extend_from_slice(b"three");
        output
    }

    fn all(output: &Output) -> Vec<u8> {
        output.pieces(0..output.len()).flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    #[test]
    fn a_large_body_is_gathered_from_where_it_lies() {
        let body = large(b'x');
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"head");
        output.body(BodyRef::Kept(&body));
        output.buffer().extend_from_slice(b"end");
        let mut places = [IoSlice::new(&[]); 5];
        assert_eq!(output.gather(output.len(), &mut places), 3);
        assert_eq!(places[1].as_ptr(), body.as_ptr());
        assert_eq!(
            (&*places[0], places[1].len(), &*places[2]),
            (&b"head"[..], body.len(), &b"end"[..])
        );
    }

    #[test]
    fn small_bytes_lie_in_one_piece_that_begins_with_what_has_not_left() {
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"one two three");
        output.take(4);
        let mut places = [IoSlice::new(&[]); 5];
        assert_eq!(output.gather(3, &mut places), 1);
        assert_eq!(&*places[0], b"two");
        assert_eq!(output.gather(0, &mut places), 0);
    }

    #[test]
    fn no_more_is_gathered_than_may_leave_and_has_a_place() {
        let output = sample();
        let mut places = [IoSlice::new(&[]); 5];
        assert_eq!(output.gather(3, &mut places), 1);
        assert_eq!(output.gather(4, &mut places), 2);
        assert_eq!(&*places[1], b"a");
        assert_eq!(output.gather(output.len(), &mut places[..2]), 2);
        assert_eq!(output.gather(output.len(), &mut places), 5);
        assert_eq!(output.gather(0, &mut places), 0);
    }

    #[test]
    fn what_is_left_is_right_however_much_has_left() {
        let whole = all(&sample());
        for step in [1, 2, 3, 700, BODY_SHARED_BYTES_MIN, 3 * BODY_SHARED_BYTES_MIN] {
            let mut output = sample();
            let mut left = 0;
            while left < whole.len() {
                let count = step.min(whole.len() - left);
                if left / step % 2 == 0 {
                    output.take(count);
                } else {
                    assert_eq!(output.take_copy(count), whole[left..left + count]);
                }
                left += count;
                assert_eq!(all(&output), whole[left..]);
                assert_eq!((output.start(), output.end()), (left as u64, whole.len() as u64));
            }
            assert!(output.is_empty());
        }
    }

    #[test]
    fn words_are_replaced_between_bodies_that_stay_where_they_are() {
        let mut output = sample();
        let body_len = large(b'a').len();
        let whole = all(&output);
        output.take(5);
        let two = (3 + body_len) as u64;
        let until = two + 3 + body_len as u64;
        let word = two..two + 3;
        let until_now = output.replace(&[word], until, |number, out| {
            assert_eq!(number, 0);
            out.buffer().extend_from_slice(b"other");
        });
        assert_eq!(until_now, until + 2);
        let mut expected = whole[5..3 + body_len].to_vec();
        expected.extend_from_slice(b"other");
        expected.extend_from_slice(&whole[3 + body_len + 3..]);
        assert!(all(&output) == expected);
        assert_eq!(output.end(), whole.len() as u64 + 2);
    }

    #[test]
    fn an_answer_with_a_large_body_is_replaced_by_another_with_one() {
        let mut output = sample();
        let (a, b) = (large(b'a').len() as u64, large(b'b'));
        // From within "one" to the end of "two", the body of `a` included.
        let end = output.end();
        let replaced = 1..3 + a + 3;
        let until_now = output.replace(&[replaced], end, |_, out| {
            out.buffer().extend_from_slice(b"other ");
            out.body(BodyRef::Kept(&b));
        });
        assert!(all(&output) == [b"oother ", &b[..], &b[..], b"three"].concat());
        assert_eq!((until_now, output.end()), (output.len() as u64, until_now));
    }

    #[test]
    fn a_long_line_of_bodies_moves_on_and_gives_memory_back() {
        let body = large(b'z');
        let mut output = Output::default();
        let piece = [vec![b'h'; 1_000], body.to_vec()].concat();
        for _ in 0..200 {
            output.buffer().extend_from_slice(&[b'h'; 1_000]);
            output.body(BodyRef::Kept(&body));
        }
        for _ in 0..200 {
            assert!(output.take_copy(piece.len()) == piece);
        }
        assert!(output.is_empty());
        assert!(output.bytes.capacity() <= OUTBOX_KEPT_BYTES);
        assert!(output.bodies.capacity() <= BODIES_KEPT);
    }
}
