//! How the daemon is, as the service manager is told: written by the dispatcher, read by the main
//! thread.

use std::sync::atomic::{AtomicU8, Ordering};

/// What keeps the daemon from taking every message. All threads may look at it.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

/// One thing that does.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Ill {
    Draining = 1,
    Failing = 2,
    DiskLow = 4,
    OutOfMemory = 8,
    NoRoom = 16,
}

/// What is said of each.
const WORDS: [(Ill, &str); 5] = [
    (Ill::Draining, "draining"),
    (Ill::Failing, "degraded, changes cannot be written to the disk"),
    (Ill::DiskLow, "the disk has less room than storage.min_free_disk"),
    (Ill::NoRoom, "degraded, the disk is full"),
    (Ill::OutOfMemory, "limits.max_memory is reached"),
];

impl Health {
    /// Notes what there is now. Says whether that is something else than before.
    pub(super) fn note(&self, ills: impl IntoIterator<Item = (Ill, bool)>) -> bool {
        let bits =
            ills.into_iter().filter(|(_, is)| *is).fold(0, |bits, (ill, _)| bits | ill as u8);
        self.0.swap(bits, Ordering::Relaxed) != bits
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let bits = self.0.load(Ordering::Relaxed);
        let words: Vec<&str> = WORDS
            .iter()
            .filter(|(ill, _)| bits & *ill as u8 != 0)
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
        assert!(health.note([(Ill::Draining, true), (Ill::Failing, true), (Ill::DiskLow, false)]));
        let both = "Serving, but refusing new messages: draining; degraded, changes cannot be written \
                    to the disk";
        assert_eq!(health.line(), both);
        assert!(!health.note([(Ill::Draining, true), (Ill::Failing, true)]));
        assert!(health.note([]));
        assert_eq!(health.line(), "Serving");
    }
}
