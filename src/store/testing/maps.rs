//! A second engine behind the door: it keeps its rows in maps, which outlive who has them open, as a
//! file does.
//!
//! # Failure
//! A commit fails when it is told to. Then its rows may be kept or not, and nothing more is taken
//! before all rows have come anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::{
    AtStart, Committer, Ending, Facts, Renewed, Sizes, Slice, Store, StoreError, Successor, filled,
};
use crate::journal::{Batch, Row};
use crate::words::change::{KeyRow, MessageRow, SettingRow, StateRow};
use crate::words::clock::Now;
use crate::words::ids::{MessageId, QueueId, QueueName};
use crate::words::limits::ID_BLOCK;

/// Where rows are kept: whoever has this can open them, one after the other.
#[derive(Clone, Default)]
pub struct Maps(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    rows: Rows,
    ids_reserved: u64,
    /// The first id that was never handed out, after an orderly stop.
    clean_stop: Option<u64>,
    clock: Option<Now>,
    is_open: bool,
    /// What becomes of the next commit.
    fails: Option<Fails>,
}

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Its rows are kept all the same.
    Kept,
    Lost,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub queues: BTreeMap<QueueId, QueueName>,
    pub messages: BTreeMap<MessageId, (MessageRow, Option<StateRow>)>,
    pub settings: BTreeMap<QueueId, SettingRow>,
    pub keys: BTreeMap<(QueueId, Box<[u8]>), KeyRow>,
}

/// The rows, open or not.
pub struct MapStore {
    maps: Maps,
    is_connected: bool,
}

pub struct MapCommitter<'s> {
    store: &'s MapStore,
    is_suspect: bool,
}

impl Maps {
    /// What is kept.
    pub fn rows(&self) -> Rows {
        self.kept().rows.clone()
    }

    /// The next commit fails.
    pub fn fail(&self, how: Fails) {
        self.kept().fails = Some(how);
    }

    /// A store that is not reached yet.
    pub fn unconnected(&self) -> MapStore {
        MapStore { maps: self.clone(), is_connected: false }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl Kept {
    fn apply(&mut self, batch: &Batch) {
        self.rows.apply(batch);
        self.note(batch);
    }

    fn note(&mut self, batch: &Batch) {
        self.ids_reserved = batch.ids_reserved().unwrap_or(self.ids_reserved);
        self.clock = batch.clock().or(self.clock);
        self.clean_stop = batch.clean_stop();
    }
}

impl Rows {
    fn apply(&mut self, batch: &Batch) {
        let named = batch.queues_named().into_iter();
        self.queues.extend(named.map(|(id, name)| (id, name.clone())));
        for row in batch.part(0..batch.places()) {
            match row {
                Row::Put(row) => drop(self.messages.insert(row.id, (row.clone(), None))),
                Row::Moved(state) => {
                    let message = self.messages.get_mut(&state.id).expect("what is moved is there");
                    message.1 = Some(state.clone());
                }
                Row::Removed(id) => drop(self.messages.remove(&id)),
            }
        }
        for (queue, key, taken) in batch.keys() {
            let place = (queue, Box::from(key));
            match taken {
                Some((message, until)) => {
                    let row = KeyRow { queue, key: key.into(), message, until };
                    self.keys.insert(place, row);
                }
                None => drop(self.keys.remove(&place)),
            }
        }
        for row in batch.settings() {
            self.settings.insert(row.queue, row);
        }
        self.settings.retain(|_, row| !row.is_default());
        self.queues.retain(|id, _| !batch.queues_gone().contains(id));
    }

    fn add(&mut self, slice: &Slice) {
        self.queues.extend(slice.queues.iter().cloned());
        let messages = slice.messages.iter().cloned();
        self.messages.extend(messages.map(|(row, state)| (row.id, (row, state))));
        self.settings.extend(slice.settings.iter().map(|row| (row.queue, *row)));
        let keys = slice.keys.iter().cloned();
        self.keys.extend(keys.map(|row| ((row.queue, row.key.clone()), row)));
    }

    fn slice(&self) -> Slice {
        Slice {
            queues: self.queues.iter().map(|(id, name)| (*id, name.clone())).collect(),
            messages: self.messages.values().cloned().collect(),
            settings: self.settings.values().copied().collect(),
            keys: self.keys.values().cloned().collect(),
            first: true,
            last: true,
            ..Slice::default()
        }
    }
}

fn suspect() -> StoreError {
    StoreError::Suspect { file: "maps".into() }
}

impl Committer for MapCommitter<'_> {
    fn commit(&mut self, batch: &Batch, _: bool) -> Result<(), StoreError> {
        if self.is_suspect {
            return Err(suspect());
        }
        let mut kept = self.store.maps.kept();
        let fails = kept.fails.take();
        if fails != Some(Fails::Lost) {
            kept.apply(batch);
        }
        match fails {
            Some(_) => {
                Err(StoreError::system("maps".as_ref(), std::io::Error::from_raw_os_error(5)))
            }
            None => Ok(()),
        }
    }

    fn facts(&mut self) -> Result<Sizes, StoreError> {
        Ok(Sizes { disk_free_bytes: 1 << 40, ..Sizes::default() })
    }

    fn distrust(&mut self) -> StoreError {
        self.is_suspect = true;
        suspect()
    }
}

impl Store for MapStore {
    type Whereabouts = Maps;
    type Committer<'s> = MapCommitter<'s>;
    type Renewal = Rows;

    fn open(maps: &Maps, progress: &mut dyn FnMut(u64)) -> Result<AtStart<MapStore>, StoreError> {
        let mut kept = maps.kept();
        if std::mem::replace(&mut kept.is_open, true) {
            return Err(StoreError::InUse { file: "maps".into(), pid: None });
        }
        let messages = kept.rows.messages.len() as u64;
        progress(messages);
        let clean_stop = kept.clean_stop.take();
        let next_id = clean_stop.unwrap_or(kept.ids_reserved).max(1);
        kept.ids_reserved = next_id + ID_BLOCK;
        let facts = Facts {
            secret: [7; 16],
            next_id,
            ids_reserved: kept.ids_reserved,
            next_queue_id: kept.rows.queues.keys().next_back().map_or(1, |id| id.0 + 1),
            clock: kept.clock,
            clean_stop: clean_stop.is_some(),
            renewed: Renewed::No,
            messages,
            migrated: false,
        };
        let memory = filled([Ok(kept.rows.slice())])?;
        let store = Some(MapStore { maps: maps.clone(), is_connected: true });
        Ok(AtStart { memory, store, is_connected: true, facts, log_copy: None })
    }

    fn committer(&self) -> Result<Option<MapCommitter<'_>>, StoreError> {
        Ok(self.is_connected.then_some(MapCommitter { store: self, is_suspect: false }))
    }

    fn is_suspect(&self) -> bool {
        false
    }

    fn suspect(&self) -> StoreError {
        suspect()
    }

    fn connect(self) -> (MapStore, Result<(), StoreError>) {
        (MapStore { is_connected: true, ..self }, Ok(()))
    }

    fn name(&self) -> String {
        "maps".to_owned()
    }

    fn follow(&mut self, _: PathBuf) {}

    fn begin_renewal(&self, _: &Slice) -> Result<Rows, StoreError> {
        Ok(Rows::default())
    }

    fn renew(&self, renewal: &mut Rows, batch: &Batch, slice: &Slice) -> Result<(), StoreError> {
        renewal.apply(batch);
        renewal.add(slice);
        self.maps.kept().note(batch);
        Ok(())
    }

    fn discard(_: Rows) {}

    fn finish_renewal(self, renewal: Rows) -> (MapStore, Result<Successor, StoreError>) {
        let rows = (renewal.queues.len() + renewal.messages.len()) as u64;
        self.maps.kept().rows = renewal;
        (self, Ok(Successor { rows, kept: None }))
    }

    fn close(self, messages: Option<u64>) -> Result<Ending, Box<(MapStore, StoreError)>> {
        let found = self.maps.kept().rows.messages.len() as u64;
        if messages.is_some_and(|expected| expected != found) {
            return Err(Box::new((self, suspect())));
        }
        self.maps.kept().is_open = false;
        Ok(Ending::Whole)
    }

    fn leave(self, _: bool) -> Result<(), StoreError> {
        self.maps.kept().is_open = false;
        Ok(())
    }
}
