"""Maps of a series as DICOM images: a Parametric Map, and a Segmentation of what is abnormal.

Each is a series of its own in the study of the series it was made of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip import __version__
from anomalib_medclip.files import as_json
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.score.dicom_headers import Source
from anomalib_medclip.score.dicom_patient import charset_of

THRESHOLD = 0.5
"""Above it, a voxel of a map counts as abnormal."""

_COLOUR = "orange"
_LARGEST = 2**31 - 1  # of a whole number in a header
_UNNUMBERED = 10  # stands for the number of a series that states none to go by


class Maker(NamedTuple):
    """What makes DICOM files of a series, and what they depend on.

    Attributes:
        method: Name of the method.
        seed: Everything that results depend on, in words; of the same, identifiers are the same, so
            that an archive keeps one result once.
    """

    method: str
    seed: str

    @classmethod
    def of(cls, method: str, made_with: Mapping[str, Any]) -> "Maker":
        """Of what ``record.provenance`` gives; what files are called is no part of it."""
        contents = sorted(made_with["input_sha256"].values())
        return cls(method, as_json({**made_with, "input_sha256": contents}))

    def uid(self, *names: str) -> str:
        """The identifier of something that is made."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[self.seed, *names]))

    def series(self, source: Source, place: int, kind: str) -> dict[str, Any]:
        """What a file says of itself and of its series.

        Args:
            source: The series that it is made of.
            place: Among the series made of that, from 1; the hundred of the number is the source's.
            kind: What is made, in words.
        """
        known = source.number or 0
        stem = known if 0 < known < _LARGEST // 100 else _UNNUMBERED
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": 100 * stem + place,
            "sop_instance_uid": self.uid(kind),
            "instance_number": 1,
            "manufacturer": "anomalib-medclip",
            "manufacturer_model_name": self.method[:64],
            "software_versions": __version__,
            "device_serial_number": "none",
            "series_description": f"{kind}, {NOTICE}",
        }

    def finished(self, dataset: Any, source: Source, words: str = "") -> Any:  # noqa: ANN401
        """What highdicom has made, of the patient, and without identifiers made by chance.

        Args:
            dataset: What it has made.
            source: The series that it is made of.
            words: What it says besides patient and method, in whatever letters.
        """
        for element in source.who:
            dataset[element.tag] = element
        names = "".join(str(element.value) for element in source.who)
        if charset := charset_of(names + self.method + words, source.charset):
            dataset.SpecificCharacterSet = charset
        for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
            for item in dataset.get(sequence, []):
                item.DimensionOrganizationUID = self.uid(dataset.SOPInstanceUID, "dimensions")
        return dataset


class Scale(NamedTuple):
    """What a viewer is told of the numbers of a map."""

    words: str
    lowest: float
    highest: float


def scale_of(voxels: NDArray[np.float32], *, has_threshold: bool) -> Scale:
    """The scale of a map; without a threshold it is the range of the map itself."""
    if has_threshold:
        return Scale(f"How abnormal, {THRESHOLD} is the threshold", 0.0, 1.0)
    words = "How abnormal, no threshold of pixels is known"
    return Scale(words, float(voxels.min()), float(voxels.max()))


def parametric_map(
    source: Source, voxels: NDArray[np.float32], maker: Maker, *, has_threshold: bool
) -> Any:  # noqa: ANN401 - highdicom's
    """The map as a Parametric Map.

    Args:
        source: The series it is of.
        voxels: The map, ``(slice, row, column)``; in [0, 1] if a threshold is known.
        maker: What has made it.
        has_threshold: Whether the model knows one of pixels.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    scale = scale_of(voxels, has_threshold=has_threshold)
    mapping = RealWorldValueMapping(
        lut_label="abnormality",
        lut_explanation=scale.words,
        unit=codes.UCUM.NoUnits,
        value_range=(scale.lowest, scale.highest),
        slope=1.0,
        intercept=0.0,
    )
    window = VOILUTTransformation(
        window_center=(scale.lowest + scale.highest) / 2,
        window_width=(scale.highest - scale.lowest) or 1.0,
    )
    made = ParametricMap(
        source_images=source.images,
        pixel_array=np.ascontiguousarray(voxels),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label="ANOMALY_MAP",
        content_qualification="RESEARCH",
        plane_positions=_places(source),
        **maker.series(source, 1, "Anomaly map"),
    )
    made.Laterality = ""  # type 2C, and nobody knows whether there are two of this part of a body
    return maker.finished(made, source)


def segmentation(source: Source, abnormal: NDArray[np.bool_], maker: Maker) -> Any:  # noqa: ANN401
    """Abnormal voxels as a Segmentation, with a colour for viewers.

    Args:
        source: The series they are of.
        abnormal: Which they are, ``(slice, row, column)``; at least one.
        maker: What has found them.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    segment = SegmentDescription(
        segment_number=1,
        segment_label="abnormal",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=maker.method[:64], version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=CIELabColor.from_string(_COLOUR),
        tracking_uid=maker.uid("segment"),
        tracking_id="abnormal",
    )
    made = Segmentation(
        source_images=source.images,
        pixel_array=abnormal.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        content_label="ABNORMAL",
        plane_positions=_places(source),
        content_description=NOTICE,
        **maker.series(source, 2, "Abnormal voxels"),
    )
    return maker.finished(made, source)


def _places(source: Source) -> Sequence[Any]:
    """Where each slice lies; the frames of a file may be in another order."""
    from highdicom import PlanePositionSequence

    return [PlanePositionSequence("PATIENT", list(place)) for place in source.places]
