//! One command line, without its end, into what it asks for.
//!
//! The original reads numbers in two ways: most may have spaces before them and nothing but their
//! digits; those of `kick` and `reserve-with-timeout` are read as C does it. Both are kept.

use super::{Note, WATCH_LIST, is_tube_byte, is_tube_name};
use crate::words::change::MessageState;
use crate::words::command::{Amount, Command, MessageRef, Options, Sources, Target};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::WORK_PER_TURN_MAX;
use crate::words::statistics::Counted;

/// What a line says.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    /// This.
    Command(Command),
    /// This, with a word for the encoder.
    Tagged(Note, Command),
    /// A command about the tube of this checked name.
    Tube(&'a str, fn(QueueName) -> Command),
    /// Pause the tube of this checked name for so many milliseconds.
    Pause(&'a str, u64),
    /// A body follows.
    Put(PutHead),
    /// Good-bye.
    Quit,
}

/// What a put line says.
#[derive(Clone, Copy, Debug)]
pub(super) struct PutHead {
    pub priority: u32,
    pub delay_ms: u64,
    pub time_to_run_ms: u64,
    pub body_bytes: u32,
    /// Whether nothing stood behind the last number.
    pub is_line_whole: bool,
}

const BAD_FORMAT: Parsed<'static> = Parsed::Tagged(Note::BadFormat, Command::Echo);
const UNKNOWN_COMMAND: Parsed<'static> = Parsed::Tagged(Note::UnknownCommand, Command::Echo);
/// The least time to run, in milliseconds.
const TIME_TO_RUN_MS_MIN: u64 = 1_000;
/// A time-out that never comes, in milliseconds.
const FOR_EVER_MS: u64 = u64::MAX;

/// Reads a line.
pub(super) fn parse(line: &[u8]) -> Parsed<'_> {
    if line.contains(&0) {
        return BAD_FORMAT;
    }
    // Like the original's, the first word that fits decides, not the whole first word: "quitting"
    // quits, "statsx" is a bad "stats" and "delete" without a space is no command.
    match line.first() {
        Some(b'p') => parse_p(line),
        Some(b'r') => parse_r(line),
        Some(b's') => parse_s(line),
        Some(b'l') => parse_l(line),
        Some(b'k') => parse_k(line),
        _ => parse_others(line),
    }
}

fn parse_p(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"put ") {
        return put_head(rest).map_or(BAD_FORMAT, Parsed::Put);
    }
    if let Some(rest) = line.strip_prefix(b"peek ") {
        return by_id(rest, Command::Peek);
    }
    for (word, state) in [
        (&b"peek-ready"[..], MessageState::Ready),
        (b"peek-delayed", MessageState::Delayed),
        (b"peek-buried", MessageState::Buried),
    ] {
        if let Some(rest) = line.strip_prefix(word) {
            return alone(rest, Command::PeekNext { queue: Target::Referred, state });
        }
    }
    match line.strip_prefix(b"pause-tube") {
        Some(rest) => pause(rest).unwrap_or(BAD_FORMAT),
        None => UNKNOWN_COMMAND,
    }
}

fn parse_r(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"release ") {
        return release(rest).map_or(BAD_FORMAT, Parsed::Command);
    }
    if let Some(rest) = line.strip_prefix(b"reserve-with-timeout ") {
        return reserve_with_timeout(rest).map_or(BAD_FORMAT, Parsed::Command);
    }
    if let Some(rest) = line.strip_prefix(b"reserve-job ") {
        return by_id(rest, Command::ReserveMessage);
    }
    if let Some(rest) = line.strip_prefix(b"reserve-batch ") {
        return reserve_batch(rest).unwrap_or(BAD_FORMAT);
    }
    match line.strip_prefix(b"reserve") {
        Some(rest) => alone(rest, reserve(None, 1)),
        None => UNKNOWN_COMMAND,
    }
}

fn parse_s(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"stats-job ") {
        return by_id(rest, Command::MessageStatistics);
    }
    if let Some(rest) = line.strip_prefix(b"stats-tube ") {
        return by_tube(rest, Command::QueueStatistics);
    }
    match line.strip_prefix(b"stats") {
        Some(rest) => alone(rest, Command::Statistics),
        None => UNKNOWN_COMMAND,
    }
}

fn parse_l(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"list-tubes-watched") {
        return alone(rest, Command::ListSubscribed(WATCH_LIST));
    }
    if let Some(rest) = line.strip_prefix(b"list-tube-used") {
        return alone(rest, Command::ShowReferred);
    }
    match line.strip_prefix(b"list-tubes") {
        Some(rest) => alone(rest, Command::ListQueues),
        None => UNKNOWN_COMMAND,
    }
}

fn parse_k(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"kick ") {
        return kick(rest).map_or(BAD_FORMAT, Parsed::Command);
    }
    match line.strip_prefix(b"kick-job ") {
        Some(rest) => by_id(rest, Command::KickMessage),
        None => UNKNOWN_COMMAND,
    }
}

fn parse_others(line: &[u8]) -> Parsed<'_> {
    if let Some(rest) = line.strip_prefix(b"delete ") {
        return by_id(rest, Command::Remove);
    }
    if let Some(rest) = line.strip_prefix(b"touch ") {
        return by_id(rest, |id| Command::Touch(MessageRef::Id(id)));
    }
    if let Some(rest) = line.strip_prefix(b"bury ") {
        return bury(rest).map_or(BAD_FORMAT, Parsed::Command);
    }
    if let Some(rest) = line.strip_prefix(b"use ") {
        return by_tube(rest, Command::Refer);
    }
    if let Some(rest) = line.strip_prefix(b"watch ") {
        return by_tube(rest, watch);
    }
    if let Some(rest) = line.strip_prefix(b"ignore ") {
        return by_tube(rest, ignore);
    }
    if let Some(rest) = line.strip_prefix(b"flush-tube ") {
        return by_tube(rest, Command::Flush);
    }
    if line.starts_with(b"quit") { Parsed::Quit } else { UNKNOWN_COMMAND }
}

fn watch(queue: QueueName) -> Command {
    Command::Subscribe { key: WATCH_LIST, queue, options: Options::default() }
}

fn ignore(queue: QueueName) -> Command {
    Command::Unsubscribe { key: WATCH_LIST, queue, keep_last: true }
}

fn reserve(timeout_ms: Option<u64>, count: u32) -> Command {
    let from = Sources::Subscription(WATCH_LIST);
    Command::Reserve { from, refuse_if_holding: false, timeout_ms, amount: Amount::Total(count) }
}

/// A command that nothing may follow.
fn alone(rest: &[u8], command: Command) -> Parsed<'_> {
    if rest.is_empty() { Parsed::Command(command) } else { BAD_FORMAT }
}

fn by_id(rest: &[u8], command: fn(MessageId) -> Command) -> Parsed<'_> {
    last_number(rest).map_or(BAD_FORMAT, |id| Parsed::Command(command(MessageId(id))))
}

fn by_tube(rest: &[u8], command: fn(QueueName) -> Command) -> Parsed<'_> {
    tube_name(rest).map_or(BAD_FORMAT, |name| Parsed::Tube(name, command))
}

fn tube_name(bytes: &[u8]) -> Option<&str> {
    if is_tube_name(bytes) { std::str::from_utf8(bytes).ok() } else { None }
}

fn put_head(rest: &[u8]) -> Option<PutHead> {
    let (priority, rest) = number_32(rest)?;
    let (delay_ms, rest) = seconds(rest)?;
    let (time_to_run_ms, rest) = seconds(rest)?;
    let (body_bytes, rest) = number_32(rest)?;
    Some(PutHead {
        priority,
        delay_ms,
        time_to_run_ms: time_to_run_ms.max(TIME_TO_RUN_MS_MIN),
        body_bytes,
        is_line_whole: rest.is_empty(),
    })
}

fn by(id: u64) -> MessageRef {
    MessageRef::Id(MessageId(id))
}

fn release(rest: &[u8]) -> Option<Command> {
    let (id, rest) = number(rest)?;
    let (priority, rest) = number_32(rest)?;
    let (delay_ms, rest) = seconds(rest)?;
    let command = Command::Release { message: by(id), priority: Some(priority), delay_ms };
    rest.is_empty().then_some(command)
}

fn bury(rest: &[u8]) -> Option<Command> {
    let (id, rest) = number(rest)?;
    let (priority, rest) = number_32(rest)?;
    let command = Command::Bury { message: by(id), priority: Some(priority) };
    rest.is_empty().then_some(command)
}

/// The name ends where its alphabet does; the original does not ask for a space before it.
fn pause(rest: &[u8]) -> Option<Parsed<'_>> {
    let rest = skip_spaces(rest);
    let name_len = rest.iter().take_while(|byte| is_tube_byte(**byte)).count();
    let (name, rest) = rest.split_at_checked(name_len)?;
    if name.is_empty() {
        return None;
    }
    let (for_ms, rest) = seconds(rest)?;
    if !rest.is_empty() {
        return None;
    }
    // A name that is refused only now has been counted in the original.
    let refused = Parsed::Tagged(
        Note::BadFormat,
        Command::Malformed { counted: Counted::Pause, costs_id: false },
    );
    Some(tube_name(name).map_or(refused, |name| Parsed::Pause(name, for_ms)))
}

/// `count` is cut to what one turn of the daemon may do: a batch has up to that many.
fn reserve_batch(rest: &[u8]) -> Option<Parsed<'_>> {
    let (count, rest) = number_32(rest)?;
    let (timeout_ms, rest) = seconds(rest)?;
    if count == 0 || !rest.is_empty() {
        return None;
    }
    let count = count.min(u32::try_from(WORK_PER_TURN_MAX).unwrap_or(u32::MAX));
    let command = reserve(Some(timeout_ms), count);
    Some(if count == 1 {
        Parsed::Tagged(Note::BatchOfOne, command)
    } else {
        Parsed::Command(command)
    })
}

/// As C's `strtol` reads it into an `int`: no digits are 0, more than 32 bits are cut off, what
/// follows is not looked at, and less than 0 is for ever (which is a time-out all the same: it counts as
/// one in the statistics).
fn reserve_with_timeout(rest: &[u8]) -> Option<Command> {
    let text = c_number(rest);
    let cut = match text {
        None => 0,
        Some(CNumber { magnitude: None, .. }) => return None,
        Some(CNumber { is_negative, magnitude: Some(magnitude) }) => {
            let bound = i64::MAX as u64 + u64::from(is_negative);
            if magnitude > bound {
                return None;
            }
            let bits = if is_negative { magnitude.wrapping_neg() } else { magnitude };
            bits & u64::from(u32::MAX)
        }
    };
    let timeout_ms = if cut <= i32::MAX as u64 { cut * 1_000 } else { FOR_EVER_MS };
    Some(reserve(Some(timeout_ms), 1))
}

/// As C's `strtoul` reads it into an `unsigned int`.
fn kick(rest: &[u8]) -> Option<Command> {
    let CNumber { is_negative, magnitude } = c_number(rest)?;
    let magnitude = magnitude?;
    let bits = if is_negative { magnitude.wrapping_neg() } else { magnitude };
    Some(Command::Kick { queue: Target::Referred, count: bits & u64::from(u32::MAX) })
}

struct CNumber {
    is_negative: bool,
    /// `None` is more than 64 bits.
    magnitude: Option<u64>,
}

/// White space, a sign, digits; `None` without digits.
fn c_number(bytes: &[u8]) -> Option<CNumber> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let start = bytes.iter().position(|byte| !is_space(byte))?;
    let text = bytes.get(start..)?;
    let (is_negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let (magnitude, _) = digits(text)?;
    Some(CNumber { is_negative, magnitude })
}

/// A number with nothing behind it.
fn last_number(bytes: &[u8]) -> Option<u64> {
    let (value, rest) = number(bytes)?;
    rest.is_empty().then_some(value)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, rest) = digits(skip_spaces(bytes))?;
    Some((value?, rest))
}

fn number_32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = number(bytes)?;
    Some((u32::try_from(value).ok()?, rest))
}

/// A 32-bit number of seconds, in milliseconds.
fn seconds(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, rest) = number_32(bytes)?;
    Some((u64::from(value) * 1_000, rest))
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
    bytes.get(spaces..).unwrap_or_default()
}

/// At least one digit and what follows; a number of more than 64 bits is `None`.
fn digits(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let mut value = Some(0_u64);
    let mut rest = bytes;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        let digit = u64::from(digit - b'0');
        value = value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
        rest = after;
    }
    (rest.len() < bytes.len()).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line.as_bytes()) {
            Parsed::Command(command) => command,
            Parsed::Tube(name, command) => command(QueueName::new(name.as_bytes()).unwrap()),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &[u8]) -> (Note, Command) {
        match parse(line) {
            Parsed::Tagged(note, command) => (note, command),
            other => panic!("{}: {other:?}", line.escape_ascii()),
        }
    }

    fn name(text: &str) -> QueueName {
        QueueName::new(text.as_bytes()).unwrap()
    }

    fn peek_next(state: MessageState) -> Command {
        Command::PeekNext { queue: Target::Referred, state }
    }

    #[test]
    fn every_command_is_understood() {
        let id = MessageId(7);
        for (line, expected) in [
            ("use t", Command::Refer(name("t"))),
            ("watch t", watch(name("t"))),
            ("ignore t", ignore(name("t"))),
            ("reserve", reserve(None, 1)),
            ("reserve-with-timeout 3", reserve(Some(3_000), 1)),
            ("reserve-batch 9 3", reserve(Some(3_000), 9)),
            ("reserve-job 7", Command::ReserveMessage(id)),
            ("delete 7", Command::Remove(id)),
            (
                "release 7 5 2",
                Command::Release { message: by(7), priority: Some(5), delay_ms: 2_000 },
            ),
            ("bury 7 5", Command::Bury { message: by(7), priority: Some(5) }),
            ("touch 7", Command::Touch(by(7))),
            ("peek 7", Command::Peek(id)),
            ("peek-ready", peek_next(MessageState::Ready)),
            ("peek-delayed", peek_next(MessageState::Delayed)),
            ("peek-buried", peek_next(MessageState::Buried)),
            ("kick 3", Command::Kick { queue: Target::Referred, count: 3 }),
            ("kick-job 7", Command::KickMessage(id)),
            ("stats", Command::Statistics),
            ("stats-job 7", Command::MessageStatistics(id)),
            ("stats-tube t", Command::QueueStatistics(name("t"))),
            ("list-tubes", Command::ListQueues),
            ("list-tube-used", Command::ShowReferred),
            ("list-tubes-watched", Command::ListSubscribed(WATCH_LIST)),
            ("flush-tube t", Command::Flush(name("t"))),
        ] {
            assert_eq!(command(line), expected, "{line}");
        }
        assert!(matches!(parse(b"pause-tube t 4"), Parsed::Pause("t", 4_000)));
        assert!(matches!(parse(b"quit"), Parsed::Quit));
    }

    #[test]
    fn a_put_line_is_read_with_its_least_time_to_run() {
        let Parsed::Put(head) = parse(b"put 4294967295 2 0 10") else { panic!() };
        assert_eq!((head.priority, head.delay_ms, head.time_to_run_ms), (u32::MAX, 2_000, 1_000));
        assert!(head.body_bytes == 10 && head.is_line_whole);
        let Parsed::Put(head) = parse(b"put  0  0  60  10 ") else { panic!() };
        assert!(head.time_to_run_ms == 60_000 && !head.is_line_whole);
    }

    #[test]
    fn a_batch_of_one_is_marked_and_a_large_one_is_cut() {
        let one = (Note::BatchOfOne, reserve(Some(0), 1));
        assert_eq!(error(b"reserve-batch 1 0"), one);
        let Command::Reserve { amount, .. } = command("reserve-batch 4294967295 0") else {
            panic!()
        };
        assert_eq!(amount, Amount::Total(u32::try_from(WORK_PER_TURN_MAX).unwrap()));
    }

    #[test]
    fn ids_have_64_bits_and_may_have_spaces_and_zeros_before() {
        assert_eq!(command("delete 18446744073709551615"), Command::Remove(MessageId(u64::MAX)));
        assert_eq!(command("delete   007"), Command::Remove(MessageId(7)));
        assert_eq!(
            command("release  1  2  3"),
            Command::Release { message: by(1), priority: Some(2), delay_ms: 3_000 }
        );
    }

    #[test]
    fn malformed_lines_are_bad_format() {
        const LINES: &str = "reserve |reservefoo|reserve-with-timeout|reserve-with-timeoutx 0|\
            reserve-with-timeout 9223372036854775808|reserve-with-timeout -9223372036854775809|\
            reserve-job|reserve-job x|reserve-job 1 |reserve-batch|reserve-batch 0 0|\
            reserve-batch 1|reserve-batch 1 0 |reserve-batch -1 0|put |put 1 2|put 0 0 60|\
            put +0 0 0 1|put 0 0 60 -1|put 4294967296 0 1 1|put 0 4294967296 1 1|\
            put 0 0 4294967296 1|put 0 0 60 4294967296|kick |kick x|kick --2|\
            kick 18446744073709551616|kick-job x|kick-job 1 |delete |delete abc|delete 1 |\
            delete 1 1|delete +1|delete -1|delete \t1|delete 18446744073709551616|release 1|\
            release 1 1|release 1 1 1 |release 1 4294967296 0|release 1 0 4294967296|bury 1|\
            bury 1 1 |touch x|peek x|peek-readyx|peek-delayed |peek-buried 1|use |use  a|use a |\
            use a b|use -a|watch |ignore |stats |statsx|stats-tube|stats-tube |stats-tubedefault|\
            stats-job|stats-job 1 |list-tubesx|list-tube-used |list-tubes-watched |pause-tube|\
            pause-tube a|pause-tube a0|pause-tube a x|pause-tube a 0 |pause-tube a 4294967296|\
            pause-tube a* 0|flush-tube *|\0|stats\0|quit\0";
        for line in LINES.split('|') {
            assert_eq!(error(line.as_bytes()), (Note::BadFormat, Command::Echo), "{line:?}");
        }
        for word in ["use", "watch", "ignore", "stats-tube"] {
            let line = format!("{word} {}", "a".repeat(201));
            assert_eq!(error(line.as_bytes()), (Note::BadFormat, Command::Echo), "{line:?}");
        }
    }

    #[test]
    fn other_lines_are_no_commands() {
        const LINES: &str = "| | stats|foo|put|putx 0 0 60 1|PUT 0 0 60 1|STATS|kick|kick-job|\
            delete|delete\t1|bury|release|touch|peek|peek-|use|watch|ignore|list-tube|flush-tube|\
            res|l|s|k|p|r";
        for line in LINES.split('|') {
            let expected = (Note::UnknownCommand, Command::Echo);
            assert_eq!(error(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_pause_of_a_name_that_is_refused_counts_all_the_same() {
        let counted =
            (Note::BadFormat, Command::Malformed { counted: Counted::Pause, costs_id: false });
        assert_eq!(error(b"pause-tube -a 0"), counted);
        assert_eq!(error(format!("pause-tube {} 0", "a".repeat(201)).as_bytes()), counted);
        assert!(matches!(parse(b"pause-tubet  4"), Parsed::Pause("t", 4_000)));
    }

    #[test]
    fn time_outs_are_read_as_the_original_reads_them() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("abc", Some(0)),
            ("0 abc", Some(0)),
            (" 7", Some(7)),
            ("7x", Some(7)),
            ("\t\x0b7", Some(7)),
            ("+1", Some(1)),
            ("- 1", Some(0)),
            ("-1", None),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("4294967297", Some(1)),
            ("-4294967295", Some(1)),
            ("-9223372036854775808", Some(0)),
            ("9223372036854775807", None),
        ] {
            let timeout_ms = seconds.map_or(FOR_EVER_MS, |seconds: u64| seconds * 1_000);
            let expected = reserve(Some(timeout_ms), 1);
            assert_eq!(command(&format!("reserve-with-timeout {text}")), expected, "{text:?}");
        }
    }

    #[test]
    fn bounds_of_a_kick_are_read_as_the_original_reads_them() {
        for (text, bound) in [
            ("1 abc", 1),
            ("1abc", 1),
            ("\t2", 2),
            ("+2", 2),
            ("4294967296", 0),
            ("4294967297", 1),
            ("-1", 4_294_967_295),
            ("-18446744073709551615", 1),
        ] {
            let kick = Command::Kick { queue: Target::Referred, count: bound };
            assert_eq!(command(&format!("kick {text}")), kick, "{text:?}");
        }
    }
}
