//! What can be wrong with a configuration, and where.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use super::address::AddressError;
use super::nearest::nearest;
use super::values::ValueError;
use crate::words::ids::QueueNameError;

/// What is wrong with the configuration, and where it stands.
#[derive(Debug)]
pub struct ConfigError {
    /// Where it stands.
    pub place: Location,
    /// What is wrong there.
    pub fault: ConfigFault,
}

/// Where a fault of the configuration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file as a whole.
    File(PathBuf),
    /// In a line of a file, at a key unless the line is no TOML.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its section, like `limits.max_queues`.
        key: Option<String>,
    },
    /// In a flag of the command line.
    Flag(&'static str),
    /// In what holds when nothing is configured.
    Defaults(&'static str),
}

/// What is wrong with the configuration.
#[derive(Debug)]
pub enum ConfigFault {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file is not UTF-8.
    NotUtf8,
    /// The text is not TOML.
    Syntax(String),
    /// No such key; the known one that is nearest, if any is near.
    UnknownKey(Option<String>),
    /// No such section; the known one that is nearest, as it is written, if any is near.
    UnknownSection(Option<String>),
    /// A key above all sections; those that have it.
    Outside(Vec<String>),
    /// A key that this section has not; those that have it.
    OtherSection(Vec<String>),
    /// A section in single brackets of which there may be several.
    OneOfSeveral(&'static str),
    /// A section in double brackets of which there is one.
    SeveralOfOne(&'static str),
    /// A section's name with a value; how the section is written.
    NotASection(String),
    /// A key or section that was there before.
    Twice,
    /// A list of listeners that is empty.
    NoListener,
    /// A value of the wrong type or form; the text says what was expected.
    WrongType(String),
    /// A text that is no value of its key.
    BadValue(ValueError),
    /// A number below what the key takes; the smallest it takes.
    TooSmall(String),
    /// A number above what the key takes; the largest it takes.
    TooLarge(String),
    /// A key that each of these sections must have and this one has not.
    Missing(&'static str, &'static str),
    /// More sections of a kind than there may be, and how many there may be.
    TooManySections(&'static str, usize),
    /// A list of more values than it may have, and how many it may have.
    TooLong(usize),
    /// A text that no queue's name is.
    BadQueueName(QueueNameError),
    /// A pattern where one queue is to be named.
    PatternForQueue,
    /// A protocol that does not exist; those that do.
    UnknownProtocol(String, Vec<&'static str>),
    /// A text that is no address.
    BadAddress(String, AddressError),
    /// A host name that does not resolve.
    UnknownHost(String, io::Error),
    /// An address that other machines reach, without leave for it.
    Remote(String),
    /// The address of another listener, and how that is written there.
    DuplicateAddress(String, String),
    /// A group that does not exist.
    UnknownGroup(String),
    /// `--listen` without `=`.
    NoProtocol(String),
    /// A key that only one protocol has.
    OnlyForProtocols(Vec<&'static str>),
    /// A key that only Unix sockets have.
    OnlyForUnixSockets,
    /// No directory to keep the database in is known.
    NoStateDirectory,
}

/// All that is wrong with a configuration; never nothing.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Nothing when nothing is wrong, else all of it, line by line.
    ///
    /// # Errors
    /// Something is wrong.
    pub(super) fn none_or(mut errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
        errors.sort_by_key(|error| match error.place {
            Location::Line { line, .. } => line,
            _ => 0,
        });
        // Sections that appear twice are judged twice, with the same result for what is in neither.
        let mut said = BTreeSet::new();
        errors.retain(|error| said.insert(error.to_string()));
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    /// Each of them, in the order of the lines.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// The exit code of a daemon that ends for them: that of the command line when nothing else is
    /// wrong.
    pub fn exit_code(&self) -> u8 {
        self.0.iter().map(ConfigError::exit_code).max().unwrap_or(78)
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors(vec![error])
    }
}

/// All of them in one line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.first().map(|error| error as _)
    }
}

impl ConfigError {
    /// Whether it is a name that does not resolve now, which is no mistake.
    pub fn is_unknown_host(&self) -> bool {
        matches!(self.fault, ConfigFault::UnknownHost(..))
    }

    /// The exit code of a daemon that ends for this: 64 for the command line, 69 for a name that
    /// does not resolve now, 78 for the rest.
    pub fn exit_code(&self) -> u8 {
        match (&self.place, &self.fault) {
            // What the network does not know now it may know later.
            (_, ConfigFault::UnknownHost(..)) => 69,
            // A flag may well be formed and still name an address that needs leave, or one of
            // another listener: that is configuration.
            (Location::Flag(_), ConfigFault::Remote(_) | ConfigFault::DuplicateAddress(..)) => 78,
            (Location::Flag(_), _) => 64,
            _ => 78,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Location::File(path) => write!(f, "{}: {}", path.display(), self.fault),
            Location::Line { path, line, key: Some(key) } => {
                write!(f, "{}:{line}: {}: {}", path.display(), key.escape_debug(), self.fault)
            }
            Location::Line { path, line, key: None } => {
                write!(f, "{}:{line}: {}", path.display(), self.fault)
            }
            Location::Flag(flag) => write!(f, "{flag}: {}", self.fault),
            Location::Defaults(key) => write!(f, "{key}: {}", self.fault),
        }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigFault::Unreadable(error) => write!(f, "cannot be read: {error}"),
            ConfigFault::NotUtf8 => f.write_str("not UTF-8"),
            ConfigFault::Syntax(text) | ConfigFault::WrongType(text) => Tame(text).fmt(f),
            ConfigFault::UnknownKey(meant) => unknown(f, "key", meant.as_deref()),
            ConfigFault::UnknownSection(meant) => unknown(f, "section", meant.as_deref()),
            ConfigFault::Outside(places) => {
                write!(f, "this key belongs in a section: move it below {}", places.join(" or "))
            }
            ConfigFault::OtherSection(places) => {
                write!(f, "not a key of this section but of {}", places.join(" and "))
            }
            ConfigFault::OneOfSeveral(section) => {
                write!(f, "write [[{section}]], in double brackets, above each {section}")
            }
            ConfigFault::SeveralOfOne(section) => {
                write!(f, "write [{section}], in single brackets: there is only one")
            }
            ConfigFault::NotASection(header) => {
                write!(f, "this is a section: write {header} in a line of its own above its keys")
            }
            ConfigFault::Twice => f.write_str("appears a second time"),
            ConfigFault::NoListener => {
                f.write_str("an empty list: without this line the default listeners are used")
            }
            ConfigFault::BadValue(error) => error.fmt(f),
            ConfigFault::TooSmall(min) => write!(f, "too small, the minimum is {min}"),
            ConfigFault::TooLarge(max) => write!(f, "too large, the maximum is {max}"),
            ConfigFault::Missing(section, key) => write!(f, "the {section} has no {key}"),
            ConfigFault::TooManySections(section, max) => {
                write!(f, "too many, the maximum is {max} [[{section}]] sections")
            }
            ConfigFault::TooLong(max) => write!(f, "too long, the maximum is {max} values"),
            ConfigFault::BadQueueName(error) => error.fmt(f),
            ConfigFault::PatternForQueue => {
                f.write_str("must name one queue: * is no pattern here")
            }
            ConfigFault::UnknownProtocol(name, known) => unknown_protocol(f, name, known),
            ConfigFault::BadAddress(text, error) => write!(f, "bad address {text:?}: {error}"),
            ConfigFault::UnknownHost(text, error) => {
                write!(
                    f,
                    "cannot resolve the host name of {}: {}",
                    Tame(text),
                    Tame(&reason(error))
                )
            }
            ConfigFault::Remote(text) => remote(f, text),
            ConfigFault::DuplicateAddress(text, other) => {
                write!(f, "{} is already the address of another listener", Tame(text))?;
                if text == other { Ok(()) } else { write!(f, ", given as {}", Tame(other)) }
            }
            ConfigFault::UnknownGroup(name) => {
                write!(f, "there is no group {name:?}")
            }
            ConfigFault::NoProtocol(text) => {
                write!(f, "{text:?} is not of the form PROTOCOL=ADDRESS")
            }
            ConfigFault::OnlyForProtocols(names) => {
                write!(f, "applies to {} listeners only", names.join(" and "))
            }
            ConfigFault::OnlyForUnixSockets => f.write_str("applies to Unix sockets only"),
            ConfigFault::NoStateDirectory => f.write_str(
                "no place for the database: none of STATE_DIRECTORY, XDG_STATE_HOME and HOME is \
                 set, so give a path (or \"\" to keep nothing on disk)",
            ),
        }
    }
}

/// What the resolver says, without the standard library's preamble.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("failed to lookup address information: ") {
        Some(reason) => reason.to_owned(),
        None => text,
    }
}

fn remote(f: &mut fmt::Formatter<'_>, address: &str) -> fmt::Result {
    write!(
        f,
        "other machines can reach {}, and no protocol authenticates: if that is intended, set \
         allow_remote = true in its [[listener]]",
        Tame(address)
    )
}

fn unknown_protocol(f: &mut fmt::Formatter<'_>, name: &str, known: &[&str]) -> fmt::Result {
    write!(f, "unknown protocol {name:?} (known: {})", known.join(", "))?;
    match nearest(name, known.iter().copied()) {
        Some(meant) => write!(f, ", did you mean {meant:?}?"),
        None => Ok(()),
    }
}

/// What is unknown, and what was probably meant.
fn unknown(f: &mut fmt::Formatter<'_>, what: &str, meant: Option<&str>) -> fmt::Result {
    match meant {
        Some(meant) => write!(f, "unknown {what}, did you mean {meant}?"),
        None => write!(f, "unknown {what}"),
    }
}

/// A text with values of the operator's in it, which may have line ends and worse in them.
struct Tame<'a>(&'a str);

impl fmt::Display for Tame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() {
                char.escape_debug().fmt(f)?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            ConfigFault::Unreadable(error) | ConfigFault::UnknownHost(_, error) => Some(error),
            ConfigFault::BadValue(error) => Some(error),
            ConfigFault::BadQueueName(error) => Some(error),
            ConfigFault::BadAddress(_, error) => Some(error),
            _ => None,
        }
    }
}
