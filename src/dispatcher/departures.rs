//! The order between a peer that hangs up and those who ask after it.
//!
//! Each connection has a thread of its own, so the request of one peer may come through the channel
//! before the end of another that had closed its connection earlier. One program that does both
//! would see its own close take effect late: a message that it held is not ready yet, or a
//! connection that it closed is still counted. So requests are taken in rounds:
//!
//! ```text
//!   what has come ─► round ─► which peers have hung up? ─┬─ none ──────────────► the round is done
//!                                                        └─ some: what comes of
//!                    later ◄── what comes of others ◄──────  them is done ──────► when they have
//!                                                                                 ended, the round
//! ```
//!
//! A request that lies in a round was sent before the set of hang-ups was asked. Whoever hung up
//! before that request was sent is therefore in the answer, and everything it sent before it hung up
//! is in its socket, in its thread's hands or in the channel: its thread is on its way to the end.
//!
//! # How long a round waits
//! Only for threads that read on: not for a peer behind its closed gate or one whose large frame
//! waits for room in memory, except that one behind a waiting reservation is told that it waits for
//! nothing any more. Not for more than
//! [`AHEAD_EVENTS_MAX`] events of such peers, so that one that sends megabytes and hangs up does not
//! go ahead of everybody with all of it; nor for more than [`SLICES_MAX`] slices of what a session
//! that has ended gives back; nor longer than [`PATIENCE_MS`], after which no round waits for
//! [`REST_FACTOR`] times as long. A peer that was waited for in vain is not waited for again. While
//! a round waits, what is due is done, commits go on and answers leave.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::channels::Event;
use crate::channels::transport::Transport;
use crate::engine::Input;
use crate::wire::hang_ups::HangUps;
use crate::words::clock::Time;
use crate::words::ids::ConnectionId;
use crate::words::limits::{EVENTS_PER_TURN_MAX, EVENTS_WAITING_MAX};

use super::Dispatcher;
use super::peers::Closed;

/// Channel messages of a peer that has hung up which go ahead of a round: up to 16,384 requests.
pub(super) const AHEAD_EVENTS_MAX: usize = 64;
/// Slices of what an ended session held which go ahead of a round: up to 10,000 messages.
pub(super) const SLICES_MAX: usize = 10;
/// How long a round waits at most, in milliseconds. A thread that is ready to run gets a processor
/// sooner, also on a busy machine.
pub(super) const PATIENCE_MS: u64 = 500;
/// After a wait that was in vain, so many times its length passes without another.
pub(super) const REST_FACTOR: u64 = 20;
/// Peers that have hung up behind their gates and are still remembered, at most.
const REMEMBERED_MAX: usize = 256;

/// What is known of peers that have hung up.
#[derive(Debug)]
pub(super) struct Departures {
    hang_ups: HangUps,
    /// Peers that have hung up and whose end has not been handled to its last slice.
    departing: Vec<ConnectionId>,
    /// Whether the round waits for some of them.
    is_awaited: bool,
    /// Until when it waits.
    until: Time,
    /// Slices that may still go ahead of the round.
    slices_left: usize,
    /// Whether nothing but such slices is waited for.
    all_have_ended: bool,
    /// No round waits before this.
    rests_until: Time,
}

impl Departures {
    pub fn new(hang_ups: HangUps) -> Departures {
        Departures {
            hang_ups,
            departing: Vec::new(),
            is_awaited: false,
            until: Time::NEVER,
            slices_left: 0,
            all_have_ended: false,
            rests_until: Time(0),
        }
    }

    /// Whether the round waits for peers that have hung up.
    pub fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// When the round is to be looked at again whatever comes.
    pub fn deadline(&self) -> Time {
        match (self.is_awaited, self.all_have_ended) {
            (false, _) => Time::NEVER,
            (true, false) => self.until,
            // The engine's next turn may have done the last slice.
            (true, true) => Time(0),
        }
    }

    /// The end of this connection will be noticed.
    pub fn watch(&mut self, connection: ConnectionId, transport: Arc<Transport>) {
        self.hang_ups.watch(connection, transport);
    }

    /// The end of this connection is known.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.hang_ups.forget(connection);
    }
}

/// How far a peer that has hung up has got.
enum Departure {
    /// Its thread reads on to the end.
    OnItsWay,
    /// Its thread stands behind its closed gate, or waits for room in memory.
    HeldBack,
    /// It has ended; what it held is being given back.
    GivesBack,
    /// There is nothing to wait for, or no more.
    Over,
}

impl Dispatcher<'_> {
    /// Fills the round with what has come, and finds out whether it has to wait.
    pub(super) fn begin_round(&mut self, first: Option<Event>) {
        self.drain(first);
        // Whoever is alone sees nobody else's end. When the daemon stops, all connections end.
        // While no round waits, the set keeps what it has to report.
        if self.peers.len() < 2
            || !self.round_asks()
            || self.clients.is_stopping()
            || self.now.time < self.departures.rests_until
        {
            return;
        }
        let departures = &mut self.departures;
        departures.hang_ups.take(&mut departures.departing);
        if departures.departing.is_empty() {
            return;
        }
        departures.until = self.now.time.plus(PATIENCE_MS);
        departures.slices_left = SLICES_MAX;
        self.look_at_departing();
        self.take_ahead_of_round();
        self.look_at_departing()
    }

    /// While the round waits: does what comes of those that it waits for, puts the rest aside.
    pub(super) fn go_on_waiting(&mut self, first: Option<Event>) {
        self.drain(first);
        let departures = &mut self.departures;
        if departures.all_have_ended {
            departures.slices_left -= 1;
        }
        if self.now.time >= departures.until || self.later.len() >= EVENTS_WAITING_MAX {
            self.wait_no_more();
        }
        self.look_at_departing()
    }

    /// Takes the events that have come, as far as this turn may.
    fn drain(&mut self, first: Option<Event>) {
        let mut next = first;
        while self.taken < EVENTS_PER_TURN_MAX
            && let Some(event) = next.take().or_else(|| self.next_event())
        {
            self.taken += 1;
            self.place(event);
        }
    }

    /// Handles an event at once or puts it in its line: the round's, or behind a round that waits.
    fn place(&mut self, event: Event) {
        match event {
            // From now on the end of this connection is noticed.
            Event::Opened(opened) => self.open(*opened),
            event if !self.departures.is_awaited => self.round.push_back(event),
            Event::Persisted | Event::Ping | Event::Written { .. } => self.take(event),
            event if self.is_of_awaited(&event) => self.take_ahead(event),
            event => self.later.push_back(event),
        }
    }

    /// Does what has been drained already of those that the round waits for, in its order.
    fn take_ahead_of_round(&mut self) {
        let (round, later) = (std::mem::take(&mut self.round), std::mem::take(&mut self.later));
        let mut ahead = VecDeque::new();
        for event in round {
            let line = if self.is_of_awaited(&event) { &mut ahead } else { &mut self.round };
            line.push_back(event);
        }
        for event in later {
            let line = if self.is_of_awaited(&event) { &mut ahead } else { &mut self.later };
            line.push_back(event);
        }
        ahead.into_iter().for_each(|event| self.take_ahead(event))
    }

    fn take_ahead(&mut self, event: Event) {
        if let Some(connection) = event.connection()
            && let Some(peer) = self.peers.get_mut(&connection)
        {
            peer.ahead_left = peer.ahead_left.saturating_sub(1);
        }
        self.take(event)
    }

    fn is_of_awaited(&self, event: &Event) -> bool {
        let peer = event.connection().and_then(|connection| self.peers.get(&connection));
        peer.is_some_and(|peer| peer.awaited)
    }

    /// Whether somebody's request is in the round.
    fn round_asks(&self) -> bool {
        self.round.iter().any(|event| matches!(event, Event::Requests { .. }))
    }

    /// Decides for each peer that has hung up whether the round waits for it.
    fn look_at_departing(&mut self) {
        let departing = std::mem::take(&mut self.departures.departing);
        let (mut awaited, mut remembered) = (0, 0);
        self.departures.all_have_ended = true;
        for connection in departing {
            match self.departure(connection) {
                Departure::Over => continue,
                Departure::HeldBack if remembered == REMEMBERED_MAX => continue,
                Departure::HeldBack => remembered += 1,
                Departure::GivesBack => awaited += 1,
                Departure::OnItsWay => {
                    awaited += 1;
                    self.departures.all_have_ended = false;
                }
            }
            self.departures.departing.push(connection);
        }
        self.departures.is_awaited = awaited > 0 && self.round_asks();
    }

    /// How far a peer that has hung up has got.
    fn departure(&mut self, connection: ConnectionId) -> Departure {
        let peer = self.peers.get(&connection);
        if peer.is_some_and(|peer| !peer.ended && peer.is_closed_for(Closed::BACKLOG)) {
            // Its thread has seen that too, and is about to say so.
            self.input(Input::HungUp(connection));
        }
        let gives_back = self.engine.is_giving_back(connection) && self.departures.slices_left > 0;
        let Some(peer) = self.peers.get_mut(&connection) else { return Departure::Over };
        let departure = if peer.ahead_left == 0 || (peer.ended && !gives_back) {
            Departure::Over
        } else if peer.ended {
            Departure::GivesBack
        } else if peer.will_read_on() {
            Departure::OnItsWay
        } else {
            Departure::HeldBack
        };
        peer.awaited = matches!(departure, Departure::GivesBack | Departure::OnItsWay);
        departure
    }

    /// The wait was in vain: nobody waits for these peers again, nor for any others for a while.
    fn wait_no_more(&mut self) {
        for connection in &self.departures.departing {
            if let Some(peer) = self.peers.get_mut(connection).filter(|peer| peer.awaited) {
                peer.ahead_left = 0;
            }
        }
        self.departures.rests_until = self.now.time.plus(PATIENCE_MS * REST_FACTOR);
    }
}
