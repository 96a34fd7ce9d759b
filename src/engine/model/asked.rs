//! The model: what each command does.

use crate::words::change::Counters;
use crate::words::change::MessageState;
use crate::words::command::{Amount, Command, Options, Put, Target};
use crate::words::ids::QueueName;
use crate::words::refusal::Refusal;
use crate::words::settings::{QueueLimits, QueueSetting};
use crate::words::statistics::Failures;

use super::{At, Keyed, Message, Model, NEVER};

impl Model {
    /// The queue that is meant, whether it is there or not.
    pub fn meant_by(&self, who: char, target: &Target) -> Option<QueueName> {
        match target {
            Target::Referred => self.sessions[&who].used.clone(),
            Target::Named(name) => Some(name.clone()),
        }
    }
    pub fn put(&mut self, who: char, put: Put, is_volatile: bool) {
        self.session(who).producer = true;
        let needs_nothing = |refusal| is_volatile && refusal == Refusal::StoreUnavailable;
        let refusal = self.refusing.filter(|refusal| !needs_nothing(*refusal));
        if let Some(refusal) = refusal.filter(|_| self.sessions[&who].serial) {
            return self.say(who, &format!("refused {refusal:?}"));
        }
        let queue = match &put.queue {
            Target::Referred => self.session(who).used.clone(),
            Target::Named(name) => self.queue(name),
        };
        let Some(queue) = queue else { return self.say(who, "refused TooManyQueues") };
        let count = self.messages.iter().filter(|m| m.queue == queue).count() as u64;
        let limits = self.queues[&queue].limits;
        if self.session(who).serial && limits.refuse(count, put.priority.unwrap_or(1_024)) {
            return self.say(who, "refused QueueFull");
        }
        let id = self.add(put, &queue, is_volatile);
        self.say(who, &format!("put {id}"));
        self.serve(&queue);
    }
    pub fn add(&mut self, put: Put, queue: &QueueName, is_volatile: bool) -> u64 {
        let (id, now) = (self.next_id, self.now);
        self.next_id += 1;
        self.messages.push(Message {
            id,
            seq: id,
            pri: put.priority.unwrap_or(1_024),
            queue: queue.clone(),
            at: if put.delay_ms > 0 { At::Delayed(now + put.delay_ms) } else { At::Ready },
            expires: put.time_to_live_ms.map_or(NEVER, |ttl| now + ttl),
            ttr: put.time_to_run_ms.unwrap_or(60_000),
            delay: put.delay_ms,
            counters: Counters::default(),
            failures: Failures::default(),
            home: None,
            is_volatile,
        });
        self.queues.get_mut(queue).unwrap().puts += 1;
        id
    }
    /// A buried message lives on.
    pub(super) fn start_clock(&mut self, id: u64) {
        let (now, message) = (self.now, self.message(id));
        if matches!(message.at, At::Buried(_)) {
            message.expires = message.expires.saturating_add(now);
        }
    }
    /// Buried messages of a queue in their order, and delayed ones.
    fn aside(&self, queue: &QueueName) -> (Vec<u64>, Vec<u64>) {
        let (mut buried, mut delayed) = (Vec::new(), Vec::new());
        for m in self.messages.iter().filter(|m| m.queue == *queue) {
            match m.at {
                At::Buried(order) => buried.push((order, 0, m.id)),
                At::Delayed(at) => delayed.push((at, m.seq, m.id)),
                _ => {}
            }
        }
        let ids = |mut list: Vec<(u64, u64, u64)>| {
            list.sort_unstable();
            list.into_iter().map(|(.., id)| id).collect()
        };
        (ids(buried), ids(delayed))
    }
    fn flush(&mut self, who: char, in_it: impl Fn(&QueueName) -> bool) {
        let doomed: Vec<u64> =
            self.messages.iter().filter(|m| in_it(&m.queue)).map(|m| m.id).collect();
        let through = self.next_id - 1;
        for (_, queue) in self.queues.iter_mut().filter(|(name, _)| in_it(name)) {
            queue.flushed_through = through;
        }
        for id in &doomed {
            if matches!(self.message(*id).at, At::Reserved(_)) {
                self.take_back(*id, true);
            }
            self.forget(*id);
        }
        self.say(who, &format!("flushed {}", doomed.len()));
    }
    pub fn execute(&mut self, who: char, command: Command) {
        match command {
            Command::Put(put) => self.put(who, put, false),
            Command::PutWith(with) => self.put_with(who, *with),
            Command::Together(steps) => self.together(who, steps),
            Command::FindKey { queue, key } => self.find_key(who, queue.as_ref(), &key),
            Command::Subscribe { key, queue, options } => {
                self.subscribe(who, &key, &queue, options);
            }
            Command::Unsubscribe { key, queue, keep_last } => {
                self.unsubscribe(who, &key, &queue, keep_last);
            }
            Command::Reserve { from, refuse_if_holding, timeout_ms, amount } => {
                self.reserve(who, &from, refuse_if_holding, (timeout_ms, amount));
            }
            Command::ReserveMessage(id) => self.reserve_message(who, id.0),
            Command::Kick { queue, count } => self.kick_some(who, queue, count),
            Command::Configure { queue, setting } => self.configure(who, &queue, setting),
            Command::KickMessage(id) => self.kick_one(who, id.0),
            Command::Pause { queue, for_ms } => self.pause(who, &queue, for_ms),
            Command::Flush(queue) if !self.queues.contains_key(&queue) => {
                self.say(who, "NotFound");
            }
            Command::Flush(queue) => self.flush(who, |name| *name == queue),
            Command::FlushAll => self.flush(who, |_| true),
            Command::RemoveQueue { queue, only_if_empty } => {
                self.remove_queue(who, &queue, only_if_empty);
            }
            Command::SetAside(id) => self.bury_free(who, id.0),
            Command::Remove(id) => self.remove(who, id.0),
            Command::Mark(message) => self.mark(who, &message),
            Command::Unmark(id) => self.unmark(who, id.0),
            Command::Promote(id) => self.promote(who, id.0),
            Command::Touch(message) => self.touch(who, &message),
            Command::Acknowledge(_)
            | Command::Release { .. }
            | Command::Requeue { .. }
            | Command::Bury { .. }
            | Command::Fail { .. } => self.finish(who, command),
            Command::Refer(name) => self.refer(who, &name),
            look => self.look(who, look),
        }
    }

    fn refer(&mut self, who: char, name: &QueueName) {
        let Some(queue) = self.queue(name) else { return self.say(who, "refused TooManyQueues") };
        self.session(who).used = Some(queue.clone());
        self.say(who, &format!("using {queue}"));
    }

    /// A connection begins with a queue.
    pub fn begin_with(&mut self, who: char, name: &QueueName) {
        let Some(queue) = self.queue(name) else { return };
        self.queues.get_mut(&queue).unwrap().is_first = true;
        let number = self.open_subscription(who, Keyed::Number(0));
        self.join(number, &queue, Options::default());
        self.session(who).used = Some(queue);
    }

    fn reserve_message(&mut self, who: char, id: u64) {
        match self.find(id).map(|message| message.at) {
            None | Some(At::Reserved(_)) => self.say(who, "NotFound"),
            Some(_) if self.is_over(id) => self.say(who, "NotFound"),
            Some(_) => {
                self.session(who).worker = true;
                self.start_clock(id);
                self.hand(who, None, id, Amount::Total(1));
            }
        }
    }

    fn kick_some(&mut self, who: char, target: Target, bound: u64) {
        let named = matches!(target, Target::Named(_));
        let queue = match target {
            Target::Referred => self.session(who).used.clone(),
            Target::Named(name) => self.queues.contains_key(&name).then_some(name),
        };
        let Some(queue) = queue else {
            return self.say(who, if named { "NotFound" } else { "kicked 0" });
        };
        let dead = self.dead_letters(&queue);
        let (buried, delayed) = self.aside(&queue);
        let rest = if buried.is_empty() { delayed } else { buried };
        let mut ids = if dead.is_empty() { rest } else { dead };
        ids.truncate(usize::try_from(bound).unwrap());
        let mut count = 0;
        for id in ids {
            // One that was kicked before may have made somebody take this one.
            if !self.find(id).is_some_and(|m| !matches!(m.at, At::Reserved(_))) {
                continue;
            }
            let home = self.kick(id).unwrap_or(queue.clone());
            count += 1;
            self.serve(&home);
        }
        self.say(who, &format!("kicked {count}"));
    }

    fn configure(&mut self, who: char, name: &QueueName, setting: QueueSetting) {
        if !self.queues.contains_key(name) && setting.is_default() {
            return self.say(who, "NotFound");
        }
        let Some(queue) = self.queue(name) else { return self.say(who, "refused TooManyQueues") };
        let here = self.queues.get_mut(&queue).unwrap();
        match setting {
            QueueSetting::Paused(paused) => here.paused = paused,
            QueueSetting::Limits(limits) => here.limits = limits,
        }
        self.say(who, "Configured");
        self.serve(&queue);
    }

    fn remove_queue(&mut self, who: char, name: &QueueName, only_if_empty: bool) {
        let has_messages = self.messages.iter().any(|message| message.queue == *name);
        let Some(here) = self.queues.get_mut(name) else { return self.say(who, "NotFound") };
        if only_if_empty && has_messages {
            return self.say(who, "refused NotEmpty");
        }
        (here.paused, here.paused_until, here.pause) = (false, 0, 0);
        here.limits = QueueLimits::NONE;
        self.flush(who, |other| other == name);
    }

    fn bury_free(&mut self, who: char, id: u64) {
        match self.find(id).map(|message| message.at) {
            Some(At::Ready | At::Delayed(_)) => {
                self.set_aside(id, None);
                self.say(who, "Buried");
            }
            _ => self.say(who, "NotFound"),
        }
    }

    fn kick_one(&mut self, who: char, id: u64) {
        match self.find(id).map(|message| (message.at, message.queue.clone())) {
            Some((at, queue)) if at.can_be_kicked() || self.dead_letters(&queue).contains(&id) => {
                let queue = self.kick(id).unwrap_or(queue);
                self.say(who, "KickedOne");
                self.serve(&queue);
            }
            _ => self.say(who, "NotFound"),
        }
    }

    fn pause(&mut self, who: char, queue: &QueueName, for_ms: u64) {
        let now = self.now;
        let Some(here) = self.queues.get_mut(queue) else { return self.say(who, "NotFound") };
        here.paused_until = if for_ms == 0 { 0 } else { now + for_ms };
        (here.pause, here.pauses) = (for_ms, here.pauses + 1);
        self.say(who, "Paused");
        self.serve(queue);
    }

    fn look(&mut self, who: char, command: Command) {
        let used = self.session(who).used.clone();
        let found = match command {
            Command::Peek(id) => self.find(id.0).map(|message| message.id),
            Command::PeekNext { state, .. } => used.clone().and_then(|queue| match state {
                MessageState::Buried => self.aside(&queue).0.first().copied(),
                MessageState::Delayed => self.aside(&queue).1.first().copied(),
                _ => {
                    let here = self.messages.iter().filter(|m| m.queue == queue);
                    here.filter(|m| m.at == At::Ready).min_by_key(|m| (m.pri, m.seq)).map(|m| m.id)
                }
            }),
            Command::ShowReferred => {
                let what = used.map_or("NotFound".into(), |queue| format!("using {queue}"));
                return self.say(who, &what);
            }
            Command::ListQueues => return self.list(who, self.queues.keys().cloned().collect()),
            Command::ListSubscribed(key) => {
                let number = Keyed::new(&key, None).and_then(|key| self.subscription_of(who, &key));
                let names = number.map(|number| self.subscriptions[&number].names());
                return self.list(who, names.unwrap_or_default());
            }
            Command::Echo => return self.say(who, "Echo"),
            Command::Quit => return,
            unknown => panic!("the model does not know {unknown:?}"),
        };
        match found {
            Some(id) => self.show(who, id, "found"),
            None => self.say(who, "NotFound"),
        }
    }

    fn list(&mut self, who: char, names: Vec<QueueName>) {
        let names: Vec<&str> = names.iter().map(QueueName::as_str).collect();
        self.say(who, &format!("queues {}", names.join(" ")));
    }
}
