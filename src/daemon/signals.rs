//! Signals as notices for the main thread.
//!
//! Owner: the thread `signals`, which waits for signals and does nothing but pass them on; a signal
//! handler itself only writes a byte. What a signal means is decided in the main thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals as Waiting};

use crate::channels::Notice;

/// The stack of the thread, in bytes: it calls nothing deep.
const STACK_BYTES: usize = 128 * 1024;

/// The signals that are passed on.
pub const PASSED_ON: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// Lets signals do nothing that would end a process that means to go on. To be called before
/// anything is written.
///
/// After SIGXFSZ and SIGPIPE the call that caused one fails, which is where it is handled. SIGHUP
/// and SIGUSR1 have nothing to tell a daemon that is still starting; SIGTERM and SIGINT still end
/// it at once, when nothing was promised yet ([`stop_at_once_while`]).
///
/// # Errors
/// The system refuses a handler.
pub fn ignore_fatal_signals() -> io::Result<()> {
    for signal in [SIGXFSZ, SIGPIPE, SIGHUP, SIGUSR1] {
        // A handler is needed, not SIG_IGN, for which there is no safe call; nobody reads it.
        flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Has SIGTERM and SIGINT end the process at once, with exit code 0, as long as the flag holds: for
/// a start, which has promised nothing yet and may be held up in a call that knows no end.
///
/// # Errors
/// The system refuses a handler.
pub fn stop_at_once_while(flag: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 0, flag.clone())?;
    }
    Ok(())
}

/// The thread that passes signals on.
pub struct Signals {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// Starts to pass on SIGTERM, SIGINT, SIGHUP and SIGUSR1, each as a [`Notice::Signal`].
    ///
    /// # Errors
    /// The system refuses a handler or a thread.
    pub fn start(notices: Sender<Notice>) -> io::Result<Signals> {
        let mut waiting = Waiting::new(PASSED_ON)?;
        let handle = waiting.handle();
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                for signal in waiting.forever() {
                    // Nobody to tell: the main thread is past listening.
                    if notices.send(Notice::Signal(signal)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Signals { handle, thread })
    }

    /// Ends the thread. Signals that come later do nothing at all.
    pub fn stop(self) {
        self.handle.close();
        // It has no reason to panic, and the process is about to end anyway.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::channels::notices;

    #[test]
    fn signals_become_notices_and_the_thread_can_be_joined() {
        let (sender, receiver) = notices();
        let signals = Signals::start(sender).unwrap();
        // Not SIGINT, which others in a test run may mean for the whole process.
        for signal in [Signal::HUP, Signal::USR1, Signal::TERM] {
            kill_process(getpid(), signal).unwrap();
            match receiver.recv_timeout(Duration::from_secs(30)).unwrap() {
                Notice::Signal(number) => assert_eq!(number, signal.as_raw()),
                _ => panic!("something else than a signal came"),
            }
        }
        ignore_fatal_signals().unwrap();
        // Either would have ended the process.
        kill_process(getpid(), Signal::XFSZ).unwrap();
        kill_process(getpid(), Signal::PIPE).unwrap();
        signals.stop();
        assert!(receiver.try_recv().is_err());
    }
}
