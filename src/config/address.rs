//! Where a listener listens: `host:port`, `[v6]:port` or `unix:/path`.
//!
//! Reading one asks nobody: what a host name stands for is looked up when the daemon binds.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path that a Unix socket can have, in bytes (`sun_path` less its end).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// The longest host name, in bytes, and the longest part of one between dots (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or address (an IPv6 one without its brackets, its zone behind a percent sign)
    /// and a port, 0 for any free one.
    Tcp(String, u16),
    /// A Unix socket of this path.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no port at its end.
    NoPort,
    /// It begins with a slash: a Unix socket's path without `unix:`.
    NoUnix,
    /// It begins with a scheme, like `tcp://`.
    Scheme,
    /// What stands for the port is not a number up to 65,535.
    BadPort,
    /// There is nothing before the port, or a star.
    NoHost,
    /// What stands before the port can be no host name.
    BadHost,
    /// What stands before the port looks like an IPv4 address and is none.
    BadIpv4,
    /// An IPv6 address without brackets.
    NoBrackets,
    /// Brackets around something else than an IPv6 address.
    BadBrackets,
    /// A Unix socket's path does not begin with a slash.
    RelativePath,
    /// A Unix socket's path is longer than the system takes; how long it is, in bytes.
    LongPath(usize),
    /// A Unix socket's path ends with a slash or holds a zero byte.
    BadPath,
}

impl Address {
    /// The socket addresses that this stands for, none for a Unix socket. A host name is looked up,
    /// which may take as long as the system's resolver likes.
    ///
    /// # Errors
    /// The host name is not known, or not known yet.
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

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }

    /// Its IP address and port, when it is one and no name that has to be looked up.
    pub fn numeric(&self) -> Option<(IpAddr, u16)> {
        match self {
            Address::Tcp(host, port) => {
                let (ip, _) = split_zone(host);
                ip.parse().ok().map(|ip| (ip, *port))
            }
            Address::Unix(_) => None,
        }
    }
}

/// An IPv6 address and its zone: `fe80::1%eth0`.
fn split_zone(host: &str) -> (&str, Option<&str>) {
    host.split_once('%').map_or((host, None), |(ip, zone)| (ip, Some(zone)))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        if text.starts_with('/') {
            return Err(AddressError::NoUnix);
        }
        if text.contains("://") {
            return Err(AddressError::Scheme);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(AddressError::NoBrackets);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.starts_with('[') && !host.ends_with(']') {
            let closed = text.ends_with(']');
            return Err(if closed { AddressError::NoPort } else { AddressError::BadBrackets });
        }
        // parse() alone would take "+9100" too.
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::BadPort);
        }
        let port = port.parse().map_err(|_| AddressError::BadPort)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => bracketed(inner)?,
            None => host_name(host)?,
        };
        Ok(Address::Tcp(host.to_owned(), port))
    }
}

fn unix_path(path: &str) -> Result<PathBuf, AddressError> {
    if !path.starts_with('/') {
        return Err(AddressError::RelativePath);
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(AddressError::LongPath(path.len()));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(AddressError::BadPath);
    }
    Ok(PathBuf::from(path))
}

/// What may stand in brackets: an IPv6 address, with or without a zone.
fn bracketed(inner: &str) -> Result<&str, AddressError> {
    let (ip, zone) = split_zone(inner);
    let zone_is_name =
        zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_graphic()));
    let is_v6 = ip.parse::<Ipv6Addr>().is_ok();
    if is_v6 && zone_is_name { Ok(inner) } else { Err(AddressError::BadBrackets) }
}

/// What may stand before the port without brackets. A name that can never be one is refused here,
/// since one that is not known is waited for.
fn host_name(host: &str) -> Result<&str, AddressError> {
    if host.is_empty() || host == "*" {
        return Err(AddressError::NoHost);
    }
    if host.contains(':') {
        return Err(AddressError::NoBrackets);
    }
    let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let is_label = |label: &&str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if host.len() > HOST_BYTES_MAX + 1 || !labels.iter().all(is_label) {
        return Err(AddressError::BadHost);
    }
    // No top-level domain is a number. Fewer than four numbers are an address in an old form.
    let ends_in_number =
        labels.last().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if ends_in_number && labels.len() >= 4 && host.parse::<Ipv4Addr>().is_err() {
        return Err(AddressError::BadIpv4);
    }
    Ok(host)
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
            AddressError::NoUnix => "no port; if it is a Unix socket, write unix: before its path",
            AddressError::Scheme => "an address has no scheme: write host:port",
            AddressError::BadPort => "the port is not a number from 0 to 65535",
            AddressError::NoHost => {
                "no host before the port: use 0.0.0.0 or [::] for all addresses"
            }
            AddressError::BadHost => {
                "not a host name: those have letters, digits, hyphens and dots"
            }
            AddressError::BadIpv4 => "not an IPv4 address: those have four numbers up to 255",
            AddressError::NoBrackets => "an IPv6 address is written in brackets: [::1]:9100",
            AddressError::BadBrackets => {
                "an IPv6 address, and nothing else, is written in brackets: [::1]:9100"
            }
            AddressError::RelativePath => "the path of a Unix socket must begin with a slash",
            AddressError::LongPath(bytes) => {
                return write!(
                    f,
                    "the path of a Unix socket has {UNIX_PATH_BYTES_MAX} bytes at most, this one \
                     has {bytes}"
                );
            }
            AddressError::BadPath => "the path of a Unix socket must end with the name of a file",
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
        assert_eq!("[fe80::1%eth0]:7".parse(), tcp("fe80::1%eth0", 7));
        assert_eq!("unix:/run/q.sock".parse(), Ok(Address::Unix("/run/q.sock".into())));
        for text in [
            "127.0.0.1:9100",
            "[::1]:9100",
            "[fe80::1%eth0]:7",
            "localhost:1",
            "db-1.example.:1",
            "unix:/run/q.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Address>().unwrap_err();
        for (text, reason) in [
            ("localhost", AddressError::NoPort),
            ("9100", AddressError::NoPort),
            ("[::1]", AddressError::NoPort),
            ("", AddressError::NoPort),
            ("/run/q.sock", AddressError::NoUnix),
            ("tcp://127.0.0.1:9100", AddressError::Scheme),
            ("localhost:", AddressError::BadPort),
            ("localhost:70000", AddressError::BadPort),
            ("localhost:+1", AddressError::BadPort),
            ("localhost:http", AddressError::BadPort),
            (":9100", AddressError::NoHost),
            ("*:9100", AddressError::NoHost),
            ("my host:9100", AddressError::BadHost),
            ("a..b:9100", AddressError::BadHost),
            ("127.0.0.1/8:9100", AddressError::BadHost),
            ("127.0.0.256:9100", AddressError::BadIpv4),
            ("1.2.3.4.5:9100", AddressError::BadIpv4),
            ("::1", AddressError::NoBrackets),
            ("fe80::1%eth0:9100", AddressError::NoBrackets),
            ("1:2:3:4:5:6:7:8:9100", AddressError::NoBrackets),
            ("[::1:9100", AddressError::BadBrackets),
            ("[127.0.0.1]:9100", AddressError::BadBrackets),
            ("[localhost]:9100", AddressError::BadBrackets),
            ("[fe80::1%]:9100", AddressError::BadBrackets),
            ("unix:q.sock", AddressError::RelativePath),
            ("unix:", AddressError::RelativePath),
            ("unix:/run/", AddressError::BadPath),
        ] {
            assert_eq!(refused(text), reason, "{text}");
        }
        assert_eq!(refused(&format!("unix:/{}", "x".repeat(107))), AddressError::LongPath(108));
        assert_eq!(refused(&format!("{}:1", "x".repeat(64))), AddressError::BadHost);
        assert_eq!(refused(&format!("{}:1", "x.".repeat(150))), AddressError::BadHost);
    }

    #[test]
    fn a_numeric_host_resolves_to_itself_and_is_known_to_be_one() {
        let address: Address = "[::1]:80".parse().unwrap();
        assert_eq!(address.resolve().unwrap(), ["[::1]:80".parse().unwrap()]);
        let numeric = |text: &str| text.parse::<Address>().unwrap().numeric();
        assert_eq!(numeric("[::1]:80"), Some(("::1".parse().unwrap(), 80)));
        assert_eq!(numeric("127.0.0.1:80"), Some(("127.0.0.1".parse().unwrap(), 80)));
        assert_eq!(numeric("[fe80::1%eth0]:80"), Some(("fe80::1".parse().unwrap(), 80)));
        assert_eq!(numeric("localhost:80"), None);
        assert_eq!(numeric("unix:/x"), None);
    }
}
