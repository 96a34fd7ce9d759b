//! One started program: its log, its signals, what /proc tells of it.

use super::children::Children as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{PATIENCE, eventually};

/// A child process, killed when it is dropped.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// The lines of standard error so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn push(&self, line: Option<String>) {
        let mut lines = self.lines.lock().unwrap();
        match line {
            Some(line) => lines.0.push(line),
            None => lines.1 = true,
        }
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().0.join("\n")
    }

    /// The first line from `from` on that fits, waited for.
    fn find(&self, from: usize, fits: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let lines = self.lines.lock().unwrap();
        let mut found = None;
        let waiting = |lines: &mut (Vec<String>, bool)| {
            let place = lines.0.iter().skip(from).position(|line| fits(line));
            found = place.map(|place| (from + place, lines.0[from + place].clone()));
            found.is_none() && !lines.1
        };
        drop(self.changed.wait_timeout_while(lines, PATIENCE, waiting).unwrap());
        found
    }
}

impl Process {
    /// Starts it with its standard error read here.
    pub fn start(command: &mut Command) -> Process {
        // A group of its own, so that Ctrl-C of the test run reaches it only through our drop.
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .start()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        let reader = std::thread::Builder::new()
            .spawn(move || {
                for line in stderr.lines() {
                    writer.push(line.ok());
                }
                writer.push(None);
            })
            .unwrap();
        Process { child, log, reader: Some(reader) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops all of its threads where they are.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        eventually("all threads have stopped", || {
            let tasks = fs::read_dir(self.proc("task")).unwrap();
            let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
            stats.flatten().all(|stat| stat.rsplit(')').next().unwrap().starts_with(" T"))
        });
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// From now on its files can not grow over so many bytes; `None` is as far as we may.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of the log that contains the text.
    pub fn logged(&self, text: &str) -> String {
        self.logged_from(0, text).1
    }

    /// The same, after so many lines; says where it stands.
    pub fn logged_from(&self, from: usize, text: &str) -> (usize, String) {
        self.log
            .find(from, |line| line.contains(text))
            .unwrap_or_else(|| panic!("{text:?} was not logged"))
    }

    /// The lines logged so far that contain the text.
    pub fn count_logged(&self, text: &str) -> usize {
        self.log.lines.lock().unwrap().0.iter().filter(|line| line.contains(text)).count()
    }

    /// How many lines it has logged.
    pub fn lines(&self) -> usize {
        self.log.lines.lock().unwrap().0.len()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.id()))
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(self.proc("task")).unwrap();
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).collect()
    }

    /// How often its threads have waited for something so far.
    pub fn waits(&self) -> u64 {
        let tasks = fs::read_dir(self.proc("task")).unwrap();
        let texts =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        let counts = texts.map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        });
        counts.sum()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Its memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// Its address space now, in bytes.
    pub fn address_bytes(&self) -> u64 {
        self.memory_bytes("VmSize:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The processor's time it has used, in ticks of 10 ms.
    pub fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        // The second field, a name in brackets, may hold blanks.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- log of process {}\n{}\n---", self.child.id(), self.log.text());
        }
    }
}
