"""How long a start takes with a million messages on the disk."""

import socket
import time

from lib.fill import fill
from lib.row import Failed, Row, alternate
from lib.servers import new_folder, start_beanstalkd, start_ours

MESSAGES = 1_000_000
LONGEST_SECONDS = 120


def first_answer(server, started):
    """Seconds from `started` to the first answer; beanstalkd accepts long before it answers."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", server.ports["beanstalk"]), 1) as peer:
                peer.settimeout(LONGEST_SECONDS)
                peer.sendall(b"stats-tube standing\r\n")
                told = peer.makefile("rb").readline()
            taken = time.monotonic() - started
            if not told.startswith(b"OK "):
                raise Failed(f"{server.name} has lost the queue: {told!r}")
            return taken
        except OSError:
            if time.monotonic() - started > LONGEST_SECONDS:
                raise Failed(f"{server.name} does not answer") from None
            time.sleep(0.002)


class Restarts:
    """A server that is filled once and started again for each run."""

    def __init__(self, start, options, how_it_ends):
        self.start, self.options = start, options
        self.how_it_ends = how_it_ends
        self.folder = new_folder(options)
        self.server = start(options, "write", folder=self.folder)
        fill(options, self.server, MESSAGES)

    def run(self, figures):
        self.how_it_ends(self.server)
        started = time.monotonic()
        self.server = self.start(self.options, "write", folder=self.folder, wait_seconds=0)
        seconds = first_answer(self.server, started)
        figures.add(seconds, self.server.cpu_seconds() * 1e6 / MESSAGES)


def restart(how_it_ends):
    def measure(options):
        ours = Restarts(start_ours, options, how_it_ends)
        try:
            theirs = Restarts(start_beanstalkd, options, how_it_ends)
            try:
                return alternate(options, ours.run, theirs.run)
            finally:
                theirs.server.end()
        finally:
            ours.server.end()
    return measure


ROWS = [
    Row("restart with 1 million messages", "write", restart(lambda server: server.stop()), 0.5,
        unit="s", lower_is_better=True, quick=False),
    Row("restart after kill -9 with 1 million messages", "write",
        restart(lambda server: server.kill()), 0.5, unit="s", lower_is_better=True, quick=False),
]
