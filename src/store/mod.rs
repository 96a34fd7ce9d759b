//! The databases: the same tables in memory and in the file.

/// What can go wrong with a database.
#[derive(Debug)]
pub enum StoreError {}
