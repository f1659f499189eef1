"""Many inputs at once get what each gets alone, to the bit, whoever scores them."""

import json
import signal
from subprocess import DEVNULL
from textwrap import dedent
from threading import Barrier

import fresh_process
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import InferenceBatch
from conftest import save_picture
from PIL import Image
from scans import UP, numbers, record, write_stack, write_volume
from tiny import BACKBONE

import anomalib_medclip
from anomalib_medclip.bench.build import build_method
from anomalib_medclip.bench.scoring import fill_bank
from anomalib_medclip.bench.settings import Setting
from anomalib_medclip.cli import main
from anomalib_medclip.components import nearest
from anomalib_medclip.components.nearest import Scan
from anomalib_medclip.errors import NonFiniteError
from anomalib_medclip.readers import dicom_pixels
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.batches import Stack, in_batches
from anomalib_medclip.score.inferencer import BatchPrediction, Inferencer
from anomalib_medclip.score.prefetch import ahead

NAMES = ["a", "b", "c", "d", "e", "x", "y"]
"""Of the inputs that ``scans`` writes, in their order; ``c`` is damaged."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Volumes of several sizes, one of them damaged, and pictures."""
    home = tmp_path_factory.mktemp("scans")
    for seed, name in enumerate(NAMES[:5]):
        write_volume(home / f"{name}.nii.gz", numbers((12, 10 + seed, 5 + seed), seed))
    damaged = home / "c.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    for seed, name in enumerate(NAMES[5:]):
        save_picture(home / f"{name}.png", seed, (20 + seed, 24))
    return home


@pytest.fixture(scope="module")
def options(finished):
    return ["--ckpt", str(finished), "--intensity", "[0, 1000]", "--worst", "1"]


@pytest.fixture(scope="module")
def plain(scans, options, tmp_path_factory):
    """Results of one process that does one thing after another."""
    out = tmp_path_factory.mktemp("plain")
    assert main(["score", str(scans), *options, "--out", str(out), "--workers", "0"]) == 1
    return out


def results(out):
    """Scores and maps of each input; a hidden folder is what a killed process left."""
    found = {}
    for folder in sorted(path for path in out.glob("[!.]*") if path.is_dir()):
        picture = folder / "map.tiff"
        heat = Image.open(picture) if picture.is_file() else nib.load(folder / "map.nii.gz").dataobj
        found[folder.name] = record(folder), np.asarray(heat).tobytes()
    return found


def table(out):
    return pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("name")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_reading_ahead_and_writing_behind_change_nothing(plain, scans, options, tmp_path, workers):
    code = main(["score", str(scans), *options, "--out", str(tmp_path), "--workers", workers])
    assert code == 1
    assert results(tmp_path) == results(plain)
    assert list(results(plain)) == [name for name in NAMES if name != "c"]
    assert (tmp_path / "scores.csv").read_bytes() == (plain / "scores.csv").read_bytes()
    assert list(table(plain).index) == NAMES


def test_an_input_alone_gets_what_it_gets_among_others(plain, scans, options, tmp_path):
    for path in sorted(scans.iterdir()):
        main(["score", str(path), *options, "--out", str(tmp_path)])
    assert results(tmp_path) == results(plain)


def test_a_result_in_bf16_is_near_and_another_result(plain, scans, options, tmp_path):
    given = ["score", str(scans / "a.nii.gz"), *options, "--out", str(tmp_path)]
    assert main([*given, "--precision", "bf16"]) == 0
    found, exact = record(tmp_path / "a"), record(plain / "a")
    assert 0 < abs(found["score"] - exact["score"]) < 0.05
    assert found["provenance"]["settings"]["precision"] == "bf16"
    assert main(given) == 1, "what lies there is not what is asked for"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", anomalib_medclip.list_models())
def test_neighbours_and_place_in_a_batch_change_no_bit(name, precision):
    setting = Setting(method=name, backbone=BACKBONE, image_size=32, k_shot=2, precision=precision)
    assert_each_for_itself(filled(setting))


@pytest.mark.parametrize("most", [nearest._MOST, 1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nor_does_a_scan_of_the_bank(precision, most, monkeypatch):
    """As on a processor with bf16 units, and where some patches are left to the plain product."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(nearest, "_FEW_ROWS", 10)
    monkeypatch.setattr(nearest, "_MOST", most)
    scanned, left_over = Scan._scanned, []

    def watched(scan, queries):
        found = scanned(scan, queries)
        left_over.extend(found[2].tolist())
        return found

    monkeypatch.setattr(Scan, "_scanned", watched)
    setting = Setting(backbone=BACKBONE, image_size=32, k_shot=2, precision=precision)
    assert_each_for_itself(filled(setting))
    assert set(left_over) == ({False, True} if most == 1 else {False})


def filled(setting):
    """A method, its memory bank full if it has one."""
    method = build_method(setting)
    fill_bank(method.model, setting.k_shot, len(method.augmentations.masks))
    return method.model


def assert_each_for_itself(model):
    """An image's score and map are the same to the bit, whatever stands beside it, and where."""
    images = torch.rand(15, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def answers(which):
        with torch.inference_mode():
            found = model(images[which])
        return [torch.cat([found.pred_score.reshape(-1, 1), found.anomaly_map.flatten(1)], 1)]

    [together] = answers(range(8))
    for row in range(8):
        [moved] = answers([*range(8 + row, 15), row, *range(8, 8 + row)])
        assert torch.equal(moved[7 - row], together[row])
        [filled] = answers([row] * 8)
        assert torch.equal(filled, together[row].expand_as(filled))


def test_batches_are_full_and_go_across_inputs_in_their_order():
    sizes, asked = [], []

    def answer(images):
        sizes.append(len(images))
        scores = images.mean((1, 2, 3))
        return BatchPrediction(scores, images[:, 0, 0, 0] > 0, images[:, 0], scores)

    def stacks():
        for number, count in enumerate((3, 1, 6, 2)):
            asked.append(number)
            images = torch.full((count, 1, 2, 2), float(number))
            yield Stack(tuple(range(count)), (count, 2, 2), images)

    done = in_batches(answer, stacks(), 4)
    first = next(done)
    assert asked == [0, 1], "no more is read than the batch has room for"
    found = [first, *done]
    assert sizes == [4, 4, 4]
    scores = [one.scores().scores.tolist() for one in found]
    assert scores == [[0.0] * 3, [1.0], [2.0] * 6, [3.0] * 2]
    sizes.clear()
    assert len(list(in_batches(answer, stacks(), 4, shared=False))) == 4
    assert sizes == [3, 1, 4, 4, 2], "where places matter, each has batches of its own"


def test_one_input_without_a_number_fails_and_its_neighbours_get_theirs():
    sizes = []

    def answer(images):
        sizes.append(len(images))
        if images.isnan().any():
            msg = "overflowed"
            raise NonFiniteError(msg)
        scores = images.mean((1, 2, 3))
        return BatchPrediction(scores, images[:, 0, 0, 0] > 0, images[:, 0], scores)

    def stacks():
        for number, count in enumerate((3, 4, 9, 2)):
            images = torch.full((count, 1, 2, 2), float(number))
            if number in (1, 2):
                images[2] = torch.nan
            yield Stack(tuple(range(10, 10 + count)), (20, 2, 2), images)

    for shared in (True, False):
        sizes.clear()
        found = list(in_batches(answer, stacks(), 4, shared=shared))
        assert [bool(one.failed) for one in found] == [False, True, True, False]
        assert found[0].scores().scores.tolist() == [0.0] * 3
        assert found[3].scores().scores.tolist() == [3.0] * 2
        for one in found[1:3]:
            with pytest.raises(NonFiniteError, match="slice 12: overflowed"):
                one.scores()
        assert not shared or sizes == [4] * 12, "nothing more is asked of what has failed"


def test_an_input_with_nan_is_a_row_that_failed_and_nothing_of_it_is_written(
    options, tmp_path, monkeypatch
):
    for seed, name in enumerate(["a", "b", "c"]):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", numbers((12, 10, 5), seed))
    voxels = numbers((12, 10, 5), 1)
    voxels[..., 3] = 950  # the model below overflows there
    voxels[0, 0, 3] = 900
    write_volume(tmp_path / "in" / "b.nii.gz", voxels)
    command = ["score", str(tmp_path / "in"), *options, "--out"]
    assert main([*command, str(tmp_path / "fine")]) == 0

    as_ever = Inferencer.answer

    def overflowing(self, images):
        run = self.run

        def with_nan(images):
            found = run(images)
            score = found.pred_score.clone()
            score[images.mean(dim=(1, 2, 3)) > 0.9] = torch.nan
            return InferenceBatch(**{**found._asdict(), "pred_score": score})

        monkeypatch.setattr(self, "run", with_nan)
        try:
            return as_ever(self, images)
        finally:
            monkeypatch.setattr(self, "run", run)

    monkeypatch.setattr(Inferencer, "answer", overflowing)
    assert main([*command, str(tmp_path / "out")]) == 1
    status = table(tmp_path / "out")
    assert list(status["status"]) == ["scored", "failed", "scored"]
    assert status.loc["b", "error"].startswith("slice 3: a score or map is NaN or infinite, which")
    fine = results(tmp_path / "fine")
    del fine["b"]
    assert results(tmp_path / "out") == fine
    assert not (tmp_path / "out" / "b").exists()


def test_a_former_result_with_nan_is_no_result(options, tmp_path):
    path, out = write_volume(tmp_path / "a.nii.gz", numbers((12, 10, 5))), tmp_path / "out"
    command = ["score", str(path), *options, "--out", str(out)]
    assert main(command) == 0
    scores = out / "a" / "scores.json"
    written = json.loads(scores.read_text())
    scores.write_text(json.dumps({**written, "score": float("nan")}))
    assert main(command) == 1
    assert "cannot be read as a result" in table(out).loc["a", "error"]


def test_what_is_made_ahead_comes_in_order_and_is_bounded():
    begun = []

    def items():
        for number in range(20):
            begun.append(number)
            yield number

    made = ahead(lambda number: number * 2, items(), threads=3)
    assert [next(made), next(made)] == [0, 2]
    assert begun == [0, 1, 2, 3, 4]
    made.close()
    assert list(ahead(str, range(20), threads=3)) == [str(number) for number in range(20)]


def test_files_are_decoded_at_the_same_time(tmp_path, monkeypatch):
    [path] = write_stack(tmp_path, numbers((1, 4, 5)), UP)
    stored, all_there = dicom_pixels._stored, Barrier(3)

    def together(*args):
        all_there.wait(timeout=30)
        return stored(*args)

    monkeypatch.setattr(dicom_pixels, "_stored", together)
    found = list(ahead(lambda path: read_image(path, (0.0, 1000.0)), [path] * 6, threads=3))
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_stop_leaves_nothing_half_written_and_loses_no_result(
    plain, scans, options, tmp_path, monkeypatch
):
    answer, calls = Inferencer.answer, []

    def stopped(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, images)

    command = ["score", str(scans), *options, "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(Inferencer, "answer", stopped)
        with pytest.raises(KeyboardInterrupt):
            main(command)
    visible = {path.name for path in tmp_path.iterdir()} - {".scores.csv.lock", "scores.csv"}
    found = table(tmp_path)
    assert visible
    assert visible == set(found.index[found["status"] == "scored"])
    assert main(command) == 1
    assert results(tmp_path) == results(plain)
    again = table(tmp_path)
    assert list(again.index) == NAMES
    assert set(again.index[again["status"] == "kept"]) == visible


def test_two_shares_make_one_table(plain, scans, options, tmp_path):
    for share in ("1/2", "0/2"):
        command = ["score", str(scans), *options, "--out", str(tmp_path), "--shard", share]
        assert main(command) == int(share == "0/2"), "the damaged volume is of the first share"
    assert results(tmp_path) == results(plain)
    assert (tmp_path / "scores.csv").read_bytes() == (plain / "scores.csv").read_bytes()
    with pytest.raises(SystemExit):
        main(["score", str(scans), *options, "--out", str(tmp_path), "--shard", "2/2"])


KILLED = """
    import os, signal, sys
    import anomalib_medclip.score.scorer as scorer
    from anomalib_medclip.cli import main

    write_scores = scorer.write_scores

    def killed(folder, record, made_with):
        write_scores(folder, record, made_with)
        if record["input"] == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    scorer.write_scores = killed
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(plain, scans, options, tmp_path):
    command = ["score", str(scans), *options, "--out", str(tmp_path), "--shard"]
    words = [dedent(KILLED), "e.nii.gz", *command, "0/2"]
    with fresh_process.start("-c", *words, stdout=DEVNULL, stderr=DEVNULL) as process:
        assert main([*command, "1/2"]) == 0
    assert process.returncode == -signal.SIGKILL
    before = results(tmp_path)
    assert list(before) == ["a", "b", "d", "x"], "without e, which was being written"
    assert main([*command, "0/2"]) == 1
    assert results(tmp_path) == results(plain)
    found, expected = table(tmp_path), table(plain)
    assert found.drop(columns="status").equals(expected.drop(columns="status"))
    assert list(found.index[found["status"] == "kept"]) == ["a"]
