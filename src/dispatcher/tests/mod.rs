//! The dispatcher with everything real but time and disk: peers are socket pairs that speak real
//! protocols, and the test is persistence at the other end of the orders.
//!
//! [`Stage`] keeps the clock: it stands still until it is moved, and a turn happens when it is
//! called for.

mod answers;
mod clock;
mod departures;
mod ends;
mod failure;
mod large;
mod lives;
mod pauses;
mod pressure;
mod slow;
mod storm;
mod tick;
mod volatile;
mod when_sent;

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};

use super::peers::Closed;
use super::*;
use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::channels::{self, End, NewConnection, Profile};
use crate::journal::Batch;
use crate::protocol::{self, Decoder, Encoder, Setup};
use crate::store::{self, ErrorSource};
use crate::wire::threads::Threads;
use crate::words::command::{
    Command, Delivery, Extras, Put, PutWith, Reply, Request, Requests, Tag, Target,
};
use crate::words::durability::Durability;
use crate::words::ids::MessageId;
use crate::words::key::KeyedBy;
use crate::words::limits::{
    Charge, EVENTS_PER_TURN_MAX, EVENTS_WAITING_MAX, LimitValues, TICK_BYTES_MAX,
};
use crate::words::output::Output;

/// What differs between stages.
pub(super) struct Settings {
    pub limits: LimitValues,
    pub on_disk: bool,
    pub exit_on_io_error: bool,
    pub min_free_disk: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        let limits = LimitValues::default();
        Settings { limits, on_disk: true, exit_on_io_error: false, min_free_disk: 0 }
    }
}

/// The tick of every stage, in milliseconds.
pub(super) const TICK_MS: u64 = 50;
/// Its `commit_timeout`, in milliseconds.
pub(super) const TIMEOUT_MS: u64 = 5_000;

/// A dispatcher, its peers, and the ends of the channels that other threads would hold.
pub(super) struct Stage {
    pub dispatcher: Dispatcher<'static>,
    pub events: SyncSender<Event>,
    pub orders: Receiver<Order>,
    pub finished: SyncSender<Finished>,
    pub now: Now,
    clients: HashMap<char, Client>,
    shared: Shared,
}

struct Shared {
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    notices: crossbeam_channel::Receiver<Notice>,
}

/// A peer and what would be its thread.
struct Client {
    id: ConnectionId,
    stream: Option<UnixStream>,
    decoder: Box<dyn Decoder>,
    gate: Arc<Gate>,
}

/// A protocol's encoder that has words for all answers.
struct Speaker(Box<dyn Encoder>);

impl Encoder for Speaker {
    fn greet(&mut self, out: &mut Output) {
        self.0.greet(out);
    }

    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output) {
        match (tag, reply) {
            (Tag::None, Reply::Promoted) => out.buffer().extend_from_slice(b"PROMOTED\r\n"),
            (Tag::None, Reply::Joined(Some(id))) => {
                out.buffer().extend_from_slice(format!("JOINED {id}\r\n").as_bytes());
            }
            _ => self.0.reply(tag, reply, out),
        }
    }

    fn durability(&self, tag: &Tag) -> Option<Durability> {
        self.0.durability(tag)
    }

    fn promises(&self, tag: &Tag) -> bool {
        self.0.promises(tag)
    }

    fn deliver(&mut self, tag: &Tag, delivery: &Delivery<'_>, out: &mut Output) {
        self.0.deliver(tag, delivery, out);
    }
}

impl Stage {
    pub fn new() -> Stage {
        Stage::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Stage {
        let memory = store::open(None, &mut |_| ()).unwrap().memory;
        let limits = Arc::new(Limits::new(&settings.limits));
        let engine = Engine::new(limits.clone(), 1, 1 << 40, 1);
        Stage::over(settings, limits, engine, memory)
    }

    /// The dispatcher of an engine that was built from what is in memory.
    pub fn over(
        settings: Settings,
        limits: Arc<Limits>,
        engine: Engine,
        memory: store::Connection,
    ) -> Stage {
        let (events, events_received) = channels::events();
        let (orders_sent, orders) = channels::orders();
        let (finished, finished_received) = channels::finished();
        let (notices_in, notices) = channels::notices();
        let (budget, progress) = (Arc::<Budget>::default(), Arc::<Progress>::default());
        let threads = Threads::new(notices_in.clone());
        let writers = Writers { events: events.clone(), threads, limits: limits.clone() };
        let clock = Clock::start();
        let on_disk = settings.on_disk;
        let parts = Parts {
            engine,
            journal: Journal::new(),
            events: events_received,
            orders: on_disk.then_some(orders_sent),
            finished: finished_received,
            writers: Arc::new(writers),
            clients: Arc::default(),
            hang_ups: HangUps::new().unwrap(),
            clock,
            limits: limits.clone(),
            budget: budget.clone(),
            admission: Arc::new(Admission::new(limits.clone(), budget.clone())),
            progress: progress.clone(),
            turns: Arc::default(),
            health: Arc::default(),
            notices: notices_in.clone(),
            facts: FactReader::new("test".to_owned()),
            snapshot_interval_ms: TICK_MS,
            commit_timeout_ms: TIMEOUT_MS,
            stop_timeout_ms: 0,
            exit_on_io_error: settings.exit_on_io_error,
            min_free_disk: settings.min_free_disk,
            log: Logger::root(slog::Discard, slog::o!()),
        };
        // Lives as long as the process: the dispatcher borrows it for as long as it likes.
        let memory = Box::leak(Box::new(memory));
        let dispatcher = Dispatcher::new(parts, Memory::new(memory).unwrap());
        let shared = Shared { limits, budget, progress, notices };
        let now = dispatcher.now;
        Stage { dispatcher, events, orders, finished, now, clients: HashMap::new(), shared }
    }

    /// Peers of a protocol, called by these letters, at this level.
    pub fn connect(mut self, letters: &str, protocol: &str, durability: Durability) -> Stage {
        for letter in letters.chars() {
            self.open(letter, protocol, durability);
        }
        self
    }

    pub fn open(&mut self, letter: char, protocol: &str, durability: Durability) {
        self.announce(Type::STREAM, letter, protocol, durability);
        self.turn();
    }

    /// A peer is accepted, with a socket of this type (with packets each send is heard by itself);
    /// nobody has taken that yet.
    pub fn announce(
        &mut self,
        socket_type: Type,
        letter: char,
        protocol: &str,
        durability: Durability,
    ) {
        let protocol = protocol::find(protocol).unwrap();
        let setup = Setup {
            limits: self.shared.limits.clone(),
            secret: [7; 16],
            options: Arc::default(),
            is_local_socket: false,
        };
        let (decoder, encoder) = (protocol.connect)(&setup);
        let (ours, theirs) = Socket::pair(Domain::UNIX, socket_type, None).unwrap();
        let theirs = UnixStream::from(OwnedFd::from(theirs));
        let id = ConnectionId(u64::from(letter));
        let gate = Arc::new(Gate::default());
        let opened = NewConnection {
            connection: id,
            transport: Arc::new(Transport::plain(ours)),
            encoder: Box::new(Speaker(encoder)),
            gate: gate.clone(),
            profile: Profile { protocol, durability, ack_timeout_ms: 0 },
            peer: channels::PeerAddress::Unix,
        };
        self.events.send(Event::Opened(Box::new(opened))).unwrap();
        self.clients.insert(letter, Client { id, stream: Some(theirs), decoder, gate });
    }

    /// What a peer sends reaches the channel, decoded; nobody has taken it yet.
    pub fn send(&mut self, letter: char, text: impl AsRef<[u8]>) {
        let client = self.clients.get_mut(&letter).unwrap();
        let mut requests = Requests::default();
        let text = text.as_ref();
        let taken = client.decoder.decode(self.now.time, text, &mut requests).unwrap();
        assert_eq!(taken, text.len());
        let charge = Charge::new(self.shared.budget.clone());
        let requests = requests.take();
        self.events.send(Event::Requests { connection: client.id, requests, charge }).unwrap();
    }

    /// A peer asks for what no protocol has words for yet, and the turn that takes it.
    pub fn ask(&mut self, letter: char, command: Command) {
        self.send_command(letter, command);
        self.turn();
    }

    /// The same; nobody has taken it yet.
    pub fn send_command(&mut self, letter: char, command: Command) {
        let connection = self.clients[&letter].id;
        let requests = vec![Request { tag: Tag::None, command }];
        let charge = Charge::new(self.shared.budget.clone());
        self.events.send(Event::Requests { connection, requests, charge }).unwrap();
    }

    /// What a peer sends lies in its socket; its thread has not read it yet.
    pub fn write(&mut self, letter: char, text: &str) {
        let mut stream = self.clients[&letter].stream.as_ref().unwrap();
        io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    }

    /// What a peer sends, and the turn that takes it.
    pub fn say(&mut self, letter: char, text: impl AsRef<[u8]>) {
        self.send(letter, text);
        self.turn();
    }

    /// Turns until nothing more has come.
    pub fn turn(&mut self) {
        self.try_turn().unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn try_turn(&mut self) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            self.dispatcher.turn_at(self.now, next);
            if let Some(error) = self.dispatcher.failed.take() {
                return Err(error);
            }
            next = self.dispatcher.events.try_recv().ok();
            let busy = self.dispatcher.engine_deadline() == Time(0);
            let round = self.dispatcher.departures.deadline();
            let due = self.dispatcher.commit_deadline().min(round) <= self.now.time;
            if next.is_none() && !busy && !due {
                return Ok(());
            }
        }
    }

    /// Lets time pass, and takes the turn that is due then.
    pub fn pass(&mut self, millis: u64) {
        self.now.time = self.now.time.plus(millis);
        self.turn();
    }

    /// When the dispatcher wakes up by itself, in milliseconds from now.
    pub fn wakes_in(&self) -> Option<u64> {
        let due = self.dispatcher.commit_deadline().min(self.dispatcher.pressure.deadline());
        (due != Time::NEVER).then(|| due.since(self.now.time))
    }

    /// What has reached a peer.
    pub fn hear(&mut self, letter: char) -> String {
        let stream = self.clients[&letter].stream.as_ref().unwrap();
        let mut bytes = vec![0; 1024 * 1024];
        let heard = recv(stream, &mut bytes[..], RecvFlags::DONTWAIT);
        let count = heard.map_or(0, |(_, count)| count);
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    /// Whether the peer's connection has been closed from our side.
    pub fn is_closed(&self, letter: char) -> bool {
        let stream = self.clients[&letter].stream.as_ref().unwrap();
        recv(stream, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) == Ok((0, 0))
    }

    /// Whether the peer's thread is held back.
    pub fn is_gated(&self, letter: char) -> bool {
        self.clients[&letter].gate.is_closed()
    }

    /// The peer's thread waits for room in memory, or does so no more.
    pub fn waits_for_room(&self, letter: char, waits: bool) {
        self.clients[&letter].gate.note_waits_for_room(waits);
    }

    /// The peer closes its sending side; its thread has not said so yet.
    pub fn half_close(&mut self, letter: char) {
        self.clients[&letter].stream.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
    }

    /// The peer is gone; its thread has not said so yet.
    pub fn vanish(&mut self, letter: char) {
        self.clients.get_mut(&letter).unwrap().stream = None;
    }

    /// A peer's thread says that it has ended; nobody has taken it yet.
    pub fn end(&mut self, letter: char, end: End) {
        let client = &self.clients[&letter];
        client.gate.leave();
        self.events.send(Event::Ended { connection: client.id, end }).unwrap();
    }

    /// Whether the dispatcher still knows the peer.
    pub fn knows(&self, letter: char) -> bool {
        self.dispatcher.peers.contains_key(&self.clients[&letter].id)
    }

    /// The batch that persistence is asked to commit, and whether with fsync.
    pub fn order(&self) -> Option<(Arc<Batch>, bool)> {
        match self.orders.try_recv().ok()? {
            Order::Commit { batch, sync } => Some((batch, sync)),
            _ => panic!("no commit was asked for but something else"),
        }
    }

    /// Persistence has done what it was asked.
    pub fn finish(&mut self, batch: Arc<Batch>, result: Finished) {
        drop(batch);
        self.finished.send(result).unwrap();
        self.events.send(Event::Persisted).unwrap();
        self.turn();
    }

    /// The order there must be is carried out. Says how many rows it had, and whether it ended in
    /// an fsync.
    pub fn commit(&mut self) -> (u64, bool) {
        let (batch, sync) = self.order().expect("an order was due");
        let rows = batch.rows();
        self.finish(batch, Ok(()));
        (rows, sync)
    }

    /// The order there must be fails.
    pub fn fail(&mut self, error: StoreError) {
        let (batch, _) = self.order().expect("an order was due");
        self.finish(batch, Err(error));
    }

    /// The disk has so much room left, as persistence has measured.
    pub fn disk_has(&self, free_bytes: u64) {
        let sizes = store::Sizes { disk_free_bytes: free_bytes, ..store::Sizes::default() };
        self.shared.progress.measured(&sizes);
    }
}

pub(super) fn disk_full() -> StoreError {
    let source = ErrorSource::System(io::Error::from(io::ErrorKind::StorageFull));
    StoreError::Full { file: PathBuf::from("q.db"), source }
}

pub(super) fn io_error() -> StoreError {
    let source = ErrorSource::System(io::Error::from_raw_os_error(5));
    StoreError::Io { file: PathBuf::from("q.db"), source }
}

/// Puts a message with beanstalk.
pub(super) fn put(body: &str) -> String {
    format!("put 0 0 60 {}\r\n{body}\r\n", body.len())
}

/// Puts a volatile message, under a key or not.
pub(super) fn put_volatile(body: impl Into<Vec<u8>>, keyed: Option<KeyedBy>) -> Command {
    let put = Put::new(Target::Referred, body.into());
    Command::PutWith(Box::new(PutWith { put, extras: Extras { keyed, is_volatile: true } }))
}

/// A php-mq message of these packets.
pub(super) fn phpmq(kind: u8, packets: &[(u8, &str)]) -> String {
    let mut text = format!("H01{kind:03}{:02}", packets.len());
    for (kind, content) in packets {
        text += &format!("P{kind:02}{:029}{content}", content.len());
    }
    text
}
