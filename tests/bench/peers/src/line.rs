//! Bytes to and from a socket, for the protocols: whole lines, and blocking reads for the opening.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::fault::{Fault, excerpt};

/// No line of an answer is as long as this, in bytes: NATS's first one has a kilobyte.
const LINE_BYTES_MAX: usize = 8192;

/// The line at the front of `bytes` without its end, and how long it is with it; `None` when it is
/// not whole yet.
///
/// # Errors
/// It is longer than any line that is expected.
pub fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Fault> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes[..end].strip_suffix(b"\r").ok_or_else(|| excerpt(bytes))?;
            Ok(Some((line, end + 1)))
        }
        None if bytes.len() > LINE_BYTES_MAX => Err(excerpt(bytes)),
        None => Ok(None),
    }
}

/// Reads one line and nothing behind it; slow, for openings only.
///
/// # Errors
/// The connection is lost or the line is too long.
pub fn read_line(stream: &mut TcpStream) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    loop {
        all.extend(read_exactly(stream, 1)?);
        if let Some((line, _)) = line(&all)? {
            return Ok(line.to_vec());
        }
    }
}

/// Reads so many bytes.
///
/// # Errors
/// The connection is lost.
pub fn read_exactly(stream: &mut TcpStream, count: usize) -> Result<Vec<u8>, Fault> {
    let mut all = vec![0; count];
    stream.read_exact(&mut all).map_err(Fault::Connection)?;
    Ok(all)
}

/// Writes all of it.
///
/// # Errors
/// The connection is lost.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Fault> {
    stream.write_all(bytes).map_err(Fault::Connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_when_it_is_whole() {
        assert_eq!(line(b"+OK\r\nmore").unwrap(), Some((&b"+OK"[..], 5)));
        assert_eq!(line(b"+OK\r").unwrap(), None);
        assert!(line(b"+OK\n").is_err());
        assert!(line(&[b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
