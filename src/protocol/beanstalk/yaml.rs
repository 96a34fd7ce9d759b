//! Statistics in the original's YAML: `---`, then one `key: value` or `- name` a line, with the
//! original's keys in its order, since clients throw when one is missing.

use std::fmt::{Display, Write};

use super::is_tube_name;
use crate::words::change::MessageState;
use crate::words::statistics::{
    Counted, MessageStatistics, QueueStatistics, ServerStatistics, StateCounts, StoreFacts,
};

/// The start of a document.
const START: &str = "---\n";

struct Document(String);

impl Document {
    fn new() -> Document {
        Document(String::from(START))
    }

    fn line(&mut self, key: &str, value: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{key}: {value}");
    }

    /// Text between quotes, for values that a parser could take for something else.
    fn quoted(&mut self, key: &str, text: &str) {
        let mut value = String::with_capacity(text.len() + 2);
        for character in text.chars().filter(|character| !character.is_control()) {
            if matches!(character, '"' | '\\') {
                value.push('\\');
            }
            value.push(character);
        }
        self.line(key, format_args!("\"{value}\""));
    }

    fn messages(&mut self, messages: &StateCounts) {
        self.line("current-jobs-urgent", messages.urgent);
        self.line("current-jobs-ready", messages.ready);
        self.line("current-jobs-reserved", messages.reserved);
        self.line("current-jobs-delayed", messages.delayed);
        self.line("current-jobs-buried", messages.buried);
    }

    /// The original has no binlog index and no file size without `-b`. Our database is one file
    /// that does not rotate.
    fn store(&mut self, store: &StoreFacts) {
        self.line("binlog-oldest-index", u8::from(store.on_disk));
        self.line("binlog-current-index", u8::from(store.on_disk));
        self.line("binlog-records-migrated", store.rows_rewritten);
        self.line("binlog-records-written", store.rows_written);
        self.line("binlog-max-size", 0);
    }
}

/// `stats`.
pub(super) fn server(statistics: &ServerStatistics, body_bytes_max: usize) -> String {
    let mut out = Document::new();
    out.messages(&statistics.messages);
    for (key, counted) in [
        ("cmd-put", Counted::Put),
        ("cmd-peek", Counted::Peek),
        ("cmd-peek-ready", Counted::PeekReady),
        ("cmd-peek-delayed", Counted::PeekDelayed),
        ("cmd-peek-buried", Counted::PeekBuried),
        ("cmd-reserve", Counted::Reserve),
        ("cmd-reserve-with-timeout", Counted::ReserveWithTimeout),
        ("cmd-delete", Counted::Remove),
        ("cmd-release", Counted::Release),
        ("cmd-use", Counted::Refer),
        ("cmd-watch", Counted::Subscribe),
        ("cmd-ignore", Counted::Unsubscribe),
        ("cmd-bury", Counted::Bury),
        ("cmd-kick", Counted::Kick),
        ("cmd-touch", Counted::Touch),
        ("cmd-stats", Counted::Statistics),
        ("cmd-stats-job", Counted::MessageStatistics),
        ("cmd-stats-tube", Counted::QueueStatistics),
        ("cmd-list-tubes", Counted::ListQueues),
        ("cmd-list-tube-used", Counted::ShowReferred),
        ("cmd-list-tubes-watched", Counted::ListSubscribed),
        ("cmd-pause-tube", Counted::Pause),
    ] {
        out.line(key, statistics.commands.of(counted));
    }
    out.line("job-timeouts", statistics.timeouts);
    out.line("total-jobs", statistics.messages_put);
    out.line("max-job-size", body_bytes_max);
    out.line("current-tubes", statistics.queues);
    out.line("current-connections", statistics.connections);
    out.line("current-producers", statistics.producers);
    out.line("current-workers", statistics.workers);
    out.line("current-waiting", statistics.waiting);
    out.line("total-connections", statistics.connections_accepted);
    let process = &statistics.process;
    out.line("pid", process.pid);
    out.quoted("version", env!("CARGO_PKG_VERSION"));
    out.line("rusage-utime", Microseconds(process.user_cpu_us));
    out.line("rusage-stime", Microseconds(process.system_cpu_us));
    out.line("uptime", seconds(process.uptime_ms));
    out.store(&statistics.store);
    out.line("draining", statistics.draining);
    out.line("id", &process.instance);
    out.line("hostname", &process.hostname);
    // It begins with "#" on Linux, which makes it a comment where it is not quoted.
    out.quoted("os", &process.os);
    out.line("platform", &process.platform);
    out.0
}

/// `stats-job`.
pub(super) fn job(statistics: &MessageStatistics) -> String {
    let mut out = Document::new();
    out.line("id", statistics.id);
    let tube = statistics.queue.as_str();
    if is_tube_name(tube.as_bytes()) {
        out.line("tube", tube);
    } else {
        out.quoted("tube", tube);
    }
    out.line(
        "state",
        match statistics.state {
            MessageState::Ready => "ready",
            MessageState::Delayed => "delayed",
            MessageState::Reserved => "reserved",
            MessageState::Buried => "buried",
        },
    );
    out.line("pri", statistics.priority);
    out.line("age", seconds(statistics.age_ms));
    out.line("delay", seconds(statistics.delay_ms));
    out.line("ttr", seconds(statistics.time_to_run_ms));
    out.line("time-left", seconds_left(statistics.time_left_ms));
    out.line("file", 0);
    let counters = &statistics.counters;
    out.line("reserves", counters.reserves);
    out.line("timeouts", counters.timeouts);
    out.line("releases", counters.releases);
    out.line("buries", counters.buries);
    out.line("kicks", counters.kicks);
    out.0
}

/// `stats-tube`.
pub(super) fn tube(statistics: &QueueStatistics) -> String {
    let mut out = Document::new();
    out.line("name", &statistics.name);
    out.messages(&statistics.messages);
    out.line("total-jobs", statistics.messages_put);
    out.line("current-using", statistics.using);
    out.line("current-watching", statistics.watching);
    out.line("current-waiting", statistics.waiting);
    out.line("cmd-delete", statistics.removes);
    out.line("cmd-pause-tube", statistics.pauses);
    out.line("pause", seconds(statistics.pause_ms));
    out.line("pause-time-left", seconds_left(statistics.pause_left_ms));
    out.0
}

/// `list-tubes` and `list-tubes-watched`.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from(START);
    for name in names {
        out.push_str("- ");
        out.push_str(name);
        out.push('\n');
    }
    out
}

/// Whole seconds, as the original counts time that has passed.
fn seconds(millis: u64) -> u64 {
    millis / 1_000
}

/// Whole seconds that are left. The original counts in nanoseconds and cuts, so that of 60 s just
/// given it says 59; our clock stands still for a millisecond, in which they would still be 60.
fn seconds_left(millis: u64) -> u64 {
    seconds(millis.saturating_sub(1))
}

struct Microseconds(u64);

impl Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
