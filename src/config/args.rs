//! The flags of phpmqd(8).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::file::LogLevel;
use crate::protocol::Protocol;
use crate::words::durability::Durability;

/// The exit code for a command line that cannot be understood (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The command line.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "phpmqd", version, about = "A lightweight, durable message queue server")]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Read this configuration file [default: /etc/phpmq/phpmqd.toml if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration and exit
    #[arg(long)]
    pub check_config: bool,

    /// Print the configuration in effect, as TOML, and exit
    #[arg(long)]
    pub print_config: bool,

    /// Write a new database with what is intact in a damaged one, and exit
    #[arg(long)]
    pub recover: bool,

    /// Keep the database in this file; "" keeps nothing on disk
    // clap's own parser of paths refuses an empty one.
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub database: Option<PathBuf>,

    /// Listen on this address; overrides all configured listeners; may be repeated
    #[arg(long, value_name = "PROTOCOL=ADDRESS")]
    pub listen: Vec<String>,

    /// What a reply promises
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub durability: Option<Durability>,

    /// The lowest severity that is logged
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    // Both forms say the same, on one screen; the manual page says more.
    /// Print help
    #[arg(short, long, action = ArgAction::HelpShort)]
    pub help: Option<bool>,
}

/// A command line that says all there is to do: a text to print, and how to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// What to print.
    pub text: String,
    /// 0: to standard output. Else an error, to standard error.
    pub exit_code: u8,
}

impl Parting {
    /// What clap has to say instead of arguments.
    pub(super) fn from_clap(error: &clap::Error) -> Parting {
        Parting {
            text: error.render().to_string(),
            exit_code: if error.use_stderr() { EXIT_USAGE } else { 0 },
        }
    }
}

impl Args {
    /// Reads the words of a command line, the program's name first. `protocols` are named in the
    /// help.
    ///
    /// # Errors
    /// `--help` and `--version`, which end the program well, and what cannot be understood.
    pub fn parse_from_words(
        words: impl IntoIterator<Item = OsString>,
        protocols: &[Protocol],
    ) -> Result<Args, Parting> {
        let matches = command(protocols).try_get_matches_from(words);
        let args = matches.and_then(|matches| Args::from_arg_matches(&matches));
        args.map_err(|error| Parting::from_clap(&error))
    }
}

/// The command line as clap knows it, with the protocols of this build named in its help.
pub fn command(protocols: &[Protocol]) -> clap::Command {
    let defaults: Vec<String> =
        protocols.iter().map(|row| format!("  {}={}", row.name, row.default_address)).collect();
    let after = format!(
        "Without a configuration file it listens on\n{}\n\nSee phpmqd(8) and phpmqd.toml(5).",
        defaults.join("\n")
    );
    Args::command().after_help(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, Parting> {
        let words = ["phpmqd"].iter().chain(words).map(OsString::from);
        Args::parse_from_words(words, &[])
    }

    #[test]
    fn the_flags_are_taken() {
        let args = parse(&[
            "--config=a.toml",
            "--database",
            "",
            "--listen=phpmq=127.0.0.1:0",
            "--listen=console=[::1]:0",
            "--durability=sync",
            "--log-level=debug",
            "--recover",
        ]);
        let args = args.unwrap();
        assert_eq!(args.config, Some(PathBuf::from("a.toml")));
        assert_eq!(args.database, Some(PathBuf::new()));
        assert_eq!(args.listen, ["phpmq=127.0.0.1:0", "console=[::1]:0"]);
        assert_eq!(args.durability, Some(Durability::Sync));
        assert_eq!(args.log_level, Some(LogLevel::Debug));
        assert!(args.recover && !args.check_config && !args.print_config);
    }

    #[test]
    fn usage_errors_exit_with_64_and_help_with_0() {
        for bad in [&["--frobnicate"][..], &["--durability=fsync"], &["stray"], &["--config"]] {
            assert_eq!(parse(bad).unwrap_err().exit_code, 64, "{bad:?}");
        }
        assert_eq!(parse(&["--help"]).unwrap_err().exit_code, 0);
        let version = parse(&["-V"]).unwrap_err();
        assert_eq!(version.exit_code, 0);
        assert_eq!(version.text, format!("phpmqd {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_command_is_well_formed() {
        command(&[]).debug_assert();
    }
}
