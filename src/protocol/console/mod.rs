//! The maintenance console: text, one command a line, for people with `telnet` or `nc` and for
//! their scripts (phpmq-protocol(7)).
//!
//! The decoder reads commands and knows what is on the screen, the encoder draws. What is to be
//! drawn goes from one to the other as a `Draw` in the tag of each request: so help texts and
//! mistakes come out in the order in which the lines came in.
//!
//! A terminal is greeted with a cleared screen. A script sends `plain` as its first line and never
//! sees an escape sequence: the greeting waits 200 ms for that line.

mod decoder;
mod draw;
mod encoder;
mod format;
mod help;
mod keyboard;

use crate::protocol::{Halves, Manner, Protocol, Setup};

/// The row of the table.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "console",
    default_address: "127.0.0.1:9101",
    default_socket: None,
    manner: Manner::Serial,
    port_shared_with: None,
    first_queue: None,
    options: &[],
    connect,
    too_many_connections: b"error: too many connections\r\n",
};

/// How long the greeting waits for a script to say `plain`, in milliseconds: a script's first
/// line comes with the connection, and a person does not notice.
const GREETING_DELAY_MS: u64 = 200;
/// From one picture of monitor or show to the next, in milliseconds.
const REFRESH_MS: u64 = 500;
/// The longest line, in bytes: room for a name of 200 bytes and any command before it.
const LINE_BYTES_MAX: usize = 4_096;
/// Lines of the monitor's picture beside those of queues.
const MONITOR_FRAME_LINES: usize = 10;
/// Lines of show's picture beside those of messages.
const SHOW_FRAME_LINES: usize = 6;

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TerminalSize {
    columns: usize,
    lines: usize,
}

impl TerminalSize {
    /// What a terminal has that does not say its size.
    const USUAL: TerminalSize = TerminalSize { columns: 80, lines: 24 };

    /// The size that a peer says, taken seriously as far as a screen can go.
    fn told(columns: usize, lines: usize) -> TerminalSize {
        let or_usual = |told: usize, usual| if told == 0 { usual } else { told };
        TerminalSize {
            columns: or_usual(columns, TerminalSize::USUAL.columns).clamp(40, 400),
            lines: or_usual(lines, TerminalSize::USUAL.lines).clamp(12, 200),
        }
    }
}

fn connect(_setup: &Setup) -> Halves {
    (Box::new(decoder::Decoder::default()), Box::new(encoder::Encoder::default()))
}
