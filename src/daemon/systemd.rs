//! What the service manager is told, and what it hands over.
//!
//! Both are plain environment variables and sockets (sd_notify(3), sd_listen_fds(3)), so nothing of
//! systemd is linked. Without a service manager everything here does nothing. A message that the
//! manager does not take within a moment is lost: a busy manager must not hold up the daemon.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::Socket;

use crate::words::clock;

/// How long a message to the service manager may wait to be taken.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells the service manager how the daemon is, where there is one.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// The manager that the environment names (`$NOTIFY_SOCKET`), or none.
    pub fn from_environment() -> Notifier {
        Notifier::to(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// A manager at a path, or at an abstract name when it begins with `@`.
    fn to(name: Option<&OsStr>) -> Notifier {
        let address = name.filter(|name| !name.is_empty()).map(|name| {
            match name.as_bytes().strip_prefix(b"@") {
                Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
                None => SocketAddr::from_pathname(name),
            }
        });
        let manager = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_write_timeout(Some(SEND_TIMEOUT)).ok()?;
            Some((socket, address.ok()?))
        });
        Notifier { manager }
    }

    /// Whether there is anybody to be told.
    pub fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// The daemon serves: everything is loaded and bound. Also the end of a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon begins to stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The daemon begins to re-read its configuration; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_us()));
    }

    /// One line about how the daemon is, for `systemctl status`.
    pub fn status(&self, text: &str) {
        // A line end would begin another assignment.
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&format!("STATUS={line}"));
    }

    /// The daemon makes progress.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// The start or the stop may take this much longer from now.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.manager {
            // Nothing depends on it, and the log may be all there is to say so: it is let go.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// Whether a service manager has started this process itself: it hears of it, or says that this very
/// process is the one (`$SYSTEMD_EXEC_PID`; a shell in a service has that variable too).
pub fn is_supervised(notifier: &Notifier) -> bool {
    notifier.is_heard()
        || is_own(std::env::var("SYSTEMD_EXEC_PID").ok().as_deref(), std::process::id())
}

fn is_own(pid: Option<&str>, own_pid: u32) -> bool {
    pid.and_then(|pid| pid.parse().ok()) == Some(own_pid)
}

/// How often the service manager must hear [`Notifier::watchdog`]: half of the time after which it
/// gives the daemon up. `None` when it does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    watchdog_of(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

fn watchdog_of(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok()?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    (usec > 0 && ours).then(|| Duration::from_micros(usec.div_ceil(2)))
}

/// A listening socket that the service manager has opened.
#[derive(Debug)]
pub struct Passed {
    /// What it is for: the name of a protocol (`FileDescriptorName=`).
    pub name: String,
    /// The socket, which listens already.
    pub socket: Socket,
}

/// Why sockets that were passed cannot be used.
#[derive(Debug)]
pub enum PassedError {
    /// It is no listening stream socket of TCP or of this machine.
    NotAListener {
        /// Its place among those passed, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassedError::NotAListener { index, name, source } => {
                write!(f, "passed socket {index} ({name:?}) cannot be used: {source}")
            }
        }
    }
}

impl std::error::Error for PassedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PassedError::NotAListener { source, .. } => Some(source),
        }
    }
}

/// The listening sockets that the service manager has passed to this process, in their order.
/// They can be taken once, and only before other threads are started: the variables that announce
/// them are removed from the environment.
///
/// # Errors
/// One of them is no listening stream socket.
pub fn passed_sockets() -> Result<Vec<Passed>, PassedError> {
    let names = std::env::var_os("LISTEN_FDNAMES");
    let mut sockets = ListenFd::from_env();
    let names = names_of(sockets.len(), names);
    names.into_iter().enumerate().map(|(index, name)| take(&mut sockets, index, name)).collect()
}

fn take(sockets: &mut ListenFd, index: usize, name: String) -> Result<Passed, PassedError> {
    let socket = match sockets.take_unix_listener(index) {
        Ok(Some(listener)) => Ok(Socket::from(listener)),
        Ok(None) => Err(io::Error::from(io::ErrorKind::NotFound)),
        Err(_) => match sockets.take_tcp_listener(index) {
            Ok(Some(listener)) => Ok(Socket::from(listener)),
            Ok(None) => Err(io::Error::from(io::ErrorKind::NotFound)),
            Err(error) => Err(error),
        },
    };
    let listening = socket.and_then(|socket| {
        let listens = socket.is_listener()?;
        listens.then_some(socket).ok_or_else(|| io::Error::other("it does not listen"))
    });
    match listening {
        Ok(socket) => Ok(Passed { name, socket }),
        Err(source) => Err(PassedError::NotAListener { index, name, source }),
    }
}

/// The names of `count` sockets; those without one are called as sd_listen_fds_with_names(3) does.
fn names_of(count: usize, names: Option<OsString>) -> Vec<String> {
    let names = names.map(|names| names.to_string_lossy().into_owned()).unwrap_or_default();
    let mut given = names.split(':').filter(|_| !names.is_empty());
    (0..count).map(|_| given.next().unwrap_or("unknown").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_is_told_what_happens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(Some(path.as_os_str()));
        assert!(notifier.is_heard());
        notifier.extend_timeout(Duration::from_secs(30));
        assert_eq!(received(&manager), "EXTEND_TIMEOUT_USEC=30000000");
        notifier.ready();
        assert_eq!(received(&manager), "READY=1");
        notifier.status("12 ready\nREADY=0");
        assert_eq!(received(&manager), "STATUS=12 ready READY=0");
        notifier.watchdog();
        assert_eq!(received(&manager), "WATCHDOG=1");
        let before = clock::monotonic_us();
        notifier.reloading();
        let text = received(&manager);
        let usec: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(before <= usec && usec <= clock::monotonic_us());
        notifier.stopping();
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_is_reached() {
        let name = format!("phpmqd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::to(Some(OsStr::new(&format!("@{name}")))).ready();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for notifier in [Notifier::to(None), Notifier::to(Some(OsStr::new("")))] {
            assert!(!notifier.is_heard());
            notifier.ready();
        }
        // Nobody there: the message is lost without a word.
        Notifier::to(Some(OsStr::new("/nonexistent/notify"))).ready();
    }

    #[test]
    fn a_process_is_supervised_when_it_is_the_one_that_was_started() {
        assert!(is_own(Some("7"), 7));
        assert!(!is_own(Some("8"), 7));
        assert!(!is_own(Some("soon"), 7));
        assert!(!is_own(None, 7));
    }

    #[test]
    fn the_watchdog_wants_twice_the_pings_and_only_ours() {
        let half = Some(Duration::from_secs(15));
        assert_eq!(watchdog_of(Some("30000000"), None, 7), half);
        assert_eq!(watchdog_of(Some("30000000"), Some("7"), 7), half);
        assert_eq!(watchdog_of(Some("30000000"), Some("8"), 7), None);
        assert_eq!(watchdog_of(Some("0"), None, 7), None);
        assert_eq!(watchdog_of(Some("soon"), None, 7), None);
        assert_eq!(watchdog_of(None, None, 7), None);
    }

    #[test]
    fn sockets_without_a_name_are_unknown() {
        let names = |text: &str| names_of(3, Some(OsString::from(text)));
        assert_eq!(names("phpmq:console:beanstalk"), ["phpmq", "console", "beanstalk"]);
        assert_eq!(names("phpmq"), ["phpmq", "unknown", "unknown"]);
        assert_eq!(names(""), ["unknown", "unknown", "unknown"]);
        assert_eq!(names_of(1, None), ["unknown"]);
    }
}
