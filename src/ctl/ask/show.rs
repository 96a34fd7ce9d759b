//! Answers as sentences for people, and as tables for people and scripts.
//!
//! On a terminal a table has a header and columns; elsewhere it has neither, and tabs.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::words::printable::safe;

/// The columns of queues: a heading, and the place in an answer.
const QUEUE_COLUMNS: [(&str, &str); 8] = [
    ("QUEUE", "/name"),
    ("READY", "/messages/ready"),
    ("RESERVED", "/messages/reserved"),
    ("DELAYED", "/messages/delayed"),
    ("BURIED", "/messages/buried"),
    ("OLDEST", "/oldest_ready_age_ms"),
    ("BYTES", "/body_bytes"),
    ("CONSUMERS", "/consumers"),
];

/// A value as it is printed: a text without its quotes, and nothing for what is not there.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => safe(text),
        Some(other) => safe(&other.to_string()),
    }
}

fn at(value: &Value, place: &str) -> String {
    plain(value.pointer(place))
}

/// A table of queues.
pub(super) fn queues(items: &[Value], out: &mut dyn Write) -> io::Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let rows = items.iter().map(|item| QUEUE_COLUMNS.map(|(_, place)| at(item, place)));
    let headings = QUEUE_COLUMNS.map(|(heading, _)| heading.to_owned());
    let rows: Vec<[String; 8]> = is_terminal.then_some(headings).into_iter().chain(rows).collect();
    for row in &rows {
        if !is_terminal {
            writeln!(out, "{}", row.join("\t"))?;
            continue;
        }
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            line += &match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The daemon: what is wrong first.
pub(super) fn status(figures: &Value, out: &mut dyn Write) -> io::Result<()> {
    let list = figures.pointer("/refusing").and_then(Value::as_array);
    let refusing: Vec<String> = list.into_iter().flatten().map(|why| plain(Some(why))).collect();
    if !refusing.is_empty() {
        writeln!(out, "! new messages are refused: {}", refusing.join(", "))?;
    }
    for (place, text) in [
        ("/store/degraded", "! the disk does not take what is to be kept"),
        ("/store/wal_held_up", "! another program keeps the database's log from shrinking"),
    ] {
        if figures.pointer(place) == Some(&Value::Bool(true)) {
            writeln!(out, "{text}")?;
        }
    }
    let ready = figures.pointer("/ready") == Some(&Value::Bool(true));
    let word = if ready { "ready" } else { "not ready" };
    let (version, since) = (at(figures, "/version"), at(figures, "/started_at"));
    writeln!(out, "phpmqd {version}, {word}, since {since}")?;
    for (name, place) in [
        ("queues", "/queues"),
        ("messages ready", "/messages/ready"),
        ("messages reserved", "/messages/reserved"),
        ("messages delayed", "/messages/delayed"),
        ("messages buried", "/messages/buried"),
        ("body bytes", "/body_bytes"),
        ("messages put", "/put"),
        ("messages expired", "/expired"),
        ("messages set aside", "/set_aside"),
        ("memory bytes", "/memory/resident_bytes"),
        ("database bytes", "/store/bytes"),
    ] {
        writeln!(out, "{name}: {}", at(figures, place))?;
    }
    for (what, place) in [("connections", "/connections"), ("returned", "/returned")] {
        for (name, count) in figures.pointer(place).and_then(Value::as_object).into_iter().flatten()
        {
            if count != &Value::from(0) {
                writeln!(out, "{what}, {}: {count}", safe(&name.replace('_', " ")))?;
            }
        }
    }
    Ok(())
}

/// A queue, and why nothing moves if nothing does.
pub(super) fn queue(figures: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", at(figures, "/name"))?;
    for sentence in reasons(figures) {
        writeln!(out, "! {sentence}")?;
    }
    for (name, place) in [
        ("ready", "/messages/ready"),
        ("reserved", "/messages/reserved"),
        ("delayed", "/messages/delayed"),
        ("buried", "/messages/buried"),
        ("oldest ready, ms", "/oldest_ready_age_ms"),
        ("next message", "/head"),
        ("body bytes", "/body_bytes"),
        ("put", "/put"),
        ("consumers", "/consumers"),
        ("consumers waiting", "/waiting"),
    ] {
        writeln!(out, "{name}: {}", at(figures, place))?;
    }
    let holders = figures.pointer("/holders").and_then(Value::as_array);
    for holder in holders.into_iter().flatten() {
        let (id, peer) = (at(holder, "/id"), at(holder, "/peer"));
        let (protocol, until) = (at(holder, "/protocol"), at(holder, "/until_at"));
        writeln!(out, "held: {id} by {peer} ({protocol}) until {until}")?;
    }
    Ok(())
}

/// Why a queue does not move.
fn reasons(figures: &Value) -> Vec<&'static str> {
    let number = |place| figures.pointer(place).and_then(Value::as_u64).unwrap_or(0);
    let mut reasons = Vec::new();
    if figures.pointer("/pause").is_some_and(|pause| !pause.is_null()) {
        reasons.push("it is paused: nothing is handed out");
    } else if number("/messages/ready") > 0 {
        if number("/consumers") == 0 {
            reasons.push("it has no consumer");
        } else if number("/waiting") == 0 {
            reasons.push("no consumer waits for a message: all are at work, or do not ask");
        }
    } else if number("/messages/reserved") > 0 {
        reasons.push("nothing is ready, but messages are in consumers' hands");
    } else if number("/messages/delayed") > 0 {
        reasons.push("nothing is ready: all that it has is delayed or buried");
    } else if number("/messages/buried") > 0 {
        reasons.push("all that it has is buried: kick brings it back");
    }
    reasons
}

/// A message: its facts, its attributes and its content.
pub(super) fn message(figures: &Value, out: &mut dyn Write) -> io::Result<()> {
    for (name, value) in figures.as_object().into_iter().flatten() {
        let is_shown =
            !["attributes", "body", "body_base64", "last_return"].contains(&name.as_str());
        if is_shown && !value.is_null() {
            writeln!(out, "{}: {}", safe(&name.replace('_', " ")), plain(Some(value)))?;
        }
    }
    if let Some(last) = figures.pointer("/last_return").filter(|last| !last.is_null()) {
        writeln!(out, "last return: {} {}", at(last, "/cause"), at(last, "/text"))?;
    }
    for attribute in figures.pointer("/attributes").and_then(Value::as_array).into_iter().flatten()
    {
        let value = attribute.get("value").or_else(|| attribute.get("value_base64"));
        writeln!(out, "attribute {}: {}", at(attribute, "/name"), plain(value))?;
    }
    match figures.pointer("/body").and_then(Value::as_str) {
        Some(text) => writeln!(out, "\n{}", text.lines().map(safe).collect::<Vec<_>>().join("\n")),
        None => writeln!(out, "\n(no text, or a large one: --body prints it byte for byte)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(show: fn(&Value, &mut dyn Write) -> io::Result<()>, value: &Value) -> String {
        let mut out = Vec::new();
        show(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_queue_says_why_it_does_not_move() {
        for (value, words) in [
            (json!({"messages": {"ready": 1}, "consumers": 0}), "no consumer"),
            (json!({"messages": {"ready": 1}, "consumers": 2, "waiting": 0}), "all are at work"),
            (json!({"messages": {"ready": 1}, "pause": {"until_at": null}}), "paused"),
            (json!({"messages": {"reserved": 1}}), "consumers' hands"),
            (json!({"messages": {"delayed": 1}}), "delayed"),
            (json!({"messages": {"buried": 1}}), "kick"),
        ] {
            assert!(told(queue, &value).contains(words), "{value}");
        }
        assert!(!told(queue, &json!({"messages": {}})).contains('!'));
    }

    #[test]
    fn what_strangers_have_written_cannot_command_a_terminal() {
        let value = json!({"id": "1", "body": "a\u{1b}[2Jb", "attributes": [
            {"name": "x\u{1b}", "value": "y\u{202e}"}]});
        let text = told(message, &value);
        assert!(text.contains("a\\u{1b}[2Jb") && text.contains("y\\u{202e}"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_daemon_comes_first() {
        let value = json!({"ready": false, "refusing": ["draining"], "store": {"degraded": true}});
        let text = told(status, &value);
        let first: Vec<&str> = text.lines().take(2).collect();
        assert!(first.iter().all(|line| line.starts_with("! ")), "{text}");
    }
}
