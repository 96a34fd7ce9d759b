//! The write-ahead log: which of its frames are in force, and which are worth a look beside them.
//!
//! ```text
//!   header │ frame │ frame │ frame │ frame │ frame │ ...
//!   salts    each: page number, salts, a checksum over itself and all before it
//!           ├──── the chain, up to its last commit: in force ────┤ then what was not committed
//!
//!   header │ frame │ frame │ XXXXX │ frame │ frame │ ...
//!           ├─ in force ───┤       ├─ the tail: was committed too, may hold rows that nothing else
//!                                     holds, and may lack what stood in the damaged frame
//! ```
//!
//! A frame's checksum begins with the one that the frame before it names, so frames behind a
//! damaged one can be told from garbage all the same. Frames with other salts are older than the
//! log's beginning: they are in the file already.

use std::fs::File;
use std::io::{BufReader, Read};

use rustc_hash::FxHashMap;

use super::cells::u32_at;

pub(super) const LOG_HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// The magic number's last bit says in which order of bytes the checksums are made.
const MAGIC: u32 = 0x377f_0682;

/// How the log was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogState {
    /// There is none, and there need not be one.
    #[default]
    None,
    /// There is none although the last daemon did not stop in an orderly way. Another program
    /// that was the last to close the file may have moved it there.
    Missing,
    /// It is sound.
    Sound,
    /// Its header or some of its frames are damaged.
    Damaged,
    /// It is sound, and another file's.
    Foreign,
}

/// The log, read once.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The newest frame of each page that is in force.
    pub frames_in_force: FxHashMap<u32, u32>,
    /// How many pages the database has after the last commit; 0 without one.
    pub pages: u32,
    /// The pages of frames behind the damage, the newest first, and whether the checksum is right.
    pub tail: Vec<TailFrame>,
    /// How many frames there are in all.
    pub frames: u32,
    pub is_damaged: bool,
    /// Intact frames that the database library ignores because of damage before them; 0 unless one
    /// of them ends a commit. A transaction that was rolled back leaves frames that end none.
    pub ignored: u32,
    /// Whether it ignores all frames because the header is damaged.
    pub is_header_damaged: bool,
    /// The first frame that is not in the chain.
    pub chain_end: u32,
    /// The first frame behind all those with the salts of this log.
    pub end: u32,
}

/// A frame behind a damaged one.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailFrame {
    pub frame: u32,
    pub page: u32,
    pub is_sound: bool,
}

struct Header {
    /// What the first frame's checksum begins with; `None` when the header is damaged.
    checksum: Option<[u32; 2]>,
    salts: Option<u64>,
    is_big_endian: bool,
}

/// A frame's own words.
#[derive(Clone, Copy)]
struct Frame {
    page: u32,
    pages_after_commit: u32,
    salts: u64,
    is_linked: bool,
}

/// The size of pages that a sound log header names.
pub(super) fn page_bytes(header: &[u8]) -> Option<usize> {
    read_header(header).checksum?;
    usize::try_from(u32_at(header, 8)?).ok()
}

fn read_header(bytes: &[u8]) -> Header {
    let word = |at| u32_at(bytes, at).unwrap_or(0);
    let magic = word(0);
    let is_big_endian = magic & 1 == 1;
    let checksum = [word(24), word(28)];
    let is_sound = bytes.len() >= LOG_HEADER_BYTES
        && magic & !1 == MAGIC
        && add_checksum([0, 0], &bytes[..24], is_big_endian) == checksum;
    if !is_sound {
        // As this machine writes them.
        let is_big_endian = cfg!(target_endian = "big");
        return Header { checksum: None, salts: None, is_big_endian };
    }
    Header { checksum: Some(checksum), salts: Some(salts(bytes, 16)), is_big_endian }
}

fn salts(bytes: &[u8], at: usize) -> u64 {
    let [high, low] = [at, at + 4].map(|at| u64::from(u32_at(bytes, at).unwrap_or(0)));
    high << 32 | low
}

fn add_checksum([mut one, mut two]: [u32; 2], bytes: &[u8], is_big_endian: bool) -> [u32; 2] {
    for pair in bytes.as_chunks::<8>().0 {
        let word = |half: [u8; 4]| match is_big_endian {
            true => u32::from_be_bytes(half),
            false => u32::from_le_bytes(half),
        };
        let [a, b, c, d, e, f, g, h] = *pair;
        one = one.wrapping_add(word([a, b, c, d])).wrapping_add(two);
        two = two.wrapping_add(word([e, f, g, h])).wrapping_add(one);
    }
    [one, two]
}

/// The checksum of a log whose numbers are big-endian.
#[cfg(test)]
pub(super) fn checksum_for_tests(bytes: &[u8]) -> [u32; 2] {
    add_checksum([0, 0], bytes, true)
}

impl Log {
    /// Reads a log whose pages have this size. What can not be read is as if it were not there.
    pub fn read(file: &File, page_bytes: usize) -> Log {
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut bytes = vec![0; LOG_HEADER_BYTES];
        if reader.read_exact(&mut bytes).is_err() {
            return Log::default();
        }
        let header = read_header(&bytes);
        // A log that began anew keeps the length of the old one: its frames are not worth a sum.
        let is_older = |found: u64| header.salts.is_some_and(|salts| salts != found);
        let mut frames = Vec::new();
        let mut before = header.checksum.unwrap_or_default();
        bytes.resize(FRAME_HEADER_BYTES + page_bytes, 0);
        while frames.len() < u32::MAX as usize && reader.read_exact(&mut bytes).is_ok() {
            let word = |at| u32_at(&bytes, at).unwrap_or(0);
            let named = [word(16), word(20)];
            let salts = salts(&bytes, 8);
            let is_linked = word(0) != 0 && !is_older(salts) && {
                let sum = add_checksum(before, &bytes[..8], header.is_big_endian);
                add_checksum(sum, &bytes[FRAME_HEADER_BYTES..], header.is_big_endian) == named
            };
            before = named;
            frames.push(Frame { page: word(0), pages_after_commit: word(4), salts, is_linked });
        }
        if header.checksum.is_none() {
            assume_header(&mut frames);
        }
        let known = header.salts.or_else(|| Some(frames.iter().find(|one| one.is_linked)?.salts));
        let mut log = Log::of_frames(&frames, known.unwrap_or_default());
        if header.checksum.is_none() {
            log.is_damaged = true;
            log.is_header_damaged = true;
            log.chain_end = 0;
            log.ignored = ignored(&frames, known.unwrap_or_default());
        }
        log
    }

    fn of_frames(frames: &[Frame], salts: u64) -> Log {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let is_chained = |frame: &Frame| frame.is_linked && frame.salts == salts;
        let chain = frames.iter().take_while(|frame| is_chained(frame)).count();
        let committed = frames[..chain].iter().rposition(|frame| frame.pages_after_commit != 0);
        let mut log = Log { frames: number(frames.len()), ..Log::default() };
        if let Some(last) = committed {
            log.pages = frames[last].pages_after_commit;
            for (index, frame) in frames[..=last].iter().enumerate() {
                log.frames_in_force.insert(frame.page, number(index));
            }
        }
        // A frame that was not written to its end is what any crash may leave; a sound one behind
        // it is not.
        log.is_damaged = frames[chain..].iter().any(is_chained);
        // Up to the last that is surely of this log: the salts of a damaged one say nothing.
        let last = frames.iter().rposition(|frame| frame.salts == salts);
        log.ignored = ignored(&frames[chain..], salts);
        log.chain_end = number(chain);
        log.end = last.map_or(0, |last| number(last + 1));
        if let Some(last) = last.filter(|last| *last >= chain) {
            let behind = committed.map_or(0, |last| last + 1);
            let newest_first = frames.iter().enumerate().take(last + 1).skip(behind).rev();
            log.tail = newest_first
                .map(|(index, frame)| TailFrame {
                    frame: number(index),
                    page: frame.page,
                    is_sound: is_chained(frame),
                })
                .collect();
        }
        log
    }
}

/// How many of these frames, which the database library ignores, are intact, if one of them ends a
/// commit.
fn ignored(frames: &[Frame], salts: u64) -> u32 {
    let intact = || frames.iter().filter(|frame| frame.is_linked && frame.salts == salts);
    let has_commit = intact().any(|frame| frame.pages_after_commit != 0);
    if has_commit { u32::try_from(intact().count()).unwrap_or(u32::MAX) } else { 0 }
}

/// Without a header the first frame's checksum proves nothing; the second one's proves what the
/// first one names. A log of one frame has to be believed: its rows have checksums of their own.
fn assume_header(frames: &mut [Frame]) {
    let is_proven = match &*frames {
        [] => false,
        [one] => one.page != 0,
        [first, second, ..] => second.is_linked && first.salts == second.salts && first.page != 0,
    };
    if let Some(first) = frames.first_mut() {
        first.is_linked = is_proven;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one log: whether each one's checksum is right, and whether it ends a commit.
    fn ignored_of(frames: &[(bool, bool)]) -> u32 {
        let frames: Vec<Frame> = frames
            .iter()
            .map(|(is_linked, ends)| Frame {
                page: 1,
                pages_after_commit: u32::from(*ends),
                salts: 7,
                is_linked: *is_linked,
            })
            .collect();
        Log::of_frames(&frames, 7).ignored
    }

    #[test]
    fn what_a_rolled_back_transaction_leaves_is_no_loss() {
        let (good, bad) = ((true, true), (false, true));
        assert_eq!(ignored_of(&[good, good]), 0);
        assert_eq!(ignored_of(&[good, good, bad, bad]), 0, "an end that is torn");
        assert_eq!(ignored_of(&[good, bad, (true, false), (true, false)]), 0);
        assert_eq!(ignored_of(&[good, bad, (true, false), good]), 2);
        assert_eq!(ignored_of(&[bad, good]), 1);
    }
}
