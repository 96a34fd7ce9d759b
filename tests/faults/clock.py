#!/usr/bin/env python3
"""Row 23: the wall clock is set while the daemon runs, or is behind when it starts. Delays and
times to live last as long as was asked for, over stops and kills; time goes on while no daemon
runs, and never goes back.

A library loaded before the C library (wall.c, built here with gcc) makes the daemon's wall clock;
the system's is not touched. No root."""

import os
import re
import socket
import struct
import subprocess
import time

from daemon import TOP, Daemon, eventually, figure, finish, folder, need, promise

need("gcc")
LIBRARY = os.path.join(folder(), "wall.so")
subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", LIBRARY,
                os.path.join(TOP, "tests/faults/wall.c")], check=True)
HOUR, YEAR = 3600, 365 * 24 * 3600
# What a step may leave unnoticed, and what the figures are rounded by, in seconds.
BOUND = 2.5


class Clocked:
    """A daemon whose wall clock is set at will, with a job and a message that are due in an hour."""

    def __init__(self, ahead=0):
        directory = folder()
        self.file = os.path.join(directory, "wall")
        with open(self.file, "wb") as file:
            file.write(struct.pack("=q", ahead))
        self.began = time.monotonic()
        self.daemon = Daemon(directory, 'min_free_disk = "0B"', environment={
            "LD_PRELOAD": LIBRARY, "PHPMQ_WALL": self.file})
        promise(self.daemon.ready(), "starts")
        self.passed = 0.0
        self.worst = 0.0

    def put(self):
        peer = self.daemon.connect()
        peer.say(f"put 0 {HOUR} 60 1\r\nx\r\n")
        peer.line()
        self.began = time.monotonic()
        self.passed = 0.0
        peer.close()

    def send_mortal(self, queue, seconds):
        """A php-mq message with a time to live, and waits until it is there."""
        packets = [(1, queue), (2, "x"), (5, str(seconds))]
        text = f"H01001{len(packets):02}"
        text += "".join(f"P{kind:02}{len(content):029}{content}" for kind, content in packets)
        with socket.create_connection(("127.0.0.1", self.daemon.ports["phpmq"])) as peer:
            peer.sendall(text.encode())
            eventually("the message is there", lambda: self.ready_in(queue) == 1)
        # It is committed with the tick: nobody was told before.
        time.sleep(0.3)

    def ready_in(self, queue):
        peer = self.daemon.connect()
        answer = peer.ask(f"stats-tube {queue}").split()
        found = 0
        if answer[0] == "OK":
            text = peer.input.read(int(answer[1]) + 2).decode()
            found = int(re.search(r"current-jobs-ready: (\d+)", text).group(1))
        peer.close()
        return found

    def job(self):
        peer = self.daemon.connect()
        answer = peer.ask("stats-job 1").split()
        text = peer.input.read(int(answer[1]) + 2).decode()
        peer.close()
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def set(self, ahead):
        """The wall clock is so far ahead of the system's from now on."""
        with open(self.file, "r+b") as file:
            file.write(struct.pack("=q", ahead))

    def is_noticed(self, times):
        """The daemon has seen so many steps, and has had the time of a tick to write the last."""
        noticed = eventually("the step is noticed", lambda: self.daemon.log().count(
            "the wall clock was set") >= times)
        time.sleep(0.3)
        return noticed

    def check(self, what, late=0.0):
        """The delay is what was promised; so much later at most where time was lost."""
        left = HOUR - self.passed - (time.monotonic() - self.began)
        found = self.job()
        shown = float(found["time-left"]) if found["state"] == "delayed" else -1.0
        self.worst = max(self.worst, abs(shown - left) - late)
        promise(left - BOUND <= shown <= left + BOUND + late,
                f"{what}: {shown} s are left ({left:.1f})")
        promise(self.ready_in("mortal") == 1, f"{what}: the message with a time to live is there")

    def restart(self, how):
        if how == "stop":
            promise(self.daemon.stop() == 0, "ends in order")
        else:
            self.daemon.kill()
        promise(self.daemon.again(), "starts again")


def steps(how):
    """Forward by decades, as when a board gets the time; back; and again."""
    clocked = Clocked()
    clocked.put()
    clocked.send_mortal("mortal", HOUR)
    noticed = []
    for ahead in (YEAR, -50 * YEAR, 40, 0, 30 * YEAR):
        clocked.set(ahead)
        noticed.append(clocked.is_noticed(1))
        clocked.check(f"{how}: set to {ahead:+} s")
        clocked.restart(how)
        clocked.check(f"{how}: set to {ahead:+} s and started again")
    figure(f"{how}: worst error in s", f"{clocked.worst:.2f}")
    figure(f"{how}: s until a step was noticed, at most", f"{max(noticed):.2f}")
    clocked.daemon.kill()


def board_without_a_clock(how):
    """It starts in 1970 each time and gets the time later."""
    now = int(time.time())
    clocked = Clocked(-now)
    clocked.put()
    clocked.send_mortal("mortal", HOUR)
    clocked.set(0)
    clocked.is_noticed(1)
    for boot in range(3):
        if how == "stop":
            clocked.daemon.stop()
        else:
            clocked.daemon.kill()
        clocked.set(-now)
        promise(clocked.daemon.again(), "starts again")
        promise("the wall clock is behind" in clocked.daemon.log(), "it says so")
        # What is not known is the time that it was down, a second here.
        late = 2.0 * (boot + 1)
        clocked.check(f"{how}: boot {boot} without the time", late)
        clocked.set(0)
        clocked.is_noticed(1)
        clocked.check(f"{how}: boot {boot} with the time", late)
    figure(f"{how}: worst error in s, without what is not known", f"{clocked.worst:.2f}")
    clocked.daemon.kill()


def time_goes_on(how):
    """A control: what passes while no daemon runs does count."""
    clocked = Clocked()
    clocked.put()
    clocked.send_mortal("mortal", HOUR)
    if how == "stop":
        clocked.daemon.stop()
    else:
        clocked.daemon.kill()
    clocked.set(HOUR // 2)
    clocked.passed += HOUR // 2
    clocked.daemon.again()
    clocked.check(f"{how}: half an hour later")
    clocked.daemon.stop()
    clocked.set(2 * HOUR)
    clocked.daemon.again()
    promise(clocked.job()["state"] == "ready", f"{how}: two hours later the delay is over")
    promise(clocked.ready_in("mortal") == 0, f"{how}: and so is the time to live")
    clocked.daemon.kill()


for way in ("stop", "kill"):
    steps(way)
    board_without_a_clock(way)
    time_goes_on(way)
finish()
