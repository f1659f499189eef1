"""Whether memory, open files and threads stay level over any number of scored inputs.

    PYTHONPATH=tests/helpers python tests/flat_check.py --pictures 2000 --volumes 200 --calls 2000

Pictures and volumes, of which every second is a DICOM series, are made and scored by the command
``score`` in this process, with all that it writes for them; each call is one of
``Inferencer.predict``. The model is a small one. A table shows what Linux counts; a line of each
part says ``pass`` or ``fail``, and the exit status is 1 if one has failed.
"""

import argparse
import ctypes
import gc
import logging
import os
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scans import UP, numbers, write_stack, write_volume

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main as command
from anomalib_medclip.models import get_model
from anomalib_medclip.testing import MethodCase

SHAPE = 128, 128, 8
"""Of volumes; of pictures without the last. One that is kept takes at least 196 kB."""

SHARES = 0.1, 0.25, 0.5, 0.75, 1.0
"""Of the inputs, after which it is counted."""

WARM = 1
"""The share from which all is to be level: libraries and allocators have then what they want."""

ROOM = 16.0
"""MB that may be added, in all."""

A_ROW = 0.004
"""MB that an input may add: ``score`` keeps the row of its table."""

MOMENTARY = 8
"""Open files and threads that may be added: those of the inputs that are read and written now."""


OURS = Path("/", "proc/self")
"""What Linux says of this process."""


class Count(NamedTuple):
    """What this process holds of the system.

    Attributes:
        done: Inputs that were scored.
        memory: Resident, in MB.
        files: Open ones.
        threads: Of all libraries.
    """

    done: int
    memory: float
    files: int
    threads: int

    @classmethod
    def after(cls, done):
        give_back()
        lines = (OURS / "status").read_text().splitlines()
        said = dict(line.split(":", 1) for line in lines)
        memory = int(said["VmRSS"].split()[0]) / 1024
        return cls(done, memory, len(list((OURS / "fd").iterdir())), int(said["Threads"]))


def give_back():
    """Give freed memory back to the system, in which what is kept could hide."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class Counter(logging.Handler):
    """Counts after given shares of inputs, of which each is one word of the log."""

    def __init__(self, total):
        super().__init__(logging.INFO)
        self.at = {round(total * share) for share in SHARES}
        self.done, self.counts = 0, []

    def emit(self, record=None):
        self.done += 1
        if self.done in self.at:
            self.counts.append(Count.after(self.done))


def judge(what, counts):
    """Print counts and a verdict; whether they are level."""
    for one in counts:
        print(f"{what}: {one.done:6d} {one.memory:8.1f} MB {one.files:5d} {one.threads:4d}")
    warm, end = counts[WARM], counts[-1]
    added = end.memory - warm.memory
    allowed = ROOM + A_ROW * (end.done - warm.done)
    files, threads = end.files - warm.files, end.threads - warm.threads
    level = added <= allowed and max(files, threads) <= MOMENTARY
    print(
        f"{'pass' if level else 'fail'}: {what}: from {warm.done} to {end.done}, memory "
        f"{added:+.1f} MB ({allowed:.0f} allowed), open files {files:+d}, threads {threads:+d} "
        f"({MOMENTARY} allowed)",
        flush=True,
    )
    return level


def draw_pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 200, SHAPE[:2], np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def draw_volumes(folder, count):
    for number in range(count):
        voxels = numbers(SHAPE, number)
        if number % 2:
            series = folder / f"{number}"
            series.mkdir(parents=True)
            write_stack(series, voxels.T, UP)
        else:
            write_volume(folder / f"{number}.nii.gz", voxels)
    return folder


def score(what, folder, count, checkpoint):
    """Score a folder by the command, and judge."""
    counter, logger = Counter(count), logging.getLogger("anomalib_medclip.score.scorer")
    words = [str(folder), "--ckpt", str(checkpoint), "--out", f"{folder} scored"]
    with ExitStack() as stack:
        stack.enter_context(redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
        logger.addHandler(counter)
        stack.callback(logger.removeHandler, counter)
        status = command(["score", *words, "--intensity", "[0, 1000]"])
    assert status == 0
    assert counter.done == count
    return judge(what, counter.counts)


def call(folder, count, checkpoint):
    """Call ``Inferencer.predict`` for one picture of a folder after another, and judge."""
    inferencer, counter, paths = Inferencer(checkpoint), Counter(count), sorted(folder.iterdir())
    for number in range(count):
        inferencer.predict(paths[number % len(paths)])
        counter.emit()
    return judge("calls", counter.counts)


def main(words=None):
    parser = argparse.ArgumentParser()
    for name, count in (("pictures", 2000), ("volumes", 200), ("calls", 2000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args(words)
    case = MethodCase(get_model("mvfa"))
    checkpoint = case.trained.checkpoint
    with tempfile.TemporaryDirectory() as scratch:
        pictures = draw_pictures(Path(scratch, "pictures"), given.pictures)
        volumes = draw_volumes(Path(scratch, "volumes"), given.volumes)
        level = [
            score("pictures", pictures, given.pictures, checkpoint),
            score("volumes", volumes, given.volumes, checkpoint),
            call(pictures, given.calls, checkpoint),
        ]
    return int(not all(level))


if __name__ == "__main__":
    sys.exit(main())
