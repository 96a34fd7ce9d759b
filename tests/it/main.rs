//! Tests of the tree and of the whole daemon, in one binary.
//!
//! - `beanstalk`: every command and every error of beanstalk, as dialogues.
//! - `console`: the maintenance console by hand.
//! - `cross_protocol`: sent through one protocol, worked through another.
//! - `docs`: manual pages, sample file and unit files say what the program does.
//! - `process`: flags, exit codes, signals, service manager and log of the real daemon.
//! - `harness`: starts the daemon, on either transport, and talks to it.
//! - `phpmq`: messages from end to end, in both revisions.
//! - `slow_peers`: peers that ask for much, take little and go.
//! - `tidy`: the rules of structure: imports, channels, clocks, SQL, lengths, first lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod beanstalk;
mod console;
mod cross_protocol;
mod docs;
mod harness;
mod phpmq;
mod process;
mod slow_peers;
mod tidy;
