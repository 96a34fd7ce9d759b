//! Who is held back when memory or journal are full, or the daemon drains.
//!
//! Puts with answers are refused. Senders without are held behind their gate: what they have sent
//! is kept. A peer that holds messages is not held back, since its acknowledgements are what makes
//! room, unless memory is exceeded by far; one that is held back goes on when it is handed one.

use rustc_hash::FxHashMap;
use slog::{crit, debug, info, warn};

use crate::channels::Notice;
use crate::engine::Input;
use crate::words::clock::Time;
use crate::words::command::Manner;
use crate::words::ids::ConnectionId;
use crate::words::limits::{Charge, JOURNAL_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, READ_SMALL_BYTES};
use crate::words::refusal::Refusal;

use super::Dispatcher;
use super::commits::MEASURE_AGAIN_MS;
use super::health::Condition;
use super::peers::Closed;

/// When it has not happened for so long, the next time is worth a warning again, in milliseconds.
const EPISODE_MS: u64 = 60_000;
/// On a full disk puts are refused when there is room for less than this beside what is under way,
/// in bytes.
const ROOM_BYTES_MIN: u64 = 128 * 1024;
/// They are accepted again when there is room for so much, in bytes, ...
const ROOM_AGAIN_BYTES: u64 = 4 * ROOM_BYTES_MIN;
/// ... and not sooner than this, in milliseconds, unless the disk has more: consumers that make room
/// and producers that use it up must not fill the log of the daemon.
const ROOM_AGAIN_AFTER_MS: u64 = 5_000;

/// What a message that becomes durable takes more than others, in bytes: it comes between others, and
/// may split their page.
const LATE_PUT_BYTES: u64 = 8 * 1024;

/// What the database in memory and the journal may take whatever `limits.max_memory` says, in
/// bytes: the tables alone take pages.
const SIZE_FREE_BYTES: u64 = 1024 * 1024;

/// The state of the pressure.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    draining: bool,
    out_of_memory: bool,
    /// Memory is exceeded by so much that who holds messages is held back too when it puts.
    far_out_of_memory: bool,
    journal_full: bool,
    /// When the disk had no room for messages any more.
    no_room_since: Time,
    /// Messages that were too large, and whose senders could not be told.
    pub(super) dropped: Episodes,
    /// Turns in which large messages were refused for want of room.
    refused_large: Episodes,
    /// What was taken in this turn.
    pub(super) taken: Taken,
    /// Peers behind their gates, and when each is given up: it holds messages, and its
    /// acknowledgements may lie unread behind what it puts.
    held_back: FxHashMap<ConnectionId, Time>,
    /// The first of those times.
    give_up_at: Option<Time>,
}

/// The charges of what was taken in a turn: a body counts as under way until it counts as kept, so
/// that no large frame finds the same room in between.
#[derive(Debug, Default)]
pub(super) struct Taken(Vec<Charge>);

impl Taken {
    /// Keeps a charge until the end of the turn, if it is worth that.
    pub(super) fn keep(&mut self, charge: Charge) {
        if charge.bytes() >= READ_SMALL_BYTES as u64 {
            self.0.push(charge);
        }
    }
}

/// Something that happens again and again and is told once.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    pub(super) count: u64,
    last: Option<Time>,
}

impl Episodes {
    /// Counts one. Says whether it is the first of an episode.
    fn count(&mut self, now: Time) -> bool {
        self.count += 1;
        let last = self.last.replace(now);
        last.is_none_or(|last| now.since(last) > EPISODE_MS)
    }
}

impl Pressure {
    fn is_on(&self, failing: bool) -> bool {
        self.draining || self.out_of_memory || self.journal_full || failing
    }

    /// When it has something to do by itself.
    pub(super) fn deadline(&self) -> Time {
        self.give_up_at.unwrap_or(Time::NEVER)
    }

    fn hold_back(&mut self, connection: ConnectionId, until: Time) {
        self.held_back.entry(connection).or_insert(until);
        if until < Time::NEVER {
            self.give_up_at = self.give_up_at.into_iter().chain([until]).min();
        }
    }
}

impl Dispatcher<'_> {
    pub(super) fn toggle_drain(&mut self) {
        self.pressure.draining = !self.pressure.draining;
        info!(self.log, "drain mode"; "on" => self.pressure.draining);
        self.update_refusal()
    }

    /// Tells the engine whether puts are refused, and why.
    pub(super) fn update_refusal(&mut self) {
        let refusal = if self.pressure.draining {
            Some(Refusal::Draining)
        } else if self.pressure.out_of_memory {
            // Before the disk, which is no reason for all puts.
            Some(Refusal::OutOfMemory)
        } else if self.disk_refuses() {
            Some(Refusal::StoreUnavailable)
        } else {
            None
        };
        let changed = self.health.note([
            (Condition::Draining, self.pressure.draining),
            (Condition::Failing, self.commits.failing),
            (Condition::DiskLow, self.commits.disk_low),
            (Condition::NoRoom, self.commits.no_room),
            (Condition::OutOfMemory, self.pressure.out_of_memory),
        ]);
        if changed {
            // When the channel is full the main thread is about to look by itself.
            let _ = self.notices.try_send(Notice::HealthChanged);
        }
        self.input(Input::RefusePuts(refusal))
    }

    /// Before a put, which has an answer or none: closes the gate of who should wait until there
    /// is room.
    pub(super) fn hold_back_putter(&mut self, connection: ConnectionId, is_answered: bool) {
        if !self.pressure.is_on(self.disk_refuses()) {
            return;
        }
        // The engine refuses a put that has a reply, so its sender need not be held back; but a
        // full journal drains by itself, and then waiting is better than a refusal.
        if is_answered && !self.pressure.journal_full {
            return;
        }
        let is_holding = self.engine.is_holding(connection);
        if is_holding && !self.pressure.far_out_of_memory {
            return;
        }
        let wait_ms = self.limits.frame_timeout_ms();
        let until = if is_holding { self.time().plus(wait_ms) } else { Time::NEVER };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.set_gate(Closed::PRESSURE, true);
        self.pressure.hold_back(connection, until);
    }

    /// Closes the connections of who has waited in vain although it holds messages: were all of them
    /// held so, nobody would make room any more. What has arrived from it is read to the end, with
    /// the acknowledgements in it; what it has not acknowledged is redelivered.
    fn give_up_holders(&mut self) {
        let now = self.time();
        if self.pressure.deadline() > now {
            return;
        }
        let held_back = &mut self.pressure.held_back;
        let over = held_back.extract_if(|_, until| *until <= now).map(|(connection, _)| connection);
        let over: Vec<ConnectionId> = over.collect();
        self.pressure.give_up_at =
            held_back.values().copied().filter(|until| *until < Time::NEVER).min();
        for connection in over {
            let Some(peer) = self.peers.get_mut(&connection) else { continue };
            debug!(self.log, "connection closed: puts beyond limits.max_memory and holds messages";
                "connection" => connection.0, "peer" => %peer.address,
                "protocol" => peer.protocol);
            peer.shut();
        }
    }

    /// A message was too large. Where its sender has no answers only the log can tell of it.
    pub(super) fn note_dropped(&mut self, connection: ConnectionId, body_bytes: u64) {
        let Some(peer) = self.peers.get(&connection) else { return };
        if peer.manner == Manner::Serial || !self.pressure.dropped.count(self.now.time) {
            return;
        }
        let max = self.limits.max_message_size() as u64;
        let (key, max) = if body_bytes > max {
            ("limits.max_message_size", max)
        } else {
            ("limits.max_memory", self.limits.max_memory())
        };
        warn!(self.log, "message dropped: too large, and its sender asks for no confirmation";
            "connection" => connection.0, "peer" => %peer.address, "protocol" => peer.protocol, "bytes" => body_bytes,
            "key" => key, "max" => max);
    }

    /// Lets a peer go on that was held back and has been handed a message: that it can acknowledge
    /// it is what makes room.
    pub(super) fn let_holder_go_on(&mut self, connection: ConnectionId) {
        if self.pressure.held_back.remove(&connection).is_some()
            && let Some(peer) = self.peers.get_mut(&connection)
        {
            peer.set_gate(Closed::PRESSURE, false);
        }
    }

    /// Once a turn: measures, and lets those go on for whom there is room again.
    pub(super) fn relieve(&mut self) {
        let (body_bytes, messages) = self.engine.stored();
        let journal = &self.commits.journal;
        let journal_bytes = journal.bytes() + self.mirror.lacking_bytes();
        let besides = journal.bytes_besides_messages()
            + self.mirror.lacking_bytes_besides_messages()
            + self.engine.bytes_besides_messages();
        let kept = body_bytes + messages * MESSAGE_OVERHEAD_BYTES + besides;
        let pages = self.mirror.bytes().saturating_sub(SIZE_FREE_BYTES);
        let volatile_bytes = self.volatile_bytes();
        // What is volatile takes no page, not even a free one.
        let resident = pages.saturating_add(volatile_bytes);
        self.admission.set_pages(resident);
        self.admission.set_kept(kept, journal_bytes);
        self.pressure.taken.0.clear();
        if self.admission.is_waited_for() {
            self.admission.note_holders(|connection| self.engine.is_holding(connection));
        }
        let used = kept + self.budget.bytes();
        let max = self.limits.max_memory();
        let was_out = self.pressure.out_of_memory;
        // Ten per cent of slack keep the state from flickering.
        let slack = |most: u64| if was_out { most / 10 * 9 } else { most };
        let is_over = used > slack(max) || volatile_bytes > slack(self.beside_bytes_max(pages));
        self.pressure.out_of_memory =
            is_over || self.admission.was_full() || self.mirror.is_short();
        self.tell_of_large(used);
        self.pressure.far_out_of_memory = used > max.saturating_add(max / 4);
        if was_out != self.pressure.out_of_memory {
            if was_out {
                info!(self.log, "memory has room again"; "bytes" => used);
            } else {
                warn!(self.log, "limits.max_memory is reached, puts are refused"; "bytes" => used);
            }
            self.update_refusal();
        }
        self.watch_disk();
        self.watch_room();
        self.pressure.journal_full = journal_bytes > self.journal_bytes_max(resident);
        if !self.pressure.is_on(self.disk_refuses()) {
            self.pressure.give_up_at = None;
            for (connection, _) in std::mem::take(&mut self.pressure.held_back) {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.set_gate(Closed::PRESSURE, false);
                }
            }
        }
        self.give_up_holders();
    }

    /// What volatile messages take, in bytes.
    fn volatile_bytes(&self) -> u64 {
        let (body_bytes, messages) = self.engine.volatile();
        body_bytes + messages * MESSAGE_OVERHEAD_BYTES
    }

    /// How much may be in memory beside what takes so much of it already: all of it together must
    /// not be far beyond `limits.max_memory`.
    fn beside_bytes_max(&self, resident: u64) -> u64 {
        let max = self.limits.max_memory();
        max.saturating_add(max / 2).saturating_sub(resident).max(max / 4)
    }

    /// How much may be on its way into databases, beside what is in memory and stays there.
    fn journal_bytes_max(&self, resident: u64) -> u64 {
        let max = self.limits.max_memory();
        let beside = self.beside_bytes_max(resident);
        let beside = if self.admission.is_starved(self.now.time) { max / 8 } else { beside };
        beside.clamp(SIZE_FREE_BYTES, JOURNAL_BYTES_MAX)
    }

    /// Large messages were refused while there was room for others.
    fn tell_of_large(&mut self, used: u64) {
        if self.admission.has_refused_large() && self.pressure.refused_large.count(self.now.time) {
            warn!(self.log, "limits.max_memory has no room for large messages, they are refused";
                "bytes" => used);
        }
    }

    /// Whether the disk takes no new messages.
    fn disk_refuses(&self) -> bool {
        self.commits.failing || self.commits.is_short_of_room()
    }

    /// Puts are refused when what they would be written to cannot be had any more.
    fn watch_room(&mut self) {
        let was_without = self.commits.no_room;
        let least = if was_without { ROOM_AGAIN_BYTES } else { ROOM_BYTES_MIN };
        let is_early =
            was_without && self.time() < self.pressure.no_room_since.plus(ROOM_AGAIN_AFTER_MS);
        let no_room = self.progress.disk_is_full() && (is_early || !self.has_room_for(least));
        self.set_no_room(no_room)
    }

    /// Whether there is room for what was put and so much more, whatever becomes of the disk.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        // On pages of its own a message can take twice its bytes.
        let pending = self.commits.journal.pending_put_bytes().saturating_mul(2);
        let late = self.commits.journal.pending_late_puts().saturating_mul(LATE_PUT_BYTES);
        pending.saturating_add(late).saturating_add(bytes) <= self.progress.own_room_bytes()
    }

    /// Notes whether there is room for what is put.
    pub(super) fn set_no_room(&mut self, no_room: bool) {
        if std::mem::replace(&mut self.commits.no_room, no_room) == no_room {
            return;
        }
        if no_room {
            crit!(
                self.log,
                "the disk is full: puts are refused; messages are still delivered and \
                removed"
            );
            let now = self.time();
            self.pressure.no_room_since = now;
            self.commits.tick = self.commits.tick.min(now.plus(MEASURE_AGAIN_MS));
        } else {
            info!(self.log, "the disk has room for messages again");
        }
        self.update_refusal()
    }

    /// Puts are refused before the disk is full, so that there is room for what removes messages.
    fn watch_disk(&mut self) {
        let Some(free) = self.progress.disk_free_bytes() else { return };
        let was_low = self.commits.disk_low;
        // Ten per cent of slack keep the state from flickering.
        let min = self.min_free_disk;
        let low = free < if was_low { min.saturating_add(min / 10) } else { min };
        if low == was_low {
            return;
        }
        self.commits.disk_low = low;
        if low {
            warn!(self.log, "the disk has less room than storage.min_free_disk, puts are refused";
                "free_bytes" => free);
            let soon = self.time();
            self.commits.tick = self.commits.tick.min(soon.plus(MEASURE_AGAIN_MS));
        } else {
            info!(self.log, "the disk has room again"; "free_bytes" => free);
        }
        self.update_refusal()
    }
}
