"""Charts of the embeddings that ``compare --explain`` found."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from plotly import graph_objects
from plotly.subplots import make_subplots
from scipy.spatial.distance import cdist

from anomalib_medclip.compare.cell_record import ComparisonGrid
from anomalib_medclip.compare.store import Store
from anomalib_medclip.files import from_json
from anomalib_medclip.report.explanations import CLASSES, FoundExplanation, explanations_in
from anomalib_medclip.report.rows import Chart

_MARKS = (("#0072b2", "circle"), ("#d55e00", "diamond"))  # told apart without colours, too


def embedding_charts(store: Store, grid: ComparisonGrid) -> list[Chart]:
    """A chart for each model, set and K with embeddings: a panel for each kind of vectors.

    A point is an image, blue if normal; methods with a vector for what is normal and one for what
    is abnormal have two points an image. Places are those of ``compare``'s t-SNE.
    """
    found = explanations_in(store, grid)
    return [_chart(f"explain_{n}", one) for n, one in enumerate(found) if one.part.embeddings]


def _chart(name: str, found: FoundExplanation) -> Chart:
    """Panels of points, an image each or two, and in words how many lie beside their own class."""
    part = found.part
    label = np.array([found.images.label[number] for number in part.embedded])
    places = {words: found.arrays[array] for words, array in part.embeddings.items()}
    columns = min(2, len(places))
    figure = make_subplots(-(-len(places) // columns), columns, subplot_titles=list(places))
    for panel, points in enumerate(places.values()):
        row, column = divmod(panel, columns)
        for trace in _traces(points, label, part.embedded):
            known = {other.name for other in figure.data}
            trace.showlegend = trace.name not in known
            figure.add_trace(trace, row + 1, column + 1)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template=None,  # the page's own, light or dark
        height=120 + 320 * -(-len(places) // columns),
        legend={"orientation": "h", "y": -0.05},
    )
    return Chart(
        name=name,
        section="explain",
        title=f"Embeddings of {found.heading}",
        caption=f"t-SNE of {len(label)} test images ({found.draw}), with the same options in "
        "each panel. Points that lie close are alike; axes, and distances between groups, mean "
        "nothing.",
        alt=" ".join(_neighbours(words, points, label) for words, points in places.items()),
        figure=from_json(figure.to_json()),
    )


def _traces(
    points: Float[np.ndarray, "image vector 2"], label: np.ndarray, numbers: tuple[int, ...]
) -> Iterator[graph_objects.Scatter]:
    """Points by class of the image and, where there are two, by what their vector stands for."""
    for vector in range(points.shape[1]):
        for of_class, (colour, symbol) in enumerate(_MARKS):
            chosen = np.flatnonzero(label == of_class)
            two = points.shape[1] > 1
            name = f"{CLASSES[of_class]} image" + two * f", its {CLASSES[vector]} vector"
            x, y = points[chosen, vector].round(3).T.tolist()
            yield graph_objects.Scatter(
                x=x,
                y=y,
                mode="markers",
                name=name,
                legendgroup=name,
                marker={"color": colour, "symbol": symbol + "-open" * (two and not vector)},
                text=[f"image {numbers[n] + 1}" for n in chosen.tolist()],
                hovertemplate="%{text}",
            )


def _neighbours(words: str, points: Float[np.ndarray, "image vector 2"], label: np.ndarray) -> str:
    """How many images lie nearest to one of their own class, all vectors of an image counted."""
    own = []
    for vector in range(points.shape[1]):
        distance = cdist(points[:, vector], points[:, vector])
        np.fill_diagonal(distance, np.inf)
        own.append(label[distance.argmin(axis=1)] == label)
    counts = [
        f"{np.sum(np.array(own)[:, label == n])} of {len(own) * np.sum(label == n)} {word}"
        for n, word in enumerate(CLASSES)
    ]
    return f"{words}: {' and '.join(counts)} points lie nearest to a point of their own class."
