"""What grows with every scored input is found, and nothing does."""

import flat_check
import pytest
from flat_check import Count

from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score import inferencer, scorer

FEW = ["--pictures", "300", "--volumes", "60", "--calls", "300"]


@pytest.mark.parametrize(
    ("of_each", "level"),
    [((0, 0, 0), True), ((0.01, 0, 0), True), ((0.2, 0, 0), False), ((0, 1, 0), False),
     ((0, 0, 1), False), ((-1, -1, -1), True)],
)  # fmt: skip
def test_what_grows_with_every_input_is_found(of_each, level, capsys):
    memory, files, threads = of_each
    done = [10, 75, 150, 225, 300]
    counts = [Count(n, 900 + memory * n, 400 + files * n, 400 + threads * n) for n in done]
    assert flat_check.judge("it", counts) is level
    assert capsys.readouterr().out.splitlines()[-1].startswith("pass" if level else "fail")


def test_it_counts_what_this_process_holds(tmp_path):
    counter = flat_check.Counter(4)
    kept = []
    for name in "abcd":
        kept.append((tmp_path / name).open("w"))
        counter.emit()
    first, *_, last = counter.counts
    for file in kept:
        file.close()
    assert (first.done, last.done) == (1, 4)
    assert last.files - first.files == 3
    assert last.memory > 1


@pytest.mark.nightly(also="tests/test_flat_check.py::test_what_grows_with_every_input_is_found")
def test_scoring_keeps_nothing_of_its_inputs(capsys):
    assert flat_check.main(FEW) == 0, capsys.readouterr().out


@pytest.mark.nightly(also="tests/test_flat_check.py::test_what_grows_with_every_input_is_found")
@pytest.mark.parametrize("leak", ["images", "files"])
def test_what_is_kept_of_each_input_is_found(leak, monkeypatch, capsys):
    kept, cut = [], scorer.cut

    def keeping(read):
        def reading(path, *given, **options):
            made = read(path, *given, **options)
            file = path[0] if isinstance(path, list | tuple) else path
            kept.append(made if leak == "images" else file.open("rb"))
            return made

        return reading

    for module, name, read in (
        (scorer, "read_image", read_image), (scorer, "cut", cut),
        (inferencer, "read_image", read_image),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, keeping(read))
    assert flat_check.main(FEW) == 1
    for file in kept if leak == "files" else ():
        file.close()
    verdicts = [line for line in capsys.readouterr().out.splitlines() if "allowed" in line]
    assert [line[:4] for line in verdicts] == ["fail"] * 3, verdicts
