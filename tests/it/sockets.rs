//! Unix sockets as files, and sockets that are passed in.

use crate::harness::Children as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::harness::{
    Beanstalk, PHPMQD, Phpmq, Process, Server, Setup, Stream, Transport, eventually,
};

#[test]
fn a_unix_socket_has_its_mode_and_goes_with_the_daemon() {
    let mut server = Setup::on(Transport::Unix)
        .listener("phpmq", "mode = \"0600\"")
        .listener("beanstalk", "mode = \"0666\"")
        .start();
    for (name, mode) in [("phpmq", 0o600), ("console", 0o660), ("beanstalk", 0o666)] {
        let facts = fs::metadata(server.path(&format!("{name}.sock"))).unwrap();
        assert!(facts.file_type().is_socket());
        assert_eq!(facts.permissions().mode() & 0o777, mode, "{name}");
    }
    server.stop();
    assert!(!server.path("phpmq.sock").exists());
    server.start_again();
    assert_eq!(server.beanstalk().put("x"), 1);
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut server = Server::on(Transport::Unix);
    server.beanstalk().put("x");
    server.kill();
    assert!(server.path("beanstalk.sock").exists());
    server.start_again();
    assert_eq!(server.beanstalk().reserve().1, "x");
}

#[test]
fn a_live_socket_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.sock");
    let _live = UnixListener::bind(&path).unwrap();
    let mut command = Command::new(PHPMQD);
    command.args(["--database", "", "--listen", &format!("phpmq=unix:{}", path.display())]);
    let mut process = Process::start(&mut command);
    let status = process.wait();
    let text = process.log();
    assert_eq!(status.code(), Some(69), "{text}");
    assert!(text.contains("live.sock"), "{text}");
    assert!(path.exists());
}

#[test]
fn addresses_of_both_families_and_several_of_one_protocol_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec!["--database".to_owned(), String::new()];
    let socket = format!("beanstalk=unix:{}/b.sock", directory.path().display());
    for listen in ["beanstalk=127.0.0.1:0", "beanstalk=[::1]:0", &socket] {
        arguments.extend(["--listen".to_owned(), listen.to_owned()]);
    }
    let process = Process::start(Command::new(PHPMQD).args(arguments));
    process.logged(" ready ");
    let log = process.log();
    let addresses: Vec<&str> =
        log.lines().filter_map(|line| line.split("address=").nth(1)).collect();
    assert_eq!(addresses.len(), 3, "{log}");
    for (place, address) in addresses.iter().enumerate() {
        let mut peer = Beanstalk::new(Stream::connect(address));
        assert_eq!(peer.put("x"), place as u64 + 1);
    }
}

/// Opens listening sockets, puts them where a service manager would, and becomes the daemon.
const PASS: &str = "import os, socket, sys\n\
    names, kept = [], []\n\
    for word in sys.argv[3].split(','):\n\
    \x20   name, path = word.split('=')\n\
    \x20   s = socket.socket(socket.AF_UNIX if path else socket.AF_INET)\n\
    \x20   s.bind(path or ('127.0.0.1', 0)); s.listen(); names.append(name); kept.append(s)\n\
    for number, s in enumerate(kept):\n\
    \x20   os.dup2(s.fileno(), 50 + number)\n\
    for number in range(len(kept)):\n\
    \x20   os.dup2(50 + number, 3 + number)\n\
    for s in range(3 + len(kept), 60):\n\
    \x20   try: os.close(s)\n\
    \x20   except OSError: pass\n\
    os.environ.update(LISTEN_FDS=str(len(kept)), LISTEN_PID=str(os.getpid()), \
    LISTEN_FDNAMES=':'.join(names))\n\
    os.execv(sys.argv[1], sys.argv[1:2] + sys.argv[2].split())";

fn python_is_here() -> bool {
    let here = Command::new("python3").arg("--version").said().is_ok();
    if !here {
        println!("skipped: python3 is not installed");
    }
    here
}

#[test]
fn passed_sockets_replace_the_configured_ones_of_their_protocol() {
    if !python_is_here() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("passed.sock");
    let sockets = format!("beanstalk=,phpmq={},beanstalk=", socket.display());
    let flags = format!(
        "--database {}/q.db --listen beanstalk=127.0.0.1:1 --listen console=127.0.0.1:0",
        directory.path().display()
    );
    let mut command = Command::new("python3");
    command.args(["-c", PASS, PHPMQD, &flags, &sockets]);
    let mut process = Process::start(&mut command);
    process.logged(" ready ");
    let log = process.log();
    let of = |protocol: &str| -> Vec<String> {
        let start = format!("listening protocol={protocol} address=");
        log.lines().filter_map(|line| line.split(&start).nth(1)).map(str::to_owned).collect()
    };
    assert_eq!(of("beanstalk").len(), 2, "{log}");
    assert_eq!(of("console").len(), 1, "{log}");
    assert_eq!(of("phpmq"), [format!("unix:{}", socket.display())], "{log}");
    let mut sender = Phpmq::new(Stream::connect(&of("phpmq")[0]), 1);
    sender.send_confirmed("default", "through passed sockets");
    let mut worker = Beanstalk::new(Stream::connect(&of("beanstalk")[1]));
    assert_eq!(worker.reserve().1, "through passed sockets");
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    // The file belongs to who made it.
    assert!(socket.exists());
}

#[test]
fn a_passed_socket_lives_on_after_a_stop() {
    if !python_is_here() {
        return;
    }
    // The shell keeps the socket, as a service manager does, and starts the daemon twice.
    let twice = "import os, socket, subprocess, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
        os.dup2(s.fileno(), 3)\n\
        for round in range(2):\n\
        \x20   subprocess.run(['/bin/sh', '-c', 'LISTEN_PID=$$ LISTEN_FDS=1 \
        LISTEN_FDNAMES=beanstalk exec \"$0\" --listen console=127.0.0.1:0 --database \"$1\"', \
        sys.argv[1], sys.argv[2]], pass_fds=[3])";
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("q.db");
    let mut command = Command::new("python3");
    command.args(["-c", twice, PHPMQD]).arg(&database);
    let mut process = Process::start(&mut command);
    let mut from = 0;
    for round in 1..=2_u64 {
        let (line, _) = process.logged_from(from, "ready");
        let (_, text) = process.logged_from(from, "listening protocol=beanstalk");
        let mut peer = Beanstalk::new(Stream::connect(text.split("address=").nth(1).unwrap()));
        assert_eq!(peer.put("x"), round);
        let pid: i32 = peer.figure("stats", "pid").parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        from = process.logged_from(line, " stopped").0;
    }
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn systemd_can_activate_it() {
    let tool = "systemd-socket-activate";
    if Command::new(tool).arg("--version").said().is_err() {
        println!("skipped: {tool} is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b.sock").display().to_string();
    let mut command = Command::new(tool);
    command.args(["-l", &path, "--fdname=beanstalk", PHPMQD, "--database", ""]);
    command.args(["--listen", "console=127.0.0.1:0"]);
    let process = Process::start(&mut command);
    // The file is there a moment before anybody listens behind it.
    let address = format!("unix:{path}");
    let mut connected = None;
    eventually("it listens", || {
        connected = Stream::try_connect(&address).ok();
        connected.is_some()
    });
    let mut peer = Beanstalk::new(connected.unwrap());
    assert_eq!(peer.put("x"), 1);
    drop(process);
}
