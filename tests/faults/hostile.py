#!/usr/bin/env python3
"""Rows 12, 18, 19 and 20: peers that never read, announce what they never send, send a byte now and
then, send rubbish, or want messages of very many queues. Others are served as before, the memory
stays bounded, and each such peer is told or closed.

`--lines N` makes another number of lines of rubbish. No root."""

import argparse
import random
import resource
import select
import socket
import time

from daemon import Daemon, Others, eventually, figure, finish, folder, promise

arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--lines", type=int, default=1_000_000)
arguments = arguments.parse_args()

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect(daemon, protocol, receive_bytes=None):
    peer = socket.socket()
    if receive_bytes:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    peer.settimeout(10)
    peer.connect(("127.0.0.1", daemon.ports[protocol]))
    return peer


def run(what, limits, harm, megabytes):
    """Does harm to a daemon, and says what others and its memory have noticed."""
    daemon = Daemon(folder(), limits=limits)
    promise(daemon.ready(), f"{what}: starts")
    others = Others(daemon)
    began = time.monotonic()
    harm(daemon, what)
    others.end_of_harm()
    figure(f"{what}: seconds of it", round(time.monotonic() - began, 1))
    before, during, _ = others.report(what)
    promise(daemon.is_alive(), f"{what}: is alive")
    promise(during < 50 + 20 * before, f"{what}: others are served as before")
    grown = others.memory[1] - others.memory[0]
    promise(grown < megabytes << 20, f"{what}: memory grows by less than {megabytes} MB")
    promise(daemon.stop() == 0, f"{what}: stops in order")


def is_closed(peer):
    """Whether the far end has closed; what it says before that is passed over."""
    while select.select([peer], [], [], 0)[0]:
        try:
            if not peer.recv(65_536):
                return True
        except OSError:
            return True
    return False


def all_closed(peers):
    peers[:] = [peer for peer in peers if not is_closed(peer)]
    return not peers


def stalled(daemon, what):
    """Fifty peers ask for the same 60 kB a thousand times each, and never read."""
    one = daemon.connect()
    number = one.put(b"y" * 60_000).split()[1]
    peers = [connect(daemon, "beanstalk", 4096) for _ in range(50)]
    for peer in peers:
        peer.setblocking(False)
        try:
            peer.send(f"peek {number}\r\n".encode() * 1000)
        except BlockingIOError:
            pass
    def are_gone():
        # Its end of them: ours would only see it by reading.
        return int(one.statistics()["current-connections"]) <= 2

    promise(not are_gone(), f"{what}: they are there")
    figure(f"{what}: seconds until all of them are closed",
           eventually(f"{what}: they are closed", are_gone))
    promise(one.delete(number) == "DELETED", f"{what}: the message can be removed")


def lengths(daemon, what):
    """A thousand connections announce four gigabytes and more, and send ten bytes of it."""
    answers, peers = {}, []
    phpmq = [b"H0100102P01" + b"%029d" % 1 + b"qP02" + length + b"0123456789"
             for length in (b"%029d" % 2**32, b"9" * 29, b"-" + b"0" * 28, b"+%028d" % 5)]
    put = [b"put 0 0 60 " + length + b"\r\n0123456789\r\n" for length in
           (b"4294967296", b"18446744073709551616", b"2147483648", b"-1", b"9" * 400, b"0x10")]
    for number in range(1000):
        protocol, inputs = (("phpmq", phpmq), ("beanstalk", put))[number % 2]
        peer = connect(daemon, protocol)
        peer.sendall(inputs[number // 2 % len(inputs)])
        peers.append(peer)
    for peer in peers:
        try:
            answer = peer.recv(100).split(b"\r\n")[0].decode() or "closed"
        except TimeoutError:
            answer = "nothing"
        except OSError:
            answer = "closed"
        answers[answer] = answers.get(answer, 0) + 1
    figure(f"{what}: answers", answers)
    promise(set(answers) <= {"JOB_TOO_BIG", "BAD_FORMAT", "closed"},
            f"{what}: told or closed")


def slow(daemon, what):
    """Six hundred connections send one byte a second of a message that never ends."""
    text = {"beanstalk": b"put 0 0 60 1000\r\n", "phpmq": b"H0100102P01", "console": b"status"}
    peers, sent = [], 0
    for number in range(600):
        protocol = list(text)[number % 3]
        peers.append((protocol, connect(daemon, protocol)))
    began = time.monotonic()
    while peers and time.monotonic() - began < 60:
        for protocol, peer in peers:
            try:
                peer.send(text[protocol][sent:sent + 1] or b"x")
            except OSError:
                pass
        sent += 1
        time.sleep(1)
        peers = [(protocol, peer) for protocol, peer in peers if not is_closed(peer)]
    figure(f"{what}: seconds until all of them are closed", round(time.monotonic() - began, 1))
    promise(not peers, f"{what}: they are closed ({len(peers)} are not)")


def rubbish(daemon, what):
    """Lines of any bytes, and connections that begin with something else."""
    seed = random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    figure(f"{what}: seed", seed)
    words = [b"put 0 0 60 5", b"peek-ready", b"delete 1", b"stats-job", b"use", b"watch q", b"kick 9",
             b"release 1 0 0", b"pause-tube q 1"]
    lines, told, lost = 0, 0, 0
    peer = connect(daemon, "beanstalk")
    while lines < arguments.lines:
        block = bytearray()
        for _ in range(500):
            line = bytearray(chance.choice(words))
            if chance.random() < 0.5:
                line = bytearray(chance.randbytes(chance.randrange(1, 60)))
            else:
                line[chance.randrange(len(line))] = chance.randrange(256)
            # A CR alone hides the rest of two hundred bytes, as it does from beanstalkd.
            block += line.replace(b"\n", b"").replace(b"\r", b"") + b"\r\n"
        lines += 500
        said = b""
        try:
            # What only this is answered with, after what may be taken for a message's content.
            peer.sendall(block + b"\r\n" * 8 + b"list-tube-used\r\n")
            while b"USING" not in said:
                more = peer.recv(1 << 20)
                if not more:
                    raise ConnectionError
                said += more
        except OSError:
            lost += 1
            peer = connect(daemon, "beanstalk")
        told += said.count(b"\r\n")
    figure(f"{what}: lines sent, answers, connections given up", (lines, told, lost))
    promise(told > lines // 2, f"{what}: they are answered")
    beginnings = [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                  b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nflushall\r\n",
                  bytes.fromhex("16030100f8010000f40303"), b"\xff\xfb\x1f\xff\xfb\x20", b"H9999999"]
    for number in range(3000):
        begin = beginnings[number % 6] if number % 6 < 5 else chance.randbytes(200)
        peer = connect(daemon, ("beanstalk", "phpmq", "console")[number % 3])
        try:
            peer.sendall(begin)
        except OSError:
            pass
        peer.close()


def many_queues(daemon, what):
    """One connection that wants messages of ever more queues."""
    peer, wanted = connect(daemon, "beanstalk"), 100_000
    for first in range(0, wanted, 5_000):
        peer.sendall(b"".join(b"watch many-%d\r\n" % number for number in range(first, first + 5_000)))
        said = b""
        while said.count(b"\r\n") < 5_000:
            said += peer.recv(1 << 20)
    promise(said.endswith(b"WATCHING %d\r\n" % (wanted + 1)), f"{what}: it gets them")


run("peers that never read", 'max_output = "1MiB"\nwrite_timeout = "3s"', stalled, 160)
run("lengths", 'frame_timeout = "3s"', lengths, 64)
run("slow senders", 'frame_timeout = "5s"\nidle_timeout = "20s"', slow, 64)
run("rubbish", "", rubbish, 64)
run("a peer with many queues", "max_queues = 200000", many_queues, 128)
finish()
