"""What of a method's work is done once, and kept."""

from collections import Counter
from typing import Any

import torch
from anomalib.data import Folder
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_medclip.errors import EmptySplitError
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import hold, of_learning, refused
from anomalib_medclip.testing.promises.watching import Encoded, Steps, Work


def encodes_no_image_twice(case: MethodCase) -> None:
    """The frozen tower sees each image of training and validation once in a whole run."""
    seen = Encoded()
    with case.home() as home:
        options: dict[str, Any] = {"epoch_choice": "validation", "trainer": {"callbacks": [seen]}}
        trained = case.fit(home, epochs=2, **options)
    learnt_from_, validated = len(trained.data.train_data), len(trained.data.val_data)
    first, *later = seen.counts  # of an image that comes several times as it is, once
    hold(
        first >= learnt_from_ // trained.model.copies + validated,
        f"the first epoch encodes {first} images",
    )
    wanted = {learnt_from_ if trained.model.makes_images else 0}
    hold(set(later) == wanted, f"later epochs encode {later}, and should {wanted}")


def runs_nothing_again_that_cannot_have_changed(case: MethodCase) -> None:
    """Later epochs run no block but those that ``score`` runs, and no text that does not learn."""
    work = Work()
    with case.home() as home:
        options: dict[str, Any] = {"epoch_choice": "validation", "trainer": {"callbacks": [work]}}
        trained = case.fit(home, epochs=2, **options)
    model, steps = trained.model.model, trained.engine.trainer.num_training_batches
    hold(work.epochs[0].keys() >= set(range(1, model.levels[-1] + 1)), "the first epoch encodes")
    with torch.no_grad():
        encoded = model.encode(torch.rand(1, 3, case.side, case.side))
        needed: Counter[Any] = Counter()
        work.now = needed
        model.score(encoded, model.known_text())
    for blocks in work.epochs[1:]:
        texts = blocks.pop("text", 0)
        wanted = steps + 1 if model.prompts.learns else 0  # a step each, and once for validation
        hold(texts == wanted, f"texts are read {texts} times in an epoch, and should {wanted}")
        if trained.model.makes_images:
            hold(set(blocks.values()) == {steps}, "validation images are encoded again")
        else:
            again, needs = sorted(blocks), sorted(needed)
            hold(again == needs, f"blocks {again} run, and of encoded images {needs} are needed")


@of_learning
def encodes_nothing_again_for_the_threshold(case: MethodCase) -> None:
    """Where thresholds come from the support, its images are not encoded a second time."""
    seen = Encoded()
    with case.home() as home:
        data, watched = case.data(val_ratio=0.1), {"callbacks": [seen]}
        case.fit(home, epochs=2, data=data, trainer=watched, cross_fit=False)
    hold(data.validates_on_support, "thresholds come from elsewhere")
    paths = [{*data.train_data.samples["image_path"]}, {*data.val_data.samples["image_path"]}]
    hold(seen.counts[0] >= len(paths[0]), f"the first epoch encodes {seen.counts[0]}")
    # One that makes new images of them in every epoch has not seen themselves.
    anew = sum(map(len, paths)) if case.small().makes_images else len(paths[1] - paths[0])
    hold(seen.counts[1] == anew, f"the last epoch encodes {seen.counts[1]}, and should {anew}")


@of_learning
def learns_the_same_with_and_without_a_cache(case: MethodCase) -> None:
    """Kept features change no loss, no gradient and no score; rounded ones by their rounding."""
    runs: dict[str, Steps] = {}
    for kept in ("off", "float32", "float16"):
        runs[kept] = Steps()
        with case.home() as home:
            options: dict[str, Any] = {
                "epoch_choice": "validation",
                "trainer": {"callbacks": [runs[kept]]},
            }
            data = case.data(train_batch_size=8)
            case.fit(home, epochs=2, cache=kept, data=data, **options)
    without, second = runs["off"], len(runs["off"].losses) // 2
    for kept, allowed, steps in (("float32", 1e-6, (0, second)), ("float16", 5e-3, (0,))):
        found = runs[kept]
        for step in steps:  # the second epoch reads what is kept
            torch.testing.assert_close(
                without.losses[step], found.losses[step], atol=allowed, rtol=allowed
            )
            expected, gradients = without.gradients[step], found.gradients[step]
            hold(expected.keys() == gradients.keys(), "other parameters have gradients")
            for name, gradient in expected.items():
                apart = (gradient - gradients[name]).norm()
                hold(apart <= allowed * max(1, gradient.norm()), f"{kept}: gradient of {name}")
    torch.testing.assert_close(without.scores, runs["float32"].scores, atol=1e-4, rtol=0)


def keeps_nothing_that_others_augment_by_chance(case: MethodCase) -> None:
    """Anomalib's own data may change an image in every epoch: then it is encoded in every epoch."""
    data = Folder(
        name="other", root=case.lesions, normal_dir="images/normal",
        abnormal_dir="images/abnormal", train_batch_size=4, eval_batch_size=4, num_workers=0,
        train_augmentations=RandomHorizontalFlip(),
    )  # fmt: skip
    words = {"object_name": "square"} if case.method.names_the_object else {}
    seen = Encoded()
    with case.home() as home:
        engine = case.engine(home, max_epochs=2, callbacks=[seen], limit_val_batches=0)
        if case.method.needs_abnormal:
            with refused(EmptySplitError, "are all normal"):
                engine.fit(case.small(**words), datamodule=data)
            return
        engine.fit(case.small(**words), datamodule=data)
    hold(seen.counts[1] >= len(data.train_data) > 0, f"epochs encode {seen.counts} images")
