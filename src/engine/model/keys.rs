//! The model: deduplication keys.

use crate::words::command::PutWith;
use crate::words::ids::QueueName;
use crate::words::key::{Key, KeyTerm, KeyedBy};
use crate::words::refusal::Refusal;

use super::Model;

pub struct TakenKey {
    pub message: Option<u64>,
    pub until: Until,
    pub is_volatile: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Taken,
    Done,
    Moment(u64),
}

impl Model {
    pub fn put_with(&mut self, who: char, with: PutWith) {
        let PutWith { put, extras } = with;
        let queue = self.meant_by(who, &put.queue);
        let is_volatile = extras.is_volatile;
        let Some((keyed, queue)) = extras.keyed.zip(queue) else {
            return self.put(who, put, is_volatile);
        };
        let place = (keyed.key.clone(), queue);
        if let Some(message) = self.keys.get(&place).map(|taken| taken.message) {
            self.session(who).producer = true;
            let refusal = self.refuse_durability(who);
            if let Some(refusal) = refusal.filter(|_| !is_volatile && self.keys[&place].is_volatile)
            {
                return self.say(who, &format!("refused {refusal:?}"));
            }
            self.joined += 1;
            self.make_durable_with(&place, is_volatile);
            let what = message.map_or("nothing".into(), |id| id.to_string());
            return self.say(who, &format!("joined {what}"));
        }
        // It has the key before somebody who waits takes it.
        let id = self.next_id;
        self.take_key(keyed, &place.1, (id, is_volatile));
        self.put(who, put, is_volatile);
        if self.next_id == id {
            self.keys.remove(&place);
        }
    }
    /// A durable put makes durable what it joins.
    fn make_durable_with(&mut self, place: &(Key, QueueName), is_volatile: bool) {
        let taken = self.keys.get_mut(place).unwrap();
        taken.is_volatile &= is_volatile;
        if let Some(id) = taken.message.filter(|_| !is_volatile) {
            self.message(id).is_volatile = false;
        }
    }
    /// Why nothing becomes durable for a peer that can be told.
    fn refuse_durability(&self, who: char) -> Option<Refusal> {
        self.refusing.filter(|why| self.sessions[&who].serial && *why != Refusal::Draining)
    }
    pub fn promote(&mut self, who: char, id: u64) {
        let Some(is_volatile) = self.find(id).map(|message| message.is_volatile) else {
            return self.say(who, "NotFound");
        };
        if let Some(refusal) = self.refuse_durability(who).filter(|_| is_volatile) {
            return self.say(who, &format!("refused {refusal:?}"));
        }
        self.message(id).is_volatile = false;
        let its = self.keys.values_mut().filter(|taken| taken.message == Some(id));
        its.for_each(|taken| taken.is_volatile = false);
        self.say(who, "Promoted");
    }
    fn take_key(&mut self, keyed: KeyedBy, queue: &QueueName, (id, is_volatile): (u64, bool)) {
        let until = match keyed.term {
            KeyTerm::UntilTaken => Until::Taken,
            KeyTerm::UntilDone => Until::Done,
            KeyTerm::For(millis) => Until::Moment(self.now + millis),
        };
        self.keys
            .insert((keyed.key, queue.clone()), TakenKey { message: Some(id), until, is_volatile });
    }
    /// One put of several, none of which can be refused any more.
    pub fn put_or_join(&mut self, with: PutWith, queue: &QueueName) -> Option<u64> {
        let PutWith { put, extras } = with;
        let place = extras.keyed.as_ref().map(|keyed| (keyed.key.clone(), queue.clone()));
        let is_volatile = extras.is_volatile;
        if let Some(place) = place.filter(|place| self.keys.contains_key(place)) {
            self.joined += 1;
            self.make_durable_with(&place, is_volatile);
            return self.keys[&place].message;
        }
        let id = self.add(put, queue, is_volatile);
        if let Some(keyed) = extras.keyed {
            self.take_key(keyed, queue, (id, is_volatile));
        }
        Some(id)
    }
    /// The message that had it is about to go.
    pub fn leave_key(&mut self, id: u64) {
        let now = self.now;
        self.keys.retain(|_, taken| {
            if taken.message != Some(id) {
                return true;
            }
            taken.message = None;
            matches!(taken.until, Until::Moment(at) if at > now)
        });
    }
    pub fn find_key(&mut self, who: char, queue: Option<&QueueName>, key: &Key) {
        let here = self
            .keys
            .iter()
            .filter(|((name, of), _)| name == key && queue.is_none_or(|queue| queue == of));
        let mut found: Vec<String> = here
            .map(|((_, queue), taken)| {
                format!("{queue}:{}", taken.message.map_or("-".into(), |id| id.to_string()))
            })
            .collect();
        found.sort();
        if found.is_empty() {
            return self.say(who, "NotFound");
        }
        self.say(who, &format!("keys {}", found.join(" ")));
    }
}
