"""What stands in a server while something else is measured: messages, queues, idle connections."""

import contextlib
import resource
import socket
import time

from lib.load import bench
from lib.row import Failed

# Where standing messages are: no other load goes there.
STANDING = "standing"


def fill(options, server, count, size=100):
    """Puts messages and leaves them there."""
    bench(options, server, f"-w put -c 10 -d 100 -s {size} -n {count} --queue {STANDING}")
    settle(server)


def fill_queues(server, count):
    """Makes so many queues with a message in each, through one connection of many commands."""
    at_once = 1000
    with socket.create_connection(("127.0.0.1", server.ports["beanstalk"])) as peer:
        answers = peer.makefile("rb")
        for start in range(0, count, at_once):
            names = range(start, min(start + at_once, count))
            peer.sendall(b"".join(b"use standing-%d\r\nput 1024 0 600 1\r\nx\r\n" % name
                                  for name in names))
            for name in names:
                told = answers.readline() + answers.readline()
                if not told.startswith(b"USING standing-%d\r\nINSERTED " % name):
                    raise Failed(f"the server answered {told!r}")
    settle(server)


def settle(server, quiet_seconds=0.3, longest_seconds=60):
    """Waits until the server has nothing left to do."""
    deadline = time.monotonic() + longest_seconds
    before = server.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(quiet_seconds)
        now = server.cpu_seconds()
        if now - before <= 0.01:
            return
        before = now


@contextlib.contextmanager
def idle_connections(server, count):
    """Holds so many connections, each of which has asked for something once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, hard), hard))
    address = ("127.0.0.1", server.ports["beanstalk"])
    with contextlib.ExitStack() as held:
        for _ in range(count):
            peer = held.enter_context(socket.create_connection(address, 10))
            peer.sendall(b"list-tube-used\r\n")
            if peer.recv(100) != b"USING default\r\n":
                raise Failed("the server has no room for an idle connection")
        settle(server)
        yield
