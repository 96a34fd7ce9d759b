//! The model: what happens by itself.

use crate::words::cause::Cause;
use crate::words::ids::QueueName;
use crate::words::limits::PAUSE_MS;

use super::{At, Model, NEVER};

impl Model {
    /// The next thing that happens: when, of which kind, and to what.
    pub fn next_due(&self) -> Option<(u64, u8, u64)> {
        let slot = |q: &QueueName| u64::from(self.slots.get(q).copied().unwrap_or(u32::MAX));
        let mut due = Vec::new();
        for m in &self.messages {
            match m.at {
                At::Delayed(at) => due.push((at, 0, slot(&m.queue))),
                At::Reserved(who, Some(until), _) => {
                    let margin = if self.sessions[&who].wait.is_some() { 1_000 } else { 0 };
                    due.push((until - margin.min(until), 2, u64::from(who)));
                }
                _ => {}
            }
            if matches!(m.at, At::Ready | At::Delayed(_)) {
                due.push((m.expires, 4, m.id));
            }
        }
        let paused = self.queues.iter().filter(|(_, q)| q.paused_until > 0);
        due.extend(paused.map(|(name, q)| (q.paused_until, 1, slot(name))));
        for (who, s) in &self.sessions {
            due.extend(s.wait.map(|wait| (wait.1, 2, u64::from(*who))));
            for (name, window) in s.windows.iter().filter(|_| s.ack_timeout > 0) {
                let out = self.out(*who, name).len();
                if out > 0 || window.max > 0 && out + window.lost.len() >= window.max {
                    let at = window.clock + s.ack_timeout;
                    let window = (*who, name.clone());
                    let place = self.windows.get(&window).copied().unwrap_or(u32::MAX);
                    due.push((at, 3, u64::from(place)));
                }
            }
        }
        due.into_iter().filter(|(at, ..)| *at != NEVER).min()
    }
    /// Does all that is due, then goes on with backlogs, until nothing is left.
    pub fn settle(&mut self) {
        while self.next_due().is_some_and(|(at, ..)| at <= self.now) || !self.resumable.is_empty() {
            while let Some((at, kind, key)) = self.next_due().filter(|(at, ..)| *at <= self.now) {
                self.happen(kind, key, at);
                self.tidy();
            }
            self.resume();
        }
    }
    fn happen(&mut self, kind: u8, key: u64, at: u64) {
        let slot = key & u64::from(u32::MAX);
        let named = self.slots.iter().find(|(_, s)| u64::from(**s) == slot).map(|(q, _)| q.clone());
        let who = |key: u64| u32::try_from(key).ok().and_then(char::from_u32).unwrap();
        match kind {
            0 => {
                let (now, queue) = (self.now, named.unwrap());
                let due = self.messages.iter().filter(|m| m.queue == queue);
                let due = due.filter(|m| matches!(m.at, At::Delayed(at) if at <= now));
                for id in due.map(|m| m.id).collect::<Vec<_>>() {
                    self.put_back(id, Cause::Due, false);
                }
                self.tidy();
                self.serve(&queue);
            }
            1 => {
                let queue = named.unwrap();
                let here = self.queues.get_mut(&queue).unwrap();
                (here.paused_until, here.pause) = (0, 0);
                self.serve(&queue);
            }
            2 => self.session_clock(who(key)),
            3 => {
                let here = self.windows.iter().find(|(_, place)| u64::from(**place) == key);
                let (who, queue) = here.unwrap().0.clone();
                self.window_clock(who, &queue, at);
            }
            _ => {
                debug_assert_eq!(self.message(key).expires, at);
                self.expired += 1;
                self.forget(key);
            }
        }
    }
    /// When each reservation ends, the oldest first.
    fn ends(&self, who: char) -> Vec<(u64, u64)> {
        let held = self.messages.iter().filter_map(|m| match m.at {
            At::Reserved(by, Some(until), order) if by == who => Some((order, until, m.id)),
            _ => None,
        });
        let mut held: Vec<(u64, u64, u64)> = held.collect();
        held.sort_unstable();
        held.into_iter().map(|(_, until, id)| (until, id)).collect()
    }
    fn session_clock(&mut self, who: char) {
        let now = self.now;
        let over: Vec<u64> =
            self.ends(who).iter().filter(|(until, _)| *until <= now).map(|(_, id)| *id).collect();
        let mut queues = Vec::new();
        for id in over {
            self.timeouts += 1;
            self.message(id).counters.timeouts += 1;
            queues.push(self.message(id).queue.clone());
            self.put_back(id, Cause::TimedOut, true);
        }
        self.serve_in_order(queues);
        let soon = self.is_soon(who);
        if self.session(who).wait.take_if(|wait| soon || wait.1 <= now).is_some() {
            self.say(who, if soon { "DeadlineSoon" } else { "TimedOut" });
            self.resumable.push_back(who);
        }
    }
    pub(super) fn is_soon(&self, who: char) -> bool {
        self.ends(who).iter().any(|(until, _)| *until <= self.now + 1_000)
    }
    pub(super) fn serve_in_order(&mut self, mut queues: Vec<QueueName>) {
        queues.sort_by_key(|queue| self.slots.get(queue).copied());
        for queue in queues {
            self.serve(&queue);
        }
    }
    fn window_clock(&mut self, who: char, queue: &QueueName, at: u64) {
        let Some(id) = self.out(who, queue).first().copied() else {
            let now = self.now;
            self.session(who).windows.get_mut(queue).unwrap().clock = now;
            if now - at < PAUSE_MS {
                self.say(who, "to be closed");
            }
            return;
        };
        self.timeouts += 1;
        self.message(id).counters.timeouts += 1;
        self.take_back(id, true);
        self.put_back(id, Cause::AckTimeout, true);
        self.serve(queue);
    }
}
