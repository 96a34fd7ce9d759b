//! Command lines and surroundings that end in an exit code and a message that helps.

use crate::harness::Children as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{PHPMQD, Process, Server, Setup};

/// The program with these flags and without a home.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PHPMQD);
    command.args(arguments).env("HOME", "/nonexistent").env_remove("NOTIFY_SOCKET");
    command
}

/// Runs it to its end; for flags that make it end.
fn run(arguments: &[&str]) -> Output {
    command(arguments).said().unwrap()
}

/// What it says on standard error before it ends in this exit code.
fn fails(code: i32, arguments: &[&str]) -> String {
    let mut process = Process::start(&mut command(arguments));
    let status = process.wait();
    assert_eq!(status.code(), Some(code), "{arguments:?} said {}", process.log());
    process.log()
}

/// What it says of a configuration file.
fn fails_with(config: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it.toml");
    fs::write(&path, config).unwrap();
    let text = fails(78, &["--config", path.to_str().unwrap(), "--database", ""]);
    text.replace(path.to_str().unwrap(), "it.toml")
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "-h", "--version", "-V"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        assert!(String::from_utf8(output.stdout).unwrap().contains("phpmqd"));
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    assert!(fails(64, &["--no-such-flag"]).contains("--no-such-flag"));
    assert!(fails(64, &["--durability", "never"]).contains("periodic"));
    assert!(fails(64, &["word"]).contains("word"));
}

#[test]
fn a_wrong_configuration_is_named_with_file_line_and_key() {
    let text = fails_with("[storage]\n\nsnapshot_intervall = \"1s\"\n");
    assert!(text.contains("it.toml:3: "), "{text}");
    assert!(
        text.contains("snapshot_intervall") && text.contains("did you mean snapshot_interval?")
    );
    let text = fails_with("[storrage]\n");
    assert!(text.contains("did you mean [storage]?"), "{text}");
    let text = fails_with("[limits]\nmax_connections = \"many\"\n");
    assert!(text.contains("it.toml:2: ") && text.contains("max_connections"), "{text}");
    let text = fails_with("[storage]\nsnapshot_interval = \"soon\"\n");
    assert!(text.contains("it.toml:2: ") && text.contains("snapshot_interval"), "{text}");
    let text = fails_with("[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:0\"\n");
    assert!(text.contains("it.toml:2: ") && text.contains("phpmq, console, beanstalk"), "{text}");
    let text = fails_with("[[listener]]\nprotocol = \"phpmq\"\naddress = \"127.0.0.1:99999\"\n");
    assert!(text.contains("it.toml:3: ") && text.contains("127.0.0.1:99999"), "{text}");
    let text = fails_with("[storage\n");
    assert!(text.contains("it.toml:1"), "{text}");
    let text = fails(78, &["--config", "/nonexistent.toml"]);
    assert!(text.contains("/nonexistent.toml"), "{text}");
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = fails_with(
        "durability = \"sync\"\n[listener]\nprotocol = \"beanstalkd\"\nmode = 0660\n\
         group = \"no such group\"\naddress = \"unix:/run/x.sock\"\n[log]\nlevel = \"warning\"\n",
    );
    let wanted = [
        "phpmqd: it.toml:1: durability: this key belongs in a section: move it below [storage]",
        "phpmqd: it.toml:2: listener: write [[listener]], in double brackets",
        "phpmqd: it.toml:3: listener.protocol: unknown protocol \"beanstalkd\" (known: phpmq, \
         console, beanstalk, http), did you mean \"beanstalk\"?",
        "phpmqd: it.toml:4: listener.mode: this value needs quotes: write mode = \"0660\"",
        "phpmqd: it.toml:5: listener.group: there is no group \"no such group\"",
        "phpmqd: it.toml:8: log.level: unknown value \"warning\" (known: crit, error, warn, \
         info, debug, trace), did you mean \"warn\"?",
    ];
    for (line, wanted) in text.lines().zip(wanted) {
        assert!(line.starts_with(wanted), "{line} is not {wanted}");
    }
    assert_eq!(text.lines().count(), wanted.len(), "{text}");
}

/// What only a resolved name tells was said when everything else had been mended.
#[test]
fn a_check_resolves_names_beside_other_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it.toml");
    let text = "[[listener]]\nprotocol = \"phpmq\"\naddress = \"127.0.0.1:9\"\n\
                [[listener]]\nprotocol = \"console\"\naddress = \"localhost:9\"\n\
                [limits]\nmax_windw = 1\n";
    fs::write(&path, text).unwrap();
    let text = fails(78, &["--check-config", "-c", path.to_str().unwrap()]);
    assert!(text.contains("it.toml:6: listener.address: localhost:9 is already"), "{text}");
    assert!(text.contains("it.toml:8: limits.max_windw: unknown key"), "{text}");
}

#[test]
fn a_database_in_memory_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(&["--database", ":memory:", "--listen", "console=127.0.0.1:0"]);
    let process = Process::start(command.current_dir(directory.path()));
    process.logged(" ready ");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "a file was made");
}

#[test]
fn addresses_that_can_be_none_are_refused_with_what_to_write() {
    for (address, wanted) in [
        ("127.0.0.1", "no port"),
        ("/run/x.sock", "write unix: before its path"),
        ("unix:x.sock", "must begin with a slash"),
        ("tcp://127.0.0.1:1", "has no scheme"),
        ("::1:9100", "is written in brackets"),
        ("*:9100", "use 0.0.0.0 or [::]"),
        ("127.0.0.256:1", "not an IPv4 address"),
        (&format!("unix:/{}", "x".repeat(120)), "107 bytes at most, this one has 121"),
    ] {
        let text = fails(64, &["--database", "", "--listen", &format!("console={address}")]);
        assert!(text.contains(wanted), "{address}: {text}");
    }
    let twice = ["--database", "", "--listen", "console=[::1]:9", "--listen", "phpmq=[::]:9"];
    let text = fails(78, &twice);
    assert!(text.contains("--listen: ") && text.contains("allow_remote"), "{text}");
    let twice = ["--database", "", "--listen", "console=[::1]:9", "--listen", "phpmq=[::1]:9"];
    assert!(fails(78, &twice).contains("[::1]:9 is already the address of another listener"));
}

#[test]
fn an_address_for_everybody_has_to_be_allowed() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let text =
            fails_with(&format!("[[listener]]\nprotocol = \"phpmq\"\naddress = \"{address}\"\n"));
        assert!(text.contains("allow_remote"), "{text}");
        let text = fails(78, &["--listen", &format!("beanstalk={address}"), "--database", ""]);
        assert!(text.contains("allow_remote"), "{text}");
    }
}

#[test]
fn a_configuration_can_be_checked_and_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    fs::write(
        &path,
        "[limits]\nmax_window = 7\n[[listener]]\nprotocol = \"console\"\n\
         address = \"127.0.0.1:0\"\n[storage]\ndatabase = \"/x/q.db\"\n",
    )
    .unwrap();
    let output = run(&["-c", path.to_str().unwrap(), "--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("configuration is valid ({})\n", path.display()));
    let printed = run(&["-c", path.to_str().unwrap(), "--print-config"]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("max_window = 7") && text.contains("/x/q.db"), "{text}");
    // What is printed is a configuration that prints the same.
    let second = directory.path().join("b.toml");
    fs::write(&second, &text).unwrap();
    let again = run(&["-c", second.to_str().unwrap(), "--print-config"]);
    let again = String::from_utf8(again.stdout).unwrap();
    // But for the first line, which says where it was read from.
    assert_eq!(again.split_once('\n').unwrap().1, text.split_once('\n').unwrap().1);
    fs::write(&path, "[limits]\nmax_windows = 7\n").unwrap();
    let output = run(&["-c", path.to_str().unwrap(), "--check-config"]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_message_size_that_memory_has_no_room_for_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    fs::write(&path, "[limits]\nmax_memory = \"16MiB\"\n").unwrap();
    let output = run(&["-c", path.to_str().unwrap(), "--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("warning: limits.max_message_size exceeds what"), "{text}");
    assert!(text.contains("more than 15728440 bytes are refused"), "{text}");
    let server = Setup::new().limits("max_memory = \"16MiB\"").log_level("info").start();
    assert!(server.process.logged("questionable").contains("15728440"));
}

#[test]
fn a_port_in_use_is_named_with_its_owner_and_the_flag_to_change_it() {
    let server = Server::start();
    let address = server.address("phpmq");
    let text = fails(69, &["--listen", &format!("phpmq={address}"), "--database", ""]);
    assert!(text.contains(address), "{text}");
    assert!(text.contains("--listen phpmq=ADDRESS"), "{text}");
    assert!(text.contains(&server.process.id().to_string()), "who has it is not in {text}");
    assert_eq!(server.console().number("messages"), 0, "the first one is undisturbed");
}

#[test]
fn a_missing_directory_cannot_be_created_into() {
    let text = fails(73, &["--database", "/nonexistent/q.db", "--listen", "console=127.0.0.1:0"]);
    assert!(text.contains("/nonexistent"), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("console=unix:{}/none/x.sock", directory.path().display());
    let text = fails(73, &["--database", "", "--listen", &socket]);
    assert!(text.contains("none/x.sock"), "{text}");
}

/// Recovering the service's database without its path looked into the operator's home directory,
/// and said nothing of that.
#[test]
fn a_recovery_says_where_the_path_came_from() {
    let mut command = command(&["--recover"]);
    command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME").env("HOME", "/nonexistent");
    let mut process = Process::start(&mut command);
    assert_eq!(process.wait().code(), Some(73), "{}", process.log());
    let text = process.log();
    assert!(
        text.contains("a path from $HOME") && text.contains("/var/lib/phpmq/phpmq.db"),
        "{text}"
    );
    let text = fails(73, &["--recover", "--database", "/nonexistent/q.db"]);
    assert!(!text.contains("a path from"), "{text}");
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    fails(73, &["--database", "", "--listen", &format!("console=unix:{}", path.display())]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

/// A command that runs the program as somebody without rights.
fn as_nobody() -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(Command::new(PHPMQD));
    }
    let known = Command::new("setpriv").arg("--version").said().is_ok();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PHPMQD]);
    known.then_some(command)
}

#[test]
fn what_is_not_permitted_is_said_so() {
    let Some(mut command) = as_nobody() else {
        println!("skipped: root may do everything, and setpriv is not installed");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    // Others may look but not write; not even its owner may.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let database = directory.path().join("q.db");
    let arguments = ["--listen", "console=127.0.0.1:0", "--database"];
    let mut process = Process::start(command.args(arguments).arg(&database));
    let status = process.wait();
    let text = process.log();
    assert_eq!(status.code(), Some(77), "{text}");
    assert!(text.contains(database.to_str().unwrap()), "{text}");
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused_and_the_first_goes_on() {
    let server = Server::start();
    server.beanstalk().put("x");
    let link = server.path("link");
    std::os::unix::fs::symlink(server.database(), &link).unwrap();
    for path in [server.database(), link] {
        let began = crate::harness::now();
        let text =
            fails(69, &["--database", path.to_str().unwrap(), "--listen", "console=127.0.0.1:0"]);
        assert!(began.elapsed().as_secs() < 5);
        assert!(text.contains(&server.process.id().to_string()), "{text}");
    }
    assert_eq!(server.beanstalk().put("y"), 2);
}

/// Starts the program with a passed socket of that name.
fn passed(name: &str, script: &str) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", script, PHPMQD, name]);
    Process::start(&mut command)
}

#[test]
fn a_passed_socket_of_an_unknown_name_is_refused_and_a_known_one_replaces_listeners() {
    if !Path::new("/usr/bin/python3").exists() && Command::new("python3").said().is_err() {
        println!("skipped: python3 is not installed");
        return;
    }
    let script = "import os, socket, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
        os.dup2(s.fileno(), 3)\n\
        os.set_inheritable(3, True)\n\
        e = dict(os.environ, LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), \
        LISTEN_FDNAMES=sys.argv[2])\n\
        os.execve(sys.argv[1], [sys.argv[1], '--database', ''], e)";
    let mut process = passed("gopher", script);
    assert_eq!(process.wait().code(), Some(78), "{}", process.log());
    let wanted = "with the name \"gopher\", which is not a protocol";
    assert!(process.log().contains(&wanted.replace('"', "\\\"")), "{}", process.log());
    // An address that was configured and is not listened on is told.
    let configured = "'--listen', 'console=127.0.0.1:0', '--database', ''], e)";
    let process = passed("console", &script.replace("'--database', ''], e)", configured));
    let line = process.logged("a passed socket replaces a configured listener");
    assert!(line.contains("protocol=console address=127.0.0.1:0"), "{line}");
    process.logged(" ready ");
    assert_eq!(process.count_logged("listening "), 1, "{}", process.log());
}
