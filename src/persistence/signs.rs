//! Warnings about what other programs do to the database's files. Each measurement looks; each
//! change is logged once.

use std::cell::Cell;

use slog::{Logger, info, warn};

use crate::store::{LockFile, Sizes};

/// The state of the files at the last measurement.
#[derive(Debug, Default)]
pub(super) struct Signs {
    is_linked: Cell<bool>,
    lock_file: Cell<LockFile>,
    lock_is_missing: Cell<bool>,
}

impl Signs {
    /// Logs what is new in a measurement.
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
        self.lock_file_seen(sizes.lock_file, log);
    }

    fn lock_file_seen(&self, found: LockFile, log: &Logger) {
        let before = self.lock_file.replace(found);
        // A second daemon keeps its lock for milliseconds, until it meets the lock on the database.
        // A process that still has it at the next measurement is something else.
        let is_passing = found == LockFile::Contested && before != LockFile::Contested;
        if is_passing {
            return;
        }
        let is_missing = matches!(found, LockFile::Missing | LockFile::Contested);
        let was_missing = self.lock_is_missing.replace(is_missing);
        match found {
            LockFile::Restored => {
                warn!(
                    log,
                    "the lock file was removed and has been recreated; the \
                    database itself stayed locked"
                );
            }
            LockFile::Missing | LockFile::Contested if !was_missing => {
                warn!(
                    log,
                    "the lock file was removed and cannot be recreated; the \
                    database itself is still locked"
                );
            }
            LockFile::Missing | LockFile::Contested | LockFile::Held => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockFile::{Contested, Held, Missing, Restored};

    /// How many warnings these measurements lead to.
    fn warnings(found: &[LockFile]) -> usize {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let log = Logger::root(Counting(count.clone()), slog::o!());
        let signs = Signs::default();
        for lock_file in found {
            signs.seen(&Sizes { lock_file: *lock_file, ..Sizes::default() }, &log);
        }
        count.load(std::sync::atomic::Ordering::Relaxed)
    }

    struct Counting(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl slog::Drain for Counting {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, _: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_second_daemon_that_is_about_to_be_refused_is_no_reason_for_a_warning() {
        assert_eq!(warnings(&[Held, Contested, Held]), 0);
        assert_eq!(warnings(&[Held, Contested, Restored, Held]), 1);
    }

    #[test]
    fn a_lock_file_that_somebody_else_keeps_or_that_cannot_be_made_is_told_once() {
        assert_eq!(warnings(&[Held, Contested, Contested, Contested, Missing]), 1);
        assert_eq!(warnings(&[Missing, Contested, Missing, Contested]), 1);
        assert_eq!(warnings(&[Missing, Held, Missing]), 2);
    }
}
