//! The rows of a database in plain maps, and what they must be.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::{Batch, Row};
use crate::store::{Memory, Slice, Slices};
use crate::words::change::{MessageRow, MessageState, StateRow};
use crate::words::ids::{MessageId, QueueId, QueueName};

/// Large messages: some of them are brought into memory over several turns and fill several slices,
/// and their batches stay apart while memory lags behind.
pub const LARGE_BYTES: usize = 600_000;
pub static FILLER: [u8; LARGE_BYTES] = [b'x'; LARGE_BYTES];

/// A message that lives.
pub struct Message {
    pub queue: usize,
    /// Bytes of its body behind the part that says whose it is.
    pub filler: usize,
    pub priority: u32,
    pub state: MessageState,
    /// Who has reserved it.
    pub holder: Option<usize>,
    /// Whether no database has it.
    pub is_volatile: bool,
}

pub type Living = BTreeMap<MessageId, Message>;

/// How a body begins.
pub fn mark(id: MessageId) -> String {
    format!("{id}:")
}

impl Message {
    pub fn is_large(&self) -> bool {
        self.filler == LARGE_BYTES
    }

    pub fn has_body(&self, id: MessageId, body: &[u8]) -> bool {
        body.strip_prefix(mark(id).as_bytes()) == Some(&FILLER[..self.filler])
    }
}

pub fn queue_name(queue: usize) -> String {
    format!("q{queue}")
}

/// What is in a database.
#[derive(Default, PartialEq)]
pub struct Rows {
    pub queues: BTreeMap<QueueId, QueueName>,
    pub messages: BTreeMap<MessageId, MessageRow>,
    pub states: BTreeMap<MessageId, StateRow>,
}

impl Rows {
    pub fn of(memory: &mut Memory<'_>) -> Rows {
        let (mut rows, mut slices) = (Rows::default(), Slices::begin(memory).unwrap());
        loop {
            let slice = slices.next_slice(memory).unwrap();
            rows.add(&slice);
            if slice.last {
                return rows;
            }
        }
    }

    pub fn add(&mut self, slice: &Slice) {
        self.queues.extend(slice.queues.iter().cloned());
        for (row, state) in &slice.messages {
            self.messages.insert(row.id, row.clone());
            self.states.extend(state.clone().map(|state| (state.id, state)));
        }
    }

    pub fn apply(&mut self, batch: &Batch) {
        self.queues.extend(batch.queues_named().into_iter().map(|(id, name)| (id, name.clone())));
        for row in batch.part(0..batch.places()) {
            match row {
                Row::Put(row) => drop(self.messages.insert(row.id, row.clone())),
                Row::Moved(state) => drop(self.states.insert(state.id, state.clone())),
                Row::Removed(id) => {
                    self.messages.remove(&id);
                    self.states.remove(&id);
                }
            }
        }
        self.queues.retain(|id, _| !batch.queues_gone().contains(id));
    }

    /// These must be the messages that live, and their queues.
    pub fn check(&self, living: &Living, used: &[usize]) {
        let found: Vec<_> = self.messages.keys().collect();
        let durable = || living.iter().filter(|(_, message)| !message.is_volatile);
        let expected: Vec<_> = durable().map(|(id, _)| id).collect();
        assert_eq!(found, expected, "found, and living");
        assert!(self.states.keys().all(|id| self.messages.contains_key(id)), "a state is left");
        for (id, message) in durable() {
            let row = &self.messages[id];
            let moved = self.states.get(id).map(|moved| (moved.state, moved.priority));
            let found = moved.unwrap_or((MessageState::Ready, row.priority));
            assert_eq!(found, (message.state, message.priority), "of message {id}");
            assert_eq!(self.queues[&row.queue].as_str(), queue_name(message.queue), "of {id}");
            assert!(message.has_body(*id, &row.body), "the body of message {id}");
        }
        let with_messages = living.values().map(|message| message.queue);
        self.check_queues(&with_messages.chain(used.iter().copied()).map(queue_name).collect());
    }

    fn check_queues(&self, needed: &BTreeSet<String>) {
        let names: BTreeSet<_> = self.queues.values().map(QueueName::as_str).collect();
        assert_eq!(names.len(), self.queues.len(), "a queue is there twice");
        assert!(names.iter().all(|name| needed.contains(*name)), "{names:?} for {needed:?}");
    }
}
