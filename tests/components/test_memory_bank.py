import copy
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anomalib_medclip.components.memory_bank import MemoryBank, number_owners
from anomalib_medclip.errors import NonFiniteError, NotReadyError

EXACT = {"rtol": 0, "atol": 1e-6}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(tokens, owners=None, dtype=torch.float16):
    bank = MemoryBank(dtype)
    bank.fill(tokens, torch.arange(tokens.shape[1]) if owners is None else torch.tensor(owners))
    return bank


def plain(bank, tokens, level):
    """The definition: one minus the largest cosine, in double precision."""
    rows = F.normalize(bank.rows[level].double(), dim=-1)
    return (1 - (F.normalize(tokens.double(), dim=-1) @ rows.T).amax(dim=-1)).float()


sizes = st.integers(1, 6)
seeds = st.integers(0, 2**16)


@given(levels=st.integers(1, 3), support=sizes, tokens=sizes, batch=sizes, seed=seeds)
def test_the_distance_is_that_of_a_plain_matrix_product(levels, support, tokens, batch, seed):
    bank = filled(random(levels, support, tokens, 16, seed=seed))
    queries = random(batch, tokens, 16, seed=seed + 1)
    for level in range(levels):
        found = bank.distance(queries, level)
        assert found.shape == (batch, tokens)
        torch.testing.assert_close(found, plain(bank, queries, level), **EXACT)


@given(support=sizes, tokens=sizes, batch=sizes, seed=seeds)
def test_the_nearest_row_is_the_one_at_that_distance(support, tokens, batch, seed):
    bank = filled(random(2, support, tokens, 16, seed=seed))
    queries = random(batch, tokens, 16, seed=seed + 1)
    distance, numbers = bank.nearest(queries, 1)
    assert torch.equal(distance, bank.distance(queries, 1))
    rows = F.normalize(bank.rows[1].float(), dim=-1)[numbers]
    found = 1 - (F.normalize(queries, dim=-1) * rows).sum(dim=-1)
    torch.testing.assert_close(found, distance, **EXACT)


def test_rows_are_numbered_image_by_image():
    tokens = random(1, 3, 4, 16)
    bank = filled(tokens)
    _, numbers = bank.nearest(tokens[0], 0)
    assert numbers.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_the_distance_is_that_of_a_plain_matrix_product_at_full_size():
    """As many rows as 16 support images of 17 x 17 patches have, and real width."""
    bank = filled(random(1, 16, 289, 1024))
    queries = random(1, 289, 1024, seed=1)
    torch.testing.assert_close(bank.distance(queries, 0), plain(bank, queries, 0), **EXACT)


def test_the_distance_by_hand():
    east, north, west = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    bank = filled(torch.tensor([[[east]], [[north]]]))
    queries = torch.tensor([[east, north, west, [3.0, 4.0]]])
    expected_first, expected_second = [[0.0, 1.0, 2.0, 0.4]], [[1.0, 0.0, 1.0, 0.2]]
    torch.testing.assert_close(bank.distance(queries, 0), torch.tensor(expected_first))
    torch.testing.assert_close(bank.distance(queries, 1), torch.tensor(expected_second))


@given(support=sizes, more=sizes, seed=seeds)
def test_more_memory_never_raises_the_distance(support, more, seed):
    tokens, queries = random(1, support + more, 4, 8, seed=seed), random(2, 4, 8, seed=seed + 1)
    few = filled(tokens[:, :support]).distance(queries, 0)
    many = filled(tokens).distance(queries, 0)
    assert (many <= few + 1e-6).all()


@given(seed=seeds)
def test_a_stored_token_is_at_no_distance(seed):
    tokens = random(1, 3, 4, 32, seed=seed)
    torch.testing.assert_close(
        filled(tokens).distance(tokens[0], 0), torch.zeros(3, 4), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        filled(tokens, dtype=torch.float32).distance(tokens[0], 0), torch.zeros(3, 4), **EXACT
    )


@given(gain=st.floats(1e-3, 1e3), seed=seeds)
def test_the_length_of_tokens_does_not_matter(gain, seed):
    tokens, queries = random(1, 3, 4, 8, seed=seed), random(2, 4, 8, seed=seed + 1)
    longer = filled(gain * tokens).distance(gain * queries, 0)
    torch.testing.assert_close(longer, filled(tokens).distance(queries, 0), rtol=0, atol=2e-3)


def test_half_precision_queries_are_compared_in_float32():
    bank, queries = filled(random(1, 3, 4, 8)), random(2, 4, 8, seed=1).half()
    found = bank.distance(queries, 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain(bank, queries, 0), **EXACT)


# --- what is kept


def test_the_live_bank_holds_the_rounded_values():
    tokens = random(2, 3, 4, 8)
    bank = filled(tokens)
    assert bank.rows.dtype == torch.float16
    assert torch.equal(bank.rows, F.normalize(tokens, dim=-1).flatten(1, 2).half())


def test_a_restored_bank_gives_the_very_same_distances(tmp_path):
    bank, queries = filled(random(2, 3, 50, 64)), random(4, 50, 64, seed=1)
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    restored = MemoryBank()
    restored.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    for level in (0, 1):
        assert torch.equal(restored.distance(queries, level), bank.distance(queries, level))


def test_a_copy_takes_the_rows_and_derives_the_rest_again():
    bank, queries = filled(random(2, 3, 50, 64)), random(1, 5, 64, seed=1)
    distance = bank.distance(queries, 1)
    copied = copy.deepcopy(bank)
    assert not copied._searches
    assert torch.equal(copied.distance(queries, 1), distance)


def test_a_bank_pickled_by_a_former_version_is_searched():
    bank, queries = filled(random(1, 3, 4, 8)), random(2, 4, 8, seed=1)
    former = {name: bank.__dict__[name] for name in vars(nn.Module()).keys() | {"_owners"}}
    restored = MemoryBank.__new__(MemoryBank)
    restored.__setstate__(former)
    assert torch.equal(restored.distance(queries, 0), bank.distance(queries, 0))


def test_the_state_is_the_rows_in_half_precision_and_nothing_else():
    state = filled(random(1, 3, 4, 8)).state_dict()
    assert {name: value.dtype for name, value in state.items()} == {"rows": torch.float16}


def test_a_state_of_another_size_is_taken_even_after_a_search():
    small, large = filled(random(1, 2, 4, 8)), filled(random(1, 5, 4, 8, seed=3))
    queries = random(2, 4, 8, seed=1)
    small.distance(queries, 0)
    small.load_state_dict(large.state_dict())
    assert torch.equal(small.distance(queries, 0), large.distance(queries, 0))


def test_a_state_of_the_same_size_is_taken_even_after_a_search():
    one, other = filled(random(1, 2, 4, 8)), filled(random(1, 2, 4, 8, seed=3))
    queries = random(2, 4, 8, seed=1)
    one.distance(queries, 0)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.distance(queries, 0), other.distance(queries, 0))


def test_filling_again_replaces_the_rows():
    first, second = random(1, 4, 4, 8), random(1, 4, 4, 8, seed=3)
    bank, queries = filled(first), random(2, 4, 8, seed=1)
    bank.distance(queries, 0)
    bank.fill(second, torch.arange(4))
    assert torch.equal(bank.distance(queries, 0), filled(second).distance(queries, 0))


def test_a_bank_says_whether_it_is_empty():
    bank = MemoryBank()
    assert bank.is_empty
    bank.fill(random(1, 1, 1, 8), torch.tensor([0]))
    assert not bank.is_empty


def test_no_gradient_is_kept_in_the_rows():
    bank = filled(random(1, 2, 4, 8).requires_grad_())
    assert not bank.rows.requires_grad


# --- leaving one's own out


def test_leaving_out_is_a_bank_without_the_owner_and_its_copies():
    tokens, queries = random(2, 4, 3, 8), random(3, 3, 8, seed=1)
    bank = filled(tokens, owners=[7, 8, 7, 9])
    without_7, without_9 = filled(tokens[:, [1, 3]]), filled(tokens[:, :3])
    for level in (0, 1):
        found = bank.distance(queries, level, leave_out=torch.tensor([7, 9, -1]))
        for one, others in enumerate((without_7, without_9)):
            expected = others.distance(queries[one : one + 1], level)
            torch.testing.assert_close(found[one : one + 1], expected, **EXACT)
        assert torch.equal(found[2:], bank.distance(queries[2:], level))


def test_an_image_is_far_from_a_bank_without_itself():
    tokens = random(1, 3, 4, 32)
    bank = filled(tokens, owners=[0, 1, 2])
    assert bank.distance(tokens[0], 0).max() < 1e-3
    assert bank.distance(tokens[0], 0, leave_out=torch.arange(3)).min() > 0.1


def test_leaving_out_somebody_unknown_leaves_everything_in():
    bank, queries = filled(random(1, 3, 4, 8)), random(1, 4, 8, seed=1)
    found = bank.distance(queries, 0, leave_out=torch.tensor([99]))
    torch.testing.assert_close(found, bank.distance(queries, 0), **EXACT)


def test_a_bank_knows_whether_others_remain():
    bank = filled(random(1, 2, 4, 8), owners=[3, 3])
    assert not bank.has_others(3)
    assert bank.has_others(4)


def test_leaving_out_the_only_owner_is_an_error():
    bank = filled(random(1, 2, 4, 8), owners=[3, 3])
    with pytest.raises(NotReadyError, match="leave-one-out needs at least two"):
        bank.distance(random(1, 4, 8), 0, leave_out=torch.tensor([3]))


def test_an_empty_bank_says_what_to_do():
    words = re.escape("memory bank is empty: train with k_shot > 0, or load a checkpoint")
    with pytest.raises(NotReadyError, match=words):
        MemoryBank().distance(torch.zeros(1, 1, 8), 0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_token_without_a_direction_has_no_distance(bad):
    """FAISS finds a row for NaN, and a norm that overflows makes a vector of zeros."""
    bank, queries = filled(random(1, 3, 4, 8)), random(2, 4, 8, seed=1)
    queries[1, 2, 5] = bad
    words = "images to score are NaN, infinite, or too long for float32.*lower learning rate"
    with pytest.raises(NonFiniteError, match=words):
        bank.distance(queries, 0)
    with pytest.raises(NonFiniteError, match=words):
        bank.distance(queries, 0, leave_out=torch.tensor([0, 1]))
    with pytest.raises(NonFiniteError, match=words):
        bank.nearest(queries, 0)
    assert bank.distance(queries[:1], 0).isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_token_without_a_direction_gets_into_no_bank(bad):
    tokens = random(2, 3, 4, 8)
    tokens[1, 2, 3, 0] = bad
    bank = MemoryBank()
    with pytest.raises(NonFiniteError, match="tokens of support images are NaN"):
        bank.fill(tokens, torch.arange(3))
    assert bank.is_empty


# --- traced graphs and the GPU


def test_an_only_normal_image_has_nothing_to_be_compared_with_but_itself():
    assert number_owners(["ann", "ann"], [False, True]) == [-1, 1]
    bank = filled(random(1, 1, 4, 8), owners=[-1])
    assert not bank.has_others(-1)
    queries = random(1, 4, 8, seed=1)
    found = bank.distance(queries, 0, leave_out=torch.tensor([-1]))
    torch.testing.assert_close(found, bank.distance(queries, 0), **EXACT)


class Distance(nn.Module):
    """A model that asks a bank for the distances of its input."""

    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, tokens):
        return torch.stack([self.bank.distance(tokens, level) for level in range(2)])


def test_a_traced_graph_finds_the_same_distances():
    model, queries = Distance(filled(random(2, 3, 20, 64))), random(2, 20, 64, seed=1)
    graph = torch.export.export(model, (queries,)).module()
    other = random(2, 20, 64, seed=2)
    torch.testing.assert_close(graph(other), model(other), **EXACT)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_finds_the_same_distances_and_leaves_out_the_same_owners():
    bank, queries = filled(random(2, 8, 100, 256)), random(4, 100, 256, seed=1)
    leave_out = torch.tensor([0, 3, -1, 7])
    expected = bank.distance(queries, 1), bank.distance(queries, 1, leave_out)
    bank, queries = bank.cuda(), queries.cuda()
    found = bank.distance(queries, 1), bank.distance(queries, 1, leave_out.cuda())
    for there, here in zip(found, expected, strict=True):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, **EXACT)
