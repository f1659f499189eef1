"""FAISS's index on a processor, and on GPUs that are none; see ``faiss_gpus``."""

import gc
import sys
from threading import Thread

import faiss
import fresh_process
import pytest
import torch
from faiss_gpus import Gpus, OnGpu
from tiny import small

from anomalib_medclip.components import faiss_index, memory_bank
from anomalib_medclip.components.faiss_index import FlatIndex, IndexOptions, faiss_serves
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.nearest import unit
from anomalib_medclip.errors import RuntimeMissingError
from anomalib_medclip.models.mvfa import MVFA

WIDTH = 64
EXACT = {"rtol": 0, "atol": 1e-6}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROWS = unit(random(200, WIDTH)).half()
QUERIES = unit(random(30, WIDTH, seed=1))


@pytest.fixture
def gpus(monkeypatch):
    if not hasattr(faiss, "GpuIndexFlatIP"):
        pytest.skip("needs FAISS's build for GPUs")
    return Gpus(monkeypatch)


def on_gpu(tensor):
    return tensor.as_subclass(OnGpu)


def bank_on_gpu(**options):
    """Two levels of six images, and what a bank of them on a processor finds."""
    tokens, images = random(2, 6, 20, WIDTH), random(3, 10, WIDTH, seed=1)
    bank, expected = MemoryBank(index_options=IndexOptions(**options)), MemoryBank()
    for one in (bank, expected):
        one.fill(tokens, torch.arange(6))
    bank.rows = on_gpu(bank.rows)
    return bank, on_gpu(images), [expected.distance(images, level) for level in (0, 1)]


def assert_nearest(found, rows=unit(ROWS)):  # noqa: B008 - nothing changes them
    """The largest product of each query with any row, and that row."""
    cosines, numbers = (one.as_subclass(torch.Tensor) for one in found)
    expected = (QUERIES.double() @ rows.double().T).max(dim=1)
    torch.testing.assert_close(cosines, expected.values.float(), **EXACT)
    assert torch.equal(numbers, expected.indices)


@pytest.mark.parametrize("rows", [ROWS, ROWS.float() * 7, ROWS.T.contiguous().T])
def test_a_processor_finds_the_nearest_row(rows):
    index = FlatIndex(rows)
    assert_nearest(index.nearest(QUERIES))
    assert_nearest(index.nearest(QUERIES.T.contiguous().T))


def test_a_gpu_finds_it_by_an_index_of_its_own_in_its_own_stream(gpus):
    index = FlatIndex(on_gpu(ROWS))
    for _ in range(2):
        found = index.nearest(on_gpu(QUERIES))
        assert all(one.device == OnGpu.device for one in found)
        assert_nearest(found)
    assert gpus.numbers == {1: 1}
    assert set(gpus.streams) == {1}, "torch's stream of another GPU does not wait for these rows"
    assert gpus.current == 0


def test_half_precision_is_half_the_memory_and_nearly_as_exact(gpus):
    index = FlatIndex(on_gpu(ROWS), IndexOptions(float16=True))
    found = index.nearest(on_gpu(QUERIES))
    assert_nearest(found, unit(ROWS).half())
    full = FlatIndex(ROWS).nearest(QUERIES)[0]
    error = (found[0].as_subclass(torch.Tensor) - full).abs().max()
    assert 0 < error < 1e-3
    assert [one.sa_code_size() for one in gpus.made] == [2 * WIDTH]


@pytest.mark.parametrize("count", [200, 4, 2, 1])
@pytest.mark.parametrize("float16", [False, True])
def test_rows_on_all_gpus_are_one_index(gpus, count, float16):
    rows = ROWS[:count]
    index = FlatIndex(on_gpu(rows), IndexOptions(float16=float16, sharded=True))
    shares = [one.ntotal for one in gpus.made]
    gc.collect()  # what FAISS does not keep is gone
    found = index.nearest(on_gpu(QUERIES))
    assert all(one.device == OnGpu.device for one in found)
    assert_nearest(found, unit(rows).half() if float16 else unit(rows))
    assert sum(shares) == count
    assert max(shares) == -(-count // 3)
    assert set(gpus.streams) <= set(gpus.numbers), "each share is in the stream of its own GPU"


def test_a_processor_shards_nothing(gpus):
    assert_nearest(FlatIndex(ROWS, IndexOptions(True, 5, True)).nearest(QUERIES))
    assert not gpus.made


def test_indexes_share_their_scratch_memory_and_let_it_go(gpus):
    bank, images, _ = bank_on_gpu(scratch_mb=64)
    for level in (0, 1):
        bank.distance(images, level)
    one, other = (index.scratch for index in gpus.made)
    assert one is other
    assert one.megabytes == 64
    default = FlatIndex(on_gpu(ROWS))
    assert gpus.made[-1].scratch.megabytes is None
    del default, one, other
    gpus.made.clear()
    bank.fill(random(2, 6, 20, WIDTH), torch.arange(6))
    gc.collect()
    FlatIndex(on_gpu(ROWS), IndexOptions(scratch_mb=64))
    assert gpus.resources_made == 3


def test_threads_take_turns_on_a_gpu(gpus):
    index, found = FlatIndex(on_gpu(ROWS)), []
    search = lambda: found.append(index.nearest(on_gpu(QUERIES)))  # noqa: E731
    threads = [Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in found:
        assert_nearest(one)


# --- banks


def test_a_bank_on_a_gpu_builds_an_index_for_each_level_once(gpus):
    bank, images, expected = bank_on_gpu()
    for _ in range(2):
        for level in (0, 1):
            found = bank.distance(images, level).as_subclass(torch.Tensor)
            torch.testing.assert_close(found, expected[level], **EXACT)
    assert gpus.numbers == {1: 2}


def test_a_bank_on_a_gpu_keeps_no_rows_in_float32(gpus):
    bank, images, _ = bank_on_gpu()
    bank.distance(images, 0)
    bank.distance(images, 0, leave_out=torch.arange(3))
    gc.collect()
    alive = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    assert {one.dtype for one in alive if one.shape[-2:] == bank.rows[0].shape} == {torch.float16}


def test_leaving_out_on_a_gpu_compares_products(gpus):
    tokens, images = random(1, 6, 20, WIDTH), random(3, 10, WIDTH, seed=1)
    owners, leave_out = torch.arange(6), torch.tensor([0, 3, 5])
    bank, expected = MemoryBank(), MemoryBank()
    bank.fill(on_gpu(tokens), on_gpu(owners))
    expected.fill(tokens, owners)
    found = bank.distance(on_gpu(images), 0, on_gpu(leave_out)).as_subclass(torch.Tensor)
    torch.testing.assert_close(found, expected.distance(images, 0, leave_out), **EXACT)
    assert not gpus.made
    assert not isinstance(bank._owners, OnGpu), "they would stay there when the rows leave"


@pytest.mark.parametrize("change", [MemoryBank.half, lambda bank: bank.to(torch.bfloat16)])
def test_rows_that_change_are_searched_anew(change):
    bank, images = MemoryBank(torch.float32), random(3, 10, WIDTH, seed=1)
    bank.fill(random(1, 6, 20, WIDTH), torch.arange(6))
    before = bank.distance(images, 0)
    kept = dict(bank._searches)
    assert bank.to("cpu")._searches == kept, "what does not change is not built again"
    changed = bank.rows.to(change(bank).rows.dtype)
    after = bank.distance(images, 0)
    assert not torch.equal(after, before)
    expected = 1 - (unit(images) @ unit(changed[0]).T).amax(dim=-1)
    torch.testing.assert_close(after, expected, **EXACT)


# --- where FAISS does not serve


class OnMps(OnGpu):
    is_cuda = False
    device = torch.device("mps", 0)


@pytest.mark.parametrize(("kind", "seen"), [(OnMps, 1), (OnGpu, 0)])
def test_devices_that_faiss_does_not_know_compare_products(kind, seen, monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: seen)
    assert not faiss_serves(kind.device)
    bank, images, expected = bank_on_gpu()
    bank.rows = bank.rows.as_subclass(kind)
    for level in (0, 1):
        found = bank.distance(images.as_subclass(kind), level).as_subclass(torch.Tensor)
        torch.testing.assert_close(found, expected[level], **EXACT)


def test_without_faiss_a_processor_compares_products(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # what is None there cannot be imported
    assert_nearest(memory_bank._fastest(ROWS, IndexOptions())(QUERIES))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs packages, as far as their metadata go."""

    def install(*names):
        for name in names:
            info = tmp_path / f"{name.replace('-', '_')}-1.15.1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.15.1\n"
            )
        path = [str(tmp_path), *(one for one in sys.path if "site-packages" not in one)]
        monkeypatch.setattr(sys, "path", path)

    faiss_index._tell_of_several.cache_clear()
    yield install
    faiss_index._tell_of_several.cache_clear()


def test_two_packages_of_faiss_are_named_once(installed, caplog):
    installed("faiss-cpu", "faiss-gpu")
    for _ in range(2):
        assert_nearest(FlatIndex(ROWS).nearest(QUERIES))
    (told,) = caplog.messages
    assert told.startswith("faiss-cpu and faiss-gpu are installed together")
    assert "pip uninstall -y faiss-cpu faiss-gpu, then pip install the one you want" in told


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss-gpu"])
def test_one_package_of_faiss_is_as_it_should_be(name, installed, caplog):
    installed(name)
    assert_nearest(FlatIndex(ROWS).nearest(QUERIES))
    assert caplog.messages == []


def test_what_another_package_of_faiss_has_left_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss.contrib.torch_utils", None)
    monkeypatch.delattr(faiss.contrib, "torch_utils", raising=False)
    with pytest.raises(RuntimeMissingError, match=r"damaged: .*; keep one: pip uninstall"):
        FlatIndex(ROWS)


def test_the_options_of_mvfa_reach_its_bank():
    model = small(MVFA, index_float16=True, index_scratch_mb=64, index_sharded=True)
    assert model.model.memory_bank.index_options == IndexOptions(True, 64, True)
    assert small(MVFA).model.memory_bank.index_options == IndexOptions()


# --- FAISS as it is

ON_A_MISSING_GPU = """
import sys
from contextlib import nullcontext

import faiss
import torch
from anomalib_medclip.components.memory_bank import MemoryBank

class OnGpu(torch.Tensor):
    is_cuda, device = True, torch.device("cuda", 1)

faiss.get_num_gpus, torch.cuda.device = lambda: 2, nullcontext
bank, tokens = MemoryBank(), torch.rand(1, 2, 3, 8)
bank.fill(tokens, torch.arange(2))
bank.rows = bank.rows.as_subclass(OnGpu)
assert "faiss.contrib.torch_utils" not in sys.modules
try:
    bank.distance(tokens[0].as_subclass(OnGpu), 0)
except RuntimeError as error:
    print(error)
print(faiss.GpuIndexFlatIP.add.__name__, faiss.GpuIndexFlatIP.search.__name__)
"""


@pytest.mark.skipif(not hasattr(faiss, "GpuIndexFlatIP"), reason="needs FAISS's build for GPUs")
def test_faiss_itself_is_asked_for_the_gpu_by_functions_that_take_tensors():
    ran = fresh_process.run("-c", ON_A_MISSING_GPU)
    assert ran.returncode == 0, ran.stderr
    *error, functions = ran.stdout.splitlines()
    assert "Invalid GPU device 1" in " ".join(error)
    assert functions == "torch_replacement_add torch_replacement_search"
