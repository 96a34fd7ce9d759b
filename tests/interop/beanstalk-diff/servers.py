"""Starts servers on Unix or TCP sockets and talks to a pair of them in step."""

import os
import select
import signal
import socket
import subprocess
import time

# How long two servers may take to agree before what they said counts as different, in seconds.
AGREEMENT_SECONDS = 2.0
START_SECONDS = 10.0
# The default of the reference, in bytes.
JOB_SIZE_MAX = 65535


class Server:
    """One server process on a socket of its own."""

    def __init__(self, kind, path, folder, tcp=False, job_size_max=JOB_SIZE_MAX, form="memory"):
        """The form is how phpmqd is started: with its messages in memory, with a database, or by
        the name and with the flags of beanstalkd ("drop-in")."""
        self.kind = kind
        self.is_reference = os.path.basename(path) == "beanstalkd"
        if form == "drop-in" and not self.is_reference:
            os.symlink(path, os.path.join(folder, "beanstalkd"))
            path = os.path.join(folder, "beanstalkd")
        self.polls = 0
        if tcp:
            self.address = ("127.0.0.1", free_port())
            where = "%s:%d" % self.address
        else:
            self.address = os.path.join(folder, kind + ".sock")
            where = "unix:" + self.address
        if os.path.basename(path) == "beanstalkd":
            listen = ["127.0.0.1", "-p", str(self.address[1])] if tcp else [where]
            arguments = [path, "-z", str(job_size_max), "-l"] + listen
        else:
            config = os.path.join(folder, "phpmqd.toml")
            database = os.path.join(folder, "messages.db") if form == "database" else ""
            with open(config, "w", encoding="utf-8") as out:
                out.write(
                    '[storage]\ndatabase = "%s"\n'
                    "[limits]\nmax_message_size = %d\n"
                    '[[listener]]\nprotocol = "beanstalk"\naddress = "%s"\n'
                    % (database, job_size_max, where)
                )
            arguments = [path, "--config", config]
        self.log = open(os.path.join(folder, kind + ".log"), "wb")
        self.process = subprocess.Popen(arguments, stdout=self.log, stderr=self.log)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        "%s does not start, see %s" % (self.kind, self.log.name)
                    ) from None
                time.sleep(0.005)

    def connect(self):
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.connect(self.address)
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        return made

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Side:
    """One of the two sockets of a connection, and what came from it and was not compared yet."""

    def __init__(self, server):
        self.server = server
        self.socket = server.connect()
        self.received = b""
        self.is_closed = False

    def send(self, data):
        while data and not self.is_closed:
            try:
                data = data[self.socket.send(data):]
            except BlockingIOError:
                self.receive()
                select.select([self.socket], [self.socket], [], 1)
            except OSError:
                return

    def receive(self):
        while not self.is_closed:
            try:
                data = self.socket.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                self.received += data
            else:
                self.is_closed = True

    def request(self, line):
        """A command whose whole answer is waited for."""
        self.send(line)
        deadline = time.monotonic() + 10 * AGREEMENT_SECONDS
        while True:
            select.select([self.socket], [], [], 1)
            self.receive()
            answers, rest = split_answers(self.received)
            if answers and not rest:
                self.received = b""
                return answers[-1]
            if self.is_closed or time.monotonic() > deadline:
                raise RuntimeError(self.server.kind + " does not answer")


def split_answers(data):
    """Whole replies (line, document or None) and what is left."""
    answers = []
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return answers, data
        words = line.split(b" ")
        if words[0] in (b"OK", b"RESERVED", b"FOUND") and words[-1].isdigit():
            size = int(words[-1])
            if len(rest) < size + 2:
                return answers, data
            answers.append((line, rest[:size]))
            data = rest[size + 2:]
        else:
            answers.append((line, None))
            data = rest


class Pair:
    """The reference and the server under test, in the same state as long as they agree."""

    def __init__(self, left, right):
        self.servers = (left, right)
        self.controls = [Side(server) for server in self.servers]
        # Out of the way, so that every tube can be without a peer.
        for control in self.controls:
            for line in (b"use control\r\n", b"watch control\r\n", b"ignore default\r\n"):
                control.request(line)
        # The connections that found out whether the servers are ready are gone.
        self.wait_for(b"current-connections", 1)

    def connect(self):
        return [Side(server) for server in self.servers]

    def barrier(self, rounds):
        """Lets both servers get to what was sent before, with a command that nobody counts."""
        for control in self.controls:
            for _ in range(rounds):
                control.request(b"barrier\r\n")

    def wait_for(self, key, expected, controls=None):
        """Until both servers count so many connections of this kind. Says which one does not."""
        wanted = b"\n%s: %d\n" % (key, expected)
        for control in controls or self.controls:
            deadline = time.monotonic() + AGREEMENT_SECONDS
            while True:
                control.server.polls += 1
                _, document = control.request(b"stats\r\n")
                if wanted in document:
                    break
                if time.monotonic() > deadline:
                    return control.server.kind
                time.sleep(0.001)
        return None

    def figures(self, key):
        """A field of both servers' statistics."""
        found = []
        for control in self.controls:
            control.server.polls += 1
            _, document = control.request(b"stats\r\n")
            found += [line for line in document.split(b"\n") if line.startswith(key + b": ")]
        return found

    def stop(self):
        for control in self.controls:
            control.socket.close()
        for server in self.servers:
            server.stop()
