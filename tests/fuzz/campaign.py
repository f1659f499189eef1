"""A campaign: attempts at all targets in turn, each for as much of the processor's time.

A process makes attempts at one target; when it dies or hangs, the input it had begun is at fault,
and another goes on behind it. Failing inputs are kept, each kind a few times.
"""

import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.attempts import Home, serve

WAIT = 120
"""Seconds of the clock after which an attempt hangs: it waits, or the machine is very busy."""

TURN = 4
"""Seconds of the processor that a process works before another target has its turn."""

KEPT = 3
"""Inputs that are kept of each kind of failure."""


@dataclass
class Tally:
    """What became of the attempts at a target."""

    ends: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    kept: dict[str, str] = field(default_factory=dict)
    errors: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    memory: int = 0
    seconds: float = 0.0
    next: int = 0

    @property
    def attempts(self):
        return sum(self.ends.values())


class Campaign:
    """Attempts at targets.

    Args:
        targets: The targets, by name.
        folder: Where inputs and failures are written.
        seed: Decides, with the number of an attempt, what its input is.
        hang: Seconds of the processor after which an attempt counts as hanging.
    """

    def __init__(self, targets, folder, seed, hang=10):
        self.targets = targets
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seed = seed
        self.hang = hang
        self.tallies = {name: Tally() for name in targets}

    def run(self, seconds=float("inf"), attempts=sys.maxsize, said=lambda line: None):
        """Make attempts until all have had their share of seconds, or so many each."""
        assert threading.active_count() == 1, "a fork would copy the locks of other threads"
        while True:
            left = {n: t for n, t in self.tallies.items() if t.attempts < attempts}
            spent = sum(tally.seconds for tally in self.tallies.values())
            if not left or spent >= seconds:
                return self
            name = min(left, key=lambda one: (left[one].seconds, one))
            before = set(self.tallies[name].failures)
            self._turn(name, attempts)
            (self.folder / "table.md").write_text(self.table() + "\n")
            for new in set(self.tallies[name].failures) - before:
                said(f"{name}: {new}")

    def _turn(self, name, attempts):
        """Let one process make attempts until its turn is over, or it dies."""
        tally, home = self.tallies[name], Home(self.folder, name)
        hears, says = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os.close(hears)
            self._be_child(name, home, range(tally.next, attempts), says)
        os.close(says)
        begun, why = self._listen(pid, hears, tally, home)
        os.close(hears)
        _, status, usage = os.wait4(pid, 0)
        tally.seconds += usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        if begun is None and code and not why:
            said = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
            msg = f"no attempt at {name} was begun: exit status {code}\n{said}"
            raise RuntimeError(msg)
        if begun is not None:
            home.keep(self.seed, begun["number"])
            sign = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self._count(tally, home, begun, {"end": "failed", "what": why or f"crash: {sign}"})

    def _be_child(self, name, home, numbers, says):
        status = 1
        try:
            log = os.open(self.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            ends = time.process_time() + TURN

            def say(word):
                os.write(says, json.dumps(word).encode() + b"\n")
                if "end" in word and time.process_time() > ends:
                    os._exit(0)

            serve(self.targets[name], home, self.seed, numbers, say)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _listen(self, pid, hears, tally, home):
        """Hear a process out; the attempt that it has not ended, and why it was killed, if so."""
        begun, rest, since = None, b"", (time.monotonic(), 0.0)
        while True:
            if select.select([hears], [], [], 0.5)[0]:
                heard = os.read(hears, 1 << 16)
                if not heard:
                    return begun, ""
                *lines, rest = (rest + heard).split(b"\n")
                for word in map(json.loads, lines):
                    if "begun" in word:
                        begun = word
                        tally.next = word["number"] + 1
                    else:
                        self._count(tally, home, begun, word)
                        begun = None
                since = time.monotonic(), processor_time(pid)
            elif begun and (
                processor_time(pid) - since[1] > self.hang or time.monotonic() - since[0] > WAIT
            ):
                os.kill(pid, signal.SIGKILL)
                return begun, f"hang: more than {self.hang} s"

    def _count(self, tally, home, begun, word):
        tally.ends[word["end"]] += 1
        tally.slowest = max(tally.slowest, word.get("seconds", 0))
        tally.memory = max(tally.memory, word.get("memory", 0))
        if word["end"] == "typed":
            tally.errors[word["what"]] += 1
        if word["end"] != "failed":
            return
        what, name = kind_of(word["what"]), home.kept(self.seed, begun["number"])
        tally.failures[what] += 1
        if tally.failures[what] > KEPT:
            shutil.rmtree(name)
            return
        word = {"target": home.target, "file": begun["begun"], **word}
        name.with_name(f"{name.name}.json").write_text(json.dumps(word, indent=1))
        tally.kept.setdefault(what, name.name)

    def table(self):
        """A line of each target, in Markdown."""
        heads = ("target", "attempts", "results", "typed errors", "failures", "CPU s", "slowest s",
                 "most MB more")  # fmt: skip
        rows = [heads, ["---"] + ["---:"] * 7]
        for name, t in self.tallies.items():
            counts = (t.attempts, t.ends["result"], t.ends["typed"], t.ends["failed"])
            rows.append(
                (name, *counts, f"{t.seconds:.1f}", f"{t.slowest:.2f}", f"{t.memory / 1e6:.0f}")
            )
        every = self.tallies.values()
        ends = sum((t.ends for t in every), Counter())
        total = (sum(ends.values()), ends["result"], ends["typed"], ends["failed"])
        rows.append((
            "all", *total, f"{sum(t.seconds for t in every):.0f}",
            f"{max(t.slowest for t in every):.2f}", f"{max(t.memory for t in every) / 1e6:.0f}",
        ))  # fmt: skip
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)

    def failures(self):
        """A line of each kind of failure, with an input that shows it."""
        return [
            f"{name}: {count} x {what}; --again failures/{tally.kept[what]}"
            for name, tally in self.tallies.items()
            for what, count in tally.failures.most_common()
        ]


def kind_of(what):
    """A failure without what differs from input to input: its kind, and where it was."""
    kind, _, said = what.partition(": ")
    return f"{kind}: {said[:70]}" if kind in ("unnamed", "written", "crash", "hang") else kind


def processor_time(pid):
    """Seconds of the processor that a process has had."""
    fields = Path("/", "proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
