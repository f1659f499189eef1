"""The largest cosine with any of many rows: by FAISS, or by a bf16 scan and a second look.

The scan cannot miss a row. Let x be a query and y a row less the mean row, both as coordinates on
the leading principal axes of the rows, x' and y' the same rounded, and let tails be what the axes
leave out. Then, by Cauchy and Schwarz,

    cosine <= query . mean + x'.y' + |x - x'| |y| + |x'| |y - y'| + |query's tail| |row's tail|

Each product is a number of the query times one of the row, so that one matrix product with a few
more columns gives the whole bound. All norms come from float64 and are rounded up. Only rows whose
bound reaches the cosine of a row found already are compared in full.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Float64, Int
from torch import Tensor

_FINE = 8
"""Leading axes kept as sums of two bf16 numbers: they hold most of a vector, and of its error."""

_MORE = 2 * _FINE + 6
"""Columns besides one for each axis."""

_LEFT_OUT = 0.01
"""Share of the rows' variance that the axes may leave out."""

_FEW_ROWS = 4096
"""With fewer, finding the axes is not worth it."""

_BLOCK = 16
"""Rows that share one maximum."""

_SUM = 1.1 * 2**-24
"""Times n and the sum of their sizes: more than n products summed in float32 can be wrong by."""

_EXACT = 3e-7
"""More than the cosines of a second look, and all else in float64, can be wrong by."""

_SAMPLE = 6000
"""Rows that the axes are found from."""

_MOST = 256
"""Blocks worth a second look for one query; beyond, the plain product is faster."""

Cosines = Float[Tensor, "query"]
Numbers = Int[Tensor, "query"]


def search(
    queries: Float[Tensor, "query width"], rows: Float[Tensor, "row width"]
) -> tuple[Cosines, Numbers]:
    """Largest inner product of each query with any row, and the row's number, by FAISS.

    On a GPU without FAISS's build for GPUs, and on devices that FAISS does not know, by plain
    products.

    Args:
        queries: Vectors in float32.
        rows: Vectors in float32, on the same device.
    """
    queries, rows = queries.detach().contiguous(), rows.contiguous()
    known = queries.device.type in ("cpu", "cuda")
    if not known or (queries.is_cuda and not _faiss_is_for_gpus()):
        return largest(queries, rows)
    import faiss  # takes a while, and only a search needs it

    if not queries.is_cuda:
        found = faiss.knn(queries.numpy(), rows.numpy(), 1, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(found[0][:, 0]), torch.from_numpy(found[1][:, 0])
    resources = _gpu_resources()  # first: it puts a knn_gpu into FAISS that takes tensors
    metric = faiss.METRIC_INNER_PRODUCT
    cosines, numbers = faiss.knn_gpu(resources, queries, rows, 1, metric=metric)
    return cosines[:, 0], numbers[:, 0]


def largest(
    queries: Float[Tensor, "query width"], rows: Float[Tensor, "row width"]
) -> tuple[Cosines, Numbers]:
    """Largest cosine of each query with any row, and the row's number, by plain products.

    Args:
        queries: Unit vectors in float32, or in float64 to have sums in it.
        rows: Vectors of any length and precision, on the same device; unit vectors in float32.
    """
    best = queries.new_full(queries.shape[:1], -torch.inf)
    numbers = torch.zeros_like(best, dtype=torch.long)
    with torch.autocast(queries.device.type, enabled=False):
        for start in range(0, len(rows), 8192):  # all products at once would need gigabytes
            part = unit(rows[start : start + 8192]).to(queries.dtype)
            cosines, found = (queries @ part.T).max(dim=1)
            numbers = torch.where(cosines > best, found + start, numbers)
            best = torch.maximum(cosines, best)
    return best, numbers


def unit(vectors: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Unit vectors in float32; a vector of zeros stays one."""
    return F.normalize(vectors.float(), dim=-1)


def mean_and_axes(
    rows: Float[Tensor, "row width"],
) -> tuple[Float64[Tensor, "width"], Float64[Tensor, "width axis"]]:
    """Mean of unit rows and the axes that leave out little of their variance, from a sample.

    Args:
        rows: Vectors of any length and precision.
    """
    sample = unit(rows[:: -(-len(rows) // _SAMPLE)]).double()
    energies, axes = torch.linalg.eigh(sample.T @ sample / len(sample))  # the least ones first
    mean = sample.mean(dim=0)
    variance = (1 - mean.square().sum()).clamp(min=0)
    kept = int((energies.cumsum(0) > _LEFT_OUT * variance).sum())
    count = kept + -(kept + _MORE) % 32  # columns in whole groups
    return mean, axes.flip(1)[:, :count].contiguous()


class Scan:
    """Rows made ready for many queries, on a processor that multiplies bf16 in hardware.

    Besides the rows it holds, of each, one bf16 number for every axis and a few more.

    Args:
        rows: Vectors of any length and precision; they are compared as unit vectors in float32.
        mean: A vector to count the rows from. Any is right, and their mean is fast.
        axes: Orthonormal axes. Any are right, and the rows' leading principal axes are fast.
    """

    def __init__(
        self,
        rows: Float[Tensor, "row width"],
        mean: Float64[Tensor, "width"],
        axes: Float64[Tensor, "width axis"],
    ) -> None:
        self.rows, self.mean, self.axes = rows, mean, axes
        # Whole blocks: the last row fills up the last one.
        numbers = torch.arange(len(rows) + -len(rows) % _BLOCK).clamp(max=len(rows) - 1)
        parts = [self._row_columns(unit(rows[some])) for some in numbers.split(4096)]
        self.columns = torch.cat(parts)
        self.sample = self.columns[::_BLOCK].contiguous()

    @classmethod
    def fitting(cls, rows: Float[Tensor, "row width"]) -> "Scan | None":
        """A scan of these rows, or nothing where FAISS is faster."""
        if len(rows) < _FEW_ROWS or not torch.cpu._is_avx512_bf16_supported():
            return None
        return cls(rows, *mean_and_axes(rows))

    def nearest(self, queries: Float[Tensor, "query width"]) -> tuple[Cosines, Numbers]:
        """Largest cosine of each query with any row, and the row's number.

        Args:
            queries: Unit vectors in float32.
        """
        queries = queries.detach()
        numbers, _, too_many = self._scanned(queries)
        if too_many.any():
            # In float64, so that the choice is that of a second look, whatever else is asked.
            numbers[too_many] = largest(queries[too_many].double(), self.rows)[1]
        return self._cosines(queries, numbers).float(), numbers

    def _scanned(self, queries: Tensor) -> tuple[Numbers, Tensor, Tensor]:
        """The nearest row of each query, how many were looked at, and whether it were too many."""
        with torch.autocast("cpu", enabled=False):
            found = [self._scanned_part(part) for part in queries.split(256)]
        numbers, looks, too_many = (torch.cat(part) for part in zip(*found, strict=True))
        return numbers, looks, too_many

    def _scanned_part(self, queries: Tensor) -> tuple[Numbers, Tensor, Tensor]:
        columns, at_mean = self._query_columns(queries)
        number = (columns @ self.sample.T).argmax(dim=1).mul_(_BLOCK)
        cosine = self._cosines(queries, number)
        error = self.columns.shape[1] * _SUM * (cosine - at_mean).abs() + _EXACT
        # Bounds are counted from just below what some row has for sure: near zero they are precise
        # in bf16, and floats above zero are ordered as their bits are.
        above = cosine - at_mean
        shift = _in_two(above - 2 * error - 2**-16 * (1 + above.abs()))
        columns[:, -2:] = -shift
        zero = at_mean + shift.double().sum(dim=1)
        bounds = (columns @ self.columns.T).view(torch.int16).view(len(queries), _BLOCK, -1)
        blocks = bounds.amax(dim=1)
        every, block = torch.arange(len(queries)), blocks.argmax(dim=1)
        row = self._row(bounds[every, :, block].argmax(dim=1), block)
        cosine, number = self._better(queries, every, row, cosine, number)
        limit = (cosine - zero - error).bfloat16().view(torch.int16)
        reached = blocks >= limit[:, None]
        too_many = reached.sum(dim=1) > _MOST
        query, block = (reached & ~too_many[:, None]).nonzero(as_tuple=True)
        pair, place = (bounds[query, :, block] >= limit[query, None]).nonzero(as_tuple=True)
        query, row = query[pair], self._row(place, block[pair])
        _, number = self._better(queries, query, row, cosine, number)
        return number, query.bincount(minlength=len(queries)), too_many

    def _row(self, place: Tensor, block: Tensor) -> Tensor:
        """Number of a row: those of a block lie apart, which is faster than neighbours."""
        return (place * (len(self.columns) // _BLOCK) + block).clamp_(max=len(self.rows) - 1)

    def _better(
        self, queries: Tensor, query: Tensor, row: Tensor, cosine: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each query's cosine and row, after a look at some pairs of queries and rows."""
        pairs = zip(query.split(1024), row.split(1024), strict=True)
        found = torch.cat([self._cosines(queries[q], r) for q, r in pairs])
        best = cosine.scatter_reduce(0, query, found, "amax")
        improved = found > cosine[query]
        hit = improved & (found == best[query])
        return best, number.index_put((query[hit],), row[hit])

    def _cosines(self, queries: Tensor, row: Tensor) -> Float64[Tensor, "query"]:
        """Cosine of each query with one row; the numbers are float32, their sums are not."""
        return (queries.double() * unit(self.rows[row])).sum(dim=1)

    def _query_columns(self, queries: Tensor) -> tuple[Tensor, Float64[Tensor, "query"]]:
        """What is multiplied with the rows' columns, and the cosine to the mean.

        The last two columns are for a number to take off.
        """
        full = queries.double()
        high, low, _, rounded, lost, tail = _parts(full, self.axes)
        norms = _rounded_up(lost, rounded, tail, torch.ones_like(tail))
        columns = [high, high[:, :_FINE], low, norms, high.new_zeros(len(high), 2)]
        return torch.cat(columns, dim=1), full @ self.mean

    def _row_columns(self, rows: Tensor) -> Tensor:
        full = rows.double() - self.mean
        high, low, whole, _, lost, tail = _parts(full, self.axes)
        # With a unit query, the sizes of a row's products add up to at most 1.1 of its length. The
        # fine axes miss the product of two second parts, at most 2^-8 of a number each, and two
        # products with third parts, at most 2^-17 each: 2^-15 in all.
        count = self.axes.shape[1] + _MORE
        error = full.norm(dim=1) * (1.1 * count * _SUM + 1.01 * 2**-15)
        norms = _rounded_up(whole, lost, tail, error)
        columns = [high, low, high[:, :_FINE], norms, high.new_ones(len(high), 2)]
        return torch.cat(columns, dim=1)


class _Parts(NamedTuple):
    """Coordinates on the axes in bf16, and the lengths that the proof needs."""

    high: BFloat16[Tensor, "vector axis"]
    low: BFloat16[Tensor, "vector fine"]
    whole: Float64[Tensor, "vector"]
    rounded: Float64[Tensor, "vector"]
    lost: Float64[Tensor, "vector"]
    tail: Float64[Tensor, "vector"]


def _parts(vectors: Float64[Tensor, "vector width"], axes: Float64[Tensor, "width axis"]) -> _Parts:
    """The lengths of coordinates, of rounded ones and of what is lost are without the fine axes."""
    on_axes = vectors @ axes
    high = on_axes.bfloat16()
    lost = on_axes - high.double()
    tail = vectors.square().sum(dim=1) - on_axes.square().sum(dim=1)
    return _Parts(
        high=high,
        low=lost[:, :_FINE].bfloat16(),
        whole=on_axes[:, _FINE:].norm(dim=1),
        rounded=high[:, _FINE:].double().norm(dim=1),
        lost=lost[:, _FINE:].norm(dim=1),
        tail=(tail.clamp_(min=0) + 1e-12).sqrt(),  # a difference of ones errs by some 1e-15
    )


def _rounded_up(*lengths: Tensor) -> BFloat16[Tensor, "vector length"]:
    return (torch.stack(lengths, dim=1) * (1 + 2**-7)).bfloat16()


def _in_two(numbers: Tensor) -> BFloat16[Tensor, "number 2"]:
    """Sums of two bf16 numbers."""
    high = numbers.bfloat16()
    return torch.stack([high, (numbers - high.double()).bfloat16()], dim=1)


def _faiss_is_for_gpus() -> bool:
    """Whether FAISS is here, and not its build for processors alone."""
    if find_spec("faiss") is None:
        return False
    import faiss

    return hasattr(faiss, "StandardGpuResources")  # only a build for GPUs has it


@cache
def _gpu_resources() -> Any:  # noqa: ANN401 - absent from FAISS's CPU build
    """FAISS's scratch memory on the GPU, taken once; FAISS's functions take tensors from then."""
    import faiss
    import faiss.contrib.torch_utils  # lets FAISS read tensors where they lie

    return faiss.StandardGpuResources()
