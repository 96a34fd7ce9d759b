//! A mark beside a database whose file is suspect, for whoever starts next.
//!
//! After a failed sync the system goes on showing what was written although the disk does not have
//! it. The daemon that met the error writes a new file; one that is killed before that is done
//! leaves a file that its successor would find sound and trust, and a power cut would then take
//! what both have confirmed. A start that finds the mark believes what it reads, which is all that
//! there is, but brings it to the disk in a new file before it promises anything.
//!
//! # Failure
//!
//! A disk that has just failed may fail here too: then there is no mark, and only the new file
//! helps. A mark that is left behind by mistake costs one new file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

use super::StoreError;
use super::paths::{FILE_MODE, Paths, remove_if_there};

/// Marks the file as suspect; the disk knows it when this returns, if it can.
pub(super) fn mark(paths: &Paths) {
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(paths.suspect())
        .and_then(|file| file.sync_all());
    // Also when that failed: the name may be there all the same, and it is all that counts.
    let _ = paths.sync_directory();
    drop(made);
}

/// Whether a file is marked.
pub(super) fn is_marked(paths: &Paths) -> bool {
    paths.suspect().exists()
}

/// Takes the mark away: the disk has everything. Not synced, for a mark that comes back is true of
/// nothing and does no harm.
///
/// # Errors
/// It can not be removed.
pub(super) fn unmark(paths: &Paths) -> Result<(), StoreError> {
    remove_if_there(&paths.suspect()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{commit, folder, found, reopen, story, try_open};
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_start_that_finds_the_mark_puts_all_of_it_into_a_new_file() {
        let (_directory, path) = folder();
        commit(&path, story());
        let paths = Paths::of(&path).unwrap();
        let before = found(&reopen(&path).memory);
        let key = reopen(&path).facts.message_key;
        // Held open, so that its number is not given to the new one.
        let old = fs::File::open(&path).unwrap();
        mark(&paths);
        let opened = reopen(&path);
        assert!(opened.facts.renewed);
        assert_ne!(old.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert!(!is_marked(&paths));
        assert!(found(&opened.memory) == before);
        assert_eq!(opened.facts.message_key, key);
        drop(opened);
        let again = reopen(&path);
        assert!(!again.facts.renewed, "once is enough");
        assert!(found(&again.memory) == before);
        assert_eq!((again.facts.messages, again.facts.next_queue_id), (22, 3));
    }

    #[test]
    fn ids_are_not_handed_out_again_from_a_new_file() {
        let (_directory, path) = folder();
        let first = reopen(&path).facts;
        mark(&Paths::of(&path).unwrap());
        assert_eq!(reopen(&path).facts.next_id, first.ids_reserved);
    }

    #[test]
    fn what_is_damaged_is_refused_whether_it_is_marked_or_not() {
        let (_directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch("UPDATE message SET priority = 0 WHERE id = 5")
            .unwrap();
        let paths = Paths::of(&path).unwrap();
        mark(&paths);
        assert_eq!(try_open(&path).err().unwrap().exit_code(), 65);
        assert!(is_marked(&paths));
        super::super::recover(&path).unwrap();
        assert!(!is_marked(&paths), "what was repaired is a new file");
    }
}
