//! Answers of the core as JSON: identifiers are texts, counts are numbers, moments end in `_at` and
//! durations in `_ms`, and what is not there is null.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::SHOWN_BODY_BYTES_MAX;
use super::cursor;
use super::moment::moment;
use crate::words::change::{Attributes, MessageState};
use crate::words::command::Delivery;
use crate::words::refusal::Refusal;
use crate::words::settings::QueueLimits;
use crate::words::statistics::{
    HolderFigures, MessageStatistics, QueuePage, QueueStatistics, ServerStatistics, StateCounts,
};

/// A state in the word of this interface.
pub(super) fn state(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Reserved => "reserved",
        MessageState::Delayed => "delayed",
        MessageState::Buried => "buried",
    }
}

/// The state that such a word says.
pub(super) fn state_of(word: &str) -> Option<MessageState> {
    use MessageState::{Buried, Delayed, Ready, Reserved};
    [Ready, Reserved, Delayed, Buried].into_iter().find(|known| state(*known) == word)
}

/// Why the daemon is not ready, if it is not.
pub(super) fn reasons(figures: &ServerStatistics) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    if figures.draining {
        reasons.push("draining");
    }
    if figures.store.degraded {
        reasons.push("store");
    } else if figures.refused == Some(Refusal::StoreUnavailable) {
        reasons.push("disk_floor");
    }
    reasons
}

/// Why puts are refused now, in the words of metrics.
fn refusing(refusal: Option<Refusal>) -> Vec<&'static str> {
    match refusal {
        None => Vec::new(),
        Some(Refusal::Draining) => vec!["draining"],
        Some(Refusal::OutOfMemory) => vec!["memory"],
        Some(Refusal::OutOfIds) => vec!["ids"],
        Some(Refusal::TooManyQueues) => vec!["queues"],
        Some(_) => vec!["disk"],
    }
}

fn counts(counts: &StateCounts) -> Value {
    let StateCounts { ready, reserved, delayed, buried, .. } = counts;
    json!({"ready": ready, "reserved": reserved, "delayed": delayed, "buried": buried})
}

/// The daemon's figures.
pub(super) fn status(figures: &ServerStatistics) -> Value {
    let (process, store) = (&figures.process, &figures.store);
    let uptime_ms = i64::try_from(process.uptime_ms).unwrap_or(i64::MAX);
    let returned: Map<String, Value> = figures
        .returns
        .iter()
        .map(|(cause, count)| (cause.replace(' ', "_"), count.into()))
        .collect();
    let connections: Map<String, Value> = figures
        .connections_by_protocol
        .iter()
        .map(|(protocol, count)| ((*protocol).to_owned(), (*count).into()))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": process.instance,
        "started_at": moment(figures.wall_ms.saturating_sub(uptime_ms)),
        "now": moment(figures.wall_ms),
        "ready": reasons(figures).is_empty(),
        "draining": figures.draining,
        "refusing": refusing(figures.refused),
        "messages": counts(&figures.messages),
        "body_bytes": figures.body_bytes,
        "queues": figures.queues,
        "connections": connections,
        "connections_refused": figures.connections_refused,
        "protocol_errors": figures.protocol_errors,
        "put": figures.messages_put,
        "joined": figures.messages_joined,
        "expired": figures.messages_expired,
        "set_aside": figures.messages_set_aside,
        "dead_lettered": figures.messages_dead_lettered,
        "returned": returned,
        "memory": {
            "resident_bytes": process.resident_bytes,
            "resident_peak_bytes": process.resident_peak_bytes,
        },
        "store": {
            "on_disk": store.on_disk,
            "bytes": store.file_bytes,
            "wal_bytes": store.wal_bytes,
            "commits": store.commits,
            "rows_written": store.rows_written,
            "degraded": store.degraded,
            "wal_held_up": store.log_held_up,
        },
    })
}

/// A page of queues. Who holds what of each is only told of one alone.
pub(super) fn queues(page: &QueuePage) -> Value {
    let items = page.queues.iter().map(|figures| {
        let mut item = queue(figures);
        if let Some(holders) = item.get_mut("holders") {
            *holders = Value::Null;
        }
        item
    });
    let items: Vec<Value> = items.collect();
    json!({"items": items, "next": page.next.as_ref().map(cursor::write)})
}

/// A queue's figures.
pub(super) fn queue(figures: &QueueStatistics) -> Value {
    let pause = match (figures.is_held, figures.pause_left_ms) {
        (false, 0) => Value::Null,
        (true, _) => json!({"until_at": null}),
        (false, left_ms) => json!({"until_at": later(figures.wall_ms, left_ms)}),
    };
    let QueueLimits { high, normal, low } = figures.limits;
    let limits = match figures.limits {
        QueueLimits::NONE => Value::Null,
        _ => json!({"high": high, "normal": normal, "low": low}),
    };
    let holders: Vec<Value> =
        figures.holders.iter().map(|held| holder(figures.wall_ms, held)).collect();
    json!({
        "name": figures.name.as_str(),
        "messages": counts(&figures.messages),
        "body_bytes": figures.body_bytes,
        "oldest_ready_age_ms": figures.oldest_ready_ms,
        "head": figures.head.map(|id| id.to_string()),
        "put": figures.messages_put,
        "producers": figures.using,
        "consumers": figures.watching,
        "waiting": figures.waiting,
        "holders": holders,
        "pause": pause,
        "limits": limits,
    })
}

fn holder(wall_ms: i64, held: &HolderFigures) -> Value {
    json!({
        "id": held.message.to_string(),
        "connection": held.connection.to_string(),
        "protocol": held.protocol,
        "peer": held.peer,
        "since_at": held.held_ms.map(|held_ms| earlier(wall_ms, held_ms)),
        "until_at": held.left_ms.map(|left_ms| later(wall_ms, left_ms)),
    })
}

/// A message.
pub(super) fn message(figures: &MessageStatistics, delivery: &Delivery<'_>) -> Value {
    let MessageStatistics { wall_ms, time_left_ms, counters, failures, .. } = figures;
    let until = |wanted| {
        let is_known = figures.state == wanted && *time_left_ms > 0;
        is_known.then(|| later(*wall_ms, *time_left_ms))
    };
    // The clock of a message that was set aside stands still.
    let expires_at = match figures.state {
        MessageState::Buried => None,
        _ => delivery.time_to_live_ms.map(|left_ms| later(*wall_ms, left_ms)),
    };
    let last_return = failures.cause.map(|cause| {
        let text = failures.reason.as_ref().map(|reason| reason.as_str().to_owned());
        json!({"cause": cause.word().replace(' ', "_"), "text": text})
    });
    let (body, body_base64) = body(&delivery.body);
    json!({
        "id": figures.id.to_string(),
        "queue": figures.queue.as_str(),
        "state": state(figures.state),
        "priority": figures.priority,
        "created_at": earlier(*wall_ms, figures.age_ms),
        "due_at": until(MessageState::Delayed),
        "until_at": until(MessageState::Reserved),
        "expires_at": expires_at,
        "time_to_run_ms": figures.time_to_run_ms,
        "reserves": counters.reserves,
        "timeouts": counters.timeouts,
        "releases": counters.releases,
        "buries": counters.buries,
        "kicks": counters.kicks,
        "attempts": failures.attempts,
        "last_return": last_return,
        "origin": failures.origin.as_ref().map(|name| name.as_str()),
        "attributes": attributes(delivery.attributes),
        "body_bytes": delivery.body.len(),
        "body": body,
        "body_base64": body_base64,
    })
}

/// A message's content as text, else as base64; neither where it is large.
fn body(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    if bytes.len() as u64 > SHOWN_BODY_BYTES_MAX {
        return (None, None);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn attributes(attributes: &Attributes) -> Vec<Value> {
    let entries = attributes.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        match std::str::from_utf8(value) {
            Ok(text) => json!({"name": name, "value": text}),
            Err(_) => json!({"name": name, "value_base64": STANDARD.encode(value)}),
        }
    });
    entries.collect()
}

fn later(wall_ms: i64, millis: u64) -> String {
    moment(wall_ms.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
}

fn earlier(wall_ms: i64, millis: u64) -> String {
    moment(wall_ms.saturating_sub(i64::try_from(millis).unwrap_or(i64::MAX)))
}
