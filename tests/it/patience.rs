//! Trouble at the start that passes by itself: under a service manager it is waited for.

use crate::harness::Children as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Manager, PHPMQD, Process, Server, namespaces};

impl Manager {
    /// Starts a program, the daemon or one that becomes it, with this behind it.
    fn start(&self, program: &mut Command, arguments: &[&str]) -> Process {
        let program = program.args(arguments).current_dir(self.directory());
        Process::start(program.env("NOTIFY_SOCKET", self.address()).env_remove("LISTEN_FDS"))
    }

    /// The daemon waits, has said so once and has asked for time.
    fn sees_waiting(&mut self, process: &Process, cause: &str) {
        let told = self.hears("STATUS=Waiting: ");
        assert!(told.contains(cause), "{told}");
        let line = process.logged("cannot start yet, waiting");
        assert!(line.contains(" warn ") && line.contains(cause), "{line}");
        // More attempts than one, and nothing more in the log.
        for _ in 0..4 {
            self.hears("EXTEND_TIMEOUT_USEC=");
        }
        assert_eq!(process.count_logged("waiting"), 1, "{}", process.log());
        assert!(!self.heard.iter().any(|text| text.starts_with("READY=1")), "{:?}", self.heard);
    }

    /// It goes on, serves, and stops well.
    fn sees_it_serve(&mut self, mut process: Process) {
        self.hears("READY=1");
        process.logged("no longer waiting");
        process.logged(" ready ");
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    }
}

fn daemon() -> Command {
    Command::new(PHPMQD)
}

/// An address that no other test takes a port of.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.86.1.4:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn a_port_that_is_taken_is_waited_for_and_served_when_it_is_free() {
    let mut manager = Manager::new();
    let (listener, address) = taken();
    let listen = format!("--listen=console={address}");
    let process = manager.start(&mut daemon(), &["--database=", &listen]);
    manager.sees_waiting(&process, &format!("{address} is in use"));
    drop(listener);
    manager.sees_it_serve(process);
}

#[test]
fn by_hand_a_port_that_is_taken_is_told_at_once() {
    let (_listener, address) = taken();
    let mut command = daemon();
    command.args(["--database=", &format!("--listen=console={address}")]);
    // What a shell inherits from a service is no service manager.
    let pid = std::process::id().to_string();
    command.env_remove("NOTIFY_SOCKET").env("SYSTEMD_EXEC_PID", pid).env("INVOCATION_ID", "x");
    let mut process = Process::start(&mut command);
    assert_eq!(process.wait().code(), Some(69), "{}", process.log());
    assert!(process.log().contains("cannot start"), "{}", process.log());
}

#[test]
fn a_service_without_notification_waits_as_well() {
    let (listener, address) = taken();
    let script = "SYSTEMD_EXEC_PID=$$ exec \"$0\" --database= --listen=console=$1";
    let mut command = Command::new("sh");
    command.args(["-c", script, PHPMQD, &address]).env_remove("NOTIFY_SOCKET");
    let process = Process::start(&mut command);
    process.logged("cannot start yet, waiting");
    drop(listener);
    process.logged(" ready ");
}

#[test]
fn missing_directories_are_waited_for() {
    let mut manager = Manager::new();
    let process =
        manager.start(&mut daemon(), &["--database=mount/q.db", "--listen=console=127.0.0.1:0"]);
    manager.sees_waiting(&process, "mount does not exist");
    fs::create_dir(manager.path("mount")).unwrap();
    manager.sees_it_serve(process);

    let mut manager = Manager::new();
    let socket = manager.path("run/q.sock");
    let listen = format!("--listen=beanstalk=unix:{}", socket.display());
    let process = manager.start(&mut daemon(), &["--database=", &listen]);
    manager.sees_waiting(&process, "does not exist");
    fs::create_dir(manager.path("run")).unwrap();
    manager.sees_it_serve(process);
}

#[test]
fn a_database_that_another_daemon_has_is_waited_for() {
    let mut first = Server::start();
    first.beanstalk().put("kept");
    let mut manager = Manager::new();
    let database = format!("--database={}", first.database().display());
    let process = manager.start(&mut daemon(), &[&database, "--listen=beanstalk=127.0.0.1:0"]);
    manager.sees_waiting(&process, &format!("process {}", first.process.id()));
    assert_eq!(first.beanstalk().put("more"), 2, "the first one is undisturbed");
    assert_eq!(first.stop().code(), Some(0));
    process.logged(" ready ");
    assert!(process.log().contains("messages=2"), "{}", process.log());
    manager.sees_it_serve(process);
}

#[test]
fn a_signal_ends_the_waiting_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut manager = Manager::new();
        let (_listener, address) = taken();
        let listen = format!("--listen=console={address}");
        let mut process = manager.start(&mut daemon(), &["--database=", &listen]);
        manager.sees_waiting(&process, "in use");
        // Others have nothing to tell it yet.
        process.signal(Signal::HUP);
        process.signal(Signal::USR1);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        assert!(!process.log().contains("cannot start\""), "{}", process.log());
    }
}

/// The last line of what it says when it is started, in this exit code, though a manager waits.
fn ends(code: i32, manager: &Manager, arguments: &[&str]) -> String {
    let mut process = manager.start(&mut daemon(), arguments);
    assert_eq!(process.wait().code(), Some(code), "{}", process.log());
    assert!(!process.log().contains("waiting"), "{}", process.log());
    process.log()
}

#[test]
fn what_a_person_must_mend_is_not_waited_for() {
    let manager = Manager::new();
    fs::write(manager.path("notes"), "a page about something else entirely").unwrap();
    ends(65, &manager, &["--database=notes", "--listen=console=127.0.0.1:0"]);
    fs::write(manager.path("wrong.toml"), "[limit]\n").unwrap();
    ends(78, &manager, &["--config=wrong.toml"]);
    ends(64, &manager, &["--listen=console"]);
    // It would wait for itself.
    let twice = ["--database=", "--listen=console=127.0.0.1:9", "--listen=phpmq=localhost:9"];
    let log = ends(78, &manager, &twice);
    assert!(log.contains("localhost:9 is already the address of another listener"), "{log}");
    let directory = manager.path(".").display().to_string();
    fs::create_dir(manager.path("d")).unwrap();
    let one = format!("--listen=console=unix:{directory}/q.sock");
    let two = format!("--listen=phpmq=unix:{directory}/d/../q.sock");
    ends(78, &manager, &["--database=", &one, &two]);
}

/// A file system that has bytes left but no inode, so that SQLite cannot make its log.
#[test]
fn a_file_system_without_inodes_is_told_and_waited_for() {
    if !namespaces::can_be_made() {
        return;
    }
    // One is for the directory: none is left for the lock, or the lock and the database have theirs.
    for inodes in [1, 3] {
        without_inodes(inodes);
    }
}

fn without_inodes(inodes: u32) {
    let mut manager = Manager::new();
    fs::create_dir(manager.path("disk")).unwrap();
    let mount = format!("mount -t tmpfs -o size=64m,nr_inodes={inodes} tmpfs disk");
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let command = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, PHPMQD]);
        command
    };
    let arguments = ["--database=disk/q.db", "--listen=console=127.0.0.1:0"];
    let mut by_hand = command();
    by_hand.args(arguments).current_dir(manager.path(".")).env_remove("NOTIFY_SOCKET");
    let mut by_hand = Process::start(&mut by_hand);
    assert_eq!(by_hand.wait().code(), Some(74), "{}", by_hand.log());
    assert!(by_hand.log().contains("no free inode"), "{}", by_hand.log());
    let process = manager.start(&mut command(), &arguments);
    manager.sees_waiting(&process, "no free inode");
    let pid = process.id().to_string();
    let mended = Command::new("nsenter")
        .args(["--target", &pid, "--mount", "mount", "-o", "remount,nr_inodes=50"])
        .arg(manager.path("disk"))
        .ended()
        .unwrap();
    assert!(mended.success());
    manager.sees_it_serve(process);
}

#[test]
fn a_host_name_that_is_not_known_is_waited_for() {
    if !namespaces::can_be_made() {
        return;
    }
    let mut manager = Manager::new();
    let hosts = manager.path("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    // Nobody is asked outside: nothing listens at this machine's port of names.
    fs::write(manager.path("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let script = "mount --bind hosts /etc/hosts && mount --bind resolv.conf /etc/resolv.conf && \
                  exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, PHPMQD]);
    let listen = "--listen=console=queue-host:0";
    let process = manager.start(&mut command, &["--database=", listen]);
    manager.sees_waiting(&process, "cannot resolve the host name of queue-host:0");
    // In place: another file of this name would not be what is mounted.
    fs::write(&hosts, "127.0.0.1 localhost queue-host\n").unwrap();
    manager.sees_it_serve(process);
}

#[test]
fn a_name_that_others_reach_is_refused_when_it_is_known() {
    if !namespaces::can_be_made() {
        return;
    }
    let manager = Manager::new();
    fs::write(manager.path("hosts"), "127.0.0.1 localhost\n192.0.2.9 queue-host\n").unwrap();
    let script = "mount --bind hosts /etc/hosts && exec \"$0\" \"$@\"";
    for flag in ["--check-config", "--log-level=info"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, PHPMQD]);
        let arguments = ["--database=", "--listen=console=queue-host:0", flag];
        let mut process = manager.start(&mut command, &arguments);
        assert_eq!(process.wait().code(), Some(78), "{}", process.log());
        assert!(process.log().contains("allow_remote = true"), "{}", process.log());
    }
}

#[test]
fn an_address_that_this_machine_does_not_have_yet_is_waited_for() {
    if !namespaces::can_be_made() || Command::new("ip").arg("-V").said().is_err() {
        println!("skipped: needs ip");
        return;
    }
    let mut manager = Manager::new();
    let config = "[storage]\ndatabase = \"\"\n[[listener]]\nprotocol = \"console\"\n\
                  address = \"192.0.2.77:9101\"\nallow_remote = true\n";
    fs::write(manager.path("it.toml"), config).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up; exec \"$0\" \"$@\"", PHPMQD]);
    let process = manager.start(&mut command, &["--config=it.toml"]);
    manager.sees_waiting(&process, "cannot listen on 192.0.2.77:9101");
    let pid = process.id().to_string();
    let added = Command::new("nsenter")
        .args(["--target", &pid, "--net", "ip", "address", "add", "192.0.2.77/32", "dev", "lo"])
        .ended()
        .unwrap();
    assert!(added.success());
    manager.sees_it_serve(process);
}

/// A name may stand for an IPv6 address where there is no IPv6.
#[test]
fn an_address_of_a_family_that_is_off_is_left_out_of_a_name() {
    if !namespaces::can_be_made() || Command::new("ip").arg("-V").said().is_err() {
        println!("skipped: needs ip");
        return;
    }
    let mut manager = Manager::new();
    fs::write(manager.path("hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    let script = "mount --bind hosts /etc/hosts && ip link set lo up && \
                  ip -6 address flush dev lo; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", script, PHPMQD]);
    let arguments = ["--database=", "--listen=console=localhost:0", "--log-level=info"];
    let process = manager.start(&mut command, &arguments);
    manager.hears("READY=1");
    process.logged(" ready ");
    assert_eq!(process.count_logged(" listening "), 1, "{}", process.log());
    assert_eq!(process.count_logged("listener address skipped"), 1, "{}", process.log());
}

#[test]
fn the_unit_gives_up_only_what_a_person_must_mend() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/phpmqd.service");
    let unit = fs::read_to_string(path).unwrap();
    let value = |key: &str| {
        let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = values.next().unwrap_or_else(|| panic!("{key} is not in the unit"));
        assert_eq!(values.next(), None, "{key} is there twice");
        value
    };
    assert_eq!(value("Restart"), "on-failure");
    assert_eq!(value("RestartPreventExitStatus"), "64 65 77 78");
    // However often it fails, it is started again.
    assert_eq!(value("StartLimitIntervalSec"), "0");
    assert!(!unit.contains("StartLimitBurst"));
    assert!(value("RestartSec").trim_end_matches('s').parse::<u32>().unwrap() >= 1);
    // What it asks for more time with is heard.
    assert_eq!((value("Type"), value("NotifyAccess")), ("notify", "main"));
}
