//! The end of the file, and what becomes of one that was moved.

use std::path::PathBuf;
use std::sync::Arc;

use slog::{info, warn};

use super::Link;
use crate::journal::Batch;
use crate::store::{Ending, Remedy, Store};

/// Goes on with a database that was moved while it was open.
pub(super) fn follow(store: &mut impl Store, to: PathBuf, link: &Link) {
    warn!(link.log, "the database was moved: the daemon continues there, but the next start uses the \
        configured path"; "file" => %to.display(), "was" => store.name());
    store.follow(to);
}

/// Closes the database, and answers whether it holds everything. What is left of it when it does
/// not is for a new one.
pub(super) fn close<S: Store>(
    store: S,
    batch: Arc<Batch>,
    messages: Option<u64>,
    link: &Link,
) -> Option<S> {
    match store.close(messages) {
        Ok(ending) => {
            match ending {
                Ending::Whole => info!(link.log, "everything is in the database file"),
                Ending::WithLog => warn!(
                    link.log,
                    "the write-ahead log stays beside the database file: another \
                    program or a full disk prevents the checkpoint"
                ),
            }
            link.answer(batch, Ok(()));
            None
        }
        Err(failed) => {
            let (store, error) = *failed;
            if error.remedy() == Remedy::Rewrite {
                link.tell_suspect(&error);
            }
            link.answer(batch, Err(error));
            Some(store)
        }
    }
}
