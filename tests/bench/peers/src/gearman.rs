//! Gearman's background jobs: one function is one queue, and each connection is both a client that
//! submits and a worker that grabs.

use std::net::TcpStream;

use crate::fault::{Fault, excerpt};
use crate::line::{read_exactly, write};
use crate::talk::{Event, Held, Talk};

/// Bytes before the data: magic, type, length.
const HEAD_BYTES: usize = 12;
/// An answer is never as long as this, in bytes.
const DATA_BYTES_MAX: usize = 1 << 20;

const CAN_DO: u32 = 1;
const PRE_SLEEP: u32 = 4;
const NOOP: u32 = 6;
const JOB_CREATED: u32 = 8;
const GRAB_JOB: u32 = 9;
const NO_JOB: u32 = 10;
const JOB_ASSIGN: u32 = 11;
const WORK_COMPLETE: u32 = 13;
const ECHO_REQ: u32 = 16;
const ECHO_RES: u32 = 17;
const SUBMIT_JOB_BG: u32 = 18;

/// A packet whose data are these, with a zero byte between each two.
fn push_packet(kind: u32, data: &[&[u8]], out: &mut Vec<u8>) {
    let between = data.len().saturating_sub(1);
    let bytes = data.iter().map(|part| part.len()).sum::<usize>() + between;
    out.extend_from_slice(b"\0REQ");
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(bytes as u32).to_be_bytes());
    for (at, part) in data.iter().enumerate() {
        out.extend_from_slice(part);
        if at < between {
            out.push(0);
        }
    }
}

/// The type of the packet at the front and the length of its data.
fn head(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [b'\0', b'R', b'E', b'S', a, b, c, d, e, f, g, h] = *head else {
        return Err(excerpt(bytes));
    };
    let count = u32::from_be_bytes([e, f, g, h]) as usize;
    if count > DATA_BYTES_MAX {
        return Err(Fault::Frame("a packet is far too long"));
    }
    Ok(Some((u32::from_be_bytes([a, b, c, d]), count)))
}

/// A connection to gearmand.
#[derive(Debug)]
pub struct Gearman {
    function: Vec<u8>,
    /// Grabs that found nothing, and are made again after the wake-up.
    missing: usize,
}

impl Gearman {
    /// A connection that works on this queue.
    pub fn new(queue: &str) -> Gearman {
        Gearman { function: queue.as_bytes().to_vec(), missing: 0 }
    }
}

impl Talk for Gearman {
    fn open(&mut self, stream: &mut TcpStream, _is_first: bool) -> Result<(), Fault> {
        let mut out = Vec::new();
        push_packet(CAN_DO, &[&self.function], &mut out);
        push_packet(ECHO_REQ, &[b"hello"], &mut out);
        write(stream, &out)?;
        let bytes = read_exactly(stream, HEAD_BYTES + 5)?;
        match head(&bytes)? {
            Some((ECHO_RES, 5)) => Ok(()),
            _ => Err(excerpt(&bytes)),
        }
    }

    fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
        // Without a name of its own, so that no two jobs are taken for one.
        push_packet(SUBMIT_JOB_BG, &[&self.function, b"", body], out);
    }

    fn ask(&mut self, count: usize, out: &mut Vec<u8>) {
        (0..count).for_each(|_| push_packet(GRAB_JOB, &[], out));
    }

    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
        held.handles().for_each(|handle| push_packet(WORK_COMPLETE, &[handle, b""], out));
        false
    }

    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault> {
        let Some((kind, count)) = head(bytes)? else { return Ok(None) };
        let end = HEAD_BYTES + count;
        let Some(data) = bytes.get(HEAD_BYTES..end) else { return Ok(None) };
        let event = match kind {
            JOB_CREATED => Event::Confirmed(1),
            JOB_ASSIGN => {
                // Handle, function, and the job's own data, which may hold zero bytes.
                let mut parts = data.splitn(3, |byte| *byte == 0);
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(handle), Some(_), Some(body)) => Event::Message { handle, body },
                    _ => return Err(excerpt(bytes)),
                }
            }
            NO_JOB => {
                // As a worker of Gearman's own library: sleep, and grab again when woken.
                if self.missing == 0 {
                    push_packet(PRE_SLEEP, &[], out);
                }
                self.missing += 1;
                Event::Other
            }
            NOOP => match std::mem::take(&mut self.missing) {
                0 => Event::Other,
                missing => Event::Short(missing),
            },
            _ => return Err(excerpt(bytes)),
        };
        Ok(Some((end, event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0RES".to_vec();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn a_job_with_zero_bytes_is_taken_whole() {
        let (mut gearman, mut out) = (Gearman::new("f"), Vec::new());
        let bytes = answer(JOB_ASSIGN, b"H:1\0f\0a\0b");
        let message = Event::Message { handle: b"H:1", body: b"a\0b" };
        assert_eq!(gearman.next(&bytes, &mut out).unwrap(), Some((bytes.len(), message)));
        for end in 0..bytes.len() {
            assert_eq!(gearman.next(&bytes[..end], &mut out).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn grabs_that_found_nothing_are_made_again_after_the_wake_up() {
        let (mut gearman, mut out) = (Gearman::new("f"), Vec::new());
        let none = answer(NO_JOB, b"");
        for _ in 0..2 {
            assert_eq!(gearman.next(&none, &mut out).unwrap(), Some((12, Event::Other)));
        }
        assert_eq!(out, b"\0REQ\0\0\0\x04\0\0\0\0");
        let woken = answer(NOOP, b"");
        assert_eq!(gearman.next(&woken, &mut out).unwrap(), Some((12, Event::Short(2))));
    }

    #[test]
    fn what_no_server_says_is_refused() {
        let (mut gearman, mut out) = (Gearman::new("f"), Vec::new());
        assert!(gearman.next(b"\0REQ\0\0\0\x06\0\0\0\0", &mut out).is_err());
        assert!(gearman.next(&answer(19, b"code\0text"), &mut out).is_err());
        assert!(gearman.next(b"\0RES\0\0\0\x06\xff\0\0\0", &mut out).is_err());
    }
}
