//! Volatile messages: what of them ends with the process, and how it becomes durable.
//!
//! A volatile message is in the engine like any other: order, delays, reservations, policies, keys
//! and counts know no difference. But it is never a [`Change`](crate::words::change::Change), so that
//! neither the journal nor a database hears of it; its content is in memory alone, charged like that
//! of others. What is answered of it promises nothing, and waits for no commit. So:
//!
//! - It is put whatever becomes of the disk, as long as there are ids and memory.
//! - One that is buried, or moved to a dead-letter queue, stays volatile: its sender was promised no
//!   more when it failed than before. Who wants to keep it promotes it.
//! - Its key is volatile too, whatever its term. A key that outlived the process would make later
//!   puts join a message that is lost.
//! - Steps that happen together do so in memory wholly or not at all; what a crash leaves of them is
//!   what is durable among them.
//!
//! A volatile message becomes durable when somebody asks for that, or when a durable put joins it.
//! Its row is written as if it had been put just now, but under its old id, and its key with it.
//! There is no way back.

use crate::words::command::Reply;
use crate::words::ids::MessageId;
use crate::words::refusal::Refusal;

use super::ledger::VolatileCounts;
use super::state::keys::KeySlot;
use super::state::message::Slot;
use super::{Asker, Engine, Turn};

impl Engine {
    /// What [`Engine::stored`] says, of the messages that end with the process.
    pub fn volatile(&self) -> (u64, u64) {
        let VolatileCounts { messages, body_bytes } = self.ledger.counts().volatile;
        (body_bytes, messages)
    }

    /// The same of the others.
    pub fn durable(&self) -> (u64, u64) {
        let (all, volatile) = (self.stored(), self.volatile());
        (all.0 - volatile.0, all.1 - volatile.1)
    }

    /// Makes a message durable, if it is not. The answer waits for the commit of its put in either
    /// case.
    pub(super) fn promote(&mut self, turn: &mut Turn<'_>, asker: Asker, id: MessageId) {
        let Some(slot) = self.ledger.find(id) else { return turn.reply(asker, Reply::NotFound) };
        if self.ledger.is_volatile(slot) {
            if let Some(refusal) = self.refuse_durability() {
                return turn.reply(asker, Reply::Refused(refusal));
            }
            self.make_durable(turn, slot);
        }
        turn.reply(asker, Reply::Promoted);
    }

    /// Why nothing becomes durable now: for the reasons for which nothing durable is put, but for a
    /// drain, which is about what is new.
    pub(super) fn refuse_durability(&self) -> Option<Refusal> {
        self.refuse_puts.filter(|refusal| *refusal != Refusal::Draining)
    }

    fn make_durable(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let queue = self.queue_id(turn, self.ledger.first_queue_of(slot));
        self.queue_id(turn, self.ledger.queue_of(slot));
        self.ledger.make_durable(turn, slot, queue);
    }

    /// Makes a volatile key durable, with the message that it is taken by, or alone where it has
    /// outlived that.
    pub(super) fn make_key_durable(
        &mut self,
        turn: &mut Turn<'_>,
        key: KeySlot,
        holder: Option<MessageId>,
    ) {
        if let Some(slot) = holder.and_then(|id| self.ledger.find(id)) {
            return self.make_durable(turn, slot);
        }
        self.queue_id(turn, self.ledger.keys()[key].queue);
        self.ledger.make_outlived_key_durable(turn, key);
    }
}
