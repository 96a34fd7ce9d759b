//! What a commit seldom has any of: queues, keys, what operators have set, notes of the daemon's, and
//! messages that come late.

use rustc_hash::FxHashMap;

use super::batch::REMOVAL_BYTES;
use super::keys::Keys;
use crate::words::change::SettingRow;
use crate::words::clock::Now;
use crate::words::ids::{Part, QueueId, QueueName};

/// The part of a batch that most batches lack.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub named: FxHashMap<QueueId, QueueName>,
    pub gone: Vec<QueueId>,
    pub keys: Keys,
    pub settings: FxHashMap<QueueId, SettingRow>,
    pub ids_reserved: Option<u64>,
    pub clean_stop: Option<u64>,
    pub clock: Option<Now>,
    pub is_tied: bool,
    /// Messages that were put with ids from long ago, at most so many.
    pub late_puts: u64,
}

impl Rare {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
            && self.ids_reserved.is_none()
            && self.clean_stop.is_none()
            && self.clock.is_none()
    }

    /// Rows that it writes or deletes, but for the notes.
    pub fn rows(&self) -> usize {
        self.named.len() + self.gone.len() + self.settings.len() + self.keys.len()
    }

    /// What its entries take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.named.len() as u64 * QUEUE_BYTES
            + self.gone.len() as u64 * REMOVAL_BYTES
            + self.settings.len() as u64 * SETTING_BYTES
            + self.keys.len() as u64 * KEY_BYTES
    }

    /// Queues to write, by number.
    pub fn queues_named(&self) -> Vec<(QueueId, &QueueName)> {
        let mut named: Vec<_> = self.named.iter().map(|(id, name)| (*id, name)).collect();
        named.sort_unstable_by_key(|(id, _)| *id);
        named
    }

    /// What operators have set of queues, by number.
    pub fn settings(&self) -> Vec<SettingRow> {
        let mut settings: Vec<SettingRow> = self.settings.values().copied().collect();
        settings.sort_unstable_by_key(|row| row.queue);
        settings
    }

    /// A queue is gone.
    pub fn queue_gone(&mut self, id: QueueId, file_is_suspect: bool) {
        let was_named = self.named.remove(&id).is_some();
        if !was_named || file_is_suspect {
            self.gone.push(id);
        }
    }

    /// Takes out what is in the file although the whole is not: everything up to this part, with
    /// these queues.
    pub fn split_up_to(&mut self, part: Part, named: FxHashMap<QueueId, QueueName>) -> Rare {
        self.ids_reserved = None;
        self.clock = None;
        let mut kept = Rare { keys: self.keys.split_free(), named, ..Rare::default() };
        if part >= Part::Moves {
            kept.settings = std::mem::take(&mut self.settings);
            kept.gone = std::mem::take(&mut self.gone);
        }
        kept
    }

    /// Adds what happened later. For a suspect file what is in neither any more is still removed.
    pub fn add(&mut self, mut newer: Rare, file_is_suspect: bool) {
        self.named.extend(newer.named);
        for id in newer.gone {
            self.queue_gone(id, file_is_suspect);
        }
        self.settings.extend(newer.settings);
        self.keys.add_all(&mut newer.keys, file_is_suspect);
        self.ids_reserved = newer.ids_reserved.or(self.ids_reserved);
        self.clean_stop = newer.clean_stop.or(self.clean_stop);
        self.clock = newer.clock.or(self.clock);
        self.is_tied |= newer.is_tied;
        self.late_puts += newer.late_puts;
    }
}

/// What entries take, in bytes: their size in the tables above, roughly.
const SETTING_BYTES: u64 = 50;
const QUEUE_BYTES: u64 = 300;
const KEY_BYTES: u64 = 350;
