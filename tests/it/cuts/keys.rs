//! The lives of deduplication keys, as the engine gives them: each is taken with the put of its
//! message and is free when that is handed out, when that is done, or when its time is over, for
//! which it may outlive the message.

use phpmq::words::change::{Change, KeyRow, KeyUntil};
use phpmq::words::ids::{MessageId, QueueId};

use super::model::{Ids, Model, Sizes};
use super::random::Random;

/// So few that many are taken again.
const KEYS: u64 = 20;
/// A moment that none of these tests reaches.
const MOMENT_MS: i64 = 1_800_000_000_000;

/// How long a key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    UntilTaken,
    UntilDone,
    ForATime,
}

impl KeyKind {
    pub const ALL: [KeyKind; 3] = [KeyKind::UntilTaken, KeyKind::UntilDone, KeyKind::ForATime];

    pub fn until(self) -> KeyUntil {
        match self {
            KeyKind::UntilTaken => KeyUntil::Taken,
            KeyKind::UntilDone => KeyUntil::Done,
            KeyKind::ForATime => KeyUntil::Moment(MOMENT_MS),
        }
    }
}

impl Model {
    /// A message is put with a key. The life of one that is taken already goes on instead.
    pub fn put_with_key(
        &mut self,
        ids: &mut Ids,
        sizes: &Sizes,
        random: &mut Random,
    ) -> Vec<Change> {
        let put = self.put(ids, sizes, random);
        let Change::Put(row) = &put else { return vec![put] };
        let place = (row.queue.0, random.below(KEYS));
        if self.keys.contains_key(&place) {
            // What was put goes without one.
            return [vec![put], self.go_on(place)].concat();
        }
        let kind = KeyKind::ALL[random.below(3) as usize];
        self.keys.insert(place, (Some(row.id), kind));
        let set = key_set(place, Some(row.id), kind);
        vec![put, set]
    }

    /// The life of a key goes on, if there is one.
    pub fn end_key(&mut self, random: &mut Random) -> Vec<Change> {
        let at = random.below(self.keys.len() as u64) as usize;
        let place = self.keys.keys().nth(at).copied();
        place.map(|place| self.go_on(place)).unwrap_or_default()
    }

    fn go_on(&mut self, place: (u64, u64)) -> Vec<Change> {
        match self.keys[&place] {
            // Done, or gone while the key has more time.
            (Some(id), KeyKind::UntilDone | KeyKind::ForATime) => self.end(id.0),
            // Handed out, or its time is over.
            (Some(_), KeyKind::UntilTaken) | (None, _) => vec![self.free(place)],
        }
    }

    /// A message is gone, if there is one, and with it its key, unless that outlives it.
    pub fn end_one(&mut self, random: &mut Random) -> Vec<Change> {
        self.any(random).map(|id| self.end(id)).unwrap_or_default()
    }

    fn end(&mut self, id: u64) -> Vec<Change> {
        let taken = self.keys.iter().find(|(_, (message, _))| *message == Some(MessageId(id)));
        let key = taken.map(|(place, (_, kind))| (*place, *kind));
        let mut changes: Vec<Change> = key
            .map(|(place, kind)| match kind {
                KeyKind::ForATime => {
                    self.keys.insert(place, (None, kind));
                    key_set(place, None, kind)
                }
                KeyKind::UntilTaken | KeyKind::UntilDone => self.free(place),
            })
            .into_iter()
            .collect();
        self.messages.remove(&id);
        changes.push(Change::Removed(MessageId(id)));
        changes
    }

    fn free(&mut self, place: (u64, u64)) -> Change {
        self.keys.remove(&place);
        Change::KeyGone { queue: QueueId(place.0), key: bytes(place.1) }
    }
}

fn key_set(place: (u64, u64), message: Option<MessageId>, kind: KeyKind) -> Change {
    let (queue, key) = place;
    let until = kind.until();
    Change::KeySet(KeyRow { queue: QueueId(queue), key: bytes(key), message, until })
}

fn bytes(key: u64) -> Box<[u8]> {
    key.to_be_bytes()[..].into()
}
