//! The end of the file, and what becomes of one that was moved.

use std::path::PathBuf;
use std::sync::Arc;

use slog::{info, warn};

use super::Link;
use crate::journal::Batch;
use crate::store::{Ending, Held, Remedy};

/// Goes on with files that were moved while they were open.
pub(super) fn follow(held: Held, to: PathBuf, link: &Link) -> Held {
    let Held::Open(mut file) = held else { return held };
    warn!(link.log, "the database was moved: the daemon continues there, but the next start uses the \
        configured path"; "file" => %to.display(), "was" => %file.path().display());
    file.follow(to);
    Held::Open(file)
}

/// Closes the file, and answers whether it holds everything. What is left open or closed when it
/// does not is for a new file.
pub(super) fn close(
    held: Held,
    batch: Arc<Batch>,
    messages: Option<u64>,
    link: &Link,
) -> Option<Held> {
    let Held::Open(file) = held else {
        link.refuse(&held, batch);
        return Some(held);
    };
    match file.finish(messages) {
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
            let (held, error) = *failed;
            if error.remedy() == Remedy::Rewrite {
                link.tell_suspect(&error);
            }
            link.answer(batch, Err(error));
            Some(held)
        }
    }
}
