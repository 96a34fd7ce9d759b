//! Connections that speak php-mq, revision 1: sends have no answer, messages come through a window.

use super::conversation::{Conversation, Due, Moment, Next, Opening, Schedule, Shared};
use super::fault::{Fault, excerpt};
use super::ledger::{LastSeen, number_of};
use super::options::{LineSpec, Plan, Role};

/// Bytes of a message's header, of a packet's, and of an id.
const HEADER_BYTES: usize = 8;
const PACKET_BYTES: usize = 32;
const ID_BYTES: usize = 32;
/// Sends are appended up to so many bytes that have not left.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// The conversation of one connection.
pub fn conversation(plan: &Plan, shared: &Shared, spec: &LineSpec) -> Box<dyn Conversation> {
    let queue = plan.queue_name(spec.queue);
    if spec.role == Role::Take {
        // All that goes before the id is the same in every acknowledgement.
        let mut acknowledgement = b"H0100402".to_vec();
        packet(1, queue.as_bytes(), &mut acknowledgement);
        packet_header(3, ID_BYTES, &mut acknowledgement);
        return Box::new(Taker { queue, acknowledgement, last: LastSeen::default() });
    }
    shared.add_sender();
    let mut head = b"H0100102".to_vec();
    packet(1, queue.as_bytes(), &mut head);
    packet_header(2, plan.size, &mut head);
    Box::new(Sender { head, schedule: Schedule::new(plan, spec.number), is_over: false })
}

fn packet_header(kind: u8, size: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("P{kind:02}{size:029}").as_bytes());
}

fn packet(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    packet_header(kind, content.len(), out);
    out.extend_from_slice(content);
}

/// Sends as fast as the socket takes it and the receivers keep up.
struct Sender {
    /// A message up to its body.
    head: Vec<u8>,
    schedule: Schedule,
    is_over: bool,
}

impl Conversation for Sender {
    fn opening(&self, _plan: &Plan) -> Opening {
        (Vec::new(), &[])
    }

    fn take(
        &mut self,
        _moment: &mut Moment<'_>,
        bytes: &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        if bytes.is_empty() { Ok(0) } else { Err(excerpt(bytes)) }
    }

    fn fill(&mut self, moment: &mut Moment<'_>, out: &mut Vec<u8>) -> Next {
        let mut room = moment.plan.backlog.saturating_sub(moment.shared.backlog());
        while !self.is_over {
            if out.len() > UNSENT_BYTES_MAX {
                // The worker writes again when this has left, at once or when the socket says so.
                return Next::Room;
            }
            if room == 0 {
                return Next::Room;
            }
            match self.schedule.next(moment) {
                Due::Now(stamp) => {
                    out.extend_from_slice(&self.head);
                    moment.plan.bodies.write(stamp, out);
                }
                Due::At(at_us) => return Next::At(at_us),
                Due::Over => {
                    self.is_over = true;
                    moment.shared.remove_sender();
                }
            }
            room -= 1;
        }
        Next::Over
    }
}

/// Receives through a window of `depth` and acknowledges each message.
struct Taker {
    queue: String,
    /// An acknowledgement up to the id.
    acknowledgement: Vec<u8>,
    last: LastSeen,
}

impl Conversation for Taker {
    fn opening(&self, plan: &Plan) -> Opening {
        let mut out = b"H0100202".to_vec();
        packet(1, self.queue.as_bytes(), &mut out);
        packet(4, plan.depth.to_string().as_bytes(), &mut out);
        (out, &[])
    }

    fn take(
        &mut self,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let Some((dispatch, count)) = dispatch(bytes)? else { return Ok(0) };
        if dispatch.queue != self.queue.as_bytes() {
            return Err(Fault::Frame("a message of another queue"));
        }
        let (bodies, ledger) = (&moment.plan.bodies, &mut moment.tally.ledger);
        let stamp = ledger.enter(bodies, dispatch.body, &mut self.last);
        moment.tally.count(stamp.map_or(moment.now_us, |s| s.due_us), moment.now_us);
        out.extend_from_slice(&self.acknowledgement);
        out.extend_from_slice(dispatch.id);
        Ok(count)
    }

    fn fill(&mut self, moment: &mut Moment<'_>, _out: &mut Vec<u8>) -> Next {
        if moment.shared.is_drained() { Next::Over } else { Next::Answer }
    }
}

/// A message from the server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Dispatch<'a> {
    queue: &'a [u8],
    body: &'a [u8],
    id: &'a [u8],
}

/// The message at the front of `bytes`, if it is whole.
fn dispatch(bytes: &[u8]) -> Result<Option<(Dispatch<'_>, usize)>, Fault> {
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    if header != b"H0100303" {
        return Err(excerpt(bytes));
    }
    let mut found = Dispatch::default();
    for _ in 0..3 {
        let Some((head, after)) = rest.split_at_checked(PACKET_BYTES) else { return Ok(None) };
        let (zeros, digits) = head[3..].split_at(PACKET_BYTES - 3 - 10);
        if zeros.iter().any(|byte| *byte != b'0') {
            return Err(Fault::Frame("a packet is far too long"));
        }
        let size = usize::try_from(number_of(digits)?).unwrap_or(usize::MAX);
        let Some((content, after)) = after.split_at_checked(size) else { return Ok(None) };
        match &head[..3] {
            b"P01" => found.queue = content,
            b"P02" => found.body = content,
            b"P03" if size == ID_BYTES => found.id = content,
            _ => return Err(excerpt(rest)),
        }
        rest = after;
    }
    if found.id.is_empty() {
        return Err(Fault::Frame("a message has no id"));
    }
    Ok(Some((found, bytes.len() - rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_message_is_read_and_part_of_one_awaited() {
        let mut bytes = b"H0100303".to_vec();
        packet(1, b"q", &mut bytes);
        packet(2, b"body", &mut bytes);
        packet(3, &[b'a'; 32], &mut bytes);
        let whole = bytes.len();
        bytes.push(b'H');
        let found = Dispatch { queue: b"q", body: b"body", id: &[b'a'; 32] };
        assert_eq!(dispatch(&bytes).unwrap(), Some((found, whole)));
        for end in 0..whole {
            assert_eq!(dispatch(&bytes[..end]).unwrap(), None, "{end}");
        }
        bytes[11] = b'9';
        assert!(dispatch(&bytes).is_err());
        assert!(dispatch(b"H0100404").is_err());
    }
}
