#!/usr/bin/env python3
"""Runs a command beside a phpmqd of its own: with-phpmqd.py PATH-OF-PHPMQD COMMAND...

The daemon keeps its messages in a temporary database at the default durability, and is started
again whenever it ends, so that a client may kill it. The command finds in its environment
BEANSTALK_HOST and BEANSTALK_PORT, BEANSTALK_SOCKET, CONSOLE_SOCKET and PHPMQD_PID_FILE. What
PHPMQD_CONFIG holds is added to the daemon's configuration."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_SECONDS = 10


class Supervisor:
    """Starts the daemon, and starts it again when it ends."""

    def __init__(self, daemon, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.socket = os.path.join(folder, "beanstalk.sock")
        self.console = os.path.join(folder, "console.sock")
        self.pid_file = os.path.join(folder, "pid")
        config = os.path.join(folder, "phpmqd.toml")
        with open(config, "w", encoding="utf-8") as out:
            out.write('[storage]\ndatabase = "%s"\n' % os.path.join(folder, "messages.db"))
            for address in ("127.0.0.1:%d" % self.port, "unix:" + self.socket):
                out.write('[[listener]]\nprotocol = "beanstalk"\naddress = "%s"\n' % address)
            out.write('[[listener]]\nprotocol = "console"\naddress = "unix:%s"\n' % self.console)
            out.write(os.environ.get("PHPMQD_CONFIG", ""))
        self.arguments = [daemon, "--config", config]
        self.log = open(os.path.join(folder, "log"), "wb")
        self.is_ending = False
        self.start()
        threading.Thread(target=self.supervise, daemon=True).start()

    def start(self):
        self.process = subprocess.Popen(self.arguments, stdout=self.log, stderr=self.log)
        with open(self.pid_file + ".new", "w", encoding="utf-8") as out:
            out.write(str(self.process.pid))
        os.rename(self.pid_file + ".new", self.pid_file)

    def supervise(self):
        while True:
            self.process.wait()
            if self.is_ending:
                return
            self.start()

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    with open(self.log.name, encoding="utf-8", errors="replace") as text:
                        sys.exit("phpmqd does not start:\n" + text.read())
                time.sleep(0.01)

    def end(self):
        self.is_ending = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="interop") as folder:
        supervisor = Supervisor(os.path.realpath(sys.argv[1]), folder)
        try:
            supervisor.wait_until_ready()
            environment = dict(
                os.environ,
                BEANSTALK_HOST="127.0.0.1",
                BEANSTALK_PORT=str(supervisor.port),
                BEANSTALK_SOCKET=supervisor.socket,
                CONSOLE_SOCKET=supervisor.console,
                PHPMQD_PID_FILE=supervisor.pid_file,
            )
            return subprocess.call(sys.argv[2:], env=environment)
        finally:
            supervisor.end()


if __name__ == "__main__":
    sys.exit(main())
