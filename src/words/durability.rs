//! How safe a message is when its sender is told that it is accepted.

/// What a reply promises (phpmqd.toml(5), `storage.durability`), the weakest promise first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Durability {
    /// The reply is sent at once; the disk follows within a snapshot interval.
    Periodic,
    /// The reply is sent when the database file holds the change as far as the system can see:
    /// safe from kill -9.
    Write,
    /// The reply is sent when the change is on the disk: safe from a power cut.
    Sync,
}

impl Durability {
    /// The word that configuration files have for it.
    pub fn word(self) -> &'static str {
        match self {
            Durability::Periodic => "periodic",
            Durability::Write => "write",
            Durability::Sync => "sync",
        }
    }
}
