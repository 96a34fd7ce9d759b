#!/usr/bin/env python3
"""Row 5: the disk is full. Puts are refused, consumers are served, and it goes on by itself.

A small tmpfs is mounted in a mount namespace of our own; root is needed, nothing outside is
touched. Twice: filled by the messages themselves, and by somebody else's file. With
`min_free_disk = "0B"` the disk really gets full, with the default puts are refused before."""

import os
import subprocess
import sys

from daemon import (
    Daemon, Ledger, REFUSALS_MANY, eventually, figure, finish, folder, need_root, promise,
    put_until_refused,
)

need_root()
if os.environ.get("PHPMQ_FAULT_INSIDE") != "yes":
    os.environ["PHPMQ_FAULT_INSIDE"] = "yes"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])


def run(durability, min_free, foreign):
    what = f"{durability}, min_free_disk {min_free}, {'a foreign file' if foreign else 'messages'}"
    disk = folder()
    megabytes = 30 if min_free == "0B" else 80
    size = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True)
    daemon = Daemon(disk, f'durability = "{durability}"\nmin_free_disk = "{min_free}"\n'
                          'commit_timeout = "1s"')
    promise(daemon.ready(), f"{what}: starts")
    ledger = Ledger()
    peer = daemon.connect()
    for _ in range(100):
        ledger.put(peer, 1000)
    if foreign:
        with open(f"{disk}/foreign", "wb") as file:
            try:
                while True:
                    file.write(b"x" * 65536)
                    file.flush()
            except OSError:
                pass
    size = 10_000 if foreign else 60_000
    peer, answers = put_until_refused(daemon, ledger, peer, size, 200_000)
    figure(f"{what}: answers to puts", answers)
    promise(answers.get("OUT_OF_MEMORY", 0) >= REFUSALS_MANY, f"{what}: puts are refused in words")
    promise(daemon.log().count(" crit ") <= 5, f"{what}: said once, not for each message")
    served = peer.reserve()
    promise(served is not None, f"{what}: consumers are served")
    peer.ask(f"release {served[0]} 0 0") if served else None
    grown = ["mount", "-o", "remount,size=300m", disk]
    subprocess.run(grown, check=True)
    accepted = []

    def accepts():
        nonlocal peer
        try:
            accepted.append(ledger.put(peer))
        except ConnectionError:
            peer = daemon.connect()
            return False
        return accepted[-1].startswith("INSERTED")

    took = eventually(f"{what}: goes on by itself", accepts)
    figure(f"{what}: seconds until it goes on", took)
    for _ in range(20):
        ledger.work(peer)
    daemon.kill()
    promise(daemon.again(), f"{what}: starts again after kill -9")
    ledger.judge(ledger.drain(daemon.connect()), what)
    promise(daemon.stop() == 0, f"{what}: stops in order")
    subprocess.run(["umount", disk], check=True)


def stop_with_a_full_disk():
    what = "SIGTERM with a full disk"
    disk = folder()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
    daemon = Daemon(disk, 'durability = "periodic"\nmin_free_disk = "0B"')
    promise(daemon.ready(), f"{what}: starts")
    peer = daemon.connect()
    for number in range(100_000):
        if not peer.put(b"x" * 60_000).startswith("INSERTED"):
            break
    code = daemon.stop(120)
    lost = [line for line in daemon.log().splitlines() if "only in memory" in line]
    figure(what, f"exit {code}, {lost[-1:]}")
    promise(code in (0, 74), f"{what}: ends with 0, or 74 and the number of lost changes")
    promise(code == 0 or lost, f"{what}: says how much was only in memory")
    subprocess.run(["umount", disk], check=True)


for level in ("write", "sync"):
    for foreign in (False, True):
        run(level, "0B", foreign)
run("write", "64MiB", False)
stop_with_a_full_disk()
finish()
