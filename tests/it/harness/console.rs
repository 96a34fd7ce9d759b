//! A console peer in plain mode: each answer is some lines and an empty one.

use super::Stream;

pub struct Console {
    pub stream: Stream,
}

impl Console {
    /// Says `plain` and takes the daemon's first words.
    pub fn plain(mut stream: Stream) -> Console {
        stream.send("plain\n");
        let mut console = Console { stream };
        let answer = console.answer();
        assert!(answer[0].starts_with("phpmqd "), "{answer:?}");
        console
    }

    /// Sends a command and returns its answer's lines.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.stream.send(format!("{command}\n"));
        self.answer()
    }

    /// The lines up to the next empty one.
    pub fn answer(&mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| Some(self.stream.line()));
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// One figure of `status`.
    pub fn figure(&mut self, name: &str) -> String {
        let lines = self.ask("status");
        let value = lines.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        value.unwrap_or_else(|| panic!("no {name} in {lines:?}")).to_owned()
    }

    /// The same as a number.
    pub fn number(&mut self, name: &str) -> u64 {
        self.figure(name).parse().unwrap()
    }
}
