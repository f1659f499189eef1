"""A baseline under Lightning and anomalib: the options of all methods, but those of CLIP."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

from anomalib_medclip.baselines.common.network_source import NetworkSource
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.components.augmentation import Copies, unchanged
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.training.method import ClipMethod

_OF_CLIP = (
    "quick_gelu", "precision", "levels", "loss_weights", "object_name", "prompts", "adapters",
)  # fmt: skip


class Baseline(ClipMethod):
    """A rival that is no CLIP method; it derives from this and, after it, from ``AnomalibModule``.

    Its constructor gives ``backbone``, ``pretrained`` and ``image_size`` defaults of its own, and
    passes the options on that it does not know. Where it has no use for one of these either, it
    names it in ``no_use_for``, and gives its constant.

    Args:
        normalize: Apply the mean and deviation that the weights were trained with, or ImageNet's.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Attributes:
        no_use_for: Shared options that it does not take.
        begins_random: Whether random weights are as published, where there is no file of others.
        source: What kind of network its backbone is.
        backbone: Which network, and how images enter it.

    Raises:
        ConfigError: It has no use for an option.
    """

    no_use_for: ClassVar[Iterable[str]] = _OF_CLIP
    begins_random: ClassVar[bool] = False
    source: ClassVar[type[NetworkSource]] = NetworkSource
    augmentations = Copies.alike((unchanged,))
    default_batch_size = 8
    names_the_object = False
    wants_abnormal = False
    backbone: NetworkSource  # type: ignore[assignment]  # what is asked of a backbone here, it has

    def __init__(
        self,
        normalize: bool = True,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        self._refuse(kwargs, _OF_CLIP)
        super().__init__(
            normalize=normalize,
            quick_gelu=False,
            precision="fp32",
            levels=None,
            loss_weights=None,
            object_name=None,
            prompts=None,
            adapters=None,
            **kwargs,
        )
        for name in self.no_use_for:
            self.hparams.pop(name, None)

    @property
    def untrained(self) -> bool:
        """Whether its network has random weights where trained ones belong."""
        return not self.begins_random and self.hparams.get("pretrained", "") is None

    @classmethod
    def _refuse(cls, given: Iterable[str], names: Iterable[str]) -> None:
        """Refuse options by name."""
        for name in sorted({*given} & {*names}):
            msg = f"{cls.__name__} has no use for {name}; leave {name} out"
            raise ConfigError(msg)

    @classmethod
    def settled(cls, backbone: Backbone) -> Any:  # noqa: ANN401 - a NetworkSource, for a Backbone
        """The network, in the place of a CLIP."""
        model = cast("Any", backbone.model)
        entry = backbone.pretrained, backbone.image_size, backbone.normalize, backbone.seed
        return cls.source(model, *entry)
