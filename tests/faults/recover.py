#!/usr/bin/env python3
"""Damaged databases: `phpmqd --recover` gets out of a file at least what the sqlite3 shell's
`.recover` gets out of the same file, and nothing that was not put.

A daemon is killed with a database of small and large messages, some of them done or buried, and
a log beside it. Then pages of copies of it are overwritten, zeroed, swapped, put back as they were
earlier, cut off, and the log is damaged or lost, one to three of these at a time. The seed of each
copy is printed when a promise is broken; `--seed N` plays that one alone.

Some packages' shells cannot `.recover` (Debian 12's is built without what it needs): PHPMQ_SQLITE3
names another one. Without any the rest is shown all the same, and the exit code is 77.

    tests/faults/recover.py [PATH-TO-PHPMQD] [--damages 200] [--first 1] [--seed N] [--verbose]
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import daemon as faults

SHELL = os.environ.get("PHPMQ_SQLITE3", "sqlite3")
PAGE = 8192
LOG_HEADER, FRAME_HEADER = 32, 24
COLUMNS = "id, queue, priority, sequence, created, expires, due, ttr, attributes, body"


def option(name, default):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


def make(directory):
    """A database as a killed daemon leaves it. Returns its first page at an earlier time, and the
    rows of all messages that ever were."""
    here = random.Random(7)
    left, ever = [], {}

    def put(count):
        for _ in range(count):
            peer.ask(f"use tube{here.randrange(12)}")
            size = here.choice([20, 100, 100, 100, 400, 3000, 9000, 40000])
            left.append(int(peer.put(faults.body_of(here.randrange(10**9), size)).split()[1]))
        # Confirmed, so they are in the file or its log.
        ever.update(rows_of(f"{directory}/q.db")[0])

    def delete(count):
        for _ in range(count):
            peer.delete(left.pop(here.randrange(len(left))))

    server = faults.Daemon(directory)
    if not server.ready():
        faults.skip("the daemon does not start here")
    peer = server.connect()
    put(500)
    server.stop()
    with open(f"{directory}/q.db", "rb") as file:
        first_page = file.read(PAGE)
    server.again()
    peer = server.connect()
    for tube in range(12):
        peer.ask(f"watch tube{tube}")
    put(1500)
    delete(900)
    # What comes back is moved: it has a state.
    for _ in range(150):
        number = peer.reserve()[0]
        peer.ask(here.choice([f"bury {number} 7", f"release {number} 7 0"]))
    # Into the file, which has free pages then; and more that the log alone holds.
    with closing(sqlite3.connect(f"{directory}/q.db")) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    put(300)
    delete(150)
    server.kill()
    peer.close()
    return first_page, ever


class Case:
    """A copy with some damages."""

    def __init__(self, seed, original, first_page, directory):
        self.random = random.Random(seed)
        self.path = os.path.join(directory, f"case{seed}.db")
        self.what = []
        with open(f"{original}/q.db", "rb") as file:
            self.file = bytearray(file.read())
        with open(f"{original}/q.db-wal", "rb") as file:
            self.log = bytearray(file.read())
        ways = [self.zero, self.overwrite, self.overwrite_some, self.swap, self.cut, self.frame,
                self.log_header, self.lose_log, self.old_first_page, self.lose_first_page,
                self.swap, self.zero, self.overwrite, self.log_cut, self.lose_file]
        self.first_page = first_page
        for way in self.random.sample(ways, self.random.choice([1, 1, 2, 3])):
            way()
        for suffix in ["", "-wal"]:
            content = self.log if suffix else self.file
            for name in [self.path, self.path + ".theirs"]:
                if content is not None:
                    with open(name + suffix, "wb") as file:
                        file.write(content)

    def page(self):
        """Where a page begins, early ones more often: roots and inner pages are among them."""
        pages = max(1, len(self.file) // PAGE)
        last = min(pages, 12) if self.random.random() < 0.4 else pages
        return self.random.randrange(last) * PAGE

    def noise(self, count):
        return self.random.randbytes(count)

    def zero(self):
        for _ in range(self.random.randrange(1, 6)):
            at = self.page()
            self.what.append(f"page {at // PAGE + 1} zeroed")
            self.file[at:at + PAGE] = bytes(len(self.file[at:at + PAGE]))

    def overwrite(self):
        for _ in range(self.random.randrange(1, 6)):
            at = self.page()
            self.what.append(f"page {at // PAGE + 1} overwritten")
            self.file[at:at + PAGE] = self.noise(len(self.file[at:at + PAGE]))

    def overwrite_some(self):
        at = self.page() + self.random.randrange(PAGE)
        count = self.random.randrange(1, 600)
        self.what.append(f"{count} bytes at {at} overwritten")
        self.file[at:at + count] = self.noise(len(self.file[at:at + count]))

    def swap(self):
        for _ in range(self.random.randrange(1, 4)):
            one, two = self.page(), self.page()
            self.what.append(f"pages {one // PAGE + 1} and {two // PAGE + 1} swapped")
            self.file[one:one + PAGE], self.file[two:two + PAGE] = \
                self.file[two:two + PAGE], self.file[one:one + PAGE]

    def cut(self):
        length = self.random.randrange(len(self.file))
        if self.random.random() < 0.5:
            length -= length % PAGE
        self.what.append(f"cut to {length} bytes")
        del self.file[length:]

    def frame(self):
        if self.log:
            frames = (len(self.log) - LOG_HEADER) // (FRAME_HEADER + PAGE)
            at = LOG_HEADER + self.random.randrange(max(1, frames)) * (FRAME_HEADER + PAGE)
            begin = at + self.random.choice([0, FRAME_HEADER, FRAME_HEADER + 4000])
            count = self.random.choice([1, 64, PAGE])
            self.what.append(f"{count} bytes of the log at {begin} overwritten")
            self.log[begin:begin + count] = self.noise(len(self.log[begin:begin + count]))

    def log_header(self):
        if self.log:
            self.what.append("header of the log overwritten")
            self.log[:LOG_HEADER] = self.noise(LOG_HEADER)

    def log_cut(self):
        if self.log:
            length = self.random.randrange(len(self.log))
            self.what.append(f"log cut to {length} bytes")
            del self.log[length:]

    def lose_log(self):
        self.what.append("log lost")
        self.log = None

    def lose_file(self):
        if self.random.random() < 0.3:
            self.what.append("file cut to nothing")
            del self.file[:]

    def old_first_page(self):
        self.what.append("old first page put back")
        self.file[:PAGE] = self.first_page

    def lose_first_page(self):
        self.what.append("first page zeroed")
        self.file[:PAGE] = bytes(PAGE)


def theirs(path):
    """Messages that `.recover` finds, in the table or beside it: pairs of id and body."""
    shell = subprocess.run([SHELL, path, ".recover"], capture_output=True, timeout=600)
    made = path + ".made"
    subprocess.run([SHELL, made], input=shell.stdout, capture_output=True, timeout=600)
    found = set()
    with closing(sqlite3.connect(made)) as connection:
        connection.text_factory = bytes
        try:
            found.update(connection.execute("SELECT id, body FROM message"))
        except sqlite3.Error:
            pass
        try:
            rows = connection.execute("SELECT * FROM lost_and_found WHERE nfield = 11")
            found.update((row[3], row[14]) for row in rows)
        except (sqlite3.Error, IndexError):
            pass
    return found


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        rows = {row[0]: row[1:] for row in connection.execute(f"SELECT {COLUMNS} FROM message")}
        names = dict(connection.execute("SELECT id, name FROM queue"))
    return rows, names


def play(seed, original, first_page, ever, names, alive, directory):
    """Damages a copy and repairs it in both ways; the figures."""
    case = Case(seed, original, first_page, directory)
    said = subprocess.run([faults.program(), "--database", case.path, "--recover"],
                          capture_output=True, timeout=600, text=True)
    shell = theirs(case.path + ".theirs")
    shell_alive = {number for number, body in shell if number in alive
                   and isinstance(body, bytes) and body == ever[number][-1]}
    ours, our_names = {}, {}
    if said.returncode == 0:
        ours, our_names = rows_of(case.path)
    story = f"seed {seed}: {', '.join(case.what) or 'nothing'}"
    wrong = [number for number, row in ours.items() if ever.get(number) != row]
    if wrong:
        faults.promise(False, f"{story}: nothing is made up ({wrong[:5]})")
    for number, row in ours.items():
        name = our_names.get(row[0])
        if name != names[row[0]] and name != b"recovered-%d" % row[0]:
            faults.promise(False, f"{story}: the queue of message {number} is another one")
            break
    missed = shell_alive - ours.keys()
    if missed:
        faults.promise(False, f"{story}: {len(missed)} that .recover finds are missing: "
                              f"{sorted(missed)[:5]}; {said.stdout}{said.stderr}")
    if said.returncode not in (0, 65) or "--recover" in said.stderr:
        faults.promise(False, f"{story}: exit {said.returncode}: {said.stderr}")
    if said.returncode == 0:
        checked = subprocess.run([faults.program(), "--database", case.path, "--recover"],
                                 capture_output=True, timeout=600, text=True)
        if "is intact" not in checked.stdout:
            faults.promise(False, f"{story}: what was made is not sound: {checked.stdout}")
    if "--seed" in sys.argv:
        print(f"{story}\nexit {said.returncode}: {said.stdout}{said.stderr}")
    else:
        for name in os.listdir(directory):
            os.remove(os.path.join(directory, name))
    figures = len(alive & ours.keys()), len(shell_alive), len(ours.keys() - alive)
    if "--verbose" in sys.argv:
        print(f"{story}: kept {figures[0]}, by .recover {figures[1]}, done before {figures[2]}")
    return figures


def main():
    faults.need(SHELL)
    directory = faults.folder()
    original = os.path.join(directory, "original")
    cases = os.path.join(directory, "cases")
    os.mkdir(original)
    os.mkdir(cases)
    first_page, ever = make(original)
    whole = os.path.join(directory, "whole.db")
    for suffix in ["", "-wal"]:
        shutil.copy(f"{original}/q.db{suffix}", whole + suffix)
    rows, names = rows_of(whole)
    faults.figure("messages", f"{len(rows)} left, {len(ever) - len(rows)} done, "
                  f"{os.path.getsize(f'{original}/q.db') // PAGE} pages, "
                  f"{os.path.getsize(f'{original}/q.db-wal') // (PAGE + FRAME_HEADER)} frames")
    shell_can = {number for number, _ in theirs(whole)} >= rows.keys()
    first, count = option("--first", 1), option("--damages", 200)
    seeds = [option("--seed", 0)] if "--seed" in sys.argv else range(first, first + count)
    total_ours = total_theirs = total_back = better = 0
    for seed in seeds:
        ours, shell, back = play(seed, original, first_page, ever, names, rows.keys(), cases)
        total_ours, total_theirs = total_ours + ours, total_theirs + shell
        total_back, better = total_back + back, better + (ours > shell)
    faults.figure("damages", f"{len(seeds)}, seeds {seeds[0]} to {seeds[-1]}")
    faults.figure("messages left that were kept", f"{total_ours}; by .recover {total_theirs}")
    faults.figure("damages of which more was kept than .recover does", better)
    faults.figure("messages that had been done and came back", total_back)
    faults.promise(total_ours >= total_theirs, "at least as much as .recover keeps")
    faults.promise(total_ours > 0, "something is kept")
    if not shell_can and not faults.broken():
        faults.skip(f"{SHELL} cannot .recover a sound file; the rest holds")
    faults.finish()


main()
