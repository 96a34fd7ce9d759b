//! The JSON bodies of requests: one object, whose members are taken by name and kind, so that all
//! that is wrong with them is said at once.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::JSON_DEPTH_MAX;
use super::problem::{Code, Problem, error};

/// Members that have not been asked for yet, and what is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: Vec<(String, Value)>,
    errors: Vec<Value>,
}

impl Members {
    /// Reads a body; an empty one stands for an empty object.
    pub(super) fn parse(body: &[u8]) -> Result<Members, Problem> {
        if body.is_empty() {
            return Ok(Members::default());
        }
        check_depth(body)?;
        let Object(members) = serde_json::from_slice(body).map_err(|error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            Problem::new(Code::BadJson, error.to_string()).with("at", at)
        })?;
        Ok(Members { members, errors: Vec::new() })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.members.iter().position(|(other, _)| other == name)?;
        // What is null is not there.
        Some(self.members.remove(at).1).filter(|value| !value.is_null())
    }

    fn fail(&mut self, name: &str, text: &str) {
        self.errors.push(error(&format!("/{name}"), text));
    }

    /// A whole number that is not negative.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.take(name)?;
        let number = value.as_u64();
        if number.is_none() {
            self.fail(name, "this is not a whole number, 0 or more");
        }
        number
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.fail(name, "this is neither true nor false");
        }
        flag
    }

    /// Whether a member is there that is known and not supported.
    pub(super) fn refuse(&mut self, name: &'static str) -> Result<(), Problem> {
        match self.take(name) {
            None => Ok(()),
            Some(_) => {
                let text = format!("the member {name} is not supported yet");
                Err(Problem::new(Code::NotSupported, text).with("name", name))
            }
        }
    }

    /// Nothing is wrong, and nothing is left that nobody knows.
    pub(super) fn end(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.members) {
            self.fail(&name, "there is no such member here");
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        let text = "the JSON does not say what it should";
        Err(Problem::new(Code::Invalid, text).with("errors", self.errors))
    }
}

/// An object as a list: so one that has a member twice is seen.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(format_args!("the member {name:?} is there twice")));
            }
            members.push((name, value));
        }
        Ok(Object(members))
    }
}

/// Looks at brackets outside of strings, before anything is built of them.
fn check_depth(body: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            let text = format!("brackets are nested deeper than {JSON_DEPTH_MAX}");
            return Err(Problem::new(Code::BadJson, text).with("at", Value::Null));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_taken_by_name_and_kind() {
        let body = br#"{"max":5,"dry_run":true,"reason":"x","for_ms":null}"#;
        let mut members = Members::parse(body).unwrap();
        assert_eq!(members.number("max"), Some(5));
        assert_eq!(members.flag("dry_run"), Some(true));
        assert!(members.refuse("reason").is_err());
        assert_eq!(members.number("for_ms"), None);
        assert_eq!(members.end(), Ok(()));
        assert_eq!(Members::parse(b"").unwrap().end(), Ok(()));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let mut members = Members::parse(br#"{"max":-1,"dry_run":5,"maximum":1}"#).unwrap();
        assert_eq!((members.number("max"), members.flag("dry_run")), (None, None));
        let answer = members.end().unwrap_err().answer();
        let text = String::from_utf8(answer.body).unwrap();
        for at in ["\"/max\"", "\"/dry_run\"", "\"/maximum\""] {
            assert!(text.contains(at), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_bad_json() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
        for body in
            ["[]", "1", "{", "{\"a\":1,\"a\":2}", "{}x", "\u{feff}{}", "{\"a\":\"\u{1}\"}", &deep]
        {
            let problem = Members::parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code, Code::BadJson, "{body}");
        }
        assert!(Members::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(Members::parse(br#"{"a":"[[[[[\"[[[[["}"#).is_ok());
    }
}
