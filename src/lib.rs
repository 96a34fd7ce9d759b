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
pub mod persistence;
pub mod store;
