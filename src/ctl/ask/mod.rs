//! The verbs that ask a running daemon, through the HTTP interface (phpmq-http(7)) and nothing else.
//!
//! | file | holds |
//! |---|---|
//! | `options` | the verbs and their flags |
//! | `server` | where the daemon is, and one request to it |
//! | `verbs` | what each verb asks |
//! | `show` | answers as sentences and tables |
//! | `fault` | what can go wrong, and the exit codes |

mod fault;
mod options;
mod server;
mod show;
mod verbs;

pub(super) use options::Verb;
pub(super) use verbs::run;
