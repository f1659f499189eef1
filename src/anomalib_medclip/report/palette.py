"""One colour for each model, in every chart and in the gallery."""

from collections.abc import Sequence

# Okabe and Ito (2008), without black and yellow, which vanish on a dark and on a light page.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def colours(models: Sequence[str]) -> dict[str, str]:
    """Colour of each model, as ``#RRGGBB``, told apart also by the colour-blind.

    The seventh model begins anew, so colour is never the only cue.

    >>> colours(["MVFA", "MadCLIP"])
    {'MVFA': '#0072B2', 'MadCLIP': '#E69F00'}
    """
    names = dict.fromkeys(models)
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
