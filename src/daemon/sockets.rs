//! The listening sockets: made or taken over before anything else, served when all is loaded.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use slog::{Logger, info};

use super::DaemonError;
use crate::bind::{BindError, BindTo, ListeningSocket, LocalAddress, bind};
use crate::channels::Profile;
use crate::config::{Address, Config, Listener};
use crate::connection::Shared;
use crate::facts::who_listens_on;
use crate::listener::{self, Listening, Service};
use crate::protocol::{self, Setup};
use crate::systemd::Passed;

/// A socket and what is to be spoken there.
pub(super) struct Bound {
    socket: ListeningSocket,
    listener: Listener,
}

/// The sockets: passed ones replace the configured listeners of their protocol. With the name of
/// a protocol as `all_are` they are for that one, whatever they are called.
pub(super) fn bind_all(
    config: &Config,
    passed: Vec<Passed>,
    all_are: Option<&str>,
) -> Result<Vec<Bound>, DaemonError> {
    let mut bound = Vec::new();
    let mut replaced: Vec<&'static str> = Vec::new();
    for Passed { name, socket } in passed {
        let protocol = protocol::find(all_are.unwrap_or(&name))
            .ok_or_else(|| DaemonError::PassedName(name.clone()))?;
        let socket = ListeningSocket::inherited(OwnedFd::from(socket))
            .map_err(|error| DaemonError::System("use a passed socket", error))?;
        replaced.push(protocol.name);
        bound.push(Bound { socket, listener: config.listener_for_passed(protocol) });
    }
    for listener in &config.listeners {
        if replaced.contains(&listener.protocol.name) {
            continue;
        }
        for to in bind_targets(listener)? {
            let socket = bind(&to).map_err(|error| bind_error(error, listener))?;
            bound.push(Bound { socket, listener: listener.clone() });
        }
    }
    Ok(bound)
}

fn bind_targets(listener: &Listener) -> Result<Vec<BindTo>, DaemonError> {
    match &listener.address {
        Address::Unix(path) => {
            let group = listener.group.as_deref().map(group_number).transpose()?;
            Ok(vec![BindTo::Unix { path: path.clone(), mode: listener.mode, group }])
        }
        tcp @ Address::Tcp(..) => {
            let found = tcp
                .resolve()
                .map_err(|error| DaemonError::System("resolve a listener's host name", error))?;
            Ok(found.into_iter().map(BindTo::Tcp).collect())
        }
    }
}

/// A group by its name in /etc/group, or by its number.
fn group_number(name: &str) -> Result<u32, DaemonError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| DaemonError::Group(name.to_owned()))
}

fn bind_error(error: BindError, listener: &Listener) -> DaemonError {
    let mut hint = String::new();
    if matches!(error, BindError::InUse(_)) {
        if let BindError::InUse(LocalAddress::Tcp(address)) = &error
            && let Some(owner) = who_listens_on(*address)
        {
            hint = format!(" by {owner}");
        }
        let name = listener.protocol.name;
        hint += &format!("; choose another address with --listen {name}=ADDRESS");
        if listener.from_default && name == "phpmq" {
            hint += " (9100 is also the port of Prometheus's node_exporter)";
        }
    }
    DaemonError::Bind { error, hint }
}

/// Starts to accept connections.
pub(super) fn start_listeners(
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
    message_key: [u8; 16],
    log: &Logger,
) -> Result<Vec<Listening>, DaemonError> {
    let mut listening = Vec::new();
    for (number, Bound { socket, listener }) in bound.into_iter().enumerate() {
        let profile = Profile {
            protocol: listener.protocol,
            durability: listener.durability,
            ack_timeout_ms: listener.ack_timeout_ms,
        };
        let limits = shared.limits.clone();
        let setup = Setup { limits, message_key, revision: listener.revision };
        let started = listener::start(number, socket, Service { profile, setup }, shared.clone())
            .map_err(|error| DaemonError::System("start a listener", error))?;
        info!(log, "listening"; "protocol" => profile.protocol.name,
            "address" => %started.local_address());
        listening.push(started);
    }
    Ok(listening)
}
