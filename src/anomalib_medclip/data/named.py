"""Names of data, which are folders in results."""

import logging
from functools import cache, wraps
from typing import Any

from anomalib.data import AnomalibDataModule

from anomalib_medclip.option_checks import checked_name

logger = logging.getLogger(__name__)

ZERO_SHOT = "zero_shot"
"""Folder of runs of zero-shot data, below that of name and category."""


class NamedDataModule(AnomalibDataModule):
    """A data module whose results stay in their folder, whatever it is called.

    Runs of zero-shot data have one of their own: a model that has never seen the tested set, and
    one that has learnt from it, would else take turns in ``v0``, ``v1``, and ``latest`` would lead
    to either.

    Attributes:
        data_name: Name in results.
        zero_shot: Whether the images learnt from are of other sets than those to score.
    """

    data_name: str = ""
    zero_shot: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's
        super().__init__(*args, **kwargs)
        if self.zero_shot:
            _keep_apart()

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning says None, anomalib wants this
        """Name of the data in results, by default that of the class.

        Raises:
            ConfigError: It, or the category, whose folder lies within, would lead elsewhere.
        """
        if self.category:
            checked_name("category", self.category)
        return checked_name("name", self.data_name or type(self).__name__)

    @property
    def where(self) -> str:
        """What error messages call these data."""
        return " ".join(part for part in (self.name, self.category) if part)


class _Apart:
    """Zero-shot data as anomalib's engine is shown them, where it names a run's folder."""

    def __init__(self, data: NamedDataModule) -> None:
        self._data = data

    @property
    def category(self) -> str:
        """With the folder of zero-shot runs."""
        return "/".join(filter(None, (self._data.category, ZERO_SHOT)))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else is asked
        return getattr(self._data, name)


@cache
def _keep_apart() -> None:
    """Let anomalib's engine put runs of zero-shot data into their folder, once for all engines.

    It names the folder by name and category alone, by which its visualizer finds images, too; so
    these stay as they are. All other data pass through as they came.
    """
    from anomalib.engine import Engine  # which data that are only checked do without

    anyones: Any = Engine
    set_up = getattr(anyones, "_setup_workspace", None)
    if set_up is None:  # it is no public one
        logger.warning(
            "this version of anomalib lets nobody name a run's folder: zero-shot and few-shot runs "
            "of one set share theirs, so name checkpoints by v0, v1, and not by latest"
        )
        return

    @wraps(set_up)
    def set_up_apart(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - anomalib's
        return set_up(*map(_shown, args), **{name: _shown(one) for name, one in kwargs.items()})

    anyones._setup_workspace = set_up_apart


def _shown(given: Any) -> Any:  # noqa: ANN401 - any argument
    is_apart = isinstance(given, NamedDataModule) and given.zero_shot
    return _Apart(given) if is_apart else given
