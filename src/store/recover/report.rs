//! What a repair found and did, for who started it.

use std::fmt;
use std::path::PathBuf;

use crate::store::LogState;

/// So many pages are named in the text.
const PAGES_LISTED_MAX: usize = 10;

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The database.
    pub database: PathBuf,
    /// Where the damaged file is kept; `None` when the database was sound and is unchanged.
    pub kept: Option<PathBuf>,
    /// Sound messages.
    pub messages: u64,
    /// How many of them were found outside of the trees: they may have been acknowledged.
    pub messages_outside: u64,
    /// Damaged messages, now in quarantine.
    pub messages_quarantined: u64,
    /// Damaged states, and those whose messages are lost, now in quarantine.
    pub states_quarantined: u64,
    /// Damaged keys, bindings and settings of queues, now in quarantine.
    pub others_quarantined: u64,
    /// Queues whose names are lost: their messages are in queues called `recovered-N`.
    pub queues_renamed: u64,
    /// Pages of the file that are damaged or missing.
    pub unreadable: u64,
    /// The numbers of the first of them.
    pub unreadable_pages: Vec<u32>,
    /// Settings that had to be made anew.
    pub settings_renewed: u64,
    /// Copies of damaged logs that were read.
    pub log_copies: u64,
    /// How the write-ahead log was found.
    pub log: LogState,
}

impl Recovered {
    /// Notes the pages that are damaged or missing.
    pub(super) fn set_unreadable(&mut self, pages: &[u32]) {
        let mut pages = pages.to_vec();
        pages.sort_unstable();
        pages.dedup();
        self.unreadable = pages.len() as u64;
        pages.truncate(PAGES_LISTED_MAX);
        self.unreadable_pages = pages;
    }
}

/// A number with the noun that it counts.
fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database.display();
        let Some(kept) = &self.kept else {
            return write!(
                f,
                "the database {database} is intact, with {}; nothing was changed",
                count(self.messages, "message")
            );
        };
        let kept_messages = count(self.messages, "message");
        write!(f, "the database {database} was recovered: {kept_messages} kept")?;
        if self.messages_outside > 0 {
            write!(
                f,
                " ({} of them were found {} and may have been acknowledged already)",
                self.messages_outside,
                match self.log {
                    _ if self.log_copies > 0 =>
                        "outside of the tables or in copies of damaged logs",
                    LogState::Foreign => "outside of the tables or in the file alone",
                    _ => "outside of the tables",
                }
            )?;
        }
        write!(
            f,
            ", {} and {} in quarantine, {} renamed, {} unreadable",
            count(self.messages_quarantined, "message"),
            count(self.states_quarantined, "state"),
            count(self.queues_renamed, "queue"),
            count(self.unreadable, "page"),
        )?;
        for (index, page) in self.unreadable_pages.iter().enumerate() {
            write!(f, "{}{page}", if index == 0 { " (" } else { ", " })?;
        }
        if !self.unreadable_pages.is_empty() {
            let more = self.unreadable > self.unreadable_pages.len() as u64;
            f.write_str(if more { ", ...)" } else { ")" })?;
        }
        if self.others_quarantined > 0 {
            let others = count(self.others_quarantined, "row");
            write!(f, ", {others} of other tables in quarantine")?;
        }
        write!(f, ", {} renewed", count(self.settings_renewed, "setting"))?;
        f.write_str(match self.log {
            LogState::None | LogState::Sound => "",
            LogState::Damaged => "; the write-ahead log is damaged",
            LogState::Foreign => {
                "; the write-ahead log belongs to another file, and the messages of both were kept"
            }
            LogState::Missing => {
                "; there is no write-ahead log although the database was not closed in order: if \
                 the log was removed, what was only in it is lost"
            }
        })?;
        if self.unreadable > 0 {
            f.write_str("; what was only on unreadable pages is lost")?;
        }
        write!(f, "; the damaged file is {}", kept.display())
    }
}
