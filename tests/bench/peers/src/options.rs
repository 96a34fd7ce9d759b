//! The command line, and the plan that is made of it.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

use crate::ledger::{Bodies, STAMP_BYTES};
use crate::run::monotonic_us;

/// Puts, takes and acknowledges messages at a server of another maker, and checks what comes
#[derive(Clone, Debug, Parser)]
#[command(name = "phpmq-peers", version)]
pub struct Options {
    /// Whose server it is, and which way of queueing
    #[arg(short, long, value_enum)]
    pub peer: Peer,

    /// The server: ADDRESS:PORT
    #[arg(short, long)]
    pub address: SocketAddr,

    /// Connections, each of which puts, takes and acknowledges
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// Messages that a connection has under way at once
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub depth: u32,

    /// Bytes of a message
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(24..=65_535))]
    pub size: u32,

    /// Seconds to run
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,

    /// Ask for a queue and messages that outlive the server (rabbitmq: durable and persistent;
    /// nats: file storage); the others take it from their own configuration
    #[arg(long)]
    pub durable: bool,

    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// The servers, and the ways to queue with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Redis: a list, and one list for each consumer of what it works on
    RedisList,
    /// Redis: a stream with a consumer group
    RedisStream,
    /// RabbitMQ: a classic queue, over AMQP 0-9-1
    Rabbitmq,
    /// NATS JetStream: a work queue stream with a pull consumer
    Nats,
    /// Gearman: background jobs
    Gearman,
}

impl Peer {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Peer::RedisList => "redis-list",
            Peer::RedisStream => "redis-stream",
            Peer::Rabbitmq => "rabbitmq",
            Peer::Nats => "nats",
            Peer::Gearman => "gearman",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub peer: Peer,
    pub address: SocketAddr,
    pub connections: usize,
    pub depth: usize,
    pub size: usize,
    pub duration_us: u64,
    pub durable: bool,
    pub bodies: Bodies,
    /// The name of the one queue, of this run alone.
    pub queue: String,
}

impl Plan {
    /// Makes the plan.
    pub fn new(options: &Options) -> Plan {
        // Different enough from run to run to tell their messages apart; nothing secret.
        let run = (monotonic_us() as u32) ^ std::process::id().rotate_left(16);
        let size = (options.size as usize).max(STAMP_BYTES);
        Plan {
            peer: options.peer,
            address: options.address,
            connections: options.connections as usize,
            depth: options.depth as usize,
            size,
            duration_us: (options.duration.max(0.0) * 1e6) as u64,
            durable: options.durable,
            bodies: Bodies::new(run, size),
            queue: format!("bench-{run:08x}"),
        }
    }
}
