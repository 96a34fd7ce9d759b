//! The life of a client's thread: read, decode, send on; wait where it has to.
//!
//! One thread per connection, named `client-N`. It blocks in one read, with a time-out only while
//! there is a deadline: an idle connection wakes nobody up and holds no heap buffer. Everything
//! that one read brought goes to the dispatcher as one channel message (more only beyond
//! [`REQUESTS_PER_BATCH_MAX`](crate::words::limits::REQUESTS_PER_BATCH_MAX)). The rest of a large body is
//! read straight to where the decoder keeps it, so that it is not copied on its way in.
//!
//! Invariants: [`Event::Ended`] is the last event of every connection, also after a panic; what
//! was decoded before an end is sent before it. Time in which *we* keep the peer waiting (a closed
//! gate, a full channel, a suspended machine, a stopped process) does not count against it.

use std::convert::Infallible;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::channels::{End, Event};
use crate::protocol::Decoder;
use crate::wire::admission::{Admission, Ticket};
use crate::wire::clients::Clients;
use crate::wire::threads::Threads;
use crate::words::clock::{Clock, Time};
use crate::words::command::{Command, Requests};
use crate::words::ids::ConnectionId;
use crate::words::limits::{
    ARRIVE_PAUSE_MS, Budget, Charge, IN_FLIGHT_MEMORY_DIVISOR, Limits, PAUSE_MS, READ_LARGE_BYTES,
    READ_SMALL_BYTES, STOP_READ_MS,
};
use large::Pace;

/// What all connections and listeners have in common.
#[derive(Debug)]
pub struct Shared {
    /// The dispatcher's channel.
    pub events: SyncSender<Event>,
    /// The operator's limits.
    pub limits: Arc<Limits>,
    /// Bodies under way.
    pub budget: Arc<Budget>,
    /// Large frames under way.
    pub admission: Arc<Admission>,
    /// The clock.
    pub clock: Clock,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// What starts threads.
    pub threads: Arc<Threads>,
    /// The log of the listeners; a client's thread logs nothing.
    pub log: slog::Logger,
}

/// A connection as its thread needs it.
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// Its bytes.
    pub transport: Arc<Transport>,
    /// Where it is held back.
    pub gate: Arc<Gate>,
    /// What makes requests of its bytes.
    pub decoder: Box<dyn Decoder>,
    /// The rest.
    pub shared: Arc<Shared>,
}

impl Connection {
    /// Serves the connection to its end: the body of its thread. The dispatcher has been told of
    /// it before.
    pub fn run(self) {
        let gate = Arc::clone(&self.gate);
        let mut ending =
            EndReport { id: self.id, shared: Arc::clone(&self.shared), gate, end: None };
        let mut reader = RequestReader::new(self);
        let Err(end) = reader.converse();
        // The dispatcher closes the socket when it handles the end, so this thread's reference has
        // to go first.
        drop(reader);
        ending.end = Some(end);
    }
}

/// Reports the end of the connection to the dispatcher when it is dropped, after a panic too.
struct EndReport {
    id: ConnectionId,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    end: Option<End>,
}

impl Drop for EndReport {
    fn drop(&mut self) {
        self.gate.leave();
        let end = self.end.take().unwrap_or(End::Panicked);
        // Without a dispatcher the daemon is at its end and nobody needs to know.
        let _ = self.shared.events.send(Event::Ended { connection: self.id, end });
        // Last, so that every end is in the channel when nobody is left in the register.
        self.shared.clients.forget(self.id);
    }
}

struct RequestReader {
    connection: Connection,
    requests: Requests,
    /// Has capacity only while more arrives than fits into the small buffer.
    large: Vec<u8>,
    /// The share of the budget of what the decoder keeps.
    pending_charge: Charge,
    pending_bytes: usize,
    /// Bodies that the dispatcher has not taken yet.
    under_way: Arc<Budget>,
    /// When the frame began whose end has not come yet.
    frame_began: Option<Time>,
    /// When the peer last sent something.
    last_heard: Time,
    /// The read time-out that the socket has now.
    timeout_ms: Option<u64>,
    /// The last read timed out: if nothing is due now, the time-out was too short.
    woke_early: bool,
    hung_up_told: bool,
    stop_seen: Option<Time>,
    /// The place of a large frame that is not whole.
    ticket: Option<Ticket>,
    /// How fast that frame arrives.
    pace: Option<Pace>,
    /// The frame has lost its place, and nothing more of it has arrived since.
    stalled: bool,
    /// The frame has lost its place at least once.
    was_stalled: bool,
}

impl RequestReader {
    fn new(connection: Connection) -> RequestReader {
        let last_heard = connection.shared.clock.awake();
        let pending_charge = Charge::new(Arc::clone(&connection.shared.budget));
        RequestReader {
            connection,
            requests: Requests::default(),
            large: Vec::new(),
            pending_charge,
            pending_bytes: 0,
            under_way: Arc::default(),
            frame_began: None,
            last_heard,
            timeout_ms: None,
            woke_early: false,
            hung_up_told: false,
            stop_seen: None,
            ticket: None,
            pace: None,
            stalled: false,
            was_stalled: false,
        }
    }

    /// Reads and sends on until something ends it.
    fn converse(&mut self) -> Result<Infallible, End> {
        let mut small = [0_u8; READ_SMALL_BYTES];
        loop {
            self.turn(&mut small)?;
        }
    }

    /// Does what is due, then reads once and sends on what that brought.
    fn turn(&mut self, small: &mut [u8; READ_SMALL_BYTES]) -> Result<(), End> {
        self.pass_gate()?;
        self.wait_for_own_bodies()?;
        self.admit_frame()?;
        let now = self.now();
        self.check_stop(now)?;
        self.check_deadlines(now)?;
        self.tick(now)?;
        if self.is_in_large_body() {
            return self.read_rest(now);
        }
        let mut large = mem::take(&mut self.large);
        if self.is_unadmitted() {
            large = Vec::new();
        }
        let is_large = large.capacity() > 0;
        let read = if is_large {
            self.read_more(&mut large)?
        } else {
            self.set_timeout(self.wait_ms(now))?;
            self.read(small)?
        };
        // Nothing was read, so the next wait may be long: wait without a large buffer.
        let Some(count) = read else { return Ok(()) };
        self.stalled = false;
        self.decode(if is_large { &large } else { &small[..count] })?;
        if !is_large && count == small.len() && !self.is_in_large_body() && !self.is_unadmitted() {
            large.reserve_exact(READ_LARGE_BYTES);
        }
        self.large = large;
        Ok(())
    }

    /// Reads the rest of a large body once, to the place that it is kept at.
    fn read_rest(&mut self, now: Time) -> Result<(), End> {
        self.large = Vec::new();
        self.set_timeout(self.wait_ms(now))?;
        let transport = &*self.connection.transport;
        // What has arrived takes memory already.
        let arrived = transport.arrived_bytes();
        let Some(mut rest) = self.connection.decoder.rest() else { return Ok(()) };
        if rest.make_room(arrived).is_err() {
            return self.do_without_room();
        }
        let whole = rest.bytes.len() + rest.missing;
        let result = transport.read_to_end_of(rest.bytes);
        // A buffer may be larger than it was asked to be.
        let behind = rest.bytes.split_off(whole.min(rest.bytes.len()));
        match self.count_read(result)? {
            Some(_) => self.decode(&behind),
            None => Ok(()),
        }
    }

    /// One blocking read, at most as long as the time-out.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, End> {
        let result = self.connection.transport.read(buffer);
        self.count_read(result)
    }

    /// One read of what is there already.
    fn read_more(&mut self, buffer: &mut Vec<u8>) -> Result<Option<usize>, End> {
        buffer.clear();
        match self.connection.transport.read_arrived(buffer) {
            Err(Errno::AGAIN) => Ok(None),
            other => self.count_read(other),
        }
    }

    /// How many bytes a read has brought, `None` where it was in vain.
    fn count_read(&mut self, result: Result<usize, Errno>) -> Result<Option<usize>, End> {
        match result {
            Ok(0) if self.stopping() => Err(End::Stopped),
            Ok(0) => Err(End::EndOfFile),
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => {
                self.woke_early = true;
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(End::Reset(error.into())),
        }
    }

    /// Decodes what was read and sends it on. There may be nothing but what the decoder has already.
    fn decode(&mut self, mut rest: &[u8]) -> Result<(), End> {
        let now = self.now();
        self.last_heard = now;
        loop {
            let before = self.requests.len();
            let decoded = self.connection.decoder.decode(now, rest, &mut self.requests);
            let progress = self.requests.len() > before;
            self.note_pending(now, progress);
            let is_whole = progress && self.ticket.is_some();
            match decoded {
                Ok(taken) => {
                    // Invariant of Decoder::decode; else this would turn for ever.
                    let none_is_due = rest.is_empty();
                    assert!(taken > 0 || progress || none_is_due, "the decoder makes no progress");
                    rest = &rest[taken..];
                }
                Err(error) => {
                    self.send()?;
                    return Err(End::Fault(error.to_string()));
                }
            }
            let whole = self.requests.is_full();
            self.send()?;
            if is_whole {
                self.leave_line();
            }
            if rest.is_empty() {
                return Ok(());
            }
            if whole {
                self.pass_gate()?;
            }
        }
    }

    /// Sends the requests there are. An end that the peer asked for is an end of file.
    fn send(&mut self) -> Result<(), End> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let budget = Arc::clone(&self.connection.shared.budget);
        let body_bytes = self.requests.body_bytes();
        let charge = if body_bytes > 0 {
            let mut charge = Charge::of_peer(budget, Arc::clone(&self.under_way));
            charge.set(body_bytes);
            charge
        } else {
            Charge::new(budget)
        };
        let requests = self.requests.take();
        let quit = matches!(requests.last(), Some(last) if last.command == Command::Quit);
        self.tell(Event::Requests { connection: self.connection.id, requests, charge })?;
        if quit { Err(End::EndOfFile) } else { Ok(()) }
    }

    /// Sends one event. The time that the dispatcher keeps us waiting is not the peer's.
    fn tell(&mut self, event: Event) -> Result<(), End> {
        match self.connection.shared.events.try_send(event) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(event)) => {
                let began = self.now();
                let sent = self.connection.shared.events.send(event);
                self.extend_deadlines(began);
                sent.map_err(|_| End::Stopped)
            }
            Err(TrySendError::Disconnected(_)) => Err(End::Stopped),
        }
    }

    /// Notes what the decoder keeps of a frame that is not whole.
    fn note_pending(&mut self, now: Time, progress: bool) {
        let bytes = self.connection.decoder.pending_bytes();
        if bytes != self.pending_bytes {
            self.pending_bytes = bytes;
            self.pending_charge.set(bytes as u64);
            if let Some(ticket) = &mut self.ticket {
                let rest = self.connection.decoder.rest();
                ticket.note_missing(rest.map_or(0, |rest| rest.missing as u64));
            }
        }
        if bytes == 0 {
            self.frame_began = None;
        } else if progress || self.frame_began.is_none() {
            self.frame_began = Some(now);
        }
    }

    /// Extends the peer's deadlines by the time since `began`, during which we kept it waiting.
    fn extend_deadlines(&mut self, began: Time) {
        let waited = self.now().since(began);
        self.last_heard = self.last_heard.plus(waited);
        self.frame_began = self.frame_began.map(|frame| frame.plus(waited));
    }

    /// Waits while the gate is closed, watching for a hang-up only.
    fn pass_gate(&mut self) -> Result<(), End> {
        if !self.connection.gate.is_closed() {
            return Ok(());
        }
        let began = self.now();
        let mut watch = Watch::new(self.hung_up_told);
        loop {
            // Invariant: the descriptor is made before the last look, see Gate::ring.
            let gate = Arc::clone(&self.connection.gate);
            let wake = gate.wake().map_err(End::Reset)?;
            if self.stopping() {
                return Err(End::Stopped);
            }
            if !gate.is_closed() {
                break;
            }
            let seen = watch.wait(&self.connection.transport, &wake, None).map_err(End::Reset)?;
            gate.quiet();
            if seen == Watched::HungUp && !mem::replace(&mut self.hung_up_told, true) {
                self.tell(Event::HungUp(self.connection.id))?;
            }
            if watch.closed && self.connection.transport.has_ended() {
                // The peer has closed both directions and nothing unread is left.
                return Err(End::EndOfFile);
            }
        }
        self.extend_deadlines(began);
        Ok(())
    }

    /// Waits until the dispatcher has taken this connection's last bodies, while bodies in flight
    /// take much of the memory: only the dispatcher closes the gate, and every body read before it
    /// does is beyond the limit.
    fn wait_for_own_bodies(&mut self) -> Result<(), End> {
        let Shared { budget, limits, .. } = &*self.connection.shared;
        // Only for this connection's own bodies: those arrive whatever other peers do.
        let waits = || {
            self.under_way.bytes() > 0
                && budget.bytes() > limits.max_memory() / IN_FLIGHT_MEMORY_DIVISOR
                && !self.stopping()
        };
        if !waits() {
            return Ok(());
        }
        let began = self.now();
        // An end of the peer's is seen by the next read.
        let mut watch = Watch { hung_up: true, closed: true };
        let wake = self.connection.gate.wake().map_err(End::Reset)?;
        while waits() {
            let pause = Some(ARRIVE_PAUSE_MS);
            watch.wait(&self.connection.transport, &wake, pause).map_err(End::Reset)?;
            self.connection.gate.quiet();
        }
        self.extend_deadlines(began);
        Ok(())
    }

    /// After the stop, what has arrived is read, but a peer that goes on sending is not waited for.
    fn check_stop(&mut self, now: Time) -> Result<(), End> {
        if !self.stopping() {
            return Ok(());
        }
        let seen = *self.stop_seen.get_or_insert(now);
        if now.since(seen) >= STOP_READ_MS { Err(End::Stopped) } else { Ok(()) }
    }

    fn check_deadlines(&mut self, now: Time) -> Result<(), End> {
        if self.is_over(self.frame_deadline(), now) {
            self.connection.decoder.run_out_of_time(&mut self.requests);
            self.send()?;
            return Err(End::TimedOut("a frame was not whole in limits.frame_timeout"));
        }
        if self.is_over(self.idle_deadline(), now) {
            return Err(End::TimedOut("nothing was sent for limits.idle_timeout"));
        }
        Ok(())
    }

    /// Whether the peer's time is over. Where that is seen long after it was, this thread did not
    /// run, and what the peer has sent may not have been read: its time begins anew.
    fn is_over(&mut self, deadline: Option<Time>, now: Time) -> bool {
        let Some(deadline) = deadline.filter(|deadline| *deadline <= now) else { return false };
        let slept = now.since(deadline) >= PAUSE_MS;
        if slept {
            self.last_heard = now;
            self.frame_began = self.frame_began.map(|_| now);
        }
        !slept
    }

    /// Lets the decoder do what is due by time alone.
    fn tick(&mut self, now: Time) -> Result<(), End> {
        if self.connection.decoder.next_tick().is_none_or(|due| due > now) {
            return Ok(());
        }
        let ticked = self.connection.decoder.tick(now, &mut self.requests);
        self.send()?;
        ticked.map_err(|error| End::Fault(error.to_string()))
    }

    fn frame_deadline(&self) -> Option<Time> {
        let limit = self.connection.shared.limits.frame_timeout_ms();
        self.frame_began.filter(|_| limit > 0).map(|began| began.plus(limit))
    }

    fn idle_deadline(&self) -> Option<Time> {
        let limit = match self.connection.shared.limits.idle_timeout_ms() {
            0 => self.connection.decoder.idle_timeout_ms().unwrap_or(0),
            limit => limit,
        };
        (limit > 0 && self.frame_began.is_none()).then(|| self.last_heard.plus(limit))
    }

    /// How long the next read may wait; `None` is for ever.
    fn wait_ms(&self, now: Time) -> Option<u64> {
        let tick = self.connection.decoder.next_tick();
        [tick, self.frame_deadline(), self.idle_deadline(), self.pace_deadline()]
            .into_iter()
            .flatten()
            .min()
            .filter(|deadline| *deadline != Time::NEVER)
            .map(|deadline| deadline.since(now))
    }

    /// Gives the socket another read time-out where the one it has would be wrong. A system call
    /// for each read would be dear, so one that is a little late is left, and one that is too
    /// early is left until it has woken us up once for nothing.
    fn set_timeout(&mut self, wait_ms: Option<u64>) -> Result<(), End> {
        let woke_early = mem::take(&mut self.woke_early);
        let fits = match (self.timeout_ms, wait_ms) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(_), None) => !woke_early,
            (Some(set), Some(wait)) if set < wait => !woke_early,
            (Some(set), Some(wait)) => set - wait <= (wait / 8).clamp(10, 1_000),
        };
        if fits {
            return Ok(());
        }
        // The system counts in ticks of up to 4 ms and may be early by one of them.
        let timeout_ms = wait_ms.map(|wait| wait + 5);
        self.connection.transport.set_read_timeout(timeout_ms).map_err(End::Reset)?;
        self.timeout_ms = timeout_ms;
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.connection.shared.clients.is_stopping()
    }

    /// The peer's clocks do not run while the machine is suspended: it could not be heard.
    fn now(&self) -> Time {
        self.connection.shared.clock.awake()
    }
}

/// Waits for a wake, watching a connection for its end without reading from it.
struct Watch {
    /// The peer's end of file has been seen; looking for it again would return at once.
    hung_up: bool,
    /// Both directions are closed, which the system reports whether asked or not.
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watched {
    Nothing,
    HungUp,
}

impl Watch {
    fn new(hung_up: bool) -> Watch {
        Watch { hung_up, closed: false }
    }

    /// Waits once. An error is the socket's.
    fn wait(
        &mut self,
        transport: &Transport,
        wake: &impl AsFd,
        timeout_ms: Option<u64>,
    ) -> io::Result<Watched> {
        let interest = if self.hung_up { PollFlags::empty() } else { PollFlags::RDHUP };
        let mut polled = [PollFd::new(wake, PollFlags::IN), PollFd::new(transport, interest)];
        let watched = if self.closed { &mut polled[..1] } else { &mut polled[..] };
        let timeout = timeout_ms.map(|millis| Timespec {
            tv_sec: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
        });
        match poll(watched, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(Watched::Nothing),
            other => other?,
        };
        let seen = polled[1].revents();
        if seen.contains(PollFlags::ERR) {
            let error = transport.take_error()?;
            return Err(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
        }
        if seen.contains(PollFlags::HUP) {
            self.closed = true;
        }
        if seen.intersects(PollFlags::HUP | PollFlags::RDHUP) {
            self.hung_up = true;
            return Ok(Watched::HungUp);
        }
        Ok(Watched::Nothing)
    }
}

mod large;
#[cfg(test)]
pub(crate) mod stage;
#[cfg(test)]
mod tests;
