//! The model: what happens by itself.

use crate::words::cause::Cause;
use crate::words::ids::QueueName;
use crate::words::limits::PAUSE_MS;

use super::{At, Held, Model, NEVER, Until};

impl Model {
    /// The next thing that happens: when, of which kind, and to what.
    pub fn next_due(&self) -> Option<(u64, u8, u64)> {
        let slot = |q: &QueueName| u64::from(self.slots.get(q).copied().unwrap_or(u32::MAX));
        let mut due = Vec::new();
        for m in &self.messages {
            match m.at {
                At::Delayed(at) => due.push((at, 0, slot(&m.queue))),
                At::Reserved(Held { by, through: None, until, .. }) if until != NEVER => {
                    let margin = if self.sessions[&by].wait.is_some() { 1_000 } else { 0 };
                    due.push((until - margin.min(until), 2, u64::from(by)));
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
            due.extend(s.wait.map(|wait| (wait.until, 2, u64::from(*who))));
        }
        let windows = self.subscriptions.keys();
        due.extend(windows.map(|number| (self.window_end(*number), 3, self.place(*number))));
        for (place, taken) in (0..).zip(self.keys.values()) {
            if let Until::Moment(at) = taken.until {
                due.push((at, 5, place));
            }
        }
        due.into_iter().filter(|(at, ..)| *at != NEVER).min()
    }
    /// When the clock of a window runs out.
    fn window_end(&self, number: u64) -> u64 {
        let subscription = &self.subscriptions[&number];
        let out = self.out(number);
        if !subscription.has_one_clock() {
            let ends = out.iter().filter_map(|id| Some(self.find(*id)?.at.held()?.until));
            return ends.min().unwrap_or(NEVER);
        }
        let ack_timeout = self.sessions[&subscription.who].ack_timeout;
        let is_full = !out.is_empty() || !self.has_room(number);
        let runs = ack_timeout > 0 && subscription.is_window() && is_full;
        if runs { subscription.clock + ack_timeout } else { NEVER }
    }
    /// Its place in the engine's order; new ones come last.
    fn place(&self, number: u64) -> u64 {
        self.windows.get(&number).map_or((1 << 32) + number, |slot| u64::from(*slot))
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
                let mut all = self.subscriptions.keys().copied();
                let number = all.find(|number| self.place(*number) == key).unwrap();
                self.window_clock(number, at);
            }
            5 => {
                let place = usize::try_from(key).unwrap();
                let name = self.keys.keys().nth(place).unwrap().clone();
                self.keys.remove(&name);
            }
            _ => {
                debug_assert_eq!(self.message(key).expires, at);
                self.expired += 1;
                self.forget(key);
            }
        }
    }
    /// Of what somebody has taken on request, what ends by then, the oldest first.
    fn ending(&self, who: char, by: u64) -> Vec<u64> {
        self.held_as(|held| held.by == who && held.through.is_none() && held.until <= by)
    }
    fn time_out(&mut self, id: u64, cause: Cause) {
        self.timeouts += 1;
        self.message(id).counters.timeouts += 1;
        self.take_back(id, true);
        self.put_back(id, cause, true);
    }
    fn time_out_all(&mut self, over: Vec<u64>) {
        let queues = over.iter().map(|id| self.find(*id).unwrap().queue.clone()).collect();
        for id in over {
            self.time_out(id, Cause::TimedOut);
        }
        self.serve_in_order(queues);
    }
    fn session_clock(&mut self, who: char) {
        let now = self.now;
        self.time_out_all(self.ending(who, now));
        let soon = self.is_soon(who);
        if let Some(wait) = self.session(who).wait.take_if(|wait| soon || wait.until <= now) {
            self.update(wait.of);
            self.say(who, if soon { "DeadlineSoon" } else { "TimedOut" });
            self.resumable.push_back(who);
            self.end_if_once(wait.of);
        }
    }
    pub(super) fn is_soon(&self, who: char) -> bool {
        !self.ending(who, self.now + 1_000).is_empty()
    }
    pub(super) fn serve_in_order(&mut self, mut queues: Vec<QueueName>) {
        queues.sort_by_key(|queue| self.slots.get(queue).copied());
        for queue in queues {
            self.serve(&queue);
        }
    }
    fn window_clock(&mut self, number: u64, at: u64) {
        let now = self.now;
        if !self.subscriptions[&number].has_one_clock() {
            let is_over = |held: Held| held.through == Some(number) && held.until <= now;
            return self.time_out_all(self.held_as(is_over));
        }
        let Some(id) = self.out(number).first().copied() else {
            self.subscription(number).clock = now;
            if now - at < PAUSE_MS {
                let who = self.subscriptions[&number].who;
                self.say(who, "to be closed");
            }
            return;
        };
        let queue = self.message(id).queue.clone();
        self.time_out(id, Cause::AckTimeout);
        self.serve(&queue);
    }
}
