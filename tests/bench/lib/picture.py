"""The picture for the README: drawn from the rows of a run, or of a saved one."""


def draw(path, told):
    """Bars of the CPU time of each message, ours over theirs."""
    rows = [row for row in told["rows"] if row.get("their_cpu_us") and row["other"] == "beanstalkd"]
    largest = max(max(row["our_cpu_us"], row["their_cpu_us"]) for row in rows)
    height = 50 * len(rows) + 40
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" '
             'font-family="sans-serif" font-size="12">',
             '<text x="10" y="20">CPU time of the server for each message, in microseconds: '
             '<tspan fill="#2a6">phpmqd</tspan>, <tspan fill="#999">beanstalkd</tspan></text>']
    for number, row in enumerate(rows):
        top = 40 + 50 * number
        parts.append(f'<text x="10" y="{top + 20}">{row["name"]} ({row["level"]})</text>')
        for offset, key, colour in ((6, "our_cpu_us", "#2a6"), (22, "their_cpu_us", "#999")):
            width = 300 * row[key] / largest
            parts.append(f'<rect x="350" y="{top + offset}" width="{width:.1f}" height="14" '
                         f'fill="{colour}"/><text x="{356 + width:.1f}" y="{top + offset + 11}">'
                         f'{row[key]:.1f}</text>')
    parts.append("</svg>\n")
    with open(path, "w", encoding="utf-8") as picture:
        picture.write("\n".join(parts))
