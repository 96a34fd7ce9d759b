//! Which files of a directory are a binlog.

use std::fs;
use std::path::{Path, PathBuf};

use super::{BinlogError, Fault, What};

/// A file of a binlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its number.
    pub number: u32,
    /// How long it is.
    pub bytes: u64,
}

/// The files of the binlog in a directory, in order, and those that are missing between them.
///
/// # Errors
/// The directory cannot be read.
pub fn find(directory: &Path) -> Result<(Vec<FoundFile>, Vec<Fault>), BinlogError> {
    let failed = |error| BinlogError::read(directory, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(number) = entry.file_name().to_str().and_then(number_of) else { continue };
        let path = entry.path();
        // Not of the entry: links are followed. Nothing but a file is opened: a pipe would block.
        let metadata = fs::metadata(&path).map_err(|error| BinlogError::read(&path, error))?;
        if metadata.is_file() {
            files.push(FoundFile { path, number, bytes: metadata.len() });
        }
    }
    files.sort_by_key(|file| file.number);
    let gaps = files.windows(2).filter(|pair| pair[1].number - pair[0].number > 1);
    let faults = gaps.map(|pair| Fault {
        file: directory.join(format!("binlog.{}", pair[0].number + 1)),
        at: 0,
        unread_bytes: 0,
        what: What::Missing(pair[1].number - pair[0].number - 1),
    });
    let faults = faults.collect();
    Ok((files, faults))
}

/// The number of a file of this name; beanstalkd counts from 1 and writes no leading zero.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("binlog.")?;
    let number: u32 = digits.parse().ok()?;
    (number > 0 && number <= i32::MAX as u32 && number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_beanstalkd_makes_are_taken() {
        assert_eq!(number_of("binlog.1"), Some(1));
        assert_eq!(number_of("binlog.2147483647"), Some(2_147_483_647));
        for name in ["binlog", "binlog.", "binlog.0", "binlog.01", "binlog.+1", "binlog.1.bak"] {
            assert_eq!(number_of(name), None, "{name}");
        }
        assert_eq!(number_of("binlog.2147483648"), None);
        assert_eq!(number_of("lock"), None);
    }

    #[test]
    fn files_come_in_the_order_of_their_numbers_and_gaps_are_told() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["binlog.10", "binlog.9", "binlog.12", "binlog.15", "lock", "phpmq.db"] {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        fs::create_dir(directory.path().join("binlog.11")).unwrap();
        let (files, faults) = find(directory.path()).unwrap();
        let numbers: Vec<u32> = files.iter().map(|file| file.number).collect();
        assert_eq!(numbers, [9, 10, 12, 15]);
        let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
        assert!(told[0].ends_with("binlog.11 is missing"), "{told:?}");
        assert!(told[1].ends_with("binlog.13 is missing, and 1 more after it"), "{told:?}");
    }
}
