#!/usr/bin/env python3
"""Row 14: a flood of connections. 20,000 connects from four addresses: those over the limit are
refused in words, and who is connected is served as before.

`--connects N` makes another number of them. No root."""

import argparse
import multiprocessing
import resource
import selectors
import socket
import threading
import time

from daemon import Daemon, Ledger, figure, finish, folder, percentile, promise

arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--connects", type=int, default=20_000)
arguments = arguments.parse_args()
LIMIT = 500

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Steady(threading.Thread):
    """A client that puts and deletes one message after the other and notes how long it takes."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.peer, self.times, self.over = daemon.connect(), [], False
        self.ledger = Ledger()

    def run(self):
        while not self.over:
            began = time.monotonic()
            self.ledger.put(self.peer)
            self.ledger.work(self.peer)
            self.times.append((began, time.monotonic() - began))

    def between(self, begin, end):
        return [taken for at, taken in self.times if begin <= at < end]


def flood(port, results):
    """Connects and listens for what is said: how many were refused in words, and closed."""
    refused, closed, open_peers = 0, 0, []
    selector = selectors.DefaultSelector()
    for number in range(arguments.connects):
        peer = socket.socket()
        peer.bind((f"127.0.0.{2 + number % 4}", 0))
        try:
            peer.settimeout(5)
            peer.connect(("127.0.0.1", port))
        except OSError:
            peer.close()
            continue
        peer.setblocking(False)
        selector.register(peer, selectors.EVENT_READ)
        open_peers.append(peer)
        for key, _ in selector.select(0):
            try:
                said = key.fileobj.recv(100)
            except OSError:
                said = b""
            refused += said != b""
            closed += said == b""
            if not said:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    results.send((refused, closed))
    results.recv()


daemon = Daemon(folder(), limits=f"max_connections = {LIMIT}")
promise(daemon.ready(), "starts")
steady = Steady(daemon)
steady.start()
start = time.monotonic()
time.sleep(2)
memory_before = daemon.memory_bytes()
flood_begins = time.monotonic()
# In a process of its own, so that it does not slow down the clock of the steady client.
results, far_end = multiprocessing.Pipe()
flooding = multiprocessing.get_context("fork").Process(
    target=flood, args=(daemon.ports["beanstalk"], far_end))
flooding.start()
refused, closed = results.recv()
flood_ends = time.monotonic()
memory_during = daemon.memory_bytes()
log_bytes = len(daemon.log())
results.send("the end")
flooding.join()
time.sleep(2)
end = time.monotonic()
steady.over = True
steady.join(10)
before, during, after = (
    percentile(steady.between(*span), 99) * 1000
    for span in ((start, flood_begins), (flood_begins, flood_ends), (flood_ends, end)))
figure("connects, seconds", (arguments.connects, round(flood_ends - flood_begins, 1)))
figure("refused in words, closed during the flood", (refused, closed))
figure("p99 in ms of put, reserve and delete before, during, after",
       tuple(round(value, 2) for value in (before, during, after)))
figure("cycles before, during, after", tuple(len(steady.between(*span)) for span in (
    (start, flood_begins), (flood_begins, flood_ends), (flood_ends, end))))
figure("resident MB before, during", (memory_before >> 20, memory_during >> 20))
figure("log bytes", log_bytes)
promise(daemon.is_alive(), "is alive")
promise(closed > arguments.connects // 2, "those over the limit are closed")
promise(refused > 0, "and told so")
# The machine is busy with the flood itself, so the bound is a wide one.
promise(during < 50 + 20 * before, "who is connected is served as before")
promise(memory_during - memory_before < 64 << 20, "memory stays bounded")
promise(log_bytes < 20_000, "the log stays short")
promise(daemon.connect().put(b"x").startswith("INSERTED"), "others are served afterwards")
daemon.kill()
finish()
