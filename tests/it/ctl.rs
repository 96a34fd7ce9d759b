//! The operator's tool: it measures the real daemon, and finds a server out that loses messages.

use crate::harness::Children as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

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
