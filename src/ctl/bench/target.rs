//! Where the server is, and connecting to it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// How long a connection's set-up may take before the server counts as gone.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Reads `host:port`, `[v6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// It is neither, or the host has no address.
    pub fn parse(text: &str) -> io::Result<Target> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(PathBuf::from(path)));
        }
        let found = text.to_socket_addrs()?.next();
        found.map(Target::Tcp).ok_or_else(|| io::Error::other("the host has no address"))
    }

    /// A blocking connection, whose reads and writes give up after a while.
    ///
    /// # Errors
    /// Nobody listens there, or the system refuses.
    pub fn connect(&self) -> io::Result<Socket> {
        let (domain, address) = match self {
            Target::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Target::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        socket.connect(&address)?;
        socket.set_read_timeout(Some(SETUP_TIMEOUT))?;
        socket.set_write_timeout(Some(SETUP_TIMEOUT))?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_are_read() {
        let tcp = Target::parse("127.0.0.1:11300").unwrap();
        assert_eq!(tcp, Target::Tcp(SocketAddr::from(([127, 0, 0, 1], 11300))));
        let unix = Target::parse("unix:/run/q.sock").unwrap();
        assert_eq!(unix, Target::Unix(PathBuf::from("/run/q.sock")));
        assert!(Target::parse("nonsense").is_err());
    }
}
