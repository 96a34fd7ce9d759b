//! The commands that only look: peeks, statistics, lists.

use crate::words::change::MessageState;
use crate::words::clock::Time;
use crate::words::command::{Command, Reply, Target};
use crate::words::ids::QueueName;
use crate::words::key::{Key, KeyFound};
use crate::words::limits::{LISTING_LINES_MAX, WORK_PER_TURN_MAX};
use crate::words::refusal::Refusal;
use crate::words::statistics::{
    Failures, ListedMessage, Listing, MessageStatistics, QueueStatistics, ServerStatistics,
};

use super::slices::{Found, Work};
use super::state::keys::TakenKey;
use super::state::message::{Place, Slot, State};
use super::state::reservation::Of;
use super::state::session::SessionSlot;
use super::{Asker, Engine, Turn};

impl Engine {
    pub(super) fn look(&mut self, turn: &mut Turn<'_>, asker: Asker, command: Command) {
        let reply = match command {
            Command::Peek(id) => match self.ledger.find(id) {
                Some(slot) => return self.show(turn, asker, slot),
                None => Reply::NotFound,
            },
            Command::PeekNext { queue, state } => {
                match self.next_of(asker.session, &queue, state) {
                    Some(slot) => return self.show(turn, asker, slot),
                    None => Reply::NotFound,
                }
            }
            Command::MessageStatistics(id) => match self.ledger.find(id) {
                Some(slot) => {
                    Reply::MessageStatistics(Box::new(self.message_statistics(turn.time(), slot)))
                }
                None => Reply::NotFound,
            },
            Command::QueueStatistics(name) => self.queue_statistics(turn.time(), &name),
            Command::Statistics => Reply::Statistics(Box::new(self.statistics())),
            Command::FindKey { queue, key } => self.find_key(turn.time(), queue.as_ref(), &key),
            Command::ListQueues => {
                let names = Vec::with_capacity(self.ledger.queues().len());
                let work = Work::Names { asker, next: 0, names };
                return self.begin_work(turn, work);
            }
            Command::ShowReferred => match self.ledger.session(asker.session).referred {
                Some(slot) => Reply::Referred(self.ledger.queue(slot).name.clone()),
                None => Reply::NotFound,
            },
            Command::ListSubscribed(key) => {
                let slot = self.subscription(asker.session, key, None);
                let members = slot.map_or(&[][..], |slot| &self.ledger.subscription(slot).queues);
                let names =
                    members.iter().map(|member| self.ledger.queue(member.queue).name.clone());
                Reply::Queues(names.collect())
            }
            Command::Survey { pattern, lines_max } => {
                let lines = lines_max.min(LISTING_LINES_MAX);
                let found = Found::default();
                let work = Work::Survey { asker, next: 0, pattern, lines, found };
                return self.begin_work(turn, work);
            }
            Command::List { queue, lines_max } => {
                let mut listing = self.listing(&queue, lines_max.min(LISTING_LINES_MAX));
                listing.wall_offset_ms = turn.now.wall_offset_ms;
                Reply::Listing(Box::new(listing))
            }
            // All others are carried out in `commands`.
            _ => return,
        };
        turn.reply(asker, reply);
    }

    fn find_key(&self, now: Time, queue: Option<&QueueName>, key: &Key) -> Reply {
        let keys = self.ledger.keys();
        let found = |taken: &TakenKey| {
            let message = self.ledger.holder_of(now, taken)?;
            Some(KeyFound { queue: self.ledger.queue(taken.queue).name.clone(), message })
        };
        let found: Vec<KeyFound> = match queue {
            Some(name) => {
                let queue = self.ledger.queues().find(name);
                let slot = queue.and_then(|queue| keys.find(queue, key));
                slot.and_then(|slot| found(&keys[slot])).into_iter().collect()
            }
            None => keys.find_all(key).filter_map(found).take(LISTING_LINES_MAX).collect(),
        };
        if found.is_empty() { Reply::NotFound } else { Reply::Keys(found) }
    }

    fn next_of(&self, who: SessionSlot, queue: &Target, state: MessageState) -> Option<Slot> {
        let queue = self.ledger.queue(self.meant_by(who, queue)?);
        match state {
            MessageState::Ready | MessageState::Reserved => queue.ready.first().map(|p| p.slot),
            MessageState::Delayed => queue.delayed.first().map(|(_, _, slot)| *slot),
            MessageState::Buried => queue.buried.first_key_value().map(|(_, slot)| *slot),
        }
    }

    pub(super) fn message_statistics(&self, now: Time, slot: Slot) -> MessageStatistics {
        let message = &self.ledger.message(slot);
        let time_left_ms = match message.state {
            State::Delayed(due) => due.since(now),
            State::Reserved(reservation) => match self.ledger.reservations()[reservation].ends() {
                Time::NEVER => 0,
                until => until.since(now),
            },
            State::Ready | State::Buried(_) => 0,
        };
        MessageStatistics {
            id: message.id,
            queue: self.ledger.queue(message.queue).name.clone(),
            state: message.state.into(),
            priority: message.priority,
            age_ms: now.since(message.created),
            delay_ms: self.ledger.messages().history(slot).delay_ms,
            time_to_run_ms: message.time_to_run_ms,
            time_left_ms,
            counters: self.ledger.messages().counters(slot),
            failures: self.failures(slot),
        }
    }

    pub(super) fn queue_statistics(&self, now: Time, name: &QueueName) -> Reply {
        let Some(slot) = self.ledger.queues().find(name) else { return Reply::NotFound };
        let queue = &self.ledger.queue(slot);
        Reply::QueueStatistics(Box::new(QueueStatistics {
            name: queue.name.clone(),
            messages: queue.counts(),
            messages_put: queue.messages_put,
            using: u64::from(queue.using),
            watching: u64::from(queue.watching),
            waiting: u64::from(queue.waiting),
            pause_ms: queue.pause_ms,
            pause_left_ms: queue.paused_until.since(now),
            removes: queue.removes,
            pauses: queue.pauses,
        }))
    }

    pub(super) fn statistics(&self) -> ServerStatistics {
        let (totals, counts) = (&self.totals, self.ledger.counts());
        ServerStatistics {
            messages: counts.messages,
            body_bytes: counts.body_bytes,
            commands: totals.commands.clone(),
            timeouts: totals.timeouts,
            messages_put: totals.messages_put,
            messages_joined: totals.messages_joined,
            messages_expired: totals.messages_expired,
            returns: totals.returns,
            messages_set_aside: totals.messages_set_aside,
            messages_dead_lettered: totals.messages_dead_lettered,
            messages_too_large: totals.messages_too_large,
            late_acknowledgements: totals.late_acknowledgements,
            foreign_acknowledgements: totals.foreign_acknowledgements,
            queues: self.ledger.queues().len() as u64,
            connections: self.ledger.sessions().len() as u64,
            producers: counts.producers,
            workers: counts.workers,
            waiting: counts.waiting,
            connections_accepted: totals.connections_accepted,
            draining: self.refuse_puts == Some(Refusal::Draining),
            refused: self.refuse_puts,
            ..ServerStatistics::default()
        }
    }

    /// The first messages of a queue. Looks at no more of it than it needs for them.
    fn listing(&self, name: &QueueName, lines_max: usize) -> Listing {
        let Some(slot) = self.ledger.queues().find(name) else { return Listing::default() };
        let queue = &self.ledger.queue(slot);
        // What is out stands in the order in which it was handed out; of that, a bounded part is
        // put in the order of places.
        let out =
            self.ledger.reservations().iter(&queue.reserved, Of::Queue).take(WORK_PER_TURN_MAX);
        let out = out.map(|(_, r)| r.message).filter(|slot| !self.ledger.is_flushed(*slot));
        let mut first: Vec<Place> = out.map(|slot| self.ledger.messages().place(slot)).collect();
        first.extend(queue.ready.iter().take(lines_max));
        first.sort_unstable();
        let later = queue.delayed.iter().map(|(_, _, slot)| *slot);
        let later = later.chain(queue.buried.values().copied());
        let slots = first.iter().map(|place| place.slot).chain(later).take(lines_max);
        let messages: Vec<ListedMessage> = slots.map(|slot| self.listed(slot)).collect();
        let more = queue.counts().total().saturating_sub(messages.len() as u64);
        Listing { messages, more, wall_offset_ms: 0, paused: queue.is_held, limits: queue.limits }
    }

    fn listed(&self, slot: Slot) -> ListedMessage {
        let message = &self.ledger.message(slot);
        ListedMessage {
            id: message.id,
            state: message.state.into(),
            body_bytes: u64::from(message.body_bytes),
            created: message.created,
            failures: self.failures(slot),
        }
    }

    fn failures(&self, slot: Slot) -> Failures {
        let Some(failure) = self.ledger.messages().failure(slot) else {
            return Failures::default();
        };
        let home = failure.home.as_ref().map(|home| self.ledger.queue(home.queue).name.clone());
        let (attempts, cause, reason) = (failure.attempts, failure.cause, failure.reason.clone());
        Failures { attempts, cause, reason, origin: home }
    }
}

impl From<State> for MessageState {
    fn from(state: State) -> MessageState {
        match state {
            State::Ready => MessageState::Ready,
            State::Delayed(_) => MessageState::Delayed,
            State::Reserved(_) => MessageState::Reserved,
            State::Buried(_) => MessageState::Buried,
        }
    }
}
