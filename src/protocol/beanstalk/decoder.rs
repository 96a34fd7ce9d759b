//! Command lines and job bodies into requests.
//!
//! Owner: the client's thread. A command that lies whole in what was read is parsed in place; only
//! an incomplete line or body is kept, and grows with what has arrived.
//!
//! Invariant: every line of the peer becomes exactly one request, in its order, so that every line
//! gets one answer; lines that are wrong in themselves become echoes of the error.

use std::borrow::Cow;
use std::sync::Arc;

use super::line::{self, Parsed, PutHead};
use super::{FIRST_TUBE, Note};
use crate::protocol::wire::{Content, Rest, is_http};
use crate::protocol::{Decoder, WireError};
use crate::words::change::Attributes;
use crate::words::clock::Time;
use crate::words::command::{Command, Put, Requests, Tag, Target};
use crate::words::ids::QueueName;
use crate::words::limits::Limits;
use crate::words::refusal::Refusal;
use crate::words::statistics::Counted;

/// The longest command line, its end included, in bytes.
const LINE_BYTES_MAX: usize = 224;
/// The end of a line and of a body, in bytes.
const CRLF: [u8; 2] = *b"\r\n";

/// The reading half of a connection.
pub struct BeanstalkDecoder {
    limits: Arc<Limits>,
    first_tube: QueueName,
    /// The last tube named: frameworks name the same one over and over.
    last_tube: QueueName,
    state: State,
    /// Whether no line was complete yet: only the first one can be a browser's.
    is_first_line: bool,
}

/// ```text
///            line whole               put line               body and CRLF
///   Line ──────────────► Line     ──────────────► Body ──────────────────► Line
///    │ 224 bytes and no end          too big │
///    ▼                               refused ▼     all of it
///   Overlong ──end──► Line                 Swallow ──────────► Line
/// ```
enum State {
    /// The start of a line, empty between commands.
    Line(Vec<u8>),
    /// Part of what follows an overlong line's start, up to its end.
    Overlong(Vec<u8>),
    Body(Body),
    /// So many bytes of a body that was refused.
    Swallow(u64),
    /// The peer said good-bye.
    Quit,
}

struct Body {
    head: PutHead,
    /// The body and the two bytes behind it.
    content: Content,
}

impl BeanstalkDecoder {
    /// For a new connection.
    pub fn new(limits: Arc<Limits>) -> BeanstalkDecoder {
        let first_tube = QueueName::new(FIRST_TUBE.as_bytes()).expect("the first tube has a name");
        BeanstalkDecoder {
            limits,
            last_tube: first_tube.clone(),
            first_tube,
            state: State::Line(Vec::new()),
            is_first_line: true,
        }
    }

    /// Takes bytes up to the end of one line or body, or all of them.
    fn step(&mut self, bytes: &[u8], requests: &mut Requests) -> Result<usize, WireError> {
        match &mut self.state {
            State::Line(kept) | State::Overlong(kept) if !kept.is_empty() => {
                let kept = std::mem::take(kept);
                self.continue_line(kept, bytes, requests)
            }
            State::Line(_) | State::Overlong(_) => self.whole_line(bytes, requests),
            State::Body(body) => {
                let mut rest = bytes;
                if let Some(content) = body.content.take(body.length(), &mut rest) {
                    push_body(body.head, content, requests);
                    self.state = State::Line(Vec::new());
                }
                Ok(bytes.len() - rest.len())
            }
            State::Swallow(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Line(Vec::new());
                }
                Ok(taken)
            }
            State::Quit => Ok(0),
        }
    }

    /// A line that begins with these bytes.
    fn whole_line(&mut self, bytes: &[u8], requests: &mut Requests) -> Result<usize, WireError> {
        let block = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
        let Some(end) = line_end(block) else {
            return self.keep_block(Vec::from(block), block.len());
        };
        let rest = bytes.get(end..).unwrap_or_default();
        let line = block.get(..end - CRLF.len()).unwrap_or_default();
        Ok(end + self.line(line, rest, requests)?)
    }

    /// A line that began with an earlier read.
    fn continue_line(
        &mut self,
        mut kept: Vec<u8>,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        let kept_before = kept.len();
        let room = LINE_BYTES_MAX.saturating_sub(kept_before).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        let Some(end) = line_end(&kept) else {
            return self.keep_block(kept, room);
        };
        let taken = end - kept_before;
        let rest = bytes.get(taken..).unwrap_or_default();
        let line = kept.get(..end - CRLF.len()).unwrap_or_default();
        Ok(taken + self.line(line, rest, requests)?)
    }

    /// Keeps a block without an end. A full one is let go: like the original, whose buffer is as
    /// long, we look for an overlong line's end in blocks of the line limit.
    fn keep_block(&mut self, block: Vec<u8>, taken: usize) -> Result<usize, WireError> {
        if self.is_first_line && is_http(&block) {
            return Err(WireError::HttpRequest);
        }
        if block.len() == LINE_BYTES_MAX {
            self.is_first_line = false;
            self.state = State::Overlong(Vec::new());
            return Ok(taken);
        }
        self.state = match self.state {
            State::Overlong(_) => State::Overlong(block),
            _ => State::Line(block),
        };
        Ok(taken)
    }

    /// A line without its end. Returns how much it took of what follows, which is more than
    /// nothing for a body alone.
    fn line(
        &mut self,
        line: &[u8],
        rest: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        if matches!(self.state, State::Overlong(_)) {
            self.state = State::Line(Vec::new());
            requests.push(Note::BadFormat.tag(), Command::Echo);
            return Ok(0);
        }
        if std::mem::take(&mut self.is_first_line) && is_http(line) {
            return Err(WireError::HttpRequest);
        }
        self.state = State::Line(Vec::new());
        match line::parse(line) {
            Parsed::Command(command) => requests.push(Tag::None, command),
            Parsed::Tagged(note, command) => requests.push(note.tag(), command),
            Parsed::Tube(name, command) => {
                let command = command(self.tube(name));
                requests.push(Tag::None, command);
            }
            Parsed::Pause(name, for_ms) => {
                let queue = self.tube(name);
                requests.push(Tag::None, Command::Pause { queue, for_ms });
            }
            Parsed::Put(head) => return Ok(self.put(head, rest, requests)),
            Parsed::Quit => {
                self.state = State::Quit;
                requests.push(Tag::None, Command::Quit);
            }
        }
        Ok(0)
    }

    /// A put line, whose body begins with `rest`.
    fn put(&mut self, head: PutHead, rest: &[u8], requests: &mut Requests) -> usize {
        let size = usize::try_from(head.body_bytes).unwrap_or(usize::MAX);
        // Too big comes before what is wrong at the end of the line, as in the original. Said at
        // once: a client that waits for the answer before it sends the body gets it as well.
        if size > self.limits.body_bytes_max() {
            self.state = State::Swallow(u64::from(head.body_bytes) + CRLF.len() as u64);
            push_refusal(Refusal::TooLarge, head, requests);
            return 0;
        }
        if !head.is_line_whole {
            requests.push(
                Note::BadFormat.tag(),
                Command::Malformed { counted: Counted::Put, costs_id: false },
            );
            return 0;
        }
        if let Some((body, after)) = rest.split_at_checked(size)
            && let Some(end) = after.get(..CRLF.len())
        {
            push_put(head, body.to_vec(), end, requests);
            return size + CRLF.len();
        }
        self.state = State::Body(Body { head, content: Content::default() });
        0
    }

    /// Whether the rest of a body has been brought to its place.
    fn has_rest(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.content.pending_bytes() >= body.length())
    }

    /// The tube of this name, which has been checked.
    fn tube(&mut self, name: &str) -> QueueName {
        if name == FIRST_TUBE {
            return self.first_tube.clone();
        }
        if name != self.last_tube.as_str() {
            self.last_tube =
                QueueName::new(name.as_bytes()).expect("a tube's name is a queue's name");
        }
        self.last_tube.clone()
    }
}

/// Where the first line of a block ends, its CR LF included.
///
/// The first CR alone decides: when no LF follows it, the original does not find an end in this
/// block any more.
fn line_end(block: &[u8]) -> Option<usize> {
    let cr = block.iter().position(|byte| *byte == b'\r')?;
    (block.get(cr + 1) == Some(&b'\n')).then_some(cr + CRLF.len())
}

/// A body with the two bytes behind it.
fn push_body(head: PutHead, content: Cow<'_, [u8]>, requests: &mut Requests) {
    let Some((body, end)) = content.split_last_chunk::<{ CRLF.len() }>() else { return };
    let (length, end) = (body.len(), *end);
    let body = match content {
        Cow::Borrowed(_) => body.to_vec(),
        Cow::Owned(mut bytes) => {
            bytes.truncate(length);
            bytes
        }
    };
    push_put(head, body, &end, requests);
}

fn push_refusal(refusal: Refusal, head: PutHead, requests: &mut Requests) {
    let body_bytes = u64::from(head.body_bytes);
    requests.push(Tag::None, Command::PutRefused { refusal, body_bytes });
}

fn push_put(head: PutHead, body: Vec<u8>, end: &[u8], requests: &mut Requests) {
    if end != CRLF {
        let malformed = Command::Malformed { counted: Counted::Put, costs_id: true };
        requests.push(Note::ExpectedCrlf.tag(), malformed);
        return;
    }
    let put = Put {
        queue: Target::Referred,
        priority: Some(head.priority),
        delay_ms: head.delay_ms,
        time_to_run_ms: Some(head.time_to_run_ms),
        time_to_live_ms: None,
        attributes: Attributes::default(),
        body: body.into(),
    };
    requests.push(Tag::None, Command::Put(put));
}

impl Body {
    /// How long the content is.
    fn length(&self) -> usize {
        usize::try_from(self.head.body_bytes).unwrap_or(usize::MAX).saturating_add(CRLF.len())
    }
}

impl Decoder for BeanstalkDecoder {
    fn decode(
        &mut self,
        _now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        let mut taken = 0;
        while (taken < bytes.len() || self.has_rest())
            && !requests.is_full()
            && !matches!(self.state, State::Quit)
        {
            taken += self.step(bytes.get(taken..).unwrap_or_default(), requests)?;
        }
        Ok(taken)
    }

    fn rest(&mut self) -> Option<Rest<'_>> {
        match &mut self.state {
            State::Body(body) => {
                let length = body.length();
                Some(body.content.rest(length))
            }
            _ => None,
        }
    }

    fn can_be_refused(&self) -> bool {
        true
    }

    fn refuse(&mut self, refusal: Refusal, requests: &mut Requests) {
        if let State::Body(body) = &self.state {
            let missing = body.length().saturating_sub(body.content.pending_bytes());
            push_refusal(refusal, body.head, requests);
            self.state =
                if missing > 0 { State::Swallow(missing as u64) } else { State::Line(Vec::new()) };
        }
    }

    fn pending_bytes(&self) -> usize {
        match &self.state {
            State::Line(kept) => kept.len(),
            State::Overlong(kept) => kept.len().max(1),
            State::Body(body) => body.content.capacity().max(1),
            State::Swallow(_) => 1,
            State::Quit => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::command::Request;
    use crate::words::limits::{LimitValues, REQUESTS_PER_BATCH_MAX};

    fn decoder() -> BeanstalkDecoder {
        let values = LimitValues { max_message_size: 10, ..LimitValues::default() };
        BeanstalkDecoder::new(Arc::new(Limits::new(&values)))
    }

    /// Everything that these pieces become, batch by batch.
    fn decode_pieces<'a>(
        decoder: &mut BeanstalkDecoder,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<Request>, WireError> {
        let mut all = Vec::new();
        for (number, mut piece) in pieces.enumerate() {
            // Every other piece goes straight to where it belongs, if it does.
            if let Some(rest) = decoder.rest().filter(|_| number % 2 == 1) {
                let (direct, behind) = piece.split_at(rest.missing.min(piece.len()));
                rest.bytes.extend_from_slice(direct);
                piece = behind;
                let mut requests = Requests::default();
                assert_eq!(decoder.decode(Time(0), &[], &mut requests), Ok(0));
                all.extend(requests.take());
            }
            while !piece.is_empty() {
                let mut requests = Requests::default();
                let result = decoder.decode(Time(0), piece, &mut requests);
                all.extend(requests.take());
                let taken = result?;
                if all.last().is_some_and(|request| request.command == Command::Quit) {
                    break;
                }
                assert!(taken > 0, "no progress");
                piece = &piece[taken..];
            }
        }
        Ok(all)
    }

    fn decode(bytes: &[u8]) -> Vec<Request> {
        decode_pieces(&mut decoder(), std::iter::once(bytes)).unwrap()
    }

    /// Short words for requests, so that tests read as dialogues.
    fn said(requests: &[Request]) -> Vec<String> {
        requests
            .iter()
            .map(|request| match (&request.command, Note::of(&request.tag)) {
                (Command::Put(put), None) => format!("put {}", put.body.escape_ascii()),
                (Command::ShowReferred, None) => String::from("used"),
                (Command::Echo, Some(note)) => format!("{note:?}"),
                (Command::PutRefused { refusal, body_bytes }, None) => {
                    format!("{refusal:?} {body_bytes}")
                }
                (Command::Malformed { counted, costs_id: true }, Some(note)) => {
                    format!("{note:?} {counted:?} with an id")
                }
                (Command::Malformed { counted, costs_id: false }, Some(note)) => {
                    format!("{note:?} {counted:?}")
                }
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn story(bytes: &[u8]) -> Vec<String> {
        said(&decode(bytes))
    }

    const USED: &[u8] = b"list-tube-used\r\n";

    fn then_used(bytes: &[u8]) -> Vec<u8> {
        [bytes, USED].concat()
    }

    #[test]
    fn a_put_brings_its_body() {
        let requests = decode(b"put 5 1 60 3\r\nabc\r\n");
        let put = Put {
            priority: Some(5),
            delay_ms: 1_000,
            time_to_run_ms: Some(60_000),
            ..Put::new(Target::Referred, b"abc".to_vec())
        };
        assert_eq!(requests, [Request { tag: Tag::None, command: Command::Put(put) }]);
        assert_eq!(story(b"put 0 0 60 0\r\n\r\n"), ["put "]);
        assert_eq!(story(b"put 0 0 60 4\r\n\r\n\r\n\r\n"), ["put \\r\\n\\r\\n"]);
    }

    #[test]
    fn a_body_without_its_end_costs_the_two_bytes_behind_it() {
        let expected = ["ExpectedCrlf Put with an id", "used"];
        assert_eq!(story(&then_used(b"put 0 0 60 3\r\nabcde")), expected);
        assert_eq!(story(&then_used(b"put 0 0 60 3\r\nabc\n\r")), expected);
        let out_of_step = ["ExpectedCrlf Put with an id", "UnknownCommand"];
        assert_eq!(story(&then_used(b"put 0 0 60 3\r\nab\r\n")), out_of_step);
    }

    #[test]
    fn a_body_at_the_limit_is_taken_and_one_over_it_is_swallowed() {
        assert_eq!(
            story(&then_used(b"put 0 0 9 10\r\n0123456789\r\n")),
            ["put 0123456789", "used"]
        );
        let expected = ["TooLarge 11", "used"];
        assert_eq!(story(&then_used(b"put 0 0 9 11\r\n0123456789a\r\n")), expected);
        // Neither what is behind the number nor the end of the body matters then.
        assert_eq!(story(&then_used(b"put 0 0 9 11 x\r\n0123456789abc")), expected);
    }

    #[test]
    fn a_huge_body_is_swallowed_without_being_kept() {
        let mut decoder = decoder();
        let mut requests = Requests::default();
        decoder.decode(Time(0), b"put 0 0 9 4294967295\r\n", &mut requests).unwrap();
        assert_eq!(said(&requests.take()), ["TooLarge 4294967295"], "said before it comes");
        for _ in 0..100 {
            decoder.decode(Time(0), &[b'x'; 1_000], &mut requests).unwrap();
        }
        assert_eq!(decoder.pending_bytes(), 1);
        assert!(requests.is_empty());
    }

    #[test]
    fn what_follows_the_last_number_of_a_put_is_bad_format_and_no_body() {
        let expected = ["BadFormat Put", "UnknownCommand", "used"];
        assert_eq!(story(&then_used(b"put 0 0 60 3 \r\nabc\r\n")), expected);
    }

    #[test]
    fn a_kept_body_takes_no_more_room_than_twice_what_has_arrived() {
        let limits = Arc::new(Limits::new(&LimitValues::default()));
        let mut decoder = BeanstalkDecoder::new(limits);
        let mut requests = Requests::default();
        decoder.decode(Time(0), b"put 0 0 9 16000000\r\n", &mut requests).unwrap();
        assert_eq!(decoder.pending_bytes(), 1);
        let mut arrived = 0;
        while arrived < 15_000_000 {
            decoder.decode(Time(0), &[b'x'; 10_000], &mut requests).unwrap();
            arrived += 10_000;
            // The two bytes behind it are kept with it.
            assert!(decoder.pending_bytes() <= (2 * arrived).min(16_000_002));
        }
    }

    #[test]
    fn lines_over_224_bytes_are_answered_once_at_their_end() {
        let line = |len: usize| then_used(&[&vec![b'x'; len][..], b"\r\n"].concat());
        assert_eq!(story(&line(222)), ["UnknownCommand", "used"]);
        // The end is cut in two by the limit: the next line's end is the one that counts.
        assert_eq!(story(&line(223)), ["BadFormat"]);
        for len in [224, 225, 446, 448, 1_000] {
            assert_eq!(story(&line(len)), ["BadFormat", "used"], "{len}");
        }
        assert_eq!(story(&line(447)), ["BadFormat"]);
    }

    #[test]
    fn a_carriage_return_inside_a_line_hides_its_end() {
        assert_eq!(story(&then_used(b"a\rb\r\n")), Vec::<String>::new());
        let hidden = [&b"a\r"[..], &[b'b'; 222], b"\r\n"].concat();
        assert_eq!(story(&then_used(&hidden)), ["BadFormat", "used"]);
    }

    #[test]
    fn a_bare_line_feed_ends_nothing() {
        assert_eq!(story(b"list-tube-used\nlist-tube-used\r\n"), ["BadFormat"]);
        assert_eq!(story(b"\nlist-tube-used\r\n"), ["UnknownCommand"]);
    }

    #[test]
    fn nothing_is_read_after_quit() {
        let requests = decode(b"quit\r\nlist-tube-used\r\n");
        assert_eq!(requests, [Request { tag: Tag::None, command: Command::Quit }]);
    }

    #[test]
    fn a_browser_is_cut_off_at_its_first_line_and_only_there() {
        let first = |bytes: &[u8]| decode_pieces(&mut decoder(), std::iter::once(bytes));
        assert_eq!(first(b"POST / HTTP/1.1\r\n"), Err(WireError::HttpRequest));
        assert_eq!(first(b"Host: a\r\n"), Err(WireError::HttpRequest));
        let long = [&b"GET /"[..], &[b'x'; 500]].concat();
        assert_eq!(first(&long), Err(WireError::HttpRequest));
        assert_eq!(story(b"list-tube-used\r\nGET / HTTP/1.1\r\n"), ["used", "UnknownCommand"]);
    }

    #[test]
    fn a_full_batch_is_left_before_the_next_line() {
        let mut decoder = decoder();
        let bytes = USED.repeat(300);
        let mut requests = Requests::default();
        let taken = decoder.decode(Time(0), &bytes, &mut requests).unwrap();
        assert_eq!(requests.len(), REQUESTS_PER_BATCH_MAX);
        assert_eq!(taken, USED.len() * REQUESTS_PER_BATCH_MAX);
        assert_eq!(decode(&bytes).len(), 300);
    }

    /// A small generator of the tests' own (xorshift), so that a seed replays a failure.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound as u64).unwrap()
        }
    }

    fn seed() -> u64 {
        let seed = std::env::var("PHPMQ_TEST_SEED").ok().and_then(|text| text.parse().ok());
        seed.unwrap_or(0x5eed_0001)
    }

    #[test]
    fn how_the_bytes_are_cut_changes_nothing() {
        const PARTS: [&[u8]; 16] = [
            b"put 0 0 60 3\r\nabc\r\n",
            b"put 1 2 3 0\r\n\r\n",
            b"put 0 0 1 2\r\nabcd",
            b"put 0 0 1 12\r\n0123456789ab\r\n",
            b"reserve\r\n",
            b"use t\r\n",
            b"watch default\r\n",
            b"delete 1\r\n",
            b"pause-tube t 3\r\n",
            b"x\r\n",
            b"\r\n",
            b"a\rb\r\n",
            b"\0\r\n",
            b"put 0 0 1 3 \r\n",
            b"reserve-batch 1 0\r\n",
            &[b'y'; 230],
        ];
        println!("seed {}", seed());
        let mut random = Random(seed());
        for _ in 0..2_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.below(12) {
                bytes.extend_from_slice(PARTS[random.below(PARTS.len())]);
            }
            let whole = decode(&bytes);
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len().min(40)));
                pieces.push(piece);
                rest = after;
            }
            let cut = decode_pieces(&mut decoder(), pieces.into_iter()).unwrap();
            assert_eq!(said(&cut), said(&whole), "{}", bytes.escape_ascii());
            assert_eq!(cut, whole);
        }
    }

    #[test]
    fn random_bytes_do_no_harm_however_they_are_cut() {
        const ALPHABET: &[u8] = b"put 0123456789 reserve-with-timeout\r\n\r\n\0\xff*";
        println!("seed {}", seed());
        let mut random = Random(seed());
        for _ in 0..5_000 {
            let length = random.below(700);
            let random_byte = |_| ALPHABET[random.below(ALPHABET.len())];
            let bytes: Vec<u8> = (0..length).map(random_byte).collect();
            let whole = decode(&bytes);
            let by_bytes = decode_pieces(&mut decoder(), bytes.chunks(1)).unwrap();
            assert_eq!(by_bytes, whole, "{}", bytes.escape_ascii());
        }
    }
}
