"""What the name of a picture says: that it is a mask, and of which image."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_GAP = r"[_\-. ]"
_MASKS = r"(?:masks?|maske[ns]?|masques?|m[aá]scaras?|mascher[ae])"
_SURELY = rf"(?:{_MASKS}|msks?|segmentations?|(?:d|prob)segs?|gts?|ground{_GAP}?truths?)"
_PERHAPS = (
    r"(?:labels?|anno(?:tation)?s?|lesions?|rois?|outlines?|contours?|manual|segs?|truths?"
    r"|instances?)"
)
_MASK = rf"(?:{_SURELY}|{_PERHAPS})"
_MADE = r"(?:segmented|superpixels?|annotated|pred(?:ict(?:ed|ion))?s?|tumou?rs?)"
_IMAGE = (
    r"(?:images?|imgs?|imaging|originals?|orig|pictures?|photos?|scans?|slices?|raw|src|inputs?"
    r"|training)"
)
_PART = "(?:t[rs])?"  # for training or test, as nnU-Net calls folders
_WHICH = rf"{_GAP}+(?:copy|kopie|copie|final|new|old|left|right|l|r|v(?=\d))"
_MORE = rf"(?:{_WHICH}|{_GAP}*\(?\d+\)?)*"  # of several lesions, sides, or copies


def _rules(*patterns: str) -> list[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in patterns]


_OF_MASK = _rules(rf"(?<=.)(?:{_GAP}*\(?(?:{_MASK}|{_MADE})\)?)+{_MORE}$", rf"^{_MASK}{_GAP}*")
_OF_IMAGE = _rules(rf"{_GAP}*{_IMAGE}$", rf"^{_IMAGE}{_GAP}*")
[_ALONE] = _rules(rf"(?:.*{_GAP})?\(?{_SURELY}\)?{_MORE}|{_SURELY}{_GAP}.*")
[_OF_MASKS, _OF_MASKS_PERHAPS, _OF_IMAGES] = _rules(
    rf"(?:.*{_GAP})?{_SURELY}", rf"(?:.*{_GAP})?{_PERHAPS}{_PART}", rf"{_IMAGE}{_PART}"
)
_TISSUE = re.compile(r"^(?:m?w|r)?c[1-6](?=.)")  # as SPM calls maps of one
_LABELS = re.compile(  # as FreeSurfer and Slicer call volumes of them
    r"(?:.*[+.])?aseg(?:\..*)?|aparc.*|wmparc.*|(?:[lr]h\.)?ribbon|filled(?:\..*)?|.*\.seg"
)


def alike(name: str) -> str:
    """What names have in common that differ only in case and in how letters are composed.

    >>> alike("BEFUND_Ü.PNG")
    'befund_ü.png'
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Place(NamedTuple):
    """Where an image lies among others, by which its mask is found among the masks.

    Attributes:
        folders: The folders above it, without those that only say what all files in them are.
        name: Its name without ending, nor words that say the same of it.
    """

    folders: tuple[str, ...]
    name: str


def place_of_image(path: Path) -> Place:
    """The place of an image, by its path below the folder of images.

    >>> place_of_image(Path("P4/images/Image_07.jpg"))
    Place(folders=('p4',), name='07')
    """
    return _place(path, alike(path.stem))


def place_of_mask(path: Path) -> Place:
    """The place of the image that a mask is of, by its path below the folder of masks.

    >>> place_of_mask(Path("P4/masks/07_mask_2.png"))
    Place(folders=('p4',), name='07')
    """
    return _place(path, _without(alike(path.stem), _OF_MASK))


def place_of_tissue(path: Path) -> Place:
    """The place of the scan that a volume shows one tissue of, as SPM writes it; else its own.

    >>> place_of_tissue(Path("P4/c1T1.nii"))
    Place(folders=('p4',), name='t1')
    """
    return _place(path, _TISSUE.sub("", alike(path.stem)))


def shorter_places(place: Place) -> Iterator[Place]:
    """Places whose names are what this one's name begins with, up to a gap; the longest first.

    >>> [one.name for one in shorter_places(Place((), "t1_brain pve"))]
    ['t1_brain', 't1']
    """
    for gap in reversed([*re.finditer(_GAP, place.name)]):
        if gap.start():
            yield place._replace(name=place.name[: gap.start()])


def named_after(name: str, others: Collection[str]) -> str | None:
    """The longest of other names that a name, without ending, has at its beginning or end.

    What it has besides is a word: numbers alone tell images apart.

    Args:
        name: As ``alike`` has it.
        others: So, too.

    Example:
        >>> named_after("img_7_ma", {"img_7", "img"}), named_after("img_7", {"img"})
        ('img_7', None)
    """
    for length in range(len(name) - 1, 0, -1):
        for other, word in ((name[:length], name[length:]), (name[-length:], name[:-length])):
            if other in others and re.search(r"[^\W\d_]", word):
                return other
    return None


def _place(path: Path, name: str) -> Place:
    return Place(tuple(map(alike, _folders(path))), _without(name, _OF_IMAGE))


def patient_folder(path: Path) -> str:
    """The first of the folders on a path that say whose images they hold; empty without any.

    >>> patient_folder(Path("images/P4/left/07.png"))
    'P4'
    """
    return "".join(_folders(path)[:1])


def says_mask(name: str, *, surely: bool = False) -> bool:
    """Whether a file's name without ending has a word for masks, or one that means nothing else."""
    name = alike(name)
    if surely:
        return _ALONE.fullmatch(name) is not None
    return any(rule.search(name) for rule in _OF_MASK)


def says_labels(name: str) -> bool:
    """Whether a volume's name without ending is what programs call their volumes of labels."""
    return _LABELS.fullmatch(alike(name)) is not None


def holds_masks(path: Path, *, surely: bool = False) -> bool:
    """Whether a folder on a path has a word for masks, or one that means nothing else."""
    rules = [_OF_MASKS] if surely else [_OF_MASKS, _OF_MASKS_PERHAPS]
    return any(rule.fullmatch(alike(part)) for part in path.parent.parts for rule in rules)


def _folders(path: Path) -> tuple[str, ...]:
    rules = (_OF_MASKS, _OF_MASKS_PERHAPS, _OF_IMAGES)
    parts = path.parent.parts
    return tuple(part for part in parts if not any(rule.fullmatch(alike(part)) for rule in rules))


def _without(name: str, rules: list[re.Pattern[str]]) -> str:
    """A name without the word that the first rule finds."""
    return next((rule.sub("", name) for rule in rules if rule.search(name)), name)
