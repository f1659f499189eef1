"""SQUID's arrays, computed by this package."""

import json
import re
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from anomalib_medclip.baselines.squid import SQUID, memory
from anomalib_medclip.baselines.squid.autoencoder import Made
from golden_cases.common import Computed, Tolerance
from golden_cases.drawn_weights import drawn_weights

FORWARD, SCORES, LOSSES = Tolerance(5e-5), Tolerance(1e-4), Tolerance(2e-2)
AFTER = Tolerance(0.1)
"""Of what was trained, shape and size alone."""


class SQUIDCase:
    """One case of SQUID: everything that its arrays hold, computed by this package."""

    fewest = 22
    inputs_pattern = r"train|test|mask_\d_\d|masks_count_per_pass"
    tolerances = (
        (r"first_losses", Tolerance(1e-5)),
        (r"train_losses", LOSSES),
        (r"gradnorm_.*", Tolerance(5e-3)),
        (r".*_after.*", AFTER),
        (r"score|logit_.*|train_logit_.*", SCORES),
        (r".*", FORWARD),
    )

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.golden["first_losses"] = self.golden["train_losses"][0]  # by a sharper tolerance

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        model = self.method.model.eval()
        with torch.no_grad():
            made, found = self.watched()
            yield from found.items()
            yield "recon", made.images
            yield "teacher_recon", made.by_teacher
            yield "dist_loss", made.distillation
            yield from self.scores(made.images)
        yield from self.training()
        yield "queue0_after", model.generator.inpaint_block.memory[0].rows
        with torch.no_grad():
            yield "recon_after_training", model.eval().generator(self.tested[:1]).images

    def watched(self) -> tuple[Made, dict[str, Tensor]]:
        """What the generator makes of test images, and what went in and out on the way."""
        generator, found, hooks = self.method.model.generator, {}, []

        def watch(module: nn.Module, before: str, after: str) -> None:
            def note(_module, given, made) -> None:
                found[before] = given[0]
                found[after] = made[0] if isinstance(made, tuple) else made

            hooks.append(module.register_forward_hook(note))

        watch(generator.inpaint_block, "bottom", "inpainted")
        watch(generator.inpaint_block.memory[0], "query0", "memory0")
        for number, block in zip((3, 2), generator.memories, strict=True):
            watch(block, f"decoder_memory{number}_in", f"decoder_memory{number}_out")
        made = generator(self.tested)
        for hook in hooks:
            hook.remove()
        return made, found

    def scores(self, made: Tensor) -> Computed:
        """What the discriminator says, and the score and map of the model itself."""
        model = self.method.model
        model.least_deviation = 0.0  # the authors have none
        yield "logit_disc_eval", model.discriminator(made)
        normal = self.trained.expand(-1, 3, -1, -1)
        nobody = torch.zeros(len(normal), dtype=torch.long)
        model.fit_support(normal, normal[None], nobody.bool(), nobody)
        yield "train_logit_disc_eval", model.logits
        encoded = self.tested.expand(-1, 3, -1, -1)
        standing = model.standing(model.discriminator(made))
        yield "score", 1 - standing.sigmoid()
        yield "residual_map", model.score(encoded, torch.empty(0)).anomaly_map[:, None]
        statistics = {name: value.clone() for name, value in model.discriminator.named_buffers()}
        model.discriminator.train()
        alone = [model.discriminator(one[None]) for one in made]
        yield "logit_disc_train_batch1", torch.cat(alone)
        for name, value in model.discriminator.named_buffers():
            value.copy_(statistics[name])

    def training(self) -> Computed:
        """Three steps of both networks, with the masks that the authors' code has drawn."""
        model, images = self.method.model.train(), self.trained
        of_generator, of_discriminator = self.method.configure_optimizers()
        masks, found = self.masks(), []
        with patch.object(memory, "drawn", lambda _maps: next(masks)):
            for step in range(len(self.golden["train_losses"])):
                judged = model.discriminator_loss(images, model.generator(images))
                _step(of_discriminator, judged)
                made = model.generator(images)
                losses = model.generator_loss(images, made)
                total = torch.stack(losses).sum()
                _step(of_generator, total, take=False)
                if not step:
                    yield from self.gradients()
                of_generator.step()
                model.generator.inpaint_block.push(made.asked.detach())
                found.append([one.item() for one in (judged, *losses, total)])
        yield "train_losses", found
        yield "first_losses", found[0]

    def gradients(self) -> Computed:
        """Norms of gradients of parts of the generator."""
        generator = self.method.model.generator
        teacher = [*generator.teacher_ups.parameters(), *generator.teacher_out.parameters()]
        yield "gradnorm_AE", _norm(generator.parameters())
        yield "gradnorm_inpaint", _norm(generator.inpaint_block.parameters())
        yield "gradnorm_teacher", _norm(teacher)

    def masks(self):
        """What is kept at each place, in the order in which it was drawn."""
        for number in range(2 * len(self.golden["train_losses"])):
            for place in range(int(self.golden["masks_count_per_pass"])):
                yield self.array(f"mask_{number}_{place}").float()

    @cached_property
    def method(self) -> SQUID:
        """The model with the case's initial weights."""
        meta = self.meta
        method = SQUID(
            image_size=meta["image_size"],
            features=meta["features_root"],
            slots=meta["num_slots"],
            part_slots=meta["mem_num_slots"],
            distillation=meta["loss_weights"]["dist_w"],
        )
        state = {_ours(name): value for name, value in drawn_weights(meta).items()}
        found = method.model.load_state_dict(state, strict=False)
        assert not found.unexpected_keys
        return method

    @property
    def trained(self) -> Tensor:
        return self.array("train").float()

    @property
    def tested(self) -> Tensor:
        return self.array("test").float()

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


def _ours(name: str) -> str:
    """The name of a weight here."""
    name = re.sub(r"^D\.", "discriminator.", re.sub(r"^AE\.", "generator.", name))
    name = re.sub(r"\.(mpconv|conv)\.(?=conv\d|weight|bias)", ".", name)
    deeper = {"2": "1", "3": "0"}
    name = re.sub(
        r"memory_blocks\.(\d)\.memory\.(\d)\.memMatrix",
        lambda found: f"memories.{deeper[found[1]]}.rows.{found[2]}",
        name,
    )
    return name.replace("memMatrix", "rows")


def _step(optimizer, loss: Tensor, *, take: bool = True) -> None:
    optimizer.zero_grad()
    loss.backward()
    if take:
        optimizer.step()


def _norm(parameters) -> Tensor:
    found = [one.grad.norm() for one in parameters if one.grad is not None]
    return torch.stack(found).norm()
