//! The configuration in effect, written as a file that says all of it (`--print-config`).

use std::fmt::{self, Write};
use std::path::Path;

use super::file::{LogFormat, LogLevel, OnIoError};
use super::values::{Bytes, Durations, Millis, Mode, Share};
use super::{Address, Config, Listener, SERVICE_DATABASE, Storage};
use crate::protocol::options::OptionValue;
use crate::words::limits::LimitValues;
use crate::words::policy::Policy;

/// The whole file.
pub fn config(config: &Config) -> String {
    let mut out = String::new();
    write_config(&mut out, config).expect("a String takes all that is written to it");
    out
}

fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    match &config.source {
        Some(path) => writeln!(out, "# read from {:?}", path.display().to_string())?,
        None => writeln!(out, "# no configuration file was read")?,
    }
    write_storage(out, &config.storage, config.database_from)?;
    for listener in &config.listeners {
        write_listener(out, listener)?;
    }
    write_limits(out, &config.limits)?;
    for policy in config.policies.iter() {
        write_policy(out, policy)?;
    }
    writeln!(out, "\n[log]")?;
    writeln!(out, "level = \"{}\"", level_word(config.log.level))?;
    writeln!(out, "format = \"{}\"", format_word(config.log.format))
}

fn write_storage(out: &mut String, storage: &Storage, from: Option<&str>) -> fmt::Result {
    let database = storage.database.as_ref().map(|path| path.to_string_lossy().into_owned());
    writeln!(out, "\n[storage]")?;
    if let Some(variable) = from {
        writeln!(out, "# the default of whoever has called this (from ${variable})")?;
        let database = storage.database.as_deref();
        if variable != "STATE_DIRECTORY" && database != Some(Path::new(SERVICE_DATABASE)) {
            writeln!(out, "# without this key the system service keeps it in {SERVICE_DATABASE}")?;
        }
    }
    writeln!(out, "database = {}", quoted(database.as_deref().unwrap_or_default()))?;
    writeln!(out, "durability = \"{}\"", storage.durability.word())?;
    writeln!(out, "snapshot_interval = \"{}\"", Millis(storage.snapshot_interval_ms))?;
    writeln!(out, "commit_timeout = \"{}\"", Millis(storage.commit_timeout_ms))?;
    let on_io_error = match storage.on_io_error {
        OnIoError::Rewrite => "rewrite",
        OnIoError::Exit => "exit",
    };
    writeln!(out, "on_io_error = \"{on_io_error}\"")?;
    writeln!(out, "min_free_disk = \"{}\"", Bytes(storage.min_free_disk))
}

fn write_listener(out: &mut String, listener: &Listener) -> fmt::Result {
    writeln!(out, "\n[[listener]]")?;
    writeln!(out, "protocol = \"{}\"", listener.protocol.name)?;
    writeln!(out, "address = {}", quoted(&listener.address.to_string()))?;
    writeln!(out, "durability = \"{}\"", listener.durability.word())?;
    writeln!(out, "allow_remote = {}", listener.allow_remote)?;
    for (name, value) in listener.options.iter() {
        match value {
            OptionValue::Text(text) => writeln!(out, "{name} = {}", quoted(text))?,
            OptionValue::Number(number) => writeln!(out, "{name} = {number}")?,
            OptionValue::Flag(flag) => writeln!(out, "{name} = {flag}")?,
            OptionValue::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                writeln!(out, "{name} = [{}]", items.join(", "))?;
            }
        }
    }
    writeln!(out, "ack_timeout = \"{}\"", Millis(listener.ack_timeout_ms))?;
    if matches!(listener.address, Address::Unix(_)) {
        writeln!(out, "mode = \"{}\"", Mode(listener.mode))?;
        if let Some(group) = &listener.group {
            writeln!(out, "group = {}", quoted(group))?;
        }
    }
    Ok(())
}

fn write_limits(out: &mut String, limits: &LimitValues) -> fmt::Result {
    let size = |bytes: usize| Bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    writeln!(out, "\n[limits]")?;
    writeln!(out, "max_connections = {}", limits.max_connections)?;
    writeln!(out, "max_connections_per_peer = {}", limits.max_connections_per_peer)?;
    writeln!(out, "max_message_size = \"{}\"", size(limits.max_message_size))?;
    writeln!(out, "max_memory = \"{}\"", Bytes(limits.max_memory))?;
    writeln!(out, "max_queues = {}", limits.max_queues)?;
    writeln!(out, "max_window = {}", limits.max_window)?;
    writeln!(out, "max_output = \"{}\"", size(limits.max_output))?;
    writeln!(out, "frame_timeout = \"{}\"", Millis(limits.frame_timeout_ms))?;
    writeln!(out, "write_timeout = \"{}\"", Millis(limits.write_timeout_ms))?;
    writeln!(out, "idle_timeout = \"{}\"", Millis(limits.idle_timeout_ms))?;
    writeln!(out, "keepalive = \"{}\"", Millis(limits.keepalive_ms))?;
    writeln!(out, "tcp_user_timeout = \"{}\"", Millis(limits.tcp_user_timeout_ms))?;
    writeln!(out, "\n[queue]")?;
    writeln!(out, "priority = {}", limits.priority)?;
    writeln!(out, "time_to_run = \"{}\"", Millis(limits.time_to_run_ms))
}

fn write_policy(out: &mut String, policy: &Policy) -> fmt::Result {
    let backoff = policy.backoff_ms.iter().map(|step| Millis(*step)).collect();
    let dead_letter = policy.dead_letter.as_ref().map_or("", |name| name.as_str());
    writeln!(out, "\n[[policy]]")?;
    writeln!(out, "queues = {}", quoted(policy.queues.as_str()))?;
    writeln!(out, "max_attempts = {}", policy.max_attempts)?;
    writeln!(out, "backoff = {}", Durations(backoff))?;
    writeln!(out, "jitter = {}", Share(policy.jitter))?;
    writeln!(out, "dead_letter = {}", quoted(dead_letter))
}

fn level_word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Crit => "crit",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn format_word(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Plain => "plain",
        LogFormat::Journald => "journald",
    }
}

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TABLE, environment, load_text};
    use super::super::{Args, Environment, load_with};

    #[test]
    fn a_database_that_nobody_has_chosen_a_place_for_is_not_taken_for_the_services() {
        let print = |text: &str, args: &Args| load_text(text, args).unwrap().print();
        let printed = print("", &Args::default());
        assert!(printed.contains("(from $HOME)"), "{printed}");
        assert!(printed.contains("service keeps it in /var/lib/phpmq/phpmq.db"), "{printed}");
        for printed in [
            print("[storage]\ndatabase = \"/x\"\n", &Args::default()),
            print("", &Args { database: Some("/x".into()), ..Args::default() }),
        ] {
            assert!(!printed.contains("$HOME"), "{printed}");
        }
        let service =
            Environment { state_directory: Some("/var/lib/phpmq".into()), ..environment() };
        let printed = load_with(&Args::default(), &service, TABLE).unwrap().print();
        assert!(printed.contains("(from $STATE_DIRECTORY)"), "{printed}");
        assert!(!printed.contains("service keeps it"), "{printed}");
    }

    #[test]
    fn what_is_printed_loads_to_the_same_configuration() {
        let text = "
            [storage]\ndatabase = \"/a \\\"b\\\"/\\u007f.db\"\ndurability = \"sync\"
            snapshot_interval = \"1500ms\"\non_io_error = \"exit\"\nmin_free_disk = 12345
            [[listener]]\nprotocol = \"phpmq\"\naddress = \"[::1]:9100\"\nrevision = 2
            [[listener]]\nprotocol = \"beanstalk\"\naddress = \"0.0.0.0:1\"\nallow_remote = true
            [[listener]]\nprotocol = \"console\"\naddress = \"unix:/run/a b\"\nmode = \"0600\"
            group = \"staff\"\nack_timeout = \"0s\"\ndurability = \"periodic\"
            [limits]\nmax_memory = \"3GiB\"\nidle_timeout = \"90s\"\nmax_output = 1025
            [[policy]]\nqueues = \"mail \\\"x\\\" *\"\nmax_attempts = 7
            backoff = [\"1500ms\", \"10m\", 0]\njitter = 0.3\ndead_letter = \"mail \\\"x\\\" failed\"
            [[policy]]\nqueues = \"*\"\njitter = 1
            [log]\nlevel = \"trace\"\nformat = \"journald\"
        ";
        let config = load_text(text, &Args::default()).unwrap();
        let printed = config.print();
        let again = load_text(&printed, &Args::default()).unwrap();
        assert_eq!(config, again, "{printed}");
    }

    #[test]
    fn defaults_are_printed_with_all_that_was_worked_out() {
        let config = load_with(&Args::default(), &environment(), TABLE).unwrap();
        let printed = config.print();
        assert!(printed.contains("database = \"/home/somebody/.local/state/phpmq/phpmq.db\""));
        assert!(printed.contains("address = \"127.0.0.1:9100\""));
        assert!(printed.contains("max_memory = \"1GiB\""));
        assert_eq!(load_text(&printed, &Args::default()).unwrap(), config);
    }

    #[test]
    fn keeping_nothing_is_printed_as_an_empty_path() {
        let config = load_text("[storage]\ndatabase = \"\"\n", &Args::default()).unwrap();
        assert!(config.print().contains("database = \"\"\n"));
        assert_eq!(load_text(&config.print(), &Args::default()).unwrap(), config);
    }
}
