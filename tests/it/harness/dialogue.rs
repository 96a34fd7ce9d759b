//! Beanstalk peers: a scripted dialogue, and a small client.

use std::collections::BTreeMap;

use super::{Server, Stream};

/// Plays a dialogue: `> line` is sent, `< line` must come, each ending in CR LF. A name before the
/// arrow (`anna> reserve`) makes a line another connection's, opened when it is first named.
/// `< (end)` is the end of the connection, `> (end)` ends our sending side.
pub fn check(server: &Server, dialogue: &str) {
    let mut peers: BTreeMap<&str, Stream> = BTreeMap::new();
    for line in dialogue.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let arrow = line.find(['>', '<']).unwrap_or_else(|| panic!("no arrow in {line:?}"));
        let (name, text) = line.split_at(arrow);
        let text = text.strip_prefix("> ").or(text.strip_prefix("< ")).unwrap_or_default();
        let peer = peers.entry(name).or_insert_with(|| server.connect("beanstalk"));
        if line[arrow..].starts_with('>') {
            match text {
                "(end)" => peer.half_close(),
                text => peer.send(format!("{text}\r\n")),
            }
        } else if text == "(end)" {
            assert_eq!(peer.rest(), "", "{name} got more, in\n{dialogue}");
        } else {
            assert_eq!(peer.line(), text, "{name} got the left line, in\n{dialogue}");
        }
    }
}

/// A beanstalk peer.
pub struct Beanstalk {
    pub stream: Stream,
}

impl Beanstalk {
    pub fn new(stream: Stream) -> Beanstalk {
        Beanstalk { stream }
    }

    /// Sends a command and returns the line that answers it.
    pub fn ask(&mut self, command: &str) -> String {
        self.stream.send(format!("{command}\r\n"));
        self.stream.line()
    }

    /// Puts a message into the tube in use; returns its id.
    pub fn put(&mut self, body: &str) -> u64 {
        let answer = self.ask(&format!("put 1024 0 60 {}\r\n{body}", body.len()));
        let id = answer.strip_prefix("INSERTED ").unwrap_or_else(|| panic!("{answer}"));
        id.parse().unwrap()
    }

    /// Asks for a message, which is there: its id and body.
    pub fn reserve(&mut self) -> (u64, String) {
        self.ask_for_body("reserve-with-timeout 20")
    }

    /// Sends a command that is answered with a message.
    pub fn ask_for_body(&mut self, command: &str) -> (u64, String) {
        let head = self.ask(command);
        let mut words = head.split(' ').skip(1).map(|word| word.parse::<u64>().unwrap());
        let (Some(id), Some(length)) = (words.next(), words.next()) else {
            panic!("{command}: {head}");
        };
        let mut body = self.stream.exactly(usize::try_from(length).unwrap() + 2);
        assert_eq!(body.split_off(body.len() - 2), b"\r\n");
        (id, String::from_utf8(body).unwrap())
    }

    /// Asks for a document and returns its lines.
    pub fn document(&mut self, command: &str) -> Vec<String> {
        let head = self.ask(command);
        let length = head.strip_prefix("OK ").unwrap_or_else(|| panic!("{command}: {head}"));
        let text = self.stream.exactly(length.parse().unwrap());
        assert_eq!(self.stream.exactly(2), b"\r\n");
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "---");
        lines[1..].to_vec()
    }

    /// One figure of a document.
    pub fn figure(&mut self, command: &str, key: &str) -> String {
        let lines = self.document(command);
        let value = lines.iter().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        value.unwrap_or_else(|| panic!("{command} has no {key}: {lines:?}")).to_owned()
    }

    /// One figure of `stats-tube`, 0 when there is no such tube.
    pub fn tube(&mut self, tube: &str, key: &str) -> u64 {
        let lists = self.document("list-tubes");
        if !lists.contains(&format!("- {tube}")) {
            return 0;
        }
        self.figure(&format!("stats-tube {tube}"), key).parse().unwrap()
    }

    /// One figure of `stats`.
    pub fn server(&mut self, key: &str) -> u64 {
        self.figure("stats", key).parse().unwrap()
    }
}
