//! An outbox with a real peer; the test plays the dispatcher.

use super::*;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv};
use socket2::Socket;

use crate::channels::{self, Event, Notice};
use crate::wire::threads::Threads;
use crate::words::body::{Body, BodyRef};
use crate::words::limits::{LimitValues, Limits, OUTBOX_KEPT_BYTES};

/// An outbox, its peer, and the dispatcher's and main thread's ends.
struct Scene {
    outbox: Outbox,
    peer: UnixStream,
    events: Receiver<Event>,
    _notices: crossbeam_channel::Receiver<Notice>,
    threads: Arc<Threads>,
    gate: Arc<Gate>,
}

fn scene() -> Scene {
    scene_with(LimitValues::default())
}

fn scene_with(limits: LimitValues) -> Scene {
    let (ours, peer) = UnixStream::pair().unwrap();
    let (events_in, events) = channels::events();
    let (notices_in, notices) = channels::notices();
    let threads = Threads::new(notices_in);
    let gate = Arc::new(Gate::default());
    let writers = Arc::new(Writers {
        events: events_in,
        threads: threads.clone(),
        limits: Arc::new(Limits::new(&limits)),
    });
    let socket = Socket::from(OwnedFd::from(ours));
    // The smallest buffer there is, so that a peer that does not read shows soon.
    socket.set_send_buffer_size(1).unwrap();
    let outbox =
        Outbox::new(ConnectionId(5), Arc::new(Transport::plain(socket)), gate.clone(), writers);
    Scene { outbox, peer, events, _notices: notices, threads, gate }
}

impl Scene {
    fn say(&mut self, text: &str) {
        self.outbox.output().buffer().extend_from_slice(text.as_bytes());
    }

    fn flush(&mut self, committed: u64) -> Flush {
        self.outbox.flush(CommitNumber(committed).into())
    }

    fn hold(&mut self, commit: u64) {
        self.outbox.hold_until(CommitNumber(commit), Part::Puts);
    }

    /// What has reached the peer.
    fn heard(&mut self) -> String {
        let mut bytes = vec![0; 1024 * 1024];
        let heard = recv(&self.peer, &mut bytes[..], RecvFlags::DONTWAIT);
        let count = heard.map_or(0, |(_, count)| count);
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    /// Fills the socket until a writer takes over; how many bytes that took.
    fn fill(&mut self) -> usize {
        let mut said = 0;
        loop {
            said += 4096;
            self.outbox.output().buffer().extend_from_slice(&[b'x'; 4096]);
            match self.flush(0) {
                Flush::Empty => {}
                Flush::Slow => return said,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Plays the dispatcher until the writer has ended.
    fn serve_writer(&mut self, committed: u64) -> Flush {
        loop {
            match self.events.recv().unwrap() {
                Event::Written { connection, result } => {
                    assert_eq!(connection, ConnectionId(5));
                    match self.outbox.written(result, CommitNumber(committed).into()) {
                        Flush::Slow => {}
                        other => return other,
                    }
                }
                _ => unreachable!("only the writer reports here"),
            }
        }
    }
}

#[test]
fn what_was_appended_leaves_at_the_flush() {
    let mut scene = scene();
    assert!(matches!(scene.flush(0), Flush::Empty));
    scene.say("one ");
    scene.say("two");
    assert_eq!(scene.outbox.unsent_bytes(), 7);
    assert_eq!(scene.heard(), "");
    assert!(matches!(scene.flush(0), Flush::Empty));
    assert_eq!(scene.heard(), "one two");
    assert!(scene.outbox.is_empty());
    assert_eq!(scene.threads.alive(), 0);
}

#[test]
fn held_bytes_leave_with_their_commit_and_not_before() {
    let mut scene = scene();
    scene.say("put");
    scene.hold(3);
    assert!(matches!(scene.flush(2), Flush::Held));
    assert!(!scene.outbox.holds.is_empty());
    assert_eq!(scene.heard(), "");
    assert!(matches!(scene.flush(3), Flush::Empty));
    assert!(scene.outbox.holds.is_empty());
    assert_eq!(scene.heard(), "put");
}

#[test]
fn nothing_passes_a_held_answer() {
    let mut scene = scene();
    scene.say("put1 ");
    scene.hold(3);
    scene.say("message ");
    assert!(matches!(scene.flush(2), Flush::Held));
    scene.say("put2 ");
    scene.hold(4);
    scene.say("end");
    assert!(matches!(scene.flush(3), Flush::Held));
    assert_eq!(scene.heard(), "put1 ");
    assert!(matches!(scene.flush(4), Flush::Empty));
    assert_eq!(scene.heard(), "message put2 end");
}

#[test]
fn bytes_made_free_leave_before_a_later_answer_that_is_held() {
    let mut scene = scene();
    scene.say("message ");
    scene.outbox.free();
    scene.say("put");
    scene.hold(9);
    assert!(matches!(scene.flush(0), Flush::Held));
    assert_eq!(scene.heard(), "message ");
    assert_eq!(scene.outbox.unsent_bytes(), 3);
    assert!(matches!(scene.flush(9), Flush::Empty));
    assert_eq!(scene.heard(), "put");
}

#[test]
fn bytes_made_free_behind_a_held_answer_leave_with_it() {
    let mut scene = scene();
    scene.say("put1 ");
    scene.hold(1);
    scene.say("message ");
    scene.outbox.free();
    scene.say("put2");
    scene.hold(2);
    assert!(matches!(scene.flush(1), Flush::Held));
    assert_eq!(scene.heard(), "put1 message ");
}

#[test]
fn holds_of_one_commit_are_one_and_holds_of_nothing_are_none() {
    let mut scene = scene();
    scene.hold(1);
    assert!(scene.outbox.holds.is_empty());
    for _ in 0..100 {
        scene.say("put ");
        scene.hold(2);
    }
    scene.hold(7);
    assert_eq!(scene.outbox.holds.len(), 1);
    assert!(matches!(scene.flush(2), Flush::Empty));
    assert_eq!(scene.heard().len(), 400);
}

#[test]
fn an_answer_already_committed_is_not_held() {
    let mut scene = scene();
    scene.say("put");
    scene.hold(2);
    assert!(matches!(scene.flush(5), Flush::Empty));
    assert_eq!(scene.heard(), "put");
}

#[test]
fn a_writer_takes_over_from_a_full_socket_until_it_has_caught_up() {
    let mut scene = scene();
    let mut said = scene.fill();
    assert!(scene.outbox.writer.is_some());
    // What comes meanwhile waits in the outbox, in order.
    scene.say("the end");
    said += 7;
    assert!(matches!(scene.flush(0), Flush::Slow));
    assert_eq!(scene.threads.alive(), 1);

    let mut reading = scene.peer.try_clone().unwrap();
    let reader = std::thread::Builder::new()
        .spawn(move || {
            let mut heard = vec![0; said];
            reading.read_exact(&mut heard).unwrap();
            heard
        })
        .unwrap();
    assert!(matches!(scene.serve_writer(0), Flush::Empty));
    let heard = reader.join().unwrap();
    assert!(heard.ends_with(b"xxthe end"));
    assert!(scene.outbox.writer.is_none());

    // Now the dispatcher sends again itself.
    scene.say("again");
    assert!(matches!(scene.flush(0), Flush::Empty));
    assert_eq!(scene.heard(), "again");
}

#[test]
fn a_writer_gets_nothing_that_is_held() {
    let mut scene = scene();
    let said = scene.fill();
    scene.say("put");
    scene.hold(4);
    let mut heard = vec![0; said];
    scene.peer.read_exact(&mut heard[..said - 4096]).unwrap();
    assert!(matches!(scene.serve_writer(3), Flush::Held));
    assert!(scene.outbox.writer.is_none());
    scene.peer.read_exact(&mut heard[said - 4096..]).unwrap();
    assert_eq!(scene.heard(), "");
    assert!(matches!(scene.flush(4), Flush::Empty));
    assert_eq!(scene.heard(), "put");
}

#[test]
fn a_long_backlog_is_written_in_chunks_and_whole() {
    let mut scene = scene();
    scene.fill();
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    scene.outbox.output().buffer().extend_from_slice(&long);
    assert!(matches!(scene.flush(0), Flush::Slow));
    assert!(scene.outbox.unsent_bytes() > long.len());
    let mut reading = scene.peer.try_clone().unwrap();
    let length = long.len();
    let reader = std::thread::Builder::new()
        .spawn(move || {
            let mut heard: Vec<u8> = Vec::new();
            let mut part = [0; 65536];
            while heard.len() < length {
                let count = reading.read(&mut part).unwrap();
                heard.extend(part[..count].iter().filter(|byte| **byte != b'x'));
            }
            heard
        })
        .unwrap();
    assert!(matches!(scene.serve_writer(0), Flush::Empty));
    assert!(reader.join().unwrap() == long);
    assert!(scene.outbox.output().buffer().capacity() <= OUTBOX_KEPT_BYTES);
}

#[test]
fn a_peer_that_takes_nothing_for_the_write_timeout_is_given_up() {
    let limits = LimitValues { write_timeout_ms: 20, ..LimitValues::default() };
    let mut scene = scene_with(limits);
    scene.fill();
    match scene.serve_writer(0) {
        Flush::Broken(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn closing_frees_a_writer_that_is_stuck() {
    let mut scene = scene();
    scene.fill();
    scene.outbox.close();
    // Its write returns at once instead of after 30 seconds.
    match scene.events.recv_timeout(Duration::from_secs(10)) {
        Ok(Event::Written { result, .. }) => assert!(result.is_err()),
        _ => panic!("the writer is still stuck"),
    }
}

#[test]
fn closing_opens_the_gate_and_ends_the_conversation_after_the_last_word() {
    let mut scene = scene();
    scene.gate.close();
    scene.say("bye");
    scene.flush(0);
    drop(scene.outbox);
    assert!(!scene.gate.is_closed());
    let mut heard = String::new();
    scene.peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "bye");
}

#[test]
fn closing_takes_no_byte_from_a_thread_that_still_reads() {
    let mut scene = scene();
    rustix::net::send(&scene.peer, b"sent before", SendFlags::empty()).unwrap();
    let socket = scene.outbox.transport.clone();
    scene.outbox.close();
    let mut bytes = [0; 20];
    assert_eq!(recv(&socket, &mut bytes, RecvFlags::empty()), Ok((11, 11)));
    assert_eq!(recv(&socket, &mut bytes, RecvFlags::empty()), Ok((0, 0)));
}

#[test]
fn a_last_word_reaches_a_peer_whose_input_nobody_reads_any_more() {
    let mut scene = scene();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = Socket::from(OwnedFd::from(listener.accept().unwrap().0));
    scene.outbox.transport = Arc::new(Transport::plain(ours));
    rustix::net::send(&peer, b"never read", SendFlags::empty()).unwrap();
    scene.outbox.transport.socket().peek(&mut [std::mem::MaybeUninit::uninit(); 1]).unwrap();
    scene.say("that was wrong");
    scene.flush(0);
    scene.gate.leave();
    drop(scene.outbox);
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "that was wrong");
}

#[test]
fn a_peer_that_has_gone_breaks_the_flush_and_raises_no_signal() {
    let mut scene = scene();
    let (other, _) = UnixStream::pair().unwrap();
    drop(mem::replace(&mut scene.peer, other));
    scene.say("hello?");
    assert!(matches!(scene.flush(0), Flush::Broken(error)
        if error.kind() == io::ErrorKind::BrokenPipe));
}

#[test]
fn a_large_buffer_is_given_back_when_everything_has_left() {
    let mut scene = scene();
    scene.outbox.output().buffer().reserve(1_000_000);
    scene.say("small");
    assert!(matches!(scene.flush(0), Flush::Empty));
    assert_eq!(scene.outbox.output().buffer().capacity(), 0);
    scene.say("small");
    assert!(matches!(scene.flush(0), Flush::Empty));
    // A buffer of ordinary size stays, so that the next turn allocates nothing.
    assert!(scene.outbox.output().buffer().capacity() > 0);
}

#[test]
fn held_answers_can_be_given_other_words_in_their_places() {
    let mut scene = scene();
    scene.say("a1 ");
    scene.outbox.free();
    let first = scene.outbox.position()..scene.outbox.position() + 4;
    scene.say("put1");
    scene.hold(1);
    scene.say(" b2 ");
    scene.outbox.free();
    let second = scene.outbox.position()..scene.outbox.position() + 4;
    scene.say("put2");
    scene.hold(2);
    scene.say(" c3");
    scene.outbox.free();
    assert!(matches!(scene.flush(0), Flush::Held));
    assert_eq!(scene.heard(), "a1 ");

    let until = scene.outbox.replace_held(&[first], second.start, |number, out| {
        assert_eq!(number, 0);
        out.buffer().extend_from_slice(b"sorry, no");
    });
    assert_eq!(until, second.start + 5);
    assert!(matches!(scene.flush(0), Flush::Held));
    assert_eq!(scene.heard(), "sorry, no b2 ");
    assert!(matches!(scene.flush(2), Flush::Empty));
    assert_eq!(scene.heard(), "put2 c3");
    scene.say("more");
    scene.hold(3);
    assert!(matches!(scene.flush(2), Flush::Held));
    assert_eq!(scene.heard(), "");
}

#[test]
fn large_bodies_leave_between_what_is_around_them_and_are_held_like_it() {
    let mut scene = scene();
    scene.outbox.transport.socket().set_send_buffer_size(400_000).unwrap();
    let body = Body::from(vec![b'x'; 5_000]);
    for number in 0..3 {
        scene.say(&format!("message {number} "));
        scene.outbox.output().body(BodyRef::Kept(&body));
        scene.outbox.free();
        scene.say(" put ");
        scene.hold(number);
    }
    assert!(matches!(scene.flush(1), Flush::Held));
    let whole = |number| format!("message {number} {} put ", "x".repeat(5_000));
    assert_eq!(scene.heard(), whole(0) + &whole(1) + whole(2).strip_suffix(" put ").unwrap());
    assert!(matches!(scene.flush(2), Flush::Empty));
    assert_eq!(scene.heard(), " put ");
}

#[test]
fn more_large_bodies_than_one_send_takes_leave_all_and_in_order() {
    let mut scene = scene();
    scene.outbox.transport.socket().set_send_buffer_size(400_000).unwrap();
    let mut expected = String::new();
    for letter in (b'a'..=b'z').cycle().take(PIECES_PER_SEND_MAX) {
        let body = Body::from(vec![letter; 4_096]);
        scene.outbox.output().body(BodyRef::Kept(&body));
        scene.say("\r\n");
        expected += str::from_utf8(&body).unwrap();
        expected += "\r\n";
    }
    assert!(matches!(scene.flush(0), Flush::Empty));
    assert_eq!(scene.heard(), expected);
}

#[test]
fn a_writer_brings_the_rest_of_a_large_body_that_has_left_in_part() {
    let mut scene = scene();
    let letters: Vec<u8> = (0..1_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    scene.say("head ");
    scene.outbox.output().body(BodyRef::Kept(&Body::from(letters.clone())));
    scene.say(" tail");
    assert!(matches!(scene.flush(0), Flush::Slow));
    assert!(scene.outbox.unsent_bytes() < letters.len() + 10);
    let mut reading = scene.peer.try_clone().unwrap();
    let reader = std::thread::Builder::new()
        .spawn(move || {
            let mut heard = vec![0; 1_000_010];
            reading.read_exact(&mut heard).unwrap();
            heard
        })
        .unwrap();
    assert!(matches!(scene.serve_writer(0), Flush::Empty));
    assert!(reader.join().unwrap() == [&b"head "[..], &letters, b" tail"].concat());
}

#[test]
fn an_answer_for_a_removal_does_not_wait_for_what_was_put_by_others() {
    let mut scene = scene();
    scene.outbox.output().buffer().extend_from_slice(b"DELETED");
    scene.outbox.hold_until(CommitNumber(3), Part::Removals);
    scene.outbox.output().buffer().extend_from_slice(b"INSERTED");
    scene.outbox.hold_until(CommitNumber(3), Part::Puts);
    let mut committed = Committed::from(CommitNumber(2));
    assert!(matches!(scene.outbox.flush(committed), Flush::Held));
    assert_eq!(scene.outbox.unsent_bytes(), 15);
    committed.note(CommitNumber(3), Part::Moves);
    assert!(matches!(scene.outbox.flush(committed), Flush::Held));
    assert_eq!(scene.outbox.unsent_bytes(), 8);
    committed.note(CommitNumber(3), Part::Puts);
    assert!(matches!(scene.outbox.flush(committed), Flush::Empty));
}
