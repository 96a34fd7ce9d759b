//! The pages of a database and its log, as far as they can be read.
//!
//! Read one at a time; what is kept in memory is an index of the log's frames.
//!
//! # Failure
//!
//! A page that the disk does not give is as good as a damaged one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::cells::{Cell, FILE_HEADER_BYTES, MAGIC, TreePage, u16_at, u32_at};
use super::log::{FRAME_HEADER_BYTES, LOG_HEADER_BYTES, Log, page_bytes};
use crate::store::StoreError;
use crate::store::paths::Paths;
use crate::store::schema::PAGE_BYTES;

/// One copy of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The one in the file, which may be older than the log's.
    File(u32),
    /// The one in this frame of the log.
    Frame(u32),
}

/// Where to look for the pages on which a row goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The pages in force.
    Current,
    /// Those in the log behind a damaged frame, and else those in force.
    Tail,
    /// The same, also from frames whose checksum is wrong or can not be known.
    AnyTail,
    /// The file alone.
    File,
}

/// File and log.
pub(super) struct Pages {
    file: Option<File>,
    log_file: Option<File>,
    pub log: Log,
    /// The newest sound frame of a page behind a damaged one, and the newest of all.
    tail: FxHashMap<u32, u32>,
    any_tail: FxHashMap<u32, u32>,
    page_bytes: usize,
    /// What is reserved at the end of every page.
    reserved: usize,
    /// How many pages the file has, the last one maybe cut.
    file_pages: u32,
    /// The pages behind the file's last one that the log has, in order.
    beyond: Vec<u32>,
}

/// The size of pages and what is reserved of them, as a first page says.
fn sizes(header: &[u8]) -> Option<(usize, usize)> {
    if !header.starts_with(MAGIC) {
        return None;
    }
    let bytes = match u16_at(header, 16)? {
        1 => 65_536,
        bytes => bytes,
    };
    let reserved = usize::from(*header.get(20)?);
    (bytes.is_power_of_two() && bytes >= 512 && bytes - reserved >= 480)
        .then_some((bytes, reserved))
}

pub(super) fn is_page_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (512..=65_536).contains(&bytes)
}

pub(super) fn read_at(file: Option<&File>, at: u64, into: &mut [u8]) -> usize {
    let Some(file) = file else { return 0 };
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], at + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    read
}

pub(super) fn open(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::system(path, error)),
    }
}

impl Pages {
    /// Opens the files of a database; either may be missing.
    ///
    /// # Errors
    /// A file is there and may not be read.
    pub fn open(paths: &Paths) -> Result<Pages, StoreError> {
        Ok(Pages::of(open(paths.database())?, open(&paths.wal())?))
    }

    /// Opens the file with a copy of one of its logs.
    ///
    /// # Errors
    /// As for [`Pages::open`].
    pub fn open_with_log(paths: &Paths, log: &Path) -> Result<Pages, StoreError> {
        Ok(Pages::of(open(paths.database())?, open(log)?))
    }

    /// Opens the file alone.
    ///
    /// # Errors
    /// As for [`Pages::open`].
    pub fn open_without_log(paths: &Paths) -> Result<Pages, StoreError> {
        Ok(Pages::of(open(paths.database())?, None))
    }

    fn of(file: Option<File>, log_file: Option<File>) -> Pages {
        let mut header = [0; FILE_HEADER_BYTES];
        let read = read_at(file.as_ref(), 0, &mut header);
        let mut log_header = [0; LOG_HEADER_BYTES];
        let log_read = read_at(log_file.as_ref(), 0, &mut log_header);
        let named = sizes(&header[..read]);
        let from_log = page_bytes(&log_header[..log_read]).filter(|bytes| is_page_size(*bytes));
        let from_log = from_log.map(|bytes| (bytes, 0));
        let ours = (PAGE_BYTES as usize, 0);
        let candidates = [named, from_log, Some(ours)];
        let score = |sizes: &(usize, usize)| tree_bytes(file.as_ref(), *sizes);
        // The first of those that fit best.
        let best = candidates.into_iter().flatten().rev().max_by_key(score);
        let (page_bytes, reserved) = best.unwrap_or(ours);
        let log = log_file.as_ref().map(|file| Log::read(file, page_bytes)).unwrap_or_default();
        let bytes = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |all| all.len());
        let file_pages = u32::try_from(bytes.div_ceil(page_bytes as u64)).unwrap_or(u32::MAX);
        let newest = |sound: bool| {
            let mut frames = FxHashMap::default();
            for frame in log.tail.iter().filter(|frame| frame.is_sound || !sound) {
                frames.entry(frame.page).or_insert(frame.frame);
            }
            frames
        };
        let (tail, any_tail) = (newest(true), newest(false));
        let in_log = log.frames_in_force.keys().copied();
        let mut beyond: Vec<u32> = in_log.filter(|page| *page > file_pages).collect();
        beyond.sort_unstable();
        Pages { file, log_file, log, tail, any_tail, page_bytes, reserved, file_pages, beyond }
    }

    /// Whether there is a log with anything in it.
    pub fn has_log(&self) -> bool {
        self.log.frames > 0 || self.log.is_damaged
    }

    /// The first page as it is in force, when it is a database's.
    pub fn first_page(&self) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        self.read(self.current(1)?, &mut data);
        data.starts_with(MAGIC).then_some(data)
    }

    /// The copy of a page that is in force.
    pub fn current(&self, page: u32) -> Option<Image> {
        match self.log.frames_in_force.get(&page) {
            Some(frame) => Some(Image::Frame(*frame)),
            None => (1..=self.file_pages).contains(&page).then_some(Image::File(page)),
        }
    }

    /// How many pages the file has, the last one maybe cut.
    pub fn file_pages(&self) -> u32 {
        self.file_pages
    }

    /// The pages that there are, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (1..=self.file_pages).chain(self.beyond.iter().copied())
    }

    /// The copies in the file of pages that the log has newer ones of, and those of the log that
    /// are not the newest.
    pub fn superseded(&self) -> Vec<Image> {
        let mut found = Vec::new();
        let current: FxHashSet<u32> = self.log.frames_in_force.values().copied().collect();
        // The newest first.
        let frames = (0..self.log.frames).rev().filter(|frame| !current.contains(frame));
        found.extend(frames.map(Image::Frame));
        let mut pages: Vec<u32> = self.log.frames_in_force.keys().copied().collect();
        pages.sort_unstable();
        let in_file = pages.into_iter().filter(|page| *page <= self.file_pages);
        found.extend(in_file.map(Image::File));
        found
    }

    pub fn frame_at(&self, frame: u32) -> u64 {
        let frame_bytes = (FRAME_HEADER_BYTES + self.page_bytes) as u64;
        LOG_HEADER_BYTES as u64 + u64::from(frame) * frame_bytes
    }

    /// Reads a page; what is missing of it is 0.
    pub fn read(&self, image: Image, into: &mut Vec<u8>) {
        into.clear();
        into.resize(self.page_bytes, 0);
        match image {
            Image::File(page) => {
                let at = u64::from(page.saturating_sub(1)) * self.page_bytes as u64;
                read_at(self.file.as_ref(), at, into);
            }
            Image::Frame(frame) => {
                let at = self.frame_at(frame) + FRAME_HEADER_BYTES as u64;
                read_at(self.log_file.as_ref(), at, into);
            }
        }
        into.truncate(self.page_bytes - self.reserved);
    }

    fn find(&self, page: u32, lookup: Lookup) -> Option<Image> {
        match lookup {
            Lookup::Current => self.current(page),
            Lookup::Tail | Lookup::AnyTail => {
                let tail = if lookup == Lookup::Tail { &self.tail } else { &self.any_tail };
                let frame = tail.get(&page).map(|frame| Image::Frame(*frame));
                frame.or_else(|| self.current(page))
            }
            Lookup::File => (page != 0 && page <= self.file_pages).then_some(Image::File(page)),
        }
    }

    /// Reads a whole row, and notes the pages that it goes on on. Says whether all of it is there.
    pub fn payload(
        &self,
        cell: &Cell<'_>,
        lookup: Lookup,
        into: &mut Vec<u8>,
        chain: &mut Vec<u32>,
    ) -> bool {
        into.clear();
        chain.clear();
        into.extend_from_slice(cell.local);
        let mut page = cell.overflow.unwrap_or(0);
        let mut seen = FxHashSet::default();
        let mut data = Vec::new();
        // Grows with what has been read, never with what was announced.
        while (into.len() as u64) < cell.payload_bytes {
            let Some(image) = self.find(page, lookup).filter(|_| seen.insert(page)) else {
                return false;
            };
            chain.push(page);
            self.read(image, &mut data);
            let left = usize::try_from(cell.payload_bytes - into.len() as u64);
            let content = &data[4..];
            into.extend_from_slice(&content[..left.unwrap_or(usize::MAX).min(content.len())]);
            page = u32_at(&data, 0).unwrap_or(0);
        }
        into.len() as u64 == cell.payload_bytes
    }

    /// The page that SQLite never uses, for the locks on a file that is larger than 1 GiB.
    pub fn lock_page(&self) -> u32 {
        u32::try_from((1_u64 << 30) / self.page_bytes as u64 + 1).unwrap_or(u32::MAX)
    }
}

/// How much of the first pages looks like pages of a tree, when they have this size.
fn tree_bytes(file: Option<&File>, (page_bytes, reserved): (usize, usize)) -> usize {
    const PAGES: u32 = 256;
    let mut data = vec![0; page_bytes];
    let mut found = 0;
    for number in 1..=PAGES {
        if read_at(file, u64::from(number - 1) * page_bytes as u64, &mut data) < page_bytes {
            break;
        }
        let page = TreePage::of(&data[..page_bytes - reserved]);
        found += page.filter(TreePage::is_whole).map_or(0, |_| page_bytes);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::folder;

    /// A log whose header is right in itself can name any size.
    #[test]
    fn a_size_of_pages_that_cannot_be_is_not_believed() {
        let (_directory, path) = folder();
        let paths = Paths::of(&path).unwrap();
        let mut header = [0_u8; LOG_HEADER_BYTES];
        header[..4].copy_from_slice(&0x377f_0683_u32.to_be_bytes());
        for bytes in [0_u32, 1, 1_000, 1 << 17, 1 << 31] {
            header[8..12].copy_from_slice(&bytes.to_be_bytes());
            let sum = crate::store::salvage::log::checksum_for_tests(&header[..24]);
            header[24..28].copy_from_slice(&sum[0].to_be_bytes());
            header[28..32].copy_from_slice(&sum[1].to_be_bytes());
            std::fs::write(paths.wal(), header).unwrap();
            let pages = Pages::open(&paths).unwrap();
            assert_eq!(pages.page_bytes, PAGE_BYTES as usize, "{bytes}");
            assert!(!pages.log.is_damaged, "the header is right in itself");
        }
    }
}
