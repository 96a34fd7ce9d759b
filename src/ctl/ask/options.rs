//! The verbs that ask a running daemon, as they are typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::values::Millis;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Verb {
    /// Say how the daemon is
    Status(Status),
    /// List queues
    Queues(Queues),
    /// Say how a queue is, who holds what of it and why it does not move
    Queue(Queue),
    /// Send a message to a queue and print its id
    Put(Put),
    /// Remove all messages of a queue
    Flush(Flush),
    /// Hand out nothing of a queue until it is resumed
    Pause(Pause),
    /// Hand out messages of a queue again
    Resume(Queue),
    /// Bring back what was set aside of a queue, or else what is delayed
    Kick(Kick),
    /// Remove single messages
    Delete(Delete),
    /// Show a message
    Message(Message),
}

/// What every one of these verbs takes.
#[derive(Debug, Args)]
pub(in crate::ctl) struct Common {
    /// Where the daemon is: unix:/PATH or http://HOST:PORT
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,

    /// Print the answers as they are
    #[arg(long)]
    pub json: bool,

    /// Seconds that connecting, and each answer, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

/// `status`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Status {
    /// Only say by the exit code whether it is ready
    #[arg(long)]
    pub ready: bool,

    #[command(flatten)]
    pub common: Common,
}

/// In which order queues are listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::ctl) enum Order {
    Name,
    Ready,
    Reserved,
    Delayed,
    Buried,
    Messages,
    Bytes,
    Oldest,
}

/// `queues`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Queues {
    /// Only those whose names match; * stands for any characters
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,

    /// By name, or those first that have most of this
    #[arg(long, value_enum, default_value_t = Order::Name)]
    pub sort: Order,

    /// Only those with messages in one of these states, with commas between them
    #[arg(long, value_name = "STATES")]
    pub has: Option<String>,

    /// So many at most
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,

    #[command(flatten)]
    pub common: Common,
}

/// A verb that takes the name of a queue alone.
#[derive(Debug, Args)]
pub(in crate::ctl) struct Queue {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub name: String,

    #[command(flatten)]
    pub common: Common,
}

/// `put`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Put {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub name: String,

    /// The message; without one, or with -, what comes on standard input
    #[arg(value_name = "MESSAGE")]
    pub body: Option<String>,

    /// 0 is handed out first
    #[arg(long, value_name = "NUMBER")]
    pub priority: Option<u32>,

    /// Until it is ready: 1500ms, 30s, 5m, 2h
    #[arg(long, value_name = "DURATION")]
    pub delay: Option<Millis>,

    /// Until it expires
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Millis>,

    /// How long a consumer may hold it
    #[arg(long, value_name = "DURATION")]
    pub time_to_run: Option<Millis>,

    /// An attribute; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub attribute: Vec<String>,

    /// Wait until it is safe from a power cut
    #[arg(long)]
    pub sync: bool,

    #[command(flatten)]
    pub common: Common,
}

/// `flush`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Flush {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub name: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub common: Common,
}

/// `pause`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Pause {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub name: String,

    /// For so long, and not until it is resumed
    #[arg(long = "for", value_name = "DURATION")]
    pub lasting: Option<Millis>,

    #[command(flatten)]
    pub common: Common,
}

/// `kick`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Kick {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub name: String,

    /// So many messages at most
    #[arg(long, value_name = "COUNT")]
    pub max: Option<u64>,

    #[command(flatten)]
    pub common: Common,
}

/// `delete`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Delete {
    /// The messages
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<u64>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub common: Common,
}

/// `message`
#[derive(Debug, Args)]
pub(in crate::ctl) struct Message {
    /// The message
    #[arg(value_name = "ID")]
    pub id: u64,

    /// Print its content alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    pub body: bool,

    #[command(flatten)]
    pub common: Common,
}

/// Where the socket of the system service is.
pub(super) fn service_socket() -> PathBuf {
    PathBuf::from("/run/phpmq/http.sock")
}
