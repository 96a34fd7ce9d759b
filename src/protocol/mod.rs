//! The wire protocols: one folder and one row of [`PROTOCOLS`] each.
//!
//! A decoder turns the bytes of one connection into requests, an encoder turns answers and
//! messages into bytes. Neither does I/O, waits, logs or reads a clock; no protocol knows another.
//! The decoder lives in the client's thread, the encoder in the dispatcher; what one must tell the
//! other goes through the core as the [`Tag`] of a [`Command::Echo`](crate::words::command::Command).

pub mod beanstalk;
pub mod console;
pub mod http;
pub mod options;
pub mod phpmq;
pub mod wire;

use std::fmt;
use std::sync::Arc;

use crate::words::clock::Time;
pub use crate::words::command::Manner;
use crate::words::command::{Delivery, Reply, Requests, Tag};
use crate::words::durability::Durability;
use crate::words::limits::Limits;
use crate::words::output::Output;
use crate::words::refusal::Refusal;
use options::{OptionValues, ProtocolOption};
use wire::Rest;

/// What a new connection's decoder and encoder are made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The operator's limits.
    pub limits: Arc<Limits>,
    /// A random secret of the database, the same in every run: a key for what peers must not be
    /// able to make up, such as ids that they give back.
    pub secret: [u8; 16],
    /// The values of the protocol's own options.
    pub options: Arc<OptionValues>,
    /// Whether peers come through a Unix socket, and so from this machine and from no browser.
    pub is_local_socket: bool,
}

/// The two halves of a connection.
pub type Halves = (Box<dyn Decoder>, Box<dyn Encoder>);

/// One wire protocol.
pub struct Protocol {
    /// Its name in configuration, flags, logs and passed sockets.
    pub name: &'static str,
    /// Where it listens when nothing is configured.
    pub default_address: &'static str,
    /// The Unix socket at which it listens as well then, in the directory that a service manager has
    /// made for sockets, if it has.
    pub default_socket: Option<&'static str>,
    /// What else is often found at that port, to be named when the port is taken.
    pub port_shared_with: Option<&'static str>,
    /// How its connections behave in the core.
    pub manner: Manner,
    /// The queue that a connection refers to from its beginning, and the number of the subscription
    /// that it is in.
    pub first_queue: Option<(&'static str, u64)>,
    /// Makes the two halves for a new connection.
    pub connect: fn(&Setup) -> Halves,
    /// The keys of `[[listener]]` that are its own.
    pub options: &'static [ProtocolOption],
    /// What a connection over a limit is told before it is closed, in the protocol's own words.
    pub too_many_connections: &'static [u8],
}

/// All protocols. Configuration, listeners, `--help` and statistics go by this table.
pub const PROTOCOLS: &[Protocol] =
    &[phpmq::PROTOCOL, console::PROTOCOL, beanstalk::PROTOCOL, http::PROTOCOL];

/// The protocol of this name.
pub fn find(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|protocol| protocol.name == name)
}

/// Turns the bytes of one connection into requests.
///
/// Invariant: how the bytes are cut into calls changes nothing about the requests.
pub trait Decoder: Send {
    /// Takes bytes from the front of `bytes`, adds the requests that are whole, and returns how
    /// many bytes it took. It takes all of them unless `requests` is full, after a
    /// [`Command::Quit`](crate::words::command::Command::Quit), or on an error. It keeps what is
    /// incomplete: growing with what has arrived, never with what was announced.
    ///
    /// # Errors
    /// What the peer did wrong and the connection does not survive. Requests added before stand.
    fn decode(
        &mut self,
        now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError>;

    /// Where the rest of the content of a message goes, while a part of it is there. What is
    /// brought to it is not given to `decode`, which is called then all the same: with what came
    /// behind it, or with nothing.
    fn rest(&mut self) -> Option<Rest<'_>> {
        None
    }

    /// Whether more of a message is to come, also while `rest` has no place for it: its length is not
    /// known in advance.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether the sender of the content that `rest` is of is told when it is refused.
    fn can_be_refused(&self) -> bool {
        false
    }

    /// Refuses the message whose content `rest` is of: drops what is there of it and skips what
    /// comes. Adds the request that tells the sender, now or at the end of the message.
    fn refuse(&mut self, _refusal: Refusal, _requests: &mut Requests) {}

    /// What is there of a frame was not whole in time: adds what tells the peer, before the
    /// connection ends.
    fn run_out_of_time(&mut self, _requests: &mut Requests) {}

    /// How long a peer may be idle where `limits.idle_timeout` says nothing, in milliseconds; `None`
    /// is for ever.
    fn idle_timeout_ms(&self) -> Option<u64> {
        None
    }

    /// Bytes kept of an incomplete frame; more than 0 starts the frame's deadline.
    fn pending_bytes(&self) -> usize;

    /// When [`Decoder::tick`] is to be called; `None` is never.
    fn next_tick(&self) -> Option<Time> {
        None
    }

    /// The time asked for has come: a refresh of a screen, a heart-beat.
    ///
    /// # Errors
    /// What the peer failed to do in time.
    fn tick(&mut self, _now: Time, _requests: &mut Requests) -> Result<(), WireError> {
        Ok(())
    }
}

/// Turns answers and messages for one connection into bytes, appended to `out`: words with
/// [`Output::buffer`], contents with [`Output::body`], which shares a large one.
pub trait Encoder: Send {
    /// What is said before anything was asked.
    fn greet(&mut self, _out: &mut Output) {}

    /// An answer.
    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output);

    /// The level that the request with this tag wants its answer to promise, where it wants more than
    /// its listener's.
    fn durability(&self, _tag: &Tag) -> Option<Durability> {
        None
    }

    /// Whether the answer with this tag promises what the commands before it have changed, although
    /// its reply alone promises nothing.
    fn promises(&self, _tag: &Tag) -> bool {
        false
    }

    /// A message.
    fn deliver(&mut self, tag: &Tag, delivery: &Delivery<'_>, out: &mut Output);
}

/// What a peer did wrong that ends its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A frame does not begin as the protocol's frames do.
    BadMagic,
    /// A version that is not spoken here.
    UnsupportedVersion,
    /// What only one protocol knows, in its own words, in which `{}` stands for the number.
    Fault(&'static str, u64),
    /// A byte that is not a digit where a number is.
    NotANumber(&'static str),
    /// A number out of its range.
    OutOfRange(&'static str),
    /// A length over its limit: what it is of, and the limit in bytes.
    TooLong(&'static str, usize),
    /// A name that no queue can have.
    QueueName(crate::words::ids::QueueNameError),
    /// The start of an HTTP request: a browser was sent here.
    HttpRequest,
    /// The peer sent nothing for too long where the protocol demands something.
    Silent,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::BadMagic => f.write_str("the frame does not begin as this protocol's do"),
            WireError::UnsupportedVersion => f.write_str("the protocol version is not supported"),
            WireError::Fault(words, number) => match words.split_once("{}") {
                Some((before, after)) => write!(f, "{before}{number}{after}"),
                None => f.write_str(words),
            },
            WireError::NotANumber(what) => write!(f, "the {what} is not a number"),
            WireError::OutOfRange(what) => write!(f, "the {what} is out of range"),
            WireError::TooLong(what, max) => write!(f, "the {what} is longer than {max} bytes"),
            WireError::QueueName(error) => error.fmt(f),
            WireError::HttpRequest => f.write_str("an HTTP request came to a port of another kind"),
            WireError::Silent => f.write_str("the peer was silent for too long"),
        }
    }
}

impl std::error::Error for WireError {}
