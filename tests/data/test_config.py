"""What a data config may get wrong, and what is said of it: one line that helps."""

import pytest

from anomalib_medclip.data.config import load_data
from anomalib_medclip.errors import DataRootError

FOLDER = "class_path: anomalib_medclip.data.MedicalFolder\ninit_args:\n"
VOLUMES = "class_path: anomalib_medclip.data.Volumes\ninit_args:\n  root: x\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FOLDER + "  root: x\n  kshot: 3\n", "MedicalFolder has no 'kshot' but 'k_shot'; compare"),
        (
            FOLDER + "  root: x\n  normal_dirs: y\n",
            "has no 'normal_dirs' but 'normal_dir'; compare",
        ),
        (FOLDER + "  root: x\n  k_shot: many\n", "'k_shot' of .*MedicalFolder cannot be 'many'"),
        (
            FOLDER + "  root: x\n  mask_column: m\n",
            "mask_column 'm' needs a table: give --data.table",
        ),
        (FOLDER + "\troot: x\n", r"line 3: found character '\\t' .*: indent by blanks; compare"),
        (FOLDER + '  root: "C:\\data"\n', "line 3: .*: write paths with slashes, or in single"),
        (FOLDER, "its init_args are no options by name"),
        ("class_path: 3\n", "it names no class_path"),
        ("data: MedicalFolder\n", "it names no class_path"),
        ("class_path: anomalib.data.Folder\n", "anomalib.data.Folder is no data of this package"),
        (VOLUMES + "  sources: [{image: a, maks: b}]\n", "VolumeSource has no 'maks' but 'mask'"),
        (FOLDER + f"  root: x\n  name: {'n' * 300}\n", "name is 'n+'"),
        (VOLUMES + "  sources: ct\n", "'sources' of .*Volumes cannot be 'ct'"),
    ],
)
def test_a_fault_is_said_in_one_line(tmp_path, text, words):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataRootError, match=rf"data\.yaml describes no data: .*{words}") as raised:
        load_data(tmp_path / "data.yaml")
    said = str(raised.value)
    assert "\n" not in said
    assert not any(word in said for word in ("Union", "Parser key", "<class", "Namespace"))


def test_numbers_are_labels_and_patients_too(tmp_path):
    options = "  table: t.csv\n  normal_labels: [0]\n  unknown_patient: -1\n  patient_column: who\n"
    (tmp_path / "data.yaml").write_text(f"{FOLDER}{options}".replace("t.csv", f"{tmp_path}/t.csv"))
    (tmp_path / "t.csv").write_text("image,label,who\na.png,0,-1\nb.png,2,P1\n")
    table = load_data(tmp_path / "data.yaml").list_images()
    assert table["label_index"].tolist() == [0, 1]
    assert table["group"].tolist() == ["", "P1"]
