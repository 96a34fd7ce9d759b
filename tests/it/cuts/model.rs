//! What a database should hold, kept beside it, and how it is compared with what is found.

use std::collections::BTreeMap;

use phpmq::words::change::{Attributes, Change, Counters, MessageRow, MessageState, StateRow};

use phpmq::store::{self, Connection, Memory};
use phpmq::words::ids::{MessageId, QueueId, QueueName, Sequence};

use super::random::Random;

/// All rows of a database. Everything about a message follows from its id, its queue and its
/// length, so that a changed one is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Queue, length, and the number of the last move if it was moved.
    messages: BTreeMap<u64, (u64, usize, Option<u32>)>,
    queues: BTreeMap<u64, String>,
}

/// Ids that may be used.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    pub message: u64,
    pub queue: u64,
}

/// How much a story writes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub changes_max: u64,
    pub body_bytes_max: u64,
    pub messages_max: usize,
}

impl Sizes {
    /// Many short commits.
    pub const SMALL: Sizes = Sizes { changes_max: 8, body_bytes_max: 3_000, messages_max: 40 };
    /// So much that the log is moved into the file now and then, and that a rewrite takes several
    /// slices.
    pub const LARGE: Sizes = Sizes { changes_max: 12, body_bytes_max: 400_000, messages_max: 30 };
}

impl Model {
    /// What is in a database in memory.
    ///
    /// # Panics
    /// When a message is not what was put.
    pub fn found(memory: &Connection) -> Model {
        let mut model = Model::default();
        let mut stored = Vec::new();
        let queue = |id: QueueId, name: &str| {
            model.queues.insert(id.0, name.to_owned());
        };
        store::scan(memory, queue, |message| stored.push(message)).unwrap();
        let mut bodies = Memory::new(memory).unwrap();
        for message in stored {
            let length = usize::try_from(message.body_bytes).unwrap();
            let expected = row(message.id.0, message.queue.0, length);
            let same = bodies.body(message.id, |attributes, body| {
                *attributes == expected.attributes && *body == *expected.body
            });
            assert!(same.unwrap() == Some(true), "message {} was changed", message.id);
            assert_eq!(message.sequence, expected.sequence);
            assert_eq!(message.created_ms, expected.created_ms);
            let moved = message.moved.map(|moved| moved.priority);
            assert_eq!(message.moved, moved.map(|number| state(message.id.0, number)));
            model.messages.insert(message.id.0, (message.queue.0, length, moved));
        }
        model
    }

    /// What is here and not there, in words.
    pub fn without(&self, other: &Model) -> String {
        let messages = self.messages.iter().filter(|(id, row)| other.messages.get(id) != Some(row));
        let queues = self.queues.keys().filter(|id| !other.queues.contains_key(id));
        format!(
            "messages {:?}, queues {:?}",
            messages.collect::<Vec<_>>(),
            queues.collect::<Vec<_>>()
        )
    }

    /// How many messages there are.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// The message with the longest body.
    pub fn longest(&self) -> (u64, Vec<u8>) {
        let longest = self.messages.iter().max_by_key(|(_, (_, length, _))| *length);
        let (id, (queue, length, _)) = longest.unwrap();
        (*id, row(*id, *queue, *length).body.to_vec())
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// This message is gone.
    pub fn forget(&mut self, id: u64) {
        self.messages.remove(&id);
    }

    /// One more thing happens.
    pub fn change(&mut self, ids: &mut Ids, sizes: &Sizes, random: &mut Random) -> Change {
        let full = self.messages.len() >= sizes.messages_max;
        match random.below(10) {
            0 => self.name_queue(ids),
            1 => self.forget_queue(random).unwrap_or_else(|| self.name_queue(ids)),
            2..=5 if !full => self.put(ids, sizes, random),
            6..=7 => self.move_one(random).unwrap_or_else(|| self.put(ids, sizes, random)),
            _ => self.remove(random).unwrap_or_else(|| self.put(ids, sizes, random)),
        }
    }

    /// A queue is named.
    pub fn name_queue(&mut self, ids: &mut Ids) -> Change {
        let (id, name) = (ids.queue, format!("queue {}", ids.queue));
        ids.queue += 1;
        self.queues.insert(id, name.clone());
        Change::QueueNamed { id: QueueId(id), name: QueueName::new(name.as_bytes()).unwrap() }
    }

    fn forget_queue(&mut self, random: &mut Random) -> Option<Change> {
        let unused = |id: &u64| self.messages.values().all(|(queue, ..)| queue != id);
        let unused: Vec<u64> = self.queues.keys().copied().filter(unused).collect();
        let id = *unused.get(random.below(unused.len() as u64) as usize)?;
        self.queues.remove(&id);
        Some(Change::QueueGone(QueueId(id)))
    }

    /// A message is put.
    pub fn put(&mut self, ids: &mut Ids, sizes: &Sizes, random: &mut Random) -> Change {
        if self.queues.is_empty() {
            return self.name_queue(ids);
        }
        let queues: Vec<u64> = self.queues.keys().copied().collect();
        let queue = queues[random.below(queues.len() as u64) as usize];
        // Short ones more often than long ones.
        let bound = 1 + random.below(sizes.body_bytes_max);
        let length = random.below(bound) as usize;
        let id = ids.message;
        ids.message += 1;
        self.messages.insert(id, (queue, length, None));
        Change::Put(row(id, queue, length))
    }

    fn any(&self, random: &mut Random) -> Option<u64> {
        let at = random.below(self.messages.len() as u64) as usize;
        self.messages.keys().nth(at).copied()
    }

    /// A message is moved, if there is one.
    pub fn move_one(&mut self, random: &mut Random) -> Option<Change> {
        let id = self.any(random)?;
        let number = random.below(1_000_000) as u32;
        self.messages.get_mut(&id)?.2 = Some(number);
        Some(Change::Moved(state(id, number)))
    }

    /// A message is removed, if there is one.
    pub fn remove(&mut self, random: &mut Random) -> Option<Change> {
        let id = self.any(random)?;
        self.messages.remove(&id);
        Some(Change::Removed(MessageId(id)))
    }
}

fn row(id: u64, queue: u64, length: usize) -> MessageRow {
    let mut attributes = Attributes::default();
    if id.is_multiple_of(3) {
        attributes.push("id", &id.to_be_bytes());
    }
    let mut random = Random::new(id);
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        body.extend_from_slice(&random.next().to_le_bytes());
    }
    body.truncate(length);
    MessageRow {
        id: MessageId(id),
        queue: QueueId(queue),
        priority: (id % 7) as u32,
        sequence: Sequence(id),
        created_ms: 1_700_000_000_000 + id as i64,
        expires_ms: None,
        due_ms: None,
        time_to_run_ms: 60_000,
        attributes,
        body: body.into(),
    }
}

fn state(id: u64, number: u32) -> StateRow {
    let buried = number.is_multiple_of(2);
    StateRow {
        id: MessageId(id),
        state: if buried { MessageState::Buried } else { MessageState::Ready },
        priority: number,
        sequence: Sequence(id + u64::from(number)),
        due: buried.then_some(i64::from(number)),
        expires_ms: None,
        delay_ms: 0,
        counters: Counters { reserves: number, ..Counters::default() },
    }
}
