"""One row of the comparison: what is measured, and when its goal is met.

A file of rows has a list `ROWS` and is named in `compare`. What cannot be measured here raises
`LeftOut` with the reason, and the row says so: nothing is left out silently. What goes wrong raises
`Failed`.
"""

import statistics
from dataclasses import dataclass, field
from typing import Callable, Optional


class LeftOut(Exception):
    """This row cannot be measured here; the text says why."""


class Failed(Exception):
    """A run was wrong, or a server did not do its part: this row has no figure, the others may."""


@dataclass
class Figures:
    """What the runs of one side gave: a value for each run, and CPU time where it is known."""

    values: list = field(default_factory=list)
    cpu_us: list = field(default_factory=list)

    def add(self, value, cpu_us=None):
        self.values.append(value)
        if cpu_us is not None:
            self.cpu_us.append(cpu_us)

    def value(self):
        return statistics.median(self.values) if self.values else None

    def cpu(self):
        return statistics.median(self.cpu_us) if self.cpu_us else None


@dataclass
class Row:
    """A comparison of our figure with another one's, or a figure of ours alone."""

    name: str
    level: str
    # (options) -> (Figures of ours, Figures of the other side or None)
    measure: Callable
    # Of the ratio ours / theirs, or of our figure where nothing stands beside it.
    goal: float
    unit: str = "/s"
    # True: the figure is to be at most the goal.
    lower_is_better: bool = False
    # The ratio of the CPU times, where the row asks for that too.
    cpu_goal: Optional[float] = None
    # A figure of ours that is good enough whatever the ratio.
    enough: Optional[float] = None
    other: str = "beanstalkd"
    quick: bool = True

    def run(self, options):
        """The row as it goes into the table, the JSON file and the picture."""
        told = {
            "name": self.name, "level": self.level, "other": self.other, "unit": self.unit,
            "goal": self.goal, "lower_is_better": self.lower_is_better,
            "cpu_goal": self.cpu_goal, "enough": self.enough,
        }
        try:
            ours, theirs = self.measure(options)
        except LeftOut as why:
            return told | {"left_out": str(why)}
        except Failed as why:
            return told | {"failed": str(why)}
        told |= {"ours": ours.value(), "our_runs": ours.values, "our_cpu_us": ours.cpu()}
        figure = told["ours"]
        if theirs is not None:
            told |= {"theirs": theirs.value(), "their_runs": theirs.values,
                     "their_cpu_us": theirs.cpu()}
            figure = told["ratio"] = told["ours"] / told["theirs"]
            if ours.cpu_us and theirs.cpu_us and theirs.cpu() > 0:
                told["cpu_ratio"] = ours.cpu() / theirs.cpu()
        told["share"] = self.goal / figure if self.lower_is_better else figure / self.goal
        if self.cpu_goal is not None and "cpu_ratio" in told:
            told["share"] = min(told["share"], self.cpu_goal / max(told["cpu_ratio"], 1e-9))
        if self.enough is not None:
            told["share"] = max(told["share"], told["ours"] / self.enough)
        told["met"] = told["share"] >= 1
        return told


def alternate(options, ours, theirs, count=None):
    """Lets both sides take turns; each is a function that makes one run and adds to its Figures."""
    our_figures, their_figures = Figures(), Figures()
    for turn in range(count or options.runs):
        sides = [(ours, our_figures), (theirs, their_figures)]
        # Neither side is always the one that comes second.
        for run, figures in sides if turn % 2 == 0 else reversed(sides):
            run(figures)
    return our_figures, their_figures
