//! The bytes of one connection: all reading from and writing to its socket.
//!
//! A connection has three users, each in a thread of its own: the client's thread reads, the
//! dispatcher sends what the socket takes at once, and a writer sends to a peer that does not keep
//! up. They share one of these, and only here do they meet the socket, so that what is between it
//! and them (nothing now) can have a state in common.
//!
//! Invariants: only one of dispatcher and writer sends at a time, see
//! [`crate::wire::outbox`]; nothing here is called through a pointer, since every byte comes by.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::Socket;

/// How often a closed socket is read from at most before unread input is left where it is.
const DRAINING_READS_MAX: usize = 16;

/// One connection's socket, in blocking mode.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
}

impl Transport {
    /// Bytes as they are.
    pub fn plain(socket: Socket) -> Transport {
        Transport { socket }
    }

    /// Reads once into a buffer, waiting at most as long as the read time-out; 0 is the end.
    ///
    /// # Errors
    /// `AGAIN` when the time-out has passed, else what the socket says.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        recv(&self.socket, buffer, RecvFlags::empty()).map(|(_, count)| count)
    }

    /// The same to the end of a buffer, as much as it has capacity for.
    ///
    /// # Errors
    /// As for [`Transport::read`].
    pub fn read_to_end_of(&self, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
        recv(&self.socket, spare_capacity(buffer), RecvFlags::empty()).map(|(_, count)| count)
    }

    /// The same of what has arrived already, without waiting.
    ///
    /// # Errors
    /// `AGAIN` when nothing has arrived, else what the socket says.
    #[inline]
    pub fn read_arrived(&self, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
        recv(&self.socket, spare_capacity(buffer), RecvFlags::DONTWAIT).map(|(_, count)| count)
    }

    /// How many bytes have arrived and not been read. A system that does not say has none.
    pub fn arrived_bytes(&self) -> usize {
        usize::try_from(ioctl_fionread(&self.socket).unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// How long a read waits; `None` is for ever.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn set_read_timeout(&self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout_ms.map(Duration::from_millis))
    }

    /// Sends what can be sent without waiting, and returns how many bytes that were. For the
    /// dispatcher.
    ///
    /// # Errors
    /// `AGAIN` when nothing can be sent now, so that a writer has to take over.
    #[inline]
    pub fn send_at_once(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match pieces {
            [piece] => send(&self.socket, piece, flags),
            _ => sendmsg(&self.socket, pieces, &mut SendAncillaryBuffer::default(), flags),
        }
    }

    /// Sends once, waiting at most as long as the write time-out until something can be sent. For a
    /// writer.
    ///
    /// # Errors
    /// `AGAIN` when the time-out has passed and not one byte went, else what the socket says.
    pub fn send_waiting(&self, bytes: &[u8]) -> Result<usize, Errno> {
        send(&self.socket, bytes, SendFlags::NOSIGNAL)
    }

    /// How long [`Transport::send_waiting`] waits; `None` is for ever.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn set_write_timeout(&self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout_ms.map(Duration::from_millis))
    }

    /// Whether the peer has hung up or the connection is broken, as far as can be seen without
    /// waiting. A peer that has something unread before its end is not seen to have ended.
    pub fn has_ended(&self) -> bool {
        loop {
            match recv(&self.socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((count, _)) => return count == 0,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// The error that the socket has met, if any; it is told once.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Ends reading: whoever waits in a read gets what has arrived and then the end.
    pub fn shut_down_reading(&self) {
        // This fails only on a socket that is not connected any more, in which nobody waits.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Ends both directions, so that whoever reads or writes returns. What the system has already
    /// taken still reaches the peer.
    pub fn shut_down(&self) {
        // This fails only on a socket whose peer is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends both directions of a socket that no thread reads from, after the last word. Unread
    /// input would make the system reset the connection, and the peer might lose that last word:
    /// so it is read and dropped.
    pub fn shut_down_and_drain(&self) {
        self.shut_down();
        let mut waste = [0_u8; 4096];
        for _ in 0..DRAINING_READS_MAX {
            match recv(&self.socket, &mut waste, RecvFlags::DONTWAIT) {
                Ok((1.., _)) => {}
                _ => return,
            }
        }
    }

    /// The socket, to look at its options.
    #[cfg(test)]
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// To be waited for; reading and writing by the descriptor is not for others.
impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Transport::plain(Socket::from(OwnedFd::from(ours))), theirs)
    }

    #[test]
    fn an_end_is_seen_when_all_before_it_has_been_read() {
        use std::io::Write;
        let (transport, mut peer) = pair();
        assert!(!transport.has_ended());
        peer.write_all(b"x").unwrap();
        drop(peer);
        assert!(!transport.has_ended());
        assert_eq!(transport.arrived_bytes(), 1);
        let mut buffer = Vec::with_capacity(10);
        assert_eq!(transport.read_arrived(&mut buffer), Ok(1));
        assert_eq!(buffer, b"x");
        assert!(transport.has_ended());
        assert_eq!(transport.read(&mut [0]), Ok(0));
    }

    #[test]
    fn what_cannot_be_done_at_once_says_again() {
        let (transport, _peer) = pair();
        assert_eq!(transport.read_arrived(&mut Vec::with_capacity(1)), Err(Errno::AGAIN));
        let piece = [b'x'; 4096];
        let error = loop {
            if let Err(error) = transport.send_at_once(&[IoSlice::new(&piece)]) {
                break error;
            }
        };
        assert_eq!(error, Errno::AGAIN);
        transport.set_write_timeout(Some(1)).unwrap();
        assert_eq!(transport.send_waiting(&piece), Err(Errno::AGAIN));
        transport.set_read_timeout(Some(1)).unwrap();
        assert_eq!(transport.read_to_end_of(&mut Vec::with_capacity(1)), Err(Errno::AGAIN));
    }

    #[test]
    fn pieces_are_sent_in_their_order() {
        use std::io::Read;
        let (transport, mut peer) = pair();
        let pieces = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        assert_eq!(transport.send_at_once(&pieces), Ok(7));
        transport.shut_down();
        let mut all = String::new();
        peer.read_to_string(&mut all).unwrap();
        assert_eq!(all, "one two");
    }
}
