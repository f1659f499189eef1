"""Damaged files of every kind that this package loads, by chance, for some minutes.

    PYTHONPATH=src:tests:tests/helpers python -m fuzz --minutes 60 --seed 0

Inputs that fail are kept below ``--out``, each with how it ended; one of them is read again, in
this process, by ``--again FOLDER/failures/NAME``.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # whoever forks has no threads
sys.modules["openvino_telemetry"] = None  # it would start one

from fuzz import images  # noqa: E402
from fuzz.attempts import MOST_VOXELS, limit_addresses  # noqa: E402
from fuzz.campaign import Campaign  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

from anomalib_medclip.readers.size_limit import LIMIT_VARIABLE  # noqa: E402


def main():
    parser = argparse.ArgumentParser("fuzz")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of processor's time")
    parser.add_argument(
        "--attempts", type=int, default=sys.maxsize, help="at most so many a target"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", metavar="TARGET", choices=TARGETS, default=list(TARGETS)
    )
    parser.add_argument("--quick", action="store_true", help="leave out targets that are slow")
    parser.add_argument("--out", type=Path, help="folder of inputs; by default a new one")
    parser.add_argument("--again", type=Path, metavar="INPUT", help="read one kept input")
    options = parser.parse_args()
    if options.again:
        os.environ[LIMIT_VARIABLE] = str(MOST_VOXELS)
        limit_addresses()
        kept = json.loads(options.again.with_name(f"{options.again.name}.json").read_text())
        TARGETS[kept["target"]].read(options.again / kept["file"])
        return 0
    out = options.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    chosen = {name: TARGETS[name] for name in options.only}
    if options.quick:
        chosen = {name: target for name, target in chosen.items() if not target.slow}
    images.load_lists()
    campaign = Campaign(chosen, out, options.seed)
    campaign.run(
        options.minutes * 60,
        options.attempts,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(campaign.table())
    print(*campaign.failures(), sep="\n")
    return int(any(tally.failures for tally in campaign.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
