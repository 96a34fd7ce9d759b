"""The same work with much standing by: messages, queues, idle connections.

Two servers of ours run side by side for a row, one empty and one not, and take turns at the load.
What stands by is not what the load uses: it must cost nothing.
"""

import contextlib

from lib.fill import fill, fill_queues, idle_connections
from lib.load import bench
from lib.row import Row, alternate
from lib.servers import start_ours

LOAD = "-w cycle -c 10 -d 100"
STEADY = "-w pass -d 100 -r 20000"


def throughput(options, server):
    def run(figures):
        told = bench(options, server, LOAD, options.seconds)
        figures.add(told["per_second"], told["cpu_us"])
    return run


def beside_empty(stand_by):
    """Measures with what `stand_by(options, server)` holds against nothing."""
    def measure(options):
        with start_ours(options, "periodic") as full, start_ours(options, "periodic") as empty:
            with stand_by(options, full):
                return alternate(options, throughput(options, full), throughput(options, empty))
    return measure


@contextlib.contextmanager
def messages(options, server):
    fill(options, server, 10_000_000)
    yield


@contextlib.contextmanager
def queues(_options, server):
    fill_queues(server, 100_000)
    yield


def connections(_options, server):
    return idle_connections(server, 3_500)


def steady_latency(options, server):
    """A function that makes one run: p99.9 in microseconds at 20,000 messages a second."""
    def run(figures):
        told = bench(options, server, STEADY, 2 * options.seconds)
        figures.add(told["p99_9_us"], told["cpu_us"])
    return run


def latency(level, count):
    """With the file being written, against no file; the same messages are queued in both."""
    def measure(options):
        standing = count // 5 if options.quick else count
        with start_ours(options, level) as full, start_ours(options, "memory") as empty:
            fill(options, full, standing)
            fill(options, empty, standing)
            return alternate(options, steady_latency(options, full),
                             steady_latency(options, empty))
    return measure


ROWS = [
    Row("cycle, 10 connections x 100, 10 million messages queued", "periodic",
        beside_empty(messages), 0.9, other="ours, empty", quick=False),
    Row("cycle, 10 connections x 100, 100,000 queues", "periodic", beside_empty(queues), 0.9,
        other="ours, empty"),
    Row("cycle, 10 connections x 100, 3,500 idle connections", "periodic",
        beside_empty(connections), 0.9, other="ours, empty"),
    Row("p99.9 at 20,000 messages/s, 1 million queued", "periodic",
        latency("periodic", 1_000_000), 2.0, unit="us", lower_is_better=True,
        other="ours, no file"),
]
