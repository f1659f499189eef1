"""The page in a browser: sorting, filtering, scrolling, themes, keys; no word to the network."""

import shutil

import pytest
from matplotlib import colormaps
from report_page import write_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The page as it opens, what it asked for, and what it complained of."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = write_page(tmp_path_factory.mktemp("page"))
    asked, complaints = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce"
        )
        page.set_default_timeout(30_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector(".plot .main-svg")
        yield page, asked, complaints
        browser.close()


@pytest.fixture
def page(opened):
    return opened[0]


def column(page, number):
    shown = page.locator("#table tbody tr:not([hidden])").all()
    return [row.locator("th, td").nth(number).get_attribute("data-v") for row in shown]


def test_the_table_is_sorted_by_click_and_by_key(page):
    heading = page.locator("#table thead button", has_text="honest").first
    before = [float(v) for v in column(page, 4)]
    heading.click()
    assert [float(v) for v in column(page, 4)] == sorted(before, reverse=True) != before
    assert heading.locator("..").get_attribute("aria-sort") == "descending"
    heading.press("Enter")
    assert [float(v) for v in column(page, 4)] == sorted(before)
    assert page.locator("[aria-sort=ascending], [aria-sort=descending]").count() == 1


def test_missing_figures_come_last_however_sorted(page):
    heading = page.locator("#table thead [data-metric=pixel_AUROC] button").first
    position = page.locator("#table thead tr:nth-child(2) th").evaluate_all(
        "all => all.findIndex((one) => one.dataset.metric === 'pixel_AUROC')"
    )
    for _ in range(2):
        heading.click()
        values = column(page, 4 + position)
        assert values[-4:] == [""] * 4
        assert "" not in values[:-4]


def test_the_table_is_filtered_by_set_k_and_text(page):
    form = page.locator("#table-controls")
    form.locator("[name=data]").select_option("heads")
    form.locator("[name=k]").select_option("16")
    # Four models of this K, and PatchCore on all normals, which K does not change.
    assert page.locator("#table-count").text_content() == "5 of 18 rows"
    form.locator("[name=text]").fill("patchcore")
    assert page.locator("#table-count").text_content() == "2 of 18 rows"
    form.evaluate("form => { form.reset(); form.dispatchEvent(new Event('input')); }")
    assert page.locator("#table-count").text_content() == "18 of 18 rows"


def test_all_figures_are_a_choice_away(page):
    heads = page.locator("#table thead tr:nth-child(2) th:visible")
    assert heads.count() == 19
    page.locator("[name=view]").select_option("image_ECE")
    assert [head.strip() for head in heads.all_inner_texts()][:3] == ["honest", "oracle", "gap"]
    page.locator("[name=view]").select_option("all")
    # Three at the threshold, two chosen on the test; five of patients, of volumes, of lesions.
    assert heads.count() == 6 * 3 + 3 + 2 + 3 * 5 + 1 + 4
    page.locator("[name=view]").select_option("main")
    assert heads.count() == 19


def test_published_figures_are_explained_to_the_keyboard(page):
    page.locator(".paper").first.focus()
    assert page.locator("#tip").inner_text() == "MVFA, table 2: 92.4 (mvfa-few)"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_the_gallery_is_filtered_and_sorted(page):
    rows = page.locator("#pictures [data-at]")
    assert rows.count() == 16
    page.locator("#gallery-controls [name=class]").select_option("missed")
    missed = rows.count()
    assert 0 < missed < 8
    assert all("missed" in row.inner_text() for row in rows.all())
    page.locator("#gallery-controls [name=class]").select_option("all")
    page.locator("#gallery-controls [name=sort]").select_option("error 0")
    mvfa = [row.locator(".said").nth(1).inner_text().split() for row in rows.all()]
    truth = [row.locator("small").first.inner_text().strip() == "abnormal" for row in rows.all()]
    pairs = zip(truth, mvfa, strict=True)
    errors = [round(abs(is_abnormal - float(score)), 2) for is_abnormal, (score, *_) in pairs]
    assert errors == sorted(errors, reverse=True)
    page.locator("#gallery-models input").first.uncheck()
    assert rows.first.locator(".tile").count() == 4
    page.locator("#gallery-models input").first.check()


def test_heat_maps_are_coloured_by_the_one_scale(page):
    page.wait_for_function("document.querySelector('#pictures canvas').width === 24")
    colours = "canvas => [...canvas.getContext('2d').getImageData(6, 6, 1, 1).data]"
    assert sum(page.locator("#pictures canvas").first.evaluate(colours)) > 0
    bar = "canvas => [...canvas.getContext('2d').getImageData(255, 0, 1, 1).data]"
    upper_end = colormaps["inferno"](255, bytes=True)
    assert page.locator("#bar").evaluate(bar) == [int(channel) for channel in upper_end]


def test_outlines_of_lesion_and_prediction_are_shown_and_hidden_each_by_itself(page):
    for box, line in (("#truth", ".truth-line"), ("#called", ".called-line")):
        lines = page.locator(f"#pictures {line}")
        assert lines.count() > 0
        assert lines.first.evaluate("line => getComputedStyle(line).display") == "inline"
        page.locator(box).uncheck()
        assert lines.first.evaluate("line => getComputedStyle(line).display") == "none"
        page.locator(box).check()


def test_no_button_of_a_chart_is_in_the_order_of_the_keys(page):
    buttons = page.locator(".modebar-btn")
    assert buttons.count() > 0
    assert buttons.evaluate_all("all => all.every((one) => one.tabIndex === -1)")


def test_a_phone_shows_a_model_and_its_figure_at_once(opened):
    page, _, _ = opened
    phone = page.context.browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(page.url.partition("#")[0])
    row = phone.locator("#table tbody tr").first
    for cell in (row.locator("th"), row.locator("td.honest:not([hidden])").first):
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844
    phone.close()


def test_an_image_is_enlarged_and_turned_by_keys(page):
    tile = page.locator("#pictures [data-at='1'] .tile").nth(1)
    tile.focus()
    page.keyboard.press("Enter")
    heading = page.locator("#large h3")
    assert "(2 of 16)" in heading.inner_text()
    page.keyboard.press("ArrowRight")
    assert "(3 of 16)" in heading.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "(1 of 16)" in heading.inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    assert tile.evaluate("tile => tile === document.activeElement")


def test_a_volume_is_scrolled_by_key_and_wheel(page):
    viewer = page.locator(".viewer").first
    heading, slider = viewer.locator("h3 small"), viewer.locator("input[type=range]")
    assert heading.inner_text() == "slice 0 (1 of 8), normal"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert heading.inner_text() == "slice 1 (2 of 8), abnormal"
    viewer.locator(".stack").first.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "document.querySelector('.viewer h3 small').textContent.startsWith('slice 2')"
    )
    assert viewer.locator(".track .truth").count() == 4


def test_the_theme_is_turned_charts_and_all(page):
    colours = "() => [document.body, document.querySelector('.plot .xtick text')].map("
    colours += "(one) => getComputedStyle(one)[one === document.body ? 'backgroundColor' : 'fill'])"
    light = page.evaluate(colours)
    page.locator("#theme").click()
    dark = page.evaluate(colours)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.locator("#theme").click()
    assert page.evaluate(colours) == light


def test_the_first_tab_skips_to_the_results(page):
    page.reload()
    page.wait_for_selector(".plot .main-svg")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_no_button_of_any_chart_leads_out_of_the_page(opened):
    page, asked, complaints = opened
    pages, downloads, pressed = [], [], []
    page.context.on("page", lambda new: pages.append(new.url))
    page.on("download", lambda download: downloads.append(download.url))
    for chart in page.locator(".plot").all():
        chart.scroll_into_view_if_needed()
        chart.hover()
        for button in chart.locator(".modebar-btn").all():
            pressed.append(button.get_attribute("data-title"))
            button.click()
            page.wait_for_timeout(200)
            assert page.locator(".plotly-cloud-dialog-box").count() == 0
    titles = {title.lower() for title in pressed}  # whose case depends on plotly's version
    assert {"download plot as a png", "pan", "zoom in", "reset axes"} <= titles
    assert not [title for title in pressed if "hare" in title or "loud" in title]
    assert pages == []
    assert {url.split(":")[0] for url in downloads} <= {"blob", "data"}
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert complaints == []


def test_nothing_leaves_the_file_and_nothing_is_complained_of(opened):
    page, asked, complaints = opened
    page.evaluate("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert complaints == []
