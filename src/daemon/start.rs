//! Everything up to READY.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Sender;
use slog::{Logger, info, warn};

use super::{AbortOnPanic, Daemon, DaemonError, Watchdog, joined_threads};
use crate::bind::{BindError, BindTo, ListeningSocket, bind};
use crate::change::Change;
use crate::channels::{self, Event, Notice, Profile};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::{Address, Args, Config, Environment, Listener};
use crate::connection::Shared;
use crate::dispatcher::{Dispatcher, Parts};
use crate::engine::Engine;
use crate::engine::load::Loader;
use crate::facts::Facts;
use crate::ids::QueueName;
use crate::journal::Journal;
use crate::limits::{Budget, Limits, SERVICE_STACK_BYTES};
use crate::listener::{self, Listening, Service};
use crate::logging::LevelHandle;
use crate::persistence::{self, Progress};
use crate::protocol::{self, Setup};
use crate::signals::Signals;
use crate::store::{self, Memory, Opened, StoreFile};
use crate::systemd::{self, Notifier, Passed};
use crate::writer::Writers;

/// What systemd is asked for while a large database is read, again with every step.
const MORE_TIME: Duration = Duration::from_secs(60);
/// How long the last commit is tried when the daemon stops and the disk does not take it, in
/// milliseconds: below the time-out of the service manager.
const STOP_TIMEOUT_MS: u64 = 10_000;
/// Memory maps that a thread needs: its stack, the guard page, and the signal stack's two.
const MAPS_PER_THREAD: u64 = 4;
/// Memory maps that the rest of the process needs.
const MAPS_BESIDE: u64 = 2_000;

/// A socket and what is to be spoken there.
struct Bound {
    socket: ListeningSocket,
    listener: Listener,
}

impl Daemon {
    /// Starts everything. When this returns, the daemon serves.
    pub(super) fn start(
        args: Args,
        environment: Environment,
        config: Config,
        passed: Vec<Passed>,
        log: &Logger,
        level: LevelHandle,
    ) -> Result<Daemon, DaemonError> {
        let notifier = Notifier::from_environment();
        run_in_batches(log);
        check_thread_ceiling(&config, log);
        let clock = Clock::start();
        let bound = bind_all(&config, passed)?;
        make_state_directory(&config, &environment)?;
        let (opened, engine, dropped) = load(&config, clock, &notifier, log)?;

        let (notice_sender, notices) = channels::notices();
        let signals = Signals::start(notice_sender.clone())
            .map_err(|error| DaemonError::System("handle signals", error))?;
        let (threads, joiner) = joined_threads(notice_sender.clone());
        let (events, event_receiver) = channels::events();
        let (order_sender, orders) = channels::orders();
        let (finished_sender, finished) = channels::finished();
        let shared = Arc::new(Shared {
            events: events.clone(),
            limits: engine.1.clone(),
            budget: Arc::new(Budget::default()),
            clock,
            clients: Arc::new(Clients::default()),
            threads: threads.clone(),
            log: log.clone(),
        });
        let progress = Arc::new(Progress::default());
        let turns = Arc::new(AtomicU64::new(0));
        let has_file = opened.file.is_some();
        let persistence = match opened.file {
            None => None,
            Some(file) => {
                let channels = (orders, finished_sender, events.clone());
                Some(start_persistence(file, channels, progress.clone(), log.clone())?)
            }
        };
        let parts = Parts {
            engine: engine.0,
            journal: if has_file { Journal::new() } else { Journal::disabled() },
            events: event_receiver,
            orders: has_file.then_some(order_sender),
            finished,
            writers: Arc::new(Writers {
                events: events.clone(),
                threads,
                limits: shared.limits.clone(),
            }),
            clients: shared.clients.clone(),
            clock,
            limits: shared.limits.clone(),
            budget: shared.budget.clone(),
            progress: progress.clone(),
            turns: turns.clone(),
            facts: Facts::new(random_instance()),
            snapshot_interval_ms: config.storage.snapshot_interval_ms,
            commit_timeout_ms: config.storage.commit_timeout_ms,
            stop_timeout_ms: STOP_TIMEOUT_MS,
            log: log.clone(),
        };
        let dispatcher = start_dispatcher(parts, opened.memory, dropped, notice_sender)?;
        let key = opened.facts.message_key;
        let listeners = start_listeners(bound, &shared, key, log)?;
        info!(log, "ready"; "version" => env!("CARGO_PKG_VERSION"),
            "messages" => opened.facts.messages);
        notifier.status(&format!("Serving; {} messages at start", opened.facts.messages));
        notifier.ready();
        Ok(Daemon {
            args,
            environment,
            config,
            level,
            limits: shared.limits.clone(),
            clients: shared.clients.clone(),
            listeners,
            events,
            notices,
            joiner,
            dispatcher,
            persistence,
            signals,
            notifier,
            watchdog: Watchdog {
                interval: systemd::watchdog_interval(),
                dispatcher_turns: turns,
                persistence: progress,
                seen: (0, 0),
            },
            log: log.clone(),
        })
    }
}

/// Has all threads scheduled as batch work: a woken thread then does not interrupt the one that
/// has just woken it, which at one command at a time costs most of the processor's time. All later
/// threads inherit it. A refusal does no harm.
fn run_in_batches(log: &Logger) {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let result = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
    if let Err(error) = result {
        slog::debug!(log, "not scheduled as batch work"; "error" => ?error);
    }
}

/// The standard library ends the process when the system has no memory map left for a new
/// thread's signal stack; so the limit on connections must stay below that.
fn check_thread_ceiling(config: &Config, log: &Logger) {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    let Ok(maps_max) = text.trim().parse::<u64>() else { return };
    // A connection has its thread, and a writer's while it does not keep up.
    let threads_max = config.limits.max_connections as u64 * 2;
    if threads_max.saturating_mul(MAPS_PER_THREAD).saturating_add(MAPS_BESIDE) > maps_max {
        warn!(log, "limits.max_connections is more than vm.max_map_count has room for";
            "max_connections" => config.limits.max_connections, "max_map_count" => maps_max);
    }
}

/// The sockets: passed ones replace the configured listeners of their protocol.
fn bind_all(config: &Config, passed: Vec<Passed>) -> Result<Vec<Bound>, DaemonError> {
    let mut bound = Vec::new();
    let mut replaced: Vec<&'static str> = Vec::new();
    for Passed { name, socket } in passed {
        let protocol =
            protocol::find(&name).ok_or_else(|| DaemonError::PassedName(name.clone()))?;
        let socket = ListeningSocket::inherited(OwnedFd::from(socket))
            .map_err(|error| DaemonError::System("use a passed socket", error))?;
        replaced.push(protocol.name);
        bound.push(Bound { socket, listener: config.listener_for_passed(protocol) });
    }
    for listener in &config.listeners {
        if replaced.contains(&listener.protocol.name) {
            continue;
        }
        for to in bind_targets(listener)? {
            let socket = bind(&to).map_err(|error| bind_error(error, listener))?;
            bound.push(Bound { socket, listener: listener.clone() });
        }
    }
    Ok(bound)
}

fn bind_targets(listener: &Listener) -> Result<Vec<BindTo>, DaemonError> {
    match &listener.address {
        Address::Unix(path) => {
            let group = listener.group.as_deref().map(group_number).transpose()?;
            Ok(vec![BindTo::Unix { path: path.clone(), mode: listener.mode, group }])
        }
        tcp @ Address::Tcp(..) => {
            let found = tcp
                .resolve()
                .map_err(|error| DaemonError::System("resolve a listener's host name", error))?;
            Ok(found.into_iter().map(BindTo::Tcp).collect())
        }
    }
}

/// A group by its name in /etc/group, or by its number.
fn group_number(name: &str) -> Result<u32, DaemonError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| DaemonError::Group(name.to_owned()))
}

fn bind_error(error: BindError, listener: &Listener) -> DaemonError {
    let mut hint = String::new();
    if matches!(error, BindError::InUse(_)) {
        if let BindError::InUse(crate::bind::LocalAddress::Tcp(address)) = &error
            && let Some(owner) = crate::facts::who_listens_on(*address)
        {
            hint = format!(" by {owner}");
        }
        let name = listener.protocol.name;
        hint += &format!("; choose another address with --listen {name}=ADDRESS");
        if listener.from_default && name == "phpmq" {
            hint += " (9100 is also the port of Prometheus's node_exporter)";
        }
    }
    DaemonError::Bind { error, hint }
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

type Loaded = (Opened, (Engine, Arc<Limits>), Vec<Change>);

/// Opens the database and builds the engine from it.
fn load(
    config: &Config,
    clock: Clock,
    notifier: &Notifier,
    log: &Logger,
) -> Result<Loaded, DaemonError> {
    let limits = Arc::new(Limits::new(&config.limits));
    let database = config.storage.database.as_deref();
    let opened = store::open(database, &mut |messages| {
        notifier.extend_timeout(MORE_TIME);
        notifier.status(&format!("Reading the database; {messages} messages so far"));
    })?;
    let facts = opened.facts;
    let engine =
        Engine::new(limits.clone(), facts.next_id, facts.ids_reserved, facts.next_queue_id);
    let loader = std::cell::RefCell::new(Loader::new(engine, clock.now()));
    store::scan(
        &opened.memory,
        |id, name| {
            // The checks at start have refused rows whose names no queue can have.
            if let Ok(name) = QueueName::new(name.as_bytes()) {
                loader.borrow_mut().queue(id, &name);
            }
        },
        |message| loader.borrow_mut().message(&message),
    )?;
    let (engine, dropped) = loader.into_inner().finish();
    if let Some(path) = database {
        info!(log, "database open"; "file" => %path.display(), "messages" => facts.messages,
            "clean_stop" => facts.clean_stop);
    }
    Ok((opened, (engine, limits), dropped))
}

type PersistenceEnds =
    (crossbeam_channel::Receiver<channels::Order>, Sender<channels::Finished>, Sender<Event>);

fn start_persistence(
    file: StoreFile,
    (orders, finished, events): PersistenceEnds,
    progress: Arc<Progress>,
    log: Logger,
) -> Result<std::thread::JoinHandle<Result<(), store::StoreError>>, DaemonError> {
    std::thread::Builder::new()
        .name("persistence".to_owned())
        .stack_size(SERVICE_STACK_BYTES)
        .spawn(move || {
            let _abort = AbortOnPanic;
            persistence::run(file, orders, finished, events, progress, log)
        })
        .map_err(|error| DaemonError::System("start a thread", error))
}

fn start_dispatcher(
    parts: Parts,
    memory: store::Connection,
    dropped: Vec<Change>,
    notices: Sender<Notice>,
) -> Result<
    std::thread::JoinHandle<Result<crate::dispatcher::Stopped, store::StoreError>>,
    DaemonError,
> {
    std::thread::Builder::new()
        .name("dispatcher".to_owned())
        .stack_size(SERVICE_STACK_BYTES)
        .spawn(move || {
            let _abort = AbortOnPanic;
            let result =
                Memory::new(&memory).and_then(|memory| Dispatcher::new(parts, memory).run(dropped));
            // The main thread may be past listening.
            let _ = notices.send(Notice::DispatcherEnded);
            result
        })
        .map_err(|error| DaemonError::System("start a thread", error))
}

fn start_listeners(
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
    message_key: [u8; 16],
    log: &Logger,
) -> Result<Vec<Listening>, DaemonError> {
    let mut listening = Vec::new();
    for (number, Bound { socket, listener }) in bound.into_iter().enumerate() {
        let profile = Profile {
            protocol: listener.protocol,
            durability: listener.durability,
            ack_timeout_ms: listener.ack_timeout_ms,
        };
        let limits = shared.limits.clone();
        let setup = Setup { limits, message_key, revision: listener.revision };
        let started = listener::start(number, socket, Service { profile, setup }, shared.clone())
            .map_err(|error| DaemonError::System("start a listener", error))?;
        info!(log, "listening"; "protocol" => profile.protocol.name,
            "address" => %started.local_address());
        listening.push(started);
    }
    Ok(listening)
}

/// A random id of this process's life, 16 hexadecimal digits.
fn random_instance() -> String {
    let mut bytes = [0_u8; 8];
    // Without random numbers it is all zero: it only tells two lives of a daemon apart.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
