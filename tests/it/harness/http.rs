//! A peer that speaks HTTP: a request, and an answer with its status, fields and body.

use serde_json::Value;

use super::{Stream, schema};

pub struct Http {
    pub stream: Stream,
}

/// What a request was answered with.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub fields: Vec<String>,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"));
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let named = self.fields.iter().filter_map(|field| field.split_once(": "));
        named
            .into_iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Http {
    pub fn new(stream: Stream) -> Http {
        Http { stream }
    }

    pub fn get(&mut self, path: &str) -> HttpAnswer {
        self.ask("GET", path, "", b"")
    }

    pub fn delete(&mut self, path: &str) -> HttpAnswer {
        self.ask("DELETE", path, "", b"")
    }

    /// A message's content.
    pub fn put(&mut self, path: &str, body: &[u8]) -> HttpAnswer {
        self.ask("POST", path, "", body)
    }

    /// Members, or nothing.
    pub fn post(&mut self, path: &str, members: &str) -> HttpAnswer {
        self.ask("POST", path, "Content-Type: application/json\r\n", members.as_bytes())
    }

    pub fn ask(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> HttpAnswer {
        self.send(method, path, fields, body);
        let answer = self.answer();
        schema::check(method, path, &answer);
        answer
    }

    pub fn send(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) {
        let length = match (method, body.len()) {
            ("POST", length) => format!("Content-Length: {length}\r\n"),
            _ => String::new(),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n");
        self.stream.send([head.as_bytes(), body].concat());
    }

    pub fn answer(&mut self) -> HttpAnswer {
        let status = self.stream.line();
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.unwrap().parse().unwrap();
        let fields: Vec<String> = std::iter::from_fn(|| Some(self.stream.line()))
            .take_while(|line| !line.is_empty())
            .collect();
        let mut answer = HttpAnswer { status, fields, body: Vec::new() };
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = self.stream.exactly(length);
        answer
    }
}
