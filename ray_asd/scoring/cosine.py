"""Cosine distances in float64 that depend on the two vectors alone, and the bounds that let float32 search for them.

The distance of two vectors is ``1 - sum(a * b)``, a and b divided by their own norms first, all in float64. Every sum
runs over a contiguous last axis, hence in one order whatever else is computed beside it: BLAS does not promise so.

Shapes: N bank rows, Q queries, E values, P pairs of a query and a bank row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_asd.errors import StageError

_BLOCK = 2**16  # values worked on at a time: fit a core's cache, never change a result

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class NoDirection(StageError):
    """A vector that is zero or not finite, hence has no direction; ``row`` is the first such."""

    def __init__(self, what: str, row: int, why: str, count: int) -> None:
        self.row = row
        super().__init__(f"{what} {row} is {why}: it has no direction ({count} such)")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Distances [Q, k], ascending, and the bank rows [Q, k] they belong to; inf and -1 where there are fewer than k."""

    distances: Floats
    rows: Rows


def merge(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The k nearest of what each part of a bank found for the same queries: the same as from the bank in one piece.

    Raises:
        StageError: there are no parts, or they answer different numbers of queries.
    """
    counts = {len(part.distances) for part in parts}
    if len(counts) != 1:
        raise StageError(f"parts that answer {sorted(counts)} queries cannot be merged; one number is needed")
    distances = np.concatenate([part.distances for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    queries, columns = np.nonzero(rows >= 0)
    return nearest(queries, rows[queries, columns], distances[queries, columns], len(rows), k)


def nearest(queries: Rows, rows: Rows, distances: Floats, count: int, k: int) -> Neighbours:
    """The k best pairs of each of ``count`` queries by (distance, row), from pairs [P] given in any order."""
    order = np.lexsort((rows, distances, queries))
    queries = queries[order]
    rank = np.arange(len(order)) - np.searchsorted(queries, queries)
    order, queries, rank = (array[rank < k] for array in (order, queries, rank))
    found = Neighbours(np.full((count, k), np.inf), np.full((count, k), -1, dtype=np.int64))
    found.distances[queries, rank] = distances[order]
    found.rows[queries, rank] = rows[order]
    return found


def error(dim: int, dtype: type[np.floating]) -> float:
    """The most that an inner product of two unit vectors of ``dim`` values, taken in ``dtype``, differs from its value.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: n u / (1 - n u) whatever the order of the sum,
    here with n = dim + 4, both vectors being rounded too. u is the spacing of numbers at 1, twice the unit roundoff:
    it holds for truncating arithmetic too, and in rounding arithmetic leaves half for the float64 sum compared with.
    """
    total = (dim + 4) * float(np.finfo(dtype).eps)
    return total / (1 - total)


def norms(vectors: Vectors, what: str, first_row: int = 0) -> Floats:
    """Euclidean norms [N] of rows [N, E]; no square of a float32 value overflows or vanishes in float64.

    Raises:
        NoDirection: a row is zero or not finite; it is called ``what`` and its number, counted from ``first_row``.
    """
    lengths = np.empty(len(vectors))
    for block in blocks(*vectors.shape):
        lengths[block] = np.sqrt(np.square(vectors[block], dtype=np.float64).sum(axis=-1))
    useless = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(useless):
        why = "zero" if lengths[useless[0]] == 0 else "not finite"
        raise NoDirection(what, first_row + int(useless[0]), why, len(useless))
    return lengths


def units(vectors: Vectors, lengths: Floats) -> Floats:
    """Rows [N, E] divided by their norms [N]."""
    scaled: Floats = vectors / lengths[:, None]
    return scaled


def float32_units(vectors: Vectors, lengths: Floats) -> Vectors:
    """``units`` rounded to float32, without a float64 copy of all of them."""
    scaled = np.empty(vectors.shape, dtype=np.float32)
    for block in blocks(*vectors.shape):
        np.divide(vectors[block], lengths[block, None], out=scaled[block], dtype=np.float64, casting="same_kind")
    return scaled


def distances(query_units: Floats, queries: Rows, vectors: Vectors, lengths: Floats, rows: Rows) -> Floats:
    """Distances [P] of the queries' units [Q, E] number ``queries`` [P] to vectors [N, E] number ``rows`` [P]."""
    found = np.empty(len(rows))
    for block in blocks(len(rows), vectors.shape[1]):
        products = units(vectors[rows[block]], lengths[rows[block]])
        products *= query_units[queries[block]]
        found[block] = 1 - products.sum(axis=-1)
    return found


def blocks(count: int, values_each: int, values: int = _BLOCK) -> list[slice]:
    """Consecutive parts of ``count`` rows, each of about ``values`` values, at least one row."""
    size = max(1, values // max(1, values_each))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
