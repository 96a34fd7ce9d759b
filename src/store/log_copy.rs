//! Copies of damaged logs, made before the daemon overwrites what the database library ignores.
//!
//! ```text
//!   NAME-wal.damaged-N     made by a start; `--recover` reads it
//!   NAME-wal.recovered-N   the same after a recovery: of no use but to people
//! ```
//!
//! Each start may meet another damage, on a machine with bad memory say, and the copies would fill
//! the disk. So there are at most [`COPIES_MAX`] of either kind, and older ones give way when the
//! disk is almost full. The newest stay: they hold what was accepted last.
//!
//! # Failure
//!
//! A start without room for the copy fails like any that lacks room, before anything is written.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::ErrorSource;
use super::file::disk_free_bytes;
use super::paths::{FILE_MODE, Paths, remove_if_there, rename};
use super::room::SHARE_BYTES;
use super::salvage::Ignored;
use super::schema::stored;
use super::{LogCopy, StoreError};

const DAMAGED: &str = "-wal.damaged-";
const RECOVERED: &str = "-wal.recovered-";
/// A copy that is not complete yet.
const UNFINISHED: &str = "-wal.damaged";
const CHUNK_BYTES: usize = 1 << 20;
/// Copies of either kind: enough to see whether damage repeats itself, in 512 MiB at most for logs of
/// the usual size.
const COPIES_MAX: usize = 8;

/// Copies the log to a name of its own, unless an earlier start has done so, and says what the
/// database in memory lacks of it.
///
/// # Errors
/// Why there is no copy.
pub(super) fn keep(
    paths: &Paths,
    ignored: &Ignored,
    memory: &Connection,
) -> Result<LogCopy, StoreError> {
    let missing =
        missing(memory, ignored).map_err(|error| StoreError::database(paths.database(), error))?;
    let (frames, messages) = (ignored.frames, ignored.messages.len() as u64);
    let log = File::open(paths.wal()).map_err(|error| StoreError::system(&paths.wal(), error))?;
    let copies = copies(paths)?;
    let known = copies.iter().rfind(|copy| is_copied(&log, copy, ignored));
    if let Some(file) = known.cloned() {
        return Ok(LogCopy { file, frames, messages, missing, dropped: Vec::new() });
    }
    let dropped = make_room(paths, copies, ignored.end)?;
    let file = make(paths, &log, ignored.end)?;
    Ok(LogCopy { file, frames, messages, missing, dropped })
}

/// Removes the oldest copies until one more is not too many and leaves the disk some room. Returns
/// those that were removed.
fn make_room(paths: &Paths, copies: Vec<PathBuf>, bytes: u64) -> Result<Vec<PathBuf>, StoreError> {
    let mut left = copies.len();
    let mut dropped = Vec::new();
    for copy in copies {
        let is_almost_full = disk_free_bytes(paths)? < bytes.saturating_add(SHARE_BYTES);
        if left < COPIES_MAX && !is_almost_full {
            break;
        }
        remove_if_there(&copy)?;
        dropped.push(copy);
        left -= 1;
    }
    Ok(dropped)
}

/// The copies that no recovery has read, the oldest first.
pub(super) fn copies(paths: &Paths) -> Result<Vec<PathBuf>, StoreError> {
    named(paths, DAMAGED)
}

/// The files with this suffix and a number, in the order of the numbers.
fn named(paths: &Paths, suffix: &str) -> Result<Vec<PathBuf>, StoreError> {
    let numbers = numbers(paths, suffix)?;
    Ok(numbers.into_iter().map(|number| numbered(paths, suffix, number.into())).collect())
}

fn numbered(paths: &Paths, suffix: &str, number: u64) -> PathBuf {
    paths.with(&format!("{suffix}{number}"))
}

fn numbers(paths: &Paths, suffix: &str) -> Result<BTreeSet<u32>, StoreError> {
    let prefix = paths.with(suffix);
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    let failed = |error| StoreError::system(paths.directory(), error);
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(paths.directory()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix);
        let number = number.and_then(|number| str::from_utf8(number).ok()?.parse::<u32>().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Gives copies that were recovered another name, so that no recovery reads them again.
pub(super) fn set_recovered(paths: &Paths, copies: &[PathBuf]) -> Result<(), StoreError> {
    for copy in copies {
        rename(copy, &next_name(paths, RECOVERED)?)?;
    }
    let recovered = named(paths, RECOVERED)?;
    let surplus = recovered.len().saturating_sub(COPIES_MAX);
    for copy in recovered.iter().take(surplus) {
        remove_if_there(copy)?;
    }
    if copies.is_empty() { Ok(()) } else { paths.sync_directory() }
}

/// A name behind all that are there: numbers tell the age.
fn next_name(paths: &Paths, suffix: &str) -> Result<PathBuf, StoreError> {
    let last = numbers(paths, suffix)?.last().copied().unwrap_or(0);
    let mut names = (u64::from(last) + 1..).map(|number| numbered(paths, suffix, number));
    Ok(names.find(|name| !name.exists()).unwrap_or_else(|| paths.with(suffix)))
}

fn missing(memory: &Connection, ignored: &Ignored) -> rusqlite::Result<u64> {
    let mut is_there = memory.prepare("SELECT 1 FROM message WHERE id = ?")?;
    let mut missing = 0;
    for id in &ignored.messages {
        missing += u64::from(!is_there.exists([stored(*id)])?);
    }
    Ok(missing)
}

/// Whether a copy holds all that is ignored: an earlier start may have ended before its first
/// commit, or have changed frames before the damage since.
fn is_copied(log: &File, copy: &Path, ignored: &Ignored) -> bool {
    let Ok(copy) = File::open(copy) else { return false };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut at = ignored.from;
    while at < ignored.end {
        let read = |file: &File, into: &mut Vec<u8>| read_chunk(file, at, ignored.end, into);
        if read(log, &mut ours).and(read(&copy, &mut theirs)).is_err() || ours != theirs {
            return false;
        }
        at += ours.len() as u64;
    }
    true
}

/// Reads the next part of a file that has `end` bytes at least.
fn read_chunk(file: &File, at: u64, end: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let left = usize::try_from(end - at).unwrap_or(usize::MAX);
    into.resize(left.min(CHUNK_BYTES), 0);
    file.read_exact_at(into, at)
}

/// Makes a durable copy of the first bytes of the log.
fn make(paths: &Paths, log: &File, bytes: u64) -> Result<PathBuf, StoreError> {
    let unfinished = paths.with(UNFINISHED);
    let name = next_name(paths, DAMAGED)?;
    if let Err(error) = copy(paths, log, bytes, &unfinished) {
        let _ = remove_if_there(&unfinished);
        return Err(failed(&name, bytes, error));
    }
    rename(&unfinished, &name)?;
    paths.sync_directory()?;
    Ok(name)
}

fn copy(paths: &Paths, log: &File, bytes: u64, to: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(to)?;
    paths.give_to_owner(&file);
    let mut chunk = Vec::new();
    let mut at = 0;
    while at < bytes {
        read_chunk(log, at, bytes, &mut chunk)?;
        file.write_all_at(&chunk, at)?;
        at += chunk.len() as u64;
    }
    file.sync_all()
}

fn failed(name: &Path, bytes: u64, error: io::Error) -> StoreError {
    match StoreError::system(name, error) {
        StoreError::Full { file, source } => {
            let why = format!(
                "{source}; the write-ahead log is damaged, and the daemon starts once {bytes} bytes \
                 are free to keep a copy of it"
            );
            let source = ErrorSource::System(io::Error::new(ErrorKind::StorageFull, why));
            StoreError::Full { file, source }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{commit_to, folder, found, put, queue, removed, reopen};
    use super::super::{File as Store, recover};
    use super::*;
    use crate::words::change::Change;

    const FRAME_BYTES: u64 = 24 + 8192;
    const MESSAGES: u64 = 100;

    fn frame_at(frame: u64) -> u64 {
        32 + frame * FRAME_BYTES
    }

    /// Commits each of these changes for itself, and ends as a kill would.
    fn killed_after(path: &Path, changes: Vec<Change>) -> PathBuf {
        let open = reopen(path).file.unwrap();
        let mut file = Store::new(&open).unwrap();
        changes.into_iter().for_each(|change| commit_to(&mut file, vec![change]));
        drop(file);
        open.abandon();
        path.with_file_name("queue.db-wal")
    }

    fn flip(log: &Path, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(log).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }

    /// A daemon that was killed after many commits, and whose log was damaged in one frame.
    fn damaged_in(frame: u64) -> (tempfile::TempDir, PathBuf) {
        let (directory, path) = folder();
        reopen(&path).file.unwrap().close().unwrap();
        let mut changes = vec![queue(1, "mail")];
        changes.extend((1..=MESSAGES).map(|id| put(id, 1, b"body")));
        let log = killed_after(&path, changes);
        assert!(fs::metadata(&log).unwrap().len() > frame_at(MESSAGES));
        flip(&log, frame_at(frame) + 1_000);
        (directory, path)
    }

    fn ids(path: &Path) -> Vec<u64> {
        let opened = reopen(path);
        let mut ids: Vec<u64> =
            found(&opened.memory).1.iter().map(|(message, ..)| message.id.0).collect();
        ids.sort_unstable();
        ids
    }

    /// One flipped bit cost all messages behind it, and nobody was told.
    #[test]
    fn regression_10_what_stands_behind_a_damaged_frame_is_told_kept_and_recovered() {
        for frame in [0, 40] {
            let (_directory, path) = damaged_in(frame);
            let log = fs::read(path.with_file_name("queue.db-wal")).unwrap();
            let opened = reopen(&path);
            let there = opened.facts.messages;
            assert!(there < 50, "{there}");
            let copy = opened.log_copy.expect("the loss is told");
            assert_eq!(copy.file, path.with_file_name("queue.db-wal.damaged-1"));
            assert_eq!((copy.messages, copy.missing), (MESSAGES, MESSAGES - there));
            assert!(copy.frames >= 50, "{}", copy.frames);
            let kept = fs::read(&copy.file).unwrap();
            assert!(log.starts_with(&kept) && kept.len() as u64 > frame_at(MESSAGES));

            // Ids that were handed out are not handed out again, and the daemon goes on.
            let next = opened.facts.next_id;
            assert!(next > MESSAGES && !opened.facts.clean_stop, "{next}");
            let file = opened.file.unwrap();
            let changes = vec![queue(1, "mail"), queue(2, "new"), put(next, 2, b"new")];
            commit_to(&mut Store::new(&file).unwrap(), changes);
            if there > 0 {
                commit_to(&mut Store::new(&file).unwrap(), vec![removed(1)]);
            }
            file.close().unwrap();

            let recovered = recover(&path).unwrap();
            let gone = u64::from(there > 0);
            assert_eq!(recovered.messages, MESSAGES + 1 - gone, "{recovered}");
            assert_eq!(recovered.messages_outside, MESSAGES - there, "{recovered}");
            assert!(recovered.to_string().contains("copies of damaged logs"), "{recovered}");
            let all: Vec<u64> = (1 + gone..=MESSAGES).chain([next]).collect();
            assert_eq!(ids(&path), all);
            let again = recover(&path).unwrap();
            assert_eq!((again.messages, again.kept), (all.len() as u64, None));
            assert!(path.with_file_name("queue.db-wal.recovered-1").exists());
        }
    }

    #[test]
    fn a_queue_whose_number_was_given_again_keeps_its_messages_apart() {
        let (_directory, path) = damaged_in(0);
        let file = reopen(&path).file.unwrap();
        commit_to(&mut Store::new(&file).unwrap(), vec![queue(1, "other"), put(9_999, 1, b"")]);
        file.close().unwrap();
        recover(&path).unwrap();
        let (queues, messages) = found(&reopen(&path).memory);
        assert_eq!(messages.len() as u64, MESSAGES + 1);
        let name = |queue| &queues.iter().find(|(number, _)| *number == queue).unwrap().1;
        for (message, ..) in messages {
            let expected = if message.id.0 == 9_999 { "other" } else { "mail" };
            assert_eq!(name(message.queue.0), expected);
        }
    }

    #[test]
    fn a_start_that_is_repeated_makes_no_second_copy() {
        let (_directory, path) = damaged_in(40);
        let log = path.with_file_name("queue.db-wal");
        let before = [&path, &log].map(|file| fs::read(file).unwrap());
        for _ in 0..3 {
            // As if the last start had ended before its first commit.
            fs::write(&path, &before[0]).unwrap();
            fs::write(&log, &before[1]).unwrap();
            let opened = reopen(&path);
            assert!(opened.log_copy.unwrap().file.ends_with("queue.db-wal.damaged-1"));
            opened.file.unwrap().abandon();
        }
        assert!(!path.with_file_name("queue.db-wal.damaged-2").exists());
    }

    /// A disk or memory that damages each log filled the disk with copies.
    #[test]
    fn regression_10_only_the_newest_copies_are_kept() {
        let (_directory, path) = damaged_in(40);
        let log = path.with_file_name("queue.db-wal");
        let before = [&path, &log].map(|file| fs::read(file).unwrap());
        let copy = |number: usize| path.with_file_name(format!("queue.db-wal.damaged-{number}"));
        for number in 1..=COPIES_MAX + 2 {
            fs::write(&path, &before[0]).unwrap();
            fs::write(&log, &before[1]).unwrap();
            // Each time something else behind the damage.
            flip(&log, frame_at(50 + number as u64) + 1_000);
            let opened = reopen(&path);
            let made = opened.log_copy.unwrap();
            assert_eq!(made.file, copy(number));
            let oldest = number.checked_sub(COPIES_MAX).filter(|oldest| *oldest > 0);
            assert_eq!(made.dropped, Vec::from_iter(oldest.map(copy)));
            opened.file.unwrap().abandon();
        }
        let paths = Paths::of(&path).unwrap();
        assert_eq!(copies(&paths).unwrap(), (3..=COPIES_MAX + 2).map(copy).collect::<Vec<_>>());
        recover(&path).unwrap();
        assert_eq!(copies(&paths).unwrap(), Vec::<PathBuf>::new());
        fs::write(copy(1), b"").unwrap();
        set_recovered(&paths, &[copy(1)]).unwrap();
        let recovered = named(&paths, RECOVERED).unwrap();
        assert_eq!(recovered.len(), COPIES_MAX);
        assert!(recovered[0].ends_with("queue.db-wal.recovered-2"));
    }

    #[test]
    fn older_copies_give_way_before_the_disk_is_full() {
        let (_directory, path) = folder();
        let paths = Paths::of(&path).unwrap();
        let made = [1, 2].map(|number| numbered(&paths, DAMAGED, number));
        made.iter().for_each(|copy| fs::write(copy, b"old").unwrap());
        assert_eq!(make_room(&paths, made.to_vec(), 1).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(make_room(&paths, made.to_vec(), u64::MAX).unwrap(), made);
        assert!(made.iter().all(|copy| !copy.exists()));
    }

    /// What any crash may leave.
    #[test]
    fn a_torn_end_is_no_damage() {
        let last = {
            let (_directory, path) = damaged_in(0);
            (fs::metadata(path.with_file_name("queue.db-wal")).unwrap().len() - 32) / FRAME_BYTES
                - 1
        };
        for cut in [false, true] {
            let (_directory, path) = damaged_in(last);
            let log = path.with_file_name("queue.db-wal");
            if cut {
                let log = OpenOptions::new().write(true).open(&log).unwrap();
                log.set_len(frame_at(last) + 4_711).unwrap();
            }
            assert_eq!(reopen(&path).log_copy, None);
        }
    }
}
