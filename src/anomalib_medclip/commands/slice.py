"""``anomalib-medclip slice``: volumes become a tree of PNG pictures, laid out as BMAD's.

It can be stopped at any moment and started again: every file appears whole or not at all, and a
volume whose note lies in the tree is not cut again. The tree does not depend on how often that
happened. One run at a time works on a tree: another waits, and then finds it done.
"""

import argparse
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from anomalib_medclip import __version__
from anomalib_medclip.commands.arguments import at_least_one
from anomalib_medclip.data.cases import Case
from anomalib_medclip.data.config import load_data
from anomalib_medclip.data.volumes import Volumes
from anomalib_medclip.errors import DamagedFileError, DataChangedError, DataRootError, MedclipError
from anomalib_medclip.files import (
    alone_in,
    as_json,
    from_json,
    read_json,
    sha256_of_all,
    whole_file,
    write_whole,
)
from anomalib_medclip.provenance import NOTICE

logger = logging.getLogger(__name__)

_FOLDERS = {0: "good", 1: "Ungood"}


def run(arguments: Sequence[str]) -> int:
    """Cut the volumes of a config.

    Returns:
        0, or 1 where a volume could not be read; the others are cut all the same.
    """
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
    given = parser.parse_args(arguments)
    data = load_data(given.config)
    if not isinstance(data, Volumes):
        msg = f"{given.config} is not made of volumes; its class should be {Volumes.__name__}"
        raise DataRootError(msg)
    cases = with_splits(data.cases(), given.shares, data.draw_seed)
    folder = given.out / f"{data.name}_AD"
    with alone_in(folder):
        tree = Tree(folder, data, given.bits, given.shares)
        failed = tree.cut(cases, given.jobs)
        count = tree.count
    for path, reason in failed.items():
        logger.error("%s: %s", path, reason)
    Console().print(f"{count} pictures in {folder}; {len(failed)} volumes failed")
    return int(bool(failed))


def with_splits(cases: Sequence[Case], shares: Sequence[float], seed: int) -> list[Case]:
    """Give cases without a split one, patient by patient and source by source.

    Raises:
        DataRootError: The shares are none, or one patient is of two splits.
    """
    if min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        msg = f"shares {tuple(shares)} cannot be shared by; give three numbers from 0"
        raise DataRootError(msg)
    splits: dict[str, str] = {}
    for case in cases:
        if case.split and splits.setdefault(case.patient, case.split) != case.split:
            msg = (
                f"the patient of {case.image} is of the splits {splits[case.patient]} and "
                f"{case.split}; move all volumes of a patient into one split"
            )
            raise DataRootError(msg)
    for source in dict.fromkeys(case.source for case in cases):
        patients = sorted({c.patient for c in cases if c.source == source} - splits.keys())
        order = np.random.default_rng(seed).permutation(len(patients))
        ends = np.rint(np.cumsum(shares) / sum(shares) * len(patients))
        for place, index in enumerate(order):
            number = int(np.searchsorted(ends, place, side="right"))
            splits[patients[index]] = ("train", "valid", "test")[number]
    return [case._replace(split=splits[case.patient]) for case in cases]


class Tree:
    """A tree of pictures, and the notes of the volumes that are in it.

    Args:
        folder: Its top, such as ``Brain_AD``.
        data: How volumes are read, cut and labelled.
        bits: Bits a pixel.
        shares: Parts of the patients for the splits, where the data name none.

    Raises:
        DataRootError: The folder holds a tree that was made with other options.
    """

    def __init__(self, folder: Path, data: Volumes, bits: int, shares: Sequence[float]) -> None:
        self.folder = folder
        self.data = data
        self.bits = bits
        self.notes = folder / ".notes"
        self.manifest = folder / "manifest.json"
        self.options = self._plain_options(shares)
        self._begin()

    def _plain_options(self, shares: Sequence[float]) -> Any:  # noqa: ANN401 - as JSON has them
        """All that pictures, labels and splits depend on, besides the volumes."""
        data = self.data
        options = {
            "notice": NOTICE,
            "version": __version__,
            "bits": self.bits,
            "intensity": data.intensity,
            **data.slicing.as_plain(),
            "smallest_lesion": data.smallest_lesion,
            "uneven": data.uneven,
            "layout": [asdict(source) for source in data.sources],
            "table_sha256": sha256_of_all(Path(data.table)) if data.table else None,
            "shares": list(shares),
            "seed": data.draw_seed,
        }
        return from_json(as_json(options))

    @property
    def count(self) -> int:
        """Pictures in the tree."""
        return sum(len(note["slices"]) for note in read_json(self.manifest)["volumes"])

    def _begin(self) -> None:
        """Take up what is there, if it was made alike."""
        known = self.notes / "options.json"
        former = next((read_json(path) for path in (self.manifest, known) if path.is_file()), None)
        if former is None and self.folder.is_dir() and any(self.folder.iterdir()):
            msg = f"{self.folder} holds other things; give another --out, or empty it"
            raise DataRootError(msg)
        former = self.options if former is None else former
        volumes = former.pop("volumes", [])
        former.pop("failed", None)
        if former != self.options:
            msg = f"{self.folder} was made with other options or versions; give another --out"
            raise DataRootError(msg)
        _write(known, self.options)
        for note in volumes:
            _write(self.notes / f"{note['name']}.json", note)

    def cut(self, cases: Sequence[Case], jobs: int) -> dict[str, str]:
        """Cut all volumes, several at a time, and write the manifest.

        Returns:
            Why volumes could not be cut, by their paths.

        Raises:
            DataRootError: Two volumes would get the same names.
            DataChangedError: Something else has removed notes; nothing is swept.
        """
        named = {self._name(case): case for case in cases}
        if len(named) < len(cases):
            msg = f"two volumes of one patient of {self.data.root} would get the same names"
            raise DataRootError(msg + "; let another name in braces tell them apart, as {visit}")
        failed = {}
        with Progress() as progress, ThreadPoolExecutor(jobs) as pool:
            task = progress.add_task("cutting volumes", total=len(cases))
            jobs_of = {pool.submit(self._cut, n, case): case for n, case in named.items()}
            for job in as_completed(jobs_of):
                try:
                    job.result()
                except DamagedFileError:
                    raise  # of our own notes: it is not known what to sweep
                except (MedclipError, OSError) as error:
                    failed[self._path(jobs_of[job])] = str(error)
                progress.advance(task)
        done = sorted(name for name, case in named.items() if self._path(case) not in failed)
        volumes = self._noted(done)
        self._sweep(volumes)
        _write(self.manifest, {**self.options, "volumes": volumes, "failed": failed})
        shutil.rmtree(self.notes)
        return failed

    def _noted(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The notes of volumes that were cut; without one of them, nobody knows what to sweep."""
        notes = [self.notes / f"{name}.json" for name in names]
        if gone := [path for path in notes if not path.is_file()]:
            _write(self.notes / "options.json", self.options)  # by which it is taken up again
            msg = (
                f"{gone[0]} (1 of {len(gone)}) was removed by something else while this run was at "
                "work; no picture was swept; let nothing else change the folder, and start again"
            )
            raise DataChangedError(msg)
        return [read_json(path) for path in notes]

    def _path(self, case: Case) -> str:
        return case.image.relative_to(self.data.root).as_posix()

    def _name(self, case: Case) -> str:
        return f"{case.split}_{_stem(case)}"

    def _cut(self, name: str, case: Case) -> None:
        """Cut one volume, unless its note says that this was done."""
        sources = {
            kind: {
                "path": path.relative_to(self.data.root).as_posix(),
                "sha256": sha256_of_all(path) if path.exists() else None,  # as cutting will say
            }
            for kind, path in zip(("image", "mask", "organ"), case[:3], strict=True)
            if path is not None
        }
        note = self.notes / f"{name}.json"
        if note.is_file():
            former = read_json(note)
            if former["sources"] == sources and all(path.is_file() for path in self._made(former)):
                return
            note.unlink()
        sliced = self.data.cut(case)
        slices = []
        for number, label in self.data.labelled(case, sliced):
            home = self.folder / str(case.split) / _FOLDERS[label]
            file = f"{_stem(case)}_{number:03d}.png"
            _save(home / "img" / file, self._pixels(sliced.images[number].numpy()))
            lesion = 0
            if label and sliced.masks is not None:
                mask = sliced.masks[number].numpy()
                lesion = int(mask.sum())
                _save(home / "anomaly_mask" / file, mask * np.uint8(255))
            path = (home / "img" / file).relative_to(self.folder).as_posix()
            slices.append({"index": number, "label": label, "lesion": lesion, "file": path})
        facts = {
            "patient": case.patient,
            "shape": list(sliced.images.shape),
            "affine": sliced.picture_affine.tolist(),
        }
        _write(note, {"name": name, "sources": sources, **facts, "slices": slices})

    def _sweep(self, volumes: Sequence[dict[str, Any]]) -> None:
        """Remove pictures of former cuts: of volumes that have changed, or are of another split.

        Left where they were, they could have one patient in training and test.
        """
        listed = {path for note in volumes for path in self._made(note)}
        for path in self.folder.glob("*/*/*/*.png"):
            if path not in listed:
                path.unlink()
        for path in self.folder.glob("*/*/*/.*.partial"):
            path.unlink()

    def _made(self, note: dict[str, Any]) -> Iterator[Path]:
        """The pictures of a volume, and the masks of those with a lesion."""
        for made in note["slices"]:
            path = self.folder / made["file"]
            yield path
            if made["lesion"]:
                yield path.parent.with_name("anomaly_mask") / path.name

    def _pixels(self, image: NDArray[np.float32]) -> NDArray[Any]:
        top = 2**self.bits - 1
        return np.rint(image.astype(np.float64) * top).astype(f"uint{self.bits}")


def _stem(case: Case) -> str:
    """What names of a volume's pictures begin with."""
    return f"{case.patient}_{case.scan}" if case.scan else case.patient


def _save(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG file, whole or not at all."""
    with whole_file(path) as aside:
        Image.fromarray(pixels).save(aside, format="png")


def _write(path: Path, content: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Write a JSON file, whole or not at all."""
    write_whole(path, as_json(content, indent=1))
