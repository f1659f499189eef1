import pytest
from comparing import CFLOW, METHODS, PATCHCORE, compare, phantom_entry, write_config


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """The folder of a comparison of every kind of model, and the exit code of its command."""
    home = tmp_path_factory.mktemp("compared")
    models = {"MVFA": METHODS["MVFA"], "PatchCore": PATCHCORE, "CFlow": CFLOW}
    data = {"heads": phantom_entry(home / "pictures")}
    config = write_config(home / "c.yaml", models, data, draws=2, trivial=True)
    return home / "out", compare(config, home / "out")
