//! What a database should hold, kept beside it, and how it is compared with what is found.

use std::collections::BTreeMap;

use phpmq::store::{self, Connection, Memory, Stored};
use phpmq::words::cause::Cause;
use phpmq::words::change::{
    Attributes, Change, Counters, FailureRow, MessageRow, MessageState, OriginRow, SettingRow,
    StateRow,
};
use phpmq::words::ids::{MessageId, QueueId, QueueName, Sequence};
use phpmq::words::settings::QueueLimits;

use super::keys::KeyKind;
use super::random::Random;

/// The most steps that happen together, and the most ids that they draw.
pub const TOGETHER_STEPS_MAX: u64 = 6;

/// All rows of a database. Everything about a message follows from its id, its queue and its
/// length, so that a changed one is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Queue, length, and the last move if it was moved.
    pub(super) messages: BTreeMap<u64, (u64, usize, Option<Move>)>,
    pub(super) queues: BTreeMap<u64, String>,
    /// By queue and key.
    pub(super) keys: BTreeMap<(u64, u64), (Option<MessageId>, KeyKind)>,
    settings: BTreeMap<u64, u32>,
}

/// Everything about a move follows from its number and the queue that the message is in, if that is
/// another one than it was put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    number: u32,
    queue: Option<u64>,
}

/// Ids that may be used.
#[derive(Debug)]
pub struct Ids {
    pub message: u64,
    pub queue: u64,
    /// Those of volatile messages, of which the database hears nothing before they become durable.
    volatile: Vec<u64>,
}

impl Ids {
    /// The next ones, without any volatile message.
    pub fn new(message: u64, queue: u64) -> Ids {
        Ids { message, queue, volatile: Vec::new() }
    }

    /// Now and then a volatile message takes an id.
    pub fn put_volatile(&mut self) {
        if self.message.is_multiple_of(5) {
            self.volatile.push(self.message);
            self.message += 1;
        }
    }

    /// The id of what is put: the next one, or that of a volatile message which becomes durable.
    fn draw(&mut self) -> u64 {
        if self.volatile.len() as u64 > self.message % 7 {
            let at = self.message as usize % self.volatile.len();
            return self.volatile.swap_remove(at);
        }
        self.message += 1;
        self.message - 1
    }
}

/// How much a story writes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub changes_max: u64,
    pub body_bytes_max: u64,
    pub messages_max: usize,
    /// Whether only what the first format can hold is written.
    pub is_first_format: bool,
}

impl Sizes {
    /// Many short commits.
    pub const SMALL: Sizes =
        Sizes { changes_max: 8, body_bytes_max: 3_000, messages_max: 40, is_first_format: false };
    /// So much that the log is moved into the file now and then, and that a rewrite takes several
    /// slices.
    pub const LARGE: Sizes = Sizes {
        changes_max: 12,
        body_bytes_max: 400_000,
        messages_max: 30,
        is_first_format: false,
    };
    /// What a file of the first format can hold.
    pub const FIRST_FORMAT: Sizes = Sizes { is_first_format: true, ..Sizes::SMALL };
}

impl Model {
    /// What is in a database in memory.
    ///
    /// # Panics
    /// When a message is not what was put.
    pub fn found(memory: &Connection) -> Model {
        let mut model = Model::default();
        let mut stored = Vec::new();
        store::scan(memory, |row| match row {
            Stored::Queue(id, name) => drop(model.queues.insert(id.0, name.to_owned())),
            Stored::Message(message) => stored.push(message.clone()),
            Stored::Setting(row) => {
                assert_eq!(row, setting(row.queue.0, row.limits.high), "what is set of a queue");
                model.settings.insert(row.queue.0, row.limits.high);
            }
            Stored::Key(row) => {
                let key = u64::from_be_bytes((*row.key).try_into().unwrap());
                let kind = KeyKind::ALL.into_iter().find(|kind| kind.until() == row.until).unwrap();
                model.keys.insert((row.queue.0, key), (row.message, kind));
            }
        })
        .unwrap();
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
            let moved = message.moved.as_ref().map(|moved| Move {
                number: moved.priority,
                queue: moved.queue.map(|queue| queue.0),
            });
            let state = moved.map(|moved| state(message.id.0, message.queue.0, moved));
            assert_eq!(message.moved, state);
            model.messages.insert(message.id.0, (message.queue.0, length, moved));
        }
        model
    }

    /// What is here and not there, in words.
    pub fn without(&self, other: &Model) -> String {
        let messages = self.messages.iter().filter(|(id, row)| other.messages.get(id) != Some(row));
        let queues = self.queues.keys().filter(|id| !other.queues.contains_key(id));
        let keys = self.keys.iter().filter(|(key, row)| other.keys.get(key) != Some(row));
        let settings = self.settings.iter().filter(|(id, row)| other.settings.get(id) != Some(row));
        format!(
            "messages {:?}, queues {:?}, keys {:?}, settings {:?}",
            messages.collect::<Vec<_>>(),
            queues.collect::<Vec<_>>(),
            keys.collect::<Vec<_>>(),
            settings.collect::<Vec<_>>()
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

    /// The message with the smallest id.
    pub fn first(&self) -> u64 {
        *self.messages.keys().next().unwrap()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// This message is gone.
    pub fn forget(&mut self, id: u64) {
        self.messages.remove(&id);
    }

    /// One more thing happens, whose changes are in one commit.
    pub fn step(&mut self, ids: &mut Ids, sizes: &Sizes, random: &mut Random) -> Vec<Change> {
        let full = self.messages.len() >= sizes.messages_max;
        let kinds = if sizes.is_first_format { 10 } else { 13 };
        let changes: Vec<Change> = match random.below(kinds) {
            0 => vec![self.name_queue(ids)],
            1 => vec![self.forget_queue(random).unwrap_or_else(|| self.name_queue(ids))],
            2..=5 if !full => vec![self.put(ids, sizes, random)],
            6..=7 => self.move_one(sizes, random).into_iter().collect(),
            10 => self.set_queue(random).into_iter().collect(),
            11 if !full => self.put_with_key(ids, sizes, random),
            12 => self.end_key(random),
            _ => self.end_one(random),
        };
        if changes.is_empty() { vec![self.put(ids, sizes, random)] } else { changes }
    }

    /// Several things happen, all of them or none: among them are a put with a key, and a message
    /// that goes to another queue.
    pub fn together(&mut self, ids: &mut Ids, sizes: &Sizes, random: &mut Random) -> Vec<Change> {
        let mut changes = self.put_with_key(ids, sizes, random);
        changes.extend(self.move_one(sizes, random));
        for _ in 2..2 + random.below(TOGETHER_STEPS_MAX - 2) {
            changes.extend(self.step(ids, sizes, random));
        }
        changes.extend(self.end_one(random));
        changes
    }

    /// A queue is named.
    pub fn name_queue(&mut self, ids: &mut Ids) -> Change {
        let (id, name) = (ids.queue, format!("queue {}", ids.queue));
        ids.queue += 1;
        self.queues.insert(id, name.clone());
        Change::QueueNamed { id: QueueId(id), name: QueueName::new(name.as_bytes()).unwrap() }
    }

    fn forget_queue(&mut self, random: &mut Random) -> Option<Change> {
        let is_in = |(queue, _, moved): &(u64, usize, Option<Move>), id: &u64| {
            queue == id || moved.is_some_and(|moved| moved.queue == Some(*id))
        };
        let unused = |id: &u64| {
            self.messages.values().all(|message| !is_in(message, id))
                && self.keys.keys().all(|(queue, _)| queue != id)
                && !self.settings.contains_key(id)
        };
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
        let id = ids.draw();
        self.messages.insert(id, (queue, length, None));
        Change::Put(row(id, queue, length))
    }

    pub(super) fn any(&self, random: &mut Random) -> Option<u64> {
        let at = random.below(self.messages.len() as u64) as usize;
        self.messages.keys().nth(at).copied()
    }

    fn any_queue(&self, random: &mut Random) -> Option<u64> {
        let at = random.below(self.queues.len() as u64) as usize;
        self.queues.keys().nth(at).copied()
    }

    /// A message is moved, if there is one.
    pub fn move_one(&mut self, sizes: &Sizes, random: &mut Random) -> Option<Change> {
        let id = self.any(random)?;
        let number = random.below(1_000_000) as u32;
        let queue = self.messages[&id].0;
        // The first format knows nothing of failures.
        let number = number + u32::from(sizes.is_first_format && number.is_multiple_of(9));
        let mut moved = Move { number, queue: None };
        if !sizes.is_first_format && number.is_multiple_of(3) {
            moved.queue = self.any_queue(random).filter(|other| *other != queue);
        }
        self.messages.get_mut(&id)?.2 = Some(moved);
        Some(Change::Moved(state(id, queue, moved)))
    }

    fn set_queue(&mut self, random: &mut Random) -> Option<Change> {
        let queue = self.any_queue(random)?;
        let limit = random.below(3) as u32;
        match limit {
            0 => self.settings.remove(&queue),
            limit => self.settings.insert(queue, limit),
        };
        Some(Change::QueueSet(setting(queue, limit)))
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

fn state(id: u64, from: u64, Move { number, queue }: Move) -> StateRow {
    let buried = number.is_multiple_of(2);
    // Of those that are where they were put, some have failed too.
    let has_failed = queue.is_some() || number.is_multiple_of(9);
    let failure = FailureRow {
        attempts: number,
        cause: Some([Cause::Failed, Cause::TimedOut][number as usize % 2]),
        returned_ms: Some(i64::from(number)),
        text: number.is_multiple_of(5).then(|| "x".repeat(number as usize % 100).into()),
        origin: queue.map(|_| OriginRow {
            queue: QueueId(from),
            sequence: Sequence(id),
            burial: u64::from(number),
            life_left_ms: number.is_multiple_of(4).then_some(i64::from(number)),
        }),
    };
    StateRow {
        id: MessageId(id),
        queue: queue.map(QueueId),
        state: if buried { MessageState::Buried } else { MessageState::Ready },
        priority: number,
        sequence: Sequence(id + u64::from(number)),
        due: buried.then_some(i64::from(number)),
        expires_ms: None,
        delay_ms: 0,
        counters: Counters { reserves: number, ..Counters::default() },
        failure: (has_failed && number > 0).then(|| Box::new(failure)),
    }
}

fn setting(queue: u64, limit: u32) -> SettingRow {
    let limits = QueueLimits { high: limit, normal: limit / 2, low: 0 };
    SettingRow { queue: QueueId(queue), paused: limit == 1, limits }
}
