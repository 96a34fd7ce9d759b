//! The connections that are open: how many, of whom, and how to end all of them.
//!
//! Shared by listeners (which admit), client threads (which leave) and the main thread (which ends
//! all at shut-down). The lock is held for a few map operations per connection, never per request.
//! Invariant: nothing that may drop a [`Registration`] happens under the lock, since that takes it
//! again.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::channels::gate::Gate;
use crate::channels::transport::Transport;
use crate::words::ids::ConnectionId;
use crate::words::limits::Limits;

/// All open connections.
#[derive(Debug, Default)]
pub struct Clients {
    stopping: AtomicBool,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// Whether `limits.max_connections` was reached and there is no room to speak of yet.
    is_full: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_owner: HashMap<Owner, usize>,
    registered: HashMap<ConnectionId, Registered>,
}

/// What it takes to end a connection; weak references, so that the register keeps no socket open.
#[derive(Debug)]
struct Registered {
    transport: Weak<Transport>,
    gate: Weak<Gate>,
}

/// To whom a connection is counted for `limits.max_connections_per_peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An address, whatever its port.
    Address(IpAddr),
    /// A user of this machine, by number.
    User(u32),
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.max_connections` is reached.
    Daemon,
    /// `limits.max_connections_per_peer` is reached.
    Owner,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Daemon => "limits.max_connections is reached",
            Refused::Owner => "limits.max_connections_per_peer is reached",
        })
    }
}

/// A connection's place among those that are counted, given back when dropped.
#[derive(Debug)]
pub struct Registration {
    clients: Arc<Clients>,
    owner: Owner,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.clients.lock();
        open.count -= 1;
        if let Some(count) = open.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.by_owner.remove(&self.owner);
            }
        }
    }
}

impl Clients {
    /// Counts one more connection, if there is room for it.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(self: &Arc<Self>, limits: &Limits, owner: Owner) -> Result<Registration, Refused> {
        let mut open = self.lock();
        let of_owner = open.by_owner.get(&owner).copied().unwrap_or(0);
        let per_owner_max = limits.max_connections_per_peer();
        let full = if open.count >= limits.max_connections() {
            Some(Refused::Daemon)
        } else if per_owner_max > 0 && of_owner >= per_owner_max {
            Some(Refused::Owner)
        } else {
            None
        };
        if let Some(full) = full {
            return Err(full);
        }
        open.count += 1;
        open.by_owner.insert(owner, of_owner + 1);
        Ok(Registration { clients: Arc::clone(self), owner })
    }

    /// Notes that the daemon is full. Says whether it was not before.
    pub fn note_full(&self) -> bool {
        !self.is_full.swap(true, Ordering::Relaxed)
    }

    /// Whether a full daemon has room again. Ten per cent of slack keep that from flickering.
    pub fn has_room_again(&self, limits: &Limits) -> bool {
        let max = limits.max_connections();
        self.is_full.load(Ordering::Relaxed)
            && self.count() <= max - max.div_ceil(10)
            && self.is_full.swap(false, Ordering::Relaxed)
    }

    /// The number of the next connection, from 1.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.accepted.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Notes how to end this connection.
    pub fn register(&self, connection: ConnectionId, transport: &Arc<Transport>, gate: &Arc<Gate>) {
        let entry = Registered { transport: Arc::downgrade(transport), gate: Arc::downgrade(gate) };
        self.lock().registered.insert(connection, entry);
    }

    /// Forgets the connection: its thread is at its end.
    pub fn forget(&self, connection: ConnectionId) {
        self.lock().registered.remove(&connection);
    }

    /// Counts a connection that was turned away.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections turned away so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[cfg(test)]
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections whose socket is still open on our side.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// Client threads that have not reached their end.
    pub fn reading(&self) -> usize {
        self.lock().registered.len()
    }

    /// Whether all client threads have been told to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells all client threads to end, wherever they wait. Call it when no listener runs any
    /// more. What has arrived is still read, for a short while.
    pub fn end_all(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let registered: Vec<_> = {
            let open = self.lock();
            open.registered
                .values()
                .map(|entry| (entry.transport.upgrade(), entry.gate.upgrade()))
                .collect()
        };
        for (transport, gate) in registered {
            if let Some(transport) = transport {
                transport.shut_down_reading();
            }
            if let Some(gate) = gate {
                gate.ring();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A thread that panicked has left whole values behind: each change is one map operation.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::limits::LimitValues;

    fn limits(max_connections: usize, max_connections_per_peer: usize) -> Limits {
        Limits::new(&LimitValues {
            max_connections,
            max_connections_per_peer,
            ..LimitValues::default()
        })
    }

    const ALICE: Owner = Owner::User(1000);
    const BOB: Owner = Owner::User(1001);

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let clients = Arc::new(Clients::default());
        let limits = limits(2, 0);
        let first = clients.admit(&limits, ALICE).unwrap();
        let _second = clients.admit(&limits, ALICE).unwrap();
        assert_eq!(clients.admit(&limits, BOB).unwrap_err(), Refused::Daemon);
        drop(first);
        assert!(clients.admit(&limits, BOB).is_ok());
        assert_eq!(clients.count(), 1);
    }

    #[test]
    fn one_owner_is_limited_without_the_others() {
        let clients = Arc::new(Clients::default());
        let limits = limits(100, 2);
        let alices = [0, 1].map(|_| clients.admit(&limits, ALICE).unwrap());
        assert_eq!(clients.admit(&limits, ALICE).unwrap_err(), Refused::Owner);
        let _bobs = clients.admit(&limits, BOB).unwrap();
        drop(alices);
        assert!(clients.admit(&limits, ALICE).is_ok());
    }

    #[test]
    fn a_gate_keeps_its_connections_place_until_both_sides_are_through() {
        let clients = Arc::new(Clients::default());
        let place = clients.admit(&limits(1, 0), ALICE).unwrap();
        let of_thread = Arc::new(Gate::keeping(place));
        let of_dispatcher = of_thread.clone();
        drop(of_thread);
        assert_eq!(clients.count(), 1);
        drop(of_dispatcher);
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn ending_all_shuts_every_socket_for_reading() {
        let clients = Clients::default();
        let (ours, theirs) =
            socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let (ours, gate) = (Arc::new(Transport::plain(ours)), Arc::new(Gate::default()));
        clients.register(ConnectionId(1), &ours, &gate);
        clients.end_all();
        assert!(clients.is_stopping());
        assert_eq!(
            rustix::net::recv(&ours, &mut [0_u8; 8], rustix::net::RecvFlags::empty()),
            Ok((0, 0))
        );
        // What we have to say still goes out.
        assert_eq!(ours.send_at_once(&[std::io::IoSlice::new(b"bye")]), Ok(3));
        assert_eq!(
            rustix::net::recv(&theirs, &mut [0_u8; 8], rustix::net::RecvFlags::empty()),
            Ok((3, 3))
        );
    }
}
