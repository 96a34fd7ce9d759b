//! The two halves together: bytes in, requests and answers out; and a corpus of heads that are
//! ambiguous, or only look so.

use std::sync::Arc;

use super::*;
use crate::protocol::wire::testing::{Random, decode_all, decode_in_parts};
use crate::words::clock::Time;
use crate::words::command::{Command, Put, Reply, Request, Requests, Target};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::{LimitValues, Limits};
use crate::words::output::Output;
use crate::words::refusal::Refusal;
use crate::words::statistics::{QueuePage, QueueStatistics};

fn halves() -> Halves {
    let values = LimitValues { max_message_size: 100, ..LimitValues::default() };
    connect(&Setup {
        limits: Arc::new(Limits::new(&values)),
        secret: [0; 16],
        options: Arc::default(),
        is_local_socket: false,
    })
}

/// A reply that the core could give.
fn reply(command: &Command) -> Reply {
    match command {
        Command::Put(_) => Reply::Put(MessageId(17)),
        Command::Echo => Reply::Echo,
        Command::Kick { .. } => Reply::Kicked(3),
        Command::Flush(_) | Command::RemoveQueue { .. } => Reply::Flushed(5),
        Command::Configure { .. } => Reply::Configured,
        Command::Statistics => Reply::Statistics(Box::default()),
        Command::SelectQueues(wanted) => {
            let name = QueueName::new(b"q").unwrap();
            let queues = vec![QueueStatistics::of_none(name)];
            Reply::QueuePage(Box::new(QueuePage { queues, next: wanted.after.clone() }))
        }
        _ => Reply::NotFound,
    }
}

/// What these bytes are answered with, and what was asked for.
fn talk(bytes: &[u8]) -> (String, Vec<Command>) {
    let (mut decoder, mut encoder) = halves();
    let (requests, error) = decode_all(decoder.as_mut(), bytes);
    assert_eq!(error, None);
    let mut out = Output::default();
    let mut commands = Vec::new();
    for Request { tag, command } in requests {
        if command != Command::Quit {
            encoder.reply(&tag, &reply(&command), &mut out);
        }
        commands.push(command);
    }
    (String::from_utf8(out.buffer().clone()).unwrap(), commands)
}

/// The statuses of all answers.
fn statuses(text: &str) -> Vec<&str> {
    let heads = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    // The words may stand in the text of a problem.
    heads.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// The body of an only answer.
fn body(text: &str) -> serde_json::Value {
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

const HOST: &str = "Host: localhost\r\n";

/// A head, and the status of its answer; 400 and 431 close the connection.
#[rustfmt::skip]
const CORPUS: &[(&str, &str)] = &[
    // Requests as they should be.
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    ("GET /healthz HTTP/1.1\r\nhost:localhost\r\n\r\n", "200"),
    ("GET /healthz HTTP/1.0\r\n\r\n", "200"),
    ("\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "204"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Empty:\r\n\r\n", "200"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \tspaced\t \r\n\r\n", "200"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "201"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 003\r\n\r\nabc", "201"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "201"),
    // First lines.
    (" GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz  HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz\r\n\r\n", "400"),
    ("GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", "400"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.10\r\nHost: localhost\r\n\r\n", "400"),
    ("GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz#x HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /v1\\status HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /gr\u{f6}\u{df}e HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ("\u{16}\u{3}\u{1}", "400"),
    ("TRACE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
    // Line ends.
    ("GET /healthz HTTP/1.1\nHost: localhost\n\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", "400"),
    // Fields.
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\n X: a\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost\t: localhost\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX Y: z\r\n\r\n", "400"),
    // Hosts.
    ("GET /healthz HTTP/1.1\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost, evil\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", "400"),
    ("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
    // Lengths.
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3, 3\r\n\r\nabc", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: +3\r\n\r\nabc", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x3\r\n\r\nabc", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3 3\r\n\r\nabc", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n", "413"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n", "413"),
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", "422"),
    // Chunks.
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "413"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n", "400"),
    // Others.
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx", "400"),
    ("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "415"),
    ("POST /v1/queues/q/kick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", "415"),
];

#[test]
fn each_head_of_the_corpus_has_its_answer_and_an_ambiguous_one_is_the_last() {
    assert!(CORPUS.len() >= 40);
    for (head, status) in CORPUS {
        // What follows would be another request, if it were taken for one.
        let follows = format!("{head}GET /readyz HTTP/1.1\r\n{HOST}\r\n");
        let (text, commands) = talk(follows.as_bytes());
        let answers = statuses(&text);
        assert_eq!(answers.first(), Some(status), "{head:?}: {text}");
        let ends = ["400", "413", "431"].contains(status) || text.contains("Connection: close");
        assert_eq!(answers.len(), if ends { 1 } else { 2 }, "{head:?}: {text}");
        if ["400", "413"].contains(status) {
            assert_eq!(commands, [Command::Echo], "{head:?}");
            assert!(text.contains("\r\nConnection: close\r\n"), "{head:?}");
        }
    }
}

#[test]
fn how_the_bytes_are_cut_changes_nothing() {
    let mut random = Random::announced();
    let valid = "POST /v1/queues/q/messages?priority=7 HTTP/1.1\r\nHost: localhost\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: x\r\n\r\n\
        DELETE /v1/messages/5 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let all: Vec<String> = CORPUS
        .iter()
        .map(|(head, _)| format!("{valid}{head}{valid}"))
        .chain([valid.repeat(100)])
        .collect();
    for text in all {
        let whole = decode_all(halves().0.as_mut(), text.as_bytes());
        for _ in 0..3 {
            let parts = decode_in_parts(halves().0.as_mut(), text.as_bytes(), &mut random);
            assert_eq!(whole, parts, "{text:?}");
        }
        let mut decoder = halves().0;
        let mut found = Vec::new();
        for byte in text.as_bytes() {
            let mut requests = Requests::default();
            assert_eq!(decoder.decode(Time(0), &[*byte], &mut requests), Ok(1));
            found.extend(requests.take());
            if matches!(found.last(), Some(Request { command: Command::Quit, .. })) {
                break;
            }
        }
        assert_eq!(whole.0, found, "{text:?}");
    }
}

#[test]
fn a_request_whose_commands_do_not_fit_into_a_batch_keeps_its_last_byte_until_the_next() {
    let get = format!("GET /healthz HTTP/1.1\r\n{HOST}\r\n");
    let delete = format!("DELETE /v1/messages/5 HTTP/1.1\r\n{HOST}\r\n");
    let bytes = (get.repeat(255) + &delete).into_bytes();
    let (mut decoder, mut requests) = (halves().0, Requests::default());
    // Nobody would come for the second command if all bytes had been taken.
    assert_eq!(decoder.decode(Time(0), &bytes, &mut requests), Ok(bytes.len() - 1));
    assert!(requests.is_full());
    assert_eq!(requests.take().last().unwrap().command, Command::Remove(MessageId(5)));
    assert_eq!(decoder.decode(Time(0), &bytes[bytes.len() - 1..], &mut requests), Ok(1));
    assert_eq!(requests.take()[0].command, Command::MessageStatistics(MessageId(5)));
}

#[test]
fn changed_bytes_are_decoded_the_same_however_they_are_cut() {
    let mut random = Random::announced();
    for _ in 0..4_000 {
        let (head, _) = CORPUS[random.below(CORPUS.len())];
        let mut bytes = [head.as_bytes(), b"2\r\nab\r\n0\r\n\r\n", head.as_bytes()].concat();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = b"\r\n :;0a\0,"[random.below(9)],
                1 => bytes.insert(at, b"\r\n :;0a\0,"[random.below(9)]),
                2 => _ = bytes.remove(at),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        let whole = decode_all(halves().0.as_mut(), &bytes);
        let parts = decode_in_parts(halves().0.as_mut(), &bytes, &mut random);
        assert_eq!(whole, parts, "{}", bytes.escape_ascii());
        let mut encoder = halves().1;
        let mut out = Output::default();
        for Request { tag, command } in whole.0.iter().filter(|r| r.command != Command::Quit) {
            encoder.reply(tag, &reply(command), &mut out);
        }
    }
}

#[test]
fn a_message_is_put_with_what_the_query_says() {
    let text = "POST /v1/queues/a%2Fb/messages?priority=7&delay=5s&ttl=1h&time_to_run=30s\
        &durability=sync&attribute.kind=x%20y HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    let (answer, commands) = talk(text.as_bytes());
    let mut put = Put::new(Target::Named(QueueName::new(b"a/b").unwrap()), b"hello".to_vec());
    (put.priority, put.delay_ms) = (Some(7), 5_000);
    (put.time_to_run_ms, put.time_to_live_ms) = (Some(30_000), Some(3_600_000));
    put.attributes.push("content-type", b"text/plain");
    put.attributes.push("kind", b"x y");
    assert_eq!(commands, [Command::Put(put)]);
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("\r\nLocation: /v1/messages/17\r\n"), "{answer}");
    let expected = serde_json::json!({"id": "17", "queue": "a/b", "state": "delayed"});
    assert_eq!(body(&answer), expected);
}

#[test]
fn the_level_that_a_request_wants_comes_with_its_tag() {
    use crate::words::durability::Durability;
    for (query, level) in [
        ("", None),
        ("?durability=write", Some(Durability::Write)),
        ("?durability=sync", Some(Durability::Sync)),
    ] {
        let text = format!("DELETE /v1/messages/1{query} HTTP/1.1\r\n{HOST}\r\n");
        let (mut decoder, encoder) = halves();
        let (requests, _) = decode_all(decoder.as_mut(), text.as_bytes());
        assert_eq!(encoder.durability(&requests[0].tag), level, "{query}");
    }
}

#[test]
fn requests_in_one_go_are_answered_in_their_order() {
    let text = format!(
        "GET /healthz HTTP/1.1\r\n{HOST}\r\nGET /nothing HTTP/1.1\r\n{HOST}\r\n\
         HEAD /healthz HTTP/1.1\r\n{HOST}\r\nPUT /healthz HTTP/1.1\r\n{HOST}\r\n\
         GET /v1/events HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    );
    let (answer, commands) = talk(text.as_bytes());
    assert_eq!(statuses(&answer), ["200", "404", "200", "405", "501"]);
    assert_eq!(commands.last(), Some(&Command::Quit));
    assert!(answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{answer}");
    // The length without the body.
    assert!(answer.contains("Content-Length: 12\r\n"), "{answer}");
    assert_eq!(answer.matches("{\"ok\":true}").count(), 1);
}

#[test]
fn a_connection_of_the_old_version_goes_on_only_if_it_is_asked_for() {
    let (answer, commands) = talk(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(commands, [Command::Echo, Command::Quit]);
    let (answer, commands) = talk(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(answer.contains("\r\nConnection: keep-alive\r\n"), "{answer}");
    assert_eq!(commands, [Command::Echo]);
}

#[test]
fn who_waits_for_leave_gets_it_and_not_for_what_is_too_large() {
    let head = "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    let (answer, commands) = talk(format!("{head}Content-Length: 3\r\n\r\n").as_bytes());
    assert_eq!(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(commands, [Command::Echo]);
    let (answer, _) = talk(format!("{head}Content-Length: 3\r\n\r\nabc").as_bytes());
    assert_eq!(statuses(&answer), ["100", "201"]);
    let (answer, _) = talk(format!("{head}Content-Length: 101\r\n\r\n").as_bytes());
    assert_eq!(statuses(&answer), ["413"]);
    assert!(answer.contains("\"limit\":100"), "{answer}");
}

#[test]
fn limits_of_the_head_are_kept() {
    let with = |fields: &str| format!("GET /healthz HTTP/1.1\r\n{HOST}{fields}\r\n");
    let (answer, _) = talk(with(&"X: y\r\n".repeat(FIELDS_MAX - 1)).as_bytes());
    assert_eq!(statuses(&answer), ["200"]);
    let (answer, _) = talk(with(&"X: y\r\n".repeat(FIELDS_MAX)).as_bytes());
    assert_eq!(statuses(&answer), ["431"]);
    let (answer, _) = talk(with(&format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX))).as_bytes());
    assert_eq!(statuses(&answer), ["431"]);
    let path = "a".repeat(PATH_BYTES_MAX);
    let (answer, _) = talk(format!("GET /{path} HTTP/1.1\r\n{HOST}\r\n").as_bytes());
    assert_eq!(statuses(&answer), ["431"]);
}

#[test]
fn queues_are_asked_for_a_page_at_a_time() {
    use crate::words::change::MessageState::{Buried, Ready};
    use crate::words::statistics::{QueueOrder, QueuePlace, QueueSelection};
    let get =
        |query: &str| talk(format!("GET /v1/queues{query} HTTP/1.1\r\n{HOST}\r\n").as_bytes());
    let place = QueuePlace { key: 5, name: QueueName::new(b"q").unwrap() };
    let cursor = super::cursor::write(&place);
    let (answer, commands) =
        get(&format!("?name=m*&has=ready,buried&sort=-oldest&limit=7&cursor={cursor}"));
    let wanted = QueueSelection {
        pattern: Some("m*".into()),
        has: vec![Ready, Buried],
        order: QueueOrder::Oldest,
        after: Some(place.clone()),
        count: 7,
    };
    assert_eq!(commands, [Command::SelectQueues(Box::new(wanted))]);
    assert_eq!(body(&answer)["next"], cursor);
    assert_eq!(body(&answer)["items"][0]["holders"], serde_json::Value::Null);
    for query in ["?sort=ready", "?has=read", "?limit=0", "?limit=1001", "?cursor=x", "?nam=x"] {
        assert_eq!(body(&get(query).0)["code"], "bad_parameter", "{query}");
    }
    let page = QueuePage { queues: Vec::new(), next: None };
    assert_eq!(super::render::queues(&page)["next"], serde_json::Value::Null);
}

#[test]
fn what_the_core_refuses_is_a_problem_of_its_code() {
    let (mut decoder, mut encoder) = halves();
    let text =
        "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let (requests, _) = decode_all(decoder.as_mut(), text.as_bytes());
    for (refusal, status, code) in [
        (Refusal::Draining, "503", "draining"),
        (Refusal::OutOfMemory, "503", "out_of_memory"),
        (Refusal::QueueFull, "429", "queue_full"),
        (Refusal::OutcomeUnknown, "504", "outcome_unknown"),
        (Refusal::TooManyQueues, "507", "too_many_queues"),
    ] {
        let mut out = Output::default();
        encoder.reply(&requests[0].tag, &Reply::Refused(refusal), &mut out);
        let answer = String::from_utf8(out.buffer().clone()).unwrap();
        assert_eq!(statuses(&answer), [status]);
        assert_eq!(body(&answer)["code"], code);
    }
}

#[test]
fn a_body_that_finds_no_room_is_refused_and_what_comes_of_it_is_dropped() {
    let (mut decoder, mut encoder) = halves();
    let text =
        "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nabc";
    assert_eq!(decode_all(decoder.as_mut(), text.as_bytes()), (vec![], None));
    assert!(decoder.pending_bytes() > 0 && decoder.has_more());
    let mut requests = Requests::default();
    decoder.refuse(Refusal::OutOfMemory, &mut requests);
    let [Request { tag, command: Command::Echo }] = &requests.take()[..] else { panic!() };
    let mut out = Output::default();
    encoder.reply(tag, &Reply::Echo, &mut out);
    assert!(out.buffer().starts_with(b"HTTP/1.1 503 "));
    assert_eq!(decode_all(decoder.as_mut(), &[b'x'; 200]), (vec![], None));
    assert_eq!(decoder.pending_bytes(), 0);
    let due = decoder.next_tick().unwrap();
    decoder.tick(due, &mut requests).unwrap();
    assert_eq!(requests.take()[0].command, Command::Quit);
}

#[test]
fn a_request_that_is_not_whole_in_time_is_told_so() {
    let (mut decoder, mut encoder) = halves();
    assert_eq!(decode_all(decoder.as_mut(), b"GET /healthz HT"), (vec![], None));
    let mut requests = Requests::default();
    decoder.run_out_of_time(&mut requests);
    let mut out = Output::default();
    encoder.reply(&requests.take()[0].tag, &Reply::Echo, &mut out);
    assert!(out.buffer().starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn a_call_says_what_is_wrong_with_its_members() {
    let post = |path: &str, members: &str| {
        let length = members.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\n{HOST}Content-Type: application/json; charset=utf-8\r\n\
             Content-Length: {length}\r\n\r\n{members}"
        );
        let (answer, commands) = talk(text.as_bytes());
        (statuses(&answer)[0].to_owned(), body(&answer), commands)
    };
    let (status, said, commands) = post("/v1/queues/q/kick", "{\"max\":3}");
    assert_eq!((status.as_str(), &said["kicked"]), ("200", &3.into()));
    let queue = Target::Named(QueueName::new(b"q").unwrap());
    assert_eq!(commands, [Command::Kick { queue, count: 3 }]);
    for (path, body, status, code) in [
        ("/v1/queues/q/kick", "{\"max\":\"3\"}", "422", "invalid"),
        ("/v1/queues/q/kick", "{\"maximum\":3}", "422", "invalid"),
        ("/v1/queues/q/kick", "{max:3}", "400", "bad_json"),
        ("/v1/queues/q/kick", "[]", "400", "bad_json"),
        ("/v1/queues/q/kick?max=3", "{}", "400", "bad_parameter"),
        ("/v1/queues/q/kick", "{\"states\":[\"buried\"]}", "501", "not_supported"),
        ("/v1/queues/%00/kick", "{}", "422", "bad_name"),
        ("/v1/messages/x/kick", "{}", "404", "message_not_found"),
        ("/v1/messages/5/kick", "{}", "404", "message_not_found"),
        ("/v1/queues/q/pause", "{\"for_ms\":5}", "404", "queue_not_found"),
    ] {
        let (is, said, _) = post(path, body);
        assert_eq!((is.as_str(), &said["code"]), (status, &code.into()), "{path} {body}");
    }
    let (status, said, _) = post("/v1/queues/q/pause", "{}");
    assert_eq!((status.as_str(), &said["name"]), ("200", &"q".into()));
}
