//! The operator's tool, phpmqctl(1): what it is asked to do, and how it ends.
//!
//! It shares no state with a daemon that runs: it speaks to it through its sockets, or works on files
//! that no daemon uses.

mod ask;
mod bench;
mod import;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The exit code for a command line that cannot be understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "phpmqctl", version, about = "Look at, steer and measure a message queue server")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Ask(ask::Verb),
    /// Put load on a server, check all it delivers and say how fast it was
    Bench(bench::Options),
    /// Make a database of the jobs that a stopped beanstalkd has left in its directory
    ImportBinlog(import::Options),
}

/// The command line as clap knows it; the manual page is checked against it.
pub fn command() -> clap::Command {
    Args::command()
}

/// Does what the words of a command line say, the program's name first.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Args::try_parse_from(words) {
        Ok(Args { verb: Verb::Ask(verb) }) => ExitCode::from(ask::run(&verb)),
        Ok(Args { verb: Verb::Bench(options) }) => bench::run(&options),
        Ok(Args { verb: Verb::ImportBinlog(options) }) => ExitCode::from(import::run(&options)),
        Err(error) => {
            // Nobody is left to be told when even this cannot be printed.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}
