//! php-mq bytes in, requests out: each message, each fault, and what is kept meanwhile.

use super::*;
use crate::protocol::Decoder as _;
use crate::protocol::wire::testing::decode_all;
use crate::words::command::Request;
use crate::words::limits::LimitValues;

const KEY: [u8; 16] = *b"0123456789abcdef";

pub(in super::super) fn decoder(revision: Option<u8>) -> Decoder {
    let limits = Limits::new(&LimitValues { max_message_size: 100, ..LimitValues::default() });
    Decoder::new(Arc::new(limits), MessageKey::new(&KEY), revision)
}

pub(in super::super) fn message(kind: u16, packets: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = format!("H01{kind:03}{:02}", packets.len()).into_bytes();
    for (packet, content) in packets {
        bytes.extend(format!("P{packet:02}{:029}", content.len()).bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

pub(in super::super) fn wire_id(id: u64) -> [u8; 32] {
    MessageKey::new(&KEY).write(MessageId(id))
}

fn request(command: Command) -> Request {
    Request { tag: Tag::None, command }
}

fn shown(revision: u64) -> Request {
    Request { tag: Tag::Code(revision), command: Command::Echo }
}

fn name(text: &str) -> QueueName {
    QueueName::new(text.as_bytes()).unwrap()
}

fn put(body: &[u8]) -> Put {
    Put::new(Target::Named(name("q")), body.to_vec())
}

fn put_2(body: &[u8], seconds: Option<u64>) -> Put {
    let mut put = put(body);
    put.attributes.push("phpmq.revision", b"2");
    put.time_to_live_ms = seconds.map(|seconds| seconds * 1_000);
    put
}

/// The requests of `bytes`, and the error that ended them.
fn decode(bytes: &[u8]) -> (Vec<Request>, Option<WireError>) {
    decode_all(&mut decoder(None), bytes)
}

fn error_of(bytes: &[u8]) -> WireError {
    let (requests, error) = decode(bytes);
    assert!(requests.iter().all(|request| request.command == Command::Echo), "{requests:?}");
    error.expect("the bytes are wrong")
}

#[test]
fn a_message_of_revision_1_is_put_and_shows_it_once() {
    let bytes = message(1, &[(1, b"q"), (2, b"\0body\xff")]).repeat(2);
    let body = request(Command::Put(put(b"\0body\xff")));
    assert_eq!(decode(&bytes), (vec![shown(1), body.clone(), body], None));
}

#[test]
fn a_message_of_revision_2_carries_its_time_to_live() {
    let bytes = [
        message(1, &[(1, b"q"), (2, b"x"), (5, b"90")]),
        message(1, &[(1, b"q"), (2, b"y"), (5, b"0")]),
    ];
    let expected = vec![
        shown(2),
        request(Command::Put(put_2(b"x", Some(90)))),
        request(Command::Put(put_2(b"y", None))),
    ];
    assert_eq!(decode(&bytes.concat()), (expected, None));
}

fn consume(window: u32) -> Command {
    let options = Options::window(window);
    Command::Subscribe { key: SubscriptionKey::Queue, queue: name("q"), options }
}

#[test]
fn a_consume_request_asks_for_a_window_and_shows_no_revision() {
    let bytes = message(2, &[(1, b"q"), (4, b"5")]);
    let expected = request(consume(5));
    assert_eq!(decode(&bytes), (vec![expected], None));
}

#[test]
fn a_window_of_nothing_ends_the_subscription() {
    let bytes = message(2, &[(1, b"q"), (4, b"0")]);
    let (key, queue) = (SubscriptionKey::Queue, name("q"));
    let expected = request(Command::Unsubscribe { key, queue, keep_last: false });
    assert_eq!(decode(&bytes), (vec![expected], None));
}

#[test]
fn a_larger_window_than_there_can_be_is_the_largest() {
    let bytes = message(2, &[(1, b"q"), (4, b"99999999999999999999")]);
    let expected = request(consume(u32::MAX));
    assert_eq!(decode(&bytes), (vec![expected], None));
}

#[test]
fn acknowledge_requeue_and_dead_letter_name_message_and_queue() {
    let message_7 = || MessageRef::IdOf(MessageId(7), name("q"));
    let bytes = [
        message(4, &[(1, b"q"), (3, &wire_id(7))]),
        message(5, &[(1, b"q"), (3, &wire_id(7)), (5, b"3")]),
        message(6, &[(1, b"q"), (3, &wire_id(7))]),
    ];
    let time_to_live_ms = Some(3_000);
    let expected = vec![
        request(Command::Acknowledge(message_7())),
        shown(2),
        request(Command::Requeue { message: message_7(), time_to_live_ms }),
        request(Command::Bury { message: message_7(), priority: None }),
    ];
    assert_eq!(decode(&bytes.concat()), (expected, None));
}

#[test]
fn an_id_that_does_not_check_is_the_id_of_no_message() {
    let mut guessed = wire_id(7);
    guessed[31] ^= 1;
    for id in [&guessed[..], &[b'0'; 32], b"7", b"", b"zzzz"] {
        let bytes = message(4, &[(1, b"q"), (3, id)]);
        let expected = Command::Acknowledge(MessageRef::IdOf(MessageId(0), name("q")));
        assert_eq!(decode(&bytes), (vec![request(expected)], None));
    }
}

#[test]
fn a_correlation_asks_for_a_confirmation_in_either_revision() {
    let asked = |put| Request { tag: Tag::bytes(b"n\xff"), command: Command::Put(put) };
    let bytes = message(1, &[(1, b"q"), (2, b"x"), (6, b"n\xff")]);
    assert_eq!(decode(&bytes), (vec![shown(1), asked(put(b"x"))], None));
    let bytes = message(1, &[(1, b"q"), (2, b"x"), (5, b"9"), (6, b"n\xff")]);
    assert_eq!(decode(&bytes), (vec![shown(2), asked(put_2(b"x", Some(9)))], None));
}

#[test]
fn a_message_may_bring_a_key_in_either_revision_and_how_long_that_is_taken() {
    let with = |put, term| {
        let keyed = Some(KeyedBy { key: Key::new(b"k\0").unwrap(), term });
        let extras = Extras { keyed, ..Extras::default() };
        Command::PutWith(Box::new(PutWith { put, extras }))
    };
    let asked = |command| Request { tag: Tag::bytes(b"n"), command };
    let (done, hour) = (KeyTerm::UntilDone, KeyTerm::For(3_600_000));
    for (packets, revision, expected) in [
        (&[(1, &b"q"[..]), (7, b"k\0"), (2, b"x")][..], 1, request(with(put(b"x"), done))),
        (
            &[(8, b"0"), (7, b"k\0"), (1, b"q"), (2, b"x"), (6, b"n")],
            1,
            asked(with(put(b"x"), done)),
        ),
        (
            &[(1, b"q"), (7, b"k\0"), (8, b"3600"), (2, b"x"), (5, b"9")],
            2,
            request(with(put_2(b"x", Some(9)), hour)),
        ),
        (
            &[(7, b"k\0"), (8, b"3600"), (1, b"q"), (6, b"n"), (5, b"9"), (2, b"")],
            2,
            asked(with(put_2(b"", Some(9)), hour)),
        ),
    ] {
        let decoded = decode(&message(1, packets));
        assert_eq!(decoded, (vec![shown(revision), expected], None), "{packets:?}");
    }
}

#[test]
fn a_message_can_be_refused_as_soon_as_it_is_certain_to_have_a_correlation() {
    let body = (2, &b"x"[..]);
    for (packets, can_be_refused) in [
        (&[(1, &b"q"[..]), body, (5, b"9")][..], false),
        (&[(1, b"q"), body, (6, b"n")], false),
        (&[(1, b"q"), (6, b"n"), body], true),
        (&[(1, b"q"), body, (5, b"9"), (6, b"n")], true),
        (&[(1, b"q"), (5, b"9"), body, (6, b"n")], true),
        (&[(1, b"q"), (7, b"k"), (8, b"9"), body], false),
        (&[(1, b"q"), (7, b"k"), body, (6, b"n")], false),
        (&[(1, b"q"), (7, b"k"), body, (5, b"9"), (6, b"n")], true),
    ] {
        let whole = message(1, packets);
        let at = whole.windows(3).position(|bytes| bytes == b"P02").unwrap();
        let mut decoder = decoder(None);
        decode_all(&mut decoder, &whole[..at + PACKET_HEADER_BYTES]);
        let can = crate::protocol::Decoder::can_be_refused(&decoder);
        assert_eq!(can, can_be_refused, "{packets:?}");
    }
}

#[test]
fn packets_may_come_in_any_order() {
    let bytes = message(1, &[(6, b"n"), (5, b"9"), (2, b""), (1, b"q")]);
    let asked = Request { tag: Tag::bytes(b"n"), command: Command::Put(put_2(b"", Some(9))) };
    assert_eq!(decode(&bytes), (vec![shown(2), asked], None));
}

#[test]
fn the_first_revision_shown_stays() {
    let bytes =
        [message(1, &[(1, b"q"), (2, b"x")]), message(1, &[(1, b"q"), (2, b"x"), (5, b"9")])];
    let (requests, _) = decode(&bytes.concat());
    let echoes = requests.iter().filter(|request| request.command == Command::Echo).count();
    assert_eq!(echoes, 1);
    assert_eq!(requests.first(), Some(&shown(1)));
}

#[test]
fn a_pinned_connection_shows_nothing() {
    let bytes = message(1, &[(1, b"q"), (2, b"x"), (5, b"9")]);
    let (requests, error) = decode_all(&mut decoder(Some(1)), &bytes);
    assert_eq!((requests.len(), error), (1, None));
}

#[test]
fn a_body_may_be_empty_and_as_large_as_the_limit() {
    for size in [0, 1, 99, 100] {
        let bytes = message(1, &[(1, b"q"), (2, &vec![b'x'; size])]);
        let expected = request(Command::Put(put(&vec![b'x'; size])));
        assert_eq!(decode(&bytes), (vec![shown(1), expected], None), "{size}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_comes() {
    let start = message(1, &[(1, b"q")]);
    for length in ["4294967296", "99999999999999999999999999999", "18446744073709551616"] {
        let bytes = format!("H0100102{}P02{length:0>29}", String::from_utf8_lossy(&start[8..]));
        let mut decoder = decoder(None);
        let (_, error) = decode_all(&mut decoder, bytes.as_bytes());
        let too_long = WireError::TooLong("message content", SKIPPED_BYTES_MAX);
        assert_eq!(error, Some(too_long), "{length}");
        assert_eq!(decoder.content.pending_bytes(), 0);
    }
}

#[test]
fn a_body_over_the_limit_is_skipped_and_what_follows_is_in_step() {
    let large = [b'x'; 101];
    let refused = Command::PutRefused { refusal: Refusal::TooLarge, body_bytes: 101 };
    let small = request(Command::Put(put(b"x")));
    let mut bytes = message(1, &[(1, b"q"), (2, &large), (6, b"n")]);
    bytes.extend(message(1, &[(6, b"m"), (2, &large), (1, b"q")]));
    bytes.extend(message(1, &[(1, b"q"), (2, &large)]));
    bytes.extend(message(1, &[(1, b"q"), (2, b"x")]));
    let tagged =
        |text: &str| Request { tag: Tag::bytes(text.as_bytes()), command: refused.clone() };
    let expected = vec![shown(1), tagged("n"), tagged("m"), request(refused.clone()), small];
    assert_eq!(decode(&bytes), (expected, None));
}

#[test]
fn what_is_skipped_takes_no_memory() {
    let mut decoder = decoder(None);
    let bytes = format!("H0100102P02{:029}", 1_000_000);
    decode_all(&mut decoder, bytes.as_bytes());
    for _ in 0..100 {
        decode_all(&mut decoder, &[b'x'; 1_000]);
    }
    assert!((1..100).contains(&decoder.pending_bytes()), "but its time counts");
}

#[test]
fn headers_that_are_none_are_refused_with_the_reason() {
    for (bytes, error) in [
        ("G", WireError::BadMagic),
        ("\0", WireError::BadMagic),
        ("h0100102", WireError::BadMagic),
        ("HTTP/1.1", WireError::UnsupportedVersion),
        ("H1", WireError::UnsupportedVersion),
        ("H02", WireError::UnsupportedVersion),
        ("H01x0102", WireError::NotANumber("message type")),
        ("H01001 2", WireError::NotANumber("packet count")),
        ("H0100002", unknown_type(0)),
        ("H0100303", unknown_type(3)),
        ("H0100702", unknown_type(7)),
        ("H0199902", unknown_type(999)),
        ("H0100101", wrong_packet_count(1)),
        ("H0100107", wrong_packet_count(7)),
        ("H0100200", wrong_packet_count(0)),
        ("H0100203", wrong_packet_count(3)),
        ("H0100403", wrong_packet_count(3)),
        ("H0100502", wrong_packet_count(2)),
        ("H0100603", wrong_packet_count(3)),
    ] {
        assert_eq!(error_of(bytes.as_bytes()), error, "{bytes}");
    }
}

#[test]
fn packets_that_do_not_belong_are_refused_with_the_reason() {
    for (kind, packets, error) in [
        (1, &[(1, &b"q"[..]), (3, b"x")][..], unexpected_packet(3)),
        (1, &[(1, b"q"), (5, b"9")], unexpected_packet(5)),
        (1, &[(1, b"q"), (1, b"q")], unexpected_packet(1)),
        (1, &[(1, b"q"), (99, b"q")], unexpected_packet(99)),
        (1, &[(1, b"q"), (5, b"9"), (6, b"n")], unexpected_packet(6)),
        (1, &[(1, b"q"), (2, b"x"), (5, b"9"), (5, b"9")], unexpected_packet(5)),
        (1, &[(1, b"q"), (2, b"x"), (5, b"-1")], WireError::NotANumber("time to live")),
        (1, &[(1, b"q"), (2, b"x"), (5, b"")], WireError::NotANumber("time to live")),
        (1, &[(1, b"q"), (2, b"x"), (6, b"")], WireError::OutOfRange("correlation length")),
        (1, &[(1, b"q"), (2, b"x"), (6, &[0; 65])], WireError::TooLong("correlation", 64)),
        (1, &[(1, b"q"), (2, b"x"), (7, b"k")], unexpected_packet(7)),
        (1, &[(1, b"q"), (7, b"k"), (2, b"x"), (8, b"9")], unexpected_packet(8)),
        (1, &[(1, b"q"), (8, b"9"), (2, b"x")], unexpected_packet(8)),
        (1, &[(1, b"q"), (8, b"x"), (2, b"x")], WireError::NotANumber("time of a key")),
        (1, &[(1, b"q"), (7, b""), (2, b"x")], WireError::OutOfRange("key length")),
        (1, &[(1, b"q"), (7, &[0; 256]), (2, b"x")], WireError::TooLong("key", 255)),
        (2, &[(1, b"q"), (7, b"k")], unexpected_packet(7)),
        (1, &[(1, b""), (2, b"x")], WireError::QueueName(QueueNameError::Empty)),
        (1, &[(1, &[b'q'; 201]), (2, b"x")], WireError::QueueName(QueueNameError::TooLong(201))),
        (1, &[(1, b"a\nb"), (2, b"x")], WireError::QueueName(QueueNameError::ControlCharacter)),
        (1, &[(1, b"\xff"), (2, b"x")], WireError::QueueName(QueueNameError::NotUtf8)),
        (2, &[(1, b"q"), (2, b"x")], unexpected_packet(2)),
        (2, &[(1, b"q"), (4, b"+5")], WireError::NotANumber("window")),
        (2, &[(1, b"q"), (4, &[b'0'; 21])], WireError::TooLong("number", 20)),
        (4, &[(1, b"q"), (3, &[b'0'; 33])], WireError::TooLong("message id", 32)),
        (4, &[(1, b"q"), (5, b"9")], unexpected_packet(5)),
        (6, &[(3, b"0"), (3, b"0")], unexpected_packet(3)),
    ] {
        assert_eq!(error_of(&message(kind, packets)), error, "{kind} {packets:?}");
    }
}

#[test]
fn packet_headers_that_are_none_are_refused_with_the_reason() {
    for (bytes, error) in [
        ("H0100102X", WireError::BadMagic),
        ("H0100102H0100102", WireError::BadMagic),
        ("H0100102Px100000000000000000000000000001", WireError::NotANumber("packet type")),
        ("H0100102P01000000000000000000000000000 1", WireError::NotANumber("content length")),
        ("H0100102P010000000000000000000000000000x", WireError::NotANumber("content length")),
    ] {
        assert_eq!(error_of(bytes.as_bytes()), error, "{bytes}");
    }
}

#[test]
fn what_was_whole_before_a_fault_stands() {
    let mut bytes = message(1, &[(1, b"q"), (2, b"x")]);
    bytes.extend_from_slice(b"garbage");
    let (requests, error) = decode(&bytes);
    assert_eq!(requests.len(), 2);
    assert_eq!(error, Some(WireError::BadMagic));
}

#[test]
fn a_full_batch_stops_the_decoder_and_nothing_is_lost() {
    let bytes = message(1, &[(1, b"q"), (2, b"x")]).repeat(700);
    let mut decoder = decoder(None);
    let (mut rest, mut sizes) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let mut requests = Requests::default();
        let taken = decoder.decode(Time(0), rest, &mut requests).unwrap();
        rest = &rest[taken..];
        sizes.push(requests.take().len());
    }
    assert_eq!(sizes, [256, 256, 189]);
}

#[test]
fn an_unfinished_message_is_pending_and_a_finished_one_is_not() {
    let bytes = message(1, &[(1, b"q"), (2, b"x")]);
    let mut decoder = decoder(None);
    let mut requests = Requests::default();
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(decoder.pending_bytes(), index);
        decoder.decode(Time(0), &[*byte], &mut requests).unwrap();
    }
    assert_eq!(decoder.pending_bytes(), 0);
    assert_eq!(requests.len(), 2);
}
