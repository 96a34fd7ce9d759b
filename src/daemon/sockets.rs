//! The listening sockets: made or taken over before anything else, served when all is loaded.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use slog::{Logger, info};

use super::DaemonError;
use crate::channels::Profile;
use crate::config::{Address, Config, Listener, Resolver, group_number};
use crate::daemon::systemd::Passed;
use crate::dispatcher::facts::who_listens_on;
use crate::protocol::{self, Setup};
use crate::wire::bind::{BindError, BindTo, ListeningSocket, LocalAddress, bind};
use crate::wire::connection::Shared;
use crate::wire::listener::{self, Listening, Service};

/// A socket and what is to be spoken there.
pub(super) struct Bound {
    socket: ListeningSocket,
    listener: Listener,
}

/// Takes over the sockets that were passed, which replace the configured listeners of their
/// protocol. With the name of a protocol as `all_are` they are for that one, whatever they are
/// called.
pub(super) fn inherit(
    config: &Config,
    passed: Vec<Passed>,
    all_are: Option<&str>,
) -> Result<Vec<Bound>, DaemonError> {
    let take = |Passed { name, socket }| {
        let protocol = protocol::find(all_are.unwrap_or(&name))
            .ok_or_else(|| DaemonError::PassedName(name.clone()))?;
        let socket = ListeningSocket::inherited(OwnedFd::from(socket))
            .map_err(|error| DaemonError::System("use a passed socket", error))?;
        Ok(Bound { socket, listener: config.listener_for_passed(protocol) })
    };
    passed.into_iter().map(take).collect()
}

/// Makes the configured sockets, beside those that were inherited. With them come the errors of
/// addresses that were left out.
pub(super) fn bind_all(
    config: &Config,
    inherited: &[Bound],
) -> Result<(Vec<Bound>, Vec<BindError>), DaemonError> {
    let mut resolver = Resolver::default();
    for Bound { socket, .. } in inherited {
        if let LocalAddress::Tcp(address) = socket.local_address() {
            resolver.add_open(*address);
        }
    }
    let own = config.listeners.iter().filter(|listener| !is_replaced(listener, inherited));
    // All of them first: two listeners at one address are told before either is bound.
    let mut targets = Vec::new();
    for listener in own {
        targets.push((listener, resolver.add(listener).map_err(DaemonError::Address)?));
    }
    let (mut bound, mut left_out) = (Vec::new(), Vec::new());
    for (listener, addresses) in targets {
        let sockets = match &listener.address {
            Address::Unix(path) => {
                let group = listener.group.as_deref().map(group_of).transpose()?;
                let to = BindTo::Unix { path: path.clone(), mode: listener.mode, group };
                vec![bind(&to).map_err(|error| bind_error(error, listener))?]
            }
            Address::Tcp(..) => bind_addresses(listener, &addresses, &mut left_out)?,
        };
        let listener = |socket| Bound { socket, listener: listener.clone() };
        bound.extend(sockets.into_iter().map(listener));
    }
    Ok((bound, left_out))
}

/// Whether a socket of the listener's protocol was passed.
fn is_replaced(listener: &Listener, inherited: &[Bound]) -> bool {
    inherited.iter().any(|bound| bound.listener.protocol.name == listener.protocol.name)
}

/// Says which of the addresses that somebody has configured are not listened on.
pub(super) fn log_replaced(config: &Config, inherited: &[Bound], log: &Logger) {
    let configured = config.listeners.iter().filter(|listener| !listener.from_default);
    for listener in configured.filter(|listener| is_replaced(listener, inherited)) {
        info!(log, "a passed socket replaces a configured listener";
            "protocol" => listener.protocol.name, "address" => %listener.address);
    }
}

/// Binds all addresses of one listener. Where the system does without IPv6, or without IPv4, the
/// name of this machine may still stand for an address of that kind: it is left out when the name
/// has others.
fn bind_addresses(
    listener: &Listener,
    addresses: &[SocketAddr],
    left_out: &mut Vec<BindError>,
) -> Result<Vec<ListeningSocket>, DaemonError> {
    let mut sockets = Vec::new();
    let mut missing = Vec::new();
    for address in addresses {
        match bind(&BindTo::Tcp(*address)) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.is_of_missing_family() => missing.push(error),
            Err(error) => return Err(bind_error(error, listener)),
        }
    }
    if sockets.is_empty()
        && let Some(error) = missing.pop()
    {
        return Err(bind_error(error, listener));
    }
    left_out.append(&mut missing);
    Ok(sockets)
}

fn group_of(name: &str) -> Result<u32, DaemonError> {
    let number = group_number(name);
    let number = number.map_err(|error| DaemonError::GroupLookUp(name.to_owned(), error))?;
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
        let default_port = listener.protocol.default_address.rsplit(':').next();
        if let (true, Some(port), Some(other)) =
            (listener.from_default, default_port, listener.protocol.port_shared_with)
        {
            hint += &format!(" ({port} is also the port of {other})");
        }
    }
    if let (BindError::GroupNotPermitted(..), Some(group)) = (&error, &listener.group) {
        hint = format!("; make its user a member of {group} (in a unit: SupplementaryGroups=)");
    }
    DaemonError::Bind { error, hint }
}

/// Starts to accept connections.
pub(super) fn start_listeners(
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
    secret: [u8; 16],
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
        let is_local_socket = matches!(socket.local_address(), LocalAddress::Unix(_));
        let options = Arc::new(listener.options);
        let setup = Setup { limits, secret, options, is_local_socket };
        let started = listener::start(number, socket, Service { profile, setup }, shared.clone())
            .map_err(|error| DaemonError::System("start a listener", error))?;
        info!(log, "listening"; "protocol" => profile.protocol.name,
            "address" => %started.local_address());
        listening.push(started);
    }
    Ok(listening)
}
