//! The log: lines on standard error that no peer can forge and no stalled reader can hold up.
//!
//! ```text
//!   any thread ── record ──► level filter ──► channel (bounded) ──► thread `log` ──► stderr
//! ```
//!
//! Owner: the thread `log` writes; everybody else only puts records into its channel. When the
//! reader of standard error stalls, the channel fills, further records are dropped and counted, and
//! the count is logged once there is room. Errors of writing are ignored: there is nobody left to
//! tell. A line is `level event key=value ...`, with the time before it (plain) or with the
//! journal's priority (journald). Control characters are escaped everywhere in it.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};
use slog_async::{Async, AsyncGuard};
use slog_term::{Decorator, PlainSyncDecorator};

use crate::config::{Log, LogFormat, LogLevel};
use crate::words::clock::{date, wall_clock_ms};

/// Records that wait for standard error at most: some seconds of a busy day at `info`.
const RECORDS_WAITING_MAX: usize = 1_024;
/// How long the end of the process waits for a reader of standard error, in rounds of
/// [`FLUSH_ROUND`].
const FLUSH_ROUNDS_MAX: usize = 10;
const FLUSH_ROUND: Duration = Duration::from_millis(100);

/// Starts the log. Records reach standard error until the guard is dropped.
pub fn start(log: &Log) -> (Logger, LevelHandle, Guard) {
    let journald = match log.format {
        LogFormat::Plain => false,
        LogFormat::Journald => true,
        LogFormat::Auto => stderr_is_the_journal(),
    };
    start_with(log.level, journald, io::stderr())
}

fn start_with<W>(level: LogLevel, journald: bool, out: W) -> (Logger, LevelHandle, Guard)
where
    W: io::Write + Send + 'static,
{
    let head = if journald { Head::Priority } else { Head::Time };
    let lines = Lines { decorator: PlainSyncDecorator::new(out), head };
    let (records, guard) = Async::new(lines)
        .chan_size(RECORDS_WAITING_MAX)
        .thread_name("log".to_owned())
        .build_with_guard();
    let handle = LevelHandle(Arc::new(AtomicUsize::new(0)));
    handle.set(level);
    // A full channel is counted by slog-async; a dead log thread has nobody to be told to.
    let filter = Filter { level: handle.clone(), records: records.ignore_res() };
    (Logger::root(filter, slog::o!()), handle, Guard(Some(guard)))
}

/// Changes what is logged while the daemon runs.
#[derive(Clone, Debug)]
pub struct LevelHandle(Arc<AtomicUsize>);

impl LevelHandle {
    /// From now on this is the least that is logged.
    pub fn set(&self, level: LogLevel) {
        self.0.store(Level::from(level).as_usize(), Ordering::Relaxed);
    }

    fn takes(&self, level: Level) -> bool {
        level.as_usize() <= self.0.load(Ordering::Relaxed)
    }
}

impl From<LogLevel> for Level {
    fn from(word: LogLevel) -> Level {
        match word {
            LogLevel::Crit => Level::Critical,
            LogLevel::Error => Level::Error,
            LogLevel::Warn => Level::Warning,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
            LogLevel::Trace => Level::Trace,
        }
    }
}

/// Writes what still waits when it is dropped, but for no longer than a second: a stalled reader
/// of standard error must not keep the daemon from ending.
pub struct Guard(Option<AsyncGuard>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else { return };
        let written = Arc::new(AtomicBool::new(false));
        let (done, waiter) = (written.clone(), thread::current());
        // The guard's own drop waits for ever, so it happens in a thread that may be left behind.
        let flusher = thread::Builder::new().name("log-flush".to_owned()).spawn(move || {
            drop(guard);
            done.store(true, Ordering::SeqCst);
            waiter.unpark();
        });
        let Ok(flusher) = flusher else { return };
        for _ in 0..FLUSH_ROUNDS_MAX {
            if written.load(Ordering::SeqCst) {
                // It has nothing left to do, so joining is at once.
                let _ = flusher.join();
                return;
            }
            thread::park_timeout(FLUSH_ROUND);
        }
    }
}

/// Whether standard error is the journal's stream of this process (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr().as_fd()) else { return false };
    stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lets through what is to be logged.
struct Filter<D> {
    level: LevelHandle,
    records: D,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Filter<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.level.takes(record.level()) { self.records.log(record, values) } else { Ok(()) }
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.level.takes(level)
    }
}

/// What a line begins with.
enum Head {
    /// The time of day in UTC.
    Time,
    /// The journal's priority.
    Priority,
}

/// Turns each record into one line, written at once.
struct Lines<D> {
    decorator: D,
    head: Head,
}

impl<D: Decorator> Drain for Lines<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let line = self.line(record, values);
        // One write a line: lines of other processes on the same standard error stay apart.
        let _ = self.decorator.with_record(record, values, |out| {
            out.write_all(line.as_bytes())?;
            out.flush()
        });
        Ok(())
    }
}

impl<D> Lines<D> {
    fn line(&self, record: &Record<'_>, values: &OwnedKVList) -> String {
        let mut line = String::with_capacity(160);
        match &self.head {
            Head::Time => {
                push_time(&mut line, wall_clock_ms());
                line.push(' ');
            }
            Head::Priority => line.push_str(priority(record.level())),
        }
        line.push_str(level_word(record.level()));
        line.push(' ');
        push_escaped(&mut line, &record.msg().to_string(), false);
        // The record's own values stand after its logger's, each in the order they were given.
        let mut pairs = Pairs(Vec::new());
        let _ = record.kv().serialize(record, &mut pairs);
        let _ = values.serialize(record, &mut pairs);
        for (key, value) in pairs.0.iter().rev() {
            line.push(' ');
            push_escaped(&mut line, key, false);
            line.push('=');
            push_value(&mut line, value);
        }
        line.push('\n');
        line
    }
}

/// Collects keys and values; slog hands them out last first.
struct Pairs(Vec<(Key, String)>);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push((key, value.to_string()));
        Ok(())
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Critical => "crit",
        Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// sd-daemon(3). `crit` is of one daemon, not of the machine: its priority is an error's.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "<3>",
        Level::Warning => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// A value as it is, or quoted where it would not be seen as one word.
fn push_value(line: &mut String, value: &str) {
    let special = |c: char| matches!(c, ' ' | '"' | '=' | '\\') || c.is_control();
    let bare = !value.is_empty() && !value.contains(special);
    if bare {
        push_escaped(line, value, false);
    } else {
        line.push('"');
        push_escaped(line, value, true);
        line.push('"');
    }
}

/// Text without control characters: no new line can be forged, no terminal commanded.
fn push_escaped(line: &mut String, text: &str, quoted: bool) {
    for character in text.chars() {
        match character {
            '"' | '\\' if quoted => line.extend(['\\', character]),
            // Line and paragraph separators, and the marks that turn the direction of writing.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.extend(character.escape_unicode());
            }
            _ if character.is_control() => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
}

/// A wall time in milliseconds since 1970 as RFC 3339 has it, in UTC.
fn push_time(line: &mut String, wall_ms: i64) {
    let (days, ms) = (wall_ms.div_euclid(86_400_000), wall_ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let milli = ms % 1_000;
    write!(line, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
        .expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use slog::{debug, error, info, o, warn};

    use super::*;

    /// Where a test reads what was logged.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn logged(level: LogLevel, journald: bool, write: impl FnOnce(&Logger)) -> Vec<String> {
        let sink = Sink::default();
        let (log, _, guard) = start_with(level, journald, sink.clone());
        write(&log);
        drop(guard);
        sink.lines()
    }

    #[test]
    fn a_plain_line_is_time_level_event_and_values_in_their_order() {
        let lines = logged(LogLevel::Info, false, |log| {
            let log = log.new(o!("thread" => "main", "part" => "config"));
            info!(log, "listening"; "protocol" => "phpmq", "address" => "127.0.0.1:9100");
        });
        let [line] = &lines[..] else { panic!("one record, {} lines", lines.len()) };
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "info listening thread=main part=config protocol=phpmq address=127.0.0.1:9100"
        );
        assert_eq!(time.len(), "2026-11-20T13:36:00.123Z".len());
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        let lines = logged(LogLevel::Trace, true, |log| {
            slog::crit!(log, "a");
            error!(log, "b");
            warn!(log, "c");
            info!(log, "d");
            debug!(log, "e");
            slog::trace!(log, "f");
        });
        let wanted = ["<3>crit a", "<3>error b", "<4>warn c", "<6>info d", "<7>debug e"];
        assert_eq!(lines[..5], wanted);
        assert_eq!(lines[5], "<7>trace f");
    }

    #[test]
    fn no_control_character_of_a_value_reaches_the_log() {
        let hostile = "a\n<0>crit forged\r\u{1b}[2J\u{0}\u{85}\u{2028}\u{202e}\u{7f}";
        let lines = logged(LogLevel::Info, true, |log| {
            info!(log, "x"; "name" => hostile, "line" => "a\nb", "empty" => "", "quote" => "a\"b\\c", "at" => "a=b");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains(|c: char| c.is_control()), "{lines:?}");
        assert!(!lines[0].contains(['\u{2028}', '\u{202e}']), "{lines:?}");
        assert!(lines[0].starts_with("<6>info x name=\"a\\n<0>crit forged\\r\\u{1b}[2J\\u{0}"));
        assert!(
            lines[0].ends_with(" line=\"a\\nb\" empty=\"\" quote=\"a\\\"b\\\\c\" at=\"a=b\""),
            "{lines:?}"
        );
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let sink = Sink::default();
        let (log, level, guard) = start_with(LogLevel::Warn, true, sink.clone());
        info!(log, "one");
        level.set(LogLevel::Debug);
        assert!(log.is_enabled(Level::Debug) && !log.is_enabled(Level::Trace));
        debug!(log, "two");
        level.set(LogLevel::Error);
        warn!(log, "three");
        drop(guard);
        assert_eq!(sink.lines(), ["<7>debug two"]);
    }

    /// A reader that takes nothing until it is told to.
    #[derive(Clone, Default)]
    struct Stalled {
        open: Arc<(Mutex<bool>, Condvar)>,
        sink: Sink,
    }

    impl Stalled {
        fn open(&self) {
            *self.open.0.lock().unwrap() = true;
            self.open.1.notify_all();
        }
    }

    impl io::Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let open = self.open.0.lock().unwrap();
            let _open = self.open.1.wait_while(open, |open| !*open).unwrap();
            self.sink.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_holds_nobody_up_and_what_was_dropped_is_counted() {
        let out = Stalled::default();
        let (log, _, guard) = start_with(LogLevel::Info, true, out.clone());
        for number in 0..10 * RECORDS_WAITING_MAX {
            info!(log, "event"; "number" => number);
        }
        out.open();
        // Each of these may be the one that reports; the first can still meet a full channel.
        while !out.sink.lines().iter().any(|line| line.contains("dropped")) {
            info!(log, "more");
            thread::yield_now();
        }
        drop(guard);
        let lines = out.sink.lines();
        assert!(lines.iter().any(|line| line.starts_with("<3>error") && line.contains("count=")));
    }

    #[test]
    fn a_reader_that_stays_stalled_does_not_keep_the_process_from_ending() {
        let out = Stalled::default();
        let (log, _, guard) = start_with(LogLevel::Info, true, out.clone());
        for _ in 0..2 * RECORDS_WAITING_MAX {
            info!(log, "event");
        }
        // Would not come back if it waited for the reader.
        drop(guard);
        assert_eq!(out.sink.lines().len(), 0);
        out.open();
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = |ms| {
            let mut line = String::new();
            push_time(&mut line, ms);
            line
        };
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(time(4_102_444_800_001), "2100-01-01T00:00:00.001Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
