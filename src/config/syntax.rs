//! What to write instead of a line that is not TOML, where that can be told: most of them are a
//! value without quotes, or a habit from another format.

use super::file::{About, SECTIONS, about};
use super::mistakes::in_brackets;

/// What TOML's parser says of a line, and what to write instead. The key, with its section, is the
/// one that the parser has seen begin there.
pub(super) fn explain(message: &str, key: Option<&(String, String)>, line: &str) -> String {
    let fault = format!("not TOML: {}", message.trim_end_matches(", expected nothing"));
    let value = key.and_then(|_| line.split_once('=')).map(|(_, value)| unquoted(value));
    if let (Some((section, key)), Some(value)) = (key, value) {
        return match about(section, key, value) {
            Some(about) if about.wants_quotes && !value.contains(['"', '\\']) => {
                format!("this value needs quotes: write {key} = \"{value}\"")
            }
            Some(about) => format!("{fault}: this key takes {}", about.expected),
            None => fault,
        };
    }
    match meant(line) {
        Some(meant) => format!("not TOML: write {meant}"),
        None if line.starts_with([';', '/', '-']) => format!("{fault} (a comment begins with #)"),
        None => fault,
    }
}

/// A value without its remark and the quotes around it, those of word processors included.
fn unquoted(value: &str) -> &str {
    let value = value.split('#').next().unwrap_or_default().trim();
    value.trim_matches(['"', '\'', '“', '”', '„', '‘', '’'])
}

/// The line that was meant by `key: value`, `key value` or `section:`.
fn meant(line: &str) -> Option<String> {
    let word_ends = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (word, rest) = line.split_at(word_ends.unwrap_or(line.len()));
    let value = unquoted(rest.trim_start_matches([':', '=', ' ', '\t']));
    let is_section = SECTIONS.iter().any(|(section, _)| *section == word);
    if is_section && value.is_empty() {
        return Some(in_brackets(word));
    }
    let has_key = SECTIONS.iter().filter(|(_, keys)| keys.contains(&word));
    let found = has_key.filter_map(|(section, _)| about(section, word, value)).next()?;
    Some(match found {
        About { wants_quotes: true, .. } if !value.contains(['"', '\\']) => {
            format!("{word} = \"{value}\"")
        }
        About { expected, .. } => format!("{word} = and {expected}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_formats_are_told_in_toml() {
        for (line, wanted) in [
            ("level: info", "write level = \"info\""),
            ("level: \"info\" # of six", "write level = \"info\""),
            ("format plain", "write format = \"plain\""),
            ("log:", "write [log]"),
            ("listener", "write [[listener]]"),
            ("max_window: 5", "write max_window = and a whole number"),
            ("; a remark", "a comment begins with #"),
            ("// a remark", "a comment begins with #"),
        ] {
            let said = explain("key with no value, expected `=`", None, line);
            assert!(said.starts_with("not TOML: ") && said.contains(wanted), "{line}: {said}");
        }
        assert_eq!(explain("nothing known", None, "xyzzy: 1"), "not TOML: nothing known");
    }
}
