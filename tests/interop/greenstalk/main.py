"""What a user of greenstalk does: queues, retries, failures, reconnects."""

import os
import random
import signal
import sys
import threading
import time

import greenstalk

TCP = (os.environ["BEANSTALK_HOST"], int(os.environ["BEANSTALK_PORT"]))
UNIX = os.environ["BEANSTALK_SOCKET"]
ADDRESS = TCP
PATIENCE_SECONDS = 10


def client(tube="default"):
    made = greenstalk.Client(ADDRESS, use=tube, watch=tube)
    # Tests share a server: start empty.
    for peek in (made.peek_ready, made.peek_delayed, made.peek_buried):
        while True:
            try:
                made.delete(peek())
            except greenstalk.NotFoundError:
                break
    return made


def raises(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error:
        return
    raise AssertionError("no %s" % error.__name__)


def restart():
    """Kills the daemon without warning, and waits until it serves again."""
    with open(os.environ["PHPMQD_PID_FILE"], encoding="utf-8") as file:
        pid = int(file.read())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if greenstalk.Client(TCP).stats()["pid"] != pid:
                return
        except (OSError, greenstalk.Error):
            assert time.monotonic() < deadline, "the daemon does not come back"
            time.sleep(0.01)


def jobs_come_by_priority_and_age():
    with client("order") as queue:
        ids = [queue.put(str(n), priority=p) for n, p in enumerate([5, 1, 5, 0])]
        got = [queue.reserve(timeout=0) for _ in ids]
        assert [job.body for job in got] == ["3", "1", "0", "2"], got
        raises(greenstalk.TimedOutError, queue.reserve, timeout=0)


def bodies_come_back_byte_for_byte():
    with greenstalk.Client(ADDRESS, encoding=None) as queue:
        for body in (b"", b"\r\n", bytes(range(256)) * 200):
            queue.put(body)
            job = queue.reserve(timeout=1)
            assert job.body == body
            queue.delete(job)
        raises(greenstalk.JobTooBigError, queue.put, b"x" * (16 * 1024 * 1024 + 1))
        queue.delete(queue.put(b"x" * (16 * 1024 * 1024)))


def delayed_and_released_jobs_come_when_due():
    with client("delays") as queue:
        started = time.monotonic()
        queue.put("later", delay=1)
        raises(greenstalk.TimedOutError, queue.reserve, timeout=0)
        job = queue.reserve(timeout=5)
        assert 0.9 < time.monotonic() - started < 2
        queue.release(job, priority=3, delay=1)
        assert queue.stats_job(job)["state"] == "delayed"
        job = queue.reserve(timeout=5)
        facts = queue.stats_job(job)
        assert 1.9 < time.monotonic() - started < 4
        assert (facts["reserves"], facts["releases"], facts["pri"]) == (2, 1, 3), facts


def a_job_whose_time_is_over_goes_to_another_worker():
    with client("slow") as slow, greenstalk.Client(ADDRESS, watch="slow") as other:
        slow.put("work", ttr=2)
        job = slow.reserve(timeout=0)
        started = time.monotonic()
        raises(greenstalk.DeadlineSoonError, slow.reserve, timeout=5)
        assert 0.8 < time.monotonic() - started < 1.8
        slow.touch(job)
        taken = other.reserve(timeout=5)
        assert taken.id == job.id and time.monotonic() - started > 2.5
        raises(greenstalk.NotFoundError, slow.delete, job)
        assert other.stats_job(taken)["timeouts"] == 1
        other.delete(taken)


def failed_jobs_are_buried_looked_at_and_kicked():
    with client("failures") as queue:
        for n in range(5):
            queue.put(str(n))
            queue.bury(queue.reserve(timeout=0))
        assert queue.peek_buried().body == "0"
        assert queue.stats_tube("failures")["current-jobs-buried"] == 5
        first = queue.peek_buried()
        queue.kick_job(first)
        assert queue.reserve(timeout=0).id == first.id
        assert queue.kick(3) == 3 and queue.kick(10) == 1 and queue.kick(10) == 0
        assert queue.stats_tube("failures")["current-jobs-ready"] == 4


def tubes_are_watched_listed_and_paused():
    with client("one") as queue:
        queue.watch("two")
        assert sorted(queue.watching()) == ["one", "two"] and queue.using() == "one"
        queue.ignore("one")
        raises(greenstalk.NotIgnoredError, queue.ignore, "two")
        assert {"one", "two", "default"} >= set(queue.tubes()) & {"one", "two", "default"}
        queue.use("two")
        queue.put("held up")
        queue.pause_tube("two", 1)
        raises(greenstalk.TimedOutError, queue.reserve, timeout=0)
        queue.delete(queue.reserve(timeout=3))
        raises(greenstalk.NotFoundError, queue.stats_tube, "no-such")
        raises(greenstalk.BadFormatError, queue.use, "-bad")


def what_a_lost_worker_held_can_be_had_at_once():
    lost = client("lost")
    for _ in range(50):
        lost.put("work")
        job = lost.reserve(timeout=0)
        # A second client that has been there before, and one that connects only now.
        with greenstalk.Client(ADDRESS, watch="lost") as other:
            lost.close()
            assert other.reserve_job(job.id).id == job.id
            other.delete(job)
        lost = client("lost")
    lost.close()


def a_kill_loses_nothing_that_was_confirmed():
    with client("kept") as queue:
        ids = [queue.put("kept %d" % n, priority=n) for n in range(100)]
        done = queue.reserve(timeout=0)
        queue.delete(done)
        tried = queue.reserve(timeout=0)
        queue.release(tried, priority=1)
        buried = queue.reserve(timeout=0)
        queue.bury(buried)
        queue.reserve(timeout=0)
        restart()
        raises((OSError, greenstalk.Error, AssertionError), queue.stats)
    with greenstalk.Client(ADDRESS, use="kept", watch="kept") as queue:
        facts = queue.stats_tube("kept")
        assert (facts["current-jobs-ready"], facts["current-jobs-buried"]) == (98, 1), facts
        raises(greenstalk.NotFoundError, queue.peek, done.id)
        facts = queue.stats_job(buried)
        assert (facts["state"], facts["reserves"], facts["buries"]) == ("buried", 2, 1), facts
        assert facts["releases"] == 1
        left = [queue.reserve(timeout=0) for _ in range(98)]
        assert [job.id for job in left] == [job for job in ids if job not in (done.id, buried.id)]
        assert queue.put("new") > max(ids)
    client("kept").close()


def every_job_is_worked_once_with_retries():
    total, producers, workers = 600, 3, 4
    done, lock = [], threading.Lock()

    def produce(part):
        with greenstalk.Client(ADDRESS, use="busy") as queue:
            for n in range(part, total, producers):
                queue.put(str(n), ttr=30)

    def work(seed):
        chance = random.Random(seed)
        queue = greenstalk.Client(ADDRESS, watch="busy")
        while True:
            try:
                job = queue.reserve(timeout=1)
            except greenstalk.TimedOutError:
                break
            choice = chance.random()
            if choice < 0.1:
                queue.release(job)
            elif choice < 0.15:
                queue.close()
                queue = greenstalk.Client(ADDRESS, watch="busy")
            elif choice < 0.2:
                queue.bury(job)
                queue.kick_job(job)
            else:
                queue.delete(job)
                with lock:
                    done.append(job.body)
        queue.close()

    threads = [threading.Thread(target=produce, args=(part,)) for part in range(producers)]
    threads += [threading.Thread(target=work, args=(seed,)) for seed in range(workers)]
    client("busy").close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, done)) == list(range(total)), len(done)


def statistics_are_there():
    with client() as queue:
        facts = queue.stats()
        assert facts["max-job-size"] == 16 * 1024 * 1024 and facts["draining"] == "false"
        assert facts["binlog-current-index"] == 1 and facts["current-connections"] >= 1


TESTS = [
    jobs_come_by_priority_and_age,
    bodies_come_back_byte_for_byte,
    delayed_and_released_jobs_come_when_due,
    a_job_whose_time_is_over_goes_to_another_worker,
    failed_jobs_are_buried_looked_at_and_kicked,
    tubes_are_watched_listed_and_paused,
    what_a_lost_worker_held_can_be_had_at_once,
    every_job_is_worked_once_with_retries,
    statistics_are_there,
    a_kill_loses_nothing_that_was_confirmed,
]


def main():
    global ADDRESS
    passed, failed = 0, 0
    for ADDRESS in (TCP, UNIX):
        for test in TESTS:
            name = "%s (%s)" % (test.__name__, "tcp" if ADDRESS == TCP else "unix")
            try:
                test()
                passed += 1
                print("ok   ", name)
            except Exception as error:  # every failure is reported, the rest goes on
                failed += 1
                print("FAIL ", name, type(error).__name__, error)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
