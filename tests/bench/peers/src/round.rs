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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};

    use super::*;
    use crate::ledger::Bodies;
    use crate::options::Peer;

    const SIZE: usize = 24;

    /// A protocol in which everything is a letter, with a count or a body behind it.
    struct Letters {
        is_pushed: bool,
    }

    impl Talk for Letters {
        fn is_pushed(&self) -> bool {
            self.is_pushed
        }

        fn open(&mut self, _: &mut TcpStream, _: bool) -> Result<(), Fault> {
            Ok(())
        }

        fn put(&mut self, body: &[u8], out: &mut Vec<u8>) {
            out.push(b'P');
            out.extend_from_slice(body);
        }

        fn ask(&mut self, count: usize, out: &mut Vec<u8>) {
            out.extend([b'?', count as u8]);
        }

        fn acknowledge(&mut self, held: &Held, out: &mut Vec<u8>) -> bool {
            out.extend([b'K', held.len() as u8]);
            !self.is_pushed
        }

        fn next<'a>(
            &mut self,
            bytes: &'a [u8],
            _out: &mut Vec<u8>,
        ) -> Result<Option<(usize, Event<'a>)>, Fault> {
            Ok(Some(match bytes {
                [b'C', count, ..] => (2, Event::Confirmed(usize::from(*count))),
                [b'A', count, ..] => (2, Event::Acknowledged(usize::from(*count))),
                [b'S', count, ..] => (2, Event::Short(usize::from(*count))),
                [b'M', rest @ ..] if rest.len() >= SIZE => {
                    (1 + SIZE, Event::Message { handle: b"h", body: &rest[..SIZE] })
                }
                _ => return Ok(None),
            }))
        }
    }

    struct Bench {
        plan: Plan,
        tally: Tally,
        rounds: Vec<Round>,
    }

    impl Bench {
        fn new(is_pushed: bool, connections: usize) -> Bench {
            let round = |number| Round::new(Box::new(Letters { is_pushed }), number);
            Bench {
                plan: Plan {
                    peer: Peer::Gearman,
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                    connections,
                    depth: 2,
                    size: SIZE,
                    duration_us: 100,
                    durable: false,
                    bodies: Bodies::new(7, SIZE),
                    queue: "q".to_owned(),
                },
                tally: Tally::new(connections),
                rounds: (0..connections).map(round).collect(),
            }
        }

        /// What this connection says when it hears these words at that moment.
        fn hears(&mut self, at: usize, now_us: u64, words: &[u8]) -> Result<Vec<u8>, Fault> {
            let moment = &mut Moment { now_us, plan: &self.plan, tally: &mut self.tally };
            let mut out = Vec::new();
            let taken = self.rounds[at].take(moment, words, &mut out)?;
            assert_eq!(taken, words.len());
            self.rounds[at].fill(moment, &mut out);
            Ok(out)
        }

        fn faults(&mut self) -> u64 {
            let put_by = self.tally.put_by.clone();
            self.tally.ledger.settle(&put_by);
            self.tally.ledger.wrong().0
        }
    }

    /// The messages among these words, as they are handed out.
    fn messages(puts: &[u8]) -> Vec<Vec<u8>> {
        puts.chunks(1 + SIZE).map(|put| [b"M", &put[1..]].concat()).collect()
    }

    #[test]
    fn a_round_puts_takes_and_acknowledges_in_turn() {
        let mut bench = Bench::new(false, 1);
        let puts = bench.hears(0, 0, b"").unwrap();
        let came = messages(&puts);
        assert_eq!(came.len(), 2);
        assert_eq!(bench.hears(0, 1, b"C\x01").unwrap(), b"");
        assert_eq!(bench.hears(0, 2, b"C\x01").unwrap(), b"?\x02");
        assert_eq!(bench.hears(0, 3, &came[0]).unwrap(), b"");
        assert_eq!(bench.hears(0, 3, b"S\x01").unwrap(), b"?\x01");
        assert_eq!(bench.hears(0, 4, &came[1]).unwrap(), b"K\x02");
        assert!(!bench.rounds[0].is_idle());
        // The time is over when the answer comes: no new round.
        assert_eq!(bench.hears(0, 100, b"A\x02").unwrap(), b"");
        assert!(bench.rounds[0].is_idle());
        assert_eq!((bench.tally.done, bench.tally.latencies.max_us()), (2, 100));
        assert_eq!(bench.faults(), 0);
    }

    #[test]
    fn messages_of_others_that_are_pushed_count_for_the_next_round() {
        let mut bench = Bench::new(true, 2);
        let mine = messages(&bench.hears(0, 0, b"").unwrap());
        let others = messages(&bench.hears(1, 0, b"").unwrap());
        // The first one gets all four, and goes on at once when its own puts are confirmed.
        let all = [mine.concat(), others.concat()].concat();
        assert_eq!(bench.hears(0, 1, &all).unwrap(), b"K\x04");
        let more = messages(&bench.hears(0, 2, b"C\x02").unwrap());
        assert_eq!(more.len(), 2);
        // The second one has nothing to go on with before something comes.
        assert_eq!(bench.hears(1, 3, b"C\x02").unwrap(), b"");
        assert_eq!(bench.hears(1, 100, &more.concat()).unwrap(), b"K\x02");
        assert_eq!(bench.hears(0, 100, b"C\x02").unwrap(), b"");
        assert_eq!((bench.tally.put, bench.tally.taken, bench.tally.done), (6, 6, 6));
        assert!(bench.rounds.iter().all(Round::is_idle));
        assert_eq!(bench.faults(), 0);
    }

    #[test]
    fn doubled_and_lost_messages_are_faults_and_answers_too_many_end_the_run() {
        let mut bench = Bench::new(false, 1);
        let came = messages(&bench.hears(0, 0, b"").unwrap());
        bench.hears(0, 1, b"C\x02").unwrap();
        bench.hears(0, 2, &[&came[0][..], &came[0][..]].concat()).unwrap();
        // Doubled, out of order behind itself, and the other one lost.
        assert_eq!(bench.faults(), 3);
        for words in [&b"C\x01"[..], b"A\x03", &came[1]] {
            assert!(bench.hears(0, 3, words).is_err(), "{words:?}");
        }
    }
}
