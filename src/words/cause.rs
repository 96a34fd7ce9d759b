//! Why a message returns to its queue from its holder's hands, or from where it was set aside.

use crate::words::limits::REASON_BYTES_MAX;

/// Why a message returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its holder gave it back.
    Released {
        /// Its priority from now on; `None` keeps the old one.
        priority: Option<u32>,
        /// The delay that its holder asked for, in milliseconds.
        delay_ms: u64,
    },
    /// Its holder said that it could not be processed.
    Failed,
    /// Its holder set it aside: it is not to be tried again.
    Rejected,
    /// Its time to run was over.
    TimedOut,
    /// It was the oldest of a window for longer than `ack_timeout`.
    AckTimeout,
    /// The connection that held it ended.
    ConnectionLost,
    /// The connection that held it wants no more messages of its queue.
    SubscriptionEnded,
    /// Somebody brought it back.
    Kicked,
    /// Its delay was over.
    Due,
}

impl Cause {
    /// How many causes there are.
    pub const COUNT: usize = Cause::WORDS.len();

    /// The words of all causes, in the order in which they are declared.
    pub const WORDS: [&'static str; 9] = [
        "released",
        "failed",
        "rejected",
        "timed out",
        "ack_timeout",
        "connection lost",
        "subscription ended",
        "kicked",
        "due",
    ];

    /// The cause in words for people.
    pub fn word(self) -> &'static str {
        Cause::WORDS[self.index()]
    }

    /// Its place among [`Cause::WORDS`].
    pub fn index(self) -> usize {
        match self {
            Cause::Released { .. } => 0,
            Cause::Failed => 1,
            Cause::Rejected => 2,
            Cause::TimedOut => 3,
            Cause::AckTimeout => 4,
            Cause::ConnectionLost => 5,
            Cause::SubscriptionEnded => 6,
            Cause::Kicked => 7,
            Cause::Due => 8,
        }
    }

    /// Whether a return for this cause is a failed attempt to process the message. A lost
    /// connection or an `ack_timeout` says nothing of messages that only waited in a window behind
    /// another one: `was_in_work` tells whether this one was taken on request, or the window's
    /// oldest.
    pub fn is_failed_attempt(self, was_in_work: bool) -> bool {
        match self {
            Cause::Released { .. } | Cause::Failed | Cause::Rejected | Cause::TimedOut => true,
            Cause::AckTimeout | Cause::ConnectionLost => was_in_work,
            Cause::SubscriptionEnded | Cause::Kicked | Cause::Due => false,
        }
    }
}

/// What a holder says of a message that it could not process: a line of text for people, of at
/// most [`REASON_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Box<str>);

impl Reason {
    /// The beginning of a text of any kind. What is not UTF-8 is replaced by the sign for that, a
    /// control character by a space, so that no text can break a line or command a terminal.
    pub fn new(text: &[u8]) -> Reason {
        let text = &text[..text.len().min(REASON_BYTES_MAX)];
        let mut line: String = String::from_utf8_lossy(text)
            .chars()
            .map(|sign| if sign.is_control() { ' ' } else { sign })
            .collect();
        let end =
            (0..=REASON_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        Reason(line.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How often messages returned, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnCounts([u64; Cause::COUNT]);

impl ReturnCounts {
    /// Counts one.
    pub fn add(&mut self, cause: Cause) {
        self.0[cause.index()] += 1;
    }

    /// Each cause in words, and how often messages returned for it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::WORDS.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_behind_its_oldest_message_has_not_failed() {
        for cause in [Cause::ConnectionLost, Cause::AckTimeout] {
            assert!(cause.is_failed_attempt(true) && !cause.is_failed_attempt(false));
        }
        for cause in [Cause::TimedOut, Cause::Released { priority: None, delay_ms: 0 }] {
            assert!(cause.is_failed_attempt(false));
        }
        assert!(!Cause::SubscriptionEnded.is_failed_attempt(true));
        assert!(!Cause::Due.is_failed_attempt(true) && !Cause::Kicked.is_failed_attempt(true));
    }

    #[test]
    fn a_reason_is_one_bounded_line_whatever_was_said() {
        assert_eq!(Reason::new(b"no such host\n\x1b[2J").as_str(), "no such host  [2J");
        assert_eq!(Reason::new(b"\xffx").as_str(), "\u{fffd}x");
        // Each byte becomes a sign of three.
        let long = Reason::new(&[0xff; 2 * REASON_BYTES_MAX]);
        assert_eq!(long.as_str().len(), REASON_BYTES_MAX - REASON_BYTES_MAX % 3);
        assert_eq!(Reason::new("ä".repeat(REASON_BYTES_MAX).as_bytes()).as_str().len(), 1_024);
    }

    #[test]
    fn returns_are_counted_by_their_words() {
        let mut counts = ReturnCounts::default();
        counts.add(Cause::TimedOut);
        counts.add(Cause::TimedOut);
        counts.add(Cause::Due);
        let counted: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("timed out", 2), ("due", 1)]);
    }
}
