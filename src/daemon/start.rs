//! Everything up to READY.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use slog::{Logger, error, info, warn};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::import::{guard_binlog, import_binlog};
use super::patience::Patience;
use super::sockets::{Bound, bind_all, inherit, log_replaced, start_listeners};
use super::{
    AbortOnPanic, Daemon, DaemonError, Plan, Watchdog, joined_threads, warn_of_questionable,
};
use crate::binlog::DirectoryLock;
use crate::channels::{self, Event, Finished, Notice, Order};
use crate::config::{Config, Environment, OnIoError};
use crate::daemon::logging::LevelHandle;
use crate::daemon::signals::{self, Signals};
use crate::daemon::systemd::{self, Notifier, Passed};
use crate::dispatcher::facts::FactReader;
use crate::dispatcher::{Dispatcher, Health, Parts, Stopped, build_engine};
use crate::engine::Engine;
use crate::journal::Journal;
use crate::persistence::{self, Progress};
use crate::store::{self, AtStart, Held, Memory, Renewed, Store, StoreError};
use crate::wire::admission::Admission;
use crate::wire::clients::Clients;
use crate::wire::connection::Shared;
use crate::wire::hang_ups::HangUps;
use crate::wire::threads::Threads;
use crate::wire::writer::Writers;
use crate::words::change::Change;
use crate::words::clock::Clock;
use crate::words::limits::{Budget, Limits, SERVICE_STACK_BYTES};

/// What systemd is asked for while a large database is read, again with every step.
pub(super) const MORE_TIME: Duration = Duration::from_secs(60);
/// How long the last commit is tried when the daemon stops and the disk does not take it, in
/// milliseconds: below the time-out of the service manager.
const STOP_TIMEOUT_MS: u64 = 10_000;
/// A wall clock that is behind by less, in milliseconds, is not worth a line.
const BEHIND_TOLD_MS: u64 = 1_000;
/// Memory maps that a thread needs: its stack, the guard page, and the signal stack's two.
const MAPS_PER_THREAD: u64 = 4;
/// Memory maps that the rest of the process needs.
const MAPS_BESIDE: u64 = 2_000;

impl Daemon {
    /// Starts everything. When this returns, the daemon serves; `None` when it was asked to stop
    /// before it could.
    pub(super) fn start(
        plan: Plan,
        passed: Vec<Passed>,
        log: &Logger,
        level: LevelHandle,
    ) -> Result<Option<Daemon>, DaemonError> {
        let notifier = Notifier::from_environment();
        let Some(prepared) = prepare(&plan, passed, &notifier, log)? else { return Ok(None) };
        let Prepared { signals, notice_sender, notices, bound, loaded, binlog } = prepared;
        let Loaded { database, clock, engine, limits, dropped } = loaded;
        let config = &plan.config;
        let (threads, joiner) = joined_threads(notice_sender.clone());
        let (events, event_receiver) = channels::events();
        let shared = shared(&events, &limits, clock, threads, log);
        let AtStart { memory, store, facts, .. } = database;
        let disk = Disk::start(store, events.clone(), log)?;
        let turns = Arc::new(AtomicU64::new(0));
        let watchdog =
            Watchdog::new(systemd::watchdog_interval(), turns.clone(), disk.progress.clone());
        let health = Arc::<Health>::default();
        let parts = Parts {
            engine,
            journal: disk.journal,
            events: event_receiver,
            orders: disk.orders,
            finished: disk.finished,
            writers: writers(&shared),
            clients: shared.clients.clone(),
            hang_ups: HangUps::new()
                .map_err(|error| DaemonError::System("notice hang-ups", error))?,
            clock,
            limits: limits.clone(),
            budget: shared.budget.clone(),
            admission: shared.admission.clone(),
            progress: disk.progress,
            turns,
            health: health.clone(),
            notices: notice_sender.clone(),
            facts: FactReader::new(random_instance()),
            snapshot_interval_ms: config.storage.snapshot_interval_ms,
            commit_timeout_ms: config.storage.commit_timeout_ms,
            stop_timeout_ms: STOP_TIMEOUT_MS,
            exit_on_io_error: config.storage.on_io_error == OnIoError::Exit,
            min_free_disk: config.storage.min_free_disk,
            log: log.clone(),
        };
        // Nothing else is in the channel yet: they are there before the first connection.
        let _ = events.send(Event::Policies(Arc::new(config.policies.clone())));
        let dispatcher = start_dispatcher(parts, memory, dropped, notice_sender)?;
        let listeners = start_listeners(bound, &shared, facts.secret, log)?;
        info!(log, "ready"; "version" => env!("CARGO_PKG_VERSION"), "messages" => facts.messages);
        notifier.status(&format!("Serving; {} messages at start", facts.messages));
        notifier.ready();
        let (clients, log) = (shared.clients.clone(), log.clone());
        Ok(Some(Daemon {
            plan,
            level,
            limits,
            clients,
            listeners,
            events,
            notices,
            joiner,
            dispatcher,
            persistence: disk.thread,
            signals,
            notifier,
            told: health.line(),
            health,
            watchdog,
            _binlog: binlog,
            log,
        }))
    }
}

/// What is there before any thread of the daemon's own work.
struct Prepared {
    signals: Signals,
    notice_sender: Sender<Notice>,
    notices: crossbeam_channel::Receiver<Notice>,
    bound: Vec<Bound>,
    loaded: Loaded<Held>,
    /// Keeps beanstalkd away from the directory that it has left jobs in.
    binlog: Option<DirectoryLock>,
}

/// Binds all addresses and loads the database, with patience. `None` when the daemon was asked to
/// stop meanwhile.
fn prepare(
    plan: &Plan,
    passed: Vec<Passed>,
    notifier: &Notifier,
    log: &Logger,
) -> Result<Option<Prepared>, DaemonError> {
    let config = &plan.config;
    signals::ignore_fatal_signals()
        .map_err(|error| DaemonError::System("handle signals", error))?;
    run_in_batches(log);
    check_thread_ceiling(config, log);
    warn_of_questionable(config, log);
    let clock = Clock::start();
    let mut bound = inherit(config, passed, plan.passed_sockets_are)?;
    log_replaced(config, &bound, log);
    let (notice_sender, notices) = channels::notices();
    let (signals, stops_at_once) = watch_signals(&notice_sender)
        .map_err(|error| DaemonError::System("handle signals", error))?;
    let waits = systemd::is_supervised(notifier);
    let patience = Patience { waits, stops_at_once, notices: &notices, notifier, clock, log };
    let possible = patience.try_until_possible(|| {
        let own = bind_all(config, &bound)?;
        make_state_directory(config, &plan.environment)?;
        import_binlog(plan, notifier, log)?;
        let database = config.storage.database.as_deref();
        Ok((own, load(config, database, notifier, log)?))
    });
    match possible {
        Ok(Some(((own, left_out), loaded))) => {
            for error in left_out {
                info!(log, "listener address skipped: this system has no such address family"; "error" => %error);
            }
            bound.extend(own);
            let binlog = guard_binlog(plan, log);
            Ok(Some(Prepared { signals, notice_sender, notices, bound, loaded, binlog }))
        }
        Ok(None) => {
            signals.stop();
            Ok(None)
        }
        Err(error) => {
            signals.stop();
            Err(error)
        }
    }
}

/// Has signals told to the main thread, and those that stop the daemon end it at once while the flag
/// holds, which it does from here on.
fn watch_signals(notices: &Sender<Notice>) -> io::Result<(Signals, Arc<AtomicBool>)> {
    let at_once = Arc::new(AtomicBool::new(true));
    // This handler comes first: while the flag holds nobody else hears of the signal.
    signals::stop_at_once_while(&at_once)?;
    Ok((Signals::start(notices.clone())?, at_once))
}

/// What all connections have in common.
fn shared(
    events: &SyncSender<Event>,
    limits: &Arc<Limits>,
    clock: Clock,
    threads: Arc<Threads>,
    log: &Logger,
) -> Arc<Shared> {
    let budget = Arc::new(Budget::default());
    Arc::new(Shared {
        events: events.clone(),
        limits: limits.clone(),
        admission: Arc::new(Admission::new(limits.clone(), budget.clone())),
        budget,
        clock,
        clients: Arc::new(Clients::default()),
        threads,
        log: log.clone(),
    })
}

fn writers(shared: &Shared) -> Arc<Writers> {
    Arc::new(Writers {
        events: shared.events.clone(),
        threads: shared.threads.clone(),
        limits: shared.limits.clone(),
    })
}

/// Has all threads scheduled as batch work: a woken thread then does not interrupt the one that
/// has just woken it, which at one command at a time costs most of the processor's time. All later
/// threads inherit it, but for two: see [`run_at_once`].
fn run_in_batches(log: &Logger) {
    schedule(NormalThreadSchedulePolicy::Batch, log);
}

/// Has the calling thread interrupt others again when it is woken. That of the file is woken once
/// for a whole commit, for which others wait: as batch work it had to wait in its turn, before each
/// commit and behind each fsync, for the time slices of any busy program on the machine. So does
/// everybody wait for the dispatcher, which takes all that has come when it is woken.
fn run_at_once(log: &Logger) {
    schedule(NormalThreadSchedulePolicy::Other, log);
}

/// Sets how the calling thread is scheduled. A refusal does no harm.
fn schedule(policy: NormalThreadSchedulePolicy, log: &Logger) {
    use thread_priority::{set_thread_priority_and_policy, thread_native_id};
    let policy = ThreadSchedulePolicy::Normal(policy);
    let niceness = rustix::process::getpriority_process(None).unwrap_or(0);
    let Some(priority) = priority_of(niceness, policy) else { return };
    let result = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    if let Err(error) = result {
        slog::debug!(log, "not scheduled as asked"; "policy" => ?policy, "error" => ?error);
    }
}

/// What the library calls this niceness: it cannot set the policy without setting that too, and it
/// is the operator's.
fn priority_of(niceness: i32, policy: ThreadSchedulePolicy) -> Option<ThreadPriority> {
    (0..=99_u8)
        .filter_map(|value| value.try_into().ok().map(ThreadPriority::Crossplatform))
        .find(|priority| priority.to_posix(policy).is_ok_and(|found| found == niceness))
}

/// The standard library ends the process when the system has no memory map left for a new
/// thread's signal stack; so the limit on connections must stay below that.
fn check_thread_ceiling(config: &Config, log: &Logger) {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    let Ok(maps_max) = text.trim().parse::<u64>() else { return };
    // A connection has its thread, and a writer's while it does not keep up.
    let threads_max = config.limits.max_connections as u64 * 2;
    if threads_max.saturating_mul(MAPS_PER_THREAD).saturating_add(MAPS_BESIDE) > maps_max {
        warn!(log, "limits.max_connections is too large for vm.max_map_count";
            "max_connections" => config.limits.max_connections, "max_map_count" => maps_max);
    }
}

/// Makes the directory of a database that nobody has chosen a place for.
fn make_state_directory(config: &Config, environment: &Environment) -> Result<(), DaemonError> {
    let Some(database) = &config.storage.database else { return Ok(()) };
    if Some(database) != environment.default_database().as_ref() {
        return Ok(());
    }
    let Some(directory) = database.parent() else { return Ok(()) };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|error| DaemonError::Directory(directory.to_owned(), error))
}

/// The database, and the engine built from it.
struct Loaded<S> {
    database: AtStart<S>,
    clock: Clock,
    engine: Engine,
    limits: Arc<Limits>,
    /// What the engine has dropped because its time was over.
    dropped: Vec<Change>,
}

/// Opens the database and builds the engine from it.
fn load<S: Store>(
    config: &Config,
    at: Option<&S::Whereabouts>,
    notifier: &Notifier,
    log: &Logger,
) -> Result<Loaded<S>, DaemonError> {
    let limits = Arc::new(Limits::new(&config.limits));
    let database = AtStart::<S>::open(at, &mut |messages| {
        notifier.extend_timeout(MORE_TIME);
        notifier.status(&format!("Reading the database; {messages} messages so far"));
    })?;
    let facts = database.facts;
    let clock = Clock::go_on(facts.clock);
    if clock.behind_ms() >= BEHIND_TOLD_MS {
        warn!(log, "the wall clock is behind the database's last commit: time continues from \
            that, and how long the daemon was down is unknown"; "behind_ms" => clock.behind_ms());
    }
    let (engine, dropped) =
        build_engine(&database.memory, &facts, limits.clone(), clock.beginning())?;
    tell_what_was_found(&database, log);
    Ok(Loaded { database, clock, engine, limits, dropped })
}

/// Says what was found, and what was done about it.
fn tell_what_was_found<S: Store>(database: &AtStart<S>, log: &Logger) {
    let Some(store) = &database.store else { return };
    let facts = database.facts;
    info!(log, "database open"; "file" => store.name(), "messages" => facts.messages,
        "clean_stop" => facts.clean_stop);
    if let Some(copy) = &database.log_copy {
        error!(log, "the write-ahead log is damaged before its end, and what is behind the \
            damage is not used; if the power was cut, that was never synced; else stop the \
            daemon and run phpmqd --recover, which brings it back from this copy";
            "copy" => %copy.file.display(), "frames" => copy.frames,
            "messages" => copy.messages, "missing" => copy.missing);
        for dropped in &copy.dropped {
            warn!(log, "an older copy of a damaged write-ahead log was removed: there were \
                too many of them, or the disk is almost full"; "copy" => %dropped.display());
        }
    }
    if facts.migrated {
        info!(log, "database migrated: it was of an earlier format";
            "format" => store::FORMAT_VERSION);
    }
    match facts.renewed {
        Renewed::No => {}
        Renewed::Anew => {
            warn!(log, "database rewritten: the previous run had marked it as suspect");
        }
        Renewed::InPlace => warn!(
            log,
            "database rewritten in place: the previous run had marked it as suspect, and the \
             disk has no room for a new file"
        ),
        Renewed::NotYet => warn!(
            log,
            "database will be rewritten once the disk has room: the previous run had marked \
             it as suspect"
        ),
    }
    if !database.is_connected && facts.renewed == Renewed::No {
        warn!(
            log,
            "the disk has no room for a file beside the database: messages are delivered, \
             changes wait until there is room"
        );
    }
}

/// The dispatcher's ways to the database file.
struct Disk {
    journal: Journal,
    orders: Option<SyncSender<Order>>,
    finished: Receiver<Finished>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Disk {
    /// Starts the thread of the file, if there is one.
    fn start<S: Store + Send + 'static>(
        store: Option<S>,
        events: SyncSender<Event>,
        log: &Logger,
    ) -> Result<Disk, DaemonError> {
        let (order_sender, orders) = channels::orders();
        let (finished_sender, finished) = channels::finished();
        let progress = Arc::new(Progress::default());
        let Some(store) = store else {
            let (journal, orders, thread) = (Journal::new(), None, None);
            return Ok(Disk { journal, orders, finished, progress, thread });
        };
        persistence::look(&store, &progress)?;
        let (told, log) = (progress.clone(), log.clone());
        let thread = std::thread::Builder::new()
            .name("persistence".to_owned())
            .stack_size(SERVICE_STACK_BYTES)
            .spawn(move || {
                let _abort = AbortOnPanic;
                run_at_once(&log);
                persistence::run(store, orders, finished_sender, events, told, log)
            })
            .map_err(|error| DaemonError::System("start a thread", error))?;
        let (journal, orders, thread) = (Journal::new(), Some(order_sender), Some(thread));
        Ok(Disk { journal, orders, finished, progress, thread })
    }
}

fn start_dispatcher(
    parts: Parts,
    memory: store::Connection,
    dropped: Vec<Change>,
    notices: Sender<Notice>,
) -> Result<JoinHandle<Result<Stopped, StoreError>>, DaemonError> {
    std::thread::Builder::new()
        .name("dispatcher".to_owned())
        .stack_size(SERVICE_STACK_BYTES)
        .spawn(move || {
            let _abort = AbortOnPanic;
            run_at_once(&parts.log);
            let result =
                Memory::new(&memory).and_then(|memory| Dispatcher::new(parts, memory).run(dropped));
            // The main thread may be past listening.
            let _ = notices.send(Notice::DispatcherEnded);
            result
        })
        .map_err(|error| DaemonError::System("start a thread", error))
}

/// A random id of this process's life, 16 hexadecimal digits.
fn random_instance() -> String {
    let mut bytes = [0_u8; 8];
    // Without random numbers it is all zero: it only tells two lives of a daemon apart.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_batch_scheduling_keeps_the_niceness() {
        // The library's lowest priority, which was asked for once, is niceness 19: any other
        // program on the machine then came before the daemon.
        for policy in [NormalThreadSchedulePolicy::Batch, NormalThreadSchedulePolicy::Other] {
            let policy = ThreadSchedulePolicy::Normal(policy);
            for niceness in -20..=19 {
                let priority = priority_of(niceness, policy).unwrap();
                assert_eq!(priority.to_posix(policy).unwrap(), niceness);
            }
        }
    }

    #[test]
    fn a_thread_that_is_to_run_at_once_is_no_batch_work_though_its_parent_is() {
        let thread = std::thread::Builder::new().spawn(|| {
            let log = Logger::root(slog::Discard, slog::o!());
            run_in_batches(&log);
            let before = thread_priority::thread_schedule_policy().unwrap();
            run_at_once(&log);
            (before, thread_priority::thread_schedule_policy().unwrap())
        });
        let (before, own) = thread.unwrap().join().unwrap();
        assert_eq!(before, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch));
        assert_eq!(own, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other));
    }
}
