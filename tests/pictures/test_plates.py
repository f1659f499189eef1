"""Pictures, pixel by pixel: heat, outlines, threshold, scale, and what became of each lesion."""

import numpy as np
import pytest
from PIL import Image

from anomalib_medclip.pictures.heat import HeatScale, coloured, laid_over, table
from anomalib_medclip.pictures.lesions import verdicts
from anomalib_medclip.pictures.outlines import PREDICTION, TRUTH, draw_outline, resized_mask
from anomalib_medclip.pictures.panels import outlined, plain, size_of
from anomalib_medclip.pictures.plate import bar_row, draw_bar, draw_plate
from anomalib_medclip.pictures.sheet import draw_sheet
from anomalib_medclip.pictures.view import Extent, View
from anomalib_medclip.pictures.words import GROUND, INK

GREY = np.full((64, 64, 3), 90, np.uint8)


def square(top, left, side=12, size=64):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def share_of(pixels, colour):
    """Which pixels have a colour."""
    return (np.asarray(pixels) == colour).all(axis=-1)


# --- heat


def test_where_heat_is_lowest_the_image_is_left_as_it_is():
    heat = np.zeros((64, 64), np.float32)
    heat[:8] = 1
    found = laid_over(GREY, heat, HeatScale(threshold=0.5))
    assert (found[8:] == GREY[8:]).all()
    assert (found[:8] != GREY[:8]).any()


def test_heat_is_lighter_and_less_clear_the_higher_it_is():
    colours = table().astype(int)
    assert (np.diff(colours[:, 3]) >= 0).all()
    assert colours[0, 3] == 0
    lightness = colours[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()


def test_a_map_without_a_threshold_has_the_colours_of_its_own_range():
    heat = np.array([[2.0, 2.5, 3.0]], np.float32)
    scale = HeatScale.of(heat, None)
    assert (scale.low, scale.high) == (2, 3)
    found = coloured(heat, scale)
    assert found[0].tolist() == [table()[step].tolist() for step in (0, 128, 255)]


def test_a_map_of_one_value_is_clear():
    heat = np.full((4, 4), 7.0, np.float32)
    assert (coloured(heat, HeatScale.of(heat, None))[..., 3] == 0).all()


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.8])
def test_the_bar_is_marked_at_the_threshold(threshold):
    card = Image.new("RGB", (140, 220), GROUND)
    draw_bar(card, HeatScale(0, 1, threshold), 10, 10, 200)
    rows = np.flatnonzero(share_of(card, INK)[:, 9])  # beside the colours, where the mark begins
    assert rows.tolist() == [10 + round((1 - threshold) * 199)]
    assert rows[0] - 10 == bar_row(HeatScale(0, 1, threshold), 200)


def test_without_a_threshold_the_bar_has_no_mark():
    card = Image.new("RGB", (140, 220), GROUND)
    draw_bar(card, HeatScale(2, 3), 10, 10, 200)
    assert not share_of(card, INK).any()


# --- outlines


def test_truth_is_a_whole_line_and_prediction_a_dashed_one():
    for colour, line, is_whole in ((TRUTH, "solid", True), (PREDICTION, "dashed", False)):
        image, mask = GREY.copy(), square(20, 20)
        draw_outline(image, mask, colour, line)
        drawn = share_of(image, colour)
        edge = mask.copy()
        edge[21:31, 21:31] = False
        assert (drawn <= edge).all(), "only the mask's own outermost pixels"
        assert (drawn == edge).all() == is_whole
        assert drawn.sum() > edge.sum() / 2


def test_both_outlines_stand_where_their_masks_are():
    view = View(GREY, "", truth=square(8, 8), called=square(40, 40))
    found = outlined(view, 64, 64)
    assert share_of(found, TRUTH)[:32, :32].any()
    assert not share_of(found, TRUTH)[36:, 36:].any()
    assert share_of(found, PREDICTION)[36:, 36:].any()


def test_a_lesion_of_a_pixel_is_still_seen_in_a_smaller_picture():
    mask = np.zeros((1024, 1024), bool)
    mask[501, 333] = True
    assert resized_mask(mask, 256, 256).sum() == 1


def test_hits_misses_and_false_alarms_are_told_apart():
    truth = square(4, 4) | square(40, 4)
    called = square(10, 10) | square(4, 44) | square(44, 44)
    found = verdicts(truth, called)
    assert (found.hits, found.misses, found.false_alarms) == (1, 1, 2)
    assert (found.hit == square(4, 4)).all()
    assert (found.missed == square(40, 4)).all()
    assert (found.hitting == square(10, 10)).all()
    assert (found.alarms == (square(4, 44) | square(44, 44))).all()
    assert found.words == "1 of 2 lesions hit, 2 false alarms"


def test_what_is_missed_has_a_thicker_line_than_what_is_hit():
    hit = View(GREY, "", truth=square(26, 26), called=square(28, 28, 4))
    missed = View(GREY, "", truth=square(26, 26), called=square(60, 60, 2))
    widths = [share_of(outlined(view, 64, 64), TRUTH)[32].sum() for view in (hit, missed)]
    assert widths[0] == 2
    assert widths[1] > 2 * widths[0] - 1


def test_of_unknown_truth_no_detection_is_called_wrong():
    found = outlined(View(GREY, "", called=square(20, 20)), 64, 64)
    assert share_of(found, PREDICTION)[26].sum() <= 2
    assert not share_of(found, TRUTH).any()


# --- scale and sides


def test_a_scale_of_millimetres_is_as_long_as_it_says():
    view = View(GREY, "", extent=Extent(200, 200, True, ("R", "L")))
    found = plain(view, 256, 256)
    line = share_of(found, (255, 255, 255))[256 - 8]
    # 50 mm, the longest round length up to 0.4 of 200, is a quarter of the picture.
    assert line.sum() == pytest.approx(256 * 50 / 200, abs=3)


def test_pictures_without_a_known_size_have_no_scale():
    for extent in (None, Extent(64, 64)):
        assert (plain(View(GREY, "", extent=extent), 64, 64) == GREY).all()


@pytest.mark.parametrize(
    ("shape", "extent", "size"),
    [
        ((64, 64), None, (256, 256)),
        ((64, 64), Extent(100, 200), (256, 128)),
        ((500, 20), None, (51, 256)),
    ],
)
def test_a_panel_has_the_shape_of_the_whole_picture(shape, extent, size):
    assert size_of(View(np.zeros((*shape, 3), np.uint8), "", extent=extent), 256) == size


# --- plates and sheets


@pytest.mark.parametrize("side", [8, 64, 700])
@pytest.mark.parametrize(
    "known", [(), ("heat",), ("truth",), ("called",), ("heat", "truth", "called")]
)
def test_there_is_a_plate_of_whatever_is_known(side, known):
    masks = {"truth": square(0, 0, side // 2, side), "called": square(1, 1, side // 2, side)}
    every = masks | {"heat": np.random.default_rng(0).random((side, side), np.float32)}
    image = np.full((side, side, 3), 90, np.uint8)
    name = "a/name/that/is/much/too/long/" * 9
    plate = draw_plate(View(image, name, **{part: every[part] for part in known}))
    panels = 1 + ("heat" in known) + ("truth" in known or "called" in known)
    assert plate.width >= panels * 256
    assert plate.width < panels * 256 + 200


def test_a_decision_is_said_in_words_with_its_threshold():
    view = View(GREY, "1.png", score=0.2, decision=False, threshold=0.5, label=True)
    assert view.words == "score 0.200, up to 0.500: normal; truth: abnormal"
    assert view.verdict == "missed"
    assert View(GREY, "", decision=True, label=False).verdict == "false alarm"
    assert View(GREY, "", decision=True).verdict is None


def test_a_sheet_has_room_for_all_and_one_scale_for_their_maps():
    heats = [np.full((64, 64), value, np.float32) for value in (0.1, 0.9)]
    views = [View(GREY, str(number), heat) for number, heat in enumerate(heats * 2)]
    sheet = np.asarray(draw_sheet(views, "four", 0.5, side=64, columns=2))
    colours = [laid_over(GREY[:1, :1], heat[:1, :1], HeatScale(threshold=0.5)) for heat in heats]
    for colour in colours:
        assert share_of(sheet, colour[0, 0]).sum() >= 2 * 64 * 64


def test_a_sheet_of_nothing_says_so():
    assert draw_sheet([], "no miss and no false alarm").height < 60
