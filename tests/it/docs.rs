//! What is written about the program is what it does: pages, sample file and units.
//!
//! Options and keys are compared in both directions, so that neither a page nor the program can
//! gain one alone. Where a tool is not installed its test says so and passes; .ci/run installs all.

use crate::harness::Children as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use phpmq::config::file::SECTIONS;
use phpmq::config::{Args, Config, Environment, args, beanstalkd, load};
use phpmq::protocol::PROTOCOLS;

use crate::harness::{Console, Server, Stream, Transport};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A manual page up to, or from, the section about being called as beanstalkd.
fn phpmqd_page(beanstalkd: bool) -> String {
    let page = read("man/phpmqd.8");
    let section = ".Sh CALLED AS BEANSTALKD\n";
    let (before, after) = page.split_once(section).expect("the page has that section");
    let (section, rest) = after.split_once("\n.Sh ").expect("it is not the last one");
    if beanstalkd { section.to_owned() } else { format!("{before}\n.Sh {rest}") }
}

/// The options that list items of a page describe, as typed: `-c`, `--config`.
fn options_of(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with(".It Fl ")) {
        let mut words = line.split(' ').peekable();
        while let Some(word) = words.next() {
            if word != "Fl" {
                continue;
            }
            let long = words.next_if_eq(&"Fl").is_some();
            let name = words.next().expect("an option has a name");
            found.insert(format!("{}{name}", if long { "--" } else { "-" }));
        }
    }
    found
}

/// The options that a command takes.
fn options_taken(command: &mut clap::Command) -> BTreeSet<String> {
    command.build();
    let mut found = BTreeSet::new();
    for argument in command.get_arguments() {
        found.extend(argument.get_short().map(|name| format!("-{name}")));
        found.extend(argument.get_long().map(|name| format!("--{name}")));
    }
    found
}

#[test]
fn the_page_describes_every_option_and_no_other() {
    assert_eq!(options_of(&phpmqd_page(false)), options_taken(&mut args::command(PROTOCOLS)));
    assert_eq!(options_of(&phpmqd_page(true)), options_taken(&mut beanstalkd::command()));
}

#[test]
fn the_page_of_the_tool_describes_every_verb_and_option_and_no_other() {
    let page = read("man/phpmqctl.1");
    let mut described = BTreeSet::new();
    for section in page.split("\n.Ss Options of ").skip(1) {
        let (verb, section) = section.split_once('\n').expect("options follow");
        let section = section.split("\n.S").next().expect("there is a first part");
        described.insert((verb.to_owned(), options_of(section)));
    }
    // What verbs have in common stands in the page once.
    let is_common = |(verb, _): &(String, BTreeSet<String>)| verb.starts_with("every verb");
    let common = described.iter().find(|row| is_common(row)).map(|(_, options)| options.clone());
    let common = common.expect("the page has a section for those");
    described.retain(|row| !is_common(row));
    let mut command = phpmq::ctl::command();
    command.build();
    // Every program of that kind has it.
    let verbs = command.get_subcommands_mut().filter(|verb| verb.get_name() != "help");
    let taken = verbs.map(|verb| {
        let mut options = options_taken(verb);
        if common.is_subset(&options) {
            options.retain(|option| !common.contains(option));
        }
        (verb.get_name().to_owned(), options)
    });
    assert_eq!(described, taken.collect());
    for (verb, _) in described {
        assert!(page.contains(&format!("\n.Nm phpmqctl Cm {verb}\n.Op ")), "synopsis of {verb}");
    }
}

#[test]
fn the_page_lists_every_exit_code() {
    let page = read("man/phpmqd.8");
    let (_, section) = page.split_once(".Sh EXIT STATUS\n").expect("the page has that section");
    let (section, _) = section.split_once("\n.Sh ").expect("it is not the last one");
    let codes: Vec<u8> = section
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|code| code.parse().unwrap())
        .collect();
    assert_eq!(codes, [0, 64, 65, 69, 70, 73, 74, 77, 78]);
}

#[test]
fn page_and_sample_tell_how_much_goes_to_the_file_before_the_interval_is_over() {
    let told = format!("More than {} MiB of", phpmq::words::limits::TICK_BYTES_MAX >> 20);
    for path in ["man/phpmqd.toml.5", "etc/phpmqd.toml"] {
        assert!(read(path).contains(&told), "{path} does not say {told:?}");
    }
}

/// Section, key and default, as phpmqd.toml(5) has them.
fn keys_of_the_page() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in read("man/phpmqd.toml.5").lines() {
        if let Some(heading) = line.strip_prefix(".Ss ") {
            // The page says that the bracket at the end is no punctuation.
            section = heading.trim_end_matches("\\&").trim_matches(['[', ']']).to_owned();
        } else if let Some(item) = line.strip_prefix(".It Ic ") {
            let (key, value) = item.split_once(" = ").expect("an item is KEY = DEFAULT");
            keys.push((section.clone(), key.to_owned(), value.replace("\\(dq", "\"")));
        }
    }
    keys
}

/// The same, as the remarks of the sample file have them.
fn keys_of_the_sample() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in read("etc/phpmqd.toml").lines() {
        let line = line.trim_start_matches('#');
        if line.starts_with('[') && !line.contains(' ') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, rest)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            let value = rest.split(" #").next().unwrap_or(rest).trim_end();
            keys.push((section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    keys
}

fn names(keys: &[(String, String, String)]) -> BTreeSet<String> {
    keys.iter().map(|(section, key, _)| format!("{section}.{key}")).collect()
}

#[test]
fn page_and_sample_describe_every_key_and_no_other() {
    let known: BTreeSet<String> = SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .collect();
    assert_eq!(names(&keys_of_the_page()), known);
    assert_eq!(names(&keys_of_the_sample()), known);
}

#[test]
fn page_and_sample_give_the_same_defaults() {
    let sample = keys_of_the_sample();
    for (section, key, value) in keys_of_the_page() {
        let in_sample = sample.iter().find(|row| row.0 == section && row.1 == key);
        assert_eq!(in_sample.map(|row| &row.2), Some(&value), "{section}.{key}");
    }
}

/// What the daemon would be as the system service, with a configuration file of this text.
fn service_with(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("phpmqd.toml");
    fs::write(&path, text).unwrap();
    let args = Args { config: Some(path), ..Args::default() };
    let environment = Environment {
        state_directory: Some(PathBuf::from("/var/lib/phpmq")),
        root: PathBuf::from("/"),
        ..Environment::default()
    };
    load(&args, &environment).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn the_sample_file_changes_nothing() {
    assert_eq!(service_with(&read("etc/phpmqd.toml")), service_with(""));
}

#[test]
fn the_defaults_that_page_and_sample_tell_are_those_of_the_program() {
    // As a file: everything but the listeners, of which the first stands for a phpmq one.
    let mut text = String::new();
    for (section, keys) in SECTIONS.iter() {
        let several = ["listener", "policy"].contains(section);
        let brackets = if several { ("[[", "]]") } else { ("[", "]") };
        text += &format!("{}{section}{}\n", brackets.0, brackets.1);
        for (of, key, value) in keys_of_the_page() {
            // Only Unix sockets take these two, and one protocol each of the others.
            let left_out =
                of == "listener" && (["mode", "group"].contains(&key.as_str()) || is_option(&key));
            if of == *section && !left_out {
                assert!(keys.contains(&key.as_str()));
                text += &format!("{key} = {value}\n");
            }
        }
    }
    let told = service_with(&text);
    // Without a policy nothing is delayed and set aside; one that says nothing is the default one.
    let mut default = service_with("[[policy]]\nqueues = \"mail.*\"\n");
    default.listeners.retain(|listener| listener.protocol.name == "phpmq");
    assert_eq!(told, default);
}

fn is_option(key: &str) -> bool {
    PROTOCOLS.iter().flat_map(|protocol| protocol.options).any(|option| option.name == key)
}

#[test]
fn the_defaults_of_options_that_the_page_tells_are_those_of_their_protocols() {
    let page = keys_of_the_page();
    for protocol in PROTOCOLS {
        let header =
            format!("[[listener]]\nprotocol = \"{}\"\naddress = \"127.0.0.1:1\"\n", protocol.name);
        let mut text = header.clone();
        for option in protocol.options {
            let told = page.iter().find(|row| row.0 == "listener" && row.1 == option.name);
            let (_, key, value) = told.unwrap_or_else(|| panic!("no word of {}", option.name));
            text += &format!("{key} = {value}\n");
        }
        assert_eq!(service_with(&text), service_with(&header));
    }
}

#[test]
fn the_listeners_that_the_sample_tells_are_those_of_the_program() {
    let sample = read("etc/phpmqd.toml");
    let (_, listeners) = sample
        .split_once("# The default listeners, used without any [[listener]] table:\n")
        .unwrap();
    assert_eq!(service_with(&listeners.replace('#', "")), service_with(""));
}

#[test]
fn pages_and_units_name_every_protocol() {
    for row in PROTOCOLS {
        let socket = read(&format!("systemd/phpmqd-{}.socket", row.name));
        assert!(socket.contains(&format!("FileDescriptorName={}\n", row.name)));
        assert!(socket.contains(&format!("ListenStream={}\n", row.default_address)));
        for path in ["man/phpmqd.8", "man/phpmqd.toml.5", "README.md"] {
            let text = read(path);
            assert!(text.contains(row.name), "{path} does not name {}", row.name);
            assert!(text.contains(row.default_address), "{path}: {}", row.default_address);
        }
    }
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = read("README.md");
    let run = readme.find("cargo run --release").expect("how to run it");
    let test = readme.find("cargo test").expect("how to test it");
    let first_heading = readme.find("\n## ").expect("it has sections");
    assert!(run < test && test < first_heading, "they come before everything else");
}

/// A section of phpmq-protocol(7).
fn protocol_section(heading: &str) -> String {
    let page = read("man/phpmq-protocol.7");
    let (_, section) = page.split_once(&format!("\n.S{heading}\n")).expect("it has that section");
    let end = if heading.starts_with("h ") { "\n.Sh " } else { "\n.S" };
    section.split(end).next().expect("there is a first part").to_owned()
}

/// The commands of a section's list, each with its arguments as a usage has them: `help [COMMAND]`.
fn commands_of(section: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in section.lines().filter_map(|line| line.strip_prefix(".It Ic ")) {
        for command in item.split(" , ") {
            let (required, optional) = command.split_once(" Op Ar ").unwrap_or((command, ""));
            let mut usage = match required.split_once(" Ar ") {
                Some((name, arguments)) => format!("{name} {}", arguments.to_uppercase()),
                None => required.to_owned(),
            };
            if !optional.is_empty() {
                usage += &format!(" [{}]", optional.to_uppercase());
            }
            found.insert(usage);
        }
    }
    found
}

/// The console takes no command that its help does not list: both come from one table.
#[test]
fn the_page_describes_every_command_of_the_console_and_no_other() {
    let server = Server::on(Transport::Tcp);
    let mut console = Console::plain(Stream::connect(server.address("console")));
    let help = console.ask("help");
    // Usages stand in a column of their own.
    let usages = help.iter().filter_map(|line| line.strip_prefix("  ")?.get(..20));
    let listed: BTreeSet<String> = usages.map(|usage| usage.trim().to_owned()).collect();
    assert_eq!(commands_of(&protocol_section("h THE MAINTENANCE CONSOLE")), listed);
}

/// The commands of beanstalkd 1.12, as its protocol.txt has them.
const BEANSTALKD: &str = "put reserve reserve-with-timeout reserve-job delete release bury touch \
                          watch ignore use peek peek-ready peek-delayed peek-buried kick kick-job \
                          stats-job stats-tube stats list-tubes list-tube-used \
                          list-tubes-watched pause-tube quit";

/// The code of a file without its tests.
fn code(path: &str) -> String {
    let text = read(path);
    text.split("\n#[cfg(test)]").next().expect("there is a first part").to_owned()
}

/// The words that a decoder of lines compares with.
fn words_of(code: &str) -> BTreeSet<String> {
    let literals = code.split("b\"").skip(1).filter_map(|rest| rest.split('"').next());
    let words = literals.map(|literal| literal.trim_end_matches(' ').to_owned());
    let is_command = |word: &String| {
        word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    words.filter(is_command).collect()
}

#[test]
fn the_page_describes_every_additional_command_of_beanstalk_and_no_other() {
    let mut expected: BTreeSet<String> = BEANSTALKD.split_whitespace().map(str::to_owned).collect();
    for usage in commands_of(&protocol_section("s Additional commands")) {
        let name = usage.split(' ').next().expect("a command has a name").to_owned();
        assert!(expected.insert(name), "{usage} is beanstalkd's own");
    }
    assert_eq!(expected, words_of(&code("src/protocol/beanstalk/line.rs")));
}

/// The numbers that begin the rows of a table in a section about php-mq.
fn numbers_of(section: &str, digits: usize) -> BTreeSet<String> {
    let rows = section.lines().filter_map(|line| line.strip_prefix(".It ")?.split_once(" Ta "));
    let numbers = rows.map(|(number, _)| number.to_owned());
    let is_number = |number: &String| {
        number.len() == digits && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    numbers.filter(is_number).collect()
}

#[test]
fn the_page_describes_every_message_and_packet_of_phpmq_and_no_other() {
    let decoder = code("src/protocol/phpmq/decoder/mod.rs");
    let taken = decoder.lines().filter_map(|line| line.split_once(" => (Kind::"));
    let mut messages: BTreeSet<String> =
        taken.map(|(number, _)| format!("{:0>3}", number.trim())).collect();
    let encoder = code("src/protocol/phpmq/encoder.rs");
    messages.extend(encoder.split("b\"H01").skip(1).map(|rest| rest[..3].to_owned()));
    assert_eq!(numbers_of(&protocol_section("s Messages and revisions"), 3), messages);

    let module = code("src/protocol/phpmq/mod.rs");
    let (_, packets) = module.split_once("enum Packet {").expect("the table of packets");
    let packets = packets.split('}').next().expect("there is a first part");
    let numbers = packets.lines().filter_map(|line| line.split_once(" = "));
    let numbers = numbers.map(|(_, number)| format!("{:0>2}", number.trim_end_matches(',')));
    assert_eq!(numbers_of(&protocol_section("s Framing"), 2), numbers.collect());
}

/// Runs a tool, or says that it is not there.
fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).said() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("{name} is not here ({error}): not checked");
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn mandoc_has_nothing_to_say_about_the_pages() {
    let mut pages = 0;
    for entry in fs::read_dir(top().join("man")).unwrap() {
        let path = entry.unwrap().path();
        pages += 1;
        let Some(output) = tool("mandoc", &["-T", "lint", path.to_str().unwrap()]) else {
            continue;
        };
        let said = said(&output);
        // Other pages may not be installed where this runs.
        let complaint = |line: &&str| {
            line.contains(": ")
                && !line.contains("referenced manual not found")
                && !line.contains("outdated mandoc.db")
        };
        assert_eq!(said.lines().find(complaint), None);
    }
    assert!(pages >= 2, "the pages were not found");
}

/// Copies the units with the program that was built, as an installation would have it.
fn units(directory: &Path) -> Vec<String> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(top().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".service") || name.ends_with(".socket") {
            let built = format!("={} ", env!("CARGO_BIN_EXE_phpmqd"));
            let text = fs::read_to_string(&path).unwrap().replace("=/usr/sbin/phpmqd ", &built);
            let copy = directory.join(name);
            fs::write(&copy, text).unwrap();
            copies.push(copy.to_str().unwrap().to_owned());
        }
    }
    assert!(copies.len() > 1, "the units were not found");
    copies
}

#[test]
fn systemd_accepts_the_units() {
    let directory = tempfile::tempdir().unwrap();
    let copies = units(directory.path());
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(copies.iter().map(String::as_str));
    if let Some(output) = tool("systemd-analyze", &arguments) {
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "");
    }
}

#[test]
fn the_service_is_confined() {
    let directory = tempfile::tempdir().unwrap();
    let copies = units(directory.path());
    let service = copies.iter().find(|path| path.ends_with(".service")).unwrap();
    // The threshold is ten times the exposure.
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=15", service];
    if let Some(output) = tool("systemd-analyze", &arguments) {
        assert!(output.status.success(), "{}", said(&output));
    }
}
