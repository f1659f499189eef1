"""The report against the rules of its template: TID 1500 of DICOM PS3.16, and those it includes.

Written from the standard's tables, and read by pydicom alone, so that it does not share the errors
of what writes it.
"""

from collections import Counter
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_results import FINDINGS, results_of
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from scans import UP, numbers, record, write_stack

from anomalib_medclip import __version__
from anomalib_medclip.cli import main
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.score.dicom_report import Findings, Measurement, Statement
from anomalib_medclip.score.findings import findings_of
from anomalib_medclip.score.summary import words_of

MANY = 10**9
CONTEXT, MODIFIER, PART = "HAS OBS CONTEXT", "HAS CONCEPT MOD", "CONTAINS"

GROUP = {
    (CONTEXT, "TEXT", "112039"): (1, 1),  # Tracking Identifier
    (CONTEXT, "UIDREF", "112040"): (1, 1),  # Tracking Unique Identifier
    (MODIFIER, "TEXT", "111001"): (1, 1),  # Algorithm Name, TID 4019
    (MODIFIER, "TEXT", "111003"): (1, 1),  # Algorithm Version
    (MODIFIER, "TEXT", "111002"): (0, MANY),  # Algorithm Parameters
    (MODIFIER, "TEXT", "122405"): (0, 1),  # Algorithm Manufacturer
    (PART, "CODE", "121071"): (0, 1),  # Finding
}
"""What TID 1501 and 1411 have in common."""

ROWS = {
    "1500": {
        (MODIFIER, "CODE", "121049"): (0, 1),  # Language, TID 1204
        (CONTEXT, "CODE", "121005"): (1, MANY),  # Observer Type, TID 1002
        (CONTEXT, "UIDREF", "121012"): (1, 1),  # Device Observer UID, TID 1004
        (CONTEXT, "TEXT", "121013"): (0, 1),  # Device Observer Name
        (CONTEXT, "TEXT", "121014"): (0, 1),  # ... Manufacturer
        (CONTEXT, "TEXT", "121015"): (0, 1),  # ... Model Name
        (CONTEXT, "TEXT", "121016"): (0, 1),  # ... Serial Number
        (MODIFIER, "CODE", "121058"): (1, MANY),  # Procedure reported
        (PART, "CONTAINER", "126010"): (1, 1),  # Imaging Measurements
        (PART, "CONTAINER", "C0034375"): (0, 1),  # Qualitative Evaluations
    },
    "126010": {(PART, "CONTAINER", "125007"): (1, MANY)},  # Measurement Group
    "C0034375": {(PART, "CODE", "any"): (0, MANY), (PART, "TEXT", "any"): (0, MANY)},
    "1501": {
        **GROUP,
        (PART, "NUM", "any"): (0, MANY),  # TID 300
        (PART, "IMAGE", "121112"): (0, MANY),  # Source of Measurement
    },
    "1411": {
        **GROUP,
        (PART, "NUM", "any"): (0, MANY),
        (PART, "IMAGE", "121191"): (1, 1),  # Referenced Segment
        (PART, "UIDREF", "121232"): (1, 1),  # Source series for segmentation
    },
    "NUM": {("INFERRED FROM", "IMAGE", "121112"): (0, MANY)},
}
"""Of each container by its template, else its concept: how often a row may be there."""


def name_of(item):
    [concept] = item.ConceptNameCodeSequence
    assert 0 < len(concept.CodeValue) <= 16
    assert 0 < len(concept.CodeMeaning) <= 64
    return concept.CodeValue


def check(item):
    """An item and all below it."""
    VALUES[item.ValueType](item)
    children = item.get("ContentSequence", [])
    if item.ValueType in ("CONTAINER", "NUM"):
        [template] = item.get("ContentTemplateSequence", [None])
        kind = "NUM" if item.ValueType == "NUM" else name_of(item)
        rows = ROWS[template.TemplateIdentifier if template else kind]
        found = Counter()
        for one in children:
            row = one.RelationshipType, one.ValueType, name_of(one)
            found[row if row in rows else (*row[:2], "any")] += 1
        assert not set(found) - set(rows), (kind, found)
        for row, (least, most) in rows.items():
            assert least <= found[row] <= most, (kind, row)
    else:
        assert not children
    for one in children:
        check(one)


def check_container(item):
    assert item.ContinuityOfContent in ("SEPARATE", "CONTINUOUS")


def check_text(item):
    assert item.TextValue


def check_uid(item):
    assert pydicom.uid.UID(item.UID).is_valid


def check_code(item):
    [value] = item.ConceptCodeSequence
    assert value.CodeValue
    assert value.CodingSchemeDesignator
    assert value.CodeMeaning


def check_number(item):
    [value] = item.MeasuredValueSequence
    assert len(str(value.NumericValue)) <= 16
    [unit] = value.MeasurementUnitsCodeSequence
    assert unit.CodingSchemeDesignator == "UCUM"


def check_image(item):
    [image] = item.ReferencedSOPSequence
    assert (image.ReferencedSOPClassUID == SegmentationStorage) == (name_of(item) == "121191")
    assert ("ReferencedSegmentNumber" in image) == (name_of(item) == "121191")


VALUES = {
    "CONTAINER": check_container,
    "TEXT": check_text,
    "UIDREF": check_uid,
    "CODE": check_code,
    "NUM": check_number,
    "IMAGE": check_image,
}


def items_below(item):
    for one in item.get("ContentSequence", []):
        yield one
        yield from items_below(one)


def check_document(report):
    """The root, and that all it points to is listed as evidence."""
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert name_of(report) in ("126000", "126001"), "of CID 7021"
    [template] = report.ContentTemplateSequence
    assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "1500")
    check(report)
    listed = {
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    named = {
        (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID)
        for item in items_below(report)
        for image in item.get("ReferencedSOPSequence", [])
    }
    assert named <= listed
    schemes = {one.CodingSchemeDesignator for one in report.CodingSchemeIdentificationSequence}
    private = {
        item.ConceptNameCodeSequence[0].CodingSchemeDesignator for item in items_below(report)
    }
    assert {one for one in private if one.startswith("99")} <= schemes


def written(tmp_path, findings=FINDINGS, **tags):
    paths = write_stack(tmp_path / "ct", numbers((3, 6, 5)), UP, **tags)
    results_of(tmp_path / "out", paths, findings=findings)
    return pydicom.dcmread(tmp_path / "out" / "report.dcm"), paths


def values_of(report, kind):
    """What is said of each concept, by its code."""
    read = {
        "NUM": lambda item: float(item.MeasuredValueSequence[0].NumericValue),
        "TEXT": lambda item: item.TextValue,
        "CODE": lambda item: item.ConceptCodeSequence[0].CodeMeaning,
        "UIDREF": lambda item: item.UID,
    }[kind]
    return {name_of(item): read(item) for item in items_below(report) if item.ValueType == kind}


def test_a_report_follows_its_template(tmp_path):
    report, _ = written(tmp_path)
    check_document(report)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


@pytest.mark.parametrize("row", ["112040", "121012", "121058"])
def test_a_report_that_lacks_a_row_is_found_out(tmp_path, row):
    report, _ = written(tmp_path)
    for item in [report, *items_below(report)]:
        if "ContentSequence" in item:
            item.ContentSequence = [one for one in item.ContentSequence if name_of(one) != row]
    with pytest.raises(AssertionError):
        check_document(report)


def test_numbers_and_words_that_are_handed_in_are_there_with_their_images(tmp_path):
    findings = Findings(
        [Statement("verdict", "Verdict", "abnormal"), Statement("why", "Why", "p ≤ 0.2")],
        [
            Measurement("p", "p-value against healthy patients", 0.2),
            Measurement("size", "Size", 12.5, "mm3", slice=2),
        ],
    )
    report, paths = written(tmp_path, findings)
    check_document(report)
    assert values_of(report, "NUM") == {"p": 0.2, "size": 12.5}
    words = values_of(report, "TEXT")
    assert (words["verdict"], words["why"]) == ("abnormal", "p ≤ 0.2")
    assert (words["111001"], words["111003"]) == ("MVFA", __version__)
    assert words["121106"] == "research use only"
    [size] = [one for one in items_below(report) if name_of(one) == "size"]
    [unit] = size.MeasuredValueSequence[0].MeasurementUnitsCodeSequence
    assert unit.CodeValue == "mm3"
    [image] = size.ContentSequence[0].ReferencedSOPSequence
    assert image.ReferencedSOPInstanceUID == pydicom.dcmread(paths[2]).SOPInstanceUID


@pytest.mark.parametrize(
    ("modality", "words"),
    [
        ("CT", "Computed tomography"),
        ("MR", "Magnetic resonance imaging"),
        ("", "Imaging procedure"),
    ],
)
def test_the_procedure_is_told_by_the_modality(tmp_path, modality, words):
    report, _ = written(tmp_path, Modality=modality)
    said = values_of(report, "CODE")
    assert (said["121058"], said["121049"], said["121005"]) == (words, "English", "Device")


def test_the_segment_is_pointed_to(tmp_path):
    report, paths = written(tmp_path)
    segmentation = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    [item] = [one for one in items_below(report) if name_of(one) == "121191"]
    [image] = item.ReferencedSOPSequence
    assert image.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    [segment] = segmentation.SegmentSequence
    assert image.ReferencedSegmentNumber == segment.SegmentNumber
    assert values_of(report, "UIDREF")["121232"] == pydicom.dcmread(paths[0]).SeriesInstanceUID
    tracked = {one.UID for one in items_below(report) if name_of(one) == "112040"}
    assert segment.TrackingUID in tracked


def test_what_score_has_found_is_reported(finished, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers((5, 6, 5)), UP)
    command = ["score", str(tmp_path / "ct"), "--ckpt", str(finished), "--worst", "2", "--insist"]
    out = tmp_path / "out"
    assert main([*command, "--intensity", "[0, 1000]", "--out", str(out)]) == 0
    report, said = pydicom.dcmread(out / "ct" / "report.dcm"), record(out / "ct")
    check_document(report)
    assert main([*command[:-1], "--intensity", "[0, 1000]", "--out", str(out)]) == 1
    assert "report.dcm says so; give --overwrite" in (out / "scores.csv").read_text()
    found = values_of(report, "NUM")
    assert found["score"] == pytest.approx(said["score"], rel=1e-12)
    assert found["mean"] == pytest.approx(said["mean"], rel=1e-12)
    assert found["slices"] == 5
    verdict = said["verdict"]
    known = verdict["threshold"]
    assert not known["holds"]
    for name, value in (
        ("threshold", known["value"]), ("p-value", (verdict["p_value"] or {}).get("value")),
        ("probability", verdict["probability"]),
    ):  # fmt: skip
        assert found.get(name) == (None if value is None else pytest.approx(value))
    words = values_of(report, "TEXT")
    worst = sorted(said["slices"], key=lambda row: -row["score"])[:2]
    expected = {
        "verdict": words_of(said), "level": verdict["level"], "threshold-error": known["words"],
        "threshold-holds": "no", "no-probability": verdict["no_probability"],
        "no-unlike": "nobody can say what is unlike 3 patients; 8 can tell",
        "score-is": "the mean of the 3 worst images",
        "threshold-from": said["provenance"]["threshold"]["from"],
        "worst-slices": "; ".join(f"slice {row['slice']}: {row['score']:.3f}" for row in worst),
    }  # fmt: skip
    assert {name: words[name] for name in expected} == expected
    assert ", insisted (" in words["verdict"]
    instances = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    shown = [one for one in items_below(report) if name_of(one) == "slice-score"]
    for item, row in zip(shown, worst, strict=True):
        [image] = item.ContentSequence[0].ReferencedSOPSequence
        assert instances.index(image.ReferencedSOPInstanceUID) == row["slice"]
        value = item.MeasuredValueSequence[0].NumericValue
        assert float(value) == pytest.approx(row["score"], rel=1e-12)


NO_VERDICT = {
    "label": None,
    "verdict": Decisions().verdict("volume", [0.5]).as_plain(),
    "aggregation": {"score_is": "the worst image"},
}


@pytest.mark.parametrize(
    ("slicing", "scores", "places"),
    [
        (Slicing(), {4: 0.9, 2: 0.8}, [4, 2]),
        (Slicing("coronal"), {4: 0.9, 2: 0.8}, []),
        (Slicing(spacing=(1.0, 1.5, 3.0)), {1: 0.9}, []),  # it lies between two of the file
        (Slicing(spacing=(1.0, 1.5, 5.0)), {2: 0.9, 0: 0.8}, [0]),  # it lies where a sixth would
    ],
    ids=["as it is", "across", "resampled", "beyond the last"],
)
def test_a_slice_points_to_an_image_only_where_it_is_one(tmp_path, slicing, scores, places):
    paths = write_stack(tmp_path / "ct", numbers((5, 6, 5)), UP)
    sliced = cut(paths, (0.0, 1000.0), slicing)
    rows = [{"slice": number, "score": score} for number, score in scores.items()]
    said = {"score": 0.9, "mean": 0.8, "slices": rows, **NO_VERDICT}
    found = findings_of(said, {"from": "none is known"}, sliced, 2)
    shown = [one.slice for one in found.measurements if one.code == "slice-score"]
    assert shown == places
    assert not [one for one in found.measurements if one.code == "threshold"]


def test_a_slice_before_the_first_points_to_no_image(tmp_path):
    sliced = cut(write_stack(tmp_path / "ct", numbers((5, 6, 5)), UP), (0.0, 1000.0))
    start = sliced.picture_affine.copy()
    start[:3, 3] -= start[:3, 2]
    earlier = SimpleNamespace(affine=sliced.affine, picture_affine=start, headers=sliced.headers)
    rows = [{"slice": number, "score": 0.9 - number / 10} for number in range(5)]
    said = {"score": 0.9, "mean": 0.7, "slices": rows, **NO_VERDICT}
    found = findings_of(said, {"from": "validation"}, earlier, 5)
    shown = [one for one in found.measurements if one.code == "slice-score"]
    assert [one.slice for one in shown] == [0, 1, 2, 3]
    assert shown[0].value == rows[1]["score"]


def test_a_series_stored_backwards_points_to_the_right_images(tmp_path):
    down = UP.copy()
    down[2, 0] = -2.0
    paths = write_stack(tmp_path / "ct", numbers((4, 6, 5)), down)
    sliced = cut(paths, (0.0, 1000.0))
    rows = [{"slice": number, "score": 0.5} for number in range(4)]
    said = {"score": 0.5, "mean": 0.5, "slices": rows, **NO_VERDICT}
    found = findings_of(said, {"from": "validation"}, sliced, 4)
    places = [one.slice for one in found.measurements if one.code == "slice-score"]
    heights = [sliced.headers[place].ImagePositionPatient[2] for place in places]
    expected = [nib.affines.apply_affine(sliced.picture_affine, [0, 0, n])[2] for n in range(4)]
    assert np.allclose(heights, expected)
