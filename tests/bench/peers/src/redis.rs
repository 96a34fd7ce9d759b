//! Redis as a work queue, in its two recommended ways, over RESP 2.

use std::net::TcpStream;

use crate::fault::{Fault, excerpt};
use crate::ledger::{number_of, push_number};
use crate::line::{line, read_line, write};
use crate::talk::{Event, Held, Talk};

/// The name of the consumer group.
const GROUP: &[u8] = b"g";

fn push_count(sign: u8, count: usize, out: &mut Vec<u8>) {
    out.push(sign);
    push_number(count as u64, out);
    out.extend_from_slice(b"\r\n");
}

fn push_word(word: &[u8], out: &mut Vec<u8>) {
    push_count(b'$', word.len(), out);
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn push_command(words: &[&[u8]], out: &mut Vec<u8>) {
    push_count(b'*', words.len(), out);
    words.iter().for_each(|word| push_word(word, out));
}

/// A number behind a sign: the count of an array, a length, an answer.
fn count_of(sign: u8, line: &[u8]) -> Result<usize, Fault> {
    let digits = line.strip_prefix(&[sign]).ok_or_else(|| excerpt(line))?;
    usize::try_from(number_of(digits)?).map_err(|_| excerpt(line))
}

/// A bulk string at the front, and how long it is with its length and its end.
fn bulk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Fault> {
    let Some((first, start)) = line(bytes)? else { return Ok(None) };
    let end = start + count_of(b'$', first)?;
    let Some(whole) = bytes.get(start..end + 2) else { return Ok(None) };
    let text = whole.strip_suffix(b"\r\n").ok_or_else(|| excerpt(bytes))?;
    Ok(Some((text, end + 2)))
}

/// Says something at the start and reads its answer of one line.
fn opening(stream: &mut TcpStream, words: &[&[u8]], answer: &[u8]) -> Result<(), Fault> {
    let mut out = Vec::new();
    push_command(words, &mut out);
    write(stream, &out)?;
    let line = read_line(stream)?;
    if line.starts_with(answer) { Ok(()) } else { Err(excerpt(&line)) }
}

/// The reliable list: a message that is taken moves to a list of its consumer's own, and is
/// removed from there when it is done.
#[derive(Debug)]
pub struct List {
    queue: Vec<u8>,
    /// What it works on.
    own: Vec<u8>,
    /// Puts that have no answer yet: what the next number is about.
    puts: usize,
}

impl List {
    /// The connection of this number.
    pub fn new(queue: &str, number: usize) -> List {
        let own = format!("{queue}:{number}").into_bytes();
        List { queue: queue.as_bytes().to_vec(), own, puts: 0 }
    }
}

impl Talk for List {
    fn open(&mut self, stream: &mut TcpStream, _is_first: bool) -> Result<(), Fault> {
        opening(stream, &[b"PING"], b"+PONG")
    }

    fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
        push_command(&[b"LPUSH", &self.queue, body], out);
        self.puts += 1;
    }

    fn ask(&mut self, count: usize, out: &mut Vec<u8>) {
        for _ in 0..count {
            push_command(&[b"LMOVE", &self.queue, &self.own, b"RIGHT", b"LEFT"], out);
        }
    }

    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
        // From the far end, where the oldest is: the cheapest way for the server.
        held.handles().for_each(|body| push_command(&[b"LREM", &self.own, b"-1", body], out));
        true
    }

    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        _out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault> {
        let Some((first, end)) = line(bytes)? else { return Ok(None) };
        if first == b"$-1" {
            return Ok(Some((end, Event::Short(1))));
        }
        if first.starts_with(b"$") {
            let message = bulk(bytes)?;
            return Ok(message.map(|(body, end)| (end, Event::Message { handle: body, body })));
        }
        let count = count_of(b':', first)?;
        if self.puts > 0 {
            self.puts -= 1;
            return Ok(Some((end, Event::Confirmed(1))));
        }
        if count != 1 {
            return Err(Fault::Frame("LREM has not removed what was taken"));
        }
        Ok(Some((end, Event::Acknowledged(1))))
    }
}

/// A stream with a consumer group; what is done is deleted, as in a queue.
#[derive(Debug)]
pub struct Stream {
    queue: Vec<u8>,
    consumer: Vec<u8>,
    puts: usize,
    /// Messages that were asked for and have not come.
    asked: usize,
    /// Entries of the answer that is being read.
    entries: usize,
    acknowledged: usize,
    /// Whether `XACK` has been answered, and `XDEL` is next.
    is_deleting: bool,
}

impl Stream {
    /// The connection of this number.
    pub fn new(queue: &str, number: usize) -> Stream {
        Stream {
            queue: queue.as_bytes().to_vec(),
            consumer: format!("c{number}").into_bytes(),
            puts: 0,
            asked: 0,
            entries: 0,
            acknowledged: 0,
            is_deleting: false,
        }
    }

    /// `*1 *2 $queue *n`: what stands before the entries.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        for expected in [&b"*1"[..], b"*2"] {
            let Some((word, end)) = line(&bytes[at..])? else { return Ok(None) };
            if word != expected {
                return Err(excerpt(bytes));
            }
            at += end;
        }
        let Some((_, end)) = bulk(&bytes[at..])? else { return Ok(None) };
        at += end;
        let Some((word, end)) = line(&bytes[at..])? else { return Ok(None) };
        self.entries = count_of(b'*', word)?;
        Ok(Some(at + end))
    }

    /// `*2 $id *2 $b $body`: an entry.
    fn entry<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(usize, Event<'a>)>, Fault> {
        let Some((_, mut at)) = line(bytes)? else { return Ok(None) };
        let Some((handle, end)) = bulk(&bytes[at..])? else { return Ok(None) };
        at += end;
        let Some((_, end)) = line(&bytes[at..])? else { return Ok(None) };
        at += end;
        let Some((_, end)) = bulk(&bytes[at..])? else { return Ok(None) };
        at += end;
        let Some((body, end)) = bulk(&bytes[at..])? else { return Ok(None) };
        self.entries -= 1;
        self.asked = self.asked.checked_sub(1).ok_or_else(|| excerpt(bytes))?;
        Ok(Some((at + end, Event::Message { handle, body })))
    }

    fn number(&mut self, count: usize, bytes: &[u8]) -> Result<Event<'static>, Fault> {
        if count != self.acknowledged {
            return Err(excerpt(bytes));
        }
        self.is_deleting = !self.is_deleting;
        Ok(if self.is_deleting { Event::Other } else { Event::Acknowledged(count) })
    }
}

impl Talk for Stream {
    fn open(&mut self, stream: &mut TcpStream, is_first: bool) -> Result<(), Fault> {
        if is_first {
            let words: &[&[u8]] = &[b"XGROUP", b"CREATE", &self.queue, GROUP, b"$", b"MKSTREAM"];
            opening(stream, words, b"+OK")?;
        }
        opening(stream, &[b"PING"], b"+PONG")
    }

    fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
        push_command(&[b"XADD", &self.queue, b"*", b"b", body], out);
        self.puts += 1;
    }

    fn ask(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut digits = Vec::new();
        push_number(count as u64, &mut digits);
        let (queue, consumer) = (&self.queue, &self.consumer);
        let words: &[&[u8]] =
            &[b"XREADGROUP", b"GROUP", GROUP, consumer, b"COUNT", &digits, b"STREAMS", queue, b">"];
        push_command(words, out);
        self.asked += count;
    }

    fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
        self.acknowledged = held.len();
        let words: [&[&[u8]]; 2] = [&[b"XACK", &self.queue, GROUP], &[b"XDEL", &self.queue]];
        for words in words {
            push_count(b'*', words.len() + held.len(), out);
            words.iter().for_each(|word| push_word(word, out));
            held.handles().for_each(|id| push_word(id, out));
        }
        true
    }

    fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        _out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Fault> {
        if self.entries > 0 {
            let event = self.entry(bytes)?;
            return Ok(event);
        }
        let Some((first, end)) = line(bytes)? else { return Ok(None) };
        match first.first() {
            Some(b'$') if self.puts > 0 => {
                let Some((_, end)) = bulk(bytes)? else { return Ok(None) };
                self.puts -= 1;
                Ok(Some((end, Event::Confirmed(1))))
            }
            Some(b'*') if first == b"*-1" => {
                Ok(Some((end, Event::Short(std::mem::take(&mut self.asked)))))
            }
            Some(b'*') => {
                let Some(end) = self.head(bytes)? else { return Ok(None) };
                // What is not in this answer will not come.
                let missing = self.asked.saturating_sub(self.entries);
                self.asked -= missing;
                Ok(Some((end, if missing > 0 { Event::Short(missing) } else { Event::Other })))
            }
            Some(b':') => Ok(Some((end, self.number(count_of(b':', first)?, bytes)?))),
            _ => Err(excerpt(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_puts_messages_and_removals_apart() {
        let (mut list, mut out) = (List::new("q", 3), Vec::new());
        list.put(b"ab", &mut out);
        assert_eq!(out, b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$2\r\nab\r\n");
        assert_eq!(list.next(b":7\r\n", &mut out).unwrap(), Some((4, Event::Confirmed(1))));
        let message = Event::Message { handle: b"ab", body: b"ab" };
        assert_eq!(list.next(b"$2\r\nab\r\n", &mut out).unwrap(), Some((8, message)));
        assert_eq!(list.next(b"$-1\r\n", &mut out).unwrap(), Some((5, Event::Short(1))));
        assert_eq!(list.next(b":1\r\n", &mut out).unwrap(), Some((4, Event::Acknowledged(1))));
        assert!(list.next(b":0\r\n", &mut out).is_err());
        assert!(list.next(b"-ERR no\r\n", &mut out).is_err());
    }

    #[test]
    fn entries_of_a_stream_come_one_by_one_and_those_missing_are_told() {
        let (mut stream, mut out) = (Stream::new("q", 1), Vec::new());
        stream.ask(3, &mut out);
        let text = b"*1\r\n*2\r\n$1\r\nq\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nb\r\n$2\r\nab\r\n\
                     *2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nb\r\n$2\r\ncd\r\n";
        for end in 0..19 {
            assert_eq!(stream.next(&text[..end], &mut out).unwrap(), None, "{end}");
        }
        let (mut at, mut events) = (0, Vec::new());
        while let Some((count, event)) = stream.next(&text[at..], &mut out).unwrap() {
            at += count;
            events.push(event);
        }
        let message = |handle, body| Event::Message { handle, body };
        assert_eq!(
            events,
            [Event::Short(1), message(&b"1-0"[..], &b"ab"[..]), message(b"1-1", b"cd")]
        );
        assert_eq!((at, stream.asked), (text.len(), 0));
    }
}
