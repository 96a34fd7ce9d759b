//! What every kind of connection has in common: when it sends the next message, and what it counts.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::fault::Fault;
use super::histogram::Histogram;
use super::ledger::{Ledger, Stamp};
use super::options::Plan;

/// What is said first, and how the lines start that answer it.
pub type Opening = (Vec<u8>, &'static [&'static [u8]]);

/// One side of a connection: takes what the server says, says what is next.
pub trait Conversation {
    /// What is said before the run begins, and how each line of the
    /// answer starts.
    fn opening(&self, plan: &Plan) -> Opening;

    /// Takes one whole answer from the front of `bytes` and says how long it was; 0 when it is not
    /// whole yet.
    ///
    /// # Errors
    /// It is not what was asked for.
    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Fault>;

    /// Appends what can be said now.
    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next;
}

/// What a conversation waits for when it has said all it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An answer.
    Answer,
    /// This moment, in microseconds.
    At(u64),
    /// Others to receive what was sent.
    Room,
    /// Nothing: it is over.
    Over,
}

/// What a conversation sees of the rest.
pub struct Moment<'a> {
    pub now_us: u64,
    pub plan: &'a Plan,
    pub shared: &'a Shared,
    pub tally: &'a mut Tally,
}

/// What all threads see.
#[derive(Debug)]
pub struct Shared {
    ready: Barrier,
    began_us: AtomicU64,
    failed: AtomicBool,
    sent: AtomicU64,
    done: AtomicU64,
    /// Connections that may still send.
    sending: AtomicU64,
}

impl Shared {
    /// For so many threads.
    pub fn new(threads: usize) -> Shared {
        Shared {
            ready: Barrier::new(threads + 1),
            began_us: AtomicU64::new(u64::MAX),
            failed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            done: AtomicU64::new(0),
            sending: AtomicU64::new(0),
        }
    }

    /// Waits until every thread has its connections, and begins.
    pub fn await_ready(&self, clock: impl Fn() -> u64) -> u64 {
        self.ready.wait();
        self.began_us.fetch_min(clock(), Ordering::SeqCst);
        self.began_us()
    }

    /// When the run began.
    pub fn began_us(&self) -> u64 {
        self.began_us.load(Ordering::SeqCst)
    }

    /// One thread's connections are lost: the others need not go on.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether another thread has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages sent and not yet received.
    pub fn backlog(&self) -> u64 {
        let done = self.done.load(Ordering::SeqCst);
        self.sent.load(Ordering::SeqCst).saturating_sub(done)
    }

    /// What is done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// One connection more that sends; before the run begins.
    pub fn add_sender(&self) {
        self.sending.fetch_add(1, Ordering::SeqCst);
    }

    /// A connection will send no more.
    pub fn remove_sender(&self) {
        self.sending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether all that will ever be sent has been received.
    pub fn is_drained(&self) -> bool {
        self.sending.load(Ordering::SeqCst) == 0 && self.backlog() == 0
    }

    /// Adds what a thread has sent and done since it last said so.
    pub fn publish(&self, sent: u64, done: u64) {
        // Sent first, so that the backlog is never seen too small.
        if sent > 0 {
            self.sent.fetch_add(sent, Ordering::SeqCst);
        }
        if done > 0 {
            self.done.fetch_add(done, Ordering::SeqCst);
        }
    }
}

/// What a thread has counted.
#[derive(Debug)]
pub struct Tally {
    pub latencies: Histogram,
    pub ledger: Ledger,
    /// Messages sent, by producer.
    pub sent_by: Vec<u64>,
    pub sent: u64,
    pub done: u64,
    /// When the last of `done` was.
    pub last_us: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(plan: &Plan) -> Tally {
        Tally {
            latencies: Histogram::new(),
            ledger: Ledger::default(),
            sent_by: vec![0; plan.producers],
            sent: 0,
            done: 0,
            last_us: 0,
        }
    }

    /// Counts something done that was due at that moment.
    pub fn count(&mut self, due_us: u64, now_us: u64) {
        self.done += 1;
        self.last_us = now_us;
        self.latencies.record(now_us.saturating_sub(due_us));
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: Tally) {
        self.latencies.add(&other.latencies);
        self.ledger.add(other.ledger);
        for (mine, theirs) in self.sent_by.iter_mut().zip(other.sent_by) {
            *mine += theirs;
        }
        self.sent += other.sent;
        self.done += other.done;
        self.last_us = self.last_us.max(other.last_us);
    }
}

/// When one producer's messages are due.
#[derive(Debug)]
pub struct Schedule {
    producer: u32,
    next: u64,
    count: Option<u64>,
    interval_us: Option<f64>,
}

/// What a schedule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send this one.
    Now(Stamp),
    /// The next one is due then.
    At(u64),
    /// There is none left.
    Over,
}

impl Schedule {
    /// The messages of this producer.
    pub fn new(plan: &Plan, producer: u32) -> Schedule {
        Schedule {
            producer,
            next: 0,
            count: plan.share_of(producer),
            interval_us: plan.rate.map(|rate| 1e6 / rate),
        }
    }

    /// The next message, which counts as sent when it is due now. With a rate its stamp is the
    /// moment when it was to be sent, however late it is: a server that stalls does not make the
    /// generator leave the slow answers out (no coordinated omission).
    pub fn next(&mut self, moment: &mut Moment<'_>) -> Due {
        if self.count.is_some_and(|count| self.next >= count) {
            return Due::Over;
        }
        let began_us = moment.shared.began_us();
        let due_us = match self.interval_us {
            None => moment.now_us,
            Some(interval) => {
                // Producers take turns within the interval.
                let turn = f64::from(self.producer) / moment.plan.producers as f64;
                began_us.saturating_add(((self.next as f64 + turn) * interval) as u64)
            }
        };
        let ends_us = began_us.saturating_add(moment.plan.duration_us);
        if self.count.is_none() && due_us >= ends_us {
            return Due::Over;
        }
        if due_us > moment.now_us {
            return Due::At(due_us);
        }
        let stamp = Stamp { producer: self.producer, number: self.next, due_us };
        self.next += 1;
        moment.tally.sent_by[self.producer as usize] += 1;
        moment.tally.sent += 1;
        Due::Now(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Options;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }

    fn plan(words: &str) -> Plan {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        Plan::new(&Words::parse_from(words).options).unwrap()
    }

    /// What the schedule of the first producer says at these moments after the beginning.
    fn said(plan: &Plan, moments_us: &[u64]) -> Vec<Due> {
        let (shared, mut tally) = (Shared::new(0), Tally::new(plan));
        let began_us = shared.await_ready(|| 1_000);
        let mut schedule = Schedule::new(plan, 0);
        let mut say = |after_us| {
            let now_us = began_us + after_us;
            schedule.next(&mut Moment { now_us, plan, shared: &shared, tally: &mut tally })
        };
        moments_us.iter().map(|after_us| say(*after_us)).collect()
    }

    fn now(number: u64, due_us: u64) -> Due {
        Due::Now(Stamp { producer: 0, number, due_us })
    }

    #[test]
    fn what_a_stall_keeps_back_counts_from_the_moment_it_was_due() {
        let plan = plan("--work put --connections 1 --rate 1000 --duration 0.003");
        // The server answers again after ten intervals: all that was due is sent, as late as it is.
        let said = said(&plan, &[0, 10_000, 10_000, 10_000]);
        assert_eq!(said, [now(0, 1_000), now(1, 2_000), now(2, 3_000), Due::Over]);
    }

    #[test]
    fn at_a_rate_the_next_message_waits_for_its_moment() {
        let plan = plan("--work put --connections 1 --rate 1000");
        assert_eq!(said(&plan, &[0, 500, 1_000]), [now(0, 1_000), Due::At(2_000), now(1, 2_000)]);
    }

    #[test]
    fn without_a_rate_a_message_is_due_when_there_is_room_for_it() {
        let plan = plan("--work put --connections 1 --count 2");
        assert_eq!(said(&plan, &[0, 77, 78]), [now(0, 1_000), now(1, 1_077), Due::Over]);
    }

    #[test]
    fn times_without_end_are_as_long_as_can_be() {
        let long = plan("--work put --connections 1 --rate 1000 --duration 1e300");
        assert_eq!(said(&long, &[0, 9]), [now(0, 1_000), Due::At(2_000)]);
        let rare = plan("--work put --connections 1 --rate 1e-300 --duration 10");
        assert_eq!(said(&rare, &[0, 9]), [now(0, 1_000), Due::Over]);
    }
}
