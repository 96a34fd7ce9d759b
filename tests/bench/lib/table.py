"""The table of figures, as Markdown."""

HEAD = ["work", "level", "beside", "phpmqd", "other", "unit", "ratio", "goal", "met", "CPU us",
        "other's", "ratio"]
ALIGN = ["---", "---", "---", "--:", "--:", "---", "--:", "--:", "---", "--:", "--:", "--:"]


def line(cells):
    return "| " + " | ".join(cells) + " |"


def head():
    return line(HEAD) + "\n" + line(ALIGN)


def number(value):
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def goal(row):
    """The goal with its direction."""
    sign = "≤" if row["lower_is_better"] else "≥"
    text = f"{sign} {row['goal']:g}"
    if row["enough"] is not None:
        text += f" or {row['enough']:,}{row['unit']}"
    if row["cpu_goal"] is not None:
        text += f", CPU ≤ {row['cpu_goal']:g}"
    return text


def line_of(row):
    for word, text in (("left_out", "left out"), ("failed", "FAILED")):
        if word in row:
            return line([row["name"], row["level"], row["other"], f"{text}: {row[word]}"]
                        + [""] * (len(HEAD) - 4))
    beside = row["other"] if "ratio" in row else ""
    return line([row["name"], row["level"], beside, number(row["ours"]),
                 number(row.get("theirs")), row["unit"], number(row.get("ratio")), goal(row),
                 "yes" if row["met"] else "NO", number(row.get("our_cpu_us")),
                 number(row.get("their_cpu_us")), number(row.get("cpu_ratio"))])
