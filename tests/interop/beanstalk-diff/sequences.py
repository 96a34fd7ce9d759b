"""One random but meaningful conversation of several peers with both servers.

What is said next depends on a random generator seeded with the sequence's number, and on the ids
that the reference gave out, so a sequence can be played again.
"""

import random
import select
import time

from compare import describe, same
from servers import AGREEMENT_SECONDS, split_answers

TUBES = [b"default", b"a", b"b", b"c"]
PRIORITIES = [0, 1, 5, 5, 5, 1023, 1024, 1024, 1025, 2**32 - 1]
# Far away, so that the clock does not matter; sequences with a clock have short times as well.
SECONDS_FAR = [100, 1000, 2**32 - 1]
STEPS_MIN, STEPS_MAX = 8, 45
PEERS_MAX = 4
# Sleeps are such that nothing started after any of them falls due near another's end.
SLEEP_SECONDS = 0.6
SLEEPS_MAX = 4
# With a clock, nothing is said at the same moment as something else: what is started together
# would fall due together.
PAUSE_SECONDS = 0.015
# So long after its end, time that is left is -1 in the reference's statistics.
OVERDUE_SECONDS = 1.1
LATE_SECONDS = 0.35
TOO_BIG = b"JOB_TOO_BIG\r\n"

GARBAGE = [
    b"\r\n", b" \r\n", b"foo\r\n", b" stats\r\n", b"STATS\r\n", b"\0\r\n", b"stats\0\r\n",
    b"st\0ats\r\n", b"statsx\r\n", b"stats \r\n", b"stats x\r\n", b"put\r\n", b"put \r\n",
    b"put 1 2\r\n", b"put a b c d\r\n", b"put 0 0 60\r\n", b"put 0 0 60 \r\n", b"put -1 0 60 1\r\n",
    b"put 4294967296 0 1 1\r\n", b"put 0 4294967296 1 1\r\n", b"put 0 0 4294967296 1\r\n",
    b"put 0 0 1 4294967296\r\n", b"put 0 0 1 99999999999999999999999\r\n", b"put 0 0 1 1x\r\n",
    b"put 0 0 60 3 \r\nfoo\r\n", b"put 0 0 60 3 x\r\n", b"put 0 0 60 3\r\nabcde",
    b"put 0 0 60 3\r\nab\r\nz\r\n", b"put 0 0 60 3\r\nabc\n\r",
    b"put 0 0 60 65536\r\n" + b"x" * 65536 + b"\r\n", b"put 0 0 60 70000 x\r\n" + b"y" * 70002, b"put 0 0 60 0\r\nxx",
    b"use\r\n", b"use \r\n", b"use  a\r\n", b"use a \r\n", b"use a b\r\n", b"use -a\r\n",
    b"use a*\r\n", b"use " + b"t" * 201 + b"\r\n", b"use \xc3\xa9\r\n", b"watch \r\n",
    b"watch -a\r\n", b"watch " + b"t" * 201 + b"\r\n", b"ignore \r\n", b"ignore *\r\n",
    b"ignore nosuch\r\n", b"reserve \r\n", b"reservex\r\n", b"reserve-with-timeout\r\n",
    b"reserve-with-timeoutx 0\r\n", b"reserve-with-timeout 0 abc\r\n", b"reserve-with-timeout \r\n",
    b"reserve-with-timeout +0\r\n", b"reserve-with-timeout 4294967296\r\n",
    b"reserve-with-timeout 9223372036854775808\r\n", b"reserve-with-timeout x\r\n",
    b"reserve-job\r\n", b"reserve-job x\r\n", b"reserve-job 1 \r\n", b"reserve-job -1\r\n",
    b"delete\r\n", b"delete \r\n", b"delete abc\r\n", b"delete -1\r\n", b"delete +1\r\n",
    b"delete 4294967296\r\n", b"delete 18446744073709551615\r\n",
    b"delete 18446744073709551616\r\n", b"delete 1 1\r\n", b"delete \t1\r\n", b"release 1\r\n",
    b"release 1 1\r\n", b"release 1 1 1 \r\n", b"release 1 4294967296 0\r\n",
    b"release 1 0 4294967296\r\n", b"release x 0 0\r\n", b"bury 1\r\n", b"bury x 1\r\n",
    b"bury 1 -1\r\n", b"touch\r\n", b"touch x\r\n", b"touch 1 \r\n", b"peek\r\n", b"peek x\r\n",
    b"peek \r\n", b"peek-readyx\r\n", b"peek-ready \r\n", b"peek-delayed x\r\n",
    b"peek-buried1\r\n",
    b"kick\r\n", b"kick \r\n", b"kick x\r\n", b"kick 18446744073709551616\r\n",
    b"kick 4294967296\r\n", b"kick -0\r\n", b"kick 0x5\r\n", b"kick +1\r\n", b"kick-job x\r\n",
    b"kick-job\r\n", b"kick-job 1 \r\n", b"stats-job x\r\n", b"stats-job\r\n", b"stats-job 1 \r\n",
    b"stats-tube\r\n", b"stats-tube \r\n", b"stats-tube -a\r\n", b"stats-tube nosuch\r\n",
    b"list-tubesx\r\n", b"list-tubes \r\n", b"list-tube\r\n", b"list-tube-usedx\r\n",
    b"list-tubes-watchedx\r\n", b"pause-tube\r\n", b"pause-tube default\r\n",
    b"pause-tube default x\r\n", b"pause-tube default -1\r\n", b"pause-tube default 0 \r\n",
    b"pause-tube default 4294967296\r\n", b"pause-tube -a 0\r\n",
    b"pause-tube " + b"t" * 201 + b" 0\r\n", b"pause-tube nosuch 0\r\n", b"pause-tubea 0\r\n",
    b"x" * 222 + b"\r\n", b"x" * 224 + b"\r\n", b"x" * 300 + b"\r\n", b"x" * 448 + b"\r\n",
    b"x" * 1000 + b"\r\n", b"a\nb\r\n",
]


class Difference(Exception):
    """The servers disagree."""


class OutOfStep(Exception):
    """An accepted difference, after which the pair's totals differ."""


class Peer:
    """One connection to each server, and what it is known to have and to wait for."""

    def __init__(self, name, sides):
        self.name = name
        self.sides = sides
        self.watched = {b"default"}
        self.held = []
        # Commands without their answers yet: more than none means that a reservation waits.
        self.unanswered = 0

    def close(self):
        for side in self.sides:
            side.socket.close()


class Sequence:
    """Plays one sequence to a pair of servers."""

    def __init__(self, pair, seed, number, with_clock, verbose=False):
        self.pair = pair
        self.random = random.Random("%s/%s" % (seed, number))
        self.with_clock = with_clock
        self.verbose = verbose
        self.log = []
        self.peers = []
        self.jobs = []
        self.started = time.monotonic()
        self.sleeps = 0
        self.is_late = False
        self.names = 0

    # Talking.

    def note(self, text):
        self.log.append(text)
        if self.verbose:
            print("   ", text, flush=True)

    def occupied(self):
        """The tubes with a peer that waits: the reference's choice among several is arbitrary."""
        return set().union(*(peer.watched for peer in self.peers if peer.unanswered))

    def say(self, peer, data, commands=1, may_wait=False):
        """Sends to both servers and compares what they say; returns the reference's answers."""
        shown = data if len(data) < 900 else data[:80] + b"..." + data[-80:]
        self.note("%s> %r" % (peer.name, shown))
        peer.unanswered += commands
        if self.with_clock:
            time.sleep(PAUSE_SECONDS)
        cuts = []
        if self.random.random() < 0.1:
            cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(2))
        for start, end in zip([0] + cuts, cuts + [len(data)]):
            for side in peer.sides:
                side.send(data[start:end])
        if may_wait or peer.unanswered != commands or self.occupied() - peer.watched:
            self.pair.barrier(2 + 2 * commands)
        else:
            self.wait_for_answers(peer, commands)
        answers = self.settle().get(peer.name, [])
        words = data.split()
        if commands == 1 and words[:1] in ([b"delete"], [b"release"], [b"bury"]):
            if answers and answers[-1][0] in (b"DELETED", b"RELEASED", b"BURIED"):
                self.forget(int(words[1]))
        self.let_go()
        return answers

    def forget(self, job):
        for peer in self.peers:
            peer.held = [held for held in peer.held if held != job]

    def let_go(self):
        """With a clock, one job each: the reference may miss the time-out of a job when its
        worker has reserved another one since."""
        for peer in self.peers if self.with_clock else []:
            while len(peer.held) > 1 and not peer.unanswered:
                self.say(peer, b"delete %d\r\n" % peer.held.pop())

    def wait_for_answers(self, peer, commands):
        deadline = time.monotonic() + AGREEMENT_SECONDS
        for side in peer.sides:
            while True:
                side.receive()
                if len(split_answers(side.received)[0]) >= commands or side.is_closed:
                    break
                if time.monotonic() > deadline:
                    return
                select.select([side.socket], [], [], 0.05)

    def allowances(self):
        polls = [server.polls for server in self.pair.servers]
        return {b"cmd-stats": polls[1] - polls[0]}

    def settle(self):
        """Waits until all peers have heard the same from both; takes it."""
        deadline = time.monotonic() + AGREEMENT_SECONDS
        while True:
            apart = None
            for peer in self.peers:
                left, right = peer.sides
                left.receive()
                right.receive()
                agree = same(left.received, right.received, self.allowances())
                if not agree or left.is_closed != right.is_closed:
                    apart = peer
            if apart is None:
                return {peer.name: self.take(peer) for peer in self.peers}
            if time.monotonic() > deadline:
                if self.is_told_early(apart):
                    raise OutOfStep
                self.disagree(apart)
            time.sleep(0.001)

    def is_told_early(self, peer):
        """Whether all that is more is that a job is too big whose body has not come."""
        left, right = peer.sides
        if right.server.is_reference or not right.received.endswith(TOO_BIG):
            return False
        return same(left.received, right.received[:-len(TOO_BIG)], self.allowances())

    def disagree(self, peer):
        left, right = peer.sides
        ends = " (closed: %s | %s)" % (left.is_closed, right.is_closed)
        raise Difference(
            "peer %s, reference | tested%s\n%s"
            % (peer.name, ends, describe(left.received, right.received))
        )

    def take(self, peer):
        answers, _ = split_answers(peer.sides[0].received)
        if answers:
            self.note("%s< %r" % (peer.name, [line for line, _ in answers]))
        peer.unanswered = max(0, peer.unanswered - len(answers))
        for side in peer.sides:
            side.received = b""
        for line, _ in answers:
            words = line.split(b" ")
            if words[0] == b"INSERTED":
                self.jobs.append(int(words[1]))
            elif words[0] == b"RESERVED":
                peer.held.append(int(words[1]))
        return answers

    # Choosing.

    def seconds(self):
        if self.with_clock and self.random.random() < 0.7:
            return self.random.choice([0, 1, 1, 2])
        return self.random.choice([0] * 9 + SECONDS_FAR)

    def later(self):
        """For a release: another delay each time, since of those that fall due in the same
        millisecond we take the older job and the reference the one delayed first."""
        seconds = self.seconds()
        return seconds if seconds < 10 else self.random.randrange(2000, 10**6)

    def time_to_run(self):
        near = [1, 2, 2, 3] if self.with_clock else []
        return self.random.choice([0, 1, 60, 60, 60, 60] + SECONDS_FAR + near)

    def job(self, peer):
        """Most often one that the peer holds, else any, else none there is."""
        choice = self.random.random()
        if peer.held and choice < 0.6:
            return self.random.choice(peer.held[-5:])
        if self.jobs and choice < 0.95:
            return self.random.choice(self.jobs[-8:])
        return self.random.choice([0, 999999, 2**63, 2**64 - 1])

    def body(self):
        kind = self.random.random()
        if kind < 0.02:
            return b"z" * self.random.choice([65535, 65534, 9000])
        if kind < 0.1:
            return self.random.choice([b"", b"\r\n", b"\r\n\r\n", b"\0\xff", b"reserve\r\n"])
        return bytes(self.random.choices(b"abcdefgh 01234\r\n", k=self.random.randrange(30)))

    def line(self, peer):
        """One command that does not wait."""
        pick = self.random.choice
        kinds = [
            (14, self.put), (4, lambda p: b"use %s\r\n" % pick(TUBES)),
            (12, lambda p: b"reserve-with-timeout 0\r\n"),
            (3, lambda p: b"reserve-job %d\r\n" % self.job(p)),
            (7, lambda p: b"delete %d\r\n" % self.job(p)),
            (6, lambda p: b"release %d %d %d\r\n" % (self.job(p), pick(PRIORITIES), self.later())),
            (6, lambda p: b"bury %d %d\r\n" % (self.job(p), pick(PRIORITIES))),
            (3, lambda p: b"touch %d\r\n" % self.job(p)),
            (2, lambda p: b"peek %d\r\n" % self.job(p)), (2, lambda p: b"peek-ready\r\n"),
            (2, lambda p: b"peek-delayed\r\n"), (2, lambda p: b"peek-buried\r\n"),
            (4, lambda p: b"kick %d\r\n" % pick([0, 1, 2, 3, 100])),
            (3, lambda p: b"kick-job %d\r\n" % self.job(p)),
            (4, lambda p: b"stats-job %d\r\n" % self.job(p)),
            (3, lambda p: b"stats-tube %s\r\n" % pick(TUBES)), (3, lambda p: b"stats\r\n"),
            (2, lambda p: b"list-tubes\r\n"), (1, lambda p: b"list-tube-used\r\n"),
            (2, lambda p: b"list-tubes-watched\r\n"),
            (2, lambda p: b"pause-tube %s %d\r\n" % (pick(TUBES), self.seconds())),
        ]
        weights, makers = zip(*kinds)
        return self.random.choices(makers, weights)[0](peer)

    def put(self, _peer):
        body = self.body()
        head = (self.random.choice(PRIORITIES), self.seconds(), self.time_to_run(), len(body))
        return b"put %d %d %d %d\r\n%s\r\n" % (*head, body)

    # Steps.

    def step_command(self):
        peer = self.random.choice(self.peers)
        if peer.unanswered and (peer.unanswered > 4 or self.random.random() < 0.7):
            peer = self.open_peer()
        line = self.line(peer)
        # Behind a wait these would be answered while another peer may be on its way out.
        if not (peer.unanswered and line.startswith((b"stats", b"list-tubes\r\n"))):
            self.say(peer, line)

    def step_watch(self):
        peer = self.random.choice([p for p in self.peers if not p.unanswered] or [None])
        if peer is None:
            return
        tube = self.random.choice(TUBES)
        if self.random.random() < 0.65:
            self.say(peer, b"watch %s\r\n" % tube)
            peer.watched.add(tube)
        else:
            answers = self.say(peer, b"ignore %s\r\n" % tube)
            if answers and answers[0][0] != b"NOT_IGNORED":
                peer.watched.discard(tube)

    def step_pipeline(self):
        """Several commands at once; not while a peer waits, whose own next commands would run
        somewhere between them; nor with a clock, where what starts together falls due together."""
        if self.occupied() or self.with_clock:
            return
        peer = self.random.choice([p for p in self.peers if not p.unanswered] or [None])
        if peer is not None:
            lines = [self.line(peer) for _ in range(self.random.randrange(2, 9))]
            self.say(peer, b"".join(lines), len(lines))

    def step_wait(self):
        """A reservation that waits when there is nothing."""
        free = [p for p in self.peers if not p.unanswered and not p.watched & self.occupied()]
        if not free:
            return
        peer = self.random.choice(free)
        near = [b"reserve-with-timeout 1\r\n"] * 2 + [b"reserve-with-timeout 2\r\n"]
        far = [b"reserve\r\n", b"reserve-with-timeout 1000\r\n", b"reserve-with-timeout -1\r\n"]
        self.say(peer, self.random.choice(far + (near if self.with_clock else [])), may_wait=True)
        if peer.unanswered:
            waiting = sum(1 for peer in self.peers if peer.unanswered)
            self.pair.wait_for(b"current-waiting", waiting)

    def step_garbage(self):
        """Malformed lines, and the end of that connection, since it may be out of step then."""
        peer = self.open_peer()
        data = b"".join(self.random.choices(GARBAGE, k=self.random.randrange(1, 6)))
        if self.random.random() < 0.3 and not self.occupied():
            data = self.mutate(self.line(peer) + self.line(peer))
        lines = data.count(b"\r\n") + 2
        answers = self.say(peer, data + b"list-tube-used\r\n", lines, may_wait=True)
        self.end_peer(peer)
        if answers[-1:] != [(b"USING default", None)]:
            left, right = self.pair.figures(b"cmd-put")
            if left != right:
                # It ended inside a body, and we count a put when all of it is there.
                raise OutOfStep

    def mutate(self, data):
        """Damaged lines that neither reserve (which might wait) nor look like a browser's."""
        data = data.replace(b"reserve", b"stats")
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(data) + 1)
            cut = self.random.choice([0, 0, 1, 2])
            new = bytes(self.random.choices(b"\0\r\n 019-+az*\xff", k=self.random.randrange(3)))
            data = data[:at] + new + data[at + cut:]
        return data

    def step_open(self):
        if len(self.peers) < PEERS_MAX:
            self.open_peer()

    def open_peer(self):
        self.names += 1
        peer = Peer("p%d" % self.names, self.pair.connect())
        self.peers.append(peer)
        # The reference knows a connection from its start, we from its first bytes at the latest.
        self.note("%s opens" % peer.name)
        if self.wait_for_connections():
            raise Difference("a connection is not counted")
        return peer

    def wait_for_connections(self):
        return self.pair.wait_for(b"current-connections", 1 + len(self.peers))

    def step_end(self):
        if len(self.peers) > 1:
            self.end_peer(self.random.choice(self.peers))

    def end_peer(self, peer):
        """A hang-up, a half-close that is still answered, or a good-bye."""
        how = self.random.choice(["close", "close", "half-close", "quit"])
        # Whether the reference still does what was sent behind a wait depends on the moment.
        if peer.unanswered > 1:
            how = "half-close"
        self.note("%s ends: %s" % (peer.name, how))
        if how == "quit" and not peer.unanswered:
            for side in peer.sides:
                side.send(b"quit\r\nput 0 0 60 1\r\nx\r\n")
            self.read_to_end(peer, compare=False)
        elif how == "half-close":
            # What it wakes must not go on at the same time as the end.
            is_quiet = all(other.unanswered <= 1 for other in self.peers)
            if is_quiet and self.random.random() < 0.5:
                line = self.line(peer)
                for side in peer.sides:
                    side.send(line)
            for side in peer.sides:
                side.socket.shutdown(1)
            self.read_to_end(peer)
        self.peers.remove(peer)
        peer.close()
        free = [other for other in self.peers if not other.unanswered]
        if how == "close" and peer.held and free and not self.occupied():
            self.take_over(self.random.choice(free), self.random.choice(peer.held[-3:]))
        late = self.wait_for_connections()
        if late:
            raise Difference("%s does not see the end of a connection" % late)
        self.pair.barrier(3)
        self.settle()

    def take_over(self, peer, job):
        """Reservations end the moment the connection does: what it held can be had at once.

        The reference needs a moment for that when events of several sockets come together."""
        line = b"reserve-job %d\r\n" % job
        self.note("%s> %r" % (peer.name, line))
        peer.unanswered += 1
        left, right = peer.sides
        patient = [control for control in self.pair.controls if control.server.is_reference]
        if not right.server.is_reference:
            right.send(line)
        self.pair.wait_for(b"current-connections", 1 + len(self.peers), patient)
        left.send(line)
        if right.server.is_reference:
            right.send(line)
        self.wait_for_answers(peer, 1)
        self.settle()

    def read_to_end(self, peer, compare=True):
        deadline = time.monotonic() + AGREEMENT_SECONDS
        for side in peer.sides:
            while not side.is_closed:
                side.receive()
                if time.monotonic() > deadline:
                    self.disagree(peer)
                select.select([side.socket], [], [], 0.01)
        left, right = peer.sides
        if compare and not same(left.received, right.received, self.allowances()):
            if self.is_told_early(peer):
                raise OutOfStep
            self.disagree(peer)
        self.take(peer)

    def step_sleep(self):
        if self.with_clock and self.sleeps < SLEEPS_MAX:
            self.sleeps += 1
            self.note("%.1f s pass" % SLEEP_SECONDS)
            left = self.started + self.sleeps * SLEEP_SECONDS - time.monotonic()
            # What came late may fall due near the end of a sleep.
            self.is_late = self.is_late or left < SLEEP_SECONDS - LATE_SECONDS
            time.sleep(max(0, left))
            self.pair.barrier(3)
            self.settle()
            self.let_go()

    def play(self):
        self.open_peer()
        self.open_peer()
        steps = [
            (60, self.step_command), (12, self.step_watch), (8, self.step_pipeline),
            (9, self.step_wait), (3, self.step_garbage), (3, self.step_open), (4, self.step_end),
            (9, self.step_sleep),
        ]
        weights, makers = zip(*steps)
        for _ in range(self.random.randrange(STEPS_MIN, STEPS_MAX)):
            self.random.choices(makers, weights)[0]()
        self.finish()

    def reference_is_overdue(self):
        """Whether the reference forgot a time-out, which it does after a reservation that ended
        in TIMED_OUT or DEADLINE_SOON: a job is reserved and its time was over long ago."""
        time.sleep(OVERDUE_SECONDS)
        for job in self.jobs:
            _, document = self.pair.controls[0].request(b"stats-job %d\r\n" % job)
            if document and b"\nstate: reserved\n" in document and b"\ntime-left: -" in document:
                return True
        return False

    def finish(self):
        """Compares the totals, and leaves both servers without jobs, peers and pauses."""
        if self.with_clock:
            # While those that hold them are still there.
            looker = self.open_peer()
            for job in self.jobs:
                self.say(looker, b"stats-job %d\r\n" % job)
        while self.peers:
            self.end_peer(self.peers[-1])
        tidy = self.open_peer()
        tubes = [b"stats-tube %s\r\n" % tube for tube in TUBES]
        self.say(tidy, b"".join([b"stats\r\n", b"list-tubes\r\n"] + tubes), 2 + len(tubes))
        for job in self.jobs:
            self.say(tidy, b"stats-job %d\r\ndelete %d\r\n" % (job, job), 2)
        self.say(tidy, b"pause-tube default 0\r\nstats\r\nlist-tubes\r\n", 3)
        self.end_peer(tidy)
