//! What happens to stored data: the only way anything reaches SQL.
//!
//! The engine lists changes; the journal gathers them, and one function carries them out in the
//! in-memory database and in the database file alike. Times in here are moments of the daemon's scale
//! ([`clock`](crate::words::clock)), which outlives the process as the rows do.

use crate::words::body::Body;
use crate::words::cause::Cause;
use crate::words::ids::{MessageId, QueueId, QueueName, Sequence};
use crate::words::settings::QueueLimits;

/// One change of stored data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A queue got its first message.
    QueueNamed {
        /// Its number.
        id: QueueId,
        /// Its name.
        name: QueueName,
    },
    /// A queue has no message any more and nobody refers to it.
    QueueGone(QueueId),
    /// A message was put.
    Put(MessageRow),
    /// A message's state is no longer the one it was put with.
    Moved(StateRow),
    /// A message is gone.
    Removed(MessageId),
    /// A deduplication key is taken, or what holds it has changed.
    KeySet(KeyRow),
    /// A deduplication key is free. One that is set anew has to be freed first.
    KeyGone {
        /// The queue that had it.
        queue: QueueId,
        /// The key.
        key: Box<[u8]>,
    },
    /// What an operator has set of a queue. One of which nothing is set has no row.
    QueueSet(SettingRow),
}

/// What is kept of a deduplication key of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The queue that has it.
    pub queue: QueueId,
    /// The key.
    pub key: Box<[u8]>,
    /// The message that has taken it; `None` once the key has outlived that.
    pub message: Option<MessageId>,
    /// How long it is taken.
    pub until: KeyUntil,
}

/// How long a key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUntil {
    /// Until its message is handed out for the first time.
    Taken,
    /// Until its message is gone.
    Done,
    /// Until this moment, whatever becomes of its message.
    Moment(i64),
}

/// What is kept of a message: written once, deleted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRow {
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueId,
    /// The priority that it was put with.
    pub priority: u32,
    /// The place that it was put at.
    pub sequence: Sequence,
    /// When it was put.
    pub created_ms: i64,
    /// When it expires; `None` is never.
    pub expires_ms: Option<i64>,
    /// When it is ready; `None` is at once.
    pub due_ms: Option<i64>,
    /// How long a reservation lasts, in milliseconds.
    pub time_to_run_ms: u64,
    /// What its protocol must give back.
    pub attributes: Attributes,
    /// The message itself.
    pub body: Body,
}

/// What is kept of what an operator has set of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingRow {
    /// The queue.
    pub queue: QueueId,
    /// Whether nothing of it is handed out.
    pub paused: bool,
    /// How many messages it may hold.
    pub limits: QueueLimits,
}

impl SettingRow {
    /// Whether this is what a queue is that nobody has set anything of.
    pub fn is_default(self) -> bool {
        self == SettingRow { queue: self.queue, ..SettingRow::default() }
    }
}

/// What is kept of the binding of a topic to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRow {
    /// Its number.
    pub id: u64,
    /// The topics whose messages it takes.
    pub pattern: String,
    /// The queue that it puts them into.
    pub queue: QueueId,
    /// Which of them it takes, in its protocol's words; `None` is all.
    pub filter: Option<Box<[u8]>>,
}

/// What is kept of a message that was moved after it was put. It stands for all of these fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// The message.
    pub id: MessageId,
    /// The queue that it is in; `None` is the one that it was put into.
    pub queue: Option<QueueId>,
    /// Never reserved: what was in somebody's hands is ready after a restart.
    pub state: MessageState,
    /// Its priority now.
    pub priority: u32,
    /// Its place now.
    pub sequence: Sequence,
    /// Delayed: when it is ready. Buried: its place among the buried. Else `None`.
    pub due: Option<i64>,
    /// When it expires; `None` is never. Of a buried message, the milliseconds that it had left.
    pub expires_ms: Option<i64>,
    /// The delay it was last given, in milliseconds.
    pub delay_ms: u64,
    /// What happened to it so far.
    pub counters: Counters,
    /// How its processing failed; `None` for most.
    pub failure: Option<Box<FailureRow>>,
}

/// What is kept of how the processing of a message failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureRow {
    /// Failed attempts since it was put or kicked.
    pub attempts: u32,
    /// Why it returned last.
    pub cause: Option<Cause>,
    /// When that was.
    pub returned_ms: Option<i64>,
    /// What was said about it then.
    pub text: Option<Box<str>>,
    /// Where it came from, if it is a dead letter.
    pub origin: Option<OriginRow>,
}

/// Where a dead letter goes back to when it is kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRow {
    /// The queue that it came from.
    pub queue: QueueId,
    /// Its place there.
    pub sequence: Sequence,
    /// Its place among the messages that were set aside: they are kicked in this order.
    pub burial: u64,
    /// The milliseconds that it had left to live there; `None` is for ever.
    pub life_left_ms: Option<i64>,
}

/// A message as a restart finds it: everything but its body and attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueId,
    /// The priority that it was put with.
    pub priority: u32,
    /// The place that it was put at.
    pub sequence: Sequence,
    /// When it was put.
    pub created_ms: i64,
    /// When it expires; `None` is never.
    pub expires_ms: Option<i64>,
    /// When it is ready; `None` is at once.
    pub due_ms: Option<i64>,
    /// How long a reservation lasts, in milliseconds.
    pub time_to_run_ms: u64,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// Where it was moved to since; stands for the fields above that it has too.
    pub moved: Option<StateRow>,
}

impl From<&MessageRow> for StoredMessage {
    /// The message as it was put.
    fn from(row: &MessageRow) -> StoredMessage {
        StoredMessage {
            id: row.id,
            queue: row.queue,
            priority: row.priority,
            sequence: row.sequence,
            created_ms: row.created_ms,
            expires_ms: row.expires_ms,
            due_ms: row.due_ms,
            time_to_run_ms: row.time_to_run_ms,
            body_bytes: row.body.len() as u64,
            moved: None,
        }
    }
}

/// How often things happened to one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed out.
    pub reserves: u32,
    /// Handed out and not finished in time.
    pub timeouts: u32,
    /// Given back.
    pub releases: u32,
    /// Set aside.
    pub buries: u32,
    /// Brought back.
    pub kicks: u32,
}

/// The life of a message.
///
/// ```text
///   put ──► delayed ──due──► ready ──reserve──► reserved ──acknowledge──► gone
///    └──────────────────────►  ▲ ▲ ◄──release, time-out, disconnect──┘ │
///                              │ └────kick──── buried ◄──────bury──────┘
///                              └──── release with a delay: delayed again
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// To be handed out.
    Ready,
    /// Not ready yet.
    Delayed,
    /// In somebody's hands; never stored.
    Reserved,
    /// Set aside until it is kicked.
    Buried,
}

/// A small map of names to bytes that a protocol must give back with a message; usually empty.
///
/// Kept as the bytes that are stored: for each entry a length byte and the name, two length bytes
/// (big-endian) and the value. Where the two bytes are 255 and 255, four more follow with the length
/// of a value that is too long for two. So what the first format of the file has, which knew no such
/// values, is read and written as ever, and short values take no more room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Option<Box<[u8]>>);

impl Attributes {
    /// The map that these stored bytes hold; no bytes are the empty one.
    pub fn from_stored(bytes: &[u8]) -> Attributes {
        Attributes(if bytes.is_empty() { None } else { Some(bytes.into()) })
    }

    /// The bytes to store, `None` for the empty map.
    pub fn stored(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    /// Adds an entry. Names are at most 255 bytes, longer ones are cut; protocols make them up.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name = &name.as_bytes()[..name.len().min(255)];
        let value = &value[..value.len().min(u32::MAX as usize)];
        let mut bytes = self.0.take().map(Vec::from).unwrap_or_default();
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name);
        match u16::try_from(value.len()) {
            Ok(length) if length < LONG => bytes.extend_from_slice(&length.to_be_bytes()),
            _ => {
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&LONG.to_be_bytes());
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(value);
        self.0 = Some(bytes.into());
    }

    /// The value of the first entry of this name.
    pub fn find(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(entry, _)| *entry == name.as_bytes()).map(|(_, value)| value)
    }

    /// All entries, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let (entry, after) = split_entry(rest)?;
            rest = after;
            Some(entry)
        })
    }
}

type Entry<'a> = (&'a [u8], &'a [u8]);

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (name_len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
    let (short, mut rest) = rest.split_first_chunk::<2>()?;
    let mut length = u32::from(u16::from_be_bytes(*short));
    if length == u32::from(LONG) {
        let (long, after) = rest.split_first_chunk::<4>()?;
        (length, rest) = (u32::from_be_bytes(*long), after);
    }
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some(((name, value), rest))
}

/// The two length bytes before the four of a value that is too long for two.
const LONG: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_stored() {
        let mut attributes = Attributes::default();
        attributes.push("revision", b"2");
        attributes.push("flags", b"\x00\xff");
        let again = Attributes::from_stored(attributes.stored().unwrap());
        assert_eq!(again.find("revision"), Some(&b"2"[..]));
        assert_eq!(again.find("flags"), Some(&b"\x00\xff"[..]));
        assert_eq!(again.find("other"), None);
        assert_eq!(again.iter().count(), 2);
    }

    #[test]
    fn values_of_any_length_come_back_whole() {
        for length in [0, 255, 65_534, 65_535, 65_536, 200_000] {
            let value: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
            let mut attributes = Attributes::default();
            attributes.push("before", b"1");
            attributes.push("long", &value);
            attributes.push("after", b"2");
            let again = Attributes::from_stored(attributes.stored().unwrap());
            assert!(again.find("long") == Some(&value[..]), "{length} bytes");
            assert_eq!(again.find("after"), Some(&b"2"[..]), "{length} bytes");
        }
    }

    /// What the daemon has written before there were long values.
    #[test]
    fn short_values_are_stored_as_ever() {
        let mut attributes = Attributes::default();
        attributes.push("phpmq.revision", b"2");
        assert_eq!(attributes.stored(), Some(&b"\x0ephpmq.revision\0\x012"[..]));
    }

    #[test]
    fn damaged_attributes_end_early_and_do_no_harm() {
        assert_eq!(Attributes::from_stored(b"\x05ab").iter().count(), 0);
        assert_eq!(Attributes::from_stored(b"\x01a\x00\x09b").iter().count(), 0);
        assert_eq!(Attributes::from_stored(b"\x01a\xff\xff\0\0").iter().count(), 0);
        assert_eq!(Attributes::from_stored(b"\x01a\xff\xff\xff\xff\xff\xffb").iter().count(), 0);
    }
}
