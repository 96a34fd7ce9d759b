//! The one thread: all connections, one wait.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{ClockId, clock_gettime};

use crate::amqp::Amqp;
use crate::fault::Fault;
use crate::gearman::Gearman;
use crate::nats::Nats;
use crate::options::{Peer, Plan};
use crate::redis::{List, Stream};
use crate::round::{Moment, Round, Tally};
use crate::talk::Talk;

/// Bytes of the one buffer that all connections read into, as in `phpmqctl bench`.
const READ_BYTES: usize = 256 * 1024;
/// An opening that takes longer than this has failed, in seconds.
const OPENING_S: u64 = 10;
/// Nothing came for so long although something should: in seconds.
const STALL_S: i64 = 10;
/// Events of one wait.
const EVENTS_MAX: usize = 256;

/// The monotonic clock, in microseconds.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Carries the plan out.
///
/// # Errors
/// The server is not there, is lost, says what was not asked for, or says nothing any more.
pub fn run(plan: &Plan) -> Result<Tally, Fault> {
    let mut run = Run::open(plan)?;
    run.tally.began_us = monotonic_us();
    run.work()?;
    let put_by = std::mem::take(&mut run.tally.put_by);
    run.tally.ledger.settle(&put_by);
    Ok(run.tally)
}

fn talk_of(plan: &Plan, number: usize) -> Box<dyn Talk> {
    let queue = plan.queue.as_str();
    match plan.peer {
        Peer::RedisList => Box::new(List::new(queue, number)),
        Peer::RedisStream => Box::new(Stream::new(queue, number)),
        Peer::Rabbitmq => Box::new(Amqp::new(queue, plan.depth, plan.durable)),
        Peer::Nats => Box::new(Nats::new(queue, number, plan.durable)),
        Peer::Gearman => Box::new(Gearman::new(queue)),
    }
}

/// A connection: its socket, the start of an answer that is not whole, and what has not left.
struct Line {
    stream: TcpStream,
    round: Round,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

impl Line {
    fn open(plan: &Plan, number: usize) -> Result<Line, Fault> {
        let mut stream = TcpStream::connect(plan.address).map_err(Fault::Connection)?;
        stream.set_nodelay(true).map_err(Fault::System)?;
        let time_out = Some(Duration::from_secs(OPENING_S));
        stream.set_read_timeout(time_out).map_err(Fault::System)?;
        let mut talk = talk_of(plan, number);
        talk.open(&mut stream, number == 0)?;
        stream.set_nonblocking(true).map_err(Fault::System)?;
        let round = Round::new(talk, number);
        Ok(Line { stream, round, input: Vec::new(), output: Vec::new(), sent: 0 })
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.output.len()
    }

    fn read(&mut self, moment: &mut Moment<'_>, buffer: &mut [u8]) -> Result<(), Fault> {
        let count = match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Fault::Closed),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(Fault::Connection(error.into())),
        };
        let fresh = &buffer[..count];
        if self.input.is_empty() {
            let taken = self.round.take(moment, fresh, &mut self.output)?;
            self.input.extend_from_slice(&fresh[taken..]);
        } else {
            self.input.extend_from_slice(fresh);
            let taken = self.round.take(moment, &self.input, &mut self.output)?;
            self.input.drain(..taken);
        }
        Ok(())
    }

    fn write(&mut self, moment: &mut Moment<'_>) -> Result<(), Fault> {
        self.round.fill(moment, &mut self.output);
        while self.has_unsent() {
            let part = &self.output[self.sent..];
            match send(&self.stream, part, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(Fault::Connection(error.into())),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}

struct Run<'a> {
    plan: &'a Plan,
    lines: Vec<Line>,
    poller: OwnedFd,
    tally: Tally,
}

impl<'a> Run<'a> {
    fn open(plan: &'a Plan) -> Result<Run<'a>, Fault> {
        let system = |errno: Errno| Fault::System(errno.into());
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let mut lines = Vec::new();
        for number in 0..plan.connections {
            let line = Line::open(plan, number)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&poller, &line.stream, data, epoll::EventFlags::IN).map_err(system)?;
            lines.push(line);
        }
        Ok(Run { plan, lines, poller, tally: Tally::new(plan.connections) })
    }

    fn work(&mut self) -> Result<(), Fault> {
        for at in 0..self.lines.len() {
            self.serve(at, epoll::EventFlags::empty(), monotonic_us(), &mut [])?;
        }
        let mut buffer = vec![0_u8; READ_BYTES];
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let patience = Timespec { tv_sec: STALL_S, tv_nsec: 0 };
        while !self.is_over() {
            events.clear();
            match epoll::wait(
                &self.poller,
                rustix::buffer::spare_capacity(&mut events),
                Some(&patience),
            ) {
                Ok(0) => return Err(Fault::Frame("nothing came for 10 seconds")),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Fault::System(errno.into())),
            }
            let now_us = monotonic_us();
            for event in &events {
                self.serve(event.data.u64() as usize, event.flags, now_us, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn serve(
        &mut self,
        at: usize,
        flags: epoll::EventFlags,
        now_us: u64,
        buffer: &mut [u8],
    ) -> Result<(), Fault> {
        let line = &mut self.lines[at];
        let moment = &mut Moment { now_us, plan: self.plan, tally: &mut self.tally };
        let had_unsent = line.has_unsent();
        if flags.intersects(!epoll::EventFlags::OUT) {
            line.read(moment, buffer)?;
        }
        line.write(moment)?;
        let has_unsent = line.has_unsent();
        if had_unsent != has_unsent {
            let out = if has_unsent { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.poller, &line.stream, data, epoll::EventFlags::IN | out)
                .map_err(|errno| Fault::System(errno.into()))?;
        }
        Ok(())
    }

    /// Whether everything that was put has come, was acknowledged, and has been said. Rounds end
    /// for good when the time is over and not before, so the clock need not be asked.
    fn is_over(&self) -> bool {
        self.tally.put == self.tally.done
            && self.lines.iter().all(|line| line.round.is_idle() && !line.has_unsent())
    }
}
