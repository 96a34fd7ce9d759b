//! Why a message returns to its queue from its holder's hands, or from where it was set aside.

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
    /// The lease under which it was held was over.
    LeaseOver,
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
    pub const WORDS: [&'static str; 10] = [
        "released",
        "failed",
        "rejected",
        "timed out",
        "ack_timeout",
        "lease over",
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
            Cause::LeaseOver => 5,
            Cause::ConnectionLost => 6,
            Cause::SubscriptionEnded => 7,
            Cause::Kicked => 8,
            Cause::Due => 9,
        }
    }

    /// Whether a return for this cause is a failed attempt to process the message. A lost
    /// connection or an `ack_timeout` says nothing of messages that only waited in a window behind
    /// another one: `was_in_work` tells whether this one was taken on request, or the window's
    /// oldest.
    pub fn is_failed_attempt(self, was_in_work: bool) -> bool {
        match self {
            Cause::Released { .. }
            | Cause::Failed
            | Cause::Rejected
            | Cause::TimedOut
            | Cause::LeaseOver => true,
            Cause::AckTimeout | Cause::ConnectionLost => was_in_work,
            Cause::SubscriptionEnded | Cause::Kicked | Cause::Due => false,
        }
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
    fn returns_are_counted_by_their_words() {
        let mut counts = ReturnCounts::default();
        counts.add(Cause::TimedOut);
        counts.add(Cause::TimedOut);
        counts.add(Cause::Due);
        let counted: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("timed out", 2), ("due", 1)]);
    }
}
