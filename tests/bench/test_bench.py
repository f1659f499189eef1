"""The bench measures in turn, in every runtime, and loses no row. Nothing here tests a time."""

import csv
import json
import os
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import performance_page
import pytest
import torch
from bench_rows import METHODS, RUN, TINY, is_sound
from daily import THOROUGH
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounterWithBackend

from anomalib_medclip import cli
from anomalib_medclip.bench import build, fresh_process, measure, output, roofline, scoring
from anomalib_medclip.bench.settings import SMALL, plan_settings
from anomalib_medclip.bench.timing import Rounds, alternate
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.commands import bench
from anomalib_medclip.errors import ConfigError, ProcessDiedError, ResultsError

COMPILED = [*product(sorted({*METHODS} - {"adaclip", "plainclip"}), [0]), ("mvfa", 2)]
"""Every method, and K; the last with a memory bank. Of AdaCLIP's clusters no graph is made, and
plain CLIP has to compare with something."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def test_subject_and_reference_take_turns():
    calls = []
    subject, reference = partial(calls.append, "subject"), partial(calls.append, "reference")
    rounds = alternate(subject, reference, rounds=3, at_least=0.0)
    warm, timed = calls[:4], calls[4:]
    assert warm == ["subject", "subject", "reference", "reference"]
    assert timed == ["subject", "reference", "reference", "subject", "subject", "reference"]
    assert [len(one) for one in rounds] == [3, 3]


def test_short_calls_are_repeated_until_a_clock_can_tell():
    calls = []
    alternate(partial(calls.append, 0), lambda: None, rounds=1, at_least=0.001)
    assert len(calls) > 10


def test_a_slow_minute_changes_no_ratio():
    rounds = Rounds(subject=[2.0, 20.0, 4.0], reference=[1.0, 10.0, 2.0])
    assert rounds.as_row(4)["ratio"] == 2.0
    assert rounds.as_row(4)["ms_per_image"] == 1000.0
    assert rounds.as_row(4)["reference_ms_per_image"] == 500.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["score", "first-epoch", "later-epoch"])
def test_every_method_is_measured(method, what):
    if what != "score" and not build.learns(method):
        assert not plan_settings(TINY, [what], [method], ["eager"], [2], [1], bool, build.learns)
        return
    row = measure.measure_setting(replace(TINY, method=method, what=what, k_shot=2))
    assert is_sound(row)
    assert (row["method"], row["image_size"], row["batch_size"]) == (method, 32, 2)
    assert row["reference"] == "open_clip image encoder"
    if what != "score":
        assert row["epoch_s"] == pytest.approx(row["ms_per_image"] * row["epoch_images"] / 1e3)


@pytest.mark.parametrize(("method", "of_four"), [("mvfa", 88), ("madclip", 128), ("mediclip", 4)])
def test_an_epoch_has_all_copies_of_both_classes(method, of_four):
    """4 + 4 images in 11 or 16 copies; MediCLIP learns from normal images, once each."""
    assert build.epoch_images(build.build_method(replace(TINY, method=method)), 4) == of_four


@pytest.mark.parametrize("what", ["first-epoch", "later-epoch"])
@pytest.mark.parametrize(("method", "keeps"), [("madclip", True), ("mediclip", False)])
def test_later_epochs_encode_only_images_that_are_made_anew(method, keeps, what, monkeypatch):
    setting = replace(TINY, method=method, what=what)
    model = build.build_method(setting)
    work = build.training_step(model, setting, scoring.random_images(model.model, 2))
    encoded = []
    monkeypatch.setattr(model.model, "encode", encoded.append)
    monkeypatch.setattr(model.model, "loss", lambda *_: torch.zeros((), requires_grad=True))
    work()
    assert len(encoded) == int(what == "first-epoch" or not keeps)


def test_a_step_of_training_trains():
    setting = replace(TINY, what="later-epoch", method="madclip")
    model = build.build_method(setting)
    before = {name: value.clone() for name, value in model.named_parameters()}
    build.training_step(model, setting, scoring.random_images(model.model, 2))()
    changed = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert changed
    assert all(model.get_parameter(name).requires_grad for name in changed)


def test_the_bank_has_the_rows_of_its_k():
    model = build.build_method(replace(TINY, method="mvfa", k_shot=16))
    scoring.fill_bank(model.model, 16, len(model.augmentations.masks))
    assert model.model.few_shot
    rows = model.model.memory_bank.rows  # 16 images, 11 copies, 4 x 4 patches and a class token
    assert rows.shape == (4, 16 * 11 * 17, SMALL["embed_dim"])


def test_the_search_gives_what_the_plain_product_gives():
    model = build.build_method(replace(TINY, method="mvfa", k_shot=1))
    scoring.fill_bank(model.model, 1, len(model.augmentations.masks))
    search, plain = build.bank_search(model, scoring.random_images(model.model, 2))
    for distance, cosine in zip(search(), plain(), strict=True):
        torch.testing.assert_close(distance, 1 - cosine)
    row = measure.measure_setting(replace(TINY, what="bank", k_shot=1))
    assert is_sound(row)
    assert row["reference"] == "matmul and max"


def test_the_reference_is_open_clips_own_encoder():
    model = build.build_method(TINY)
    images = scoring.random_images(model.model, 2)
    clip = model.model.clip.backbone.load().clip.eval()
    with torch.inference_mode():
        torch.testing.assert_close(scoring.encoder(model.model, images)(), clip.visual(images))


def assert_compiled_is_eager(method, k_shot, kind, monkeypatch):
    """In one graph; only the compiler's own code, slow to make, is not made."""
    setting = replace(TINY, method=method, k_shot=k_shot)
    model = build.build_method(setting)
    scoring.fill_bank(model.model, k_shot, len(model.augmentations.masks))
    images = scoring.random_images(model.model, 2)
    expected = scoring.scorer(model.model, "cpu", compiled=False)(images)
    backend = CompileCounterWithBackend(kind)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    found = scoring.scorer(model.model, "cpu", compiled=True)(images)
    assert backend.frame_count == 1
    for name in ("anomaly_map", "pred_score"):
        of_both = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(*of_both, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("method", "k_shot"), COMPILED)
def test_a_compiled_model_is_one_graph(method, k_shot, monkeypatch):
    assert_compiled_is_eager(method, k_shot, "eager", monkeypatch)


@pytest.mark.nightly(also="tests/bench/test_bench.py::test_a_compiled_model_is_one_graph")
@pytest.mark.parametrize(("method", "k_shot"), COMPILED)
def test_compiled_models_say_what_eager_ones_say(method, k_shot, monkeypatch):
    """Decomposed as for the compiler."""
    assert_compiled_is_eager(method, k_shot, "aot_eager_decomp_partition", monkeypatch)


def test_a_row_of_a_compiled_model_is_of_a_compiled_model(monkeypatch):
    backend = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    assert is_sound(measure.measure_setting(replace(TINY, method="mediclip", runtime="compile")))
    assert backend.frame_count


def test_bf16_is_measured_beside_an_encoder_in_fp32():
    setting = replace(TINY, method="madclip", precision="bf16")
    model = build.build_method(setting)
    images = scoring.random_images(model.model, 2)
    scoring.scorer(model.model, "cpu", compiled=False)(images)
    assert scoring.encoder(model.model, images)().dtype == torch.float32
    exact = build.build_method(replace(setting, precision="fp32"))
    found, expected = (
        scoring.scorer(one.model, "cpu", compiled=False)(images).anomaly_map
        for one in (model, exact)
    )
    assert 0 < (found - expected).abs().max() < 0.05


@pytest.mark.daily_for(runtime="openvino-int8")  # by way of ONNX
@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "fp32"), ("openvino-int8", "int8")])
def test_an_export_is_measured(runtime, precision, monkeypatch):
    """MediCLIP encodes all at once; its integers must reach the tower all the same."""
    monkeypatch.setattr(build, "PROBES", 2)
    setting = replace(TINY, method="mediclip", runtime=runtime, precision=precision)
    row = measure.measure_setting(setting)
    assert is_sound(row)
    assert row["threads"] is None


@pytest.mark.parametrize(
    ("runtime", "precision"), [("openvino", "fp32"), ("openvino-bf16", "bf16")]
)
def test_openvino_computes_in_what_it_is_told(runtime, precision, monkeypatch):
    setting = replace(TINY, method="mediclip", runtime=runtime, precision=precision)
    model = build.build_method(setting)
    monkeypatch.setattr(model, "to_openvino", lambda folder, **_: folder / "model.xml")
    monkeypatch.setattr(build, "open_openvino", lambda path, precision: (path, precision))
    opened = build.export_method(model, setting, Path("exported"))()
    assert opened == (Path("exported") / "model.xml", precision)


def test_of_the_papers_methods_only_mvfa_has_a_bank():
    named = {name for name in METHODS if build.has_bank(name)}
    assert named & THOROUGH == {"mvfa"}


@pytest.fixture(scope="module")
def row():
    return measure.measure_setting(TINY)


def test_rows_are_added_unless_they_are_to_be_replaced(row, tmp_path):
    table, second = tmp_path / "new" / "bench.csv", {**RUN, "id": "second"}
    other = {**row, "batch_size": 4}
    for one in (row, other):
        output.save(table, one, RUN, overwrite=False)
    output.save(table, row, second, overwrite=False)
    assert [r["run"] for r in output.load(table)["rows"]] == ["first", "first", "second"]
    output.save(table, row, {**RUN, "id": "third"}, overwrite=True)
    found = output.load(table)
    assert [(r["run"], r["batch_size"]) for r in found["rows"]] == [("first", 4), ("third", 2)]
    assert [run["id"] for run in found["runs"]] == ["first", "third"], "the second has no row left"
    assert found["notice"] == "research use only"
    with table.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert tuple(written[0]) == output.CSV_COLUMNS
    assert [float(one["ratio"]) for one in written] == [r["ratio"] for r in found["rows"]]


def test_a_name_is_no_formula_in_the_table(row, tmp_path):
    output.save(tmp_path / "b.csv", {**row, "images": "=1+A1.yaml"}, RUN, overwrite=False)
    with (tmp_path / "b.csv").open(newline="") as file:
        [written] = csv.DictReader(file)
    assert written["images"] == "'=1+A1.yaml"
    assert float(written["ratio"]) == row["ratio"]


@pytest.mark.parametrize(
    ("name", "value"), [("ratio", "fast"), ("what", 3), ("peak_mb", []), ("parts", {"tower": None})]
)
def test_rows_that_cannot_be_shown_are_not_ours(name, value, row, tmp_path):
    output.save(tmp_path / "bench.csv", row, RUN, overwrite=False)
    found = json.loads((tmp_path / "bench.json").read_text())
    found["rows"][0][name] = value
    (tmp_path / "bench.json").write_text(json.dumps(found))
    with pytest.raises(ResultsError, match=r"bench\.json cannot be read: .*; name a file that"):
        output.markdown([tmp_path / "bench.csv"])


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"runs": [], "rows": [{"run": "lost"}]}'])
def test_a_file_of_others_is_left_alone(text, row, tmp_path):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(ResultsError, match=r"bench.json.*name a file that bench wrote"):
        output.save(tmp_path / "bench.csv", row, RUN, overwrite=True)
    assert (tmp_path / "bench.json").read_text() == text


def test_a_table_says_where_it_was_measured_and_all_its_rows(row, tmp_path):
    output.save(tmp_path / "bench.csv", row, RUN, overwrite=False)
    head, _, *lines = output.markdown([tmp_path / "bench.csv"]).splitlines()
    assert RUN["hardware"]["cpu"] in head
    assert "research use only" in head
    assert len(lines) == 3
    assert all(line.count("|") == len(output.TABLE_HEADS) + 1 for line in lines)
    assert f"| {row['ratio']:.2f} |" in lines[-1]


def test_the_document_shows_the_results_that_are_kept():
    begin, end = f"{performance_page.BEGIN}\n\n", f"\n\n{performance_page.END}"
    shown = DOCUMENT.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    assert shown == performance_page.table(performance_page.results())


def test_the_rows_of_the_document_are_in_a_table_of_their_own():
    kept = DOCUMENT.parent / "performance" / "amd_epyc_2_cores"
    with kept.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        ratios = [float(row["ratio"]) for row in csv.DictReader(file)]
    assert ratios == [row["ratio"] for row in output.load(kept.with_suffix(".json"))["rows"]]


def test_a_run_keeps_what_it_has_measured_when_a_row_fails(row, tmp_path, monkeypatch, capsys):
    def one(setting):
        if setting.method == "madclip":
            msg = "the process has ended"
            raise ProcessDiedError(msg)
        return {**row, "method": setting.method}

    monkeypatch.setattr(bench, "measure_apart", one)
    table = tmp_path / "bench.csv"
    assert cli.main(["bench", "--quick", "--out", str(table)]) == 1
    methods = [r["method"] for r in output.load(table)["rows"]]
    assert methods == [name for name in METHODS if name != "madclip"]
    told = capsys.readouterr()
    assert "the process has ended" in told.err
    assert "ratio" in told.out
    assert cli.main(["bench", "--table", str(table)]) == 0
    assert "| mvfa |" in capsys.readouterr().out


@pytest.mark.daily_for(apart=False)  # its process imports all there is
@pytest.mark.parametrize("apart", [False, True])
def test_the_command_measures_a_row(apart, tmp_path, monkeypatch):
    if not apart:
        monkeypatch.setattr(bench, "measure_apart", measure.measure_setting)
    table, weights = tmp_path / "bench.csv", tmp_path / "clip.safetensors"
    save_file(Backbone(SMALL, None, 32).load().clip.state_dict(), weights)
    command = "bench --quick --method mvfa --batch-size 3 --threads 1 --rounds 1 --out"
    assert cli.main([*command.split(), str(table), "--pretrained", str(weights)]) == 0
    (found,) = output.load(table)["rows"]
    assert is_sound(found)
    assert (found["threads"], found["rounds"], found["batch_size"]) == (1, 1, 3)
    (run,) = output.load(table)["runs"]
    assert run["command"].startswith("anomalib-medclip bench --quick")
    assert run["hardware"]["cores"] >= 1
    assert json.loads(json.dumps(run)) == run
    assert found["pretrained"] == "clip.safetensors"
    for file in (table, table.with_suffix(".json")):
        assert str(tmp_path) not in file.read_text(), "nor on whose machine"


def test_work_is_done_in_a_process_of_its_own_and_if_that_dies_it_is_named():
    assert fresh_process._apart(eval, "__import__('os').getpid()") != os.getpid()
    with pytest.raises(ProcessDiedError, match="process for 3 has ended by itself"):
        fresh_process._apart(os._exit, 3)


def test_too_small_a_gpu_is_named(monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(measure, "measure_setting", too_much)
    with pytest.raises(ProcessDiedError, match=r"too small for score mvfa.*smaller batch"):
        fresh_process._measure(TINY)


def test_the_encoders_operations_are_those_of_its_layers():
    model = build.build_method(TINY)
    found = roofline.encoder_gflop(model.model.clip.backbone)
    width, tokens, blocks = 32, 17, 4
    layers = blocks * tokens * 12 * width**2 + blocks * 2 * tokens**2 * width
    ends = 16 * 3 * 8 * 8 * width + width * 24
    assert found == pytest.approx(2 * (layers + ends) / 1e9, rel=1e-6)


def test_a_row_says_how_near_it_is_to_a_products_rate():
    row = measure.measure_setting(replace(TINY, method="mediclip"))
    assert row["gflops"] == pytest.approx(row["encoder_gflop"] * row["images_per_second"])
    assert row["product_gflops"] > 0
    share = row["gflops"] / row["product_gflops"]
    assert f"{share:.0%}" in output.cells({**row, "run": "now"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no device cuda here; give one of cpu"):
        build.build_method(replace(TINY, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_is_measured(precision):
    row = measure.measure_setting(replace(TINY, device="cuda", precision=precision, k_shot=1))
    assert is_sound(row)
    assert row["peak_gpu_mb"] > 0
    assert row["device_name"] == torch.cuda.get_device_name()


@pytest.mark.parametrize(
    ("option", "words"),
    [("--out bench.json", "a name that ends in .csv"), ("--out a.csv --device tpu", "no device")],
)
def test_words_that_mean_nothing_are_refused(option, words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", *option.split()])
    assert words in capsys.readouterr().err
