//! What the engine has decided is carried out: changes are kept, answers and messages written into
//! outboxes.

use slog::{debug, info};

use crate::engine::{Effect, Handed};
use crate::words::body::BodyRef;
use crate::words::change::{Attributes, Change, MessageRow};
use crate::words::command::{Delivery, Handing, Reply, Tag};
use crate::words::durability::Durability;
use crate::words::ids::ConnectionId;
use crate::words::refusal::Refusal;

use super::Dispatcher;
use super::peers::Closed;

/// When an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// When what it promises is kept, if it promises anything.
    WhenKept,
    /// At once: it is about volatile messages alone.
    AtOnce,
}

impl Dispatcher<'_> {
    /// Carries out what the engine has decided, in its order.
    pub(super) fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Change(change) => self.keep(change),
                Effect::Tie => self.commits.journal.tie(),
                Effect::Reply(connection, tag, reply) => {
                    self.answer(connection, &tag, reply, Leaves::WhenKept);
                }
                Effect::ReplyAtOnce(connection, tag, reply) => {
                    self.answer(connection, &tag, reply, Leaves::AtOnce);
                }
                Effect::PutVolatile(id, attributes, body) => {
                    self.mirror.put_volatile(id, attributes, body);
                }
                Effect::RemoveVolatile(id) => drop(self.mirror.take_volatile(id)),
                Effect::Promote(row) => self.promote(row),
                Effect::Deliver(connection, tag, handed) => {
                    self.deliver(connection, &tag, &handed);
                }
                Effect::WakeUp(connection, tag) => {
                    self.answer(connection, &tag, Reply::WakeUp, Leaves::AtOnce);
                }
                Effect::Gate(connection, closed) => {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.set_gate(Closed::BACKLOG, closed);
                    }
                }
                Effect::Close(connection, reason) => {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        info!(self.log, "consumer disconnected"; "connection" => connection.0,
                            "peer" => %peer.address, "protocol" => peer.protocol, "error" => reason);
                        peer.shut();
                    }
                }
                Effect::Finished(connection) => {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.finished = true;
                        peer.mark(connection, &mut self.dirty);
                    }
                }
                Effect::ReserveIds(up_to) => self.commits.reserve_ids(up_to, self.now.time),
            }
        }
        // Nothing above calls the engine, so `self.effects` is still empty: put the drained Vec back
        // to keep its allocation.
        self.effects = effects;
    }

    pub(super) fn keep(&mut self, change: Change) {
        self.mirror.count(&change);
        self.commits.record(change, self.now.time);
    }

    /// A volatile message becomes durable: its content joins its row.
    fn promote(&mut self, mut row: MessageRow) {
        let Some(content) = self.mirror.take_volatile(row.id) else {
            slog::error!(self.log, "a message has no body in memory"; "message" => row.id.0);
            return;
        };
        (row.attributes, row.body) = content;
        self.keep(Change::Put(row));
    }

    pub(super) fn answer(
        &mut self,
        connection: ConnectionId,
        tag: &Tag,
        mut reply: Reply,
        leaves: Leaves,
    ) {
        self.add_facts(&mut reply);
        // At level `periodic` a message is confirmed before it is in the file, but not before there
        // is room for it.
        let puts = matches!(
            reply,
            Reply::Put(_) | Reply::Joined(_) | Reply::Together(_) | Reply::Promoted
        );
        let waits = leaves == Leaves::WhenKept && puts && !self.has_room_for(0);
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.broken {
            return;
        }
        let start = peer.outbox.position();
        peer.encoder.reply(tag, &reply, peer.outbox.output());
        // An encoder that wrote nothing promised nothing: the tick covers what is done silently.
        let said = peer.outbox.position() > start;
        peer.note_asked_for(start);
        if let Reply::Batch(count) = reply {
            peer.begin_batch(count);
        }
        if !said
            && let Reply::Refused(refusal) = reply
            && refusal != Refusal::TooLarge
        {
            // Trying again would help, but who cannot be told must not go on as if all were well.
            debug!(self.log, "connection closed: refused a message that has no reply";
                "connection" => connection.0, "peer" => %peer.address,
                "protocol" => peer.protocol, "error" => %refusal);
            peer.shut();
        }
        let level = peer.level_of(tag);
        if said && (level != Durability::Periodic || waits) {
            let promises = leaves == Leaves::WhenKept && reply.promises();
            if promises || peer.is_promised_by(tag) {
                let part = self.commits.part_of(&reply);
                let commit = self.commits.demand(level, self.now.time);
                peer.hold(tag, start, (commit, part), self.now.time);
            } else {
                peer.outbox.free();
            }
        }
        peer.mark(connection, &mut self.dirty);
    }

    /// Adds what the engine cannot know to the answers that want it.
    pub(super) fn add_facts(&self, reply: &mut Reply) {
        let uptime_ms = || crate::words::clock::millis(self.clock.uptime());
        match reply {
            Reply::Statistics(statistics) => {
                statistics.process = self.facts.read(uptime_ms());
                statistics.store = self.store_facts();
                statistics.messages_dropped = self.pressure.dropped.count;
                statistics.protocol_errors = self.protocol_errors;
                statistics.connections_refused = self.clients.refused();
                statistics.connections_by_protocol = self.connections_by_protocol();
            }
            Reply::QueueStatistics(statistics) => {
                for held in &mut statistics.holders {
                    if let Some(peer) = self.peers.get(&held.connection) {
                        held.protocol = peer.protocol;
                        held.peer = peer.address.to_string();
                    }
                }
            }
            Reply::Survey(survey) => {
                survey.process = self.facts.read(uptime_ms());
                survey.store = self.store_facts();
            }
            _ => {}
        }
    }

    fn connections_by_protocol(&self) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        for peer in self.peers.values() {
            match counts.iter_mut().find(|(protocol, _)| *protocol == peer.protocol) {
                Some((_, count)) => *count += 1,
                None => counts.push((peer.protocol, 1)),
            }
        }
        counts.sort_unstable();
        counts
    }

    pub(super) fn deliver(&mut self, connection: ConnectionId, tag: &Tag, handed: &Handed) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.broken {
            return;
        }
        let start = peer.outbox.position();
        let (encoder, out) = (&mut peer.encoder, peer.outbox.output());
        let send = |attributes: &Attributes, body: BodyRef<'_>| {
            let delivery = Delivery {
                handing: handed.handing,
                id: handed.id,
                queue: &handed.queue,
                priority: handed.priority,
                time_to_live_ms: handed.time_to_live_ms,
                reserves: handed.reserves,
                is_volatile: handed.is_volatile,
                attributes,
                body,
            };
            encoder.deliver(tag, &delivery, out);
        };
        match self.mirror.lend(&self.commits.journal, handed.id, handed.body_bytes, send) {
            Ok(true) => {}
            Ok(false) => {
                slog::error!(self.log, "a message has no body in memory";
                    "message" => handed.id.0);
            }
            Err(_) => {
                // Its end has the message redelivered; nothing of it was said.
                debug!(self.log, "connection closed: no memory for a message";
                    "connection" => connection.0, "peer" => %peer.address,
                    "message" => handed.id.0);
                peer.shut();
                return;
            }
        }
        if handed.handing != Handing::Dispatched {
            peer.note_asked_for(start);
        }
        peer.note_delivery(handed.when_sent);
        if peer.durability != Durability::Periodic {
            peer.outbox.free();
        }
        peer.mark(connection, &mut self.dirty);
        if handed.handing != Handing::Found {
            self.let_holder_go_on(connection);
        }
    }

    pub(super) fn greet(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.encoder.greet(peer.outbox.output());
        if !peer.outbox.is_empty() {
            peer.mark(connection, &mut self.dirty);
        }
    }
}
