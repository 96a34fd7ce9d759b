//! RabbitMQ's classic queue over AMQP 0-9-1: confirmed publishing, and consuming with a prefetch.

use std::collections::VecDeque;
use std::net::TcpStream;

use crate::fault::{Fault, excerpt};
use crate::line::{read_exactly, write};
use crate::talk::{Event, Held, Talk};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;
/// Bytes of a frame before its payload: type, channel, length.
const HEAD_BYTES: usize = 7;
/// What we announce to take in one frame: a body of the largest size that is measured fits in.
const FRAME_BYTES_MAX: u32 = 131_072;

/// Class and method, in one number.
const START: u32 = method(10, 10);
const START_OK: u32 = method(10, 11);
const TUNE: u32 = method(10, 30);
const TUNE_OK: u32 = method(10, 31);
const OPEN: u32 = method(10, 40);
const OPEN_OK: u32 = method(10, 41);
const CHANNEL_OPEN: u32 = method(20, 10);
const CHANNEL_OPEN_OK: u32 = method(20, 11);
const DECLARE: u32 = method(50, 10);
const DECLARE_OK: u32 = method(50, 11);
const QOS: u32 = method(60, 10);
const QOS_OK: u32 = method(60, 11);
const CONSUME: u32 = method(60, 20);
const CONSUME_OK: u32 = method(60, 21);
const PUBLISH: u32 = method(60, 40);
const DELIVER: u32 = method(60, 60);
const ACK: u32 = method(60, 80);
const SELECT: u32 = method(85, 10);
const SELECT_OK: u32 = method(85, 11);

const fn method(class: u32, method: u32) -> u32 {
    class << 16 | method
}

/// A frame as it arrives.
#[derive(Debug)]
struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    len: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the front; `None` when it is not whole.
    fn parse(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, Fault> {
        let Some(([kind, _, _, a, b, c, d], _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let count = u32::from_be_bytes([*a, *b, *c, *d]);
        if count > FRAME_BYTES_MAX {
            return Err(excerpt(bytes));
        }
        let end = HEAD_BYTES + count as usize;
        match (bytes.get(HEAD_BYTES..end), bytes.get(end)) {
            (Some(payload), Some(&FRAME_END)) => {
                Ok(Some(Frame { kind: *kind, payload, len: end + 1 }))
            }
            (_, None) => Ok(None),
            _ => Err(excerpt(bytes)),
        }
    }

    /// Which method it is, and its arguments.
    fn method(&self) -> Result<(u32, &'a [u8]), Fault> {
        match self.payload.split_first_chunk::<4>() {
            Some((number, arguments)) if self.kind == METHOD => {
                Ok((u32::from_be_bytes(*number), arguments))
            }
            _ => Err(excerpt(self.payload)),
        }
    }
}

/// Appends a frame whose payload is written by `fill`.
fn push_frame(kind: u8, channel: u16, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let count = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
    out.push(FRAME_END);
}

fn push_method(method: u32, channel: u16, arguments: &[&[u8]], out: &mut Vec<u8>) {
    push_frame(METHOD, channel, out, |out| {
        out.extend_from_slice(&method.to_be_bytes());
        arguments.iter().for_each(|part| out.extend_from_slice(part));
    });
}

/// A name with its length in one byte.
fn short(name: &str) -> Vec<u8> {
    let count = u8::try_from(name.len()).expect("our names have a few letters");
    [&[count], name.as_bytes()].concat()
}

/// Says something at the start, and reads the method that answers it.
fn call(stream: &mut TcpStream, bytes: &[u8], answer: u32) -> Result<(), Fault> {
    write(stream, bytes)?;
    let mut all = read_exactly(stream, HEAD_BYTES)?;
    let count = all[3..].iter().fold(0_usize, |count, byte| count << 8 | usize::from(*byte));
    if count > FRAME_BYTES_MAX as usize {
        return Err(excerpt(&all));
    }
    all.extend(read_exactly(stream, count + 1)?);
    match Frame::parse(&all)? {
        Some(frame) if frame.method()?.0 == answer => Ok(()),
        _ => Err(excerpt(&all)),
    }
}

/// A delivery tag and what stands behind it.
fn tag(arguments: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let (tag, rest) = arguments.split_first_chunk().ok_or_else(|| excerpt(arguments))?;
    Ok((u64::from_be_bytes(*tag), rest))
}

/// A connection to RabbitMQ, with one channel.
#[derive(Debug)]
pub struct Amqp {
    queue: String,
    is_durable: bool,
    prefetch: u16,
    /// A message's method frame, which is the same for all, and the front of its header's payload.
    publish: Vec<u8>,
    /// The number of the last message that was published.
    published: u64,
    /// Those that are not confirmed.
    unconfirmed: VecDeque<u64>,
}

impl Amqp {
    /// A connection that takes up to `depth` messages before it acknowledges.
    pub fn new(queue: &str, depth: usize, is_durable: bool) -> Amqp {
        let mut publish = Vec::new();
        let arguments: [&[u8]; 4] = [&[0, 0], &short(""), &short(queue), &[0]];
        push_method(PUBLISH, 1, &arguments, &mut publish);
        Amqp {
            queue: queue.to_owned(),
            is_durable,
            prefetch: u16::try_from(depth).unwrap_or(u16::MAX),
            publish,
            published: 0,
            unconfirmed: VecDeque::new(),
        }
    }

    /// How many this confirmation is about; confirmations may come out of order.
    fn confirmed(&mut self, tag: u64, is_multiple: bool) -> usize {
        let before = self.unconfirmed.len();
        if is_multiple {
            self.unconfirmed.retain(|number| *number > tag);
        } else if let Some(at) = self.unconfirmed.iter().position(|number| *number == tag) {
            self.unconfirmed.remove(at);
        }
        before - self.unconfirmed.len()
    }
}

/// The body behind a delivery: a header frame and a body frame, and how long they are.
fn content(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Fault> {
    let Some(header) = Frame::parse(bytes)? else { return Ok(None) };
    let Some(body) = Frame::parse(&bytes[header.len..])? else { return Ok(None) };
    let size = header.payload.get(4..12).ok_or_else(|| excerpt(bytes))?;
    if header.kind != HEADER
        || body.kind != BODY
        || size != (body.payload.len() as u64).to_be_bytes()
    {
        return Err(Fault::Frame("a message is not a header and one body"));
    }
    Ok(Some((body.payload, header.len + body.len)))
}

impl Talk for Amqp {
    fn is_pushed(&self) -> bool {
        true
    }

    fn open(&mut self, stream: &mut TcpStream, _is_first: bool) -> Result<(), Fault> {
        call(stream, b"AMQP\0\0\x09\x01", START)?;
        let says = |stream: &mut TcpStream, method, channel, arguments: &[&[u8]], answer| {
            let mut out = Vec::new();
            push_method(method, channel, arguments, &mut out);
            call(stream, &out, answer)
        };
        // No properties, the mechanism, the guest's name and password, the language.
        let login: &[u8] = b"\0\0\0\x0c\0guest\0guest";
        let words: &[&[u8]] = &[&[0; 4], &short("PLAIN"), login, &short("en_US")];
        says(stream, START_OK, 0, words, TUNE)?;
        let mut out = Vec::new();
        // One channel and more, frames of this size, no heart-beats.
        let limits: [&[u8]; 3] = [&[0, 8], &FRAME_BYTES_MAX.to_be_bytes(), &[0, 0]];
        push_method(TUNE_OK, 0, &limits, &mut out);
        push_method(OPEN, 0, &[&short("/"), &short(""), &[0]], &mut out);
        call(stream, &out, OPEN_OK)?;
        says(stream, CHANNEL_OPEN, 1, &[&short("")], CHANNEL_OPEN_OK)?;
        let queue = short(&self.queue);
        // Durable, or deleted with its last consumer.
        let kind: &[u8] = if self.is_durable { &[2] } else { &[8] };
        says(stream, DECLARE, 1, &[&[0, 0], &queue, kind, &[0; 4]], DECLARE_OK)?;
        says(stream, SELECT, 1, &[&[0]], SELECT_OK)?;
        let prefetch: &[&[u8]] = &[&[0; 4], &self.prefetch.to_be_bytes(), &[0]];
        says(stream, QOS, 1, prefetch, QOS_OK)?;
        let words: &[&[u8]] = &[&[0, 0], &queue, &short("c"), &[0], &[0; 4]];
        says(stream, CONSUME, 1, words, CONSUME_OK)
    }

    fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.published += 1;
        self.unconfirmed.push_back(self.published);
        out.extend_from_slice(&self.publish);
        push_frame(HEADER, 1, out, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            // One property: the delivery mode, 2 for persistent.
            out.extend_from_slice(&[0x10, 0, if self.is_durable { 2 } else { 1 }]);
        });
        push_frame(BODY, 1, out, |out| out.extend_from_slice(body));
    }

    fn ask(&mut self, _count: usize, _out: &mut Vec<u8>) {}

    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
        if let Some(last) = held.handles().last() {
            // All up to this one.
            push_method(ACK, 1, &[last, &[1]], out);
        }
        false
    }

    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        _out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault> {
        let Some(frame) = Frame::parse(bytes)? else { return Ok(None) };
        if frame.kind == HEARTBEAT {
            return Ok(Some((frame.len, Event::Other)));
        }
        let (method, arguments) = frame.method()?;
        match method {
            ACK => {
                let (tag, rest) = tag(arguments)?;
                let count = self.confirmed(tag, rest == [1]);
                Ok(Some((frame.len, Event::Confirmed(count))))
            }
            DELIVER => {
                let name = usize::from(*arguments.first().ok_or_else(|| excerpt(bytes))?);
                let handle = arguments.get(1 + name..9 + name).ok_or_else(|| excerpt(bytes))?;
                let content = content(&bytes[frame.len..])?;
                Ok(content.map(|(body, len)| (frame.len + len, Event::Message { handle, body })))
            }
            // Above all the server's words when it closes.
            _ => Err(Fault::Answer(frame.payload.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(tag: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let arguments: [&[u8]; 5] =
            [&short("c"), &tag.to_be_bytes(), &[0], &short(""), &short("q")];
        push_method(DELIVER, 1, &arguments, &mut out);
        push_frame(HEADER, 1, &mut out, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        });
        push_frame(BODY, 1, &mut out, |out| out.extend_from_slice(body));
        out
    }

    #[test]
    fn a_delivery_is_taken_with_its_header_and_body() {
        let (mut amqp, mut out) = (Amqp::new("q", 10, true), Vec::new());
        let bytes = delivery(7, b"ab\xcec");
        let event = Event::Message { handle: &7_u64.to_be_bytes(), body: b"ab\xcec" };
        assert_eq!(amqp.next(&bytes, &mut out).unwrap(), Some((bytes.len(), event)));
        for end in 0..bytes.len() {
            assert_eq!(amqp.next(&bytes[..end], &mut out).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn confirmations_of_one_and_of_many_are_counted_once() {
        let (mut amqp, mut out) = (Amqp::new("q", 10, false), Vec::new());
        (0..5).for_each(|_| amqp.put(b"ab", &mut out));
        let confirms = |tag: u64, multiple| {
            let mut out = Vec::new();
            push_method(ACK, 1, &[&tag.to_be_bytes(), &[multiple]], &mut out);
            out
        };
        for (bytes, count) in [(confirms(2, 0), 1), (confirms(4, 1), 3), (confirms(5, 0), 1)] {
            let event = Some((bytes.len(), Event::Confirmed(count)));
            assert_eq!(amqp.next(&bytes, &mut out).unwrap(), event);
        }
    }

    #[test]
    fn a_close_is_a_fault_with_the_server_s_words() {
        let (mut amqp, mut out) = (Amqp::new("q", 10, false), Vec::new());
        let mut bytes = Vec::new();
        push_method(method(20, 40), 1, &[&[1, 148], &short("NOT_FOUND"), &[0; 4]], &mut bytes);
        assert!(amqp.next(&bytes, &mut out).unwrap_err().to_string().contains("NOT_FOUND"));
        assert!(amqp.next(b"\x01\0\x01\0\0\0\x01xx", &mut out).is_err());
    }
}
