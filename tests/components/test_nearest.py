import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_medclip.components import memory_bank, nearest
from anomalib_medclip.components.faiss_index import FlatIndex
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.nearest import Scan, largest, mean_and_axes, unit

WIDTH = 96
seeds = st.integers(0, 2**16)
fewer = settings(max_examples=15)
"""Of ten kinds of rows each."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(count, seed=0):
    """Like tokens of images: a common mean, and most of the rest along few axes."""
    spread = torch.arange(1.0, WIDTH + 1) ** -1.5
    return 2 * spread + random(count, WIDTH, seed=seed) * spread


def ulp_apart(count, seed):
    """One row in half precision, and the same with a single number changed by its last bit."""
    rows = unit(random(1, WIDTH, seed=seed)).half().repeat(count, 1)
    bits = rows.view(torch.int16)
    bits[torch.arange(count), torch.arange(count) % WIDTH] += 1
    return rows


ROWS = {
    "tokens": tokens,
    "random": lambda count, seed: random(count, WIDTH, seed=seed),
    "duplicates": lambda count, seed: tokens(count, seed)[torch.arange(count) // 3],
    "a bit apart": ulp_apart,
    "all equal": lambda count, seed: tokens(1, seed).repeat(count, 1),
    "zeros": lambda count, _: torch.zeros(count, WIDTH),
    "some zeros": lambda count, seed: tokens(count, seed) * (torch.arange(count) % 4 > 0)[:, None],
    "huge and tiny": lambda count, seed: tokens(count, seed) * 10.0 ** random(count, 1, seed=seed),
    "opposite": lambda count, seed: -tokens(count, seed),
    "along one axis": lambda count, _: torch.eye(WIDTH)[torch.arange(count) % 2],
}


def scan_of(rows):
    return Scan(rows, *mean_and_axes(rows))


def queries_near(rows, seed):
    """Others, the rows themselves, rows with a little added, and zeros."""
    some = rows[:12].float()
    shaken = some + 1e-3 * random(*some.shape, seed=seed)
    return unit(torch.cat([tokens(12, seed + 1), some, shaken, torch.zeros(1, WIDTH)]))


def assert_nearest(found, queries, rows):
    """The cosine is the largest there is, in double precision, and that to the row named."""
    cosines, numbers = found
    every = queries.double() @ unit(rows).double().T
    exact = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(cosines.double(), every.amax(dim=1), **exact)
    named = every.gather(1, numbers[:, None])[:, 0]
    torch.testing.assert_close(cosines.double(), named, **exact)


@pytest.mark.parametrize("kind", ROWS)
@fewer
@given(count=st.integers(1, 300), seed=seeds)
def test_a_scan_finds_the_nearest_of_any_rows(kind, count, seed):
    rows = ROWS[kind](count, seed)
    queries = queries_near(rows, seed)
    for precision in (torch.float16, torch.float32):
        stored = unit(rows).to(precision)
        assert_nearest(scan_of(stored).nearest(queries), queries, stored)
        assert_nearest(largest(queries, stored), queries, stored)
        assert_nearest(FlatIndex(stored).nearest(queries), queries, stored)


@given(seed=seeds, axes=st.integers(8, WIDTH), mean=st.floats(-1, 1))
def test_any_mean_and_axes_are_right(seed, axes, mean):
    rows = unit(tokens(100, seed)).half()
    turned = torch.linalg.qr(random(WIDTH, WIDTH, seed=seed).double())[0][:, :axes]
    queries = queries_near(rows, seed)
    scan = Scan(rows, torch.full((WIDTH,), mean, dtype=torch.float64), turned)
    assert_nearest(scan.nearest(queries), queries, rows)


@pytest.mark.parametrize("kind", ROWS)
@fewer
@given(seed=seeds)
def test_the_bound_is_above_every_cosine_and_close_for_tokens(kind, seed):
    rows = unit(ROWS[kind](100, seed)).half()
    scan, queries = scan_of(rows), queries_near(rows, seed)
    columns, at_mean = scan._query_columns(queries)
    bound = at_mean[:, None] + columns.double() @ scan.columns[:100].double().T
    cosines = queries.double() @ unit(rows).double().T
    assert (bound >= cosines).all()
    if kind == "tokens":
        assert (bound - cosines).mean() < 0.02


def test_the_bound_holds_where_rounding_is_worst():
    """Second and third parts as large as they can be, all of one sign."""
    largest_part = 0.5 + 2**-9 - 2**-18 - 2**-22
    row = torch.zeros(1, WIDTH)
    row[0, :3], row[0, 3] = largest_part, (1 - 3 * largest_part**2) ** 0.5
    scan = Scan(row, torch.zeros(WIDTH).double(), torch.eye(WIDTH).double())
    columns, _ = scan._query_columns(row)
    bound = (columns.double() @ scan.columns[:1].double().T).item()
    assert bound >= row.double().square().sum().item()


def test_few_rows_of_tokens_need_a_second_look():
    rows, queries = unit(tokens(6000)).half(), unit(tokens(300, seed=1))
    scan = scan_of(rows)
    assert_nearest(scan.nearest(queries), queries, rows)
    _, looks, too_many = scan._scanned(queries)
    assert not too_many.any()
    assert 300 <= looks.sum() < 300 * 60


def test_where_all_rows_are_alike_the_plain_product_decides():
    rows, queries = unit(tokens(1)).half().repeat(6000, 1), unit(tokens(30, seed=1))
    scan = scan_of(rows)
    assert_nearest(scan.nearest(queries), queries, rows)
    _, looks, too_many = scan._scanned(queries)
    assert too_many.all()
    assert not looks.any()


def test_a_query_left_over_finds_what_it_finds_alone():
    rows = ulp_apart(4, seed=0)[torch.arange(6000) % 4]
    queries = unit(random(40, WIDTH, seed=1))
    scan = scan_of(rows)
    together = scan.nearest(queries)
    assert scan._scanned(queries)[2].all()
    alone = [torch.cat(part) for part in zip(*map(scan.nearest, queries.split(1)), strict=True)]
    assert torch.equal(together[0], alone[0])


def test_what_a_query_finds_does_not_depend_on_the_others():
    rows, queries = unit(tokens(3000)).half(), unit(tokens(300, seed=1))
    scan = scan_of(rows)
    together = scan.nearest(queries)
    alone = [torch.cat(part) for part in zip(*map(scan.nearest, queries.split(7)), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_no_gradient_and_no_lower_precision_from_around():
    rows, queries = unit(tokens(500)).half(), unit(tokens(20, seed=1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = [scan_of(rows).nearest(queries), largest(queries.detach(), rows)]
    for one in found:
        assert not one[0].requires_grad
        assert_nearest(one, queries.detach(), rows)


# --- when a bank scans


@pytest.fixture
def units(monkeypatch):
    """A processor with bf16 units, and banks of any size are large."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(nearest, "_FEW_ROWS", 10)


def test_a_scan_needs_bf16_units_and_many_rows(units, monkeypatch):
    rows = tokens(500).half()
    assert Scan.fitting(rows) is not None
    assert Scan.fitting(rows[:9]) is None
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert Scan.fitting(rows) is None


def test_a_bank_scans_and_gives_the_same_distances(units, monkeypatch):
    bank, images = MemoryBank(), tokens(100, seed=1).view(5, 20, WIDTH)
    bank.fill(
        torch.stack([tokens(600), random(600, WIDTH)]).unflatten(1, (6, 100)), torch.arange(6)
    )
    expected = [
        1 - (unit(images).double() @ unit(level).double().T).amax(dim=-1) for level in bank.rows
    ]
    monkeypatch.setattr(memory_bank, "FlatIndex", None)  # which cannot be called
    for level in (0, 1):
        found = bank.distance(images, level)
        torch.testing.assert_close(found.double(), expected[level], rtol=0, atol=1e-6)
        assert torch.equal(found, bank.nearest(images, level)[0])


def test_new_rows_are_scanned_anew(units):
    bank, other, images = MemoryBank(), MemoryBank(), tokens(20, seed=1)[None]
    bank.fill(tokens(500).view(1, 5, 100, WIDTH), torch.arange(5))
    other.fill(tokens(500, seed=2).view(1, 5, 100, WIDTH), torch.arange(5))
    before = bank.distance(images, 0)
    bank.load_state_dict(other.state_dict())
    assert torch.equal(bank.distance(images, 0), other.distance(images, 0))
    assert not torch.equal(bank.distance(images, 0), before)
    assert bank.state_dict().keys() == {"rows"}
