//! The head of a request: where it ends, and what it says, as long as it can be read in one way only.
//!
//! Two parties that read one request differently are how requests are smuggled past a proxy. So
//! whatever the standards let a server forgive is an error here: a line feed without its carriage
//! return, a folded field, a blank before a colon, two lengths, a length beside chunks.

use std::borrow::Cow;

use super::problem::{Code, Problem};
use super::{FIELDS_MAX, HEAD_BYTES_MAX, PATH_BYTES_MAX};
use crate::protocol::wire::decimal;

/// Finds the end of a head in what arrives.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    kept: Vec<u8>,
    seen: Seen,
}

/// What is known of the bytes of a head so far.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    bytes: usize,
    lines: usize,
    line_bytes: usize,
    /// Whether the empty line was there that old clients send behind a body.
    had_empty_line: bool,
    is_behind_cr: bool,
}

/// What the next byte makes of a head.
enum Step {
    Goes,
    /// An empty line before it, which is dropped.
    Empty,
    Ends,
}

impl HeadReader {
    /// Takes from the front of `input` what is missing; the head once it is whole.
    pub(super) fn take<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, Problem> {
        let mut from = 0;
        for (at, byte) in input.iter().enumerate() {
            match self.seen.step(*byte)? {
                Step::Goes => {}
                Step::Empty => {
                    self.kept.clear();
                    from = at + 1;
                }
                Step::Ends => {
                    let (head, rest) = input.split_at(at + 1);
                    let head = head.get(from..).unwrap_or_default();
                    *input = rest;
                    self.seen = Seen::default();
                    if self.kept.is_empty() {
                        return Ok(Some(Cow::Borrowed(head)));
                    }
                    let mut whole = std::mem::take(&mut self.kept);
                    whole.extend_from_slice(head);
                    return Ok(Some(Cow::Owned(whole)));
                }
            }
        }
        self.kept.extend_from_slice(input.get(from..).unwrap_or_default());
        *input = &[];
        Ok(None)
    }

    /// Bytes kept of an incomplete head.
    pub(super) fn pending_bytes(&self) -> usize {
        self.kept.len()
    }
}

impl Seen {
    fn step(&mut self, byte: u8) -> Result<Step, Problem> {
        self.bytes += 1;
        if self.bytes > HEAD_BYTES_MAX {
            return Err(Problem::too_large_head("the head is longer than 16 KiB"));
        }
        match (self.is_behind_cr, byte) {
            (true, b'\n') => return self.end_line(),
            (true, _) => return Err(Problem::bad_http("a carriage return without a line feed")),
            (false, b'\n') => {
                return Err(Problem::bad_http("a line feed without a carriage return"));
            }
            (false, b'\r') => self.is_behind_cr = true,
            (false, _) => {
                if self.lines == 0 && self.line_bytes == 0 && !byte.is_ascii_uppercase() {
                    return Err(Problem::bad_http("the first line does not begin with a method"));
                }
                self.line_bytes += 1;
            }
        }
        Ok(Step::Goes)
    }

    fn end_line(&mut self) -> Result<Step, Problem> {
        self.is_behind_cr = false;
        match (self.lines, self.line_bytes) {
            (0, 0) if !self.had_empty_line => {
                *self = Seen { had_empty_line: true, ..Seen::default() };
                Ok(Step::Empty)
            }
            (0, 0) => Err(Problem::bad_http("empty lines before the request")),
            (_, 0) => Ok(Step::Ends),
            _ => {
                self.lines += 1;
                self.line_bytes = 0;
                Ok(Step::Goes)
            }
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// Any other: no route has it.
    Other,
}

impl Method {
    fn of(word: &str) -> Method {
        match word {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// As it stands in a request.
    pub(super) fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "",
        }
    }

    /// Whether a request with it changes nothing.
    pub(super) fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }
}

/// How the body of a request is told from what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A head that can be read in one way only.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: Method,
    /// As it was sent, with its percent signs.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// HTTP/1.0
    pub(super) is_old: bool,
    pub(super) keeps_alive: bool,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    pub(super) host: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) fetch_site: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
}

/// Reads a whole head.
pub(super) fn parse(bytes: &[u8]) -> Result<Head<'_>, Problem> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        // Invariant: the reader gave out bytes up to an empty line.
        Ok(httparse::Status::Partial) => return Err(Problem::bad_http("the head is not whole")),
        Err(error) => return Err(fault(error)),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let method = Method::of(method);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_target(method, target, path)?;
    let fields = Fields::of(request.headers)?;
    let is_old = request.version == Some(0);
    if fields.host.is_none() && !is_old {
        return Err(Problem::bad_http("a request of HTTP/1.1 has a Host field"));
    }
    let framing = framing(&fields, is_old)?;
    Ok(Head {
        method,
        path,
        query,
        is_old,
        keeps_alive: !fields.closes && (!is_old || fields.keeps_alive),
        framing,
        expects_continue: expects_continue(&fields)? && !is_old,
        host: fields.host,
        origin: fields.origin,
        fetch_site: fields.fetch_site,
        content_type: fields.content_type,
        content_encoding: fields.content_encoding,
    })
}

fn fault(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => {
            Problem::too_large_head("the head has more than 64 fields")
        }
        httparse::Error::HeaderName => {
            Problem::bad_http("the name of a field is not a word directly before a colon")
        }
        httparse::Error::HeaderValue => {
            Problem::bad_http("the value of a field holds a control character")
        }
        httparse::Error::Version => Problem::bad_http("the version is not HTTP/1.0 or HTTP/1.1"),
        _ => Problem::bad_http("the first line is not METHOD /PATH HTTP/1.1"),
    }
}

fn check_target(method: Method, target: &str, path: &str) -> Result<(), Problem> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Problem::too_large_head("the path is longer than 2 KiB"));
    }
    let is_odd = |byte: u8| !byte.is_ascii_graphic() || byte == b'#' || byte == b'\\';
    if target.bytes().any(is_odd) {
        return Err(Problem::bad_http("the path holds a byte that has to be percent-encoded"));
    }
    if path.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(());
    }
    Err(Problem::bad_http("what is asked for does not begin with a slash"))
}

/// The fields that mean something here.
#[derive(Debug, Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    length: Option<&'a str>,
    encoding: Option<&'a str>,
    expect: Option<&'a str>,
    origin: Option<&'a str>,
    fetch_site: Option<&'a str>,
    content_type: Option<&'a str>,
    content_encoding: Option<&'a str>,
    closes: bool,
    keeps_alive: bool,
}

impl<'a> Fields<'a> {
    fn of(list: &[httparse::Header<'a>]) -> Result<Fields<'a>, Problem> {
        let mut fields = Fields::default();
        for field in list {
            let name = field.name;
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let place = if is("host") {
                &mut fields.host
            } else if is("content-length") {
                &mut fields.length
            } else if is("transfer-encoding") {
                &mut fields.encoding
            } else if is("expect") {
                &mut fields.expect
            } else if is("origin") {
                &mut fields.origin
            } else if is("sec-fetch-site") {
                &mut fields.fetch_site
            } else if is("content-type") {
                &mut fields.content_type
            } else if is("content-encoding") {
                &mut fields.content_encoding
            } else {
                if is("connection") {
                    fields.note_connection(field.value);
                }
                continue;
            };
            let Ok(value) = std::str::from_utf8(field.value) else {
                return Err(Problem::bad_http("a field's value is not UTF-8"));
            };
            if place.replace(value).is_some() {
                let text = format!("the field {} is there twice", name.to_ascii_lowercase());
                return Err(Problem::new(Code::BadHttp, text));
            }
        }
        Ok(fields)
    }

    fn note_connection(&mut self, value: &[u8]) {
        for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.closes |= word.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= word.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

fn framing(fields: &Fields<'_>, is_old: bool) -> Result<Framing, Problem> {
    match (fields.length, fields.encoding) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(_), Some(_)) => {
            Err(Problem::bad_http("Content-Length and Transfer-Encoding do not go together"))
        }
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") && !is_old => {
            Ok(Framing::Chunked)
        }
        (None, Some(_)) => {
            Err(Problem::bad_http("the only Transfer-Encoding is chunked, with HTTP/1.1"))
        }
        (Some(length), None) => match decimal(length.as_bytes()) {
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Problem::bad_http("Content-Length is not one number")),
        },
    }
}

fn expects_continue(fields: &Fields<'_>) -> Result<bool, Problem> {
    match fields.expect {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("100-continue") => Ok(true),
        Some(_) => Err(Problem::bad_http("nothing but 100-continue can be expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, Problem> {
        let mut reader = HeadReader::default();
        let mut input = text.as_bytes();
        let head = reader.take(&mut input)?.expect("it is whole");
        let head = parse(&head)?;
        Ok(format!("{} {} {}", head.method.word(), head.path, head.query))
    }

    #[test]
    fn a_head_says_what_is_asked_for() {
        let text = "GET /v1/queues?limit=5&x HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(read(text).unwrap(), "GET /v1/queues limit=5&x");
        assert_eq!(read(&format!("\r\n{text}")).unwrap(), "GET /v1/queues limit=5&x");
    }

    #[test]
    fn a_head_in_pieces_is_the_same_head() {
        let text = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let mut reader = HeadReader::default();
        let mut found = None;
        for (at, byte) in text.iter().enumerate() {
            if let Some(head) = reader.take(&mut &[*byte][..]).unwrap() {
                found = Some((at, head.into_owned()));
                break;
            }
        }
        let (at, head) = found.unwrap();
        assert_eq!(&text[at + 1..], b"abc");
        assert_eq!(parse(&head).unwrap().framing, Framing::Length(3));
    }

    #[test]
    fn a_connection_goes_on_as_its_version_and_its_field_say() {
        for (line, field, keeps) in [
            ("HTTP/1.1", "X: y", true),
            ("HTTP/1.1", "Connection: close", false),
            ("HTTP/1.1", "Connection: TE, Close", false),
            ("HTTP/1.0", "X: y", false),
            ("HTTP/1.0", "Connection: keep-alive", true),
        ] {
            let text = format!("GET / {line}\r\nHost: x\r\n{field}\r\n\r\n");
            assert_eq!(parse(text.as_bytes()).unwrap().keeps_alive, keeps, "{line} {field}");
        }
    }
}
