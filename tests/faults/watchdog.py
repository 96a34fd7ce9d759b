#!/usr/bin/env python3
"""Row 31: the service manager hears WATCHDOG=1 only while both the dispatcher and persistence make
progress. Each is made to hang by strace, which holds one of its system calls; the pings must stop.

Needs strace and the right to trace a running process (root, mostly)."""

import os
import socket
import subprocess
import time

from daemon import Daemon, figure, finish, folder, need, promise

need("strace")
INTERVAL_S = 1


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def pings_within(self, seconds):
        """How many pings come, and how long after the beginning the last one did."""
        began, count, last = time.monotonic(), 0, 0.0
        while (left := began + seconds - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if b"WATCHDOG=1" in self.socket.recv(1000):
                    count, last = count + 1, time.monotonic() - began
            except socket.timeout:
                break
        return count, last


def hang(thread, calls):
    """Holds the next of these calls of a thread for two minutes."""
    tracer = subprocess.Popen(
        ["strace", "-qq", "-o", "/dev/null", "-p", str(thread), "-e", f"trace={calls}",
         "-e", f"inject={calls}:delay_enter=120000000"])
    while True:
        with open(f"/proc/{thread}/status") as file:
            if f"TracerPid:\t{tracer.pid}\n" in file.read():
                return tracer


def run(name, calls):
    directory = folder()
    manager = Manager(directory)
    daemon = Daemon(directory, 'min_free_disk = "0B"', environment={
        "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": str(INTERVAL_S * 1_000_000)})
    promise(daemon.ready(), f"{name}: starts")
    pings, _ = manager.pings_within(3 * INTERVAL_S)
    promise(pings >= 3, f"{name}: pings come while all is well ({pings})")
    tracer = hang(daemon.threads()[name], calls)
    try:
        # Something to do, so that both threads have to move.
        peer = daemon.connect()
        peer.say(b"put 0 0 60 1\r\na\r\n")
        pings, last = manager.pings_within(6 * INTERVAL_S)
        figure(f"{name}: pings after it hangs, the last after s", (pings, round(last, 2)))
        promise(last < 3 * INTERVAL_S, f"{name}: pings stop when it hangs")
    finally:
        tracer.kill()
        tracer.wait()
        daemon.kill()


run("persistence", "fsync,fdatasync,pwrite64")
run("dispatcher", "futex,sendto")
finish()
