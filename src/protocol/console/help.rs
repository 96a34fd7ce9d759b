//! The console's commands, and what `help` says about them.

/// A command as `help` tells it.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// What goes behind the name; optional where it stands in brackets.
    pub(super) argument: &'static str,
    /// One line for the list.
    pub(super) summary: &'static str,
    /// More lines for the command alone.
    pub(super) details: &'static [&'static str],
}

/// All commands, in the order of the list.
pub(super) const COMMANDS: &[Entry] = &[
    Entry {
        name: "help",
        argument: "[COMMAND]",
        summary: "this list, or the help of one command",
        details: &[],
    },
    Entry { name: "clear", argument: "", summary: "clear the screen", details: &[] },
    Entry {
        name: "monitor",
        argument: "",
        summary: "overview, refreshed until q + Enter",
        details: &[
            "Shows memory, uptime and totals, then the fullest queues as far as the",
            "screen goes. The bar compares each queue with the fullest one.",
        ],
    },
    Entry {
        name: "search",
        argument: "PATTERN",
        summary: "queues whose name matches",
        details: &[
            "* stands for any characters, letters match in any case.",
            "Quote a pattern with spaces: search \"my *\"",
        ],
    },
    Entry {
        name: "show",
        argument: "QUEUE",
        summary: "a queue's messages, refreshed until q + Enter",
        details: &[
            "\u{2192} marks reserved messages. The list of an unknown queue is empty.",
            "Quote a name with spaces: show 'my queue'",
        ],
    },
    Entry {
        name: "kick",
        argument: "QUEUE [N]",
        summary: "bring messages of a queue back that were set aside",
        details: &[
            "At most N, 1 without a number: dead letters go back to where they came from,",
            "else buried messages become ready, else delayed ones.",
        ],
    },
    Entry {
        name: "kick-message",
        argument: "ID",
        summary: "bring one message back that was set aside",
        details: &["A dead letter, a buried message or a delayed one."],
    },
    Entry {
        name: "pause",
        argument: "QUEUE",
        summary: "deliver no messages of a queue until it is resumed",
        details: &["Messages are still accepted. Forgotten when the daemon stops."],
    },
    Entry {
        name: "resume",
        argument: "QUEUE",
        summary: "end the pause of a queue",
        details: &["A pause by a beanstalk client ends by itself and is not ended by this."],
    },
    Entry {
        name: "limit",
        argument: "QUEUE N [N N]",
        summary: "refuse messages for a queue that holds N",
        details: &[
            "0 is no limit. Three numbers are limits for messages of high, normal and low",
            "priority (below 768, below 1280, all others), each for the queue as a whole.",
            "Senders that get no reply are not refused. Forgotten when the daemon stops.",
        ],
    },
    Entry {
        name: "flush",
        argument: "QUEUE",
        summary: "remove a queue and all its messages",
        details: &[
            "Reserved, delayed and buried messages are removed too.",
            "An error if there is no such queue: an empty, unused queue is removed.",
        ],
    },
    Entry {
        name: "flushall",
        argument: "",
        summary: "remove all queues and all their messages",
        details: &["Reserved, delayed and buried messages are removed too."],
    },
    Entry {
        name: "status",
        argument: "",
        summary: "the daemon's figures, one a line",
        details: &["For scripts: each line is a name, a colon and a value; sizes are in bytes."],
    },
    Entry {
        name: "plain",
        argument: "",
        summary: "no escape sequences and no prompt from now on",
        details: &[
            "For scripts: sent as the first line it comes before the greeting too, and",
            "each reply ends with an empty line.",
        ],
    },
    Entry { name: "q", argument: "", summary: "leave monitor or show", details: &[] },
    Entry { name: "quit", argument: "", summary: "end the session", details: &[] },
    Entry { name: "exit", argument: "", summary: "end the session", details: &[] },
];

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

impl Entry {
    /// The name with its argument.
    pub(super) fn usage(&self) -> String {
        if self.argument.is_empty() {
            self.name.to_owned()
        } else {
            format!("{} {}", self.name, self.argument)
        }
    }

    /// How many words may stand behind the name.
    pub(super) fn arguments(&self) -> std::ops::RangeInclusive<usize> {
        let (required, optional) = self.argument.split_once('[').unwrap_or((self.argument, ""));
        let words = |text: &str| text.split_whitespace().count();
        words(required)..=words(required) + words(optional)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_help_fits_a_terminal() {
        for entry in COMMANDS {
            assert!(entry.usage().len() <= 19, "{}", entry.name);
            assert!(entry.summary.len() <= 57, "{}", entry.name);
            assert!(entry.details.iter().all(|line| line.len() <= 78), "{}", entry.name);
        }
    }

    #[test]
    fn a_usage_says_how_many_arguments_there_are() {
        assert_eq!(find("help").unwrap().arguments(), 0..=1);
        assert_eq!(find("show").unwrap().arguments(), 1..=1);
        assert_eq!(find("flushall").unwrap().arguments(), 0..=0);
        assert_eq!(find("kick").unwrap().arguments(), 1..=2);
        assert_eq!(find("limit").unwrap().arguments(), 2..=4);
        assert!(find("HELP").is_none());
    }
}
