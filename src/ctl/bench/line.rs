//! One connection: its socket, what has arrived of an answer, and what has not left yet.

use std::cmp::Ordering;
use std::io::{self, Read, Write};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use super::conversation::{Conversation, Moment, Next};
use super::fault::{Fault, excerpt};
use super::options::Plan;
use crate::words::clock::monotonic_us;

/// The longest that a server answers to an opening, in bytes.
const SETUP_BYTES_MAX: usize = 4096;

/// A connection and who speaks on it.
pub struct Line {
    socket: Socket,
    conversation: Box<dyn Conversation>,
    /// The start of an answer that is not whole.
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

impl Line {
    /// Connects and says the opening.
    ///
    /// # Errors
    /// The server is not there or does not answer as it should.
    pub fn open(plan: &Plan, conversation: Box<dyn Conversation>) -> Result<Line, Fault> {
        let mut socket = plan.target.connect().map_err(Fault::Connection)?;
        let (opening, answers) = conversation.opening(plan);
        socket.write_all(&opening).map_err(Fault::Connection)?;
        read_lines(&mut socket, answers)?;
        socket.set_nonblocking(true).map_err(Fault::System)?;
        Ok(Line { socket, conversation, input: Vec::new(), output: Vec::new(), sent: 0 })
    }

    /// Its socket, to be waited for.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether something waits for the socket to take it.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Reads once and takes the answers that are whole. They count as received when they have been
    /// read, which is later than the moment at which the wait for all connections ended.
    ///
    /// # Errors
    /// The connection is lost or an answer is wrong.
    pub fn read(&mut self, moment: &mut Moment<'_>, buffer: &mut [u8]) -> Result<(), Fault> {
        let count = match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Fault::Closed),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(Fault::Connection(error.into())),
        };
        moment.now_us = monotonic_us();
        let fresh = &buffer[..count];
        if self.input.is_empty() {
            let taken = take_all(&mut *self.conversation, moment, fresh, &mut self.output)?;
            self.input.extend_from_slice(&fresh[taken..]);
        } else {
            self.input.extend_from_slice(fresh);
            let taken = take_all(&mut *self.conversation, moment, &self.input, &mut self.output)?;
            self.input.drain(..taken);
        }
        Ok(())
    }

    /// Says what can be said now.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn write(&mut self, moment: &mut Moment<'_>) -> Result<Next, Fault> {
        let next = self.conversation.fill(moment, &mut self.output);
        while self.has_unsent() {
            let part = &self.output[self.sent..];
            match send(&self.socket, part, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(next),
                Err(error) => return Err(Fault::Connection(error.into())),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(next)
    }
}

fn take_all(
    conversation: &mut dyn Conversation,
    moment: &mut Moment<'_>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let mut taken = 0;
    loop {
        match conversation.take(moment, &bytes[taken..], out)? {
            0 => return Ok(taken),
            count => taken += count,
        }
    }
}

/// Reads one line for each of these starts, and nothing behind them.
///
/// # Errors
/// The connection is lost or a line starts otherwise.
pub fn read_lines(socket: &mut Socket, starts: &[&[u8]]) -> Result<(), Fault> {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 512];
    loop {
        let lines = all.split_inclusive(|byte| *byte == b'\n').collect::<Vec<&[u8]>>();
        let whole = lines.iter().filter(|line| line.ends_with(b"\n"));
        if whole.clone().zip(starts).any(|(line, start)| !line.starts_with(start)) {
            return Err(excerpt(&all));
        }
        match whole.count().cmp(&starts.len()) {
            Ordering::Equal => return Ok(()),
            Ordering::Greater => return Err(excerpt(&all)),
            Ordering::Less => {}
        }
        match socket.read(&mut buffer) {
            Ok(0) => return Err(Fault::Closed),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Connection(error)),
        }
        if all.len() > SETUP_BYTES_MAX {
            return Err(excerpt(&all));
        }
    }
}
