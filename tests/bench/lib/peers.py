"""Messages a second, beside servers of other protocols, at equal durability.

Ours is asked in the beanstalk protocol by `phpmqctl bench`, the others in their own by the load
generator in tests/bench/peers, whose first page says what putting, taking and acknowledging is for
each. Equal durability means what an answer promises, as far as each server goes:

`periodic`  An answer promises nothing; ours still writes to its file 20 times a second, the others
            have no file at all.
`write`     What was answered survives the end of the process, and a power cut but for the last
            moments: 50 ms for ours, a second for Redis, two minutes for NATS.
`sync`      What was answered survives a power cut. RabbitMQ belongs here and not to `write`: seen
            with strace, 3.10 syncs its file before it confirms a persistent message that nobody has
            acknowledged yet. Its acknowledgements, like those of NATS and Gearman, have no answer.
"""

import os
import shutil

from lib.load import bench, figures_of
from lib.row import Failed, LeftOut, Row, alternate
from lib.servers import TICKS_PER_SECOND, Server, free_port, new_folder, start_ours

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GENERATOR = os.path.join(HERE, "peers", "target", "release", "phpmq-peers")
# The script itself: Debian's wrapper in the path insists on the system's user and folders.
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# Where servers are that the shell of an ordinary user does not find.
SERVER_FOLDERS = "/usr/local/sbin:/usr/sbin"
# Issue 5: against each of these servers.
GOAL = 1.5


def need(program, package):
    """Where a program is."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SERVER_FOLDERS}")
    if not found:
        raise LeftOut(f"no {os.path.basename(program)}: apt-get install {package}")
    return found


def start_redis(*words):
    def start(options):
        program = need("redis-server", "redis-server")
        folder, port = new_folder(options), free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
                   "--loglevel", "warning", "--save", "", *words]
        return Server(command, {"": port}, folder)
    return start


def start_nats(options):
    program = need("nats-server", "nats-server")
    folder, port = new_folder(options), free_port()
    command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder,
               "-l", os.path.join(folder, "log")]
    return Server(command, {"": port}, folder)


def start_gearman(with_file=False):
    def start(options):
        program = need("gearmand", "gearman-job-server")
        folder, port = new_folder(options), free_port()
        command = [program, "-L", "127.0.0.1", "-p", str(port),
                   "-l", os.path.join(folder, "log"), "-P", os.path.join(folder, "pid")]
        if os.getuid() == 0:
            command += ["-u", "root"]
        if with_file:
            command += ["-q", "libsqlite3", "--libsqlite3-db", os.path.join(folder, "queue.db")]
        return Server(command, {"": port}, folder)
    return start


class Rabbit(Server):
    """RabbitMQ, with an Erlang port mapper of its own, so that nothing of the system's is used."""

    def __init__(self, options):
        program, names = need(RABBITMQ, "rabbitmq-server"), need("epmd", "erlang-base")
        folder, port, names_port = new_folder(options), free_port(), free_port()
        files = {"rabbit.conf": f"listeners.tcp.1 = 127.0.0.1:{port}\n", "plugins": "[].\n"}
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as out:
                out.write(text)
        environment = os.environ | {
            "HOME": folder,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names_port),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": os.path.join(folder, "data"),
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_LOGS": os.path.join(folder, "log"),
            "RABBITMQ_PID_FILE": os.path.join(folder, "pid"),
            "RABBITMQ_CONFIG_FILE": os.path.join(folder, "rabbit"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(folder, "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        command = [names, "-port", str(names_port), "-address", "127.0.0.1"]
        # It listens long before the other's start-up script is through, and complains of a caller
        # that says nothing.
        self.names = Server(command, {"": names_port}, new_folder(options), wait_seconds=0)
        try:
            super().__init__([program], {"": port}, folder, wait_seconds=90,
                             environment=environment)
        except Failed:
            self.names.end()
            raise

    def cpu_seconds(self):
        """The process is a script; its child does the work."""
        parents, ticks = {}, {}
        for number in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue  # It has ended meanwhile.
            parents[int(number)] = int(fields[1])
            ticks[int(number)] = int(fields[11]) + int(fields[12])
        family, grown = set(), {self.process.pid}
        while grown:
            family |= grown
            grown = {child for child, parent in parents.items() if parent in grown} - family
        return sum(ticks.get(member, 0) for member in family) / TICKS_PER_SECOND

    def end(self):
        super().end()
        self.names.end()


def beside(level, start, peer_words, words):
    def run_ours(options):
        def run(figures):
            with start_ours(options, level) as server:
                told = bench(options, server, f"-w cycle {words}", options.seconds)
                figures.add(told["per_second"], told["cpu_us"])
        return run

    def run_theirs(options):
        def run(figures):
            with start(options) as server:
                command = [GENERATOR, "--json", "-a", server.address(""), "-p", *peer_words.split(),
                           *words.split(), "--duration", str(options.seconds)]
                told = figures_of(command, server)
                figures.add(told["per_second"], told["cpu_us"])
        return run

    def measure(options):
        if not os.path.exists(GENERATOR):
            raise LeftOut("no phpmq-peers: cargo build --release --manifest-path "
                          "tests/bench/peers/Cargo.toml")
        return alternate(options, run_ours(options), run_theirs(options))
    return measure


def left_out(why):
    def measure(_):
        raise LeftOut(why)
    return measure


PIPELINED = ("cycle, 10 connections x 100", "-c 10 -d 100")
SINGLE = ("cycle, 50 connections, one at a time", "-c 50")
NO_FILE = start_redis("--appendonly", "no")
EACH_SECOND = start_redis("--appendonly", "yes", "--appendfsync", "everysec")
ALWAYS = start_redis("--appendonly", "yes", "--appendfsync", "always")

# Level, who and how it was set up, how it is started, what the generator is told, which work.
SETTINGS = [
    ("periodic", "Redis list, no file", NO_FILE, "redis-list", (PIPELINED, SINGLE)),
    ("periodic", "Redis stream, no file", NO_FILE, "redis-stream", (PIPELINED, SINGLE)),
    ("periodic", "RabbitMQ, transient", Rabbit, "rabbitmq", (PIPELINED, SINGLE)),
    ("periodic", "NATS JetStream, memory", start_nats, "nats", (PIPELINED, SINGLE)),
    ("periodic", "Gearman, memory", start_gearman(), "gearman", (PIPELINED, SINGLE)),
    ("write", "Redis list, AOF everysec", EACH_SECOND, "redis-list", (PIPELINED, SINGLE)),
    ("write", "Redis stream, AOF everysec", EACH_SECOND, "redis-stream", (PIPELINED, SINGLE)),
    ("write", "NATS JetStream, file", start_nats, "nats --durable", (PIPELINED, SINGLE)),
    ("sync", "Redis list, AOF always", ALWAYS, "redis-list", (PIPELINED, SINGLE)),
    ("sync", "Redis stream, AOF always", ALWAYS, "redis-stream", (PIPELINED, SINGLE)),
    ("sync", "RabbitMQ, durable", Rabbit, "rabbitmq --durable", (PIPELINED, SINGLE)),
    # Several syncs for each put and each acknowledgement, one after the other: pipelining changes
    # nothing, and a thousand messages under way take minutes.
    ("sync", "Gearman, SQLite", start_gearman(True), "gearman", (SINGLE,)),
]

ROWS = [Row(name, level, beside(level, start, peer_words, words), GOAL, other=who, quick=False)
        for level, who, start, peer_words, works in SETTINGS for name, words in works]

# Nothing is left out silently.
ROWS += [
    Row("cycle", "write", left_out("its SQLite queue syncs every change: see sync"),
        GOAL, other="Gearman", quick=False),
    Row("cycle", "write", left_out("a durable queue syncs before it confirms: see sync"), GOAL,
        other="RabbitMQ", quick=False),
    Row("cycle", "sync", left_out("nats-server 2.9 syncs at an interval only"), GOAL,
        other="NATS JetStream", quick=False),
]
