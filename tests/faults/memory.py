#!/usr/bin/env python3
"""Row 17: `limits.max_memory` is reached. Puts are refused, consumers are served, the process
stays within its limit's order of size, and puts are taken again when there is room. With root, in
a memory control group of twice the limit, so that going over it would kill."""

import os

from daemon import Daemon, Others, eventually, figure, finish, folder, promise

LIMIT = 64 * 1024 * 1024
MEMORY = "/sys/fs/cgroup/memory"


def run(level, before):
    what = level
    storage = f'min_free_disk = "0B"\ndurability = "{level}"'
    directory = folder("/var/tmp")
    daemon = Daemon(directory, storage, 'max_memory = "64MiB"', before=before)
    promise(daemon.ready(), f"{what}: starts")
    others = Others(daemon)
    peer = daemon.connect()
    body = b"x" * 1024
    inserted, refused, word = 0, 0, ""
    while refused < 200 and inserted < 200_000:
        batch = b"".join(b"put 0 0 60 %d\r\n%s\r\n" % (len(body), body) for _ in range(100))
        peer.say(batch)
        for _ in range(100):
            answer = peer.line()
            if answer.startswith("INSERTED"):
                inserted += 1
            else:
                refused, word = refused + 1, answer
    figure(f"{what}: put, refused, word", (inserted, refused, word))
    promise(word == "OUT_OF_MEMORY", f"{what}: puts are refused in words")
    figure(f"{what}: resident / limit", round(daemon.memory_bytes() / LIMIT, 2))
    figure(f"{what}: highest resident / limit", round(daemon.memory_bytes("VmHWM") / LIMIT, 2))
    promise(daemon.memory_bytes("VmHWM") < 2 * LIMIT, f"{what}: stays below twice the limit")
    taken = 0
    for _ in range(inserted // 5):
        found = peer.reserve()
        if found is None or peer.delete(found[0]) != "DELETED":
            break
        taken += 1
    promise(taken == inserted // 5, f"{what}: consumers are served ({taken})")
    eventually(f"{what}: puts are taken again", lambda: peer.put(body).startswith("INSERTED"))
    others.end_of_harm()
    before, during, _ = others.report(what)
    promise(during < 50 + 20 * before, f"{what}: others are answered as before")
    promise(daemon.stop() == 0, f"{what}: stops in order")


group = None
in_group = None
if os.geteuid() == 0 and os.path.isdir(MEMORY) and os.access(MEMORY, os.W_OK):
    group = f"{MEMORY}/phpmq-fault-{os.getpid()}"
    os.mkdir(group)
    try:
        with open(f"{group}/memory.limit_in_bytes", "w") as file:
            file.write(str(2 * LIMIT))
    except OSError as error:
        print(f"skipped: the control group: {error}")

    def in_group():
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
else:
    print("skipped: the control group, which needs root and version 1")
try:
    run("write", in_group)
    run("periodic", in_group)
finally:
    if group:
        os.rmdir(group)
finish()
