//! The command line of beanstalkd(1), for when phpmqd is called by that name.
//!
//! A site that replaces the program by a symbolic link keeps its flags and gets the same
//! [`Config`] that files and flags of phpmqd give. What differs is told in phpmqd(8).

use std::ffi::{OsStr, OsString};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::address::{Address, AddressError};
use super::args::{EXIT_USAGE, Parting};
use super::listeners::unaddressed;
use super::meaning::MESSAGE_SIZE_MOST;
use super::{Args, Config, DATABASE_NAME, Environment, Listener, Location, LogLevel, load_with};
use crate::protocol::Protocol;
use crate::words::durability::Durability;

/// The name that this is called by, and that it answers to.
const PROGRAM: &str = "beanstalkd";
/// The protocol that it speaks, and that inherited sockets are for, whatever they are called.
pub const PROTOCOL: &str = "beanstalk";
/// The largest job when `-z` does not say otherwise, in bytes.
const JOB_BYTES_MAX: u64 = 65_535;
/// The longest `-f`, in milliseconds, as in phpmqd.toml(5).
const SNAPSHOT_INTERVAL_MS_MAX: u64 = 3_600_000;
const EXIT_INTERNAL: u8 = 70;

#[derive(Debug, Parser)]
#[command(name = PROGRAM, disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "beanstalkd [OPTIONS]")]
#[command(about = "phpmqd in the place of beanstalkd; see phpmqd(8)")]
struct Flags {
    /// Keep jobs on disk, in this directory
    #[arg(short = 'b', value_name = "DIR", overrides_with = "directory")]
    #[arg(value_parser = OsStringValueParser::new().map(PathBuf::from))]
    directory: Option<PathBuf>,

    /// Call fsync at most once every MS milliseconds; 0 is before every answer
    #[arg(short = 'f', value_name = "MS", overrides_with_all = ["sync_ms", "never_sync"])]
    sync_ms: Option<u64>,

    /// Leave it to the system when an answered job reaches the disk
    #[arg(short = 'F', overrides_with_all = ["sync_ms", "never_sync"])]
    never_sync: bool,

    /// Listen on this address, or on a Unix socket: unix:PATH
    #[arg(short = 'l', value_name = "ADDR", default_value = "0.0.0.0", overrides_with = "address")]
    address: String,

    /// Listen on this port
    #[arg(short = 'p', value_name = "PORT", default_value_t = 11_300, overrides_with = "port")]
    port: u16,

    /// Become this user and its group
    #[arg(short = 'u', value_name = "USER", overrides_with = "user")]
    user: Option<String>,

    /// The largest job in bytes
    #[arg(short = 'z', value_name = "BYTES", overrides_with = "job_bytes_max")]
    #[arg(default_value_t = JOB_BYTES_MAX)]
    job_bytes_max: u64,

    /// Does nothing: there are no log files whose size could be chosen
    #[arg(short = 's', value_name = "BYTES", overrides_with = "file_bytes")]
    file_bytes: Option<u64>,

    /// Does nothing; kept for old command lines
    #[arg(short = 'c', action = ArgAction::Count)]
    compact: u8,

    /// Does nothing; kept for old command lines
    #[arg(short = 'n', action = ArgAction::Count)]
    no_compact: u8,

    /// Log more; twice logs every command
    #[arg(short = 'V', action = ArgAction::Count)]
    verbosity: u8,

    /// Show the version and exit
    #[arg(short = 'v', action = ArgAction::Version)]
    version: Option<bool>,

    /// Show this help and exit
    #[arg(short = 'h', action = ArgAction::Help)]
    help: Option<bool>,
}

/// What a beanstalkd command line asks for.
#[derive(Debug)]
pub struct DropIn {
    /// The same as ever.
    pub config: Config,
    /// The user to become once everything is bound (`-u`).
    pub user: Option<String>,
    /// The directory that beanstalkd may have left jobs in (`-b`).
    pub binlog: Option<PathBuf>,
}

/// The command line as clap knows it.
pub fn command() -> clap::Command {
    Flags::command().version(concat!("(phpmqd) ", env!("CARGO_PKG_VERSION")))
}

/// Whether a program of this name, with or without a path, is to be beanstalkd.
pub fn is_called(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(PROGRAM))
}

/// Reads the words of a command line of beanstalkd, the program's name first.
///
/// # Errors
/// `-h` and `-v`, which end the program well, and what cannot be understood.
pub fn load(
    words: impl IntoIterator<Item = OsString>,
    environment: &Environment,
    protocols: &'static [Protocol],
) -> Result<DropIn, Parting> {
    let parsed = command().try_get_matches_from(words);
    let flags = parsed.and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = flags.map_err(|error| Parting::from_clap(&error))?;
    let refuse =
        |text: String, exit_code| Parting { text: format!("{PROGRAM}: {text}\n"), exit_code };
    let protocol = protocols
        .iter()
        .find(|row| row.name == PROTOCOL)
        .ok_or_else(|| refuse("the protocol is not built in".to_owned(), EXIT_INTERNAL))?;
    let durability = match flags.sync_ms {
        Some(0) => Durability::Sync,
        _ => Durability::Write,
    };
    let address = listen_address(&flags.address, flags.port).map_err(|error| {
        refuse(format!("-l: bad address {:?}: {error}", flags.address), EXIT_USAGE)
    })?;
    let mut listener = Listener { address, ..unaddressed(protocol, durability) };
    listener.place = Location::Flag("-l");
    // As the original does it: who writes -l 0.0.0.0, or no -l at all, gets what beanstalkd gives.
    listener.allow_remote = true;
    let base = Args {
        database: Some(
            flags.directory.as_ref().map(|dir| dir.join(DATABASE_NAME)).unwrap_or_default(),
        ),
        ..Args::default()
    };
    // A configuration file is phpmqd's: beanstalkd has none.
    let surroundings = Environment { default_config: None, ..environment.clone() };
    let mut config = load_with(&base, &surroundings, protocols)
        .map_err(|error| refuse(error.to_string(), error.exit_code()))?;
    config.listeners = vec![listener];
    config.storage.durability = durability;
    if let Some(ms) = flags.sync_ms.filter(|ms| *ms > 0) {
        config.storage.snapshot_interval_ms = ms.min(SNAPSHOT_INTERVAL_MS_MAX);
    }
    let job_bytes_max = flags.job_bytes_max.min(MESSAGE_SIZE_MOST.0);
    config.limits.max_message_size = usize::try_from(job_bytes_max).unwrap_or(usize::MAX);
    config.log.level = match flags.verbosity {
        0 => LogLevel::Info,
        1 => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    Ok(DropIn { config, user: flags.user, binlog: flags.directory })
}

/// `-l` takes an IPv6 address without brackets and a relative path, which phpmqd does not.
fn listen_address(text: &str, port: u16) -> Result<Address, AddressError> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = std::path::absolute(path).map_err(|_| AddressError::BadPath)?;
        return format!("unix:{}", path.display()).parse();
    }
    let (ip, _) = text.split_once('%').unwrap_or((text, ""));
    let bare_v6 = ip.parse::<Ipv6Addr>().is_ok();
    if bare_v6 { format!("[{text}]:{port}") } else { format!("{text}:{port}") }.parse()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TABLE, environment};
    use super::*;

    fn load_flags(flags: &[&str]) -> Result<DropIn, Parting> {
        let words = ["/usr/bin/beanstalkd"].iter().chain(flags).map(OsString::from);
        load(words, &environment(), TABLE)
    }

    #[test]
    fn the_name_decides() {
        assert!(is_called(OsStr::new("beanstalkd")));
        assert!(is_called(OsStr::new("/usr/bin/beanstalkd")));
        assert!(!is_called(OsStr::new("phpmqd")));
        assert!(!is_called(OsStr::new("beanstalkd/phpmqd")));
    }

    #[test]
    fn without_flags_it_is_beanstalkd_with_its_defaults() {
        let config = load_flags(&[]).unwrap().config;
        assert_eq!(config.storage.database, None);
        assert_eq!(config.limits.max_message_size, 65_535);
        let [listener] = &config.listeners[..] else { panic!("one listener is meant") };
        assert_eq!(listener.protocol.name, "beanstalk");
        assert_eq!(listener.address.to_string(), "0.0.0.0:11300");
        assert!(listener.allow_remote);
    }

    #[test]
    fn the_binlog_flags_choose_database_level_and_tick() {
        let storage = |flags: &[&str]| {
            let config = load_flags(flags).unwrap().config;
            assert_eq!(config.listeners[0].durability, config.storage.durability);
            config.storage
        };
        let kept = storage(&["-b", "/var/lib/bs"]);
        assert_eq!(kept.database, Some("/var/lib/bs/phpmq.db".into()));
        assert_eq!((kept.durability, kept.snapshot_interval_ms), (Durability::Write, 50));
        let slower = storage(&["-b/x", "-f", "500"]);
        assert_eq!((slower.durability, slower.snapshot_interval_ms), (Durability::Write, 500));
        assert_eq!(storage(&["-b/x", "-f0"]).durability, Durability::Sync);
        assert_eq!(storage(&["-b/x", "-F"]).durability, Durability::Write);
        assert_eq!(storage(&["-b/x", "-f0", "-F"]).durability, Durability::Write);
        assert_eq!(storage(&["-b/x", "-F", "-f0"]).durability, Durability::Sync);
    }

    #[test]
    fn addresses_are_taken_as_beanstalkd_takes_them() {
        let address =
            |flags: &[&str]| load_flags(flags).unwrap().config.listeners[0].address.to_string();
        assert_eq!(address(&["-l", "127.0.0.1", "-p", "0"]), "127.0.0.1:0");
        assert_eq!(address(&["-l", "::1", "-p11301"]), "[::1]:11301");
        assert_eq!(address(&["-l", "[::1]", "-p11301"]), "[::1]:11301");
        assert_eq!(address(&["-l", "fe80::1%lo"]), "[fe80::1%lo]:11300");
        assert_eq!(address(&["-l", "localhost"]), "localhost:11300");
        assert_eq!(address(&["-l", "unix:/tmp/x.sock", "-p", "1"]), "unix:/tmp/x.sock");
        assert!(address(&["-l", "unix:x.sock"]).ends_with("/x.sock"));
    }

    #[test]
    fn the_other_flags_are_taken_too() {
        let flags = ["-z", "1000000", "-u", "nobody", "-s", "4096", "-c", "-n", "-VV"];
        let drop_in = load_flags(&flags).unwrap();
        assert_eq!(drop_in.config.limits.max_message_size, 1_000_000);
        assert_eq!(drop_in.user.as_deref(), Some("nobody"));
        assert_eq!(drop_in.config.log.level, LogLevel::Trace);
        let huge = load_flags(&["-z", "1073741824"]).unwrap();
        assert_eq!(huge.config.limits.max_message_size as u64, MESSAGE_SIZE_MOST.0);
    }

    #[test]
    fn help_and_version_end_well_and_mistakes_do_not() {
        assert_eq!(load_flags(&["-h"]).unwrap_err().exit_code, 0);
        let version = load_flags(&["-v"]).unwrap_err();
        assert_eq!(version.exit_code, 0);
        assert!(version.text.starts_with("beanstalkd (phpmqd) "), "{}", version.text);
        for bad in [&["-x"][..], &["-p", "many"], &["stray"], &["-b"], &["-z", "-1"]] {
            assert_eq!(load_flags(bad).unwrap_err().exit_code, 64, "{bad:?}");
        }
        // What was typed is repeated as it was typed.
        for bad in ["[[::1]]", "127.0.0.1:11300", "unix:", "a b", ""] {
            let error = load_flags(&["-l", bad]).unwrap_err();
            assert_eq!(error.exit_code, 64, "{bad:?}");
            let wanted = format!("beanstalkd: -l: bad address {bad:?}: ");
            assert!(error.text.starts_with(&wanted), "{}", error.text);
        }
    }
}
