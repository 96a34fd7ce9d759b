#!/usr/bin/env python3
"""Row 24: SIGTERM under load, again and again. It ends in order within 2 s plus the last commit,
the log is in the file, and no confirmed message is lost at any level. Also SIGTERM while it
starts with many messages, and twice in a row.

`--stops N` stops so often at each level (30; the table asks for 100). No root."""

import argparse
import os
import shutil
import signal
import threading
import time

from daemon import Daemon, Ledger, eventually, figure, finish, folder, percentile, promise

arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--stops", type=int, default=30)
arguments = arguments.parse_args()


def produce(daemon, ledger, size=300):
    try:
        peer = daemon.connect()
        while True:
            ledger.put(peer, size)
    except (OSError, ValueError):
        pass


def consume(daemon, ledger):
    try:
        peer = daemon.connect()
        while True:
            ledger.work(peer)
    except (OSError, ValueError, AttributeError):
        pass


def stops(level):
    ledger, times, codes, logs = Ledger(), [], set(), 0
    daemon = Daemon(folder(), f'durability = "{level}"\nmin_free_disk = "0B"')
    promise(daemon.ready(), f"{level}: starts")
    for turn in range(arguments.stops):
        threads = [threading.Thread(target=work, args=(daemon, ledger), daemon=True)
                   for work in (produce, produce, produce, consume)]
        for thread in threads:
            thread.start()
        time.sleep(0.05 + 0.01 * (turn % 7))
        began = time.monotonic()
        codes.add(daemon.stop())
        times.append(time.monotonic() - began)
        logs += os.path.exists(os.path.join(daemon.directory, "q.db-wal"))
        for thread in threads:
            thread.join()
        if not daemon.again():
            promise(False, f"{level}: starts after stop {turn}\n{daemon.log()}")
            return
    figure(f"{level}: ms to stop, p50 and most",
           (round(percentile(times, 50) * 1000), round(max(times) * 1000)))
    promise(codes == {0}, f"{level}: ends with 0 ({codes})")
    promise(max(times) < 2.5, f"{level}: within 2 s and the last commit")
    promise(logs == 0, f"{level}: the log is in the file")
    ledger.judge(ledger.drain(daemon.connect()), f"{level}, {arguments.stops} stops")
    daemon.kill()


def twice_and_while_starting():
    ledger = Ledger()
    daemon = Daemon(folder(), 'min_free_disk = "0B"')
    daemon.ready()
    peer = daemon.connect()
    for _ in range(2000):
        ledger.put(peer, 20_000)
    daemon.kill()
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
        daemon.start()
        time.sleep(delay)
        daemon.process.send_signal(signal.SIGTERM)
        code = daemon.process.wait(60)
        # Before it has taken the signal over, the signal itself ends it.
        promise(code in (0, -signal.SIGTERM), f"SIGTERM {delay} s after the start: {code}")
    daemon.start()
    daemon.ready()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGTERM)
    code = daemon.process.wait(60)
    promise(code in (0, 128 + signal.SIGTERM), f"SIGTERM twice: {code}")
    daemon.start()
    promise(daemon.ready(), "starts after all that")
    ledger.judge(ledger.drain(daemon.connect()), "SIGTERM while starting, and twice")
    daemon.kill()


def while_writing_anew():
    """A sync fails, the daemon begins a new file, and SIGTERM comes at once or a little later."""
    what = "SIGTERM while the file is written anew"
    for delay in (0.0, 0.02, 0.05, 0.1):
        ledger = Ledger()
        fails = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null",
                 "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=400"]
        daemon = Daemon(folder(), 'durability = "sync"\nmin_free_disk = "0B"', prefix=fails)
        if not daemon.ready():
            promise(False, f"{what}: starts")
            return
        producers = [threading.Thread(target=produce, args=(daemon, ledger, 20_000), daemon=True)
                     for _ in range(4)]
        for producer in producers:
            producer.start()
        failed = eventually(f"{what}: a sync fails", lambda: " crit " in daemon.log()) is not None
        time.sleep(delay)
        code = daemon.stop()
        promise(failed and code == 0, f"{what}, after {delay} s: exit {code}")
        for producer in producers:
            producer.join()
        promise(daemon.again(), f"{what}: starts again")
        lost = ledger.judge(ledger.drain(daemon.connect()), f"{what}, after {delay} s")
        if lost:
            print(daemon.log())
        daemon.kill()


for level in ("periodic", "write", "sync"):
    stops(level)
twice_and_while_starting()
if shutil.which("strace"):
    while_writing_anew()
else:
    print("skipped: SIGTERM while the file is written anew needs strace")
finish()
