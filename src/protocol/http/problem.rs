//! Everything that can be wrong with a request or its fulfilment, as RFC 9457 has it: one closed
//! table of codes, each with its status and its words.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::note::{Answer, ContentType};
use crate::words::refusal::Refusal;

/// Makes the codes, the list of them and what is said of each, so that none lacks anything.
macro_rules! codes {
    ($($name:ident $status:literal $word:literal $title:literal $text:literal;)*) => {
        /// What can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code { $($name,)* }

        impl Code {
            /// All codes.
            pub(super) const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// As programs compare it.
            pub(super) fn word(self) -> &'static str {
                match self { $(Code::$name => $word,)* }
            }

            /// The status of an answer with it.
            pub(super) fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// In a few words.
            fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }

            /// What to do about it.
            fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    BadHttp 400 "bad_http" "Not HTTP, or ambiguous"
        "The request can be read in more than one way, or in none. The connection is closed: where \
         the next request begins is not certain.";
    BadJson 400 "bad_json" "Not JSON"
        "The body is not one JSON object in UTF-8, or is nested too deep. \"at\" says where.";
    BadParameter 400 "bad_parameter" "Bad query parameter"
        "A parameter behind the question mark is unknown, is there twice, or has a value that it \
         cannot have. \"name\" is which.";
    CrossOrigin 403 "cross_origin" "Another site's page"
        "A browser says that a page of another site has sent this. It is refused, since its user \
         may know nothing of it.";
    NoSuchPath 404 "no_such_path" "No such path"
        "Nothing has this path. phpmq-http(7) lists all paths.";
    QueueNotFound 404 "queue_not_found" "No such queue"
        "There is no queue of this name. A queue comes into being with its first message or \
         consumer, and goes with the last one.";
    MessageNotFound 404 "message_not_found" "No such message"
        "There is no message with this id: it is done, has expired, or never was.";
    MethodNotAllowed 405 "method_not_allowed" "No such method here"
        "The path has other methods: the Allow field has them.";
    RequestTimeout 408 "request_timeout" "The request took too long"
        "The request was not whole within limits.frame_timeout. The connection is closed.";
    WrongState 409 "wrong_state" "Not in this state"
        "The message is there, but in a state in which this cannot be done. \"state\" is which.";
    NotEmpty 409 "not_empty" "The queue is not empty"
        "The queue holds messages, and what was asked for would remove them. With if=any it does.";
    TooLarge 413 "too_large" "Too large"
        "The body is larger than what is taken. \"limit\" is the largest, in bytes, and \"key\" what \
         sets it, if it can be set. The connection is closed.";
    UnsupportedMediaType 415 "unsupported_media_type" "Not this type"
        "This path takes application/json, and no coding of the content. With curl: --json.";
    WrongHost 421 "wrong_host" "Not this server's name"
        "The Host field is neither a loopback name, nor an address, nor one of the names in the \
         listener's hosts (phpmqd.toml(5)). So a web page cannot make its own name mean this server.";
    Invalid 422 "invalid" "Invalid members"
        "The JSON can be read, but does not say what it should. \"errors\" lists where and why.";
    BadName 422 "bad_name" "Not a queue's name"
        "A queue's name is 1 to 200 bytes of UTF-8 without control characters, percent-encoded in a \
         path. One that is . or .. or begins with = is written = and base64url.";
    QueueFull 429 "queue_full" "The queue is full"
        "The queue holds as many messages as its operator allows.";
    HeadTooLarge 431 "head_too_large" "The head is too large"
        "A head has at most 16 KiB and 64 fields, a path at most 2 KiB. The connection is closed.";
    Internal 500 "internal" "A mistake of the server"
        "The server has not done what it should. Its log may say more.";
    NotSupported 501 "not_supported" "Not supported"
        "This server knows what is meant and does not do it.";
    Draining 503 "draining" "Draining"
        "The server takes no new messages, as its operator wants. Nothing was done.";
    OutOfMemory 503 "out_of_memory" "Out of memory"
        "limits.max_memory is reached. Nothing was done; there may be room later.";
    StoreUnavailable 503 "store_unavailable" "The disk takes nothing"
        "New messages cannot be written to the disk. Nothing was done.";
    TooManyConnections 503 "too_many_connections" "Too many connections"
        "limits.max_connections or limits.max_connections_per_peer is reached.";
    OutcomeUnknown 504 "outcome_unknown" "Outcome unknown"
        "The disk did not take it within storage.commit_timeout: it may have been done.";
    TooManyQueues 507 "too_many_queues" "Too many queues"
        "limits.max_queues is reached. Nothing was done.";
    OutOfIds 507 "out_of_ids" "Out of ids"
        "All message ids have been used.";
}

impl Code {
    /// The code that is written so.
    pub(super) fn of(word: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.word() == word)
    }

    /// What is said of it to whoever asks.
    pub(super) fn page(self) -> Answer {
        let (word, title, text) = (self.word(), self.title(), self.text());
        let body = format!("{word} (status {})\n{title}.\n\n{text}\n", self.status());
        Answer::new(200, ContentType::Text, body)
    }

    /// Whether the connection is closed behind an answer with it.
    pub(super) fn closes(self) -> bool {
        matches!(self, Code::BadHttp | Code::RequestTimeout | Code::TooLarge | Code::HeadTooLarge)
    }

    /// Whether nothing was done and trying again later may help.
    fn may_pass(self) -> bool {
        matches!(self.status(), 429 | 503)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) code: Code,
    /// For people: one sentence.
    detail: Cow<'static, str>,
    /// What is said beside the usual members.
    extra: Vec<(&'static str, Value)>,
    /// The methods that the path has.
    allow: Option<String>,
}

impl Problem {
    /// A problem with this code.
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { code, detail: detail.into(), extra: Vec::new(), allow: None }
    }

    /// With one member more.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Problem {
        self.extra.push((name, value.into()));
        self
    }

    /// A request that is none, or more than one.
    pub(super) fn bad_http(detail: &'static str) -> Problem {
        Problem::new(Code::BadHttp, detail)
    }

    /// A head or path that is too long.
    pub(super) fn too_large_head(detail: &'static str) -> Problem {
        Problem::new(Code::HeadTooLarge, detail)
    }

    /// A body that is too long.
    pub(super) fn too_large(limit: usize) -> Problem {
        let detail = format!("the body is longer than {limit} bytes");
        Problem::new(Code::TooLarge, detail).with("limit", limit)
    }

    /// A parameter of the query that cannot be so.
    pub(super) fn parameter(name: &str, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Code::BadParameter, detail).with("name", name)
    }

    /// A path that has other methods.
    pub(super) fn not_allowed(allow: String) -> Problem {
        let detail = format!("the path has {allow}");
        Problem { allow: Some(allow), ..Problem::new(Code::MethodNotAllowed, detail) }
    }

    /// What the core refuses.
    pub(super) fn of(refusal: Refusal) -> Problem {
        let code = match refusal {
            Refusal::Draining => Code::Draining,
            Refusal::OutOfMemory => Code::OutOfMemory,
            Refusal::TooLarge => Code::TooLarge,
            Refusal::StoreUnavailable => Code::StoreUnavailable,
            Refusal::OutcomeUnknown => Code::OutcomeUnknown,
            Refusal::TooManyQueues => Code::TooManyQueues,
            Refusal::OutOfIds => Code::OutOfIds,
            Refusal::QueueFull => Code::QueueFull,
            Refusal::NotEmpty => Code::NotEmpty,
            // No call asks for what these are said of.
            Refusal::LastQueue | Refusal::NotHeld | Refusal::TooMuchTogether | Refusal::Holding => {
                Code::Internal
            }
        };
        Problem::new(code, refusal.to_string())
    }

    /// As it is sent.
    pub(super) fn answer(&self) -> Answer {
        let word = self.code.word();
        let mut members = Map::new();
        members.insert("type".to_owned(), format!("/v1/problems/{word}").into());
        members.insert("title".to_owned(), self.code.title().into());
        members.insert("status".to_owned(), self.code.status().into());
        members.insert("detail".to_owned(), (*self.detail).into());
        members.insert("code".to_owned(), word.into());
        for (name, value) in &self.extra {
            members.insert((*name).to_owned(), value.clone());
        }
        let mut body = Value::Object(members).to_string();
        body.push('\n');
        let mut answer = Answer::new(self.code.status(), ContentType::Problem, body);
        if let Some(allow) = &self.allow {
            answer.fields += &format!("Allow: {allow}\r\n");
        }
        if self.code.may_pass() {
            answer.fields += "Retry-After: 1\r\n";
        }
        answer
    }
}

/// One member of a JSON body that is not as it should be.
pub(super) fn error(at: &str, text: &str) -> Value {
    json!({"at": at, "text": text})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_words_of_its_own_and_a_page() {
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::of(code.word()), Some(*code));
            assert!(Code::ALL.iter().skip(at + 1).all(|other| other.word() != code.word()));
            assert!(code.page().body.starts_with(code.word().as_bytes()));
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn a_problem_says_what_programs_and_people_need() {
        let problem = Problem::parameter("delay", "this is no duration");
        let answer = problem.answer();
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            value,
            json!({"type": "/v1/problems/bad_parameter", "title": "Bad query parameter",
                "status": 400, "detail": "this is no duration", "code": "bad_parameter",
                "name": "delay"})
        );
        assert_eq!(Problem::of(Refusal::Draining).answer().fields, "Retry-After: 1\r\n");
        assert_eq!(Problem::not_allowed("GET".to_owned()).answer().fields, "Allow: GET\r\n");
    }

    #[test]
    fn who_is_one_connection_too_many_is_told_in_the_same_words() {
        let text = std::str::from_utf8(super::super::PROTOCOL.too_many_connections).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
        let said: Value = serde_json::from_str(body).unwrap();
        let answer = Problem::new(Code::TooManyConnections, "try again later").answer();
        let usual: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(said, usual);
    }
}
