//! Binlogs of every kind: what comes of them, and what is said of what does not.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::record::Format;
use super::testing::{
    BURIED, DELAYED, DELETED, READY, RESERVED, Record, THEN_MS, directory, job, log, read,
};
use super::*;
use crate::store;
use crate::store::testing::found;
use crate::words::change::{Counters, MessageState, StateRow, StoredMessage};
use crate::words::ids::{MessageId, Sequence};

const BOTH: [Format; 2] = [Format::Five, Format::Seven];

/// The name of the queue, the message, its body.
type Row = (String, StoredMessage, Vec<u8>);

/// All that a database made of these files holds, and the next id.
fn imported(files: &[Vec<u8>]) -> (Vec<Row>, u64, Vec<Fault>) {
    let (directory, database) = directory(files);
    let binlog = read(directory.path()).unwrap();
    let summary = import(&binlog, &database, &mut |_| ()).unwrap();
    for (index, bytes) in files.iter().enumerate() {
        let path = directory.path().join(format!("binlog.{}", index + 1));
        assert_eq!(&fs::read(path).unwrap(), bytes, "it is as it was");
    }
    let opened = store::open(Some(&database), &mut |_| ()).unwrap();
    assert!(opened.facts.clean_stop);
    assert_eq!(opened.facts.next_id, summary.next_id);
    let (queues, messages) = found(&opened.memory);
    assert_eq!(messages.len() as u64, summary.jobs);
    let named = messages.into_iter().map(|(message, _, body)| {
        let queue = queues.iter().find(|(id, _)| *id == message.queue.0).unwrap();
        (queue.1.clone(), message, body)
    });
    (named.collect(), summary.next_id, binlog.faults().to_vec())
}

fn ids(files: &[Vec<u8>]) -> (Vec<u64>, Vec<Fault>) {
    let (messages, _, faults) = imported(files);
    (messages.into_iter().map(|(_, message, _)| message.id.0).collect(), faults)
}

/// Ids of the jobs that are left, without a database of them.
fn left(files: &[Vec<u8>]) -> (Vec<u64>, Vec<Fault>) {
    let (directory, _) = directory(files);
    let binlog = read(directory.path()).unwrap();
    let jobs = binlog.replay.by_place();
    (jobs.iter().map(|known| known.job.id).collect(), binlog.faults)
}

#[test]
fn every_state_comes_over_with_all_that_is_known_of_the_job() {
    for format in BOTH {
        let delayed = Record {
            priority: 7,
            delay_ms: 5_000,
            time_to_run_ms: 0,
            deadline_ms: THEN_MS + 9_000,
            counters: [1, 2, 3, 4, 5],
            ..job(3, b"later").state(DELAYED)
        };
        let buried = Record { counters: [1, 0, 0, 1, 0], ..job(4, b"").state(BURIED) };
        let (messages, next_id, faults) = imported(&[log(
            format,
            &[
                job(2, b"now").whole(format, "mail"),
                delayed.whole(format, "mail"),
                buried.whole(format, "a+b/c;d.$_()-"),
                job(9, b"in hand").state(RESERVED).whole(format, "mail"),
            ],
        )]);
        assert_eq!((next_id, faults), (10, vec![]));
        let [(tube, now, body), (_, later, _), (odd, set_aside, empty), (_, in_hand, _)] =
            &messages[..]
        else {
            panic!("{messages:?}")
        };
        assert_eq!((tube.as_str(), &body[..], now.moved.clone()), ("mail", &b"now"[..], None));
        assert_eq!((now.id, now.sequence, now.priority), (MessageId(2), Sequence(2), 10));
        assert_eq!((now.created_ms, now.time_to_run_ms), (THEN_MS as i64, 60_000));
        let moved = StateRow {
            id: MessageId(3),
            state: MessageState::Delayed,
            priority: 7,
            sequence: Sequence(3),
            due: Some(THEN_MS as i64 + 9_000),
            expires_ms: None,
            delay_ms: 5_000,
            counters: Counters { reserves: 1, timeouts: 2, releases: 3, buries: 4, kicks: 5 },
            queue: None,
            failure: None,
        };
        assert_eq!((later.moved.clone(), later.time_to_run_ms), (Some(moved), 1_000));
        assert_eq!((odd.as_str(), &empty[..]), ("a+b/c;d.$_()-", &b""[..]));
        let state = set_aside.moved.clone().unwrap();
        assert_eq!((state.state, state.counters.buries), (MessageState::Buried, 1));
        assert_eq!(in_hand.moved, None, "ready again at its old place");
    }
}

#[test]
fn the_last_record_of_a_job_holds_and_deleted_ones_do_not_come_back() {
    for format in BOTH {
        let kicked = Record { counters: [1, 0, 0, 1, 1], priority: 3, ..job(2, b"b") };
        let first = log(
            format,
            &[
                job(1, b"a").whole(format, "t"),
                job(2, b"b").whole(format, "t"),
                job(1, b"a").state(BURIED).short(format),
                job(7, b"").state(DELETED).short(format),
                job(8, b"").short(format),
            ],
        );
        let second = log(
            format,
            &[
                job(1, b"a").state(DELETED).short(format),
                kicked.short(format),
                // Written again to free the first file.
                kicked.whole(format, "t"),
            ],
        );
        let (messages, next_id, faults) = imported(&[first, second]);
        assert_eq!(faults, []);
        assert_eq!(next_id, 9, "ids of jobs that are gone are not used again");
        let [(_, message, body)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((message.id.0, &body[..]), (2, &b"b"[..]));
        let moved = message.moved.clone().unwrap();
        assert_eq!((moved.priority, moved.counters.kicks), (3, 1));
    }
}

#[test]
fn buried_jobs_keep_the_order_of_their_burials() {
    let format = Format::Seven;
    let bury = |id| Record { counters: [1, 0, 0, 1, 0], ..job(id, b"x").state(BURIED) };
    let (messages, ..) = imported(&[log(
        format,
        &[
            job(1, b"x").whole(format, "t"),
            job(2, b"x").whole(format, "t"),
            bury(2).short(format),
            bury(1).short(format),
            // Written again, not buried again.
            bury(2).whole(format, "t"),
        ],
    )]);
    let places: Vec<_> =
        messages.iter().map(|(_, message, _)| message.moved.clone().unwrap().due).collect();
    assert!(places[1] < places[0], "{places:?}");
}

#[test]
fn an_unfinished_record_ends_its_file_and_the_next_file_goes_on() {
    for format in BOTH {
        let whole = job(1, b"kept").whole(format, "t");
        let torn = job(2, b"a body of some length").whole(format, "tube");
        let next = log(format, &[job(3, b"after").whole(format, "t")]);
        for cut in 1..torn.len() {
            let begin = log(format, std::slice::from_ref(&whole));
            // What a half copy leaves, and what a killed writer leaves in its file.
            let short = [&begin[..], &torn[..cut]].concat();
            let padded = [&begin[..], &torn[..cut], &[0; 200]].concat();
            for (file, what) in [(short, What::Truncated), (padded, What::Unfinished)] {
                let (found, faults) = left(&[file, next.clone()]);
                assert_eq!(found, [1, 3], "cut at {cut}");
                let [fault] = &faults[..] else { panic!("{cut}: {faults:?}") };
                assert_eq!(fault.what, what, "cut at {cut}");
                assert_eq!(fault.is_loss(), what == What::Truncated);
            }
        }
    }
}

#[test]
fn a_file_that_was_made_and_not_used_is_no_fault() {
    let format = Format::Seven;
    let used = [&log(format, &[job(1, b"a").whole(format, "t")])[..], &[0; 5000]].concat();
    for unused in [vec![], vec![0; 3], vec![0; 5000], log(format, &[]), {
        [&log(format, &[])[..], &[0; 83]].concat()
    }] {
        assert_eq!(ids(&[used.clone(), unused]), (vec![1], vec![]));
    }
}

#[test]
fn damage_is_told_and_nothing_is_made_up_behind_it() {
    let format = Format::Seven;
    // A body that looks like a record: it must never be taken for one.
    let trap = [&b"\r\n"[..], &job(66, b"made up").whole(format, "t")].concat();
    let begin = job(1, b"first").whole(format, "t");
    let long = Record { body_bytes: Some(i32::MAX), ..job(2, &trap) };
    let negative = Record { body_bytes: Some(-1), ..job(2, &trap) };
    let short_by_one = Record { body_bytes: Some(trap.len() as i32 + 1), ..job(2, &trap) };
    let mut name = job(2, &trap).whole(format, "tube");
    name[0] = 255;
    let mut no_name = job(2, &trap).whole(format, "tube");
    no_name[0] = 0;
    let mut tube = job(2, &trap).whole(format, "tube");
    tube[4] = b' ';
    for damaged in [
        long.whole(format, "t"),
        negative.whole(format, "t"),
        short_by_one.whole(format, "t"),
        name,
        no_name,
        tube,
    ] {
        let last = job(3, b"unreachable").whole(format, "t");
        let file = log(format, &[begin.clone(), damaged, last]);
        let (found, faults) = ids(&[file, log(format, &[job(4, b"next").whole(format, "t")])]);
        assert_eq!(found, [1, 4]);
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert_eq!(fault.at, 4 + begin.len() as u64);
        assert!(fault.unread_bytes > 0, "{fault}");
    }
}

#[test]
fn a_record_with_impossible_values_is_left_out_and_the_next_one_read() {
    let format = Format::Seven;
    let states = job(2, b"x").state(9);
    let created = Record { created_ms: u64::MAX / 1_000_000, ..job(2, b"x") };
    let id = job(u64::MAX, b"x");
    for bad in [states, created, id] {
        let file = log(format, &[bad.whole(format, "t"), job(3, b"y").whole(format, "t")]);
        let (found, faults) = ids(&[file]);
        assert_eq!((found, faults.len()), (vec![3], 1));
        assert!(faults[0].is_loss());
    }
    let known = [job(1, b"x").whole(format, "t"), job(1, b"x").state(5).short(format)];
    let (found, faults) = ids(&[log(format, &known)]);
    assert_eq!((found, faults.len()), (vec![1], 1), "in the last state that is known");
}

#[test]
fn a_record_that_speaks_of_another_body_than_the_jobs_own_changes_nothing() {
    let format = Format::Seven;
    let other = job(1, b"another body").state(DELETED).short(format);
    let (found, faults) = ids(&[log(format, &[job(1, b"x").whole(format, "t"), other])]);
    assert_eq!((found, faults.len()), (vec![1], 1));
}

#[test]
fn a_missing_file_and_data_behind_the_end_are_told() {
    let format = Format::Seven;
    let behind = [&log(format, &[job(1, b"a").whole(format, "t")])[..], &[0; 100], b"x"].concat();
    let (directory, _) = directory(&[behind, vec![], log(format, &[])]);
    fs::remove_file(directory.path().join("binlog.2")).unwrap();
    let binlog = read(directory.path()).unwrap();
    let what: Vec<What> = binlog.faults().iter().map(|fault| fault.what).collect();
    assert_eq!(what, [What::Missing(1), What::BehindTheEnd]);
    assert_eq!(binlog.jobs(), 1);
}

#[test]
fn what_holds_something_and_nothing_sound_is_refused() {
    let other_machine = [&7_i32.to_be_bytes()[..], &[1; 200]].concat();
    for file in [b"something else".to_vec(), 6_i32.to_le_bytes().to_vec(), other_machine] {
        let (directory, database) = directory(&[file]);
        let error = read(directory.path()).err().unwrap();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("format version"), "{error}");
        assert!(!database.exists());
    }
    let (empty, _) = directory(&[]);
    assert!(matches!(read(empty.path()), Err(BinlogError::NoBinlog { .. })));
    let missing = empty.path().join("no");
    assert_eq!(read(&missing).err().unwrap().exit_code(), 73);
}

#[test]
fn a_database_that_exists_is_left_alone() {
    let format = Format::Seven;
    let (directory, database) = directory(&[log(format, &[job(1, b"a").whole(format, "t")])]);
    let binlog = read(directory.path()).unwrap();
    import(&binlog, &database, &mut |_| ()).unwrap();
    let before = fs::read(&database).unwrap();
    let error = import(&binlog, &database, &mut |_| ()).unwrap_err();
    assert!(matches!(error, BinlogError::DatabaseExists { .. }), "{error}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn an_import_that_was_cut_off_is_begun_anew() {
    let format = Format::Seven;
    let (directory, database) = directory(&[log(format, &[job(1, b"a").whole(format, "t")])]);
    fs::write(directory.path().join("phpmq.db.new"), b"half").unwrap();
    fs::write(directory.path().join("phpmq.db.imported"), b"binlog.1 5").unwrap();
    let binlog = read(directory.path()).unwrap();
    import(&binlog, &database, &mut |_| ()).unwrap();
    assert_eq!(store::open(Some(&database), &mut |_| ()).unwrap().facts.messages, 1);
    assert!(!directory.path().join("phpmq.db.new").exists());
}

#[test]
fn a_binlog_is_told_when_it_is_not_the_imported_one() {
    let format = Format::Seven;
    let kept = log(format, &[job(1, b"a").whole(format, "t")]);
    let (directory, database) = directory(std::slice::from_ref(&kept));
    let binlog = read(directory.path()).unwrap();
    import(&binlog, &database, &mut |_| ()).unwrap();
    drop(binlog);
    assert!(check_mark(directory.path(), &database).is_none());
    // A start of beanstalkd makes a file; without jobs there is nothing to tell.
    let next = directory.path().join("binlog.2");
    fs::write(&next, log(format, &[job(1, b"a").state(DELETED).short(format)])).unwrap();
    assert!(check_mark(directory.path(), &database).is_none());
    fs::write(&next, log(format, &[job(2, b"b").whole(format, "t")])).unwrap();
    assert!(matches!(check_mark(directory.path(), &database), Some(Ok(2))));
    fs::remove_file(&next).unwrap();
    fs::remove_file(directory.path().join("phpmq.db.imported")).unwrap();
    assert!(matches!(check_mark(directory.path(), &database), Some(Ok(1))));
}

/// A lock is another process's only in another process: a shell with a descriptor would do, but no
/// shell can take this kind. The interop test does it with beanstalkd itself.
#[test]
fn the_lock_of_a_directory_does_no_harm_when_nobody_has_it() {
    let format = Format::Seven;
    let (directory, _) = directory(&[log(format, &[job(1, b"a").whole(format, "t")])]);
    let lock = directory.path().join("lock");
    fs::File::create(&lock).unwrap().write_all(b"").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(read(directory.path()).unwrap().jobs(), 1);
    assert!(lock.exists());
}

#[test]
fn what_a_lock_file_that_is_no_file_means_is_told() {
    let format = Format::Seven;
    let (directory, _) = directory(&[log(format, &[job(1, b"a").state(READY).whole(format, "t")])]);
    fs::create_dir(directory.path().join("lock")).unwrap();
    // Nobody can have locked it.
    assert!(read(directory.path()).is_ok());
}

/// Numbers that look like chance and are the same each time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[test]
fn whatever_is_damaged_every_job_that_is_left_stands_in_the_file() {
    for seed in 1..=400 {
        let mut chance = Chance(seed * 0x9E37_79B9);
        let format = BOTH[chance.below(2)];
        let mut records = Vec::new();
        for _ in 0..20 {
            let id = 1 + chance.below(8) as u64;
            let state = u8::try_from(chance.below(5)).unwrap();
            let record = job(id, &vec![b'a'; 10 * id as usize]).state(state);
            let is_whole = chance.below(2) == 0;
            records.push(if is_whole { record.whole(format, "t") } else { record.short(format) });
        }
        let mut file = [&log(format, &records)[..], &[0; 300]].concat();
        for _ in 0..chance.below(4) {
            let at = 4 + chance.below(file.len() - 4);
            match chance.below(4) {
                0 => file[at] = u8::try_from(chance.below(256)).unwrap(),
                1 => file[at] ^= 1 << chance.below(8),
                2 => file.truncate(at + 1),
                _ => {
                    let from = chance.below(file.len());
                    let part = file[from..(from + 90).min(file.len())].to_vec();
                    file.splice(at..at, part);
                }
            }
        }
        let (directory, _) = directory(std::slice::from_ref(&file));
        let Ok(binlog) = read(directory.path()) else { continue };
        for known in binlog.replay.by_place() {
            let begin = usize::try_from(known.body.at).unwrap();
            let end = begin + usize::try_from(known.body.bytes).unwrap();
            assert_eq!(&file[end..end + 2], b"\r\n", "seed {seed}");
            assert!((1..binlog.replay.next_id()).contains(&known.job.id), "seed {seed}");
        }
    }
}
