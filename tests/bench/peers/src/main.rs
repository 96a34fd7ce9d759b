//! `phpmq-peers`: the work of `phpmqctl bench --work cycle`, for servers of other makers.
//!
//! Every connection puts messages, takes messages and acknowledges them, `--depth` at a time, and
//! what comes is checked: each message once, unchanged, in order per producer and receiver. One
//! thread drives all connections with one wait, as `phpmqctl bench` does, so that neither side of
//! a comparison has the cheaper client. The ledger and the latencies are the very files of
//! `phpmqctl bench`.
//!
//! Each server is asked in the way that its own documentation recommends for a work queue, with
//! the means that it has for taking and acknowledging several at once:
//!
//! | `--peer` | put | take | acknowledge |
//! |---|---|---|---|
//! | `redis-list` | `LPUSH` each | `LMOVE` each, to a list of the consumer's own | `LREM` each |
//! | `redis-stream` | `XADD` each | `XREADGROUP` of `--depth` | `XACK` and `XDEL` of all that came |
//! | `rabbitmq` | `basic.publish` each, confirmed | pushed, with a prefetch of `--depth` | `basic.ack` of all that came |
//! | `nats` | publish each, with its `PubAck` | one pull of `--depth` | `+ACK` each |
//! | `gearman` | `SUBMIT_JOB_BG` each | `GRAB_JOB` each | `WORK_COMPLETE` each |
//!
//! The acknowledgements of rabbitmq, nats and gearman have no answer: for them a message counts as
//! done when its acknowledgement was written, which is to their advantage.
//!
//! # Failure
//! Exit codes as of `phpmqctl bench`: 1 when something came that should not have, or did not come;
//! 69 when the server cannot be reached.

#![forbid(unsafe_code)]

mod amqp;
mod gearman;
mod line;
mod nats;
mod options;
mod redis;
mod report;
mod round;
mod run;
mod talk;

#[path = "../../../../src/ctl/bench/fault.rs"]
#[expect(dead_code, reason = "this program starts no threads")]
mod fault;
#[path = "../../../../src/ctl/bench/histogram.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "there is one thread, whose counts are all"))]
mod histogram;
#[path = "../../../../src/ctl/bench/ledger.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "there is one thread, whose ledger is all"))]
mod ledger;

use std::process::ExitCode;

use clap::Parser;

use options::{Options, Plan};
use report::Report;

/// The exit code when what came back was wrong.
const EXIT_WRONG: u8 = 1;
/// The exit code when the server cannot be reached (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNREACHABLE: u8 = 69;

fn main() -> ExitCode {
    let options = Options::parse();
    let plan = Plan::new(&options);
    match run::run(&plan) {
        Ok(tally) => {
            let report = Report::new(&plan, tally);
            println!("{}", if options.json { report.json() } else { report.text() });
            if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_WRONG) }
        }
        Err(fault) => {
            eprintln!("phpmq-peers: {fault}");
            ExitCode::from(if fault.is_unreachable() { EXIT_UNREACHABLE } else { EXIT_WRONG })
        }
    }
}
