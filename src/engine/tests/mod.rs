//! The rules of queueing, one test each, told as dialogues.
//!
//! [`Talk`] drives an engine: connections have letters, commands are short texts, and what comes
//! of them is rendered as one line, so that a test reads like the conversation it is about. After
//! each step the invariants are checked. The clock stands still until it is moved.

mod ack_timeout;
mod allowance;
mod each;
mod ending;
mod flush;
mod ids;
mod keys;
mod lists;
mod lives;
mod load;
mod memory;
mod much;
mod order;
mod pages;
mod pause_kick;
mod policies;
mod reserve;
mod restarts;
mod rotation;
mod settings;
mod settle;
mod statistics;
mod subscriptions;
mod time_to_live;
mod time_to_run;
mod together;
mod volatile;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::words::body::Body;
use crate::words::cause::Reason;
use crate::words::change::{Attributes, Change, MessageRow, MessageState};
use crate::words::clock::{Now, Time};
use crate::words::command::{
    Amount, Command, Extras, Handing, Manner, MessageRef, Options, Put, PutWith, Reply, Request,
    Settlement, Sources, SubscriptionKey, Tag, Target, Terms, TogetherStep,
};
use crate::words::ids::{ConnectionId, MessageId, QueueName};
use crate::words::key::{Key, KeyTerm, KeyedBy};
use crate::words::limits::{LimitValues, Limits};
use crate::words::settings::{QueueLimits, QueueSetting};

use super::{Effect, Engine, Input};

/// The subscription that `watch`, `ignore` and `reserve` are about.
pub const SET: SubscriptionKey = SubscriptionKey::Number(0);
/// When every conversation begins.
const START: u64 = 1_000_000;

/// A conversation with an engine.
pub struct Talk {
    pub engine: Engine,
    pub now: Now,
    /// What was to be stored so far.
    pub changes: Vec<Change>,
    /// The volatile messages.
    pub volatile: Contents,
    /// The answers of the last step that waited for no commit, as they are told.
    pub at_once: Vec<String>,
    /// The replies of the last step, for a look at their insides.
    pub replies: Vec<Reply>,
    /// Whether the invariants are checked after each step; too slow for many thousand messages.
    pub checking: bool,
}

impl Talk {
    pub fn new() -> Talk {
        Talk::with(LimitValues::default())
    }

    pub fn with(values: LimitValues) -> Talk {
        Talk::over(Engine::new(Arc::new(Limits::new(&values)), 1, 1 << 40, 1))
    }

    pub fn over(engine: Engine) -> Talk {
        let now = Now { time: Time(START), wall_offset_ms: 0 };
        Talk {
            engine,
            now,
            changes: vec![],
            volatile: Contents::default(),
            at_once: vec![],
            replies: vec![],
            checking: true,
        }
    }

    /// Connections of serial protocols that use and watch `q`, which vanishes like others.
    pub fn workers(mut self, letters: &str) -> Talk {
        for letter in letters.chars() {
            self.open_on(letter, Manner::Serial, 0, Some(queue("q")));
        }
        if let Some(q) = self.engine.ledger.queues().find(&queue("q")) {
            self.engine.ledger.forget_first(q);
        }
        self
    }

    /// Connections of a window protocol without a time-out.
    pub fn consumers(self, letters: &str) -> Talk {
        self.consumers_timed(letters, 0)
    }

    /// The same with an `ack_timeout`.
    pub fn consumers_timed(mut self, letters: &str, ack_timeout_ms: u64) -> Talk {
        for letter in letters.chars() {
            self.open(letter, Manner::Streaming, ack_timeout_ms);
        }
        self
    }

    pub fn open(&mut self, letter: char, manner: Manner, ack_timeout_ms: u64) {
        self.open_on(letter, manner, ack_timeout_ms, None);
    }

    /// A connection that refers to a queue and is subscribed to it from its beginning.
    pub fn open_on(
        &mut self,
        letter: char,
        manner: Manner,
        ack_timeout_ms: u64,
        first: Option<QueueName>,
    ) -> String {
        let (connection, first_queue) = (connection(letter), first.map(|name| (name, 0)));
        self.input(Input::Opened { connection, manner, ack_timeout_ms, first_queue })
    }

    pub fn say(&mut self, letter: char, text: &str) -> String {
        self.command(letter, command(text))
    }

    pub fn command(&mut self, letter: char, command: Command) -> String {
        let request = Request { tag: Tag::None, command };
        self.input(Input::Request(connection(letter), request))
    }

    /// Adds a queue to the subscription of this number, whose tag is the number.
    pub fn subscribe(&mut self, letter: char, number: u64, name: &str, options: Options) -> String {
        let options = Options { tag: Tag::Code(number), ..options };
        let (key, queue) = (SubscriptionKey::Number(number), queue(name));
        self.command(letter, Command::Subscribe { key, queue, options })
    }

    pub fn unsubscribe(&mut self, letter: char, number: u64, name: &str) -> String {
        let (key, queue) = (SubscriptionKey::Number(number), queue(name));
        self.command(letter, Command::Unsubscribe { key, queue, keep_last: false })
    }

    /// A reserve out of these queues, this once.
    pub fn reserve_once(
        &mut self,
        letter: char,
        names: &[&str],
        timeout_ms: Option<u64>,
    ) -> String {
        let names = names.iter().map(|name| queue(name)).collect();
        let (settlement, terms) = (Settlement::ByConsumer, Terms::MessageTimeToRun);
        let from = Sources::Queues { names, settlement, terms };
        let amount = Amount::Total(1);
        let reserve = Command::Reserve { from, refuse_if_holding: true, timeout_ms, amount };
        self.command(letter, reserve)
    }

    pub fn sent(&mut self, letter: char, count: usize) -> String {
        self.input(Input::Sent(connection(letter), count))
    }

    pub fn close(&mut self, letter: char) -> String {
        self.input(Input::Closed(connection(letter)))
    }

    pub fn hang_up(&mut self, letter: char) -> String {
        self.input(Input::HungUp(connection(letter)))
    }

    pub fn stall(&mut self, letter: char, slow: bool) -> String {
        self.input(Input::Stalled(connection(letter), slow))
    }

    pub fn input(&mut self, input: Input) -> String {
        let mut effects = Vec::new();
        self.engine.handle(self.now, input, &mut effects);
        self.done(effects)
    }

    /// One turn.
    pub fn turn(&mut self) -> String {
        let mut effects = Vec::new();
        self.engine.turn(self.now, &mut effects);
        self.done(effects)
    }

    /// Moves the clock, stopping wherever something is due.
    pub fn pass(&mut self, millis: u64) -> String {
        let end = self.now.time.plus(millis);
        let mut told = Vec::new();
        loop {
            let next = self.engine.next_deadline();
            if next > end {
                break;
            }
            self.now.time = self.now.time.max(next);
            told.push(self.turn());
        }
        self.now.time = end;
        told.retain(|line| !line.is_empty());
        told.join(", ")
    }

    /// Moves the clock at once, as when the machine was held up, and does what was due.
    pub fn jump(&mut self, millis: u64) -> String {
        self.now.time = self.now.time.plus(millis);
        self.pass(0)
    }

    /// Does what is due, as the dispatcher does before it takes the first command.
    pub fn catch_up(&mut self) -> String {
        let mut effects = Vec::new();
        while self.engine.catch_up(self.now, &mut effects) {}
        self.done(effects)
    }

    /// What is due now, and large work to its end.
    pub fn settle(&mut self) -> String {
        self.pass(0)
    }

    fn done(&mut self, effects: Vec<Effect>) -> String {
        self.replies.clear();
        self.at_once.clear();
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::Change(change) => self.changes.push(change),
                Effect::PutVolatile(id, attributes, body) => {
                    self.volatile.put(id, attributes, body)
                }
                Effect::RemoveVolatile(id) => self.volatile.remove(id),
                Effect::Promote(row) => self.changes.push(self.volatile.promote(row)),
                Effect::Tie => {}
                Effect::ReplyAtOnce(who, _, reply) => {
                    told.push(format!("{} {}", letter(who), tell(&reply)));
                    self.at_once.extend(told.last().cloned());
                    self.replies.push(reply);
                }
                Effect::Reply(who, _, reply) => {
                    told.push(format!("{} {}", letter(who), tell(&reply)));
                    self.replies.push(reply);
                }
                Effect::Deliver(who, tag, handed) => {
                    let how = match handed.handing {
                        Handing::Reserved => "reserved",
                        Handing::Dispatched => "dispatched",
                        Handing::Found => "found",
                    };
                    let left = handed.time_to_live_ms.map(|ttl| format!(" ttl {ttl}"));
                    told.push(format!(
                        "{} {how} {}{}{}{}",
                        letter(who),
                        handed.id,
                        left.unwrap_or_default(),
                        if handed.is_volatile { " volatile" } else { "" },
                        shown(&tag)
                    ));
                }
                Effect::WakeUp(who, tag) => {
                    told.push(format!("{} woken{}", letter(who), shown(&tag)))
                }
                Effect::Gate(who, true) => told.push(format!("{} gate closed", letter(who))),
                Effect::Gate(who, false) => told.push(format!("{} gate open", letter(who))),
                Effect::Close(who, _) => told.push(format!("{} to be closed", letter(who))),
                Effect::Finished(who) => told.push(format!("{} finished", letter(who))),
                Effect::ReserveIds(below) => told.push(format!("ids below {below}")),
            }
        }
        assert_eq!(self.engine.volatile().1, self.volatile.len(), "volatile messages");
        if self.checking {
            self.engine.check_invariants();
        }
        told.join(", ")
    }

    /// The state of a message, or `gone`.
    pub fn state(&mut self, id: u64) -> String {
        match self.engine.ledger.find(MessageId(id)) {
            None => "gone".into(),
            Some(slot) => {
                format!("{:?}", MessageState::from(self.engine.ledger.message(slot).state))
            }
        }
    }

    /// Who has been handed what by these lines, as `a1 b2 a3`.
    pub fn handed(told: &str) -> String {
        let parts = told.split(", ").filter_map(|part| {
            let mut words = part.split(' ');
            let (who, how, id) = (words.next()?, words.next()?, words.next()?);
            matches!(how, "dispatched" | "reserved").then(|| format!("{who}{id}"))
        });
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// The content of volatile messages, as the dispatcher has it.
#[derive(Default)]
pub struct Contents(BTreeMap<MessageId, (Attributes, Body)>);

impl Contents {
    pub fn put(&mut self, id: MessageId, attributes: Attributes, body: Body) {
        assert!(self.0.insert(id, (attributes, body)).is_none(), "{id} is put twice");
    }

    pub fn remove(&mut self, id: MessageId) {
        assert!(self.0.remove(&id).is_some(), "{id} is removed when gone");
    }

    /// What is kept of a message that becomes durable.
    pub fn promote(&mut self, row: MessageRow) -> Change {
        let content = self.0.remove(&row.id);
        let (attributes, body) = content.unwrap_or_else(|| panic!("{} is not volatile", row.id));
        Change::Put(MessageRow { attributes, body, ..row })
    }

    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

pub fn connection(letter: char) -> ConnectionId {
    ConnectionId(u64::from(letter))
}

pub fn letter(connection: ConnectionId) -> char {
    u32::try_from(connection.0).ok().and_then(char::from_u32).unwrap()
}

pub fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

pub fn queue(text: &str) -> QueueName {
    QueueName::new(text.as_bytes()).unwrap()
}

/// A tag as it is shown behind what it came with.
fn shown(tag: &Tag) -> String {
    match tag {
        Tag::Code(code) => format!(" for {code}"),
        _ => String::new(),
    }
}

fn tell(reply: &Reply) -> String {
    match reply {
        Reply::Together(ids) => {
            let ids = ids.iter().map(|id| id.map_or("-".into(), |id| id.to_string()));
            format!("together {}", ids.collect::<Vec<_>>().join(" "))
        }
        Reply::Joined(None) => "joined nothing".into(),
        Reply::Joined(Some(id)) => format!("joined {id}"),
        Reply::Keys(found) => {
            let lines = found.iter().map(|found| {
                let id = found.message.map_or("-".into(), |id| id.to_string());
                format!("{}:{id}", found.queue)
            });
            format!("keys {}", lines.collect::<Vec<_>>().join(" "))
        }
        Reply::Put(id) => format!("put {id}"),
        Reply::Referred(name) => format!("using {name}"),
        Reply::Subscribed(count) => format!("watching {count}"),
        Reply::Batch(count) => format!("batch {count}"),
        Reply::Kicked(count) => format!("kicked {count}"),
        Reply::Flushed(count) => format!("flushed {count}"),
        Reply::Refused(why) => format!("refused {why:?}"),
        Reply::Queues(names) => {
            let names: Vec<&str> = names.iter().map(QueueName::as_str).collect();
            format!("queues {}", names.join(" "))
        }
        Reply::Listing(listing) => {
            let lines = listing.messages.iter().map(|m| format!("{}:{:?}", m.id, m.state));
            format!("listing {} more {}", lines.collect::<Vec<_>>().join(" "), listing.more)
        }
        Reply::QueuePage(page) => {
            let names: Vec<&str> = page.queues.iter().map(|q| q.name.as_str()).collect();
            format!("page {}{}", names.join(" "), page.next.as_ref().map_or("", |_| " ..."))
        }
        Reply::Survey(survey) => {
            let lines = survey.queues.iter().map(|q| format!("{}:{}", q.name, q.messages.total()));
            format!("survey {} more {}", lines.collect::<Vec<_>>().join(" "), survey.more)
        }
        Reply::Statistics(_) => "statistics".into(),
        Reply::MessageStatistics(_) => "message statistics".into(),
        Reply::QueueStatistics(_) => "queue statistics".into(),
        plain => format!("{plain:?}"),
    }
}

/// The command that a short text stands for: its words, then options as `name value`.
pub fn command(text: &str) -> Command {
    let said = Said(text.split(' ').collect());
    let id = || MessageId(said.number(1));
    match said.0[0] {
        "put" => match said.keyed() {
            None if !said.has("volatile") => Command::Put(said.put()),
            keyed => Command::PutWith(Box::new(PutWith {
                put: said.put(),
                extras: Extras { keyed, is_volatile: said.has("volatile") },
            })),
        },
        "promote" => Command::Promote(id()),
        "find" => Command::FindKey { queue: said.name(2), key: key(said.0[1]) },
        "use" => Command::Refer(queue(said.0[1])),
        "watch" => watch(queue(said.0[1])),
        "ignore" => ignore(queue(said.0[1])),
        "consume" => {
            let window = u32::try_from(said.number(2)).unwrap();
            consume(queue(said.0[1]), window)
        }
        "reserve" => Command::Reserve {
            from: Sources::Subscription(SET),
            refuse_if_holding: false,
            timeout_ms: said.option("for"),
            amount: match said.option("each") {
                Some(count) => Amount::Each(u32::try_from(count).unwrap()),
                None => Amount::Total(u32::try_from(said.option("count").unwrap_or(1)).unwrap()),
            },
        },
        "take" => Command::ReserveMessage(id()),
        "ack" => Command::Acknowledge(said.message()),
        "remove" => Command::Remove(id()),
        "release" => {
            let delay_ms = said.option("delay").unwrap_or(0);
            Command::Release { message: said.message(), priority: said.priority(), delay_ms }
        }
        "requeue" => {
            Command::Requeue { message: said.message(), time_to_live_ms: said.option("ttl") }
        }
        "bury" => Command::Bury { message: said.message(), priority: said.priority() },
        "fail" => Command::Fail { message: said.message(), reason: said.reason() },
        "mark" => Command::Mark(said.message()),
        "unmark" => Command::Unmark(id()),
        "touch" => Command::Touch(said.message()),
        "kick" => Command::Kick {
            queue: said.name(2).map_or(Target::Referred, Target::Named),
            count: said.number(1),
        },
        "kick-one" => Command::KickMessage(id()),
        "pause" => Command::Pause { queue: queue(said.0[1]), for_ms: said.number(2) },
        "hold" => said.setting(QueueSetting::Paused(true)),
        "resume" => said.setting(QueueSetting::Paused(false)),
        "limit" => said.setting(QueueSetting::Limits(said.limits())),
        "flush" => Command::Flush(queue(said.0[1])),
        "flushall" => Command::FlushAll,
        "remove-queue" => Command::RemoveQueue { queue: queue(said.0[1]), only_if_empty: false },
        "remove-empty" => Command::RemoveQueue { queue: queue(said.0[1]), only_if_empty: true },
        "set-aside" => Command::SetAside(id()),
        "echo" => Command::Echo,
        "quit" => Command::Quit,
        _ => look(&said),
    }
}

/// Several short texts as a whole.
pub fn together(texts: &[&str]) -> Command {
    let steps = texts.iter().map(|text| match command(text) {
        Command::Put(put) => TogetherStep::Put(PutWith { put, extras: Extras::default() }),
        Command::PutWith(with) => TogetherStep::Put(*with),
        Command::Acknowledge(message) => TogetherStep::Acknowledge(message),
        Command::Release { message, priority, delay_ms } => {
            TogetherStep::Release { message, priority, delay_ms }
        }
        Command::Bury { message, priority } => TogetherStep::Bury { message, priority },
        Command::Fail { message, reason } => TogetherStep::Fail { message, reason },
        other => panic!("{other:?} is no step"),
    });
    Command::Together(steps.collect())
}

pub fn watch(queue: QueueName) -> Command {
    Command::Subscribe { key: SET, queue, options: Options::default() }
}

pub fn ignore(queue: QueueName) -> Command {
    Command::Unsubscribe { key: SET, queue, keep_last: true }
}

/// A window of this size on a queue, or its end.
pub fn consume(queue: QueueName, window: u32) -> Command {
    let key = SubscriptionKey::Queue;
    match window {
        0 => Command::Unsubscribe { key, queue, keep_last: false },
        _ => Command::Subscribe { key, queue, options: Options::window(window) },
    }
}

pub fn peek_next(state: MessageState) -> Command {
    Command::PeekNext { queue: Target::Referred, state }
}

fn look(said: &Said<'_>) -> Command {
    match said.0[0] {
        "peek" => match said.0[1] {
            "ready" => peek_next(MessageState::Ready),
            "delayed" => peek_next(MessageState::Delayed),
            "buried" => peek_next(MessageState::Buried),
            _ => Command::Peek(MessageId(said.number(1))),
        },
        "stats" => match said.0.get(1) {
            None => Command::Statistics,
            Some(word) if word.parse::<u64>().is_ok() => {
                Command::MessageStatistics(MessageId(said.number(1)))
            }
            Some(name) => Command::QueueStatistics(queue(name)),
        },
        "queues" => Command::ListQueues,
        "used" => Command::ShowReferred,
        "watched" => Command::ListSubscribed(SET),
        "survey" => Command::Survey {
            pattern: said.0.get(2).map(|pattern| Box::from(*pattern)),
            lines_max: usize::try_from(said.number(1)).unwrap(),
        },
        "list" => Command::List {
            queue: queue(said.0[1]),
            lines_max: said.0.get(2).map_or(100, |lines| lines.parse().unwrap()),
        },
        unknown => panic!("no such command: {unknown}"),
    }
}

/// The words of a command.
struct Said<'a>(Vec<&'a str>);

impl Said<'_> {
    fn number(&self, at: usize) -> u64 {
        self.0[at].parse().unwrap()
    }

    fn name(&self, at: usize) -> Option<QueueName> {
        self.0.get(at).filter(|word| !OPTIONS.contains(word)).map(|name| queue(name))
    }

    /// By its id, also with its queue, or as the one held of a queue.
    fn message(&self) -> MessageRef {
        match self.0[1].parse() {
            Err(_) => MessageRef::HeldOf(queue(self.0[1])),
            Ok(id) => match self.name(2) {
                None => MessageRef::Id(MessageId(id)),
                Some(queue) => MessageRef::IdOf(MessageId(id), queue),
            },
        }
    }

    fn reason(&self) -> Option<Reason> {
        let at = self.0.iter().position(|word| *word == "because")?;
        Some(Reason::new(self.0[at + 1..].join(" ").as_bytes()))
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn option(&self, name: &str) -> Option<u64> {
        let at = self.0.iter().position(|word| *word == name)?;
        Some(self.number(at + 1))
    }

    fn priority(&self) -> Option<u32> {
        self.option("pri").map(|priority| u32::try_from(priority).unwrap())
    }

    fn setting(&self, setting: QueueSetting) -> Command {
        Command::Configure { queue: queue(self.0[1]), setting }
    }

    fn limits(&self) -> QueueLimits {
        let limit = |at| u32::try_from(self.number(at)).unwrap();
        QueueLimits { high: limit(2), normal: limit(3), low: limit(4) }
    }

    /// `taken K` or `done K`: with the key K until then; `outlived K`: for ten seconds.
    fn keyed(&self) -> Option<KeyedBy> {
        let terms = [
            ("taken", KeyTerm::UntilTaken),
            ("done", KeyTerm::UntilDone),
            ("outlived", KeyTerm::For(10_000)),
        ];
        terms.into_iter().find_map(|(word, term)| {
            let at = self.0.iter().position(|said| *said == word)?;
            Some(KeyedBy { key: key(self.0[at + 1]), term })
        })
    }

    fn put(&self) -> Put {
        let body_bytes = usize::try_from(self.option("bytes").unwrap_or(1)).unwrap();
        let target = self.name(1).map_or(Target::Referred, Target::Named);
        Put {
            priority: self.priority(),
            delay_ms: self.option("delay").unwrap_or(0),
            time_to_run_ms: self.option("ttr"),
            time_to_live_ms: self.option("ttl"),
            ..Put::new(target, vec![b'x'; body_bytes])
        }
    }
}

const OPTIONS: [&str; 12] = [
    "pri", "delay", "ttr", "ttl", "bytes", "for", "count", "because", "taken", "done", "outlived",
    "volatile",
];
