//! What the fuzz targets have in common with nothing else: each module is one promise.

pub mod binlog;
pub mod database;
mod decoder;
mod edit;
pub mod salvage;
mod template;

pub use decoder::decode;
