//! Plays the dispatcher for the real persistence thread on a simulated disk, life after life, and
//! compares what each start finds with what may be there.
//!
//! The rule is stronger than "nothing confirmed is lost": what is found must be exactly what the
//! database held at one of the commits since the last one that is certain. So nothing is lost,
//! nothing comes back, and no commit is there by half.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use phpmq::channels::{self, Event, Finished, Order};
use phpmq::journal::{Batch, Journal};
use phpmq::persistence::{self, Progress};
use phpmq::store::{self, Memory, Opened, Remedy, Renewed, Slices, StoreError};

use super::disk::{Disk, End, Plan};
use super::model::{Ids, Model, Sizes, TOGETHER_STEPS_MAX};
use super::random::Random;

/// How a life went.
pub enum Life {
    /// The disk has ended.
    Ended,
    /// Everything was closed in order.
    Closed,
    /// It could not begin; only when the disk failed.
    Refused(StoreError),
    /// It went on to its last batch, and the disk has not ended.
    Lived,
    /// A promise was broken.
    Broken(String),
}

/// What keeps the steps that happen together in one commit, or fails to, so that it is known that
/// this is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// All that the dispatcher does for it.
    Whole,
    /// A batch is handed over in the midst of them.
    AcrossBatches,
    /// Their batch is like any other, of which a full disk takes the parts that it has room for.
    Untied,
}

pub struct Story {
    pub disk: Arc<Disk>,
    pub random: Random,
    pub sizes: Sizes,
    pub together: Together,
    /// Whether there is no commit without steps that happen together. Of others a full disk may take
    /// a part, and then what is found is none of the candidates.
    pub ties_all: bool,
    /// What the database may hold, the oldest first: everything from the last certain commit on.
    candidates: Vec<Model>,
    /// The first of them that may be found when only processes have ended.
    confirmed: usize,
    only_processes_ended: bool,
    highest_id: u64,
    /// How the lives went, for who reads of a broken promise.
    history: Vec<String>,
    pub commits: u64,
    /// How often several steps happened together.
    pub times_together: u64,
    pub rewrites: u64,
    /// Orders that failed while the disk had not ended.
    pub failures: u64,
    /// Whether a commit has succeeded since the last one that failed.
    pub recovered: bool,
}

/// The other side of the persistence thread.
struct Orders {
    orders: SyncSender<Order>,
    finished: Receiver<Finished>,
    // So that its wakes arrive somewhere.
    _events: Receiver<Event>,
    thread: std::thread::JoinHandle<Result<(), StoreError>>,
}

impl Orders {
    fn start(held: store::Held) -> Orders {
        let (orders, orders_received) = channels::orders();
        let (finished_sent, finished) = channels::finished();
        let (events_sent, events) = channels::events();
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let progress = Arc::new(Progress::default());
        let body = move || {
            persistence::run(held, orders_received, finished_sent, events_sent, progress, log)
        };
        let thread = std::thread::Builder::new().name("persistence".into()).spawn(body).unwrap();
        Orders { orders, finished, _events: events, thread }
    }

    fn ask(&self, order: Order) -> Option<Finished> {
        self.orders.send(order).ok()?;
        self.finished.recv().ok()
    }

    fn end(self) -> Result<(), StoreError> {
        drop(self.orders);
        self.thread.join().expect("persistence does not panic")
    }
}

impl Story {
    pub fn new(mut random: Random, sizes: Sizes) -> Story {
        Story {
            disk: Disk::new(random.fork()),
            random,
            sizes,
            together: Together::Whole,
            ties_all: false,
            candidates: vec![Model::default()],
            confirmed: 0,
            only_processes_ended: true,
            highest_id: 0,
            history: Vec::new(),
            commits: 0,
            times_together: 0,
            rewrites: 0,
            failures: 0,
            recovered: true,
        }
    }

    /// The disk as the next life finds it.
    pub fn restart(&mut self, end: End) {
        self.only_processes_ended &= end == End::Process;
        self.history.push(format!("{end:?} at {}", self.disk.changes()));
        let next = self.disk.restarted(end);
        self.disk.remove();
        self.disk = next;
    }

    /// Changes one byte of one message of a closed database; says which.
    pub fn damage_one(&mut self) -> u64 {
        let path = self.disk.database();
        let bytes = std::fs::read(&path).unwrap();
        let (id, body) = self.candidates[0].longest();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // A part of it: the rest may be on another page. And wherever it was before.
        for (at, window) in bytes.windows(64).enumerate() {
            if window == &body[..64] {
                file.write_all_at(&[!bytes[at]], at as u64).unwrap();
            }
        }
        file.sync_all().unwrap();
        id
    }

    /// How many messages there are.
    pub fn messages(&self) -> usize {
        self.candidates[0].messages()
    }

    /// The first message.
    pub fn first(&self) -> u64 {
        self.candidates[0].first()
    }

    /// This message is no longer expected.
    pub fn forget(&mut self, id: u64) {
        self.candidates[0].forget(id);
    }

    /// One life: opens the database and makes so many commits, as far as it gets.
    pub fn live(&mut self, plan: Plan, batches: u64, closes: bool) -> Life {
        self.disk.plan(plan);
        let opened = match store::open(Some(&self.disk.database()), &mut |_| ()) {
            Ok(opened) => opened,
            Err(_) if self.disk.has_ended() => return Life::Ended,
            Err(error) if self.disk.faults() > 0 => return Life::Refused(error),
            Err(error) => {
                let before = &self.history;
                return Life::Broken(format!("can not be opened: {error}; before: {before:?}"));
            }
        };
        let model = match self.compare(&opened) {
            Ok(found) => found,
            Err(broken) => return Life::Broken(broken),
        };
        if opened.file.is_some() && !self.disk.has_ended() && !self.disk.lock().has("q.db-wal") {
            return Life::Broken("it goes on without a write-ahead log".into());
        }
        let Opened { memory, file, unopened, facts, log_copy: _ } = opened;
        let held = file.map(store::Held::Open).or(unopened.map(store::Held::Closed));
        let orders = Orders::start(held.unwrap());
        let mut dispatcher = Dispatcher {
            memory: Memory::new(&memory).unwrap(),
            lag: Vec::new(),
            journal: Journal::new(),
            model,
            ids: Ids::new(facts.next_id, facts.next_queue_id),
            reserved: facts.ids_reserved,
            suspect: false,
        };
        // A disk that failed at the end of the story gets the chance to work again.
        let mut turns = 0;
        while turns < batches || (!self.recovered && turns < batches + 30) {
            turns += 1;
            if !self.turn(&mut dispatcher, &orders) {
                break;
            }
        }
        // Of a reservation that a start has found, and that is not certain, none need be handed out.
        if dispatcher.ids.message > facts.next_id {
            self.highest_id = self.highest_id.max(dispatcher.ids.message - 1);
        }
        self.history
            .push(format!("ids up to {} of {}", dispatcher.ids.message, dispatcher.reserved));
        if closes && !self.disk.has_ended() && self.close(&mut dispatcher, &orders) {
            let ended = orders.end();
            return match ended {
                Err(error) if self.disk.faults() == 0 && !self.disk.has_ended() => {
                    Life::Broken(format!("can not be closed: {error}"))
                }
                _ => Life::Closed,
            };
        }
        // What becomes of the thread after the end is nobody's concern.
        let lived = !self.disk.has_ended();
        self.disk.end();
        let _ = orders.end();
        if lived { Life::Lived } else { Life::Ended }
    }

    /// Whether what was found may be there, which is returned. It is certain from now on, unless a
    /// suspect file was read that the disk has no room to write again.
    fn compare(&mut self, opened: &Opened) -> Result<Model, String> {
        let found = Model::found(&opened.memory);
        let from = if self.only_processes_ended { self.confirmed } else { 0 };
        if !self.candidates[from..].contains(&found) {
            let (first, last) = (&self.candidates[from], self.candidates.last());
            let last = last.unwrap_or(first);
            return Err(format!(
                "what is found is none of {} states; before: {:?}; found and not in the first: \
                 {}; in the first and not found: {}; found and not in the last: {}; in the last \
                 and not found: {}",
                self.candidates.len() - from,
                self.history,
                found.without(first),
                first.without(&found),
                found.without(last),
                last.without(&found),
            ));
        }
        if opened.facts.next_id <= self.highest_id {
            let (next, highest) = (opened.facts.next_id, self.highest_id);
            return Err(format!(
                "id {highest} was handed out and would be again from {next} on ({:?}); before: {:?}",
                opened.facts, self.history
            ));
        }
        if opened.facts.renewed == Renewed::NotYet {
            self.candidates.push(found.clone());
            self.confirmed = self.candidates.len() - 1;
        } else {
            self.certain(found.clone());
        }
        self.only_processes_ended = true;
        Ok(found)
    }

    /// This is on the disk.
    fn certain(&mut self, model: Model) {
        self.candidates.clear();
        self.candidates.push(model);
        self.confirmed = 0;
    }

    /// Some changes and one order, as the dispatcher gives it. Says whether life goes on.
    fn turn(&mut self, dispatcher: &mut Dispatcher<'_>, orders: &Orders) -> bool {
        for _ in 0..self.random.below(self.sizes.changes_max) {
            dispatcher.step(&self.sizes, &mut self.random);
        }
        if dispatcher.suspect {
            return self.rewrite(dispatcher, orders);
        }
        let may_be = !self.sizes.is_first_format;
        let is_together = may_be && (self.ties_all || self.random.below(3) == 0);
        if is_together && !self.step_together(dispatcher, orders) {
            return false;
        }
        self.candidates.push(dispatcher.model.clone());
        self.commit(dispatcher, orders)
    }

    /// Several steps that happen together, after others of the same batch. Says whether life goes on.
    fn step_together(&mut self, dispatcher: &mut Dispatcher<'_>, orders: &Orders) -> bool {
        if !dispatcher.has_ids(TOGETHER_STEPS_MAX) {
            // Nothing happens; what stands in the batch may not be parted all the same.
            dispatcher.journal.tie();
            return true;
        }
        self.times_together += 1;
        let before = dispatcher.model.clone();
        let mut changes =
            dispatcher.model.together(&mut dispatcher.ids, &self.sizes, &mut self.random);
        let rest = changes.split_off(changes.len() / 2);
        if self.together != Together::Untied {
            dispatcher.journal.tie();
        }
        changes.into_iter().for_each(|change| dispatcher.journal.record(change));
        if self.together == Together::AcrossBatches {
            self.candidates.push(before);
            if !self.commit(dispatcher, orders) || dispatcher.suspect {
                return false;
            }
        }
        rest.into_iter().for_each(|change| dispatcher.journal.record(change));
        true
    }

    /// The order that brings the last of the candidates about. Says whether life goes on.
    fn commit(&mut self, dispatcher: &mut Dispatcher<'_>, orders: &Orders) -> bool {
        let reserving = self.random.below(20) == 0;
        if reserving {
            dispatcher.journal.reserve_ids(dispatcher.reserved + 500);
        }
        let sync = reserving || self.random.below(3) == 0;
        if self.random.below(4) == 0 {
            dispatcher.bring_in();
        }
        let batch = dispatcher.journal.take();
        let Some(finished) = orders.ask(Order::Commit { batch, sync }) else {
            return false;
        };
        let committed = self.committed(dispatcher, finished, sync);
        if committed && reserving {
            // The last ids before the new end are the ones that could be handed out twice.
            dispatcher.reserved += 500;
            dispatcher.ids.message = dispatcher.reserved - 10 - self.random.below(20);
        }
        committed || !self.disk.has_ended()
    }

    /// Takes the answer to a commit as the dispatcher does. Says whether it was good.
    fn committed(
        &mut self,
        dispatcher: &mut Dispatcher<'_>,
        finished: Finished,
        sync: bool,
    ) -> bool {
        match finished {
            Ok(()) => {
                dispatcher.lag.extend(dispatcher.journal.succeeded().1);
                self.succeeded(dispatcher, sync);
                true
            }
            Err(error) => {
                dispatcher.journal.failed();
                self.failed(dispatcher, &error);
                false
            }
        }
    }

    fn succeeded(&mut self, dispatcher: &mut Dispatcher<'_>, sync: bool) {
        dispatcher.journal.known_good();
        dispatcher.suspect = false;
        self.commits += 1;
        self.recovered = true;
        let level = if sync { "sync" } else { "write" };
        self.history.push(format!("{level} at {}", self.disk.changes()));
        if sync {
            let model = self.candidates.pop().unwrap();
            self.certain(model);
        } else {
            self.confirmed = self.candidates.len() - 1;
        }
    }

    fn failed(&mut self, dispatcher: &mut Dispatcher<'_>, error: &StoreError) {
        dispatcher.suspect |= error.remedy() == Remedy::Rewrite;
        self.history.push(format!("{error} at {}", self.disk.changes()));
        if !self.disk.has_ended() {
            self.failures += 1;
            self.recovered = false;
        }
    }

    /// Sends all rows, with changes in between. Says whether life goes on.
    fn rewrite(&mut self, dispatcher: &mut Dispatcher<'_>, orders: &Orders) -> bool {
        let mut slices = None;
        dispatcher.bring_in();
        loop {
            let batch = dispatcher.journal.take_for_rewrite();
            dispatcher.memory.apply(&batch, 0..batch.places()).unwrap();
            let memory = &mut dispatcher.memory;
            let slices = slices.get_or_insert_with(|| Slices::begin(memory).unwrap());
            let slice = slices.next_slice(memory).unwrap();
            let last = slice.last;
            if last {
                self.candidates.push(dispatcher.model.clone());
            }
            let Some(finished) = orders.ask(Order::Rewrite { slice: Box::new(slice), batch })
            else {
                return false;
            };
            if last {
                self.rewrites += 1;
                self.history.push("rewrite".into());
            }
            if let Err(error) = finished {
                dispatcher.journal.failed();
                self.failed(dispatcher, &error);
                return !self.disk.has_ended();
            }
            dispatcher.journal.succeeded();
            if last {
                self.succeeded(dispatcher, true);
                return true;
            }
            for _ in 0..self.random.below(self.sizes.changes_max) {
                dispatcher.step(&self.sizes, &mut self.random);
            }
        }
    }

    /// An orderly stop. Says whether it came to its end.
    fn close(&mut self, dispatcher: &mut Dispatcher<'_>, orders: &Orders) -> bool {
        if dispatcher.suspect && !self.rewrite(dispatcher, orders) {
            return false;
        }
        dispatcher.journal.stop_cleanly(dispatcher.ids.message);
        self.candidates.push(dispatcher.model.clone());
        let batch = dispatcher.journal.take();
        let Some(finished) = orders.ask(Order::Close { batch, messages: None }) else {
            return false;
        };
        self.committed(dispatcher, finished, true)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.disk.remove();
    }
}

/// What a dispatcher has of the database.
struct Dispatcher<'c> {
    memory: Memory<'c>,
    /// What is committed and not in memory.
    lag: Vec<Batch>,
    journal: Journal,
    model: Model,
    ids: Ids,
    reserved: u64,
    suspect: bool,
}

impl Dispatcher<'_> {
    /// Whether there are ids for so many messages.
    fn has_ids(&self, count: u64) -> bool {
        self.ids.message + count <= self.reserved
    }

    fn step(&mut self, sizes: &Sizes, random: &mut Random) {
        if self.has_ids(2) {
            self.ids.put_volatile();
        }
        if self.has_ids(1) {
            let changes = self.model.step(&mut self.ids, sizes, random);
            changes.into_iter().for_each(|change| self.journal.record(change));
        }
    }

    /// Gives memory what it lacks.
    fn bring_in(&mut self) {
        for batch in self.lag.drain(..) {
            self.memory.apply(&batch, 0..batch.places()).unwrap();
        }
    }
}
