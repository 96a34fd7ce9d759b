//! Answers into bytes.
//!
//! What a request wants to be told came with its tag. Some calls take two commands and have one
//! answer: what the first reply said is kept until the second is there, which follows directly.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::note::{Answer, ContentType, Done, Note, Say, Wishes};
use super::problem::{Code, Problem};
use super::render;
use crate::protocol::Encoder;
use crate::words::command::{Delivery, Reply, Tag};
use crate::words::durability::Durability;
use crate::words::ids::QueueName;
use crate::words::output::Output;
use crate::words::refusal::Refusal;
use crate::words::statistics::{MessageStatistics, QueueStatistics};

/// The writing half of a connection.
#[derive(Debug, Default)]
pub(super) struct HttpEncoder {
    first: First,
    /// The head under way, kept for its allocation.
    head: String,
}

/// What the first of two replies said.
#[derive(Debug, Default)]
enum First {
    /// Nothing that the second needs.
    #[default]
    Nothing,
    /// It was done, and the second reply shows that.
    Changed,
    /// It has been answered.
    Answered,
    /// A message's figures.
    Figures(Box<MessageStatistics>),
}

impl Encoder for HttpEncoder {
    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output) {
        let Some(Note { say, wishes }) = Note::of(tag) else {
            debug_assert!(false, "a reply without a note: {reply:?}");
            return;
        };
        match reply {
            // Said in the place of an answer that has been written before, so what was said by the
            // replies since then stays.
            Reply::Refused(refusal @ Refusal::OutcomeUnknown) => {
                self.problem(&Problem::of(*refusal), wishes, out);
            }
            Reply::Refused(refusal) => {
                self.first = First::Answered;
                self.problem(&Problem::of(*refusal), wishes, out);
            }
            _ => self.say(say, reply, wishes, out),
        }
    }

    fn deliver(&mut self, tag: &Tag, delivery: &Delivery<'_>, out: &mut Output) {
        let Some(Note { say, wishes }) = Note::of(tag) else { return };
        match (say, std::mem::take(&mut self.first)) {
            (Say::Message, First::Figures(figures)) => {
                self.json(200, &render::message(&figures, delivery), wishes, out);
            }
            _ => self.content(delivery, wishes, out),
        }
    }

    fn durability(&self, tag: &Tag) -> Option<Durability> {
        Note::wishes_of(tag).durability
    }

    fn promises(&self, tag: &Tag) -> bool {
        Note::promises(tag)
    }
}

impl HttpEncoder {
    fn say(&mut self, say: Say, reply: &Reply, wishes: Wishes, out: &mut Output) {
        match (say, reply) {
            (Say::Answer(answer), _) => self.answer(&answer, wishes, out),
            (Say::Continue, _) => {
                out.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            (Say::Health, _) => self.json(200, &json!({"ok": true}), wishes, out),
            (Say::Readiness, Reply::Statistics(figures)) => {
                let reasons = render::reasons(figures);
                let status = if reasons.is_empty() { 200 } else { 503 };
                let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
                self.json(status, &body, wishes, out);
            }
            (Say::Status, Reply::Statistics(figures)) => {
                self.json(200, &render::status(figures), wishes, out);
            }
            (Say::First, Reply::Configured | Reply::Paused) => self.first = First::Changed,
            (Say::First, _) => {}
            (Say::ChangedQueue(name), reply) => self.changed_queue(&name, reply, wishes, out),
            (Say::Queues, Reply::QueuePage(page)) => {
                self.json(200, &render::queues(page), wishes, out);
            }
            (Say::Queue, Reply::QueueStatistics(figures)) => {
                self.json(200, &render::queue(figures), wishes, out);
            }
            (Say::Put { queue, is_delayed }, Reply::Put(id)) => {
                let state = if is_delayed { "delayed" } else { "ready" };
                // Said for every message, so not by way of a tree of values.
                let name = serde_json::to_string(&queue).unwrap_or_default();
                let body = format!("{{\"id\":\"{id}\",\"queue\":{name},\"state\":\"{state}\"}}\n");
                let mut answer = Answer::new(201, ContentType::Json, body);
                answer.fields = format!("Location: /v1/messages/{id}\r\n");
                self.answer(&answer, wishes, out);
            }
            (Say::Kicked, Reply::Kicked(count)) => {
                self.json(200, &json!({"kicked": count}), wishes, out);
            }
            (Say::Removed, Reply::Flushed(count)) => {
                self.json(200, &json!({"removed": count}), wishes, out);
            }
            (Say::WouldRemove, Reply::QueueStatistics(figures)) => {
                let body = json!({"removed": figures.messages.total(), "dry_run": true});
                self.json(200, &body, wishes, out);
            }
            (Say::Figures, Reply::MessageStatistics(figures)) => {
                self.first = First::Figures(figures.clone());
            }
            (Say::Figures, _) => self.first = First::Nothing,
            (Say::Done(done), reply) => self.done(done, reply, wishes, out),
            (Say::WhyNot, reply) => self.why_not(reply, wishes, out),
            (say, Reply::NotFound) => self.not_found(&say, wishes, out),
            (say, reply) => {
                debug_assert!(false, "{say:?} has no words for {reply:?}");
                let problem = Problem::new(Code::Internal, "the reply is none of this call's");
                self.problem(&problem, wishes, out);
            }
        }
    }

    /// What was done with a message; what was not done is answered by the next reply.
    fn done(&mut self, done: Done, reply: &Reply, wishes: Wishes, out: &mut Output) {
        let body = match (done, reply) {
            (Done::Removed, Reply::Removed) => json!({"removed": 1}),
            (Done::Kicked, Reply::KickedOne) => json!({"state": "ready"}),
            (Done::Buried, Reply::Buried) => json!({"state": "buried"}),
            _ => {
                self.first = First::Nothing;
                return;
            }
        };
        self.first = First::Answered;
        self.json(200, &body, wishes, out);
    }

    fn why_not(&mut self, reply: &Reply, wishes: Wishes, out: &mut Output) {
        match (std::mem::take(&mut self.first), reply) {
            (First::Answered, _) => {}
            (_, Reply::MessageStatistics(figures)) => {
                let state = render::state(figures.state);
                let text = format!("this cannot be done with a message that is {state}");
                let problem = Problem::new(Code::WrongState, text).with("state", state);
                self.problem(&problem, wishes, out);
            }
            _ => self.not_found(&Say::WhyNot, wishes, out),
        }
    }

    fn changed_queue(&mut self, name: &str, reply: &Reply, wishes: Wishes, out: &mut Output) {
        match (std::mem::take(&mut self.first), reply) {
            (First::Answered, _) => {}
            (_, Reply::QueueStatistics(figures)) => {
                self.json(200, &render::queue(figures), wishes, out);
            }
            // An empty queue goes with the last thing that was set of it.
            (First::Changed, _) if QueueName::new(name.as_bytes()).is_ok() => {
                if let Ok(name) = QueueName::new(name.as_bytes()) {
                    let figures = QueueStatistics::of_none(name);
                    self.json(200, &render::queue(&figures), wishes, out);
                }
            }
            _ => self.not_found(&Say::Queue, wishes, out),
        }
    }

    fn not_found(&mut self, say: &Say, wishes: Wishes, out: &mut Output) {
        let problem = match say {
            Say::Figures | Say::Message | Say::Content | Say::WhyNot => {
                Problem::new(Code::MessageNotFound, "there is no message with this id")
            }
            _ => Problem::new(Code::QueueNotFound, "there is no queue of this name"),
        };
        self.problem(&problem, wishes, out);
    }

    /// A message's bytes, to be saved and never to be shown as a page of this server.
    fn content(&mut self, delivery: &Delivery<'_>, wishes: Wishes, out: &mut Output) {
        let fields = "Content-Disposition: attachment\r\n";
        let head = Head { status: 200, content_type: "application/octet-stream", fields };
        self.head(&head, delivery.body.len(), wishes, out);
        if !wishes.head_only {
            out.body(delivery.body);
        }
    }

    fn problem(&mut self, problem: &Problem, wishes: Wishes, out: &mut Output) {
        self.answer(&problem.answer(), wishes, out);
    }

    fn json(&mut self, status: u16, body: &Value, wishes: Wishes, out: &mut Output) {
        let answer = self.answer_of(status, body);
        self.answer(&answer, wishes, out);
    }

    fn answer_of(&self, status: u16, body: &Value) -> Answer {
        let mut body = body.to_string();
        body.push('\n');
        Answer::new(status, ContentType::Json, body)
    }

    fn answer(&mut self, answer: &Answer, wishes: Wishes, out: &mut Output) {
        let Answer { status, content_type, fields, body } = answer;
        let head = Head { status: *status, content_type: content_type.text(), fields };
        self.head(&head, body.len(), wishes, out);
        if !wishes.head_only {
            out.buffer().extend_from_slice(body);
        }
    }

    fn head(&mut self, head: &Head<'_>, body_bytes: usize, wishes: Wishes, out: &mut Output) {
        let Head { status, content_type, fields } = head;
        self.head.clear();
        let text = &mut self.head;
        // Writing to a text does not fail.
        let _ = write!(text, "HTTP/1.1 {status} {}\r\n", reason(*status));
        if *status != NO_CONTENT {
            let _ =
                write!(text, "Content-Type: {content_type}\r\nContent-Length: {body_bytes}\r\n");
        }
        text.push_str(USUAL_FIELDS);
        text.push_str(fields);
        if wishes.closes {
            text.push_str("Connection: close\r\n");
        } else if wishes.tells_keep_alive {
            text.push_str("Connection: keep-alive\r\n");
        }
        text.push_str("\r\n");
        out.buffer().extend_from_slice(text.as_bytes());
    }
}

/// What differs from head to head.
struct Head<'a> {
    status: u16,
    content_type: &'a str,
    fields: &'a str,
}

/// An answer that has no body, and says so by that.
pub(super) const NO_CONTENT: u16 = 204;

/// What every answer has.
const USUAL_FIELDS: &str = "Cache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'\r\n";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        // Invariant: a test looks at the statuses of all codes.
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_words() {
        for status in Code::ALL.iter().map(|code| code.status()).chain([200, 201, 204]) {
            assert_ne!(reason(status), "Other", "{status}");
        }
    }
}
