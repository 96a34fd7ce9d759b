//! The rules of structure as tests: who may import whom, and what only one file may do.
//!
//! Each test names the offending file and line and the rule, so that the message is all that is
//! needed to mend it. Code of tests (below `#[cfg(test)]`) is free but for length and first line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use phpmq::protocol::PROTOCOLS;

/// The rooms of the library, the folders of src, in the order of their floors: what each may import.
/// A room stands below those that import it, so that arrows run upwards in this table only, and
/// every permission is one that is used. Within a room everybody may import everybody.
const ROOMS: &[(&str, &[&str])] = &[
    // What is sent, asked, replied and counted.
    ("words", &[]),
    // Bytes into requests and replies into bytes. Each protocol is a folder of its own.
    ("protocol", &["words"]),
    // The core. The engine decides and does nothing else, so words are all it needs.
    ("engine", &["words"]),
    ("journal", &["words"]),
    // The durable side.
    ("store", &["journal", "words"]),
    // What the daemon has in memory.
    ("mirror", &["journal", "store", "words"]),
    // The files of another program, made into a database.
    ("binlog", &["store", "words"]),
    // The seam: it names what travels through it.
    ("channels", &["journal", "protocol", "store", "words"]),
    ("persistence", &["channels", "journal", "store"]),
    // Sockets and the threads of connections.
    ("wire", &["channels", "protocol", "words"]),
    (
        "dispatcher",
        &[
            "channels",
            "engine",
            "journal",
            "mirror",
            "persistence",
            "protocol",
            "store",
            "wire",
            "words",
        ],
    ),
    // The process.
    ("config", &["protocol", "words"]),
    ("ctl", &["binlog", "config", "words"]),
    (
        "daemon",
        &[
            "binlog",
            "channels",
            "config",
            "dispatcher",
            "engine",
            "journal",
            "persistence",
            "protocol",
            "store",
            "wire",
            "words",
        ],
    ),
];

/// The most lines of a file, tests included.
const LINES_MAX: usize = 700;

struct Source {
    /// Below the top of the repository, like `src/engine/mod.rs`.
    path: String,
    /// Line numbers and lines that are neither remarks nor tests.
    code: Vec<(usize, String)>,
    /// The remarks among those lines.
    remarks: Vec<(usize, String)>,
    text: String,
}

impl Source {
    /// The room that this is part of; `None` for lib.rs and the binaries.
    fn room(&self) -> Option<&str> {
        let (room, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        (room != "bin").then_some(room)
    }

    fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("src/{folder}/"))
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let relative = path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let (mut code, mut remarks) = (Vec::new(), Vec::new());
    for (index, line) in lines.iter().enumerate() {
        let begins_tests = line.trim() == "#[cfg(test)]"
            && lines
                .get(index + 1)
                .is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
        // Tests stand at the bottom of a file.
        if begins_tests && !line.starts_with(' ') {
            break;
        }
        let is_remark = line.trim_start().starts_with("//");
        let list = if is_remark { &mut remarks } else { &mut code };
        list.push((index + 1, (*line).to_owned()));
    }
    Source { path: relative, code, remarks, text }
}

/// The files that are tests as a whole: declared as `#[cfg(test)] mod name;`.
fn test_files(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let folder = match source.path.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            None => source.path.trim_end_matches(".rs"),
        };
        let mut lines = source.text.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "#[cfg(test)]" {
                continue;
            }
            let declared = lines.next().and_then(|next| next.trim().strip_suffix(';'));
            if let Some((_, name)) = declared.and_then(|next| next.split_once("mod ")) {
                found.push(format!("{folder}/{name}.rs"));
            }
        }
    }
    found
}

/// The files of src, without those that are tests.
fn sources() -> Vec<Source> {
    let all: Vec<Source> = files_below(&top().join("src")).iter().map(|path| read(path)).collect();
    let tests = test_files(&all);
    assert!(all.len() > 20, "the sources were not found");
    let is_test = |path: &str| {
        // A module of tests may be a folder.
        tests.iter().any(|test| {
            let folder = format!("{}/", test.trim_end_matches(".rs"));
            path == test || path.starts_with(&folder)
        })
    };
    all.into_iter().filter(|source| !is_test(&source.path)).collect()
}

/// Fails with all offences at once.
fn demand(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n  {}\n", offences.join("\n  "));
}

/// The lines of code in which one of the patterns stands.
fn lines_with(source: &Source, patterns: &[&str]) -> Vec<String> {
    let found = source.code.iter().filter(|(_, line)| patterns.iter().any(|p| line.contains(p)));
    found.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())).collect()
}

/// The modules that a line names as `crate::module`, those in braces included.
fn imported(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list),
            None => rest.split([',', ';', ' ', ')', '>']).next().unwrap_or(rest),
        };
        for item in list.split(',') {
            let name: String =
                item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn rooms_import_what_the_table_allows() {
    let mut offences = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let Some((room, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            offences.push(format!("{}: room {room} has no row", source.path));
            continue;
        };
        for (number, line) in &source.code {
            for name in imported(line).iter().filter(|name| name != room) {
                match allowed.iter().find(|other| *other == name) {
                    Some(other) => _ = used.insert((*room, *other)),
                    None => offences.push(format!("{}:{number}: imports {name}", source.path)),
                }
            }
        }
    }
    for (room, allowed) in ROOMS {
        let idle = allowed.iter().filter(|other| !used.contains(&(*room, **other)));
        offences.extend(idle.map(|other| format!("nothing in {room} imports {other}")));
    }
    demand("the table ROOMS of tests/it/tidy.rs says which room imports which", offences);
}

#[test]
fn no_arrow_between_rooms_runs_upwards() {
    let floor = |room: &str| ROOMS.iter().position(|(name, _)| *name == room);
    let mut offences = Vec::new();
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        let upwards = allowed.iter().filter(|other| floor(other).is_none_or(|below| below >= at));
        offences.extend(upwards.map(|other| format!("{room} imports {other}")));
    }
    demand("a room imports only rooms that stand before it in the table ROOMS", offences);
}

#[test]
fn every_file_is_in_a_room() {
    let mut offences = Vec::new();
    for path in files_below(&top().join("src")) {
        let source = read(&path);
        if source.room().is_none() && !source.path.starts_with("src/bin/") {
            offences.push(source.path);
        }
    }
    offences.retain(|path| path != "src/lib.rs");
    demand("src holds rooms, lib.rs and the binaries", offences);
}

#[test]
fn imports_are_seen_in_all_their_forms() {
    assert_eq!(imported("use crate::words::ids::MessageId;"), ["words"]);
    assert_eq!(imported("use crate::{daemon, store::File};"), ["daemon", "store"]);
    assert_eq!(imported("    fn x(a: crate::wire::A, b: crate::words::B) {"), ["wire", "words"]);
    assert_eq!(imported("use std::io;"), Vec::<String>::new());
}

#[test]
fn the_engine_and_the_protocols_only_decide() {
    let acting = [
        "slog",
        "println!",
        "std::thread",
        "std::net",
        "std::fs",
        "std::process",
        "std::env",
        "socket2",
        "rustix",
        "crossbeam",
        "io::Read",
        "io::Write",
        "getrandom",
    ];
    let mut offences = Vec::new();
    for source in sources() {
        if source.is_below("engine") || source.is_below("protocol") {
            offences.extend(lines_with(&source, &acting));
        }
    }
    demand("engine/ and protocol/ do no I/O, wait, log or draw random numbers", offences);
}

#[test]
fn no_protocol_knows_another() {
    let mut offences = Vec::new();
    for source in sources() {
        for own in PROTOCOLS.iter().filter(|row| source.is_below(&format!("protocol/{}", row.name)))
        {
            for other in PROTOCOLS.iter().filter(|row| row.name != own.name) {
                let name = other.name;
                let patterns = [format!("protocol::{name}"), format!("super::{name}::")];
                offences.extend(lines_with(&source, &[&patterns[0], &patterns[1]]));
            }
        }
    }
    demand("a protocol's file uses no other protocol", offences);
}

/// What may name a protocol, beside the protocols: the load generator, and what stands in for
/// beanstalkd (its command line and the files that it leaves).
const ABOUT_PROTOCOLS: &[&str] = &[
    "src/protocol/",
    "src/ctl/bench/",
    "src/ctl/import.rs",
    "src/ctl/mod.rs",
    "src/binlog/",
    "src/config/beanstalkd.rs",
    "src/daemon/import.rs",
];

#[test]
fn shared_code_names_no_protocol() {
    let mut offences = Vec::new();
    for mut source in sources() {
        if ABOUT_PROTOCOLS.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        for (_, line) in &mut source.code {
            // The program whose command line is taken, and the directory of our own.
            *line = line.replace("beanstalkd", "").replace("join(\"phpmq\")", "");
        }
        for name in PROTOCOLS.iter().map(|row| row.name) {
            // Not the bare name, which is part of other words: phpmqd, phpmq.db.
            let (literal, module) = (format!("\"{name}\""), format!("protocol::{name}"));
            offences.extend(lines_with(&source, &[&literal, &module]));
        }
        offences.extend(lines_with(&source, &["beanstalk", "php-mq", "php_mq", "tube"]));
    }
    demand("what one protocol needs stands in its folder and its row of PROTOCOLS", offences);
}

/// The rooms that serve all protocols alike.
const CORE: &[&str] = &[
    "words",
    "engine",
    "journal",
    "store",
    "mirror",
    "persistence",
    "channels",
    "wire",
    "dispatcher",
];

/// Words of single protocols, and of programs that speak them. The beginnings of words count, so
/// that `tubes` and `beanstalkd` are found too.
const FOREIGN_WORDS: &[&str] = &[
    "beanstalk",
    "gearman",
    "job",
    "laravel",
    "memcache",
    "php-mq",
    "pheanstalk",
    "stomp",
    "symfony",
    "tube",
    "zmtp",
];

#[test]
fn remarks_in_the_core_use_its_own_words() {
    let mut offences = Vec::new();
    for source in sources() {
        if !CORE.iter().any(|room| source.is_below(room)) {
            continue;
        }
        for (number, line) in &source.remarks {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '-');
            let is_foreign =
                |word: &str| FOREIGN_WORDS.iter().any(|w| word.to_lowercase().starts_with(w));
            if words.any(is_foreign) {
                offences.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    demand("what only one protocol has a word for stands in its folder", offences);
}

#[test]
fn every_file_of_a_protocol_is_registered_and_every_row_has_its_file() {
    // Shared by protocols, and none itself.
    let shared = ["mod", "options", "wire"];
    let mut files = Vec::new();
    for entry in fs::read_dir(top().join("src/protocol")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs").to_owned();
        if !shared.contains(&name.as_str()) {
            files.push(name);
        }
    }
    files.sort();
    let mut rows: Vec<&str> = PROTOCOLS.iter().map(|row| row.name).collect();
    rows.sort_unstable();
    assert_eq!(files, rows, "files of src/protocol/ on the left, rows of PROTOCOLS on the right");
}

#[test]
fn only_the_seam_makes_channels() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path != "src/channels/mod.rs") {
        let patterns = ["bounded(", "bounded::", "mpsc::channel", "sync_channel"];
        offences.extend(lines_with(source, &patterns));
    }
    demand("every channel and its bound is argued in channels/mod.rs", offences);
}

#[test]
fn only_the_transport_reads_and_writes_connections() {
    let mut offences = Vec::new();
    for source in sources() {
        let is_near = ["channels", "wire", "dispatcher"].iter().any(|room| source.is_below(room));
        if is_near && source.path != "src/channels/transport.rs" {
            let patterns = ["RecvFlags", "SendFlags", "Shutdown::"];
            offences.extend(lines_with(&source, &patterns));
        }
    }
    demand("bytes of a connection pass through channels/transport.rs", offences);
}

#[test]
fn only_clock_rs_reads_clocks() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path != "src/words/clock.rs") {
        let patterns = ["Instant::now", "SystemTime", "clock_gettime", ".elapsed()"];
        offences.extend(lines_with(source, &patterns));
    }
    demand("time is an argument: only clock.rs reads clocks", offences);
}

#[test]
fn only_the_store_speaks_sql() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_below("store")) {
        offences.extend(lines_with(source, &["rusqlite", "SELECT ", "INSERT INTO", "PRAGMA "]));
    }
    demand("only store/ uses rusqlite", offences);
}

#[test]
fn threads_are_named_and_joined() {
    let mut offences = Vec::new();
    for source in sources() {
        offences.extend(lines_with(&source, &["thread::spawn", "thread::sleep"]));
    }
    demand("threads come from thread::Builder, and none of them sleeps", offences);
}

#[test]
fn the_tests_start_programs_in_one_place() {
    let mut offences = Vec::new();
    for path in files_below(&top().join("tests/it")) {
        let file = read(&path);
        let is_exempt = ["children.rs", "tidy.rs"].iter().any(|name| path.ends_with(name));
        let lines = file.text.lines().enumerate().filter(|_| !is_exempt);
        let starts = [".spawn()", ".status()", ".output()"];
        let found = lines.filter(|(_, line)| starts.iter().any(|start| line.contains(start)));
        offences.extend(found.map(|(at, line)| format!("{}:{}: {line}", file.path, at + 1)));
    }
    demand("programs are started through harness::Children, for their copies of sockets", offences);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let mut offences = Vec::new();
    for source in sources() {
        offences.extend(lines_with(&source, &[".unwrap()", "todo!(", "unimplemented!(", "dbg!("]));
    }
    demand("no unwrap(), todo!() or dbg!() outside tests", offences);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let mut offences = Vec::new();
    for folder in ["src", "tests/it"] {
        for path in files_below(&top().join(folder)) {
            let source = read(&path);
            let first = source.text.lines().next().unwrap_or_default();
            if !first.starts_with("//! ") {
                offences.push(format!("{}: {first}", source.path));
            }
        }
    }
    demand("the first line is //! and what the file is for", offences);
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let mut offences = Vec::new();
    for folder in ["src", "tests/it"] {
        for path in files_below(&top().join(folder)) {
            let source = read(&path);
            let lines = source.text.lines().count();
            if lines > LINES_MAX {
                offences.push(format!("{}: {lines} lines", source.path));
            }
        }
    }
    demand("a file has at most 700 lines, tests included", offences);
}

#[test]
fn unsafe_code_is_forbidden() {
    let mut roots = vec![top().join("src/lib.rs")];
    roots.extend(files_below(&top().join("src/bin")));
    let offences: Vec<String> = roots
        .iter()
        .map(|path| read(path))
        .filter(|source| !source.text.contains("#![forbid(unsafe_code)]"))
        .map(|source| source.path)
        .collect();
    demand("lib.rs and the binaries forbid unsafe code", offences);
}

#[test]
fn the_index_of_these_tests_is_whole() {
    let index = fs::read_to_string(top().join("tests/it/main.rs")).unwrap();
    let mut offences = Vec::new();
    for entry in fs::read_dir(top().join("tests/it")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        if name != "main" && !index.contains(&format!("//! - `{name}`: ")) {
            offences.push(name.to_owned());
        }
    }
    demand("tests/it/main.rs says what each file shows", offences);
}
