//! What a test puts around connections: a protocol of lines, and the ends of the channels that a
//! dispatcher and a main thread would hold.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::Shared;
use crate::channels::{self, End, Event, Notice};
use crate::protocol::{Decoder, Encoder, Halves, Manner, Protocol, Setup, WireError};
use crate::wire::admission::Admission;
use crate::wire::threads::Threads;
use crate::words::clock::{Clock, Time};
use crate::words::command::{Command, Delivery, Put, Reply, Request, Requests, Tag, Target};
use crate::words::ids::ConnectionId;
use crate::words::limits::{Budget, LimitValues, Limits};
use crate::words::output::Output;

/// Lines: `quit`, `bad` (a mistake), `panic`, `tick N` (in N milliseconds); any other is a put.
#[derive(Default)]
pub(crate) struct LineDecoder {
    line: Vec<u8>,
    due: Option<Time>,
    /// How long a peer may be idle.
    idle_ms: Option<u64>,
}

impl LineDecoder {
    /// For a protocol whose peers must not be idle for longer.
    pub(crate) fn with_idle_timeout(idle_ms: u64) -> LineDecoder {
        LineDecoder { idle_ms: Some(idle_ms), ..LineDecoder::default() }
    }
}

impl Decoder for LineDecoder {
    fn decode(
        &mut self,
        now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        for (index, byte) in bytes.iter().enumerate() {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = mem::take(&mut self.line);
            match &line[..] {
                b"quit" => {
                    requests.push(Tag::None, Command::Quit);
                    return Ok(index + 1);
                }
                b"bad" => return Err(WireError::BadMagic),
                b"panic" => panic!("the peer asked for it"),
                _ if line.starts_with(b"tick ") => {
                    let millis = std::str::from_utf8(&line[5..]).unwrap().parse().unwrap();
                    self.due = Some(now.plus(millis));
                }
                _ => requests.push(Tag::None, Command::Put(Put::new(Target::Referred, line))),
            }
            if requests.is_full() {
                return Ok(index + 1);
            }
        }
        Ok(bytes.len())
    }

    fn run_out_of_time(&mut self, requests: &mut Requests) {
        let line = b"out of time".to_vec();
        requests.push(Tag::None, Command::Put(Put::new(Target::Referred, line)));
    }

    fn idle_timeout_ms(&self) -> Option<u64> {
        self.idle_ms
    }

    fn pending_bytes(&self) -> usize {
        self.line.len()
    }

    fn next_tick(&self) -> Option<Time> {
        self.due
    }

    fn tick(&mut self, _now: Time, requests: &mut Requests) -> Result<(), WireError> {
        self.due = None;
        requests.push(Tag::None, Command::Echo);
        Ok(())
    }
}

struct MuteEncoder;

impl Encoder for MuteEncoder {
    fn reply(&mut self, _tag: &Tag, _reply: &Reply, _out: &mut Output) {}

    fn deliver(&mut self, _tag: &Tag, _delivery: &Delivery<'_>, _out: &mut Output) {}
}

fn connect(_setup: &Setup) -> Halves {
    (Box::new(LineDecoder::default()), Box::new(MuteEncoder))
}

/// A protocol of lines, for tests of what is around protocols.
pub(crate) static LINES: Protocol = Protocol {
    name: "lines",
    default_address: "127.0.0.1:0",
    default_socket: None,
    manner: Manner::Serial,
    port_shared_with: None,
    first_queue: None,
    options: &[],
    connect,
    too_many_connections: b"too many\n",
};

/// What a daemon would have around its connections.
pub(crate) struct Stage {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Receiver<Event>,
    pub(crate) notices: crossbeam_channel::Receiver<Notice>,
}

impl Stage {
    pub(crate) fn new(limits: LimitValues) -> Stage {
        let (events_in, events) = channels::events();
        let (notices_in, notices) = channels::notices();
        let (limits, budget) = (Arc::new(Limits::new(&limits)), Arc::<Budget>::default());
        let shared = Arc::new(Shared {
            events: events_in,
            limits: limits.clone(),
            admission: Arc::new(Admission::new(limits, budget.clone())),
            budget,
            clock: Clock::start(),
            clients: Arc::default(),
            threads: Threads::new(notices_in),
            log: slog::Logger::root(slog::Discard, slog::o!()),
        });
        Stage { shared, events, notices }
    }

    /// The next event, which is waited for.
    pub(crate) fn event(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event was due")
    }

    /// Whether no event has come.
    pub(crate) fn is_quiet(&self) -> bool {
        self.events.try_recv().is_err()
    }

    /// The bodies of the puts of the next event.
    pub(crate) fn puts(&self) -> Vec<String> {
        match self.event() {
            Event::Requests { requests, .. } => requests.iter().map(body).collect(),
            other => panic!("no requests but {}", name(&other)),
        }
    }

    /// The end, which must be next and last.
    pub(crate) fn end(&self) -> End {
        match self.event() {
            Event::Ended { connection: ConnectionId(9), end } => {
                assert!(self.is_quiet());
                end
            }
            other => panic!("no end but {}", name(&other)),
        }
    }
}

/// What a request asks for, as short as it can be told.
pub(crate) fn body(request: &Request) -> String {
    match &request.command {
        Command::Put(put) => String::from_utf8(put.body.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

/// What an event is, for messages of failing tests.
pub(crate) fn name(event: &Event) -> String {
    match event {
        Event::Opened(_) => "Opened".to_owned(),
        Event::Requests { requests, .. } => format!("{} requests", requests.len()),
        Event::HungUp(_) => "HungUp".to_owned(),
        Event::Ended { end, .. } => format!("Ended {end:?}"),
        _ => "something else".to_owned(),
    }
}
