"""Which table each config remakes, and that its models are the rows that are printed there."""

import pytest
from paper_tables import TABLES, config_of, grow, small_options
from paper_trees import MEDICLIP

from anomalib_medclip.baselines import list_baselines
from anomalib_medclip.commands.configs import configs
from anomalib_medclip.compare.comparison import build_model, find_class, read_config
from anomalib_medclip.compare.grid import normals_of, plan_cells
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.papers.inputs import placed
from anomalib_medclip.papers.lines import trainings
from anomalib_medclip.papers.tables import printed_as
from anomalib_medclip.published import published

RIVALS = {"MKD", "DRA", "BGAD", "SimpleNet", "SQUID", "AnoDDPM", "CutPaste", "PatchSVDD", "RegAD"}


def test_every_table_of_the_papers_has_a_config():
    printed = {(one.paper, one.table) for one in published().itertuples()}
    assert {(one.paper, one.number) for one in TABLES.values()} == printed


@pytest.mark.parametrize("name", TABLES)
def test_the_models_of_a_table_are_the_rows_that_are_printed(name):
    table, models = TABLES[name], config_of(name).models
    rows = {one.row for one in table.printed}
    assert {*map(printed_as, models)} <= rows
    assert rows - {*map(printed_as, models)} <= RIVALS - {*list_baselines()}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_printed_of_our_models_is_planned(name):
    """K and sets; but for VCP-CLIP few-shot, which refuses sets without masks."""
    table, config = TABLES[name], config_of(name)
    names = {data: entry.get("published") for data, entry in config.data.items()}
    ours = [
        (printed_as(one.model), names[tested], one.k_shot)
        for one in trainings(config)
        for tested in one.tests
    ]
    for cell in table.printed:
        if cell.row in {*map(printed_as, config.models)} and cell.row != "VCP-CLIP":
            for part in table.parts(cell):
                shots = {k for row, data, k in ours if (row, data) == (cell.row, part.dataset)}
                assert cell.k in shots or (cell.k is None and cell.setting == "cross-dataset"), cell


@pytest.mark.parametrize(
    ("name", "sets"),
    [("iqeclip-table3", BMAD_SETS), ("mediclip-table1", MEDICLIP), ("mediclip-table3", MEDICLIP)],
)
def test_as_many_trainings_are_told_as_there_are(name, sets, tmp_path):
    """Zero-shot there is one draw, however many seeds; elsewhere there may be several."""
    grow(tmp_path, sets, config_of(name).k_shot)
    config = placed(config_of(name), tmp_path)
    assert sum(one.cells for one in trainings(config)) == len(plan_cells(config))


@pytest.mark.parametrize("name", TABLES)
def test_baselines_say_which_normal_images_they_are_given(name):
    for entry in config_of(name).models.values():
        assert "normals" in entry or normals_of(entry) == ["support"]


@pytest.mark.parametrize("name", TABLES)
def test_a_config_says_how_it_is_used(name):
    assert f"anomalib-medclip reproduce {name} --data datasets" in TABLES[name].config.read_text()


def test_rivals_are_built_from_a_config():
    """Which gives every option that they take, and none that they have no use for."""
    for name in sorted({*list_baselines()} & RIVALS):
        options = {"class_path": f"anomalib_medclip.baselines.{name}"}
        assert build_model({**options, "init_args": small_options(find_class(options))})


WITHOUT_TABLE = {"iqeclip_figure3", "iqeclip_figure4", "madclip_ablations", "mvfa_figure3"}


@pytest.mark.parametrize("name", sorted(WITHOUT_TABLE))
def test_what_no_table_prints_is_a_comparison(name):
    path = configs()[f"compare/papers/{name}"]
    assert f"compare configs/compare/papers/{path.name}" in path.read_text()
    config = read_config(path)
    if "figure" in name:
        varied = [one for one in ("alpha", "k_shot") if len(grid_of(config, one)) > 1]
        assert varied == ["alpha" if name == "iqeclip_figure3" else "k_shot"]


def grid_of(config, name):
    """What a comparison varies: K, or an option of its models."""
    if name == "k_shot":
        return config.k_shot
    return {entry["init_args"].get(name) for entry in config.models.values()}


def test_ablations_without_a_table_are_all_compared():
    path = configs()["compare/papers/madclip_ablations"]
    models = read_config(path).models
    named = {path.stem for path in path.parents[2].glob("ablations/madclip_*.yaml")}
    assert len(models) == 1 + len(named - {"madclip_no_object"})  # of which nothing is printed


def test_a_mean_is_of_the_figures_of_its_row_or_of_all_of_bmad():
    madclip, mvfa = TABLES["madclip-table1"], TABLES["mvfa-table5"]
    of_bgad = [one for one in madclip.printed if one.row == "BGAD" and one.dataset == "mean_BMAD"]
    (parts,) = map(madclip.parts, of_bgad)
    assert [part.dataset for part in parts] == ["Brain", "Liver", "Retina_RESC"]
    image, pixel = (
        mvfa.parts(next(one for one in mvfa.printed if one.metric == metric))
        for metric in ("image_AUROC", "pixel_AUROC")
    )
    assert (len(image), len(pixel)) == (6, 3)
    iqeclip = TABLES["iqeclip-table2"]
    both = next(one for one in iqeclip.printed if one.metric == "image_and_pixel_AUROC")
    assert len(iqeclip.parts(both)) == 9
    crossed = TABLES["madclip-table3"]
    mean = next(one for one in crossed.printed if one.dataset == "mean_cross_dataset")
    assert len(crossed.parts(mean)) == 5
