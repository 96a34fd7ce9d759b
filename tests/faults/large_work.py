#!/usr/bin/env python3
"""Large work of one client, felt by another: how long a confirmed put takes while somebody flushes
two million messages, kicks a million, lets half a million expire, goes with a hundred thousand in
its hands, or brings half a million dead letters back; and while somebody removes the file, so that
half a million messages have to be written anew. Each put waits for a commit of the file.

Options: --small for a tenth of everything, --only=NAME for one of them."""

import multiprocessing
import os
import re
import socket
import sys
import threading
import time

from daemon import Daemon, figure, finish, folder, percentile, promise

SHARE = 10 if "--small" in sys.argv else 1
ONLY = [word[7:] for word in sys.argv if word.startswith("--only=")]
# What is promised of a put meanwhile, on a machine that does nothing else.
GOAL_MS = 100
# Of a put while the file is written anew nothing is: it waits for the last row of the new one.
WITHOUT_GOAL = ["rewrite"]
CONFIG = 'durability = "write"\nmin_free_disk = "0B"'
LIMITS = 'max_memory = "4GiB"\nmax_window = 1000000'
POLICY = '[[policy]]\nqueues = "*"\nmax_attempts = 1\ndead_letter = "dead"\n'


def probe(port, ending, results):
    """Puts one message after the other; when each began and how many seconds it took."""
    from daemon import Beanstalk
    peer, times, refused = Beanstalk(port), [], 0
    peer.ask("use probe")
    while not ending.is_set():
        began = time.monotonic()
        refused += not peer.put(b"x" * 100).startswith("INSERTED")
        times.append((began, time.monotonic() - began))
        time.sleep(0.001)
    results.put((times, refused))


def pipeline(peer, requests, replies):
    """Sends many requests without waiting for their replies, which are lines or taken by bytes."""
    def send():
        for piece in requests:
            peer.socket.sendall(piece)
    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(replies):
        peer.input.readline()
    sender.join()


def pieces(request, count):
    most = 1000
    return (request * min(most, count - done) for done in range(0, count, most))


def fill(daemon, queue, count, delay=0, ttr=600):
    peer = daemon.connect()
    peer.ask(f"use {queue}")
    body = b"y" * 100
    pipeline(peer, pieces(b"put 0 %d %d 100\r\n%s\r\n" % (delay, ttr, body), count), count)
    peer.close()


def take(daemon, queue, count):
    """A connection that holds so many messages."""
    peer = daemon.connect()
    peer.ask(f"watch {queue}")
    pipeline(peer, pieces(b"reserve\r\n", count), 2 * count)
    return peer


def messages(daemon, queue, state):
    peer = daemon.connect()
    answer = peer.ask(f"stats-tube {queue}").split()
    text = peer.input.read(int(answer[1]) + 2).decode() if answer[0] == "OK" else ""
    peer.close()
    found = re.search(rf"current-jobs-{state}: (\d+)", text)
    return int(found.group(1)) if found else 0


def until(happens, patience=120):
    end = time.monotonic() + patience
    while not happens():
        if time.monotonic() > end:
            return promise(False, f"over within {patience} s")
        time.sleep(0.05)


def flush(daemon):
    fill(daemon, "q", 2_000_000 // SHARE)
    peer = daemon.connect()
    return lambda: peer.ask("flush-tube q")


def flush_all(daemon):
    for number in range(20):
        fill(daemon, f"q{number}", 50_000 // SHARE)
    peer = daemon.connect_to("console")
    peer.say("plain\n")
    time.sleep(0.5)
    peer.socket.recv(65536)
    def work():
        peer.say("flushall\n")
        return peer.input.readline().decode().strip()
    return work


def kick(daemon):
    fill(daemon, "q", 1_000_000 // SHARE, delay=3600)
    peer = daemon.connect()
    peer.ask("use q")
    return lambda: peer.ask("kick 1000000")


def expiry(daemon):
    count = 500_000 // SHARE
    peer = daemon.connect_to("phpmq")
    packet = lambda kind, content: b"P%02d%029d" % (kind, len(content)) + content
    end = time.monotonic() + 25
    one = b"H0100103" + packet(1, b"q") + packet(2, b"z" * 100)
    left = count
    while left:
        life = max(1, int(end - time.monotonic()))
        peer.say((one + packet(5, b"%d" % life)) * 1000)
        left -= 1000
    until(lambda: messages(daemon, "q", "ready") >= count * 9 // 10)
    time.sleep(max(0, end - time.monotonic() - 2))
    return lambda: until(lambda: messages(daemon, "q", "ready") == 0)


def end_of_peer(daemon):
    count = 100_000 // SHARE
    fill(daemon, "q", count)
    peer = take(daemon, "q", count)
    def work():
        # Others may have inherited it.
        peer.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: messages(daemon, "q", "ready") + messages(daemon, "dead", "ready") == count)
    return work


def time_outs(daemon):
    count, life = 100_000 // SHARE, 15
    fill(daemon, "q", count, ttr=life)
    began = time.monotonic()
    peer = take(daemon, "q", count)
    time.sleep(max(0, began + life - 1.5 - time.monotonic()))
    def work():
        until(lambda: messages(daemon, "q", "ready") + messages(daemon, "dead", "ready") == count)
        peer.close()
    return work


def dead_letters_back(daemon):
    """They become dead letters when the peer that holds them goes."""
    count = 500_000 // SHARE
    fill(daemon, "q", count)
    peer = take(daemon, "q", count)
    peer.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: messages(daemon, "dead", "ready") == count)
    peer = daemon.connect()
    peer.ask("use dead")
    return lambda: peer.ask("kick 1000000")


def rewrite(daemon):
    fill(daemon, "q", 500_000 // SHARE)
    def work():
        os.remove(os.path.join(daemon.directory, "q.db"))
        until(lambda: "database was rewritten" in daemon.log())
        return f"{os.path.getsize(os.path.join(daemon.directory, 'q.db')) >> 20} MiB"
    return work


CASES = [("nothing", lambda daemon: lambda: time.sleep(3), ""), ("flush", flush, ""),
         ("flush all", flush_all, ""), ("kick", kick, ""), ("expiry", expiry, ""),
         ("end of peer", end_of_peer, ""), ("time-outs", time_outs, ""),
         ("rewrite", rewrite, ""),
         ("end of peer, dead letters", end_of_peer, POLICY),
         ("time-outs, dead letters", time_outs, POLICY),
         ("dead letters back", dead_letters_back, POLICY)]


def run(name, prepare, policy):
    daemon = Daemon(folder(), CONFIG, LIMITS + "\n" + policy)
    promise(daemon.ready(), f"{name}: starts")
    work = prepare(daemon)
    ending, results = multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(
        target=probe, args=(daemon.ports["beanstalk"], ending, results), daemon=True)
    process.start()
    time.sleep(1)
    began = time.monotonic()
    answer = work()
    ended = time.monotonic()
    time.sleep(0.5)
    ending.set()
    times, refused = results.get(timeout=60)
    process.join()
    meanwhile = [took for at, took in times if at + took > began and at < ended]
    figure(f"{name}: answer, seconds", (answer, round(ended - began, 2)))
    figure(f"{name}: puts, p50, p99 and longest in ms", (
        len(meanwhile), *(round(percentile(meanwhile, part) * 1000, 1) for part in (50, 99, 100))))
    slow = [(round(at - began, 2), round(took, 2)) for at, took in times if took > 0.1]
    if "--slow" in sys.argv:
        figure(f"{name}: slow ones, when and how long in seconds", slow)
    promise(refused == 0, f"{name}: no put is refused")
    if name not in WITHOUT_GOAL:
        promise(percentile(meanwhile, 99) * 1000 < GOAL_MS, f"{name}: p99 below {GOAL_MS} ms")
    daemon.kill()


for case in CASES:
    if not ONLY or case[0] in ONLY:
        run(*case)
finish()
