#!/usr/bin/env python3
"""Row 6: a limit on the size of files (RLIMIT_FSIZE). SIGXFSZ kills a process by default; the
daemon has to live on, refuse puts as on a full disk, and go on when the limit is lifted."""

import resource

from daemon import (
    Daemon, Ledger, REFUSALS_MANY, eventually, figure, finish, folder, promise,
    put_until_refused,
)

LIMIT = 2 * 1024 * 1024


def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))


for level in ("write", "sync"):
    daemon = Daemon(folder(), f'durability = "{level}"\ncommit_timeout = "1s"', before=limit)
    promise(daemon.ready(), f"{level}: starts")
    ledger = Ledger()
    peer, answers = put_until_refused(daemon, ledger, daemon.connect(), 10_000, 100_000)
    figure(f"{level}: answers to puts", answers)
    promise(daemon.is_alive(), f"{level}: survives SIGXFSZ")
    promise(answers.get("OUT_OF_MEMORY", 0) >= REFUSALS_MANY, f"{level}: puts are refused in words")
    promise(daemon.log().count(" crit ") <= 3, f"{level}: said once")
    promise(ledger.work(peer), f"{level}: consumers are served")
    infinity = resource.RLIM_INFINITY
    resource.prlimit(daemon.pid(), resource.RLIMIT_FSIZE, (infinity, infinity))
    took = eventually(f"{level}: goes on", lambda: ledger.put(peer).startswith("INSERTED"))
    figure(f"{level}: seconds until it goes on", took)
    daemon.kill()
    promise(daemon.again(), f"{level}: starts again after kill -9")
    ledger.judge(ledger.drain(daemon.connect()), level)

# With no room for what a start has to write it says so and ends; the signal must not end it.
directory = folder()
resource_limits = (4096, 32_768)
for bytes_max in resource_limits:
    what = f"start with a limit of {bytes_max} bytes"
    daemon = Daemon(directory, before=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY)))
    if daemon.ready():
        daemon.kill()
    else:
        code = daemon.process.returncode
        figure(what, f"exit {code}")
        promise(code == 74, f"{what}: ends with 74 and a word ({daemon.log().strip()[-120:]})")
    fine = Daemon(directory)
    promise(fine.ready(), f"{what}: the file is as it was")
    fine.kill()
finish()
