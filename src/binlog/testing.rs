//! Writes binlogs for tests, from the layout that `record.rs` tells.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::record::Format;
use super::{Binlog, BinlogError};

/// The moment of most records, in milliseconds.
pub const THEN_MS: u64 = 1_700_000_000_000;

pub const DELETED: u8 = 0;
pub const READY: u8 = 1;
pub const RESERVED: u8 = 2;
pub const BURIED: u8 = 3;
pub const DELAYED: u8 = 4;

/// A record on its way.
#[derive(Clone)]
pub struct Record {
    pub id: u64,
    pub priority: u32,
    pub delay_ms: u64,
    pub time_to_run_ms: u64,
    pub created_ms: u64,
    pub deadline_ms: u64,
    pub counters: [u32; 5],
    pub state: u8,
    pub body: Vec<u8>,
    /// What the record says of its body's length, where that is not the truth.
    pub body_bytes: Option<i32>,
}

/// A ready job that was just put.
pub fn job(id: u64, body: &[u8]) -> Record {
    Record {
        id,
        priority: 10,
        delay_ms: 0,
        time_to_run_ms: 60_000,
        created_ms: THEN_MS,
        deadline_ms: 0,
        counters: [0; 5],
        state: READY,
        body: body.to_vec(),
        body_bytes: None,
    }
}

impl Record {
    pub fn state(self, state: u8) -> Record {
        Record { state, ..self }
    }

    fn bytes(&self, format: Format, tube: &[u8]) -> Vec<u8> {
        let units = match format {
            Format::Five => 1_000,
            Format::Seven => 1_000_000,
        };
        let mut bytes = (tube.len() as u64).to_le_bytes()[..format.prefix_bytes()].to_vec();
        bytes.extend(tube);
        let begin = bytes.len();
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.priority.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((self.delay_ms * units).to_le_bytes());
        bytes.extend((self.time_to_run_ms * units).to_le_bytes());
        let told = self.body_bytes.unwrap_or(i32::try_from(self.body.len() + 2).unwrap());
        bytes.extend(told.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((self.created_ms * units).to_le_bytes());
        bytes.extend((self.deadline_ms * units).to_le_bytes());
        for counter in self.counters {
            bytes.extend(counter.to_le_bytes());
        }
        bytes.push(self.state);
        bytes.resize(begin + format.job_bytes(), 0);
        bytes
    }

    /// With its tube and its body.
    pub fn whole(&self, format: Format, tube: &str) -> Vec<u8> {
        [&self.bytes(format, tube.as_bytes())[..], &self.body, b"\r\n"].concat()
    }

    /// What became of it.
    pub fn short(&self, format: Format) -> Vec<u8> {
        self.bytes(format, b"")
    }
}

/// A file of these records.
pub fn log(format: Format, records: &[Vec<u8>]) -> Vec<u8> {
    let version: i32 = match format {
        Format::Five => 5,
        Format::Seven => 7,
    };
    [&version.to_le_bytes()[..], &records.concat()].concat()
}

/// A directory with these files, and the name of a database in it.
pub fn directory(files: &[Vec<u8>]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    for (index, bytes) in files.iter().enumerate() {
        fs::write(directory.path().join(format!("binlog.{}", index + 1)), bytes).unwrap();
    }
    let database = directory.path().join("phpmq.db");
    (directory, database)
}

pub fn read(directory: &Path) -> Result<Binlog, BinlogError> {
    Binlog::read(directory, &mut |_| ())
}
