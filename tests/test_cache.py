import multiprocessing

import numpy as np
import pytest
import torch

from anomalib_medclip import cache as cache_module
from anomalib_medclip.cache import Shelf, TensorCache

FEATURES = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
IN_MEMORY, ONE_AND_A_HALF, NONE = 1.0, 1.5 * 5 * 4 * 4 / 1e9, 0.0


class Tower:
    """Gives features by number, and remembers for which it was asked."""

    def __init__(self):
        self.asked = []

    def of(self, numbers):
        def compute(missing):
            self.asked += [numbers[i] for i in missing]
            return FEATURES[[numbers[i] for i in missing]]

        return compute


@pytest.mark.parametrize("memory", [IN_MEMORY, ONE_AND_A_HALF, NONE])
def test_every_image_is_encoded_once_wherever_its_features_are_kept(memory, tmp_path):
    cache, tower = TensorCache(memory, folder=tmp_path), Tower()
    for numbers in ([0, 1, 2], [2, 3, 0], [5, 4, 3, 2, 1, 0]):
        found = cache.fetch(numbers, tower.of(numbers))
        assert torch.equal(found, FEATURES[numbers])
    assert sorted(tower.asked) == [0, 1, 2, 3, 4, 5]


def test_half_precision_is_half_as_exact_and_still_float32_outside():
    cache, tower = TensorCache(IN_MEMORY, "float16"), Tower()
    first, again = (cache.fetch([1], tower.of([1])) for _ in range(2))
    assert torch.equal(first, again), "the first epoch sees what later ones see"
    assert first.dtype == torch.float32
    assert torch.equal(first[0], FEATURES[1].half().float())


def test_a_full_disk_costs_time_and_loses_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "_SPARE", 10**18)
    cache, tower = TensorCache(ONE_AND_A_HALF, folder=tmp_path), Tower()
    for _ in range(2):
        assert torch.equal(cache.fetch([0, 1, 2], tower.of([0, 1, 2])), FEATURES[:3])
    assert tower.asked == [0, 1, 2, 1, 2]
    assert caplog.text.count("nearly full") == 1


def test_a_disk_that_cannot_be_written_costs_time_and_loses_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache, tower = TensorCache(NONE, folder=tmp_path / "file" / "below"), Tower()
    for _ in range(2):
        assert torch.equal(cache.fetch([0, 1], tower.of([0, 1])), FEATURES[:2])
    assert tower.asked == [0, 1, 0, 1]
    assert "computed anew each time" in caplog.text


def test_an_image_twice_in_a_batch_is_two_rows():
    cache, tower = TensorCache(IN_MEMORY), Tower()
    assert torch.equal(cache.fetch([3, 3], tower.of([3, 3])), FEATURES[[3, 3]])
    assert len(cache._kept) == 1


def test_nothing_remains_on_disk(tmp_path):
    cache, tower = TensorCache(NONE, folder=tmp_path), Tower()
    cache.fetch([0], tower.of([0]))
    del cache
    assert list(tmp_path.iterdir()) == []


def test_a_shelf_gives_back_what_was_put_on_it(tmp_path):
    value = FEATURES[0]
    assert Shelf(tmp_path, "scope", 1.0).find(("a", 1)) is None
    Shelf(tmp_path, "scope", 1.0).keep(("a", 1), value)
    shelf = Shelf(tmp_path, "scope", 1.0)
    assert torch.equal(shelf.find(("a", 1)), value)
    assert shelf.find(("a", 2)) is None
    assert Shelf(tmp_path, "other", 1.0).find(("a", 1)) is None
    shelf.keep("half", value.half())
    assert torch.equal(shelf.find("half"), value.half())


def test_a_shelf_keeps_to_its_budget_whoever_filled_it(tmp_path):
    size = FEATURES[0].numel() * 4
    first = Shelf(tmp_path, "one", 2 * size / 1e9)
    for number in range(4):
        first.keep(number, FEATURES[number])
    assert [first.find(number) is not None for number in range(4)] == [True, True, False, False]
    second = Shelf(tmp_path, "two", 2 * size / 1e9)
    second.keep(0, FEATURES[0])
    assert second.find(0) is None, "the budget is that of the whole folder"


def test_a_shelf_spares_the_tower_and_may_vanish(tmp_path):
    tower, found = Tower(), []
    for number in range(4):
        if number == 2:
            next(tmp_path.rglob("*.npz")).unlink()
        cache = TensorCache(IN_MEMORY, shelf=Shelf(tmp_path, "", 1.0))
        assert torch.equal(cache.fetch([0, 1], tower.of([0, 1])), FEATURES[:2])
        found.append(cache.found)
    assert found == [0, 2, 1, 2]
    assert len(tower.asked) == 3


def _cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _take_another(path):
    other = next(one for one in path.parents[1].rglob("*.npz") if one != path)
    path.write_bytes(other.read_bytes())


def _hold_words(path):
    with path.open("wb") as file:
        np.savez(file, key="0", value="words")


DAMAGE = [_cut, _flip_a_bit, _take_another, _hold_words, lambda path: path.write_bytes(b"")]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_on_a_shelf_is_made_again_with_a_word(damage, tmp_path, caplog):
    for number in (0, 1):
        Shelf(tmp_path, "", 1.0).keep(number, FEATURES[number])
    damage(next(tmp_path.rglob("*.npz")))
    tower = Tower()
    for _ in range(2):
        cache = TensorCache(IN_MEMORY, shelf=Shelf(tmp_path, "", 1.0))
        assert torch.equal(cache.fetch([0, 1], tower.of([0, 1])), FEATURES[:2])
    assert len(tower.asked) == 1
    assert caplog.text.count("is damaged, and made again") == 1


def test_with_a_shelf_company_does_not_round_a_tensor(tmp_path):
    """Each is computed alone, so that a full and an empty shelf give the same bits."""
    asked = []

    def compute(missing):
        asked.append(missing)
        return FEATURES[missing]

    TensorCache(IN_MEMORY, shelf=Shelf(tmp_path, "", 1.0)).fetch([0, 1, 2], compute)
    assert asked == [[0], [1], [2]]


def test_a_shelf_that_cannot_be_written_costs_time_and_loses_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = TensorCache(IN_MEMORY, shelf=Shelf(tmp_path / "file", "", 1.0))
    assert torch.equal(cache.fetch([0, 1], Tower().of([0, 1])), FEATURES[:2])
    assert caplog.text.count("no more features are shared") == 1


def test_a_shelf_leaves_a_nearly_full_disk_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "_SPARE", 10**18)
    cache = TensorCache(IN_MEMORY, shelf=Shelf(tmp_path, "", 1.0))
    assert torch.equal(cache.fetch([0, 1], Tower().of([0, 1])), FEATURES[:2])
    assert "nearly full" in caplog.text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _put(folder, value):
    shelf = Shelf(folder, "", 1.0)
    for _ in range(150):
        shelf.keep("same", torch.full((100_000,), float(value)))


def test_writers_of_one_tensor_never_leave_half_of_it(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put, args=(tmp_path, value)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    shelf, seen = Shelf(tmp_path, "", 1.0), 0
    while any(writer.is_alive() for writer in writers) or not seen:
        found = shelf.find("same")
        if found is not None:
            seen += 1
            assert found.shape == (100_000,)
            assert float(found.min()) == float(found.max()) > 0
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert not list(tmp_path.rglob("*.partial"))
