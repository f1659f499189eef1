"""IQE-CLIP as an anomalib model: its options."""

from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.models.iqeclip.image_prompts import OBJECT, WORDS, ImagePrompts
from anomalib_medclip.models.iqeclip.query import QueryModule
from anomalib_medclip.models.iqeclip.torch_model import CrossEntropy, IQECLIPModel
from anomalib_medclip.training.method import ClipMethod


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
        dropout: Probability in the query module. The authors' configuration says 0.1, but their
            code switches it off before zero-shot training and after the first epoch few-shot.
        alpha: Weight of the query map in the anomaly map (eq. 12, figure 3).
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        bce: Whether the mean patch probability is put through a sigmoid, as the code does by taking
            it for a logit, or is the probability that it is.
        temperature_lr: Adam's step size for the temperature of the text branch.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    default_batch_size = 16
    default_lr = 1e-4
    names_the_object = False
    model: IQECLIPModel

    def __init__(
        self,
        few_shot: bool | None = None,
        prompt_length: int = 2,
        class_prompts: bool = True,
        deep_prompt_length: int = 1,
        query_module: bool = True,
        blocks: int = 4,
        heads: int = 8,
        feedforward: int | None = None,
        class_initialisation: bool = True,
        text_attention: bool = True,
        image_attention: bool = True,
        dropout: float = 0.0,
        alpha: float = 0.8,
        sigma: float = 8.0,
        bce: CrossEntropy = "logits",
        temperature_lr: float = 1e-2,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(**kwargs)
        tower, text_tower = self.image_tower(), TextTower(self.backbone)
        width = tower.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            words, lengths = self.worded(WORDS, OBJECT), (class_prompts, deep_prompt_length)
            prompts = ImagePrompts(text_tower, width, prompt_length, *lengths, words)
            queries = None
            if query_module:
                queries = QueryModule(
                    width,
                    blocks,
                    heads,
                    feedforward,
                    class_initialisation,
                    image_attention,
                    text_attention,
                    dropout,
                )
            model = IQECLIPModel(
                tower, text_tower, prompts, queries, self.hparams["levels"], alpha, sigma, bce
            )
        self.assemble(model, few_shot)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; the temperature moves faster than the rest."""
        temperature = self.model.temperature
        rest = [p for p in self.parameters() if p.requires_grad and p is not temperature]
        faster = {"params": [temperature], "lr": self.hparams["temperature_lr"]}
        groups = [{"params": rest}, faster]
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.5, 0.999))
