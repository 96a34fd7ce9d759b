#!/usr/bin/env python3
"""Plays random command sequences to beanstalkd and to phpmqd and compares every answer.

A worker starts a fresh pair of servers, plays a batch of sequences to it and compares the totals
too. A difference ends the batch; it is played again to tell whether it can be repeated.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time

from sequences import Difference, OutOfStep, Sequence
from servers import AGREEMENT_SECONDS, JOB_SIZE_MAX, Pair, Server

BATCH_SEQUENCES = 20
# How phpmqd is started, batch by batch.
FORMS = ["memory", "database", "memory", "drop-in"]
# One sequence in so many needs the clock.
CLOCK_EVERY = 20
# Slower than this, a sequence without a clock may have met a time-out all the same.
QUICK_SECONDS = 0.7
REPLAYS = 2
SHOWN_STEPS = 40
# Set when there are differences enough.
enough = None


def start_pair(options, folder, tcp, form):
    servers = []
    try:
        servers.append(Server("reference", options.beanstalkd, folder, tcp))
        size = 1000 if options.control else JOB_SIZE_MAX
        servers.append(Server("tested", options.phpmqd, folder, tcp, size, form))
        return Pair(*servers)
    except BaseException:
        for server in servers:
            server.stop()
        raise


def play_batch(options, numbers):
    """Plays these sequences to one fresh pair. Returns how many agreed, and what did not:
    nothing when an accepted difference was met."""
    batch = numbers[0] // BATCH_SEQUENCES
    tcp = options.tcp or batch % 3 == 2
    form = FORMS[batch % len(FORMS)]
    with tempfile.TemporaryDirectory(prefix="diff") as folder:
        pair = start_pair(options, folder, tcp, form)
        try:
            for agreed, number in enumerate(numbers):
                with_clock = number % CLOCK_EVERY == CLOCK_EVERY - 1
                sequence = Sequence(pair, options.seed, number, with_clock, options.verbose)
                started = time.monotonic()
                try:
                    sequence.play()
                except OutOfStep:
                    return agreed, None
                except (Difference, RuntimeError, OSError) as error:
                    dead = [s.kind for s in pair.servers if not s.is_alive()]
                    took = time.monotonic() - started
                    text = "sequence %d%s%s after %.2f s%s\n    %s\n%s" % (
                        number, " (clock)" if with_clock else "",
                        " (%s, %s)" % ("tcp" if tcp else "unix", form), took,
                        ", dead: %s" % dead if dead else "", error,
                        "\n".join("    " + line for line in sequence.log[-SHOWN_STEPS:]),
                    )
                    took -= AGREEMENT_SECONDS
                    if with_clock and not dead and sequence.reference_is_overdue():
                        return agreed, None
                    is_late = sequence.is_late if with_clock else took > QUICK_SECONDS
                    return agreed, (number, text, with_clock, is_late)
            return len(numbers), None
        finally:
            pair.stop()


def work(job):
    """One batch to its end, whatever differs in between. Returns how many
    agreed, how many met an accepted difference, and the differences."""
    options, numbers = job
    agreed_count, excused_count, differences = 0, 0, []
    while numbers and not enough.is_set():
        agreed, difference = play_batch(options, numbers)
        agreed_count += agreed
        if difference is None and agreed == len(numbers):
            break
        if difference is None:
            excused_count += 1
            numbers = numbers[agreed + 1:]
            continue
        number, text, with_clock, is_late = difference
        if options.control:
            return agreed_count, excused_count, [text]
        repeated = 0
        for _ in range(REPLAYS):
            _, again = play_batch(options, numbers[: agreed + 1])
            repeated += again is not None
        # A busy machine moves what is due: where the clock matters, once is not enough.
        if repeated == REPLAYS or not (with_clock or is_late):
            differences.append("%s\n    repeated %d of %d times" % (text, repeated, REPLAYS))
        else:
            agreed_count += 1
        numbers = numbers[agreed + 1:]
    return agreed_count, excused_count, differences


def begin(told_enough):
    """A worker ends when there are differences enough; one that is told to end stops its servers
    first."""
    global enough
    enough = told_enough
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--beanstalkd", default="/usr/bin/beanstalkd")
    parser.add_argument(
        "--phpmqd", required=True, type=os.path.realpath, help="or another beanstalkd"
    )
    parser.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1))
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence")
    parser.add_argument("--only", type=int, help="one sequence alone, on a fresh pair")
    parser.add_argument("--tcp", action="store_true", help="never Unix sockets")
    parser.add_argument("--control", action="store_true", help="a smaller job limit on one side")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--stop-after", type=int, default=10, help="so many differences")
    options = parser.parse_args()
    if options.only is not None:
        batches = [[options.only]]
    else:
        numbers = range(options.first, options.first + options.sequences)
        batches = [
            list(numbers[at:at + BATCH_SEQUENCES]) for at in range(0, len(numbers), BATCH_SEQUENCES)
        ]
    passed, excused, failed = 0, 0, 0
    told_enough = multiprocessing.Event()
    with multiprocessing.Pool(options.jobs, begin, [told_enough]) as pool:
        jobs = [(options, numbers) for numbers in batches]
        for agreed, unclear, differences in pool.imap_unordered(work, jobs):
            passed += agreed
            excused += unclear
            failed += len(differences)
            for text in differences:
                print("DIFFERENT (seed %s): %s\n" % (options.seed, text), flush=True)
            if failed >= options.stop_after:
                break
        # Workers are not killed: one that dies with the pool's lock in hand would stop all of it.
        told_enough.set()
        pool.close()
        pool.join()
    if excused:
        print("%d met an accepted difference" % excused)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
