"""A real Laravel worker: jobs a second, and how long a job takes from dispatch to handled.

Laravel's queue is Debian's php-illuminate-queue with Pheanstalk. Jobs a second are those of a
backlog that stands ready; the time from dispatch is that of a steady rate which all can follow,
counted from the moment at which a job was to be dispatched. Beside Laravel's `database` driver, on
SQLite with a WAL and synchronous=NORMAL (which a crash of the program loses nothing with), stands
durability `write`. How long its jobs take is no row: that is how long its workers sleep between two
looks at the table.
"""

import json
import os
import shutil
import subprocess

from lib.row import Failed, LeftOut, Row, alternate
from lib.servers import new_folder, start_beanstalkd, start_ours

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "laravel")
PACKAGES = {
    "/usr/share/php/Illuminate/Queue/Worker.php": "php-illuminate-queue",
    "/usr/share/php/Illuminate/Events/autoload.php": "php-illuminate-events",
    "/usr/share/php/Illuminate/Bus/autoload.php": "php-illuminate-bus",
    "/usr/share/php/Illuminate/Database/autoload.php": "php-illuminate-database",
    "/usr/share/php/Pheanstalk": "php-pda-pheanstalk",
}
RATE = 500


def check_packages():
    if not shutil.which("php"):
        raise LeftOut("needs Debian's php-cli")
    missing = [name for path, name in PACKAGES.items() if not os.path.exists(path)]
    modules = subprocess.run(["php", "-m"], stdout=subprocess.PIPE, text=True, check=True).stdout
    if "pdo_sqlite" not in modules:
        missing.append("php-sqlite3")
    if missing:
        raise LeftOut("needs Debian's " + ", ".join(missing))


class Workers:
    """Worker processes at one queue, which is named as the script `application.php` wants it."""

    def __init__(self, queue, count):
        self.queue, self.count = str(queue), count
        self.processes = []

    def __enter__(self):
        # One after the other: SQLite does not wait for a lock where the first makes the file.
        for _ in range(self.count):
            self.processes.append(self._php("work.php", stdin=subprocess.PIPE))
            if self.processes[-1].stdout.readline() != "ready\n":
                self.__exit__()
                raise Failed("a Laravel worker does not start")
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def _php(self, script, *words, **how):
        environment = dict(os.environ, QUEUE=self.queue)
        return subprocess.Popen(["php", "-d", "display_errors=stderr", os.path.join(HERE, script),
                                 *map(str, words)], stdout=subprocess.PIPE, text=True,
                                env=environment, **how)

    def dispatch(self, jobs, rate=0):
        """Dispatches so many jobs, and behind them what ends each worker."""
        process = self._php("dispatch.php", jobs, rate, self.count)
        process.communicate()
        if process.returncode != 0:
            raise Failed("Laravel cannot dispatch")

    def begin(self):
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()

    def end(self, jobs):
        """Waits for the workers; jobs a second, and the 99th percentile in microseconds."""
        said = [process.communicate(timeout=300)[0] for process in self.processes]
        if any(process.returncode != 0 for process in self.processes):
            raise Failed("a Laravel worker has failed")
        told = [one for one in map(json.loads, said) if one["latencies"]]
        latencies = {}
        for one in told:
            # PHP calls a dictionary whose keys are 0, 1, 2 and so on a list.
            part = one["latencies"]
            part = dict(enumerate(part)) if isinstance(part, list) else part
            if latencies.keys() & map(int, part.keys()):
                raise Failed("a job was handled twice")
            latencies |= {int(number): us for number, us in part.items()}
        if len(latencies) != jobs:
            raise Failed(f"{len(latencies)} of {jobs} jobs were handled")
        seconds = (max(one["last"] for one in told) - min(one["first"] for one in told)) / 1e9
        ordered = sorted(latencies.values())
        return (jobs - 1) / seconds, ordered[int(0.99 * (jobs - 1))]


def backlog(queue, count, jobs):
    """Jobs a second of workers with a backlog before them."""
    with Workers(queue, count) as workers:
        workers.dispatch(jobs)
        workers.begin()
        return workers.end(jobs)[0]


def steady(queue, count, jobs):
    """p99 from dispatch to handled, in milliseconds, at a steady rate."""
    with Workers(queue, count) as workers:
        workers.begin()
        workers.dispatch(jobs, RATE)
        return workers.end(jobs)[1] / 1000


def over_beanstalk(start, options, work, count, jobs):
    """A function that makes one run on a fresh server."""
    def run(figures):
        with start(options, "write") as server:
            before = server.cpu_seconds()
            figure = work(server.ports["beanstalk"], count, jobs)
            figures.add(figure, (server.cpu_seconds() - before) * 1e6 / jobs)
    return run


def over_database(options, work, count, jobs):
    """The same with a fresh SQLite file."""
    def run(figures):
        folder = new_folder(options)
        try:
            figures.add(work(os.path.join(folder, "jobs.db"), count, jobs))
        finally:
            shutil.rmtree(folder)
    return run


def against_beanstalkd(work, count, jobs):
    def measure(options):
        check_packages()
        amount = jobs // 5 if options.quick else jobs
        return alternate(options, over_beanstalk(start_ours, options, work, count, amount),
                         over_beanstalk(start_beanstalkd, options, work, count, amount))
    return measure


def against_database(count, jobs):
    def measure(options):
        check_packages()
        amount = jobs // 5 if options.quick else jobs
        return alternate(options, over_beanstalk(start_ours, options, backlog, count, amount),
                         over_database(options, backlog, count, amount))
    return measure


def processes(count):
    return "1 process" if count == 1 else f"{count} processes"


ROWS = [
    *(Row(f"Laravel worker, {processes(count)}", "write",
          against_beanstalkd(backlog, count, 10_000), 1.0, unit="jobs/s", quick=count == 1)
      for count in (1, 4)),
    *(Row(f"Laravel worker, {processes(count)}, p99 at {RATE} jobs/s", "write",
          against_beanstalkd(steady, count, 2_500), 1.0, unit="ms", lower_is_better=True,
          quick=False)
      for count in (1, 4)),
    *(Row(f"Laravel worker, {processes(count)}", "write", against_database(count, 5_000), 1.5,
          unit="jobs/s", other="database driver, SQLite", quick=count == 1)
      for count in (1, 4)),
]
