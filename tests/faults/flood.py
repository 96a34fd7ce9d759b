#!/usr/bin/env python3
"""Row 14: a flood of connections. 20,000 connects from four addresses: those over the limit are
refused in words, and who is connected is served as before.

`--connects N` makes another number of them. No root."""

import argparse
import multiprocessing
import resource
import selectors
import socket
import time

from daemon import Daemon, Others, figure, finish, folder, promise

arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--connects", type=int, default=20_000)
arguments = arguments.parse_args()
LIMIT = 500

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
others = Others(daemon)
flood_begins = time.monotonic()
# In a process of its own, so that it does not slow down the clock of the others.
results, far_end = multiprocessing.Pipe()
flooding = multiprocessing.get_context("fork").Process(
    target=flood, args=(daemon.ports["beanstalk"], far_end))
flooding.start()
refused, closed = results.recv()
flood_ends = time.monotonic()
others.end_of_harm()
log_bytes = len(daemon.log())
results.send("the end")
flooding.join()
before, during, after = others.report("flood")
memory_before, memory_during = others.memory[:2]
figure("connects, seconds", (arguments.connects, round(flood_ends - flood_begins, 1)))
figure("refused in words, closed during the flood", (refused, closed))
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
