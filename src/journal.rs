//! The changes that the database file does not have yet, coalesced by message.

/// Changes handed over to persistence as one commit.
#[derive(Debug, Default)]
pub struct Batch {}
