//! What the decoder tells the encoder, as it travels through the core in a tag: what is to be said
//! when the reply is there, and what the request wants of its answer.
//!
//! ```text
//!   ┌──────┬───────┬───────────────────────────────┐
//!   │ kind │ flags │ what goes with it: a name, a  │
//!   │      │       │ whole answer, nothing         │
//!   └──────┴───────┴───────────────────────────────┘
//! ```

use crate::words::command::Tag;
use crate::words::durability::Durability;
use crate::words::limits::QUEUE_NAME_BYTES_MAX;

/// What is in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ContentType {
    Json,
    Problem,
    Text,
}

impl ContentType {
    const ALL: [ContentType; 3] = [ContentType::Json, ContentType::Problem, ContentType::Text];

    /// As its field has it.
    pub(super) fn text(self) -> &'static str {
        match self {
            ContentType::Json => "application/json",
            ContentType::Problem => "application/problem+json",
            ContentType::Text => "text/plain; charset=utf-8",
        }
    }
}

/// An answer as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: ContentType,
    /// Fields beside the usual ones, each with its CR LF.
    pub(super) fields: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// An answer with the usual fields.
    pub(super) fn new(status: u16, content_type: ContentType, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, content_type, fields: String::new(), body: body.into() }
    }

    fn bytes(&self) -> Vec<u8> {
        let fields = self.fields.as_bytes();
        let fields_len = u16::try_from(fields.len()).unwrap_or(u16::MAX);
        let mut bytes = self.status.to_be_bytes().to_vec();
        bytes.push(self.content_type as u8);
        bytes.extend_from_slice(&fields_len.to_be_bytes());
        bytes.extend_from_slice(fields);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Answer> {
        let (status, rest) = bytes.split_first_chunk::<2>()?;
        let (content_type, rest) = rest.split_first()?;
        let (fields_len, rest) = rest.split_first_chunk::<2>()?;
        let (fields, body) = rest.split_at_checked(u16::from_be_bytes(*fields_len).into())?;
        Some(Answer {
            status: u16::from_be_bytes(*status),
            content_type: *ContentType::ALL.get(usize::from(*content_type))?,
            fields: std::str::from_utf8(fields).ok()?.to_owned(),
            body: body.to_vec(),
        })
    }
}

/// What is said when the reply is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Nothing, unless it is refused: another reply that belongs to the request follows.
    First,
    /// This.
    Answer(Answer),
    /// Go on, the body may come.
    Continue,
    /// That the dispatcher is at work.
    Health,
    /// Whether all is well.
    Readiness,
    /// The daemon's figures.
    Status,
    /// A page of queues.
    Queues,
    /// A queue's figures.
    Queue,
    /// The figures of this queue, which show what the commands before have changed: so they promise
    /// that.
    ChangedQueue(String),
    /// The id of a message in this queue, and whether it is delayed.
    Put { queue: String, is_delayed: bool },
    /// How many messages were brought back.
    Kicked,
    /// How many messages were removed.
    Removed,
    /// How many would be.
    WouldRemove,
    /// A message's figures, which are kept until the message itself comes.
    Figures,
    /// A message with its figures.
    Message,
    /// Its content only.
    Content,
    /// What was done with a message, if it was: else the next reply says why not.
    Done(Done),
    /// Why that was not done.
    WhyNot,
}

/// What was done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Done {
    Removed,
    Kicked,
    Buried,
}

impl Done {
    const ALL: [Done; 3] = [Done::Removed, Done::Kicked, Done::Buried];
}

/// A request's wishes for its answer, and what is to be said in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) say: Say,
    pub(super) wishes: Wishes,
}

/// What a request wants of its answer, whatever that says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// The head alone.
    pub(super) head_only: bool,
    /// The connection ends behind it.
    pub(super) closes: bool,
    /// The peer has to be told that the connection goes on.
    pub(super) tells_keep_alive: bool,
    /// How safe it has to be, where that is more than the listener's level.
    pub(super) durability: Option<Durability>,
}

const HEAD_ONLY: u8 = 1;
const CLOSES: u8 = 2;
const TELLS_KEEP_ALIVE: u8 = 4;
const WRITE: u8 = 8;
const SYNC: u8 = 16;

impl Wishes {
    fn flags(self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.head_only, HEAD_ONLY)
            | flag(self.closes, CLOSES)
            | flag(self.tells_keep_alive, TELLS_KEEP_ALIVE)
            | flag(self.durability == Some(Durability::Write), WRITE)
            | flag(self.durability == Some(Durability::Sync), SYNC)
    }

    fn of(flags: u8) -> Wishes {
        let is_set = |flag: u8| flags & flag != 0;
        let durability = match (is_set(WRITE), is_set(SYNC)) {
            (_, true) => Some(Durability::Sync),
            (true, false) => Some(Durability::Write),
            (false, false) => None,
        };
        Wishes {
            head_only: is_set(HEAD_ONLY),
            closes: is_set(CLOSES),
            tells_keep_alive: is_set(TELLS_KEEP_ALIVE),
            durability,
        }
    }
}

impl Note {
    /// As a tag.
    pub(super) fn tag(&self) -> Tag {
        let kind = match &self.say {
            Say::First => b'0',
            Say::Answer(_) => b'a',
            Say::Continue => b'1',
            Say::Health => b'h',
            Say::Readiness => b'r',
            Say::Status => b's',
            Say::Queues => b'l',
            Say::Queue => b'q',
            Say::ChangedQueue(_) => b'Q',
            Say::Put { is_delayed: false, .. } => b'p',
            Say::Put { is_delayed: true, .. } => b'P',
            Say::Kicked => b'k',
            Say::Removed => b'f',
            Say::WouldRemove => b'w',
            Say::Figures => b'i',
            Say::Message => b'm',
            Say::Content => b'c',
            Say::Done(_) => b'd',
            Say::WhyNot => b'y',
        };
        let flags = self.wishes.flags();
        match &self.say {
            Say::Answer(answer) => Tag::bytes(&[&[kind, flags], &answer.bytes()[..]].concat()),
            Say::Done(done) => Tag::bytes(&[kind, flags, *done as u8]),
            // Made for every message that is put: without an allocation.
            Say::Put { queue, .. } | Say::ChangedQueue(queue) => {
                let mut bytes = [0; 2 + QUEUE_NAME_BYTES_MAX];
                let length = 2 + queue.len().min(QUEUE_NAME_BYTES_MAX);
                [bytes[0], bytes[1]] = [kind, flags];
                if let Some(place) = bytes.get_mut(2..length) {
                    place.copy_from_slice(queue.as_bytes().get(..length - 2).unwrap_or_default());
                }
                Tag::bytes(bytes.get(..length).unwrap_or_default())
            }
            _ => Tag::bytes(&[kind, flags]),
        }
    }

    /// What a tag says; `None` when it is none of ours.
    pub(super) fn of(tag: &Tag) -> Option<Note> {
        let Tag::Bytes(bytes) = tag else { return None };
        let ([kind, flags], rest) = bytes.as_slice().split_first_chunk::<2>()?;
        let text = || Some(std::str::from_utf8(rest).ok()?.to_owned());
        let put = |is_delayed| Some(Say::Put { queue: text()?, is_delayed });
        let say = match kind {
            b'0' => Say::First,
            b'a' => Say::Answer(Answer::of(rest)?),
            b'1' => Say::Continue,
            b'h' => Say::Health,
            b'r' => Say::Readiness,
            b's' => Say::Status,
            b'l' => Say::Queues,
            b'q' => Say::Queue,
            b'Q' => Say::ChangedQueue(text()?),
            b'p' => put(false)?,
            b'P' => put(true)?,
            b'k' => Say::Kicked,
            b'f' => Say::Removed,
            b'w' => Say::WouldRemove,
            b'i' => Say::Figures,
            b'm' => Say::Message,
            b'c' => Say::Content,
            b'd' => Say::Done(*Done::ALL.get(usize::from(*rest.first()?))?),
            b'y' => Say::WhyNot,
            _ => return None,
        };
        Some(Note { say, wishes: Wishes::of(*flags) })
    }

    /// The wishes in a tag of ours, without the rest.
    pub(super) fn wishes_of(tag: &Tag) -> Wishes {
        match tag {
            Tag::Bytes(bytes) => {
                bytes.as_slice().get(1).map_or_else(Wishes::default, |flags| Wishes::of(*flags))
            }
            _ => Wishes::default(),
        }
    }

    /// Whether a tag of ours has the answer promise what the requests before it have changed.
    pub(super) fn promises(tag: &Tag) -> bool {
        matches!(tag, Tag::Bytes(bytes) if bytes.as_slice().first() == Some(&b'Q'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_from_its_tag() {
        let mut answer = Answer::new(405, ContentType::Problem, "{}");
        answer.fields = "Allow: GET\r\n".to_owned();
        let everything = [
            Say::First,
            Say::Answer(answer),
            Say::Continue,
            Say::Health,
            Say::Readiness,
            Say::Status,
            Say::Queues,
            Say::Queue,
            Say::ChangedQueue("mail".to_owned()),
            Say::Put { queue: "größe".to_owned(), is_delayed: false },
            Say::Put { queue: "q".repeat(200), is_delayed: true },
            Say::Kicked,
            Say::Removed,
            Say::WouldRemove,
            Say::Figures,
            Say::Message,
            Say::Content,
            Say::Done(Done::Removed),
            Say::Done(Done::Kicked),
            Say::Done(Done::Buried),
            Say::WhyNot,
        ];
        for (at, say) in everything.into_iter().enumerate() {
            let levels = [None, Some(Durability::Write), Some(Durability::Sync)];
            let wishes = Wishes {
                head_only: at % 2 == 0,
                closes: at % 3 == 0,
                tells_keep_alive: at % 5 == 0,
                durability: levels[at % 3],
            };
            let note = Note { say, wishes };
            assert_eq!(Note::of(&note.tag()).as_ref(), Some(&note));
            assert_eq!(Note::wishes_of(&note.tag()), wishes);
            assert_eq!(Note::promises(&note.tag()), matches!(note.say, Say::ChangedQueue(_)));
        }
    }

    #[test]
    fn other_tags_are_none_of_ours() {
        for tag in [Tag::None, Tag::Code(1), Tag::bytes(b""), Tag::bytes(b"q"), Tag::bytes(b"zz")] {
            assert_eq!(Note::of(&tag), None);
        }
    }
}
