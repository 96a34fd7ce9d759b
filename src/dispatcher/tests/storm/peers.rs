//! What the peers say, and what they must hear.

use std::collections::VecDeque;

use super::super::*;
use super::Storm;
use super::rows::{FILLER, LARGE_BYTES, Message, mark, queue_name};
use crate::words::change::MessageState::{self, Buried, Ready};
use crate::words::limits::MESSAGE_OVERHEAD_BYTES;

const QUEUES: usize = 4;
/// Large messages at the same time at most, since each turn looks at all their bytes.
const LARGE_MAX: usize = 18;
/// In seconds; so long that no reservation ends by itself.
const TIME_TO_RUN: u64 = 1_000_000;
/// The peer whose answers wait for the file.
const WRITE: usize = 1;

pub struct Peer {
    letter: char,
    awaits: VecDeque<Answer>,
    /// The queue that it puts into.
    pub uses: usize,
}

struct Answer {
    text: String,
    promise: Option<Promise>,
}

/// What an answer says of the file.
#[derive(Clone, Copy, Debug)]
enum Promise {
    Stored(MessageId),
    Removed(MessageId),
    Moved,
}

impl Peer {
    pub fn new(letter: char) -> Peer {
        Peer { letter, awaits: VecDeque::new(), uses: 0 }
    }

    pub fn has_heard_all(&self) -> bool {
        self.awaits.is_empty()
    }
}

impl Storm<'_> {
    /// A command about any message, or a new one.
    pub fn command(&mut self) {
        let count = self.living.len();
        if count == 0 || self.random.below(2) == 0 {
            return self.put();
        }
        let number = self.random.below(count);
        let id = *self.living.keys().nth(number).unwrap();
        let message = &self.living[&id];
        let (state, holder, is_large) = (message.state, message.holder, message.is_large());
        let who = holder.unwrap_or(self.random.below(2));
        if message.is_volatile && self.random.below(3) == 0 {
            return self.promote(who, id);
        }
        match (self.random.below(3), holder.is_some()) {
            (0, _) => self.remove(who, id),
            (1, true) => self.give_back(who, id, "release", Ready),
            (_, true) => self.give_back(who, id, "bury", Buried),
            (1, false) if state == Buried => self.kick(who, id),
            // A large one would not fit into the socket: when it is heard would be left to chance.
            (_, false) if !is_large => self.reserve(who, id),
            _ => {}
        }
    }

    fn say(
        &mut self,
        who: usize,
        text: impl AsRef<[u8]>,
        answer: impl Into<String>,
        promise: Option<Promise>,
    ) {
        self.stage.send(self.peers[who].letter, text);
        self.await_answer(who, answer, promise);
    }

    fn await_answer(&mut self, who: usize, answer: impl Into<String>, promise: Option<Promise>) {
        let promise = promise.filter(|_| who == WRITE);
        self.peers[who].awaits.push_back(Answer { text: answer.into(), promise });
    }

    /// What an answer about a message promises.
    fn promise_of(&self, id: MessageId, promise: Promise) -> Option<Promise> {
        (!self.living[&id].is_volatile).then_some(promise)
    }

    fn any_priority(&mut self) -> u32 {
        u32::try_from(self.random.below(9)).unwrap()
    }

    fn put(&mut self) {
        let (who, queue) = (self.random.below(2), self.random.below(QUEUES));
        let priority = self.any_priority();
        let is_large = self.random.below(10) < self.large_of_ten
            && self.living.values().filter(|message| message.is_large()).count() < LARGE_MAX;
        let filler = if is_large { LARGE_BYTES } else { self.random.below(30) };
        self.peers[who].uses = queue;
        let name = queue_name(queue);
        self.say(who, format!("use {name}\r\n"), format!("USING {name}\r\n"), None);

        let id = MessageId(self.next_id);
        let body_bytes = mark(id).len() + filler;
        let is_volatile = self.random.below(3) == 0;
        if is_volatile {
            let body = [mark(id).as_bytes(), &FILLER[..filler]].concat();
            let Command::PutWith(mut with) = put_volatile(body, None) else { unreachable!() };
            with.put.priority = Some(priority);
            with.put.time_to_run_ms = Some(TIME_TO_RUN * 1_000);
            self.stage.send_command(self.peers[who].letter, Command::PutWith(with));
            self.await_answer(who, format!("INSERTED {id}\r\n"), None);
        } else {
            let head = format!("put {priority} 0 {TIME_TO_RUN} {body_bytes}\r\n{}", mark(id));
            let text = [head.as_bytes(), &FILLER[..filler], b"\r\n"].concat();
            if self.stage.dispatcher.commits.failing {
                self.disk.tally.refused += 1;
                return self.say(who, text, "OUT_OF_MEMORY\r\n", None);
            }
            self.say(who, text, format!("INSERTED {id}\r\n"), Some(Promise::Stored(id)));
        }
        let message = Message { queue, filler, priority, state: Ready, holder: None, is_volatile };
        self.living.insert(id, message);
        self.next_id += 1;
        self.put_bytes += body_bytes as u64 + MESSAGE_OVERHEAD_BYTES;
    }

    /// A volatile message becomes durable.
    fn promote(&mut self, who: usize, id: MessageId) {
        self.stage.send_command(self.peers[who].letter, Command::Promote(id));
        if self.stage.dispatcher.commits.failing {
            return self.await_answer(who, "OUT_OF_MEMORY\r\n", None);
        }
        self.await_answer(who, "PROMOTED\r\n", Some(Promise::Stored(id)));
        self.living.get_mut(&id).unwrap().is_volatile = false;
        self.disk.tally.promoted += 1;
    }

    fn remove(&mut self, who: usize, id: MessageId) {
        let promise = self.promise_of(id, Promise::Removed(id));
        self.say(who, format!("delete {id}\r\n"), "DELETED\r\n", promise);
        self.living.remove(&id);
    }

    /// All that a peer may remove, but no more than one turn takes.
    pub fn remove_all(&mut self) {
        let who = self.random.below(2);
        let may = |message: &Message| message.holder.is_none_or(|holder| holder == who);
        let ids: Vec<_> = self.living.iter().filter(|(_, m)| may(m)).map(|(id, _)| *id).collect();
        ids.into_iter().take(EVENTS_PER_TURN_MAX).for_each(|id| self.remove(who, id));
    }

    fn reserve(&mut self, who: usize, id: MessageId) {
        let message = self.living.get_mut(&id).unwrap();
        (message.state, message.holder) = (Ready, Some(who));
        let body = mark(id) + &"x".repeat(message.filler);
        let reserved = format!("RESERVED {id} {}\r\n{body}\r\n", body.len());
        self.say(who, format!("reserve-job {id}\r\n"), reserved, None);
    }

    fn give_back(&mut self, who: usize, id: MessageId, verb: &str, state: MessageState) {
        let priority = self.any_priority();
        let delay = if state == Ready { " 0" } else { "" };
        let answer = if state == Ready { "RELEASED\r\n" } else { "BURIED\r\n" };
        let text = format!("{verb} {id} {priority}{delay}\r\n");
        self.say(who, text, answer, self.promise_of(id, Promise::Moved));
        let message = self.living.get_mut(&id).unwrap();
        (message.priority, message.state, message.holder) = (priority, state, None);
    }

    fn kick(&mut self, who: usize, id: MessageId) {
        let promise = self.promise_of(id, Promise::Moved);
        self.say(who, format!("kick-job {id}\r\n"), "KICKED\r\n", promise);
        self.living.get_mut(&id).unwrap().state = Ready;
    }

    /// What a peer hears must be the next answers that are due to it.
    pub fn hear(&mut self, who: usize) {
        let heard = self.stage.hear(self.peers[who].letter);
        let mut rest = &heard[..];
        while !rest.is_empty() {
            let Answer { text, promise } = self.peers[who].awaits.pop_front().expect("one is due");
            rest = if let Some(more) = rest.strip_prefix(&text) {
                self.check_promise(promise);
                more
            } else if let Some(more) = rest.strip_prefix("INTERNAL_ERROR\r\n") {
                assert!(promise.is_some(), "the outcome of {text:?} is known");
                self.disk.tally.given_up += 1;
                more
            } else {
                panic!("{rest:?} instead of {text:?}");
            };
        }
    }

    fn check_promise(&mut self, promise: Option<Promise>) {
        if !self.on_disk {
            return;
        }
        let file = &self.disk.file.messages;
        let is_kept = match promise {
            None => return,
            // It may have been removed since, by somebody who has no answer yet.
            Some(Promise::Stored(id)) => file.contains_key(&id) || !self.living.contains_key(&id),
            Some(Promise::Removed(id)) => !file.contains_key(&id),
            Some(Promise::Moved) => true,
        };
        assert!(is_kept, "{promise:?} is not so");
        self.disk.tally.promised += 1;
    }
}
