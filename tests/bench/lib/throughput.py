"""Messages a second, against beanstalkd at the same durability."""

from lib.load import bench
from lib.row import Row, alternate
from lib.servers import start_beanstalkd, start_ours


def throughput(start, options, level, words):
    """A function that makes one run on a fresh server."""
    def run(figures):
        with start(options, level) as server:
            told = bench(options, server, words, options.seconds)
            figures.add(told["per_second"], told["cpu_us"])
    return run


def against_beanstalkd(level, words):
    def measure(options):
        return alternate(options, throughput(start_ours, options, level, words),
                         throughput(start_beanstalkd, options, level, words))
    return measure


def row(name, level, words, goal, quick=True, **more):
    return Row(name, level, against_beanstalkd(level, words), goal, quick=quick, **more)


def phpmq_beside_beanstalk(options):
    """php-mq has no peer: beside it stands our own figure for the beanstalk protocol."""
    return alternate(options,
                     throughput(start_ours, options, "periodic", "-p phpmq -w pass -d 1000"),
                     throughput(start_ours, options, "periodic", "-w cycle -c 10 -d 100"))


ROWS = [
    row("cycle, 10 connections x 100", "periodic", "-w cycle -c 10 -d 100", 8.0),
    row("put, 10 connections x 100", "periodic", "-w put -c 10 -d 100", 8.0),
    row("cycle, 50 connections, one at a time", "periodic", "-w cycle -c 50", 1.1, cpu_goal=0.9),
    row("cycle, 10 connections, one at a time", "periodic", "-w cycle -c 10", 1.0),
    row("cycle, 1 connection, one at a time", "periodic", "-w cycle -c 1", 0.9),
    row("cycle, 50 connections, one at a time", "write", "-w cycle -c 50", 1.2),
    row("cycle, 1 connection, one at a time", "write", "-w cycle -c 1", 0.7),
    row("cycle, 50 connections, one at a time", "sync", "-w cycle -c 50", 5.0),
    row("cycle, 1 connection, one at a time", "sync", "-w cycle -c 1", 0.9, quick=False),
    row("connect, put, close, 8 clients", "periodic", "-w connect -c 8", 1.0),
    row("poll, 1,000 connections", "periodic", "-w poll -c 1000", 1.0),
    row("cycle, 10 connections, 65,535 bytes", "periodic", "-w cycle -c 10 -s 65535", 1.5),
    row("cycle, 10 connections x 100", "memory", "-w cycle -c 10 -d 100", 8.0, quick=False),
    row("cycle, 50 connections, one at a time", "memory", "-w cycle -c 50", 1.1, cpu_goal=0.9,
        quick=False),
    Row("php-mq, send + dispatch + acknowledge", "periodic", phpmq_beside_beanstalk, 0.8,
        enough=400_000, other="our beanstalk"),
]
