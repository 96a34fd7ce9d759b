//! A suspect file is brought to the disk again where it is, while the daemon runs and the disk has no
//! room for a second one.
//!
//! Memory has everything, but what it has is of no use to a restart. So all bytes are written once
//! more ([`suspect::write_again`]), the file is read as a start would read it, and it is trusted again
//! if it is certain that it holds all commits that have succeeded:
//!
//! - Each time its log begins anew, the first commit says which log it is ([`Origin`]): so the log is
//!   the one that commits went to last, and not one that an error has brought back.
//! - The checksums of a log's frames go on from one to the next: so a log that is intact up to the
//!   last commit that has succeeded holds every one of them.
//! - What the log does not hold was synced before the log began.
//! - Structure and rows are checked.
//!
//! The commit that has failed may be in it or not. The dispatcher has kept its batch, and tries it
//! again as after any commit that has failed.
//!
//! # Failure
//!
//! Where one of these cannot be shown, nothing is trusted: the file stays as suspect as it was, and a
//! new one is written when the disk has room.

use super::StoreError;
use super::begin::with_index;
use super::check;
use super::file::{self, FileLocation, StoreFile, run_checkpoint};
use super::load::check_version;
use super::origin::{Alone, Origin};
use super::successor::Held;
use super::suspect;

/// The last commit that has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastCommit {
    origin: Origin,
    /// Frames in the log.
    frames: u32,
}

impl Held {
    /// Brings a suspect file to the disk where it is. `progress` hears now and then that this goes on.
    /// Returns the place with the file in it that can be trusted, or with what there was.
    ///
    /// # Errors
    /// What failed, or that it is not certain that the file holds everything.
    pub fn revive(self, progress: &mut dyn FnMut()) -> (Held, Result<(), StoreError>) {
        let place = match self {
            Held::Open(file) => {
                file.place.last_commit.set(last_commit(&file));
                file.abandon()
            }
            Held::Closed(place) => place,
        };
        match revive(&place, progress) {
            Ok(connected) => (Held::Open(StoreFile::at(place, connected)), Ok(())),
            Err(error) => (Held::Closed(place), Err(error)),
        }
    }
}

/// What the index of the log says, which the system keeps in memory: it is not changed by a commit
/// that fails. `None` where the log does not say which one it is.
fn last_commit(file: &StoreFile) -> Option<LastCommit> {
    if !file.place.log_is_known.get() {
        return None;
    }
    let mut frames = file.connection.prepare("PRAGMA wal_checkpoint(NOOP)").ok()?;
    let (_, frames, _) = run_checkpoint(&mut frames).ok()?;
    Some(LastCommit { origin: file.place.origin.get(), frames })
}

fn revive(place: &FileLocation, progress: &mut dyn FnMut()) -> Result<file::Connected, StoreError> {
    let paths = &place.paths;
    let suspect = || StoreError::Suspect { file: place.path().to_path_buf() };
    let last = place.last_commit.get().ok_or_else(suspect)?;
    place.hold()?;
    place
        .with_file(|file| suspect::write_again(paths, Some(file), progress))
        .ok_or_else(suspect)??;
    let (connection, version) = with_index(paths, |index| {
        let alone = Alone::look(paths)?;
        let connection = file::connect(paths, index)?;
        let version = check_version(&connection, paths)?;
        alone.with_log(&connection, paths)?;
        Ok((connection, version))
    })?;
    let failed = |error| StoreError::database(paths.database(), error);
    let mut frames = connection.prepare("PRAGMA wal_checkpoint(NOOP)").map_err(failed)?;
    let (_, frames_found, _) = run_checkpoint(&mut frames).map_err(failed)?;
    drop(frames);
    let is_its_log = Origin::read(&connection).is_some_and(|found| found.is_state_of(last.origin));
    let (_, findings) = check::check(&connection, version, &mut |_| progress());
    // Nobody may be connected to it when it is connected to for writing.
    drop(connection);
    if !is_its_log || frames_found < last.frames || findings.found > 0 {
        return Err(suspect());
    }
    let connected = file::adopt(place)?;
    suspect::unmark(paths)?;
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::testing::{commit_to, folder, put, queue, reopen};
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    /// The log that an error brings back is intact, but all of it is in the file already.
    #[test]
    fn the_log_before_the_last_one_is_not_taken_for_that() {
        for is_brought_back in [false, true] {
            let (_directory, path) = folder();
            let file = reopen(&path).file.unwrap();
            let mut writing = File::new(&file).unwrap();
            commit_to(&mut writing, vec![queue(1, "q")]);
            (1..=20).for_each(|id| commit_to(&mut writing, vec![put(id, 1, &[b'x'; 9_000])]));
            let log = path.with_file_name("queue.db-wal");
            let before = fs::read(&log).unwrap();
            assert!(writing.empty_log().unwrap());
            commit_to(&mut writing, vec![put(21, 1, b"the last one")]);
            drop(writing);
            if is_brought_back {
                let log = fs::OpenOptions::new().write(true).open(&log).unwrap();
                log.write_all_at(&before, 0).unwrap();
            }
            let (held, revived) = Held::Open(file).revive(&mut || ());
            assert_eq!(revived.is_err(), is_brought_back);
            held.abandon();
            assert_eq!(reopen(&path).facts.messages, if is_brought_back { 20 } else { 21 });
        }
    }
}
