//! phpmqd, a lightweight, durable message queue server.
//!
//! # The path of a message
//!
//! ```text
//!  peer ─► listener ─► connection ─► protocol::Decoder ─ Requests ─► channels ─┐
//!                     (its thread blocks in read)                             ▼
//!  peer ◄─ outbox ◄─ protocol::Encoder ◄─ Reply, Delivery ◄───────────── dispatcher ─ Input ─► engine
//!         (non-blocking send; a slow peer gets a writer)                   │  ▲   ◄─ Effects ─┘
//!                                    Change ─► journal ─ Batch ─► store (SQLite in memory)
//!                                                         Batch ─► persistence ─► store (SQLite file)
//!                                                                     └─ committed up to N ─► dispatcher
//! ```
//!
//! A volatile message makes no change: its content stays with the dispatcher (`mirror`) until it is
//! gone, or is recorded as put because it has become durable.
//!
//! # Threads
//!
//! | thread | owns | waits on |
//! |---|---|---|
//! | `main` | join handles, the order of start and stop | one channel, fed by signals and ends of threads |
//! | `listen-N` | one listening socket | poll on it and a wake |
//! | `client-N`, one per connection | decoder, input buffer | a blocking read with a time-out |
//! | `dispatcher` | engine, in-memory database, journal, every outbox | its one channel, until the next deadline |
//! | `persistence` | the database file | its channel |
//! | `writer-N`, only while a peer does not keep up | that peer's unsent chunk | a blocking write |
//! | `signals`, `log` | nothing | signals; records to be written |
//!
//! # What is not there
//!
//! No file in `engine` waits, logs, reads a clock or touches a socket; no file in `protocol` does
//! I/O or knows another protocol; no SQL stands outside `store`; no channel is made outside
//! `channels`, and none is unbounded; no clock is read outside `clock`. `tests/it/tidy.rs` checks
//! these rules and who may import whom.
//!
//! The modules below stand in the order of the path.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Words that everyone shares.
pub mod words;

// The wire.
pub mod protocol;
pub mod wire;

// The seam.
pub mod channels;

// The core, one thread.
pub mod dispatcher;
pub mod engine;
pub mod journal;
pub mod mirror;

// The durable side.
pub mod binlog;
pub mod persistence;
pub mod store;

// The process.
pub mod config;
pub mod ctl;
pub mod daemon;
