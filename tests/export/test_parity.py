import pytest
import torch
from anomalib.data import InferenceBatch

from anomalib_medclip.errors import DamagedFileError, ParityError
from anomalib_medclip.export.parity import (
    TOLERANCE,
    Bound,
    check,
    compare,
    read_certificate,
    run_in_batches,
)

IMAGES = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def run(images):
    maps = images.mean(dim=1)
    scores = maps.amax(dim=(1, 2))
    return InferenceBatch(scores, scores > 0.9, maps, maps > 0.5)


def differing(**changes):
    """A run whose outputs are changed by functions."""
    return lambda images: run(images)._replace(
        **{name: change(getattr(run(images), name)) for name, change in changes.items()}
    )


def measure(exported, threshold=0.9):
    return compare(run_in_batches(run, IMAGES, 1), exported, IMAGES, threshold)


def test_the_same_model_passes():
    figures = check(measure(run))
    assert figures["map"] == figures["score"] == figures["labels"] == 0
    assert figures["rank_correlation"] == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"anomaly_map": lambda maps: maps + 2e-4},
        {"pred_score": lambda scores: scores - 2e-4},
        {"pred_label": lambda labels: ~labels},
    ],
    ids=["map", "score", "labels"],
)
def test_another_map_score_or_label_fails(changes):
    with pytest.raises(ParityError, match="differs from the trained one"):
        check(measure(differing(**changes)))


def test_an_image_on_the_threshold_may_fall_to_either_side():
    first = run(IMAGES).pred_score[0]

    def turned(images):
        found = run(images)
        return found._replace(pred_label=found.pred_label ^ (found.pred_score == first))

    assert check(measure(turned, threshold=float(first) + 1e-6))["labels"] == 0
    with pytest.raises(ParityError):
        check(measure(turned, threshold=float(first) + 1e-2))


def test_rounding_may_be_as_large_as_the_scale_of_scores_makes_it():
    moved = differing(pred_score=lambda scores: scores + 5e-4)
    expected = run_in_batches(run, IMAGES, 1)
    assert check(compare(expected, moved, IMAGES, 0.9, spread=1e-3))["labels"] == 0
    with pytest.raises(ParityError, match=r"score within 1\.0e-04"):
        check(compare(expected, moved, IMAGES, 0.9, spread=1e-2))


def test_an_error_of_one_pixel_in_one_image_fails():
    def spoil(maps):
        spoilt = maps.clone()
        spoilt[-1, 3, 3] += 2e-4
        return spoilt

    with pytest.raises(ParityError, match=r"map by 2\.0e-04"):
        check(measure(differing(anomaly_map=spoil)))


def test_an_error_only_of_larger_batches_fails():
    def forgets_all_but_the_first(images):
        found = run(images)
        return found._replace(anomaly_map=found.anomaly_map[:1].expand_as(found.anomaly_map))

    with pytest.raises(ParityError):
        check(measure(forgets_all_but_the_first))


def test_flat_maps_are_held_to_their_own_range():
    def flat(images):
        return run(images)._replace(anomaly_map=0.5 + 0.01 * run(images).anomaly_map)

    found = compare(run_in_batches(flat, IMAGES, 1), flat, IMAGES)
    spread = 0.01 * float(run(IMAGES).anomaly_map.max() - run(IMAGES).anomaly_map.min())
    assert found.allowed == pytest.approx(TOLERANCE * spread, rel=1e-3)


def test_a_compressed_model_may_differ_within_its_bound():
    bound = Bound(rank_correlation=0.99, score=0.05)
    loose = differing(anomaly_map=lambda maps: maps * 0.9, pred_score=lambda scores: scores - 0.02)
    figures = check(measure(loose), bound)
    assert figures["bound"] == {"rank_correlation": 0.99, "score": 0.05}
    with pytest.raises(ParityError, match=r"rank correlation >= 0.99 and scores within 0.01"):
        check(measure(loose), Bound(rank_correlation=0.99, score=0.01))
    with pytest.raises(ParityError):
        check(measure(differing(anomaly_map=lambda maps: maps.flip(-1))), bound)


def test_a_model_without_decisions_is_compared_by_maps_and_scores():
    def undecided(images):
        return run(images)._replace(pred_label=None, pred_mask=None)

    found = compare(run_in_batches(undecided, IMAGES, 1), undecided, IMAGES)
    assert check(found)["labels"] == 0


@pytest.mark.parametrize("field", ["anomaly_map", "pred_score"])
@pytest.mark.parametrize("bound", [None, Bound(rank_correlation=0.5, score=1.0)])
def test_what_is_not_a_number_never_passes(field, bound):
    def spoil_batches(images):
        found = run(images)
        spoilt = getattr(found, field) * torch.nan
        return found._replace(**{field: spoilt}) if len(images) > 1 else found

    with pytest.raises(ParityError, match="nan"):
        check(measure(spoil_batches), bound)


def test_a_certificate_that_is_no_json_is_named(tmp_path):
    (tmp_path / "model.json").write_text('{"files": {}, "figures": NaN}')
    with pytest.raises(DamagedFileError, match=r"model\.json is no JSON: NaN is no number"):
        read_certificate(tmp_path / "model.onnx")
