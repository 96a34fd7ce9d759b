//! A simulated disk: what would be left of the files of one folder if the power went now.
//!
//! The files are real ones, so whoever works with them sees what he wrote. Beside them stands what
//! the disk has for certain, and what has been written since. At a power cut each sector that was
//! not synced is kept, dropped or torn at random, independently of the others; of the changes of
//! names that were not synced a random number, in order, has happened.
//!
//! A disk can also fail: the n-th change with an error of choice. A failed sync forgets what it
//! was to write, as Linux does: the next one says that all is well.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::random::Random;

const SECTOR_BYTES: usize = 512;
const MARK: &str = "phpmq-disk-";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// What the daemon makes beside its database when it does not trust it any more.
const SUSPECT: &str = "q.db.suspect";

static NEXT: AtomicU32 = AtomicU32::new(1);
static DISKS: Mutex<Option<HashMap<u32, Arc<Disk>>>> = Mutex::new(None);

/// Something that is done to the files. Files are numbered; number 0 is the folder.
pub enum Change {
    Made(String),
    Emptied(String),
    Removed(String),
    Renamed(String, String),
    Written(u32, usize, Vec<u8>),
    Cut(u32, usize),
    Synced(u32),
}

/// What is to become of a call.
pub enum Verdict {
    Go,
    /// Only a part is written.
    Short,
    Fail(i32),
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// The change at which the process or the power ends, counted from 1.
    pub ends_at: Option<u64>,
    /// Whether syncs do nothing.
    pub lying: bool,
    /// From this change on, for so many changes, this goes wrong.
    pub fault: Option<(u64, u64, Fault)>,
}

/// How a change fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error(i32),
    /// There is no room for what is written or made; all else goes on.
    Full,
    /// A part is written and no error told.
    Short,
    /// Only syncs fail.
    Sync,
}

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process: what it wrote stays with the system.
    Process,
    /// The power.
    Power,
}

pub struct Disk {
    number: u32,
    folder: PathBuf,
    state: Mutex<State>,
}

pub struct State {
    files: Vec<File>,
    names: HashMap<String, u32>,
    synced_names: HashMap<String, u32>,
    name_changes: Vec<NameChange>,
    changes: u64,
    plan: Plan,
    random: Random,
    ended: bool,
    faults: u64,
    /// Syncs that failed, and with them what they were to write.
    forgotten: u64,
    /// Whether nothing beside the database says so.
    untold: bool,
}

#[derive(Clone, Default)]
struct File {
    /// What the disk has for certain.
    synced: Vec<u8>,
    since: Vec<DataChange>,
}

#[derive(Clone)]
enum DataChange {
    Written(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone)]
enum NameChange {
    Added(String, u32),
    Removed(String),
    Renamed(String, String),
}

/// The disk of this number.
pub fn numbered(number: u32) -> Option<Arc<Disk>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&number).cloned()
}

/// The disk that a path leads to, and the name on it; the name of the folder itself is empty.
pub fn at(path: &[u8]) -> Option<(Arc<Disk>, &str)> {
    // Most paths are none of ours; they are told apart without a lock.
    let start = path.windows(MARK.len()).rposition(|window| window == MARK.as_bytes())?;
    let rest = std::str::from_utf8(path.get(start + MARK.len()..)?).ok()?;
    let (number, name) = rest.split_once('/').unwrap_or((rest, ""));
    Some((numbered(number.parse().ok()?)?, name))
}

/// Whether a name is that of a file whose content counts after a cut.
pub fn is_kept(name: &str) -> bool {
    ![".lock", "-shm", ".probe"].iter().any(|suffix| name.ends_with(suffix))
}

impl Disk {
    /// An empty disk.
    pub fn new(random: Random) -> Arc<Disk> {
        Disk::with(random, State::default(), |_| ())
    }

    fn with(random: Random, mut state: State, fill: impl FnOnce(&Path)) -> Arc<Disk> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = parent.join(format!("{}-{MARK}{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        // Before anybody can look it up, so that these writes are none of its own.
        fill(&folder);
        state.random = random;
        if state.files.is_empty() {
            state.files.push(File::default());
        }
        let disk = Arc::new(Disk { number, folder, state: Mutex::new(state) });
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        disks.get_or_insert_with(HashMap::new).insert(number, disk.clone());
        disk
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    /// The database on it.
    pub fn database(&self) -> PathBuf {
        self.folder.join("q.db")
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count changes anew and does as planned.
    pub fn plan(&self, plan: Plan) {
        let mut state = self.lock();
        state.changes = 0;
        state.faults = 0;
        state.plan = plan;
    }

    /// Whether the end has come.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Lets the end come now.
    pub fn end(&self) {
        self.lock().ended = true;
    }

    /// Changes since the plan was made.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Changes that went wrong as planned.
    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    /// Whether the next process would find what the disk does not have, and nothing that says so.
    pub fn is_untold(&self) -> bool {
        self.lock().untold
    }

    /// The disk as a process finds it that starts after the end. Nobody may use this one any more.
    pub fn restarted(&self, end: End) -> Arc<Disk> {
        let mut state = self.lock();
        assert!(state.ended, "a disk is only left at its end");
        let mut random = state.random.fork();
        match end {
            End::Process => {
                let next = State {
                    files: state.files.clone(),
                    names: state.names.clone(),
                    synced_names: state.synced_names.clone(),
                    name_changes: state.name_changes.clone(),
                    forgotten: state.forgotten,
                    ..State::default()
                };
                drop(state);
                let names: Vec<String> = next.names.keys().cloned().collect();
                let fill = |folder: &Path| {
                    for name in names {
                        std::fs::copy(self.folder.join(&name), folder.join(&name)).unwrap();
                    }
                };
                Disk::with(random, next, fill)
            }
            End::Power => {
                // A failed sync leaves more in the files than the disk will ever have.
                let all_counts = state.forgotten == 0;
                for (name, file) in state.names.iter().filter(|_| all_counts) {
                    let real = std::fs::metadata(self.folder.join(name)).unwrap().len();
                    let mut seen = state.files[*file as usize].synced.clone();
                    for change in &state.files[*file as usize].since {
                        change.apply(&mut seen);
                    }
                    assert_eq!(real, seen.len() as u64, "{name} was written to unseen");
                }
                let left = state.left(&mut random);
                drop(state);
                let mut next = State::default();
                next.files.push(File::default());
                for (name, synced) in &left {
                    let number = u32::try_from(next.files.len()).unwrap();
                    next.files.push(File { synced: synced.clone(), since: Vec::new() });
                    next.names.insert(name.clone(), number);
                }
                next.synced_names = next.names.clone();
                let fill = |folder: &Path| {
                    for (name, synced) in &left {
                        std::fs::write(folder.join(name), synced).unwrap();
                    }
                };
                Disk::with(random, next, fill)
            }
        }
    }

    /// Takes the files away.
    pub fn remove(&self) {
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        disks.get_or_insert_with(HashMap::new).remove(&self.number);
        drop(disks);
        // Not while a test fails already.
        let removed = std::fs::remove_dir_all(&self.folder);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

impl Default for State {
    fn default() -> State {
        State {
            files: Vec::new(),
            names: HashMap::new(),
            synced_names: HashMap::new(),
            name_changes: Vec::new(),
            changes: 0,
            plan: Plan::default(),
            random: Random::new(0),
            ended: false,
            faults: 0,
            forgotten: 0,
            untold: false,
        }
    }
}

impl State {
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The number of a file; the folder's is 0.
    pub fn file(&self, name: &str) -> u32 {
        self.names.get(name).copied().unwrap_or(0)
    }

    /// Says what is to become of a change. At the end the change has happened or not.
    pub fn judge(&mut self, change: &Change) -> Verdict {
        if self.ended {
            return Verdict::Fail(EIO);
        }
        self.changes += 1;
        if self.plan.ends_at == Some(self.changes) {
            self.ended = true;
            return Verdict::Fail(EIO);
        }
        let Some((from, count, fault)) = self.plan.fault else { return Verdict::Go };
        if self.changes < from || self.changes >= from + count {
            return Verdict::Go;
        }
        match (fault, change) {
            (Fault::Short, Change::Written(..)) => {
                self.faults += 1;
                Verdict::Short
            }
            (Fault::Full, Change::Written(..) | Change::Made(_)) => {
                self.faults += 1;
                Verdict::Fail(ENOSPC)
            }
            (Fault::Short | Fault::Full, _) => Verdict::Go,
            (Fault::Error(_) | Fault::Sync, Change::Synced(file)) => {
                self.faults += 1;
                self.forgotten += 1;
                if *file != 0 {
                    self.files[*file as usize].since.clear();
                    self.untold = !self.has(SUSPECT);
                }
                Verdict::Fail(EIO)
            }
            (Fault::Sync, _) => Verdict::Go,
            (Fault::Error(errno), _) => {
                self.faults += 1;
                Verdict::Fail(errno)
            }
        }
    }

    /// Notes a change that has happened.
    pub fn done(&mut self, change: Change) {
        match change {
            Change::Made(name) => {
                self.untold &= name != SUSPECT;
                let number = self.files.len() as u32;
                self.files.push(File::default());
                self.names.insert(name.clone(), number);
                self.name_changes.push(NameChange::Added(name, number));
            }
            Change::Emptied(name) => {
                let file = self.file(&name);
                self.files[file as usize].since.push(DataChange::Cut(0));
            }
            Change::Removed(name) => {
                self.names.remove(&name);
                self.name_changes.push(NameChange::Removed(name));
            }
            Change::Renamed(from, to) => {
                if let Some(file) = self.names.remove(&from) {
                    self.names.insert(to.clone(), file);
                }
                self.name_changes.push(NameChange::Renamed(from, to));
            }
            Change::Written(file, at, bytes) => {
                self.files[file as usize].since.push(DataChange::Written(at, bytes));
            }
            Change::Cut(file, length) => {
                self.files[file as usize].since.push(DataChange::Cut(length));
            }
            Change::Synced(_) if self.plan.lying => {}
            Change::Synced(0) => {
                self.synced_names = self.names.clone();
                self.name_changes.clear();
            }
            Change::Synced(file) => {
                let file = &mut self.files[file as usize];
                for change in std::mem::take(&mut file.since) {
                    change.apply(&mut file.synced);
                }
            }
        }
    }

    /// What a power cut leaves.
    fn left(&mut self, random: &mut Random) -> Vec<(String, Vec<u8>)> {
        let mut names = self.synced_names.clone();
        let happened = random.below(self.name_changes.len() as u64 + 1) as usize;
        for change in &self.name_changes[..happened] {
            match change {
                NameChange::Added(name, file) => {
                    names.insert(name.clone(), *file);
                }
                NameChange::Removed(name) => {
                    names.remove(name);
                }
                NameChange::Renamed(from, to) => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
            }
        }
        // How much of what was not synced is kept: from nearly all to nearly nothing.
        let kept_percent = [1, 20, 50, 80, 99][random.below(5) as usize];
        let mut left: Vec<_> = names
            .into_iter()
            .map(|(name, file)| (name, self.files[file as usize].left(kept_percent, random)))
            .collect();
        left.sort();
        left
    }
}

impl File {
    fn left(&self, kept_percent: u64, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.since {
            match change {
                DataChange::Written(at, written) => {
                    keep_some(&mut bytes, *at, written, kept_percent, random);
                }
                DataChange::Cut(_) => {
                    if random.below(100) < kept_percent {
                        change.apply(&mut bytes);
                    }
                }
            }
        }
        bytes
    }
}

/// Keeps some sectors of what was written, and parts of some.
fn keep_some(bytes: &mut Vec<u8>, at: usize, written: &[u8], percent: u64, random: &mut Random) {
    let mut from = at;
    let end = at + written.len();
    while from < end {
        let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
        let torn = random.below(10) == 0;
        if torn || random.below(100) < percent {
            let to = if torn { from + random.below((to - from) as u64) as usize } else { to };
            put(bytes, from, &written[from - at..to - at]);
        }
        from = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if written.is_empty() {
        return;
    }
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

impl DataChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            DataChange::Written(at, written) => put(bytes, *at, written),
            DataChange::Cut(length) => bytes.resize(*length, 0),
        }
    }
}
