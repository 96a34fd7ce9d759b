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
pub mod gate;
pub mod protocol;

// The seam.
pub mod channels;

// The core.
pub mod journal;

// The durable side.
pub mod store;

// The process.
pub mod config;
pub mod logging;
pub mod privileges;
pub mod signals;
pub mod systemd;
