"""Debian's beanstalkd is ended with jobs in every state; phpmqd, called by its name, goes on.

What phpmqd has then is compared with what a beanstalkd has that is started on a copy of the same
directory, and with what the first one told before its end."""

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BEANSTALKD = shutil.which("beanstalkd") or "/usr/bin/beanstalkd"
START_SECONDS = 30
# What a restart changes in beanstalkd itself, or what each program tells of itself.
OWN_FIELDS = ("age", "time-left", "file", "buries")


class Client:
    """A connection that waits for each answer."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def ask(self, line, body=None):
        data = line.encode() + b"\r\n" + (b"" if body is None else body + b"\r\n")
        self.socket.sendall(data)
        words = self.file.readline().decode().split()
        if not words:
            raise ConnectionError("closed")
        if words[0] in ("OK", "RESERVED", "FOUND"):
            content = self.file.read(int(words[-1]) + 2)[:-2]
            return words[:-1] + [content]
        return words

    def put(self, body, pri=1024, delay=0, ttr=60):
        words = self.ask("put %d %d %d %d" % (pri, delay, ttr, len(body)), body)
        assert words[0] == "INSERTED", words
        return int(words[1])

    def stats_job(self, job):
        before = time.time()
        words = self.ask("stats-job %d" % job)
        after = time.time()
        if words[0] != "OK":
            return None
        lines = words[1].decode().splitlines()[1:]
        stats = dict(line.split(": ", 1) for line in lines)
        left = int(stats["time-left"])
        stats["due"] = (before + left, after + left + 1)
        return stats

    def tubes(self):
        return self.ask("list-tubes")[1].decode().split()[2::2]

    def close(self):
        self.file.close()
        self.socket.close()


class Server:
    """A program that takes beanstalkd's options."""

    def __init__(self, program, folder, *more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        arguments = ["-l", "127.0.0.1", "-p", str(self.port), "-b", folder, *more]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [program] + arguments, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None:
            try:
                client = Client(self.port)
                # It may be listening and not be at work yet.
                is_ready = client.ask("list-tube-used") == ["USING", "default"]
                client.close()
                if is_ready:
                    return
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("no start: " + self.said())
                time.sleep(0.01)

    def connect(self):
        return Client(self.port)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait()

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


def sums(folder):
    """The files of a binlog and their contents."""
    found = {}
    for name in os.listdir(folder):
        if name.startswith("binlog."):
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def fill(client, worker, rng):
    """Leaves jobs in every state. Returns all ids, those done, and the buried ones in order."""
    jobs, done, buried = [], [], []
    client.ask("use busy")
    # So many jobs come and go that old files are deleted and what lives in them is written again.
    for number in range(400):
        job = client.put(rng.randbytes(rng.randrange(200)), pri=rng.randrange(5))
        jobs.append(job)
        if number % 3:
            assert client.ask("delete %d" % job) == ["DELETED"]
            done.append(job)
    client.ask("use mail")
    for number in range(40):
        body = rng.choice([b"", b"\r\n", b"\0" * 84, b"x" * 50000, b"job %d" % number])
        jobs.append(client.put(body, rng.randrange(3), rng.choice([0, 0, 5000]), 1 + number))
    jobs.append(client.put(b"least time", ttr=0))
    jobs.append(client.put(b"far", pri=2**32 - 1, delay=2**32 - 1, ttr=2**32 - 1))
    worker.ask("watch mail")
    for number in range(18):
        job = int(worker.ask("reserve-with-timeout 0")[1])
        what = number % 6
        if what == 0:
            worker.ask("bury %d %d" % (job, rng.randrange(9)))
            buried.append(job)
        elif what == 1:
            worker.ask("release %d 7 3000" % job)
        elif what == 2:
            worker.ask("delete %d" % job)
            done.append(job)
        elif what == 3:
            worker.ask("bury %d 2000" % job)
            worker.ask("kick-job %d" % job)
        elif what == 4:
            worker.ask("release %d 3 4000" % job)
            worker.ask("kick-job %d" % job)
        # What is left stays reserved.
    # The order of burying is another one than that of the ids.
    client.ask("use mail")
    late = [client.put(b"late %d" % number, pri=0) for number in range(6)]
    jobs += late
    for job in reversed(late):
        assert worker.ask("reserve-job %d" % job)[0] == "RESERVED"
        assert worker.ask("bury %d 5" % job) == ["BURIED"]
        buried.append(job)
    return jobs, done, buried


def reserve_all(client):
    """What the ready jobs are, in the order in which they are handed out, tube by tube."""
    found = []
    for tube in sorted(client.tubes()):
        client.ask("watch %s" % tube)
        for other in ("default", "busy", "mail"):
            if other != tube:
                client.ask("ignore %s" % other)
        while True:
            words = client.ask("reserve-with-timeout 0")
            if words[0] != "RESERVED":
                break
            found.append((tube, int(words[1]), words[2]))
            assert client.ask("delete %s" % words[1]) == ["DELETED"]
    return found


def compare(ours, theirs, before, jobs):
    """Everything that is told of each job."""
    alive = 0
    for job in jobs:
        a, b = ours.stats_job(job), theirs.stats_job(job)
        assert (a is None) == (b is None), (job, a, b)
        if a is None:
            continue
        alive += 1
        assert ours.ask("peek %d" % job) == theirs.ask("peek %d" % job), job
        for field in b:
            if field not in OWN_FIELDS + ("due",):
                assert a[field] == b[field], (job, field, a, b)
        if a["state"] == "delayed":
            assert a["due"][0] <= b["due"][1] and b["due"][0] <= a["due"][1], (job, a, b)
        # beanstalkd counts a burial more with each of its starts.
        if b["state"] == "buried":
            assert a["buries"] == before[job]["buries"], (job, a, before[job])
        else:
            assert a["buries"] == b["buries"], (job, a, b)
    return alive


def replace(folder, daemon, how, seed):
    """One whole replacement, beanstalkd ended in this way."""
    rng = random.Random(seed)
    home, copy = os.path.join(folder, "home"), os.path.join(folder, "copy")
    os.mkdir(home)
    link = os.path.join(folder, "beanstalkd")
    os.symlink(daemon, link)

    old = Server(BEANSTALKD, home, "-s", "65536", "-f0")
    client, worker = old.connect(), old.connect()
    jobs, done, buried = fill(client, worker, rng)
    before = {job: client.stats_job(job) for job in jobs}
    refused = Server(link, home)
    assert refused.process.wait() == 69, refused.said()
    assert "a running beanstalkd uses the binlog" in refused.said(), refused.said()
    assert not os.path.exists(os.path.join(home, "phpmq.db"))
    old.end(how)
    files = sums(home)
    assert len(files) > 1
    shutil.copytree(home, copy)

    theirs, ours = Server(BEANSTALKD, copy), Server(link, home)
    a, b = ours.connect(), theirs.connect()
    alive = compare(a, b, before, jobs)
    assert all(a.stats_job(job) is None for job in done)
    a.ask("use mail"), b.ask("use mail")
    assert int(a.ask("peek-buried")[1]) == buried[0]
    new = a.put(b"new", pri=0)
    assert new > max(jobs), (new, max(jobs))
    a.ask("delete %d" % new)
    found = reserve_all(a)
    assert found == reserve_all(b)
    # Buried jobs come in the order of their burials.
    for job in buried:
        assert int(a.ask("peek-buried")[1]) == job
        assert a.ask("kick 1") == ["KICKED", "1"]
        a.ask("delete %d" % job)
    assert sums(home) == files, "the binlog is as it was"
    a.close(), b.close()
    theirs.end(), ours.end(signal.SIGKILL)

    # What is done stays done at the next start, and nothing is told twice.
    again = Server(link, home)
    # Nobody starts beanstalkd on the same jobs meanwhile, not even on another port.
    other = Server(BEANSTALKD, home)
    assert other.process.wait() != 0
    assert sums(home) == files
    a = again.connect()
    assert all(a.stats_job(job) is None for _, job, _ in found)
    assert a.put(b"newer") > new
    a.close()
    code = again.end()
    assert code == 0, (code, again.said())
    assert "binlog" not in again.said(), again.said()

    # Back to beanstalkd for a while: its jobs do not vanish without a word.
    back = Server(BEANSTALKD, home)
    back.connect().put(b"meanwhile")
    back.end()
    again = Server(link, home)
    code = again.end()
    assert code == 0, (code, again.said())
    assert "is not imported, since the database exists" in again.said(), again.said()

    # By hand, from the copy.
    ctl = os.path.join(os.path.dirname(daemon), "phpmqctl")
    other = os.path.join(folder, "other.db")
    words = [ctl, "import-binlog", home, "--database", other]
    for more, code in (["--dry-run"], 0), ([], 0), ([], 73):
        done = subprocess.run(words + more, capture_output=True, text=True)
        assert done.returncode == code, done
    print("%d jobs, %d files, seed %d" % (alive, len(files), seed))


def main():
    daemon = sys.argv[1]
    for seed in range(1, 4):
        for how in (signal.SIGKILL, signal.SIGTERM):
            with tempfile.TemporaryDirectory(prefix="interop") as folder:
                replace(folder, daemon, how, seed)


if __name__ == "__main__":
    main()
