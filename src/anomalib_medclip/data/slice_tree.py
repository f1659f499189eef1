"""Volumes become a tree of PNG pictures, laid out as BMAD's.

Cutting can be stopped at any moment and started again: every file appears whole or not at all, and
a volume whose note lies in the tree is not cut again. The tree does not depend on how often that
happened. One run at a time works on a tree: another waits, and then finds it done.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalib_medclip.data.cases import Case, with_splits
from anomalib_medclip.data.tree_notes import Note, TreeNotes
from anomalib_medclip.data.volumes import Volumes
from anomalib_medclip.errors import DataRootError, MaskError, MedclipError, OutputError
from anomalib_medclip.files import (
    MISSING,
    alone_in,
    as_json,
    fault_of,
    from_json,
    sha256_of_all,
    whole_file,
)
from anomalib_medclip.provenance import NOTICE, versions, without_folders
from anomalib_medclip.readers.left_out import warn_of
from anomalib_medclip.readers.lesion import IGNORED, LESION
from anomalib_medclip.readers.lesion_number import LesionNumber
from anomalib_medclip.readers.volume_file import sha256_of_volume
from anomalib_medclip.signals import stop_if_told

_FOLDERS = {0: "good", 1: "Ungood"}

_GREYS = np.array([0, 255, 127], np.uint8)
"""What masks show of what is healthy, a lesion (``lesion_labels: [255]``) and ignored
(``ignore_labels: [127]``)."""


class CutTree(NamedTuple):
    """What has become of volumes.

    Attributes:
        folder: Top of the tree.
        pictures: Pictures in it.
        failed: Why volumes could not be cut, by their paths below the data's root.
    """

    folder: Path
    pictures: int
    failed: dict[str, str]


def cut_tree(
    data: Volumes,
    out: Path,
    bits: int = 16,
    shares: Sequence[float] = (0.6, 0.1, 0.3),
    jobs: int = 1,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> CutTree:
    """Cut all volumes of some data into a tree; those that cannot be read are left out.

    Args:
        data: How volumes are read, cut and labelled.
        out: Folder of trees; this one is called as the data are.
        bits: Bits a pixel, 8 or 16.
        shares: Parts of the patients for train, valid and test, where the data name no splits.
        jobs: Volumes at a time.
        progress: Passes an iterator on and shows how far it is, given the number of items.

    Raises:
        DataRootError: The volumes cannot be listed, or the folder holds another tree.
        DataChangedError: Something else has removed notes; no picture is removed.
        DamagedFileError: A note or the manifest of a former run is no JSON.
        OutputError: The disk is full.
    """
    cases = with_splits(data.cases(), shares, data.draw_seed)
    warn_of(data.not_taken(cases))
    folder = out / f"{data.name}_AD"
    with alone_in(folder):
        return _Tree(folder, data, bits, shares).cut(cases, jobs, progress)


class _Tree:
    """A tree of pictures, and the notes of the volumes that are in it."""

    def __init__(self, folder: Path, data: Volumes, bits: int, shares: Sequence[float]) -> None:
        self.folder = folder
        self.data = data
        self.bits = bits
        self.notes = TreeNotes(folder, self._options(shares))

    def _options(self, shares: Sequence[float]) -> Any:  # noqa: ANN401 - as JSON has them
        """All that pictures, labels and splits depend on, besides the volumes."""
        data = self.data
        options = {
            "notice": NOTICE,
            "version": versions()["anomalib-medclip"],
            "bits": self.bits,
            "intensity": data.intensity,
            **data.slicing.as_plain(),
            "smallest_lesion": data.smallest_lesion,
            "uneven": data.uneven,
            "dicom_where": data.dicom_where,
            "mask_labels": asdict(data.mask_labels),
            "layout": [asdict(source) for source in data.sources],
            "table_sha256": sha256_of_all(Path(data.table)) if data.table else None,
            "shares": list(shares),
            "seed": data.draw_seed,
        }
        return from_json(as_json(options))

    def cut(
        self,
        cases: Sequence[Case],
        jobs: int,
        progress: Callable[[Iterable[Any], int], Iterable[Any]],
    ) -> CutTree:
        """Cut all volumes, several at a time, and write the manifest."""
        named = {_name(case): case for case in cases}
        if len(named) < len(cases):
            msg = f"two volumes of one patient of {self.data.root} would get the same names"
            raise DataRootError(msg + "; let another name in braces tell them apart, as {visit}")
        failed = {}
        pool = ThreadPoolExecutor(jobs)
        try:
            jobs_of = {pool.submit(self._cut, n, case): case for n, case in named.items()}
            for job in progress(as_completed(jobs_of), len(cases)):
                try:
                    job.result()
                except OutputError:  # which is of all volumes
                    raise
                except (MedclipError, OSError) as error:
                    why = without_folders(str(error), self.data.root)
                    failed[self._path(jobs_of[job].image)] = why
        finally:
            pool.shutdown(cancel_futures=True)
        done = sorted(n for n, case in named.items() if self._path(case.image) not in failed)
        volumes = self.notes.of_all(done)
        failed |= self._other_numbers(named, volumes)
        volumes = [note for note in volumes if note["sources"]["image"]["path"] not in failed]
        self._sweep(volumes)
        self.notes.finish(volumes, failed)
        return CutTree(self.folder, sum(len(note["slices"]) for note in volumes), failed)

    def _other_numbers(self, named: dict[str, Case], volumes: Sequence[Note]) -> dict[str, str]:
        """Why volumes are not taken whose masks mark lesions by another number than the first's.

        It is asked when all are cut, so that it does not depend on which is cut first.
        """
        numbers = {note["name"]: note.get("number") for note in volumes}
        number, failed = LesionNumber(), {}
        for name, case in named.items():
            try:
                number.meet(numbers.get(name), str(case.mask))
            except MaskError as error:
                failed[self._path(case.image)] = without_folders(str(error), self.data.root)
                self.notes.remove(name)
        return failed

    def _path(self, path: Path) -> str:
        return path.relative_to(self.data.root).as_posix()

    def _cut(self, name: str, case: Case) -> None:
        """Cut one volume, unless its note says that this was done."""
        sources = {
            kind: {
                "path": self._path(path),
                # Cutting will say what is missing.
                "sha256": None if fault_of(path) is MISSING else sha256_of_volume(path),
            }
            for kind, path in zip(("image", "mask", "organ"), case[:3], strict=True)
            if path is not None
        }
        if former := self.notes.read(name):
            if former["sources"] == sources and all(path.is_file() for path in self._made(former)):
                return
            self.notes.remove(name)
        sliced = self.data.cut(case)
        warn_of(sliced.left_out)
        slices = []
        for number, label in self.data.labelled(case, sliced):
            stop_if_told()
            home = self.folder / str(case.split) / _FOLDERS[label]
            file = f"{_stem(case)}_{number:03d}.png"
            _save(home / "img" / file, self._pixels(sliced.images[number].numpy()))
            marked = {"lesion": 0, "ignored": 0}
            if sliced.masks is not None:
                mask = sliced.masks[number].numpy()
                for kind, mark in (("lesion", LESION), ("ignored", IGNORED)):
                    marked[kind] = int(np.count_nonzero(mask == mark))
                if any(marked.values()):
                    _save(home / "anomaly_mask" / file, _GREYS[mask])
            path = (home / "img" / file).relative_to(self.folder).as_posix()
            slices.append({"index": number, "label": label, **marked, "file": path})
        facts = {
            "patient": case.patient,
            "number": sliced.number,
            "shape": list(sliced.images.shape),
            "affine": sliced.picture_affine.tolist(),
        }
        self.notes.write({"name": name, "sources": sources, **facts, "slices": slices})

    def _sweep(self, volumes: Sequence[Note]) -> None:
        """Remove pictures of former cuts: of volumes that have changed, or are of another split.

        Left where they were, they could have one patient in training and test.
        """
        listed = {path for note in volumes for path in self._made(note)}
        for path in self.folder.glob("*/*/*/*.png"):
            if path not in listed:
                path.unlink()
        for path in self.folder.glob("*/*/*/.*.partial"):
            path.unlink()

    def _made(self, note: Note) -> Iterator[Path]:
        """The pictures of a volume, and the masks of those that have one."""
        for made in note["slices"]:
            path = self.folder / made["file"]
            yield path
            if made["lesion"] or made["ignored"]:
                yield path.parent.with_name("anomaly_mask") / path.name

    def _pixels(self, image: NDArray[np.float32]) -> NDArray[Any]:
        top = 2**self.bits - 1
        return np.rint(image.astype(np.float64) * top).astype(f"uint{self.bits}")


def _name(case: Case) -> str:
    return f"{case.split}_{_stem(case)}"


def _stem(case: Case) -> str:
    """What names of a volume's pictures begin with."""
    return f"{case.patient}_{case.scan}" if case.scan else case.patient


def _save(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG file, whole or not at all."""
    with whole_file(path) as aside:
        Image.fromarray(pixels).save(aside, format="png")
