//! Connect, put one message, wait for its answer, close: what a web request does that queues one
//! job. One thread a client, as each of them is a process of its own in life.

use std::io::Write;

use super::conversation::{Due, Moment, Schedule, Shared, Tally};
use super::fault::Fault;
use super::ledger::push_number;
use super::line::read_lines;
use super::options::Plan;
use crate::words::clock::monotonic_us;

/// The visits of client number `number`.
///
/// # Errors
/// The server is not there or does not answer as it should.
pub fn run(plan: &Plan, shared: &Shared, number: usize) -> Result<Tally, Fault> {
    let mut tally = Tally::new(plan);
    let producer = u32::try_from(number).unwrap_or(u32::MAX);
    let mut schedule = Schedule::new(plan, producer);
    let queue = plan.queue_name(producer % plan.queues);
    shared.await_ready(monotonic_us);
    loop {
        let now_us = monotonic_us();
        let due = schedule.next(&mut Moment { now_us, plan, shared, tally: &mut tally });
        let stamp = match due {
            Due::Now(stamp) => stamp,
            Due::At(at_us) => {
                std::thread::park_timeout(std::time::Duration::from_micros(at_us - now_us));
                continue;
            }
            Due::Over => return Ok(tally),
        };
        let mut message = format!("use {queue}\r\nput 0 0 600 ").into_bytes();
        push_number(plan.size as u64, &mut message);
        message.extend_from_slice(b"\r\n");
        plan.bodies.write(stamp, &mut message);
        message.extend_from_slice(b"\r\n");
        if let Err(fault) = visit(plan, &message) {
            shared.fail();
            return Err(fault);
        }
        tally.count(stamp.due_us, monotonic_us());
        shared.publish(1, 1);
        if shared.has_failed() {
            return Ok(tally);
        }
    }
}

fn visit(plan: &Plan, message: &[u8]) -> Result<(), Fault> {
    let mut socket = plan.target.connect().map_err(Fault::Connection)?;
    socket.write_all(message).map_err(Fault::Connection)?;
    read_lines(&mut socket, &[b"USING ", b"INSERTED "])
}
