"""One colour per model, the same in charts, table and gallery."""

from collections.abc import Sequence

# Okabe and Ito's, without black and yellow, which vanish on a dark and on a light page; then three
# of Tol's of the same lightness. Grey is for what learns nothing.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#AA4499",
    "#999933",
    "#EE3377",
)


def colours(models: Sequence[str]) -> dict[str, str]:
    """A colour for each model, in their order, told apart also by the colour-blind.

    Beyond nine models colours come again, so a chart needs a second cue: a marker, a dash, a name.

    >>> colours(["MVFA", "MadCLIP", "MVFA"])
    {'MVFA': '#0072B2', 'MadCLIP': '#D55E00'}
    """
    distinct = dict.fromkeys(models)
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(distinct)}
