#!/usr/bin/env python3
"""Row 2: power cuts under the running daemon, in the place of LazyFS where that can not be had.

A library loaded before the C library (record.c, built here with gcc) writes down what the daemon
does to its files. After kill -9 the files are made anew as a disk might have them: what was synced,
and of the rest each sector kept, dropped or torn at random, and a part of the changes of names.
The next life begins on that.

At level sync nothing confirmed may be lost; at the others only what is younger than the tick and
two commits, and nothing after an idle second. A disk that lies about syncs must be caught.

`--cycles N` cuts so often at level sync (50). Needs gcc; no root."""

import argparse
import os
import random
import struct
import subprocess
import threading
import time

from daemon import TOP, Daemon, Ledger, figure, finish, folder, need, promise

need("gcc")
arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--cycles", type=int, default=50)
arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
arguments = arguments.parse_args()
chance = random.Random(arguments.seed)
figure("seed", arguments.seed)
SECTOR = 512
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
LIBRARY = os.path.join(folder(), "record.so")
subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", LIBRARY,
                os.path.join(TOP, "tests/faults/record.c"), "-ldl"], check=True)


class File:
    def __init__(self, synced=b""):
        self.synced, self.since = bytearray(synced), []

    def sync(self):
        for kind, position, data in self.since:
            self.apply(self.synced, kind, position, data)
        self.since = []

    @staticmethod
    def apply(content, kind, position, data):
        if kind == "T":
            del content[position:]
            content.extend(bytes(position - len(content)))
        else:
            content.extend(bytes(max(0, position - len(content))))
            content[position:position + len(data)] = data

    def left(self, percent):
        content = bytearray(self.synced)
        for kind, position, data in self.since:
            if kind == "T":
                if chance.randrange(100) < percent:
                    self.apply(content, kind, position, data)
                continue
            at = position
            while at < position + len(data):
                end = min(position + len(data), (at // SECTOR + 1) * SECTOR)
                part = data[at - position:end - position]
                if chance.randrange(10) == 0:
                    part = part[:chance.randrange(len(part))]
                elif chance.randrange(100) >= percent:
                    part = b""
                if part:
                    self.apply(content, "W", at, part)
                at = end
        return content


def after_the_cut(before, record, lying):
    """The files as the disk may have them, from what it had and what was noted since."""
    names = {name: File(content) for name, content in before.items()}
    synced_names, changes, by_number = dict(names), [], {}
    directory = object()
    with open(record, "rb") as file:
        noted = file.read()
    at = 0
    while at + 40 <= len(noted):
        kind, number, position, name_length, length = struct.unpack_from("=5Q", noted, at)
        kind = chr(kind)
        name = noted[at + 40:at + 40 + name_length].decode()
        at += 40 + name_length
        data = noted[at:at + length]
        if len(data) < length:
            break
        at += length
        if kind in "ON" and name == "":
            by_number[number] = directory
        elif kind == "N":
            by_number[number] = names[name] = File()
            changes.append(("add", name, names[name]))
        elif kind == "O":
            by_number[number] = names[name]
        elif kind == "R":
            names[data.decode()] = names.pop(name)
            changes.append(("rename", name, data.decode()))
        elif kind == "U":
            names.pop(name, None)
            changes.append(("remove", name, None))
        elif kind in "WT":
            by_number[number].since.append((kind, position, data))
        elif kind == "S" and not lying:
            if by_number[number] is directory:
                synced_names, changes = dict(names), []
            else:
                by_number[number].sync()
    for what, name, other in changes[:chance.randrange(len(changes) + 1)]:
        if what == "add":
            synced_names[name] = other
        elif what == "remove":
            synced_names.pop(name, None)
        elif name in synced_names:
            synced_names[other] = synced_names.pop(name)
    percent = chance.choice((1, 20, 50, 80, 99))
    return {name: file.left(percent) for name, file in synced_names.items()}


class Disk:
    """The daemon's files, from one life to the next."""

    def __init__(self, level, lying=False):
        self.level, self.lying, self.files = level, lying, {}

    def live(self, serve):
        """One life, which ends with the power; False when the daemon does not start."""
        directory = folder(MEMORY)
        for name, content in self.files.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)
        record = os.path.join(folder(MEMORY), "record")
        daemon = Daemon(
            directory, f'durability = "{self.level}"\nmin_free_disk = "0B"',
            environment={"LD_PRELOAD": LIBRARY, "PHPMQ_RECORD": record,
                         "PHPMQ_RECORD_BELOW": directory})
        if not daemon.ready():
            self.why = daemon.log()
            return False
        serve(daemon)
        daemon.kill()
        self.files = after_the_cut(self.files, record, self.lying)
        subprocess.run(["rm", "-rf", directory, os.path.dirname(record)], check=True)
        return True


class Work:
    """Producers and a consumer, until they are stopped or the daemon has gone."""

    def __init__(self, ledger):
        self.ledger, self.times = ledger, {}

    def produce(self, daemon):
        try:
            peer = daemon.connect()
            while True:
                name = self.ledger.next
                self.ledger.put(peer, 200)
                self.times[name] = time.monotonic()
        except (OSError, ValueError):
            pass

    def consume(self, daemon):
        try:
            peer = daemon.connect()
            while True:
                if not self.ledger.work(peer):
                    time.sleep(0.002)
        except (OSError, ValueError):
            pass

    def serve(self, daemon):
        threads = [threading.Thread(target=self.produce, args=(daemon,), daemon=True)
                   for _ in range(3)]
        threads.append(threading.Thread(target=self.consume, args=(daemon,), daemon=True))
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.05, 0.3))
        self.ended = time.monotonic()
        daemon.kill()
        for thread in threads:
            thread.join()


def cut_at_level_sync(cycles):
    disk, ledger = Disk("sync"), Ledger()
    for cycle in range(cycles):
        if not disk.live(Work(ledger).serve):
            promise(False, f"sync: starts after cut {cycle}\n{disk.why}")
            return
    left = []
    disk.live(lambda daemon: left.extend(ledger.drain(daemon.connect())))
    ledger.judge(left, f"sync, {cycles} cuts")


def cut_at_level(level, cycles):
    lost_at_all, oldest = 0, 0.0
    for cycle in range(cycles):
        disk, ledger, left = Disk(level), Ledger(), []
        work = Work(ledger)
        disk.live(work.serve)
        if not disk.live(lambda daemon: left.extend(ledger.drain(daemon.connect()))):
            promise(False, f"{level}: starts after cut {cycle}\n{disk.why}")
            return
        lost = ledger.confirmed.keys() - set(left) - ledger.doing
        lost_at_all += len(lost)
        oldest = max([oldest, *(work.ended - work.times.get(name, work.ended) for name in lost)])
    figure(f"{level}, {cycles} cuts: lost in all, age of the oldest in ms",
           (lost_at_all, round(oldest * 1000)))
    # The tick of 50 ms, the commit under way and its own, on a busy machine.
    promise(oldest < 0.5, f"{level}: only the last moment is lost")


def cut_after_an_idle_second(level):
    disk, ledger, left = Disk(level), Ledger(), []

    def serve(daemon):
        peer = daemon.connect()
        for _ in range(50):
            ledger.put(peer)
        time.sleep(1)

    disk.live(serve)
    disk.live(lambda daemon: left.extend(ledger.drain(daemon.connect())))
    ledger.judge(left, f"{level}, after an idle second")


def a_lying_disk_is_caught():
    for _ in range(20):
        disk, ledger, left = Disk("sync", lying=True), Ledger(), []
        disk.live(Work(ledger).serve)
        if not disk.live(lambda daemon: left.extend(ledger.drain(daemon.connect()))):
            break
        if ledger.confirmed.keys() - set(left) - ledger.doing:
            break
    else:
        promise(False, "a disk that lies about syncs is caught")
        return
    promise(True, "a disk that lies about syncs is caught")


cut_at_level_sync(arguments.cycles)
for level in ("write", "periodic"):
    cut_at_level(level, max(5, arguments.cycles // 5))
    cut_after_an_idle_second(level)
a_lying_disk_is_caught()
finish()
