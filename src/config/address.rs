//! Where a listener listens: `host:port`, `[v6]:port` or `unix:/path`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path that a Unix socket can have, in bytes (`sun_path` less its end).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or address (an IPv6 one without its brackets) and a port, 0 for any free one.
    Tcp(String, u16),
    /// A Unix socket of this path.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no port at its end.
    NoPort,
    /// What stands for the port is not a number up to 65,535.
    BadPort,
    /// There is nothing before the port.
    NoHost,
    /// An IPv6 address without brackets, or brackets around something else.
    BadBrackets,
    /// A Unix socket's path does not begin with a slash.
    RelativePath,
    /// A Unix socket's path is longer than the system takes, or holds a zero byte.
    BadPath,
}

impl Address {
    /// The socket addresses that this stands for, none for a Unix socket.
    ///
    /// # Errors
    /// The host name is not known.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Address::Tcp(host, port) => {
                let mut found: Vec<SocketAddr> =
                    (host.as_str(), *port).to_socket_addrs()?.collect();
                // A resolver may list one address several times (one per socket type or source).
                found.sort();
                found.dedup();
                Ok(found)
            }
            Address::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(AddressError::RelativePath);
            }
            if path.len() > UNIX_PATH_BYTES_MAX || path.contains('\0') {
                return Err(AddressError::BadPath);
            }
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        // parse() alone would take "+9100" too.
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::BadPort);
        }
        let port = port.parse().map_err(|_| AddressError::BadPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(AddressError::BadBrackets)?;
                match inner.parse() {
                    Ok(IpAddr::V6(_)) => inner,
                    _ => return Err(AddressError::BadBrackets),
                }
            }
            None if host.contains([':', ']']) => return Err(AddressError::BadBrackets),
            None if host.is_empty() => return Err(AddressError::NoHost),
            None => host,
        };
        Ok(Address::Tcp(host.to_owned(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::NoPort => {
                "no port: addresses are host:port, [v6 address]:port or unix:/path"
            }
            AddressError::BadPort => "the port is not a number from 0 to 65535",
            AddressError::NoHost => {
                "no host before the port: use 0.0.0.0 or [::] for all addresses"
            }
            AddressError::BadBrackets => {
                "an IPv6 address, and nothing else, is written in brackets: [::1]:9100"
            }
            AddressError::RelativePath => "the path of a Unix socket must begin with a slash",
            AddressError::BadPath => "the path of a Unix socket is longer than 107 bytes",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<Address, AddressError> {
        Ok(Address::Tcp(host.to_owned(), port))
    }

    #[test]
    fn the_three_forms_are_read_and_written() {
        assert_eq!("127.0.0.1:9100".parse(), tcp("127.0.0.1", 9100));
        assert_eq!("localhost:0".parse(), tcp("localhost", 0));
        assert_eq!("[::1]:65535".parse(), tcp("::1", 65_535));
        assert_eq!("unix:/run/q.sock".parse(), Ok(Address::Unix("/run/q.sock".into())));
        for text in ["127.0.0.1:9100", "[::1]:9100", "localhost:1", "unix:/run/q.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(refused("localhost"), AddressError::NoPort);
        assert_eq!(refused("localhost:"), AddressError::BadPort);
        assert_eq!(refused("localhost:70000"), AddressError::BadPort);
        assert_eq!(refused("localhost:+1"), AddressError::BadPort);
        assert_eq!(refused(":9100"), AddressError::NoHost);
        assert_eq!(refused("::1:9100"), AddressError::BadBrackets);
        assert_eq!(refused("[::1:9100"), AddressError::BadBrackets);
        assert_eq!(refused("[127.0.0.1]:9100"), AddressError::BadBrackets);
        assert_eq!(refused("unix:q.sock"), AddressError::RelativePath);
        assert_eq!(refused(&format!("unix:/{}", "x".repeat(107))), AddressError::BadPath);
    }

    #[test]
    fn a_numeric_host_resolves_to_itself() {
        let address: Address = "[::1]:80".parse().unwrap();
        assert_eq!(address.resolve().unwrap(), ["[::1]:80".parse().unwrap()]);
    }
}
