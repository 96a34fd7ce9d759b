//! All that is wrong with a configuration file by itself, in one go: an operator who is told one
//! mistake at a time starts the daemon once for each.
//!
//! A value that is no TOML is reported and skipped, and the rest is read on. Only what the broken
//! part may have moved to another place is not judged.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigFault, Location};
use super::file::{SECTIONS, SEVERAL, TypedOption, options_named};
use super::nearest::nearest;
use super::syntax;
use super::values::{Kind, Scalar};

/// Mistakes that are collected at most: more help nobody, and a file may be any.
const MISTAKES_MAX: usize = 100;
/// What TOML's parser says where a key or section stands a second time.
const DUPLICATE: &str = "duplicate key";

/// Where the lines of a file begin.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    starts: Vec<usize>,
}

impl Lines {
    pub(super) fn of(path: &Path, text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Lines { path: path.to_owned(), starts }
    }

    /// The line, from 1, of a place in the text.
    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    /// Where a line begins; behind the text when it has not so many.
    fn start(&self, number: usize) -> usize {
        self.starts.get(number.saturating_sub(1)).copied().unwrap_or(usize::MAX)
    }

    pub(super) fn place(&self, span: &Range<usize>, key: Option<String>) -> Location {
        Location::Line { path: self.path.clone(), line: self.number(span.start), key }
    }
}

/// The lines about which nothing more is to be said.
#[derive(Debug)]
pub(super) struct Broken {
    /// Those that are no TOML.
    lines: BTreeSet<usize>,
    /// The lines below headers that are no TOML: their keys may belong to any section.
    parts: Vec<Range<usize>>,
    /// The lines with a section's header, as far as can be seen from their first character.
    headers: Vec<usize>,
}

impl Broken {
    fn of(text: &str) -> Broken {
        let lines = text.lines().enumerate();
        let headers = lines.filter(|(_, line)| line.trim_start().starts_with('['));
        let headers = headers.map(|(index, _)| index + 1).collect();
        Broken { lines: BTreeSet::new(), parts: Vec::new(), headers }
    }

    /// The line of the header after this line, or one that no file has.
    fn next_header(&self, line: usize) -> usize {
        let next = self.headers.partition_point(|header| *header <= line);
        self.headers.get(next).copied().unwrap_or(usize::MAX)
    }

    pub(super) fn covers(&self, error: &ConfigError) -> bool {
        let Location::Line { line, .. } = error.place else { return false };
        if matches!(error.fault, ConfigFault::Missing(..)) {
            // It may stand in a line of this section that cannot be read.
            return self.lines.range(line..self.next_header(line)).next().is_some();
        }
        self.lines.contains(&line) || self.parts.iter().any(|part| part.contains(&line))
    }
}

/// Collects the mistakes of one file.
pub(super) struct Mistakes<'a> {
    lines: &'a Lines,
    text: &'a str,
    found: Vec<ConfigError>,
    broken: Broken,
    /// The sections that TOML's parser passed over, since they were there before.
    repeated: Vec<Range<usize>>,
    /// The sections that have headers in single and in double brackets, of which it keeps one kind.
    mixed: Vec<&'static str>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(lines: &'a Lines, text: &'a str) -> Mistakes<'a> {
        let (found, repeated) = (Vec::new(), Vec::new());
        Mistakes { lines, text, found, broken: Broken::of(text), repeated, mixed: Vec::new() }
    }

    /// The parts of the text that are to be judged by themselves, since TOML's parser passed over
    /// them. Of sections with both kinds of headers, which come along, these are all.
    pub(super) fn repeated(&self) -> (Vec<Range<usize>>, &[&'static str]) {
        let mut parts = self.repeated.clone();
        for section in &self.mixed {
            let of_section = self.broken.headers.iter().filter(|line| {
                let name = self.line(**line).trim_start_matches('[').trim_start();
                name.starts_with(section)
            });
            parts.extend(of_section.take(MISTAKES_MAX).map(|line| self.part_below(*line)));
        }
        (parts, &self.mixed)
    }

    /// A header and the lines up to the next one.
    fn part_below(&self, line: usize) -> Range<usize> {
        self.lines.start(line)..self.lines.start(self.broken.next_header(line))
    }

    pub(super) fn finish(self) -> (Vec<ConfigError>, Broken) {
        (self.found, self.broken)
    }

    fn add(&mut self, span: &Range<usize>, key: Option<String>, fault: ConfigFault) {
        let error = ConfigError { place: self.lines.place(span, key), fault };
        if self.found.len() < MISTAKES_MAX && !self.broken.covers(&error) {
            self.found.push(error);
        }
    }

    /// Takes what TOML's parser has found, one for each line.
    pub(super) fn take_syntax_errors(&mut self, errors: &[toml::de::Error], table: &DeTable<'_>) {
        let mut errors: Vec<_> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        for (span, message) in errors.into_iter().take(MISTAKES_MAX) {
            let line = self.lines.number(span.start);
            let text = self.line(line).to_owned();
            let header = text.starts_with('[');
            let repeated = message == DUPLICATE;
            let (key, fault) = if repeated {
                let name = self.text.get(span.clone()).unwrap_or_default().to_owned();
                let several = SEVERAL.iter().find(|section| header && **section == name);
                if let Some(section) = several {
                    if !self.mixed.contains(section) {
                        self.mixed.push(section);
                    }
                    continue;
                }
                if header && self.repeated.len() < MISTAKES_MAX {
                    self.repeated.push(self.part_below(line));
                }
                (Some(name), ConfigFault::Twice)
            } else {
                let key = key_of_line(self.lines, table, line);
                let text = syntax::explain(message, key.as_ref(), &text);
                (key.map(|(section, key)| full_name(&section, &key)), ConfigFault::Syntax(text))
            };
            self.add(&span, key, fault);
            // Below a repeated header everything can be judged.
            if !(header && repeated) {
                self.broken.lines.insert(line);
            }
            if header && !repeated {
                self.broken.parts.push(line..self.broken.next_header(line));
            }
        }
    }

    /// The text of a line, without what surrounds it.
    fn line(&self, number: usize) -> &str {
        let rest = self.text.get(self.lines.start(number)..).unwrap_or_default();
        rest.lines().next().unwrap_or_default().trim()
    }

    /// Looks for sections and keys that do not exist, or stand at the wrong place.
    pub(super) fn check_names(&mut self, file: &DeTable<'_>) {
        for (section, value) in file {
            if self.found.len() >= MISTAKES_MAX {
                return;
            }
            let name = section.get_ref().as_ref();
            let Some((_, keys)) = SECTIONS.iter().find(|(known, _)| *known == name) else {
                let fault = unknown_section(name, value.get_ref());
                self.add(&section.span(), Some(name.to_owned()), fault);
                continue;
            };
            for key in tables(value.get_ref()).into_iter().flat_map(DeTable::keys) {
                let typed = key.get_ref().as_ref();
                if !keys.contains(&typed) {
                    let fault = unknown_key(typed, keys);
                    self.add(&key.span(), Some(full_name(name, typed)), fault);
                }
            }
        }
    }

    /// The table of a section of which there is one.
    pub(super) fn table<'t, 'i>(
        &mut self,
        file: &'t DeTable<'i>,
        section: &'static str,
    ) -> Option<&'t DeTable<'i>> {
        let (name, value) = file.get_key_value(section)?;
        let fault = match value.get_ref() {
            DeValue::Table(table) => return Some(table),
            DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
                ConfigFault::SeveralOfOne(section)
            }
            _ => ConfigFault::NotASection(format!("[{section}]")),
        };
        self.add(&name.span(), Some(section.to_owned()), fault);
        tables(value.get_ref()).into_iter().next()
    }

    /// The tables of a section of which there may be several, and where each stands.
    pub(super) fn tables<'t, 'i>(
        &mut self,
        file: &'t DeTable<'i>,
        section: &'static str,
    ) -> Vec<(&'t DeTable<'i>, Range<usize>)> {
        let Some((name, value)) = file.get_key_value(section) else { return Vec::new() };
        let key = || Some(section.to_owned());
        match value.get_ref() {
            DeValue::Table(table) => {
                self.add(&name.span(), key(), ConfigFault::OneOfSeveral(section));
                vec![(table, value.span())]
            }
            DeValue::Array(array) => {
                if array.is_empty() && section == "listener" {
                    self.add(&name.span(), key(), ConfigFault::NoListener);
                }
                let mut found = Vec::new();
                for item in array.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => found.push((table, item.span())),
                        _ => {
                            let fault = ConfigFault::NotASection(in_brackets(section));
                            self.add(&item.span(), key(), fault);
                        }
                    }
                }
                found
            }
            _ => {
                let fault = ConfigFault::NotASection(in_brackets(section));
                self.add(&value.span(), key(), fault);
                Vec::new()
            }
        }
    }

    /// A value, if there is one and it is of its key's kind.
    pub(super) fn value<T: DeserializeOwned + Kind>(
        &mut self,
        section: &str,
        key: &str,
        value: Option<&Spanned<DeValue<'_>>>,
    ) -> Option<Spanned<T>> {
        let value = value?;
        match T::deserialize(value.clone().into_deserializer()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(error) => {
                let mut text = error.message().to_owned();
                let told = [T::EXPECTED, "one of \"", "(known: "];
                if !told.iter().any(|words| text.contains(words)) {
                    let _ = write!(text, ": this key takes {}", T::EXPECTED);
                }
                self.add(
                    &value.span(),
                    Some(full_name(section, key)),
                    ConfigFault::WrongType(text),
                );
                None
            }
        }
    }

    /// The options of protocols in the table of a listener. Which of them its own protocol has is
    /// not known here; but a value that no protocol's option of that name takes is a mistake.
    pub(super) fn options(&mut self, table: &DeTable<'_>) -> Vec<TypedOption> {
        let mut found = Vec::new();
        for (key, value) in table {
            let mut options = options_named(key.get_ref()).peekable();
            let Some(&option) = options.peek() else { continue };
            let read = Scalar::deserialize(value.clone().into_deserializer());
            match read.ok().filter(|Scalar(read)| options.any(|option| (option.accepts)(read))) {
                Some(Scalar(read)) => {
                    let value = Spanned::new(value.span(), read);
                    found.push(TypedOption { name: option.name, value });
                }
                None => {
                    let fault = ConfigFault::WrongType(format!("this key takes {}", option.takes));
                    self.add(&value.span(), Some(full_name("listener", option.name)), fault);
                }
            }
        }
        found
    }
}

fn full_name(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
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

/// The sections that have a key of this name, as they are written.
fn sections_with(key: &str) -> Vec<String> {
    let having = SECTIONS.iter().filter(|(_, keys)| keys.contains(&key));
    having.map(|(section, _)| in_brackets(section)).collect()
}

/// A section's name as it is written above its keys.
pub(super) fn in_brackets(section: &str) -> String {
    if SEVERAL.contains(&section) { format!("[[{section}]]") } else { format!("[{section}]") }
}

fn unknown_section(name: &str, value: &DeValue<'_>) -> ConfigFault {
    let is_table = value.is_table() || value.is_array();
    let places = sections_with(name);
    if !is_table && !places.is_empty() {
        return ConfigFault::Outside(places);
    }
    let sections = SECTIONS.iter().map(|(known, _)| *known);
    let keys = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().copied());
    if is_table {
        ConfigFault::UnknownSection(nearest(name, sections).map(in_brackets))
    } else {
        // One key too many that stands above all sections.
        let key = nearest(name, keys);
        let places = key.map(sections_with).unwrap_or_default();
        ConfigFault::UnknownKey(key.map(|key| format!("{key} in {}", places.join(" or "))))
    }
}

fn unknown_key(typed: &str, keys: &'static [&'static str]) -> ConfigFault {
    let places = sections_with(typed);
    if places.is_empty() {
        let meant = nearest(typed, keys.iter().copied());
        ConfigFault::UnknownKey(meant.map(str::to_owned))
    } else {
        ConfigFault::OtherSection(places)
    }
}

/// The section and key that begin in a line.
fn key_of_line(lines: &Lines, file: &DeTable<'_>, line: usize) -> Option<(String, String)> {
    let begins = |span: Range<usize>| lines.number(span.start) == line;
    for (section, value) in file {
        for key in tables(value.get_ref()).into_iter().flat_map(DeTable::keys) {
            if begins(key.span()) {
                return Some((section.get_ref().to_string(), key.get_ref().to_string()));
            }
        }
        if begins(section.span()) && !value.get_ref().is_table() && !value.get_ref().is_array() {
            return Some((String::new(), section.get_ref().to_string()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::file::ConfigFile;
    use super::*;

    fn said(text: &str) -> Vec<String> {
        match ConfigFile::parse(Path::new("f"), text.to_owned()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ConfigError::to_string).collect(),
        }
    }

    #[test]
    fn brackets_that_are_one_too_few_or_too_many_are_told() {
        let single = "f:1: listener: write [[listener]], in double brackets, above each listener";
        assert_eq!(said("[listener]\nprotocol = \"phpmq\"\n"), [single]);
        assert_eq!(said("listener.protocol = \"phpmq\"\n"), [single]);
        let two = said("[listener]\nprotocol = \"phpmq\"\n[listener]\nprotocol = \"console\"\n");
        assert!(two.contains(&single.replace(":1:", ":3:")), "{two:?}");
        // What else is wrong in there is told as well.
        let more = said("[listener]\nprotocl = \"phpmq\"\n");
        let key = "f:2: listener.protocl: unknown key, did you mean protocol?";
        assert_eq!(more, [single, key]);
        let one = "f:1: log: write [log], in single brackets: there is only one";
        assert_eq!(said("[[log]]\nlevel = \"info\"\n"), [one]);
        let section = "this is a section: write [log] in a line of its own above its keys";
        assert_eq!(said("log = \"info\"\n"), [format!("f:1: log: {section}")]);
        assert!(said("listener = []\n")[0].contains("an empty list"));
        assert!(said("listener = [1]\n")[0].contains("write [[listener]] in a line of its own"));
        let meant = "f:1: listeners: unknown section, did you mean [[listener]]?";
        assert_eq!(said("[[listeners]]\n"), [meant]);
    }

    #[test]
    fn a_key_at_the_wrong_place_is_told_where_it_belongs() {
        assert_eq!(
            said("durability = \"sync\"\n"),
            ["f:1: durability: this key belongs in a section: move it below [storage] or \
              [[listener]]"]
        );
        assert_eq!(
            said("durabilty = \"sync\"\n"),
            ["f:1: durabilty: unknown key, did you mean durability in [storage] or [[listener]]?"]
        );
        assert_eq!(
            said("[limits]\nlevel = \"info\"\n"),
            ["f:2: limits.level: not a key of this section but of [log]"]
        );
        assert_eq!(said("xyzzy = 1\n"), ["f:1: xyzzy: unknown key"]);
    }

    #[test]
    fn what_is_no_toml_is_told_with_what_to_write() {
        for (line, wanted) in [
            (
                "[[listener]]\nmode = 0660",
                "listener.mode: this value needs quotes: write mode = \"0660\"",
            ),
            ("[limits]\nmax_memory = 64MiB # of 1 GiB", ": write max_memory = \"64MiB\""),
            ("[log]\nlevel = warn", ": write level = \"warn\""),
            ("[storage]\nsnapshot_interval = 50ms", ": write snapshot_interval = \"50ms\""),
            ("[storage]\ndurability = “sync”", ": write durability = \"sync\""),
            ("[[listener]]\naddress = 127.0.0.1:1", ": write address = \"127.0.0.1:1\""),
            ("[[listener]]\nallow_remote = yes", ": this key takes true or false, without quotes"),
            ("[limits]\nmax_queues = 1 000", ": this key takes a whole number, 0 or more"),
            ("[log]\nlevel = ", ": this key takes \"crit\", "),
        ] {
            let said = said(&format!("{line}\n"));
            assert_eq!(said.len(), 1, "{line}: {said:?}");
            assert!(said[0].contains("f:2: ") && said[0].contains(wanted), "{said:?}");
        }
        assert_eq!(
            said("[log]\nlevel = \"info\"\nlevel = \"warn\"\n"),
            ["f:3: level: appears a second time"]
        );
    }

    #[test]
    fn kinds_of_values_are_told_apart() {
        for (line, wanted) in [
            ("allow_remote = \"yes\"", "true or false, without quotes"),
            ("address = 9100", "a string in double quotes"),
            ("mode = 660", "permissions as octal digits in a string, like \"0660\""),
            ("durability = \"SYNC\"", "did you mean \"sync\"?"),
            ("durability = 1", "one of \"periodic\", \"write\", \"sync\""),
            ("revision = 3", "\"auto\", 1 or 2"),
        ] {
            let said = said(&format!("[[listener]]\n{line}\n"));
            assert_eq!(said.len(), 1, "{line}: {said:?}");
            assert!(said[0].contains("f:2: listener.") && said[0].contains(wanted), "{said:?}");
        }
    }

    #[test]
    fn the_rest_of_a_file_is_judged_after_a_broken_value_but_not_after_a_broken_header() {
        let both = said("[[listener]]\nmode = 0660\n[log]\nlevl = 1\n");
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[1].starts_with("f:4: log.levl: unknown key, did you mean level?"));
        let header = said("[limits]\nmax_windw = 1\n[storage\nlevl = 1\n");
        assert_eq!(header.len(), 2, "{header:?}");
        assert!(header[0].starts_with("f:2: ") && header[1].starts_with("f:3: not TOML: unclosed"));
        // The next header begins anew.
        let after = said("[storage\nlevl = 1\n[queue]\nprioriti = 1\n");
        assert_eq!(after.len(), 2, "{after:?}");
        assert!(after[1].starts_with("f:4: queue.prioriti: unknown key"), "{after:?}");
    }

    #[test]
    fn what_stands_below_a_repeated_header_is_judged_too() {
        let twice = said("[log]\nlevel = \"info\"\n[log]\nlevl = 1\nformat = 2\n[queue]\nx = 1\n");
        assert_eq!(twice.len(), 4, "{twice:?}");
        assert_eq!(twice[0], "f:3: log: appears a second time");
        assert!(twice[1].starts_with("f:4: log.levl: unknown key"), "{twice:?}");
        assert!(twice[2].starts_with("f:5: log.format: "), "{twice:?}");
        assert!(twice[3].starts_with("f:7: queue.x: "), "{twice:?}");
        let listener = "[listener]\nmode = 0660\nport = 1\n";
        let listeners = "[[listener]]\nprotocol = 1\n";
        let other = listener.replace("0660", "5");
        for (text, wanted) in [
            (format!("{listeners}{listener}"), ["f:2:", "f:3:", "f:4:", "f:5:"].as_slice()),
            (format!("{listener}{listeners}"), &["f:1:", "f:2:", "f:3:", "f:5:"]),
            (format!("{listener}{other}"), &["f:1:", "f:2:", "f:3:", "f:4:", "f:5:", "f:6:"]),
        ] {
            let said = said(&text);
            let lines: Vec<_> = said.iter().map(|text| &text[..4]).collect();
            assert_eq!(lines, wanted, "{said:?}");
        }
        let thrice = said("[log]\n[log]\na = 1\n[log]\nb = 1\n");
        assert_eq!(thrice.len(), 4, "{thrice:?}");
    }

    #[test]
    fn a_file_of_mistakes_ends_somewhere() {
        let text: String = (0..100_000).map(|n| format!("key{n} = 1\n")).collect();
        assert_eq!(said(&text).len(), MISTAKES_MAX);
        assert_eq!(said(&"a b\n".repeat(100_000)).len(), MISTAKES_MAX);
    }
}
