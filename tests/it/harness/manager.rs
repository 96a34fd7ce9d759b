//! A service manager's side of `NOTIFY_SOCKET`.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::PATIENCE;

/// The socket that a daemon reports to, in a directory of its own.
pub struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
    /// All that has been said so far.
    pub heard: Vec<String>,
}

impl Manager {
    pub fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, directory, heard: Vec::new() }
    }

    /// What `NOTIFY_SOCKET` is to be.
    pub fn address(&self) -> PathBuf {
        self.path("notify")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Reads until a message begins like this.
    pub fn hears(&mut self, start: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let count = match self.socket.recv(&mut bytes) {
                Ok(count) => count,
                // A process that is stopped for a moment does not go on reading by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{start} was not said ({error}), but {:?}", self.heard),
            };
            let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
            self.heard.push(text.clone());
            if text.starts_with(start) {
                return text;
            }
        }
    }

    /// Reads all that has been said up to now.
    pub fn skips_what_was_said(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        super::eventually("all is read", || self.socket.recv(&mut bytes).is_err());
        self.socket.set_nonblocking(false).unwrap();
    }
}
