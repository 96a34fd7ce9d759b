//! `phpmqctl bench`: a load generator that checks what it receives.
//!
//! A few threads drive many connections each, with one wait for all of them, so that the generator
//! costs a fraction of the server that it measures. The codecs are its own and know no more than
//! the few commands that are sent here; they work against beanstalkd as well.
//!
//! | file | holds |
//! |---|---|
//! | `options` | the command line, checked |
//! | `worker` | a thread and its connections |
//! | `line` | the bytes of one connection |
//! | `conversation` | what every kind of connection has in common: schedule, tally |
//! | `beanstalk`, `phpmq` | the kinds of connections of each protocol |
//! | `visits` | connect, put one message, close |
//! | `ledger` | message bodies, and whether each came once and in order |
//! | `histogram` | latencies |
//! | `report` | what is printed |
//!
//! # Failure
//! A message that is lost, doubled, out of order or changed, and an answer that was not expected,
//! fails the whole run: exit code 1, and the first faults on standard error. The figures are printed
//! all the same: a run that lost one message in a million has something to tell.

mod beanstalk;
mod conversation;
mod fault;
mod histogram;
mod ledger;
mod line;
mod options;
mod phpmq;
mod report;
mod target;
mod visits;
mod worker;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::words::clock::monotonic_us;

use conversation::{Shared, Tally};
use fault::Fault;
use options::{Plan, Work};
use report::Report;

pub use options::Options;

/// The exit code when what came back was wrong.
const EXIT_WRONG: u8 = 1;
/// The exit code when the server cannot be reached (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNREACHABLE: u8 = 69;
/// How often the progress line is drawn, in microseconds.
const PROGRESS_US: u64 = 500_000;
/// How often it is seen whether all threads have ended, in milliseconds.
const LOOK_MS: u64 = 20;

/// Runs a benchmark and prints its figures.
pub fn run(options: &Options) -> ExitCode {
    let plan = match Plan::new(options) {
        Ok(plan) => Arc::new(plan),
        Err(error) => {
            eprintln!("phpmqctl: {error}");
            return ExitCode::from(super::EXIT_USAGE);
        }
    };
    match measure(&plan) {
        Ok(report) => {
            println!("{}", if plan.json { report.json() } else { report.text() });
            if report.is_sound() {
                return ExitCode::SUCCESS;
            }
            eprintln!("{}", report.complaint());
            ExitCode::from(EXIT_WRONG)
        }
        Err(fault) => {
            eprintln!("phpmqctl: {fault}");
            ExitCode::from(if fault.is_unreachable() { EXIT_UNREACHABLE } else { EXIT_WRONG })
        }
    }
}

type Running = JoinHandle<Result<Tally, Fault>>;

fn measure(plan: &Arc<Plan>) -> Result<Report, Fault> {
    let threads_count = match plan.work {
        Work::Connect => plan.connections,
        _ => plan.lines().len().div_ceil(plan.connections_per_thread),
    };
    allow_descriptors();
    let shared = Arc::new(Shared::new(threads_count));
    let threads = start_threads(plan, &shared, threads_count)?;
    let ready = shared.await_ready(monotonic_us);
    let shows = !plan.json && !plan.quiet && std::io::stderr().is_terminal();
    let mut progress = Progress { began_us: ready, last: (ready, 0) };
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(LOOK_MS));
        if shows {
            progress.draw(plan, shared.done());
        }
    }
    if shows {
        eprint!("\r\x1b[K");
    }
    let mut total = Tally::new(plan);
    for thread in threads {
        // A panic is a defect of this program, and has said so itself.
        let tally = thread.join().map_err(|_| Fault::Panicked)??;
        total.add(tally);
    }
    Ok(Report::new(plan, total, shared.began_us()))
}

fn start_threads(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    count: usize,
) -> Result<Vec<Running>, Fault> {
    let lines = plan.lines();
    let mut threads = Vec::new();
    for number in 0..count {
        let (plan, shared) = (plan.clone(), shared.clone());
        let from = (number * plan.connections_per_thread).min(lines.len());
        let to = (from + plan.connections_per_thread).min(lines.len());
        let mine = lines[from..to].to_vec();
        let body = move || match plan.work {
            Work::Connect => visits::run(&plan, &shared, number),
            _ => worker::run(&plan, &shared, &mine),
        };
        let thread = std::thread::Builder::new()
            .name(format!("bench-{number}"))
            .spawn(body)
            .map_err(Fault::Thread)?;
        threads.push(thread);
    }
    Ok(threads)
}

/// The line that is drawn anew while a run goes on.
struct Progress {
    began_us: u64,
    /// When it was drawn last, and what was done then.
    last: (u64, u64),
}

impl Progress {
    /// Draws it when it is time: what is done, and how fast it goes now.
    fn draw(&mut self, plan: &Plan, done: u64) {
        let now_us = monotonic_us();
        let (last_us, last_done) = self.last;
        let passed_us = now_us.saturating_sub(last_us);
        if passed_us < PROGRESS_US {
            return;
        }
        self.last = (now_us, done);
        let rate = done.saturating_sub(last_done) as f64 / (passed_us as f64 / 1e6);
        let seconds = now_us.saturating_sub(self.began_us) as f64 / 1e6;
        // A terminal that has gone away is no reason to give the run up.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{seconds:.1} s  {done} {}  {rate:.0}/s",
            plan.work.unit(),
        );
    }
}

/// A login shell often allows 1,024 descriptors, and the system far more to who asks for them.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Refused or not: the connection that finds no descriptor says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
