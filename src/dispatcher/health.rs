//! How the daemon is, as the service manager is told: written by the dispatcher, read by the main
//! thread.

use std::sync::atomic::{AtomicU8, Ordering};

/// What keeps the daemon from taking every message. All threads may look at it.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

/// One reason why messages are refused.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Condition {
    Draining = 1,
    Failing = 2,
    DiskLow = 4,
    OutOfMemory = 8,
    NoRoom = 16,
}

/// The words for each.
const WORDS: [(Condition, &str); 5] = [
    (Condition::Draining, "draining"),
    (Condition::Failing, "degraded, changes cannot be written to the disk"),
    (Condition::DiskLow, "the disk has less room than storage.min_free_disk"),
    (Condition::NoRoom, "degraded, the disk is full"),
    (Condition::OutOfMemory, "limits.max_memory is reached"),
];

impl Health {
    /// Sets the conditions that hold now. Returns whether they have changed.
    pub(super) fn note(&self, conditions: impl IntoIterator<Item = (Condition, bool)>) -> bool {
        let bits = conditions
            .into_iter()
            .filter(|(_, is)| *is)
            .fold(0, |bits, (condition, _)| bits | condition as u8);
        self.0.swap(bits, Ordering::Relaxed) != bits
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let bits = self.0.load(Ordering::Relaxed);
        let words: Vec<&str> = WORDS
            .iter()
            .filter(|(condition, _)| bits & *condition as u8 != 0)
            .map(|(_, words)| *words)
            .collect();
        if words.is_empty() {
            "Serving".to_owned()
        } else {
            format!("Serving, but refusing new messages: {}", words.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_everything_that_is_wrong() {
        let health = Health::default();
        assert_eq!(health.line(), "Serving");
        assert!(health.note([
            (Condition::Draining, true),
            (Condition::Failing, true),
            (Condition::DiskLow, false)
        ]));
        let both = "Serving, but refusing new messages: draining; degraded, changes cannot be written \
                    to the disk";
        assert_eq!(health.line(), both);
        assert!(!health.note([(Condition::Draining, true), (Condition::Failing, true)]));
        assert!(health.note([]));
        assert_eq!(health.line(), "Serving");
    }
}
