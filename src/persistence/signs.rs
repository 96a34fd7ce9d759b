//! What is found out about the database's files with every measurement and is told once, when it
//! changes: that others meddle with them.

use std::cell::Cell;

use slog::{Logger, info, warn};

use crate::store::{LockFile, Sizes};

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Signs {
    is_linked: Cell<bool>,
    lock_is_missing: Cell<bool>,
}

impl Signs {
    /// Tells what is new in a measurement.
    pub fn seen(&self, sizes: &Sizes, log: &Logger) {
        let is_linked = sizes.links > 1;
        if self.is_linked.replace(is_linked) != is_linked {
            if is_linked {
                // No harm while this daemon has the file: it is locked under every name. A backup
                // may need the link for a moment.
                warn!(log, "the database file has a second name (a hard link): the next start \
                    fails unless that has been removed by then"; "names" => sizes.links);
            } else {
                info!(log, "the database file has a single name again");
            }
        }
        let is_missing = sizes.lock_file == LockFile::Missing;
        let was_missing = self.lock_is_missing.replace(is_missing);
        match sizes.lock_file {
            LockFile::Restored => {
                warn!(
                    log,
                    "the lock file was missing and has been created; the \
                    database itself stayed locked"
                );
            }
            LockFile::Missing if !was_missing => {
                warn!(
                    log,
                    "the lock file is missing and cannot be created; the \
                    database itself is still locked"
                );
            }
            LockFile::Missing | LockFile::Held => {}
        }
    }
}
