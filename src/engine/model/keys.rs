//! The model: deduplication keys.

use crate::words::command::PutWith;
use crate::words::ids::QueueName;
use crate::words::key::{Key, KeyTerm, KeyedBy};

use super::Model;

pub struct TakenKey {
    pub message: Option<u64>,
    pub until: Until,
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
        let Some((keyed, queue)) = extras.keyed.zip(queue) else { return self.put(who, put) };
        let place = (keyed.key.clone(), queue);
        if let Some(message) = self.keys.get(&place).map(|taken| taken.message) {
            self.session(who).producer = true;
            self.joined += 1;
            let what = message.map_or("nothing".into(), |id| id.to_string());
            return self.say(who, &format!("joined {what}"));
        }
        // It has the key before somebody who waits takes it.
        let id = self.next_id;
        self.take_key(keyed, &place.1, id);
        self.put(who, put);
        if self.next_id == id {
            self.keys.remove(&place);
        }
    }
    fn take_key(&mut self, keyed: KeyedBy, queue: &QueueName, id: u64) {
        let until = match keyed.term {
            KeyTerm::UntilTaken => Until::Taken,
            KeyTerm::UntilDone => Until::Done,
            KeyTerm::For(millis) => Until::Moment(self.now + millis),
        };
        self.keys.insert((keyed.key, queue.clone()), TakenKey { message: Some(id), until });
    }
    /// One put of several, none of which can be refused any more.
    pub fn put_or_join(&mut self, with: PutWith, queue: &QueueName) -> Option<u64> {
        let PutWith { put, extras } = with;
        let place = extras.keyed.as_ref().map(|keyed| (keyed.key.clone(), queue.clone()));
        if let Some(taken) = place.and_then(|place| self.keys.get(&place)) {
            self.joined += 1;
            return taken.message;
        }
        let id = self.add(put, queue);
        if let Some(keyed) = extras.keyed {
            self.take_key(keyed, queue, id);
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
