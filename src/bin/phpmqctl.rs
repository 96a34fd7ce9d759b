//! The operator's tool: arguments in, exit code out; everything else is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    phpmq::ctl::run(std::env::args_os())
}
