//! The program as its surroundings see it: flags, exit codes, signals, service manager, log.
//!
//! Each test starts the real daemon on free ports or Unix sockets in a directory of its own.

use crate::harness::Children as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::Manager;

/// Long enough for a busy machine; only a defect waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, kept away from the configuration and the database of who runs the tests.
fn phpmqd(directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("XDG_STATE_HOME", directory).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
fn run(directory: &Path, arguments: &[&str]) -> Output {
    phpmqd(directory).args(arguments).said().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running daemon, killed when the test is through with it.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    fn start(command: &mut Command) -> Daemon {
        let mut child = command.start().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Daemon { child, log }
    }

    /// Reads the log up to a line that holds all of these.
    fn wait_for(&mut self, words: &[&str]) -> String {
        let mut before = String::new();
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            assert!(length > 0, "the log ended without {words:?}:\n{before}");
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            before += &line;
        }
    }

    /// Where a protocol is listened for, from the log.
    fn address(&mut self, protocol: &str) -> SocketAddr {
        let line = self.wait_for(&["listening", &format!("protocol={protocol}")]);
        let (_, address) = line.trim().split_once("address=").unwrap();
        address.parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_64() {
    let directory = directory();
    let wrong: [&[&str]; 4] =
        [&["--frobnicate"], &["stray"], &["--durability=fsync"], &["--listen=nosuch=x:1"]];
    for arguments in wrong {
        let output = run(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_end_well() {
    let directory = directory();
    let version = run(directory.path(), &["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("phpmqd {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(directory.path(), &["-h"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    assert!(help.contains("--print-config") && help.contains("phpmq=127.0.0.1:9100"), "{help}");
    assert!(help.lines().count() <= 40, "the help does not fit a screen:\n{help}");
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_the_line() {
    let directory = directory();
    let path = directory.path().join("x.toml");
    fs::write(&path, "[limits]\nmax_conections = 5\n").unwrap();
    for check in [&["--check-config"][..], &[]] {
        let output = phpmqd(directory.path()).arg("--config").arg(&path).args(check).said();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(78));
        let error = text(&output.stderr);
        let wanted = "x.toml:2: limits.max_conections: unknown key, did you mean max_connections?";
        assert!(error.contains(wanted), "{error}");
    }
    let open = run(directory.path(), &["--listen=phpmq=0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(78), "{}", text(&open.stderr));
}

#[test]
fn checking_starts_nothing_and_says_that_all_is_well() {
    let directory = directory();
    let output = run(directory.path(), &["--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("configuration is valid ("));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was made");
}

#[test]
fn what_is_printed_is_a_configuration_that_prints_the_same() {
    let directory = directory();
    let path = directory.path().join("printed.toml");
    let first = run(
        directory.path(),
        &["--print-config", "--durability=sync", "--listen=console=[::1]:7", "--database="],
    );
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    fs::write(&path, &first.stdout).unwrap();
    let second = run(directory.path(), &["--print-config", "--config=printed.toml"]);
    let settings = |output: &Output| {
        let printed = text(&output.stdout);
        printed.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(settings(&first), settings(&second));
    assert!(text(&first.stdout).contains("durability = \"sync\""));
}

#[test]
fn an_address_or_database_in_use_ends_with_69() {
    let directory = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = run(directory.path(), &["--database=", &format!("--listen=phpmq={address}")]);
    assert_eq!(output.status.code(), Some(69));
    let error = text(&output.stderr);
    assert!(error.contains(&address.to_string()) && error.contains("--listen phpmq="), "{error}");

    let arguments = ["--database=q.db", "--listen=console=127.0.0.1:0"];
    let mut first = Daemon::start(phpmqd(directory.path()).args(arguments));
    first.wait_for(&["ready"]);
    let second = run(directory.path(), &arguments);
    assert_eq!(second.status.code(), Some(69), "{}", text(&second.stderr));
    // The first one goes on undisturbed.
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let directory = directory();
    let mut manager = Manager::new();
    let mut command = phpmqd(directory.path());
    command.env("NOTIFY_SOCKET", manager.address()).args(["--listen=console=127.0.0.1:0"]);
    let daemon = Daemon::start(&mut command);
    manager.hears("READY=1");
    daemon.signal(Signal::HUP);
    assert!(manager.hears("RELOADING=1").contains("\nMONOTONIC_USEC="));
    manager.hears("READY=1");
    daemon.signal(Signal::USR1);
    manager.hears("STATUS=Serving, but refusing new messages: draining");
    daemon.signal(Signal::USR1);
    manager.hears("STATUS=Serving");
    daemon.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn the_watchdog_hears_of_progress() {
    let directory = directory();
    let mut manager = Manager::new();
    let mut command = phpmqd(directory.path());
    command.env("NOTIFY_SOCKET", manager.address()).env("WATCHDOG_USEC", "100000");
    let _daemon = Daemon::start(command.arg("--listen=console=127.0.0.1:0"));
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
}

#[test]
fn a_reload_takes_up_what_it_can_and_names_the_rest() {
    let directory = directory();
    let path = directory.path().join("x.toml");
    let start = "[[listener]]\nprotocol = \"console\"\naddress = \"127.0.0.1:0\"\n";
    fs::write(&path, start).unwrap();
    let mut daemon = Daemon::start(phpmqd(directory.path()).arg("--config=x.toml"));
    daemon.wait_for(&["ready"]);
    fs::write(&path, format!("{start}[limits]\nmax_window = 5\n[storage]\nmin_free_disk = 1\n"))
        .unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for(&["warn ", "storage.min_free_disk"]);
    // What is wrong changes nothing, and the daemon goes on.
    fs::write(&path, "[limits]\nmax_windows = 5\n").unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for(&["error ", "did you mean max_window?"]);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// Starts the daemon through systemd's own tool, with a Unix socket of this name passed to it;
/// `None` where the tool is not installed.
fn activated(
    directory: &Path,
    name: &str,
    program: &Path,
    flags: &[&str],
) -> Option<(Daemon, UnixStream)> {
    let tool = "systemd-socket-activate";
    if let Err(error) = Command::new(tool).arg("--version").said() {
        eprintln!("{tool} is not here ({error}): not checked");
        return None;
    }
    let path = directory.join("passed.sock");
    let mut command = Command::new(tool);
    command.arg("-l").arg(&path).arg(format!("--fdname={name}"));
    command.arg(program).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Daemon::start(&mut command);
    daemon.wait_for(&["Listening on"]);
    // The first connection makes the tool become the daemon.
    let peer = UnixStream::connect(&path).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    Some((daemon, peer))
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_phpmqd");
const TWO_LISTENERS: &[&str] =
    &["--database=", "--listen=console=127.0.0.1:0", "--listen=phpmq=127.0.0.1:0"];

#[test]
fn a_passed_socket_replaces_the_listeners_of_its_protocol() {
    let directory = directory();
    let activated = activated(directory.path(), "console", Path::new(PROGRAM), TWO_LISTENERS);
    let Some((mut daemon, mut peer)) = activated else { return };
    let mut greeting = [0; 16];
    peer.read_exact(&mut greeting).unwrap();
    let mut listening = Vec::new();
    loop {
        let line = daemon.wait_for(&[""]);
        if line.contains(" listening ") {
            listening.push(line.contains("protocol=console"));
        } else if line.contains(" ready ") {
            break;
        }
    }
    // The passed one and that of the other protocol: the configured console is gone.
    listening.sort_unstable();
    assert_eq!(listening, [false, true]);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(directory.path().join("passed.sock").exists(), "the socket is the manager's");
}

#[test]
fn a_passed_socket_of_another_name_ends_with_78() {
    let directory = directory();
    let activated = activated(directory.path(), "nosuch", Path::new(PROGRAM), TWO_LISTENERS);
    let Some((daemon, _peer)) = activated else { return };
    assert_eq!(daemon.exit_code(), Some(78));
}

#[test]
fn a_stalled_reader_of_the_log_holds_nobody_up() {
    let directory = directory();
    let arguments = ["--database=", "--listen=console=127.0.0.1:0", "--log-level=trace"];
    let mut daemon = Daemon::start(phpmqd(directory.path()).args(arguments));
    let address = daemon.address("console");
    daemon.wait_for(&["ready"]);
    // From here on nobody reads the log. Far more connections than the pipe and the channel of
    // the log have room for, each with some lines to log.
    for _ in 0..1_000 {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(b"plain\nhelp\nnosuch\nquit\n").unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert!(!answer.is_empty());
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn the_database_is_made_in_the_state_directory() {
    let directory = directory();
    let mut daemon = Daemon::start(phpmqd(directory.path()).arg("--listen=console=127.0.0.1:0"));
    daemon.wait_for(&["ready"]);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(directory.path().join("phpmq/phpmq.db").is_file());
}

/// A symbolic link of that name to the program.
fn beanstalkd(directory: &Path) -> PathBuf {
    let link = directory.join("beanstalkd");
    symlink(PROGRAM, &link).unwrap();
    link
}

/// Says something and reads as much as is expected back.
fn talk(mut peer: impl Read + Write, request: &str, answer: &str) {
    peer.write_all(request.as_bytes()).unwrap();
    let mut bytes = vec![0; answer.len()];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(text(&bytes), answer);
}

#[test]
fn called_as_beanstalkd_it_keeps_confirmed_jobs_in_its_directory() {
    let directory = directory();
    let link = beanstalkd(directory.path());
    let start = || {
        let mut command = Command::new(&link);
        command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
        command.arg("-b").arg(directory.path()).args(["-l", "127.0.0.1", "-p", "0", "-c", "-n"]);
        let mut daemon = Daemon::start(&mut command);
        let peer = TcpStream::connect(daemon.address("beanstalk")).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        (daemon, peer)
    };
    let (daemon, peer) = start();
    talk(&peer, "put 7 0 60 5\r\nhello\r\n", "INSERTED 1\r\n");
    daemon.signal(Signal::KILL);
    assert_eq!(daemon.exit_code(), None);
    let (daemon, peer) = start();
    talk(&peer, "reserve-with-timeout 0\r\n", "RESERVED 1 5\r\nhello\r\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn called_as_beanstalkd_it_listens_on_unix_sockets_and_limits_jobs() {
    let directory = directory();
    let mut command = Command::new(beanstalkd(directory.path()));
    command.env_clear().current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Daemon::start(command.args(["-lunix:x.sock", "-z10"]));
    daemon.wait_for(&["ready"]);
    let peer = UnixStream::connect(directory.path().join("x.sock")).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    talk(&peer, "put 0 0 60 10\r\n0123456789\r\n", "INSERTED 1\r\n");
    talk(&peer, "put 0 0 60 11\r\n0123456789a\r\n", "JOB_TOO_BIG\r\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn called_as_beanstalkd_it_becomes_the_user_with_its_groups() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let id = |flag: &str| text(&Command::new("id").args([flag, "nobody"]).said().unwrap().stdout);
    let directory = directory();
    let mut command = Command::new(beanstalkd(directory.path()));
    command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Daemon::start(command.args(["-l", "127.0.0.1", "-p0", "-u", "nobody"]));
    daemon.wait_for(&["ready"]);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let field = |name: &str| -> Vec<String> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (user, group) = (id("-u").trim().to_owned(), id("-g").trim().to_owned());
    assert_eq!(field("Uid:"), vec![user; 4]);
    assert_eq!(field("Gid:"), vec![group; 4]);
    let mut groups: Vec<String> = id("-G").split_whitespace().map(str::to_owned).collect();
    groups.sort();
    let mut own = field("Groups:");
    own.sort();
    assert_eq!(own, groups);
}

#[test]
fn called_as_beanstalkd_it_takes_sockets_of_any_name() {
    let directory = directory();
    let link = beanstalkd(directory.path());
    let Some((daemon, peer)) = activated(directory.path(), "any", &link, &["-p0"]) else { return };
    talk(&peer, "list-tube-used\r\n", "USING default\r\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn called_as_beanstalkd_it_has_its_help_and_version() {
    let directory = directory();
    let link = beanstalkd(directory.path());
    let output = |flag| Command::new(&link).arg(flag).said().unwrap();
    let (help, version) = (output("-h"), output("-v"));
    assert_eq!((help.status.code(), version.status.code()), (Some(0), Some(0)));
    assert!(text(&help.stdout).contains("-b <DIR>"), "{}", text(&help.stdout));
    assert!(text(&version.stdout).starts_with("beanstalkd (phpmqd) "));
    assert_eq!(output("-x").status.code(), Some(64));
}
