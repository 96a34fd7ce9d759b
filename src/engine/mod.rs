//! The rules of queueing, as a pure state machine: inputs go in, effects come out.
//!
//! Nothing in here waits, logs, reads a clock, draws a random number, runs SQL or touches a
//! socket; the dispatcher, whose thread owns the engine, carries the effects out in their order.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | inputs, effects, one turn |
//! | `commands` | what each command does, by itself or through the rules below |
//! | `admit` | puts |
//! | `subscribe`, `reserve` | what connections want: standing demands, and one message now |
//! | `serve`, `allowance` | who gets the next message, and how much goes to a peer in a turn |
//! | `settle`, `give_back` | what becomes of a message in somebody's hands |
//! | `together` | several of these steps as a whole |
//! | `volatile` | what of them ends with the process, and how that becomes durable |
//! | `look` | statistics, listings, peeks |
//! | `pages` | pages of queues |
//! | `due` | what happens by itself at some moment |
//! | `slices` | large work, done a slice at a time |
//! | `ending` | the end of a connection |
//! | `load` | the start from stored messages |
//! | `ledger` | the only code that moves a message between states and keeps the counts |
//! | `state` | the data |
//! | `tests`, `invariants` | each rule as a dialogue, and what must always hold |
//! | `random`, `draw`, `model`, `storm`, `rows` | random runs beside a plain model, and in bad weather |
//!
//! Invariant: after each input no queue that is not paused has both a ready message and somebody
//! with room for it.

mod admit;
mod allowance;
mod commands;
mod due;
mod ending;
mod give_back;
mod ledger;
pub mod load;
mod look;
mod pages;
mod reserve;
mod serve;
mod settle;
mod slices;
mod state;
mod subscribe;
mod together;
mod volatile;

#[cfg(test)]
mod draw;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::words::body::Body;
use crate::words::cause::ReturnCounts;
use crate::words::change::{Attributes, Change, MessageRow};
use crate::words::clock::{Now, Time};
use crate::words::command::{Handing, Manner, Options, Reply, Request, Tag};
use crate::words::ids::{ConnectionId, MessageId, QueueName};
use crate::words::limits::{
    BACKLOG_REQUESTS_MAX, Limits, WORK_HELD_BACK_MAX, WORK_PER_TURN_MAX, queue_bytes_max,
};
use crate::words::policy::Policies;
use crate::words::refusal::Refusal;
use crate::words::statistics::CommandCounts;

use give_back::PolicyTable;
use ledger::Ledger;
use slices::Work;
use state::queue::QueueSlot;
use state::session::{Hold, Keyed, SessionSlot};

/// What happens to the engine.
#[derive(Debug)]
pub enum Input {
    /// A connection begins.
    Opened {
        /// Its number.
        connection: ConnectionId,
        /// How its protocol behaves.
        manner: Manner,
        /// How long a window's oldest message may be out, in milliseconds; 0 = for ever.
        ack_timeout_ms: u64,
        /// The queue that it refers to and is subscribed to from its beginning, neither counted nor
        /// answered, and the number of that subscription. From then on the queue stays even when
        /// nobody needs it.
        first_queue: Option<(QueueName, u64)>,
    },
    /// A connection asks for something.
    Request(ConnectionId, Request),
    /// The peer has closed its sending side: it waits for nothing any more.
    HungUp(ConnectionId),
    /// No request follows; the connection ends when those before are done. What waits for the
    /// peer to take what lies unsent for it goes on waiting: when the peer is gone for good, this
    /// is said again (or [`Input::Stalled`] with `false`), and then nothing waits any more.
    Closed(ConnectionId),
    /// The peer does not keep up with what is sent to it, or does again: until then nothing goes
    /// out through its windows.
    Stalled(ConnectionId, bool),
    /// Of what was sent to the peer and is done when that has left, so many more have.
    Sent(ConnectionId, usize),
    /// The database has reserved the ids below this one.
    IdsReserved(u64),
    /// Why puts are refused from now on, if they are. A put without an answer (a streaming
    /// protocol's, without a tag) is not refused: the dispatcher holds such senders back.
    RefusePuts(Option<Refusal>),
    /// What becomes of messages that return from now on.
    Policies(Arc<Policies>),
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Keep this.
    Change(Change),
    /// What is kept until the next effect of another kind than this and [`Effect::Change`] is kept
    /// wholly or not at all.
    Tie,
    /// Tell a peer. What is promised has to be kept by then.
    Reply(ConnectionId, Tag, Reply),
    /// Tell a peer what is about volatile messages alone, so that nothing is promised.
    ReplyAtOnce(ConnectionId, Tag, Reply),
    /// Have the content of a volatile message in memory.
    PutVolatile(MessageId, Attributes, Body),
    /// Forget it.
    RemoveVolatile(MessageId),
    /// A volatile message becomes durable: keep this row, which lacks its content.
    Promote(MessageRow),
    /// Send a peer a message, whose body is in the store.
    Deliver(ConnectionId, Tag, Handed),
    /// Tell a peer that something is ready for a subscription with this tag.
    WakeUp(ConnectionId, Tag),
    /// Close a peer's gate (true) or open it.
    Gate(ConnectionId, bool),
    /// End a connection that holds messages and gives no sign of life.
    Close(ConnectionId, &'static str),
    /// The session is over: nothing follows for this connection.
    Finished(ConnectionId),
    /// Reserve the ids below this one in the database.
    ReserveIds(u64),
}

/// A message to be sent: everything but what lies in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Why.
    pub handing: Handing,
    /// Its id.
    pub id: MessageId,
    /// The size of its content.
    pub body_bytes: u32,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: u32,
    /// Milliseconds until it expires; `None` is never.
    pub time_to_live_ms: Option<u64>,
    /// How often it has been handed out.
    pub reserves: u32,
    /// Whether it ends with the process.
    pub is_volatile: bool,
    /// Whether it is done when it has been sent, which [`Input::Sent`] says.
    pub when_sent: bool,
}

/// One call's time and effects.
struct Turn<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn time(&self) -> Time {
        self.now.time
    }

    fn change(&mut self, change: Change) {
        self.effects.push(Effect::Change(change));
    }

    fn reply(&mut self, asker: Asker, reply: Reply) {
        let Asker { connection, tag, promise, .. } = asker;
        self.effects.push(match promise {
            Promise::Durable => Effect::Reply(connection, tag, reply),
            Promise::Nothing => Effect::ReplyAtOnce(connection, tag, reply),
        });
    }
}

/// Message ids: handed out in order, reserved in the database a block ahead.
#[derive(Debug)]
struct Ids {
    next: u64,
    /// Below this, ids are reserved.
    reserved: u64,
    /// What has been asked for.
    asked: u64,
    /// Whose puts wait for ids.
    waiting: Vec<SessionSlot>,
}

/// The figures that only grow; what there is now is counted by the ledger.
#[derive(Debug, Default)]
struct Totals {
    commands: CommandCounts,
    timeouts: u64,
    messages_put: u64,
    messages_joined: u64,
    messages_expired: u64,
    returns: ReturnCounts,
    messages_set_aside: u64,
    messages_dead_lettered: u64,
    messages_too_large: u64,
    late_acknowledgements: u64,
    foreign_acknowledgements: u64,
    connections_accepted: u64,
}

/// Who asks, and for the encoder of the answer, with which tag.
#[derive(Clone, Debug)]
struct Asker {
    session: SessionSlot,
    connection: ConnectionId,
    tag: Tag,
    promise: Promise,
}

impl Asker {
    fn new(session: SessionSlot, connection: ConnectionId, tag: Tag) -> Asker {
        Asker { session, connection, tag, promise: Promise::Durable }
    }

    /// The same, for an answer about a message that is volatile or not.
    fn about(self, is_volatile: bool) -> Asker {
        let promise = if is_volatile { Promise::Nothing } else { self.promise };
        Asker { promise, ..self }
    }
}

/// What an answer promises of what happens to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// It is so after a crash too, as far as an answer of its kind promises anything.
    Durable,
    /// It is about volatile messages alone.
    Nothing,
}

/// All queueing state.
#[derive(Debug)]
pub struct Engine {
    limits: Arc<Limits>,
    ledger: Ledger,
    works: VecDeque<Work>,
    /// Sessions that may go on with their backlog: they are when the input has been handled.
    resumable: VecDeque<SessionSlot>,
    totals: Totals,
    ids: Ids,
    next_queue_id: u64,
    refuse_puts: Option<Refusal>,
    policies: PolicyTable,
    /// Units of work done in a turn at most.
    work_per_turn: usize,
    /// Units of work left in this turn.
    budget: usize,
    /// Whether large work, and what is due, wait: see [`Engine::hold_back`].
    held_back: bool,
    /// Counts the turns, for the sessions' allowances.
    turns: u64,
    /// Sessions that used up their allowance: they go on in the next turn.
    exhausted: Vec<ConnectionId>,
}

impl Engine {
    /// An engine without messages, whose first message gets the id `next_id`; ids below
    /// `ids_reserved` are reserved in the database.
    pub fn new(limits: Arc<Limits>, next_id: u64, ids_reserved: u64, next_queue_id: u64) -> Engine {
        let ids = Ids {
            next: next_id.max(1),
            reserved: ids_reserved,
            asked: ids_reserved,
            waiting: vec![],
        };
        Engine {
            limits,
            ledger: Ledger::default(),
            works: VecDeque::new(),
            resumable: VecDeque::new(),
            totals: Totals::default(),
            ids,
            next_queue_id: next_queue_id.max(1),
            refuse_puts: None,
            policies: PolicyTable::default(),
            work_per_turn: WORK_PER_TURN_MAX,
            budget: WORK_PER_TURN_MAX,
            held_back: false,
            turns: 1,
            exhausted: Vec::new(),
        }
    }

    /// Handles one input and lists what is to be done about it.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        match input {
            Input::Opened { connection, manner, ack_timeout_ms, first_queue } => {
                self.totals.connections_accepted += 1;
                let who = self.ledger.open_session(connection, manner, ack_timeout_ms);
                if let Some((name, number)) = first_queue
                    && let Some(queue) = self.queue(&name)
                {
                    let key = Keyed::Number(number);
                    let subscription = self.ledger.open_subscription(now.time, who, key);
                    self.ledger.subscribe(subscription, queue, Options::default());
                    self.ledger.keep_first(queue);
                    self.ledger.refer(who, queue);
                }
            }
            Input::Request(connection, request) => {
                if let Some(who) = self.ledger.session_of(connection) {
                    self.request(turn, who, request);
                }
            }
            Input::HungUp(connection) => {
                if let Some(who) = self.ledger.session_of(connection) {
                    self.hang_up(turn, who);
                }
            }
            Input::Closed(connection) => {
                if let Some(who) = self.ledger.session_of(connection) {
                    self.close(turn, who);
                }
            }
            Input::Stalled(connection, stalled) => {
                if let Some(who) = self.ledger.session_of(connection) {
                    self.stall(turn, who, stalled);
                }
            }
            Input::Sent(connection, count) => {
                if let Some(who) = self.ledger.session_of(connection) {
                    self.sent(turn, who, count);
                }
            }
            Input::IdsReserved(up_to) => self.ids_reserved(turn, up_to),
            Input::RefusePuts(refusal) => self.refuse_puts(turn, refusal),
            Input::Policies(policies) => self.policies.replace(policies),
        }
        self.resume(turn);
    }

    /// Does what is due, and the next slice of large work. To be called once a turn.
    pub fn turn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        self.budget = if self.held_back { WORK_HELD_BACK_MAX } else { self.work_per_turn };
        self.turns += 1;
        for connection in std::mem::take(&mut self.exhausted) {
            if let Some(who) = self.ledger.session_of(connection) {
                self.renew(turn, who);
            }
        }
        if !self.held_back {
            self.run_clocks(turn);
            self.run_works(turn);
        }
        self.resume(turn);
    }

    /// Holds back what is due and large work under way, until it is told otherwise. What is asked
    /// for goes on.
    pub fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// Does a slice of what is due by now, and says whether some of it is left. For whoever is about
    /// to answer commands: none of them may show something as not due that has been due for long.
    pub fn catch_up(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        if self.held_back || !self.is_behind(now.time) {
            return false;
        }
        let turn = &mut Turn { now, effects };
        self.budget = self.work_per_turn;
        self.run_clocks(turn);
        self.resume(turn);
        self.is_behind(now.time)
    }

    /// Whether something is due. Lazily armed clocks may say so too early.
    fn is_behind(&self, now: Time) -> bool {
        self.ledger.first_deadline().is_some_and(|(at, _)| at <= now)
    }

    /// When [`Engine::turn`] is to be called again, unless it is held back; a moment in the past
    /// means at once.
    pub fn next_deadline(&mut self) -> Time {
        match (self.works.is_empty(), self.exhausted.is_empty()) {
            (_, false) => Time(0),
            _ if self.held_back => Time::NEVER,
            (false, _) => Time(0),
            (true, true) => self.first_clock(),
        }
    }

    /// Bytes of the bodies of all messages, and how many messages there are.
    pub fn stored(&self) -> (u64, u64) {
        (self.ledger.counts().body_bytes, self.ledger.messages().len() as u64)
    }

    /// What all queues take beside their messages, and all subscriptions, in bytes.
    pub fn bytes_besides_messages(&self) -> u64 {
        self.ledger.queues().bytes() + self.ledger.subscriptions().bytes()
    }

    /// The id of the next message.
    pub fn next_id(&self) -> u64 {
        self.ids.next
    }

    /// Whether this connection holds a message: back-pressure on it would keep it from finishing
    /// its work.
    pub fn is_holding(&self, connection: ConnectionId) -> bool {
        self.ledger.session_of(connection).is_some_and(|slot| {
            let session = self.ledger.session(slot);
            session.dispatched > 0 || !session.held.is_empty()
        })
    }

    /// Whether this connection's session has ended, and what it held is still being given back.
    pub fn is_giving_back(&self, connection: ConnectionId) -> bool {
        let session = self.ledger.session_of(connection);
        session.is_some_and(|slot| matches!(self.ledger.session(slot).hold, Hold::Ended))
    }

    /// Lists the rows of all messages whose counters have changed since they were last written:
    /// for a clean stop.
    pub fn unsaved_counters(&mut self) -> Vec<Change> {
        self.ledger.unsaved_counters()
    }

    fn request(&mut self, turn: &mut Turn<'_>, who: SessionSlot, request: Request) {
        let session = self.ledger.session(who);
        let connection = session.connection;
        if matches!(session.hold, Hold::Free) {
            return self.execute(turn, who, request);
        }
        let dialogue = self.ledger.dialogue(who);
        dialogue.backlog.push_back(request);
        if dialogue.backlog.len() >= BACKLOG_REQUESTS_MAX && !dialogue.gated {
            dialogue.gated = true;
            turn.effects.push(Effect::Gate(connection, true));
        }
    }

    /// Goes on with the backlogs of sessions whose hold has ended. Not done where the hold ends,
    /// since one backlog can end the next hold, and so on without a bound on the stack.
    fn resume(&mut self, turn: &mut Turn<'_>) {
        self.serve_entered(turn);
        self.drop_left_homes(turn);
        while let Some(who) = self.resumable.pop_front() {
            while let Some(session) = self.ledger.sessions().get(who)
                && matches!(session.hold, Hold::Free)
            {
                let connection = session.connection;
                let has_sent_all = session.has_sent_all();
                let dialogue = self.ledger.dialogue(who);
                let Some(request) = dialogue.backlog.pop_front() else {
                    if dialogue.ending && has_sent_all {
                        self.end_session(turn, who);
                    }
                    break;
                };
                if dialogue.gated && dialogue.backlog.len() <= BACKLOG_REQUESTS_MAX / 2 {
                    dialogue.gated = false;
                    turn.effects.push(Effect::Gate(connection, false));
                }
                self.execute(turn, who, request);
                self.serve_entered(turn);
                self.drop_left_homes(turn);
            }
            self.serve_entered(turn);
        }
        self.drop_left_homes(turn);
    }

    /// Lets go the queues that stayed for their dead letters alone.
    fn drop_left_homes(&mut self, turn: &mut Turn<'_>) {
        while let Some(queue) = self.ledger.take_left_home() {
            self.drop_if_unneeded(turn, queue);
        }
    }

    /// Ends what keeps a session's next request back.
    fn set_free(&mut self, who: SessionSlot) {
        self.ledger.set_hold(who, Hold::Free);
        self.resumable.push_back(who);
    }

    /// The queue of this name, made if there is none; `None` when there are too many, or their names
    /// take too much memory.
    fn queue(&mut self, name: &QueueName) -> Option<QueueSlot> {
        match self.ledger.queues().find(name) {
            Some(slot) => Some(slot),
            None => self.has_room_for_queue(0, 0).then(|| self.ledger.make_queue(name)),
        }
    }

    /// Whether one more queue can be made beside so many that are about to be, and their bytes.
    fn has_room_for_queue(&self, others: usize, bytes: u64) -> bool {
        let queues = self.ledger.queues();
        queues.len() + others < self.limits.max_queues()
            && queues.bytes() + bytes < queue_bytes_max(self.limits.max_memory())
    }

    /// Why there is no queue.
    fn refuse_queue(&self) -> Refusal {
        let is_full = self.ledger.queues().bytes() >= queue_bytes_max(self.limits.max_memory());
        if is_full { Refusal::OutOfMemory } else { Refusal::TooManyQueues }
    }

    /// Lets a queue go that nobody would miss.
    fn drop_if_unneeded(&mut self, turn: &mut Turn<'_>, slot: QueueSlot) {
        let Some(queue) = self.ledger.remove_if_unneeded(slot) else { return };
        self.keep_in_lists(&queue);
        if let Some(id) = queue.id {
            turn.change(Change::QueueGone(id));
        }
    }
}
