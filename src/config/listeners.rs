//! Where clients connect: the listeners of the flags, else of the file, else one for each protocol.

use toml::Spanned;

use super::Listener;
use super::address::Address;
use super::check::{Checker, plain, zero_or};
use super::error::{ConfigError, ConfigFault, Place};
use super::file;
use super::group::group_number;
use super::resolve::Resolver;
use super::values::{Millis, Mode, Revision};
use crate::channels::Durability;
use crate::protocol::Protocol;

/// The permissions of a Unix socket when none are given.
const SOCKET_MODE: u32 = 0o660;
/// `listener.ack_timeout` when none is given, in milliseconds: half an hour.
const ACK_TIMEOUT_MS: u64 = 30 * 60_000;

impl Checker<'_> {
    /// The listeners of the flags, else those of the file, else one for each protocol.
    pub(super) fn listeners(
        &self,
        typed: &[Spanned<file::Listener>],
        durability: Durability,
    ) -> Result<Vec<Listener>, ConfigError> {
        let mut listeners: Vec<Listener> = Vec::new();
        let mut resolver = Resolver::default();
        let mut add = |listener: Listener| -> Result<(), ConfigError> {
            resolver.add_unresolved(&listener)?;
            listeners.push(listener);
            Ok(())
        };
        if !self.args.listen.is_empty() {
            for text in &self.args.listen {
                add(self.listener_of_flag(text, durability)?)?;
            }
        } else if typed.is_empty() {
            for protocol in self.protocols {
                let address = protocol.default_address;
                let listener = default_listener(protocol, address, durability)
                    .map_err(|fault| ConfigError { place: Place::Defaults("listener"), fault })?;
                add(Listener { from_default: true, ..listener })?;
            }
        } else {
            for typed in typed {
                add(self.listener(typed, durability)?)?;
            }
        }
        Ok(listeners)
    }

    fn protocol(&self, name: &str) -> Result<&'static Protocol, ConfigFault> {
        let found = self.protocols.iter().find(|protocol| protocol.name == name);
        found.ok_or_else(|| {
            let known = self.protocols.iter().map(|protocol| protocol.name).collect();
            ConfigFault::UnknownProtocol(name.to_owned(), known)
        })
    }

    fn listener_of_flag(
        &self,
        text: &str,
        durability: Durability,
    ) -> Result<Listener, ConfigError> {
        let fail = |fault| ConfigError { place: Place::Flag("--listen"), fault };
        let (name, address) =
            text.split_once('=').ok_or_else(|| fail(ConfigFault::NoProtocol(text.to_owned())))?;
        let protocol = self.protocol(name).map_err(fail)?;
        let listener = default_listener(protocol, address, durability).map_err(fail)?;
        Ok(Listener { place: Place::Flag("--listen"), ..listener })
    }

    /// A listener of the file.
    fn listener(
        &self,
        spanned: &Spanned<file::Listener>,
        durability: Durability,
    ) -> Result<Listener, ConfigError> {
        let typed = spanned.get_ref();
        let missing = |key| self.fail("listener", spanned, ConfigFault::Missing(key));
        let name = typed.protocol.as_ref().ok_or_else(|| missing("protocol"))?;
        let address = typed.address.as_ref().ok_or_else(|| missing("address"))?;
        let protocol = self
            .protocol(name.get_ref())
            .map_err(|fault| self.fail("listener.protocol", name, fault))?;
        let mut listener = default_listener(protocol, address.get_ref(), durability)
            .map_err(|fault| self.fail("listener.address", address, fault))?;
        if let Some(word) = plain(&typed.durability) {
            listener.durability = word.into();
        }
        if let Some(allow_remote) = plain(&typed.allow_remote) {
            listener.allow_remote = allow_remote;
        }
        if let Some(revision) = &typed.revision {
            if protocol.name != "phpmq" {
                let fault = ConfigFault::OnlyForProtocol("phpmq");
                return Err(self.fail("listener.revision", revision, fault));
            }
            let Revision(pinned) = *revision.get_ref();
            listener.revision = pinned;
        }
        self.set(
            "listener.ack_timeout",
            &typed.ack_timeout,
            zero_or(Millis(1), Millis(u64::MAX)),
            &mut listener.ack_timeout_ms,
        )?;
        let unix = matches!(listener.address, Address::Unix(_));
        if let Some(mode) = &typed.mode {
            if !unix {
                return Err(self.fail("listener.mode", mode, ConfigFault::OnlyForUnixSockets));
            }
            let Mode(bits) = *mode.get_ref();
            listener.mode = bits;
        }
        if let Some(group) = &typed.group {
            if !unix {
                return Err(self.fail("listener.group", group, ConfigFault::OnlyForUnixSockets));
            }
            self.check_group(group)?;
            listener.group = Some(group.get_ref().clone());
        }
        if let Some(file) = self.file {
            listener.place = file.place("listener.address".to_owned(), address.span());
        }
        Ok(listener)
    }

    /// A group that does not exist is told here and not at the start.
    fn check_group(&self, typed: &Spanned<String>) -> Result<(), ConfigError> {
        let name = typed.get_ref();
        match group_number(&self.environment.root, name) {
            Ok(None) => {
                Err(self.fail("listener.group", typed, ConfigFault::UnknownGroup(name.clone())))
            }
            // Without a list of groups nothing can be told of it.
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }
}

/// A listener for which nothing but protocol and address was said.
pub(super) fn default_listener(
    protocol: &'static Protocol,
    address: &str,
    durability: Durability,
) -> Result<Listener, ConfigFault> {
    let address =
        address.parse().map_err(|error| ConfigFault::BadAddress(address.to_owned(), error))?;
    Ok(Listener { address, ..unaddressed(protocol, durability) })
}

/// A listener for which nothing at all was said, at no address.
pub(super) fn unaddressed(protocol: &'static Protocol, durability: Durability) -> Listener {
    Listener {
        protocol,
        address: Address::Tcp(String::new(), 0),
        durability,
        allow_remote: false,
        revision: None,
        ack_timeout_ms: ACK_TIMEOUT_MS,
        mode: SOCKET_MODE,
        group: None,
        from_default: false,
        place: Place::Defaults("listener.address"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TABLE, environment, load, load_text};
    use super::super::{Args, Config, load_with};
    use super::*;

    fn load_flags(listen: &[&str]) -> Result<Config, ConfigError> {
        let listen = listen.iter().map(|text| (*text).to_owned()).collect();
        load_with(&Args { listen, ..Args::default() }, &environment(), TABLE)
    }

    #[test]
    fn a_listener_has_what_its_table_says_and_defaults_for_the_rest() {
        let config = load(
            "[storage]\ndurability = \"sync\"\n\
             [[listener]]\nprotocol = \"phpmq\"\naddress = \"localhost:0\"\nrevision = 1\n\
             [[listener]]\nprotocol = \"beanstalk\"\naddress = \"unix:/x\"\nmode = \"0606\"\n\
             group = \"www\"\nack_timeout = \"0s\"\ndurability = \"periodic\"\n",
        );
        let listeners = config.unwrap().listeners;
        assert_eq!(listeners.len(), 2);
        let [phpmq, beanstalk] = &listeners[..] else { panic!("two were configured") };
        assert_eq!(phpmq.protocol.name, "phpmq");
        assert_eq!(phpmq.address, Address::Tcp("localhost".to_owned(), 0));
        assert_eq!(phpmq.durability, Durability::Sync);
        assert_eq!((phpmq.revision, phpmq.ack_timeout_ms), (Some(1), 1_800_000));
        assert!(!phpmq.allow_remote && !phpmq.from_default);
        assert_eq!(beanstalk.durability, Durability::Periodic);
        assert_eq!((beanstalk.mode, beanstalk.ack_timeout_ms), (0o606, 0));
        assert_eq!(beanstalk.group.as_deref(), Some("www"));
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
        assert!(error.contains("known are: phpmq, console, beanstalk"), "{error}");
    }

    #[test]
    fn two_listeners_have_two_addresses_unless_any_port_will_do() {
        let error = load_flags(&["phpmq=127.0.0.1:1", "console=127.0.0.1:1"]).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1 is the address of another"), "{error}");
        assert_eq!(error.exit_code(), 78);
        assert!(load_flags(&["phpmq=127.0.0.1:0", "console=127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn keys_that_do_not_go_with_the_listener_are_refused() {
        let tcp = "[[listener]]\nprotocol = \"beanstalk\"\naddress = \"127.0.0.1:1\"\n";
        let refused = |line: &str| load(&format!("{tcp}{line}\n")).unwrap_err();
        assert_eq!(refused("revision = 1"), "4: listener.revision: only phpmq listeners have this");
        assert_eq!(refused("mode = \"0600\""), "4: listener.mode: only Unix sockets have this");
        assert_eq!(refused("group = \"g\""), "4: listener.group: only Unix sockets have this");
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
