//! Listening sockets: made from an address or taken over from the service manager.
//!
//! A Unix socket's file gets its mode and group before anybody can connect. A stale file (nobody
//! listens behind it) is replaced, a live one refused; the file goes with the socket, unless
//! somebody else has put another one in its place.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait to be accepted; the system's own limit (4096 by default) applies too.
const BACKLOG: i32 = 4096;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindTo {
    /// An address and port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A file.
    Unix {
        /// The file's path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its group's number; `None` leaves the process's own.
        group: Option<u32>,
    },
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// An address with its real port.
    Tcp(SocketAddr),
    /// A file, or an empty path when it has no name.
    Unix(PathBuf),
}

/// A socket that listens. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct ListeningSocket {
    _file: Option<SocketFile>,
    socket: Socket,
    address: LocalAddress,
}

/// Why an address cannot be listened at.
#[derive(Debug)]
pub enum BindError {
    /// Somebody else listens there.
    InUse(LocalAddress),
    /// It is not ours to take.
    NotPermitted(LocalAddress, io::Error),
    /// The file may not be given to that group.
    GroupNotPermitted(PathBuf, u32, io::Error),
    /// The path names something that is no socket.
    NotASocket(PathBuf),
    /// It cannot be made.
    CannotCreate(LocalAddress, io::Error),
}

/// Listens at an address.
///
/// # Errors
/// See [`BindError`].
pub fn bind(to: &BindTo) -> Result<ListeningSocket, BindError> {
    match to {
        BindTo::Tcp(address) => {
            bind_tcp(*address).map_err(|error| BindError::of(LocalAddress::Tcp(*address), error))
        }
        BindTo::Unix { path, mode, group } => bind_unix(path, *mode, *group),
    }
}

impl ListeningSocket {
    /// Takes over a socket that listens already; its file, if any, is not ours to remove.
    ///
    /// # Errors
    /// It is no listening stream socket.
    pub fn inherited(fd: OwnedFd) -> io::Result<ListeningSocket> {
        let socket = Socket::from(fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the passed descriptor is not a listening stream socket",
            ));
        }
        ListeningSocket::finish(socket, None)
    }

    /// Where it listens, with the real port.
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// The socket; it does not block.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn finish(socket: Socket, file: Option<SocketFile>) -> io::Result<ListeningSocket> {
        // An aborted connection would else leave accept waiting for the next one.
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let address = match local.as_socket() {
            Some(address) => LocalAddress::Tcp(address),
            None => LocalAddress::Unix(local.as_pathname().map(Path::to_owned).unwrap_or_default()),
        };
        Ok(ListeningSocket { _file: file, socket, address })
    }
}

/// A socket's file, known by what it was when it was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        let metadata = path.symlink_metadata()?;
        Ok(SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = SocketFile::is_at(&self.path, self.device, self.inode);
        if still_ours {
            // At the end there is nobody to tell; the next start replaces it as a stale one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    fn is_at(path: &Path, device: u64, inode: u64) -> bool {
        path.symlink_metadata().is_ok_and(|found| found.dev() == device && found.ino() == inode)
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<ListeningSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the last connections of the process before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    ListeningSocket::finish(socket, None)
}

fn bind_unix(path: &Path, mode: u32, group: Option<u32>) -> Result<ListeningSocket, BindError> {
    let fail = |error| BindError::of(LocalAddress::Unix(path.to_owned()), error);
    let address = SockAddr::unix(path).map_err(fail)?;
    remove_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
    socket.bind(&address).map_err(fail)?;
    let file = SocketFile::at(path).map_err(fail)?;
    // Until listen is called every connection is refused, so nobody slips in before the mode.
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                BindError::GroupNotPermitted(path.to_owned(), group, error)
            }
            _ => fail(error),
        })?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    socket.listen(BACKLOG).map_err(fail)?;
    ListeningSocket::finish(socket, Some(file)).map_err(fail)
}

/// Removes a socket file behind which nobody listens.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let fail = |error| BindError::of(LocalAddress::Unix(path.to_owned()), error);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
    // A live one with a full backlog must not keep us waiting: it answers "again".
    probe.set_nonblocking(true).map_err(fail)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(fail)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(fail(error)),
        _ => Err(BindError::InUse(LocalAddress::Unix(path.to_owned()))),
    }
}

impl BindError {
    fn of(address: LocalAddress, error: io::Error) -> BindError {
        match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::PermissionDenied => BindError::NotPermitted(address, error),
            _ => BindError::CannotCreate(address, error),
        }
    }

    /// Whether the system has no addresses of this kind at all: none of IPv6, for example. A
    /// loopback address that cannot be assigned says the same.
    pub fn is_of_missing_family(&self) -> bool {
        let BindError::CannotCreate(LocalAddress::Tcp(address), error) = self else {
            return false;
        };
        let unassigned = error.kind() == io::ErrorKind::AddrNotAvailable;
        error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
            || unassigned && address.ip().is_loopback()
    }

    /// The exit code that this error ends the daemon with (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        match self {
            BindError::InUse(_) => 69,
            BindError::NotASocket(_) | BindError::CannotCreate(..) => 73,
            BindError::NotPermitted(..) | BindError::GroupNotPermitted(..) => 77,
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddress::Tcp(address) => address.fmt(f),
            LocalAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(address) => write!(f, "{address} is in use"),
            BindError::NotPermitted(address, error) => {
                write!(f, "not permitted to listen on {address}: {error}")
            }
            BindError::GroupNotPermitted(path, group, error) => {
                let path = path.display();
                write!(f, "not permitted to give unix:{path} to group {group}, of which this ")?;
                write!(f, "process is not a member: {error}")
            }
            BindError::NotASocket(path) => {
                write!(f, "{} exists and is not a socket", path.display())
            }
            BindError::CannotCreate(LocalAddress::Unix(path), error)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                let directory = path.parent().unwrap_or(path).display();
                let path = path.display();
                write!(f, "cannot listen on unix:{path}: the directory {directory} does not exist")
            }
            BindError::CannotCreate(address, error) => {
                write!(f, "cannot listen on {address}: {error}")
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BindError::NotPermitted(_, error)
            | BindError::GroupNotPermitted(_, _, error)
            | BindError::CannotCreate(_, error) => Some(error),
            BindError::InUse(_) | BindError::NotASocket(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn to(path: &Path) -> BindTo {
        BindTo::Unix { path: path.to_owned(), mode: 0o640, group: None }
    }

    #[test]
    fn port_0_takes_a_free_port_and_tells_which() {
        let socket = bind(&BindTo::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        match socket.local_address() {
            LocalAddress::Tcp(address) => {
                assert_ne!(address.port(), 0);
                assert!(std::net::TcpStream::connect(address).is_ok());
                assert_eq!(socket.local_address().to_string(), address.to_string());
            }
            other => panic!("unexpected: {other}"),
        }
    }

    #[test]
    fn a_port_in_use_is_refused_with_exit_code_69() {
        let first = bind(&BindTo::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let LocalAddress::Tcp(taken) = *first.local_address() else { unreachable!() };
        let error = bind(&BindTo::Tcp(taken)).unwrap_err();
        assert_eq!(error.exit_code(), 69);
        assert_eq!(error.to_string(), format!("{taken} is in use"));
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_made() {
        let error = bind(&BindTo::Tcp("192.0.2.1:0".parse().unwrap())).unwrap_err();
        assert_eq!(error.exit_code(), 73);
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phpmq.sock");
        let socket = bind(&to(&path)).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(socket.local_address().to_string(), format!("unix:{}", path.display()));
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_gets_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phpmq.sock");
        // A group that everybody may give away: one's own.
        let group = rustix::process::getgid().as_raw();
        let to = BindTo::Unix { path: path.clone(), mode: 0o660, group: Some(group) };
        let _socket = bind(&to).unwrap();
        assert_eq!(path.metadata().unwrap().gid(), group);
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phpmq.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = bind(&to(&path)).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_live_socket_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phpmq.sock");
        let _live = UnixListener::bind(&path).unwrap();
        assert_eq!(bind(&to(&path)).unwrap_err().exit_code(), 69);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_socket_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&to(&path)).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)));
        assert_eq!(error.exit_code(), 73);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_file_that_somebody_else_has_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phpmq.sock");
        let socket = bind(&to(&path)).unwrap();
        // Made before the old one goes, so that it is another file.
        let other = folder.path().join("other.sock");
        let _theirs = UnixListener::bind(&other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn paths_that_cannot_be_made_are_exit_code_73() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("missing/phpmq.sock");
        let error = bind(&to(&nowhere)).unwrap_err();
        assert_eq!(error.exit_code(), 73);
        let directory = folder.path().join("missing").display().to_string();
        assert!(
            error.to_string().ends_with(&format!("the directory {directory} does not exist")),
            "{error}"
        );
        let long = folder.path().join("x".repeat(200));
        assert_eq!(bind(&to(&long)).unwrap_err().exit_code(), 73);
    }

    #[test]
    fn a_passed_socket_is_taken_over_and_its_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passed.sock");
        let passed = UnixListener::bind(&path).unwrap();
        let socket = ListeningSocket::inherited(OwnedFd::from(passed)).unwrap();
        assert_eq!(socket.local_address(), &LocalAddress::Unix(path.clone()));
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_passed_descriptor_that_does_not_listen_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(ListeningSocket::inherited(OwnedFd::from(one)).is_err());
    }
}
