//! One connection as a peer has it: bytes, lines, and how it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::PATIENCE;

/// A connection. Reading gives up after [`PATIENCE`].
pub struct Stream {
    socket: Socket,
    /// What has been read and not been asked for.
    buffer: Vec<u8>,
    /// Bytes at its front that have been asked for already.
    taken: usize,
    ends_in_reset: bool,
}

impl Drop for Stream {
    /// Ends the connection now. Closing alone would leave it open for as long as a program that
    /// another test has just started has not let go of the descriptors it was born with.
    fn drop(&mut self) {
        if !self.ends_in_reset {
            // It may have ended already.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Stream {
    /// Connects to an address as the daemon logs it.
    pub fn connect(address: &str) -> Stream {
        Stream::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub fn try_connect(address: &str) -> std::io::Result<Stream> {
        Stream::with_receive_buffer(address, None)
    }

    /// Connects with a small or the system's usual buffer for what comes in.
    pub fn with_receive_buffer(address: &str, bytes: Option<usize>) -> std::io::Result<Stream> {
        let (domain, to) = match address.strip_prefix("unix:") {
            Some(path) => (Domain::UNIX, SockAddr::unix(path)?),
            None => {
                let address: SocketAddr = address.parse().unwrap();
                (Domain::for_address(address), SockAddr::from(address))
            }
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(&to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Stream { socket, buffer: Vec::new(), taken: 0, ends_in_reset: false })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the daemon takes what is sent");
    }

    /// Sends as much as goes, to a daemon that may close at any byte.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends until the socket takes nothing more for a while; says how much went.
    pub fn stuff(&mut self, bytes: &[u8], bytes_max: usize) -> usize {
        self.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0;
        while sent < bytes_max {
            match self.socket.write(bytes) {
                Ok(count) => {
                    // What was cut goes on where it was cut.
                    let rest = &bytes[count..];
                    sent += count;
                    if !rest.is_empty() && self.socket.write_all(rest).is_err() {
                        break;
                    }
                    sent += rest.len();
                }
                Err(_) => break,
            }
        }
        self.socket.set_write_timeout(Some(PATIENCE)).unwrap();
        sent
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// The same to a daemon that may have closed already.
    pub fn half_close_if_open(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Resets the connection at once, whoever else has its descriptor; on a Unix socket, closes it.
    pub fn abort(self) {
        // Dropped it is closed. Nothing but TCP can be taken apart by hand.
        let _ = rustix::net::connect_unspec(&self.socket);
    }

    /// The connection as standard input of a program that is to be started.
    pub fn into_stdin(mut self) -> std::process::Stdio {
        // Dropping this one must not shut it down for the program.
        self.ends_in_reset = true;
        std::os::fd::OwnedFd::from(self.socket.try_clone().unwrap()).into()
    }

    /// Ends in a reset and not in an orderly close (on TCP).
    pub fn reset(mut self) {
        self.ends_in_reset = true;
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// A line without its end, which may be CR LF or LF.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.pending().iter().position(|byte| *byte == b'\n') {
                let mut line = self.take(end + 1);
                line.pop();
                line.pop_if(|byte| *byte == b'\r');
                return String::from_utf8_lossy(&line).into_owned();
            }
            assert!(self.fill(), "the connection ended in a line: {:?}", self.shown());
        }
    }

    /// A line, or nothing when the connection ends first.
    pub fn try_line(&mut self) -> Option<String> {
        while !self.pending().contains(&b'\n') {
            if !self.fill() {
                return None;
            }
        }
        Some(self.line())
    }

    /// The document behind an `OK` line, or nothing when the connection ends first.
    pub fn rest_of_stats(&mut self) -> Option<String> {
        let head = self.try_line()?;
        let length = head.strip_prefix("OK ")?.parse().ok()?;
        Some(String::from_utf8_lossy(&self.exactly(length)).into_owned())
    }

    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.try_exactly(count);
        bytes.unwrap_or_else(|| panic!("the connection ended early: {:?}", self.shown()))
    }

    /// So many bytes, or nothing when the connection ends first.
    pub fn try_exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.pending().len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.take(count))
    }

    /// Everything up to the end of the connection, an orderly one or a reset.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        let all = self.take(self.pending().len());
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads until this has come; returns everything up to its end.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.pending().windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(start) = found {
                let all = self.take(start + text.len());
                return String::from_utf8_lossy(&all).into_owned();
            }
            assert!(self.fill(), "{text:?} did not come, but {:?}", self.shown());
        }
    }

    /// Whether something can be read, looked at without waiting.
    pub fn has_something(&mut self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let result = self.socket.read(&mut bytes);
        self.socket.set_nonblocking(false).unwrap();
        if let Ok(count) = result {
            self.buffer.extend_from_slice(&bytes[..count]);
        }
        !self.pending().is_empty()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.pending()).into_owned()
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.pending()[..count].to_vec();
        self.taken += count;
        bytes
    }

    /// Reads once. False at the end.
    fn fill(&mut self) -> bool {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        let mut bytes = [0; 64 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) =>
                {
                    return false;
                }
                Err(error) => panic!("nothing came ({error}) after {:?}", self.shown()),
            }
        }
    }
}
