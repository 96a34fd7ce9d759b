//! A body in chunks.
//!
//! ```text
//!        size line         data and CRLF        size line 0          empty line
//!   Size ─────────► Data ────────────────► Size ────────────► Trailer ─────────► whole
//! ```

use super::problem::Problem;
use crate::protocol::wire::Rest;

/// The longest line of a chunk's size: 16 digits and what may follow them.
const SIZE_LINE_BYTES_MAX: usize = 16 + 256;
/// All trailing fields together at most, in bytes. They are not looked at.
const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// A body of which some chunks have come.
#[derive(Debug)]
pub(super) struct Chunks {
    content: Vec<u8>,
    bytes_max: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the line of a chunk's size.
    Size(Vec<u8>),
    /// In a chunk that ends where the content is so long.
    Data { end: usize },
    /// Behind a chunk, in its CR LF.
    DataEnd { has_cr: bool },
    /// Behind the last chunk: the bytes so far, and those of the line.
    Trailer { bytes: usize, line: usize, is_behind_cr: bool },
}

impl Chunks {
    /// A body of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Chunks {
        Chunks { content: Vec::new(), bytes_max, place: Place::Size(Vec::new()) }
    }

    /// Takes from the front of `input` what is missing; the body once it is whole.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        self.pass_whole_chunk();
        while let Some((byte, rest)) = input.split_first() {
            match &mut self.place {
                Place::Data { end } => {
                    let missing = end.saturating_sub(self.content.len());
                    let (data, rest) = input.split_at(missing.min(input.len()));
                    self.content.extend_from_slice(data);
                    *input = rest;
                    self.pass_whole_chunk();
                    continue;
                }
                Place::Size(line) => {
                    line.push(*byte);
                    self.end_size_line()?;
                }
                Place::DataEnd { has_cr } => match (*has_cr, byte) {
                    (false, b'\r') => *has_cr = true,
                    (true, b'\n') => self.place = Place::Size(Vec::new()),
                    _ => return Err(Problem::bad_http("a chunk is longer than its size says")),
                },
                Place::Trailer { .. } => {
                    if self.trailer(*byte)? {
                        *input = rest;
                        return Ok(Some(std::mem::take(&mut self.content)));
                    }
                }
            }
            *input = rest;
        }
        Ok(None)
    }

    /// Where the rest of the chunk goes that has begun.
    pub(super) fn rest(&mut self) -> Option<Rest<'_>> {
        let Place::Data { end } = self.place else { return None };
        let missing = end.saturating_sub(self.content.len());
        Some(Rest { bytes: &mut self.content, missing })
    }

    /// Whether the rest of a chunk has been brought to its place.
    pub(super) fn has_rest(&self) -> bool {
        matches!(self.place, Place::Data { end } if self.content.len() >= end)
    }

    /// Bytes that it takes in memory, and what shows that it has begun.
    pub(super) fn pending_bytes(&self) -> usize {
        1 + self.content.capacity()
    }

    fn pass_whole_chunk(&mut self) {
        if self.has_rest() {
            self.place = Place::DataEnd { has_cr: false };
        }
    }

    fn end_size_line(&mut self) -> Result<(), Problem> {
        let Place::Size(line) = &mut self.place else { return Ok(()) };
        if line.len() > SIZE_LINE_BYTES_MAX {
            return Err(Problem::bad_http("the line of a chunk's size is too long"));
        }
        let behind_cr = line.len() >= 2 && line.get(line.len() - 2) == Some(&b'\r');
        match (behind_cr, line.last()) {
            (true, Some(b'\n')) => {}
            (true, _) => return Err(Problem::bad_http("a carriage return without a line feed")),
            (false, Some(b'\n')) => {
                return Err(Problem::bad_http("a line feed without a carriage return"));
            }
            _ => return Ok(()),
        }
        let size = size_of_chunk(line.get(..line.len() - 2).unwrap_or_default())?;
        let room = self.bytes_max.saturating_sub(self.content.len());
        self.place = match usize::try_from(size) {
            Ok(0) => Place::Trailer { bytes: 0, line: 0, is_behind_cr: false },
            Ok(size) if size <= room => Place::Data { end: self.content.len() + size },
            _ => return Err(Problem::too_large(self.bytes_max)),
        };
        Ok(())
    }

    /// Whether this byte is the last one.
    fn trailer(&mut self, byte: u8) -> Result<bool, Problem> {
        let Place::Trailer { bytes, line, is_behind_cr } = &mut self.place else {
            return Ok(false);
        };
        *bytes += 1;
        if *bytes > TRAILER_BYTES_MAX {
            return Err(Problem::too_large_head("the fields behind the last chunk are too long"));
        }
        match (*is_behind_cr, byte) {
            (true, b'\n') if *line == 0 => return Ok(true),
            (true, b'\n') => (*line, *is_behind_cr) = (0, false),
            (false, b'\r') => *is_behind_cr = true,
            (true, _) | (false, b'\n') => {
                return Err(Problem::bad_http(
                    "a line behind the last chunk does not end in CR LF",
                ));
            }
            (false, _) => *line += 1,
        }
        Ok(false)
    }
}

/// The size at the beginning of such a line; what may follow it is not looked at.
fn size_of_chunk(line: &[u8]) -> Result<u64, Problem> {
    let bad = || Problem::bad_http("the size of a chunk is not a hexadecimal number");
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(bad());
    }
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
    u64::from_str_radix(digits, 16).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<(Option<Vec<u8>>, Vec<u8>), Problem> {
        let mut input = text;
        let whole = Chunks::new(20).take(&mut input)?;
        Ok((whole, input.to_vec()))
    }

    #[test]
    fn chunks_are_put_together() {
        let text = b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX: y\r\n\r\nrest";
        assert_eq!(all(text).unwrap(), (Some(b"abcd".to_vec()), b"rest".to_vec()));
        let mut chunks = Chunks::new(20);
        let end = text.len() - 5;
        for byte in &text[..end] {
            assert_eq!(chunks.take(&mut &[*byte][..]).unwrap(), None);
        }
        assert_eq!(chunks.take(&mut &text[end..=end]).unwrap(), Some(b"abcd".to_vec()));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"0x3\r\n",
            b"+3\r\n",
            b" 3\r\n",
            b"3 \r\n",
            b"3\nabc",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"0\r\n\n",
            b"15\r\n",
        ] {
            assert!(all(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
