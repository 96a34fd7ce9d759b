//! One connection's work: rounds of putting, taking and acknowledging, whatever the protocol.

use std::collections::VecDeque;

use crate::fault::{Fault, excerpt};
use crate::histogram::Histogram;
use crate::ledger::{LastSeen, Ledger, Stamp};
use crate::options::Plan;
use crate::talk::{Event, Held, Talk};

/// What has been counted.
#[derive(Debug)]
pub struct Tally {
    pub latencies: Histogram,
    pub ledger: Ledger,
    /// Messages put, by connection.
    pub put_by: Vec<u64>,
    pub put: u64,
    pub taken: u64,
    pub done: u64,
    pub began_us: u64,
    /// When the last of `done` was.
    pub last_us: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(connections: usize) -> Tally {
        Tally {
            latencies: Histogram::new(),
            ledger: Ledger::default(),
            put_by: vec![0; connections],
            put: 0,
            taken: 0,
            done: 0,
            began_us: 0,
            last_us: 0,
        }
    }

    fn count(&mut self, due_us: u64, now_us: u64) {
        self.done += 1;
        self.last_us = now_us;
        self.latencies.record(now_us.saturating_sub(due_us));
    }
}

/// What a round sees of the rest.
pub struct Moment<'a> {
    pub now_us: u64,
    pub plan: &'a Plan,
    pub tally: &'a mut Tally,
}

impl Moment<'_> {
    /// Whether nothing more is to be put.
    pub fn is_over(&self) -> bool {
        self.now_us >= self.tally.began_us + self.plan.duration_us
    }
}

/// Where a connection stands in its round.
///
/// A server that is asked answers in this order: all confirmations, then all messages, then all
/// acknowledgements. One that pushes sends messages at any time, this connection's or another's;
/// there a round is through when as many have come as were put, and those too many count for the
/// next round.
pub struct Round {
    talk: Box<dyn Talk>,
    number: usize,
    put: u64,
    taken: u64,
    /// Puts without an answer.
    unconfirmed: usize,
    /// Messages that were asked for.
    wanted: usize,
    held: Held,
    /// When those were due whose acknowledgement has no answer yet.
    unanswered: VecDeque<u64>,
    last: LastSeen,
    body: Vec<u8>,
}

impl Round {
    /// The connection of this number.
    pub fn new(talk: Box<dyn Talk>, number: usize) -> Round {
        Round {
            talk,
            number,
            put: 0,
            taken: 0,
            unconfirmed: 0,
            wanted: 0,
            held: Held::default(),
            unanswered: VecDeque::new(),
            last: LastSeen::default(),
            body: Vec::new(),
        }
    }

    /// Whether it waits for nothing but, where messages are pushed, what others may have put.
    pub fn is_idle(&self) -> bool {
        self.unconfirmed + self.wanted + self.unanswered.len() + self.held.len() == 0
    }

    /// Takes what is whole of `bytes` and says how much that was.
    ///
    /// # Errors
    /// An answer is not what was asked for.
    pub fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            let Some((count, event)) = self.talk.next(&bytes[at..], out)? else { break };
            let excess = || excerpt(&bytes[at..]);
            match event {
                Event::Confirmed(count) => {
                    self.unconfirmed = self.unconfirmed.checked_sub(count).ok_or_else(excess)?;
                }
                Event::Message { handle, body } => {
                    if !self.talk.is_pushed() {
                        self.wanted = self.wanted.checked_sub(1).ok_or_else(excess)?;
                    }
                    self.taken += 1;
                    moment.tally.taken += 1;
                    let bodies = &moment.plan.bodies;
                    let stamp = moment.tally.ledger.enter(bodies, body, &mut self.last);
                    self.held.push(handle, stamp.map_or(moment.now_us, |stamp| stamp.due_us));
                }
                Event::Short(count) => self.talk.ask(count, out),
                Event::Acknowledged(count) => {
                    for _ in 0..count {
                        let due_us = self.unanswered.pop_front().ok_or_else(excess)?;
                        moment.tally.count(due_us, moment.now_us);
                    }
                }
                Event::Other => {}
            }
            at += count;
        }
        Ok(at)
    }

    /// Says what can be said now.
    pub fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) {
        // Whoever asked for several acknowledges when all have come.
        if self.wanted == 0 && !self.held.is_empty() {
            self.acknowledge(moment, out);
        }
        if !self.is_idle() {
            return;
        }
        if self.taken < self.put {
            if !self.talk.is_pushed() {
                self.wanted = moment.plan.depth;
                self.talk.ask(self.wanted, out);
            }
        } else if !moment.is_over() {
            self.put_all(moment, out);
        }
    }

    fn put_all(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) {
        let depth = moment.plan.depth;
        for _ in 0..depth {
            let producer = u32::try_from(self.number).expect("at most 10,000 connections");
            let stamp = Stamp { producer, number: self.put, due_us: moment.now_us };
            self.body.clear();
            moment.plan.bodies.write(stamp, &mut self.body);
            self.talk.put(&self.body, out);
            self.put += 1;
        }
        self.unconfirmed = depth;
        moment.tally.put_by[self.number] += depth as u64;
        moment.tally.put += depth as u64;
    }

    fn acknowledge(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) {
        if self.talk.acknowledge(&self.held, out) {
            self.unanswered.extend(self.held.due_us());
        } else {
            for due_us in self.held.due_us() {
                moment.tally.count(*due_us, moment.now_us);
            }
        }
        self.held.clear();
    }
}
