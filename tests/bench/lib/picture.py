"""The picture for the README: drawn from the rows of a run, or of a saved one.

Each row is a bar on a logarithmic scale that begins at 1, which is what stands beside us: to the
right we are better, to the left worse, twice as good as far as half as good. A tick marks the goal.
Rows without a figure are named. Its colours are told apart without seeing them red and green, and
fit a light page as well as a dark one.
"""

import math
from xml.sax.saxutils import escape

WIDTH = 1040
NAME_X = 16
BAR_FROM, BAR_TO = 480, 840
CPU_X = WIDTH - 16
ROW_HEIGHT = 24
HEAD_HEIGHT = 84
GROUP_HEIGHT = 34

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.group { font-weight: 600 }
.faint { fill: #59636e; font-size: 12px }
.end { text-anchor: end }
.middle { text-anchor: middle }
.met { fill: #1a7fa8 }
.short { fill: #c9751a }
.late { fill: #b35f0c; font-size: 12px }
.scale { stroke: #8c959f; stroke-opacity: .35 }
.one { stroke: #59636e }
.goal { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #9198a1 }
  .met { fill: #3fa7d6 }
  .short, .late { fill: #e0933a }
  .one { stroke: #9198a1 }
  .goal { stroke: #e6edf3 }
}
"""


def better(row, ratio):
    """How much better we are, where the ratio may be one that is to be low."""
    return 1 / ratio if row["lower_is_better"] else ratio


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def stroke(x, top, bottom, kind):
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="{kind}"/>'


def figure(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Scale:
    """Powers of two from the worst to the best, goals included."""

    def __init__(self, rows):
        values = [1.0]
        for row in rows:
            values += [better(row, row["ratio"]), better(row, row["goal"])]
        self.low = math.floor(math.log2(min(values)) - 0.05)
        # Room behind the longest bar, for its figure.
        self.high = math.ceil(math.log2(max(values)) + 0.6)

    def x(self, value):
        share = (math.log2(value) - self.low) / (self.high - self.low)
        return BAR_FROM + share * (BAR_TO - BAR_FROM)

    def lines(self, top, bottom):
        for power in range(self.low, self.high + 1):
            kind = "one" if power == 0 else "scale"
            label = f"{2 ** power}×" if power >= 0 else f"1/{2 ** -power}"
            yield stroke(self.x(2.0 ** power), top, bottom, kind)
            yield text(self.x(2.0 ** power), top - 6, label, "faint middle")


def row_parts(row, scale, top):
    """A row: what it is, its bar with its figure, the mark of its goal, the CPU times."""
    middle = top + ROW_HEIGHT / 2
    yield text(NAME_X, middle + 4, row["name"])
    yield text(BAR_FROM - 14, middle + 4, row["level"], "faint end")
    if "ratio" not in row:
        why = row.get("left_out") or row.get("failed")
        if why:
            yield text(scale.x(1) + 6, middle + 4, "no figure", "faint")
        else:
            sign = "≤" if row["lower_is_better"] else "≥"
            words = f'{figure(row["ours"])} {row["unit"]} (goal {sign} {row["goal"]:g})'
            yield text(scale.x(1) + 6, middle + 4, words)
        return
    value = better(row, row["ratio"])
    start, end = sorted((scale.x(1), scale.x(value)))
    kind = "met" if row["met"] else "short"
    yield (f'<rect x="{start:.1f}" y="{top + 5:.1f}" width="{max(end - start, 1):.1f}" '
           f'height="{ROW_HEIGHT - 10}" class="{kind}"/>')
    goal_x = scale.x(better(row, row["goal"]))
    yield stroke(goal_x, top + 2, top + ROW_HEIGHT - 2, "goal")
    # Beside whichever lies further right, bar or goal, and never on either.
    yield text(max(end, goal_x, scale.x(1)) + 6, middle + 4, f"{figure(value)}×")
    if row.get("our_cpu_us") is not None and row.get("their_cpu_us") is not None:
        times = f'{figure(row["our_cpu_us"])} : {figure(row["their_cpu_us"])} µs'
        is_late = row["cpu_goal"] and row.get("cpu_ratio", 0) > row["cpu_goal"]
        yield text(CPU_X, middle + 4, times, "late end" if is_late else "faint end")


def groups(rows):
    """The rows by what stands beside them, in the order in which it first comes."""
    found = {}
    for row in rows:
        alone = "ratio" not in row and not ("left_out" in row or "failed" in row)
        found.setdefault("" if alone else row["other"], []).append(row)
    return sorted(found.items(), key=lambda group: group[0] == "")


def heading(other):
    return f"beside {other}" if other else "alone"


def draw(path, told):
    """Writes the picture of these figures."""
    rows = told["rows"]
    scale = Scale([row for row in rows if "ratio" in row])
    sections = groups(rows)
    height = HEAD_HEIGHT + GROUP_HEIGHT * len(sections) + ROW_HEIGHT * len(rows) + 40
    circumstances = (f'{"; ".join(told["versions"])}; {told["processors"]} processors, loopback; '
                     f'medians of {told["runs"]} alternating runs; {told["date"]}')
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>phpmqd beside other servers: how much better or worse</title>",
        f"<style>{STYLE}</style>",
        text(NAME_X, 26, "How much better (right) or worse (left) than what stands beside it",
             "title"),
        text(NAME_X, 46, circumstances, "faint"),
        text(CPU_X, HEAD_HEIGHT - 8, "server's CPU time, ours : theirs", "faint end"),
    ]
    parts += scale.lines(HEAD_HEIGHT + 18, height - 34)
    top = HEAD_HEIGHT
    for other, members in sections:
        parts.append(text(NAME_X, top + 24, heading(other), "group"))
        top += GROUP_HEIGHT
        for row in members:
            parts += row_parts(row, scale, top)
            top += ROW_HEIGHT
    foot = height - 14
    parts += [
        f'<rect x="{NAME_X}" y="{foot - 10}" width="12" height="12" class="met"/>',
        text(NAME_X + 18, foot, "goal met", "faint"),
        f'<rect x="{NAME_X + 90}" y="{foot - 10}" width="12" height="12" class="short"/>',
        text(NAME_X + 108, foot, "goal missed", "faint"),
        stroke(NAME_X + 200, foot - 12, foot + 4, "goal"),
        text(NAME_X + 208, foot, "goal", "faint"),
        "</svg>\n",
    ]
    with open(path, "w", encoding="utf-8") as picture:
        picture.write("\n".join(parts))
