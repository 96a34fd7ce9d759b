//! Draws the console's screen.
//!
//! A terminal gets carriage returns, colours and a prompt after each answer. In plain mode lines
//! end in a line feed alone, there are no escape sequences and no prompt, and each answer ends
//! with an empty line.

use crate::protocol;
use crate::words::change::MessageState;
use crate::words::clock::{Now, Time};
use crate::words::command::{Delivery, Reply, Tag};
use crate::words::output::Output;
use crate::words::printable::safe;
use crate::words::refusal::Refusal;
use crate::words::settings::QueueLimits;
use crate::words::statistics::{
    Failures, Listing, ServerStatistics, StateCounts, StoreFacts, Survey,
};

use super::TerminalSize;
use super::draw::Draw;
use super::format::{bar, cell, moment, size, uptime};
use super::help::{self, COMMANDS};
use super::keyboard::{DO, WINDOW_SIZE};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";
const TOP: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const INVERSE: &str = "\x1b[7m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[1;32m";
const USUAL: &str = "\x1b[0m";
/// Characters of an unknown command that are said back.
const UNKNOWN_CHARACTERS_MAX: usize = 60;

/// Encodes for one connection.
#[derive(Debug)]
pub(super) struct Encoder {
    plain: bool,
    columns: usize,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { plain: false, columns: TerminalSize::USUAL.columns }
    }
}

impl protocol::Encoder for Encoder {
    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output) {
        let out = out.buffer();
        let draw = Draw::of(tag).unwrap_or(Draw::Prompt);
        let mut screen = Screen { plain: self.plain, moving: false, columns: self.columns, out };
        match (draw, reply) {
            (Draw::Plain, _) => {
                self.plain = true;
                screen.plain = true;
                screen.line(&format!("phpmqd {VERSION}"));
            }
            (Draw::TerminalSize(window), _) => {
                self.columns = window.columns;
                return;
            }
            (Draw::AskWindow, _) => return screen.out.extend([0xff, DO, WINDOW_SIZE]),
            (_, Reply::Refused(refusal)) => screen.mistake(&refusal.to_string()),
            (Draw::Monitor, Reply::Survey(survey)) => return monitor(&mut screen, survey),
            (Draw::Show(queue), Reply::Listing(listing)) => {
                return show(&mut screen, &queue, listing);
            }
            (Draw::Search(pattern), Reply::Survey(found)) => search(&mut screen, &pattern, found),
            (Draw::Status, Reply::Statistics(statistics)) => status(&mut screen, statistics),
            (Draw::Done, Reply::Flushed(_) | Reply::Configured | Reply::KickedOne) => {
                screen.line("OK");
            }
            (Draw::Done, Reply::Kicked(count)) => screen.line(&format!("OK, {count} kicked")),
            (Draw::Done, Reply::NotFound) => screen.mistake("there is no queue of this name"),
            (Draw::KickedMessage, Reply::KickedOne) => screen.line("OK"),
            (Draw::KickedMessage, Reply::NotFound) => {
                screen.mistake("no message with this id was set aside or is delayed");
            }
            (Draw::Goodbye, _) => return screen.line("Goodbye."),
            (draw, _) => screen.say(draw),
        }
        screen.prompt();
    }

    fn deliver(&mut self, _tag: &Tag, _delivery: &Delivery<'_>, _out: &mut Output) {
        debug_assert!(false, "the console asks for no messages");
    }
}

/// Where lines are drawn.
struct Screen<'a> {
    plain: bool,
    /// Whether this is a picture over the one before.
    moving: bool,
    columns: usize,
    out: &'a mut Vec<u8>,
}

impl Screen<'_> {
    fn line(&mut self, text: &str) {
        self.styled("", text);
    }

    fn styled(&mut self, style: &str, text: &str) {
        if self.moving {
            // Before the text: behind a full line the cursor may still stand on its last sign.
            self.sequence(CLEAR_LINE);
        }
        self.sequence(style);
        // A line of a picture that wrapped would push the first one off the screen.
        let most = if self.moving && !self.plain { self.columns } else { usize::MAX };
        let end = text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
        self.out.extend_from_slice(text.get(..end).unwrap_or(text).as_bytes());
        if !style.is_empty() {
            self.sequence(USUAL);
        }
        self.out.extend_from_slice(if self.plain { b"\n" } else { b"\r\n" });
    }

    fn sequence(&mut self, sequence: &str) {
        if !self.plain {
            self.out.extend_from_slice(sequence.as_bytes());
        }
    }

    fn mistake(&mut self, text: &str) {
        self.styled(RED, &format!("error: {}", safe(text)));
    }

    fn title(&mut self, text: &str) {
        let bar = cell(&format!(" phpmqd {VERSION} - {text}"), self.columns);
        self.styled(INVERSE, if self.plain { bar.trim() } else { &bar });
    }

    fn prompt(&mut self) {
        if self.plain {
            return self.line("");
        }
        self.out.extend_from_slice(format!("{GREEN}phpmq > {USUAL}").as_bytes());
    }

    /// Begins a picture over the one before: without clearing first, so that it does not flicker.
    fn picture(&mut self, title: &str) {
        self.sequence(TOP);
        self.moving = true;
        self.title(title);
        self.line("");
    }

    fn end_picture(&mut self, more: u64) {
        if more > 0 {
            self.line(&format!("... ({more} more)"));
        }
        self.line(if self.plain { "" } else { "q + Enter leaves" });
        self.sequence(CLEAR_BELOW);
    }

    /// What the decoder alone knows.
    fn say(&mut self, draw: Draw) {
        match draw {
            Draw::Greeting => {
                self.sequence(CLEAR);
                self.title("maintenance console");
                self.line("");
                self.line("Type \"help\" to list available commands.");
                self.line("");
            }
            Draw::Clear | Draw::Left => self.sequence(CLEAR),
            Draw::Help => self.commands(),
            Draw::HelpFor(command) => {
                if let Some(entry) = help::find(&command) {
                    self.styled(BOLD, &entry.usage());
                    self.line(&format!("  {}", entry.summary));
                    for line in entry.details {
                        self.line(&format!("  {line}"));
                    }
                }
            }
            Draw::Unknown(command) => {
                let shown: String = command.chars().take(UNKNOWN_CHARACTERS_MAX).collect();
                self.mistake(&format!("unknown command: {shown}"));
                self.commands();
            }
            Draw::Mistake(text) => self.mistake(&text),
            _ => {}
        }
    }

    fn commands(&mut self) {
        self.styled(BOLD, "Available commands:");
        for entry in COMMANDS {
            self.line(&format!("  {:<20}{}", entry.usage(), entry.summary));
        }
    }
}

/// The overview; its frame has [`MONITOR_FRAME_LINES`](super::MONITOR_FRAME_LINES) lines.
fn monitor(screen: &mut Screen<'_>, survey: &Survey) {
    let process = &survey.process;
    screen.picture("monitor");
    screen.line(&format!(
        "Memory: {} now, {} at peak    Uptime: {}",
        size(process.resident_bytes),
        size(process.resident_peak_bytes),
        uptime(process.uptime_ms)
    ));
    screen.line(&format!(
        "Queues: {}    Clients: {}    Messages: {}",
        survey.queues_total,
        survey.connections,
        survey.messages.total()
    ));
    let store = format!("Store: {}", store_state(&survey.store));
    let puts = match survey.refused {
        None => "",
        Some(Refusal::Draining) => "    Draining: new messages are refused",
        Some(Refusal::OutOfMemory) => "    Memory is full: new messages are refused",
        Some(_) => "    New messages are refused",
    };
    if survey.store.degraded {
        screen.styled(RED, &format!("{store}{puts}"));
    } else {
        screen.line(&format!("{store}{puts}"));
    }
    let fullest = survey.queues.iter().map(|queue| queue.messages.total()).max().unwrap_or(0);
    let [name, workload] = columns(screen.columns);
    screen.line("");
    screen.styled(
        BOLD,
        &format!("{}{:>12}{:>12}  Workload", cell("Queue", name), "Messages", "Size"),
    );
    for queue in &survey.queues {
        let messages = queue.messages.total();
        screen.line(&format!(
            "{}{messages:>12}{:>12}  {}",
            cell(queue.name.as_str(), name),
            size(queue.body_bytes),
            bar(messages, fullest, workload)
        ));
    }
    screen.end_picture(survey.more);
}

/// The widths of a queue's name and of its bar, beside two columns of figures.
fn columns(all: usize) -> [usize; 2] {
    let left = all.saturating_sub(12 + 12 + 2 + 1);
    let workload = left / 3;
    [left - workload, workload]
}

/// The messages of a queue; its frame has [`SHOW_FRAME_LINES`](super::SHOW_FRAME_LINES) lines.
fn show(screen: &mut Screen<'_>, queue: &str, listing: &Listing) {
    screen.picture(&format!("show {queue}{}", settings(listing)));
    let heading =
        format!("{:>6}  {:<20}  {:<12}  {:>10}  Created (UTC)", "Order", "Id", "State", "Size");
    screen.styled(BOLD, &heading);
    let now = Now { time: Time(0), wall_offset_ms: listing.wall_offset_ms };
    for (index, message) in listing.messages.iter().enumerate() {
        let state = match message.state {
            MessageState::Reserved => "\u{2192} reserved",
            MessageState::Ready => "\u{2022} ready",
            MessageState::Delayed => "\u{2022} delayed",
            MessageState::Buried => "\u{2022} buried",
        };
        screen.line(&format!(
            "{:>6}  {:<20}  {state:<12}  {:>10}  {}{}",
            index + 1,
            message.id.0,
            size(message.body_bytes),
            moment(now.wall_ms(message.created)),
            failures(&message.failures)
        ));
    }
    screen.end_picture(listing.more);
}

/// What an operator has set of a queue, behind its name.
fn settings(listing: &Listing) -> String {
    let QueueLimits { high, normal, low } = listing.limits;
    let limits = match listing.limits {
        QueueLimits::NONE => String::new(),
        _ if high == normal && normal == low => format!("limit {high}"),
        _ => format!("limits {high} {normal} {low}"),
    };
    match (listing.paused, limits.is_empty()) {
        (false, true) => String::new(),
        (false, false) => format!(" ({limits})"),
        (true, true) => " (paused)".to_owned(),
        (true, false) => format!(" (paused, {limits})"),
    }
}

/// What is to be said of a message whose processing has failed, behind everything else.
fn failures(failures: &Failures) -> String {
    let mut text = String::new();
    if let Some(cause) = failures.cause {
        let (attempts, s) = (failures.attempts, if failures.attempts == 1 { "" } else { "s" });
        text += &format!("  {attempts} attempt{s}, {}", cause.word());
    }
    if let Some(reason) = &failures.reason {
        text += &format!(": {}", safe(reason.as_str()));
    }
    if let Some(origin) = &failures.origin {
        text += &format!(", from {}", safe(origin.as_str()));
    }
    text
}

fn search(screen: &mut Screen<'_>, pattern: &str, found: &Survey) {
    if found.queues.is_empty() {
        return screen.line(&format!("No queue matches {}", safe(pattern)));
    }
    let name = columns(screen.columns)[0];
    screen.styled(BOLD, &format!("{}{:>12}{:>12}", cell("Queue", name), "Messages", "Size"));
    for queue in &found.queues {
        // A name is never cut here: it is what was searched for.
        screen.line(&format!(
            "{:<name$}{:>12}{:>12}",
            safe(queue.name.as_str()),
            queue.messages.total(),
            size(queue.body_bytes)
        ));
    }
    if found.more > 0 {
        screen.line(&format!("... ({} more)", found.more));
    }
}

fn status(screen: &mut Screen<'_>, figures: &ServerStatistics) {
    let StateCounts { ready, reserved, delayed, buried, .. } = figures.messages;
    let (process, store) = (&figures.process, &figures.store);
    screen.line(&format!("version: {VERSION}"));
    screen.line(&format!("pid: {}", process.pid));
    screen.line(&format!("uptime: {}", uptime(process.uptime_ms)));
    screen.line(&format!("draining: {}", if figures.draining { "yes" } else { "no" }));
    match figures.refused {
        None => screen.line("puts: accepted"),
        Some(refusal) => screen.line(&format!("puts: refused, {refusal}")),
    }
    screen.line(&format!("store: {}", store_state(store)));
    for (name, figure) in [
        ("connections", figures.connections),
        ("connections accepted", figures.connections_accepted),
        ("connections refused", figures.connections_refused),
        ("protocol errors", figures.protocol_errors),
        ("queues", figures.queues),
        ("messages", figures.messages.total()),
        ("messages ready", ready),
        ("messages reserved", reserved),
        ("messages delayed", delayed),
        ("messages buried", buried),
        ("messages put", figures.messages_put),
        ("messages joined by key", figures.messages_joined),
        ("messages expired", figures.messages_expired),
        ("messages set aside", figures.messages_set_aside),
        ("messages dead-lettered", figures.messages_dead_lettered),
        ("messages too large", figures.messages_too_large),
        ("messages dropped", figures.messages_dropped),
        ("late acknowledgements", figures.late_acknowledgements),
        ("foreign acknowledgements", figures.foreign_acknowledgements),
        ("body bytes", figures.body_bytes),
        ("memory bytes", process.resident_bytes),
        ("memory peak bytes", process.resident_peak_bytes),
        ("database bytes", store.file_bytes),
        ("write-ahead log bytes", store.wal_bytes),
        ("commits", store.commits),
    ] {
        screen.line(&format!("{name}: {figure}"));
    }
    for (cause, count) in figures.returns.iter() {
        screen.line(&format!("messages returned, {cause}: {count}"));
    }
}

fn store_state(store: &StoreFacts) -> &'static str {
    match (store.on_disk, store.degraded) {
        (_, true) => "degraded, changes cannot be written to the disk",
        (true, false) if store.log_held_up => {
            "ok, but another program prevents its log from being cleared"
        }
        (true, false) => "ok",
        (false, false) => "none, memory only",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Encoder as _;
    use crate::words::cause::{Cause, Reason};
    use crate::words::ids::{MessageId, QueueName};
    use crate::words::statistics::{ListedMessage, QueueSummary};

    fn written(encoder: &mut Encoder, draw: Draw, reply: Reply) -> String {
        let mut out = Output::default();
        encoder.reply(&draw.tag(), &reply, &mut out);
        String::from_utf8(out.buffer().clone()).unwrap()
    }

    fn said(draw: Draw) -> String {
        written(&mut Encoder::default(), draw, Reply::Echo)
    }

    fn plain() -> Encoder {
        Encoder { plain: true, columns: 80 }
    }

    fn survey(names: &[(&str, u64)], more: u64) -> Reply {
        let queues = names.iter().map(|(name, ready)| QueueSummary {
            name: QueueName::new(name.as_bytes()).unwrap(),
            messages: StateCounts { ready: *ready, ..StateCounts::default() },
            body_bytes: ready * 512,
        });
        Reply::Survey(Box::new(Survey { queues: queues.collect(), more, ..Survey::default() }))
    }

    fn listing(count: u64, more: u64) -> Reply {
        let message = |id| ListedMessage {
            id: MessageId(id),
            state: if id == 1 { MessageState::Reserved } else { MessageState::Ready },
            body_bytes: 100,
            created: Time(1_795_182_600_000),
            failures: Failures::default(),
            is_volatile: false,
        };
        let messages = (1..=count).map(message).collect();
        Reply::Listing(Box::new(Listing {
            messages,
            more,
            wall_offset_ms: 1_000,
            ..Listing::default()
        }))
    }

    #[test]
    fn the_greeting_is_a_cleared_screen_with_title_hint_and_prompt() {
        let text = said(Draw::Greeting);
        assert!(text.starts_with("\x1b[2J\x1b[H\x1b[7m phpmqd "), "{text:?}");
        assert!(text.contains(VERSION));
        assert!(text.contains("\r\nType \"help\" to list available commands.\r\n"));
        assert!(text.ends_with("\x1b[1;32mphpmq > \x1b[0m"));
    }

    #[test]
    fn help_lists_every_command_and_tells_one() {
        let text = said(Draw::Help);
        assert!(COMMANDS.iter().all(|entry| text.contains(entry.summary)));
        let text = said(Draw::HelpFor("search".into()));
        assert!(text.contains("search PATTERN") && text.contains("any case"));
    }

    #[test]
    fn an_unknown_command_is_said_back_harmlessly_with_the_list() {
        let text = said(Draw::Unknown(format!("\u{1b}[2J{}", "x".repeat(500))));
        assert!(text.contains("error: unknown command: \\u{1b}[2Jxx"));
        assert!(text.contains("Available commands:"));
        assert!(text.len() < 1_500);
    }

    #[test]
    fn flush_answers_ok_or_why_not() {
        let encoder = &mut Encoder::default();
        assert!(written(encoder, Draw::Done, Reply::Flushed(3)).starts_with("OK\r\n"));
        let missing = written(encoder, Draw::Done, Reply::NotFound);
        assert!(missing.contains("error: there is no queue of this name"), "{missing}");
        let refused = Reply::Refused(Refusal::OutcomeUnknown);
        let text = written(encoder, Draw::Done, refused);
        assert!(text.contains("error: not written to the disk in time"), "{text}");
        assert!(!text.contains("OK"));
    }

    #[test]
    fn kicks_and_settings_are_answered_with_what_was_done() {
        let answer = |draw, reply| written(&mut plain(), draw, reply);
        assert_eq!(answer(Draw::Done, Reply::Kicked(3)), "OK, 3 kicked\n\n");
        assert_eq!(answer(Draw::Done, Reply::Configured), "OK\n\n");
        assert_eq!(answer(Draw::KickedMessage, Reply::KickedOne), "OK\n\n");
        let missing = "error: no message with this id was set aside or is delayed\n\n";
        assert_eq!(answer(Draw::KickedMessage, Reply::NotFound), missing);
    }

    #[test]
    fn show_tells_what_is_set_of_a_queue_and_how_its_messages_failed() {
        let Reply::Listing(mut listing) = listing(2, 0) else { unreachable!() };
        listing.paused = true;
        listing.limits = QueueLimits { high: 3, normal: 2, low: 0 };
        listing.messages[1].failures = Failures {
            attempts: 3,
            cause: Some(Cause::Failed),
            reason: Some(Reason::new(b"no such host")),
            origin: Some(QueueName::new(b"mail").unwrap()),
        };
        let text = written(&mut plain(), Draw::Show("failed".into()), Reply::Listing(listing));
        assert!(text.contains("show failed (paused, limits 3 2 0)\n"), "{text}");
        assert!(text.contains("  3 attempts, failed: no such host, from mail\n"), "{text}");
        assert_eq!(text.matches("attempt").count(), 1, "{text}");
    }

    #[test]
    fn the_monitor_shows_totals_queues_and_bars() {
        let text = written(&mut plain(), Draw::Monitor, survey(&[("mail", 10), ("log", 5)], 3));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("Memory: 0 B now, 0 B at peak    Uptime: 00:00:00"));
        assert_eq!(
            lines[7],
            format!("{:<36}{:>12}{:>12}  {}", "mail", 10, "5.0 KiB", "#".repeat(17))
        );
        assert_eq!(lines[8], format!("{:<36}{:>12}{:>12}  {}", "log", 5, "2.5 KiB", "#".repeat(9)));
        assert_eq!(lines[9], "... (3 more)");
    }

    #[test]
    fn pictures_fit_the_terminal_they_were_asked_for() {
        let name = "ü".repeat(90);
        let queues = [(name.as_str(), 10_000_000); 14];
        for columns in [40, 80, 200] {
            let mut encoder = Encoder { plain: false, columns };
            let monitor = written(&mut encoder, Draw::Monitor, survey(&queues, 9));
            let show = written(&mut encoder, Draw::Show("x".into()), listing(18, 9));
            for text in [monitor, show] {
                let seen = without_sequences(&text);
                // The cursor stands in the line after the last.
                assert!(seen.lines().count() < 24, "{seen}");
                assert!(seen.lines().all(|line| line.chars().count() <= columns), "{seen}");
            }
        }
    }

    fn without_sequences(text: &str) -> String {
        let mut parts = text.split("\x1b[");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |seen, part| {
            let end = part.find(|character: char| character.is_ascii_alphabetic()).unwrap();
            seen + &part[end + 1..]
        })
    }

    #[test]
    fn show_tells_order_id_state_size_and_time() {
        let text = written(&mut plain(), Draw::Show("jobs".into()), listing(2, 0));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("show jobs"));
        assert_eq!(
            lines[3].split_whitespace().collect::<Vec<_>>(),
            ["1", "1", "→", "reserved", "100", "B", "2026-11-20", "13:50:01"]
        );
        assert!(lines[4].contains("• ready"));
        assert!(!text.contains("more"));
    }

    #[test]
    fn search_tells_what_matches_or_that_nothing_does() {
        let search = Draw::Search("m*".into());
        let text = written(&mut plain(), search.clone(), survey(&[("mail", 10)], 2));
        assert!(text.contains(&format!("{:<36}{:>12}{:>12}", "mail", 10, "5.0 KiB")));
        assert!(text.contains("... (2 more)"));
        assert_eq!(written(&mut plain(), search, survey(&[], 0)), "No queue matches m*\n\n");
    }

    #[test]
    fn status_is_a_name_and_a_value_a_line() {
        let mut figures = ServerStatistics { connections: 3, ..ServerStatistics::default() };
        figures.store.on_disk = true;
        let reply = Reply::Statistics(Box::new(figures.clone()));
        let text = written(&mut plain(), Draw::Status, reply);
        assert!(text.lines().all(|line| line.is_empty() || line.contains(": ")));
        assert!(text.contains("\nstore: ok\n") && text.contains("\nconnections: 3\n"));
        assert!(text.contains("\nputs: accepted\n"));
        figures.store.log_held_up = true;
        figures.refused = Some(Refusal::OutOfMemory);
        let reply = Reply::Statistics(Box::new(figures.clone()));
        let text = written(&mut plain(), Draw::Status, reply);
        assert!(text.contains("\nputs: refused, limits.max_memory is reached\n"));
        assert!(
            text.contains("\nstore: ok, but another program prevents its log from being cleared\n")
        );
        figures.store.degraded = true;
        let text = written(&mut plain(), Draw::Status, Reply::Statistics(Box::new(figures)));
        assert!(text.contains("\nstore: degraded"));
    }

    #[test]
    fn plain_mode_has_no_escape_sequence_carriage_return_or_prompt() {
        let mut encoder = Encoder::default();
        let mut text = written(&mut encoder, Draw::Plain, Reply::Echo);
        for (draw, reply) in [
            (Draw::Greeting, Reply::Echo),
            (Draw::Help, Reply::Echo),
            (Draw::HelpFor("show".into()), Reply::Echo),
            (Draw::Unknown("x".into()), Reply::Echo),
            (Draw::Clear, Reply::Echo),
            (Draw::Prompt, Reply::Echo),
            (Draw::Monitor, survey(&[("mail", 10)], 2)),
            (Draw::Search("*".into()), survey(&[("mail", 10)], 2)),
            (Draw::Show("x".into()), listing(2, 2)),
            (Draw::Left, Reply::Echo),
            (Draw::Done, Reply::Flushed(1)),
        ] {
            let answer = written(&mut encoder, draw, reply);
            assert!(answer.ends_with('\n'));
            text += &answer;
        }
        assert!(!text.contains(['\x1b', '\r']) && !text.contains("phpmq >"), "{text:?}");
        assert!(text.starts_with(&format!("phpmqd {VERSION}\n\n")));
    }

    #[test]
    fn a_window_changes_the_width_and_writes_nothing() {
        let mut encoder = Encoder::default();
        let window = TerminalSize { columns: 132, lines: 50 };
        assert_eq!(written(&mut encoder, Draw::TerminalSize(window), Reply::Echo), "");
        let text = written(&mut encoder, Draw::Greeting, Reply::Echo);
        assert_eq!(without_sequences(&text).lines().next().unwrap().chars().count(), 132);
    }

    #[test]
    fn asking_for_the_window_is_three_bytes_of_telnet() {
        let mut out = Output::default();
        Encoder::default().reply(&Draw::AskWindow.tag(), &Reply::Echo, &mut out);
        assert_eq!(*out.buffer(), [255, 253, 31]);
    }
}
