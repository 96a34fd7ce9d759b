//! The keys of `[[listener]]` that one protocol alone has: each stands in its row of the table.
//!
//! The configuration reads, checks, prints and explains them by that row, so that it knows none of
//! them by name; the protocol finds their values in its [`Setup`](super::Setup).

use std::borrow::Cow;

/// A value as the configuration file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A string in quotes.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// Strings in brackets.
    List(Vec<String>),
}

/// A key that one protocol alone has.
#[derive(Debug)]
pub struct ProtocolOption {
    /// The key.
    pub name: &'static str,
    /// What it takes, as a noun phrase for whoever has typed something else.
    pub takes: &'static str,
    /// What it is when the file says nothing.
    pub default: OptionValue,
    /// Whether it takes this value.
    pub accepts: fn(&OptionValue) -> bool,
}

/// What one listener has for each option of its protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionValues(Vec<(&'static str, OptionValue)>);

impl OptionValues {
    /// The defaults of these options.
    pub fn defaults(options: &[ProtocolOption]) -> OptionValues {
        OptionValues(options.iter().map(|option| (option.name, option.default.clone())).collect())
    }

    /// Gives an option another value, which it accepts.
    pub fn set(&mut self, option: &ProtocolOption, value: OptionValue) {
        debug_assert!((option.accepts)(&value), "{} = {value:?}", option.name);
        if let Some(found) = self.0.iter_mut().find(|(name, _)| *name == option.name) {
            found.1 = value;
        }
    }

    /// The value of an option; `None` when the protocol has none of this name.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All of them, in the order of the protocol's row.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PROTOCOLS;

    const OPTIONS: [ProtocolOption; 2] = [
        ProtocolOption {
            name: "size",
            takes: "a number",
            default: OptionValue::Number(7),
            accepts: |value| matches!(value, OptionValue::Number(_)),
        },
        ProtocolOption {
            name: "quiet",
            takes: "true or false",
            default: OptionValue::Flag(false),
            accepts: |value| matches!(value, OptionValue::Flag(_)),
        },
    ];

    #[test]
    fn an_option_has_its_default_until_it_is_set() {
        let mut options = OptionValues::defaults(&OPTIONS);
        assert_eq!(options.get("size"), Some(&OptionValue::Number(7)));
        options.set(&OPTIONS[1], OptionValue::Flag(true));
        assert_eq!(options.get("quiet"), Some(&OptionValue::Flag(true)));
        assert_eq!(options.get("other"), None);
        let names: Vec<&str> = options.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["size", "quiet"]);
    }

    #[test]
    fn every_protocols_options_accept_their_defaults() {
        for option in PROTOCOLS.iter().flat_map(|protocol| protocol.options) {
            assert!((option.accepts)(&option.default), "{}", option.name);
        }
    }
}
