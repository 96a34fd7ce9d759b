//! A mark beside a database whose file is suspect, for whoever starts next.
//!
//! After a failed sync the system goes on showing what was written although the disk does not have
//! it. The daemon that met the error writes a new file; one that is killed before that is done
//! leaves a file that its successor would find sound and trust, and a power cut would then take
//! what both have confirmed. A start that finds the mark believes what it reads, which is all that
//! there is, but brings it to the disk before it promises anything: in a new file, or where the disk
//! has no room for two by writing the bytes of the old one again ([`write_again`]).
//!
//! # Failure
//!
//! A disk that has just failed may fail here too: then there is no mark, and only the new file
//! helps. A mark that is left behind by mistake costs one new file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::StoreError;
use super::file::while_alone;
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

/// Writes every byte of a file and of its log once more where it is, and has the disk take them.
/// That needs no room, unless the file system copies on write. What a failed sync left behind may be
/// old in parts; being written again, each part is old or new as before, until the end of this makes
/// all of it new. `guarded` is the database file, for making sure that nobody is connected to it: what
/// another program writes meanwhile would be written over. `progress` hears that it goes on.
///
/// # Errors
/// What the system said, or [`StoreError::Busy`]; the file is as suspect as before.
pub(super) fn write_again(
    paths: &Paths,
    guarded: Option<&File>,
    progress: &mut dyn FnMut(),
) -> Result<(), StoreError> {
    let failed = |path: &Path, error| StoreError::system(path, error);
    let Some(database) = guarded else { return write_log_again(paths, progress) };
    let write = || {
        write_bytes_again(database, progress).map_err(|error| failed(paths.database(), error))?;
        write_log_again(paths, progress)
    };
    while_alone(database, write)
        .unwrap_or_else(|| Err(StoreError::Busy { file: paths.database().to_path_buf() }))
}

fn write_log_again(paths: &Paths, progress: &mut dyn FnMut()) -> Result<(), StoreError> {
    let log = paths.wal();
    let failed = |error| StoreError::system(&log, error);
    match OpenOptions::new().read(true).write(true).open(&log) {
        Ok(file) => write_bytes_again(&file, progress).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    paths.sync_directory()
}

fn write_bytes_again(file: &File, progress: &mut dyn FnMut()) -> io::Result<()> {
    const AT_ONCE_BYTES: usize = 256 * 1024;
    let mut bytes = vec![0; AT_ONCE_BYTES];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut bytes, at)?;
        if count == 0 {
            return file.sync_all();
        }
        file.write_all_at(bytes.get(..count).unwrap_or(&[]), at)?;
        at += count as u64;
        progress();
    }
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
    use super::super::Renewed;
    use super::super::guard::Guard;
    use super::super::lock::Lock;
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
        let key = reopen(&path).facts.secret;
        // Held open, so that its number is not given to the new one.
        let old = fs::File::open(&path).unwrap();
        mark(&paths);
        let opened = reopen(&path);
        assert_eq!(opened.facts.renewed, Renewed::Anew);
        assert_ne!(old.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert!(!is_marked(&paths));
        assert!(found(&opened.memory) == before);
        assert_eq!(opened.facts.secret, key);
        drop(opened);
        let again = reopen(&path);
        assert_eq!(again.facts.renewed, Renewed::No, "once is enough");
        assert!(found(&again.memory) == before);
        assert_eq!((again.facts.messages, again.facts.next_queue_id), (22, 3));
    }

    #[test]
    fn writing_a_file_again_changes_nothing_in_it() {
        let (_directory, path) = folder();
        commit(&path, story());
        let paths = Paths::of(&path).unwrap();
        let bytes = || [fs::read(&path).unwrap(), fs::read(paths.wal()).unwrap()];
        let before = bytes();
        assert!(before.iter().all(|bytes| !bytes.is_empty()));
        let lock = Lock::take(&paths).unwrap();
        let again = |lock: &Lock| write_again(&paths, lock.guarded().map(Guard::file), &mut || ());
        again(&lock).unwrap();
        assert!(bytes() == before);
        drop(lock);
        fs::remove_file(paths.wal()).unwrap();
        let lock = Lock::take(&paths).unwrap();
        again(&lock).unwrap();
        assert!(!paths.wal().exists());
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
