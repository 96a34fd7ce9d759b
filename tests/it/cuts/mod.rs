//! Power cuts, kills and failing disks under the real persistence code, by the thousand.
//!
//! - `calls`: sees every write, sync, rename and removal of this process;
//! - `disk`: what would be left of them;
//! - `model`: what should be left;
//! - `keys`: what becomes of deduplication keys;
//! - `story`: life after life on one disk, each begun on what the last one left;
//! - `format_1`: files of the first format, which the next start migrates;
//! - `full`: a real small disk, filled to its last byte by somebody who takes what becomes free.
//!
//! `PHPMQ_CUTS` says how many cuts are made (the ordinary run makes few), `PHPMQ_SEED` repeats them,
//! and `PHPMQ_DISK` those of one disk, of which a broken promise tells the number.

mod calls;
mod disk;
mod format_1;
mod full;
mod keys;
mod model;
mod random;
mod story;

use phpmq::store::{self, StoreError};

use disk::{End, Fault, Plan};
use model::Sizes;
use random::Random;
use story::{Life, Story, Together};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EDQUOT: i32 = 122;

/// What many lives came to.
#[derive(Debug, Default)]
struct Report {
    cuts: u64,
    cuts_while_opening: u64,
    commits: u64,
    times_together: u64,
    rewrites: u64,
    broken: Vec<String>,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.cuts += other.cuts;
        self.cuts_while_opening += other.cuts_while_opening;
        self.commits += other.commits;
        self.times_together += other.times_together;
        self.rewrites += other.rewrites;
        self.broken.extend(other.broken);
    }
}

/// How lives are led.
#[derive(Clone, Copy, Debug)]
struct Lives {
    sizes: Sizes,
    /// Whether syncs do nothing.
    lying: bool,
    /// Whether each disk is full for a while before its end, and all commits are tied.
    full: bool,
    together: Together,
}

impl Lives {
    const ORDINARY: Lives =
        Lives { sizes: Sizes::SMALL, lying: false, full: false, together: Together::Whole };
}

fn cuts_wanted(ordinary: u64) -> u64 {
    std::env::var("PHPMQ_CUTS").map_or(ordinary, |cuts| cuts.parse().unwrap())
}

/// The lives on one disk.
const LIVES: u64 = 20;

/// As many lives as there are to be cuts, on new disks and on all processors at once. One that is
/// found broken is the last one of its disk.
fn cut(cuts: u64, seed: u64, lives: Lives) -> Report {
    let mut disks = Random::new(seed);
    let seeds: Vec<u64> = match std::env::var("PHPMQ_DISK") {
        Ok(disk) => vec![disk.parse().unwrap()],
        Err(_) => (0..cuts.div_ceil(LIVES)).map(|_| disks.next()).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let share = |thread: usize| {
        let mut report = Report::default();
        let mine = seeds.iter().skip(thread).step_by(threads);
        mine.for_each(|seed| cut_disk(&mut report, *seed, lives));
        report
    };
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let shares: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        shares.into_iter().for_each(|share| report.add(share.join().unwrap()));
    });
    report
}

/// What goes wrong in one life, and when it ends. After an error the file is written anew: a good
/// moment for the power to go.
fn plan(story: &mut Story, lives: Lives) -> Plan {
    let reach = [10, 40, 150, 600, 4_000][story.random.below(5) as usize];
    let mut plan = Plan { lying: lives.lying, ..Plan::default() };
    let mut ends_at = 1 + story.random.below(reach);
    if lives.full {
        // Mostly so short that the parts which are tried next have room.
        let count = [1, 2, 3, 30][story.random.below(4) as usize];
        let fault = [Fault::Error(ENOSPC), Fault::Full][story.random.below(2) as usize];
        plan.fault = Some((ends_at, count, fault));
        ends_at += count + 1 + story.random.below(30);
    } else if !lives.lying && story.random.below(4) == 0 {
        let fault = [Fault::Error(EIO), Fault::Sync][story.random.below(2) as usize];
        plan.fault = Some((ends_at, 1, fault));
        ends_at += 1 + story.random.below(80);
    }
    plan.ends_at = Some(ends_at);
    plan
}

/// Some lives on one disk.
fn cut_disk(report: &mut Report, disk_seed: u64, lives: Lives) {
    let mut story = Story::new(Random::new(disk_seed), lives.sizes);
    (story.together, story.ties_all) = (lives.together, lives.full);
    for _ in 0..LIVES {
        let plan = plan(&mut story, lives);
        let closes = story.random.below(10) == 0;
        let commits_before = story.commits;
        match story.live(plan, 25, closes) {
            Life::Ended if story.commits == commits_before => report.cuts_while_opening += 1,
            Life::Ended | Life::Lived => {}
            Life::Closed => story.disk.end(),
            Life::Refused(error) => {
                let is_right = plan.fault.is_some() && error.exit_code() != 65;
                assert!(is_right, "disk {disk_seed}: {error}");
                story.disk.end();
            }
            Life::Broken(how) => {
                report.broken.push(format!("disk {disk_seed}: {how}"));
                story.disk.end();
                break;
            }
        }
        report.cuts += 1;
        // A process that ends between a failed sync and the mark that says so leaves its
        // successor in good faith, which nobody can help: the system itself has forgotten what
        // it could not write.
        let process = story.random.below(4) == 0 && !story.disk.is_untold();
        story.restart(if process { End::Process } else { End::Power });
    }
    report.commits += story.commits;
    report.times_together += story.times_together;
    report.rewrites += story.rewrites;
}

fn lose_nothing(name: &str, cuts: u64, seed: u64, lives: Lives) {
    let report = cut(cuts, seed, lives);
    println!(
        "{name}: {} cuts, {} of them before the first commit of a life, {} commits, {} times \
         several steps together, {} rewrites, {} broken",
        report.cuts,
        report.cuts_while_opening,
        report.commits,
        report.times_together,
        report.rewrites,
        report.broken.len()
    );
    assert!(report.broken.is_empty(), "seed {seed}: {:#?}", report.broken);
    // Few cuts need not have met everything, and a disk that is full has no file written anew.
    let few = report.cuts < 300;
    let met = [report.commits, report.times_together, report.cuts_while_opening, report.rewrites];
    assert!(few || met[..if lives.full { 2 } else { 4 }].iter().all(|count| *count > 0));
}

#[test]
fn power_cuts_and_kills_lose_nothing_confirmed_and_corrupt_nothing() {
    lose_nothing("short commits", cuts_wanted(600), Random::seed(), Lives::ORDINARY);
}

/// A power cut tore the page of the row that names the log, and the file alone showed an old row
/// that had been deleted from that page: the log was refused as another file's. The numbers in the
/// row are random, so that not every run had met it.
#[test]
fn regression_10_a_torn_page_shows_no_row_of_long_ago() {
    let mut report = Report::default();
    for _ in 0..20 {
        cut_disk(&mut report, 8_143_527_853_312_985_398, Lives::ORDINARY);
    }
    assert!(report.broken.is_empty(), "{:#?}", report.broken);
}

#[test]
fn power_cuts_while_the_log_is_moved_into_the_file_lose_nothing() {
    let lives = Lives { sizes: Sizes::LARGE, ..Lives::ORDINARY };
    lose_nothing("long commits", cuts_wanted(600) / 20, Random::seed(), lives);
}

/// The ordinary run makes the same cuts each time: others have ended in a start that is refused
/// because of the log (see `tests/faults/README.md`).
#[test]
fn power_cuts_of_full_disks_part_nothing_that_happens_together() {
    let lives = Lives { full: true, ..Lives::ORDINARY };
    let is_ordinary = ["PHPMQ_CUTS", "PHPMQ_SEED"].iter().all(|name| std::env::var(name).is_err());
    let seed = if is_ordinary { 1 } else { Random::seed() };
    lose_nothing("full disks", cuts_wanted(600) / 3, seed, lives);
}

/// A start had made a new file in the place of a suspect one, and removed the old one's log, when the
/// disk would not take the new name. It then wrote the old file again in place, and refused it: its
/// log was missing.
#[test]
fn regression_a_start_that_has_a_new_file_ready_leaves_the_old_one_alone() {
    let mut report = Report::default();
    let lives = Lives { full: true, together: Together::Untied, ..Lives::ORDINARY };
    // What is broken is not asked here: its commits are made in parts on purpose.
    cut_disk(&mut report, 3_877_276_833_755_828_978, lives);
}

/// The controls: what is broken on purpose is found by the same cuts, so that these can fail.
fn is_caught(name: &str, lives: Lives) {
    let seed = Random::seed();
    let report = cut(30 * LIVES, seed, lives);
    println!("{name}: {} cuts, {} broken", report.cuts, report.broken.len());
    assert!(report.broken.len() > 3, "seed {seed}: the tests of this module can not fail");
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    is_caught("lying", Lives { lying: true, ..Lives::ORDINARY });
}

#[test]
fn a_batch_that_ends_in_the_midst_of_what_happens_together_is_caught() {
    is_caught("batches", Lives { together: Together::AcrossBatches, ..Lives::ORDINARY });
}

#[test]
fn a_full_disk_that_takes_a_part_of_what_happens_together_is_caught() {
    is_caught("parts", Lives { full: true, together: Together::Untied, ..Lives::ORDINARY });
}

/// What one planned fault came to.
struct Failed {
    changes: u64,
    faults: u64,
    failures: u64,
    rewrites: u64,
    refused: bool,
}

/// What the disk has before the first failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Used,
}

/// A story that is the same every time until the n-th change fails. Then the power goes or the
/// process ends, and the next start must find what it may find.
fn fail(
    seed: u64,
    sizes: Sizes,
    disk: Before,
    fault: Option<(u64, u64, Fault)>,
    end: End,
) -> Failed {
    let mut story = Story::new(Random::new(seed), sizes);
    let what = format!("seed {seed}, {disk:?}, {fault:?}, then {end:?}");
    let mut failed = Failed { changes: 0, faults: 0, failures: 0, rewrites: 0, refused: false };
    if disk == Before::Used {
        assert!(matches!(story.live(Plan::default(), 6, false), Life::Lived), "{what}");
        story.restart(End::Process);
    }
    let plan = Plan { fault, ..Plan::default() };
    match story.live(plan, 14, false) {
        Life::Lived => {}
        Life::Refused(error) => {
            // Damage that is not there must not be reported: an operator would restore a backup.
            assert!(error.exit_code() != 65, "{what}: {error}");
            failed.refused = true;
            story.disk.end();
        }
        Life::Broken(how) => panic!("{what}: {how}"),
        Life::Ended | Life::Closed => unreachable!("no end was planned"),
    }
    (failed.changes, failed.faults) = (story.disk.changes(), story.disk.faults());
    (failed.failures, failed.rewrites) = (story.failures, story.rewrites);
    if !failed.refused && failed.failures > 0 {
        assert!(story.recovered, "{what}: it did not go on by itself");
    }
    if end == End::Process && !story.disk.is_untold() {
        // What the next process serves is on the disk.
        story.restart(End::Process);
        match story.live(Plan::default(), 0, false) {
            Life::Lived => {}
            Life::Broken(how) => panic!("{what}: {how}"),
            _ => panic!("{what}: the next start did not come to its end"),
        }
    }
    story.restart(End::Power);
    match story.live(Plan::default(), 3, true) {
        Life::Closed => {}
        Life::Broken(how) => panic!("{what}: {how}"),
        _ => panic!("{what}: the next start did not come to its end"),
    }
    failed
}

/// Lets the n-th change fail, for one n in so many, in all ways.
fn fail_at_each(name: &str, seed: u64, sizes: Sizes, disk: Before, step: u64) {
    let unharmed = fail(seed, sizes, disk, None, End::Power);
    assert_eq!((unharmed.faults, unharmed.failures), (0, 0));
    let ways = [
        (1, Fault::Error(EIO)),
        (3, Fault::Error(EIO)),
        (1, Fault::Error(ENOSPC)),
        (12, Fault::Error(ENOSPC)),
        (1, Fault::Error(EDQUOT)),
        (1, Fault::Short),
        (1, Fault::Sync),
        (8, Fault::Sync),
    ];
    let (mut runs, mut faults, mut failures, mut rewrites, mut refused) = (0_u64, 0, 0, 0, 0_u64);
    for (count, fault) in ways {
        for number in (1..=unharmed.changes).step_by(step as usize) {
            let end = if (number / step).is_multiple_of(3) { End::Process } else { End::Power };
            let failed = fail(seed, sizes, disk, Some((number, count, fault)), end);
            runs += 1;
            faults += failed.faults;
            failures += failed.failures;
            rewrites += failed.rewrites;
            refused += u64::from(failed.refused);
        }
    }
    println!(
        "{name}: {} changes, {runs} runs, {faults} faults, {failures} orders failed, {rewrites} \
         rewrites, {refused} starts refused, 0 broken",
        unharmed.changes
    );
    assert!(faults > 0 && failures > 0 && rewrites > 0 && refused > 0);
}

#[test]
fn every_change_may_fail_and_nothing_confirmed_is_lost() {
    let step = if cuts_wanted(0) >= 10_000 { 1 } else { 4 };
    fail_at_each("short commits", 1, Sizes::SMALL, Before::Used, step);
}

/// A disk that failed while the file was switched to a write-ahead log once left it with another
/// kind of journal, unnoticed, in which a power cut can undo what was confirmed.
#[test]
fn every_change_of_a_first_start_may_fail() {
    let step = if cuts_wanted(0) >= 10_000 { 1 } else { 3 };
    fail_at_each("first start", 3, Sizes::SMALL, Before::Nothing, step);
}

#[test]
fn every_change_of_a_checkpoint_and_a_long_rewrite_may_fail() {
    let step = if cuts_wanted(0) >= 10_000 { 7 } else { 211 };
    fail_at_each("long commits", 2, Sizes::LARGE, Before::Used, step);
}

/// A process ends with commits that are not synced, its successor's first sync fails, and so it
/// does not start; then the power goes. A connection that was closed after that sync once moved the
/// log, of which the disk had a part only, into the file, and the power went in the middle of it.
#[test]
fn a_start_whose_sync_fails_moves_nothing_into_the_file() {
    let mut refused = 0;
    for seed in 0..6 {
        for after in 1..=20 {
            let mut story = Story::new(Random::new(seed), Sizes::SMALL);
            let what = format!("seed {seed}, the power goes {after} changes after the failure");
            assert!(matches!(story.live(Plan::default(), 20, true), Life::Closed), "{what}");
            story.disk.end();
            story.restart(End::Power);
            assert!(matches!(story.live(Plan::default(), 4, false), Life::Lived), "{what}");
            story.restart(End::Process);
            // Only the first: the ones after it say that all is well.
            let fault = Some((3, 1, Fault::Sync));
            let plan = Plan { fault, ends_at: Some(3 + after), ..Plan::default() };
            match story.live(plan, 0, false) {
                Life::Refused(error) => {
                    assert!(error.exit_code() != 65, "{what}: {error}");
                    refused += 1;
                    story.disk.end();
                }
                Life::Ended => {}
                _ => panic!("{what}: it has started"),
            }
            story.restart(End::Power);
            match story.live(Plan::default(), 3, true) {
                Life::Closed => {}
                Life::Broken(how) => panic!("{what}: {how}"),
                _ => panic!("{what}: the next start did not come to its end"),
            }
        }
    }
    assert!(refused > 0);
}

/// A process ends with commits that are not synced, and its successor finds a disk that is full and
/// then fails to sync. Such a start once went on and served what was on no disk.
#[test]
fn a_start_on_a_full_disk_whose_sync_fails_serves_nothing() {
    let (mut served, mut refused) = (0, 0);
    for (seed, first) in (0..12).flat_map(|seed| (1..=5).map(move |first| (seed, first))) {
        let mut story = Story::new(Random::new(seed), Sizes::SMALL);
        let count = 1 + seed % 4;
        let what = format!("seed {seed}, {count} changes fail from {first} on");
        assert!(matches!(story.live(Plan::default(), 4, false), Life::Lived), "{what}");
        story.restart(End::Process);
        let fault = Some((first, count, Fault::Error(ENOSPC)));
        match story.live(Plan { fault, ..Plan::default() }, 0, false) {
            Life::Lived => served += 1,
            Life::Refused(error) => {
                assert!(error.exit_code() != 65, "{what}: {error}");
                refused += 1;
                story.disk.end();
            }
            Life::Broken(how) => panic!("{what}: {how}"),
            _ => panic!("{what}: no end was planned"),
        }
        story.restart(End::Power);
        match story.live(Plan::default(), 3, true) {
            Life::Closed => {}
            Life::Broken(how) => panic!("{what}: {how}"),
            _ => panic!("{what}: the next start did not come to its end"),
        }
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
}

/// The power goes at each step of a repair. Then the damaged file is still there and can be
/// repaired, or the new one is there and sound.
#[test]
fn a_repair_may_be_cut_anywhere_and_is_made_again() {
    let mut step = 1;
    loop {
        // Where the damaged message is the only one, nothing can be kept and nothing is repaired.
        let mut stories = (0..).map(|more| {
            let mut story = Story::new(Random::new(step + more * 1_000_000), Sizes::SMALL);
            assert!(matches!(story.live(Plan::default(), 12, true), Life::Closed));
            story
        });
        let mut story = stories.find(|story| story.messages() > 1).unwrap();
        let damaged = story.damage_one();
        story.disk.plan(Plan { ends_at: Some(step), ..Plan::default() });
        let recovered = store::recover(&story.disk.database());
        let cut = story.disk.has_ended();
        if let Err(StoreError::NothingSound { .. }) = recovered {
            // The damaged message was the only one. The next story has others.
            step += 1;
            continue;
        }
        assert_eq!(cut, recovered.is_err(), "step {step}: {recovered:?}");
        story.disk.end();
        story.restart(End::Power);
        let recovered = store::recover(&story.disk.database()).unwrap();
        let again = recovered.kept.is_some();
        if !cut {
            assert!(!again, "step {step}: what was repaired is sound");
        }
        assert_eq!(recovered.messages_quarantined, u64::from(again), "step {step}");
        story.forget(damaged);
        match story.live(Plan::default(), 3, true) {
            Life::Closed => {}
            Life::Broken(how) => panic!("step {step}: {how}"),
            _ => panic!("step {step}: the database can not be used"),
        }
        if !cut {
            break;
        }
        step += 1;
    }
    println!("repairs cut at {} steps", step - 1);
    assert!(step > 10);
}

/// A story whose database is of the first format, closed in order or not.
fn first_format(seed: u64) -> Story {
    let mut stories = (0..).map(|more| {
        let mut story = Story::new(Random::new(seed + more * 1_000_000), Sizes::FIRST_FORMAT);
        assert!(matches!(story.live(Plan::default(), 12, true), Life::Closed));
        story
    });
    let mut story = stories.find(|story| story.messages() > 1).unwrap();
    format_1::downgrade(&story.disk.database());
    if seed.is_multiple_of(2) {
        let id = story.first();
        format_1::remove_in_log(&story.disk.database(), id);
        story.forget(id);
    }
    story.sizes = Sizes::SMALL;
    story
}

/// After a migration that did not come to its end, or of which nobody knows: everything is there,
/// and the next start goes on.
fn assert_goes_on(story: &mut Story, what: &str) {
    for closes in [false, true] {
        match story.live(Plan::default(), 3, closes) {
            Life::Closed => story.disk.end(),
            Life::Lived => {}
            Life::Broken(how) => panic!("{what}: {how}"),
            _ => panic!("{what}: the database can not be used"),
        }
        story.restart(End::Power);
    }
}

/// The power goes, or the process ends, at each step of a start that migrates the file, and in the
/// commits and the checkpoint after it.
#[test]
fn a_migration_may_be_cut_anywhere() {
    let (mut cuts, mut uncut) = (0_u64, 0_u64);
    for seed in 0..(2 + cuts_wanted(0) / 400) {
        for step in 1.. {
            let mut story = first_format(seed);
            let what = format!("seed {seed}, step {step}");
            let plan = Plan { ends_at: Some(step), ..Plan::default() };
            match story.live(plan, 2, true) {
                Life::Ended => {}
                Life::Closed => uncut += 1,
                Life::Broken(how) => panic!("{what}: {how}"),
                _ => panic!("{what}: the start did not come to its end"),
            }
            let was_cut = story.disk.has_ended();
            cuts += u64::from(was_cut);
            story.disk.end();
            story.restart(if step.is_multiple_of(3) { End::Process } else { End::Power });
            assert_goes_on(&mut story, &what);
            if !was_cut {
                break;
            }
        }
    }
    println!("migrations: {cuts} cuts, {uncut} not cut, 0 broken");
    assert!(cuts > 40 && uncut > 1);
}

/// A disk that fails or is full at each step of a migration: the start is refused without calling
/// the file damaged, or goes on, and what is there is whole.
#[test]
fn every_change_of_a_migration_may_fail() {
    let (mut refused, mut without_room) = (0, 0);
    for fault in [Fault::Error(ENOSPC), Fault::Error(EIO), Fault::Sync, Fault::Short] {
        for count in [1, 1_000] {
            for step in 1.. {
                let mut story = first_format(step);
                let what = format!("{fault:?} {count} times from step {step} on");
                let plan = Plan { fault: Some((step, count, fault)), ..Plan::default() };
                match story.live(plan, 1, false) {
                    Life::Refused(error) => {
                        assert!(error.exit_code() != 65, "{what}: {error}");
                        without_room += u64::from(error.to_string().contains("has format 1"));
                        refused += 1;
                    }
                    Life::Broken(how) => panic!("{what}: {how}"),
                    _ => {}
                }
                let has_failed = story.disk.faults() > 0;
                story.disk.end();
                story.restart(End::Power);
                assert_goes_on(&mut story, &what);
                if !has_failed || step > 40 {
                    break;
                }
            }
        }
    }
    println!("migrations: {refused} starts refused, {without_room} for want of room, 0 broken");
    assert!(refused > 20 && without_room > 0);
}
