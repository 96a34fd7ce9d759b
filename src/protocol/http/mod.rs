//! HTTP/1.1 for programs that speak nothing else, for scripts, and for whoever operates the daemon
//! (phpmq-http(7)).
//!
//! ```text
//!   bytes ─► head ─► origin ─► route ─► body ─► calls ─► commands, each with a Note in its tag
//!             │ not HTTP, or ambiguous: 400, and nothing more is taken from this connection
//!   bytes ◄─ encoder ◄─ render ◄─ replies, and the Note that came back
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `head`, `chunks` | where a head and a body end, and what is too ambiguous to be answered |
//! | `origin` | whom a browser must not lead here |
//! | `route`, `path`, `query`, `cursor`, `json` | which call is meant, and its parameters |
//! | `calls` | what each call asks of the core |
//! | `note` | what the decoder tells the encoder, in the tag |
//! | `problem` | everything that can be wrong, as RFC 9457 has it |
//! | `render`, `moment` | answers as JSON |
//!
//! Failure: a request that is wrong in itself is answered with a problem in its turn. Where it is
//! not certain where the next request begins, the connection is closed behind that answer.

mod calls;
mod chunks;
mod cursor;
mod decoder;
mod encoder;
mod head;
mod json;
mod moment;
mod note;
mod origin;
mod path;
mod problem;
mod query;
mod render;
mod route;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::protocol::options::{OptionValue, ProtocolOption};
use crate::protocol::{Halves, Manner, Protocol, Setup};

/// The row of the table.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "http",
    default_address: "127.0.0.1:9180",
    default_socket: Some("http.sock"),
    port_shared_with: None,
    manner: Manner::Serial,
    first_queue: None,
    options: &[HOSTS],
    connect,
    too_many_connections: b"HTTP/1.1 503 Service Unavailable\r\n\
        Content-Type: application/problem+json\r\n\
        Content-Length: 146\r\n\
        Retry-After: 1\r\n\
        Connection: close\r\n\r\n\
        {\"type\":\"/v1/problems/too_many_connections\",\"title\":\"Too many connections\",\
        \"status\":503,\"detail\":\"try again later\",\"code\":\"too_many_connections\"}\n",
};

/// Names by which this server is called, beside loopback names and addresses.
const HOSTS: ProtocolOption = ProtocolOption {
    name: "hosts",
    takes: "a list of host names like [\"queue.example.org\"]",
    default: OptionValue::List(Vec::new()),
    accepts: |value| match value {
        OptionValue::List(names) => names.iter().all(|name| origin::is_host_name(name)),
        _ => false,
    },
};

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Its fields at most.
const FIELDS_MAX: usize = 64;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 2 * 1024;
/// The longest body of a request that is no message, in bytes.
const JSON_BYTES_MAX: usize = 1024 * 1024;
/// How deep brackets may be nested in it.
const JSON_DEPTH_MAX: usize = 32;
/// The largest body that is shown inside of JSON, in bytes: what takes a fraction of a millisecond.
const SHOWN_BODY_BYTES_MAX: u64 = 256 * 1024;
/// How many items a page has, and may have at most.
const PAGE_ITEMS: u64 = 100;
const PAGE_ITEMS_MAX: u64 = 1_000;
/// How long a connection may be idle, in milliseconds, where `limits.idle_timeout` says nothing.
const IDLE_MS: u64 = 75_000;
/// How long what a peer still sends is dropped before its connection is closed, in milliseconds: a
/// close with bytes unread could take the last answer from it.
const LINGER_MS: u64 = 1_000;

fn connect(setup: &Setup) -> Halves {
    let hosts = match setup.options.get(HOSTS.name) {
        Some(OptionValue::List(names)) => names.clone(),
        _ => Vec::new(),
    };
    let gate = origin::Gatekeeper::new(setup.is_local_socket, hosts);
    (
        Box::new(decoder::HttpDecoder::new(Arc::clone(&setup.limits), gate)),
        Box::new(encoder::HttpEncoder::default()),
    )
}
