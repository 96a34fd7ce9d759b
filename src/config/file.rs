//! The configuration file as it was typed: every key optional, every value with its place.
//!
//! What the values mean together is not looked at here but in the module above; this file only
//! knows which keys there are and of which kind each is. Unknown keys are refused, with the known
//! one that was probably meant.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigFault, Place};
use super::values::{Bytes, Count, Millis, Mode, Revision};
use crate::channels;

/// How alike a known key must be to be proposed for an unknown one (1.0 is the same).
const LIKENESS_MIN: f64 = 0.7;

/// Makes the type of a section and the list of its keys in one go, so that neither lacks one.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "the keys are documented in phpmqd.toml(5)")]
        pub struct $name { $(pub $key: Option<Spanned<$kind>>,)* }

        impl $name {
            /// Its keys, in the order of phpmqd.toml(5).
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];
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
        revision: Revision,
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
    /// `[log]`
    Log {
        level: LogLevel,
        format: LogFormat,
    }
}

/// The sections and their keys, in the order of phpmqd.toml(5).
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("storage", Storage::KEYS),
    ("listener", Listener::KEYS),
    ("limits", Limits::KEYS),
    ("queue", Queue::KEYS),
    ("log", Log::KEYS),
];

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sections {
    /// Where messages are kept and what an answer promises.
    pub storage: Storage,
    /// Where clients connect.
    pub listener: Vec<Spanned<Listener>>,
    /// Bounds.
    pub limits: Limits,
    /// What messages get that bring no values of their own.
    pub queue: Queue,
    /// What is logged, and how.
    pub log: Log,
}

/// The words for [`channels::Durability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "channels::Durability tells what the levels are")]
pub enum Durability {
    Periodic,
    Write,
    Sync,
}

impl From<Durability> for channels::Durability {
    fn from(word: Durability) -> channels::Durability {
        match word {
            Durability::Periodic => channels::Durability::Periodic,
            Durability::Write => channels::Durability::Write,
            Durability::Sync => channels::Durability::Sync,
        }
    }
}

/// What is done when the disk fails otherwise than by being full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnIoError {
    /// Write the database anew from memory, and go on trying.
    Rewrite,
    /// End with exit code 74.
    Exit,
}

/// The least that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// Reads the file of this path.
    ///
    /// # Errors
    /// It cannot be read, or [`ConfigFile::parse`] refuses its text.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        let fail = |fault| ConfigError { place: Place::File(path.to_owned()), fault };
        let bytes = std::fs::read(path).map_err(|e| fail(ConfigFault::Unreadable(e)))?;
        let text = String::from_utf8(bytes).map_err(|_| fail(ConfigFault::NotUtf8))?;
        ConfigFile::parse(path, text)
    }

    /// Reads the text of a file of this path.
    ///
    /// # Errors
    /// The first thing in it that is no TOML, an unknown key, or a value of the wrong kind.
    pub fn parse(path: &Path, text: String) -> Result<ConfigFile, ConfigError> {
        let fail = |span: Option<Range<usize>>, key, fault| {
            let line = line_of(&text, span.map_or(0, |span| span.start));
            ConfigError { place: Place::Line { path: path.to_owned(), line, key }, fault }
        };
        let table = DeTable::parse(&text).map_err(|error| {
            fail(error.span(), None, ConfigFault::Syntax(error.message().to_owned()))
        })?;
        if let Err(unknown) = check_keys(table.get_ref()) {
            return Err(fail(Some(unknown.span), Some(unknown.key), unknown.fault));
        }
        let sections = toml::from_str(&text).map_err(|error| {
            let key = error.span().and_then(|span| key_at(table.get_ref(), &span));
            fail(error.span(), key, ConfigFault::WrongType(error.message().to_owned()))
        })?;
        Ok(ConfigFile { sections, path: path.to_owned(), text })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place of a value that stands at `span`.
    pub fn place(&self, key: String, span: Range<usize>) -> Place {
        let line = line_of(&self.text, span.start);
        Place::Line { path: self.path.clone(), line, key: Some(key) }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

struct UnknownKey {
    span: Range<usize>,
    key: String,
    fault: ConfigFault,
}

/// Looks for a section or key that does not exist. serde would refuse it too, but without a
/// proposal.
fn check_keys(table: &DeTable<'_>) -> Result<(), UnknownKey> {
    for (section, value) in table {
        let name = section.get_ref().as_ref();
        let Some((_, keys)) = SECTIONS.iter().find(|(known, _)| *known == name) else {
            let nearest = nearest(name, SECTIONS.iter().map(|(known, _)| *known));
            let fault = ConfigFault::UnknownSection(nearest);
            return Err(UnknownKey { span: section.span(), key: name.to_owned(), fault });
        };
        for table in tables(value.get_ref()) {
            for key in table.keys() {
                let typed = key.get_ref().as_ref();
                if !keys.contains(&typed) {
                    let fault = ConfigFault::UnknownKey(nearest(typed, keys.iter().copied()));
                    let key_text = format!("{name}.{typed}");
                    return Err(UnknownKey { span: key.span(), key: key_text, fault });
                }
            }
        }
    }
    Ok(())
}

/// The tables of a section: itself, or those of its array.
fn tables<'t, 'i>(value: &'t DeValue<'i>) -> Vec<&'t DeTable<'i>> {
    match value {
        DeValue::Table(table) => vec![table],
        DeValue::Array(array) => {
            array.iter().filter_map(|item| item.get_ref().as_table()).collect()
        }
        _ => Vec::new(),
    }
}

fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |key: &&str| strsim::jaro_winkler(key, typed);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= LIKENESS_MIN).then_some(best)
}

/// The key whose value stands around `span`, with its section.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let around = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (section, value) in table {
        for table in tables(value.get_ref()) {
            for (key, value) in table {
                if around(value.span()) {
                    return Some(format!("{}.{}", section.get_ref(), key.get_ref()));
                }
            }
        }
        if around(value.span()) {
            return Some(section.get_ref().to_string());
        }
    }
    None
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
            [log]
            level = "trace"
            format = "journald"
        "#;
        let sections = parse(text).unwrap().sections;
        let storage = sections.storage;
        assert_eq!(*storage.min_free_disk.unwrap().get_ref(), Bytes(5));
        assert_eq!(*storage.on_io_error.unwrap().get_ref(), OnIoError::Exit);
        let listener = sections.listener[0].get_ref();
        assert_eq!(*listener.revision.as_ref().unwrap().get_ref(), Revision(Some(2)));
        assert_eq!(*listener.mode.as_ref().unwrap().get_ref(), Mode(0o600));
        assert_eq!(*sections.log.format.unwrap().get_ref(), LogFormat::Journald);
        let keys: usize = SECTIONS.iter().map(|(_, keys)| keys.len()).sum();
        assert_eq!(text.matches(" = ").count(), keys, "a key is not in this test");
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
        assert_eq!(error, "phpmqd.toml:1: storrage: unknown section, did you mean storage?");
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
        assert!(error.contains("`periodic`, `write`, `sync`"), "{error}");
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
            let Err(error) = ConfigFile::parse(Path::new("x"), text) else { continue };
            match &error.place {
                Place::Line { line, .. } => assert!((1..=lines + 1).contains(line), "{error}"),
                place => panic!("{place:?}: {error}"),
            }
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ConfigFile::read(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().starts_with("/nonexistent/x.toml: cannot be read: "));
    }
}
