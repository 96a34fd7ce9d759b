//! The end: nothing that was confirmed is lost, nobody is kept waiting.

use crossbeam_channel::Receiver;
use slog::{Logger, info};

use super::{Daemon, DaemonError};
use crate::channels::{Event, Notice};
use crate::dispatcher::Stopped;
use crate::wire::threads::Joiner;

/// The exit code of a daemon that could not write all of it (`EX_IOERR` of sysexits.h).
const EXIT_IO: u8 = 74;

impl Daemon {
    /// Stops accepting, ends the clients while the dispatcher serves what they have sent, and has
    /// everything written. A second signal meanwhile ends the process at once.
    pub(super) fn stop(self) -> Result<u8, DaemonError> {
        let Daemon { listeners, clients, events, notices, mut joiner, .. } = self;
        joiner.rest_no_more();
        self.notifier.stopping();
        for listener in &listeners {
            listener.stop();
        }
        // A listener may wait for room in the dispatcher's channel, which has it soon; it waits for
        // nothing that this thread does.
        for listener in listeners {
            listener.join();
        }
        clients.end_all();
        while clients.reading() > 0 {
            if let Ok(notice) = notices.recv() {
                take(notice, &mut joiner, &self.log);
            }
        }
        // The dispatcher empties its channel until it sees this.
        let _ = events.send(Event::Stop);
        let mut ended = false;
        while !ended {
            match notices.recv() {
                Ok(notice) => ended = take(notice, &mut joiner, &self.log),
                Err(_) => ended = true,
            }
        }
        let stopped = self.dispatcher.join();
        if let Some(persistence) = self.persistence {
            match persistence.join() {
                Ok(result) => result?,
                Err(_) => return Err(DaemonError::Internal("persistence has panicked")),
            }
        }
        join_rest(&notices, &mut joiner, &self.log);
        self.signals.stop();
        match stopped {
            Ok(Ok(Stopped::Clean)) => {
                info!(self.log, "stopped");
                Ok(0)
            }
            Ok(Ok(Stopped::Lost(..))) => Ok(EXIT_IO),
            Ok(Err(error)) => Err(DaemonError::Store(error)),
            Err(_) => Err(DaemonError::Internal("the dispatcher has panicked")),
        }
    }
}

/// Takes a notice while the daemon stops. Says whether the dispatcher has ended.
fn take(notice: Notice, joiner: &mut Joiner, log: &Logger) -> bool {
    match notice {
        Notice::ThreadStarted(number, handle) => joiner.started(number, handle),
        Notice::ThreadEnded(number) => {
            joiner.ended(number);
        }
        Notice::Signal(signal) if is_impatient(signal) => {
            info!(log, "second signal, exiting at once"; "signal" => signal);
            std::process::exit(128 + signal);
        }
        Notice::DispatcherEnded => return true,
        Notice::Signal(_) | Notice::HealthChanged => {}
    }
    false
}

fn is_impatient(signal: i32) -> bool {
    use signal_hook::consts::signal::{SIGINT, SIGTERM};
    matches!(signal, SIGTERM | SIGINT)
}

/// Joins the writers, whose sockets have been shut down.
fn join_rest(notices: &Receiver<Notice>, joiner: &mut Joiner, log: &Logger) {
    while !joiner.is_done() {
        match notices.recv() {
            Ok(notice) => {
                take(notice, joiner, log);
            }
            Err(_) => return,
        }
    }
}
