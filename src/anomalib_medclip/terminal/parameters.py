"""How much of a model learns, in one line in place of Lightning's table."""

import logging
from typing import Any

from lightning.pytorch.callbacks import RichModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count

logger = logging.getLogger(__name__)


class Parameters(RichModelSummary):
    """Takes the place of the summary that Lightning makes where nobody has chosen any.

    Lightning's counts products while images pass, of which a table before training knows none.
    """

    @staticmethod
    def summarize(
        summary_data: Any,  # noqa: ANN401 - Lightning's table
        total_parameters: int,
        trainable_parameters: int,
        *rest: Any,  # noqa: ANN401 - sizes and modes
        **options: Any,  # noqa: ANN401 - of the table
    ) -> None:
        """Say it."""
        del summary_data, rest, options
        learn, all_of_them = map(get_human_readable_count, (trainable_parameters, total_parameters))
        logger.info("%s of %s parameters learn", learn.strip(), all_of_them.strip())
