"""Readers with faults, each of which a campaign has to find.

    PYTHONPATH=src:tests:tests/helpers python -m fuzz.planted FOLDER

prints, for each fault by its name, what was found.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from fuzz.campaign import Campaign
from fuzz.damage import flip
from fuzz.target import Target, legal, text

from anomalib_medclip.errors import ImageReadError


def foreign(file):
    return {}[file.name]


def hanging(file):
    while True:
        pass


def large(file):
    bytearray(80_000_000)


def refused(file):
    """Ask for more than there is, and hide that."""
    try:
        np.ones(2**42)
    except MemoryError as error:
        msg = f"{file} cannot be read"
        raise ImageReadError(msg) from error


def crashing(file):
    os.kill(os.getpid(), signal.SIGSEGV)


def unnamed(file):
    msg = "something cannot be read"
    raise ImageReadError(msg)


def not_finite(file):
    legal([np.nan])


def writing(file):
    (file.parents[3] / "elsewhere").write_text("x")


def running(file):
    subprocess.run(["true"], check=False)


def sound(file):
    if file.read_bytes() != b"whole":
        msg = f"{file} is damaged"
        raise ImageReadError(msg)


FAULTS = (foreign, hanging, large, refused, crashing, unnamed, not_finite, writing, running)


def after_the_first(read):
    """A reader that reads the undamaged input, and has a fault."""

    def faulty(file):
        return None if file.read_bytes() == b"whole" else read(file)

    return faulty


def main(folder):
    whole = (text("given.txt", "whole"),)
    targets = {
        one.__name__: Target(one.__name__, whole, (flip,), after_the_first(one), memory=50_000_000)
        for one in (*FAULTS, sound)
    }
    campaign = Campaign(targets, folder, seed=0, hang=0.5).run(attempts=2)
    return {name: list(tally.failures) for name, tally in campaign.tallies.items()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
