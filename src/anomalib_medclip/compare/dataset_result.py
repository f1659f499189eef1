"""What a trained model was found to be on one test set, as its record holds it.

Fields have the names, and stand in the order, that the JSON files have them in. A field has a
default where records of former versions have none.
"""

from dataclasses import asdict, dataclass, field

from anomalib_medclip.compare.typed_json import from_plain
from anomalib_medclip.evaluation.figures import Figures
from anomalib_medclip.evaluation.levels import UnitScores
from anomalib_medclip.metrics.influence import Influence


@dataclass(frozen=True, kw_only=True)
class LostLesions:
    """Lesions of the abnormal test images, and how many the model's size leaves no pixel of.

    Attributes:
        size: Height and width of the images tested.
        images: Images with lesions.
        images_lost: Those that have none left.
        lesions: Lesions.
        lesions_lost: Those that are lost.
    """

    size: tuple[int, int]
    images: int
    images_lost: int
    lesions: int
    lesions_lost: int


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """Of each test image, in one order.

    Attributes:
        name: Path below the folder of all.
        patient: Number of the patient, a position in ``KnownPatients.known_as``.
        label: 0 normal, 1 abnormal.
        score: In [0, 1].
        raw_score: As the model gave it, of which the figures of ranks are.
        called: 1 where it is called abnormal; ``None`` if the model has no finite threshold, and
            empty if the record does not say.
    """

    name: tuple[str, ...]
    patient: tuple[int, ...]
    label: tuple[int, ...]
    score: tuple[float, ...]
    raw_score: tuple[float, ...] | None = None
    called: tuple[int, ...] | None = ()

    @property
    def ranked_by(self) -> tuple[float, ...]:
        """The model's own scores if they are known, as normalised ones can tie."""
        return self.score if self.raw_score is None else self.raw_score


@dataclass(frozen=True, kw_only=True)
class KnownPatients:
    """Patients by a pseudonym, the same in all draws, and the number of images of unknown ones."""

    known_as: tuple[str, ...]
    unknown: int


@dataclass(frozen=True, kw_only=True)
class PatientInfluence:
    """A figure, and what each patient adds to its error; see ``metrics.influence.Influence``."""

    value: float
    patients: tuple[str, ...]
    parts: tuple[tuple[float, float], ...]
    images: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, influence: Influence) -> "PatientInfluence":
        """For JSON, in nine digits."""
        return from_plain(cls, influence.as_plain())

    def as_influence(self) -> Influence:
        """Undo ``of``."""
        return Influence.of_plain(asdict(self))


@dataclass(frozen=True, kw_only=True)
class PixelCurves:
    """Rates of pixels at thresholds, in [0, 1]."""

    false_positive_rate: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """Test images that are kept to look at.

    Attributes:
        image: Position of each among the images tested.
        volume: Name of the volume that it is a slice of; empty for none.
        slice: Number of the slice.
        pictures: Name of the array of pictures.
        masks: Name of that of lesions.
        maps: Name of that of maps.
    """

    image: tuple[int, ...]
    volume: tuple[str, ...]
    slice: tuple[int, ...]
    pictures: str
    masks: str | None = None
    maps: str | None = None


@dataclass(frozen=True, kw_only=True)
class NearestPatch:
    """The hottest patch of an image at a level, and the support patch nearest to it.

    Attributes:
        level: Block, from 1.
        distance: One minus the cosine of both, in [0, 2].
        mean: Mean distance of all patches of the image.
        patch: Row and column.
        support: Number of the normal support image, from 0.
        copy: Which augmentation of it; 0 is itself.
        support_patch: Row and column in it; ``None`` for the class token.
        picture: Position of the copy among the pictures of the support.
    """

    level: int
    distance: float
    mean: float
    patch: tuple[int, int]
    support: int
    copy: int
    support_patch: tuple[int, int] | None
    picture: int


@dataclass(frozen=True, kw_only=True)
class KeptExplanation:
    """An ``explanation.Explanation``: arrays by their names, images by their position in the test.

    Attributes:
        image: Images with pictures.
        embedded: Images in embedding plots.
        levels: Blocks whose maps there are, from 1.
        grid: Patches along each side of an image; 0 where ``nearest`` is empty.
        nearest: Of each image shown and each level.
        support: File names of the normal support images.
        pictures: Name of the array of images shown.
        masks: Name of that of lesions.
        maps: Name of that of final maps.
        level_maps: By branch, name of that of the maps of each level.
        support_pictures: Name of that of the support images that ``nearest`` points to, if any.
        embeddings: By kind of vectors, name of that of their places in a plane.
    """

    image: tuple[int, ...]
    embedded: tuple[int, ...]
    levels: tuple[int, ...]
    grid: int
    nearest: tuple[tuple[NearestPatch, ...], ...]
    support: tuple[str, ...]
    pictures: str
    masks: str | None
    maps: str
    level_maps: dict[str, str]
    support_pictures: str | None
    embeddings: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class DatasetResult:
    """What a trained model was found to be on one test set.

    Attributes:
        data: Name of the data.
        object_name: What the images show.
        has_masks: Whether lesions are outlined.
        lesions: How many of them the model's size leaves; ``None`` also without masks.
        honest: Figures of the epoch that was fixed, or chosen by validation.
        images: Scores.
        levels: Scores of ``volume``, where images are slices, and of ``patient``; none in records
            of former versions.
        aggregated: How images became one score of a volume or patient, and why so.
        froc: Share of lesions found, by false positives per patient.
        patients: Who was tested.
        influence: By figure of pixels and lesions, what patients add to it.
        pixel_curves: ``None`` without masks.
        gallery: Pictures, where some are kept.
        explain: What scores come from, where that was asked for.
        oracle: Figures of the epoch that is best on these images.
        oracle_epoch: That epoch, from 1; ``None`` where nobody knows.
        epochs: Figures after each epoch, with ``epoch``, from 1.
    """

    data: str
    object_name: str
    has_masks: bool
    lesions: LostLesions | None = None
    honest: Figures
    images: ImageScores
    levels: dict[str, UnitScores] = field(default_factory=dict)
    aggregated: str = ""
    froc: dict[str, float] = field(default_factory=dict)
    patients: KnownPatients | None = None
    influence: dict[str, PatientInfluence] = field(default_factory=dict)
    pixel_curves: PixelCurves | None
    gallery: KeptPictures | None
    explain: KeptExplanation | None = None
    oracle: Figures
    oracle_epoch: int | None
    epochs: tuple[Figures, ...]
