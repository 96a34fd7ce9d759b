//! From what was typed to what is meant: defaults, bounds, and what values mean together.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::PathBuf;

use toml::Spanned;

use super::error::{ConfigError, ConfigErrors, ConfigFault, Location};
use super::file::{self, ConfigFile, LogFormat, LogLevel, OnIoError, Sections};
use super::values::{Bytes, Count, Millis};
use super::{Args, Config, Environment, Log, Resolver, Storage, memory};
use crate::protocol::Protocol;
use crate::words::durability::Durability;
use crate::words::limits::LimitValues;

/// The largest body that may be configured: SQLite's rows end at 1,000,000,000 bytes.
pub(super) const MESSAGE_SIZE_MOST: Bytes = Bytes(900 << 20);
/// The least memory that the daemon works with.
const MEMORY_LEAST: Bytes = Bytes(64 << 10);
/// The longest snapshot interval: what a power cut may cost.
const HOUR: Millis = Millis(3_600_000);
/// A year, which no bounded time-out has a reason to pass.
const YEAR: Millis = Millis(365 * 86_400_000);
/// The longest idle time that TCP's keepalive takes.
const KEEPALIVE_MOST: Millis = Millis(32_767_000);
/// The longest TCP_USER_TIMEOUT that fits its type, in whole days.
const USER_TIMEOUT_MOST: Millis = Millis(24 * 86_400_000);

/// SQLite's name for a database that is no file, which PHPMQ took too.
const IN_MEMORY: &str = ":memory:";

/// What a number may be.
pub(super) struct Bounds<T> {
    zero: bool,
    min: T,
    max: T,
}

/// From `min` to `max`.
pub(super) fn within<T>(min: T, max: T) -> Bounds<T> {
    Bounds { zero: false, min, max }
}

/// From `min` to `max`, or 0 with a meaning of its own.
pub(super) fn zero_or<T>(min: T, max: T) -> Bounds<T> {
    Bounds { zero: true, min, max }
}

/// What a configuration is worked out from.
pub(super) struct Checker<'a> {
    pub(super) args: &'a Args,
    pub(super) environment: &'a Environment,
    pub(super) protocols: &'static [Protocol],
    pub(super) file: Option<&'a ConfigFile>,
    mistakes: RefCell<Vec<ConfigError>>,
}

/// Works out the whole configuration.
///
/// # Errors
/// All that is wrong with it, as far as no name must be resolved to tell.
pub fn config(
    args: &Args,
    environment: &Environment,
    protocols: &'static [Protocol],
) -> Result<Config, ConfigErrors> {
    let (config, mistakes) = work_out(args, environment, protocols)?;
    ConfigErrors::none_or(mistakes).map(|()| config)
}

/// The same for `--check-config`, which resolves host names too. With the configuration come the
/// names that do not resolve now.
///
/// # Errors
/// All that is wrong with it.
pub fn check(
    args: &Args,
    environment: &Environment,
    protocols: &'static [Protocol],
) -> Result<(Config, Vec<ConfigError>), ConfigErrors> {
    let (config, mut mistakes) = work_out(args, environment, protocols)?;
    let mut resolver = Resolver::default();
    let resolved = config.listeners.iter().map(|listener| resolver.add(listener));
    let (unknown, wrong): (Vec<_>, Vec<_>) =
        resolved.filter_map(Result::err).partition(ConfigError::is_unknown_host);
    mistakes.extend(wrong);
    ConfigErrors::none_or(mistakes).map(|()| (config, unknown))
}

/// The configuration as far as it is right, and what is wrong with it.
fn work_out(
    args: &Args,
    environment: &Environment,
    protocols: &'static [Protocol],
) -> Result<(Config, Vec<ConfigError>), ConfigErrors> {
    let path = args.config.clone().or_else(|| {
        // An error other than "not there" is met again, and told, when the file is read.
        environment.default_config.clone().filter(|path| path.try_exists().unwrap_or(true))
    });
    let (file, mistakes) = match path.as_deref().map(ConfigFile::read).transpose()? {
        Some((file, mistakes)) => (Some(file), mistakes),
        None => (None, Vec::new()),
    };
    let mistakes = RefCell::new(mistakes);
    let checker = Checker { args, environment, protocols, file: file.as_ref(), mistakes };
    let nothing = Sections::default();
    let sections = file.as_ref().map_or(&nothing, |file| &file.sections);
    let storage = checker.storage(&sections.storage);
    let mut limits = checker.limits(&sections.limits, &sections.queue);
    let most = environment.process_bytes.map_or(u64::MAX, |most| most.max(MEMORY_LEAST.0));
    let memory_typed = (limits.max_memory > most).then_some(limits.max_memory);
    limits.max_memory = limits.max_memory.min(most);
    let config = Config {
        listeners: checker.listeners(&sections.listener, storage.durability),
        limits,
        memory_typed,
        policies: checker.policies(&sections.policy),
        log: checker.log(&sections.log),
        source: path,
        database_from: checker.database_from(&sections.storage.database),
        storage,
    };
    for again in file.iter().flat_map(|file| &file.repeated) {
        // Only for what is wrong with it.
        checker.storage(&again.storage);
        checker.limits(&again.limits, &again.queue);
    }
    Ok((config, checker.mistakes.into_inner()))
}

impl Checker<'_> {
    /// Remembers a mistake, unless what is wrong there has been said better.
    pub(super) fn report(&self, error: ConfigError) {
        if !self.file.is_some_and(|file| file.is_moot(&error)) {
            self.mistakes.borrow_mut().push(error);
        }
    }

    /// Remembers a fault of what was typed at a key.
    pub(super) fn fail<T>(&self, key: &'static str, typed: &Spanned<T>, fault: ConfigFault) {
        let place = match self.file {
            Some(file) => file.place(key.to_owned(), typed.span()),
            None => Location::Defaults(key),
        };
        self.report(ConfigError { place, fault });
    }

    /// Sets a value to what was typed, if anything was and it is within its bounds.
    pub(super) fn set<T, V>(
        &self,
        key: &'static str,
        typed: &Option<Spanned<T>>,
        bounds: Bounds<T>,
        value: &mut V,
    ) where
        T: Copy + Ord + Display + Default + Into<u64>,
        V: TryFrom<u64>,
    {
        let Some(typed) = typed else { return };
        let number = *typed.get_ref();
        let zero = bounds.zero && number == T::default();
        if number < bounds.min && !zero {
            return self.fail(key, typed, ConfigFault::TooSmall(bounds.min.to_string()));
        }
        match V::try_from(number.into()) {
            Ok(number_of_type) if number <= bounds.max => *value = number_of_type,
            _ => self.fail(key, typed, ConfigFault::TooLarge(bounds.max.to_string())),
        }
    }

    fn storage(&self, typed: &file::Storage) -> Storage {
        let durability = self.args.durability.or_else(|| plain(&typed.durability));
        let mut storage = Storage {
            database: self.database(&typed.database),
            durability: durability.unwrap_or(Durability::Write),
            snapshot_interval_ms: 50,
            commit_timeout_ms: 5_000,
            on_io_error: plain(&typed.on_io_error).unwrap_or(OnIoError::Rewrite),
            min_free_disk: 64 << 20,
        };
        self.set(
            "storage.snapshot_interval",
            &typed.snapshot_interval,
            within(Millis(1), HOUR),
            &mut storage.snapshot_interval_ms,
        );
        self.set(
            "storage.commit_timeout",
            &typed.commit_timeout,
            within(Millis(1), YEAR),
            &mut storage.commit_timeout_ms,
        );
        self.set(
            "storage.min_free_disk",
            &typed.min_free_disk,
            within(Bytes(0), Bytes(u64::MAX)),
            &mut storage.min_free_disk,
        );
        storage
    }

    /// The variable that the database's place comes from, unless somebody has said where it is.
    fn database_from(&self, typed: &Option<Spanned<String>>) -> Option<&'static str> {
        let told = self.args.database.is_some() || typed.is_some();
        if told { None } else { self.environment.default_place().map(|(_, variable)| variable) }
    }

    /// The database's path; `None` keeps nothing on disk.
    fn database(&self, typed: &Option<Spanned<String>>) -> Option<PathBuf> {
        let typed = typed.as_ref().map(|text| PathBuf::from(text.get_ref()));
        let path = self.args.database.clone().or(typed);
        let path = path.or_else(|| self.environment.default_database());
        if path.is_none() {
            let place = Location::Defaults("storage.database");
            self.report(ConfigError { place, fault: ConfigFault::NoStateDirectory });
        }
        path.filter(|path| !path.as_os_str().is_empty() && path.as_os_str() != IN_MEMORY)
    }

    fn limits(&self, typed: &file::Limits, queue: &file::Queue) -> LimitValues {
        let mut values = LimitValues { max_memory: 0, ..LimitValues::default() };
        self.counts(typed, queue, &mut values);
        self.sizes(typed, &mut values);
        self.times(typed, queue, &mut values);
        if values.max_memory == 0 {
            let Environment { machine_bytes, process_bytes, root, .. } = self.environment;
            let half = memory::available_bytes(*machine_bytes, root) / 2;
            let most = process_bytes.unwrap_or(u64::MAX);
            values.max_memory = half.min(most).max(MEMORY_LEAST.0);
        }
        values
    }

    fn counts(&self, typed: &file::Limits, queue: &file::Queue, values: &mut LimitValues) {
        let million = Count(1_000_000);
        let u32_max = Count(u64::from(u32::MAX));
        self.set(
            "limits.max_connections",
            &typed.max_connections,
            within(Count(1), million),
            &mut values.max_connections,
        );
        self.set(
            "limits.max_connections_per_peer",
            &typed.max_connections_per_peer,
            within(Count(0), million),
            &mut values.max_connections_per_peer,
        );
        self.set(
            "limits.max_queues",
            &typed.max_queues,
            within(Count(1), u32_max),
            &mut values.max_queues,
        );
        self.set(
            "limits.max_window",
            &typed.max_window,
            within(Count(1), u32_max),
            &mut values.max_window,
        );
        self.set(
            "queue.priority",
            &queue.priority,
            within(Count(0), u32_max),
            &mut values.priority,
        );
    }

    fn sizes(&self, typed: &file::Limits, values: &mut LimitValues) {
        self.set(
            "limits.max_message_size",
            &typed.max_message_size,
            within(Bytes(1), MESSAGE_SIZE_MOST),
            &mut values.max_message_size,
        );
        self.set(
            "limits.max_memory",
            &typed.max_memory,
            zero_or(MEMORY_LEAST, Bytes(u64::MAX)),
            &mut values.max_memory,
        );
        self.set(
            "limits.max_output",
            &typed.max_output,
            within(Bytes(1_024), Bytes(1 << 40)),
            &mut values.max_output,
        );
    }

    fn times(&self, typed: &file::Limits, queue: &file::Queue, values: &mut LimitValues) {
        let (least, second, ever) = (Millis(1), Millis(1_000), Millis(u64::MAX));
        self.set(
            "limits.frame_timeout",
            &typed.frame_timeout,
            within(least, YEAR),
            &mut values.frame_timeout_ms,
        );
        self.set(
            "limits.write_timeout",
            &typed.write_timeout,
            within(least, YEAR),
            &mut values.write_timeout_ms,
        );
        self.set(
            "limits.idle_timeout",
            &typed.idle_timeout,
            zero_or(least, ever),
            &mut values.idle_timeout_ms,
        );
        self.set(
            "limits.keepalive",
            &typed.keepalive,
            zero_or(second, KEEPALIVE_MOST),
            &mut values.keepalive_ms,
        );
        self.set(
            "limits.tcp_user_timeout",
            &typed.tcp_user_timeout,
            zero_or(least, USER_TIMEOUT_MOST),
            &mut values.tcp_user_timeout_ms,
        );
        self.set(
            "queue.time_to_run",
            &queue.time_to_run,
            within(second, ever),
            &mut values.time_to_run_ms,
        );
    }

    fn log(&self, typed: &file::Log) -> Log {
        let level = self.args.log_level.or_else(|| plain(&typed.level));
        let format = plain(&typed.format);
        Log { level: level.unwrap_or(LogLevel::Info), format: format.unwrap_or(LogFormat::Auto) }
    }
}

pub(super) fn plain<T: Copy>(typed: &Option<Spanned<T>>) -> Option<T> {
    typed.as_ref().map(|typed| *typed.get_ref())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, load_text};
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults_of_the_manual() {
        let config = load("").unwrap();
        let storage = &config.storage;
        assert_eq!(storage.durability, Durability::Write);
        assert_eq!((storage.snapshot_interval_ms, storage.commit_timeout_ms), (50, 5_000));
        assert_eq!(storage.on_io_error, OnIoError::Rewrite);
        assert_eq!(storage.min_free_disk, 64 << 20);
        let memory = config.limits.max_memory;
        assert_eq!(config.limits, LimitValues { max_memory: memory, ..LimitValues::default() });
        assert_eq!(config.log, Log { level: LogLevel::Info, format: LogFormat::Auto });
    }

    #[test]
    fn no_memory_limit_is_half_of_what_there_is() {
        // The test's surroundings know no memory, for which 2 GiB are taken.
        assert_eq!(load("[limits]\nmax_memory = 0\n").unwrap().limits.max_memory, 1 << 30);
        assert_eq!(load("[limits]\nmax_memory = 99999\n").unwrap().limits.max_memory, 99_999);
    }

    #[test]
    fn sqlites_word_for_no_file_is_none() {
        let config = load("[storage]\ndatabase = \":memory:\"\n").unwrap();
        assert_eq!(config.storage.database, None);
        let args = Args { database: Some(":memory:".into()), ..Args::default() };
        assert_eq!(load_text("", &args).unwrap().storage.database, None);
    }

    #[test]
    fn flags_go_before_the_file() {
        let text = "[storage]\ndatabase = \"/a\"\ndurability = \"write\"\n[log]\nlevel = \"warn\"";
        let args = Args {
            database: Some("/b".into()),
            durability: Some(Durability::Sync),
            log_level: Some(LogLevel::Trace),
            ..Args::default()
        };
        let config = load_text(text, &args).unwrap();
        assert_eq!(config.storage.database, Some("/b".into()));
        assert_eq!(config.storage.durability, Durability::Sync);
        assert_eq!(config.log.level, LogLevel::Trace);
        assert!(config.listeners.iter().all(|row| row.durability == Durability::Sync));
    }

    #[test]
    fn numbers_out_of_their_bounds_are_refused_with_the_bound() {
        let refused = |text: &str| load(text).unwrap_err();
        assert_eq!(
            refused("[storage]\nsnapshot_interval = \"0s\"\n"),
            "2: storage.snapshot_interval: too small, the minimum is 1ms"
        );
        assert_eq!(
            refused("[limits]\nmax_message_size = \"1GiB\"\n"),
            "2: limits.max_message_size: too large, the maximum is 900MiB"
        );
        assert_eq!(
            refused("[limits]\nmax_connections = 0\n"),
            "2: limits.max_connections: too small, the minimum is 1"
        );
        assert_eq!(
            refused("[queue]\npriority = 4294967296\n"),
            "2: queue.priority: too large, the maximum is 4294967295"
        );
        assert_eq!(
            refused("[limits]\nkeepalive = \"10ms\"\n"),
            "2: limits.keepalive: too small, the minimum is 1s"
        );
    }

    #[test]
    fn every_mistake_is_told_at_once_in_the_order_of_the_lines() {
        let text = "[limits]\nmax_queues = 0\nmax_windw = 1\nmax_memory = \"1KiB\"\n\
                    [[listener]]\nprotocol = \"beanstalkd\"\naddress = \"127.0.0.1\"\n\
                    revision = 3\nmode = \"0600\"\n\
                    [[listener]]\nprotocol = \"console\"\naddress = \"127.0.0.1:1\"\nmode = \"0600\"\n\
                    [[listener]]\nprotocol = \"phpmq\"\naddress = \"127.0.0.1:1\"\n\
                    [log]\nlevel = \"warning\"\n";
        let args = Args { listen: vec!["phpmq".to_owned()], ..Args::default() };
        for (args, flag) in [(Args::default(), false), (args, true)] {
            let errors = load_text(text, &args).unwrap_err();
            assert_eq!(errors.exit_code(), 78);
            let said: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
            let mut wanted = vec![
                ":2: limits.max_queues: too small, the minimum is 1",
                ":3: limits.max_windw: unknown key, did you mean max_window?",
                ":4: limits.max_memory: too small, the minimum is 64KiB",
                ":6: listener.protocol: unknown protocol \"beanstalkd\" (known: phpmq, console, beanstalk), did you mean",
                ":7: listener.address: bad address \"127.0.0.1\": no port",
                ":8: listener.revision: ",
                ":13: listener.mode: applies to Unix sockets only",
                ":16: listener.address: 127.0.0.1:1 is already the address of another listener",
                ":18: log.level: unknown value \"warning\" (known: crit, error, warn, info, debug, trace), did you",
            ];
            if flag {
                // The flags take the place of the file's listeners, which then meet nobody.
                wanted.remove(7);
                wanted.insert(0, "--listen: \"phpmq\" is not of the form");
            }
            for (said, wanted) in said.iter().zip(&wanted) {
                assert!(said.contains(wanted), "{said} is not {wanted}");
            }
            assert_eq!(said.len(), wanted.len(), "{said:#?}");
        }
    }

    #[test]
    fn what_is_missing_is_not_complained_of_where_it_may_stand() {
        let text = "[[listener]]\nprotocol phpmq\naddress = \"127.0.0.1:1\"\n\
                    [limits]\nmax_window = 0\n";
        let errors = load_text(text, &Args::default()).unwrap_err();
        let said: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains(":2: not TOML: write protocol = \"phpmq\""), "{said:#?}");
    }

    #[test]
    fn zero_is_taken_where_it_means_never() {
        let text = "[limits]\nidle_timeout = 0\nkeepalive = \"0s\"\ntcp_user_timeout = \"0ms\"\n";
        let limits = load(text).unwrap().limits;
        let times = (limits.idle_timeout_ms, limits.keepalive_ms, limits.tcp_user_timeout_ms);
        assert_eq!(times, (0, 0, 0));
        assert!(load("[limits]\nwrite_timeout = 0\n").is_err());
    }
}
