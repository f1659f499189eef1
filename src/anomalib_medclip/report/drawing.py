"""What all charts have in common: how a row looks, an empty figure, a figure as JSON."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from plotly import io
from plotly.subplots import make_subplots

from anomalib_medclip.files import from_json
from anomalib_medclip.report.palette import colours
from anomalib_medclip.report.rows import Chart, Estimate, ReportRow

GREY = "#888888"
"""Of what is no model: chance, and what links two dots."""

_FAINT = "rgba(128,128,128,0.25)"
_CLEAR = "rgba(0,0,0,0)"
_SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "x",
    "pentagon", "bowtie", "hourglass",
)  # fmt: skip
# Seven, so that only after 63 rows nine colours and dashes come together again.
_DASHES = (
    "solid", "dash", "dashdot", "longdash", "longdashdot", "12px,3px,3px,3px,3px,3px", "24px,3px",
)  # fmt: skip


class SeriesStyle(NamedTuple):
    """How a row is told from others: never by colour alone."""

    colour: str
    symbol: str
    dash: str

    @property
    def veil(self) -> str:
        """The colour, nearly clear."""
        red, green, blue = (int(self.colour[place : place + 2], 16) for place in (1, 3, 5))
        return f"rgba({red},{green},{blue},0.15)"


def styles_of(rows: Sequence[ReportRow]) -> dict[str, SeriesStyle]:
    """Style of each label: the model's colour, trivial models grey; symbol and dash its own."""
    colour = colours([row.model for row in rows])
    names = {row.label: row for row in rows}
    return {
        name: SeriesStyle(
            GREY if row.kind == "trivial" else colour[row.model],
            _SYMBOLS[place % len(_SYMBOLS)],
            _DASHES[place % len(_DASHES)],
        )
        for place, (name, row) in enumerate(names.items())
    }


def by_test(rows: Sequence[ReportRow]) -> Iterator[tuple[str, list[ReportRow]]]:
    """Each test set, with its rows that have any figure."""
    for test in dict.fromkeys(row.tested_on for row in rows):
        yield test, [row for row in rows if row.tested_on == test and row.honest]


def shots_of(rows: Sequence[ReportRow]) -> list[int]:
    """Every K of the rows, ascending; empty where none has one."""
    return sorted({row.k_shot for row in rows if row.k_shot is not None})


def by_largest_k(rows: Sequence[ReportRow]) -> Iterator[tuple[str, list[ReportRow]]]:
    """Each test set, with its rows of the largest K and those that have no K."""
    for test, here in by_test(rows):
        yield test, [row for row in here if row.k_shot in (None, *shots_of(here)[-1:])]


def heading(test: str, rows: Sequence[ReportRow]) -> str:
    """A test set, and the largest K of its rows if they have one."""
    return ", K = ".join([test, *(str(k) for k in shots_of(rows)[-1:])])


def canvas(titles: Sequence[str], height: int = 420, **options: Any) -> Any:  # noqa: ANN401 - plotly's
    """An empty figure with a panel for each title, side by side unless the options say otherwise.

    It has no colours of text and ground, so that the page decides between light and dark.
    """
    figure = make_subplots(subplot_titles=titles, **{"rows": 1, "cols": len(titles), **options})
    figure.update_layout(
        template=None,
        height=height,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        margin={"l": 60, "r": 20, "t": 40, "b": 60},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "bgcolor": _CLEAR},
    )
    axis = {"gridcolor": _FAINT, "linecolor": GREY, "zeroline": False, "automargin": True}
    figure.update_xaxes(**axis, title_standoff=8)
    figure.update_yaxes(**axis, title_standoff=8)
    figure.update_annotations(font_size=14)
    return figure


def figure_as_json(figure: Any) -> dict[str, Any]:  # noqa: ANN401 - plotly's
    """The figure as plain JSON, numbers in four digits."""

    def four_digits(text: str) -> float:
        return float(f"{float(text):.4g}")

    plain: dict[str, Any] = from_json(io.to_json(figure), parse_float=four_digits)
    plain["layout"].pop("template", None)
    return plain


def whiskers(
    places: Sequence[Any], estimates: Sequence[Estimate]
) -> tuple[list[Any], list[float | None]]:
    """Intervals as lines from low to high, with gaps between them."""
    along: list[Any] = []
    across: list[float | None] = []
    for place, estimate in zip(places, estimates, strict=True):
        if estimate.low is not None and estimate.high is not None:
            along += [place, place, None]
            across += [estimate.low, estimate.high, None]
    return along, across


def estimate_in_words(estimate: Estimate) -> str:
    """An estimate with its interval, in three digits.

    >>> estimate_in_words(Estimate(0.9123, 0.85, 0.95, (0.9, 0.9246)))
    '0.912 (0.850 to 0.950)'
    """
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def identifier(*parts: object) -> str:
    """A name for the page, of letters, digits and underscores.

    >>> identifier("gap", "Brain MRI", 4)
    'gap_Brain_MRI_4'
    """
    return "_".join(re.sub(r"\W+", "_", str(part), flags=re.ASCII) for part in parts)


def finished(section: str, of: str, figure: Any, title: str, caption: str, alt: str) -> Chart:  # noqa: ANN401 - plotly's
    """A chart for the page.

    Args:
        section: Which one it stands in.
        of: What tells it from others of its section.
        figure: As plotly holds it.
        title: Heading, with which the alternative text begins, too.
        caption: How to read it.
        alt: Its figures in words.
    """
    name = identifier(section, of)
    return Chart(name, section, title, caption, f"{title}. {alt}.", figure_as_json(figure))


def notes(rows: Sequence[ReportRow]) -> str:
    """What the daggers of labels mean, where there are any."""
    return " † Backbone with random weights." if any(row.untrained for row in rows) else ""
