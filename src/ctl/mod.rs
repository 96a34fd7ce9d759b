//! The operator's tool, phpmqctl(1): what it is asked to do, and how it ends.
//!
//! It is a client like any other: it shares no state with a daemon and speaks to it through its
//! sockets alone.

mod bench;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The exit code for a command line that cannot be understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "phpmqctl", version, about = "Look at and measure a message queue server")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put load on a server, check all it delivers and say how fast it was
    Bench(bench::Options),
}

/// The command line as clap knows it; the manual page is checked against it.
pub fn command() -> clap::Command {
    Args::command()
}

/// Does what the words of a command line say, the program's name first.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Args::try_parse_from(words) {
        Ok(Args { verb: Verb::Bench(options) }) => bench::run(&options),
        Err(error) => {
            // Nobody is left to be told when even this cannot be printed.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}
