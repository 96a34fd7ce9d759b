#!/usr/bin/env python3
"""Row 11: a second daemon that comes to a database by another way than the first. It must be
refused, the first must lose nothing, and the file must be sound whichever of them ends first."""

import os
import shutil
import signal
import subprocess

from daemon import Daemon, Ledger, eventually, figure, finish, folder, program, promise

MESSAGES = 500


def second(database):
    """A second daemon on this name; its exit code, or None when it serves."""
    process = subprocess.Popen(
        [program(), "--database", database, "--listen", "console=127.0.0.1:0"],
        stderr=subprocess.PIPE, env={**os.environ, "HOME": "/nonexistent"})
    try:
        text = process.communicate(timeout=10)[1].decode()
        return process.returncode, text
    except subprocess.TimeoutExpired:
        return None, process


def hard_link(directory):
    os.mkdir(os.path.join(directory, "elsewhere"))
    link = os.path.join(directory, "elsewhere", "other.db")
    os.link(os.path.join(directory, "q.db"), link)
    return link, lambda: os.remove(link)


def symbolic_link(directory):
    link = os.path.join(directory, "other.db")
    os.symlink("q.db", link)
    return link, lambda: os.remove(link)


def removed_lock(directory):
    os.remove(os.path.join(directory, "q.db.lock"))
    return os.path.join(directory, "q.db"), lambda: None


def bind_mount(directory):
    if os.geteuid() != 0:
        return None
    other = os.path.join(directory, "elsewhere")
    os.mkdir(other)
    name = os.path.join(other, "q.db")
    open(name, "w").close()
    mounted = subprocess.run(["mount", "--bind", os.path.join(directory, "q.db"), name])
    if mounted.returncode != 0:
        return None
    return name, lambda: subprocess.run(["umount", name], check=True)


for way in (hard_link, symbolic_link, removed_lock, bind_mount):
    for end in (signal.SIGTERM, signal.SIGKILL):
        what = f"{way.__name__}, then {end.name}"
        directory = folder()
        daemon = Daemon(directory)
        promise(daemon.ready(), f"{what}: the first starts")
        ledger = Ledger()
        peer = daemon.connect()
        for _ in range(MESSAGES):
            ledger.put(peer)
        made = way(directory)
        if made is None:
            figure(what, "not possible here")
            daemon.kill()
            continue
        name, undo = made
        code, said = second(name)
        promise(code == 69, f"{what}: the second is refused with 69 ({code}, {said})")
        if code is None:
            # What came of it: both end, the second one last.
            daemon.process.send_signal(end)
            daemon.process.wait()
            said.terminate()
            said.wait()
            undo()
            continue
        for _ in range(MESSAGES):
            ledger.put(peer)
        daemon.process.send_signal(end)
        code = daemon.process.wait()
        promise(code in (0, -signal.SIGKILL), f"{what}: the first ends as asked ({code})")
        undo()
        promise(daemon.again(), f"{what}: starts again")
        ledger.judge(ledger.drain(daemon.connect()), what)
        daemon.kill()
        shutil.rmtree(directory, True)
finish()
