//! The start from stored messages: what was in somebody's hands is ready again at its old place.

use crate::words::cause::Reason;
use crate::words::change::{
    Change, FailureRow, KeyRow, KeyUntil, MessageState, SettingRow, StoredMessage,
};
use crate::words::clock::{Now, Time};
use crate::words::ids::{QueueId, QueueName};
use crate::words::key::Key;
use crate::words::settings::QueueSetting;

use super::Engine;
use super::state::failure::{Failure, Home};
use super::state::keys::{TakenKey, Until};
use super::state::message::{History, Message, State};
use super::state::queue::QueueSlot;

use rustc_hash::FxHashMap;

/// Builds an engine from what the database holds: the queues first, then what is set of them, then
/// the messages, then the keys, then [`Loader::finish`].
pub struct Loader {
    engine: Engine,
    now: Now,
    queues: FxHashMap<QueueId, QueueSlot>,
    dropped: Vec<Change>,
}

impl Loader {
    /// Starts with an empty engine.
    pub fn new(engine: Engine, now: Now) -> Loader {
        Loader { engine, now, queues: FxHashMap::default(), dropped: Vec::new() }
    }

    /// A queue that has a row. Two of one name, which a repair can find in what is left of a file, are
    /// one queue: nobody could name the other.
    pub fn queue(&mut self, id: QueueId, name: &QueueName) {
        let ledger = &mut self.engine.ledger;
        let there = ledger.queues().find(name);
        let slot = there.unwrap_or_else(|| ledger.make_queue(name));
        self.engine.ledger.number_queue(slot, id);
        self.queues.insert(id, slot);
        self.engine.next_queue_id = self.engine.next_queue_id.max(id.0 + 1);
    }

    /// What an operator has set of a queue, before the messages. What is set of a queue without a row
    /// is dropped.
    pub fn setting(&mut self, row: SettingRow) {
        let Some(queue) = self.queues.get(&row.queue).copied() else {
            let none = SettingRow { queue: row.queue, ..SettingRow::default() };
            return self.dropped.push(Change::QueueSet(none));
        };
        self.engine.ledger.configure_queue(queue, QueueSetting::Paused(row.paused));
        self.engine.ledger.configure_queue(queue, QueueSetting::Limits(row.limits));
    }

    /// A message that has a row. One whose time is over is dropped, one whose queue has no row is
    /// left where it is (the checks at start know of none).
    pub fn message(&mut self, stored: &StoredMessage) {
        let moved = stored.moved.as_ref();
        // Also the ids of what is dropped are never used again.
        let sequence = moved.map_or(stored.sequence, |row| row.sequence);
        let failure = moved.and_then(|row| row.failure.as_deref());
        let origin = failure.and_then(|failure| failure.origin);
        let ids = &mut self.engine.ids;
        for used in [Some(stored.id.0), Some(sequence.0), origin.map(|origin| origin.sequence.0)] {
            ids.next = ids.next.max(used.unwrap_or(0).saturating_add(1));
        }
        let id = moved.and_then(|row| row.queue).unwrap_or(stored.queue);
        let Some(queue) = self.queues.get(&id).copied() else { return };
        let kind = moved.map_or(MessageState::Ready, |row| row.state);
        let expires_ms = moved.map_or(stored.expires_ms, |row| row.expires_ms);
        let expires = match (expires_ms, kind) {
            (None, _) => Time::NEVER,
            (Some(left), MessageState::Buried) => Time(u64::try_from(left).unwrap_or(0)),
            (Some(at), _) => Time::from_stored(at),
        };
        if kind != MessageState::Buried && expires <= self.now.time {
            self.engine.totals.messages_expired += 1;
            self.dropped.push(Change::Removed(stored.id));
            return;
        }
        let due = moved.map_or(stored.due_ms, |row| row.due);
        let delay_ms = moved.map_or_else(|| first_delay_ms(stored), |row| row.delay_ms);
        let counters = moved.map_or_else(Default::default, |row| row.counters);
        let message = Message {
            id: stored.id,
            sequence,
            created: Time::from_stored(stored.created_ms).min(self.now.time),
            expires,
            time_to_run_ms: stored.time_to_run_ms,
            state: State::Ready,
            queue,
            priority: moved.map_or(stored.priority, |row| row.priority),
            body_bytes: u32::try_from(stored.body_bytes).unwrap_or(u32::MAX),
            reserves: counters.reserves,
            has_history: false,
            has_failed: false,
            has_key: false,
            is_volatile: false,
            unsaved: false,
        };
        let history = History {
            delay_ms,
            timeouts: counters.timeouts,
            releases: counters.releases,
            buries: counters.buries,
            kicks: counters.kicks,
        };
        let is_elsewhere = match origin {
            Some(origin) => origin.queue != stored.queue,
            None => id != stored.queue,
        };
        let failure = self.failure(failure, is_elsewhere);
        self.insert(message, history, failure, (kind, due));
    }

    /// A key that has a row, after all messages. What nothing holds any more is freed. No message has
    /// two (the checks at start see to that).
    pub fn key(&mut self, row: &KeyRow) {
        let until = match row.until {
            KeyUntil::Taken => Until::Taken,
            KeyUntil::Done => Until::Done,
            KeyUntil::Moment(at) => Until::Moment(Time::from_stored(at)),
        };
        let ledger = &mut self.engine.ledger;
        let messages = ledger.messages();
        // A message of another queue is none of this key's, unless that is its home.
        let message = row.message.and_then(|id| messages.slot_of(id)).filter(|slot| {
            let home = messages.failure(*slot).and_then(|failure| failure.home.as_ref());
            let queues = [Some(messages[*slot].queue), home.map(|home| home.queue)];
            self.queues.get(&row.queue).is_some_and(|queue| queues.contains(&Some(*queue)))
        });
        let is_held = match until {
            Until::Moment(at) => at > self.now.time,
            Until::Taken | Until::Done => message.is_some(),
        };
        match (self.queues.get(&row.queue), Key::new(&row.key)) {
            (Some(queue), Some(key)) if is_held && ledger.keys().find(*queue, &key).is_none() => {
                ledger.add_key(TakenKey { key, queue: *queue, message, until, is_volatile: false });
                if row.message.is_some() && message.is_none() {
                    // A message that is put later must not be taken for this one.
                    self.dropped.push(Change::KeySet(KeyRow { message: None, ..row.clone() }));
                }
            }
            _ => {
                let (queue, key) = (row.queue, row.key.clone());
                self.dropped.push(Change::KeyGone { queue, key });
            }
        }
    }

    /// How the processing of a message failed. One whose home has no row is where it is for good.
    fn failure(&self, stored: Option<&FailureRow>, is_elsewhere: bool) -> Option<Failure> {
        if stored.is_none() && !is_elsewhere {
            return None;
        }
        let stored = stored.cloned().unwrap_or_default();
        let home = stored.origin.and_then(|origin| {
            Some(Home {
                queue: *self.queues.get(&origin.queue)?,
                sequence: origin.sequence,
                burial: origin.burial,
                life_left: match origin.life_left_ms {
                    None => Time::NEVER,
                    Some(left) => Time(u64::try_from(left).unwrap_or(0)),
                },
            })
        });
        Some(Failure {
            attempts: stored.attempts,
            cause: stored.cause,
            returned: stored.returned_ms.map(Time::from_stored),
            reason: stored.text.map(|text| Reason::new(text.as_bytes())),
            is_elsewhere,
            home,
        })
    }

    fn insert(
        &mut self,
        message: Message,
        history: History,
        failure: Option<Failure>,
        (kind, due): (MessageState, Option<i64>),
    ) {
        let ledger = &mut self.engine.ledger;
        let delay_ms = history.delay_ms;
        let detached = ledger.insert(message, history);
        if let Some(failure) = failure {
            ledger.restore_failure(&detached, failure);
        }
        if kind == MessageState::Buried {
            let stored = due.and_then(|place| u64::try_from(place).ok());
            return ledger.place_buried_at(detached, stored);
        }
        ledger.start_clock(&detached);
        // Whatever became of the clock, nobody waits longer than the delay that was asked for.
        let latest = self.now.time.plus(delay_ms);
        match due.map(|due| Time::from_stored(due).min(latest)) {
            Some(due) if due > self.now.time => ledger.place_delayed(detached, due),
            _ => ledger.place_ready(detached),
        }
    }

    /// The engine, and what the start has dropped. Queues without messages are dropped too.
    pub fn finish(mut self) -> (Engine, Vec<Change>) {
        let mut effects = Vec::new();
        let mut turn = super::Turn { now: self.now, effects: &mut effects };
        let mut queues: Vec<QueueSlot> = self.queues.into_values().collect();
        queues.sort_unstable();
        for slot in queues {
            self.engine.drop_if_unneeded(&mut turn, slot);
        }
        let gone = effects.into_iter().filter_map(|effect| match effect {
            super::Effect::Change(change) => Some(change),
            _ => None,
        });
        self.dropped.extend(gone);
        (self.engine, self.dropped)
    }
}

fn first_delay_ms(stored: &StoredMessage) -> u64 {
    let delay = stored.due_ms.map_or(0, |due| due.saturating_sub(stored.created_ms));
    u64::try_from(delay).unwrap_or(0)
}
