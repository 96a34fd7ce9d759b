//! phpmqd, a lightweight, durable message queue server.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Words that everyone shares.
pub mod change;
pub mod clock;
pub mod command;
pub mod ids;
pub mod limits;

// The wire.
pub mod bind;
pub mod clients;
pub mod connection;
pub mod gate;
pub mod listener;
pub mod outbox;
pub mod protocol;
pub mod threads;
pub mod writer;

// The seam.
pub mod channels;

// The core, one thread.
pub mod dispatcher;
pub mod engine;
pub mod journal;

// The durable side.
pub mod persistence;
pub mod store;

// The process.
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod facts;
pub mod logging;
pub mod privileges;
pub mod signals;
pub mod systemd;
