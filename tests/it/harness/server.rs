//! The daemon under test, with a directory, a configuration and listeners of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Beanstalk, Console, Http, Phpmq, Process, Stream, Transport};

/// The daemon's program.
pub const PHPMQD: &str = env!("CARGO_BIN_EXE_phpmqd");
const PROTOCOLS: [&str; 4] = ["phpmq", "console", "beanstalk", "http"];

/// What a server is to be like.
#[derive(Clone)]
pub struct Setup {
    transport: Transport,
    database: bool,
    database_at: Option<PathBuf>,
    storage: String,
    limits: String,
    queue: String,
    policies: String,
    level: &'static str,
    listeners: BTreeMap<&'static str, String>,
    prefix: Vec<String>,
    mount: bool,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub fn on(transport: Transport) -> Setup {
        Setup {
            transport,
            database: true,
            database_at: None,
            storage: String::new(),
            limits: String::new(),
            queue: String::new(),
            policies: String::new(),
            level: "debug",
            listeners: PROTOCOLS.into_iter().map(|name| (name, String::new())).collect(),
            prefix: Vec::new(),
            mount: false,
            environment: Vec::new(),
        }
    }

    pub fn new() -> Setup {
        Setup::on(Transport::Tcp)
    }

    /// Keeps nothing on disk.
    pub fn without_database(self) -> Setup {
        Setup { database: false, ..self }
    }

    /// Keeps the database there and not in the server's directory.
    pub fn database_at(self, path: &Path) -> Setup {
        Setup { database_at: Some(path.to_owned()), ..self }
    }

    /// A line of the section `[storage]`.
    pub fn storage(mut self, line: &str) -> Setup {
        self.storage += &format!("{line}\n");
        self
    }

    pub fn durability(self, level: &str) -> Setup {
        self.storage(&format!("durability = \"{level}\""))
    }

    /// A line of the section `[limits]`.
    pub fn limits(mut self, line: &str) -> Setup {
        self.limits += &format!("{line}\n");
        self
    }

    /// A line of the section `[queue]`.
    pub fn queue(mut self, line: &str) -> Setup {
        self.queue += &format!("{line}\n");
        self
    }

    /// A section `[[policy]]` with these lines.
    pub fn policy(mut self, lines: &str) -> Setup {
        self.policies += &format!("[[policy]]\n{lines}\n");
        self
    }

    /// A line of the listener of that protocol.
    pub fn listener(mut self, protocol: &'static str, line: &str) -> Setup {
        *self.listeners.entry(protocol).or_default() += &format!("{line}\n");
        self
    }

    pub fn log_level(self, level: &'static str) -> Setup {
        Setup { level, ..self }
    }

    /// Words before the program's name: a shell, a tracer.
    pub fn prefix(mut self, words: &[&str]) -> Setup {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Keeps the database on a disk of its own of that size, which only the daemon sees and which
    /// goes with it. Needs root.
    pub fn on_disk_of(self, size: &str) -> Setup {
        let script = format!(
            "mkdir -p disk && mount -t tmpfs -o size={size},mode=0750 tmpfs disk && exec \"$@\""
        );
        let setup = self.prefix(&["unshare", "--mount", "sh", "-c", &script, "-"]);
        Setup { mount: true, ..setup }
    }

    pub fn environment(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The configuration file for it.
    fn text(&self, directory: &Path) -> String {
        let directory = directory.display();
        let database = match (self.database, self.mount) {
            (false, _) => String::new(),
            (true, false) => format!("{directory}/q.db"),
            (true, true) => format!("{directory}/disk/q.db"),
        };
        let database = match &self.database_at {
            Some(path) => path.display().to_string(),
            None => database,
        };
        let mut text = format!("[storage]\ndatabase = \"{database}\"\n{}\n", self.storage);
        let _ = write!(text, "[limits]\n{}\n[queue]\n{}\n", self.limits, self.queue);
        let _ = write!(text, "[log]\nlevel = \"{}\"\nformat = \"plain\"\n", self.level);
        text += &self.policies;
        for (protocol, lines) in &self.listeners {
            let address = match self.transport {
                Transport::Tcp => "127.0.0.1:0".to_owned(),
                Transport::Unix => format!("unix:{directory}/{protocol}.sock"),
            };
            let _ = write!(
                text,
                "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\n{lines}\n"
            );
        }
        text
    }

    pub fn start(self) -> Server {
        let directory = tempfile::tempdir().unwrap();
        // Whom a prefix makes the daemon be can read its configuration.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let process = launch(&self, directory.path());
        let mut server = Server { setup: self, process, addresses: BTreeMap::new(), directory };
        server.await_ready();
        server
    }
}

fn launch(setup: &Setup, directory: &Path) -> Process {
    let config = directory.join("phpmqd.toml");
    fs::write(&config, setup.text(directory)).unwrap();
    let mut words = setup.prefix.clone();
    words.extend([PHPMQD.to_owned(), "--config".to_owned(), config.display().to_string()]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
    command.current_dir(directory);
    for (name, value) in &setup.environment {
        command.env(name, value);
    }
    Process::start(&mut command)
}

/// A daemon that is ready.
pub struct Server {
    pub setup: Setup,
    pub process: Process,
    addresses: BTreeMap<String, String>,
    // The last field, so that the daemon is gone before its directory.
    directory: TempDir,
}

impl Server {
    pub fn start() -> Server {
        Setup::new().start()
    }

    pub fn on(transport: Transport) -> Server {
        Setup::on(transport).start()
    }

    fn await_ready(&mut self) {
        self.process.logged(" ready ");
        self.addresses.clear();
        for line in self.process.log().lines().filter(|line| line.contains("info listening ")) {
            let value = |key: &str| {
                let word = line.split(' ').find_map(|word| word.strip_prefix(key));
                word.unwrap().to_owned()
            };
            self.addresses.insert(value("protocol="), value("address="));
        }
    }

    /// Where it listens for that protocol.
    pub fn address(&self, protocol: &str) -> &str {
        &self.addresses[protocol]
    }

    pub fn connect(&self, protocol: &str) -> Stream {
        Stream::connect(self.address(protocol))
    }

    pub fn beanstalk(&self) -> Beanstalk {
        Beanstalk::new(self.connect("beanstalk"))
    }

    /// A peer that speaks this revision of php-mq.
    pub fn phpmq(&self, revision: u8) -> Phpmq {
        Phpmq::new(self.connect("phpmq"), revision)
    }

    pub fn http(&self) -> Http {
        Http::new(self.connect("http"))
    }

    /// A console in plain mode.
    pub fn console(&self) -> Console {
        Console::plain(self.connect("console"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("q.db")
    }

    /// Stops it in good order.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again, on the same directory, with its setup as it is now.
    pub fn start_again(&mut self) {
        self.process = launch(&self.setup, self.directory.path());
        self.await_ready();
    }

    /// Has it read its configuration, as the setup is now, again.
    pub fn reload(&mut self) {
        let lines = self.process.lines();
        self.write_config();
        self.process.signal(Signal::HUP);
        self.process.logged_from(lines, "configuration reloaded");
    }

    pub fn write_config(&self) {
        fs::write(self.path("phpmqd.toml"), self.setup.text(self.directory.path())).unwrap();
    }
}
