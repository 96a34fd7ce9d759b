//! Tests of the tree and of the whole daemon, in one binary.
//!
//! - `accounting`: every message is accounted for over kills at random moments.
//! - `beanstalk`: every command and every error of beanstalk, as dialogues.
//! - `binlog`: the jobs that a beanstalkd has left in its directory.
//! - `clock`: the process is stopped for a while; the wall clock is not what it was.
//! - `console`: the maintenance console by hand.
//! - `cross_protocol`: sent through one protocol, worked through another.
//! - `ctl`: the operator's tool against the real daemon, and against one that loses messages.
//! - `cuts`: power cuts, kills and failing disks under the real persistence code.
//! - `database`: which files are refused, and what other programs see.
//! - `disk`: full disks and failing ones under the running daemon.
//! - `docs`: manual pages, sample file and unit files say what the program does.
//! - `exits`: command lines and surroundings that end in an exit code.
//! - `hang_ups`: what a peer did before it hung up comes before what others ask then.
//! - `harness`: starts the daemon, on either transport, and talks to it.
//! - `hostile`: what strangers send to any port.
//! - `http`: the HTTP interface, from end to end.
//! - `identity`: one daemon on one database, and what others may do to its files.
//! - `limits`: the operator's limits, each reached on purpose.
//! - `notify`: what the service manager is told.
//! - `patience`: what the daemon waits for at its start, and what it ends for.
//! - `phpmq`: messages from end to end, in both revisions.
//! - `policies`: attempts, back-off, dead letters and queue settings, over restarts too.
//! - `process`: flags, exit codes, signals, service manager and log of the real daemon.
//! - `restart`: what is there after a stop and after a kill, at every level.
//! - `shortage`: no descriptors left, nothing to do, everybody gone again.
//! - `signals`: stop, drain, reload.
//! - `slow_peers`: who does not read, and who sends more than is answered.
//! - `sockets`: Unix sockets, and sockets that are passed in.
//! - `tidy`: the rules of structure: imports, channels, clocks, SQL, lengths, first lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod accounting;
mod beanstalk;
mod binlog;
mod clock;
mod console;
mod cross_protocol;
mod ctl;
mod cuts;
mod database;
mod disk;
mod docs;
mod exits;
mod hang_ups;
mod harness;
mod hostile;
mod http;
mod identity;
mod limits;
mod notify;
mod patience;
mod phpmq;
mod policies;
mod process;
mod restart;
mod shortage;
mod signals;
mod slow_peers;
mod sockets;
mod tidy;
