//! Back-pressure towards one peer: an atomic gate that its client's thread looks at before it
//! reads, and a wake for the thread that waits behind it.
//!
//! The dispatcher opens and closes; the client's thread waits in [`Gate::wake`]'s descriptor
//! together with its socket, so that a hang-up is seen behind a closed gate too. The descriptor is
//! made when a thread first waits: most connections never need it.
//!
//! Both sides of a connection hold the gate until they are through with it, so it also keeps alive
//! whatever must last as long as both (the connection's place among those that are counted).

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// The gate of one connection; open at first.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    /// The connection is closed from our side: the gate never holds anybody back again.
    for_good: AtomicBool,
    /// The client's thread has read its last.
    left: AtomicBool,
    /// The client's thread reads nothing until there is room in memory.
    waits_for_room: AtomicBool,
    wake: OnceLock<OwnedFd>,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Gate {
    /// An open gate that drops `kept` when both sides of the connection are through with it.
    pub fn keeping(kept: impl Any + Send + Sync) -> Gate {
        Gate { _kept: Some(Box::new(kept)), ..Gate::default() }
    }

    /// Whether the client's thread must not read now.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) && !self.for_good.load(Ordering::SeqCst)
    }

    /// Stops the client's thread before its next read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets the client's thread go on, and wakes it where it waits.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// Lets the client's thread go on to its end, whatever is closed after this.
    pub fn open_for_good(&self) {
        self.for_good.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// The client's thread reads no more from its socket.
    pub fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// Whether nobody reads from the socket any more.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// Says whether the client's thread waits for room in memory, where no gate holds it back.
    pub fn note_waits_for_room(&self, waits: bool) {
        self.waits_for_room.store(waits, Ordering::SeqCst);
    }

    /// Whether the client's thread waits for room in memory.
    pub fn waits_for_room(&self) -> bool {
        self.waits_for_room.load(Ordering::SeqCst)
    }

    /// Wakes the client's thread without opening.
    pub fn ring(&self) {
        // Invariant: a thread makes the descriptor before it looks at the gate a last time, so
        // that either it sees the gate open or this sees the descriptor.
        if let Some(wake) = self.wake.get() {
            // A full counter is readable already, which is all that is wanted.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }

    /// The descriptor that becomes readable when the gate has opened.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn wake(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(wake) = self.wake.get() {
            return Ok(wake.as_fd());
        }
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(self.wake.get_or_init(|| made).as_fd())
    }

    /// Takes the readiness away again, after the descriptor was readable.
    pub fn quiet(&self) {
        if let Some(wake) = self.wake.get() {
            let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn readable(gate: &Gate) -> bool {
        let wake = gate.wake().unwrap();
        let mut polled = [PollFd::new(&wake, PollFlags::IN)];
        poll(&mut polled, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn opening_wakes_who_waits() {
        let gate = Gate::default();
        gate.close();
        assert!(gate.is_closed());
        assert!(!readable(&gate));
        gate.open();
        assert!(!gate.is_closed());
        assert!(readable(&gate));
        gate.quiet();
        assert!(!readable(&gate));
    }

    #[test]
    fn a_gate_opened_for_good_can_not_be_closed_again() {
        let gate = Gate::default();
        gate.close();
        gate.open_for_good();
        assert!(!gate.is_closed());
        gate.close();
        assert!(!gate.is_closed());
    }
}
