//! The command line of `phpmqctl bench`, and the plan that is made of it.

use std::fmt;

use clap::{Args, ValueEnum};

use super::ledger::{Bodies, STAMP_BYTES};
use super::target::Target;
use crate::words::clock::monotonic_us;

/// The options as they are typed.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The protocol to speak
    #[arg(short, long, value_enum, default_value_t = Protocol::Beanstalk)]
    pub protocol: Protocol,

    /// The server: HOST:PORT or unix:PATH [default: the protocol's port on 127.0.0.1]
    #[arg(short, long, value_name = "ADDRESS")]
    pub address: Option<String>,

    /// What each connection does [default: cycle for beanstalk, pass for phpmq]
    #[arg(short, long, value_enum)]
    pub work: Option<Work>,

    /// Connections, for every work except pass
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub connections: u32,

    /// Connections that send, for pass
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub producers: u32,

    /// Connections that receive, for pass
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub consumers: u32,

    /// Connections that one thread drives
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_thread: u32,

    /// Commands a connection sends without waiting for replies; a phpmq consumer's window
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub depth: u32,

    /// Bytes of a message
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(24..=1 << 30))]
    pub size: u32,

    /// Messages a second, over all connections [default: as many as the server takes]
    #[arg(short, long)]
    pub rate: Option<f64>,

    /// Messages in total
    #[arg(short = 'n', long, conflicts_with = "duration")]
    pub count: Option<u64>,

    /// Seconds to run
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,

    /// Queues over which the connections are spread
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: u32,

    /// The prefix of the queues' names [default: one of this run's own]
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,

    /// The most messages sent and not yet received, for pass
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub backlog: u64,

    /// Print the figures as JSON, and no progress
    #[arg(long)]
    pub json: bool,

    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

/// The protocols that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// beanstalkd's, of this server or of beanstalkd itself
    Beanstalk,
    /// php-mq
    Phpmq,
}

impl Protocol {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Beanstalk => "beanstalk",
            Protocol::Phpmq => "phpmq",
        }
    }

    fn default_address(self) -> &'static str {
        match self {
            Protocol::Beanstalk => "127.0.0.1:11300",
            Protocol::Phpmq => "127.0.0.1:9100",
        }
    }
}

/// What connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Each puts, reserves and deletes
    Cycle,
    /// Each puts; the messages stay
    Put,
    /// Some send, others receive
    Pass,
    /// Each asks an empty queue for a message, without waiting
    Poll,
    /// Each connects, puts one message and closes, again and again
    Connect,
}

impl Work {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Work::Cycle => "cycle",
            Work::Put => "put",
            Work::Pass => "pass",
            Work::Poll => "poll",
            Work::Connect => "connect",
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Work::Poll => "polls",
            _ => "messages",
        }
    }
}

/// A plan that can be carried out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub protocol: Protocol,
    pub target: Target,
    pub work: Work,
    pub connections: usize,
    pub producers: usize,
    pub consumers: usize,
    pub connections_per_thread: usize,
    pub depth: usize,
    pub size: usize,
    pub bodies: Bodies,
    /// Messages a second of one producer.
    pub rate: Option<f64>,
    pub count: Option<u64>,
    pub duration_us: u64,
    pub queues: u32,
    pub queue: String,
    pub backlog: u64,
    pub json: bool,
    pub quiet: bool,
}

/// One connection's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSpec {
    pub role: Role,
    /// Its number among those that send, or among those that receive.
    pub number: u32,
    pub queue: u32,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Cycle,
    Put,
    Poll,
    Send,
    Take,
}

/// Options that make no sense together.
#[derive(Debug)]
pub enum BadOptions {
    Address(String, std::io::Error),
    NotOfProtocol(Work, Protocol),
    QueueWithoutConsumer,
    NotPositive(&'static str),
}

impl fmt::Display for BadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadOptions::Address(text, error) => write!(f, "the address {text:?}: {error}"),
            BadOptions::NotOfProtocol(work, protocol) => {
                write!(f, "--work {} is not available with {}", work.name(), protocol.name())
            }
            BadOptions::QueueWithoutConsumer => f.write_str("more --queues than --consumers"),
            BadOptions::NotPositive(what) => write!(f, "--{what} must be more than 0"),
        }
    }
}

impl Plan {
    /// Checks the options.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn new(options: &Options) -> Result<Plan, BadOptions> {
        let protocol = options.protocol;
        let default_work = match protocol {
            Protocol::Beanstalk => Work::Cycle,
            Protocol::Phpmq => Work::Pass,
        };
        let work = options.work.unwrap_or(default_work);
        if protocol == Protocol::Phpmq && !matches!(work, Work::Pass) {
            return Err(BadOptions::NotOfProtocol(work, protocol));
        }
        if work == Work::Pass && options.queues > options.consumers {
            return Err(BadOptions::QueueWithoutConsumer);
        }
        if !options.duration.is_finite() || options.duration <= 0.0 {
            return Err(BadOptions::NotPositive("duration"));
        }
        if options.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(BadOptions::NotPositive("rate"));
        }
        let address =
            options.address.clone().unwrap_or_else(|| protocol.default_address().to_owned());
        let target = Target::parse(&address).map_err(|e| BadOptions::Address(address, e))?;
        let producers = if work == Work::Pass { options.producers } else { options.connections };
        // Different enough from run to run to tell their messages apart; nothing secret.
        let run = (monotonic_us() as u32) ^ std::process::id().rotate_left(16);
        Ok(Plan {
            protocol,
            target,
            work,
            connections: options.connections as usize,
            producers: producers as usize,
            consumers: options.consumers as usize,
            connections_per_thread: options.connections_per_thread as usize,
            depth: options.depth as usize,
            size: (options.size as usize).max(STAMP_BYTES),
            bodies: Bodies::new(run, options.size as usize),
            rate: options.rate.map(|rate| rate / f64::from(producers)),
            count: options.count,
            duration_us: (options.duration * 1e6) as u64,
            queues: options.queues,
            queue: options.queue.clone().unwrap_or_else(|| format!("bench-{run:08x}")),
            backlog: options.backlog,
            json: options.json,
            quiet: options.quiet,
        })
    }

    /// The name of queue number `number`.
    pub fn queue_name(&self, number: u32) -> String {
        if self.queues == 1 { self.queue.clone() } else { format!("{}-{number}", self.queue) }
    }

    /// How many of the messages are this producer's, when they are counted.
    pub fn share_of(&self, producer: u32) -> Option<u64> {
        let count = self.count?;
        let producers = self.producers as u64;
        Some(count / producers + u64::from(u64::from(producer) < count % producers))
    }

    /// All connections; senders and receivers of one queue lie close together.
    pub fn lines(&self) -> Vec<LineSpec> {
        let spec = |role, number: u32| LineSpec { role, number, queue: number % self.queues };
        let all = |role, count: usize| (0..count as u32).map(move |number| spec(role, number));
        match self.work {
            Work::Cycle => all(Role::Cycle, self.connections).collect(),
            Work::Put => all(Role::Put, self.connections).collect(),
            Work::Poll => all(Role::Poll, self.connections).collect(),
            Work::Connect => Vec::new(),
            Work::Pass => {
                let mut takers = all(Role::Take, self.consumers);
                let mut senders = all(Role::Send, self.producers);
                let mut lines = Vec::new();
                loop {
                    let pair = [takers.next(), senders.next()];
                    if pair == [None, None] {
                        return lines;
                    }
                    lines.extend(pair.into_iter().flatten());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(words: &str) -> Result<Plan, BadOptions> {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        Plan::new(&Line::parse_from(words).options)
    }

    #[test]
    fn a_count_is_shared_out_to_the_last_message() {
        let plan = plan("--work put --connections 3 --count 10").unwrap();
        let shares: Vec<_> = (0..3).map(|producer| plan.share_of(producer).unwrap()).collect();
        assert_eq!(shares, [4, 3, 3]);
    }

    #[test]
    fn every_queue_of_a_pass_has_a_sender_and_a_receiver() {
        let plan = plan("--work pass --producers 4 --consumers 2 --queues 2").unwrap();
        let lines = plan.lines();
        assert_eq!(lines.len(), 6);
        for queue in 0..2 {
            let count = |role| lines.iter().filter(|l| l.role == role && l.queue == queue).count();
            assert_eq!((count(Role::Send), count(Role::Take)), (2, 1));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(plan("--protocol phpmq --work cycle").is_err());
        assert!(plan("--work pass --queues 2").is_err());
        assert!(plan("--rate 0").is_err());
        assert!(plan("--address nowhere").is_err());
    }
}
