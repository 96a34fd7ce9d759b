//! The parameters behind the question mark: each known, each at most once.

use super::path::decoded;
use super::problem::Problem;
use crate::protocol::wire::decimal;
use crate::words::durability::Durability;

/// The longest duration, in milliseconds: a hundred years.
const DURATION_MS_MAX: u64 = 100 * 366 * 24 * 60 * 60 * 1_000;

/// Parameters that have not been asked for yet.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, Vec<u8>)>,
}

impl Query {
    /// Reads them.
    pub(super) fn parse(text: &str) -> Result<Query, Problem> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let broken = || Problem::parameter(name, "this is not percent-encoded UTF-8");
            let value = decoded(value, true).ok_or_else(broken)?;
            let name = decoded(name, true).and_then(|name| String::from_utf8(name).ok());
            let name = name.ok_or_else(broken)?;
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Problem::parameter(&name, "the parameter is there twice"));
            }
            pairs.push((name, value));
        }
        Ok(Query { pairs })
    }

    /// The value of one as bytes.
    pub(super) fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.pairs.iter().position(|(other, _)| other == name)?;
        Some(self.pairs.remove(at).1)
    }

    /// The value of one as text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let text = String::from_utf8(value);
        text.map(Some).map_err(|_| Problem::parameter(name, "this is not UTF-8"))
    }

    /// A whole number, at most `max`.
    pub(super) fn number(&mut self, name: &str, max: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let number = decimal(&value).filter(|number| *number <= max);
        let bad = || Problem::parameter(name, format!("this is not a number from 0 to {max}"));
        number.map(Some).ok_or_else(bad)
    }

    /// A duration, in milliseconds, at least `min_ms`.
    pub(super) fn duration(&mut self, name: &str, min_ms: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let millis = millis(&value).filter(|millis| (min_ms..=DURATION_MS_MAX).contains(millis));
        let bad = || {
            let text =
                "this is not a duration like 1500ms, 30s, 5m, 2h or a number of milliseconds";
            let at_least =
                if min_ms > 0 { format!(", of {min_ms} or more") } else { String::new() };
            Problem::parameter(name, format!("{text}{at_least}"))
        };
        millis.map(Some).ok_or_else(bad)
    }

    /// How safe what was done has to be before it is told.
    pub(super) fn durability(&mut self) -> Result<Option<Durability>, Problem> {
        match self.bytes("durability").as_deref() {
            None => Ok(None),
            Some(b"write") => Ok(Some(Durability::Write)),
            Some(b"sync") => Ok(Some(Durability::Sync)),
            Some(_) => Err(Problem::parameter("durability", "this is neither write nor sync")),
        }
    }

    /// One of a few words, or the first of them.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
        default: T,
    ) -> Result<T, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(default) };
        let found = words.iter().find(|(word, _)| word.as_bytes() == value);
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let bad = || Problem::parameter(name, format!("this is none of: {}", known.join(", ")));
        found.map(|(_, meaning)| *meaning).ok_or_else(bad)
    }

    /// All whose names begin so, without that beginning.
    pub(super) fn all_below(&mut self, start: &str) -> Vec<(String, Vec<u8>)> {
        let (below, others) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition(|(name, _)| name.starts_with(start));
        self.pairs = others;
        let below: Vec<(String, Vec<u8>)> = below;
        let named = below.into_iter().map(|(name, value)| {
            let name = name.get(start.len()..).unwrap_or_default().to_owned();
            (name, value)
        });
        named.collect()
    }

    /// Nothing is left that nobody knows.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::parameter(name, "there is no such parameter here")),
        }
    }
}

fn millis(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        b"" | b"ms" => 1,
        b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        _ => return None,
    };
    decimal(number)?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_by_name_and_none_is_left() {
        let mut query =
            Query::parse("delay=5s&priority=7&attribute.a%20b=x+y&attribute.c=").unwrap();
        assert_eq!(query.duration("delay", 0), Ok(Some(5_000)));
        assert_eq!(query.number("priority", 9), Ok(Some(7)));
        assert_eq!(query.number("priority", 9), Ok(None));
        assert_eq!(
            query.all_below("attribute."),
            [("a b".to_owned(), b"x y".to_vec()), ("c".to_owned(), Vec::new())]
        );
        assert_eq!(query.end(), Ok(()));
        assert!(Query::parse("x=1").unwrap().end().is_err());
    }

    #[test]
    fn what_is_twice_there_or_no_text_is_refused() {
        for text in ["a=1&a=2", "a=1&%61=2", "a=%", "%=1", "%ff=1"] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, millis) in [("0", 0), ("1500", 1_500), ("1500ms", 1_500), ("2h", 7_200_000)] {
            let mut query = Query::parse(&format!("d={text}")).unwrap();
            assert_eq!(query.duration("d", 0), Ok(Some(millis)));
        }
        for text in ["", "s", "1.5s", "-1s", "1S", "1 s", "99999999999999d", "18446744073709551615"]
        {
            let mut query = Query::parse(&format!("d={text}")).unwrap();
            assert!(query.duration("d", 0).is_err(), "{text}");
        }
        assert!(Query::parse("d=0").unwrap().duration("d", 1).is_err());
    }
}
