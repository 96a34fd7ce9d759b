//! Connections that speak beanstalkd's protocol.

use std::collections::VecDeque;

use super::conversation::{Conversation, Due, Moment, Next, Opening, Schedule, Shared};
use super::fault::{Fault, excerpt};
use super::ledger::{LastSeen, Stamp, number_of, push_number};
use super::options::{LineSpec, Plan, Role};

/// Seconds that a reservation lasts: more than a run stands still for.
const TIME_TO_RUN: &str = "600";
/// The longest line of an answer, in bytes.
const LINE_BYTES_MAX: usize = 300;
/// Puts are appended up to so many bytes that have not left.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// The conversation of one connection.
pub fn conversation(plan: &Plan, shared: &Shared, spec: &LineSpec) -> Box<dyn Conversation> {
    let queue = plan.queue_name(spec.queue);
    let schedule = Schedule::new(plan, spec.number);
    match spec.role {
        Role::Cycle => Box::new(Cycle {
            queue,
            schedule,
            phase: Phase::Put,
            left: 0,
            batch: 0,
            held: Vec::new(),
            last: LastSeen::default(),
        }),
        Role::Poll => Box::new(Poller { queue, schedule, under_way: VecDeque::new() }),
        Role::Put => Box::new(Putter::new(queue, schedule, Counts::Confirmed)),
        Role::Send => {
            shared.add_sender();
            Box::new(Putter::new(queue, schedule, Counts::Received))
        }
        Role::Take => Box::new(Taker {
            queue,
            deletes: 0,
            reserves: 0,
            held: Vec::new(),
            last: LastSeen::default(),
        }),
    }
}

fn opening(queue: &str) -> Opening {
    let words = format!("use {queue}\r\nwatch {queue}\r\nignore default\r\n");
    (words.into_bytes(), &[b"USING ", b"WATCHING ", b"WATCHING "])
}

/// An answer, and how many bytes it has.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Inserted,
    Reserved(u64, &'a [u8]),
    Deleted,
    TimedOut,
}

/// The answer at the front of `bytes`, if it is whole.
fn answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Fault> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE_BYTES_MAX { Err(excerpt(bytes)) } else { Ok(None) };
    };
    let whole = end + 1;
    let line = bytes[..whole].strip_suffix(b"\r\n").ok_or_else(|| excerpt(bytes))?;
    if line.starts_with(b"INSERTED ") {
        return Ok(Some((Answer::Inserted, whole)));
    }
    if let Some(rest) = line.strip_prefix(b"RESERVED ") {
        let space = rest.iter().position(|byte| *byte == b' ');
        let (id, size) = rest.split_at(space.ok_or_else(|| excerpt(bytes))?);
        let size = number_of(&size[1..])?;
        let size = usize::try_from(size).ok().filter(|size| *size <= 1 << 30);
        let size = size.ok_or(Fault::Frame("a body is far too long"))?;
        let Some(body) = bytes.get(whole..whole + size + 2) else { return Ok(None) };
        let Some(body) = body.strip_suffix(b"\r\n") else {
            return Err(Fault::Frame("no line end behind a body"));
        };
        return Ok(Some((Answer::Reserved(number_of(id)?, body), whole + size + 2)));
    }
    match line {
        b"DELETED" => Ok(Some((Answer::Deleted, whole))),
        b"TIMED_OUT" => Ok(Some((Answer::TimedOut, whole))),
        _ => Err(excerpt(bytes)),
    }
}

fn put(plan: &Plan, stamp: Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"put 0 0 ");
    out.extend_from_slice(TIME_TO_RUN.as_bytes());
    out.push(b' ');
    push_number(plan.size as u64, out);
    out.extend_from_slice(b"\r\n");
    plan.bodies.write(stamp, out);
    out.extend_from_slice(b"\r\n");
}

fn delete(id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"delete ");
    push_number(id, out);
    out.extend_from_slice(b"\r\n");
}

/// Puts, reserves and deletes, up to `depth` commands at a time.
struct Cycle {
    queue: String,
    schedule: Schedule,
    phase: Phase,
    /// Answers that are to come in this phase.
    left: usize,
    /// Messages of this round.
    batch: usize,
    /// Ids that it has reserved, and when they were due.
    held: Vec<(u64, u64)>,
    last: LastSeen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Put,
    Reserve,
    Delete,
}

impl Conversation for Cycle {
    fn opening(&self, _plan: &Plan) -> Opening {
        opening(&self.queue)
    }

    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let Some((answer, count)) = answer(bytes)? else { return Ok(0) };
        match (self.phase, answer) {
            // The phase is the one that was asked for last.
            (Phase::Put, Answer::Inserted) => {}
            (Phase::Reserve, Answer::Reserved(id, body)) => {
                let stamp = moment.tally.ledger.enter(&moment.plan.bodies, body, &mut self.last);
                self.held.push((id, stamp.map_or(moment.now_us, |stamp| stamp.due_us)));
            }
            (Phase::Delete, Answer::Deleted) => {
                let (_, due_us) = self.held[self.batch - self.left];
                moment.tally.count(due_us, moment.now_us);
            }
            _ => return Err(excerpt(bytes)),
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| excerpt(bytes))?;
        Ok(count)
    }

    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next {
        if self.left > 0 {
            return Next::Answer;
        }
        if self.batch > 0 {
            self.phase = match self.phase {
                Phase::Put => Phase::Reserve,
                Phase::Reserve => Phase::Delete,
                Phase::Delete => Phase::Put,
            };
        }
        match self.phase {
            Phase::Reserve => (0..self.batch).for_each(|_| out.extend_from_slice(b"reserve\r\n")),
            Phase::Delete => self.held.iter().for_each(|(id, _)| delete(*id, out)),
            Phase::Put => {
                self.held.clear();
                self.batch = 0;
                while self.batch < moment.plan.depth {
                    match self.schedule.next(moment) {
                        Due::Now(stamp) => put(moment.plan, stamp, out),
                        _ if self.batch > 0 => break,
                        Due::At(at_us) => return Next::At(at_us),
                        Due::Over => return Next::Over,
                    }
                    self.batch += 1;
                }
            }
        }
        self.left = self.batch;
        Next::Answer
    }
}

/// What makes a message done for the tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Its confirmation.
    Confirmed,
    /// Its receipt, by somebody else.
    Received,
}

/// Puts, with up to `depth` answers outstanding.
struct Putter {
    queue: String,
    schedule: Schedule,
    counts: Counts,
    /// When those without an answer were due.
    under_way: VecDeque<u64>,
    is_over: bool,
}

impl Putter {
    fn new(queue: String, schedule: Schedule, counts: Counts) -> Putter {
        Putter { queue, schedule, counts, under_way: VecDeque::new(), is_over: false }
    }

    fn end(&mut self, moment: &Moment<'_>) {
        if self.counts == Counts::Received && !self.is_over {
            moment.shared.remove_sender();
        }
        self.is_over = true;
    }
}

impl Conversation for Putter {
    fn opening(&self, _plan: &Plan) -> Opening {
        opening(&self.queue)
    }

    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let Some((answer, count)) = answer(bytes)? else { return Ok(0) };
        let (Answer::Inserted, Some(due_us)) = (answer, self.under_way.pop_front()) else {
            return Err(excerpt(bytes));
        };
        if self.counts == Counts::Confirmed {
            moment.tally.count(due_us, moment.now_us);
        }
        Ok(count)
    }

    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next {
        let mut room = match self.counts {
            Counts::Confirmed => u64::MAX,
            Counts::Received => moment.plan.backlog.saturating_sub(moment.shared.backlog()),
        };
        while !self.is_over {
            if self.under_way.len() >= moment.plan.depth || out.len() > UNSENT_BYTES_MAX {
                return Next::Answer;
            }
            if room == 0 {
                return Next::Room;
            }
            match self.schedule.next(moment) {
                Due::Now(stamp) => {
                    put(moment.plan, stamp, out);
                    self.under_way.push_back(stamp.due_us);
                }
                Due::At(at_us) => return Next::At(at_us),
                Due::Over => {
                    self.end(moment);
                    break;
                }
            }
            room -= 1;
        }
        if self.under_way.is_empty() { Next::Over } else { Next::Answer }
    }
}

/// Reserves and deletes what others put, in bursts of `depth`. Only the first reservation of a
/// burst waits: those behind it must not keep its deletion back.
struct Taker {
    queue: String,
    deletes: usize,
    reserves: usize,
    held: Vec<u64>,
    last: LastSeen,
}

impl Conversation for Taker {
    fn opening(&self, _plan: &Plan) -> Opening {
        opening(&self.queue)
    }

    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let Some((answer, count)) = answer(bytes)? else { return Ok(0) };
        let left = if self.deletes > 0 { &mut self.deletes } else { &mut self.reserves };
        *left = left.checked_sub(1).ok_or_else(|| excerpt(bytes))?;
        match answer {
            Answer::Deleted | Answer::TimedOut => {}
            Answer::Reserved(id, body) => {
                let stamp = moment.tally.ledger.enter(&moment.plan.bodies, body, &mut self.last);
                moment.tally.count(stamp.map_or(moment.now_us, |s| s.due_us), moment.now_us);
                self.held.push(id);
            }
            Answer::Inserted => return Err(excerpt(bytes)),
        }
        Ok(count)
    }

    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next {
        if self.deletes + self.reserves > 0 {
            return Next::Answer;
        }
        let is_over = moment.shared.is_drained();
        if is_over && self.held.is_empty() {
            return Next::Over;
        }
        self.deletes = self.held.len();
        self.held.drain(..).for_each(|id| delete(id, out));
        // One at a time means that the deletion's answer comes first.
        if is_over || (moment.plan.depth == 1 && self.deletes > 0) {
            return Next::Answer;
        }
        self.reserves = moment.plan.depth;
        out.extend_from_slice(b"reserve-with-timeout 1\r\n");
        (1..self.reserves).for_each(|_| out.extend_from_slice(b"reserve-with-timeout 0\r\n"));
        Next::Answer
    }
}

/// Asks an empty queue, without waiting.
struct Poller {
    queue: String,
    schedule: Schedule,
    under_way: VecDeque<u64>,
}

impl Conversation for Poller {
    fn opening(&self, _plan: &Plan) -> Opening {
        opening(&self.queue)
    }

    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let Some((answer, count)) = answer(bytes)? else { return Ok(0) };
        let (Answer::TimedOut, Some(due_us)) = (answer, self.under_way.pop_front()) else {
            return Err(excerpt(bytes));
        };
        moment.tally.count(due_us, moment.now_us);
        Ok(count)
    }

    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next {
        while self.under_way.len() < moment.plan.depth {
            match self.schedule.next(moment) {
                Due::Now(stamp) => self.under_way.push_back(stamp.due_us),
                _ if !self.under_way.is_empty() => break,
                Due::At(at_us) => return Next::At(at_us),
                Due::Over => return Next::Over,
            }
            out.extend_from_slice(b"reserve-with-timeout 0\r\n");
        }
        Next::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_read_and_others_awaited() {
        assert_eq!(answer(b"INSERTED 7\r\nDEL").unwrap(), Some((Answer::Inserted, 12)));
        let reserved = b"RESERVED 12 5\r\nab\r\nc\r\n";
        let whole = Some((Answer::Reserved(12, b"ab\r\nc"), reserved.len()));
        assert_eq!(answer(reserved).unwrap(), whole);
        for end in 0..reserved.len() {
            assert_eq!(answer(&reserved[..end]).unwrap(), None, "{end}");
        }
        assert!(answer(b"OUT_OF_MEMORY\r\n").is_err());
        assert!(answer(b"RESERVED 1 2\r\nabcd\r\n").is_err());
        assert!(answer(b"RESERVED 1 99999999999\r\n").is_err());
        assert!(answer(&[b'x'; 400]).is_err());
    }
}
