//! What the tests of this directory have in common: the thread on one side, the test as dispatcher
//! on the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use slog::Logger;

use super::{Progress, run};
use crate::channels::{self, Event, Finished, Order};
use crate::journal::{Batch, Journal};
use crate::store::{self, Held, Store, StoreError, StoreFile, Stored};
use crate::words::change::{Change, MessageRow};
use crate::words::ids::{MessageId, QueueId, QueueName};

pub(super) fn quiet() -> Logger {
    Logger::root(slog::Discard, slog::o!())
}

pub(super) fn put(id: u64) -> Change {
    let body = format!("body {id}").into_bytes().into();
    let (id, queue) = (MessageId(id), QueueId(1));
    Change::Put(MessageRow { id, queue, body, ..MessageRow::default() })
}

pub(super) fn named() -> Change {
    Change::QueueNamed { id: QueueId(1), name: QueueName::new(b"q").unwrap() }
}

pub(super) fn batch(changes: Vec<Change>) -> Arc<Batch> {
    let mut journal = Journal::new();
    for change in changes {
        journal.record(change);
    }
    journal.take()
}

pub(super) struct Dispatcher {
    pub orders: SyncSender<Order>,
    pub finished: Receiver<Finished>,
    pub events: Receiver<Event>,
    pub progress: Arc<Progress>,
    pub thread: std::thread::JoinHandle<Result<(), StoreError>>,
}

impl Dispatcher {
    pub fn start(file: StoreFile) -> Dispatcher {
        Dispatcher::hold(Held::Open(file))
    }

    pub fn hold(held: Held) -> Dispatcher {
        Dispatcher::serve(held)
    }

    pub fn serve(store: impl Store + Send + 'static) -> Dispatcher {
        let (orders, orders_received) = channels::orders();
        let (finished_sent, finished) = channels::finished();
        let (events_sent, events) = channels::events();
        let progress = Arc::new(Progress::default());
        let shared = progress.clone();
        let body = move || run(store, orders_received, finished_sent, events_sent, shared, quiet());
        let thread = std::thread::Builder::new().spawn(body).unwrap();
        Dispatcher { orders, finished, events, progress, thread }
    }

    pub fn order(&self, order: Order) -> Finished {
        self.orders.send(order).unwrap();
        self.finished.recv().unwrap()
    }

    pub fn commit(&self, batch: Arc<Batch>, sync: bool) -> Finished {
        self.order(Order::Commit { batch, sync })
    }

    pub fn close(self, batch: Arc<Batch>) -> Result<(), StoreError> {
        self.order(Order::Close { batch, messages: None }).unwrap();
        self.thread.join().unwrap()
    }
}

pub(super) fn open(path: &Path) -> store::Opened {
    store::open(Some(path), &mut |_| ()).unwrap()
}

pub(super) fn messages(opened: &store::Opened) -> Vec<u64> {
    let mut ids = Vec::new();
    store::scan(&opened.memory, |row| {
        if let Stored::Message(message) = row {
            ids.push(message.id.0);
        }
    })
    .unwrap();
    ids
}
