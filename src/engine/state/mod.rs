//! The data that the rules work on, one kind of thing a file, without a rule of queueing in it.

pub mod deadlines;
pub mod failure;
mod index;
pub mod keys;
pub mod members;
pub mod message;
pub mod queue;
pub mod ready;
pub mod reservation;
pub mod session;
pub mod subscription;
