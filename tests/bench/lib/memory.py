"""Memory: of a queued message, and of a connection that does nothing."""

from lib.fill import fill, idle_connections, settle
from lib.row import Figures, Row, alternate
from lib.servers import start_beanstalkd, start_ours

MESSAGES = 1_000_000
CONNECTIONS = 2_000


def of_a_message(start, options, level):
    """A function that makes one run: how much more is resident with a million messages queued. Fewer
    would measure what a server keeps whatever it holds."""
    def run(figures):
        with start(options, level) as server:
            settle(server)
            before = server.resident_bytes()
            fill(options, server, MESSAGES)
            figures.add((server.resident_bytes() - before) / MESSAGES)
    return run


def messages(level):
    def measure(options):
        return alternate(options, of_a_message(start_ours, options, level),
                         of_a_message(start_beanstalkd, options, level), 1)
    return measure


def connections(options):
    figures = Figures()
    for _ in range(1 if options.quick else 3):
        with start_ours(options, "periodic") as server:
            settle(server)
            before = server.resident_bytes()
            with idle_connections(server, CONNECTIONS):
                figures.add((server.resident_bytes() - before) / CONNECTIONS / 1024)
    return figures, None


ROWS = [
    Row("memory of a queued 100-byte message", "memory", messages("memory"), 1.0, unit="B",
        lower_is_better=True, quick=False),
    Row("memory of a queued 100-byte message", "periodic", messages("periodic"), 1.0, unit="B",
        lower_is_better=True),
    Row("memory of an idle connection", "periodic", connections, 20, unit="KiB",
        lower_is_better=True, other="none"),
]
