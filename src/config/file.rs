//! The configuration file as it was typed: every key optional, every value with its place.
//!
//! What the values mean together is not looked at here but in the module above; this file only
//! knows which keys there are and of which kind each is. Unknown keys are refused, with the known
//! one that was probably meant.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IntoDeserializer};
use toml::Spanned;
use toml::de::DeTable;

use super::error::{ConfigError, ConfigErrors, ConfigFault, Location};
use super::mistakes::{Broken, Lines, Mistakes};
use super::values::{self, Bytes, Count, Durations, Kind, Millis, Mode, Share};
use crate::protocol::PROTOCOLS;
use crate::protocol::options::{OptionValue, ProtocolOption};
use crate::words::durability::Durability;

/// Makes the type of a section, the list of its keys and what reads them in one go, so that none
/// lacks one.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "the keys are documented in phpmqd.toml(5)")]
        pub struct $name { $(pub $key: Option<Spanned<$kind>>,)* }

        impl $name {
            /// Its keys, in the order of phpmqd.toml(5).
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            /// Takes what the table says; a value that is not of its key's kind is a mistake.
            fn take(section: &str, table: &DeTable<'_>, mistakes: &mut Mistakes<'_>) -> $name {
                $name {
                    $($key: mistakes.value(section, stringify!($key), table.get(stringify!($key))),)*
                }
            }

            /// What a key takes, and whether this text would be it in quotes.
            fn about(key: &str, text: &str) -> Option<About> {
                match key {
                    $(stringify!($key) => Some(About {
                        expected: <$kind>::EXPECTED,
                        wants_quotes: reads_as::<$kind>(text),
                    }),)*
                    _ => None,
                }
            }
        }
    };
}

section! {
    /// `[storage]`
    Storage {
        database: String,
        durability: Durability,
        snapshot_interval: Millis,
        commit_timeout: Millis,
        on_io_error: OnIoError,
        min_free_disk: Bytes,
    }
}

section! {
    /// `[[listener]]`
    Listener {
        protocol: String,
        address: String,
        durability: Durability,
        allow_remote: bool,
        ack_timeout: Millis,
        mode: Mode,
        group: String,
    }
}

section! {
    /// `[limits]`
    Limits {
        max_connections: Count,
        max_connections_per_peer: Count,
        max_message_size: Bytes,
        max_memory: Bytes,
        max_queues: Count,
        max_window: Count,
        max_output: Bytes,
        frame_timeout: Millis,
        write_timeout: Millis,
        idle_timeout: Millis,
        keepalive: Millis,
        tcp_user_timeout: Millis,
    }
}

section! {
    /// `[queue]`
    Queue {
        priority: Count,
        time_to_run: Millis,
    }
}

section! {
    /// `[[policy]]`
    Policy {
        queues: String,
        max_attempts: Count,
        backoff: Durations,
        jitter: Share,
        dead_letter: String,
    }
}

section! {
    /// `[log]`
    Log {
        level: LogLevel,
        format: LogFormat,
    }
}

/// The sections and the keys that they have whatever protocols there are, in the order of
/// phpmqd.toml(5).
const OWN_KEYS: [(&str, &[&str]); 6] = [
    ("storage", Storage::KEYS),
    (LISTENER, Listener::KEYS),
    ("limits", Limits::KEYS),
    ("queue", Queue::KEYS),
    ("policy", Policy::KEYS),
    ("log", Log::KEYS),
];

/// The section that takes the options of protocols too.
const LISTENER: &str = "listener";

/// The sections and all their keys, the options of protocols behind those of every listener.
pub static SECTIONS: LazyLock<Vec<(&str, Vec<&str>)>> = LazyLock::new(|| {
    let with_options = OWN_KEYS.into_iter().map(|(section, keys)| {
        let mut keys = keys.to_vec();
        if section == LISTENER {
            keys.extend(options().map(|option| option.name));
            // Two protocols may have an option of one name.
            let mut seen = std::collections::BTreeSet::new();
            keys.retain(|key| seen.insert(*key));
        }
        (section, keys)
    });
    with_options.collect()
});

/// The options of all protocols.
fn options() -> impl Iterator<Item = &'static ProtocolOption> {
    PROTOCOLS.iter().flat_map(|protocol| protocol.options)
}

/// The options of this name: those of several protocols may take different values.
pub(super) fn options_named(name: &str) -> impl Iterator<Item = &'static ProtocolOption> {
    options().filter(move |option| option.name == name)
}

/// An option of a protocol, as it was typed.
#[derive(Debug)]
pub struct TypedOption {
    /// Its key.
    pub name: &'static str,
    /// A value that some protocol's option of this name accepts.
    pub value: Spanned<OptionValue>,
}

/// A `[[listener]]` with the options of its protocol.
#[derive(Debug)]
pub struct TypedListener {
    /// The keys of every listener.
    pub keys: Listener,
    /// The others.
    pub options: Vec<TypedOption>,
}

/// The sections of which there may be several, each below a header in double brackets.
pub(super) const SEVERAL: &[&str] = &[LISTENER, "policy"];

/// What may be said of a key to whoever has typed something else.
pub(super) struct About {
    pub(super) expected: &'static str,
    pub(super) wants_quotes: bool,
}

/// What a key of a section takes, and whether this text would be it in quotes.
pub(super) fn about(section: &str, key: &str, text: &str) -> Option<About> {
    match section {
        "storage" => Storage::about(key, text),
        LISTENER => Listener::about(key, text).or_else(|| about_option(key, text)),
        "limits" => Limits::about(key, text),
        "queue" => Queue::about(key, text),
        "policy" => Policy::about(key, text),
        "log" => Log::about(key, text),
        _ => None,
    }
}

fn about_option(key: &str, text: &str) -> Option<About> {
    let option = options_named(key).next()?;
    let quoted = OptionValue::Text(text.to_owned().into());
    Some(About { expected: option.takes, wants_quotes: (option.accepts)(&quoted) })
}

fn reads_as<T: DeserializeOwned>(text: &str) -> bool {
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(text).is_ok()
}

/// A whole file.
#[derive(Debug, Default)]
pub struct Sections {
    /// Where messages are kept and what an answer promises.
    pub storage: Storage,
    /// Where clients connect.
    pub listener: Vec<Spanned<TypedListener>>,
    /// Bounds.
    pub limits: Limits,
    /// What messages get that bring no values of their own.
    pub queue: Queue,
    /// What becomes of messages whose processing fails.
    pub policy: Vec<Spanned<Policy>>,
    /// What is logged, and how.
    pub log: Log,
}

impl Sections {
    /// Takes what the tables of a file say. Sections and keys that do not exist are mistakes.
    fn take(file: &DeTable<'_>, mistakes: &mut Mistakes<'_>) -> Sections {
        mistakes.check_names(file);
        let mut sections = Sections::default();
        if let Some(table) = mistakes.table(file, "storage") {
            sections.storage = Storage::take("storage", table, mistakes);
        }
        for (table, span) in mistakes.tables(file, LISTENER) {
            let keys = Listener::take(LISTENER, table, mistakes);
            let options = mistakes.options(table);
            sections.listener.push(Spanned::new(span, TypedListener { keys, options }));
        }
        if let Some(table) = mistakes.table(file, "limits") {
            sections.limits = Limits::take("limits", table, mistakes);
        }
        if let Some(table) = mistakes.table(file, "queue") {
            sections.queue = Queue::take("queue", table, mistakes);
        }
        for (table, span) in mistakes.tables(file, "policy") {
            let policy = Policy::take("policy", table, mistakes);
            sections.policy.push(Spanned::new(span, policy));
        }
        if let Some(table) = mistakes.table(file, "log") {
            sections.log = Log::take("log", table, mistakes);
        }
        sections
    }
}

/// Has enumerations read by their words, with a proposal for a wrong one.
macro_rules! read_by_words {
    ($($name:ident => $expected:literal,)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                values::word(deserializer)
            }
        }

        impl Kind for $name {
            const EXPECTED: &'static str = $expected;
        }
    )*};
}
read_by_words! {
    Durability => "\"periodic\", \"write\" or \"sync\"",
    OnIoError => "\"rewrite\" or \"exit\"",
    LogLevel => "\"crit\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    LogFormat => "\"auto\", \"plain\" or \"journald\"",
}

/// What is done when the disk fails otherwise than by being full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum OnIoError {
    /// Write the database anew from memory, and go on trying.
    Rewrite,
    /// End with exit code 74.
    Exit,
}

/// The least that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum LogLevel {
    /// We are exiting, or data is at risk.
    Crit,
    /// An operator must act now.
    Error,
    /// An operator should look this week.
    Warn,
    /// Life cycle.
    Info,
    /// One connection's story.
    Debug,
    /// One command.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum LogFormat {
    /// As the journal wants it when standard error is the journal, else plain.
    Auto,
    /// With the time and the level's name.
    Plain,
    /// With the journal's priority and without the time, which the journal adds.
    Journald,
}

/// A file that was read: what it says, and what is needed to tell where.
#[derive(Debug)]
pub struct ConfigFile {
    /// What it says.
    pub sections: Sections,
    /// What its sections say where they appear a second time, listeners apart.
    pub(super) repeated: Vec<Sections>,
    lines: Lines,
    broken: Broken,
}

impl ConfigFile {
    /// Reads the file of this path, with all mistakes that are in it.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub(super) fn read(path: &Path) -> Result<(ConfigFile, Vec<ConfigError>), ConfigError> {
        let fail = |fault| ConfigError { place: Location::File(path.to_owned()), fault };
        let bytes = std::fs::read(path).map_err(|e| fail(ConfigFault::Unreadable(e)))?;
        let text = String::from_utf8(bytes).map_err(|_| fail(ConfigFault::NotUtf8))?;
        Ok(ConfigFile::parse_all(path, &text))
    }

    /// Reads the text of a file of this path.
    ///
    /// # Errors
    /// All that is wrong with it by itself: what is no TOML, unknown keys, values of the wrong kind.
    pub fn parse(path: &Path, text: String) -> Result<ConfigFile, ConfigErrors> {
        let (file, mistakes) = ConfigFile::parse_all(path, &text);
        ConfigErrors::none_or(mistakes).map(|()| file)
    }

    /// The same with what could be read in spite of the mistakes.
    fn parse_all(path: &Path, text: &str) -> (ConfigFile, Vec<ConfigError>) {
        let lines = Lines::of(path, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut mistakes = Mistakes::new(&lines, text);
        mistakes.take_syntax_errors(&errors, table.get_ref());
        let mut sections = Sections::take(table.get_ref(), &mut mistakes);
        // TOML's parser passes over the keys of a section that it has seen before.
        let mut repeated = Vec::new();
        let (parts, mixed) = mistakes.repeated();
        if mixed.contains(&LISTENER) {
            sections.listener.clear();
        }
        if mixed.contains(&"policy") {
            sections.policy.clear();
        }
        for part in parts {
            let alone = blank_but(text, &part);
            let (table, errors) = DeTable::parse_recoverable(&alone);
            mistakes.take_syntax_errors(&errors, table.get_ref());
            let mut again = Sections::take(table.get_ref(), &mut mistakes);
            sections.listener.append(&mut again.listener);
            sections.policy.append(&mut again.policy);
            repeated.push(again);
        }
        let (found, broken) = mistakes.finish();
        (ConfigFile { sections, repeated, lines, broken }, found)
    }

    /// The place of a value that stands at `span`.
    pub fn place(&self, key: String, span: Range<usize>) -> Location {
        self.lines.place(&span, Some(key))
    }

    /// Whether something is said better, or cannot be told, because of what is no TOML.
    pub(super) fn is_moot(&self, error: &ConfigError) -> bool {
        self.broken.covers(error)
    }
}

/// A text with nothing but this part of it, at the same place and in the same line.
fn blank_but(text: &str, part: &Range<usize>) -> String {
    let bytes = text.bytes().enumerate();
    let blanked = bytes.map(|(at, byte)| match byte {
        b'\n' => byte,
        _ if part.contains(&at) => byte,
        _ => b' ',
    });
    // The part begins and ends with a line, so no character is cut in two.
    String::from_utf8(blanked.collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::testing::Random;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        let path = Path::new("phpmqd.toml");
        ConfigFile::parse(path, text.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_says_nothing() {
        let file = parse("# only a remark\n").unwrap();
        assert!(file.sections.storage.database.is_none());
        assert!(file.sections.listener.is_empty());
    }

    /// A line end in a value was a line end in the message, and in whatever it was written to. Found
    /// by fuzzing.
    #[test]
    fn regression_4_what_a_value_holds_does_not_break_the_message() {
        let error = parse("[log]\nlevel = \"a\\n\\u001bb\"\n").unwrap_err();
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(error.contains("a\\n\\u{1b}b"), "{error}");
    }

    #[test]
    fn every_key_is_taken() {
        let text = r#"
            [storage]
            database = "/x"
            durability = "sync"
            snapshot_interval = "1s"
            commit_timeout = "1s"
            on_io_error = "exit"
            min_free_disk = 5
            [[listener]]
            protocol = "phpmq"
            address = "unix:/x"
            durability = "periodic"
            allow_remote = true
            revision = 2
            ack_timeout = "0s"
            mode = "0600"
            group = "g"
            [limits]
            max_connections = 1
            max_connections_per_peer = 2
            max_message_size = "1KiB"
            max_memory = 0
            max_queues = 3
            max_window = 4
            max_output = "1KiB"
            frame_timeout = "1s"
            write_timeout = "1s"
            idle_timeout = 0
            keepalive = "1s"
            tcp_user_timeout = "1s"
            [queue]
            priority = 5
            time_to_run = "1s"
            [[policy]]
            queues = "mail.*"
            max_attempts = 5
            backoff = ["1s", "1m", 0]
            jitter = 0.25
            dead_letter = "failed"
            [log]
            level = "trace"
            format = "journald"
        "#;
        let sections = parse(text).unwrap().sections;
        let storage = sections.storage;
        assert_eq!(*storage.min_free_disk.unwrap().get_ref(), Bytes(5));
        assert_eq!(*storage.on_io_error.unwrap().get_ref(), OnIoError::Exit);
        let TypedListener { keys, options } = sections.listener[0].get_ref();
        assert_eq!(
            (options[0].name, options[0].value.get_ref()),
            ("revision", &OptionValue::Number(2))
        );
        assert_eq!(*keys.mode.as_ref().unwrap().get_ref(), Mode(0o600));
        let policy = sections.policy[0].get_ref();
        let backoff = Durations(vec![Millis(1_000), Millis(60_000), Millis(0)]);
        assert_eq!(*policy.backoff.as_ref().unwrap().get_ref(), backoff);
        assert_eq!(*policy.jitter.as_ref().unwrap().get_ref(), Share(0.25));
        assert_eq!(*sections.log.format.unwrap().get_ref(), LogFormat::Journald);
        let keys: usize = OWN_KEYS.iter().map(|(_, keys)| keys.len()).sum();
        let options = 1;
        assert_eq!(text.matches(" = ").count(), keys + options, "a key is not in this test");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_key() {
        let error = parse("[limits]\n\nmax_conections = 5\n").unwrap_err();
        let wanted =
            "phpmqd.toml:3: limits.max_conections: unknown key, did you mean max_connections?";
        assert_eq!(error, wanted);
        let error = parse("[[listener]]\nadress = \"x\"\n").unwrap_err();
        assert_eq!(error, "phpmqd.toml:2: listener.adress: unknown key, did you mean address?");
        let error = parse("storrage.database = \"x\"\n").unwrap_err();
        assert_eq!(error, "phpmqd.toml:1: storrage: unknown section, did you mean [storage]?");
        let error = parse("[log]\nxyzzy = 1\n").unwrap_err();
        assert_eq!(error, "phpmqd.toml:2: log.xyzzy: unknown key");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line_and_key() {
        let error = parse("[limits]\nmax_queues = \"many\"\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:2: limits.max_queues: "), "{error}");
        assert!(error.contains("a whole number, 0 or more"), "{error}");
        let error = parse("[storage]\nsnapshot_interval = 50\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:2: storage.snapshot_interval: "), "{error}");
        assert!(error.contains("a duration like"), "{error}");
        let error = parse("[[listener]]\nmode = 660\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:2: listener.mode: "), "{error}");
        let error = parse("\n[storage]\ndurability = \"fsync\"\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:3: storage.durability: "), "{error}");
        assert!(error.contains("(known: periodic, write, sync)"), "{error}");
        let error = parse("[limits]\nmax_queues = -1\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:2: limits.max_queues: "), "{error}");
        let error = parse("listener = 5\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:1: listener: "), "{error}");
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        let error = parse("[limits]\nmax_queues = = 5\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:2: "), "{error}");
        let error = parse("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").unwrap_err();
        assert!(error.starts_with("phpmqd.toml:3: "), "{error}");
    }

    #[test]
    fn control_characters_of_a_key_are_not_repeated_raw() {
        let error = parse("[log]\n\"a\\u001bb\" = 1\n").unwrap_err();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn any_text_is_read_or_refused_with_one_line_that_names_its_own() {
        // All keys; what is followed by a space stays a remark.
        let sample = include_str!("../../etc/phpmqd.toml").replace("\n#", "\n");
        let sample = sample.replace("\n ", "\n# ");
        assert_eq!(parse(&sample).map(drop), Ok(()));
        let mut random = Random::announced();
        for _ in 0..2_000 {
            let mut bytes = sample.clone().into_bytes();
            for _ in 0..random.below(4) {
                let (at, length) = (random.below(bytes.len()), random.below(20));
                let end = bytes.len().min(at + length);
                bytes.splice(at..end, random.bytes(20));
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().count();
            let Err(errors) = ConfigFile::parse(Path::new("x"), text) else { continue };
            for error in errors.iter() {
                match &error.place {
                    Location::Line { line, .. } => {
                        assert!((1..=lines + 1).contains(line), "{error}");
                    }
                    place => panic!("{place:?}: {error}"),
                }
                assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ConfigFile::read(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().starts_with("/nonexistent/x.toml: cannot be read: "));
    }
}
