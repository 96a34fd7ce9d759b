//! What an operator sets of a queue while the daemon runs.

/// One setting of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSetting {
    /// Whether nothing of it is handed out until somebody says otherwise.
    Paused(bool),
    /// How many messages it may hold.
    Limits(QueueLimits),
}

impl QueueSetting {
    /// Whether this is what a queue is that nobody has set anything of.
    pub fn is_default(self) -> bool {
        match self {
            QueueSetting::Paused(paused) => !paused,
            QueueSetting::Limits(limits) => limits == QueueLimits::NONE,
        }
    }
}

/// The classes of priorities that a queue may have limits of their own for. Clients that know only
/// three priorities have one of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityClass {
    /// Below 768.
    High,
    /// From 768 to 1,279; the default priority of 1,024 is one of these.
    Normal,
    /// All others.
    Low,
}

impl PriorityClass {
    /// The class of a priority.
    pub fn of(priority: u32) -> PriorityClass {
        match priority {
            0..768 => PriorityClass::High,
            768..1_280 => PriorityClass::Normal,
            _ => PriorityClass::Low,
        }
    }
}

/// How many messages a queue may hold, whatever their state, when a message of a class is put; 0 is
/// no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// For messages of high priority.
    pub high: u32,
    /// For those of normal priority.
    pub normal: u32,
    /// For those of low priority.
    pub low: u32,
}

impl QueueLimits {
    /// No limit.
    pub const NONE: QueueLimits = QueueLimits { high: 0, normal: 0, low: 0 };

    /// The same limit for all messages.
    pub fn of_all(most: u32) -> QueueLimits {
        QueueLimits { high: most, normal: most, low: most }
    }

    /// Whether a queue with so many messages is full for one of this priority.
    pub fn refuse(self, messages: u64, priority: u32) -> bool {
        let most = match PriorityClass::of(priority) {
            PriorityClass::High => self.high,
            PriorityClass::Normal => self.normal,
            PriorityClass::Low => self.low,
        };
        most > 0 && messages >= u64::from(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_priorities_has_its_limit() {
        let limits = QueueLimits { high: 3, normal: 2, low: 0 };
        for (priority, full_at) in [(0, 3), (767, 3), (768, 2), (1_024, 2), (1_279, 2)] {
            assert!(!limits.refuse(full_at - 1, priority), "{priority}");
            assert!(limits.refuse(full_at, priority), "{priority}");
        }
        assert!(!limits.refuse(u64::MAX, 1_280));
        assert!(QueueLimits::of_all(1).refuse(1, u32::MAX));
    }
}
