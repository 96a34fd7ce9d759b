//! A thread of the load generator: many connections, one wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::conversation::{Moment, Next, Shared, Tally};
use super::fault::Fault;
use super::line::Line;
use super::options::{LineSpec, Plan, Protocol};
use super::{beanstalk, phpmq};
use crate::words::clock::monotonic_us;

/// Bytes of the one buffer that all connections of a thread read into.
const READ_BYTES: usize = 256 * 1024;
/// How often a thread looks at what others have done, in milliseconds.
const LOOK_MS: i64 = 20;
/// The same where it cannot send before others have received.
const LOOK_ROOM_MS: i64 = 1;
/// Nothing came for so long although something should: in microseconds.
const STALL_US: u64 = 10_000_000;
/// The timer among the descriptors that are waited for.
const TIMER: u64 = u64::MAX;

struct Worker<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    tally: Tally,
    lines: Vec<Line>,
    /// What each line waits for.
    next: Vec<Next>,
    /// Lines by the moment that they wait for.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    /// Lines that wait for room.
    crowded: Vec<usize>,
    open: usize,
    poller: OwnedFd,
    timer: OwnedFd,
    /// What was told to the other threads already.
    published: (u64, u64),
    told_drained: bool,
}

/// Drives these connections until each is through.
///
/// # Errors
/// A connection failed, here or in another thread.
pub fn run(plan: &Plan, shared: &Shared, specs: &[LineSpec]) -> Result<Tally, Fault> {
    let opened = Worker::open(plan, shared, specs);
    shared.await_ready(monotonic_us);
    let result = opened.and_then(Worker::work);
    if result.is_err() {
        shared.fail();
    }
    result
}

impl<'a> Worker<'a> {
    fn open(plan: &'a Plan, shared: &'a Shared, specs: &[LineSpec]) -> Result<Worker<'a>, Fault> {
        let system = |errno: rustix::io::Errno| Fault::System(errno.into());
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(system)?;
        let in_flag = epoll::EventFlags::IN;
        epoll::add(&poller, &timer, epoll::EventData::new_u64(TIMER), in_flag).map_err(system)?;
        let mut lines = Vec::new();
        for spec in specs {
            let conversation = match plan.protocol {
                Protocol::Beanstalk => beanstalk::conversation(plan, shared, spec),
                Protocol::Phpmq => phpmq::conversation(plan, shared, spec),
            };
            let line = Line::open(plan, conversation)?;
            let data = epoll::EventData::new_u64(lines.len() as u64);
            epoll::add(&poller, line.socket(), data, in_flag).map_err(system)?;
            lines.push(line);
        }
        Ok(Worker {
            plan,
            shared,
            tally: Tally::new(plan),
            next: vec![Next::Answer; lines.len()],
            timers: BinaryHeap::new(),
            crowded: Vec::new(),
            open: lines.len(),
            lines,
            poller,
            timer,
            published: (0, 0),
            told_drained: false,
        })
    }

    fn work(mut self) -> Result<Tally, Fault> {
        for at in 0..self.lines.len() {
            self.write(at, monotonic_us())?;
        }
        let mut buffer = vec![0_u8; READ_BYTES];
        let mut events = Vec::with_capacity(256);
        let mut last = (self.shared.done(), monotonic_us());
        while self.open > 0 && !self.shared.has_failed() {
            self.wait(&mut events)?;
            let now_us = monotonic_us();
            for event in &events {
                match event.data.u64() {
                    TIMER => {
                        // Its count is of no interest; an empty one has been read before.
                        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
                    }
                    line => self.serve(line as usize, event.flags, now_us, &mut buffer)?,
                }
            }
            self.write_due(now_us)?;
            let done = self.shared.done();
            if done != last.0 || self.timers.peek().is_some() {
                last = (done, now_us);
            } else if now_us - last.1 > STALL_US {
                let waited = STALL_US / 1_000_000;
                self.tally.ledger.complain(format!("nothing was received for {waited} s"));
                break;
            }
        }
        Ok(self.tally)
    }

    /// Waits for a socket, the next moment, or a little.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), Fault> {
        if let Some(Reverse((at_us, _))) = self.timers.peek() {
            let it_value = Timespec {
                tv_sec: i64::try_from(at_us / 1_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at_us % 1_000_000 * 1_000).unwrap_or(0),
            };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let when = Itimerspec { it_interval, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when)
                .map_err(|errno| Fault::System(errno.into()))?;
        }
        let wait_ms = if self.crowded.is_empty() { LOOK_MS } else { LOOK_ROOM_MS };
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 };
        events.clear();
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.poller, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Fault::System(errno.into())),
        }
    }

    fn serve(
        &mut self,
        at: usize,
        flags: epoll::EventFlags,
        mut now_us: u64,
        buffer: &mut [u8],
    ) -> Result<(), Fault> {
        if self.next[at] == Next::Over {
            return Ok(());
        }
        if flags.intersects(!epoll::EventFlags::OUT) {
            let (plan, shared) = (self.plan, self.shared);
            let moment = &mut Moment { now_us, plan, shared, tally: &mut self.tally };
            self.lines[at].read(moment, buffer)?;
            now_us = moment.now_us;
            self.publish();
        }
        self.write(at, now_us)
    }

    fn write_due(&mut self, now_us: u64) -> Result<(), Fault> {
        while let Some(Reverse((at_us, line))) = self.timers.peek().copied()
            && at_us <= now_us
        {
            self.timers.pop();
            if self.next[line] == Next::At(at_us) {
                self.write(line, now_us)?;
            }
        }
        for line in std::mem::take(&mut self.crowded) {
            if self.next[line] == Next::Room {
                self.next[line] = Next::Answer;
                self.write(line, now_us)?;
            }
        }
        // Those who only receive learn that nothing more will come.
        if !self.told_drained && self.shared.is_drained() {
            self.told_drained = true;
            for line in 0..self.lines.len() {
                if self.next[line] != Next::Over {
                    self.write(line, now_us)?;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, at: usize, now_us: u64) -> Result<(), Fault> {
        let line = &mut self.lines[at];
        let had_unsent = line.has_unsent();
        let (plan, shared) = (self.plan, self.shared);
        let moment = &mut Moment { now_us, plan, shared, tally: &mut self.tally };
        let next = line.write(moment)?;
        let has_unsent = line.has_unsent();
        // It is not over before the last word has left.
        let next = if next == Next::Over && has_unsent { Next::Answer } else { next };
        if had_unsent != has_unsent {
            let out = if has_unsent { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.poller, line.socket(), data, epoll::EventFlags::IN | out)
                .map_err(|errno| Fault::System(errno.into()))?;
        }
        self.publish();
        match next {
            Next::At(at_us) if self.next[at] != next => self.timers.push(Reverse((at_us, at))),
            Next::Room if self.next[at] != next => self.crowded.push(at),
            Next::Over if self.next[at] != Next::Over => self.open -= 1,
            _ => {}
        }
        self.next[at] = next;
        Ok(())
    }

    fn publish(&mut self) {
        let (sent, done) = self.published;
        self.shared.publish(self.tally.sent - sent, self.tally.done - done);
        self.published = (self.tally.sent, self.tally.done);
    }
}
