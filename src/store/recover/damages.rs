//! Random damages to a known database: what is kept is genuine, what stands on undamaged pages is
//! kept, and what was done does not come back without need.
//!
//! `PHPMQ_DAMAGES` sets how many are played, `PHPMQ_SEED` replays one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::super::File;
use super::super::testing::{
    commit, commit_to, folder, found, put, queue, removed, reopen, row, state,
};
use super::{Recovered, StoreError, recover};
use crate::store::LogState;
use crate::words::change::Change;

const PAGE: usize = 8192;
const FRAME: usize = 24 + PAGE;
const LOG_HEADER: usize = 32;
const MESSAGES: u64 = 1_200;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

/// What a message's body is made of, so that each page with a part of it can be told.
fn token(id: u64) -> Vec<u8> {
    format!("<{id:06}>").into_bytes()
}

fn body(id: u64) -> Vec<u8> {
    let repeats = match id % 40 {
        0 => 4_000,
        1..=3 => 400,
        _ => 12,
    };
    token(id).repeat(repeats)
}

/// A database of which part is in the log alone, as a crash leaves it.
struct Known {
    file: Vec<u8>,
    log: Vec<u8>,
    /// The first page when there were few messages.
    old_first_page: Vec<u8>,
    alive: BTreeSet<u64>,
    done: BTreeSet<u64>,
    ids_reserved: u64,
}

impl Known {
    fn make() -> Known {
        let (_directory, path) = folder();
        let puts =
            |ids: std::ops::RangeInclusive<u64>| ids.map(|id| put(id, 1 + id % 7, &body(id)));
        let mut changes: Vec<Change> =
            (1..=7).map(|id| queue(id, &format!("queue {id}"))).collect();
        changes.extend(puts(1..=100));
        commit(&path, changes);
        reopen(&path).file.unwrap().close().unwrap();
        let old_first_page = fs::read(&path).unwrap()[..PAGE].to_vec();
        commit(&path, puts(101..=900).collect());
        let mut done: BTreeSet<u64> =
            (100..=400).chain((401..=880).filter(|id| id % 3 == 0)).collect();
        commit(&path, done.iter().map(|id| removed(*id)).collect());
        reopen(&path).file.unwrap().close().unwrap();
        let late: Vec<u64> = (700..=960).filter(|id| id % 5 == 1 && !done.contains(id)).collect();
        let mut changes: Vec<Change> = puts(901..=MESSAGES).collect();
        changes.extend((1..=60).map(|id| Change::Moved(state(id))));
        // In one life: each start moves the log into the file.
        let opened = reopen(&path);
        let ids_reserved = opened.facts.ids_reserved;
        let open = opened.file.unwrap();
        let mut file = File::new(&open).unwrap();
        commit_to(&mut file, changes);
        commit_to(&mut file, late.iter().map(|id| removed(*id)).collect());
        drop(file);
        done.extend(late);
        open.abandon();
        Known {
            file: fs::read(&path).unwrap(),
            log: fs::read(path.with_file_name("queue.db-wal")).unwrap(),
            old_first_page,
            alive: (1..=MESSAGES).filter(|id| !done.contains(id)).collect(),
            done,
            ids_reserved,
        }
    }

    fn frames(&self) -> usize {
        (self.log.len() - LOG_HEADER) / FRAME
    }

    /// The page in force of each number: where it begins in the file or in the log.
    fn view(&self) -> BTreeMap<usize, (bool, usize)> {
        let in_file = (0..self.file.len() / PAGE).map(|page| (page + 1, (false, page * PAGE)));
        let mut view: BTreeMap<usize, (bool, usize)> = in_file.collect();
        for frame in 0..self.frames() {
            let at = LOG_HEADER + frame * FRAME;
            // Frames with other salts are older than the log's beginning.
            if self.log[at + 8..at + 16] == self.log[16..24] {
                let number = u32::from_be_bytes(self.log[at..at + 4].try_into().unwrap());
                view.insert(number as usize, (true, at + 24));
            }
        }
        view
    }

    fn bytes(&self, (in_log, at): (bool, usize)) -> &[u8] {
        &(if in_log { &self.log } else { &self.file })[at..at + PAGE]
    }
}

/// A damaged copy.
struct Damaged {
    file: Vec<u8>,
    log: Option<Vec<u8>>,
    /// Ranges of file (false) and log (true) that are not what they were.
    harmed: Vec<(bool, std::ops::Range<usize>)>,
    /// Where pages of the file begin that have changed places: a leaf is found anywhere, a page on
    /// which a row goes on is not.
    swapped: Vec<usize>,
    what: Vec<String>,
}

impl Damaged {
    fn of(known: &Known) -> Damaged {
        let log = Some(known.log.clone());
        Damaged {
            file: known.file.clone(),
            log,
            harmed: Vec::new(),
            swapped: Vec::new(),
            what: Vec::new(),
        }
    }

    fn overwrite(&mut self, random: &mut Random, in_log: bool, at: usize, count: usize) {
        let Some(bytes) = (if in_log { self.log.as_mut() } else { Some(&mut self.file) }) else {
            return;
        };
        let at = at.min(bytes.len());
        let end = (at + count).min(bytes.len());
        let with_zeros = random.below(2) == 0;
        for byte in &mut bytes[at..end] {
            *byte = if with_zeros { 0 } else { random.below(256).to_le_bytes()[0] };
        }
        self.what.push(format!("log {in_log}: {at} to {end}"));
        self.harmed.push((in_log, at..end));
    }

    fn swap(&mut self, one: usize, two: usize) {
        let page = |number: usize| number * PAGE..(number + 1) * PAGE;
        if one != two && page(one.max(two)).end <= self.file.len() {
            let first = self.file[page(one)].to_vec();
            self.file.copy_within(page(two), one * PAGE);
            self.file[page(two)].copy_from_slice(&first);
            self.swapped.extend([one * PAGE, two * PAGE]);
            self.what.push(format!("pages {} and {} swapped", one + 1, two + 1));
        }
    }

    fn once(&mut self, random: &mut Random, known: &Known) {
        let pages = known.file.len() / PAGE;
        let page = |random: &mut Random| {
            // Roots and inner pages are among the first ones.
            let last = if random.below(3) == 0 { 10 } else { pages };
            random.below(last)
        };
        match random.below(9) {
            0 | 1 => {
                let at = page(random) * PAGE;
                self.overwrite(random, false, at, PAGE);
            }
            2 => {
                let at = random.below(self.file.len().max(1));
                self.overwrite(random, false, at, 500);
            }
            3 => self.swap(page(random), page(random)),
            4 => {
                let length = random.below(self.file.len().max(1));
                self.harmed.push((false, length..usize::MAX));
                self.file.truncate(length);
                self.what.push(format!("file cut to {length}"));
            }
            5 => {
                self.log = None;
                self.harmed.push((true, 0..usize::MAX));
                self.what.push("log lost".to_owned());
            }
            6 => {
                let at = LOG_HEADER + random.below(known.frames()) * FRAME;
                let begin = at + [0, 24, 3_000][random.below(3)];
                self.overwrite(random, true, begin, FRAME);
            }
            7 => self.overwrite(random, true, 0, LOG_HEADER),
            _ => {
                if self.file.len() >= PAGE {
                    self.file[..PAGE].copy_from_slice(&known.old_first_page);
                    self.harmed.push((false, 0..PAGE));
                    self.what.push("old first page".to_owned());
                }
            }
        }
    }

    fn is_harmed(&self, (in_log, at): (bool, usize)) -> bool {
        // What was harmed beside swapped pages is not there where it was; it is simpler not to say
        // where it is.
        let is_anywhere = |other: bool| !other && !self.swapped.is_empty();
        self.harmed.iter().any(|(other, range)| {
            // A frame counts as harmed when its header is.
            let is_here = range.start < at + PAGE && at.saturating_sub(24) < range.end;
            *other == in_log && (is_here || is_anywhere(*other))
        })
    }

    /// Whether a message that stands at these places is all there and can be told.
    fn is_whole(&self, places: &[(bool, usize)]) -> bool {
        let is_swapped = |place: &(bool, usize)| !place.0 && self.swapped.contains(&place.1);
        !places.iter().any(|place| self.is_harmed(*place))
            && (places.len() == 1 || !places.iter().any(is_swapped))
    }

    fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let (directory, path) = folder();
        fs::write(&path, &self.file).unwrap();
        if let Some(log) = &self.log {
            fs::write(path.with_file_name("queue.db-wal"), log).unwrap();
        }
        (directory, path)
    }
}

/// The ids that are kept, each looked at.
fn kept(path: &Path, story: &str) -> BTreeSet<u64> {
    let opened = reopen(path);
    let (queues, messages) = found(&opened.memory);
    let names: BTreeMap<u64, String> = queues.into_iter().collect();
    let mut ids = BTreeSet::new();
    for (message, attributes, bytes) in messages {
        let id = message.id.0;
        let queue = 1 + id % 7;
        let original = row(id, queue, &body(id));
        assert!(bytes == *original.body && attributes == original.attributes, "{story}: {id}");
        assert_eq!(message.queue.0, queue, "{story}: message {id}");
        assert_eq!(
            (message.created_ms, message.expires_ms, message.due_ms, message.priority),
            (original.created_ms, original.expires_ms, original.due_ms, original.priority)
        );
        let name = &names[&queue];
        assert!(
            *name == format!("queue {queue}") || *name == format!("recovered-{queue}"),
            "{story}: queue {queue} is called {name}"
        );
        assert!(ids.insert(id), "{story}: {id} twice");
        if let Some(moved) = message.moved {
            assert!(id <= 60 && moved == state(id), "{story}: the state of {id}");
        }
    }
    ids
}

/// Where parts of each living message stand in the pages in force, old copies included.
fn places(known: &Known) -> BTreeMap<u64, Vec<(bool, usize)>> {
    let mut places: BTreeMap<u64, Vec<(bool, usize)>> = BTreeMap::new();
    for place in known.view().into_values() {
        let bytes = known.bytes(place);
        let tokens = bytes.windows(8).filter(|part| part[0] == b'<' && part[7] == b'>');
        let ids: BTreeSet<u64> =
            tokens.filter_map(|part| str::from_utf8(&part[1..7]).ok()?.parse().ok()).collect();
        for id in ids.intersection(&known.alive) {
            places.entry(*id).or_default().push(place);
        }
    }
    assert_eq!(places.len(), known.alive.len());
    places
}

#[test]
fn random_damages_cost_only_what_stood_there_and_make_nothing_up() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PHPMQ_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("PHPMQ_DAMAGES").unwrap_or(60),
    };
    let known = Known::make();
    let places = places(&known);
    let mut repaired = 0;
    for seed in seeds {
        let mut random = Random(seed);
        let mut damaged = Damaged::of(&known);
        for _ in 0..=random.below(3) {
            damaged.once(&mut random, &known);
        }
        let story = format!("PHPMQ_SEED={seed}: {:?}", damaged.what);
        let must_be_kept: BTreeSet<u64> = places
            .iter()
            .filter(|(_, places)| damaged.is_whole(places))
            .map(|(id, _)| *id)
            .collect();
        let (_directory, path) = damaged.write();
        let ids = match recover(&path) {
            Ok(recovered) => {
                assert_eq!(reopen(&path).facts.messages, recovered.messages, "{story}");
                repaired += 1;
                kept(&path, &story)
            }
            Err(error) => {
                let text = error.to_string();
                assert!(error.exit_code() == 65 && !text.contains("--recover"), "{story}: {text}");
                BTreeSet::new()
            }
        };
        let lost: Vec<&u64> = must_be_kept.difference(&ids).collect();
        assert!(lost.is_empty(), "{story}: {} lost, {:?}", lost.len(), &lost[..lost.len().min(9)]);
        let loses_log = damaged.harmed.iter().any(|(in_log, _)| *in_log);
        let ids_go_on = ids.is_empty() || reopen(&path).facts.next_id >= known.ids_reserved;
        assert!(loses_log || ids_go_on, "{story}: ids would be used twice");
    }
    assert!(repaired > 0);
}

/// Repairs a copy with these pages of the file changed, the log being in it.
fn repair_pages(known: &Known, change: impl Fn(&mut Damaged)) -> (BTreeSet<u64>, Recovered) {
    let mut damaged = Damaged::of(known);
    change(&mut damaged);
    let (_directory, path) = damaged.write();
    let recovered = recover(&path).unwrap();
    (kept(&path, &recovered.to_string()), recovered)
}

#[test]
fn what_was_done_stays_away_when_other_pages_were_damaged() {
    let known = Known::make();
    let zero = |damaged: &mut Damaged, page: usize| {
        // The copies in the log too: they are the ones in force.
        damaged.file[(page - 1) * PAGE..page * PAGE].fill(0);
        let log = damaged.log.as_mut().unwrap();
        assert!(known.view()[&page].0 || !log.is_empty());
    };
    assert!(known.done.len() > 400);
    // The first page, the queues, the states: their copies in the log go with the log's header.
    for page in [1, 3, 5] {
        let (ids, recovered) = repair_pages(&known, |damaged| zero(damaged, page));
        assert!(ids == known.alive, "page {page}: {recovered}");
    }
    let leaves: Vec<usize> = known
        .view()
        .iter()
        .filter(|(number, place)| **number > 5 && !place.0 && known.bytes(**place)[0] == 13)
        .map(|(number, _)| *number - 1)
        .collect();
    let (one, two) = (leaves[0], leaves[leaves.len() - 1]);
    let (ids, recovered) = repair_pages(&known, |damaged| damaged.swap(one, two));
    assert!(ids == known.alive, "two leaves swapped: {recovered}");
}

/// The first page of an earlier time was put back, and "0 messages kept" said of all of them.
#[test]
fn regression_10_an_old_first_page_hides_nothing() {
    let known = Known::make();
    let (directory, path) = Damaged::of(&known).write();
    reopen(&path).file.unwrap().close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[..PAGE].copy_from_slice(&known.old_first_page);
    fs::write(&path, bytes).unwrap();
    let recovered = recover(&path).unwrap();
    assert_eq!(recovered.messages, known.alive.len() as u64, "{recovered}");
    assert_eq!(kept(&path, "old first page"), known.alive);
    drop(directory);
}

#[test]
fn a_log_without_its_file_is_recovered() {
    let known = Known::make();
    let (directory, path) = Damaged::of(&known).write();
    fs::remove_file(&path).unwrap();
    let recovered = recover(&path).unwrap();
    assert!(recovered.messages >= 250, "{recovered}");
    assert!(recovered.messages_outside <= recovered.messages);
    assert!(kept(&path, "log alone").is_superset(&(961..=MESSAGES).collect()));
    assert!(directory.path().join("queue.db.damaged-1-wal").exists());
}

#[test]
fn a_damaged_header_of_the_log_costs_nothing() {
    let known = Known::make();
    let mut damaged = Damaged::of(&known);
    damaged.log.as_mut().unwrap()[..LOG_HEADER].fill(0);
    let (_directory, path) = damaged.write();
    let recovered = recover(&path).unwrap();
    assert_eq!(recovered.log, LogState::Damaged);
    assert_eq!(kept(&path, "no header"), known.alive, "{recovered}");
}

#[test]
fn a_first_page_of_zeros_does_not_make_a_file_foreign_and_noise_does() {
    let known = Known::make();
    let (_directory, path) = folder();
    let mut random = Random(7);
    let noise: Vec<u8> = (0..40 * PAGE).map(|_| random.below(256).to_le_bytes()[0]).collect();
    fs::write(&path, &noise).unwrap();
    assert!(matches!(recover(&path), Err(StoreError::Foreign { .. })));
    assert!(fs::read(&path).unwrap() == noise);
    let mut bytes = known.file.clone();
    bytes[..PAGE].fill(0);
    fs::write(&path, bytes).unwrap();
    assert!(recover(&path).unwrap().messages > 300);
}
