//! Tests of the tree and of the whole daemon, in one binary.
//!
//! - `beanstalk`: every command and every error of beanstalk, as dialogues.
//! - `console`: the maintenance console by hand.
//! - `cross_protocol`: sent through one protocol, worked through another.
//! - `cuts`: power cuts, kills and failing disks under the real persistence code.
//! - `docs`: manual pages, sample file and unit files say what the program does.
//! - `process`: flags, exit codes, signals, service manager and log of the real daemon.
//! - `harness`: starts the daemon, on either transport, and talks to it.
//! - `phpmq`: messages from end to end, in both revisions.
//! - `tidy`: the rules of structure: imports, channels, clocks, SQL, lengths, first lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod beanstalk;
mod console;
mod cross_protocol;
mod cuts;
mod docs;
mod harness;
mod phpmq;
mod process;
mod tidy;
