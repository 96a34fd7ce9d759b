//! NATS JetStream as a work queue: a stream that drops what is acknowledged, and one pull consumer
//! that all connections share.

use std::net::TcpStream;

use crate::fault::{Fault, excerpt};
use crate::ledger::{number_of, push_number};
use crate::line::{line, read_exactly, read_line, write};
use crate::talk::{Event, Held, Talk};

/// The name of the durable consumer.
const CONSUMER: &str = "c";
/// Acknowledgements that may be outstanding: more than are ever under way.
const ACKS_PENDING_MAX: u32 = 1_000_000;
/// An answer to a request about streams is not as long as this, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A connection to nats-server.
#[derive(Debug)]
pub struct Nats {
    queue: String,
    is_durable: bool,
    /// Where answers to puts come, where messages come, and the subject that asks for them.
    inbox: String,
    next_subject: String,
    /// Messages that were asked for and have not come.
    asked: usize,
}

/// A frame that carries something.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    subject: &'a [u8],
    /// Where an answer would go.
    reply: Option<&'a [u8]>,
    headers: &'a [u8],
    body: &'a [u8],
}

impl Nats {
    /// The connection of this number.
    pub fn new(queue: &str, number: usize, is_durable: bool) -> Nats {
        Nats {
            queue: queue.to_owned(),
            is_durable,
            inbox: format!("_INBOX.{queue}.{number}"),
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{queue}.{CONSUMER}"),
            asked: 0,
        }
    }

    fn publish(&self, subject: &[u8], reply_end: &[u8], body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(subject);
        if !reply_end.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.inbox.as_bytes());
            out.extend_from_slice(reply_end);
        }
        out.push(b' ');
        push_number(body.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }

    /// Asks the server's API, at the start.
    fn request(&self, stream: &mut TcpStream, subject: &str, body: &str) -> Result<(), Fault> {
        let mut out = Vec::new();
        self.publish(subject.as_bytes(), b".a", body.as_bytes(), &mut out);
        write(stream, &out)?;
        let first = read_line(stream)?;
        let count = first.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let count = number_of(count).map_err(|_| excerpt(&first))? as usize;
        if !first.starts_with(b"MSG ") || count > ANSWER_BYTES_MAX {
            return Err(excerpt(&first));
        }
        let answer = read_exactly(stream, count + 2)?;
        let has_error = answer.windows(8).any(|part| part == b"\"error\":");
        if has_error { Err(Fault::Answer(answer)) } else { Ok(()) }
    }

    fn make_queue(&self, stream: &mut TcpStream) -> Result<(), Fault> {
        let queue = &self.queue;
        let storage = if self.is_durable { "file" } else { "memory" };
        let config = format!(
            "{{\"name\":\"{queue}\",\"subjects\":[\"{queue}\"],\"retention\":\"workqueue\",\
             \"storage\":\"{storage}\",\"num_replicas\":1}}"
        );
        self.request(stream, &format!("$JS.API.STREAM.CREATE.{queue}"), &config)?;
        let config = format!(
            "{{\"stream_name\":\"{queue}\",\"config\":{{\"durable_name\":\"{CONSUMER}\",\
             \"ack_policy\":\"explicit\",\"deliver_policy\":\"all\",\
             \"max_ack_pending\":{ACKS_PENDING_MAX}}}}}"
        );
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{queue}.{CONSUMER}");
        self.request(stream, &subject, &config)
    }

    fn event<'a>(&mut self, frame: &Frame<'a>) -> Result<Event<'a>, Fault> {
        if frame.subject.ends_with(b".p") {
            let is_stored = frame.body.windows(6).any(|part| part == b"\"seq\":");
            let fault = || excerpt(if is_stored { frame.headers } else { frame.body });
            return if is_stored { Ok(Event::Confirmed(1)) } else { Err(fault()) };
        }
        match frame.reply {
            Some(handle) if handle.starts_with(b"$JS.ACK.") => {
                self.asked = self.asked.checked_sub(1).ok_or_else(|| excerpt(frame.subject))?;
                Ok(Event::Message { handle, body: frame.body })
            }
            // A status: the request has run out.
            _ if frame.headers.starts_with(b"NATS/1.0 40") => {
                Ok(Event::Short(std::mem::take(&mut self.asked)))
            }
            _ => Err(excerpt(if frame.headers.is_empty() { frame.body } else { frame.headers })),
        }
    }
}

/// The frame of `MSG` or `HMSG` at the front, and how long it is.
fn frame(bytes: &[u8]) -> Result<Option<(usize, Frame<'_>)>, Fault> {
    let Some((first, start)) = line(bytes)? else { return Ok(None) };
    let mut words: [&[u8]; 6] = [b""; 6];
    let mut count = 0;
    for word in first.split(|byte| *byte == b' ') {
        *words.get_mut(count).ok_or_else(|| excerpt(bytes))? = word;
        count += 1;
    }
    let has_headers = words[0] == b"HMSG";
    let least = if has_headers { 5 } else { 4 };
    if !(has_headers || words[0] == b"MSG") || count < least {
        return Err(excerpt(bytes));
    }
    let reply = (count > least).then_some(words[3]);
    let total = number_of(words[count - 1])? as usize;
    let headers = if has_headers { number_of(words[count - 2])? as usize } else { 0 };
    let end = start + total;
    let Some(all) = bytes.get(start..end + 2) else { return Ok(None) };
    let all = all.strip_suffix(b"\r\n").ok_or_else(|| excerpt(bytes))?;
    let (headers, body) = all.split_at_checked(headers).ok_or_else(|| excerpt(bytes))?;
    Ok(Some((end + 2, Frame { subject: words[1], reply, headers, body })))
}

impl Talk for Nats {
    fn open(&mut self, stream: &mut TcpStream, is_first: bool) -> Result<(), Fault> {
        let hello = read_line(stream)?;
        if !hello.starts_with(b"INFO ") {
            return Err(excerpt(&hello));
        }
        let words = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\
             \"no_responders\":true,\"lang\":\"rust\",\"version\":\"0\"}}\r\n\
             SUB {}.* 1\r\nPING\r\n",
            self.inbox
        );
        write(stream, words.as_bytes())?;
        let pong = read_line(stream)?;
        if pong != b"PONG" {
            return Err(excerpt(&pong));
        }
        if is_first { self.make_queue(stream) } else { Ok(()) }
    }

    fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.publish(self.queue.as_bytes(), b".p", body, out);
    }

    fn ask(&mut self, count: usize, out: &mut Vec<u8>) {
        let body = format!("{{\"batch\":{count}}}");
        self.publish(self.next_subject.as_bytes(), b".t", body.as_bytes(), out);
        self.asked += count;
    }

    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
        held.handles().for_each(|subject| self.publish(subject, b"", b"+ACK", out));
        false
    }

    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault> {
        if bytes.starts_with(b"PING\r\n") {
            out.extend_from_slice(b"PONG\r\n");
            return Ok(Some((6, Event::Other)));
        }
        if bytes.starts_with(b"INFO ") {
            return Ok(line(bytes)?.map(|(_, end)| (end, Event::Other)));
        }
        let Some((count, frame)) = frame(bytes)? else { return Ok(None) };
        Ok(Some((count, self.event(&frame)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_messages_and_statuses_are_told_apart() {
        let (mut nats, mut out) = (Nats::new("q", 2, false), Vec::new());
        nats.ask(3, &mut out);
        let head = b"PUB $JS.API.CONSUMER.MSG.NEXT.q.c _INBOX.q.2.t 11\r\n{\"batch\":3}\r\n";
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(head));
        let put = b"MSG _INBOX.q.2.p 1 24\r\n{\"stream\":\"q\", \"seq\":12}\r\n";
        assert_eq!(nats.next(put, &mut out).unwrap(), Some((put.len(), Event::Confirmed(1))));
        let message = b"MSG q 1 $JS.ACK.q.c.1.1.1.9.0 4\r\na\r\nb\r\n";
        let event = Event::Message { handle: b"$JS.ACK.q.c.1.1.1.9.0", body: b"a\r\nb" };
        assert_eq!(nats.next(message, &mut out).unwrap(), Some((message.len(), event)));
        for end in 0..message.len() {
            assert_eq!(nats.next(&message[..end], &mut out).unwrap(), None, "{end}");
        }
        let status = b"HMSG _INBOX.q.2.t 1 28 28\r\nNATS/1.0 408 Timed Out\r\n\r\n\r\n\r\n";
        assert_eq!(nats.next(status, &mut out).unwrap(), Some((57, Event::Short(2))));
    }

    #[test]
    fn refusals_are_faults_and_pings_are_answered() {
        let (mut nats, mut out) = (Nats::new("q", 2, false), Vec::new());
        let full = b"MSG _INBOX.q.2.p 1 28\r\n{\"error\":{\"code\":503},\"x\":1}\r\n";
        assert!(nats.next(full, &mut out).is_err());
        assert!(nats.next(b"-ERR 'no'\r\n", &mut out).is_err());
        assert_eq!(nats.next(b"PING\r\n", &mut out).unwrap(), Some((6, Event::Other)));
        assert_eq!(out, b"PONG\r\n");
    }
}
