"""Ways to damage a file of any format: its bytes, its words, its JSON.

Each takes the whole content, a random generator, and the contents of other files of the same kind,
and returns another content.
"""

import codecs
import copy
import json
import re
import struct

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
            2**40, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Whole numbers at which lengths and sizes overflow."""

FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-300, 1e30, 3e38, 1e300, float("nan"), float("inf"),
          -float("inf"))  # fmt: skip


def pick(random, choices):
    """One of these."""
    return choices[int(random.integers(len(choices)))]


def place(random, content):
    """A place in a content; each other time in its beginning, where headers are."""
    ends = min(len(content), 400) if random.random() < 0.5 else len(content)
    return int(random.integers(ends)) if ends else 0


def part(random, content):
    """Begin and end of a part, of a few bytes or of many."""
    begin = place(random, content)
    return begin, begin + int(2 ** random.uniform(0, 12))


# --- bytes


def flip(content, random, others):
    """Turn a few bits round."""
    made = bytearray(content)
    for _ in range(int(random.integers(1, 9)) if content else 0):
        made[place(random, content)] ^= 1 << int(random.integers(8))
    return bytes(made)


def cut_off(content, random, others):
    return content[: place(random, content)]


def splice(content, random, others):
    """The beginning of one and the end of another."""
    other = pick(random, others)
    return content[: place(random, content)] + other[place(random, other) :]


def blank(content, random, others):
    """Zeros, or ones, in the place of a part."""
    begin, end = part(random, content)
    gap = content[begin:end]
    return content[:begin] + pick(random, (b"\0", b"\xff")) * len(gap) + content[end:]


def leave_out(content, random, others):
    begin, end = part(random, content)
    return content[:begin] + content[end:]


def repeat(content, random, others):
    begin, end = part(random, content)
    return content[:end] + content[begin:end] * int(random.integers(1, 20)) + content[end:]


def exchange(content, random, others):
    """Two parts, each in the place of the other."""
    (begin, end), (from_, to) = sorted((part(random, content), part(random, content)))
    from_, to = max(from_, end), max(to, end)
    parts = content[:begin], content[from_:to], content[end:from_], content[begin:end], content[to:]
    return b"".join(parts)


def add(content, random, others):
    """Noise somewhere, or at the end."""
    at = pick(random, (place(random, content), len(content)))
    return content[:at] + random.bytes(int(2 ** random.uniform(0, 10))) + content[at:]


def set_number(content, random, others):
    """An extreme number in the place of some bytes."""
    made = bytearray(content)
    at, size, order = place(random, content), pick(random, (1, 2, 4, 8)), pick(random, "<>")
    if size > 2 and random.random() < 0.3:
        number = struct.pack(order + {4: "f", 8: "d"}[size], _fitting(pick(random, FLOATS), size))
    else:
        number = (pick(random, EXTREMES) % 2 ** (8 * size)).to_bytes(
            size, {"<": "little", ">": "big"}[order]
        )
    made[at : at + size] = number
    return bytes(made)


def _fitting(number, size):
    return 0 if size == 4 and 3.4e38 < abs(number) < float("inf") else number


BYTES = (flip, cut_off, splice, blank, leave_out, repeat, exchange, add, set_number)

# --- words

WORDS = (
    "", "NaN", "nan", "-inf", "Infinity", "1e999", "-1", "0", "-0.0", "1.5", "1" * 30, "1" * 5000,
    "9" * 310, "0x10", "1_000", "true", "null", "None", "~", "[]", "{}", "[1, 2]", "{a: 1}",
    "{{patient}}", "{0}", "{x.__class__}", "..", "../../etc/passwd", "/dev/zero", "/", "a\0b", " ",
    "\\", '"', "'", ",", ";", "\t", "\n", "\r", "\u2028", "\u202e", "\ufeff", "ä", "\U0001f600",
    "=1+1", "n" * 300, "n" * 200_000, "!!python/name:os.system", "!!binary xx", "&a [*a]", "*a",
    "%", "2020-01-01", "1:30",
    ": ", "- ", "#", "|", ">", "?", "@", "`", "'''", "<", "&lt;", "\x1b[31m",
)  # fmt: skip
"""What may stand where a name or a number should."""

_TOKEN = re.compile(r"[\w.+-]+")


def _lines(content):
    return content.decode("utf-8", "surrogateescape").splitlines(keepends=True)


def _joined(lines):
    return "".join(lines).encode("utf-8", "surrogateescape")


def change_word(content, random, others):
    """Another word in the place of one or a few."""
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(int(random.integers(1, 4))):
        found = list(_TOKEN.finditer(text))
        if not found:
            break
        old = pick(random, found)
        new = pick(random, (*WORDS, pick(random, found)[0]))
        text = text[: old.start()] + new + text[old.end() :]
    return text.encode("utf-8", "surrogateescape")


def change_lines(content, random, others):
    """Lines twice, left out, or in another place."""
    lines = _lines(content)
    if not lines:
        return content
    line = lines.pop(int(random.integers(len(lines))))
    for _ in range(int(random.integers(3))):
        lines.insert(int(random.integers(len(lines) + 1)), line)
    return _joined(lines)


def change_sign(content, random, others):
    """Another sign in the place of one that has a meaning, once or everywhere."""
    text = content.decode("utf-8", "surrogateescape")
    old, new = pick(random, ",:[]{}\"'\n- \t|"), pick(random, ",;:[]{}\"'\n\t\r\0 &*!%@")
    return text.replace(old, new, pick(random, (1, 2, -1))).encode("utf-8", "surrogateescape")


def encode(content, random, others):
    """The same text in another encoding, or with a mark that says so."""
    text = content.decode("utf-8", "replace")
    mark = pick(random, (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE, b"\0", b"\xe4"))
    kinds = ("utf-16", "utf-16-be", "utf-32", "utf-7", "latin-1", "cp500", "utf-8-sig")
    coded = text.encode(pick(random, kinds), "replace")
    return pick(random, (mark + content, content + mark, coded))


def nest(content, random, others):
    """Thousands of brackets where a word was."""
    text = content.decode("utf-8", "surrogateescape")
    found = list(_TOKEN.finditer(text))
    depth = int(10 ** random.uniform(1, 4.7))
    opened, closed = pick(
        random, (("[", "]"), ('{"a":', "}"), ("[", ""), ("- ", ""), ("{a: ", "}"))
    )
    at = pick(random, found).span() if found else (0, 0)
    middle = opened * depth + "1" + closed * depth
    return (text[: at[0]] + middle + text[at[1] :]).encode("utf-8", "surrogateescape")


TEXT = (change_word, change_word, change_word, change_lines, change_sign, encode, nest, flip,
        cut_off, splice, leave_out)  # fmt: skip

# --- JSON

VALUES = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e308, 10**30, float("nan"), float("inf"), "", "x",
    "1", "..", "/dev/zero", "a/b", "n" * 300, "\0", "\ud800", [], {}, [[]], [0], ["x"], [None],
    {"x": 1}, [1, 2, 3], [-1, -1], list(range(1000)),
)  # fmt: skip
"""What may stand where something else should."""


def places_in(value, where=()):
    """The way to each value of a tree."""
    yield where
    if not isinstance(value, dict | list):
        return
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places_in(one, (*where, key))


def change_tree(tree, random):
    """The same tree, in which one value is another, is gone, or is there twice."""
    way = pick(random, list(places_in(tree)))
    if not way:
        return copy.deepcopy(pick(random, VALUES))
    home = tree
    for key in way[:-1]:
        home = home[key]
    what = int(random.integers(5))
    if what == 0:
        del home[way[-1]]
    elif what == 1:
        home[way[-1]] = [home[way[-1]]]
    elif what == 2 and isinstance(home, list):
        home.insert(0, home[way[-1]])
    elif what == 3 and isinstance(home[way[-1]], int | float):
        home[way[-1]] = pick(random, (-1, 2, 3, 1e9, 2**31, 2**63, 1e300, 0.1)) * (
            home[way[-1]] or 1
        )
    else:
        home[way[-1]] = copy.deepcopy(pick(random, VALUES))
    return tree


def change_json(content, random, others):
    """The same JSON with a few values changed."""
    try:
        tree = json.loads(content)
    except ValueError:
        return flip(content, random, others)
    for _ in range(int(random.integers(1, 4))):
        tree = change_tree(tree, random)
    return json.dumps(tree).encode()


JSON = (change_json,) * 8 + TEXT
