//! Names in paths: percent-encoded, or `=` and base64url where a path would lose them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::{Code, Problem};
use crate::words::ids::{MessageId, QueueName};

/// The queue that a segment of a path names.
pub(super) fn queue(segment: &str) -> Result<QueueName, Problem> {
    let bytes = match segment.strip_prefix('=') {
        Some(encoded) => URL_SAFE_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| bad_name("what follows = is not base64url"))?,
        None => decoded(segment, false)
            .ok_or_else(|| bad_name("a percent sign is not followed by two hexadecimal digits"))?,
    };
    // Browsers and curl fold these away, so what would be reached by them is another path.
    if !segment.starts_with('=') && (bytes == b"." || bytes == b".." || bytes.starts_with(b"=")) {
        return Err(bad_name("a name that is . or .. or begins with = is written = and base64url"));
    }
    QueueName::new(&bytes).map_err(|error| bad_name(error.to_string()))
}

fn bad_name(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Code::BadName, detail)
}

/// The message that a segment of a path names.
pub(super) fn message(segment: &str) -> Result<MessageId, Problem> {
    let id = segment.bytes().all(|byte| byte.is_ascii_digit()).then(|| segment.parse().ok());
    id.flatten()
        .map(MessageId)
        .ok_or_else(|| Problem::new(Code::MessageNotFound, "a message's id is a number"))
}

/// The bytes that a percent-encoded text stands for; a plus sign is a space in a query.
pub(super) fn decoded(text: &str, is_query: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let [high, low] = *digits;
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
            }
            b'+' if is_query => b' ',
            other => *other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue's name as a segment of a path.
    fn encoded(name: &str) -> String {
        if name == "." || name == ".." || name.starts_with('=') {
            return format!("={}", URL_SAFE_NO_PAD.encode(name));
        }
        let mut text = String::with_capacity(name.len());
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text += &format!("%{byte:02X}");
            }
        }
        text
    }

    #[test]
    fn every_name_comes_back_from_its_segment() {
        for name in ["mail", "a/b c", "größe", ".", "..", "...", "=x", "100%", "a+b", "\u{1f600}"]
        {
            let segment = encoded(name);
            assert!(segment.is_ascii() && !segment.contains('/'), "{segment}");
            assert_eq!(queue(&segment).unwrap().as_str(), name);
        }
        assert_eq!(queue("a+b").unwrap().as_str(), "a+b");
        assert_eq!(queue("=bWFpbA==").unwrap().as_str(), "mail");
    }

    #[test]
    fn what_no_queue_can_be_called_is_refused() {
        for segment in [".", "%2e%2E", "%3Dx", "%", "%4", "%zz", "%ff", "%00", "=?", "="] {
            assert_eq!(queue(segment).unwrap_err().code, Code::BadName, "{segment}");
        }
        assert_eq!(queue(&"a".repeat(201)).unwrap_err().code, Code::BadName);
    }

    #[test]
    fn ids_are_digits() {
        assert_eq!(message("17"), Ok(MessageId(17)));
        for segment in ["", "+1", "-1", "1x", "18446744073709551616"] {
            assert_eq!(message(segment).unwrap_err().code, Code::MessageNotFound, "{segment}");
        }
    }
}
