#!/usr/bin/env python3
"""Row 7: the n-th write or sync of the running daemon fails (strace injects it). Nobody gets a
false confirmation, and the daemon writes a new file and goes on by itself, or ends with 74 where
it is configured to.

`--every N` takes each N-th n up to `--last N` (7 and 120). Needs strace; no root."""

import argparse
import subprocess

from daemon import Daemon, Ledger, eventually, figure, finish, folder, need, promise

need("strace")
arguments = argparse.ArgumentParser()
arguments.add_argument("program", nargs="?")
arguments.add_argument("--every", type=int, default=7)
arguments.add_argument("--last", type=int, default=120)
arguments = arguments.parse_args()
totals = {"runs": 0, "injected": 0, "unconfirmed": 0, "closed": 0, "lost": 0, "not started": 0}


def run(call, error, when, level, on_io_error="rewrite"):
    what = f"{call} {error} {when}, {level}, {on_io_error}"
    directory = folder()
    trace = f"{directory}/trace"
    inject = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", trace,
              "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
    storage = (f'durability = "{level}"\non_io_error = "{on_io_error}"\n'
               'min_free_disk = "0B"\ncommit_timeout = "1s"')
    daemon = Daemon(directory, storage, prefix=inject)
    totals["runs"] += 1
    ledger = Ledger()
    if daemon.ready():
        peer = daemon.connect()
        for _ in range(60):
            if not daemon.is_alive():
                break
            try:
                if not ledger.put(peer, 300).startswith("INSERTED"):
                    totals["unconfirmed"] += 1
                if ledger.next % 3 == 0:
                    ledger.work(peer)
            except OSError:
                totals["closed"] += 1
                try:
                    peer = daemon.connect()
                except OSError:
                    break
        if on_io_error == "rewrite":
            def goes_on():
                nonlocal peer
                try:
                    return ledger.put(peer).startswith("INSERTED")
                except OSError:
                    peer = daemon.connect()
                    return False
            if eventually(f"{what}: goes on by itself", goes_on, 30) is None:
                print(daemon.log())
        elif daemon.process.poll() is not None:
            promise(daemon.process.returncode == 74, f"{what}: exit {daemon.process.returncode}")
    else:
        totals["not started"] += 1
        code = daemon.process.returncode
        if code not in (73, 74):
            promise(False, f"{what}: refuses to start with {code}\n{daemon.log()}")
    daemon.kill()
    with open(trace) as file:
        totals["injected"] += file.read().count("(INJECTED)")
    if not daemon.again():
        promise(False, f"{what}: does not start again\n{daemon.log()}")
        return
    left = ledger.drain(daemon.connect())
    lost = ledger.confirmed.keys() - set(left) - ledger.doing
    back = set(left) & ledger.done
    totals["lost"] += len(lost)
    if lost or back:
        promise(False, f"{what}: {len(lost)} lost, {len(back)} came back")
    daemon.kill()


sync_calls = "fsync,fdatasync"
for when in range(1, arguments.last + 1, arguments.every):
    run(sync_calls, "EIO", str(when), "sync")
    run("pwrite64", "EIO", str(when), "write" if when % 2 else "sync")
    run("pwrite64", "ENOSPC", f"{when}..{when + 5}", "write" if when % 2 else "sync")
for when in (30, 33, 40):
    run(sync_calls, "EIO", f"{when}..{when + 3}", "sync")
    run(sync_calls, "EIO", f"{when}..{when + 3}", "sync", "exit")
figure("all runs", totals)
promise(totals["lost"] == 0, "no false confirmation")
promise(totals["injected"] > 0 and totals["unconfirmed"] + totals["closed"] > 0,
        "errors were met and told")
finish()
