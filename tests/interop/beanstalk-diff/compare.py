"""What counts as the same answer."""

from servers import split_answers

# Fields of `stats` that may differ: time, process, host, version, and the store (accepted
# differences, see README.md).
SERVER_FIELDS_IGNORED = {
    b"pid", b"version", b"rusage-utime", b"rusage-stime", b"uptime", b"id", b"hostname", b"os",
    b"platform", b"binlog-oldest-index", b"binlog-current-index", b"binlog-records-migrated",
    b"binlog-records-written", b"binlog-max-size",
}
# Whole seconds that may fall on either side of a boundary.
FIELDS_OF_TIME = {b"age", b"time-left", b"pause-time-left"}
SECONDS_APART_MAX = 1


def fields(document):
    """The document as it must agree: a list's names or the key-value lines, in their order."""
    lines = document.split(b"\n")
    if lines[0] != b"---" or lines[-1] != b"":
        return ("no document", document)
    lines = lines[1:-1]
    if all(line.startswith(b"- ") for line in lines):
        return ("list", lines)
    return ("map", [tuple(line.split(b": ", 1)) for line in lines])


def same_map(left, right, allowances):
    if [pair[0] for pair in left] != [pair[0] for pair in right]:
        return False
    is_server = any(pair[0] == b"total-connections" for pair in left)
    for (key, *one), (_, *other) in zip(left, right):
        if one == other or (is_server and key in SERVER_FIELDS_IGNORED):
            continue
        if len(one) != 1 or len(other) != 1:
            return False
        if key in FIELDS_OF_TIME and abs(int(one[0]) - int(other[0])) <= SECONDS_APART_MAX:
            continue
        if key == b"cmd-stats" and int(other[0]) - int(one[0]) == allowances[key]:
            continue
        return False
    return True


def same(left, right, allowances):
    """Whether two streams of answers agree."""
    if left == right:
        return True
    (ours, our_rest), (theirs, their_rest) = split_answers(left), split_answers(right)
    if len(ours) != len(theirs) or our_rest != their_rest:
        return False
    for (line, body), (other_line, other_body) in zip(ours, theirs):
        if line.startswith(b"OK ") and other_line.startswith(b"OK "):
            one, other = fields(body), fields(other_body)
            if one[0] != other[0]:
                return False
            if one[0] == "map":
                if not same_map(one[1], other[1], allowances):
                    return False
            elif one != other:
                return False
        elif (line, body) != (other_line, other_body):
            return False
    return True


def describe(left, right):
    """The two streams for people: the answers that differ, equal lines of documents left out."""
    (ours, our_rest), (theirs, their_rest) = split_answers(left), split_answers(right)
    if len(ours) != len(theirs) or our_rest != their_rest:
        return "      %r\n    | %r" % (shorten(left), shorten(right))
    out = []
    for (line, body), (other_line, other_body) in zip(ours, theirs):
        if (line, body) == (other_line, other_body):
            continue
        one, other = (body or b"").split(b"\n"), (other_body or b"").split(b"\n")
        if line[:3] == other_line[:3] == b"OK " and len(one) == len(other):
            out += [
                "      %r | %r" % pair for pair in zip(one, other)
                if pair[0] != pair[1] and pair[0].split(b":")[0] not in SERVER_FIELDS_IGNORED
            ]
        else:
            out.append("      %r %r\n    | %r %r" % (line, body, other_line, other_body))
    return "\n".join(out)


def shorten(data):
    return data if len(data) <= 600 else data[:300] + b" ... " + data[-200:]
