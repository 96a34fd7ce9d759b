//! Console lines in, requests out; and the clock of what is refreshed on the screen.
//!
//! ```text
//!   Fresh ──first tick or byte──► Waiting ──200 ms, or a line──► Greeted
//!                                    └──────── "plain" ────────► Greeted, without a greeting
//! ```

use std::collections::VecDeque;

use crate::protocol::WireError;
use crate::protocol::wire::is_http;
use crate::words::clock::Time;
use crate::words::command::{Command, Request, Requests, Target};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::{LISTING_LINES_MAX, QUEUE_NAME_BYTES_MAX};
use crate::words::settings::{QueueLimits, QueueSetting};

use super::draw::Draw;
use super::help;
use super::keyboard::{Keyboard, Typed};
use super::{GREETING_DELAY_MS, MONITOR_FRAME_LINES, REFRESH_MS, SHOW_FRAME_LINES, TerminalSize};

/// Decodes one connection.
#[derive(Debug)]
pub(super) struct Decoder {
    keyboard: Keyboard,
    greeting: Greeting,
    window: TerminalSize,
    asked_window: bool,
    /// What is refreshed on the screen, and when again.
    watched: Option<(Watched, Time)>,
    /// Requests of the line whose last byte is being taken: when a batch is full, that byte waits
    /// with them.
    answers: VecDeque<Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Fresh,
    Waiting(Time),
    Greeted,
}

#[derive(Clone, Debug)]
enum Watched {
    Monitor,
    Queue(QueueName),
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            keyboard: Keyboard::default(),
            greeting: Greeting::Fresh,
            window: TerminalSize::USUAL,
            asked_window: false,
            watched: None,
            answers: VecDeque::new(),
        }
    }
}

impl crate::protocol::Decoder for Decoder {
    fn decode(
        &mut self,
        now: Time,
        bytes: &[u8],
        requests: &mut Requests,
    ) -> Result<usize, WireError> {
        self.expect_greeting(now);
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            if self.answers.is_empty()
                && let Some(typed) = self.keyboard.press(*byte)?
            {
                self.take(now, typed)?;
            }
            while let Some(request) = self.answers.pop_front() {
                let ends = request.command == Command::Quit;
                requests.push(request.tag, request.command);
                if ends {
                    return Ok(taken + 1);
                }
                if requests.is_full() && !self.answers.is_empty() {
                    return Ok(taken);
                }
            }
            taken += 1;
            if requests.is_full() {
                break;
            }
        }
        Ok(taken)
    }

    fn pending_bytes(&self) -> usize {
        self.keyboard.pending_bytes()
    }

    fn next_tick(&self) -> Option<Time> {
        match (self.greeting, &self.watched) {
            // At once, to learn what time it is.
            (Greeting::Fresh, _) => Some(Time(0)),
            (Greeting::Waiting(until), _) => Some(until),
            (Greeting::Greeted, Some((_, next))) => Some(*next),
            (Greeting::Greeted, None) => None,
        }
    }

    fn tick(&mut self, now: Time, requests: &mut Requests) -> Result<(), WireError> {
        self.expect_greeting(now);
        if matches!(self.greeting, Greeting::Waiting(until) if until <= now) {
            self.greeting = Greeting::Greeted;
            requests.push(Draw::Greeting.tag(), Command::Echo);
        }
        if matches!(self.watched, Some((_, next)) if next <= now) {
            self.refresh(now);
        }
        while let Some(request) = self.answers.pop_front() {
            requests.push(request.tag, request.command);
        }
        Ok(())
    }
}

impl Decoder {
    fn expect_greeting(&mut self, now: Time) {
        if self.greeting == Greeting::Fresh {
            self.greeting = Greeting::Waiting(now.plus(GREETING_DELAY_MS));
        }
    }

    fn take(&mut self, now: Time, typed: Typed) -> Result<(), WireError> {
        match typed {
            Typed::Line(line) => self.line(now, line)?,
            // Asked once: a peer that offers again and again is not talked with for ever.
            Typed::OffersWindow if self.asked_window => {}
            Typed::OffersWindow => {
                self.asked_window = true;
                self.say(Draw::AskWindow);
            }
            Typed::TerminalSize(window) => {
                self.window = window;
                self.say(Draw::TerminalSize(window));
            }
        }
        Ok(())
    }

    fn line(&mut self, now: Time, line: Vec<u8>) -> Result<(), WireError> {
        if self.greeting != Greeting::Greeted {
            if is_http(&line) {
                return Err(WireError::HttpRequest);
            }
            self.greeting = Greeting::Greeted;
            if line.trim_ascii() != b"plain" {
                self.say(Draw::Greeting);
            }
        }
        let Ok(line) = String::from_utf8(line) else {
            self.mistake("the line is not UTF-8");
            return Ok(());
        };
        if self.watched.is_some() {
            self.watching(line.trim());
            return Ok(());
        }
        match words(&line) {
            Ok(words) => self.command(now, words),
            Err(mistake) => self.mistake(mistake),
        }
        Ok(())
    }

    /// While something is refreshed, a line is only asked whether it ends that.
    fn watching(&mut self, line: &str) {
        match line {
            "q" => {
                self.watched = None;
                self.say(Draw::Left);
            }
            "quit" | "exit" => self.quit(),
            _ => {}
        }
    }

    fn command(&mut self, now: Time, words: Vec<String>) {
        let mut words = words.into_iter();
        let Some(name) = words.next() else {
            return self.say(Draw::Prompt);
        };
        let Some(entry) = help::find(&name) else {
            return self.say(Draw::Unknown(name));
        };
        let arguments: Vec<String> = words.collect();
        if !entry.arguments().contains(&arguments.len()) {
            return self.mistake(format!("usage: {}", entry.usage()));
        }
        let mut arguments = arguments.into_iter();
        let argument = arguments.next();
        let more: Vec<String> = arguments.collect();
        match (entry.name, argument) {
            ("help", None) => self.say(Draw::Help),
            ("help", Some(command)) if help::find(&command).is_none() => {
                self.say(Draw::Unknown(command));
            }
            ("help", Some(command)) => self.say(Draw::HelpFor(command)),
            ("clear", _) => self.say(Draw::Clear),
            ("monitor", _) => self.watch(now, Watched::Monitor),
            ("search", Some(pattern)) => self.search(pattern),
            ("show", Some(queue)) => match QueueName::new(queue.as_bytes()) {
                Ok(queue) => self.watch(now, Watched::Queue(queue)),
                Err(error) => self.mistake(error),
            },
            ("kick", Some(queue)) => self.kick(&queue, more.first()),
            ("kick-message", Some(id)) => match id.parse() {
                Ok(id) => self.ask(Draw::KickedMessage, Command::KickMessage(MessageId(id))),
                Err(_) => self.mistake("an id is a whole number"),
            },
            ("pause", Some(queue)) => self.configure(&queue, QueueSetting::Paused(true)),
            ("resume", Some(queue)) => self.configure(&queue, QueueSetting::Paused(false)),
            ("limit", Some(queue)) => match limits(&more) {
                Some(limits) => self.configure(&queue, QueueSetting::Limits(limits)),
                None => self.mistake("one or three limits, each a whole number, 0 for none"),
            },
            ("flush", Some(queue)) => match QueueName::new(queue.as_bytes()) {
                Ok(queue) => self.ask(Draw::Done, Command::Flush(queue)),
                Err(error) => self.mistake(error),
            },
            ("flushall", _) => self.ask(Draw::Done, Command::FlushAll),
            ("status", _) => self.ask(Draw::Status, Command::Statistics),
            ("plain", _) => self.say(Draw::Plain),
            ("quit" | "exit", _) => self.quit(),
            // `q` with nothing to leave.
            _ => self.say(Draw::Prompt),
        }
    }

    fn configure(&mut self, queue: &str, setting: QueueSetting) {
        match QueueName::new(queue.as_bytes()) {
            Ok(queue) => self.ask(Draw::Done, Command::Configure { queue, setting }),
            Err(error) => self.mistake(error),
        }
    }

    fn kick(&mut self, queue: &str, count: Option<&String>) {
        let count = count.map_or(Ok(1), |count| count.parse());
        match (QueueName::new(queue.as_bytes()), count) {
            (Ok(queue), Ok(count)) => {
                let queue = Target::Named(queue);
                self.ask(Draw::Done, Command::Kick { queue, count });
            }
            (Ok(_), Err(_)) => self.mistake("how many is a whole number"),
            (Err(error), _) => self.mistake(error),
        }
    }

    fn search(&mut self, pattern: String) {
        if pattern.len() > QUEUE_NAME_BYTES_MAX {
            return self.mistake(format!("a pattern has at most {QUEUE_NAME_BYTES_MAX} bytes"));
        }
        let command = Command::Survey {
            pattern: Some(pattern.as_str().into()),
            lines_max: LISTING_LINES_MAX,
        };
        self.ask(Draw::Search(pattern), command);
    }

    fn watch(&mut self, now: Time, what: Watched) {
        self.watched = Some((what, now));
        self.refresh(now);
    }

    /// Asks for the next picture. The one after it is due later from now, not from when this one
    /// was due: where the peer was slow, pictures are left out and never made up for.
    fn refresh(&mut self, now: Time) {
        let Some((what, next)) = &mut self.watched else { return };
        *next = now.plus(REFRESH_MS);
        let lines = self.window.lines;
        let (draw, command) = match what {
            Watched::Monitor => {
                let lines_max = lines.saturating_sub(MONITOR_FRAME_LINES).max(1);
                (Draw::Monitor, Command::Survey { pattern: None, lines_max })
            }
            Watched::Queue(queue) => {
                let lines_max = lines.saturating_sub(SHOW_FRAME_LINES).max(1);
                let draw = Draw::Show(queue.as_str().into());
                (draw, Command::List { queue: queue.clone(), lines_max })
            }
        };
        self.ask(draw, command);
    }

    fn quit(&mut self) {
        self.watched = None;
        self.say(Draw::Goodbye);
        self.answers.push_back(Request { tag: Draw::Goodbye.tag(), command: Command::Quit });
    }

    fn mistake(&mut self, text: impl ToString) {
        self.say(Draw::Mistake(text.to_string()));
    }

    fn say(&mut self, draw: Draw) {
        self.ask(draw, Command::Echo);
    }

    fn ask(&mut self, draw: Draw, command: Command) {
        self.answers.push_back(Request { tag: draw.tag(), command });
    }
}

/// The limits that were typed: one for all messages, or three by priority.
fn limits(typed: &[String]) -> Option<QueueLimits> {
    let numbers: Option<Vec<u32>> = typed.iter().map(|number| number.parse().ok()).collect();
    match numbers?[..] {
        [all] => Some(QueueLimits::of_all(all)),
        [high, normal, low] => Some(QueueLimits { high, normal, low }),
        _ => None,
    }
}

/// The words of a line; one that begins with a quote goes to the next such quote, blanks and all.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = if matches!(first, '"' | '\'') {
            let inside = rest.strip_prefix(first).unwrap_or_default();
            let (word, after) = inside.split_once(first).ok_or("a quote is not closed")?;
            if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                return Err("a closing quote ends the word");
            }
            (word, after)
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Decoder as _;
    use crate::protocol::wire::testing::{Random, decode_all, decode_in_parts};
    use crate::words::command::Tag;

    /// What each request draws and asks, without the greeting in front.
    fn dialogue(lines: &str) -> Vec<(Draw, Command)> {
        let (requests, error) = decode_all(&mut Decoder::default(), lines.as_bytes());
        assert_eq!(error, None);
        let mut found = said(requests);
        assert_eq!(found.remove(0), (Draw::Greeting, Command::Echo));
        found
    }

    fn said(requests: Vec<Request>) -> Vec<(Draw, Command)> {
        requests
            .into_iter()
            .map(|request| (Draw::of(&request.tag).unwrap(), request.command))
            .collect()
    }

    fn drawn(lines: &str) -> Vec<Draw> {
        dialogue(lines).into_iter().map(|(draw, _)| draw).collect()
    }

    fn tick(decoder: &mut Decoder, now: u64) -> Vec<(Draw, Command)> {
        let mut requests = Requests::default();
        decoder.tick(Time(now), &mut requests).unwrap();
        said(requests.take())
    }

    fn typed(decoder: &mut Decoder, now: u64, bytes: &[u8]) -> Vec<(Draw, Command)> {
        let mut requests = Requests::default();
        assert_eq!(decoder.decode(Time(now), bytes, &mut requests), Ok(bytes.len()));
        said(requests.take())
    }

    fn name(text: &str) -> QueueName {
        QueueName::new(text.as_bytes()).unwrap()
    }

    fn mistake(text: &str) -> Draw {
        Draw::Mistake(text.into())
    }

    #[test]
    fn a_silent_peer_is_greeted_after_a_moment() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next_tick(), Some(Time(0)));
        assert_eq!(tick(&mut decoder, 5_000), []);
        assert_eq!(decoder.next_tick(), Some(Time(5_200)));
        assert_eq!(tick(&mut decoder, 5_199), []);
        assert_eq!(tick(&mut decoder, 5_200), [(Draw::Greeting, Command::Echo)]);
        assert_eq!(decoder.next_tick(), None);
    }

    #[test]
    fn a_script_that_says_plain_first_is_not_greeted() {
        let mut decoder = Decoder::default();
        assert_eq!(typed(&mut decoder, 1, b"plain\r\n"), [(Draw::Plain, Command::Echo)]);
        assert_eq!(decoder.next_tick(), None);
    }

    #[test]
    fn who_types_before_the_greeting_is_greeted_first_and_once() {
        assert_eq!(drawn("\n  \n"), [Draw::Prompt, Draw::Prompt]);
    }

    #[test]
    fn help_is_given_for_all_commands_and_for_one() {
        assert_eq!(drawn("help\n"), [Draw::Help]);
        assert_eq!(drawn("help flush\n"), [Draw::HelpFor("flush".into())]);
        assert_eq!(drawn("help fish\n"), [Draw::Unknown("fish".into())]);
    }

    #[test]
    fn unknown_commands_and_wrong_arguments_are_told() {
        assert_eq!(drawn("FLUSHALL\n"), [Draw::Unknown("FLUSHALL".into())]);
        assert_eq!(drawn("flush\n"), [mistake("usage: flush QUEUE")]);
        assert_eq!(drawn("flush a b\n"), [mistake("usage: flush QUEUE")]);
        assert_eq!(drawn("flushall now\n"), [mistake("usage: flushall")]);
        assert_eq!(drawn("help a b\n"), [mistake("usage: help [COMMAND]")]);
        assert_eq!(drawn("flush \"\"\n"), [mistake("the queue name is empty")]);
        assert_eq!(drawn("flush 'a\n"), [mistake("a quote is not closed")]);
        assert_eq!(drawn("flush 'a'b\n"), [mistake("a closing quote ends the word")]);
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_a_mistake() {
        let found = typed(&mut Decoder::default(), 0, b"flush \xfe\n");
        assert_eq!(found.last(), Some(&(mistake("the line is not UTF-8"), Command::Echo)));
    }

    #[test]
    fn flush_takes_a_queue_with_blanks_in_either_kind_of_quotes() {
        for line in ["flush \"my 'q'\"\n", "  flush   \"my 'q'\"  \n"] {
            assert_eq!(dialogue(line), [(Draw::Done, Command::Flush(name("my 'q'")))]);
        }
        assert_eq!(dialogue("flush 'a \"b'\n"), [(Draw::Done, Command::Flush(name("a \"b")))]);
        assert_eq!(dialogue("flush it's\n"), [(Draw::Done, Command::Flush(name("it's")))]);
    }

    #[test]
    fn kicks_name_a_queue_or_a_message() {
        let kick = |queue, count| Command::Kick { queue: Target::Named(name(queue)), count };
        assert_eq!(dialogue("kick jobs\n"), [(Draw::Done, kick("jobs", 1))]);
        assert_eq!(dialogue("kick 'my jobs' 500\n"), [(Draw::Done, kick("my jobs", 500))]);
        assert_eq!(drawn("kick jobs all\n"), [mistake("how many is a whole number")]);
        let one = Command::KickMessage(MessageId(17));
        assert_eq!(dialogue("kick-message 17\n"), [(Draw::KickedMessage, one)]);
        assert_eq!(drawn("kick-message 0x1\n"), [mistake("an id is a whole number")]);
    }

    #[test]
    fn pauses_and_limits_are_settings_of_a_queue() {
        for (line, setting) in [
            ("pause jobs\n", QueueSetting::Paused(true)),
            ("resume jobs\n", QueueSetting::Paused(false)),
            ("limit jobs 7\n", QueueSetting::Limits(QueueLimits::of_all(7))),
            (
                "limit jobs 3 2 0\n",
                QueueSetting::Limits(QueueLimits { high: 3, normal: 2, low: 0 }),
            ),
        ] {
            let command = Command::Configure { queue: name("jobs"), setting };
            assert_eq!(dialogue(line), [(Draw::Done, command)]);
        }
        for line in ["limit jobs 3 2\n", "limit jobs x\n", "limit jobs -1\n"] {
            let told = mistake("one or three limits, each a whole number, 0 for none");
            assert_eq!(drawn(line), [told]);
        }
        assert_eq!(drawn("limit jobs\n"), [mistake("usage: limit QUEUE N [N N]")]);
    }

    #[test]
    fn flushall_status_clear_and_plain_are_asked() {
        assert_eq!(dialogue("flushall\n"), [(Draw::Done, Command::FlushAll)]);
        assert_eq!(dialogue("status\n"), [(Draw::Status, Command::Statistics)]);
        assert_eq!(drawn("clear\nplain\nq\n"), [Draw::Clear, Draw::Plain, Draw::Prompt]);
    }

    #[test]
    fn search_asks_for_matching_queues() {
        let command = Command::Survey { pattern: Some("a*".into()), lines_max: LISTING_LINES_MAX };
        assert_eq!(dialogue("search a*\n"), [(Draw::Search("a*".into()), command)]);
        let long = format!("search {}\n", "*".repeat(201));
        assert_eq!(drawn(&long), [mistake("a pattern has at most 200 bytes")]);
    }

    #[test]
    fn monitor_asks_every_half_second_until_q() {
        let mut decoder = Decoder::default();
        typed(&mut decoder, 0, b"\n");
        let picture = [(Draw::Monitor, Command::Survey { pattern: None, lines_max: 14 })];
        assert_eq!(typed(&mut decoder, 1_000, b"monitor\n"), picture);
        assert_eq!(decoder.next_tick(), Some(Time(1_500)));
        assert_eq!(tick(&mut decoder, 1_499), []);
        assert_eq!(tick(&mut decoder, 1_600), picture);
        assert_eq!(typed(&mut decoder, 1_700, b"help\n\n"), []);
        assert_eq!(decoder.next_tick(), Some(Time(2_100)));
        assert_eq!(typed(&mut decoder, 1_800, b"q\n"), [(Draw::Left, Command::Echo)]);
        assert_eq!(decoder.next_tick(), None);
    }

    #[test]
    fn pictures_that_were_missed_are_not_made_up_for() {
        let mut decoder = Decoder::default();
        typed(&mut decoder, 0, b"monitor\n");
        assert_eq!(tick(&mut decoder, 60_000).len(), 1);
        assert_eq!(tick(&mut decoder, 60_000), []);
        assert_eq!(decoder.next_tick(), Some(Time(60_500)));
    }

    #[test]
    fn show_asks_for_the_queue_every_half_second_until_q() {
        let mut decoder = Decoder::default();
        typed(&mut decoder, 0, b"\n");
        let command = Command::List { queue: name("jobs"), lines_max: 18 };
        let picture = [(Draw::Show("jobs".into()), command)];
        assert_eq!(typed(&mut decoder, 1_000, b"show jobs\n"), picture);
        assert_eq!(tick(&mut decoder, 1_500), picture);
        assert_eq!(typed(&mut decoder, 1_600, b"q\r\n"), [(Draw::Left, Command::Echo)]);
    }

    #[test]
    fn quit_and_exit_end_the_session_and_what_follows_is_not_read() {
        for lines in ["quit\nhelp\n", "exit\nhelp\n", "monitor\nquit\nhelp\n"] {
            let mut decoder = Decoder::default();
            let mut requests = Requests::default();
            let taken = decoder.decode(Time(0), lines.as_bytes(), &mut requests).unwrap();
            assert_eq!(lines.get(taken..), Some("help\n"));
            let requests = requests.take();
            assert_eq!(requests.last().map(|request| &request.command), Some(&Command::Quit));
            let before = requests.iter().rev().nth(1).map(|request| &request.tag);
            assert_eq!(before.and_then(Draw::of), Some(Draw::Goodbye));
            assert_eq!(decoder.next_tick(), None);
        }
    }

    #[test]
    fn a_browser_is_sent_away_before_its_body_is_read() {
        let post = b"POST / HTTP/1.1\r\nHost: localhost:9101\r\n\r\nflushall\r\n";
        let expected = (vec![], Some(WireError::HttpRequest));
        assert_eq!(decode_all(&mut Decoder::default(), post), expected);
        assert_eq!(decode_all(&mut Decoder::default(), b"host: x\nflushall\n"), expected);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (requests, error) = decode_all(&mut Decoder::default(), &[b'x'; 5_000]);
        assert_eq!((requests.len(), error), (0, Some(WireError::TooLong("line", 4_096))));
    }

    #[test]
    fn a_window_is_asked_for_once_and_its_size_used() {
        let mut decoder = Decoder::default();
        typed(&mut decoder, 0, b"\n");
        let asked = [(Draw::AskWindow, Command::Echo)];
        assert_eq!(typed(&mut decoder, 1, b"\xff\xfb\x1f\xff\xfb\x1f"), asked);
        let found = typed(&mut decoder, 2, b"\xff\xfa\x1f\x00\x84\x00\x32\xff\xf0monitor\n");
        assert_eq!(found[0].0, Draw::TerminalSize(TerminalSize { columns: 132, lines: 50 }));
        assert_eq!(found[1].1, Command::Survey { pattern: None, lines_max: 40 });
    }

    #[test]
    fn a_full_batch_stops_the_decoder_and_nothing_is_lost() {
        let lines = format!("{}quit\nhelp\n", "help\n".repeat(254));
        let (mut decoder, mut rest) = (Decoder::default(), lines.as_bytes());
        let mut sizes = Vec::new();
        while rest != b"help\n" {
            let mut requests = Requests::default();
            let taken = decoder.decode(Time(0), rest, &mut requests).unwrap();
            rest = &rest[taken..];
            sizes.push(requests.len());
        }
        // Greeting, 254 helps and the goodbye; then the end.
        assert_eq!(sizes, [256, 1]);
    }

    #[test]
    fn whatever_is_typed_is_the_same_however_the_bytes_are_cut() {
        let pieces: [&[u8]; 12] = [
            b"help\n",
            b"flush 'a b'\r\n",
            b"monitor\n",
            b"q\n",
            b"\xff\xfb\x1f",
            b"\xff\xfa\x1f",
            b"\0\x32\0\x32\xff\xf0",
            b"\x08",
            b"\n",
            b"show x\r\0",
            b"search \xc3\xb6*\n",
            b"plain\n",
        ];
        let mut random = Random::announced();
        for _ in 0..1_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.below(40) {
                match random.below(10) {
                    0 => bytes.extend(random.bytes(20)),
                    _ => bytes.extend_from_slice(pieces[random.below(pieces.len())]),
                }
            }
            let whole = decode_all(&mut Decoder::default(), &bytes);
            let cut = decode_in_parts(&mut Decoder::default(), &bytes, &mut random);
            assert_eq!(whole, cut);
            assert!(whole.0.iter().all(|request| matches!(request.tag, Tag::Bytes(_))));
        }
    }
}
