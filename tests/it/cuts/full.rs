//! A small disk, filled to its last byte by another program that takes each byte that becomes free:
//! to remove and to move messages goes on to the last one, through kills, stops and starts.

use crate::harness::Children as _;
use std::fs::{File as Foreign, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use phpmq::journal::{Batch, Journal};
use phpmq::store::{self, File, Held, Opened, Renewed, StoreError, StoreFile};
use phpmq::words::change::Change;
use phpmq::words::ids::Part;

use super::model::{Ids, Model, Sizes};
use super::random::Random;

const INODES: usize = 64;

/// A file system of its own. Gone when it is dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where none can be mounted.
    fn mount(megabytes: u64) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m,nr_inodes={INODES}");
        let mount = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = rustix::process::geteuid().is_root()
            && Command::new("mount").args(mount).arg(directory.path()).ended().unwrap().success();
        if !mounted {
            println!("skipped: only root can mount a small disk");
        }
        mounted.then_some(SmallDisk { directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("q.db")
    }

    /// Takes all that is free, to the last byte.
    fn fill(&self) {
        let path = self.path().join("foreign");
        let mut foreign = OpenOptions::new().append(true).create(true).open(path).unwrap();
        let mut piece = vec![b'x'; 1 << 20];
        while !piece.is_empty() {
            if !matches!(foreign.write(&piece), Ok(1..)) {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    fn free(&self) {
        drop(Foreign::create(self.path().join("foreign")).unwrap());
    }

    fn fill_inodes(&self) {
        let names = (0..).map(|number| self.path().join(format!("foreign-{number}")));
        assert!(names.take(INODES).any(|name| Foreign::create(name).is_err()), "never full");
    }

    fn free_inodes(&self) {
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().starts_with("foreign") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).ended();
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

/// What is to be there, and what may be.
struct Expected {
    model: Model,
    /// Messages whose put was not confirmed.
    unknown: Vec<u64>,
}

impl Expected {
    fn compare(&self, opened: &Opened) {
        let mut found = Model::found(&opened.memory);
        self.unknown.iter().for_each(|id| found.forget(*id));
        assert!(
            found == self.model,
            "found and not expected: {}; expected and not found: {}",
            found.without(&self.model),
            self.model.without(&found)
        );
    }
}

fn batch(changes: impl IntoIterator<Item = Change>) -> Arc<Batch> {
    let mut journal = Journal::new();
    changes.into_iter().for_each(|change| journal.record(change));
    journal.take()
}

fn open(path: &Path) -> Opened {
    store::open(Some(path), &mut |_| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// What a daemon does after each commit.
fn tidy(file: &mut File<'_>) {
    file.checkpoint_if_due().unwrap();
    file.sizes().unwrap();
    file.shrink_if_worth_it().unwrap();
}

/// Moves and removals, each of which has to be taken, and now and then a put that need not be.
fn work(
    disk: &SmallDisk,
    file: &StoreFile,
    ids: &mut Ids,
    expected: &mut Expected,
    random: &mut Random,
) {
    let mut file = File::new(file).unwrap();
    file.sizes().unwrap();
    for _ in 0..8 {
        let rows = [1, 5, 400][random.below(3) as usize];
        let mut changes = Vec::new();
        for _ in 0..rows {
            let removes = random.below(3) == 0;
            let model = &mut expected.model;
            changes.extend(if removes {
                model.remove(random)
            } else {
                model.move_one(&Sizes::SMALL, random)
            });
        }
        let puts = random.below(4) == 0;
        let (mut other, id) = (expected.model.clone(), ids.message);
        if puts {
            let sizes = Sizes { body_bytes_max: 6_000_000, ..Sizes::LARGE };
            changes.push(other.put(ids, &sizes, random));
        }
        match file.commit(&batch(changes), random.below(2) == 0) {
            Ok(()) => expected.model = other,
            Err(StoreError::NoRoom { kept: Part::Moves, .. }) if puts => expected.unknown.push(id),
            Err(error) => panic!("{error:?}"),
        }
        disk.fill();
        tidy(&mut file);
        disk.fill();
    }
}

/// Some messages on a disk that is filled then.
fn story(seed: u64, sizes: Sizes, messages: u64) -> Option<()> {
    let disk = SmallDisk::mount(100)?;
    let mut random = Random::new(seed);
    let mut expected = Expected { model: Model::default(), unknown: Vec::new() };
    let opened = open(&disk.database());
    let mut ids = Ids::new(opened.facts.next_id, 1);
    let store_file = opened.file.unwrap();
    let mut file = File::new(&store_file).unwrap();
    file.commit(&batch([expected.model.name_queue(&mut ids)]), true).unwrap();
    for _ in 0..messages / 100 {
        let model = &mut expected.model;
        let puts = (0..100).map(|_| model.put(&mut ids, &sizes, &mut random));
        file.commit(&batch(puts), true).unwrap();
        tidy(&mut file);
    }
    drop(file);
    store_file.abandon();
    disk.fill();
    let mut lives = 0;
    while !expected.model.is_empty() {
        let opened = open(&disk.database());
        disk.fill();
        expected.compare(&opened);
        // Nobody hands out an id twice.
        ids.message = ids.message.max(opened.facts.next_id);
        let store_file = opened.file.unwrap();
        work(&disk, &store_file, &mut ids, &mut expected, &mut random);
        if random.below(2) == 0 {
            store_file.abandon();
        } else {
            store_file.close().unwrap();
        }
        disk.fill();
        lives += 1;
    }
    disk.free();
    let opened = open(&disk.database());
    expected.compare(&opened);
    ids.message = ids.message.max(opened.facts.next_id);
    let store_file = opened.file.unwrap();
    let mut file = File::new(&store_file).unwrap();
    file.sizes().unwrap();
    let queue = expected.model.name_queue(&mut ids);
    let put = expected.model.put(&mut ids, &sizes, &mut random);
    file.commit(&batch([queue, put]), true).unwrap_or_else(|error| panic!("{error}"));
    println!("seed {seed}: {messages} messages, {lives} lives on a full disk");
    Some(())
}

/// A database with so many messages of 1 kB, closed in order or not.
fn with_messages(disk: &SmallDisk, messages: u64, in_order: bool) -> (Expected, Random) {
    let mut random = Random::new(Random::seed());
    let mut expected = Expected { model: Model::default(), unknown: Vec::new() };
    let opened = open(&disk.database());
    let mut ids = Ids::new(opened.facts.next_id, 1);
    let store_file = opened.file.unwrap();
    let mut file = File::new(&store_file).unwrap();
    tidy(&mut file);
    file.commit(&batch([expected.model.name_queue(&mut ids)]), true).unwrap();
    let sizes = Sizes { body_bytes_max: 1_000, ..Sizes::SMALL };
    let puts = (0..messages).map(|_| expected.model.put(&mut ids, &sizes, &mut random));
    file.commit(&batch(puts), true).unwrap();
    tidy(&mut file);
    drop(file);
    if in_order {
        store_file.close().unwrap();
    } else {
        store_file.abandon();
    }
    (expected, random)
}

/// Removes all messages, one commit each, while another program takes all that becomes free.
fn remove_all(
    disk: &SmallDisk,
    store_file: &StoreFile,
    expected: &mut Expected,
    random: &mut Random,
) {
    let mut file = File::new(store_file).unwrap();
    while let Some(change) = expected.model.remove(random) {
        disk.fill();
        file.commit(&batch([change]), true).unwrap_or_else(|error| panic!("{error}"));
        tidy(&mut file);
    }
}

/// A file that the last daemon had left suspect was to be written anew, and there was no room for
/// that: no start ended any way but with 74.
#[test]
fn regression_10_a_suspect_file_on_a_full_disk_is_written_again_in_place() {
    let Some(disk) = SmallDisk::mount(60) else { return };
    let (mut expected, mut random) = with_messages(&disk, 400, false);
    let mark = disk.path().join("q.db.suspect");
    drop(Foreign::create(&mark).unwrap());
    disk.fill();
    let opened = open(&disk.database());
    assert_eq!(opened.facts.renewed, Renewed::InPlace);
    assert!(!mark.exists() && !disk.path().join("q.db.new").exists());
    expected.compare(&opened);
    let store_file = opened.file.unwrap();
    remove_all(&disk, &store_file, &mut expected, &mut random);
    store_file.close().unwrap();
    expected.compare(&open(&disk.database()));
}

/// On a disk with less than 64 MB free nothing was set aside for the next start, and on one with
/// less than 16 MB no room for the log either.
#[test]
fn regression_10_a_small_disk_is_prepared_for_being_full_too() {
    for (megabytes, in_order) in [(8, true), (8, false), (20, true), (20, false)] {
        let Some(disk) = SmallDisk::mount(megabytes) else { return };
        let (mut expected, mut random) = with_messages(&disk, 200, in_order);
        disk.fill();
        let opened = open(&disk.database());
        expected.compare(&opened);
        let store_file = opened.file.unwrap();
        remove_all(&disk, &store_file, &mut expected, &mut random);
    }
}

#[test]
fn without_a_free_inode_what_is_there_is_read_and_the_rest_follows() {
    let Some(disk) = SmallDisk::mount(20) else { return };
    let (mut expected, mut random) = with_messages(&disk, 100, true);
    for suffix in [".lock", ".ballast"] {
        std::fs::remove_file(disk.path().join(format!("q.db{suffix}"))).unwrap();
    }
    disk.fill_inodes();
    let Opened { memory, file, unopened, facts, log_copy } = open(&disk.database());
    assert!(file.is_none());
    let opened = Opened { memory, file, unopened: None, facts, log_copy };
    expected.compare(&opened);
    let (held, result) = Held::Closed(unopened.unwrap()).connect();
    assert!(matches!(result, Err(StoreError::Full { .. })), "{result:?}");
    let other = store::open(Some(&disk.database()), &mut |_| ()).err().unwrap();
    assert!(matches!(other, StoreError::InUse { .. }), "{other}");
    disk.free_inodes();
    let (held, result) = held.connect();
    result.unwrap();
    let Held::Open(store_file) = held else { panic!("not connected to") };
    remove_all(&disk, &store_file, &mut expected, &mut random);
    store_file.close().unwrap();
    expected.compare(&open(&disk.database()));
}

#[test]
fn a_file_of_format_1_on_a_full_disk_is_refused_unchanged_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(20) else { return };
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.db");
    std::fs::copy(kept, disk.database()).unwrap();
    disk.fill();
    let before = std::fs::read(disk.database()).unwrap();
    let error = store::open(Some(&disk.database()), &mut |_| ()).err().expect("it has no room");
    let text = error.to_string();
    assert_eq!(error.exit_code(), 74, "{text}");
    assert!(text.contains("format 1") && text.contains("131072 bytes"), "{text}");
    assert!(std::fs::read(disk.database()).unwrap() == before);
    disk.free();
    let opened = open(&disk.database());
    assert!(opened.facts.migrated);
    assert_eq!(opened.facts.messages, 10);
    opened.file.unwrap().close().unwrap();
}

#[test]
fn on_a_full_disk_everything_can_be_moved_and_removed_through_kills_and_stops() {
    let _ = story(Random::seed(), Sizes { body_bytes_max: 300, ..Sizes::SMALL }, 4_000);
}

#[test]
fn on_a_full_disk_large_messages_can_be_moved_and_removed_too() {
    let _ = story(Random::seed(), Sizes { body_bytes_max: 600_000, ..Sizes::LARGE }, 100);
}
