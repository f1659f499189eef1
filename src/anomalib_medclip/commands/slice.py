"""``anomalib-medclip slice``: volumes become a tree of PNG pictures, laid out as BMAD's.

It can be stopped at any moment and started again: every file appears whole or not at all, and a
volume whose note lies in the tree is not cut again. The tree does not depend on how often that
happened. One run at a time works on a tree: another waits, and then finds it done.
"""

import argparse
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from anomalib_medclip.commands.arguments import at_least_one, pair
from anomalib_medclip.data.config import load_data
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.data.volumes import Volumes
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import check_writable

logger = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Cut the volumes of a config.

    Returns:
        0, or 1 where a volume could not be read; the others are cut all the same.

    Raises:
        MedclipError: The config or a folder cannot be read, or the tree cannot be written.
    """
    given = _parser().parse_args(arguments)
    check_writable(given.out)
    data = load_data(given.config)
    if not isinstance(data, Volumes):
        msg = f"{given.config} is not made of volumes; its class should be {Volumes.__name__}"
        raise DataRootError(msg)
    if given.dicom_where:
        data.dicom_where = dict(given.dicom_where)
    tree = cut_tree(data, given.out, given.bits, given.shares, given.jobs, _shown)
    for path, reason in tree.failed.items():
        logger.error("%s: %s", path, reason)
    failed = len(tree.failed)
    Console().print(f"{tree.pictures} pictures in {tree.folder}; {failed} volumes failed")
    return int(failed > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("anomalib-medclip slice", description=__doc__)
    parser.add_argument("config", type=Path, help="data config of anomalib_medclip.data.Volumes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tree")
    parser.add_argument("--bits", type=int, choices=(8, 16), default=16, help="of the PNG files")
    parser.add_argument(
        "--shares", type=float, nargs=3, default=(0.6, 0.1, 0.3),
        metavar=("TRAIN", "VALID", "TEST"),
        help="parts of the patients for the splits, where the config names none",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=at_least_one, default=os.cpu_count() or 1, help="volumes at a time"
    )
    parser.add_argument(
        "--dicom-where", type=pair, nargs="+", metavar="NAME=VALUE",
        help="of several volumes of a DICOM series the one with these values of attributes",
    )  # fmt: skip
    return parser


def _shown(items: Iterable[Any], count: int) -> Iterable[Any]:
    return track(items, "cutting volumes", count)
