"""What a method says of itself before it has seen anything."""

import copy
import inspect
import io
from typing import get_type_hints

import torch

from anomalib_medclip import baselines
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.models import get_model, list_models
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import hold, of_option, refused
from anomalib_medclip.training.options import SharedOptions


def has_every_shared_option(case: MethodCase) -> None:
    """It takes every option that all methods share, by its flat name, or declares it of no use."""
    useless = {*case.method.no_use_for}
    shared = inspect.signature(SharedOptions).parameters.keys() - {"kwargs", *useless}
    own = inspect.signature(case.method).parameters.keys()
    hold(shared <= own, f"options are missing: {sorted(shared - own)}; pass **kwargs on")
    hold(shared <= case.small().hparams.keys() | {"adapters", *_COMPONENTS}, "hparams lack options")
    hold(not useless & own, f"it declares of no use what it takes: {sorted(useless & own)}")
    for name in sorted(useless):
        with refused(ConfigError, f"leave {name} out"):
            case.small(**{name: None})


_COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def has_options_of_plain_data(case: MethodCase) -> None:
    """Its options are plain data, as a checkpoint can hold them, and it can be copied."""
    model = case.small()
    torch.save(dict(model.hparams), buffer := io.BytesIO())
    buffer.seek(0)
    kept = torch.load(buffer, weights_only=True)
    hold(kept == dict(model.hparams), "options came back changed")
    same = copy.deepcopy(model).model.clip.fingerprint == model.model.clip.fingerprint
    hold(same, "a copy has another backbone")


def declares_what_it_has(case: MethodCase) -> None:
    """Its torch model is a ClipModel, and says whether it keeps something of the support."""
    model = case.small().model
    hold(isinstance(model, ClipModel), "the torch model is no ClipModel")
    fits = type(model).fit_support is not ClipModel.fit_support
    words = f"has_memory is {model.has_memory}, but fit_support is {'' if fits else 'not '}its own"
    hold(model.has_memory == fits, words)
    hinted = get_type_hints(case.method)["model"]
    words = f"annotate it in the method's class: model: {type(model).__name__}"
    hold(hinted is type(model), f"the torch model is said to be a {hinted.__name__}; {words}")
    hold(isinstance(model.prompts, PromptEncoder), "prompts are no PromptEncoder")
    numbers = case.method.default_epochs, case.method.default_batch_size, case.method.default_lr
    hold(all(number > 0 for number in numbers), "default epochs, batch and lr must be positive")


def is_found_by_its_name(case: MethodCase) -> None:
    """Installed, it is a model by the name of its class, and its checkpoints can be scored."""
    if case.name in baselines.list_baselines():
        hold(getattr(baselines, case.name) is case.method, "its name is that of another baseline")
        return
    hold(case.name.lower() in list_models(), "no entry point or folder of models names it")
    hold(get_model(case.name) is case.method, "its name is that of another class")


def says_the_object_if_its_prompts_name_it(case: MethodCase) -> None:
    """Other words for what images show give other text features, where prompts name the object."""
    model = case.small().model
    if not model.prompts.reads_words:
        hold(not case.method.names_the_object, "its prompts read no words, and name an object")
        return
    tower = model.text_tower or TextTower(model.clip.backbone)
    with torch.no_grad():
        one, other = (model.prompts(tower, word) for word in ("brain", "liver"))
    hold(one.shape[0] == 2, f"text features are {tuple(one.shape)}, and should be two rows")
    hold(not torch.equal(one[0], one[1]), "normal and abnormal are the same")
    differs = not torch.equal(one, other)
    words = "differ" if differs else "are the same"
    hold(differs is case.method.names_the_object, f"texts of a brain and a liver {words}")


def freezes_its_towers(case: MethodCase) -> None:
    """No weight of CLIP takes a gradient, and something else does, if it says that it learns."""
    model = case.small()
    frozen = [n for n, p in model.model.clip.named_parameters() if p.requires_grad]
    hold(not frozen, f"weights of the image tower would learn: {frozen[:1]}")
    can, says = any(p.requires_grad for p in model.parameters()), case.method.learns
    hold(can is says, f"that anything in it can learn is {can}, and it says {says}")


def refuses_to_score_before_it_is_ready(case: MethodCase) -> None:
    """Without training or a checkpoint it scores nothing, and says what to do."""
    with refused(NotReadyError, "checkpoint"):
        case.small()(torch.rand(1, 3, case.side, case.side))


@of_option("precision")
def computes_in_the_precision_asked_for(case: MethodCase) -> None:
    """With ``precision`` bf16 its tower computes in bf16, its scores are float32 and stay near."""
    trained = case.trained
    options = {"map_location": "cpu", "precision": "bf16"}
    near = case.method.load_from_checkpoint(trained.checkpoint, **options).eval()
    kinds = {weight.dtype for weight in near.model.clip.parameters()}
    hold(torch.bfloat16 in kinds, "no weight of the image tower is in bf16")
    with torch.inference_mode():
        exact, found = (m.eval()(case.images).anomaly_map for m in (trained.model, near))
    hold(found.dtype == torch.float32, f"maps are {found.dtype}")
    hold(not torch.equal(exact, found), "maps are those of fp32 to the bit")
    apart = float((exact - found).abs().mean())
    hold(apart < 0.03, f"maps differ by {apart:.3f} in the mean")
