"""The bench says where the time goes, and whether a faster model still says the same."""

import json
import time
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from bench_rows import RUN, TINY, is_sound
from tiny import write_lesions

from anomalib_medclip.bench import build, measure, output, quality, scoring
from anomalib_medclip.bench.profile import MAPS, PARTS, REST, profile_parts
from anomalib_medclip.bench.settings import SMALL, plan_settings
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.errors import ConfigError, DataRootError
from anomalib_medclip.export.pictures import of_validation

CONFIG = """
class_path: anomalib_medclip.data.MedicalFolder
init_args: {{table: {table}, mask_column: mask, patient_column: patient, object_name: phantom,
  k_shot: 1, val_ratio: 0.4, num_workers: 0}}
"""

OF = {
    "mvfa": {"adapters", "memory bank"},
    "madclip": {"adapters"},
    "mediclip": {"adapters"},
    "iqeclip": {"adapters", "prompts", "query module"},
}
"""Parts that a method has when it scores, besides those of all."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesions")
    config = folder / "data.yaml"
    config.write_text(CONFIG.format(table=write_lesions(folder)))
    return str(config)


@pytest.mark.parametrize("method", OF)
def test_a_profile_has_the_parts_of_its_method(method):
    model = build.build_method(replace(TINY, method=method, k_shot=1))
    scoring.fill_bank(model.model, 1, len(model.augmentations.masks))
    run = scoring.scorer(model.model, "cpu", compiled=False)
    images = scoring.random_images(model.model, 2)
    named = {name: set(vars(module)) for name, module in model.named_modules()}
    spent = profile_parts(model.model, lambda: run(images), rounds=1)
    assert set(spent) == OF[method] | {"image tower", "maps", REST}
    assert list(spent) == [part for part in (*PARTS, MAPS, REST) if part in spent]
    assert {n: set(vars(m)) for n, m in model.named_modules()} == named, "nothing stays behind"


class Takes(torch.nn.Module):
    """Takes seconds of a clock, then does something else."""

    def __init__(self, clock, seconds, then):
        super().__init__()
        self.clock, self.seconds, self.then = clock, seconds, then

    def forward(self, given):
        self.clock[0] += self.seconds
        return self.then(given)


class Nested(ClipModel):
    """A score that goes through an adapter, which goes through a query module, and a layer."""

    part_names: ClassVar = {"gates": "adapters"}

    def __init__(self, clock):
        super().__init__(ImageTower(Backbone(SMALL, image_size=32)))
        self.clock = clock
        self.query_module = Takes(clock, 5.0, lambda given: given)
        self.adapters = Takes(clock, 2.0, self.query_module)
        self.gates = torch.nn.ModuleList([Takes(clock, 0.25, lambda given: given)])
        self.last_layers = torch.nn.ModuleDict({"a": Takes(clock, 8.0, self.gates[0])})

    def score(self):
        self.clock[0] += 1.0
        self.adapters(0), self.adapters(0), self.last_layers["a"](0)

    def loss_terms(self):
        """None is asked for."""

    def forward(self):
        self.clock[0] += 0.5
        self.score()


def test_each_moment_belongs_to_one_part(monkeypatch):
    """By a clock that moves only where something is done."""
    clock = [0.0]
    model = Nested(clock)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    spent = profile_parts(model, model, rounds=3)
    assert spent == {
        "adapters": 4.25, "query module": 10.0, "last layers": 8.0, "maps": 1.0, REST: 0.5,
    }  # fmt: skip
    assert list(spent) == ["adapters", "query module", "last layers", "maps", REST]
    assert sum(spent.values()) * 4 == clock[0], "once before, and in three rounds"


def test_a_step_of_training_is_profiled_and_its_rest_is_the_backward_pass(tmp_path):
    row = measure.measure_setting(replace(TINY, method="madclip", what="first-epoch", profile=True))
    assert is_sound(row)
    assert set(row["parts"]) == {"image tower", "adapters", "prompts", "maps", REST}
    output.save(tmp_path / "bench.csv", row, RUN, overwrite=False)
    shown = output.markdown([tmp_path / "bench.csv"]).split("\n\n")[-1].splitlines()
    assert [cell.strip() for cell in shown[0].split("|")[5:-1]] == list(row["parts"])
    shares = [float(cell.split("(")[1].split("%")[0]) for cell in shown[2].split("|")[5:-1]]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert json.dumps(row["parts"])[1:9] in (tmp_path / "bench.csv").read_text().replace('""', '"')


def test_a_row_without_a_profile_has_no_table_of_it(tmp_path):
    row = measure.measure_setting(replace(TINY, method="mediclip"))
    output.save(tmp_path / "bench.csv", row, RUN, overwrite=False)
    assert output.profile_table([row])[1] == []
    assert "profile of" not in output.markdown([tmp_path / "bench.csv"])


def test_only_eager_can_be_profiled():
    options = (["score"], ["mvfa"], ["compile"], [0], [1], lambda _: True)
    with pytest.raises(ConfigError, match="--profile looks into eager torch only"):
        plan_settings(replace(TINY, profile=True), *options)


@pytest.mark.parametrize(("method", "k_shot"), [("mvfa", 1), ("iqeclip", 0)])
def test_a_model_agrees_with_itself(method, k_shot, images):
    row = measure.measure_setting(replace(TINY, method=method, k_shot=k_shot, images=images))
    assert is_sound(row)
    assert row["rank_correlation"] == pytest.approx(1, abs=1e-9)
    assert row["auroc"] == row["auroc_fp32"]
    assert 0 < row["auroc"] <= 1
    assert f"({row['auroc']:.4f})" in output.cells(row)[-1]


def test_bf16_is_compared_with_fp32_in_the_same_state(images):
    setting = replace(TINY, method="mvfa", precision="bf16", k_shot=1, images=images)
    row = measure.measure_setting(setting)
    assert 0.97 < row["rank_correlation"] <= row["rank_correlation_median"] < 1


def test_zero_shot_takes_no_bank_from_the_data(images):
    method = build.build_method(TINY)
    real = quality.meet(method, replace(TINY, images=images))
    assert not method.model.few_shot
    assert method.model.memory_bank.is_empty
    assert method.model.text.shape == (2, 24)
    tested = {str(path) for path in real.data.test_data.samples.image_path}
    kept = {str(path) for path in real.data.support_data.samples.image_path}
    assert not tested & kept
    assert sorted(real.abnormal) == [False] * (len(real.abnormal) // 2) + [True] * (
        len(real.abnormal) - len(real.abnormal) // 2
    )


def test_integers_are_calibrated_with_the_data_and_never_with_what_is_scored(images, monkeypatch):
    method = build.build_method(replace(TINY, method="madclip"))
    setting = replace(TINY, method="madclip", runtime="openvino-int8", precision="int8")
    real = quality.meet(method, replace(setting, images=images))
    given = {}
    monkeypatch.setattr(method, "to_openvino", lambda folder, **options: given.update(options))
    build.export_method(method, setting, None, real.data)
    assert given["datamodule"] is real.data
    calibrated = torch.cat(of_validation(real.data, method.pre_processor.resize))
    distance = (calibrated[:, None] - real.images[None]).abs().amax(dim=(2, 3, 4))
    assert distance.min() > 0
    support = method.exporter.probes.float() / 255
    assert (support[:, None] - real.images[None]).abs().amax(dim=(2, 3, 4)).min() > 0.01


def test_data_that_are_not_there_are_named():
    with pytest.raises(DataRootError, match=r"no data config nowhere\.yaml"):
        measure.measure_setting(replace(TINY, images="nowhere.yaml"))
