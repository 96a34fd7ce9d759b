//! Whom a browser must not lead here: the names by which this server may be called, and the pages
//! that may make it do something.
//!
//! A page can have its own name resolved to a loopback address and then talk to this server as if
//! it were its own; the Host field still has that name. And every page can send simple requests to
//! any address: its origin, which no script can change, tells.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::head::{Head, Method};
use super::problem::{Code, Problem};

/// Decides who is let in.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    /// Whether the connection came through a Unix socket, where no browser comes through.
    is_local_socket: bool,
    hosts: Vec<String>,
}

impl Gatekeeper {
    /// For a server that is called by these names too.
    pub(super) fn new(is_local_socket: bool, hosts: Vec<String>) -> Gatekeeper {
        Gatekeeper { is_local_socket, hosts }
    }

    /// Whether this request may be answered.
    pub(super) fn check(&self, head: &Head<'_>) -> Result<(), Problem> {
        self.check_host(head)?;
        if self.is_same_site(head) {
            return Ok(());
        }
        Err(Problem::new(Code::CrossOrigin, "a page of another site must not ask for this"))
    }

    fn check_host(&self, head: &Head<'_>) -> Result<(), Problem> {
        let Some(host) = head.host else { return Ok(()) };
        let Some(name) = name_of(host) else {
            return Err(Problem::bad_http("the Host field is not NAME or NAME:PORT"));
        };
        if self.is_local_socket || is_address(name) || is_loopback(name) || self.knows(name) {
            return Ok(());
        }
        Err(Problem::new(
            Code::WrongHost,
            "the Host field is none of this server's names (phpmqd.toml(5): hosts)",
        ))
    }

    fn is_same_site(&self, head: &Head<'_>) -> bool {
        match head.fetch_site {
            Some("same-origin" | "none") => return true,
            Some(_) if head.method.is_safe() => {
                return head.method == Method::Options || !head.path.starts_with("/v1/");
            }
            _ if head.method.is_safe() => return true,
            _ => {}
        }
        // A browser that says nothing of sites says its origin. Who says neither is none.
        match (head.origin, head.fetch_site) {
            (Some(origin), _) => self.is_own_origin(origin, head.host),
            (None, Some(_)) => false,
            (None, None) => true,
        }
    }

    fn is_own_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let is_host = host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
        is_host || name_of(authority).is_some_and(|name| self.knows(name))
    }

    fn knows(&self, name: &str) -> bool {
        self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Whether the text can be the name of a host.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_name_byte)
}

/// The name in `NAME`, `NAME:PORT` or `[ADDRESS]:PORT`, with its brackets.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (host.get(..end)?, host.get(end..)?.strip_prefix(':'))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_whole = host.len() == name.len() + port.map_or(0, |port| 1 + port.len());
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = name.starts_with('[') || is_host_name(name);
    (is_whole && is_port && is_name).then_some(name)
}

/// Whether a name is an address: nobody can have that resolved to another.
fn is_address(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Browsers resolve these themselves.
fn is_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::super::head;
    use super::*;

    fn verdict(local: bool, method: &str, path: &str, fields: &str) -> Option<Code> {
        let keeper = Gatekeeper::new(local, vec!["queue.example.org".to_owned()]);
        let text = format!("{method} {path} HTTP/1.1\r\n{fields}\r\n");
        keeper.check(&head::parse(text.as_bytes()).unwrap()).err().map(|problem| problem.code)
    }

    #[test]
    fn a_server_answers_to_its_names_and_to_addresses() {
        for (host, code) in [
            ("localhost:9180", None),
            ("LocalHost", None),
            ("localhost.", None),
            ("app.localhost:1", None),
            ("127.0.0.1:9180", None),
            ("192.0.2.7", None),
            ("[::1]:9180", None),
            ("Queue.Example.org:9180", None),
            ("evil.example.org", Some(Code::WrongHost)),
            ("localhost.evil.example.org", Some(Code::WrongHost)),
            ("127.0.0.1.nip.io", Some(Code::WrongHost)),
            ("", Some(Code::BadHttp)),
            ("a b", Some(Code::BadHttp)),
            ("x@localhost", Some(Code::BadHttp)),
            ("localhost:99:1", Some(Code::BadHttp)),
            ("[::1", Some(Code::BadHttp)),
            ("[::1]9180", Some(Code::BadHttp)),
            ("localhost, evil", Some(Code::BadHttp)),
        ] {
            assert_eq!(verdict(false, "GET", "/", &format!("Host: {host}\r\n")), code, "{host}");
        }
        assert_eq!(verdict(true, "GET", "/", "Host: evil.example.org\r\n"), None);
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let refused = Some(Code::CrossOrigin);
        for (method, fields, code) in [
            ("POST", "", None),
            ("POST", "Sec-Fetch-Site: same-origin\r\n", None),
            ("POST", "Sec-Fetch-Site: none\r\n", None),
            ("POST", "Sec-Fetch-Site: cross-site\r\n", refused),
            ("POST", "Sec-Fetch-Site: same-site\r\nOrigin: http://127.0.0.1:1\r\n", refused),
            ("POST", "Origin: http://localhost:9180\r\n", None),
            ("POST", "Origin: http://localhost:9181\r\n", refused),
            ("POST", "Origin: https://queue.example.org\r\n", None),
            ("POST", "Origin: null\r\n", refused),
            ("DELETE", "Origin: https://evil.example.org\r\n", refused),
            ("GET", "Origin: https://evil.example.org\r\n", None),
            ("GET", "Sec-Fetch-Site: cross-site\r\n", refused),
        ] {
            let fields = format!("Host: localhost:9180\r\n{fields}");
            assert_eq!(verdict(false, method, "/v1/status", &fields), code, "{method} {fields}");
        }
        let fields = "Host: localhost:9180\r\nSec-Fetch-Site: cross-site\r\n";
        assert_eq!(verdict(false, "GET", "/healthz", fields), None);
        assert_eq!(verdict(false, "OPTIONS", "/v1/status", fields), None);
    }
}
