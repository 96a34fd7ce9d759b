//! Requests out of bytes.
//!
//! Owner: the client's thread. A head that lies whole in what was read is parsed in place; only what
//! is incomplete is kept, and grows with what has arrived.
//!
//! ```text
//!            head, no body            body whole
//!   Head ───────────────────► Head ◄──────────── Body
//!    │ │         head, a body                     ▲ │
//!    │ └──────────────────────────────────────────┘ │
//!    └── refused, or the peer's last one ── Closing ◄┘   what comes is dropped; Quit a moment later
//! ```
//!
//! Invariant: every request gets exactly one answer, in its turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::calls::{Asked, Plan};
use super::chunks::Chunks;
use super::encoder::NO_CONTENT;
use super::head::{self, Framing, Head, HeadReader, Method};
use super::note::{Answer, ContentType, Note, Say, Wishes};
use super::origin::Gatekeeper;
use super::problem::{Code, Problem};
use super::route::{self, Found, Route, Takes};
use super::{IDLE_MS, JSON_BYTES_MAX, LINGER_MS};
use crate::protocol::wire::{Content, Rest};
use crate::protocol::{Decoder, WireError};
use crate::words::clock::Time;
use crate::words::command::{Command, Request, Requests};
use crate::words::limits::Limits;
use crate::words::refusal::Refusal;

/// The reading half of a connection.
#[derive(Debug)]
pub(super) struct HttpDecoder {
    limits: Arc<Limits>,
    gate: Gatekeeper,
    state: State,
    /// Requests that the byte taken last has made: when a batch is full, that byte waits with them.
    made: VecDeque<Request>,
    owes_byte: bool,
    now: Time,
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    Body(Box<Body>),
    /// The last answer is on its way: what comes is dropped. Some peers must not be left before
    /// they have sent all, or they would not see it.
    Closing(Time),
    Quit,
}

/// A request whose body is not whole.
#[derive(Debug)]
struct Body {
    route: &'static Route,
    asked: Asked,
    wishes: Wishes,
    framed: Framed,
}

#[derive(Debug)]
enum Framed {
    Length(usize, Content),
    Chunks(Chunks),
}

impl HttpDecoder {
    /// For a new connection.
    pub(super) fn new(limits: Arc<Limits>, gate: Gatekeeper) -> HttpDecoder {
        HttpDecoder {
            limits,
            gate,
            state: State::Head(HeadReader::default()),
            made: VecDeque::new(),
            owes_byte: false,
            now: Time::default(),
        }
    }

    /// Takes bytes up to the end of one head or body, or all of them.
    fn step(&mut self, input: &mut &[u8]) {
        match &mut self.state {
            State::Head(reader) => match reader.take(input) {
                Ok(Some(head)) => self.head(&head),
                Ok(None) => {}
                Err(problem) => self.end_with(&problem, Wishes::default()),
            },
            State::Body(body) => {
                let (wishes, takes) = (body.wishes, body.route.takes);
                match body.framed.take(input) {
                    Ok(Some(content)) => self.whole_body(content),
                    Ok(None) => {}
                    Err(problem) => self.end_with(&with_key(problem, takes), wishes),
                }
            }
            State::Closing(_) | State::Quit => *input = &[],
        }
    }

    /// A whole head, whose request may be whole with it.
    fn head(&mut self, bytes: &[u8]) {
        let head = match head::parse(bytes) {
            Ok(head) => head,
            Err(problem) => return self.end_with(&problem, Wishes::default()),
        };
        let wishes = Wishes {
            head_only: head.method == Method::Head,
            closes: !head.keeps_alive,
            tells_keep_alive: head.is_old && head.keeps_alive,
            durability: None,
        };
        match self.begin(&head, wishes) {
            Ok(()) => {}
            Err(problem) if problem.code.closes() || head.framing != Framing::Length(0) => {
                self.end_with(&problem, wishes);
            }
            Err(problem) => self.say(Say::Answer(problem.answer()), wishes),
        }
    }

    fn begin(&mut self, head: &Head<'_>, wishes: Wishes) -> Result<(), Problem> {
        self.gate.check(head)?;
        let (route, names) = match route::find(head.method, head.path)? {
            Found::Call(route, names) => (route, names),
            Found::Methods(allow) if head.framing == Framing::Length(0) => {
                let mut answer = Answer::new(NO_CONTENT, ContentType::Text, "");
                answer.fields = format!("Allow: {allow}\r\n");
                self.say(Say::Answer(answer), wishes);
                return Ok(());
            }
            Found::Methods(_) => return Err(no_body()),
        };
        let bytes_max = self.check_body(head, route)?;
        let content_type = head.content_type.map(str::to_owned);
        let asked = Asked { names, query: head.query.to_owned(), content_type };
        let framed = match head.framing {
            Framing::Length(0) => {
                self.call(route, &asked, Vec::new(), wishes);
                return Ok(());
            }
            Framing::Chunked => Framed::Chunks(Chunks::new(bytes_max)),
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= bytes_max => Framed::Length(length, Content::default()),
                _ => return Err(with_key(Problem::too_large(bytes_max), route.takes)),
            },
        };
        if head.expects_continue {
            self.say(Say::Continue, Wishes::default());
        }
        self.state = State::Body(Box::new(Body { route, asked, wishes, framed }));
        Ok(())
    }

    /// Whether the route takes a body of this kind, and how many bytes of it at most.
    fn check_body(&self, head: &Head<'_>, route: &Route) -> Result<usize, Problem> {
        let has_body = head.framing != Framing::Length(0);
        if head.content_encoding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let text = "no coding of the content is understood here";
            return Err(Problem::new(Code::UnsupportedMediaType, text));
        }
        match route.takes {
            Takes::Content => Ok(self.limits.body_bytes_max()),
            Takes::Nothing if has_body => Err(no_body()),
            Takes::Json if has_body && !head.content_type.is_some_and(is_json) => {
                let text = "the body has to be of the type application/json";
                Err(Problem::new(Code::UnsupportedMediaType, text))
            }
            Takes::Nothing | Takes::Json => Ok(JSON_BYTES_MAX),
        }
    }

    fn whole_body(&mut self, content: Vec<u8>) {
        let state = std::mem::replace(&mut self.state, State::Head(HeadReader::default()));
        if let State::Body(body) = state {
            self.call(body.route, &body.asked, content, body.wishes);
        }
    }

    /// A whole request.
    fn call(&mut self, route: &Route, asked: &Asked, content: Vec<u8>, wishes: Wishes) {
        let mut plan = Plan::default();
        let planned = match route.call {
            Some(call) => call(asked, content, &mut plan),
            None => Err(Problem::new(Code::NotSupported, "this call is not built yet")),
        };
        match planned {
            Err(problem) if problem.code.closes() => self.end_with(&problem, wishes),
            Err(problem) => self.say(Say::Answer(problem.answer()), wishes),
            Ok(()) => {
                let wishes = Wishes { durability: plan.durability, ..wishes };
                for (say, command) in plan.steps {
                    self.made.push_back(Request { tag: Note { say, wishes }.tag(), command });
                }
                self.end_if_last(wishes);
            }
        }
    }

    /// Says something that needs nothing of the core but its turn.
    fn say(&mut self, say: Say, wishes: Wishes) {
        let is_answer = say != Say::Continue;
        let tag = Note { say, wishes }.tag();
        self.made.push_back(Request { tag, command: Command::Echo });
        if is_answer {
            self.end_if_last(wishes);
        }
    }

    /// Behind the last answer of a connection whose requests are all whole.
    fn end_if_last(&mut self, wishes: Wishes) {
        if wishes.closes {
            self.made.push_back(Request { tag: Default::default(), command: Command::Quit });
            self.state = State::Quit;
        }
    }

    /// Says what is wrong, and ends the connection: where the next request begins is not known, or
    /// it does not pay to read up to there.
    fn end_with(&mut self, problem: &Problem, wishes: Wishes) {
        let say = Say::Answer(problem.answer());
        let tag = Note { say, wishes: Wishes { closes: true, ..wishes } }.tag();
        self.made.push_back(Request { tag, command: Command::Echo });
        self.state = State::Closing(self.now.plus(LINGER_MS));
    }

    /// Whether a body is whole because its rest was brought to its place.
    fn has_rest(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.framed.has_rest())
    }

    /// Hands on what was made. Says whether there is room for more.
    fn hand_on(&mut self, requests: &mut Requests) -> bool {
        while !requests.is_full() {
            let Some(Request { tag, command }) = self.made.pop_front() else { return true };
            requests.push(tag, command);
        }
        false
    }
}

impl Decoder for HttpDecoder {
    fn decode(
        &mut self,
        now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        self.now = now;
        let mut input = bytes;
        if !self.hand_on(requests) {
            return Ok(0);
        }
        if std::mem::take(&mut self.owes_byte) {
            input = input.get(1..).unwrap_or_default();
        }
        while !input.is_empty() || self.has_rest() {
            self.step(&mut input);
            if !self.hand_on(requests) {
                let taken = bytes.len() - input.len();
                self.owes_byte = !self.made.is_empty() && taken > 0;
                return Ok(taken - usize::from(self.owes_byte));
            }
            if matches!(self.state, State::Quit) {
                break;
            }
        }
        Ok(bytes.len() - input.len())
    }

    fn rest(&mut self) -> Option<Rest<'_>> {
        match &mut self.state {
            State::Body(body) => body.framed.rest(),
            _ => None,
        }
    }

    fn has_more(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    fn can_be_refused(&self) -> bool {
        true
    }

    fn refuse(&mut self, refusal: Refusal, requests: &mut Requests) {
        if let State::Body(body) = &self.state {
            let wishes = body.wishes;
            self.end_with(&Problem::of(refusal), wishes);
            self.hand_on(requests);
        }
    }

    fn run_out_of_time(&mut self, requests: &mut Requests) {
        let text = "the request was not whole in limits.frame_timeout";
        let problem = Problem::new(Code::RequestTimeout, text);
        self.end_with(&problem, Wishes::default());
        self.hand_on(requests);
    }

    fn pending_bytes(&self) -> usize {
        match &self.state {
            State::Head(reader) => reader.pending_bytes(),
            State::Body(body) => body.framed.pending_bytes(),
            State::Closing(_) | State::Quit => 0,
        }
    }

    fn idle_timeout_ms(&self) -> Option<u64> {
        Some(IDLE_MS)
    }

    fn next_tick(&self) -> Option<Time> {
        match self.state {
            State::Closing(until) => Some(until),
            _ => None,
        }
    }

    fn tick(&mut self, now: Time, requests: &mut Requests) -> Result<(), WireError> {
        if matches!(self.state, State::Closing(until) if until <= now) {
            self.state = State::Quit;
            requests.push(Default::default(), Command::Quit);
        }
        Ok(())
    }
}

impl Framed {
    /// Takes from the front of `input` what is missing; the body once it is whole.
    fn take(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        match self {
            Framed::Length(length, content) => {
                Ok(content.take(*length, input).map(|content| content.into_owned()))
            }
            Framed::Chunks(chunks) => chunks.take(input),
        }
    }

    fn rest(&mut self) -> Option<Rest<'_>> {
        match self {
            Framed::Length(length, content) => Some(content.rest(*length)),
            Framed::Chunks(chunks) => chunks.rest(),
        }
    }

    fn has_rest(&self) -> bool {
        match self {
            Framed::Length(length, content) => content.pending_bytes() >= *length,
            Framed::Chunks(chunks) => chunks.has_rest(),
        }
    }

    /// Bytes that it takes in memory, and what shows that it has begun.
    fn pending_bytes(&self) -> usize {
        match self {
            Framed::Length(_, content) => 1 + content.capacity(),
            Framed::Chunks(chunks) => chunks.pending_bytes(),
        }
    }
}

/// A body where none is taken.
fn no_body() -> Problem {
    Problem::new(Code::Invalid, "this call takes no body")
        .with("errors", vec![super::problem::error("", "a body is there")])
}

/// Says what sets the limit that a message was too large for.
fn with_key(problem: Problem, takes: Takes) -> Problem {
    match (problem.code, takes) {
        (Code::TooLarge, Takes::Content) => problem.with("key", "limits.max_message_size"),
        _ => problem,
    }
}

fn is_json(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim_ascii();
    name.eq_ignore_ascii_case("application/json")
}
