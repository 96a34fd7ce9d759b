//! Starts the real daemon and talks with it, for the tests of this binary.
//!
//! A [`Server`] has a directory of its own and listens on port 0 or on sockets in that directory,
//! so that any number of tests run side by side. Nobody sleeps: what is to happen is waited for,
//! with [`PATIENCE`] as the limit. Only what was started here is ever killed, by its id.

mod children;
mod console;
mod dialogue;
mod http;
mod manager;
mod message;
pub mod namespaces;
mod process;
mod schema;
mod server;
mod stream;

use std::time::{Duration, Instant};

pub use children::{Children, without_copies};
pub use console::Console;
pub use dialogue::{Beanstalk, check};
pub use http::{Http, HttpAnswer};
pub use manager::Manager;
pub use message::{Phpmq, REVISIONS, packets};
pub use process::Process;
pub use server::{PHPMQD, Server, Setup};
pub use stream::Stream;

/// How long anything may take before its test fails. Far more than it needs, since the machine may
/// be busy with other tests, and its disk with what other programs write.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the peers of a server connect through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// Makes a test of each function, once over TCP and once over Unix sockets.
macro_rules! over_both {
    ($($(#[$remark:meta])* fn $name:ident($transport:ident) $body:block)*) => {
        $($(#[$remark])* mod $name {
            use super::*;

            fn run($transport: $crate::harness::Transport) $body

            #[test]
            fn over_tcp() {
                run($crate::harness::Transport::Tcp);
            }

            #[test]
            fn over_unix() {
                run($crate::harness::Transport::Unix);
            }
        })*
    };
}
pub(crate) use over_both;

/// The moment it is now.
#[expect(clippy::disallowed_methods, reason = "the tests stand outside of the daemon's clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until it holds. For what nobody tells: states of the system, and of other connections.
///
/// # Panics
/// It does not hold in time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = now() + PATIENCE;
    while !holds() {
        assert!(now() < until, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
