import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest
from compare_results import write_results
from matplotlib import colormaps
from PIL import Image

from anomalib_medclip.compare.dataset_result import NearestPatch
from anomalib_medclip.compare.explanation import Explanation
from anomalib_medclip.report import explain
from anomalib_medclip.report.embedding_charts import embedding_charts
from anomalib_medclip.report.explain import section
from anomalib_medclip.report.explanations import explanations_in

LEVELS = (6, 12)
SIDE = 24
SECRET = "Ann <Lee>.png"


def made_up(few_shot=True, shown=(1, 0), masks=True, seed=0):
    """An explanation by chance: two levels, a patch grid of 4, twelve images embedded."""
    random = np.random.default_rng(seed)

    def pixels(*shape):
        return random.integers(0, 256, shape, dtype=np.uint8)

    def match(level):
        return NearestPatch(
            level=level, distance=0.25, mean=0.125, patch=(1, 2), support=1, copy=level // 12,
            support_patch=None if level == 12 else (3, 0), picture=0,
        )  # fmt: skip

    count, branches = len(shown), ("text", "memory") if few_shot else ("text",)
    outlines = np.zeros((count, SIDE, SIDE), np.uint8)
    outlines[0, 6:18, 6:18] = 255
    return Explanation(
        shown=shown,
        embedded=tuple(range(12)),
        levels=LEVELS,
        grid=4 * few_shot,
        pictures=pixels(count, SIDE, SIDE, 3) // 3,
        masks=outlines if masks else None,
        maps=pixels(count, SIDE, SIDE),
        level_maps={name: pixels(count, len(LEVELS), SIDE, SIDE) for name in branches},
        nearest=tuple(tuple(map(match, LEVELS)) for _ in shown) if few_shot else (),
        support=("normal one.png", SECRET) if few_shot else (),
        support_pictures=pixels(1 if few_shot else 0, SIDE, SIDE, 3),
        embeddings={
            "without adapters": random.normal(size=(12, 1, 2)).astype(np.float32),
            "query embeddings": random.normal(size=(12, 2, 2)).astype(np.float32),
        },
    )


def add(store, key, explanation):
    """Write an explanation into the first test of a record."""
    record = store.record(key)
    (test,) = record.tests
    found, arrays = explanation.as_record("test0_explain", range(len(test.images.name)))
    record = replace(record, tests=(replace(test, explain=found),))
    store.write(key, record, {**store.arrays(key), **arrays})


def keys_of(store, model):
    return [cell.key for cell in store.grid().cells if cell.model == model]


@pytest.fixture
def store(tmp_path):
    return write_results(tmp_path, shots=(4,), tests=("heads",))


@pytest.fixture
def explained(store):
    add(store, keys_of(store, "MVFA")[0], made_up())
    return store


class Pictures(HTMLParser):
    """The pictures of a page: source and alt text."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


def decoded(source):
    kind, _, data = source.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def captioned(page, words):
    """The first picture above a caption."""
    before = page.split(f"<figcaption>{words}</figcaption>")[0]
    return decoded(Pictures(before).found[-1]["src"]).astype(int)


def test_without_explanations_there_is_no_section(store):
    assert section(store, store.grid(), names=True) == ""
    assert embedding_charts(store, store.grid()) == []


def test_every_picture_is_in_the_page_and_has_words(explained):
    page = section(explained, explained.grid(), names=False)
    pictures = Pictures(page).found
    # For each of two images: itself, its map, two branches of two levels, two pairs; and the scale.
    assert len(pictures) == 1 + 2 * (2 + 4 + 4)
    assert all(len(picture["alt"]) > 20 for picture in pictures)
    for picture in pictures[1:]:
        assert decoded(picture["src"]).shape == (120, 120, 3)
    assert "http" not in page
    assert "MVFA on heads, K = 4" in page


def test_no_file_is_named_unless_asked_for(explained):
    name = explained.record(keys_of(explained, "MVFA")[0]).tests[0].images.name[1]
    page = section(explained, explained.grid(), names=False)
    drawn = json.dumps([chart._asdict() for chart in embedding_charts(explained, explained.grid())])
    for secret in (name, "Ann", "normal one.png"):
        assert secret not in page
        assert secret not in drawn
    named = section(explained, explained.grid(), names=True)
    assert name in named
    assert "Ann &lt;Lee&gt;.png" in named
    assert "<Lee>" not in named


def test_a_heat_map_has_the_colours_of_its_values_whatever_else_is_shown(store):
    found = made_up(few_shot=False, masks=False)
    found.maps[0], found.level_maps["text"][0, 0] = 255, 128
    add(store, keys_of(store, "MVFA")[0], found)
    page = section(store, store.grid(), names=False)
    for words, value in (("all levels", 255), ("text, level 6", 128)):
        colour = np.array(colormaps["inferno"](value, bytes=True)[:3], int)
        assert np.abs(captioned(page, words) - colour).max() < 12
    assert "mean 1.00, highest 1.00" in page


def test_the_words_of_a_map_compare_the_lesion_with_the_rest(store):
    found = made_up()
    found.maps[0] = np.where(found.masks[0] > 0, 204, 51)
    add(store, keys_of(store, "MVFA")[0], found)
    page = section(store, store.grid(), names=False)
    assert "Heat map of image 2, all levels: mean 0.80 inside the outline, 0.20 outside" in page


def test_the_outline_lies_on_the_lesion(store):
    found = made_up(few_shot=False)
    found.pictures[0] = 0
    add(store, keys_of(store, "MVFA")[0], found)
    picture = captioned(section(store, store.grid(), names=False), "image")
    blue = picture[..., 2] > 120
    assert blue[30:90, 30].all()
    assert blue[30, 30:90].all()
    assert not blue[:25].any()
    assert not blue[40:80, 40:80].any()


def test_a_pair_marks_both_patches_and_says_whose_they_are(store):
    found = made_up()
    found.pictures[:], found.support_pictures[:] = 0, 0
    add(store, keys_of(store, "MVFA")[0], found)
    page = section(store, store.grid(), names=False)
    query = captioned(page, "level 6: distance 0.250, mean of all patches 0.125")
    support = captioned(page, "support image 2")
    for picture, (row, column) in ((query, (1, 2)), (support, (3, 0))):
        marked = np.argwhere(picture[..., 0] > 120)
        assert marked.min(axis=0).tolist() == [30 * row, 30 * column]
        assert marked.max(axis=0).tolist() == [30 * row + 29, 30 * column + 29]
    assert "row 2, column 3" in page
    assert "row 4, column 1 of support image 2" in page
    whole = captioned(page, "support image 2, copy 1, as a whole (its class token)")
    assert whole.max() < 60


def test_of_several_draws_the_first_with_an_explanation_is_shown(store):
    first, second = keys_of(store, "MVFA")
    add(store, second, made_up())
    assert "draw 1, seed 0" in section(store, store.grid(), names=False)
    add(store, first, made_up())
    page = section(store, store.grid(), names=False)
    assert "draw 0, seed 0" in page
    assert page.count("<h3>") == len(embedding_charts(store, store.grid())) == 1


def test_the_pictures_stay_within_their_budget(store, monkeypatch):
    for model in ("MVFA", "MadCLIP"):
        add(store, keys_of(store, model)[0], made_up(shown=(1, 0, 3, 2)))
    assert section(store, store.grid(), names=False).count("<h4>") == 8
    of_two = sum(explain._strip(next(found(store)), place, names=False).size for place in (0, 1))
    monkeypatch.setattr(explain, "EXPLANATION_BUDGET", 2 * of_two + 1)
    page = section(store, store.grid(), names=False)
    scale, *pictures = Pictures(page).found
    assert sum(len(picture["src"]) for picture in pictures) == 2 * of_two
    assert page.count("<h4>") == 4
    assert page.count("2 more") == 2
    assert len(scale["src"]) < 1000


def found(store):
    return explanations_in(store, store.grid())


def test_embeddings_become_a_chart_with_a_panel_each(explained):
    [chart] = embedding_charts(explained, explained.grid())
    assert chart.section == "explain"
    assert "MVFA on heads, K = 4" in chart.title
    assert "12 test images" in chart.caption
    figure = go.Figure(chart.figure)
    assert [note.text for note in figure.layout.annotations] == [
        "without adapters",
        "query embeddings",
    ]
    assert sum(len(trace.x) for trace in figure.data) == 12 + 24
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert len(names) == len(set(names)) == 6
    assert chart.figure["layout"]["template"] == {}, "the page has its own, light or dark"


def test_a_chart_says_in_words_which_points_lie_beside_their_own(store):
    made = made_up()
    label = np.arange(12) % 2  # as in the made-up records
    made.embeddings.clear()
    apart = np.stack([10.0 * label, np.arange(12.0)], axis=1)
    made.embeddings["with adapters"] = apart[:, None].astype(np.float32)
    add(store, keys_of(store, "MVFA")[0], made)
    [chart] = embedding_charts(store, store.grid())
    words = "6 of 6 normal and 6 of 6 abnormal points lie nearest to a point of their own class."
    assert chart.alt == f"with adapters: {words}"
