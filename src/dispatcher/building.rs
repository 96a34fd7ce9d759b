//! The engine as a start builds it from the database in memory.

use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::load::Loader;
use crate::store::{self, Connection, Facts, StoreError, Stored};
use crate::words::change::Change;
use crate::words::clock::Now;
use crate::words::ids::QueueName;
use crate::words::limits::Limits;

/// Builds the engine from what is in memory. Returns with it what it has dropped because its time was
/// over, for [`Dispatcher::run`](super::Dispatcher::run).
///
/// # Errors
/// [`StoreError::Internal`].
pub fn build_engine(
    memory: &Connection,
    facts: &Facts,
    limits: Arc<Limits>,
    beginning: Now,
) -> Result<(Engine, Vec<Change>), StoreError> {
    let engine = Engine::new(limits, facts.next_id, facts.ids_reserved, facts.next_queue_id);
    let mut loader = Loader::new(engine, beginning);
    store::scan(memory, |row| match row {
        Stored::Queue(id, name) => {
            // The checks at start have refused rows whose names no queue can have.
            if let Ok(name) = QueueName::new(name.as_bytes()) {
                loader.queue(id, &name);
            }
        }
        Stored::Setting(row) => loader.setting(row),
        Stored::Message(message) => loader.message(message),
        Stored::Key(row) => loader.key(&row),
    })?;
    Ok(loader.finish())
}
