//! Several puts, acknowledgements and returns that happen wholly or not at all.
//!
//! All of it is looked at first, and nothing is changed by that. What has passed cannot fail: ids
//! and queues are there, and the messages are in the connection's hands until they are settled,
//! since nothing is handed out in between. One input makes all the changes, so they are in one
//! batch: the journal is handed over between two inputs.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::words::command::{MessageRef, PutWith, Reply, Target, TogetherStep};
use crate::words::ids::{MessageId, QueueName};
use crate::words::limits::{TOGETHER_BYTES_MAX, TOGETHER_ROWS_MAX};
use crate::words::refusal::Refusal;

use super::state::message::Slot;
use super::state::queue::{QueueSlot, queue_bytes};
use super::state::session::{SessionSlot, WaitingPuts};
use super::{Asker, Effect, Engine, Turn};

/// The rows that a step writes at most: a put those of its queue, its message and its key, a
/// settlement those of its message and its key and of the queue that a policy moves it to.
const ROWS_PER_STEP: usize = 3;
/// What a put writes more where it makes a message durable that it joins: the state of that, and the
/// dead-letter queue that it may be in.
const ROWS_PER_PROMOTION: usize = 2;

/// Steps that can be carried out.
#[derive(Default)]
struct Checked {
    /// The messages that are settled, in the order of the steps.
    settled: Vec<MessageId>,
    puts: u64,
    rows: usize,
    body_bytes: u64,
}

/// The queues that are made for steps.
#[derive(Default)]
struct MadeQueues<'s> {
    names: BTreeSet<&'s QueueName>,
    bytes: u64,
}

impl Checked {
    fn is_too_much(&self) -> bool {
        self.rows > TOGETHER_ROWS_MAX || self.body_bytes > TOGETHER_BYTES_MAX
    }
}

impl Engine {
    pub(super) fn together(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        steps: Box<[TogetherStep]>,
    ) {
        let checked = match self.check_steps(asker.session, &steps) {
            Ok(checked) => checked,
            Err(refusal) => return turn.reply(asker, Reply::Refused(refusal)),
        };
        if checked.puts > 0 {
            self.ledger.count_producer(asker.session);
            // A message that is moved to another queue draws an id for its place there.
            if self.ids_left(turn) < steps.len() as u64 {
                return self.wait_for_ids(turn, asker, WaitingPuts::Together(steps));
            }
        }
        turn.effects.push(Effect::Tie);
        let mut queues = self.queues_of_puts(asker.session, &steps);
        let (mut settled, mut touched) = (checked.settled.into_iter(), queues.clone());
        let mut put_into = queues.iter();
        let mut answers = Vec::new();
        let mut is_volatile = true;
        for step in steps {
            match step {
                TogetherStep::Put(with) => {
                    let queue = *put_into.next().expect("a queue for each put");
                    is_volatile &= with.extras.is_volatile;
                    answers.push(self.put_step(turn, queue, with));
                }
                step => {
                    let id = settled.next().expect("a message for each settlement");
                    let slot = self.ledger.find(id).expect("nothing else takes it meanwhile");
                    touched.push(self.ledger.queue_of(slot));
                    is_volatile &= self.ledger.is_volatile(slot);
                    self.settle_step(turn, slot, step);
                }
            }
        }
        queues.drain(..).for_each(|queue| self.ledger.end_work_on(queue));
        turn.reply(asker.about(is_volatile), Reply::Together(answers));
        let mut served = FxHashSet::default();
        touched.retain(|queue| served.insert(*queue));
        for queue in touched {
            self.serve(turn, queue);
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// The queues of all puts in their order, made where there are none. They stay while the steps
    /// are carried out.
    fn queues_of_puts(&mut self, who: SessionSlot, steps: &[TogetherStep]) -> Vec<QueueSlot> {
        let mut queues = Vec::new();
        for step in steps {
            let TogetherStep::Put(with) = step else { continue };
            let queue = match &with.put.queue {
                Target::Referred => self.ledger.session(who).referred,
                Target::Named(name) => self.queue(name),
            };
            let queue = queue.expect("checked that there is room for it");
            self.ledger.begin_work_on(queue);
            queues.push(queue);
        }
        queues
    }

    fn put_step(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueSlot,
        with: PutWith,
    ) -> Option<MessageId> {
        let PutWith { put, extras } = with;
        let taken = extras.keyed.as_ref();
        if let Some(found) = taken.and_then(|keyed| self.ledger.keys().find(queue, &keyed.key))
            && let Some(message) = self.holder_of_key(turn, found)
        {
            if !extras.is_volatile && self.ledger.keys()[found].is_volatile {
                self.make_key_durable(turn, found, message);
            }
            self.totals.messages_joined += 1;
            return message;
        }
        let id = MessageId(self.draw_id(turn).expect("checked that there are enough ids"));
        self.add(turn, id, queue, (put, Some(extras)));
        Some(id)
    }

    fn settle_step(&mut self, turn: &mut Turn<'_>, slot: Slot, step: TogetherStep) {
        match step {
            TogetherStep::Acknowledge(_) => self.end_as_done(turn, slot),
            TogetherStep::Release { priority, delay_ms, .. } => {
                self.give_back_released(turn, slot, (priority, delay_ms));
            }
            TogetherStep::Bury { priority, .. } => self.give_back_rejected(turn, slot, priority),
            TogetherStep::Fail { reason, .. } => self.give_back_failed(turn, slot, reason),
            TogetherStep::Put(_) => {}
        }
    }

    /// Whether all steps can be carried out.
    fn check_steps(&self, who: SessionSlot, steps: &[TogetherStep]) -> Result<Checked, Refusal> {
        let body_bytes = steps.iter().map(TogetherStep::body_bytes).sum();
        let rows = steps.len() * ROWS_PER_STEP;
        let mut checked = Checked { rows, body_bytes, ..Checked::default() };
        if checked.is_too_much() {
            return Err(Refusal::TooMuchTogether);
        }
        let mut seen = FxHashSet::default();
        let mut made = MadeQueues::default();
        let mut put_before = FxHashMap::default();
        for step in steps {
            match step {
                TogetherStep::Put(with) => {
                    checked.puts += 1;
                    self.check_put(who, with, &mut made, &mut put_before)?;
                    if let Some(slot) = self.made_durable_by(who, with) {
                        checked.rows += ROWS_PER_PROMOTION;
                        checked.body_bytes += u64::from(self.ledger.message(slot).body_bytes);
                    }
                }
                TogetherStep::Acknowledge(message)
                | TogetherStep::Release { message, .. }
                | TogetherStep::Bury { message, .. }
                | TogetherStep::Fail { message, .. } => {
                    let slot = self.held_and_not_in(who, message, &seen);
                    let slot = slot.ok_or(Refusal::NotHeld)?;
                    seen.insert(slot);
                    checked.settled.push(self.ledger.message(slot).id);
                }
            }
        }
        if checked.is_too_much() { Err(Refusal::TooMuchTogether) } else { Ok(checked) }
    }

    /// The volatile message that becomes durable when this put joins it.
    fn made_durable_by(&self, who: SessionSlot, with: &PutWith) -> Option<Slot> {
        let keyed = with.extras.keyed.as_ref().filter(|_| !with.extras.is_volatile)?;
        let queue = self.meant_by(who, &with.put.queue)?;
        let taken = &self.ledger.keys()[self.ledger.keys().find(queue, &keyed.key)?];
        taken.message.filter(|_| taken.is_volatile)
    }

    /// A put among others: `made` has the queues that are made for those before it, `put_before` how
    /// many of them go into each queue.
    fn check_put<'s>(
        &self,
        who: SessionSlot,
        with: &'s PutWith,
        made: &mut MadeQueues<'s>,
        put_before: &mut FxHashMap<QueueSlot, u64>,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.refuse_puts {
            return Err(refusal);
        }
        let Some(queue) = self.meant_by(who, &with.put.queue) else {
            let Target::Named(name) = &with.put.queue else { return Err(Refusal::TooManyQueues) };
            if made.names.contains(name) {
                return Ok(());
            }
            if !self.has_room_for_queue(made.names.len(), made.bytes) {
                let is_full = self.has_room_for_queue(made.names.len(), 0);
                return Err(if is_full { Refusal::OutOfMemory } else { self.refuse_queue() });
            }
            made.bytes += queue_bytes(name);
            made.names.insert(name);
            return Ok(());
        };
        let here = self.ledger.queue(queue);
        let before = put_before.entry(queue).or_default();
        let priority = with.put.priority.unwrap_or_else(|| self.limits.priority());
        if here.limits.refuse(here.counts().total() + *before, priority) {
            return Err(Refusal::QueueFull);
        }
        *before += 1;
        Ok(())
    }

    /// The held message that a step names, marked or not, if no step before it has settled that.
    fn held_and_not_in(
        &self,
        who: SessionSlot,
        message: &MessageRef,
        seen: &FxHashSet<Slot>,
    ) -> Option<Slot> {
        match message {
            MessageRef::HeldOf(name) => {
                let queue = self.ledger.queues().find(name)?;
                self.held_of(who, queue).find(|slot| !seen.contains(slot))
            }
            MessageRef::Id(id) => self.held_by(who, *id, None).filter(|slot| !seen.contains(slot)),
            MessageRef::IdOf(id, queue) => {
                self.held_by(who, *id, Some(queue)).filter(|slot| !seen.contains(slot))
            }
        }
    }
}
