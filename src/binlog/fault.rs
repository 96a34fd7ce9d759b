//! What is wrong with a binlog, and where.

use std::fmt;
use std::path::PathBuf;

/// Something in a binlog that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in it the record begins, in bytes.
    pub at: u64,
    /// Bytes from there on that were not read; 0 when only this record was left out.
    pub unread_bytes: u64,
    /// What is wrong.
    pub what: What,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// So many files, this one the first, are not there, and those before and behind them are.
    Missing(u32),
    /// No format that is known has this version.
    Version(i32),
    /// A record was not finished: beanstalkd was killed while it wrote, or the machine went down.
    /// The client that sent the job was not told that it is kept.
    Unfinished,
    /// The file ends inside a record.
    Truncated,
    /// A length or the end of a body is not what can be: where the next record begins is unknown.
    Lengths,
    /// This job's record says what no record says.
    Values(u64),
    /// Something stands behind the end of the log.
    BehindTheEnd,
}

impl Fault {
    /// Whether something that a client was told to be kept may be lost or come back.
    pub fn is_loss(&self) -> bool {
        self.what != What::Unfinished
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.what {
            What::Missing(1) => return f.write_str(" is missing"),
            What::Missing(files) => {
                return write!(f, " is missing, and {} more after it", files - 1);
            }
            What::Version(version) => {
                return write!(
                    f,
                    " has format version {version} (known: 5 and 7, of 64-bit little-endian machines)"
                );
            }
            What::Unfinished => write!(f, ", byte {}: the last record is unfinished", self.at)?,
            What::Truncated => write!(f, ", byte {}: the file ends inside a record", self.at)?,
            What::Lengths => write!(f, ", byte {}: the record is damaged", self.at)?,
            What::Values(id) => {
                return write!(f, ", byte {}: the record of job {id} is damaged", self.at);
            }
            What::BehindTheEnd => write!(f, ", byte {}: data after the end", self.at)?,
        }
        write!(f, ", {} bytes were not read", self.unread_bytes)
    }
}
