//! Tests of the tree and of the whole daemon, in one binary.
//!
//! - `docs`: manual pages, sample file and unit files say what the program does.
//! - `tidy`: the rules of structure: imports, channels, clocks, SQL, lengths, first lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod docs;
mod tidy;
