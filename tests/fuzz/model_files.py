"""Checkpoints, weights, adapters and exports; and whole runs of ``score`` on damaged inputs."""

import hashlib
import json
import shutil
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import nibabel as nib
import torch
from dicom_series import numbers
from families import MORE, configs, small
from fuzz import formats, images
from fuzz.attempts import MARK
from fuzz.damage import BYTES, JSON, TEXT
from fuzz.target import Target, legal, writing
from hostile import Command, write_restoring
from models import test_iqeclip_parts, test_madclip
from safetensors.torch import save_file
from scans import UP, write_stack, write_volume
from tiny import OPTIONS, OpenAIArchive, traced

from anomalib_medclip import IQECLIP, MVFA, MadCLIP, MediCLIP
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.clip.weights import read_weights
from anomalib_medclip.errors import NonFiniteError, TrustError
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.score.inputs import find_inputs
from anomalib_medclip.score.model_files import open_model, slicing_from
from anomalib_medclip.score.record import ScoreSettings
from anomalib_medclip.score.scorer import Scorer

RELEASED = Path(__file__).parents[1] / "released"


def _released(pattern):
    return sorted(RELEASED.glob(f"*/{pattern}"))


def _copied(path):
    """A released file with those beside it that belong to it."""

    def whole(folder):
        for one in path.parent.glob("model.*"):
            shutil.copy(one, folder)
        return folder / path.name

    return whole


def _evil(folder, ending=".pt"):
    """A file that leaves a mark at the top of all when it is opened by what trusts it."""
    command = Command(f"touch '{folder.parents[2] / MARK}'")
    path = folder / f"evil{ending}"
    torch.save({"state_dict": {}, "model": command, "anomalib_medclip": [command]}, path)
    return path


# --- models


@cache
def _image():
    return images.read_image(next((RELEASED / "0.1.0" / "pictures").iterdir()))[None]


def _answers(inferencer):
    """What a model that could be opened answers is legal, or it says that it is not."""
    slicing_from(inferencer.slicing)
    with suppress(NonFiniteError):
        found = inferencer.score(_image())
        legal(found.scores.numpy(), found.maps.numpy(), found.full_maps.numpy())


def _read_model(file):
    _answers(Inferencer(file))


def _read_export(file):
    _answers(Inferencer(next(file.parent.glob("model.[ox][nm][nl]*"))))


def _certify(file):
    """Note the hash of a damaged file in its certificate, as who damages on purpose would."""
    certificate = file.parent / "model.json"
    paper = json.loads(certificate.read_text())
    paper["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    certificate.write_text(json.dumps(paper))


def _untrusted(file):
    """It is refused whatever is in it."""
    with suppress(TrustError):
        open_model(file, "cpu")
        msg = "a pickle was opened without trust"
        raise AssertionError(msg)


# --- weights


@cache
def _clip():
    return Backbone(OPTIONS["backbone"], None, 32).load().clip.eval()


def _state():
    return {name: value.contiguous() for name, value in _clip().state_dict().items()}


def _state_file(path):
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in _state().items()}}, path)


def _safetensors(path):
    save_file(_state(), path)


def _scripted(path):
    traced(OpenAIArchive(_clip()).half(), torch.zeros(1, 3, 32, 32).half(), path)


def _restoring(folder):
    return write_restoring(folder / "clip.pt", folder.parents[2] / MARK)


def _read_weights(file):
    for value in read_weights(file).values():
        assert isinstance(value, torch.Tensor)
    Backbone(OPTIONS["backbone"], str(file), 32).load()


# --- folders of backbones


def _folder_of(family, file, folder):
    """A small model of a family in a folder, and the file of it to damage."""
    small(configs()[family], folder)
    return folder / file


def _read_folder(file):
    backbone = Backbone(f"local-dir:{file.parent}", None, 32)
    tower = TextTower(backbone)
    assert torch.isfinite(tower.encode(["a photo of a normal brain"])).all()
    ImageTower(backbone)


OWN, FOREIGN = "ViT-B-16", next(iter(MORE))


# --- adapters of the authors


@cache
def _method(kind):
    return kind(**(test_iqeclip_parts.SMALL if kind is IQECLIP else OPTIONS))


def _adapters(kind, folder):
    method, path = _method(kind), folder / f"{kind.__name__}.pth"
    model = method.model
    if kind is IQECLIP:
        state = test_iqeclip_parts.released(model)
    elif kind is MadCLIP:
        state = test_madclip.released(method)
    elif kind is MVFA:
        names = ("seg_adapters", "det_adapters")
        state = {name: getattr(model.adapters, name).state_dict() for name in names}
    else:
        adapters = {f"{n}_adapter.0.weight": a.weight.data for n, a in enumerate(model.adapters)}
        adapters |= {f"{n}_adapter.0.bias": a.bias.data for n, a in enumerate(model.adapters)}
        state = {"adapter_state_dict": adapters, "prompt_state_dict": model.prompts.state_dict()}
    torch.save(state, path)
    return path


def _read_adapters(file):
    _method(KINDS[file.stem]).model.load_released(file)


KINDS = {kind.__name__: kind for kind in (MVFA, MadCLIP, MediCLIP, IQECLIP)}


# --- score


@cache
def _scores():
    return Inferencer(_released("mvfa/model.ckpt")[0], intensity=images.WINDOW)


def _read_score(file):
    home, out = file.parent, file.parents[1] / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    scorer = Scorer(_released("mvfa/model.ckpt")[0], out, _scores(), ScoreSettings())
    inputs = find_inputs(home, out)
    scorer.score(inputs)
    assert len(scorer.rows) == len(inputs)
    for row in scorer.rows.values():
        assert row["status"] == "scored" or row["error"]
    for made in out.glob("*/map.nii.gz"):
        assert nib.load(made).get_fdata().size
    for made in out.glob("*/scores.json"):
        legal([json.loads(made.read_text())["score"]])


def _scan(folder):
    return write_volume(folder / "s.nii")


def _series(folder):
    return write_stack(folder, numbers(3, 12, 10), UP)[1]


IN_TORCH = (formats.in_zip(formats.pickle_words, formats.pickle_words, *BYTES, names=".pkl"),
            formats.in_zip(*BYTES), *BYTES)  # fmt: skip
IN_SCRIPT = (*IN_TORCH, formats.in_zip(*TEXT, names=".py"))
CHECKPOINTS = (*map(_copied, _released("*/model.ckpt")), partial(_evil, ending=".ckpt"))
ONNX, XML = (
    tuple(map(_copied, _released(f"*/{name}")))
    for name in ("onnx/model.onnx", "openvino/model.xml")
)
NUMBERS = (
    *map(_copied, _released("*/onnx/model.onnx.data")),
    *map(_copied, _released("*/openvino/model.bin")),
)
PAPERS = (
    *map(_copied, _released("*/onnx/model.json")),
    *map(_copied, _released("*/openvino/model.json")),
)
RUNTIME = 600_000_000
"""Bytes that a runtime may add besides, which compiles a model."""

TARGETS = (
    Target("checkpoint", CHECKPOINTS, IN_TORCH, _read_model),
    Target("certificate of an export", PAPERS, JSON, _read_export, memory=RUNTIME),
    Target("onnx", ONNX, BYTES, _read_export, _certify, memory=RUNTIME),
    Target("openvino", XML, (*TEXT, *BYTES), _read_export, _certify, memory=RUNTIME, slow=True),
    Target("weights of an export", NUMBERS, BYTES, _read_export, _certify, memory=RUNTIME),
    Target("pt without trust", (_evil,), IN_TORCH, _untrusted),
    Target("weights, torch", (writing("clip.pt", _state_file), _evil), IN_TORCH, _read_weights),
    Target("weights, TorchScript", (writing("clip.pt", _scripted), _restoring), IN_SCRIPT,
           _read_weights),
    Target("weights, safetensors", (writing("clip.safetensors", _safetensors),),
           (formats.safetensors_header,) * 4 + BYTES, _read_weights),
    Target("configuration of a backbone",
           tuple(partial(_folder_of, one, "open_clip_config.json") for one in (OWN, FOREIGN)),
           JSON, _read_folder, slow=True),
    Target("text of Hugging Face", tuple(partial(_folder_of, FOREIGN, name) for name in (
               "config.json", "tokenizer_config.json", "tokenizer.json")), JSON, _read_folder,
           slow=True),
    Target("adapters", tuple(partial(_adapters, kind) for kind in KINDS.values()), IN_TORCH,
           _read_adapters),
    Target("score of a NIfTI file", (_scan,), images.OF_NIFTI, _read_score, slow=True),
    Target("score of a series", (_series,), images.OF_DICOM, _read_score, slow=True),
)  # fmt: skip
