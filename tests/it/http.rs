//! The HTTP interface: what is put there is worked elsewhere, what is done elsewhere is seen there,
//! and nothing that could be taken for two requests gets through.

use rustix::process::Signal;

use crate::harness::{Http, Server, Setup, Stream, eventually, over_both};

over_both! {
    fn a_message_put_over_http_is_worked_by_another_protocol(transport) {
        let server = Server::on(transport);
        let mut http = server.http();
        let answer = http.put("/v1/queues/mail/messages?priority=7", b"hello");
        assert_eq!((answer.status, answer.field("location")), (201, Some("/v1/messages/1")));
        assert_eq!(answer.json()["state"], "ready");
        let mut worker = server.beanstalk();
        worker.stream.send("watch mail\r\nreserve\r\n");
        assert_eq!(worker.stream.line(), "WATCHING 2");
        assert_eq!(worker.stream.line(), "RESERVED 1 5");
        assert_eq!(worker.stream.line(), "hello");
        let queue = http.get("/v1/queues/mail").json();
        assert_eq!(queue["messages"]["reserved"], 1);
        assert_eq!((&queue["consumers"], &queue["body_bytes"]), (&1.into(), &5.into()));
        let holder = &queue["holders"][0];
        assert_eq!((&holder["id"], &holder["protocol"]), (&"1".into(), &"beanstalk".into()));
        assert!(holder["until_at"].is_string(), "{holder}");
        // Nobody takes it from its holder.
        assert_eq!(http.delete("/v1/messages/1").code(), "wrong_state");
        worker.stream.send("delete 1\r\n");
        assert_eq!(worker.stream.line(), "DELETED");
        assert_eq!(http.delete("/v1/messages/1").code(), "message_not_found");
    }

    fn a_message_is_seen_whole_in_every_state(transport) {
        let server = Server::on(transport);
        let mut http = server.http();
        let put = "/v1/queues/q/messages?delay=1h&ttl=2h&attribute.kind=invoice";
        let answer = http.ask("POST", put, "Content-Type: text/plain\r\n", b"gr\xc3\xb6\xc3\x9fe");
        assert_eq!(answer.json()["state"], "delayed");
        let message = http.get("/v1/messages/1").json();
        assert_eq!((&message["state"], &message["body"]), (&"delayed".into(), &"größe".into()));
        assert!(message["due_at"].is_string() && message["expires_at"].is_string(), "{message}");
        let attributes = serde_json::json!([
            {"name": "content-type", "value": "text/plain"}, {"name": "kind", "value": "invoice"}
        ]);
        assert_eq!(message["attributes"], attributes);
        assert_eq!(http.post("/v1/messages/1/bury", "").json()["state"], "buried");
        assert_eq!(http.get("/v1/messages/1").json()["buries"], 1);
        assert_eq!(http.post("/v1/messages/1/kick", "{}").json()["state"], "ready");
        http.put("/v1/queues/q/messages", b"\xff\0");
        let message = http.get("/v1/messages/2").json();
        assert_eq!((&message["body"], &message["body_base64"]), (&serde_json::Value::Null, &"/wA=".into()));
        let body = http.get("/v1/messages/2/body");
        assert_eq!((&body.body[..], body.field("content-disposition")), (&b"\xff\0"[..], Some("attachment")));
        assert_eq!(http.delete("/v1/messages/2").json()["removed"], 1);
        assert_eq!(http.get("/v1/messages/2").code(), "message_not_found");
    }

    fn an_operators_pause_outlives_the_daemon_and_a_removed_queue_does_not(transport) {
        let mut server = Server::on(transport);
        let mut http = server.http();
        http.put("/v1/queues/q/messages", b"x");
        let queue = http.post("/v1/queues/q/pause", "").json();
        assert_eq!(queue["pause"], serde_json::json!({"until_at": null}));
        server.kill();
        server.start_again();
        let mut http = server.http();
        let mut worker = server.beanstalk();
        worker.stream.send("watch q\r\nreserve-with-timeout 0\r\n");
        assert_eq!((worker.stream.line(), worker.stream.line()), ("WATCHING 2".into(), "TIMED_OUT".into()));
        let queue = http.post("/v1/queues/q/resume", "").json();
        assert_eq!((&queue["pause"], &queue["head"]), (&serde_json::Value::Null, &"1".into()));
        assert_eq!(http.delete("/v1/queues/q").code(), "not_empty");
        let dry = http.post("/v1/queues/q/flush", "{\"dry_run\":true}").json();
        assert_eq!((&dry["removed"], &dry["dry_run"]), (&1.into(), &true.into()));
        assert_eq!(http.post("/v1/queues/q/flush", "").json()["removed"], 1);
        drop(worker);
        eventually("the queue is gone with its last consumer", || {
            http.get("/v1/queues/q").status == 404
        });
    }

    fn requests_in_one_go_are_answered_in_their_order(transport) {
        let server = Server::on(transport);
        let mut http = server.http();
        for body in ["one", "two", "three"] {
            http.send("POST", "/v1/queues/q/messages?durability=sync", "", body.as_bytes());
            http.send("GET", "/v1/queues/q", "", b"");
        }
        for count in 1..=3 {
            assert_eq!(http.answer().json()["id"], count.to_string());
            assert_eq!(http.answer().json()["put"], count);
        }
        http.send("GET", "/healthz", "Connection: close\r\n", b"");
        http.send("GET", "/healthz", "", b"");
        let last = http.answer();
        assert_eq!((last.status, last.field("connection")), (200, Some("close")));
        assert_eq!(http.stream.rest(), "", "nothing is read behind the last request");
    }

    fn what_could_be_two_requests_is_answered_once_and_gets_no_further(transport) {
        let server = Server::on(transport);
        let inner = "POST /v1/queues/smuggled/messages HTTP/1.1\r\nHost: localhost\r\n\
            Content-Length: 1\r\n\r\nx";
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 0\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\nContent-Length: 5\r\n",
        ] {
            let mut stream = server.connect("http");
            let head = format!("POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            stream.send(format!("{head}0\r\n\r\n{inner}"));
            let text = stream.rest();
            assert!(text.starts_with("HTTP/1.1 400 "), "{fields:?}: {text}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {text}");
        }
        assert_eq!(server.http().get("/v1/queues/smuggled").code(), "queue_not_found");
    }

    fn who_sends_too_much_without_asking_still_reads_why(transport) {
        let server = Setup::on(transport).limits("max_message_size = \"1MiB\"").start();
        let mut http = server.http();
        // It reads only when it has sent all: far more than the system takes for us unread.
        http.send("POST", "/v1/queues/q/messages", "", &vec![b'x'; 8 << 20]);
        let answer = http.answer();
        assert_eq!((answer.status, answer.json()["limit"].as_u64()), (413, Some(1 << 20)));
        assert_eq!(answer.json()["key"], "limits.max_message_size");
        assert_eq!(http.stream.rest(), "");
        let mut http = server.http();
        http.send("POST", "/v1/queues/q/messages", "Expect: 100-continue\r\n", b"");
        assert_eq!(http.answer().status, 201, "nothing had to be waited for");
    }

    fn a_message_in_chunks_arrives_whole(transport) {
        let server = Server::on(transport);
        let mut http = server.http();
        let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        http.stream.send(
            "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        for chunk in large.chunks(700_001) {
            http.stream.send(format!("{:x}\r\n", chunk.len()));
            http.stream.send(chunk);
            http.stream.send("\r\n");
        }
        http.stream.send("0\r\n\r\n");
        assert_eq!(http.answer().status, 201);
        assert!(http.get("/v1/messages/1/body").body == large);
        let message = http.get("/v1/messages/1").json();
        assert_eq!((&message["body_bytes"], &message["body"]), (&3_000_000.into(), &serde_json::Value::Null));
    }
}

#[test]
fn a_thousand_queues_come_in_pages_and_each_comes_once() {
    let server = Setup::new().without_database().durability("periodic").start();
    let mut http = server.http();
    for number in 0..1_050 {
        http.send("POST", &format!("/v1/queues/q%2F{number}/messages"), "", b"x");
    }
    (0..1_050).for_each(|_| assert_eq!(http.answer().status, 201));
    http.put("/v1/queues/q%2F77/messages", b"another");
    let busiest = http.get("/v1/queues?sort=-ready&limit=1").json();
    assert_eq!(busiest["items"][0]["name"], "q/77");
    let (mut names, mut cursor) = (std::collections::BTreeSet::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/queues?limit=400&name=q/*{cursor}")).json();
        for item in page["items"].as_array().unwrap() {
            assert!(names.insert(item["name"].as_str().unwrap().to_owned()), "{item} came twice");
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names.len(), 1_050);
}

#[test]
fn a_level_beyond_the_listeners_holds_over_a_kill() {
    let mut server =
        Setup::new().durability("periodic").storage("snapshot_interval = \"1h\"").start();
    let mut http = server.http();
    assert_eq!(http.put("/v1/queues/q/messages", b"lost").status, 201);
    assert_eq!(http.put("/v1/queues/q/messages?durability=write", b"kept").status, 201);
    assert_eq!(http.put("/v1/queues/q/messages", b"lost").status, 201);
    server.kill();
    server.start_again();
    assert_eq!(server.http().get("/v1/messages/2").json()["body"], "kept");
    assert_eq!(server.http().get("/v1/messages/3").code(), "message_not_found");
}

#[test]
fn a_draining_daemon_says_so_and_refuses() {
    let server = Server::start();
    let mut http = server.http();
    assert_eq!(http.get("/readyz").json()["ready"], true);
    server.process.signal(Signal::USR1);
    eventually("it drains", || http.get("/readyz").status == 503);
    assert_eq!(http.get("/readyz").json()["reasons"], serde_json::json!(["draining"]));
    let refused = http.put("/v1/queues/q/messages", b"x");
    assert_eq!((refused.code(), refused.field("retry-after")), ("draining".into(), Some("1")));
    let status = http.get("/v1/status").json();
    assert_eq!(
        (&status["draining"], &status["refusing"]),
        (&true.into(), &serde_json::json!(["draining"]))
    );
    assert_eq!(status["connections"], serde_json::json!({"http": 1}));
    assert_eq!(http.get("/healthz").status, 200, "it is alive all the same");
}

#[test]
fn only_its_names_lead_to_it_and_no_other_sites_page() {
    let server = Setup::new().listener("http", "hosts = [\"queue.example.org\"]").start();
    let ask = |host: &str, fields: &str| {
        let mut http = Http::new(Stream::connect(server.address("http")));
        http.stream.send(format!(
            "POST /v1/queues/q/messages HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 1\r\n\r\nx"
        ));
        http.answer().status
    };
    assert_eq!(ask("localhost:9180", ""), 201);
    assert_eq!(ask("queue.example.org", ""), 201);
    assert_eq!(ask("rebound.example.org", ""), 421);
    assert_eq!(ask("localhost", "Origin: https://evil.example.org\r\n"), 403);
    assert_eq!(ask("localhost", "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(ask("localhost", "Origin: https://queue.example.org\r\n"), 201);
}

#[test]
fn a_request_that_is_never_whole_is_told_so_and_one_that_never_comes_is_not() {
    let server = Setup::new().limits("frame_timeout = \"1s\"\nidle_timeout = \"1s\"").start();
    let mut slow = server.connect("http");
    slow.send("GET /healthz HTTP/1.1\r\nHo");
    let mut silent = server.connect("http");
    assert!(slow.rest().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    assert_eq!(silent.rest(), "");
}

#[test]
fn who_is_one_too_many_is_told_in_http() {
    let server = Setup::new().limits("max_connections = 1").start();
    let mut first = server.http();
    assert_eq!(first.get("/healthz").status, 200);
    let mut second = server.http();
    assert_eq!(second.answer().code(), "too_many_connections");
}

#[test]
fn the_document_that_it_serves_is_the_one_that_these_tests_hold_answers_against() {
    let server = Server::start();
    let mut http = server.http();
    let served = http.get("/v1/openapi.json");
    assert_eq!(served.json()["openapi"], "3.1.0");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/http/openapi.json");
    assert!(served.body == std::fs::read(path).unwrap());
    // One of each answer that no other test asks for.
    http.put("/v1/queues/q/messages", b"x");
    for path in ["/v1/status", "/v1/queues", "/v1/problems/invalid", "/v1/problems/none"] {
        http.get(path);
    }
    for members in ["{\"max\":\"x\"}", "{", "{\"states\":[]}", "{\"max\":0}"] {
        http.post("/v1/queues/q/kick", members);
    }
    http.post("/v1/queues/q/pause", "{\"for_ms\":60000}");
    http.get("/v1/queues/q?x=1");
}
