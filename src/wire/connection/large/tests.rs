//! Large frames of one connection, while the test has the memory that they need.

use std::net::Shutdown;
use std::sync::Arc;

use crate::channels::gate::Gate;
use crate::channels::{End, Event};
use crate::protocol::{self, Decoder, Setup};
use crate::wire::connection::stage::name;
use crate::wire::connection::tests::{Scene, scene_with};
use crate::words::clock::Time;
use crate::words::command::{Command, Requests};
use crate::words::ids::ConnectionId;
use crate::words::limits::{Charge, LimitValues, READ_SMALL_BYTES};
use crate::words::refusal::Refusal;

use super::Frame;

const BODY_BYTES: usize = 100_000;
const MEMORY: u64 = 200_000;

type UnixScene = Scene<std::os::unix::net::UnixStream>;

fn limits() -> LimitValues {
    LimitValues { max_memory: MEMORY, ..LimitValues::default() }
}

fn decoder(scene: &UnixScene, protocol: &str) -> Box<dyn Decoder> {
    let limits = scene.stage.shared.limits.clone();
    let connect = protocol::find(protocol).unwrap().connect;
    connect(&Setup { limits, secret: [0; 16], options: Arc::default(), is_local_socket: false }).0
}

/// A connection at work.
fn start(scene: &UnixScene, protocol: &str) {
    let connection = scene.connection_with(decoder(scene, protocol));
    let threads = &scene.stage.shared.threads;
    threads.start("client-9".to_owned(), 256 * 1024, move || connection.run()).unwrap();
}

fn body() -> String {
    "0123456789".repeat(BODY_BYTES / 10)
}

fn put() -> String {
    format!("put 0 0 60 {BODY_BYTES}\r\n{}\r\n", body())
}

fn silent_put() -> String {
    format!("H0100102P01{:029}qP02{BODY_BYTES:029}{}", 1, body())
}

/// The commands of the next event with any, but for what a php-mq connection shows.
fn commands(scene: &UnixScene) -> Vec<Command> {
    loop {
        match scene.stage.event() {
            Event::Requests { requests, .. } => {
                let commands = requests.into_iter().map(|request| request.command);
                let commands: Vec<_> = commands.filter(|one| *one != Command::Echo).collect();
                if !commands.is_empty() {
                    return commands;
                }
            }
            Event::Ping => {}
            other => panic!("no requests but {}", name(&other)),
        }
    }
}

fn end(scene: &UnixScene) -> End {
    loop {
        match scene.stage.event() {
            Event::Ended { end, .. } => return end,
            Event::Ping | Event::Requests { .. } => {}
            other => panic!("no end but {}", name(&other)),
        }
    }
}

fn is_refused(command: &Command, why: Refusal) -> bool {
    matches!(command, Command::PutRefused { refusal, .. } if *refusal == why)
}

/// Waits until the connection stands in line.
fn await_waiting(scene: &UnixScene) {
    while !scene.stage.shared.admission.is_waited_for() {
        std::thread::yield_now();
    }
}

#[test]
fn who_can_be_told_is_refused_when_memory_is_full_and_is_in_step_after_it() {
    let mut scene = scene_with(limits());
    scene.stage.shared.admission.set_kept(MEMORY + 1, 0);
    start(&scene, "beanstalk");
    scene.say(&put());
    assert!(is_refused(&commands(&scene)[0], Refusal::OutOfMemory));
    assert!(scene.stage.shared.admission.has_refused_large());
    scene.say("list-tube-used\r\n");
    assert_eq!(commands(&scene), [Command::ShowReferred]);
    scene.peer.shutdown(Shutdown::Both).unwrap();
    end(&scene);
    assert_eq!(scene.stage.shared.budget.bytes(), 0);
}

#[test]
fn who_cannot_be_told_waits_with_little_in_hand_and_goes_on_when_there_is_room() {
    let scene = scene_with(limits());
    scene.stage.shared.admission.set_kept(MEMORY + 1, 0);
    start(&scene, "phpmq");
    let mut sender = scene.peer.try_clone().unwrap();
    let sending = std::thread::Builder::new().spawn(move || {
        std::io::Write::write_all(&mut sender, silent_put().as_bytes()).unwrap();
    });
    await_waiting(&scene);
    assert!(scene.stage.shared.budget.bytes() <= 2 * READ_SMALL_BYTES as u64);
    // The thread says so once it stands in the line.
    while !scene.gate.waits_for_room() {
        std::thread::yield_now();
    }
    scene.stage.shared.admission.set_kept(0, 0);
    match &commands(&scene)[..] {
        [Command::Put(put)] => assert!(*put.body == *body().as_bytes()),
        other => panic!("{other:?}"),
    }
    sending.unwrap().join().unwrap();
    assert!(!scene.stage.shared.admission.is_waited_for());
    assert!(!scene.gate.waits_for_room());
}

#[test]
fn a_frame_waits_while_others_are_under_way_and_is_refused_when_its_time_is_over() {
    let mut scene = scene_with(LimitValues { frame_timeout_ms: 100, ..limits() });
    let others = Frame {
        connection: ConnectionId(1),
        whole: 150_000,
        missing: 150_000,
        can_be_refused: true,
    };
    let ticket = scene.stage.shared.admission.enter(others, &Arc::<Gate>::default(), Time(0));
    assert!(ticket.is_admitted());
    start(&scene, "beanstalk");
    scene.say(&put());
    assert!(is_refused(&commands(&scene)[0], Refusal::OutOfMemory));
    drop(ticket);
    scene.say(&put());
    assert!(matches!(&commands(&scene)[..], [Command::Put(_)]), "its wait was not held against it");
}

#[test]
fn what_does_not_fit_any_more_after_a_reload_is_refused_for_good() {
    for (protocol, put) in [("beanstalk", put()), ("phpmq", silent_put())] {
        let mut scene = scene_with(limits());
        // Less than full, so that nobody is refused at once.
        scene.stage.shared.admission.set_kept(MEMORY / 10 * 9, 0);
        start(&scene, protocol);
        scene.say(&put[..READ_SMALL_BYTES]);
        await_waiting(&scene);
        let less = LimitValues { max_memory: BODY_BYTES as u64, ..limits() };
        scene.stage.shared.limits.apply(&less);
        scene.gate.ring();
        if protocol == "beanstalk" {
            assert!(is_refused(&commands(&scene)[0], Refusal::TooLarge));
        }
        scene.say(&put[READ_SMALL_BYTES..]);
        if protocol == "phpmq" {
            assert!(is_refused(&commands(&scene)[0], Refusal::TooLarge));
        }
    }
}

#[test]
fn a_frame_that_is_only_announced_holds_no_place() {
    let mut scene = scene_with(limits());
    start(&scene, "beanstalk");
    scene.say("list-tube-used\r\n");
    commands(&scene);
    scene.say(&put()[..1_000]);
    while scene.stage.shared.budget.bytes() == 0 {
        std::thread::yield_now();
    }
    let whole = MEMORY - MEMORY / 16 - 2_000;
    let frame = Frame { connection: ConnectionId(1), whole, missing: whole, can_be_refused: true };
    let ticket = scene.stage.shared.admission.enter(frame, &Arc::<Gate>::default(), Time(0));
    assert!(ticket.is_admitted());
}

#[test]
fn a_frame_that_stalls_while_others_wait_loses_its_place() {
    let mut scene = scene_with(LimitValues { frame_timeout_ms: 400, ..limits() });
    start(&scene, "beanstalk");
    scene.say(&put()[..BODY_BYTES / 2]);
    while scene.stage.shared.budget.bytes() < BODY_BYTES as u64 / 4 {
        std::thread::yield_now();
    }
    let frame = Frame {
        connection: ConnectionId(1),
        whole: 150_000,
        missing: 150_000,
        can_be_refused: true,
    };
    let mut ticket = scene.stage.shared.admission.enter(frame, &Arc::<Gate>::default(), Time(0));
    assert!(!ticket.is_admitted());
    assert!(is_refused(&commands(&scene)[0], Refusal::OutOfMemory));
    while scene.stage.shared.budget.bytes() > 1 {
        std::thread::yield_now();
    }
    ticket.look(Time(0));
    assert!(ticket.is_admitted());
    assert!(matches!(end(&scene), End::TimedOut(_)), "as any frame that does not end");
}

#[test]
fn a_silent_sender_that_stalls_goes_on_when_more_has_come() {
    let mut scene = scene_with(LimitValues { frame_timeout_ms: 20_000, ..limits() });
    let mut reader = super::RequestReader::new(scene.connection_with(decoder(&scene, "phpmq")));
    let mut small = [0; READ_SMALL_BYTES];
    let put = silent_put();
    scene.say(&put[..BODY_BYTES / 2]);
    while scene.stage.shared.budget.bytes() < BODY_BYTES as u64 / 4 {
        assert!(reader.turn(&mut small).is_ok());
    }
    let frame = reader.frame().unwrap();
    assert!(reader.lose_place(frame).is_ok());
    assert!(reader.ticket.is_none() && reader.stalled);
    scene.say(&put[BODY_BYTES / 2..]);
    while reader.connection.decoder.pending_bytes() > 0 {
        assert!(reader.turn(&mut small).is_ok());
    }
    assert!(matches!(&commands(&scene)[..], [Command::Put(_)]));
    assert!(reader.ticket.is_none() && !reader.was_stalled);
}

#[test]
fn what_has_arrived_fills_the_memory_and_an_admitted_frame_is_refused() {
    let mut scene = scene_with(limits());
    start(&scene, "beanstalk");
    scene.say(&put()[..BODY_BYTES / 2]);
    while scene.stage.shared.budget.bytes() < BODY_BYTES as u64 / 4 {
        std::thread::yield_now();
    }
    let mut others = Charge::new(scene.stage.shared.budget.clone());
    others.set(MEMORY);
    scene.say(&put()[BODY_BYTES / 2..BODY_BYTES / 2 + 1_000]);
    assert!(is_refused(&commands(&scene)[0], Refusal::OutOfMemory));
    scene.say(&put()[BODY_BYTES / 2 + 1_000..]);
    scene.say("list-tube-used\r\n");
    assert_eq!(commands(&scene), [Command::ShowReferred]);
}

#[test]
fn a_peer_that_goes_is_not_waited_for_in_the_line() {
    let mut scene = scene_with(limits());
    scene.stage.shared.admission.set_kept(MEMORY + 1, 0);
    scene.say(&silent_put()[..READ_SMALL_BYTES]);
    start(&scene, "phpmq");
    scene.peer.shutdown(Shutdown::Both).unwrap();
    // Long before the frame's deadline of 30 seconds.
    assert!(matches!(end(&scene), End::EndOfFile));
}

/// Both decoders, asked to refuse what is not whole.
#[test]
fn a_refused_body_is_dropped_and_its_rest_skipped() {
    let scene = scene_with(limits());
    for (protocol, put) in [("beanstalk", put()), ("phpmq", silent_put())] {
        let mut decoder = decoder(&scene, protocol);
        let mut requests = Requests::default();
        decoder.decode(Time(0), &put.as_bytes()[..BODY_BYTES / 2], &mut requests).unwrap();
        decoder.refuse(Refusal::OutOfMemory, &mut requests);
        assert!(decoder.pending_bytes() < 100 && decoder.rest().is_none());
        let rest = &put.as_bytes()[BODY_BYTES / 2..];
        decoder.decode(Time(0), rest, &mut requests).unwrap();
        assert_eq!(decoder.pending_bytes(), 0, "{protocol}");
        assert!(is_refused(&requests.take().last().unwrap().command, Refusal::OutOfMemory));
    }
}

#[test]
fn a_body_in_pieces_stands_in_line_between_two_of_them() {
    let mut scene = scene_with(limits());
    scene.stage.shared.admission.set_kept(MEMORY + 1, 0);
    start(&scene, "http");
    // A whole piece, so that the decoder has no place for more just now.
    let piece = "x".repeat(3_000);
    scene.say(&format!(
        "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n\
         Transfer-Encoding: chunked\r\n\r\nbb8\r\n{piece}\r\n"
    ));
    let tag = loop {
        match scene.stage.event() {
            Event::Requests { requests, .. } => break format!("{:?}", requests[0].tag),
            Event::Ping => {}
            other => panic!("no requests but {}", name(&other)),
        }
    };
    assert!(tag.contains("out_of_memory"), "{tag}");
}
