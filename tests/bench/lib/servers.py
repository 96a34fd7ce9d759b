"""Servers to be measured: started on loopback ports and in directories of their own, and ended."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from lib.row import Failed

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Durability: what phpmqd is started with, and what beanstalkd gives the same with.
LEVELS = {
    "memory": ("", []),
    "periodic": ("periodic", []),
    "write": ("write", ["-b"]),
    "sync": ("sync", ["-b", "-f", "0"]),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_folder(options):
    return tempfile.mkdtemp(prefix="compare-", dir=options.directory)


class Server:
    """A server process with ports, by protocol, and a directory of its own.

    With `wait_seconds` 0 nobody waits until it listens.
    """

    def __init__(self, command, ports, folder, *, wait_seconds=10, environment=None):
        self.ports = ports
        self.folder = folder
        self.name = os.path.basename(command[0])
        started = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        for port in ports.values() if wait_seconds else ():
            self._await(port, started + wait_seconds)

    def _await(self, port, deadline):
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} has ended at once")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        self.end()
        raise Failed(f"{self.name} does not listen")

    def address(self, protocol="beanstalk"):
        return f"127.0.0.1:{self.ports[protocol]}"

    def cpu_seconds(self):
        """User and system time of all its threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as sizes:
            return int(sizes.read().split()[1]) * PAGE_BYTES

    def stop(self):
        """Ends the process and keeps its directory."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self):
        """Ends the process without a chance to say goodbye, and keeps its directory."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends the process and removes its directory."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def start_ours(options, level, *, folder=None, words=(), **how):
    """phpmqd at a level, with further options; in a folder that has its database already, or not."""
    folder = folder or new_folder(options)
    ports = {"beanstalk": free_port(), "phpmq": free_port()}
    durability, _ = LEVELS[level]
    command = [options.phpmqd, "--log-level", "error"]
    for protocol, port in ports.items():
        command += ["--listen", f"{protocol}=127.0.0.1:{port}"]
    command += ["--database", os.path.join(folder, "q.db") if durability else ""]
    if durability:
        command += ["--durability", durability]
    return Server([*command, *words], ports, folder, **how)


def start_beanstalkd(options, level, *, folder=None, words=(), **how):
    """beanstalkd at a level, with further options; in a folder that has its log already, or not."""
    folder = folder or new_folder(options)
    port = free_port()
    command = [options.beanstalkd, "-l", "127.0.0.1", "-p", str(port), "-z", "70000"]
    for word in LEVELS[level][1]:
        command += [word, folder] if word == "-b" else [word]
    return Server([*command, *words], {"beanstalk": port}, folder, **how)
