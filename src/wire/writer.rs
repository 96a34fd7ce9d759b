//! The thread that writes to a peer which does not keep up, one chunk at a time.
//!
//! It exists from the moment the peer's socket takes no more until the outbox has nothing left to
//! give it, and while it exists nobody else sends on that socket. It reports each chunk to the
//! dispatcher. A peer that takes nothing for `limits.write_timeout` ends it with an error, which
//! the dispatcher takes as the end of the connection.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use rustix::io::Errno;

use crate::channels::transport::Transport;
use crate::channels::{self, Event};
use crate::wire::threads::Threads;
use crate::words::ids::ConnectionId;
use crate::words::limits::{Limits, WRITER_STACK_BYTES};

/// Starts writers; what all of them have in common.
#[derive(Debug)]
pub struct Writers {
    /// Where they report.
    pub events: SyncSender<Event>,
    /// What starts them.
    pub threads: Arc<Threads>,
    /// For `limits.write_timeout`.
    pub limits: Arc<Limits>,
}

impl Writers {
    /// Starts a writer for this peer. It ends when the sender is dropped.
    ///
    /// # Errors
    /// No thread is to be had, or the socket is broken.
    pub fn start(
        &self,
        connection: ConnectionId,
        transport: &Arc<Transport>,
    ) -> io::Result<SyncSender<Vec<u8>>> {
        // 0 is "for ever" to the system as well as in the configuration. The dispatcher's own
        // sends do not wait, so this time-out on the shared socket does not concern them.
        let patience = Some(self.limits.write_timeout_ms()).filter(|millis| *millis > 0);
        transport.set_write_timeout(patience)?;
        let (sender, chunks) = channels::chunks();
        let transport = Arc::clone(transport);
        let writer = Writer { connection, transport, events: self.events.clone() };
        self.threads.start(format!("writer-{connection}"), WRITER_STACK_BYTES, move || {
            writer.run(&chunks);
        })?;
        Ok(sender)
    }
}

struct Writer {
    connection: ConnectionId,
    transport: Arc<Transport>,
    events: SyncSender<Event>,
}

impl Writer {
    fn run(&self, chunks: &Receiver<Vec<u8>>) {
        for chunk in chunks {
            let result = self.write(&chunk);
            let failed = result.is_err();
            drop(chunk);
            let told = self.events.send(Event::Written { connection: self.connection, result });
            if failed || told.is_err() {
                return;
            }
        }
    }

    /// Writes all of it, however long that takes, as long as the peer takes something.
    fn write(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.transport.send_waiting(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                // The whole time-out passed and not one byte went.
                Err(Errno::AGAIN) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the peer took nothing for limits.write_timeout",
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
