"""One part of ``gpu_check.sh``: what a device computes is what a processor computes.

    python tests/gpu_check.py PART --device cuda

A line of each check says ``pass``, ``fail`` or ``skip``, and why. Differences are the largest of
any number.
"""

import argparse
import copy
import csv
import json
import os
import platform
import traceback
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector

EXACT = 1e-6
"""Distances of a memory bank."""

FLOAT32 = 1e-3
"""Scores and maps in [0, 1], and losses and gradients as a share of themselves: devices sum in
another order."""

HALF = 0.05
"""The same where both are in bf16 autocast, which keeps eight bits of each number. A processor's
two kinds of attention differ by 0.03, and so do its autocast and that of a simulated GPU."""

ROUNDED = 0.1
"""Scores and maps in bf16 autocast, compared with float32."""

ROUNDED_GRADIENTS = 0.7
"""Losses and gradients likewise: a processor's differ by 0.4, of MVFA with random weights."""

MOVED = 0.05
"""What an epoch changes, as a share of itself: Adam makes steps of whatever is not zero."""

HALF_ROWS = 1e-3
"""Cosines of rows and queries in half precision."""


def say(verdict, what):
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one of several processes speaks
        print(f"{verdict}: {what}", flush=True)


def near(what, found, expected, allowed):
    """Compare pairs of tensors of any device; what is NaN is not near."""
    pairs = zip(found, expected, strict=True)
    differences = [(one.cpu().double() - other.cpu().double()).abs().max() for one, other in pairs]
    worst = torch.stack(differences).max().item()
    verdict = "pass" if worst <= allowed else "fail"
    say(verdict, f"{what}: differs by {worst:.1e}, allowed {allowed:.0e}")


@contextmanager
def attempt(what):
    """Let an error be the failure of one check, and a missing package its end."""
    try:
        yield
    except Exception as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and not missing.startswith("anomalib_medclip"):
            say("skip", f"{what}: {missing.partition('.')[0]} is not installed")
            return
        traceback.print_exc()
        said = str(error).splitlines()[:1]
        say("fail", f"{what}: {': '.join([type(error).__name__, *said])}")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- what there is


def machine(device):
    """Python, torch, GPUs, and packages that other parts need."""
    packages = (
        "jaxtyping",
        "open_clip",
        "monai",
        "scipy",
        "faiss",
        "lightning",
        "anomalib",
        "onnx",
    )
    there = [name for name in packages if find_spec(name)]
    print(f"Python {platform.python_version()}, torch {torch.__version__}, with {there}")
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        print(f"GPU {number}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
    near(f"torch computes on {device}", [torch.ones(3, device=device).cumsum(0)], [_COUNT], 0)


_COUNT = torch.tensor([1.0, 2.0, 3.0])


# --- the memory bank


def bank(device):
    """Distances to a bank, by whatever searches there."""
    from anomalib_medclip.components.memory_bank import MemoryBank
    from anomalib_medclip.components.nearest import largest

    tokens, images = random(2, 8, 289, 768), random(4, 289, 768, seed=1)
    kept, leave_out = MemoryBank(), torch.tensor([0, 3, -1, 7])
    kept.fill(tokens, torch.arange(8))
    queries, rows = F.normalize(images.flatten(0, 1), dim=-1), kept.rows[1]
    cosines = queries.double() @ F.normalize(rows.double(), dim=-1).T
    expected = cosines.amax(dim=1)
    without = kept.distance(images, 1, leave_out)
    kept, images = kept.to(device), images.to(device)
    queries, rows = queries.to(device), kept.rows[1]
    near("bank: plain products", [largest(queries, rows)[0]], [expected], EXACT)
    near("bank: its search", [1 - kept.distance(images, 1).flatten()], [expected], EXACT)
    near("bank: leave-one-out", [kept.distance(images, 1, leave_out.to(device))], [without], EXACT)
    _indexes(queries, rows, expected)


def _indexes(queries, rows, expected):
    """FAISS's index with every option."""
    from anomalib_medclip.components.faiss_index import FlatIndex, IndexOptions, faiss_serves

    if not faiss_serves(rows.device):
        why = "sees no GPU" if find_spec("faiss") else "is not installed"
        say("skip", f"bank: FAISS's index: FAISS {why}")
        return
    search = lambda options: FlatIndex(rows, options).nearest(queries)[0]  # noqa: E731
    near("bank: FAISS's index", [search(IndexOptions())], [expected], EXACT)
    if not rows.is_cuda:
        say("skip", "bank: FAISS's index in half precision, streams and shards: only on GPUs")
        return
    near("bank: in half precision", [search(IndexOptions(float16=True))], [expected], HALF_ROWS)
    near("bank: with 64 MB", [search(IndexOptions(scratch_mb=64))], [expected], EXACT)
    index = FlatIndex(rows)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(10**8)  # queries that are not ready when the search is asked for
        late = index.nearest(queries.roll(1, 0).roll(-1, 0))[0]
        near("bank: in another stream", [late], [expected], EXACT)
    if torch.cuda.device_count() == 1:
        say("skip", "bank: on several GPUs: there is one")
        return
    near("bank: on all GPUs", [search(IndexOptions(sharded=True))], [expected], EXACT)
    queries, rows = queries.to("cuda:1"), rows.to("cuda:1")
    near("bank: on the second GPU", [search(IndexOptions())], [expected], EXACT)


# --- torch models


def models(device):
    """Scores, maps, losses and gradients of every method that ``bare_bench`` builds."""
    import bare_bench

    for name, method in bare_bench.METHODS.items():
        if method.smooths_by and find_spec(method.smooths_by) is None:
            say("skip", f"{name}: {method.smooths_by} is not installed")
            continue
        with attempt(name):
            model = _small(method)
            _same_answers(name, model, device)
            with attempt(f"{name}: loss and gradients"):
                _same_gradients(name, model, device)


def _small(method):
    import bare_bench

    from anomalib_medclip.bench import scoring
    from anomalib_medclip.bench.settings import SMALL
    from anomalib_medclip.clip.backbone import Backbone

    backbone = Backbone(SMALL, **{**method.enters, "image_size": 32})
    model = bare_bench.build(method, backbone, "fp32").eval()
    scoring.know_prompts(model)
    scoring.fill_bank(model, 2, bare_bench.COPIES)
    return model


def _half(device):
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def _same_answers(name, model, device):
    from anomalib_medclip.bench import scoring

    images = scoring.random_images(model, 4)
    for few_shot in (True, False) if model.has_memory else (False,):
        model.few_shot = few_shot
        there = copy.deepcopy(model).to(device)
        with torch.inference_mode():
            expected, found = model(images), there(images.to(device))
            with _half("cpu"):
                rounded = model(images)
            with _half(device):
                found_rounded = there(images.to(device))
        shots = f"{name}, {'few' if few_shot else 'zero'}-shot"
        near(f"{shots}: in float32", found, expected, FLOAT32)
        near(f"{shots}: in bf16 autocast", found_rounded, rounded, HALF)
        near(f"{shots}: in bf16 against float32", found_rounded, expected, ROUNDED)


def _same_gradients(name, model, device):
    there = copy.deepcopy(model).to(device)
    expected, found = _gradients(model), _gradients(there)
    with _half("cpu"):
        rounded = _gradients(model)
    with _half(device):
        found_rounded = _gradients(there)
    what = f"{name}: loss and gradients"
    near(f"{what} in float32", *_shares(found, expected), FLOAT32)
    near(f"{what} in bf16 autocast", *_shares(found_rounded, rounded), HALF)
    shares = _shares(found_rounded, expected)
    near(f"{what} in bf16 against float32", *shares, ROUNDED_GRADIENTS)


def _gradients(model):
    """The loss of a batch with masks, and all gradients in one vector."""
    from anomalib_medclip.bench import scoring

    images, labels = scoring.random_images(model, 4), torch.tensor([False, True, True, False])
    masks = torch.zeros(4, 1, *model.clip.size)
    masks[labels, :, 8:20, 4:16] = 1
    images, labels, masks = (one.to(model.device) for one in (images, labels, masks))
    model.zero_grad()
    loss = model.loss(model.encode(images), masks, labels, model.known_text())
    loss.backward()
    learnt = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
    return loss.detach(), torch.cat(learnt)


def _shares(found, expected):
    """Both as shares of the expected lengths."""
    lengths = [one.double().norm() for one in expected]
    pairs = zip(found, expected, lengths, strict=True)
    errors = [(one.cpu().double() - other.double()).norm() / size for one, other, size in pairs]
    return errors, [torch.zeros(())] * len(errors)


# --- anomalib


def engine(device):
    """Every method of the registry: trained, tested, resumed, scored and exported there."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from anomalib_medclip.models import get_model, list_models
    from anomalib_medclip.testing import MethodCase

    for name in list_models():
        with attempt(name):
            case = MethodCase(get_model(name))
            home = Path(case.scratch.name)
            keep = ModelCheckpoint(home / "epochs", "{epoch}", save_top_k=-1, mode="max")
            whole = _trained(case, home, device, callbacks=[keep])
            _tested(f"{name}: trained and tested", whole)
            _resumed(f"{name}: resumed", case, whole, home / "epochs/epoch=0.ckpt", device)
            checkpoint = home / "trained.ckpt"
            whole.engine.trainer.save_checkpoint(checkpoint)
            _scored(f"{name}: score --device {device}", case, checkpoint, device)
            _exported(f"{name}: exported", whole, checkpoint)


def _trained(case, home, device, ckpt_path=None, **trainer):
    """A run of two epochs, or the rest of one, of a model with few blocks."""
    from anomalib_medclip.testing.small import SHALLOW

    kind, _, number = device.partition(":")
    where = {"accelerator": "gpu" if kind == "cuda" else kind, "devices": 1}
    if number:
        where["devices"] = [int(number)]
    run = case.ready(home, epochs=2, trainer={**where, **trainer}, **SHALLOW)
    run.engine.fit(run.model, datamodule=run.data, ckpt_path=ckpt_path)
    return run


def _tested(what, run):
    figures = run.engine.test(run.model, datamodule=run.data, verbose=False)[0]
    fine = figures and all(0 <= figure <= 1 for figure in figures.values())
    say("pass" if fine else "fail", f"{what}: {figures}")


def _resumed(what, case, whole, middle, device):
    """An epoch after a stop moves the weights as it does without one."""
    resumed = _trained(case, middle.parents[1] / "resumed", device, ckpt_path=middle)
    before = torch.load(middle, map_location="cpu")["state_dict"]
    moved = []
    for run in (resumed, whole):
        learnt = [(name, one) for name, one in run.model.named_parameters() if one.requires_grad]
        moved.append(torch.cat([(one.cpu() - before[name]).flatten() for name, one in learnt]))
    near(what, *_shares(moved[:1], moved[1:]), MOVED)


def _scored(what, case, checkpoint, device):
    """The command gives the same scores there and on a processor."""
    from anomalib_medclip.cli import main

    found = []
    for where in (device, "cpu"):
        out = checkpoint.with_name(f"scored on {where.replace(':', ' ')}")
        words = [case.lesions / "images/abnormal", "--ckpt", checkpoint, "--out", out]
        if main(["score", *map(str, words), "--device", where, "--overwrite"]):
            say("fail", f"{what}: inputs were left out")
            return
        with (out / "scores.csv").open(newline="") as table:
            found.append([torch.tensor([float(row["score"]) for row in csv.DictReader(table)])])
    near(what, *found, FLOAT32)


def _exported(what, whole, checkpoint):
    """What the trained model is exported to answers as its checkpoint does, on a processor."""
    from anomalib_medclip import Inferencer

    data = whole.data.test_data
    images = torch.stack([data[index].image for index in range(4)]).as_subclass(torch.Tensor)
    expected = Inferencer(checkpoint).answer(images)
    for kind, runtime in (("torch", "torch"), ("onnx", "onnxruntime")):
        with attempt(f"{what} to {kind}"):
            import_module(runtime)
            path = whole.engine.export(whole.model, kind, checkpoint.parent, ckpt_path=checkpoint)
            found = Inferencer(path, trust=True).answer(images)
            pairs = ((one.scores, one.maps) for one in (found, expected))
            near(f"{what} to {kind}", *pairs, FLOAT32)


def devices(device):
    """Two processes, each on a device of its own, learn the same."""
    from anomalib_medclip.models import get_model, list_models
    from anomalib_medclip.testing import MethodCase

    if device.startswith("cuda") and torch.cuda.device_count() < 2:
        say("skip", "training on two GPUs: there is one")
        return
    for name in list_models():
        with attempt(f"{name}: on two devices"):
            case = MethodCase(get_model(name))
            run = _trained(case, Path(case.scratch.name), device.partition(":")[0], devices=2)
            mine, found = parameters_to_vector(run.model.parameters()).detach().cpu(), [None, None]
            torch.distributed.all_gather_object(found, mine)
            near(f"{name}: two processes learn the same weights", found[:1], found[1:], 0)
            _tested(f"{name}: trained and tested on two devices", run)


# --- speed


def bench(device):
    """Rows of ``bare_bench``; on a processor, of a CLIP so small that they mean nothing."""
    import bare_bench

    from anomalib_medclip.bench.settings import SMALL

    tiny = ["--backbone", json.dumps(SMALL), "--image-size", "32", "--batch-size", "2"]
    full = ["--precision", "bf16", "--batch-size", "8", "64"]
    words = ["--device", device, *(tiny if device == "cpu" else full)]
    bare_bench.main(words)
    say("pass", "bench: zero-shot, the rows above")
    if device == "cpu":
        import_module("faiss")  # which a processor is measured with
    bare_bench.main([*words, "--method", "mvfa", "--k-shot", "16"])
    say("pass", "bench: 16-shot, the rows above")


PARTS = {one.__name__: one for one in (machine, bank, models, engine, devices, bench)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    with attempt(options.part):
        PARTS[options.part](options.device)


if __name__ == "__main__":
    main()
