"""One run of phpmqctl bench, and what it told."""

import json
import subprocess

from lib.row import Failed


def bench(options, server, words, seconds=None):
    """Runs the load generator against `server`; its figures, and the server's CPU time with them."""
    protocol = "phpmq" if "-p phpmq" in words else "beanstalk"
    command = [options.phpmqctl, "bench", "--json", "-a", server.address(protocol), *words.split()]
    if seconds is not None:
        command += ["--duration", str(seconds)]
    return figures_of(command, server)


def figures_of(command, server):
    """Runs a load generator with --json against `server`; the same."""
    before = server.cpu_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    cpu = server.cpu_seconds() - before
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stdout.strip()}")
    figures = json.loads(done.stdout)
    figures["count"] = figures.get("messages", figures.get("polls"))
    figures["cpu_us"] = cpu * 1e6 / max(figures["count"], 1)
    return figures
