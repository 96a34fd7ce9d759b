//! The wire: listening sockets, the threads of connections, and what is sent to their peers.
//!
//! ```text
//!  listener ─► connection (reads, decodes) ─► channels ─► dispatcher ─► outbox ─► peer
//!                                                           (a slow peer gets a writer)
//! ```

pub mod admission;
pub mod bind;
pub mod clients;
pub mod connection;
pub mod hang_ups;
pub mod listener;
pub mod outbox;
pub mod threads;
pub mod writer;
