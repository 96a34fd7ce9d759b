//! What each event does: requests to the engine, ends of connections, reports of writers.

use std::sync::Arc;

use slog::debug;

use crate::channels::{End, Event, NewConnection};
use crate::engine::Input;
use crate::words::command::{Command, Manner, Request, Tag};
use crate::words::ids::{ConnectionId, QueueName};
use crate::words::limits::Charge;

use super::Dispatcher;
use super::peers::Peer;

impl Dispatcher<'_> {
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Opened(opened) => self.open(*opened),
            Event::Requests { connection, requests, charge } => {
                self.take_requests(connection, requests, charge)
            }
            Event::HungUp(connection) => self.input(Input::HungUp(connection)),
            Event::Ended { connection, end } => self.end(connection, &end),
            Event::Written { connection, result } => {
                let committed = self.commits.committed();
                let Some(peer) = self.peers.get_mut(&connection) else { return };
                let flush = peer.outbox.written(result, committed);
                self.after_flush(connection, flush)
            }
            Event::Persisted | Event::Ping => {}
            Event::ToggleDrain => self.toggle_drain(),
            Event::Policies(policies) => self.input(Input::Policies(policies)),
            Event::Stop => self.stopping = true,
        }
    }

    pub(super) fn open(&mut self, opened: NewConnection) {
        let (connection, profile) = (opened.connection, opened.profile);
        debug!(self.log, "connection opened"; "connection" => connection.0,
            "protocol" => profile.protocol.name, "peer" => %opened.peer);
        self.departures.watch(connection, Arc::clone(&opened.transport));
        self.peers.insert(connection, Box::new(Peer::new(opened, &self.writers)));
        let (manner, ack_timeout_ms) = (profile.protocol.manner, profile.ack_timeout_ms);
        let first_queue = profile.protocol.first_queue.map(|(name, number)| {
            let name = QueueName::new(name.as_bytes()).expect("a first queue has a queue's name");
            (name, number)
        });
        self.input(Input::Opened { connection, manner, ack_timeout_ms, first_queue });
        self.greet(connection);
    }

    pub(super) fn take_requests(
        &mut self,
        connection: ConnectionId,
        requests: Vec<Request>,
        charge: Charge,
    ) {
        for request in requests {
            match &request.command {
                Command::Put(_) | Command::PutWith(_) | Command::Together(_) => {
                    let serial =
                        self.peers.get(&connection).is_some_and(|p| p.manner == Manner::Serial);
                    self.hold_back_putter(connection, serial || request.tag != Tag::None);
                }
                Command::PutRefused { body_bytes, .. } if request.tag == Tag::None => {
                    self.note_dropped(connection, *body_bytes);
                }
                _ => {}
            }
            self.input(Input::Request(connection, request));
        }
        self.pressure.taken.keep(charge);
    }

    pub(super) fn end(&mut self, connection: ConnectionId, end: &End) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.ended = true;
        self.departures.forget(connection);
        match end {
            End::EndOfFile | End::Stopped => {
                debug!(self.log, "connection closed"; "connection" => connection.0,
                    "peer" => %peer.address);
            }
            End::Fault(fault) => {
                self.protocol_errors += 1;
                debug!(self.log, "connection closed: protocol error";
                    "connection" => connection.0, "peer" => %peer.address,
                    "protocol" => peer.protocol, "error" => fault);
            }
            End::TimedOut(what) => {
                self.protocol_errors += 1;
                debug!(self.log, "connection closed: time-out"; "connection" => connection.0,
                    "peer" => %peer.address, "protocol" => peer.protocol, "error" => *what);
            }
            End::Reset(error) => {
                debug!(self.log, "connection lost"; "connection" => connection.0,
                    "peer" => %peer.address,
                    "error" => %error);
                peer.broken = true;
            }
            End::Panicked => {
                slog::error!(self.log, "a client's thread panicked, its connection is closed";
                    "connection" => connection.0, "peer" => %peer.address,
                    "protocol" => peer.protocol);
                peer.broken = true;
            }
        }
        let broken = peer.broken;
        self.input(Input::Closed(connection));
        if broken {
            self.give_up_unsent(connection);
        }
    }

    /// Nothing can be sent to a peer whose requests have ended: its session waits no more for it
    /// to take what is unsent.
    pub(super) fn give_up_unsent(&mut self, connection: ConnectionId) {
        self.input(Input::Closed(connection))
    }
}
