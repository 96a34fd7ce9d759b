//! What can go wrong between the tool and a daemon, and how the tool ends then.

use std::fmt;
use std::io;

use serde_json::Value;

use crate::words::printable::safe;

/// Why a verb could not be carried out.
#[derive(Debug)]
pub(super) enum Fault {
    /// The place that was named for the server is none.
    Address(String),
    /// Nobody answers there.
    Connect(String, io::Error),
    /// The answer did not come; whether what was asked for has been done is not known.
    Unanswered(io::Error),
    /// The answer did not come, and nothing was to be changed.
    Silent(io::Error),
    /// What came is no answer of this interface.
    NotAnAnswer(&'static str),
    /// The server says what is wrong: the status, and its words.
    Problem(u16, Value),
    /// Standard input cannot be read, or standard output not be written to.
    Local(io::Error),
    /// It would destroy something, and nobody has agreed.
    NotAgreed(String),
}

impl Fault {
    /// How the tool ends (phpmqctl(1), EXIT STATUS).
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Fault::Address(_) | Fault::NotAgreed(_) => 64,
            Fault::Connect(..) | Fault::Silent(_) => 69,
            Fault::Unanswered(_) => 76,
            Fault::NotAnAnswer(_) => 70,
            Fault::Local(_) => 74,
            Fault::Problem(status, _) => match status {
                404 | 409 => 1,
                400 | 405 | 415 | 422 => 64,
                413 => 65,
                401 | 403 | 421 => 77,
                429 | 503 | 507 => 75,
                504 => 76,
                501 => 69,
                _ => 70,
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Address(text) => {
                write!(f, "{}: not a server like unix:/PATH or http://HOST:PORT", safe(text))
            }
            Fault::Connect(server, error) => write!(f, "cannot connect to {server}: {error}"),
            Fault::Unanswered(error) => {
                write!(f, "no answer, it may have been done all the same: {error}")
            }
            Fault::Silent(error) => write!(f, "no answer: {error}"),
            Fault::NotAnAnswer(why) => {
                write!(f, "the server does not answer as phpmqd does: {why}")
            }
            Fault::Problem(status, problem) => {
                let text = |name| problem.get(name).and_then(Value::as_str).unwrap_or_default();
                if problem.get("name").is_some() {
                    write!(f, "{}: ", safe(text("name")))?;
                }
                write!(f, "{} ({status} {})", safe(text("detail")), safe(text("code")))?;
                let errors = problem.get("errors").and_then(Value::as_array);
                for error in errors.into_iter().flatten() {
                    let text = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
                    write!(f, "; {}: {}", safe(text("at")), safe(text("text")))?;
                }
                Ok(())
            }
            Fault::Local(error) => error.fmt(f),
            Fault::NotAgreed(what) => {
                write!(f, "this removes {what}: say --yes where nobody can be asked")
            }
        }
    }
}
