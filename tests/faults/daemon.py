"""A daemon under test, a beanstalk connection to it, and a ledger of what was confirmed.

Only Python's own library is used. Every script of this directory imports this file, takes the
path of phpmqd as its argument (target/release/phpmqd otherwise), prints what it measured and
exits with 1 on a broken promise, with 77 when this machine can not do what it needs.
"""

import atexit
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = 60
# So many refused puts are no accident.
REFUSALS_MANY = 50
_broken = []


def program():
    """The daemon's program."""
    given = [word for word in sys.argv[1:] if not word.startswith("-")]
    path = given[0] if given else os.path.join(TOP, "target/release/phpmqd")
    if not os.access(path, os.X_OK):
        skip(f"{path} is no program; build it first or name another")
    return os.path.abspath(path)


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def need_root():
    if os.geteuid() != 0:
        skip("needs root")


def need(tool):
    if shutil.which(tool) is None:
        skip(f"needs {tool}")


def promise(holds, text):
    """Says whether a promise holds, and remembers when it does not."""
    print(f"{'holds ' if holds else 'BROKEN'}  {text}", flush=True)
    if not holds:
        _broken.append(text)


def figure(name, value):
    print(f"figure  {name}: {value}", flush=True)


def broken():
    """Whether a promise was."""
    return bool(_broken)


def finish():
    sys.exit(1 if _broken else 0)


def folder(parent=None):
    path = tempfile.mkdtemp(prefix="phpmq-fault-", dir=parent)
    atexit.register(shutil.rmtree, path, True)
    return path


def eventually(what, happens, patience=PATIENCE):
    """Waits until something happens; says how many seconds that took, or None."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        if happens():
            return time.monotonic() - began
        time.sleep(0.01)
    promise(False, f"{what}: not within {patience} s")
    return None


class Daemon:
    """The daemon, killed at the end of the script."""

    def __init__(self, directory, storage="", limits="", prefix=(), environment=None,
                 before=None, log_level="info"):
        self.directory = directory
        self.logs = os.path.join(directory, "log")
        config = os.path.join(directory, "phpmqd.toml")
        with open(config, "w") as file:
            file.write(
                f'[storage]\ndatabase = "{directory}/q.db"\n{storage}\n[limits]\n{limits}\n'
                f'[log]\nlevel = "{log_level}"\nformat = "plain"\n'
                '[[listener]]\nprotocol = "beanstalk"\naddress = "127.0.0.1:0"\n'
                '[[listener]]\nprotocol = "phpmq"\naddress = "127.0.0.1:0"\n'
                '[[listener]]\nprotocol = "console"\naddress = "127.0.0.1:0"\n')
        self.command = [*prefix, program(), "-c", config]
        self.environment = environment
        self.before = before
        self.start()

    def start(self):
        # On another disk than the database: what fails there must not be what fails here.
        self.log_file = tempfile.NamedTemporaryFile(prefix="phpmq-log-")
        self.process = subprocess.Popen(
            self.command, stderr=self.log_file, stdout=subprocess.DEVNULL,
            preexec_fn=self.before, env={**os.environ, **(self.environment or {})})
        atexit.register(self.kill)
        self.ports = {}

    def log(self):
        with open(self.log_file.name) as file:
            return file.read()

    def ready(self):
        """Waits until it serves; False when it ended instead."""
        def is_ready():
            return " ready " in self.log() or self.process.poll() is not None
        if eventually("start", is_ready) is None or self.process.poll() is not None:
            return False
        for name, port in re.findall(r"listening protocol=(\w+) address=127\.0\.0\.1:(\d+)",
                                     self.log()):
            self.ports[name] = int(port)
        return True

    def pid(self):
        """The daemon's own process, behind a tracer if there is one."""
        parent = self.process.pid
        wanted = os.path.realpath(program())
        def is_it(pid):
            try:
                return os.path.realpath(f"/proc/{pid}/exe") == wanted
            except OSError:
                return False
        if is_it(parent):
            return parent
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            for child in file.read().split():
                if is_it(child):
                    return int(child)
        return parent

    def threads(self):
        """The names of its threads and their numbers."""
        pid = self.pid()
        found = {}
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm") as file:
                found[file.read().strip()] = int(thread)
        return found

    def memory_bytes(self, field="VmRSS"):
        with open(f"/proc/{self.pid()}/status") as file:
            return int(re.search(rf"{field}:\s+(\d+) kB", file.read()).group(1)) * 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.pid()}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connect(self):
        return Beanstalk(self.ports["beanstalk"])

    def connect_to(self, protocol):
        """A connection to be talked over in bytes."""
        return Beanstalk(self.ports[protocol])

    def is_alive(self):
        return self.process.poll() is None

    def kill(self):
        """As kill -9 does; a tracer goes with its program."""
        if self.process.poll() is None:
            try:
                os.kill(self.pid(), signal.SIGKILL)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()

    def stop(self, patience=PATIENCE):
        """As an operator does; its exit code."""
        os.kill(self.pid(), signal.SIGTERM)
        return self.process.wait(patience)

    def again(self, prefix=()):
        """A new life on the same files."""
        self.command = [*prefix, *self.command[self.command.index(program()):]]
        self.before = None
        self.start()
        return self.ready()


class Beanstalk:
    """One beanstalk connection."""

    def __init__(self, port, patience=PATIENCE, source=None):
        bind = (source, 0) if source else None
        self.socket = socket.create_connection(("127.0.0.1", port), patience, bind)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb", 65536)

    def say(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def line(self):
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection was closed")
        return line[:-2].decode()

    def ask(self, text):
        self.say(text + "\r\n")
        return self.line()

    def put(self, body):
        self.say(b"put 0 0 600 %d\r\n%s\r\n" % (len(body), body))
        return self.line()

    def reserve(self):
        """An id and a body, or None when there is no message."""
        answer = self.ask("reserve-with-timeout 0").split()
        if answer[0] != "RESERVED":
            return None
        body = self.input.read(int(answer[2]) + 2)[:-2]
        return int(answer[1]), body

    def delete(self, number):
        return self.ask(f"delete {number}")

    def statistics(self):
        answer = self.ask("stats").split()
        text = self.input.read(int(answer[1]) + 2).decode()
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def close(self):
        self.input.close()
        self.socket.close()


def body_of(name, size=100):
    """A body that says whose it is, with a checksum."""
    text = f"{name}," + "x" * max(0, size - len(str(name)) - 10)
    return f"{text},{zlib.crc32(text.encode()):08x}".encode()


def name_of(body):
    """Whose body this is; None when it was changed."""
    text, _, checksum = body.decode().rpartition(",")
    if f"{zlib.crc32(text.encode()):08x}" != checksum:
        return None
    return int(text.split(",", 1)[0])


class Ledger:
    """What was sent, confirmed, and confirmed to be done, kept outside of the daemon."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent, self.confirmed, self.doing, self.done = set(), {}, set(), set()
        self.refused = 0
        self.next = 0

    def put(self, peer, size=100):
        """Sends one more message; the answer."""
        with self.lock:
            name = self.next
            self.next += 1
            self.sent.add(name)
        answer = peer.put(body_of(name, size))
        with self.lock:
            if answer.startswith("INSERTED "):
                self.confirmed[name] = int(answer.split()[1])
            else:
                self.refused += 1
        return answer

    def work(self, peer):
        """Takes one message and deletes it; False when there is none."""
        found = peer.reserve()
        if found is None:
            return False
        number, body = found
        name = name_of(body)
        with self.lock:
            self.doing.add(name)
        if peer.delete(number) == "DELETED":
            with self.lock:
                self.done.add(name)
        return True

    def drain(self, peer):
        """All that is left, by name."""
        left = []
        while True:
            found = peer.reserve()
            if found is None:
                return left
            left.append(name_of(found[1]))
            peer.delete(found[0])

    def judge(self, left, what):
        """Compares what is left after everything with what was promised."""
        lost = self.confirmed.keys() - set(left) - self.doing
        back = set(left) & self.done
        strange = [name for name in left if name is None or name not in self.sent]
        twice = len(left) - len(set(left))
        reused = len(self.confirmed) - len(set(self.confirmed.values()))
        figure(what, f"{len(self.sent)} sent, {len(self.confirmed)} confirmed, {self.refused} "
                     f"refused, {len(self.done)} done, {len(left)} left")
        promise(not lost, f"{what}: nothing confirmed is lost ({len(lost)})")
        promise(not back, f"{what}: nothing that was done comes back ({len(back)})")
        promise(not strange, f"{what}: nothing was changed or made up ({len(strange)})")
        promise(twice == 0 and reused == 0, f"{what}: nothing is there twice ({twice}, {reused})")
        return lost


def put_until_refused(daemon, ledger, peer, size, most):
    """Puts messages until many were refused. Returns the peer, which may be another one by then, and
    how often each answer came."""
    answers = {}
    for _ in range(most):
        try:
            answer = ledger.put(peer, size).split()[0]
        except ConnectionError:
            # Held for commit_timeout: the outcome is unknown.
            answer = "closed"
            peer = daemon.connect()
        answers[answer] = answers.get(answer, 0) + 1
        if answers.get("OUT_OF_MEMORY", 0) >= REFUSALS_MANY:
            break
    return peer, answers


class Others:
    """Who has nothing to do with what a script does to the daemon: one client that puts, reserves
    and deletes every few milliseconds in a queue of its own, and how long each round takes it
    before, during and after; in a process of its own, so that the script does not slow its clock
    down. With the daemon's memory at the end of each phase."""

    PAUSE = 0.005
    PHASES = ("before", "during", "after")

    def __init__(self, daemon, seconds=2):
        self.daemon, self.marks, self.memory = daemon, [], []
        self.here, there = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(
            target=self._work, args=(daemon.ports["beanstalk"], there), daemon=True)
        self.process.start()
        self.here.recv()
        self.begun = time.monotonic()
        time.sleep(seconds)
        self._mark()

    def _mark(self):
        self.marks.append(time.monotonic())
        self.memory.append(self.daemon.memory_bytes())

    def _work(self, port, pipe):
        def connect():
            peer = Beanstalk(port)
            peer.ask("use others")
            peer.ask("watch others")
            peer.ask("ignore default")
            return peer

        rounds, broken, peer = [], 0, connect()
        pipe.send("ready")
        while not pipe.poll(self.PAUSE):
            began = time.monotonic()
            try:
                taken = peer.put(b"x" * 100).startswith("INSERTED")
                found = peer.reserve() if taken else None
                if found:
                    peer.delete(found[0])
            except OSError:
                broken, taken, peer = broken + 1, False, connect()
            rounds.append((began, time.monotonic() - began, taken))
        pipe.send((rounds, broken))

    def end_of_harm(self):
        """What is done to the daemon is over."""
        self._mark()

    def report(self, what, seconds=2):
        """Waits a little, prints what was measured, and returns the p99 of each phase in ms."""
        time.sleep(seconds)
        self._mark()
        self.here.send("the end")
        rounds, broken = self.here.recv()
        self.process.join()
        spans = zip(self.PHASES, [self.begun, *self.marks], self.marks, self.memory)
        p99s = []
        for phase, begin, end, memory in spans:
            inside = [entry for entry in rounds if begin <= entry[0] < end]
            times = [taken * 1000 for _, taken, _ in inside]
            refused = sum(not taken for _, _, taken in inside)
            p99s.append(percentile(times, 99))
            figure(f"{what}: others {phase}",
                   f"{len(times)} rounds, {refused} refused, p50 {percentile(times, 50):.2f} ms, "
                   f"p99 {percentile(times, 99):.2f} ms, max {max(times, default=0):.2f} ms; "
                   f"daemon {memory / 2**20:.1f} MB")
        promise(broken == 0, f"{what}: others keep their connection ({broken})")
        return p99s


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0
