//! An engine that is no file, behind the same door: the thread serves it as it serves the other.

use super::testing::{Dispatcher, batch, named, put};
use crate::channels::Order;
use crate::store::testing::maps::{MapStore, Maps};
use crate::store::{Slice, Store};
use crate::words::change::Change;
use crate::words::ids::MessageId;

fn kept(maps: &Maps) -> Vec<u64> {
    maps.rows().messages.keys().map(|id| id.0).collect()
}

#[test]
fn an_engine_without_a_file_is_committed_to_and_closed() {
    let maps = Maps::default();
    // It is not reached when the daemon starts.
    let dispatcher = Dispatcher::serve(maps.unconnected());
    dispatcher.commit(batch(vec![named(), put(1), put(2)]), false).unwrap();
    dispatcher.commit(batch(vec![Change::Removed(MessageId(1)), put(3)]), true).unwrap();
    assert_eq!(kept(&maps), [2, 3]);
    assert_eq!(dispatcher.progress.commits(), 2);
    dispatcher.close(batch(vec![put(4)])).unwrap();
    assert_eq!(kept(&maps), [2, 3, 4]);
}

#[test]
fn an_engine_without_a_file_is_filled_anew() {
    let maps = Maps::default();
    let store = MapStore::open(&maps, &mut |_| ()).unwrap().store.unwrap();
    let dispatcher = Dispatcher::serve(store);
    dispatcher.commit(batch(vec![put(1)]), false).unwrap();
    let slice = Box::new(Slice { first: true, last: true, ..Slice::default() });
    dispatcher.order(Order::Rewrite { slice, batch: batch(vec![put(7)]) }).unwrap();
    assert_eq!(kept(&maps), [7]);
    dispatcher.close(batch(vec![])).unwrap();
}
