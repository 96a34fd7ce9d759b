//! What must hold of the engine's data between two inputs, checked by tests after each step.
//!
//! Everything that is kept twice (a count beside a list, a link in both directions, an armed clock
//! beside the set of deadlines) is worked out again the slow way and compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::clock::Time;
use crate::words::limits::{BACKLOG_REQUESTS_MAX, QUEUE_OVERHEAD_BYTES};
use crate::words::statistics::StateCounts;

use super::Engine;
use super::ledger::VolatileCounts;
use super::slices::Work;
use super::state::deadlines::Due;
use super::state::keys::Until;
use super::state::message::{Slot, State};
use super::state::queue::{Queue, QueueSlot, URGENT_BELOW};
use super::state::reservation::{List, Of, ReservationSlot};
use super::state::session::{Hold, Keyed, Session, SessionSlot};
use super::state::subscription::SubscriptionSlot;

impl Engine {
    /// Panics with what is wrong, if anything is.
    pub(super) fn check_invariants(&self) {
        let doomed = self.doomed();
        self.check_lists();
        self.check_messages(&doomed);
        self.check_queues(&doomed);
        self.check_dead_letters();
        self.check_keys();
        self.check_reservations();
        self.check_references();
        self.check_demand();
        self.check_sessions();
        self.check_deadlines(&doomed);
        self.check_totals(&doomed);
    }

    /// What flushes have detached and not yet cleared away.
    fn doomed(&self) -> BTreeSet<Slot> {
        let works = self.works.iter().filter_map(|work| match work {
            Work::Flush { queues, .. } => Some(queues),
            _ => None,
        });
        let mut doomed = BTreeSet::new();
        let mut count = 0;
        for flushed in works.flatten() {
            for slot in flushed.slots() {
                doomed.insert(slot);
                count += 1;
                assert!(self.ledger.is_flushed(slot), "a detached message is not below the flush");
            }
        }
        assert_eq!(doomed.len(), count, "a message was detached twice");
        doomed
    }

    fn check_lists(&self) {
        let mut count = 0;
        for (place, queue) in self.ledger.queues().listed_from(0).enumerate() {
            assert_eq!(queue.place as usize, place, "place of {} in lists", queue.name);
            count += 1;
        }
        assert_eq!(count, self.ledger.queues().len(), "queues in lists");
        let bytes = |queue: &Queue| QUEUE_OVERHEAD_BYTES + 2 * queue.name.as_str().len() as u64;
        let bytes: u64 = self.ledger.queues().listed_from(0).map(bytes).sum();
        assert_eq!(bytes, self.ledger.queues().bytes(), "what queues take");
    }

    fn check_messages(&self, doomed: &BTreeSet<Slot>) {
        let mut listed: BTreeMap<Slot, u32> = BTreeMap::new();
        for (_, queue) in self.ledger.queues().iter_from(0) {
            let ready = queue.ready.iter().map(|place| place.slot);
            let delayed = queue.delayed.iter().map(|(.., slot)| *slot);
            for slot in ready.chain(delayed).chain(queue.buried.values().copied()) {
                *listed.entry(slot).or_default() += 1;
            }
        }
        for (slot, message) in self.ledger.messages().iter() {
            assert_eq!(
                self.ledger.messages().slot_of(message.id),
                Some(slot),
                "index of {}",
                message.id
            );
            let queue = self.ledger.queues().get(message.queue).expect("a message's queue exists");
            let place = self.ledger.messages().place(slot);
            let elsewhere = matches!(message.state, State::Reserved(_)) || doomed.contains(&slot);
            let lists = listed.remove(&slot).unwrap_or_default();
            assert_eq!(lists, u32::from(!elsewhere), "lists that {} is on", message.id);
            let there = match message.state {
                State::Reserved(reservation) => {
                    self.ledger.reservations()[reservation].message == slot
                }
                _ if elsewhere => true,
                State::Ready => queue.ready.get(&place).is_some_and(|place| place.slot == slot),
                State::Delayed(due) => queue.delayed.contains(&(due, message.sequence, slot)),
                State::Buried(burial) => queue.buried.get(&burial) == Some(&slot),
            };
            assert!(there, "{} is not where it says: {:?}", message.id, message.state);
            assert!(message.id.0 < self.ids.next && message.sequence.0 < self.ids.next);
        }
        assert!(listed.is_empty(), "listed, but gone: {listed:?}");
        self.ledger.messages().check_history();
    }

    fn check_queues(&self, doomed: &BTreeSet<Slot>) {
        let mut listed = doomed.len();
        let mut bytes: BTreeMap<QueueSlot, u64> = BTreeMap::new();
        for (_, message) in self.ledger.messages().iter() {
            *bytes.entry(message.queue).or_default() += u64::from(message.body_bytes);
        }
        for (slot, queue) in self.ledger.queues().iter_from(0) {
            assert_eq!(
                self.ledger.queues().find(&queue.name),
                Some(slot),
                "index of {}",
                queue.name
            );
            assert!(!queue.is_unneeded(), "{} is unneeded", queue.name);
            let urgent = queue.ready.iter().filter(|place| place.priority < URGENT_BELOW).count();
            assert_eq!(queue.urgent as usize, urgent, "urgent of {}", queue.name);
            assert_eq!(queue.body_bytes, bytes.remove(&slot).unwrap_or(0), "of {}", queue.name);
            let out = self.ledger.reservations().check_list(&queue.reserved, Of::Queue);
            let flushed_in_hand = out
                .iter()
                .filter(|r| self.ledger.is_flushed(self.ledger.reservations()[**r].message));
            assert_eq!(
                queue.flushed_in_hand as usize,
                flushed_in_hand.count(),
                "flushed of {}",
                queue.name
            );
            listed += out.len() + queue.ready.len() + queue.delayed.len() + queue.buried.len();
        }
        assert_eq!(listed, self.ledger.messages().len(), "messages on lists");
    }

    fn check_dead_letters(&self) {
        let ledger = &self.ledger;
        let mut away: BTreeMap<QueueSlot, u32> = BTreeMap::new();
        let mut listed = 0;
        for (slot, message) in ledger.messages().iter() {
            let failure = ledger.messages().failure(slot);
            let Some(home) = failure.and_then(|failure| failure.home.as_ref()) else { continue };
            *away.entry(home.queue).or_default() += 1;
            let here = &ledger.queue(message.queue).dead_letters;
            assert_eq!(here.get(&home.burial), Some(&slot), "{} is no dead letter", message.id);
            listed += 1;
        }
        for (slot, queue) in ledger.queues().iter_from(0) {
            assert_eq!(queue.away, away.remove(&slot).unwrap_or(0), "away from {}", queue.name);
            listed -= queue.dead_letters.len();
        }
        assert!(away.is_empty() && listed == 0, "dead letters: {away:?}, {listed}");
    }

    fn check_keys(&self) {
        let ledger = &self.ledger;
        let (keys, by_message) = ledger.keys().entries();
        let mut of_queues: BTreeMap<QueueSlot, u32> = BTreeMap::new();
        let mut of_messages = 0;
        for (slot, taken) in keys {
            *of_queues.entry(taken.queue).or_default() += 1;
            assert_eq!(ledger.keys().find(taken.queue, &taken.key), Some(slot), "name of a key");
            if let Some(message) = taken.message {
                assert!(ledger.message(message).has_key, "a key of a message that has none");
                assert_eq!(taken.is_volatile, ledger.is_volatile(message), "end of a key");
                assert_eq!(ledger.keys().of_message(message), Some(slot), "key of a message");
                of_messages += 1;
            }
        }
        let marked = ledger.messages().iter().filter(|(_, message)| message.has_key).count();
        assert_eq!((marked, by_message), (of_messages, of_messages), "messages with keys");
        for (slot, queue) in ledger.queues().iter_from(0) {
            let count = of_queues.remove(&slot).unwrap_or(0);
            assert_eq!(queue.keys, count, "keys of {}", queue.name);
        }
        assert!(of_queues.is_empty(), "keys of queues that are gone");
    }

    fn check_reservations(&self) {
        let mut of_queues = BTreeSet::new();
        for (queue, here) in self.ledger.queues().iter_from(0) {
            for slot in self.ledger.reservations().check_list(&here.reserved, Of::Queue) {
                let message = &self.ledger.message(self.ledger.reservations()[slot].message);
                assert_eq!(message.queue, queue, "{} on a foreign list", message.id);
                assert_eq!(message.state, State::Reserved(slot));
                of_queues.insert(slot);
            }
        }
        let mut of_holders = BTreeSet::new();
        for (who, session) in self.ledger.sessions().iter() {
            of_holders.extend(self.check_held(who, &session.held, None));
            let mut out = 0;
            for slot in session.subscriptions() {
                let subscription = self.ledger.subscription(slot);
                assert_eq!(subscription.session, who, "somebody else's subscription");
                of_holders.extend(self.check_held(who, &subscription.held, Some(slot)));
                out += subscription.held.len();
                let places = session.lost.values().flatten();
                let lost = places.filter(|place| **place == slot).count();
                assert_eq!(subscription.lost_places as usize, lost, "lost places");
            }
            assert_eq!(
                session.dispatched, out,
                "out through the windows of {}",
                session.connection
            );
            let known: BTreeSet<_> = session.subscriptions().collect();
            for places in session.lost.values() {
                assert!(!places.is_empty() && places.iter().all(|place| known.contains(place)));
            }
        }
        assert_eq!(of_queues, of_holders, "reservations of queues and of holders");
        assert_eq!(of_queues.len(), self.ledger.reservations().len(), "reservations on lists");
    }

    fn check_held(
        &self,
        who: SessionSlot,
        list: &List,
        through: Option<SubscriptionSlot>,
    ) -> Vec<ReservationSlot> {
        let held = self.ledger.reservations().check_list(list, Of::Holder);
        for slot in &held {
            let reservation = &self.ledger.reservations()[*slot];
            assert_eq!(reservation.session, who, "held by somebody else");
            assert_eq!(reservation.window(), through, "on the wrong list of its holder");
            if let Some(through) = through {
                let queue = self.ledger.queue_of(reservation.message);
                let subscription = self.ledger.subscription(through);
                assert!(subscription.queues.position(queue).is_some(), "in the wrong window");
            }
        }
        held
    }

    /// The counts of who refers to a queue.
    fn check_references(&self) {
        let mut counts: BTreeMap<QueueSlot, [u32; 5]> = BTreeMap::new();
        let mut add = |queue: QueueSlot, what: usize| counts.entry(queue).or_default()[what] += 1;
        for (_, session) in self.ledger.sessions().iter() {
            session.referred.iter().for_each(|queue| add(*queue, 0));
        }
        for (slot, subscription) in self.ledger.subscriptions().iter() {
            let hold = &self.ledger.session(subscription.session).hold;
            let waits = matches!(hold, Hold::Waiting(wait) if wait.subscription == slot);
            for member in subscription.queues.iter() {
                add(member.queue, if subscription.is_window() { 2 } else { 1 });
                if waits {
                    add(member.queue, 3);
                }
            }
            let is_working = matches!(hold, Hold::Working);
            assert!(
                waits || is_working || subscription.key != Keyed::Once,
                "once, but still there"
            );
        }
        for work in &self.works {
            for queue in work.queues() {
                counts.entry(queue).or_default()[4] += 1;
            }
        }
        for (slot, queue) in self.ledger.queues().iter_from(0) {
            let is = [queue.using, queue.watching, queue.windows, queue.waiting, queue.works];
            let should = counts.remove(&slot).unwrap_or_default();
            assert_eq!(is, should, "using, watching, windows, waiting, works of {}", queue.name);
        }
        assert!(counts.is_empty(), "queues referred to that are gone: {counts:?}");
    }

    fn check_demand(&self) {
        for (slot, queue) in self.ledger.queues().iter_from(0) {
            let mut rotation = BTreeSet::new();
            for (subscription, here) in self.ledger.subscriptions().iter() {
                let Some(at) = here.queues.position(slot) else { continue };
                let member = here.queues[at];
                let stands = self.ledger.is_in_rotation(subscription) && !member.leaving;
                assert_eq!(stands, member.entered != 0, "rotation of {}", queue.name);
                assert!(member.entered <= here.stamp, "an entry from the future");
                let is_exact = matches!(here.key, Keyed::Queue(_));
                assert!(!is_exact || !stands || member.entered == here.stamp);
                if stands {
                    rotation.insert((member.entered, subscription));
                }
            }
            assert_eq!(queue.rotation, rotation, "rotation of {}", queue.name);
            let unserved = !queue.ready.is_empty() && !queue.rotation.is_empty();
            // A pause whose end has come but has not been worked off still holds.
            let paused = queue.paused_until != Time(0) || queue.is_held;
            let coming =
                self.works.iter().any(|w| matches!(w, Work::Serve(queue) if *queue == slot));
            assert!(!unserved || paused || coming, "{} is not served", queue.name);
        }
    }

    fn check_sessions(&self) {
        assert!(self.resumable.is_empty(), "a backlog was left");
        let mut subscribed: BTreeMap<SessionSlot, usize> = BTreeMap::new();
        for (_, subscription) in self.ledger.subscriptions().iter() {
            *subscribed.entry(subscription.session).or_default() += 1 + subscription.queues.len();
        }
        let bytes = self.ledger.subscriptions().bytes_counted();
        assert_eq!(bytes, self.ledger.subscriptions().bytes(), "what subscriptions take");
        for (who, session) in self.ledger.sessions().iter() {
            let count = subscribed.get(&who).copied().unwrap_or_default();
            assert_eq!(session.subscribed as usize, count, "subscriptions of {who}");
            let asks = self.works.iter().filter(|w| w.asker().is_some_and(|a| a.session == who));
            let works = usize::from(matches!(session.hold, Hold::Working));
            assert_eq!(asks.count(), works, "works of {who}");
            let waits_for_ids = self.ids.waiting.contains(&who);
            assert_eq!(waits_for_ids, matches!(session.hold, Hold::Ids(_)), "ids of {who}");
            if matches!(session.hold, Hold::Output) {
                assert!(
                    session.dialogue.slow || self.exhausted.contains(&session.connection),
                    "{who} is never renewed"
                );
            }
            if matches!(session.hold, Hold::Free) {
                let may_end = session.dialogue.ending && session.has_sent_all();
                assert!(session.dialogue.backlog.is_empty() && !may_end, "{who} is stuck");
            }
            if session.dialogue.gated {
                assert!(session.dialogue.backlog.len() > BACKLOG_REQUESTS_MAX / 2, "gate of {who}");
            }
            let ends =
                self.ledger.reservations().iter(&session.held, Of::Holder).map(|(_, r)| r.ends());
            assert!(session.soonest <= ends.min().unwrap_or(Time::NEVER), "soonest of {who}");
        }
    }

    fn check_deadlines(&self, doomed: &BTreeSet<Slot>) {
        let mut left = self.ledger.deadlines();
        let mut expect = |at: Time, due: Due, armed_for: Time| {
            assert!(at <= armed_for, "{due:?} is armed for {at}, too late for {armed_for}");
            assert!(at == Time::NEVER || left.remove(&(at, due)), "{due:?} at {at} is missing");
        };
        for (slot, queue) in self.ledger.queues().iter_from(0) {
            let first = queue.delayed.first().map_or(Time::NEVER, |(due, ..)| *due);
            expect(queue.delay_armed, Due::Delay(slot), first);
            if queue.paused_until != Time(0) {
                expect(queue.paused_until, Due::Pause(slot), queue.paused_until);
            }
        }
        for (who, session) in self.ledger.sessions().iter() {
            expect(session.armed, Due::Session(session.connection, who), session.deadline());
            for slot in session.subscriptions() {
                let subscription = self.ledger.subscription(slot);
                let at = subscription.deadline(session.ack_timeout_ms);
                expect(subscription.armed, Due::Window(slot), at);
            }
        }
        for (slot, message) in self.ledger.messages().iter() {
            let at = message.expires;
            match message.state {
                State::Buried(_) => continue,
                // It may have rung already, and goes when it comes back.
                State::Reserved(_) => drop(left.remove(&(at, Due::Expire(slot)))),
                _ if doomed.contains(&slot) => drop(left.remove(&(at, Due::Expire(slot)))),
                _ if at == Time::NEVER => continue,
                _ => assert!(left.remove(&(at, Due::Expire(slot))), "expiry of {}", message.id),
            }
        }
        for (slot, taken) in self.ledger.keys().entries().0 {
            if let Until::Moment(at) = taken.until {
                assert!(left.remove(&(at, Due::Key(slot))), "end of a key");
            }
        }
        assert!(left.is_empty(), "nobody's deadlines: {left:?}");
    }

    fn check_totals(&self, doomed: &BTreeSet<Slot>) {
        let mut sum = StateCounts::default();
        for (_, queue) in self.ledger.queues().iter_from(0) {
            let here = queue.counts();
            sum.urgent += here.urgent;
            sum.ready += here.ready;
            sum.reserved += here.reserved;
            sum.delayed += here.delayed;
            sum.buried += here.buried;
        }
        let totals = self.ledger.counts();
        assert_eq!(totals.messages, sum, "totals by state");
        let flushed_in_hand: u32 =
            self.ledger.queues().iter_from(0).map(|(_, queue)| queue.flushed_in_hand).sum();
        let all = sum.total() as usize + doomed.len() + flushed_in_hand as usize;
        assert_eq!(all, self.ledger.messages().len(), "all messages");
        let bytes: u64 = self.ledger.messages().iter().map(|(_, m)| u64::from(m.body_bytes)).sum();
        assert_eq!(totals.body_bytes, bytes, "all bytes");
        let volatile = || self.ledger.messages().iter().filter(|(_, m)| m.is_volatile);
        let bytes = volatile().map(|(_, m)| u64::from(m.body_bytes)).sum();
        let expected = VolatileCounts { messages: volatile().count() as u64, body_bytes: bytes };
        assert_eq!(totals.volatile, expected, "what is volatile");
        let count =
            |is: fn(&Session) -> bool| self.ledger.sessions().iter().filter(|(_, s)| is(s)).count();
        assert_eq!(totals.waiting as usize, count(Session::is_waiting), "waiting");
        assert_eq!(totals.producers as usize, count(|session| session.producer), "producers");
        assert_eq!(totals.workers as usize, count(|session| session.worker), "workers");
    }
}
