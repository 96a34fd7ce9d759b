//! An engine that is no file, behind the same door: the thread serves it as it serves the other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::testing::{Dispatcher, batch, put};
use crate::channels::Order;
use crate::journal::{Batch, Row};
use crate::store::{Committer, Ending, Sizes, Slice, Store, StoreError, Successor};
use crate::words::ids::MessageId;

/// The ids of messages, where a test can see them.
type Kept = Arc<Mutex<Vec<u64>>>;

struct Engine {
    kept: Kept,
    is_open: bool,
}

struct EngineCommitter<'s> {
    engine: &'s Engine,
    is_suspect: bool,
}

fn suspect() -> StoreError {
    StoreError::Suspect { file: "engine".into() }
}

fn apply(kept: &mut Vec<u64>, batch: &Batch) {
    for row in batch.part(0..batch.places()) {
        match row {
            Row::Put(row) => kept.push(row.id.0),
            Row::Removed(MessageId(id)) => kept.retain(|other| *other != id),
            Row::Moved(_) => {}
        }
    }
}

impl Committer for EngineCommitter<'_> {
    fn commit(&mut self, batch: &Batch, _: bool) -> Result<(), StoreError> {
        if self.is_suspect {
            return Err(suspect());
        }
        apply(&mut self.engine.kept.lock().unwrap(), batch);
        Ok(())
    }

    fn facts(&mut self) -> Result<Sizes, StoreError> {
        Ok(Sizes::default())
    }

    fn distrust(&mut self) -> StoreError {
        self.is_suspect = true;
        suspect()
    }
}

impl Store for Engine {
    type Committer<'s> = EngineCommitter<'s>;
    type Renewal = Vec<u64>;

    fn committer(&self) -> Result<Option<EngineCommitter<'_>>, StoreError> {
        Ok(self.is_open.then_some(EngineCommitter { engine: self, is_suspect: false }))
    }

    fn is_suspect(&self) -> bool {
        false
    }

    fn suspect(&self) -> StoreError {
        suspect()
    }

    fn connect(self) -> (Engine, Result<(), StoreError>) {
        (Engine { is_open: true, ..self }, Ok(()))
    }

    fn name(&self) -> String {
        "engine".to_owned()
    }

    fn follow(&mut self, _: PathBuf) {}

    fn begin_renewal(&self, _: &Slice) -> Result<Vec<u64>, StoreError> {
        Ok(Vec::new())
    }

    fn renew(
        &self,
        renewal: &mut Vec<u64>,
        batch: &Batch,
        slice: &Slice,
    ) -> Result<(), StoreError> {
        apply(renewal, batch);
        renewal.extend(slice.messages.iter().map(|(row, _)| row.id.0));
        Ok(())
    }

    fn discard(_: Vec<u64>) {}

    fn finish_renewal(self, renewal: Vec<u64>) -> (Engine, Result<Successor, StoreError>) {
        let rows = renewal.len() as u64;
        *self.kept.lock().unwrap() = renewal;
        (self, Ok(Successor { rows, kept: None }))
    }

    fn close(self, _: Option<u64>) -> Result<Ending, Box<(Engine, StoreError)>> {
        Ok(Ending::Whole)
    }

    fn leave(self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_engine_without_a_file_is_committed_to_and_closed() {
    let kept = Kept::default();
    // It is not reached when the daemon starts.
    let dispatcher = Dispatcher::serve(Engine { kept: Arc::clone(&kept), is_open: false });
    dispatcher.commit(batch(vec![put(1), put(2)]), false).unwrap();
    let removed = crate::words::change::Change::Removed(MessageId(1));
    dispatcher.commit(batch(vec![removed, put(3)]), true).unwrap();
    assert_eq!(*kept.lock().unwrap(), [2, 3]);
    assert_eq!(dispatcher.progress.commits(), 2);
    dispatcher.close(batch(vec![put(4)])).unwrap();
    assert_eq!(*kept.lock().unwrap(), [2, 3, 4]);
}

#[test]
fn an_engine_without_a_file_is_filled_anew() {
    let kept = Kept::default();
    let dispatcher = Dispatcher::serve(Engine { kept: Arc::clone(&kept), is_open: true });
    dispatcher.commit(batch(vec![put(1)]), false).unwrap();
    let slice = Slice { first: true, last: true, ..Slice::default() };
    dispatcher.order(Order::Rewrite { slice, batch: batch(vec![put(7)]) }).unwrap();
    assert_eq!(*kept.lock().unwrap(), [7]);
    dispatcher.close(batch(vec![])).unwrap();
}
