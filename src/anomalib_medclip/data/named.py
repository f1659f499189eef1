"""Names of data, which are folders in results."""

import inspect
from functools import wraps
from typing import Any

from anomalib.data import AnomalibDataModule

from anomalib_medclip.option_checks import checked_name

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
    """What anomalib asks of zero-shot data to name a run's folder."""

    def __init__(self, data: NamedDataModule) -> None:
        self.name = data.name
        self.category = "/".join(filter(None, (data.category, ZERO_SHOT)))


def _keep_apart() -> None:
    """Let anomalib's engine put runs of zero-shot data into their folder.

    It names the folder by name and category alone, by which its visualizer finds images, too; so
    these stay as they are.
    """
    from anomalib.engine import Engine  # which data that are only checked do without

    set_up: Any = Engine._setup_workspace
    if hasattr(set_up, "__wrapped__"):
        return
    signature = inspect.signature(set_up)

    @wraps(set_up)
    def set_up_apart(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's
        given = signature.bind(*args, **kwargs)
        data = given.arguments.get("datamodule")
        if isinstance(data, NamedDataModule) and data.zero_shot:
            given.arguments["datamodule"] = _Apart(data)
        set_up(*given.args, **given.kwargs)

    vars_of: Any = Engine
    vars_of._setup_workspace = set_up_apart
