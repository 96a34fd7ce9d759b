//! Waiting at the start for what can pass by itself.
//!
//! A host name that is not known yet, an address that this machine does not have yet, a port or
//! database that another process still has, a directory that is not mounted yet, a disk without
//! room: none of them is mended by starting again in a second, and a service manager that tries a
//! few times and then gives up leaves the service dead. So under one the daemon tries on for as long
//! as it takes. By hand it ends at once, with the exit code that says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use slog::{Logger, info, warn};

use super::DaemonError;
use crate::channels::Notice;
use crate::daemon::systemd::Notifier;
use crate::words::clock::Clock;

/// The first pause: somebody may be about to end.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What one attempt may take, which the service manager is asked for each time: a resolver that
/// reaches nobody takes its time.
const ATTEMPT_TIME: Duration = Duration::from_secs(300);

/// What is waited with.
pub(super) struct Patience<'a> {
    /// Whether somebody else than a person has started the daemon and wants it to go on trying.
    pub waits: bool,
    /// While it holds, SIGTERM ends the process at once, with 0.
    pub stops_at_once: Arc<AtomicBool>,
    pub notices: &'a Receiver<Notice>,
    pub notifier: &'a Notifier,
    pub clock: Clock,
    pub log: &'a Logger,
}

/// How a pause ended.
enum Pause {
    Over,
    Stopped(i32),
}

impl Patience<'_> {
    /// Tries until it succeeds or fails for good. `None` when the daemon was asked to stop instead.
    pub(super) fn try_until_possible<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, DaemonError>,
    ) -> Result<Option<T>, DaemonError> {
        let began = self.clock.time();
        let mut said = String::new();
        let mut pause = PAUSE_MIN;
        loop {
            self.notifier.extend_timeout(ATTEMPT_TIME);
            let error = match attempt() {
                Ok(value) => {
                    self.stops_at_once.store(false, Ordering::Relaxed);
                    if !said.is_empty() {
                        let waited_ms = self.clock.time().since(began);
                        info!(self.log, "no longer waiting"; "waited_ms" => waited_ms);
                    }
                    return Ok(Some(value));
                }
                Err(error) if self.waits && error.can_pass() => error,
                Err(error) => return Err(error),
            };
            let text = error.to_string();
            if text != said {
                warn!(self.log, "cannot start yet, waiting"; "cause" => &text);
                self.notifier.status(&format!("Waiting: {text}"));
                said = text;
            }
            self.notifier.extend_timeout(pause + ATTEMPT_TIME);
            if let Pause::Stopped(signal) = self.pause(pause) {
                info!(self.log, "stopped while waiting"; "signal" => signal);
                return Ok(None);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn pause(&self, length: Duration) -> Pause {
        self.stops_at_once.store(false, Ordering::Relaxed);
        let until = self.clock.time().plus(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        let ended = loop {
            let left = Duration::from_millis(until.since(self.clock.time()));
            match self.notices.recv_timeout(left) {
                Ok(Notice::Signal(signal @ (SIGTERM | SIGINT))) => break Pause::Stopped(signal),
                // There is nothing yet to reload or to drain, and nobody else who has been started.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break Pause::Over,
                Err(RecvTimeoutError::Disconnected) => {
                    // The thread of the signals is gone, which has no reason to go.
                    std::thread::park_timeout(left);
                    break Pause::Over;
                }
            }
        };
        self.stops_at_once.store(true, Ordering::Relaxed);
        ended
    }
}
