//! Tests of the tree and of the whole daemon, in one binary.
//!
//! - `beanstalk`: every command and every error of beanstalk, as dialogues.
//! - `console`: the maintenance console by hand.
//! - `cross_protocol`: sent through one protocol, worked through another.
//! - `database`: which files are refused, and what other programs see.
//! - `docs`: manual pages, sample file and unit files say what the program does.
//! - `exits`: command lines and surroundings that end in an exit code.
//! - `harness`: starts the daemon, on either transport, and talks to it.
//! - `notify`: what the service manager is told.
//! - `phpmq`: messages from end to end, in both revisions.
//! - `process`: flags, exit codes, signals, service manager and log of the real daemon.
//! - `restart`: what is there after a stop and after a kill, at every level.
//! - `signals`: stop, drain, reload.
//! - `sockets`: Unix sockets, and sockets that are passed in.
//! - `tidy`: the rules of structure: imports, channels, clocks, SQL, lengths, first lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod beanstalk;
mod console;
mod cross_protocol;
mod database;
mod docs;
mod exits;
mod harness;
mod notify;
mod phpmq;
mod process;
mod restart;
mod signals;
mod sockets;
mod tidy;
