//! The commands that only look: peeks, statistics, lists.

use crate::words::change::MessageState;
use crate::words::clock::{Now, Time};
use crate::words::command::{Command, Reply, Target};
use crate::words::ids::QueueName;
use crate::words::key::{Key, KeyFound};
use crate::words::limits::{
    HOLDERS_SHOWN_MAX, LISTING_LINES_MAX, PRIORITIES_SEARCHED_MAX, WORK_PER_TURN_MAX,
};
use crate::words::refusal::Refusal;
use crate::words::statistics::{
    Failures, HolderFigures, ListedMessage, Listing, MessageStatistics, QueueStatistics,
    ServerStatistics,
};

use super::pages::Search;
use super::slices::{Found, Work};
use super::state::keys::TakenKey;
use super::state::message::{Place, Slot, State};
use super::state::queue::{Queue, QueueSlot};
use super::state::ready::ReadyList;
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
                    Reply::MessageStatistics(Box::new(self.message_statistics(turn.now, slot)))
                }
                None => Reply::NotFound,
            },
            Command::QueueStatistics(name) => self.queue_statistics(turn.now, &name),
            Command::Statistics => {
                let wall_ms = turn.now.wall_ms(turn.time());
                Reply::Statistics(Box::new(ServerStatistics { wall_ms, ..self.statistics() }))
            }
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
            Command::SelectQueues(wanted) => {
                let search = Box::new(Search::new(*wanted));
                return self.begin_work(turn, Work::Page { asker, next: 0, search });
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

    pub(super) fn message_statistics(&self, clock: Now, slot: Slot) -> MessageStatistics {
        let now = clock.time;
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
            wall_ms: clock.wall_ms(now),
            is_volatile: message.is_volatile,
        }
    }

    pub(super) fn queue_statistics(&self, clock: Now, name: &QueueName) -> Reply {
        match self.ledger.queues().find(name) {
            Some(slot) => Reply::QueueStatistics(Box::new(self.figures_of_queue(clock, slot))),
            None => Reply::NotFound,
        }
    }

    pub(super) fn figures_of_queue(&self, clock: Now, slot: QueueSlot) -> QueueStatistics {
        let (now, queue) = (clock.time, self.ledger.queue(slot));
        QueueStatistics {
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
            body_bytes: queue.body_bytes,
            head: queue.ready.first().map(|place| self.ledger.message(place.slot).id),
            oldest_ready_ms: self.oldest_ready_ms(now, &queue.ready),
            is_held: queue.is_held,
            limits: queue.limits,
            holders: self.holders(now, queue),
            wall_ms: clock.wall_ms(now),
        }
    }

    /// How long the oldest ready message has been ready. Those of one priority stand in the order in
    /// which they were put, so the first of each is enough.
    pub(super) fn oldest_ready_ms(&self, now: Time, ready: &ReadyList) -> Option<u64> {
        let (mut oldest, mut from) = (None, 0);
        for _ in 0..PRIORITIES_SEARCHED_MAX {
            let Some(place) = ready.first_from(from) else { break };
            let created = self.ledger.message(place.slot).created;
            let since = created.plus(self.ledger.messages().history(place.slot).delay_ms);
            oldest = oldest.max(Some(now.since(since)));
            let Some(next) = place.priority.checked_add(1) else { break };
            from = next;
        }
        oldest
    }

    /// The messages of a queue that were handed out first, of those that are still out.
    fn holders(&self, now: Time, queue: &Queue) -> Vec<HolderFigures> {
        let out = self.ledger.reservations().iter(&queue.reserved, Of::Queue);
        let out = out.map(|(_, reservation)| reservation).take(WORK_PER_TURN_MAX);
        let out = out.filter(|reservation| !self.ledger.is_flushed(reservation.message));
        let figures = out.take(HOLDERS_SHOWN_MAX).map(|reservation| {
            let ends = Some(reservation.ends()).filter(|ends| *ends != Time::NEVER);
            HolderFigures {
                message: self.ledger.message(reservation.message).id,
                connection: self.ledger.session(reservation.session).connection,
                held_ms: reservation.began().map(|began| now.since(began)),
                left_ms: ends.map(|ends| ends.since(now)),
                protocol: "",
                peer: String::new(),
            }
        });
        figures.collect()
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
            is_volatile: message.is_volatile,
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
