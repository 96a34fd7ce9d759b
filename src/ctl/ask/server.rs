//! Where the daemon is, and one request to it: a connection for each, since a person types few.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::fault::Fault;
use super::options::{Common, service_socket};

/// The address of a daemon that has no configuration.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9180";
/// The longest head of an answer, and its fields at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
/// The largest answer, in bytes: that of a message is as large as `limits.max_message_size` can be.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Where a daemon listens.
#[derive(Debug)]
pub(super) struct Server {
    place: Place,
    timeout: Duration,
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(String),
}

/// What a request brings.
#[derive(Debug)]
pub(super) enum Content<'a> {
    None,
    /// Members.
    Json(Value),
    /// A message's content.
    Bytes(&'a [u8]),
}

/// A connection of either kind.
trait Stream: Read + Write {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Server {
    /// The server that the flag names, else the environment, else the one of the system service if
    /// its socket is there, else the one at the default address.
    pub(super) fn of(common: &Common) -> Result<Server, Fault> {
        let named = common.server.clone();
        let named = named.or_else(|| std::env::var("PHPMQ_SERVER").ok().filter(|v| !v.is_empty()));
        let place = match named {
            Some(text) => place(&text).ok_or(Fault::Address(text))?,
            None if service_socket().exists() => Place::Unix(service_socket()),
            None => Place::Tcp(DEFAULT_ADDRESS.to_owned()),
        };
        Ok(Server { place, timeout: Duration::from_secs(common.timeout) })
    }

    /// Asks, and takes the body of an answer that says that it is done.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        content: Content<'_>,
    ) -> Result<Vec<u8>, Fault> {
        let mut stream = self.connect().map_err(|e| Fault::Connect(self.place.to_string(), e))?;
        let bytes = request(method, path, &self.place, content);
        // Who answers early may not have read all: then the answer is there although sending failed.
        let sent = stream.write_all(&bytes);
        let lost =
            |error| if method == "GET" { Fault::Silent(error) } else { Fault::Unanswered(error) };
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        if answer.is_empty() {
            let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(lost(sent.and(read.map(|_| ())).err().unwrap_or_else(end)));
        }
        let (status, body) = parse(&answer).map_err(|problem| match read {
            Err(error) => lost(error),
            Ok(_) => problem,
        })?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        let problem = serde_json::from_slice(body);
        Err(Fault::Problem(status, problem.map_err(|_| Fault::NotAnAnswer("no problem in JSON"))?))
    }

    /// The same for an answer in JSON.
    pub(super) fn json(
        &self,
        method: &str,
        path: &str,
        content: Content<'_>,
    ) -> Result<Value, Fault> {
        let body = self.ask(method, path, content)?;
        serde_json::from_slice(&body).map_err(|_| Fault::NotAnAnswer("no JSON"))
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let timeout = Some(self.timeout);
        match &self.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Ok(Box::new(stream))
            }
            Place::Tcp(address) => {
                let stream = connect_tcp(address, self.timeout)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Connects to the first address of a name that somebody listens at.
fn connect_tcp(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn place(text: &str) -> Option<Place> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| Place::Unix(PathBuf::from(path)));
    }
    let address = text.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let fits = !host.is_empty() && host.bytes().all(is_name) && port.parse::<u16>().is_ok();
    fits.then(|| Place::Tcp(address.to_owned()))
}

fn request(method: &str, path: &str, place: &Place, content: Content<'_>) -> Vec<u8> {
    let host = match place {
        Place::Unix(_) => "localhost",
        Place::Tcp(address) => address,
    };
    let (content_type, body) = match content {
        Content::None => ("", Vec::new()),
        Content::Json(members) => {
            ("Content-Type: application/json\r\n", members.to_string().into_bytes())
        }
        Content::Bytes(bytes) => ("Content-Type: application/octet-stream\r\n", bytes.to_vec()),
    };
    let length = match (method, body.len()) {
        ("POST", length) => format!("Content-Length: {length}\r\n"),
        _ => String::new(),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{content_type}{length}Connection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

/// The status and the body of an answer.
fn parse(bytes: &[u8]) -> Result<(u16, &[u8]), Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let head = bytes.get(..bytes.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
    let Ok(httparse::Status::Complete(head_bytes)) = answer.parse(head) else {
        return Err(Fault::NotAnAnswer("no whole head"));
    };
    let length = answer.headers.iter().find(|f| f.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let body = bytes.get(head_bytes..).unwrap_or_default();
    let whole = length.and_then(|length: usize| body.get(..length));
    match (answer.code, whole) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(Fault::NotAnAnswer("it is not whole")),
    }
}

/// A name as a segment of a path, or as a value in a query.
pub(super) fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            text.push(char::from(byte));
        } else if byte == b'.' && name.bytes().any(|other| other != b'.') {
            text.push('.');
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// A queue's name as a segment of a path: in base64url where a path could lose it.
pub(super) fn queue_path(name: &str) -> String {
    use base64::Engine as _;
    // What is no name is for the server to say, and not another path.
    if ["", ".", ".."].contains(&name) || name.starts_with('=') {
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(name);
        return format!("/v1/queues/={encoded}");
    }
    format!("/v1/queues/{}", encoded(name))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_socket_or_a_host_and_port() {
        for text in ["unix:/run/x.sock", "http://127.0.0.1:9180", "http://[::1]:1/"] {
            assert!(place(text).is_some(), "{text}");
        }
        for text in
            ["unix:x", "127.0.0.1:9180", "http://host", "https://h:1", "http://a b:1", "http://:1"]
        {
            assert!(place(text).is_none(), "{text}");
        }
    }

    #[test]
    fn names_stay_whole_in_paths() {
        assert_eq!(queue_path("a/b c"), "/v1/queues/a%2Fb%20c");
        assert_eq!(queue_path("mail.eu"), "/v1/queues/mail.eu");
        assert_eq!(queue_path(".."), "/v1/queues/=Li4");
        assert_eq!(queue_path(""), "/v1/queues/=");
        assert_eq!(queue_path("=x"), "/v1/queues/=PXg");
        assert_eq!(queue_path("..."), "/v1/queues/%2E%2E%2E");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse(text).unwrap(), (200, &b"hello"[..]));
        for end in 0..text.len() {
            assert!(parse(&text[..end]).is_err(), "{end}");
        }
    }
}
