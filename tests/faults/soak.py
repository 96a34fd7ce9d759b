#!/usr/bin/env python3
"""Row 32: a long run at half load. Memory, descriptors, threads, log and file size stay flat.

`--minutes N` (60). Peers come and go all the time; the queue is kept at about 1,000 messages."""

import argparse
import os
import threading
import time

from daemon import Daemon, Ledger, figure, finish, folder, promise

arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--minutes", type=float, default=60)
arguments = arguments.parse_args()
daemon = Daemon(folder("/var/tmp"), 'min_free_disk = "0B"')
promise(daemon.ready(), "starts")
until = time.monotonic() + arguments.minutes * 60
done = [0]


def work():
    """Peers that put and take some messages at half speed and go."""
    while time.monotonic() < until:
        peer = daemon.connect()
        for _ in range(200):
            began = time.monotonic()
            peer.put(b"x" * 500)
            found = peer.reserve()
            if found is not None:
                peer.delete(found[0])
            done[0] += 1
            time.sleep(time.monotonic() - began)
        peer.close()


peer = daemon.connect()
for _ in range(1000):
    peer.put(b"x" * 500)
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
samples = []
interval = min(10.0, arguments.minutes * 6)
while time.monotonic() < until:
    time.sleep(interval)
    pid = daemon.pid()
    files = [os.path.join(daemon.directory, name) for name in ("q.db", "q.db-wal")]
    samples.append((time.monotonic(), daemon.memory_bytes(), len(os.listdir(f"/proc/{pid}/fd")),
                    len(os.listdir(f"/proc/{pid}/task")),
                    sum(os.path.getsize(file) for file in files if os.path.exists(file))))
for thread in threads:
    thread.join()
figure("cycles", done[0])
# The first third may grow: allocators and caches fill.
steady = samples[len(samples) // 3:]
hours = max((steady[-1][0] - steady[0][0]) / 3600, 1e-9)
slope = (steady[-1][1] - steady[0][1]) / (1 << 20) / hours
figure("resident MB at first and last, slope in MB/h",
       (steady[0][1] >> 20, steady[-1][1] >> 20, round(slope, 1)))
for place, name in ((2, "descriptors"), (3, "threads"), (4, "bytes of file and log")):
    values = [sample[place] for sample in steady]
    figure(f"{name}, least and most", (min(values), max(values)))
promise(steady[-1][1] - steady[0][1] < 8 << 20, "memory is flat")
promise(max(sample[2] for sample in steady) < 100, "descriptors are flat")
promise(max(sample[3] for sample in steady) < 50, "threads are flat")
promise(max(sample[4] for sample in steady) < 64 << 20, "file and log are flat")
promise(daemon.stop() == 0, "stops in order")
finish()
