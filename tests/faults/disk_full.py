#!/usr/bin/env python3
"""Row 5: the disk is full to its last byte. Puts are refused, everything else goes on to the end:
messages are handed out, deleted, released, buried and kicked, each with its answer; the daemon stops
in order, starts again with no byte free, and goes on by itself when there is room.

Small disks are mounted in a mount namespace of our own: a tmpfs, and an ext4 on a loop device where
that can be had. Root is needed, nothing outside is touched. Another program fills the disk: once, or
it goes on and takes each byte that becomes free.

    disk_full.py [PHPMQD] [--full]

Without --full some of the combinations of level, size of message, disk and filler."""

import itertools
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import time

from daemon import (
    Daemon, Ledger, REFUSALS_MANY, body_of, eventually, figure, finish, folder, name_of, need_root,
    promise, put_until_refused,
)

need_root()
if os.environ.get("PHPMQ_FAULT_INSIDE") != "yes":
    os.environ["PHPMQ_FAULT_INSIDE"] = "yes"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])

MEGABYTES = 140
BACKLOG_BYTES = 25_000_000
LEVELS = ("periodic", "write", "sync")
SIZES = (100, 1_000, 20_000, 200_000, 1_000_000)
PIPELINE = 200
# More than a tick, so that what level `periodic` has confirmed is in the file.
TICKS = 0.5
# More than a busy machine takes to commit that everything was moved, in many parts.
QUIET = 3


class Disk:
    """A small file system, and whoever fills it."""

    def __init__(self, kind, megabytes=MEGABYTES, inodes=None):
        self.path = folder()
        self.image = None
        self.filler = None
        if kind == "ext4":
            self.image = os.path.join(folder(), "image")
            with open(self.image, "wb") as file:
                file.truncate(megabytes * 2**20)
            number = ["-N", str(inodes)] if inodes else []
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", *number, self.image], check=True)
            subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)
        else:
            size = f"size={megabytes}m" + (f",nr_inodes={inodes}" if inodes else "")
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.path], check=True)

    def fill(self, goes_on):
        """Takes the rest of the disk, to the last byte."""
        self._take()
        if goes_on:
            fork = multiprocessing.get_context("fork")
            self.filler = fork.Process(target=self._go_on, daemon=True)
            self.filler.start()

    def _take(self):
        """Appends until nothing more fits. The last bytes count: hence smaller and smaller pieces."""
        path = os.path.join(self.path, "foreign")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        size = 1 << 20
        while size:
            try:
                os.write(descriptor, b"x" * size)
            except OSError:
                size //= 2
        os.close(descriptor)

    def _go_on(self):
        while True:
            self._take()
            time.sleep(0.0005)

    def _stop_filling(self):
        if self.filler:
            self.filler.kill()
            self.filler.join()
            self.filler = None

    def fill_inodes(self):
        """Takes every inode."""
        os.mkdir(os.path.join(self.path, "inodes"))
        try:
            for number in itertools.count():
                open(os.path.join(self.path, "inodes", str(number)), "w").close()
        except OSError:
            pass

    def free_inodes(self):
        shutil.rmtree(os.path.join(self.path, "inodes"))

    def free(self):
        """Room again."""
        self._stop_filling()
        os.unlink(os.path.join(self.path, "foreign"))

    def gone(self):
        self._stop_filling()
        subprocess.run(["umount", self.path], check=True)
        if self.image:
            os.unlink(self.image)


def can_mount_ext4():
    if shutil.which("mkfs.ext4") is None:
        return False
    try:
        Disk("ext4", 20).gone()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def settle(daemon):
    """Waits until what level `periodic` has confirmed is in the file, which is not written to then."""
    peer, last, since = daemon.connect(), None, time.monotonic()
    while time.monotonic() - since < QUIET:
        written = peer.statistics()["binlog-records-written"]
        if written != last:
            last, since = written, time.monotonic()
        time.sleep(0.05)
    peer.close()


def put_many(ledger, peer, count, size):
    """Puts so many, a few at a time."""
    for begin in range(0, count, PIPELINE):
        names = range(ledger.next, ledger.next + min(PIPELINE, count - begin))
        ledger.next = names.stop
        ledger.sent.update(names)
        bodies = [body_of(name, size) for name in names]
        peer.say(b"".join(b"put 0 0 600 %d\r\n%s\r\n" % (len(body), body) for body in bodies))
        for name in names:
            answer = peer.line()
            if answer.startswith("INSERTED "):
                ledger.confirmed[name] = int(answer.split()[1])
            else:
                ledger.refused += 1


class Worker:
    """Works on messages, and counts the answers that are no confirmations."""

    def __init__(self, daemon, ledger):
        self.peer, self.ledger, self.strange, self.slowest = daemon.connect(), ledger, {}, 0.0

    def _is(self, answer, expected):
        if answer != expected:
            self.strange[answer] = self.strange.get(answer, 0) + 1
        return answer == expected

    def ask(self, text, expected):
        began = time.monotonic()
        answer = self.peer.ask(text)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return self._is(answer, expected)

    def reserve(self):
        found = self.peer.reserve()
        if found is None:
            return None
        name = name_of(found[1])
        self.ledger.doing.add(name)
        return found[0], name

    def delete_one(self):
        found = self.reserve()
        if found and self.ask(f"delete {found[0]}", "DELETED"):
            self.ledger.done.add(found[1])
        return found is not None

    def put_back_one(self):
        """Released, or buried and kicked."""
        found = self.reserve()
        if not found:
            return
        number, name = found
        if number % 2:
            good = self.ask(f"release {number} 5 0", "RELEASED")
        else:
            good = self.ask(f"bury {number} 5", "BURIED") and self.ask("kick 1", "KICKED 1")
        if good:
            self.ledger.doing.discard(name)

    def move_all(self):
        """Buries everything there is, pipelined, and kicks it."""
        taken = []
        while (found := self.peer.reserve()) is not None:
            taken.append(found[0])
        for begin in range(0, len(taken), PIPELINE):
            part = taken[begin:begin + PIPELINE]
            self.peer.say("".join(f"bury {number} 5\r\n" for number in part))
            for _ in part:
                self._is(self.peer.line(), "BURIED")
        self.ask(f"kick {len(taken)}", f"KICKED {len(taken)}")

    def delete_many(self, count):
        """Several at a time."""
        for _ in range(0, count, PIPELINE):
            self.peer.say("reserve-with-timeout 0\r\n" * PIPELINE)
            taken = []
            for _ in range(PIPELINE):
                answer = self.peer.line().split()
                if answer[0] == "RESERVED":
                    name = name_of(self.peer.input.read(int(answer[2]) + 2)[:-2])
                    taken.append((int(answer[1]), name))
            self.ledger.doing.update(name for _, name in taken)
            self.peer.say("".join(f"delete {number}\r\n" for number, _ in taken))
            for _, name in taken:
                if self._is(self.peer.line(), "DELETED"):
                    self.ledger.done.add(name)
            if len(taken) < PIPELINE:
                return


def filled(level, size, kind, goes_on, min_free):
    """Another program has filled the disk."""
    what = f"{kind}, {level}, {size} B, filled {'on and on' if goes_on else 'once'}, {min_free} free"
    disk = Disk(kind)
    count = min(100_000, BACKLOG_BYTES // (size + 150))
    daemon = Daemon(disk.path, f'durability = "{level}"\nmin_free_disk = "{min_free}"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), count, size)
    time.sleep(TICKS)
    disk.fill(goes_on)

    def works(text, act):
        worker = Worker(daemon, ledger)
        act(worker)
        promise(not worker.strange, f"{what}: {text}: each is confirmed {worker.strange or ''}")
        promise(worker.slowest < 4, f"{what}: {text}: soon ({worker.slowest:.1f} s)")

    def starts(text):
        started = daemon.again()
        promise(started, f"{what}: starts with no byte free {text}")
        if not started:
            print(daemon.process.poll(), daemon.log()[-600:])
            disk.gone()
        return started

    def one_at_a_time(worker):
        for number in range(count // 8):
            worker.delete_one()
            if number % 3 == 0:
                worker.put_back_one()

    works("one at a time", one_at_a_time)
    before = ledger.refused
    put_until_refused(daemon, ledger, daemon.connect(), 20_000, 5_000)
    promise(ledger.refused - before >= REFUSALS_MANY, f"{what}: puts are refused in words")
    works("everything is moved", Worker.move_all)
    works("pipelined", lambda worker: worker.delete_many(count // 8))
    if level == "periodic":
        settle(daemon)
    daemon.kill()
    if not starts("after kill -9"):
        return
    if min_free != "0B":
        answer = ledger.put(daemon.connect(), 20_000)
        promise(answer == "OUT_OF_MEMORY", f"{what}: refuses puts at once ({answer})")
    works("one at a time after kill -9", one_at_a_time)
    promise(daemon.stop() == 0, f"{what}: SIGTERM ends it with 0")
    if not starts("after SIGTERM"):
        return
    works("pipelined after SIGTERM", lambda worker: worker.delete_many(count // 8))
    works("one at a time after SIGTERM", one_at_a_time)
    promise(daemon.stop() == 0, f"{what}: SIGTERM ends it with 0 once more")
    if not starts("once more"):
        return
    disk.free()
    peer = daemon.connect()
    took = eventually(f"{what}: goes on by itself",
                      lambda: ledger.put(peer).startswith("INSERTED"))
    figure(f"{what}: seconds until it goes on", took)
    time.sleep(TICKS)
    daemon.kill()
    promise(daemon.again(), f"{what}: starts again with room")
    ledger.judge(ledger.drain(daemon.connect()), what)
    promise(daemon.log().count(" crit ") <= 3, f"{what}: said once, not for each message")
    promise(daemon.stop() == 0, f"{what}: stops in order")
    disk.gone()


def drained(level, size, kind, goes_on):
    """To the last message, with no byte free."""
    what = f"{kind}, {level}, {size} B, drained, filled {'on and on' if goes_on else 'once'}"
    disk = Disk(kind)
    count = min(100_000, BACKLOG_BYTES // (size + 150))
    daemon = Daemon(disk.path, f'durability = "{level}"\n')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), count, size)
    disk.fill(goes_on)
    worker = Worker(daemon, ledger)
    while worker.delete_one():
        if len(ledger.done) % 2_000 == 0:
            worker.delete_many(1_000)
    promise(not worker.strange, f"{what}: each is confirmed {worker.strange or ''}")
    promise(len(ledger.done) == len(ledger.confirmed), f"{what}: all are done")
    promise(daemon.stop() == 0, f"{what}: stops in order")
    promise(daemon.again(), f"{what}: starts with no byte free")
    disk.free()
    ledger.judge(ledger.drain(daemon.connect()), what)
    peer = daemon.connect()
    eventually(f"{what}: goes on", lambda: ledger.put(peer).startswith("INSERTED"))
    promise(daemon.stop() == 0, f"{what}: stops in order with room")
    disk.gone()


def full_of_messages(level, min_free):
    """The messages themselves have filled it."""
    what = f"{level}, min_free_disk {min_free}, full of messages"
    disk = Disk("tmpfs", 60 if min_free == "0B" else 100)
    daemon = Daemon(disk.path, f'durability = "{level}"\nmin_free_disk = "{min_free}"\n'
                               'commit_timeout = "1s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    peer = daemon.connect()
    for _ in range(100):
        ledger.put(peer, 1000)
    peer, answers = put_until_refused(daemon, ledger, peer, 60_000, 200_000)
    figure(f"{what}: answers to puts", answers)
    promise(answers.get("OUT_OF_MEMORY", 0) >= REFUSALS_MANY, f"{what}: puts are refused in words")
    promise(daemon.log().count(" crit ") <= 5, f"{what}: said once, not for each message")
    worker = Worker(daemon, ledger)
    for _ in range(20):
        worker.delete_one()
    promise(not worker.strange, f"{what}: messages are done {worker.strange or ''}")
    promise(daemon.stop() == 0, f"{what}: SIGTERM ends it with 0")
    promise(daemon.again(), f"{what}: starts again")
    subprocess.run(["mount", "-o", "remount,size=300m", disk.path], check=True)
    peer = daemon.connect()
    took = eventually(f"{what}: goes on by itself",
                      lambda: ledger.put(peer).startswith("INSERTED"))
    figure(f"{what}: seconds until it goes on", took)
    for _ in range(20):
        ledger.work(peer)
    time.sleep(TICKS)
    daemon.kill()
    promise(daemon.again(), f"{what}: starts again after kill -9")
    ledger.judge(ledger.drain(daemon.connect()), what)
    promise(daemon.stop() == 0, f"{what}: stops in order")
    disk.gone()


def started_full(kind, case):
    """A start with no byte free, after which all can be removed: of a file that was left suspect, on
    a small disk after kill -9, on one after SIGTERM."""
    what = f"{kind}, {case}"
    small = case.startswith("small")
    disk = Disk(kind, 20 if small else MEGABYTES)
    daemon = Daemon(disk.path, 'min_free_disk = "0B"\ncommit_timeout = "2s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), 1_000 if small else 20_000, 1_000)
    time.sleep(TICKS)
    if case == "small, stopped":
        daemon.stop()
    else:
        daemon.kill()
    mark = os.path.join(disk.path, "q.db.suspect")
    if case == "suspect":
        open(mark, "w").close()
    disk.fill(True)
    promise(daemon.again(), f"{what}: starts with no byte free")
    promise(not os.path.exists(mark), f"{what}: is suspect no more")
    worker = Worker(daemon, ledger)
    while worker.delete_one():
        pass
    promise(not worker.strange, f"{what}: each is confirmed {worker.strange or ''}")
    promise(len(ledger.done) == len(ledger.confirmed), f"{what}: all are done")
    promise(daemon.stop() == 0, f"{what}: stops in order")
    promise(daemon.again(), f"{what}: starts again")
    disk.free()
    peer = daemon.connect()
    eventually(f"{what}: goes on", lambda: ledger.put(peer).startswith("INSERTED"))
    ledger.judge(ledger.drain(peer), what)
    promise(daemon.stop() == 0, f"{what}: stops in order with room")
    disk.gone()


def suspect_meanwhile(kind):
    """A sync fails while no byte is free: the file is brought to the disk where it is."""
    what = f"{kind}, a sync fails"
    disk = Disk(kind)
    daemon = Daemon(disk.path, 'min_free_disk = "0B"\ncommit_timeout = "20s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), 20_000, 1_000)
    time.sleep(TICKS)
    disk.fill(True)
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *inject,
                               "-p", str(daemon.pid())])
    worker = Worker(daemon, ledger)
    def fails():
        return worker.delete_one() and "rewritten in place" in daemon.log()
    eventually(f"{what}: is met", fails)
    tracer.terminate()
    tracer.wait()
    while worker.delete_one():
        pass
    promise(not worker.strange, f"{what}: each is confirmed {worker.strange or ''}")
    promise(len(ledger.done) == len(ledger.confirmed), f"{what}: all are done")
    promise(daemon.log().count("rewritten in place") == 1, f"{what}: is told once")
    daemon.kill()
    mark = os.path.join(disk.path, "q.db.suspect")
    promise(not os.path.exists(mark), f"{what}: is suspect no more")
    promise(daemon.again(), f"{what}: starts again")
    disk.free()
    peer = daemon.connect()
    eventually(f"{what}: goes on", lambda: ledger.put(peer).startswith("INSERTED"))
    ledger.judge(ledger.drain(peer), what)
    promise(daemon.stop() == 0, f"{what}: stops in order")
    disk.gone()


def without_inodes(kind):
    """Neither an inode nor anything to make a log of: what is there is served."""
    what = f"{kind}, without a free inode"
    disk = Disk(kind, 20, inodes=64)
    daemon = Daemon(disk.path, 'min_free_disk = "0B"\ncommit_timeout = "1s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), 200, 1_000)
    daemon.stop()
    for suffix in (".ballast", ".lock"):
        os.unlink(os.path.join(disk.path, "q.db" + suffix))
    disk.fill_inodes()
    promise(daemon.again(), f"{what}: starts")
    promise(ledger.put(daemon.connect()) == "OUT_OF_MEMORY", f"{what}: refuses puts")
    peer = daemon.connect()
    found = peer.reserve()
    promise(found is not None, f"{what}: hands messages out")
    promise(peer.delete(found[0]) == "INTERNAL_ERROR", f"{what}: confirms nothing")
    ledger.doing.add(name_of(found[1]))
    disk.free_inodes()
    peer = daemon.connect()
    took = eventually(f"{what}: goes on", lambda: ledger.put(peer).startswith("INSERTED"))
    figure(f"{what}: seconds until it goes on", took)
    daemon.kill()
    promise(daemon.again(), f"{what}: starts again")
    ledger.judge(ledger.drain(daemon.connect()), what)
    promise(daemon.stop() == 0, f"{what}: stops in order")
    disk.gone()


def read_for_long(kind):
    """Another program reads an old state meanwhile: removals wait for it, and no longer."""
    what = f"{kind}, with a long reader"
    disk = Disk(kind)
    daemon = Daemon(disk.path, 'min_free_disk = "0B"\ncommit_timeout = "1s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    put_many(ledger, daemon.connect(), 10_000, 1_000)
    time.sleep(TICKS)
    reader = sqlite3.connect(os.path.join(disk.path, "q.db"), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM message").fetchall()
    put_many(ledger, daemon.connect(), 1_000, 1_000)
    disk.fill(True)
    worker = Worker(daemon, ledger)
    while not worker.strange and worker.delete_one():
        pass
    figure(f"{what}: removed until the log is full", len(ledger.done))
    promise(set(worker.strange) == {"INTERNAL_ERROR"}, f"{what}: told so ({worker.strange})")
    promise(daemon.stop() in (0, 74), f"{what}: stops")
    promise(daemon.again(), f"{what}: starts beside the reader")
    reader.execute("COMMIT")
    reader.close()
    peer = daemon.connect()
    def removes():
        found = peer.reserve()
        ledger.doing.add(name_of(found[1]))
        return peer.delete(found[0]) == "DELETED"
    took = eventually(f"{what}: goes on without it", removes)
    figure(f"{what}: seconds until it goes on", took)
    worker = Worker(daemon, ledger)
    while worker.delete_one():
        pass
    promise(not worker.strange, f"{what}: then each is confirmed {worker.strange or ''}")
    disk.free()
    ledger.judge(ledger.drain(daemon.connect()), what)
    promise(daemon.stop() == 0, f"{what}: stops in order")
    disk.gone()


kinds = ["tmpfs"] + (["ext4"] if can_mount_ext4() else [])
if len(kinds) == 1:
    figure("ext4", "cannot be mounted here")
if "--full" in sys.argv:
    for kind, level, size, goes_on in itertools.product(kinds, LEVELS, SIZES, (False, True)):
        filled(level, size, kind, goes_on, "64MiB" if level == "write" else "0B")
        drained(level, size, kind, goes_on)
else:
    filled("write", 200, "tmpfs", True, "64MiB")
    for kind in kinds:
        filled("sync", 20_000, kind, True, "0B")
        filled("periodic", 1_000_000, kind, True, "0B")
        drained("write", 200, kind, False)
for kind in kinds:
    for each in ("suspect", "small, killed", "small, stopped"):
        started_full(kind, each)
    if shutil.which("strace"):
        suspect_meanwhile(kind)
    else:
        figure(f"{kind}, a sync fails", "not without strace")
    without_inodes(kind)
    read_for_long(kind)
for durability in LEVELS:
    full_of_messages(durability, "0B")
full_of_messages("write", "64MiB")
finish()
