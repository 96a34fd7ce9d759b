//! What a database would hold of an engine's changes, for tests that end a life of the daemon and
//! begin another.

use std::collections::BTreeMap;

use crate::words::change::{Change, KeyRow, SettingRow, StoredMessage};
use crate::words::ids::{MessageId, QueueId, QueueName};

use super::load::Loader;

#[derive(Default)]
pub struct Rows {
    queues: BTreeMap<QueueId, QueueName>,
    messages: BTreeMap<MessageId, StoredMessage>,
    keys: BTreeMap<(QueueId, Box<[u8]>), KeyRow>,
    settings: BTreeMap<QueueId, SettingRow>,
}

impl Rows {
    /// Carries out a change, which must fit what is there.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::QueueNamed { id, name } => {
                assert!(self.queues.insert(id, name).is_none(), "queue {id} is named twice");
            }
            Change::QueueGone(id) => {
                assert!(self.queues.remove(&id).is_some(), "queue {id} is not there");
                assert!(!self.keys.keys().any(|(queue, _)| *queue == id), "keys of no queue");
                assert!(!self.settings.contains_key(&id), "settings of no queue");
                let named = |message: &StoredMessage| {
                    let moved = message.moved.as_ref();
                    let origin = moved.and_then(|row| row.failure.as_ref()?.origin);
                    let queues =
                        [moved.and_then(|row| row.queue), origin.map(|origin| origin.queue)];
                    message.queue == id || queues.contains(&Some(id))
                };
                assert!(!self.messages.values().any(named), "messages of no queue");
            }
            Change::Put(row) => {
                let twice = self.messages.insert(row.id, StoredMessage::from(&row));
                assert!(twice.is_none(), "{} is put twice", row.id);
            }
            Change::Moved(row) => {
                let id = row.id;
                let origin = row.failure.as_ref().and_then(|failure| failure.origin);
                for queue in row.queue.into_iter().chain(origin.map(|origin| origin.queue)) {
                    assert!(self.queues.contains_key(&queue), "{id} is in no queue");
                }
                let there = self.messages.get_mut(&id);
                there.unwrap_or_else(|| panic!("{id} was moved when gone")).moved = Some(row);
            }
            Change::Removed(id) => {
                assert!(self.messages.remove(&id).is_some(), "{id} is removed when gone");
            }
            Change::KeySet(row) => {
                assert!(self.queues.contains_key(&row.queue), "a key of no queue");
                let place = (row.queue, row.key.clone());
                let old = self.keys.insert(place, row.clone());
                // What holds it may go; another message must not have it before it was free.
                let passes = old.is_none_or(|old| row.message.is_none() && old.message.is_some());
                assert!(passes, "a key is taken twice: {row:?}");
            }
            Change::KeyGone { queue, key } => {
                assert!(self.keys.remove(&(queue, key)).is_some(), "a key is freed that is free");
            }
            Change::QueueSet(row) => {
                assert!(self.queues.contains_key(&row.queue), "settings of no queue");
                self.settings.insert(row.queue, row);
                self.settings.retain(|_, row| !row.is_default());
            }
        }
    }

    /// Has a new life begin with them.
    pub fn load(&self, loader: &mut Loader) {
        self.queues.iter().for_each(|(id, name)| loader.queue(*id, name));
        self.settings.values().for_each(|row| loader.setting(*row));
        self.messages.values().for_each(|row| loader.message(row));
        self.keys.values().for_each(|row| loader.key(row));
    }
}
