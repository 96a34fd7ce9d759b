//! Accepting connections: one thread, `listen-N`, per listening socket.
//!
//! It polls the socket and a wake of its own; the listening socket itself is never shut down, since
//! one that was passed in by the service manager would die for good. Each connection is counted,
//! announced to the dispatcher and given a thread of its own.
//!
//! Failure: accept goes on for ever. A peer that has gone again is passed over. When descriptors,
//! memory or threads have run out, that is logged once per episode, the peer is told and closed
//! (through a descriptor kept in reserve for that), and the thread rests a moment, so that it
//! burns no time while the shortage lasts.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use slog::{debug, info, warn};
use socket2::{SockAddr, Socket, TcpKeepalive};

use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::channels::{End, Event, NewConnection, PeerAddress, Profile};
use crate::protocol::Setup;
use crate::wire::bind::{ListeningSocket, LocalAddress};
use crate::wire::clients::{Owner, Refused};
use crate::wire::connection::{Connection, Shared};
use crate::words::clock::Time;
use crate::words::limits::{ACCEPT_PAUSE_MS, SERVICE_STACK_BYTES};

/// A shortage that has not shown for so long is over, in milliseconds.
const EPISODE_MS: u64 = 10_000;

/// Peers told between two rests that no descriptor is left: enough to keep a queue of them short,
/// few enough not to be busy with it.
const TURNED_AWAY_PER_REST_MAX: usize = 16;

/// What a listener's connections are to be.
#[derive(Clone)]
pub struct Service {
    /// For the core.
    pub profile: Profile,
    /// For the protocol.
    pub setup: Setup,
}

/// A listener at work. Dropping it without [`Listening::stop`] leaves it at work.
pub struct Listening {
    address: LocalAddress,
    stop: Arc<Stop>,
    thread: std::thread::JoinHandle<()>,
}

/// Tells a listener's thread to end.
struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
}

/// Starts listener number `number`.
///
/// # Errors
/// No descriptor or thread is to be had.
pub fn start(
    number: usize,
    socket: ListeningSocket,
    service: Service,
    shared: Arc<Shared>,
) -> io::Result<Listening> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let stop = Arc::new(Stop { asked: AtomicBool::new(false), wake });
    let address = socket.local_address().clone();
    let listener = Listener {
        reserve: Some(SpareDescriptor::new()?),
        socket,
        service,
        shared,
        stop: Arc::clone(&stop),
        shortage_seen: None,
        prepared: None,
        has_unprepared: true,
    };
    let thread = std::thread::Builder::new()
        .name(format!("listen-{number}"))
        .stack_size(SERVICE_STACK_BYTES)
        .spawn(move || listener.run())?;
    Ok(Listening { address, stop, thread })
}

impl Listening {
    /// Where it listens, with the real port.
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// Tells it to accept no more. The socket is closed, and its file removed, when it has ended.
    pub fn stop(&self) {
        self.stop.asked.store(true, Ordering::SeqCst);
        // A full counter is readable as well.
        let _ = rustix::io::write(&self.stop.wake, &1_u64.to_ne_bytes());
    }

    /// Waits for its end. False when it has panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

struct Listener {
    socket: ListeningSocket,
    service: Service,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    /// Given up for a moment when no descriptor is left, so that a peer can be told.
    reserve: Option<SpareDescriptor>,
    /// When descriptors, memory or threads were last short.
    shortage_seen: Option<Time>,
    /// The options that the listening socket has, and so every connection that comes through it.
    prepared: Option<SocketOptions>,
    /// Whether connections may wait that came before these options.
    has_unprepared: bool,
}

/// What the operator says about TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SocketOptions {
    keepalive_ms: u64,
    user_timeout_ms: u64,
}

/// A descriptor that is open for nothing but to be closed when no other is left.
struct SpareDescriptor(#[expect(dead_code, reason = "it is there to be dropped")] OwnedFd);

impl SpareDescriptor {
    fn new() -> io::Result<SpareDescriptor> {
        Ok(SpareDescriptor(eventfd(0, EventfdFlags::CLOEXEC)?))
    }
}

/// What to do after an attempt to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Try again at once: more may wait.
    Accept,
    /// Wait for the next connection.
    Wait,
    /// Something has run out: rest.
    Rest,
}

impl Listener {
    fn run(mut self) {
        while !self.stop.asked.load(Ordering::SeqCst) {
            self.prepare();
            let accepted = self.socket.socket().accept();
            match self.take(accepted) {
                Next::Accept => {}
                Next::Wait => {
                    self.has_unprepared = false;
                    self.wait(None);
                }
                Next::Rest => self.wait(Some(ACCEPT_PAUSE_MS)),
            }
        }
    }

    /// Waits for a connection or the stop; for the stop alone while it rests.
    fn wait(&self, rest_ms: Option<u64>) {
        let wake = PollFd::new(&self.stop.wake, PollFlags::IN);
        let mut polled = [wake, PollFd::new(self.socket.socket(), PollFlags::IN)];
        let result = match rest_ms {
            None => poll(&mut polled, None),
            Some(millis) => {
                let rest =
                    Timespec { tv_sec: 0, tv_nsec: i64::try_from(millis).unwrap_or(0) * 1_000_000 };
                poll(&mut polled[..1], Some(&rest))
            }
        };
        if let Err(error) = result
            && error != Errno::INTR
        {
            // The system has no memory for it; going on at once would be a busy loop.
            warn!(self.shared.log, "cannot wait for connections"; "error" => %error);
            std::thread::park_timeout(Duration::from_millis(ACCEPT_PAUSE_MS));
        }
    }

    /// Deals with what accept has brought.
    fn take(&mut self, accepted: io::Result<(Socket, SockAddr)>) -> Next {
        let error = match accepted {
            Ok((socket, address)) => return self.admit(socket, &address),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) => Next::Wait,
            Some(Errno::MFILE | Errno::NFILE) => {
                self.note_shortage("out of file descriptors", &error);
                self.turn_away_with_reserve();
                Next::Rest
            }
            Some(Errno::NOMEM | Errno::NOBUFS) => {
                self.note_shortage("out of memory", &error);
                Next::Rest
            }
            // The peer has gone again, or its network has: accept(2) lists these as errors of the
            // new connection that are to be treated like "try again".
            Some(
                Errno::INTR
                | Errno::CONNABORTED
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::TIMEDOUT,
            ) => Next::Accept,
            _ => {
                self.note_shortage("cannot accept connections", &error);
                Next::Rest
            }
        }
    }

    /// Gives the connection a place and a thread, or turns it away.
    fn admit(&mut self, socket: Socket, address: &SockAddr) -> Next {
        let (peer, owner) = peer_and_owner(&socket, address);
        match self.shared.clients.admit(&self.shared.limits, owner) {
            Ok(place) => {
                if self.shared.clients.has_room_again(&self.shared.limits) {
                    info!(self.shared.log, "limits.max_connections has room again");
                }
                let gate = Arc::new(Gate::keeping(place));
                if let (Some(options), true) = (self.prepared, self.has_unprepared) {
                    // Where they cannot be set the peer has gone: its thread will see.
                    let _ = options.set(&socket);
                }
                self.open(Arc::new(Transport::plain(socket)), gate, peer)
            }
            Err(refused) => {
                // One peer's own limit is one peer's story.
                if refused == Refused::Daemon && self.shared.clients.note_full() {
                    warn!(self.shared.log, "limits.max_connections is reached, connections are refused";
                        "max_connections" => self.shared.limits.max_connections());
                }
                debug!(self.shared.log, "connection refused"; "peer" => %peer, "error" => %refused);
                self.turn_away(&Transport::plain(socket));
                Next::Accept
            }
        }
    }

    /// Announces the connection to the dispatcher, then starts its thread.
    fn open(&mut self, transport: Arc<Transport>, gate: Arc<Gate>, peer: PeerAddress) -> Next {
        let id = self.shared.clients.next_id();
        let profile = self.service.profile;
        let (decoder, encoder) = (profile.protocol.connect)(&self.service.setup);
        let opened = NewConnection {
            connection: id,
            transport: Arc::clone(&transport),
            encoder,
            gate: Arc::clone(&gate),
            profile,
            peer,
        };
        if self.shared.events.send(Event::Opened(Box::new(opened))).is_err() {
            // Without a dispatcher the daemon is at its end.
            self.stop.asked.store(true, Ordering::SeqCst);
            return Next::Wait;
        }
        self.shared.clients.register(id, &transport, &gate);
        let connection = Connection {
            id,
            transport: Arc::clone(&transport),
            gate,
            decoder,
            shared: Arc::clone(&self.shared),
        };
        let name = format!("client-{id}");
        let started = self.shared.threads.serve(name, move || connection.run());
        let Err(error) = started else {
            return Next::Accept;
        };
        self.note_shortage("out of threads", &error);
        self.shared.clients.forget(id);
        self.turn_away(&transport);
        drop(transport);
        let _ = self.shared.events.send(Event::Ended { connection: id, end: End::Reset(error) });
        Next::Rest
    }

    /// Gives the listening socket the options that connections take over from it: six system calls
    /// for each of them are worth saving where peers connect all the time.
    fn prepare(&mut self) {
        let limits = &self.shared.limits;
        let options = SocketOptions {
            keepalive_ms: limits.keepalive_ms(),
            user_timeout_ms: limits.tcp_user_timeout_ms(),
        };
        let is_tcp = matches!(self.socket.local_address(), LocalAddress::Tcp(_));
        if is_tcp && self.prepared != Some(options) {
            // Where one cannot be set, connections do without it.
            let _ = options.set(self.socket.socket());
            self.prepared = Some(options);
            self.has_unprepared = true;
        }
    }

    /// Tells a peer in its protocol's own words that there is no room, and closes.
    fn turn_away(&self, transport: &Transport) {
        self.shared.clients.count_refused();
        let words = self.service.profile.protocol.too_many_connections;
        // A new connection has room for a line; a peer that is gone needs no answer.
        let _ = transport.send_at_once(&[IoSlice::new(words)]);
        transport.shut_down_and_drain();
    }

    /// Takes waiting peers, one after the other, with the descriptor kept in reserve, tells them
    /// and closes; else they would wait in the backlog without knowing why.
    fn turn_away_with_reserve(&mut self) {
        drop(self.reserve.take());
        for _ in 0..TURNED_AWAY_PER_REST_MAX {
            let Ok((socket, _)) = self.socket.socket().accept() else { break };
            self.turn_away(&Transport::plain(socket));
        }
        // Somebody else may have been faster; the next rest ends with another attempt.
        self.reserve = SpareDescriptor::new().ok();
    }

    /// Logs a shortage, but only the first of an episode.
    fn note_shortage(&mut self, what: &'static str, error: &io::Error) {
        let now = self.shared.clock.awake();
        let last = self.shortage_seen.replace(now);
        if last.is_none_or(|last| now.since(last) > EPISODE_MS) {
            warn!(self.shared.log, "refusing connections"; "reason" => what, "error" => %error);
        }
    }
}

impl SocketOptions {
    /// Small answers leave at once, and a dead peer is noticed.
    fn set(self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        let idle_ms = self.keepalive_ms;
        socket.set_keepalive(idle_ms > 0)?;
        if idle_ms > 0 {
            // TCP counts in seconds. Three questions, a third of the idle time apart.
            let idle = Duration::from_secs(idle_ms.div_ceil(1_000));
            let interval = Duration::from_secs((idle_ms / 3_000).max(1));
            let keepalive =
                TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        // 0 is the system's own.
        socket.set_tcp_user_timeout(Some(Duration::from_millis(self.user_timeout_ms)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        info!(self.shared.log, "stopped listening"; "address" => %self.socket.local_address());
    }
}

/// Who is on the other side, and to whom the connection is counted.
fn peer_and_owner(socket: &Socket, address: &SockAddr) -> (PeerAddress, Owner) {
    match address.as_socket() {
        Some(address) => {
            // An IPv4 peer of an IPv6 socket is the same peer.
            let ip: IpAddr = address.ip().to_canonical();
            (PeerAddress::Ip(ip, address.port()), Owner::Address(ip))
        }
        None => {
            let user = rustix::net::sockopt::socket_peercred(socket.as_fd())
                .map_or(u32::MAX, |credentials| credentials.uid.as_raw());
            (PeerAddress::Unix, Owner::User(user))
        }
    }
}

#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
