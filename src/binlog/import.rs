//! Makes a new database of a binlog, and remembers which one it was.
//!
//! Beside the database stands `NAME.imported` then, with name and length of each file that was
//! imported: where beanstalkd has been at work since, its directory holds other files.
//!
//! # Failure
//!
//! The database is written whole under another name; until it has its own nothing is there, and the
//! import begins anew. The list is there before the database, and means nothing without it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::files::{FoundFile, find};
use super::replay::{Known, parts};
use super::{Binlog, BinlogError};
use crate::store::{self, Filling, StoreError};
use crate::words::change::{MessageRow, MessageState, StateRow};

/// What was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Files that were read.
    pub files: u64,
    /// Jobs.
    pub jobs: u64,
    /// Of them, ready ones, those that were reserved included.
    pub ready: u64,
    /// Of them, delayed ones.
    pub delayed: u64,
    /// Of them, buried ones.
    pub buried: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Bytes of the largest body.
    pub body_bytes_max: u64,
    /// The first id for a new job.
    pub next_id: u64,
}

/// Jobs that are written at a time, and bytes of their bodies.
const PART_JOBS_MAX: usize = 1_000;
const PART_BYTES_MAX: u64 = 8 << 20;

impl Binlog {
    /// What an import makes of it.
    pub fn summary(&self) -> Imported {
        let mut summary = Imported {
            files: self.files.len() as u64,
            jobs: self.replay.jobs(),
            next_id: self.replay.next_id(),
            ..Imported::default()
        };
        for known in self.replay.by_place() {
            *match known.state() {
                MessageState::Delayed => &mut summary.delayed,
                MessageState::Buried => &mut summary.buried,
                _ => &mut summary.ready,
            } += 1;
            summary.body_bytes += known.body.bytes;
            summary.body_bytes_max = summary.body_bytes_max.max(known.body.bytes);
        }
        summary
    }

    fn rows(&self, jobs: &[Known]) -> Result<Vec<(MessageRow, Option<StateRow>)>, BinlogError> {
        let mut open: Option<(usize, File)> = None;
        let mut rows = Vec::with_capacity(jobs.len());
        for known in jobs {
            let path = &self.files[known.body.file].path;
            let failed = |error| BinlogError::read(path, error);
            let file = match open.take() {
                Some((number, file)) if number == known.body.file => file,
                _ => File::open(path).map_err(failed)?,
            };
            // So many bytes of the file have been read once.
            let mut body = vec![0; usize::try_from(known.body.bytes).unwrap_or(0)];
            file.read_exact_at(&mut body, known.body.at).map_err(failed)?;
            open = Some((known.body.file, file));
            rows.push(known.rows(body));
        }
        Ok(rows)
    }
}

/// Makes a new database of what was read. `progress` hears how many jobs are in it.
///
/// # Errors
/// [`BinlogError::DatabaseExists`], and whatever keeps it from being made; then there is none.
pub fn import(
    binlog: &Binlog,
    database: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, BinlogError> {
    let summary = binlog.summary();
    let exists = || BinlogError::DatabaseExists { database: database.to_path_buf() };
    let mut filling = Filling::begin(database)?.ok_or_else(exists)?;
    filling.add_queues(binlog.replay.queues())?;
    let jobs = binlog.replay.by_place();
    let mut done = 0;
    for part in parts(&jobs, PART_JOBS_MAX, PART_BYTES_MAX) {
        let rows = binlog.rows(&jobs[part])?;
        filling.add_messages(&rows)?;
        done += rows.len() as u64;
        progress(done);
    }
    write_mark(database, &binlog.files)?;
    filling.finish(summary.next_id)?;
    Ok(summary)
}

/// What the list says of a binlog of these files.
fn mark_text(files: &[FoundFile]) -> String {
    let mut text = "# The binlog of beanstalkd that this database was made of\n".to_owned();
    for file in files {
        // Writing to a string does not fail.
        let _ = writeln!(text, "binlog.{} {}", file.number, file.bytes);
    }
    text
}

fn mark_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".imported");
    PathBuf::from(name)
}

fn write_mark(database: &Path, files: &[FoundFile]) -> Result<(), BinlogError> {
    let path = mark_path(database);
    fs::write(&path, mark_text(files))
        .and_then(|()| File::open(&path)?.sync_all())
        .map_err(|error| BinlogError::Store(StoreError::system(&path, error)))?;
    store::share_owner(&path);
    Ok(())
}

/// Looks whether the directory of a database that exists holds a binlog that was not imported into
/// it: jobs that are in it, or why that cannot be said. `None` when there is nothing to tell.
pub fn check_mark(directory: &Path, database: &Path) -> Option<Result<u64, BinlogError>> {
    let (files, _) = find(directory).ok()?;
    let told = fs::read_to_string(mark_path(database)).unwrap_or_default();
    if files.is_empty() || told == mark_text(&files) {
        return None;
    }
    match Binlog::read(directory, &mut |_| ()) {
        Ok(binlog) if binlog.jobs() == 0 && binlog.faults().is_empty() => None,
        Ok(binlog) => Some(Ok(binlog.jobs())),
        Err(error) => Some(Err(error)),
    }
}
