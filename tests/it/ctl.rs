//! The operator's tool: it measures the real daemon, and finds a server out that loses messages.

use crate::harness::Children as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{Server, over_both};

fn bench(address: &str, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_phpmqctl"))
        .args(["bench", "--json", "--address", address])
        .args(words.split_whitespace())
        .said()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

over_both! {
    fn every_work_is_done_to_the_last_message_and_nothing_is_found_wrong(transport) {
        let server = Server::on(transport);
        for (protocol, words) in [
            ("beanstalk", "--work cycle --connections 5 --count 503"),
            ("beanstalk", "--work cycle --connections 3 --depth 50 --count 503 --queues 2"),
            ("beanstalk", "--work put --connections 2 --depth 10 --count 503 --size 70000"),
            ("beanstalk", "--work pass --producers 3 --consumers 2 --depth 7 --count 503"),
            ("beanstalk", "--work connect --connections 3 --count 503"),
            ("beanstalk", "--work poll --connections 20 --connections-per-thread 7 --count 503"),
            ("phpmq", "--producers 2 --consumers 2 --depth 9 --count 503 --backlog 20"),
            ("phpmq", "--depth 100 --count 503 --rate 5000"),
        ] {
            let output = bench(server.address(protocol), &format!("--protocol {protocol} {words}"));
            let said = said(&output);
            assert_eq!(output.status.code(), Some(0), "{words}: {said}");
            assert!(said.contains("s\":503,") && said.contains("\"faults\":0,"), "{said}");
        }
    }
}

/// Serves one connection as a beanstalk server would whose queue hands the first message out
/// twice and loses the second.
fn serve_badly(stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut answers = stream;
    let mut first = None;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[0] {
            "use" => "USING q\r\n".to_owned().into_bytes(),
            "watch" | "ignore" => "WATCHING 1\r\n".to_owned().into_bytes(),
            "delete" => "DELETED\r\n".to_owned().into_bytes(),
            "put" => {
                let mut body = vec![0; words[4].parse::<usize>().ok()? + 2];
                lines.read_exact(&mut body).ok()?;
                first.get_or_insert(body);
                "INSERTED 1\r\n".to_owned().into_bytes()
            }
            _ => {
                let body = first.as_ref()?;
                [format!("RESERVED 1 {}\r\n", body.len() - 2).as_bytes(), body].concat()
            }
        };
        answers.write_all(&answer).ok()?;
    }
}

#[test]
fn a_server_that_doubles_and_loses_messages_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::Builder::new()
        .spawn(move || serve_badly(listener.accept().unwrap().0))
        .unwrap();
    let output = bench(&address, "--work cycle --connections 1 --count 2");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("message 0 of producer 0 was delivered twice"), "{said}");
    assert!(said.contains("1 messages of producer 0 are lost"), "{said}");
    server.join().unwrap();
}

#[test]
fn exit_codes_tell_bad_words_from_a_server_that_is_not_there() {
    // Bound and let go again: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(bench(&nobody, "").status.code(), Some(69));
    assert_eq!(bench(&nobody, "--work juggle").status.code(), Some(64));
    assert_eq!(bench(&nobody, "--rate 0").status.code(), Some(64));
}

/// What a verb says about the daemon at this address, with this on its standard input.
fn ctl(server: &Server, words: &str, input: &str) -> (Option<i32>, String, String) {
    let address = match server.address("http") {
        path if path.starts_with("unix:") => path.to_owned(),
        address => format!("http://{address}"),
    };
    let stdin = tempfile::tempfile().unwrap();
    (&stdin).write_all(input.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut &stdin).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_phpmqctl"))
        .args(words.split_whitespace())
        .env("PHPMQ_SERVER", address)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .start()
        .and_then(Child::wait_with_output)
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

over_both! {
    fn an_operator_finds_out_why_a_queue_is_stuck_and_mends_it(transport) {
        let server = Server::on(transport);
        let ok = |words: &str| {
            let (code, out, err) = ctl(&server, words, "");
            assert_eq!((code, err.as_str()), (Some(0), ""), "{words}: {out}");
            out
        };
        assert_eq!(ctl(&server, "put mail --priority 7 --attribute kind=x", "hello\nyou").1, "1\n");
        assert_eq!(ok("put mail --delay 1h second"), "2\n");
        assert!(ok("queue mail").contains("! it has no consumer"));
        let mut worker = server.beanstalk();
        worker.stream.send("watch mail\r\nreserve\r\n");
        assert_eq!(worker.stream.line(), "WATCHING 2");
        assert_eq!(worker.stream.line(), "RESERVED 1 9");
        let told = ok("queue mail");
        assert!(told.contains("held: 1 by ") && told.contains("(beanstalk)"), "{told}");
        assert_eq!(ok("queues m*"), "mail\t0\t1\t1\t0\t-\t15\t1\n");
        let told = ok("message 1");
        assert!(told.contains("attribute kind: x\n") && told.ends_with("\nhello\nyou\n"), "{told}");
        assert_eq!(ok("message 1 --body"), "hello\nyou");
        assert_eq!(ok("kick mail"), "1 kicked\n");
        assert!(ok("pause mail").contains("! it is paused"));
        assert!(!ok("resume mail").contains("paused"));
        let (code, _, err) = ctl(&server, "delete 1 2 --yes", "");
        assert_eq!(code, Some(1), "{err}");
        assert!(err.starts_with("phpmqctl: 1: ") && err.contains("wrong_state"), "{err}");
        assert!(ok("status").contains("connections, beanstalk: 1\n"));
        assert_eq!(ok("status --ready"), "");
    }

    fn nothing_is_removed_that_nobody_has_agreed_to(transport) {
        let server = Server::on(transport);
        ctl(&server, "put q x", "");
        let (code, out, err) = ctl(&server, "flush q", "y\n");
        assert_eq!((code, out.as_str()), (Some(64), ""));
        assert!(err.contains("1 message of the queue q") && err.contains("--yes"), "{err}");
        assert_eq!(ctl(&server, "flush q --yes", "").1, "1 removed\n");
        let (code, _, err) = ctl(&server, "flush q --yes", "");
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("queue_not_found"), "{err}");
    }

    fn scripts_get_the_answers_as_they_are(transport) {
        let server = Server::on(transport);
        for name in ["a", "b", "c"] {
            ctl(&server, &format!("put {name} x"), "");
        }
        let (code, out, _) = ctl(&server, "queues --json --sort name -n 2", "");
        assert_eq!(code, Some(0));
        let names: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((names.len(), &names[1]["name"]), (2, &"b".into()));
        let (_, out, _) = ctl(&server, "put q --json x", "");
        assert_eq!(out, "{\"id\":\"4\",\"queue\":\"q\",\"state\":\"ready\"}\n");
    }
}

#[test]
fn what_cannot_be_asked_ends_with_its_own_code() {
    let ask = |words: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_phpmqctl"))
            .args(words.split_whitespace())
            .said()
            .unwrap();
        output.status.code()
    };
    assert_eq!(ask("status --server unix:/nonexistent.sock"), Some(69));
    assert_eq!(ask("status --server ftp://x"), Some(64));
    assert_eq!(ask("put"), Some(64));
    let server = Server::start();
    let beanstalk = format!("http://{}", server.address("beanstalk"));
    assert!([Some(69), Some(70)].contains(&ask(&format!("status --server {beanstalk}"))));
    let http = format!("http://{}", server.address("http"));
    assert_eq!(ask(&format!("put --server {http} q x --delay soon")), Some(64));
    assert_eq!(ask(&format!("message --server {http} 7")), Some(1));
    let no_name = Command::new(env!("CARGO_BIN_EXE_phpmqctl"))
        .args(["put", "--server", &http, "", "x"])
        .said()
        .unwrap();
    assert_eq!(no_name.status.code(), Some(64));
    let text = String::from_utf8_lossy(&no_name.stderr).into_owned();
    assert!(text.contains("bad_name"), "{text}");
}
