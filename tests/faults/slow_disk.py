#!/usr/bin/env python3
"""Row 29: every sync of the disk takes 200 ms (strace delays it). What waits for the disk stays
bounded, consumers and producers go on, and kill -9 loses nothing that was confirmed.

Needs strace; no root."""

import threading
import time

from daemon import Daemon, Ledger, figure, finish, folder, need, percentile, promise

need("strace")
SECONDS = 6


def run(level):
    slow = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
            "-e", "inject=fsync,fdatasync:delay_enter=200000"]
    daemon = Daemon(folder(), f'durability = "{level}"\nmin_free_disk = "0B"',
                    'max_memory = "128MiB"', prefix=slow)
    promise(daemon.ready(), f"{level}: starts")
    # The highest name sent so far, and when: an upper bound of a name's confirmation.
    confirmed_at = []
    ledger, times, until = Ledger(), [], time.monotonic() + SECONDS

    def produce():
        peer = daemon.connect()
        while time.monotonic() < until:
            began = time.monotonic()
            ledger.put(peer, 2000)
            now = time.monotonic()
            times.append(now - began)
            with ledger.lock:
                confirmed_at.append((ledger.next, now))

    def consume():
        peer = daemon.connect()
        while time.monotonic() < until:
            if not ledger.work(peer):
                time.sleep(0.01)

    threads = [threading.Thread(target=produce) for _ in range(8)]
    threads += [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figure(f"{level}: puts, refused", (len(times), ledger.refused))
    figure(f"{level}: p50 and p99 of a put in ms",
           (round(percentile(times, 50) * 1000, 1), round(percentile(times, 99) * 1000, 1)))
    figure(f"{level}: highest resident MB", daemon.memory_bytes("VmHWM") >> 20)
    promise(daemon.memory_bytes("VmHWM") < 256 << 20, f"{level}: memory stays bounded")
    promise(len(times) > 8 * SECONDS, f"{level}: producers go on")
    end = time.monotonic()
    daemon.kill()
    promise(daemon.again(), f"{level}: starts again after kill -9")
    left = ledger.drain(daemon.connect())
    if level == "periodic":
        # What the commit under way and the one after it held may be lost. Each of them may have
        # four syncs: of a log begun anew, of its own, and two of moving the log into the file.
        lost = ledger.confirmed.keys() - set(left) - ledger.doing
        oldest = min(lost, default=ledger.next)
        age = end - next((at for name, at in confirmed_at if name > oldest), end)
        figure("periodic: lost by kill -9, of all", (len(lost), len(ledger.confirmed)))
        figure("periodic: age of the oldest that is lost, in s", round(age, 2))
        promise(age < 2 * 4 * 0.2 + 1.5, "periodic: only the last ones are lost")
    else:
        ledger.judge(left, level)
    daemon.kill()


for level in ("periodic", "write", "sync"):
    run(level)
finish()
