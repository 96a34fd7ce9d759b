//! The configuration: flags over file over defaults, checked once, before anything is started.
//!
//! `args.rs` is the command line as typed, `file.rs` the file as typed; what the daemon uses is the
//! [`Config`] that comes out here, in which nothing is left to be decided. Nothing in here changes
//! anything outside: `--check-config` stops after it. The contract is phpmqd.toml(5).

use std::fmt;
use std::path::PathBuf;

use crate::protocol::options::OptionValues;
use crate::protocol::{PROTOCOLS, Protocol};
use crate::words::durability::Durability;
use crate::words::limits::{LimitValues, body_bytes_ever};
use crate::words::policy::Policies;

pub mod address;
pub mod args;
pub mod beanstalkd;
pub mod error;
pub mod file;
mod group;
mod listeners;
mod meaning;
mod memory;
mod mistakes;
mod nearest;
mod policies;
mod print;
mod resolve;
mod syntax;
pub mod values;

pub use address::Address;
pub use args::Args;
pub use error::{ConfigError, ConfigErrors, Location};
pub use file::{LogFormat, LogLevel, OnIoError};
pub use group::group_number;
pub use resolve::Resolver;

/// Where the configuration file is looked for when no flag names one.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/phpmq/phpmqd.toml";
/// Where the system service of the unit file provided keeps its database.
pub const SERVICE_DATABASE: &str = "/var/lib/phpmq/phpmq.db";
/// The name of the database in the state directory.
pub const DATABASE_NAME: &str = "phpmq.db";

/// What the daemon is configured to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from, if any.
    pub source: Option<PathBuf>,
    /// The variable of the environment that the database's place comes from, when nothing says
    /// where it is.
    pub database_from: Option<&'static str>,
    /// Where messages are kept and what an answer promises.
    pub storage: Storage,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Bounds, and what messages get that bring no values of their own.
    pub limits: LimitValues,
    /// `limits.max_memory` as it was typed, in bytes, where the limits of the process leave less.
    pub memory_typed: Option<u64>,
    /// What becomes of messages whose processing fails.
    pub policies: Policies,
    /// What is logged, and how.
    pub log: Log,
}

/// What may be configured, and is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Questionable {
    /// Messages of the size that is allowed never find room: this is the largest that does.
    MessageSize {
        /// `limits.max_memory`, in bytes.
        memory: u64,
        /// The largest message that is accepted, in bytes.
        accepted: u64,
    },
    /// An allocation beyond the limits of the process would end it.
    Memory {
        /// `limits.max_memory` as it was typed, in bytes.
        typed: u64,
        /// What is used instead, in bytes.
        used: u64,
    },
    /// All queues that a policy is for are those of an earlier one.
    PolicyWithoutQueues {
        /// The pattern of its queues.
        queues: String,
        /// The pattern of the earlier one.
        shadowed_by: String,
    },
}

impl fmt::Display for Questionable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Questionable::MessageSize { memory, accepted } => write!(
                f,
                "limits.max_message_size exceeds what limits.max_memory ({memory} bytes) can hold: \
                 messages of more than {accepted} bytes are refused"
            ),
            Questionable::Memory { typed, used } => write!(
                f,
                "limits.max_memory ({typed} bytes) exceeds a quarter of what the limits of the \
                 process (ulimit -v, ulimit -d) allow: {used} bytes are used instead"
            ),
            Questionable::PolicyWithoutQueues { queues, shadowed_by } => write!(
                f,
                "the [[policy]] for {queues:?} applies to no queue, since the one for \
                 {shadowed_by:?} stands before it: the first that matches applies"
            ),
        }
    }
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The database file; `None` keeps nothing on disk.
    pub database: Option<PathBuf>,
    /// What an answer promises, where a listener says nothing else.
    pub durability: Durability,
    /// The tick, in milliseconds; at least 1.
    pub snapshot_interval_ms: u64,
    /// How long an answer is held when the disk does not take it, in milliseconds.
    pub commit_timeout_ms: u64,
    /// What is done when the disk fails otherwise than by being full.
    pub on_io_error: OnIoError,
    /// Free bytes on the disk below which puts are refused.
    pub min_free_disk: u64,
}

/// `[[listener]]`
#[derive(Clone)]
pub struct Listener {
    /// What is spoken.
    pub protocol: &'static Protocol,
    /// Where.
    pub address: Address,
    /// What an answer promises.
    pub durability: Durability,
    /// Whether other machines may reach it.
    pub allow_remote: bool,
    /// The options that its protocol alone has.
    pub options: OptionValues,
    /// How long a window's oldest message may stay unacknowledged, in milliseconds; 0 = for ever.
    pub ack_timeout_ms: u64,
    /// The permissions of a Unix socket.
    pub mode: u32,
    /// The group of a Unix socket; `None` leaves the daemon's.
    pub group: Option<String>,
    /// Whether nobody asked for it: it is there because nothing is configured.
    pub from_default: bool,
    /// Where its address was read.
    pub place: Location,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// What the configuration takes from the process's surroundings; tests make their own.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$STATE_DIRECTORY`, set by systemd; several directories are separated by colons.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, set by systemd, likewise.
    pub runtime_directory: Option<PathBuf>,
    /// `$XDG_STATE_HOME`
    pub xdg_state_home: Option<PathBuf>,
    /// `$HOME`
    pub home: Option<PathBuf>,
    /// The file that is read when no flag names one, if it exists.
    pub default_config: Option<PathBuf>,
    /// The machine's memory in bytes, where it is known.
    pub machine_bytes: Option<u64>,
    /// The largest `limits.max_memory` that the limits of the process leave room for, in bytes,
    /// where there are any.
    pub process_bytes: Option<u64>,
    /// Where `/proc` and `/sys` are: `/`.
    pub root: PathBuf,
}

impl Environment {
    /// The surroundings of this process.
    pub fn from_process() -> Environment {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Environment {
            state_directory: path("STATE_DIRECTORY"),
            runtime_directory: path("RUNTIME_DIRECTORY"),
            xdg_state_home: path("XDG_STATE_HOME"),
            home: path("HOME"),
            default_config: Some(PathBuf::from(DEFAULT_CONFIG_PATH)),
            machine_bytes: memory::machine_bytes(),
            process_bytes: memory::process_bytes(),
            root: PathBuf::from("/"),
        }
    }

    /// Where the database is kept when nobody says where.
    pub fn default_database(&self) -> Option<PathBuf> {
        self.default_place().map(|(path, _)| path)
    }

    /// The same with the variable that says so.
    fn default_place(&self) -> Option<(PathBuf, &'static str)> {
        let systemd = self.state_directory.as_ref().and_then(|list| {
            let first = std::env::split_paths(list).next()?;
            Some((first, "STATE_DIRECTORY"))
        });
        // The XDG base directory specification: paths that are not absolute are ignored.
        let xdg = self.xdg_state_home.as_ref().filter(|path| path.is_absolute());
        let home = || self.home.as_ref().map(|home| (home.join(".local/state/phpmq"), "HOME"));
        let (directory, variable) = systemd
            .or_else(|| xdg.map(|path| (path.join("phpmq"), "XDG_STATE_HOME")))
            .or_else(home)?;
        Some((directory.join(DATABASE_NAME), variable))
    }
}

/// Works out the configuration from flags, file and surroundings.
///
/// # Errors
/// All that is wrong with it.
pub fn load(args: &Args, environment: &Environment) -> Result<Config, ConfigErrors> {
    load_with(args, environment, PROTOCOLS)
}

/// The same with another table of protocols.
///
/// # Errors
/// All that is wrong with it.
pub fn load_with(
    args: &Args,
    environment: &Environment,
    protocols: &'static [Protocol],
) -> Result<Config, ConfigErrors> {
    meaning::config(args, environment, protocols)
}

/// Checks the configuration as far as that goes without starting anything: host names are resolved.
/// With it come the names that do not resolve now.
///
/// # Errors
/// All that is wrong with it.
pub fn check(
    args: &Args,
    environment: &Environment,
) -> Result<(Config, Vec<ConfigError>), ConfigErrors> {
    meaning::check(args, environment, PROTOCOLS)
}

impl Config {
    /// The configuration as a file that says all of it.
    pub fn print(&self) -> String {
        print::config(self)
    }

    /// What is hardly meant, for `--check-config` and the log.
    pub fn questionable(&self) -> Vec<Questionable> {
        let LimitValues { max_memory: memory, max_message_size, .. } = self.limits;
        let accepted = body_bytes_ever(memory);
        let size = (max_message_size as u64 > accepted)
            .then_some(Questionable::MessageSize { memory, accepted });
        let typed = self.memory_typed;
        let cut = typed.map(|typed| Questionable::Memory { typed, used: memory });
        let shadowed = self.policies.shadowed().map(|(queues, by)| {
            let [queues, shadowed_by] = [queues, by].map(ToString::to_string);
            Questionable::PolicyWithoutQueues { queues, shadowed_by }
        });
        cut.into_iter().chain(size).chain(shadowed).collect()
    }

    /// What a socket of this protocol that was passed in is to be: as the first configured listener
    /// of the protocol, else with the defaults.
    pub fn listener_for_passed(&self, protocol: &'static Protocol) -> Listener {
        let configured = self.listeners.iter().find(|l| l.protocol.name == protocol.name);
        configured
            .cloned()
            .unwrap_or_else(|| listeners::unaddressed(protocol, self.storage.durability))
    }

    /// The keys in which `new` differs and that a running daemon takes up.
    pub fn differences_applied(&self, new: &Config) -> Vec<&'static str> {
        let (old, now) = (&self.limits, &new.limits);
        let per_peer = old.max_connections_per_peer != now.max_connections_per_peer;
        let differences = [
            ("limits.max_connections", old.max_connections != now.max_connections),
            ("limits.max_connections_per_peer", per_peer),
            ("limits.max_message_size", old.max_message_size != now.max_message_size),
            ("limits.max_memory", old.max_memory != now.max_memory),
            ("limits.max_queues", old.max_queues != now.max_queues),
            ("limits.max_window", old.max_window != now.max_window),
            ("limits.max_output", old.max_output != now.max_output),
            ("limits.frame_timeout", old.frame_timeout_ms != now.frame_timeout_ms),
            ("limits.write_timeout", old.write_timeout_ms != now.write_timeout_ms),
            ("limits.idle_timeout", old.idle_timeout_ms != now.idle_timeout_ms),
            ("limits.keepalive", old.keepalive_ms != now.keepalive_ms),
            ("limits.tcp_user_timeout", old.tcp_user_timeout_ms != now.tcp_user_timeout_ms),
            ("queue.priority", old.priority != now.priority),
            ("queue.time_to_run", old.time_to_run_ms != now.time_to_run_ms),
            ("policy", self.policies != new.policies),
            ("log.level", self.log.level != new.log.level),
        ];
        differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
    }

    /// The keys in which `new` differs and that a running daemon does not take up.
    pub fn differences_needing_restart(&self, new: &Config) -> Vec<&'static str> {
        let (old_storage, new_storage) = (&self.storage, &new.storage);
        let differences = [
            ("storage.database", old_storage.database != new_storage.database),
            ("storage.durability", old_storage.durability != new_storage.durability),
            (
                "storage.snapshot_interval",
                old_storage.snapshot_interval_ms != new_storage.snapshot_interval_ms,
            ),
            (
                "storage.commit_timeout",
                old_storage.commit_timeout_ms != new_storage.commit_timeout_ms,
            ),
            ("storage.on_io_error", old_storage.on_io_error != new_storage.on_io_error),
            ("storage.min_free_disk", old_storage.min_free_disk != new_storage.min_free_disk),
            ("listener", self.listeners != new.listeners),
            ("log.format", self.log.format != new.log.format),
        ];
        differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
    }
}

/// Where it came from is no part of what it is.
impl PartialEq for Config {
    fn eq(&self, other: &Config) -> bool {
        self.storage == other.storage
            && self.listeners == other.listeners
            && self.limits == other.limits
            && self.policies == other.policies
            && self.log == other.log
    }
}

/// Where it came from is no part of what it is; protocols are the same when their names are.
impl PartialEq for Listener {
    fn eq(&self, other: &Listener) -> bool {
        self.protocol.name == other.protocol.name
            && self.address == other.address
            && self.durability == other.durability
            && self.allow_remote == other.allow_remote
            && self.options == other.options
            && self.ack_timeout_ms == other.ack_timeout_ms
            && self.mode == other.mode
            && self.group == other.group
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("protocol", &self.protocol.name)
            .field("address", &self.address)
            .field("durability", &self.durability)
            .field("allow_remote", &self.allow_remote)
            .field("options", &self.options)
            .field("ack_timeout_ms", &self.ack_timeout_ms)
            .field("mode", &self.mode)
            .field("group", &self.group)
            .field("from_default", &self.from_default)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::options::{OptionValue, ProtocolOption};
    use crate::protocol::{Halves, Manner, Setup};
    use std::borrow::Cow;

    fn connect(_: &Setup) -> Halves {
        unreachable!("the configuration connects nobody")
    }

    pub(crate) const fn row(name: &'static str, default_address: &'static str) -> Protocol {
        Protocol {
            name,
            default_address,
            default_socket: None,
            port_shared_with: None,
            manner: Manner::Streaming,
            first_queue: None,
            options: &[],
            connect,
            too_many_connections: b"",
        }
    }

    /// An option of one protocol.
    const REVISION: ProtocolOption = ProtocolOption {
        name: "revision",
        takes: "\"auto\", 1 or 2",
        default: OptionValue::Text(Cow::Borrowed("auto")),
        accepts: |value| *value != OptionValue::Number(3),
    };

    /// A table that stands for the real one.
    pub(crate) static TABLE: &[Protocol] = &[
        Protocol { options: &[REVISION], ..row("phpmq", "127.0.0.1:9100") },
        row("console", "127.0.0.1:9101"),
        row("beanstalk", "127.0.0.1:11300"),
    ];

    /// Surroundings with a home directory and nothing else.
    pub(crate) fn environment() -> Environment {
        Environment {
            home: Some(PathBuf::from("/home/somebody")),
            root: PathBuf::from("/nonexistent"),
            ..Environment::default()
        }
    }

    /// Loads a file of this text with these flags.
    pub(crate) fn load_text(text: &str, args: &Args) -> Result<Config, ConfigErrors> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("phpmqd.toml");
        std::fs::write(&path, text).unwrap();
        let args = Args { config: Some(path), ..args.clone() };
        load_with(&args, &environment(), TABLE)
    }

    /// Loads a file of this text; an error is what it says behind the path, which is another one
    /// each time.
    pub(crate) fn load(text: &str) -> Result<Config, String> {
        load_text(text, &Args::default()).map_err(|error| {
            assert_eq!(error.exit_code(), 78);
            let text = error.to_string();
            text.split_once("phpmqd.toml:").map_or(text.clone(), |(_, rest)| rest.to_owned())
        })
    }

    fn database(environment: &Environment) -> PathBuf {
        load_with(&Args::default(), environment, TABLE).unwrap().storage.database.unwrap()
    }

    #[test]
    fn without_a_file_every_protocol_listens_at_its_default_address() {
        let config = load_with(&Args::default(), &environment(), TABLE).unwrap();
        let addresses: Vec<String> =
            config.listeners.iter().map(|listener| listener.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:9100", "127.0.0.1:9101", "127.0.0.1:11300"]);
        assert!(config.listeners.iter().all(|listener| listener.from_default));
        assert_eq!(config.source, None);
    }

    #[test]
    fn the_database_lies_in_the_first_state_directory_that_is_known() {
        let mut environment = environment();
        let home = "/home/somebody/.local/state/phpmq/phpmq.db";
        assert_eq!(database(&environment), PathBuf::from(home));
        environment.xdg_state_home = Some("relative".into());
        assert_eq!(database(&environment), PathBuf::from(home));
        environment.xdg_state_home = Some("/xdg".into());
        assert_eq!(database(&environment), PathBuf::from("/xdg/phpmq/phpmq.db"));
        environment.state_directory = Some("/var/lib/phpmq:/var/lib/other".into());
        assert_eq!(database(&environment), PathBuf::from("/var/lib/phpmq/phpmq.db"));
    }

    #[test]
    fn without_any_state_directory_a_path_is_demanded() {
        let environment = Environment { home: None, ..environment() };
        let error = load_with(&Args::default(), &environment, TABLE).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().starts_with("storage.database: no place for"), "{error}");
        let args = Args { database: Some(PathBuf::new()), ..Args::default() };
        assert_eq!(load_with(&args, &environment, TABLE).unwrap().storage.database, None);
    }

    #[test]
    fn the_default_file_is_read_if_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("phpmqd.toml");
        let environment = Environment { default_config: Some(path.clone()), ..environment() };
        let load = || load_with(&Args::default(), &environment, TABLE);
        assert_eq!(load().unwrap().source, None);
        std::fs::write(&path, "[queue]\npriority = 7\n").unwrap();
        assert_eq!(load().unwrap().source, Some(path));
        assert_eq!(load().unwrap().limits.priority, 7);
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let args = Args { config: Some("/nonexistent/x.toml".into()), ..Args::default() };
        let error = load_with(&args, &environment(), TABLE).unwrap_err();
        assert_eq!(error.exit_code(), 78);
    }

    #[test]
    fn messages_that_memory_has_no_room_for_are_questionable() {
        let questionable = |text: &str| load_text(text, &Args::default()).unwrap().questionable();
        assert_eq!(questionable(""), []);
        assert_eq!(questionable("[limits]\nmax_memory = \"64MiB\"\n"), []);
        let (memory, accepted) = (16 << 20, (15 << 20) - 200);
        let size = Questionable::MessageSize { memory, accepted };
        assert_eq!(questionable("[limits]\nmax_memory = \"16MiB\"\n"), [size]);
    }

    #[test]
    fn no_limit_of_memory_is_beyond_those_of_the_process() {
        let least = Environment { process_bytes: Some(20 << 20), ..environment() };
        let load = |text: &str, environment: &Environment| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x.toml");
            std::fs::write(&path, text).unwrap();
            let args = Args { config: Some(path), ..Args::default() };
            load_with(&args, environment, TABLE).unwrap()
        };
        let config = load("[limits]\nmax_memory = \"64MiB\"\n", &least);
        assert_eq!(config.limits.max_memory, 20 << 20);
        let cut = Questionable::Memory { typed: 64 << 20, used: 20 << 20 };
        assert_eq!(config.questionable(), [cut]);
        let config = load("", &least);
        assert_eq!((config.limits.max_memory, config.questionable()), (20 << 20, vec![]));
        let much = Environment { process_bytes: Some(64 << 20), ..environment() };
        let config = load("[limits]\nmax_memory = \"64MiB\"\n", &much);
        assert_eq!((config.limits.max_memory, config.questionable()), (64 << 20, vec![]));
    }

    /// Every key of the file, set to something that is not its default, is named in one of the lists.
    #[test]
    fn every_changed_key_is_named() {
        let old = load_text("", &Args::default()).unwrap();
        let mut keys = 0;
        for (section, names) in file::SECTIONS.iter() {
            let once = !file::SEVERAL.contains(section);
            for name in names.iter().filter(|_| once) {
                let value = match *name {
                    "database" => "\"/elsewhere\"",
                    "durability" => "\"sync\"",
                    "on_io_error" => "\"exit\"",
                    "level" => "\"debug\"",
                    "format" => "\"plain\"",
                    times if times.ends_with("timeout") || times.ends_with("interval") => "\"77s\"",
                    "keepalive" | "time_to_run" => "\"77s\"",
                    _ => "77777",
                };
                let text = format!("[{section}]\n{name} = {value}\n");
                let new = load_text(&text, &Args::default()).unwrap();
                let mut named = old.differences_applied(&new);
                assert_eq!(
                    named.is_empty(),
                    ["storage.", "log.format"]
                        .iter()
                        .any(|start| { format!("{section}.{name}").starts_with(start) })
                );
                named.extend(old.differences_needing_restart(&new));
                named.retain(|named| *named != "listener");
                assert_eq!(named, [format!("{section}.{name}")]);
                keys += 1;
            }
        }
        assert!(keys > 20, "{keys}");
    }

    #[test]
    fn what_a_running_daemon_does_not_take_up_is_named() {
        let old = load_text("", &Args::default()).unwrap();
        let reloadable = "[limits]\nmax_window = 5\n[queue]\npriority = 1\n\
                          [[policy]]\nqueues = \"*\"\n[log]\nlevel = \"warn\"";
        let new = load_text(reloadable, &Args::default()).unwrap();
        assert_eq!(old.differences_needing_restart(&new), Vec::<&str>::new());
        let applied = ["limits.max_window", "queue.priority", "policy", "log.level"];
        assert_eq!(old.differences_applied(&new), applied);
        let text = "[storage]\nsnapshot_interval = \"1s\"\nmin_free_disk = 1\n\
                    [[listener]]\nprotocol = \"phpmq\"\naddress = \"127.0.0.1:1\"\n\
                    [log]\nformat = \"plain\"";
        let new = load_text(text, &Args::default()).unwrap();
        assert_eq!(
            old.differences_needing_restart(&new),
            ["storage.snapshot_interval", "storage.min_free_disk", "listener", "log.format"]
        );
    }
}
