//! What the addresses of listeners are on this machine, and whether two of them are the same one.
//!
//! Reading a configuration resolves no name: the network may not be up yet, and a name that does
//! not resolve now is no mistake. The daemon resolves names when it binds, and waits for them;
//! `--check-config` warns. Two listeners at one address are found here as well, since the daemon
//! would otherwise wait for itself.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::error::{ConfigError, ConfigFault};
use super::{Address, Listener};

/// Looks up what listeners' addresses stand for, one after the other, and remembers them.
#[derive(Debug, Default)]
pub struct Resolver {
    taken: Vec<(Endpoint, String)>,
}

/// Where a socket listens, in a form in which two names of one address are equal.
#[derive(Debug, PartialEq, Eq)]
enum Endpoint {
    Ip(SocketAddr),
    Name(String, u16),
    /// The directory's device and inode, and the name of the file in it.
    File(u64, u64, PathBuf),
    /// A path in a directory that does not exist (yet).
    Path(PathBuf),
}

impl Resolver {
    /// The socket addresses of a listener, none for a Unix socket.
    ///
    /// # Errors
    /// The host name is not known ([`ConfigFault::UnknownHost`]), it names an address that other
    /// machines reach without leave for it, or the address is that of another listener.
    pub fn add(&mut self, listener: &Listener) -> Result<Vec<SocketAddr>, ConfigError> {
        let text = listener.address.to_string();
        let fail = |fault| ConfigError { place: listener.place.clone(), fault };
        let found = listener
            .address
            .resolve()
            .map_err(|error| fail(ConfigFault::UnknownHost(text.clone(), error)))?;
        if !listener.allow_remote && !found.iter().all(|address| is_local(address.ip())) {
            return Err(fail(ConfigFault::Remote(text)));
        }
        let endpoints = match &listener.address {
            Address::Tcp(..) => found.iter().copied().map(Endpoint::Ip).collect(),
            Address::Unix(path) => vec![file(path)],
        };
        self.claim(&text, endpoints).map_err(fail)?;
        Ok(found)
    }

    /// The same for what is known of an address without looking anything up.
    ///
    /// # Errors
    /// As for [`Resolver::add`], as far as it can be told.
    pub(super) fn add_unresolved(&mut self, listener: &Listener) -> Result<(), ConfigError> {
        let fail = |fault| ConfigError { place: listener.place.clone(), fault };
        let text = listener.address.to_string();
        let endpoint = match (&listener.address, listener.address.numeric()) {
            (_, Some((ip, _))) if !listener.allow_remote && !is_local(ip) => {
                return Err(fail(ConfigFault::Remote(text)));
            }
            // A zone is left to the look-up: it may name an interface that is not there yet.
            (Address::Tcp(host, _), Some((ip, port))) if !host.contains('%') => {
                Endpoint::Ip(SocketAddr::new(ip, port))
            }
            (Address::Tcp(host, port), _) => {
                let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                Endpoint::Name(name, *port)
            }
            (Address::Unix(path), _) => file(path),
        };
        self.claim(&text, vec![endpoint]).map_err(fail)
    }

    /// Remembers a socket that listens already.
    pub fn add_open(&mut self, address: SocketAddr) {
        self.taken.push((Endpoint::Ip(address), address.to_string()));
    }

    fn claim(&mut self, text: &str, endpoints: Vec<Endpoint>) -> Result<(), ConfigFault> {
        let taken = self.taken.iter().find(|(taken, _)| endpoints.iter().any(|e| e.meets(taken)));
        if let Some((_, other)) = taken {
            return Err(ConfigFault::DuplicateAddress(text.to_owned(), other.clone()));
        }
        self.taken.extend(endpoints.into_iter().map(|endpoint| (endpoint, text.to_owned())));
        Ok(())
    }
}

impl Endpoint {
    /// Whether the system would refuse one while the other is bound.
    fn meets(&self, other: &Endpoint) -> bool {
        match (self, other) {
            (Endpoint::Ip(one), Endpoint::Ip(two)) => {
                let (here, there) = (one.ip().to_canonical(), two.ip().to_canonical());
                let everything = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
                let same_family = here.is_ipv4() == there.is_ipv4();
                let any = here.is_unspecified() || there.is_unspecified();
                one.port() == two.port()
                    && one.port() != 0
                    && (here == there && scope(one) == scope(two)
                        || any && same_family
                        || here == everything
                        || there == everything)
            }
            (Endpoint::Name(_, 0), _) => false,
            _ => self == other,
        }
    }
}

fn scope(address: &SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

/// None of the protocols asks who somebody is, so only this machine may reach a listener that does
/// not say otherwise.
fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A Unix socket's file: two paths may lead to one directory.
fn file(path: &Path) -> Endpoint {
    let directory = path.parent().and_then(|directory| fs::metadata(directory).ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => {
            Endpoint::File(directory.dev(), directory.ino(), PathBuf::from(name))
        }
        _ => Endpoint::Path(without_detours(path)),
    }
}

/// The path without `.` and `..`, as far as that can be told from the path alone.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::listeners::unaddressed;
    use super::super::tests::TABLE;
    use super::*;
    use crate::words::durability::Durability;

    fn listener(address: &str) -> Listener {
        let address = address.parse().unwrap();
        let row = unaddressed(&TABLE[0], Durability::Write);
        Listener { address, allow_remote: true, ..row }
    }

    /// Whether two listeners of these addresses are taken for one, when nothing is looked up and
    /// when everything is.
    fn meet(one: &str, two: &str) -> (bool, bool) {
        let (one, two) = (listener(one), listener(two));
        let mut unresolved = Resolver::default();
        unresolved.add_unresolved(&one).unwrap();
        let mut resolved = Resolver::default();
        resolved.add(&one).unwrap();
        (unresolved.add_unresolved(&two).is_err(), resolved.add(&two).is_err())
    }

    #[test]
    fn one_address_under_two_names_is_found() {
        for (one, two) in [
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("127.0.0.1:7", "0.0.0.0:7"),
            ("[::]:7", "127.0.0.1:7"),
            ("[::1]:7", "[::]:7"),
            ("[::]:7", "0.0.0.0:7"),
            ("[::ffff:127.0.0.1]:7", "127.0.0.1:7"),
            ("[::1]:7", "[0:0:0:0:0:0:0:1]:7"),
            ("localhost:7", "LOCALHOST.:7"),
        ] {
            assert_eq!(meet(one, two), (true, true), "{one} and {two}");
        }
        // Only a look-up tells.
        assert_eq!(meet("localhost:7", "127.0.0.1:7"), (false, true));
        assert_eq!(meet("127.0.0.1:7", "localhost:7"), (false, true));
    }

    #[test]
    fn different_addresses_and_any_port_are_no_conflict() {
        for (one, two) in [
            ("127.0.0.1:7", "127.0.0.1:8"),
            ("127.0.0.1:7", "127.0.0.2:7"),
            ("127.0.0.1:7", "[::1]:7"),
            ("0.0.0.0:7", "[::1]:7"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost:0", "localhost:0"),
            ("unix:/nonexistent/a", "unix:/nonexistent/b"),
        ] {
            assert_eq!(meet(one, two), (false, false), "{one} and {two}");
        }
    }

    #[test]
    fn two_paths_of_one_unix_socket_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let plain = format!("unix:{}/q.sock", folder.path().display());
        for detour in [".", "link", "link/link", "link/."] {
            let other = format!("unix:{}/{detour}/q.sock", folder.path().display());
            assert_eq!(meet(&plain, &other), (true, true), "{other}");
        }
        assert_eq!(meet("unix:/nonexistent/a", "unix:/nonexistent/./b/../a"), (true, true));
    }

    #[test]
    fn the_error_names_both_and_a_socket_that_is_open_counts() {
        let mut resolver = Resolver::default();
        resolver.add(&listener("0.0.0.0:7")).unwrap();
        let error = resolver.add(&listener("127.0.0.1:7")).unwrap_err().to_string();
        let wanted = "127.0.0.1:7 is already the address of another listener, given as 0.0.0.0:7";
        assert!(error.ends_with(wanted), "{error}");
        resolver.add_open("127.0.0.1:9".parse().unwrap());
        assert!(resolver.add(&listener("localhost:9")).is_err());
    }

    #[test]
    fn names_are_looked_up_and_those_that_are_not_known_are_no_mistake() {
        let mut local = Resolver::default();
        let loopback = Listener { allow_remote: false, ..listener("localhost:7") };
        assert!(!local.add(&loopback).unwrap().is_empty());
        // Longer than any name may be, so nobody is asked.
        let unknown = Address::Tcp("x".repeat(300), 7);
        let error = local.add(&Listener { address: unknown, ..loopback }).unwrap_err();
        assert!(error.is_unknown_host(), "{error}");
        assert_eq!(error.exit_code(), 69);
    }
}
