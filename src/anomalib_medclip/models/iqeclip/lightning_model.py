"""IQE-CLIP as an anomalib model: its options."""

from typing import Any, Literal

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.anomaly_map import PatchScore
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.losses import CrossEntropy
from anomalib_medclip.models.iqeclip.query import FeedForwards, QueryModule, Reading
from anomalib_medclip.models.iqeclip.sentences import OBJECT, WORDS
from anomalib_medclip.models.iqeclip.torch_model import IQECLIPModel
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.method import ClipMethod

QueryAdapter = Literal["linear", "relu"]
"""What brings patches to the queries' space."""

Temperature = Literal["learnt", "none"]
"""What sharpens the text branch."""


class IQECLIP(ClipMethod, AnomalibModule):
    """Instance-aware Query Embedding (2025), few-shot or zero-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.iqeclip`` for
    the paper's equations and where its code differs. The rows of the paper's ablations are said
    with the options that make them.

    Args:
        few_shot: Take the image score of the authors' few-shot code (mean over pixels) and not of
            their zero-shot code (mean over patches); by default as the data are.
        prompt_length: Number of class prompts, r in eq. 1.
        class_prompts: Let them depend on the image (table 4, "w/o CPT"). The authors' option
            ``use_global`` is this and ``class_initialisation`` together.
        deep_prompt_depth: Number of blocks of the text tower that have them, D; by default all.
        deep_prompt_length: Learnable prompts before each block of the text tower, M in eq. 4; 0 for
            none, and no norm after them (table 4, "w/o LPT"; both off: table 3, "w/o prompt
            tuning").
        query_module: Have the query branch (table 3, "w/o IQM").
        blocks: Blocks of the query module.
        heads: Attention heads of the query module; they divide the width of CLIP's shared space.
        feedforward: Width of its hidden layers; by default four times that space, 3072.
        class_initialisation: Begin queries from the class token (table 5, "w/o class init").
        text_attention: Let queries read the text (table 5, "w/o text embedding").
        image_attention: Let queries read the image (table 5, "w/o image embedding").
        reading: What queries read first, the ``image``, as in the code, or the ``text``; or as
            eq. 7 to 9 are ``printed``: the image is asked by queries that have not read the text,
            and what they find is added to those that have.
        feedforwards: One network at the ``end`` of a block, or, as in eq. 7 to 9, one after
            ``each`` attention.
        adapter: ``linear``, or with a ``relu`` after it (eq. 5).
        dropout: Probability in the query module. The authors' configuration says 0.1, but their
            code switches it off before zero-shot training and after the first epoch few-shot.
        alpha: Weight of the query map in the anomaly map (eq. 12, figure 3).
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        image_score: The ``mean`` over patches or pixels, in training and after it, or the maximum
            of the map, ``max`` (eq. 13 and the text below eq. 14).
        bce: Whether the mean patch probability is put through a sigmoid, as the code does by taking
            it for a logit, or is the probability that it is.
        weigh_losses: Weigh the losses of the text branch by ``alpha``, those of the query branch by
            the rest to 1 (eq. 14, contrary to eq. 12), and not all by 1.
        temperature: ``learnt``, for the text branch, or ``none`` (eq. 11).
        temperature_lr: Adam's step size for the temperature of the text branch.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    default_batch_size = 16
    default_lr = 1e-4
    names_the_object = False
    idle = (
        Idle(
            ("blocks", "heads", "feedforward", "class_initialisation", "text_attention",
             "image_attention", "reading", "feedforwards", "dropout", "alpha", "weigh_losses"),
            lambda given: not given["query_module"],
            "query_module: false",
        ),
        Idle(
            ("reading",),
            lambda given: not (given["text_attention"] and given["image_attention"]),
            "queries that do not read both",
        ),
        Idle(
            ("feedforwards",),
            lambda given: not (given["text_attention"] or given["image_attention"]),
            "queries that read neither",
        ),
        Idle(
            ("deep_prompt_depth",),
            lambda given: not given["deep_prompt_length"],
            "deep_prompt_length: 0",
        ),
        Idle(("temperature_lr",), lambda given: given["temperature"] == "none", "no temperature"),
        Idle(("few_shot",), lambda given: given["image_score"] == "max", "image_score: max"),
    )  # fmt: skip
    model: IQECLIPModel

    def __init__(
        self,
        few_shot: bool | None = None,
        prompt_length: int = 2,
        class_prompts: bool = True,
        deep_prompt_length: int = 1,
        deep_prompt_depth: int | None = None,
        query_module: bool = True,
        blocks: int = 4,
        heads: int = 8,
        feedforward: int | None = None,
        class_initialisation: bool = True,
        text_attention: bool = True,
        image_attention: bool = True,
        reading: Reading = "image",
        feedforwards: FeedForwards = "end",
        adapter: QueryAdapter = "linear",
        dropout: float = 0.0,
        alpha: float = 0.8,
        sigma: float = 8.0,
        image_score: PatchScore = "mean",
        bce: CrossEntropy = "logits",
        weigh_losses: bool = False,
        temperature: Temperature = "learnt",
        temperature_lr: float = 1e-2,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(**kwargs)
        checked("blocks", blocks, 1, whole=True)
        checked("alpha", alpha, 0, 1)
        tower, text_tower = self.image_tower(), TextTower(self.backbone)
        width = tower.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            deep = deep_prompt_length, deep_prompt_depth
            words = self.worded(WORDS, OBJECT)
            prompts = ImagePrompts(text_tower, width, words, prompt_length, class_prompts, *deep)
            queries = None
            if query_module:
                reads = image_attention, text_attention, dropout, reading, feedforwards
                queries = QueryModule(
                    width, blocks, heads, feedforward, class_initialisation, *reads
                )
            model = IQECLIPModel(
                tower,
                text_tower,
                prompts,
                queries,
                self.hparams["levels"],
                alpha,
                sigma,
                image_score,
                bce,
                weigh_losses,
                sharpens=temperature == "learnt",
                rectifies=adapter == "relu",
            )
        self.assemble(model, few_shot)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; the temperature moves faster than the rest."""
        temperature = self.model.temperature
        rest = [p for p in self.parameters() if p.requires_grad and p is not temperature]
        faster = {"params": [temperature], "lr": self.hparams["temperature_lr"]}
        groups = [{"params": rest}, *([faster] if temperature.requires_grad else [])]
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.5, 0.999))
