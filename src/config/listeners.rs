//! Where clients connect: the listeners of the flags, else of the file, else one for each protocol.

use toml::Spanned;

use super::Listener;
use super::address::Address;
use super::error::{ConfigError, ConfigFault, Location};
use super::file::{self, TypedListener, TypedOption};
use super::group::group_number;
use super::meaning::{Checker, plain, zero_or};
use super::resolve::Resolver;
use super::values::{Millis, Mode};
use crate::protocol::Protocol;
use crate::protocol::options::OptionValues;
use crate::words::durability::Durability;

/// The permissions of a Unix socket when none are given.
const SOCKET_MODE: u32 = 0o660;
/// `listener.ack_timeout` when none is given, in milliseconds: half an hour.
const ACK_TIMEOUT_MS: u64 = 30 * 60_000;

impl Checker<'_> {
    /// The listeners of the flags, else those of the file, else one for each protocol.
    pub(super) fn listeners(
        &self,
        typed: &[Spanned<TypedListener>],
        durability: Durability,
    ) -> Vec<Listener> {
        // All that the file says is looked at, also where flags take its place.
        let of_file = typed.iter().filter_map(|typed| self.listener(typed, durability)).collect();
        let listeners: Vec<Listener> = if !self.args.listen.is_empty() {
            let flags = self.args.listen.iter();
            flags.filter_map(|text| self.listener_of_flag(text, durability)).collect()
        } else if typed.is_empty() {
            self.protocols.iter().flat_map(|row| self.listeners_of(row, durability)).collect()
        } else {
            of_file
        };
        let mut resolver = Resolver::default();
        for listener in &listeners {
            resolver.add_unresolved(listener).unwrap_or_else(|error| self.report(error));
        }
        listeners
    }

    fn protocol(&self, name: &str) -> Result<&'static Protocol, ConfigFault> {
        let found = self.protocols.iter().find(|protocol| protocol.name == name);
        found.ok_or_else(|| {
            let known = self.protocols.iter().map(|protocol| protocol.name).collect();
            ConfigFault::UnknownProtocol(name.to_owned(), known)
        })
    }

    /// The listeners of a protocol when nothing is configured.
    fn listeners_of(&self, protocol: &'static Protocol, durability: Durability) -> Vec<Listener> {
        let mut addresses = vec![protocol.default_address.to_owned()];
        let sockets = self.environment.runtime_directory.as_ref();
        let sockets = sockets.and_then(|list| std::env::split_paths(list).next());
        if let (Some(directory), Some(name)) = (sockets, protocol.default_socket) {
            addresses.push(format!("unix:{}", directory.join(name).display()));
        }
        let place = Location::Defaults("listener.address");
        let listeners = addresses.iter().filter_map(|address| {
            match default_listener(protocol, address, durability) {
                Ok(listener) => {
                    Some(Listener { from_default: true, place: place.clone(), ..listener })
                }
                Err(fault) => {
                    self.report(ConfigError { place: place.clone(), fault });
                    None
                }
            }
        });
        listeners.collect()
    }

    fn listener_of_flag(&self, text: &str, durability: Durability) -> Option<Listener> {
        let place = Location::Flag("--listen");
        let listener = match text.split_once('=') {
            Some((name, address)) => self
                .protocol(name)
                .and_then(|protocol| default_listener(protocol, address, durability)),
            None => Err(ConfigFault::NoProtocol(text.to_owned())),
        };
        match listener {
            Ok(listener) => Some(Listener { place, ..listener }),
            Err(fault) => {
                self.report(ConfigError { place, fault });
                None
            }
        }
    }

    /// A listener of the file.
    fn listener(
        &self,
        spanned: &Spanned<TypedListener>,
        durability: Durability,
    ) -> Option<Listener> {
        let TypedListener { keys: typed, options } = spanned.get_ref();
        for (key, given) in
            [("protocol", typed.protocol.is_some()), ("address", typed.address.is_some())]
        {
            if !given {
                self.fail("listener", spanned, ConfigFault::Missing("listener", key));
            }
        }
        let protocol = typed.protocol.as_ref().and_then(|name| {
            let protocol = self.protocol(name.get_ref());
            protocol.map_err(|fault| self.fail("listener.protocol", name, fault)).ok()
        });
        let address = typed.address.as_ref().and_then(|text| {
            let address = read_address(text.get_ref());
            let address = address.map_err(|fault| self.fail("listener.address", text, fault)).ok();
            address.zip(Some(text))
        });
        // What can be told of the other keys is told without them.
        let mut listener = unaddressed(protocol.or(self.protocols.first())?, durability);
        self.common_keys(typed, &mut listener);
        if let Some(protocol) = protocol {
            self.options(protocol, options, &mut listener.options);
        }
        let is_tcp = address.as_ref().is_some_and(|(address, _)| !address.is_unix());
        self.unix_keys(typed, is_tcp, &mut listener);
        let (address, text) = address?;
        if let Some(file) = self.file {
            listener.place = file.place("listener.address".to_owned(), text.span());
        }
        protocol.map(|_| Listener { address, ..listener })
    }

    fn common_keys(&self, typed: &file::Listener, listener: &mut Listener) {
        if let Some(word) = plain(&typed.durability) {
            listener.durability = word;
        }
        if let Some(allow_remote) = plain(&typed.allow_remote) {
            listener.allow_remote = allow_remote;
        }
        self.set(
            "listener.ack_timeout",
            &typed.ack_timeout,
            zero_or(Millis(1), Millis(u64::MAX)),
            &mut listener.ack_timeout_ms,
        );
    }

    /// What was typed of the protocol's own options.
    fn options(&self, protocol: &Protocol, typed: &[TypedOption], options: &mut OptionValues) {
        for TypedOption { name, value } in typed {
            let fault = match protocol.options.iter().find(|option| option.name == *name) {
                Some(option) if (option.accepts)(value.get_ref()) => {
                    options.set(option, value.get_ref().clone());
                    continue;
                }
                // Another protocol has an option of this name, which takes that value.
                Some(option) => ConfigFault::WrongType(format!("this key takes {}", option.takes)),
                None => ConfigFault::OnlyForProtocols(self.protocols_with(name)),
            };
            if let Some(file) = self.file {
                let place = file.place(format!("listener.{name}"), value.span());
                self.report(ConfigError { place, fault });
            }
        }
    }

    /// The protocols that have an option of this name.
    fn protocols_with(&self, name: &str) -> Vec<&'static str> {
        let having = self
            .protocols
            .iter()
            .filter(|protocol| protocol.options.iter().any(|option| option.name == name));
        having.map(|protocol| protocol.name).collect()
    }

    fn unix_keys(&self, typed: &file::Listener, is_tcp: bool, listener: &mut Listener) {
        if let Some(mode) = &typed.mode {
            if is_tcp {
                self.fail("listener.mode", mode, ConfigFault::OnlyForUnixSockets);
            }
            let Mode(bits) = *mode.get_ref();
            listener.mode = bits;
        }
        if let Some(group) = &typed.group {
            if is_tcp {
                self.fail("listener.group", group, ConfigFault::OnlyForUnixSockets);
            } else {
                self.check_group(group);
            }
            listener.group = Some(group.get_ref().clone());
        }
    }

    /// A group that does not exist is told here and not at the start.
    fn check_group(&self, typed: &Spanned<String>) {
        let name = typed.get_ref();
        // A look-up that fails says nothing about the group.
        if let Ok(None) = group_number(name) {
            self.fail("listener.group", typed, ConfigFault::UnknownGroup(name.clone()));
        }
    }
}

/// A listener for which nothing but protocol and address was said.
pub(super) fn default_listener(
    protocol: &'static Protocol,
    address: &str,
    durability: Durability,
) -> Result<Listener, ConfigFault> {
    Ok(Listener { address: read_address(address)?, ..unaddressed(protocol, durability) })
}

fn read_address(text: &str) -> Result<Address, ConfigFault> {
    text.parse().map_err(|error| ConfigFault::BadAddress(text.to_owned(), error))
}

/// A listener for which nothing at all was said, at no address.
pub(super) fn unaddressed(protocol: &'static Protocol, durability: Durability) -> Listener {
    Listener {
        protocol,
        address: Address::Tcp(String::new(), 0),
        durability,
        allow_remote: false,
        options: OptionValues::defaults(protocol.options),
        ack_timeout_ms: ACK_TIMEOUT_MS,
        mode: SOCKET_MODE,
        group: None,
        from_default: false,
        place: Location::Defaults("listener.address"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TABLE;
    use super::super::tests::{environment, load, load_text, row};
    use super::super::{Args, Config, ConfigErrors, load_with};
    use super::*;
    use crate::protocol::options::OptionValue;

    fn load_flags(listen: &[&str]) -> Result<Config, ConfigErrors> {
        let listen = listen.iter().map(|text| (*text).to_owned()).collect();
        load_with(&Args { listen, ..Args::default() }, &environment(), TABLE)
    }

    #[test]
    fn a_listener_has_what_its_table_says_and_defaults_for_the_rest() {
        let config = load(
            "[storage]\ndurability = \"sync\"\n\
             [[listener]]\nprotocol = \"phpmq\"\naddress = \"localhost:0\"\nrevision = 1\n\
             [[listener]]\nprotocol = \"beanstalk\"\naddress = \"unix:/x\"\nmode = \"0606\"\n\
             group = \"1234\"\nack_timeout = \"0s\"\ndurability = \"periodic\"\n",
        );
        let listeners = config.unwrap().listeners;
        assert_eq!(listeners.len(), 2);
        let [phpmq, beanstalk] = &listeners[..] else { panic!("two were configured") };
        assert_eq!(phpmq.protocol.name, "phpmq");
        assert_eq!(phpmq.address, Address::Tcp("localhost".to_owned(), 0));
        assert_eq!(phpmq.durability, Durability::Sync);
        assert_eq!(phpmq.options.get("revision"), Some(&OptionValue::Number(1)));
        assert_eq!(beanstalk.options, OptionValues::default());
        assert_eq!(phpmq.ack_timeout_ms, 1_800_000);
        assert!(!phpmq.allow_remote && !phpmq.from_default);
        assert_eq!(beanstalk.durability, Durability::Periodic);
        assert_eq!((beanstalk.mode, beanstalk.ack_timeout_ms), (0o606, 0));
        assert_eq!(beanstalk.group.as_deref(), Some("1234"));
    }

    #[test]
    fn an_address_that_others_reach_needs_leave() {
        for address in ["0.0.0.0:9100", "[::]:9100", "192.0.2.1:9100", "[::ffff:192.0.2.1]:9100"] {
            let text = format!("[[listener]]\nprotocol = \"phpmq\"\naddress = \"{address}\"\n");
            let error = load(&text).unwrap_err();
            assert!(error.starts_with("3: listener.address: "), "{error}");
            assert!(error.contains("allow_remote = true"), "{error}");
            assert!(load(&format!("{text}allow_remote = true\n")).is_ok());
        }
        let text = "[[listener]]\nprotocol = \"phpmq\"\naddress = \"127.9.9.9:9100\"\n";
        assert!(load(text).is_ok());
        assert_eq!(load_flags(&["phpmq=0.0.0.0:9100"]).unwrap_err().exit_code(), 78);
    }

    #[test]
    fn a_directory_for_sockets_gives_some_protocols_one_there() {
        static ROWS: &[Protocol] = &[
            Protocol { default_socket: Some("x.sock"), ..row("phpmq", "127.0.0.1:9100") },
            row("console", "127.0.0.1:9101"),
        ];
        let directory = Some("/run/phpmq:/run/other".into());
        let environment =
            super::super::Environment { runtime_directory: directory, ..environment() };
        let config = load_with(&Args::default(), &environment, ROWS).unwrap();
        let addresses: Vec<String> =
            config.listeners.iter().map(|listener| listener.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:9100", "unix:/run/phpmq/x.sock", "127.0.0.1:9101"]);
        assert!(config.listeners.iter().all(|listener| listener.from_default));
    }

    #[test]
    fn flags_replace_all_listeners_of_the_file() {
        let text = "[[listener]]\nprotocol = \"console\"\naddress = \"127.0.0.1:1\"\n";
        let listen = vec!["phpmq=127.0.0.1:2".to_owned(), "phpmq=unix:/x".to_owned()];
        let config = load_text(text, &Args { listen, ..Args::default() }).unwrap();
        let names: Vec<&str> = config.listeners.iter().map(|row| row.protocol.name).collect();
        assert_eq!(names, ["phpmq", "phpmq"]);
    }

    #[test]
    fn flags_that_are_no_listener_are_a_usage_error() {
        for bad in ["phpmq", "nosuch=127.0.0.1:1", "phpmq=127.0.0.1", "phpmq=unix:x"] {
            let error = load_flags(&[bad]).unwrap_err();
            assert_eq!(error.exit_code(), 64, "{bad}: {error}");
            assert!(error.to_string().starts_with("--listen: "), "{error}");
        }
        let error = load_flags(&["nosuch=127.0.0.1:1"]).unwrap_err().to_string();
        assert!(error.contains("known: phpmq, console, beanstalk"), "{error}");
    }

    #[test]
    fn two_listeners_have_two_addresses_unless_any_port_will_do() {
        let error = load_flags(&["phpmq=127.0.0.1:1", "console=127.0.0.1:1"]).unwrap_err();
        assert!(
            error.to_string().contains("127.0.0.1:1 is already the address of another"),
            "{error}"
        );
        assert_eq!(error.exit_code(), 78);
        assert!(load_flags(&["phpmq=127.0.0.1:0", "console=127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn keys_that_do_not_go_with_the_listener_are_refused() {
        let tcp = "[[listener]]\nprotocol = \"beanstalk\"\naddress = \"127.0.0.1:1\"\n";
        let refused = |line: &str| load(&format!("{tcp}{line}\n")).unwrap_err();
        assert_eq!(
            refused("revision = 1"),
            "4: listener.revision: applies to phpmq listeners only"
        );
        assert_eq!(refused("mode = \"0600\""), "4: listener.mode: applies to Unix sockets only");
        assert_eq!(refused("group = \"g\""), "4: listener.group: applies to Unix sockets only");
    }

    #[test]
    fn a_listener_without_protocol_or_address_is_refused() {
        let error = load("[[listener]]\naddress = \"127.0.0.1:1\"\n").unwrap_err();
        assert_eq!(error, "1: listener: the listener has no protocol");
        let error = load("\n[[listener]]\nprotocol = \"phpmq\"\n").unwrap_err();
        assert_eq!(error, "2: listener: the listener has no address");
        let error = load("[[listener]]\nprotocol = \"amqp\"\naddress = \"x:1\"\n").unwrap_err();
        assert!(error.starts_with("2: listener.protocol: unknown protocol \"amqp\""), "{error}");
        let error = load("[[listener]]\nprotocol = \"phpmq\"\naddress = \"x\"\n").unwrap_err();
        assert!(error.starts_with("3: listener.address: bad address \"x\": no port"), "{error}");
    }
}
