//! What all decoders have to stand: any bytes, cut anywhere, and content brought to its place.

use std::sync::Arc;

use phpmq::words::output::Output;
use phpmq::words::clock::Time;
use phpmq::words::command::{Command, Reply, Request, Requests};
use phpmq::words::refusal::Refusal;
use phpmq::words::limits::{LimitValues, Limits, REQUESTS_PER_BATCH_MAX};
use phpmq::protocol::{self, Halves, Setup, WireError};

/// Bodies stay below this, so that the fuzzer reaches the limit.
const MESSAGE_BYTES_MAX: usize = 2_000;
/// What a decoder may keep of an incomplete frame: a body and the pieces around it. HTTP has bodies
/// that are no messages, with a limit of their own.
fn pending_bytes_max(name: &str) -> usize {
    if name == "http" { 2 * 1024 * 1024 } else { MESSAGE_BYTES_MAX + 5_000 }
}

type Decoded = (Vec<Request>, Option<WireError>);

/// Decodes in one go and in parts, which must be the same; then answers every request.
///
/// # Panics
/// When a decoder does what it must not.
pub fn decode(name: &str, data: &[u8]) {
    // The first byte says how the rest is cut.
    let Some((cut, bytes)) = data.split_first() else { return };
    let (mut whole, mut encoder) = connect(name);
    let pending_max = pending_bytes_max(name);
    let decoded = feed(whole.as_mut(), std::iter::once(bytes), pending_max);
    let (mut parts, _) = connect(name);
    let size = usize::from(*cut).max(1);
    assert_eq!(decoded, feed(parts.as_mut(), bytes.chunks(size), pending_max), "cut into parts of {size}");

    let mut out = Output::default();
    for Request { tag, command } in &decoded.0 {
        let reply = match command {
            Command::Echo => Reply::Echo,
            _ => Reply::Refused(Refusal::Draining),
        };
        encoder.reply(tag, &reply, &mut out);
    }
}

fn connect(name: &str) -> Halves {
    let values = LimitValues { max_message_size: MESSAGE_BYTES_MAX, ..LimitValues::default() };
    let setup =
        Setup { limits: Arc::new(Limits::new(&values)), secret: [7; 16], options: Arc::default(), is_local_socket: false };
    let protocol = protocol::find(name).expect("each target is named after a protocol");
    (protocol.connect)(&setup)
}

fn feed<'a>(
    decoder: &mut dyn protocol::Decoder,
    parts: impl Iterator<Item = &'a [u8]>,
    pending_max: usize,
) -> Decoded {
    let mut found = Vec::new();
    for (number, part) in parts.enumerate() {
        let mut rest = part;
        // Every other part goes straight to where it belongs, if it is of some content.
        if let Some(place) = decoder.rest().filter(|_| number % 2 == 1) {
            let (direct, behind) = rest.split_at(place.missing.min(rest.len()));
            place.bytes.extend_from_slice(direct);
            rest = behind;
        }
        loop {
            let mut requests = Requests::default();
            let result = decoder.decode(Time(1_000), rest, &mut requests);
            let (count, full) = (requests.len(), requests.is_full());
            assert!(count <= REQUESTS_PER_BATCH_MAX, "{count} requests in a batch");
            found.extend(requests.take());
            match result {
                Err(error) => return (found, Some(error)),
                Ok(taken) => rest = rest.get(taken..).expect("it takes what there is"),
            }
            if matches!(found.last(), Some(Request { command: Command::Quit, .. })) {
                return (found, None);
            }
            let pending = decoder.pending_bytes();
            assert!(pending <= pending_max, "{pending} bytes are kept");
            if !full {
                assert!(rest.is_empty(), "bytes are left behind");
                break;
            }
        }
    }
    (found, None)
}
