import pytest
import torch

from anomalib_medclip import cache as cache_module
from anomalib_medclip.cache import TensorCache

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
