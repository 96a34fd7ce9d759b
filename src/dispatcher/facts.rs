//! What the process and its machine say of themselves, for statistics.
//!
//! A fact that the system does not tell (no /proc, say) is 0 or empty: statistics are never a
//! reason to fail.

use std::fs;
use std::net::SocketAddr;

use rustix::system::uname;

use crate::words::statistics::ProcessFacts;

/// The facts that never change, read once, and the way to the others.
#[derive(Debug)]
pub struct FactReader {
    fixed: ProcessFacts,
    page_bytes: u64,
    ticks_per_second: u64,
}

impl FactReader {
    /// Reads what never changes; `instance` is this process's random id.
    pub fn new(instance: String) -> FactReader {
        let system = uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        FactReader {
            fixed: ProcessFacts {
                pid: std::process::id(),
                instance,
                hostname: text(system.nodename()),
                os: text(system.version()),
                platform: text(system.machine()),
                ..ProcessFacts::default()
            },
            page_bytes: rustix::param::page_size() as u64,
            ticks_per_second: rustix::param::clock_ticks_per_second(),
        }
    }

    /// The facts as they are now.
    pub fn read(&self, uptime_ms: u64) -> ProcessFacts {
        let statistics = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu_us = |field| {
            let ticks = after_name(&statistics).nth(field).and_then(|f| f.parse::<u64>().ok());
            ticks.unwrap_or(0) * 1_000_000 / self.ticks_per_second.max(1)
        };
        let pages = after_name(&statistics).nth(RSS).and_then(|f| f.parse::<u64>().ok());
        ProcessFacts {
            uptime_ms,
            user_cpu_us: cpu_us(UTIME),
            system_cpu_us: cpu_us(STIME),
            resident_bytes: pages.unwrap_or(0) * self.page_bytes,
            resident_peak_bytes: kilobytes(&status, "VmHWM:") * 1024,
            ..self.fixed.clone()
        }
    }
}

// Fields of /proc/PID/stat behind the command name, counted from 0 (proc_pid_stat(5)).
const UTIME: usize = 11;
const STIME: usize = 12;
const RSS: usize = 21;

/// The fields behind the command name, which may itself hold blanks and parentheses.
fn after_name(statistics: &str) -> impl Iterator<Item = &str> {
    statistics.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The program that listens on this port of this machine, where it can be known: its name and
/// process id.
pub fn who_listens_on(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|table| {
        listening_inode(&fs::read_to_string(table).unwrap_or_default(), address.port())
    })?;
    let target = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.into_iter().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*target)).then(
            || {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                format!("{} (process {pid})", name.trim().escape_debug())
            },
        )
    })
}

/// The inode of the socket that listens on a port, out of a table of proc_net_tcp(5).
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, hex_port) = fields.get(1)?.rsplit_once(':')?;
        let listens = fields.get(3) == Some(&LISTEN);
        let same = u16::from_str_radix(hex_port, 16) == Ok(port);
        (listens && same).then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_and_a_host() {
        let facts = FactReader::new("ab12".to_owned()).read(5);
        assert_eq!(facts.pid, std::process::id());
        assert_eq!((facts.instance.as_str(), facts.uptime_ms), ("ab12", 5));
        assert!(facts.resident_bytes > 100_000);
        assert!(facts.resident_peak_bytes >= facts.resident_bytes / 2);
        assert!(!facts.hostname.is_empty());
    }

    #[test]
    fn who_listens_on_a_port_is_known_by_name_and_number() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = who_listens_on(listener.local_addr().unwrap()).unwrap();
        assert!(owner.contains(&format!("process {}", std::process::id())), "{owner}");
    }

    #[test]
    fn a_command_name_with_blanks_and_parentheses_moves_no_field() {
        let fields: Vec<&str> = after_name("12 (a b) c) S 1 2").collect();
        assert_eq!(fields, ["S", "1", "2"]);
    }
}
