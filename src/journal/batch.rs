//! The changes of one commit, coalesced by message, queue and key.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::keys::Taken;
use super::puts::Puts;
use super::rare::Rare;
use crate::words::change::{KeyRow, MessageRow, SettingRow, StateRow};
use crate::words::clock::Now;
use crate::words::ids::{CommitNumber, MessageId, Part, QueueId, QueueName};
use crate::words::limits::MESSAGE_OVERHEAD_BYTES;

/// Changes handed over to persistence as one commit.
///
/// Invariant: no message is in both `puts` and `removals`, unless its earlier put may be in the
/// file although its commit failed, and then it is in `removals` alone.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) number: CommitNumber,
    puts: Puts,
    states: FxHashMap<MessageId, StateRow>,
    /// What `states` held when the batch was taken, by id.
    sorted_states: Vec<StateRow>,
    removals: Vec<MessageId>,
    /// What most commits have nothing of: batches are moved and emptied with every commit.
    rare: Option<Box<Rare>>,
    bytes: u64,
    put_bytes: u64,
    /// Bytes of what was said of messages that failed, at most so many.
    text_bytes: u64,
    /// Whether the database in memory may have some of it, from an attempt to rewrite the file that
    /// has failed: then it needs the removal of what has come and gone.
    pub may_be_mirrored: bool,
}

const _: () = assert!(size_of::<Batch>() <= 176, "a batch is moved a dozen times for each commit");

/// What is to become of one message's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// They are removed, if there are any.
    Removed(MessageId),
    /// It was put.
    Put(&'a MessageRow),
    /// It was moved.
    Moved(&'a StateRow),
}

impl Batch {
    pub(super) fn numbered(number: CommitNumber) -> Batch {
        Batch { number, ..Batch::default() }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.rare.as_ref().is_none_or(|rare| rare.is_empty())
    }

    /// Bytes of bodies and overhead in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of messages that were put.
    pub fn put_bytes(&self) -> u64 {
        self.put_bytes
    }

    /// Bytes of all else.
    pub fn bytes_besides_messages(&self) -> u64 {
        self.bytes - self.put_bytes
    }

    /// How many messages were put.
    pub fn puts(&self) -> u64 {
        self.puts.len() as u64
    }

    /// How many of them have ids below others that were put before, at most so many. In the file they
    /// are not added at its end, but between others.
    pub fn late_puts(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.late_puts)
    }

    /// How many messages are removed.
    pub fn removals(&self) -> u64 {
        self.removals.len() as u64
    }

    /// How many messages were moved.
    pub fn moves(&self) -> u64 {
        (self.states.len() + self.sorted_states.len()) as u64
    }

    /// Bytes of what was said of those of them that failed, at most so many.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Rows that it writes or deletes.
    pub fn rows(&self) -> u64 {
        let states = self.states.len() + self.sorted_states.len();
        let rare = self.rare.as_ref().map_or(0, |rare| rare.rows());
        (self.puts.len() + states + self.removals.len() + rare) as u64
    }

    /// Queues to write, by number. They come before all messages.
    pub fn queues_named(&self) -> Vec<(QueueId, &QueueName)> {
        self.rare.as_ref().map(|rare| rare.queues_named()).unwrap_or_default()
    }

    /// Those of them that messages are moved to which were not put by this batch, and of which an
    /// operator has set something.
    pub fn queues_moved_to(&self) -> Vec<(QueueId, &QueueName)> {
        let Some(rare) = &self.rare else { return Vec::new() };
        let moved = self.sorted_states.iter().filter(|row| self.message(row.id).is_none());
        let ids = moved.filter_map(|row| row.queue).chain(rare.settings.keys().copied());
        let mut named: Vec<_> = ids.filter_map(|id| Some((id, rare.named.get(&id)?))).collect();
        named.sort_unstable_by_key(|(id, _)| *id);
        named.dedup_by_key(|(id, _)| *id);
        named
    }

    /// What operators have set of queues, by number, after all messages. A row may be the default.
    pub fn settings(&self) -> Vec<SettingRow> {
        self.rare.as_ref().map(|rare| rare.settings()).unwrap_or_default()
    }

    /// Queues to remove, after all messages. They may not exist.
    pub fn queues_gone(&self) -> &[QueueId] {
        self.rare.as_ref().map(|rare| &*rare.gone).unwrap_or_default()
    }

    /// How many keys and settings of queues change.
    pub fn settings_len(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| (rare.keys.len() + rare.settings.len()) as u64)
    }

    /// What becomes of keys, by queue and key, after all messages. One that is free may have had no
    /// row.
    pub fn keys(&self) -> Vec<(QueueId, &[u8], Taken)> {
        self.rare.as_ref().map(|rare| rare.keys.sorted()).unwrap_or_default()
    }

    /// How many places there are for [`Batch::part`].
    pub fn places(&self) -> usize {
        self.removals.len() + self.puts.slots() + self.sorted_states.len()
    }

    /// The places of one part. What is moved of messages that are put is in the places of the moves.
    pub fn places_of(&self, part: Part) -> Range<usize> {
        let (removals, slots) = (self.removals.len(), self.puts.slots());
        match part {
            Part::Removals => 0..removals,
            Part::Puts => removals..removals + slots,
            Part::Moves => removals + slots..self.places(),
        }
    }

    /// What is to be done in these places: messages are removed, then others put, then moved, each
    /// by id. A place may be empty.
    pub fn part(&self, places: Range<usize>) -> impl Iterator<Item = Row<'_>> {
        let (removals, slots) = (self.removals.len(), self.puts.slots());
        let states = cut(&places, removals + slots, self.sorted_states.len());
        let removed = self.removals[cut(&places, 0, removals)].iter().map(|id| Row::Removed(*id));
        let put = self.puts.range(cut(&places, removals, slots)).map(Row::Put);
        removed.chain(put).chain(self.sorted_states[states].iter().map(Row::Moved))
    }

    /// The first of these places, in which messages of so many bytes at most were put, or one
    /// message alone.
    pub fn first_bytes(&self, places: Range<usize>, bytes_max: u64) -> Range<usize> {
        let removals = self.removals.len();
        let slots = cut(&places, removals, self.puts.slots());
        let end = self.puts.end_of_bytes(slots.clone(), bytes_max);
        places.start..if end < slots.end { removals + end } else { places.end }
    }

    /// Lets go of the messages that were put in these places, whose number stays. Returns their
    /// bytes, which stay counted here.
    pub fn forget_puts(&mut self, places: Range<usize>) -> u64 {
        self.puts.forget(cut(&places, self.removals.len(), self.puts.slots()))
    }

    /// The message of this id, if it was put.
    pub fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.puts.get(id)
    }

    /// The end of the ids that may be handed out, when it moves.
    pub fn ids_reserved(&self) -> Option<u64> {
        self.rare.as_ref()?.ids_reserved
    }

    /// The first id that was never handed out, when this is the last commit of an orderly stop.
    pub fn clean_stop(&self) -> Option<u64> {
        self.rare.as_ref()?.clean_stop
    }

    /// How the clock stands, where that is to be stored.
    pub fn clock(&self) -> Option<Now> {
        self.rare.as_ref()?.clock
    }

    /// Whether it may not be committed in parts.
    pub fn is_tied(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_tied)
    }

    /// What most commits have nothing of.
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Takes out what is in the file although the whole is not: everything up to this part.
    pub(super) fn split_up_to(&mut self, part: Part) -> Batch {
        let mut kept = Batch {
            number: self.number,
            removals: std::mem::take(&mut self.removals),
            may_be_mirrored: self.may_be_mirrored,
            ..Batch::default()
        };
        let named = if part >= Part::Moves { self.queues_moved_to() } else { Vec::new() };
        // They are named once more with what is put.
        let named = named.into_iter().map(|(id, name)| (id, name.clone())).collect();
        kept.rare = self.rare.as_mut().map(|rare| Box::new(rare.split_up_to(part, named)));
        if part >= Part::Moves {
            let puts = &self.puts;
            let moved = |row: &StateRow| puts.get(row.id).is_none();
            kept.sorted_states = self.sorted_states.extract_if(.., |row| moved(row)).collect();
        }
        kept.count_bytes();
        self.count_bytes();
        kept
    }

    fn count_bytes(&mut self) {
        let removals = self.removals.len() as u64 * REMOVAL_BYTES;
        let states: u64 =
            self.sorted_states.iter().chain(self.states.values()).map(state_bytes).sum();
        let rare = self.rare.as_ref().map_or(0, |rare| rare.bytes());
        self.bytes = self.put_bytes + removals + states + rare;
    }

    /// Empties it. The allocations stay unless a burst has made them far larger than what they were
    /// used for.
    pub(super) fn clear(&mut self) {
        self.puts.clear();
        clear(&mut self.sorted_states);
        clear(&mut self.removals);
        self.states.clear();
        self.rare = None;
        self.bytes = 0;
        self.put_bytes = 0;
        self.text_bytes = 0;
        self.may_be_mirrored = false;
    }

    /// For how many messages it has room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.puts.capacity()
    }

    /// Brings its rows into the order of their ids, until something is added.
    pub fn seal(&mut self) {
        self.puts.close_ranks();
        self.removals.sort_unstable();
        self.sorted_states.extend(self.states.drain().map(|(_, row)| row));
        self.sorted_states.sort_unstable_by_key(|row| row.id);
        if self.states.capacity() > KEPT_CAPACITY_MIN
            && self.states.capacity() / 8 > self.sorted_states.len()
        {
            self.states.shrink_to(KEPT_CAPACITY_MIN);
        }
    }

    pub(super) fn put(&mut self, row: MessageRow) {
        let bytes = put_bytes(&row);
        self.bytes += bytes;
        self.put_bytes += bytes;
        self.puts.push(row);
    }

    pub(super) fn moved(&mut self, row: StateRow) {
        self.bytes += state_bytes(&row);
        self.text_bytes += text_bytes(&row);
        if let Some(older) = self.states.insert(row.id, row) {
            self.bytes -= state_bytes(&older);
        }
    }

    pub(super) fn removed(&mut self, id: MessageId, file_is_suspect: bool) {
        if !self.states.is_empty()
            && let Some(row) = self.states.remove(&id)
        {
            self.bytes -= state_bytes(&row);
        }
        let put = self.puts.remove(id);
        if let Some(row) = &put {
            let bytes = put_bytes(row);
            self.bytes -= bytes;
            self.put_bytes -= bytes;
        }
        if put.is_none() || file_is_suspect {
            self.removals.push(id);
            self.bytes += REMOVAL_BYTES;
        }
    }

    pub(super) fn queue_named(&mut self, id: QueueId, name: QueueName) {
        self.change_rare(|rare| rare.named.extend([(id, name)]));
    }

    pub(super) fn queue_gone(&mut self, id: QueueId, file_is_suspect: bool) {
        self.change_rare(|rare| rare.queue_gone(id, file_is_suspect));
    }

    pub(super) fn queue_set(&mut self, row: SettingRow) {
        self.change_rare(|rare| rare.settings.extend([(row.queue, row)]));
    }

    pub(super) fn key_set(&mut self, row: KeyRow) {
        let is_new = row.message.is_some_and(|id| self.puts.get(id).is_some());
        self.change_rare(|rare| rare.keys.set(row, is_new));
    }

    pub(super) fn key_gone(&mut self, queue: QueueId, key: Box<[u8]>, file_is_suspect: bool) {
        self.change_rare(|rare| rare.keys.gone(queue, key, file_is_suspect));
    }

    fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        let rare = self.rare.get_or_insert_default();
        self.bytes -= rare.bytes();
        change(rare);
        self.bytes += rare.bytes();
    }

    /// Adds what happened later; takes everything out of `newer`. For a suspect file, or memory that
    /// may have some of it, what is in neither batch any more is still removed.
    pub fn add(&mut self, newer: &mut Batch, file_is_suspect: bool) {
        self.may_be_mirrored |= newer.may_be_mirrored;
        self.states.extend(self.sorted_states.drain(..).map(|row| (row.id, row)));
        let mut rare = newer.rare.take();
        if let Some(rare) = &mut rare {
            // Before the messages, which are put into them.
            self.change_rare(|older| older.named.extend(rare.named.drain()));
        }
        for row in newer.puts.drain() {
            self.put(row);
        }
        for row in newer.sorted_states.drain(..).chain(newer.states.drain().map(|(_, row)| row)) {
            self.moved(row);
        }
        for id in newer.removals.drain(..) {
            self.removed(id, file_is_suspect);
        }
        if let Some(rare) = rare {
            self.change_rare(|older| older.add(*rare, file_is_suspect));
        }
    }
}

/// Which of the `len` entries that begin with the place `from` are in these places.
fn cut(places: &Range<usize>, from: usize, len: usize) -> Range<usize> {
    let start = places.start.clamp(from, from + len) - from;
    start..(places.end.clamp(from, from + len) - from).max(start)
}

fn clear<T>(list: &mut Vec<T>) {
    let used = list.len();
    list.clear();
    if list.capacity() > KEPT_CAPACITY_MIN && list.capacity() / 8 > used {
        list.shrink_to(KEPT_CAPACITY_MIN.max(used * 2));
    }
}

/// What a message that was put takes, in bytes.
pub(super) fn put_bytes(row: &MessageRow) -> u64 {
    let attributes = row.attributes.stored().map_or(0, <[u8]>::len);
    (row.body.len() + attributes) as u64 + MESSAGE_OVERHEAD_BYTES
}

/// What a message that was moved takes, in bytes.
fn state_bytes(row: &StateRow) -> u64 {
    STATE_BYTES + row.failure.as_ref().map_or(0, |_| FAILURE_BYTES) + text_bytes(row)
}

fn text_bytes(row: &StateRow) -> u64 {
    let text = row.failure.as_ref().and_then(|failure| failure.text.as_ref());
    text.map_or(0, |text| text.len() as u64)
}

/// What entries of the other kinds take, in bytes: their size in the tables above, roughly.
const STATE_BYTES: u64 = 180;
const FAILURE_BYTES: u64 = 120;
pub(super) const REMOVAL_BYTES: u64 = 16;
/// Entries whose room is kept in an emptied batch whatever it was used for.
const KEPT_CAPACITY_MIN: usize = 4_096;
