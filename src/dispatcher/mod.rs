//! The one thread that owns all queueing state: it waits in one place, takes what has come, lets
//! the engine decide and carries the decisions out.
//!
//! One turn: take events ─► engine ─► effects: changes into the in-memory database (one
//! transaction a turn) and the journal, answers and messages into outboxes ─► commit in memory ─►
//! hand changes to persistence when it is time ─► one send per peer.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the turn |
//! | `peers` | one peer's outbox and gate |
//! | `commits` | when changes go to persistence, and what waits for that |
//! | `rewrite` | a suspect file written anew |
//! | `pressure` | who is held back when memory or journal are full, or the daemon drains |
//! | `health` | what the service manager is told of all that |
//! | `stop` | the last turn |
//!
//! # Failure
//! The in-memory database can only fail for want of memory or by a defect of ours; either leaves
//! state and answers apart, so it ends the process: the file has all that was confirmed.

mod commits;
mod health;
mod peers;
mod pressure;
mod rewrite;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use rustc_hash::FxHashMap;
use slog::{Logger, debug, info};

use crate::change::{Attributes, Change};
use crate::channels::{Durability, End, Event, Finished, Notice, Opened, Order};
use crate::clients::Clients;
use crate::clock::{Clock, Now, Time};
use crate::command::{Command, Delivery, Handing, Manner, Reply, Request, Tag};
use crate::engine::{Effect, Engine, Handed, Input};
use crate::facts::Facts;
use crate::ids::{CommitNumber, ConnectionId, MessageId, QueueName};
use crate::journal::Journal;
use crate::limits::{Budget, Charge, EVENTS_PER_TURN_MAX, Limits};
use crate::persistence::Progress;
use crate::store::Memory;
use crate::store::StoreError;
use crate::writer::Writers;

use commits::Commits;
use peers::{Closed, Peer};
use pressure::Pressure;

pub use health::Health;
pub use stop::Stopped;

/// What the dispatcher is made of, apart from the in-memory database that its thread owns.
pub struct Parts {
    /// The queueing state, loaded.
    pub engine: Engine,
    /// The journal; a disabled one when nothing is kept on disk.
    pub journal: Journal,
    /// What wakes it.
    pub events: Receiver<Event>,
    /// To persistence; `None` when nothing is kept on disk.
    pub orders: Option<Sender<Order>>,
    /// From persistence.
    pub finished: Receiver<Finished>,
    /// Starts the threads that write to slow peers.
    pub writers: Arc<Writers>,
    /// The open connections.
    pub clients: Arc<Clients>,
    /// The clock.
    pub clock: Clock,
    /// The operator's limits.
    pub limits: Arc<Limits>,
    /// Bytes under way between sockets and here.
    pub budget: Arc<Budget>,
    /// What persistence tells of itself.
    pub progress: Arc<Progress>,
    /// Turns so far, for the watchdog.
    pub turns: Arc<AtomicU64>,
    /// How it is, for the main thread to tell.
    pub health: Arc<Health>,
    /// Where it says that its health has changed.
    pub notices: Sender<Notice>,
    /// Facts of the process.
    pub facts: Facts,
    /// `storage.snapshot_interval`, in milliseconds.
    pub snapshot_interval_ms: u64,
    /// `storage.commit_timeout`, in milliseconds.
    pub commit_timeout_ms: u64,
    /// How long a last commit is tried when the daemon stops, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Whether `storage.on_io_error` is `"exit"`.
    pub exit_on_io_error: bool,
    /// `storage.min_free_disk`, in bytes.
    pub min_free_disk: u64,
    /// Where it logs.
    pub log: Logger,
}

/// The dispatcher at work.
pub struct Dispatcher<'c> {
    engine: Engine,
    memory: Memory<'c>,
    in_transaction: bool,
    peers: FxHashMap<ConnectionId, Peer>,
    /// Peers that something was written for in this turn.
    dirty: Vec<ConnectionId>,
    effects: Vec<Effect>,
    commits: Commits,
    pressure: Pressure,
    now: Now,
    protocol_errors: u64,
    stopping: bool,
    /// Events put aside while a connection's end was awaited; they come before the channel's.
    later: VecDeque<Event>,
    /// Whether a connection's end is awaited.
    awaiting_end: bool,
    events: Receiver<Event>,
    writers: Arc<Writers>,
    clients: Arc<Clients>,
    clock: Clock,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    turns: Arc<AtomicU64>,
    health: Arc<Health>,
    notices: Sender<Notice>,
    facts: Facts,
    stop_timeout_ms: u64,
    exit_on_io_error: bool,
    min_free_disk: u64,
    log: Logger,
}

impl<'c> Dispatcher<'c> {
    /// Puts the parts together.
    pub fn new(parts: Parts, memory: Memory<'c>) -> Dispatcher<'c> {
        let now = parts.clock.now();
        Dispatcher {
            engine: parts.engine,
            memory,
            in_transaction: false,
            peers: FxHashMap::default(),
            dirty: Vec::new(),
            effects: Vec::new(),
            commits: Commits::new(
                parts.journal,
                parts.orders,
                parts.finished,
                parts.snapshot_interval_ms,
                parts.commit_timeout_ms,
            ),
            pressure: Pressure::default(),
            now,
            protocol_errors: 0,
            stopping: false,
            later: VecDeque::new(),
            awaiting_end: false,
            events: parts.events,
            writers: parts.writers,
            clients: parts.clients,
            clock: parts.clock,
            limits: parts.limits,
            budget: parts.budget,
            progress: parts.progress,
            turns: parts.turns,
            health: parts.health,
            notices: parts.notices,
            facts: parts.facts,
            stop_timeout_ms: parts.stop_timeout_ms,
            exit_on_io_error: parts.exit_on_io_error,
            min_free_disk: parts.min_free_disk,
            log: parts.log,
        }
    }

    /// Serves until it is told to stop, then brings everything to its end.
    ///
    /// # Errors
    /// The in-memory database failed.
    pub fn run(mut self, dropped_at_start: Vec<Change>) -> Result<Stopped, StoreError> {
        for change in dropped_at_start {
            self.keep(change)?;
        }
        while !self.stopping {
            self.turn()?;
        }
        self.stop()
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let first = self.wait();
        self.turn_at(self.clock.now(), first)
    }

    fn turn_at(&mut self, now: Now, first: Option<Event>) -> Result<(), StoreError> {
        self.now = now;
        self.turns.fetch_add(1, Ordering::Relaxed);
        let mut next = first;
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some(event) = next.or_else(|| self.next_event()) else { break };
            self.take(event)?;
            next = None;
        }
        self.engine.turn(self.now, &mut self.effects);
        self.carry_out()?;
        self.finish_turn()
    }

    /// Waits for an event, or until something is due.
    fn wait(&mut self) -> Option<Event> {
        let due = self.engine.next_deadline().min(self.commits.deadline());
        if due <= self.now.time || !self.later.is_empty() {
            return self.next_event();
        }
        match self.clock.deadline(due) {
            None => self.events.recv().ok(),
            // The senders outlive the dispatcher, so only the time can run out.
            Some(deadline) => self.events.recv_deadline(deadline).ok(),
        }
    }

    /// The next event that has come already.
    fn next_event(&mut self) -> Option<Event> {
        self.later.pop_front().or_else(|| self.events.try_recv().ok())
    }

    /// What comes after all events of a turn: keep, then tell.
    fn finish_turn(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.in_transaction) {
            self.memory.commit()?;
        }
        self.take_finished()?;
        self.hand_over()?;
        self.relieve()?;
        self.flush_all()
    }

    fn take(&mut self, event: Event) -> Result<(), StoreError> {
        match event {
            Event::Opened(opened) => self.open(*opened),
            Event::Requests { connection, requests, charge } => {
                self.take_requests(connection, requests, charge)
            }
            Event::HungUp(connection) => self.input(Input::HungUp(connection)),
            Event::Ended { connection, end } => self.end(connection, &end),
            Event::Written { connection, result } => {
                let committed = self.commits.committed();
                let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
                let flush = peer.outbox.written(result, committed);
                self.after_flush(connection, flush)
            }
            Event::Persisted | Event::Ping => Ok(()),
            Event::ToggleDrain => self.toggle_drain(),
            Event::Stop => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    fn open(&mut self, opened: Opened) -> Result<(), StoreError> {
        let Opened { connection, socket, encoder, gate, profile, peer } = opened;
        debug!(self.log, "connection opened"; "connection" => connection.0,
            "protocol" => profile.protocol.name, "peer" => %peer);
        let peer = Peer::new(connection, socket, encoder, gate, profile, &self.writers);
        let (manner, ack_timeout_ms) = (profile.protocol.manner, profile.ack_timeout_ms);
        self.peers.insert(connection, peer);
        self.input(Input::Opened { connection, manner, ack_timeout_ms })?;
        if let Some(name) = profile.protocol.first_queue {
            let queue = QueueName::new(name.as_bytes()).expect("a first queue has a queue's name");
            let start = Request { tag: Tag::None, command: Command::Start(queue) };
            self.input(Input::Request(connection, start))?;
        }
        self.greet(connection);
        Ok(())
    }

    fn take_requests(
        &mut self,
        connection: ConnectionId,
        requests: Vec<Request>,
        charge: Charge,
    ) -> Result<(), StoreError> {
        for request in requests {
            match &request.command {
                Command::Put(_) => {
                    let serial =
                        self.peers.get(&connection).is_some_and(|p| p.manner == Manner::Serial);
                    self.hold_back_putter(connection, serial || request.tag != Tag::None);
                }
                Command::ReserveMessage(id) | Command::Remove(id) => {
                    self.await_end_of_holder(connection, *id)?;
                }
                _ => {}
            }
            self.input(Input::Request(connection, request))?;
        }
        drop(charge);
        Ok(())
    }

    /// Before somebody is told that another connection holds a message: if that connection's peer
    /// has gone already, its end is handled first. Its thread reads on to the end and its last
    /// events are on their way; all others keep their order and come after the request that asks.
    fn await_end_of_holder(
        &mut self,
        asking: ConnectionId,
        id: MessageId,
    ) -> Result<(), StoreError> {
        // What the holder itself asked for last waits for nobody: it would not hear the answer.
        if self.awaiting_end {
            return Ok(());
        }
        let Some(holder) = self.engine.other_holder(id, asking) else { return Ok(()) };
        let gone = self.peers.get(&holder).is_some_and(Peer::is_on_its_way_out);
        if !gone {
            return Ok(());
        }
        self.awaiting_end = true;
        let mut put_aside = VecDeque::new();
        // What it asked for last may close its gate: then its end does not come before another turn.
        while self.peers.get(&holder).is_some_and(Peer::will_read_on) {
            let event = self.later.pop_front().or_else(|| self.events.recv().ok());
            let Some(event) = event else { break };
            if event.connection() == Some(holder) {
                self.take(event)?;
            } else {
                put_aside.push_back(event);
            }
        }
        self.awaiting_end = false;
        put_aside.append(&mut self.later);
        self.later = put_aside;
        Ok(())
    }

    fn end(&mut self, connection: ConnectionId, end: &End) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        peer.ended = true;
        match end {
            End::EndOfFile | End::Stopped => {
                debug!(self.log, "connection ended"; "connection" => connection.0);
            }
            End::Fault(fault) => {
                self.protocol_errors += 1;
                debug!(self.log, "connection ended for what it sent";
                    "connection" => connection.0, "protocol" => peer.protocol, "error" => fault);
            }
            End::TimedOut(what) => {
                self.protocol_errors += 1;
                debug!(self.log, "connection ended by a time-out"; "connection" => connection.0,
                    "protocol" => peer.protocol, "error" => *what);
            }
            End::Reset(error) => {
                debug!(self.log, "connection broken"; "connection" => connection.0,
                    "error" => %error);
                peer.broken = true;
            }
            End::Panicked => {
                slog::error!(self.log, "a client's thread panicked, its connection is closed";
                    "connection" => connection.0, "protocol" => peer.protocol);
                peer.broken = true;
            }
        }
        let broken = peer.broken;
        self.input(Input::Closed(connection))?;
        if broken { self.give_up_unsent(connection) } else { Ok(()) }
    }

    /// Nothing can be sent to a peer whose requests have ended: its session waits no more for it
    /// to take what is unsent.
    pub(super) fn give_up_unsent(&mut self, connection: ConnectionId) -> Result<(), StoreError> {
        self.input(Input::Closed(connection))
    }

    fn input(&mut self, input: Input) -> Result<(), StoreError> {
        // The scale's moments are the beginnings of milliseconds. What is asked for within one
        // counts from its end, so that no delay and no time-out is over too early.
        let now = Now { time: self.now.time.plus(1), ..self.now };
        self.engine.handle(now, input, &mut self.effects);
        self.carry_out()
    }

    /// Carries out what the engine has decided, in its order.
    fn carry_out(&mut self) -> Result<(), StoreError> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Change(change) => self.keep(change)?,
                Effect::Reply(connection, tag, reply) => self.answer(connection, &tag, reply),
                Effect::Deliver(connection, tag, handed) => {
                    self.deliver(connection, &tag, &handed)?;
                }
                Effect::Gate(connection, closed) => {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.set_gate(Closed::BACKLOG, closed);
                    }
                }
                Effect::Close(connection, reason) => {
                    info!(self.log, "consumer closed"; "connection" => connection.0,
                        "error" => reason);
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.shut();
                    }
                }
                Effect::Finished(connection) => {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.finished = true;
                        peer.mark(connection, &mut self.dirty);
                    }
                }
                Effect::ReserveIds(up_to) => self.commits.reserve_ids(up_to, self.now.time),
            }
        }
        // What was pushed meanwhile is none: nothing in here asks the engine.
        self.effects = effects;
        Ok(())
    }

    fn keep(&mut self, change: Change) -> Result<(), StoreError> {
        if !self.in_transaction {
            self.memory.begin()?;
            self.in_transaction = true;
        }
        self.memory.apply(&change)?;
        self.commits.record(change, self.now.time);
        Ok(())
    }

    fn answer(&mut self, connection: ConnectionId, tag: &Tag, mut reply: Reply) {
        self.add_facts(&mut reply);
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.broken {
            return;
        }
        let start = peer.outbox.position();
        peer.encoder.reply(tag, &reply, peer.outbox.buffer());
        // Where nothing was said nothing was promised: the tick covers what php-mq does silently.
        let said = peer.outbox.position() > start;
        if !said && let Reply::Refused(refusal) = reply {
            // Who cannot be told must not go on as if all were well.
            debug!(self.log, "connection ended, since its refusal has no answer";
                "connection" => connection.0, "protocol" => peer.protocol, "error" => %refusal);
            peer.shut();
        }
        if said && peer.durability != Durability::Periodic {
            if reply.promises() {
                let commit = self.commits.demand(peer.durability, self.now.time);
                peer.hold(tag, start, commit, self.now.time);
            } else {
                peer.outbox.free();
            }
        }
        peer.mark(connection, &mut self.dirty);
    }

    /// Adds what the engine cannot know to the answers that want it.
    fn add_facts(&self, reply: &mut Reply) {
        let uptime_ms = || crate::clock::millis(self.clock.uptime());
        match reply {
            Reply::Statistics(statistics) => {
                statistics.process = self.facts.read(uptime_ms());
                statistics.store = self.store_facts();
                statistics.protocol_errors = self.protocol_errors;
                statistics.connections_refused = self.clients.refused();
            }
            Reply::Survey(survey) => {
                survey.process = self.facts.read(uptime_ms());
                survey.store = self.store_facts();
            }
            _ => {}
        }
    }

    fn deliver(
        &mut self,
        connection: ConnectionId,
        tag: &Tag,
        handed: &Handed,
    ) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if peer.broken {
            return Ok(());
        }
        let (encoder, out) = (&mut peer.encoder, peer.outbox.buffer());
        let mut send = |attributes: &Attributes, body: &[u8]| {
            let delivery = Delivery {
                handing: handed.handing,
                id: handed.id,
                queue: &handed.queue,
                priority: handed.priority,
                time_to_live_ms: handed.time_to_live_ms,
                reserves: handed.reserves,
                attributes,
                body,
            };
            encoder.deliver(tag, &delivery, out);
        };
        if let Some(row) = self.commits.message(handed.id) {
            send(&row.attributes, &row.body);
        } else if self.memory.body(handed.id, send)?.is_none() {
            slog::error!(self.log, "a message has no body in memory"; "message" => handed.id.0);
        }
        if peer.durability != Durability::Periodic {
            peer.outbox.free();
        }
        peer.mark(connection, &mut self.dirty);
        if handed.handing != Handing::Found {
            self.let_holder_go_on(connection);
        }
        Ok(())
    }

    fn greet(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.encoder.greet(peer.outbox.buffer());
        if !peer.outbox.is_empty() {
            peer.mark(connection, &mut self.dirty);
        }
    }

    /// The commit up to which answers may leave.
    fn committed(&self) -> CommitNumber {
        self.commits.committed()
    }

    fn time(&self) -> Time {
        self.now.time
    }
}
