"""What all charts have in common: how a row looks, an empty figure, a figure as JSON."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from plotly import io
from plotly.subplots import make_subplots

from anomalib_medclip.files import from_json
from anomalib_medclip.report.palette import colours
from anomalib_medclip.report.rows import Chart, Estimate, ReportRow

GREY = "#888888"
"""Of what is no model: chance, and what links two dots."""

_FEWEST_TICKS = 3
_FAINT = "rgba(128,128,128,0.25)"
_CLEAR = "rgba(0,0,0,0)"
_SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "x",
    "pentagon", "bowtie", "hourglass",
)  # fmt: skip
_GLYPHS = "●■◆▲✚★⬢▼✖⬟⧓⧗"
"""The same marks as letters: only after 36 rows a mark and one of nine colours come together."""

PERCENT = ".1~%"
"""plotly's format of shares: in percent, as in the table."""


class SeriesStyle(NamedTuple):
    """How a row is told from others: never by colour alone."""

    colour: str
    symbol: str
    glyph: str

    @property
    def mark(self) -> str:
        """The mark in its colour, as plotly's text has it."""
        return f'<span style="color:{self.colour}">{self.glyph}</span>'

    @property
    def veil(self) -> str:
        """The colour, nearly clear."""
        red, green, blue = (int(self.colour[place : place + 2], 16) for place in (1, 3, 5))
        return f"rgba({red},{green},{blue},0.15)"


def styles_of(rows: Sequence[ReportRow]) -> dict[str, SeriesStyle]:
    """Style of each label: the model's colour, trivial models grey; a mark of its own."""
    colour = colours([row.model for row in rows])
    names = {row.label: row for row in rows}
    return {
        name: SeriesStyle(
            GREY if row.kind == "trivial" else colour[row.model],
            _SYMBOLS[place % len(_SYMBOLS)],
            _GLYPHS[place % len(_GLYPHS)],
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
        showlegend=False,  # lines and points are named where they are
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


def name_in_corner(
    figure: Any,  # noqa: ANN401 - plotly's
    names: Sequence[str],
    styles: Mapping[str, SeriesStyle],
) -> None:
    """Name the lines of the first panel, in their order, in its empty lower right corner."""
    text = "<br>".join(f"{styles[name].mark} {shortened(name)}" for name in names)
    figure.add_annotation(
        text=text, x=0.985, y=0.02, xref="x", yref="y", xanchor="right", yanchor="bottom",
        align="left", showarrow=False, font_size=12 if len(names) <= 8 else 10, name="lines",
    )  # fmt: skip


def name_at_ends(
    figure: Any,  # noqa: ANN401 - plotly's
    column: int,
    ends: Mapping[str, tuple[float, float]],
    styles: Mapping[str, SeriesStyle],
    gap: float,
) -> None:
    """Name lines at their right ends, moved apart where they would stand on one another.

    Args:
        figure: The figure.
        column: Of the panel, from 1.
        ends: Place of each end, as the axes have it: of a logarithmic one, the logarithm.
        styles: By name.
        gap: The least distance of two names.
    """
    heights = apart([y for _, y in ends.values()], gap)
    axis = "" if column == 1 else str(column)
    for (name, (x, _)), y in zip(ends.items(), heights, strict=True):
        figure.add_annotation(
            text=f"{styles[name].mark} {shortened(name)}", x=x, y=y, xref=f"x{axis}",
            yref=f"y{axis}", xanchor="left", xshift=10, showarrow=False, font_size=12,
            align="left", name="lines",
        )  # fmt: skip


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in the same order, moved so that no two are closer than so much.

    >>> apart([0.5, 0.5, 0.9], 0.1)
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    groups: list[tuple[float, list[int]]] = []  # middle, and who stands around it
    for place in order:
        groups.append((heights[place], [place]))
        while len(groups) > 1 and _touch(groups[-2], groups[-1], gap):
            _, last = groups.pop()
            _, before = groups.pop()
            joined = [*before, *last]
            groups.append((sum(heights[one] for one in joined) / len(joined), joined))
    found = dict.fromkeys(order, 0.0)
    for middle, places in groups:
        for step, place in enumerate(places):
            found[place] = round(middle + gap * (step - (len(places) - 1) / 2), 6)
    return [found[place] for place in range(len(heights))]


def _touch(lower: tuple[float, list[int]], upper: tuple[float, list[int]], gap: float) -> bool:
    needed = gap * (len(lower[1]) + len(upper[1])) / 2
    return upper[0] - lower[0] < needed - 1e-9


def shortened(name: str, most: int = 26) -> str:
    """A name of at most so many letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks and range of a logarithmic axis: round numbers, in the widest steps that give three.

    >>> log_ticks([0.03, 0.4])["ticktext"], log_ticks([7, 12])["ticktext"]
    (['0.02', '0.05', '0.1', '0.2', '0.5'], ['6', '8', '10'])
    """
    low, high = min(values), max(values)
    pad = 0.12 * math.log10(high / low) + 0.05
    ends = [math.log10(low) - pad, math.log10(high) + pad]
    powers = range(math.floor(ends[0]), math.ceil(ends[1]))
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8), (1, 1.2, 1.5, 2, 2.5, 3, 4, 6, 8)):
        every = (step * 10.0**power for power in powers for step in steps)
        ticks = [tick for tick in every if ends[0] < math.log10(tick) < ends[1]]
        if len(ticks) >= _FEWEST_TICKS:
            break
    words = [f"{tick:,.0f}" if tick >= 1000 else f"{tick:.4g}" for tick in ticks]
    return {"tickvals": ticks, "ticktext": words, "range": ends, "tickangle": 0}


def name_places(
    points: Sequence[tuple[float, float]], names: Sequence[str], size: tuple[int, int] = (450, 320)
) -> list[str]:
    """On which side of its point each name stands, so that as few as can be meet.

    Args:
        points: Across and up, each from 0 to 1 of the panel.
        names: What stands beside them.
        size: Width and height of the panel, in pixels, about.

    Returns:
        ``textposition`` of plotly for each.

    Example:
        >>> name_places([(0.5, 0.5), (0.5, 0.52)], ["MVFA", "MadCLIP"])
        ['bottom center', 'top center']
    """
    width, height = size
    centres = [(x * width, y * height) for x, y in points]
    taken = [(x - 16, y - 16, x + 16, y + 16) for x, y in centres]  # the marks themselves
    found = [""] * len(points)
    for place in sorted(range(len(points)), key=lambda one: -points[one][1]):
        (x, y), half = centres[place], 3.2 * len(names[place])
        boxes = {
            "top center": (x - half, y + 17, x + half, y + 31),
            "bottom center": (x - half, y - 31, x + half, y - 17),
            "middle right": (x + 18, y - 7, x + 18 + 2 * half, y + 7),
            "middle left": (x - 18 - 2 * half, y - 7, x - 18, y + 7),
        }
        side = min(boxes, key=lambda one: _meets(boxes[one], taken))
        taken.append(boxes[side])
        found[place] = side
    return found


def _meets(box: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> int:
    """How many boxes one has a part in common with."""
    left, low, right, high = box
    return sum(left < c and a < right and low < d and b < high for a, b, c, d in others)


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
