#!/usr/bin/env python3
"""Row 17: `limits.max_memory` is reached. Puts are refused, consumers are served, the process
stays within its limit's order of size, and puts are taken again when there is room. With root, in
a memory control group of twice the limit, so that going over it would kill.

Then large messages: what can never fit is refused at once, whole frames are admitted one after
another, and small messages of others are accepted throughout."""

import os
import threading
import time

from daemon import PATIENCE, Daemon, Others, eventually, figure, finish, folder, promise

LIMIT = 64 * 1024 * 1024
LARGE = 12_000_000


def resident_most(limit=LIMIT, largest=LARGE, consumers=1):
    """What may be resident, as phpmqd.toml(5) has it; each consumer may be sent one message."""
    return limit * 3 // 2 + (2 + consumers) * largest + (16 << 20)


MEMORY = "/sys/fs/cgroup/memory"


def run(level, before):
    what = level
    storage = f'min_free_disk = "0B"\ndurability = "{level}"'
    directory = folder("/var/tmp")
    daemon = Daemon(directory, storage, 'max_memory = "64MiB"', before=before)
    promise(daemon.ready(), f"{what}: starts")
    others = Others(daemon)
    peer = daemon.connect()
    body = b"x" * 1024
    inserted, refused, word = 0, 0, ""
    while refused < 200 and inserted < 200_000:
        batch = b"".join(b"put 0 0 60 %d\r\n%s\r\n" % (len(body), body) for _ in range(100))
        peer.say(batch)
        for _ in range(100):
            answer = peer.line()
            if answer.startswith("INSERTED"):
                inserted += 1
            else:
                refused, word = refused + 1, answer
    figure(f"{what}: put, refused, word", (inserted, refused, word))
    promise(word == "OUT_OF_MEMORY", f"{what}: puts are refused in words")
    figure(f"{what}: resident / limit", round(daemon.memory_bytes() / LIMIT, 2))
    figure(f"{what}: highest resident / limit", round(daemon.memory_bytes("VmHWM") / LIMIT, 2))
    promise(daemon.memory_bytes("VmHWM") < resident_most(largest=0), f"{what}: stays within bounds")
    taken = 0
    for _ in range(inserted // 5):
        found = peer.reserve()
        if found is None or peer.delete(found[0]) != "DELETED":
            break
        taken += 1
    promise(taken == inserted // 5, f"{what}: consumers are served ({taken})")
    eventually(f"{what}: puts are taken again", lambda: peer.put(body).startswith("INSERTED"))
    others.end_of_harm()
    before, during, _ = others.report(what)
    promise(during < 50 + 20 * before, f"{what}: others are answered as before")
    promise(daemon.stop() == 0, f"{what}: stops in order")


class Small:
    """Small puts of somebody else, all the time."""

    def __init__(self, daemon):
        self.peer = daemon.connect()
        self.peer.ask("use small")
        self.peer.ask("watch small")
        self.peer.ask("ignore default")
        self.accepted, self.others, self.over = 0, [], False
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        while not self.over:
            answer = self.peer.put(b"x" * 100)
            if answer.startswith("INSERTED"):
                self.accepted += 1
                self.peer.delete(answer.split()[1])
            else:
                self.others.append(answer)
            time.sleep(0.005)

    def end(self, what):
        self.over = True
        self.thread.join()
        figure(f"{what}: small puts accepted, refused", (self.accepted, len(self.others)))
        promise(self.accepted > 0 and not self.others, f"{what}: small puts are accepted")


def large_daemon(limits):
    daemon = Daemon(folder("/var/tmp"), 'min_free_disk = "0B"', limits)
    promise(daemon.ready(), f"starts with {limits}")
    return daemon


def packets(kind, parts):
    return b"H01%03d%02d" % (kind, len(parts)) + b"".join(
        b"P%02d%029d%s" % (number, len(content), content) for number, content in parts)


def never_fits():
    what = "what never fits"
    daemon = large_daemon('max_memory = "12MiB"')
    promise("questionable" in daemon.log(), f"{what}: the log warns of it at start")
    small = Small(daemon)
    body = b"x" * 15_000_000
    peer = daemon.connect()
    peer.say("put 0 0 60 15000000\r\n")
    answer = peer.line()
    figure(f"{what}: answer before the body", answer)
    promise(answer == "JOB_TOO_BIG", f"{what}: is refused before it comes")
    peer.say(body + b"\r\n")
    promise(peer.put(b"x").startswith("INSERTED"), f"{what}: the connection goes on")
    sender = daemon.connect_to("phpmq")
    sender.say(packets(1, [(1, b"q"), (2, body), (6, b"me")]))
    promise(sender.input.read(8) == b"H0100802", f"{what}: a php-mq confirmation says no")
    sender = daemon.connect_to("phpmq")
    sender.say(packets(1, [(1, b"q"), (2, body)]) + packets(1, [(1, b"q"), (2, b"x"), (6, b"me")]))
    promise(sender.input.read(8) == b"H0100702", f"{what}: a silent php-mq sender goes on")
    eventually(f"{what}: a warning", lambda: "message dropped" in daemon.log())
    small.end(what)
    promise(daemon.log().count("message dropped") == 1, f"{what}: with one warning")
    figure(f"{what}: resident MiB", daemon.memory_bytes("VmHWM") >> 20)
    promise(daemon.stop() == 0, f"{what}: stops in order")


def in_threads(count, work):
    """What each of them returned."""
    results = [None] * count
    def run(number):
        results[number] = work()
    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [result.split()[0] if result else None for result in results]


def eight_senders(consumed):
    what = "eight senders of 12 MB" + (" and a consumer" if consumed else "")
    daemon = large_daemon('max_memory = "64MiB"')
    small = Small(daemon)
    body = b"x" * 12_000_000
    over = threading.Event()
    def consume():
        peer = daemon.connect()
        while not over.is_set():
            found = peer.reserve()
            if found:
                peer.delete(found[0])
            else:
                time.sleep(0.01)
    consumer = threading.Thread(target=consume, daemon=True)
    if consumed:
        consumer.start()
    began = time.monotonic()
    answers = in_threads(8, lambda: daemon.connect().put(body))
    figure(f"{what}: seconds, answers", (round(time.monotonic() - began, 1), answers))
    over.set()
    if consumed:
        consumer.join()
        promise(answers.count("INSERTED") == 8, f"{what}: all get through")
    else:
        promise(answers.count("INSERTED") == 5, f"{what}: those get through that have room")
        promise(answers.count("OUT_OF_MEMORY") == 3, f"{what}: the others are told")
    small.end(what)
    peer = daemon.connect()
    while found := peer.reserve():
        promise(peer.delete(found[0]) == "DELETED", f"{what}: is removed")
    promise(peer.put(body).startswith("INSERTED"), f"{what}: then there is room again")
    figure(f"{what}: highest resident / limit", round(daemon.memory_bytes("VmHWM") / LIMIT, 2))
    promise(daemon.memory_bytes("VmHWM") < resident_most(), f"{what}: stays within bounds")
    promise(daemon.stop() == 0, f"{what}: stops in order")


def announced_only():
    what = "1,000 announcements"
    daemon = large_daemon('max_memory = "64MiB"')
    before = daemon.memory_bytes()
    small = Small(daemon)
    peers = [daemon.connect() for _ in range(1_000)]
    for peer in peers:
        peer.say("put 0 0 60 16000000\r\nabc")
    promise(daemon.connect().put(b"x" * 12_000_000).startswith("INSERTED"),
            f"{what}: a large message of somebody else gets through")
    grown = daemon.memory_bytes() - before
    figure(f"{what}: MiB grown, the large message included", grown >> 20)
    promise(grown < 64 << 20, f"{what}: take no memory")
    small.end(what)
    for peer in peers:
        peer.close()
    promise(daemon.stop() == 0, f"{what}: stops in order")


def stalled():
    what = "eight stalled senders"
    daemon = large_daemon('max_memory = "64MiB"')
    small = Small(daemon)
    peers = [daemon.connect() for _ in range(8)]
    for peer in peers:
        peer.say(b"put 0 0 60 12000000\r\n" + b"x" * 6_000_000)
    began = time.monotonic()
    answer = daemon.connect().put(b"x" * 12_000_000).split()[0]
    figure(f"{what}: seconds, answer of a good one", (round(time.monotonic() - began, 1), answer))
    promise(answer == "INSERTED", f"{what}: do not keep out who goes on")
    small.end(what)
    promise(daemon.stop() == 0, f"{what}: stops in order")


class Group:
    """A memory control group, to run a daemon in; None where there can be none."""

    def __init__(self, limit):
        self.path = f"{MEMORY}/phpmq-fault-{os.getpid()}-{limit}"
        os.mkdir(self.path)
        with open(f"{self.path}/memory.limit_in_bytes", "w") as file:
            file.write(str(limit))

    def enter(self):
        with open(f"{self.path}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def end(self):
        # The kernel takes a moment to notice that nobody is left in it.
        eventually("the control group is empty", lambda: self._is_removed())

    def _is_removed(self):
        try:
            os.rmdir(self.path)
            return True
        except OSError:
            return False


def mixed(what, limits, before=None, seconds=15, consumers=1):
    """Senders of 12 MB and of 1 kB at the same time, one after another for some time."""
    daemon = Daemon(folder("/var/tmp"), 'min_free_disk = "0B"', limits, before=before)
    promise(daemon.ready(), f"{what}: starts")
    counts, lock, over = {}, threading.Lock(), threading.Event()

    def count(word):
        with lock:
            counts[word] = counts.get(word, 0) + 1

    def send(size):
        try:
            peer = daemon.connect()
            while not over.is_set():
                word = peer.put(b"x" * size).split()[0]
                count(f"{size} {word}")
                if word != "INSERTED":
                    time.sleep(0.05)
        except OSError as error:
            count(f"{size} {type(error).__name__}")

    def consume():
        try:
            peer = daemon.connect()
            while not over.is_set():
                found = peer.reserve()
                if found:
                    peer.delete(found[0])
                else:
                    time.sleep(0.01)
        except OSError as error:
            count(f"consumer {type(error).__name__}")

    work = [(send, LARGE), (send, 1_000)] * 8
    threads = [threading.Thread(target=send, args=(size,), daemon=True) for send, size in work]
    threads += [threading.Thread(target=consume, daemon=True) for _ in range(consumers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    figure(f"{what}: answers", dict(sorted(counts.items())))
    promise(daemon.is_alive(), f"{what}: it survives")
    if not daemon.is_alive():
        return
    promise(not any("Error" in word for word in counts), f"{what}: nobody's connection is closed")
    promise(counts.get(f"{LARGE} INSERTED", 0) >= 5, f"{what}: large ones get through")
    promise(counts.get("1000 INSERTED", 0) > 100, f"{what}: small ones get through")
    figure(f"{what}: highest resident MiB", daemon.memory_bytes("VmHWM") >> 20)
    most = resident_most(consumers=consumers)
    promise(daemon.memory_bytes("VmHWM") < most, f"{what}: stays within bounds")
    promise(daemon.stop() == 0, f"{what}: stops in order")


never_fits()
eight_senders(True)
eight_senders(False)
announced_only()
stalled()
mixed("large and small", 'max_memory = "64MiB"', consumers=2)
if os.geteuid() == 0 and os.path.isdir(MEMORY) and os.access(MEMORY, os.W_OK):
    for consumers in (1, 0):
        container = Group(2 * LIMIT)
        mixed(f"a container of 128 MiB with {consumers} consumers", "", container.enter,
              consumers=consumers)
        container.end()
    group = Group(2 * LIMIT)
    try:
        run("write", group.enter)
        run("periodic", group.enter)
    finally:
        group.end()
else:
    print("skipped: the control groups, which need root and version 1")
    run("write", None)
    run("periodic", None)
finish()
