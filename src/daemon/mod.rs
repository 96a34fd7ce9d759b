//! The process: what is started in which order, the main thread's one loop, and the end.
//!
//! ```text
//!   flags, configuration ─► passed sockets ─► log ─► signals
//!     ─► bind, open and load the database (tried again where patience.rs says so)
//!     ─► persistence ─► dispatcher ─► listeners ─► READY ─► main loop
//!     ─► listeners end ─► clients end while the dispatcher serves on ─► last commit ─► exit
//! ```
//!
//! The main thread waits for one channel: signals, ends of threads, and the watchdog's time.

pub mod logging;
pub mod signals;
pub mod systemd;

mod error;
mod import;
mod patience;
mod shutdown;
mod sockets;
mod start;
mod user;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use signal_hook::consts::signal::{SIGHUP, SIGUSR1};
use slog::{Logger, error, info, warn};

use self::logging::LevelHandle;
use self::signals::Signals;
use self::systemd::Notifier;
use crate::binlog::DirectoryLock;
use crate::channels::{Event, Notice};
use crate::config::args::{self, Parting};
use crate::config::beanstalkd::{self, DropIn};
use crate::config::{self, Args, Config, ConfigError, ConfigErrors, Environment};
use crate::dispatcher::{Health, Stopped};
use crate::persistence::Progress;
use crate::protocol::PROTOCOLS;
use crate::store::{self, StoreError};
use crate::wire::clients::Clients;
use crate::wire::listener::Listening;
use crate::wire::threads::{Joiner, Threads};
use crate::words::limits::Limits;

pub use error::DaemonError;

/// Runs the daemon as its command line says, to its end.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let environment = Environment::from_process();
    let task = if words.first().is_some_and(|program| beanstalkd::is_called(program)) {
        beanstalkd_task(words, environment)
    } else {
        phpmqd_task(words, environment)
    };
    let code = match task {
        Ok(task) => task.carry_out(),
        Err(parting) => {
            let to_stderr = parting.exit_code != 0;
            if to_stderr {
                eprint!("{}", parting.text)
            } else {
                print!("{}", parting.text)
            }
            parting.exit_code
        }
    };
    ExitCode::from(code)
}

/// What a command line asks for.
enum Task {
    /// With the host names that do not resolve now.
    Check(Config, Vec<ConfigError>),
    Print(Config),
    Recover(Config),
    Serve(Box<Plan>),
}

/// What is needed to serve.
struct Plan {
    config: Config,
    environment: Environment,
    /// The flags, to read the configuration again; beanstalkd has none to read.
    args: Option<Args>,
    /// The user to become.
    user: Option<String>,
    /// The protocol of all sockets that are passed in, whatever they are called.
    passed_sockets_are: Option<&'static str>,
    /// The directory in which beanstalkd may have left its jobs.
    binlog: Option<PathBuf>,
}

fn phpmqd_task(words: Vec<OsString>, environment: Environment) -> Result<Task, Parting> {
    let args = Args::parse_from_words(words, PROTOCOLS)?;
    let wrong = |errors: ConfigErrors| Parting {
        text: errors.iter().map(|error| format!("phpmqd: {error}\n")).collect(),
        exit_code: errors.exit_code(),
    };
    if args.check_config {
        let (config, unknown) = config::check(&args, &environment).map_err(wrong)?;
        return Ok(Task::Check(config, unknown));
    }
    let config = config::load(&args, &environment).map_err(wrong)?;
    Ok(if args.print_config {
        Task::Print(config)
    } else if args.recover {
        Task::Recover(config)
    } else {
        let args = Some(args);
        Task::Serve(Box::new(Plan {
            config,
            environment,
            args,
            user: None,
            passed_sockets_are: None,
            binlog: None,
        }))
    })
}

fn beanstalkd_task(words: Vec<OsString>, environment: Environment) -> Result<Task, Parting> {
    let DropIn { config, user, binlog } = beanstalkd::load(words, &environment, PROTOCOLS)?;
    let passed_sockets_are = Some(beanstalkd::PROTOCOL);
    let args = None;
    let plan = Plan { config, environment, args, user, passed_sockets_are, binlog };
    Ok(Task::Serve(Box::new(plan)))
}

impl Task {
    fn carry_out(self) -> u8 {
        match self {
            Task::Check(config, unknown) => check(&config, &unknown),
            Task::Print(config) => {
                say(true, &config.print());
                0
            }
            Task::Recover(config) => recover(&config),
            Task::Serve(plan) => serve(*plan).unwrap_or_else(|error| error.exit_code()),
        }
    }
}

/// What `--check-config` says of a valid configuration.
fn check(config: &Config, unknown: &[ConfigError]) -> u8 {
    for error in unknown {
        say(false, &format!("phpmqd: warning: {error}; the service waits until it resolves\n"));
    }
    for questionable in config.questionable() {
        say(false, &format!("phpmqd: warning: {questionable}\n"));
    }
    let source = match &config.source {
        Some(path) => path.display().to_string(),
        None => "no file: defaults and options".to_owned(),
    };
    say(true, &format!("configuration is valid ({source})\n"));
    0
}

fn recover(config: &Config) -> u8 {
    if let Err(error) = signals::ignore_fatal_signals() {
        let error = DaemonError::System("handle signals", error);
        say(false, &format!("phpmqd: {error}\n"));
        return error.exit_code();
    }
    let Some(database) = &config.storage.database else {
        say(false, "phpmqd: nothing is kept on disk, so there is nothing to recover\n");
        return args::EXIT_USAGE;
    };
    match store::recover(database) {
        Ok(recovered) => {
            say(true, &format!("{recovered}\n"));
            0
        }
        Err(error) => {
            // Whoever recovers the service's database by hand has another environment than it.
            let hint = match (&error, config.database_from) {
                (
                    StoreError::MissingDirectory { .. } | StoreError::NoDatabase { .. },
                    Some(from),
                ) => {
                    format!(
                        " (a path from ${from}; the system service has {}: name it with --database)",
                        config::SERVICE_DATABASE
                    )
                }
                _ => String::new(),
            };
            say(false, &format!("phpmqd: {error}{hint}\n"));
            error.exit_code()
        }
    }
}

/// Writes to standard output, or to standard error. A reader that has gone is nobody to tell.
fn say(to_output: bool, text: &str) {
    let _ = if to_output {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
}

fn serve(plan: Plan) -> Result<u8, DaemonError> {
    // Before any thread is started: this takes variables out of the environment, and what a thread
    // may do is its own.
    let passed = systemd::passed_sockets();
    let user = plan.user.as_deref().map_or(Ok(()), user::become_user);
    let (log, level, guard) = logging::start(&plan.config.log);
    let started = user
        .and_then(|()| passed.map_err(DaemonError::Passed))
        .and_then(|passed| Daemon::start(plan, passed, &log, level));
    if let Err(error) = &started {
        slog::crit!(log, "cannot start"; "error" => %error);
    }
    let result = started.and_then(|started| match started {
        Some(daemon) => daemon.serve().inspect_err(|error| {
            slog::crit!(log, "exiting after a fatal error"; "error" => %error);
        }),
        // It was asked to stop before it could start.
        None => Ok(0),
    });
    drop(log);
    drop(guard);
    result
}

/// The daemon as the main thread has it.
struct Daemon {
    plan: Plan,
    level: LevelHandle,
    limits: Arc<Limits>,
    clients: Arc<Clients>,
    listeners: Vec<Listening>,
    events: SyncSender<Event>,
    notices: Receiver<Notice>,
    joiner: Joiner,
    dispatcher: JoinHandle<Result<Stopped, StoreError>>,
    persistence: Option<JoinHandle<Result<(), StoreError>>>,
    signals: Signals,
    notifier: Notifier,
    health: Arc<Health>,
    /// What the service manager was told of it last.
    told: String,
    watchdog: Watchdog,
    /// Keeps beanstalkd away from the directory that it has left jobs in.
    _binlog: Option<DirectoryLock>,
    log: Logger,
}

/// What the service manager's watchdog goes by.
struct Watchdog {
    interval: Option<Duration>,
    dispatcher_turns: Arc<AtomicU64>,
    persistence: Arc<Progress>,
    seen: (u64, u64),
}

impl Watchdog {
    fn new(
        interval: Option<Duration>,
        dispatcher_turns: Arc<AtomicU64>,
        persistence: Arc<Progress>,
    ) -> Watchdog {
        Watchdog { interval, dispatcher_turns, persistence, seen: (0, 0) }
    }

    /// Whether both threads have moved since the last time they were looked at. Persistence that
    /// has nothing to do has an even number of turns.
    fn sees_progress(&mut self) -> bool {
        let now = (self.dispatcher_turns.load(Ordering::Relaxed), self.persistence.turns());
        let before = std::mem::replace(&mut self.seen, now);
        let persistence_moves = now.1.is_multiple_of(2) || now.1 != before.1;
        now.0 != before.0 && persistence_moves
    }
}

impl Daemon {
    /// The main loop.
    fn serve(mut self) -> Result<u8, DaemonError> {
        loop {
            let notice = match self.watchdog.interval {
                None => self.notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(interval) => self.notices.recv_timeout(interval),
            };
            match notice {
                Ok(Notice::Signal(SIGHUP)) => self.reload(),
                Ok(Notice::Signal(SIGUSR1)) => {
                    // The dispatcher empties this channel all the time.
                    let _ = self.events.send(Event::ToggleDrain);
                }
                Ok(Notice::Signal(signal)) => {
                    info!(self.log, "stopping"; "signal" => signal);
                    return self.stop();
                }
                Ok(Notice::ThreadStarted(number, handle)) => self.joiner.started(number, handle),
                Ok(Notice::ThreadEnded(number)) => {
                    self.joiner.ended(number);
                }
                Ok(Notice::DispatcherEnded) => return self.dispatcher_failed(),
                Ok(Notice::HealthChanged) => {}
                Err(RecvTimeoutError::Timeout) => self.watch(),
                // The signals' thread holds a sender until it is stopped.
                Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
            self.tell_health();
        }
    }

    /// Tells the watchdog that all is well, if it is, and gives the dispatcher a reason to turn.
    fn watch(&mut self) {
        if self.watchdog.sees_progress() {
            self.notifier.watchdog();
        }
        // A full channel is reason enough.
        let _ = self.events.try_send(Event::Ping);
    }

    /// Tells the service manager when it is something else than before. Looked at after every
    /// notice, since one that says so may have found the channel full.
    fn tell_health(&mut self) {
        let line = self.health.line();
        if line != self.told {
            self.notifier.status(&line);
            self.told = line;
        }
    }

    /// Takes up what can be taken up of a changed configuration.
    fn reload(&mut self) {
        let Some(args) = &self.plan.args else { return };
        self.notifier.reloading();
        match config::load(args, &self.plan.environment) {
            Ok(new) => {
                self.limits.apply(&new.limits);
                self.level.set(new.log.level);
                for key in self.plan.config.differences_needing_restart(&new) {
                    warn!(self.log, "a changed key needs a restart"; "key" => key);
                }
                warn_of_questionable(&new, &self.log);
                let changed = self.plan.config.differences_applied(&new);
                if self.plan.config.policies != new.policies {
                    // The dispatcher empties this channel all the time.
                    let _ = self.events.send(Event::Policies(Arc::new(new.policies.clone())));
                }
                self.plan.config.limits = new.limits;
                self.plan.config.policies = new.policies;
                self.plan.config.log.level = new.log.level;
                let changed =
                    if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
                info!(self.log, "configuration reloaded"; "changed" => changed);
            }
            Err(error) => {
                error!(self.log, "configuration not reloaded, the old one stays in force";
                    "error" => %error);
            }
        }
        self.notifier.ready();
    }

    /// The dispatcher ended by itself: the file has failed, and that is to be the end.
    fn dispatcher_failed(self) -> Result<u8, DaemonError> {
        // They take the files of their Unix sockets with them.
        for listener in &self.listeners {
            listener.stop();
        }
        for listener in self.listeners {
            listener.join();
        }
        match self.dispatcher.join() {
            Ok(Err(error)) => Err(DaemonError::Store(error)),
            _ => Err(DaemonError::Internal("the dispatcher has ended")),
        }
    }
}

/// Says what is allowed in a configuration, and is hardly meant.
fn warn_of_questionable(config: &Config, log: &Logger) {
    for questionable in config.questionable() {
        warn!(log, "the configuration is questionable"; "reason" => %questionable);
    }
}

/// Ends the process when the thread that holds it panics: a daemon without dispatcher or
/// persistence would listen and do nothing.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// For the main thread: what starts and joins the threads of connections.
fn joined_threads(notices: Sender<Notice>) -> (Arc<Threads>, Joiner) {
    let threads = Threads::new(notices);
    (threads.clone(), Joiner::new(threads))
}
