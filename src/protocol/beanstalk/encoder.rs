//! Answers and messages into reply lines and bodies.
//!
//! Owner: the dispatcher. Holds nothing of the conversation: every answer brings what is needed.

use std::sync::Arc;

use super::{Note, is_tube_name, yaml};
use crate::protocol::Encoder;
use crate::words::command::{Delivery, Handing, Reply, Tag};
use crate::words::limits::Limits;
use crate::words::output::Output;
use crate::words::refusal::Refusal;

/// The writing half of a connection.
pub struct BeanstalkEncoder {
    limits: Arc<Limits>,
}

impl BeanstalkEncoder {
    /// For a new connection.
    pub fn new(limits: Arc<Limits>) -> BeanstalkEncoder {
        BeanstalkEncoder { limits }
    }
}

impl Encoder for BeanstalkEncoder {
    fn reply(&mut self, tag: &Tag, reply: &Reply, out: &mut Output) {
        let out = out.buffer();
        match reply {
            Reply::Put(id) => numbered("INSERTED ", id.0, out),
            Reply::Referred(queue) => {
                out.extend_from_slice(b"USING ");
                out.extend_from_slice(queue.as_str().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Reply::Subscribed(count) => numbered("WATCHING ", *count as u64, out),
            Reply::TimedOut => word("TIMED_OUT", out),
            Reply::DeadlineSoon => word("DEADLINE_SOON", out),
            Reply::Batch(count) => numbered("RESERVED_BATCH ", *count as u64, out),
            Reply::Acknowledged | Reply::Removed => word("DELETED", out),
            Reply::Released => word("RELEASED", out),
            Reply::Buried => word("BURIED", out),
            Reply::Touched => word("TOUCHED", out),
            Reply::Kicked(count) => numbered("KICKED ", *count, out),
            Reply::KickedOne => word("KICKED", out),
            Reply::Paused => word("PAUSED", out),
            Reply::Flushed(count) => numbered("FLUSHED ", *count, out),
            Reply::NotFound | Reply::NotHeld => word("NOT_FOUND", out),
            Reply::Statistics(statistics) => {
                document(&yaml::server(statistics, self.limits.body_bytes_max()), out);
            }
            Reply::MessageStatistics(statistics) => document(&yaml::job(statistics), out),
            Reply::QueueStatistics(statistics) => document(&yaml::tube(statistics), out),
            Reply::Queues(queues) => {
                let tubes = queues.iter().map(|queue| queue.as_str());
                document(&yaml::list(tubes.filter(|tube| is_tube_name(tube.as_bytes()))), out);
            }
            Reply::Echo => note(tag, out),
            Reply::Refused(refusal) => word(refusal_word(*refusal), out),
            // The decoder asks for neither.
            Reply::Survey(_)
            | Reply::Listing(_)
            | Reply::QueuePage(_)
            | Reply::Configured
            | Reply::WakeUp
            | Reply::Joined(_)
            | Reply::Marked
            | Reply::Promoted
            | Reply::Together(_)
            | Reply::Keys(_) => word("INTERNAL_ERROR", out),
        }
    }

    fn deliver(&mut self, tag: &Tag, delivery: &Delivery<'_>, out: &mut Output) {
        let line = out.buffer();
        if Note::of(tag) == Some(Note::BatchOfOne) {
            numbered("RESERVED_BATCH ", 1, line);
        }
        line.extend_from_slice(match delivery.handing {
            Handing::Reserved | Handing::Dispatched => b"RESERVED ",
            Handing::Found => b"FOUND ",
        });
        push_number(delivery.id.0, line);
        line.push(b' ');
        push_number(delivery.body.len() as u64, line);
        line.extend_from_slice(b"\r\n");
        out.body(delivery.body);
        out.buffer().extend_from_slice(b"\r\n");
    }
}

fn note(tag: &Tag, out: &mut Vec<u8>) {
    match Note::of(tag) {
        Some(Note::BadFormat) => word("BAD_FORMAT", out),
        Some(Note::UnknownCommand) => word("UNKNOWN_COMMAND", out),
        Some(Note::ExpectedCrlf) => word("EXPECTED_CRLF", out),
        Some(Note::BatchOfOne) | None => {}
    }
}

fn refusal_word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Draining => "DRAINING",
        // Clients take it for "never", and the next one for "not now".
        Refusal::TooLarge => "JOB_TOO_BIG",
        Refusal::OutOfMemory
        | Refusal::StoreUnavailable
        | Refusal::TooManyQueues
        | Refusal::QueueFull => "OUT_OF_MEMORY",
        Refusal::OutcomeUnknown | Refusal::OutOfIds => "INTERNAL_ERROR",
        Refusal::LastQueue => "NOT_IGNORED",
        // Nothing of this protocol is refused so.
        Refusal::Holding | Refusal::NotEmpty | Refusal::NotHeld | Refusal::TooMuchTogether => {
            "INTERNAL_ERROR"
        }
    }
}

fn word(word: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn numbered(word: &str, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(word.as_bytes());
    push_number(number, out);
    out.extend_from_slice(b"\r\n");
}

/// `OK <bytes>` and a document, whose own line ends are bare LFs.
fn document(text: &str, out: &mut Vec<u8>) {
    numbered("OK ", text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Decimal digits without the formatting machinery, since every reply of the hot path has some.
fn push_number(number: u64, out: &mut Vec<u8>) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut left = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(DIGITS_MAX - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::body::BodyRef;
    use crate::words::change::Counters;
    use crate::words::change::{Attributes, MessageState};
    use crate::words::ids::{MessageId, QueueName};
    use crate::words::limits::LimitValues;
    use crate::words::statistics::{
        Failures, MessageStatistics, QueueStatistics, ServerStatistics, StateCounts,
    };

    fn encoder() -> BeanstalkEncoder {
        BeanstalkEncoder::new(Arc::new(Limits::new(&LimitValues::default())))
    }

    fn name(text: &str) -> QueueName {
        QueueName::new(text.as_bytes()).unwrap()
    }

    fn written(tag: &Tag, reply: &Reply) -> String {
        let mut out = Output::default();
        encoder().reply(tag, reply, &mut out);
        String::from_utf8(out.buffer().clone()).unwrap()
    }

    fn answer(reply: &Reply) -> String {
        written(&Tag::None, reply)
    }

    /// The document behind `OK <bytes>`, whose length has been checked.
    fn document_of(reply: &Reply) -> String {
        let answer = answer(reply);
        let (line, rest) = answer.split_once("\r\n").unwrap();
        let bytes: usize = line.strip_prefix("OK ").unwrap().parse().unwrap();
        assert_eq!(rest.len(), bytes + 2);
        String::from(rest.strip_suffix("\r\n").unwrap())
    }

    fn delivered(tag: &Tag, handing: Handing) -> String {
        let delivery = Delivery {
            handing,
            id: MessageId(12),
            queue: &name("t"),
            priority: 0,
            time_to_live_ms: None,
            reserves: 1,
            is_volatile: false,
            attributes: &Attributes::default(),
            body: BodyRef::Lent(b"hello"),
        };
        let mut out = Output::default();
        encoder().deliver(tag, &delivery, &mut out);
        String::from_utf8(out.buffer().clone()).unwrap()
    }

    #[test]
    fn every_answer_has_its_word() {
        for (reply, line) in [
            (Reply::Put(MessageId(u64::MAX)), "INSERTED 18446744073709551615\r\n"),
            (Reply::Referred(name("t")), "USING t\r\n"),
            (Reply::Subscribed(10), "WATCHING 10\r\n"),
            (Reply::Refused(Refusal::LastQueue), "NOT_IGNORED\r\n"),
            (Reply::TimedOut, "TIMED_OUT\r\n"),
            (Reply::DeadlineSoon, "DEADLINE_SOON\r\n"),
            (Reply::Batch(3), "RESERVED_BATCH 3\r\n"),
            (Reply::Removed, "DELETED\r\n"),
            (Reply::Released, "RELEASED\r\n"),
            (Reply::Buried, "BURIED\r\n"),
            (Reply::Touched, "TOUCHED\r\n"),
            (Reply::Kicked(0), "KICKED 0\r\n"),
            (Reply::KickedOne, "KICKED\r\n"),
            (Reply::Paused, "PAUSED\r\n"),
            (Reply::Flushed(7), "FLUSHED 7\r\n"),
            (Reply::NotFound, "NOT_FOUND\r\n"),
            (Reply::Refused(Refusal::Draining), "DRAINING\r\n"),
            (Reply::Refused(Refusal::OutOfMemory), "OUT_OF_MEMORY\r\n"),
            (Reply::Refused(Refusal::StoreUnavailable), "OUT_OF_MEMORY\r\n"),
            (Reply::Refused(Refusal::TooManyQueues), "OUT_OF_MEMORY\r\n"),
            (Reply::Refused(Refusal::QueueFull), "OUT_OF_MEMORY\r\n"),
            (Reply::Refused(Refusal::OutcomeUnknown), "INTERNAL_ERROR\r\n"),
            (Reply::Refused(Refusal::OutOfIds), "INTERNAL_ERROR\r\n"),
        ] {
            assert_eq!(answer(&reply), line);
        }
    }

    #[test]
    fn errors_that_the_decoder_found_are_written_in_their_turn() {
        for (note, line) in [
            (Note::BadFormat, "BAD_FORMAT\r\n"),
            (Note::UnknownCommand, "UNKNOWN_COMMAND\r\n"),
            (Note::ExpectedCrlf, "EXPECTED_CRLF\r\n"),
        ] {
            assert_eq!(written(&note.tag(), &Reply::Echo), line);
        }
        assert_eq!(written(&Tag::None, &Reply::Echo), "");
    }

    #[test]
    fn messages_come_with_their_length() {
        assert_eq!(delivered(&Tag::None, Handing::Reserved), "RESERVED 12 5\r\nhello\r\n");
        assert_eq!(delivered(&Tag::None, Handing::Found), "FOUND 12 5\r\nhello\r\n");
    }

    #[test]
    fn a_batch_of_one_looks_like_a_batch() {
        let answer = delivered(&Note::BatchOfOne.tag(), Handing::Reserved);
        assert_eq!(answer, "RESERVED_BATCH 1\r\nRESERVED 12 5\r\nhello\r\n");
        assert_eq!(written(&Note::BatchOfOne.tag(), &Reply::TimedOut), "TIMED_OUT\r\n");
    }

    #[test]
    fn lists_name_the_tubes_that_this_protocol_can_name() {
        assert_eq!(document_of(&Reply::Queues(vec![])), "---\n");
        let queues = vec![name("default"), name("größe"), name("with space"), name("0.5")];
        assert_eq!(document_of(&Reply::Queues(queues)), "---\n- default\n- 0.5\n");
    }

    #[test]
    fn job_statistics_have_the_keys_of_the_original_in_its_order() {
        let mut statistics = MessageStatistics {
            id: MessageId(1),
            queue: name("t"),
            state: MessageState::Delayed,
            priority: 5,
            age_ms: 1_999,
            delay_ms: 100_000,
            time_to_run_ms: 7_000,
            time_left_ms: 100_000,
            counters: Counters { reserves: 1, timeouts: 2, releases: 3, buries: 4, kicks: 5 },
            failures: Failures::default(),
            wall_ms: 0,
            is_volatile: false,
        };
        assert_eq!(
            document_of(&Reply::MessageStatistics(Box::new(statistics.clone()))),
            "---\nid: 1\ntube: t\nstate: delayed\npri: 5\nage: 1\ndelay: 100\nttr: 7\n\
             time-left: 99\nfile: 0\nreserves: 1\ntimeouts: 2\nreleases: 3\nburies: 4\nkicks: 5\n"
        );
        statistics.queue = name("a: \"b\"");
        let text = document_of(&Reply::MessageStatistics(Box::new(statistics)));
        assert!(text.contains("\ntube: \"a: \\\"b\\\"\"\n"), "{text}");
    }

    #[test]
    fn tube_statistics_have_the_keys_of_the_original_in_its_order() {
        let statistics = QueueStatistics {
            messages: StateCounts { urgent: 1, ready: 2, reserved: 3, delayed: 4, buried: 5 },
            messages_put: 6,
            using: 7,
            watching: 8,
            waiting: 9,
            pause_ms: 10_000,
            pause_left_ms: 9_001,
            removes: 11,
            pauses: 12,
            ..QueueStatistics::of_none(name("t"))
        };
        assert_eq!(
            document_of(&Reply::QueueStatistics(Box::new(statistics))),
            "---\nname: t\ncurrent-jobs-urgent: 1\ncurrent-jobs-ready: 2\n\
             current-jobs-reserved: 3\ncurrent-jobs-delayed: 4\ncurrent-jobs-buried: 5\n\
             total-jobs: 6\ncurrent-using: 7\ncurrent-watching: 8\ncurrent-waiting: 9\n\
             cmd-delete: 11\ncmd-pause-tube: 12\npause: 10\npause-time-left: 9\n"
        );
    }

    #[test]
    fn server_statistics_have_the_keys_of_the_original_in_its_order() {
        let mut statistics = ServerStatistics::default();
        statistics.process.user_cpu_us = 1_000_203;
        statistics.process.os = String::from("#1 SMP \"x\"");
        let text = document_of(&Reply::Statistics(Box::new(statistics)));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("---"));
        let keys: Vec<&str> = lines.map(|line| line.split_once(": ").unwrap().0).collect();
        let expected = "current-jobs-urgent current-jobs-ready current-jobs-reserved \
            current-jobs-delayed current-jobs-buried cmd-put cmd-peek cmd-peek-ready \
            cmd-peek-delayed cmd-peek-buried cmd-reserve cmd-reserve-with-timeout cmd-delete \
            cmd-release cmd-use cmd-watch cmd-ignore cmd-bury cmd-kick cmd-touch cmd-stats \
            cmd-stats-job cmd-stats-tube cmd-list-tubes cmd-list-tube-used \
            cmd-list-tubes-watched cmd-pause-tube job-timeouts total-jobs max-job-size \
            current-tubes current-connections current-producers current-workers current-waiting \
            total-connections pid version rusage-utime rusage-stime uptime binlog-oldest-index \
            binlog-current-index binlog-records-migrated binlog-records-written binlog-max-size \
            draining id hostname os platform";
        assert_eq!(keys, expected.split_whitespace().collect::<Vec<&str>>());
        assert!(text.contains("\nrusage-utime: 1.000203\n"));
        assert!(text.contains("\nmax-job-size: 16777216\n"));
        assert!(text.contains("\ndraining: false\n"));
        assert!(text.contains("\nos: \"#1 SMP \\\"x\\\"\"\n"));
    }
}
