//! The words that every module shares: what is sent, asked, replied and counted, and within which
//! bounds. They import nothing but each other.

pub mod body;
pub mod cause;
pub mod change;
pub mod clock;
pub mod command;
pub mod durability;
pub mod ids;
pub mod key;
pub mod limits;
pub mod output;
pub mod pattern;
pub mod policy;
pub mod printable;
pub mod refusal;
pub mod settings;
pub mod short_bytes;
pub mod statistics;
pub mod subscription;
pub mod tag;
