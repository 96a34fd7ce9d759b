#!/usr/bin/env python3
"""Rows 15 and 16: no descriptors and no threads left. The daemon neither spins nor floods its log
nor dies; who is connected is served on, and room that comes back is used."""

import os
import resource
import socket
import time

from daemon import Daemon, Others, eventually, figure, finish, folder, promise

SECONDS = 2


def crowd(port, count):
    found = []
    for _ in range(count):
        peer = socket.socket()
        peer.settimeout(2)
        try:
            peer.connect(("127.0.0.1", port))
            found.append(peer)
        except OSError:
            peer.close()
    return found


def run(what, daemon, count):
    promise(daemon.ready(), f"{what}: starts")
    first = daemon.connect()
    promise(first.put(b"a").startswith("INSERTED"), f"{what}: serves")
    others = Others(daemon)
    peers = crowd(daemon.ports["beanstalk"], count)
    cpu, log = daemon.cpu_seconds(), len(daemon.log())
    time.sleep(SECONDS)
    figure(f"{what}: CPU % while exhausted, with what others ask for",
           round(100 * (daemon.cpu_seconds() - cpu) / SECONDS, 1))
    figure(f"{what}: log bytes in {SECONDS} s", len(daemon.log()) - log)
    promise(daemon.is_alive(), f"{what}: is alive")
    # Whoever spins takes a whole processor.
    promise(daemon.cpu_seconds() - cpu < 0.3 * SECONDS, f"{what}: does not spin")
    promise(len(daemon.log()) - log < 10_000, f"{what}: does not flood its log")
    began = time.monotonic()
    promise(first.put(b"b").startswith("INSERTED"), f"{what}: who is connected is served")
    figure(f"{what}: ms for that", round(1000 * (time.monotonic() - began), 2))
    others.end_of_harm()
    for peer in peers:
        peer.close()
    before, during, _ = others.report(what)
    promise(during < 50 + 20 * before, f"{what}: others are served as before")

    def served():
        try:
            peer = daemon.connect()
            return peer.put(b"c").startswith("INSERTED")
        except OSError:
            return False

    figure(f"{what}: seconds until others are served",
           eventually(f"{what}: room is used again", served))
    promise(daemon.stop() == 0, f"{what}: stops in order")


def descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


run("64 descriptors", Daemon(folder(), limits="max_connections = 40", before=descriptors), 100)
run("64 descriptors, unaware", Daemon(folder(), before=descriptors), 100)

PIDS = "/sys/fs/cgroup/pids"
if os.geteuid() == 0 and os.path.isdir(PIDS) and os.access(PIDS, os.W_OK):
    group = f"{PIDS}/phpmq-fault-{os.getpid()}"
    os.mkdir(group)
    try:
        with open(f"{group}/pids.max", "w") as file:
            file.write("100")

        def in_group():
            with open(f"{group}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))

        run("100 threads (pids.max)", Daemon(folder(), before=in_group), 300)
    finally:
        eventually("the group is empty", lambda: not open(f"{group}/cgroup.procs").read(), 10)
        os.rmdir(group)
else:
    print("skipped: pids.max needs root and the pids controller of control groups version 1")

if os.geteuid() == 0:
    nobody = 65534
    directory = folder()
    os.chmod(directory, 0o777)

    def few_threads():
        resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
        os.setgid(nobody)
        os.setuid(nobody)

    run("100 threads (RLIMIT_NPROC)", Daemon(directory, before=few_threads), 300)
finish()
